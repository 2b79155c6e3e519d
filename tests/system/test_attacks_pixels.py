"""T11: a bomb among a study's images costs its own image; the worker that met it scores the next study."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import JPEG2000Lossless
from sqlalchemy import select

from db.lifecycle import JobState
from db.tables import Analysis
from tests.running_node import RunningNode, until
from training.datasets.phantom_objects import study

pytestmark = [pytest.mark.slow_proof, pytest.mark.timeout(600)]

MOST_MEMORY = 3 << 30


def made_a_bomb(image: Dataset) -> None:
    """Let a small codestream claim 65535 x 65535 pixels."""
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = bytearray(b"".join(list(generate_fragments(image.PixelData))[1:]))
    struct.pack_into(">2I", frame, frame.find(b"\xff\x51") + 6, 65535, 65535)
    image.PixelData = encapsulate([bytes(frame)])


def made_garbage(image: Dataset) -> None:
    """Replace the codestream by bytes that are none."""
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    image.PixelData = encapsulate([bytes(range(256)) * 64])


def test_t11_bombs_and_garbage_are_refused_images_and_the_same_worker_goes_on(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        node.start("listen")
        until((node.data_dir / "keys" / "checkpoint.key").exists, 150, "the listener's start")
        node.start("dispatch")
        worker = node.start("work", "--queues", "score")
        node.wait_for_processes({"listen", "dispatch", "score"})
        images = study(seed=1101, rows=640, columns=512)
        made_a_bomb(images[0])
        made_garbage(images[1])
        peak = 0

        def scored(count: int) -> bool:
            nonlocal peak
            with suppress(psutil.NoSuchProcess):  # a decoder may end while we look
                family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
                peak = max(peak, sum(process.memory_info().rss for process in family))
            return [job["state"] for job in node.jobs()] == [JobState.DONE] * count

        node.send(images)
        until(lambda: scored(1), 150, "the study with a bomb")
        node.send(study(seed=1102, rows=640, columns=512))
        until(lambda: scored(2), 150, "the next study")

        assert worker.poll() is None, "the worker that met the bomb did both"
        assert [job["attempts"] for job in node.jobs()] == [1, 1]
        assert peak < MOST_MEMORY
        with node.database.reading() as session:
            found = [json.loads(text) for text in session.scalars(select(Analysis.document))]
        codes = sorted(refusal["code"] for analysis in found for refusal in analysis["refusals"])
        assert codes == ["IMAGE_TOO_LARGE", "PIXEL_DATA"]

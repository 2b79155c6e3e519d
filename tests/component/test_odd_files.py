"""Odd and broken files of other projects: stored whole or refused in words, read or refused with a code.

pydicom brings its own. Folders ``dicom-malformed`` and ``dicom-ts`` beneath ``DICOM_NODE_DATA`` are pushed
through in the same way where that variable names such a place.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import dcmread
from pynetdicom.dsutils import split_dataset

from dicom_node.errors import ImageError
from dicom_node.images.decoder_process import DecodeLimits
from dicom_node.images.reader import ImageReader
from dicom_node.listener.contexts import STORAGE_CLASS_UIDS, TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.server import Listener, Storing
from dicom_node.listener.transport import Port
from dicom_node.spool import Spool
from models.contract import RefusalCode
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    Node,
    Rows,
    encoded,
    listening,
    mammogram,
    uid_of,
)
from tests.simulators.raw_scu import AssociationEndedError, Proposal, RawScu

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
ENDED = "ended"
C_STORE_RQ = 0x0001
RELEASE_RQ = struct.pack(">BxIxxxx", 0x05, 4)
DATA = "DICOM_NODE_DATA"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@dataclass(frozen=True)
class Parcel:
    """What a file would be sent as."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes

    @property
    def is_offered(self) -> bool:
        """Whether the node takes its class in its syntax."""
        return self.sop_class_uid in STORAGE_CLASS_UIDS and self.transfer_syntax_uid in TRANSFER_SYNTAX_BY_UID


def parcel(path: Path) -> Parcel:
    """Read what a file is; what is not readable at all is sent as a mammogram."""
    with suppress(Exception):
        meta, offset = split_dataset(path)
        header = dcmread(path, stop_before_pixels=True, force=True)
        return Parcel(
            str(header.get("SOPClassUID", MG_FOR_PRESENTATION)),
            str(header.get("SOPInstanceUID", "2.25.1")),
            str(meta.get("TransferSyntaxUID", EXPLICIT_LITTLE)),
            path.read_bytes()[offset:],
        )
    return Parcel(MG_FOR_PRESENTATION, "2.25.1", EXPLICIT_LITTLE, path.read_bytes())


def store(node: Node, item: Parcel) -> int | str:
    """Send a file as what it is; as a mammogram where the node does not take what it is."""
    offered = item.is_offered
    proposal = Proposal(
        item.sop_class_uid if offered else MG_FOR_PRESENTATION,
        item.transfer_syntax_uid if offered else EXPLICIT_LITTLE,
    )
    with RawScu(node.port, proposal) as scu:
        assert scu.results == [0]
        try:
            status = scu.store(item.data, proposal.abstract_syntax, item.sop_instance_uid)
        except AssociationEndedError:
            return ENDED
        scu.release()
        return status


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader(DecodeLimits(wall_s=30.0)) as opened:
        yield opened


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with listening(tmp_path) as node:
        yield node


def push_through(paths: list[Path], node: Node, reader: ImageReader) -> Counter[str]:
    """Send files, then read what was stored; count what became of them."""
    became: Counter[str] = Counter()
    for path in paths:
        item, before = parcel(path), len(node.rows.all)
        status = store(node, item)
        assert status in (0x0000, 0xA900, 0xC000, 0x0122, ENDED), path.name
        is_new = len(node.rows.all) > before
        assert not is_new or status == 0x0000, path.name
        became["stored" if status == 0x0000 else "refused"] += 1
        if not is_new:
            continue
        row = node.rows.all[-1]
        assert node.content(before).endswith(item.data), path.name
        try:
            reader.read(node.spool.path_of(row.spool_name), row.sop_instance_uid)
            became["read"] += 1
        except ImageError as refused:
            assert refused.code in set(RefusalCode), path.name
            became[refused.code] += 1
    assert len(node.files()) == len(node.rows.all), "what was refused left nothing"
    return became


def test_every_file_that_pydicom_brings_is_stored_or_refused(node: Node, reader: ImageReader) -> None:
    paths = sorted(path for path in BUNDLED.rglob("*.dcm") if path.is_file())
    assert len(paths) > 50
    became = push_through(paths, node, reader)
    assert became["stored"] > 20
    assert became["refused"] > 10
    assert became["read"] > 5


def test_an_object_that_is_broken_off_is_gone_before_anybody_hears_of_it(tmp_path: Path) -> None:
    dataset = mammogram(Rows=30_000, PixelData=bytes(30_000 * 96))
    left: list[list[Path]] = []
    spool = Spool(tmp_path / "spool")

    def note(action: str, detail: dict[str, Any]) -> None:
        left.append([path for path in spool.root.rglob("*") if path.is_file()])

    listener = Listener(
        "NODE",
        Port("127.0.0.1", 0),
        Storing(spool, Rows().register),
        limits=ListenerLimits(min_free_bytes=0),
        on_event=note,
    )
    listener.start()
    try:
        with RawScu(listener.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
            scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
            scu.send_data(encoded(dataset)[:2_500_000], is_whole=False)
            scu.socket.sendall(RELEASE_RQ)
            scu.wait_for_end()
    finally:
        listener.stop(deadline_s=5)
    assert left == [[]]


@pytest.mark.skipif(
    DATA not in os.environ, reason=f"{DATA} names no folder with dicom-malformed and dicom-ts"
)
@pytest.mark.parametrize("folder", ["dicom-malformed", "dicom-ts"])
def test_every_odd_file_of_others_is_stored_or_refused(folder: str, node: Node, reader: ImageReader) -> None:
    paths = sorted(path for path in (Path(os.environ[DATA]) / folder).iterdir() if path.suffix != ".csv")
    assert paths
    became = push_through(paths, node, reader)
    assert became["stored"] + became["refused"] == len(paths)
    assert became["stored"]

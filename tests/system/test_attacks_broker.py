"""T22: no message runs anything; whoever can write to Redis can at most end a worker, which comes back.

That a line which is no message at all ends a worker, and costs no study, is shown by the tests of the broker.
"""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from db.lifecycle import JobState
from tests.redis_server import RedisServer, redis_server
from tests.running_node import RunningNode, until
from tests.simulators.pacs import SimulatedPacs
from training.datasets.phantom_objects import study

__all__ = ["redis_server"]

pytestmark = [pytest.mark.slow_proof, pytest.mark.redis, pytest.mark.timeout(600)]

QUEUE = "DICOM_NODE:deliver"
BACK_WITHIN_S = 120.0


class RunsOnLoad:
    """A pickle of it touches a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._path,)


@dataclass
class Target:
    """A node whose deliver worker listens to Redis."""

    node: RunningNode
    pacs: SimulatedPacs
    redis: RedisServer

    def push(self, message: bytes) -> None:
        """Put a message where the worker takes it."""
        with self.redis.client() as client:
            client.lpush(QUEUE, message)

    def taken(self) -> bool:
        """Whether no message is left."""
        return self.redis.length(QUEUE) == 0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Target]:
    settings = {"scoring": {"workers": 1}, "training": {"workers": 0}}
    with (
        SimulatedPacs() as pacs,
        RunningNode(
            tmp_path_factory.mktemp("broker"),
            [pacs.destination],
            broker_url=redis_server.url,
            settings=settings,
        ) as node,
    ):
        node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"})
        yield Target(node, pacs, redis_server)


def message(body: bytes, content_type: str, task: str, *, encoding: str = "utf-8") -> bytes:
    """A message in Celery's own envelope (protocol 2, as Redis carries it)."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {
                "lang": "py",
                "task": task,
                "id": str(uuid.uuid4()),
                "root_id": None,
                "parent_id": None,
                "group": None,
            },
            "properties": {
                "correlation_id": str(uuid.uuid4()),
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    ).encode()


def arguments(*values: object) -> bytes:
    return json.dumps([list(values), {}, {}]).encode()


def test_t22_no_message_runs_anything_and_studies_are_reported_all_the_same(
    target: Target, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    payload = pickle.dumps(RunsOnLoad(marker))
    pickle.loads(payload)  # noqa: S301 - the payload does what it says
    assert marker.exists()
    marker.unlink()
    yaml = f"!!python/object/apply:os.system ['touch {marker}']".encode()
    attacks = [
        message(payload, "application/x-python-serialize", "dicom_node.deliver", encoding="binary"),
        message(yaml, "application/x-yaml", "dicom_node.deliver"),
        message(arguments(str(marker)), "application/json", "os.system"),
        message(arguments(), "application/json", "dicom_node.deliver"),
        message(arguments({"job": [1]}, 2, 3), "application/json", "dicom_node.deliver"),
        message(arguments("' OR 1=1 --"), "application/json", "dicom_node.deliver"),
        message(b"[[", "application/json", "dicom_node.deliver"),
        message(arguments("x" * 50_000_000), "application/json", "dicom_node.deliver"),
        b'{"no": "envelope"}',
    ]
    for attack in attacks:
        target.push(attack)
        until(target.taken, BACK_WITHIN_S, "somebody who takes the next message")
    images = study(seed=922, rows=640, columns=512)
    target.node.send(images)
    target.node.wait_until_delivered(1)
    assert not marker.exists()
    (job,) = target.node.jobs()
    assert job["state"] == JobState.DONE
    assert set(target.pacs.hashes) == {row["sop_instance_uid"] for row in target.node.results()}
    assert "x" * 1000 not in target.node.log, "what was sent is not told again"
    assert target.node.verify_audit().ok

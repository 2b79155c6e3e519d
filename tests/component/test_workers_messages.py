"""Doorbells on a real Redis: what they carry, whom they reach, and how long a dead broker holds us up."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path

import pytest
from kombu import pools

from db.lifecycle import JobKind
from tests.redis_server import RedisServer, Watcher, redis_binary, redis_server
from tests.running_node import until
from tests.simulators.certificates import Authority
from workers.app import create_app, ring

__all__ = ["redis_server"]

pytestmark = pytest.mark.redis


def test_a_message_carries_the_job_id_and_nothing_else(redis_server: RedisServer) -> None:
    job_id = uuid.uuid4().hex
    with create_app(redis_server.url, key_prefix="PLAIN") as app:
        ring(app, JobKind.SCORE, job_id)
    with redis_server.client() as client:
        raw = client.lpop("PLAIN:score")
    message = json.loads(raw)  # type: ignore[arg-type]
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "dicom_node.score"
    assert message["headers"]["argsrepr"] == "job"
    assert message["headers"]["kwargsrepr"] == ""
    assert job_id not in json.dumps(message["headers"])
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == ([job_id], {})


@pytest.mark.parametrize("kind", JobKind)
def test_each_kind_has_its_queue_below_the_nodes_own_prefix(redis_server: RedisServer, kind: JobKind) -> None:
    with create_app(redis_server.url, key_prefix="NODE_A") as app:
        ring(app, kind, uuid.uuid4().hex)
    assert redis_server.length(f"NODE_A:{kind.value}") == 1
    redis_server.flush()


def test_two_nodes_on_one_redis_do_not_see_each_others_messages(redis_server: RedisServer) -> None:
    mine, others = uuid.uuid4().hex, uuid.uuid4().hex
    with (
        create_app(redis_server.url, key_prefix="NODE_A") as app_a,
        create_app(redis_server.url, key_prefix="NODE_B") as app_b,
        Watcher(redis_server) as watcher,
    ):
        ring(app_b, JobKind.SCORE, others)
        with app_a.connection_for_read() as line, line.SimpleQueue(app_a.amqp.queues["score"]) as queue:
            with pytest.raises(queue.Empty):
                queue.get(block=False)
            ring(app_a, JobKind.SCORE, mine)
            message = queue.get(timeout=60)
            assert message.payload[0] == [mine]
            message.ack()

        def prefixes() -> set[str]:
            pushed = [line.split('"') for line in watcher.traffic.splitlines() if '"LPUSH"' in line.upper()]
            return {parts[3].partition(":")[0] for parts in pushed if len(parts) > 4}

        until(lambda: len(prefixes()) > 1, 30, "what the server tells of both messages")
    assert prefixes() == {"NODE_A", "NODE_B"}
    assert redis_server.length("NODE_B:score") == 1, "it is still there for its own node"
    redis_server.flush()


def test_a_redis_that_is_down_fails_a_ring_within_seconds(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisServer(redis_binary(), tmp_path_factory.mktemp("down")) as server:
        url = server.url
    with create_app(url, key_prefix="X") as app:
        started = time.monotonic()
        with pytest.raises(Exception) as caught:
            ring(app, JobKind.SCORE, uuid.uuid4().hex)
        assert time.monotonic() - started < 15
    assert isinstance(caught.value, OSError | ConnectionError) or "kombu" in type(caught.value).__module__


def test_a_redis_over_tls_must_prove_who_it_is(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """T23: who rings and who answers trust the authority that the address names, or the machine's own."""
    authority = Authority(tmp_path / "tls")
    files = authority.issue("redis", "127.0.0.1")
    job_id = uuid.uuid4().hex
    with RedisServer(redis_binary(), tmp_path_factory.mktemp("secure"), tls=files) as server:
        address = f"rediss://:{server.password}@127.0.0.1:{server.tls_port}/0"
        other = Authority(tmp_path / "other", "other").path
        for stranger in (address, f"{address}?ssl_ca_certs={other}"):
            with create_app(stranger, key_prefix="X") as app, pytest.raises(Exception, match="VERIFY_FAILED"):
                ring(app, JobKind.SCORE, job_id)
            pools.reset()
        assert server.length("X:score") == 0
        with create_app(f"{address}?ssl_ca_certs={authority.path}", key_prefix="X") as app:
            ring(app, JobKind.SCORE, job_id)
            with app.connection_for_read() as line, line.SimpleQueue(app.amqp.queues["score"]) as queue:
                assert queue.get(timeout=60).payload[0] == [job_id]


def test_a_redis_that_is_frozen_fails_a_ring_within_its_time_outs(redis_server: RedisServer) -> None:
    with create_app(redis_server.url, key_prefix="X") as app:
        ring(app, JobKind.SCORE, uuid.uuid4().hex)
        with redis_server.frozen():
            started = time.monotonic()
            with pytest.raises(Exception, match=r"(?i)time"):
                ring(app, JobKind.SCORE, uuid.uuid4().hex)
            assert time.monotonic() - started < 40
        ring(app, JobKind.SCORE, uuid.uuid4().hex)
    redis_server.flush()

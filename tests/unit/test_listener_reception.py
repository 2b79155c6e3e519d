"""An object that comes in piece by piece is written and hashed as if it had been there at once."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node.errors import SpoolError, SpoolFullError
from dicom_node.listener.reception import MEMORY_BYTES, IncomingObject, Reception
from dicom_node.spool import Spool, SpooledFile
from dicom_node.spool_writer import BLOCK_BYTES

PREFACE = b"preface" * 50


@pytest.fixture
def reception() -> Iterator[Reception]:
    with closing(Reception()) as made:
        yield made


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def content(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def receive(
    spool: Spool, reception: Reception, data: bytes, piece: int, *, min_free_bytes: int = 0
) -> IncomingObject:
    incoming = IncomingObject(spool, reception, PREFACE, min_free_bytes)
    for start in range(0, len(data), piece):
        incoming.take(memoryview(data[start : start + piece]))
    return incoming


@pytest.mark.parametrize("piece", [777, 16_384, 3 * BLOCK_BYTES])
@pytest.mark.parametrize(
    "size",
    [
        0,
        20_000,
        500_000,
        BLOCK_BYTES - len(PREFACE),
        BLOCK_BYTES,
        MEMORY_BYTES - len(PREFACE),
        MEMORY_BYTES - len(PREFACE) + 1,
        MEMORY_BYTES + 5,
        MEMORY_BYTES + BLOCK_BYTES - len(PREFACE),
        6_300_001,
    ],
    ids="{} bytes".format,
)
def test_a_file_and_its_digest_are_those_of_what_came(
    spool: Spool, reception: Reception, size: int, piece: int
) -> None:
    for seed in (1, 2):  # the second object finds the blocks as the first left them
        data = content(size, seed)
        incoming = receive(spool, reception, data, piece)
        assert bytes(incoming.data()) == data
        stored = incoming.commit()
        assert spool.path_of(stored.name).read_bytes() == PREFACE + data
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert stored.size_bytes == size


def test_an_object_that_is_given_up_leaves_nothing_and_spoils_no_other(
    spool: Spool, reception: Reception
) -> None:
    receive(spool, reception, content(3_000_000, 3), 100_000).discard()
    assert spool.names() == []
    data = content(2_500_000, 4)
    stored = receive(spool, reception, data, 100_000).commit()
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert spool.names() == [stored.name]


@pytest.mark.parametrize(
    ("size", "keep"),
    [
        pytest.param(20_000, IncomingObject.named, id="journaled"),
        pytest.param(20_000, IncomingObject.commit, id="synced by itself"),
        pytest.param(3_000_000, IncomingObject.commit, id="longer than memory"),
    ],
)
def test_whatever_its_way_an_object_does_not_reach_into_the_reserve(
    spool: Spool, reception: Reception, size: int, keep: Callable[[IncomingObject], SpooledFile]
) -> None:
    incoming = receive(spool, reception, content(size, 7), 100_000, min_free_bytes=1 << 62)
    with pytest.raises(SpoolFullError, match="reserve"):
        keep(incoming)
    assert not any(path.is_file() for path in spool.root.rglob("*"))


def test_the_rest_of_an_object_of_which_the_disk_lost_a_part_is_not_taken_for_the_whole(
    spool: Spool, reception: Reception
) -> None:
    incoming = IncomingObject(spool, reception, PREFACE, min_free_bytes=0)
    shards = [path for path in spool.root.iterdir() if path.is_dir()]
    for shard in shards:
        shard.rmdir()
    incoming.take(memoryview(content(3_000_000, 8)))
    for shard in shards:
        shard.mkdir()
    incoming.take(memoryview(content(3_000_000, 9)))
    with pytest.raises(SpoolError, match="ENOENT"):
        incoming.data()
    with pytest.raises(SpoolError, match="ENOENT"):
        incoming.commit()
    assert not any(path.is_file() for path in spool.root.rglob("*"))


def test_small_objects_need_no_thread_and_a_closed_reception_keeps_none(spool: Spool) -> None:
    before = set(threading.enumerate())

    def hashing() -> int:
        return sum(each.name == "listener-hash" for each in set(threading.enumerate()) - before)

    with closing(Reception()) as reception:
        receive(spool, reception, content(20_000, 5), 20_000).commit()
        assert hashing() == 0
        receive(spool, reception, content(1_500_000, 6), 20_000).commit()
        assert hashing() == 1
    assert hashing() == 0


@pytest.mark.parametrize("piece", [777, 16_384, 3 * BLOCK_BYTES])
@pytest.mark.parametrize(
    "size", [0, 20_000, BLOCK_BYTES + 4000, MEMORY_BYTES - len(PREFACE)], ids="{} bytes".format
)
def test_an_object_in_memory_is_the_image_of_its_file_and_is_on_no_disk(
    spool: Spool, reception: Reception, size: int, piece: int
) -> None:
    for seed in (1, 2):
        data = content(size, seed)
        incoming = receive(spool, reception, data, piece)
        assert incoming.image_bytes == len(PREFACE) + size
        assert incoming.size_bytes == size
        name = incoming.named()
        assert bytes(incoming.image()) == PREFACE + data
        assert not spool.path_of(name).exists()

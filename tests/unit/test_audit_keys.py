"""Keys lie in files that nobody else can read, and survive every start, crash and rotation."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from db.audit.keys import AuditKey, CheckpointKey, signature_is_valid
from db.errors import AuditError


def test_a_key_is_made_once_and_read_ever_after(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.key"

    made = AuditKey.load_or_create(path)
    read = AuditKey.load_or_create(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["audit.key"]
    assert read.newest_id == made.newest_id
    assert read.mac(read.newest_id, "0" * 64, "{}") == made.mac(made.newest_id, "0" * 64, "{}")


def test_processes_that_start_at_the_same_time_agree_on_the_key(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(AuditKey.load_or_create(tmp_path / "audit.key").newest_id)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
@pytest.mark.parametrize("kind", [AuditKey, CheckpointKey])
def test_a_key_file_that_others_can_read_or_write_is_refused(
    tmp_path: Path, mode: int, kind: type[AuditKey | CheckpointKey]
) -> None:
    path = tmp_path / "some.key"
    kind.load_or_create(path)
    before = path.read_bytes()
    path.chmod(mode)

    with pytest.raises(AuditError, match=f"run: chmod 600 {path}"):
        kind.load_or_create(path)
    assert path.read_bytes() == before


def test_a_key_that_is_not_there_is_to_be_restored_or_was_never_made(tmp_path: Path) -> None:
    with pytest.raises(
        AuditError, match=r"is not there; restore it, or, where no node ever ran here, start one"
    ):
        AuditKey.load(tmp_path / "audit.key")
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_key_file_is_refused(tmp_path: Path) -> None:
    AuditKey.load_or_create(tmp_path / "elsewhere.key")
    (tmp_path / "audit.key").symlink_to(tmp_path / "elsewhere.key")

    with pytest.raises(AuditError, match="cannot be read"):
        AuditKey.load_or_create(tmp_path / "audit.key")


@pytest.mark.parametrize("content", ["", "not hexadecimal", "00" * 16, "zz" * 32])
def test_a_damaged_key_file_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.key"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(AuditError, match="not an audit key file"):
        AuditKey.load_or_create(path)
    with pytest.raises(AuditError, match="not a checkpoint key file"):
        CheckpointKey.load_or_create(path)
    assert path.read_text() == content


def test_a_new_key_is_added_behind_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    key = AuditKey.load_or_create(path)
    old_id = key.newest_id

    new_id = key.add_new()

    read = AuditKey.load(path)
    assert new_id != old_id
    assert read.newest_id == new_id
    assert read.knows(old_id)
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_secret_shows_in_a_representation(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    key = AuditKey.load_or_create(path)

    assert path.read_text().strip() not in repr(key)
    assert key.newest_id not in path.read_text()


def test_a_signature_holds_for_its_message_and_key_alone(tmp_path: Path) -> None:
    key = CheckpointKey.load_or_create(tmp_path / "checkpoint.key")
    other = CheckpointKey.load_or_create(tmp_path / "other.key")
    signature = key.sign(b"message")

    assert signature_is_valid(key.public_key, b"message", signature)
    assert not signature_is_valid(key.public_key, b"massage", signature)
    assert not signature_is_valid(other.public_key, b"message", signature)
    assert not signature_is_valid(key.public_key, b"message", "no base64")
    assert not signature_is_valid("no key", b"message", signature)

"""What was refused as faulty is kept for a person, within bounds, and changes no answer."""

from __future__ import annotations

import io
import json
import os
import struct
import time
from pathlib import Path

import pytest

from dicom_node.implementation import IMPLEMENTATION_CLASS_UID
from dicom_node.listener import quarantine
from dicom_node.listener.part10 import Origin, file_preface
from dicom_node.listener.quarantine import QuarantinedObject
from tests.captured_log import log
from tests.command_line import command
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    PATIENT_ID,
    PATIENT_NAME,
    Node,
    encoded,
    listening,
    mammogram,
    stored_dataset,
    uid_of,
)
from tests.running_node import until

__all__ = ["log"]

MIB = 1 << 20
UID = uid_of(mammogram())
SMALL = encoded(mammogram())
LONG = encoded(mammogram(Rows=40_000, PixelData=bytes(40_000 * 96)))
TRUNCATED = SMALL[:-1000]
C_STORE_RQ = 0x0001


def damaged(data: bytes) -> dict[str, bytes]:
    """What T14 names: an object that ends too early, too late, or nowhere."""
    pixels = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return {
        "truncated": data[:-1000],
        "trailing garbage": data + b"\xde\xad\xbe\xef" * 3,
        "a sequence without end": data[:pixels] + b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + data[-MIB:],
    }


def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "quarantine"
    return sorted(folder.iterdir()) if folder.exists() else []


def content(node: Node, kept: QuarantinedObject) -> bytes:
    return node.quarantine.path_of(kept.name).read_bytes()


@pytest.mark.parametrize("fault", damaged(b"\xe0\x7f\x10\x00"))
@pytest.mark.parametrize("whole", [SMALL, LONG], ids=["in memory", "in a file"])
def test_t14_a_damaged_object_is_kept_byte_for_byte(tmp_path: Path, fault: str, whole: bytes) -> None:
    sent = damaged(whole)[fault]
    with listening(tmp_path, quarantine_bytes=64 * MIB) as node, node.scu(calling="MAMMO1") as scu:
        assert scu.store(sent, MG_FOR_PRESENTATION, UID) == 0xC000
        assert node.stored_nothing()
        (kept,) = node.quarantine.objects()
        assert scu.store(SMALL, MG_FOR_PRESENTATION, UID) == 0x0000, "the association goes on"
    preface = file_preface(Origin(MG_FOR_PRESENTATION, UID, EXPLICIT_LITTLE, "MAMMO1", "NODE"))
    assert content(node, kept) == preface + sent
    assert kept.size_bytes == len(preface) + len(sent)
    (event,) = [detail for action, detail in node.events if action == "instance.refused"]
    assert event.pop("quarantined") == kept.name
    assert event == {
        "status": kept.status,
        "reason": kept.reason,
        "calling_ae_title": kept.calling_ae_title,
        "peer_address": kept.peer_address,
        "sop_instance_uid": kept.sop_instance_uid,
    }
    assert (kept.status, kept.calling_ae_title, kept.peer_address) == ("C000", "MAMMO1", "127.0.0.1")


def test_the_file_of_a_long_object_is_moved_and_not_copied(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=64 * MIB) as node, node.scu() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, UID)
        scu.send_data(LONG[:-2000], is_whole=False)
        until(lambda: len(node.files()) == 1, 10, "the first block is written")
        (part,) = node.files()
        written = part.stat().st_ino
        scu.send_data(LONG[-2000:-1000])
        assert scu.read_status() == 0xC000
        (kept,) = node.quarantine.objects()
        assert node.quarantine.path_of(kept.name).stat().st_ino == written
        assert node.stored_nothing()


def test_an_object_that_contradicts_its_command_is_kept_too(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=MIB) as node, node.scu() as scu:
        assert scu.store(SMALL, MG_FOR_PRESENTATION, "2.25.999") == 0xA900
        (kept,) = node.quarantine.objects()
    assert (kept.status, kept.sop_instance_uid) == ("A900", "2.25.999")
    meta = stored_dataset(content(node, kept)).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.ImplementationClassUID) == (
        "2.25.999",
        IMPLEMENTATION_CLASS_UID,
    )


def test_a_kept_object_is_private_and_its_name_says_nothing(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=MIB) as node, node.scu() as scu:
        scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID)
        (kept,) = node.quarantine.objects()
    assert (tmp_path / "quarantine").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o600, 0o600]
    assert {path.name for path in files(tmp_path)} == {f"{kept.name}.dcm", f"{kept.name}.json"}
    assert len(kept.name) == 16
    int(kept.name, 16)


def test_neither_good_objects_nor_those_of_no_class_or_no_end_are_kept(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=64 * MIB) as node:
        with node.scu() as scu:
            assert scu.store(SMALL, MG_FOR_PRESENTATION, UID) == 0x0000
            assert scu.store(SMALL, "1.2.840.10008.5.1.4.1.1.481.5", UID) == 0x0122
            scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, UID)
            scu.send_data(LONG[: 3 * MIB], is_whole=False)
        node.listener.stop(deadline_s=5)
    assert files(tmp_path) == []


def test_an_object_that_the_node_could_not_store_is_not_kept(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError(PATIENT_ID)

    with listening(tmp_path, quarantine_bytes=MIB) as node, node.scu() as scu:
        node.rows.before = fail
        assert scu.store(SMALL, MG_FOR_PRESENTATION, UID) == 0xA700
    assert files(tmp_path) == []


def test_switched_off_it_keeps_nothing(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=0) as node, node.scu() as scu:
        assert scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID) == 0xC000
    assert files(tmp_path) == []
    assert "quarantined" not in node.events[0][1]


def test_at_the_reserve_of_free_space_nothing_is_kept_and_the_answer_is_the_same(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=MIB, min_free_bytes=1 << 62) as node, node.scu() as scu:
        assert scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID) == 0xC000
        assert node.stored_nothing()
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_used_changes_no_answer_and_is_told_once(
    tmp_path: Path, log: io.StringIO
) -> None:
    (tmp_path / "quarantine").write_text("no folder")
    with listening(tmp_path, quarantine_bytes=MIB) as node:
        for number in range(3):
            with node.scu(source=f"127.0.0.{number + 1}") as scu:
                assert scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID) == 0xC000
        assert node.stored_nothing()
    told = log.getvalue()
    assert told.count("quarantine.not_kept") == 1
    assert str(tmp_path) not in told


def test_of_a_flood_of_the_same_fault_one_object_is_kept(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=64 * MIB) as node:
        for _ in range(2):
            with node.scu() as scu:
                statuses = {scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID) for _ in range(50)}
                assert statuses == {0xC000}
        with node.scu(source="127.0.0.2") as scu:
            scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID)
        senders = [kept.peer_address for kept in node.quarantine.objects()]
    assert senders == ["127.0.0.1", "127.0.0.2"], "one sender hides no other"


def test_the_oldest_objects_make_room(tmp_path: Path) -> None:
    bound = 5 * len(TRUNCATED)
    with listening(tmp_path, quarantine_bytes=bound) as node:
        for number in range(1, 10):
            with node.scu(source=f"127.0.0.{number}") as scu:
                assert scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID) == 0xC000
            assert sum(path.stat().st_size for path in files(tmp_path) if path.suffix == ".dcm") <= bound
        assert [kept.peer_address for kept in node.quarantine.objects()] == [
            f"127.0.0.{number}" for number in range(6, 10)
        ]


def test_the_number_of_objects_has_a_bound_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "MOST_OBJECTS", 2)
    with listening(tmp_path, quarantine_bytes=64 * MIB) as node:
        for number in range(1, 5):
            with node.scu(source=f"127.0.0.{number}") as scu:
                scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID)
        kept = [each.peer_address for each in node.quarantine.objects()]
    assert kept == ["127.0.0.3", "127.0.0.4"]


def test_an_object_longer_than_all_may_be_is_not_kept_and_moves_no_other(tmp_path: Path) -> None:
    with listening(tmp_path, quarantine_bytes=MIB) as node, node.scu() as scu:
        assert scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID) == 0xC000
        before = files(tmp_path)
        assert scu.store(damaged(LONG)["trailing garbage"], MG_FOR_PRESENTATION, UID) == 0xC000
        assert node.stored_nothing()
    assert files(tmp_path) == before


def test_what_a_crash_left_is_not_shown_and_goes_after_an_hour(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    folder.mkdir(mode=0o700)
    old, young, strange = (folder / name for name in (f"{1:016x}.dcm", f"{2:016x}.dcm", "notes.txt"))
    for path in (old, young, strange):
        path.write_bytes(b"half")
    for path in (old, strange):
        os.utime(path, (time.time() - 3700,) * 2)
    with listening(tmp_path, quarantine_bytes=MIB) as node, node.scu() as scu:
        assert node.quarantine.objects() == []
        scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID)
        assert len(node.quarantine.objects()) == 1
    assert (old.exists(), young.exists(), strange.exists()) == (False, True, True)


def test_t25_nothing_but_the_object_itself_names_a_patient(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with listening(tmp_path, quarantine_bytes=MIB) as node, node.scu() as scu:
        scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID)
        (kept,) = node.quarantine.objects()
    (facts,) = [path.read_text() for path in files(tmp_path) if path.suffix == ".json"]
    told = facts + repr(kept) + repr(node.events) + repr(files(tmp_path)) + caplog.text
    told += "".join(capfd.readouterr())
    assert PATIENT_ID.encode() in content(node, kept)
    assert [canary for canary in (PATIENT_ID, PATIENT_NAME) if canary in told] == []


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory of a node that refused one object of each of two senders."""
    folder = tmp_path / "node"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    with listening(folder, quarantine_bytes=64 * MIB) as node:
        for number in (1, 2):
            with node.scu(calling=f"MAMMO{number}", source=f"127.0.0.{number}") as scu:
                scu.store(TRUNCATED, MG_FOR_PRESENTATION, UID)
    return folder


def listed(data_dir: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = command("quarantine", "list", "--json", "--data-dir", data_dir).json
    return rows


def audited(data_dir: Path, action: str) -> list[dict[str, str]]:
    rows = command("audit", "query", "--action", action, "--json", "--data-dir", data_dir).json
    return [row["detail"] for row in rows]


def test_list_tells_why_and_from_whom(data_dir: Path) -> None:
    rows = listed(data_dir)
    assert [row["calling_ae_title"] for row in rows] == ["MAMMO1", "MAMMO2"]
    assert set(rows[0]) == {field.name for field in quarantine.fields(QuarantinedObject)}
    table = command("quarantine", "list", "--data-dir", data_dir).out
    assert rows[0]["name"] in table
    assert rows[0]["reason"] in table
    assert PATIENT_NAME not in table


def test_an_export_is_what_came_and_is_in_the_trail(data_dir: Path, tmp_path: Path) -> None:
    kept, out = listed(data_dir)[0], tmp_path / "sample.dcm"
    answer = command("quarantine", "export", kept["name"][:12], "--out", out, "--data-dir", data_dir)
    assert (answer.status, answer.err) == (0, "")
    assert out.read_bytes() == (data_dir / "quarantine" / f"{kept['name']}.dcm").read_bytes()
    assert out.read_bytes().endswith(TRUNCATED)
    assert out.stat().st_mode & 0o777 == 0o600
    expected = {"quarantined": kept["name"], "sop_instance_uid": UID}
    assert audited(data_dir, "quarantine.exported") == [expected]


def test_an_export_overwrites_nothing_and_is_then_in_no_trail(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.dcm"
    out.write_bytes(b"mine")
    kept = listed(data_dir)[0]["name"]
    assert command("quarantine", "export", kept, "--out", out, "--data-dir", data_dir).status == 2
    assert out.read_bytes() == b"mine"
    assert audited(data_dir, "quarantine.exported") == []


@pytest.mark.parametrize("name", ["", "f" * 17, "../keys/audit", "*"])
def test_a_name_that_none_or_many_have_is_unknown(data_dir: Path, tmp_path: Path, name: str) -> None:
    for words in (("export", name, "--out", tmp_path / "x"), ("remove", name)):
        answer = command("quarantine", *words, "--data-dir", data_dir)
        assert (answer.status, "quarantine list" in answer.err) == (4, True)
    assert len(listed(data_dir)) == 2
    assert not (tmp_path / "x").exists()


def test_what_is_removed_is_gone_and_in_the_trail(data_dir: Path) -> None:
    first, second = listed(data_dir)
    assert command("quarantine", "remove", first["name"], "--data-dir", data_dir).status == 0
    assert [row["name"] for row in listed(data_dir)] == [second["name"]]
    assert command("quarantine", "remove", "--all", "--data-dir", data_dir).status == 0
    assert list((data_dir / "quarantine").iterdir()) == []
    names = [detail["quarantined"] for detail in audited(data_dir, "quarantine.removed")]
    assert names == [first["name"], second["name"]]


def test_remove_wants_names_or_all_and_not_both(data_dir: Path) -> None:
    for words in ((), (listed(data_dir)[0]["name"], "--all")):
        assert command("quarantine", "remove", *words, "--data-dir", data_dir).status == 2
    assert len(listed(data_dir)) == 2


def test_doctor_tells_of_what_is_kept_until_it_is_removed(data_dir: Path) -> None:
    def found() -> tuple[str, str, str]:
        rows = json.loads(command("doctor", "--json", "--data-dir", data_dir).out)
        (row,) = [row for row in rows if row["check"] == "quarantine"]
        return row["verdict"], row["found"], row["advice"]

    verdict, told, advice = found()
    assert verdict == "warning"
    assert "2 faulty objects of MAMMO1 (127.0.0.1), MAMMO2 (127.0.0.2)" in told
    assert "quarantine list" in advice
    command("quarantine", "remove", "--all", "--data-dir", data_dir)
    assert found()[0] == "ok"


def test_a_node_that_refused_nothing_lists_nothing(tmp_path: Path) -> None:
    assert listed(tmp_path) == []
    assert "Nothing is kept" in command("quarantine", "list", "--data-dir", tmp_path).out

"""The benchmark's own sender and objects: what it sends is DICOM, whole, and each object its own."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from benchmarks.receive.blaster import blast
from benchmarks.receive.objects import CASES, objects_of, write_files
from benchmarks.receive.receivers import RECEIVERS, running
from dicom_node.listener.contexts import TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.header import read_header
from dicom_node.listener.limits import ListenerLimits
from tests.listening import EXPLICIT_LITTLE, listening


@pytest.mark.parametrize("name", sorted(CASES))
def test_objects_are_what_they_say_and_each_is_its_own(name: str) -> None:
    made = list(objects_of(CASES[name], 3))
    headers = [
        read_header(
            memoryview(each.head + bytes(each.pixels)),
            TRANSFER_SYNTAX_BY_UID[EXPLICIT_LITTLE],
            ListenerLimits(),
        )
        for each in made
    ]
    assert [header.sop_instance_uid for header in headers] == [each.sop_instance_uid for each in made]
    assert len({header.sop_instance_uid for header in headers}) == 3
    assert {header.sop_class_uid for header in headers} == {CASES[name].sop_class_uid}


def test_files_are_part_10(tmp_path: Path) -> None:
    write_files(CASES["small"], 2, tmp_path / "files")
    for path in (tmp_path / "files").iterdir():
        dataset = dcmread(BytesIO(path.read_bytes()))
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert len(dataset.PixelData) == 20_000


@pytest.mark.parametrize("nagle", [False, True])
def test_the_sender_gets_success_for_each_object(tmp_path: Path, nagle: bool) -> None:
    with listening(tmp_path) as node:
        assert blast(node.port, "small", 12, 3, nagle=nagle) > 0
        assert len(node.rows.all) == 12
        assert len({row.sop_instance_uid for row in node.rows.all}) == 12


@pytest.mark.parametrize("is_durable", [False, True])
def test_the_bare_sink_keeps_and_answers_each_object(tmp_path: Path, is_durable: bool) -> None:
    (sink,) = (each for each in RECEIVERS if each.name == "bare sink")
    folder = tmp_path / "sink"
    with running(sink, folder, is_durable=is_durable, associations=2) as peer:
        assert blast(peer.port, "small", 4, 2, nagle=False) > 0
        kept = [path.read_bytes() for path in (folder / "objects").iterdir()]
    syntax = TRANSFER_SYNTAX_BY_UID[EXPLICIT_LITTLE]
    headers = [read_header(memoryview(each), syntax, ListenerLimits()) for each in kept]
    assert len({header.sop_instance_uid for header in headers}) == 4
    # a UID's length is its own, so that an object is known as whole by where its pixels end
    (sent,) = objects_of(CASES["small"], 1)
    assert {len(each) - each.index(sent.head[-12:]) - 12 for each in kept} == {len(sent.pixels)}

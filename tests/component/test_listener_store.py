"""C-STORE and C-ECHO on a real association: what is stored, what is answered, what is left behind."""

from __future__ import annotations

import hashlib
import inspect
import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE

from db.errors import DatabaseUnavailableError
from dicom_node.listener import elements, header
from dicom_node.listener.admission import Admission, Caller
from dicom_node.listener.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from tests.listening import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    PATIENT_ID,
    encoded,
    listening,
    mammogram,
    stored_dataset,
    uid_of,
)
from tests.simulators.raw_scu import (
    IMPLICIT_LITTLE,
    VERIFICATION,
    AssociationRejectedError,
    Proposal,
    RawScu,
)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: syntax.uid)
def test_every_accepted_syntax_is_stored_as_received(tmp_path: Path, syntax) -> None:
    dataset = mammogram()
    data = encoded(dataset, syntax.uid)
    with listening(tmp_path) as node, node.scu(syntax=syntax.uid) as scu:
        assert scu.store(data, MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        (row,) = node.rows.all
        assert row.transfer_syntax_uid == syntax.uid
        assert (row.sha256, row.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert node.content().endswith(data)
        meta = stored_dataset(node.content()).file_meta
        assert meta.TransferSyntaxUID == syntax.uid
        assert meta.MediaStorageSOPInstanceUID == uid_of(dataset)
        assert meta.SourceApplicationEntityTitle == "RAWSCU"


def test_every_accepted_class_is_stored(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        proposals = [Proposal(each.uid, EXPLICIT_LITTLE) for each in STORAGE_CLASSES]
        with RawScu(node.port, *proposals) as scu:
            assert scu.results == [0] * len(STORAGE_CLASSES)
            for index, storage_class in enumerate(STORAGE_CLASSES):
                dataset = mammogram(index, SOPClassUID=storage_class.uid)
                status = scu.store(
                    encoded(dataset), storage_class.uid, uid_of(dataset), context_id=2 * index + 1
                )
                assert status == 0x0000
            scu.release()
        assert [row.sop_class_uid for row in node.rows.all] == [each.uid for each in STORAGE_CLASSES]


def test_the_row_says_what_routing_needs(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node, node.scu(calling=" MAMMO1 ") as scu:
        scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))
        (row,) = node.rows.all
    assert (row.patient_id, row.accession_number, row.modality) == (PATIENT_ID, "A1", "MG")
    assert (row.laterality, row.view, row.for_presentation) == ("R", "MLO", True)
    assert (row.study_instance_uid, row.series_instance_uid) == ("2.25.100", "2.25.101")
    assert row.calling_ae_title == "MAMMO1"


def test_a_stored_file_is_private_and_has_an_empty_preamble(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))
        (path,) = node.files()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes()[:132] == bytes(128) + b"DICM"
        assert str(uid_of(dataset)) not in str(path)


def test_a_sender_of_another_make_is_served(tmp_path: Path) -> None:
    dataset = mammogram()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    entity = AE("SENDER")
    entity.add_requested_context(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)
    entity.add_requested_context(VERIFICATION)
    with listening(tmp_path) as node:
        association = entity.associate("127.0.0.1", node.port)
        assert association.send_c_echo().Status == 0x0000
        stored = association.send_c_store(dataset)
        assert (stored.Status, "ErrorComment" in stored) == (0x0000, False)
        association.release()
        assert [row.sop_instance_uid for row in node.rows.all] == [uid_of(dataset)]


def test_a_sender_hears_what_is_wrong_with_its_object(tmp_path: Path) -> None:
    dataset = mammogram()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    del dataset.Rows
    entity = AE("SENDER")
    entity.add_requested_context(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)
    with listening(tmp_path) as node:
        association = entity.associate("127.0.0.1", node.port)
        refused = association.send_c_store(dataset)
        association.release()
        assert node.stored_nothing()
    assert refused.Status == 0xC000
    assert refused.ErrorComment == "Rows or Columns is missing or zero beside Pixel Data"


def test_no_reason_is_too_long_for_an_answer() -> None:
    texts = [
        text.partition(";")[0]
        for module in (elements, header)
        for text in re.findall(
            r'(?:Error\(|^_[A-Z_]+ = )"([a-zA-Z][^"]+)"', inspect.getsource(module), re.MULTILINE
        )
    ]
    assert len(texts) > 20
    assert [text for text in texts if len(text) > 64] == []


def test_echo_is_answered(tmp_path: Path) -> None:
    with listening(tmp_path) as node, node.scu(VERIFICATION, IMPLICIT_LITTLE) as scu:
        assert scu.echo() == 0x0000
        scu.release()
        assert node.stored_nothing()


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntax", "result"),
    [
        pytest.param("1.2.840.10008.5.1.4.1.1.481.5", EXPLICIT_LITTLE, 3, id="RT Plan"),
        pytest.param("1.2.3.4", EXPLICIT_LITTLE, 3, id="private class"),
        pytest.param(MG_FOR_PRESENTATION, "1.2.840.10008.1.2.1.99", 4, id="deflated"),
        pytest.param(MG_FOR_PRESENTATION, "1.2.840.10008.1.2.4.53", 4, id="retired JPEG"),
    ],
)
def test_what_the_tables_do_not_name_is_not_accepted(
    tmp_path: Path, abstract_syntax: str, transfer_syntax: str, result: int
) -> None:
    with listening(tmp_path) as node, node.scu(abstract_syntax, transfer_syntax) as scu:
        assert scu.results == [result]
        scu.release()


def test_the_same_bytes_again_are_answered_and_stored_once(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        first = scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))
        files = node.files()
        assert (first, scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))) == (0, 0)
        assert node.files() == files
        assert len(node.rows.all) == 1


def test_other_bytes_under_a_known_uid_are_kept_apart(tmp_path: Path) -> None:
    first, second = mammogram(), mammogram(AccessionNumber="A2")
    with listening(tmp_path) as node, node.scu() as scu:
        assert scu.store(encoded(first), MG_FOR_PRESENTATION, uid_of(first)) == 0x0000
        assert scu.store(encoded(second), MG_FOR_PRESENTATION, uid_of(second)) == 0x0000
        assert node.content(0).endswith(encoded(first))
        assert node.content(1).endswith(encoded(second))


def test_an_object_that_is_not_the_one_announced_is_refused(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node:
        with RawScu(
            node.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE), Proposal(CT_IMAGE, EXPLICIT_LITTLE)
        ) as scu:
            assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, "2.25.999") == 0xA900
            assert scu.store(encoded(dataset), CT_IMAGE, uid_of(dataset)) == 0xA900
            assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset), context_id=3) == 0xA900
            assert scu.store(encoded(dataset), CT_IMAGE, uid_of(dataset), context_id=3) == 0xA900
            scu.release()
        assert node.stored_nothing()
        assert [detail["status"] for _, detail in node.events] == ["A900"] * 4


def test_a_class_that_the_node_never_takes_is_refused_by_name(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        assert scu.store(encoded(dataset), "1.2.840.10008.5.1.4.1.1.481.5", uid_of(dataset)) == 0x0122
        assert node.stored_nothing()


def test_a_truncated_object_is_refused_and_the_association_goes_on(tmp_path: Path) -> None:
    dataset = mammogram()
    data = encoded(dataset)
    with listening(tmp_path) as node, node.scu() as scu:
        for length in (len(data) - 1, len(data) // 2, 100, 7):
            assert scu.store(data[:length], MG_FOR_PRESENTATION, uid_of(dataset)) == 0xC000
        assert node.stored_nothing()
        assert scu.store(data, MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000


@pytest.mark.parametrize(
    "uid", ["../../../../tmp/x", "1.2.3/4", "1.2.3\n4", "1.2.03", "1.2.\x1b[2J", "1." * 40 + "1", "abc"]
)
def test_an_invalid_uid_reaches_no_path(tmp_path: Path, uid: str) -> None:
    good = mammogram()
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    data = encoded(good).replace(b"2.25.100000000000000000001", uid.encode()[:26].ljust(26, b"\0"))
    with listening(deep) as node:
        with node.scu() as scu:
            assert scu.store(data, MG_FOR_PRESENTATION, uid_of(good)) in (0xA900, 0xC000)
        with node.scu() as scu:
            scu.send_command(0x0001, MG_FOR_PRESENTATION, uid)
            scu.send_data(encoded(good))
            scu.wait_for_end()
        assert node.stored_nothing()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("uid", [None, ""])
def test_a_request_without_an_instance_is_ended_at_once(tmp_path: Path, uid: str | None) -> None:
    with listening(tmp_path) as node, node.scu() as scu:
        scu.send_command(0x0001, MG_FOR_PRESENTATION, uid, has_data=False)
        scu.wait_for_end()
        assert node.stored_nothing()


def test_an_object_is_refused_below_the_reserve_of_free_space(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path, min_free_bytes=1 << 62) as node, node.scu() as scu:
        assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0xA700
        assert node.stored_nothing()
        ((action, detail),) = node.events
        assert (action, detail["status"]) == ("instance.refused", "A700")
        assert detail["sop_instance_uid"] == uid_of(dataset)


def test_an_object_whose_row_fails_is_not_answered_with_success(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError(PATIENT_ID)

    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        node.rows.before = fail
        assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0xA700
        assert node.stored_nothing()
        assert PATIENT_ID not in repr(node.events)


def test_a_file_stays_for_the_sweep_when_nobody_knows_whether_its_row_was_committed(tmp_path: Path) -> None:
    def fail() -> None:
        raise DatabaseUnavailableError("the server is away")

    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        node.rows.before = fail
        assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0xA700
        (left,) = node.files()
        assert node.spool.sweep(set(), grace_s=-1).orphans == (left.name,)
        assert node.rows.all == []


def test_callers_are_admitted_by_title_and_address(tmp_path: Path) -> None:
    callers = [Caller("MAMMO1", (ip_network("127.0.0.1"),)), Caller("ANYWHERE")]
    with listening(tmp_path, admission=Admission("NODE", callers=callers)) as node:
        node.scu(calling="MAMMO1").release()
        node.scu(calling=" ANYWHERE", source="127.0.0.2").release()
        for calling, source in (("STRANGER", "127.0.0.1"), ("MAMMO1", "127.0.0.2")):
            with pytest.raises(AssociationRejectedError) as rejection:
                node.scu(calling=calling, source=source)
            assert rejection.value.args == ((1, 1, 3),)
        assert [action for action, _ in node.events] == ["association.rejected"] * 2


def test_a_wrong_called_ae_title_is_rejected_where_it_is_required(tmp_path: Path) -> None:
    with listening(tmp_path, admission=Admission("NODE", require_called_ae_title=True)) as node:
        node.scu(called="NODE ").release()
        with pytest.raises(AssociationRejectedError) as rejection:
            node.scu(called="OTHER")
        assert rejection.value.args == ((1, 1, 7),)
        assert [detail["reason"] for _, detail in node.events] == ["called AE title not recognised"]

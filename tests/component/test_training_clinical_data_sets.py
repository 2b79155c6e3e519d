"""A folder of DICOM studies and the node's own store as data sets, with labels of tables and of readers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid

from models.contract import Laterality
from tests.scoring_node import ScoringNode, images_of, scoring_node
from tests.steered_node import SteeredNode, on_sqlite
from training import datasets
from training.datasets import phantom_objects
from training.errors import DataSetError
from training.image_files import PixelSource
from training.reader_reports import Assessment, assessments


def study(seed: int, **changes: Any) -> list[Dataset]:
    images = phantom_objects.study(
        seed=seed, rows=96, columns=80, patient_id=f"Miller-{seed}", accession_number=f"A{seed}"
    )
    for image in images:
        for keyword, value in changes.items():
            setattr(image, keyword, value)
    return images


def stored(folder: Path, images: Sequence[Dataset]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save_as(folder / f"IM{number:04d}", enforce_file_format=True)


def labels(folder: Path, *rows: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([*rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "export"
    for seed in (1, 2):
        stored(root / f"case{seed}", study(seed))
    (root / "DICOMDIR.txt").write_text("not an image")
    return root


def malignant(data: datasets.DataSet) -> set[tuple[str, str | None, str | None]]:
    return {
        (record.group, record.laterality, record.view)
        for record in data.records
        if record.labels["mammography_malignancy"] == "malignant"
    }


def uid_of(seed: int) -> str:
    return str(study(seed)[0].StudyInstanceUID)


# --- a folder of studies


def test_a_label_of_a_breast_goes_before_that_of_its_study(folder: Path) -> None:
    labels(folder, "accession_number,label,laterality", "A1,0,", "A1,malignant,L", "A2,not_malignant,")
    data = datasets.read("dicom_folder", folder)
    assert len(data.records) == 8
    assert malignant(data) == {(uid_of(1), "L", "CC"), (uid_of(1), "L", "MLO")}


def test_side_view_device_and_pixels_come_from_the_objects(folder: Path) -> None:
    labels(folder, "study_instance_uid,label,split", f"{uid_of(1)},1,test", f"{uid_of(2)},0,training")
    data = datasets.read("dicom_folder", folder)
    assert {record.part for record in data.records if record.group == uid_of(1)} == {"test"}
    with PixelSource() as source:
        for record in data.records:
            assert record.subgroups == {"scanner": "dicom-node phantoms Phantom"}
            view = source.view(record)
            assert (view.laterality, view.view) == (record.laterality, record.view)
            assert view.spacing_mm is not None


def test_a_patient_is_one_group_over_all_studies_and_her_id_stands_nowhere(folder: Path) -> None:
    stored(folder / "case3", study(3, PatientID="Miller-1"))
    labels(folder, "accession_number,label", "A1,0", "A2,0", "A3,1")
    data = datasets.read("dicom_folder", folder)
    assert len({record.group for record in data.records}) == 2
    assert "Miller" not in repr(data).replace(str(folder), "")


def test_studies_without_a_patient_id_are_groups_of_their_own(folder: Path) -> None:
    for seed in (4, 5):
        stored(folder / f"case{seed}", study(seed, PatientID=""))
    labels(folder, "accession_number,label", *(f"A{seed},0" for seed in (1, 2, 4, 5)))
    assert len({record.group for record in datasets.read("dicom_folder", folder).records}) == 4


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"PartialView": "YES"}, "partial view"),
        ({"BreastImplantPresent": "YES"}, "implant"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
        ({"ImageLaterality": ""}, "side of the breast is not stated"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, "raw image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "kind of object"),
    ],
)
def test_what_scoring_would_refuse_is_left_out_and_counted(
    folder: Path, changes: dict[str, str], why: str
) -> None:
    stored(folder / "odd", study(3, **changes))
    labels(folder, "accession_number,label", "A1,0", "A2,1", "A3,1")
    with pytest.raises(DataSetError, match=r"labels\.csv line 4: no usable image has this accession_number"):
        datasets.read("dicom_folder", folder)
    data = datasets.read("dicom_folder", folder, unmatched="ignore")
    assert len(data.records) == 8
    assert "4 images are left out" in data.notes[0]
    assert why in data.notes[0]


def test_copies_and_images_without_a_label_are_counted(folder: Path) -> None:
    stored(folder / "copies", study(2))
    labels(folder, "accession_number,label,laterality", "A2,1,R")
    data = datasets.read("dicom_folder", folder)
    assert len(data.records) == 2
    assert data.notes == (
        "4 files are copies of images that are there already.",
        "6 images have no label and are left out.",
    )


def test_faults_of_the_table_are_told_with_their_lines(folder: Path) -> None:
    labels(folder, "accession_number,label,laterality", "A1,maybe,L", ",1,L", "A2,1,X", "A2,1,R", "A2,0,R")
    with pytest.raises(DataSetError) as caught:
        datasets.read("dicom_folder", folder)
    told = [line.strip() for line in str(caught.value).splitlines()]
    assert told[1:] == [
        "labels.csv line 2: label must be one of not_malignant, malignant",
        "labels.csv line 3: accession_number must not be empty",
        "labels.csv line 4: laterality must be L, R or empty",
        "labels.csv line 6: repeats labels.csv line 5",
    ]
    labels(folder, "accession_number,study_instance_uid,label", "A1,1.2,0")
    with pytest.raises(DataSetError, match="exactly one of the columns"):
        datasets.read("dicom_folder", folder)


# --- what readers wrote

PERSON, DEVICE = ("121006", "DCM"), ("121007", "DCM")
MALIGNANT = (("278201002", "SCT"), ("21594007", "SCT"))
BENIGN = (("278201002", "SCT"), ("30807003", "SCT"))
RIGHT, LEFT = ("24028007", "SCT"), ("7771000", "SCT")


def coded(value: tuple[str, str]) -> list[Dataset]:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value
    code.CodeMeaning = "of no importance"
    return [code]


def item(kind: str, name: tuple[str, str] | None = None, *children: Dataset, **elements: Any) -> Dataset:
    content = Dataset()
    content.ValueType = kind
    if name is not None:
        content.ConceptNameCodeSequence = coded(name)
    for keyword, value in elements.items():
        setattr(content, keyword, value)
    if children:
        content.ContentSequence = list(children)
    return content


def code(name: tuple[str, str], value: tuple[str, str], *children: Dataset) -> Dataset:
    return item("CODE", name, *children, ConceptCodeSequence=coded(value))


def image_reference(uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = uid
    return item("IMAGE", None, ReferencedSOPSequence=[reference])


def group(*children: Dataset) -> Dataset:
    return item("CONTAINER", ("125007", "DCM"), *children)


def site(side: tuple[str, str]) -> Dataset:
    return code(("363698007", "SCT"), ("76752008", "SCT"), code(("272741003", "SCT"), side))


def birads(value: str, scheme: str = "SCT") -> Dataset:
    return code(("111005", "DCM"), (value, scheme))


def report(
    study_uid: str, *content: Dataset, observer: tuple[str, str] | None = PERSON, **elements: Any
) -> Dataset:
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.SOPClassUID = document.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    document.SOPInstanceUID = document.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    document.StudyInstanceUID, document.Modality = study_uid, "SR"
    document.ContentDate, document.ContentTime, document.VerificationFlag = "20260201", "120000", "UNVERIFIED"
    observed = [code(("121005", "DCM"), observer)] if observer else []
    document.ContentSequence = [*observed, *content]
    for keyword, value in elements.items():
        setattr(document, keyword, value)
    return document


@pytest.mark.parametrize(
    ("said", "is_malignant"),
    [
        (code(*MALIGNANT), True),
        (code(*BENIGN), False),
        (code(("121071", "DCM"), ("254837009", "SCT")), True),
        (birads("397140005"), False),
        (birads("397143007"), False),
        (birads("397144001"), True),
        (birads("397145000"), True),
        (birads("MA.II.A.5.4A", "BI"), True),
        (birads("MA.II.A.5.6", "BI"), True),
    ],
)
def test_each_coded_item_that_counts(said: Dataset, is_malignant: bool) -> None:
    assert assessments(report("1.2", item("CONTAINER", ("126010", "DCM"), said))) == [
        Assessment(is_malignant, "1.2", frozenset(), None)
    ]


def test_incomplete_assessments_and_other_items_say_nothing() -> None:
    others = [
        birads("397138000"),
        code(("121071", "DCM"), ("4147007", "SCT")),
        item("TEXT", TextValue="malignant"),
    ]
    assert assessments(report("1.2", *others)) == []


@pytest.mark.parametrize(
    ("observer", "flag", "counts"),
    [(PERSON, "UNVERIFIED", 1), (None, "VERIFIED", 1), (None, "UNVERIFIED", 0), (DEVICE, "VERIFIED", 0)],
)
def test_only_what_a_person_made_or_verified_counts(
    observer: tuple[str, str] | None, flag: str, counts: int
) -> None:
    document = report("1.2", code(*MALIGNANT), observer=observer, VerificationFlag=flag)
    assert len(assessments(document)) == counts


def test_an_item_speaks_for_its_images_or_its_side_or_the_study() -> None:
    document = report(
        "1.2",
        code(*BENIGN),
        group(site(LEFT), code(*MALIGNANT)),
        group(site(RIGHT), code(*MALIGNANT), image_reference("1.2.3")),
        item("CONTAINER", ("126010", "DCM"), site(RIGHT), group(code(*BENIGN))),
    )
    study_wide, left, image, right = assessments(document)
    assert study_wide.is_about("1.2", "1.2.9", Laterality.LEFT)
    assert not study_wide.is_about("1.3", "1.2.9", Laterality.LEFT)
    assert left.is_about("1.2", "1.2.9", Laterality.LEFT)
    assert not left.is_about("1.2", "1.2.9", Laterality.RIGHT)
    assert image.is_about("1.2", "1.2.3", Laterality.RIGHT)
    assert not image.is_about("1.2", "1.2.4", Laterality.RIGHT)
    assert right.is_about("1.2", "1.2.9", Laterality.RIGHT)
    assert not right.is_about("1.2", "1.2.9", Laterality.LEFT)


# --- the node's own store


@pytest.fixture
def scoring(node: SteeredNode, tmp_path: Path) -> Iterator[ScoringNode]:
    with scoring_node(node, tmp_path) as opened:
        yield opened


def read_store(node: ScoringNode, **options: str | int) -> datasets.DataSet:
    url = node.steered.database.engine.url.render_as_string(hide_password=False)
    return datasets.read("node_store", node.folder, database_url=url, **options)


def test_received_studies_are_labelled_by_a_table_and_by_reports_and_the_table_wins(
    scoring: ScoringNode, tmp_path: Path
) -> None:
    first, second, third = (
        scoring.receive(images_of(seed, PatientID=f"Miller-{seed}")) for seed in (1, 2, 3)
    )
    reports = tmp_path / "reports"
    reports.mkdir()
    documents = [
        report(first, code(*MALIGNANT)),
        report(second, group(site(LEFT), code(*MALIGNANT)), group(site(RIGHT), code(*BENIGN))),
        report(second, code(*BENIGN), ContentDate="20250101"),
    ]
    for number, document in enumerate(documents):
        document.save_as(reports / f"{number}.dcm", enforce_file_format=True)
    table = labels(tmp_path, "study_instance_uid,label", f"{first},0")
    data = read_store(scoring, reports=str(reports), labels=str(table))
    assert len(data.records) == 8
    assert malignant(data) == {(second, "L", "CC"), (second, "L", "MLO")}
    assert third not in {record.group for record in data.records}
    assert data.notes[-2:] == (
        "4 images are labelled by reports of readers.",
        "4 images have no label and are left out.",
    )
    assert len(scoring.steered.revisions()) == 3


@on_sqlite
def test_a_data_directory_is_all_that_the_embedded_node_needs(scoring: ScoringNode, tmp_path: Path) -> None:
    uid = scoring.receive(images_of(1))
    kept = scoring.steered.database.engine.url.database
    assert kept is not None
    with closing(sqlite3.connect(kept)) as source, closing(sqlite3.connect(tmp_path / "node.db")) as copy:
        source.backup(copy)
    table = labels(tmp_path, "study_instance_uid,label,laterality", f"{uid},1,R")
    data = datasets.read("node_store", tmp_path, labels=str(table))
    assert malignant(data) == {(uid, "R", "CC"), (uid, "R", "MLO")}


def test_a_file_missing_in_the_spool_is_told_by_its_uid(scoring: ScoringNode, tmp_path: Path) -> None:
    uid = scoring.receive(images_of(1))
    next(scoring.spool.root.glob("*/*.dcm")).unlink()
    table = labels(tmp_path, "study_instance_uid,label", f"{uid},0")
    with pytest.raises(DataSetError, match=r"image 2\.25\.\d+: names a file that is not there"):
        read_store(scoring, labels=str(table))


def test_a_store_without_labels_or_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="name a table of labels"):
        datasets.read("node_store", tmp_path)
    table = labels(tmp_path, "study_instance_uid,label", "1.2,0")
    with pytest.raises(DataSetError, match=r"node\.db: is missing"):
        datasets.read("node_store", tmp_path, labels=str(table))
    with pytest.raises(DataSetError, match="folder of reports is not there"):
        datasets.read("node_store", tmp_path, reports=str(tmp_path / "none"))
    (tmp_path / "node.db").write_bytes(b"rubbish")
    with pytest.raises(DataSetError, match="database: cannot be read"):
        datasets.read("node_store", tmp_path, labels=str(table))

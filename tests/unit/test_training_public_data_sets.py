"""CBIS-DDSM, VinDr-Mammo and RSNA 2022 as their owners have them on disk, on tiny made-up trees."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from models.contract import Laterality
from training import datasets
from training.datasets import rsna_2022
from training.errors import DataSetError
from training.image_files import mask_values


def dicom(path: Path, pixels: np.ndarray) -> Path:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.Modality = SecondaryCaptureImageStorage, "MG"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit, image.PixelRepresentation = bits - 1, 0
    image.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def written(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(header.split(","))
        lines.writerows(rows)


# --- CBIS-DDSM

MASS = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
CALC = MASS.replace("breast_density", "breast density").replace("mass shape", "calc type")
LISTS = {f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in ("train", "test")}


def cbis_row(set_name: str, patient: str, side: str, view: str, number: int, pathology: str) -> list[object]:
    film = f"{set_name}_{patient}_{side}_{view}"
    return [
        *(patient, 3, side, view, number, "mass", "OVAL", "ILL_DEFINED", 4, pathology, 4),
        f"{film}/1.3.6.1/1.3.6.2/000000.dcm",
        f"{film}_{number}/1.3.6.3/1.3.6.4/000000.dcm",
        # The lists end this path with a line break.
        f"{film}_{number}/1.3.6.3/1.3.6.4/000001.dcm\n",
    ]


def cbis_files(root: Path, row: list[object], lesion: tuple[int, int], mask_first: bool = False) -> None:
    film, roi = (str(row[index]).split("/", maxsplit=1)[0] for index in (11, 13))
    pixels = np.arange(60 * 40, dtype=np.uint16).reshape(60, 40)
    dicom(root / film / "10-04-2016-DDSM-NA-1/1.0-full mammogram images-2/1-1.dcm", pixels)
    mask = np.zeros((60, 40), np.uint8)
    mask[lesion[1] - 3 : lesion[1] + 3, lesion[0] - 3 : lesion[0] + 3] = 255
    below = root / roi / "10-04-2016-DDSM-NA-3/1.0-cropped images-4"
    dicom(below / ("1-1.dcm" if mask_first else "1-2.dcm"), mask)
    dicom(below / ("1-2.dcm" if mask_first else "1-1.dcm"), pixels[:20, :10])


@pytest.fixture
def cbis(tmp_path: Path) -> Path:
    lists: dict[str, list[list[object]]] = {name: [] for name in LISTS}
    plan = [
        (
            "mass_case_description_train_set.csv",
            "Mass-Training",
            "P_00001",
            "LEFT",
            "CC",
            1,
            "BENIGN",
            (20, 30),
        ),
        (
            "mass_case_description_train_set.csv",
            "Mass-Training",
            "P_00001",
            "LEFT",
            "CC",
            2,
            "MALIGNANT",
            (9, 9),
        ),
        (
            "mass_case_description_train_set.csv",
            "Mass-Training",
            "P_00002",
            "RIGHT",
            "MLO",
            1,
            "BENIGN",
            (9, 9),
        ),
        (
            "calc_case_description_test_set.csv",
            "Calc-Test",
            "P_00002",
            "LEFT",
            "CC",
            1,
            "MALIGNANT",
            (30, 50),
        ),
        (
            *("calc_case_description_train_set.csv", "Calc-Training", "P_00003", "RIGHT", "CC", 1),
            *("BENIGN_WITHOUT_CALLBACK", (12, 15)),
        ),
    ]
    for name, set_name, patient, side, view, number, pathology, lesion in plan:
        row = cbis_row(set_name, patient, side, view, number, pathology)
        lists[name].append(row)
        cbis_files(tmp_path / "CBIS-DDSM", row, lesion, mask_first=number == 2)
    for name, rows in lists.items():
        written(tmp_path / name, MASS if name.startswith("mass") else CALC, rows)
    return tmp_path


def test_cbis_rows_of_one_film_are_one_image_with_a_mask_for_each_abnormality(cbis: Path) -> None:
    data = datasets.read("cbis_ddsm", cbis)
    film = data.records[0]
    assert film.image == "Mass-Training_P_00001_LEFT_CC"
    assert film.labels == {"mammography_malignancy": "malignant"}
    assert (film.group, film.laterality, film.view, film.part) == (
        "P_00001",
        Laterality.LEFT,
        "CC",
        "training",
    )
    assert film.subgroups == {"density": "3", "lesion_kind": "MASS"}
    assert [lesion.centre for lesion in film.lesions] == [(20.0, 30.0), (9.0, 9.0)]
    assert [lesion.is_malignant for lesion in film.lesions] == [False, True]
    for lesion in film.lesions:
        assert lesion.mask is not None
        assert mask_values(lesion.mask).sum() == 36
        assert 3.0 < lesion.radius < 4.5


def test_cbis_training_images_of_a_tested_patient_are_left_out(cbis: Path) -> None:
    data = datasets.read("cbis_ddsm", cbis)
    assert [(record.group, record.part) for record in data.records] == [
        ("P_00001", "training"),
        ("P_00002", "test"),
        ("P_00003", "training"),
    ]
    assert data.notes == ("1 training images are left out: their patients are in the test part, too.",)


def test_cbis_the_same_film_in_both_lists_is_one_image(cbis: Path) -> None:
    name = "calc_case_description_train_set.csv"
    rows = [
        cbis_row("Calc-Training", "P_00003", "RIGHT", "CC", 1, "BENIGN"),
        cbis_row("Calc-Training", "P_00001", "LEFT", "CC", 1, "BENIGN"),
    ]
    cbis_files(cbis / "CBIS-DDSM", rows[1], (30, 40))
    written(cbis / name, CALC, rows)
    film = datasets.read("cbis_ddsm", cbis).records[0]
    assert film.subgroups["lesion_kind"] == "CALC+MASS"
    assert [lesion.kind for lesion in film.lesions] == ["MASS", "MASS", "CALC"]


def test_cbis_an_abnormality_without_a_mask_of_the_films_size_is_noted(cbis: Path) -> None:
    for path in (cbis / "CBIS-DDSM/Calc-Training_P_00003_RIGHT_CC_1").rglob("1-2.dcm"):
        dicom(path, np.ones((61, 40), np.uint8))
    data = datasets.read("cbis_ddsm", cbis)
    assert data.records[2].lesions == ()
    assert "1 abnormalities have no mask" in data.notes[1]


def test_cbis_missing_lists_folders_and_odd_values_are_told_with_their_rows(cbis: Path) -> None:
    (cbis / "mass_case_description_test_set.csv").unlink()
    row = cbis_row("Calc-Test", "P_00002", "LEFT", "CC", 1, "UNPROVEN")
    odd = cbis_row("Calc-Test", "Smith", "BOTH", "ML", 1, "BENIGN")
    absent = cbis_row("Calc-Test", "P_00009", "LEFT", "CC", 1, "BENIGN")
    written(cbis / "calc_case_description_test_set.csv", CALC, [row, odd, absent])
    with pytest.raises(DataSetError) as caught:
        datasets.read("cbis_ddsm", cbis)
    message = str(caught.value)
    assert "mass_case_description_test_set.csv: is missing" in message
    for what in ("pathology must be", "breast must be", "view must be", "patient_id must", "holds 0 DICOM"):
        assert what in message
    assert "Smith" not in message


# --- VinDr-Mammo

IMAGES = (
    "study_id,series_id,laterality,image_id,view_position,height,width,breast_birads,breast_density,split"
)
FINDINGS = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,"
    "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"
)


@pytest.fixture
def vindr(tmp_path: Path) -> Path:
    plan = [
        ("s1", "i1", "L", "CC", "BI-RADS 4", "training"),
        ("s1", "i2", "L", "MLO", "BI-RADS 3", "training"),
        ("s2", "i3", "R", "CC", "BI-RADS 5", "test"),
    ]
    rows = [
        (s, "x", side, i, view, 60, 40, birads, "DENSITY C", part) for s, i, side, view, birads, part in plan
    ]
    written(tmp_path / "breast-level_annotations.csv", IMAGES, rows)
    shared = (60, 40, "BI-RADS 4", "DENSITY C")
    findings = [
        (
            "s1",
            "x",
            "i1",
            "L",
            "CC",
            *shared,
            "['Mass', 'Skin Retraction']",
            "BI-RADS 4",
            10,
            20,
            16.0,
            28,
            "training",
        ),
        ("s1", "x", "i2", "L", "MLO", *shared, "['No Finding']", "", "", "", "", "", "training"),
    ]
    written(tmp_path / "finding_annotations.csv", FINDINGS, findings)
    for study, image, *_ in plan:
        dicom(tmp_path / f"images/{study}/{image}.dicom", np.zeros((60, 40), np.uint16))
    return tmp_path


def test_vindr_categories_from_the_chosen_one_on_are_malignant(vindr: Path) -> None:
    def labels(**options: int) -> list[str]:
        records = datasets.read("vindr_mammo", vindr, **options).records
        return [record.labels["mammography_malignancy"] for record in records]

    assert labels() == ["malignant", "not_malignant", "malignant"]
    assert labels(positive_birads=5) == ["not_malignant", "not_malignant", "malignant"]


def test_vindr_boxes_become_lesions_and_the_official_split_is_kept(vindr: Path) -> None:
    first, second, third = datasets.read("vindr_mammo", vindr).records
    (lesion,) = first.lesions
    assert (lesion.centre, lesion.radius, lesion.kind) == ((13.0, 24.0), 5.0, "Mass+Skin Retraction")
    assert lesion.is_malignant is None
    assert second.lesions == third.lesions == ()
    assert [record.part for record in (first, second, third)] == ["training", "training", "test"]
    assert [record.group for record in (first, second, third)] == ["s1", "s1", "s2"]
    assert first.subgroups == {"density": "DENSITY C", "birads": "4", "lesion_kind": "Mass+Skin Retraction"}


def test_vindr_faults_are_told_with_their_rows(vindr: Path) -> None:
    (vindr / "images/s2/i3.dicom").unlink()
    with (vindr / "finding_annotations.csv").open("a") as file:
        file.write("s1,x,i9,L,CC,60,40,B,D,['Mass'],4,9,9,1,1,training\n")
        file.write("s1,x,i1,L,CC,60,40,B,D,[],4,1,1,9,9,training\n")
        file.write("s1,x,i1,L,CC,60,40,B,D,['Mass'],4,,,,,training\n")
    with (vindr / "breast-level_annotations.csv").open("a") as file:
        file.write("s1,x,B,../../secret,ML,60,40,BI-RADS 0,D,holdout\n")
    with pytest.raises(DataSetError) as caught:
        datasets.read("vindr_mammo", vindr)
    message = str(caught.value)
    for what in (
        "breast-level_annotations.csv line 4: names a file that is not there",
        "finding_annotations.csv line 4: xmin must be below xmax",
        "finding_annotations.csv line 5: finding_categories must look like",
        "finding_annotations.csv line 6: a finding needs the numbers",
        "breast-level_annotations.csv line 5: breast_birads must be",
        "breast-level_annotations.csv line 5: laterality must be one of L, R",
        "breast-level_annotations.csv line 5: split must be one of training, test",
        "1 of its images are not in breast-level_annotations.csv",
    ):
        assert what in message


# --- RSNA 2022

RSNA = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
    "difficult_negative_case"
)


@pytest.fixture
def rsna(tmp_path: Path) -> Path:
    plan = [
        (2, 10006, 1, "L", "CC", 61.0, 0, 0, "B"),
        (2, 10006, 2, "L", "MLO", 61.0, 1, 0, "B"),
        (1, 10011, 3, "R", "CC", "", 0, 1, ""),
        (1, 10011, 4, "R", "AT", "", 0, 0, ""),
    ]
    rows = [
        (s, p, i, side, view, age, c, 0, 0, "", imp, d, 29, False)
        for s, p, i, side, view, age, c, imp, d in plan
    ]
    written(tmp_path / "train.csv", RSNA, rows)
    for _, patient, image, *_ in plan:
        dicom(tmp_path / f"train_images/{patient}/{image}.dcm", np.zeros((60, 40), np.uint16))
    return tmp_path


def test_rsna_images_carry_the_breasts_cancer_label_site_and_machine(rsna: Path) -> None:
    data = datasets.read("rsna_2022", rsna)
    assert [record.labels["mammography_malignancy"] for record in data.records] == [
        "not_malignant",
        "malignant",
    ]
    first = data.records[0]
    assert (first.image, first.group, first.breast) == ("10006/1", "10006", "10006/L")
    assert first.subgroups == {"site": "2", "scanner": "29", "density": "B", "age_decade": "60s"}


def test_rsna_implants_and_other_views_are_left_out_and_counted(rsna: Path) -> None:
    notes = datasets.read("rsna_2022", rsna).notes
    assert notes == (
        "1 images of breasts with implants are left out.",
        "1 images of other views than CC and MLO are left out.",
    )


def test_rsna_faults_are_told_with_their_rows(rsna: Path) -> None:
    with (rsna / "train.csv").open("a") as file:
        file.write("1,10012,5,B,CC,40,maybe,0,0,,2,A,29,False\n")
    with pytest.raises(DataSetError) as caught:
        datasets.read("rsna_2022", rsna)
    for what in ("names a file that is not there", "laterality must", "cancer must", "implant must"):
        assert f"train.csv line 6: {what}" in str(caught.value)


def test_a_folder_of_another_data_set_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    for name in ("cbis_ddsm", "vindr_mammo", rsna_2022.DATASET.name):
        with pytest.raises(DataSetError, match="is missing"):
            datasets.read(name, tmp_path)

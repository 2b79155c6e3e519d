"""What the mammography task scores and what it refuses, with which code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from models.contract import ImageTrait, ImageView, Laterality, Refusal, RefusalCode
from models.errors import RegistryError, UnknownTaskError
from models.preprocessing import find_breast
from models.tasks import all_tasks, scan, task_named
from training.datasets.phantoms import draw
from training.demonstration.cohort import display_view

TASK = task_named("mammography_malignancy")
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
PLACES = [(side, view) for side in Laterality for view in ("CC", "MLO")]


@pytest.fixture(scope="module")
def four_views() -> list[ImageView]:
    return [
        display_view(draw(laterality=side, view=view, rows=320, columns=260, seed=5), f"1.2.{number}")
        for number, (side, view) in enumerate(PLACES, start=1)
    ]


def codes(refusals: tuple[Refusal, ...]) -> list[RefusalCode]:
    return [refusal.code for refusal in refusals]


def test_the_four_standard_views_are_accepted_in_the_order_of_results(four_views: list[ImageView]) -> None:
    for order in permutations(four_views):
        verdict = TASK.gate(order, ())
        assert [(v.laterality, v.view) for v in verdict.accepted] == [
            ("R", "CC"),
            ("R", "MLO"),
            ("L", "CC"),
            ("L", "MLO"),
        ]
        assert verdict.refusals == ()
        assert verdict.is_complete


def test_each_accepted_image_comes_with_its_breast(four_views: list[ImageView]) -> None:
    verdict = TASK.gate(four_views[::-1], ())
    expected = [find_breast(view.pixels, view.padding) for view in verdict.accepted]
    assert [breast.box for breast in verdict.breasts] == [breast.box for breast in expected]
    for breast, other in zip(verdict.breasts, expected, strict=True):
        assert np.array_equal(breast.mask, other.mask)


def test_missing_views_are_named_and_the_others_scored(four_views: list[ImageView]) -> None:
    verdict = TASK.gate([v for v in four_views if v.sop_instance_uid in ("1.2.1", "1.2.2")], ())
    assert len(verdict.accepted) == 2
    assert not verdict.is_complete
    (refusal,) = verdict.refusals
    assert (refusal.code, refusal.sop_instance_uid) == (RefusalCode.VIEWS_MISSING, None)
    assert len(refusal.detail.split(", ")) == 2


def test_a_study_without_a_scorable_image_says_so_first(four_views: list[ImageView]) -> None:
    raw = [replace(v, sop_class_uid=FOR_PROCESSING) for v in four_views]
    verdict = TASK.gate(raw, ())
    assert verdict.accepted == ()
    assert codes(verdict.refusals) == [RefusalCode.NO_SCORABLE_IMAGE, *[RefusalCode.FOR_PROCESSING] * 4]
    assert not verdict.is_complete


def test_an_empty_study_is_refused() -> None:
    assert codes(TASK.gate((), ()).refusals) == [RefusalCode.NO_SCORABLE_IMAGE]


TRAITS = {
    ImageTrait.FOR_PROCESSING: RefusalCode.FOR_PROCESSING,
    ImageTrait.TOMOSYNTHESIS: RefusalCode.TOMOSYNTHESIS,
    ImageTrait.SYNTHETIC_2D: RefusalCode.SYNTHETIC_2D,
    ImageTrait.SPECIMEN: RefusalCode.SPECIMEN,
    ImageTrait.BIOPSY: RefusalCode.BIOPSY,
    ImageTrait.IMPLANT: RefusalCode.IMPLANT,
    ImageTrait.MAGNIFICATION: RefusalCode.MAGNIFICATION_VIEW,
    ImageTrait.SPOT_COMPRESSION: RefusalCode.SPOT_VIEW,
    ImageTrait.PARTIAL_VIEW: RefusalCode.PARTIAL_VIEW,
}


def test_every_trait_of_the_contract_is_refused() -> None:
    assert set(TRAITS) == set(ImageTrait)


@pytest.mark.parametrize(("trait", "code"), TRAITS.items())
def test_a_trait_is_refused_by_its_own_code(
    four_views: list[ImageView], trait: ImageTrait, code: RefusalCode
) -> None:
    odd = replace(four_views[0], traits=frozenset({trait}))
    verdict = TASK.gate([odd, *four_views[1:]], ())
    assert list(verdict.accepted) == [v for v in TASK.gate(four_views, ()).accepted if v is not four_views[0]]
    # The refusal names the view, so it is not reported as missing on top.
    assert verdict.refusals == (Refusal(code, odd.sop_instance_uid, odd.laterality, odd.view),)
    assert not verdict.is_complete


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sop_class_uid": FOR_PROCESSING}, RefusalCode.FOR_PROCESSING),
        ({"sop_class_uid": TOMOSYNTHESIS}, RefusalCode.TOMOSYNTHESIS),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}, RefusalCode.UNSUPPORTED_SOP_CLASS),
        ({"view": None}, RefusalCode.NON_STANDARD_VIEW),
        ({"laterality": None}, RefusalCode.LATERALITY_MISSING),
        ({"pixels": np.zeros((320, 260), np.uint16)}, RefusalCode.BLANK_IMAGE),
        ({"pixels": np.full((320, 260), 65535, np.uint16)}, RefusalCode.BLANK_IMAGE),
        ({"pixels": np.zeros((64, 300), np.uint16)}, RefusalCode.IMAGE_TOO_SMALL),
        ({"padding": np.ones((320, 260), np.bool_)}, RefusalCode.BLANK_IMAGE),
    ],
)
def test_an_image_is_refused_by_its_own_code(
    four_views: list[ImageView], change: dict[str, object], code: RefusalCode
) -> None:
    verdict = TASK.gate([replace(four_views[0], **change), *four_views[1:]], ())  # type: ignore[arg-type]
    assert len(verdict.accepted) == 3
    assert code in codes(verdict.refusals)


def test_an_image_with_nothing_but_a_marker_has_no_breast(four_views: list[ImageView]) -> None:
    pixels = np.zeros((320, 260), np.uint16)
    pixels[10:30, 10:40] = 60000
    verdict = TASK.gate([replace(four_views[0], pixels=pixels), *four_views[1:]], ())
    assert codes(verdict.refusals) == [RefusalCode.NO_BREAST_FOUND]


def test_a_side_that_contradicts_the_pixels_is_refused(four_views: list[ImageView]) -> None:
    mirrored = replace(four_views[0], pixels=four_views[0].pixels[:, ::-1].copy())
    verdict = TASK.gate([mirrored, *four_views[1:]], ())
    assert codes(verdict.refusals) == [RefusalCode.LATERALITY_CONTRADICTS_PIXELS]


def test_of_two_images_of_a_view_the_highest_uid_is_scored(four_views: list[ImageView]) -> None:
    tenth, ninth = (replace(four_views[0], sop_instance_uid=uid) for uid in ("1.2.10", "1.2.9"))
    for order in ([tenth, ninth], [ninth, tenth]):
        verdict = TASK.gate([*order, *four_views[1:]], ())
        assert tenth in verdict.accepted
        assert verdict.refusals == (
            Refusal(RefusalCode.DUPLICATE_VIEW, "1.2.9", ninth.laterality, ninth.view),
        )
        assert verdict.is_complete


def test_raw_companions_leave_a_study_complete(four_views: list[ImageView]) -> None:
    raw = [
        replace(v, sop_class_uid=FOR_PROCESSING, sop_instance_uid=f"{v.sop_instance_uid}.7")
        for v in four_views
    ]
    verdict = TASK.gate([*raw, *four_views], ())
    assert len(verdict.accepted) == 4
    assert verdict.is_complete


def test_an_unreadable_image_leaves_a_study_incomplete(four_views: list[ImageView]) -> None:
    damaged = Refusal(RefusalCode.PIXEL_DATA, "1.2.99")
    verdict = TASK.gate(four_views, [damaged])
    assert len(verdict.accepted) == 4
    assert verdict.refusals == (damaged,)
    assert not verdict.is_complete


def test_an_unknown_task_is_answered_with_those_that_exist() -> None:
    with pytest.raises(UnknownTaskError, match="mammography_malignancy"):
        task_named("fortune_telling")


def test_every_task_is_found_by_its_name() -> None:
    assert set(all_tasks()) == {"idc", "mammography_malignancy", "mias7"}
    assert all(task_named(name) is task for name, task in all_tasks().items())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"empty": "TITLE = 'no task'\n"}, "has no TASK"),
        (
            dict.fromkeys(("one", "two"), "from models.tasks.mammography_malignancy import TASK\n"),
            "already has",
        ),
    ],
)
def test_a_missing_or_repeated_task_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], message: str
) -> None:
    package = f"tasks_{'_'.join(files)}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    for name, text in files.items():
        (tmp_path / package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RegistryError, match=message):
        scan(package, [str(tmp_path / package)])


def test_tasks_load_without_torch() -> None:
    program = "import sys, models.tasks; models.tasks.all_tasks(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Predictions survive their file to the last bit, and a table that is none is refused with what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.errors import PredictionsError
from training.predictions import Predictions, read, write

CLASSES = ("CALC", "CIRC", "NORM")


def made_up(count: int = 6, *, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    outputs = 1 if len(classes) == 2 else len(classes)
    logits = random.normal(0.0, 3.0, (count, outputs))
    scores = np.exp(logits) if outputs > 1 else np.hstack([np.ones((count, 1)), np.exp(logits)])
    return Predictions(
        task="mias7",
        classes=classes,
        images=tuple(f"image-{i}" for i in range(count)),
        groups=tuple(f"woman-{i // 2}" for i in range(count)),
        breasts=tuple(f"woman-{i // 2}/{'LR'[i % 2]}" for i in range(count)),
        labels=random.integers(0, len(classes), count),
        logits=logits,
        probabilities=scores / scores.sum(axis=1, keepdims=True),
        folds=random.integers(0, 5, count),
        subgroups={"scanner": tuple(f"A{i % 2}" for i in range(count)), "density": ("",) * count},
    )


def assert_same(one: Predictions, other: Predictions) -> None:
    for name in ("task", "classes", "images", "groups", "breasts"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("labels", "logits", "probabilities", "folds"):
        assert getattr(one, name).dtype == getattr(other, name).dtype
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert dict(one.subgroups) == dict(other.subgroups)


@pytest.mark.parametrize("classes", [CLASSES, ("not_malignant", "malignant")], ids=["several", "one output"])
def test_what_is_read_is_what_was_written(classes: tuple[str, ...], tmp_path: Path) -> None:
    predictions = made_up(50, classes=classes)
    write(predictions, tmp_path / "run" / "predictions.csv")
    assert_same(read(tmp_path / "run" / "predictions.csv"), predictions)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions.csv"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    logit=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_name_and_any_number_survive(
    name: str, logit: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    predictions = made_up(2)
    logits = predictions.logits.copy()
    logits[0, 0] = logit
    predictions = replace(
        predictions, images=(name, name + "2"), subgroups={"scanner": (name, "")}, logits=logits
    )
    write(predictions, path)
    assert_same(read(path), predictions)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": ("one",) * 6}, "named twice"),
        ({"groups": ("one",) * 5}, "one group"),
        ({"labels": np.full(6, 3)}, "names no class"),
        ({"logits": np.full((6, 3), np.nan)}, "diverge"),
        ({"probabilities": np.full((6, 3), 0.5)}, "add up to 1"),
        ({"logits": np.zeros((6, 2))}, "one column for each output"),
        ({"subgroups": {"scanner": ("A",)}}, "one group"),
        ({"folds": np.full(6, -1)}, "fold"),
        ({"images": (), "groups": (), "breasts": ()}, "no image"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(PredictionsError, match=said):
        replace(made_up(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no predictions"),
        (b"task,image\n1,2\n", "first columns"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"task,image,group,breast,fold,label,score\na,b,c,d,0,x,1\n", "column 7"),
        (b"task,image,group,breast,fold,label,logit:b,probability:a,probability:b\na\n", "row 2: 1 cells"),
        (
            b"task,image,group,breast,fold,label,logit:b,probability:a,probability:b\nt,i,g,b,0,a,x,.5,.5\n",
            "row 2: logit:b is not a number",
        ),
        (
            b"task,image,group,breast,fold,label,logit:b,probability:a,probability:b\nt,i,g,b,0,c,1,.5,.5\n",
            "1 labels have no column",
        ),
        (b'task,"image', "no CSV"),
    ],
)
def test_a_file_that_is_no_table_of_predictions_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_bytes(content)
    with pytest.raises(PredictionsError, match=said):
        read(tmp_path / "predictions.csv")


def test_a_missing_file_is_refused_without_its_folder_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"^predictions\.csv cannot be read"):
        read(tmp_path / "predictions.csv")

"""What a network said about labelled images: the one thing that training hands to evaluation and comparison.

A run may cross-validate; then each image is predicted once, by the network of the fold that left it out.
On disk they are one CSV table that spreadsheets and other programs read too; numbers survive to the last bit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.atomic_file import write_atomically
from training.errors import PredictionsError

_FIXED = ("task", "image", "group", "breast", "fold", "label")
_LOGIT, _PROBABILITY, _SUBGROUP = "logit:", "probability:", "subgroup:"
_SUM_TOLERANCE = 1e-4  # a softmax in float32 over a thousand classes is off by less


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers for ``n`` images of a task with ``k`` outputs.

    Attributes
    ----------
    task : str
        The task.
    classes : tuple of str
        The task's class names: two for one output, otherwise one for each output.
    images, groups, breasts : tuple of str
        ``n`` names each: the image, its woman or patient, her breast.
    labels : numpy.ndarray
        ``(n,)`` int64 index into `classes`.
    logits : numpy.ndarray
        ``(n, k)`` float64 raw outputs.
    probabilities : numpy.ndarray
        ``(n, len(classes))`` float64 calibrated probabilities, each row adds up to 1.
    folds : numpy.ndarray
        ``(n,)`` int64: the fold whose network answered; all 0 where there was one split.
    subgroups : Mapping of str to tuple of str
        Name of a subgroup, such as ``"scanner"``, to the ``n`` values; ``""`` where unknown.

    Raises
    ------
    PredictionsError
        If the parts do not fit each other, a number is not finite, or an image is named twice.
    """

    task: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    groups: tuple[str, ...]
    breasts: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    folds: NDArray[np.int64]
    subgroups: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for problem, is_wrong in self._problems():
            if is_wrong:
                raise PredictionsError(f"These predictions cannot be used: {problem}.")

    def _problems(self) -> Sequence[tuple[str, bool]]:
        """Name what may be wrong, each with whether it is; only what comes before must hold to ask."""
        count, known = len(self.images), len(self.classes)
        outputs = 1 if known == 2 else known
        columns = (self.groups, self.breasts, self.labels, self.folds, *self.subgroups.values())
        shapes = (self.logits.shape, self.probabilities.shape)
        if count == 0 or known < 2 or len(set(self.classes)) != known:
            return [("there is no image, or there are fewer than two different classes", True)]
        if any(len(column) != count for column in columns) or self.labels.ndim != 1 or self.folds.ndim != 1:
            return [("there must be one group, breast, label, fold and subgroup value for each image", True)]
        if shapes not in (((count, outputs), (count, known)), ((count, known), (count, known))):
            return [("there must be one row for each image, one column for each output and class", True)]
        sums = self.probabilities.sum(axis=1)
        return [
            ("an image is named twice", len(set(self.images)) != count),
            ("a label names no class", bool(((self.labels < 0) | (self.labels >= known)).any())),
            ("a fold is negative", bool((self.folds < 0).any())),
            ("a logit is not finite (did training diverge?)", not bool(np.isfinite(self.logits).all())),
            (
                "probabilities must lie in 0..1 and add up to 1 for each image",
                not bool(
                    ((self.probabilities >= 0) & (self.probabilities <= 1)).all()
                    and (np.abs(sums - 1) <= _SUM_TOLERANCE).all()
                ),
            ),
        ]

    def __len__(self) -> int:
        return len(self.images)


def write(predictions: Predictions, path: Path) -> None:
    """Write predictions as CSV; :func:`read` gives the same values to the last bit.

    Columns are ``task, image, group, breast, fold, label``, then ``logit:CLASS`` for each output,
    ``probability:CLASS`` for each class and ``subgroup:NAME``. The label is the class's name.
    """
    outputs = predictions.classes[-predictions.logits.shape[1] :]
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(
        [
            *_FIXED,
            *(_LOGIT + name for name in outputs),
            *(_PROBABILITY + name for name in predictions.classes),
            *(_SUBGROUP + name for name in predictions.subgroups),
        ]
    )
    for row in range(len(predictions)):
        table.writerow(
            [
                predictions.task,
                predictions.images[row],
                predictions.groups[row],
                predictions.breasts[row],
                int(predictions.folds[row]),
                predictions.classes[predictions.labels[row]],
                *(repr(float(value)) for value in predictions.logits[row]),
                *(repr(float(value)) for value in predictions.probabilities[row]),
                *(values[row] for values in predictions.subgroups.values()),
            ]
        )
    write_atomically(path, text.getvalue().encode("utf-8"))


def read(path: Path) -> Predictions:
    """Read the CSV of :func:`write`.

    Raises
    ------
    PredictionsError
        If the file is missing, is no such table, or what it says does not fit together.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PredictionsError(
            f"{path.name} cannot be read as predictions ({type(error).__name__}): name a file that "
            "'dicom-node train' wrote."
        ) from error
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise PredictionsError(f"{path.name} is no CSV table: {error}.") from error
    if len(rows) < 2:
        raise PredictionsError(f"{path.name} holds no predictions.")
    header, body = rows[0], rows[1:]
    _check_header(header, path.name)
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise PredictionsError(f"{path.name}, row {number}: {len(row)} cells, not {len(header)}.")
    columns = {name: [row[i] for row in body] for i, name in enumerate(header)}
    return _predictions(columns, path.name)


def _check_header(header: Sequence[str], file: str) -> None:
    if tuple(header[: len(_FIXED)]) != _FIXED or len(set(header)) != len(header):
        raise PredictionsError(
            f"{file}: the first columns must be {', '.join(_FIXED)}, and each name stands once."
        )
    kinds = (_LOGIT, _PROBABILITY, _SUBGROUP)
    if unknown := [i for i, name in enumerate(header) if i >= len(_FIXED) and not name.startswith(kinds)]:
        raise PredictionsError(f"{file}: column {unknown[0] + 1} is not one of {', '.join(kinds)}.")


def _predictions(columns: Mapping[str, list[str]], file: str) -> Predictions:
    classes = _endings(columns, _PROBABILITY)
    if len(set(columns["task"])) != 1:
        raise PredictionsError(f"{file} names more than one task: keep one file for each.")
    if unknown := sorted(set(columns["label"]) - set(classes)):
        raise PredictionsError(f"{file}: {len(unknown)} labels have no column {_PROBABILITY}CLASS.")
    index = {name: number for number, name in enumerate(classes)}
    logits = [_numbers(columns, _LOGIT + name, file) for name in _endings(columns, _LOGIT)]
    probabilities = [_numbers(columns, _PROBABILITY + name, file) for name in classes]
    if not logits:
        raise PredictionsError(f"{file} has no column {_LOGIT}CLASS.")
    return Predictions(
        task=columns["task"][0],
        classes=classes,
        images=tuple(columns["image"]),
        groups=tuple(columns["group"]),
        breasts=tuple(columns["breast"]),
        labels=np.asarray([index[name] for name in columns["label"]], dtype=np.int64),
        logits=np.column_stack(logits),
        probabilities=np.column_stack(probabilities),
        folds=_numbers(columns, "fold", file).astype(np.int64),
        subgroups={name: tuple(columns[_SUBGROUP + name]) for name in _endings(columns, _SUBGROUP)},
    )


def _endings(columns: Mapping[str, list[str]], beginning: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(beginning) for name in columns if name.startswith(beginning))


def _numbers(columns: Mapping[str, list[str]], name: str, file: str) -> NDArray[np.float64]:
    values = []
    for number, cell in enumerate(columns[name], start=2):
        try:
            values.append(float(int(cell) if name == "fold" else float(cell)))
        except ValueError as error:
            raise PredictionsError(f"{file}, row {number}: {name} is not a number.") from error
    return np.asarray(values, dtype=np.float64)

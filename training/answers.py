"""From a network's raw outputs for labelled images to predictions with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from models.calibration import fit_temperature, probabilities
from models.class_scores import class_probabilities
from models.errors import CalibrationError
from models.tasks import Task
from training.errors import TrainingError
from training.predictions import Predictions
from training.records import Record

_TEMPERATURES = (0.05, 20.0)


def temperature_of(outputs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Fit the temperature that makes validation probabilities fit their labels best.

    Parameters
    ----------
    outputs : numpy.ndarray
        ``(n, k)`` raw outputs of validation images.
    labels : numpy.ndarray
        ``(n,)`` index of the true class.

    Returns
    -------
    float
        0.05..20.

    Raises
    ------
    TrainingError
        If the validation part lacks a class that calibration needs.
    """
    if outputs.shape[1] == 1:
        try:
            return fit_temperature(outputs[:, 0], labels)
        except CalibrationError as error:
            raise TrainingError(f"{error} Give a larger --set validation_share=, or more data.") from error

    def loss(log_temperature: float) -> float:
        logarithms = special.log_softmax(outputs / np.exp(log_temperature), axis=1)
        return -float(logarithms[np.arange(len(labels)), labels].mean())

    low, high = np.log(_TEMPERATURES)
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def predictions_of(
    task: Task,
    records: Sequence[Record],
    labels: NDArray[np.int64],
    outputs: NDArray[np.float64],
    temperature: float,
    *,
    fold: int,
) -> Predictions:
    """Return what a fold's network says about some images.

    Parameters
    ----------
    task : Task
        The task.
    records : sequence of Record
        The ``n`` images.
    labels : numpy.ndarray
        ``(n,)`` index of their classes.
    outputs : numpy.ndarray
        ``(n, k)`` raw outputs.
    temperature : float
        The fold's.
    fold : int
        Its number.
    """
    if task.outputs == 1:
        positive = probabilities(outputs[:, 0], temperature)
        calibrated = np.column_stack([1.0 - positive, positive])
    else:
        calibrated = class_probabilities(outputs, temperature)
    named = sorted({name for record in records for name in record.subgroups})
    return Predictions(
        task=task.name,
        classes=task.classes,
        images=tuple(record.image for record in records),
        groups=tuple(record.group for record in records),
        breasts=tuple(record.breast for record in records),
        labels=labels,
        logits=outputs,
        probabilities=calibrated,
        folds=np.full(len(records), fold, dtype=np.int64),
        subgroups={name: tuple(r.subgroups.get(name, "") for r in records) for name in named},
    )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several folds as one."""
    first = parts[0]
    return Predictions(
        task=first.task,
        classes=first.classes,
        images=tuple(image for part in parts for image in part.images),
        groups=tuple(group for part in parts for group in part.groups),
        breasts=tuple(breast for part in parts for breast in part.breasts),
        labels=np.concatenate([part.labels for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        folds=np.concatenate([part.folds for part in parts]),
        subgroups={
            name: tuple(
                value for part in parts for value in part.subgroups.get(name, ("",) * len(part.images))
            )
            for name in sorted({name for part in parts for name in part.subgroups})
        },
    )

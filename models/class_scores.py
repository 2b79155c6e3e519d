"""From the outputs of a network to what they mean: the probability of the task's target, and of each class.

One output is the log odds of the task's one label. Several are turned into probabilities that add up to 1;
the probability of the target is then that of every class but the negative one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from models.calibration import probabilities
from models.contract import ClassScore
from models.tasks import Task


@dataclass(frozen=True, slots=True)
class Score:
    """What the outputs for one image mean.

    Attributes
    ----------
    logit : float
        Log odds of the target before calibration.
    probability : float
        Calibrated probability of the target, 0..1.
    classes : tuple of ClassScore
        Most probable first; empty for one output.
    shown_output : int
        The output whose map is evidence: the most probable one that is not the negative class.
    """

    logit: float
    probability: float
    classes: tuple[ClassScore, ...]
    shown_output: int


def class_probabilities(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Calibrated probabilities of several classes.

    Parameters
    ----------
    logits : array_like
        ``(..., outputs)`` raw outputs, at least two for each image.
    temperature : float
        Divides logits; above 0.

    Returns
    -------
    numpy.ndarray
        ``(..., outputs)`` float64; those of one image add up to 1.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return np.asarray(special.softmax(scaled, axis=-1), dtype=np.float64)


def target_logits(logits: ArrayLike, task: Task) -> NDArray[np.float64]:
    """Log odds of a task's target.

    Parameters
    ----------
    logits : array_like
        ``(..., outputs)`` raw outputs of a network for `task`.
    task : Task
        Says which of several classes is the negative one.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64: the one output, or the log odds of all classes but the negative one.
    """
    values = np.asarray(logits, dtype=np.float64)
    if task.outputs == 1:
        return values[..., 0]
    negative = _negative_output(task)
    others = np.delete(values, negative, axis=-1)
    return np.asarray(special.logsumexp(others, axis=-1) - values[..., negative], dtype=np.float64)


def score_of(task: Task, logits: NDArray[np.float32], temperature: float) -> Score:
    """Say what the outputs for one image mean.

    Parameters
    ----------
    task : Task
        What was asked.
    logits : numpy.ndarray
        ``(outputs,)`` float32.
    temperature : float
        Divides logits; above 0.
    """
    if task.outputs == 1:
        logit = float(logits[0])
        return Score(logit, float(probabilities(logit, temperature)), (), 0)
    each = class_probabilities(logits, temperature)
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    negative = _negative_output(task)
    scores = [
        ClassScore(name, finding, task.margins.get(name), float(probability))
        for name, finding, probability in zip(task.classes, task.labels, each, strict=True)
    ]
    positive = [output for output in range(task.outputs) if output != negative]
    return Score(
        logit=float(target_logits(logits, task)),
        probability=float(probabilities(target_logits(scaled, task), 1.0)),
        classes=tuple(sorted(scores, key=lambda score: -score.probability)),
        shown_output=max(positive, key=lambda output: each[output]),
    )


def _negative_output(task: Task) -> int:
    return task.classes.index(str(task.negative_class))

"""What the demonstration's network is worth: numbers with their intervals, on women it has never seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import nn

from models.contract import Laterality
from models.manifest import Metric
from training.demonstration.cohort import Example

_RESAMPLES = 1000


def run_network(
    network: nn.Module, examples: Sequence[Example]
) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
    """Return the logits ``(n,)`` and the class activation maps ``(h, w)`` of examples, each run alone."""
    logits, maps = [], []
    with torch.inference_mode():
        for example in examples:
            logit, activation = network(torch.from_numpy(example.tensor[np.newaxis]))
            logits.append(float(logit[0, 0]))
            maps.append(activation[0, 0].numpy())
    return np.asarray(logits), maps


def study_scores(
    examples: Sequence[Example], probabilities: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the score (mean of views, maximum of breasts) and label of each woman, by her number."""
    values = np.asarray(probabilities, dtype=np.float64)
    scores, labels = [], []
    for woman in sorted({example.woman for example in examples}):
        breasts = []
        for side in Laterality:
            of_breast = [i for i, e in enumerate(examples) if e.woman == woman and e.laterality is side]
            if of_breast:
                breasts.append(float(values[of_breast].mean()))
        scores.append(max(breasts))
        labels.append(any(e.is_malignant for e in examples if e.woman == woman))
    return np.asarray(scores), np.asarray(labels, dtype=np.bool_)


def auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties count half."""
    ranks = stats.rankdata(scores)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_metric(
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    women: NDArray[np.int64],
    *,
    level: str,
    seed: int,
) -> Metric:
    """AUC with a 95 % interval by resampling women, not images: a woman's images are not independent."""
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(women == woman) for woman in np.unique(women)]
    found = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        if 0 < labels[drawn].sum() < drawn.size:
            found.append(auc(scores[drawn], labels[drawn]))
    low, high = np.percentile(found, [2.5, 97.5]) if found else (0.0, 1.0)
    return Metric("auc", level, auc(scores, labels), float(low), float(high), scores.size)


def share_metric(name: str, level: str, hits: NDArray[np.bool_]) -> Metric:
    """A proportion with Wilson's 95 % interval."""
    cases, z = hits.size, float(stats.norm.ppf(0.975))
    if cases == 0:
        return Metric(name, level, 0.0, 0.0, 1.0, 0)
    share = float(hits.mean())
    centre = (share + z * z / (2 * cases)) / (1 + z * z / cases)
    half = z / (1 + z * z / cases) * float(np.sqrt(share * (1 - share) / cases + z * z / (4 * cases**2)))
    return Metric(name, level, share, max(0.0, centre - half), min(1.0, centre + half), cases)


def pointing_hits(examples: Sequence[Example], maps: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """For each malignant image, whether the map's peak lies in the lesion (pointing game)."""
    hits = []
    for example, activation in zip(examples, maps, strict=True):
        if example.lesion is None or not example.is_malignant:
            continue
        cell = example.tensor.shape[1] / activation.shape[0]
        row, column = np.unravel_index(int(activation.argmax()), activation.shape)
        x, y, radius = example.lesion
        hits.append(bool(np.hypot((column + 0.5) * cell - x, (row + 0.5) * cell - y) <= max(radius, cell)))
    return np.asarray(hits, dtype=np.bool_)

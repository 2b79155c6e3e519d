"""The pictures of a report, as PNG bytes. Drawn without a display and without matplotlib's global state."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training import metrics
from training.evaluation import GRID, LevelScores
from training.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_INCHES, _DPI = (4.6, 4.2), 110
_BLUE, _GREY, _PALE = "#1f5fa8", "#777777", "#b9d2ee"
_TEN_COLOURS = "tab10"


def roc_plot(level: LevelScores) -> bytes:
    """Draw the ROC curve with its 95 % band; one curve for each class where there are several."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--")
    if level.band is not None:
        axes.fill_between(GRID, *level.band, color=_PALE, linewidth=0, label="95 % at each point")
    for name, scores, truth, colour in _asked(level):
        curve = metrics.roc(scores, truth)
        axes.plot(curve.x, curve.y, color=colour, linewidth=1.4, label=name)
    if level.point is not None:
        x = 1.0 - level.point.scores["specificity"].value
        axes.plot(x, level.point.scores["sensitivity"].value, "o", color="black", label="operating point")
    axes.legend(loc="lower right", fontsize=7, frameon=False)
    return _png(figure)


def precision_recall_plot(level: LevelScores) -> bytes:
    """Draw precision against recall, with the share of positives as the line of a guess."""
    figure, axes = _square("sensitivity (recall)", "precision")
    for name, scores, truth, colour in _asked(level):
        curve = metrics.precision_recall(scores, truth)
        axes.plot(curve.x, curve.y, color=colour, linewidth=1.4, drawstyle="steps-pre", label=name)
        axes.axhline(truth.mean(), color=colour, linewidth=0.8, linestyle="--")
    axes.legend(loc="upper right", fontsize=7, frameon=False)
    return _png(figure)


def calibration_plot(level: LevelScores) -> bytes:
    """Draw what came true against what was said, in bins of equally many cases with Wilson's intervals."""
    figure, axes = _square("predicted probability", "share that was positive")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--")
    said, came, sizes = metrics.adaptive_bins(level.cases.probabilities[:, 1], level.cases.labels == 1)
    spread = [wilson(share * size, int(size)) for share, size in zip(came, sizes, strict=True)]
    below = np.maximum([share - one.low for share, one in zip(came, spread, strict=True)], 0.0)
    above = np.maximum([one.high - share for share, one in zip(came, spread, strict=True)], 0.0)
    axes.errorbar(said, came, yerr=[below, above], fmt="o-", color=_BLUE, markersize=4, linewidth=1)
    return _png(figure)


def confusion_plot(level: LevelScores) -> bytes:
    """Draw the confusion matrix: counts, shaded by the share of the true class."""
    counts = np.asarray(level.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    figure, axes = _figure()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    names = level.cases.classes
    axes.set_xticks(range(len(names)), labels=list(map(_literal, names)), rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), labels=list(map(_literal, names)), fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=9)
    return _png(figure)


def _asked(
    level: LevelScores,
) -> list[tuple[str, metrics.Array, np.ndarray[tuple[int, ...], np.dtype[np.bool_]], str]]:
    """Name, scores, truth and colour of each class that is asked for and has cases on both sides."""
    ten = mpl.colormaps[_TEN_COLOURS]
    colours = [mpl.colors.to_hex(ten(number)) for number in range(10)]
    found = []
    for number, scores in enumerate(level.classes):
        index = 1 if level.cases.is_binary else number
        truth = level.cases.labels == index
        if truth.any() and not truth.all():
            colour = _BLUE if level.cases.is_binary else colours[number % len(colours)]
            found.append((_literal(scores.name), level.cases.probabilities[:, index], truth, colour))
    return found


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = _figure()
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _literal(name: str) -> str:
    """Keep matplotlib from reading a dollar sign as the beginning of a formula."""
    return name.replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()

"""A comparison as rows for people, as JSON for programs, and as an HTML page."""

from __future__ import annotations

import io
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.atomic_file import write_atomically, write_json
from training.comparison import SIGNIFICANCE, Comparison
from training.evaluation_report import TITLES, written
from training.report_page import document, picture, table

JSON_NAME, PAGE_NAME = "comparison.json", "index.html"
MODEL_HEADS = (
    "model",
    "letters",
    TITLES["auc"],
    TITLES["accuracy"],
    TITLES["log_loss"],
    "training ms per image",
    "weights MB",
)
PAIR_HEADS = ("first minus second", "AUC", "p (Holm)", "accuracy", "p (McNemar, Holm)")
MEANING = (
    f"Models that share a letter cannot be told apart by their AUC (paired test, {SIGNIFICANCE:.0%} over all "
    "pairs). The highest number among them is the luckiest, not the best."
)


def headline(comparison: Comparison) -> str:
    """Return one sentence on what was compared."""
    return (
        f"{comparison.task}, level {comparison.level}: {comparison.cases} cases of {comparison.women} women; "
        f"always answering the most frequent class is right in {comparison.baseline:.3f}."
    )


def model_rows(comparison: Comparison) -> list[list[str]]:
    """Return a line for each model, the highest AUC first; columns are :data:`MODEL_HEADS`."""
    return [
        [
            model.name,
            model.letters,
            *(written(model.scores[key]) for key in ("auc", "accuracy", "log_loss")),
            "–" if model.training_ms is None else f"{model.training_ms:.1f}",
            "–" if model.weights_mb is None else f"{model.weights_mb:.1f}",
        ]
        for model in comparison.competitors
    ]


def pair_rows(comparison: Comparison) -> list[list[str]]:
    """Return a line for each pair; columns are :data:`PAIR_HEADS`."""
    return [
        [
            f"{pair.first} - {pair.second}",
            f"{pair.auc.value:+.3f} ({pair.auc.low:+.3f} to {pair.auc.high:+.3f})",
            f"{pair.auc_adjusted:.3g}",
            f"{pair.accuracy:+.3f}",
            f"{pair.accuracy_adjusted:.3g}",
        ]
        for pair in comparison.pairs
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values; what is not defined is null."""
    found: dict[str, Any] = _defined({"format": 1, **asdict(comparison)})
    return found


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``comparison.json`` and ``index.html`` into `folder`; return the page's path."""
    shown = page(comparison)
    write_json(folder / JSON_NAME, as_json(comparison))
    write_atomically(folder / PAGE_NAME, shown.encode("utf-8"))
    return folder / PAGE_NAME


def page(comparison: Comparison) -> str:
    """Return the comparison as one HTML page."""
    marked = tuple(range(2, 5)) if comparison.warnings else ()
    return document(
        f"Comparison: {comparison.task}",
        [
            *(f'<p class="warning">{escape(text)}</p>' for text in comparison.warnings),
            f"<p>{escape(headline(comparison))}</p>",
            table(MODEL_HEADS, model_rows(comparison), marked),
            f"<p>{escape(MEANING)}</p>",
            picture(_areas(comparison), "AUC with 95 % interval; the letters say who cannot be told apart"),
            "<h2>Pairs</h2>",
            table(PAIR_HEADS, pair_rows(comparison)),
        ],
    )


def _areas(comparison: Comparison) -> bytes:
    """Draw each model's AUC with its interval, the highest on top."""
    models = comparison.competitors[::-1]
    figure = Figure(figsize=(5.5, 1.0 + 0.4 * len(models)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = np.asarray([model.scores["auc"].value for model in models])
    below = values - [model.scores["auc"].low for model in models]
    above = [model.scores["auc"].high for model in models] - values
    places = np.arange(len(models))
    axes.errorbar(
        values, places, xerr=np.clip([below, above], 0.0, None), fmt="o", color="#1f5fa8", capsize=3
    )
    names = [f"{model.name}  {model.letters}".replace("$", r"\$") for model in models]
    axes.set_yticks(places, labels=names)
    axes.set_ylim(-0.5, len(models) - 0.5)
    axes.set_xlabel("AUC")
    axes.grid(axis="x", linewidth=0.4)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

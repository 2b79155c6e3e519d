"""The report as one HTML page: no script, no other file, everything that came from data escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from training.atomic_file import write_atomically, write_json
from training.evaluation import best_level
from training.evaluation_report import (
    LOCALISATION_HEADS,
    Column,
    as_json,
    localisation_rows,
    localisation_sentence,
    option_rows,
    rows,
    written,
)
from training.report_plots import calibration_plot, confusion_plot, precision_recall_plot, roc_plot

JSON_NAME, PAGE_NAME = "report.json", "index.html"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
th.section { padding-top: 1.2rem; border-bottom: 2px solid #888 }
.warning { background: #fff1d6; border-left: 4px solid #c77700; padding: .5rem 1rem; margin: .5rem 0 }
.passed { background: #e7f4e4; border-left: 4px solid #3b8132; padding: .5rem 1rem; margin: .5rem 0 }
td.marked { background: #fff1d6 }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
figcaption { font-size: 13px; color: #555 }
img { max-width: 30rem }
"""


def document(title: str, body: Sequence[str]) -> str:
    """Return a whole page; `title` is escaped here, the parts of `body` are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def picture(content: bytes, caption: str) -> str:
    """Return a PNG within the page."""
    data = base64.b64encode(content).decode("ascii")
    text = escape(caption)
    shown = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"


def table(heads: Sequence[str], body: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    """Return a table of texts, escaped here; columns in `marked` carry the colour of a warning."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = [
        "".join(
            f'<td class="marked">{escape(text)}</td>' if number in marked else f"<td>{escape(text)}</td>"
            for number, text in enumerate(line)
        )
        for line in body
    ]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def write_report(columns: Sequence[Column], folder: Path) -> Path:
    """Write ``report.json`` and ``index.html`` into `folder`; return the page's path.

    Raises
    ------
    EvaluationError
        If nothing could be measured.
    """
    shown = page(columns)
    write_json(folder / JSON_NAME, as_json(columns))
    write_atomically(folder / PAGE_NAME, shown.encode("utf-8"))
    return folder / PAGE_NAME


def page(columns: Sequence[Column]) -> str:
    """Return the page of one run, or of two protocols side by side.

    Raises
    ------
    EvaluationError
        If nothing could be measured.
    """
    body = []
    for column in columns:
        body += _verdict(column)
    body.append(
        "<h2>Numbers</h2><p>In brackets: 95 % interval. Images, breasts and women are different questions: "
        "compare numbers of the same level only.</p>"
    )
    body.append(_numbers(columns))
    body += _options(columns)
    for column in columns:
        body += _plots(column)
        body += _subgroups(column)
        body += _localisation(column)
        body += _examples(column)
        body += _notes(column)
    return document(f"Evaluation: {columns[0].evaluation.task}", body)


def _heading(column: Column) -> str:
    return f"{column.run.name}, {column.run.title}"


def _verdict(column: Column) -> list[str]:
    found = [f"<h2>{escape(_heading(column))}</h2>"]
    if column.run.warnings:
        return found + [f'<p class="warning">{escape(text)}</p>' for text in column.run.warnings]
    text = "The leak guard found nothing of a test image in training."
    if column.run.verdict is not None and (null := column.run.verdict.null) is not None:
        text += (
            f" Labels without meaning were predicted with an AUC of {null.auc:.3f}, inside the "
            f"{null.low:.3f} to {null.high:.3f} that chance gives."
        )
    return [*found, f'<p class="passed">{escape(text)}</p>']


def _numbers(columns: Sequence[Column]) -> str:
    marked = {number for number, column in enumerate(columns) if column.run.warnings}
    heads = "".join(f"<th>{escape(_heading(column))}</th>" for column in columns)
    lines, section = [f"<tr><th></th>{heads}</tr>"], ""
    for row in rows(columns):
        if row.section != section:
            section = row.section
            lines.append(f'<tr><th class="section" colspan="{len(columns) + 1}">{escape(section)}</th></tr>')
        cells = "".join(
            f'<td class="marked">{escape(text)}</td>' if number in marked else f"<td>{escape(text)}</td>"
            for number, text in enumerate(row.cells)
        )
        lines.append(f"<tr><td>{escape(row.title)}</td>{cells}</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _options(columns: Sequence[Column]) -> list[str]:
    if not (lines := option_rows(columns)):
        return []
    return ["<h2>How it was trained</h2>", table(("option", *map(_heading, columns)), lines)]


def _plots(column: Column) -> list[str]:
    level = best_level(column.evaluation)
    found = [f"<h2>Curves: {escape(_heading(column))}, level {escape(level.name)}</h2>"]
    captions: list[tuple[str, bytes]] = [
        ("ROC: how many are found at each rate of false alarms", roc_plot(level)),
        ("Precision and recall; dashed: a guess", precision_recall_plot(level)),
        ("Confusion matrix: counts, shaded by share of the true class", confusion_plot(level)),
    ]
    if level.cases.is_binary:
        captions.append(
            ("Calibration: on the dashed line probabilities mean what they say", calibration_plot(level))
        )
    return found + [picture(content, caption) for caption, content in captions]


def _subgroups(column: Column) -> list[str]:
    if not column.evaluation.subgroups:
        return []
    body = [
        [
            group.name,
            group.value,
            f"{group.cases} ({group.women})",
            *(
                "too few to say" if group.is_suppressed else written(group.scores.get(key))
                for key in ("auc", "accuracy", "balanced_accuracy")
            ),
        ]
        for group in column.evaluation.subgroups
    ]
    heads = ("subgroup", "value", "images (women)", "AUC", "accuracy", "balanced accuracy")
    marked = range(3, 6) if column.run.warnings else ()
    return [f"<h2>Subgroups of images: {escape(_heading(column))}</h2>", table(heads, body, tuple(marked))]


def _localisation(column: Column) -> list[str]:
    if (quality := column.run.localisation) is None:
        return []
    kind = "passed" if quality.is_better_than_random else "warning"
    return [
        f"<h2>Maps: {escape(_heading(column))}</h2>",
        f'<p class="{kind}">{escape(localisation_sentence(quality))}</p>',
        table(LOCALISATION_HEADS, localisation_rows(quality)),
    ]


def _examples(column: Column) -> list[str]:
    if not column.run.overlays:
        return []
    # File names may say who somebody is: examples are numbered instead.
    shown = [
        picture(path.read_bytes(), f"Example {number}")
        for number, path in enumerate(column.run.overlays, start=1)
    ]
    return [
        f"<h2>Examples: {escape(_heading(column))}</h2>",
        "<p>Lesions that people drew in yellow; in red where the map speaks for a finding.</p>",
        *shown,
    ]


def _notes(column: Column) -> list[str]:
    if not column.evaluation.notes:
        return []
    notes = "".join(f"<li>{escape(note)}</li>" for note in column.evaluation.notes)
    return [f"<h2>Not measured: {escape(_heading(column))}</h2><ul>{notes}</ul>"]

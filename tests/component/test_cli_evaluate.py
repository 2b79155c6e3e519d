"""``dicom-node evaluate``: numbers side by side, nothing of a split that leaks, a page without script."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dicom_node.cli.exit_codes import ExitCode, exit_code_of
from dicom_node.cli.main import app
from tests.evaluated_runs import HOSTILE, SPECIFICITY, data_set, split_of, write_run
from training import leak_guard, localisation, predictions
from training.errors import EvaluationError, LeakError, PredictionsError, TrainingError
from training.evaluation import Targets, evaluate
from training.lesion_areas import LocatedMap
from training.splits import AS_WRITTEN


def evaluated(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refused(*arguments: object) -> TrainingError:
    """Run a command that must refuse; nothing may be printed."""
    result = evaluated(*arguments)
    assert isinstance(result.exception, TrainingError), result.output
    assert "AUC" not in result.output
    assert exit_code_of(result.exception) is ExitCode.REFUSED
    return result.exception


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "honest")


@pytest.fixture(scope="module")
def as_written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "source", protocol=AS_WRITTEN, shift=4.0, answers=1)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_gets_a_table_a_page_and_json(honest: Path) -> None:
    result = evaluated(honest)
    assert result.exit_code == 0, result.output
    expected = evaluate(
        predictions.read(honest / "predictions.csv"),
        {number: predictions.read(honest / f"fold-{number}" / "validation.csv") for number in (0, 1)},
        targets=Targets(specificity=SPECIFICITY),
    )
    woman = expected.levels[-1]
    assert woman.point is not None
    assert f"{woman.scores['auc'].value:.3f}" in result.output
    assert "accuracy of always answering the most frequent class" in result.output
    assert "split by woman" in result.output
    low, high = sorted(point.threshold for point in woman.point.points.values())
    assert f"{low:.4f} to {high:.4f}, one for each fold" in result.output
    assert "leaks" not in result.output
    report = json.loads((honest / "report" / "report.json").read_text())
    (column,) = report["columns"]
    assert column["levels"]["woman"]["scores"]["auc"]["value"] == woman.scores["auc"].value
    assert column["levels"]["woman"]["scores"]["adaptive_ece"]["low"] is None
    written = column["levels"]["woman"]["operating_point"]["folds"]
    assert {fold: point["threshold"] for fold, point in written.items()} == {
        str(fold): point.threshold for fold, point in woman.point.points.items()
    }
    assert column["protocol"] == "by_group"
    assert column["warnings"] == []
    assert column["null_label_auc"]["low"] <= column["null_label_auc"]["value"]
    assert column["options"] == {"data_set": "made_up", "seed": 0}, "no place on a disk"
    page = (honest / "report" / "index.html").read_text()
    assert "<td>data set</td><td>made_up</td>" in page
    assert "/somewhere" not in page
    assert [group["suppressed"] for group in column["subgroups"]] == [True, False]


def test_two_protocols_stand_side_by_side_and_the_leaking_one_is_marked(
    honest: Path, as_written: Path, tmp_path: Path
) -> None:
    result = evaluated(honest, "--beside", as_written, "--out", tmp_path / "both")
    assert result.exit_code == 0, result.output
    heading = result.output.splitlines()[0]
    assert "honest, split by woman" in heading
    assert "source, as the source wrote it, leaks" in heading
    assert "labels without meaning are predicted" in result.output
    tags = Tags()
    tags.feed((tmp_path / "both" / "index.html").read_text())
    marked = [attributes for tag, attributes in tags.seen if attributes.get("class") == "marked"]
    assert len(marked) > 20
    assert "Leaks, as the source wrote it" in tags.text


def test_the_page_needs_no_other_file_and_runs_no_script(honest: Path, tmp_path: Path) -> None:
    assert evaluated(honest, "--out", tmp_path / "page").exit_code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert HOSTILE not in page
    assert HOSTILE in tags.text
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object"}
    sources = [attributes["src"] for tag, attributes in tags.seen if tag == "img"]
    assert len(sources) == 4
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert not any(name.startswith("on") for _, attributes in tags.seen for name in attributes)


def test_example_pictures_are_shown_by_number_not_by_name(honest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("predictions.csv", "split.json", "guard.json"):
        (run / name).write_bytes((honest / name).read_bytes())
    (run / "overlays").mkdir()
    (run / "overlays" / "MRS-SMITH.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert evaluated(run).exit_code == 0
    page = (run / "report" / "index.html").read_text()
    assert "Example 1" in page
    assert "SMITH" not in page


def test_a_map_that_beats_nothing_is_called_so(honest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("predictions.csv", "split.json", "guard.json"):
        (run / name).write_bytes((honest / name).read_bytes())
    random = np.random.default_rng(0)
    inside = np.ones((16, 16), np.bool_)
    maps = [
        LocatedMap(f"w{i}", random.random((4, 4)), (random.random((16, 16)) > 0.9,), inside)
        for i in range(25)
    ]
    localisation.write(localisation.measure(maps, maps), run / "localisation.json")
    result = evaluated(run)
    assert result.exit_code == 0, result.output
    assert "not to be trusted" in result.output
    assert "random weights" in result.output
    assert "not to be trusted" in (run / "report" / "index.html").read_text()
    (column,) = json.loads((run / "report" / "report.json").read_text())["columns"]
    assert column["localisation"]["is_better_than_random"] is False
    assert column["localisation"]["advantage"]["random_weights"]["value"] == 0.0
    assert set(column["localisation"]["maps"]) == {"network", "random_peak", "other_woman", "random_weights"}


def test_the_same_run_gives_the_same_report(honest: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert evaluated(honest, "--out", tmp_path / name).exit_code == 0
    for name in ("report.json", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_is_shown_of_a_split_by_woman_that_leaks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (dataset, pictures), split = data_set(), split_of(run)
    rows = {record.image: row for row, record in enumerate(dataset.records)}
    fold = split.folds[0]
    pictures[rows[fold.test[0]]] = pictures[rows[fold.training[0]]][::-1]
    leak_guard.inspect(split, dataset, pictures.__getitem__).write(run / "guard.json")
    error = refused(run)
    assert isinstance(error, LeakError)
    assert "1 pictures" in str(error)
    assert not (run / "report").exists()


def test_nothing_is_shown_without_the_guards_word_on_this_very_split(honest: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", seed=5)
    (run / "guard.json").write_bytes((honest / "guard.json").read_bytes())
    assert "another split" in str(refused(run))
    (run / "guard.json").unlink()
    assert "without it no number" in str(refused(run))
    assert not (run / "report").exists()


def test_predictions_of_images_that_were_trained_on_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    answers = predictions.read(run / "predictions.csv")
    predictions.write(replace(answers, folds=1 - answers.folds), run / "predictions.csv")
    assert isinstance(refused(run), LeakError)
    moved = replace(answers, groups=(answers.groups[-1], *answers.groups[1:]))
    predictions.write(moved, run / "predictions.csv")
    assert "another woman" in str(refused(run))


def test_a_bare_table_is_measured_and_called_unguarded(honest: Path) -> None:
    result = evaluated("--predictions", honest / "predictions.csv")
    assert result.exit_code == 0, result.output
    assert "Not guarded" in result.output
    assert "unknown split" in result.output
    assert "Report:" not in result.output


def test_json_is_one_document(honest: Path) -> None:
    result = evaluated("--predictions", honest / "predictions.csv", "--json")
    assert set(json.loads(result.output)["columns"][0]["levels"]) == {"image", "woman"}


def test_what_is_no_run_is_refused(tmp_path: Path, honest: Path) -> None:
    assert isinstance(refused(tmp_path), EvaluationError)
    (tmp_path / "table.csv").write_text("rubbish")
    assert isinstance(refused("--predictions", tmp_path / "table.csv"), PredictionsError)
    for arguments in ([], [honest, "--predictions", honest / "predictions.csv"]):
        assert evaluated(*arguments).exit_code == ExitCode.USAGE

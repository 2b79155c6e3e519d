"""``dicom-node compare``: one split, letters, a page; refuses what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.cli.exit_codes import ExitCode
from tests.command_line import command
from tests.evaluated_runs import write_run
from training.splits import AS_WRITTEN


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / "vgg19", answers=1, shift=2.0),
        write_run(folder / "<b>ann", answers=2, shift=0.1),
    ]


def test_models_stand_in_the_order_of_their_area_with_letters_and_cost(runs: list[Path]) -> None:
    answer = command("compare", runs[1], runs[0])
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("model"))
    better, poorer = lines[first + 1].split(), lines[first + 2].split()
    assert better[:2] == ["vgg19", "a"]
    assert poorer[:2] == ["<b>ann", "b"]
    assert better[-2:] == ["30.0", "2.0"]
    assert "always answering the most frequent class" in answer.out
    assert "the luckiest, not the best" in answer.out


def test_page_and_json_say_the_same(runs: list[Path], tmp_path: Path) -> None:
    answer = command("compare", *runs, "--out", tmp_path / "out", "--json", "--level", "image")
    assert answer.status == 0, answer.err
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == answer.json
    assert written["level"] == "image"
    assert [one["name"] for one in written["competitors"]] == ["vgg19", "<b>ann"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;ann" in page
    assert "<b>ann" not in page
    assert "<script" not in page


def test_a_leaking_protocol_is_compared_but_marked(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, protocol=AS_WRITTEN, answers=seed) for seed, name in enumerate(("a", "b"))
    ]
    answer = command("compare", *runs)
    assert answer.status == 0
    assert "Leaks, as the source wrote it" in answer.out


def test_runs_of_different_splits_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=9)
    answer = command("compare", runs[0], other)
    assert answer.status == ExitCode.REFUSED
    assert "different splits" in answer.err
    assert "validation_share" in answer.err, "two splits may differ in that alone"
    assert "AUC" not in answer.out
    assert command("compare", runs[0]).status == ExitCode.REFUSED
    assert command("compare", runs[0], tmp_path).status == ExitCode.REFUSED

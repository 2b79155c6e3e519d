"""The training benchmark: it times the loop that runs use, and says how large the network is."""

from __future__ import annotations

import json

import pytest

from benchmarks import training
from models.architectures import architecture_names


def test_every_named_network_is_measured() -> None:
    assert set(training.ARCHITECTURES) == set(architecture_names()) - {"compact"}


def test_the_table_for_programs_holds_the_loop_and_the_bare_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    training.main(["cnn3", "--side", "16", "--images", "8", "--batch", "4", "--json"])
    (cost,) = json.loads(capsys.readouterr().out)
    assert cost["architecture"] == "cnn3"
    assert cost["parameters"] == 682_753, "with one grey channel"
    assert cost["images_per_s"] == pytest.approx(8 / cost["epoch_processor_s"])
    assert cost["ratio"] == pytest.approx(cost["bare_images_per_s"] / cost["images_per_s"])
    assert cost["ratio"] > 1.0, "augmentation, average, validation and checkpoint cost something"


def test_the_table_for_people_has_a_line_for_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    training.main(["cnn3", "ann", "--side", "16", "--images", "8", "--batch", "4"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "architecture"
    assert [line.split()[0] for line in lines] == ["cnn3", "ann"]

"""A bundle shows its network's map only where the map points at lesions that somebody drew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.networks import ImageNetwork
from models.preprocessing import Parameters
from models.tasks import task_named
from tests.made_up_mammograms import draw_mammograms, spot_of
from training import datasets
from training.cache import PreparedImages
from training.data_manifest import read_manifest, write_manifest
from training.localisation import LocalisationQuality
from training.material import silent
from training.network_maps import localisation_of
from training.networks import build_network
from training.records import DataSet, Lesion
from training.run import run
from training.run_config import checked
from training.run_packaging import package_run

WOMEN = 60
GRID = Parameters(rows=48, columns=32, pixel_mm=2.0)
TASK = task_named("mammography_malignancy")


class Brightness(ImageNetwork):
    """Points at what is bright over some cells, as a trained network would here."""

    def __init__(self, sign: float) -> None:
        super().__init__((("pool",),), channels=1, smallest_side=8, head_modules=("pool",))
        self.pool = nn.AvgPool2d(4)
        self.sign = sign

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activation = self.sign * self.pool(batch)
        return activation.mean(dim=(2, 3)), activation


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = draw_mammograms(tmp_path_factory.mktemp("mammograms"), women=WOMEN)
    return with_spots(datasets.read("plain_csv", folder))


def with_spots(dataset: DataSet) -> DataSet:
    """Add the drawn spots of women who have one, as malignant lesions."""
    records = []
    for record in dataset.records:
        woman = int(record.group.removeprefix("w"))
        row, column = spot_of(woman)
        lesion = Lesion((column + 0.5, row + 0.5), 5.0, "spot", is_malignant=True)
        records.append(replace(record, lesions=(lesion,) if woman % 2 else ()))
    return DataSet(dataset.name, tuple(records), dataset.notes)


def measured(dataset: DataSet, cache: Path, network: ImageNetwork) -> LocalisationQuality | None:
    images = PreparedImages(dataset, GRID, cache)
    return localisation_of(network, Brightness(-1.0), TASK, images, np.arange(len(images)))


def test_a_map_that_points_at_lesions_beats_the_map_without_training(drawn: DataSet, tmp_path: Path) -> None:
    found = measured(drawn, tmp_path, Brightness(1.0))
    assert found is not None
    assert found.is_better_than_random
    assert found.verdict.pointing_game > 0.9
    assert found.verdict.lesions == WOMEN // 2


def test_a_map_that_points_elsewhere_does_not(drawn: DataSet, tmp_path: Path) -> None:
    found = measured(drawn, tmp_path, Brightness(-1.0))
    assert found is not None
    assert not found.is_better_than_random


def test_there_is_no_verdict_without_a_map_or_without_lesions(drawn: DataSet, tmp_path: Path) -> None:
    arguments = {"rows": 48, "columns": 32, "channels": 1}
    assert measured(drawn, tmp_path, build_network("ann", arguments, GRID, seed=(1,))) is None
    benign = tuple(
        replace(record, lesions=tuple(replace(lesion, is_malignant=False) for lesion in record.lesions))
        for record in drawn.records
    )
    assert measured(DataSet(drawn.name, benign), tmp_path, Brightness(1.0)) is None


def test_a_bundle_of_a_network_that_learnt_nothing_shows_no_map(tmp_path: Path) -> None:
    images = draw_mammograms(tmp_path / "images", women=WOMEN)
    options = {
        "task": TASK.name,
        "data_set": "plain_csv",
        "data_folder": str(images),
        "architecture": "cnn3",
        "architecture_arguments": {"head": "gap"},
        "rows": GRID.rows,
        "columns": GRID.columns,
        "pixel_mm": GRID.pixel_mm,
        "folds": 2,
        "run_folds": 1,
        "validation_share": 0.5,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-9,
        "specificity": 0.5,
        "device": "cpu",
    }
    folder = run(checked(options), tmp_path / "run", resume=False, advance=silent)
    write_manifest(with_spots(read_manifest(folder.data)), folder.data)
    built = package_run(folder.path, "blind", "1.0.0")
    assert built.manifest.localisation is not None
    assert not built.manifest.localisation.is_better_than_random
    assert not built.manifest.evidence_enabled
    assert not built.manifest.localises
    (of_women,) = [metric for metric in built.manifest.metrics if metric.name == "pointing_game"]
    assert (of_women.level, of_women.cases) == ("woman", built.manifest.localisation.lesions)
    assert "It is not shown." in built.card
    assert f"of {of_women.cases} women; with random weights of" in built.card
    shutil.rmtree(folder.path)

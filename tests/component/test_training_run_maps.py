"""``dicom-node evaluate --maps``: what the maps of a finished run are worth, and pictures of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dicom_node.cli.exit_codes import ExitCode
from tests.command_line import command
from training.datasets.phantom_folder import write_phantoms
from training.errors import CheckpointError
from training.material import silent
from training.run import run
from training.run_config import checked
from training.run_maps import measure_maps

WOMEN, MALIGNANT = 12, 6


def trained(folder: Path, images: Path, architecture: str) -> Path:
    options = {
        "task": "mammography_malignancy",
        "data_set": "phantoms",
        "data_folder": str(images),
        "architecture": architecture,
        "architecture_arguments": {"head": "gap"} if architecture == "cnn3" else {},
        "rows": 96,
        "columns": 64,
        "pixel_mm": 2.4,
        "folds": 2,
        "validation_share": 0.4,
        "epochs": 1,
        "batch_size": 8,
        "specificity": 0.5,
        "device": "cpu",
    }
    return run(checked(options), folder, resume=False, advance=silent).path


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, women=WOMEN, rows=160, columns=130)
    return folder


def test_maps_are_measured_on_the_images_that_each_network_had_not_seen(
    phantoms: Path, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "run", phantoms, "cnn3")
    answer = command("evaluate", folder, "--maps")
    assert answer.status == 0, answer.err
    assert "pointing game" in answer.out
    assert "20 women are the fewest" in answer.out
    (column,) = json.loads((folder / "report" / "report.json").read_text())["columns"]
    measured = column["localisation"]
    # Two views of the affected breast of each woman with a malignant lesion.
    assert (measured["women"], measured["images"]) == (MALIGNANT, 2 * MALIGNANT)
    of_network = measured["maps"]["network"]
    assert (of_network["pointing_game"]["cases"], of_network["women"]["cases"]) == (2 * MALIGNANT, MALIGNANT)
    assert not measured["is_better_than_random"]
    assert len(list((folder / "overlays").glob("*.png"))) == 8
    page = (folder / "report" / "index.html").read_text()
    assert "Example 8" in page
    assert "not to be trusted" in page


def test_maps_are_measured_with_the_threads_of_the_run_and_other_weights_are_refused(
    phantoms: Path, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "run", phantoms, "cnn3")
    other = (folder / "fold-1" / "weights.safetensors").read_bytes()
    threads: set[tuple[str, int]] = set()

    def note(stage: str, done: int, total: int) -> None:
        threads.add((stage, torch.get_num_threads()))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure_maps(folder, advance=note)
        assert torch.get_num_threads() == 2, "put back"
    finally:
        torch.set_num_threads(before)
    assert ("maps", 1) in threads
    assert ("maps", 2) not in threads
    measured = (folder / "localisation.json").read_bytes()

    (folder / "fold-0" / "weights.safetensors").write_bytes(other)
    with pytest.raises(CheckpointError, match=r"fold-0.*is not what the fold gave"):
        measure_maps(folder, advance=silent)
    assert (folder / "localisation.json").read_bytes() == measured


def test_networks_without_a_map_and_damaged_weights_are_refused(phantoms: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", phantoms, "ann")
    refused = command("evaluate", folder, "--maps")
    assert refused.status == ExitCode.REFUSED
    assert "have no map" in refused.err
    (folder / "fold-0" / "weights.safetensors").write_bytes(b"rubbish")
    damaged = command("evaluate", folder, "--maps")
    assert damaged.status == ExitCode.REFUSED
    assert "weights.safetensors is not what the fold gave: remove" in damaged.err
    assert not (folder / "localisation.json").exists()
    assert command("evaluate", "--predictions", folder / "predictions.csv", "--maps").status == ExitCode.USAGE

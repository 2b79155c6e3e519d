"""Weights that were tuned from weights know whom those knew: the chain is followed to its end, or refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models import bundle
from tests.made_up_mammograms import draw_mammograms
from training import starting_weights
from training.errors import LeakError, ProvenanceError
from training.material import silent
from training.run import run
from training.run_config import checked
from training.run_folder import RunFolder
from training.run_packaging import package_run
from training.starting_weights import LONGEST, Seen, seen_by

WOMEN = 32


def trained(folder: Path, images: Path, **changes: Any) -> RunFolder:
    options = {
        "task": "mammography_malignancy",
        "data_set": "plain_csv",
        "data_folder": str(images),
        "architecture": "cnn3",
        "architecture_arguments": {"head": "gap"},
        "rows": 48,
        "columns": 32,
        "pixel_mm": 2.0,
        "folds": 2,
        "run_folds": 1,
        "validation_share": 0.5,
        "epochs": 1,
        "batch_size": 8,
        "specificity": 0.3,
        "device": "cpu",
    }
    return run(checked({**options, **changes}), folder, resume=False, advance=silent)


def start(weights: Path) -> dict[str, str]:
    return {"weights": str(weights), "weights_sha256": digest_of(weights), "mode": "features"}


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def first_women(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mammograms(tmp_path_factory.mktemp("first"), women=WOMEN)


@pytest.fixture(scope="module")
def other_women(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mammograms(tmp_path_factory.mktemp("others"), women=WOMEN, seed=1)


@pytest.fixture(scope="module")
def first(first_women: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("runs") / "first", first_women)


@pytest.fixture(scope="module")
def tuned(first: RunFolder, other_women: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The first women's network, tuned on others from the weights of its fold."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    return trained(folder, other_women, **start(first.fold(0).weights))


@pytest.fixture(scope="module")
def packed(tuned: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return package_run(tuned.path, "tuned", "1.0.0", out=tmp_path_factory.mktemp("bundles") / "tuned")


def test_women_are_not_tested_whom_the_first_of_two_trainings_knew(
    first: RunFolder, first_women: Path, tuned: RunFolder, packed: bundle.Bundle, tmp_path: Path
) -> None:
    named = rf"weights {digest_of(first.fold(0).weights)[:12]}, 1 step before the starting weights"
    for number, weights in enumerate((packed.path / "weights.safetensors", tuned.fold(0).weights)):
        folder = tmp_path / f"run-{number}"
        with pytest.raises(LeakError, match=named):
            trained(folder, first_women, seed=5, **start(weights))
        assert not (folder / "fold-0").exists()


def test_women_whom_no_network_of_the_chain_knew_are_tested(packed: bundle.Bundle, tmp_path: Path) -> None:
    strangers = draw_mammograms(tmp_path / "strangers", women=WOMEN, seed=2)
    weights = packed.path / "weights.safetensors"
    thrice = trained(tmp_path / "run", strangers, **start(weights))
    built = package_run(thrice.path, "thrice", "1.0.0")
    chain = json.loads((built.path / "split.json").read_text())["started_from"]
    assert [link["weights_sha256"] for link in chain] == [
        digest_of(weights),
        *(one.weights_sha256 for one in starting_weights.of_run(RunFolder(thrice.path))[1:]),
    ]
    assert len(chain) == 2
    for link in chain:
        assert link["weights_sha256"] in built.card


def test_the_chain_outlives_the_files_that_it_tells_of(
    first: RunFolder, tuned: RunFolder, packed: bundle.Bundle, tmp_path: Path
) -> None:
    known = starting_weights.of_run(tuned)
    assert [one.weights_sha256 for one in known] == [digest_of(first.fold(0).weights)]
    assert known[0].trained
    assert known[0].validated
    moved = RunFolder(shutil.copytree(tuned.path, tmp_path / "moved"))
    for weights in (moved.fold(0).weights, packed.path / "weights.safetensors"):
        assert seen_by(weights, digest_of(weights))[1:] == known


def test_a_run_that_kept_nothing_of_its_start_is_followed_to_where_that_lies(
    tuned: RunFolder, tmp_path: Path
) -> None:
    older = RunFolder(shutil.copytree(tuned.path, tmp_path / "older"))
    older.started_from.unlink()
    weights = older.fold(0).weights
    assert seen_by(weights, digest_of(weights)) == seen_by(tuned.fold(0).weights, digest_of(weights))

    content = json.loads(older.run.read_text())
    for named in (str(tmp_path / "gone.safetensors"), str(older.predictions)):
        content["options"]["weights"] = named
        older.run.write_text(json.dumps(content))
        with pytest.raises(ProvenanceError, match=r"started from the weights [0-9a-f]{12}, which are not at"):
            seen_by(weights, digest_of(weights))
    older.run.unlink()
    with pytest.raises(ProvenanceError, match=r"run\.json lies beside weights"):
        seen_by(weights, digest_of(weights))


def test_weights_of_which_nobody_says_anything_end_the_chain(tmp_path: Path) -> None:
    weights = tmp_path / "published.safetensors"
    weights.write_bytes(b"weights")
    assert seen_by(weights, "c" * 64) == (Seen(weights_sha256="c" * 64),)


def told_bundle(folder: Path, chain: Any) -> Path:
    """Write what lies beside weights in a bundle, and give the weights' place."""
    folder.mkdir()
    split = {"parts": {"training": [], "validation": [], "test": []}, "started_from": chain}
    (folder / "split.json").write_text(json.dumps(split))
    return folder / "weights.safetensors"


def link(number: int) -> dict[str, Any]:
    return {"weights_sha256": f"{number:064x}", "trained": [], "validated": []}


def test_a_chain_in_which_weights_come_from_themselves_is_refused(tmp_path: Path) -> None:
    start_again = told_bundle(tmp_path / "start", [link(1), link(0)])
    with pytest.raises(ProvenanceError, match=r"weights 000000000000 stand twice"):
        seen_by(start_again, f"{0:064x}")
    within = told_bundle(tmp_path / "within", [link(0xABC << 244), link(2), link(0xABC << 244)])
    with pytest.raises(ProvenanceError, match=r"weights abc000000000 stand twice"):
        seen_by(within, f"{9:064x}")


def test_runs_that_name_each_other_as_their_start_are_refused(tuned: RunFolder, tmp_path: Path) -> None:
    runs = [RunFolder(shutil.copytree(tuned.path, tmp_path / name)) for name in ("one", "other")]
    runs[1].fold(0).weights.write_bytes(b"other weights")
    for here, there in (runs, runs[::-1]):
        here.started_from.unlink()
        content = json.loads(here.run.read_text())
        content["options"] |= start(there.fold(0).weights)
        here.run.write_text(json.dumps(content))
    weights = runs[0].fold(0).weights
    with pytest.raises(ProvenanceError, match=f"weights {digest_of(weights)[:12]} stand twice"):
        seen_by(weights, digest_of(weights))


def test_a_chain_of_more_networks_than_anybody_trains_is_refused(tmp_path: Path) -> None:
    longest = told_bundle(tmp_path / "longest", [link(number) for number in range(1, LONGEST)])
    assert len(seen_by(longest, f"{0:064x}")) == LONGEST
    longer = told_bundle(tmp_path / "longer", [link(number << 208) for number in range(1, LONGEST + 1)])
    with pytest.raises(
        ProvenanceError, match=f"more than {LONGEST} networks, beyond the weights 000000000020"
    ):
        seen_by(longer, f"{0:064x}")


@pytest.mark.parametrize("chain", [{}, [1], [{"weights_sha256": "a"}], None])
def test_a_chain_that_cannot_be_read_is_refused(chain: Any, tmp_path: Path) -> None:
    weights = told_bundle(tmp_path / "bundle", chain)
    if chain == {}:
        (weights.parent / "split.json").write_text("{}")
    with pytest.raises(ProvenanceError, match=r"split\.json .* nobody knows whose images they have seen"):
        seen_by(weights, "d" * 64)

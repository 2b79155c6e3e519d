"""A whole training run in its folder: what it leaves, how it goes on after a kill, what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import bundle
from models.classifier import Classifier
from models.tasks import task_named
from tests.made_up_mammograms import draw_mammograms
from training import predictions, resources, run_folder, splits
from training.bundle_numbers import target_predictions
from training.data_manifest import read_manifest
from training.errors import (
    CheckpointError,
    LeakError,
    PackagingError,
    ResourcesError,
    RunInUseError,
    TrainingError,
)
from training.intervals import Resampling
from training.material import material_of
from training.packable import way_to_bundle
from training.resources import Needs, needs_of
from training.run import run
from training.run_config import TrainingConfig, checked
from training.run_folder import RunFolder
from training.run_packaging import package_run
from training.verdict import sentences

WOMEN = 64


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mammograms(tmp_path_factory.mktemp("mammograms"), women=WOMEN)


def options(images: Path, **changes: Any) -> TrainingConfig:
    given = {
        "task": "mammography_malignancy",
        "data_set": "plain_csv",
        "data_folder": str(images),
        "architecture": "cnn3",
        "architecture_arguments": {"head": "gap"},
        "rows": 48,
        "columns": 32,
        "pixel_mm": 2.0,
        "folds": 2,
        "validation_share": 0.5,
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.003,
        "average": 0.5,
        "specificity": 0.5,
        "device": "cpu",
    }
    return checked({**given, **changes})


def quietly(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(options(images), tmp_path_factory.mktemp("runs") / "run", resume=False, advance=quietly)


def digests(folder: RunFolder) -> dict[str, str]:
    """Digest of everything that a run promises to give again."""
    kept = [folder.predictions, folder.split, folder.data, folder.guard]
    for number in range(2):
        fold = folder.fold(number)
        kept += [fold.weights, fold.predictions, fold.validation]
    return {
        str(path.relative_to(folder.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept
    }


def test_a_run_leaves_everything_that_evaluation_and_packaging_need(finished: RunFolder) -> None:
    tested = predictions.read(finished.predictions)
    dataset, plan = read_manifest(finished.data), splits.read(finished.split)
    assert sorted(tested.images) == sorted(record.image for record in dataset.records)
    assert len(tested) == WOMEN, "two folds test each image once"
    assert plan.data_sha256 == dataset.sha256
    assert tested.subgroups.keys() == {"density"}
    content = run_folder.read(finished)
    assert content["data_sha256"] == dataset.sha256
    assert content["split_sha256"] == plan.sha256
    assert run_folder.config_of(content).epochs == 3
    events = [json.loads(line)["event"] for line in finished.log.read_text().splitlines()]
    assert events[0] == "started"
    assert events[-1] == "finished"
    assert not list(finished.path.rglob("checkpoint*")), "what was only needed to go on is gone"


def test_validation_answers_come_from_women_that_the_fold_neither_trained_on_nor_tested(
    finished: RunFolder,
) -> None:
    plan = splits.read(finished.split)
    for number, fold in enumerate(plan.folds):
        validated = predictions.read(finished.fold(number).validation)
        assert set(validated.images) == set(fold.validation)
        assert not set(validated.groups) & {plan.groups[image] for image in (*fold.training, *fold.test)}


# --- kill and go on

KILLED_RUN = """
import json, os, signal, sys
from pathlib import Path
from training.run import run
from training.run_config import checked

options, folder, at, times = sys.argv[1:]
seen = 0

def advance(stage, done, total):
    global seen
    if stage == at:
        seen += 1
        if seen == int(times):
            os.kill(os.getpid(), signal.SIGKILL)

run(checked(json.loads(options)), Path(folder), resume=True, advance=advance)
"""


def killed(config: TrainingConfig, folder: Path, stage: str, times: int) -> int:
    """Train in a process that is killed at a stage's call; return its exit status."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, config.model_dump_json(), str(folder), stage, str(times)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    images: Path, finished: RunFolder, tmp_path: Path
) -> None:
    folder, config = tmp_path / "run", options(images)
    for stage, times in (("preparing", 1), ("guarding", 40), ("fold 0", 2), ("fold 0", 2), ("fold 1", 1)):
        assert killed(config, folder, stage, times) == -signal.SIGKILL, f"{stage} {times}"
    assert not (folder / "predictions.csv").exists()
    assert killed(config, folder, "never", 1) == 0
    assert digests(RunFolder(folder)) == digests(finished)


FULL_AT_THE_CHECKPOINT = """
import json, resource, sys
from pathlib import Path
from training.material import silent
from training.run import run
from training.run_config import checked

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))  # a checkpoint takes more, all else less
run(checked(json.loads(sys.argv[1])), Path(sys.argv[2]), resume=False, advance=silent)
"""


def test_a_run_whose_checkpoint_has_no_room_says_so_and_goes_on_once_there_is(
    images: Path, finished: RunFolder, tmp_path: Path
) -> None:
    config = options(images)
    ended = subprocess.run(
        [sys.executable, "-c", FULL_AT_THE_CHECKPOINT, config.model_dump_json(), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    told = ended.stderr.strip().splitlines()[-1]
    assert told.startswith("training.errors.ResourcesError: The checkpoint cannot be written into ")
    assert "go on with the run by --resume" in told
    fold = RunFolder(tmp_path / "run").fold(0).path
    assert not list(fold.iterdir()), "nothing half-written is left"
    assert digests(run(config, tmp_path / "run", resume=True, advance=quietly)) == digests(finished)


def test_a_finished_run_goes_on_to_nothing(images: Path, finished: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    before = digests(copy)
    stages: list[str] = []
    run(options(images), copy.path, resume=True, advance=lambda stage, *_: stages.append(stage))
    assert digests(copy) == before
    assert not [stage for stage in stages if stage.startswith("fold")]


def test_a_folder_that_holds_something_is_not_written_without_resume(
    images: Path, finished: RunFolder
) -> None:
    before = digests(finished)
    with pytest.raises(TrainingError, match="is not empty: give --resume"):
        run(options(images), finished.path, resume=False, advance=quietly)
    assert digests(finished) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 3}, "seed"), ({"epochs": 9}, "epochs"), ({"rows": 56}, "rows")],
)
def test_another_run_in_the_folder_is_not_gone_on_with(
    changes: dict[str, Any], named: str, images: Path, finished: RunFolder
) -> None:
    before = digests(finished)
    stages: list[str] = []
    with pytest.raises(CheckpointError, match=f"differs in {named}. Give the same"):
        run(
            options(images, **changes),
            finished.path,
            resume=True,
            advance=lambda stage, *_: stages.append(stage),
        )
    assert stages == [], "before the images are read"
    assert digests(finished) == before


def test_a_run_that_was_refused_at_its_start_may_start_again(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="folder is not there"):
        run(
            options(images, data_folder=str(tmp_path / "nowhere")),
            tmp_path / "run",
            resume=False,
            advance=quietly,
        )
    with pytest.raises(TrainingError, match="do not fit"):
        arguments = {"neck": "long"}
        run(
            options(images, architecture_arguments=arguments), tmp_path / "run", resume=False, advance=quietly
        )


def test_two_processes_never_train_in_one_folder(images: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path).at_work(), pytest.raises(RunInUseError, match="Another process is training"):
        run(options(images), tmp_path, resume=True, advance=quietly)
    assert not (tmp_path / "run.json").exists()


# --- what cannot be trained


def test_a_split_that_leaks_ends_the_run_before_training(images: Path, tmp_path: Path) -> None:
    leaking = shutil.copytree(images, tmp_path / "images")
    shutil.copy(leaking / "woman-000.png", leaking / "woman-002.png")
    with pytest.raises(LeakError, match="This split leaks"):
        run(options(leaking, folds=5), tmp_path / "run", resume=False, advance=quietly)
    assert not list((tmp_path / "run").glob("fold-*"))
    # What was refused keeps nobody from the folder: mended images and other options are a run of its own.
    shutil.copy(images / "woman-002.png", leaking / "woman-002.png")
    mended = run(options(leaking, epochs=1), tmp_path / "run", resume=False, advance=quietly)
    assert run_folder.config_of(run_folder.read(mended)).folds == 2
    assert len(predictions.read(mended.predictions)) == WOMEN


def test_a_folder_of_somebody_elses_files_is_not_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty: give --resume"):
        run(options(images), tmp_path, resume=False, advance=quietly)
    assert (tmp_path / "data.json").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_a_data_set_that_lacks_a_class_is_told_before_an_image_is_prepared(
    images: Path, tmp_path: Path
) -> None:
    healthy = shutil.copytree(images, tmp_path / "images")
    table = healthy / "labels.csv"
    head, *rows = table.read_text().splitlines()
    label = head.split(",").index("label")
    kept = [row for row in rows if row.split(",")[label] in ("0", "not_malignant")]
    assert kept
    table.write_text("\n".join([head, *kept]) + "\n")
    stages: list[str] = []
    with pytest.raises(TrainingError, match="No image of plain_csv is labelled malignant"):
        run(options(healthy), tmp_path / "run", resume=False, advance=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"reading"}


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(1 << 50, 1), "GiB of memory.*smaller --batch-size"),
        (Needs(1, 1 << 60), "GiB of disk.*free some"),
    ],
)
def test_a_run_that_this_machine_cannot_hold_does_not_start(needs: Needs, said: str, tmp_path: Path) -> None:
    import torch

    with pytest.raises(ResourcesError, match=said):
        resources.require(needs, tmp_path / "run", torch.device("cpu"))


def test_a_network_that_is_too_large_for_the_memory_is_refused_before_it_is_built(
    images: Path, tmp_path: Path
) -> None:
    huge = options(
        images, architecture="ann", architecture_arguments={"hidden": [10_000_000]}, rows=256, columns=256
    )
    with pytest.raises(ResourcesError, match=r"of (memory|disk)"):
        run(huge, tmp_path / "run", resume=False, advance=quietly)
    assert not (tmp_path / "run" / "prepared").exists()


def test_the_estimate_grows_with_batch_grid_and_network(images: Path) -> None:
    from models.preprocessing import Parameters

    def memory(config: TrainingConfig, rows: int = 64) -> int:
        arguments = {"outputs": 1, "channels": 1, **config.architecture_arguments}
        return needs_of(config, arguments, Parameters(rows, 64, 2.0), 100).memory

    small = memory(options(images))
    assert memory(options(images, batch_size=64)) > small
    assert memory(options(images), rows=256) > small
    assert memory(options(images, architecture="resnet50")) > small + 4 * 23_000_000 * 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"architecture_arguments": {"neck": "long"}},
            "do not fit the architecture 'cnn3': it has no neck; it has: outputs, channels, head",
        ),
        ({"architecture_arguments": {"outputs": 5}}, "outputs follow from task and data"),
        ({"architecture": "inception_v3", "architecture_arguments": {}}, "at least 75 x 75 pixels"),
        ({"architecture": "compact", "architecture_arguments": {}, "task": "mias7"}, "no image with a class"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_training(
    changes: dict[str, Any], said: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=said):
        run(options(images, **changes), tmp_path / "run", resume=False, advance=quietly)
    assert not list((tmp_path / "run").glob("fold-*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"specificity": 0.99},
            r"No operating point, so no bundle: 8 negative .* 0\.99 .* use at least 299\. "
            r"Train with --set specificity=0\.68, or more data\.$",
        ),
        (
            {"validation_share": 0.35, "specificity": 0.65},
            r"use at least 7\. Train with --set validation_share=0\.45, or --set specificity=0\.6, or more",
        ),
        (
            {"validation_share": 0.35, "specificity": 0.9},
            r"use at least 29\. Train with --set validation_share=0\.5 --set specificity=0\.68, or --set",
        ),
        ({"protocol": "as_written"}, "no honest number"),
    ],
)
def test_a_run_of_which_no_bundle_can_be_made_does_not_start_where_one_is_asked_for(
    changes: dict[str, Any], said: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(PackagingError, match=said):
        run(options(images, **changes), tmp_path / "run", resume=False, advance=quietly, to_pack=True)
    assert not (tmp_path / "run" / "run.json").exists()
    assert not RunFolder(tmp_path / "run").is_begun, "other options may be tried in the same folder"


def test_runs_share_prepared_images_and_what_comes_after_them_finds_these(
    images: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "prepared-once"
    config = options(images, cache=str(cache), epochs=1, run_folds=1)
    folder = run(config, tmp_path / "run", resume=False, advance=quietly)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert len(before) == len(read_manifest(folder.data).records)
    prepared: list[int] = []
    material_of(folder, lambda stage, done, total: prepared.append(done) if stage == "preparing" else None)
    assert not prepared, "an image is decoded once, whoever asks for it"
    assert folder.cache.resolve() == cache.resolve()

    shutil.rmtree(cache)
    material_of(folder, quietly)
    assert not folder.cache.is_symlink(), "where the shared folder is gone, the run has its own"
    assert len([path for path in folder.cache.rglob("*") if path.is_file()]) == len(before)


def test_weights_of_another_digest_are_refused(images: Path, finished: RunFolder, tmp_path: Path) -> None:
    weights = finished.fold(0).weights
    config = options(images, weights=str(weights), weights_sha256="0" * 64, mode="features")
    stages: list[str] = []
    with pytest.raises(TrainingError, match="SHA-256"):
        run(config, tmp_path / "run", resume=False, advance=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"reading"}, "before an image is prepared"
    assert not RunFolder(tmp_path / "run").is_begun, "the right digest may be given into the same folder"


def test_a_site_adapts_the_head_of_weights_that_it_was_given(
    images: Path, finished: RunFolder, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    weights = finished.fold(0).weights
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = options(
        images, weights=str(weights), weights_sha256=digest, mode="features", run_folds=1, epochs=1
    )
    adapted = run(config, tmp_path / "run", resume=False, advance=quietly)
    before, after = load_file(weights), load_file(adapted.fold(0).weights)
    changed = {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"classifier"}


def test_a_site_adapts_the_batch_norm_of_a_bundle(images: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    normalised = {"architecture": "compact", "architecture_arguments": {}, "run_folds": 1, "epochs": 1}
    first = run(options(images, **normalised), tmp_path / "first", resume=False, advance=quietly)
    built = package_run(first.path, "given", "1.0.0")
    weights = built.path / "weights.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = options(images, **normalised, weights=str(weights), weights_sha256=digest, mode="adapt-bn")
    adapted = run(config, tmp_path / "run", resume=False, advance=quietly)
    before, after = load_file(weights), load_file(adapted.fold(0).weights)
    assert before.keys() == after.keys()
    for name, value in before.items():
        is_frozen = value.ndim == 4 and not name.startswith("head.")
        assert np.array_equal(value, after[name]) == is_frozen, name


def test_women_whom_the_starting_weights_know_are_not_tested(
    images: Path, finished: RunFolder, packed: bundle.Bundle, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "published" / "weights.safetensors"
    elsewhere.parent.mkdir()
    shutil.copy(packed.path / "weights.safetensors", elsewhere)
    of_bundle, of_fold = packed.path / "weights.safetensors", finished.fold(0).weights
    for number, weights in enumerate((of_bundle, of_fold, elsewhere)):
        config = options(
            images,
            weights=str(weights),
            weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
            mode="features",
            epochs=1,
            seed=5,
            run_folds=1,
        )
        folder = tmp_path / f"run-{number}"
        if weights is elsewhere:  # nobody says what these have seen
            run(config, folder, resume=False, advance=quietly)
            continue
        with pytest.raises(LeakError, match="the starting weights know"):
            run(config, folder, resume=False, advance=quietly)
        assert not (folder / "fold-0").exists()


def test_a_split_beside_the_weights_that_cannot_be_read_ends_the_run(
    images: Path, packed: bundle.Bundle, tmp_path: Path
) -> None:
    damaged = shutil.copytree(packed.path, tmp_path / "bundle")
    (damaged / "split.json").write_text("{}")
    weights = damaged / "weights.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = options(images, weights=str(weights), weights_sha256=digest, mode="features", epochs=1)
    with pytest.raises(TrainingError, match="nobody knows whose images they have seen"):
        run(config, tmp_path / "run", resume=False, advance=quietly)


# --- the source's own protocol


def test_copies_made_before_the_split_leak_and_are_only_shown_marked(images: Path, tmp_path: Path) -> None:
    from training import evaluated_run

    config = options(images, protocol="as_written", copies=2, run_folds=1, epochs=1)
    written = run(config, tmp_path / "run", resume=False, advance=quietly)
    measured = evaluated_run.of_folder(written.path)
    assert len(predictions.read(written.predictions)) == WOMEN
    assert "in two parts" in " ".join(measured.warnings)
    with pytest.raises(PackagingError, match="no honest number"):
        package_run(written.path, "dishonest", "1.0.0")


# --- bundles


@pytest.fixture(scope="module")
def packed(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    return package_run(finished.path, "made-up", "1.2.3", out=out, trained_by="anna")


def test_the_bundle_answers_as_the_fold_did(packed: bundle.Bundle, images: Path, finished: RunFolder) -> None:
    from training.cache import PreparedImages

    classifier = Classifier.load(packed.path)
    tested = predictions.read(finished.fold(0).predictions)
    dataset = read_manifest(finished.data)
    row = {record.image: number for number, record in enumerate(dataset.records)}
    prepared = PreparedImages(dataset, packed.manifest.preprocessing, finished.cache)
    for position in range(4):
        logits, _ = classifier.forward(prepared[row[tested.images[position]]][np.newaxis])
        assert float(logits[0, 0]) == pytest.approx(float(tested.logits[position, 0]), abs=1e-5)


def test_the_bundle_says_where_it_comes_from(packed: bundle.Bundle, finished: RunFolder) -> None:
    manifest = packed.manifest
    assert manifest.training_data_sha256 == read_manifest(finished.data).sha256
    assert manifest.split_sha256 == splits.read(finished.split).sha256
    assert manifest.trained_by == "anna"
    assert not manifest.demonstration
    assert not manifest.evidence_enabled, "nobody held its map against lesions"
    assert {metric.name for metric in manifest.metrics} >= {"auc", "sensitivity", "specificity", "log_loss"}
    assert all(metric.low <= metric.value <= metric.high for metric in manifest.metrics)
    for words in ("made-up 1.2.3", "not stated", "fold 0 of 2", "cnn3"):
        assert words in packed.card


def test_the_bundle_holds_no_image_and_no_name_of_anybody(packed: bundle.Bundle, finished: RunFolder) -> None:
    content = b"".join(path.read_bytes() for path in packed.path.rglob("*") if path.is_file())
    for record in read_manifest(finished.data).records:
        assert record.image.encode() not in content
        assert f'"{record.group}"'.encode() not in content
    split = json.loads((packed.path / "split.json").read_text())
    assert split["plan_sha256"] == packed.manifest.split_sha256
    told = {digest for part in split["parts"].values() for digest, _ in part}
    assert told == {record.sha256 for record in read_manifest(finished.data).records}


def test_the_same_run_is_packed_to_the_same_digest(
    packed: bundle.Bundle, finished: RunFolder, tmp_path: Path
) -> None:
    again = package_run(finished.path, "made-up", "1.2.3", out=tmp_path / "again", trained_by="anna")
    assert again.digest == packed.digest


def test_too_few_validation_cases_make_no_operating_point_and_no_bundle(
    images: Path, finished: RunFolder, tmp_path: Path
) -> None:
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    content = run_folder.read(copy)
    content["options"]["specificity"] = 0.99
    copy.run.write_text(json.dumps(content))
    with pytest.raises(PackagingError, match=r"No operating point: .*use at least 299"):
        package_run(copy.path, "made-up", "1.2.3")
    assert "use at least 299" in way_to_bundle(copy)
    assert way_to_bundle(finished).endswith(f"dicom-node train package {finished.path} --name NAME")
    assert not copy.bundle.exists()


def test_changed_weights_are_not_packed(finished: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    content = bytearray(copy.fold(0).weights.read_bytes())
    content[-1] ^= 1
    copy.fold(0).weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not what the fold gave: remove .*fold-0 and go on"):
        package_run(copy.path, "made-up", "1.2.3")
    shutil.rmtree(copy.fold(0).path)
    images = run_folder.config_of(run_folder.read(copy)).data_folder
    assert digests(run(options(images), copy.path, resume=True, advance=quietly)) == digests(finished)


def test_a_fold_that_is_not_finished_or_not_there_is_not_packed(finished: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    copy.fold(1).result.unlink()
    with pytest.raises(TrainingError, match=r"fold-1 holds no finished fold: go on with the run by --resume"):
        package_run(copy.path, "made-up", "1.2.3", fold=1)
    with pytest.raises(PackagingError, match="no fold 7: its folds are 0 to 1"):
        package_run(copy.path, "made-up", "1.2.3", fold=7)


def test_several_classes_are_positive_for_everything_but_the_negative_one() -> None:
    task = task_named("mias7")
    chances = np.asarray([[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4], [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.9]])
    given = predictions.Predictions(
        task="mias7",
        classes=task.classes,
        images=("a", "b"),
        groups=("1", "2"),
        breasts=("1", "2"),
        labels=np.asarray([0, 6]),
        logits=np.log(np.maximum(chances, 1e-9)),
        probabilities=chances,
        folds=np.zeros(2, dtype=np.int64),
        subgroups={},
    )
    of_target = target_predictions(given, task)
    np.testing.assert_allclose(of_target.probabilities[:, 1], [0.6, 0.1])
    assert of_target.labels.tolist() == [1, 0]


# --- the verdict


def test_the_verdict_says_what_was_not_shown(finished: RunFolder) -> None:
    from training.evaluation import evaluate

    tested = predictions.read(finished.predictions)
    random = np.random.default_rng(0)
    noise = random.uniform(0.3, 0.7, len(tested))
    guessed = replace(tested, probabilities=np.column_stack([1 - noise, noise]))
    knowing = 0.02 + 0.96 * tested.labels + random.normal(0, 0.005, len(tested))
    known = replace(tested, probabilities=np.column_stack([1 - knowing, knowing]))

    def said(of: predictions.Predictions, *, leaks: bool = False) -> str:
        return " ".join(sentences(evaluate(of), leaks=leaks))

    assert "Not shown to be better than chance" in said(guessed)
    assert "not shown to be above" in said(guessed)
    assert "tells the classes apart" in said(known)
    assert "not shown" not in said(known).lower()
    assert "This shows nothing" in said(known, leaks=True)
    assert "tells the classes apart" not in said(known, leaks=True)


# --- other tasks


def kinds_of_women(folder: Path) -> Path:
    """Draw mammograms half of which have one of the six abnormalities of the task ``mias7``."""
    draw_mammograms(folder, women=84)
    kinds = task_named("mias7").classes
    header, *lines = (folder / "labels.csv").read_text().splitlines()
    changed = [header]
    for woman, line in enumerate(lines):
        name, patient, _, *rest = line.split(",")
        changed.append(",".join([name, patient, kinds[woman // 2 % 6] if woman % 2 else "NORM", *rest]))
    (folder / "labels.csv").write_text("\n".join(changed))
    return folder


def patches_of_patients(folder: Path) -> Path:
    """Draw colour patches of forty patients, those with carcinoma darker."""
    from PIL import Image

    random = np.random.default_rng(0)
    for patient in range(40):
        for number in range(4):
            label = number % 2
            colours = random.normal(200 - 60 * label, 20, (50, 50, 3)).clip(0, 255).astype(np.uint8)
            path = folder / f"{patient:05d}" / f"{patient:05d}_idx5_x{number}_y1_class{label}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(colours).save(path)
    return folder


def test_a_network_of_seven_classes_becomes_a_bundle_that_answers(tmp_path: Path) -> None:
    config = options(
        kinds_of_women(tmp_path / "images"),
        task="mias7",
        data_options={"task": "mias7"},
        validation_share=0.3,
        run_folds=1,
        epochs=1,
    )
    folder = run(config, tmp_path / "run", resume=False, advance=quietly)
    built = package_run(folder.path, "seven", "1.0.0")
    assert built.manifest.classes == task_named("mias7").classes
    logits, maps = Classifier.load(built.path).forward(built.golden.inputs)
    assert logits.shape == (5, 7)
    assert maps is not None


def test_a_network_of_patches_becomes_a_bundle_that_answers(tmp_path: Path) -> None:
    config = options(
        patches_of_patients(tmp_path / "patches"),
        task="idc",
        data_set="idc_patches",
        architecture="ann",
        architecture_arguments={"hidden": [16]},
        rows=50,
        columns=50,
        run_folds=1,
        epochs=2,
    )
    folder = run(config, tmp_path / "run", resume=False, advance=quietly)
    built = package_run(folder.path, "patches", "1.0.0")
    assert built.golden.activations is None, "a dense network has no map"
    assert built.golden.inputs.shape == (5, 3, 50, 50)
    assert {metric.level for metric in built.manifest.metrics} >= {"image"}
    tested = predictions.read(folder.fold(0).predictions)
    called = tested.probabilities[:, 1] >= built.threshold
    (told,) = [metric for metric in built.manifest.metrics if metric.name == "specificity"]
    by_patient = Resampling(tested.groups, seed=config.seed).share(~called, tested.labels == 0)
    assert (told.low, told.value, told.high) == (by_patient.low, by_patient.value, by_patient.high)
    assert Classifier.load(built.path).forward(built.golden.inputs)[0].shape == (5, 1)

"""The training loop: what is learnt, what is kept, and that the same options give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import architectures
from models.networks import ImageNetwork
from training import checkpoint
from training.augmentation import Augmentation
from training.checkpoint import Checkpoint
from training.determinism import deterministic
from training.errors import CheckpointError, TrainingConfigError, TrainingError
from training.examples import Examples, OrientedImages
from training.imbalance import ClassBalance, Imbalance
from training.loop import Trained, learning_rate, train
from training.run_config import TrainingConfig, checked, load
from training.run_log import RunLog

SIDE = 24
REQUIRED = {
    "task": "mammography_malignancy",
    "data_set": "phantoms",
    "data_folder": "phantoms",
    "architecture": "cnn3",
}


def options(**changes: Any) -> TrainingConfig:
    small = {"epochs": 4, "batch_size": 16, "augmentation": 0.3, "average": 0.5, "learning_rate": 3e-3}
    return checked({**REQUIRED, **small, **changes})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Train as a run does: sums of several threads are other bytes, and a forked process would lose them."""
    with deterministic():
        yield


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Noise, with a bright spot in every image of class 1."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    images = random.normal(size=(120, 1, SIDE, SIDE)).astype(np.float32)
    images[labels == 1, :, 8:16, 8:16] += 2.0
    return Examples(images, labels, np.arange(80), np.arange(80, 120))


def resident_bytes(field: str) -> int:
    """Return ``VmRSS``, this process's memory, or ``VmHWM``, the most of it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def network(dropout: float = 0.2) -> ImageNetwork:
    torch.manual_seed(5)
    built = architectures.build("cnn3", {"channels": 1, "head": "gap", "dropout": dropout})
    assert isinstance(built, ImageNetwork)
    return built


def trained(
    examples: Examples,
    config: TrainingConfig,
    folder: Path,
    *,
    advance: Callable[[int], None] = lambda epochs: None,
    start: ImageNetwork | None = None,
) -> Trained:
    balance = ClassBalance.of(config.imbalance, examples.labels[examples.training], 2)
    folder.mkdir(exist_ok=True)
    with RunLog(folder / "log.jsonl") as log:
        return train(
            start or network(),
            examples,
            balance,
            config,
            fold=0,
            dihedral=True,
            set_training=lambda net: net.train(),
            checkpoint_file=folder / "checkpoint.safetensors",
            log=log,
            advance=advance,
        )


def digest(of: ImageNetwork) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in of.state_dict().values())).hexdigest()


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(examples, options(), tmp_path_factory.mktemp("run"))


class Interrupted(Exception):  # noqa: N818 - it stands for a kill
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_ended_after_any_epoch_goes_on_to_the_same_bytes(
    after: int, examples: Examples, uninterrupted: Trained, tmp_path: Path
) -> None:
    def stop(epochs: int) -> None:
        if epochs == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(examples, options(), tmp_path, advance=stop)
    told: list[int] = []
    resumed = trained(examples, options(), tmp_path, advance=told.append)
    assert told == [1, 2, 3, 4][after:], "the epochs before the kill count as done"
    assert digest(resumed.network) == digest(uninterrupted.network)
    assert resumed.validated == uninterrupted.validated
    assert [event["epoch"] for event in events(tmp_path) if event["event"] == "epoch"] == [0, 1, 2, 3]
    assert {"event": "resumed", "epoch": after}.items() <= events(tmp_path)[after].items()


def test_loading_processes_change_no_byte(examples: Examples, uninterrupted: Trained, tmp_path: Path) -> None:
    assert digest(trained(examples, options(workers=2), tmp_path).network) == digest(uninterrupted.network)


def test_another_seed_gives_other_bytes(examples: Examples, uninterrupted: Trained, tmp_path: Path) -> None:
    assert digest(trained(examples, options(seed=2), tmp_path).network) != digest(uninterrupted.network)


def test_what_can_be_learnt_is_learnt(examples: Examples, tmp_path: Path) -> None:
    found = trained(examples, options(epochs=12), tmp_path)
    assert found.validated.auc is not None
    assert found.validated.auc > 0.9
    assert not found.network.training


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best_epoch(
    examples: Examples, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(1).permutation(examples.labels)
    noise = Examples(examples.images, shuffled, examples.training, examples.validation)
    found = trained(noise, options(epochs=60, patience=3, average=0.0, augmentation=0.0), tmp_path)
    assert found.epochs < 60
    assert found.epochs - 1 - found.best_epoch == 3
    losses = {event["epoch"]: event["log_loss"] for event in events(tmp_path)}
    assert min(losses, key=lambda epoch: losses[epoch]) == found.best_epoch
    assert found.validated.log_loss == losses[found.best_epoch]


def test_frozen_parameters_stay_as_they_were(examples: Examples, tmp_path: Path) -> None:
    start = network()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    start.features.requires_grad_(False)
    after = trained(examples, options(epochs=1), tmp_path, start=start).network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"classifier.linear.weight", "classifier.linear.bias"}


def test_a_network_of_which_nothing_is_trained_is_refused(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Nothing of the network"):
        trained(examples, options(), tmp_path, start=network().requires_grad_(False))


def test_a_run_that_diverges_says_what_to_do(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss of fold 0 .* in epoch 0: .* lower --learning-rate"):
        trained(
            Examples(
                examples.images * np.float32("inf"), examples.labels, examples.training, examples.validation
            ),
            options(augmentation=0.0),
            tmp_path,
        )
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    config = options(warm_up=0.1, learning_rate=1.0)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 0.01


# --- checkpoints and logs


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint({"epoch": 3}, {"network": {"w": torch.ones(2)}}).write(path)
    read = checkpoint.read(path)
    assert read is not None
    assert read.facts == {"epoch": 3}
    assert torch.equal(read.tensors["network"]["w"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.read(path)


def test_a_checkpoint_is_written_from_where_its_tensors_lie(tmp_path: Path) -> None:
    size = 64 << 20
    path = tmp_path / "checkpoint.safetensors"
    saved = Checkpoint({"epoch": 1}, {"network": {"w": torch.arange(size // 4, dtype=torch.float32)}})
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # start the high-water mark anew
    before = resident_bytes("VmRSS")
    saved.write(path)
    assert resident_bytes("VmHWM") - before < size / 4, "no second copy stands in memory"
    assert path.stat().st_size > size
    assert list(tmp_path.iterdir()) == [path], "nothing else is left"


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint({"epoch": 1}, {"network": {"w": torch.ones(2)}}).write(path)
    before = path.read_bytes()
    torn = torch.ones(4)
    with pytest.raises(RuntimeError, match="share memory"):
        Checkpoint({"epoch": 2}, {"network": {"w": torn, "again": torn}}).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_network_is_refused(examples: Examples, tmp_path: Path) -> None:
    Checkpoint({"epoch": 1}, {"network": {"w": torch.ones(2)}}).write(tmp_path / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match="not one of this network"):
        trained(examples, options(), tmp_path)


def test_what_a_kill_left_of_a_log_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event": "epoch", "epoch": 0}\n{"event": "ep')
    with RunLog(path) as log:
        log.write("resumed", fold=0)
    assert [event["event"] for event in events(tmp_path)] == ["epoch", "resumed"]


# --- augmentation


def test_a_variation_follows_from_its_seed_alone() -> None:
    image = np.random.default_rng(0).normal(size=(3, 20, 20)).astype(np.float32)
    one, other = (Augmentation(0.5, (20, 20), dihedral=True) for _ in range(2))
    first = one(image, (1, 2, 3))
    for _ in range(3):
        one(image, (9, 9))
    np.testing.assert_array_equal(first, other(image, (1, 2, 3)))
    assert (first != one(image, (1, 2, 4))).any()
    assert first.dtype == np.float32
    assert first.shape == image.shape


def test_without_strength_nothing_is_varied() -> None:
    image = np.ones((1, 8, 8), dtype=np.float32)
    assert Augmentation(0.0, (8, 8), dihedral=True)(image, (1,)) is image


def test_a_whole_breast_keeps_its_chest_wall_at_the_left() -> None:
    image = np.zeros((1, 32, 32), dtype=np.float32)
    image[:, :, :8] = 1.0
    vary = Augmentation(0.1, (32, 32), dihedral=False)
    for seed in range(40):
        varied = vary(image, (seed,))
        assert varied[0, :, :6].mean() > 0.5 > varied[0, :, 26:].mean()


def test_eight_copies_are_the_eight_orientations() -> None:
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    copies = OrientedImages([image, image + 100], 8)
    assert len(copies) == 16
    assert len({copies[index].tobytes() for index in range(8)}) == 8
    np.testing.assert_array_equal(copies[0], image)
    np.testing.assert_array_equal(copies[8], image + 100)


# --- options


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "phrenology"}, "task: No task is called 'phrenology'"),
        ({"architecture": "vgg17"}, "there is no architecture 'vgg17'"),
        ({"epochs": 0}, "epochs: .*greater than or equal to 1"),
        ({"learning_rate": float("nan")}, "learning_rate: "),
        ({"imbalance": "hope"}, "imbalance: .*'none', 'weighted'"),
        ({"colour": "red"}, r"colour: there is no such option\.$"),
        ({"imbalence": "none"}, r"no such option \(did you mean imbalance\?\)"),
        ({"weights": "w.pth"}, "start: weights and weights_sha256 go together: give --weights and --sha256"),
        ({"weights": "w.pth", "weights_sha256": "ABC"}, "64 hexadecimal digits"),
        ({"copies": 8}, "give --protocol as_written"),
        ({"run_folds": 6}, "run_folds is 6, but there are 5 folds"),
        ({"mode": "features"}, "give the --weights that it rests on"),
        ({"official_test": True}, "official_test needs folds = 1"),
    ],
)
def test_options_that_make_no_run_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingConfigError, match=said):
        options(**changes)


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(TrainingConfigError, match=r"epochs: .*; batch_size: "):
        options(epochs=0, batch_size=1)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    lines = [f'{name} = "{value}"' for name, value in REQUIRED.items()]
    file.write_text("\n".join([*lines, "epochs = 3", "seed = 9", "[architecture_arguments]", 'head = "gap"']))
    config = load(file, {"epochs": 5, "seed": None})
    assert (config.epochs, config.seed, config.architecture_arguments) == (5, 9, {"head": "gap"})


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff"])
def test_a_file_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(TrainingConfigError, match=r"run\.toml"):
        load(file, {})


def test_the_number_of_loading_processes_is_no_part_of_a_result() -> None:
    assert options(workers=3).result_options == options().result_options
    assert options(seed=3).result_options != options().result_options


def test_all_folds_are_trained_or_the_first_ones() -> None:
    assert list(options(folds=3).trained_folds) == [0, 1, 2]
    assert list(options(folds=3, run_folds=2).trained_folds) == [0, 1]


def test_every_method_against_imbalance_trains(examples: Examples, tmp_path: Path) -> None:
    for method in Imbalance:
        found = trained(examples, options(epochs=1, imbalance=method), tmp_path / method)
        assert np.isfinite(found.validated.log_loss)

"""Backends beside torch: the same answers to within the gate, or torch answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import structlog
import torch
from numpy.typing import NDArray

from models.architectures import build
from models.backends import Answers, Backend, gate, open_backend
from models.calibration import OperatingPoint
from models.classifier import Classifier
from models.errors import BackendError
from models.networks import ImageNetwork
from models.store import released_bundle
from models.tasks import Task, task_named
from tests.unit.small_bundle import write_small_bundle
from workers.classifier_cache import ClassifierCache

CPU = torch.device("cpu")
BINARY = task_named("mammography_malignancy")
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
bf16_only = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bfloat16")


def network_of(name: str, **arguments: Any) -> ImageNetwork:
    torch.manual_seed(7)
    network = build(name, arguments).eval()
    assert isinstance(network, ImageNetwork)
    return network


def images(channels: int, side: int, count: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, channels, side, side)).astype(np.float32)


def pass_gate(reference: Backend, candidate: Backend, inputs: NDArray[np.float32], **changes: Any) -> None:
    gate(reference, candidate, inputs, **{"task": BINARY, "temperature": 1.0, "thresholds": [], **changes})


class Answering:
    """A backend that gives prepared answers, one call after the other."""

    def __init__(self, name: str, answers: Sequence[Answers]) -> None:
        self.name = name
        self.answers = list(answers)

    def run(self, batch: NDArray[np.float32]) -> Answers:
        return self.answers.pop(0)


def answer(probability: float, activation: float | None = 1.0) -> Answers:
    logit = np.log(probability / (1.0 - probability))
    maps = None if activation is None else np.full((1, 1, 2, 2), activation, dtype=np.float32)
    return np.array([[logit]], dtype=np.float32), maps


def judged(name: str, expected: Answers, *found: Answers, thresholds: Sequence[float] = ()) -> None:
    twice = list(found) * (2 if len(found) == 1 else 1)
    pass_gate(
        Answering("torch", [expected]), Answering(name, twice), images(1, 2, count=1), thresholds=thresholds
    )


class TestGate:
    """What it lets through and what not."""

    @pytest.mark.parametrize(("name", "allowed"), [("openvino", 0.9e-5), ("openvino-bf16", 4.9e-3)])
    def test_a_small_difference_passes(self, name: str, allowed: float) -> None:
        judged(name, answer(0.4), answer(0.4 + allowed))

    @pytest.mark.parametrize(("name", "too_much"), [("openvino", 1.2e-5), ("openvino-bf16", 5.2e-3)])
    def test_a_larger_difference_does_not(self, name: str, too_much: float) -> None:
        with pytest.raises(BackendError, match="golden input 1 its probability differs"):
            judged(name, answer(0.4), answer(0.4 + too_much))

    def test_an_image_may_not_change_sides_of_an_operating_point(self) -> None:
        judged("openvino-bf16", answer(0.499), answer(0.501), thresholds=[0.498, 0.502])
        with pytest.raises(BackendError, match="other side of an operating point"):
            judged("openvino-bf16", answer(0.499), answer(0.501), thresholds=[0.2, 0.5])

    def test_an_answer_that_is_not_finite_does_not_pass(self) -> None:
        with pytest.raises(BackendError, match="not finite"):
            judged("openvino", answer(0.4), (np.array([[np.nan]], dtype=np.float32), answer(0.4)[1]))

    def test_an_answer_that_changes_from_time_to_time_does_not_pass(self) -> None:
        with pytest.raises(BackendError, match="differently each time"):
            judged("openvino-bf16", answer(0.4), answer(0.4), answer(0.4001))

    def test_another_map_does_not_pass(self) -> None:
        judged("openvino-bf16", answer(0.4), answer(0.4, activation=1.05))
        with pytest.raises(BackendError, match="its map differs"):
            judged("openvino-bf16", answer(0.4), answer(0.4, activation=1.2))
        with pytest.raises(BackendError, match="no map where"):
            judged("openvino", answer(0.4), answer(0.4, activation=None))

    def test_each_of_several_classes_counts(self) -> None:
        task = task_named("mias7")
        before = np.zeros((1, task.outputs), dtype=np.float32)
        after = before.copy()
        # The target is every class but the last: a swap among the others leaves its probability alone.
        after[0, :2] = 0.01, -0.01
        with pytest.raises(BackendError, match="its probability differs"):
            pass_gate(
                Answering("torch", [(before, None)]),
                Answering("openvino", [(after, None)] * 2),
                images(3, 2, count=1),
                task=task,
            )


@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("compact", {"channels": [4, 4, 4]}, 32),
        ("cnn3", {"head": "gap", "outputs": 7}, 32),
        ("cnn3", {"channels": 1}, 40),
        ("ann", {"rows": 16, "columns": 16, "hidden": [8]}, 16),
        pytest.param("resnet50", {}, 64, marks=pytest.mark.slow_proof),
        pytest.param("densenet121", {"head": "dense"}, 64, marks=pytest.mark.slow_proof),
        pytest.param("vgg16", {}, 64, marks=pytest.mark.slow_proof),
        pytest.param("alexnet", {"head": "gap"}, 80, marks=pytest.mark.slow_proof),
    ],
)
def test_openvino_answers_as_torch_does(name: str, arguments: dict[str, Any], side: int) -> None:
    network = network_of(name, **arguments)
    task: Task = task_named("mias7") if arguments.get("outputs") == 7 else BINARY
    inputs = images(network.channels, side)
    reference = open_backend("torch", network, inputs.shape[1:], CPU)
    candidate = open_backend("openvino", network, inputs.shape[1:], CPU, threads=1)
    assert (reference.name, candidate.name) == ("torch", "openvino")
    pass_gate(reference, candidate, inputs, task=task)
    whole = candidate.run(inputs)
    for index in range(len(inputs)):
        alone = candidate.run(inputs[index : index + 1])
        for one, among in zip(alone, whole, strict=True):
            assert (one is None) == (among is None)
            assert one is None or among is None or one[0].tobytes() == among[index].tobytes()


@bf16_only
def test_bfloat16_computes_with_fewer_digits_and_passes_its_wider_gate_alone() -> None:
    network = network_of("cnn3", head="gap")
    inputs = images(3, 32)
    reference, candidate = (
        open_backend(name, network, inputs.shape[1:], CPU, threads=1) for name in ("torch", "openvino-bf16")
    )
    pass_gate(reference, candidate, inputs)
    found, expected = candidate.run(inputs)[0], reference.run(inputs)[0]
    assert 0.0 < np.abs(found - expected).max() < 0.05


def test_a_backend_that_cannot_be_is_refused_with_a_reason() -> None:
    network = network_of("cnn3")
    with pytest.raises(BackendError, match="there are: torch, openvino, openvino-bf16"):
        open_backend("tensorrt", network, (3, 32, 32), CPU)
    with pytest.raises(BackendError, match="runs on the CPU"):
        open_backend("openvino", network, (3, 32, 32), torch.device("cuda"))
    with pytest.raises(BackendError, match="cannot take this network"):
        open_backend("openvino", network, (3, 2, 2), CPU)


def test_without_openvino_torch_is_named_as_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(BackendError, match="is not installed"):
        open_backend("openvino", network_of("cnn3"), (3, 32, 32), CPU)


def test_the_released_bundle_is_answered_by_openvino_within_the_gate() -> None:
    by_torch = Classifier.load(released_bundle(), threads=1)
    by_openvino = Classifier.load(released_bundle(), threads=1, backend="openvino")
    assert (by_openvino.backend, by_openvino.backend_refusal) == ("openvino", None)
    golden = by_torch.bundle.golden.inputs[:1]
    difference = np.abs(by_openvino.forward(golden)[0] - by_torch.forward(golden)[0]).max()
    assert difference <= 4e-5


@bf16_only
def test_a_bundle_on_which_a_backend_would_change_sides_is_answered_by_torch(tmp_path: Path) -> None:
    loaded = write_small_bundle(tmp_path / "first")
    reference = Classifier.load(loaded.path, threads=1)
    candidate = Classifier.load(loaded.path, threads=1, backend="openvino-bf16")
    assert candidate.backend == "openvino-bf16"
    image = loaded.golden.inputs[:1]
    logits = sorted(float(c.forward(image)[0][0, 0]) / 1.5 for c in (reference, candidate))
    assert logits[0] < logits[1]
    between = 1.0 / (1.0 + np.exp(-sum(logits) / 2.0))
    point = OperatingPoint("default", float(between), 0.9, 0.8, 0.95, False)
    strict = write_small_bundle(tmp_path / "second", operating_points=(point,)).path

    cache = ClassifierCache(lambda digest: strict, device="cpu", threads=1, backend="openvino-bf16")
    with structlog.testing.capture_logs() as logs:
        classifier = cache.get("second")
    assert classifier.backend == "torch"
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("bundle.backend_refused", "warning"),
        ("bundle.loaded", "info"),
    ]
    assert "other side of an operating point" in logs[0]["reason"]
    assert classifier.forward(image)[0].tobytes() == reference.forward(image)[0].tobytes()

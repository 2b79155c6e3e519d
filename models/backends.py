"""What runs a network: torch, or OpenVINO where it gives the same answers faster on a CPU.

Torch is the reference. Another backend is used for a bundle only after it has passed the equality gate on the
bundle's golden inputs, on the very machine that will score.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.class_scores import class_probabilities, score_of
from models.errors import BackendError, DeviceMemoryError
from models.tasks import Task

Answers = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Logits ``(n, outputs)`` and class activation maps ``(n, outputs, h, w)``; None where there are no maps."""

REFERENCE = "torch"
PROBABILITY_TOLERANCES: Mapping[str, float] = {"openvino": 1e-5, "openvino-bf16": 5e-3}
"""Largest difference from the reference's probability, for each backend that is not the reference."""
MAP_TOLERANCES: Mapping[str, float] = {"openvino": 1e-3, "openvino-bf16": 0.1}
"""Largest difference from the reference's map, as a share of the map's largest value: evidence has bands."""
BACKENDS = (REFERENCE, *PROBABILITY_TOLERANCES)
"""Names of the backends."""

_PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16"}


class Backend(Protocol):
    """A network that answers on one processor."""

    @property
    def name(self) -> str:
        """One of :data:`BACKENDS`."""
        ...

    def run(self, batch: NDArray[np.float32]) -> Answers:
        """Answer ``(n, channels, rows, columns)`` float32 images."""
        ...


class TorchBackend:
    """The reference.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on `device`.
    device : torch.device
        Where it runs.
    may_use_cpu : bool, optional
        Whether the CPU may answer what the device has no memory for.
    """

    def __init__(self, network: nn.Module, device: torch.device, *, may_use_cpu: bool = True) -> None:
        self._network = network
        self._device = device
        self._may_use_cpu = may_use_cpu
        self._batches = 0
        self._cpu_batches = 0

    @property
    def name(self) -> str:
        """``"torch"``."""
        return REFERENCE

    def run(self, batch: NDArray[np.float32]) -> Answers:
        """Answer a batch; where the GPU has no memory left in halves, and at last on the CPU.

        Raises
        ------
        DeviceMemoryError
            If memory ran out in each of these.
        """
        # Another process may have let go of memory meanwhile; otherwise the answer comes late, but it comes.
        answers = self._tried(batch) or self._tried_in_halves(batch)
        if answers is None and self._may_use_cpu:
            answers = self._tried_on_cpu(batch)
        if answers is None:
            raise DeviceMemoryError(
                f"The {self._device.type} had no memory left for a batch of {len(batch)}: end what else runs "
                "there, or start fewer score workers."
            )
        self._batches += 1
        return answers

    @property
    def batches(self) -> int:
        """How many batches were answered, by the device or by the CPU."""
        return self._batches

    @property
    def cpu_batches(self) -> int:
        """How many batches the CPU has answered for want of memory."""
        return self._cpu_batches

    def _tried(self, batch: NDArray[np.float32]) -> Answers | None:
        """Answer; None where the memory does not suffice."""
        try:
            return self._answers(self._network, batch, self._device)
        except torch.OutOfMemoryError:
            pass
        # Not above: there the error still holds the pass, and all that it took.
        torch.cuda.empty_cache()
        return None

    def _tried_in_halves(self, batch: NDArray[np.float32]) -> Answers | None:
        half = (len(batch) + 1) // 2
        logits, maps = [], []
        for part in filter(len, (batch[:half], batch[half:])):
            answers = self._tried(part)
            if answers is None:
                return None
            logits.append(answers[0])
            maps.append(answers[1])
        present = [each for each in maps if each is not None]
        return np.concatenate(logits), np.concatenate(present) if present else None

    def _tried_on_cpu(self, batch: NDArray[np.float32]) -> Answers | None:
        try:
            answers = self._answers(_on_cpu(self._network), batch, torch.device("cpu"))
        except torch.OutOfMemoryError:
            return None
        self._cpu_batches += 1
        return answers

    @staticmethod
    def _answers(network: nn.Module, batch: NDArray[np.float32], device: torch.device) -> Answers:
        with torch.inference_mode():
            logits, activations = network(torch.from_numpy(batch).to(device))
            maps = None if activations is None else activations.float().cpu().numpy()
            return logits.float().cpu().numpy(), maps


def _on_cpu(network: nn.Module) -> nn.Module:
    """Copy a network to the CPU, without a copy beside it on a GPU that is full."""
    taken: dict[int, torch.Tensor] = {id(each): each.detach().cpu() for each in network.buffers()}
    for each in network.parameters():
        taken[id(each)] = nn.Parameter(each.detach().cpu(), requires_grad=each.requires_grad)
    return copy.deepcopy(network, taken)


class OpenVinoBackend:
    """A network converted for OpenVINO on the CPU, one image at a time.

    Parameters
    ----------
    name : str
        ``"openvino"`` or ``"openvino-bf16"``.
    network : torch.nn.Module
        In evaluation mode, on the CPU. Not kept.
    shape : sequence of int
        Channels, rows and columns of every image that it will see.
    threads : int
        Threads of one forward pass.

    Raises
    ------
    BackendError
        If OpenVINO is not installed, cannot take the network, or the processor has no bfloat16.
    """

    def __init__(self, name: str, network: nn.Module, shape: Sequence[int], threads: int) -> None:
        self._name = name
        self._model = _compiled(network, tuple(shape), _PRECISIONS[name], threads)
        self._has_map = len(self._model.outputs) > 1

    @property
    def name(self) -> str:
        """``"openvino"`` or ``"openvino-bf16"``."""
        return self._name

    def run(self, batch: NDArray[np.float32]) -> Answers:
        """Answer a batch, each image alone, so that its neighbours cannot move a bit of its answer."""
        answers = [self._model(np.ascontiguousarray(image[np.newaxis])) for image in batch]
        logits = np.concatenate([answer[0] for answer in answers])
        return logits, np.concatenate([answer[1] for answer in answers]) if self._has_map else None


def open_backend(
    name: str, network: nn.Module, shape: Sequence[int], device: torch.device, *, threads: int | None = None
) -> Backend:
    """Make a backend of a network.

    Parameters
    ----------
    name : str
        One of :data:`BACKENDS`.
    network : torch.nn.Module
        In evaluation mode, on `device`.
    shape : sequence of int
        Channels, rows and columns of the images; the reference takes others, too.
    device : torch.device
        Where the network is. OpenVINO runs on the CPU alone.
    threads : int, optional
        Threads of one forward pass; torch's number by default. The reference always has torch's.

    Raises
    ------
    BackendError
        If there is no such backend, or it cannot be made here.
    """
    if name not in BACKENDS:
        raise BackendError(f"No backend is called {name!r}; there are: {', '.join(BACKENDS)}.")
    if name == REFERENCE:
        return TorchBackend(network, device)
    if device.type != "cpu":
        raise BackendError(
            f"{name} runs on the CPU, but the network is on {device.type}: torch runs it there."
        )
    return OpenVinoBackend(name, network, shape, threads or torch.get_num_threads())


def gate(
    reference: Backend,
    candidate: Backend,
    inputs: NDArray[np.float32],
    *,
    task: Task,
    temperature: float,
    thresholds: Sequence[float],
) -> None:
    """Let a backend through only if it answers as the reference does.

    Parameters
    ----------
    reference, candidate : Backend
        Of the same network; the candidate's name decides what it may differ by.
    inputs : numpy.ndarray
        ``(n, channels, rows, columns)`` float32, at least one image.
    task : Task
        Says what the outputs mean.
    temperature : float
        Divides logits; above 0.
    thresholds : sequence of float
        Operating points, probabilities 0..1: no image may change sides at any of them.

    Raises
    ------
    BackendError
        If an answer differs by too much or is not finite, an image changes sides, or the same image is
        answered differently twice.
    """
    for number in range(len(inputs)):
        image = inputs[number : number + 1]
        expected, found = reference.run(image), candidate.run(image)
        if fault := (
            _instability(found, candidate.run(image))
            or _probability_fault(expected[0], found[0], candidate.name, task, temperature, thresholds)
            or _map_fault(expected[1], found[1], candidate.name)
        ):
            raise BackendError(
                f"{candidate.name} is not used, torch answers: on golden input {number + 1} {fault}."
            )


def _instability(first: Answers, second: Answers) -> str | None:
    pairs = [(first[0], second[0]), (first[1], second[1])]
    is_same = all(a is None or b is None or a.tobytes() == b.tobytes() for a, b in pairs)
    return None if is_same else "it answers differently each time"


def _probability_fault(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    name: str,
    task: Task,
    temperature: float,
    thresholds: Sequence[float],
) -> str | None:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return "its logits are not finite or not of the right shape"
    before, after = (score_of(task, logits[0], temperature).probability for logits in (expected, found))
    difference = abs(after - before)
    if task.outputs > 1:
        classes = [class_probabilities(logits[0], temperature) for logits in (expected, found)]
        difference = max(difference, float(np.abs(classes[1] - classes[0]).max()))
    tolerance = PROBABILITY_TOLERANCES[name]
    if difference > tolerance:
        return f"its probability differs by {difference:.1e}, and {tolerance:.0e} is allowed"
    if any((before >= threshold) != (after >= threshold) for threshold in thresholds):
        return "it is on the other side of an operating point"
    return None


def _map_fault(
    expected: NDArray[np.float32] | None, found: NDArray[np.float32] | None, name: str
) -> str | None:
    if expected is None or found is None:
        return None if expected is found else "it has no map where the network has one, or the reverse"
    if expected.shape != found.shape or not np.isfinite(found).all():
        return "its map is not finite or not of the right shape"
    difference = float(np.abs(found - expected).max())
    allowed = MAP_TOLERANCES[name] * float(np.abs(expected).max())
    return (
        f"its map differs by {difference:.1e}, and {allowed:.1e} is allowed" if difference > allowed else None
    )


def _compiled(network: nn.Module, shape: tuple[int, ...], precision: str, threads: int) -> Any:
    """Return OpenVINO's compiled model, for which there are no types."""
    try:
        import openvino
    except ImportError as error:
        raise BackendError("OpenVINO is not installed: pip install 'dicom-node[openvino]'.") from error
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise BackendError("This processor has no bfloat16: use the backend openvino or torch.")
    try:
        with warnings.catch_warnings():
            # Both libraries warn of names that the other one has yet to stop using.
            warnings.simplefilter("ignore")
            exported = torch.export.export(network, (torch.zeros(1, *shape),), strict=False)
            model = openvino.convert_model(exported)
        model.reshape([1, *shape])
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            # Every score process would bind itself to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        return core.compile_model(model, "CPU", options)
    except Exception as error:
        raise BackendError(
            f"OpenVINO cannot take this network ({type(error).__name__}): torch is to be used."
        ) from error

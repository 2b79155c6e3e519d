"""A bundle at work: images in, a study's prediction out.

Decides on which processor the network runs and how image scores become breast and study scores. Each image
is scored alone in a batch of one fixed shape, so that its score is the same to the bit whatever else the
study holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models import architectures, bundle
from models.backends import REFERENCE, Answers, Backend, TorchBackend, gate, open_backend
from models.class_scores import score_of
from models.contract import (
    BreastScore,
    BundleIdentity,
    ImageScore,
    ImageView,
    Laterality,
    Outcome,
    Refusal,
    StudyPrediction,
)
from models.errors import (
    BackendError,
    DeviceMemoryError,
    DeviceUnavailableError,
    GoldenMismatchError,
    RegistryError,
    UnsupportedBundleError,
    WeightsError,
)
from models.evidence import attention_image, band_image, marks_of
from models.preprocessing import Parameters, Prepared, prepare
from models.tasks import GateVerdict, Task, task_named

Stopwatch = Callable[[str], AbstractContextManager[None]]
"""Entered once per study and stage: ``"preprocess"``, ``"forward"``, ``"evidence"``."""

GOLDEN_TOLERANCE = 1e-4
"""Largest difference from the released answers on another processor, relative above 1."""


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


class Classifier:
    """A verified bundle's network on one processor.

    Use :meth:`load`; the constructor takes what it has prepared.
    """

    def __init__(self, loaded: bundle.Bundle, network: nn.Module, device: torch.device) -> None:
        self._bundle = loaded
        self._device = device
        released_for = loaded.manifest.processors
        self._torch = TorchBackend(network, device, may_use_cpu=not released_for or "cpu" in released_for)
        self._backend: Backend = self._torch
        self._backend_refusal: str | None = None

    @classmethod
    def load(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, backend: str = REFERENCE
    ) -> Classifier:
        """Read a bundle, verify it and make its network ready.

        Parameters
        ----------
        path : Path
            The bundle's folder.
        device : str
            ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU where there is one.
        threads : int, optional
            Torch's threads within one operation, for the whole process; by default as they are.
        backend : str
            What runs the network, one of :data:`models.backends.BACKENDS`. Where it cannot, or answers
            otherwise than torch on the golden inputs, torch runs it, and :attr:`backend_refusal` says why.

        Raises
        ------
        BundleError
            If the bundle is not sound, or does not give its released answers on this processor.
        DeviceUnavailableError
            If the processor is not there.
        DeviceMemoryError
            If it has no memory left for the network.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        loaded = bundle.read(path)
        chosen = _device(device)
        released_for = loaded.manifest.processors
        if released_for and chosen.type not in released_for:
            raise UnsupportedBundleError(
                f"{loaded.identity.name} {loaded.identity.version} was released for "
                f"{' and '.join(released_for)}, not for {chosen.type}: set scoring.device to one of them."
            )
        try:
            network = _network(loaded).to(chosen)
        except torch.OutOfMemoryError:
            raise DeviceMemoryError(
                f"The {chosen.type} has no memory left for {loaded.identity.name}: end what else runs there, "
                "or start fewer score workers."
            ) from None
        classifier = cls(loaded, network, chosen)
        classifier._verify_golden()
        if backend != REFERENCE:
            classifier._try_backend(backend, network, threads)
        return classifier

    @property
    def bundle(self) -> bundle.Bundle:
        """The bundle that answers."""
        return self._bundle

    @property
    def identity(self) -> BundleIdentity:
        """Who answers, as reports name it."""
        return self._bundle.identity

    @property
    def task(self) -> Task:
        """The task that it answers."""
        return task_named(self._bundle.manifest.task)

    @property
    def device(self) -> str:
        """The processor that was chosen, ``"cpu"`` or ``"cuda"``; see :attr:`cpu_batches`."""
        return self._device.type

    @property
    def batches(self) -> int:
        """How many batches torch has answered since the bundle was loaded, on whichever processor."""
        return self._torch.batches

    @property
    def cpu_batches(self) -> int:
        """How many batches the CPU has answered for a GPU without memory, since the bundle was loaded."""
        return self._torch.cpu_batches

    @property
    def backend(self) -> str:
        """What runs the network, one of :data:`models.backends.BACKENDS`."""
        return self._backend.name

    @property
    def backend_refusal(self) -> str | None:
        """Why torch runs the network and not the backend that was asked for; None where it does."""
        return self._backend_refusal

    def forward(self, batch: NDArray[np.float32]) -> Answers:
        """Run the network.

        Parameters
        ----------
        batch : numpy.ndarray
            ``(n, channels, rows, columns)`` float32 prepared images. Those of one channel are repeated for a
            network that takes three.

        Returns
        -------
        tuple of numpy.ndarray
            Logits ``(n, outputs)`` and class activation maps ``(n, outputs, h, w)``, float32; None instead of
            the maps for a network that has none.
        """
        return self._backend.run(self._in_colour(batch))

    def _in_colour(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        if batch.shape[1] == 1 and self._bundle.channels > 1:
            return np.repeat(batch, self._bundle.channels, axis=1)
        return batch

    def _try_backend(self, name: str, network: nn.Module, threads: int | None) -> None:
        """Use a backend if it answers as torch does; otherwise note why not."""
        inputs = self._in_colour(self._bundle.golden.inputs)
        manifest = self._bundle.manifest
        try:
            candidate = open_backend(name, network, inputs.shape[1:], self._device, threads=threads)
            gate(
                self._backend,
                candidate,
                inputs,
                task=self.task,
                temperature=manifest.temperature,
                thresholds=[point.threshold for point in manifest.operating_points],
            )
        except BackendError as error:
            self._backend_refusal = str(error)
        else:
            self._backend = candidate

    def _verify_golden(self) -> None:
        golden = self._bundle.golden
        for index in range(golden.inputs.shape[0]):
            here = slice(index, index + 1)
            logits, activations = self.forward(golden.inputs[here])
            released = None if golden.activations is None else golden.activations[here]
            if not (_agree(logits, golden.logits[here]) and _agree(activations, released)):
                raise GoldenMismatchError(
                    f"{self.identity.name} {self.identity.version} does not give its released answers on "
                    f"this machine's {self.device}: do not use it here, and tell who released it."
                )


def predict_study(
    classifier: Classifier,
    views: Sequence[ImageView],
    unreadable: Sequence[Refusal],
    *,
    stopwatch: Stopwatch = _untimed,
    with_attention: bool = False,
) -> StudyPrediction:
    """Score a study: the task's gate, then each image, each breast and the study.

    Parameters
    ----------
    classifier : Classifier
        Who answers.
    views : sequence of ImageView
        Every readable image of the study, in any order.
    unreadable : sequence of Refusal
        One refusal for each image that could not be read.
    stopwatch : callable
        ``stopwatch(stage)`` gives a context manager that is entered around each stage.
    with_attention : bool
        Whether to spread the map over the source images too, where it is shown at all; 1 byte per pixel.

    Raises
    ------
    UnsupportedBundleError
        If the bundle takes parts of images that somebody chose, not whole ones.
    """
    with stopwatch("preprocess"):
        prepared = prepare_study(classifier, views, unreadable)
    return predict_prepared(classifier, prepared, stopwatch=stopwatch, with_attention=with_attention)


@dataclass(frozen=True, slots=True)
class PreparedStudy:
    """A study that passed its task's gate, on the grid of a network.

    Attributes
    ----------
    verdict : GateVerdict
        What the gate accepted and refused.
    parameters : Parameters
        How the images were prepared: every bundle that shares them scores the same tensors.
    images : tuple of Prepared
        The accepted images, in the verdict's order.
    """

    verdict: GateVerdict
    parameters: Parameters
    images: tuple[Prepared, ...]


def prepare_study(
    classifier: Classifier, views: Sequence[ImageView], unreadable: Sequence[Refusal]
) -> PreparedStudy:
    """Ask the task's gate, and put what it accepts on the network's grid.

    Raises
    ------
    UnsupportedBundleError
        If the bundle takes parts of images that somebody chose, not whole ones.
    """
    verdict = classifier.task.gate(views, unreadable)
    return prepare_accepted(classifier, verdict)


def prepare_accepted(classifier: Classifier, verdict: GateVerdict) -> PreparedStudy:
    """Put what a gate accepted on the network's grid.

    Raises
    ------
    UnsupportedBundleError
        If the bundle takes parts of images that somebody chose, not whole ones.
    """
    parameters = classifier.bundle.manifest.preprocessing
    if not isinstance(parameters, Parameters):
        raise UnsupportedBundleError(
            f"{classifier.identity.name} takes parts of images that somebody chose: it can be evaluated, but "
            "not answer for studies."
        )
    accepted = zip(verdict.accepted, verdict.breasts, strict=True)
    images = tuple(prepare(view, parameters, breast) for view, breast in accepted)
    return PreparedStudy(verdict, parameters, images)


def predict_prepared(
    classifier: Classifier,
    study: PreparedStudy,
    *,
    stopwatch: Stopwatch = _untimed,
    with_attention: bool = False,
) -> StudyPrediction:
    """Score a prepared study: each image, each breast and the study.

    Parameters
    ----------
    classifier : Classifier
        Who answers.
    study : PreparedStudy
        The images on its grid, and the gate's verdict.
    stopwatch : callable, optional
        Gives a context manager for each stage, entered while it lasts.
    with_attention : bool, optional
        Whether scores carry their maps, a byte for each pixel of the image.
    """
    with stopwatch("forward"):
        answers = [classifier.forward(image.tensor[np.newaxis]) for image in study.images]
    with stopwatch("evidence"):
        images = tuple(
            _image_score(classifier, view, image, answer, with_attention=with_attention)
            for view, image, answer in zip(study.verdict.accepted, study.images, answers, strict=True)
        )
    breasts = _breast_scores(images)
    return StudyPrediction(
        task=classifier.task.name,
        outcome=_outcome(study.verdict),
        threshold=classifier.bundle.threshold,
        images=images,
        breasts=breasts,
        study_probability=max((breast.probability for breast in breasts), default=None),
        refusals=study.verdict.refusals,
        target=classifier.task.target,
    )


def _image_score(
    classifier: Classifier, view: ImageView, image: Prepared, answer: Answers, *, with_attention: bool
) -> ImageScore:
    task = classifier.task
    if view.laterality is None or view.view is None:
        raise RegistryError(f"The gate of {task.name} accepted an image without a side or view.")
    manifest = classifier.bundle.manifest
    logits = answer[0][0]
    score = score_of(task, logits, manifest.temperature)
    is_shown = manifest.evidence_enabled and score.probability >= classifier.bundle.threshold
    activation = None if answer[1] is None or not is_shown else answer[1][0, score.shown_output]
    marks = () if activation is None else marks_of(activation, image, score.probability)
    finding = task.labels[score.shown_output] if score.classes else None
    return ImageScore(
        sop_instance_uid=view.sop_instance_uid,
        laterality=view.laterality,
        view=view.view,
        logit=score.logit,
        probability=score.probability,
        region=image.region,
        evidence=None if activation is None else band_image(activation, image),
        classes=score.classes,
        marks=tuple(replace(mark, finding=finding) for mark in marks) if manifest.localises else (),
        attention=attention_image(activation, image) if activation is not None and with_attention else None,
    )


def _breast_scores(images: Sequence[ImageScore]) -> tuple[BreastScore, ...]:
    breasts = []
    for side in (Laterality.RIGHT, Laterality.LEFT):
        of_side = [image for image in images if image.laterality is side]
        if of_side:
            mean = sum(image.probability for image in of_side) / len(of_side)
            breasts.append(BreastScore(side, mean, tuple(image.sop_instance_uid for image in of_side)))
    return tuple(breasts)


def _outcome(verdict: GateVerdict) -> Outcome:
    if not verdict.accepted:
        return Outcome.REFUSED
    return Outcome.SCORED if verdict.is_complete else Outcome.PARTIAL


def _device(name: str) -> torch.device:
    if name not in ("cpu", "cuda", "auto"):
        raise DeviceUnavailableError(f"There is no device {name!r}; use cpu, cuda or auto.")
    is_there = torch.cuda.is_available()
    if name == "cuda" and not is_there:
        raise DeviceUnavailableError("No GPU can be used here; use cpu or auto, or look at the driver.")
    if name == "cpu" or not is_there:
        return torch.device("cpu")
    # TF32 would miss the released answers by more than a rounding.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


def _network(loaded: bundle.Bundle) -> nn.Module:
    manifest = loaded.manifest
    network = architectures.build(manifest.architecture, manifest.architecture_arguments)
    state = {name: torch.from_numpy(np.array(values)) for name, values in loaded.weights.items()}
    expected = {name: tuple(values.shape) for name, values in network.state_dict().items()}
    if fault := _first_misfit(expected, {name: tuple(values.shape) for name, values in state.items()}):
        raise WeightsError(
            f"The weights do not fit the architecture {manifest.architecture!r}: {fault}. "
            "Package the run again."
        )
    network.load_state_dict(state, strict=True)
    return network.eval()


def _first_misfit(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Say what is missing, too much or of another shape; None where everything fits."""
    if missing := sorted(set(expected) - set(found)):
        return f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if missing[1:] else "")
    if extra := sorted(set(found) - set(expected)):
        return f"{extra[0]} is not part of it" + (f", nor are {len(extra) - 1} more" if extra[1:] else "")
    for name, shape in sorted(expected.items()):
        # A counter may have been written as a list of one.
        if found[name] != shape and not (shape == () and found[name] == (1,)):
            return f"{name} is {list(found[name])} instead of {list(shape)}"
    return None


def _agree(answer: NDArray[np.float32] | None, released: NDArray[np.float32] | None) -> bool:
    """Whether an answer is the released one; what was not released is not compared."""
    if released is None:
        return True
    if answer is None or answer.shape != released.shape:
        return False
    allowed = GOLDEN_TOLERANCE * np.maximum(1.0, np.abs(released))
    return bool((np.abs(answer - released) <= allowed).all())

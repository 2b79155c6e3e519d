"""A bundle at work: images in, a study's prediction out.

Decides on which processor the network runs and how image scores become breast and study scores. Each image
is scored alone in a batch of one fixed shape, so that its score is the same to the bit whatever else the
study holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models import architectures, bundle
from models.calibration import probabilities
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
from models.errors import DeviceUnavailableError, GoldenMismatchError, RegistryError, WeightsError
from models.evidence import attention_image, band_image, marks_of
from models.preprocessing import Prepared, prepare
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
        self._network = network
        self._device = device

    @classmethod
    def load(cls, path: Path, *, device: str = "cpu", threads: int | None = None) -> Classifier:
        """Read a bundle, verify it and make its network ready.

        Parameters
        ----------
        path : Path
            The bundle's folder.
        device : str
            ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU where there is one.
        threads : int, optional
            Torch's threads within one operation, for the whole process; by default as they are.

        Raises
        ------
        BundleError
            If the bundle is not sound, or does not give its released answers on this processor.
        DeviceUnavailableError
            If the processor is not there.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        loaded = bundle.read(path)
        chosen = _device(device)
        classifier = cls(loaded, _network(loaded).to(chosen), chosen)
        classifier._verify_golden()
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
        """The processor in use, ``"cpu"`` or ``"cuda"``."""
        return self._device.type

    def forward(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the network.

        Parameters
        ----------
        batch : numpy.ndarray
            ``(n, 1, rows, columns)`` float32 prepared images.

        Returns
        -------
        tuple of numpy.ndarray
            Logits ``(n, 1)`` and class activation maps ``(n, 1, h, w)``, float32.
        """
        try:
            return self._run(self._network, batch, self._device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        # Another process may have let go of memory meanwhile; otherwise the answer comes late, but it comes.
        try:
            return self._run(self._network, batch, self._device)
        except torch.OutOfMemoryError:
            on_cpu = copy.deepcopy(self._network).to("cpu")
            return self._run(on_cpu, batch, torch.device("cpu"))

    @staticmethod
    def _run(
        network: nn.Module, batch: NDArray[np.float32], device: torch.device
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(device)
            logits, activations = network(images)
            return logits.float().cpu().numpy(), activations.float().cpu().numpy()

    def _verify_golden(self) -> None:
        golden = self._bundle.golden
        for index in range(golden.inputs.shape[0]):
            here = slice(index, index + 1)
            logits, activations = self.forward(golden.inputs[here])
            if not (_agree(logits, golden.logits[here]) and _agree(activations, golden.activations[here])):
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
    """
    manifest = classifier.bundle.manifest
    with stopwatch("preprocess"):
        verdict = classifier.task.gate(views, unreadable)
        prepared = [
            prepare(view, manifest.preprocessing, breast)
            for view, breast in zip(verdict.accepted, verdict.breasts, strict=True)
        ]
    with stopwatch("forward"):
        answers = [classifier.forward(image.tensor[np.newaxis]) for image in prepared]
    with stopwatch("evidence"):
        images = tuple(
            _image_score(classifier, view, image, logits, activations, with_attention=with_attention)
            for view, image, (logits, activations) in zip(verdict.accepted, prepared, answers, strict=True)
        )
    breasts = _breast_scores(images)
    return StudyPrediction(
        task=manifest.task,
        outcome=_outcome(verdict),
        threshold=classifier.bundle.threshold,
        images=images,
        breasts=breasts,
        study_probability=max((breast.probability for breast in breasts), default=None),
        refusals=verdict.refusals,
    )


def _image_score(
    classifier: Classifier,
    view: ImageView,
    image: Prepared,
    logits: NDArray[np.float32],
    activations: NDArray[np.float32],
    *,
    with_attention: bool,
) -> ImageScore:
    if view.laterality is None or view.view is None:
        raise RegistryError(f"The gate of {classifier.task.name} accepted an image without a side or view.")
    manifest = classifier.bundle.manifest
    logit = float(logits[0, 0])
    probability = float(probabilities(logit, manifest.temperature))
    is_shown = manifest.evidence_enabled and probability >= classifier.bundle.threshold
    return ImageScore(
        sop_instance_uid=view.sop_instance_uid,
        laterality=view.laterality,
        view=view.view,
        logit=logit,
        probability=probability,
        region=image.region,
        evidence=band_image(activations[0, 0], image) if is_shown else None,
        marks=marks_of(activations[0, 0], image, probability) if is_shown and manifest.localises else (),
        attention=attention_image(activations[0, 0], image) if is_shown and with_attention else None,
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
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"The weights do not fit the architecture {manifest.architecture!r}.") from error
    return network.eval()


def _agree(answer: NDArray[np.float32], released: NDArray[np.float32]) -> bool:
    if answer.shape != released.shape:
        return False
    allowed = GOLDEN_TOLERANCE * np.maximum(1.0, np.abs(released))
    return bool((np.abs(answer - released) <= allowed).all())

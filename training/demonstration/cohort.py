"""Women made of phantoms, on the network's grid by the preprocessing that inference uses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import ImageView, Laterality
from models.preprocessing import Parameters, Prepared, prepare
from training.datasets.phantoms import LesionKind, Phantom, draw
from training.demonstration.config import DemonstrationConfig

_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
_LESIONS = tuple(kind for kind in LesionKind if kind is not LesionKind.NORM)


@dataclass(frozen=True, slots=True)
class Example:
    """One prepared phantom.

    Attributes
    ----------
    woman : int
        Whose it is.
    laterality : Laterality
        Side.
    kind : LesionKind
        What was drawn in this image.
    is_malignant : bool
        The label.
    tensor : numpy.ndarray
        ``(1, rows, columns)`` float32, what the network sees.
    lesion : tuple of float or None
        Column, row and radius of the lesion in cells of the network's grid.
    """

    woman: int
    laterality: Laterality
    kind: LesionKind
    is_malignant: bool
    tensor: NDArray[np.float32]
    lesion: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """The examples of some women, and the digest of the pixels that they were made from."""

    examples: tuple[Example, ...]
    sha256: str


def kinds_of_women(count: int) -> tuple[LesionKind, ...]:
    """Return what each of `count` women has: every second one is normal, the others take turns."""
    return tuple(
        _LESIONS[woman // 2 % len(_LESIONS)] if woman % 2 else LesionKind.NORM for woman in range(count)
    )


def display_view(phantom: Phantom, sop_instance_uid: str) -> ImageView:
    """Show a phantom as its window does: 12 bits over the whole range of P-values."""
    shown = (phantom.pixels.astype(np.uint32) * 65535 + 2047) // 4095
    return ImageView(
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=_FOR_PRESENTATION,
        pixels=shown.astype(np.uint16),
        laterality=phantom.laterality,
        view=phantom.view,
        spacing_mm=(phantom.spacing_mm, phantom.spacing_mm),
    )


def draw_cohort(
    women: Iterable[int],
    kinds: tuple[LesionKind, ...],
    config: DemonstrationConfig,
    *,
    both_breasts: bool,
    malignant: bool = True,
    advance: Callable[[], None],
) -> Cohort:
    """Draw and prepare the images of some women.

    Parameters
    ----------
    women : iterable of int
        Who.
    kinds : tuple of LesionKind
        What each woman has, by her number.
    config : DemonstrationConfig
        Sizes, seed and preprocessing.
    both_breasts : bool
        All four views, or those of the breast with the lesion alone.
    malignant : bool
        Whether the lesions are malignant.
    advance : callable
        Called after each image.
    """
    digest, examples = hashlib.sha256(), []
    for woman in women:
        random = np.random.default_rng([config.seed, woman])
        affected = Laterality.LEFT if random.random() < 0.5 else Laterality.RIGHT
        size = random.uniform(0.85, 1.1)
        sides = (Laterality.RIGHT, Laterality.LEFT) if both_breasts else (affected,)
        for side in sides:
            kind = kinds[woman] if side is affected else LesionKind.NORM
            for view in ("CC", "MLO"):
                phantom = draw(
                    laterality=side,
                    view=view,
                    kind=kind,
                    malignant=malignant and kind is not LesionKind.NORM,
                    rows=round(config.rows * size),
                    columns=round(config.columns * size),
                    seed=config.seed + woman,
                )
                digest.update(phantom.pixels.tobytes())
                examples.append(_example(woman, phantom, config.preprocessing))
                advance()
    return Cohort(tuple(examples), digest.hexdigest())


def _example(woman: int, phantom: Phantom, parameters: Parameters) -> Example:
    prepared = prepare(display_view(phantom, ""), parameters)
    lesion = phantom.lesion
    return Example(
        woman=woman,
        laterality=phantom.laterality,
        kind=LesionKind.NORM if lesion is None else lesion.kind,
        is_malignant=lesion is not None and lesion.malignant,
        tensor=prepared.tensor,
        lesion=lesion_on_grid(phantom, prepared),
    )


def lesion_on_grid(phantom: Phantom, prepared: Prepared) -> tuple[float, float, float] | None:
    """Column, row and radius of a phantom's lesion in cells of the network's grid."""
    if phantom.lesion is None:
        return None
    column, row = (np.asarray([value]) for value in phantom.lesion.centre)
    x, y = prepared.geometry.to_grid(column, row)
    return float(x[0]), float(y[0]), phantom.lesion.radius / prepared.geometry.scale_x

"""Random variations of a training image: MONAI's transforms, seeded per run, epoch and case.

A case's variation depends on nothing else, so neither the number of loading processes nor an interruption
changes it. Validation and test images never come here.
"""

from __future__ import annotations

import numpy as np
from monai.data import set_track_meta
from monai.transforms import (
    Compose,
    RandAffine,
    RandFlip,
    RandGaussianNoise,
    RandRotate90,
    RandScaleIntensity,
)
from numpy.typing import NDArray

_ROTATION = 0.35  # radians at full strength
_SCALE = 0.2
_SHIFT = 0.1  # of a side
_NOISE = 0.2  # standard deviations of the image
_CONTRAST = 0.3


class Augmentation:
    """Varies prepared images.

    Parameters
    ----------
    strength : float
        0 for none, to 1.
    shape : tuple of int
        Rows and columns of the images.
    dihedral : bool
        Whether images may be turned by right angles and mirrored from side to side. Whole breasts may not:
        preprocessing put every chest wall to the left.
    """

    DEFAULT = 0.5

    def __init__(self, strength: float, shape: tuple[int, int], *, dihedral: bool) -> None:
        set_track_meta(False)  # where a pixel came from is not asked here, and tracking it takes most time
        turns = [RandFlip(prob=0.5, spatial_axis=0)]
        if dihedral:
            turns.append(RandFlip(prob=0.5, spatial_axis=1))
            if shape[0] == shape[1]:
                turns.append(RandRotate90(prob=0.5, max_k=3))
        self._transforms = Compose(
            [
                *turns,
                RandAffine(
                    prob=0.9,
                    rotate_range=_ROTATION * strength,
                    scale_range=(_SCALE * strength, _SCALE * strength),
                    translate_range=tuple(_SHIFT * strength * side for side in shape),
                    mode="bilinear",
                    padding_mode="border" if dihedral else "zeros",
                    cache_grid=True,
                    spatial_size=shape,
                ),
                RandScaleIntensity(factors=_CONTRAST * strength, prob=0.9),
                RandGaussianNoise(prob=0.5, std=_NOISE * strength),
            ]
            if strength > 0
            else []
        )

    def __call__(self, image: NDArray[np.float32], seed: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a variation of ``(channels, rows, columns)``; the same `seed` gives the same one."""
        if not self._transforms.transforms:
            return image
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._transforms.set_random_state(seed=number)
        varied = self._transforms(image)
        return np.ascontiguousarray(np.asarray(varied, dtype=np.float32))

"""Every way from pixels to a network's input that this program knows, by the name of its algorithm.

A bundle's manifest holds the parameters of one of them; the field ``version`` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models import lesion_regions, patches, preprocessing
from models.errors import UnsupportedBundleError
from models.lesion_regions import RegionParameters
from models.patches import PatchParameters
from models.preprocessing import Parameters

AnyParameters = Parameters | RegionParameters | PatchParameters

PARAMETERS: Mapping[str, type[AnyParameters]] = MappingProxyType(
    {
        preprocessing.VERSION: Parameters,
        lesion_regions.VERSION: RegionParameters,
        patches.VERSION: PatchParameters,
    }
)
"""The class of parameters of each algorithm."""

KNOWN_VERSIONS = frozenset(PARAMETERS)


def parameters_class(version: str) -> type[AnyParameters]:
    """Return what the parameters of the algorithm `version` are.

    Raises
    ------
    UnsupportedBundleError
        If this program does not know the algorithm.
    """
    if version not in PARAMETERS:
        raise UnsupportedBundleError(
            f"The bundle needs the preprocessing {version!r}, this program has: "
            f"{', '.join(sorted(KNOWN_VERSIONS))}."
        )
    return PARAMETERS[version]


def fault_of(parameters: AnyParameters) -> str | None:
    """Return what makes parameters impossible, in words; None if nothing does."""
    if min(parameters.rows, parameters.columns) < 1:
        return "rows and columns must be at least 1"
    if isinstance(parameters, PatchParameters):
        deviations = (parameters.deviation_red, parameters.deviation_green, parameters.deviation_blue)
        if parameters.patch_pixels < 1 or not min(deviations) > 0.0:
            return "patch_pixels must be at least 1 and every deviation above 0"
        return None
    if not parameters.clip_low < parameters.clip_high:
        return "clip_low must be below clip_high"
    if isinstance(parameters, Parameters) and not parameters.pixel_mm > 0.0:
        return "pixel_mm must be above 0"
    return None

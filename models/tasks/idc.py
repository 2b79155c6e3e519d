"""Is there invasive ductal carcinoma on this slide? Stained sections, scored patch by patch.

A patch holds tissue where enough of it is stained; bare glass is never scored. Which level of a slide is read
for that scale is decided in :mod:`models.slide_classifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.contract import CodedConcept, ImageView, Refusal, RefusalCode
from models.tasks import GateVerdict, SlideReading, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image

_PIXEL_MM = 0.004  # an objective of 40x, reduced 16 times: the scale of the published patches
_STAINED = 20  # of 255, between the strongest and the weakest colour of a pixel; glass and dust are grey
_LEAST_SHARE = 0.10  # of a patch's pixels


def tissue(patches: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which patches hold tissue.

    Parameters
    ----------
    patches : numpy.ndarray
        ``(n, rows, columns, 3)`` uint8 RGB.

    Returns
    -------
    numpy.ndarray
        ``(n,)`` bool.
    """
    stained = patches.max(axis=-1).astype("int16") - patches.min(axis=-1) >= _STAINED
    share: NDArray[np.float64] = stained.mean(axis=(1, 2))
    return share >= _LEAST_SHARE


def gate(views: Sequence[ImageView], unreadable: Sequence[Refusal]) -> GateVerdict:
    """Refuse whatever is no whole slide: a single image says nothing about its place in a section."""
    refusals = [Refusal(RefusalCode.UNSUPPORTED_SOP_CLASS, view.sop_instance_uid) for view in views]
    nothing = Refusal(RefusalCode.NO_SCORABLE_IMAGE)
    return GateVerdict((), (), (nothing, *unreadable, *refusals), is_complete=False)


TASK = Task(
    name="idc",
    title="Breast histology: invasive ductal carcinoma",
    modality="SM",
    scored_sop_classes=frozenset({_WHOLE_SLIDE}),
    refused_sop_classes=MappingProxyType({}),
    standard_views=(),
    labels=(CodedConcept("408643008", "SCT", "Infiltrating duct carcinoma of breast"),),
    classes=("not_idc", "idc"),
    gate=gate,
    slides=SlideReading(_PIXEL_MM, tissue),
)

"""Every outcome of a study in four character sets, with all the objects that are built of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS, build_all
from dicom_node.results.context import BuiltObject, ResultContext
from tests import localised_contexts as localised
from tests import results_contexts as given

OUTCOMES: dict[str, Callable[..., ResultContext]] = {
    "positive": localised.masses,
    "negative": localised.nothing_found,
    "partial": localised.partial_positive,
    "refused": localised.refused,
    "superseding": localised.superseding,
}
"""Of a bundle that localises: it makes every kind of object."""

PLAIN_OUTCOMES: dict[str, Callable[..., ResultContext]] = {
    "positive": given.positive,
    "negative": given.negative,
    "partial": given.partial,
    "refused": given.refused,
    "superseding": given.superseding,
}
"""Of a bundle that only tells malignant from not."""

CHARACTER_SETS: dict[str, dict[str, Any]] = {
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "Korean": {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞"},
    "Greek": {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διονυσιος^Α"},
    "German": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"},
}


def with_maps(context: ResultContext) -> ResultContext:
    """Give the values of its map to each image that has evidence."""
    images = tuple(
        score
        if score.evidence is None
        else replace(score, attention=np.where(score.evidence > 0, 60 * score.evidence, 0).astype(np.uint8))
        for score in context.prediction.images
    )
    return replace(context, prediction=replace(context.prediction, images=images))


def context_of(outcome: str, character_set: str, *, plain: bool = False) -> ResultContext:
    """Give one study."""
    build = (PLAIN_OUTCOMES if plain else OUTCOMES)[outcome]
    return with_maps(build(given.sources(**CHARACTER_SETS[character_set])))


@cache
def objects_of(outcome: str, character_set: str) -> tuple[BuiltObject, ...]:
    """Give every object of one study."""
    return build_all(context_of(outcome, character_set), {**RESULT_BUILDERS, **OPTION_BUILDERS})

"""A network's maps of test images beside those of no training, and whether they point at drawn lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.class_scores import score_of
from models.networks import ImageNetwork
from models.preprocessing import Parameters
from models.tasks import Task
from training.cache import PreparedImages
from training.errors import EvaluationError
from training.image_files import mask_values
from training.lesion_areas import LocatedMap, Mask, lesion_area
from training.localisation import LocalisationQuality, measure
from training.records import Lesion, Record


def localisation_of(
    network: ImageNetwork,
    untrained: ImageNetwork,
    task: Task,
    images: PreparedImages,
    positions: NDArray[np.int64],
) -> LocalisationQuality | None:
    """Measure whether a network's map points at the lesions of test images.

    Parameters
    ----------
    network, untrained : ImageNetwork
        After training, and with its first weights; both in evaluation mode.
    task : Task
        Decides which lesions count: malignant ones where malignancy is asked for, otherwise all.
    images : PreparedImages
        Of the data set.
    positions : numpy.ndarray
        Which of them to look at.

    Returns
    -------
    LocalisationQuality or None
        None where there is nothing to judge: the network has no map, sees parts of images alone, or the
        lesions of two women are not known.
    """
    pairs = maps_of(network, untrained, task, images, positions)
    if pairs is None:
        return None
    try:
        return measure([pair.trained for pair in pairs], [pair.untrained for pair in pairs])
    except EvaluationError:
        return None


@dataclass(frozen=True, slots=True)
class MapPair:
    """Two maps of one image.

    Attributes
    ----------
    position : int
        Which image of the data set.
    trained, untrained : LocatedMap
        After training, and with first weights.
    """

    position: int
    trained: LocatedMap
    untrained: LocatedMap


def maps_of(
    network: ImageNetwork,
    untrained: ImageNetwork,
    task: Task,
    images: PreparedImages,
    positions: NDArray[np.int64],
) -> list[MapPair] | None:
    """Return the maps of images in which there is a breast, with the lesions that count.

    Parameters are those of :func:`localisation_of`.

    Returns
    -------
    list of MapPair or None
        None where the network has no map, or sees parts of images alone.
    """
    if not isinstance(images.parameters, Parameters) or not _has_map(network, images):
        return None
    pairs = []
    for position in positions.tolist():
        record, tensor = images.data_set.records[position], images[position]
        areas = _areas(record, task, images, position)
        inside = tensor[0] != 0.0
        if inside.any():
            maps = (
                LocatedMap(record.group, _map(one, task, tensor), areas, inside)
                for one in (network, untrained)
            )
            pairs.append(MapPair(position, *maps))
    return pairs


def _has_map(network: ImageNetwork, images: PreparedImages) -> bool:
    with torch.inference_mode():
        return network(torch.zeros((1, *images.parameters.shape)))[1] is not None


def _map(network: ImageNetwork, task: Task, tensor: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.inference_mode():
        logits, activation = network(torch.from_numpy(tensor[np.newaxis]))
    if activation is None:
        raise EvaluationError("The network has no map.")
    shown = score_of(task, logits[0].numpy(), 1.0).shown_output
    of_shown: NDArray[np.float64] = activation[0, shown].double().numpy()
    return of_shown


def _areas(record: Record, task: Task, images: PreparedImages, position: int) -> tuple[Mask, ...]:
    lesions = _counted(record.lesions, task)
    if not lesions:
        return ()
    geometry, shape = images.geometry(position), images.parameters.shape[1:]
    drawn = (
        lesion_area(lesion, geometry, shape, None if lesion.mask is None else mask_values(lesion.mask))
        for lesion in lesions
    )
    return tuple(area for area in drawn if area is not None)


def _counted(lesions: Sequence[Lesion], task: Task) -> list[Lesion]:
    if task.outputs > 1:
        return list(lesions)
    return [lesion for lesion in lesions if lesion.is_malignant]

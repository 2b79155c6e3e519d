"""The maps of all networks of a run, each on test images that it had not seen, against drawn lesions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training import localisation, run_folder
from training.atomic_file import write_atomically
from training.cache import PreparedImages
from training.determinism import deterministic
from training.errors import EvaluationError
from training.evaluated_run import LOCALISATION, OVERLAYS
from training.fold import read_weights
from training.localisation import LocalisationQuality
from training.map_pictures import overlay_png
from training.material import Advance, Material, material_of
from training.network_maps import MapPair, maps_of
from training.networks import untrained_network
from training.run_config import TrainingConfig
from training.run_folder import RunFolder

_EXAMPLES = 8


def measure_maps(path: Path, *, advance: Advance) -> LocalisationQuality:
    """Measure the maps of a finished run; write what was found and example pictures into its folder.

    Parameters
    ----------
    path : Path
        The run folder. The data set must still lie where it was, with the same content.
    advance : callable
        Told how far it is.

    Raises
    ------
    EvaluationError
        If the run was not split by woman, its networks have no map, or the lesions of two women are not
        known.
    TrainingError
        If the folder holds no finished run, weights are not those that their fold gave, or the data set has
        changed.
    """
    folder = RunFolder(path)
    arguments = run_folder.read(folder)["architecture_arguments"]
    config, material = material_of(folder, advance)
    images = material.images
    if not isinstance(images, PreparedImages):
        raise EvaluationError("Maps are measured on a run that was split by woman: name one.")
    with deterministic(config.threads):
        pairs = _pairs(folder, config, arguments, material, images, advance)
    found = localisation.measure(
        [pair.trained for pair in pairs], [pair.untrained for pair in pairs], seed=config.seed
    )
    _write_examples(folder, images, pairs)
    localisation.write(found, path / LOCALISATION)
    return found


def _pairs(
    folder: RunFolder,
    config: TrainingConfig,
    arguments: Mapping[str, Any],
    material: Material,
    images: PreparedImages,
    advance: Advance,
) -> list[MapPair]:
    """Return the maps of all folds' test images, each by the network that had not seen it."""
    pairs: list[MapPair] = []
    for number in config.trained_folds:
        network, untrained = (
            untrained_network(config, arguments, material.parameters, fold=number) for _ in range(2)
        )
        network.load_state_dict(read_weights(folder.fold(number)))
        positions = material.dataset.positions(material.plan.folds[number].test)
        of_fold = maps_of(network, untrained, material.task, images, positions)
        if of_fold is None:
            raise EvaluationError(
                "These networks have no map of whole images: it takes the head gap, and a task that looks at "
                "whole images."
            )
        pairs += of_fold
        advance("maps", number + 1, len(config.trained_folds))
    return pairs


def _write_examples(folder: RunFolder, images: PreparedImages, pairs: list[MapPair]) -> None:
    chosen = [pair for pair in pairs if pair.trained.areas][:_EXAMPLES]
    for number, pair in enumerate(chosen, start=1):
        picture = overlay_png(images[pair.position], pair.trained)
        write_atomically(folder.path / OVERLAYS / f"example-{number}.png", picture)

"""A bundle of one network of a finished run: manifest, card and split, without a name of anybody."""

from __future__ import annotations

import json
from pathlib import Path

from models import bundle
from models.manifest import FORMAT, Manifest
from models.network_inputs import AnyParameters
from models.tasks import Task
from training import finished_fold, run_folder, starting_weights
from training.bundle_numbers import BundleNumbers, measure
from training.determinism import deterministic
from training.finished_fold import FinishedFold
from training.golden_inputs import golden_inputs
from training.material import Advance, silent
from training.model_card import model_card
from training.packable import require_honest_split
from training.packaging import Release, require_empty, require_identity, write_bundle
from training.run_folder import RunFolder
from training.starting_weights import SPLIT, STARTED_FROM

INTENDED_USE = "Research. Trained and measured on one data set; not validated for clinical use."


def package_run(
    run: Path,
    name: str,
    version: str,
    *,
    fold: int = 0,
    out: Path | None = None,
    trained_by: str = "",
    licence: str = "not stated",
    advance: Advance = silent,
) -> bundle.Bundle:
    """Make a bundle of the network of one fold.

    Parameters
    ----------
    run : Path
        Folder of a finished run.
    name, version : str
        ASCII, at most 64 characters.
    fold : int
        Whose network is packed, 0-based.
    out : Path, optional
        Where to; by default ``bundle`` in the run's folder. Must not exist or be empty.
    trained_by : str
        Who trained it, so that nobody approves their own.
    licence : str
        Under which terms the bundle may be used.
    advance : callable, optional
        Told how far it is.

    Raises
    ------
    PackagingError
        If the bundle cannot have its name or version, its folder is not empty, the split was not by woman or
        patient, or there are too few validation cases for an operating point.
    TrainingError
        If the folder holds no finished fold of that number, or its weights are others.
    """
    folder = RunFolder(run)
    place = out or folder.bundle
    require_identity(name, version)
    require_empty(place)
    require_honest_split(run_folder.config_of(run_folder.read(folder)))
    packed = finished_fold.read(folder, fold)
    network = packed.network()
    # Golden answers are bytes of the bundle: they follow from the run's threads, not the machine's cores.
    with deterministic(packed.config.threads):
        numbers = measure(packed, network, advance)
        return write_bundle(
            place,
            network,
            golden_inputs(packed.parameters.shape, seed=packed.config.seed),
            _release(packed.task, packed.parameters, name, version),
            model_card(name, version, packed, numbers, licence=licence, intended_use=INTENDED_USE),
            lambda files: _manifest(packed, numbers, files, licence, trained_by),
            more_files={SPLIT: _split_file(packed)},
        )


def _manifest(
    fold: FinishedFold, numbers: BundleNumbers, files: dict[str, str], licence: str, trained_by: str
) -> Manifest:
    return Manifest(
        format=FORMAT,
        task=fold.task.name,
        labels=fold.task.labels,
        manufacturer="dicom-node",
        licence=licence,
        intended_use=INTENDED_USE,
        demonstration=fold.is_made_up,
        architecture=fold.config.architecture,
        architecture_arguments=fold.arguments,
        preprocessing=fold.parameters,
        temperature=fold.result.temperature,
        operating_points=(numbers.point,),
        evidence_enabled=numbers.map_is_shown,
        training_data_sha256=fold.dataset.sha256,
        split_sha256=fold.plan.sha256,
        metrics=numbers.metrics,
        files=files,
        localises=numbers.map_is_shown,
        classes=fold.task.classes if fold.task.outputs > 1 else (),
        trained_by=trained_by,
        localisation=None if numbers.localisation is None else numbers.localisation.verdict,
        subgroups=numbers.subgroups,
    )


def _release(task: Task, parameters: AnyParameters, name: str, version: str) -> Release:
    colours = ("red", "green", "blue")
    return Release(
        name=name,
        version=version,
        description=f"{task.title}. {INTENDED_USE}",
        authors="see the model card",
        copyright_notice="see the model card",
        changelog={version: "First release"},
        modality=task.modality,
        channels=colours if parameters.shape[0] == len(colours) else ("standardised P-values",),
        outputs=(task.classes[1],) if task.outputs == 1 else task.classes,
    )


def _split_file(fold: FinishedFold) -> bytes:
    """Return who was in which part, without names: images by digest, women and patients by number.

    Whoever has the files finds every image; nobody else learns who somebody is. What the starting weights
    knew goes along: the bundle may become a start itself, where nothing else is left of them.
    """
    plan = fold.plan
    digest = {record.image: record.digest for record in fold.dataset.records}
    number = {group: index for index, group in enumerate(dict.fromkeys(plan.groups.values()))}
    parts = plan.folds[fold.number].parts()
    content = {
        "format": 1,
        "protocol": plan.protocol,
        "seed": plan.seed,
        "plan_sha256": plan.sha256,
        "parts": {
            part: [[digest[image], number[plan.groups[image]]] for image in images]
            for part, images in parts.items()
        },
    }
    if fold.started_from:
        content[STARTED_FROM] = starting_weights.told(fold.started_from)
    return (json.dumps(content, sort_keys=True) + "\n").encode("ascii")

"""One call from labelled images to a run with its report, and with a name to a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

from training import data_manifest, evaluated_run
from training.errors import EvaluationError
from training.evaluation_report import columns_of, written
from training.material import Advance
from training.packable import way_to_bundle
from training.packaging import require_identity
from training.report_page import write_report
from training.run import run
from training.run_config import TrainingConfig
from training.run_folder import RunFolder
from training.run_maps import measure_maps
from training.run_packaging import package_run
from training.splits import BY_GROUP
from training.verdict import sentences


def train_and_report(
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool,
    name: str | None,
    version: str,
    trained_by: str,
    advance: Advance,
) -> tuple[str, ...]:
    """Train, evaluate and, where a name is given, make a bundle.

    Parameters
    ----------
    config : TrainingConfig
        What to train.
    out : Path
        The run's folder.
    resume : bool
        Whether to go on with what lies there.
    name, version : str
        Of the bundle; no name, no bundle.
    trained_by : str
        Who trains.
    advance : callable
        Told how far the run is.

    Returns
    -------
    tuple of str
        Sentences for the person who trains.

    Raises
    ------
    TrainingError
        If the bundle cannot have its name, the run is not allowed, see :func:`training.run.run`, or cannot be
        packed.
    """
    if name is not None:
        require_identity(name, version)
    folder = run(config, out, resume=resume, advance=advance, to_pack=name is not None)
    # A split image by image has seen its test images: what its maps point at says nothing.
    of_maps = _of_maps(folder, advance) if config.protocol == BY_GROUP else ()
    advance("measuring", 0, 1)
    measured = evaluated_run.of_folder(out)
    columns = columns_of([measured], seed=config.seed)
    told = [
        *measured.warnings,
        *sentences(columns[0].evaluation, leaks=bool(measured.warnings)),
        *of_maps,
        f"Report: {write_report(columns, folder.report)}",
    ]
    advance("measuring", 1, 1)
    if name is None:
        told.append(way_to_bundle(folder))
    else:
        # Where a run before this one was killed while it packed, half a bundle lies there.
        shutil.rmtree(folder.bundle, ignore_errors=True)
        built = package_run(out, name, version, trained_by=trained_by, advance=advance)
        told.append(f"Bundle: {built.path}, {built.digest}")
    return tuple(told)


def _of_maps(folder: RunFolder, advance: Advance) -> tuple[str, ...]:
    """Measure the maps where lesions were drawn, and say what was found."""
    if not any(record.lesions for record in data_manifest.read_manifest(folder.data).records):
        return ()
    try:
        found = measure_maps(folder.path, advance=advance)
    except EvaluationError as error:
        return (f"Maps were not measured: {error}",)
    shown = "better than" if found.is_better_than_random else "not shown to be better than"
    return (
        f"Maps point at a lesion in {written(found.found.pointing_game)} of {found.images} images with "
        f"lesions, and in every such image of {written(found.found.women)} of {found.women} women: {shown} "
        "chance, other women's lesions and random weights.",
    )

"""``dicom-node train``: from labelled images to a bundle, here or as a job of the ``train`` queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.cli import train_options
from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.output import console
from dicom_node.cli.wiring import load_settings, open_database, person

if TYPE_CHECKING:
    from training.run_config import TrainingConfig

app = typer.Typer(no_args_is_help=True, help="Training runs.")


@app.callback()
def main() -> None:
    """Training runs."""


@app.command("demonstration")
def demonstration(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the bundle; new or empty.", file_okay=False)
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of everything random in the run.")
    ] = 20260101,
    version: Annotated[
        str | None,
        typer.Option(
            "--version", help="The bundle's version.", show_default="1.0.0; +seed.SEED with another seed"
        ),
    ] = None,
    queue: train_options.Queue = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Train the demonstration network on phantoms.

    The same seed gives the same bytes.
    """
    if queue:
        order: dict[str, Any] = {"seed": seed}
        if version is not None:
            _require_identity("demonstration", version)
            order["version"] = version
        _queue("demonstration", order, data_dir, config)
        return
    folder = _given(out)
    from training.demonstration.build import run

    run(folder, seed=seed, version=version)


@app.command("run")
def run(
    file: train_options.OptionsFile = None,
    task: train_options.Task = None,
    data: train_options.Data = None,
    architecture: train_options.Architecture = None,
    mode: train_options.Mode = None,
    weights: train_options.Weights = None,
    sha256: train_options.WeightsDigest = None,
    protocol: train_options.Protocol = None,
    folds: train_options.Folds = None,
    epochs: train_options.Epochs = None,
    batch_size: train_options.BatchSize = None,
    learning_rate: train_options.LearningRate = None,
    imbalance: train_options.Imbalance = None,
    seed: train_options.Seed = None,
    device: train_options.Device = None,
    settings: train_options.Assignments = None,
    out: train_options.RunFolder = None,
    resume: train_options.Resume = False,
    name: train_options.Name = None,
    version: train_options.Version = "1.0.0",
    trained_by: train_options.TrainedBy = None,
    queue: train_options.Queue = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Train on labelled images.

    Gives a run folder with predictions and a report page, and with --name a bundle.
    """
    flags = {
        "task": task,
        "architecture": architecture,
        "mode": mode,
        "weights": weights,
        "weights_sha256": sha256,
        "protocol": protocol,
        "folds": folds,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "imbalance": imbalance,
        "seed": seed,
        "device": device,
        **train_options.data_set_of(data),
        **train_options.assignments_in(settings or []),
    }
    if file is None:
        train_options.require_enough(flags, is_placed=queue or out is not None)
    from training.run_config import load

    chosen, trainer = load(file, flags), trained_by or person()
    if queue:
        _queue("run", _order(chosen, name, version, trainer), data_dir, config)
    else:
        _train(chosen, _given(out), resume=resume, name=name, version=version, trainer=trainer)


def _train(
    chosen: TrainingConfig, folder: Path, *, resume: bool, name: str | None, version: str, trainer: str
) -> None:
    from training.train_and_report import train_and_report

    with _stages() as advance:
        told = train_and_report(
            chosen, folder, resume=resume, name=name, version=version, trained_by=trainer, advance=advance
        )
    for line in told:
        console.print(line, highlight=False)


@app.command("package")
def package(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", exists=True, file_okay=False)
    ],
    name: Annotated[str, typer.Option("--name", help="The bundle's name.")],
    version: train_options.Version = "1.0.0",
    fold: Annotated[int, typer.Option("--fold", min=0, help="The fold whose network is packed.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the bundle; RUN/bundle by default.", file_okay=False),
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Terms under which the bundle may be used.")
    ] = "not stated",
    trained_by: train_options.TrainedBy = None,
) -> None:
    """Make a bundle of one network of a finished run."""
    from training.run_packaging import package_run

    with _stages() as advance:
        built = package_run(
            run_folder,
            name,
            version,
            fold=fold,
            out=out,
            trained_by=trained_by or person(),
            licence=licence,
            advance=advance,
        )
    console.print(f"{built.path}: {built.digest}", highlight=False)


def _given(out: Path | None) -> Path:
    if out is None:
        raise typer.BadParameter("give --out FOLDER, or --queue to leave the run to a worker")
    return out


def _order(chosen: TrainingConfig, name: str | None, version: str, trained_by: str) -> dict[str, Any]:
    """Return a queued run's options: every one of them, with places that any process finds.

    One thread and no helpers: scoring shares the machine.
    """
    if name is None:
        raise typer.BadParameter("give --name: what a worker trains becomes a bundle")
    _require_identity(name, version)
    options = chosen.model_dump(mode="json", exclude_none=True) | {"threads": 1, "workers": 0}
    for place in ("data_folder", "weights", "cache"):
        if place in options:
            options[place] = str(Path(options[place]).absolute())
    assignments = [f"{option}={json.dumps(value)}" for option, value in sorted(options.items())]
    return {"set": assignments, "name": name, "version": version, "trained-by": trained_by}


def _require_identity(name: str, version: str) -> None:
    from training.packaging import require_identity

    require_identity(name, version)


def _queue(recipe: str, order: Mapping[str, Any], data_dir: Path | None, config: Path | None) -> None:
    from db import queueing

    with open_database(load_settings(data_dir, config)) as database, database.transaction(person()) as tx:
        job_id = queueing.queue_training(tx, recipe=recipe, order=order)
    console.print(f"Queued as job {job_id}; 'dicom-node job list --kind train' tells how it goes.")


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each stage that tells of itself."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done, total=total)

        yield advance

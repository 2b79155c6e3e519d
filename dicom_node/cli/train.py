"""``dicom-node train``: from labelled images to a bundle, here or as a job of the ``train`` queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.cli.options import ConfigFile, DataDir
from dicom_node.cli.output import console
from dicom_node.cli.wiring import load_settings, open_database, person

if TYPE_CHECKING:
    from training.run_config import TrainingConfig

app = typer.Typer(no_args_is_help=True, help="Training runs.")

Name = Annotated[
    str | None,
    typer.Option("--name", help="Make a bundle of this name at the end."),
]
TrainedBy = Annotated[
    str | None,
    typer.Option("--trained-by", help="Who answers for the training.", show_default="whoever runs this"),
]
Version = Annotated[str, typer.Option("--version", help="The bundle's version.")]
Queue = Annotated[
    bool, typer.Option("--queue", help="Leave the run to a worker; its bundle is added to the node.")
]


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
    queue: Queue = False,
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
    file: Annotated[
        Path | None,
        typer.Option("--from", help="TOML file of options; flags win.", exists=True, dir_okay=False),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="The clinical task, such as mammography_malignancy.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Labelled images, as READER:FOLDER.")] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="The network, such as resnet50.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option("--mode", help="scratch, features, finetune:K or adapt-bn.", show_default="scratch"),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights to start from.", exists=True, dir_okay=False)
    ] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="SHA-256 of --weights.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="by_group, or as_written: image by image.", show_default="by_group"),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", help="Folds of the cross-validation.", show_default="5")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Most epochs.", show_default="20")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Images in a step.", show_default="32")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Highest learning rate.", show_default="0.001")
    ] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            "--imbalance", help="none, weighted, sampler, focal or logit_adjustment.", show_default="none"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of everything random.", show_default="20260101")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda or auto.", show_default="auto")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any option of a run, as NAME=VALUE; NAME.KEY=VALUE for data_options and "
            "architecture_arguments. Repeatable.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run.", file_okay=False)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, to the same bytes.")
    ] = False,
    name: Name = None,
    version: Version = "1.0.0",
    trained_by: TrainedBy = None,
    queue: Queue = False,
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
        **_place(data),
        **_assignments(settings or []),
    }
    if file is None:
        _require_options(flags, is_placed=queue or out is not None)
    trainer = trained_by or person()
    from training.run_config import load

    chosen = load(file, flags)
    if queue:
        _queue("run", _order(chosen, name, version, trainer), data_dir, config)
        return
    folder = _given(out)
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
    version: Version = "1.0.0",
    fold: Annotated[int, typer.Option("--fold", min=0, help="The fold whose network is packed.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the bundle; RUN/bundle by default.", file_okay=False),
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Terms under which the bundle may be used.")
    ] = "not stated",
    trained_by: TrainedBy = None,
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


def _require_options(flags: Mapping[str, Any], *, is_placed: bool) -> None:
    """Name the options without which no run can begin, as they are typed."""
    needed = (
        ("task", "--task TASK"),
        ("data_set", "--data READER:FOLDER"),
        ("architecture", "--architecture NAME"),
    )
    lacking = [option for field, option in needed if flags.get(field) is None]
    if lacking:
        lacking += [] if is_placed else ["--out FOLDER"]
        raise typer.BadParameter(f"give {', '.join(lacking)}, or a TOML file of options by --from")


def _place(data: str | None) -> dict[str, Any]:
    if data is None:
        return {}
    reader, colon, folder = data.partition(":")
    if not (reader and colon and folder):
        raise typer.BadParameter("--data is READER:FOLDER, such as plain_csv:/data/mammograms")
    return {"data_set": reader, "data_folder": folder}


def _assignments(given: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` and ``NAME.KEY=VALUE``; a value is JSON where it can be, otherwise text."""
    values: dict[str, Any] = {}
    for assignment in given:
        path, equals, text = assignment.partition("=")
        name, dot, key = path.partition(".")
        if not (name and equals and bool(dot) == bool(key)):
            raise typer.BadParameter(f"--set is NAME=VALUE or NAME.KEY=VALUE, not {assignment!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if key:
            values.setdefault(name, {})[key] = value
        else:
            values[name] = value
    return values


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

"""What can be typed after ``dicom-node train``, and how it becomes the options of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

OptionsFile = Annotated[
    Path | None,
    typer.Option("--from", help="TOML file of options; flags win.", exists=True, dir_okay=False),
]
Task = Annotated[
    str | None, typer.Option("--task", help="The clinical task, such as mammography_malignancy.")
]
Data = Annotated[str | None, typer.Option("--data", help="Labelled images, as READER:FOLDER.")]
Architecture = Annotated[str | None, typer.Option("--architecture", help="The network, such as resnet50.")]
Mode = Annotated[
    str | None,
    typer.Option("--mode", help="scratch, features, finetune:K or adapt-bn.", show_default="scratch"),
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Weights to start from.", exists=True, dir_okay=False)
]
WeightsDigest = Annotated[str | None, typer.Option("--sha256", help="SHA-256 of --weights.")]
Protocol = Annotated[
    str | None,
    typer.Option("--protocol", help="by_group, or as_written: image by image.", show_default="by_group"),
]
Folds = Annotated[
    int | None, typer.Option("--folds", help="Folds of the cross-validation.", show_default="5")
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Most epochs.", show_default="20")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images in a step.", show_default="32")]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", help="Highest learning rate.", show_default="0.001")
]
Imbalance = Annotated[
    str | None,
    typer.Option(
        "--imbalance", help="none, weighted, sampler, focal or logit_adjustment.", show_default="none"
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed of everything random.", show_default="20260101")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.", show_default="auto")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any option of a run, as NAME=VALUE; NAME.KEY=VALUE for data_options and "
        "architecture_arguments. Repeatable.",
    ),
]
RunFolder = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", file_okay=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, to the same bytes.")]
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


def require_enough(flags: Mapping[str, Any], *, is_placed: bool) -> None:
    """Refuse flags with which no run can begin.

    Parameters
    ----------
    flags : Mapping
        Fields of a run's options; None where a flag was not given.
    is_placed : bool
        Whether it is known where the run is to lie.

    Raises
    ------
    typer.BadParameter
        If some are lacking; the message names them as they are typed.
    """
    needed = (
        ("task", "--task TASK"),
        ("data_set", "--data READER:FOLDER"),
        ("architecture", "--architecture NAME"),
    )
    lacking = [option for field, option in needed if flags.get(field) is None]
    if lacking:
        lacking += [] if is_placed else ["--out FOLDER"]
        raise typer.BadParameter(f"give {', '.join(lacking)}, or a TOML file of options by --from")


def data_set_of(data: str | None) -> dict[str, Any]:
    """Read ``READER:FOLDER`` as the options of a run that it stands for.

    Raises
    ------
    typer.BadParameter
        If it is something else.
    """
    if data is None:
        return {}
    reader, colon, folder = data.partition(":")
    if not (reader and colon and folder):
        raise typer.BadParameter("--data is READER:FOLDER, such as plain_csv:/data/mammograms")
    return {"data_set": reader, "data_folder": folder}


def assignments_in(given: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` and ``NAME.KEY=VALUE``; a value is JSON where it can be, otherwise text.

    Raises
    ------
    typer.BadParameter
        If one is neither.
    """
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

"""What a training run is asked for: from a TOML file, then from flags, checked before anything is read."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from models.architectures import architecture_names
from models.errors import ModelsError
from models.tasks import task_named
from training.augmentation import Augmentation
from training.errors import TrainingConfigError
from training.imbalance import Imbalance
from training.modes import parse_mode

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SAID = {"missing": "must be given"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _known_task(name: str) -> str:
    try:
        task_named(name)
    except ModelsError as error:
        raise ValueError(str(error)) from error
    return name


def _known_mode(mode: str) -> str:
    try:
        return str(parse_mode(mode))
    except TrainingConfigError as error:
        raise ValueError(str(error)) from error


def _known_architecture(name: str) -> str:
    if name not in architecture_names():
        raise ValueError(f"there is no architecture {name!r}; there are: {', '.join(architecture_names())}")
    return name


class TrainingConfig(BaseModel):
    """Everything that decides what a training run gives; its run folder keeps all of it.

    Two runs with equal values on the same kind of processor give the same bytes; `workers`, `cache` and
    `tensorboard` change nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Annotated[str, BeforeValidator(_known_task)] = Field(description="Name of the task.")
    data_set: str = Field(min_length=1, description="Name of the data set's reader.")
    data_folder: Path = Field(description="Folder of the data set.")
    data_options: Mapping[str, Any] = Field(default={}, description="Options of the reader.")

    leave_out_unusable: bool = Field(
        default=False, description="Go on without images that cannot be prepared, and count them."
    )

    architecture: Annotated[str, BeforeValidator(_known_architecture)] = Field(
        description="Name of the network."
    )
    architecture_arguments: Mapping[str, Any] = Field(
        default={}, description="Arguments of the network; outputs and channels follow from task and data."
    )
    mode: Annotated[str, BeforeValidator(_known_mode)] = Field(
        default="scratch", description="What is trained: scratch, features, finetune:K or adapt-bn."
    )
    weights: Path | None = Field(default=None, description="Published weights to start from.")
    weights_sha256: str | None = Field(default=None, description="Their SHA-256 digest.")

    rows: int = Field(default=384, ge=8, le=4096, description="Rows of the network's grid.")
    columns: int = Field(default=256, ge=8, le=4096, description="Columns of the network's grid.")
    pixel_mm: float = Field(
        default=0.6, gt=0, le=10, description="Side of a cell in millimetres; whole breasts alone."
    )

    protocol: Literal["by_group", "as_written"] = Field(
        default="by_group",
        description="How images are split: by woman or patient, or image by image as the sources did.",
    )
    copies: int = Field(
        default=1,
        ge=1,
        le=8,
        description="Flipped and turned copies of each image made before the split; as_written alone.",
    )
    folds: int = Field(default=5, ge=1, le=20, description="Folds of the cross-validation; 1 splits once.")
    official_test: bool = Field(
        default=False, description="Test on the part that the data set itself keeps for it; needs 1 fold."
    )
    run_folds: int | None = Field(default=None, ge=1, description="How many of the folds are run; all.")
    validation_share: float = Field(
        default=0.2, gt=0, le=0.5, description="Share of the rest of a fold that stops and calibrates."
    )

    epochs: int = Field(default=20, ge=1, le=10000, description="Most epochs.")
    batch_size: int = Field(default=32, ge=2, le=4096, description="Images in a step.")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="Highest learning rate.")
    warm_up: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps in which the rate rises; then a cosine."
    )
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="AdamW's, on weights alone.")
    average: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights, which is what is kept; 0 for none.",
    )
    patience: int = Field(
        default=10, ge=1, description="Epochs without a better validation score before it stops."
    )
    stop_on: Literal["log_loss", "auc"] = Field(
        default="log_loss", description="The validation score that decides which epoch is kept."
    )
    imbalance: Imbalance = Field(default=Imbalance.NONE, description="What is done about rare classes.")
    augmentation: float = Field(
        default=Augmentation.DEFAULT, ge=0, le=1, description="Strength of augmentation; 0 for none."
    )

    specificity: float = Field(
        default=0.90, gt=0, lt=1, description="Target of the operating point, on validation cases."
    )
    sensitivity: float = Field(
        default=0.80, gt=0, lt=1, description="Second target of the operating point, where it can be met."
    )

    seed: int = Field(default=20260101, ge=0, lt=2**32, description="Of everything random.")
    device: Literal["cpu", "cuda", "auto"] = Field(
        default="auto", description="Where the network is trained."
    )
    mixed_precision: bool = Field(default=True, description="bfloat16 where a GPU has it; never on the CPU.")
    threads: int = Field(default=1, ge=1, le=256, description="Torch's threads; other numbers, other bytes.")
    workers: int = Field(default=0, ge=0, le=64, description="Processes that prepare batches.")
    cache: Path | None = Field(
        default=None, description="Folder for prepared images, shared between runs; by default the run's."
    )
    tensorboard: bool = Field(default=False, description="Also write TensorBoard's files.")

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingConfig:
        if (self.weights is None) != (self.weights_sha256 is None):
            raise ValueError(
                "weights and weights_sha256 go together: give --weights and --sha256, or neither"
            )
        if self.weights_sha256 is not None and not _SHA256.fullmatch(self.weights_sha256):
            raise ValueError("weights_sha256 must be 64 hexadecimal digits in lower case; see sha256sum")
        if self.copies > 1 and self.protocol != "as_written":
            raise ValueError(
                "copies are made before the split as the sources did: give --protocol as_written"
            )
        if self.run_folds is not None and self.run_folds > self.folds:
            raise ValueError(f"run_folds is {self.run_folds}, but there are {self.folds} folds")
        if self.official_test and self.folds != 1:
            raise ValueError("official_test needs folds = 1: an official test part is one split")
        if self.mode in ("features", "adapt-bn") and self.weights is None:
            raise ValueError(f"mode {self.mode} trains no base: give the --weights that it rests on")
        return self

    @property
    def trained_folds(self) -> range:
        """Numbers of the folds of which a network is trained: all of them, or the first `run_folds`."""
        return range(self.run_folds or self.folds)

    @property
    def result_options(self) -> dict[str, Any]:
        """Every option that decides bytes, as JSON values."""
        return self.model_dump(mode="json", exclude={"workers", "cache", "tensorboard"})


def load(file: Path | None, flags: Mapping[str, Any]) -> TrainingConfig:
    """Read a run's options from a TOML file, where one is given, and flags, which win.

    Parameters
    ----------
    file : Path or None
        Its keys are the fields of :class:`TrainingConfig`.
    flags : Mapping
        Fields from the command line; None where a flag was not given.

    Raises
    ------
    TrainingConfigError
        If the file cannot be read, or an option is unknown, missing or out of its range.
    """
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingConfigError(f"{file} cannot be read: {error}.") from error
        except tomllib.TOMLDecodeError as error:
            raise TrainingConfigError(f"{file} is not TOML: {error}.") from error
    given |= {name: value for name, value in flags.items() if value is not None}
    return checked(given)


def checked(values: Mapping[str, Any]) -> TrainingConfig:
    """Return the options, or say everything that is wrong with them at once.

    Raises
    ------
    TrainingConfigError
        If an option is unknown, missing or out of its range.
    """
    try:
        return TrainingConfig.model_validate(dict(values))
    except ValidationError as error:
        problems = [_told(fault) for fault in error.errors(include_url=False, include_context=False)]
        raise TrainingConfigError("The run cannot start: " + "; ".join(problems) + ".") from error


def _told(fault: ErrorDetails) -> str:
    """Say what is wrong with one option, or how several do not fit together."""
    option = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(option, TrainingConfig.model_fields, n=1, cutoff=0.8)
        return f"{option}: there is no such option" + (f" (did you mean {near[0]}?)" if near else "")
    said = _SAID.get(fault["type"], fault["msg"].removeprefix("Value error, ")).rstrip(".")
    return f"{option}: {said}" if option else said

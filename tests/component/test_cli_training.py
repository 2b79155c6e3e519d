"""``dicom-node train``: one command from labelled images to a report and a bundle that the node takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from db.audit.keys import AuditKey, CheckpointKey
from dicom_node.cli.exit_codes import ExitCode, exit_code_of
from dicom_node.cli.main import app
from models.bundle import read
from tests.made_up_mammograms import draw_mammograms
from training.errors import TrainingConfigError, TrainingError
from training.run_config import TrainingConfig, checked

OPTIONS = """
task = "mammography_malignancy"
architecture = "cnn3"
rows = 48
columns = 32
pixel_mm = 2.0
folds = 2
epochs = 9
batch_size = 8
validation_share = 0.5
specificity = 0.5
device = "cpu"
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mammograms(tmp_path_factory.mktemp("mammograms"), women=64)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with this version's tables and keys."""
    folder = tmp_path / "data"
    assert CliRunner().invoke(app, ["db", "upgrade", "--data-dir", str(folder)]).exit_code == 0
    AuditKey.load_or_create(folder / "keys" / "audit.key")
    CheckpointKey.load_or_create(folder / "keys" / "checkpoint.key")
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(OPTIONS)
    return path


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_one_command_gives_predictions_a_report_a_verdict_and_a_bundle(
    images: Path, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    data = ("--data", f"plain_csv:{images}", "--epochs", 2, "--set", "architecture_arguments.head=gap")
    done = train("run", "--from", file, *data, "--out", out, "--name", "ours", "--trained-by", "anna")
    assert done.exit_code == 0, done.output
    assert "AUC" in done.output
    assert "chance" in done.output
    assert (out / "predictions.csv").is_file()
    assert "<html" in (out / "report" / "index.html").read_text()
    bundle = read(out / "bundle")
    assert bundle.digest in done.output
    assert (bundle.identity.name, bundle.manifest.trained_by) == ("ours", "anna")
    assert json.loads((out / "run.json").read_text())["options"]["epochs"] == 2, "flags win over the file"

    without = train("run", "--from", file, *data, "--out", out, "--resume")
    assert without.exit_code == 0, without.output
    assert f"train package {out} --name NAME" in without.output.replace("\n", "")

    again = train("package", out, "--name", "other", "--fold", 1, "--out", tmp_path / "other")
    assert again.exit_code == 0, again.output
    other = read(tmp_path / "other")
    assert "fold 1 of 2" in other.card
    assert other.manifest.files["weights.safetensors"] != bundle.manifest.files["weights.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --out FOLDER, or --queue"),
        (("--data", "nowhere"), "READER:FOLDER"),
        (("--set", "epochs"), "NAME=VALUE"),
        (("--set", "architecture_arguments.=gap"), "NAME=VALUE or NAME.KEY=VALUE"),
        (("--queue",), "give --name"),
    ],
)
def test_a_command_that_says_too_little_is_a_usage_error(
    arguments: tuple[str, ...], said: str, images: Path, file: Path
) -> None:
    given = ("--data", f"plain_csv:{images}") if "--data" not in arguments else ()
    done = train("run", "--from", file, *given, *arguments)
    assert done.exit_code == 2
    assert said in done.output.replace("\n", " ").replace("│", " ").replace("  ", " ")


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ((), "give --task TASK, --data READER:FOLDER, --architecture NAME, --out FOLDER, or a TOML file"),
        (("--queue", "--task", "idc"), "give --data READER:FOLDER, --architecture NAME, or a TOML file"),
        (("--set", "task=idc", "--data", "plain_csv:x", "--out", "run"), "give --architecture NAME, or"),
    ],
)
def test_what_a_run_lacks_is_named_as_it_is_typed(given: tuple[str, ...], lacking: str) -> None:
    done = train("run", *given)
    assert done.exit_code == 2
    assert lacking in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    "option",
    ["mode", "protocol", "folds", "epochs", "batch_size", "learning_rate", "imbalance", "seed", "device"],
)
def test_the_help_names_the_default_that_a_run_has(option: str) -> None:
    shown = " ".join(train("run", "--help").output.split())
    of_option, _, _ = shown.partition(f" --{option.replace('_', '-')} <")[2].partition(" --")
    assert of_option.endswith(f"[default: ({TrainingConfig.model_fields[option].default})]")


@pytest.mark.parametrize("where", [(), ("--queue",)])
def test_a_name_that_no_bundle_can_have_is_told_before_training(
    where: tuple[str, ...], images: Path, file: Path, data_dir: Path, tmp_path: Path
) -> None:
    data = ("--data", f"plain_csv:{images}", "--out", tmp_path / "run", "--data-dir", data_dir)
    done = train("run", "--from", file, *data, *where, "--name", "Brüste")
    assert isinstance(done.exception, TrainingError)
    assert "--name must be printable ASCII text" in str(done.exception)
    assert not (tmp_path / "run").exists()
    jobs = CliRunner().invoke(app, ["job", "list", "--json", "--data-dir", str(data_dir)])
    assert json.loads(jobs.output) == []


def test_wrong_options_are_told_before_anything_is_written(images: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = train("run", "--from", file, "--data", f"plain_csv:{images}", "--set", "colour=red", "--out", out)
    assert isinstance(done.exception, TrainingConfigError)
    assert "colour" in str(done.exception)
    assert exit_code_of(done.exception) == ExitCode.USAGE
    assert not out.exists()


@pytest.mark.parametrize("wrong", [("--mode", "sideways"), ("--task", "palmistry")])
def test_what_is_unknown_is_told_in_one_sentence(
    wrong: tuple[str, str], images: Path, file: Path, tmp_path: Path
) -> None:
    done = train("run", "--from", file, "--data", f"plain_csv:{images}", *wrong, "--out", tmp_path / "run")
    assert repr(wrong[1]) in str(done.exception)
    assert str(done.exception).endswith(".")
    assert ".." not in str(done.exception)


def test_a_folder_that_is_no_data_set_is_told(file: Path, tmp_path: Path) -> None:
    done = train("run", "--from", file, "--data", f"plain_csv:{tmp_path}", "--out", tmp_path / "run")
    assert isinstance(done.exception, TrainingError)
    assert "labels.csv" in str(done.exception)


def test_a_queued_run_carries_every_option_and_leaves_the_machine_to_scoring(
    images: Path, file: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from db.jobs import claim
    from db.lifecycle import JobKind
    from dicom_node.cli.wiring import load_settings, open_database

    monkeypatch.chdir(images.parent)
    place = ("--data", f"plain_csv:{images.name}", "--set", "threads=8", "--set", "workers=4")
    done = train("run", "--from", file, *place, "--queue", "--name", "ours", "--data-dir", data_dir)
    assert done.exit_code == 0, done.output
    with (
        open_database(load_settings(data_dir, None)) as database,
        database.transaction("train@host:1") as tx,
    ):
        claimed = claim(tx, JobKind.TRAIN, lease_s=30, max_attempts=1)
    assert claimed is not None
    order = json.loads(claimed.order)
    given = {}
    for assignment in order["set"]:
        name, _, value = assignment.partition("=")
        given[name] = json.loads(value)
    config = checked(given)
    assert (claimed.task, order["name"], config.epochs) == ("run", "ours", 9)
    assert config.data_folder == images, "a worker runs elsewhere: the place is absolute"
    assert (config.threads, config.workers) == (1, 0)

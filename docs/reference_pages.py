"""The reference pages that follow from the code.

What a page says beyond its tables stands here; what the tables say stands in the code alone.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from db import lifecycle, listing
from db.audit.exports import ExportReport
from db.audit.reading import AuditRow
from db.audit.verification import VerifyReport
from dicom_node import crashpoints
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.health.findings import Finding
from dicom_node.cli.main import app
from dicom_node.cli.processes.metrics import METRICS
from dicom_node.delivery.default_syntax import DEFAULT_TRANSFER_SYNTAX
from dicom_node.delivery.status import STATUS_TABLE
from dicom_node.listener import status as listener_status
from dicom_node.listener.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from dicom_node.listener.quarantine import QuarantinedObject
from dicom_node.results.encoding import TRANSFER_SYNTAX_UID
from training import reader_reports
from training.datasets import readers
from workers.exit_statuses import WorkerExit
from workers.stored_files import UnsoundFile

HELP_WIDTH = "100"
_COMMENTED = re.compile(r"^\s+\"?(?P<name>[\w.]+)\"?(?: = .*?)?,?  # (?P<comment>.+)$", re.MULTILINE)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def comments(source: str) -> dict[str, str]:
    """Return the comment at the end of each member's line, by the member's name."""
    return {found["name"]: found["comment"] for found in _COMMENTED.finditer(source)}


def code(value: object) -> str:
    """Return a value as inline code."""
    return f"`{value}`"


def cli() -> str:
    """Return every command's help."""
    parts = [
        "# Command line",
        "Every command finds the node by `--data-dir`, by a configuration file or by the environment; see "
        "[settings](settings.md). What ends with which status: [exit statuses](exit-statuses.md). The rows "
        "of `--json`: [JSON rows](json-rows.md).",
    ]
    for path in command_paths():
        title = " ".join(("dicom-node", *path))
        parts += [f"## {title}", f"```text\n{help_of(path)}\n```"]
    return "\n\n".join(parts)


def command_paths() -> list[tuple[str, ...]]:
    """Return the path of every command and group, such as ``("audit", "verify")``; ``()`` is the program."""
    paths: list[tuple[str, ...]] = [()]

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            paths.append((*path, name))
            walk(inner, (*path, name))

    walk(get_command(app), ())
    return paths


def help_of(path: Sequence[str]) -> str:
    """Return what ``--help`` prints."""
    environment = {"COLUMNS": HELP_WIDTH, "DICOM_NODE_CONFIG": None}
    result = CliRunner().invoke(app, [*path, "--help"], prog_name="dicom-node", env=environment)
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def training_options() -> str:
    """Return every option of a training run."""
    from training.run_config import TrainingConfig  # needs torch, which the other pages do without

    rows = []
    for name, field in TrainingConfig.model_fields.items():
        default = field.default
        shown = "must be given" if field.is_required() else code("none" if default in (None, {}) else default)
        rows.append((code(name), shown, field.description or ""))
    return "\n\n".join(
        [
            "# Options of a training run",
            "Keys of the TOML file that `dicom-node train run --from` takes. Those with a flag of their own "
            "can be given by it, every one by `--set NAME=VALUE`; flags win. `data_options` and "
            "`architecture_arguments` are tables: `--set data_options.mode=regions`. Readers have the "
            "options of [data sets](data-sets.md), architectures the arguments of [networks](networks.md).",
            table(("option", "default", "meaning"), rows),
        ]
    )


def exit_statuses() -> str:
    """Return the exit statuses."""
    meanings = comments(inspect.getsource(ExitCode))
    worker_meanings = comments(inspect.getsource(WorkerExit))
    return "\n\n".join(
        [
            "# Exit statuses",
            "A promise to scripts. What went wrong is one line on standard error, with what to do next.",
            table(
                ("status", "name", "meaning"),
                [(str(int(m)), code(m.name), meanings[m.name]) for m in ExitCode],
            ),
            "With these a worker ends itself, to be started again by `serve` or whatever runs it "
            "([why](../explanation/jobs.md#the-queue-is-a-table)):",
            table(
                ("status", "name", "meaning"),
                [(str(int(m)), code(m.name), worker_meanings[m.name]) for m in WorkerExit],
            ),
        ]
    )


def dicom() -> str:
    """Return what is accepted and what is answered."""
    meanings = comments(inspect.getsource(listener_status.Status))
    return "\n\n".join(
        [
            "# DICOM: what is accepted, what is answered",
            "## As storage SCP\nThe node accepts each of these SOP classes in each of these transfer "
            f"syntaxes, and Verification (`{VERIFICATION}`) in the uncompressed ones. Data sets are stored "
            "as received. Deflated syntaxes are not offered.",
            table(("SOP class", "UID"), [(c.name, code(c.uid)) for c in STORAGE_CLASSES]),
            table(
                ("transfer syntax", "UID", "encapsulated"),
                [(s.name, code(s.uid), "yes" if s.is_encapsulated else "no") for s in TRANSFER_SYNTAXES],
            ),
            "### Statuses of the C-STORE response",
            table(
                ("status", "name", "meaning"),
                [(f"`{s:04X}`", s.name, meanings[s.name]) for s in listener_status.Status],
            ),
            "With `A900` and `C000` the Error Comment (0000,0902) says what is wrong with the object.",
            f"## As storage SCU\nResults are sent in {_syntax_name(TRANSFER_SYNTAX_UID)}, where a profile "
            f"does not compress them, and in {_syntax_name(DEFAULT_TRANSFER_SYNTAX)} where the destination "
            "takes that alone. Which SOP classes a destination is offered follows from its profile ([the "
            "table](conformance.md#sending)). `doctor` asks by Verification. What the destination's status "
            "means for the object:",
            table(
                ("status", "meaning", "the object is", "stored with a warning"),
                [
                    (
                        f"`{r.first:04X}`" if r.first == r.last else f"`{r.first:04X}` to `{r.last:04X}`",
                        r.meaning,
                        r.state.value.replace("_", " "),
                        "yes" if r.is_warning else "",
                    )
                    for r in STATUS_TABLE
                ],
            ),
            "The first row that holds a status decides. One that refuses the object is heard "
            "`delivery.refused_tries` times until it is believed ([how](../how-to/delivery-fails.md"
            "#the-pacs-refuses-an-object)).",
        ]
    )


ROWS: Mapping[str, Callable[..., Any]] = {
    "study list --json": listing.studies,
    "job list --json": listing.jobs,
    "result list --json": listing.results,
    "model list --json": listing.bundles,
    "study show --json`, key `instances": listing.instances,
}


RECORDS: Mapping[str, type[Any]] = {
    "audit query --json": AuditRow,
    "doctor --json": Finding,
    "quarantine list --json": QuarantinedObject,
    "study verify --json": UnsoundFile,
}


def _syntax_name(uid: str) -> str:
    return next(syntax.name for syntax in TRANSFER_SYNTAXES if syntax.uid == uid)


def json_rows() -> str:
    """Return the keys of every listing."""
    sections = [f"## `{command}`\n" + _bullets(row_keys(source)) for command, source in ROWS.items()]
    sections += [
        f"## `{command}`\n" + _bullets([field.name for field in fields(row)])
        for command, row in RECORDS.items()
    ]
    verified = ["ok", *(field.name for field in fields(VerifyReport)), "events_after_newest_checkpoint"]
    return "\n\n".join(
        [
            "# JSON rows",
            "`--json` prints one document: a list of rows, newest first (`audit query` and `quarantine "
            "list`: oldest first). Keys are not removed or renamed without a new major version; new ones may "
            "come. Times are ISO 8601 with their zone.",
            *sections,
            "## `audit verify --json`\nOne object: " + _bullets(verified),
            "## `audit verify-export --json`\nOne object: "
            + _bullets(["ok", *(field.name for field in fields(ExportReport))]),
        ]
    )


def row_keys(function: Callable[..., Any]) -> list[str]:
    """Return the keys of the rows that a function of :mod:`db.listing` makes."""
    tree = ast.parse(inspect.getsource(function))
    rows = [n.elt for n in ast.walk(tree) if isinstance(n, ast.ListComp) and isinstance(n.elt, ast.Dict)]
    (row,) = rows
    return [str(ast.literal_eval(key)) for key in row.keys if key is not None]


def _bullets(words: Iterable[str]) -> str:
    return ", ".join(map(code, words))


def states() -> str:
    """Return the states and their transitions."""
    sections = [
        _machine("Study revision", lifecycle.RevisionState, lifecycle.REVISION_TRANSITIONS),
        "Why a revision was judged complete:\n\n" + _members(lifecycle.CompletionReason),
        _machine("Job", lifecycle.JobState, lifecycle.JOB_TRANSITIONS),
        _machine(
            "Delivery of one object to one destination",
            lifecycle.DeliveryState,
            lifecycle.DELIVERY_TRANSITIONS,
        ),
    ]
    opening = (
        "# States\n\nWhat a table does not hold is refused, by `db/lifecycle.py` and by the database's own "
        "constraints."
    )
    return "\n\n".join([opening, *sections])


def _machine(title: str, kind: type[Enum], transitions: Mapping[tuple[Any, Any], Any]) -> str:
    rows = [(code(s.value), code(e.value), code(after.value)) for (s, e), after in transitions.items()]
    return f"## {title}\n\n{_members(kind)}\n\n{table(('state', 'event', 'next state'), rows)}"


def _members(kind: type[Enum]) -> str:
    meanings = comments(inspect.getsource(kind))
    return table(("state" if "State" in kind.__name__ else "reason", "what is true then"),
                 [(code(m.value), meanings[m.name]) for m in kind])  # fmt: skip


# Where the name alone does not tell; the first points are explained beside their names in the code.
LATER_POINTS: dict[str, str] = {
    "dispatcher.completed": "quiet studies are complete and their jobs queued, in one commit",
    "dispatcher.before_publish": "jobs are noted as rung for; no message is sent",
    "dispatcher.published": "one message is sent",
    "score.claimed": "the lease is committed; nothing is done",
    "score.decoded": "the images are read",
    "score.predicted": "the prediction is in memory",
    "score.files_written": "the result files are durable; no row names them",
    "score.committed": "outcome, result objects and deliver jobs are committed",
    "deliver.claimed": "the lease is committed; no association is open",
    "deliver.object_sent": "one answer came; it is not recorded",
    "deliver.all_sent": "every answer is recorded; the job is not ended",
    "deliver.committed": "the job is ended",
    "commit.claimed": "the lease is committed; nothing is asked or looked into",
    "commit.committed": "the job is ended",
    "train.claimed": "the lease is committed; the run is not started",
    "train.committed": "the bundle is added and the job is ended",
}


def crash_points() -> str:
    """Return where tests make a process die."""
    meanings = comments(inspect.getsource(crashpoints)) | LATER_POINTS
    rows = [(code(name), meanings[name]) for name in crashpoints.CRASHPOINTS]
    return "\n\n".join(
        [
            "# Crash points",
            f"For tests alone. `{crashpoints.VARIABLE}=NAME[:PASSAGE][@/MARKER]` makes a process kill "
            "itself at the named place, at its n-th passage, and with a marker file only once. Several "
            "are separated by commas. In production nothing is set. In the order in which a study "
            "passes them:",
            table(("name", "what is true there"), rows),
        ]
    )


def metrics() -> str:
    """Return what is told to Prometheus."""
    rows = [
        (code(name), each.measure.value, ", ".join(map(code, each.labels)), each.meaning)
        for name, each in METRICS.items()
    ]
    return "\n\n".join(
        [
            "# Metrics",
            "What `dicom-node metrics` tells Prometheus ([how to use it](../how-to/monitor.md)). Kinds of "
            "jobs and their states: [states](states.md).",
            table(("metric", "type", "labels", "what it tells"), rows),
        ]
    )


def data_sets() -> str:
    """Return the page of the data sets that training reads."""
    parts = [
        "# Data sets",
        "What `dicom-node train` and `training.datasets.read` take: a reader's name and a folder as its "
        "owner has it on disk. Nothing is written there. A reader goes through every row and file before "
        "it gives up: one message lists what to correct, with its row or file, the first 20 and the number "
        "of the others, and nothing of a patient. Paths that lead out of the folder are refused.",
        "Every image becomes a record: its file and digest, the woman or patient it belongs to, its classes, "
        "side, view, spacing, marked lesions and subgroups. `data.json` in the folder of a run keeps them.",
        "An option is given as `--set data_options.NAME=VALUE`.",
    ]
    for name, reader in readers().items():
        about = inspect.getdoc(inspect.getmodule(reader.load)) or ""
        parts += [f"## {name}", about, f"The folder holds: {reader.layout}"]
        if reader.options:
            rows = [
                (f"`{option}`", _default(what.default), what.meaning + _choices(what.choices))
                for option, what in reader.options.items()
            ]
            parts.append(table(["option", "default", "meaning"], rows))
    parts += ["## Reports of readers", inspect.getdoc(reader_reports) or ""]
    return "\n\n".join(part.replace("``", "`") for part in parts)


def _default(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else ""


def _choices(choices: Sequence[str]) -> str:
    return f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""


PAGES: Mapping[str, Callable[[], str]] = {
    "command-line.md": cli,
    "training-options.md": training_options,
    "exit-statuses.md": exit_statuses,
    "dicom.md": dicom,
    "data-sets.md": data_sets,
    "json-rows.md": json_rows,
    "states.md": states,
    "crash-points.md": crash_points,
    "metrics.md": metrics,
}

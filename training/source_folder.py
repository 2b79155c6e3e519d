"""Reading folders that somebody else laid out: every fault is collected, and nothing outside is opened.

A reader goes through all rows and files before it gives up, so that its user mends a folder in one go.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataSetError

SHOWN_PROBLEMS = 20
_BLOCK = 1 << 20


class Problems:
    """What is wrong with a data set, each with the row or file concerned.

    Parameters
    ----------
    source : str
        The data set's name, for the message.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: list[str] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, where: str, what: str) -> None:
        """Remember one problem: `where` names a row or a file, `what` says what is wrong and expected."""
        self._found.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """Raise what was collected.

        Raises
        ------
        DataSetError
            With the first :data:`SHOWN_PROBLEMS` problems and the number of the others.
        """
        if not self._found:
            return
        shown = self._found[:SHOWN_PROBLEMS]
        rest = len(self._found) - len(shown)
        lines = [
            f"{self._source}: {len(self._found)} problem{'s' * (len(self._found) > 1)}; correct:",
            *shown,
        ]
        if rest:
            lines.append(f"... and {rest} more")
        raise DataSetError("\n  ".join(lines))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: where it stands, and its values by column, without spaces around them."""

    where: str
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def get(self, column: str) -> str:
        """The value, empty where the table has no such column."""
        return self.values.get(column, "")


def table(path: Path, columns: Iterable[str], problems: Problems) -> Iterator[Row]:
    """Read a CSV table with a header; every row with another number of values is a problem.

    Parameters
    ----------
    path : Path
        UTF-8, with or without byte order mark; separated by commas.
    columns : iterable of str
        Columns that must be there, lower case. Others are read too. Names are compared in lower case.
    problems : Problems
        Where faults go.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [name.strip().lower() for name in next(lines, [])]
            if missing := [column for column in columns if column not in header]:
                problems.add(path.name, f"the header lacks {', '.join(missing)}")
                return
            for values in lines:
                where = f"{path.name} line {lines.line_num}"
                if not values:
                    continue
                if len(values) != len(header):
                    problems.add(where, f"has {len(values)} values, the header {len(header)}")
                    continue
                yield Row(where, dict(zip(header, (value.strip() for value in values), strict=True)))
    except FileNotFoundError:
        problems.add(path.name, "is missing")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.add(path.name, f"cannot be read as a UTF-8 table ({type(error).__name__})")


def confined(folder: Path, relative: str, where: str, problems: Problems) -> Path | None:
    """Return the file that a row names, or None after telling why not.

    Absolute paths, ``..`` and symbolic links are followed only as long as they end within `folder`.

    Parameters
    ----------
    folder : Path
        The data set's.
    relative : str
        What the row says.
    where : str
        The row, for the message. The path itself is never shown: it may name a patient.
    problems : Problems
        Where faults go.
    """
    if not relative or "\0" in relative:
        problems.add(where, "names no file")
        return None
    root = folder.resolve()
    try:
        path = (root / relative).resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError):
        problems.add(where, "names a file that cannot be reached")
        return None
    if not path.is_relative_to(root):
        problems.add(where, "names a file outside the data set's folder")
        return None
    if not is_file:
        problems.add(where, "names a file that is not there")
        return None
    return path


def one_of(value: str, choices: Sequence[str], column: str, where: str, problems: Problems) -> str | None:
    """Return `value` if it is among `choices`, or None after telling what is allowed."""
    if value in choices:
        return value
    problems.add(where, f"{column} must be one of {', '.join(choices)}")
    return None


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()

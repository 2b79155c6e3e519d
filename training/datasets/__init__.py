"""The readers of data sets: one file each, with one frozen ``DATASET``.

A reader turns a folder as its owner has it on disk into :class:`~training.records.Record` values. It judges
every row and file and raises all problems at once. Adding a file here adds a data set; modules without a
``DATASET`` are parts of readers.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training.errors import DataSetError
from training.records import DataSet, Record
from training.source_folder import Problems, sha256_of

Value = str | int | float | bool
Advance = Callable[[int, int], None]
"""Called with the number of steps done and of all steps."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that a reader can be asked for.

    Attributes
    ----------
    default : str, int, float or bool
        What holds where nobody asks; its type is the option's.
    meaning : str
        One sentence.
    choices : tuple of str
        What a text may be; empty for any text.
    """

    default: Value
    meaning: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSetReader:
    """How one kind of folder becomes labelled images.

    Attributes
    ----------
    name : str
        Stable name, as commands take it.
    title : str
        For people.
    layout : str
        What the folder must hold, in a sentence or two.
    load : callable
        ``load(folder, options, problems) -> DataSet``: records without digests, in a fixed order. What is
        wrong goes into `problems`.
    options : Mapping of str to Option
        What can be asked for; `load` gets a value for each.
    """

    name: str
    title: str
    layout: str
    load: Callable[[Path, Mapping[str, Any], Problems], DataSet]
    options: Mapping[str, Option] = field(default_factory=lambda: MappingProxyType({}))


@cache
def readers() -> Mapping[str, DataSetReader]:
    """All readers by name, sorted.

    Raises
    ------
    DataSetError
        If two files have a reader of the same name.
    """
    found: dict[str, DataSetReader] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        reader = getattr(importlib.import_module(f"{__name__}.{module}"), "DATASET", None)
        if not isinstance(reader, DataSetReader):
            continue
        if reader.name in found:
            raise DataSetError(f"training.datasets.{module}: the name {reader.name!r} is taken; use another.")
        found[reader.name] = reader
    return MappingProxyType(dict(sorted(found.items())))


def names() -> tuple[str, ...]:
    """Names of all readers, sorted."""
    return tuple(readers())


def read(name: str, folder: Path, advance: Advance | None = None, **options: Value) -> DataSet:
    """Read a folder of labelled images, check it, and take the digest of every file.

    Parameters
    ----------
    name : str
        The reader.
    folder : Path
        What its owner has on disk; nothing is written there.
    advance : callable, optional
        Called with the number of files whose digest was taken, and of all files.
    **options
        The reader's own. A text is turned into the option's type, as a command line gives it.

    Raises
    ------
    DataSetError
        If there is no such reader or option, or anything is wrong with the folder: all of it at once.
    """
    if name not in readers():
        raise DataSetError(f"No data set is called {name!r}; there are: {', '.join(names())}.")
    reader = readers()[name]
    chosen = _chosen(reader, options)
    if not folder.is_dir():
        raise DataSetError(f"{name}: the folder is not there. It must hold: {reader.layout}")
    problems = Problems(name)
    data_set = reader.load(folder, chosen, problems)
    _check(data_set.records, problems)
    problems.raise_if_any()
    if not data_set.records:
        raise DataSetError(f"{name}: the folder holds no labelled image. It must hold: {reader.layout}")
    return replace(data_set, records=_with_digests(name, data_set.records, advance))


def _chosen(reader: DataSetReader, options: Mapping[str, Value]) -> dict[str, Value]:
    if unknown := sorted(set(options) - set(reader.options)):
        offered = ", ".join(reader.options) or "none"
        raise DataSetError(f"{reader.name} has no option {', '.join(unknown)}; it has: {offered}.")
    return {
        name: _typed(reader.name, name, option, options.get(name, option.default))
        for name, option in reader.options.items()
    }


def _typed(reader: str, name: str, option: Option, value: Value) -> Value:
    kind = type(option.default)
    if isinstance(value, str) and kind is bool:
        if value.lower() not in ("true", "false"):
            raise DataSetError(f"{reader}: {name} must be true or false, not {value!r}.")
        return value.lower() == "true"
    try:
        typed = kind(value)
    except (TypeError, ValueError) as error:
        raise DataSetError(f"{reader}: {name} must be a {kind.__name__}, not {value!r}.") from error
    if option.choices and typed not in option.choices:
        raise DataSetError(f"{reader}: {name} must be one of {', '.join(option.choices)}, not {value!r}.")
    return typed


def _check(records: tuple[Record, ...], problems: Problems) -> None:
    first: dict[str, int] = {}
    for number, record in enumerate(records, start=1):
        # Not by name: a file's name may be a person's.
        if first.setdefault(record.image, number) != number:
            problems.add(f"record {number}", f"is the image of record {first[record.image]} again; keep one")
    parts: dict[str, set[str]] = {}
    for record in records:
        parts.setdefault(record.group, set()).add(record.part or "")
    if torn := sum(len(of_group) > 1 for of_group in parts.values()):
        problems.add("split", f"{torn} patients have images in two parts; put each into one")


def _with_digests(name: str, records: tuple[Record, ...], advance: Advance | None) -> tuple[Record, ...]:
    paths = list(dict.fromkeys(record.path for record in records))
    digests: dict[Path, str] = {}
    # Digests are taken outside the interpreter's lock, so threads do.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        try:
            for path, digest in zip(paths, threads.map(sha256_of, paths), strict=True):
                digests[path] = digest
                if advance is not None:
                    advance(len(digests), len(paths))
        except OSError as error:
            raise DataSetError(f"{name}: a file cannot be read ({os.strerror(error.errno or 0)}).") from error
    return tuple(replace(record, sha256=digests[record.path]) for record in records)

"""What a disk holds at worst when the power goes: of each file, no more than what was synced.

A process runs under ``strace``; from its calls follows what it wrote and did not sync. The kernel may have
written some of that, too: it is the least that has to be enough.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

_APPENDS = ("write", "sendfile")
_WRITES = (*_APPENDS, "pwrite64", "pwritev", "pwritev2")
_SYNCS = ("fsync", "fdatasync", "syncfs")
_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?P<rest>.*)")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_UNFINISHED = " <unfinished ...>"
# Of a write in place: where it began, and how much was written.
_EXTENT = {
    "pwrite64": re.compile(r", \d+, (?P<offset>\d+)\) += (?P<size>\d+)$"),
    "pwritev": re.compile(r", \d+, (?P<offset>\d+)\) += (?P<size>\d+)$"),
    "pwritev2": re.compile(r", \d+, (?P<offset>\d+), 0\) += (?P<size>\d+)$"),
}

Extents = set[tuple[int, int] | None]
"""What was written to a file since its last sync; None stands for an appending write."""


def traced(trace: Path) -> tuple[str, ...]:
    """Return the command that runs another one and writes its calls to a file."""
    calls = ",".join((*_WRITES, *_SYNCS))
    return ("strace", "-f", "-y", "-s", "0", "-o", str(trace), "-e", f"trace={calls}")


def cut_power(trace: Path, root: Path) -> list[Path]:
    """Take from the files of a folder what a dead process wrote and did not sync.

    Parameters
    ----------
    trace : pathlib.Path
        The calls that it made, all of them on files that it made itself or wrote in place.
    root : pathlib.Path
        The folder.

    Returns
    -------
    list of Path
        The files that lost all or some of what they held.
    """
    lost: list[Path] = []
    for path, extents in _unsynced(trace).items():
        if not extents or not path.is_file() or not path.is_relative_to(root):
            continue
        lost.append(path)
        if None in extents:
            # Its very name was not synced.
            path.unlink()
            continue
        with path.open("r+b") as file:
            for extent in extents:
                assert extent is not None  # as was just looked
                begin, end = extent
                file.seek(begin)
                file.write(bytes(end - begin))
    return lost


def _unsynced(trace: Path) -> dict[Path, Extents]:
    """Return what was written to each file since its last sync."""
    pending: dict[Path, Extents] = defaultdict(set)
    # By thread: a call that has not returned yet, and what it will have made durable if it is a sync.
    begun: dict[str, tuple[re.Match[str], list[tuple[Path, Extents]]]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if resumed := _RESUMED.match(line):
            call, covers = begun.pop(resumed["pid"])
            _end(pending, call, call["rest"].removesuffix(_UNFINISHED) + resumed["rest"], covers)
        elif call := _CALL.match(line):
            path = Path(call["path"])
            covered = list(pending) if call["name"] == "syncfs" else [path]
            covers = [(each, set(pending[each])) for each in covered if call["name"] in _SYNCS]
            if call["rest"].endswith(_UNFINISHED):
                begun[call["pid"]] = call, covers
            else:
                _end(pending, call, call["rest"], covers)
    return pending


def _end(
    pending: dict[Path, Extents], call: re.Match[str], rest: str, covers: list[tuple[Path, Extents]]
) -> None:
    """Take note of a call that has returned."""
    if call["name"] in _APPENDS:
        pending[Path(call["path"])].add(None)
    elif call["name"] in _EXTENT:
        if found := _EXTENT[call["name"]].search(rest):
            begin = int(found["offset"])
            pending[Path(call["path"])].add((begin, begin + int(found["size"])))
    elif rest.endswith("= 0"):
        for path, extents in covers:
            pending[path] -= extents

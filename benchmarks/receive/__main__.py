"""Time the way in: this node beside DCMTK, Orthanc and pynetdicom, in alternation, on the same objects.

    python -m benchmarks.receive --rounds 5

Every receiver is started afresh for every run, with its files in ``--folder`` (durable: a real disk;
otherwise /dev/shm) and gets the same number of objects of each case over 1, 4 and 8 associations. Printed are
medians, and ratios to DCMTK's storescp with its defaults and with its best flags; compare runs by these
ratios, never by their seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.receive.objects import CASES, Case, write_files
from benchmarks.receive.receivers import RECEIVERS, Receiver, Running, program_of_the_system, running
from benchmarks.tables import table

_SETTLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one receiver.

    Attributes
    ----------
    wall_s, cpu_s : float
        Seconds of the sender's clock and of the receiver's processors.
    peak_mib : float
        The receiver's largest process.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float


Send = Callable[[Running, Case, int, int], float]


def main() -> None:
    """Run the benchmark as the command line asks."""
    options = _options()
    receivers = _chosen(options.receivers)
    with tempfile.TemporaryDirectory(prefix="receive-", dir=options.folder) as folder:
        if options.latency:
            print(_latencies(receivers, Path(folder), options.rounds))
            return
        send = {"blaster": _blast, "nagle": _blast_nagle, "storescu": _Storescu(Path(folder))}[options.sender]
        measured = _measure(receivers, send, options, Path(folder))
    print(_described(measured, receivers, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.receive", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each receiver in each case")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--associations", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument(
        "--receivers", nargs="+", help=f"of: {'; '.join(each.name for each in RECEIVERS)}; default: all"
    )
    parser.add_argument("--sender", choices=("blaster", "storescu", "nagle"), default="blaster")
    parser.add_argument("--durable", action="store_true", help="files synced, on every side")
    parser.add_argument("--latency", action="store_true", help="time single requests instead")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the objects of each case")
    parser.add_argument("--folder", type=Path, help="where files go; default: /var/tmp or /dev/shm")
    parser.add_argument("--json", action="store_true", help="print every run for programs")
    options = parser.parse_args()
    options.folder = options.folder or Path("/var/tmp" if options.durable else "/dev/shm")
    return options


def _chosen(names: Sequence[str] | None) -> list[Receiver]:
    known = {each.name: each for each in RECEIVERS}
    if unknown := set(names or ()) - set(known):
        raise SystemExit(f"unknown receiver: {', '.join(sorted(unknown))}; known: {'; '.join(known)}")
    chosen = [each for each in RECEIVERS if not names or each.name in names]
    for each in chosen:
        if not each.is_installed:
            print(f"left out, not installed: {each.name}", file=sys.stderr)
    return [each for each in chosen if each.is_installed]


def _measure(
    receivers: Sequence[Receiver], send: Send, options: argparse.Namespace, folder: Path
) -> dict[tuple[str, int, str], list[Figures]]:
    measured: dict[tuple[str, int, str], list[Figures]] = defaultdict(list)
    for case in (CASES[name] for name in options.cases):
        for associations in options.associations:
            count = max(associations, round(case.count * options.scale) // associations * associations)
            for number in range(options.rounds):
                # In turn, so that what disturbs the machine disturbs all of them.
                for receiver in receivers:
                    key = case.name, associations, receiver.name
                    name = f"{case.name}-{associations}-{number}-{receiver.name}"
                    place = folder / name.replace(" ", "-")
                    with running(
                        receiver, place, is_durable=options.durable, associations=associations
                    ) as peer:
                        before = peer.cpu_s()
                        wall_s = send(peer, case, count, associations)
                        time.sleep(_SETTLE_S)
                        measured[key].append(Figures(wall_s, peer.cpu_s() - before, peer.peak_mib()))
                    _leave(place, is_durable=options.durable)
    return measured


def _leave(place: Path, *, is_durable: bool) -> None:
    """Make room in memory, or let the disk come to rest, before the next run."""
    if is_durable:
        os.sync()
    else:
        shutil.rmtree(place)


def _blast(peer: Running, case: Case, count: int, associations: int, *flags: str) -> float:
    return _blaster(peer, case, count, associations, *flags)["seconds"]


def _blast_nagle(peer: Running, case: Case, count: int, associations: int) -> float:
    return _blast(peer, case, count, associations, "--nagle")


def _blaster(peer: Running, case: Case, count: int, associations: int, *flags: str) -> dict[str, float]:
    numbers = [str(peer.port), case.name, str(count), str(associations)]
    command = [sys.executable, "-m", "benchmarks.receive.blaster", *numbers, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


class _Storescu:
    """DCMTK's sender, one process for each association, with files of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, peer: Running, case: Case, count: int, associations: int) -> float:
        shares = [
            self._folder / "sent" / f"{case.name}-{associations}-{number}" for number in range(associations)
        ]
        for share in shares:
            if not share.exists():
                write_files(case, count // associations, share)
        storescu = program_of_the_system("storescu") or "storescu"
        began = time.perf_counter()
        senders = [
            subprocess.Popen([storescu, "-R", "-aec", "NODE", "+sd", "127.0.0.1", str(peer.port), str(share)])
            for share in shares
        ]
        statuses = [sender.wait() for sender in senders]
        if any(statuses):
            raise RuntimeError("storescu could not send everything")
        return time.perf_counter() - began


def _described(
    measured: dict[tuple[str, int, str], list[Figures]],
    receivers: Sequence[Receiver],
    options: argparse.Namespace,
) -> str:
    if options.json:
        rows = [
            {"case": case, "associations": associations, "receiver": name, **_as_dict(each)}
            for (case, associations, name), runs in measured.items()
            for each in runs
        ]
        return json.dumps(rows, indent=1)
    columns = [(case, number) for case in options.cases for number in options.associations]
    header = ["", *(f"{case} x{number}" for case, number in columns)]
    kind = "durable" if options.durable else "nothing durable"
    parts = [f"sender {options.sender}; {kind}; medians of {options.rounds}"]
    for title, value, form in (
        ("wall seconds", lambda each: each.wall_s, "{:.3f}"),
        ("processor seconds", lambda each: each.cpu_s, "{:.2f}"),
        ("peak memory, MiB", lambda each: each.peak_mib, "{:.0f}"),
    ):
        medians = {key: median(value(each) for each in runs) for key, runs in measured.items()}
        rows_ = [
            [each.name, *(form.format(medians[case, number, each.name]) for case, number in columns)]
            for each in receivers
        ]
        parts.append(table([title, *header[1:]], rows_))
    walls = {key: median(each.wall_s for each in runs) for key, runs in measured.items()}
    for base in receivers[:2]:
        ratios = [
            [
                each.name,
                *(f"{walls[c, n, base.name] / walls[c, n, each.name]:.2f}" for c, n in columns),
            ]
            for each in receivers
        ]
        parts.append(table([f"times as fast as {base.name}", *header[1:]], ratios))
    return "\n\n".join(parts)


def _as_dict(each: Figures) -> dict[str, float]:
    return {"wall_s": each.wall_s, "cpu_s": each.cpu_s, "peak_mib": each.peak_mib}


def _latencies(receivers: Sequence[Receiver], folder: Path, rounds: int) -> str:
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds):
        for receiver in receivers:
            place = folder / f"{number}-{receiver.name}".replace(" ", "-")
            with running(receiver, place, is_durable=False, associations=1) as peer:
                measured[receiver.name].append(_blaster(peer, CASES["small"], 1, 1, "--latency"))
    names = {"echo_ms": "C-ECHO", "store_ms": "C-STORE, 20 KB", "association_ms": "connect to release"}
    medians = {
        receiver.name: [median(each[key] for each in measured[receiver.name]) for key in names]
        for receiver in receivers
    }
    first = medians[receivers[0].name]
    rows = [
        [
            name,
            *(f"{mine:.2f} ({mine / theirs:.2f})" for mine, theirs in zip(values, first, strict=True)),
        ]
        for name, values in medians.items()
    ]
    header = [f"milliseconds (ratio to {receivers[0].name})", *names.values()]
    return table(header, rows)


if __name__ == "__main__":
    main()

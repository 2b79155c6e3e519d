"""Random faults over a running node, and what is true afterwards.

A seed gives the same order of faults; when they strike depends on the machine. Ends with status 1 where
anything was lost, doubled or left behind.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import Faults
from benchmarks.chaos.hospital import Hospital, hospital
from benchmarks.chaos.scanner import Scanners
from benchmarks.chaos.verdict import Check, checks
from benchmarks.tables import table

DRAIN_S = 600.0


def main() -> None:
    """Run as the command line asks."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is ended leaves no server behind
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        figures = run(
            folder,
            database=options.database,
            seconds=options.seconds,
            seed=options.seed,
            per_second=options.faults_per_second,
        )
    print(json.dumps(figures, indent=2) if options.json else described(figures))
    sys.exit(0 if figures["ok"] else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long faults strike")
    parser.add_argument("--seed", type=int, default=1, help="of the order and kind of the faults")
    parser.add_argument("--database", choices=("sqlite", "postgres+redis"), default="sqlite")
    parser.add_argument("--faults-per-second", type=float, default=1.0, help="mean number of faults a second")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--keep", type=Path, help="folder for everything written, kept; default: none is")
    return parser.parse_args()


def run(folder: Path, *, database: str, seconds: float, seed: int, per_second: float) -> dict[str, Any]:
    """Run a node under load and faults, wait until its work is done, and judge what is left."""
    with hospital(folder, database) as (victim, supervisor):
        scanners = Scanners(victim, folder, count=2)
        faults = Faults(victim, seed, per_second)
        scanners.start()
        faults.run(seconds)
        calm_at = time.monotonic()
        scanners.stop()
        drained = _drain(victim, studies=len(scanners.studies))
        drained_s = time.monotonic() - calm_at
        forced = victim.stop(supervisor)
        verdict = [
            Check("jobs unfinished after the last fault", "0" if drained else "some", drained),
            *checks(victim, scanners.acknowledged, scanners.studies),
            Check("processes that SIGTERM did not end", str(len(forced)), not forced),
        ]
        return {
            "database": database,
            "seed": seed,
            "seconds": seconds,
            "studies": len(scanners.studies),
            "instances": len(scanners.acknowledged),
            "kills": faults.kills,
            "faults": dict(sorted(faults.counts.items())),
            "process_starts": victim.starts,
            "drained_s": round(drained_s, 1),
            "verdict": [asdict(check) for check in verdict],
            "ok": all(check.holds for check in verdict),
        }


def _drain(victim: Hospital, *, studies: int) -> bool:
    """Wait until every study is scored and delivered; return whether that came."""
    # No job is unfinished, either, while the last images still wait for their rows.
    jobs = studies * (1 + len(victim.destinations))
    deadline = time.monotonic() + DRAIN_S
    while victim.unfinished() != 0 or victim.finished() < jobs:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def described(figures: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    rows = [(name, str(count)) for name, count in figures["faults"].items()]
    verdict = [
        (c["what"], c["found"], "holds" if c["holds"] else "DOES NOT HOLD") for c in figures["verdict"]
    ]
    return "\n\n".join(
        [
            f"chaos on {figures['database']}, seed {figures['seed']}, {figures['seconds']:g} s: "
            f"{figures['kills']} x kill -9, {figures['studies']} studies of {figures['instances']} "
            f"instances, finished {figures['drained_s']:g} s after the last fault",
            table(("fault", "times"), rows),
            table(("after it", "found", ""), verdict),
        ]
    )


if __name__ == "__main__":
    main()

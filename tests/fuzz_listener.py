"""Damaged conversations against the real listener process, as long as wanted: ``make fuzz``.

Prints its seed first, so that a run can be had again, and at the end one line of what it cost. Its exit
status is 1 where the listener died, stopped serving, grew, or logged an error that nobody foresaw.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.attacks import Bystander, footprint
from tests.running_node import RunningNode, until
from tests.simulators.conversations import damaged, good_conversation, say

ECHO_EVERY = 25
MOST_GROWTH_MIB = 64
SETTINGS = {
    "listener": {"minimum_free_bytes": 0, "acse_timeout_s": 1.0, "network_timeout_s": 2.0},
}


def unforeseen(log: str) -> list[str]:
    """The lines of a log that tell of an error that the code did not foresee."""
    lines = [json.loads(line) for line in log.splitlines()]
    return [json.dumps(line) for line in lines if line.get("level") in ("error", "critical")]


def fuzz(seconds: float, seed: int, folder: Path) -> list[str]:
    """Attack one listener; return what is wrong."""
    dice = random.Random(seed)
    with RunningNode(folder, settings=SETTINGS) as node:
        process = node.start("listen")
        node.wait_for_processes({"listen"})
        bystander, watched = Bystander(node.address.port), psutil.Process(process.pid)
        for ordinal in range(3):
            say(node.address.port, good_conversation(ordinal))
        bystander.ask()
        before, conversations = footprint(watched), 0
        until(lambda: len(node.studies()) == 3, 60, "the good objects")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            say(node.address.port, damaged(good_conversation(conversations % 50), dice))
            conversations += 1
            if conversations % ECHO_EVERY == 0:
                bystander.ask()
        faults = [] if process.poll() is None else [f"the listener ended with status {process.returncode}"]
        if not faults:
            until(lambda: footprint(watched).threads <= before.threads + 1, 60, "the end of all associations")
            after = footprint(watched)
            grown = (after.memory_bytes - before.memory_bytes) / (1 << 20)
            sys.stdout.write(
                f"{conversations} conversations, {len(bystander.seconds)} C-ECHOs beside them, the slowest "
                f"{max(bystander.seconds):.3f} s; memory {grown:+.1f} MiB, "
                f"threads {after.threads - before.threads:+d}, "
                f"descriptors {after.descriptors - before.descriptors:+d}\n"
            )
            if grown > MOST_GROWTH_MIB or after.descriptors > before.descriptors + 2:
                faults.append("it grew")
            if not node.verify_audit().ok:
                faults.append("the audit trail does not verify")
        return faults + unforeseen(node.log)


def main() -> int:
    """Read the command line, fuzz, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="dicom-node-fuzz-") as folder:
        faults = fuzz(given.seconds, given.seed, Path(folder))
    for fault in faults:
        sys.stdout.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

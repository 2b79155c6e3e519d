"""What an attack does to a listener and to everybody else: measured from outside while it runs."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from tests.running_node import until
from tests.simulators.raw_scu import IMPLICIT_LITTLE, VERIFICATION, Proposal, RawScu

GOOD_ADDRESS = "127.0.0.2"
GOOD_TITLE = "GOODSCU"
_MIB = 1 << 20
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Footprint:
    """What a process and its children hold; its connections to its own database are no peer's doing."""

    memory_bytes: int
    threads: int
    descriptors: int


@dataclass
class Bystander:
    """A good peer at another address that asks by C-ECHO again and again.

    Attributes
    ----------
    port : int
        Of the listener.
    tls : ssl.SSLContext or None
        How it speaks.
    seconds : list of float
        From connecting to the end of the association, each time.
    """

    port: int
    tls: ssl.SSLContext | None = None
    seconds: list[float] = field(default_factory=list)

    def ask(self) -> None:
        """Do one C-ECHO."""
        started = time.monotonic()
        with RawScu(
            self.port,
            Proposal(VERIFICATION, IMPLICIT_LITTLE),
            calling=GOOD_TITLE,
            called="DICOM_NODE",
            source=GOOD_ADDRESS,
            tls=self.tls,
        ) as scu:
            assert scu.echo() == 0x0000
            scu.release()
        self.seconds.append(time.monotonic() - started)


@dataclass
class Damage:
    """What an attack did.

    Attributes
    ----------
    memory_bytes : int
        Most resident memory beyond that of before.
    slowest_echo_s : float
        Of a good peer meanwhile.
    echoes : int
        How many it got.
    """

    memory_bytes: int = 0
    slowest_echo_s: float = 0.0
    echoes: int = 0


def footprint(process: psutil.Process) -> Footprint:
    """Measure a process with its children."""
    all_of_it = [process, *process.children(recursive=True)]
    return Footprint(
        sum(each.memory_info().rss for each in all_of_it),
        sum(each.num_threads() for each in all_of_it),
        sum(_descriptors(each.pid) for each in all_of_it),
    )


def _descriptors(pid: int) -> int:
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it is closed while we look
            count += not descriptor.readlink().name.startswith("node.db")
    return count


@contextmanager
def attacked(
    pid: int,
    bystander: Bystander,
    *,
    memory_mib: float = 64,
    echo_s: float = 1.0,
    slowest_echo_s: float = 2.0,
    recovers_s: float = 60,
) -> Iterator[Damage]:
    """Run an attack; at its end nobody else was harmed, and everything that it took is given back.

    Parameters
    ----------
    pid : int
        The listener.
    bystander : Bystander
        Who must be served all the time.
    memory_mib : float
        Memory that the attack may cost, MiB.
    echo_s : float
        Most that half of the bystander's C-ECHOs may take, seconds.
    slowest_echo_s : float
        Most that any of them may take: less than every deadline by which an attack could hold it up, and
        more than a machine that runs other tests meanwhile takes for a thread's turn.
    recovers_s : float
        Seconds until threads and descriptors are those of before.
    """
    process = psutil.Process(pid)
    bystander.ask()  # what is loaded at the first association is not the attack's
    before, damage, ended = footprint(process), Damage(), threading.Event()
    failures: list[BaseException] = []

    def watch() -> None:
        while not ended.is_set():
            grown = footprint(process).memory_bytes - before.memory_bytes
            damage.memory_bytes = max(damage.memory_bytes, grown)
            ended.wait(_PAUSE_S)

    def ask() -> None:
        while not ended.is_set():
            try:
                bystander.ask()
            except (OSError, AssertionError) as error:
                failures.append(error)
            except Exception as error:  # noqa: BLE001 - what the simulator raises has no common base
                failures.append(error)
            ended.wait(_PAUSE_S)

    bystander.seconds.clear()
    watchers = [threading.Thread(target=watch), threading.Thread(target=ask)]
    for watcher in watchers:
        watcher.start()
    try:
        yield damage
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join(90)
    damage.slowest_echo_s, damage.echoes = max(bystander.seconds, default=0.0), len(bystander.seconds)
    assert not failures, f"{len(failures)} C-ECHOs of a good peer failed, the first by {failures[0]!r}"
    assert damage.echoes, "a good peer was served during the attack"
    assert damage.slowest_echo_s < slowest_echo_s
    assert median(bystander.seconds) < echo_s
    assert damage.memory_bytes < memory_mib * _MIB, f"{damage.memory_bytes / _MIB:.0f} MiB"

    def is_as_before() -> bool:
        now = footprint(process)
        return now.threads <= before.threads + 1 and now.descriptors <= before.descriptors + 2

    until(is_as_before, recovers_s, "the end of the attack's threads and descriptors")
    bystander.ask()

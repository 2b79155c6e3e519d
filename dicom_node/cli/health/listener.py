"""What ``doctor`` looks at of the listener: its processes, its journals, and who has its port."""

from __future__ import annotations

import fcntl
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from db import processes
from db.session import Database
from db.tables import Process
from dicom_node.cli.health.findings import Finding, Verdict
from dicom_node.errors import NodeError
from dicom_node.settings import Settings

MOST_SENDERS_NAMED = 5
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _STATE, _INODE, _LISTENS = 1, 3, 9, "0A"


def check_listener(settings: Settings, database: Database) -> Iterator[Finding]:
    """Look whether every listener process lives, and whether the ports of this machine are the listener's."""
    with database.reading() as session:
        alive, _ = processes.alive(session, database.now_in(session))
    yield from _check_together(settings, alive)
    is_here = any(_host_of(each) == socket.gethostname() for each in alive if each.kind == "listen")
    is_elsewhere = not is_here and any(each.kind == "listen" for each in alive)
    for port in listener_ports(settings):
        has_taker = is_taken(port)
        name = f"port {port}"
        if is_elsewhere:
            yield Finding(name, Verdict.OK, "the listener runs on another machine")
        elif is_here and not has_taker:
            advice = "the log of 'dicom-node listen' tells why; start it again"
            yield Finding(name, Verdict.PROBLEM, "the listener runs, but does not listen", advice)
        elif has_taker and not is_here:
            yield _taken_by_somebody(settings, name, port)
        elif not has_taker:
            advice = "start the node with 'dicom-node serve'"
            yield Finding(name, Verdict.PROBLEM, "nobody listens: scanners cannot send", advice)
        else:
            yield Finding(name, Verdict.OK, "the listener has it")


def check_journals(settings: Settings) -> Iterator[Finding]:
    """Look for journals that hold what the node has not registered."""
    from dicom_node.listener.journal import SET_ASIDE_SUFFIX, SUFFIX
    from dicom_node.listener.journal_recovery import journals_in

    try:
        refused = sorted(path.name for path in settings.journal_dir.glob(f"*{SET_ASIDE_SUFFIX}"))
        journals, others = journals_in(settings.journal_dir)
        left = [path for path in journals if not _is_held(path)]
    except PermissionError:
        return  # the check of permissions names it
    if others:
        found = f"no journals, though they are called so: {', '.join(path.name for path in others)}"
        advice = (
            f"links and folders are passed over; move them out of {settings.journal_dir}, and where one "
            "stands for a journal that was moved, put the file itself there and restart the node"
        )
        yield Finding("journals", Verdict.WARNING, found, advice)
    if refused:
        found = f"set aside, because the database refused what they hold: {', '.join(refused)}"
        advice = (
            f"'dicom-node db check'; when the database is sound, give them their suffix {SUFFIX} again and "
            "restart the node, or remove them"
        )
        yield Finding("journals", Verdict.PROBLEM, found, advice)
    elif left:
        found = f"{len(left)} left by a crash, with objects that may not be whole or registered"
        advice = "start the node: what starts first puts back what they hold"
        yield Finding("journals", Verdict.WARNING, found, advice)
    elif settings.listener.journal and not others:
        yield Finding("journals", Verdict.OK, "none holds anything that waits for a person")


def check_quarantine(settings: Settings) -> Finding:
    """Look whether anything was refused as faulty and is kept for a person."""
    from dicom_node.listener.quarantine import Quarantine

    try:
        kept = Quarantine(settings.quarantine_dir).objects()
    except NodeError as error:
        return Finding("quarantine", Verdict.PROBLEM, str(error), "see what is found of permissions")
    if not kept:
        return Finding("quarantine", Verdict.OK, "no faulty object is kept")
    senders = sorted({f"{each.calling_ae_title} ({each.peer_address})" for each in kept})
    more = f" and {len(senders) - MOST_SENDERS_NAMED} more" if len(senders) > MOST_SENDERS_NAMED else ""
    found = f"{len(kept)} faulty objects of {', '.join(senders[:MOST_SENDERS_NAMED])}{more} are kept"
    advice = (
        "'dicom-node quarantine list' tells what is wrong with them; 'quarantine export' one for the "
        "sender's vendor, then 'quarantine remove' them"
    )
    return Finding("quarantine", Verdict.WARNING, f"{found}, the newest of {kept[-1].refused_at}", advice)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Look whether anybody listens on the ports of this machine; without a database nobody tells who."""
    for port in listener_ports(settings):
        if is_taken(port):
            yield Finding(f"port {port}", Verdict.OK, "somebody listens")
        else:
            advice = "start the node with 'dicom-node serve', unless its listener runs on another machine"
            yield Finding(f"port {port}", Verdict.WARNING, "nobody listens on this machine", advice)


def _taken_by_somebody(settings: Settings, name: str, port: int) -> Finding:
    """Tell a stranger on the port from this node's listener that cannot tell the database that it lives."""
    holder = holder_of(port)
    if holder is not None and {"listen", str(settings.data_dir)} <= set(holder.words):
        found = f"this node's listener (process {holder.pid}) has it, but the database takes no sign of life"
        advice = "mend what is found of disk and database; where nothing is, its log tells why"
        return Finding(name, Verdict.PROBLEM, found, advice)
    who = "another program" if holder is None else f"process {holder.pid} ({holder.program})"
    advice = "end that program, or choose another port (port, listener.tls.port)"
    return Finding(name, Verdict.PROBLEM, f"{who} has it, and no listener runs", advice)


def listener_ports(settings: Settings) -> list[int]:
    """Return the ports on which the listener accepts; without one that it chooses by itself."""
    tls = settings.listener.tls
    ports = [settings.port] if settings.listener.plain else []
    ports += [tls.port] if tls.files is not None else []
    return [port for port in ports if port]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on a port.

    Attributes
    ----------
    pid : int
        Its id.
    words : sequence of str
        Its command line.
    """

    pid: int
    words: Sequence[str]

    @property
    def program(self) -> str:
        """What it is called, without its options."""
        return Path(self.words[0]).name if self.words else "unknown"


def is_taken(port: int) -> bool:
    """Whether a program of this machine listens on a port, asked of the kernel: nobody has to answer."""
    return bool(_listening_sockets(port))


def holder_of(port: int) -> Holder | None:
    """Return who listens on a port; None where nobody does, or where it is another user's process."""
    wanted = {f"socket:[{inode}]" for inode in _listening_sockets(port)}
    for process in sorted(Path("/proc").glob("[0-9]*")):
        with suppress(OSError):  # it ended meanwhile
            if wanted & set(_opened(process)):
                words = (process / "cmdline").read_text(errors="replace").split("\0")
                return Holder(int(process.name), [word for word in words if word])
    return None


def _opened(process: Path) -> Iterator[str]:
    """Return what a process has open; nothing of other users' processes, which are closed to this one."""
    descriptors: list[Path] = []
    with suppress(OSError):
        descriptors = list((process / "fd").iterdir())
    for descriptor in descriptors:
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(descriptor.readlink())


def _listening_sockets(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port."""
    lines = [line.split() for table in _TABLES if table.exists() for line in table.read_text().splitlines()]
    return [
        words[_INODE]
        for words in lines
        if words[_STATE] == _LISTENS and int(words[_LOCAL].rpartition(":")[2], 16) == port
    ]


def _is_held(path: Path) -> bool:
    """Whether a living process has a journal, or has just removed it."""
    try:
        with path.open("rb") as journal:
            fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return True
    return False


def _check_together(settings: Settings, alive: Iterable[Process]) -> Iterator[Finding]:
    wanted = settings.listener.processes
    if wanted == 1:
        return
    running = Counter(_host_of(each) for each in alive if each.kind == "listen")
    short = [f"{count} of {wanted} on {host}" for host, count in sorted(running.items()) if count < wanted]
    if short:
        advice = "the log of 'dicom-node listen' tells why one ended; the others go on receiving"
        yield Finding("listener processes", Verdict.PROBLEM, ", ".join(short), advice)
    elif running:
        yield Finding("listener processes", Verdict.OK, f"{wanted} on each of {len(running)} machines")


def _host_of(process: Process) -> str:
    """Return the host in a name of the form kind@host:pid."""
    return process.name.rpartition(":")[0].partition("@")[2]

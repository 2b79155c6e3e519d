"""The page of events: what the audit trail records, and what the log tells besides.

The names follow from the code: a name without a meaning here, and a meaning without a name, stop the writing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from file_map import ROOT
from reference_pages import code, table

from db.audit.actions import ACTIONS

_EVENT = re.compile(r"[a-z]+\.[a-z_]+")
_LEVELS = ("info", "warning", "error", "exception", "critical")

OF_THE_TRAIL: Mapping[str, str] = {
    "account.added": "a user of associations was added, or got a new passcode",
    "account.removed": "a user of associations was removed",
    "association.aborted": "an association ended before its time, and why",
    "association.rejected": "an association was refused, and why",
    "association.unserved": "a peer proposed nothing that the node accepts",
    "audit.exported": "somebody wrote the trail, or a part of it, to a file",
    "audit.guards_restored": "triggers that protect the trail were missing and were put back",
    "audit.pruned": "events older than their retention went to an archive, whose digest is named",
    "audit.queried": "somebody asked the trail; the filter is named, without patient data",
    "audit.rotate_key": "the audit key was changed",
    "audit.verified": "somebody, or the dispatcher, verified the trail or its end; whether it was good",
    "bundle.activated": "a bundle answers for its task",
    "bundle.added": "a bundle was verified and stored",
    "bundle.canary": "a bundle answers for a share of the studies",
    "bundle.promoted": "a challenger replaced the champion: approver, verdict, reasons, override",
    "bundle.recalled": "a bundle was recalled: how many studies it had scored",
    "bundle.retired": "a bundle's term in shadow or as canary ended, and why where nobody decided it",
    "bundle.rolled_back": "the bundle that answered before answers again, and why where nobody decided it",
    "bundle.shadowed": "a bundle scores beside the champion, unseen",
    "commitment.answered": "a caller heard which of its objects the node has",
    "commitment.asked": "a caller asked the node to commit objects",
    "commitment.refused": "a request or report of storage commitment was refused, and why",
    "commitment.reported": "a destination reported on a request of the node",
    "commitment.requested": "the node asked a destination to commit results",
    "database.upgraded": "the tables were brought to a new version",
    "destination.queried": "`doctor --pacs` asked a destination for its test objects",
    "destination.tried": "`doctor --pacs` sent test objects, and what was accepted",
    "instance.conflict": "other bytes came under a known SOP Instance UID; they are kept apart",
    "instance.refused": "an object was not stored: status, reason, and its name in the quarantine",
    "instance.restored": "an object that came again took the place of a file that was gone or damaged",
    "instance.stored": "an object was stored and registered: its digest, who sent it, from which machine",
    "job.claimed": "a worker took a job",
    "job.done": "a job is done",
    "job.failed": "a job was given up: code and reason",
    "job.lease_ended": "a worker died, and its job was taken from it",
    "job.queued": "a job was made",
    "job.released": "a worker that stopped gave its job back",
    "job.reopened": "a job that had ended was queued again by the node itself",
    "job.retried": "a person queued a job again",
    "job.retried_later": "an attempt failed and another follows: code and reason",
    "job.scored": "a study's analysis and results were committed",
    "node.configured": "what a process is set to, where it differs from what was told last",
    "process.started": "a process began",
    "process.stopped": "a process ended in good order",
    "quarantine.exported": "somebody wrote an object that was refused as faulty to a file",
    "quarantine.removed": "somebody removed such an object",
    "result.accepted": "a destination took an object",
    "result.committed": "a destination answers for keeping an object",
    "result.exported": "somebody wrote results to files",
    "result.missing": "a destination reported an object missing that it had taken",
    "result.no_answer": "an object was sent, and the answer was lost",
    "result.pass_over": "an object was not needed: the destination took the same content in another class",
    "result.refuse": "a destination refused an object for good",
    "result.turned_away": "a destination did not take an object now; it is sent again",
    "result.withdrawn": "a rejection note withdraws an object",
    "security.exception_allowed": "a process started with a setting that weakens the node",
    "security.tls_refused": "a TLS handshake failed, and why",
    "study.complete": "a study revision was judged complete: reason and tasks",
    "study.files_removed": "the received files of an old study were removed, and by which setting or command",
    "study.recalled": "a study got a new revision because its bundle was recalled",
    "study.results_removed": "the result files of an old study were removed, and by which setting or command",
}

OF_THE_LOG: Mapping[str, str] = {
    "audit.broken": "the audit trail does not verify: the first event that is wrong, and what to do",
    "audit.no_checkpoint": "the last checkpoint of a stop could not be signed",
    "audit.not_forwarded": "an unexpected fault of the way to the audit repository; it is tried again",
    "audit.sink_away": "the audit repository takes no messages; they wait",
    "bundle.backend_refused": "OpenVINO does not answer as torch does: torch runs this bundle",
    "bundle.loaded": "a score worker loaded and verified a bundle",
    "bundle.taken_back": "a new bundle fails its golden cases: its role ended, the one before it answers",
    "chore.failed": "a chore of the dispatcher failed; it is done again at its next turn",
    "commitment.left_to_workers": "the listener could not end a request of storage commitment; a worker does",
    "dispatcher.broker_away": "Redis takes no messages; jobs wait and are rung for again",
    "dispatcher.checkpoint_failed": "no checkpoint could be signed; tried again after 30 s",
    "dispatcher.database_away": "the database is away; told once a minute",
    "dispatcher.database_back": "it is back, and how long it was away",
    "dispatcher.no_goodbye": "a stop could not be told to the database",
    "files.removed_after_retention": "files of old studies were removed from a folder",
    "files.swept": "what a crash left in a folder was tidied away",
    "files.unknown": "next to no file of a folder is known to the database: nothing is removed",
    "job.given_back": "a worker that stops gave its job back",
    "job.hard_limit": "a job outlasted `jobs.hard_limit_s`: its worker ends itself (status 75)",
    "job.lease_lost": "another worker has the job; what this one did is dropped",
    "job.mended": "a job's damaged or missing files are whole again, and it goes on",
    "job.not_given_back": "a worker that stops could not give its job back; its lease ends by itself",
    "job.outcome_waits": "the database is away at the end of a job: its outcome is committed when it is back",
    "job.waits": "a job waits for others",
    "jobs.given_up": "jobs whose workers died in every attempt were failed",
    "journal.behind": "the journal is full; each file is synced by itself meanwhile",
    "journal.file_refused": "a record of a journal was refused: its journal is set aside",
    "journal.given_up": "a sync failed: no journal until the next start. Look at the disk",
    "journal.not_emptied": "the journal could not be emptied, and why; tried again each second",
    "journal.passed_over": "a link or folder called like a journal is not recovered",
    "journal.recovered": "what a crash left in journals was put back",
    "journal.set_aside": "a journal was refused and waits for a person",
    "journal.unavailable": "this process keeps no journal, and why",
    "library.warned": "a library warned, of what kind and where; not its words, which may quote data",
    "listener.backlog": "so many jobs wait that associations are rejected, or no longer so many",
    "listener.backlog_unknown": "waiting jobs could not be counted",
    "listener.cannot_accept": "this machine has no room for one more connection (open files); tried again",
    "listener.connection_failed": "a connection became no association, and why",
    "listener.event_not_told": "an error kept a refusal or an end out of the trail; the answer stands",
    "listener.few_open_files": "the limit of open files allows fewer associations than the settings",
    "listener.not_stored": "an error that nobody foresaw kept an object from being stored; answered A700",
    "listener.ready": "the listener accepts",
    "listener.refusal_not_audited": "a refusal could not be written into the trail",
    "listener.stopped": "the listener's port is closed, and its associations have ended",
    "listener.undecided": "an error in deciding on an association, which is rejected",
    "metrics.database_away": "Prometheus is told of the disk alone",
    "metrics.ready": "Prometheus may ask",
    "metrics.scrape_cut_off": "who asked for numbers left before the answer, or kept silent",
    "node.stopped": "all parts of `serve` have ended",
    "part.died": "a part of `serve` died: its status or signal, and when it is started again",
    "part.killed": "a part did not stop in time and was killed",
    "part.leases_ended": "jobs of a dead worker are free for others",
    "part.leases_not_ended": "they are not yet; tried again",
    "part.not_started": "a part could not be started; tried again",
    "part.recycled": "a score worker made room for a fresh one, which is started at once: no fault",
    "part.refused_to_run": "a part refused its settings or the database (status 3 or 7): the node stops",
    "part.started": "a part began",
    "process.crashed": "an error that nobody foresaw ended a process",
    "process.database_away": "a process cannot give its sign of life",
    "process.no_goodbye": "a stop could not be told to the database",
    "process.runs_as_root": "the node runs as root",
    "process.stop_deadline": "a process that hangs in its stop ends itself",
    "process.thread_crashed": "an error that nobody foresaw ended a thread; the process goes on",
    "quarantine.not_kept": "what was refused as faulty cannot be kept, and why; told until one is kept again",
    "rows.behind": "rows could not be committed, and why; until they are, each object waits for its row",
    "rows.caught_up": "all rows that were owed are committed",
    "rows.files_grow_old": "files whose rows are late cannot be kept from sweeps. Look at the disk",
    "rows.duplicate_not_removed": "the file of an object that came twice stays until a sweep",
    "score.moved_to_cpu": "the GPU had no memory left: the CPU answered so many batches of a study",
    "shadow.failed": "the bundle in shadow failed; results are not affected",
    "shadow.out_of_time": "the bundle in shadow took too long for a study",
    "studies.completed": "studies became complete by their quiet period",
    "tls.certificates_not_taken": "new certificate files do not fit together; the old ones stay in use",
    "tls.certificates_taken": "new certificate files are in use",
    "worker.database_away": "the database is away; told once a minute",
    "worker.database_back": "it is back, and how long it was away",
    "worker.deaf": "the broker's messages no longer arrive: the worker ends itself (status 76)",
    "worker.no_goodbye": "a stop could not be told to the database",
    "worker.ready": "a worker takes jobs",
    "worker.recycled": "a score worker ends itself between two jobs, for a fresh one to take its place: why",
    "worker.sign_refused": "the database refused a worker's sign of life",
}


def events() -> str:
    """Return every event of the audit trail and of the log, with what it means.

    Raises
    ------
    ValueError
        If a name has no meaning here, a meaning no name, or a line of the log a sentence for its name.
    """
    _check("the audit trail", set(ACTIONS), set(OF_THE_TRAIL))
    _check("the log", set(logged()) - ACTIONS, set(OF_THE_LOG))
    return "\n\n".join(
        [
            "# Events",
            "## Of the audit trail\nWhat `dicom-node audit query --action` takes. Study, job, bundle and "
            "actor stand in fields of their own, everything else in `detail` ([what the trail can "
            "show](../explanation/audit.md)).",
            _told("action", OF_THE_TRAIL),
            "## Of the log\nOn standard error, a line of JSON each (on a terminal a coloured one): `event`, "
            "`level`, `timestamp`, `process`, `process_id`, and values of its own. Refusals of the listener, "
            "and what becomes of jobs, are told under the names of the trail, too.",
            _told("event", OF_THE_LOG),
        ]
    )


def _told(column: str, meanings: Mapping[str, str]) -> str:
    return table((column, "what happened"), [(code(name), meanings[name]) for name in sorted(meanings)])


def logged() -> Iterator[str]:
    """Yield the name of every event that the program logs by name."""
    for package in ("dicom_node", "workers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from _logged_in(path)
    # Named by who tells it (workers/absence.py).
    for who in ("dispatcher", "worker"):
        yield from (f"{who}.database_away", f"{who}.database_back")


def _logged_in(path: Path) -> Iterator[str]:
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call):
            continue
        said = call.args[:1] if getattr(call.func, "attr", "") in _LEVELS else []
        if any(each.arg == "target" and getattr(each.value, "attr", "") in _LEVELS for each in call.keywords):
            said = [each.value for each in call.keywords if each.arg == "args"]  # told by a thread
        if isinstance(first := next(iter(said), None), ast.Constant) and not _EVENT.fullmatch(
            str(first.value)
        ):
            raise ValueError(f"{path.name}: {first.value!r} is no name of an event, such as listener.ready")
        for word in (each for part in said for each in ast.walk(part)):
            if isinstance(word, ast.Constant) and _EVENT.fullmatch(str(word.value)):
                yield str(word.value)


def _check(where: str, named: set[str], explained: set[str]) -> None:
    if named != explained:
        raise ValueError(
            f"docs/events_page.py, events of {where}: without a meaning {sorted(named - explained)}, "
            f"without a name {sorted(explained - named)}"
        )

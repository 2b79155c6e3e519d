"""A database of the first version, with studies in flight, becomes this version's and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, make_url, select

from db import schema
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.reading import AuditFilter, query
from db.audit.trail import AuditTrail
from db.audit.verification import verify
from db.errors import SchemaError
from db.handoff import complete_quiet_studies
from db.lifecycle import JobKind, JobState
from db.session import Database
from db.tables import AuditCursor, Base, Instance, Refusal
from dicom_node.spool import Spool
from tests.command_line import command
from tests.databases import production_role
from tests.steered_node import BUNDLE, OTHER_WORKER, RULES, SteeredNode, four_views, mammogram

FIRST_VERSION = "0001"
OPEN, QUEUED, RUNNING, SCORED = "2.25.1", "2.25.2", "2.25.3", "2.25.4"
NEW_TABLES = (AuditCursor, Refusal)
POSTGRESQL = [pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture
def old(empty_database_url: str, audit_key: AuditKey) -> Iterator[SteeredNode]:
    """A node of the first version: a study that receives, one that waits, one in hand, one to be sent."""
    schema.upgrade(empty_database_url, FIRST_VERSION)
    database = Database(empty_database_url, AuditTrail(audit_key))
    node = SteeredNode(database)
    for study in (SCORED, RUNNING, QUEUED):
        node.receive(*four_views(study))
        node.clock.advance(1)
    node.receive(mammogram(study=OPEN))
    node.finish_scoring(node.claimed())
    node.claimed()
    yield node
    node.database.close()
    database.close()


def contents(node: SteeredNode) -> dict[str, int]:
    """How many rows each table of the first version has."""
    old_tables = [
        t for t in Base.metadata.sorted_tables if t.name not in {n.__tablename__ for n in NEW_TABLES}
    ]
    with node.reading() as session:
        return {t.name: session.scalars(select(func.count()).select_from(t)).one() for t in old_tables}


def url_of(node: SteeredNode) -> str:
    return node.database.engine.url.render_as_string(hide_password=False)


def test_this_version_works_on_no_older_tables(old: SteeredNode) -> None:
    with pytest.raises(SchemaError, match="db upgrade"):
        schema.require_head(old.database)


def test_the_upgrade_keeps_every_row_and_the_trail(old: SteeredNode, tmp_path: Path) -> None:
    before = contents(old)

    done = schema.upgrade(url_of(old))

    assert (done.before, done.after) == (FIRST_VERSION, schema.head())
    assert done.before != done.after, "this version has a migration to test"
    assert contents(old) == before
    assert before["instance"] == 13
    assert schema.check(old.database) == []
    key = CheckpointKey.load_or_create(tmp_path / "checkpoint.key")
    report = verify(old.database, old.database.trail.key, tmp_path, key.public_key)
    assert (report.ok, report.events) == (True, before["audit_event"])


def test_events_of_the_first_version_are_found_after_the_upgrade(old: SteeredNode) -> None:
    def found(**wanted: str) -> int:
        with old.reading() as session:
            return len(query(session, AuditFilter(**wanted)))

    schema.upgrade(url_of(old))

    assert (found(action="instance.stored"), found(action="study.complete")) == (13, 3)
    assert [found(job_id=job.id) > 0 for job in old.jobs()] == [True] * 3
    assert found(bundle=BUNDLE) > 0


def test_studies_in_flight_go_on_where_they_were(old: SteeredNode) -> None:
    schema.upgrade(url_of(old))

    old.clock.advance(61)  # the quiet period, and the lease of the worker that the upgrade ended
    with old.transaction("dispatch") as tx:
        assert complete_quiet_studies(tx, RULES) == 1
    scored = [old.claimed(worker=OTHER_WORKER) for _ in range(3)]
    for claim in scored:
        old.finish_scoring(claim)
    for _ in range(4):
        assert len(old.deliver(old.claimed(JobKind.DELIVER))) == 1

    assert {job.state for job in [*old.jobs(), *old.jobs(JobKind.DELIVER)]} == {JobState.DONE}
    assert old.revisions() == [(1, "complete", r) for r in ("all_views",) * 3] + [
        (1, "complete", "quiet_period")
    ]


@pytest.mark.parametrize("database_kind", POSTGRESQL, indirect=True)
def test_the_role_of_the_node_is_told_that_the_upgrade_is_its_owners(old: SteeredNode) -> None:
    with (
        production_role(old.database) as url,
        pytest.raises(SchemaError, match=r"at revision 0001.* as the role that owns"),
    ):
        schema.upgrade(url)
    assert schema.current(old.database) == FIRST_VERSION


@pytest.mark.parametrize("database_kind", POSTGRESQL, indirect=True)
def test_a_role_that_may_make_no_tables_is_told_so(database: Database, empty_database_url: str) -> None:
    with production_role(database) as url:
        role = make_url(url).username
        empty = make_url(empty_database_url)
        with pytest.raises(SchemaError, match=r"at revision none.* as the role that owns"):
            schema.upgrade(empty.set(username=role, password="...").render_as_string(hide_password=False))


def test_upgrading_what_is_of_this_version_does_nothing(database: Database, database_url: str) -> None:
    done = schema.upgrade(database_url)
    assert (done.before, done.after, done.guards_restored) == (schema.head(), schema.head(), ())


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_command_upgrades_a_data_directory_with_its_spool(tmp_path: Path, database_kind: str) -> None:
    data_dir = tmp_path / "data"
    keys = data_dir / "keys"
    data_dir.mkdir(mode=0o700)
    url = f"sqlite:///{data_dir / 'node.db'}"
    schema.upgrade(url, FIRST_VERSION)
    CheckpointKey.load_or_create(keys / "checkpoint.key")
    database = Database(url, AuditTrail(AuditKey.load_or_create(keys / "audit.key")))
    file = Spool(data_dir / "spool").write([b"an object of the first version"])
    node = SteeredNode(database)
    node.receive(mammogram(spool_name=file.name, sha256=file.sha256, size_bytes=file.size_bytes))
    where = ("--data-dir", data_dir)

    refused = command("study", "list", *where)
    assert refused.status != 0
    assert "db upgrade" in " ".join(refused.err.split())

    assert command("db", "upgrade", *where).status == 0

    assert command("db", "check", *where).status == 0
    assert command("audit", "verify", *where).status == 0
    assert len(command("study", "list", "--json", *where).json) == 1
    (told,) = command("audit", "query", "--action", "database.upgraded", "--json", *where).json
    assert (told["detail"]["from"], told["detail"]["to"]) == (FIRST_VERSION, schema.head())
    (instance,) = node.rows(Instance)
    kept = Spool(data_dir / "spool").path_of(instance.spool_name)
    assert kept.read_bytes() == b"an object of the first version"
    node.database.close()
    database.close()

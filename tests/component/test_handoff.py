"""When a study revision is complete, why, and which jobs that makes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from db.errors import DatabaseError, UnknownRecordError
from db.handoff import (
    Completeness,
    Registration,
    Route,
    complete_quiet_studies,
    has_quiet_study,
    known_spool_names,
    register_instance,
)
from db.tables import Instance, Job, Revision, Study
from tests.steered_node import (
    FOUR_VIEWS,
    JPEG_LOSSLESS,
    MG_FOR_PRESENTATION,
    RULES,
    STUDY,
    TASK,
    ULTRASOUND,
    SteeredNode,
    at_the_same_time,
    four_views,
    held_up,
    mammogram,
    on_postgresql,
)

OPEN_1 = (1, "open", None)
ALL_VIEWS_1 = (1, "complete", "all_views")


def sweep(node: SteeredNode) -> int:
    """Let a dispatcher complete what is quiet."""
    with node.transaction("dispatcher@host-a:14") as tx:
        return complete_quiet_studies(tx, RULES)


def is_something_quiet(node: SteeredNode) -> bool:
    with node.reading() as session:
        return has_quiet_study(session, node.clock.time)


# --- receiving


def test_the_first_instance_opens_revision_1_and_makes_no_job(node: SteeredNode) -> None:
    assert node.receive(mammogram()) == [Registration.NEW]

    assert node.revisions() == [OPEN_1]
    assert node.jobs() == []
    assert node.actions() == ["instance.stored"]


def test_a_stored_instance_is_remembered_with_all_that_the_listener_knew(node: SteeredNode) -> None:
    received = mammogram("L", "MLO")
    node.receive(received)

    (instance,) = node.rows(Instance)
    (study,) = node.rows(Study)
    for name in (
        "sop_instance_uid",
        "sop_class_uid",
        "series_instance_uid",
        "transfer_syntax_uid",
        "modality",
    ):
        assert getattr(instance, name) == getattr(received, name)
    for name in ("laterality", "view", "spool_name", "sha256", "size_bytes", "calling_ae_title"):
        assert getattr(instance, name) == getattr(received, name)
    assert (instance.for_presentation, instance.conflict, instance.revision_number) == (1, 0, 1)
    assert instance.received_at == node.clock.time
    assert (study.study_instance_uid, study.patient_id, study.accession_number) == (STUDY, "P-4711", "A-0815")


def test_the_audit_event_of_an_instance_names_it_and_no_patient(node: SteeredNode) -> None:
    received = mammogram()
    node.receive(received)

    (event,) = node.audited()
    assert event.study_instance_uid == STUDY
    assert json.loads(event.detail) == {
        "sop_instance_uid": received.sop_instance_uid,
        "sha256": received.sha256,
        "bytes": 1000,
        "calling_ae_title": "MAMMO1",
        "revision": 1,
    }
    assert "P-4711" not in event.payload
    assert "A-0815" not in event.payload


def test_the_audit_event_of_an_instance_names_the_machine_that_sent_it(node: SteeredNode) -> None:
    node.receive(mammogram(peer_address="10.1.2.3"))

    (event,) = node.audited()
    assert json.loads(event.detail)["peer_address"] == "10.1.2.3"


def test_the_same_bytes_again_change_nothing(node: SteeredNode) -> None:
    node.receive(mammogram())
    node.clock.advance(50)

    assert node.receive(mammogram()) == [Registration.DUPLICATE]

    assert len(node.rows(Instance)) == 1
    assert node.actions() == ["instance.stored"]
    node.clock.advance(10)
    assert sweep(node) == 1, "a duplicate must not prolong the quiet period"


def test_the_same_bytes_again_do_not_reopen_a_complete_study(node: SteeredNode) -> None:
    node.receive(*four_views())
    before = node.actions()

    assert node.receive(*four_views()) == [Registration.DUPLICATE] * 4

    assert node.revisions() == [ALL_VIEWS_1]
    assert len(node.jobs()) == 1
    assert node.actions() == before


@pytest.mark.parametrize(
    "other", [{"sha256": "0" * 64}, {"transfer_syntax_uid": JPEG_LOSSLESS}], ids=["bytes", "transfer_syntax"]
)
def test_other_content_under_a_known_uid_is_kept_apart_once(node: SteeredNode, other: dict[str, str]) -> None:
    first = mammogram()
    node.receive(first)
    impostor = replace(first, spool_name="impostor", **other)

    assert node.receive(impostor) == [Registration.CONFLICT]
    assert node.receive(replace(impostor, spool_name="again")) == [Registration.DUPLICATE]

    assert [(i.conflict, i.spool_name) for i in node.rows(Instance)] == [
        (0, first.spool_name),
        (1, "impostor"),
    ]
    assert node.actions() == ["instance.stored", "instance.conflict"]
    assert node.revisions() == [OPEN_1]


def test_a_file_that_is_registered_again_is_no_duplicate_of_itself(node: SteeredNode) -> None:
    """Who does not know whether a commit came through asks again, and must not remove the file then."""
    first = mammogram()
    conflict = replace(first, spool_name="conflict", sha256="0" * 64)
    assert node.receive(first, conflict) == [Registration.NEW, Registration.CONFLICT]
    before = node.actions()

    assert node.receive(first, conflict) == [Registration.NEW, Registration.CONFLICT]

    assert [row.spool_name for row in node.rows(Instance)] == [first.spool_name, "conflict"]
    assert node.actions() == before


def test_two_different_conflicts_of_one_uid_are_both_kept(node: SteeredNode) -> None:
    first = mammogram()
    node.receive(first)

    answers = node.receive(*(replace(first, sha256=c * 64, spool_name=c) for c in "01"))

    assert answers == [Registration.CONFLICT, Registration.CONFLICT]
    assert [i.conflict for i in node.rows(Instance)] == [0, 1, 1]


def test_a_conflict_does_not_prolong_the_quiet_period(node: SteeredNode) -> None:
    first = mammogram()
    node.receive(first)
    node.clock.advance(59)
    node.receive(replace(first, sha256="0" * 64, spool_name="impostor"))
    node.clock.advance(1)

    assert sweep(node) == 1


def test_the_spool_asks_which_of_its_files_are_registered(node: SteeredNode) -> None:
    stored = mammogram()
    node.receive(stored)
    strangers = [f"orphan-{n}" for n in range(1200)]

    with node.reading() as session:
        assert known_spool_names(session, [*strangers, stored.spool_name]) == {stored.spool_name}
        assert known_spool_names(session, []) == set()


# --- all standard views


@pytest.mark.parametrize("last", FOUR_VIEWS, ids="".join)
def test_a_study_is_complete_with_its_fourth_view_whichever_comes_last(
    node: SteeredNode, last: tuple[str, str]
) -> None:
    others = [mammogram(*view) for view in FOUR_VIEWS if view != last]
    node.receive(*others)
    assert node.revisions() == [OPEN_1]
    assert node.jobs() == []

    node.receive(mammogram(*last))

    assert node.revisions() == [ALL_VIEWS_1]
    (job,) = node.jobs()
    assert (job.task, job.state, job.attempts, job.next_try_at) == (TASK, "queued", 0, node.clock.time)


def test_completion_and_its_job_are_audited_with_reason_and_revision(node: SteeredNode) -> None:
    node.receive(*four_views())

    assert node.actions() == [*["instance.stored"] * 4, "study.complete", "job.queued"]
    completed, queued = node.audited()[-2:]
    assert completed.study_instance_uid == queued.study_instance_uid == STUDY
    assert json.loads(completed.detail) == {"revision": 1, "reason": "all_views", "tasks": [TASK]}
    assert queued.job_id == node.jobs()[0].id
    assert json.loads(queued.detail) == {"kind": "score", "task": TASK, "revision": 1}


def test_views_for_processing_do_not_count(node: SteeredNode) -> None:
    *three, (laterality, view) = FOUR_VIEWS
    node.receive(*(mammogram(*v) for v in three))

    node.receive(mammogram(laterality, view, for_presentation=False))

    assert node.revisions() == [OPEN_1]
    assert node.jobs() == []


@pytest.mark.parametrize("odd", [("B", "MLO"), ("L", "ML"), (None, "MLO"), ("L", None), ("R", "MLO")])
def test_only_the_missing_standard_view_counts(node: SteeredNode, odd: tuple[str | None, str | None]) -> None:
    node.receive(*(mammogram(*view) for view in FOUR_VIEWS[:3]))

    node.receive(mammogram(*odd, sop_instance_uid="2.25.1"))

    assert node.revisions() == [OPEN_1]


def test_a_conflicting_view_does_not_count(node: SteeredNode) -> None:
    three = [mammogram(*view) for view in FOUR_VIEWS[:3]]
    node.receive(*three)
    impostor = mammogram(*FOUR_VIEWS[3], sop_instance_uid=three[0].sop_instance_uid)

    assert node.receive(impostor) == [Registration.CONFLICT]

    assert node.revisions() == [OPEN_1]


def test_the_views_of_two_studies_are_not_mixed(node: SteeredNode) -> None:
    other = f"{STUDY}.9"
    node.receive(*(mammogram(*v) for v in FOUR_VIEWS[:2]))
    node.receive(*(mammogram(*v, study=other) for v in FOUR_VIEWS[2:]))

    assert node.revisions() == [OPEN_1, OPEN_1]


def test_without_standard_views_only_quiet_or_a_command_completes(node: SteeredNode) -> None:
    node.receive(*four_views(), rules=replace(RULES, standard_views=frozenset()))

    assert node.revisions() == [OPEN_1]


# --- by command


def test_a_command_completes_what_is_there(node: SteeredNode) -> None:
    node.receive(mammogram())

    assert node.complete() == 1

    assert node.revisions() == [(1, "complete", "command")]
    assert len(node.jobs()) == 1
    assert node.audited()[-2].actor == "anna"


def test_a_command_for_an_unknown_study_is_refused(node: SteeredNode) -> None:
    with pytest.raises(UnknownRecordError, match="study list"):
        node.complete("1.2.3")

    assert node.rows(Study) == []
    assert node.actions() == []


def test_a_command_for_a_complete_study_is_refused_and_makes_no_second_job(node: SteeredNode) -> None:
    node.receive(mammogram())
    node.complete()
    before = node.actions()

    with pytest.raises(UnknownRecordError, match="no open revision"):
        node.complete()

    assert len(node.jobs()) == 1
    assert node.actions() == before


# --- by quiet period


def test_a_study_is_complete_when_its_quiet_period_ends_and_not_before(node: SteeredNode) -> None:
    node.receive(mammogram())
    node.clock.advance(59.999)
    assert not is_something_quiet(node)
    assert sweep(node) == 0
    assert node.revisions() == [OPEN_1]

    node.clock.advance(0.001)
    assert is_something_quiet(node)
    assert sweep(node) == 1

    assert node.revisions() == [(1, "complete", "quiet_period")]
    assert len(node.jobs()) == 1
    assert not is_something_quiet(node)
    assert sweep(node) == 0


def test_each_new_instance_starts_the_quiet_period_again(node: SteeredNode) -> None:
    node.receive(mammogram("R", "CC"))
    node.clock.advance(45)
    node.receive(mammogram("L", "CC"))
    node.clock.advance(45)
    assert sweep(node) == 0

    node.clock.advance(15)
    assert sweep(node) == 1
    (revision,) = node.rows(Revision)
    assert revision.last_instance_at == node.clock.time - timedelta(seconds=60)
    assert revision.completed_at == node.clock.time


def test_a_sweep_completes_each_quiet_study_but_no_other(node: SteeredNode) -> None:
    node.receive(mammogram(study="1.2.1"), mammogram(study="1.2.2"))
    node.clock.advance(30)
    node.receive(mammogram(study="1.2.3"))
    node.clock.advance(30)

    assert sweep(node) == 2

    assert [state for _, state, _ in node.revisions()] == ["complete", "complete", "open"]


def test_a_sweep_takes_no_more_than_its_limit_and_the_longest_quiet_first(node: SteeredNode) -> None:
    for n in range(3):
        node.receive(mammogram(study=f"1.2.{n}"))
        node.clock.advance(1)
    node.clock.advance(60)

    with node.transaction() as tx:
        assert complete_quiet_studies(tx, RULES, limit=2) == 2

    assert [state for _, state, _ in node.revisions()] == ["complete", "complete", "open"]


# --- late instances


def test_a_late_extra_image_opens_revision_2_which_waits_for_the_quiet_period(node: SteeredNode) -> None:
    node.receive(*four_views())

    node.receive(mammogram("R", "CC", sop_instance_uid="2.25.99", sha256="9" * 64))
    assert node.revisions() == [ALL_VIEWS_1, (2, "open", None)]
    assert len(node.jobs()) == 1

    node.clock.advance(60)
    assert sweep(node) == 1
    assert node.revisions() == [ALL_VIEWS_1, (2, "complete", "quiet_period")]
    assert len(node.jobs()) == 2


def test_a_late_missing_view_completes_its_revision_at_once(node: SteeredNode) -> None:
    *three, last = four_views()
    node.receive(*three)
    node.complete()

    node.receive(last)

    assert node.revisions() == [(1, "complete", "command"), (2, "complete", "all_views")]
    assert len(node.jobs()) == 2


def test_a_late_missing_view_completes_the_revision_that_an_extra_image_opened(node: SteeredNode) -> None:
    *three, last = four_views()
    node.receive(*three)
    node.complete()
    node.receive(mammogram("L", "ML"))
    assert node.revisions()[-1] == (2, "open", None)

    node.receive(last)

    assert node.revisions()[-1] == (2, "complete", "all_views")


def test_late_instances_join_one_open_revision(node: SteeredNode) -> None:
    node.receive(*four_views())
    node.receive(mammogram("R", "ML"), mammogram("L", "ML"))

    assert node.revisions() == [ALL_VIEWS_1, (2, "open", None)]
    assert [i.revision_number for i in node.rows(Instance)] == [1, 1, 1, 1, 2, 2]


# --- routes


def test_a_study_that_no_task_wants_is_complete_without_a_job(node: SteeredNode) -> None:
    node.receive(mammogram(sop_class_uid=ULTRASOUND))
    node.complete()

    assert node.revisions() == [(1, "complete", "command")]
    assert node.rows(Job) == []
    (completed,) = [e for e in node.audited() if e.action == "study.complete"]
    assert json.loads(completed.detail)["tasks"] == []


def test_each_task_that_wants_the_study_gets_a_job(node: SteeredNode) -> None:
    rules = Completeness(
        standard_views=RULES.standard_views,
        quiet_period_s=60,
        routes=(
            Route("first", frozenset({MG_FOR_PRESENTATION})),
            Route("second", frozenset({ULTRASOUND, MG_FOR_PRESENTATION})),
            Route("third", frozenset({ULTRASOUND})),
        ),
    )
    node.receive(*four_views(), rules=rules)

    assert {job.task for job in node.jobs()} == {"first", "second"}


def test_revision_2_is_routed_by_all_instances_of_the_study(node: SteeredNode) -> None:
    node.receive(*four_views())
    node.receive(mammogram(sop_class_uid=ULTRASOUND))
    node.complete()

    assert [job.task for job in node.jobs()] == [TASK, TASK]


def test_a_conflict_does_not_route(node: SteeredNode) -> None:
    first = mammogram(sop_class_uid=ULTRASOUND)
    node.receive(
        first, replace(first, sop_class_uid=MG_FOR_PRESENTATION, sha256="0" * 64, spool_name="other")
    )
    node.complete()

    assert node.jobs() == []


# --- several processes at the same moment


def test_two_listeners_with_the_last_two_views_make_one_completion_and_one_job(node: SteeredNode) -> None:
    for n in range(5):
        study = f"{STUDY}.{n}"
        one, two, three, four = four_views(study)
        node.receive(one, two)

        answers = at_the_same_time(partial(node.receive, three), partial(node.receive, four))

        assert answers == [[Registration.NEW], [Registration.NEW]]
    assert node.revisions() == [ALL_VIEWS_1] * 5
    assert len(node.jobs()) == 5
    assert node.actions().count("study.complete") == 5


def test_two_listeners_with_the_first_two_views_open_one_revision(node: SteeredNode) -> None:
    at_the_same_time(
        lambda: node.receive(mammogram("R", "CC")),
        lambda: node.receive(mammogram("L", "CC")),
    )

    assert len(node.rows(Study)) == 1
    assert node.revisions() == [OPEN_1]
    assert len(node.rows(Instance)) == 2


def test_the_same_instance_at_two_listeners_is_registered_once(node: SteeredNode) -> None:
    answers = at_the_same_time(
        lambda: node.receive(mammogram()),
        lambda: node.receive(replace(mammogram(), spool_name="second")),
    )

    assert sorted(answers) == [[Registration.DUPLICATE], [Registration.NEW]]
    assert len(node.rows(Instance)) == 1
    assert node.actions() == ["instance.stored"]


def test_one_uid_in_two_studies_at_the_same_moment_is_accepted_once(node: SteeredNode) -> None:
    def receive(study: str) -> Registration | type[DatabaseError]:
        try:
            return node.receive(mammogram(study=study, sop_instance_uid="2.25.5"))[0]
        except DatabaseError as error:
            return type(error)

    answers = at_the_same_time(lambda: receive("1.2.1"), lambda: receive("1.2.2"))

    # The slower one sees the row and keeps its own apart, or collides with it and is to be sent again.
    assert answers.count(Registration.NEW) == 1
    assert len(node.rows(Instance, Instance.conflict == 0)) == 1
    assert node.actions().count("instance.stored") == 1


@on_postgresql
def test_a_sweep_passes_over_a_study_that_receives_an_instance_at_this_moment(node: SteeredNode) -> None:
    node.receive(mammogram("R", "CC"), mammogram(study="1.2.9"))
    node.clock.advance(60)
    with node.transaction() as tx:
        register_instance(tx, mammogram("L", "CC"), RULES)
        assert sweep(node) == 1

    assert node.revisions() == [OPEN_1, (1, "complete", "quiet_period")]


def test_an_instance_that_arrives_while_a_sweep_completes_its_study_joins_the_next_revision(
    node: SteeredNode,
) -> None:
    node.receive(mammogram("R", "CC"))
    node.clock.advance(60)
    with ThreadPoolExecutor(1) as listener:
        with node.transaction() as tx:
            assert complete_quiet_studies(tx, RULES) == 1
            late = held_up(node, listener.submit(node.receive, mammogram("L", "CC")))
        assert late.result(timeout=60) == [Registration.NEW]

    assert node.revisions() == [(1, "complete", "quiet_period"), (2, "open", None)]
    assert [i.revision_number for i in node.rows(Instance)] == [1, 2]


def test_a_command_waits_for_the_instance_that_is_being_registered(node: SteeredNode) -> None:
    node.receive(mammogram("R", "CC"))
    with ThreadPoolExecutor(1) as person:
        with node.transaction() as tx:
            register_instance(tx, mammogram("L", "CC"), RULES)
            command = held_up(node, person.submit(node.complete))
        assert command.result(timeout=60) == 1

    assert node.revisions() == [(1, "complete", "command")]
    assert [i.revision_number for i in node.rows(Instance)] == [1, 1]
    assert len(node.jobs()) == 1


def test_two_commands_at_the_same_moment_complete_a_study_once(node: SteeredNode) -> None:
    node.receive(mammogram())

    def command() -> int | type[DatabaseError]:
        try:
            return node.complete()
        except UnknownRecordError as error:
            return type(error)

    answers = at_the_same_time(command, command)

    assert set(answers) == {1, UnknownRecordError}
    assert node.actions().count("study.complete") == 1
    assert len(node.jobs()) == 1

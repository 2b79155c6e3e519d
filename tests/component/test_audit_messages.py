"""A1 to A4: which event becomes which message of PS3.15 A.5.3, and what it says."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import select

from db import deliveries, jobs, queueing
from db.audit.sink_cursor import events_after
from db.lifecycle import DeliveryEvent, JobKind
from db.retention import RECEIVED, RESULTS, OldStudy, audit_removal, confirm, old_study
from db.tables import Study
from db.transfers import Transfers
from dicom_node.audit_messages.events import MESSAGES, message_of
from dicom_node.audit_messages.message import AuditMessage
from tests.audit_schema import faults
from tests.steered_node import (
    COMPREHENSIVE_SR,
    LISTENER,
    MG_FOR_PRESENTATION,
    PACS,
    STUDY,
    SteeredNode,
    four_views,
    mammogram,
    on_sqlite,
    result_object,
)

pytestmark = on_sqlite

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def messages(node: SteeredNode) -> list[ET.Element]:
    """The messages of the trail, each held to the grammar of PS3.15 A.5.1."""
    with node.reading() as session:
        events = events_after(session, 0, limit=1000)
        found = [message_of(Transfers(session), event, ae_title="DICOM_NODE") for event in events]
    for each, message in zip(events, found, strict=True):
        assert message is None or is_announced(each.action, message)
    documents = [ET.fromstring(each.xml("DICOM_NODE")) for each in found if each is not None]
    assert [faults(document) for document in documents] == [[]] * len(documents)
    return documents


def is_announced(action: str, message: AuditMessage) -> bool:
    """Whether the table that the conformance statement is made of names this message for the action."""
    telling = MESSAGES[action]
    return message.event in telling.messages and message.event_type == telling.event_type


def event(document: ET.Element) -> tuple[str, str, str]:
    """Event code, action and outcome."""
    (identification,) = document.iter("EventIdentification")
    (code,) = document.iter("EventID")
    attributes = identification.attrib
    return code.attrib["csd-code"], attributes["EventActionCode"], attributes["EventOutcomeIndicator"]


def roles(document: ET.Element) -> dict[str, str]:
    """User id of each participant by its role."""
    return {
        code.attrib["csd-code"]: participant.attrib["UserID"]
        for participant in document.iter("ActiveParticipant")
        for code in participant.iter("RoleIDCode")
    }


def subjects(document: ET.Element) -> dict[str, str]:
    """What it is about, by the kind of its identifier."""
    return {
        subject.find("ParticipantObjectIDTypeCode").attrib["csd-code"]: subject.attrib["ParticipantObjectID"]  # type: ignore[union-attr]
        for subject in document.iter("ParticipantObjectIdentification")
    }


def instances(document: ET.Element) -> dict[str, int]:
    return {s.attrib["UID"]: int(s.attrib["NumberOfInstances"]) for s in document.iter("SOPClass")}


def of(documents: list[ET.Element], code: str) -> list[ET.Element]:
    return [document for document in documents if event(document)[0] == code]


def deliver(node: SteeredNode, *answers: DeliveryEvent) -> None:
    """Score the study into so many objects, and send them with these answers."""
    node.finish_scoring(node.claimed(), results=[result_object(n) for n in range(len(answers))])
    claim = node.claimed(JobKind.DELIVER)
    with node.reading() as session:
        items = deliveries.outgoing(session, claim)
    with node.transaction(claim.owner) as tx:
        for item, answer in zip(items, answers, strict=True):
            deliveries.record(tx, claim, item.delivery_id, answer, status=0, detail="")
        if set(answers) == {DeliveryEvent.ACCEPTED}:
            jobs.finish(tx, claim)
        else:
            jobs.give_up(tx, claim, code="UNDELIVERABLE", reason="refused an object")


def test_a_study_in_and_out_begins_and_ends_with_equal_counts(node: SteeredNode) -> None:
    """A1."""
    node.receive(*four_views())
    deliver(node, DeliveryEvent.ACCEPTED, DeliveryEvent.ACCEPTED)

    documents = messages(node)

    assert [event(document) for document in documents] == [
        ("110102", "E", "0"),  # the first image comes
        ("110104", "C", "0"),  # the study is complete
        ("110103", "R", "0"),  # it is read
        ("110103", "C", "0"),  # its results are made
        ("110102", "E", "0"),  # they leave
        ("110104", "R", "0"),  # they are there
    ]
    _, came, _, made, leaving, left = documents
    assert instances(came) == {MG_FOR_PRESENTATION: 4}
    assert instances(made) == instances(leaving) == instances(left) == {COMPREHENSIVE_SR: 2}
    assert roles(came) == {"110153": "MAMMO1", "110152": LISTENER}
    assert roles(left)["110152"] == "PACS"
    assert PACS.startswith("PACS@")
    assert [p.attrib.get("NetworkAccessPointID") for p in left.iter("ActiveParticipant")] == [
        "host-a",
        "pacs.example",
    ]


def test_every_message_of_a_transfer_names_its_study_and_one_patient(node: SteeredNode) -> None:
    """A3."""
    node.receive(*four_views(), *four_views("2.25.9"), mammogram(study="2.25.8", patient_id=""))
    node.complete("2.25.8")

    documents = messages(node)

    assert [subjects(document) for document in documents] == [
        {"110180": STUDY, "2": "P-4711"},
        {"110180": STUDY, "2": "P-4711"},
        {"110180": "2.25.9", "2": "P-4711"},
        {"110180": "2.25.9", "2": "P-4711"},
        {"110180": "2.25.8", "2": "<none>"},
        {"110180": "2.25.8", "2": "<none>"},
    ]
    assert [number.attrib["Number"] for number in documents[0].iter("Accession")] == ["A-0815"]


def test_the_beginning_of_a_transfer_names_the_machine_that_sends(node: SteeredNode) -> None:
    node.receive(mammogram(peer_address="10.1.2.3"))

    (begun,) = of(messages(node), "110102")

    assert [p.attrib.get("NetworkAccessPointID") for p in begun.iter("ActiveParticipant")] == [
        "10.1.2.3",
        LISTENER.partition("@")[2].partition(":")[0],
    ]


def test_late_images_are_a_transfer_of_their_own(node: SteeredNode) -> None:
    node.receive(*four_views())
    late = mammogram("R", "ML", calling_ae_title="MAMMO2")
    node.receive(late)
    node.complete()

    transferred = of(messages(node), "110104")

    assert [instances(document) for document in transferred] == [
        {MG_FOR_PRESENTATION: 4},
        {MG_FOR_PRESENTATION: 1},
    ]
    assert [roles(document)["110153"] for document in transferred] == ["MAMMO1", "MAMMO2"]


def test_a_delivery_that_fails_is_told_with_what_arrived(node: SteeredNode) -> None:
    node.receive(*four_views())
    deliver(node, DeliveryEvent.ACCEPTED, DeliveryEvent.REFUSE)

    begun, ended = [d for d in messages(node) if "110152" in roles(d) and roles(d)["110152"] == "PACS"]

    assert (instances(begun), instances(ended)) == ({COMPREHENSIVE_SR: 2}, {COMPREHENSIVE_SR: 1})
    assert event(ended) == ("110104", "R", "8")
    assert [text.text for text in ended.iter("EventOutcomeDescription")] == ["UNDELIVERABLE"]


def test_attempts_after_the_first_begin_no_transfer_but_a_retry_of_what_failed_does(
    node: SteeredNode,
) -> None:
    node.receive(*four_views())
    node.finish_scoring(node.claimed())
    claim = node.claimed(JobKind.DELIVER)
    with node.transaction(claim.owner) as tx:
        jobs.try_later(tx, claim, delay_s=0, code="PACS_AWAY", reason="nobody listens")
    again = node.claimed(JobKind.DELIVER)
    assert len(of(messages(node), "110102")) == 2, "one in, one out"

    with node.transaction(again.owner) as tx:
        jobs.give_up(tx, again, code="UNDELIVERABLE", reason="refused")
    with node.transaction("anna@host-a") as tx:
        queueing.retry(tx, again.job_id)
    node.claimed(JobKind.DELIVER)

    assert len(of(messages(node), "110102")) == 3


@pytest.mark.parametrize(
    ("action", "detail", "expected", "kind"),
    [
        ("process.started", {"process": "x", "kind": "listen"}, ("110100", "E", "0"), "110120"),
        ("process.stopped", {"process": "x"}, ("110100", "E", "0"), "110121"),
        ("audit.queried", {"events": 3}, ("110101", "R", "0"), None),
        ("audit.exported", {"events": 3}, ("110101", "R", "0"), None),
        ("audit.verified", {"ok": True}, ("110101", "R", "0"), None),
        ("audit.verified", {"ok": False}, ("110101", "R", "8"), None),
        ("association.rejected", {"reason": "calling AE title"}, ("110113", "E", "4"), "110126"),
        ("security.tls_refused", {"reason": "no certificate"}, ("110113", "E", "4"), "110126"),
        ("security.exception_allowed", {"setting": "x"}, ("110113", "E", "0"), "110129"),
        ("account.added", {"user": "bert"}, ("110113", "E", "0"), "110137"),
        ("account.removed", {"user": "bert"}, ("110113", "E", "0"), "110137"),
        ("audit.rotate_key", {"old_key_id": "a", "new_key_id": "b"}, ("110113", "E", "0"), "110129"),
        ("bundle.activated", {"task": "t"}, ("110113", "E", "0"), "110131"),
        ("bundle.canary", {"task": "t"}, ("110113", "E", "0"), "110131"),
        ("bundle.promoted", {"task": "t"}, ("110113", "E", "0"), "110131"),
        ("bundle.shadowed", {"task": "t"}, ("110113", "E", "0"), "110131"),
        ("node.configured", {"digest": "a", "settings": {}}, ("110113", "E", "0"), "110131"),
        ("bundle.rolled_back", {"task": "t"}, ("110113", "E", "0"), "110131"),
    ],
)
def test_events_without_a_patient(
    node: SteeredNode,
    action: str,
    detail: dict[str, object],
    expected: tuple[str, str, str],
    kind: str | None,
) -> None:
    """A4."""
    with node.transaction("anna@host-a") as tx:
        tx.audit(action, detail=detail)

    (document,) = messages(node)

    assert event(document) == expected
    assert [code.attrib["csd-code"] for code in document.iter("EventTypeCode")] == ([kind] if kind else [])
    assert next(document.iter("ActiveParticipant")).attrib["UserID"] == "anna@host-a"
    assert "2" not in subjects(document), "no patient"


def test_an_exported_result_is_told(node: SteeredNode) -> None:
    node.receive(mammogram())
    with node.transaction("anna@host-a") as tx:
        tx.audit("result.exported", study_instance_uid=STUDY, job_id="j", detail={"objects": 2})

    document = messages(node)[-1]

    assert event(document) == ("110106", "R", "0")
    assert roles(document)["110153"] == "anna@host-a"


def test_the_removal_of_the_files_of_a_study_is_told_as_a_study_deleted(node: SteeredNode) -> None:
    node.receive(mammogram())
    with node.transaction("dispatch@host-a:7") as tx:
        (study_id,) = tx.session.scalars(select(Study.id))
        old = old_study(tx.session, RECEIVED, study_id, before=datetime.max.replace(tzinfo=UTC))
        assert old is None, "it is not complete"
    node.complete()
    node.finish_scoring(node.claimed(), destinations=[])
    with node.transaction("dispatch@host-a:7") as tx:
        old = confirm(tx, RECEIVED, study_id, before=datetime.max.replace(tzinfo=UTC))
        assert old is not None
        audit_removal(tx, RECEIVED, old, files=1, size_bytes=1000, rule="for a test")

    document = messages(node)[-1]

    assert event(document) == ("110105", "D", "0")
    assert subjects(document) == {"110180": STUDY, "2": "P-4711"}


def test_the_removal_of_results_is_told_as_an_access_that_deletes_for_the_study_stays(
    node: SteeredNode,
) -> None:
    """PS3.15 A.5.3.6."""
    node.receive(mammogram())
    with node.transaction("dispatch@host-a:7") as tx:
        old = OldStudy(STUDY, node.clock.time, ())
        audit_removal(tx, RESULTS, old, files=3, size_bytes=1000, rule="for a test")

    document = messages(node)[-1]

    assert event(document) == ("110103", "D", "0")
    assert subjects(document) == {"110180": STUDY, "2": "P-4711"}


def test_a_query_of_an_archive_is_told_with_its_keys(node: SteeredNode) -> None:
    """PS3.15 A.5.3.10."""
    identifier = base64.b64encode(b"keys").decode()
    with node.transaction("anna@host-a") as tx:
        detail = {
            "destination": PACS,
            "sop_class_uid": STUDY_ROOT_FIND,
            "transfer_syntax_uid": "1.2.840.10008.1.2",
            "query": identifier,
        }
        tx.audit("destination.queried", detail=detail)

    (document,) = messages(node)

    assert event(document) == ("110112", "E", "0")
    assert roles(document) == {"110153": "anna@host-a", "110152": "PACS"}
    requestors = [p.attrib["UserIsRequestor"] for p in document.iter("ActiveParticipant")]
    assert requestors == ["true", "false"]
    assert subjects(document) == {"110181": STUDY_ROOT_FIND}
    assert [query.text for query in document.iter("ParticipantObjectQuery")] == [identifier]
    (syntax,) = document.iter("ParticipantObjectDetail")
    assert syntax.attrib["type"] == "TransferSyntax"
    assert base64.b64decode(syntax.attrib["value"]) == b"1.2.840.10008.1.2"


def test_what_the_standard_has_no_message_for_is_left_out(node: SteeredNode) -> None:
    with node.transaction() as tx:
        tx.audit("job.queued", job_id="j", detail={"kind": "train"})
        tx.audit("clock.stepped")
    assert messages(node) == []


def test_a_study_that_the_database_does_not_know_costs_no_message_of_others(node: SteeredNode) -> None:
    with node.transaction() as tx:
        tx.audit("study.complete", study_instance_uid="2.25.77", detail={"revision": 1})
        tx.audit("instance.stored", study_instance_uid="2.25.77", detail={"revision": 1})
        tx.audit("account.added", detail={"user": "bert"})
    assert [event(document)[0] for document in messages(node)] == ["110113"]

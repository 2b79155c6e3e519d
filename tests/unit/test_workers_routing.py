"""Which results are withdrawn where, and what each destination gets: its kinds, then its rejection note."""

from __future__ import annotations

import pytest

from db.lifecycle import CompletionReason
from db.scoring import OrderedObject, ScoreInput, SupersededDelivery
from db.tables import ResultObject
from dicom_node.delivery.destination import Destination
from dicom_node.results.builders import build_all
from dicom_node.results.profiles import Profile, Route
from tests import results_contexts as given
from workers.routing import Withdrawal, orders, withdrawals

WITHDRAWS, KEEPS, CONFIGURED_NO_MORE = "A@host:1", "B@host:2", "C@host:3"
ROUTES = (
    Route(Destination.parse(WITHDRAWS), Profile("a", ("text_report",), withdraws=True)),
    Route(Destination.parse(KEEPS), Profile("b", ("measurement_report", "text_report"), sr_class="comp")),
)
CONTEXT = given.positive(revision=2)


def held() -> tuple[SupersededDelivery, ...]:
    """What an earlier revision left: two results at the first two destinations, one of them at the third."""
    results = [
        ResultObject(
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_instance_uid=item.series_instance_uid,
        )
        for item in build_all(given.positive(), ("text_report", "measurement_report"))
    ]
    destinations = ((WITHDRAWS, results), (KEEPS, results), (CONFIGURED_NO_MORE, results[:1]))
    return tuple(
        SupersededDelivery(10 * place + number, destination, result)
        for place, (destination, there) in enumerate(destinations)
        for number, result in enumerate(there, start=1)
    )


def withdrawn(reason: CompletionReason) -> dict[str, Withdrawal]:
    work = ScoreInput("2.25.5", 2, reason, (), (), held())
    return {each.destination: each for each in withdrawals(work, CONTEXT, ROUTES)}


def title(withdrawal: Withdrawal) -> str:
    return str(given.read(withdrawal.note).ConceptNameCodeSequence[0].CodeMeaning)


@pytest.mark.parametrize("reason", sorted(set(CompletionReason) - {CompletionReason.RECALL}))
def test_what_a_later_revision_replaces_is_withdrawn_where_the_profile_says_so(
    reason: CompletionReason,
) -> None:
    (found,) = withdrawn(reason).values()
    assert (found.destination, found.delivery_ids) == (WITHDRAWS, (1, 2))
    assert "Quality" in title(found)


def test_after_a_recall_everything_is_withdrawn_wherever_it_is() -> None:
    found = withdrawn(CompletionReason.RECALL)
    assert {where: each.delivery_ids for where, each in found.items()} == {
        WITHDRAWS: (1, 2),
        KEEPS: (11, 12),
        CONFIGURED_NO_MORE: (21,),
    }
    assert all("Patient Safety" in title(each) for each in found.values())
    notes = {where: each.note.sop_instance_uid for where, each in found.items()}
    assert notes[WITHDRAWS] == notes[KEEPS] != notes[CONFIGURED_NO_MORE]


@pytest.mark.parametrize("reason", [CompletionReason.RECALL, CompletionReason.ALL_VIEWS])
def test_a_destination_gets_the_kinds_of_its_profile_and_then_its_note(reason: CompletionReason) -> None:
    built = build_all(CONTEXT, ("segmentation", "text_report", "measurement_report_2d"))
    uid_of = {item.kind: item.sop_instance_uid for item in built}
    taken_back = withdrawn(reason)

    ordered = orders(
        ROUTES, built, tuple(taken_back.values()), wanted_by=lambda profile: profile.wanted(localises=False)
    )

    expected = {WITHDRAWS: [uid_of["text_report"]], KEEPS: []}
    expected[KEEPS] = [item.sop_instance_uid for item in built if item.kind != "segmentation"]
    for where, withdrawal in taken_back.items():
        expected.setdefault(where, []).append(withdrawal.note.sop_instance_uid)
    assert {order.destination: list(order.objects) for order in ordered} == {
        where: [OrderedObject(uid) for uid in uids] for where, uids in expected.items()
    }

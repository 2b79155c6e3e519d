"""Which object goes where: the profiles' choice for each destination, and what is withdrawn there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from db.lifecycle import CompletionReason
from db.scoring import DeliveryOrder, OrderedObject, ScoreInput, SupersededDelivery
from dicom_node.results.builders import finished
from dicom_node.results.context import Analysis, BuiltObject
from dicom_node.results.profiles import Profile, Route, Wanted
from dicom_node.results.rejection_note import KIND, Rejected, RejectionReason, build


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a rejection note takes back at one destination.

    Attributes
    ----------
    destination : str
        ``AE@HOST:PORT``.
    note : BuiltObject
        The note; destinations that hold the same objects share it.
    delivery_ids : tuple of int
        The deliveries that it withdraws.
    """

    destination: str
    note: BuiltObject
    delivery_ids: tuple[int, ...]


def withdrawals(work: ScoreInput, context: Analysis, routes: Sequence[Route]) -> tuple[Withdrawal, ...]:
    """Build the rejection notes of a revision.

    After a recall everything that was delivered is withdrawn wherever it is; otherwise the profile decides.

    Parameters
    ----------
    work : ScoreInput
        Where earlier results are.
    context : Analysis
        What the new results are made from.
    routes : sequence of Route
        The node's destinations.
    """
    is_recall = work.reason is CompletionReason.RECALL
    reason = RejectionReason.RECALLED if is_recall else RejectionReason.SUPERSEDED
    withdrawing = {str(route.destination) for route in routes if route.profile.withdraws}
    held: dict[str, list[SupersededDelivery]] = {}
    for item in work.superseded:
        if is_recall or item.destination in withdrawing:
            held.setdefault(item.destination, []).append(item)
    notes: dict[tuple[Rejected, ...], BuiltObject] = {}
    found = []
    for destination in sorted(held):
        items = held[destination]
        rejected = tuple(
            Rejected(i.result.sop_class_uid, i.result.sop_instance_uid, i.result.series_instance_uid)
            for i in items
        )
        if rejected not in notes:
            notes[rejected] = finished(KIND, build(context, reason, rejected, len(notes)), context)
        found.append(Withdrawal(destination, notes[rejected], tuple(i.delivery_id for i in items)))
    return tuple(found)


def orders(
    routes: Sequence[Route],
    built: Sequence[BuiltObject],
    withdrawn: Sequence[Withdrawal],
    *,
    wanted_by: Callable[[Profile], tuple[Wanted, ...]],
) -> tuple[DeliveryOrder, ...]:
    """Say what each destination gets: the kinds of its profile, then its rejection note.

    Parameters
    ----------
    routes : sequence of Route
        The node's destinations.
    built : sequence of BuiltObject
        The revision's results.
    withdrawn : sequence of Withdrawal
        What is taken back, also at destinations that are configured no more.
    wanted_by : callable
        The kinds that a profile asks for.

    Returns
    -------
    tuple of DeliveryOrder
        None for a destination that gets nothing.
    """
    notes = {withdrawal.destination: withdrawal for withdrawal in withdrawn}
    wanted = {str(route.destination): _wanted(wanted_by(route.profile), built) for route in routes}
    return tuple(
        _order(destination, wanted.get(destination, ()), notes.get(destination))
        for destination in dict.fromkeys([*wanted, *notes])
        if wanted.get(destination) or destination in notes
    )


def _wanted(wanted: Sequence[Wanted], built: Sequence[BuiltObject]) -> tuple[OrderedObject, ...]:
    fallbacks = {w.kind: w.fallback_for for w in wanted}
    uids_of: dict[str, list[str]] = {}
    for item in built:
        uids_of.setdefault(item.kind, []).append(item.sop_instance_uid)
    # The first of a kind stands for the first of the kind that is preferred to it, and so on.
    preferred_to = {
        uid: preferred
        for kind, fallback_for in fallbacks.items()
        if fallback_for is not None
        for uid, preferred in zip(uids_of.get(kind, ()), uids_of.get(fallback_for, ()), strict=False)
    }
    return tuple(
        OrderedObject(item.sop_instance_uid, preferred_to.get(item.sop_instance_uid))
        for item in built
        if item.kind in fallbacks
    )


def _order(
    destination: str, objects: tuple[OrderedObject, ...], withdrawal: Withdrawal | None
) -> DeliveryOrder:
    if withdrawal is None:
        return DeliveryOrder(destination, objects)
    note = withdrawal.note.sop_instance_uid
    return DeliveryOrder(destination, (*objects, OrderedObject(note)), note, withdrawal.delivery_ids)

"""Sending stored objects to one destination by C-STORE, and asking by C-ECHO whether it listens.

Decides what each object's state is after the attempt. When to try again is :mod:`workers.retry`'s business.
The bytes that were stored are the bytes that are sent: no value is decoded or encoded again, so an object
sent twice is the same object. A destination that takes the default transfer syntax alone gets the same values
in that.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification

from dicom_node.delivery.association import Association, DeliveryTimeouts, Requestor, request_association
from dicom_node.delivery.default_syntax import DEFAULT_TRANSFER_SYNTAX, in_default_syntax
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.negotiation import MOST_CONTEXTS, Context
from dicom_node.delivery.status import SendState, meaning_of
from dicom_node.errors import DestinationUnavailableError, SpoolError

__all__ = [
    "DeliveryTimeouts",
    "EchoResult",
    "Outgoing",
    "Requestor",
    "SendResult",
    "SendState",
    "echo",
    "send",
]


@dataclass(frozen=True)
class Outgoing:
    """One stored object to send.

    Parameters
    ----------
    sop_instance_uid, sop_class_uid, transfer_syntax_uid : str
        As in the file's meta information.
    path : Path
        The Part 10 file.
    fallback_for : str or None
        SOP Instance UID of the object that is sent rather than this one where the destination accepts its
        presentation context.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: Path
    fallback_for: str | None = None

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The presentation contexts that can carry this object, that of its file first."""
        own = (self.sop_class_uid, self.transfer_syntax_uid)
        if self.transfer_syntax_uid != ExplicitVRLittleEndian:
            return (own,)
        # PS3.5 10.1: whoever proposes a class proposes it in the default transfer syntax, too.
        return own, (self.sop_class_uid, DEFAULT_TRANSFER_SYNTAX)


@dataclass(frozen=True)
class SendResult:
    """How sending one object ended.

    Parameters
    ----------
    sop_instance_uid : str
        The object.
    state : SendState
        Delivered, unknown, to be tried again, refused, or not needed.
    status : int or None
        Status (0000,0900) of the response, None where no valid response came.
    detail : str
        For the operator; never patient data.
    associated : bool
        Whether there was an association at all.
    """

    sop_instance_uid: str
    state: SendState
    status: int | None
    detail: str
    associated: bool = True

    @property
    def is_warning(self) -> bool:
        """Whether the destination stored the object with a warning (PS3.4 B.2.3, Bxxx)."""
        return self.status is not None and meaning_of(self.status).is_warning


@dataclass(frozen=True)
class EchoResult:
    """How a C-ECHO ended.

    Parameters
    ----------
    ok : bool
        Whether the destination answered with success.
    detail : str
        For the operator: what is wrong and what to look at.
    seconds : float
        From connecting to the end of the association.
    """

    ok: bool
    detail: str
    seconds: float


def send(
    objects: Sequence[Outgoing],
    destination: Destination,
    requestor: Requestor,
    *,
    on_result: Callable[[str, SendResult], None],
) -> tuple[SendResult, ...]:
    """Send objects over one association, in order, until all are answered or the association fails.

    Whatever the destination does, this returns within the time-outs, and neither thread nor socket outlives
    it. Objects that come after a fault are not sent and are to be tried again.

    Parameters
    ----------
    objects : sequence of Outgoing
        At most 128 different pairs of SOP class and transfer syntax.
    destination : Destination
        The storage SCP.
    requestor : Requestor
        Who sends, and how long it waits.
    on_result : callable
        Called with the SOP Instance UID and its result as soon as that is known, so that the caller can
        record it before the next object is sent. What it raises aborts the association and is passed on.

    Returns
    -------
    tuple of SendResult
        One per object, in their order.

    Raises
    ------
    ValueError
        If the objects need more presentation contexts than one association has.
    """
    if not objects:
        return ()
    contexts = _contexts_of(objects)
    results: list[SendResult] = []

    def record(result: SendResult) -> None:
        results.append(result)
        on_result(result.sop_instance_uid, result)

    try:
        association = request_association(destination, requestor, contexts)
    except DestinationUnavailableError as exc:
        for item in objects:
            record(_unsent(item, str(exc), associated=False))
        return tuple(results)
    with association:
        for result in _settled(association, objects):
            record(result)
    ended = f"not sent: the association had ended ({results[-1].detail})"
    for item in objects[len(results) :]:
        record(_unsent(item, ended))
    return tuple(results)


def echo(destination: Destination, requestor: Requestor) -> EchoResult:
    """Ask a destination by C-ECHO whether it listens and knows this node.

    Parameters
    ----------
    destination : Destination
        The SCP.
    requestor : Requestor
        Who asks, and how long it waits.

    Returns
    -------
    EchoResult
        Nothing is raised for what the destination does.
    """
    start = time.monotonic()
    contexts = [
        (str(Verification), str(syntax)) for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    ]
    try:
        with request_association(destination, requestor, contexts) as association:
            accepted = next((context for context in contexts if association.accepts(context)), None)
            if accepted is None:
                ok, detail = False, "the destination offers no verification service (C-ECHO)"
            else:
                status = association.echo_status(accepted)
                ok, detail = status == 0, f"C-ECHO answered with status {status:04X}"
    except DestinationUnavailableError as exc:
        ok, detail = False, str(exc)
    return EchoResult(ok, detail, time.monotonic() - start)


def _contexts_of(objects: Sequence[Outgoing]) -> list[Context]:
    contexts = list(dict.fromkeys(context for item in objects for context in item.contexts))
    if len(contexts) > MOST_CONTEXTS:
        raise ValueError(
            f"{len(contexts)} pairs of SOP class and transfer syntax; send at most {MOST_CONTEXTS} at once"
        )
    return contexts


def _settled(association: Association, objects: Sequence[Outgoing]) -> Iterator[SendResult]:
    """Send objects in their order until the association fails; yield what came of each before the next."""
    needless = _needless(association, objects)
    for item in objects:
        if item.sop_instance_uid in needless:
            detail = "sent as an object of another class"
            yield SendResult(item.sop_instance_uid, SendState.NOT_NEEDED, None, detail)
            continue
        yield _sent(association, item)
        if not association.is_usable:
            return


def _unsent(item: Outgoing, detail: str, *, associated: bool = True) -> SendResult:
    return SendResult(item.sop_instance_uid, SendState.TRY_AGAIN, None, detail, associated)


def _needless(association: Association, objects: Sequence[Outgoing]) -> set[str]:
    """Choose between each object and its fallback by what the association accepts.

    Where it accepts neither, both are sent, that is refused: a person must look.
    """
    by_uid = {item.sop_instance_uid: item for item in objects}
    needless = set()
    for fallback in objects:
        preferred = by_uid.get(fallback.fallback_for or "")
        if preferred is None:
            continue
        if _accepted(association, preferred):
            needless.add(fallback.sop_instance_uid)
        elif _accepted(association, fallback):
            needless.add(preferred.sop_instance_uid)
    return needless


def _accepted(association: Association, item: Outgoing) -> Context | None:
    """Return the presentation context in which an object is sent; None where there is none."""
    return next((context for context in item.contexts if association.accepts(context)), None)


def _sent(association: Association, item: Outgoing) -> SendResult:
    """Send one object and classify what came of it."""
    context = _accepted(association, item)
    if context is None:
        return SendResult(item.sop_instance_uid, SendState.REFUSED, None, _not_accepted(association, item))
    try:
        data_set = _opened_data_set(item)
        if context != item.contexts[0]:
            data_set = _rewritten(data_set)
    except SpoolError as exc:
        return SendResult(item.sop_instance_uid, SendState.REFUSED, None, str(exc))
    except OSError as exc:
        code = errno.errorcode.get(exc.errno or 0, "unknown")
        detail = f"not sent: the disk refused the stored result ({code}); look at the data directory's disk"
        return SendResult(item.sop_instance_uid, SendState.TRY_AGAIN, None, detail)
    with data_set:
        try:
            association.begin_store(context, item.sop_instance_uid, data_set)
        except DestinationUnavailableError as exc:
            # Its last bytes never left: the destination cannot have it.
            return SendResult(item.sop_instance_uid, SendState.TRY_AGAIN, None, str(exc))
        try:
            status = association.store_status(context)
        except DestinationUnavailableError as exc:
            return SendResult(item.sop_instance_uid, SendState.UNKNOWN, None, str(exc))
    row = meaning_of(status)
    return SendResult(item.sop_instance_uid, row.state, status, f"{status:04X}: {row.meaning}")


def _not_accepted(association: Association, item: Outgoing) -> str:
    return (
        f"the destination does not accept {UID(item.sop_class_uid).name} in "
        f"{UID(item.transfer_syntax_uid).name} ({association.reason_against(item.contexts[0])}); see its "
        "conformance statement"
    )


def _rewritten(data_set: BinaryIO) -> BinaryIO:
    """Give a data set in the default transfer syntax.

    Raises
    ------
    SpoolError
        If it is damaged.
    OSError
        If the machine fails.
    """
    with data_set:
        try:
            return BytesIO(in_default_syntax(data_set.read()))
        except ValueError as exc:
            raise SpoolError(
                f"not sent: the stored result cannot be rewritten ({exc}); restore the data directory from "
                "its backup"
            ) from exc


def _opened_data_set(item: Outgoing) -> BinaryIO:
    """Open the stored file at the first byte of its data set.

    Raises
    ------
    SpoolError
        If the file is missing, damaged, or holds another object than it should.
    OSError
        If the machine fails, which says nothing about the file.
    """
    try:
        file_meta, offset = split_dataset(item.path)
        found = (
            file_meta.MediaStorageSOPInstanceUID,
            file_meta.MediaStorageSOPClassUID,
            file_meta.TransferSyntaxUID,
        )
        is_empty = item.path.stat().st_size <= offset
        data_set = item.path.open("rb")
        data_set.seek(offset)
    except Exception as exc:
        # pydicom also raises OSError, without a number, for a damaged file.
        if isinstance(exc, OSError) and exc.errno is not None and not isinstance(exc, FileNotFoundError):
            raise
        # What reading a damaged file raises has no common base.
        raise SpoolError(
            "not sent: the stored result cannot be read; restore the data directory from its backup"
        ) from exc
    if is_empty or found != (item.sop_instance_uid, item.sop_class_uid, item.transfer_syntax_uid):
        data_set.close()
        raise SpoolError(
            "not sent: the stored file is another object than it should be; restore the data directory from "
            "its backup"
        )
    return data_set

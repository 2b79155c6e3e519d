"""Asking an archive by C-FIND which series of a study it holds (PS3.4 C.4.1, study root)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node.delivery.association import Requestor
from dicom_node.delivery.destination import Destination
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

ENCODING = ImplicitVRLittleEndian
_PENDING = (0xFF00, 0xFF01)
_MOST_ANSWERS = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """What an archive is asked.

    Attributes
    ----------
    sop_class_uid, transfer_syntax_uid : str
        Of the identifier.
    identifier : bytes
        The keys, encoded.
    """

    sop_class_uid: str
    transfer_syntax_uid: str
    identifier: bytes


OnQuery = Callable[[Query], None]
"""Told of a query before it is asked; raises to keep it from being asked."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an archive answered.

    Attributes
    ----------
    is_offered : bool
        Whether it answers queries at all.
    series_instance_uids : frozenset of str
        The series of the study that it named.
    detail : str
        For the operator; never patient data.
    """

    is_offered: bool
    series_instance_uids: frozenset[str]
    detail: str


def find_series(
    destination: Destination,
    requestor: Requestor,
    study_instance_uid: str,
    *,
    on_query: OnQuery,
) -> Found:
    """Ask for the series of one study.

    Parameters
    ----------
    destination : Destination
        The archive.
    requestor : Requestor
        Who asks, and how long it waits.
    study_instance_uid : str
        The study.
    on_query : callable
        Told of the query, where the archive takes any.

    Returns
    -------
    Found
        Nothing is raised for what the archive does.
    """
    timeouts, tls = requestor.timeouts, requestor.tls_for(destination)
    ae = AE(ae_title=requestor.ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = timeouts.connect_s
    ae.acse_timeout = timeouts.acse_s
    ae.dimse_timeout = ae.network_timeout = timeouts.dimse_s
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = ae.associate(
        destination.host,
        destination.port,
        ae_title=destination.ae_title,
        tls_args=None if tls is None else (tls, destination.host),
    )
    if not association.is_established:
        return Found(False, frozenset(), "it offers no query (C-FIND, study root) to this node")
    try:
        return _answers(association, study_instance_uid, on_query)
    finally:
        if association.is_established:
            association.release()


def _answers(association: Association, study_instance_uid: str, on_query: OnQuery) -> Found:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = ""
    identifier = encode(query, ENCODING.is_implicit_VR, ENCODING.is_little_endian) or b""
    on_query(Query(StudyRootQueryRetrieveInformationModelFind, ENCODING, identifier))
    found: set[str] = set()
    last = None
    for status, identifier in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
        last = status.get("Status")
        if last in _PENDING and identifier is not None and len(found) < _MOST_ANSWERS:
            found.add(str(UID(identifier.get("SeriesInstanceUID", ""))))
    if last is None:
        return Found(True, frozenset(found), "the association ended before the query was answered")
    return Found(True, frozenset(found), f"C-FIND ended with status {last:04X}")

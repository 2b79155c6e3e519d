"""The node names itself alike wherever DICOM asks who wrote or speaks (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_node.delivery.destination import Destination
from dicom_node.delivery.negotiation import encoded_request
from dicom_node.results.builders import build_all
from tests import results_contexts as given
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    encoded,
    listening,
    mammogram,
    uid_of,
)
from tests.simulators.raw_scu import IMPLICIT_LITTLE, VERIFICATION

NAME = ("2.25.335047824521173192212125332204764371636", "DICOM_NODE")


def test_associations_of_either_role_and_files_of_either_origin_name_one_implementation(
    tmp_path: Path,
) -> None:
    asked = A_ASSOCIATE_RQ()
    asked.decode(
        encoded_request(Destination("PACS", "localhost", 104), "NODE", [(VERIFICATION, IMPLICIT_LITTLE)])
    )
    information = asked.user_information
    assert (information.implementation_class_uid, information.implementation_version_name) == NAME

    result = dcmread(BytesIO(build_all(given.negative())[0].content)).file_meta
    assert (result.ImplementationClassUID, result.ImplementationVersionName) == NAME

    with listening(tmp_path) as node:
        peer = AE()
        peer.add_requested_context(VERIFICATION)
        association = peer.associate("127.0.0.1", node.port)
        acceptor = association.acceptor
        association.release()
        assert (acceptor.implementation_class_uid, acceptor.implementation_version_name) == NAME
        with node.scu(MG_FOR_PRESENTATION, EXPLICIT_LITTLE) as scu:
            scu.store(encoded(mammogram()), MG_FOR_PRESENTATION, uid_of(mammogram()))
        (received,) = (dcmread(path).file_meta for path in node.files())
    assert (received.ImplementationClassUID, received.ImplementationVersionName) == NAME

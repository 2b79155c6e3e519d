"""T26: private elements of a device, and what a result does not need, leave the node in no result."""

from __future__ import annotations

from pydicom import Dataset

from dicom_node.results.builders import RESULT_BUILDERS, build_all
from tests import localised_contexts as localised
from tests import results_contexts as given

CANARY = "ZZCANARYPRIVATE"
NOT_NEEDED = (
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientComments",
    "OperatorsName",
    "ImageComments",
)


def images_that_tell_too_much() -> tuple[Dataset, ...]:
    images = given.sources(**dict.fromkeys(NOT_NEEDED, CANARY))
    for image in images:
        block = image.private_block(0x0011, "A VENDOR", create=True)
        block.add_new(0x01, "LO", CANARY)
        inner = Dataset()
        inner.private_block(0x0013, "A VENDOR", create=True).add_new(0x02, "PN", CANARY)
        block.add_new(0x03, "SQ", [inner])
        image.private_block(0x0009, "A VENDOR", create=True).add_new(0x04, "UN", CANARY.encode())
    return images


def test_t26_no_result_carries_a_private_element_or_what_it_does_not_need() -> None:
    built = build_all(localised.masses(images_that_tell_too_much()), RESULT_BUILDERS)
    assert len({item.kind for item in built}) > 5
    for item in built:
        dataset = given.read(item)
        private = [element.tag for element in dataset.iterall() if element.tag.is_private]
        assert not private, item.kind
        assert CANARY.encode() not in item.content, item.kind

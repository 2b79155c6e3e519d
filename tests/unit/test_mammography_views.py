"""Side, view and traits as mammography headers state them."""

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
)

from dicom_node.mammography_views import ROUTING_KEYWORDS, routing_facts
from models.contract import ImageTrait, Laterality
from training.datasets.phantom_objects import study


def header(**elements: object) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    return data_set


def code(value: str, scheme: str = "SCT", modifiers: list[Dataset] | None = None) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    if modifiers is not None:
        item.ViewModifierCodeSequence = modifiers
    return item


@pytest.mark.parametrize(
    ("value", "scheme", "view"),
    [
        ("399162004", "SCT", "CC"),
        ("399368009", "SCT", "MLO"),
        ("R-10242", "SRT", "CC"),
        ("R-10226", "SRT", "MLO"),
        ("R-10226", "SNM3", "MLO"),
        ("399260004", "SCT", None),  # medio-lateral
        ("399192008", "SCT", None),  # cranio-caudal exaggerated laterally
        ("127457009", "SCT", None),  # tissue specimen
    ],
)
def test_the_view_code_names_the_view(value: str, scheme: str, view: str | None) -> None:
    assert routing_facts(header(ViewCodeSequence=[code(value, scheme)])).view == view


def test_the_view_code_wins_over_the_view_position() -> None:
    facts = routing_facts(header(ViewCodeSequence=[code("399260004")], ViewPosition="CC"))

    assert facts.view is None


@pytest.mark.parametrize(
    ("position", "view"), [("CC", "CC"), ("MLO ", "MLO"), ("ML", None), ("XCCL", None), ("", None)]
)
def test_the_view_position_is_read_where_no_code_is(position: str, view: str | None) -> None:
    assert routing_facts(header(ViewPosition=position)).view == view
    assert routing_facts(header(ViewPosition=position, ViewCodeSequence=[])).view == view


def test_a_private_code_leaves_the_view_position_its_say() -> None:
    facts = routing_facts(header(ViewCodeSequence=[code("V1", "99LOCAL")], ViewPosition="CC"))

    assert facts.view == "CC"


@pytest.mark.parametrize(
    ("elements", "side"),
    [
        ({"ImageLaterality": "R"}, Laterality.RIGHT),
        ({"ImageLaterality": "L", "Laterality": "R"}, Laterality.LEFT),
        ({"Laterality": "R"}, Laterality.RIGHT),
        ({"ImageLaterality": "", "Laterality": "L"}, Laterality.LEFT),
        ({"ImageLaterality": "B", "Laterality": "L"}, None),
        ({"ImageLaterality": "U"}, None),
        ({}, None),
    ],
)
def test_the_side_is_that_of_the_image_then_that_of_the_series(
    elements: dict[str, str], side: Laterality | None
) -> None:
    assert routing_facts(header(**elements)).laterality == side


def test_a_tomosynthesis_object_states_its_side_in_the_shared_functional_groups() -> None:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = "L"
    group.FrameAnatomySequence = [anatomy]
    facts = routing_facts(
        header(SOPClassUID=BreastTomosynthesisImageStorage, SharedFunctionalGroupsSequence=[group])
    )

    assert facts.laterality is Laterality.LEFT
    assert facts.traits == {ImageTrait.TOMOSYNTHESIS}


@pytest.mark.parametrize(
    ("elements", "trait"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, ImageTrait.FOR_PROCESSING),
        ({"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing}, ImageTrait.FOR_PROCESSING),
        ({"BreastImplantPresent": "YES"}, ImageTrait.IMPLANT),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, ImageTrait.MAGNIFICATION),
        ({"PartialView": "YES"}, ImageTrait.PARTIAL_VIEW),
        ({"NumberOfFrames": "2"}, ImageTrait.TOMOSYNTHESIS),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]}, ImageTrait.SYNTHETIC_2D),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "", "SPECIMEN"]}, ImageTrait.SPECIMEN),
        ({"ViewCodeSequence": [code("G-8310", "SRT")]}, ImageTrait.SPECIMEN),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_SCOUT"]}, ImageTrait.BIOPSY),
    ],
)
def test_each_trait_is_read_from_its_element(elements: dict[str, object], trait: ImageTrait) -> None:
    assert routing_facts(header(**elements)).traits == {trait}


@pytest.mark.parametrize(
    ("value", "scheme", "trait", "view"),
    [
        ("399163009", "SCT", ImageTrait.MAGNIFICATION, "CC"),
        ("R-102D6", "SRT", ImageTrait.MAGNIFICATION, "CC"),
        ("399055006", "SCT", ImageTrait.SPOT_COMPRESSION, "CC"),
        ("R-102D7", "SRT", ImageTrait.SPOT_COMPRESSION, "CC"),
        ("399209000", "SCT", None, "CC"),  # implant displaced
        ("442581004", "SCT", None, "CC"),  # nipple in profile
        ("399226006", "SCT", None, None),  # rolled medial
        ("399161006", "SCT", None, None),  # cleavage
    ],
)
def test_a_view_modifier_is_a_trait_or_makes_another_view(
    value: str, scheme: str, trait: ImageTrait | None, view: str | None
) -> None:
    nested = header(ViewCodeSequence=[code("399162004", modifiers=[code(value, scheme)])])
    beside = header(ViewCodeSequence=[code("399162004")], ViewModifierCodeSequence=[code(value, scheme)])

    for facts in (routing_facts(nested), routing_facts(beside)):
        assert facts.traits == ({trait} if trait else set())
        assert facts.view == view


def test_an_implant_that_is_displaced_is_no_reason_to_refuse() -> None:
    view = code("399368009", modifiers=[code("399209000")])
    facts = routing_facts(header(BreastImplantPresent="YES", ViewCodeSequence=[view]))

    assert ImageTrait.IMPLANT not in facts.traits
    assert facts.view == "MLO"


@pytest.mark.parametrize(
    ("elements", "meant_to_be_read"),
    [
        ({"PresentationIntentType": "FOR PRESENTATION"}, True),
        ({"PresentationIntentType": "FOR PROCESSING"}, False),
        ({}, True),
        ({"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing}, False),
        ({"SOPClassUID": CTImageStorage}, False),
    ],
)
def test_the_intent_says_whether_the_image_is_meant_to_be_read(
    elements: dict[str, str], meant_to_be_read: bool
) -> None:
    assert routing_facts(header(**elements)).for_presentation is meant_to_be_read


def test_the_elements_named_for_routing_are_enough() -> None:
    for image in study(rows=64, columns=64):
        routing = Dataset()
        for keyword in ROUTING_KEYWORDS:
            if keyword in image:
                routing[keyword] = image[keyword]

        assert routing_facts(routing) == routing_facts(image)
        assert routing_facts(image).view == image.ViewPosition
        assert routing_facts(image).traits == frozenset()


def test_an_empty_header_says_nothing() -> None:
    facts = routing_facts(Dataset())

    assert (facts.laterality, facts.view, facts.traits, facts.for_presentation) == (
        None,
        None,
        frozenset(),
        False,
    )

"""The header that every result object shares: patient, study, series, equipment and SOP common modules."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.results import codes, identity
from dicom_node.results.context import Analysis, ResultContext
from dicom_node.results.source import (
    copy_element,
    copy_patient_and_study,
    is_filled,
    keep_undecoded,
    local_time,
)

_ACQUISITION = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


def new_instance(
    context: Analysis,
    *,
    sop_class_uid: str,
    kind: str,
    modality: str,
    series_number: int,
    description: str,
    ordinal: int = 0,
) -> Dataset:
    """Make the header of a result object, which is alone in its series.

    Viewers such as OHIF show one instance of an SR or SEG series, so each result gets its own.

    Parameters
    ----------
    context : Analysis
        What the result speaks about.
    sop_class_uid : str
        SOP class of the result.
    kind : str
        The result's kind in its UIDs.
    modality : str
        Modality (0008,0060).
    series_number : int
        Series Number (0020,0011); high, so that viewers list the result after the images.
    description : str
        What the series shows, such as ``"AI mammography report"``.
    ordinal : int, optional
        Tells apart several results of one kind.

    Returns
    -------
    pydicom.dataset.Dataset
        The header; the builder adds the rest.
    """
    header = Dataset()
    copy_patient_and_study(context.sources[0], header)
    header.SOPClassUID = sop_class_uid
    header.SOPInstanceUID = context.uid(kind, ordinal)
    header.SeriesInstanceUID = context.uid(f"{kind}.series", ordinal)
    header.Modality = modality
    header.SeriesNumber = series_number
    header.InstanceNumber = 1
    header.SeriesDescription = series_description(context, description)
    header.InstanceCreatorUID = identity.creator_uid(context.node.serial_number)
    _add_times(header, context)
    _add_equipment(header, context)
    return header


def series_description(context: Analysis, description: str) -> str:
    """Give the Series Description (0008,103E): the revision where it is not the first, and never verified."""
    revision = f", revision {context.revision}" if context.revision > 1 else ""
    return f"{description}{revision} (not verified)"


def series_laterality(context: ResultContext) -> str | None:
    """Give the Laterality (0020,0060) of a series about all images scored: None where they show both breasts.

    PS3.3 C.7.3.1 wants it for a paired body part, with one value for a whole series.
    """
    sides = {str(score.laterality) for score in context.prediction.images}
    return sides.pop() if len(sides) == 1 else None


def code_item(code: Code) -> Dataset:
    """Make an item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _add_times(header: Dataset, context: Analysis) -> None:
    moment = local_time(context.sources[0], context.analysed_at, context.default_zone)
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(header, f"{name}Date", f"{moment:%Y%m%d}")
        setattr(header, f"{name}Time", f"{moment:%H%M%S}")
    header.TimezoneOffsetFromUTC = f"{moment:%z}"[:5]


def _add_equipment(header: Dataset, context: Analysis) -> None:
    bundle, node = context.bundle, context.node
    header.Manufacturer = bundle.manufacturer
    header.ManufacturerModelName = bundle.name
    header.SoftwareVersions = [bundle.version, node.software_version]
    header.DeviceSerialNumber = node.serial_number
    header.StationName = node.station_name or node.ae_title
    if node.institution_name:
        header.InstitutionName = node.institution_name
    header.ContributingEquipmentSequence = [*_acquisition(context), _processing(header, context)]


def _acquisition(context: Analysis) -> list[Dataset]:
    source = context.sources[0]
    if not is_filled(source, "Manufacturer"):
        return []
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.ACQUISITION_EQUIPMENT)]
    for keyword in _ACQUISITION:
        if is_filled(source, keyword):
            copy_element(source, item, keyword)
    keep_undecoded(item)
    return [item]


def _processing(header: Dataset, context: Analysis) -> Dataset:
    """Describe the algorithm as IHE AIR 6.5.3.1 wants it: with its Device UID."""
    bundle, node = context.bundle, context.node
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = bundle.manufacturer
    item.ManufacturerModelName = bundle.name
    item.SoftwareVersions = bundle.version
    item.DeviceUID = context.device_uid
    item.StationName = header.StationName
    item.ContributionDateTime = header.ContentDate + header.ContentTime + header.TimezoneOffsetFromUTC
    item.ContributionDescription = f"Images scored by {node.software_version}, {node.manufacturer}"
    return item

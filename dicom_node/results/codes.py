"""The coded concepts that results use, typed by hand.

pydicom's dictionary holds meanings with characters outside ASCII and some longer than the 64 characters of
an LO; a test compares this table with it.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from models.contract import Laterality, RefusalCode

# Document titles and headings
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
DIAGNOSTIC_IMAGING_REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
PROCEDURE_DESCRIPTIONS = Code("121064", "DCM", "Current Procedure Descriptions")
PROCEDURE_DESCRIPTION = Code("121065", "DCM", "Procedure Description")
FINDINGS = Code("121070", "DCM", "Findings")
FINDING = Code("121071", "DCM", "Finding")
IMPRESSIONS = Code("121072", "DCM", "Impressions")
IMPRESSION = Code("121073", "DCM", "Impression")
COMMENT = Code("121106", "DCM", "Comment")

# Context: language, observer, procedure (PS3.16 TID 1204, 1001, 1004)
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE = Code("121007", "DCM", "Device")
DEVICE_OBSERVER_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_OBSERVER_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL = Code("121015", "DCM", "Device Observer Model Name")
DEVICE_OBSERVER_SERIAL = Code("121016", "DCM", "Device Observer Serial Number")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
MAMMOGRAPHY = Code("71651007", "SCT", "Mammography")

PATHOLOGY = Code("108257001", "SCT", "Anatomic pathology procedure")
SUBJECT_CLASS = Code("121024", "DCM", "Subject Class")
SPECIMEN = Code("121027", "DCM", "Specimen")
SPECIMEN_UID = Code("121039", "DCM", "Specimen UID")
SPECIMEN_IDENTIFIER = Code("121041", "DCM", "Specimen Identifier")

# Images (PS3.16 TID 1602)
SLIDE_MICROSCOPY = Code("SM", "DCM", "Slide Microscopy")
SOURCE = Code("260753009", "SCT", "Source")
ORIGINAL_SOURCE = Code("111040", "DCM", "Original Source")
MODALITY = Code("121139", "DCM", "Modality")
MODALITIES = {
    "MG": Code("MG", "DCM", "Mammography"),
    "DX": Code("DX", "DCM", "Digital Radiography"),
    "CR": Code("CR", "DCM", "Computed Radiography"),
}
ROWS = Code("110910", "DCM", "Pixel Data Rows")
COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
ORIENTATION_ROW = Code("111044", "DCM", "Patient Orientation Row")
ORIENTATION_COLUMN = Code("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_SPACING = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_SPACING = Code("111066", "DCM", "Vertical Pixel Spacing")
IMAGE_LATERALITY = Code("111027", "DCM", "Image Laterality")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
VIEWS = {
    "CC": Code("399162004", "SCT", "cranio-caudal"),
    "MLO": Code("399368009", "SCT", "medio-lateral oblique"),
    "ML": Code("399260004", "SCT", "medio-lateral"),
    "LM": Code("399352003", "SCT", "latero-medial"),
    "XCCL": Code("399192008", "SCT", "cranio-caudal exaggerated laterally"),
}
IMAGE_VIEW_MODIFIER = Code("111032", "DCM", "Image View Modifier")
_MAGNIFICATION = Code("399163009", "SCT", "Magnification")
_SPOT_COMPRESSION = Code("399055006", "SCT", "Spot Compression")
_IMPLANT_DISPLACED = Code("399209000", "SCT", "Implant Displaced")
VIEW_MODIFIERS = {
    "399163009": _MAGNIFICATION,
    "R-102D6": _MAGNIFICATION,
    "399055006": _SPOT_COMPRESSION,
    "R-102D7": _SPOT_COMPRESSION,
    "399209000": _IMPLANT_DISPLACED,
    "R-102D5": _IMPLANT_DISPLACED,
}
"""By the code in an image's header: what makes another image of the same view (PS3.16 CID 4015)."""
SIDES = {
    Laterality.RIGHT: Code("24028007", "SCT", "Right"),
    Laterality.LEFT: Code("7771000", "SCT", "Left"),
}

# Measurement groups (PS3.16 TID 1410, 4019)
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
BREAST = Code("76752008", "SCT", "Breast")
LATERALITY = Code("272741003", "SCT", "Laterality")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
ALGORITHM_FAMILY = Code("111000", "DCM", "Algorithm Family")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
CLASSIFICATION = Code("278201002", "SCT", "Classification")
MALIGNANT = Code("21594007", "SCT", "Malignant")
BENIGN = Code("30807003", "SCT", "Benign")
CERTAINTY_OF_FINDING = Code("111012", "DCM", "Certainty of Finding")
CALCIFICATION_FINDING = Code("129748009", "SCT", "Radiographic calcification finding")
NORMAL_TISSUE = Code("111287", "DCM", "Normal breast tissue")
MARGINS = Code("111037", "DCM", "Margins")
PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
GEOMETRIC_PURPOSE = Code("130400", "DCM", "Geometric purpose of region")
BOUNDED_BY = Code("75958009", "SCT", "Bounded by")
SEGMENTATION_FRAME = Code("121214", "DCM", "Referenced Segmentation Frame")
SOURCE_FOR_SEGMENTATION = Code("121233", "DCM", "Source Image for Segmentation")
IMAGE_REGION = Code("111030", "DCM", "Image Region")

# Units
PERCENT = Code("%", "UCUM", "Percent")
MILLIMETRE = Code("mm", "UCUM", "mm")
PIXELS = Code("{pixels}", "UCUM", "Pixels")

# Equipment and references
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
SOURCE_FOR_PROCESSING = Code("121322", "DCM", "Source image for image processing operation")

# What a segment of model attention is: a place of class activation (PS3.16 CID 7180), not a finding.
SPATIAL_CONCEPT = Code("309825002", "SCT", "Spatial and Relational Concept")
CLASS_ACTIVATION = Code("130402", "DCM", "Class activation")

# What a marked place is (PS3.16 CID 7150, 7151)
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LESION = Code("52988006", "SCT", "Lesion")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")

# Key Object Selection (PS3.16 TID 2010, CID 7010)
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")
KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")

# How the analysis went (PS3.16 CID 6042)
SUCCEEDED = Code("111222", "DCM", "Succeeded")
PARTIALLY_SUCCEEDED = Code("111223", "DCM", "Partially Succeeded")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")

# Why something was not analysed (PS3.16 CID 9301); the sentence beside it is more exact.
_INCORRECTLY_FORMATTED = Code("110521", "DCM", "Objects incorrectly formatted")
_NOT_SUPPORTED = Code("110522", "DCM", "Object Types not supported")
_SET_INCOMPLETE = Code("110523", "DCM", "Object Set incomplete")

_DAMAGED = frozenset(
    {
        RefusalCode.LATERALITY_MISSING,
        RefusalCode.LATERALITY_CONTRADICTS_PIXELS,
        RefusalCode.BLANK_IMAGE,
        RefusalCode.NO_BREAST_FOUND,
        RefusalCode.PIXEL_DATA,
        RefusalCode.UNREADABLE,
        RefusalCode.SLIDE_PLACEMENT,
        RefusalCode.SEVERAL_PATIENTS,
    }
)
# Not NO_SCORABLE_IMAGE: everything may have come, and been refused.
_INCOMPLETE = frozenset({RefusalCode.VIEWS_MISSING, RefusalCode.NO_TISSUE})


def refusal_reason(code: RefusalCode) -> Code:
    """Give the standard's code for why something was not analysed.

    Parameters
    ----------
    code : models.contract.RefusalCode
        The node's own, finer reason.

    Returns
    -------
    pydicom.sr.coding.Code
        A reason of PS3.16 CID 9301.
    """
    if code in _DAMAGED:
        return _INCORRECTLY_FORMATTED
    return _SET_INCOMPLETE if code in _INCOMPLETE else _NOT_SUPPORTED

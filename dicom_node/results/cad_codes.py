"""The coded concepts of Mammography CAD reports (PS3.16 TID 4000 to 4023), typed by hand.

SNOMED codes are those of SCT; :func:`dicom_node.results.plain_items.use_srt` has the former ones.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from models.contract import Laterality

REPORT = Code("111036", "DCM", "Mammography CAD Report")

# Image library (TID 4020)
BREASTS = {
    Laterality.RIGHT: Code("73056007", "SCT", "Right breast"),
    Laterality.LEFT: Code("80248007", "SCT", "Left breast"),
}
STUDY_DATE = Code("111060", "DCM", "Study Date")
STUDY_TIME = Code("111061", "DCM", "Study Time")
CONTENT_DATE = Code("111018", "DCM", "Content Date")
CONTENT_TIME = Code("111019", "DCM", "Content Time")

# Findings (TID 4001 to 4006)
SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
IMPRESSION_DESCRIPTION = Code("111033", "DCM", "Impression Description")
CERTAINTY_OF_IMPRESSION = Code("111013", "DCM", "Certainty of impression")
CERTAINTY_OF_FEATURE = Code("111011", "DCM", "Certainty of Feature")
# Its meaning and that of the analysis below have an invisible space (U+200B) in pydicom's dictionary.
INDIVIDUAL_IMPRESSION = Code("111034", "DCM", "Individual Impression/Recommendation")
RENDERING_INTENT = Code("111056", "DCM", "Rendering Intent")
REQUIRED = Code("111150", "DCM", "Presentation Required: Rendering device is expected to present")
OPTIONAL = Code("111151", "DCM", "Presentation Optional: Rendering device may present")
SINGLE_IMAGE_FINDING = Code("111059", "DCM", "Single Image Finding")
COMPOSITE_FEATURE = Code("111015", "DCM", "Composite Feature")
COMPOSITE_TYPE = Code("111016", "DCM", "Composite Type")
RELATED_SPATIALLY = Code("111154", "DCM", "Target Content Items are related spatially")
RELATED_CONTRALATERALLY = Code("111155", "DCM", "Target Content Items are related contra-laterally")
SCOPE_OF_FEATURE = Code("111057", "DCM", "Scope of Feature")
ON_SEVERAL_IMAGES = Code("111158", "DCM", "Feature detected on multiple images")
CENTRE = Code("111010", "DCM", "Center")
OUTLINE = Code("111041", "DCM", "Outline")
CALCIFICATION_DISTRIBUTION = Code("111008", "DCM", "Calcification Distribution")
GROUPED = Code("129766004", "SCT", "Grouped calcification distribution")

# What a finding is (CID 6014, 6016)
DENSITY = Code("129793001", "SCT", "Mammography breast density")
CLUSTER = Code("129769006", "SCT", "Calcification Cluster")
CALCIFICATION = Code("129770007", "SCT", "Individual Calcification")
DISTORTION = Code("129792006", "SCT", "Architectural distortion of breast")
MASS = Code("129788004", "SCT", "Mammographic breast mass")
ASYMMETRY = Code("129790003", "SCT", "Asymmetric breast tissue")
FOCAL_ASYMMETRY = Code("129789007", "SCT", "Focal asymmetric breast tissue")

# How the processing went (TID 4015 to 4018, CID 6042, 6047)
ALL_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
ALL_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
SOME_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
SOME_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")
FAILED = Code("111224", "DCM", "Failed")
DETECTIONS = Code("111064", "DCM", "Summary of Detections")
SUCCESSFUL_DETECTIONS = Code("111063", "DCM", "Successful Detections")
FAILED_DETECTIONS = Code("111025", "DCM", "Failed Detections")
DETECTION_PERFORMED = Code("111022", "DCM", "Detection Performed")
ANALYSES = Code("111065", "DCM", "Summary of Analyses")
SUCCESSFUL_ANALYSES = Code("111062", "DCM", "Successful Analyses")
FAILED_ANALYSES = Code("111024", "DCM", "Failed Analyses")
ANALYSIS_PERFORMED = Code("111004", "DCM", "Analysis Performed")
OVERALL_ANALYSIS = Code("111234", "DCM", "Overall Impression/Recommendation Analysis")
COLLOCATION_ANALYSIS = Code("133884007", "SCT", "Spatial collocation analysis")
ASYMMETRY_ANALYSIS = Code("133889002", "SCT", "Asymmetric breast tissue analysis")

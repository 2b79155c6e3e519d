"""The coded values of audit messages: DICOM's own (PS3.16 annex D, CID 400 to 405) and those of RFC 3881."""

from __future__ import annotations

from dicom_node.audit_messages.message import Code


def _dicom(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


APPLICATION_ACTIVITY = _dicom("110100", "Application Activity")
AUDIT_LOG_USED = _dicom("110101", "Audit Log Used")
BEGIN_TRANSFERRING = _dicom("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = _dicom("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dicom("110104", "DICOM Instances Transferred")
STUDY_DELETED = _dicom("110105", "DICOM Study Deleted")
EXPORT = _dicom("110106", "Export")
QUERY = _dicom("110112", "Query")
SECURITY_ALERT = _dicom("110113", "Security Alert")

APPLICATION_START = _dicom("110120", "Application Start")
APPLICATION_STOP = _dicom("110121", "Application Stop")
NODE_AUTHENTICATION = _dicom("110126", "Node Authentication")
SECURITY_CONFIGURATION = _dicom("110129", "Security Configuration")
SOFTWARE_CONFIGURATION = _dicom("110131", "Software Configuration")
USER_SECURITY_ATTRIBUTES_CHANGED = _dicom("110137", "User Security Attributes Changed")

APPLICATION = _dicom("110150", "Application")
DESTINATION = _dicom("110152", "Destination Role ID")
SOURCE = _dicom("110153", "Source Role ID")
DESTINATION_MEDIA = _dicom("110154", "Destination Media")

STUDY_INSTANCE_UID = _dicom("110180", "Study Instance UID")
SOP_CLASS_UID = _dicom("110181", "SOP Class UID")
NODE_ID = _dicom("110182", "Node ID")
PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
URI = Code("12", "RFC-3881", "URI")

"""The DICOM conformance statement (PS3.2), from the tables that the node runs on."""

from __future__ import annotations

from pydicom.uid import UID, JPEG2000Lossless, RLELossless
from reference_pages import code, table

from dicom_node.audit_messages import syslog
from dicom_node.audit_messages.events import MESSAGES
from dicom_node.audit_messages.message import Code
from dicom_node.cli.health.pacs_trial import trial_objects
from dicom_node.commitment.references import MOST_REFERENCES, PUSH_MODEL, FailureReason
from dicom_node.delivery.negotiation import MOST_CONTEXTS
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.listener.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from dicom_node.results import encoding, rejection_note
from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS
from dicom_node.results.checks.header import MODALITY_OF_CLASS
from dicom_node.results.context import NodeIdentity
from dicom_node.results.profiles import BUILT_IN
from dicom_node.results.slide import SLIDE_KINDS
from dicom_node.settings import Settings
from dicom_node.settings.sections import AuditSettings, DeliverySettings, ListenerTlsSettings
from dicom_node.tls import CIPHER_SUITES

# The made-up study of the trial has neither several classes nor the values of a map.
OF_THE_SAME_CLASS = {
    "fractional_segmentation": "segmentation",
    "measurement_report_all_classes": "measurement_report",
    "measurement_report_segments": "measurement_report",
    "measurement_report_2d_segments": "measurement_report_2d",
    "slide_segmentation": "segmentation",
    "slide_report": "measurement_report",
}
# What profiles' options compress: kind -> the native one, and its transfer syntax.
COMPRESSED = {
    "fractional_segmentation_rle": ("segmentation", RLELossless),
    "secondary_capture_rle": ("secondary_capture", RLELossless),
    "secondary_capture_jpeg2000": ("secondary_capture", JPEG2000Lossless),
}
FAILURE_MEANINGS = {
    FailureReason.PROCESSING_FAILURE: "its bytes are damaged, or it came with two different contents",
    FailureReason.NO_SUCH_INSTANCE: "it was never received, or its file is gone",
    FailureReason.CLASS_INSTANCE_CONFLICT: "it was received as an object of another class",
}
# Of PS3.15 A.5.3, by EventID: named where no event of the node becomes one.
OTHER_AUDIT_MESSAGES = {
    "110105": "Study Deleted",
    "110107": "Import",
    "110108": "Network Entry",
    "110114": "User Authentication",
}
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def conformance() -> str:
    """Return the conformance statement."""
    return "\n\n".join(
        [
            "# DICOM conformance statement",
            "dicom-node receives images by C-STORE, scores them, and sends its results by C-STORE. It does "
            "not print, archive for others, answer queries or verify a report. [DICOM: what is accepted, "
            "what is answered](dicom.md) lists every status.",
            *_networking(),
            *_receiving(),
            *_sending(),
            *_commitment(),
            *_characters_and_security(),
            *_audit(),
        ]
    )


def _networking() -> list[str]:
    titles = Settings.model_fields["ae_title"].default
    listener = Settings.model_fields["listener"].default_factory
    limits = listener() if listener is not None else Settings.model_fields["listener"].default
    return [
        "## Application entities\nOne application entity, in both roles. Its title is "
        f"`ae_title` ({code(titles)} by default; [settings](settings.md)). Implementation class UID, "
        f"in associations and files: {code(IMPLEMENTATION_CLASS_UID)}, version "
        f"{code(IMPLEMENTATION_VERSION_NAME)}.",
        table(
            ("SOP class", "UID", "role", "what for"),
            [
                ("Verification", code(VERIFICATION), "SCP and SCU", "C-ECHO; `doctor` asks by it"),
                ("Storage, the classes of Receiving", "below", "SCP", "images in"),
                ("Storage, the classes of Sending", "below", "SCU", "results out"),
                (UID(PUSH_MODEL).name, code(PUSH_MODEL), "SCU and SCP", "below; off by default"),
                (UID(STUDY_ROOT_FIND).name, code(STUDY_ROOT_FIND), "SCU", "`doctor --pacs` alone"),
            ],
        ),
        f"Longest PDU received: {limits.max_pdu_bytes} bytes by default. At most {MOST_CONTEXTS} "
        "presentation contexts are proposed in one association. Neither extended negotiation nor "
        "asynchronous operations are used.",
    ]


def _receiving() -> list[str]:
    return [
        "## Receiving\nEach of these classes in each of these transfer syntaxes; data sets are kept as "
        "received.",
        table(("SOP class", "UID"), [(c.name, code(c.uid)) for c in STORAGE_CLASSES]),
        table(("transfer syntax", "UID"), [(s.name, code(s.uid)) for s in TRANSFER_SYNTAXES]),
    ]


def _sending() -> list[str]:
    return [
        "## Sending\nOne presentation context for each SOP class and transfer syntax, and beside Explicit VR "
        "Little Endian one in Implicit VR Little Endian: where that alone is accepted, the same values are "
        "sent in it. What a destination gets is said by its profile; of two classes with one content the "
        "association decides where a profile leaves it open.",
        table(("result", "SOP class", "UID", "Modality", "transfer syntax", "profiles"), _results()),
        "Every object is made new, in a series of its own kind with a number above 9000, in the study of its "
        "images. Its UIDs are made from model, configuration and images (root `2.25`), so that a result made "
        "again is the same object. Patient and study attributes are those of the images, byte for byte; "
        "attributes of type 2 that the images lack are empty. Contributing Equipment Sequence names the "
        "algorithm with its Device UID. No report is verified.",
    ]


def _commitment() -> list[str]:
    reasons = [
        (f"{reason:04X}H", FAILURE_MEANINGS[reason])
        for reason in sorted(FailureReason)
        if reason in FAILURE_MEANINGS
    ]
    return [
        f"## Storage commitment\n{UID(PUSH_MODEL).name}, Implicit VR Little Endian alone. "
        "[How to](../how-to/storage-commitment.md).",
        "As SCU, for destinations with the option `commitment`: one request (N-ACTION, action type 1) for "
        "the objects of one study that were delivered, each with a transaction UID of its own. The report "
        "(N-EVENT-REPORT, event types 1 and 2) is taken on the association of the request for "
        f"{DeliverySettings().commitment_wait_s:g} s by default, and at any time on an association that the "
        "SCP opens, as SCP by role selection. The node releases the association of the request at once where "
        "the SCP was seen to open its own. What is reported as failed is sent again, the same bytes, and "
        "asked for again. Without a report the node asks again after "
        f"{DeliverySettings().commitment_ask_again_s:g} s by default, and then less and less often. A report "
        "that names no request of the node is answered with 0115H.",
        f"As SCP, where `listener.commitment` is on: requests of up to {MOST_REFERENCES} objects. Each "
        "object's stored bytes are read again and held against the digest of what was received. The report "
        "goes out on the association of the request where the caller has not released it within half a "
        "second, otherwise on a new one to its `commitment_address`, with this node as SCP by role selection."
        " Failure reasons that are given:",
        table(("reason", "what is true of the object"), reasons),
        "Requests are answered with 0000H once they are kept, 0112H for another instance than the well-known "
        "one, 0115H for a data set that cannot be read, 0123H for another action, 0124H where the node does "
        "not answer for received objects, 0213H where a thousand wait, or where the transaction UID names "
        "another request, and 0110H while the database is away.",
    ]


def _results() -> list[tuple[str, ...]]:
    node = NodeIdentity("DICOM_NODE", "conformance", "dicom-node", "dicom-node")
    built = {item.kind: (item.sop_class_uid, item.transfer_syntax_uid) for item in trial_objects(node)}
    for kind, alike in OF_THE_SAME_CLASS.items():
        built.setdefault(kind, built[alike])
    for kind, (alike, syntax) in COMPRESSED.items():
        built[kind] = (built[alike][0], str(syntax))
    built[rejection_note.KIND] = (rejection_note.KEY_OBJECT_SELECTION, encoding.TRANSFER_SYNTAX_UID)
    rows = []
    slides = [kind for kind in SLIDE_KINDS if kind not in RESULT_BUILDERS]
    for kind in (*RESULT_BUILDERS, *OPTION_BUILDERS, *slides, rejection_note.KIND):
        sop_class_uid, syntax = built[kind]
        names = [name for name in BUILT_IN if _is_in(kind, name)]
        rows.append(
            (
                kind.replace("_", " "),
                UID(sop_class_uid).name,
                code(sop_class_uid),
                MODALITY_OF_CLASS[sop_class_uid],
                UID(syntax).name,
                ", ".join(names) or "a site's own",
            )
        )
    return rows


def _is_in(kind: str, name: str) -> bool:
    profile = BUILT_IN[name]
    if kind == rejection_note.KIND:
        return profile.withdraws
    if any(kind == w.kind for w in profile.wanted_of_slides()):
        return True
    return any(kind == w.kind for localises in (True, False) for w in profile.wanted(localises=localises))


def _characters_and_security() -> list[str]:
    return [
        "## Character sets\nSpecific Character Set is that of the images; patient data is not decoded. The "
        "node's own texts and code meanings are ASCII, which every character set of PS3.3 C.12.1.1.2 holds. "
        "Language of the reports: en-US.",
        *_security(),
    ]


def _audit() -> list[str]:
    sink = AuditSettings().syslog
    tls, udp = (sink.model_copy(update={"transport": name}).effective_port for name in ("tls", "udp"))
    told = {message.value for telling in MESSAGES.values() for message in telling.messages}
    never = [name for value, name in OTHER_AUDIT_MESSAGES.items() if value not in told]
    return [
        "## Audit trail messages\nWhere a repository is configured (`audit.syslog.host`), the node tells "
        "these events by the schema of PS3.15 A.5.1. [How to](../how-to/send-the-audit-trail.md).",
        table(("message", "EventID", "EventTypeCode", "events of the node's trail"), _told_events()),
        "Begin Transferring, Instances Transferred and Instances Accessed name one study and one patient, by "
        "Study Instance UID and Patient ID, and what moved or was made by numbers of instances of each SOP "
        f"class. Query holds the keys. Never sent: {', '.join(never)}. Storage commitment has no message in "
        "PS3.15 A.5.3.",
        table(
            ("transport", "PS3.15", "port by default"),
            [
                ("syslog over TLS (RFC 5425), both sides authenticated", "A.6", str(tls)),
                ("syslog over UDP (RFC 5426)", "A.7", str(udp)),
            ],
        ),
        f"RFC 5424, facility {syslog.FACILITY}, severity {syslog.NOTICE}, or {syslog.WARNING} for what "
        f"failed; APP-NAME {code(syslog.APP_NAME)}, MSGID {code(syslog.MESSAGE_ID)}. Messages wait while the "
        "repository is away, and come in the trail's order.",
    ]


def _told_events() -> list[tuple[str, str, str, str]]:
    actions: dict[tuple[Code, Code | None], list[str]] = {}
    for action, telling in MESSAGES.items():
        for message in telling.messages:
            actions.setdefault((message, telling.event_type), []).append(code(action))
    rows = [
        (
            event.meaning,
            event.value,
            "" if kind is None else f"{kind.value} {kind.meaning}",
            ", ".join(sorted(names)),
        )
        for (event, kind), names in actions.items()
    ]
    return sorted(rows, key=lambda row: (row[1], row[2]))


def _security() -> list[str]:
    tls = ListenerTlsSettings()
    return [
        "## Security\nAssociations are accepted and opened in the clear and, where certificates are "
        "configured, over TLS on a port of its own "
        f"({tls.port} by default). [How to](../how-to/secure-the-node.md).",
        table(
            ("profile", "PS3.15", "as acceptor and requestor"),
            [
                ("BCP 195 RFC 8996, 9325 TLS Secure Transport Connection", "B.12", "supported"),
                ("Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection", "B.13", "supported"),
            ],
        ),
        "TLS 1.3 is negotiated where the peer has it, else TLS 1.2; older versions, compression, "
        "renegotiation and session resumption are refused. Cipher suites of TLS 1.2: "
        f"{', '.join(map(code, CIPHER_SUITES))}; of TLS 1.3: those of its AES-GCM and ChaCha20-Poly1305. "
        "Both sides authenticate by X.509 certificates of configured authorities alone; as requestor the "
        "node checks the acceptor's host against its subject alternative names. Certificates are replaced "
        "without a restart. Revocation lists are not read.",
        "User identity (PS3.7 D.3.3.7): type 2, user name and passcode, over TLS, where a caller or all "
        "callers must give one. Absent, of another type, or wrong, the association is rejected (1, 2, 1). A "
        "positive response is sent where it is requested and the passcode was checked: not to callers who "
        "need not give one.",
        table(
            ("checked of an association request", "rejected with"),
            [
                ("calling AE title with address, and with certificate where one is named", "1, 1, 3"),
                ("called AE title, where it is required", "1, 1, 7"),
                ("user identity, where it is required", "1, 2, 1"),
                ("number of associations", "2, 3, 2"),
                ("score jobs that wait", "2, 3, 1"),
            ],
        ),
        "A caller may be limited to verification or to storage: the other's presentation contexts are then "
        "rejected. Every access, refusal, failed handshake and result is in the "
        "[audit trail](../explanation/audit.md).",
    ]

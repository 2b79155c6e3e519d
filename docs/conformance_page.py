"""The DICOM conformance statement (PS3.2), from the tables that the node runs on."""

from __future__ import annotations

from pydicom.uid import UID
from reference_pages import code, table

from dicom_node.cli.pacs_trial import trial_objects
from dicom_node.delivery.negotiation import MOST_CONTEXTS
from dicom_node.listener.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES, VERIFICATION
from dicom_node.results import encoding, rejection_note
from dicom_node.results.builders import RESULT_BUILDERS
from dicom_node.results.checks.header import MODALITY_OF_CLASS
from dicom_node.results.context import NodeIdentity
from dicom_node.results.profiles import BUILT_IN
from dicom_node.settings import Settings

# The made-up study of the trial has neither several classes nor the values of a map.
OF_THE_SAME_CLASS = {
    "fractional_segmentation": "segmentation",
    "measurement_report_all_classes": "measurement_report",
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
            *_characters_and_security(),
        ]
    )


def _networking() -> list[str]:
    titles = Settings.model_fields["ae_title"].default
    listener = Settings.model_fields["listener"].default_factory
    limits = listener() if listener is not None else Settings.model_fields["listener"].default
    return [
        "## Application entities\nOne application entity, in both roles. Its title is "
        f"`ae_title` ({code(titles)} by default; [settings](settings.md)). Implementation class UID of the "
        f"results: {code(encoding.IMPLEMENTATION_CLASS_UID)}, version "
        f"{code(encoding.IMPLEMENTATION_VERSION_NAME)}.",
        table(
            ("SOP class", "UID", "role", "what for"),
            [
                ("Verification", code(VERIFICATION), "SCP and SCU", "C-ECHO; `doctor` asks by it"),
                ("Storage, the classes of Receiving", "below", "SCP", "images in"),
                ("Storage, the classes of Sending", "below", "SCU", "results out"),
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
        "## Sending\nOne presentation context for each SOP class and transfer syntax. What a destination "
        "gets is said by its profile; of two classes with one content the association decides where a "
        "profile leaves it open.",
        table(("result", "SOP class", "UID", "Modality", "transfer syntax", "profiles"), _results()),
        "Every object is made new, in a series of its own kind with a number above 9000, in the study of its "
        "images. Its UIDs are made from model, configuration and images (root `2.25`), so that a result made "
        "again is the same object. Patient and study attributes are those of the images, byte for byte; "
        "attributes of type 2 that the images lack are empty. Contributing Equipment Sequence names the "
        "algorithm with its Device UID. No report is verified.",
    ]


def _results() -> list[tuple[str, ...]]:
    node = NodeIdentity("DICOM_NODE", "conformance", "dicom-node", "dicom-node")
    built = {item.kind: (item.sop_class_uid, item.transfer_syntax_uid) for item in trial_objects(node)}
    for kind, alike in OF_THE_SAME_CLASS.items():
        built.setdefault(kind, built[alike])
    built[rejection_note.KIND] = (rejection_note.KEY_OBJECT_SELECTION, encoding.TRANSFER_SYNTAX_UID)
    rows = []
    for kind in (*RESULT_BUILDERS, rejection_note.KIND):
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
    return any(kind == w.kind for localises in (True, False) for w in profile.wanted(localises=localises))


def _characters_and_security() -> list[str]:
    return [
        "## Character sets\nSpecific Character Set is that of the images; patient data is not decoded. The "
        "node's own texts and code meanings are ASCII, which every character set of PS3.3 C.12.1.1.2 holds. "
        "Language of the reports: en-US.",
        "## Security\nNo TLS profile of PS3.15 is implemented and no user identity is negotiated: the node "
        "belongs into a network of its own, or behind a TLS proxy. `listener.allowed_ae_titles` says which "
        "calling titles may store, `listener.require_called_ae_title` whether the called title must be "
        "right. Every access and result is in the [audit trail](../explanation/audit.md).",
    ]

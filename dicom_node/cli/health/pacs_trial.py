"""``doctor --pacs``: one labelled test object of each kind to a destination, and what became of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from dicom_node import __version__
from dicom_node.cli.health.trial_slide import slide_objects
from dicom_node.cli.wiring import requestor
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import Outgoing, SendResult, SendState, send
from dicom_node.delivery.query import Found, OnQuery, find_series
from dicom_node.errors import SettingsError
from dicom_node.results import encoding
from dicom_node.results.builders import RESULT_BUILDERS, build_all
from dicom_node.results.context import BuiltObject, NodeIdentity, ResultContext
from dicom_node.results.profiles import BUILT_IN, Profile, split_route
from dicom_node.settings import Settings
from models.contract import (
    BreastScore,
    BundleIdentity,
    ImageScore,
    Laterality,
    LesionMark,
    Outcome,
    Region,
    StudyPrediction,
)
from models.tasks import task_named

PATIENT_NAME, PATIENT_ID, ACCESSION_NUMBER = "TEST^DICOM-NODE", "TEST-DICOM-NODE", "TEST"
_ROWS, _COLUMNS = 640, 512
# The same objects whenever the command runs, so that an archive keeps one copy of them.
_MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
_BUNDLE = BundleIdentity(
    name="dicom-node test object",
    version=__version__,
    digest="0" * 64,
    task="test",
    manufacturer="dicom-node",
    demonstration=True,
    configuration_digest="0" * 64,
    localises=True,
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one test object.

    Attributes
    ----------
    kind : str
        Its kind.
    sop_class, transfer_syntax : str
        Their names.
    accepted : bool
        Whether the destination took it.
    found : bool or None
        Whether a query then names its series; None where the destination answers none.
    detail : str
        The destination's answer.
    """

    kind: str
    sop_class: str
    transfer_syntax: str
    accepted: bool
    found: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a destination takes, and which profile that fits.

    Attributes
    ----------
    trials : tuple of Trial
        One per kind.
    query : str
        What became of the query.
    profile : str or None
        Name of the best matching built-in profile; None where nothing was accepted.
    """

    trials: tuple[Trial, ...]
    query: str
    profile: str | None


def try_pacs(settings: Settings, name: str, node: NodeIdentity, *, on_query: OnQuery) -> Outcomes:
    """Send one test object of each kind and look for it.

    Parameters
    ----------
    settings : Settings
        Titles, time-outs and known destinations.
    name : str
        ``AE@HOST:PORT``, or the AE title of a configured destination.
    node : NodeIdentity
        Who sends.
    on_query : callable
        Told of the query before it is asked.

    Raises
    ------
    SettingsError
        If the name is no destination.
    """
    destination = destination_named(settings, name)
    asking = requestor(settings)
    objects = trial_objects(node, with_slides=any(task_named(task).slides for task in settings.tasks))
    with tempfile.TemporaryDirectory(prefix="dicom-node-test-objects-") as folder:
        outgoing = [_outgoing(item, Path(folder)) for item in objects]
        results = send(outgoing, destination, asking, on_result=lambda _uid, _result: None)
    found = Found(False, frozenset(), "not asked, because nothing was accepted")
    if any(result.state is SendState.DELIVERED for result in results):
        study = objects[0].study_instance_uid
        found = find_series(destination, asking, study, on_query=on_query)
    trials = tuple(_trial(item, result, found) for item, result in zip(objects, results, strict=True))
    accepted = {trial.kind for trial in trials if trial.accepted}
    return Outcomes(trials, found.detail, best_profile(accepted, BUILT_IN))


def destination_named(settings: Settings, name: str) -> Destination:
    """Return a destination by its address, or by the AE title of a configured one.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    for destination in settings.parsed_destinations:
        if name in (destination.ae_title, str(destination)):
            return destination
    try:
        return Destination.parse(split_route(name)[0])
    except ValueError as error:
        raise SettingsError(f"--pacs: {error}, or the AE title of a configured destination") from None


def trial_objects(node: NodeIdentity, *, with_slides: bool = False) -> tuple[BuiltObject, ...]:
    """Build one object of each kind of a made-up study, each labelled as a test.

    Parameters
    ----------
    node : NodeIdentity
        Who sends; another node makes another study.
    with_slides : bool, optional
        Whether to add the map and the report of a slide.
    """
    from training.datasets.phantom_objects import study

    images = study(
        seed=int.from_bytes(node.serial_number.encode()[:7], "big"),
        rows=_ROWS,
        columns=_COLUMNS,
        patient_id=PATIENT_ID,
        patient_name=PATIENT_NAME,
        accession_number=ACCESSION_NUMBER,
    )
    context = _context(images, node)
    first = {built.kind: built for built in reversed(build_all(context, list(RESULT_BUILDERS)))}
    built = [first[kind] for kind in RESULT_BUILDERS if kind in first]
    if with_slides:
        built += slide_objects(context.sources[0], _BUNDLE, node, _MADE_AT)
    return tuple(map(_labelled, built))


def best_profile(accepted: Iterable[str], profiles: Mapping[str, Profile]) -> str | None:
    """Return the name of the profile of whose kinds the largest share was accepted.

    Among equals it is the one that asks for most, and then the one for destinations that nobody knows.

    Parameters
    ----------
    accepted : iterable of str
        Kinds that the destination took.
    profiles : mapping of str to Profile
        The profiles to choose from.
    """
    taken = set(accepted)
    if not taken:
        return None

    def rank(name: str) -> tuple[float, int]:
        wanted = profiles[name].wanted(localises=True)
        instead = {w.fallback_for for w in wanted if w.fallback_for and w.kind in taken}
        needed = [w for w in wanted if w.fallback_for is None]
        count = sum(w.kind in taken or w.kind in instead for w in needed)
        return count / len(needed), len(needed)

    return max(reversed(list(profiles)), key=rank)


def _context(images: list[Dataset], node: NodeIdentity) -> ResultContext:
    headers = tuple(_header(image) for image in images)
    scores = tuple(_score(image) for image in images)
    right, left = (
        BreastScore(side, 0.9, tuple(s.sop_instance_uid for s in scores if s.laterality is side))
        for side in (Laterality.RIGHT, Laterality.LEFT)
    )
    prediction = StudyPrediction(
        task=_BUNDLE.task,
        outcome=Outcome.SCORED,
        threshold=0.5,
        images=scores,
        breasts=(right, left),
        study_probability=0.9,
    )
    renderings = {str(i.SOPInstanceUID): _rendering(i) for i in images}
    return ResultContext(headers, prediction, _BUNDLE, node, _MADE_AT, renderings=renderings)


def _header(image: Dataset) -> Dataset:
    """Give an image's header as the node has it, read from a file."""
    buffer = BytesIO()
    image.StudyDescription = "TEST by dicom-node doctor: no patient"
    image.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer, stop_before_pixels=True)


def _rendering(image: Dataset) -> NDArray[np.uint16]:
    pixels = np.asarray(image.pixel_array, np.float64)
    return np.asarray(pixels / max(1.0, float(pixels.max())) * 65535, np.uint16)


def _score(image: Dataset) -> ImageScore:
    """Mark the middle of the image, whatever is there."""
    rows, columns = np.mgrid[:_ROWS, :_COLUMNS]
    centre = (_COLUMNS / 2, _ROWS / 2)
    fading = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / 60**2)
    left, top, right, bottom = (centre[0] - 40, centre[1] - 40, centre[0] + 40, centre[1] + 40)
    outline = ((left, top), (right, top), (right, bottom), (left, bottom))
    return ImageScore(
        sop_instance_uid=str(image.SOPInstanceUID),
        laterality=Laterality(image.ImageLaterality),
        view=str(image.ViewPosition),
        logit=2.0,
        probability=0.9,
        region=Region(0, 0, _COLUMNS, _ROWS),
        evidence=np.digitize(fading, [0.30, 0.60, 0.85]).astype(np.uint8),
        marks=(LesionMark(centre, outline, 0.9),),
    )


def _labelled(built: BuiltObject) -> BuiltObject:
    """Write TEST before the description that every archive lists."""
    instance = dcmread(BytesIO(built.content))
    instance.SeriesDescription = f"TEST {instance.SeriesDescription}"[:64]
    return replace(built, content=encoding.encode(instance))


def _outgoing(item: BuiltObject, folder: Path) -> Outgoing:
    path = folder / f"{item.kind}.dcm"
    path.write_bytes(item.content)
    return Outgoing(item.sop_instance_uid, item.sop_class_uid, item.transfer_syntax_uid, path)


def _trial(item: BuiltObject, result: SendResult, found: Found) -> Trial:
    accepted = result.state is SendState.DELIVERED
    return Trial(
        kind=item.kind,
        sop_class=UID(item.sop_class_uid).name,
        transfer_syntax=UID(item.transfer_syntax_uid).name,
        accepted=accepted,
        found=item.series_instance_uid in found.series_instance_uids
        if found.is_offered and accepted
        else None,
        detail=result.detail,
    )

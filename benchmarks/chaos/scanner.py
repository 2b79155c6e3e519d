"""The load: scanners that send studies, and repeat what was not answered with Success."""

from __future__ import annotations

import hashlib
import struct
import threading
import uuid
from copy import deepcopy
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID

from benchmarks.chaos.hospital import Hospital
from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendState, send
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

CANARY = "ZZCANARY"
TIMEOUTS = DeliveryTimeouts(connect_s=2, acse_s=5, dimse_s=10)
PAUSE_S = 0.2
MOST_OPEN_JOBS = 24
_META_LENGTH_AT = 140  # of (0002,0000), behind preamble, prefix and element header (PS3.10 section 7.1)


class Scanners:
    """Send until stopped; every image that was begun is repeated until it is answered with Success.

    Parameters
    ----------
    hospital : Hospital
        Whom to send to.
    folder : pathlib.Path
        Where images lie on their way.
    count : int
        Scanners at the same time.
    """

    def __init__(self, hospital: Hospital, folder: Path, count: int) -> None:
        self._hospital = hospital
        self._folder = folder
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.acknowledged: dict[str, str] = {}
        """SHA-256 of the data set by SOP Instance UID, of what was answered with Success."""
        self.studies: list[str] = []
        spiculated = {("R", "CC"): (LesionKind.SPIC, True), ("R", "MLO"): (LesionKind.SPIC, True)}
        self._drawn = [
            study(
                seed=seed,
                kinds=kinds,
                rows=320,
                columns=260,
                patient_name=f"{CANARY}^NAME",
                patient_id=f"{CANARY}ID",
            )
            for seed, kinds in ((3, spiculated), (4, None))
        ]
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(count)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the studies in hand."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        count = number
        while not self._stopping.wait(PAUSE_S):
            unfinished = self._hospital.unfinished()
            if unfinished is not None and unfinished > MOST_OPEN_JOBS:
                continue
            self._send_a_study(self._drawn[count % len(self._drawn)])
            count += 1

    def _send_a_study(self, images: list[Dataset]) -> None:
        study_uid, series_uid = _new_uid(), _new_uid()
        files = [self._file(image, study_uid, series_uid) for image in images]
        left = {outgoing.sop_instance_uid: outgoing for outgoing in files}
        while left:
            results = send(
                list(left.values()),
                self._hospital.node.address,
                Requestor("SCANNER", TIMEOUTS),
                on_result=lambda _uid, _result: None,
            )
            for result in results:
                if result.state is SendState.DELIVERED:
                    taken = left.pop(result.sop_instance_uid)
                    with self._lock:
                        self.acknowledged[taken.sop_instance_uid] = _digest(taken.path)
                    taken.path.unlink()
            if left:
                threading.Event().wait(PAUSE_S)
        with self._lock:
            self.studies.append(str(study_uid))

    def _file(self, original: Dataset, study_uid: UID, series_uid: UID) -> Outgoing:
        image = deepcopy(original)
        image.StudyInstanceUID, image.SeriesInstanceUID = study_uid, series_uid
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = _new_uid()
        path = self._folder / f"{uuid.uuid4().hex}.dcm"
        image.save_as(path, enforce_file_format=True)
        syntax = str(image.file_meta.TransferSyntaxUID)
        return Outgoing(str(image.SOPInstanceUID), str(image.SOPClassUID), syntax, path)


def _digest(path: Path) -> str:
    content = path.read_bytes()
    (meta_bytes,) = struct.unpack_from("<I", content, _META_LENGTH_AT)
    return hashlib.sha256(content[_META_LENGTH_AT + 4 + meta_bytes :]).hexdigest()


def _new_uid() -> UID:
    return UID(f"2.25.{uuid.uuid4().int}")

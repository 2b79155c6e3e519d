"""The bundles that this process has loaded and verified, by digest.

Loading verifies digests and golden outputs, which takes a moment; afterwards a change of deployment between
two loaded bundles costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from db import deployments
from db.session import Database
from models.classifier import Classifier
from models.errors import GoldenMismatchError

log = structlog.get_logger(__name__)


class ClassifierCache:
    """Keeps the most recently used classifiers.

    Parameters
    ----------
    path_of : callable
        Digest to bundle folder.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    threads : int or None
        Threads for one forward pass.
    backend : str
        ``"torch"``, ``"openvino"`` or ``"openvino-bf16"``; torch answers for a bundle that another one fails.
    capacity : int
        How many stay loaded.
    """

    def __init__(
        self,
        path_of: Callable[[str], Path],
        *,
        device: str,
        threads: int | None,
        backend: str = "torch",
        capacity: int = 4,
    ) -> None:
        self._path_of = path_of
        self._device = device
        self._threads = threads
        self._backend = backend
        self._capacity = capacity
        self._loaded: OrderedDict[str, Classifier] = OrderedDict()

    def get(self, digest: str) -> Classifier:
        """Return the verified classifier of a digest.

        Raises
        ------
        models.errors.BundleError
            If the stored bundle is not what its digest says or fails its golden cases.
        """
        if digest not in self._loaded:
            classifier = Classifier.load(
                self._path_of(digest), device=self._device, threads=self._threads, backend=self._backend
            )
            if classifier.backend_refusal is not None:
                log.warning("bundle.backend_refused", bundle=digest, reason=classifier.backend_refusal)
            self._loaded[digest] = classifier
            log.info("bundle.loaded", bundle=digest, backend=classifier.backend)
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        return self._loaded[digest]

    def warm(self, database: Database, tasks: Sequence[str], *, actor: str) -> None:
        """Load the bundles that answer now, so that the first study does not wait for it.

        Raises
        ------
        models.errors.BundleError
            As for :meth:`get`, but for a new bundle that could be taken back.
        """
        for task in tasks[: self._capacity]:
            while (digest := self._champion(database, task)) is not None:
                try:
                    self.get(digest)
                    break
                except GoldenMismatchError as error:
                    if not takes_back(database, digest, error, actor=actor):
                        raise

    @staticmethod
    def _champion(database: Database, task: str) -> str | None:
        with database.reading() as session:
            return deployments.champion(session, task)


def takes_back(database: Database, digest: str, error: GoldenMismatchError, *, actor: str) -> bool:
    """End the role of a new bundle that does not compute here what it did at its release.

    Returns
    -------
    bool
        False where it has answered before, or nothing else could answer: it keeps its role.
    """
    with database.transaction(actor) as tx:
        is_taken_back = deployments.take_back(tx, digest, reason=str(error))
    if is_taken_back:
        log.error("bundle.taken_back", bundle=digest, reason=str(error))
    return is_taken_back

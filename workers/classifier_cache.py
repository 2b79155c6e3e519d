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

    def warm(self, database: Database, tasks: Sequence[str]) -> None:
        """Load the bundles that answer now, so that the first study does not wait for it."""
        with database.reading() as session:
            digests = [deployments.champion(session, task) for task in tasks]
        for digest in [digest for digest in digests if digest is not None][: self._capacity]:
            self.get(digest)

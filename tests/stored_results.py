"""Results that were truly built and lie on disk, as a deliver job finds them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from db.scoring import NewResult
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from tests import results_contexts as given
from tests.steered_node import STUDY, SteeredNode, four_views, result_object


def score_a_study(
    node: SteeredNode,
    folder: Path,
    destination: str,
    *,
    study: str = STUDY,
    said: ResultContext | None = None,
) -> list[NewResult]:
    """Receive a study, score it, and order its results for a destination.

    Parameters
    ----------
    node : SteeredNode
        Where.
    folder : pathlib.Path
        Of the results' files, each under its SOP Instance UID.
    destination : str
        ``AE@HOST:PORT``.
    study : str
        Study Instance UID.
    said : ResultContext, optional
        What the results say; by default of a positive study.

    Returns
    -------
    list of NewResult
        In the order in which they are sent.
    """
    results = []
    for ordinal, item in enumerate(build_all(said or given.positive())):
        (folder / item.sop_instance_uid).write_bytes(item.content)
        results.append(
            result_object(
                ordinal,
                kind=item.kind,
                sop_class_uid=item.sop_class_uid,
                sop_instance_uid=item.sop_instance_uid,
                file_name=item.sop_instance_uid,
                sha256=hashlib.sha256(item.content).hexdigest(),
            )
        )
    node.receive(*four_views(study))
    node.finish_scoring(node.claimed(), results=results, destinations=[destination])
    return results

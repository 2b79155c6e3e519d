"""Time the building of each kind of result, and weigh it: ``python -m benchmarks.results``.

One positive study of a bundle that localises, of four images of full size. Time is that of one builder, and
of writing and checking what it made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite

from benchmarks.tables import table
from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS, build_all
from dicom_node.results.checks.checker import check_objects
from dicom_node.results.context import BuiltObject, NodeIdentity, ResultContext
from models.contract import (
    BreastScore,
    BundleIdentity,
    CodedConcept,
    ImageScore,
    Laterality,
    LesionMark,
    Outcome,
    Region,
    StudyPrediction,
)
from training.datasets.phantom_objects import study

ROWS, COLUMNS = 4096, 3328
MASS = CodedConcept("129788004", "SCT", "Mammographic breast mass")


@dataclass(frozen=True, slots=True)
class KindFigures:
    """What one kind of object takes.

    Attributes
    ----------
    kind : str
        Key of the builders' table.
    objects : int
        How many there are of one study.
    megabytes : float
        All of them together, 10^6 bytes.
    build_s : float
        Median time of building, writing and checking all of them, seconds.
    check_s : float
        Of that, the median time of the node's own checker.
    """

    kind: str
    objects: int
    megabytes: float
    build_s: float
    check_s: float


def full_size_study(rows: int, columns: int) -> ResultContext:
    """Draw four images and say of the right ones that there is a mass."""
    images = study(seed=11, rows=rows, columns=columns)
    scores = tuple(_score(image, rows, columns) for image in images)
    breasts = tuple(
        BreastScore(side, max(s.probability for s in own), tuple(s.sop_instance_uid for s in own))
        for side in Laterality
        if (own := [s for s in scores if s.laterality is side])
    )
    return ResultContext(
        sources=tuple(_header(image) for image in images),
        prediction=StudyPrediction(
            "mammography_malignancy",
            Outcome.SCORED,
            0.5,
            scores,
            breasts,
            max(breast.probability for breast in breasts),
        ),
        bundle=BundleIdentity(
            "benchmark", "1", "0" * 64, "mammography_malignancy", "dicom-node", True, "0" * 64, localises=True
        ),
        node=NodeIdentity("DICOM_NODE", "benchmark", "dicom-node", "dicom-node"),
        analysed_at=datetime(2026, 1, 1, tzinfo=UTC),
        renderings={str(i.SOPInstanceUID): np.asarray(i.pixel_array, np.uint16) << 4 for i in images},
    )


def _header(image: Dataset) -> Dataset:
    buffer = BytesIO()
    dcmwrite(buffer, image, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer, stop_before_pixels=True)


def _score(image: Dataset, rows: int, columns: int) -> ImageScore:
    side = Laterality(image.ImageLaterality)
    centre = (columns * (0.7 if side is Laterality.RIGHT else 0.3), rows * 0.5)
    score = ImageScore(
        str(image.SOPInstanceUID), side, str(image.ViewPosition), 0.0, 0.1, Region(0, 0, columns, rows)
    )
    if side is Laterality.LEFT:
        return score
    down, across = np.ogrid[:rows, :columns]
    share = np.exp(-((across - centre[0]) ** 2 + (down - centre[1]) ** 2) / (0.06 * rows) ** 2)
    angles = np.arange(24) * (np.pi / 12)
    outline = tuple(
        (float(centre[0] + 0.04 * rows * np.cos(a)), float(centre[1] + 0.03 * rows * np.sin(a)))
        for a in angles
    )
    return replace(
        score,
        probability=0.9,
        evidence=np.digitize(share, [0.30, 0.60, 0.85]).astype(np.uint8),
        attention=np.where(share >= 0.02, share * 255, 0).astype(np.uint8),
        marks=(LesionMark(centre, outline, 0.9, MASS),),
    )


def figures_of(context: ResultContext, kind: str, repeats: int) -> KindFigures:
    """Build one kind several times."""
    building, checking = [], []
    built: tuple[BuiltObject, ...] = ()
    for _ in range(repeats):
        started = time.perf_counter()
        built = build_all(context, [kind])
        building.append(time.perf_counter() - started)
        objects = [dcmread(BytesIO(item.content)) for item in built]
        started = time.perf_counter()
        faults = check_objects(objects, context.sources)
        checking.append(time.perf_counter() - started)
        if faults:
            raise RuntimeError(f"{kind}: {faults[0]}")
    size = sum(len(item.content) for item in built) / 1e6
    return KindFigures(kind, len(built), size, statistics.median(building), statistics.median(checking))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="how often each kind is built")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--columns", type=int, default=COLUMNS)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    chosen = parser.parse_args(arguments)
    context = full_size_study(chosen.rows, chosen.columns)
    kinds = (*RESULT_BUILDERS, *OPTION_BUILDERS)
    figures = [figures_of(context, kind, chosen.repeats) for kind in kinds]
    if chosen.json:
        print(json.dumps([asdict(one) for one in figures], indent=2))
        return
    rows = [
        (f.kind, str(f.objects), f"{f.megabytes:.3f}", f"{f.build_s:.2f}", f"{f.check_s:.2f}")
        for f in figures
    ]
    print(table(("kind", "objects", "MB", "build s", "of it check s"), rows))


if __name__ == "__main__":
    main()

"""Made-up run folders, as a training run leaves them, without the minutes that training takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import special

from training import leak_guard, predictions
from training.predictions import Predictions
from training.records import DataSet, Record
from training.splits import BY_GROUP, SplitPlan, plan

TASK = "mammography_malignancy"
CLASSES = ("not_malignant", "malignant")
SPECIFICITY = 0.85
HOSTILE = "<script>alert(1)</script>"


def data_set(women: int = 240, *, seed: int = 0) -> tuple[DataSet, list[np.ndarray]]:
    """Two pictures of each woman that resemble each other, one of each breast."""
    random = np.random.default_rng(seed)
    records, pictures = [], []
    for woman in range(women):
        label = CLASSES[int(random.random() < 0.35)]
        own = random.normal(120.0, 30.0, (16, 16))
        for side in "LR":
            name = f"w{woman}{side}"
            records.append(Record(name, Path(name), f"w{woman}", {TASK: label}, sha256=name))
            pictures.append(own + random.normal(0.0, 10.0, own.shape))
    return DataSet("made_up", tuple(records)), pictures


def write_run(
    folder: Path,
    *,
    women: int = 240,
    seed: int = 0,
    answers: int = 0,
    shift: float = 1.5,
    offset: float = -1.0,
    protocol: str = BY_GROUP,
    validation_share: float = 0.5,
) -> Path:
    """Write the files of a run that evaluation reads.

    Runs of the same `women`, `seed` and `protocol` have the same split; `answers` seeds what the network
    said, `shift` how much it knew and `offset` how readily it calls an image malignant: log odds both.
    """
    dataset, pictures = data_set(women, seed=seed)
    split = plan(dataset, TASK, folds=2, validation_share=validation_share, protocol=protocol)
    split.write(folder / "split.json")
    options = {
        "data_set": dataset.name,
        "data_folder": "/somewhere",
        "seed": seed,
        "specificity": SPECIFICITY,
    }
    (folder / "run.json").write_text(json.dumps({"options": options}))
    leak_guard.guard(split, dataset, pictures.__getitem__).write(folder / "guard.json")
    of_fold = [(image, k) for k, fold in enumerate(split.folds) for image in fold.test]
    random = np.random.default_rng([answers, 1])
    predictions.write(_answers(dataset, of_fold, random, shift, offset), folder / "predictions.csv")
    for number in range(len(split.folds)):
        fold = folder / f"fold-{number}"
        fold.mkdir()
        validation = [(image, number) for image in split.folds[number].validation]
        predictions.write(_answers(dataset, validation, random, shift, offset), fold / "validation.csv")
        (fold / "weights.safetensors").write_bytes(bytes(2_000_000))
        (fold / "fold.json").write_text(json.dumps({"seconds_per_epoch": 3.0, "training_images": 100}))
    return folder


def split_of(folder: Path) -> SplitPlan:
    from training import splits

    return splits.read(folder / "split.json")


def _answers(
    dataset: DataSet, pairs: list[tuple[str, int]], random: np.random.Generator, shift: float, offset: float
) -> Predictions:
    records = {record.image: record for record in dataset.records}
    labels = np.asarray([CLASSES.index(records[image].labels[TASK]) for image, _ in pairs], dtype=np.int64)
    logits = random.normal(labels * shift + offset, 1.0)
    score = special.expit(logits)
    return Predictions(
        task=TASK,
        classes=CLASSES,
        images=tuple(image for image, _ in pairs),
        groups=tuple(records[image].group for image, _ in pairs),
        breasts=tuple(image for image, _ in pairs),
        labels=labels,
        logits=logits[:, None],
        probabilities=np.column_stack([1.0 - score, score]),
        folds=np.asarray([fold for _, fold in pairs], dtype=np.int64),
        subgroups={"scanner": tuple("A" if len(image) > 3 else HOSTILE for image, _ in pairs)},
    )

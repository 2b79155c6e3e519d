"""S1: the whole chain in words: collect, preprocess, augment, learn, tell malignant from benign, localise."""

from __future__ import annotations

from benchmarks.sources.variants import Source, Variant

SOURCE = Source(
    name="s1",
    title="The whole chain: whole mammograms, calibrated, by subgroup",
    claim="no number; accuracy, sensitivity, specificity, precision, recall and F1 are named",
    folder="mini-mias",
    options={
        "task": "mammography_malignancy",
        "data_set": "mini_mias",
        "pixel_mm": 0.01,
        "learning_rate": 1e-3,
        "average": 0.9,
    },
    variants=(
        Variant("cnn3", {"architecture": "cnn3", "architecture_arguments": {"head": "gap"}}),
        Variant(
            "cnn3-weighted",
            {"architecture": "cnn3", "architecture_arguments": {"head": "gap"}, "imbalance": "weighted"},
        ),
    ),
    remarks=(
        "Malignant against benign or normal, on whole mammograms of mini-MIAS, every breast filling the "
        "grid.",
        "As written: images are split one by one, so that a breast may train and the other of the same woman "
        "test.",
    ),
    tells_all=True,
)

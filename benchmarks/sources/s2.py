"""S2: the seven classes of MIAS."""

from __future__ import annotations

from benchmarks.sources.variants import Source, Variant

SOURCE = Source(
    name="s2",
    title="Seven classes of MIAS",
    claim="94.63 % accuracy",
    folder="mini-mias",
    options={
        "task": "mias7",
        "data_set": "mini_mias",
        "data_options": {"mode": "regions"},
        "learning_rate": 2e-3,
        "average": 0.9,
        "imbalance": "none",
    },
    as_written={"copies": 8, "augmentation": 0.0},
    variants=(
        Variant("cnn3", {"architecture": "cnn3", "architecture_arguments": {"head": "dense"}}),
        Variant("cnn3-gap", {"architecture": "cnn3", "architecture_arguments": {"head": "gap"}}),
    ),
    remarks=(
        "Seven classes on the marked regions of mini-MIAS and drawn normal regions.",
        "As written: eight orientations of each region are made first, then images are split. By woman: "
        "images are split first, and the training part alone is varied.",
    ),
)

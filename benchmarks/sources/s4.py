"""S4: histology patches, a convolutional against a fully connected network; and five ways with imbalance."""

from __future__ import annotations

from benchmarks.sources.variants import Source, Variant
from training.imbalance import Imbalance

_CNN3 = {"architecture": "cnn3", "architecture_arguments": {"head": "dense", "dropout": 0.3}}

SOURCE = Source(
    name="s4",
    title="Histology patches: CNN against ANN, and imbalance",
    claim="CNN 86.11 %, ANN 80 % accuracy",
    folder="idc-patches",
    options={
        "task": "idc",
        "data_set": "idc_patches",
        "learning_rate": 1e-3,
        "average": 0.98,
        "augmentation": 0.0,
    },
    variants=(
        Variant("cnn3", _CNN3),
        Variant("ann", {"architecture": "ann", "architecture_arguments": {"dropout": 0.3}}),
        *(
            Variant(f"cnn3-{method}", {**_CNN3, "imbalance": str(method)}, honest_alone=True)
            for method in Imbalance
            if method is not Imbalance.NONE
        ),
    ),
    remarks=(
        "Patches that a slide's edge cut are left out: nearly all are negative, so their size would tell.",
        "As written: patches are split one by one, so that a slide is in training and in test.",
        "The prior is put back for the sampler and for logit adjustment; weights and focal loss are left as "
        "they are used.",
    ),
    reference="cnn3",
)

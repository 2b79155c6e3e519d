"""S0: seven ImageNet networks, fine-tuned on mammograms; the best one is announced."""

from __future__ import annotations

from benchmarks.sources.variants import Source, Variant

_NETWORKS = ("alexnet", "vgg16", "vgg19", "resnet50", "resnet101", "densenet201", "inception_v3")

SOURCE = Source(
    name="s0",
    title="Seven ImageNet networks on mammograms",
    claim="VGG-19 best, 92.1 % accuracy",
    folder="mini-mias",
    options={
        "task": "mammography_malignancy",
        "data_set": "mini_mias",
        "data_options": {"mode": "regions"},
        "learning_rate": 3e-4,
        "average": 0.9,
    },
    variants=tuple(
        Variant(
            name, {"architecture": name, "architecture_arguments": {"head": "gap"}}, rests_on_weights=True
        )
        for name in _NETWORKS
    ),
    remarks=(
        "Malignant against benign or normal, on the marked regions of mini-MIAS and drawn normal regions.",
        "As written: regions are split one by one, so that breasts of one woman, and regions of one breast, "
        "are in training and in test.",
    ),
)

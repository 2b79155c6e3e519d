"""S3: a network of three convolutions, and VGG16 and ResNet50 by feature extraction and by fine-tuning."""

from __future__ import annotations

from benchmarks.sources.variants import Source, Variant


def _pretrained(architecture: str) -> tuple[Variant, ...]:
    """Head A is dense with batch norm and dropout, head B is pooled with dropout; then the top is tuned."""

    def variant(name: str, head: str, mode: str) -> Variant:
        arguments = {"head": head, "dropout": 0.5, **({"hidden": 256} if head == "dense" else {})}
        options = {"architecture": architecture, "architecture_arguments": arguments, "mode": mode}
        return Variant(f"{architecture}-{name}", options, rests_on_weights=True)

    return (
        variant("features-a", "dense", "features"),
        variant("features-b", "gap", "features"),
        variant("finetune", "gap", "finetune:1"),
    )


SOURCE = Source(
    name="s3",
    title="Three convolutions, and feature extraction and fine-tuning of VGG16 and ResNet50",
    claim="accuracy, precision, recall, F1, confusion matrix, ROC and AUC; the split is not described",
    folder="mini-mias",
    options={
        "task": "mammography_malignancy",
        "data_set": "mini_mias",
        "data_options": {"mode": "regions"},
        "learning_rate": 1e-3,
        "average": 0.9,
    },
    variants=(
        Variant(
            "cnn3", {"architecture": "cnn3", "architecture_arguments": {"head": "dense", "dropout": 0.5}}
        ),
        *_pretrained("vgg16"),
        *_pretrained("resnet50"),
    ),
    remarks=(
        "Malignant against benign or normal, on the marked regions of mini-MIAS and drawn normal regions.",
        "As written: the source does not describe its split; regions are split one by one, so that breasts "
        "of one woman, and regions of one breast, are in training and in test.",
    ),
)

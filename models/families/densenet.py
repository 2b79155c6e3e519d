"""DenseNet, from MONAI: four dense blocks with transitions between them.

Huang and others, "Densely connected convolutional networks", 2017.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.heads import head
from models.networks import ImageNetwork


class DenseNet(ImageNetwork):
    """A densely connected network. Its blocks are the stem and the four dense blocks, each with what ends it.

    Parameters
    ----------
    make : type
        MONAI's ``DenseNet121`` or one of its siblings.
    outputs, channels, head_kind, dropout, hidden
        As for every architecture.
    """

    def __init__(
        self, make: Any, *, outputs: int, channels: int, head_kind: str, dropout: float, hidden: int
    ) -> None:
        blocks = (
            ("features.conv0", "features.norm0"),
            *((f"features.denseblock{n}", f"features.transition{n}") for n in (1, 2, 3)),
            ("features.denseblock4", "features.norm5"),
        )
        super().__init__(blocks, channels=channels, smallest_side=32, first_layer="features.conv0")
        base = make(spatial_dims=2, in_channels=channels, out_channels=1)
        self.features: nn.Module = base.features
        features = base.class_layers.out.in_features
        self.classifier = head(head_kind, features, outputs, dropout=dropout, hidden=hidden)

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, F, rows / 32, columns / 32)`` features."""
        return functional.relu(self.features(batch))

"""ResNet with bottleneck blocks, from MONAI. Layers have torchvision's names.

He and others, "Deep residual learning for image recognition", 2015; the stride sits in the 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from models.heads import head
from models.networks import ImageNetwork

_FEATURES = 2048


class ResNet(ImageNetwork):
    """A residual network. Its blocks are the stem and the four stages.

    Parameters
    ----------
    make : callable
        MONAI's ``resnet50`` or one of its siblings with bottlenecks.
    outputs, channels, head_kind, dropout, hidden
        As for every architecture.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        *,
        outputs: int,
        channels: int,
        head_kind: str,
        dropout: float,
        hidden: int,
    ) -> None:
        blocks = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
        super().__init__(blocks, channels=channels, smallest_side=32, first_layer="conv1")
        # With MONAI's own defaults (stride 1 in front, a bias in the short cuts) published weights load all
        # the same, but compute something else.
        base = make(
            pretrained=False,
            spatial_dims=2,
            n_input_channels=channels,
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        self.conv1: nn.Module = base.conv1
        self.bn1: nn.Module = base.bn1
        self.act: nn.Module = base.act
        self.maxpool: nn.Module = base.maxpool
        self.layer1: nn.Module = base.layer1
        self.layer2: nn.Module = base.layer2
        self.layer3: nn.Module = base.layer3
        self.layer4: nn.Module = base.layer4
        self.classifier = head(head_kind, _FEATURES, outputs, dropout=dropout, hidden=hidden)

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 2048, rows / 32, columns / 32)`` features."""
        features: torch.Tensor = self.maxpool(self.act(self.bn1(self.conv1(batch))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        return features

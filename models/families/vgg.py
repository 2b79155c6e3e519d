"""VGG: five stages of 3x3 convolutions, each ended by max-pooling. Layers have torchvision's names.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
"""

from __future__ import annotations

import torch
from torch import nn

from models.heads import DenseHead, head, require_head
from models.networks import ImageNetwork

_STAGE_CHANNELS = (64, 128, 256, 512, 512)
_GRID = (7, 7)
_PUBLISHED_UNITS = 4096


class Vgg(ImageNetwork):
    """A VGG without batch norm. Its blocks are the five stages.

    Parameters
    ----------
    depths : tuple of int
        Number of convolutions in each of the five stages.
    outputs, channels, head_kind, dropout
        As for every architecture.
    hidden : int or None
        Units of the dense head, on the 7x7 map; None keeps the two published dense layers of 4,096 units.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        outputs: int,
        channels: int,
        head_kind: str,
        dropout: float,
        hidden: int | None,
    ) -> None:
        layers, blocks = _stages(depths, channels)
        keeps_published = head_kind == "dense" and hidden is None
        super().__init__(
            blocks,
            channels=channels,
            smallest_side=32,
            first_layer="features.0",
            published_head_layers=("classifier.0", "classifier.3") if keeps_published else (),
        )
        self.features = nn.Sequential(*layers)
        self.classifier = _classifier(head_kind, outputs, dropout, hidden)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 512, rows / 32, columns / 32)`` features."""
        features: torch.Tensor = self.features(batch)
        return features


def _stages(depths: tuple[int, ...], channels: int) -> tuple[list[nn.Module], tuple[tuple[str, ...], ...]]:
    """Return the layers in order, and for each stage the names of its convolutions."""
    layers: list[nn.Module] = []
    blocks = []
    incoming = channels
    for outgoing, depth in zip(_STAGE_CHANNELS, depths, strict=True):
        names = []
        for _ in range(depth):
            names.append(f"features.{len(layers)}")
            layers += [nn.Conv2d(incoming, outgoing, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            incoming = outgoing
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        blocks.append(tuple(names))
    return layers, tuple(blocks)


def _classifier(kind: str, outputs: int, dropout: float, hidden: int | None) -> nn.Module:
    if kind != "dense" or hidden is not None:
        return head(
            kind,
            _STAGE_CHANNELS[-1],
            outputs,
            dropout=dropout,
            hidden=1 if hidden is None else hidden,
            grid=_GRID,
        )
    require_head(kind, outputs, dropout)
    return DenseHead(
        nn.Linear(_STAGE_CHANNELS[-1] * _GRID[0] * _GRID[1], _PUBLISHED_UNITS),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(_PUBLISHED_UNITS, _PUBLISHED_UNITS),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(_PUBLISHED_UNITS, outputs),
        grid=_GRID,
    )

"""Three convolutions with max-pooling, a dense layer, dropout: a small network to train from scratch.

With one logit and three channels 683,329 parameters; 93,377 with the pooled head.
"""

from __future__ import annotations

import torch
from torch import nn

from models import heads
from models.networks import ImageNetwork

_CHANNELS = (32, 64, 128)
# What a patch of 50 x 50 leaves after three halvings; larger images are averaged to it.
_GRID = (6, 6)


class Cnn3(ImageNetwork):
    """Three convolutions, each a block of its own, and a head."""

    def __init__(self, channels: int, classifier: nn.Module) -> None:
        blocks = (("features.0",), ("features.3",), ("features.6",))
        super().__init__(blocks, channels=channels, smallest_side=8, first_layer="features.0")
        layers: list[nn.Module] = []
        for incoming, outgoing in zip((channels, *_CHANNELS), _CHANNELS, strict=False):
            layers += [
                nn.Conv2d(incoming, outgoing, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=2),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = classifier

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 128, rows / 8, columns / 8)`` features."""
        features: torch.Tensor = self.features(batch)
        return features


def build(
    *, outputs: int = 1, channels: int = 3, head: str = "dense", dropout: float = 0.0, hidden: int = 128
) -> nn.Module:
    """Build the network with fresh weights from torch's own random state.

    Parameters
    ----------
    outputs : int
        Number of logits.
    channels : int
        Input channels, 1 or 3.
    head : str
        ``"gap"`` or ``"dense"``; the dense one has no batch norm here.
    dropout : float
        Share of features that training leaves out in the head, 0..1, 1 excluded.
    hidden : int
        Units of the dense head.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    classifier = heads.head(
        head, _CHANNELS[-1], outputs, dropout=dropout, hidden=hidden, grid=_GRID, batch_norm=False
    )
    return Cnn3(channels, classifier)

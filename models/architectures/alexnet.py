"""AlexNet in its one-stream form: five convolutions. With one logit 57,007,937 parameters (dense head).

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014. Layers have torchvision's
names.
"""

from __future__ import annotations

import torch
from torch import nn

from models import heads
from models.networks import ImageNetwork

_GRID = (6, 6)
_FEATURES = 256
_PUBLISHED_UNITS = 4096
_CONVOLUTIONS = (0, 3, 6, 8, 10)


class AlexNet(ImageNetwork):
    """Five convolutions, each a block of its own, and a head.

    Parameters
    ----------
    channels : int
        Input channels, 1 or 3.
    classifier : torch.nn.Module
        The head.
    keeps_published : bool
        Whether the head begins with the two published dense layers.
    """

    def __init__(self, channels: int, classifier: nn.Module, *, keeps_published: bool) -> None:
        blocks = tuple((f"features.{position}",) for position in _CONVOLUTIONS)
        super().__init__(
            blocks,
            channels=channels,
            smallest_side=63,
            first_layer="features.0",
            published_head_layers=("classifier.1", "classifier.4") if keeps_published else (),
        )
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, _FEATURES, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = classifier

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 256, h, w)`` features, 6 x 6 of them at 224 x 224."""
        features: torch.Tensor = self.features(batch)
        return features


def build(
    *,
    outputs: int = 1,
    channels: int = 3,
    head: str = "dense",
    dropout: float = 0.0,
    hidden: int | None = None,
) -> nn.Module:
    """Build an AlexNet with fresh weights from torch's own random state.

    Parameters
    ----------
    outputs : int
        Number of logits.
    channels : int
        Input channels, 1 or 3.
    head : str
        ``"gap"`` or ``"dense"``.
    dropout : float
        Share of features that training leaves out in the head, 0..1, 1 excluded.
    hidden : int, optional
        Units of the dense head, followed by batch norm; by default the two published dense layers of 4,096.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    classifier = _classifier(head, outputs, dropout, hidden)
    return AlexNet(channels, classifier, keeps_published=head == "dense" and hidden is None)


def _classifier(kind: str, outputs: int, dropout: float, hidden: int | None) -> nn.Module:
    if kind != "dense" or hidden is not None:
        units = 1 if hidden is None else hidden
        return heads.head(kind, _FEATURES, outputs, dropout=dropout, hidden=units, grid=_GRID)
    heads.require_head(kind, outputs, dropout)
    return heads.DenseHead(
        nn.Dropout(dropout),
        nn.Linear(_FEATURES * _GRID[0] * _GRID[1], _PUBLISHED_UNITS),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(_PUBLISHED_UNITS, _PUBLISHED_UNITS),
        nn.ReLU(inplace=True),
        nn.Linear(_PUBLISHED_UNITS, outputs),
        grid=_GRID,
    )

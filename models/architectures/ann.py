"""A fully connected network on the pixels of small images: the baseline that convolutions are held against.

With one logit and colour patches of 50 x 50 pixels 3,906,305 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models import heads
from models.networks import ImageNetwork


class Ann(ImageNetwork):
    """Dense layers on the flattened image, each a block of its own, and a linear layer on top."""

    def __init__(
        self, shape: tuple[int, int, int], hidden: Sequence[int], outputs: int, dropout: float
    ) -> None:
        blocks = tuple((f"features.{1 + 3 * number}",) for number in range(len(hidden)))
        super().__init__(blocks, channels=shape[0], smallest_side=1)
        self.shape = shape
        layers: list[nn.Module] = [nn.Flatten()]
        incoming = shape[0] * shape[1] * shape[2]
        for units in hidden:
            layers += [nn.Linear(incoming, units), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            incoming = units
        self.features = nn.Sequential(*layers)
        self.classifier = heads.DenseHead(nn.Linear(incoming, outputs), grid=(1, 1))

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, units, 1, 1)`` features.

        Raises
        ------
        ValueError
            If the images are not of the network's own size.
        """
        if tuple(batch.shape[1:]) != self.shape:
            raise ValueError(
                f"the network takes images of the shape {self.shape}, not {tuple(batch.shape[1:])}"
            )
        features: torch.Tensor = self.features(batch)
        return features[:, :, None, None]


def build(
    *,
    outputs: int = 1,
    channels: int = 3,
    head: str = "dense",
    dropout: float = 0.0,
    rows: int = 50,
    columns: int = 50,
    hidden: Sequence[int] = (512, 128),
) -> nn.Module:
    """Build the network with fresh weights from torch's own random state.

    Parameters
    ----------
    outputs : int
        Number of logits.
    channels : int
        Input channels, 1 or 3.
    head : str
        ``"dense"``: there are no places left to pool over.
    dropout : float
        Share of units that training leaves out after each hidden layer, 0..1, 1 excluded.
    rows, columns : int
        Size of the images; no other size fits.
    hidden : sequence of int
        Units of the hidden layers, the lowest first; at least one layer.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    heads.require_head(head, outputs, dropout)
    if head != "dense":
        raise ValueError("ann has no map of features to pool: use the head dense")
    if min(rows, columns) < 1:
        raise ValueError("rows and columns must be at least 1")
    if not hidden or min(hidden) < 1:
        raise ValueError("hidden needs at least one layer, each of at least one unit")
    return Ann((channels, rows, columns), tuple(hidden), outputs, dropout)

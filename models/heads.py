"""What sits on top of a network's base and makes logits of its features.

Two kinds, by name: ``gap`` pools a class activation map, so its map is exact and comes free; ``dense`` mixes
all places in a dense layer and has no map.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

HEADS = ("gap", "dense")
"""Names of the heads."""


class PooledHead(nn.Module):
    """Global average pooling, dropout, linear: as a 1x1 convolution whose map is averaged last.

    Averaging and a linear layer commute. In this order the map is at hand, and the logit is its mean.

    Parameters
    ----------
    features : int
        Channels of the feature map.
    outputs : int
        Number of logits.
    dropout : float
        Share of features that training leaves out, each in all places at once: the same as dropout after
        the pooling. 0..1, 1 excluded.
    """

    def __init__(self, features: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.linear = nn.Conv2d(features, outputs, kernel_size=1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits ``(N, K)`` and activation maps ``(N, K, h, w)`` of features ``(N, F, h, w)``."""
        activation = self.linear(self.dropout(features))
        return activation.mean(dim=(2, 3)), activation


class DenseHead(nn.Sequential):
    """Layers on the flattened feature map; no activation map follows from them.

    Parameters
    ----------
    layers : torch.nn.Module
        What comes after flattening.
    grid : tuple of int
        Rows and columns that the feature map is averaged to before, so that any image size fits.
    """

    def __init__(self, *layers: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__(*layers)
        self.grid = grid

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return logits ``(N, K)`` of features ``(N, F, h, w)``, and None instead of a map."""
        # Where sizes are equal this pooling is the identity; left out, it costs no copy.
        if tuple(features.shape[2:]) != self.grid:
            features = functional.adaptive_avg_pool2d(features, self.grid)
        flat = features.flatten(1)
        for layer in self:
            flat = layer(flat)
        return flat, None


def head(
    kind: str,
    features: int,
    outputs: int,
    *,
    dropout: float,
    hidden: int,
    grid: tuple[int, int] = (1, 1),
    batch_norm: bool = True,
) -> nn.Module:
    """Build a head with fresh weights.

    Parameters
    ----------
    kind : str
        ``"gap"`` or ``"dense"``.
    features : int
        Channels of the feature map.
    outputs : int
        Number of logits, at least 1.
    dropout : float
        Share of features that training leaves out, 0..1, 1 excluded.
    hidden : int
        Units of the dense layer, at least 1.
    grid : tuple of int
        Rows and columns of the feature map that the dense layer sees.
    batch_norm : bool
        Whether a batch norm follows the dense layer.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """
    require_head(kind, outputs, dropout, hidden)
    if kind == "gap":
        return PooledHead(features, outputs, dropout)
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return DenseHead(
        nn.Linear(features * grid[0] * grid[1], hidden),
        nn.ReLU(inplace=True),
        *norm,
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
        grid=grid,
    )


def require_head(kind: str, outputs: int, dropout: float, hidden: int = 1) -> None:
    """Refuse arguments that describe no head.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """
    if kind not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, not {kind!r}")
    if outputs < 1:
        raise ValueError("outputs must be at least 1")
    if not 0.0 <= dropout < 1.0:
        raise ValueError("dropout must be at least 0 and below 1")
    if hidden < 1:
        raise ValueError("hidden must be at least 1")

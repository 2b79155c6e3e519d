"""A small convolutional network for demonstrations: about 70,000 parameters, one logit.

Its head is linear and pooled over the most active places, so its class activation map is exact: the logit is
the mean of the map's highest cells. Averaging over the whole breast instead drowns a lesion of 1 % of the
area and makes the score depend on the breast's size.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import nn

from models.networks import ImageNetwork


class Compact(ImageNetwork):
    """Three halvings of the grid, two blocks with a wide view, and a pooled linear head.

    Each of the six parts below the head is a block.

    Parameters
    ----------
    channels : tuple of int
        Features at a half, a quarter and an eighth of the input's size.
    pooled_share : float
        Share of the map's cells that the logit is the mean of, above 0 and at most 1.
    """

    def __init__(self, channels: tuple[int, int, int], pooled_share: float) -> None:
        blocks = tuple((f"features.{position}",) for position in range(6))
        super().__init__(blocks, channels=1, smallest_side=8, head_modules=("head",))
        self.pooled_share = pooled_share
        first, second, third = channels
        self.features = nn.Sequential(
            _halving(1, first),
            _halving(first, second),
            _block(second, second),
            _halving(second, third),
            _block(third, third),
            _block(third, third, dilation=2),
        )
        self.head = nn.Conv2d(third, 1, kernel_size=1)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``(N, 1)`` and class activation map ``(N, 1, rows / 8, columns / 8)`` of a batch.

        Parameters
        ----------
        batch : torch.Tensor
            ``(N, 1, rows, columns)`` float32, standardised; rows and columns are multiples of 8.
        """
        activation = self.head(self.features(batch))
        cells = activation.flatten(1)
        pooled = max(1, round(self.pooled_share * cells.shape[1]))
        return cells.topk(pooled, dim=1).values.mean(dim=1, keepdim=True), activation


def _halving(incoming: int, outgoing: int) -> nn.Module:
    """Halve the grid with a 4x4 kernel: it is centred on the new cell, a 3x3 kernel is half a pixel off."""
    block: nn.Module = Convolution(
        2, incoming, outgoing, strides=2, kernel_size=4, padding=1, act="RELU", norm="BATCH", bias=False
    )
    return block


def _block(incoming: int, outgoing: int, dilation: int = 1) -> nn.Module:
    block: nn.Module = Convolution(
        2, incoming, outgoing, kernel_size=3, dilation=dilation, act="RELU", norm="BATCH", bias=False
    )
    return block


def build(
    *, channels: tuple[int, int, int] | list[int] = (12, 24, 48), pooled_share: float = 0.01
) -> nn.Module:
    """Build a :class:`Compact` with fresh weights from torch's own random state.

    Parameters
    ----------
    channels : sequence of int
        Features at a half, a quarter and an eighth of the input's size.
    pooled_share : float
        Share of the map's cells that the logit is the mean of, above 0 and at most 1.

    Raises
    ------
    ValueError
        If there are not three numbers of channels or the share is out of range.
    """
    if len(channels) != 3:
        raise ValueError("compact has three stages: give three numbers of channels")
    if not 0.0 < pooled_share <= 1.0:
        raise ValueError("pooled_share must be above 0 and at most 1")
    first, second, third = channels
    return Compact((first, second, third), pooled_share)

"""What every network of this program has in common: a base of blocks with a head on top.

Training decides by these names which layers learn, and published weights find their places by them.
"""

from __future__ import annotations

import torch
from torch import nn

ALLOWED_CHANNELS = (1, 3)


class ImageNetwork(nn.Module):
    """A base that makes a map of features, and a head that makes logits of it.

    Parameters
    ----------
    blocks : tuple of tuple of str
        The base from the input upwards; each block names the submodules that belong to it. Together they
        hold every parameter that is not the head's.
    channels : int
        Input channels, 1 or 3.
    smallest_side : int
        Least rows and columns of an input, pixels.
    first_layer : str, optional
        Name of the convolution that sees the image; None where weights of colour images cannot be adapted.
    head_modules : tuple of str
        Submodules that belong to the head. The one that answers is called ``classifier``, unless the network
        has a forward pass of its own.
    published_head_layers : tuple of str
        Layers of the head that published weights hold, too, under the same name.

    Raises
    ------
    ValueError
        If `channels` is neither 1 nor 3.
    """

    classifier: nn.Module

    def __init__(
        self,
        blocks: tuple[tuple[str, ...], ...],
        *,
        channels: int,
        smallest_side: int,
        first_layer: str | None = None,
        head_modules: tuple[str, ...] = ("classifier",),
        published_head_layers: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if channels not in ALLOWED_CHANNELS:
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), not {channels!r}")
        self.blocks = blocks
        self.channels = channels
        self.smallest_side = smallest_side
        self.first_layer = first_layer
        self.head_modules = head_modules
        self.published_head_layers = published_head_layers

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, F, h, w)`` features of ``(N, channels, rows, columns)`` images."""
        raise NotImplementedError

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answer a batch.

        Parameters
        ----------
        batch : torch.Tensor
            ``(N, channels, rows, columns)`` float32, standardised.

        Returns
        -------
        tuple
            Logits ``(N, K)``; class activation maps ``(N, K, h, w)`` whose mean is the logit, or None where
            the head is dense.

        Raises
        ------
        ValueError
            If the images have other channels or are too small.
        """
        self.require_fitting(batch)
        answer: tuple[torch.Tensor, torch.Tensor | None] = self.classifier(self.feature_map(batch))
        return answer

    def training_answers(self, batch: torch.Tensor) -> tuple[tuple[torch.Tensor, float], ...]:
        """Return each logits ``(N, K)`` that training learns from, with its weight in the loss; main first.

        One alone but for a network with an auxiliary head.
        """
        return ((self(batch)[0], 1.0),)

    def require_fitting(self, batch: torch.Tensor) -> None:
        """Refuse a batch that the base cannot take.

        Raises
        ------
        ValueError
            If the images have other channels or are too small.
        """
        channels, rows, columns = batch.shape[1:]
        if channels != self.channels:
            raise ValueError(f"the network takes images of {self.channels} channels, not {channels}")
        if min(rows, columns) < self.smallest_side:
            raise ValueError(
                f"the network takes images of at least {self.smallest_side} x {self.smallest_side} pixels, "
                f"not {rows} x {columns}"
            )

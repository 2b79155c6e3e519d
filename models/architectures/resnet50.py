"""ResNet-50 on MONAI's layers. With one logit 23,510,081 parameters."""

from __future__ import annotations

from monai.networks import nets
from torch import nn

from models.families.resnet import ResNet


def build(
    *,
    outputs: int = 1,
    channels: int = 3,
    head: str = "gap",
    dropout: float = 0.0,
    hidden: int = 256,
) -> nn.Module:
    """Build a ResNet-50 with fresh weights from torch's own random state.

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
    hidden : int
        Units of the dense head, followed by batch norm; the other head has none.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    return ResNet(
        nets.resnet50,
        outputs=outputs,
        channels=channels,
        head_kind=head,
        dropout=dropout,
        hidden=hidden,
    )

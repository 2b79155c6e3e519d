"""VGG-16: thirteen convolutions.

With one logit 14,715,201 parameters; 134,264,641 with the published dense head.
"""

from __future__ import annotations

from torch import nn

from models.families.vgg import Vgg

_DEPTHS = (2, 2, 3, 3, 3)


def build(
    *,
    outputs: int = 1,
    channels: int = 3,
    head: str = "gap",
    dropout: float = 0.0,
    hidden: int | None = None,
) -> nn.Module:
    """Build a VGG-16 with fresh weights from torch's own random state.

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
    return Vgg(_DEPTHS, outputs=outputs, channels=channels, head_kind=head, dropout=dropout, hidden=hidden)

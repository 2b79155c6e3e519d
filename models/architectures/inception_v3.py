"""Inception V3. With one logit 21,787,617 parameters; the auxiliary head adds 2,558,465.

Szegedy and others, "Rethinking the Inception architecture for computer vision", 2016. Layers have
torchvision's names. Published weights were trained on colours that run from -1 to 1.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.heads import head as build_head
from models.networks import ImageNetwork

_FEATURES = 2048
_AUXILIARY_FEATURES = 768
_AUXILIARY_WEIGHT = 0.4
# The auxiliary head's 5 x 5 convolution needs 5 x 5 cells after its pooling: 17 before, an image of 299.
_AUXILIARY_CELLS = 17
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
_STEM_TOP = ("Conv2d_3b_1x1", "Conv2d_4a_3x3")
_MIXED = (
    "Mixed_5b",
    "Mixed_5c",
    "Mixed_5d",
    "Mixed_6a",
    "Mixed_6b",
    "Mixed_6c",
    "Mixed_6d",
    "Mixed_6e",
    "Mixed_7a",
    "Mixed_7b",
    "Mixed_7c",
)
_AUXILIARY_AFTER = "Mixed_6e"

_Size = int | tuple[int, int]


class _Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        incoming: int,
        outgoing: int,
        kernel_size: _Size,
        *,
        stride: int = 1,
        padding: _Size = 0,
        spread: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            incoming, outgoing, kernel_size=kernel_size, stride=stride, padding=padding, bias=False
        )
        self.bn = nn.BatchNorm2d(outgoing, eps=0.001)
        nn.init.trunc_normal_(self.conv.weight, std=spread, a=-2.0 * spread, b=2.0 * spread)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(batch)), inplace=True)


def _smoothed(batch: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(batch, kernel_size=3, stride=1, padding=1)


class _MixedA(nn.Module):
    """Branches of 1x1, 5x5 and two 3x3 convolutions, and pooling, at 35 x 35."""

    def __init__(self, incoming: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(incoming, 64, 1)
        self.branch5x5_1 = _Convolution(incoming, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Convolution(incoming, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, padding=1)
        self.branch_pool = _Convolution(incoming, pooled, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        wide = self.branch5x5_2(self.branch5x5_1(batch))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(batch)))
        return torch.cat([self.branch1x1(batch), wide, double, self.branch_pool(_smoothed(batch))], 1)


class _MixedB(nn.Module):
    """Halves the grid from 35 x 35 to 17 x 17."""

    def __init__(self, incoming: int) -> None:
        super().__init__()
        self.branch3x3 = _Convolution(incoming, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Convolution(incoming, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(batch)))
        pooled = functional.max_pool2d(batch, kernel_size=3, stride=2)
        return torch.cat([self.branch3x3(batch), double, pooled], 1)


class _MixedC(nn.Module):
    """Branches of 7x7 convolutions taken apart into rows and columns, at 17 x 17."""

    def __init__(self, incoming: int, narrow: int) -> None:
        super().__init__()
        along: _Size = (1, 7)
        down: _Size = (7, 1)
        self.branch1x1 = _Convolution(incoming, 192, 1)
        self.branch7x7_1 = _Convolution(incoming, narrow, 1)
        self.branch7x7_2 = _Convolution(narrow, narrow, along, padding=(0, 3))
        self.branch7x7_3 = _Convolution(narrow, 192, down, padding=(3, 0))
        self.branch7x7dbl_1 = _Convolution(incoming, narrow, 1)
        self.branch7x7dbl_2 = _Convolution(narrow, narrow, down, padding=(3, 0))
        self.branch7x7dbl_3 = _Convolution(narrow, narrow, along, padding=(0, 3))
        self.branch7x7dbl_4 = _Convolution(narrow, narrow, down, padding=(3, 0))
        self.branch7x7dbl_5 = _Convolution(narrow, 192, along, padding=(0, 3))
        self.branch_pool = _Convolution(incoming, 192, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        wide = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(batch)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(batch)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(batch), wide, double, self.branch_pool(_smoothed(batch))], 1)


class _MixedD(nn.Module):
    """Halves the grid from 17 x 17 to 8 x 8."""

    def __init__(self, incoming: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Convolution(incoming, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Convolution(incoming, 192, 1)
        self.branch7x7x3_2 = _Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        wide = self.branch7x7x3_2(self.branch7x7x3_1(batch))
        wide = self.branch7x7x3_4(self.branch7x7x3_3(wide))
        pooled = functional.max_pool2d(batch, kernel_size=3, stride=2)
        return torch.cat([self.branch3x3_2(self.branch3x3_1(batch)), wide, pooled], 1)


class _MixedE(nn.Module):
    """Branches that end in a row and a column convolution side by side, at 8 x 8."""

    def __init__(self, incoming: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(incoming, 320, 1)
        self.branch3x3_1 = _Convolution(incoming, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Convolution(incoming, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Convolution(incoming, 192, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        single = self.branch3x3_1(batch)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(batch))
        return torch.cat(
            [
                self.branch1x1(batch),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(_smoothed(batch)),
            ],
            1,
        )


class _AuxiliaryHead(nn.Module):
    """A second head on the middle of the network, which training alone uses."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv0 = _Convolution(_AUXILIARY_FEATURES, 128, 1)
        self.conv1 = _Convolution(128, 768, 5, spread=0.01)
        self.fc = nn.Linear(768, outputs)
        nn.init.trunc_normal_(self.fc.weight, std=0.001, a=-0.002, b=0.002)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if min(features.shape[2:]) < _AUXILIARY_CELLS:
            raise ValueError("the auxiliary head takes images of at least 299 x 299 pixels: train without it")
        pooled = functional.avg_pool2d(features, kernel_size=5, stride=3)
        convolved = self.conv1(self.conv0(pooled))
        logits: torch.Tensor = self.fc(convolved.mean(dim=(2, 3)))
        return logits


class InceptionV3(ImageNetwork):
    """Inception V3. Its blocks are the two parts of the stem and the eleven mixed blocks.

    Parameters
    ----------
    outputs, channels, head_kind, dropout, hidden
        As for every architecture.
    auxiliary : bool
        Whether training has the auxiliary head, too.
    """

    def __init__(
        self, *, outputs: int, channels: int, head_kind: str, dropout: float, hidden: int, auxiliary: bool
    ) -> None:
        super().__init__(
            (_STEM, _STEM_TOP, *((name,) for name in _MIXED)),
            channels=channels,
            smallest_side=75,
            first_layer="Conv2d_1a_3x3.conv",
            head_modules=("classifier", "AuxLogits") if auxiliary else ("classifier",),
            published_head_layers=("AuxLogits.conv0", "AuxLogits.conv1") if auxiliary else (),
        )
        self.Conv2d_1a_3x3 = _Convolution(channels, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b = _MixedA(192, pooled=32)
        self.Mixed_5c = _MixedA(256, pooled=64)
        self.Mixed_5d = _MixedA(288, pooled=64)
        self.Mixed_6a = _MixedB(288)
        self.Mixed_6b = _MixedC(768, narrow=128)
        self.Mixed_6c = _MixedC(768, narrow=160)
        self.Mixed_6d = _MixedC(768, narrow=160)
        self.Mixed_6e = _MixedC(768, narrow=192)
        self.AuxLogits = _AuxiliaryHead(outputs) if auxiliary else None
        self.Mixed_7a = _MixedD(768)
        self.Mixed_7b = _MixedE(1280)
        self.Mixed_7c = _MixedE(2048)
        self.classifier = build_head(head_kind, _FEATURES, outputs, dropout=dropout, hidden=hidden)

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 2048, h, w)`` features, 5 x 5 of them at 224 x 224."""
        return self._above(self._middle(batch))

    def training_answers(self, batch: torch.Tensor) -> tuple[tuple[torch.Tensor, float], ...]:
        """Return the logits ``(N, K)``, and the auxiliary head's with a weight of 0.4 where there is one.

        Raises
        ------
        ValueError
            If the images do not fit; the auxiliary head takes 299 x 299 pixels at least.
        """
        self.require_fitting(batch)
        middle = self._middle(batch)
        answers = ((self.classifier(self._above(middle))[0], 1.0),)
        return answers if self.AuxLogits is None else (*answers, (self.AuxLogits(middle), _AUXILIARY_WEIGHT))

    def _middle(self, batch: torch.Tensor) -> torch.Tensor:
        features = batch
        for name in _STEM:
            features = self.get_submodule(name)(features)
        features = functional.max_pool2d(features, kernel_size=3, stride=2)
        for name in _STEM_TOP:
            features = self.get_submodule(name)(features)
        features = functional.max_pool2d(features, kernel_size=3, stride=2)
        for name in _MIXED[: _MIXED.index(_AUXILIARY_AFTER) + 1]:
            features = self.get_submodule(name)(features)
        return features

    def _above(self, features: torch.Tensor) -> torch.Tensor:
        for name in _MIXED[_MIXED.index(_AUXILIARY_AFTER) + 1 :]:
            features = self.get_submodule(name)(features)
        return features


def build(
    *,
    outputs: int = 1,
    channels: int = 3,
    head: str = "gap",
    dropout: float = 0.0,
    hidden: int = 256,
    auxiliary: bool = False,
) -> nn.Module:
    """Build an Inception V3 with fresh weights from torch's own random state.

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
    auxiliary : bool
        Whether training has the auxiliary head, too. It takes images of at least 299 x 299 pixels.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    return InceptionV3(
        outputs=outputs,
        channels=channels,
        head_kind=head,
        dropout=dropout,
        hidden=hidden,
        auxiliary=auxiliary,
    )

"""The published networks written a second time, as plain functions over named tensors.

A first pass makes the tensors under their published names, as torchvision's files have them; any later pass
computes the logits from them. Nothing of the program under test is in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as f

CLASSES = 1000


class Published:
    """Named tensors, drawn at random when they are first asked for."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, torch.Tensor] = {}

    def _drawn(self, name: str, *shape: int, mean: float = 0.0, spread: float = 1.0) -> torch.Tensor:
        if name not in self.tensors:
            self.tensors[name] = mean + spread * torch.randn(shape, generator=self.random)
        return self.tensors[name].double()

    def conv(
        self,
        x: torch.Tensor,
        name: str,
        out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = False,
    ) -> torch.Tensor:
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        fan_in = x.shape[1] * k[0] * k[1]
        weight = self._drawn(f"{name}.weight", out, x.shape[1], *k, spread=math.sqrt(2.0 / fan_in))
        offset = self._drawn(f"{name}.bias", out, spread=0.1) if bias else None
        return f.conv2d(x, weight, offset, stride=stride, padding=padding)

    def norm(self, x: torch.Tensor, name: str, eps: float = 1e-5) -> torch.Tensor:
        weight = self._drawn(f"{name}.weight", x.shape[1], mean=1.0, spread=0.1)
        bias = self._drawn(f"{name}.bias", x.shape[1], spread=0.1)
        mean = self._drawn(f"{name}.running_mean", x.shape[1], spread=0.1)
        variance = self._drawn(f"{name}.running_var", x.shape[1], mean=1.0, spread=0.1).abs()
        return f.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    def linear(self, x: torch.Tensor, name: str, out: int) -> torch.Tensor:
        weight = self._drawn(f"{name}.weight", out, x.shape[1], spread=math.sqrt(1.0 / x.shape[1]))
        return f.linear(x, weight, self._drawn(f"{name}.bias", out, spread=0.1))


def alexnet_features(p: Published, x: torch.Tensor) -> torch.Tensor:
    x = f.max_pool2d(f.relu(p.conv(x, "features.0", 64, 11, stride=4, padding=2, bias=True)), 3, 2)
    x = f.max_pool2d(f.relu(p.conv(x, "features.3", 192, 5, padding=2, bias=True)), 3, 2)
    for name, out in (("features.6", 384), ("features.8", 256), ("features.10", 256)):
        x = f.relu(p.conv(x, name, out, 3, padding=1, bias=True))
    return f.max_pool2d(x, 3, 2)


def alexnet(p: Published, x: torch.Tensor, units: int = 4096) -> torch.Tensor:
    x = f.adaptive_avg_pool2d(alexnet_features(p, x), 6).flatten(1)
    x = f.relu(p.linear(x, "classifier.1", units))
    x = f.relu(p.linear(x, "classifier.4", units))
    return p.linear(x, "classifier.6", CLASSES)


def vgg_features(p: Published, x: torch.Tensor, plan: str) -> torch.Tensor:
    position = 0
    for step in plan.split():
        if step == "M":
            x, position = f.max_pool2d(x, 2, 2), position + 1
        else:
            x = f.relu(p.conv(x, f"features.{position}", int(step), 3, padding=1, bias=True))
            position += 2
    return x


def vgg(p: Published, x: torch.Tensor, plan: str, units: int = 4096) -> torch.Tensor:
    x = f.adaptive_avg_pool2d(vgg_features(p, x, plan), 7).flatten(1)
    x = f.relu(p.linear(x, "classifier.0", units))
    x = f.relu(p.linear(x, "classifier.3", units))
    return p.linear(x, "classifier.6", CLASSES)


VGG16 = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
VGG19 = "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"


def resnet(depths: tuple[int, ...]) -> Callable[[Published, torch.Tensor], torch.Tensor]:
    def forward(p: Published, x: torch.Tensor) -> torch.Tensor:
        x = f.relu(p.norm(p.conv(x, "conv1", 64, 7, stride=2, padding=3), "bn1"))
        x = f.max_pool2d(x, 3, 2, padding=1)
        for stage, depth in enumerate(depths, start=1):
            planes = 32 << stage
            for number in range(depth):
                here = f"layer{stage}.{number}"
                stride = 2 if stage > 1 and number == 0 else 1
                y = f.relu(p.norm(p.conv(x, f"{here}.conv1", planes, 1), f"{here}.bn1"))
                y = p.conv(y, f"{here}.conv2", planes, 3, stride=stride, padding=1)
                y = f.relu(p.norm(y, f"{here}.bn2"))
                y = p.norm(p.conv(y, f"{here}.conv3", 4 * planes, 1), f"{here}.bn3")
                if number == 0:
                    x = p.conv(x, f"{here}.downsample.0", 4 * planes, 1, stride=stride)
                    x = p.norm(x, f"{here}.downsample.1")
                x = f.relu(x + y)
        return p.linear(x.mean(dim=(2, 3)), "fc", CLASSES)

    return forward


def densenet(depths: tuple[int, ...]) -> Callable[[Published, torch.Tensor], torch.Tensor]:
    def forward(p: Published, x: torch.Tensor) -> torch.Tensor:
        x = p.conv(x, "features.conv0", 64, 7, stride=2, padding=3)
        x = f.max_pool2d(f.relu(p.norm(x, "features.norm0")), 3, 2, padding=1)
        for block, depth in enumerate(depths, start=1):
            for layer in range(1, depth + 1):
                here = f"features.denseblock{block}.denselayer{layer}"
                y = p.conv(f.relu(p.norm(x, f"{here}.norm1")), f"{here}.conv1", 128, 1)
                y = p.conv(f.relu(p.norm(y, f"{here}.norm2")), f"{here}.conv2", 32, 3, padding=1)
                x = torch.cat([x, y], 1)
            if block < len(depths):
                here = f"features.transition{block}"
                x = p.conv(f.relu(p.norm(x, f"{here}.norm")), f"{here}.conv", x.shape[1] // 2, 1)
                x = f.avg_pool2d(x, 2, 2)
        x = f.relu(p.norm(x, "features.norm5")).mean(dim=(2, 3))
        return p.linear(x, "classifier", CLASSES)

    return forward


def inception_v3(p: Published, x: torch.Tensor) -> torch.Tensor:
    def unit(
        x: torch.Tensor,
        name: str,
        out: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> torch.Tensor:
        y = p.conv(x, f"{name}.conv", out, kernel, stride=stride, padding=padding)
        return f.relu(p.norm(y, f"{name}.bn", eps=0.001))

    def smooth(x: torch.Tensor) -> torch.Tensor:
        return f.avg_pool2d(x, 3, 1, 1)

    x = unit(x, "Conv2d_1a_3x3", 32, 3, 2)
    x = unit(x, "Conv2d_2a_3x3", 32, 3)
    x = f.max_pool2d(unit(x, "Conv2d_2b_3x3", 64, 3, 1, 1), 3, 2)
    x = unit(x, "Conv2d_3b_1x1", 80)
    x = f.max_pool2d(unit(x, "Conv2d_4a_3x3", 192, 3), 3, 2)
    for m, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        a = unit(x, f"{m}.branch1x1", 64)
        b = unit(unit(x, f"{m}.branch5x5_1", 48), f"{m}.branch5x5_2", 64, 5, 1, 2)
        c = unit(unit(x, f"{m}.branch3x3dbl_1", 64), f"{m}.branch3x3dbl_2", 96, 3, 1, 1)
        c = unit(c, f"{m}.branch3x3dbl_3", 96, 3, 1, 1)
        x = torch.cat([a, b, c, unit(smooth(x), f"{m}.branch_pool", pooled)], 1)
    m = "Mixed_6a"
    a = unit(x, f"{m}.branch3x3", 384, 3, 2)
    b = unit(unit(x, f"{m}.branch3x3dbl_1", 64), f"{m}.branch3x3dbl_2", 96, 3, 1, 1)
    x = torch.cat([a, unit(b, f"{m}.branch3x3dbl_3", 96, 3, 2), f.max_pool2d(x, 3, 2)], 1)
    for m, n in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        a = unit(x, f"{m}.branch1x1", 192)
        b = unit(unit(x, f"{m}.branch7x7_1", n), f"{m}.branch7x7_2", n, (1, 7), 1, (0, 3))
        b = unit(b, f"{m}.branch7x7_3", 192, (7, 1), 1, (3, 0))
        c = unit(unit(x, f"{m}.branch7x7dbl_1", n), f"{m}.branch7x7dbl_2", n, (7, 1), 1, (3, 0))
        c = unit(c, f"{m}.branch7x7dbl_3", n, (1, 7), 1, (0, 3))
        c = unit(c, f"{m}.branch7x7dbl_4", n, (7, 1), 1, (3, 0))
        c = unit(c, f"{m}.branch7x7dbl_5", 192, (1, 7), 1, (0, 3))
        x = torch.cat([a, b, c, unit(smooth(x), f"{m}.branch_pool", 192)], 1)
    aside = unit(unit(f.avg_pool2d(x, 5, 3), "AuxLogits.conv0", 128), "AuxLogits.conv1", 768, 5)
    p.linear(aside.mean(dim=(2, 3)), "AuxLogits.fc", CLASSES)
    m = "Mixed_7a"
    a = unit(unit(x, f"{m}.branch3x3_1", 192), f"{m}.branch3x3_2", 320, 3, 2)
    b = unit(unit(x, f"{m}.branch7x7x3_1", 192), f"{m}.branch7x7x3_2", 192, (1, 7), 1, (0, 3))
    b = unit(b, f"{m}.branch7x7x3_3", 192, (7, 1), 1, (3, 0))
    x = torch.cat([a, unit(b, f"{m}.branch7x7x3_4", 192, 3, 2), f.max_pool2d(x, 3, 2)], 1)
    for m in ("Mixed_7b", "Mixed_7c"):
        a = unit(x, f"{m}.branch1x1", 320)
        b = unit(x, f"{m}.branch3x3_1", 384)
        b = torch.cat(
            [
                unit(b, f"{m}.branch3x3_2a", 384, (1, 3), 1, (0, 1)),
                unit(b, f"{m}.branch3x3_2b", 384, (3, 1), 1, (1, 0)),
            ],
            1,
        )
        c = unit(unit(x, f"{m}.branch3x3dbl_1", 448), f"{m}.branch3x3dbl_2", 384, 3, 1, 1)
        c = torch.cat(
            [
                unit(c, f"{m}.branch3x3dbl_3a", 384, (1, 3), 1, (0, 1)),
                unit(c, f"{m}.branch3x3dbl_3b", 384, (3, 1), 1, (1, 0)),
            ],
            1,
        )
        x = torch.cat([a, b, c, unit(smooth(x), f"{m}.branch_pool", 192)], 1)
    return p.linear(x.mean(dim=(2, 3)), "fc", CLASSES)


# Each with the number of tensors of its published file, counters of batches left out.
NETWORKS: dict[str, tuple[Callable[[Published, torch.Tensor], torch.Tensor], int]] = {
    "alexnet": (alexnet, 16),
    "vgg16": (partial(vgg, plan=VGG16), 32),
    "vgg19": (partial(vgg, plan=VGG19), 38),
    "resnet50": (resnet((3, 4, 6, 3)), 267),
    "resnet101": (resnet((3, 4, 23, 3)), 522),
    "densenet121": (densenet((6, 12, 24, 16)), 606),
    "densenet201": (densenet((6, 12, 48, 32)), 1006),
    "inception_v3": (inception_v3, 484),
}

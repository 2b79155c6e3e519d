"""What one step changes in each mode, in every architecture under both heads, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from models.architectures import architecture_names, build
from models.networks import ImageNetwork
from training.errors import TrainingConfigError
from training.modes import TrainingMode, parse_mode

SIDES = {"alexnet": 64, "inception_v3": 75, "ann": 8, "compact": 16, "cnn3": 16}
MODES = ("scratch", "features", "finetune:1", "finetune:2", "adapt-bn")
# The others are made of the same parts, only more of them.
SMALLER = ("alexnet", "ann", "cnn3", "compact", "densenet121", "inception_v3", "resnet50", "vgg16")
LARGER = ("densenet201", "resnet101", "vgg19")


def all_cases() -> list[Any]:
    cases = []
    for name in (*SMALLER, *LARGER):
        heads = {"ann": ["dense"], "compact": ["gap"]}.get(name, ["gap", "dense"])
        marks = [pytest.mark.slow_proof] if name in LARGER else []
        cases += [pytest.param(name, head, marks=marks) for head in heads]
    return cases


def network_of(name: str, head: str) -> ImageNetwork:
    torch.manual_seed(5)
    arguments: dict[str, Any] = {"head": head, "dropout": 0.25, "hidden": 8}
    if name == "ann":
        arguments = {"rows": 8, "columns": 8, "hidden": [16, 12]}
    if name == "compact":
        arguments = {}
    network = build(name, arguments)
    assert isinstance(network, ImageNetwork)
    return network


def one_step(network: ImageNetwork, mode: TrainingMode, side: int) -> None:
    torch.manual_seed(6)
    mode.apply(network)
    mode.set_training(network)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.1)
    images = torch.randn(4, network.channels, side, side)
    loss = sum(weight * logits.square().mean() for logits, weight in network.training_answers(images))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    optimiser.step()


def changed_names(network: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, now in network.state_dict().items() if not torch.equal(now, before[name])}


def of(names: set[str], modules: tuple[str, ...]) -> set[str]:
    return {name for name in names if any(name.startswith(f"{module}.") for module in modules)}


def batch_norms(network: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in network.named_modules() if isinstance(module, BatchNorm))


def test_all_architectures_are_looked_at() -> None:
    assert {*SMALLER, *LARGER} == set(architecture_names())


@pytest.mark.parametrize(("name", "head"), all_cases())
def test_a_step_changes_what_learns_and_not_a_bit_of_the_rest(name: str, head: str) -> None:
    network = network_of(name, head)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for text in MODES:
        network.load_state_dict(before)
        mode = parse_mode(text)
        one_step(network, mode, SIDES.get(name, 32))
        changed = changed_names(network, before)
        assert of(changed, network.head_modules), text
        upper = network.blocks[len(network.blocks) - mode.upper_blocks :]
        learning = network.blocks if mode.kind == "scratch" else upper
        for block in network.blocks:
            touched = of(changed, block)
            if block in learning:
                assert touched, (text, block)
            elif mode.kind == "adapt-bn":
                norms = batch_norms(network)
                assert touched == of(touched, norms), text
                in_block = {f"{norm}.running_mean" for norm in norms} & of(set(before), block)
                assert in_block <= touched, text
                assert not in_block or {key for key in touched if key.endswith(("weight", "bias"))}, text
            else:
                assert not touched, (text, block)


@pytest.mark.parametrize("text", ["features", "finetune:1", "adapt-bn"])
def test_validation_in_between_does_not_thaw_the_frozen_statistics(text: str) -> None:
    network = network_of("resnet50", "gap")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    mode = parse_mode(text)
    one_step(network, mode, 32)
    network.eval()
    one_step(network, mode, 32)
    frozen = of(changed_names(network, before), network.blocks[0])
    assert frozen == (of(set(before), ("bn1",)) if text == "adapt-bn" else set())


def test_the_auxiliary_head_learns_with_the_head() -> None:
    torch.manual_seed(5)
    network = build("inception_v3", {"auxiliary": True})
    assert isinstance(network, ImageNetwork)
    parse_mode("features").apply(network)
    learning = {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"classifier", "AuxLogits"}


def test_a_base_without_batch_norm_adapts_its_head_alone() -> None:
    network = network_of("cnn3", "gap")
    parse_mode("adapt-bn").apply(network)
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"classifier.linear.weight", "classifier.linear.bias"}


@pytest.mark.parametrize("text", MODES)
def test_a_mode_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_mode(text)) == text


@pytest.mark.parametrize(
    "text", ["", "Scratch", "finetune", "finetune:0", "finetune:-1", "finetune:x", "frozen"]
)
def test_an_unknown_mode_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(TrainingConfigError, match=r"use scratch, features, finetune:K .* adapt-bn"):
        parse_mode(text)


def test_more_blocks_than_there_are_cannot_be_finetuned() -> None:
    network = network_of("cnn3", "gap")
    with pytest.raises(TrainingConfigError, match=r"3 blocks.*finetune:1 to finetune:3"):
        parse_mode("finetune:4").apply(network)
    assert all(parameter.requires_grad for parameter in network.parameters())

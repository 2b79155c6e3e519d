"""Every architecture: the published number of parameters, any image size, grey or colour, an exact map."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from models.architectures import architecture_names, build
from models.errors import RegistryError
from models.networks import ImageNetwork

# With one logit and three channels: published networks have 1000 classes, 999 rows more in the last layer.
PARAMETERS = {
    ("alexnet", "dense"): 61_100_840 - 999 * 4097,
    ("alexnet", "gap"): 2_469_696 + 256 + 1,
    ("vgg16", "dense"): 138_357_544 - 999 * 4097,
    ("vgg16", "gap"): 14_714_688 + 512 + 1,
    ("vgg19", "dense"): 143_667_240 - 999 * 4097,
    ("vgg19", "gap"): 20_024_384 + 512 + 1,
    ("resnet50", "gap"): 25_557_032 - 999 * 2049,
    ("resnet101", "gap"): 44_549_160 - 999 * 2049,
    ("densenet121", "gap"): 7_978_856 - 999 * 1025,
    ("densenet201", "gap"): 20_013_928 - 999 * 1921,
    ("inception_v3", "gap"): 27_161_264 - 3_326_696 - 999 * 2049,
    ("cnn3", "gap"): 896 + 18_496 + 73_856 + 128 + 1,
    ("cnn3", "dense"): 896 + 18_496 + 73_856 + (128 * 36 + 1) * 128 + 128 + 1,
    ("ann", "dense"): (50 * 50 * 3 + 1) * 512 + 513 * 128 + 129,
}
POOLED = sorted(name for name, head in PARAMETERS if head == "gap")
NAMED = sorted({name for name, _ in PARAMETERS})


def shape_only(name: str, **arguments: Any) -> nn.Module:
    """Build without memory for weights: shapes and counts are real, values are not there."""
    with torch.device("meta"):
        return build(name, arguments).eval()


def test_the_registry_lists_every_architecture_of_the_table() -> None:
    assert set(architecture_names()) == {*NAMED, "compact"}


def test_names_are_listed_without_torch() -> None:
    code = (
        "import sys; from models.architectures import architecture_names; "
        "assert 'vgg19' in architecture_names(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("name", "head"), PARAMETERS)
def test_the_number_of_parameters_is_the_published_one(name: str, head: str) -> None:
    network = shape_only(name, head=head)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name, head]


@pytest.mark.parametrize(
    "name", [name for name in POOLED if name not in ("alexnet", "vgg16", "vgg19", "cnn3")]
)
def test_a_dense_head_has_a_dense_layer_with_batch_norm_and_dropout(name: str) -> None:
    pooled, dense = (shape_only(name, head=head, dropout=0.5, hidden=64) for head in ("gap", "dense"))
    features = pooled.get_submodule("classifier.linear").in_channels
    added = sum(p.numel() for p in dense.parameters()) - sum(p.numel() for p in pooled.parameters())
    assert added == (features + 1) * 64 + 2 * 64 + (64 + 1) - (features + 1)
    kinds = [type(layer) for layer in dense.get_submodule("classifier").children()]
    assert kinds == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "vgg19"])
def test_hidden_units_replace_the_published_dense_layers(name: str) -> None:
    kinds = [type(layer) for layer in shape_only(name, head="dense", hidden=64).get_submodule("classifier")]
    assert kinds == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]


@pytest.mark.parametrize(
    ("size", "channels", "head"),
    [((224, 224), 3, "dense"), ((512, 512), 1, "gap"), ((1024, 512), 3, "gap")],
)
@pytest.mark.parametrize("name", NAMED)
def test_an_image_of_any_size_fits(name: str, size: tuple[int, int], channels: int, head: str) -> None:
    arguments: dict[str, Any] = {"head": head}
    if name == "ann":
        arguments = {"rows": size[0], "columns": size[1]}
    network = shape_only(name, channels=channels, outputs=7, **arguments)
    logits, activation = network(torch.empty((2, channels, *size), device="meta"))
    assert logits.shape == (2, 7)
    if "head" not in arguments or head == "dense":
        assert activation is None
    else:
        assert activation.shape[:2] == (2, 7)
        assert min(activation.shape[2:]) > 2


@pytest.mark.slow_proof
@pytest.mark.parametrize("size", [(224, 224), (512, 512), (1024, 512)])
@pytest.mark.parametrize("name", NAMED)
def test_an_image_of_any_size_gets_finite_answers(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    fixed = {"rows": size[0], "columns": size[1]} if name == "ann" else {}
    network = build(name, fixed).eval()
    with torch.inference_mode():
        assert torch.isfinite(network(torch.randn(1, 3, *size))[0]).all()


@pytest.mark.parametrize("name", POOLED)
def test_the_mean_of_each_activation_map_is_its_logit(name: str) -> None:
    torch.manual_seed(3)
    network = build(name, {"outputs": 3, "channels": 1, "head": "gap"}).eval()
    with torch.inference_mode():
        logits, activation = network(torch.randn(1, 1, 96, 160))
    assert activation[0, 0].numel() > 1
    torch.testing.assert_close(activation.mean(dim=(2, 3)), logits, rtol=0, atol=0)


def test_the_map_is_exact_while_dropout_leaves_features_out() -> None:
    torch.manual_seed(3)
    network = build("cnn3", {"outputs": 3, "dropout": 0.5, "head": "gap"}).train()
    logits, activation = network(torch.randn(2, 3, 32, 48))
    torch.testing.assert_close(activation.mean(dim=(2, 3)), logits, rtol=0, atol=0)


def test_the_pooled_head_is_global_average_pooling_and_a_linear_layer() -> None:
    torch.manual_seed(3)
    network = build("cnn3", {"head": "gap", "outputs": 2}).eval()
    assert isinstance(network, ImageNetwork)
    images = torch.randn(2, 3, 40, 24)
    linear = network.get_submodule("classifier.linear")
    with torch.no_grad():
        pooled = network.feature_map(images).mean(dim=(2, 3))
        expected = pooled @ linear.weight.flatten(1).T + linear.bias
        torch.testing.assert_close(network(images)[0], expected, rtol=1e-5, atol=1e-6)


def test_dropout_leaves_the_same_features_out_in_all_places() -> None:
    torch.manual_seed(3)
    head = build("cnn3", {"head": "gap", "dropout": 0.5}).train().get_submodule("classifier")
    kept = head.get_submodule("dropout")(torch.ones(4, 128, 3, 3)).flatten(2)
    assert (kept == kept[:, :, :1]).all()
    assert set(kept.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("name", [*NAMED, "compact"])
def test_blocks_and_head_hold_every_parameter_once(name: str) -> None:
    network = shape_only(name)
    assert isinstance(network, ImageNetwork)
    parts = [module for block in network.blocks for module in block] + list(network.head_modules)
    held = [id(p) for part in parts for p in network.get_submodule(part).parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in network.parameters()}


def test_the_auxiliary_head_answers_in_training_alone() -> None:
    torch.manual_seed(3)
    network = build("inception_v3", {"auxiliary": True, "outputs": 2})
    assert isinstance(network, ImageNetwork)
    assert sum(p.numel() for p in network.parameters()) == 27_161_264 - 998 * 2049 - 998 * 769
    images = torch.randn(2, 3, 299, 299)
    (main, weight), (auxiliary, auxiliary_weight) = network.training_answers(images)
    assert main.shape == auxiliary.shape == (2, 2)
    assert (weight, auxiliary_weight) == (1.0, 0.4)
    with torch.no_grad():
        assert len(network.eval()(images)) == 2
    with pytest.raises(ValueError, match="299 x 299"):
        network.training_answers(images[:, :, :224, :224])


def test_without_an_auxiliary_head_training_learns_from_the_logits_alone() -> None:
    torch.manual_seed(3)
    network = build("inception_v3", {}).eval()
    assert isinstance(network, ImageNetwork)
    images = torch.randn(1, 3, 75, 75)
    with torch.no_grad():
        ((logits, weight),) = network.training_answers(images)
        torch.testing.assert_close(logits, network(images)[0], rtol=0, atol=0)
    assert weight == 1.0


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("resnet50", {"channels": 2}, "channels must be 1 .* or 3"),
        ("vgg16", {"head": "transformer"}, "head must be one of gap, dense"),
        ("vgg16", {"dropout": 1.0}, "dropout"),
        ("densenet121", {"outputs": 0}, "outputs"),
        ("resnet50", {"head": "dense", "hidden": 0}, "hidden"),
        ("ann", {"head": "gap"}, "no map of features"),
        ("ann", {"hidden": []}, "at least one layer"),
        ("ann", {"rows": 0}, "rows and columns"),
        ("resnet50", {"colour": True}, "colour"),
    ],
)
def test_arguments_that_describe_no_network_are_refused(
    name: str, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RegistryError, match=reason):
        shape_only(name, **arguments)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("inception_v3", (1, 3, 74, 200), "at least 75 x 75"),
        ("resnet50", (1, 1, 64, 64), "3 channels, not 1"),
        ("alexnet", (1, 3, 62, 62), "at least 63 x 63"),
        ("ann", (1, 3, 50, 49), r"shape \(3, 50, 50\)"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shape_only(name)(torch.empty(shape, device="meta"))


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"ann"}))
def test_the_smallest_image_that_fits_is_answered(name: str) -> None:
    network = shape_only(name, head="gap")
    assert isinstance(network, ImageNetwork)
    side = network.smallest_side
    _, activation = network(torch.empty((1, 3, side, side), device="meta"))
    assert activation is not None
    assert activation.numel() >= 1

"""Published weights: the network then computes what was published, or refuses and stays as it was."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.architectures import build
from models.errors import PublishedWeightsError
from models.networks import ImageNetwork
from models.published_weights import load_published
from tests.published_networks import (
    NETWORKS,
    VGG16,
    VGG19,
    Published,
    alexnet,
    alexnet_features,
    vgg,
    vgg_features,
)

SIDES = {"inception_v3": 299, "alexnet": 80}
LAST = {
    "resnet": "fc",
    "densen": "classifier",
    "incept": "fc",
    "vgg16": "classifier.6",
    "vgg19": "classifier.6",
}
# The published dense layers fill hundreds of megabytes, the longest networks take long.
SLOW = ("alexnet", "vgg16", "vgg19", "resnet101", "densenet201")


def network_of(name: str, **arguments: Any) -> ImageNetwork:
    torch.manual_seed(9)
    network = build(name, {"outputs": 1000, "head": "gap", **arguments}).eval()
    assert isinstance(network, ImageNetwork)
    return network


def image(name: str) -> torch.Tensor:
    side = SIDES.get(name, 48)
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(4)).double()


@cache
def tensors_of(name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a published file; of AlexNet and VGG with fewer units, to be small."""
    made = Published(seed=1)
    forward = {
        "alexnet": partial(alexnet, units=8),
        "vgg16": partial(vgg, plan=VGG16, units=8),
        "vgg19": partial(vgg, plan=VGG19, units=8),
    }.get(name, NETWORKS[name][0])
    forward(made, image(name))
    assert len(made.tensors) == NETWORKS[name][1]
    return made.tensors


def state_file(path: Path, tensors: dict[str, Any]) -> tuple[Path, str]:
    if path.suffix == ".safetensors":
        save_file({name: values.contiguous() for name, values in tensors.items()}, path)
    else:
        torch.save(OrderedDict(tensors), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def last_layer(network: ImageNetwork) -> nn.Module:
    *_, last = (m for m in network.get_submodule("classifier").modules() if hasattr(m, "weight"))
    return last


def last_name(name: str) -> str:
    return LAST.get(name[:6], "classifier.6")


def give_published_classes(network: ImageNetwork, tensors: dict[str, torch.Tensor], name: str) -> None:
    state = last_layer(network).state_dict()
    weight = tensors[f"{last_name(name)}.weight"].reshape(state["weight"].shape)
    last_layer(network).load_state_dict({"weight": weight, "bias": tensors[f"{last_name(name)}.bias"]})


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow_proof) if n in SLOW else n for n in NETWORKS]
)
def test_a_network_with_published_weights_computes_what_was_published(name: str, tmp_path: Path) -> None:
    made, (forward, size) = Published(seed=1), NETWORKS[name]
    expected = forward(made, image(name))
    assert len(made.tensors) == size
    network = network_of(name, head="dense" if name in ("alexnet", "vgg16", "vgg19") else "gap")
    before = {key: value.clone() for key, value in last_layer(network).state_dict().items()}
    left_out = load_published(network, name, *state_file(tmp_path / "w.pth", made.tensors))
    last = {f"{last_name(name)}.weight", f"{last_name(name)}.bias"}
    assert {key for key in left_out if "AuxLogits" not in key} == last
    assert all(torch.equal(value, before[key]) for key, value in last_layer(network).state_dict().items())
    give_published_classes(network, made.tensors, name)
    with torch.inference_mode():
        torch.testing.assert_close(network.double()(image(name))[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "vgg19"])
def test_a_pooled_head_sits_on_the_published_convolutions(name: str, tmp_path: Path) -> None:
    made = Published(seed=1)
    made.tensors = dict(tensors_of(name))
    plan = {"vgg16": VGG16, "vgg19": VGG19}.get(name)
    expected = vgg_features(made, image(name), plan) if plan else alexnet_features(made, image(name))
    network = network_of(name)
    left_out = load_published(network, name, *state_file(tmp_path / "w.safetensors", made.tensors))
    assert set(left_out) == {key for key in made.tensors if key.startswith("classifier.")}
    with torch.inference_mode():
        found = network.double().feature_map(image(name))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vgg16", "resnet50", "densenet121", pytest.param("inception_v3", marks=pytest.mark.slow_proof)]
)
def test_a_grey_image_is_answered_like_the_same_grey_in_colour(name: str, tmp_path: Path) -> None:
    file = state_file(tmp_path / "w.pth", tensors_of(name))
    colour, grey = (network_of(name, channels=channels) for channels in (3, 1))
    for network in (colour, grey):
        load_published(network, name, *file)
    grey.classifier.load_state_dict(colour.classifier.state_dict())
    pixels = image(name)[:, :1]
    with torch.inference_mode():
        expected = colour.double()(pixels.expand(-1, 3, -1, -1))[0]
        torch.testing.assert_close(grey.double()(pixels)[0], expected, rtol=1e-4, atol=1e-4)


def test_older_names_of_densenet_are_the_same_layers(tmp_path: Path) -> None:
    tensors = tensors_of("densenet121")
    older = {
        key.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2."): value
        for key, value in tensors.items()
    }
    assert "features.denseblock4.denselayer16.conv.2.weight" in older
    first, second = network_of("densenet121"), network_of("densenet121")
    load_published(first, "densenet121", *state_file(tmp_path / "new.pth", tensors))
    load_published(second, "densenet121", *state_file(tmp_path / "old.pth", older))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_counters_of_batches_may_be_in_the_file(tmp_path: Path) -> None:
    norms = [
        key.removesuffix("running_mean") for key in tensors_of("resnet50") if key.endswith("running_mean")
    ]
    counters = {f"{norm}num_batches_tracked": torch.tensor(7) for norm in norms}
    network = network_of("resnet50")
    file = state_file(tmp_path / "w.pth", {**tensors_of("resnet50"), **counters})
    load_published(network, "resnet50", *file)
    assert network.state_dict()["bn1.num_batches_tracked"] == 7


def test_the_auxiliary_head_takes_its_published_convolutions(tmp_path: Path) -> None:
    tensors = tensors_of("inception_v3")
    network = network_of("inception_v3", outputs=2, auxiliary=True)
    left_out = load_published(network, "inception_v3", *state_file(tmp_path / "w.pth", tensors))
    assert set(left_out) == {"fc.weight", "fc.bias", "AuxLogits.fc.weight", "AuxLogits.fc.bias"}
    taken = network.state_dict()["AuxLogits.conv1.conv.weight"]
    assert torch.equal(taken, tensors["AuxLogits.conv1.conv.weight"])


def test_files_of_the_time_before_zip_archives_are_read(tmp_path: Path) -> None:
    tensors = tensors_of("alexnet")
    path = tmp_path / "w.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    network = network_of("alexnet")
    load_published(network, "alexnet", path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert torch.equal(network.state_dict()["features.0.weight"], tensors["features.0.weight"])


class TestRefusals:
    """A small network's file with one fault each; the network stays as it was."""

    @pytest.fixture
    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: values.clone() for name, values in tensors_of("alexnet").items()}

    @pytest.fixture
    def network(self) -> ImageNetwork:
        return network_of("alexnet", head="gap")

    def refused(self, network: ImageNetwork, path: Path, reason: str, sha256: str | None = None) -> str:
        before = {key: value.clone() for key, value in network.state_dict().items()}
        digest = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(PublishedWeightsError, match=reason) as caught:
            load_published(network, "alexnet", path, digest)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        return str(caught.value)

    def test_a_missing_name(
        self, network: ImageNetwork, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        del tensors["features.8.bias"]
        path, _ = state_file(tmp_path / "w.pth", tensors)
        self.refused(network, path, r"alexnet: it lacks features\.8\.bias\.")

    def test_a_name_too_many(
        self, network: ImageNetwork, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        path, _ = state_file(tmp_path / "w.pth", {**tensors, "features.12.weight": torch.zeros(1)})
        self.refused(network, path, r"it also has features\.12\.weight\.")

    def test_weights_of_another_architecture(self, network: ImageNetwork, tmp_path: Path) -> None:
        path, _ = state_file(tmp_path / "w.pth", tensors_of("vgg16"))
        message = self.refused(network, path, "it lacks .* it also has .* and .* more")
        assert message.count("features.") <= 6

    def test_another_shape(
        self, network: ImageNetwork, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        path, _ = state_file(tmp_path / "w.pth", {**tensors, "features.3.weight": torch.zeros(192, 64, 3, 3)})
        self.refused(network, path, r"features\.3\.weight is \[192, 64, 3, 3\] .* \[192, 64, 5, 5\]")

    def test_values_that_are_not_finite(
        self, network: ImageNetwork, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        tensors["features.6.bias"][3] = float("nan")
        path, _ = state_file(tmp_path / "w.pth", tensors)
        self.refused(network, path, r"features\.6\.bias .* not finite")

    def test_another_digest(
        self, network: ImageNetwork, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        path, _ = state_file(tmp_path / "w.pth", tensors)
        self.refused(network, path, "fetch the file again", sha256="0" * 64)

    def test_a_file_that_would_run_code(self, network: ImageNetwork, tmp_path: Path) -> None:
        path, trace = tmp_path / "w.pth", tmp_path / "trace"
        path.write_bytes(pickle.dumps({"features.0.weight": _Touch(trace)}, protocol=2))
        self.refused(network, path, "tensors alone")
        assert not trace.exists()

    def test_a_whole_checkpoint_instead_of_a_state_dictionary(
        self, network: ImageNetwork, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        path, _ = state_file(tmp_path / "w.pth", {"state_dict": tensors, "epoch": 3})
        self.refused(network, path, "no state dictionary")

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    def test_rubbish(self, network: ImageNetwork, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x00rubbish" * 40)
        self.refused(network, tmp_path / name, "tensors alone")

    def test_another_kind_of_file(self, network: ImageNetwork, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(b"x")
        self.refused(network, tmp_path / "w.bin", "neither a .pth nor a .safetensors")

    def test_a_file_that_is_not_there(self, network: ImageNetwork, tmp_path: Path) -> None:
        self.refused(network, tmp_path / "w.pth", "cannot be read", sha256="0" * 64)

    def test_an_architecture_of_which_none_were_published(self, tmp_path: Path) -> None:
        network = network_of("cnn3")
        with pytest.raises(PublishedWeightsError, match="only for: alexnet"):
            load_published(network, "cnn3", tmp_path / "w.pth", "0" * 64)


class _Touch:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)

"""The published systems: every variant is a run that can start, and the page tells both protocols apart."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks.sources.__main__ import SOURCES
from benchmarks.sources.pages import page_of
from benchmarks.sources.runs import PROTOCOLS, config_of, run_source
from benchmarks.sources.variants import Places, Sizes, Source, Variant
from tests.evaluated_runs import TASK, write_run
from tests.made_up_mammograms import draw_mammograms
from training import evaluated_run
from training.splits import AS_WRITTEN, BY_GROUP

SIZES = Sizes(side=32, epochs=2, folds=2, run_folds=1, batch_size=8, threads=1, seed=1, device="cpu")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    data = tmp_path_factory.mktemp("data")
    draw_mammograms(data / "drawn", women=48)
    return Places(data=data, work=tmp_path_factory.mktemp("work"), weights={})


@pytest.mark.parametrize("name", SOURCES)
def test_every_variant_of_a_source_is_a_run_with_options_that_exist(name: str, places: Places) -> None:
    source: Source = importlib.import_module(f"benchmarks.sources.{name}").SOURCE
    weights = {
        variant.options["architecture"]: (Path("weights.pth"), "0" * 64)
        for variant in source.variants
        if variant.rests_on_weights
    }
    given = Places(places.data, places.work, weights)
    for variant in source.variants:
        for protocol in PROTOCOLS:
            config = config_of(source, variant, protocol, SIZES, given)
            assert config.protocol == protocol
            assert (config.weights is not None) == variant.rests_on_weights
            assert config.copies == (source.as_written.get("copies", 1) if protocol == "as_written" else 1)


def test_a_page_holds_both_protocols_the_baseline_and_what_weights_were_missing(places: Places) -> None:
    head = {"architecture": "cnn3", "architecture_arguments": {"head": "gap"}}
    source = Source(
        name="drawn",
        title="Drawn",
        claim="99 % accuracy",
        folder="drawn",
        options={"task": "mammography_malignancy", "data_set": "plain_csv", "validation_share": 0.4},
        as_written={"copies": 2},
        variants=(
            Variant("plain", head),
            Variant("focal", {**head, "imbalance": "focal"}, honest_alone=True),
            Variant("frozen", {**head, "mode": "features"}, rests_on_weights=True),
        ),
        reference="plain",
    )
    told: list[str] = []
    runs = run_source(source, SIZES, places, tell=told.append)
    page = page_of(source, runs, SIZES, places, command="python -m benchmarks.sources drawn", seconds=60)
    for words in (
        "| network | number | as the source wrote it | split by woman or patient |",
        "| plain | AUC |",
        "| plain | malignant | sensitivity (recall) |",
        "| focal | AUC | – | ",
        "| focal | malignant | support | – | ",
        "| focal | both | confusion | – | ",
        "| frozen | log-loss |",
        "| always ",
        "Leaks, as the source wrote it: each of 2 folds:",
        "share a letter",
        "minus `plain` on the same images",
        "| plain | – | – | – | ",
        "--beside WORK/drawn/as_written/plain",
        "`python -m benchmarks.sources drawn`",
        "No pretrained ImageNet weights were at hand, so frozen started from random ones",
    ):
        assert words in page
    again: list[str] = []
    run_source(source, SIZES, places, tell=again.append)
    assert not [line for line in again if "epoch" in line], "finished runs are taken as they are"


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were not trained: one network knows much, one nothing, one was asked by woman alone."""
    folder = tmp_path_factory.mktemp("answered")
    for protocol in PROTOCOLS:
        write_run(folder / protocol / "knows", shift=1.5, protocol=protocol)
        write_run(folder / protocol / "guesses", shift=0.0, answers=1, protocol=protocol)
    return folder


def page_about(answered: Path, *names: str) -> str:
    source = Source(
        name="made-up",
        title="Made up",
        claim="none",
        folder="nothing",
        options={"task": TASK},
        variants=tuple(Variant(name, {}) for name in names),
        reference=names[0],
    )
    runs = {
        protocol: {name: evaluated_run.of_folder(answered / protocol / name) for name in names}
        for protocol in PROTOCOLS
    }
    return page_of(source, runs, SIZES, Places(answered, answered, {}), command="python", seconds=60)


def test_a_page_says_which_networks_did_not_beat_chance(answered: Path) -> None:
    both = page_about(answered, "knows", "guesses")
    assert (
        "not shown to be better than chance** (the interval of the AUC holds 0.5 or lies below it): " in both
    )
    assert "below it): guesses. At these sizes" in both
    alone = page_about(answered, "knows")
    assert "every network is better than chance" in alone
    assert "not shown to be better" not in alone
    assert "Called every image the same" not in both


def test_a_page_says_which_networks_called_every_image_the_same(answered: Path) -> None:
    for protocol in PROTOCOLS:
        write_run(answered / protocol / "timid", shift=0.2, answers=2, offset=-8.0, protocol=protocol)
    page = page_about(answered, "knows", "timid")
    assert "Called every image the same: timid." in page
    assert "| timid | malignant | precision | – | – |" in page


def test_a_page_counts_each_class_right_and_wrong(answered: Path) -> None:
    page = page_about(answered, "knows")
    of_run = evaluated_run.of_folder(answered / BY_GROUP / "knows").predictions
    called = of_run.probabilities.argmax(axis=1)
    for number, name in enumerate(of_run.classes):
        of_class = of_run.labels == number
        assert f"{int((called[of_class] == number).sum())} of {int(of_class.sum())} {name} right" in page
    assert (
        f"| knows | malignant | support | {_support(answered, AS_WRITTEN)} | {_support(answered, BY_GROUP)} |"
        in page
    )


def _support(answered: Path, protocol: str) -> int:
    return int((evaluated_run.of_folder(answered / protocol / "knows").predictions.labels == 1).sum())

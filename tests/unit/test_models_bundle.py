"""A bundle is opened only when every byte is what was released; the store keeps it that way."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import bundle
from models.calibration import OperatingPoint
from models.errors import (
    BundleDigestError,
    BundleError,
    BundleFormatError,
    BundleIncompleteError,
    UnsafeBundleError,
    UnsupportedBundleError,
    WeightsError,
)
from models.store import BundleStore, released_bundle
from tests.unit.refused_bundles import change_manifest, release_again
from tests.unit.small_bundle import write_small_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_is_read_with_its_identity(folder: Path) -> None:
    loaded = bundle.read(folder)
    identity = loaded.identity
    assert (identity.name, identity.version, identity.task) == ("small", "1.0.0", "mammography_malignancy")
    assert identity.demonstration
    assert identity.digest == loaded.digest
    assert len(identity.configuration_digest) == 64
    assert loaded.threshold == 0.5
    assert bundle.read(folder, digest=identity.digest).digest == identity.digest


def test_the_digest_does_not_depend_on_how_the_manifest_is_spelt(folder: Path) -> None:
    before = bundle.read(folder).digest
    change_manifest(folder, lambda raw: None)
    assert bundle.read(folder).digest == before


def test_another_threshold_is_another_bundle_with_another_configuration(tmp_path: Path, folder: Path) -> None:
    point = OperatingPoint("default", 0.6, 0.9, 0.8, 0.95, False)
    one, two = bundle.read(folder), write_small_bundle(tmp_path / "two", operating_points=(point,))
    assert one.digest != two.digest
    assert one.identity.configuration_digest != two.identity.configuration_digest


def test_another_card_keeps_the_configuration(tmp_path: Path, folder: Path) -> None:
    before = bundle.read(folder)
    (folder / bundle.CARD).write_text("# Another card\n")
    release_again(folder, bundle.CARD)
    after = bundle.read(folder)
    assert before.digest != after.digest
    assert before.identity.configuration_digest == after.identity.configuration_digest


def test_a_digest_that_was_not_asked_for_is_refused(folder: Path) -> None:
    with pytest.raises(BundleDigestError):
        bundle.read(folder, digest="0" * 64)


@pytest.mark.parametrize("name", bundle.REQUIRED_FILES)
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleDigestError, match=Path(name).name):
        bundle.read(folder)


@pytest.mark.parametrize("name", [bundle.MANIFEST, *bundle.REQUIRED_FILES])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleIncompleteError, match=Path(name).name):
        bundle.read(folder)


def test_a_required_file_that_the_manifest_forgets_is_refused(folder: Path) -> None:
    change_manifest(folder, lambda raw: raw["files"].pop(bundle.GOLDEN))
    with pytest.raises(BundleIncompleteError):
        bundle.read(folder)


def test_a_file_too_many_is_refused(folder: Path) -> None:
    (folder / "configs" / "inference.json").write_text('{"network": "$__import__(\'os\').abort()"}')
    with pytest.raises(BundleIncompleteError, match=r"inference\.json"):
        bundle.read(folder)


@pytest.mark.parametrize("name", ["model.pt", "weights.pkl", "weights.bin", "run.py", "noextension"])
def test_a_pickle_or_program_is_refused_even_when_it_is_listed(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps({"a": 1}))
    release_again(folder, name)
    with pytest.raises(UnsafeBundleError, match=name):
        bundle.read(folder)


def test_a_pickle_called_safetensors_is_refused(folder: Path) -> None:
    (folder / bundle.WEIGHTS).write_bytes(pickle.dumps({"a": np.zeros(3)}))
    release_again(folder, bundle.WEIGHTS)
    with pytest.raises(BundleFormatError, match="safetensors"):
        bundle.read(folder)


@pytest.mark.parametrize("name", [bundle.WEIGHTS, "configs"])
def test_a_symbolic_link_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / Path(name).name
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(UnsafeBundleError, match="link"):
        bundle.read(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, bad: float) -> None:
    weights = load_file(folder / bundle.WEIGHTS)
    weights["head.weight"][0] = bad
    save_file(weights, folder / bundle.WEIGHTS)
    release_again(folder, bundle.WEIGHTS)
    with pytest.raises(WeightsError, match=r"head\.weight"):
        bundle.read(folder)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"task": "fortune_telling"}, UnsupportedBundleError),
        ({"architecture": "oracle"}, UnsupportedBundleError),
        ({"format": 2}, BundleFormatError),
        ({"temperature": 0.0}, BundleFormatError),
        ({"temperature": "1"}, BundleFormatError),
        ({"demonstration": 1}, BundleFormatError),
        ({"operating_points": []}, BundleIncompleteError),
        ({"labels": []}, BundleIncompleteError),
        ({"labels": [{"value": "1", "scheme": "SCT", "meaning": "Other"}]}, UnsupportedBundleError),
        ({"unheard_of": 1}, BundleFormatError),
        ({"metrics": [{"name": "auc"}]}, BundleIncompleteError),
        ({"files": "all"}, BundleFormatError),
    ],
)
def test_a_manifest_with_a_wrong_claim_is_refused(
    folder: Path, change: dict[str, object], error: type[BundleError]
) -> None:
    change_manifest(folder, lambda raw: raw.update(change))
    with pytest.raises(error):
        bundle.read(folder)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": "breast-grid-0"}, UnsupportedBundleError),
        ({"rows": 0}, BundleFormatError),
        ({"rows": 48}, BundleFormatError),
    ],
)
def test_another_preprocessing_is_refused(
    folder: Path, change: dict[str, object], error: type[BundleError]
) -> None:
    change_manifest(folder, lambda raw: raw["preprocessing"].update(change))
    with pytest.raises(error):
        bundle.read(folder)


@pytest.mark.parametrize("field", ["operating_points", "temperature", "preprocessing", "licence", "files"])
def test_a_manifest_without_a_field_is_refused(folder: Path, field: str) -> None:
    change_manifest(folder, lambda raw: raw.pop(field))
    with pytest.raises(BundleIncompleteError, match=field):
        bundle.read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', '{"format": 1, "format": 1}', "[" * 5000])
def test_a_manifest_that_is_no_strict_json_is_refused(folder: Path, text: str) -> None:
    (folder / bundle.MANIFEST).write_text(text)
    with pytest.raises(BundleFormatError):
        bundle.read(folder)


def test_a_name_that_dicom_cannot_carry_is_refused(folder: Path) -> None:
    metadata = json.loads((folder / bundle.METADATA).read_text())
    for name in ("", "x" * 65, "Ärztin", "two\nlines"):
        (folder / bundle.METADATA).write_text(json.dumps({**metadata, "name": name}))
        release_again(folder, bundle.METADATA)
        with pytest.raises(BundleFormatError, match="name"):
            bundle.read(folder)


def test_a_bundle_is_read_without_torch_and_without_what_fits_numbers(folder: Path) -> None:
    program = (
        "import sys, pathlib; from models import bundle; bundle.read(pathlib.Path(sys.argv[1])); "
        "print(*{'torch', 'scipy.optimize', 'scipy.stats'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", program, str(folder)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []


def test_the_store_keeps_a_bundle_under_its_digest(folder: Path, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    assert store.digests() == ()
    digest = store.add(folder)
    assert store.digests() == (digest,)
    assert bundle.read(store.path_of(digest), digest=digest).identity.name == "small"
    shutil.rmtree(folder)
    assert bundle.read(store.path_of(digest)).digest == digest


def test_adding_a_bundle_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    digest = store.add(folder)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert store.add(folder) == digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_a_refused_bundle_leaves_nothing_in_the_store(folder: Path, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    kept = store.add(folder)
    (folder / "extra.txt").touch()
    with pytest.raises(BundleIncompleteError):
        store.add(folder)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [kept]


@pytest.mark.parametrize("digest", ["", "..", "0" * 64, "../bundle"])
def test_an_unknown_digest_is_refused(folder: Path, tmp_path: Path, digest: str) -> None:
    store = BundleStore(tmp_path / "store")
    store.add(folder)
    with pytest.raises(BundleIncompleteError):
        store.path_of(digest)


def test_the_released_bundle_is_sound_and_says_what_it_is() -> None:
    released = bundle.read(released_bundle())
    assert released.identity.demonstration
    assert "Not for clinical use" in released.manifest.intended_use
    assert "Not for clinical use" in released.card
    assert "phantoms" in released.card
    assert set(released.metadata["network_data_format"]["outputs"]) == {"logit", "activation"}

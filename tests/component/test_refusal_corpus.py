"""Whatever is wrong with a bundle, it is refused by name, and the old one keeps answering."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from dicom_node import installation
from models import archive, bundle
from models.errors import UnsafeBundleError
from models.store import BundleStore
from tests.command_line import command
from tests.programs import needs
from tests.unit.refused_bundles import CORPUS, Refused
from tests.unit.small_bundle import write_small_bundle


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "bundle"
    write_small_bundle(folder, seed=5)
    return folder


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, tuple[object, ...]]:
    """A node on which a bundle answers, its digest, and its state."""
    folder = tmp_path_factory.mktemp("node")
    data_dir = folder / "data"
    digest = write_small_bundle(folder / "old", seed=1).digest
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    for verb, what in (("add", folder / "old"), ("activate", digest)):
        assert command("model", verb, what, "--data-dir", data_dir).status == 0
    return data_dir, digest, state(data_dir)


def state(data_dir: Path) -> tuple[object, ...]:
    """Everything that a refused bundle must not change."""
    store = sorted(path.relative_to(data_dir).as_posix() for path in (data_dir / "bundles").rglob("*"))
    added = command("audit", "query", "--action", "bundle.added", "--json", "--data-dir", data_dir).json
    return store, command("model", "list", "--json", "--data-dir", data_dir).json, added


def test_the_corpus_is_large_enough_and_each_kind_is_its_own() -> None:
    assert len({kind.name for kind in CORPUS}) == len(CORPUS) >= 25


@pytest.mark.parametrize("kind", CORPUS, ids=lambda kind: kind.name.replace(" ", "_"))
def test_it_is_refused_by_name_and_the_old_bundle_keeps_answering(
    kind: Refused, sound: Path, answering: tuple[Path, str, tuple[object, ...]], tmp_path: Path
) -> None:
    data_dir, old, before = answering
    folder = tmp_path / "bundle"
    shutil.copytree(sound, folder)

    refused = command("model", "add", kind.spoil(folder) or folder, "--data-dir", data_dir)

    assert refused.status == 5, refused
    assert kind.says in " ".join(refused.err.split())
    assert state(data_dir) == before
    assert bundle.read(BundleStore(data_dir / "bundles").path_of(old), digest=old).digest == old
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize("name", ["bundle.tar", "bundle.tar.gz", "bundle.tgz", "bundle.zip"])
@pytest.mark.parametrize("top", ["", "release"])
def test_a_sound_bundle_may_come_in_one_file(sound: Path, tmp_path: Path, name: str, top: str) -> None:
    path = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted(sound.rglob("*")):
                packed.write(file, Path(top, file.relative_to(sound)))
    else:
        with tarfile.open(path, "w" if name.endswith(".tar") else "w:gz") as packed:
            packed.add(sound, top or ".")
    (tmp_path / "into").mkdir()
    unpacked = archive.unpack(path, tmp_path / "into")
    assert bundle.read(unpacked).digest == bundle.read(sound).digest


def test_bytes_are_counted_as_they_arrive(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        packed.add(sound, "bundle")
    (tmp_path / "into").mkdir()
    with pytest.raises(UnsafeBundleError, match="larger"):
        archive.unpack(path, tmp_path / "into", max_bytes=10_000)


def test_adding_from_an_archive_leaves_nothing_but_the_bundle(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    with tarfile.open(path, "w") as packed:
        packed.add(sound, "bundle")
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    assert command("model", "add", path, "--data-dir", data_dir).status == 0
    assert [entry.name for entry in (data_dir / "bundles").iterdir()] == [bundle.read(sound).digest]


def test_a_full_disk_refuses_a_bundle_and_the_old_one_keeps_answering(
    sound: Path, answering: tuple[Path, str, tuple[object, ...]]
) -> None:
    """S13."""
    data_dir, _, before = answering
    full = ["-e", "trace=sendfile", "-e", "inject=sendfile:error=ENOSPC"]
    add = [*installation.console_script(), "model", "add", str(sound), "--data-dir", str(data_dir)]
    ended = subprocess.run(
        [needs("strace", "strace"), "-f", "--seccomp-bpf", "-o", "/dev/null", *full, *add],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 6
    assert "(No space left on device); free some space" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert state(data_dir) == before

"""Bundles as strangers, accidents and forgers leave them: one function for each kind, all to be refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from models import bundle

Spoil = Callable[[Path], "Path | None"]


@dataclass(frozen=True)
class Refused:
    """One kind: what is done to a sound bundle's folder, and a word that the refusal must say."""

    name: str
    spoil: Spoil
    says: str


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the manifest again after a change."""
    path = folder / bundle.MANIFEST
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def release_again(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as a forger would."""
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change_manifest(folder, lambda raw: raw["files"].update({name: digest}))


def claiming(**claims: Any) -> Spoil:
    """Claim other things in the manifest."""
    return lambda folder: change_manifest(folder, lambda raw: raw.update(claims))


def without(field: str) -> Spoil:
    """Leave a field of the manifest out."""
    return lambda folder: change_manifest(folder, lambda raw: raw.pop(field))


def within(field: str, **claims: Any) -> Spoil:
    """Claim other things in an object of the manifest."""
    return lambda folder: change_manifest(folder, lambda raw: raw[field].update(claims))


def with_point(**claims: Any) -> Spoil:
    """Claim other things of the operating point."""
    return lambda folder: change_manifest(folder, lambda raw: raw["operating_points"][0].update(claims))


def with_metadata(**claims: Any) -> Spoil:
    """Claim other things in MONAI's metadata, and release them."""

    def spoil(folder: Path) -> None:
        path = folder / bundle.METADATA
        path.write_text(json.dumps(json.loads(path.read_text()) | claims))
        release_again(folder, bundle.METADATA)

    return spoil


def with_weights(change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
    """Change the weights, and release them."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / bundle.WEIGHTS)
        change(weights)
        save_file(weights, folder / bundle.WEIGHTS)
        release_again(folder, bundle.WEIGHTS)

    return spoil


def with_golden(change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
    """Change the golden cases, and release them."""

    def spoil(folder: Path) -> None:
        golden = load_file(folder / bundle.GOLDEN)
        change(golden)
        save_file(golden, folder / bundle.GOLDEN)
        release_again(folder, bundle.GOLDEN)

    return spoil


def with_file(name: str, content: bytes, *, listed: bool) -> Spoil:
    """Put a file there."""

    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)
        if listed:
            release_again(folder, name)

    return spoil


def flip_a_bit(folder: Path) -> None:
    """Let one bit of the weights rot."""
    path = folder / bundle.WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    """Lose the end of the weights, and release what is left."""
    path = folder / bundle.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    release_again(folder, bundle.WEIGHTS)


def link_outside(folder: Path) -> None:
    """Let a name lead to a file of the machine."""
    (folder / "notes.txt").symlink_to("/etc/hostname")


def pipe(folder: Path) -> None:
    """Put a pipe there: whoever reads it waits for ever."""
    os.mkfifo(folder / "notes.txt")


def for_everyone(folder: Path) -> None:
    """Let everybody on the machine write."""
    (folder / bundle.WEIGHTS).chmod(0o666)


def huge_header(folder: Path) -> None:
    """Claim a safetensors header of 2 ** 60 bytes."""
    (folder / bundle.WEIGHTS).write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    release_again(folder, bundle.WEIGHTS)


def tar_with(entry: tarfile.TarInfo, content: bytes = b"") -> Spoil:
    """Pack the bundle with one more entry."""

    def spoil(folder: Path) -> Path:
        path = folder.parent / "bundle.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(folder, "bundle")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        return path

    return spoil


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Make an entry of a tar archive."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def zip_with(name: str, mode: int = 0o100644) -> Spoil:
    """Pack the bundle into a zip with one more entry."""

    def spoil(folder: Path) -> Path:
        path = folder.parent / "bundle.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
            made = zipfile.ZipInfo(name)
            made.external_attr = mode << 16
            archive.writestr(made, b"/etc/passwd")
        return path

    return spoil


def many_entries(folder: Path) -> Path:
    """Pack 100,000 entries."""
    path = folder.parent / "bundle.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        header = entry("folder", tarfile.DIRTYPE).tobuf()
        for _ in range(100):
            file.write(header * 1000)
        file.write(bytes(1024))
    return path


def huge_claim(folder: Path) -> Path:
    """Claim a file of 2 ** 60 bytes in an archive of a few."""
    path = folder.parent / "bundle.tar"
    made = entry("weights.safetensors")
    made.size = 1 << 60
    path.write_bytes(made.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


def no_archive(folder: Path) -> Path:
    """Call something an archive that is none."""
    path = folder.parent / "bundle.zip"
    path.write_bytes(b"PK\x03\x04 not really")
    return path


def empty_archive(folder: Path) -> Path:
    """Pack nothing."""
    path = folder.parent / "bundle.tar"
    with tarfile.open(path, "w"):
        pass
    return path


def two_bundles(folder: Path) -> Path:
    """Pack the bundle twice."""
    path = folder.parent / "bundle.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "one")
        archive.add(folder, "two")
    return path


PICKLE = pickle.dumps({"weights": [1.0]})
FOREIGN = [{"value": "1", "scheme": "SCT", "meaning": "Something else"}]
EXPRESSION = "$__import__('os').abort()"
EXPRESSION_FILE = json.dumps({"network": EXPRESSION}).encode()

CORPUS = (
    Refused("a bit that flipped", flip_a_bit, "copy the bundle again"),
    Refused("a file that was cut off", truncate, "safetensors"),
    Refused("a wrong digest", within("files", **{bundle.CARD: "0" * 64}), "copy the bundle again"),
    Refused("a digest of another kind", within("files", **{bundle.CARD: 5}), "wrong type"),
    Refused("a pickle (.pt)", with_file("model.pt", PICKLE, listed=True), "safetensors"),
    Refused("a pickle (.pth)", with_file("weights.pth", PICKLE, listed=True), "safetensors"),
    Refused("a pickle (.pkl)", with_file("weights.pkl", PICKLE, listed=True), "safetensors"),
    Refused("a program", with_file("run.py", b"import os", listed=True), "no kind of file"),
    Refused("a pickle in disguise", with_file(bundle.WEIGHTS, PICKLE, listed=True), "not a safetensors file"),
    Refused("a safetensors header of 2 ** 60 bytes", huge_header, "not a safetensors file"),
    Refused("a symbolic link", link_outside, "link"),
    Refused("a pipe", pipe, "special file"),
    Refused("a file that anyone may write", for_everyone, "chmod o-w"),
    Refused("a file too many", with_file("notes.txt", b"hello", listed=False), "remove it"),
    Refused("a missing file", lambda folder: (folder / bundle.CARD).unlink(), "lacks"),
    Refused("an unknown form", claiming(format=99), "update it"),
    Refused("an unknown task", claiming(task="fortune_telling"), "update it"),
    Refused("an unknown architecture", claiming(architecture="oracle"), "update it"),
    Refused("an unknown preprocessing", within("preprocessing", version="other-9"), "this program has"),
    Refused("a preprocessing without a grid", within("preprocessing", rows=0), "at least 1"),
    Refused("a grid of another size", within("preprocessing", rows=48), "not images of"),
    Refused("a foreign label map", claiming(labels=FOREIGN), "labels are not those"),
    Refused("foreign classes", claiming(classes=["malignant", "not_malignant"]), "labels are not those"),
    Refused("no operating point", claiming(operating_points=[]), "operating point"),
    Refused("no field for operating points", without("operating_points"), "operating_points"),
    Refused("a threshold above 1", with_point(threshold=1.5), "0..1"),
    Refused("a threshold below 0", with_point(threshold=-0.1), "0..1"),
    Refused("a threshold that is text", with_point(threshold="0.5"), "wrong type"),
    Refused("temperature 0", claiming(temperature=0.0), "temperature must be above 0"),
    Refused("a temperature that is no number", claiming(temperature=float("nan")), "not well-formed"),
    Refused("an unknown field", claiming(backdoor=True), "unknown fields"),
    Refused("weights that are no numbers", with_weights(lambda w: w["head.bias"].fill(np.nan)), "not finite"),
    Refused("infinite weights", with_weights(lambda w: w["head.bias"].fill(np.inf)), "not finite"),
    Refused("a missing weight", with_weights(lambda w: w.pop("head.bias")), "head.bias is missing"),
    Refused(
        "a weight too many",
        with_weights(lambda w: w.update(extra=np.zeros(3, np.float32))),
        "extra is not part of it",
    ),
    Refused(
        "a weight of another shape",
        with_weights(lambda w: w.update({"head.bias": np.zeros(2, np.float32)})),
        "head.bias is [2]",
    ),
    Refused(
        "arguments that do not fit",
        claiming(architecture_arguments={"channels": [4, 4]}),
        "three numbers of channels",
    ),
    Refused(
        "an expression for an argument",
        claiming(architecture_arguments={"channels": EXPRESSION}),
        "do not fit",
    ),
    Refused(
        "other answers than were released",
        with_golden(lambda g: g.update(logits=g["logits"] + 0.5)),
        "released answers",
    ),
    Refused("no golden answers", with_golden(lambda g: g.pop("logits")), "lacks logits"),
    Refused("no golden inputs", with_golden(lambda g: g.update(inputs=g["inputs"][:0])), "inputs"),
    Refused(
        "golden answers that are no numbers",
        with_golden(lambda g: g["logits"].fill(np.nan)),
        "not finite",
    ),
    Refused("a map without golden maps", with_golden(lambda g: g.pop("activations")), "activations"),
    Refused("a name that is too long", with_metadata(name="x" * 65), "longer than 64"),
    Refused("a name that is not ASCII", with_metadata(name="Ärztin"), "ASCII"),
    Refused(
        "an expression beside the manifest",
        with_file("configs/inference.json", EXPRESSION_FILE, listed=False),
        "remove it",
    ),
    Refused("a processor that is not here", claiming(processors=["cuda"]), "scoring.device"),
    Refused("a processor that is none", claiming(processors=["abacus"]), "abacus"),
    Refused(
        "a map that does not beat random weights",
        claiming(
            localisation={
                "pointing_game": 0.1,
                "low": 0.0,
                "high": 0.2,
                "random_weights": 0.1,
                "lesions": 30,
                "is_better_than_random": False,
            }
        ),
        "random weights",
    ),
    Refused("a manifest that is no JSON", with_file(bundle.MANIFEST, b"{", listed=False), "well-formed"),
    Refused("a manifest of 2 MB", with_file(bundle.MANIFEST, b" " * (2 << 20), listed=False), "larger than"),
    Refused("a tar that climbs out", tar_with(entry("../outside.txt")), "outside its folder"),
    Refused("a tar with an absolute name", tar_with(entry("/tmp/outside.txt")), "outside its folder"),
    Refused(
        "a tar with a symbolic link", tar_with(entry("bundle/a", tarfile.SYMTYPE, "/etc/passwd")), "link"
    ),
    Refused("a tar with a hard link", tar_with(entry("bundle/a", tarfile.LNKTYPE, "/etc/passwd")), "link"),
    Refused("a tar with a device", tar_with(entry("bundle/a", tarfile.CHRTYPE)), "special file"),
    Refused("a tar that holds a name twice", tar_with(entry("bundle/model_card.md"), b"other"), "twice"),
    Refused("a tar with 100,000 entries", many_entries, "entries"),
    Refused("a tar that claims 2 ** 60 bytes", huge_claim, "no sound archive"),
    Refused("a tar of nothing", empty_archive, "0 bundles"),
    Refused("a tar of two bundles", two_bundles, "2 bundles"),
    Refused("a zip that climbs out", zip_with("../outside.txt"), "outside its folder"),
    Refused("a zip with a Windows path", zip_with("C:\\outside.txt"), "outside its folder"),
    Refused("a zip with a symbolic link", zip_with("a.txt", 0o120777), "link"),
    Refused("no archive at all", no_archive, "no sound archive"),
)

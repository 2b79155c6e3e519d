"""Prepared images on disk: every image is decoded and put on the network's grid once.

An entry is named by what it was made from: the file's digest, the region, side and spacing, and all
parameters of preprocessing. Another data set, or another grid, therefore never meets a wrong entry, and
several runs may share a folder. An entry carries its own digest; one that does not fit is made again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.contract import ImageView, Region
from models.errors import PreprocessingError
from models.lesion_regions import RegionParameters, prepare_region
from models.manifest import canonical
from models.network_inputs import AnyParameters
from models.patches import PatchParameters, patch_geometry, prepare_patch
from models.preprocessing import Parameters, find_breast, prepare
from models.resampling import Geometry
from training.atomic_file import full_disk_told
from training.errors import DataSetError, ImageFileError, ResourcesError
from training.image_files import PixelSource, colours
from training.records import DataSet, Record
from training.source_folder import Problems

Tensor = NDArray[np.float32]

_FORM = "prepared-1"
_DIGEST_BYTES = 32
_HEADER_BYTES = 512
_CHUNK = 32  # images that one process takes at a time
_SPARE_BYTES = 256 * 2**20  # left free on the disk for everything else


class PreparedImages:
    """The images of a data set on a network's grid, by position.

    Parameters
    ----------
    data_set : DataSet
        As a reader gave it: with the digest of every file.
    parameters : Parameters, RegionParameters or PatchParameters
        How images reach the network.
    folder : Path
        Where entries lie; made where it is missing.
    processes : int
        Processes that prepare what is missing. Their number changes no byte.
    advance : callable, optional
        Called with the number of images prepared, and of all that were missing.
    leave_out_unusable : bool
        Go on without images that cannot be prepared, and say in the data set's notes how many they were.

    Raises
    ------
    DataSetError
        If an image cannot be prepared and is not to be left out; with every one of them.
    ResourcesError
        If the disk cannot hold the entries that are missing.
    """

    def __init__(
        self,
        data_set: DataSet,
        parameters: AnyParameters,
        folder: Path,
        *,
        processes: int = 1,
        advance: Callable[[int, int], None] | None = None,
        leave_out_unusable: bool = False,
    ) -> None:
        self.data_set = data_set
        self.parameters = parameters
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._entries = [folder / _entry_name(record, parameters) for record in data_set.records]
        missing = [index for index, entry in enumerate(self._entries) if not entry.is_file()]
        _require_room(folder, len(missing), parameters)
        unusable = self._prepare(missing, processes, advance)
        if unusable:
            self._without(unusable, leave_out_unusable)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index` as ``(channels, rows, columns)`` float32."""
        return self._entry(index)[0]

    def geometry(self, index: int) -> Geometry:
        """Return how the grid of image `index` lies on its source image."""
        return self._entry(index)[1]

    def _entry(self, index: int) -> tuple[Tensor, Geometry]:
        found = _read(self._entries[index], self.parameters)
        if found is not None:
            return found
        with PixelSource() as source:
            made = prepared(self.data_set.records[index], self.parameters, source)
        _write(self._entries[index], *made)
        return made

    def _prepare(
        self, missing: Sequence[int], processes: int, advance: Callable[[int, int], None] | None
    ) -> dict[int, str]:
        """Make missing entries; return why others could not be made, by position."""
        chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
        orders = [
            [(self._plain(index), self.parameters, self._entries[index]) for index in chunk]
            for chunk in chunks
        ]
        unusable: dict[int, str] = {}
        done = 0
        for chunk, faults in zip(chunks, _in_processes(orders, processes), strict=True):
            unusable |= {index: fault for index, fault in zip(chunk, faults, strict=True) if fault}
            done += len(chunk)
            if advance is not None:
                advance(done, len(missing))
        return unusable

    def _plain(self, index: int) -> Record:
        """A record that can go to another process: read-only mappings cannot."""
        return replace(self.data_set.records[index], labels={}, subgroups={}, lesions=())

    def _without(self, unusable: dict[int, str], may_leave_out: bool) -> None:
        problems = Problems(self.data_set.name)
        for index, fault in sorted(unusable.items()):
            problems.add(f"record {index + 1}", fault)
        if not may_leave_out or len(unusable) == len(self):
            problems.raise_if_any()
        kept = [index for index in range(len(self)) if index not in unusable]
        self._entries = [self._entries[index] for index in kept]
        self.data_set = DataSet(
            self.data_set.name,
            tuple(self.data_set.records[index] for index in kept),
            (*self.data_set.notes, f"{len(unusable)} images could not be prepared and are left out."),
        )


def prepared(record: Record, parameters: AnyParameters, source: PixelSource) -> tuple[Tensor, Geometry]:
    """Put one record's image on the network's grid.

    The chest wall goes to the grid's left edge as in scoring; where the pixels show on which side it is, they
    are believed rather than the label, because data sets hang some films the other way round.

    Raises
    ------
    ImageFileError
        If the file cannot become an image.
    PreprocessingError
        If the image cannot be put on the grid.
    """
    if isinstance(parameters, PatchParameters):
        return prepare_patch(colours(record.path), parameters), patch_geometry(parameters)
    view = source.view(record)
    if isinstance(parameters, RegionParameters):
        whole = Region(0.0, 0.0, float(view.columns), float(view.rows))
        region = prepare_region(view, record.region or whole, parameters)
        return region.tensor, region.geometry
    if record.region is not None:
        raise PreprocessingError("The record is a region: prepare it as one, not as a whole breast.")
    return _whole_breast(view, parameters)


def _whole_breast(view: ImageView, parameters: Parameters) -> tuple[Tensor, Geometry]:
    breast = find_breast(view.pixels, view.padding)
    hung = replace(view, laterality=breast.chest_wall_side or view.laterality)
    grid = prepare(hung, parameters, breast)
    return grid.tensor, grid.geometry


_Order = tuple[Record, AnyParameters, Path]


def _in_processes(orders: Iterable[Sequence[_Order]], processes: int) -> Iterator[list[str]]:
    if processes <= 1:
        with PixelSource() as source:
            for order in orders:
                yield _prepare_chunk(order, source)
        return
    # Threads of this process may hold locks that a forked child would wait for without end.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(_prepare_chunk_elsewhere, orders)


@cache
def _source_of_process() -> PixelSource:
    """One for all chunks: a decoder takes longer to start than to decode. It ends with its process."""
    return PixelSource()


def _prepare_chunk_elsewhere(orders: Sequence[_Order]) -> list[str]:
    return _prepare_chunk(orders, _source_of_process())


def _prepare_chunk(orders: Sequence[_Order], source: PixelSource) -> list[str]:
    """Make some entries; return for each why it could not be made, empty where it could."""
    faults = []
    for record, parameters, entry in orders:
        try:
            _write(entry, *prepared(record, parameters, source))
            faults.append("")
        except (ImageFileError, PreprocessingError) as error:
            faults.append(str(error))
    return faults


def _entry_name(record: Record, parameters: AnyParameters) -> str:
    if not record.sha256:
        raise DataSetError("A record has no digest; read its data set with training.datasets.read.")
    region = record.region
    made_from = [
        _FORM,
        record.sha256,
        None if region is None else [region.left, region.top, region.right, region.bottom],
        record.laterality,
        None if record.spacing_mm is None else list(record.spacing_mm),
        asdict(parameters),
    ]
    name = hashlib.sha256(canonical(made_from)).hexdigest()
    return f"{name[:2]}/{name[2:]}"


def _write(entry: Path, tensor: Tensor, geometry: Geometry) -> None:
    """Write an entry under another name first. Nothing is synced: damage is noticed and mended."""
    header = json.dumps(asdict(geometry)).encode("ascii").ljust(_HEADER_BYTES)
    content = header + np.ascontiguousarray(tensor, dtype="<f4").tobytes()
    beside = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}")
    with full_disk_told(entry.parent):
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(hashlib.sha256(content).digest() + content)
            beside.replace(entry)
        finally:
            beside.unlink(missing_ok=True)


def _read(entry: Path, parameters: AnyParameters) -> tuple[Tensor, Geometry] | None:
    """Return what an entry holds, or None where it is missing or damaged."""
    try:
        stored = entry.read_bytes()
    except FileNotFoundError:
        return None
    content = stored[_DIGEST_BYTES:]
    if len(stored) != _entry_bytes(parameters) or hashlib.sha256(content).digest() != stored[:_DIGEST_BYTES]:
        return None
    tensor = np.frombuffer(content, "<f4", offset=_HEADER_BYTES).reshape(parameters.shape).astype(np.float32)
    return tensor, Geometry(**json.loads(content[:_HEADER_BYTES]))


def _entry_bytes(parameters: AnyParameters) -> int:
    return _DIGEST_BYTES + _HEADER_BYTES + 4 * prod(parameters.shape)


def _require_room(folder: Path, missing: int, parameters: AnyParameters) -> None:
    needed = missing * _entry_bytes(parameters)
    free = shutil.disk_usage(folder).free
    if needed and needed + _SPARE_BYTES > free:
        raise ResourcesError(
            f"Prepared images need {needed / 1e9:.1f} GB and the disk of the cache has {free / 1e9:.1f} GB "
            "free; choose a smaller grid or another folder."
        )

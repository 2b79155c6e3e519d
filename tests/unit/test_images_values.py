"""From stored values to P-values: every row of a table of headers against a reference of its own.

The reference follows PS3.3 C.11 pixel by pixel in double precision and shares nothing with the node's tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.errors import ImageError
from dicom_node.images.reader import ImageReader
from tests.unit.image_files import SOP_INSTANCE_UID, image, written

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """A modality or VOI LUT of the test: ``entries`` values from ``first`` on."""

    first: int
    bits: int
    entries: int
    curve: float = 1.0
    packed: bool = False

    @property
    def values(self) -> NDArray[np.int64]:
        ramp = np.linspace(0, 1, self.entries) ** self.curve
        return np.rint(ramp * ((1 << self.bits) - 1)).astype(np.int64)


@dataclass(frozen=True)
class Row:
    """One header: how values are stored and what shall be done with them."""

    name: str
    bits: int = 12
    allocated: int = 16
    signed: bool = False
    high_bit: int | None = None
    rubbish: bool = False
    slope: str | None = None
    intercept: str | None = None
    modality: Table | None = None
    voi: Table | None = None
    centre: Any = None
    width: Any = None
    function: str | None = None
    photometric: str = "MONOCHROME2"
    shape: str | None = None
    padding: int | None = None
    padding_limit: int | None = None
    syntax: str = ExplicitVRLittleEndian


ROWS = [
    Row("no VOI shows the full range of 12 bits"),
    Row("full range of 8 bits", bits=8, allocated=8),
    Row("full range of 10 bits in 16", bits=10),
    Row("full range of 14 bits", bits=14),
    Row("full range of 16 bits", bits=16),
    Row("full range of 8 bits in 16", bits=8),
    Row("full range of 7 bits in 8", bits=7, allocated=8),
    Row("full range, signed", signed=True),
    Row("full range, signed 16", bits=16, signed=True),
    Row("full range, signed 8", bits=8, allocated=8, signed=True),
    Row("MONOCHROME1 full range", photometric="MONOCHROME1"),
    Row("MONOCHROME1 and INVERSE invert once", photometric="MONOCHROME1", shape="INVERSE"),
    Row("MONOCHROME2 and INVERSE", shape="INVERSE"),
    Row("IDENTITY", shape="IDENTITY", centre="1000", width="500"),
    Row("window", centre="2048", width="4096"),
    Row("narrow window", centre="1500.5", width="301"),
    Row("window of width 1 is a threshold", centre="2000", width="1"),
    Row("window of width 2", centre="2000", width="2"),
    Row("window named LINEAR", centre="1500", width="1000", function="LINEAR"),
    Row("window LINEAR_EXACT", centre="1500", width="1000", function="LINEAR_EXACT"),
    Row("window LINEAR_EXACT below 1", centre="1500", width="0.5", function="LINEAR_EXACT"),
    Row("window SIGMOID", centre="1500", width="700", function="SIGMOID"),
    Row("window SIGMOID, steep", centre="1500", width="1", function="SIGMOID"),
    Row(
        "window SIGMOID, MONOCHROME1",
        centre="1500",
        width="700",
        function="SIGMOID",
        photometric="MONOCHROME1",
    ),
    Row("window, MONOCHROME1", centre="1500", width="1000", photometric="MONOCHROME1"),
    Row("first of several windows", centre=["1500", "900"], width=["1000", "200"]),
    Row("window of 16 bits", bits=16, centre="32768", width="20000"),
    Row("window of 8 bits", bits=8, allocated=8, centre="128", width="100"),
    Row("window, signed", signed=True, centre="-100", width="900"),
    Row("rescale then window", slope="2.5", intercept="-1024", centre="3000", width="4000"),
    Row("rescale without a window", slope="0.5", intercept="10"),
    Row("rescale with a negative slope", slope="-1", intercept="4095"),
    Row(
        "rescale with a negative slope and a window", slope="-1", intercept="4095", centre="900", width="700"
    ),
    Row("rescale, signed", signed=True, slope="3", intercept="7", centre="500", width="4000"),
    Row("modality LUT", modality=Table(0, 16, 4096, 2.0)),
    Row("modality LUT of few entries", modality=Table(500, 12, 1000, 0.5), centre="2000", width="3000"),
    Row("modality LUT below zero", signed=True, modality=Table(-2048, 12, 4096, 1.5)),
    Row("modality LUT of all entries", bits=16, modality=Table(0, 16, 65536, 2.0)),
    Row("VOI LUT", voi=Table(0, 12, 4096, 2.2)),
    Row("VOI LUT of 8 bits in words", voi=Table(0, 8, 4096, 0.7)),
    Row("VOI LUT of 8 bits packed", voi=Table(0, 8, 4096, 0.7, packed=True)),
    Row("VOI LUT of 10 bits with ends", voi=Table(1000, 10, 512, 1.3)),
    Row("VOI LUT wins over a window", voi=Table(0, 16, 4096, 2.2), centre="2048", width="10"),
    Row("VOI LUT, MONOCHROME1", voi=Table(0, 12, 4096, 2.2), photometric="MONOCHROME1"),
    Row("VOI LUT after rescale", slope="1", intercept="-1000", voi=Table(-1000, 12, 4096, 2.0)),
    Row("VOI LUT, signed", signed=True, voi=Table(-2048, 16, 4096, 1.7)),
    Row("VOI LUT after modality LUT", modality=Table(0, 10, 4096), voi=Table(0, 12, 1024, 0.5)),
    Row("rubbish in the high bits", rubbish=True, centre="1500", width="1000"),
    Row("rubbish in the high bits, signed", rubbish=True, signed=True, centre="0", width="1000"),
    Row("high bit at the top", high_bit=15, centre="1500", width="1000"),
    Row("high bit in the middle, rubbish around", bits=10, high_bit=12, rubbish=True),
    Row("high bit at the top, signed", high_bit=15, signed=True),
    Row("padding", padding=0, centre="1500", width="1000"),
    Row("padding, MONOCHROME1", padding=4095, photometric="MONOCHROME1"),
    Row("padding range", padding=0, padding_limit=63),
    Row("padding range the other way round", padding=4095, padding_limit=4000),
    Row("padding, signed", signed=True, padding=-2048, padding_limit=-2000, centre="0", width="3000"),
    Row("padding outside the stored bits", padding=63536),
    Row("implicit", syntax=ImplicitVRLittleEndian, centre="1500", width="1000", padding=0),
    Row("implicit, signed, LUT", syntax=ImplicitVRLittleEndian, signed=True, voi=Table(-2048, 12, 4096, 2.0)),
    Row("big endian", syntax=ExplicitVRBigEndian, centre="1500", width="1000"),
    Row("big endian LUT", syntax=ExplicitVRBigEndian, voi=Table(0, 12, 4096, 2.2)),
    Row("big endian, 8 bits", syntax=ExplicitVRBigEndian, bits=8, allocated=8),
]


def cells(row: Row) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Every stored value once, as cells of the file and as numbers."""
    lowest = -(1 << (row.bits - 1)) if row.signed else 0
    stored = lowest + np.arange(1 << row.bits, dtype=np.int64)
    # Shuffled into a rectangle that is not square.
    stored = np.random.default_rng(5).permutation(stored).reshape(1 << (row.bits // 2 - 1), -1)
    shift = (row.bits - 1 if row.high_bit is None else row.high_bit) + 1 - row.bits
    mask = (1 << row.bits) - 1
    contents = (stored & mask) << shift
    if row.rubbish:
        noise = np.random.default_rng(6).integers(0, 1 << row.allocated, stored.shape)
        contents |= noise & ~(mask << shift)
    elif row.signed and shift == 0:
        contents = stored & ((1 << row.allocated) - 1)
    unsigned = contents.astype(np.uint8 if row.allocated == 8 else np.uint16)
    return unsigned.view(unsigned.dtype.str.replace("u", "i")) if row.signed else unsigned, stored


def lut_item(table: Table, row: Row) -> Dataset:
    item = Dataset()
    below_zero = table.first < 0
    item.add_new(
        "LUTDescriptor",
        "SS" if below_zero else "US",
        [_short(table.entries, below_zero), table.first, table.bits],
    )
    order = ">" if row.syntax == ExplicitVRBigEndian else "<"
    values = table.values.astype(f"{order}u2")
    if table.packed:
        values = table.values.astype(np.uint8)
    item.add_new("LUTData", "OW", values.tobytes())
    return item


def _short(entries: int, signed: bool) -> int:
    entries &= 0xFFFF
    return entries - 0x10000 if signed and entries > 0x7FFF else entries


def header(row: Row) -> dict[str, Any]:
    return {
        "RescaleSlope": row.slope,
        "RescaleIntercept": row.intercept,
        "WindowCenter": row.centre,
        "WindowWidth": row.width,
        "VOILUTFunction": row.function,
        "PhotometricInterpretation": row.photometric,
        "PresentationLUTShape": row.shape,
        "ModalityLUTSequence": [lut_item(row.modality, row)] if row.modality else None,
        "VOILUTSequence": [lut_item(row.voi, row)] if row.voi else None,
        "PixelPaddingValue": row.padding,
        "PixelPaddingRangeLimit": row.padding_limit,
    }


def reference(row: Row, stored: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """P-values 0..65535 before rounding, and the padding."""
    value = stored.astype(np.float64)
    if row.modality:
        value = _through(row.modality, value)
        extremes = row.modality.values
    else:
        slope, intercept = float(row.slope or 1), float(row.intercept or 0)
        value = value * slope + intercept
        extremes = value
    if row.voi:
        shown = _through(row.voi, value) / (2**row.voi.bits - 1)
    elif row.centre is not None:
        shown = _window(value, *(_first(each) for each in (row.centre, row.width)), row.function)
    else:
        shown = (value - extremes.min()) / (extremes.max() - extremes.min())
    if row.shape == "INVERSE" or row.photometric == "MONOCHROME1":
        shown = 1 - shown
    ends = (
        sorted((row.padding, row.padding if row.padding_limit is None else row.padding_limit))
        if row.padding is not None
        else (1, 0)
    )
    padding = (stored >= ends[0]) & (stored <= ends[1])
    return np.where(padding, 0.0, shown * 65535), padding


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, list) else value)


def _through(table: Table, value: Floats) -> Floats:
    inputs = table.first + np.arange(table.entries)
    nearest = np.interp(value, inputs, np.arange(table.entries))
    return table.values[np.rint(nearest).astype(int)].astype(np.float64)


def _window(value: Floats, centre: float, width: float, function: str | None) -> Floats:
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (value - centre) / width))
    if function == "LINEAR_EXACT":
        low, high = centre - width / 2, centre + width / 2
        ramp = (value - centre) / width + 0.5
    else:
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        ramp = (value - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    return np.where(value <= low, 0.0, np.where(value > high, 1.0, ramp))


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader() as opened:
        yield opened


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_p_values_are_those_of_the_reference(row: Row, reader: ImageReader, tmp_path: Path) -> None:
    contents, stored = cells(row)
    data_set = image(
        contents,
        bits_stored=row.bits,
        high_bit=row.high_bit,
        transfer_syntax_uid=row.syntax,
        **header(row),
    )
    expected, padding = reference(row, stored)

    view = reader.read(written(tmp_path / "image.dcm", data_set), SOP_INSTANCE_UID).view

    assert view.pixels.dtype == np.uint16
    assert np.abs(view.pixels - expected).max() <= 1
    if row.padding is None:
        assert view.padding is None
    else:
        assert view.padding is not None
        assert np.array_equal(view.padding, padding)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "0"},
        {"WindowCenter": "100", "WindowWidth": "0"},
        {"WindowCenter": "100", "WindowWidth": "-5", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "100", "WindowWidth": "50", "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": [Dataset()]},
        {"VOILUTSequence": [lut_item(Table(0, 12, 16, packed=False), Row("short"))]},
    ],
    ids=["slope 0", "width 0", "negative width", "unknown function", "empty LUT", "LUT cut short"],
)
def test_a_chain_that_cannot_be_followed_is_refused(
    elements: dict[str, Any], reader: ImageReader, tmp_path: Path
) -> None:
    contents, _ = cells(Row("plain"))
    data_set = image(contents, **elements)
    if "LUTDescriptor" in data_set.get("VOILUTSequence", [Dataset()])[0]:
        data_set.VOILUTSequence[0].LUTDescriptor = [4096, 0, 12]
    path = written(tmp_path / "image.dcm", data_set)

    with pytest.raises(ImageError) as refused:
        reader.read(path, SOP_INSTANCE_UID)

    assert refused.value.code == "UNREADABLE"

"""Made-up slides of breast tissue: stained islands on bare glass, with or without a tumour.

A drawing, no pathology: pink tissue with a few nuclei, and where a tumour is wanted a disc of crowded dark
nuclei. It gives tests and trials a whole-slide object whose truth is known, with no patient behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

_GLASS = (243, 243, 244)
_TISSUE = (222, 160, 196)
_TUMOUR = (120, 70, 150)
_NAMESPACE = "2.25.3085"  # UIDs of phantoms are this, the seed and a number


def slide_pixels(
    seed: int, *, rows: int, columns: int, tumour: tuple[int, int, int] | None = None
) -> NDArray[np.uint8]:
    """Draw one level of a slide.

    Parameters
    ----------
    seed : int
        The same seed gives the same slide.
    rows, columns : int
        Size of the total pixel matrix.
    tumour : tuple of int or None
        Row, column and radius of a tumour, pixels.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns, 3)`` uint8 RGB: an ellipse of tissue that leaves glass on all sides.
    """
    random = np.random.default_rng(seed)
    down, across = np.ogrid[:rows, :columns]
    tissue = ((down - rows / 2) / (0.40 * rows)) ** 2 + ((across - columns / 2) / (0.42 * columns)) ** 2 < 1
    image = np.empty((rows, columns, 3), np.float64)
    image[:] = _GLASS
    image[tissue] = _TISSUE
    nuclei = tissue & (random.random((rows, columns)) < 0.02)
    if tumour is not None:
        row, column, radius = tumour
        disc = tissue & ((down - row) ** 2 + (across - column) ** 2 < radius**2)
        nuclei |= disc & (random.random((rows, columns)) < 0.7)
    image[nuclei] = _TUMOUR
    return np.clip(np.rint(image + random.normal(0, 2, (rows, columns, 1))), 0, 255).astype(np.uint8)


def slide_object(
    pixels: NDArray[np.uint8],
    *,
    seed: int,
    spacing_mm: float = 0.004,
    tile: int = 256,
    level: int = 0,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    sparse: bool = False,
    **elements: Any,
) -> Dataset:
    """Make a VL Whole Slide Microscopy Image of drawn pixels (PS3.3 A.32.8).

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(rows, columns, 3)`` uint8 RGB.
    seed : int
        Decides its UIDs; levels of one slide share it.
    spacing_mm : float
        Side of a pixel.
    tile : int
        Side of a tile, pixels.
    level : int
        Tells apart the levels of one slide.
    transfer_syntax_uid : str
        Explicit VR Little Endian, or one that pydicom compresses colour tiles with, such as RLE Lossless.
    sparse : bool
        Whether to leave out tiles of bare glass and place each of the others (TILED_SPARSE).
    **elements
        Other elements by keyword; None removes one.

    Returns
    -------
    pydicom.dataset.Dataset
        With file meta information, ready to be written.
    """
    image = _described(pixels.shape[:2], seed, spacing_mm, tile, level)
    grid = (-(-pixels.shape[0] // tile), -(-pixels.shape[1] // tile))
    places = list(np.ndindex(*grid))
    tiles = [_tile(pixels, place, tile) for place in places]
    if sparse:
        kept = [i for i, one in enumerate(tiles) if np.ptp(one.mean(axis=(0, 1))) > 2]
        places, tiles = [places[i] for i in kept], [tiles[i] for i in kept]
        image.DimensionOrganizationType = "TILED_SPARSE"
        image.PerFrameFunctionalGroupsSequence = [_position(place, tile) for place in places]
    image.NumberOfFrames = len(tiles)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    for keyword, value in elements.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    _add_tiles(image, tiles)
    return image


def _described(size: tuple[int, ...], seed: int, spacing_mm: float, tile: int, level: int) -> Dataset:
    image, origin, measures, groups, specimen = (Dataset() for _ in range(5))
    # The slide's millimetres are those of its finest level's corner, so that levels lie on each other.
    origin.XOffsetInSlideCoordinateSystem = f"{40 - spacing_mm / 2:.6g}"
    origin.YOffsetInSlideCoordinateSystem = f"{20 - spacing_mm / 2:.6g}"
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm, spacing_mm], 0.004
    groups.PixelMeasuresSequence = [measures]
    specimen.SpecimenIdentifier, specimen.SpecimenUID = f"PHANTOM-{seed} A1", f"{_NAMESPACE}.{seed}.4"
    specimen.IssuerOfTheSpecimenIdentifierSequence, specimen.SpecimenPreparationSequence = [], []
    own: dict[str, Any] = {
        "SOPClassUID": VLWholeSlideMicroscopyImageStorage,
        "SOPInstanceUID": f"{_NAMESPACE}.{seed}.{10 + level}",
        "StudyInstanceUID": f"{_NAMESPACE}.{seed}.1",
        "SeriesInstanceUID": f"{_NAMESPACE}.{seed}.2",
        "FrameOfReferenceUID": f"{_NAMESPACE}.{seed}.3",
        "PositionReferenceIndicator": "SLIDE_CORNER",
        "PatientName": "Phantom^Slide",
        "PatientID": f"SLIDE-{seed}",
        "PatientBirthDate": "19600101",
        "PatientSex": "F",
        "StudyDate": "20260105",
        "StudyTime": "090000",
        "StudyID": "1",
        "AccessionNumber": f"S26-{seed}",
        "ReferringPhysicianName": "",
        "Modality": "SM",
        "Manufacturer": "dicom-node phantoms",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE" if level == 0 else "RESAMPLED"],
        "InstanceNumber": level + 1,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "Rows": tile,
        "Columns": tile,
        "TotalPixelMatrixRows": size[0],
        "TotalPixelMatrixColumns": size[1],
        "TotalPixelMatrixFocalPlanes": 1,
        "NumberOfOpticalPaths": 1,
        "TotalPixelMatrixOriginSequence": [origin],
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
        "ContainerIdentifier": f"S26-{seed}",
        "IssuerOfTheContainerIdentifierSequence": [],
        "ContainerTypeCodeSequence": [],
        "SpecimenDescriptionSequence": [specimen],
        "SharedFunctionalGroupsSequence": [groups],
        "DimensionOrganizationType": "TILED_FULL",
        "LossyImageCompression": "00",
    }
    for keyword, value in own.items():
        setattr(image, keyword, value)
    return image


def _tile(pixels: NDArray[np.uint8], place: tuple[int, ...], side: int) -> NDArray[np.uint8]:
    top, left = place[0] * side, place[1] * side
    part = pixels[top : top + side, left : left + side]
    whole = np.full((side, side, 3), 255, np.uint8)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def _position(place: tuple[int, ...], side: int) -> Dataset:
    position, groups = Dataset(), Dataset()
    position.RowPositionInTotalImagePixelMatrix = place[0] * side + 1
    position.ColumnPositionInTotalImagePixelMatrix = place[1] * side + 1
    groups.PlanePositionSlideSequence = [position]
    return groups


def _add_tiles(image: Dataset, tiles: list[NDArray[np.uint8]]) -> None:
    syntax = image.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        image.PixelData = b"".join(tile.tobytes() for tile in tiles)
    else:
        encoder = get_encoder(syntax)
        described = {
            "rows": image.Rows,
            "columns": image.Columns,
            "samples_per_pixel": 3,
            "photometric_interpretation": "RGB",
            "planar_configuration": 0,
            "bits_allocated": 8,
            "bits_stored": 8,
            "pixel_representation": 0,
            "number_of_frames": 1,
        }
        image.PixelData = encapsulate([encoder.encode(tile, **described) for tile in tiles])
    image["PixelData"].VR = "OB"

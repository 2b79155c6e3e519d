"""The lesions of a phantom: one shape for each kind, added to the tissue around it.

Thin and small structures are widened and weakened by the extent of a pixel, so that a phantom drawn at a
coarse resolution shows what a fine one would show after averaging. Positions are millimetres from the
lesion's centre, brightness is in 12-bit units.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Image = NDArray[np.float32]


class LesionKind(StrEnum):
    """The classes of abnormality of the MIAS database."""

    CALC = "CALC"  # cluster of calcifications
    CIRC = "CIRC"  # well-defined, circumscribed mass
    SPIC = "SPIC"  # spiculated mass
    MISC = "MISC"  # other, ill-defined mass
    ARCH = "ARCH"  # architectural distortion
    ASYM = "ASYM"  # asymmetry
    NORM = "NORM"  # no lesion


RADIUS_MM: dict[LesionKind, tuple[float, float]] = {
    LesionKind.CALC: (6.0, 9.0),
    LesionKind.CIRC: (6.0, 10.0),
    LesionKind.SPIC: (10.0, 15.0),
    LesionKind.MISC: (8.0, 13.0),
    LesionKind.ARCH: (12.0, 17.0),
    LesionKind.ASYM: (13.0, 18.0),
}


def add_lesion(
    tissue: Image,
    kind: LesionKind,
    malignant: bool,
    place: tuple[float, float, float],
    u: Image,
    v: Image,
    random: np.random.Generator,
    spacing: float,
) -> None:
    """Add the lesion to its surroundings, in place.

    Parameters
    ----------
    tissue : numpy.ndarray
        ``(rows, columns)`` float32, attenuation of the breast.
    kind : LesionKind
        Any kind but NORM.
    malignant : bool
        Draw it denser and more irregular.
    place : tuple of float
        Centre ``u, v`` and radius, millimetres.
    u, v : numpy.ndarray
        ``(1, columns)`` and ``(rows, 1)``, pixel centres in millimetres.
    random : numpy.random.Generator
        Decides contrast and shape.
    spacing : float
        Distance of pixel centres, millimetres.
    """
    centre_u, centre_v, radius = place
    reach = 1.6 * radius + 2
    columns = slice(*np.searchsorted(u[0], [centre_u - reach, centre_u + reach]))
    rows = slice(*np.searchsorted(v[:, 0], [centre_v - reach, centre_v + reach]))
    x, y = u[:, columns] - centre_u, v[rows] - centre_v
    contrast = random.uniform(0.9, 1.1) * (1.0 if malignant else 0.62)
    shape = _SHAPES[kind](x, y, radius, malignant, random, spacing)
    tissue[rows, columns] += contrast * shape


def _lobed_distance(x: Image, y: Image, radius: float, lobes: float, random: np.random.Generator) -> Image:
    """Distance from the centre over an irregular radius; 1 is the border."""
    angle = np.arctan2(y, x)
    border = np.ones_like(angle)
    for order in range(2, 7):
        border += lobes / order * random.normal() * np.cos(order * angle + random.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(x, y) / (radius * np.clip(border, 0.55, 1.0)), np.float32)


def _circumscribed(
    x: Image, y: Image, radius: float, malignant: bool, random: np.random.Generator, spacing: float
) -> Image:
    distance = _lobed_distance(x, y, radius * 0.95, 0.16 if malignant else 0.03, random)
    sharpness = 0.05 + spacing / radius / 4
    return np.asarray(820 * expit((0.95 - distance) / sharpness), np.float32)


def _ill_defined(
    x: Image, y: Image, radius: float, malignant: bool, random: np.random.Generator, spacing: float
) -> Image:
    distance = _lobed_distance(x, y, radius, 0.45 if malignant else 0.25, random)
    return np.asarray(1000 * np.exp(-((distance / 0.62) ** 3)), np.float32)


def _asymmetry(
    x: Image, y: Image, radius: float, malignant: bool, random: np.random.Generator, spacing: float
) -> Image:
    turn, squeeze = random.uniform(0, np.pi), random.uniform(0.6, 0.8)
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    distance = _lobed_distance(along, across / np.float32(squeeze), radius, 0.3, random)
    return np.asarray(880 * np.exp(-((distance / 0.7) ** 2)), np.float32)


def _spicules(
    x: Image,
    y: Image,
    radius: float,
    count: int,
    start: float,
    random: np.random.Generator,
    spacing: float,
) -> Image:
    """Lines from ``start * radius`` to the border, tapering; brightness 0..1 before overlap."""
    lines = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    turn = random.uniform(0, 2 * np.pi)
    for number in range(count):
        angle = turn + 2 * np.pi * (number + random.uniform(-0.3, 0.3)) / count
        length, width = radius * random.uniform(0.75, 1.0), random.uniform(0.45, 0.75)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = -x * np.sin(angle) + y * np.cos(angle)
        # The mean of a thin line over a pixel: wider and weaker by the pixel's own extent.
        blurred = np.hypot(width, spacing / np.sqrt(12))
        taper = np.clip((length - along) / (0.6 * radius), 0, 1)
        taper *= np.clip((along - start * radius) / (0.2 * radius), 0, 1)
        lines += (width / blurred) * taper * np.exp(-0.5 * (across / blurred) ** 2)
    return np.minimum(lines, 1.2)


def _spiculated(
    x: Image, y: Image, radius: float, malignant: bool, random: np.random.Generator, spacing: float
) -> Image:
    core = _lobed_distance(x, y, radius * 0.5, 0.3, random)
    mass = 1050 * np.exp(-((core / 0.9) ** 4))
    lines = _spicules(x, y, radius, 18 if malignant else 11, 0.05, random, spacing)
    return np.asarray(mass + 620 * lines, np.float32)


def _distortion(
    x: Image, y: Image, radius: float, malignant: bool, random: np.random.Generator, spacing: float
) -> Image:
    lines = _spicules(x, y, radius, 22 if malignant else 13, 0.0, random, spacing)
    pulled_in = np.exp(-((np.hypot(x, y) / (0.45 * radius)) ** 2))
    return np.asarray(820 * lines + 160 * pulled_in, np.float32)


def _calcifications(
    x: Image, y: Image, radius: float, malignant: bool, random: np.random.Generator, spacing: float
) -> Image:
    # Malignant clusters are many, fine and elongated; benign ones few, round and coarse.
    count = int(random.integers(26, 38) if malignant else random.integers(6, 11))
    cluster = 130 * np.exp(-((np.hypot(x, y) / (0.7 * radius)) ** 2))
    specks = np.asarray(np.broadcast_to(cluster, np.broadcast_shapes(x.shape, y.shape)), np.float32).copy()
    for _ in range(count):
        angle, distance = random.uniform(0, 2 * np.pi), radius * 0.9 * np.sqrt(random.uniform())
        size, stretch = (0.27, random.uniform(1.0, 2.2)) if malignant else (0.48, 1.0)
        size *= random.uniform(0.8, 1.25)
        turn = random.uniform(0, np.pi)
        dx, dy = x - distance * np.cos(angle), y - distance * np.sin(angle)
        near_x, near_y = np.abs(dx[0]) < 5, np.abs(dy[:, 0]) < 5
        dx, dy = dx[:, near_x], dy[near_y]
        along, across = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
        length, width = (np.hypot(s, spacing / np.sqrt(12)) for s in (size * stretch, size))
        peak = 2300 * size * stretch * size / (length * width)
        speck = peak * np.exp(-0.5 * ((along / length) ** 2 + (across / width) ** 2))
        specks[np.ix_(near_y, near_x)] += speck
    return specks


_SHAPES = {
    LesionKind.CALC: _calcifications,
    LesionKind.CIRC: _circumscribed,
    LesionKind.SPIC: _spiculated,
    LesionKind.MISC: _ill_defined,
    LesionKind.ARCH: _distortion,
    LesionKind.ASYM: _asymmetry,
}

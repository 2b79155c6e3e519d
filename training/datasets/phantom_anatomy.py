"""The anatomy of a phantom in millimetres: skin, fat, gland, strands and pectoral muscle.

Everything is a function of the position in millimetres, so that a seed shows the same breast at every
resolution. Arrays are ``(rows, columns)`` float32 in 12-bit units unless said otherwise; a left breast is
drawn (chest wall at the left edge).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.special import expit

Image = NDArray[np.float32]

FIELD_HEIGHT_MM = 204.8  # every phantom is this high, whatever its number of rows
GRID_MM = 0.8  # soft tissue is computed on this lattice and interpolated
GRID_POINTS = 264  # more than the field, so that interpolation never leaves the lattice
WHITE = 4095


@dataclass(frozen=True)
class Anatomy:
    """A breast in millimetres: ``u`` from the chest wall, ``v`` down from the middle of the image."""

    view: str
    depth: float
    nipple_v: float
    upper: float
    lower: float
    pectoral_width: float
    pectoral_foot: float
    density: float

    def inside_mm(self, u: Image, v: Image) -> Image:
        """Approximate distance to the skin, positive inside the breast."""
        height = np.where(v < self.nipple_v, self.upper, self.lower)
        radius = np.sqrt((u / self.depth) ** 2 + (np.abs(v - self.nipple_v) / height) ** 2.2)
        body = (1 - radius) * min(self.depth, self.lower)
        nipple = 4.5 - np.hypot(u - self.depth, v - self.nipple_v)
        return np.asarray(np.maximum(body, nipple), np.float32)

    def pectoral_mm(self, u: Image, v: Image) -> Image:
        """Distance to the pectoral muscle's border, positive inside the muscle; far outside in a CC view."""
        if self.view == "CC":
            return np.full(np.broadcast_shapes(u.shape, v.shape), -1e3, np.float32)
        top = -FIELD_HEIGHT_MM / 2
        fraction = (self.pectoral_foot - v) / (self.pectoral_foot - top)
        # A slightly convex border, as the muscle bulges in most women.
        bulge = 5.0 * np.sin(np.pi * np.clip(fraction, 0, 1))
        border = self.pectoral_width * fraction + bulge
        return np.asarray((border - u) * 0.9, np.float32)


def anatomy(breast: np.random.Generator, view: str) -> Anatomy:
    """Draw the proportions of a breast for one of its views."""
    depth, lower = breast.uniform(82, 112), breast.uniform(62, 80)
    density, width, foot = breast.uniform(0.25, 1.0), breast.uniform(42, 60), breast.uniform(5, 35)
    if view == "CC":
        nipple_v, upper = breast.uniform(-6, 6), lower * breast.uniform(0.95, 1.1)
    else:
        nipple_v, upper = breast.uniform(22, 32), breast.uniform(145, 160)
    return Anatomy(view, depth, nipple_v, upper, min(lower, 98 - nipple_v), width, foot, density)


def _noise(random: np.random.Generator, wavelength_mm: float) -> Image:
    """Smooth noise of unit variance on the lattice ``(GRID_POINTS, GRID_POINTS)``."""
    white = random.standard_normal((GRID_POINTS, GRID_POINTS)).astype(np.float32)
    smooth = ndimage.gaussian_filter(white, wavelength_mm / GRID_MM / 4, mode="wrap")
    return np.asarray(smooth / smooth.std(), np.float32)


def _ducts(random: np.random.Generator, anatomy: Anatomy, u: Image, v: Image) -> Image:
    """Strands that run towards the nipple: noise in polar coordinates around it."""
    angle = np.arctan2(v - anatomy.nipple_v, anatomy.depth + 6 - u)
    radius = np.hypot(v - anatomy.nipple_v, anatomy.depth + 6 - u)
    noise = ndimage.gaussian_filter(random.standard_normal((180, 60)).astype(np.float32), (1.0, 1.0))
    wobble = _noise(random, 40) * 0.05
    coordinates = np.stack([((angle + wobble) / np.pi + 0.5) * 179, radius / 6.0])
    strands = ndimage.map_coordinates(noise / noise.std(), coordinates, order=1, mode="nearest")
    return np.asarray(np.exp(-((strands / 0.35) ** 2)), np.float32)


def soft_tissue(anatomy: Anatomy, random: np.random.Generator) -> Image:
    """Brightness of fat, gland, strands and muscle on the lattice, 12-bit units."""
    points = (np.arange(GRID_POINTS, dtype=np.float32) - 2) * GRID_MM
    u, v = points[None, :], points[:, None] - FIELD_HEIGHT_MM / 2
    u, v = np.broadcast_arrays(u, v)
    inside = anatomy.inside_mm(u, v)
    clouds = 0.6 * _noise(random, 45) + 0.5 * _noise(random, 20)
    grain = 0.6 * _noise(random, 9) + 0.35 * _noise(random, 4.5) + 0.25 * _noise(random, 2.4)
    reach = np.hypot((u - 0.55 * anatomy.depth) / (0.42 * anatomy.depth), (v - anatomy.nipple_v + 4) / 42)
    gland = expit(5.5 * (0.85 - reach) + 1.6 * clouds + 1.5 * (anatomy.density - 0.6))
    gland *= np.clip((inside - 4) / 14, 0, 1)
    fat = 860 + 70 * clouds + 75 * grain
    gland_brightness = (620 + 560 * anatomy.density) * (1 + 0.12 * clouds + 0.18 * grain)
    strands = _ducts(random, anatomy, u, v) * (110 + 230 * gland) * np.clip(inside / 12, 0, 1)
    muscle = expit(anatomy.pectoral_mm(u, v) / 0.9)
    breast = fat + gland * gland_brightness + strands
    striae = 1950 + 80 * clouds + 60 * grain
    return np.asarray(breast * (1 - muscle) + muscle * striae, np.float32)


def fine_texture(random: np.random.Generator, spacing: float) -> Image:
    """Fine grain on a lattice of half the step; a larger pixel averages more of it away."""
    points = 2 * GRID_POINTS
    strength = 26 / np.hypot(1, spacing / (GRID_MM / 2))
    return np.asarray(random.standard_normal((points, points)) * strength, np.float32)


def upsampled(lattice: Image, rows: int, columns: int, spacing: float, point_mm: float = GRID_MM) -> Image:
    """Cubic B-spline of the lattice's values at the pixel centres, ``(rows, columns)`` float32.

    `spacing` is the distance of pixel centres and `point_mm` that of the lattice's points, in millimetres.
    """
    down = _spline_basis(rows, spacing, point_mm, lattice.shape[0])
    across = _spline_basis(columns, spacing, point_mm, lattice.shape[1])
    return np.asarray((across @ (down @ lattice).T).T, np.float32)


def _spline_basis(size: int, spacing: float, point_mm: float, points: int) -> sparse.csr_array:
    position = (np.arange(size) + 0.5) * spacing / point_mm + 2
    first, t = np.floor(position).astype(np.int64) - 1, position % 1
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    # An image wider than the field repeats the tissue; there is only air that far from the chest wall.
    indices = (first[:, None] + np.arange(4)) % points
    starts = np.arange(0, 4 * size + 1, 4)
    return sparse.csr_array(
        (weights.T.ravel().astype(np.float32), indices.ravel(), starts), shape=(size, points)
    )


def exposed(tissue: Image, inside: Image, spacing: float) -> NDArray[np.uint16]:
    """Shape the tissue by the breast's thickness, add skin, and digitise to 12 bit."""
    thickness = np.clip(inside / 9, 0, 1)
    thickness = 0.42 + 0.58 * thickness * (2 - thickness)
    skin = 420 * np.exp(-(((inside - 0.9) / 0.7) ** 2))
    edge = np.clip(inside / max(0.6, spacing) + 0.5, 0, 1)
    return np.asarray(np.clip((tissue * thickness + skin) * edge, 0, WHITE) + 0.5, np.uint16)

"""Whether a map points at lesions, or only looks as if it did.

Three answers that know nothing are measured the same way: the map's values at random places in the breast,
the lesions of other women (is it just the usual place?), and the map of a network with random weights (is it
just where tissue is bright?). A map that does not beat all three is not shown.

References
----------
Zhang et al.: Int J Comput Vis 126 (2018) 1084-1102 (pointing game).
Adebayo et al.: NeurIPS 31 (2018) (random weights as a sanity check).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleFormatError
from models.manifest import LocalisationVerdict, strict_json
from training.atomic_file import write_json
from training.errors import EvaluationError
from training.froc import froc
from training.intervals import Interval, Resampling, exact
from training.lesion_areas import LocatedMap, on_grid, shuffled, touched

RANDOM_PEAK, OTHER_WOMAN, RANDOM_WEIGHTS = "random_peak", "other_woman", "random_weights"
SMALLEST = 20
"""Women with lesions below which no map is trusted, whatever the numbers say."""

_FORMAT = 2
_SHOWN_SHARE = 0.5  # of the map's maximum: what counts as its area
_SHUFFLES = 20

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pointing:
    """How one source of maps points.

    Attributes
    ----------
    pointing_game : Interval
        Share of images with lesions where the highest cell of the map touches one.
    women : Interval
        Share of women in whom that is so in every image with lesions: several views are no further chances.
    iou : Interval
        Mean intersection over union of the lesions and where the map exceeds half of its maximum.
    froc : tuple of float
        Share of lesions marked at :data:`~training.froc.FALSE_MARKS` false marks per image.
    mean_froc : Interval
        Mean of `froc`.
    """

    pointing_game: Interval
    women: Interval
    iou: Interval
    froc: tuple[float, ...]
    mean_froc: Interval


@dataclass(frozen=True, slots=True)
class LocalisationQuality:
    """A map held against answers that know nothing.

    Attributes
    ----------
    images, women, lesions : int
        Images with lesions, the women they are of, and the lesions on them.
    found : Pointing
        The map itself.
    baselines : Mapping of str to Pointing
        ``random_peak``, ``other_woman``, ``random_weights``.
    advantage : Mapping of str to Interval
        Pointing game of the map minus that of each baseline, on the same images, resampled by woman.
    """

    images: int
    women: int
    lesions: int
    found: Pointing
    baselines: Mapping[str, Pointing]
    advantage: Mapping[str, Interval]

    @property
    def is_better_than_random(self) -> bool:
        """Whether the map beats every baseline: the lower bound of each advantage is above 0."""
        return self.women >= SMALLEST and all(interval.low > 0.0 for interval in self.advantage.values())

    @property
    def verdict(self) -> LocalisationVerdict:
        """What a bundle's manifest says of it; its `lesions` counts images with lesions."""
        game = self.found.pointing_game
        return LocalisationVerdict(
            pointing_game=game.value,
            low=game.low,
            high=game.high,
            random_weights=self.baselines[RANDOM_WEIGHTS].pointing_game.value,
            lesions=self.images,
            is_better_than_random=self.is_better_than_random,
        )


def write(quality: LocalisationQuality, path: Path) -> None:
    """Write what was measured as JSON; :func:`read` gives it back."""
    write_json(path, {"format": _FORMAT, **asdict(quality)})


def read(path: Path) -> LocalisationQuality:
    """Read what :func:`write` wrote.

    Raises
    ------
    EvaluationError
        If the file is missing or is something else.
    """
    try:
        raw = strict_json(path.read_bytes(), path.name)
        if raw.pop("format") != _FORMAT:
            raise EvaluationError(
                f"{path.name} has a form that this program does not read: measure again with "
                "'dicom-node evaluate --maps'."
            )
        return LocalisationQuality(
            images=int(raw["images"]),
            women=int(raw["women"]),
            lesions=int(raw["lesions"]),
            found=_read_pointing(raw["found"]),
            baselines={name: _read_pointing(value) for name, value in raw["baselines"].items()},
            advantage={name: Interval(**value) for name, value in raw["advantage"].items()},
        )
    except (OSError, BundleFormatError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvaluationError(
            f"{path.name} cannot be read as what maps are worth ({type(error).__name__}): measure again with "
            "'dicom-node evaluate --maps'."
        ) from error


def _read_pointing(raw: Mapping[str, Any]) -> Pointing:
    return Pointing(
        pointing_game=Interval(**raw["pointing_game"]),
        women=Interval(**raw["women"]),
        iou=Interval(**raw["iou"]),
        froc=tuple(map(float, raw["froc"])),
        mean_froc=Interval(**raw["mean_froc"]),
    )


def measure(
    maps: Sequence[LocatedMap], random_weights: Sequence[LocatedMap], *, seed: int = 0
) -> LocalisationQuality:
    """Measure maps against lesions.

    Parameters
    ----------
    maps : sequence of LocatedMap
        One for each image; images without lesions count for false marks.
    random_weights : sequence of LocatedMap
        The same images through the same architecture before any training.
    seed : int
        Of shuffles and resampling.

    Raises
    ------
    EvaluationError
        If there are no two women with lesions, or the two sequences are not of the same images.
    """
    _require_same_images(maps, random_weights)
    with_lesions = [row for row, one in enumerate(maps) if one.areas]
    women = [maps[row].group for row in with_lesions]
    if len(set(women)) < 2:
        raise EvaluationError("Localisation needs drawn lesions of two women at least.")
    resampling = Resampling(women, seed=seed)
    random = np.random.default_rng(seed)
    found = _Answers.of(maps, with_lesions, seed)
    baselines = {
        RANDOM_PEAK: _of_shuffled_maps(maps, with_lesions, random, seed),
        OTHER_WOMAN: _of_other_women(maps, with_lesions, random, seed),
        RANDOM_WEIGHTS: _Answers.of(random_weights, with_lesions, seed),
    }
    return LocalisationQuality(
        images=len(with_lesions),
        women=resampling.women,
        lesions=sum(len(maps[row].areas) for row in with_lesions),
        found=found.pointing(women, seed),
        baselines={name: answers.pointing(women, seed) for name, answers in baselines.items()},
        advantage={
            name: resampling.mean(found.mean_hits - answers.mean_hits) for name, answers in baselines.items()
        },
    )


def _require_same_images(maps: Sequence[LocatedMap], random_weights: Sequence[LocatedMap]) -> None:
    same = len(maps) == len(random_weights) and all(
        one.group == other.group and len(one.areas) == len(other.areas)
        for one, other in zip(maps, random_weights, strict=False)
    )
    if not same:
        raise EvaluationError("Give the maps of the same images, once trained and once with random weights.")


@dataclass(frozen=True, slots=True)
class _Answers:
    """Where one source of maps, or one that knows nothing, says that lesions are.

    Attributes
    ----------
    hits : tuple of numpy.ndarray
        Of each image with lesions, ``(draws,)``: whether the peak touches one, 1 or 0. A map answers once,
        one that knows nothing in each of its draws; a woman's images have the same draws.
    overlaps : numpy.ndarray
        ``(n,)`` of each image with lesions: intersection over union.
    froc : tuple of float
        See :class:`Pointing`.
    mean_froc : Interval
        See :class:`Pointing`.
    """

    hits: tuple[Array, ...]
    overlaps: Array
    froc: tuple[float, ...]
    mean_froc: Interval

    @classmethod
    def of(cls, maps: Sequence[LocatedMap], rows: Sequence[int], seed: int) -> _Answers:
        return cls(tuple(_hits(maps, rows)[:, np.newaxis]), _overlaps(maps, rows), *froc(maps, seed))

    @property
    def mean_hits(self) -> Array:
        """``(n,)`` how often each image's peak touches a lesion."""
        return np.asarray([of_image.mean() for of_image in self.hits])

    def pointing(self, women: Sequence[str], seed: int) -> Pointing:
        """Sum up by image and by woman; `women` names the woman of each image."""
        resampling, names = Resampling(women, seed=seed), sorted(set(women))
        hits = self.mean_hits
        of_women = np.asarray([self._mean_in_every_image(women, name) for name in names])
        return Pointing(
            pointing_game=resampling.share(hits == 1.0) if _are_counts(hits) else resampling.mean(hits),
            women=exact(int(of_women.sum()), len(names))
            if _are_counts(of_women)
            else Resampling(names, seed=seed).mean(of_women),
            iou=resampling.mean(self.overlaps),
            froc=self.froc,
            mean_froc=self.mean_froc,
        )

    def _mean_in_every_image(self, women: Sequence[str], name: str) -> float:
        """Return the share of draws that hit in all images of a woman."""
        hers = [of_image for woman, of_image in zip(women, self.hits, strict=True) if woman == name]
        return float(np.min(hers, axis=0).mean())


def _are_counts(hits: Array) -> bool:
    return bool(np.isin(hits, (0.0, 1.0)).all())


def _of_shuffled_maps(
    maps: Sequence[LocatedMap], rows: Sequence[int], random: np.random.Generator, seed: int
) -> _Answers:
    """Answer by the map's values at random places: the mean of many shuffles, the FROC curve of one."""
    mixed = [shuffled(maps, random) for _ in range(_SHUFFLES)]
    hits = np.column_stack([_hits(one, rows) for one in mixed])
    overlaps = np.mean([_overlaps(one, rows) for one in mixed], axis=0)
    return _Answers(tuple(hits), overlaps, *froc(mixed[0], seed))


def _of_other_women(
    maps: Sequence[LocatedMap], rows: Sequence[int], random: np.random.Generator, seed: int
) -> _Answers:
    """Hold the maps against the lesions of all other women, the FROC curve against those of one."""
    hits, overlaps = [], []
    for row in rows:
        one, others = maps[row], _other_women(maps, row, rows)
        peak, shown = _peak(one), _shown(one)
        hits.append(
            np.asarray([touched(other.union, one.activation.shape)[peak] for other in others], np.float64)
        )
        overlaps.append(np.mean([_overlap(shown, other.union) for other in others]))
    return _Answers(tuple(hits), np.asarray(overlaps), *froc(_exchanged(maps, rows, random), seed))


def _other_women(maps: Sequence[LocatedMap], row: int, rows: Sequence[int]) -> list[LocatedMap]:
    return [maps[other] for other in rows if maps[other].group != maps[row].group]


def _peak(one: LocatedMap) -> tuple[int, int]:
    """Row and column of the map's highest cell that touches the breast."""
    is_inside = touched(one.inside, one.activation.shape)
    row, column = np.unravel_index(
        int(np.where(is_inside, one.activation, -np.inf).argmax()), one.activation.shape
    )
    return int(row), int(column)


def _hits(maps: Sequence[LocatedMap], rows: Sequence[int]) -> Array:
    return np.asarray(
        [touched(maps[row].union, maps[row].activation.shape)[_peak(maps[row])] for row in rows], np.float64
    )


def _shown(one: LocatedMap) -> NDArray[np.bool_]:
    """Where a map exceeds half of its maximum inside the breast."""
    values = np.where(one.inside, on_grid(one.activation, one.inside.shape), -np.inf)
    highest = float(values.max())
    return np.asarray(values >= _SHOWN_SHARE * highest) if highest > 0.0 else np.zeros(values.shape, np.bool_)


def _overlap(shown: NDArray[np.bool_], union: NDArray[np.bool_]) -> float:
    return float((shown & union).sum() / (shown | union).sum())


def _overlaps(maps: Sequence[LocatedMap], rows: Sequence[int]) -> Array:
    return np.asarray([_overlap(_shown(maps[row]), maps[row].union) for row in rows])


def _exchanged(
    maps: Sequence[LocatedMap], rows: Sequence[int], random: np.random.Generator
) -> list[LocatedMap]:
    """Give every woman with lesions those of another woman."""
    found = list(maps)
    for row in rows:
        others = _other_women(maps, row, rows)
        areas = others[int(random.choice(len(others)))].areas
        found[row] = replace(maps[row], areas=areas)
    return found

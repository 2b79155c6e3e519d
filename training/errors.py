"""The errors of training.

::

    TrainingError
    ├── LeakError          one woman's images would be on both sides of a split
    └── PackagingError     what was trained cannot become a bundle
"""

from __future__ import annotations


class TrainingError(Exception):
    """Training failed; the message says what to do next."""


class LeakError(TrainingError):
    """The same woman is in two parts of a split; split by woman."""


class PackagingError(TrainingError):
    """The result cannot be packed into a bundle."""

"""The errors of training.

::

    TrainingError
    ├── DataSetError       a folder is not what its reader needs: every problem at once
    ├── ImageFileError     one image of a data set cannot be read
    ├── LeakError          one woman's images would be on both sides of a split
    ├── ProvenanceError    nobody can tell whose images starting weights have seen
    ├── SplitError         the images cannot be split as asked, or a split file is not one
    ├── PredictionsError   a table of predictions is not what it must be
    ├── EvaluationError    what was asked cannot be measured on these predictions
    ├── TrainingConfigError  the options of a run are not ones that it can have
    ├── ResourcesError     the disk or the memory cannot hold the run
    ├── CheckpointError    a run cannot go on from where it stood
    ├── RunInUseError      another process is at work in the run's folder
    └── PackagingError     what was trained cannot become a bundle
"""

from __future__ import annotations


class TrainingError(Exception):
    """Training failed; the message says what to do next."""


class DataSetError(TrainingError):
    """A folder is not what its reader needs; the message lists what to correct."""


class ImageFileError(TrainingError):
    """One image of a data set cannot be read; replace it or leave it out."""


class LeakError(TrainingError):
    """The same woman is in two parts of a split; split by woman."""


class ProvenanceError(TrainingError):
    """The weights that a run starts from come from others of which nobody can tell whom they know."""


class SplitError(TrainingError):
    """The images cannot be split as asked; ask for fewer folds or add women of the rarer classes."""


class PredictionsError(TrainingError):
    """A table of predictions is not what it must be; make it again by a training run."""


class EvaluationError(TrainingError):
    """What was asked cannot be measured on these predictions."""


class TrainingConfigError(TrainingError):
    """An option of a run is unknown, missing or out of its range."""


class ResourcesError(TrainingError):
    """The disk or the memory cannot hold the run; make it smaller or free some."""


class CheckpointError(TrainingError):
    """A run cannot go on from what lies in its folder."""


class RunInUseError(TrainingError):
    """Another process is at work in the run's folder; wait for its end."""


class PackagingError(TrainingError):
    """The result cannot be packed into a bundle."""

"""What the training of the demonstration can be asked for; all other runs have :mod:`training.run_config`."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.preprocessing import Parameters


@dataclass(frozen=True, slots=True)
class DemonstrationConfig:
    """Options of the demonstration's training run.

    Attributes
    ----------
    seed : int
        Of everything that is drawn: phantoms, split, weights, order of cases.
    training_women, validation_women, test_women : int
        Women in each part of the split, half of them with a malignant lesion. A training woman gives the
        two views of one breast, the others give all four.
    benign_women : int
        Further women with a benign lesion, for the evaluation alone.
    rows, columns : int
        Size of a phantom before a random variation of 0.85..1.1.
    channels : tuple of int
        Width of the network's three stages.
    localising_epochs, scoring_epochs : int
        Epochs on crops around the lesions, then on whole images.
    localising_rate, scoring_rate : float
        Highest learning rate of each stage.
    specificity : float
        Target of the operating point, 0..1.
    preprocessing : Parameters
        How images reach the network.
    """

    seed: int = 20260101
    training_women: int = 360
    validation_women: int = 72
    test_women: int = 72
    benign_women: int = 24
    rows: int = 640
    columns: int = 512
    channels: tuple[int, int, int] = (12, 24, 48)
    localising_epochs: int = 30
    scoring_epochs: int = 6
    localising_rate: float = 8e-3
    scoring_rate: float = 3e-3
    specificity: float = 0.90
    preprocessing: Parameters = field(default_factory=lambda: Parameters(rows=288, columns=192, pixel_mm=0.8))

"""What a run's numbers allow to be said, in a few plain sentences."""

from __future__ import annotations

from training.evaluation import Evaluation, best_level
from training.evaluation_report import written

_CHANCE = 0.5


def sentences(evaluation: Evaluation, *, leaks: bool) -> tuple[str, ...]:
    """Say what was shown and what was not.

    Parameters
    ----------
    evaluation : Evaluation
        Of the test predictions of a run.
    leaks : bool
        Whether the leak guard found something of the test in training: then nothing is shown by the numbers.

    Raises
    ------
    EvaluationError
        If nothing could be measured.
    """
    level = best_level(evaluation)
    auc, accuracy = level.scores["auc"], level.scores["accuracy"]
    found = [f"Per {level.name} ({len(level.cases.labels)} cases): AUC {written(auc)}."]
    if leaks:
        return (*found, "This shows nothing: the network may have recognised what it was tested on.")
    if auc.low > _CHANCE:
        found.append("The network tells the classes apart: the whole interval lies above chance (0.5).")
    elif auc.high < _CHANCE:
        found.append("The network is worse than chance: the labels may be the wrong way round.")
    else:
        found.append("Not shown to be better than chance (0.5): it takes more data, or another network.")
    found.append(
        f"Accuracy {written(accuracy)}; always answering {level.baseline_class!r} has {level.baseline:.3f}."
    )
    if accuracy.low <= level.baseline:
        found.append("Its accuracy is not shown to be above that of this one answer.")
    return tuple(found)

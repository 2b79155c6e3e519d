"""Methods against imbalance: what each does to the loss, to the order of cases and to the prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, special
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn import functional

from training.errors import TrainingError
from training.imbalance import ClassBalance, Imbalance, class_logits
from training.validation import validate

BINARY = (0.9, 0.1)
SEVEN = (0.64, 0.08, 0.07, 0.06, 0.05, 0.05, 0.05)


def planted(priors: tuple[float, ...], cases: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels with a prior, and for each case the log-likelihoods ``(n, classes)`` of its appearance."""
    random = np.random.default_rng(7)
    labels = random.choice(len(priors), size=cases, p=priors)
    centres = random.normal(size=(len(priors), 3)) * 1.5
    seen = centres[labels] + random.normal(size=(cases, 3))
    return labels, -0.5 * ((seen[:, None, :] - centres) ** 2).sum(axis=2)


@pytest.mark.parametrize("priors", [BINARY, SEVEN], ids=["two classes", "seven classes"])
@pytest.mark.parametrize("method", [Imbalance.SAMPLER, Imbalance.LOGIT_ADJUSTMENT])
def test_the_correction_gives_the_posterior_of_the_planted_prior(
    priors: tuple[float, ...], method: Imbalance
) -> None:
    labels, likelihoods = planted(priors, 2000)
    # What these methods aim at: answers as if every class were equally frequent.
    balanced = likelihoods[:, 1:] - likelihoods[:, :1] if len(priors) == 2 else likelihoods
    balance = ClassBalance(method, priors)
    corrected = balanced + np.asarray(balance.natural_shift)
    truth = special.softmax(likelihoods + np.log(priors), axis=1)
    found = special.softmax(class_logits(torch.from_numpy(corrected)).numpy(), axis=1)
    np.testing.assert_allclose(found, truth, atol=1e-12)
    assert (
        validate(balanced, labels, balance).log_loss
        < validate(balanced, labels, ClassBalance(Imbalance.NONE, priors)).log_loss
    )


def test_a_network_trained_with_logit_adjustment_answers_with_equal_priors_until_it_is_corrected() -> None:
    labels, _ = planted(BINARY, 4000)
    balance = ClassBalance.of(Imbalance.LOGIT_ADJUSTMENT, labels, 2)

    def loss(constant: float) -> float:
        outputs = torch.full((len(labels), 1), constant, dtype=torch.float64)
        return float(balance.loss(outputs, torch.from_numpy(labels)))

    constant = optimize.minimize_scalar(loss, bounds=(-9, 9), method="bounded").x
    assert special.expit(constant) == pytest.approx(0.5, abs=1e-3)
    assert special.expit(constant + balance.natural_shift[0]) == pytest.approx(labels.mean(), abs=1e-3)


def test_the_sampler_shows_every_class_equally_often_and_the_others_show_each_case_once() -> None:
    labels, _ = planted(SEVEN, 7000)
    shown = ClassBalance.of(Imbalance.SAMPLER, labels, 7).order(labels, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(labels[shown]) / 7000, 1 / 7, atol=0.02)
    plain = ClassBalance.of(Imbalance.WEIGHTED, labels, 7).order(labels, np.random.default_rng(0))
    assert sorted(plain.tolist()) == list(range(7000))


def test_one_output_and_two_outputs_have_the_same_loss_by_every_method() -> None:
    logits = torch.tensor([[0.3], [-1.2], [2.0]])
    labels = torch.tensor([1, 0, 0])
    for method in Imbalance:
        balance = ClassBalance(method, BINARY)
        both = torch.cat([torch.zeros_like(logits), logits], dim=1)
        assert torch.equal(balance.loss(logits, labels), balance.loss(both, labels))
    plain = ClassBalance(Imbalance.NONE, BINARY).loss(logits, labels)
    torch.testing.assert_close(
        plain, functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    )


def test_weights_make_every_class_count_the_same() -> None:
    labels = torch.tensor([0] * 9 + [1])
    outputs = torch.zeros((10, 1), requires_grad=True)
    ClassBalance(Imbalance.WEIGHTED, BINARY).loss(outputs, labels).backward()
    assert outputs.grad is not None
    assert float(outputs.grad[:9].sum()) == pytest.approx(-float(outputs.grad[9:].sum()))


def test_focal_loss_hardly_counts_what_is_easy() -> None:
    labels = torch.tensor([1])
    focal, plain = (ClassBalance(method, BINARY) for method in (Imbalance.FOCAL, Imbalance.NONE))
    easy, hard = torch.tensor([[4.0]]), torch.tensor([[-1.0]])
    easy_share = float(focal.loss(easy, labels) / plain.loss(easy, labels))
    hard_share = float(focal.loss(hard, labels) / plain.loss(hard, labels))
    assert easy_share < 0.001
    assert hard_share > 0.5


def test_weights_and_focal_loss_are_left_as_they_are() -> None:
    assert ClassBalance(Imbalance.WEIGHTED, BINARY).natural_shift == (0.0,)
    assert ClassBalance(Imbalance.FOCAL, SEVEN).natural_shift == (0.0,) * 7


def test_a_class_without_a_training_case_is_refused() -> None:
    with pytest.raises(TrainingError, match="no case of class 2"):
        ClassBalance.of(Imbalance.NONE, np.array([0, 1, 1]), 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_validation_scores_are_those_of_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, classes, 200)
    outputs = random.normal(size=(200, 1 if classes == 2 else classes))
    outputs[np.arange(200), labels % outputs.shape[1]] += 1.0
    scores = validate(outputs, labels, ClassBalance(Imbalance.NONE, (1 / classes,) * classes))
    chances = special.softmax(class_logits(torch.from_numpy(outputs)).numpy(), axis=1)
    assert scores.log_loss == pytest.approx(log_loss(labels, chances), abs=1e-12)
    expected = roc_auc_score(
        labels, chances[:, 1] if classes == 2 else chances, multi_class="ovr", average="macro"
    )
    assert scores.auc == pytest.approx(expected, abs=1e-12)


def test_without_cases_of_a_class_there_is_no_auc() -> None:
    scores = validate(np.zeros((3, 1)), np.zeros(3, dtype=np.int64), ClassBalance(Imbalance.NONE, BINARY))
    assert scores.auc is None
    assert scores.log_loss == pytest.approx(np.log(2))

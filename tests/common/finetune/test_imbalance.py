"""Remedies for rare classes are the published formulas, and counts add over sites."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from common.config.run import RunConfig
from common.finetune.imbalance import Balance, ClassCounts, class_weights
from common.task import HAM10000
from tests.examples import examples
from tests.records import SHARES, draw_records, partitions, total

Y = draw_records(300, 1)[1]
COUNTS = np.bincount(Y, minlength=7)

counts_of_classes = st.lists(st.integers(0, 10_000), min_size=7, max_size=7).map(np.array)
strengths = st.floats(0, 2)


def _balance(kind: str, counts: np.ndarray = COUNTS, **changes: object) -> Balance:
    config = RunConfig.read({"method": "finetune", "imbalance": kind, "smoothing": 0.0, **changes})
    return Balance.from_counts(config, counts)


def _batch(n: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(SHARES), n, True, generator=generator)
    return 3 * torch.randn(n, 7, generator=generator), labels


@given(sites=partitions(Y))
def test_counts_of_any_partition_add_up(sites):
    parts = [ClassCounts.measure(Y[site], HAM10000.n_classes) for site in sites]
    np.testing.assert_array_equal(
        total([ClassCounts.zero(HAM10000.n_classes), *parts]).images, COUNTS
    )
    assert all(
        ClassCounts.zero(HAM10000.n_classes).from_record(part.to_record()).images is not None
        for part in parts
    )


@given(counts=counts_of_classes, strength=strengths)
def test_class_weights_have_mean_one_over_images(counts, strength):
    weights = class_weights(counts, strength)
    assert np.isfinite(weights).all()
    assert (weights[counts == 0] == 0).all()
    if counts.any():
        assert weights @ counts == pytest.approx(counts.sum())
    # Relative weights are powers of the counts.
    present = np.flatnonzero(counts)
    ratios = weights[present] * counts[present].astype(float) ** strength
    np.testing.assert_allclose(ratios, ratios[:1].repeat(len(present)), rtol=1e-9)


def test_at_full_strength_they_are_the_balanced_weights_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(7), y=Y)
    np.testing.assert_allclose(class_weights(COUNTS, 1.0), expected)
    np.testing.assert_array_equal(class_weights(COUNTS, 0.0), np.ones(7))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_plain_loss_is_the_summed_cross_entropy(smoothing):
    logits, labels = _batch()
    found = _balance("none", smoothing=smoothing).loss(logits, labels)
    log_p = logits - torch.logsumexp(logits, 1, keepdim=True)
    target = (1 - smoothing) * functional.one_hot(labels, 7) + smoothing / 7
    torch.testing.assert_close(found, -(target * log_p).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_are_those_of_the_true_class(smoothing):
    logits, labels = _batch()
    balance = _balance("weights", imbalance_strength=0.5, smoothing=smoothing)
    expected = sum(
        class_weights(COUNTS, 0.5)[label]
        * functional.cross_entropy(row, label, label_smoothing=smoothing).item()
        for row, label in zip(logits, labels, strict=True)
    )
    assert balance.loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)
    assert (balance.draws == 1).all()


def test_the_focal_loss_is_lin_et_als_equation_4():
    logits, labels = _batch()
    own = logits.softmax(1)[torch.arange(len(labels)), labels]
    for gamma in (0.5, 2.0):
        expected = -((1 - own) ** gamma * own.log()).sum()
        found = _balance("focal", focal_gamma=gamma).loss(logits, labels)
        torch.testing.assert_close(found, expected)
    plain = _balance("none").loss(logits, labels)
    assert torch.equal(_balance("focal", focal_gamma=0.0).loss(logits, labels), plain)


def test_logits_are_adjusted_by_the_log_priors():
    logits, labels = _batch()
    priors = (COUNTS + 1) / (COUNTS + 1).sum()
    tau = 0.7
    balance = _balance("logits", imbalance_strength=tau)
    # Menon et al., equation 10: the cross-entropy of softmax(f(x) + tau log pi).
    scaled = logits.double().exp() * torch.tensor(priors**tau)
    own = scaled[torch.arange(len(labels)), labels] / scaled.sum(1)
    assert balance.loss(logits, labels).item() == pytest.approx(-own.log().sum().item(), rel=1e-5)
    assert _balance("logits", imbalance_strength=0.0).loss(logits, labels).item() == pytest.approx(
        _balance("none").loss(logits, labels).item()
    )


@pytest.mark.parametrize("kind", ["none", "weights", "oversample", "focal", "logits"])
@examples(15)
@given(counts=counts_of_classes, seed=st.integers(0, 99))
def test_every_loss_is_finite_differentiable_and_adds_over_images(kind, counts, seed):
    logits, labels = _batch(8, seed)
    logits *= 20
    balance = _balance(kind, counts, smoothing=0.05)
    whole = balance.loss(logits.requires_grad_(), labels)
    parts = sum(balance.loss(logits[i : i + 3], labels[i : i + 3]) for i in range(0, 8, 3))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
    assert whole >= 0
    [gradient] = torch.autograd.grad(whole, logits)
    assert gradient.isfinite().all()


def test_a_certain_and_right_answer_has_no_gradient_that_is_not_a_number():
    logits = torch.full((1, 7), -200.0)
    logits[0, 3] = 200.0
    for gamma in (0.5, 1.0, 2.0):
        balance = _balance("focal", focal_gamma=gamma)
        loss = balance.loss(logits.requires_grad_(), torch.tensor([3]))
        [gradient] = torch.autograd.grad(loss, logits)
        assert loss == 0
        assert gradient.isfinite().all(), gamma


def test_draws_even_out_the_classes():
    balance = _balance("oversample", imbalance_strength=1.0)
    # Every class is drawn as often, all together as often as there are images.
    np.testing.assert_allclose(balance.draws * COUNTS, np.full(7, len(Y) / 7))
    logits, labels = _batch()
    assert torch.equal(balance.loss(logits, labels), _balance("none").loss(logits, labels))

"""Calibration is what loops over the examples make of it, and scikit-learn's; what are no probabilities is refused."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss

import fnn
from fnn import errors

RNG = np.random.default_rng(0)
P, Y, W = RNG.dirichlet(np.ones(3), 60), RNG.integers(0, 3, 60), RNG.integers(0, 3, 60).astype(float)
ONE, BITS = RNG.random(60), RNG.integers(0, 2, 60)


def by_loops(p, y, bins, w):
    """`(share, confidence, accuracy)` of each bin, by a loop."""
    rows = []
    for b in range(bins):
        inside = [n for n in range(len(p)) if b / bins < p[n].max() <= (b + 1) / bins and w[n] > 0]
        mass = sum(w[n] for n in inside)
        mean = lambda v: sum(w[n] * v(n) for n in inside) / mass if inside else math.nan  # noqa: B023
        rows.append((mass / w.sum(), mean(lambda n: p[n].max()), mean(lambda n: p[n].argmax() == y[n])))
    return np.array(rows).T


@pytest.mark.parametrize("weights", [None, W], ids=["equal", "weighted"])
def test_reliability_is_that_of_a_loop(weights):
    found = fnn.reliability(P, Y, 7, weights)
    share, confidence, accuracy = wanted = by_loops(P, Y, 7, np.ones(60) if weights is None else weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    error = np.nansum(share * abs(accuracy - confidence))
    assert fnn.expected_calibration_error(P, Y, 7, weights) == pytest.approx(error, rel=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    found = fnn.reliability(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), 2)
    assert found.share.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("weights", [None, W], ids=["equal", "weighted"])
def test_the_likelihood_is_that_of_scikit_learn(weights):
    found = fnn.negative_log_likelihood(P, Y, weights)
    assert found == pytest.approx(log_loss(Y, P, sample_weight=weights, labels=[0, 1, 2]), rel=1e-12)


def test_the_likelihood_is_the_cost_on_logits():
    z, loss = RNG.normal(size=(60, 3)), fnn.SoftmaxCrossEntropy()
    assert fnn.negative_log_likelihood(loss.predict(z), Y) == pytest.approx(loss.value(z, Y).mean(), rel=1e-12)


@pytest.mark.parametrize("column", [ONE, ONE[:, None]], ids=["(N,)", "(N, 1)"])
def test_one_probability_is_that_of_class_1(column):
    both, y = np.column_stack([1 - ONE, ONE]), BITS.reshape(column.shape)
    for metric in (fnn.negative_log_likelihood, fnn.expected_calibration_error):
        assert metric(column, y) == pytest.approx(metric(both, BITS), rel=1e-12)


def test_positions_are_examples_and_ignored_labels_are_none():
    p, y = P.reshape(20, 3, 3), np.where(np.arange(60) % 4 == 0, -1, Y).reshape(20, 3)
    kept = y.ravel() >= 0
    for metric in (fnn.negative_log_likelihood, fnn.expected_calibration_error):
        assert metric(p, y, ignored=-1) == pytest.approx(metric(P[kept], Y[kept]), rel=1e-12)


def test_wrong_certainty_is_infinitely_unlikely_and_nan_stays_nan():
    assert fnn.negative_log_likelihood(np.eye(2), np.array([0, 0])) == math.inf
    assert fnn.negative_log_likelihood(np.eye(2), np.array([0, 0]), np.array([1.0, 0.0])) == 0
    nan = np.array([[np.nan, np.nan], [0.5, 0.5]])
    for metric in (fnn.negative_log_likelihood, fnn.expected_calibration_error):
        assert math.isnan(metric(nan, np.array([0, 1])))


def test_compiled_metrics_are_the_same_and_nan_of_logits(needs_jax):
    metrics = fnn.negative_log_likelihood, fnn.expected_calibration_error
    run = needs_jax.jit(lambda p, y: [metric(p, y) for metric in metrics])
    p = P.astype(np.float32)
    np.testing.assert_allclose(run(p, Y), [metric(p, Y) for metric in metrics], rtol=1e-5)
    assert np.isnan(run(5 * p, Y)).all()


REFUSED = {
    "expected probabilities that sum to 1": lambda: fnn.expected_calibration_error(3 * P, Y),
    "(of logits give loss.predict(logits))": lambda: fnn.negative_log_likelihood(P - 0.1, Y),
    "expected probabilities, got dtype int": lambda: fnn.reliability(Y, Y),
    "target: expected 0 and 1 beside one probability, got -1": lambda: fnn.reliability(ONE, 2 * BITS - 1),
    "bins: expected an integer of at least 1": lambda: fnn.reliability(P, Y, 0),
    "labels from 0 to 2": lambda: fnn.negative_log_likelihood(P, Y + 1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_probability_is_refused(message):
    with pytest.raises(errors.FnnError) as error:
        REFUSED[message]()
    assert message in str(error.value)

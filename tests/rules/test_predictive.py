"""Predictive coding is backpropagation in its exact form, and to first order where errors are small."""

import numpy as np
import pytest
from helpers_training import distance, rule_case, rule_output, same

import fnn
from fnn import rules, trees

D = fnn.Dense
NET = fnn.Serial((fnn.Scale(0.5), fnn.mlp((5, 4, 4, 3), fnn.Tanh())))


@pytest.mark.parametrize("net", [NET, fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Relu(), fnn.Flatten(), fnn.mlp((4, 3))))])
def test_exact_predictive_coding_is_backpropagation_with_a_step_for_each_stage(net):
    """To rounding, 1e-12: with γ = 1 each step passes the error through one more stage."""
    own, params, batch, wanted = rule_case(net, (6,) if net is NET else (3, 3, 1))
    stages = len(rules.chain.maps(params))
    for steps in (stages - 1, stages + 3):
        same(rule_output(rules.PredictiveCoding(1.0, steps, True), own, params, batch).grads, wanted, 1e-12)
    lowest = rule_output(rules.PredictiveCoding(1.0, stages - 2, True), own, params, batch).grads
    assert not trees.leaves(lowest)[0].any(), "the error has not arrived"


def test_predictive_coding_with_small_errors_is_backpropagation_to_first_order():
    """With a cost of weight β beside them all errors are O(β), and the gradients differ by O(β) of their size."""
    own, params, batch, wanted = rule_case(NET, (6,))
    of = lambda nudge: rule_output(rules.PredictiveCoding(0.3, 150, nudge=nudge), own, params, batch).grads
    far, near = distance(of(2e-3), wanted), distance(of(1e-3), wanted)
    assert near < 0.02
    assert far / near == pytest.approx(2, rel=0.05), "half the difference for half the weight"


def test_values_of_predictive_coding_move_against_the_gradient_of_their_energy():
    """One step, written a second time: with γ = 1 the last hidden values are μ − δ W, and the error is as they say."""
    net = fnn.mlp((4, 3), fnn.Tanh())
    own, params, batch, _ = rule_case(net, (5,))
    grads = rule_output(rules.PredictiveCoding(0.25, 1, nudge=0.5), own, params, batch).grads
    (w1, b1), _, (w2, b2) = params
    mu = np.tanh(batch.x @ w1.T + b1)
    x = mu - 0.25 * 0.5 * (mu @ w2.T + b2 - batch.y) @ w2
    share = (batch.weights / batch.weights.sum())[:, None] / 0.5
    top = 0.5 * (x @ w2.T + b2 - batch.y) * share
    below = (mu - x) * (1 - mu**2) * share
    same(grads[2], fnn.DenseParams(top.T @ x, top.sum(axis=0)), 1e-13)
    same(grads[0], fnn.DenseParams(below.T @ batch.x, below.sum(axis=0)), 1e-13)


def test_the_values_settle_below_the_rate_that_their_curvature_allows():
    """In a linear net F is quadratic: steps of γ < 2/λ settle, where its largest curvature λ is at most (1 + s)²."""
    own, params, batch, _ = rule_case(fnn.Serial((D(5), D(4), D(3))), (6,))
    params = trees.map(lambda p: 3 * p, params)
    w2, w3 = params[1].w, params[2].w
    of_values = np.block([[np.eye(5) + w2.T @ w2, -w2.T], [-w2, np.eye(4) + w3.T @ w3]])
    largest = np.linalg.eigvalsh(of_values)[-1]
    assert largest <= (1 + max(np.linalg.norm(w, 2) for w in (w2, w3))) ** 2
    of = lambda share, steps: rule_output(rules.PredictiveCoding(share / largest, steps), own, params, batch).grads
    settled = of(1, 3000)
    assert distance(of(1.9, 1000), settled) < 1e-3
    assert distance(of(2.1, 1000), settled) > 1e6

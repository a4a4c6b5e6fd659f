"""Forward gradients are the gradient in the mean over directions."""

import numpy as np
import pytest
from helpers import key
from helpers_training import rule_case, rule_output, same

import fnn
from fnn import rules, trees

D = fnn.Dense
NET = fnn.Serial((fnn.Scale(0.5), fnn.mlp((5, 4, 4, 3), fnn.Tanh())))


SLOPED = fnn.Serial((D(3), fnn.PRelu(), D(2)))


def units(shapes):
    """For each entry of arrays of these shapes but their examples: 1 there, in all examples, and 0 elsewhere."""
    for place, shape in enumerate(shapes):
        for i in np.ndindex(shape):
            yield [np.eye(1, np.prod(s), np.ravel_multi_index(i, s)).reshape(s) if k == place else np.zeros(s)
                   for k, s in enumerate(shapes)]  # fmt: skip


@pytest.mark.parametrize("by", ["activities", "weights"])
def test_the_sum_of_forward_gradients_over_orthogonal_directions_is_the_gradient(by, monkeypatch):
    """To rounding, 1e-12: Σ v vᵀ is the identity, which is also the mean of v vᵀ for standard normal v."""
    own, params, batch, wanted = rule_case(SLOPED, (2,))
    shapes = [leaf.shape for leaf in trees.leaves(params)] if by == "weights" else [(3,), (3,)]
    total, last = trees.map(np.zeros_like, params), None
    for direction in units(shapes):
        rest = iter(direction)
        monkeypatch.setattr(
            fnn.random, "normal", lambda key, shape, dtype, rest=rest: np.broadcast_to(next(rest), shape)
        )
        last = rule_output(rules.ForwardGradient(by), own, params, batch).grads
        total = trees.map(np.add, total, last)
    if by == "activities":  # the last map has its own error, each time
        same(last[2], wanted[2], 1e-12)
        total, wanted = total[:2], wanted[:2]
    same(total, wanted, 1e-12)


@pytest.mark.parametrize("by", ["activities", "weights"])
def test_the_mean_of_forward_gradients_over_drawn_directions_is_the_gradient(by):
    """Over 400 draws: each entry within 5 standard errors."""
    own, params, batch, wanted = rule_case(SLOPED, (2,))
    flat = lambda tree: np.concatenate([leaf.ravel() for leaf in trees.leaves(tree)])
    rule = rules.ForwardGradient(by)
    draws = np.stack([flat(rule_output(rule, own, params, batch, seed=seed).grads) for seed in range(400)])
    error = abs(draws.mean(axis=0) - flat(wanted))
    assert (error <= 5 * draws.std(axis=0) / np.sqrt(len(draws)) + 1e-12).all()
    assert draws.std(axis=0)[:6].min() > 0, "it draws"


@pytest.mark.parametrize("by", ["activities", "weights"])
def test_a_network_that_learns_nothing_has_no_forward_gradient(by):
    own, params, batch, _ = rule_case(fnn.Serial((fnn.Scale(2.0), fnn.Frozen(D(3)))), (4,))
    found = rule_output(rules.ForwardGradient(by), own, params, batch)
    assert found.value > 0
    assert not any(g.any() for g in fnn.trees.leaves(found.grads))


def test_the_last_map_of_a_forward_gradient_by_activities_is_exact():
    own, params, batch, wanted = rule_case(NET, (6,))
    same(rule_output(rules.ForwardGradient(), own, params, batch).grads[1][-1], wanted[1][-1], 1e-13)


def test_a_forward_gradient_by_weights_is_along_its_direction_and_leaves_the_frozen_alone():
    net = fnn.Serial((fnn.Frozen(D(4)), D(3)))
    own, params, batch, wanted = rule_case(net, (5,))
    grads = rule_output(rules.ForwardGradient("weights"), own, params, batch).grads
    assert not any(leaf.any() for leaf in trees.leaves(grads[0]))
    flat = lambda p: np.concatenate([p.w.ravel(), p.b])
    g, exact = flat(grads[1]), flat(wanted[1])
    v = np.concatenate([fnn.random.normal(fnn.random.fold_in(key(seed=1), i), a.shape, np.float64).ravel()
                        for i, a in enumerate(grads[1])])  # fmt: skip
    np.testing.assert_allclose(g, (exact @ v) * v, rtol=1e-10)

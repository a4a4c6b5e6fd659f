"""Equilibrium propagation is the gradient at the free minimum as the nudge goes to 0."""

import numpy as np
import pytest
from helpers import key
from helpers_training import distance, rule_case, rule_output, same

import fnn
from fnn import rules, trees

D = fnn.Dense


SETTLING = fnn.Serial((fnn.Hopfield((D(5), fnn.Tanh(), D(4), fnn.Tanh()), steps=80), D(3)))


def test_equilibrium_propagation_is_the_gradient_at_the_free_minimum_as_the_nudge_goes_to_0():
    """What remains is of order β², with both nudges: a quarter for half the nudge."""
    own, params, batch, _ = rule_case(SETTLING, (6,))
    params = trees.map(lambda p: 0.6 * p, params)
    wanted = fnn.backpropagation.differentiate(own, params, batch)[1]
    of = lambda nudge: rule_output(rules.EquilibriumPropagation(nudge, steps=80), own, params, batch).grads
    far, near = (distance(of(nudge), wanted) for nudge in (0.1, 0.05))
    assert near < 1e-2
    assert far / near == pytest.approx(4, rel=0.05)
    same(of(0.1)[1], wanted[1], 1e-12)


def test_integers_are_settled_on_where_nothing_is_promoted(needs_jax):
    jax, net = fnn.backend.jax, fnn.Hopfield((D(3), fnn.Tanh(), D(2), fnn.Tanh()), steps=2)
    own, rule = rules.Problem(net, fnn.SoftmaxCrossEntropy()), rules.EquilibriumPropagation(steps=2)

    def value(x, y, k):
        batch = rules.Batch(x, y, None, 4)
        return rule.gradient(own, net.init(k, (2,)), (), batch, rules.Keys(None, None)).value

    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(value, np.ones((4, 2), np.uint8), np.zeros(4, np.int32), key("jax")).shape == ()

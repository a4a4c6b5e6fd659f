"""Angles between gradients are what geometry says, for each layer that learns, and travel with a run."""

import numpy as np
import pytest
from helpers import blobs, key
from helpers_training import rule_case, same

import fnn
from fnn import errors, rules
from fnn.rules import alignment

D = fnn.Dense


def between(g, h):
    """The angle between two arrays, as gradients of a layer without biases."""
    g, h = (fnn.DenseParams(np.asarray(a, np.float64)[None], ()) for a in (g, h))
    return float(alignment(D(1, bias=False), g, h)["angle_"])


ANGLES = {
    "the same": ([1, 2], [2, 4], 0),
    "right": ([1, 0], [0, 3], 90),
    "opposite": ([1, 1], [-2, -2], 180),
    "thirty": ([1, 0], [np.sqrt(3), 1], 30),
    "tiny": ([1, 0], [1, 1e-7], np.degrees(1e-7)),
    "one is 0": ([0, 0], [1, 0], 90),
    "huge and subnormal": ([1e300, 1e300], [1e-310, 0], 45),
}


@pytest.mark.parametrize("name", ANGLES)
def test_an_angle_is_exact_whatever_the_lengths(name):
    """To 1e-12 degrees, where the arc cosine would lose half the digits of a small one."""
    g, h, wanted = ANGLES[name]
    assert between(g, h) == pytest.approx(wanted, abs=1e-5 if "sub" in name else 1e-12, rel=1e-7)


def test_each_layer_that_learns_has_one_and_no_other():
    net = fnn.Serial((fnn.Frozen(fnn.mlp((4, 4))), fnn.Residual(fnn.Serial((D(4), fnn.Tanh()))), fnn.PRelu(), D(3)))
    grads = net.init(key(), (5,), np.float64)
    assert list(alignment(net, grads, grads)) == ["angle_1.0.0", "angle_2", "angle_3"]


def test_a_frozen_network_has_no_angle_and_two_layers_without_gradient_agree():
    net = fnn.mlp((4, 3))
    grads = net.init(key(), (5,), np.float64)
    assert alignment(fnn.Frozen(net), *[fnn.Frozen(net).init(key(), (5,))] * 2) == {}
    nothing = fnn.trees.map(lambda g: 0 * g, grads)
    assert alignment(net, nothing, nothing) == {"angle_0": 0, "angle_2": 0}
    with pytest.raises(errors.ShapeError, match=r"theirs"):
        alignment(net, grads, net.init(key(), (6,)))
    with pytest.raises(errors.KindError, match="expected a floating-point array"):
        alignment(D(1, bias=False), *[fnn.DenseParams([[1.0]], ())] * 2)


def test_a_rule_with_its_angles_is_the_rule():
    data, net, loss = blobs(), fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy()
    rule, how = rules.FeedbackAlignment(2.0), {"key": key(), "epochs": 3, "batch_size": 10, "penalty": fnn.L2(0.1)}
    plain, _ = fnn.fit(net, loss, fnn.Sgd(0.1), data, rule=rule, **how)
    state, history = fnn.fit(net, loss, fnn.Sgd(0.1), data, rule=rules.Aligned(rule), **how)
    same(state.params, plain.params, 1e-6)
    assert history["angle_0"].shape == (3,)
    assert 5 < history["angle_0"].min() < 90
    assert history["angle_2"].max() < 1e-3, "the last layer's gradient is that of backpropagation"


def test_what_a_rule_declares_holds_with_its_angles():
    rule = rules.Aligned(rules.Private(1.0, 1.0))
    assert (rule.sampling, rule.weighted, rule.private, rule.draws) == ("poisson", False, True, True)
    rule = rules.Aligned(rules.SignSymmetry())
    assert (rule.sampling, rule.weighted, rule.private, rule.draws) == ("shuffled", True, False, False)
    assert (rule.of_cost, rule.overflows) == (False, False)
    assert (rules.Aligned(rules.Backprop()).of_cost, rules.Aligned(rules.LossScale()).overflows) == (True, True)


@pytest.mark.parametrize("inner", [rules.FeedbackAlignment, None, "backprop"])
def test_only_a_rule_has_angles(inner):
    with pytest.raises(errors.KindError, match=r"Aligned\.rule: expected a (rule, got the class|NamedTuple with)"):
        fnn.init_state(fnn.mlp((8, 3)), fnn.Sgd(0.1), key(), (5,), rule=rules.Aligned(inner))


NESTED = fnn.Serial((fnn.Serial((D(8), fnn.Tanh(), fnn.Dropout(0.5))), fnn.Serial((D(6), fnn.Dropout(0.5), D(3)))))


@pytest.mark.parametrize(
    "rule",
    [
        rules.PredictiveCoding(1.0, 3, exact=True),
        rules.PredictiveCoding(0.1, 60, nudge=1e-5),
        rules.TargetPropagation(noise=0.0),
        rules.ForwardGradient(),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_the_noise_of_layers_is_that_of_backpropagation_in_nested_networks_too(rule):
    """The last layer's error is given, so its angle is 0 (to 0.01 degrees) if what it sees is the same."""
    own, params, batch, _ = rule_case(NESTED, (5,))
    state = rule.init(own._replace(input_shape=(5,)), params, key())
    keys = rules.Keys(key(seed=3), key(seed=1))
    angles = rules.Aligned(rule).gradient(own, params, state, batch, keys).metrics
    assert angles["angle_1.2"] < 0.01
    assert not isinstance(rule, rules.PredictiveCoding) or max(angles.values()) < 10

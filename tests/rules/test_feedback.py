"""Feedback by other matrices: where theory says that it is backpropagation it is, and only matrices are replaced."""

import numpy as np
import pytest
from helpers import key, moved, problem
from helpers_training import rule_case, rule_output, same

import fnn
from fnn import errors, rules, trees
from fnn.rules.chain import maps, with_matrices

D = fnn.Dense
NET = fnn.Serial((D(5), fnn.PRelu(), fnn.Serial((D(4), fnn.LayerNorm(), fnn.Tanh())), D(3)))
IMAGES = fnn.Serial((fnn.Conv(3, (2, 2)), fnn.Tanh(), fnn.Conv(2, (2, 2)), fnn.Flatten(), D(3)))
NETS = {"mlp": (NET, (6,)), "images": (IMAGES, (4, 4, 1))}


def case(name):
    return rule_case(*NETS[name])


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_feedback_by_the_weights_themselves_is_backpropagation(name):
    """To the bit: the same products in the same order."""
    own, params, batch, wanted = case(name)
    state = tuple(p.w for p in maps(params))
    same(rule_output(rules.FeedbackAlignment(), own, params, batch, state).grads, wanted)


def test_direct_feedback_of_a_linear_network_by_the_products_of_its_matrices_is_backpropagation():
    """To rounding in float64, 1e-13: (e W₃) W₂ = e (W₃ W₂)."""
    net = fnn.Serial((D(5), fnn.Scale(0.5), D(4), D(3)))
    own, params, batch, wanted = rule_case(net, (6,))
    w = [p.w for p in maps(params)]
    state = (w[2] @ w[1], w[2])
    same(rule_output(rules.DirectFeedbackAlignment(), own, params, batch, state).grads, wanted, 1e-13)


@pytest.mark.parametrize("name", NETS)
def test_the_last_map_has_its_error_whatever_the_feedback(name):
    own, params, batch, wanted = case(name)
    for rule in (rules.FeedbackAlignment(), rules.DirectFeedbackAlignment(), rules.SignSymmetry()):
        state = rule.init(own, params, key(seed=3))
        grads = rule_output(rule, own, params, batch, state).grads
        same(grads[-1], wanted[-1], 1e-13)
        assert not np.allclose(grads[0].w, wanted[0].w, rtol=0.1)


def test_signs_of_weights_that_all_have_one_magnitude_are_the_weights():
    """Where |W| = scale / √I the two are equal to rounding."""
    own, params, batch, _ = case("mlp")
    sizes = [np.sign(p.w) * 0.7 / np.sqrt(p.w.shape[1]) for p in maps(params)]
    params = with_matrices(params, sizes)
    wanted = fnn.backpropagation.differentiate(own, params, batch)[1]
    same(rule_output(rules.SignSymmetry(0.7), own, params, batch).grads, wanted, 1e-13)


def test_kolen_and_pollacks_matrices_become_the_weights():
    """B − W is (1 − λ)^t of the first, so after 200 steps of λ = 0.2 (4e-20) it is backpropagation to rounding."""
    own, params, batch, wanted = case("mlp")
    rule = rules.KolenPollack(0.2)
    state = rule.init(own, params, key())
    angles = []
    for t in range(200):
        grads, state = rule_output(rule, own, params, batch, state)[1:3]
        angles += [float(rules.alignment(NET, grads, wanted)["angle_0"])] if t % 10 == 0 else []
    same(rule_output(rule, own, params, batch, state).grads, wanted, 1e-13)
    assert angles[0] > 20
    assert (np.diff(angles) <= 1e-6).all(), "ever closer"


def test_kolen_and_pollacks_rule_is_two_sets_of_weights_with_equal_steps_and_equal_decay():
    """Written a second time with B and W apart: W ← W − η (g + c W), B ← B − η (g + c B), and λ = η c."""
    net, loss, params, x, y, _ = problem(fnn.mlp((4, 3), fnn.Tanh()), None, (5,), dtype=np.float64)
    rate, decay = 0.1, 0.3
    rule, penalty = rules.KolenPollack(rate * decay), fnn.L2(decay)
    state = fnn.init_state(net, fnn.Sgd(rate), key(), (5,), params=params, rule=rule)
    feedback = [p.w + apart for p, apart in zip(maps(params), state.rule_state, strict=True)]
    after, _ = fnn.train(net, loss, state, (x, y), steps=30, batch_size=len(x), penalty=penalty, shuffle=False)
    for _ in range(30):
        (w1, b1), _, (w2, b2) = params
        a = np.tanh(x @ w1.T + b1)
        e = (a @ w2.T + b2 - y) / len(x)
        d = e @ feedback[1] * (1 - a**2)
        steps = d.T @ x, e.T @ a
        feedback = [b - rate * (g + decay * b) for b, g in zip(feedback, steps, strict=True)]
        first = fnn.DenseParams(w1 - rate * (steps[0] + decay * w1), b1 - rate * d.sum(axis=0))
        params = first, (), fnn.DenseParams(w2 - rate * (steps[1] + decay * w2), b2 - rate * e.sum(axis=0))
    same(after.params, params, 1e-12)
    same(after.rule_state, tuple(b - p.w for b, p in zip(feedback, maps(params), strict=True)), 1e-12)


# ---- what is replaced ------------------------------------------------------------------------------------------------


def test_only_matrices_of_linear_maps_are_replaced():
    rest = fnn.Serial(
        (fnn.Embedding(5, 4), fnn.Rnn(3, all_states=True), fnn.LayerNorm(), fnn.PRelu(), fnn.Frozen(D(2)))
    )
    params = moved(rest, (6,))
    replaced = with_matrices(params, [np.zeros((2, 3))])
    assert [a is b for a, b in zip(trees.leaves(params), trees.leaves(replaced), strict=True)].count(False) == 1
    assert not replaced[4].params.w.any()
    assert replaced[4].params.b is params[4].params.b


def test_direct_feedback_stands_in_for_the_matrix_above_and_what_is_between_is_propagated():
    """Written a second time: dx of layer k is e B, then back through the layer norm and the activations."""
    own, params, batch, _ = case("mlp")
    rule = rules.DirectFeedbackAlignment()
    state = rule.init(own, params, key())
    assert [b.shape for b in state] == [(3, 5), (3, 4)]
    grads = rule_output(rule, own, params, batch, state).grads
    prediction, kept = NET.forward(params, batch.x)
    error = (prediction - batch.y) * (batch.weights / batch.weights.sum())[:, None]
    _, (normal, tanh) = NET.layers[2].layers[0], NET.layers[2].layers[1:]
    at_norm = tanh.backward((), kept[2][2], error @ state[1])
    at_map = normal.backward(params[2][1], kept[2][1], at_norm)
    same(grads[2][0], D(4).gradient(params[2][0], kept[2][0], at_map), 1e-13)
    same(grads[2][1], normal.gradient(params[2][1], kept[2][1], at_norm), 1e-13)
    at_slope = error @ state[0]
    same(grads[1], NET.layers[1].gradient(params[1], kept[1], at_slope), 1e-13)


def test_direct_feedback_knows_images_and_blocks():
    net = fnn.Serial(
        (fnn.Conv(2, (2, 2)), fnn.Relu(), fnn.Residual(fnn.Conv(2, (3, 3), padding="same")), fnn.Flatten(), D(3))
    )
    own, params, batch, wanted = rule_case(net, (4, 4, 1))
    rule = rules.DirectFeedbackAlignment()
    state = rule.init(own, params, key())
    assert [b.shape for b in state] == [(3, 3, 3, 2), (3, 18)]
    same(rule_output(rule, own, params, batch, state).grads[4], wanted[4], 1e-13)


def test_direct_feedback_has_the_size_with_which_the_run_began():
    net = fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Relu(), fnn.Conv(2, (1, 1)), fnn.GlobalAvgPool(), D(3)))
    state = fnn.init_state(net, fnn.Sgd(0.1), key(), (2, 2, 1), rule=rules.DirectFeedbackAlignment())
    data = np.ones((4, 3, 3, 1)), np.zeros(4, int)
    with pytest.raises(errors.ShapeError, match=r"shapes \[\(3, 2, 2, 2\), \(3, 2\)\], got \[\(3, 1, 1, 2\), \("):
        fnn.train(net, fnn.SoftmaxCrossEntropy(), state, data, steps=1, batch_size=4)


@pytest.mark.parametrize("rule", [rules.FeedbackAlignment(), rules.KolenPollack(), rules.DirectFeedbackAlignment()])
def test_a_state_that_does_not_fit_is_refused(rule):
    """Set by a user, or that of another rule: of one row and column a matrix would stand in for any."""
    own, params, batch, _ = case("mlp")
    state = rule.init(own, params, key())
    for wrong in ((), state[:-1], tuple(b.T for b in state), tuple(b[:1, :1] for b in state), (state, 0.5 + state[0])):
        with pytest.raises(errors.ShapeError, match=rf"{type(rule).__name__}: expected a state of matrices of shapes"):
            rule_output(rule, own, params, batch, wrong)


def test_feedback_is_drawn_as_weights_are_and_scaled():
    own, params, *_ = rule_case(fnn.mlp((60, 50)), (40,))
    for rule, scale in ((rules.FeedbackAlignment(), 1), (rules.FeedbackAlignment(3.0), 3)):
        first, second = rule.init(own, params, key())
        assert abs(first.std() * np.sqrt(40) / scale - 1) < 0.06, "four standard deviations of 2,400 draws"
        assert abs(second.std() * np.sqrt(60) / scale - 1) < 0.06
        assert abs(np.corrcoef(first.ravel()[:2000], second.ravel()[:2000])[0, 1]) < 0.09


def test_nothing_is_propagated_below_what_learns():
    net = fnn.Serial((fnn.Frozen(D(4)), fnn.Tanh(), D(4), fnn.Tanh(), D(3)))
    own, params, batch, _ = rule_case(net, (5,))
    rule = rules.DirectFeedbackAlignment()
    state = rule.init(own, params, key())
    assert len(state) == 1
    assert not any(leaf.any() for leaf in trees.leaves(rule_output(rule, own, params, batch, state).grads[0]))

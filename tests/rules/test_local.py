"""Rules that look at one stage at a time, in the limits in which theory says that they are backpropagation."""

import numpy as np
import pytest
from helpers import key, moved
from helpers_training import same
from test_feedback import case, gradient

import fnn
from fnn import rules, trees

D = fnn.Dense
NET = fnn.Serial((fnn.Scale(0.5), fnn.mlp((5, 4, 4, 3), fnn.Tanh())))


def distance(ours, theirs):
    """The norm of the difference, over that of the second."""
    pairs = list(zip(trees.leaves(ours), trees.leaves(theirs), strict=True))
    return np.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs))


# ---- predictive coding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [NET, fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Relu(), fnn.Flatten(), fnn.mlp((4, 3))))])
def test_exact_predictive_coding_is_backpropagation_with_a_step_for_each_stage(net):
    """To rounding, 1e-12: with γ = 1 each step passes the error through one more stage."""
    own, params, batch, wanted = case(net=net, shape=(6,) if net is NET else (3, 3, 1))
    stages = len(rules.chain.maps(params))
    for steps in (stages - 1, stages + 3):
        same(gradient(rules.PredictiveCoding(1.0, steps, True), own, params, batch).grads, wanted, 1e-12)
    lowest = gradient(rules.PredictiveCoding(1.0, stages - 2, True), own, params, batch).grads
    assert not trees.leaves(lowest)[0].any(), "the error has not arrived"


def test_predictive_coding_with_small_errors_is_backpropagation_to_first_order():
    """With a cost of weight β beside them all errors are O(β), and the gradients differ by O(β) of their size."""
    own, params, batch, wanted = case(net=NET, shape=(6,))
    of = lambda nudge: gradient(rules.PredictiveCoding(0.3, 150, nudge=nudge), own, params, batch).grads
    far, near = distance(of(2e-3), wanted), distance(of(1e-3), wanted)
    assert near < 0.02
    assert far / near == pytest.approx(2, rel=0.05), "half the difference for half the weight"


def test_values_of_predictive_coding_move_against_the_gradient_of_their_energy():
    """One step, written a second time: with γ = 1 the last hidden values are μ − δ W, and the error is as they say."""
    net = fnn.mlp((4, 3), fnn.Tanh())
    own, params, batch, _ = case(net=net, shape=(5,))
    grads = gradient(rules.PredictiveCoding(0.25, 1, nudge=0.5), own, params, batch).grads
    (w1, b1), _, (w2, b2) = params
    mu = np.tanh(batch.x @ w1.T + b1)
    x = mu - 0.25 * 0.5 * (mu @ w2.T + b2 - batch.y) @ w2
    share = (batch.weights / batch.weights.sum())[:, None] / 0.5
    top = 0.5 * (x @ w2.T + b2 - batch.y) * share
    below = (mu - x) * (1 - mu**2) * share
    same(grads[2], fnn.DenseParams(top.T @ x, top.sum(axis=0)), 1e-13)
    same(grads[0], fnn.DenseParams(below.T @ batch.x, below.sum(axis=0)), 1e-13)


# ---- target propagation ----------------------------------------------------------------------------------------------


def test_target_propagation_through_inverses_that_are_transposes_is_backpropagation():
    """Of orthogonal matrices without activations: gₖ = Wₖᵀ is both. To rounding, 1e-10, as δ is divided by η̂."""
    net = fnn.mlp((4, 4, 4, 3), fnn.Identity())
    own, params, batch, _ = case(net=net, shape=(4,))
    turn = lambda seed: np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    params = rules.chain.with_matrices(params, [turn(0), turn(1), turn(2), params[6].w])
    wanted = fnn.backpropagation.differentiate(own, params, batch)[1]
    backs = tuple((fnn.DenseParams(params[i].w.T, np.zeros(4)), ()) for i in (2, 4))
    rule = rules.TargetPropagation(1e-2)
    output = gradient(rule, own, params, batch, (backs, rule.optimizer.init(backs)))
    same(output.grads, wanted, 1e-10)


def test_target_propagation_corrects_what_its_inverses_get_wrong():
    """Where the target is the output itself, so are all targets below, however bad the inverses are."""
    own, params, batch, _ = case(net=NET, shape=(6,))
    own = own._replace(input_shape=(6,))
    rule = rules.TargetPropagation(0.1)
    state = rule.init(own, params, key())
    settled = batch._replace(y=NET.apply(params, batch.x))
    for grad in trees.leaves(gradient(rule, own, params, settled, state).grads):
        np.testing.assert_allclose(grad, 0, atol=1e-15)


def test_inverses_learn_to_invert():
    """The mean square of gₖ(fₖ(h)) − h falls to less than a fifth, of inverses trained on 200 batches."""
    own, params, batch, _ = case(net=NET, shape=(6,))
    own = own._replace(input_shape=(6,))
    rule = rules.TargetPropagation(0.1, noise=0.05, optimizer=fnn.Momentum(0.1))
    state = rule.init(own, params, key())
    chain = rules.chain.stages(rule, NET, params)
    h = rules.chain.run(chain, batch.x, None)[0]
    nets = rules.targets.inverses(chain)
    wrong = lambda state: [((g.apply(p, h[k + 1]) - h[k]) ** 2).mean() for k, (g, p) in enumerate(zip(nets, state[0]))]  # noqa: B905
    before = wrong(state)
    for t in range(200):
        state = gradient(rule, own, params, batch, state, seed=t).state
    assert all(b < a / 5 for a, b in zip(before, wrong(state), strict=True))


# ---- forward gradients -----------------------------------------------------------------------------------------------


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
    own, params, batch, wanted = case(net=SLOPED, shape=(2,))
    shapes = [leaf.shape for leaf in trees.leaves(params)] if by == "weights" else [(3,), (3,)]
    total, last = trees.map(np.zeros_like, params), None
    for direction in units(shapes):
        rest = iter(direction)
        monkeypatch.setattr(
            fnn.random, "normal", lambda key, shape, dtype, rest=rest: np.broadcast_to(next(rest), shape)
        )
        last = gradient(rules.ForwardGradient(by), own, params, batch).grads
        total = trees.map(np.add, total, last)
    if by == "activities":  # the last map has its own error, each time
        same(last[2], wanted[2], 1e-12)
        total, wanted = total[:2], wanted[:2]
    same(total, wanted, 1e-12)


@pytest.mark.parametrize("by", ["activities", "weights"])
def test_the_mean_of_forward_gradients_over_drawn_directions_is_the_gradient(by):
    """Over 400 draws: each entry within 5 standard errors."""
    own, params, batch, wanted = case(net=SLOPED, shape=(2,))
    flat = lambda tree: np.concatenate([leaf.ravel() for leaf in trees.leaves(tree)])
    rule = rules.ForwardGradient(by)
    draws = np.stack([flat(gradient(rule, own, params, batch, seed=seed).grads) for seed in range(400)])
    error = abs(draws.mean(axis=0) - flat(wanted))
    assert (error <= 5 * draws.std(axis=0) / np.sqrt(len(draws)) + 1e-12).all()
    assert draws.std(axis=0)[:6].min() > 0, "it draws"


def test_the_last_map_of_a_forward_gradient_by_activities_is_exact():
    own, params, batch, wanted = case(net=NET, shape=(6,))
    same(gradient(rules.ForwardGradient(), own, params, batch).grads[1][-1], wanted[1][-1], 1e-13)


def test_a_forward_gradient_by_weights_is_along_its_direction_and_leaves_the_frozen_alone():
    net = fnn.Serial((fnn.Frozen(D(4)), D(3)))
    own, params, batch, wanted = case(net=net, shape=(5,))
    grads = gradient(rules.ForwardGradient("weights"), own, params, batch).grads
    assert not any(leaf.any() for leaf in trees.leaves(grads[0]))
    flat = lambda p: np.concatenate([p.w.ravel(), p.b])
    g, exact = flat(grads[1]), flat(wanted[1])
    v = np.concatenate([fnn.random.normal(fnn.random.fold_in(key(seed=1), i), a.shape, np.float64).ravel()
                        for i, a in enumerate(grads[1])])  # fmt: skip
    np.testing.assert_allclose(g, (exact @ v) * v, rtol=1e-10)


# ---- equilibrium propagation -----------------------------------------------------------------------------------------

SETTLING = fnn.Serial((fnn.Hopfield((D(5), fnn.Tanh(), D(4), fnn.Tanh()), steps=80), D(3)))


def test_equilibrium_propagation_is_the_gradient_at_the_free_minimum_as_the_nudge_goes_to_0():
    """What remains is of order β², with both nudges: a quarter for half the nudge."""
    own, params, batch, _ = case(net=SETTLING, shape=(6,))
    params = trees.map(lambda p: 0.6 * p, params)
    wanted = fnn.backpropagation.differentiate(own, params, batch)[1]
    of = lambda nudge: gradient(rules.EquilibriumPropagation(nudge, steps=80), own, params, batch).grads
    far, near = (distance(of(nudge), wanted) for nudge in (0.1, 0.05))
    assert near < 1e-2
    assert far / near == pytest.approx(4, rel=0.05)
    same(of(0.1)[1], wanted[1], 1e-12)


# ---- forward-forward -------------------------------------------------------------------------------------------------


def test_forward_forward_is_the_gradient_of_each_stages_own_cost():
    """Written a second time, stage by stage, by central differences of each stage's cost with its input held."""
    net = fnn.Goodness((D(4), fnn.Tanh(), D(3), fnn.Softplus()), classes=3)
    rng, params = np.random.default_rng(0), moved(net, (2,))
    x, y = rng.normal(size=(5, 2)), rng.integers(0, 3, 5)
    own, batch = rules.Problem(net, fnn.SoftmaxCrossEntropy()), rules.Batch(x, y, None, 5)
    rule = rules.ForwardForward(0.7)
    value, grads, *_ = gradient(rule, own, params, batch)
    wrong = (y + 1 + fnn.random.bits(key(seed=1), (5,)) % 2) % 3
    total = 0
    h = [np.concatenate([x, np.eye(3)[c]], axis=1) for c in (y, wrong)]
    for at, f in ((0, np.tanh), (2, lambda z: np.log1p(np.exp(z)))):
        h = [a / np.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-6) for a in h]

        def cost(w, b, h=h, f=f):
            z = [(f(a @ w.T + b) ** 2).sum(axis=1) - 0.7 * len(b) for a in h]
            return (np.log1p(np.exp(-z[0])) + np.log1p(np.exp(z[1]))).mean() / 2

        w, b = params[at]
        total += cost(w, b)
        for i in np.ndindex(w.shape):
            step = np.zeros(w.shape)
            step[i] = 1e-6
            difference = (cost(w + step, b) - cost(w - step, b)) / 2e-6
            assert grads[at].w[i] == pytest.approx(difference, abs=1e-8)
        h = [f(a @ w.T + b) for a in h]
    assert value == pytest.approx(total)

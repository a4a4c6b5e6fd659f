"""A loss scale changes no gradient, keeps small ones from becoming 0, and finds its size."""

import numpy as np
import pytest
from helpers import blobs, compiled, key, moved
from helpers_training import same

import fnn
from fnn import errors, rules, trees
from fnn.rules import Backprop, Batch, InParts, Keys, LossScale, Problem

NET, LOSS, N = fnn.mlp((4, 3), fnn.Tanh()), fnn.SoftmaxCrossEntropy(), 10
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(N, 5)), RNG.integers(0, 3, N), RNG.uniform(0, 2, N)
PARAMS, PENALTY, KEYS = moved(NET, (5,)), fnn.L2(0.1), Keys(None, key())


def output(
    rule, weights=None, denominator=None, loss=LOSS, params=PARAMS, net=NET, x=X, y=Y, state=None, penalty=PENALTY
):
    problem = Problem(net, loss, penalty, denominator, (5,))
    state = rule.init(problem, params, None) if state is None else state
    return rule.gradient(problem, params, state, Batch(x, y, weights, len(x)), KEYS)


@pytest.mark.parametrize("inner", [Backprop(), InParts(Backprop(), 4)], ids=["all at once", "in parts"])
@pytest.mark.parametrize("weights", [None, W, W - 1], ids=["no weights", "weights", "signed weights"])
def test_value_and_gradient_are_those_without_a_scale(inner, weights):
    """To rounding in float64, the penalty included, which is not scaled."""
    denominator = 10.0 if weights is not None and weights.min() < 0 else None
    wanted = output(inner, weights, denominator)
    for scale in (1.0, 2.0**15):
        found = output(LossScale(inner, scale), weights, denominator)
        same((found.value, found.grads), (wanted.value, wanted.grads), 1e-12)
        assert found.metrics == {"loss_scale": scale}


def test_a_cost_with_an_outer_function_is_scaled_once():
    net, params = fnn.Dense(1), moved(fnn.Dense(1), (5,))
    options = {"loss": fnn.RootMeanSquaredError(), "net": net, "params": params, "y": X[:, :1]}
    found, wanted = (output(rule, **options) for rule in (LossScale(scale=512.0), Backprop()))
    same((found.value, found.grads), (wanted.value, wanted.grads), 1e-12)


def test_in_float16_errors_that_would_become_0_are_kept(backend):
    """On their way through six layers of small weights errors shrink by 10⁻⁷; in the first layer they are 0 without."""
    small = fnn.Dense(8, bias=False, initializer=fnn.Normal(0.02)), fnn.Identity()
    net = fnn.Serial((*small * 6, fnn.Dense(1)))
    params = fnn.init_state(net, fnn.Sgd(0.1), key(backend), (5,), "float16").params
    x, y, _ = fnn.gate.converted(params, X, X[:, :1] + 1, None)
    options = {"loss": fnn.Quadratic(), "net": net, "penalty": None}
    wide = trees.map(lambda p: np.asarray(p, np.float64), params)
    exact = output(Backprop(), params=wide, x=np.float64(x), y=np.float64(y), **options).grads[0].w
    errors = []
    for rule in (LossScale(scale=2.0**15), Backprop()):
        gradient = compiled(backend, lambda p, x, y, rule=rule: output(rule, params=p, x=x, y=y, **options).grads[0].w)
        found = gradient(params, x, y)
        errors.append(np.linalg.norm(np.float64(found) - exact) / np.linalg.norm(exact))
    assert errors[0] < 5e-3
    assert errors[1] > 0.2


def test_the_scale_is_halved_when_a_gradient_overflows_and_doubled_after_enough_steps_without():
    net, params = fnn.Dense(1), fnn.DenseParams(np.ones((1, 5), np.float16), np.zeros(1, np.float16))
    options = {"loss": fnn.Quadratic(), "net": net, "params": params, "y": np.ones((N, 1))}
    step = lambda rule, state, x: output(rule, **options, x=x.astype(np.float16), state=state)
    rule, fine, large = LossScale(scale=2.0**10, steps=2), X, np.full((N, 5), 3e3)
    state, path = None, []
    for x in (fine, fine, large, fine, fine, fine):
        result = step(rule, state, x)
        state = result.state
        finite = bool(trees.all_finite(result.grads))
        path.append((float(state.scale), int(state.steps), finite))
        assert {g.dtype for g in trees.leaves(result.grads)} == {np.dtype(np.float32)}
    assert [scale for scale, _, _ in path] == [1024, 2048, 1024, 1024, 2048, 2048]
    assert [steps for _, steps, _ in path] == [1, 0, 0, 1, 0, 1]
    assert [finite for _, _, finite in path] == [True, True, False, True, True, True]
    at_ends = [(1.0, np.full((N, 5), np.nan)), (2.0**15, 0 * X)]
    for scale, x in at_ends:
        result = step(LossScale(scale=scale, steps=1), None, x)
        assert float(result.state.scale) == scale


@pytest.mark.thorough(backend="jax")
def test_a_run_in_float16_skips_steps_that_overflow_and_learns(backend):
    net, (x, y) = fnn.mlp((8, 8, 3), initializer=fnn.Normal(2.0)), blobs()
    optimizer = fnn.Masters(fnn.SkipNonFinite(fnn.Adam(0.05)))
    state = fnn.init_state(net, optimizer, key(backend), (6,), "float16", rule=LossScale(scale=2.0**15, steps=50))
    before = state.params
    state, history = fnn.train(net, LOSS, state, (x, y), epochs=30, batch_size=10)
    scales, skipped = np.asarray(history["loss_scale"]), int(state.opt_state.inner.skipped)
    assert scales[0] == 2**15
    assert 0 < skipped < 20
    assert sum(np.diff(scales) < 0) == skipped - int(scales[-1] > float(state.rule_state.scale))
    assert int(state.opt_state.inner.inner.count) == 150 - skipped
    assert fnn.accuracy(net.apply(state.params, x), y).mean() > 0.95
    assert trees.map(lambda w: w.dtype, before) == trees.map(lambda w: w.dtype, state.params)


def test_what_does_not_go_together_is_refused():
    skipping = fnn.SkipNonFinite(fnn.Sgd(0.1))
    for optimizer, rule, message in (
        (skipping, LossScale(rules.Private(1.0, 1.0)), r"LossScale\.rule: expected a rule whose gradient is scaled"),
        (skipping, LossScale(InParts(rules.KFac(), 4)), r"LossScale\.rule: expected a rule whose gradient is scaled"),
        (skipping, LossScale(InParts(Backprop(), 0)), r"LossScale\.rule\.size"),
        (skipping, LossScale(scale=0.5), r"LossScale\.scale"),
        (skipping, LossScale(steps=0), r"LossScale\.steps"),
        (fnn.Masters(fnn.Adam()), LossScale(), r"optimizer: expected one that skips steps .* with LossScale"),
    ):
        with pytest.raises(errors.FnnError, match=message):
            fnn.init_state(NET, optimizer, key(), (5,), "float16", rule=rule)

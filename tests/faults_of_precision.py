"""Faults of masters and of the loss scale, and the checks that have to find them."""

import numpy as np
import oracle
from helpers import descent_problem, key, moved
from planting import Fault, instead, result

import fnn
from fnn import trees
from fnn.backpropagation import Problem
from fnn.optimizers import masters as module
from fnn.rules import Backprop, Batch, InParts, Keys, LossScale
from fnn.rules import loss_scale as scaling

NET = fnn.mlp((4, 3), fnn.Tanh())
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(10, 5)), RNG.normal(size=(10, 3)), RNG.uniform(0.5, 2, 10)
NARROW = np.float16


# ---- checks ----------------------------------------------------------------------------------------------------------


def following():
    """Parameters are the masters, rounded; masters are what Adam makes of parameters in float32."""
    start, gradients = descent_problem(12, dtype=np.float32)
    params, optimizer = trees.map(lambda w: w.astype(NARROW), start), fnn.AdamW(0.01)
    outer, wide = fnn.Masters(optimizer), trees.map(lambda w: w.astype(NARROW).astype(np.float32), start)
    state, plain = outer.init(params), optimizer.init(wide)
    for t in range(12):
        grads = tuple(g[t].astype(NARROW) for g in gradients)
        updates, state = outer.update(grads, state, params)
        params = fnn.apply_updates(params, updates)
        theirs, plain = optimizer.update(trees.map(lambda g: g.astype(np.float32), grads), plain, wide)
        wide = fnn.apply_updates(wide, theirs)
        oracle.assert_close(params, trees.map(lambda m: m.astype(NARROW), state.masters), 0)
    oracle.assert_close((state.masters, state.inner), (wide, plain), 1e-6)


def frozen():
    """What is frozen has an update of 0, whatever its gradient is, also in the masters."""
    params = trees.Fixed(np.ones(2, NARROW)), np.ones(2, NARROW)
    optimizer = fnn.Masters(fnn.Sgd(1.0))
    updates, state = optimizer.update(params, optimizer.init(params), params)
    found = updates[0].params, state.masters[0].params, state.masters[1]
    oracle.assert_close(found, (np.zeros(2), np.ones(2), np.zeros(2)), 0)


def unscaled(rule=LossScale(scale=512.0), weights=W, dtype=np.float64, tolerance=1e-12):  # noqa: B008 - never changed
    """The value and the gradient of a rule with a scale, and without."""

    def check():
        problem, params = Problem(NET, fnn.Quadratic(), fnn.L2(0.1)), moved(NET, (5,), dtype)
        batch = Batch(X.astype(dtype), Y, weights, 10)
        found = rule.gradient(problem, params, rule.init(problem, params, None), batch, Keys(None, key()))
        wanted = Backprop().gradient(problem, params, (), batch, Keys(None, key()))
        oracle.assert_close((found.value, found.grads), (wanted.value, wanted.grads), tolerance)
        assert found.metrics == {"loss_scale": 512}

    return check


def adapting():
    """S after three steps without overflow, one with, and at both ends."""
    params = moved(fnn.Dense(3), (5,))
    problem, rule = Problem(fnn.Dense(3), fnn.Quadratic()), LossScale(scale=512.0, steps=2)
    state, path = rule.init(problem, params, None), []
    for x in (X, X, X, np.inf * X, X):
        state = rule.gradient(problem, params, state, Batch(x, Y, None, 10), Keys(None, None)).state
        path.append((float(state.scale), int(state.steps)))
    assert path == [(512, 1), (1024, 0), (1024, 1), (512, 0), (512, 1)]
    for scale, x in ((1.0, np.inf * X), (2.0**15, X)):
        rule = LossScale(scale=scale, steps=1)
        state = rule.init(problem, params, None)
        assert rule.gradient(problem, params, state, Batch(x, Y, None, 10), Keys(None, None)).state.scale == scale


def small():
    """A gradient below float16's range arrives."""
    net, params = fnn.Dense(1, bias=False), fnn.DenseParams(np.ones((1, 1), NARROW), ())
    batch = Batch(np.full((4, 1), 2.0**-12, NARROW), np.full((4, 1), 2.0**-12 - 2.0**-13, np.float32), None, 4)
    problem, rule = Problem(net, fnn.Quadratic()), LossScale(scale=2.0**12)
    grads = rule.gradient(problem, params, rule.init(problem, params, None), batch, Keys(None, None)).grads
    oracle.assert_close(grads.w, np.array([[2.0**-25]]), 1e-3)


UNSCALED, IN_PARTS = unscaled(), unscaled(LossScale(InParts(Backprop(), 4), 512.0))
HALF = unscaled(LossScale(scale=512.0), W.astype(np.float32), NARROW, 3e-3)


# ---- the table -------------------------------------------------------------------------------------------------------


def state_with(**fields):
    """The output of the rule, with other fields in its state, functions of (before, after)."""
    return lambda f: (
        lambda self, problem, params, state, *rest: (
            lambda out: out._replace(state=out.state._replace(**{k: g(state, out.state) for k, g in fields.items()}))
        )(f(self, problem, params, state, *rest))
    )


FAULTS = [
    Fault("masters rounded", fnn.Masters, "update", result(lambda pair: (pair[0], pair[1]._replace(
          masters=trees.map(lambda m: m.astype(NARROW).astype(np.float32), pair[1].masters)))), following),
    Fault("masters half", module, "at_least_float32", instead(np.dtype), following),
    Fault("parameters left behind", module, "widened", lambda f: lambda x: f(x) * 0 + 1, following),
    Fault("masters at 0", fnn.Masters, "init", result(
          lambda s: s._replace(masters=trees.map(lambda m: 0 * m, s.masters))), following),
    Fault("decay of the narrow parameters", fnn.Masters, "update", lambda f: lambda self, g, s, p: f(
          self, g, s._replace(masters=trees.map(lambda w: w.astype(np.float32), p)), p), following),
    Fault("the update twice", module, "apply_updates", lambda f: lambda m, u: f(f(m, u), u), following),
    Fault("frozen parameters move", module, "no_update", instead(lambda w: w + 1), frozen),
    Fault("not divided by S", LossScale, "gradient", result(
          lambda out: out._replace(grads=trees.map(lambda g: g * 512, out.grads))), UNSCALED),
    Fault("divided in halves alone", LossScale, "gradient", lambda f: lambda self, problem, params, state, *rest: f(
          self, problem, params, state._replace(scale=state.scale / 2), *rest)._replace(
          metrics={"loss_scale": state.scale * 2}), UNSCALED),
    Fault("the penalty forgotten", LossScale, "gradient", lambda f: lambda self, problem, *rest: f(
          self, problem._replace(penalty=None), *rest), UNSCALED),
    Fault("the penalty divided too", LossScale, "gradient", lambda f: lambda self, problem, *rest: f(
          self, problem._replace(penalty=fnn.L2(0.1 / 512)), *rest), UNSCALED),
    Fault("S unknown to parts", InParts, "gradient", lambda f: lambda self, problem, *rest: f(
          self, problem._replace(scale=None), *rest), IN_PARTS),
    Fault("S unknown in half precision", Backprop, "gradient", lambda f: lambda self, problem, *rest: f(
          self, problem._replace(scale=None), *rest), HALF),
    Fault("divided in half precision", LossScale, "gradient", result(
          lambda out: out._replace(grads=trees.map(lambda g: g.astype(NARROW), out.grads))), small),
    Fault("never halved", LossScale, "gradient", state_with(scale=lambda s, new: max(s.scale, new.scale)), adapting),
    Fault("never doubled", LossScale, "gradient", state_with(scale=lambda s, new: min(s.scale, new.scale)), adapting),
    Fault("steps counted on", LossScale, "gradient", state_with(steps=lambda s, new: s.steps + 1), adapting),
    Fault("no upper end", scaling, "LARGEST", instead(np.inf), adapting),
    Fault("an overflow unseen", trees, "all_finite", instead(lambda tree: np.True_), adapting),
]  # fmt: skip

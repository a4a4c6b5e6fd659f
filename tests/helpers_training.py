"""What the tests of training share: rules as a user writes them, comparisons of runs, and an ear for compilations."""

import contextlib
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest
from helpers import BACKENDS, THOROUGH, key, problem, run_problem

import fnn
from fnn import rules, trees
from fnn.backend import jax, namespace
from fnn.rules import Choice, RuleOutput

# The backends of a test whose promise JAX adds nothing to: NumPy alone, and both in the thorough profile.
on_numpy_at_least = pytest.mark.parametrize("backend", BACKENDS if THOROUGH else ["numpy"])


def same(ours, theirs, tolerance=0):
    """Both trees have the same structure, and each pair of leaves is equal, or within a tolerance."""
    ours, theirs = trees.paths(ours, "tree"), trees.paths(theirs, "tree")
    assert [place for place, _ in ours] == [place for place, _ in theirs]
    for (place, a), (_, b) in zip(ours, theirs, strict=True):
        if jax is not None and fnn.backend.is_jax(a) and jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = (fnn.random.like(key, np) for key in (a, b))
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance, err_msg=place)


def temporary(compiled, *args, **how):
    """The bytes of temporary memory that a jitted function plans on the CPU; on a GPU, libraries keep some besides."""
    args = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    with jax.default_device(jax.devices("cpu")[0]):
        return compiled.lower(*args, **how).compile().memory_analysis().temp_size_in_bytes


@contextlib.contextmanager
def compilations():
    """A list that grows by the name of each program that JAX compiles."""
    compiled = []

    def listen(event, duration, fun_name=None, **_):
        compiled.append(fun_name) if "backend_compile" in event else None

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


class Smoothed(NamedTuple):
    """A rule as a user writes it: the running mean of the gradients, with noise, a state, a choice and a metric.

    m ← d m + (1 − d) (g + s · 𝒩(0, 1)),  or s times a random sign
    """

    decay: Annotated[Any, fnn.static.Interval("[0, 1)")]
    spread: Any = 0.0
    signs: Choice[bool] = False

    def init(self, problem, params, key):
        """The mean of no gradients, and how many steps there were."""
        return trees.map(lambda p: p * 0, params), np.int32(0)

    def gradient(self, problem, params, state, batch, keys):
        """The mean after this batch."""
        mean, count = state
        value, grads = fnn.backpropagation.differentiate(problem, params, batch, keys.net)
        noise = fnn.random.normal(keys.rule, ())
        noise = namespace(noise).sign(noise) if self.signs else noise
        mean = trees.map(lambda m, g: self.decay * m + (1 - self.decay) * (g + self.spread * noise), mean, grads)
        return RuleOutput(value, mean, (mean, count + 1), {"noise": noise, "steps": count})


def scored(scores, backend="numpy", **how):
    """A run whose validation is scored by the next number of a list."""
    net, loss, state, data = run_problem(backend)
    left = iter(scores)
    metrics = {"score": lambda prediction, y: next(left)}
    options = {"epochs": len(scores), "batch_size": 50, "validation": data, "metrics": metrics}
    return fnn.fit(net, loss, state, data, **options | {"monitor": "validation_score"} | how)


# ---- one step of a rule, by itself ----------------------------------------------------------------------------------


def rule_case(net, shape, seed=0):
    """A small problem in float64, with weights, and the gradient of backpropagation."""
    net, loss, params, x, y, weights = problem(net, None, shape, dtype=np.float64, seed=seed)
    batch = rules.Batch(x, y, weights, len(x))
    own = rules.Problem(net, loss, input_shape=shape)
    return own, params, batch, fnn.backpropagation.differentiate(own, params, batch)[1]


def rule_output(rule, own, params, batch, state=(), seed=1):
    """What the rule gives, and its next state."""
    return rule.gradient(own, params, state, batch, rules.Keys(None, key(seed=seed)))


def distance(ours, theirs):
    """The norm of the difference, over that of the second."""
    pairs = list(zip(trees.leaves(ours), trees.leaves(theirs), strict=True))
    return np.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs))

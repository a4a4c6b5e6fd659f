"""An optimizer is given what it asks for by name: the value of the cost, and the cost as a function."""

import functools
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import BACKENDS, THOROUGH, key, run_problem

import fnn
from fnn import errors, trees


class Polyak(NamedTuple):
    """Steps by Polyak's rule, w ← w − (f − f*) / ‖g‖² g, of a user."""

    least: Any = 0.0

    def init(self, params):
        return ()

    def update(self, grads, opt_state, params=None, *, value):
        rate = (value - self.least) / sum((g**2).sum() for g in trees.leaves(grads))
        return trees.map(lambda g: (-rate * g).astype(g.dtype), grads), opt_state


class Halving(NamedTuple):
    """Descent with a step that is halved until the cost falls, of a user."""

    first: Any = 8.0

    def init(self, params):
        return ()

    def update(self, grads, opt_state, params=None, *, value, grad, value_fn, value_and_grad_fn):
        assert grad is grads
        again, same = value_and_grad_fn(params)
        oracle.assert_close((again, same), (value, grads), 1e-6)
        moved = lambda rate: trees.map(lambda w, g: w - rate * g, params, grads)
        rates = (self.first * 0.5**k for k in range(30))
        rate = next(rate for rate in rates if value_fn(moved(rate)) < value)
        return trees.map(lambda g: (-rate * g).astype(g.dtype), grads), opt_state


@pytest.mark.thorough(backend="jax")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizer_of_ones_own_gets_the_value(backend):
    net, loss, state, data = run_problem(backend, Polyak())
    _, history = fnn.train(net, loss, state, data, epochs=3, batch_size=50, penalty=fnn.L2(0.01))
    params, values = trees.map(np.asarray, state.params), []
    for _ in range(3):
        value, grads = fnn.value_and_grad(net, loss, penalty=fnn.L2(0.01))(params, data[0].astype(np.float32), data[1])
        values.append(value)
        rate = value / sum((g**2).sum() for g in trees.leaves(grads))
        params = trees.map(lambda w, g, rate=rate: w - rate * g, params, grads)
    np.testing.assert_allclose(history["loss"], values, rtol=1e-4)


def test_the_cost_as_a_function_is_that_of_the_batch_with_its_noise():
    net = fnn.Serial((fnn.Dense(8), fnn.Dropout(0.5), fnn.Tanh(), fnn.Dense(3)))
    net, loss, state, data = run_problem("numpy", Halving(), net)
    step = fnn.make_step(net, loss, penalty=fnn.L2(0.1))
    for begin in (0, 25):
        after, _ = step(state, (*(a[begin : begin + 25] for a in data), np.arange(25.0)))
        assert any(map(np.any, trees.leaves(trees.map(lambda a, b: a != b, after.params, state.params))))
        state = after


def test_where_nothing_can_be_passed_on_it_is_refused():
    for optimizer, rule, says in (
        (fnn.MaxNorm(Polyak(), 1.0), None, r"expected none that needs value within MaxNorm.*got Polyak"),
        (fnn.Accumulate(fnn.Average(Halving()), 2), None, r"needs value and grad and value_fn.*within Accumulate"),
        (Polyak(), fnn.rules.Private(1.0, 1.0), r"fnn.rules.Backprop\(\).*Polyak, which needs value, got Private"),
        (Halving(), fnn.rules.SignSymmetry(), r"Halving, which needs .*value_and_grad_fn, got SignSymmetry"),
    ):
        with pytest.raises(errors.KindError, match=says):
            run_problem("numpy", optimizer, rule=rule)
    run_problem("numpy", Polyak(), rule=fnn.rules.SignSymmetry())  # the value is that of the cost


# ---- Optax's ---------------------------------------------------------------------------------------------------------

OF_OPTAX = {
    "polyak_sgd": lambda optax: optax.polyak_sgd(max_learning_rate=0.5),
    "reduce_on_plateau": lambda optax: optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    "lbfgs": lambda optax: optax.lbfgs(),
    "line search": lambda optax: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)),
    "zoom": lambda optax: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(15)),
}


@pytest.mark.parametrize("name", OF_OPTAX if THOROUGH else ["polyak_sgd"])
def test_an_optimizer_of_optax_is_itself(name, needs_jax):
    """In fit; and one of them, for all are treated alike, in steps, in a sweep and in minimize."""
    optax, jax = pytest.importorskip("optax"), needs_jax
    optimizer = OF_OPTAX[name](optax)
    net, loss, state, data = run_problem("jax", optimizer)
    x, y = jax.numpy.asarray(data[0], np.float32), jax.numpy.asarray(data[1])
    run, cost = {"epochs": 4, "batch_size": 50}, lambda params: fnn.value_and_grad(net, loss)(params, x, y)

    @jax.jit
    def plain(params, opt_state):
        value, grads = jax.value_and_grad(lambda params: cost(params)[0])(params)
        given = {"value": value, "grad": grads, "value_fn": lambda params: cost(params)[0]}
        updates, opt_state = optimizer.update(grads, opt_state, params, **given)
        return optax.apply_updates(params, updates), opt_state

    expected, opt_state = state.params, optimizer.init(state.params)
    for _ in range(4):
        expected, opt_state = plain(expected, opt_state)
    fitted, history = fnn.fit(net, loss, optimizer, data, key=key("jax"), **run)
    oracle.assert_close(fitted.params, expected, 1e-4)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    if name != "polyak_sgd":
        return
    stepped, step = state, fnn.make_step(net, loss)
    for _ in range(4):
        stepped, _ = step(stepped, (x, y))
    one = trees.map(lambda a: a[None], state)
    swept, _ = fnn.sweep(functools.partial(fnn.train, net, loss, data=(x, y), **run), one)
    minimized, _ = fnn.minimize(cost, state.params, optimizer, steps=4)
    for found in (stepped.params, trees.map(lambda p: p[0], swept.params), minimized):
        oracle.assert_close(found, expected, 1e-4)

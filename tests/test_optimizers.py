"""Each optimizer is its equations, written a second time with numbers; and Optax's, where that is installed."""

import functools
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest

import fnn
from fnn import errors
from fnn.optimizers import prepare

STEPS = 100


def sgd(g, w, rate, state):
    return w - rate * g, state


def momentum(g, w, rate, v, beta=0.8):
    v = beta * (0 if v is None else v) - rate * g
    return w + v, v


def nesterov(g, w, rate, v, beta=0.8):
    # v ← βv − η∇C(w + βv) in the shifted parameter u = w + βv: the next u is w + v' + βv' with w = u − βv
    v = 0 if v is None else v
    following = beta * v - rate * g
    return (w - beta * v) + following + beta * following, following


def adam(g, w, rate, state, b1=0.9, b2=0.999, eps=1e-8):
    m, v, t = (0, 0, 0) if state is None else state
    m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
    return w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps), (m, v, t)


OPTIMIZERS = {
    "sgd": (fnn.Sgd(0.1), sgd, lambda optax: optax.sgd(0.1)),
    "momentum": (fnn.Momentum(0.1, 0.8), momentum, lambda optax: optax.sgd(0.1, momentum=0.8)),
    "nesterov": (fnn.Nesterov(0.1, 0.8), nesterov, lambda optax: optax.sgd(0.1, momentum=0.8, nesterov=True)),
    "adam": (fnn.Adam(0.1), adam, lambda optax: optax.adam(0.1)),
    "adam of a large eps": (
        fnn.Adam(0.1, b1=0.8, b2=0.9, eps=0.1),
        functools.partial(adam, b1=0.8, b2=0.9, eps=0.1),
        lambda optax: optax.adam(0.1, b1=0.8, b2=0.9, eps=0.1),
    ),
}


def gradients():
    """A badly scaled quadratic with noise: gradients of every size and sign."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(STEPS, 4))
    return lambda w, t: np.array([1.0, 1e-3, 5.0, 0.1]) * w + 0.1 * noise[t]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_its_equations_over_100_steps(name, backend):
    optimizer, equation, _ = OPTIMIZERS[name]
    gradient, wanted = gradients(), np.array([1.0, -2.0, 0.5, 3.0])
    xp = fnn.backend.jnp if backend == "jax" else np
    params = (xp.asarray(wanted, dtype=np.float32), xp.zeros((2, 2), np.float32))
    optimizer = prepare(optimizer, params)  # as a training state holds it
    state, memory = optimizer.init(params), None
    for t in range(STEPS):
        updates, state = optimizer.update((xp.asarray(gradient(wanted, t), dtype=np.float32), params[1]), state, params)
        params = fnn.apply_updates(params, updates)
        wanted, memory = equation(gradient(wanted, t), wanted, 0.1, memory)
    oracle.assert_close(params[0], wanted, 1e-5)  # a hundred steps of float32 rounding
    assert not np.any(params[1]), "what has no gradient does not move"
    assert int(state.count) == STEPS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_optaxs_over_100_steps(name, needs_jax):
    optax = pytest.importorskip("optax")
    import jax.numpy as jnp

    optimizer, _, make = OPTIMIZERS[name]
    gradient, theirs = gradients(), make(optax)
    start = jnp.asarray([1.0, -2.0, 0.5, 3.0])
    runs = []
    for tx in (optimizer, theirs):
        params, state = start, tx.init(start)
        for t in range(STEPS):
            updates, state = tx.update(jnp.asarray(gradient(np.asarray(params), t), jnp.float32), state, params)
            params = fnn.apply_updates(params, updates)
        runs.append(params)
    oracle.assert_close(runs[0], runs[1], 1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_updates_have_the_dtype_of_the_parameters_and_states_are_float32_or_wider(name, dtype, backend):
    if backend == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy alone has no bfloat16")
    if backend == "jax" and dtype == "float64":
        pytest.skip("float64 on JAX is tested in test_training")
    params = np.ones(3, np.float32) if backend == "numpy" else fnn.backend.jnp.ones(3)
    params = params.astype(dtype)
    optimizer = OPTIMIZERS[name][0]
    state = optimizer.init(params)
    for _ in range(2):
        updates, following = optimizer.update(params, state, params)
        types = [leaf.dtype for leaf in fnn.trees.leaves(state)]
        assert [leaf.dtype for leaf in fnn.trees.leaves(following)] == types, "a scan must keep its types"
        assert updates.dtype == params.dtype
        state = following
    assert all(t == np.int32 or np.dtype(t).itemsize >= 4 for t in types)


def test_plain_sgd_carries_no_velocity():
    state = fnn.Sgd(0.1).init(np.ones(1000))
    assert sum(np.size(leaf) for leaf in fnn.trees.leaves(state)) == 1


def test_the_moments_of_adam_are_two_trees(needs_jax):
    state = fnn.Adam().init(fnn.backend.jnp.ones(3))
    assert state.mu is not state.nu


class Halving(NamedTuple):
    """A schedule as a user writes it."""

    first: Any

    def __call__(self, count):
        return self.first * 0.5**count


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_is_called_on_the_number_of_steps_taken(name, backend):
    optimizer, equation, _ = OPTIMIZERS[name]
    key = fnn.random.key(0, backend=backend)
    net = fnn.Dense(1, bias=False, initializer=fnn.Ones())
    state = fnn.init_state(net, optimizer._replace(learning_rate=Halving(0.1)), key, (1,))
    step, loss = fnn.make_step(net, fnn.Quadratic()), np.float32(0)
    wanted, memory = 1.0, None
    for t in range(5):
        state, _ = step(state, ([[1.0]], [[loss]]))
        wanted, memory = equation(wanted, wanted, 0.1 * 0.5**t, memory)
    np.testing.assert_allclose(state.params.w, [[wanted]], rtol=1e-5)


def test_an_optax_optimizer_trains_as_itself(needs_jax):
    optax = pytest.importorskip("optax")
    net, loss = fnn.mlp((4, 1)), fnn.Quadratic()
    data = np.random.default_rng(0).normal(size=(20, 3)), np.ones((20, 1))
    states = []
    for optimizer in (fnn.Adam(0.01), optax.adam(0.01), fnn.from_optax(optax.adam(0.01))):
        state = fnn.init_state(net, optimizer, fnn.random.key(0), (3,))
        state, _ = fnn.train(net, loss, state, data, epochs=5, batch_size=5)
        states.append(state)
    oracle.assert_close(states[1].params, states[0].params, 1e-5)
    oracle.assert_close(states[2].params, states[1].params, 0)


def test_our_optimizers_drop_into_an_optax_chain(needs_jax):
    optax = pytest.importorskip("optax")
    import jax.numpy as jnp

    chain = optax.chain(optax.clip(0.5), fnn.Adam(0.1))
    params = jnp.array([1.0, 2.0])
    updates, _ = chain.update(jnp.array([3.0, -3.0]), chain.init(params), params)
    wanted, _ = optax.adam(0.1).update(jnp.array([0.5, -0.5]), optax.adam(0.1).init(params))
    oracle.assert_close(updates, wanted, 1e-5)


BAD = {
    "a negative rate": (fnn.Sgd(-0.1), errors.ArgumentError, r"Sgd\.learning_rate.*>= 0.*-0\.1"),
    "nan as rate": (fnn.Sgd(float("nan")), errors.ArgumentError, "nan"),
    "an infinite rate": (fnn.Adam(np.inf), errors.ArgumentError, "inf"),
    "momentum of 1": (fnn.Momentum(0.1, 1.0), errors.ArgumentError, r"momentum.*< 1"),
    "b2 of 1": (fnn.Adam(b2=1.0), errors.ArgumentError, "b2"),
    "nothing": (fnn.Sgd(None), errors.KindError, r"Sgd\.learning_rate: expected a number, got None"),
    "several rates": (fnn.Sgd(np.array([0.1, 0.2])), errors.KindError, "expected a number, got array"),
    "text": (fnn.Sgd("0.1"), errors.KindError, "'0.1'"),
    "a function as schedule": (fnn.Sgd(lambda t: 0.1), errors.KindError, r"Sgd\.learning_rate.*schedule.*NamedTuple"),
    "a limit of 0": (fnn.MaxNorm(fnn.Sgd(0.1), 0.0), errors.ArgumentError, "max_norm > 0"),
    "a negative rate within": (fnn.MaxNorm(fnn.Sgd(-0.1), 1.0), errors.ArgumentError, r"Sgd\.learning_rate"),
    "nothing within": (fnn.MaxNorm(None, 1.0), errors.KindError, "got None"),
    "the class": (fnn.Adam, errors.KindError, r"write Adam\("),
    "a number": (0.1, errors.KindError, "got 0.1"),
    "a name": ("adam", errors.KindError, "got 'adam'"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_optimizer_that_makes_no_sense_is_refused_before_any_work(name, backend):
    optimizer, error, message = BAD[name]
    with pytest.raises(error, match=message):
        fnn.init_state(fnn.Dense(1), optimizer, fnn.random.key(0, backend=backend), (1,))


def lengths(w):
    return np.linalg.norm(np.asarray(w, np.float64), axis=1)


@pytest.mark.parametrize("within", [fnn.Sgd(1.0), fnn.Momentum(0.3), fnn.Adam(0.5)])
def test_max_norm_keeps_each_units_weights_within_its_length_and_lets_biases_be(within, backend):
    net, rng = fnn.mlp((6, 3)), np.random.default_rng(0)
    data = rng.normal(size=(64, 4)), 30 * rng.normal(size=(64, 3))
    state = fnn.init_state(net, fnn.MaxNorm(within, 0.7), fnn.random.key(0, backend=backend), (4,))
    state, _ = fnn.train(net, fnn.Huber(), state, data, epochs=5, batch_size=16)
    found = [lengths(state.params[0].w), lengths(state.params[2].w)]
    assert all((length <= 0.7 * (1 + 1e-5)).all() for length in found)
    assert max(length.max() for length in found) > 0.69, "some rows are at the limit"
    assert np.abs(np.asarray(state.params[2].b)).max() > 0.7


def test_max_norm_shortens_a_row_and_does_not_turn_it(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    params = xp.asarray([[3.0, 4.0], [0.3, 0.4]])
    optimizer = prepare(fnn.MaxNorm(fnn.Sgd(1.0), 1.0), params)
    updates, _ = optimizer.update(xp.asarray([[0.0, 0.0], [0.1, 0.0]]), optimizer.init(params), params)
    np.testing.assert_allclose(fnn.apply_updates(params, updates), [[0.6, 0.8], [0.2, 0.4]], rtol=1e-6)


def test_max_norm_holds_an_optax_optimizer_and_its_limit_is_a_leaf(needs_jax):
    import jax

    optax = pytest.importorskip("optax")
    net = fnn.Dense(3, bias=False)
    data = np.ones((4, 2), np.float32), 100 * np.ones((4, 3), np.float32)

    def longest(limit):
        state = fnn.init_state(net, fnn.MaxNorm(optax.sgd(0.1), limit), fnn.random.key(0), (2,))
        state, _ = fnn.train(net, fnn.Quadratic(), state, data, epochs=3, batch_size=4)
        return jax.numpy.sqrt((state.params.w**2).sum(axis=1)).max()

    np.testing.assert_allclose(jax.vmap(longest)(jax.numpy.array([0.5, 2.0])), [0.5, 2.0], rtol=1e-5)

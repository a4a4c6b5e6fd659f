"""Each combinator is what it says, in numbers and over runs; and Optax's, where that is installed."""

import functools
from typing import NamedTuple

import numpy as np
import oracle
import pytest

import fnn
from fnn import errors, trees
from fnn.optimizers import prepare

SHAPES = (4,), (3, 2), (2, 4)


def problem(steps=100, dtype=np.float64):
    """Parameters, and gradients of very different lengths for them, one for each step."""
    rng = np.random.default_rng(0)
    start = tuple(rng.normal(size=shape).astype(dtype) for shape in SHAPES)
    lengths = np.exp(rng.normal(size=steps))
    gradients = [rng.normal(size=(steps, *shape)) * lengths.reshape(-1, *[1] * len(shape)) for shape in SHAPES]
    return start, tuple(g.astype(dtype) for g in gradients)


def run(optimizer, params, gradients):
    """The parameters after each of the steps, stacked, and the last state."""

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        params = fnn.apply_updates(params, updates)
        return (params, state), params

    (_, state), path = fnn.backend.scan(step, (params, optimizer.init(params)), gradients)
    return path, state


def run_on(backend, optimizer, gradients=None, **options):
    """`run` of a prepared optimizer from `problem`, in float32."""
    params, own = problem(**options, dtype=np.float32)
    gradients = own if gradients is None else tuple(g.astype(np.float32) for g in gradients)
    if backend == "numpy":
        return run(prepare(optimizer, params), params, gradients)
    params, gradients = trees.map(fnn.backend.jnp.asarray, (params, gradients))
    return compiled()(prepare(optimizer, params), params, gradients)


@functools.cache
def compiled():
    return oracle.quick_jit(run)


def trained(net, loss, optimizer, key, data, epochs, batch_size):
    """The first state, the last one, and the loss of each step; one step compiles sooner than `train`."""
    first = state = fnn.init_state(net, optimizer, key, data[0].shape[1:])
    step, losses = fnn.make_step(net, loss), []
    for _ in range(epochs):
        for i in range(0, len(data[0]), batch_size):
            state, metrics = step(state, tuple(a[i : i + batch_size] for a in data))
            losses.append(float(metrics["loss"]))
    return first, state, losses


def path_of(changed):
    """Where plain descent with the rate 0.1 goes, given the gradients that it is given in the end."""
    start, _ = problem()
    return tuple(w - 0.1 * np.cumsum(g, axis=0) for w, g in zip(start, changed, strict=True))


def global_norms(gradients):
    return np.sqrt(sum((g**2).sum(axis=tuple(range(1, g.ndim))) for g in gradients))


def by_norm(limit, gradients):
    """Each array's own gradient, shortened."""
    return (
        by_global_norm(limit, gradients[:1])
        + by_global_norm(limit, gradients[1:2])
        + by_global_norm(limit, gradients[2:])
    )


def by_global_norm(limit, gradients):
    norms = global_norms(gradients)
    return tuple(
        np.stack([g_t * limit / norm if norm > limit else g_t for g_t, norm in zip(g, norms, strict=True)])
        for g in gradients
    )


CLIPPED = {
    "by value": (fnn.ClipByValue(fnn.Sgd(0.1), 0.7), lambda gradients: tuple(np.clip(g, -0.7, 0.7) for g in gradients)),
    "by norm": (fnn.ClipByNorm(fnn.Sgd(0.1), 2.0), functools.partial(by_norm, 2.0)),
    "by global norm": (fnn.ClipByGlobalNorm(fnn.Sgd(0.1), 4.0), functools.partial(by_global_norm, 4.0)),
}


@pytest.mark.parametrize("name", CLIPPED)
def test_clipping_is_its_formula(name, backend):
    optimizer, formula = CLIPPED[name]
    _, gradients = problem()
    changed = formula(gradients)
    short = [np.isclose(a, b).mean() for a, b in zip(changed, gradients, strict=True)]
    assert all(0.1 < share < 0.9 for share in short), "some are clipped, and some are not"
    path, _ = run_on(backend, optimizer)
    oracle.assert_close(path, path_of(changed), 1e-5)


@pytest.mark.parametrize("name", CLIPPED)
def test_clipping_leaves_what_is_short_as_it_is_to_the_bit_and_takes_a_gradient_of_zero(name, backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    optimizer = CLIPPED[name][0]._replace(optimizer=fnn.Sgd(-1.0))  # the update is the gradient
    for grads in ((xp.asarray([0.1, -0.3], dtype=np.float32),), (xp.zeros(2, np.float32),)):
        updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
        oracle.assert_close(updates, grads, 0)


class Given(NamedTuple):
    """No optimizer at all: the update is the gradient that it is given."""

    def init(self, params):
        return ()

    def update(self, grads, opt_state, params=None):
        return grads, ()


@pytest.mark.parametrize("name", CLIPPED)
def test_clipping_keeps_the_dtype_of_the_gradient_for_whatever_is_within(name, backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    grads = (xp.ones(3, np.float16),)
    optimizer = prepare(CLIPPED[name][0]._replace(optimizer=Given()), grads)
    assert optimizer.update(grads, optimizer.init(grads))[0][0].dtype == np.float16


FAR_OUT = {  # a gradient of float32, and the longest that it may be: 3/5 and 4/5 of that is wanted
    "squares overflow": ((9e19, 1.2e20), 1.0),
    "the norm overflows": ((2.4e38, 3.2e38), 1.0),
    "squares underflow": ((3e-30, 4e-30), 1e-30),
}


@pytest.mark.parametrize("gradient", FAR_OUT)
@pytest.mark.parametrize("name", ["by norm", "by global norm", "MaxNorm"])
def test_norms_neither_overflow_nor_underflow_where_the_result_does_not(name, gradient, backend):
    xp, (gradient, limit) = np if backend == "numpy" else fnn.backend.jnp, FAR_OUT[gradient]
    w = xp.asarray([gradient], dtype=np.float32)
    if name == "MaxNorm":
        params, grads = (w,), (0 * w,)
        optimizer = fnn.MaxNorm(Given(), limit)
    else:
        params, grads = (0 * w,), (w,)
        optimizer = CLIPPED[name][0]._replace(optimizer=Given(), max_norm=limit)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    found = params[0] + updates[0]
    wanted = [[0.6 * limit, 0.8 * limit]]
    if name == "MaxNorm":  # the sum of w = 1e38 and u = 0.6 − w has no digit left of 0.6
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * float(w.max()))
    else:
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_gradient_of_nan_is_not_taken_for_a_short_one(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    for bad in (np.nan, np.inf):
        for name in ("by norm", "by global norm"):
            grads = (xp.asarray([bad, 100.0], dtype=np.float32),)
            optimizer = CLIPPED[name][0]._replace(optimizer=Given())
            with np.errstate(invalid="ignore"):
                (found,), _ = optimizer.update(grads, (), grads)
            assert np.isnan(found[0])
            assert not found[1] >= 1


def test_max_norm_leaves_alone_what_is_frozen(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    params = trees.Fixed(xp.full((1, 2), 9.0)), xp.full((1, 2), 9.0)
    optimizer = fnn.MaxNorm(fnn.Sgd(0.1), 1.0)
    updates, _ = optimizer.update(trees.map(lambda w: 0 * w, params), optimizer.init(params), params)
    assert not np.any(updates[0].params)
    assert np.all(updates[1] < -8)


def test_the_global_norm_counts_what_is_learnt_only(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    grads = trees.Fixed(xp.asarray([1000.0])), xp.asarray([0.5])
    optimizer = fnn.ClipByGlobalNorm(fnn.Sgd(-1.0), 1.0)
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    oracle.assert_close(updates[1], grads[1], 0)


@pytest.mark.parametrize("steps", [1, 3])
def test_accumulation_makes_one_step_of_the_mean_gradient(steps, backend):
    _, gradients = problem(12)
    path, state = run_on(backend, fnn.Accumulate(fnn.Sgd(0.1), steps), steps=12)
    means = [g.reshape(-1, steps, *g.shape[1:]).mean(axis=1, keepdims=True) for g in gradients]
    emitted = [np.concatenate([0 * m.repeat(steps - 1, axis=1), m], axis=1) for m in means]
    oracle.assert_close(path, path_of([e.reshape(g.shape) for e, g in zip(emitted, gradients, strict=True)]), 1e-5)
    assert int(state.inner.count) == 12 // steps, "the state within stays as it was in between"
    assert prepare(fnn.Accumulate(fnn.Sgd(0.1), steps), np.ones(1)).steps.dtype == np.int32, "float32 would miscount"
    assert not any(np.any(leaf) for leaf in trees.leaves(state.mean)), "and each mean begins anew"


def test_four_accumulated_batches_are_one_large_batch(backend):
    net, loss = fnn.mlp((3, 1), activation=fnn.Tanh()), fnn.Quadratic()
    data = np.random.default_rng(0).normal(size=(40, 2)), np.ones((40, 1))
    found = []
    for optimizer, batch_size in ((fnn.Accumulate(fnn.Adam(0.1), 4), 5), (fnn.Adam(0.1), 20)):
        _, state, _ = trained(net, loss, optimizer, fnn.random.key(0, backend=backend), data, 2, batch_size)
        found.append(state.params)
    oracle.assert_close(*found, 1e-5)


def test_a_gradient_that_is_not_finite_spoils_its_own_mean_only(backend):
    _, gradients = problem(4)
    gradients[1][1, 0, 0] = np.nan
    guarded = fnn.Accumulate(fnn.SkipNonFinite(fnn.Sgd(0.1)), 2)
    path, state = run_on(backend, guarded, gradients, steps=4)
    assert int(state.inner.skipped) == 1
    mean = [np.stack([0 * g[0], 0 * g[0], 0 * g[0], (g[2] + g[3]) / 2]) for g in gradients]
    oracle.assert_close(path, path_of(mean), 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_its_count(value, backend):
    _, gradients = problem(10)
    bad = tuple(g.copy() for g in gradients)
    bad[0][4, 2] = bad[2][7, 1, 1] = value
    good = tuple(np.delete(g, [4, 7], axis=0) for g in gradients)
    path, state = run_on(backend, fnn.SkipNonFinite(fnn.Adam(0.1)), bad, steps=10)
    wanted, within = run_on(backend, fnn.Adam(0.1), good, steps=8)
    oracle.assert_close(tuple(w[-1] for w in path), tuple(w[-1] for w in wanted), 1e-6)
    oracle.assert_close(state.inner, within, 1e-6)
    assert int(state.skipped) == 2
    assert all(np.array_equal(w[3], w[4]) and np.array_equal(w[6], w[7]) for w in path)


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.0])
def test_an_average_is_its_equation_and_with_a_decay_of_1_the_mean_of_all(decay, backend):
    path, state = run_on(backend, fnn.Average(fnn.Sgd(0.1), decay))
    _, gradients = problem()
    oracle.assert_close(path, path_of(gradients), 1e-5)  # the run itself is not touched
    wanted = [0 for _ in SHAPES]
    for t in range(100):
        beta = min(decay, t / (t + 1))
        wanted = [beta * a + (1 - beta) * np.asarray(w[t], np.float64) for a, w in zip(wanted, path, strict=True)]
    oracle.assert_close(state.average, tuple(wanted), 1e-5)
    if decay == 1:
        oracle.assert_close(state.average, tuple(np.asarray(w, np.float64).mean(axis=0) for w in path), 1e-5)


def test_an_average_is_parameters_for_the_network_and_keeps_what_is_frozen(backend):
    net = fnn.Serial((fnn.Frozen(fnn.Dense(3)), fnn.Tanh(), fnn.Dense(1)))
    data = np.random.default_rng(0).normal(size=(40, 2)), np.ones((40, 1))
    key, optimizer = fnn.random.key(0, backend=backend), fnn.ClipByGlobalNorm(fnn.Average(fnn.AdamW(0.1)), 1.0)
    first, state, _ = trained(net, fnn.Quadratic(), optimizer, key, data, 5, 10)
    oracle.assert_close(state.opt_state.average[0], first.params[0], 0)
    assert fnn.evaluate(net, fnn.Quadratic(), state.opt_state.average, data)["loss"] < 0.5
    assert np.any(np.asarray(state.opt_state.average[2].w) != np.asarray(state.params[2].w))


def test_the_average_of_bfloat16_parameters_moves_by_less_than_their_rounding(needs_jax):
    params = fnn.backend.jnp.ones(2, "bfloat16")
    optimizer = prepare(fnn.Average(fnn.Sgd(1.0), 1.0), params)
    state = optimizer.init(params)
    for grads in (0 * params, 0.01 * params, 0 * params):  # 1, then 0.9921875, the number next to 0.99
        updates, state = optimizer.update(grads, state, params)
        params = fnn.apply_updates(params, updates)
    np.testing.assert_allclose(state.average, (1 + 2 * 0.98828125) / 3, rtol=1e-6)


def test_an_average_keeps_what_is_frozen_whatever_the_updates_are(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    params = trees.Fixed(xp.ones(2)), xp.ones(2)
    optimizer = fnn.Average(Given())
    _, state = optimizer.update(params, optimizer.init(params), params)
    oracle.assert_close(state.average, (trees.Fixed(np.ones(2)), np.full(2, 2.0)), 0)


@pytest.mark.parametrize("optimizer", [fnn.Average(fnn.Sgd(0.1), 1.0), fnn.Accumulate(fnn.Sgd(0.1), 3)])
def test_in_float64_counts_are_divided_in_float64(optimizer, needs_jax):
    params, gradients = problem()
    wanted = run(prepare(optimizer, params), params, gradients)
    with needs_jax.enable_x64(True):
        params, gradients = trees.map(fnn.backend.jnp.asarray, (params, gradients))
        oracle.assert_close(compiled()(prepare(optimizer, params), params, gradients), wanted, 1e-13)


# ---- an optimizer for each layer -------------------------------------------------------------------------------------


def test_each_layer_and_each_parameter_takes_the_step_of_its_own_optimizer(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    layer = fnn.DenseParams(w=xp.ones((2, 3)), b=xp.full(2, 3.0))
    params = layer, (), {"a": layer, "b": layer}, layer
    rates = fnn.Adam(0.2), None, {"a": None, "b": fnn.DenseParams(w=fnn.Muon(0.3), b=fnn.Sgd(0.4))}, fnn.Sgd(0.5)
    optimizer = prepare(fnn.PerLayer(rates), params)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    ones = lambda value: fnn.DenseParams(w=np.full((2, 3), value), b=np.full(2, value))
    oracle.assert_close(updates[0], ones(-0.2), 1e-6)
    oracle.assert_close((updates[1], updates[2]["a"]), ((), ones(0.0)), 0)
    muon = fnn.Muon(0.3)
    oracle.assert_close(updates[2]["b"].w, muon.update(layer.w, muon.init(layer.w), layer.w)[0], 1e-6)
    oracle.assert_close(updates[2]["b"].b, np.full(2, -1.2), 1e-6)
    oracle.assert_close(updates[3], fnn.DenseParams(w=np.full((2, 3), -0.5), b=np.full(2, -1.5)), 1e-6)
    assert int(state[0].count) == int(state[2]["b"].w.count) == int(state[3].count) == 1
    assert state[1] == state[2]["a"] == ()


def test_an_optimizer_for_each_layer_trains_and_none_changes_nothing(backend):
    net, loss = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Dense(3), fnn.Dense(1))), fnn.Quadratic()
    data = np.random.default_rng(0).normal(size=(40, 2)), np.ones((40, 1))
    each = fnn.Average(fnn.Sgd(0.1)), (), None, fnn.DenseParams(w=fnn.MaxNorm(fnn.Muon(), 1.0), b=fnn.Adam(0.1))
    first, last, losses = trained(net, loss, fnn.PerLayer(each), fnn.random.key(0, backend=backend), data, 5, 10)
    assert sum(losses[-4:]) < sum(losses[:4])
    oracle.assert_close(last.params[2], first.params[2], 0)
    assert all(np.any(last.params[i].w != first.params[i].w) for i in (0, 3))
    assert last.opt_state[0].average.w.shape == (4, 2)


BAD_TREES = {
    "too few": ((fnn.Sgd(0.1), fnn.Adam()), errors.ShapeError, r"PerLayer\.optimizers: expected .*begins as the param"),
    "too many": ((None,) * 4, errors.ShapeError, r"PerLayer\.optimizers: expected"),
    "a list": ([None, None, None], errors.ShapeError, r"PerLayer\.optimizers: expected"),
    "of another kind": (fnn.DenseParams(fnn.Sgd(0.1), None), errors.ShapeError, r"PerLayer\.optimizers: expected"),
    "below a parameter": (
        (fnn.DenseParams((fnn.Sgd(0.1),), None), None, None),
        errors.ShapeError,
        r"PerLayer\.optimizers\[0\]\.w: expected .* \(2, 2\), got",
    ),
    "a number": ((0.1, None, None), errors.KindError, r"PerLayer\.optimizers\[0\]: expected .* such as .*got 0\.1"),
    "a class": ((None, None, fnn.Adam), errors.KindError, r"PerLayer\.optimizers\[2\].*write Adam\("),
    "a rate below 0": (
        (None, None, fnn.DenseParams(None, fnn.Average(fnn.Sgd(-1.0)))),
        errors.ArgumentError,
        r"PerLayer\.optimizers\[2\]\.b: .*Sgd\.learning_rate >= 0",
    ),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_a_tree_of_optimizers_that_does_not_fit_is_refused_with_its_place(name, backend):
    optimizers, error, message = BAD_TREES[name]
    with pytest.raises(error, match=message):
        fnn.init_state(fnn.mlp((2, 1)), fnn.PerLayer(optimizers), fnn.random.key(0, backend=backend), (2,))


# ---- Optax's ---------------------------------------------------------------------------------------------------------

THEIRS = {  # ours and Optax's, around Adam
    "by value": (lambda tx: fnn.ClipByValue(tx, 0.7), lambda optax, tx: optax.chain(optax.clip(0.7), tx)),
    "by global norm": (
        lambda tx: fnn.ClipByGlobalNorm(tx, 4.0),
        lambda optax, tx: optax.chain(optax.clip_by_global_norm(4.0), tx),
    ),
    "accumulate": (lambda tx: fnn.Accumulate(tx, 3), lambda optax, tx: optax.MultiSteps(tx, 3)),
    "skip": (lambda tx: fnn.SkipNonFinite(tx), lambda optax, tx: optax.apply_if_finite(tx, 1000)),
    "per layer": (
        lambda tx: fnn.PerLayer((tx, None, fnn.Sgd(0.1))),
        lambda optax, tx: optax.partition(
            {"tx": tx, "none": optax.set_to_zero(), "sgd": optax.sgd(0.1)}, ("tx", "none", "sgd")
        ),
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_combinator_is_optaxs_over_100_steps(name, needs_jax):
    optax = pytest.importorskip("optax")
    make, their = THEIRS[name]
    params, gradients = problem()
    if name == "skip":
        gradients[0][[3, 50], 1] = np.nan, np.inf
    found, _ = run(prepare(make(fnn.Adam(0.1)), params), params, gradients)
    with needs_jax.enable_x64(True):
        wanted, _ = oracle.quick_jit(functools.partial(run, their(optax, optax.adam(0.1))))(params, gradients)
    oracle.assert_close(found, wanted, 1e-6)


def test_combinators_hold_optax_optimizers(needs_jax):
    optax = pytest.importorskip("optax")
    around = lambda tx: fnn.PerLayer(
        (fnn.SkipNonFinite(fnn.Accumulate(fnn.ClipByNorm(fnn.Average(tx), 2.0), 2)), tx, tx)
    )
    found, wanted = (run_on("jax", around(tx))[0] for tx in (optax.adam(0.1), fnn.Adam(0.1)))
    oracle.assert_close(found, wanted, 1e-5)


@pytest.mark.parametrize("around", [fnn.SkipNonFinite, lambda tx: fnn.Accumulate(tx, 2)])
def test_the_step_and_none_have_one_dtype_though_optax_follows_the_gradient(around, needs_jax):
    optax = pytest.importorskip("optax")
    params, grads = (fnn.backend.jnp.ones(2, dtype) for dtype in ("bfloat16", "float32"))
    optimizer = prepare(around(optax.sgd(0.1)), params)
    updates, _ = needs_jax.eval_shape(optimizer.update, grads, optimizer.init(params), params)
    assert updates.dtype == "bfloat16"


# ---- MaxNorm ---------------------------------------------------------------------------------------------------------


def lengths(w):
    return np.linalg.norm(np.asarray(w, np.float64), axis=1)


@pytest.mark.parametrize("within", [fnn.Sgd(1.0), fnn.Momentum(0.3), fnn.Adam(0.5)])
def test_max_norm_keeps_each_units_weights_within_its_length_and_lets_biases_be(within, backend):
    net, rng = fnn.mlp((6, 3)), np.random.default_rng(0)
    data = rng.normal(size=(64, 4)), 30 * rng.normal(size=(64, 3))
    key = fnn.random.key(0, backend=backend)
    _, state, _ = trained(net, fnn.Huber(), fnn.MaxNorm(within, 0.7), key, data, 5, 16)
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

"""Each combinator is what it says, in numbers and over runs; and Optax's, where that is installed."""

import functools
from typing import NamedTuple

import numpy as np
import oracle
import pytest
from helpers import compiled, on

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
    params, gradients = on(backend, (params, gradients))
    return program_on(backend)(prepare(optimizer, params), params, gradients)


@functools.cache
def program_on(backend):
    return compiled(backend, run)


def one_update(backend, optimizer, grads, params):
    """The updates of the first step and the state after it; or those of each by name, by one program for all."""

    def update(grads, params):
        if isinstance(optimizer, dict):
            return {name: tx.update(grads[name], tx.init(params[name]), params[name]) for name, tx in optimizer.items()}
        return optimizer.update(grads, optimizer.init(params), params)

    return compiled(backend, update)(*on(backend, (grads, params)))


def trained(backend, net, loss, optimizers, data, epochs, batch_size):
    """For each optimizer by name: the first state, the last one, and the loss of each step, by one program for all."""
    begin = lambda key: {name: fnn.init_state(net, tx, key, data[0].shape[1:]) for name, tx in optimizers.items()}
    step, losses = fnn.make_step(net, loss), []
    of_each = compiled(backend, lambda states, batch: {name: step(state, batch) for name, state in states.items()})
    first = states = compiled(backend, begin)(fnn.random.key(0, backend=backend))
    for _ in range(epochs):
        for i in range(0, len(data[0]), batch_size):
            found = of_each(states, tuple(a[i : i + batch_size] for a in data))
            states = {name: state for name, (state, _) in found.items()}
            losses.append({name: float(metrics["loss"]) for name, (_, metrics) in found.items()})
    return {name: (first[name], states[name], [of_step[name] for of_step in losses]) for name in optimizers}


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


def test_clipping_leaves_what_is_short_as_it_is_to_the_bit_and_takes_a_gradient_of_zero(backend):
    short = {"short": np.float32([0.1, -0.3]), "zero": np.zeros(2, np.float32)}
    cases = {(name, length): g for name in CLIPPED for length, g in short.items()}
    optimizers = {case: CLIPPED[case[0]][0]._replace(optimizer=fnn.Sgd(-1.0)) for case in cases}
    found = one_update(backend, optimizers, cases, cases)  # the update is the gradient
    oracle.assert_close({case: updates for case, (updates, _) in found.items()}, cases, 0)


class Given(NamedTuple):
    """No optimizer at all: the update is the gradient that it is given."""

    def init(self, params):
        return ()

    def update(self, grads, opt_state, params=None):
        return grads, ()


def test_clipping_keeps_the_dtype_of_the_gradient_for_whatever_is_within(backend):
    grads = {name: (np.ones(3, np.float16),) for name in CLIPPED}
    optimizers = {name: prepare(tx._replace(optimizer=Given()), grads[name]) for name, (tx, _) in CLIPPED.items()}
    found = one_update(backend, optimizers, grads, grads)
    assert {name: updates[0].dtype for name, (updates, _) in found.items()} == dict.fromkeys(CLIPPED, np.float16)


FAR_OUT = {  # a gradient of float32, and the longest that it may be: 3/5 and 4/5 of that is wanted
    "squares overflow": ((9e19, 1.2e20), 1.0),
    "the norm overflows": ((2.4e38, 3.2e38), 1.0),
    "squares underflow": ((3e-30, 4e-30), 1e-30),
}


def test_norms_neither_overflow_nor_underflow_where_the_result_does_not(backend):
    optimizers, grads, params = {}, {}, {}
    for far, (gradient, limit) in FAR_OUT.items():
        w = np.float32([gradient])
        for name in ("by norm", "by global norm"):
            optimizers[name, far] = CLIPPED[name][0]._replace(optimizer=Given(), max_norm=limit)
            grads[name, far], params[name, far] = (w,), (0 * w,)
        optimizers["MaxNorm", far] = fnn.MaxNorm(Given(), limit)
        grads["MaxNorm", far], params["MaxNorm", far] = (0 * w,), (w,)
    for (name, far), (updates, _) in one_update(backend, optimizers, grads, params).items():
        limit, w = FAR_OUT[far][1], params[name, far][0]
        found, wanted = w + np.asarray(updates[0]), [[0.6 * limit, 0.8 * limit]]
        if name == "MaxNorm":  # the sum of w = 1e38 and u = 0.6 − w has no digit left of 0.6
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * float(w.max()), err_msg=far)
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=f"{name}, {far}")


def test_a_gradient_of_nan_is_not_taken_for_a_short_one(backend):
    cases = {(name, bad): (np.float32([bad, 100]),) for name in ("by norm", "by global norm") for bad in ("nan", "inf")}
    optimizers = {case: CLIPPED[case[0]][0]._replace(optimizer=Given()) for case in cases}
    with np.errstate(invalid="ignore"):
        found = one_update(backend, optimizers, cases, cases)
    for case, ((g,), _) in found.items():
        assert np.isnan(g[0]), case
        assert not g[1] >= 1, case


def test_max_norm_leaves_alone_what_is_frozen(backend):
    params = trees.Fixed(np.full((1, 2), 9.0)), np.full((1, 2), 9.0)
    updates, _ = one_update(backend, fnn.MaxNorm(fnn.Sgd(0.1), 1.0), trees.map(lambda w: 0 * w, params), params)
    assert not np.any(updates[0].params)
    assert np.all(updates[1] < -8)


def test_the_global_norm_counts_what_is_learnt_only(backend):
    grads = trees.Fixed(np.array([1000.0])), np.array([0.5])
    updates, _ = one_update(backend, fnn.ClipByGlobalNorm(fnn.Sgd(-1.0), 1.0), grads, grads)
    oracle.assert_close(updates[1], grads[1], 0)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.thorough(backend="jax")
def test_accumulation_makes_one_step_of_the_mean_gradient(steps, backend):
    _, gradients = problem(12)
    path, state = run_on(backend, fnn.Accumulate(fnn.Sgd(0.1), steps), steps=12)
    means = [g.reshape(-1, steps, *g.shape[1:]).mean(axis=1, keepdims=True) for g in gradients]
    emitted = [np.concatenate([0 * m.repeat(steps - 1, axis=1), m], axis=1) for m in means]
    oracle.assert_close(path, path_of([e.reshape(g.shape) for e, g in zip(emitted, gradients, strict=True)]), 1e-5)
    assert int(state.inner.count) == 12 // steps, "the state within stays as it was in between"
    assert prepare(fnn.Accumulate(fnn.Sgd(0.1), steps), np.ones(1)).steps.dtype == np.int32, "float32 would miscount"
    assert not any(np.any(leaf) for leaf in trees.leaves(state.mean)), "and each mean begins anew"


@pytest.mark.thorough(backend="jax")
def test_four_accumulated_batches_are_one_large_batch(backend):
    net, loss = fnn.mlp((3, 1), activation=fnn.Tanh()), fnn.Quadratic()
    data = np.random.default_rng(0).normal(size=(40, 2)), np.ones((40, 1))
    found = []
    for optimizer, batch_size in ((fnn.Accumulate(fnn.Adam(0.1), 4), 5), (fnn.Adam(0.1), 20)):
        _, state, _ = trained(backend, net, loss, {"it": optimizer}, data, 2, batch_size)["it"]
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


@pytest.mark.thorough(backend="jax")
def test_a_step_that_is_not_finite_changes_nothing_but_its_count(backend):
    _, gradients = problem(10)
    good = tuple(np.delete(g, [4, 7], axis=0) for g in gradients)
    wanted, within = run_on(backend, fnn.Adam(0.1), good, steps=8)
    for value in (np.nan, np.inf, -np.inf):
        bad = tuple(g.copy() for g in gradients)
        bad[0][4, 2] = bad[2][7, 1, 1] = value
        path, state = run_on(backend, fnn.SkipNonFinite(fnn.Adam(0.1)), bad, steps=10)
        oracle.assert_close(tuple(w[-1] for w in path), tuple(w[-1] for w in wanted), 1e-6)
        oracle.assert_close(state.inner, within, 1e-6)
        assert int(state.skipped) == 2
        assert all(np.array_equal(w[3], w[4]) and np.array_equal(w[6], w[7]) for w in path)


def test_a_step_that_overflows_is_skipped_though_its_gradient_is_finite(backend):
    optimizer, params = fnn.SkipNonFinite(fnn.Momentum(2e38)), on(backend, np.float32([-3e38, 2.0]))
    before, update = on(backend, optimizer.init(params)), compiled(backend, optimizer.update)
    skipped = before
    with np.errstate(over="ignore"):
        for grads in ([0.1, 3.0], [1.0, 0.0]):  # u overflows, and w + u
            updates, skipped = update(on(backend, np.float32(grads)), skipped, params)
            assert np.asarray(updates).tolist() == [0, 0]
    assert int(skipped.skipped) == 2
    oracle.assert_close(skipped.inner, before.inner, 0)
    updates, after = update(on(backend, np.float32([-0.5, 0.0])), skipped, params)
    assert float(updates[0]) == np.float32(1e38)
    assert (int(after.skipped), int(after.inner.count)) == (2, 1)


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
    optimizer = fnn.ClipByGlobalNorm(fnn.Average(fnn.AdamW(0.1)), 1.0)
    first, state, _ = trained(backend, net, fnn.Quadratic(), {"it": optimizer}, data, 5, 10)["it"]
    oracle.assert_close(state.opt_state.average[0], first.params[0], 0)
    average = on("numpy", state.opt_state.average)
    assert fnn.evaluate(net, fnn.Quadratic(), average, data)["loss"] < 0.5
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
    params = trees.Fixed(np.ones(2)), np.ones(2)
    _, state = one_update(backend, fnn.Average(Given()), params, params)
    oracle.assert_close(state.average, (trees.Fixed(np.ones(2)), np.full(2, 2.0)), 0)


@pytest.mark.parametrize("optimizer", [fnn.Average(fnn.Sgd(0.1), 1.0), fnn.Accumulate(fnn.Sgd(0.1), 3)])
def test_in_float64_counts_are_divided_in_float64(optimizer, needs_jax):
    params, gradients = problem()
    wanted = run(prepare(optimizer, params), params, gradients)
    with needs_jax.enable_x64(True):
        params, gradients = trees.map(fnn.backend.jnp.asarray, (params, gradients))
        oracle.assert_close(program_on("jax")(prepare(optimizer, params), params, gradients), wanted, 1e-13)


# ---- an optimizer for each layer -------------------------------------------------------------------------------------


def test_each_layer_and_each_parameter_takes_the_step_of_its_own_optimizer(backend):
    layer = fnn.DenseParams(w=np.ones((2, 3)), b=np.full(2, 3.0))
    params = layer, (), {"a": layer, "b": layer}, layer
    rates = fnn.Adam(0.2), None, {"a": None, "b": fnn.DenseParams(w=fnn.Muon(0.3), b=fnn.Sgd(0.4))}, fnn.Sgd(0.5)
    updates, state = one_update(backend, prepare(fnn.PerLayer(rates), params), params, params)
    ones = lambda value: fnn.DenseParams(w=np.full((2, 3), value), b=np.full(2, value))
    oracle.assert_close(updates[0], ones(-0.2), 1e-6)
    oracle.assert_close((updates[1], updates[2]["a"]), ((), ones(0.0)), 0)
    muon = fnn.Muon(0.3)
    oracle.assert_close(updates[2]["b"].w, muon.update(layer.w, muon.init(layer.w), layer.w)[0], 1e-6)
    oracle.assert_close(updates[2]["b"].b, np.full(2, -1.2), 1e-6)
    oracle.assert_close(updates[3], fnn.DenseParams(w=np.full((2, 3), -0.5), b=np.full(2, -1.5)), 1e-6)
    assert int(state[0].count) == int(state[2]["b"].w.count) == int(state[3].count) == 1
    assert state[1] == state[2]["a"] == ()


@pytest.mark.thorough(backend="jax")
def test_an_optimizer_for_each_layer_trains_and_none_changes_nothing(backend):
    net, loss = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Dense(3), fnn.Dense(1))), fnn.Quadratic()
    data = np.random.default_rng(0).normal(size=(40, 2)), np.ones((40, 1))
    each = fnn.Average(fnn.Sgd(0.1)), (), None, fnn.DenseParams(w=fnn.MaxNorm(fnn.Muon(), 1.0), b=fnn.Adam(0.1))
    first, last, losses = trained(backend, net, loss, {"it": fnn.PerLayer(each)}, data, 5, 10)["it"]
    assert sum(losses[-4:]) < sum(losses[:4])
    oracle.assert_close(last.params[2], first.params[2], 0)
    assert all(np.any(last.params[i].w != first.params[i].w) for i in (0, 3))
    assert last.opt_state[0].average.w.shape == (4, 2)


BAD_TREES = {
    "too few": ((fnn.Sgd(0.1), fnn.Adam()), errors.ShapeError, r"PerLayer\.optimizers: expected .*matches the top of"),
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


@pytest.mark.thorough(backend="jax")
def test_max_norm_keeps_each_units_weights_within_its_length_and_lets_biases_be(backend):
    net, rng = fnn.mlp((6, 3)), np.random.default_rng(0)
    data = rng.normal(size=(64, 4)), 30 * rng.normal(size=(64, 3))
    optimizers = {str(within): fnn.MaxNorm(within, 0.7) for within in (fnn.Sgd(1.0), fnn.Momentum(0.3), fnn.Adam(0.5))}
    for name, (_, state, _) in trained(backend, net, fnn.Huber(), optimizers, data, 5, 16).items():
        found = [lengths(state.params[0].w), lengths(state.params[2].w)]
        assert all((length <= 0.7 * (1 + 1e-5)).all() for length in found), name
        assert max(length.max() for length in found) > 0.69, f"{name}: some rows are at the limit"
        assert np.abs(np.asarray(state.params[2].b)).max() > 0.7, name


def test_max_norm_shortens_a_row_and_does_not_turn_it(backend):
    params, grads = np.array([[3.0, 4.0], [0.3, 0.4]]), np.array([[0.0, 0.0], [0.1, 0.0]])
    updates, _ = one_update(backend, prepare(fnn.MaxNorm(fnn.Sgd(1.0), 1.0), params), grads, params)
    np.testing.assert_allclose(fnn.apply_updates(params, np.asarray(updates)), [[0.6, 0.8], [0.2, 0.4]], rtol=1e-6)


def test_max_norm_holds_an_optax_optimizer_and_its_limit_is_a_leaf(needs_jax):
    import jax

    optax = pytest.importorskip("optax")
    net = fnn.Dense(3, bias=False)
    data = np.ones((4, 2), np.float32), 100 * np.ones((4, 3), np.float32)

    def longest(limit):
        state = fnn.init_state(net, fnn.MaxNorm(optax.sgd(0.1), limit), fnn.random.key(0), (2,))
        state, _ = fnn.train(net, fnn.Quadratic(), state, data, epochs=3, batch_size=4)
        return jax.numpy.sqrt((state.params.w**2).sum(axis=1)).max()

    limits = np.float32([0.5, 2.0])
    np.testing.assert_allclose(oracle.quick_jit(jax.vmap(longest))(limits), limits, rtol=1e-5)


@pytest.mark.parametrize("around", [fnn.ClipByNorm, fnn.ClipByGlobalNorm, fnn.MaxNorm])
def test_derivatives_are_numbers_where_the_whole_gradient_is_0(around, needs_jax):
    """w ← w − η 0 w: whatever the limit is, a change of w is a change of what follows."""
    w = fnn.backend.jnp.zeros((2, 2))

    def moved(limit, w):
        optimizer = around(fnn.Sgd(0.1), limit)
        return w + optimizer.update(0 * w, optimizer.init(w), w)[0]

    _, forwards = needs_jax.linearize(moved, np.float32(1), w)
    np.testing.assert_array_equal(forwards(np.float32(1), w + 1), w + 1)
    by_limit, by_w = needs_jax.linear_transpose(forwards, np.float32(1), w)(w + 1)
    assert by_limit == 0
    np.testing.assert_array_equal(by_w, w + 1)

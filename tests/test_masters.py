"""Masters: parameters of 16 bits follow float32 copies, which take every step in full."""

import numpy as np
import oracle
import pytest
from helpers import compiled, descent_problem, key, on
from helpers_training import same

import fnn
from fnn import trees
from fnn.backend import jax
from fnn.optimizers import Mastered, prepare

NARROW = [("numpy", "float16"), *([] if jax is None else [("jax", "bfloat16")])]


def narrow(backend, tree, dtype):
    return trees.map(lambda a: a.astype(dtype), on(backend, trees.map(np.float32, tree)))


@pytest.mark.parametrize(("backend", "dtype"), NARROW)
def test_masters_are_what_the_inner_optimizer_makes_in_float32_and_parameters_follow_to_the_bit(backend, dtype):
    start, gradients = descent_problem(30, dtype=np.float32)
    params = narrow(backend, start, dtype)
    optimizer = prepare(fnn.Masters(fnn.AdamW(0.01)), params)
    state, wide = optimizer.init(params), trees.map(lambda w: w.astype(np.float32), params)
    plain = optimizer.optimizer.init(wide)

    def step(params, state, wide, plain, grads):
        updates, state = optimizer.update(grads, state, params)
        theirs, plain = optimizer.optimizer.update(trees.map(lambda g: g.astype(np.float32), grads), plain, wide)
        return fnn.apply_updates(params, updates), state, fnn.apply_updates(wide, theirs), plain

    step = compiled(backend, step)
    for t in range(30):
        grads = narrow(backend, tuple(g[t] for g in gradients), dtype)
        params, state, wide, plain = step(params, state, wide, plain, grads)
        same(trees.map(np.float64, params), trees.map(lambda m: np.float64(m.astype(dtype)), state.masters))
    oracle.assert_close(state, Mastered(wide, plain), 1e-6)
    assert {w.dtype for w in trees.leaves(params)} == {np.dtype(dtype)}
    assert {w.dtype for w in trees.leaves(state.masters)} == {np.dtype(np.float32)}


def test_small_steps_add_up_which_without_masters_are_rounded_away(backend):
    params = on(backend, np.ones(3, np.float16))
    found = {}
    for name, optimizer in {"plain": fnn.Sgd(1.0), "masters": fnn.Masters(fnn.Sgd(1.0))}.items():
        w, state = params, optimizer.init(params)
        for _ in range(40):
            updates, state = optimizer.update(on(backend, np.full(3, -1e-4, np.float16)), state, w)
            w = fnn.apply_updates(w, updates)
        found[name] = np.asarray(w)
    np.testing.assert_array_equal(found["plain"], 1)
    np.testing.assert_allclose(found["masters"], 1.004, atol=5e-4)


def test_a_skipped_step_leaves_parameters_and_masters_and_what_is_frozen_stays():
    params = trees.Fixed(np.ones(2, np.float16)), np.float16([1, 2])
    optimizer = fnn.Masters(fnn.SkipNonFinite(fnn.Sgd(0.5)))
    state = optimizer.init(params)
    for grads, wanted in (([1, 1], [0.5, 1.5]), ([np.inf, 1], [0.5, 1.5]), ([0, 1], [0.5, 1])):
        updates, state = optimizer.update((trees.Fixed(np.float16([3, 3])), np.float16(grads)), state, params)
        assert not np.any(updates[0].params)
        params = fnn.apply_updates(params, updates)
        np.testing.assert_array_equal(params[1], np.float16(wanted))
        same(state.masters, trees.map(np.float32, params))
    assert int(state.inner.skipped) == 1


def test_a_run_with_masters_stops_anywhere_and_goes_on_from_its_file(tmp_path):
    net, loss = fnn.mlp((4, 1)), fnn.Quadratic()
    data = np.random.default_rng(0).normal(size=(24, 3)), np.ones((24, 1))
    how = {"key": key(), "batch_size": 8, "checkpoint": tmp_path}
    state = lambda n, **more: fnn.fit(net, loss, fnn.Masters(fnn.Adam(0.01)), data, epochs=n, **how, **more)[0]
    state(1)
    resumed = state(2, resume=True)
    fresh, _ = fnn.fit(net, loss, fnn.Masters(fnn.Adam(0.01)), data, epochs=2, key=key(), batch_size=8)
    same(resumed, fresh)


def test_updates_wider_than_the_parameters_are_added_before_they_are_rounded(backend):
    w, u = on(backend, (np.float16([1.0]), np.float32([2**-11 + 2**-20])))
    after = fnn.apply_updates(w, u)
    assert after.dtype == np.float16
    assert float(after[0]) == 1 + 2**-10  # in float16 u is 2⁻¹¹, and 1 + 2⁻¹¹ rounds to even

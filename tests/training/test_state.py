"""The state of a run: how it begins, what it holds, and how far its counters reach."""

import numpy as np
import pytest
from helpers import blobs, key, run_problem
from helpers_training import on_numpy_at_least, same

import fnn
from fnn import errors, trees
from fnn.backend import jax
from fnn.training.state import LARGEST, next_epoch


def test_a_state_begins_with_the_networks_parameters_and_all_counters_at_0(backend):
    net, _, state, _ = run_problem(backend)
    of_init, of_run = fnn.random.split(key(backend))
    same(state.params, net.init(of_init, (6,)), 1e-6)
    same(state.key, of_run)
    for name in ("step", "epoch", "seen", "length"):
        counter = getattr(state, name)
        assert (counter.shape, counter.dtype, int(counter)) == ((), np.int32, 0)
    assert state.rule == fnn.rules.Backprop()
    assert state.rule_state == ()


def test_order_layers_sampler_and_rule_draw_from_streams_of_their_own(monkeypatch):
    """Streams 0 to 3 of the key of the run, and 4 for the first state of a rule: no two keys of a run are the same."""
    seen, fold_in = [], fnn.random.fold_in
    drawn = lambda k, i: seen.append((tuple(np.asarray(k).tolist()), int(i))) or fold_in(k, i)
    net = fnn.Serial((fnn.Dropout(0.5), fnn.Dense(3)))
    monkeypatch.setattr(fnn.random, "fold_in", drawn)
    for rule in (None, fnn.rules.Private(1.0, 1.0)):
        seen.clear()
        _, loss, state, data = run_problem("numpy", net=net, rule=rule)
        fnn.train(net, loss, state, data, steps=2, batch_size=25)
        root = tuple(state.key.tolist())
        streams = {i for k, i in seen if k == root}
        assert streams == ({0, 1} if rule is None else {1, 2, 3, 4})
        of_streams = [tuple(fold_in(state.key, i).tolist()) for i in sorted(streams)]
        for i, k in zip(sorted(streams), of_streams, strict=True):
            steps = {t for parent, t in seen if parent == k}
            assert steps == (set() if i == 4 else {0, 1})
        of_steps = [k for i, k in zip(sorted(streams), of_streams, strict=True) if i != 4]
        keys = {fold_in(np.array(k, np.uint32), t).tobytes() for k in of_steps for t in (0, 1)}
        assert len(keys) == 2 * len(of_steps)


def test_the_next_epoch_drops_one_that_was_begun(backend):
    _, _, state, _ = run_problem(backend)
    xp = fnn.backend.namespace(state.key)
    for seen, epoch in ((0, 3), (7, 4)):
        after = next_epoch(state._replace(epoch=xp.asarray(3, np.int32), seen=xp.asarray(seen, np.int32)))
        assert (int(after.epoch), int(after.seen)) == (epoch, 0)
        assert after.epoch.dtype == after.seen.dtype == np.int32


def test_counters_that_would_not_hold_what_is_to_come_are_refused():
    net, loss, state, data = run_problem("numpy")
    near_end = state._replace(step=np.int32(LARGEST - 5))
    how = {"batch_size": 50, "shuffle": False}
    assert int(fnn.train(net, loss, near_end, data, epochs=5, **how)[0].step) == LARGEST
    says = r"state\.step: expected at most 2,147,483,647 in all, got 2,147,483,642 and 6 more"
    with pytest.raises(errors.ArgumentError, match=says):
        fnn.train(net, loss, near_end, data, epochs=6, **how)
    with pytest.raises(errors.ArgumentError, match=says):
        fnn.train(net, loss, near_end, data, epochs=1, batch_size=9, shuffle=False)
    with pytest.raises(errors.ArgumentError, match=r"state\.step: .* 6 more"):
        fnn.fit(net, loss, near_end, data, epochs=6, **how)
    with pytest.raises(errors.ArgumentError, match=r"state\.epoch: expected at most 2,147,483,647 in all"):
        fnn.train(net, loss, state._replace(epoch=np.int32(LARGEST)), data, epochs=1, **how)
    with pytest.raises(errors.ArgumentError, match=r"state\.step: .* 1 more"):
        fnn.make_step(net, loss)(state._replace(step=np.int32(LARGEST)), data)
    with pytest.raises(errors.ArgumentError, match=r"state\.step: expected .* got -2,147,483,648"):
        fnn.make_step(net, loss)(state._replace(step=np.int32(-(2**31))), data)


def test_a_number_that_is_replaced_is_checked_and_converted(backend):
    net, loss, state, data = run_problem(backend, fnn.ClipByGlobalNorm(fnn.Sgd(0.1), 1.0))
    of = lambda rate: state._replace(optimizer=state.optimizer._replace(optimizer=fnn.Sgd(rate)))
    how = {"epochs": 1, "batch_size": 50}
    for run in (
        lambda state: fnn.train(net, loss, state, data, **how),
        lambda state: fnn.fit(net, loss, state, data, **how),
        lambda state: fnn.make_step(net, loss)(state, data),
    ):
        with pytest.raises(errors.ArgumentError, match=r"Sgd\.learning_rate >= 0, got Sgd\.learning_rate = -1"):
            run(of(-1))
    after, _ = fnn.make_step(net, loss)(of(0.5), data)
    assert after.optimizer.optimizer.learning_rate.dtype == np.float32


@on_numpy_at_least
def test_the_state_of_another_optimizer_is_refused(backend):
    net, loss, state, data = run_problem(backend, fnn.Sgd(0.1))
    adam, momentum = (run_problem(backend, o)[2].opt_state for o in (fnn.Adam(0.1), fnn.Momentum(0.1)))
    says = "expected its own state, "
    for optimizer, opt_state in ((fnn.Sgd(0.1), adam), (fnn.Adam(0.1), momentum), (fnn.Lion(0.1), momentum)):
        mixed = state._replace(optimizer=optimizer, opt_state=opt_state)
        with pytest.raises(errors.KindError, match=f"{type(optimizer).__name__}: {says}"):
            fnn.make_step(net, loss)(mixed, data)
        with pytest.raises(errors.KindError, match=says):
            fnn.fit(net, loss, mixed, data, epochs=1, batch_size=50)


# ---- parameters that are given ---------------------------------------------------------------------------------------


def test_given_parameters_of_another_network_are_refused():
    _, _, state, _ = run_problem("numpy")
    with pytest.raises(errors.ShapeError, match=r"params\[0\]\.w: expected shape \(9, 6\), got \(8, 6\)"):
        fnn.init_state(fnn.mlp((9, 3)), fnn.Sgd(0.1), state.key, (6,), params=state.params)


@on_numpy_at_least
def test_given_parameters_are_copied_and_never_locked(backend):
    net, loss, state, data = run_problem(backend)
    mine = trees.map(lambda p: np.array(p), state.params) if backend == "numpy" else state.params
    again = fnn.init_state(net, fnn.Sgd(0.1), key(backend, 1), (6,), params=mine)
    fnn.train(net, loss, again, data, epochs=1, batch_size=10)
    same(again.params, state.params)
    if backend == "numpy":
        mine[0].w[0, 0] = 5.0
        assert again.params[0].w[0, 0] != 5.0


def test_parameters_that_are_no_floating_point_are_refused(backend):
    xp = np if backend == "numpy" else jax.numpy
    whole = fnn.DenseParams(xp.ones((2, 3), dtype=np.int32), xp.zeros(2, dtype=np.int32))
    with pytest.raises(errors.KindError, match=r"params\.w: expected a floating-point array"):
        fnn.init_state(fnn.Dense(2), fnn.Sgd(0.1), key(backend), (3,), params=whole)
    state = fnn.init_state(fnn.Dense(2), fnn.Sgd(0.1), key(backend), (3,))._replace(params=whole)
    with pytest.raises(errors.KindError, match=r"params\.w: expected a floating-point array, got int32"):
        fnn.train(fnn.Dense(2), fnn.Quadratic(), state, (np.ones((4, 3)), np.ones((4, 2))), epochs=1, batch_size=2)


def test_numpy_parameters_of_float64_may_be_given_beside_jax():
    net = fnn.Dense(2)
    params = net.init(key(), (3,), np.float64)
    assert fnn.init_state(net, fnn.Sgd(0.1), key(), (3,), np.float64, params).params.w.dtype == np.float64


def test_numpy_parameters_among_those_of_jax_go_to_jax(needs_jax):
    net, _, state, _ = run_problem("jax", fnn.Adam(0.01))
    mixed = (state.params[0]._replace(b=np.asarray(state.params[0].b)), *state.params[1:])
    again = fnn.init_state(net, state.optimizer, key("jax"), (6,), params=mixed)
    assert all(isinstance(leaf, needs_jax.Array) for leaf in trees.leaves(again))
    same(again.params, state.params)
    wide = (state.params[0]._replace(b=np.zeros(8)), *state.params[1:])
    with pytest.raises(errors.ArgumentError, match=r"params\[0\]\.b: dtype: float64 on JAX needs .*jax_enable_x64"):
        fnn.init_state(net, fnn.Sgd(0.1), key("jax"), (6,), params=wide)


def test_what_is_no_state_is_refused():
    net, loss, state, data = run_problem("numpy")
    with pytest.raises(errors.KindError, match=r"state: expected a TrainState, as fnn\.init_state gives"):
        fnn.train(net, loss, state.params, blobs(), epochs=1, batch_size=10)
    with pytest.raises(errors.KindError, match="TrainState"):
        fnn.make_step(net, loss)(state.params, data)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_parameters_have_the_dtype_that_was_asked_for(dtype, needs_jax):
    state = fnn.init_state(fnn.mlp((4, 3)), fnn.Adam(), fnn.random.key(0), (2,), dtype)
    assert {str(leaf.dtype) for leaf in fnn.trees.leaves(state.params)} == {dtype}

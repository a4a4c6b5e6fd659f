"""Many runs in one call are each run alone; folds hold every example out once; an ensemble is its mean and spread."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import THOROUGH, blobs
from helpers_training import compilations, on_numpy_at_least, same

import fnn
from fnn import errors, trees

NET, LOSS, DATA = fnn.mlp((4, 3)), fnn.SoftmaxCrossEntropy(), blobs(20)


def run(key, learning_rate):
    state = fnn.init_state(NET, fnn.Momentum(learning_rate), key, (6,))
    return fnn.train(NET, LOSS, state, DATA, epochs=2, batch_size=8)


def runs(backend, n=5):
    keys = fnn.random.split(fnn.random.key(3, backend=backend), n)
    rates = np.linspace(0.01, 0.1, n, dtype=np.float32)
    return keys, rates if backend == "numpy" else fnn.backend.jax.numpy.asarray(rates)


def test_a_sweep_is_each_run_alone(backend):
    states, histories = fnn.sweep(run, *runs(backend), chunk=2)  # five runs, by two
    assert histories["loss"].shape == (5, 6)
    for i, arguments in enumerate(zip(*runs("numpy"), strict=True)):  # alone on NumPy, the reference
        state, history = run(*arguments)
        same(trees.map(lambda leaf, i=i: leaf[i], states.params), state.params, 1e-4)
        np.testing.assert_allclose(histories["loss"][i], history["loss"], rtol=1e-4)
    assert len({float(last) for last in histories["loss"][:, -1]}) == 5, "they are different runs"


def test_a_run_that_is_on_jax_is_swept_there_whatever_the_arguments(needs_jax):
    key, scales = fnn.random.key(0), np.float32([1, 2, 3])
    found, keys = fnn.sweep(lambda scale: (scale * fnn.random.normal(key, (2,)), key), scales)
    assert isinstance(found, needs_jax.Array)
    np.testing.assert_allclose(found, scales[:, None] * fnn.random.normal(key, (2,)), rtol=1e-6)
    assert keys.shape == (3,)


@pytest.mark.parametrize("chunk", [None, 5, 100])
def test_a_sweep_does_not_depend_on_its_chunks_and_compiles_once(chunk, needs_jax):
    draw = lambda key, scale: scale * fnn.random.normal(key, (3,))
    keys, scales = runs("jax")
    found = fnn.sweep(draw, keys, scales, chunk=chunk)
    np.testing.assert_allclose(found, [draw(key, scale) for key, scale in zip(keys, scales, strict=True)], rtol=1e-5)
    doubled = 2 * scales
    with compilations() as programs:
        fnn.sweep(draw, keys, doubled, chunk=chunk)
    assert programs == []


TWO_DEVICES = """
import sys, jax, numpy as np, fnn
keys, rates = fnn.random.split(fnn.random.key(3), 5), jax.numpy.linspace(0.01, 0.1, 5)
assert jax.local_device_count() == 2
draw = lambda key, rate: rate * fnn.random.normal(key, (3,))
alone = [rate * fnn.random.normal(key, (3,)) for key, rate in
         zip(fnn.random.split(fnn.random.key(3, backend="numpy"), 5), np.asarray(rates))]
committed = jax.device_put((keys, rates), jax.devices()[0])
np.testing.assert_allclose(fnn.sweep(draw, *committed, chunk=2), alone, rtol=1e-5)  # three on each device, by two
assert len(fnn.sweep(draw, keys[:4], rates[:4]).sharding.device_set) == 2, "both devices work"
mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
with jax.set_mesh(mesh):
    np.testing.assert_allclose(fnn.sweep(draw, keys, rates), alone, rtol=1e-5)
if sys.argv[1] == "train":
    net, loss, data = fnn.mlp((4, 3)), fnn.SoftmaxCrossEntropy(), (np.random.rand(20, 6), np.arange(20) % 3)

    def run(key, learning_rate):
        state = fnn.init_state(net, fnn.Momentum(learning_rate), key, (6,))
        return fnn.train(net, loss, state, data, epochs=2, batch_size=8)[0].params

    found = fnn.sweep(run, keys, rates, chunk=2)
    for i in (0, 2, 4):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(run(keys[i], rates[i]))):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.thorough
def test_a_sweep_over_two_devices_is_the_sweep_on_one(needs_jax):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    what = "train" if THOROUGH else "draw"
    subprocess.run([sys.executable, "-c", TWO_DEVICES, what], env=environment, check=True)


@pytest.mark.parametrize(
    ("args", "chunk", "message"),
    [
        ((), None, "got shapes none"),
        ((np.ones(3), np.ones(2)), None, r"one leading axis of runs, got shapes \(3,\), \(2,\)"),
        ((np.float32(1),), None, r"got shapes \(\)"),
        ((np.ones((0, 2)),), None, r"got shapes \(0, 2\)"),
        ((np.ones(3),), 0, "chunk"),
    ],
)
def test_a_sweep_over_nothing_common_is_refused(args, chunk, message):
    with pytest.raises((errors.ShapeError, errors.ArgumentError), match=message):
        fnn.sweep(lambda *a: a, *args, chunk=chunk)


@pytest.mark.parametrize(("n", "k"), [(5, 2), (10, 10), (200, 7)])
@on_numpy_at_least
def test_folds_hold_every_example_out_once_in_parts_of_one_size(n, k, backend):
    held = np.asarray(fnn.folds(fnn.random.key(1, backend=backend), n, k))
    assert held.shape == (k, n)
    assert held.dtype == bool
    assert (held.sum(axis=0) == 1).all()
    assert set(held.sum(axis=1)) <= {n // k, -(-n // k)}
    if n > k:
        assert not np.array_equal(held, np.arange(n) % k == np.arange(k)[:, None]), "in an order of the key's"
    np.testing.assert_array_equal(held, fnn.folds(fnn.random.key(1, backend="numpy"), n, k))


def test_more_folds_than_examples_are_refused():
    with pytest.raises(errors.ArgumentError, match="as many folds as examples, 3, got 4"):
        fnn.folds(fnn.random.key(0), 3, 4)


@pytest.mark.thorough(backend="jax")
def test_a_cross_validation_is_one_call_and_never_learns_from_what_it_holds_out(backend):
    key = fnn.random.key(0, backend=backend)
    x, y = DATA
    held = fnn.folds(key, len(x), 4)

    def fold(held, y):
        state = fnn.init_state(NET, fnn.Sgd(0.1), key, (6,))
        return fnn.train(NET, LOSS, state, (x, y, ~held), epochs=2, batch_size=8, validation=(x, y, held))

    states, histories = fnn.sweep(fold, held, np.stack([y] * 4))
    assert histories["validation_loss"].shape == (4, 2)
    other = np.where(np.asarray(held[2]), (y + 1) % 3, y)  # other labels for what fold 2 holds out
    wrong, _ = fnn.sweep(fold, held, np.stack([other] * 4))
    third = lambda states: trees.map(lambda leaf: leaf[2], states.params)
    same(third(wrong), third(states), 1e-7)
    assert any(np.any(a[1] != b[1]) for a, b in zip(*map(trees.leaves, (wrong.params, states.params)), strict=True))


@on_numpy_at_least
def test_an_ensemble_is_the_mean_of_its_members_and_their_spread(backend):
    params = fnn.sweep(lambda key: NET.init(key, (6,)), runs(backend)[0])
    mean, spread = fnn.ensemble(NET, LOSS)(params, DATA[0])
    each = [LOSS.predict(NET.apply(trees.map(lambda leaf, i=i: leaf[i], params), DATA[0])) for i in range(5)]
    np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-5)
    np.testing.assert_allclose(spread, np.std(each, axis=0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=1e-5)  # of probabilities


@on_numpy_at_least
def test_an_ensemble_wants_a_cost_and_stacked_parameters(backend):
    params = NET.init(fnn.random.key(0, backend=backend), (6,))
    with pytest.raises(errors.ShapeError, match="params: expected those of K networks, stacked"):
        fnn.ensemble(NET, LOSS)(params, DATA[0])
    with pytest.raises(errors.KindError, match="loss: expected a loss"):
        fnn.ensemble(NET, None)

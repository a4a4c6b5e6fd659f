"""A run is a function of its state: on both backends, cut anywhere, alone or in a sweep; nothing is compiled twice."""

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import oracle
import pytest

import fnn
from fnn import batching, errors, training


def blobs(n=50, inputs=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return rng.normal(size=(classes, inputs))[y] * 2 + rng.normal(size=(n, inputs)), y


def problem(backend, optimizer=None, net=None):
    net = net or fnn.mlp((8, 3))
    state = fnn.init_state(net, optimizer or fnn.Sgd(0.1), fnn.random.key(0, backend=backend), (6,))
    return net, fnn.SoftmaxCrossEntropy(), state, blobs()


@pytest.mark.parametrize("optimizer", [fnn.Sgd(0.1), fnn.Momentum(0.05), fnn.Nesterov(0.05), fnn.Adam(0.01)])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_training_learns_by_stochastic_mini_batch_and_batch_descent(optimizer, batch_size, backend):
    net, loss, state, data = problem(backend, optimizer)
    before = fnn.evaluate(net, loss, state.params, data)["loss"]
    state, history = fnn.train(net, loss, state, data, epochs=4, batch_size=batch_size)
    steps = 4 * -(-50 // batch_size)
    assert int(state.step) == steps
    assert history["loss"].shape == history["weight"].shape == (steps,)
    assert fnn.evaluate(net, loss, state.params, data)["loss"] < before
    assert isinstance(state.params[0].w, np.ndarray) == (backend == "numpy")


@pytest.mark.parametrize("batch_size", [16, 50])
def test_a_run_is_the_loop_that_a_textbook_writes(batch_size, backend):
    net, loss, state, (x, y) = problem(backend)
    trained, history = fnn.train(net, loss, state, (x, y), epochs=2, batch_size=batch_size)
    params, losses = state.params, []
    for epoch in range(2):
        order = batching.order(fnn.random.fold_in(fnn.random.fold_in(state.key, 0), epoch), 50)
        for start in range(0, 50, batch_size):
            index = np.asarray(order[start : start + batch_size])  # a ragged last batch is simply shorter here
            value, grads = fnn.value_and_grad(net, loss)(params, x[index], y[index])
            params = fnn.trees.map(lambda p, g: p - np.float32(0.1) * g, params, grads)
            losses.append(float(value))
    oracle.assert_close(trained.params, params, 1e-5)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)


@dataclass(frozen=True)
class Recording(fnn.Loss):
    """A cost whose gradient counts how often each example was used."""

    def value(self, prediction, target):
        return (prediction * target).sum(axis=1)

    def delta(self, prediction, target):
        return target + 0 * prediction


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8, 10])
def test_every_example_is_used_exactly_once_an_epoch(batch_size, backend):
    net = fnn.Dense(10, bias=False, initializer=fnn.Zeros())
    data = np.ones((10, 1)), np.eye(10)
    state = fnn.init_state(net, fnn.Sgd(1.0), fnn.random.key(1, backend=backend), (1,))
    state, history = fnn.train(net, Recording(), state, data, epochs=1, batch_size=batch_size)
    index, used = batching.batches(state.key, 10, batch_size, 0, -(-10 // batch_size))
    weight = np.asarray(history["weight"])
    assert weight.sum() == 10, "padding has no weight"
    w = np.asarray(state.params.w)[:, 0]
    for i, of_batch in zip(
        np.asarray(index), np.asarray(used), strict=True
    ):  # each moved by 1 / size of its batch, once
        np.testing.assert_allclose(w[i[of_batch]], -1 / of_batch.sum(), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [7, 10, 50])
def test_two_runs_of_two_epochs_are_one_run_of_four(batch_size, backend):
    net = fnn.Serial((fnn.Dropout(0.2), *fnn.mlp((8, 3)).layers))
    net, loss, state, data = problem(backend, fnn.Adam(0.01), net)
    whole, history = fnn.train(net, loss, state, data, epochs=4, batch_size=batch_size)
    half, first = fnn.train(net, loss, state, data, epochs=2, batch_size=batch_size)
    cut, second = fnn.train(net, loss, half, data, epochs=2, batch_size=batch_size)
    oracle.assert_close(cut, whole, 1e-6) if backend == "numpy" else oracle.assert_close(cut.params, whole.params, 1e-6)
    np.testing.assert_allclose(np.concatenate([first["loss"], second["loss"]]), history["loss"], rtol=1e-6)


def test_a_run_that_begins_within_an_epoch_goes_on_with_its_order(backend):
    net, loss, state, data = problem(backend)
    whole, _ = fnn.train(net, loss, state, data, epochs=2, batch_size=10)
    step = fnn.make_step(net, loss)
    for t in range(3):
        index = np.asarray(batching.batches(state.key, 50, 10, t, 1)[0][0])
        state, _ = step(state, (data[0][index], data[1][index]))
    state, _ = fnn.train(net, loss, state, data, epochs=1, batch_size=10)  # steps 3 to 7
    for t in (8, 9):
        index = np.asarray(batching.batches(state.key, 50, 10, t, 1)[0][0])
        state, _ = step(state, (data[0][index], data[1][index]))
    oracle.assert_close(state.params, whole.params, 1e-5)


def test_without_shuffling_the_examples_come_in_their_order(backend):
    net, loss, state, (x, y) = problem(backend)
    ordered, _ = fnn.train(net, loss, state, (x, y), epochs=1, batch_size=20, shuffle=False)
    step = fnn.make_step(net, loss)
    for start in range(0, 50, 20):
        state, _ = step(state, (x[start : start + 20], y[start : start + 20]))
    oracle.assert_close(ordered.params, state.params, 1e-5)


def test_a_validated_run_is_the_plain_run_and_keeps_the_best_parameters(backend):
    net, loss, state, data = problem(backend, fnn.Sgd(3.0))  # so large that the best epoch is not the last
    held = (*blobs(30, seed=5), np.arange(30) % 3)
    options = {"batch_size": 8, "validation": held, "metrics": {"accuracy": fnn.accuracy}}
    trained, history = fnn.train(net, loss, state, data, epochs=6, **options)
    assert history["validation_loss"].shape == history["validation_accuracy"].shape == (6,)
    least = int(np.argmin(history["validation_loss"]))
    assert least < 5
    wanted = state
    for epoch in range(6):
        wanted, _ = fnn.train(net, loss, wanted, data, epochs=1, batch_size=8)
        found = fnn.evaluate(net, loss, wanted.params, held, metrics={"accuracy": fnn.accuracy})
        assert history["validation_loss"][epoch] == pytest.approx(found["loss"], 1e-3)
        assert history["validation_accuracy"][epoch] == pytest.approx(found["accuracy"], abs=0.05)
        if epoch == least:
            oracle.assert_close(history["best"].params, wanted.params, 1e-4)
    oracle.assert_close(trained.params, wanted.params, 1e-4)
    assert int(history["best"].epoch) == least
    assert history["best"].loss == history["validation_loss"][least]


def test_without_a_loss_that_is_a_number_the_best_parameters_are_the_first(backend):
    net, _, state, (x, y) = problem(backend, net=fnn.mlp((1,)))
    data = x, y[:, None]
    with np.errstate(all="ignore"):
        state = state._replace(params=fnn.trees.map(lambda p: p * np.float32(np.nan), state.params))
        _, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=2, batch_size=10, validation=data)
    best = history["best"]
    assert int(best.epoch) == -1
    assert np.isinf(best.loss)
    assert all(np.isnan(leaf).all() for leaf in fnn.trees.leaves(best.params)), "those from before the run"
    if backend == "numpy":
        assert not any(leaf.flags.writeable for leaf in fnn.trees.leaves(best.params))
        assert isinstance(best.epoch, np.int32)


def test_metrics_of_a_run_need_validation_data(backend):
    net, loss, state, data = problem(backend)
    with pytest.raises(errors.ArgumentError, match="metrics: expected validation data too"):
        fnn.train(net, loss, state, data, epochs=1, batch_size=8, metrics={"accuracy": fnn.accuracy})
    with pytest.raises(errors.ShapeError, match="validation"):
        fnn.train(net, loss, state, data, epochs=1, batch_size=8, validation=(data[0][:, :2], data[1]))


@pytest.mark.parametrize("steps", [1, 7, 12, 1875])
def test_batches_that_are_gathered_at_once_are_a_part_of_the_epoch(steps):
    for size in (1, 100, 100_352, 200_000):
        many = training.batches_at_once(steps, size)
        assert steps % many == 0
        assert many * size <= 1_600_000
    assert training.batches_at_once(steps, 200_001) == 1
    assert training.batches_at_once(1875, 100_352) == 15, "as many as fit"


def test_weights_count_examples_as_often(backend):
    net, loss, state, (x, y) = problem(backend)
    weights = np.array([0, 1, 2] * 16 + [1, 1])
    repeated = np.repeat(np.arange(50), weights)
    weighted, _ = fnn.train(net, loss, state, (x, y, weights), epochs=3, batch_size=50)
    copied, _ = fnn.train(net, loss, state, (x[repeated], y[repeated]), epochs=3, batch_size=len(repeated))
    oracle.assert_close(weighted.params, copied.params, 1e-5)


def test_padding_takes_no_example_twice_where_there_are_weights(backend):
    net, loss, state, (x, y) = problem(backend)
    weights = np.arange(1.0, 51.0)
    _, history = fnn.train(net, loss, state, (x, y, weights), epochs=1, batch_size=7)
    assert float(np.sum(history["weight"])) == pytest.approx(weights.sum())


def test_a_penalty_shrinks_the_weights(backend):
    net, loss, state, data = problem(backend)
    free, _ = fnn.train(net, loss, state, data, epochs=3, batch_size=10)
    held, _ = fnn.train(net, loss, state, data, epochs=3, batch_size=10, penalty=fnn.L2(0.5))
    assert np.square(held.params[0].w).sum() < np.square(free.params[0].w).sum()


def test_the_same_key_gives_the_same_run_on_both_backends(needs_jax):
    net = fnn.Serial((fnn.Dropout(0.2), *fnn.mlp((8, 3)).layers))
    runs = []
    for chosen in ("jax", "numpy"):
        _, loss, state, data = problem(chosen, fnn.Adam(0.01), net)
        index, used = batching.batches(state.key, 50, 7, 0, 16)
        runs.append((np.asarray(index), np.asarray(used), *fnn.train(net, loss, state, data, epochs=3, batch_size=7)))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    oracle.assert_close(runs[0][2].params, runs[1][2].params, 1e-4)
    np.testing.assert_allclose(runs[0][3]["loss"], runs[1][3]["loss"], rtol=1e-4)


def test_two_epochs_of_mnist_agree_on_both_backends_within_1e_4(needs_jax):
    if not os.environ.get("FNN_DATA"):
        pytest.skip("real MNIST: set FNN_DATA to the folder that holds it")
    (x, y), _ = fnn.datasets.mnist()
    net, loss = fnn.Serial((fnn.Scale(1 / 255), *fnn.mlp((128, 10)).layers)), fnn.SoftmaxCrossEntropy()
    params = []
    for chosen in ("jax", "numpy"):
        state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0, backend=chosen), (784,))
        params.append(fnn.train(net, loss, state, (x, y), epochs=2, batch_size=128)[0].params)
    for a, b in zip(*map(fnn.trees.leaves, params), strict=True):
        assert np.abs(np.asarray(a) - b).max() < 1e-4


def test_a_sweep_by_vmap_is_lane_by_lane_each_run_alone(needs_jax):
    import jax

    net, loss, data = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy(), blobs()

    def run(key, learning_rate):
        state = fnn.init_state(net, fnn.Momentum(learning_rate=learning_rate), key, (6,))
        return fnn.train(net, loss, state, data, epochs=3, batch_size=8)

    keys, rates = fnn.random.split(fnn.random.key(3), 4), np.array([0.001, 0.01, 0.03, 0.1], np.float32)
    states, histories = jax.vmap(run)(keys, rates)
    for i in range(4):
        state, history = run(keys[i], rates[i])
        oracle.assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], states.params), state.params, 1e-5)
        np.testing.assert_allclose(histories["loss"][i], history["loss"], rtol=1e-4)
    assert len({float(h[-1]) for h in histories["loss"]}) == 4, "the lanes are different runs"


def test_a_sweep_over_penalties_and_data_is_a_vmap_too(needs_jax):
    import jax

    net, loss, state, (x, y) = problem("jax")

    def run(coefficient, x):
        return fnn.train(net, loss, state, (x, y), epochs=2, batch_size=10, penalty=fnn.L2(coefficient))[0].params

    found = jax.vmap(run)(np.array([0.0, 1.0], np.float32), np.stack([x, 2 * x]).astype(np.float32))
    oracle.assert_close(jax.tree.map(lambda leaf: leaf[1], found), run(1.0, 2 * x), 1e-5)


def test_an_equal_net_and_loss_and_another_rate_compile_nothing(needs_jax):
    import jax

    def run(rate):
        net, loss = fnn.mlp((8, 3), activation=fnn.LeakyRelu(0.1)), fnn.SoftmaxCrossEntropy()
        key = fnn.random.key(int(rate * 1000))
        state = fnn.init_state(net, fnn.Adam(rate), key, (6,))
        state, _ = fnn.train(net, loss, state, blobs(), epochs=2, batch_size=10, penalty=fnn.L2(rate))
        state, _ = fnn.make_step(net, loss)(state, blobs())
        state, _ = fnn.make_step(net, loss)(state, blobs())
        fnn.fit(net, loss, state, blobs(), epochs=2, batch_size=10, validation=blobs(20))
        fnn.fit(net, loss, fnn.Adam(rate), blobs(), epochs=2, batch_size=10, key=key, validation=blobs(20))

    run(0.1)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        run(0.2)
        assert compiled == []
        fnn.mlp((9, 3)).apply(fnn.mlp((9, 3)).init(fnn.random.key(0), (7,)), np.ones((3, 7)))
        assert compiled != [], "the listener hears"
    finally:
        jax.monitoring.clear_event_listeners()


def test_steps_traced_by_a_user_keep_their_types(needs_jax):
    import jax
    import jax.numpy as jnp

    for dtype in (jnp.float32, jnp.bfloat16):
        net = fnn.mlp((8, 3))
        state = fnn.init_state(net, fnn.Adam(0.01), fnn.random.key(0), (6,), dtype)
        x, y = blobs()
        batches = jnp.asarray(x.reshape(5, 10, 6)), jnp.asarray(y.reshape(5, 10))
        last, metrics = jax.lax.scan(fnn.make_step(net, fnn.SoftmaxCrossEntropy()), state, batches)
        assert metrics["loss"].shape == (5,)
        assert metrics["loss"].dtype == np.float32
        assert jax.tree.map(lambda a: a.dtype, last) == jax.tree.map(lambda a: a.dtype, state)


def test_float64_parameters_train_in_float64(needs_jax):
    import jax

    with jax.enable_x64(True):
        for chosen in ("numpy", "jax"):
            net, loss = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy()
            key = fnn.random.key(0, backend=chosen)
            state = fnn.init_state(net, fnn.Adam(0.01), key, (6,), np.float64)
            state, history = fnn.train(net, loss, state, blobs(), epochs=2, batch_size=7)
            assert all(p.dtype == np.float64 for p in fnn.trees.leaves(state.params))
            assert state.optimizer.learning_rate.dtype == np.float64
            assert history["loss"].dtype == np.float64


def test_uint8_data_stays_uint8_in_memory(needs_jax):
    import jax

    x = np.random.default_rng(0).integers(0, 256, (1000, 784), dtype=np.uint8)
    net = fnn.Serial((fnn.Scale(1 / 255), fnn.Dense(2)))
    state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0), (784,))
    data = training.check_data(net, fnn.SoftmaxCrossEntropy(), state.params, (x, np.zeros(1000, int)))
    assert data[0].dtype == np.uint8
    options = {"net": net, "loss": fnn.SoftmaxCrossEntropy(), "epochs": 1, "batch_size": 10, "shuffle": True}
    program = jax.jit(lambda s, d: training.run(s, None, *d, **options)).lower(state, data).as_text()
    assert "tensor<1000x784xui8>" in program
    assert "tensor<1000x784xf32>" not in program, "no float copy of the whole data is made"


def test_noise_differs_from_step_to_step_and_comes_from_the_runs_key(backend):
    net = fnn.Serial((fnn.Dropout(0.5), fnn.Dense(1, bias=False, initializer=fnn.Ones())))
    key = fnn.random.key(7, backend=backend)
    state = fnn.init_state(net, fnn.Sgd(0.0), key, (40,))
    step, batch = fnn.make_step(net, fnn.Quadratic()), (np.ones((1, 40)), np.zeros((1, 1)))
    losses = []
    for t in range(3):
        noise = fnn.random.fold_in(fnn.random.fold_in(state.key, 1), t)
        losses.append(float(fnn.value_and_grad(net, fnn.Quadratic())(state.params, *batch, key=noise)[0]))
        state, metrics = step(state, batch)
        assert float(metrics["loss"]) == pytest.approx(losses[-1])
    assert len(set(losses)) == 3


def test_given_parameters_of_another_network_are_refused(backend):
    _, _, state, _ = problem(backend)
    with pytest.raises(errors.ShapeError, match=r"params\[0\]\.w: expected shape \(9, 6\), got \(8, 6\)"):
        fnn.init_state(fnn.mlp((9, 3)), fnn.Sgd(0.1), state.key, (6,), params=state.params)


def test_data_in_any_byte_order_and_layout_are_the_same(backend):
    net, loss, state, (x, y) = problem(backend)
    wanted, _ = fnn.train(net, loss, state, (x, y), epochs=1, batch_size=10)
    for data in ((x.astype(">f8"), y.astype(">i4")), (np.asfortranarray(x), y), (x.tolist(), y.tolist())):
        oracle.assert_close(fnn.train(net, loss, state, data, epochs=1, batch_size=10)[0].params, wanted.params, 0)


def test_given_parameters_are_copied_and_never_locked(backend):
    net, loss, state, data = problem(backend)
    mine = fnn.trees.map(lambda p: np.array(p), state.params) if backend == "numpy" else state.params
    again = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(1, backend=backend), (6,), params=mine)
    fnn.train(net, loss, again, data, epochs=1, batch_size=10)
    oracle.assert_close(again.params, state.params, 0)
    if backend == "numpy":
        mine[0].w[0, 0] = 5.0
        assert again.params[0].w[0, 0] != 5.0


SHARDED = """
import jax, numpy as np, fnn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

net, loss = fnn.mlp((8, 4)), fnn.SoftmaxCrossEntropy()
state = fnn.init_state(net, fnn.Adam(), fnn.random.key(0), (6,))
x, y = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32), np.arange(16) % 4
alone, _ = fnn.make_step(net, loss)(state, (x, y))
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        batch = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("data")))
        spread, _ = fnn.make_step(net, loss)(jax.device_put(state, NamedSharding(mesh, PartitionSpec())), batch)
    for a, b in zip(jax.tree.leaves(spread.params), jax.tree.leaves(alone.params)):
        assert a.sharding.is_fully_replicated
        np.testing.assert_allclose(a, b, atol=1e-6)  # another order of summation
"""


def test_a_step_over_examples_spread_over_devices_is_the_step_on_one(needs_jax):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", SHARDED], env=environment, check=True)


def test_no_call_changes_state_or_data(backend):
    net, loss, state, data = problem(backend, fnn.Adam(0.01))
    arrays = [*fnn.trees.leaves(state.params), *fnn.trees.leaves(state.opt_state), *data]
    before = [np.array(a) for a in arrays]
    fnn.train(net, loss, state, data, epochs=2, batch_size=7)
    fnn.make_step(net, loss)(state, data)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_new_parameters_are_read_only_on_numpy():
    net, loss, state, data = problem("numpy")
    for following in (
        fnn.train(net, loss, state, data, epochs=1, batch_size=10)[0],
        fnn.make_step(net, loss)(state, data)[0],
    ):
        assert not any(leaf.flags.writeable for leaf in fnn.trees.leaves(following.params))


X, Y = blobs()
NAN, INF = X.copy(), X.copy()
NAN[7, 2], INF[3, 1] = np.nan, np.inf
BAD_DATA = {
    "x with nan": ((NAN, Y), {}, errors.DataError, r"nan at x\[7, 2\]"),
    "x with an infinity": ((INF, Y), {}, errors.DataError, r"inf at x\[3, 1\]"),
    "x too large for float32": ((X * 1e300, Y), {}, errors.DataError, "float32"),
    "a label of -1": ((X, Y - 1), {}, errors.DataError, "labels from 0 to 2, got -1"),
    "a label too large": ((X, Y + 1), {}, errors.DataError, "labels from 0 to 2, got 3"),
    "a label beyond 32 bits": ((X, Y + 2**32), {}, errors.DataError, "labels from 0 to 2|32 bits"),
    "labels as a column": ((X, Y[:, None]), {}, errors.ShapeError, r"\(50, 3\), got \(50, 1\)"),
    "labels as floats": ((X, Y.astype(float)), {}, errors.KindError, "integer labels"),
    "too few labels": ((X, Y[:49]), {}, errors.ShapeError, "50 examples"),
    "another number of inputs": ((X[:, :5], Y), {}, errors.ShapeError, r"\(N, 6\).*5\)"),
    "no examples": ((X[:0], Y[:0]), {}, errors.ShapeError, "at least one example"),
    "text": ((X.astype(str), Y), {}, errors.KindError, "numbers, got dtype <U"),
    "objects": ((X.astype(object), Y), {}, errors.KindError, "object"),
    "complex numbers": ((X + 1j, Y), {}, errors.KindError, "x: expected real numbers, got dtype complex"),
    "ragged rows": (([[1.0], [1.0, 2.0]], [0, 1]), {}, errors.KindError, "unequal length"),
    "a masked array": ((np.ma.masked_array(X, X > 3), Y), {}, errors.KindError, "mask"),
    "a negative weight": ((X, Y, -np.ones(50)), {}, errors.DataError, r"-1\.0 at weights\[0\]"),
    "a weight of nan": ((X, Y, np.full(50, np.nan)), {}, errors.DataError, "weights"),
    "weights of another length": ((X, Y, np.ones(49)), {}, errors.ShapeError, r"\(50,\), got \(49,\)"),
    "no targets": ((X, None), {}, errors.KindError, "y: expected targets, got None"),
    "x alone": (X, {}, errors.KindError, r"\(x, y\) or \(x, y, weights\)"),
    "four things": ((X, Y, Y, Y), {}, errors.KindError, "of length 4"),
    "a batch larger than the data": ((X, Y), {"batch_size": 51}, errors.ArgumentError, "50, got 51"),
    "a batch of 0": ((X, Y), {"batch_size": 0}, errors.ArgumentError, "at least 1, got 0"),
    "a negative batch": ((X, Y), {"batch_size": -1}, errors.ArgumentError, "at least 1, got -1"),
    "a batch of 2.5": ((X, Y), {"batch_size": 2.5}, errors.KindError, "integer, got 2.5"),
    "negative epochs": ((X, Y), {"epochs": -1}, errors.ArgumentError, "epochs.*got -1"),
    "epochs as text": ((X, Y), {"epochs": "3"}, errors.KindError, "epochs.*'3'"),
}


BAD_CALLS = [
    (name, entry)
    for name, (_, options, *_) in BAD_DATA.items()
    for entry in ("train", "fit", "fit on a state", "evaluate", "validation", "validation in train")
    if not (options and entry in ("evaluate", "validation", "validation in train"))  # these take no sizes
    and not (entry == "fit" and name == "another number of inputs")  # a new network takes the inputs that it finds
]


@pytest.mark.parametrize(("name", "entry"), BAD_CALLS)
def test_bad_data_is_refused_before_any_work_with_what_was_expected_and_found(name, entry, backend):
    data, options, error, message = BAD_DATA[name]
    net, loss, state, good = problem(backend)
    options = {"epochs": 1, "batch_size": 10} | options
    key = fnn.random.key(0, backend=backend)
    with pytest.raises(error, match=message):
        {
            "train": lambda: fnn.train(net, loss, state, data, **options),
            "fit": lambda: fnn.fit(net, loss, fnn.Sgd(0.1), data, key=key, **options),
            "fit on a state": lambda: fnn.fit(net, loss, state, data, **options),
            "evaluate": lambda: fnn.evaluate(net, loss, state.params, data),
            "validation": lambda: fnn.fit(net, loss, state, good, validation=data, **options),
            "validation in train": lambda: fnn.train(net, loss, state, good, validation=data, **options),
        }[entry]()


@pytest.mark.parametrize("batch", ["state", "batch"])
def test_a_step_refuses_what_is_no_state_or_batch(batch, backend):
    net, loss, state, data = problem(backend)
    step = fnn.make_step(net, loss)
    with pytest.raises(errors.KindError, match="TrainState" if batch == "state" else r"batch: expected \(x, y\)"):
        step(state.params, data) if batch == "state" else step(state, data[0])


def test_integer_parameters_are_refused(backend):
    net, loss, state, data = problem(backend)
    ints = state._replace(params=fnn.trees.map(lambda p: p.astype(np.int32), state.params))
    with pytest.raises(errors.KindError, match=r"params\[0\]\.w: expected .*floating point, got int32"):
        fnn.train(net, loss, ints, data, epochs=1, batch_size=10)


def test_parameters_that_are_no_floating_point_are_refused_at_once(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    whole = fnn.DenseParams(xp.ones((2, 3), dtype=np.int32), xp.zeros(2, dtype=np.int32))
    with pytest.raises(errors.KindError, match=r"params\.w: expected an array of floating point"):
        fnn.init_state(fnn.Dense(2), fnn.Sgd(0.1), fnn.random.key(0, backend=backend), (3,), params=whole)


def test_numpy_parameters_of_float64_may_be_given_beside_jax():
    net, key = fnn.Dense(2), fnn.random.key(0, backend="numpy")
    params = net.init(key, (3,), np.float64)
    assert fnn.init_state(net, fnn.Sgd(0.1), key, (3,), np.float64, params).params.w.dtype == np.float64


def test_numpy_parameters_among_those_of_jax_go_to_jax(needs_jax):
    net, loss, state, data = problem("jax", fnn.Adam(0.01))
    mixed = (state.params[0]._replace(b=np.asarray(state.params[0].b)), *state.params[1:])
    again = fnn.init_state(net, state.optimizer, fnn.random.key(0), (6,), params=mixed)
    assert all(isinstance(leaf, needs_jax.Array) for leaf in fnn.trees.leaves(again))
    ours, theirs = (fnn.train(net, loss, s, data, epochs=1, batch_size=10)[0].params for s in (again, state))
    oracle.assert_close(ours, theirs, 0)
    wide = (state.params[0]._replace(b=np.zeros(8)), *state.params[1:])
    with pytest.raises(errors.ArgumentError, match=r"params\[0\]\.b: dtype: float64 on JAX needs .*jax_enable_x64"):
        fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0), (6,), params=wide)


# ---- runs of steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(12,), (1, 11), (5, 7), (3, 4, 5)])
def test_steps_are_epochs_cut_anywhere(parts, backend):
    net, loss, data = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy(), blobs(35)  # 4 steps an epoch, the last one ragged
    begun = fnn.init_state(net, fnn.Adam(0.01), fnn.random.key(0, backend=backend), data[0].shape[1:])
    whole, history = fnn.train(net, loss, begun, data, epochs=3, batch_size=10)
    state, losses = begun, []
    for steps in parts:
        state, part = fnn.train(net, loss, state, data, steps=steps, batch_size=10)
        assert part["loss"].shape == part["weight"].shape == (steps,)
        losses.extend(np.asarray(part["loss"]))
    assert int(state.step) == 12
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)
    for ours, theirs in zip(fnn.trees.leaves(state.params), fnn.trees.leaves(whole.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, "expected either epochs or steps, got None and None"),
        ({"epochs": 1, "steps": 1}, "expected either epochs or steps, got 1 and 1"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"steps": 1, "validation": True}, "validation: expected epochs"),
    ],
)
def test_steps_and_epochs_exclude_each_other(how, says):
    net, data = fnn.mlp((8, 3)), blobs(35)
    begun = fnn.init_state(net, fnn.Adam(0.01), fnn.random.key(0, backend="numpy"), data[0].shape[1:])
    with pytest.raises(fnn.errors.ArgumentError, match=says):
        fnn.train(net, fnn.SoftmaxCrossEntropy(), begun, data, batch_size=10, **how)

"""One step: the rule's gradient, the optimizer's update, the counters; alone, traced, and over several devices."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import THOROUGH, blobs, key, run_problem
from helpers_training import on_numpy_at_least, same

import fnn
from fnn import errors, trees


def test_a_step_is_the_gradient_and_the_optimizers_update(backend):
    net, loss, state, data = run_problem(backend, fnn.Momentum(0.1))
    after, metrics = fnn.make_step(net, loss, penalty=fnn.L2(0.1))(state, data)
    _, _, start, _ = run_problem("numpy", fnn.Momentum(0.1))  # the reference is NumPy's
    value, grads = fnn.value_and_grad(net, loss, penalty=fnn.L2(0.1))(start.params, *data)
    updates, _ = start.optimizer.update(grads, start.opt_state, start.params)
    same(after.params, fnn.apply_updates(start.params, updates), 1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["weight"]) == 50
    assert [int(counter) for counter in after[6:]] == [1, 0, 0, 0], "the counters of epochs are left alone"


@on_numpy_at_least
def test_the_weight_of_a_step_is_what_its_sum_was_divided_by(backend):
    net, loss, state, (x, y) = run_problem(backend)
    weights = np.linspace(0, 2, 50)
    assert float(fnn.make_step(net, loss)(state, (x, y, weights))[1]["weight"]) == pytest.approx(50)
    signed = fnn.make_step(net, loss, denominator=20)(state, (x, y, weights - 1))
    assert float(signed[1]["weight"]) == 20


@on_numpy_at_least
def test_noise_differs_from_step_to_step_and_comes_from_stream_1_of_the_key(backend):
    net = fnn.Serial((fnn.Dropout(0.5), fnn.Dense(1, bias=False, initializer=fnn.Ones())))
    state = fnn.init_state(net, fnn.Sgd(0.0), key(backend, 7), (40,))
    step, batch = fnn.make_step(net, fnn.Quadratic()), (np.ones((1, 40)), np.zeros((1, 1)))
    losses = []
    for t in range(3):
        noise = fnn.random.fold_in(fnn.random.fold_in(state.key, 1), t)
        losses.append(float(fnn.value_and_grad(net, fnn.Quadratic())(state.params, *batch, key=noise)[0]))
        state, metrics = step(state, batch)
        assert float(metrics["loss"]) == pytest.approx(losses[-1])
    assert len(set(losses)) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"] if THOROUGH else ["bfloat16"])
def test_steps_traced_by_a_user_keep_their_types(dtype, needs_jax):
    net, loss, _, (x, y) = run_problem("jax")
    state = fnn.init_state(net, fnn.Adam(0.01), key("jax"), (6,), dtype)
    batches = needs_jax.numpy.asarray(x.reshape(5, 10, 6)), needs_jax.numpy.asarray(y.reshape(5, 10))
    last, metrics = needs_jax.lax.scan(fnn.make_step(net, loss), state, batches)
    assert metrics["loss"].shape == (5,)
    assert metrics["loss"].dtype == np.float32
    assert trees.map(lambda a: a.dtype, last) == trees.map(lambda a: a.dtype, state)


@pytest.mark.parametrize("batch", ["x alone", "too few targets", "signed weights of a rule that takes none"])
def test_a_step_refuses_what_is_no_batch(batch):
    net, loss, state, (x, y) = run_problem("numpy")
    if batch == "x alone":
        with pytest.raises(errors.KindError, match=r"batch: expected \(x, y\)"):
            fnn.make_step(net, loss)(state, x)
    elif batch == "too few targets":
        with pytest.raises(errors.ShapeError, match="50 examples"):
            fnn.make_step(net, loss)(state, (x, y[:49]))
    else:
        _, _, state, _ = run_problem("numpy", rule=fnn.rules.Private(1.0, 1.0))
        with pytest.raises(errors.ArgumentError, match=r"batch: expected \(x, y\), as Private draws its own weights"):
            fnn.make_step(net, loss)(state, (x, y, np.ones(50)))


def test_a_batch_may_be_overwritten_once_its_step_returns(needs_jax):
    net, n = fnn.Dense(1, bias=False), 2**20
    state = fnn.init_state(net, fnn.Sgd(0.0), key("jax"), (4,))
    step, buffer, losses = (
        fnn.make_step(net, fnn.MeanAbsoluteError()),
        np.zeros(4 * n + 1, np.float32)[1:].reshape(n, 4),
        [],
    )
    for value in range(8):
        buffer[:] = value
        losses.append(step(state, (buffer, np.zeros((n, 1), np.float32)))[1]["loss"])
    np.testing.assert_allclose(losses, np.arange(8) * np.float32(losses[1]), rtol=1e-4)


SHARDED = """
import sys, jax, numpy as np, fnn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

net, loss = fnn.mlp((8, 4)), fnn.SoftmaxCrossEntropy()
x, y = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32), np.arange(16) % 4
start = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (6,))
alone, _ = fnn.make_step(net, loss)(start, (x, y))
state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0), (6,))
for kind in sys.argv[1:]:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(getattr(AxisType, kind),))
    with jax.set_mesh(mesh):
        batch = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("data")))
        spread, _ = fnn.make_step(net, loss)(jax.device_put(state, NamedSharding(mesh, PartitionSpec())), batch)
    for a, b in zip(jax.tree.leaves(spread.params), jax.tree.leaves(alone.params)):
        assert a.sharding.is_fully_replicated
        np.testing.assert_allclose(a, b, atol=1e-6)  # another order of summation
"""


@pytest.mark.thorough
def test_a_step_over_examples_spread_over_devices_is_the_step_on_one(needs_jax):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    kinds = ["Auto", "Explicit"] if THOROUGH else ["Explicit"]  # Explicit says more: each product names its layout
    subprocess.run([sys.executable, "-c", SHARDED, *kinds], env=environment, check=True)


def test_the_data_of_a_step_may_be_lists():
    net, loss, state, (x, y) = run_problem("numpy")
    step = fnn.make_step(net, loss)
    same(step(state, (x.tolist(), y.tolist()))[0].params, step(state, blobs())[0].params)


# ---- a state made for another optimizer ------------------------------------------------------------------------------

OPTIMIZERS = {
    "Sgd": fnn.Sgd(0.1),
    "Momentum": fnn.Momentum(0.1),
    "RMSProp": fnn.RMSProp(0.1),
    "Adam": fnn.Adam(0.1),
    "AMSGrad": fnn.AMSGrad(0.1),
    "Accumulate": fnn.Accumulate(fnn.Sgd(0.1), 2),
    "SkipNonFinite": fnn.SkipNonFinite(fnn.Sgd(0.1)),
    "Average": fnn.Average(fnn.Adam(0.1)),
    "Average of Sgd": fnn.Average(fnn.Sgd(0.1)),
    "ClipByNorm": fnn.ClipByNorm(fnn.Lion(0.1), 1.0),
    "PerLayer": fnn.PerLayer((fnn.Sgd(0.1), fnn.Adam(0.1), None)),
    "PerLayer of None": fnn.PerLayer((None, fnn.Adam(0.1), None)),
}
NET, LOSS = fnn.Serial((fnn.Dense(3), fnn.Dense(2), fnn.Tanh())), fnn.Quadratic()
DATA = np.ones((4, 5)), np.zeros((4, 2))
ENTRIES = {
    "make_step": lambda state: fnn.make_step(NET, LOSS)(state, DATA),
    "train": lambda state: fnn.train(NET, LOSS, state, DATA, epochs=1, batch_size=2),
    "fit": lambda state: fnn.fit(NET, LOSS, state, DATA, epochs=1, batch_size=2),
}


def refused(state):
    for entry in ENTRIES.values():
        with pytest.raises(errors.FnnError, match=r"expected .*, got "):
            entry(state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_made_for_another_optimizer_is_refused_everywhere(name):
    states = {other: fnn.init_state(NET, o, key("numpy"), (5,)) for other, o in OPTIMIZERS.items()}
    for other, state in states.items():
        if other != name:
            refused(states[name]._replace(opt_state=state.opt_state))
    adam = states["Adam"]._replace(optimizer=fnn.init_state(NET, fnn.AdamW(0.1), key("numpy"), (5,)).optimizer)
    ENTRIES["train"](adam)  # whose moments are the same


@pytest.mark.parametrize(
    ("name", "other"), [("sgd", "Momentum"), ("sgd", "sgd with momentum"), ("Sgd", "adam"), ("Sgd", "Adam")]
)
def test_a_state_made_for_an_optimizer_of_optax_is_refused_too(name, other, needs_jax):
    optax = pytest.importorskip("optax")
    optaxs = {"sgd": optax.sgd(0.1), "sgd with momentum": optax.sgd(0.1, 0.9), "adam": optax.adam(0.1)}
    ours, others = (fnn.init_state(NET, (optaxs | OPTIMIZERS)[n], key("jax"), (5,)) for n in (name, other))
    with pytest.raises(errors.KindError, match="got that of another optimizer"):
        ENTRIES["train"](ours._replace(opt_state=others.opt_state))
    with pytest.raises(errors.KindError, match="got that of another optimizer"):
        ENTRIES["make_step"](ours._replace(opt_state=others.opt_state))

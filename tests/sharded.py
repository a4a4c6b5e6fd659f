"""Runs on eight virtual devices, in a process of their own: `python sharded.py`, or with `all` for what takes long.

The number of devices has to be known before JAX starts. A failure is an AssertionError, as in any test.
"""

import contextlib
import functools
import io
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import oracle

import fnn
from fnn import attribution, curvature, influence, per_example, rules, sharding, trees

LOSS, PENALTY = fnn.SoftmaxCrossEntropy(), fnn.L2(1e-3)
NET = fnn.mlp((16, 24, 8, 3), fnn.Tanh())
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 6)), RNG.integers(0, 3, 64).astype(np.int32)
RULES = None, rules.Private(1.0, 0.5), rules.KFac(every=2), rules.InParts(rules.Backprop(), 8)
LAYOUTS = {  # by name: devices for data, for the model, and how parameters lie
    "one": (1, 1, "replicated"),
    "two": (2, 1, "replicated"),
    "four": (4, 1, "replicated"),
    "eight": (8, 1, "replicated"),
    "tensor parallel": (1, 4, "alternating"),
    "both": (2, 4, "alternating"),
    "fully sharded": (8, 1, "full"),
    "four, fully sharded": (4, 1, "full"),
}


@functools.cache
def begin(rule=None, dtype=np.float32):
    optimizer = fnn.Momentum(0.03) if isinstance(rule, rules.KFac) else fnn.Adam(0.01)
    return fnn.init_state(NET, optimizer, fnn.random.key(0), (6,), dtype, rule=rule)


def placed(name, state, data, split=False, kind="Auto"):
    devices, of_model, how = LAYOUTS[name]
    axes = (getattr(jax.sharding.AxisType, kind),) * 2
    mesh = jax.make_mesh((devices, of_model), ("data", "model"), axes, devices=jax.devices()[: devices * of_model])
    return sharding.place_state(mesh, NET, state, how), sharding.place_data(mesh, data, split=split)


def close(found, wanted, tolerance):
    oracle.assert_close(trees.map(np.asarray, found), trees.map(np.asarray, wanted), tolerance)


# ---- one step --------------------------------------------------------------------------------------------------------


def step_of(state, data):
    """The compiled program of a step, and the collective operations in it: how many of each kind, with their shapes."""
    program = fnn.training.step._step.compiled.lower(state, PENALTY, None, *data, None, net=NET, loss=LOSS).compile()
    return program, *collectives(program)


def collectives(program):
    """How many collective operations of each kind a program holds, and the shapes of each."""
    found = re.findall(r"= (.*?) (all-[a-z]+|reduce-scatter|collective-permute)(?:-start)?\(", program.as_text())
    return Counter(kind for _, kind in found), [tuple(re.findall(r"\[[\d,]*\]", s)) for s, _ in found]


def check_steps():
    """A data-parallel step holds one sum, of all gradients, and a tensor-parallel one a sum for each pair of layers."""
    batch = X.astype(np.float32), Y
    wanted, _ = fnn.make_step(NET, LOSS, penalty=PENALTY)(begin(), batch)
    programs = {name: placed(name, begin(), batch, split=True) for name in ("four", "tensor parallel")}
    program, kinds, (shapes,) = step_of(*programs["four"])
    assert kinds == {"all-reduce": 1}, kinds
    assert sorted(shapes) == sorted(
        ["[]", *(str(list(p.shape)).replace(" ", "") for p in trees.leaves(begin().params))]
    )
    state, data = programs["four"]
    close(program(state, PENALTY, None, *data, None)[0].params, wanted.params, 1e-6)
    program, kinds, shapes = step_of(*programs["tensor parallel"])
    assert kinds == {"all-reduce": 3}, kinds  # y of both pairs, and dx of the second: the first needs none
    assert sorted(s[0] for s in shapes) == ["[64,24]", "[64,24]", "[64,3]"], shapes
    assert all(rest == "[]" for s in shapes for rest in s[1:]), "and the penalty's sums"
    state, data = programs["tensor parallel"]
    after = program(state, PENALTY, None, *data, None)[0]
    close(after.params, wanted.params, 1e-6)
    assert tuple(state.opt_state.mu[0].w.sharding.spec) == ("model", None), "moments lie where their parameters do"


# ---- whole runs ------------------------------------------------------------------------------------------------------


def check_collectives_of_runs():
    """The order and the samples are computed by each device; one sum is of gradients, clipped or not."""
    for rule in RULES[:2]:
        state, data = placed("four", begin(rule), (X.astype(np.float32), Y))
        data = fnn.gate.dataset(NET, LOSS, state.params, data)
        static = {"net": NET, "loss": LOSS, "plan": fnn.training.loop.plan_of(state, data, 16, True)}
        run = fnn.training.loop.run.compiled.lower(state, None, None, data, steps=4, whole=True, **static)
        kinds, shapes = collectives(run.compile())
        assert set(kinds) == {"all-reduce"}, kinds
        assert sum(set(s) != {"[]"} for s in shapes) == 1, shapes  # others: the weights of a sample
        assert rule is not None or kinds["all-reduce"] == 1, kinds


def check_runs(dtype, tolerance, layouts, of_rules=RULES, kind="Auto"):
    """Batches of 20 of 64 examples, which eight devices do not divide: the last one has 4."""
    data, how = (X.astype(dtype), Y), {"epochs": 2, "batch_size": 20}
    for rule in of_rules:
        wanted, history = fnn.train(NET, LOSS, begin(rule, dtype), data, **how)
        for name in layouts:
            state, theirs = fnn.train(NET, LOSS, *placed(name, begin(rule, dtype), data, kind=kind), **how)
            close((state.params, state.rule_state), (wanted.params, wanted.rule_state), tolerance)
            close(theirs, history, tolerance)


def check_checkpoints():
    """A run is saved on one layout, in one file or in shards, and goes on with another one as if nothing happened."""
    data, how = (X.astype(np.float32), Y), {"epochs": 1, "batch_size": 16}
    wanted, _ = fnn.train(NET, LOSS, begin(), data, epochs=2, batch_size=16)
    state, _ = fnn.train(NET, LOSS, *placed("fully sharded", begin(), data), **how)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.npz"
        fnn.checkpoints.save(path, state, net=NET)
        fnn.checkpoints.save_shards(folder, state, net=NET)
        loaded, shards = fnn.checkpoints.load(path).tree, fnn.checkpoints.load_shards(folder).tree
        parts = fnn.checkpoints.load(Path(folder) / "shards-0-of-1.npz").tree.params[2].w
        assert (parts.shape, len(parts.parts)) == ((24, 16), 8)
    close(shards.params, loaded.params, 0)
    assert int(shards.step) == 4
    for name in ("one", "two", "both"):
        state, _ = fnn.train(NET, LOSS, *placed(name, shards, data), **how)
        close(state.params, wanted.params, 1e-6)


def check_fit_and_quantities():
    """`fit` with data on a mesh alone, and quantities of the examples of a batch on it."""
    data, how = (X.astype(np.float32), Y), {"epochs": 2, "batch_size": 16}
    wanted, _ = fnn.fit(NET, LOSS, fnn.Adam(0.01), data, key=fnn.random.key(0), validation=data, **how)
    for kind in ("Auto", "Explicit"):
        (_, on_mesh), k = placed("four", begin(), data, kind=kind), fnn.random.key(0)
        state, _ = fnn.fit(NET, LOSS, fnn.Adam(0.01), on_mesh, key=k, validation=on_mesh, **how)
        close(state.params, wanted.params, 1e-6)
        assert len(state.params[0].w.sharding.device_set) == 4
    state, batch = placed("four", begin(), data, split=True)
    norms = jax.jit(per_example.norms(NET, LOSS))
    close(norms(state.params, *batch), norms(begin().params, *data), 1e-6)


# ---- functions of a batch, on explicit axes --------------------------------------------------------------------------

PRODUCT = curvature.ggn_product(NET, LOSS)
KEY = fnn.random.key(1)
ONE_BATCH = {  # by name: functions of (params, x, y) that may be compiled
    "apply": lambda p, x, y: NET.apply(p, x),
    "backprop": lambda p, x, y: fnn.backprop(NET, LOSS)(p, x, y),
    "value_and_grad": lambda p, x, y: fnn.value_and_grad(NET, LOSS, penalty=PENALTY, need_dx=True)(p, x, y),
    "custom_vjp": lambda p, x, y: jax.grad(lambda p: (fnn.custom_vjp(NET)(p, x) ** 2).sum())(p),
    "gradients": lambda p, x, y: per_example.gradients(NET, LOSS)(p, x, y),
    "norms": lambda p, x, y: per_example.norms(NET, LOSS, by_layer=True)(p, x, y),
    "clipped_gradient": lambda p, x, y: per_example.clipped_gradient(NET, LOSS, 0.5)(p, x, y),
    "gram": lambda p, x, y: per_example.gram(NET, LOSS)(p, x, y),
    "second_moment": lambda p, x, y: per_example.second_moment(NET, LOSS)(p, x, y),
    "variance": lambda p, x, y: per_example.variance(NET, LOSS)(p, x, y),
    "signal_to_noise": lambda p, x, y: per_example.signal_to_noise(NET, LOSS)(p, x, y),
    "noise_scale": lambda p, x, y: per_example.noise_scale(NET, LOSS)(p, x, y),
    "ggn_product": lambda p, x, y: PRODUCT(p, x, y, p),
    "fisher_product": lambda p, x, y: curvature.fisher_product(NET, LOSS)(p, x, y, p),
    "hessian_product": lambda p, x, y: curvature.hessian_product(NET, LOSS)(p, x, y, p),
    "diagonal": lambda p, x, y: curvature.diagonal(NET, LOSS)(p, x, y),
    "kfac": lambda p, x, y: curvature.kfac(NET, LOSS)(p, x, y),
    "ekfac": lambda p, x, y: curvature.block_product(p, curvature.ekfac(NET, LOSS)(p, x, y), p),
    "damped_inverse": lambda p, x, y: curvature.block_product(
        p, curvature.damped_inverse(curvature.kfac(NET, LOSS)(p, x, y), 0.1), p
    ),
    "matrix": lambda p, x, y: curvature.matrix(PRODUCT)(p, x, y),
    "trace": lambda p, x, y: curvature.trace(PRODUCT, samples=3)(p, x, y),
    "eigenvalues": lambda p, x, y: curvature.eigenvalues(PRODUCT, 3)(p, x, y).values,
    "scores": lambda p, x, y: influence.scores(NET, LOSS, 0.1)(p, curvature.kfac(NET, LOSS)(p, x, y), (x, y), (x, y)),
    "tracin": lambda p, x, y: influence.tracin(NET, LOSS)([p], [1.0], (x, y), (x, y)),
    "leave_one_out": lambda p, x, y: influence.leave_one_out(NET, LOSS, 0.1)(p, (x, y), (x, y)),
    "attributions": lambda p, x, y: attribution.gradient_times_input(NET)(p, x, y),
    "integrated_gradients": lambda p, x, y: attribution.integrated_gradients(NET, steps=4)(p, x, y).values,
    "smooth_gradients": lambda p, x, y: attribution.smooth_gradients(NET, deviation=0.1, samples=2)(p, x, y, key=KEY),
    "statistics": lambda p, x, y: fnn.diagnostics.statistics(NET, LOSS)(p, x, y).delta,
    "ensemble": lambda p, x, y: fnn.ensemble(NET, LOSS)(trees.map(lambda a: a[None], p), x),
    "metrics": lambda p, x, y: [
        metric(LOSS.predict(NET.apply(p, x)), y)
        for metric in (fnn.accuracy, fnn.expected_calibration_error, fnn.negative_log_likelihood)
    ],
    "init_state": lambda p, x, y: fnn.init_state(NET, fnn.Adam(), KEY, (6,), params=p).params,
}


def of_laplace(structure, **options):
    def outputs(p, x, y):
        posterior = fnn.laplace.fit(NET, LOSS, p, (x, y), structure, **options)
        evidence = fnn.laplace.log_marginal_likelihood(posterior)
        return fnn.laplace.outputs(posterior, x), fnn.laplace.probabilities(posterior, x), evidence

    return outputs


def minimized(p, x, y):
    cost = lambda p, x, y: fnn.value_and_grad(NET, LOSS, penalty=PENALTY)(p, x, y)
    return fnn.minimize(cost, p, fnn.Lbfgs(iterations=5), args=(x, y))[0]


def whole_batches(p, x, y):
    optimizer, how = fnn.Lbfgs(iterations=5), {"epochs": 1, "batch_size": len(x), "penalty": PENALTY}
    state = fnn.init_state(NET, optimizer, KEY, (6,), params=p)
    fitted, _ = fnn.fit(NET, LOSS, optimizer, (x, y), key=KEY, params=p, progress=False, telemetry=16, **how)
    return fnn.train(NET, LOSS, state, (x, y), **how)[0].params, fitted.params


def diagnosed(p, x, y):
    with contextlib.redirect_stdout(io.StringIO()):
        return [column[np.isfinite(column)] for column in fnn.diagnose(NET, LOSS, p, x, y).statistics]


ON_THE_HOST = {  # those that compile by themselves
    "laplace, kronecker": of_laplace("kronecker"),
    "laplace, diagonal": of_laplace("diagonal"),
    "laplace, last layer": of_laplace("full", last_layer=True),
    "minimize": minimized,
    "L-BFGS": whole_batches,
    "diagnose": diagnosed,
    "evaluate": lambda p, x, y: fnn.evaluate(NET, LOSS, p, (x, y), metrics={"accuracy": fnn.accuracy}),
    "predict": lambda p, x, y: (fnn.predict(NET, LOSS, p, x), fnn.log_probabilities(NET, LOSS, p, x, batch_size=24)),
    "range_test": lambda p, x, y: fnn.range_test(NET, LOSS, fnn.Sgd(0.1), (x, y), epochs=1, batch_size=16, key=KEY)[1],
    "make_step": lambda p, x, y: (
        fnn.make_step(NET, LOSS)(fnn.init_state(NET, fnn.Adam(), KEY, (6,), params=p), (x, y))[0].params
    ),
}


def check_one_batch(names, layouts, kind="Explicit"):
    """Functions of a batch on a mesh give what they give on one device, and on axes of the same kind."""
    data = X.astype(np.float32), Y
    for name in names:
        f = jax.jit(ONE_BATCH[name]) if name in ONE_BATCH else ON_THE_HOST[name]
        wanted = f(begin().params, *map(jax.numpy.asarray, data))
        for layout in layouts:
            state, batch = placed(layout, begin(), data, split=True, kind=kind)
            found = f(state.params, *batch)
            close(found, wanted, 1e-5)
            lie = [getattr(leaf, "sharding", None) for leaf in trees.leaves(found)]
            meshes = [s.mesh for s in lie if isinstance(s, jax.sharding.NamedSharding)]
            assert {axes.name for mesh in meshes for axes in mesh.axis_types} <= {kind}, name
            if name == "value_and_grad":
                for g, p in zip(trees.leaves(found[1][0]), trees.leaves(state.params), strict=True):
                    assert g.sharding.is_equivalent_to(p.sharding, p.ndim), "gradients lie as the parameters"


def check_laplace(dtype, tolerance):
    """The posterior from examples that are divided over devices, and its outputs, are those of one device."""
    data, found = (X.astype(dtype), Y), {}
    for name in ("one", "two", "four", "eight"):
        state, on_mesh = placed(name, begin(None, dtype), data, split=True)
        posterior = fnn.laplace.fit(NET, LOSS, state.params, on_mesh)
        found[name] = tuple(fnn.laplace.outputs(posterior, data[0][:5]))
        close(found[name], found["one"], tolerance)


if __name__ == "__main__":
    check_steps()
    check_one_batch(["value_and_grad", "norms"], ["both"])
    if "all" in sys.argv:
        check_collectives_of_runs()
        check_checkpoints()
        check_fit_and_quantities()
        check_one_batch([*ONE_BATCH, *ON_THE_HOST], ["both"])
        check_one_batch(["value_and_grad", "backprop", "kfac", "minimize"], ["four", "four, fully sharded"])
        check_one_batch(["kfac", "laplace, diagonal", "minimize"], ["both"], "Auto")
        check_laplace(np.float32, 1e-6)
        check_runs(np.float32, 1e-6, ("two", "four", "tensor parallel", "fully sharded"), RULES[:1])
        check_runs(np.float32, 1e-6, ("eight", "both"))
        check_runs(np.float32, 1e-6, ("four",), RULES[:3], kind="Explicit")
        check_runs(np.float32, 1e-6, ("both", "fully sharded"), RULES[:1], kind="Explicit")
        jax.config.update("jax_enable_x64", True)
        begin.cache_clear()
        check_runs(np.float64, 1e-12, ("eight", "both"), RULES[:3])
        check_laplace(np.float64, 1e-12)

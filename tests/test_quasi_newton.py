"""L-BFGS: its formulas, the minima that it reaches, where it stops, and that a run with it is like any other."""

import functools

import helpers_lbfgs
import numpy as np
import oracle
import pytest
from helpers import BACKENDS, key, on, run_problem, wide
from helpers_lbfgs import TIGHT, rosenbrock

import fnn
from fnn import errors, trees
from fnn.optimizers import LbfgsState, quasi_newton


@pytest.mark.parametrize(
    "check", ["recursion", "remembering", "vectors", "tolerances", "never_nan", "minimum_of_rosenbrock"]
)
def test_its_parts_are_the_books(check):
    getattr(helpers_lbfgs, check)()


# ---- SciPy's minima --------------------------------------------------------------------------------------------------


def scipys(f, x0):
    """SciPy's minimum: L-BFGS-B, as far as it goes."""
    optimize = pytest.importorskip("scipy.optimize")
    options = {"ftol": 0, "gtol": 1e-12, "maxiter": 5000, "maxfun": 10000}
    return optimize.minimize(f, x0, jac=True, method="L-BFGS-B", options=options)


@pytest.mark.parametrize("x0", [(-1.2, 1.0), 50 * (-1.2, 1.0)], ids=["2", "100"])
@pytest.mark.numpy_alone
def test_rosenbrocks_minimum_is_scipys(x0):
    x0 = np.array(x0)
    x, history = fnn.minimize(rosenbrock, x0, fnn.Lbfgs(**TIGHT))
    found = scipys(rosenbrock, x0)
    np.testing.assert_allclose(x, found.x, atol=1e-8)
    np.testing.assert_allclose(history["loss_after"][0], found.fun, atol=1e-8)
    assert history["evaluations"][0] < 1.3 * found.nfev, (history["evaluations"], found.nfev)


def logistic(backend):
    """A logistic regression whose minimum is unique: net, cost, penalty, state and data."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5))
    y = (x @ rng.normal(size=(5, 1)) + rng.normal(size=(80, 1)) > 0).astype(np.float64)
    net, loss, penalty = fnn.Dense(1), fnn.SigmoidBinaryCrossEntropy(), fnn.L2(1e-3)
    with wide():
        state = fnn.init_state(net, fnn.Lbfgs(20, gtol=1e-11, ftol=0.0), key(backend), (5,), np.float64)
        return net, loss, penalty, state, on(backend, (x, y))


def of_vectors(value_and_grad, params):
    """A function of parameters as one of vectors, as SciPy wants it."""

    def f(x):
        value, grads = value_and_grad(quasi_newton.nested(x, params))
        return value, quasi_newton.flat(grads)

    return f


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_logistic_regressions_minimum_is_scipys(backend):
    net, loss, penalty, state, data = logistic(backend)
    with wide():
        state, history = fnn.train(net, loss, state, data, epochs=4, batch_size=80, penalty=penalty)
    assert np.asarray(history["status"])[-1] == 1, history
    params, data = trees.map(np.asarray, state.params), trees.map(np.asarray, data)
    run = fnn.value_and_grad(net, loss, penalty=penalty)
    found, x = scipys(of_vectors(lambda p: run(p, *data), params), np.zeros(6)), quasi_newton.flat(params)
    np.testing.assert_allclose(x, found.x, atol=1e-8)
    np.testing.assert_allclose(history["loss_after"][-1], found.fun, atol=1e-12)


def test_both_backends_make_the_same_iterations(needs_jax):
    ends = []
    for backend in BACKENDS:
        net, loss, penalty, state, data = logistic(backend)
        with wide():
            state, history = fnn.train(net, loss, state, data, epochs=4, batch_size=80, penalty=penalty)
        ends.append((state.params, [history[name] for name in ("loss", "iterations", "evaluations", "status")]))
    oracle.assert_close(ends[1], ends[0], 1e-9)


def test_a_physics_informed_nets_minimum_is_scipys(needs_jax):
    """u'' = f on [0, 1], 0 at both ends: the derivatives along the input are JAX's of fnn's formulas."""
    jax, jnp = needs_jax, needs_jax.numpy
    net = fnn.mlp((5, 1), fnn.Tanh())
    with wide():
        params = net.init(fnn.random.key(1), (1,), np.float64)
        t = jnp.linspace(0, 1, 9)[:, None]
        force, one = -(jnp.pi**2) * jnp.sin(jnp.pi * t), jnp.ones_like(t)

        def u(params, t):
            return t * (1 - t) * net.apply(params, t)

        def cost(params):
            slope = lambda t: jax.jvp(functools.partial(u, params), (t,), (one,))[1]
            return ((jax.jvp(slope, (t,), (one,))[1] - force) ** 2).mean()

        f = jax.value_and_grad(cost)
        found, history = fnn.minimize(f, params, fnn.Lbfgs(iterations=6000, gtol=1e-9, ftol=0.0))
        compiled = oracle.quick_jit(of_vectors(f, params))
        on_host = lambda x: [np.asarray(part) for part in compiled(jnp.asarray(x))]
        further = scipys(on_host, np.asarray(quasi_newton.flat(found)))
        assert history["loss_after"][0] < further.fun + 1e-8, (history, further.fun)
        assert history["loss_after"][0] < 1e-8, "that of the solution is 0"
        np.testing.assert_allclose(u(found, t), jnp.sin(jnp.pi * t), atol=1e-4)


# ---- a run like any other --------------------------------------------------------------------------------------------

LONG, NET = {"gtol": 0.0, "ftol": 0.0}, fnn.mlp((8, 3), fnn.Tanh())


def trained(backend, optimizer, epochs, dtype=np.float64, net=NET, **options):
    """The state and the history of a run on whole batches."""
    with wide():
        net, loss, state, (x, y) = run_problem(backend, optimizer, net, dtype=dtype)
        data = on(backend, (x.astype(dtype), y))
        return fnn.train(net, loss, state, data, epochs=epochs, batch_size=50, **options)


def test_steps_share_their_memory():
    (once, history), (four, histories) = (trained("numpy", fnn.Lbfgs(n, **LONG), e) for n, e in ((12, 1), (3, 4)))
    oracle.assert_close(four.params, once.params, 1e-9)
    oracle.assert_close((four.opt_state.s, four.opt_state.y), (once.opt_state.s, once.opt_state.y), 1e-7)
    assert four.opt_state.newest == once.opt_state.newest == 12 % 10
    np.testing.assert_allclose(histories["loss"][1:], histories["loss_after"][:-1], rtol=1e-12)
    np.testing.assert_allclose(histories["loss_after"][-1], history["loss_after"][0], rtol=1e-9)
    assert histories["iterations"].tolist() == [3, 3, 3, 3]


def test_fewer_pairs_are_another_run():
    states = [trained("numpy", fnn.Lbfgs(12, memory, **LONG), 1)[0] for memory in (2, 20)]
    assert [state.opt_state.s.shape[0] for state in states] == [2, 20]
    assert abs(states[0].params[0].w - states[1].params[0].w).max() > 1e-6


@pytest.mark.thorough(backend="jax")
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_goes_as_far_as_float32_can(backend):
    convex = {"net": fnn.Dense(3), "penalty": fnn.L2(1e-2)}
    state, history = trained(backend, fnn.Lbfgs(100, gtol=0.0), 1, np.float32, **convex)
    best = trained("numpy", fnn.Lbfgs(100, gtol=1e-10, ftol=0.0), 1, **convex)[1]
    assert state.params.w.dtype == np.float32
    assert history["loss_after"].dtype == np.float32
    np.testing.assert_allclose(history["loss_after"], best["loss_after"], rtol=1e-6)
    assert (history["gradient_norm"][0], history["status"][0]) < (1e-4, 3), history


def test_what_is_frozen_stays():
    layers = fnn.Frozen(fnn.Dense(4)), fnn.Tanh(), fnn.Dense(3)
    net, loss, state, data = run_problem("numpy", fnn.Lbfgs(), fnn.Serial(layers))
    after, history = fnn.train(net, loss, state, data, epochs=2, batch_size=50)
    oracle.assert_close(after.params[0], state.params[0], 0)
    assert history["loss_after"][-1] < history["loss"][0]
    assert after.opt_state.s.shape == (10, 15)


def test_dropout_is_the_same_within_a_step():
    net = fnn.Serial((fnn.Dense(8), fnn.Tanh(), fnn.Dropout(0.5), fnn.Dense(3)))
    net, loss, state, data = run_problem("numpy", fnn.Lbfgs(), net)
    _, history = fnn.train(net, loss, state, data, epochs=3, batch_size=50)
    assert (history["loss_after"] < history["loss"]).all()
    assert (history["status"] != quasi_newton.STUCK).all()


def test_small_batches_minimize_the_cost_of_each():
    net, loss, state, data = run_problem("numpy", fnn.Lbfgs(2))
    state, history = fnn.train(net, loss, state, data, epochs=3, batch_size=10)
    assert (history["loss_after"] <= history["loss"]).all()
    assert len(history["loss"]) == 15


def test_a_run_that_is_resumed_is_the_same(tmp_path):
    optimizer = fnn.Lbfgs(3, **LONG)
    net, loss, _, data = run_problem("numpy", optimizer)
    run = functools.partial(fnn.fit, net, loss, optimizer, data, key=key(), batch_size=50, telemetry=20)
    whole, history = run(epochs=6)
    run(epochs=2, checkpoint=tmp_path)
    resumed, again = run(epochs=6, checkpoint=tmp_path, resume=True)
    oracle.assert_close(resumed.params, whole.params, 0)
    oracle.assert_close(resumed.opt_state, whole.opt_state, 0)
    np.testing.assert_array_equal(again["gradient_norm"], history["gradient_norm"])
    assert {"iterations", "evaluations", "gradient_norm", "loss_after", "status"} <= set(history)


@pytest.mark.thorough
def test_each_lane_of_a_sweep_is_the_run_alone(needs_jax):
    net, loss, _, data = run_problem("numpy")
    with wide():
        data = on("jax", (data[0].astype(np.float64), data[1]))

        def run(seed, gtol):
            state = fnn.init_state(net, fnn.Lbfgs(8, gtol=gtol, ftol=0.0), fnn.random.key(seed), (6,), np.float64)
            return fnn.train(net, loss, state, data, epochs=2, batch_size=50)

        gtols = np.array([0.0, 0.05, 0.2])
        states, histories = fnn.sweep(lambda gtol: run(0, gtol), gtols)
        assert len(set(np.asarray(histories["iterations"]).sum(axis=1))) == 3, "they end at different times"
        on_numpy = trees.map(np.asarray, data)
        for lane, gtol in enumerate(gtols):
            state = fnn.init_state(net, fnn.Lbfgs(8, gtol=gtol, ftol=0.0), key(), (6,), np.float64)
            state, history = fnn.train(net, loss, state, on_numpy, epochs=2, batch_size=50)
            oracle.assert_close(trees.map(lambda p: p[lane], states.params), state.params, 1e-7)  # noqa: B023
            np.testing.assert_array_equal(histories["iterations"][lane], history["iterations"])


def test_a_cost_that_is_nan_ends_a_fit_and_no_parameter_becomes_nan():
    net, loss, state, (x, y) = run_problem("numpy", fnn.Lbfgs())
    huge = state._replace(params=trees.map(lambda p: p * np.float32(1e38), state.params))
    with np.errstate(all="ignore"):
        after, history = fnn.train(net, loss, huge, (x * 1e3, y), epochs=1, batch_size=50)
    assert not np.isfinite(history["loss"][0])
    oracle.assert_close(after.params, huge.params, 0)


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {
    "iterations": (lambda: fnn.Lbfgs(0), None, r"Lbfgs.iterations: expected .*1.*, got 0"),
    "memory": (lambda: fnn.Lbfgs(memory=0), None, r"Lbfgs.memory: expected .*1.*, got 0"),
    "half a pair": (lambda: fnn.Lbfgs(memory=2.5), None, r"Lbfgs.memory: expected an integer"),
    "gtol": (lambda: fnn.Lbfgs(gtol=-1.0), None, r"expected .* Lbfgs.gtol >= 0"),
    "clipping": (lambda: fnn.ClipByGlobalNorm(fnn.Lbfgs(), 1.0), None, r"value.*within ClipByGlobalNorm.*Lbfgs"),
    "per layer": (lambda: fnn.PerLayer((fnn.Lbfgs(), None, None)), None, r"within PerLayer.*Lbfgs"),
    "deep inside": (lambda: fnn.MaxNorm(fnn.SkipNonFinite(fnn.Lbfgs()), 1.0), None, r"within MaxNorm.*Lbfgs"),
    "private": (fnn.Lbfgs, lambda: fnn.rules.Private(1.0, 1.0), r"rule: expected fnn.rules.Backprop.*got Private"),
    "feedback": (fnn.Lbfgs, fnn.rules.FeedbackAlignment, r"rule: expected fnn.rules.Backprop.*got FeedbackAlignment"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_it_cannot_work_it_is_refused(name):
    make, rule, says = REFUSED[name]
    with pytest.raises(errors.FnnError, match=says):
        run_problem("numpy", make(), rule=rule and rule())


def test_the_state_of_another_optimizer_is_refused():
    net, loss, state, data = run_problem("numpy", fnn.Adam())
    with pytest.raises(errors.FnnError, match=f"Lbfgs: expected its own state, {LbfgsState.__name__}"):
        fnn.train(net, loss, state._replace(optimizer=fnn.Lbfgs()), data, epochs=1, batch_size=50)
    with pytest.raises(errors.FnnError, match="optimizer: expected one with a learning_rate"):
        fnn.range_test(net, loss, fnn.Lbfgs(), data, epochs=1, batch_size=50, key=key())


@pytest.mark.thorough
def test_forward_mode_goes_through_a_run(needs_jax):
    net, loss, _, state, data = logistic("jax")
    with wide():
        run = lambda c: fnn.train(net, loss, state, data, epochs=4, batch_size=80, penalty=fnn.L2(c))[0].params.w
        slope = needs_jax.jacfwd(run)(1e-3)
        step = 1e-6
        oracle.assert_close(slope, (run(1e-3 + step) - run(1e-3 - step)) / (2 * step), 1e-4)

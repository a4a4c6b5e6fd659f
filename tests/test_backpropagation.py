"""Hand-written gradients are those of `jax.grad`, for random networks and all activations and costs that fit."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, CountingDense, calls, compiled, on

import fnn
from fnn import errors
from fnn import random as fnn_random
from fnn.backend import jax

NETWORKS = 200


def random_network(rng, names):
    """A network of depth 0 to 4 and widths 1 to 8, and the same for the oracle; some layers wrapped in a Serial."""
    ours, theirs = [], []
    for _ in range(rng.integers(0, 5)):
        bias = bool(rng.integers(0, 4))
        layer, function = oracle.ACTIVATIONS[names[rng.integers(len(names))]]
        dense = fnn.Dense(int(rng.integers(1, 9)), bias=bias)
        if rng.integers(0, 3) == 0:  # a Serial within the Serial, at times two deep
            nested, function_nested = fnn.Serial((dense, layer)), ["dense", function]
            if rng.integers(0, 2):
                nested, function_nested = fnn.Serial((nested, fnn.Identity())), [function_nested, lambda z: z]
            ours.append(nested)
            theirs.append(function_nested)
        else:
            ours += [dense, layer]
            theirs += ["dense", function]
    if rng.integers(0, 4) == 0:
        ours, theirs = [fnn.Scale(0.5), *ours], [lambda z: 0.5 * z, *theirs]
    return fnn.Serial(tuple(ours)), theirs


def drawn(seed, without=()):
    """A network, a cost, and data, all drawn from the seed; the costs take turns."""
    rng = np.random.default_rng(seed)
    names = [name for name in oracle.ACTIVATIONS if name not in (*without, *oracle.STEPS, "glu")]
    net, theirs = random_network(rng, names)
    n, inputs = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    costs = [cost for name, cost in oracle.LOSSES.items() if name not in without]
    cost = costs[seed % len(costs)]
    of_classes, several = (
        isinstance(cost.loss, fnn.SoftmaxCrossEntropy | fnn.CrossEntropy | fnn.Focal),
        cost.width(2) // 2,
    )
    if cost.loss.misfit(net) or several > 1 or (of_classes and net.output_shape((inputs,)) == (1,)):
        net, theirs = fnn.Serial((*net.layers, fnn.Dense(2 * several))), [*theirs, "dense"]
    if cost.of_probabilities:
        net, theirs = fnn.Serial((*net.layers, fnn.Sigmoid())), [*theirs, lambda z: jax.nn.sigmoid(z)]
    params = net.init(fnn.random.key(seed, backend="numpy"), (inputs,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)  # biases too
    x = rng.normal(size=(n, inputs))
    y = cost.target(rng, n, net.output_shape((inputs,))[0] // several)
    weights = rng.random(n) if rng.integers(2) else None
    return net, cost.loss, params, x, y, weights, theirs, cost


def of_jax_and_ours(problems, batches):
    """For each problem value and gradients by jax.grad, and by hand on JAX: one program for many networks."""

    def one(net, loss, theirs, cost, params, x, y, weights):
        def mean(params, x):
            return oracle.mean(cost.function(oracle.apply(theirs, params, x), y), weights, cost.outer)

        ours = fnn.value_and_grad(net, loss, need_dx=True)(params, x, y, weights)
        return jax.value_and_grad(mean, (0, 1))(params, x), ours

    statics = [(net, loss, theirs, cost) for net, loss, *_, theirs, cost in problems]
    run = lambda batches: [one(*static, *batch) for static, batch in zip(statics, batches, strict=True)]
    return oracle.quick_jit(run)(batches)


# they compile for three seconds each ten: one of the twenty by default, and all of them in the thorough profile
@pytest.mark.parametrize("block", range(NETWORKS // 10 if THOROUGH else 1))
def test_gradients_of_random_networks_equal_jax_grad_to_1e_12(block, needs_jax):
    with jax.enable_x64(True):
        problems = [drawn(seed) for seed in range(10 * block, 10 * block + 10)]
        batches = [(params, x, y, weights) for _, _, params, x, y, weights, *_ in problems]
        results = of_jax_and_ours(problems, batches)
        for (net, loss, *_), batch, (wanted, ours) in zip(problems, batches, results, strict=True):
            oracle.assert_close(ours, wanted, 1e-12)
            if "Function" not in repr((net, loss)):  # the same source on NumPy
                on_numpy = fnn.value_and_grad(net, loss, need_dx=True)(*batch)
                assert all(isinstance(leaf, np.ndarray | np.float64) for leaf in fnn.trees.leaves(on_numpy))
                oracle.assert_close(on_numpy, wanted, 1e-12)


@pytest.mark.numpy_alone
def test_gradients_are_those_of_the_complex_step_on_numpy_alone():
    for seed in range(0, NETWORKS, 1 if THOROUGH else 3):
        net, loss, params, x, y, weights, *_ = drawn(seed, without=["function"])  # which needs JAX
        fnn.testing.check_gradients(net, loss, params, x, y, weights, method="complex", on="numpy")


@pytest.mark.thorough
def test_gradients_in_float32_equal_jax_grad_to_1e_5(needs_jax):
    problems = [drawn(seed) for seed in range(0, NETWORKS, 10 if THOROUGH else 40)]
    batches = [
        fnn.trees.map(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, (params, x, y, weights))
        for _, _, params, x, y, weights, *_ in problems
    ]
    for (net, loss, *_), batch, (of_jax, ours) in zip(
        problems, batches, of_jax_and_ours(problems, batches), strict=True
    ):
        assert all(leaf.dtype == np.float32 for leaf in fnn.trees.leaves(ours))
        exact = fnn.trees.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, batch)
        exact = fnn.value_and_grad(net, loss, need_dx=True)(*exact)
        for leaves in zip(*map(fnn.trees.leaves, (ours, of_jax, exact)), strict=True):
            error, error_of_jax = (oracle.relative_error(np.asarray(leaf), leaves[2]) for leaf in leaves[:2])
            assert error <= max(1e-5, 3 * error_of_jax), net  # where errors cancel, JAX has few digits too


def small(backend, loss=None, dtype=np.float32):
    net = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Serial((fnn.Dense(3), fnn.Relu())), fnn.Dense(2)))
    params = on(backend, net.init(fnn.random.key(3, backend="numpy"), (5,), dtype))
    rng = np.random.default_rng(0)
    return net, loss or fnn.Quadratic(), params, rng.normal(size=(6, 5)), rng.normal(size=(6, 2))


def test_a_tape_holds_output_residuals_and_error_of_every_layer(backend):
    net, loss, params, x, y = small(backend)
    run = lambda params: (fnn.backprop(net, loss)(params, x, y), net.apply(params, x))
    tape, prediction = on("numpy", compiled(backend, run)(params))
    assert [np.shape(a) for a in fnn.trees.leaves(tape.outputs)] == [(6, 4), (6, 4), (6, 3), (6, 3), (6, 2)]
    assert [np.shape(a) for a in fnn.trees.leaves(tape.deltas)] == [(6, 4), (6, 4), (6, 3), (6, 3), (6, 2)]
    assert len(tape.residuals) == len(params)
    assert isinstance(tape.outputs[2], tuple), "a nested network is nested in the tape"
    np.testing.assert_array_equal(tape.prediction, tape.outputs[-1])
    np.testing.assert_allclose(tape.prediction, prediction, rtol=1e-6)
    np.testing.assert_allclose(tape.deltas[-1], tape.prediction - np.float32(y), rtol=1e-6)
    assert tape.dx.shape == (6, 5)
    assert all(len(leaf) == 6 for leaf in fnn.trees.leaves(tape.residuals)), "the batch leads every residual"


def test_the_deltas_of_a_tape_are_the_derivatives_of_each_examples_own_cost(needs_jax):
    import jax

    with jax.enable_x64(True):
        net, loss, params, x, y = small("jax", dtype=np.float64)

        def rest(a, layers, params):  # the cost as a function of a layer's output
            return loss.value(fnn.Serial(layers).forward(params, a)[0], y).sum()

        @oracle.quick_jit
        def run(params, x):
            tape, pairs = fnn.backprop(net, loss)(params, x, y), []
            for i in range(4):
                a, delta = (tree[i] if i != 2 else tree[2][-1] for tree in (tape.outputs, tape.deltas))
                pairs.append((delta, jax.grad(rest)(a, net.layers[i + 1 :], params[i + 1 :])))
            return [*pairs, (tape.dx, jax.grad(rest)(x, net.layers, params))]

        for found, wanted in run(params, jax.numpy.asarray(x)):
            oracle.assert_close(found, wanted, 1e-12)


WEIGHTS = np.array([0, 1, 2, 3, 0, 1], np.float32)


def test_a_tape_holds_the_gradient_of_the_sum_and_of_every_weighted_mean(backend):
    net, loss, params, x, y = small(backend)

    def run(params):
        tape = fnn.backprop(net, loss)(params, x, y)
        weighted = fnn.trees.map(lambda d: d * WEIGHTS[:, None], tape.deltas)  # δ is linear in the cost
        of_sum, of_weighted = (net.gradient(params, tape.residuals, deltas) for deltas in (tape.deltas, weighted))
        return of_sum, of_weighted, fnn.grad(net, loss)(params, x, y), fnn.grad(net, loss)(params, x, y, WEIGHTS)

    of_sum, of_weighted, mean, weighted_mean = compiled(backend, run)(params)
    oracle.assert_close(fnn.trees.map(lambda g: g / 6, of_sum), mean, 1e-5)
    oracle.assert_close(fnn.trees.map(lambda g: g / 7, of_weighted), weighted_mean, 1e-5)


def test_a_value_is_the_share_weighted_sum_of_a_tapes_losses(backend):
    net, loss, params, x, y = small(backend)
    for weights in (None, WEIGHTS):
        run = lambda *of: (fnn.backprop(net, loss)(*of), fnn.value_and_grad(net, loss)(*of))
        tape, (value, _) = compiled(backend, run)(params, x, y, weights)
        np.testing.assert_allclose(float((tape.shares * tape.losses).sum()), float(value), rtol=1e-6)


def test_signed_weights_over_a_denominator_are_the_plain_sum(backend):
    net, loss, params, x, y = small(backend)
    weights = np.array([1, -1, 2, -2, 3, -3], np.float32)  # whose sum is 0
    run = fnn.value_and_grad(net, loss, denominator=6)
    value, grads = compiled(backend, run)(params, x, y, weights)
    losses = np.asarray(loss.value(np.asarray(net.apply(params, x)), np.float32(y)))
    np.testing.assert_allclose(value, (weights * losses).sum() / 6, rtol=1e-5)
    params = on("numpy", params)
    parts = [fnn.grad(net, loss)(params, x[n : n + 1], y[n : n + 1]) for n in range(6)]
    weighted = fnn.trees.map(lambda *g: sum(w * v for w, v in zip(weights, g, strict=True)) / 6, *parts)
    oracle.assert_close(grads, weighted, 1e-5)
    assert fnn.value_and_grad(net, loss)(params, x, y, weights)[0] == 0


def test_dx_is_the_gradient_of_the_value_when_asked(backend):
    net, loss, params, x, y = small(backend)

    def run(params):
        with_dx, without = (fnn.value_and_grad(net, loss, need_dx=need)(params, x, y) for need in (True, False))
        tapes = [fnn.backprop(net, loss, need_dx=need)(params, x, y).dx for need in (True, False)]
        return with_dx, without, tapes

    (value, (grads, dx)), plain, (of_tape, none) = compiled(backend, run)(params)
    oracle.assert_close(dx, of_tape / 6, 1e-5)
    oracle.assert_close(plain, (value, grads), 0)
    assert none is None


def test_no_error_is_carried_below_the_first_layer_that_learns():
    net = fnn.Serial((fnn.Scale(2.0), fnn.Serial((fnn.Identity(), CountingDense(4))), fnn.Relu(), CountingDense(2)))
    params = net.init(fnn.random.key(0, backend="numpy"), (3,))
    x, y = np.ones((2, 3)), np.ones((2, 2))
    calls.clear()
    grads = fnn.grad(net, fnn.Quadratic())(params, x, y)
    assert calls == [2]
    calls.clear()
    tape = fnn.backprop(net, fnn.Quadratic())(params, x, y)
    assert calls == [2, 4]
    assert tape.deltas[0].shape == (2, 3), "a tape knows the error below the first layer that learns, too"
    oracle.assert_close(net.gradient(params, tape.residuals, fnn.trees.map(lambda d: d / 2, tape.deltas)), grads, 1e-6)


def test_an_example_of_weight_zero_counts_nothing_even_if_its_cost_is_infinite(backend):
    net = fnn.Dense(2)
    params = net.init(fnn.random.key(0, backend=backend), (2,))
    x, y = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    y[1] = np.inf
    run = compiled(backend, fnn.value_and_grad(net, fnn.Quadratic()))
    oracle.assert_close(run(params, x, y, np.float32([1, 0, 1])), run(params, x[[0, 2]], y[[0, 2]]), 1e-6)


def test_all_weights_zero_give_the_value_zero_and_the_gradient_zero(backend):
    net, loss, params, x, y = small(backend)
    value, grads = compiled(backend, fnn.value_and_grad(net, loss))(params, x, y, np.zeros(6))
    assert float(value) == 0
    assert all(not np.any(leaf) for leaf in fnn.trees.leaves(grads))


PENALTIES = {
    "L2": (fnn.L2(0.3), lambda p: 0.15 * sum((layer.w**2).sum() for layer in p)),
    "L1": (fnn.L1(0.3), lambda p: 0.3 * sum(abs(layer.w).sum() for layer in p)),
    "L2 by layer": (
        fnn.L2((fnn.DenseParams(0.3, 0.5), fnn.DenseParams(0.0, 0.1))),
        lambda p: 0.15 * (p[0].w ** 2).sum() + 0.25 * (p[0].b ** 2).sum() + 0.05 * (p[1].b ** 2).sum(),
    ),
    "L2 of one layer": (
        fnn.L2((0.3, 0.0)),
        lambda p: 0.15 * ((p[0].w ** 2).sum() + (p[0].b ** 2).sum()),
    ),
}


def test_a_penalty_adds_its_value_and_its_gradient(needs_jax):
    import jax

    net, loss = fnn.Serial((fnn.Dense(3), fnn.Dense(2))), fnn.Quadratic()
    x, y = np.random.default_rng(0).normal(size=(5, 4)), np.ones((5, 2))

    @oracle.quick_jit
    def run(params):
        results = {}
        for name, (penalty, formula) in PENALTIES.items():
            cost = lambda params, formula=formula: loss.value(net.forward(params, x)[0], y).mean() + formula(params)
            ours = fnn.value_and_grad(net, loss, penalty=penalty)(params, x, y), penalty.gradient(params)
            results[name] = ours, (jax.value_and_grad(cost)(params), jax.grad(penalty.value)(params))
        return results

    with jax.enable_x64(True):
        params = fnn.trees.map(lambda p: p + 0.1, net.init(fnn.random.key(1, backend="numpy"), (4,), np.float64))
        for name, (ours, wanted) in run(on("jax", params)).items():
            oracle.assert_close({name: ours}, {name: wanted}, 1e-12)


def test_a_penaltys_coefficient_can_be_traced(needs_jax):
    import jax

    net, loss, params, x, y = small("jax")

    @jax.jit
    def value(coefficient):
        return fnn.value_and_grad(net, loss, penalty=fnn.L2(coefficient))(params, x, y)[0]

    assert value(1.0) > value(0.0)
    assert jax.vmap(value)(np.arange(3.0, dtype=np.float32)).shape == (3,)


def test_custom_vjp_is_apply_with_our_derivative_inside_a_jax_model(needs_jax):
    import jax

    with jax.enable_x64(True):
        net, _, params, x, y = small("jax", dtype=np.float64)
        block = fnn.custom_vjp(net)
        scale = jax.numpy.float64(1.3)

        def model(apply):
            return lambda scale, params, x: ((scale * apply(params, scale * x) - y) ** 2).sum()

        ours = jax.jit(jax.grad(model(block), (0, 1, 2)))(scale, params, x)
        wanted = jax.jit(jax.grad(model(net.apply), (0, 1, 2)))(scale, params, x)
        oracle.assert_close(ours, wanted, 1e-12)


def test_custom_vjp_runs_our_backward_pass_and_not_jaxs(needs_jax):
    import jax

    net = CountingDense(2)
    params = net.init(fnn.random.key(0), (3,))
    calls.clear()
    jax.grad(lambda x: fnn.custom_vjp(net)(params, x).sum())(jax.numpy.ones((1, 3)))
    assert calls == [2]


def test_custom_vjp_takes_integer_input_and_a_key(needs_jax):
    import jax

    net = fnn.Serial((fnn.Scale(0.5), fnn.Dropout(0.5), fnn.Dense(2)))
    params = net.init(fnn.random.key(0), (3,))
    x = np.arange(12, dtype=np.uint8).reshape(4, 3)
    key = fnn.random.key(5)
    both = lambda p: [jax.grad(lambda p: f(p, x, key).sum())(p) for f in (fnn.custom_vjp(net), net.apply)]  # noqa: B023
    oracle.assert_close(*compiled("jax", both)(params), 1e-6)


def test_plain_apply_stays_ordinary_jax_code(needs_jax):
    import jax

    net, _, params, x, _ = small("jax")

    @oracle.quick_jit
    def modes(x):
        f = lambda x: net.apply(params, x)
        return jax.jvp(f, (x,), (jax.numpy.ones_like(x),))[1], jax.jacfwd(f)(x), jax.vmap(f)(x[:, None])

    forward_mode, jacobian, each = modes(x.astype(np.float32))
    np.testing.assert_allclose(forward_mode, jacobian.sum(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    assert each.shape == (6, 1, 2)


def test_value_and_grad_composes_with_jit_vmap_and_grad(needs_jax):
    import jax

    net, loss, params, x, y = small("jax")
    run = fnn.value_and_grad(net, loss)
    of_jax = lambda p: loss.value(net.forward(p, np.float32(x))[0], np.float32(y)).mean()

    @oracle.quick_jit
    def composed(params):
        each = jax.vmap(run, (None, 0, 0))(params, x[:, None], y[:, None])
        curvature = jax.jvp(lambda p: run(p, x, y)[1], (params,), (params,))[1]  # forward mode over ours
        wanted = jax.jvp(jax.grad(of_jax), (params,), (params,))[1]
        return jax.jit(run)(params, x, y), each, curvature, wanted

    once, each, curvature, wanted = composed(params)
    value_and_grads = fnn.value_and_grad(net, loss)(on("numpy", params), x, y)
    oracle.assert_close(once, value_and_grads, 1e-5)
    oracle.assert_close(fnn.trees.map(lambda g: g.mean(axis=0), each), value_and_grads, 1e-5)
    oracle.assert_close(curvature, wanted, 1e-4)


def test_the_parameters_choose_the_backend_and_the_dtype(needs_jax):
    import jax

    net, (_, loss, _, x, y) = fnn.Dense(2), small("numpy")
    params = net.init(fnn.random.key(0, backend="numpy"), (5,))
    on_jax = fnn.trees.map(jax.numpy.asarray, params)
    for p, kind in ((params, np.ndarray), (on_jax, jax.Array)):
        for data in ((x, y), (jax.numpy.asarray(x), jax.numpy.asarray(y)), (x.tolist(), y.tolist())):
            value, grads = fnn.value_and_grad(net, loss)(p, *data)
            assert all(isinstance(leaf, kind) and leaf.dtype == np.float32 for leaf in fnn.trees.leaves(grads))
            assert value.dtype == np.float32
    mixed = fnn.value_and_grad(fnn.Serial((fnn.Dropout(), fnn.Dense(2))), loss)
    p = fnn.Serial((fnn.Dropout(), fnn.Dense(2))).init(fnn.random.key(0, backend="numpy"), (5,))
    assert isinstance(mixed(p, x, y, key=fnn.random.key(1))[1][1].w, np.ndarray), "a JAX key beside NumPy parameters"


def test_no_call_changes_its_inputs():
    net, loss, params, x, y = small("numpy")
    before = [np.array(a) for a in (*fnn.trees.leaves(params), x, y)]
    fnn.backprop(net, loss)(params, x, y)
    fnn.value_and_grad(net, loss, penalty=fnn.L2(0.1))(params, x, y, np.ones(6))
    for a, b in zip(before, (*fnn.trees.leaves(params), x, y), strict=True):
        np.testing.assert_array_equal(a, b)


def test_uint8_images_need_no_conversion(backend):
    x, y = np.arange(24, dtype=np.uint8).reshape(4, 6), np.array([0, 1, 0, 1])
    below = {"scale": (fnn.Scale(1 / 255),), "nothing": (), "sigmoid": (fnn.Sigmoid(),)}
    nets = {name: fnn.Serial((*layers, fnn.Dense(2))) for name, layers in below.items()}

    def run(params):
        runs = {name: fnn.value_and_grad(net, fnn.SoftmaxCrossEntropy()) for name, net in nets.items()}
        return [{name: runs[name](p, a, y) for name, p in params.items()} for a in (x, x.astype(np.float32))]

    params = {name: net.init(fnn.random.key(0, backend="numpy"), (6,)) for name, net in nets.items()}
    ints, floats = compiled(backend, run)(on(backend, params))
    oracle.assert_close(ints, floats, 0)
    assert all(leaf.dtype == np.float32 for leaf in fnn.trees.leaves(ints))


def test_half_precision_sums_losses_in_float32(needs_jax):
    import jax.numpy as jnp

    net = fnn.Dense(2)
    params = net.init(fnn.random.key(0), (3,), jnp.bfloat16)
    run = compiled("jax", fnn.value_and_grad(net, fnn.Quadratic()))
    value, grads = run(params, np.ones((4, 3)), np.ones((4, 2)))
    assert value.dtype == np.float32
    assert grads.w.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("net", "loss", "message"),
    [
        ("net", fnn.Quadratic(), "layer or network, got 'net'"),
        (fnn.Dense, fnn.Quadratic(), "layer or network"),
        (fnn.Dense(2), fnn.Quadratic, "write fnn.Quadratic()"),
        (fnn.Dense(2), "mse", "got 'mse'"),
    ],
)
def test_what_is_no_network_or_no_cost_is_refused(net, loss, message):
    with pytest.raises(errors.KindError, match=message.replace("(", r"\(").replace(")", r"\)")):
        fnn.value_and_grad(net, loss)


def test_a_layers_noise_has_a_key_of_its_own(backend):
    dropout = fnn.Dropout(0.5)
    net = fnn.Serial((dropout, fnn.Identity(), fnn.Serial((dropout,))))
    key = fnn.random.key(4, backend=backend)
    x = np.ones((2, 50))
    once = dropout.apply((), x, fnn_random.fold_in(key, 0))
    twice = dropout.apply((), once, fnn_random.fold_in(fnn_random.fold_in(key, 2), 0))
    params = net.init(key, (50,))
    np.testing.assert_array_equal(net.apply(params, x, key), twice)
    np.testing.assert_array_equal(net.apply(params, x), x)


@pytest.mark.thorough(backend="jax")
def test_a_mean_over_many_examples_does_not_underflow_in_float16(backend):
    n, net = 65_536, fnn.Serial((fnn.Dense(1), fnn.Dense(1, bias=False)))
    w = lambda *shape: np.ones(shape, np.float16)
    params = on(backend, (fnn.DenseParams(w(1, 1), 0 * w(1)), fnn.DenseParams(w(1, 1), ())))
    x, y = np.ones((n, 1), np.float16), np.full((n, 1), 1 - 2**-10)  # δ is 2⁻¹⁰, and δ / n too small for float16
    x[-1] = np.inf
    weights = np.where(np.arange(n) < n - 1, 3.0, 0.0)
    run = compiled(backend, fnn.value_and_grad(net, fnn.Quadratic(), need_dx=True))
    _, (grads, dx) = run(params, *on(backend, (x, np.float32(y), np.float32(weights))))
    assert [np.asarray(g).tolist() for g in fnn.trees.leaves(grads)] == [[[2**-10]], [2**-10], [[2**-10]]]
    assert grads[0].w.dtype == dx.dtype == np.float16
    assert np.asarray(dx[-1]) == 0


def test_the_smallest_errors_are_no_infinite_ones_in_float16():
    net, params = fnn.Dense(1, bias=False), fnn.DenseParams(np.ones((1, 1), np.float16), ())
    grads = fnn.grad(net, fnn.Quadratic())(params, np.zeros((1, 1)), np.float32([[1e-40]]))
    assert np.asarray(grads.w) == 0  # and not 0 times 1 / 10⁻⁴⁰, which is infinite in float32


# ---- weights ---------------------------------------------------------------------------------------------------------

LINE = fnn.Dense(1, bias=False)
ENTRIES = {  # what a batch gives: each for parameters, x, y and weights
    "value_and_grad": lambda p, *batch: fnn.value_and_grad(LINE, fnn.Quadratic())(p, *batch),
    "with dx": lambda p, *batch: fnn.value_and_grad(LINE, fnn.RootMeanSquaredError(), need_dx=True)(p, *batch),
    "penalised": lambda p, *batch: fnn.value_and_grad(LINE, fnn.Quadratic(), penalty=fnn.L2(0.1))(p, *batch),
    "backprop": lambda p, *batch: fnn.backprop(LINE, fnn.Quadratic())(p, *batch).shares,
    "second moment": lambda p, *batch: fnn.per_example.second_moment(LINE, fnn.Quadratic())(p, *batch),
    "signal to noise": lambda p, *batch: fnn.per_example.signal_to_noise(LINE, fnn.Quadratic())(p, *batch),
    "noise scale": lambda p, *batch: fnn.per_example.noise_scale(LINE, fnn.Quadratic())(p, *batch),
    "unclipped": lambda p, *batch: fnn.per_example.clipped_gradient(LINE, fnn.Quadratic(), np.inf)(p, *batch),
}


def line(backend, weights, dtype=np.float32):
    """w = 1, x = 1 and 2, y = 0: ℓ = ½ and 2, with the derivatives 1 and 4."""
    params = on(backend, fnn.DenseParams(np.ones((1, 1), dtype), ()))
    return params, np.array([[1.0], [2.0]]), np.zeros((2, 1)), np.asarray(weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.thorough(backend="jax")
def test_negative_weights_are_those_of_the_formula_in_every_entry(dtype, backend):
    if backend == "jax" and dtype == "float64":
        pytest.skip("which JAX has not by default")
    params, x, y, weights = line(backend, [3.0, -1.0], dtype)
    run = lambda p, w: {name: f(p, x, y, w) for name, f in ENTRIES.items() if name != "with dx"}
    found = compiled(backend, run)(params, weights)
    assert found["value_and_grad"][0] == -0.25
    assert found["value_and_grad"][1].w == -0.5
    np.testing.assert_array_equal(found["backprop"], [1.5, -0.5])
    np.testing.assert_allclose(found["second moment"].w, 1.5 * 1 - 0.5 * 16)
    np.testing.assert_allclose(found["unclipped"].w, -0.5)


@pytest.mark.thorough(backend="jax")
def test_weights_that_sum_to_0_have_the_value_0_and_the_gradient_0_in_every_entry(backend):
    params, x, y, weights = line(backend, np.float32([1, -1]))
    run = lambda p, w: {name: f(p, x, y, w) for name, f in ENTRIES.items() if name not in ("penalised", "noise scale")}
    for leaf in fnn.trees.leaves(compiled(backend, run)(params, weights)):
        np.testing.assert_array_equal(leaf, 0)
    if backend == "jax":
        value = lambda w: fnn.value_and_grad(LINE, fnn.Quadratic())(params, x, y, w)[0]
        np.testing.assert_array_equal(jax.grad(value)(weights), 0)


def test_weights_of_any_scale_change_nothing(backend):
    run = compiled(backend, lambda *batch: {name: f(*batch) for name, f in ENTRIES.items()})
    wanted = run(*line(backend, np.float32([3, 1])))
    np.testing.assert_allclose(wanted["value_and_grad"][0], 0.875)
    for scale in (1e-37, 1e-30, 1 / 3, 1e30, 1e38):
        with np.errstate(over="ignore", invalid="ignore"):
            found = run(*line(backend, np.float32([3 * scale, scale])))
        oracle.assert_close(found, wanted, 1e-6)


@pytest.mark.thorough(backend="jax")
def test_weights_of_any_scale_train_and_evaluate_to_the_same(backend):
    params, x, y, _ = line(backend, None)
    state = fnn.init_state(LINE, fnn.Sgd(0.1), fnn_random.key(0, backend=backend), (1,), params=params)
    results = []
    for scale in (1.0, 2.0**-80, 2.0**80):
        data = (x, y + 1, np.float32([3, 1]) * np.float32(scale))
        after, history = fnn.train(LINE, fnn.Quadratic(), state, data, epochs=2, batch_size=2, penalty=fnn.L2(0.1))
        stepped, metrics = fnn.make_step(LINE, fnn.Quadratic(), penalty=fnn.L2(0.1))(state, data)
        evaluated = fnn.evaluate(LINE, fnn.Quadratic(), after.params, data)
        results.append((after.params, stepped.params, history["loss"], metrics["loss"], evaluated["loss"]))
    for result in results[1:]:
        oracle.assert_close(result, results[0], 1e-6)


BAD_WEIGHTS = {
    "complex": (np.array([1, 1j]), errors.KindError, "weights: expected real numbers, got dtype complex"),
    "too small": (np.array([1e-300, 0]), errors.DataError, "that float32 can hold, got at most 1e-300"),
    "too large": (np.array([1.0, 1e39]), errors.DataError, r"that float32 can hold, got at most 1e\+39"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_cannot_be_used_are_refused(name, backend):
    weights, error, message = BAD_WEIGHTS[name]
    params, x, y, weights = line(backend, weights)
    for run in (fnn.value_and_grad(LINE, fnn.Quadratic()), lambda *d: fnn.evaluate(LINE, fnn.Quadratic(), d[0], d[1:])):
        with pytest.raises(error, match=message):
            run(params, x, y, weights)


@pytest.mark.thorough(backend="jax")
def test_a_single_tiny_weight_beside_ordinary_ones_is_just_small(backend):
    params, x, y, weights = line(backend, [1.0, 1e-300])
    assert fnn.value_and_grad(LINE, fnn.Quadratic())(params, x, y, weights)[0] == 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.thorough(backend="jax")
def test_targets_and_weights_are_not_cut_to_half_precision(dtype, backend):
    if backend == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy alone has none")
    params = fnn.trees.map(lambda p: p.astype(dtype), on(backend, fnn.DenseParams(np.zeros((1, 1), np.float32), ())))
    x, y = np.ones((2, 1)), np.array([[257.0], [70001.0]])
    for targets in (y, y.astype(np.int32)):  # token numbers in a column, too
        for weights in ([1.0, 0.0], [0.0, 257.0]):
            with np.errstate(over="ignore"):
                value, grads = fnn.value_and_grad(LINE, fnn.Quadratic())(params, x, targets, weights)
            assert value == np.float32(y[int(weights[0] == 0), 0] ** 2 / 2)
            if weights[0]:
                np.testing.assert_allclose(np.float32(grads.w), -257, rtol=4e-3)
    mean = fnn.value_and_grad(LINE, fnn.Quadratic())(params, x, np.array([[0.0], [70000.0]]))[1]
    np.testing.assert_allclose(
        np.float32(mean.w), -35000, rtol=4e-3, err_msg="the mean is a float16, if −70,000 is none"
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_integer_inputs_are_not_cut_to_half_precision(dtype, backend):
    if backend == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy alone has none")
    w = np.array([[2.0**-10]], np.float32)
    params = fnn.trees.map(lambda p: p.astype(dtype), on(backend, fnn.DenseParams(w, ())))
    np.testing.assert_allclose(np.float32(LINE.apply(params, np.array([[70001]], np.int32))), 70001 / 1024, rtol=1e-6)

"""Hand-written gradients are those of `jax.grad`, for random networks and all activations and costs that fit."""

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from hypothesis import settings

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


def problem(seed, without=()):
    """A network, a cost, and data, all drawn from the seed; the cost goes through all of them in turn."""
    rng = np.random.default_rng(seed)
    names = [name for name in oracle.ACTIVATIONS if name not in (*without, *oracle.STEPS, "glu")]
    net, theirs = random_network(rng, names)
    n, inputs = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    costs = [cost for name, cost in oracle.LOSSES.items() if name not in without]
    cost = costs[seed % len(costs)]
    if cost.prediction is not oracle.real:  # a cost of probabilities
        net, theirs = fnn.Serial((*net.layers, fnn.Sigmoid())), [*theirs, lambda z: jax.nn.sigmoid(z)]
    params = net.init(fnn.random.key(seed, backend="numpy"), (inputs,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)  # biases too
    x = rng.normal(size=(n, inputs))
    y = cost.target(rng, n, net.output_shape((inputs,))[0])
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


# they compile for two seconds each twenty: every other twenty, and all of them in the thorough profile
@pytest.mark.parametrize("block", range(0, NETWORKS // 20, 1 if settings().max_examples > 100 else 2))
def test_gradients_of_random_networks_equal_jax_grad_to_1e_12(block, needs_jax):
    with jax.enable_x64(True):
        problems = [problem(seed) for seed in range(20 * block, 20 * block + 20)]
        batches = [(params, x, y, weights) for _, _, params, x, y, weights, *_ in problems]
        results = of_jax_and_ours(problems, batches)
        for (net, loss, *_), batch, (wanted, ours) in zip(problems, batches, results, strict=True):
            oracle.assert_close(ours, wanted, 1e-12)
            if "Function" not in repr((net, loss)):  # the same source on NumPy
                on_numpy = fnn.value_and_grad(net, loss, need_dx=True)(*batch)
                assert all(isinstance(leaf, np.ndarray | np.float64) for leaf in fnn.trees.leaves(on_numpy))
                oracle.assert_close(on_numpy, wanted, 1e-12)


def test_gradients_are_those_of_the_complex_step_on_numpy_alone():
    for seed in range(NETWORKS):
        net, loss, params, x, y, weights, *_ = problem(seed, without=["function"])  # which needs JAX
        fnn.testing.check_gradients(net, loss, params, x, y, weights, method="complex", on="numpy")


def test_gradients_in_float32_equal_jax_grad_to_1e_5(needs_jax):
    problems = [problem(seed) for seed in range(0, NETWORKS, 10)]
    batches = [
        fnn.trees.map(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, (params, x, y, weights))
        for _, _, params, x, y, weights, *_ in problems
    ]
    for wanted, ours in of_jax_and_ours(problems, batches):
        assert all(leaf.dtype == np.float32 for leaf in fnn.trees.leaves(ours))
        oracle.assert_close(ours, wanted, 1e-5)


def small(backend, loss=None, dtype=np.float32):
    net = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Serial((fnn.Dense(3), fnn.Relu())), fnn.Dense(2)))
    params = net.init(fnn.random.key(3, backend=backend), (5,), dtype)
    rng = np.random.default_rng(0)
    return net, loss or fnn.Quadratic(), params, rng.normal(size=(6, 5)), rng.normal(size=(6, 2))


def test_a_tape_holds_output_residuals_and_error_of_every_layer(backend):
    net, loss, params, x, y = small(backend)
    tape = fnn.backprop(net, loss)(params, x, y)
    assert [np.shape(a) for a in fnn.trees.leaves(tape.outputs)] == [(6, 4), (6, 4), (6, 3), (6, 3), (6, 2)]
    assert [np.shape(a) for a in fnn.trees.leaves(tape.deltas)] == [(6, 4), (6, 4), (6, 3), (6, 3), (6, 2)]
    assert len(tape.residuals) == len(params)
    assert isinstance(tape.outputs[2], tuple), "a nested network is nested in the tape"
    np.testing.assert_array_equal(tape.prediction, tape.outputs[-1])
    np.testing.assert_allclose(tape.prediction, net.apply(params, x))
    np.testing.assert_allclose(tape.deltas[-1], tape.prediction - np.float32(y), rtol=1e-6)
    assert tape.dx.shape == (6, 5)
    assert all(len(leaf) == 6 for leaf in fnn.trees.leaves(tape.residuals)), "the batch leads every residual"


def test_the_deltas_of_a_tape_are_the_derivatives_of_each_examples_own_cost(needs_jax):
    import jax

    with jax.enable_x64(True):
        net, loss, params, x, y = small("jax", dtype=np.float64)
        tape = fnn.backprop(net, loss)(params, x, y)

        def rest(a, layers, params):  # the cost as a function of a layer's output
            return loss.value(fnn.Serial(layers).apply(params, a), y).sum()

        for i in range(4):
            a = tape.outputs[i] if i != 2 else tape.outputs[2][-1]
            delta = tape.deltas[i] if i != 2 else tape.deltas[2][-1]
            oracle.assert_close(delta, jax.grad(rest)(a, net.layers[i + 1 :], params[i + 1 :]), 1e-12)
        oracle.assert_close(tape.dx, jax.grad(rest)(jax.numpy.asarray(x), net.layers, params), 1e-12)


def test_the_gradient_of_a_tapes_deltas_is_the_gradient_of_the_sum(backend):
    net, loss, params, x, y = small(backend)
    tape = fnn.backprop(net, loss)(params, x, y)
    total = net.gradient(params, tape.residuals, tape.deltas)
    mean = fnn.grad(net, loss)(params, x, y)
    oracle.assert_close(fnn.trees.map(lambda g: g / 6, total), mean, 1e-5)


def test_changed_deltas_give_the_gradient_of_the_change(backend):
    net, loss, params, x, y = small(backend)
    tape = fnn.backprop(net, loss)(params, x, y)
    weights = np.array([0, 1, 2, 3, 0, 1], np.float32)
    deltas = fnn.trees.map(lambda d: d * weights[:, None], tape.deltas)  # δ is linear in the cost
    weighted = net.gradient(params, tape.residuals, deltas)
    wanted = fnn.grad(net, loss)(params, x, y, weights)
    oracle.assert_close(fnn.trees.map(lambda g: g / 7, weighted), wanted, 1e-5)


def test_a_value_is_the_share_weighted_sum_of_a_tapes_losses(backend):
    net, loss, params, x, y = small(backend)
    for weights in (None, np.array([0.0, 1, 2, 3, 0, 1])):
        tape = fnn.backprop(net, loss)(params, x, y, weights)
        value, _ = fnn.value_and_grad(net, loss)(params, x, y, weights)
        np.testing.assert_allclose(float((tape.shares * tape.losses).sum()), float(value), rtol=1e-6)


def test_dx_is_the_gradient_of_the_value_when_asked(backend):
    net, loss, params, x, y = small(backend)
    value, (grads, dx) = fnn.value_and_grad(net, loss, need_dx=True)(params, x, y)
    tape = fnn.backprop(net, loss)(params, x, y)
    np.testing.assert_allclose(dx, tape.dx / 6, rtol=1e-5)
    np.testing.assert_array_equal(fnn.value_and_grad(net, loss)(params, x, y)[0], value)
    assert fnn.backprop(net, loss, need_dx=False)(params, x, y).dx is None
    oracle.assert_close(fnn.grad(net, loss, need_dx=True)(params, x, y)[0], grads, 0)


@dataclass(frozen=True)
class CountingDense(fnn.Dense):
    """A Dense layer that counts its backward passes."""

    def backward(self, params, x, dy):
        calls.append(self.units)
        return super().backward(params, x, dy)


calls: list[int] = []


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
    value, grads = fnn.value_and_grad(net, fnn.Quadratic())(params, x, y, [1, 0, 1])
    wanted, wanted_grads = fnn.value_and_grad(net, fnn.Quadratic())(params, x[[0, 2]], y[[0, 2]])
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    oracle.assert_close(grads, wanted_grads, 1e-6)


def test_all_weights_zero_give_the_value_zero_and_the_gradient_zero(backend):
    net, loss, params, x, y = small(backend)
    value, grads = fnn.value_and_grad(net, loss)(params, x, y, np.zeros(6))
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


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_adds_its_value_and_its_gradient(name, needs_jax):
    import jax

    penalty, formula = PENALTIES[name]
    with jax.enable_x64(True):
        net, loss = fnn.Serial((fnn.Dense(3), fnn.Dense(2))), fnn.Quadratic()
        params = net.init(fnn.random.key(1), (4,), np.float64)
        params = fnn.trees.map(lambda p: p + 0.1, params)
        x, y = np.random.default_rng(0).normal(size=(5, 4)), np.ones((5, 2))

        def cost(params):
            return loss.value(net.apply(params, x), y).mean() + formula(params)

        value, grads = fnn.value_and_grad(net, loss, penalty=penalty)(params, x, y)
        wanted, wanted_grads = jax.value_and_grad(cost)(params)
        oracle.assert_close(value, wanted, 1e-12)
        oracle.assert_close(grads, wanted_grads, 1e-12)
        oracle.assert_close(penalty.gradient(params), jax.grad(penalty.value)(params), 1e-12)


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
    ours = jax.grad(lambda p: fnn.custom_vjp(net)(p, x, key).sum())(params)
    oracle.assert_close(ours, jax.grad(lambda p: net.apply(p, x, key).sum())(params), 1e-6)


def test_plain_apply_stays_ordinary_jax_code(needs_jax):
    import jax

    net, _, params, x, _ = small("jax")
    _, forward_mode = jax.jvp(lambda x: net.apply(params, x), (x.astype(np.float32),), (np.ones_like(x, np.float32),))
    jacobian = jax.jacfwd(lambda x: net.apply(params, x))(x.astype(np.float32))
    np.testing.assert_allclose(forward_mode, jacobian.sum(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    assert jax.vmap(net.apply, (None, 0))(params, x[:, None]).shape == (6, 1, 2)


def test_value_and_grad_composes_with_jit_vmap_and_grad(needs_jax):
    import jax

    net, loss, params, x, y = small("jax")
    run = fnn.value_and_grad(net, loss)
    value, grads = run(params, x, y)
    for compiled in (jax.jit(run), jax.jit(jax.jit(run))):
        oracle.assert_close(compiled(params, x, y), (value, grads), 1e-5)
    each = jax.vmap(run, (None, 0, 0))(params, x[:, None], y[:, None])
    oracle.assert_close(fnn.trees.map(lambda g: g.mean(axis=0), each), (value, grads), 1e-5)
    curvature = jax.jvp(lambda p: run(p, x, y)[1], (params,), (params,))[
        1
    ]  # a Hessian-vector product, forward over ours
    wanted = jax.jvp(jax.grad(lambda p: loss.value(net.apply(p, np.float32(x)), y).mean()), (params,), (params,))[1]
    oracle.assert_close(curvature, wanted, 1e-4)


def test_the_parameters_choose_the_backend_and_the_dtype(needs_jax):
    import jax

    net, loss, params, x, y = small("numpy")
    on_jax = fnn.trees.map(jax.numpy.asarray, params)
    for p, kind in ((params, np.ndarray), (on_jax, jax.Array)):
        for data in ((x, y), (jax.numpy.asarray(x), jax.numpy.asarray(y)), (x.tolist(), y.tolist())):
            value, grads = fnn.value_and_grad(net, loss)(p, *data)
            assert all(isinstance(leaf, kind) and leaf.dtype == np.float32 for leaf in fnn.trees.leaves(grads))
            assert value.dtype == np.float32
    mixed = fnn.value_and_grad(fnn.Serial((fnn.Dropout(), fnn.Dense(2))), loss)
    p = fnn.Serial((fnn.Dropout(), fnn.Dense(2))).init(fnn.random.key(0, backend="numpy"), (5,))
    assert isinstance(mixed(p, x, y, key=fnn.random.key(1))[1][1].w, np.ndarray), "a JAX key beside NumPy parameters"


def test_no_call_changes_its_inputs(backend):
    net, loss, params, x, y = small(backend)
    before = [np.array(a) for a in (*fnn.trees.leaves(params), x, y)]
    fnn.backprop(net, loss)(params, x, y)
    fnn.value_and_grad(net, loss, penalty=fnn.L2(0.1))(params, x, y, np.ones(6))
    for a, b in zip(before, (*fnn.trees.leaves(params), x, y), strict=True):
        np.testing.assert_array_equal(a, b)


def test_uint8_images_need_no_conversion(backend):
    x = np.arange(24, dtype=np.uint8).reshape(4, 6)
    y = np.array([0, 1, 0, 1])
    for net in (
        fnn.Serial((fnn.Scale(1 / 255), fnn.Dense(2))),
        fnn.Dense(2),
        fnn.Serial((fnn.Sigmoid(), fnn.Dense(2))),
    ):
        params = net.init(fnn.random.key(0, backend=backend), (6,))
        ints = fnn.value_and_grad(net, fnn.SoftmaxCrossEntropy())(params, x, y)
        floats = fnn.value_and_grad(net, fnn.SoftmaxCrossEntropy())(params, x.astype(np.float32), y)
        oracle.assert_close(ints, floats, 0)
        assert all(leaf.dtype == np.float32 for leaf in fnn.trees.leaves(ints))


def test_half_precision_sums_losses_in_float32(needs_jax):
    import jax.numpy as jnp

    net = fnn.Dense(2)
    params = net.init(fnn.random.key(0), (3,), jnp.bfloat16)
    value, grads = fnn.value_and_grad(net, fnn.Quadratic())(params, np.ones((4, 3)), np.ones((4, 2)))
    assert value.dtype == np.float32
    assert grads.w.dtype == jnp.bfloat16


BAD_CALLS = {
    "the wrong number of inputs": (
        {"x": np.ones((6, 4))},
        errors.ShapeError,
        r"layers\[0\] Dense: .*\(N, 5\).*\(6, 4\)",
    ),
    "no batch axis": ({"x": np.ones(5), "y": np.ones(5)}, errors.ShapeError, r"\(N, 5\), got \(5,\)"),
    "a number for x": ({"x": 3.0}, errors.ShapeError, "leading axis"),
    "no examples": ({"x": np.ones((0, 5)), "y": np.ones((0, 2))}, errors.ShapeError, "at least one example"),
    "targets that would broadcast": ({"y": np.ones((6, 1))}, errors.ShapeError, r"\(6, 2\), got \(6, 1\)"),
    "too few targets": ({"y": np.ones((5, 2))}, errors.ShapeError, "6 examples"),
    "text": ({"x": np.full((6, 5), "a")}, errors.KindError, "<U1"),
    "objects": ({"x": np.full((6, 5), None)}, errors.KindError, "object"),
    "weights of another shape": ({"weights": np.ones((6, 1))}, errors.ShapeError, r"\(6,\), got \(6, 1\)"),
    "integer parameters": ({"params": "int"}, errors.KindError, r"params\[0\]\.w.*int32"),
    "parameters of another depth": ({"params": "short"}, errors.ShapeError, "4 layers"),
    "no parameters": ({"params": ()}, errors.ShapeError, "4 layers"),
    "a tuple for a layer's parameters": ({"params": "plain"}, errors.ShapeError, r"layers\[0\] Dense: .*DenseParams"),
    "parameters of another width": ({"params": "wide"}, errors.ShapeError, r"w \(4, I\)"),
    "a seed for a key": ({"key": 3}, errors.KindError, "got 3"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
@pytest.mark.parametrize("function", [fnn.backprop, fnn.value_and_grad, fnn.grad])
def test_what_does_not_fit_is_refused_with_what_was_expected_and_found(name, function, backend):
    change, error, message = BAD_CALLS[name]
    net, loss, params, x, y = small(backend)
    arguments = {"params": params, "x": x, "y": y} | change
    arguments["params"] = {
        "int": lambda: fnn.trees.map(lambda p: p.astype(np.int32), params),
        "short": lambda: params[:2],
        "plain": lambda: (tuple(params[0]), *params[1:]),
        "wide": lambda: (fnn.DenseParams(params[0].w[:3], params[0].b), *params[1:]),
    }.get(str(change.get("params", "")), lambda: arguments["params"])()
    with pytest.raises(error, match=message):
        function(net, loss)(**arguments)


def test_a_shape_is_refused_under_tracing_too(needs_jax):
    import jax

    net, loss, params, x, y = small("jax")
    with pytest.raises(errors.ShapeError, match=r"\(6, 2\), got \(6, 1\)"):
        jax.jit(fnn.grad(net, loss))(params, x, y[:, :1])


@pytest.mark.parametrize(
    ("net", "loss", "message"),
    [
        ("net", fnn.Quadratic(), "layer or network, got 'net'"),
        (fnn.Dense, fnn.Quadratic(), "layer or network"),
        (fnn.Dense(2), fnn.Quadratic, "write Quadratic()"),
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

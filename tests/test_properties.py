"""Laws that hold for all values: Hypothesis draws them, over a few fixed shapes, since a new one is a new compilation.

What is drawn goes through all layers, or all costs, of a table. `pytest --hypothesis-profile=thorough
tests/test_properties.py` tries 200 cases of each instead of 16.
"""

import functools

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fnn
from fnn.backend import jax
from fnn.testing import check_gradients, check_layer, check_loss

KINKS = [-6.0, -3.0, -1.0, -0.0, 0.0, 0.1, 1.0, 3.0, 6.0]
floats = functools.partial(st.floats, allow_subnormal=False)  # XLA on the CPU takes them for 0
NUMBERS = floats(-8, 8) | floats(-1e4, 1e4) | st.sampled_from(KINKS)
MODEST = floats(-3, 3)
N, K = 4, 4
USUAL = np.array([[-0.7, 0.3, 1.2, 2.1]])  # a row that keeps a leaf from being all tail, where its norm means nothing

FIXED = {name: layer for name, (layer, _) in oracle.ACTIVATIONS.items() if name != "function"}
LEARNT = {name: layer for name, (layer, _) in oracle.LEARNT.items()}
LAYERS = {
    "dense": fnn.Dense(3),
    "layer_norm": fnn.LayerNorm(),
    "rms_norm": fnn.RMSNorm(),
    "standardize": fnn.Standardize(),
    "dropout": fnn.Dropout(0.4),
    "flatten": fnn.Flatten(),
    "residual": fnn.Residual(fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(K)))),
    "parallel": fnn.Parallel((fnn.Identity(), fnn.Dense(2), fnn.Swish(learnt=True))),
    "frozen": fnn.Serial((fnn.Dense(3), fnn.Frozen(fnn.Dense(3)), fnn.Gelu())),
}
COSTS = {name: cost for name, cost in oracle.LOSSES.items() if name != "function"}


def matrix(elements, rows=N):
    return arrays(np.float64, (rows, K), elements=elements)


def off_kinks(z):
    """The values, those at a kink moved: there the complex step takes a side of its own."""
    return np.where(np.isin(z, KINKS), z + 0.05, z)


@functools.cache
def of_jax():
    """Value and derivative of all of JAX's own functions: one program."""

    def both(name, z, da):
        a, vjp = jax.vjp(oracle.ACTIVATIONS[name][1], z)
        return a, vjp(error_of(name, da))[0]

    return oracle.quick_jit(lambda z, da: {name: both(name, z, da) for name in FIXED})


def error_of(name, da):
    return da[:, : K // 2] if name == "glu" else da


@given(z=matrix(NUMBERS), da=matrix(MODEST))
def test_an_activation_has_the_derivative_of_jax(z, da, needs_jax):
    z, da = np.concatenate([USUAL, z]), np.concatenate([USUAL[:, ::-1], da])
    with jax.enable_x64(True):
        wanted = of_jax()(z, da)
    for name, layer in FIXED.items():
        a, residuals = layer.forward((), z)
        found = a, layer.backward((), residuals, error_of(name, da))
        oracle.assert_close({name: found}, {name: wanted[name]}, 1e-12)


@given(z=matrix(NUMBERS))
@pytest.mark.numpy_alone
def test_an_activation_has_the_derivative_of_the_complex_step(z):
    z = np.concatenate([USUAL, off_kinks(z)])
    for layer in FIXED.values():
        check_layer(layer, z, method="complex", on="numpy")


@given(z=matrix(MODEST), move=arrays(np.float64, (2, K), elements=st.floats(-0.2, 0.2)))
@pytest.mark.numpy_alone
def test_a_learnt_activation_has_the_derivative_of_the_complex_step(z, move):
    z = np.concatenate([USUAL, off_kinks(z)])
    for layer in LEARNT.values():
        params = layer.init(fnn.random.key(0, backend="numpy"), (K,), np.float64)
        params = type(params)(*(p * (1 + move[i][: len(p)]) for i, p in enumerate(params)))
        check_layer(layer, z, params, method="complex", on="numpy")


@given(x=matrix(MODEST), seed=st.integers(0, 2**32 - 1))
@pytest.mark.numpy_alone
def test_a_layer_has_the_derivative_of_the_complex_step(x, seed):
    for layer in LAYERS.values():
        check_layer(layer, np.concatenate([USUAL, x]), method="complex", on="numpy", seed=seed)


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    real=matrix(MODEST),
    positive=matrix(st.floats(1e-3, 1 - 1e-3)),
)
@pytest.mark.numpy_alone
def test_a_cost_has_the_derivative_of_the_complex_step(seed, scale, real, positive):
    for name, cost in COSTS.items():
        rng = np.random.default_rng(seed)
        if cost.of_probabilities:
            a = np.concatenate([cost.prediction(rng, 1, K), positive])
        else:
            a = np.tile(np.concatenate([USUAL, scale * real]), (1, cost.width(K) // K))
        y = cost.target(rng, N + 1, K)
        if name in ("hinge", "perceptron"):
            a = np.where(np.isin(a, [-1, 0, 1]), a + 0.01, a)
        check_loss(cost.loss, a, y, method="complex", on="numpy")


NET = fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(K)))


@given(seed=st.integers(0, 2**32 - 1), weighted=st.booleans())
@pytest.mark.numpy_alone
def test_a_network_has_the_gradient_of_the_complex_step(seed, weighted):
    for cost in COSTS.values():
        rng = np.random.default_rng(seed)
        last = (fnn.Sigmoid(),) if cost.of_probabilities else ()
        net = fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(cost.width(K)), *last))
        params = net.init(fnn.random.key(seed, backend="numpy"), (K,), np.float64)
        x, y = rng.normal(size=(N, K)), cost.target(rng, N, K)
        weights = rng.random(N) if weighted else None
        check_gradients(net, cost.loss, params, x, y, weights, method="complex", on="numpy", seed=seed)


# ---- laws of a network, whatever its values ------------------------------------------------------------------------


def trained(seed):
    """A network, its parameters and a batch."""
    rng = np.random.default_rng(seed)
    params = NET.init(fnn.random.key(seed, backend="numpy"), (K,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)
    return params, rng.normal(size=(6, K)), rng.integers(0, K, 6), rng


SEEDS = st.integers(0, 2**32 - 1)
LOSS = fnn.SoftmaxCrossEntropy()


def gradient(params, x, y, weights=None):
    return fnn.value_and_grad(NET, LOSS)(params, x, y, weights)


@given(SEEDS)
def test_the_order_of_a_batch_does_not_matter(seed):
    params, x, y, rng = trained(seed)
    order = rng.permutation(6)
    oracle.assert_close(gradient(params, x[order], y[order]), gradient(params, x, y), 1e-12)


@given(SEEDS)
def test_the_gradient_is_the_mean_of_the_gradients_of_the_examples(seed):
    params, x, y, _ = trained(seed)
    each = [gradient(params, x[n : n + 1], y[n : n + 1]) for n in range(6)]
    mean = fnn.trees.map(lambda *g: sum(g) / 6, *each)
    oracle.assert_close(mean, gradient(params, x, y), 1e-12)
    tape = fnn.backprop(NET, LOSS)(params, x, y)
    of_each = fnn.factors.made(params, NET.factors(params, tape.residuals, tape.deltas))
    for n in range(6):
        oracle.assert_close(fnn.trees.map(lambda g, n=n: g[n], of_each), each[n][1], 1e-12)


@given(SEEDS)
def test_micro_batches_weighted_by_their_size_are_the_batch(seed):
    params, x, y, _ = trained(seed)
    first, rest = gradient(params, x[:2], y[:2]), gradient(params, x[2:], y[2:])
    both = fnn.trees.map(lambda a, b: (2 * a + 4 * b) / 6, first, rest)
    oracle.assert_close(both, gradient(params, x, y), 1e-12)


@given(SEEDS)
def test_an_example_twice_is_an_example_of_weight_2(seed):
    params, x, y, _ = trained(seed)
    twice = gradient(params, np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]]))
    oracle.assert_close(gradient(params, x, y, np.array([2.0, 1, 1, 1, 1, 1])), twice, 1e-12)


@given(SEEDS, st.floats(-1e3, 1e3))
def test_a_shift_of_all_logits_changes_nothing(seed, shift):
    z, y = np.random.default_rng(seed).normal(size=(N, K)), np.arange(N) % K
    oracle.assert_close(LOSS.value_and_delta(z + shift, y), LOSS.value_and_delta(z, y), 1e-10)
    oracle.assert_close(LOSS.predict(z + shift), LOSS.predict(z), 1e-10)
    oracle.assert_close(fnn.LogSoftmax().apply((), z + shift), fnn.LogSoftmax().apply((), z), 1e-10)


@given(SEEDS)
def test_hidden_units_may_be_permuted(seed):
    params, x, y, rng = trained(seed)
    order = rng.permutation(3)

    def permuted(p):
        return (fnn.DenseParams(p[0].w[order], p[0].b[order]), (), fnn.DenseParams(p[2].w[:, order], p[2].b))

    value, grads = gradient(params, x, y)
    oracle.assert_close(gradient(permuted(params), x, y), (value, permuted(grads)), 1e-12)


@given(SEEDS, st.floats(0.1, 10))
def test_a_relu_network_scales_with_its_units(seed, factor):
    net = fnn.Serial((fnn.Dense(3), fnn.Relu(), fnn.Dense(K)))
    params, x, _, _ = trained(seed)
    (w, b), _, (v, c) = params
    scaled = (fnn.DenseParams(factor * w, factor * b), (), fnn.DenseParams(v / factor, c))
    oracle.assert_close(net.apply(scaled, x), net.apply(params, x), 1e-12)


# ---- edges ---------------------------------------------------------------------------------------------------------

BATCHES = {"one example": (1, 4, 3), "one unit": (5, 1, 3), "one input": (5, 4, 1), "one of each": (1, 1, 1)}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.numpy_alone
def test_gradients_are_right_for_one_example_one_unit_and_one_class(name, cost):
    n, units, inputs = BATCHES[name]
    cost, rng = COSTS[cost], np.random.default_rng(0)
    for outputs in (1, 2):
        layers = (fnn.Dense(units), fnn.Tanh(), fnn.Dense(cost.width(outputs)))
        net = fnn.Serial((*layers, fnn.Sigmoid()) if cost.of_probabilities else layers)
        params = net.init(fnn.random.key(1, backend="numpy"), (inputs,), np.float64)
        y = cost.target(rng, n, outputs)
        if outputs == 1 and isinstance(cost.loss, fnn.SoftmaxCrossEntropy | fnn.CrossEntropy) and y.ndim == 2:
            continue  # the probability of a single class is refused
        check_gradients(net, cost.loss, params, rng.normal(size=(n, inputs)), y, method="complex", on="numpy")


EXTREMES = [-np.inf, -1e30, -1e4, -88.0, -1e-30, -0.0, 0.0, 1e-30, 88.0, 1e4, 1e30, np.inf]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_at_infinities_and_signed_zeros_an_activation_has_jaxs_value(dtype, needs_jax):
    z = np.array(EXTREMES, dtype)[:, None]
    with jax.enable_x64(True), np.errstate(all="ignore"):
        of_all = values_of_jax()(np.asarray(z, np.float64))  # z² is a number there
        for name, wanted in of_all.items():
            found, wanted = FIXED[name].apply((), z), np.asarray(wanted)
            known = np.isfinite(wanted) | (np.isinf(z) & ~np.isnan(wanted))  # JAX's may overflow where ours does not
            found, wanted = (np.where(known, a, 0) for a in (found, wanted))
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4, err_msg=name)


@functools.cache
def values_of_jax():
    """The values of all of JAX's own functions of single numbers: one program."""
    names = [name for name in FIXED if name not in ("softmax", "softmax_hot", "glu")]
    return oracle.quick_jit(lambda z: {name: oracle.ACTIVATIONS[name][1](z) for name in names})

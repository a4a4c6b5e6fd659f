"""Of each example: what is computed from activations and errors is what `jax.vmap(jax.grad)` makes, one by one."""

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from test_layers import Gain

import fnn
from fnn import per_example, trees
from fnn.backend import jax


@dataclass(frozen=True)
class Twice(fnn.Layer):
    """A composition as a user writes one, by the five methods alone: the same layer used twice."""

    layer: fnn.Layer

    def output_shape(self, input_shape):
        return self.layer.output_shape(input_shape)

    def init(self, key, input_shape, dtype=np.float32):
        return self.layer.init(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        h, first = self.layer.forward(params, x)
        y, second = self.layer.forward(params, h)
        return y, (first, second)

    def backward(self, params, residuals, dy):
        return self.layer.backward(params, residuals[0], self.layer.backward(params, residuals[1], dy))

    def gradient(self, params, residuals, dy):
        below = self.layer.backward(params, residuals[1], dy)
        both = self.layer.gradient(params, residuals[0], below), self.layer.gradient(params, residuals[1], dy)
        return trees.map(lambda a, b: a + b, *both)


NETS = {
    "linear": fnn.Dense(3),
    "no bias": fnn.Serial((fnn.Dense(4, bias=False), fnn.Tanh(), fnn.Dense(3, bias=False))),
    "mlp": fnn.mlp((6, 5, 3), fnn.Gelu()),
    "scaled": fnn.Serial((fnn.Scale(0.5), fnn.Standardize(), fnn.mlp((4, 3), fnn.Sigmoid()))),
    "nested": fnn.Serial((fnn.Serial((fnn.Dense(4), fnn.Serial((fnn.Softplus(), fnn.Dense(5))))), fnn.Dense(3))),
    "norms": fnn.Serial((fnn.Dense(6), fnn.LayerNorm(), fnn.Tanh(), fnn.Dense(4), fnn.RMSNorm(), fnn.Dense(3))),
    "learnt slopes": fnn.Serial((fnn.Dense(4), fnn.PRelu(), fnn.Dense(4), fnn.Swish(learnt=True), fnn.Dense(3))),
    "residual": fnn.Serial((fnn.Dense(4), fnn.Residual(fnn.mlp((6, 4), fnn.Tanh())), fnn.Dense(3))),
    "parallel": fnn.Serial((fnn.Parallel((fnn.Identity(), fnn.mlp((3, 2), fnn.Tanh()), fnn.Dense(4))), fnn.Dense(3))),
    "frozen below": fnn.Serial((fnn.Frozen(fnn.mlp((4, 4), fnn.Tanh())), fnn.Tanh(), fnn.Dense(3))),
    "frozen between": fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Frozen(fnn.Dense(4)), fnn.Tanh(), fnn.Dense(3))),
    "frozen beside": fnn.Serial((fnn.Parallel((fnn.Frozen(fnn.Dense(2)), fnn.Dense(2))), fnn.Dense(3))),
    "own": fnn.Serial((Gain(), fnn.Dense(3))),
    "own composition": fnn.Serial((Twice(fnn.Dense(5)), fnn.Tanh(), fnn.Dense(3))),
    "nothing to learn": fnn.Serial((fnn.Tanh(), fnn.Parallel((fnn.Relu(), fnn.Tanh())))),
}
LOSS = fnn.SoftmaxCrossEntropy()
N, M = 7, 4


def problem(name, dtype=np.float64, backend="numpy"):
    """A network with parameters, weighted data with one weight of 0, and data of M examples more; the data on NumPy."""
    rng, net = np.random.default_rng(0), NETS[name]
    params = net.init(fnn.random.key(1, backend="numpy"), (5,), dtype)
    params = trees.map(lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype), params)
    if backend == "jax":
        params = jax.tree.map(jax.numpy.asarray, params)
    outputs = net.output_shape((5,))[0]

    def data(n):
        weights = rng.integers(1, 4, n).astype(dtype)
        weights[0] = 0
        return rng.normal(size=(n, 5)).astype(dtype), rng.integers(0, outputs, n), weights

    return net, params, data(N), data(M)


def of_each(net, params, x, y, weights):
    """The gradient of each example's own cost by JAX, (N, ...); of what is frozen 0."""

    def cost(params, x, y, weight):
        return weight * LOSS.value(net.apply(params, x[None]), y[None])[0]

    grads = jax.vmap(jax.grad(cost), (None, 0, 0, 0))(params, x, y, weights)
    return trees.map_learnt(lambda g: g, grads, fixed=lambda g: 0 * g)


def rows(grads, n=N):
    return np.concatenate([np.zeros((n, 0)), *(np.asarray(g).reshape(n, -1) for g in trees.leaves(grads))], axis=1)


def everything(net, params, data, other):
    """What the module makes of them."""
    x, y, weights = data
    of = [params, x, y, weights]
    return {
        "gradients": per_example.gradients(net, LOSS)(*of),
        "norms": per_example.norms(net, LOSS)(*of),
        "norms without weights": per_example.norms(net, LOSS)(params, x, y),
        "norms by layer": per_example.norms(net, LOSS, by_layer=True)(*of),
        "clipped": per_example.clipped_gradient(net, LOSS, 0.7)(*of),
        "clipped, summed": per_example.clipped_gradient(net, LOSS, 0.7, denominator=1)(params, x, y),
        "gram": per_example.gram(net, LOSS)(*of),
        "gram with others": per_example.gram(net, LOSS)(*of, other=other),
        "second moment": per_example.second_moment(net, LOSS)(*of),
        "variance": per_example.variance(net, LOSS)(*of),
        "second moment without weights": per_example.second_moment(net, LOSS)(params, x, y),
        "noise": per_example.noise_scale(net, LOSS)(params, x, y),
    }


def expected(weights, grads, plain, others):
    """The same from gradients that JAX has made one by one: weighted, unweighted, and those of the others."""
    all_rows, of_plain, of_other = rows(grads), rows(plain), rows(others, M)
    norms, of_ones = np.linalg.norm(all_rows, axis=1), np.linalg.norm(of_plain, axis=1)

    def mean(factors, grads):
        return trees.map(lambda g: np.tensordot(factors, np.asarray(g), 1), grads)

    shares = weights / weights.sum()
    square = trees.map(lambda g: np.tensordot(shares, np.asarray(g) ** 2, 1), plain)
    average = mean(shares, plain)
    trace, norm2 = of_plain.var(axis=0, ddof=1).sum(), (of_plain.mean(axis=0) ** 2).sum()
    return {
        "gradients": grads,
        "norms": norms,
        "norms without weights": of_ones,
        "clipped": mean(np.minimum(1, 0.7 / np.maximum(norms, 1e-300)) / weights.sum(), grads),
        "clipped, summed": mean(np.minimum(1, 0.7 / np.maximum(of_ones, 1e-300)), plain),
        "gram": all_rows @ all_rows.T,
        "gram with others": all_rows @ of_other.T,
        "second moment": square,
        "variance": trees.map(lambda s, a: s - a**2, square, average),
        "second moment without weights": trees.map(lambda g: (np.asarray(g) ** 2).mean(0), plain),
        "noise": (trace * (N - 1) / N, norm2, trace, norm2 - trace / N),
    }


@pytest.mark.parametrize("name", NETS)
def test_all_is_what_jax_makes_of_gradients_one_by_one(name, needs_jax):
    net, params, data, others = problem(name)

    @oracle.quick_jit
    def both(params, data, others):
        x, y, weights = data
        ones = jax.numpy.ones_like(weights)
        one_by_one = (of_each(net, params, *of) for of in (data, (x, y, ones), others))
        return everything(net, params, data, others), tuple(one_by_one)

    with jax.enable_x64(True):
        found, one_by_one = trees.map(np.asarray, both(params, data, others))
    wanted, learns = expected(data[2], *one_by_one), bool(trees.learnt(params))
    for results in (found, everything(net, params, data, others)):
        of_layers = trees.leaves(results.pop("norms by layer"))
        oracle.assert_close(np.sqrt(sum((np.asarray(n) ** 2 for n in of_layers), np.zeros(N))), wanted["norms"], 1e-12)
        assert bool(of_layers) == learns
        simple, unbiased, trace, norm2 = results.pop("noise")
        spread, of_mean, *estimates = wanted["noise"]
        oracle.assert_close(
            (simple * of_mean, unbiased * norm2, trace, norm2), (spread, estimates[0], *estimates), 1e-11
        )
        oracle.assert_close(results, {key: wanted[key] for key in results}, 1e-12)


@pytest.mark.parametrize("name", NETS)
def test_without_a_bound_the_clipped_gradient_is_the_gradient(name, backend):
    net, params, (x, y, weights), _ = problem(name, np.float32, backend)
    for w in (None, weights):
        clipped = per_example.clipped_gradient(net, LOSS, np.inf)(params, x, y, w)
        oracle.assert_close(clipped, fnn.grad(net, LOSS)(params, x, y, w), 1e-6)


def test_no_clipped_gradient_is_longer_than_the_bound(backend):
    net, params, (x, y, _), _ = problem("mlp", np.float32, backend)
    for bound in (1e-3, 0.1, 0.5):
        for n in range(N):
            one = per_example.clipped_gradient(net, LOSS, bound)(params, x[n : n + 1], y[n : n + 1])
            assert np.sqrt(sum((g**2).sum() for g in trees.leaves(one))) <= bound * (1 + 1e-6)


def test_noise_of_the_network_is_that_of_training(backend):
    net = fnn.Serial((fnn.Dense(8), fnn.Dropout(0.5), fnn.Tanh(), fnn.Dense(3)))
    params = net.init(fnn.random.key(0, backend=backend), (5,))
    key = fnn.random.key(3, backend=backend)
    x, y = np.random.default_rng(0).normal(size=(N, 5)), np.arange(N) % 3
    each = per_example.gradients(net, LOSS)(params, x, y, None, key)
    wanted = fnn.grad(net, LOSS)(params, x, y, None, key)
    oracle.assert_close(trees.map(lambda g: g.mean(axis=0), each), wanted, 1e-5)
    norms = per_example.norms(net, LOSS)(params, x, y, None, key)
    squares = sum((np.asarray(g).reshape(N, -1) ** 2).sum(axis=1) for g in trees.leaves(each))
    oracle.assert_close(norms, np.sqrt(squares), 1e-5)


def test_an_example_of_weight_0_counts_nothing_even_if_its_error_is_infinite(backend):
    net = fnn.Dense(1)
    params = net.init(fnn.random.key(0, backend=backend), (2,))
    x, y, weights = np.float32([[1, 2], [3, 4]]), np.float32([[0], [3e38]]), [1.0, 0.0]
    for make in (per_example.norms, per_example.second_moment, lambda *of: per_example.clipped_gradient(*of, 1.0)):
        with np.errstate(over="ignore", invalid="ignore"):
            found = make(net, fnn.Quadratic())(params, x, y, weights)
            alone = make(net, fnn.Quadratic())(params, x[:1], y[:1])
        if make is per_example.norms:
            assert found[1] == 0
            found = found[:1]
        oracle.assert_close(found, alone, 1e-6)


def test_a_bound_may_be_an_axis_of_a_sweep(needs_jax):
    net, params, (x, y, _), _ = problem("mlp", np.float32, "jax")
    bounds = np.float32([0.1, 0.7, np.inf])
    swept = jax.vmap(lambda c: per_example.clipped_gradient(net, LOSS, c)(params, x, y))(bounds)
    for i, bound in enumerate(bounds):
        one = per_example.clipped_gradient(net, LOSS, bound)(params, x, y)
        oracle.assert_close(jax.tree.map(lambda g, i=i: g[i], swept), one, 1e-5)


def test_results_are_float32_and_never_nan_where_nothing_counts_or_all_agree(backend):
    net, params, (x, y, _), _ = problem("mlp", np.float32, backend)
    for make in (per_example.signal_to_noise, per_example.noise_scale, per_example.variance, per_example.norms):
        for data in ((x, y), (x, y, np.zeros(N)), (x, y, np.eye(N)[1]), (x[[2, 2]], y[[2, 2]])):
            leaves = trees.leaves(make(net, LOSS)(params, *data))
            assert all(leaf.dtype == np.float32 and not np.isnan(leaf).any() for leaf in leaves), (make, len(data))
    with pytest.raises(fnn.errors.ShapeError, match="at least two examples"):
        per_example.noise_scale(net, LOSS)(params, x[:1], y[:1])


def test_what_has_no_gradient_of_one_example_is_refused():
    net = fnn.Dense(1)
    with pytest.raises(fnn.errors.KindError, match="no example has a gradient of its own"):
        per_example.norms(net, fnn.RootMeanSquaredError())
    for wrong in (0, -1.0, np.nan):
        with pytest.raises(fnn.errors.ArgumentError, match="max_norm: expected a number above 0"):
            per_example.clipped_gradient(net, LOSS, wrong)
    with pytest.raises(fnn.errors.KindError, match="denominator: expected a number"):
        per_example.clipped_gradient(net, LOSS, 1.0, denominator="32")
    params = net.init(fnn.random.key(0, backend="numpy"), (2,))
    with pytest.raises(fnn.errors.KindError, match="other: expected"):
        per_example.gram(net, fnn.Quadratic())(params, [[1.0, 2.0]], [[0.0]], other=[[1.0, 2.0]])


def test_clipping_takes_a_plain_gradients_temporary_memory_and_the_norms_less_than_its_results(needs_jax):
    """By the compiler's own figures, on the CPU: 512 examples of a network with two hidden layers."""
    net, cpu = fnn.mlp((1024, 1024, 10)), jax.devices("cpu")[0]

    def planned(f):
        with jax.default_device(cpu):
            params = jax.eval_shape(lambda key: net.init(key, (784,)), fnn.random.key(0))
            data = jax.ShapeDtypeStruct((512, 784), np.float32), jax.ShapeDtypeStruct((512,), np.int32)
            plan = jax.jit(f).lower(params, *data).compile().memory_analysis()
        return plan.temp_size_in_bytes, plan.output_size_in_bytes

    plain, results = planned(fnn.grad(net, LOSS))
    assert planned(per_example.clipped_gradient(net, LOSS, 1.0))[0] <= 1.1 * plain
    assert sum(planned(per_example.norms(net, LOSS))) <= 0.6 * (plain + results)

"""Of each example: what is computed from activations and errors is what `jax.vmap(jax.grad)` makes, one by one."""

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import GATED, THOROUGH, Gain, Mean, key, moved, on, wide

import fnn
from fnn import per_example, trees
from fnn.backend import jax


@dataclass(frozen=True)
class Twice(fnn.Layer):
    """A layer as a user writes one, by the five methods alone: the same layer used twice."""

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
    "own twice": fnn.Serial((Twice(fnn.Dense(5)), fnn.Tanh(), fnn.Dense(3))),
    "own composition": fnn.Serial((GATED, fnn.Tanh(), fnn.Dense(3))),
    "few positions": fnn.Serial((fnn.Dense(8), fnn.Tanh(), Mean(), fnn.Dense(3))),
    "many positions": fnn.Serial((fnn.Dense(2), fnn.Tanh(), fnn.LayerNorm(), fnn.Dense(2), Mean(), fnn.Dense(3))),
    "images": fnn.Serial(
        (fnn.Conv(3, (2, 2)), fnn.Tanh(), fnn.MaxPool((2, 2)), fnn.Conv(12, (2, 2)), fnn.Flatten(), fnn.Dense(3))
    ),
    "sequences": fnn.Serial((fnn.Lstm(4, all_states=True), fnn.Gru(3), fnn.Dense(3))),
    "symbols": fnn.Serial((fnn.Embedding(9, 3), fnn.Rnn(4), fnn.Dense(3))),
    "nothing to learn": fnn.Serial((fnn.Tanh(), fnn.Parallel((fnn.Relu(), fnn.Tanh())))),
}
SHAPES = {  # the others take (5,)
    "few positions": (2, 5),
    "many positions": (6, 5),
    "images": (5, 6, 2),
    "sequences": (4, 2),
    "symbols": (6,),
}
LOSS = fnn.SoftmaxCrossEntropy()
N, M = 7, 4


def problem(name, dtype=np.float64, backend="numpy"):
    """A network with parameters, weighted data with one weight of 0, and data of M examples more; the data on NumPy."""
    rng, net, input_shape = np.random.default_rng(0), NETS[name], SHAPES.get(name, (5,))
    params, outputs = on(backend, moved(net, input_shape, dtype)), net.output_shape(input_shape)[0]

    def data(n):
        weights = rng.integers(1, 4, n).astype(dtype)
        weights[0] = 0
        x = (
            rng.integers(0, 9, (n, *input_shape))
            if name == "symbols"
            else rng.normal(size=(n, *input_shape)).astype(dtype)
        )
        return x, rng.integers(0, outputs, n), weights

    return net, params, data(N), data(M)


def of_each(net, params, x, y):
    """The gradient of each example's own cost by JAX, (N, ...); of what is frozen 0."""

    def cost(params, x, y):
        return LOSS.value(net.forward(params, x[None])[0], y[None])[0]

    grads = jax.vmap(jax.grad(cost), (None, 0, 0))(params, x, y)
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


def one_by_one(net, params, x, y):
    """The gradients of single examples, stacked."""
    grads = [fnn.grad(net, LOSS)(params, x[n : n + 1], y[n : n + 1]) for n in range(len(x))]
    return trees.map(lambda *g: np.stack(g), *grads)


@pytest.mark.parametrize("name", NETS)
def test_each_quantity_is_that_of_the_gradients_of_batches_of_one(name):
    net, params, data, others = problem(name)
    plain, of_others = (one_by_one(net, params, x, y) for x, y, _ in (data, others))
    weighted, of_others = (
        trees.map(lambda g, w=w: g * w.reshape(-1, *[1] * (g.ndim - 1)), grads)
        for grads, w in ((plain, data[2]), (of_others, others[2]))
    )
    wanted = expected(data[2], weighted, plain, of_others)
    assert_as_expected(name, everything(net, params, data, others), wanted, bool(trees.learnt(params)))


ON_JAX = tuple(NETS) if THOROUGH else ("many positions",)


@pytest.mark.parametrize("names", [tuple(NETS)[i::2] for i in range(2 if THOROUGH else 1)], ids=str)
def test_gradients_are_jaxs_of_each_example_and_both_backends_say_the_same(names, needs_jax):
    problems = {name: problem(name) for name in names}

    @oracle.quick_jit
    def run(arrays):
        return {
            name: (
                of_each(NETS[name], params, *data[:2]),
                everything(NETS[name], params, data, others) if name in ON_JAX else None,
            )
            for name, (params, data, others) in arrays.items()
        }

    with jax.enable_x64(True):
        found = trees.map(np.asarray, run(on("jax", {name: case[1:] for name, case in problems.items()})))
    for name, (net, params, data, others) in problems.items():
        of_jax, all_on_jax = found[name]
        oracle.assert_close({name: per_example.gradients(net, LOSS)(params, *data[:2])}, {name: of_jax}, 1e-12)
        if all_on_jax is not None:
            on_numpy = everything(net, params, data, others)
            for results in (all_on_jax, on_numpy):
                results["noise"] = results["noise"]._replace(unbiased=0)  # near 0 by 0, in some
            oracle.assert_close({name: all_on_jax}, {name: on_numpy}, 1e-11)


def assert_as_expected(name, results, wanted, learns):
    of_layers = trees.leaves(results.pop("norms by layer"))
    oracle.assert_close(np.sqrt(sum((np.asarray(n) ** 2 for n in of_layers), np.zeros(N))), wanted["norms"], 1e-12)
    assert bool(of_layers) == learns
    simple, unbiased, trace, norm2 = results.pop("noise")
    spread, of_mean, *estimates = wanted["noise"]
    oracle.assert_close((simple * of_mean, unbiased * norm2, trace, norm2), (spread, estimates[0], *estimates), 1e-11)
    oracle.assert_close({name: results}, {name: {key: wanted[key] for key in results}}, 1e-12)


@pytest.mark.parametrize("name", NETS)
def test_without_a_bound_the_clipped_gradient_is_the_gradient(name, backend):
    if backend == "jax" and name != "frozen beside" and not THOROUGH:
        pytest.skip("one program is enough")
    with wide():
        net, params, (x, y, weights), _ = problem(name, np.float64, backend)

        def both(params, weights):
            of = per_example.clipped_gradient(net, LOSS, np.inf), fnn.grad(net, LOSS)
            return [[make(params, x, y, w) for make in of] for w in (None, weights)]

        for clipped, wanted in (both if backend == "numpy" else oracle.quick_jit(both))(params, weights):
            oracle.assert_close(clipped, wanted, 1e-12)


def test_no_clipped_gradient_is_longer_than_the_bound(backend):
    net, params, (x, y, _), _ = problem("mlp", np.float32, backend)
    run = lambda params, x, y, bound: per_example.clipped_gradient(net, LOSS, bound)(params, x, y)
    run = run if backend == "numpy" else oracle.quick_jit(run)
    for bound in (1e-3, 0.1, 0.5):
        for n in range(N):
            one = on("numpy", run(params, x[n : n + 1], y[n : n + 1], bound))
            assert np.sqrt(sum((g**2).sum() for g in trees.leaves(one))) <= bound * (1 + 1e-6)


@pytest.mark.thorough(backend="jax")
def test_an_example_whose_gradient_is_not_finite_counts_nothing_when_clipped(backend):
    net = fnn.Serial((fnn.Dense(3), fnn.Dense(3), fnn.Tanh(), fnn.Dense(1)))  # behind tanh an infinite input has δ = 0
    params = on(backend, trees.map(lambda p: abs(p) + 1, moved(net, (2,), np.float32)))

    def run(params, x, y):
        norms = per_example.norms(net, fnn.Quadratic())(params, x, y)
        clipped = per_example.clipped_gradient(net, fnn.Quadratic(), 0.5, denominator=1)
        return clipped(params, x, y), clipped(params, x[1:], y[1:]), norms

    run = run if backend == "numpy" else oracle.quick_jit(run)
    for x in (3e38, np.inf, np.nan):
        with np.errstate(over="ignore", invalid="ignore"):
            found, wanted, norms = run(params, np.float32([[x, x], [1, 1], [0, 2]]), np.float32([[0], [1], [2]]))
        assert not np.isfinite(norms[0]), x
        oracle.assert_close({x: found}, {x: wanted}, 1e-6)


def test_noise_of_the_network_is_that_of_training(backend):
    net = fnn.Serial((fnn.Dense(8), fnn.Dropout(0.5), fnn.Tanh(), fnn.Dense(3)))
    x, y = np.random.default_rng(0).normal(size=(N, 5)), np.arange(N) % 3

    def run(params, key):
        of = per_example.gradients, fnn.grad, per_example.norms
        return [make(net, LOSS)(params, x, y, None, key) for make in of]

    run = run if backend == "numpy" else oracle.quick_jit(run)
    each, wanted, norms = run(on(backend, moved(net, (5,), np.float32)), key(backend, 3))
    oracle.assert_close(trees.map(lambda g: g.mean(axis=0), each), wanted, 1e-5)
    squares = sum((np.asarray(g).reshape(N, -1) ** 2).sum(axis=1) for g in trees.leaves(each))
    oracle.assert_close(norms, np.sqrt(squares), 1e-5)


def test_an_example_of_weight_0_counts_nothing_even_if_its_error_is_infinite(backend):
    net = fnn.Dense(1)
    params = net.init(key(), (2,))
    x, y, weights = np.float32([[1, 2], [3, 4]]), np.float32([[0], [3e38]]), [1.0, 0.0]
    of = per_example.norms, per_example.second_moment, lambda *of: per_example.clipped_gradient(*of, 1.0)
    run = lambda *data: [make(net, fnn.Quadratic())(*data) for make in of]
    norm, *alone = run(params, x[:1], y[:1])
    run = run if backend == "numpy" else oracle.quick_jit(run)
    with np.errstate(over="ignore", invalid="ignore"):
        norms, *found = run(on(backend, params), x, y, np.float32(weights))
    assert norms[1] == 0
    oracle.assert_close((norms[:1], *found), (norm, *alone), 1e-6)


def test_a_bound_may_be_an_axis_of_a_sweep(needs_jax):
    net, params, (x, y, _), _ = problem("mlp", np.float32, "jax")
    bounds = np.float32([0.1, 0.7, np.inf])
    one = lambda c: per_example.clipped_gradient(net, LOSS, c)(params, x, y)
    swept, alone = oracle.quick_jit(lambda bounds: (jax.vmap(one)(bounds), jax.lax.map(one, bounds)))(bounds)
    oracle.assert_close(swept, alone, 1e-5)
    assert len({float(abs(g).sum()) for g in swept[0].w}) == 3


@pytest.mark.thorough(backend="jax")
def test_results_are_float32_and_never_nan_where_nothing_counts_or_all_agree(backend):
    net, params, (x, y, _), _ = problem("mlp", np.float32, backend)
    quantities = per_example.signal_to_noise, per_example.noise_scale, per_example.variance, per_example.norms
    run = lambda *data: [make(net, LOSS)(*data) for make in quantities]
    run = run if backend == "numpy" else oracle.quick_jit(run)
    same, ones = np.full(N, 2), np.ones(N)  # on JAX without weights it is another program
    unweighted = ((x, y), (x[same], y[same])) if backend == "numpy" or THOROUGH else ()
    for data in ((x, y, ones), (x, y, np.zeros(N)), (x, y, np.eye(N)[1]), (x[same], y[same], ones), *unweighted):
        leaves = trees.leaves(on("numpy", run(params, *data)))
        assert all(leaf.dtype == np.float32 and not np.isnan(leaf).any() for leaf in leaves), len(data)
    with pytest.raises(fnn.errors.ShapeError, match="at least two examples"):
        per_example.noise_scale(net, LOSS)(on("numpy", params), x[:1], y[:1])


@pytest.mark.parametrize("shape", [(3,), (4, 3)], ids=["dense", "positions"])
def test_norms_and_clipping_differentiate_where_an_example_has_no_gradient(shape, needs_jax):
    net, x = fnn.Dense(2, initializer=fnn.Ones()), np.ones((2, *shape), np.float32)
    params = net.init(key("jax"), shape)  # with sums that are exact
    y = np.array(net.apply(params, x))
    y[1] += 1  # the error of the first example is 0

    lengths = lambda params, n: per_example.norms(net, fnn.Quadratic())(params, x[n:], y[n:]).sum()
    clipped = lambda params, n: (per_example.clipped_gradient(net, fnn.Quadratic(), 0.5)(params, x[n:], y[n:]).w).sum()
    of_both, of_one, through = oracle.quick_jit(
        lambda params: (*[jax.grad(lengths)(params, n) for n in (0, 1)], jax.grad(clipped)(params, 0))
    )(params)
    oracle.assert_close(of_both, of_one, 1e-5)
    assert all(np.isfinite(leaf).all() for leaf in trees.leaves(through))


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


def planned(f, net, data):
    """The bytes of temporary memory and of results by the compiler's own figures, on the CPU."""
    with jax.default_device(jax.devices("cpu")[0]):
        params = jax.eval_shape(lambda key: net.init(key, data[0].shape[1:]), fnn.random.key(0))
        plan = jax.jit(f).lower(params, *data).compile().memory_analysis()
    return plan.temp_size_in_bytes, plan.output_size_in_bytes


def test_clipping_takes_a_plain_gradients_temporary_memory_and_the_norms_less_than_its_results(needs_jax):
    """512 examples of a network with two hidden layers."""
    net = fnn.mlp((1024, 1024, 10))
    data = jax.ShapeDtypeStruct((512, 784), np.float32), jax.ShapeDtypeStruct((512,), np.int32)
    plain, results = planned(fnn.grad(net, LOSS), net, data)
    assert planned(per_example.clipped_gradient(net, LOSS, 1.0), net, data)[0] <= 1.1 * plain
    assert sum(planned(per_example.norms(net, LOSS), net, data)) <= 0.6 * (plain + results)


@pytest.mark.parametrize("n", [16, 64])
def test_norms_of_sequences_take_at_most_twice_a_plain_gradients_temporary_memory(n, needs_jax):
    """Examples of 256 positions through 512 × 512 weights: made, each gradient takes 1 MiB."""
    net = fnn.Serial((fnn.Dense(512), fnn.Tanh(), Mean(), fnn.Dense(10)))
    data = jax.ShapeDtypeStruct((n, 256, 512), np.float32), jax.ShapeDtypeStruct((n,), np.int32)
    plain, _ = planned(fnn.grad(net, LOSS), net, data)
    assert planned(per_example.norms(net, LOSS), net, data)[0] <= 2 * plain


def test_the_norm_of_factors_with_positions_takes_less_temporary_memory_than_the_factors(needs_jax):
    """64 examples of 256 positions through 512 × 512 weights: in two blocks, each scaled on its own."""
    factor = fnn.factors.Outer(*2 * [jax.ShapeDtypeStruct((64, 256, 512), np.float32)])
    with jax.default_device(jax.devices("cpu")[0]):
        plan = jax.jit(fnn.factors.norm).lower(factor).compile().memory_analysis()
    assert plan.temp_size_in_bytes <= plan.argument_size_in_bytes


def test_the_noise_scale_of_weighted_examples_is_unbiased():
    """Example n counts wₙ: tr Σ is estimated by (Σ s ‖g‖² − ‖ḡ‖²) / (1 − Σ s²), with s = w / Σ w."""
    net, params, (x, y, _), _ = problem("linear")
    weights = np.array([1.0, 2, 0, 3, 1, 0.5, 4])
    flat, s = rows(one_by_one(net, params, x, y)), weights / weights.sum()
    mean = s @ flat
    trace = ((s @ (flat**2).sum(axis=1)) - mean @ mean) / (1 - s @ s)
    found = per_example.noise_scale(net, LOSS)(params, x, y, weights)
    np.testing.assert_allclose(found.trace, trace, rtol=1e-12)
    np.testing.assert_allclose(found.norm2, mean @ mean - trace * (s @ s), rtol=1e-10)

"""Products are those of the dense matrices, for every kind of network and cost, with weights and both scales."""

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, Gain, compiled, key, moved, on, wide
from helpers_curvature import CASES, NO_TANGENT, dense_of, direction, empirical, flat, ggn, on_jax, problem, shares

import fnn
from fnn import curvature, errors, trees
from fnn.backend import jax


def products(p, v):
    """Each of the module, exact ones."""
    of = p.params, p.x, p.y, v
    net, loss, w = p.net, p.loss, p.weights
    found = {
        "ggn": curvature.ggn_product(net, loss)(*of, w),
        "ggn, summed": curvature.ggn_product(net, loss, denominator=1)(*of, w),
        "ggn without weights": curvature.ggn_product(net, loss)(*of),
        "empirical": curvature.fisher_product(net, loss, empirical=True)(*of, w),
    }
    if isinstance(loss, fnn.SoftmaxCrossEntropy) and not loss.label_smoothing:
        found["fisher"] = curvature.fisher_product(net, loss)(*of, w)
    return found


def wanted(name, v):
    p, d, v = problem(name), dense_of(name), flat(v)
    n = len(p.x)
    found = {
        "ggn": ggn(d, shares(p.weights)) @ v,
        "ggn, summed": ggn(d, p.weights) @ v,
        "ggn without weights": ggn(d, np.full(n, 1 / n)) @ v,
        "empirical": empirical(d, shares(p.weights)) @ v,
    }
    return found | {"fisher": found["ggn"]}


@pytest.mark.parametrize("name", [name for name in CASES if name not in NO_TANGENT])
def test_products_on_numpy_are_those_of_dense_matrices(name):
    p = problem(name)
    v = direction(p.params)
    right = wanted(name, v)
    for what, found in products(p, v).items():
        trees.same_structure(what, found, p.params)
        oracle.assert_close({name: {what: flat(found)}}, {name: {what: right[what]}}, 1e-12)


ON_JAX = tuple(CASES) if THOROUGH else ("own twice", "many positions", "ignored tags")


def test_products_on_jax_are_those_of_dense_matrices(needs_jax):
    for name, of_net in on_jax(ON_JAX, products).items():
        p = problem(name)
        right = wanted(name, direction(p.params))
        for what, product in of_net.items():
            oracle.assert_close({name: {what: flat(product)}}, {name: {what: right[what]}}, 1e-12)


# ---- the Hessian -----------------------------------------------------------------------------------------------------


def hessian_products(p, v):
    run = lambda *weights, **options: curvature.hessian_product(p.net, p.loss, **options)(
        p.params, p.x, p.y, v, *weights
    )
    return run(p.weights), run(denominator=2)


def by_jax(p, v):
    """The derivative of JAX's gradient of the cost; what is frozen stands still."""

    def cost(params, s):
        losses = p.loss.value(p.net.forward(params, p.x)[0], p.y)
        return (losses * s).sum()

    free = lambda tree: trees.map_learnt(lambda d: d, tree, fixed=lambda d: 0 * d)
    of = lambda s: free(jax.jvp(jax.grad(lambda q: cost(q, s)), (p.params,), (free(v),))[1])
    return of(p.weights / p.weights.sum()), of(0.5)


ONES = tuple(CASES) if THOROUGH else ("images",)


def test_hessian_products_are_those_of_jax_on_both_backends(needs_jax):
    for name, (right, ours) in on_jax(ONES, lambda p, v: (by_jax(p, v), hessian_products(p, v))).items():
        p = problem(name)
        on_numpy = hessian_products(p, direction(p.params))
        tolerance = 1e-11 if name == "many positions" else 1e-12  # which nearly cancel
        oracle.assert_close({name: (ours, on_numpy)}, {name: (right, right)}, tolerance)


@pytest.mark.parametrize("name", CASES)
def test_hessian_products_on_numpy_are_symmetric_and_those_of_differences(name):
    p = problem(name)
    free = lambda tree: trees.map_learnt(lambda d: d, tree, fixed=lambda d: 0 * d)
    u, v = (free(direction(p.params, seed)) for seed in (1, 2))
    of_u, of_v = (flat(hessian_products(p, d)[0]) for d in (u, v))
    assert abs(flat(v) @ of_u - flat(u) @ of_v) <= 1e-12 * (abs(flat(v) * of_u).sum() + abs(flat(u) * of_v).sum())
    run = fnn.grad(p.net, p.loss)
    at = lambda t: flat(run(trees.map(lambda q, d: q + t * d, p.params, v), p.x, p.y, p.weights))
    slope = lambda h: (at(h) - at(-h)) / (2 * h)
    oracle.assert_close({name: of_v}, {name: (4 * slope(5e-5) - slope(1e-4)) / 3}, 1e-6)


def test_the_hessian_of_the_root_of_a_mean_is_that_of_the_root():
    net, rng = fnn.mlp((3, 1), fnn.Tanh()), np.random.default_rng(0)
    params, x, y = moved(net, (2,)), rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
    v, loss, h = direction(params), fnn.RootMeanSquaredError(), 1e-5
    at = lambda t: flat(fnn.grad(net, loss)(trees.map(lambda p, d: p + t * d, params, v), x, y))
    found = curvature.hessian_product(net, loss)(params, x, y, v)
    np.testing.assert_allclose(flat(found), (at(h) - at(-h)) / (2 * h), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("seed", [0, 1])
def test_at_a_kink_both_backends_take_the_documented_derivative(seed, needs_jax):
    """Biases of 0 and an example of zeros: every ReLU of it stands exactly at its kink, whatever the direction."""
    net, loss = (
        fnn.Serial((fnn.Dense(4), fnn.Relu(), fnn.Dense(4), fnn.HardTanh(), fnn.PRelu(), fnn.Dense(2))),
        fnn.Huber(),
    )
    params = net.init(key(), (3,), np.float64)
    x, y = np.array([[0.0, 0, 0], [1, -2, 0.5]]), np.array([[1.0, 0], [0, 3]])
    v = direction(params, seed)
    run = lambda params, v: curvature.hessian_product(net, loss)(params, x, y, v)
    with wide():
        on_jax = oracle.quick_jit(run)(*on("jax", (params, v)))
    oracle.assert_close(run(params, v), on_jax, 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.thorough(backend="jax")
def test_products_have_the_dtype_of_the_parameters(dtype, backend):
    net, loss = fnn.mlp((3, 2), fnn.Tanh()), fnn.SoftmaxCrossEntropy()
    params = moved(net, (4,))
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 2
    v = direction(params)
    makers = curvature.ggn_product, curvature.hessian_product, curvature.fisher_product
    run = lambda params, v: [make(net, loss)(params, x, y, v) for make in makers]
    narrow = on(backend, trees.map(lambda a: a.astype(dtype), (params, v)))
    found = compiled(backend, run)(*narrow)
    assert {leaf.dtype for leaf in trees.leaves(found)} == {np.dtype(dtype)}
    oracle.assert_close(found, run(params, v), 1e-5 if dtype == np.float32 else 1e-2)


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_sampled_fisher_product_approaches_the_exact_one_within_its_standard_error():
    p = problem("mlp")
    v = direction(p.params)
    exact = flat(curvature.fisher_product(p.net, p.loss)(p.params, p.x, p.y, v, p.weights))
    run = curvature.fisher_product(p.net, p.loss, samples=30)
    drawn = np.array(
        [flat(run(p.params, p.x, p.y, v, p.weights, sample_key=fnn.random.fold_in(key(), i))) for i in range(100)]
    )
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert (abs(drawn.mean(axis=0) - exact) <= 4.5 * error).all()
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(exact)


def test_the_exact_fisher_of_probabilities_is_that_of_their_likelihood():
    """Of the cross-entropy of a softmax as of the two in one; the Gauss-Newton matrices differ."""
    inner, rng = fnn.mlp((4, 3), fnn.Tanh()), np.random.default_rng(0)
    params, x, y = moved(inner, (3,)), rng.normal(size=(5, 3)), np.arange(5) % 3
    v = direction(params)
    fused = curvature.fisher_product(inner, fnn.SoftmaxCrossEntropy())(params, x, y, v)
    outer = fnn.Serial((inner, fnn.Softmax()))
    apart = curvature.fisher_product(outer, fnn.CrossEntropy())((params, ()), x, y, (v, ()))
    oracle.assert_close(apart[0], fused, 1e-12)


# ---- what is refused -------------------------------------------------------------------------------------------------

P = problem("mlp")


@dataclass(frozen=True)
class Rounded(fnn.Layer):
    """y = x, rounded in the forward pass: no analytic function."""

    def forward(self, params, x, key=None):
        return np.rint(x), ()

    def backward(self, params, residuals, dy):
        return dy


def behind_dense(make, layer):
    """A product of a network that ends in this layer."""
    net, x = fnn.Serial((fnn.Dense(2), layer)), np.ones((3, 4))
    params = moved(net, (4,))
    return make(net, fnn.Quadratic())(params, x, np.zeros((3, 2)), params)


def of_a_hinge():
    params = moved(fnn.Dense(1), (2,))
    run = curvature.fisher_product(fnn.Dense(1), fnn.Hinge(), samples=1)
    return run(params, np.ones((1, 2)), np.ones((1, 1)), params, sample_key=key())


REFUSED = {
    "a direction of another shape": (
        lambda: curvature.ggn_product(P.net, P.loss)(P.params, P.x, P.y, P.params[:2]),
        errors.ShapeError,
        "v: expected the structure",
    ),
    "a function of the mean": (
        lambda: curvature.ggn_product(P.net, fnn.RootMeanSquaredError()),
        errors.KindError,
        "a mean over the examples",
    ),
    "samples of no likelihood": (of_a_hinge, errors.KindError, "minus a log-likelihood"),
    "samples without a key": (
        lambda: curvature.fisher_product(P.net, P.loss, samples=1)(P.params, P.x, P.y, P.params),
        errors.KindError,
        "sample_key: expected a key",
    ),
    "samples of the data": (
        lambda: curvature.fisher_product(P.net, P.loss, samples=1, empirical=True),
        errors.ArgumentError,
        "samples: expected None with empirical=True",
    ),
    "no samples": (
        lambda: curvature.fisher_product(P.net, P.loss, samples=0),
        errors.ArgumentError,
        "samples: expected an integer of at least 1",
    ),
    "a denominator of 0": (
        lambda: curvature.hessian_product(P.net, P.loss, denominator=0),
        errors.ArgumentError,
        "denominator",
    ),
    "arguments in another order": (
        lambda: curvature.ggn_product(P.net, P.loss)(P.params, P.x),
        errors.KindError,
        r"write fnn\.curvature\.ggn_product\(net, loss\)\(params, x, y, v\)",
    ),
    "a layer without a tangent": (
        lambda: behind_dense(curvature.ggn_product, Gain()),
        errors.KindError,
        "Gain.tangent",
    ),
    "a layer that is not analytic": (
        lambda: behind_dense(curvature.hessian_product, Rounded()),
        errors.KindError,
        "np.rint: expected an analytic function",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()

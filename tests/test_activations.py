"""Each activation has the value and the derivative of JAX's own, at kinks and far out too, and the same on NumPy."""

import functools
import math

import numpy as np
import oracle
import pytest

import fnn
from fnn import errors
from fnn.backend import jax
from fnn.numerics import erfc
from fnn.testing import check_layer

NAMES = [name for name in oracle.ACTIVATIONS if name != "function"]
LAYERS = {name: oracle.ACTIVATIONS[name][0] for name in NAMES} | {n: layer for n, (layer, _) in oracle.LEARNT.items()}
EDGES = np.array([[-1e4, -100, -6, -3, -1, -1e-3, -0.0, 0.0, 1e-3, 1, 3, 6, 100, 1e4]])


def ours(layer, params, z, da):
    """Value, dz, and the gradient of each example."""
    a, residuals = layer.forward(params, z)
    return a, layer.backward(params, residuals, da), layer.per_example_gradient(params, residuals, da)


@functools.cache
def results(dtype):
    """Of every activation and sample of z: what JAX finds of its own function, and of ours, and ours on NumPy."""
    rng, samples = np.random.default_rng(0), {}
    for name, layer in LAYERS.items():
        for sample, z in enumerate((rng.normal(size=(100, 6)), 10 * rng.normal(size=(100, 2)), EDGES)):
            if name not in oracle.LEARNT or sample == 0:  # their exponentials overflow far out
                size = z.shape[1] // 2 if name == "glu" else z.shape[1]
                params = layer.init(fnn.random.key(0, backend="numpy"), z.shape[1:], np.float64)
                params = fnn.trees.map(lambda p: p * (1 + 0.1 * rng.normal(size=p.shape)), params)
                case = params, z, rng.normal(size=(len(z), size))
                samples[name, sample] = fnn.trees.map(lambda a: a.astype(dtype), case)

    def all_of_jax(samples):
        found = {}
        for (name, sample), (params, z, da) in samples.items():
            layer = LAYERS[name]
            f = oracle.LEARNT[name][1] if name in oracle.LEARNT else lambda p, z, f=oracle.ACTIVATIONS[name][1]: f(z)
            a = f(params, z)

            def of_one(z, da, f=f, params=params):  # of an example by itself, for the gradient of each
                return jax.vjp(lambda p: f(p, z[None])[0], params)[1](da)[0]

            dz = jax.vjp(lambda z, f=f, params=params: f(params, z), z)[1](da)[0]
            found[name, sample] = (a, dz, jax.vmap(of_one)(z, da)), ours(layer, params, z, da)
        return found

    with jax.enable_x64(True):
        on_jax = oracle.quick_jit(all_of_jax)(samples)
    return {key: (*on_jax[key], ours(LAYERS[key[0]], *case)) for key, case in samples.items()}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_value_and_derivatives_are_jaxs(name, dtype, tolerance, needs_jax):
    for key, (wanted, on_jax, on_numpy) in results(dtype).items():
        if key[0] == name:
            for found in (on_jax, on_numpy):
                assert all(leaf.dtype == dtype for leaf in fnn.trees.leaves(found))
                oracle.assert_close(found, wanted, tolerance)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_are_those_of_the_complex_step(name, dtype):
    z = np.random.default_rng(1).normal(size=(25, 4)) * [1, 1, 3, 3]
    check_layer(LAYERS[name], z, method="complex", on="numpy", dtype=dtype)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "swish", "mish"])
def test_jax_differentiates_the_formula_to_the_documented_derivative_at_zero(name, needs_jax):
    layer, function = oracle.ACTIVATIONS[name]
    z = jax.numpy.zeros((1, 1))
    assert jax.grad(lambda z: layer.apply((), z).sum())(z) == jax.grad(lambda z: function(z).sum())(z)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_overflows_far_out(name, backend):  # but for the exponential that soft_exponential is
    layer = LAYERS[name]
    z = EDGES.astype(np.float32) if "soft_" not in name else np.linspace(-19, 19, 14, dtype=np.float32)[None]
    if backend == "jax":
        z = jax.numpy.asarray(z)
    params = layer.init(fnn.random.key(0, backend=backend), z.shape[1:])
    a, residuals = layer.forward(params, z)
    assert a.shape[1:] == layer.output_shape(z.shape[1:])
    dz, grads = layer.backward(params, residuals, a), layer.gradient(params, residuals, a)
    for leaf in fnn.trees.leaves((a, dz, grads)):
        assert np.isfinite(np.asarray(leaf)).all()
        assert leaf.dtype == np.float32


@pytest.mark.parametrize("name", LAYERS)
def test_nan_is_passed_on_and_not_hidden(name):
    layer = LAYERS[name]
    params = layer.init(fnn.random.key(0, backend="numpy"), (2,), np.float64)
    assert np.isnan(layer.apply(params, np.full((1, 2), np.nan))).all()


@pytest.mark.parametrize("name", NAMES)
def test_integers_are_taken_as_numbers(name):
    z = np.array([[0, 3, 200, 255]], np.uint8)
    found = LAYERS[name].apply((), z)
    np.testing.assert_allclose(found, LAYERS[name].apply((), z.astype(np.float32)), rtol=1e-6)


KINKS = {  # layer, z, the documented derivative there
    "step": (fnn.BinaryStep(), 0, 0),
    "sign": (fnn.Sign(), 0, 0),
    "relu": (fnn.Relu(), 0, 0),
    "relu of −0": (fnn.Relu(), -0.0, 0),
    "relu6": (fnn.Relu6(), 0, 0),
    "relu6 at 6": (fnn.Relu6(), 6, 0),
    "leaky": (fnn.LeakyRelu(0.3), 0, 1),
    "rrelu": (fnn.RRelu(), 0, 1),
    "hard tanh": (fnn.HardTanh(), 1, 1),
    "hard tanh at −1": (fnn.HardTanh(), -1, 1),
    "hard sigmoid": (fnn.HardSigmoid(), -3, 0),
    "hard sigmoid at 3": (fnn.HardSigmoid(), 3, 0),
    "hard swish": (fnn.HardSwish(), -3, 0),
    "hard swish at 3": (fnn.HardSwish(), 3, 1),
    "elu": (fnn.Elu(0.5), 0, 0.5),
    "celu": (fnn.Celu(0.5), 0, 1),
    "selu": (fnn.Selu(), 0, fnn.Selu.scale * fnn.Selu.alpha),
    "prelu": (fnn.PRelu(), 0, 1),
    "softsign": (fnn.Softsign(), 0, 1),
}


@pytest.mark.parametrize("name", KINKS)
def test_derivatives_at_a_kink_are_the_documented_ones(name):
    layer, z, wanted = KINKS[name]
    one = np.ones((1, 1))
    params = layer.init(fnn.random.key(0, backend="numpy"), (1,), np.float64)
    _, residuals = layer.forward(params, z * one)
    np.testing.assert_allclose(layer.backward(params, residuals, one), wanted)


def test_steps_are_what_they_are_at_their_threshold():
    z = np.array([[-1.0, -0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(fnn.BinaryStep().apply((), z), [[0, 0, 0, 1]])
    np.testing.assert_array_equal(fnn.BinaryStep(-0.5).apply((), z), [[0, 1, 1, 1]])
    np.testing.assert_array_equal(fnn.Sign().apply((), z), [[-1, 1, 1, 1]])


@pytest.mark.parametrize("layer", [fnn.BinaryStep(straight_through=True), fnn.Sign(straight_through=True)])
def test_straight_through_passes_the_error_as_it_is(layer):
    da = np.array([[1.0, -2.0]])
    np.testing.assert_array_equal(layer.backward((), layer.forward((), da)[1], da), da)


def test_rrelu_draws_its_slopes_in_training_and_takes_their_mean_in_inference(backend):
    layer, key = fnn.RRelu(0.2, 0.4), fnn.random.key(1, backend=backend)
    x = -np.ones((100, 100), np.float32)
    drawn = -np.asarray(layer.apply((), x, key))
    assert drawn.min() >= np.float32(0.2)
    assert drawn.max() < 0.4
    assert abs(drawn.mean() - 0.3) < 0.003
    np.testing.assert_allclose(layer.apply((), x), -0.3, rtol=1e-6)
    check_layer(layer, (4,), key=fnn.random.key(2, backend="numpy"), method="complex")


def test_soft_exponential_is_a_line_at_zero_and_its_learnt_derivative_has_no_jump_there():
    layer, z = fnn.SoftExponential(), np.array([[-3.0, 0.5, 2.0]])
    found = []
    for alpha in (-1e-9, 0.0, 1e-9):
        params = layer.init(fnn.random.key(0, backend="numpy"), (3,), np.float64)._replace(alpha=np.array([alpha]))
        a, dz, grads = ours(layer, params, z, np.ones_like(z))
        np.testing.assert_allclose(a, z, atol=1e-7)
        np.testing.assert_allclose(dz, 1, atol=1e-7)
        found.append(grads.alpha)
    np.testing.assert_allclose(found, np.full((3, 1, 1), (z**2 / 2 + 1).sum()), rtol=1e-7)
    params = layer.init(fnn.random.key(0, backend="numpy"), (3,))
    check_layer(layer, z, params, method="complex" if jax is None else "jax")  # the formula has that derivative too
    check_layer(layer, z, params, method="difference", tolerance=1e-4)


@pytest.mark.parametrize("alpha", [-1e-2, -1e-5, -1e-9, 1e-9, 1e-5, 1e-2])
def test_soft_exponential_keeps_its_digits_as_alpha_goes_to_zero(alpha):
    z, k = np.array([[-0.2, 0.3, 1.0, 2.5]]), np.arange(2, 20)[:, None]
    params = fnn.activations.SoftExponentialParams(np.full(4, alpha))
    _, _, grads = ours(fnn.SoftExponential(per_unit=True), params, z, np.ones_like(z))
    factorial = np.array([[math.factorial(n)] for n in range(2, 20)])
    if alpha > 0:  # of the power series Σ αᵏ⁻¹ zᵏ / k! + α
        wanted = ((k - 1) * alpha ** (k - 2.0) * z**k / factorial).sum(axis=0) + 1
    else:  # of Σ αᵏ⁻¹ wᵏ / k with w = z + α
        w = z + alpha
        wanted = ((k - 1) * alpha ** (k - 2.0) * w**k / k + alpha ** (k - 1.0) * w ** (k - 1)).sum(axis=0) + 1
    np.testing.assert_allclose(grads.alpha[0], wanted, rtol=1e-14)


def test_learnt_activations_learn_one_number_or_one_for_each_unit(backend):
    key = fnn.random.key(0, backend=backend)
    for name, (layer, _) in oracle.LEARNT.items():
        for leaf in fnn.trees.leaves(layer.init(key, (5,))):
            assert leaf.shape == ((5,) if layer.per_unit else (1,)), name
        for leaf in fnn.trees.leaves(layer.init(key, (2, 3))):
            assert leaf.shape == ((6,) if layer.per_unit else (1,)), "flat: what has two axes is a weight to L2"
    assert fnn.Swish().init(key, (5,)) == ()
    assert float(fnn.PRelu(0.1).init(key, (5,)).slope[0]) == np.float32(0.1)


def test_units_of_pictures_learn_too():
    for layer, _ in oracle.LEARNT.values():
        check_layer(layer, np.random.default_rng(0).normal(size=(4, 2, 3)), method="complex")


def test_an_empty_batch_has_the_gradient_zero():
    for layer, _ in oracle.LEARNT.values():
        params, z = layer.init(fnn.random.key(0, backend="numpy"), (3,)), np.zeros((0, 3))
        grads = layer.gradient(params, layer.forward(params, z)[1], z)
        oracle.assert_close(grads, fnn.trees.map(np.zeros_like, params), 0)


def test_learnt_parameters_that_do_not_fit_are_refused():
    key = fnn.random.key(0, backend="numpy")
    of_three = fnn.PRelu(per_unit=True).init(key, (3,))
    with pytest.raises(errors.ShapeError, match=r"PReluParams\.slope.*\(2, 1\): expected shape \(1,\), got \(3,\)"):
        fnn.PRelu(per_unit=True).apply(of_three, np.ones((2, 1)))
    with pytest.raises(errors.ShapeError, match=r"expected PReluParams, got \(\)"):
        fnn.PRelu().apply((), np.ones((2, 1)))


def test_erfc_has_the_digits_of_the_c_library():
    x = np.concatenate([np.linspace(-6, 6, 20001), np.linspace(6, 26, 5001)])
    wanted = np.array([math.erfc(value) for value in x])
    error = np.abs(erfc(x) - wanted) / wanted
    assert error.max() <= 1e-15, "relative, in the tail too"
    far = erfc(np.array([-np.inf, -1e30, 1e30, np.inf], np.float32))
    np.testing.assert_array_equal(far, np.array([2, 2, 0, 0], np.float32))


def test_tails_keep_their_relative_accuracy():
    z = np.array([[-80.0]], np.float32)
    np.testing.assert_allclose(fnn.Sigmoid().apply((), z), np.exp(-80.0), rtol=1e-6)
    np.testing.assert_allclose(fnn.Softplus().apply((), z), np.exp(-80.0), rtol=1e-6)
    np.testing.assert_allclose(fnn.Squareplus().apply((), 100 * z), 1 / 8000, rtol=1e-6)
    np.testing.assert_allclose(fnn.Gelu().apply((), np.array([[-10.0]])), -10 * math.erfc(10 / 2**0.5) / 2, rtol=1e-13)


BAD = {
    "a threshold that is no number": (lambda: fnn.BinaryStep("0"), errors.KindError, "threshold"),
    "a negative alpha": (lambda: fnn.Elu(-1.0), errors.ArgumentError, "alpha >= 0"),
    "an alpha of 0": (lambda: fnn.Celu(0.0), errors.ArgumentError, "alpha > 0"),
    "a temperature of 0": (lambda: fnn.Softmax(0.0), errors.ArgumentError, "temperature > 0"),
    "a bend of 0": (lambda: fnn.Squareplus(0.0), errors.ArgumentError, "b > 0"),
    "an empty range of slopes": (lambda: fnn.RRelu(0.5, 0.1), errors.ArgumentError, "at least lower = 0.5, got 0.1"),
    "an odd axis to halve": (lambda: fnn.Glu().output_shape((5,)), errors.ShapeError, r"halved, got shape \(5,\)"),
    "units that learn nothing": (lambda: fnn.Swish(per_unit=True), errors.ArgumentError, "learnt=True"),
    "rows that would be the batch": (lambda: fnn.Softmax().apply((), [1.0, 2.0]), errors.ShapeError, r"\(N, ..., K\)"),
    "rows that would be the batch, of logs": (
        lambda: fnn.LogSoftmax().apply((), [1.0, 2.0]),
        errors.ShapeError,
        r"\(N, ..., K\), got \(2,\)",
    ),
    "no axis to halve": (lambda: fnn.Glu().output_shape(()), errors.ShapeError, "halved"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_activation_that_makes_no_sense_is_refused(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("glu", "log_softmax", "scale")])
def test_an_activation_levels_off_at_its_limits_and_nowhere_else(name):
    """A unit far below and far above the other: f(∓∞) is the limit where that is finite, and far away where not."""
    layer = LAYERS[name]
    params = layer.init(fnn.random.key(0, backend="numpy"), (2,), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        ends = layer.apply(params, np.array([[-1e12, 0.0], [1e12, 0.0]]))[:, 0]
    for end, limit in zip(ends, layer.limits(params), strict=True):
        limit = float(np.asarray(limit).ravel()[0])
        if math.isfinite(limit):
            assert abs(end - limit) < 1e-9
        else:
            assert abs(end) > 100 or not math.isfinite(end)

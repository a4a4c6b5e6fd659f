"""Each activation has the value and the derivatives of JAX's own, at kinks and far out too, and the same on NumPy."""

import functools
import inspect
import math
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import compiled, on, wide

import fnn
from fnn import errors
from fnn.backend import jax
from fnn.layers.activations import Activation, Elementwise, SoftExponentialParams
from fnn.numerics import either, erfc, hypotenuse
from fnn.static import registered
from fnn.testing import check_layer

NAMES = [name for name in oracle.ACTIVATIONS if name != "function"]
LAYERS = {name: oracle.ACTIVATIONS[name][0] for name in NAMES} | {n: layer for n, (layer, _) in oracle.LEARNT.items()}
KINDS = [cls for name, cls in registered(Activation).items() if name.startswith("fnn.") and not cls.__subclasses__()]
EACH = {
    repr(layer): layer for layer in [cls() for cls in KINDS] + list(LAYERS.values()) if isinstance(layer, Activation)
}
EDGES = np.array([[-1e4, -100, -6, -3, -1, -1e-3, -0.0, 0.0, 1e-3, 1, 3, 6, 100, 1e4]])


def ours(layer, params, z, da):
    """Value, dz, and the gradient of each example."""
    a, residuals = layer.forward(params, z)
    return a, layer.backward(params, residuals, da), fnn.factors.made(params, layer.factors(params, residuals, da))


SAMPLES = [slice(0, 100), slice(100, 200), slice(200, 203)]  # of the rows of z: near 0, ten times as far, and EDGES


@functools.cache
def results():
    """Of every activation: what JAX finds of its own function in float64, and by dtype ours on JAX and on NumPy."""
    rng, samples = np.random.default_rng(0), {}
    for name, layer in LAYERS.items():
        z = np.concatenate([rng.normal(size=(100, 6)), 10 * rng.normal(size=(100, 6)), np.resize(EDGES, (3, 6))])
        z = z[SAMPLES[0]] if name in oracle.LEARNT else z  # their exponentials overflow far out
        params = layer.init(fnn.random.key(0, backend="numpy"), (6,), np.float64)
        params = fnn.trees.map(lambda p: p * (1 + 0.1 * rng.normal(size=p.shape)), params)
        case = params, z, rng.normal(size=(len(z), 3 if name == "glu" else 6))
        samples[name] = fnn.trees.map(np.float32, case)  # which float64 holds exactly
    by_dtype = {dtype: fnn.trees.map(lambda a, dtype=dtype: a.astype(dtype), samples) for dtype in ("f4", "f8")}

    def theirs(samples):
        found = {}
        for name, (params, z, da) in samples.items():
            f = oracle.LEARNT[name][1] if name in oracle.LEARNT else lambda p, z, f=oracle.ACTIVATIONS[name][1]: f(z)

            def of_one(z, da, f=f, params=params):  # of an example by itself, for the gradient of each
                return jax.vjp(lambda p: f(p, z[None])[0], params)[1](da)[0]

            a, back = jax.vjp(lambda z, f=f, params=params: f(params, z), z)
            found[name] = a, back(da)[0], jax.vmap(of_one)(z, da)
        return found

    all_ours = lambda by_dtype: {
        dtype: {name: ours(LAYERS[name], *case) for name, case in samples.items()}
        for dtype, samples in by_dtype.items()
    }
    with jax.enable_x64(True):
        wanted, on_jax = oracle.quick_jit(lambda by_dtype: (theirs(by_dtype["f8"]), all_ours(by_dtype)))(by_dtype)
    return wanted, on_jax, all_ours(by_dtype)


def test_value_and_derivatives_are_jaxs(needs_jax):
    wanted, *of_ours = results()
    for dtype, tolerance in (("f8", 1e-12), ("f4", 1e-5)):
        for found in of_ours:
            assert all(leaf.dtype == dtype for leaf in fnn.trees.leaves(found[dtype]))
            for rows in SAMPLES:
                part = lambda tree: fnn.trees.map(lambda a: a[rows], tree)  # noqa: B023 - called at once
                oracle.assert_close(part(found[dtype]), part(wanted), tolerance)


# ---- forward mode and factors ----------------------------------------------------------------------------------------


def directions(layers, input_shape, seed=0):
    """By name of each layer: parameters, x, a direction of both, and an error δ; float64, 5 examples."""
    drawn = {}
    for name, layer in layers.items():
        rng = np.random.default_rng(seed)
        normal = lambda shape, rng=rng: rng.normal(size=shape)
        params = layer.init(fnn.random.key(0, backend="numpy"), input_shape, np.float64)
        params = fnn.trees.map(lambda p: p + 0.1 + 0.05 * rng.random(p.shape), params)  # noqa: B023 - called at once
        dparams = fnn.trees.map(lambda p: normal(p.shape), params)  # noqa: B023 - called at once
        x, dx = normal((2, 5, *input_shape))
        drawn[name] = params, x, dparams, dx, normal((5, *layer.output_shape(input_shape)))
    return drawn


def both_modes(layer, params, x, dparams, dx, dy):
    """The tangent along all, along x and along the parameters; dx, the gradient, and the total of its factors."""
    _, residuals = layer.forward(params, x)
    along = [layer.tangent(params, residuals, *pair) for pair in ((dparams, dx), (None, dx), (dparams, None))]
    below, delta = layer.propagate(params, residuals, dy)
    factors = layer.factors(params, residuals, delta)
    return *along, below, layer.gradient(params, residuals, delta), fnn.factors.total(params, factors)


def jvp(layer, params, x, dparams, dx, dy):
    return jax.jvp(lambda p, x: layer.forward(p, x)[0], (params, x), (dparams, dx))[1]


def check_both_modes(layers, input_shape, backend):
    """Raise unless ⟨tangent(u), v⟩ = ⟨u, propagate and gradient(v)⟩, the tangent is that of `jax.jvp`, and the gradient
    is the total of the factors, each to 10⁻¹² in float64."""
    drawn, by_jax = directions(layers, input_shape), {}
    of_each = lambda f, drawn: {name: f(layers[name], *case) for name, case in drawn.items()}
    if backend == "jax":
        with jax.enable_x64(True):
            results, by_jax = oracle.quick_jit(lambda drawn: (of_each(both_modes, drawn), of_each(jvp, drawn)))(drawn)
    else:
        results = of_each(both_modes, drawn)
    for name, (params, _, dparams, dx, dy) in drawn.items():
        tangent, by_x, by_params, below, gradient, total = results[name]
        flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in fnn.trees.leaves(tree)])
        ours, theirs = flat(tangent) * flat(dy), flat((dx, dparams)) * flat((below, gradient))
        assert abs(ours.sum() - theirs.sum()) <= 1e-12 * abs(theirs).sum(), name
        assert fnn.trees.outline(gradient) == fnn.trees.outline(params), name
        oracle.assert_close(total, gradient, 1e-12)
        if fnn.trees.leaves(params):
            oracle.assert_close(by_x + by_params, tangent, 1e-12)
        else:
            assert by_params is None, f"{name}: nothing moves"
            oracle.assert_close(by_x, tangent, 0)
        if by_jax:
            oracle.assert_close(tangent, by_jax[name], 1e-12)


@pytest.mark.thorough(backend="jax")
def test_the_tangent_is_the_transpose_of_the_backward_pass_and_that_of_jax(backend):
    check_both_modes(EACH, (3, 2), backend)


def test_none_in_a_direction_means_zero():
    layer, rng = fnn.PElu(), np.random.default_rng(0)
    params = layer.init(fnn.random.key(0, backend="numpy"), (3,), np.float64)
    (z, dz), (alpha, beta) = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 1))
    _, residuals = layer.forward(params, z)
    tangent = lambda *direction: layer.tangent(params, residuals, *direction)
    assert tangent(None, None) is None
    assert tangent((None, None), None) is None
    zero = np.zeros(1)
    np.testing.assert_array_equal(tangent((alpha, None), None), tangent((alpha, zero), None))
    np.testing.assert_array_equal(tangent((None, beta), dz), tangent((zero, beta), dz))


def test_every_activation_is_compared_with_jax():
    assert {type(layer) for layer in LAYERS.values()} >= set(KINDS), "add the new one to oracle.py"


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.numpy_alone
def test_derivatives_are_those_of_the_complex_step(name, dtype):
    z = np.random.default_rng(1).normal(size=(25, 4)) * [1, 1, 3, 3]
    check_layer(LAYERS[name], z, method="complex", on="numpy", dtype=dtype)


def test_jax_differentiates_the_formula_to_the_documented_derivative_at_zero(needs_jax):
    names = ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "swish", "mish"]
    table = {name: oracle.ACTIVATIONS[name] for name in names}
    at = lambda f, z: jax.grad(lambda z: f(z).sum())(z)
    both = lambda z: {name: (at(lambda z: layer.apply((), z), z), at(f, z)) for name, (layer, f) in table.items()}  # noqa: B023 - called at once
    for name, (found, wanted) in oracle.quick_jit(both)(np.zeros((1, 1), np.float32)).items():
        assert found == wanted, name


@pytest.mark.thorough(backend="jax")
def test_nothing_overflows_far_out(backend):  # but for the exponential that soft_exponential is
    near = np.linspace(-19, 19, 14, dtype=np.float32)[None]
    z = {name: near if "soft_" in name else EDGES.astype(np.float32) for name in LAYERS}
    key = fnn.random.key(0, backend=backend)
    params = {name: layer.init(key, (14,)) for name, layer in LAYERS.items()}

    def of_each(params, z):
        found = {}
        for name, layer in LAYERS.items():
            a, residuals = layer.forward(params[name], z[name])
            found[name] = (
                a,
                layer.backward(params[name], residuals, a),
                layer.gradient(params[name], residuals, a),
            )
        return found

    for name, found in compiled(backend, of_each)(params, on(backend, z)).items():
        assert found[0].shape[1:] == LAYERS[name].output_shape((14,)), name
        for leaf in fnn.trees.leaves(found):
            assert np.isfinite(np.asarray(leaf)).all(), name
            assert leaf.dtype == np.float32, name


@functools.cache
def passes(backend):
    """The program of all activations: a and dz for δ = 1."""

    def both(layer, params, z):
        a, residuals = layer.forward(params, z)
        return a, layer.backward(params, residuals, fnn.backend.namespace(a).ones_like(a))

    return compiled(backend, lambda params, z: {name: both(layer, params[name], z) for name, layer in EACH.items()})


@functools.cache
def passed(backend, dtype, rows):
    """Of every activation, a and dz for δ = 1 at five rows of z, in this dtype; on JAX by one program."""
    xp = np if backend == "numpy" else jax.numpy
    key, z = fnn.random.key(0, backend=backend), xp.asarray(rows).astype(dtype)
    params = {name: layer.init(key, z.shape[1:], dtype) for name, layer in EACH.items()}
    with np.errstate(all="ignore"):  # of a soft exponential
        return params, z, passes(backend)(params, z)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.thorough(backend="jax")
def test_nan_gives_nan_forwards_and_backwards_and_nowhere_else(dtype, backend):
    rows = (0.5, 0.25, -0.5, -2.0)
    found = passed(backend, dtype, ((0.5, np.nan, -0.5, np.nan), *[rows] * 4))[2]
    clean = passed(backend, dtype, (rows,) * 5)[2]
    for name, (a, dz) in found.items():
        constant = isinstance(EACH[name], fnn.BinaryStep | fnn.Sign | fnn.Identity)  # dz, which does not depend on z
        assert np.isnan(np.asarray(a)[0, -1]), name
        assert np.isnan(np.asarray(dz)[0, -1]) != constant, name
        assert np.isfinite(np.asarray(a)[1:]).all(), name
        assert np.isfinite(np.asarray(dz)[1:]).all(), name
        if isinstance(EACH[name], Elementwise):
            np.testing.assert_array_equal(np.isnan(a)[0], [False, True, False, True], err_msg=name)
            np.testing.assert_array_equal(np.isnan(dz)[0], [False, True, False, True], err_msg=name)
            without = tuple(np.asarray(array)[1:] for array in clean[name])
            tolerance = 0 if backend == "numpy" else 1e-3 if dtype == "float16" else 1e-6
            oracle.assert_close((np.asarray(a)[1:], np.asarray(dz)[1:]), without, tolerance)


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


@pytest.mark.thorough
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


def test_soft_exponential_is_a_line_up_to_infinity(backend):
    layer, z = fnn.SoftExponential(), np.array([[-math.inf, 2.0, math.inf]])
    params, z = layer.init(fnn.random.key(0, backend=backend), (3,)), on(backend, z)
    a, dz, grads = ours(layer, params, z, on(backend, np.ones((1, 3))))
    np.testing.assert_array_equal(a, z)
    np.testing.assert_array_equal(dz, 1)
    np.testing.assert_array_equal(grads.alpha, math.inf)


@pytest.mark.parametrize("alpha", [-1e-2, -1e-5, -1e-9, 1e-9, 1e-5, 1e-2])
def test_soft_exponential_keeps_its_digits_as_alpha_goes_to_zero(alpha):
    z, k = np.array([[-0.2, 0.3, 1.0, 2.5]]), np.arange(2, 20)[:, None]
    params = SoftExponentialParams(np.full(4, alpha))
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
    with pytest.raises(errors.ShapeError, match=r"slope: expected shape \(1,\), got \(3,\)"):
        fnn.PRelu(per_unit=True).apply(of_three, np.ones((2, 1)))
    with pytest.raises(errors.ShapeError, match=r"PReluParams"):
        fnn.PRelu().apply((), np.ones((2, 1)))


def test_erfc_has_the_digits_of_the_c_library():
    x = np.concatenate([np.linspace(-6, 6, 20001), np.linspace(6, 26, 5001)])
    wanted = np.array([math.erfc(value) for value in x])
    error = np.abs(erfc(x) - wanted) / wanted
    assert error.max() <= 1e-15, "relative, in the tail too"
    far = erfc(np.array([-np.inf, -1e30, 1e30, np.inf], np.float32))
    np.testing.assert_array_equal(far, np.array([2, 2, 0, 0], np.float32))


EXPONENTIALS = fnn.Elu(), fnn.Elu(0.5), fnn.Celu(), fnn.Celu(2.0), fnn.Selu()


def test_derivatives_of_exponentials_keep_their_relative_accuracy_far_below(backend):
    far = {"float64": (-40.0, 1e-14), "float32": (-80.0, 1e-5)}
    zs = {dtype: np.full((1, 1), z, dtype) for dtype, (z, _) in far.items()}
    slope = lambda layer, z: layer.backward((), layer.forward((), z)[1], fnn.backend.namespace(z).ones_like(z))
    with wide():
        of_each = lambda zs: {dtype: [slope(layer, z) for layer in EXPONENTIALS] for dtype, z in zs.items()}
        found = compiled(backend, of_each)(zs)
    for dtype, (z, tolerance) in far.items():
        for layer, dz in zip(EXPONENTIALS, found[dtype], strict=True):
            factor = fnn.Selu.scale * fnn.Selu.alpha if isinstance(layer, fnn.Selu) else layer.alpha
            width = layer.alpha if isinstance(layer, fnn.Celu) else 1.0
            assert dz.dtype == dtype
            np.testing.assert_allclose(dz, factor / width * math.exp(z / width), rtol=tolerance, err_msg=repr(layer))


FAR_OUT = [  # layer, z, a, the derivative
    (fnn.Squareplus(), 1e20, 1e20, 1),
    (fnn.Squareplus(), 3e38, 3e38, 1),
    (fnn.Squareplus(), -1e15, 1e-15, 1e-30),
    (fnn.Squareplus(1e-4), 1e20, 1e20, 1),
    (fnn.Isrlu(), -1e20, -1, 0),
    (fnn.Isrlu(4.0), -3e38, -0.5, 0),
    (fnn.Isrlu(), -3e38, -1, 0),
    (fnn.Swish(2.0), 3e38, 3e38, 1),
    (fnn.Swish(2.0), -3e38, 0, 0),
    (fnn.ArcTan(), 3e38, math.pi / 2, 0),
    (fnn.Gelu(approximate=True), 1e20, 1e20, 1),
    (fnn.HardSwish(), 1e38, 1e38, 1),
    (fnn.HardSwish(), -np.inf, 0, 0),
    (fnn.Relu6(), np.inf, 6, 0),
    (fnn.Relu(), np.inf, np.inf, 1),
    (fnn.HardTanh(), -np.inf, -1, 0),
    (fnn.LeakyRelu(), -np.inf, -np.inf, 0.01),
    (fnn.Elu(), np.inf, np.inf, 1),
]


def test_values_and_derivatives_far_out(backend):
    def both(layer, z):
        value, residuals = layer.forward((), z)
        return value, layer.backward((), residuals, fnn.backend.namespace(z).ones_like(value))

    with np.errstate(over="ignore"):
        of_each = lambda zs: [both(layer, z) for (layer, *_), z in zip(FAR_OUT, zs, strict=True)]
        found = compiled(backend, of_each)([np.full((1, 1), z, np.float32) for _, z, _, _ in FAR_OUT])
    for (layer, z, a, slope), (value, dz) in zip(FAR_OUT, found, strict=True):
        np.testing.assert_allclose(value, np.float32(a), rtol=1e-6, err_msg=f"{layer} at {z}")
        np.testing.assert_allclose(dz, np.float32(slope), rtol=1e-6, err_msg=f"{layer} at {z}")


def test_numbers_are_chosen_exactly_and_roots_do_not_overflow(backend):
    xp = np if backend == "numpy" else jax.numpy
    mask = xp.asarray([True, False])
    for yes, no in ((1, 0.01), (0.1, 0.7), (1 / 6, 0), (-1.0, 1e30)):
        chosen = either(mask, yes, no, np.dtype(np.float32))
        assert chosen.dtype == np.float32
        np.testing.assert_array_equal(chosen, np.array([yes, no], np.float32))
    z = np.array([0, 3, -4, 1e30, -3e38, 1e-30, np.inf, np.nan], np.float32)
    wanted = np.hypot(z.astype(np.float64), 4.0)
    np.testing.assert_allclose(hypotenuse(xp.asarray(z), 4.0), wanted, rtol=1e-6)


# ---- an activation of one's own --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cube(Elementwise):
    def function(self, z):
        return z**3

    def derivative(self, z):
        return 3 * z**2


@dataclass(frozen=True)
class Exponential(Elementwise):
    def function(self, z):
        return fnn.backend.namespace(z).exp(z)

    def derivative(self, a):
        return a


@dataclass(frozen=True)
class Half(Elementwise):
    """z where it is greater than −1, with a mask as its derivative."""

    def function(self, z):
        return fnn.backend.namespace(z).where(z > -1, z, -1)

    def derivative(self, z):
        return z > -1


@pytest.mark.thorough(backend="jax")
def test_an_activation_is_a_function_and_its_derivative(backend):
    own = {"cube": Cube(), "exponential": Exponential(), "half": Half()}
    for layer in own.values():
        check_layer(layer, (4,), on=backend, method="complex" if backend == "numpy" else "jax")
    check_both_modes(own, (3,), backend)


def test_the_name_of_the_argument_says_what_is_kept():
    z = np.array([[1.0, 2.0]])
    assert Cube().forward((), z)[1] is z
    a, residual = Exponential().forward((), z)
    assert residual is a
    assert list(inspect.signature(fnn.Tanh().derivative).parameters) == ["a"]


def test_a_derivative_of_an_unknown_argument_is_refused():
    with pytest.raises(errors.KindError, match=r"Odd\.derivative: expected one argument .* got \(x\)"):

        @dataclass(frozen=True)
        class Odd(Elementwise):
            def function(self, z):
                return z

            def derivative(self, x):
                return x

    with pytest.raises(errors.KindError, match="OtherTanh: expected a method `derivative`"):

        @dataclass(frozen=True)
        class OtherTanh(fnn.Tanh):
            def function(self, z):
                return 2 * z


def test_an_activation_that_replaces_backward_does_not_inherit_its_tangent(needs_jax):
    @dataclass(frozen=True)
    class Surrogate(fnn.Tanh):
        def backward(self, params, a, da):
            return 2 * da

    z, dz = needs_jax.numpy.ones((2, 3)), needs_jax.numpy.arange(6.0).reshape(2, 3)
    layer = Surrogate()
    np.testing.assert_allclose(layer.tangent((), layer.forward((), z)[1], (), dz), 2 * dz)


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
    "a half of the batch": (lambda: fnn.Glu().apply((), [1.0, 2.0]), errors.ShapeError, "halved"),
    "rows that would be the batch, of logs": (
        lambda: fnn.LogSoftmax().apply((), [1.0, 2.0]),
        errors.ShapeError,
        r"\(N, ..., K\), got \(N,\)",
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

"""Each activation has the value and the derivative of JAX's own, at kinks and far out too, and the same on NumPy."""

import numpy as np
import oracle
import pytest

import fnn

NAMES = [name for name in oracle.ACTIVATIONS if name != "function"]
EDGES = np.array([[-1e4, -100, -1, -1e-3, -0.0, 0.0, 1e-3, 1, 100, 1e4]])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_value_and_derivative_are_jaxs(name, dtype, tolerance, needs_jax):
    import jax

    layer, function = oracle.ACTIVATIONS[name]
    rng = np.random.default_rng(0)

    def ours(z, da):
        a, residuals = layer.forward((), z)
        return a, layer.backward((), residuals, da)

    with jax.enable_x64(True):
        for z in (rng.normal(size=(100, 7)), 10 * rng.normal(size=(100, 1)), EDGES):
            z, da = z.astype(dtype), rng.normal(size=z.shape).astype(dtype)

            @jax.jit
            def both(z, da):
                wanted, vjp = jax.vjp(function, z)
                return (wanted, *vjp(da)), ours(z, da)

            wanted, on_jax = both(z, da)
            for a, dz in (on_jax, ours(z, da)):
                assert a.dtype == dz.dtype == dtype
                oracle.assert_close((a, dz), wanted, tolerance)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_jax_differentiates_the_formula_to_the_documented_derivative_at_zero(name, needs_jax):
    import jax

    layer, function = oracle.ACTIVATIONS[name]
    z = jax.numpy.zeros((1, 1))
    assert jax.grad(lambda z: layer.apply((), z).sum())(z) == jax.grad(lambda z: function(z).sum())(z)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overflows_far_out(name, backend):
    layer, _ = oracle.ACTIVATIONS[name]
    z = EDGES.astype(np.float32)
    if backend == "jax":
        import jax.numpy as jnp

        z = jnp.asarray(z)
    a, residuals = layer.forward((), z)
    assert np.isfinite(np.asarray(a)).all()
    assert np.isfinite(np.asarray(layer.backward((), residuals, z))).all()
    assert layer.init(fnn.random.key(0, backend=backend), (10,)) == ()
    assert layer.output_shape((10,)) == (10,)


@pytest.mark.parametrize("layer", [fnn.Relu(), fnn.LeakyRelu(), fnn.Sigmoid(), fnn.Tanh(), fnn.Softmax()])
def test_nan_is_passed_on_and_not_hidden(layer):
    assert np.isnan(layer.apply((), np.array([[np.nan]]))).all()


def test_derivatives_at_the_kink_are_the_documented_ones():
    one = np.ones((1, 1))
    for layer, wanted in ((fnn.Relu(), 0), (fnn.LeakyRelu(0.3), 1)):
        _, residuals = layer.forward((), 0 * one)
        assert layer.backward((), residuals, one) == wanted


def test_sigmoid_keeps_its_relative_accuracy_in_the_tail():
    a = fnn.Sigmoid().apply((), np.array([[-80.0]], np.float32))
    np.testing.assert_allclose(a, np.exp(-80.0), rtol=1e-6)

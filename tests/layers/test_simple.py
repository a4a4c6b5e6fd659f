"""Scale, Flatten, Dropout and Function."""

import numpy as np
import pytest

import fnn
from fnn import errors


def test_dropout_acts_in_training_only_and_keeps_the_mean(backend):
    x = np.ones((200, 500), np.float32)
    layer, key = fnn.Dropout(0.2), fnn.random.key(1, backend=backend)
    np.testing.assert_array_equal(layer.apply((), x), x)
    y = np.asarray(layer.apply((), x, key))
    assert set(np.unique(y)) == {0, np.float32(1.25)}
    assert abs((y == 0).mean() - 0.2) < 0.006, "five standard deviations of 100,000 draws"
    np.testing.assert_array_equal(layer.apply((), x, key), y)


def test_a_function_that_loses_examples_is_refused(needs_jax):
    import jax.numpy as jnp

    with pytest.raises(errors.ShapeError, match="each of 3 examples"):
        fnn.Function(jnp.sum).apply((), jnp.ones((3, 2)))


def test_a_functions_derivatives_are_jaxs_in_both_modes(needs_jax):
    import jax

    layer, rng = fnn.Function(jax.numpy.tanh), np.random.default_rng(0)
    x, dy, dx = rng.normal(size=(3, 4, 2)).astype(np.float32)
    y, residuals = layer.forward((), jax.numpy.asarray(x))
    slope = 1 - np.tanh(x) ** 2
    np.testing.assert_allclose(y, np.tanh(x), rtol=1e-5)
    np.testing.assert_allclose(layer.backward((), residuals, dy), slope * dy, rtol=1e-5)
    np.testing.assert_allclose(layer.tangent((), residuals, (), dx), slope * dx, rtol=1e-5)
    assert layer.tangent((), residuals, (), None) is None


def test_a_function_on_numpy_says_that_its_derivative_needs_jax():
    with pytest.raises(errors.KindError, match=r"Function"):
        fnn.Function(np.tanh).apply((), np.ones((1, 2)))

"""A complex step finds the derivative of an analytic function, that of the formula at a kink, or refuses."""

import functools

import numpy as np
import oracle
import pytest
from helpers import on, wide

from fnn import errors
from fnn.backend import jax
from fnn.complex_step import jvp

X, V = np.array([[0.7, -1.3, 0.2], [2.0, -0.4, 0.9]]), np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])

SMOOTH = {  # a function, of NumPy and of JAX alike
    "polynomial": lambda xp, x: x**3 - 2 * x * x + 1 / x,
    "elementary": lambda xp, x: xp.exp(x) * xp.sin(x) + xp.log1p(x * x) + xp.tanh(x) - xp.sqrt(x * x + 1),
    "products": lambda xp, x: x @ x.T + xp.einsum("ij,kj->ik", x, xp.cos(x)),
    "sums": lambda xp, x: (x * x).sum(axis=1) + x.mean() + x.prod(axis=1) + xp.cumsum(x, axis=1)[:, 1],
    "moved about": lambda xp, x: xp.concatenate([x.T[::-1], xp.stack([x[0], x[1]], axis=1) ** 2], axis=1),
    "maximum": lambda xp, x: xp.maximum(x, 0.5) * xp.minimum(x, 1.0) + abs(x) ** 3,
    "clip": lambda xp, x: xp.clip(x, -1, 1) * x,
    "where": lambda xp, x: xp.where(x > 0, x * x, -x) + (x >= 0.3) * x,
    "largest": lambda xp, x: x.max(axis=1) * x.min(axis=0, keepdims=True)[0, :2] + x[xp.arange(2), x.argmax(axis=1)],
    "sign": lambda xp, x: xp.sign(x) * x * x,
    "constant": lambda xp, x: xp.ones_like(x) * 3,
    "pad": lambda xp, x: xp.pad(x, ((0, 0), (1, 1))) ** 2,
    "in parts": lambda xp, x: xp.broadcast_to(xp.swapaxes(x, 0, 1)[1:, :1], (2, 2)) * xp.tensordot(x, x.T, 1),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_derivative_is_that_of_differences(name):
    f = lambda x: SMOOTH[name](np, x)
    h = 1e-4
    slope = lambda h: (f(X + h * V) - f(X - h * V)) / (2 * h)
    np.testing.assert_allclose(jvp(f, X, V), (4 * slope(h / 2) - slope(h)) / 3, rtol=1e-9, atol=1e-9)


def test_the_derivative_is_jaxs_on_both_backends(needs_jax):
    with wide():
        run = lambda x, v: {name: jvp(functools.partial(f, jax.numpy), x, v) for name, f in SMOOTH.items()}
        found = oracle.quick_jit(run)(*on("jax", (X, V)))
    for name, wanted in found.items():
        on_numpy = jvp(functools.partial(SMOOTH[name], np), X, V)
        np.testing.assert_allclose(on_numpy, wanted, rtol=1e-13, atol=1e-13)


KINKS = {
    "relu": (lambda x: np.maximum(x, 0), 0.5),
    "the smaller": (lambda x: np.minimum(x, 0), 0.5),
    "absolute": (abs, 1.0),
    "where": (lambda x: np.where(x > 0, x, 0), 0.0),
    "where from there": (lambda x: np.where(x >= 0, x, 0), 1.0),
    "the largest of equals": (lambda x: np.concatenate([x, 3 * x], axis=0).max(axis=0, keepdims=True), 2.0),
}


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("name", KINKS)
def test_at_a_kink_the_real_part_alone_decides_as_for_jax(name, direction):
    f, slope = KINKS[name]
    np.testing.assert_array_equal(jvp(f, np.zeros(1), np.array([direction])), [slope * direction])


REFUSED = {
    "conjugate": (lambda x: x * np.conj(x), "np.conjugate"),
    "rounding": (np.rint, "np.rint"),
    "a remainder": (lambda x: x % 2, "np.remainder"),
    "an integer": (lambda x: x.astype(np.int32) * x, r"np.astype\(int32\)"),
    "a norm": (lambda x: np.linalg.norm(x, axis=1), "np.norm"),
    "an order": (lambda x: np.sort(x, axis=1), "np.sort"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_that_is_not_analytic_is_refused(name):
    f, what = REFUSED[name]
    with pytest.raises(errors.KindError, match=f"{what}: expected an analytic function.*use JAX"):
        jvp(f, X, V)


def test_directions_of_any_length_are_as_exact():
    for length in (1e-200, 1.0, 1e200):
        np.testing.assert_allclose(jvp(np.exp, X, length * V), length * V * np.exp(X), rtol=1e-14)
    np.testing.assert_array_equal(jvp(np.exp, X, 0 * V), 0)

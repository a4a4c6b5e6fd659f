"""Layers without parameters, other than activations: Scale, Flatten, Dropout, and Function for any JAX function."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from .. import backend, random
from ..backend import floating, namespace
from ..errors import KindError, ShapeError, shape, shorten, usage
from ..static import Interval
from .base import Layer, symmetric


@dataclass(frozen=True)
class Scale(Layer):
    """Multiplication by a constant: `Scale(1 / 255)` maps grey levels 0 … 255, stored as uint8, to [0, 1].

        y = c x        dx = c δ

    Args:
        factor: c, finite.

    >>> Scale(1 / 255).apply((), np.array([[0, 51, 255]], np.uint8))
    array([[0.        , 0.20000002, 1.        ]], dtype=float32)
    """

    factor: Annotated[float, Interval("(-∞, ∞)")]
    draws: ClassVar[bool] = False

    def forward(self, params, x, key=None):
        return self.factor * floating(x), ()

    def backward(self, params, residuals, dy):
        return self.factor * dy

    tangent = symmetric


@dataclass(frozen=True)
class Flatten(Layer):
    """Flattens each example into one axis: (N, 28, 28) -> (N, 784).

        y = x, reshaped to (N, K)        dx = δ, reshaped as x is

    >>> Flatten().apply((), np.zeros((5, 28, 28))).shape
    (5, 784)
    """

    draws: ClassVar[bool] = False

    def output_shape(self, input_shape):
        return (math.prod(shape("input_shape", input_shape)),)

    def forward(self, params, x, key=None):
        return _rows(x), x

    def backward(self, params, x, dy):
        return dy.reshape(x.shape)

    def tangent(self, params, x, dparams, dx):
        return None if dx is None else _rows(dx)


def _rows(x):
    """(N, ...) as (N, K), also for N = 0."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@usage("fnn.Dropout(0.5)")
@dataclass(frozen=True)
class Dropout(Layer):
    """Inverted dropout: in training, sets each output to 0 with probability `rate` and scales the others up to preserve
    the mean.

        y = x m / (1 − rate),  m ~ Bernoulli(1 − rate)        dx = δ m / (1 − rate)

    In inference, without a key, y = x.

    Args:
        rate: the probability of dropping an output, in [0, 1). Default: 0.5.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014).

    >>> layer, x = Dropout(0.5), np.ones((1, 6), np.float32)
    >>> layer.apply((), x, random.key(0, backend="numpy")), layer.apply((), x)
    (array([[0., 0., 2., 2., 0., 2.]], dtype=float32), array([[1., 1., 1., 1., 1., 1.]], dtype=float32))
    """

    rate: Annotated[float, Interval("[0, 1)")] = 0.5

    def forward(self, params, x, key=None):
        x = floating(x)
        if key is None:
            return x, ()
        keep = random.bernoulli(key, 1 - self.rate, x.shape)
        return self._scaled(keep, x), keep

    def backward(self, params, keep, dy):
        return dy if isinstance(keep, tuple) else self._scaled(keep, dy)

    tangent = symmetric

    def _scaled(self, keep, x):
        return namespace(x).where(keep, x * (1 / (1 - self.rate)), 0)


@dataclass(frozen=True)
class Function(Layer):
    """A layer that applies any JAX function to a batch; needs JAX.

        y = f(x)        dx = δ ∂f/∂x, by `jax.vjp`        dy = ∂f/∂x dx, by `jax.jvp`

    Functions compare by identity, so define f once, at the top of a module: each new lambda is compiled anew.

    Args:
        f: the function, (N, ...) -> (N, ...), which must treat each example independently.

    >>> Function(np.sin)
    Function(<ufunc 'sin'>)
    """

    f: Callable
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if not callable(self.f):
            raise KindError(f"f: expected a function, got {shorten(self.f)}")

    def output_shape(self, input_shape):
        jax = backend.need_jax("Function")
        x = jax.ShapeDtypeStruct((1, *shape("input_shape", input_shape)), np.float32)
        return jax.eval_shape(self.f, x).shape[1:]

    def forward(self, params, x, key=None):
        if not backend.is_jax(x):
            raise KindError(
                "Function: its derivative is jax.vjp, so it needs parameters (or data) on JAX, not on NumPy"
            )
        x = floating(x)
        y = self.f(x)
        if y.shape[:1] != x.shape[:1]:
            raise ShapeError(f"{self}: expected an output for each of {x.shape[0]} examples, got shape {y.shape}")
        return y, x

    def backward(self, params, x, dy):
        return backend.need_jax("Function").vjp(self.f, x)[1](dy)[0]

    def tangent(self, params, x, dparams, dx):
        return None if dx is None else backend.need_jax("Function").jvp(self.f, (x,), (dx,))[1]

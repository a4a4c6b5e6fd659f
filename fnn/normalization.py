"""Layers that take a mean away and divide by a spread: over the data (Standardize), or over each example's own entries.

Letters: N examples, K entries of the last axis; δ = ∂L/∂y, shaped as y.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import backend, mapping, random, trees  # noqa: F401 - random for the examples
from .backend import cast, floating, namespace
from .errors import DataError, KindError, ShapeError, finite, not_negative, on_host, real, same_shape
from .initializers import Constant
from .layers import Array, Layer


class StandardizeParams(NamedTuple):
    """Parameters of `Standardize`: `mean` μ and `std` σ, each shaped as an example, which begin at 0 and 1."""

    mean: Array
    std: Array


@dataclass(frozen=True)
class Standardize(Layer):
    """Each feature less its mean, over its standard deviation.

        y  = (x − μ) / σ        x, y (N, ...)   μ, σ (...)
        dx = δ / σ              dμ = −Σₙ δ / σ        dσ = −Σₙ δ y / σ

    Put `Frozen(Standardize())` in front of a network and `trees.Fixed(Standardize().measured(x))` among its parameters:
    the constants are never learnt, but saved with the network, and served with it. In float32 a feature whose mean is
    10⁶ times its spread keeps one digit of it; such data want parameters of float64. Y. LeCun et al., "Efficient
    BackProp" (1998), sec. 4.3.

    >>> layer, x = Standardize(), np.array([[1.0, 7.0], [3.0, 7.0]])
    >>> layer.apply(layer.measured(x), x)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    draws: ClassVar[bool] = False

    def init(self, key, input_shape, dtype=np.float32):
        input_shape = self.output_shape(input_shape)
        return StandardizeParams(Constant(0.0)(key, input_shape, dtype), Constant(1.0)(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        mean, std = self._checked(params, x)
        y = (floating(x, mean.dtype) - mean) / std
        return y, y

    def backward(self, params, y, dy):
        return dy / params.std

    def gradient(self, params, y, dy):
        return StandardizeParams(*(-g.sum(axis=0) / params.std for g in (dy, dy * y)))

    def per_example_gradient(self, params, y, dy):
        return StandardizeParams(*(-g / params.std for g in (dy, dy * y)))

    def measured(self, x, weights=None, dtype: Any = np.float32):
        """The parameters by which data x (N, ...) come to have mean 0 and standard deviation 1, feature by feature.

            μ = Σ w x / Σ w        σ = √(Σ w (x − μ)² / Σ w)

        Both in float64 on the host, a few MiB of rows at a time: x may be a `np.memmap` that is larger than memory.
        The pieces are merged so that a large mean costs no digits. σ is 1 where a feature is constant, also where its
        spread is only rounding (at most 16 units in the last place of the mean, in float64). `weights` (N,) count
        examples unequally, and what has the weight 0 is not there. Returns `StandardizeParams` of `dtype` (float32 by
        default), on JAX where x is. Raises `DataError` where a number is not finite. T. Chan, G. Golub, R. LeVeque,
        "Algorithms for computing the sample variance: analysis and recommendations" (1983).

        >>> Standardize().measured([[1, 0], [3, 0]]).std
        array([1., 1.], dtype=float32)
        """
        if backend.is_traced(x, weights):
            raise KindError("x: expected data whose values are known, got a JAX tracer: measure them outside of jit")
        xp = namespace(x)
        dtype = backend.check_dtype(xp, dtype)
        x = on_host(x if xp is not np or isinstance(x, np.ndarray) else backend.as_array("x", x, np))
        if x.ndim < 1:
            raise ShapeError(f"x: expected a leading axis of examples, got shape {x.shape}")
        if weights is None:
            weights = np.broadcast_to(1.0, len(x))  # which takes no memory
        else:
            weights = cast(backend.as_array("weights", weights, np), np.float64)
            same_shape("weights", weights, x.shape[:1])
            finite("weights", weights)
            not_negative("weights", weights)
        if not weights.any():
            raise DataError(f"x: expected at least one example with a weight above 0, got {len(x)} without")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is refused below
            mean, std = _mean_and_std(x, weights)
            rounding = std <= 16 * np.finfo(np.float64).eps * abs(mean)
            std[rounding | (cast(std, dtype) < np.finfo(backend.at_least_float32(dtype)).tiny)] = 1
            params = StandardizeParams(*(cast(a.reshape(x.shape[1:]), dtype) for a in (mean, std)))
        finite("mean of x", params.mean)
        finite("standard deviation of x", params.std)
        return trees.lock(trees.map(xp.asarray, params))

    def _checked(self, params, x):
        if not isinstance(params, StandardizeParams) or params.mean.shape != params.std.shape:
            raise ShapeError(f"expected StandardizeParams, mean and std of one shape, got {trees.outline(params)}")
        if x.shape[1:] != params.mean.shape:
            expected = ", ".join(str(size) for size in ("N", *params.mean.shape))
            raise ShapeError(f"expected input of shape ({expected}), got {x.shape}")
        return params


PIECE = 2**18  # numbers that are float64 at a time: 2 MiB, which a processor's cache holds


def _mean_and_std(x, weights):
    """μ and σ (K,) of K features, piece by piece; a feature that is constant has exactly σ = 0."""
    rows_at_once = max(1, PIECE // max(1, math.prod(x.shape[1:])))
    origin: Any = None  # from which all is measured, so that what is constant is exactly 0
    total = mean = squares = 0.0
    for start in range(0, len(x), rows_at_once):
        w = np.ascontiguousarray(weights[start : start + rows_at_once])  # else a product takes thrice as long
        if not w.any():
            continue
        piece = mapping.rows(x, slice(start, start + rows_at_once))
        rows = backend.as_array("x", piece, np)
        if rows.dtype.kind == "c":
            raise KindError(f"x: expected real numbers, got dtype {rows.dtype}")
        rows = np.array(rows, np.float64).reshape(len(w), -1)
        rows[w == 0] = rows[w.argmax()]
        if not np.isfinite(rows).all():
            first = np.argwhere(~np.isfinite(rows))[0]
            place = start + first[0], *np.unravel_index(first[1], x.shape[1:])
            at = ", ".join(str(i) for i in place)
            raise DataError(f"x: expected finite numbers, got {rows[tuple(first)]} at x[{at}]")
        if origin is None:
            origin = rows[w.argmax()].copy()
        rows -= origin
        here = w.sum()
        share = here / (total + here)
        step = w @ rows / here - mean
        rows -= mean + step
        rows *= rows
        squares = squares + w @ rows + step * step * (total * share)
        mean = mean + step * share
        total += here
    return origin + mean, np.sqrt(squares / total)


class LayerNormParams(NamedTuple):
    """Parameters of `LayerNorm`: `gain` g and `bias` b, each (K,), which begin at 1 and 0."""

    gain: Array
    bias: Array


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Each example brought to mean 0 and variance 1 over its last axis, of K entries, then scaled and shifted.

        y  = g x̂ + b         x̂ = (x − m) r        m = mean x        r = 1 / √(mean (x − m)² + ε)
        dx = r (γ − mean γ − x̂ mean(γ x̂))         γ = δ g           dg = Σ δ x̂        db = Σ δ

    ε is `eps`, 10⁻⁵ by default. No example sees another, unlike in batch normalisation. J. Ba, J. Kiros, G. Hinton,
    "Layer normalization" (2016), eq. 4.

    >>> layer = LayerNorm()
    >>> layer.apply(layer.init(random.key(0, backend="numpy"), (2,)), [[1.0, 3.0]])
    array([[-0.999995,  0.999995]], dtype=float32)
    """

    eps: float = 1e-5
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        real("eps", self.eps, above=0)

    def init(self, key, input_shape, dtype=np.float32):
        size = last_axis(self.output_shape(input_shape))
        return LayerNormParams(Constant(1.0)(key, size, dtype), Constant(0.0)(key, size, dtype))

    def forward(self, params, x, key=None):
        x = last_axis_of(params.gain, x)
        wide = cast(x, backend.at_least_float32(x.dtype))
        centred = wide - wide.mean(axis=-1, keepdims=True)
        r = (centred * centred).mean(axis=-1, keepdims=True) + self.eps
        r = 1 / namespace(r).sqrt(r)
        normal = cast(centred * r, x.dtype)
        return params.gain * normal + params.bias, (normal, cast(r, x.dtype))

    def backward(self, params, residuals, dy):
        normal, r = residuals
        g = dy * params.gain
        return r * (g - g.mean(axis=-1, keepdims=True) - normal * (g * normal).mean(axis=-1, keepdims=True))

    def gradient(self, params, residuals, dy):
        return LayerNormParams(*(over_rows(g) for g in (dy * residuals[0], dy)))

    def per_example_gradient(self, params, residuals, dy):
        return LayerNormParams(*(over_rows(g, axis=1) for g in (dy * residuals[0], dy)))


class RMSNormParams(NamedTuple):
    """Parameters of `RMSNorm`: the `gain` g (K,), which begins at 1."""

    gain: Array


@dataclass(frozen=True)
class RMSNorm(Layer):
    """Each example divided by the root mean square over its last axis, of K entries, then scaled.

        y  = g x̂             x̂ = x r              r = 1 / √(mean x² + ε)
        dx = r (γ − x̂ mean(γ x̂))                  γ = δ g           dg = Σ δ x̂

    ε is `eps`, 10⁻⁶ by default. B. Zhang, R. Sennrich, "Root mean square layer normalization" (2019), eq. 4.

    >>> layer = RMSNorm()
    >>> layer.apply(layer.init(random.key(0, backend="numpy"), (2,)), [[3.0, 4.0]])
    array([[0.8485281, 1.1313708]], dtype=float32)
    """

    eps: float = 1e-6
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        real("eps", self.eps, above=0)

    def init(self, key, input_shape, dtype=np.float32):
        return RMSNormParams(Constant(1.0)(key, last_axis(self.output_shape(input_shape)), dtype))

    def forward(self, params, x, key=None):
        x = last_axis_of(params.gain, x)
        wide = cast(x, backend.at_least_float32(x.dtype))
        r = (wide * wide).mean(axis=-1, keepdims=True) + self.eps
        r = 1 / namespace(r).sqrt(r)
        normal = cast(wide * r, x.dtype)
        return params.gain * normal, (normal, cast(r, x.dtype))

    def backward(self, params, residuals, dy):
        normal, r = residuals
        g = dy * params.gain
        return r * (g - normal * (g * normal).mean(axis=-1, keepdims=True))

    def gradient(self, params, residuals, dy):
        return RMSNormParams(over_rows(dy * residuals[0]))

    def per_example_gradient(self, params, residuals, dy):
        return RMSNormParams(over_rows(dy * residuals[0], axis=1))


def last_axis(input_shape):
    """The shape of a parameter with an entry for each of the last axis."""
    if not input_shape:
        raise ShapeError("expected input with at least one axis besides that of the examples, got shape ()")
    return input_shape[-1:]


def last_axis_of(parameter, x):
    """x as floating point, its last axis checked against that of a parameter."""
    if x.ndim < 2 or x.shape[-1:] != parameter.shape:
        raise ShapeError(f"expected input of shape (N, ..., {parameter.shape[0]}), got {x.shape}")
    return floating(x, parameter.dtype)


def over_rows(values, axis=0):
    """The sum over all axes from `axis` to the last but one: (N, ..., K) -> (K,), or with axis=1 -> (N, K)."""
    return values.sum(axis=tuple(range(axis, values.ndim - 1)))

"""Standardize: each feature brought to mean 0 and standard deviation 1 over the data.

Letters: N examples; x and y (N, ...); μ and σ shaped as an example; δ = ∂L/∂y, shaped as y.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import backend, examples, trees
from ..backend import cast, floating, namespace
from ..checks import as_array, finite, nearest, not_negative
from ..errors import ArgumentError, DataError, KindError, ShapeError, same_shape
from ..initializers import Constant
from ..sources import Batches, rows
from ..streams import inputs_of
from .base import Array, Layer, added


class StandardizeParams(NamedTuple):
    """Parameters of `Standardize`: `mean` μ and `std` σ, each shaped as an example, which begin at 0 and 1."""

    mean: Array
    std: Array


@dataclass(frozen=True)
class Standardize(Layer):
    """Each feature minus its mean, divided by its standard deviation.

        y  = (x − μ) / σ                x, y (N, ...)   μ, σ (...)
        dx = δ / σ                      dμ = −Σₙ δ / σ        dσ = −Σₙ δ y / σ
        dy = (dx − dμ − y dσ) / σ       along a direction

    `fnn.standardized(net, x, key)` puts it in front of a network, with constants measured on x that are not learnt. In
    float32 a feature whose mean is 10⁶ times its standard deviation keeps one digit of it; such data need parameters of
    float64.

    Source: Y. LeCun et al., "Efficient BackProp" (1998), sec. 4.3.

    >>> layer, x = Standardize(), np.array([[1.0, 7.0], [3.0, 7.0]])
    >>> layer.apply(layer.measured(x), x)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    draws: ClassVar[bool] = False

    def init(self, key, input_shape, dtype: Any = np.float32):
        input_shape = self.output_shape(input_shape)
        return StandardizeParams(Constant(0.0)(key, input_shape, dtype), Constant(1.0)(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        y = (floating(x, params.mean.dtype) - params.mean) / params.std
        return y, y

    def backward(self, params, y, dy):
        return dy / params.std

    def factors(self, params, y, dy):
        return StandardizeParams(*(-g / params.std for g in (dy, dy * y)))

    def gradient(self, params, y, dy):
        # Divides once for each feature, not once for each example.
        return StandardizeParams(*(-g.sum(axis=0) / params.std for g in (dy, dy * y)))

    def tangent(self, params, y, dparams, dx):
        dmean, dstd = (None, None) if dparams is None else dparams
        by_std = None if dstd is None else -y * dstd
        dy = added(dx, by_std, None if dmean is None else -dmean)
        return None if dy is None else namespace(y).broadcast_to(dy / params.std, y.shape)

    def measured(self, x, weights=None, dtype: Any = np.float32) -> StandardizeParams:
        """The parameters that give data x (N, ...) mean 0 and standard deviation 1, feature by feature.

            μ = Σ w x / Σ w        σ = √(Σ w (x − μ)² / Σ w)

        Both are computed in float64 on the host, a few MiB of rows at a time, so x may be an `np.memmap` that is larger
        than memory. The pieces are merged in a way that loses no digits to a large mean.

        Args:
            x: data (N, ...); or `fnn.Batches`, of which x and the weights are used.
            weights: (N,), at least 0; an example of weight 0 is ignored. Default: 1 each.
            dtype: of the result. Default: float32.

        Returns:
            `StandardizeParams`, on JAX where x is. σ is 1 where a feature is constant, or varies only by rounding (by
            at most 16 units in the last place of the mean, in float64).

        Raises:
            DataError: where a number is not finite.

        Source: T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance: analysis and
        recommendations" (1983).

        >>> Standardize().measured([[1, 0], [3, 0]]).std
        array([1., 1.], dtype=float32)
        """
        if backend.is_traced(x, weights):
            raise KindError("x: expected data whose values are known, got a JAX tracer: measure them outside of jit")
        xp = namespace(x)
        dtype = backend.check_dtype(xp, dtype)
        if isinstance(x, Batches):
            if weights is not None:
                raise ArgumentError("weights: expected None, as Batches bring their own")
            whole = ((place, _one(of_batch), w) for place, of_batch, w in inputs_of(x))
        else:
            is_array = xp is not np or isinstance(x, np.ndarray)  # of a file, whose pieces are converted one by one
            whole = [("", nearest(x if is_array else _one(examples.arrays("x", x, np))), weights)]
        with np.errstate(over="ignore", invalid="ignore"):  # results that are not finite are refused below
            mean, std = mean_and_std(itertools.chain.from_iterable(itertools.starmap(weighted_pieces, whole)))
            params = constants(mean, std, dtype)
        return trees.lock(trees.map(xp.asarray, params))


def _one(x) -> Any:
    """x, if it is one array."""
    if isinstance(x, dict) or hasattr(x, "_fields"):
        raise KindError(
            "x: expected one array, got several; put fnn.Frozen(fnn.Standardize()) into the branch of each of them"
        )
    return x


def constants(mean, std, dtype, name="x") -> StandardizeParams:
    """The parameters for μ and σ, given in float64; σ becomes 1 where a feature is constant but for rounding."""
    rounding = std <= 16 * np.finfo(np.float64).eps * abs(mean)
    constant = rounding | (cast(std, dtype) < np.finfo(backend.at_least_float32(dtype)).tiny)
    params = StandardizeParams(cast(mean, dtype), cast(np.where(constant, 1, std), dtype))
    finite(f"mean of {name}", params.mean)
    finite(f"standard deviation of {name}", params.std)
    return params


PIECE = 2**18  # numbers converted to float64 at a time: 2 MiB, which fits a processor's cache


def weighted_pieces(place, x, weights) -> Iterator[tuple[Any, Any]]:
    """`(values, w)` of some rows of x (N, ...) at a time, in float64, those of weight 0 left out."""
    at = f"{place}: " if place else ""
    if x.ndim < 1:
        raise ShapeError(f"{at}x: expected a leading axis of examples, got shape {x.shape}")
    if weights is None:
        weights = np.broadcast_to(1.0, len(x))  # takes no memory
    else:
        weights = cast(as_array(f"{at}weights", weights, np), np.float64)
        same_shape(f"{at}weights", weights, x.shape[:1])
        finite(f"{at}weights", weights)
        not_negative(f"{at}weights", weights)
    rows_at_once = max(1, PIECE // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), rows_at_once):
        w = np.ascontiguousarray(weights[start : start + rows_at_once])  # otherwise a product takes three times as long
        piece = rows(x, slice(start, start + rows_at_once))
        values = as_array("x", piece, np)
        if values.dtype.kind == "c":
            raise KindError(f"{at}x: expected real numbers, got dtype {values.dtype}")
        values = np.array(values, np.float64)
        if w.any():
            values[w == 0] = values[w.argmax()]
        if w.any() and not np.isfinite(values).all():
            first = np.argwhere(~np.isfinite(values))[0]
            index = ", ".join(str(i) for i in (start + first[0], *first[1:]))
            raise DataError(f"{at}x: expected finite numbers, got {values[tuple(first)]} at x[{index}]")
        yield values, w


def mean_and_std(pieces) -> tuple[Any, Any]:
    """μ and σ (...) of pieces (N, ...) with weights, piece by piece; σ of a constant feature is exactly 0."""
    origin: Any = None  # subtracted from all examples, so that a constant feature is exactly 0
    total = mean = squares = 0.0
    shape, count = (), 0
    for values, w in pieces:
        shape, count = values.shape[1:], count + len(w)
        if not w.any():
            continue
        values = values.reshape(len(w), -1)
        if origin is None:
            origin = values[w.argmax()].copy()
        values -= origin
        here = w.sum()
        share = here / (total + here)
        step = w @ values / here - mean
        values -= mean + step
        values *= values
        squares = squares + w @ values + step * step * (total * share)
        mean = mean + step * share
        total += here
        del values, w  # before the next piece is read
    if origin is None:
        raise DataError(f"x: expected at least one example with a weight above 0, got {count} without")
    return (origin + mean).reshape(shape), np.sqrt(squares / total).reshape(shape)

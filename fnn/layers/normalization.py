"""Layers that normalize each example over its last axis: LayerNorm and RMSNorm.

Letters: N examples, K entries of the last axis; x, y and δ = ∂L/∂y are (N, ..., K). Statistics are computed in float32
or wider.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from .. import random  # noqa: F401 - for the examples
from ..backend import at_least_float32, cast, floating, namespace
from ..errors import ShapeError, usage
from ..initializers import Constant
from ..static import Interval
from .base import Array, Layer, added
from .dense import over_positions


class LayerNormParams(NamedTuple):
    """Parameters of `LayerNorm`: `gain` g and `bias` b, each (K,), which begin at 1 and 0."""

    gain: Array
    bias: Array


@usage("fnn.LayerNorm(), without the number of units, which is that of x")
@dataclass(frozen=True, kw_only=True)
class LayerNorm(Layer):
    """Brings each example to mean 0 and variance 1 over its last axis, then scales and shifts it.

        y  = g x̂ + b                          x̂ = (x − m) r        m = mean x        r = 1 / √(mean (x − m)² + ε)
        dx = r P(δ g)                         P(γ) = γ − mean γ − x̂ mean(γ x̂)
        dg = Σ δ x̂        db = Σ δ            summed over all axes but the last
        dy = g r P(dx) + x̂ dg + db            along a direction, as P is symmetric
        x, x̂, y, δ (N, ..., K)   g, b (K,)   m, r (N, ..., 1)

    No example depends on another, unlike in batch normalization.

    Args:
        eps: ε, greater than 0. Default: 10⁻⁵.

    Source: J. Ba, J. Kiros, G. Hinton, "Layer normalization" (2016), eq. 4.

    >>> layer = LayerNorm()
    >>> layer.apply(layer.init(random.key(0, backend="numpy"), (2,)), [[1.0, 3.0]])
    array([[-0.999995,  0.999995]], dtype=float32)
    """

    eps: Annotated[float, Interval("(0, ∞)")] = 1e-5
    draws: ClassVar[bool] = False

    def output_shape(self, input_shape):
        return with_last_axis(super().output_shape(input_shape))

    def init(self, key, input_shape, dtype: Any = np.float32):
        size = self.output_shape(input_shape)[-1:]
        return LayerNormParams(Constant(1.0)(key, size, dtype), Constant(0.0)(key, size, dtype))

    def forward(self, params, x, key=None):
        x = floating(x, params.gain.dtype)
        wide = cast(x, at_least_float32(x.dtype))
        centred = wide - wide.mean(axis=-1, keepdims=True)
        r = (centred * centred).mean(axis=-1, keepdims=True) + self.eps
        r = namespace(r).sqrt(r) / r  # 1/√r; where r overflows NaN, and not 0, which would make y its bias
        normal = cast(centred * r, x.dtype)
        return params.gain * normal + params.bias, (normal, cast(r, x.dtype))

    def backward(self, params, residuals, dy):
        return self._projected(residuals, dy * params.gain)

    def factors(self, params, residuals, dy):
        return LayerNormParams(*(over_positions(g) for g in (dy * residuals[0], dy)))

    def gradient(self, params, residuals, dy):
        return LayerNormParams(*(over_all(g) for g in (dy * residuals[0], dy)))

    def tangent(self, params, residuals, dparams, dx):
        dgain, dbias = (None, None) if dparams is None else dparams
        by_x = None if dx is None else params.gain * self._projected(residuals, dx)
        by_gain = None if dgain is None else residuals[0] * dgain
        return added(by_x, by_gain, None if dbias is None else namespace(dbias).broadcast_to(dbias, residuals[0].shape))

    def _projected(self, residuals, g):
        """r P(γ)."""
        normal, r = residuals
        return r * (g - g.mean(axis=-1, keepdims=True) - normal * (g * normal).mean(axis=-1, keepdims=True))


class RMSNormParams(NamedTuple):
    """Parameters of `RMSNorm`: the `gain` g (K,), which begins at 1."""

    gain: Array


@usage("fnn.RMSNorm(), without the number of units, which is that of x")
@dataclass(frozen=True, kw_only=True)
class RMSNorm(Layer):
    """Divides each example by the root mean square over its last axis, then scales it.

        y  = g x̂                       x̂ = x r              r = 1 / √(mean x² + ε)
        dx = r P(δ g)                  P(γ) = γ − x̂ mean(γ x̂)
        dg = Σ δ x̂                     summed over all axes but the last
        dy = g r P(dx) + x̂ dg          along a direction, as P is symmetric
        x, x̂, y, δ (N, ..., K)   g (K,)   r (N, ..., 1)

    Args:
        eps: ε, greater than 0. Default: 10⁻⁶.

    Source: B. Zhang, R. Sennrich, "Root mean square layer normalization" (2019), eq. 4.

    >>> layer = RMSNorm()
    >>> layer.apply(layer.init(random.key(0, backend="numpy"), (2,)), [[3.0, 4.0]])
    array([[0.8485281, 1.1313708]], dtype=float32)
    """

    eps: Annotated[float, Interval("(0, ∞)")] = 1e-6
    draws: ClassVar[bool] = False

    def output_shape(self, input_shape):
        return with_last_axis(super().output_shape(input_shape))

    def init(self, key, input_shape, dtype: Any = np.float32):
        return RMSNormParams(Constant(1.0)(key, self.output_shape(input_shape)[-1:], dtype))

    def forward(self, params, x, key=None):
        x = floating(x, params.gain.dtype)
        wide = cast(x, at_least_float32(x.dtype))
        r = (wide * wide).mean(axis=-1, keepdims=True) + self.eps
        r = namespace(r).sqrt(r) / r  # 1/√r; where r overflows NaN, and not 0
        normal = cast(wide * r, x.dtype)
        return params.gain * normal, (normal, cast(r, x.dtype))

    def backward(self, params, residuals, dy):
        return self._projected(residuals, dy * params.gain)

    def factors(self, params, residuals, dy):
        return RMSNormParams(over_positions(dy * residuals[0]))

    def gradient(self, params, residuals, dy):
        return RMSNormParams(over_all(dy * residuals[0]))

    def tangent(self, params, residuals, dparams, dx):
        dgain = None if dparams is None else dparams.gain
        by_x = None if dx is None else params.gain * self._projected(residuals, dx)
        return added(by_x, None if dgain is None else residuals[0] * dgain)

    def _projected(self, residuals, g):
        """r P(γ)."""
        normal, r = residuals
        return r * (g - normal * (g * normal).mean(axis=-1, keepdims=True))


def with_last_axis(input_shape):
    """The shape itself, if it has an axis besides that of the examples, which must not be mixed."""
    if not input_shape:
        raise ShapeError("expected input of shape (N, ..., K), got (N,)")
    return input_shape


def over_all(values):
    """The sum over all axes but the last: (N, ..., K) -> (K,)."""
    return values.sum(axis=tuple(range(values.ndim - 1)))

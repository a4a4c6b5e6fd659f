"""A value times a gate: z, or a half of the inputs, multiplied by a number between 0 and 1."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np

from ...backend import cast, floating, namespace
from ...errors import ArgumentError, ShapeError
from ...numerics import clipped, erfc, kept, logistic, nan_of, softplus
from ...static import Interval
from ..base import symmetric
from .base import Activation, Elementwise, Learnt, learnt_factors, learnt_tangent


class SwishParams(NamedTuple):
    """Parameters of a `Swish` that learns: `beta`, (1,) or one for each unit."""

    beta: Any


@dataclass(frozen=True)
class Swish(Learnt):
    """a = z σ(βz)        dz = δ (s + βz s (1 − s))        dβ = Σ δ z² s (1 − s)
    s = σ(βz)        range [≈ −0.28/β, ∞) for β > 0

    β (1,) or (units,)        z, a, s, δ (N, ...)

    With β = 1 it is Swish-1, also called SiLU.

    Args:
        beta: β, finite; with `learnt=True` its initial value. Default: 1.
        learnt: whether β is a parameter. Default: False.
        per_unit: whether each unit has a β of its own, which needs `learnt=True`. Default: False, one for the layer.

    Source: P. Ramachandran, B. Zoph, Q. Le, "Searching for activation functions" (2017).

    >>> Swish(), Swish(beta=1.5, learnt=True)
    (Swish(), Swish(beta=1.5, learnt=True))
    """

    beta: Annotated[float, Interval("(-∞, ∞)")] = 1.0
    learnt: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.per_unit and not self.learnt:
            raise ArgumentError("per_unit: expected learnt=True beside it, since a fixed β is one for all units")

    def init(self, key, input_shape, dtype: Any = np.float32):
        return SwishParams(self.start(key, input_shape, dtype, self.beta)) if self.learnt else ()

    def limits(self, params):
        beta = np.asarray(self.beta) if not self.learnt else params.beta
        xp = namespace(beta)
        return xp.where(beta > 0, 0, -math.inf), xp.where(beta < 0, 0, math.inf)

    def forward(self, params, z, key=None):
        z = floating(z, params.beta.dtype) if self.learnt else floating(z)
        s = logistic(self._beta(params, z) * z)
        return z * s, (z, s)

    def backward(self, params, residuals, da):
        z, s = residuals
        return da * (s + self._beta(params, z) * (z * (s * (1 - s))))  # βz might overflow where 1 − s is 0

    def partials(self, params, residuals):
        z, s = residuals
        return SwishParams(z * (s * (1 - s)) * z) if self.learnt else ()  # z² might overflow where 1 − s is 0

    factors, tangent = learnt_factors, learnt_tangent

    def _beta(self, params, z) -> Any:
        return self.placed(params.beta, z) if self.learnt else self.beta


@dataclass(frozen=True)
class HardSwish(Elementwise):
    """a = z min(max(z + 3, 0), 6) / 6        dz = 0 if z ≤ −3, δ if z ≥ 3, else δ (2z + 3) / 6        range [−⅜, ∞)

    The derivative at −3 is 0, at 3 it is 1.

    Source: A. Howard et al., "Searching for MobileNetV3" (2019).

    >>> HardSwish().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.33333333,  0.        ,  1.66666667]])
    """

    def limits(self, params):
        return 0, math.inf

    def function(self, z):
        return clipped(z, -3, math.inf) * (clipped(z + 3, 0, 6) / 6)  # −∞ · 0 would be NaN

    def derivative(self, z):
        shifted = z + 3  # rounded as in the function, so that both have the same kinks
        middle = kept((2 * clipped(z, -3, 3) + 3) * (1 / 6), (shifted > 0) & (shifted < 6))
        return nan_of(z, middle + cast(shifted >= 6, middle.dtype))


@dataclass(frozen=True)
class Gelu(Activation):
    """a = z Φ(z)        dz = δ (Φ(z) + z φ(z))        Φ(z) = ½ erfc(−z/√2)        φ(z) = e^(−z²/2) / √(2π)
    range [≈ −0.17, ∞)

    a = z s        dz = δ (s + z s (1 − s) 2u')        s = ½ (1 + tanh u) = σ(2u)
    u = √(2/π) (z + 0.044715 z³)        u' = √(2/π) (1 + 3 · 0.044715 z²)        range [≈ −0.17, ∞)

    z times the probability that a standard normal variable is below it.

    Args:
        approximate: whether to take the second form, which differs by up to 5·10⁻⁴. Default: False.

    Source: D. Hendrycks, K. Gimpel, "Gaussian error linear units" (2016), §2.

    >>> Gelu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.15865525,  0.        ,  1.95449974]])
    """

    approximate: bool = False

    def limits(self, params):
        return 0, math.inf

    def forward(self, params, z, key=None):
        z = floating(z)
        gate = logistic(_TWICE * z * (1 + _CUBIC * z * z)) if self.approximate else 0.5 * erfc(-math.sqrt(0.5) * z)
        return z * gate, (z, gate)

    def backward(self, params, residuals, da):
        z, gate = residuals
        if self.approximate:
            rise = z * (gate * (1 - gate))  # first, since z² might overflow where this is 0
            return da * (gate + _TWICE * (rise + 3 * _CUBIC * rise * z * z))
        z = clipped(z, -40, 40)  # beyond, the density is 0, and z² might overflow
        density = math.sqrt(0.5 / math.pi) * namespace(z).exp(-0.5 * z * z)
        return da * (gate + z * density)

    tangent = symmetric


_TWICE, _CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Mish(Activation):
    """a = z w        dz = δ (w + z (1 − w) (1 + w) σ(z))        w = tanh(log(1 + eᶻ))        range [≈ −0.31, ∞)

    Source: D. Misra, "Mish: a self regularized non-monotonic activation function" (2019).

    >>> Mish().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.30340146,  0.        ,  1.94395896]])
    """

    def limits(self, params):
        return 0, math.inf

    def forward(self, params, z, key=None):
        z = floating(z)
        gate = namespace(z).tanh(softplus(z))
        return z * gate, (z, gate)

    def backward(self, params, residuals, da):
        z, gate = residuals
        return da * (gate + z * ((1 - gate) * (1 + gate)) * logistic(z))

    tangent = symmetric


@dataclass(frozen=True)
class Glu(Activation):
    """a = u σ(v)        du = δ s        dv = δ u s (1 − s)        s = σ(v)        range (−∞, ∞)

    z (N, ..., 2K)        u, v, s, a, δ (N, ..., K)        da = s du + u s (1 − s) dv, along a direction

    The gated linear unit: u and v are the first and the second half of the last axis of z.

    Source: Y. Dauphin, A. Fan, M. Auli, D. Grangier, "Language modeling with gated convolutional networks" (2017),
    eq. 1.

    >>> Glu().output_shape((6,))
    (3,)
    """

    def output_shape(self, input_shape):
        *outer, last = super().output_shape(input_shape) or (1,)
        if last % 2:
            raise ShapeError(f"expected input whose last axis can be halved, got shape {tuple(input_shape)}")
        return (*outer, last // 2)

    def forward(self, params, z, key=None):
        u, v = halves(floating(z))
        s = logistic(v)
        return u * s, (u, s)

    def backward(self, params, residuals, da):
        u, s = residuals
        return namespace(da).concatenate((da * s, da * u * (s * (1 - s))), axis=-1)

    def tangent(self, params, residuals, dparams, dx):
        if dx is None:
            return None
        (u, s), (du, dv) = residuals, halves(dx)
        return s * du + u * (s * (1 - s)) * dv


def halves(z):
    """The first and the second half of the last axis."""
    half = z.shape[-1] // 2
    return z[..., :half], z[..., half:]

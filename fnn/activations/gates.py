"""A value times a gate: z, or a half of the inputs, multiplied by a number between 0 and 1."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..backend import floating, namespace
from ..errors import ArgumentError, ShapeError, real
from ..numerics import erfc, logistic, softplus
from .base import Activation, Learnt


class SwishParams(NamedTuple):
    """Parameters of a `Swish` that learns: `beta`, (1,) or one for each unit."""

    beta: Any


@dataclass(frozen=True)
class Swish(Learnt):
    """a = z σ(βz)        dz = δ (s + βz s (1 − s))        dβ = Σ δ z² s (1 − s)
    s = σ(βz)        range [≈ −0.28/β, ∞) for β > 0

    β is `beta`, 1 by default, which is Swish-1, also called SiLU. With `learnt=True` it is a parameter that begins
    there: one for the layer, or with `per_unit=True` one for each unit.

    Source: P. Ramachandran, B. Zoph, Q. Le, "Searching for activation functions" (2017).

    >>> Swish(), Swish(beta=1.5, learnt=True)
    (Swish(), Swish(beta=1.5, learnt=True))
    """

    beta: float = 1.0
    learnt: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        real("beta", self.beta)
        if self.per_unit and not self.learnt:
            raise ArgumentError("per_unit: expected learnt=True beside it, since a fixed β is one for all units")

    def init(self, key, input_shape, dtype=np.float32):
        return SwishParams(self.start(key, input_shape, dtype, self.beta)) if self.learnt else ()

    def limits(self, params):
        beta = np.asarray(self.beta) if not self.learnt else params.beta
        xp = namespace(beta)
        return xp.where(beta > 0, 0, -math.inf), xp.where(beta < 0, 0, math.inf)

    def forward(self, params, z, key=None):
        z = floating(z, self._beta(params, z).dtype) if self.learnt else floating(z)
        s = logistic(self._beta(params, z) * z)
        return z * s, (z, s)

    def backward(self, params, residuals, da):
        z, s = residuals
        return da * (s + self._beta(params, z) * z * (s * (1 - s)))

    def per_example_gradient(self, params, residuals, da):
        z, s = residuals
        return SwishParams(self.of_example(da * (z * z * (s * (1 - s))))) if self.learnt else ()

    def _beta(self, params, z) -> Any:
        return self.placed(params, SwishParams, z).beta if self.learnt else self.beta


@dataclass(frozen=True)
class HardSwish(Activation):
    """a = z min(max(z + 3, 0), 6) / 6        dz = 0 if z ≤ −3, δ if z ≥ 3, else δ (2z + 3) / 6        range [−⅜, ∞)

    The derivative at −3 is 0, at 3 it is 1.

    Source: A. Howard et al., "Searching for MobileNetV3" (2019).

    >>> HardSwish().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.33333333,  0.        ,  1.66666667]])
    """

    def limits(self, params):
        return 0, math.inf

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        t = z + 3
        middle = xp.where((t <= 0) | (t >= 6), 0, z)  # nothing is squared far out
        return xp.where(t <= 0, 0, xp.where(t >= 6, z, middle * t * (1 / 6))), z

    def backward(self, params, z, da):
        xp = namespace(z)
        return da * xp.where(z + 3 <= 0, 0, xp.where(z + 3 >= 6, 1, (2 * z + 3) * (1 / 6)))


@dataclass(frozen=True)
class Gelu(Activation):
    """a = z Φ(z)        dz = δ (Φ(z) + z φ(z))        Φ(z) = ½ erfc(−z/√2)        φ(z) = e^(−z²/2) / √(2π)
    range [≈ −0.17, ∞)

    a = z s        dz = δ (s + z s (1 − s) 2u')        s = ½ (1 + tanh u) = σ(2u)
    u = √(2/π) (z + 0.044715 z³)        u' = √(2/π) (1 + 3 · 0.044715 z²)        range [≈ −0.17, ∞)

    z times the probability that a standard normal variable is below it; and with `approximate=True` the second form,
    which differs by up to 5·10⁻⁴.

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
            return da * (gate + z * (gate * (1 - gate)) * (_TWICE * (1 + 3 * _CUBIC * z * z)))
        density = math.sqrt(0.5 / math.pi) * namespace(z).exp(-0.5 * z * z)
        return da * (gate + z * density)


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


@dataclass(frozen=True)
class Glu(Activation):
    """a = u σ(v)        du = δ s        dv = δ u s (1 − s)        s = σ(v)        range (−∞, ∞)

    The gated linear unit: u and v are the first and the second half of the last axis, (N, 2K) -> (N, K).

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
        z = floating(z)
        half = self.output_shape(z.shape[1:])[-1]
        u, s = z[..., :half], logistic(z[..., half:])
        return u * s, (u, s)

    def backward(self, params, residuals, da):
        u, s = residuals
        return namespace(da).concatenate((da * s, da * u * (s * (1 - s))), axis=-1)

"""Curves with parameters that are learnt: slope, height and width, or the whole kind of the curve."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from ... import random  # noqa: F401 - for the examples
from ...backend import floating, namespace
from ...numerics import dip, either, nan_of, ramp
from ...static import Interval
from .base import Learnt, learnt_factors, learnt_tangent


class PReluParams(NamedTuple):
    """Parameters of `PRelu`: the `slope` α, (1,) or one for each unit."""

    slope: Any


@dataclass(frozen=True)
class PRelu(Learnt):
    """a = z if z ≥ 0 else αz        dz = δ if z ≥ 0 else αδ        dα = Σ δ z [z < 0]        range (−∞, ∞)

    α (1,) or (units,)        z, a, δ (N, ...)

    A leaky ReLU that learns its slope. The derivative at 0 is 1. Weight decay of α would draw it towards a plain ReLU.

    Args:
        slope: the initial α, finite. Default: 0.25.
        per_unit: whether each unit has an α of its own. Default: False, one for the layer.

    Source: K. He et al., "Delving deep into rectifiers" (2015), eq. 1.

    >>> layer = PRelu()
    >>> params = layer.init(random.key(0, backend="numpy"), (3,))
    >>> layer.apply(params, [[-1.0, 0.0, 2.0]])
    array([[-0.25,  0.  ,  2.  ]], dtype=float32)
    """

    slope: Annotated[float, Interval("(-∞, ∞)")] = 0.25

    def init(self, key, input_shape, dtype: Any = np.float32):
        return PReluParams(self.start(key, input_shape, dtype, self.slope))

    def forward(self, params, z, key=None):
        z = floating(z, params.slope.dtype)
        return z * self._slopes(params, z), z

    def backward(self, params, z, da):
        return da * nan_of(z, self._slopes(params, z))

    def partials(self, params, z):
        return PReluParams(dip(z))

    factors, tangent = learnt_factors, learnt_tangent

    def _slopes(self, params, z):
        return either(z >= 0, 1, self.placed(params.slope, z), z.dtype)


class PEluParams(NamedTuple):
    """Parameters of `PElu`: the height `alpha` and the width `beta`, each (1,) or one for each unit."""

    alpha: Any
    beta: Any


@dataclass(frozen=True)
class PElu(Learnt):
    """a = αz/β if z ≥ 0 else α (e^(z/β) − 1)        dz = δ α/β if z ≥ 0 else δ (α/β) e^(z/β)
    dα = Σ δ a/α        dβ = −Σ δ αz/β² if z ≥ 0 else −Σ δ (αz/β²) e^(z/β)        range (−α, ∞)

    α, β (1,) or (units,)        z, a, δ (N, ...)

    An ELU that learns its height α and its width β. Both begin at 1 and have to stay positive, which nothing enforces;
    the paper clips them at 0.1.

    Args:
        per_unit: whether each unit has parameters of its own. Default: False, one of each for the layer.

    Source: L. Trottier, P. Giguère, B. Chaib-draa, "Parametric exponential linear unit" (2017).

    >>> layer = PElu()
    >>> params = layer.init(random.key(0, backend="numpy"), (3,))
    >>> layer.apply(params, [[-1.0, 0.0, 2.0]])
    array([[-0.63212055,  0.        ,  2.        ]], dtype=float32)
    """

    def init(self, key, input_shape, dtype: Any = np.float32):
        return PEluParams(*(self.start(key, input_shape, dtype, 1.0) for _ in range(2)))

    def limits(self, params):
        return -params.alpha, math.inf

    def forward(self, params, z, key=None):
        z = floating(z, params.alpha.dtype)
        alpha, beta = self._both(params, z)
        return alpha * (ramp(z) / beta + namespace(z).expm1(dip(z) / beta)), z

    def backward(self, params, z, da):
        alpha, beta = self._both(params, z)
        return da * (alpha / beta * namespace(z).exp(dip(z) / beta))

    def partials(self, params, z):
        xp, (alpha, beta) = namespace(z), self._both(params, z)
        below = dip(z) / beta
        of_alpha = ramp(z) / beta + xp.expm1(below)
        return PEluParams(of_alpha, -(alpha / beta) * (z / beta) * xp.exp(below))

    factors, tangent = learnt_factors, learnt_tangent

    def _both(self, params, z):
        return self.placed(params.alpha, z), self.placed(params.beta, z)


class SoftExponentialParams(NamedTuple):
    """Parameters of `SoftExponential`: `alpha`, (1,) or one for each unit."""

    alpha: Any


@dataclass(frozen=True)
class SoftExponential(Learnt):
    """a = −log(1 − α(z + α)) / α if α < 0; z if α = 0; (e^(αz) − 1) / α + α if α > 0
    dz = δ / (1 − α(z + α)) if α < 0; δ if α = 0; δ e^(αz) if α > 0        dα = Σ δ ∂a/∂α
    ∂a/∂α = (z + α) / (αu) + log u / α² + 1/u if α < 0, with u = 1 − α(z + α)
    ∂a/∂α = (1 + (αz − 1) e^(αz)) / α² + 1 if α > 0, and z²/2 + 1 at 0
    range (−∞, ∞) if α ≤ 0, else (α − 1/α, ∞)

    α (1,) or (units,)        z, a, δ (N, ...)

    A curve that learns whether to be a logarithm, a line or an exponential. Where α < 0 it is defined only for
    z > 1/α − α and is NaN elsewhere; where α > 0 it grows, and overflows, as an exponential does.

    Args:
        alpha: the initial α, finite. Default: 0.
        per_unit: whether each unit has an α of its own. Default: False, one for the layer.

    Source: L. Godfrey, M. Gashler, "A continuum among logarithmic, linear, and exponential functions" (2015), eq. 1.

    >>> layer = SoftExponential()
    >>> params = layer.init(random.key(0, backend="numpy"), (3,))
    >>> layer.apply(params, [[-1.0, 0.0, 2.0]])
    array([[-1.,  0.,  2.]], dtype=float32)
    """

    alpha: Annotated[float, Interval("(-∞, ∞)")] = 0.0

    def init(self, key, input_shape, dtype: Any = np.float32):
        return SoftExponentialParams(self.start(key, input_shape, dtype, self.alpha))

    def limits(self, params):
        xp, alpha = namespace(params.alpha), params.alpha
        return xp.where(alpha > 0, alpha - 1 / xp.where(alpha > 0, alpha, 1), -math.inf), math.inf

    def forward(self, params, z, key=None):
        z = floating(z, params.alpha.dtype)
        alpha = self.placed(params.alpha, z)
        xp, (w, v, t) = namespace(z), self._terms(alpha, z)
        logarithm = _small(
            v, 0.1, lambda v, alpha: -xp.log1p(-v) / alpha, alpha, (w,), [1 / (k + 1) for k in range(16)]
        )
        series = [1 / math.factorial(k + 1) for k in range(15)]
        exponential = _small(t, 0.5, lambda t, alpha: xp.expm1(t) / alpha, alpha, (z,), series)
        return xp.where(alpha < 0, logarithm, exponential + alpha), z

    def backward(self, params, z, da):
        alpha = self.placed(params.alpha, z)
        xp, (_, v, t) = namespace(z), self._terms(alpha, z)
        return da * xp.where(alpha < 0, 1 / xp.where(v < 1, 1 - v, math.nan), xp.exp(t))

    def partials(self, params, z):
        alpha = self.placed(params.alpha, z)
        xp, (w, v, t) = namespace(z), self._terms(alpha, z)
        series = [1 / (math.factorial(k) * (k + 2)) for k in range(14)]
        far = lambda t, alpha: (1 + (t - 1) * xp.exp(t)) / alpha**2
        exponential = _small(t, 0.5, far, alpha, (z, z), series) + 1
        series = [(k + 1) / (k + 2) for k in range(16)]
        far = lambda v, alpha: w / (1 - v) / alpha + xp.log1p(-v) / alpha**2
        logarithm = _small(v, 0.1, far, alpha, (w, w), series) + 1 / (1 - v)
        return SoftExponentialParams(xp.where(alpha < 0, logarithm, exponential))

    factors, tangent = learnt_factors, learnt_tangent

    def _terms(self, alpha, z):
        """w = z + α, v = αw and t = αz; v and t are 0 where their branch is not taken."""
        xp, w = namespace(z), z + alpha
        none = (alpha < 0) | ((alpha == 0) & xp.isinf(z))  # where 0 times z is 0
        return w, alpha * xp.where(alpha < 0, w, 0), alpha * xp.where(none, 0, z)


def _small(t, limit, formula, alpha, factors, series):
    """The formula in t and α; near 0, where it would lose its digits, a power series in t times the factors."""
    xp = namespace(t)
    near = (t < limit) & (t > -limit)
    inner, total = xp.where(near, t, 0), 0.0
    for coefficient in reversed(series):
        total = total * inner + coefficient
    for factor in factors:  # one after another, as z² might overflow where z²/2 does not
        total = total * factor
    return xp.where(near, total, formula(xp.where(near, 1.0 * limit, t), xp.where(near, 1.0, alpha)))

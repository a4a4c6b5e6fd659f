"""Steps, and the curves that smooth them: bounded on both sides."""

import math
from dataclasses import dataclass

from ..backend import floating, namespace
from ..errors import real
from ..numerics import logistic, magnitude
from .base import Activation


@dataclass(frozen=True)
class BinaryStep(Activation):
    """a = 1 if z > θ else 0        dz = 0        range {0, 1}

    θ is `threshold`. No error passes a step, so no layer below it learns, unless `straight_through=True` is asked for:
    then dz = δ, as if the step were not there (Y. Bengio, N. Léonard, A. Courville, 2013).

    Source: W. McCulloch, W. Pitts, "A logical calculus of the ideas immanent in nervous activity" (1943).

    >>> BinaryStep().apply((), [[-1.0, 0.0, 2.0]])
    array([[0., 0., 1.]])
    """

    threshold: float = 0.0
    straight_through: bool = False

    def __post_init__(self):
        super().__post_init__()
        real("threshold", self.threshold)

    def limits(self, params):
        return (-math.inf, math.inf) if self.straight_through else (0, 1)

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        return xp.where(z > self.threshold, 1, xp.where(z <= self.threshold, 0, z)), ()  # NaN stays NaN

    def backward(self, params, residuals, da):
        return da if self.straight_through else namespace(da).zeros_like(da)


@dataclass(frozen=True)
class Sign(Activation):
    """a = 1 if z ≥ 0 else −1        dz = 0        range {−1, 1}

    Sign(0) is 1. `straight_through=True` makes dz = δ, as for `BinaryStep`.

    Source: B. Widrow, M. Hoff, "Adaptive switching circuits" (1960).

    >>> Sign().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.,  1.,  1.]])
    """

    straight_through: bool = False

    def limits(self, params):
        return (-math.inf, math.inf) if self.straight_through else (-1, 1)

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        return xp.where(z >= 0, 1, xp.where(z < 0, -1, z)), ()  # NaN stays NaN

    def backward(self, params, residuals, da):
        return da if self.straight_through else namespace(da).zeros_like(da)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """a = 1 / (1 + e⁻ᶻ)        dz = δ a (1 − a)        range (0, 1)

    The logistic function; its derivative is greatest, ¼, at 0.

    Source: D. Rumelhart, G. Hinton, R. Williams, "Learning representations by back-propagating errors" (1986).

    >>> Sigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.26894142, 0.5       , 0.88079708]])
    """

    def limits(self, params):
        return 0, 1

    def forward(self, params, z, key=None):
        a = logistic(floating(z))
        return a, a

    def backward(self, params, a, da):
        return da * (a * (1 - a))


@dataclass(frozen=True)
class BipolarSigmoid(Activation):
    """a = (1 − e⁻ᶻ) / (1 + e⁻ᶻ)        dz = δ ½ (1 − a) (1 + a)        range (−1, 1)

    2σ(z) − 1 = tanh(z/2) with the logistic σ.

    Source: L. Fausett, "Fundamentals of neural networks" (1994).

    >>> BipolarSigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.46211716,  0.        ,  0.76159416]])
    """

    def limits(self, params):
        return -1, 1

    def forward(self, params, z, key=None):
        a = namespace(z).tanh(0.5 * floating(z))
        return a, a

    def backward(self, params, a, da):
        return da * (0.5 * (1 - a) * (1 + a))


@dataclass(frozen=True)
class Tanh(Activation):
    """a = tanh z        dz = δ (1 − a) (1 + a)        range (−1, 1)

    tanh z = 2σ(2z) − 1 with the logistic σ. 1 − a² as a product keeps its digits where a is close to ±1.

    Source: Y. LeCun et al., "Efficient BackProp" (1998), §4.4.

    >>> Tanh().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.76159416,  0.        ,  0.96402758]])
    """

    def limits(self, params):
        return -1, 1

    def forward(self, params, z, key=None):
        a = namespace(z).tanh(floating(z))
        return a, a

    def backward(self, params, a, da):
        return da * ((1 - a) * (1 + a))


@dataclass(frozen=True)
class HardTanh(Activation):
    """a = min(max(z, −1), 1)        dz = δ [−1 ≤ z ≤ 1]        range [−1, 1]

    The derivative at −1 and 1 is 1.

    Source: R. Collobert, "Large scale machine learning" (2004).

    >>> HardTanh().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.,  0.,  1.]])
    """

    def limits(self, params):
        return -1, 1

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        return xp.where(z > 1, 1, xp.where(z < -1, -1, z)), z

    def backward(self, params, z, da):
        return namespace(z).where((z >= -1) & (z <= 1), da, 0)


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """a = min(max(z + 3, 0), 6) / 6        dz = δ/6 [−3 < z < 3]        range [0, 1]

    The derivative at −3 and 3 is 0. This is the form of `jax.nn` and PyTorch; the first one had the slope ½.

    Source: M. Courbariaux, Y. Bengio, J.-P. David, "BinaryConnect" (2015); slope ⅙: A. Howard et al. (2019).

    >>> HardSigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.33333333, 0.5       , 0.83333333]])
    """

    def limits(self, params):
        return 0, 1

    def forward(self, params, z, key=None):
        xp, t = namespace(z), floating(z) + 3
        return xp.where(t <= 0, 0, xp.where(t >= 6, 6, t)) * (1 / 6), t

    def backward(self, params, t, da):
        return namespace(t).where((t > 0) & (t < 6), da * (1 / 6), 0)


@dataclass(frozen=True)
class ArcTan(Activation):
    """a = arctan z        dz = δ / (1 + z²)        range (−π/2, π/2)

    Source: M. Abramowitz, I. Stegun, "Handbook of mathematical functions" (1964), 4.4.

    >>> ArcTan().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.78539816,  0.        ,  1.10714872]])
    """

    def limits(self, params):
        return -math.pi / 2, math.pi / 2

    def forward(self, params, z, key=None):
        z = floating(z)
        return namespace(z).arctan(z), z

    def backward(self, params, z, da):
        return da / (1 + z * z)


@dataclass(frozen=True)
class Softsign(Activation):
    """a = z / (1 + |z|)        dz = δ / (1 + |z|)²        range (−1, 1)

    Source: J. Bergstra et al., "Quadratic polynomials learn better image features" (2009).

    >>> Softsign().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.5       ,  0.        ,  0.66666667]])
    """

    def limits(self, params):
        return -1, 1

    def forward(self, params, z, key=None):
        z = floating(z)
        d = 1 + magnitude(z)
        return z / d, d

    def backward(self, params, d, da):
        return da / (d * d)

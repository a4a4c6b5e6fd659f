"""Steps, and the curves that smooth them: bounded on both sides."""

import math
from dataclasses import dataclass
from typing import Annotated

from ...backend import floating, namespace
from ...numerics import bounded, clipped, either, hypotenuse, logistic, magnitude, nan_of
from ...static import Interval
from ..base import symmetric
from .base import Activation, Elementwise


@dataclass(frozen=True)
class BinaryStep(Activation):
    """a = 1 if z > θ else 0        dz = 0        range {0, 1}

    No error passes a step, so no layer below it learns, unless `straight_through=True`.

    Args:
        threshold: θ, finite. Default: 0.
        straight_through: whether dz = δ, as if the step were not there (Y. Bengio, N. Léonard, A. Courville, 2013).
            Default: False.

    Source: W. McCulloch, W. Pitts, "A logical calculus of the ideas immanent in nervous activity" (1943).

    >>> BinaryStep().apply((), [[-1.0, 0.0, 2.0]])
    array([[0., 0., 1.]])
    """

    threshold: Annotated[float, Interval("(-∞, ∞)")] = 0.0
    straight_through: bool = False

    def limits(self, params):
        return (-math.inf, math.inf) if self.straight_through else (0, 1)

    def forward(self, params, z, key=None):
        z = floating(z)
        return nan_of(z, (z > self.threshold).astype(z.dtype)), ()

    def backward(self, params, residuals, da):
        return da if self.straight_through else namespace(da).zeros_like(da)

    tangent = symmetric


@dataclass(frozen=True)
class Sign(Activation):
    """a = 1 if z ≥ 0 else −1        dz = 0        range {−1, 1}

    Sign(0) is 1.

    Args:
        straight_through: whether dz = δ, as in `BinaryStep`. Default: False.

    Source: B. Widrow, M. Hoff, "Adaptive switching circuits" (1960).

    >>> Sign().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.,  1.,  1.]])
    """

    straight_through: bool = False

    def limits(self, params):
        return (-math.inf, math.inf) if self.straight_through else (-1, 1)

    def forward(self, params, z, key=None):
        z = floating(z)
        return nan_of(z, either(z >= 0, 1, -1, z.dtype)), ()

    def backward(self, params, residuals, da):
        return da if self.straight_through else namespace(da).zeros_like(da)

    tangent = symmetric


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """a = 1 / (1 + e⁻ᶻ)        dz = δ a (1 − a)        range (0, 1)

    The logistic function. Its derivative is largest, ¼, at 0.

    Source: D. Rumelhart, G. Hinton, R. Williams, "Learning representations by back-propagating errors" (1986).

    >>> Sigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.26894142, 0.5       , 0.88079708]])
    """

    def limits(self, params):
        return 0, 1

    def function(self, z):
        return logistic(z)

    def derivative(self, a):
        return a * (1 - a)


@dataclass(frozen=True)
class BipolarSigmoid(Elementwise):
    """a = (1 − e⁻ᶻ) / (1 + e⁻ᶻ)        dz = δ ½ (1 − a) (1 + a)        range (−1, 1)

    It equals 2σ(z) − 1 = tanh(z/2), where σ is the logistic function.

    Source: L. Fausett, "Fundamentals of neural networks" (1994).

    >>> BipolarSigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.46211716,  0.        ,  0.76159416]])
    """

    def limits(self, params):
        return -1, 1

    def function(self, z):
        return namespace(z).tanh(0.5 * z)

    def derivative(self, a):
        return 0.5 * (1 - a) * (1 + a)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """a = tanh z        dz = δ (1 − a) (1 + a)        range (−1, 1)

    It equals 2σ(2z) − 1, where σ is the logistic function. The product keeps the digits of 1 − a² where a is close
    to ±1.

    Source: Y. LeCun et al., "Efficient BackProp" (1998), §4.4.

    >>> Tanh().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.76159416,  0.        ,  0.96402758]])
    """

    def limits(self, params):
        return -1, 1

    def function(self, z):
        return namespace(z).tanh(z)

    def derivative(self, a):
        return (1 - a) * (1 + a)


@dataclass(frozen=True)
class HardTanh(Elementwise):
    """a = min(max(z, −1), 1)        dz = δ [−1 ≤ z ≤ 1]        range [−1, 1]

    The derivative at −1 and 1 is 1.

    Source: R. Collobert, "Large scale machine learning" (2004).

    >>> HardTanh().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.,  0.,  1.]])
    """

    def limits(self, params):
        return -1, 1

    def function(self, z):
        return clipped(z, -1, 1, at_ends=1)

    def derivative(self, z):
        return (z >= -1) & (z <= 1)


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """a = min(max(z + 3, 0), 6) / 6        dz = δ/6 [−3 < z < 3]        range [0, 1]

    The derivative at −3 and 3 is 0. This is the form of `jax.nn` and PyTorch; the original has the slope ½.

    Source: M. Courbariaux, Y. Bengio, J.-P. David, "BinaryConnect" (2015); slope ⅙: A. Howard et al. (2019).

    >>> HardSigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.33333333, 0.5       , 0.83333333]])
    """

    def limits(self, params):
        return 0, 1

    def function(self, z):
        return clipped(z + 3, 0, 6) * (1 / 6)

    def derivative(self, z):
        shifted = z + 3  # rounded as in the function, so that both have the same kinks
        return nan_of(z, either((shifted > 0) & (shifted < 6), 1 / 6, 0, z.dtype))


@dataclass(frozen=True)
class ArcTan(Elementwise):
    """a = arctan z        dz = δ / (1 + z²)        range (−π/2, π/2)

    Source: M. Abramowitz, I. Stegun, "Handbook of mathematical functions" (1964), 4.4.

    >>> ArcTan().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.78539816,  0.        ,  1.10714872]])
    """

    def limits(self, params):
        return -math.pi / 2, math.pi / 2

    def function(self, z):
        return namespace(z).arctan(z)

    def derivative(self, z):
        r = 1 / hypotenuse(z, 1)  # z² might overflow
        return r * r


@dataclass(frozen=True)
class Softsign(Elementwise):
    """a = z / (1 + |z|)        dz = δ / (1 + |z|)²        range (−1, 1)

    Source: J. Bergstra et al., "Quadratic polynomials learn better image features" (2009).

    >>> Softsign().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.5       ,  0.        ,  0.66666667]])
    """

    def limits(self, params):
        return -1, 1

    def function(self, z):
        z = bounded(z)
        return z / (1 + magnitude(z))

    def derivative(self, z):
        r = 1 / (1 + magnitude(z))
        return r * r

"""The straight line, the ramp, and the curves that smooth it or bend its lower half: they grow as z does."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ... import random
from ...backend import cast, floating, namespace
from ...errors import ArgumentError
from ...numerics import bounded, clipped, dip, either, hypotenuse, logistic, magnitude, nan_of, ramp, softplus
from ...static import Interval
from ..base import symmetric
from .base import Activation, Elementwise


@dataclass(frozen=True)
class Identity(Activation):
    """a = z        dz = δ        range (−∞, ∞)

    Source: B. Widrow, M. Hoff, "Adaptive switching circuits" (1960), the linear unit of Adaline.

    >>> Identity().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.,  0.,  2.]])
    """

    def forward(self, params, z, key=None):
        return floating(z), ()

    def backward(self, params, residuals, da):
        return da

    tangent = symmetric


@dataclass(frozen=True)
class Relu(Elementwise):
    """a = max(0, z)        dz = δ [z > 0]        range [0, ∞)

    The ramp, or rectified linear unit. The derivative at 0 is 0.

    Source: V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).

    >>> Relu().apply((), [[-2.0, 3.0]])
    array([[0., 3.]])
    """

    def limits(self, params):
        return 0, math.inf

    def function(self, z):
        return ramp(z)

    def derivative(self, a):
        return a > 0


@dataclass(frozen=True)
class Relu6(Elementwise):
    """a = min(max(0, z), 6)        dz = δ [0 < z < 6]        range [0, 6]

    The derivative at 0 and 6 is 0.

    Source: A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10" (2010).

    >>> Relu6().apply((), [[-1.0, 0.0, 2.0]])
    array([[0., 0., 2.]])
    """

    def limits(self, params):
        return 0, 6

    def function(self, z):
        return clipped(z, 0, 6)

    def derivative(self, a):
        return (a > 0) & (a < 6)


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """a = z if z ≥ 0 else αz        dz = δ if z ≥ 0 else αδ        range (−∞, ∞)

    The derivative at 0 is 1.

    Args:
        slope: α, finite. Default: 0.01.

    Source: A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models" (2013).

    >>> LeakyRelu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.01,  0.  ,  2.  ]])
    """

    slope: Annotated[float, Interval("(-∞, ∞)")] = 0.01

    def function(self, z):
        return z * either(z >= 0, 1, self.slope, z.dtype)

    def derivative(self, z):
        return nan_of(z, either(z >= 0, 1, self.slope, z.dtype))


@dataclass(frozen=True)
class RRelu(Activation):
    """a = z if z ≥ 0 else rz        dz = δ if z ≥ 0 else rδ        range (−∞, ∞)

    In training (with a key) each entry draws its own slope r ~ U(lower, upper); in inference r is their mean. The
    derivative at 0 is 1. This is PyTorch's form; the paper divides z by a number drawn from U(3, 8).

    Args:
        lower: the smallest slope, finite. Default: 1/8.
        upper: the largest slope, at least `lower`. Default: 1/3.

    Source: B. Xu, N. Wang, T. Chen, M. Li, "Empirical evaluation of rectified activations" (2015).

    >>> RRelu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.22916667,  0.        ,  2.        ]])
    """

    lower: Annotated[float, Interval("(-∞, ∞)")] = 1 / 8
    upper: Annotated[float, Interval("(-∞, ∞)")] = 1 / 3
    draws: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.upper < self.lower:
            raise ArgumentError(f"upper: expected at least lower = {self.lower:g}, got {self.upper:g}")

    def forward(self, params, z, key=None):
        z = floating(z)
        middle = (self.lower + self.upper) / 2
        r = middle if key is None else cast(random.uniform(key, z.shape, np.float32, self.lower, self.upper), z.dtype)
        slope = nan_of(z, either(z >= 0, 1, r, z.dtype))
        return slope * z, slope

    def backward(self, params, slope, da):
        return slope * da

    tangent = symmetric


@dataclass(frozen=True)
class Elu(Elementwise):
    """a = z if z > 0 else α (eᶻ − 1)        dz = δ if z > 0 else δ α eᶻ        range (−α, ∞)

    The derivative at 0 is α.

    Args:
        alpha: α, at least 0. Default: 1.

    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by exponential
    linear units" (2016), eq. 15.

    >>> Elu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.63212056,  0.        ,  2.        ]])
    """

    alpha: Annotated[float, Interval("[0, ∞)")] = 1.0

    def limits(self, params):
        return -self.alpha, math.inf

    def function(self, z):
        return ramp(z) + self.alpha * namespace(z).expm1(dip(z))

    def derivative(self, z):
        # It is taken from z, since a + α has no digits left where a is close to −α.
        rise = namespace(z).exp(dip(z))
        return rise if self.alpha == 1 else rise * either(z > 0, 1, self.alpha, z.dtype)


@dataclass(frozen=True)
class Celu(Elementwise):
    """a = z if z > 0 else α (e^(z/α) − 1)        dz = δ if z > 0 else δ e^(z/α)        range (−α, ∞)

    Unlike that of `Elu` its derivative is continuous for every α: 1 at 0.

    Args:
        alpha: α, greater than 0. Default: 1.

    Source: J. Barron, "Continuously differentiable exponential linear units" (2017).

    >>> Celu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.63212056,  0.        ,  2.        ]])
    """

    alpha: Annotated[float, Interval("(0, ∞)")] = 1.0

    def limits(self, params):
        return -self.alpha, math.inf

    def function(self, z):
        return ramp(z) + self.alpha * namespace(z).expm1(dip(z) / self.alpha)

    def derivative(self, z):
        return namespace(z).exp(dip(z) / self.alpha)


@dataclass(frozen=True)
class Selu(Elementwise):
    """a = λz if z > 0 else λα (eᶻ − 1)        dz = λδ if z > 0 else δ λα eᶻ        range (−λα, ∞)

    With λ = 1.0507… and α = 1.6733… a layer whose weights are drawn by `LecunNormal` keeps the mean 0 and variance 1
    of its inputs. The derivative at 0 is λα.

    Source: G. Klambauer et al., "Self-normalizing neural networks" (2017), eq. 2 and the constants of §2.

    >>> Selu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.11133074,  0.        ,  2.10140197]])
    """

    scale: ClassVar[float] = 1.0507009873554804934193349852946
    alpha: ClassVar[float] = 1.6732632423543772848170429916717

    def limits(self, params):
        return -self.scale * self.alpha, math.inf

    def function(self, z):
        return self.scale * ramp(z) + self.scale * self.alpha * namespace(z).expm1(dip(z))

    def derivative(self, z):
        return namespace(z).exp(dip(z)) * either(z > 0, self.scale, self.scale * self.alpha, z.dtype)


@dataclass(frozen=True)
class Isrlu(Activation):
    """a = z if z ≥ 0 else z r        dz = δ if z ≥ 0 else δ r³        r = 1 / √(1 + αz²)        range (−1/√α, ∞)

    An ELU without an exponential.

    Args:
        alpha: α, greater than 0. Default: 1.

    Source: B. Carlile et al., "Improving deep learning by inverse square root linear units" (2017).

    >>> Isrlu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.70710678,  0.        ,  2.        ]])
    """

    alpha: Annotated[float, Interval("(0, ∞)")] = 1.0

    def limits(self, params):
        return -1 / math.sqrt(self.alpha), math.inf

    def forward(self, params, z, key=None):
        z, root = floating(z), math.sqrt(self.alpha)
        c, below = 1 / max(root, 1.0), bounded(dip(z))
        h = hypotenuse(root * c * below, c)  # c/r, which overflows less than √α z does
        return ramp(z) + below / h * c, c / h  # r is 1 where z ≥ 0

    def backward(self, params, r, da):
        return da * (r * r * r)

    tangent = symmetric


@dataclass(frozen=True)
class Softplus(Elementwise):
    """a = log(1 + eᶻ)        dz = δ σ(z)        range (0, ∞)

    The smooth ramp. Its derivative is the logistic function.

    Source: C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing" (2001).

    >>> Softplus().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.31326169, 0.69314718, 2.12692801]])
    """

    def limits(self, params):
        return 0, math.inf

    def function(self, z):
        return softplus(z)

    def derivative(self, z):
        return logistic(z)


@dataclass(frozen=True)
class Squareplus(Elementwise):
    """a = (z + √(z² + b)) / 2        dz = δ a / √(z² + b)        range (0, ∞)

    A smooth ramp without an exponential. It is computed as max(z, 0) + b / (2 (|z| + √(z² + b))), which keeps its
    digits for large negative z; and √(z² + b) is a + b/4a.

    Args:
        b: the size of its bend, greater than 0. Default: 4.

    Source: J. Barron, "Squareplus: a Softplus-like algebraic rectifier" (2021), eq. 1.

    >>> Squareplus().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.61803399, 1.        , 2.41421356]])
    """

    b: Annotated[float, Interval("(0, ∞)")] = 4.0

    def limits(self, params):
        return 0, math.inf

    def function(self, z):
        size = bounded(magnitude(z))
        half = size + 0.5 * (hypotenuse(size, math.sqrt(self.b)) - size)  # their sum might overflow
        return ramp(z, at_zero=1) + 0.25 * self.b / half

    def derivative(self, a):
        a = bounded(a)
        return a / (a + 0.25 * self.b / a)


@dataclass(frozen=True)
class LogSigmoid(Elementwise):
    """a = log σ(z) = −log(1 + e⁻ᶻ)        dz = δ σ(−z)        range (−∞, 0)

    The log-probability of a sigmoid. For training prefer `SigmoidBinaryCrossEntropy`, which takes z itself.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eqs. 4.59 and 4.60.

    >>> LogSigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.31326169, -0.69314718, -0.12692801]])
    """

    def limits(self, params):
        return -math.inf, 0

    def function(self, z):
        return -softplus(-z)

    def derivative(self, z):
        return logistic(-z)

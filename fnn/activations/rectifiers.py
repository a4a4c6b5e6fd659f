"""The straight line, the ramp, and the curves that smooth it or bend its lower half: they grow as z does."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import random
from ..backend import cast, floating, namespace
from ..errors import ArgumentError, real
from ..numerics import kept, logistic, magnitude, ramp, softplus
from .base import Activation, Learnt


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


@dataclass(frozen=True)
class Relu(Activation):
    """a = max(0, z)        dz = δ [z > 0]        range [0, ∞)

    The ramp. The derivative at 0 is 0.

    Source: V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).

    >>> Relu().apply((), [[-2.0, 3.0]])
    array([[0., 3.]])
    """

    def limits(self, params):
        return 0, math.inf

    def forward(self, params, z, key=None):
        a = ramp(floating(z))
        return a, a

    def backward(self, params, a, da):
        return kept(da, a > 0)


@dataclass(frozen=True)
class Relu6(Activation):
    """a = min(max(0, z), 6)        dz = δ [0 < z < 6]        range [0, 6]

    The derivative at 0 and 6 is 0.

    Source: A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10" (2010).

    >>> Relu6().apply((), [[-1.0, 0.0, 2.0]])
    array([[0., 0., 2.]])
    """

    def limits(self, params):
        return 0, 6

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        a = xp.where(z <= 0, 0, xp.where(z >= 6, 6, z))
        return a, a

    def backward(self, params, a, da):
        return namespace(a).where((a > 0) & (a < 6), da, 0)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """a = z if z ≥ 0 else αz        dz = δ if z ≥ 0 else αδ        range (−∞, ∞)

    α is `slope`, 0.01 by default; the derivative at 0 is 1.

    Source: A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models" (2013).

    >>> LeakyRelu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.01,  0.  ,  2.  ]])
    """

    slope: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        real("slope", self.slope)

    def forward(self, params, z, key=None):
        z = floating(z)
        return bent(z, z, self.slope), z

    def backward(self, params, z, da):
        return bent(z, da, self.slope)


def bent(z, value, slope):
    """The value where z ≥ 0, and where it is not, the value times the slope."""
    return namespace(z).where(z >= 0, value, slope * value)


class PReluParams(NamedTuple):
    """Parameters of `PRelu`: the `slope` α, (1,) or one for each unit."""

    slope: Any


@dataclass(frozen=True)
class PRelu(Learnt):
    """a = z if z ≥ 0 else αz        dz = δ if z ≥ 0 else αδ        dα = Σ δ z [z < 0]        range (−∞, ∞)

    A leaky ReLU that learns its slope: one α for the layer, or with `per_unit=True` one for each unit. It begins at
    `slope`, 0.25 by default. The derivative at 0 is 1. Weight decay of α would draw it to a plain ReLU.

    Source: K. He et al., "Delving deep into rectifiers" (2015), eq. 1.

    >>> from fnn import random
    >>> layer = PRelu()
    >>> params = layer.init(random.key(0, backend="numpy"), (3,))
    >>> layer.apply(params, [[-1.0, 0.0, 2.0]])
    array([[-0.25,  0.  ,  2.  ]], dtype=float32)
    """

    slope: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        real("slope", self.slope)

    def init(self, key, input_shape, dtype=np.float32):
        return PReluParams(self.start(key, input_shape, dtype, self.slope))

    def forward(self, params, z, key=None):
        slope = self.placed(params, PReluParams, z).slope
        z = floating(z, slope.dtype)
        return bent(z, z, slope), z

    def backward(self, params, z, da):
        return bent(z, da, self.placed(params, PReluParams, z).slope)

    def per_example_gradient(self, params, z, da):
        return PReluParams(self.of_example(namespace(z).where(z >= 0, 0, da * z)))


@dataclass(frozen=True)
class RRelu(Activation):
    """a = z if z ≥ 0 else rz        dz = δ if z ≥ 0 else rδ        range (−∞, ∞)

    In training (with a key) each entry draws its own slope r ~ U(lower, upper); in inference r is their mean. The
    derivative at 0 is 1. This is PyTorch's form; the paper divides z by a number drawn from U(3, 8).

    Source: B. Xu, N. Wang, T. Chen, M. Li, "Empirical evaluation of rectified activations" (2015).

    >>> RRelu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.22916667,  0.        ,  2.        ]])
    """

    lower: float = 1 / 8
    upper: float = 1 / 3
    draws: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        real("lower", self.lower)
        if real("upper", self.upper) < self.lower:
            raise ArgumentError(f"upper: expected at least lower = {self.lower:g}, got {self.upper:g}")

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        middle = (self.lower + self.upper) / 2
        r = middle if key is None else cast(random.uniform(key, z.shape, np.float32, self.lower, self.upper), z.dtype)
        slope = xp.where(z >= 0, xp.ones_like(z), r)
        return slope * z, slope

    def backward(self, params, slope, da):
        return slope * da


@dataclass(frozen=True)
class Elu(Activation):
    """a = z if z > 0 else α (eᶻ − 1)        dz = δ if z > 0 else δ (a + α)        range (−α, ∞)

    α is `alpha`, at least 0; the derivative at 0 is α.

    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by exponential
    linear units" (2016), eq. 15.

    >>> Elu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.63212056,  0.        ,  2.        ]])
    """

    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        real("alpha", self.alpha, least=0)

    def limits(self, params):
        return -self.alpha, math.inf

    def forward(self, params, z, key=None):
        z = floating(z)
        a = namespace(z).where(z > 0, z, self.alpha * expm1_below(z))
        return a, a

    def backward(self, params, a, da):
        return da * namespace(a).where(a > 0, 1, a + self.alpha)


def expm1_below(z):
    """eᶻ − 1 where z ≤ 0, and 0 above, where it could overflow."""
    xp = namespace(z)
    return xp.expm1(xp.where(z > 0, 0, z))


@dataclass(frozen=True)
class Celu(Activation):
    """a = z if z > 0 else α (e^(z/α) − 1)        dz = δ if z > 0 else δ (a/α + 1)        range (−α, ∞)

    α is `alpha`, greater than 0. Unlike that of `Elu` its derivative is continuous for every α: 1 at 0.

    Source: J. Barron, "Continuously differentiable exponential linear units" (2017).

    >>> Celu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.63212056,  0.        ,  2.        ]])
    """

    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        real("alpha", self.alpha, above=0)

    def limits(self, params):
        return -self.alpha, math.inf

    def forward(self, params, z, key=None):
        z = floating(z)
        a = namespace(z).where(z > 0, z, self.alpha * expm1_below(z / self.alpha))
        return a, a

    def backward(self, params, a, da):
        return da * namespace(a).where(a > 0, 1, a / self.alpha + 1)


@dataclass(frozen=True)
class Selu(Activation):
    """a = λz if z > 0 else λα (eᶻ − 1)        dz = λδ if z > 0 else δ (a + λα)        range (−λα, ∞)

    With λ = 1.0507… and α = 1.6733… the mean 0 and variance 1 of a layer's inputs are kept, for weights drawn by
    `LecunNormal`. The derivative at 0 is λα.

    Source: G. Klambauer et al., "Self-normalizing neural networks" (2017), eq. 2 and the constants of §2.

    >>> Selu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.11133074,  0.        ,  2.10140197]])
    """

    scale: ClassVar[float] = 1.0507009873554804934193349852946
    alpha: ClassVar[float] = 1.6732632423543772848170429916717

    def limits(self, params):
        return -self.scale * self.alpha, math.inf

    def forward(self, params, z, key=None):
        z = floating(z)
        a = namespace(z).where(z > 0, self.scale * z, self.scale * self.alpha * expm1_below(z))
        return a, a

    def backward(self, params, a, da):
        return da * namespace(a).where(a > 0, self.scale, a + self.scale * self.alpha)


class PEluParams(NamedTuple):
    """Parameters of `PElu`: the height `alpha` and the width `beta`, each (1,) or one for each unit."""

    alpha: Any
    beta: Any


@dataclass(frozen=True)
class PElu(Learnt):
    """a = αz/β if z ≥ 0 else α (e^(z/β) − 1)        dz = δ α/β if z ≥ 0 else δ (α/β) e^(z/β)
    dα = Σ δ a/α        dβ = −Σ δ αz/β² if z ≥ 0 else −Σ δ (αz/β²) e^(z/β)        range (−α, ∞)

    An ELU that learns its height α and its width β, both positive: one of each for the layer, or for each unit. Both
    begin at 1. Nothing holds them above 0; the paper clips them at 0.1.

    Source: L. Trottier, P. Giguère, B. Chaib-draa, "Parametric exponential linear unit" (2017).

    >>> from fnn import random
    >>> layer = PElu()
    >>> params = layer.init(random.key(0, backend="numpy"), (3,))
    >>> layer.apply(params, [[-1.0, 0.0, 2.0]])
    array([[-0.63212055,  0.        ,  2.        ]], dtype=float32)
    """

    def init(self, key, input_shape, dtype=np.float32):
        return PEluParams(*(self.start(key, input_shape, dtype, 1.0) for _ in range(2)))

    def limits(self, params):
        return -params.alpha, math.inf

    def forward(self, params, z, key=None):
        alpha, beta = self.placed(params, PEluParams, z)
        z = floating(z, alpha.dtype)
        t = z / beta
        return alpha * namespace(z).where(z >= 0, t, expm1_below(t)), z

    def backward(self, params, z, da):
        alpha, beta = self.placed(params, PEluParams, z)
        return da * (alpha / beta * self._rise(z, beta))

    def per_example_gradient(self, params, z, da):
        alpha, beta = self.placed(params, PEluParams, z)
        t, rise = z / beta, self._rise(z, beta)
        of_alpha = namespace(z).where(z >= 0, t, expm1_below(t))
        return PEluParams(self.of_example(da * of_alpha), self.of_example(-da * (alpha / beta) * t * rise))

    def _rise(self, z, beta):
        """1 where z ≥ 0, else e^(z/β)."""
        xp = namespace(z)
        return xp.exp(xp.where(z >= 0, 0, z / beta))


@dataclass(frozen=True)
class Isrlu(Activation):
    """a = z if z ≥ 0 else z r        dz = δ if z ≥ 0 else δ r³        r = 1 / √(1 + αz²)        range (−1/√α, ∞)

    An ELU without an exponential. α is `alpha`, greater than 0.

    Source: B. Carlile et al., "Improving deep learning by inverse square root linear units" (2017).

    >>> Isrlu().apply((), [[-1.0, 0.0, 2.0]])
    array([[-0.70710678,  0.        ,  2.        ]])
    """

    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        real("alpha", self.alpha, above=0)

    def limits(self, params):
        return -1 / math.sqrt(self.alpha), math.inf

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        below = xp.where(z >= 0, 0, z)
        r = 1 / xp.sqrt(1 + self.alpha * below * below)  # 1 where z ≥ 0
        return z * r, r

    def backward(self, params, r, da):
        return da * (r * r * r)


@dataclass(frozen=True)
class Softplus(Activation):
    """a = log(1 + eᶻ)        dz = δ σ(z)        range (0, ∞)

    The smooth ramp: its derivative is the logistic function.

    Source: C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing" (2001).

    >>> Softplus().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.31326169, 0.69314718, 2.12692801]])
    """

    def limits(self, params):
        return 0, math.inf

    def forward(self, params, z, key=None):
        z = floating(z)
        return softplus(z), z

    def backward(self, params, z, da):
        return da * logistic(z)


@dataclass(frozen=True)
class Squareplus(Activation):
    """a = (z + √(z² + b)) / 2        dz = δ a / √(z² + b)        range (0, ∞)

    A smooth ramp without an exponential; b, greater than 0, is the size of its bend. Where z < 0 it is computed as
    b / (2 (√(z² + b) − z)), which keeps its digits far out.

    Source: J. Barron, "Squareplus: a Softplus-like algebraic rectifier" (2021), eq. 1.

    >>> Squareplus().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.61803399, 1.        , 2.41421356]])
    """

    b: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        real("b", self.b, above=0)

    def limits(self, params):
        return 0, math.inf

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        root = xp.sqrt(z * z + self.b)
        far = root + magnitude(z)
        a = 0.5 * xp.where(z >= 0, far, self.b / far)
        return a, (a, root)

    def backward(self, params, residuals, da):
        a, root = residuals
        return da * (a / root)


@dataclass(frozen=True)
class LogSigmoid(Activation):
    """a = log σ(z) = −log(1 + e⁻ᶻ)        dz = δ σ(−z)        range (−∞, 0)

    The log-probability of a sigmoid; for training prefer `SigmoidBinaryCrossEntropy`, which takes z itself.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eqs. 4.59 and 4.60.

    >>> LogSigmoid().apply((), [[-1.0, 0.0, 2.0]])
    array([[-1.31326169, -0.69314718, -0.12692801]])
    """

    def limits(self, params):
        return -math.inf, 0

    def forward(self, params, z, key=None):
        z = floating(z)
        return -softplus(-z), z

    def backward(self, params, z, da):
        return da * logistic(-z)


class SoftExponentialParams(NamedTuple):
    """Parameters of `SoftExponential`: `alpha`, (1,) or one for each unit."""

    alpha: Any


@dataclass(frozen=True)
class SoftExponential(Learnt):
    """a = −log(1 − α(z + α)) / α if α < 0; z if α = 0; (e^(αz) − 1) / α + α if α > 0
    dz = δ / (1 − α(z + α)) if α < 0; δ if α = 0; δ e^(αz) if α > 0        dα = Σ δ ∂a/∂α
    ∂a/∂α = (z + α)² (1/u + (log u + v) / v²) + 1/u if α < 0, with v = α(z + α), u = 1 − v
    ∂a/∂α = z² (1 + (αz − 1) e^(αz)) / (αz)² + 1 if α ≥ 0, and z²/2 + 1 at 0
    range (−∞, ∞) if α ≤ 0, else (α − 1/α, ∞)

    A curve that learns whether to be a logarithm, a line or an exponential: one α for the layer, or for each unit. It
    begins at `alpha`, 0 by default. Where α < 0 it is defined for z > 1/α − α alone, and is NaN elsewhere; where
    α > 0 it grows as an exponential, and overflows as one.

    Source: L. Godfrey, M. Gashler, "A continuum among logarithmic, linear, and exponential functions" (2015), eq. 1.

    >>> from fnn import random
    >>> layer = SoftExponential()
    >>> params = layer.init(random.key(0, backend="numpy"), (3,))
    >>> layer.apply(params, [[-1.0, 0.0, 2.0]])
    array([[-1.,  0.,  2.]], dtype=float32)
    """

    alpha: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        real("alpha", self.alpha)

    def init(self, key, input_shape, dtype=np.float32):
        return SoftExponentialParams(self.start(key, input_shape, dtype, self.alpha))

    def limits(self, params):
        xp, alpha = namespace(params.alpha), params.alpha
        return xp.where(alpha > 0, alpha - 1 / xp.where(alpha > 0, alpha, 1), -math.inf), math.inf

    def forward(self, params, z, key=None):
        alpha = self.placed(params, SoftExponentialParams, z).alpha
        z = floating(z, alpha.dtype)
        xp, (w, v, t) = namespace(z), self._terms(alpha, z)
        logarithm = w * _small(v, 0.1, lambda v: -xp.log1p(-v) / v, [1 / (k + 1) for k in range(16)])
        exponential = z * _small(t, 0.5, lambda t: xp.expm1(t) / t, [1 / math.factorial(k + 1) for k in range(15)])
        return xp.where(alpha < 0, logarithm, exponential + alpha), z

    def backward(self, params, z, da):
        alpha = self.placed(params, SoftExponentialParams, z).alpha
        xp, (_, v, t) = namespace(z), self._terms(alpha, z)
        return da * xp.where(alpha < 0, 1 / (1 - v), xp.exp(t))

    def per_example_gradient(self, params, z, da):
        alpha = self.placed(params, SoftExponentialParams, z).alpha
        xp, (w, v, t) = namespace(z), self._terms(alpha, z)
        series = [1 / (math.factorial(k) * (k + 2)) for k in range(14)]
        exponential = z * z * _small(t, 0.5, lambda t: (1 + (t - 1) * xp.exp(t)) / t**2, series) + 1
        series = [-1 / (k + 2) for k in range(16)]
        logarithm = w * w * (1 / (1 - v) + _small(v, 0.1, lambda v: (xp.log1p(-v) + v) / v**2, series)) + 1 / (1 - v)
        return SoftExponentialParams(self.of_example(da * xp.where(alpha < 0, logarithm, exponential)))

    def _terms(self, alpha, z):
        """w = z + α, v = αw and t = αz, of which each branch sees its own, and 0 where it is not taken."""
        xp, w = namespace(z), z + alpha
        return w, xp.where(alpha < 0, alpha * w, 0), xp.where(alpha < 0, 0, alpha * z)


def _small(t, limit, formula, series):
    """The formula, or near 0, where it would lose its digits, its power series: a polynomial in t."""
    xp = namespace(t)
    near = (t < limit) & (t > -limit)
    inner, total = xp.where(near, t, 0), 0.0
    for coefficient in reversed(series):
        total = total * inner + coefficient
    return xp.where(near, total, formula(xp.where(near, 1.0 * limit, t)))

"""Activations: each one's formula and its derivative side by side.

a = σ(z), applied to each entry (softmax: to each row); z, a and δ = ∂L/∂a are (N, ...), and δ_below = δ ⊙ σ'(z). What a
derivative needs is kept as the residual: a itself where σ' is a formula of a, else z. At a kink the derivative is the
documented one, which is that of `jax.nn`.
"""

from dataclasses import dataclass
from typing import ClassVar

from .backend import floating, namespace
from .errors import real
from .layers import Layer


@dataclass(frozen=True)
class Activation(Layer):
    """A layer without parameters that keeps the shape and never draws: `forward` and `backward` are all of it."""

    draws: ClassVar[bool] = False


@dataclass(frozen=True)
class Identity(Activation):
    """a = z        dz = δ        range (−∞, ∞)"""

    def forward(self, params, z, key=None):
        return z, ()

    def backward(self, params, residuals, da):
        return da


@dataclass(frozen=True)
class Relu(Activation):
    """a = max(0, z)        dz = δ [z > 0]        range [0, ∞)

    The derivative at 0 is 0. V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).

    >>> Relu().apply((), [[-2.0, 3.0]])
    array([[0., 3.]])
    """

    def forward(self, params, z, key=None):
        a = namespace(z).where(z <= 0, 0, z)  # maximum(z, 0) would have the derivative ½ at 0
        return a, a

    def backward(self, params, a, da):
        return namespace(a).where(a > 0, da, 0)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """a = z if z ≥ 0 else αz        dz = δ if z ≥ 0 else αδ        range (−∞, ∞)

    α is `slope`, 0.01 by default; the derivative at 0 is 1. A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities
    improve neural network acoustic models" (2013).
    """

    slope: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        real("slope", self.slope)

    def forward(self, params, z, key=None):
        z = floating(z)
        return self._bent(z, z), z

    def backward(self, params, z, da):
        return self._bent(z, da)

    def _bent(self, z, value):
        return namespace(z).where(z >= 0, value, self.slope * value)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """a = 1 / (1 + e⁻ᶻ)        dz = δ a (1 − a)        range (0, 1)

    The logistic function; its derivative is greatest, ¼, at 0. D. Rumelhart, G. Hinton, R. Williams, "Learning
    representations by back-propagating errors" (1986).
    """

    def forward(self, params, z, key=None):
        a = logistic(floating(z))
        return a, a

    def backward(self, params, a, da):
        return da * (a * (1 - a))


@dataclass(frozen=True)
class Tanh(Activation):
    """a = tanh z        dz = δ (1 − a²)        range (−1, 1)

    tanh z = 2σ(2z) − 1 with the logistic σ. Y. LeCun et al., "Efficient BackProp" (1998), §4.4.
    """

    def forward(self, params, z, key=None):
        a = namespace(z).tanh(floating(z))
        return a, a

    def backward(self, params, a, da):
        return da * (1 - a * a)


@dataclass(frozen=True)
class Softmax(Activation):
    """aᵢ = eᶻⁱ / Σⱼ eᶻʲ        dzᵢ = aᵢ (δᵢ − Σⱼ δⱼ aⱼ)        range (0, 1), rows sum to 1

    Over the last axis. For training prefer logits and `SoftmaxCrossEntropy`, which is this layer and the cost in one,
    stable and cheaper. J. Bridle, "Probabilistic interpretation of feedforward classification network outputs" (1990).
    """

    def forward(self, params, z, key=None):
        xp, z = namespace(z), floating(z)
        e = xp.exp(
            z - z.max(axis=-1, keepdims=True)
        )  # softmax(z) = softmax(z − c), and this c keeps e from overflowing
        a = e / e.sum(axis=-1, keepdims=True)
        return a, a

    def backward(self, params, a, da):
        return a * (da - (da * a).sum(axis=-1, keepdims=True))


def logistic(z):
    """1 / (1 + e⁻ᶻ) without overflow: e^−|z| is at most 1."""
    xp = namespace(z)
    e = xp.exp(xp.where(z >= 0, -z, z))
    return xp.where(z >= 0, 1, e) / (1 + e)

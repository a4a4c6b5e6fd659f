"""Activations of the outputs of an example together: a distribution over the last axis, and its logarithm."""

import math
from dataclasses import dataclass

from ..backend import floating, namespace
from ..errors import ShapeError, real
from ..numerics import exponentials
from .base import Activation


@dataclass(frozen=True)
class Softmax(Activation):
    """aᵢ = e^(zᵢ/T) / Σⱼ e^(zⱼ/T)        dzᵢ = aᵢ (δᵢ − Σⱼ δⱼ aⱼ) / T        range (0, 1), rows sum to 1

    Over the last axis. T is `temperature`, 1 by default, greater than 0: the larger, the more even the row. For
    training prefer logits and `SoftmaxCrossEntropy`, which is this layer and the cost in one, stable and cheaper.

    Source: J. Bridle, "Probabilistic interpretation of feedforward classification network outputs" (1990).

    >>> Softmax().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.04201007, 0.1141952 , 0.84379473]])
    """

    temperature: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        real("temperature", self.temperature, above=0)

    def limits(self, params):
        return 0, 1

    def forward(self, params, z, key=None):
        _, e, total = exponentials(rows_of(z), self.temperature)
        a = e / total
        return a, a

    def backward(self, params, a, da):
        return a * (da - (da * a).sum(axis=-1, keepdims=True)) * (1 / self.temperature)


@dataclass(frozen=True)
class LogSoftmax(Activation):
    """aᵢ = zᵢ/T − log Σⱼ e^(zⱼ/T)        dzᵢ = (δᵢ − pᵢ Σⱼ δⱼ) / T        p = eᵃ        range (−∞, 0]

    Over the last axis: the logarithm of `Softmax`, without its underflow. T is `temperature`, 1 by default.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eq. 4.62; temperature: G. Hinton, O. Vinyals,
    J. Dean, "Distilling the knowledge in a neural network" (2015), eq. 1.

    >>> LogSoftmax().apply((), [[-1.0, 0.0, 2.0]])
    array([[-3.16984602, -2.16984602, -0.16984602]])
    """

    temperature: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        real("temperature", self.temperature, above=0)

    def limits(self, params):
        return -math.inf, 0

    def forward(self, params, z, key=None):
        shifted, e, total = exponentials(rows_of(z), self.temperature)
        return shifted - namespace(z).log(total), e / total

    def backward(self, params, p, da):
        return (da - p * da.sum(axis=-1, keepdims=True)) * (1 / self.temperature)


def rows_of(z):
    """z as floating point, if it has an axis besides that of the examples, which must not be mixed."""
    if z.ndim < 2:
        raise ShapeError(f"expected input of shape (N, ..., K), got {z.shape}")
    return floating(z)

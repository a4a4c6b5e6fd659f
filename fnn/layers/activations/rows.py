"""Activations of the outputs of an example together: a distribution over the last axis, and its logarithm."""

import math
from dataclasses import dataclass
from typing import Annotated

from ...backend import floating, namespace
from ...numerics import exponentials
from ...static import Interval
from ..base import symmetric
from ..normalization import with_last_axis
from .base import Activation


@dataclass(frozen=True)
class Softmax(Activation):
    """aᵢ = e^(zᵢ/T) / Σⱼ e^(zⱼ/T)        dzᵢ = aᵢ (δᵢ − Σⱼ δⱼ aⱼ) / T        range (0, 1), rows sum to 1

    z, a, δ (N, ..., K), i and j along the last axis

    For training prefer logits and `SoftmaxCrossEntropy`, which is this layer and the cost in one, stable and cheaper.

    Args:
        temperature: T, greater than 0: the larger, the more even the row. Default: 1.

    Source: J. Bridle, "Probabilistic interpretation of feedforward classification network outputs" (1990).

    >>> Softmax().apply((), [[-1.0, 0.0, 2.0]])
    array([[0.04201007, 0.1141952 , 0.84379473]])
    """

    temperature: Annotated[float, Interval("(0, ∞)")] = 1.0

    def limits(self, params):
        return 0, 1

    def output_shape(self, input_shape):
        return with_last_axis(super().output_shape(input_shape))

    def forward(self, params, z, key=None):
        _, e, total = exponentials(floating(z), self.temperature)
        a = e / total
        return a, a

    def backward(self, params, a, da):
        return a * (da - (da * a).sum(axis=-1, keepdims=True)) * (1 / self.temperature)

    tangent = symmetric


@dataclass(frozen=True)
class LogSoftmax(Activation):
    """aᵢ = zᵢ/T − log Σⱼ e^(zⱼ/T)        dzᵢ = (δᵢ − pᵢ Σⱼ δⱼ) / T        p = eᵃ        range (−∞, 0]

    z, a, p, δ (N, ..., K), i and j along the last axis        daᵢ = (dzᵢ − Σⱼ pⱼ dzⱼ) / T, along a direction

    The logarithm of `Softmax`, without its underflow.

    Args:
        temperature: T, greater than 0. Default: 1.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eq. 4.62; temperature: G. Hinton, O. Vinyals,
    J. Dean, "Distilling the knowledge in a neural network" (2015), eq. 1.

    >>> LogSoftmax().apply((), [[-1.0, 0.0, 2.0]])
    array([[-3.16984602, -2.16984602, -0.16984602]])
    """

    temperature: Annotated[float, Interval("(0, ∞)")] = 1.0

    def limits(self, params):
        return -math.inf, 0

    def output_shape(self, input_shape):
        return with_last_axis(super().output_shape(input_shape))

    def forward(self, params, z, key=None):
        shifted, e, total = exponentials(floating(z), self.temperature)
        return shifted - namespace(z).log(total), e / total

    def backward(self, params, p, da):
        return (da - p * da.sum(axis=-1, keepdims=True)) * (1 / self.temperature)

    def tangent(self, params, p, dparams, dx):
        return None if dx is None else (dx - (p * dx).sum(axis=-1, keepdims=True)) * (1 / self.temperature)

"""What activations share: the two bases, and σ(z) and log(1 + eᶻ) without overflow."""

from dataclasses import dataclass, field
from typing import ClassVar

from .. import trees
from ..backend import namespace
from ..initializers import Constant
from ..layers import Layer


@dataclass(frozen=True)
class Activation(Layer):
    """A layer without parameters that keeps the shape and never draws: `forward` and `backward` are all of it."""

    draws: ClassVar[bool] = False


@dataclass(frozen=True)
class Learnt(Activation):
    """An activation with parameters of its own: of each one for the layer, (1,), or one for each unit.

    It defines `per_example_gradient`, and the gradient is the sum of that over the examples.
    """

    per_unit: bool = field(default=False, kw_only=True)

    def gradient(self, params, residuals, deltas):
        return trees.map(lambda g: g.sum(axis=0), self.per_example_gradient(params, residuals, deltas))

    def start(self, key, input_shape, dtype, value):
        """A parameter that begins at this value."""
        shape = self.output_shape(input_shape)
        return Constant(value)(key, shape if self.per_unit else (1,), dtype)

    def of_example(self, gradients):
        """The gradient of each example, (N, *the parameter's shape), from that of each unit, (N, ...)."""
        return gradients if self.per_unit else gradients.reshape(len(gradients), -1).sum(axis=1, keepdims=True)


def magnitude(z):
    """|z|; for complex z whose imaginary part is a small step, as a complex step needs it."""
    return namespace(z).where(z >= 0, z, -z)


def logistic(z):
    """σ(z) = 1 / (1 + e⁻ᶻ) without overflow: e^−|z| is at most 1."""
    xp = namespace(z)
    e = xp.exp(-magnitude(z))
    return xp.where(z >= 0, 1, e) / (1 + e)


def softplus(z):
    """log(1 + eᶻ) = max(z, 0) + log(1 + e^−|z|), without overflow."""
    xp = namespace(z)
    return xp.where(z >= 0, z, 0) + xp.log1p(xp.exp(-magnitude(z)))

"""What activations share: their two bases."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .. import trees
from ..errors import ShapeError, same_shape
from ..initializers import Constant
from ..layers import Layer


@dataclass(frozen=True)
class Activation(Layer):
    """A layer without parameters that keeps the shape and never draws: `forward` and `backward` are all of it."""

    draws: ClassVar[bool] = False

    def limits(self, params) -> tuple[Any, Any]:
        """The values at which it levels off and passes no error on, for z → −∞ and z → ∞; infinite where it does not.

        What `fnn.diagnostics` calls saturated is near one of them.
        """
        return -math.inf, math.inf


@dataclass(frozen=True)
class Learnt(Activation):
    """An activation with parameters of its own: of each one for the layer, (1,), or one for each unit, (units,).

    It defines `per_example_gradient`, and the gradient is the sum of that over the examples.
    """

    per_unit: bool = field(default=False, kw_only=True)

    def gradient(self, params, residuals, deltas):
        return trees.map(lambda g: g.sum(axis=0), self.per_example_gradient(params, residuals, deltas))

    def start(self, key, input_shape, dtype, value):
        """A parameter that begins at this value."""
        units = math.prod(self.output_shape(input_shape)) if self.per_unit else 1
        return Constant(value)(key, (units,), dtype)

    def placed(self, params, kind, z):
        """The parameters, checked to be of this kind and size, each shaped so that it meets its units in z (N, ...)."""
        if not isinstance(params, kind):
            raise ShapeError(f"expected {kind.__name__}, got {trees.outline(params)}")
        units = math.prod(z.shape[1:]) if self.per_unit else 1
        for name, values in params._asdict().items():
            same_shape(f"{kind.__name__}.{name} for input of shape {z.shape}", values, (units,))
        return trees.map(lambda values: values.reshape(z.shape[1:]), params) if self.per_unit else params

    def of_example(self, gradients):
        """The gradient of each example, (N, units) or (N, 1), from that of each entry of z, (N, ...)."""
        flat = gradients.reshape(len(gradients), math.prod(gradients.shape[1:]))
        return flat if self.per_unit else flat.sum(axis=1, keepdims=True)

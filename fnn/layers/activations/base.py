"""What activations share: their bases."""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ... import trees
from ...backend import floating
from ...errors import KindError
from ...initializers import Constant
from ...numerics import kept, nan_of
from ..base import Layer, added, symmetric


@dataclass(frozen=True)
class Activation(Layer):
    """Base of the layers that keep the shape, have no parameters and never draw random numbers."""

    draws: ClassVar[bool] = False

    def init(self, key, input_shape, /, dtype: Any = np.float32) -> Any:
        self.output_shape(input_shape)
        return ()

    def limits(self, params) -> tuple[Any, Any]:
        """The values at which it levels off and passes no error on, for z → −∞ and z → ∞; infinite where it does not.

        `fnn.diagnostics` calls outputs near one of them saturated.
        """
        return -math.inf, math.inf


@dataclass(frozen=True)
class Elementwise(Activation):
    """Base of the activations that are a function of each entry and its derivative, and nothing else.

        a = f(z)        dz = δ ⊙ f'(z)        da = f'(z) ⊙ dz, along a direction        z, a, δ (N, ...)

    A subclass defines `function` and `derivative`. The argument of `derivative` says what is kept for the backward
    pass: named `a` it is the output, named `z` the input. Prefer the output where f' is a formula of it, since the
    layer above keeps that array anyway. A derivative that is 0 or 1 may be a mask, an array of bool. Where what is
    kept is NaN, so is the error that a mask passes on.

    >>> @dataclass(frozen=True)
    ... class Exponential(Elementwise):
    ...     def function(self, z):
    ...         return np.exp(z)
    ...
    ...     def derivative(self, a):
    ...         return a
    >>> Exponential().apply((), [[0.0, 1.0]])
    array([[1.        , 2.71828183]])
    """

    _keeps_output: ClassVar[bool]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "function" in own and "derivative" not in own:
            raise KindError(f"{cls.__name__}: expected a method `derivative` beside its own `function`")
        if "derivative" in own:
            names = list(inspect.signature(own["derivative"]).parameters)[1:]
            if names not in (["a"], ["z"]):
                raise KindError(
                    f"{cls.__name__}.derivative: expected one argument beside self, named `a` to be given the output, "
                    f"or `z` to be given the input, got ({', '.join(names)})"
                )
            cls._keeps_output = names == ["a"]

    def function(self, z) -> Any:
        """a, entry by entry, of floating-point z (N, ...)."""
        raise NotImplementedError

    def derivative(self, a, /) -> Any:
        """da/dz, entry by entry, from a or from z, whichever the argument is named after; or a mask where it is 1."""
        raise NotImplementedError

    def forward(self, params, z, key=None):
        z = floating(z)
        a = self.function(z)
        return a, a if self._keeps_output else z

    def backward(self, params, residual, da):
        slope = self.derivative(residual)
        return nan_of(residual, kept(da, slope)) if getattr(slope, "dtype", None) == np.bool_ else da * slope

    tangent = symmetric


@dataclass(frozen=True)
class Learnt(Activation):
    """Base of the activations with parameters of their own: one number each, (1,), or one for each unit, (units,).

        dz = δ ⊙ ∂a/∂z        dθₙ = Σ δₙ ⊙ ∂aₙ/∂θ        da = ∂a/∂z ⊙ dz + ∂a/∂θ ⊙ dθ, along a direction

    A subclass defines `forward`, `backward` and `partials`, and declares beside them that
    `factors, tangent = learnt_factors, learnt_tangent`.

    Args:
        per_unit: whether each unit has parameters of its own. Default: False.
    """

    per_unit: bool = field(default=False, kw_only=True)

    def partials(self, params, residuals, /) -> Any:
        """∂a/∂θ of each entry, nested as the parameters, each leaf shaped as z (N, ...)."""
        raise NotImplementedError

    def start(self, key, input_shape, dtype, value):
        """A parameter that begins at this value."""
        units = math.prod(self.output_shape(input_shape)) if self.per_unit else 1
        return Constant(value)(key, (units,), dtype)

    def placed(self, values, z):
        """A parameter shaped so that it meets its units in z (N, ...)."""
        return values.reshape(z.shape[1:]) if self.per_unit else values

    def of_example(self, entries):
        """The sum over what shares a parameter: of entries (N, ...), (N, units) or (N, 1)."""
        flat = entries.reshape(entries.shape[0], math.prod(entries.shape[1:]))
        return flat if self.per_unit else flat.sum(axis=1, keepdims=True)


def learnt_factors(self, params, residuals, delta):
    """The gradient of each example, of an activation that defines `partials`."""
    return trees.map(lambda partial: self.of_example(delta * partial), self.partials(params, residuals))


def learnt_tangent(self, params, residuals, dparams, dx):
    """The tangent of an activation that defines `partials`."""
    by_z = None if dx is None else self.backward(params, residuals, dx)
    if dparams is None or all(direction is None for direction in dparams):
        return by_z
    pairs = zip(self.partials(params, residuals), dparams, strict=True)
    return added(by_z, *(None if v is None else partial * self.placed(v, partial) for partial, v in pairs))

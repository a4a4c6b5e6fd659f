"""Penalties on the parameters: what a cost adds for large weights, and the derivative of that."""

from typing import Any, NamedTuple

from .. import trees
from ..backend import namespace
from ..numerics import absolute


class L2(NamedTuple):
    """R = ½ λ Σ w²        ∂R/∂w = λ w

    Weight decay: a normal prior on the weights. λ is `coefficient`: a number applies to the weights, that is to
    parameters of two or more axes, and leaves biases and what is `Frozen` alone; a tree of numbers over the upper part
    of the parameters' tree says it for each that is not frozen.

    >>> import numpy as np
    >>> L2(0.5).value((np.array([[2.0]]), np.array([7.0])))
    np.float64(1.0)
    """

    coefficient: Any

    def value(self, params):
        terms = trees.map(lambda c, w: 0.5 * c * (w * w).sum(), _coefficients(self, params), params)
        return sum(trees.leaves(terms))

    def gradient(self, params):
        return trees.map(lambda c, w: c * w, _coefficients(self, params), params)


class L1(NamedTuple):
    """R = λ Σ |w|        ∂R/∂w = λ sign w, 0 at 0

    Drives weights to exactly 0 in the limit: a Laplace prior. `coefficient` is as for `L2`.

    >>> import numpy as np
    >>> L1(0.5).value((np.array([[2.0, -3.0]]), np.array([7.0])))
    np.float64(2.5)
    """

    coefficient: Any

    def value(self, params):
        terms = trees.map(lambda c, w: c * absolute(w).sum(), _coefficients(self, params), params)
        return sum(trees.leaves(terms))

    def gradient(self, params):
        return trees.map(lambda c, w: c * namespace(w).sign(w), _coefficients(self, params), params)


def _coefficients(penalty, params):
    """One number for each parameter."""
    name = f"{type(penalty).__name__}.coefficient"
    if isinstance(penalty.coefficient, tuple | list | dict):
        each = trees.prefix(name, penalty.coefficient, params)
    else:
        each = trees.map(lambda w: penalty.coefficient if w.ndim > 1 else 0.0, params)
    return trees.map_learnt(lambda c: c, each, fixed=lambda c: 0.0)

"""Penalties on the parameters, added to the cost, and their derivatives."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import trees
from ..backend import at_least_float32, cast, namespace
from ..numerics import absolute
from ..static import Interval


class L2(NamedTuple):
    """R = ½ λ Σ w²        ∂R/∂w = λ w

    Weight decay: a normal prior on the weights.

    Args:
        coefficient: λ ≥ 0. A number applies to the weights, that is, to parameters with two or more axes, and not to
            biases or `Frozen` parameters. A tree of numbers, over the upper part of the parameters' tree, sets λ for
            each parameter that is not frozen.

    >>> L2(0.5).value((np.array([[2.0]]), np.array([7.0])))
    np.float64(1.0)
    """

    coefficient: Annotated[Any, Interval("[0, ∞)")]

    def value(self, params):
        return 0.5 * sum(c * _squared(_wide(w)) for c, w in _pairs(self, params))

    def gradient(self, params):
        return _each(self, params)

    def derivative(self, c, w):
        return c * w


class L1(NamedTuple):
    """R = λ Σ |w|        ∂R/∂w = λ sign w, 0 at 0

    A Laplace prior on the weights, which drives them to exactly 0 in the limit.

    Args:
        coefficient: λ ≥ 0, as for `L2`.

    >>> L1(0.5).value((np.array([[2.0, -3.0]]), np.array([7.0])))
    np.float64(2.5)
    """

    coefficient: Annotated[Any, Interval("[0, ∞)")]

    def value(self, params):
        return sum(c * absolute(_wide(w)).sum() for c, w in _pairs(self, params))

    def gradient(self, params):
        return _each(self, params)

    def derivative(self, c, w):
        return c * namespace(w).sign(w)


def _wide(w):
    """w in float32 or wider, in which squares and sums do not overflow."""
    return cast(w, at_least_float32(w.dtype))


def _squared(w):
    """Σ w²; a product of NumPy takes a third of the time, also of complex numbers, for the complex step."""
    return np.dot(w.ravel(), w.ravel()) if namespace(w) is np else (w**2).sum()


def _pairs(penalty, params):
    """λ and w of each parameter that is penalized."""
    if not isinstance(penalty.coefficient, tuple | list | dict):
        return [(penalty.coefficient, w) for w in trees.learnt(params) if w.ndim > 1]
    each = trees.prefix(f"{type(penalty).__name__}.coefficient", penalty.coefficient, params)
    return zip(trees.learnt(each), trees.learnt(params), strict=True)


def _each(penalty, params):
    """The derivative by each parameter."""
    zero, c = lambda w: penalty.derivative(0.0, w), penalty.coefficient
    if not isinstance(c, tuple | list | dict):
        return trees.map_learnt(lambda w: penalty.derivative(c if w.ndim > 1 else 0.0, w), params, fixed=zero)
    each = trees.prefix(f"{type(penalty).__name__}.coefficient", c, params)
    return trees.map_learnt(lambda w, c: penalty.derivative(c, w), params, each, fixed=zero)


def with_gradient(penalty, params, grads):
    """The gradients plus the penalty's: of one coefficient in one pass, without those that are 0."""
    c = penalty.coefficient if type(penalty) in (L1, L2) else ()
    if isinstance(c, tuple | list | dict):
        return trees.map_learnt(lambda g, p: g + cast(p, g.dtype), grads, penalty.gradient(params))
    more = lambda g, w: g + cast(penalty.derivative(c, w), g.dtype) if w.ndim > 1 else g
    return trees.map_learnt(more, grads, params)

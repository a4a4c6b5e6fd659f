"""What optimizers stand on: their states, the step itself, and the few sums that several of them share."""

from typing import Any, NamedTuple

import numpy as np

from .. import trees
from ..backend import at_least_float32, cast, namespace
from ..errors import KindError, shorten


class Count(NamedTuple):
    """State of an optimizer that remembers nothing but the number of steps."""

    count: Any


class Velocity(NamedTuple):
    """State of an optimizer with momentum: the number of steps, and v for each parameter."""

    count: Any
    velocity: Any


class Moment(NamedTuple):
    """State of Lion: the number of steps, and for each parameter the average m of g."""

    count: Any
    mu: Any


class Square(NamedTuple):
    """State of Adagrad and RMSProp: the number of steps, and for each parameter the sum or average v of g²."""

    count: Any
    nu: Any


class Moments(NamedTuple):
    """State of Adam and its kin: the number of steps, and for each parameter the averages m of g and v of g²."""

    count: Any
    mu: Any
    nu: Any


def apply_updates(params, updates):
    """params + updates, in the dtype of each parameter; read-only on NumPy. What is within `Frozen` stays as it is.

    >>> apply_updates((np.float32([1.0, 2.0]),), (np.array([0.5, -0.5]),))
    (array([1.5, 1.5], dtype=float32),)
    """
    return trees.map_learnt(lambda p, u: trees.locked(p + cast(u, p.dtype)), params, updates)


def zero(params):
    """The count of no steps, where the parameters are."""
    return namespace(*trees.leaves(params)).zeros((), np.int32)[()]


def zeros(params):
    """A moment of each parameter. Call it once for each moment: one tree used twice could not be donated by JAX."""
    return trees.map(lambda p: namespace(p).zeros(p.shape, at_least_float32(p.dtype)), params)


def like(updates, grads, params=None):
    """Each update in the dtype of its parameter."""
    return trees.map(lambda u, w: cast(u, w.dtype), updates, grads if params is None else params)


def now(learning_rate, count) -> Any:
    """The learning rate of this step."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def average(b, m, g):
    """b m + (1 − b) g, in the dtype of m."""
    return cast(b * m + (1 - b) * g, m.dtype)


def widen(grads, moments):
    """Each gradient in the dtype of its moment."""
    return trees.map(lambda g, m: cast(g, m.dtype), grads, moments)


def one_minus_power(b, t):
    """1 − bᵗ to full accuracy: subtracted in float32, it would keep three digits for b = 0.999 and t = 1."""
    xp = namespace(t, b)
    return -xp.expm1(t.astype(np.float32) * xp.log(xp.maximum(b, 1e-37)))


def decayed(updates, params, weight_decay, rate_of, name):
    """u − η λ w for each parameter that is learnt; λ is a number, or a tree of numbers over a prefix of `params`."""
    decay = trees.prefix(f"{name}.weight_decay", weight_decay, params)
    return trees.map_learnt(lambda u, w, d: u - rate_of(w) * d * w, updates, params, decay)


def is_optimizer(thing):
    """Whether it has the two methods; a class of optimizers is none."""
    methods = (getattr(thing, "init", None), getattr(thing, "update", None))
    return not isinstance(thing, type) and all(callable(method) for method in methods)


def require_optimizer(place, thing):
    """Raises unless it is an optimizer."""
    if isinstance(thing, type):
        raise KindError(f"{place}: expected an optimizer, got the class; write {thing.__name__}(...)")
    if not is_optimizer(thing):
        raise KindError(f"{place}: expected one with methods init and update, such as fnn.Adam(), got {shorten(thing)}")


def each(f, place, optimizers, params, *rest) -> Any:
    """The tree of `f(place, optimizer, its part of params, ...)`, for each end of a tree that begins as `params`."""

    def checked(place, optimizer, *parts):
        if optimizer is not None:
            require_optimizer(place, optimizer)
        return f(place, optimizer, *parts)

    def is_end(node):
        return not isinstance(node, tuple | list | dict) or is_optimizer(node)

    return trees.over_prefix(checked, is_end, "an optimizer, None,", place, optimizers, params, *rest)

"""The foundation of the optimizers: an optimizer's formula is written for one array, and `lift` makes it one for trees.

g is the gradient, w the parameter, both of one array, and m, v, … are its moments: what the optimizer remembers of it.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import trees
from ..backend import Held, Record, at_least_float32, cast, is_jax, namespace
from ..errors import KindError, shorten
from ..numerics import root as root
from ..static import Interval

# Hyperparameters are annotated as Any, since a number, an array of one number and a tracer all serve.
Fraction = Annotated[Any, Interval("[0, 1)")]
NonNegative = Annotated[Any, Interval("[0, ∞)")]
Positive = Annotated[Any, Interval("(0, ∞)")]

# ---- states ----------------------------------------------------------------------------------------------------------


class Count(NamedTuple):
    """State of an optimizer that remembers only the number of steps."""

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
    """State of Adam and its variants: the number of steps, and for each parameter the averages m of g and v of g²."""

    count: Any
    mu: Any
    nu: Any


# ---- from one array to trees -----------------------------------------------------------------------------------------


def lift(step: Callable, state: type, start: Callable | None = None) -> tuple[Callable, Callable]:
    """`init` and `update` for whole trees, made from a formula for one array.

        class Momentum(NamedTuple):
            learning_rate: Any
            momentum: Any = 0.9

            def step(self, t):
                def formula(g, w, v):
                    v = self.momentum * v - self.learning_rate * g
                    return v, v  # the update, which is added to w, and the new moment

                return formula

            init, update = lift(step, Velocity)

    Within `step` each hyperparameter is a plain number: a schedule has been called on the number of steps taken so far,
    and of a tree of weight decays it is the number of this array. What does not depend on the array, such as the bias
    corrections of Adam, is computed in `step`, outside the formula. A formula needs no casts: g and w arrive in float32
    or wider, the update leaves in the dtype of the parameter and each moment in its own. A parameter within
    `trees.Fixed` gets a zero update, and its moments stay as they are.

    Args:
        step: `step(self, t)` returns `formula(g, w, *moments) -> (update, *moments)`. t is the number of this step,
            counted from 1, as a float32 or wider; w is None where `update` is called without params.
        state: the NamedTuple class of the state: `count`, then one field for each moment.
        start: `start(self, w)` returns the first moments of a parameter; default zeros.

    Returns:
        The methods `init(params)` and `update(grads, opt_state, params=None)`, with Optax's signatures.

    >>> class SignDescent(NamedTuple):
    ...     learning_rate: Any
    ...
    ...     def step(self, t):
    ...         return lambda g, w: (-self.learning_rate * np.sign(g),)
    ...
    ...     init, update = lift(step, Count)
    >>> optimizer, params = SignDescent(0.5), (np.array([1.0, 2.0]),)
    >>> optimizer.update((np.array([3.0, -4.0]),), optimizer.init(params))
    ((array([-0.5,  0.5]),), Count(count=np.int32(1)))
    """
    n_moments = len(state._fields) - 1  # type: ignore[attr-defined]

    def init(self, params):
        """The state before the first step."""

        def moment(i):
            return zeros(params) if start is None else trees.map(lambda w, f=start: f(self, w)[i], params)

        return state(zero(params), *[moment(i) for i in range(n_moments)])

    def update(self, grads, opt_state, params=None):
        """The updates, which are added to the parameters, and the next state."""
        count, *moments = own_state(self, opt_state, state)
        like = grads if params is None else params
        optimizer, decaying, formulas = at_step(self, count, like), "weight_decay" in self._fields, {}

        def new_formula(dtype, decay):
            """The formula for arrays of this dtype and weight decay, and the dtype in which it computes."""
            numbers, wide = optimizer._replace(weight_decay=decay) if decaying else optimizer, at_least_float32(dtype)
            return step(numbers, cast(count + 1, wide)), wide

        def formula_for(dtype, decay=None):
            key = (dtype, id(decay)) if decaying else dtype
            if key not in formulas:
                formulas[key] = new_formula(dtype, decay)
            return formulas[key]

        def stateless(g, w):
            if isinstance(g, trees.Fixed):
                return trees.map(no_update, w)
            dtype = w.dtype
            formula, wide = formulas.get(dtype) or formula_for(dtype)
            if dtype != wide:
                w = cast(w, wide)
            (update,) = formula(g if g.dtype == wide else g.astype(wide), None if params is None else w)
            return update if update.dtype == dtype else update.astype(dtype)

        def of_one_array(g, w, *moments):
            if isinstance(g, trees.Fixed):
                return trees.map(no_update, w), *moments[:n_moments]
            decay = None
            if decaying:
                *moments, decay = moments
            formula, wide = formula_for(w.dtype, decay)
            update, *new = formula(cast(g, wide), None if params is None else cast(w, wide), *moments)
            return cast(update, w.dtype), *[cast(m, old.dtype) for m, old in zip(new, moments, strict=True)]

        if n_moments + decaying == 0:
            return trees.map(stateless, grads, like, is_leaf=trees.is_fixed), state(count + 1)
        decays = [spread_decay(self, params)] if decaying else []
        updates, *moments = _map_to_several(1 + n_moments, of_one_array, grads, like, *moments, *decays)
        return updates, state(count + 1, *moments)

    return init, update


def own_state(optimizer, opt_state, state):
    """The state itself; raises unless it has the fields of this class of states."""
    if getattr(opt_state, "_fields", None) != state._fields:
        raise another_optimizers(optimizer, opt_state, state.__name__)
    return opt_state


def another_optimizers(optimizer, opt_state, expected) -> KindError:
    """The error to raise for a state that was made for another optimizer."""
    name = type(optimizer.thing if isinstance(optimizer, Held) else optimizer).__name__
    return KindError(
        f"{name}: expected its own state, {expected}, got that of another optimizer, "
        f"{trees.outline(opt_state)[:100]}; fnn.init_state(net, optimizer, key, shape, params=state.params) makes one"
    )


def at_step(optimizer, count, params):
    """The optimizer with this step's number in place of each schedule, in float64 if a parameter is.

    `prepare` has made arrays of a schedule's numbers; in a loop of one's own they may still be Python's.
    """
    if not any(map(callable, optimizer)):
        return optimizer
    double = any(w.dtype == np.float64 for w in trees.leaves(params))

    def number(schedule):
        if double and isinstance(schedule, tuple | Record):
            schedule = trees.map(lambda n: np.float64(n) if isinstance(n, float) else n, schedule)
        return schedule(count)

    return optimizer._replace(**{name: number(f) for name, f in optimizer._asdict().items() if callable(f)})


def spread_decay(optimizer, params):
    """The weight decay of each parameter, from a number or a tree of numbers over a prefix of `params`."""
    if params is None:
        raise KindError(f"{type(optimizer).__name__}.update: expected params, which the weight decay needs, got None")
    return trees.prefix(f"{type(optimizer).__name__}.weight_decay", optimizer.weight_decay, params)


def _map_to_several(n, f, tree, *rest):
    """`trees.map` of a function with n results, in one pass: n trees. A node `Fixed` is one leaf."""
    if hasattr(tree, "dtype") or isinstance(tree, trees.Fixed):
        return f(tree, *rest)
    if not isinstance(tree, (tuple, list)):  # a dict, None, or a node of another library
        results = trees.map(lambda *leaves: _Results(f(*leaves)), tree, *rest, is_leaf=trees.is_fixed)
        return [trees.map(lambda leaf: leaf.values[i], results) for i in range(n)]  # noqa: B023 - called at once
    rows = [
        f(*branches) if hasattr(branches[0], "dtype") else _map_to_several(n, f, *branches)
        for branches in zip(tree, *rest, strict=True)
    ]
    columns = zip(*rows, strict=True) if rows else [()] * n
    return [list(column) if isinstance(tree, list) else tuple.__new__(type(tree), column) for column in columns]


class _Results:
    """The results for one leaf, as a leaf."""

    def __init__(self, values):
        self.values = values


# ---- what formulas share ---------------------------------------------------------------------------------------------


def average(b, m, g):
    """b m + (1 − b) g."""
    return b * m + (1 - b) * g


def quotient(a, b, eps):
    """a / b where b ≥ ε; a itself where b is 0, as it may be with ε = 0. There a is 0: it never had a gradient."""
    xp = namespace(a, b, eps)
    if xp is np and eps > 0:
        return a / b
    return a / xp.where(b == 0, 1, b)


def norm_and_unit(arrays, axis=None):
    """(‖arrays‖ / unit, unit), where the unit is their largest magnitude, so that no square overflows or underflows.

    The unit is None, for 1, where that is known to be safe. It is never so large that its inverse, with which XLA
    multiplies, is subnormal. With an axis, there is a norm for each index of the other axes, and these axes keep the
    length 1.
    """
    xp, axes = namespace(*arrays), {"axis": axis, "keepdims": axis is not None}
    if xp is np:
        with np.errstate(over="ignore", invalid="ignore"):
            square = np.vdot if axis is None else lambda a, _: np.square(a).sum(**axes)
            norm = np.sqrt(sum(square(a, a) for a in arrays))
        if np.all((norm > 1e-15) & (norm < np.inf)):
            return norm, None
    largest = functools.reduce(xp.maximum, [abs(a).max(initial=0, **axes) for a in arrays] or [np.float32(0)])
    unit = xp.where(largest == 0, 1, xp.minimum(largest, np.finfo(largest.dtype).max / 64))[()]
    with np.errstate(invalid="ignore"):  # ∞ / ∞
        return root(sum(xp.square(a / unit).sum(**axes) for a in arrays)), unit


def one_minus_power(b, t):
    """1 − bᵗ in the dtype of t, to full accuracy: by subtraction float32 keeps three digits for b = 0.999 and t = 1."""
    xp = namespace(t, b)
    if not is_jax(b):  # a number, whose logarithm is exact to float64
        return cast(1 - b**t if b < 0.5 else -xp.expm1(t * math.log(b)), t.dtype)
    small = b < 0.5  # log b has no derivative at b = 0, and 1 − bᵗ has one
    small_b, large_b = xp.where(small, b, 0.25), xp.where(small, 0.5, b)
    return cast(xp.where(small, 1 - small_b**t, -xp.expm1(t * xp.log(large_b))), t.dtype)


# ---- what combinators share ------------------------------------------------------------------------------------------


def apply_updates(params: Any, updates: Any) -> Any:
    """Adds updates to parameters, keeping the dtype of each parameter; the sum is in the wider dtype of the two.

        w ← w + u

    Args:
        params: tree of arrays.
        updates: tree of arrays with the structure of `params`, from an optimizer.

    Returns:
        The new parameters, read-only on NumPy. Parameters within `Frozen` are returned as they are.

    >>> apply_updates((np.float32([1.0, 2.0]),), (np.array([0.5, -0.5]),))
    (array([1.5, 1.5], dtype=float32),)
    """

    def moved(w, u):
        return w if trees.is_fixed(w) else trees.locked(cast(w + u, w.dtype))

    return trees.map(moved, params, updates, is_leaf=trees.is_fixed)


def zero(params):
    """The count of no steps, on the backend of the parameters."""
    return namespace(*trees.leaves(params)).zeros((), np.int32)[()]


def zeros_of(w, shape=None):
    """A moment of one parameter, of zeros. One array used as two moments could not be donated by JAX."""
    return namespace(w).zeros(w.shape if shape is None else shape, at_least_float32(w.dtype))


def zeros(params):
    """A moment of each parameter, of zeros."""
    return trees.map(zeros_of, params)


def no_update(w):
    """The update that leaves a parameter as it is."""
    return namespace(w).zeros(w.shape, w.dtype)


def like(updates, grads, params=None):
    """Each update in the dtype of its parameter."""
    return trees.map(lambda u, w: cast(u, w.dtype), updates, grads if params is None else params)


def is_optimizer(thing):
    """Whether it has the methods `init` and `update`; a class of optimizers is not an optimizer."""
    methods = (getattr(thing, "init", None), getattr(thing, "update", None))
    return not isinstance(thing, type) and all(callable(method) for method in methods)


def require_optimizer(place, thing):
    """Raises unless `thing` is an optimizer."""
    if isinstance(thing, type):
        raise KindError(f"{place}: expected an optimizer, got the class; write {thing.__name__}(...)")
    if not is_optimizer(thing):
        raise KindError(
            f"{place}: expected an object with methods init and update, such as fnn.Adam(), got {shorten(thing)}"
        )


def map_optimizers(f, place, optimizers, params, *rest) -> Any:
    """The tree of `f(place, optimizer, part of params, ...)`, for a tree of optimizers over a prefix of `params`."""

    def checked(place, optimizer, *parts):
        if optimizer is not None:
            require_optimizer(place, optimizer)
        return f(place, optimizer, *parts)

    def is_end(node):
        return not isinstance(node, tuple | list | dict) or is_optimizer(node)

    return trees.over_prefix(checked, is_end, "an optimizer, None,", place, optimizers, params, *rest)

"""What a rule is: how a batch is turned into a direction for the parameters.

A rule is a NamedTuple with two pure methods:

    init(problem, params, key) -> rule_state
    gradient(problem, params, state, batch, keys) -> RuleOutput(value, grads, state, metrics)

Its numbers are leaves, so they may be traced, and a sweep over them is a `vmap`; what is a choice (a bool, a text, a
count of iterations, a layer) is declared `x: Choice[int] = 5` and is static. How far to move along the gradient is the
optimizer's business. Class attributes without annotation say what a rule needs:

    sampling     "shuffled" (default): epochs that use each example once; "poisson": each example joins by itself
    weighted     True (default); with False the user's weights are refused
    draws        True (default); with False no key is derived for it
    private      False (default); with True no stopping rule may look at the training loss
"""

from typing import Any, NamedTuple

import numpy as np

from .. import trees
from ..backend import Held, cast, is_traced, namespace
from ..errors import ArgumentError, KindError, ShapeError, real, shorten
from ..static import Choice as Choice
from ..static import Field, check_ranges, declared

_PLAIN = Field(None, False, False)


class Batch(NamedTuple):
    """What a step is given: x, y, weights (N,) or None (an example of weight 0 is not there), and the nominal size."""

    x: Any
    y: Any
    weights: Any
    size: int


class Keys(NamedTuple):
    """Random keys of a step that share nothing: for the layers that draw (None if none does), and for the rule."""

    net: Any
    rule: Any


class RuleOutput(NamedTuple):
    """What a rule says of a batch.

    value      the cost of the batch, penalty included
    grads      nested as the parameters: what the optimizer is given
    state      the rule's next state, of the structure, shapes and dtypes of the last one
    metrics    scalars of this step by name, the same names each time; "loss" and "weight" are taken
    """

    value: Any
    grads: Any
    state: Any = ()
    metrics: dict = {}  # noqa: RUF012 - never changed


def prepare(rule, params) -> Any:
    """The rule as a training state holds it: checked, numbers as strong arrays, choices as nodes without leaves."""
    if isinstance(rule, type):
        raise KindError(f"rule: expected a rule, got the class; write {rule.__name__}(...)")
    if not hasattr(rule, "_fields") or not all(callable(getattr(rule, name, None)) for name in ("init", "gradient")):
        raise KindError(
            f"rule: expected a NamedTuple with methods init and gradient, such as fnn.rules.Backprop(), "
            f"got {shorten(rule)}"
        )
    if getattr(rule, "sampling", "shuffled") not in ("shuffled", "poisson"):
        raise ArgumentError(f"{type(rule).__name__}.sampling: expected 'shuffled' or 'poisson', got {rule.sampling!r}")
    check_ranges(rule)
    if hasattr(rule, "check"):
        rule.check()
    leaves = trees.leaves(params)
    xp = namespace(*leaves)
    wide = np.float64 if any(leaf.dtype == np.float64 for leaf in leaves) else np.float32

    def number(place, leaf, field):
        if hasattr(leaf, "dtype") and np.ndim(leaf):
            return xp.asarray(leaf)
        if isinstance(leaf, bool | str) or callable(leaf):
            raise KindError(f"{place}: expected a number, got {shorten(leaf)}; declare a choice as `x: Choice[...]`")
        if not is_traced(leaf) and field.interval is None:
            real(place, np.asarray(leaf).item())
        return xp.asarray(leaf, dtype=np.int32 if field.whole else wide)[()]

    def strong(place, value, field):
        if value is None or isinstance(value, Held) or field.choice:
            return Held(value) if field.choice and not isinstance(value, Held) else value
        if hasattr(value, "_fields"):
            fields = declared(type(value))
            inner = {n: strong(f"{place}.{n}", v, fields.get(n, _PLAIN)) for n, v in value._asdict().items()}
            return value._replace(**inner)
        if isinstance(value, dict):
            return {key: strong(f"{place}[{key!r}]", value[key], field) for key in sorted(value)}
        if isinstance(value, tuple | list):
            return type(value)(strong(f"{place}[{i}]", v, field) for i, v in enumerate(value))
        return number(place, value, field)

    return strong(type(rule).__name__, rule, _PLAIN)


def unwrapped(rule) -> Any:
    """The rule with its choices as they were given, those of the rules within it, too."""
    if isinstance(rule, Held):
        return rule.thing
    if hasattr(rule, "_fields"):
        return rule._replace(**{name: unwrapped(value) for name, value in rule._asdict().items()}) if rule else rule
    if isinstance(rule, tuple | list):
        return type(rule)(unwrapped(value) for value in rule)
    return {key: unwrapped(value) for key, value in rule.items()} if isinstance(rule, dict) else rule


def first_state(rule, problem, params, key) -> Any:
    """The state that a rule begins with, of arrays with strong types."""
    state = unwrapped(rule).init(problem, params, key)
    xp = namespace(*trees.leaves(params), key)
    return trees.map(lambda a: xp.asarray(a, dtype=xp.asarray(a).dtype)[()], state)


def settled(rule, state, before) -> Any:
    """The next rule state in the dtypes of the last one; raises where structure or a shape differs."""
    if isinstance(before, tuple) and not before:
        if trees.leaves(state):
            raise ShapeError(f"{type(rule).__name__}: expected no state, as init gave none, got {trees.outline(state)}")
        return before
    trees.same_structure(f"the state of {type(rule).__name__}", state, before)
    return trees.map(lambda new, old: cast(namespace(old).asarray(new), old.dtype), state, before)

"""What a rule is: how a batch is turned into a direction for the parameters.

A rule is a NamedTuple with two pure methods:

    init(problem, params, key) -> rule_state
    gradient(problem, params, state, batch, keys) -> RuleOutput(value, grads, state, metrics)

Its numbers are leaves, so they may be traced, and a sweep over them is a `vmap`. A choice (a bool, a string, a number
of iterations, a layer) is declared as `x: Choice[int] = 5` and is static. How far to move along the gradient is up to
the optimizer. Class attributes without an annotation say what a rule needs:

    sampling     "shuffled" (default): epochs that use each example once; "poisson": each example joins independently
    weighted     True (default); if False, data with weights are rejected
    draws        True (default); if False, no key is derived for the rule
    of_cost      False (default); if True, the gradient is that of the cost itself, as `fnn.Lbfgs` needs it
    private      False (default); if True, no stopping criterion may depend on the training loss
    scales       False (default); if True, the gradient is multiplied by `problem.scale`, as `LossScale` needs it
    overflows    False (default); if True, a gradient may be infinite, and the optimizer has to skip it

A rule whose result is a function of sums over the examples may say so, and then `InParts` computes them for a few
examples at a time. Its `gradient` is then `from_sums` of the `sums` of the whole batch:

    sums(problem, params, state, batch, keys, share=1) -> a tree of arrays, which are added over the parts of the batch
    from_sums(problem, params, state, batch, keys, sums) -> RuleOutput

where, for a part, `problem.denominator` is that of the whole batch, and `share` is the part's share of all weight.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import backend, trees
from ..backend import Held, cast, is_traced, namespace
from ..errors import ArgumentError, KindError, ShapeError, real, shorten
from ..optimizers.base import is_optimizer
from ..optimizers.preparation import with_numbers
from ..static import Choice as Choice
from ..static import Field, check_ranges, declared
from ..static import unwrapped as unwrapped

_PLAIN = Field(None, False, False)


class Batch(NamedTuple):
    """The input of a step: x, y, weights (N,) or None (an example of weight 0 does not count), and the nominal size."""

    x: Any
    y: Any
    weights: Any
    size: int


class Keys(NamedTuple):
    """Independent random keys of a step: for the layers that draw (None if there are none), and for the rule."""

    net: Any
    rule: Any


class RuleOutput(NamedTuple):
    """The result of a rule for a batch.

    value      the cost of the batch, penalty included
    grads      what the optimizer receives, nested as the parameters
    state      the rule's next state, with the structure, shapes and dtypes of the previous one
    metrics    scalars of this step by name, the same names at every step; "loss" and "weight" are reserved
    """

    value: Any
    grads: Any
    state: Any = ()
    metrics: dict = {}  # noqa: RUF012 - never changed


def of_inner(name, default):
    """A class attribute of a rule around another one, `rule.rule`: what that one says, or the default."""
    return property(lambda self: getattr(self.rule, name, default), doc=f"The `{name}` of the inner rule.")


def check_rule(place, rule):
    """Raise unless a rule, and each rule within it, is one and can be used."""
    if isinstance(rule, type):
        raise KindError(f"{place}: expected a rule, got the class; write {rule.__name__}(...)")
    if not hasattr(rule, "_fields") or not _has_methods(rule):
        raise KindError(
            f"{place}: expected a NamedTuple with methods init and gradient, such as fnn.rules.Backprop(), "
            f"got {shorten(rule)}"
        )
    for name, value in rule._asdict().items():
        field = declared(type(rule)).get(name, _PLAIN)
        if _has_methods(value) or (name == "rule" and not field.choice):
            check_rule(f"{type(rule).__name__}.{name}", value)
        one = field.interval and isinstance(rule._field_defaults.get(name), int | float)
        if one and (
            value is None or isinstance(value, tuple | list | dict | backend.Record) or getattr(value, "ndim", 0)
        ):
            raise KindError(f"{type(rule).__name__}.{name}: expected a number, got {shorten(value)}")
    if getattr(rule, "sampling", "shuffled") not in ("shuffled", "poisson"):
        raise ArgumentError(f"{type(rule).__name__}.sampling: expected 'shuffled' or 'poisson', got {rule.sampling!r}")
    if hasattr(rule, "check"):
        rule.check()


def _has_methods(thing):
    return all(callable(getattr(thing, name, None)) for name in ("init", "gradient"))


def prepare(rule, params) -> Any:
    """The rule as a training state holds it: checked, with numbers as strongly typed arrays and choices as `Held`."""
    check_ranges(rule)
    check_rule("rule", rule)
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
        return backend.number(xp, leaf, np.int32 if field.whole else wide)

    def strong(place, value, field):
        if value is None or isinstance(value, Held) or field.choice:
            return Held(value) if field.choice and not isinstance(value, Held) else value
        if is_optimizer(value) and not _has_methods(value):
            return with_numbers(value, None, lambda leaf, whole: backend.number(xp, leaf, np.int32 if whole else wide))
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


def first_state(rule, problem, params, key) -> Any:
    """The initial state of a rule, as strongly typed arrays."""
    state = unwrapped(rule).init(problem, params, key)
    xp = namespace(*trees.leaves(params), key)
    return trees.map(lambda a: xp.asarray(a, dtype=xp.asarray(a).dtype)[()], state)


def settled(rule, state, before) -> Any:
    """The next rule state in the dtypes of the previous one; raises if the structure or a shape differs."""
    if isinstance(before, tuple) and not before:
        if trees.leaves(state):
            raise ShapeError(f"{type(rule).__name__}: expected no state, as init gave none, got {trees.outline(state)}")
        return before
    trees.same_structure(f"the state of {type(rule).__name__}", state, before)
    return trees.map(lambda new, old: cast(namespace(old).asarray(new), old.dtype), state, before)

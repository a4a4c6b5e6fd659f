"""Preparation of an optimizer for a run: hyperparameters are checked and become arrays, Optax's are wrapped."""

from typing import Any

import numpy as np

from .. import backend, trees
from ..backend import namespace
from ..errors import FnnError, KindError, integer, real, shorten
from ..static import Field, declared
from .base import is_optimizer, map_optimizers, require_optimizer
from .descent import Sgd  # noqa: F401 - for the example

_UNDECLARED = Field(None, False, False)


def from_optax(transformation: Any) -> Any:
    """Wraps an optimizer of Optax, or any object with `init` and `update`, for use as an fnn optimizer.

    It becomes a node without leaves that compares by identity: its hyperparameters are constants of the compiled
    program. `init_state` wraps by itself. In the other direction nothing is needed: fnn's optimizers work in
    `optax.chain` as they are.

    Optax's `lbfgs`, `polyak_sgd`, `reduce_on_plateau` and others also need the value of the cost. A run gives it to
    them (`value`, `grad` and `value_fn`, of the batch), unless they stand within a combinator or the rule is private:
    there `init_state` refuses them.

    Args:
        transformation: an object with `init(params)` and `update(grads, opt_state, params)`.

    Returns:
        The optimizer.

    Raises:
        KindError: JAX is not available, or the object lacks one of the methods.

    >>> import jax, types
    >>> halve = lambda grads, opt_state, params: (jax.tree.map(lambda g: -0.5 * g, grads), opt_state)
    >>> from_optax(types.SimpleNamespace(init=lambda params: (), update=halve)).update((1.0,), (), (2.0,))
    ((-0.5,), ())
    """
    backend.need_jax("from_optax")
    require_optimizer("optimizer", transformation)
    return backend.Held(transformation)


def prepare(optimizer: Any, params: Any) -> Any:
    """The optimizer as a training state holds it: checked, with strongly typed arrays as hyperparameters.

    Strong types make the second step's types equal to the first's, so nothing is compiled twice. All fields are checked
    against the ranges declared beside them, also of the optimizers and schedules inside, whatever their fields are
    called. Two names have a meaning: `optimizers` is a tree of optimizers over a prefix of the parameters' tree, and
    `weight_decay` a number or such a tree of numbers. A schedule may stand in a field whose name ends in `rate`, or
    that declares no range.

    Args:
        optimizer: an fnn optimizer, your own, or Optax's.
        params: the parameters.

    Returns:
        An optimizer of the same class. Its numbers are float32, or float64 where a parameter is; those declared as int
        are int32.

    Raises:
        ArgumentError: a number lies outside its range.
        KindError: a field holds something other than a number, a schedule or an optimizer.
        ShapeError: a tree of optimizers or weight decays is not a prefix of the parameters' tree.

    >>> prepare(Sgd(0.1), np.ones(3))
    Sgd(learning_rate=np.float64(0.1))
    """
    arrays = trees.leaves(params)
    xp = namespace(*arrays, *trees.leaves(optimizer))
    wide = np.float64 if any(w.dtype == np.float64 for w in arrays) else np.float32

    def strong(number, whole):
        return backend.number(xp, number, np.int32 if whole else wide)

    return with_numbers(optimizer, params, strong)


def with_numbers(optimizer, params, strong):
    """`prepare` with this conversion of a number; with `params` None the form of trees is not checked."""
    if isinstance(optimizer, backend.Held):
        return optimizer
    require_optimizer("optimizer", optimizer)
    names = getattr(optimizer, "_fields", None)
    if names is None:
        return backend.Held(optimizer)
    if "init" in names:  # a transformation of Optax is a tuple of its two functions
        return from_optax(optimizer)

    def part(place, optimizer, params):
        try:
            return None if optimizer is None else with_numbers(optimizer, params, strong)
        except FnnError as error:
            raise error.at(place)  # noqa: B904 - the same error, its place added

    values = {}
    for name, value in zip(names, optimizer, strict=True):
        place = f"{type(optimizer).__name__}.{name}"
        field, default = declared(type(optimizer)).get(name, _UNDECLARED), type(optimizer)._field_defaults.get(name, 0)
        if name == "optimizer" or is_optimizer(value):
            values[name] = with_numbers(value, params, strong)
        elif name == "optimizers" and params is not None:
            values[name] = map_optimizers(part, place, value, params)
        elif value is None and default is None:
            values[name] = None
        elif field.choice:
            values[name] = _chosen(place, value, field)
        else:
            if name == "weight_decay" and params is not None:
                _check_decay(place, value, params)
            elif isinstance(value, tuple | list | dict | backend.Record):
                _check_nested(place, name, value, field, default)
            values[name] = _converted(place, value, field, strong)
    return optimizer._replace(**values)


def _chosen(place, value, field):
    """A choice, checked, as a node without leaves."""
    if isinstance(value, backend.Held):
        return value
    return backend.Held(value if field.interval is None else field.interval.check(place, value, field.whole))


def _is_schedule(value):
    return isinstance(value, tuple | backend.Record) and callable(value)


def _check_decay(place, value, params):
    spread = trees.prefix(place, value, params)
    if len(trees.leaves(spread)) != len(trees.leaves(params)):
        raise KindError(f"{place}: expected a number at each end, got {shorten(value)}")


def _check_nested(place, name, value, field, default):
    """Raises unless a schedule, or a tree of numbers, may stand in this field."""
    if field.interval is None:
        return
    if name.endswith("rate"):
        if not _is_schedule(value):
            raise KindError(f"{place}: expected a number or a schedule, got {shorten(value)}")
    elif _is_schedule(value) or not isinstance(default, tuple | list | dict):
        raise KindError(f"{place}: expected a number, got {shorten(value)}")


def _converted(place, value, field, strong, in_schedule=False):
    """A field's value (a number, an optimizer, a schedule, or a tree of these), checked, with its numbers converted."""
    in_schedule = in_schedule or _is_schedule(value)
    if isinstance(value, type) and hasattr(value, "update"):
        require_optimizer(place, value)
    if isinstance(value, type):
        raise KindError(f"{place}: expected a number or a schedule, got the class; write {value.__name__}(...)")
    if is_optimizer(value):
        return with_numbers(value, None, strong)
    if hasattr(value, "_fields"):
        fields, defaults = declared(type(value)), value._field_defaults
        values = {
            name: None
            if item is None and defaults.get(name, 0) is None
            else _converted(f"{place}.{name}", item, fields.get(name, _UNDECLARED), strong, in_schedule)
            for name, item in value._asdict().items()
        }
        return value._replace(**values)
    if isinstance(value, tuple | list):
        return type(value)(
            _converted(f"{place}[{i}]", item, field, strong, in_schedule) for i, item in enumerate(value)
        )
    if isinstance(value, dict):
        return {key: _converted(f"{place}[{key!r}]", item, field, strong, in_schedule) for key, item in value.items()}
    _check_number(place, value, field, in_schedule)
    return strong(value, field.whole)


def _check_number(place, value, field, in_schedule):
    """Raises unless it is a number in its range, or in a schedule an array. Of a tracer only the shape is known."""
    if callable(value):
        raise KindError(
            f"{place}: expected a number, or a schedule, a NamedTuple or Record with __call__, got {shorten(value)}"
        )
    if value is None or (np.ndim(value) and not in_schedule):
        raise KindError(f"{place}: expected a number, got {shorten(value)}")
    if backend.is_traced(value):
        return
    for number in np.ravel(value).tolist() if hasattr(value, "dtype") else [value]:
        if field.interval is not None:
            field.interval.check(place, number, field.whole)
        elif field.whole:
            integer(place, number, least=-(2**31))
        else:
            real(place, number)

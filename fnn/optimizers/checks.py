"""What an optimizer must be before a run begins; and Optax's optimizers as ours."""

import math

import numpy as np

from .. import backend, schedules, trees
from ..backend import namespace
from ..errors import ArgumentError, FnnError, KindError, integer, real, shorten
from .base import each, require_optimizer

_RANGES = {  # of every hyperparameter with this name, in any optimizer
    "learning_rate": {"least": 0},
    "adam_learning_rate": {"least": 0},
    "momentum": {"least": 0, "below": 1},
    "beta": {"least": 0, "below": 1},
    "b1": {"least": 0, "below": 1},
    "b2": {"least": 0, "below": 1},
    "adam_b1": {"least": 0, "below": 1},
    "adam_b2": {"least": 0, "below": 1},
    "rho": {"least": 0, "below": 1},
    "decay": {"least": 0, "below": 1},
    "Average.decay": {"least": 0, "most": 1},
    "eps": {"least": 0},
    "initial_accumulator_value": {"least": 0},
    "weight_decay": {"least": 0},
    "max_value": {"above": 0},
    "max_norm": {"above": 0},
    "steps": {"least": 1},
}
_RATES = ("learning_rate", "adam_learning_rate")  # these may be schedules
_SCHEDULE = "expected a number, or a schedule that is a NamedTuple with __call__"


def from_optax(transformation):
    """An Optax optimizer as one of ours: anything with `init(params)` and `update(grads, opt_state, params)`.

    It is held as a node without leaves, compared by identity: its hyperparameters are constants of the compiled
    program. `init_state` wraps by itself. Ours need no wrapping in an `optax.chain`.
    """
    require_optimizer("optimizer", transformation)
    return backend.hold(transformation)


def prepare(optimizer, params):
    """The optimizer as a training state holds it: checked, its hyperparameters strong arrays of float32 (or float64).

    Strong types keep the second step's types those of the first, so nothing is compiled twice.
    """
    parameters = trees.leaves(params)
    xp = namespace(*parameters, *trees.leaves(optimizer))
    wide = np.float64 if any(p.dtype == np.float64 for p in parameters) else np.float32

    def prepared(optimizer, params):
        if isinstance(optimizer, backend.Held):
            return optimizer
        require_optimizer("optimizer", optimizer)
        fields = getattr(optimizer, "_fields", None)
        if fields is None or "init" in fields:  # an Optax transformation is a tuple of its two functions
            return from_optax(optimizer)
        kind, values = type(optimizer).__name__, {}
        for field, value in optimizer._asdict().items():
            if field == "optimizer":
                values[field] = prepared(value, params)
            elif field == "optimizers":
                values[field] = each(end, f"{kind}.{field}", value, params)
            else:
                _check(kind, field, value, params, type(optimizer)._field_defaults)
                dtype = np.int32 if field == "steps" else wide
                values[field] = trees.map(lambda leaf: xp.asarray(leaf, dtype=dtype)[()], value)  # noqa: B023 - at once
        return optimizer._replace(**values)

    def end(place, optimizer, part):
        try:
            return None if optimizer is None else prepared(optimizer, part)
        except FnnError as error:
            raise error.at(place)  # noqa: B904 - the same error, its place added

    return prepared(optimizer, params)


def _check(kind, field, value, params, defaults):
    """Raises unless the value of this hyperparameter makes sense. Of traced ones only the shape is known."""
    place = f"{kind}.{field}"
    is_schedule = isinstance(value, tuple) and callable(value)
    if value is None and field in defaults and defaults[field] is None:
        return
    if field == "weight_decay":
        spread = trees.prefix(place, value, params)
        if len(trees.leaves(spread)) != len(trees.leaves(params)):
            raise KindError(f"{place}: expected a number at each end, got {shorten(value)}")
    elif isinstance(value, tuple):  # in an optimizer of the user's own it may be anything
        if field in _RATES and not is_schedule:
            raise KindError(f"{place}: {_SCHEDULE}, got {shorten(value)}")
        if field in _RANGES and field not in _RATES:
            raise KindError(f"{place}: expected a number, got {shorten(value)}")
    elif value is None or np.ndim(value):
        raise KindError(f"{place}: expected a number, got {shorten(value)}")
    if is_schedule and (empty := _none(value, place)):
        raise KindError(f"{empty}: expected a number, got None")
    for at, leaf in trees.paths(value, place):
        if callable(leaf):
            raise KindError(f"{at}: {_SCHEDULE}, got {shorten(leaf)}")
        if np.ndim(leaf) and not is_schedule:
            raise KindError(f"{at}: expected a number, got {shorten(leaf)}")
        if np.ndim(leaf) or backend.is_traced(leaf):
            continue
        number = leaf.item() if hasattr(leaf, "item") else leaf
        if is_schedule:
            real(at, number, **schedules.RANGES.get(at.rpartition(".")[2].partition("[")[0], {}))
        elif field == "steps":
            integer(at, number, **_RANGES["steps"])
        else:
            bounds = dict(_RANGES.get(place, _RANGES.get(field, {})))
            most = bounds.pop("most", math.inf)
            if real(at, number, **bounds) > most:
                raise ArgumentError(f"expected a finite number with {at} <= {most:g}, got {at} = {number:g}")


def _none(schedule, place):
    """The place of the first None in a schedule, or ""."""
    marked = trees.map(lambda leaf: leaf is None, schedule, is_leaf=lambda leaf: leaf is None)
    return next((at for at, missing in trees.paths(marked, place) if missing is True), "")

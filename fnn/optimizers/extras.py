"""What an optimizer may ask for besides the gradient: the value of the cost, and the cost as a function.

    update(grads, opt_state, params, *, value, grad, value_fn, value_and_grad_fn)

It is given those that it names: the value of the batch's cost, the gradient once more, `params -> value`, and
`params -> (value, grads)`. The first three are Optax's, as `optax.lbfgs`, `optax.polyak_sgd` and the line searches need
them; the last is fnn's own gradient, on NumPy too.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .. import backend, trees
from ..errors import FnnError, KindError, shorten
from .base import is_optimizer, require_optimizer
from .combinators import SkipNonFinite

NAMES = ("value", "grad", "value_fn", "value_and_grad_fn")


def extra_arguments(optimizer: Any, rule: Any, value: Any, grads: Any, value_and_grad_fn: Callable) -> dict[str, Any]:
    """What the optimizer's `update` is given by name; a private rule has nothing to give."""
    held = isinstance(optimizer, backend.Held)
    names = (_names(optimizer.update) if held else _names_of_class(type(optimizer).update))[0]
    if not names or getattr(rule, "private", False):
        return {}
    given = (value, grads, lambda params: value_and_grad_fn(params)[0], value_and_grad_fn)
    return {name: thing for name, thing in zip(NAMES, given, strict=True) if name in names}


def check_extras(optimizer: Any, rule: Any, params: Any) -> None:
    """Raise if an optimizer, or one inside it, needs more than the gradient where it cannot have it."""
    require_plain("optimizer", _inside(optimizer), type(optimizer).__name__)
    needed = _required(optimizer)
    has_it = getattr(rule, "of_cost", False) if "value_and_grad_fn" in needed else not getattr(rule, "private", False)
    if needed and not has_it:
        raise KindError(
            f"rule: expected fnn.rules.Backprop(), the gradient of the cost itself, with {type(optimizer).__name__}, "
            f"which needs {' and '.join(needed)}, got {shorten(rule)}"
        )
    if getattr(rule, "overflows", False) and not skips(optimizer):
        raise KindError(
            f"optimizer: expected one that skips steps whose gradient has overflowed, fnn.SkipNonFinite(...), with "
            f"{type(rule).__name__}, got {shorten(optimizer)}"
        )
    if _holds(optimizer) and any(map(backend.is_jax, trees.leaves(params))):
        _check_another_library(optimizer, rule, params)


def require_plain(place: str, optimizers: Iterable[Any], within: str) -> None:
    """Raise if one of the optimizers within a thing needs more than the gradient."""
    for inner in optimizers:
        if needed := _required(inner):
            raise KindError(
                f"{place}: expected none that needs {' and '.join(needed)} within {within}, which passes on the "
                f"gradient alone, got {shorten(inner)}"
            )


def check_inner(place: str, optimizer: Any, within: str) -> None:
    """Raise unless an optimizer that a rule trains with is one, and needs the gradient alone."""
    require_optimizer(place, optimizer)
    if "init" not in getattr(optimizer, "_fields", ()):  # those of Optax say nothing
        require_plain(place, (optimizer, *_inside(optimizer)), within)


def skips(optimizer: Any) -> bool:
    """Whether the optimizer skips non-finite steps of all parameters, at any depth of nesting."""
    inner = getattr(optimizer, "optimizers", getattr(optimizer, "optimizer", None))
    ends = trees.leaves(inner, is_leaf=is_optimizer)
    return isinstance(optimizer, SkipNonFinite) or (bool(ends) and all(map(skips, ends)))


def _check_another_library(optimizer, rule, params):
    try:
        value = np.float32(0)
        extra = lambda p: extra_arguments(optimizer, rule, value, p, lambda p: (value, p))
        backend.jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p, **extra(p)), params)
    except (TypeError, ValueError) as error:
        if isinstance(error, FnnError):
            raise
        raise KindError(
            "optimizer: expected one of Optax that needs the gradient alone, or one on its own that needs value, grad "
            f"or value_fn, with a rule that is not private; its update failed: {shorten(error, 200)}"
        ) from error


def _names(update) -> tuple[tuple[str, ...], list[str]]:
    """The names that an update takes, and those that it needs; `**extra_args` takes Optax's, and may refuse others."""
    parameters = inspect.signature(update).parameters.values()
    named = {parameter.name: parameter.default is parameter.empty for parameter in parameters}
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    takes = tuple(name for name in NAMES if name in named or (every and name in NAMES[:3]))
    return takes, [name for name in takes if named.get(name)]


_names_of_class = functools.lru_cache(maxsize=128)(_names)  # Optax's updates enclose others, and are not remembered


def _required(optimizer):
    """The names without which the update of one of fnn's optimizers, or a user's, cannot be called."""
    return [] if isinstance(optimizer, backend.Held) else _names_of_class(type(optimizer).update)[1]


def _inside(optimizer) -> Iterator[Any]:
    """The optimizers within an optimizer, at any depth."""
    branches = optimizer.values() if isinstance(optimizer, dict) else optimizer
    for branch in branches if isinstance(optimizer, tuple | list | dict) else ():
        if is_optimizer(branch):
            yield branch
        yield from _inside(branch)


def _holds(optimizer):
    """Whether an optimizer is, or has in it, one of another library."""
    return any(isinstance(thing, backend.Held) for thing in (optimizer, *_inside(optimizer)))

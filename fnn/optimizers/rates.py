"""The learning rates of an optimizer, at any depth of nesting: what they are, and the same optimizer with others."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import trees
from ..backend import Held
from .base import is_optimizer
from .combinators import ClipByValue  # noqa: F401 - for the example
from .descent import Sgd  # noqa: F401 - for the example


def with_rates(f: Callable, optimizer: Any) -> Any:
    """The optimizer with f(learning rate) in place of each learning rate, those of the optimizers inside included.

    >>> with_rates(lambda rate: rate / 2, ClipByValue(Sgd(0.5), 1.0))
    ClipByValue(optimizer=Sgd(learning_rate=0.25), max_value=1.0)
    """

    def changed(name, value):
        if name == "learning_rate":
            return f(value)
        if name == "optimizers":
            return trees.map(lambda inner: with_rates(f, inner), value, is_leaf=is_optimizer)
        return with_rates(f, value) if is_optimizer(value) else value

    if isinstance(optimizer, Held):  # one of Optax's
        return optimizer
    return optimizer._replace(**{name: changed(name, value) for name, value in optimizer._asdict().items()})


def last_rate(state: Any) -> float | None:
    """The learning rate of a training state's last step; None if it has none, or one for each layer."""
    optimizer, own = state.optimizer, state.opt_state
    while is_optimizer(inner := getattr(optimizer, "optimizer", None)):
        optimizer, own = inner, getattr(own, "inner", own)
    rate = None if isinstance(optimizer, Held) else getattr(optimizer, "learning_rate", None)
    if callable(rate):
        steps = int(getattr(own, "count", state.step))
        rate = trees.map(np.asarray, rate)(np.int32(max(steps - 1, 0)))  # on the host
    return None if rate is None else float(rate)

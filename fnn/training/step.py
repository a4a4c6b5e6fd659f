"""One step: a batch, the rule's gradient, the optimizer's update, the next state."""

from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401 - for the example

from .. import backend, examples, gate, random, trees
from ..backend import namespace
from ..backpropagation import Problem, check_problem, differentiate
from ..devices import on_any_axes
from ..errors import ArgumentError, usage
from ..layers import Layer
from ..losses import Loss
from ..optimizers import apply_updates
from ..optimizers.base import another_optimizers
from ..optimizers.extras import extra_arguments
from ..rules.base import Batch, Keys, settled, unwrapped
from .state import TrainState, check_counters, check_state, prepared


def update(problem: Problem, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
    """The next state, and the metrics of the step."""
    params, optimizer, opt_state, rule, rule_state, key, t, *counters = state
    if backend.is_jax(t) and backend.is_traced(t):
        _check_opt_state(optimizer, opt_state, params)
    rule = unwrapped(rule)
    keys = Keys(
        random.fold_in(random.fold_in(key, 1), t) if problem.net.draws else None,
        random.fold_in(random.fold_in(key, 3), t) if getattr(rule, "draws", True) else None,
    )
    value, grads, new_state, metrics = rule.gradient(problem, params, rule_state, batch, keys)
    cost = lambda params: differentiate(problem, params, batch, keys.net)
    extra = extra_arguments(optimizer, rule, value, grads, cost)
    updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
    rule_state = rule_state if new_state is rule_state else settled(rule, new_state, rule_state)  # most rules have none
    state = TrainState(
        apply_updates(params, updates), optimizer, opt_state, state.rule, rule_state, key, t + 1, *counters
    )
    if metrics and not {"loss", "weight"}.isdisjoint(metrics):
        raise ArgumentError(f"{type(rule).__name__}: expected metrics with names other than 'loss' and 'weight'")
    metrics = {"loss": value, "weight": _weight(problem, batch, value), **metrics}
    return state, metrics | getattr(opt_state, "metrics", {})


def _check_opt_state(optimizer, opt_state, params):
    """Raise where a program is compiled for a state that another optimizer made, which any optimizer may misread."""
    expected = backend.jax.eval_shape(optimizer.init, params)
    if not trees.alike(opt_state, expected):
        raise another_optimizers(optimizer, opt_state, trees.outline(expected)[:100])


def _weight(problem, batch, value):
    """The divisor of the batch's sum of costs."""
    if problem.denominator is not None:
        return value * 0 + problem.denominator
    if batch.weights is not None:
        return batch.weights.sum()
    size = examples.size_of(batch.x)
    return value.dtype.type(size) if isinstance(size, int) else namespace(value).asarray(size, value.dtype)  # a symbol


_PLAIN = {bool, int, float}  # the types of numbers that have not been prepared


@backend.jit(static=("net", "loss"))
def _step(state, penalty, denominator, x, y, weights, *, net, loss):
    return update(Problem(net, loss, penalty, denominator), state, Batch(x, y, weights, examples.size_of(x)))


@on_any_axes
@usage("fnn.make_step(net, loss)(state, (x, y))")
def make_step(
    net: Layer, loss: Loss, *, penalty: Any = None, denominator: float | None = None
) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
    """Make a compiled training step: one update of the parameters from one batch.

    Steps with an equal net and loss share one compiled program, whatever the learning rate. A step does not change the
    counters `epoch` and `seen`.

    Args:
        net: the network.
        loss: the cost.
        penalty: a penalty such as `fnn.L2(1e-4)`. Default: None.
        denominator: what Σ w ℓ is divided by. For signed weights, pass the batch size. Default: Σ w.

    Returns:
        `step(state, batch) -> (state, metrics)`, where a batch is `(x, y)` or `(x, y, weights)`. The metrics are `loss`
        (of the batch, before the update, penalty included), `weight` (the divisor of its sum: Σ w, or the denominator)
        and those of the rule.

    >>> from fnn import Quadratic, Sgd, init_state, mlp
    >>> net = mlp((1,))
    >>> state = init_state(net, Sgd(0.1), random.key(0, backend="numpy"), (2,))
    >>> state, metrics = make_step(net, Quadratic())(state, (np.ones((4, 2)), np.zeros((4, 1))))
    >>> int(state.step), sorted(metrics)
    (1, ['loss', 'weight'])
    """
    check_problem(net, loss, penalty, denominator)

    @usage("step(state, (x, y))")
    def step(state, batch):
        check_counters(check_state(state), 0, 1)
        if not _PLAIN.isdisjoint(map(type, trees.leaves(state.optimizer))):  # the caller replaced it
            state = prepared(state)
        _, (x, y, weights) = gate.batch(net, loss, state.params, *examples.opened(batch, "batch"))
        if weights is not None and weights_for(state.rule, denominator) == "none":
            raise ArgumentError(f"batch: expected (x, y), as {type(state.rule).__name__} draws its own weights")
        return _step(state, penalty, denominator, x, y, weights, net=net, loss=loss)

    return step


def weights_for(rule, denominator) -> str:
    """The kind of weights that a run with this rule and denominator accepts: "positive", "any" or "none"."""
    return "none" if not getattr(rule, "weighted", True) else "positive" if denominator is None else "any"

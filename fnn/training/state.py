"""The state of a run: all that it takes to go on.

A run is a function of its state. The order of epoch e comes from `fold_in(fold_in(key, 0), e)`; of step t, the noise of
layers (dropout) comes from `fold_in(fold_in(key, 1), t)`, the sample of a rule with Poisson sampling from
`fold_in(fold_in(key, 2), t)`, and the key of a rule from `fold_in(fold_in(key, 3), t)`. So two runs of 5 epochs are one
run of 10. All counters are int32.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import backend, gate, random, rules, trees
from ..backend import namespace
from ..backpropagation import Problem
from ..errors import ArgumentError, KindError, shape, shorten
from ..layers.base import Array
from ..optimizers import prepare
from ..rules.base import first_state
from ..rules.base import prepare as prepare_rule

LARGEST = 2**31 - 1  # of every counter


class TrainState(NamedTuple):
    """All that a run is.

    params        the parameters
    optimizer     with its hyperparameters, and its state, opt_state
    rule          what turns a batch into a gradient, and its state, rule_state
    key           of which order and noise are functions
    step          steps taken so far
    epoch         epochs finished so far; an epoch that is finished is stored as (epoch + 1, seen 0)
    seen          how many examples of the present epoch have been used
    length        of how many examples, 0 before the first step
    """

    params: Any
    optimizer: Any
    opt_state: Any
    rule: Any
    rule_state: Any
    key: Array
    step: Array
    epoch: Array
    seen: Array
    length: Array


def init_state(
    net, optimizer, key, input_shape, dtype: Any = np.float32, params=None, *, rule: Any = None
) -> TrainState:
    """The state at step 0. The key is split once: for the initial values, and for the order and noise of the run.

    Args:
        net: the network.
        optimizer: such as `fnn.Adam()`, or one of Optax's.
        key: such as `fnn.random.key(0)`.
        input_shape: the shape of an example, without the batch axis; of several inputs a dict of shapes.
        dtype: that of new parameters. Default: float32.
        params: used in place of new ones: on NumPy if all of them are NumPy's, else on JAX. Default: None.
        rule: how a batch becomes a gradient. Default: `fnn.rules.Backprop()`.

    >>> from fnn import Adam, mlp
    >>> init_state(mlp((3, 1)), Adam(), random.key(0, backend="numpy"), (2,)).step
    np.int32(0)
    """
    gate.check_network(net)
    key, input_shape = random.check_key(key), shape("input_shape", input_shape)
    dtype = backend.check_dtype(namespace(key), dtype)
    new, run_key = _begin(key, net=net, input_shape=input_shape, dtype=dtype, make=params is None)
    if params is None:
        params = new
    else:
        gate.check_new(net, params, input_shape)
        xp = namespace(*trees.leaves(params))
        params, run_key = trees.map(xp.array, params), random.like(run_key, xp)  # what is the caller's is not locked
    params = trees.lock(params)
    optimizer, rule = prepare(optimizer, params), prepare_rule(rules.Backprop() if rule is None else rule, params)
    opt_state, rule_state = _begin_states(optimizer, rule, params, run_key, net=net)
    xp = namespace(run_key)
    counters = (xp.zeros((), np.int32)[()] for _ in range(4))  # each its own, so that all can be donated
    return TrainState(params, optimizer, opt_state, rule, rule_state, trees.lock(run_key), *counters)


@backend.jit(static=("net", "input_shape", "dtype", "make"))
def _begin(key, *, net, input_shape, dtype, make):
    """New parameters, if they are to be made, and the key of the run; one program, compiled sooner than many small."""
    init_key, run_key = random.split(key)
    return (net.init(init_key, input_shape, dtype) if make else None), run_key


@backend.jit(static=("net",))
def _begin_states(optimizer, rule, params, key, *, net):
    rule_state = first_state(rule, Problem(net), params, random.fold_in(key, 4))
    return optimizer.init(params), rule_state


def check_state(state) -> TrainState:
    """The state, if it is one."""
    if not isinstance(state, TrainState):
        raise KindError(f"state: expected a TrainState, as fnn.init_state gives, got {shorten(state)}")
    return state


def check_counters(state, epochs, steps):
    """Raise where the counters of a concrete state would not hold the steps to come."""
    if backend.is_traced(state.step, state.epoch):
        return
    for name, more in (("step", steps), ("epoch", epochs)):
        number = np.asarray(getattr(state, name))
        if number.ndim == 0 and int(number) + more > LARGEST:
            raise ArgumentError(
                f"state.{name}: expected at most {LARGEST:,} in all, got {int(number):,} and {more:,} more"
            )


def next_epoch(state: TrainState) -> TrainState:
    """The state at the beginning of an epoch: one that was begun is dropped."""
    xp = namespace(state.epoch, state.seen)
    begun = xp.asarray(state.seen > 0, np.int32)
    return state._replace(epoch=(state.epoch + begun)[()], seen=(state.seen * 0)[()])

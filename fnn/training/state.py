"""The state of a run: everything needed to continue it.

A run is a function of its state. The order of epoch e comes from `fold_in(fold_in(key, 0), e)`. In step t, the noise of
layers (dropout) comes from `fold_in(fold_in(key, 1), t)`, the sample of a rule with Poisson sampling from
`fold_in(fold_in(key, 2), t)`, and the key of a rule from `fold_in(fold_in(key, 3), t)`. So two runs of 5 epochs are the
same as one run of 10. All counters are int32.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import backend, gate, random, rules, trees
from ..backend import namespace
from ..backpropagation import Problem
from ..devices import on_any_axes
from ..errors import ArgumentError, FnnError, KindError, shape, shorten, usage
from ..layers.base import Array, Layer
from ..optimizers import prepare
from ..optimizers.extras import check_extras
from ..rules.base import first_state
from ..rules.base import prepare as prepare_rule

LARGEST = 2**31 - 1  # of every counter


class TrainState(NamedTuple):
    """The complete state of a run.

    params        the parameters
    optimizer     the optimizer with its hyperparameters; its state is opt_state
    rule          what turns a batch into a gradient; its state is rule_state
    key           the random key, which determines all order and noise
    step          steps taken so far
    epoch         epochs finished so far; a finished epoch is stored as (epoch + 1, seen 0)
    seen          how many examples of the current epoch have been used
    length        how many examples the current epoch has; 0 before the first step
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


@on_any_axes
@usage("fnn.init_state(net, optimizer, key, x.shape[1:])")
def init_state(
    net: Layer,
    optimizer: Any,
    key: Any,
    input_shape: Any,
    dtype: Any = np.float32,
    params: Any = None,
    *,
    rule: Any = None,
) -> TrainState:
    """Create the state of a run at step 0.

    The key is split once: into one for the initial parameters, and one for the order and noise of the run.

    Args:
        net: the network.
        optimizer: an optimizer such as `fnn.Adam()`, or one of Optax's.
        key: a random key such as `fnn.random.key(0)`.
        input_shape: the shape of an example, without the batch axis; for several inputs, a dict of shapes.
        dtype: the dtype of new parameters. Default: float32.
        params: parameters to use in place of new ones; the run is on NumPy if all of them are NumPy arrays, else on
            JAX. Default: None.
        rule: how a batch becomes a gradient. Default: `fnn.rules.Backprop()`.

    Returns:
        The `TrainState` at step 0.

    >>> from fnn import Adam, mlp
    >>> init_state(mlp((3, 1)), Adam(), random.key(0, backend="numpy"), (2,)).step
    np.int32(0)
    """
    gate.check_network(net)
    key, input_shape = random.check_key(key), shape("input_shape", input_shape, several=True)
    dtype = backend.check_dtype(namespace(key), dtype)
    if params is None:
        params, run_key = _first(key, net, input_shape, dtype)
    else:
        gate.check_new(net, params, input_shape)
        xp = namespace(*trees.leaves(params))
        params = backend.ready(trees.map(xp.array, params))  # copies: the caller's are not locked
        run_key = random.like(random.split(key)[1], xp)
    params = trees.lock(params)
    optimizer, rule = prepare(optimizer, params), prepare_rule(rules.Backprop() if rule is None else rule, params)
    check_extras(optimizer, rule, params)
    opt_state, rule_state = _begin_states(optimizer, rule, params, run_key, net=net, input_shape=input_shape)
    xp = namespace(run_key)
    counters = (backend.number(xp, 0, np.int32) for _ in range(4))  # separate arrays, so that all can be donated
    return TrainState(params, optimizer, opt_state, rule, rule_state, trees.lock(run_key), *counters)


FEW = 2**20  # numbers that NumPy draws in less time than JAX takes to compile a program that does


def _first(key, net, input_shape, dtype):
    """New parameters and the key of the run; on JAX few of them come from NumPy, where nothing has to be compiled.

    The two draw the same numbers, up to their last digits. In float64 NumPy is slow, and the digits are fewer.
    """
    begin = lambda key: _begin(key, net=net, input_shape=input_shape, dtype=dtype)
    if not backend.is_jax(key) or backend.is_traced(key) or dtype.itemsize > 4:
        return begin(key)
    try:
        words = random.like(key, np)
        if words.shape != (2,):  # keys of other types, of more words, draw on JAX alone
            return begin(key)
        shapes = net.init(random.blank_key(), input_shape, dtype)
        if sum(p.size for p in trees.leaves(shapes)) > FEW:
            return begin(key)
        params, run_key = begin(words)
    except FnnError:
        raise
    except Exception:  # a user's `init` that draws with JAX's own functions; a known key within a traced function
        return begin(key)
    return trees.map(backend.on_device, params), random.like(run_key, backend.jnp)


@backend.jit(static=("net", "input_shape", "dtype"))
def _begin(key, *, net, input_shape, dtype):
    """New parameters, and the key of the run; one program compiles faster than many small ones."""
    init_key, run_key = random.split(key)
    return net.init(init_key, input_shape, dtype), run_key


@backend.jit(static=("net", "input_shape"))
def _begin_states(optimizer, rule, params, key, *, net, input_shape):
    own = random.fold_in(key, 4) if getattr(rule, "draws", True) else None
    return optimizer.init(params), first_state(rule, Problem(net, input_shape=input_shape), params, own)


def check_state(state) -> TrainState:
    """The state itself; raises if it is not a `TrainState`."""
    if not isinstance(state, TrainState):
        raise KindError(f"state: expected a TrainState, as fnn.init_state gives, got {shorten(state)}")
    return state


def prepared(state) -> TrainState:
    """The state with the numbers of its optimizer and rule checked and converted, as `init_state` does.

    They may have been replaced since: `state._replace(optimizer=fnn.Sgd(0.01))`.
    """
    optimizer, rule = prepare(state.optimizer, state.params), prepare_rule(state.rule, state.params)
    return state._replace(optimizer=optimizer, rule=rule)


def changed(place: str, state: Any, before: TrainState) -> TrainState:
    """A state that a callback returned in place of another one, prepared; raises unless the run can go on from it."""
    if not isinstance(state, TrainState):
        raise KindError(f"{place}: expected None, fnn.callbacks.STOP or a TrainState, got {shorten(state)}")
    try:
        state = prepared(state)
        trees.same_structure("state", state, before)
    except FnnError as error:
        raise error.at(place)  # noqa: B904 - the same error, its place added
    for (name, leaf), (_, model) in zip(trees.paths(state, "state"), trees.paths(before, "state"), strict=True):
        if _kind_of(leaf) != _kind_of(model):
            raise KindError(f"{place}: expected {name} as {_kind_of(model)}, got {_kind_of(leaf)}")
    for name in ("optimizer", "params", "rule", "opt_state", "rule_state"):
        if not trees.alike(new := getattr(state, name), old := getattr(before, name)):
            raise KindError(f"{place}: expected a state with {name} {shorten(old)}, got {shorten(new)}")
    for name in ("step", "epoch", "seen", "length"):
        if int(getattr(state, name)) != int(getattr(before, name)):
            raise ArgumentError(f"{place}: expected state.{name} unchanged, {getattr(before, name)}")
    return state


def _kind_of(leaf) -> str:
    """The type of an array for a message, such as `JAX float32`."""
    return f"{'JAX' if backend.is_jax(leaf) else 'NumPy'} {getattr(leaf, 'dtype', type(leaf).__name__)}"


def check_counters(state, epochs, steps):
    """Raise if the coming steps would overflow the counters of a concrete state."""
    if backend.is_traced(state.step, state.epoch):
        return
    for name, more in (("step", steps), ("epoch", epochs)):
        number = np.asarray(getattr(state, name))
        if number.ndim == 0 and not 0 <= int(number) <= LARGEST - more:  # a negative one has overflowed
            raise ArgumentError(
                f"state.{name}: expected at most {LARGEST:,} in all, got {int(number):,} and {more:,} more"
            )


def next_epoch(state: TrainState) -> TrainState:
    """The state at the beginning of the next epoch; the rest of an unfinished epoch is skipped."""
    xp = namespace(state.epoch, state.seen)
    begun = xp.asarray(state.seen > 0, np.int32)
    return state._replace(epoch=(state.epoch + begun)[()], seen=(state.seen * 0)[()])

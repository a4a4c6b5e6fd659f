"""Training in pure parts: the state of a run, one step, and a whole run as one compiled call.

A run is a function of its state. Step t takes batch t mod S of epoch t div S (S steps an epoch); the order of epoch
e comes from `fold_in(fold_in(key, 0), e)`, the noise of step t (dropout) from `fold_in(fold_in(key, 1), t)`. So two
runs of 5 epochs are one run of 10.
"""

from typing import Any, NamedTuple

import numpy as np

from . import backend, random, trees
from .backend import namespace
from .backprop import check_problem, differentiate, enter_batch
from .batching import batches, steps_per_epoch
from .errors import DataError, FnnError, KindError, finite, integer, shorten
from .layers import Array
from .networks import parameter_shapes
from .optimizers import apply_updates, prepare


class TrainState(NamedTuple):
    """All that a run is: params, optimizer (with its hyperparameters), opt_state, key, and the steps taken so far."""

    params: Any
    optimizer: Any
    opt_state: Any
    key: Array
    step: Array


def init_state(net, optimizer, key, input_shape, dtype=np.float32, params=None):
    """The state at step 0. The key is split once: for the initial values, and for the order and noise of the run.

    `input_shape` is the shape of an example, without the batch axis; `params`, if given, are used instead of new ones.

    >>> from fnn import Adam, mlp
    >>> init_state(mlp((3, 1)), Adam(), random.key(0, backend="numpy"), (2,)).step
    np.int32(0)
    """
    check_problem(net)
    init_key, run_key = random.split(random.check_key(key))
    if params is None:
        params = net.init(init_key, input_shape, dtype)
    else:
        trees.same_structure("params", params, parameter_shapes(net, input_shape))
        for place, leaf in trees.paths(params):
            if not backend.is_floating(getattr(leaf, "dtype", None)):
                raise KindError(f"{place}: expected an array of floating point, got {shorten(leaf)}")
        params = trees.map(lambda p: namespace(p).array(p), params)  # a copy: what is the caller's is not locked
        run_key = random.like(run_key, namespace(*trees.leaves(params)))
    params = trees.lock(params)
    optimizer = prepare(optimizer, params)
    step = namespace(run_key).zeros((), np.int32)[()]
    return TrainState(params, optimizer, optimizer.init(params), trees.lock(run_key), step)


def make_step(net, loss, *, penalty=None):
    """`step(state, batch) -> (state, metrics)`, compiled: one update of the parameters.

    A batch is `(x, y)` or `(x, y, weights)`. metrics are `loss` (mean over the batch, before the update, penalty
    included) and `weight` (the sum of its weights). A step of an equal net and loss, with any learning rate, shares
    the program.

    >>> from fnn import Quadratic, Sgd, mlp
    >>> net = mlp((1,))
    >>> state = init_state(net, Sgd(0.1), random.key(0, backend="numpy"), (2,))
    >>> state, metrics = make_step(net, Quadratic())(state, (np.ones((4, 2)), np.zeros((4, 1))))
    >>> int(state.step), sorted(metrics)
    (1, ['loss', 'weight'])
    """
    check_problem(net, loss, penalty)

    def step(state, batch):
        x, y, weights = unpack(batch, "batch")
        _, x, y, weights = enter_batch(_checked(state).params, x, y, weights)
        return _step(state, penalty, x, y, weights, net=net, loss=loss)

    return step


def train(net, loss, state, data, *, epochs, batch_size, shuffle=True, penalty=None):
    """A whole run as one compiled call: `(state, history)` after so many epochs from `state` on.

    Data is `(x, y)` or `(x, y, weights)` with the examples along the first axis; x as uint8 stays uint8. Every
    example is used exactly once an epoch, in an order of the epoch's own unless `shuffle=False`; a ragged last batch
    is filled up with weight 0. It takes a full step all the same, so a `batch_size` that leaves a small rest makes
    the end of an epoch noisy. `batch_size=1` is stochastic and `batch_size=len(x)` batch gradient descent. history
    holds the metrics of each step: `loss` and `weight`, (steps,). Composes with `jax.vmap`, over states, penalties
    and data.

    Raises before any work where data, sizes or epochs make no sense; see `fnn.errors`.

    >>> from fnn import Quadratic, Sgd, mlp
    >>> net = mlp((1,))
    >>> state = init_state(net, Sgd(0.1), random.key(0, backend="numpy"), (2,))
    >>> data = np.eye(2), np.ones((2, 1))
    >>> state, history = train(net, Quadratic(), state, data, epochs=20, batch_size=1)
    >>> bool(history["loss"][-1] < history["loss"][0]), len(history["loss"])
    (True, 40)
    """
    check_problem(net, loss, penalty)
    epochs = integer("epochs", epochs, least=1)
    data = check_data(net, loss, _checked(state).params, data)
    steps_per_epoch(len(data[0]), batch_size)
    return run_epochs(
        state, penalty, *data, net=net, loss=loss, epochs=epochs, batch_size=batch_size, shuffle=bool(shuffle)
    )


@backend.jit(static=("net", "loss", "epochs", "batch_size", "shuffle"))
def run_epochs(state, penalty, x, y, weights, *, net, loss, epochs, batch_size, shuffle):
    """`train` on data that has been checked and entered already."""
    n = len(x)
    steps = steps_per_epoch(n, batch_size)
    xp = namespace(*trees.leaves(state.params), x)
    padded = weights is not None or n % batch_size != 0

    def epoch(state, _):
        indices, mask = batches(state.key, n, batch_size, state.step, steps, shuffle)

        def step(state, chosen):
            index, used = chosen
            of_batch = None
            if padded:
                wide = np.float32 if weights is None else weights.dtype
                of_batch = used.astype(wide) if weights is None else xp.where(used, _take(xp, weights, index), 0)
            return update(state, penalty, _take(xp, x, index), _take(xp, y, index), of_batch, net=net, loss=loss)

        return backend.scan(step, state, (indices, mask))

    state, history = backend.scan(epoch, state, None, epochs)
    return state, {name: values.reshape(-1) for name, values in history.items()}


def update(state, penalty, x, y, weights, *, net, loss):
    """One step: gradient, optimizer, next state."""
    params, optimizer, opt_state, key, t = state
    noise = random.fold_in(random.fold_in(key, 1), t) if net.draws else None
    value, grads = differentiate(net, loss, penalty, params, x, y, weights, noise)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    weight = value.dtype.type(len(x)) if weights is None else weights.sum()
    metrics = {"loss": value, "weight": namespace(value).asarray(weight)[()]}
    return TrainState(apply_updates(params, updates), optimizer, opt_state, key, t + 1), metrics


_step = backend.jit(update, static=("net", "loss"))


def _take(xp, array, index):
    return xp.take(array, index, axis=0, mode="clip")  # the indices are in range; JAX's other modes would check them


def unpack(data, name="data"):
    """x, y and weights (or None) of `(x, y)` or `(x, y, weights)`."""
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise KindError(f"{name}: expected (x, y) or (x, y, weights), got {type(data).__name__}{_length(data)}")
    x, y, weights = (*data, None)[:3]
    return x, y, weights


def _length(data):
    return f" of length {len(data)}" if hasattr(data, "__len__") else ""


def check_data(net, loss, params, data, name="data"):
    """x, y and weights on the parameters' backend after every check: kinds, shapes, and values where they are known."""
    x, y, weights = unpack(data, name)
    labels = y
    try:
        params, x, y, weights = enter_batch(params, x, y, weights)
        known = not backend.is_traced(x, y, weights, *trees.leaves(params))
        concrete = backend.as_array("y", labels, np) if known and not backend.is_jax(labels) else y
        if known and backend.is_floating(x.dtype):
            finite("x", x)
        loss.check((len(x), *net.output_shape(x.shape[1:])), concrete, values=known)
        if known and weights is not None:
            finite("weights", weights)
            if bool((weights < 0).any()):
                row = int((weights < 0).argmax())
                raise DataError(f"weights: expected numbers of at least 0, got {weights[row]} at weights[{row}]")
    except FnnError as error:
        raise error.at(name) if name != "data" else error  # noqa: B904 - the same error, its place added
    return x, y, weights


def _checked(state):
    if not isinstance(state, TrainState):
        raise KindError(f"state: expected a TrainState, as fnn.init_state gives, got {shorten(state)}")
    return state

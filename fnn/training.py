"""Training in pure parts: the state of a run, one step, and a whole run as one compiled call.

A run is a function of its state. Step t takes batch t mod S of epoch t div S (S steps an epoch); the order of epoch
e comes from `fold_in(fold_in(key, 0), e)`, the noise of step t (dropout) from `fold_in(fold_in(key, 1), t)`. So two
runs of 5 epochs are one run of 10.
"""

from typing import Any, NamedTuple

import numpy as np

from . import backend, random, trees
from .backend import cast, namespace
from .backprop import check_problem, differentiate, enter_batch, mean_cost, unpack
from .batching import batches, steps_per_epoch
from .errors import (
    ArgumentError,
    FnnError,
    KindError,
    ShapeError,
    finite,
    integer,
    not_negative,
    on_host,
    shape,
    shorten,
)
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

    `input_shape` is the shape of an example, without the batch axis; `params`, if given, are used instead of new ones:
    on NumPy if all of them are NumPy's, else on JAX.

    >>> from fnn import Adam, mlp
    >>> init_state(mlp((3, 1)), Adam(), random.key(0, backend="numpy"), (2,)).step
    np.int32(0)
    """
    check_problem(net)
    key, input_shape = random.check_key(key), shape("input_shape", input_shape)
    dtype = backend.check_dtype(namespace(key), dtype)
    fresh, run_key = _begin(key, net=net, input_shape=input_shape, dtype=dtype, make=params is None)
    if params is None:
        params = fresh
    else:
        trees.same_structure("params", params, parameter_shapes(net, input_shape))
        xp = namespace(*trees.leaves(params))
        for place, leaf in trees.paths(params):
            if not backend.is_floating(getattr(leaf, "dtype", None)):
                raise KindError(f"{place}: expected an array of floating point, got {shorten(leaf)}")
            try:
                backend.check_dtype(xp, leaf.dtype)
            except FnnError as error:
                raise error.at(place)  # noqa: B904 - the same error, its place added
        params = trees.map(xp.array, params)  # a copy: what is the caller's is not locked
        run_key = random.like(run_key, xp)
    params = trees.lock(params)
    optimizer = prepare(optimizer, params)
    step = namespace(run_key).zeros((), np.int32)[()]
    return TrainState(params, optimizer, _begin_optimizer(optimizer, params), trees.lock(run_key), step)


@backend.jit(static=("net", "input_shape", "dtype", "make"))
def _begin(key, *, net, input_shape, dtype, make):
    """New parameters, if they are to be made, and the key of the run; one program, compiled sooner than many small."""
    init_key, run_key = random.split(key)
    return (net.init(init_key, input_shape, dtype) if make else None), run_key


@backend.jit
def _begin_optimizer(optimizer, params):
    return optimizer.init(params)


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
        _, x, y, weights = enter_batch(check_state(state).params, x, y, weights)
        return _step(state, penalty, x, y, weights, net=net, loss=loss)

    return step


class Best(NamedTuple):
    """Of a run with validation, the epoch whose validation loss was the least: its parameters, that loss, its index."""

    params: Any
    loss: Array
    epoch: Array


def train(
    net,
    loss,
    state,
    data,
    *,
    epochs=None,
    steps=None,
    batch_size,
    shuffle=True,
    penalty=None,
    validation=None,
    metrics=None,
):
    """A whole run as one compiled call: `(state, history)` after so many epochs, or steps, from `state` on.

    Data is `(x, y)` or `(x, y, weights)` with the examples along the first axis; x as uint8 stays uint8, and what lies
    in a file comes into memory, where `fit` leaves it there. Every example is used exactly once an epoch, in an order
    of the epoch's own unless `shuffle=False`; a ragged last batch is filled up with weight 0. It takes a full step all
    the same, so a `batch_size` that leaves a small rest makes the end of an epoch noisy. `batch_size=1` is stochastic
    and `batch_size=len(x)` batch gradient descent. history holds the metrics of each step: `loss` and `weight`,
    (steps,). With `steps` in the place of `epochs` a run may end within an epoch, and go on from there. Composes with
    `jax.vmap`, over states, penalties and data.

    With `validation`, data of the same form, the network is evaluated after every epoch, within the same call:
    history also holds `validation_loss`, (epochs,), for each of the `metrics` (functions by name, that JAX can
    compile, such as `{"accuracy": fnn.accuracy}`) one more, and `best`, the `Best` epoch: `.params`, `.loss`, `.epoch`
    (−1, with the parameters from before the run, if no loss was a number).

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
    if (epochs is None) == (steps is None):
        raise ArgumentError(f"epochs: expected either epochs or steps, got {epochs} and {steps}")
    if steps is None:
        epochs = integer("epochs", epochs, least=1)
    else:
        steps = integer("steps", steps, least=1)
        if validation is not None:
            raise ArgumentError("validation: expected epochs, after each of which it is evaluated, got steps")
    metrics = check_metrics(metrics)
    data = check_data(net, loss, check_state(state).params, data)
    steps_per_epoch(len(data[0]), batch_size)
    if validation is not None:
        validation = check_data(net, loss, state.params, validation, "validation")
        check_alike(validation, data)
    elif metrics:
        raise ArgumentError("metrics: expected validation data too, on which they are evaluated")
    return run(
        state,
        penalty,
        *data,
        validation,
        net=net,
        loss=loss,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        shuffle=bool(shuffle),
        metrics=tuple(metrics.items()),
    )


@backend.jit(static=("net", "loss", "epochs", "steps", "batch_size", "shuffle", "metrics"))
def run(
    state,
    penalty,
    x,
    y,
    weights,
    validation=None,
    *,
    net,
    loss,
    epochs=None,
    steps=None,
    batch_size,
    shuffle,
    metrics=(),
):
    """`train` on data that has been checked and entered already."""
    n = len(x)
    xp = namespace(*trees.leaves(state.params), x)
    wide = backend.at_least_float32(next((p.dtype for p in trees.leaves(state.params)), np.float32))
    padded = weights is not None or n % batch_size != 0
    size = batch_size * x[:1].size * x.dtype.itemsize

    def step(state, batch):
        x, y, of_batch = unpack(batch)
        if xp is np and of_batch is not None and (of_batch == 1).all():
            of_batch = None  # only the ragged last batch needs weights; a compiled step has them always, or never
        return update(state, penalty, x, y, of_batch, net=net, loss=loss)

    def block(state, chosen):
        index, used = chosen
        batches = [_take(xp, x, index), _take(xp, y, index)]
        if padded:
            batches.append(used.astype(wide) if weights is None else xp.where(used, _take(xp, weights, index), 0))
        return backend.scan(step, state, tuple(batches))

    def some(state, steps):
        chosen = batches(state.key, n, batch_size, state.step, steps, shuffle and batch_size < n)
        in_blocks = (-1, batches_at_once(steps, size), batch_size)
        state, history = backend.scan(block, state, tuple(a.reshape(in_blocks) for a in chosen))
        return state, {name: values.reshape(-1) for name, values in history.items()}

    if steps is not None:
        return some(state, steps)

    def epoch(carry, index):
        state, best = carry
        state, history = some(state, steps_per_epoch(n, batch_size))
        if validation is None:
            return (state, best), (history, {})
        prediction, losses = predict(state.params, *validation[:2], net=net, loss=loss)
        value = cast(mean_cost(loss, losses, validation[2])[0], best.loss.dtype)
        found = {"loss": value} | measure(metrics, prediction, *validation[1:])
        better = value < best.loss
        best = trees.map(lambda new, old: xp.where(better, new, old), Best(state.params, value, index), best)
        return (state, best), (history, {f"validation_{name}": value for name, value in found.items()})

    best = None
    if validation is not None:
        best = Best(state.params, xp.asarray(np.inf, dtype=wide)[()], xp.asarray(-1, dtype=np.int32)[()])
    (state, best), (history, found) = backend.scan(epoch, (state, best), xp.arange(epochs, dtype=np.int32))
    history = {name: values.reshape(-1) for name, values in history.items()} | found
    if best is not None:
        history["best"] = Best(trees.lock(best.params), best.loss[()], best.epoch[()])
    return state, history


def batches_at_once(steps, size):
    """How many batches of `size` bytes are gathered at once: the most that divide the steps and make 1.6 MB, or 1.

    Small ones are cheaper together (XLA then uses all cores), large ones should go from memory into the product.
    """
    if size > 200_000:
        return 1
    return max(c for c in range(1, min(steps, 1_600_000 // size) + 1) if steps % c == 0)


@backend.jit(static=("net", "loss", "batch_size"))
def predict(params, x, y, *, net, loss, batch_size=1024):
    """What the network predicts for all examples, batch by batch, and the cost of each."""
    n = len(x)
    batch_size = min(n, batch_size)
    xp = namespace(*trees.leaves(params), x)
    starts = xp.arange(-(-n // batch_size), dtype=np.int32) * batch_size

    def batch(_, start):
        index = xp.minimum(start + xp.arange(batch_size, dtype=np.int32), n - 1)
        return (), net.forward(params, _take(xp, x, index))[0]

    _, output = backend.scan(batch, (), starts)
    output = output.reshape(-1, *output.shape[2:])[:n]
    output = cast(output, backend.at_least_float32(output.dtype))
    return loss.predict(output), loss.value(output, y)


def measure(metrics, prediction, y, weights):
    """The metrics, pairs of a name and a function, by name."""
    arrays = [array for array in (prediction, y, weights) if array is not None]
    return {name: metric(*arrays) for name, metric in metrics}


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


def check_alike(validation, data):
    """The examples of validation data have the shape of those to be trained on."""
    found, wanted = validation[0].shape, data[0].shape[1:]
    if found[1:] != wanted:
        expected = ", ".join(str(size) for size in ("N", *wanted))
        raise ShapeError(f"validation: expected x of shape ({expected}), as the data have, got {found}")


def check_metrics(metrics):
    """Functions by name, or none."""
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, dict) or not all(callable(metric) for metric in metrics.values()):
        raise KindError(
            f'metrics: expected functions by name, such as {{"accuracy": fnn.accuracy}}, got {shorten(metrics)}'
        )
    if "loss" in metrics:
        raise ArgumentError("metrics: expected names other than 'loss', which is the cost itself")
    return metrics


def check_data(net, loss, params, data, name="data"):
    """x, y and weights on the parameters' backend after every check: kinds, shapes, and values where they are known."""
    x, y, weights = unpack(data, name)
    labels = y
    try:
        params, x, y, weights = enter_batch(params, x, y, weights)
        known = not backend.is_traced(x, y, weights, *trees.leaves(params))
        concrete = y
        if known:
            concrete = on_host(y) if backend.is_jax(labels) else backend.as_array("y", labels, np)
        if known and backend.is_floating(x.dtype):
            finite("x", x)
        loss.check((len(x), *net.output_shape(x.shape[1:])), concrete, values=known)
        if known and weights is not None:
            finite("weights", weights)
            not_negative("weights", weights)
    except FnnError as error:
        raise error.at(name) if name != "data" else error  # noqa: B904 - the same error, its place added
    return x, y, weights


def check_state(state):
    if not isinstance(state, TrainState):
        raise KindError(f"state: expected a TrainState, as fnn.init_state gives, got {shorten(state)}")
    return state

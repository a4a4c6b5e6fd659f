"""The host's loop: `fit` runs `train` epoch by epoch, validates after each and shows how it goes; and `evaluate`."""

import sys
from typing import Any

import numpy as np

from . import backend, random, trees
from .backprop import check_problem, mean_cost
from .batching import steps_per_epoch
from .errors import ArgumentError, KindError, MissingExtraError, integer, require, shorten
from .training import TrainState, check_data, init_state, run_epochs, unpack


def fit(
    net,
    loss,
    optimizer,
    data,
    *,
    epochs,
    batch_size,
    key=None,
    validation=None,
    metrics=None,
    penalty=None,
    shuffle=True,
    progress=None,
):
    """Train a network: `(state, history)`.

    Arguments: `optimizer` such as `fnn.Adam(1e-3)`, with a `key` for initial values and order, or the `TrainState`
    of an earlier run, which then goes on; `data` and `validation` are `(x, y)` or `(x, y, weights)`; `metrics` are
    functions by name, such as `{"accuracy": fnn.accuracy}`, each of (prediction, target) or, where there are
    weights, (prediction, target, weights), evaluated on the validation data; `penalty` such as `fnn.L2(1e-4)`;
    `progress` shows a bar (the extra `progress`): by default on a terminal only. The rest is as for `train`.

    history holds an array for each name, with a number for each epoch: `loss` (the mean over the epoch as the
    parameters were then, penalty included), and `validation_loss`, `validation_accuracy` and the like after each epoch.

    >>> from fnn import Quadratic, Sgd, mlp
    >>> data = np.eye(2), np.ones((2, 1))
    >>> key = random.key(0, backend="numpy")
    >>> state, history = fit(mlp((1,)), Quadratic(), Sgd(0.1), data, key=key, epochs=3, batch_size=2)
    >>> history["loss"].shape
    (3,)
    """
    check_problem(net, loss, penalty)
    epochs = integer("epochs", epochs, least=1)
    metrics = _checked_metrics(metrics)
    x: Any = unpack(data)[0]
    x = x if backend.is_jax(x) else backend.as_array("x", x, np)
    steps_per_epoch(len(x) if x.ndim else 0, batch_size)
    if isinstance(optimizer, TrainState):
        if key is not None:
            raise ArgumentError("key: expected None with the state of an earlier run, which has its own key")
        state = optimizer
    else:
        if key is None:
            raise KindError("key: expected a key such as fnn.random.key(0), got None")
        state = init_state(net, optimizer, random.check_key(key), x.shape[1:])
    data = check_data(net, loss, state.params, (x, *tuple(data)[1:]))
    if validation is not None:
        validation = check_data(net, loss, state.params, validation, "validation")

    history = {}
    bar = _progress_bar(progress, epochs)
    for _ in range(epochs):
        state, steps = run_epochs(
            state, penalty, *data, net=net, loss=loss, epochs=1, batch_size=batch_size, shuffle=bool(shuffle)
        )
        losses, weights = np.asarray(steps["loss"], np.float64), np.asarray(steps["weight"], np.float64)
        record = {"loss": float((losses * weights).sum() / max(weights.sum(), np.finfo(np.float64).tiny))}
        if validation is not None:
            found = _evaluate(net, loss, state.params, validation, None, metrics)
            record |= {f"validation_{name}": value for name, value in found.items()}
        for name, value in record.items():
            history.setdefault(name, []).append(value)
        if bar is not None:
            bar.set_postfix({name.replace("validation_", "val_"): f"{value:.4f}" for name, value in record.items()})
            bar.update()
    if bar is not None:
        bar.close()
    return state, {name: np.array(values) for name, values in history.items()}


def evaluate(net, loss, params, data, *, batch_size=None, metrics=None):
    """The mean cost and the metrics on data, as a dict of floats: `{"loss": ..., "accuracy": ...}`.

    Nothing is dropped out, and no penalty counts. `batch_size` bounds the memory, 1,024 examples by default; the
    figures do not depend on it. `metrics` are as for `fit`, on NumPy arrays: they see `loss.predict` of the
    network's output, that is probabilities.

    >>> from fnn import Quadratic, mlp
    >>> net = mlp((1,))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> evaluate(net, Quadratic(), params, (np.zeros((3, 2)), np.ones((3, 1))))
    {'loss': 0.5}
    """
    check_problem(net, loss)
    return _evaluate(net, loss, params, check_data(net, loss, params, data), batch_size, _checked_metrics(metrics))


def _evaluate(net, loss, params, data, batch_size, metrics):
    x, y, weights = data
    batch_size = min(len(x), 1024 if batch_size is None else integer("batch_size", batch_size, least=1))
    prediction, value = _predict(params, x, y, weights, net=net, loss=loss, batch_size=batch_size)
    on_host = [np.asarray(array) for array in (prediction, y, weights) if array is not None and metrics]
    return {"loss": float(value)} | {name: float(metric(*on_host)) for name, metric in metrics.items()}


@backend.jit(static=("net", "loss", "batch_size"))
def _predict(params, x, y, weights, *, net, loss, batch_size):
    """What the network predicts for all examples, batch by batch, and the mean cost."""
    n = len(x)
    xp = backend.namespace(*trees.leaves(params), x)
    starts = xp.arange(-(-n // batch_size), dtype=np.int32) * batch_size

    def batch(_, start):
        index = xp.minimum(start + xp.arange(batch_size, dtype=np.int32), n - 1)
        return (), net.forward(params, xp.take(x, index, axis=0, mode="clip"))[0]

    _, output = backend.scan(batch, (), starts)
    output = output.reshape(-1, *output.shape[2:])[:n]
    output = backend.cast(output, backend.at_least_float32(output.dtype))
    return loss.predict(output), mean_cost(loss, loss.value(output, y), weights)[0]


def _checked_metrics(metrics):
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, dict) or not all(callable(metric) for metric in metrics.values()):
        raise KindError(
            f'metrics: expected functions by name, such as {{"accuracy": fnn.accuracy}}, got {shorten(metrics)}'
        )
    return metrics


def _progress_bar(progress, epochs):
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return None
    try:
        return require("tqdm", "progress").tqdm(total=epochs, unit="epoch", file=sys.stderr)
    except MissingExtraError:
        if progress:
            raise
        return None

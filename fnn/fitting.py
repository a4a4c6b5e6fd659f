"""The host's loop: `fit` runs `train` epoch by epoch, validates after each and shows how it goes; and `evaluate`."""

import functools
import math
import sys
from typing import Any

import numpy as np

from . import backend, random, trees
from .backend import namespace
from .backprop import check_problem, unpack
from .batching import batches, steps_per_epoch
from .diagnostics import Statistics, layer_names, statistics_of
from .errors import ArgumentError, DivergenceError, KindError, MissingExtraError, integer, real, require, shorten
from .optimizers import SkipNonFinite
from .schedules import ExponentialDecay
from .training import (
    TrainState,
    check_data,
    check_metrics,
    check_validation,
    init_state,
    measure,
    predict,
    run,
    train,
)


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
    patience=None,
    stop_below=None,
    telemetry=None,
    progress=None,
):
    """Train a network: `(state, history)`.

    Arguments: `optimizer` such as `fnn.Adam(1e-3)`, with a `key` for initial values and order, or the `TrainState`
    of an earlier run, which then goes on; `data` and `validation` are `(x, y)` or `(x, y, weights)`; `metrics` are
    functions by name, such as `{"accuracy": fnn.accuracy}`, each of (prediction, target) or, where there are
    weights, (prediction, target, weights), evaluated on the validation data; `penalty` such as `fnn.L2(1e-4)`;
    `progress` shows a bar (the extra `progress`): by default on a terminal only. The rest is as for `train`.

    Where the loss or a parameter is no finite number any more, `DivergenceError` names the step and the layer, and
    holds the state before it; with `fnn.SkipNonFinite` in the optimizer such steps are left out, and counted there.

    `telemetry` is a number of examples, such as 512, on which each epoch ends with the figures of every layer: dead and
    saturated units, errors, gradients, steps. `history["telemetry"]` is then a `fnn.diagnostics.Statistics` of arrays
    (epochs, layers). It costs one more forward and backward pass of so many examples an epoch: of 60,000 in batches of
    128, 1 % of the time.

    It stops before `epochs` are done after an epoch whose `loss` is less than `stop_below`, or when for `patience`
    epochs the loss (on the validation data, if there are any) has not been less than ever before. With `patience` the
    state is that after the best epoch, however the run ended, and a run can go on from it. L. Prechelt, "Early
    stopping, but when?" (1998).

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
    metrics = check_metrics(metrics)
    patience = None if patience is None else integer("patience", patience, least=1)
    stop_below = -math.inf if stop_below is None else real("stop_below", stop_below)
    x, _ = _examples(data, batch_size)
    if isinstance(optimizer, TrainState):
        if key is not None:
            raise ArgumentError("key: expected None with the state of an earlier run, which has its own key")
        state = optimizer
    else:
        if key is None:
            raise KindError("key: expected a key such as fnn.random.key(0), got None")
        state = init_state(net, optimizer, random.check_key(key), x.shape[1:])
    data = check_data(net, loss, state.params, (x, *tuple(data)[1:]))
    if telemetry is not None:
        probe = _spread(integer("telemetry", telemetry, least=2), *data[:2])
    if validation is None and metrics:
        raise ArgumentError("metrics: expected validation data too, on which they are evaluated")
    if validation is not None:
        validation = check_validation(net, loss, state.params, validation, data)

    history, figures, best, least, waited = {}, [], state, math.inf, 0
    bar = _progress_bar(progress, epochs)
    how = {"net": net, "loss": loss, "batch_size": batch_size, "shuffle": bool(shuffle)}
    for _ in range(epochs):
        began = state
        state, steps = run(state, penalty, *data, epochs=1, **how)
        losses, weights = np.asarray(steps["loss"], np.float64), np.asarray(steps["weight"], np.float64)
        fine = np.isfinite(losses)
        if not (fine.all() and _finite(state.params)) and not _skips(state.optimizer):
            if bar is not None:
                bar.close()
            found = {name: np.array(values) for name, values in history.items()}
            raise _diverged(began, penalty, data, losses, found, **how)
        losses, weights = losses[fine], weights[fine]  # what is not finite was left out
        mean = (losses * weights).sum() / max(weights.sum(), np.finfo(np.float64).tiny)
        record = {"loss": float(mean) if fine.any() else math.nan}
        if validation is not None:
            found = _evaluate(net, loss, state.params, validation, metrics)
            record |= {f"validation_{name}": value for name, value in found.items()}
        if telemetry is not None:
            figures.append(statistics_of(state.params, *probe, state, net=net, loss=loss))
        for name, value in record.items():
            history.setdefault(name, []).append(value)
        if bar is not None:
            numbers = {name.replace("validation_", "val_"): v for name, v in record.items() if np.ndim(v) == 0}
            bar.set_postfix({name: f"{value:.4f}" for name, value in numbers.items()})
            bar.update()
        watched = record["loss" if validation is None else "validation_loss"]
        best, least, waited = (state, watched, 0) if watched < least else (best, least, waited + 1)
        if record["loss"] < stop_below or waited == patience:
            break
    if bar is not None:
        bar.close()
    state = state if patience is None else best
    record: dict[str, Any] = {name: np.array(values) for name, values in history.items()}
    if figures:
        record["telemetry"] = Statistics(*(np.array(columns) for columns in zip(*figures, strict=True)))
    return state, record


@backend.jit
def _finite(params):
    """Whether every parameter is a finite number."""
    sums = [namespace(p).isfinite(p).all() for p in trees.leaves(params)]
    return functools.reduce(lambda a, b: a & b, sums, np.True_)


def _skips(optimizer):
    """Whether steps that are not finite are left out, wherever in the optimizer that is said."""
    inner = optimizer if isinstance(optimizer, tuple) else ()
    return isinstance(optimizer, SkipNonFinite) or any(_skips(part) for part in inner)


def _diverged(began, penalty, data, losses, history, *, net, loss, batch_size, shuffle):
    """What to raise of an epoch that began at this state: its first bad step, found by going there once more."""

    def before(step):
        how = {"net": net, "loss": loss, "batch_size": batch_size, "shuffle": shuffle, "steps": step}
        return run(began, penalty, *data, **how)[0] if step else began

    bad = np.flatnonzero(~np.isfinite(losses))
    step = int(bad[0]) if len(bad) else len(losses) - 1
    state = before(step)
    if not _finite(state.params):  # it was the step before that made them so
        step -= 1
        state = before(step)
    x, y, _ = data
    index, mask = batches(state.key, len(x), batch_size, state.step, 1, shuffle and batch_size < len(x))
    chosen = np.asarray(index)[np.asarray(mask)]
    found = Statistics(*map(np.asarray, statistics_of(state.params, x[chosen], y[chosen], None, net=net, loss=loss)))
    names = layer_names(net, state.params, x.shape[1:])
    outputs, errors, gradients = (np.flatnonzero(np.isinf(v)) for v in (found.mean, found.delta, found.gradient))
    what = "the optimizer's step is"
    if len(outputs):
        what = f"the outputs of {names[outputs[0]]} are"
    elif len(errors):
        what = f"the errors at {names[errors[-1]]} are"  # they come from the last layer
    elif len(gradients):
        what = f"the gradient of {names[gradients[-1]]} is"
    where = f"step {int(state.step)} (epoch {int(state.step) // len(losses)})"
    return DivergenceError(
        f"{where}: the loss is {losses[step]:g}, and {what} not finite. The state before it, and the history of the "
        "epochs before, are .state and .history of this error. What helps: a lower learning rate; fnn.ClipByGlobalNorm "
        "around the optimizer; fnn.SkipNonFinite, which leaves such steps out",
        state,
        history,
    )


def _spread(count, x, y):
    """So many examples, or all there are, evenly from the first to the last."""
    chosen = np.linspace(0, len(x) - 1, min(count, len(x))).astype(np.int32)
    return x[chosen], y[chosen]


def range_test(net, loss, optimizer, data, *, epochs, batch_size, key, low=1e-5, high=10.0):
    """A learning-rate range test, one run whose rate grows: `(rates, losses)`, NumPy arrays with a number a step.

        η(t) = low · (high / low)ᵗᐟˢ        s steps, of `epochs` epochs

    Arguments: `optimizer`, any that has a learning rate, whatever it is; the first and last rate, `low` 10⁻⁵ and
    `high` 10; the rest is as for `fit`. `losses` are those of the batches. Where they fall most steeply is a good rate,
    the one where they begin to grow is too large; a few hundred steps show it. L. Smith, "Cyclical learning rates for
    training neural networks" (2017), §3.3, who lets it grow in a straight line.

    >>> from fnn import Quadratic, Sgd, mlp
    >>> data, key = (np.eye(2), np.ones((2, 1))), random.key(0, backend="numpy")
    >>> rates, losses = range_test(mlp((1,)), Quadratic(), Sgd(1), data, epochs=50, batch_size=2, key=key, high=100.0)
    >>> len(losses), bool(losses[-1] > losses[0])
    (50, True)
    """
    if isinstance(optimizer, type) or "learning_rate" not in getattr(optimizer, "_fields", ()):
        raise KindError(f"optimizer: expected one with a learning_rate, such as fnn.Adam(), got {shorten(optimizer)}")
    low = real("low", low, above=0)
    high = real("high", high, above=low)
    x, steps = _examples(data, batch_size)
    steps *= integer("epochs", epochs, least=1)
    rising = ExponentialDecay(low, high / low, steps)
    state = init_state(net, optimizer._replace(learning_rate=rising), random.check_key(key), x.shape[1:])
    _, history = train(net, loss, state, data, epochs=epochs, batch_size=batch_size)
    return rising(np.arange(steps)), np.asarray(history["loss"])


def _examples(data, batch_size):
    """x as an array, from which a new network takes the shape of its inputs, and the steps of an epoch."""
    x: Any = unpack(data)[0]
    x = x if backend.is_jax(x) else backend.as_array("x", x, np)
    return x, steps_per_epoch(len(x) if x.ndim else 0, batch_size)


def evaluate(net, loss, params, data, *, batch_size=1024, metrics=None):
    """The mean cost and the metrics on data, as a dict of floats (or arrays, where a metric gives one) by name.

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
    batch_size = integer("batch_size", batch_size, least=1)
    return _evaluate(net, loss, params, check_data(net, loss, params, data), check_metrics(metrics), batch_size)


def _evaluate(net, loss, params, data, metrics, batch_size=1024):
    prediction, value = predict(params, *data, net=net, loss=loss, batch_size=batch_size)
    on_host = [None if a is None or not metrics else np.asarray(a) for a in (prediction, *data[1:])]
    found = {name: np.asarray(v) for name, v in measure(metrics.items(), *on_host).items()}
    return {"loss": float(value)} | {name: v if v.ndim else float(v) for name, v in found.items()}


def _progress_bar(progress, epochs):
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return None
    try:
        return require("tqdm", "progress").tqdm(total=epochs, unit="epoch", file=sys.stderr)
    except MissingExtraError:
        if progress:
            raise
        return None

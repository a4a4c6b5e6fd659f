"""The host's loop: `fit` runs `train` epoch by epoch, validates after each and shows how it goes; and `evaluate`."""

import contextlib
import functools
import math
import sys
from typing import Any

import numpy as np

from . import backend, random, streaming, trees
from .backend import namespace
from .backprop import check_problem, enter_batch, mean_cost, unpack
from .batching import batches, steps_per_epoch
from .diagnostics import Statistics, layer_names, statistics_of
from .errors import ArgumentError, DivergenceError, KindError, MissingExtraError, integer, real, require, shorten
from .layers import enter
from .optimizers import SkipNonFinite
from .resuming import Run, Store, leave, listening
from .schedules import ExponentialDecay
from .training import (
    TrainState,
    check_alike,
    check_metrics,
    init_state,
    measure,
    predict,
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
    checkpoint=None,
    every=1,
    keep=3,
    resume=False,
    progress=None,
):
    """Train a network: `(state, history)`.

    Arguments: `optimizer` such as `fnn.Adam(1e-3)`, with a `key` for initial values and order, or the `TrainState`
    of an earlier run, which then goes on; `data` and `validation` are `(x, y)` or `(x, y, weights)`; `metrics` are
    functions by name, such as `{"accuracy": fnn.accuracy}`, each of (prediction, target) or, where there are
    weights, (prediction, target, weights), evaluated on the validation data; `penalty` such as `fnn.L2(1e-4)`;
    `progress` shows a bar (the extra `progress`): by default on a terminal only. The rest is as for `train`.

    Data larger than memory are arrays that lie in files, `fnn.datasets.read_npy(path, mapped=True)` or what is cut from
    them: they are looked through once, and then no more than some batches (16 MiB) are in memory. The run is that of
    the same data in memory; a copy, `np.array(x)`, brings them there.

    `checkpoint` is a folder for checkpoints: after `every` epochs, 1 by default, and at the end all that it takes to go
    on is saved there, and the newest `keep`, 3 by default, are kept. `resume=True` goes on from the newest one that is
    whole, if there is any, to the same result as if the run had never stopped. With a checkpoint, SIGTERM and Ctrl-C
    let it finish some steps (a tenth of an epoch at most) and save; it says where, and leaves with status 143, or by
    KeyboardInterrupt.

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
    data = streaming.check(net, loss, state.params, (x, *tuple(data)[1:]))
    if telemetry is not None:
        probe = _spread(integer("telemetry", telemetry, least=2), state.params, *data[:2])
    if validation is None and metrics:
        raise ArgumentError("metrics: expected validation data too, on which they are evaluated")
    if validation is not None:
        validation = streaming.check(net, loss, state.params, validation, "validation")
        check_alike(validation, data)

    how = {"net": net, "loss": loss, "batch_size": batch_size, "shuffle": bool(shuffle)}
    per_epoch, best = steps_per_epoch(len(data[0]), batch_size), state if patience else None
    now = Run(state, best, math.inf, 0, {}, [], np.zeros((0, 2)))
    store, piece = None, per_epoch
    if checkpoint is not None:
        setting = {"batch_size": batch_size, "shuffle": bool(shuffle), "examples": len(data[0])}
        store, piece = Store(checkpoint, net, setting, every, keep), -(-per_epoch // 10)
        now = store.begin(now, resume)
    elif resume:
        raise ArgumentError("resume: expected a folder to go on from, checkpoint=...")
    with _progress_bar(progress, epochs, now.epochs) as bar, listening(store is not None) as caught:
        while now.epochs < epochs and not (_last_loss(now) < stop_below or now.waited == patience):
            began = now.state
            steps = min(piece, per_epoch - len(now.steps))
            state, done = streaming.advance(began, penalty, data, steps=steps, **how)
            done = np.stack([np.asarray(done[name], np.float64) for name in ("loss", "weight")], axis=1)
            if not (np.isfinite(done[:, 0]).all() and _finite(state.params)) and not _skips(state.optimizer):
                kept = "" if store is None else f" The newest checkpoint is {store.newest()}."
                raise _diverged(began, penalty, data, done[:, 0], now.told(), per_epoch, kept, **how)
            now = now._replace(state=state, steps=np.concatenate([now.steps, done]))
            if len(now.steps) == per_epoch:
                record = {"loss": _mean(*now.steps.T)}
                if validation is not None:
                    found = _evaluate(net, loss, state.params, validation, metrics)
                    record |= {f"validation_{name}": value for name, value in found.items()}
                figures = [] if telemetry is None else [statistics_of(state.params, *probe, state, net=net, loss=loss)]
                now = _end_of_epoch(now, record, figures)
                if bar is not None:
                    bar.set_postfix(
                        {k.replace("validation_", "val_"): f"{v:.4f}" for k, v in record.items() if not np.ndim(v)}
                    )
                    bar.update()
                if store is not None and now.epochs % every == 0:
                    store.save(now)
            if caught:
                break
        path = None if store is None else store.save(now)
    if caught:
        leave(caught[0], path)
    return (now.state if patience is None else now.best), now.told()


def _end_of_epoch(now, record, figures):
    """The run with this record, and these figures, of the epoch that is now done."""
    watched = record.get("validation_loss", record["loss"])
    best = {"waited": now.waited + 1}
    if watched < now.least:
        best = {"best": None if now.best is None else now.state, "least": watched, "waited": 0}
    history = {name: [*now.history.get(name, ()), value] for name, value in record.items()}
    return now._replace(history=history, telemetry=now.telemetry + figures, steps=np.zeros((0, 2)), **best)


def _mean(losses, weights):
    """The mean loss of an epoch, of its steps that were not left out."""
    fine = np.isfinite(losses)
    mean = (losses[fine] * weights[fine]).sum() / max(weights[fine].sum(), np.finfo(np.float64).tiny)
    return float(mean) if fine.any() else math.nan


def _last_loss(now):
    return now.history["loss"][-1] if now.epochs else math.inf


@backend.jit
def _finite(params):
    """Whether every parameter is a finite number."""
    sums = [namespace(p).isfinite(p).all() for p in trees.leaves(params)]
    return functools.reduce(lambda a, b: a & b, sums, np.True_)


def _skips(optimizer):
    """Whether steps that are not finite are left out, wherever in the optimizer that is said."""
    inner = optimizer if isinstance(optimizer, tuple) else ()
    return isinstance(optimizer, SkipNonFinite) or any(_skips(part) for part in inner)


def _diverged(began, penalty, data, losses, history, per_epoch, kept, *, net, loss, batch_size, shuffle):
    """What to raise of steps that began at this state: its first bad step, found by going there once more."""

    def before(step):
        how = {"net": net, "loss": loss, "batch_size": batch_size, "shuffle": shuffle, "steps": step}
        return streaming.advance(began, penalty, data, **how)[0] if step else began

    bad = np.flatnonzero(~np.isfinite(losses))
    step = int(bad[0]) if len(bad) else len(losses) - 1
    state = before(step)
    if step and not _finite(state.params):  # it was the step before that made them so
        step -= 1
        state = before(step)
    n = len(data[0])
    index, mask = batches(state.key, n, batch_size, state.step, 1, shuffle and batch_size < n)
    _, x, y = enter(state.params, *streaming.read(data[:2], np.asarray(index)[np.asarray(mask)]))
    found = Statistics(*map(np.asarray, statistics_of(state.params, x, y, None, net=net, loss=loss)))
    names = layer_names(net, state.params, x.shape[1:])
    outputs, errors, gradients = (np.flatnonzero(np.isinf(v)) for v in (found.mean, found.delta, found.gradient))
    what = "the optimizer's step is"
    if len(outputs):
        what = f"the outputs of {names[outputs[0]]} are"
    elif len(errors):
        what = f"the errors at {names[errors[-1]]} are"  # they come from the last layer
    elif len(gradients):
        what = f"the gradient of {names[gradients[-1]]} is"
    where = f"step {int(state.step)} (epoch {int(state.step) // per_epoch})"
    return DivergenceError(
        f"{where}: the loss is {losses[step]:g}, and {what} not finite. The state before it, and the history of the "
        f"epochs before, are .state and .history of this error.{kept} What helps: a lower learning rate; "
        "fnn.ClipByGlobalNorm around the optimizer; fnn.SkipNonFinite, which leaves such steps out",
        state,
        history,
    )


def _spread(count, params, x, y):
    """So many examples, or all there are, evenly from the first to the last."""
    chosen = np.linspace(0, len(x) - 1, min(count, len(x))).astype(np.int32)
    return enter(params, *streaming.read((x, y), chosen))[1:]


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
    data = streaming.check(net, loss, state.params, data)
    how = {"net": net, "loss": loss, "batch_size": batch_size, "shuffle": True}
    _, history = streaming.advance(state, None, data, steps=steps, **how)
    return rising(np.arange(steps)), np.asarray(history["loss"])


def _examples(data, batch_size):
    """x as an array, from which a new network takes the shape of its inputs, and the steps of an epoch."""
    x: Any = unpack(data)[0]
    x = x if backend.is_jax(x) or streaming.mapped(x) is not None else backend.as_array("x", x, np)
    return x, steps_per_epoch(len(x) if x.ndim else 0, batch_size)


def evaluate(net, loss, params, data, *, batch_size=1024, metrics=None):
    """The mean cost and the metrics on data, as a dict of floats (or arrays, where a metric gives one) by name.

    Nothing is dropped out, and no penalty counts. `batch_size` bounds the memory, 1,024 examples by default; the
    figures do not depend on it, and data in files are read some at a time. `metrics` are as for `fit`, on NumPy arrays:
    they see `loss.predict` of the network's output, that is probabilities.

    >>> from fnn import Quadratic, mlp
    >>> net = mlp((1,))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> evaluate(net, Quadratic(), params, (np.zeros((3, 2)), np.ones((3, 1))))
    {'loss': 0.5}
    """
    check_problem(net, loss)
    batch_size = integer("batch_size", batch_size, least=1)
    return _evaluate(net, loss, params, streaming.check(net, loss, params, data), check_metrics(metrics), batch_size)


def _evaluate(net, loss, params, data, metrics, batch_size=1024):
    found = []
    for _, *part in streaming.parts(data, batch_size):
        _, x, y, weights = enter_batch(params, *part)
        prediction, losses = predict(params, x, y, net=net, loss=loss, batch_size=batch_size)
        kept = (losses, weights, prediction, y) if metrics else (losses, weights, None, None)
        found.append([None if a is None else np.asarray(a) for a in kept])
    losses, weights, prediction, y = (None if of[0] is None else np.concatenate(of) for of in zip(*found, strict=True))
    value, _ = mean_cost(loss, losses, weights)
    measured = {name: np.asarray(v) for name, v in measure(metrics.items(), prediction, y, weights).items()}
    return {"loss": float(value)} | {name: v if v.ndim else float(v) for name, v in measured.items()}


@contextlib.contextmanager
def _progress_bar(progress, epochs, done):
    """A bar of the epochs, some of them done already, or None."""
    bar = None
    if progress or (progress is None and sys.stderr.isatty()):
        try:
            bar = require("tqdm", "progress").tqdm(total=epochs, initial=done, unit="epoch", file=sys.stderr)
        except MissingExtraError:
            if progress:
                raise
    try:
        yield bar
    finally:
        if bar is not None:
            bar.close()

"""The loop on the host: `fit` trains epoch by epoch, validates, saves checkpoints, stops early and shows progress."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import checks, gate, processes, random, trees  # noqa: F401 - random for the examples
from ..backpropagation import Problem, check_problem
from ..callbacks import Epoch, begun, call, changes_runs, check_callbacks, progress_bars
from ..devices import on_any_axes
from ..diagnostics import statistics_of
from ..errors import ArgumentError, DivergenceError, KindError, integer, real, shorten, usage
from ..layers import Layer
from ..losses import Loss
from ..optimizers.extras import skips
from ..optimizers.rates import last_rate
from ..order import Plan
from ..rules import Backprop
from ..schedules import ExponentialDecay
from ..scoring import Score, check_scores
from ..streams import Stream, admitted, opened, present
from ..watching import Watch
from .evaluation import check_evaluation, check_metrics, check_weights, evaluated
from .loop import advance, all_finite, diverged, plan_of, steps_at_once
from .resuming import Run, Store, leave, listening
from .setting import fingerprint, setting_of, start_of
from .state import TrainState, changed, check_counters, init_state, next_epoch, prepared
from .step import weights_for


@on_any_axes
@usage("fnn.fit(net, loss, optimizer, (x, y), key=key, epochs=10, batch_size=32)")
def fit(
    net: Layer,
    loss: Loss,
    optimizer: Any,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: Any = None,
    params: Any = None,
    rule: Any = None,
    validation: Any = None,
    metrics: Any = None,
    penalty: Any = None,
    denominator: float | None = None,
    shuffle: bool = True,
    patience: int | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    min_delta: float = 0.0,
    start_after: int = 0,
    stop_below: float | None = None,
    telemetry: int | None = None,
    callbacks: Sequence[Callable] = (),
    checkpoint: Any = None,
    every: int = 1,
    keep: int = 3,
    resume: bool = False,
    progress: bool | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Train a network, with validation, early stopping, checkpoints and a progress bar.

    On JAX, each size of network and data compiles its own programs. `fnn.backend.programs.PROGRAMS` of them, 128, are
    kept, of some megabytes each; beyond that all are dropped, so that a search may train any number of networks in one
    process. JAX itself remembers about half a megabyte of each size, which `jax.clear_caches()` frees.

    Args:
        net: the network.
        loss: the cost.
        optimizer: an optimizer such as `fnn.Adam(1e-3)`, together with a `key`; or the `TrainState` of an earlier run,
            to continue that run.
        data: `(x, y)` or `(x, y, weights)`, with the examples along the first axis. x and y are arrays, or dicts or
            NamedTuples of arrays. For data larger than memory, pass memory-mapped arrays, such as
            `fnn.datasets.read_npy(path, mapped=True)` or slices of it. They are checked once and then streamed, with
            only a few batches (16 MiB) in memory at a time. The run is the same as with the data in memory. Or
            `fnn.Batches` of an iterable, such as a PyTorch `DataLoader`: the run is that of arrays in the same order.
        epochs: the maximum number of epochs; every epoch uses every example exactly once.
        batch_size: examples per step. With `fnn.Batches` the most that a batch has; by default, what the first has.
        key: the random key for the initial parameters and the order of examples, such as `fnn.random.key(0)`.
        params: parameters to begin with, such as those of `fnn.standardized` or of a network that was trained before.
            Default: new ones.
        rule: how a batch becomes a gradient, such as `fnn.rules.Private(...)`. Default: `fnn.rules.Backprop()`.
        validation: data of the same form, on which the network is evaluated after each epoch. Default: None.
        metrics: functions by name, such as `{"accuracy": fnn.accuracy}`, evaluated on the validation data. Each is
            called with (prediction, target) or, if there are weights, with (prediction, target, weights), by name where
            an argument is called `weights`; and with the label that the cost ignores, where an argument `ignored` is
            None by default. Or names of scikit-learn's scores, `("roc_auc", "f1_macro")`, or such names in place of
            functions; see `fnn.scoring`. Default: None.
        penalty: a penalty such as `fnn.L2(1e-4)`. Default: None.
        denominator: what Σ w ℓ of a batch is divided by. Required for negative weights. Default: Σ w.
        shuffle: whether to shuffle the examples; False keeps the order of the data. `fnn.Batches` always keep theirs.
            Default: True.
        patience: stop once the loss (on the validation data, if given) has not reached a new minimum for this many
            epochs. The state returned is then the one after the best epoch, however the run ended, and
            `history["returned_epoch"]` its index. The next four say what the best epoch is. Default: None.
        monitor: the metric to watch in place of the loss, by its name in the history, such as "validation_accuracy".
        mode: "min" if the metric should be small, "max" if large. Default: "min" for losses, "max" for scores of
            scikit-learn; required for others.
        min_delta: an epoch is better only if the metric improves by more than this, ≥ 0. Default: 0.
        start_after: the first epochs, this many, are not watched. Default: 0.
        stop_below: stop after an epoch whose `loss` is below this value. Default: None.
        telemetry: the number of examples, such as 512, on which statistics of every layer are computed after each
            epoch: dead and saturated units, errors, gradients, steps. `history["telemetry"]` is then a
            `fnn.diagnostics.Statistics` of arrays (epochs, layers). The cost is one extra forward and backward pass
            over that many examples per epoch. Default: None.
        callbacks: functions, or objects such as `fnn.callbacks.CsvLog(path)`, called with a `fnn.callbacks.Epoch` after
            each epoch. One may stop the run, or change its state; see `fnn.callbacks`. An error in one ends the run, as
            any other does. Default: none.
        checkpoint: a folder for checkpoints, from which the run can be continued; one is saved after every `every`
            epochs and at the end. On SIGTERM or Ctrl-C the run then finishes a few more steps (at most a tenth of an
            epoch), saves, prints where, and exits with status 143 or raises KeyboardInterrupt. On JAX these shorter
            programs may differ in the last digits from a run without checkpoints. Of a private run publish only the
            parameters, since a checkpoint holds the key and a checksum of the data. Default: None.
        every: epochs between checkpoints. Default: 1.
        keep: how many of the newest checkpoints of this run to keep. Default: 3.
        resume: whether to continue from the newest intact checkpoint, if there is one; the result is the same as if
            the run had never stopped. Everything that the result depends on must be as it was: network, cost, penalty,
            optimizer, rule, key, data and so on; functions are compared by their names and by what they enclose. Only
            `epochs`, `stop_below`, the number of epochs of `patience`, and callbacks that do not change the state may
            differ. A run that began from a state is given that state again, or the newest one. To change a run on
            purpose, continue its state in another folder: `state = fnn.checkpoints.load(path).tree["state"]`, perhaps
            with `state._replace(optimizer=...)`, then `fit(net, loss, state, ...)`. Of `fnn.Batches` only the number,
            shapes and dtypes are compared: the result is the same if they give the same batches in the same order
            whenever an epoch is read again. A loader that shuffles by a generator of its own goes on in another order;
            a function of the epoch does not. Iterators, which cannot be read again, are refused. Default: False.
        progress: whether to show a progress bar (needs the extra `progress`). Default: only on a terminal or in a
            notebook.

    Returns:
        `(state, history)`: the `TrainState` after the run, and a dict of arrays with one entry per epoch. `loss` is
        the mean over the steps of the epoch, each evaluated at the parameters of that step, penalty included. Then
        come the means of the rule's metrics, and, after each epoch, `validation_loss`, `validation_accuracy` and so
        on. With a private rule, `history["not_private"]` names the entries that the guarantee does not cover.

    Raises:
        ArgumentError: if the folder holds a run already and `resume` is False, or if it holds another run; the message
            names what differs.
        CheckpointError: if a checkpoint cannot be saved, or another run is writing to the folder.
        DivergenceError: if the loss or a parameter becomes NaN or infinite. The error names the step and the layer and
            holds the state before that step. With `fnn.SkipNonFinite` in the optimizer such steps are skipped and
            counted instead.
        Exception: any other error during the run, Ctrl-C (KeyboardInterrupt) included, has what was reached as
            `error.state`, `error.history` and, with `patience`, `error.best`, the state after the best epoch. Another
            `fit` goes on from `error.state`. In a console, `sys.last_value` is the last error.

    Warns:
        UserWarning: if the loss of every epoch after the first was more than ten times that of the first. A run whose
            first epoch is far above the cost of an untrained network (log C for `SoftmaxCrossEntropy` with C classes)
            has the same causes: steps that are too large, or data that are not scaled.

    Source: L. Prechelt, "Early stopping, but when?" (1998).

    >>> from fnn import Quadratic, Sgd, mlp
    >>> data = np.eye(2), np.ones((2, 1))
    >>> key = random.key(0, backend="numpy")
    >>> state, history = fit(mlp((1,)), Quadratic(), Sgd(0.1), data, key=key, epochs=3, batch_size=2)
    >>> history["loss"].shape
    (3,)
    """
    check_problem(net, loss, penalty, denominator)
    started = time.perf_counter()
    epochs, metrics = integer("epochs", epochs, least=1), check_metrics(metrics)
    patience = None if patience is None else integer("patience", patience, least=1)
    if isinstance(metrics.get(str(monitor).removeprefix("validation_")), Score):
        if mode == "min":
            raise ArgumentError(f"mode: expected 'max' with monitor={monitor!r}, a score that is larger if better")
        mode = "max"
    watch = None if patience is None else Watch(monitor, mode, min_delta).checked()
    start_after, callbacks = integer("start_after", start_after), check_callbacks(callbacks)
    if watch is None and (monitor, mode, min_delta, start_after) != (None, None, 0, 0):
        raise ArgumentError("monitor, mode, min_delta, start_after: expected patience too, of which they are part")
    stop_below = -math.inf if stop_below is None else real("stop_below", stop_below)
    if isinstance(optimizer, TrainState):
        state = prepared(resumed(optimizer, key=key, rule=rule, params=params))
        checks.on_the_host("fit", "fnn.train", state)
        epoch = int(np.asarray(state.epoch)) + bool(np.asarray(state.seen) > 0)  # an unfinished one is skipped
        data = opened(data, batch_size=batch_size, epoch=epoch)
    else:
        data = opened(data, batch_size=batch_size)
        state = init_state(net, optimizer, key, data.shape, params=params, rule=rule)
    data = admitted(net, loss, state.params, data, weights=weights_for(state.rule, denominator))
    check_weights(data)
    if validation is not None:
        validation = admitted(net, loss, state.params, validation, "validation", like=data)
        check_evaluation(validation, metrics, "validation")
        check_scores(net, loss, validation, metrics)
    values = [None if some is None else tuple(present(some)) for some in (data, validation)]
    checks.on_the_host("fit", "fnn.train", state, penalty, denominator, values)
    plan = plan_of(state, data, batch_size, shuffle)
    check_counters(state, epochs, epochs * plan.steps)
    private = getattr(state.rule, "private", False)
    names = ["loss", *(f"validation_{name}" for name in ("loss", *metrics) if validation is not None)]
    watched = None if watch is None else watch.name(names)
    if private and (stop_below > -math.inf or (watched and not watched.startswith("validation_"))):
        raise ArgumentError(
            f"{'patience' if watched else 'stop_below'}: expected None or {'' if watched else 'patience with '}a "
            f"metric of validation data, since the training loss of {type(state.rule).__name__} is not private"
        )
    if watched and watched not in names and (watched.startswith("validation_") or isinstance(state.rule, Backprop)):
        raise ArgumentError(f"monitor: expected one of {', '.join(names)}, got {shorten(watched)}")
    probe = None
    if telemetry is not None:
        probe = gate.converted(state.params, *data.spread(integer("telemetry", telemetry, least=2)))
    if validation is None and metrics:
        raise ArgumentError("metrics: expected validation data too, on which they are evaluated")

    problem = Problem(net, loss, penalty, denominator)
    run = Run(next_epoch(state), state if watch else None, math.inf, 0, {}, {})
    store, piece, stops, longest = None, plan.steps, False, patience or math.inf
    if isinstance(data, Stream):
        piece = min(piece, steps_at_once(data, plan))
    if resume and not all(s.batches.begins_anew for s in (data, validation) if isinstance(s, Stream)):
        raise ArgumentError(
            "resume: expected data that can be read again from the first batch, got an iterator; give a function that "
            "makes one for each epoch: fnn.Batches(lambda epoch: make_batches(epoch), steps=...)"
        )
    if checkpoint is not None:
        options = {"validation": validation and fingerprint(state.params, validation), "telemetry": telemetry}
        options |= {"patience": "given", "monitor": watch, "start_after": start_after} if watch else {"patience": None}
        options |= {f"callbacks[{i}]": callback for i, callback in enumerate(filter(changes_runs, callbacks))}
        options |= {"start": start_of(state) if isinstance(optimizer, TrainState) else None}
        setting = setting_of(problem, state, plan, data, metrics, **options)
        store = Store(checkpoint, net, every, keep, setting, shared=not processes.all_here(state, data))
        piece, run = min(piece, -(-plan.steps // 10)), store.begin(run, resume)
    elif resume:
        raise ArgumentError("resume: expected a folder to continue from, checkpoint=...")
    keeping = lambda: kept_run(lambda: run)
    with (
        contextlib.closing(store) if store else contextlib.nullcontext(),
        contextlib.closing(data) if isinstance(data, Stream) else contextlib.nullcontext(),
        keeping(),
        begun(callbacks := (*callbacks, *progress_bars(progress, epochs, run.epochs)), run.state),
        listening(store is not None and not store.shared) as caught,
    ):
        while run.epochs < epochs and not (run.last_loss < stop_below or run.waited >= longest or stops or caught):
            before = run.state
            state, done = advance(problem, before, data, plan, min(piece, plan.steps - run.done))
            done = {name: np.asarray(values, np.float64) for name, values in done.items()}
            fine = np.isfinite(done["loss"]).all() or skips(state.optimizer)
            if not (fine and all_finite(state.params)):
                kept = f" The newest checkpoint is {store.newest()}." if store and store.newest() else ""
                raise diverged(problem, before, data, plan, done["loss"], run.history_arrays(), kept)
            run = run.moved(state, done)
            if run.done == plan.steps:
                record = run.epoch_means()
                if validation is not None:
                    results = evaluated(net, loss, state.params, validation, metrics)
                    record |= {f"validation_{name}": value for name, value in results.items()}
                figures = [] if probe is None else [statistics_of(state.params, *probe[:2], state, net=net, loss=loss)]
                run = run.finished(record, figures, watch, start_after)
                if callbacks:
                    counters, seconds = (int(state.epoch), int(state.step)), time.perf_counter() - started
                    report = Epoch(*counters, record, state, last_rate(state), seconds, run.history_arrays())
                    state, stops = call(callbacks, report, changed)
                    if state is not report.state and not all_finite(state.params):
                        raise ArgumentError("callbacks: expected a state whose parameters are finite, got others")
                    run = run._replace(state=state)
                if store is not None and run.epochs % every == 0:
                    store.save(run)
        path = None if store is None else store.save(run)
    if caught:
        with keeping():
            leave(caught[0], path)
    history = run.history_arrays()
    warn_if_worse(history["loss"])
    if private:
        history["not_private"] = tuple(name for name in history if not name.startswith("validation_"))
    if watch is None:
        return run.state, history
    warn_if_never_a_number(watch, history, start_after, run.best_epoch)
    return run.best, history | {"returned_epoch": run.best_epoch}


def resumed(state, **given) -> TrainState:
    """The state of an earlier run; raises if arguments are given that the state already has."""
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(f"{name}: expected None with the state of an earlier run, which has its own {name}")
    return state


@contextlib.contextmanager
def kept_run(run):
    """Attach what a run has reached, the result of `run()`, to the error that ends it, such as KeyboardInterrupt."""
    try:
        yield
    except BaseException as error:
        now = run()
        vars(error)["best"] = now.best
        if not isinstance(error, DivergenceError):  # which has the state before the bad step
            vars(error).update(state=now.state, history=now.history_arrays())
            error.add_note(
                f"The state after step {int(now.state.step)} of fit is this error's .state, see help(fnn.fit)"
            )
        raise


def warn_if_worse(losses):
    """Warn if every epoch after the first had more than ten times its loss. Each is a mean over all data."""
    if len(losses) > 1 and losses[1:].min() > 10 * losses[0] > 0:
        warnings.warn(
            f"fit: the loss rose from {losses[0]:.3g} in the first epoch to {losses[-1]:.3g} in the last. What helps: "
            "a lower learning rate; x and y of spread 1, as by fnn.Standardize; fnn.ClipByGlobalNorm around the "
            "optimizer. fnn.diagnose(net, loss, state.params, x, y) examines the layers.",
            stacklevel=5,  # the line that calls fit, beyond its decorators
        )


def warn_if_never_a_number(watch, history, start_after, returned):
    """Warn if what was watched was NaN after every epoch, so that no epoch was the best one."""
    name = watch.name(history)
    if np.isnan(history[name][start_after:]).all() and len(history["loss"]) > start_after:
        state = "the state that it began with" if returned < 0 else f"that of epoch {returned}"
        warnings.warn(
            f"fit: {name} was NaN after every epoch that is watched, so that the state returned is {state}. It may "
            "have no value on the validation data, as an area under a curve has none if they are of one class.",
            stacklevel=5,
        )


@on_any_axes
@usage("fnn.range_test(net, loss, optimizer, (x, y), epochs=1, batch_size=32, key=key)")
def range_test(
    net: Layer,
    loss: Loss,
    optimizer: Any,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: Any,
    low: float = 1e-5,
    high: float = 10.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a learning-rate range test: one run in which the learning rate grows at every step.

        η(t) = low · (high / low)ᵗᐟˢ        s steps, of `epochs` epochs

    A good rate is one at which the losses fall most steeply; the rate at which they begin to rise is too large. A few
    hundred steps are enough to see both.

    Args:
        net: the network.
        loss: the cost.
        optimizer: any optimizer with a `learning_rate`, whose value is ignored.
        data: `(x, y)` or `(x, y, weights)`, or `fnn.Batches`, as for `fit`.
        epochs: the length of the run in epochs.
        batch_size: examples per step, as for `fit`.
        key: the random key, as for `fit`.
        low: the first learning rate. Default: 10⁻⁵.
        high: the last learning rate. Default: 10.

    Returns:
        `(rates, losses)`: NumPy arrays with one entry per step; the losses are those of the batches.

    Source: L. Smith, "Cyclical learning rates for training neural networks" (2017), §3.3, where the rate grows
    linearly.

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
    data = opened(data, batch_size=batch_size)
    per_epoch = data.steps if isinstance(data, Stream) else Plan(data.size, batch_size).steps  # type: ignore[arg-type]
    steps = per_epoch * integer("epochs", epochs, least=1)
    rates = ExponentialDecay(low, high / low, steps)
    state = init_state(net, optimizer._replace(learning_rate=rates), key, data.shape)
    data = admitted(net, loss, state.params, data)
    check_weights(data)
    checks.on_the_host("range_test", "it outside", state, tuple(present(data)))
    _, history = advance(Problem(net, loss), state, data, plan_of(state, data, batch_size, True), steps)
    return rates(np.arange(steps)), np.asarray(history["loss"])

"""Faults of callbacks and of what stops a run, and the checks that have to find them."""

import importlib
import math
import tempfile
from pathlib import Path

import numpy as np
from helpers import run_problem
from helpers_training import scored
from planting import Fault, instead, result

import fnn
from fnn import callbacks, watching
from fnn.callbacks import STOP, CsvLog, Epoch, Plateau
from fnn.errors import FnnError
from fnn.optimizers import rates
from fnn.training import resuming

STATE = importlib.import_module("fnn.training.state")


# ---- checks ----------------------------------------------------------------------------------------------------------


def keras_rates(values, factor, patience, min_delta, mode):
    """The rate after each epoch, by the equations of Keras's ReduceLROnPlateau (cooldown 0, min_lr 0)."""
    less = (lambda a, b: a < b - min_delta) if mode == "min" else (lambda a, b: a > b + min_delta)
    best, wait, rate, rates = (math.inf if mode == "min" else -math.inf), 0, 1.0, []
    for value in values:
        if less(value, best):
            best, wait = value, 0
        else:
            wait += 1
            if wait >= patience:
                rate *= factor
                wait = 0
        rates.append(rate)
    return rates


def plateau(mode):
    """A rate falls as Keras's does: for values with ties, steps of `min_delta` itself, and some that are NaN."""

    def check():
        rng, state = np.random.default_rng(0), run_problem("numpy", fnn.Sgd(1.0))[2]
        for factor, patience, min_delta in [(0.5, 1, 0.0), (0.1, 2, 0.25), (0.25, 3, 0.5), (0.5, 5, 1e-4)]:
            values = np.round(rng.normal(size=40).cumsum()) / 4
            values[rng.integers(0, 40, 3)] = np.nan
            callback = Plateau(factor, patience, "validation_score", mode, min_delta)
            now, found = state, []
            for i in range(40):
                history = {"loss": -values[: i + 1], "validation_score": values[: i + 1]}
                last = {name: some[-1] for name, some in history.items()}
                now = callback(Epoch(i + 1, i + 1, last, now, 1.0, 1.0, history)) or now
                found.append(float(now.optimizer.learning_rate))
            expected = keras_rates(values, factor, patience, min_delta, mode)
            assert len(set(expected)) > 1, "it falls"
            np.testing.assert_allclose(found, expected, rtol=1e-6)

    return check


def told(optimizer=None, called=(), epochs=3, **how):
    """What a callback is told of a run with these other callbacks, and what `fit` returns."""
    net, loss, state, data = run_problem("numpy", optimizer)
    records = []
    callback = lambda record: records.append(record)
    how = {"batch_size": 10, "callbacks": (*called, callback)} | how
    return records, *fnn.fit(net, loss, state, data, epochs=epochs, **how)


def rate_of_the_last_step():
    schedule = fnn.schedules.ExponentialDecay(0.1, 0.5, 5)
    records, _, _ = told(fnn.ClipByValue(fnn.SkipNonFinite(fnn.Momentum(schedule)), 1.0))
    np.testing.assert_allclose([record.learning_rate for record in records], schedule(np.array([4, 9, 14])), rtol=1e-6)


def rates_within():
    optimizer = fnn.ClipByValue(fnn.PerLayer((fnn.Sgd(0.4), None, fnn.Average(fnn.Adam(0.2)))), 1.0)
    first, _, last = rates.with_rates(lambda rate: rate / 2, optimizer).optimizer.optimizers
    np.testing.assert_allclose([first.learning_rate, last.optimizer.learning_rate], [0.2, 0.1])


def stopped():
    records, _, history = told(called=(lambda record: STOP if record.epoch == 2 else None,))
    assert len(history["loss"]) == len(records) == 2


def changed_state():
    slower = lambda record: record.state._replace(optimizer=fnn.Sgd(0.01))
    records, _, _ = told(called=(slower,))
    np.testing.assert_allclose([record.learning_rate for record in records], [0.1, 0.01, 0.01], rtol=1e-6)


def counters_unchanged():
    try:
        told(called=(lambda record: record.state._replace(epoch=record.state.epoch + 1),))
    except FnnError:
        return
    raise AssertionError("a state of another epoch was taken")


def closed():
    events = []

    class Callback:
        begin = lambda self, state: events.append("begin")
        __call__ = lambda self, record: 1 / 0
        close = lambda self: events.append("close")

    try:
        told(called=(Callback(),))
    except ZeroDivisionError:
        assert events == ["begin", "close"]


def log_of_a_killed_run():
    path = Path(tempfile.mkdtemp()) / "run.csv"
    told(called=(CsvLog(path),), epochs=4)
    net, loss, state, data = run_problem("numpy")
    half, _ = fnn.fit(net, loss, state, data, epochs=2, batch_size=10)
    fnn.fit(net, loss, half, data, epochs=1, batch_size=10, callbacks=(CsvLog(path),))
    assert [row.split(",")[0] for row in path.read_text().split()] == ["epoch", "1", "2", "3"]


def best_epoch(scores, epochs, returned, **how):
    def check():
        state, history = scored(scores, **how)
        assert (len(history["loss"]), history["returned_epoch"], int(state.epoch)) == (epochs, returned, returned + 1)

    return check


SMALL = best_epoch([5, 4, 6, 3, 4, 4, 1], 6, 3, patience=2, mode="min")
LARGE = best_epoch([5, 4, 6, 3, 4, 4, 7], 6, 2, patience=3, mode="max")
LATER = best_epoch([1, 2, 5, 4, 6, 6, 7], 6, 3, patience=2, mode="min", start_after=2)
GAIN = best_epoch([8, 7.5, 7, 6.5, 6.5, 5], 5, 2, patience=2, mode="min", min_delta=0.5)


# ---- faults ----------------------------------------------------------------------------------------------------------

Watch, Run = watching.Watch, resuming.Run
FAULTS = [
    Fault("min_delta forgotten", Watch, "is_gain", instead(lambda self, cost, least: cost < least), plateau("min")),
    Fault("an equal value is a gain", Watch, "is_gain", instead(
          lambda self, cost, least: cost <= least - self.min_delta), GAIN),
    Fault("min_delta of the other sign", Watch, "is_gain", instead(
          lambda self, cost, least: cost < least + self.min_delta), plateau("max")),
    Fault("NaN is a gain", Watch, "is_gain", instead(
          lambda self, cost, least: not cost >= least - self.min_delta), plateau("min")),
    Fault("the direction forgotten", Watch, "costs", instead(lambda self, metrics: metrics[self.name(metrics)]), LARGE),
    Fault("the direction of a plateau forgotten", Watch, "costs", instead(
          lambda self, metrics: metrics[self.name(metrics)]), plateau("max")),
    Fault("the loss in place of the metric", Watch, "name", instead(lambda self, names: "loss"), plateau("min")),
    Fault("the epoch counted from 1", Run, "best_epoch", instead(property(lambda run: run.epochs - run.waited)), SMALL),
    Fault("the last epoch for the best", Run, "best_epoch", instead(property(lambda run: run.epochs - 1)), SMALL),
    Fault("start_after forgotten", Run, "finished",
          lambda f: lambda run, record, figures, watch, start_after: f(run, record, figures, watch, 0), LATER),
    Fault("one epoch more not watched", Run, "finished",
          lambda f: lambda run, record, figures, watch, start_after: f(run, record, figures, watch, start_after + 2),
          LATER),
    Fault("the rate of the next step", rates, "last_rate", lambda f: lambda state: f(state._replace(
          opt_state=fnn.trees.map(lambda leaf: leaf + 1, state.opt_state))), rate_of_the_last_step),
    Fault("the outermost rate only", rates, "with_rates", lambda f: lambda g, optimizer: optimizer, rates_within),
    Fault("STOP not heard", callbacks, "call", result(lambda pair: (pair[0], False)), stopped),
    Fault("a changed state dropped", callbacks, "call",
          lambda f: lambda called, record, checked: (record.state, f(called, record, checked)[1]), changed_state),
    Fault("another epoch's state taken", STATE, "changed", instead(lambda place, state, before: state),
          counters_unchanged),
    Fault("callbacks left open", callbacks, "begun",
          lambda f: lambda called, state: f([type("", (), {"begin": c.begin})() for c in called[:1]], state), closed),
    Fault("rows of a killed run kept", CsvLog, "begin",
          lambda f: lambda log, state: f(log, state._replace(epoch=state.epoch + 9)), log_of_a_killed_run),
    Fault("rows of the epochs before lost", CsvLog, "begin",
          lambda f: lambda log, state: f(log, state._replace(epoch=0 * state.epoch)), log_of_a_killed_run),
]  # fmt: skip

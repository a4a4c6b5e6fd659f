"""Callbacks are told of each epoch of a run, can stop it and change it, and a resumed run is still the same run."""

import copy
import csv
import math
import sys
import types
from typing import NamedTuple

import faults_of_runs
import numpy as np
import pytest
from helpers import run_problem
from helpers_training import compilations, on_numpy_at_least, same

import fnn
from fnn import callbacks, errors
from fnn.callbacks import STOP, CsvLog, Epoch, Plateau, TensorBoard, TimeLimit


def fit(backend="numpy", optimizer=None, *, epochs=4, called=(), **how):
    """A run of 5 steps an epoch with these callbacks."""
    net, loss, state, data = run_problem(backend, optimizer)
    start = how.pop("start", state)
    return fnn.fit(net, loss, start, data, epochs=epochs, callbacks=called, **{"batch_size": 10} | how)


HELD = {"validation": run_problem("numpy")[3], "metrics": {"accuracy": fnn.accuracy, "confusion": fnn.confusion_matrix}}


class Recorder:
    """An object that keeps what it is told, and when it is opened and closed."""

    def __init__(self):
        self.records, self.events = [], []

    def begin(self, state):
        self.events.append(("begin", int(state.epoch)))

    def __call__(self, record):
        self.records.append(record)
        self.events.append(("epoch", record.epoch))

    def close(self):
        self.events.append(("close",))


# ---- what a callback is told -----------------------------------------------------------------------------------------


@pytest.mark.thorough(backend="jax")
def test_a_callback_is_told_of_each_epoch_and_the_run_is_the_same_as_without(backend):
    told, schedule = Recorder(), fnn.schedules.StepDecay(0.1, 0.5, 7)
    state, history = fit(backend, fnn.Momentum(schedule), called=(told,), **HELD)
    if backend == "numpy":
        plain, without = fit(backend, fnn.Momentum(schedule), **HELD)
        same(state, plain)
        same(history, without)
    assert told.events == [("begin", 0), ("epoch", 1), ("epoch", 2), ("epoch", 3), ("epoch", 4), ("close",)]
    seconds = [record.seconds for record in told.records]
    assert 0 < seconds[0] < seconds[1] < seconds[2] < seconds[3]
    for i, record in enumerate(told.records):
        assert (record.epoch, record.step, int(record.state.epoch)) == (i + 1, 5 * (i + 1), i + 1)
        assert list(record.metrics) == ["loss", "validation_loss", "validation_accuracy", "validation_confusion"]
        same(record.metrics, {name: values[i] for name, values in history.items()})
        same(record.history, {name: values[: i + 1] for name, values in history.items()})
        assert record.learning_rate == pytest.approx(float(schedule(record.step - 1))), "of the last step"
    assert told.records[0].learning_rate != told.records[1].learning_rate
    same(told.records[-1].state, state)


RATES = {  # an optimizer, and the rate of its fifth step
    "number": (fnn.Sgd(0.1), 0.1),
    "nested": (fnn.ClipByGlobalNorm(fnn.SkipNonFinite(fnn.Average(fnn.Adam(0.2))), 1.0), 0.2),
    "of fewer steps": (fnn.Accumulate(fnn.Sgd(fnn.schedules.Piecewise((1, 2), (0.3, 0.2, 0.1))), 2), 0.2),
    "each its own": (fnn.PerLayer((fnn.Sgd(0.1), None, fnn.Sgd(0.2))), None),
    "none": (fnn.Adadelta(), None),
}


@pytest.mark.parametrize("name", RATES)
def test_the_rate_is_that_of_the_last_step_or_none(name):
    optimizer, rate = RATES[name]
    if name == "none":
        optimizer = NoRate()
    told = Recorder()
    fit(optimizer=optimizer, epochs=1, called=(told,))
    assert told.records[0].learning_rate == (None if rate is None else pytest.approx(rate))


class NoRate(NamedTuple):
    """An optimizer of a user, without a rate."""

    step: float = 0.1

    def init(self, params):
        return ()

    def update(self, grads, opt_state, params=None):
        return fnn.trees.map(lambda g: -self.step * g, grads), opt_state


# ---- what a callback may do ------------------------------------------------------------------------------------------


@on_numpy_at_least
def test_a_callback_stops_the_run_and_the_others_are_still_told(backend):
    told = Recorder()
    stop = lambda record: STOP if record.epoch == 2 else None
    state, history = fit(backend, called=(stop, told))
    assert len(history["loss"]) == len(told.records) == int(state.epoch) == 2
    same(state, fit(backend, epochs=2)[0])
    assert repr(STOP) == "fnn.callbacks.STOP"


@on_numpy_at_least
def test_a_run_goes_on_from_the_state_that_a_callback_returns(backend):
    slower = lambda record: record.state._replace(optimizer=fnn.Sgd(0.01)) if record.epoch == 2 else None
    told = Recorder()
    state, _ = fit(backend, called=(slower, told))
    half, _ = fit(backend, epochs=2)
    whole, _ = fit(backend, epochs=2, start=half._replace(optimizer=fnn.Sgd(0.01)))
    same(state, whole)
    rates = [float(record.state.optimizer.learning_rate) for record in told.records]
    np.testing.assert_allclose(rates, [0.1, 0.01, 0.01, 0.01], rtol=1e-6)
    assert [round(record.learning_rate, 6) for record in told.records] == [0.1, 0.1, 0.01, 0.01]


def test_a_state_changed_in_the_last_epoch_is_returned_and_the_best_one_is_as_it_was_measured():
    halve = lambda record: record.state._replace(params=fnn.trees.map(lambda w: w / 2, record.state.params))
    state, _ = fit(epochs=1, called=(halve,))
    plain, _ = fit(epochs=1)
    same(state.params, fnn.trees.map(lambda w: w / 2, plain.params))
    best, history = fit(epochs=1, called=(halve,), patience=1)
    same(best.params, plain.params)
    assert history["returned_epoch"] == 0


class Other(NamedTuple):
    """An optimizer of another class whose fields and state are named as those of Sgd."""

    learning_rate: float
    init, update = fnn.Sgd.init, fnn.Sgd.update


def with_params(f):
    return lambda state: state._replace(params=fnn.trees.map(f, state.params))


ANSWERS = {
    "true": (lambda state: True, errors.KindError, "expected None, fnn.callbacks.STOP or a TrainState, got True"),
    "number": (lambda state: 0.5, errors.KindError, "expected None, .* got 0.5"),
    "params": (lambda state: state.params, errors.KindError, "expected None, .* or a TrainState"),
    "shape": (with_params(lambda w: w[:1]), errors.ShapeError, r"state\.params\[0\].w: expected shape \(8, 6\)"),
    "structure": (lambda s: s._replace(params=s.params[:1]), errors.ShapeError, "state: expected the structure"),
    "dtype": (with_params(np.float64), errors.KindError, r"state\.params\[0\].w as NumPy float32, got NumPy float64"),
    "nan": (with_params(lambda w: w * np.nan), errors.ArgumentError, "a state whose parameters are finite"),
    "rate": (lambda s: s._replace(optimizer=fnn.Sgd(-1.0)), errors.ArgumentError, "learning_rate"),
    "another": (lambda s: s._replace(optimizer=fnn.Lion(0.1)), errors.ShapeError, "state: expected the structure"),
    "class": (lambda s: s._replace(optimizer=Other(0.1)), errors.KindError, r"a state with optimizer Sgd\(.*got Other"),
    "a list": (lambda s: s._replace(params=list(s.params)), errors.KindError, r"a state with params \(.*got \["),
    "counter": (lambda s: s._replace(step=s.step + 1), errors.ArgumentError, r"expected state\.step unchanged, 5"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_callback_returns_is_checked_and_nothing_is_lost(name):
    answer, error, says = ANSWERS[name]
    told = Recorder()
    with pytest.raises(error, match=says) as raised:
        fit(called=(told, lambda record: answer(record.state)))
    assert str(raised.value).startswith(("callbacks[1]: ", "callbacks: "))
    assert int(raised.value.state.epoch) == len(raised.value.history["loss"]) == 1
    assert told.events[-1] == ("close",), "however the run ends"


def test_what_is_no_callback_is_refused_before_the_run():
    for wrong, says in (
        (print, r"callbacks: expected a tuple, .*write callbacks=\(callback,\)"),
        ((CsvLog,), r"callbacks\[0\]: expected an object, got the class; write CsvLog\(\.\.\.\)"),
        ((print, 3), r"callbacks\[1\]: expected a function or an object like one, got 3"),
    ):
        with pytest.raises(errors.KindError, match=says):
            fit(called=wrong)


# ---- with checkpoints ------------------------------------------------------------------------------------------------


@on_numpy_at_least
def test_a_resumed_run_calls_its_callbacks_for_the_remaining_epochs_only_and_is_the_same(backend, tmp_path):
    plateau = Plateau(0.5, patience=1, min_delta=0.05)
    whole, history = fit(backend, called=(plateau,), epochs=6)
    assert float(whole.optimizer.learning_rate) < 0.1
    how = {"checkpoint": tmp_path, "resume": True}
    for epochs in (1, 2, 3, 4, 5):  # it is stopped between all of them
        fit(backend, called=(plateau,), epochs=epochs, **how)
    told = Recorder()
    state, found = fit(backend, called=(told, plateau), epochs=6, **how)
    same(state, whole, 1e-6)
    same(found, history, 1e-6)
    assert told.events == [("begin", 5), ("epoch", 6), ("close",)]
    assert len(told.records[0].history["loss"]) == 6, "it is told of the epochs before"


def test_a_run_that_a_callback_stopped_goes_on_when_it_is_resumed(tmp_path):
    how = {"checkpoint": tmp_path, "resume": True}
    fit(called=(lambda record: STOP,), **how)
    state, history = fit(called=(lambda record: STOP if record.epoch == 3 else None,), **how)
    assert len(history["loss"]) == int(state.epoch) == 3


def test_a_callback_that_changes_runs_has_to_be_given_again_and_others_may_come_and_go(tmp_path):
    how = {"checkpoint": tmp_path, "resume": True}
    fit(called=(Plateau(0.5),), epochs=1, **how)
    for wrong in ((), (Plateau(0.6),), (Plateau(0.5), Plateau(0.5, 2))):
        with pytest.raises(errors.ArgumentError, match=r"got another: callbacks\[\d\]"):
            fit(called=wrong, epochs=2, **how)
    fit(called=(Recorder(), Plateau(0.5)), epochs=2, **how)


def test_an_error_in_a_callback_is_repaired_by_resuming(tmp_path):
    how = {"checkpoint": tmp_path, "resume": True}
    halve = lambda record: record.state._replace(params=fnn.trees.map(lambda w: w / 2, record.state.params))
    whole, _ = fit(called=(halve,))

    def fails(record):
        return 1 / 0 if record.epoch == 3 else halve(record)

    with pytest.raises(ZeroDivisionError) as raised:
        fit(called=(fails,), **how)
    assert int(raised.value.state.epoch) == 3
    told = Recorder()
    state, _ = fit(called=(told, halve), **how)
    assert [record.epoch for record in told.records] == [3, 4], "that epoch was not saved, and is done again"
    same(state, whole)


# ---- TimeLimit and Plateau -------------------------------------------------------------------------------------------


def test_a_time_limit_stops_after_the_first_epoch_beyond_it():
    record = Epoch(1, 5, {"loss": 1.0}, None, None, 10.0, {})
    assert TimeLimit(10)(record) is None
    assert TimeLimit(9.9)(record) is STOP
    _, history = fit(called=(TimeLimit(1e-9),))
    assert len(history["loss"]) == 1
    for wrong in (0, -1, math.nan, math.inf, "1"):
        with pytest.raises((errors.ArgumentError, errors.KindError), match="seconds"):
            TimeLimit(wrong)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_lowers_the_rate_as_the_equations_of_keras(mode):
    faults_of_runs.plateau(mode)()


def test_a_plateau_watches_the_validation_loss_if_there_is_one_and_reaches_every_rate():
    optimizer = fnn.ClipByValue(fnn.PerLayer((fnn.Momentum(0.4), None, fnn.Average(fnn.Adam(0.2)))), 1.0)
    state = fnn.init_state(fnn.mlp((4, 2)), optimizer, fnn.random.key(0, backend="numpy"), (3,))
    metrics = {"loss": np.array([3.0, 2.0]), "validation_loss": np.array([1.0, 1.0])}
    record = Epoch(2, 2, {name: values[-1] for name, values in metrics.items()}, state, None, 1.0, metrics)
    first, _, last = Plateau(0.5, 1)(record).optimizer.optimizer.optimizers
    np.testing.assert_allclose([first.learning_rate, last.optimizer.learning_rate], [0.2, 0.1])
    assert Plateau(0.5, 1, "loss")(record) is None


def test_a_plateau_says_before_the_run_that_there_is_no_rate_to_lower():
    for optimizer, says in (
        (fnn.Sgd(fnn.schedules.Constant(0.1)), "whose learning_rate is a number, not a schedule"),
        (fnn.ClipByValue(fnn.Adam(fnn.schedules.Constant(0.1)), 1.0), "not a schedule"),
        (NoRate(), "expected an optimizer with a learning_rate"),
    ):
        with pytest.raises(errors.KindError, match=f"Plateau: .*{says}") as raised:
            fit(optimizer=optimizer, called=(Plateau(),))
        assert int(raised.value.state.step) == 0
    for wrong in ({"factor": 1.0}, {"patience": 0}, {"min_delta": -1.0}, {"mode": "up"}, {"monitor": 3}):
        with pytest.raises((errors.ArgumentError, errors.KindError), match=next(iter(wrong))):
            Plateau(**wrong)
    with pytest.raises(errors.ArgumentError, match="mode: expected 'min' or 'max' with monitor='validation_accuracy'"):
        Plateau(monitor="validation_accuracy")
    for monitor in ("validation_f1", "validation_confusion"):
        with pytest.raises(errors.ArgumentError, match="monitor: expected one of loss, validation_loss, "):
            fit(called=(Plateau(monitor=monitor, mode="max"),), **HELD)


def test_a_plateau_does_not_look_at_the_loss_of_a_private_run():
    net, loss, _, data = run_problem("numpy")
    how = {"key": fnn.random.key(0, backend="numpy"), "rule": fnn.rules.Private(1.0, 1.0), "batch_size": 10}
    with pytest.raises(errors.ArgumentError, match="'loss' is not private"):
        fnn.fit(net, loss, fnn.Sgd(0.1), data, epochs=1, callbacks=(Plateau(),), **how)
    fnn.fit(net, loss, fnn.Sgd(0.1), data, epochs=1, callbacks=(Plateau(),), validation=data, **how)


def test_another_rate_compiles_nothing_anew(needs_jax):
    with compilations() as programs:
        fit("jax", epochs=1, called=(Plateau(0.5, 1, min_delta=100.0),))
        before = len(programs)
        state, _ = fit("jax", epochs=4, called=(Plateau(0.5, 1, min_delta=100.0),))
    assert len(programs) == before
    assert float(state.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**3)


# ---- CsvLog ----------------------------------------------------------------------------------------------------------


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_csv_log_has_a_row_for_each_epoch_to_the_last_digit(tmp_path):
    path = tmp_path / "run.csv"
    _, history = fit(called=(CsvLog(path),), **HELD)
    rows = rows_of(path)
    names = ["epoch", "step", "seconds", "learning_rate", "loss", "validation_loss", "validation_accuracy"]
    assert list(rows[0]) == names, "metrics that are arrays are left out"
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "5"), ("2", "10"), ("3", "15"), ("4", "20")]
    for name in names[4:]:
        assert [float(row[name]) for row in rows] == history[name].tolist()
    assert {float(row["learning_rate"]) for row in rows} == {float(np.float32(0.1))}
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(pandas.read_csv(path)["validation_loss"], history["validation_loss"])


def test_a_csv_log_goes_on_with_the_run_and_a_new_run_begins_it_anew(tmp_path):
    path, how = tmp_path / "run.csv", {"checkpoint": tmp_path / "run", "resume": True, "every": 2}
    fit(epochs=2, called=(CsvLog(path),), **how)
    first = rows_of(path)
    with open(path, "a", newline="") as file:  # a run that was killed in the middle of a row, unsaved
        file.write(f"3,15,{'9.0,' * 3}\r\n4,20,9.0,0.1,9.0\r\n1")
    _, history = fit(epochs=4, called=(CsvLog(path),), **how)
    rows = rows_of(path)
    assert rows[:2] == first
    assert [float(row["loss"]) for row in rows] == history["loss"].tolist()
    begun, _ = fit(epochs=2, called=(CsvLog(path),))
    assert [row["epoch"] for row in rows_of(path)] == ["1", "2"]
    fit(epochs=1, called=(CsvLog(path),), start=begun)
    assert [row["epoch"] for row in rows_of(path)] == ["1", "2", "3"], "an earlier state goes on too"
    one = CsvLog(path)
    for _ in range(2):
        fit(epochs=2, called=(one,), optimizer=NoRate(), **HELD)
    assert [row["learning_rate"] for row in rows_of(path)] == ["", ""], "of a new run other columns are no matter"


def test_a_csv_log_writes_over_nothing_else(tmp_path):
    path = tmp_path / "data.csv"
    for content in (b"x,y\n1,2\n", b"epoch,loss\n", b"\xff\xfe\n", b"\n", b"9" * 200_000):
        path.write_bytes(content)
        with pytest.raises(
            errors.ArgumentError, match=r"CsvLog: .*data\.csv.*: (expected no file|cannot be read)"
        ) as e:
            fit(called=(CsvLog(path),))
        assert path.read_bytes() == content
        assert int(e.value.state.step) == 0, "before the run"
    with pytest.raises(errors.ArgumentError, match="in a folder that exists"):
        fit(called=(CsvLog(tmp_path / "no" / "run.csv"),))
    with pytest.raises(errors.ArgumentError, match="cannot be read"):
        fit(called=(CsvLog(tmp_path),))
    with pytest.raises(errors.KindError, match="path"):
        CsvLog(3)
    log = tmp_path / "run.csv"
    half, _ = fit(epochs=1, called=(CsvLog(log),))
    before = log.read_bytes()
    with pytest.raises(errors.ArgumentError, match=r"expected the columns .*learning_rate, loss of the earlier epochs"):
        fit(epochs=1, called=(CsvLog(log),), start=half, **HELD)
    assert log.read_bytes() == before


# ---- TensorBoard -----------------------------------------------------------------------------------------------------


def scalars(folder):
    """The scalars in a folder of event files, `{name: [(epoch, value), ...]}`, and the epochs from which they hold."""
    record = pytest.importorskip("tensorboardX.proto.event_pb2")
    found, purged = {}, []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # a length of 8 bytes and its checksum of 4, the event, and its checksum of 4
            size = int.from_bytes(data[at : at + 8], "little")
            event = record.Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            if event.HasField("session_log"):
                purged.append(event.step)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, purged


def test_tensorboard_gets_each_number_and_the_rate_and_hides_what_a_killed_run_left(tmp_path):
    pytest.importorskip("tensorboardX")
    how = {"checkpoint": tmp_path / "run", "resume": True}
    fit(epochs=2, called=(TensorBoard(tmp_path / "logs"),), **HELD, **how)
    _, history = fit(epochs=4, called=(TensorBoard(str(tmp_path / "logs")),), **HELD, **how)
    found, purged = scalars(tmp_path / "logs")
    assert sorted(found) == ["learning_rate", "loss", "validation_accuracy", "validation_loss"]
    assert purged == [1, 3], "events of these epochs and later, of an earlier file, do not count"
    for name in ("loss", "validation_loss", "validation_accuracy"):
        assert [epoch for epoch, _ in found[name]] == [1, 2, 3, 4]
        np.testing.assert_allclose([value for _, value in found[name]], history[name], rtol=1e-6)
    np.testing.assert_allclose([value for _, value in found["learning_rate"]], 0.1, rtol=1e-6)


def test_tensorboard_can_be_copied_as_estimators_copy_their_parameters(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", types.ModuleType("tensorboardX"))
    assert copy.deepcopy(TensorBoard(tmp_path)).folder == tmp_path


def test_tensorboard_calls_its_library_and_names_its_extra(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, folder, purge_step, filename_suffix):
            calls.append(("open", folder, purge_step, filename_suffix))

        add_scalar = lambda self, *args: calls.append(args)
        flush = lambda self: calls.append("flush")
        close = lambda self: calls.append("close")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    _, history = fit(epochs=1, called=(TensorBoard(tmp_path),), optimizer=NoRate())
    assert calls == [("open", str(tmp_path), 1, ".1"), ("loss", history["loss"][0], 1), "flush", "close"]

    def refused(*_, **__):
        raise NotADirectoryError("a file is there")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=refused))
    with pytest.raises(errors.ArgumentError, match=r"TensorBoard: .*not a folder to write to: a file is there"):
        fit(called=(TensorBoard(tmp_path),))
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(errors.MissingExtraError, match=r"needs tensorboardX: pip install 'fnn\[tensorboard\]'"):
        TensorBoard(tmp_path)


# ---- the progress bar ------------------------------------------------------------------------------------------------


def test_a_bar_is_shown_in_a_notebook_by_its_own_kind_of_bar(monkeypatch):
    auto, shown = pytest.importorskip("tqdm.auto"), []

    class Bar(auto.tqdm):
        def __init__(self, **options):
            shown.append(options["total"])
            super().__init__(**options)

    monkeypatch.setattr(auto, "tqdm", Bar)
    fit(epochs=2)
    assert shown == []
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    fit(epochs=2)
    assert shown == [2]
    assert callbacks.progress_bars(False, 2, 0) == ()

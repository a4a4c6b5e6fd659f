"""Callbacks: what `fit` calls after each epoch, to log, to stop the run, or to change it.

A callback is a function of one record, an `Epoch`, or an object that is called with it. It returns

    None            and the run goes on
    STOP            and the run ends after this epoch
    a TrainState    and the run goes on from it: `record.state._replace(...)`, its counters unchanged

An object may also have `begin(state)`, called before the first epoch, and `close()`, called when the run ends, however
it ends. All callbacks are called, in their order, also if one of them stops the run.

A resumed run calls its callbacks for the remaining epochs only. Nothing of them is saved: for the result to be that of
a run that never stopped, what a callback does to the state must follow from its record, which has the history of the
whole run. One that changes the state should have an attribute `changes = True`: then `fit(resume=True)` refuses to go
on without it. In a private run, only metrics of the validation data may decide.
"""

import contextlib
import csv
import enum
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from . import files
from .errors import ArgumentError, KindError, MissingExtraError, encodable, require, shorten, usage
from .optimizers.rates import with_rates
from .static import Interval, Static
from .watching import Watch, numbers_of

__all__ = ["STOP", "CsvLog", "Epoch", "Plateau", "TensorBoard", "TimeLimit"]


class Epoch(NamedTuple):
    """The record of an epoch that a callback is given after it.

    epoch           epochs finished so far, counted from 1, those of earlier runs included
    step            steps taken so far
    metrics         by name, what the history has of this epoch: numbers, or arrays where a metric returns one
    state           the `TrainState` after this epoch, as the callbacks before this one left it
    learning_rate   that of the epoch's last step; None if the optimizer has none, or one for each layer
    seconds         since the call of `fit`
    history         the history of the run so far: arrays with one entry per epoch, this one included
    """

    epoch: int
    step: int
    metrics: dict[str, Any]
    state: Any
    learning_rate: float | None
    seconds: float
    history: dict[str, Any]


class _Answer(enum.Enum):
    STOP = "stop"

    def __repr__(self):
        return "fnn.callbacks.STOP"


STOP = _Answer.STOP
"""What a callback returns to end the run after this epoch."""


# ---- what fit does with them -----------------------------------------------------------------------------------------


def check_callbacks(callbacks: Any) -> tuple:
    """The callbacks as a tuple; raises unless they are functions and objects that can be called."""
    if not isinstance(callbacks, tuple | list):
        raise KindError(f"callbacks: expected a tuple, got {shorten(callbacks)}; write callbacks=(callback,)")
    for i, callback in enumerate(callbacks):
        if isinstance(callback, type):
            raise KindError(f"callbacks[{i}]: expected an object, got the class; write {callback.__name__}(...)")
        if not callable(callback):
            raise KindError(f"callbacks[{i}]: expected a function or an object like one, got {shorten(callback)}")
    return tuple(callbacks)


@contextlib.contextmanager
def begun(callbacks: tuple, state: Any) -> Iterator[None]:
    """A context in which a run from this state calls the callbacks."""
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            if hasattr(callback, "begin"):
                callback.begin(state)
            if hasattr(callback, "close"):
                stack.callback(callback.close)
        yield


def call(callbacks: tuple, record: Epoch, checked: Callable) -> tuple[Any, bool]:
    """`(state, whether to stop)` after all; `checked(place, answer, state)` is the state that one returned."""
    stops = False
    for i, callback in enumerate(callbacks):
        answer = callback(record)
        if answer is STOP:
            stops = True
        elif answer is not None:
            record = record._replace(state=checked(f"callbacks[{i}]", answer, record.state))
    return record.state, stops


def changes_runs(callback: Any) -> bool:
    """Whether a callback changes the state of a run, by its own word."""
    return bool(getattr(callback, "changes", False))


# ---- ready ones ----------------------------------------------------------------------------------------------------

COLUMNS = ("epoch", "step", "seconds", "learning_rate")  # of a CsvLog, before those of the metrics


@usage("fnn.callbacks.TimeLimit(60.0), in seconds")
@dataclass(frozen=True)
class TimeLimit(Static):
    """Stops the run after the first epoch that ends later than `seconds` after the call of `fit`.

    A resumed run has the whole time again.

    Args:
        seconds: the limit, > 0.

    >>> TimeLimit(60.0)(Epoch(1, 10, {"loss": 0.5}, None, 0.1, 61.0, {}))
    fnn.callbacks.STOP
    """

    seconds: Annotated[float, Interval("(0, ∞)")]

    def __call__(self, record: Epoch) -> Any:
        return STOP if record.seconds > self.seconds else None


@dataclass(frozen=True)
class Plateau(Static):
    """Multiplies the learning rate by a factor once a metric has stopped improving.

        best ← m, n ← 0      after an epoch with m < best − min_delta, where m is the metric (its negative with "max")
        n ← n + 1            after any other
        η ← factor · η, n ← 0      where n = patience

    All rates of the optimizers within a combinator, or within `PerLayer`, fall together. What it does follows from the
    history of the run, so that a resumed run goes on as if it had never stopped.

    Args:
        factor: in (0, 1). Default: 0.1.
        patience: the number of epochs without improvement. Default: 10.
        monitor: the name of a metric in the history. Default: the loss, on the validation data if given.
        mode: "min" if the metric should be small, "max" if large. Default: "min" for losses; required for others.
        min_delta: the smallest improvement that counts, ≥ 0. Default: 10⁻⁴.

    Raises:
        KindError: before the run, if the optimizer has no learning rate, or a schedule.
        ArgumentError: after the first epoch, if there is no such metric.

    Source: Keras's `ReduceLROnPlateau`, without cooldown.

    >>> import fnn
    >>> state = fnn.init_state(fnn.mlp((1,)), fnn.Sgd(0.5), fnn.random.key(0, backend="numpy"), (2,))
    >>> losses = np.array([1.0, 0.8, 0.9, 0.8])
    >>> Plateau(0.1, patience=2)(Epoch(4, 4, {"loss": 0.8}, state, 0.5, 1.0, {"loss": losses})).optimizer
    Sgd(learning_rate=0.05)
    """

    factor: Annotated[float, Interval("(0, 1)")] = 0.1
    patience: Annotated[int, Interval("[1, ∞)")] = 10
    monitor: str | None = None
    mode: str | None = None
    min_delta: Annotated[float, Interval("[0, ∞)")] = 1e-4

    changes = True

    def __post_init__(self):
        super().__post_init__()
        self._watch()

    def _watch(self):
        return Watch(self.monitor, self.mode, self.min_delta).checked()

    def begin(self, state: Any) -> None:
        """Raise unless there is a learning rate, and none is a schedule."""
        rates: list[Any] = []
        with_rates(rates.append, state.optimizer)
        if not rates or any(map(callable, rates)):
            what = "whose learning_rate is a number, not a schedule" if rates else "with a learning_rate"
            raise KindError(f"Plateau: expected an optimizer {what}, got {shorten(state.optimizer)}")

    def __call__(self, record: Epoch) -> Any:
        watch = self._watch()
        watch.cost(record.metrics, private=getattr(record.state.rule, "private", False))
        least, waited = np.inf, 0
        for cost in watch.costs(record.history).tolist():
            waited = 1 if waited == self.patience else waited + 1
            if watch.is_gain(cost, least):
                least, waited = cost, 0
        if waited == self.patience:
            lower = lambda rate: float(rate) * self.factor
            return record.state._replace(optimizer=with_rates(lower, record.state.optimizer))
        return None


@usage('fnn.callbacks.CsvLog("run.csv")')
class CsvLog:
    """Writes a table with a row for each epoch: `epoch`, `step`, `seconds`, `learning_rate`, then the metrics.

    A new run begins the table anew. A run that goes on, by `resume` or from an earlier state, keeps the rows of the
    epochs before, and appends its own. Metrics that are arrays are left out.

    Args:
        path: the file.

    Raises:
        ArgumentError: before the run, if the folder does not exist, or the file is there and is not such a table;
            after the first epoch, if the rows to keep have other columns.

    >>> import pathlib, tempfile
    >>> import fnn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
    >>> data, how = (np.eye(2), np.ones((2, 1))), {"key": fnn.random.key(0, backend="numpy"), "batch_size": 1}
    >>> _ = fnn.fit(fnn.mlp((1,)), fnn.Quadratic(), fnn.Sgd(0.1), data, epochs=3, callbacks=(CsvLog(path),), **how)
    >>> print(path.read_text().splitlines()[0])
    epoch,step,seconds,learning_rate,loss
    """

    def __init__(self, path: Any):
        files.check_path(path)
        self.path, self._columns, self._kept = Path(path), [], []

    def begin(self, state: Any) -> None:
        """Read the rows of earlier epochs; raise if the file is something else."""
        try:
            text = self.path.read_text(encoding="utf-8")
            columns, *rows = [*csv.reader(io.StringIO(text, newline=""))] or [list(COLUMNS)]
        except FileNotFoundError:
            columns, rows = list(COLUMNS), []
        except (OSError, ValueError, csv.Error) as error:
            raise ArgumentError(f"CsvLog: {files.shown(self.path)}: cannot be read: {error}") from None
        if not self.path.parent.is_dir():
            raise ArgumentError(f"CsvLog: {files.shown(self.path)}: expected a path in a folder that exists")
        if tuple(columns[:4]) != COLUMNS:
            raise ArgumentError(f"CsvLog: {files.shown(self.path)}: expected no file, or a log of an earlier run")
        earlier = lambda row: row[0].isdecimal() and len(row[0]) < 11 and int(row[0]) <= int(state.epoch)
        self._kept = [row for row in rows if len(row) == len(columns) and earlier(row)]  # the last may be torn
        self._columns = columns if self._kept else []
        self._begun = False

    def __call__(self, record: Epoch) -> None:
        row = dict(zip(COLUMNS, (record.epoch, record.step, record.seconds, record.learning_rate), strict=True))
        row |= numbers_of(record.metrics)
        if self._columns and self._columns != list(row):
            raise ArgumentError(
                f"CsvLog: {files.shown(self.path)}: expected the columns {', '.join(self._columns)} of the earlier "
                f"epochs, got {', '.join(row)}"
            )
        if not self._begun:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([row, *self._kept])
            with files.replacing(self.path) as file:
                file.write(text.getvalue().encode())
            self._columns, self._begun = list(row), True
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row.values())


@usage('fnn.callbacks.TensorBoard("runs/first")')
class TensorBoard:
    """Writes each metric that is a number, and the learning rate, for TensorBoard; needs the extra `tensorboard`.

    `tensorboard --logdir FOLDER` shows them over the epochs. A run that goes on continues the curves in its folder; a
    new run hides those of an earlier one there, so give each run a folder of its own to compare them.

    Args:
        folder: the folder of the run.

    Raises:
        MissingExtraError: `tensorboardX` is not installed.
        ArgumentError: before the run, if the folder cannot be written to.
    """

    def __init__(self, folder: Any):
        files.check_path(folder)
        require("tensorboardX", "tensorboard")
        self.folder = folder  # and not the module, which cannot be copied, as scikit-learn's clone does
        self._writer: Any = None

    def begin(self, state: Any) -> None:
        """Open the writer; events of later epochs, which a run that was killed may have left, are hidden."""
        following = int(state.epoch) + 1  # in the name of the file too, which else has only the second
        writer = require("tensorboardX", "tensorboard").SummaryWriter
        try:
            self._writer = writer(os.fspath(self.folder), purge_step=following, filename_suffix=f".{following}")
        except OSError as error:
            raise ArgumentError(f"TensorBoard: {files.shown(self.folder)}: not a folder to write to: {error}") from None

    def __call__(self, record: Epoch) -> None:
        rate = {} if record.learning_rate is None else {"learning_rate": record.learning_rate}
        for name, value in (numbers_of(record.metrics) | rate).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the writer."""
        self._writer.close()


# ---- the progress bar ------------------------------------------------------------------------------------------------


class ProgressBar:
    """The bar of `fit(progress=...)`, in a terminal or a notebook."""

    def __init__(self, epochs: int, done: int):
        kind = require("tqdm.auto", "progress").tqdm
        self._bar = kind(total=epochs, initial=done, unit="epoch", file=sys.stderr)

    def __call__(self, record: Epoch) -> None:
        shown = {k.replace("validation_", "val_"): f"{v:.4f}" for k, v in numbers_of(record.metrics).items()}
        self._bar.set_postfix({encodable(name, sys.stderr): value for name, value in shown.items()})
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def progress_bars(progress: bool | None, epochs: int, done: int) -> tuple:
    """A progress bar over the epochs, of which `done` are finished already, or nothing: as a tuple of callbacks."""
    if sys.stderr is None or not (progress or (progress is None and _is_watched(sys.stderr))):
        return ()
    try:
        return (ProgressBar(epochs, done),)
    except MissingExtraError:
        if progress:
            raise
        return ()


def _is_watched(stream):
    """Whether somebody sees what is written to the stream: it is a terminal, or a notebook's."""
    try:
        return stream.isatty() or "ipykernel" in sys.modules
    except (AttributeError, ValueError):  # another object in its place, or a closed stream
        return False

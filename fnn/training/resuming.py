"""Runs that can be stopped anywhere: the progress of a `fit`, the folder of its checkpoints, and signals."""

import contextlib
import math
import os
import re
import signal
import sys
import threading
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checkpoints, files, processes, trees
from ..backend import namespace
from ..checkpoints.archive import check_tree, metadata_of
from ..errors import ArgumentError, CheckpointError, KindError, ShapeError, encodable, integer, shorten
from .setting import differences, start_of


class Run(NamedTuple):
    """A `fit` between two steps: everything needed to continue it.

    state          the current `TrainState`
    best           the state after the best epoch, whose watched metric was `least`; None if it is not needed
    waited         epochs since the best one
    history        by name, the values of each finished epoch: a list of arrays, of one or more epochs each. Those of
                   "telemetry" are `Statistics` of arrays
    steps          arrays with the values of each step of the unfinished epoch, by name
    """

    state: Any
    best: Any
    least: float
    waited: int
    history: dict
    steps: dict

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return sum(map(len, self.history.get("loss", ())))

    @property
    def done(self) -> int:
        """The number of steps taken in the current epoch."""
        return len(self.steps.get("loss", ()))

    @property
    def best_epoch(self) -> int:
        """The index of the best epoch, as in the history; −1 if the run began with the best state."""
        return self.epochs - 1 - self.waited

    @property
    def last_loss(self) -> float:
        """The loss of the last finished epoch, ∞ before the first."""
        return float(self.history["loss"][-1][-1]) if self.epochs else math.inf

    def moved(self, state, done) -> "Run":
        """The run after more steps, which led to `state` and have the values `done`."""
        steps = {name: np.concatenate([self.steps.get(name, values[:0]), values]) for name, values in done.items()}
        return self._replace(state=state, steps=steps)

    def epoch_means(self) -> dict[str, float]:
        """The weighted mean of the loss over the steps that were not skipped, and the means of the other metrics."""
        fine = np.isfinite(self.steps["loss"])
        losses, weights = self.steps["loss"][fine], self.steps["weight"][fine]
        mean = (losses * weights).sum() / max(weights.sum(), np.finfo(np.float64).tiny)
        others = {name: float(v.mean()) for name, v in self.steps.items() if name not in ("loss", "weight")}
        return {"loss": float(mean) if fine.any() else math.nan} | others

    def finished(self, record, figures, watch=None, start_after=0) -> "Run":
        """The run at the end of an epoch, with its record and its statistics.

        `watch` says which metric decides about the best epoch, after the first `start_after` of them. Until then the
        newest counts as the best.
        """
        best = {"waited": self.waited + 1}
        if watch is not None:
            cost = watch.cost(record)
            if self.epochs < start_after:
                best = {"best": self.state, "waited": 0}
            elif watch.is_gain(cost, self.least):
                best = {"best": self.state, "least": cost, "waited": 0}
        for name, value in record.items():
            if name in self.history and (before := np.shape(self.history[name][-1])[1:]) != np.shape(value):
                raise ShapeError(f"metrics: expected {name} of shape {before} after each epoch, got {np.shape(value)}")
        record = record | {"telemetry": figures[0]} if figures else record
        history = {name: _appended(self.history.get(name, ()), value) for name, value in record.items()}
        return self._replace(history=history, steps={}, **best)

    def history_arrays(self) -> dict[str, Any]:
        """The history as arrays, for the caller of `fit`."""
        return {name: _joined(arrays) for name, arrays in self.history.items()}


def _appended(arrays, value):
    """The arrays and another one, of one epoch. Many are joined, so that the list stays short."""
    arrays = [*arrays, trees.map(lambda array: np.array(array)[None], value)]
    return arrays if len(arrays) < 100 else [_joined(arrays)]


def _joined(arrays):
    return trees.map(lambda *parts: np.concatenate(parts), *arrays)


class Store:
    """The folder in which a run keeps its newest checkpoints, `step-0000001234.npz`. It is locked while the run lasts.

    A run is known by its setting, which is saved with every checkpoint. Only the checkpoints of this run are continued,
    and only they are ever deleted. Of a run that several processes share, the first process writes and all read.
    """

    def __init__(self, folder, net, every, keep, setting, shared=False):
        if not isinstance(folder, str | Path):
            raise KindError(f"checkpoint: expected a folder, got {shorten(folder)}")
        self.folder, self.net = Path(folder), net
        self.every, self.keep = integer("every", every, least=1), integer("keep", keep, least=1)
        self.setting, self._lock, self._own = setting, None, []  # the paths of this run's checkpoints, the newest last
        self.shared, self.writes = shared, not shared or processes.index_and_count()[0] == 0
        try:
            checkpoints.text_of(net)
        except KindError:
            self.net = None  # it contains a Function; whoever resumes the run has the network anyway

    def begin(self, run, resume):
        """The run to continue: from the newest intact checkpoint, or `run` itself if there is none."""
        check_tree(_saved(run))
        try:
            with files.errors_as(CheckpointError, f"checkpoint: {files.shown(self.folder)}: not a folder to write to"):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = files.lock_folder(self.folder) if self.writes else None
                names = sorted(filter(re.compile(r"step-[0-9]{10}\.npz").fullmatch, os.listdir(self.folder)))
            if self.shared:  # before any process refuses to go on, while the others wait for it
                processes.check_agreed("fit: its arguments and data", zlib.crc32(repr(self.setting).encode()) >> 1)
            run = self._continued([self.folder / name for name in names], run, resume) if names else run
            if self.shared:
                processes.check_agreed(f"checkpoint: the step in {files.shown(self.folder)}", int(run.state.step))
            return run
        except BaseException:
            self.close()
            raise

    def close(self):
        """Unlock the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(self, run):
        """Save the run, unless this step is saved already, and delete its oldest checkpoints; returns the path."""
        path = self.folder / f"step-{int(run.state.step):010d}.npz"
        if path == self.newest():
            return path
        run = processes.whole(run)
        if not self.writes:
            self._own.append(path)
            return path
        if path.is_symlink() or (path not in self._own and _setting_of(path) not in (None, self.setting)):
            raise CheckpointError(f"{files.shown(path)}: not saved, since a link or another run's checkpoint is there")
        with contextlib.suppress(OSError):  # `save` says what is wrong
            self.folder.mkdir(parents=True, exist_ok=True)  # it may have been deleted since
        checkpoints.save(path, _saved(run), net=self.net, metadata={"epochs": run.epochs, "setting": self.setting})
        self._own = [own for own in self._own if own != path] + [path]
        for old in self._own[: -self.keep]:
            with contextlib.suppress(OSError):
                old.unlink()
        self._own = self._own[-self.keep :]
        return path

    def newest(self):
        """The path of this run's newest checkpoint, or None."""
        return self._own[-1] if self._own else None

    def _continued(self, paths, run, resume):
        if not resume:
            raise ArgumentError(
                f"checkpoint: {files.shown(self.folder)} holds a run already, up to {paths[-1].name}; resume=True "
                "continues it, use another folder to start a new one"
            )
        errors = []
        for path in reversed(paths):
            try:
                found, self.setting = self._load(path, run)
            except (CheckpointError, OSError) as error:
                errors.append(error)
                continue
            self._own = [other for other in paths if other <= path and _setting_of(other) == self.setting]
            return found
        raise errors[0]

    def _load(self, path, run):
        """The run in this checkpoint, which must be one of this run, and its setting."""
        setting = metadata_of(path).get("setting")
        if not isinstance(setting, dict) or {type(text) for text in setting.values()} != {str}:
            raise CheckpointError(f"{files.shown(path)}: expected a run that fit saved")
        differing = differences(setting, self.setting)
        if differing:
            raise ArgumentError(
                f"resume: expected the run that {files.shown(path)} holds, got another: {differing}. To change a run "
                "on purpose, continue its state in another folder: fit(net, loss, state, data, checkpoint=...) with "
                "state = fnn.checkpoints.load(path).tree['state']"
            )
        like = dict.fromkeys(Run._fields, ...) | {"state": run.state, "best": run.best}
        backend = "numpy" if namespace(run.state.key) is np else "jax"
        saved = checkpoints.load(path, like=like, layers=checkpoints.own_classes(self.net), backend=backend).tree
        if not isinstance(saved, dict) or sorted(saved) != sorted(Run._fields):
            raise CheckpointError(f"{files.shown(path)}: expected a run that fit saved")
        if self.setting["start"] not in (setting["start"], start_of(saved["state"])):
            raise ArgumentError(
                f"resume: expected what the run in {files.shown(path)} began with, {setting['start']}, or the state "
                f"that it holds, got {self.setting['start']}"
            )
        found = Run(**saved)
        placed = {"state": processes.put_like(found.state, run.state), "best": processes.put_like(found.best, run.best)}
        return found._replace(history={name: [arrays] for name, arrays in found.history.items()}, **placed), setting


def _saved(run):
    """A run as the tree that is saved; what belongs to the host stays there when it is loaded."""
    host = {"history": run.history_arrays(), "steps": run.steps}
    return run._asdict() | {name: checkpoints.Host(arrays) for name, arrays in host.items()}


def _setting_of(path):
    """The setting of the run in this file; None if there is no such file, or it cannot be read."""
    try:
        return metadata_of(path).get("setting")
    except (CheckpointError, OSError):
        return None


@contextlib.contextmanager
def listening(active):
    """A context in which SIGTERM and Ctrl-C are only recorded, in the list yielded; a second Ctrl-C interrupts."""
    caught: list[int] = []
    if not active or threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number, frame):
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def leave(number, path):
    """Print where the run was saved, and end as this signal demands: by KeyboardInterrupt, or with status 143."""
    text = f"{signal.Signals(number).name}: the run was saved to {files.shown(path)}; resume=True continues it"
    if sys.stderr is not None:
        print(encodable(text, sys.stderr), file=sys.stderr)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if signal.getsignal(number) not in (signal.SIG_DFL, None):
        signal.raise_signal(number)  # another handler is installed
    raise SystemExit(128 + number)

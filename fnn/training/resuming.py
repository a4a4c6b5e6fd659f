"""Runs that can be stopped anywhere: the progress of a `fit`, the folder of its checkpoints, and signals."""

import contextlib
import math
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checkpoints
from ..backend import namespace
from ..diagnostics import Statistics
from ..errors import ArgumentError, CheckpointError, KindError, encodable, integer, shorten


class Run(NamedTuple):
    """A `fit` between two steps: everything needed to continue it.

    state          the current `TrainState`
    best           the state after the best epoch, whose loss was `least`; None if it is not needed
    waited         epochs since the best one
    history        a list of values, one for each finished epoch, by name
    telemetry      a list of `Statistics`, one for each finished epoch
    steps          arrays with the values of each step of the unfinished epoch, by name
    """

    state: Any
    best: Any
    least: float
    waited: int
    history: dict
    telemetry: list
    steps: dict

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return len(self.history.get("loss", ()))

    @property
    def done(self) -> int:
        """The number of steps taken in the current epoch."""
        return len(self.steps.get("loss", ()))

    @property
    def last_loss(self) -> float:
        """The loss of the last finished epoch, ∞ before the first."""
        return self.history["loss"][-1] if self.epochs else math.inf

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

    def finished(self, record, figures) -> "Run":
        """The run at the end of an epoch, with its record and its statistics."""
        watched = record.get("validation_loss", record["loss"])
        best = {"waited": self.waited + 1}
        if watched < self.least:
            best = {"best": None if self.best is None else self.state, "least": watched, "waited": 0}
        history = {name: [*self.history.get(name, ()), value] for name, value in record.items()}
        return self._replace(history=history, telemetry=self.telemetry + figures, steps={}, **best)

    def history_arrays(self) -> dict[str, Any]:
        """The history as arrays, for the caller of `fit`."""
        arrays: dict[str, Any] = {name: np.array(values) for name, values in self.history.items()}
        if self.telemetry:
            arrays["telemetry"] = Statistics(*(np.array(columns) for columns in zip(*self.telemetry, strict=True)))
        return arrays


class Store:
    """The folder in which a run keeps its newest checkpoints, `step-0000001234.npz`."""

    def __init__(self, folder, net, plan, every, keep):
        if not isinstance(folder, str | Path):
            raise KindError(f"checkpoint: expected a folder, got {shorten(folder)}")
        self.folder, self.net = Path(folder), net
        self.setting = {"batch_size": plan.batch_size, "shuffle": plan.shuffle, "examples": plan.n}
        self.every, self.keep, self._saved = integer("every", every, least=1), integer("keep", keep, least=1), None
        try:
            checkpoints.text_of(net)
        except KindError:
            self.net = None  # it contains a Function; whoever resumes the run has the network anyway

    def begin(self, run, resume):
        """The run to continue: from the newest intact checkpoint, or `run` itself if there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = self._paths()
        if not paths:
            return run
        if not resume:
            raise ArgumentError(
                f"checkpoint: {self.folder} holds a run already, up to {paths[-1].name}; resume=True continues it, "
                "use another folder to start a new one"
            )
        errors = []
        for path in reversed(paths):
            try:
                return self._load(path, run)
            except CheckpointError as error:
                errors.append(error)
        raise errors[0]

    def save(self, run):
        """Save the run, unless this step is saved already, and delete all but the newest files; returns the path."""
        path = self.folder / f"step-{int(run.state.step):010d}.npz"
        if path == self._saved:
            return path
        history = {name: np.array(values) for name, values in run.history.items()}
        telemetry = [{name: np.asarray(v) for name, v in figures._asdict().items()} for figures in run.telemetry]
        host = {"history": history, "telemetry": telemetry, "steps": run.steps}
        saved = run._asdict() | {name: checkpoints.Host(tree) for name, tree in host.items()}
        checkpoints.save(path, saved, net=self.net, metadata=self.setting | {"epochs": run.epochs})
        for old in self._paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        self._saved = path
        return path

    def newest(self):
        """The path of the newest checkpoint, or None."""
        return next(reversed(self._paths()), None)

    def _paths(self):
        return sorted(self.folder.glob("step-??????????.npz"))

    def _load(self, path, run):
        like = dict.fromkeys(Run._fields, ...) | {"state": run.state, "best": run.best}
        own = checkpoints.own_classes(self.net)
        backend = "numpy" if namespace(run.state.key) is np else "jax"
        saved, net, setting = checkpoints.load(path, like=like, layers=own, backend=backend)
        actual, expected = {"net": net} | setting, {"net": self.net} | self.setting
        changed = [f"{name} = {shorten(actual.get(name))}" for name in expected if actual.get(name) != expected[name]]
        if changed:
            raise ArgumentError(f"resume: expected the run that {path} holds, which has {', '.join(changed)}")
        history = {name: list(values) for name, values in saved["history"].items()}
        telemetry = [Statistics(**figures) for figures in saved["telemetry"]]
        self._saved = Path(path)
        return Run(**saved | {"history": history, "telemetry": telemetry})


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
    text = f"{signal.Signals(number).name}: the run was saved to {path}; resume=True continues it"
    if sys.stderr is not None:
        print(encodable(text, sys.stderr), file=sys.stderr)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if signal.getsignal(number) not in (signal.SIG_DFL, None):
        signal.raise_signal(number)  # another handler is installed
    raise SystemExit(128 + number)

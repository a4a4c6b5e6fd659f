"""Runs that can be stopped anywhere: where `fit` is between two steps, the folder of its checkpoints, and signals."""

import contextlib
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import checkpoints, random, trees
from .backend import namespace
from .diagnostics import Statistics
from .errors import ArgumentError, CheckpointError, KindError, integer, shorten


class Run(NamedTuple):
    """A `fit` between two steps, all that it takes to go on.

    state          the `TrainState` now
    best           that after the best epoch, whose loss was `least`; None where nobody asks for it
    waited         epochs since then
    history        of the epochs that are done, a list of values for each name
    telemetry      the same, a list of `Statistics`
    steps          of the epoch that is not: loss and weight of each step, (steps, 2)
    """

    state: Any
    best: Any
    least: float
    waited: int
    history: dict
    telemetry: list
    steps: Any

    @property
    def epochs(self):
        """How many are done."""
        return len(self.history.get("loss", ()))

    def told(self):
        """The history as arrays, for whoever called `fit`."""
        found: dict[str, Any] = {name: np.array(values) for name, values in self.history.items()}
        if self.telemetry:
            found["telemetry"] = Statistics(*(np.array(columns) for columns in zip(*self.telemetry, strict=True)))
        return found


class Store:
    """The folder in which a run keeps its newest checkpoints, `step-0000001234.npz`."""

    def __init__(self, folder, net, setting, every, keep):
        if not isinstance(folder, str | Path):
            raise KindError(f"checkpoint: expected a folder, got {shorten(folder)}")
        self.folder, self.net, self.setting = Path(folder), net, setting
        self.every, self.keep, self._saved = integer("every", every, least=1), integer("keep", keep, least=1), None
        try:
            checkpoints.text_of(net)
        except KindError:
            self.net = None  # with a Function in it; whoever goes on has the network anyway

    def begin(self, run, resume):
        """The run itself, or what the newest checkpoint that is whole says of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._found()
        if not found:
            return run
        if not resume:
            raise ArgumentError(
                f"checkpoint: {self.folder} holds a run already, to {found[-1].name}; resume=True goes on from there, "
                "and another folder begins anew"
            )
        errors = []
        for path in reversed(found):
            try:
                return self._load(path, run)
            except CheckpointError as error:
                errors.append(error)
        raise errors[0]

    def save(self, run):
        """Write where the run is, unless that is written, and delete all but the newest; the path."""
        path = self.folder / f"step-{int(run.state.step):010d}.npz"
        if path == self._saved:
            return path
        history = {name: np.array(values) for name, values in run.history.items()}
        telemetry = [{name: np.asarray(v) for name, v in of_epoch._asdict().items()} for of_epoch in run.telemetry]
        saved = run._replace(history=history, telemetry=telemetry)._asdict()
        checkpoints.save(path, saved, net=self.net, metadata=self.setting | {"epochs": run.epochs})
        for old in self._found()[: -self.keep]:
            old.unlink(missing_ok=True)
        self._saved = path
        return path

    def newest(self):
        """The path of the newest checkpoint, or None."""
        return next(reversed(self._found()), None)

    def _found(self):
        return sorted(self.folder.glob("step-??????????.npz"))

    def _load(self, path, run):
        like = dict.fromkeys(Run._fields, ...) | {"state": run.state, "best": run.best}
        own = checkpoints.own_classes(self.net)
        found, net, setting = checkpoints.load(path, like=like, layers=own, backend="numpy")
        before, now = {"net": net} | setting, {"net": self.net} | self.setting
        changed = [f"{name} = {shorten(before.get(name))}" for name in now if before.get(name) != now[name]]
        if changed:
            raise ArgumentError(f"resume: expected the run that {path} holds, which has {', '.join(changed)}")
        history = {name: list(values) for name, values in found["history"].items()}
        telemetry = [Statistics(**of_epoch) for of_epoch in found["telemetry"]]
        states = {name: _alike(getattr(run, name), found[name]) for name in ("state", "best")}
        self._saved = Path(path)
        return Run(**found | states | {"history": history, "telemetry": telemetry})


def _alike(like, state):
    """A state that was read, on the backend of another one, and in its dtypes."""
    if like is None:
        return None
    xp = namespace(like.key)
    key, without = random.like(state.key, xp), state._replace(key=())
    if xp is np:
        return state._replace(key=key)
    return trees.map(lambda a, v: xp.asarray(v).astype(a.dtype), like._replace(key=()), without)._replace(key=key)


@contextlib.contextmanager
def listening(active):
    """Within it SIGTERM and Ctrl-C are not obeyed but noted, in the list that is given; a second Ctrl-C is obeyed."""
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
    """Say where the run is, and end as one does of this signal: by KeyboardInterrupt, or with the status 143."""
    print(f"{signal.Signals(number).name}: the run is in {path}; resume=True goes on from there", file=sys.stderr)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if signal.getsignal(number) not in (signal.SIG_DFL, None):
        signal.raise_signal(number)  # somebody else wants to know
    raise SystemExit(128 + number)

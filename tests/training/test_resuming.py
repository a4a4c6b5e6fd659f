"""A `fit` that is stopped anywhere, by whatever, and goes on is the one that never stopped."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import THOROUGH
from helpers_training import Smoothed, on_numpy_at_least, same

import fnn
from fnn import checkpoints, errors, files
from fnn.backend import jax, namespace
from fnn.diagnostics import Statistics
from fnn.training.resuming import Run, Store

HERE = str(Path(fnn.__file__).parent.parent)
X, Y = np.random.default_rng(0).normal(size=(53, 4)).astype(np.float32), np.arange(53) % 3
NET = fnn.Serial((fnn.Dense(8), fnn.Relu(), fnn.Dropout(0.2), fnn.Dense(3)))
LOSS = fnn.SoftmaxCrossEntropy()
ADAM = fnn.Adam(fnn.schedules.CosineAnnealing(0.05, 60))


def fit(backend="numpy", net=NET, optimizer=ADAM, data=(X, Y), **how):
    how = {"epochs": 6, "batch_size": 5, "key": fnn.random.key(1, backend=backend)} | how
    return fnn.fit(net, how.pop("loss", LOSS), optimizer, data, **how)


def raising(error):
    """A function that raises this error, whatever it is called with."""

    def function(*args, **options):
        raise error

    return function


WATCHED = {
    "validation": (X[:20], Y[:20]),
    "metrics": {"accuracy": fnn.accuracy, "confusion": fnn.confusion_matrix},
    "telemetry": 10,
}


HOWS = {
    "plain": {},
    "watched": WATCHED,
    "patient": WATCHED | {"patience": 2},
    "a rule with a state": {"rule": Smoothed(0.9, 0.1, True)},
    "a private rule": {"rule": fnn.rules.Private(1.0, 0.5), "validation": (X[:20], Y[:20]), "patience": 2},
}


@pytest.mark.parametrize("name", HOWS)
def test_a_fit_that_goes_on_is_the_one_that_never_stopped(name, backend, tmp_path):
    if backend == "jax" and name != "a rule with a state" and not THOROUGH:
        pytest.skip("the thorough profile has all on JAX, too")
    how = HOWS[name]
    if backend == "jax":  # steps one by one, in all three runs: one program
        how = how | {"batch_size": 6}
    whole, history = fit(backend, **(how | {"checkpoint": tmp_path / "whole"} if backend == "jax" else how))
    tmp_path = tmp_path / "run"
    fit(backend, epochs=2, checkpoint=tmp_path, **how)
    state, found = fit(backend, checkpoint=tmp_path, resume=True, **how)
    same(state.params, whole.params, 1e-6)
    same(state.rule_state, whole.rule_state, 1e-6)
    assert [int(counter) for counter in state[6:]] == [int(counter) for counter in whole[6:]]
    assert sorted(found) == sorted(history)
    for entry, values in history.items():
        if entry == "not_private":
            assert found[entry] == values
        else:
            same(found[entry], values, 1e-5)
    again, told = fit(backend, checkpoint=tmp_path, resume=True, **how)
    same(again.params, state.params)
    assert len(told["loss"]) == len(found["loss"]), "what is done is not done again"


def test_a_folder_without_a_run_begins_one_and_keeps_the_newest(tmp_path):
    folder = tmp_path / "new" / "run"
    plain, _ = fit()
    state, _ = fit(checkpoint=folder, resume=True, every=2, keep=2)
    same(state.params, plain.params, 1e-6)
    assert sorted(os.listdir(folder)) == ["step-0000000044.npz", "step-0000000066.npz"]
    net, params = fnn.load_network(folder / "step-0000000066.npz", backend="numpy")
    assert net == NET
    same(params, state.params)


def test_a_run_that_is_there_is_not_written_over(tmp_path):
    fit(epochs=1, checkpoint=tmp_path)
    with pytest.raises(errors.ArgumentError, match=r"holds a run already, up to step-0000000011\.npz; resume=True"):
        fit(checkpoint=tmp_path)
    with pytest.raises(errors.ArgumentError, match="resume: expected a folder"):
        fit(resume=True)
    for wrong in ({"every": 0}, {"keep": 0}):
        with pytest.raises(errors.ArgumentError, match=next(iter(wrong))):
            fit(checkpoint=tmp_path / "other", **wrong)
    with pytest.raises(errors.KindError, match="checkpoint: expected a folder"):
        fit(checkpoint=3)


def crc(shape):
    return rf"\({shape}\), CRC-32 [0-9a-f]{{8}}"


OTHERS = {  # arguments of the first run, of the second, and what differs
    "optimizer": ({}, {"optimizer": fnn.Nadam(ADAM.learning_rate)}, "optimizer is Adam in the checkpoint, Nadam here"),
    "rate": ({"optimizer": fnn.Adam(0.05)}, {"optimizer": fnn.Adam(0.06)}, "optimizer.learning_rate is 0.05 in"),
    "schedule": ({}, {"optimizer": fnn.Adam(0.05)}, "optimizer.learning_rate is CosineAnnealing in"),
    "number": ({}, {"optimizer": ADAM._replace(b2=0.99)}, "optimizer.b2 is 0.999 in the checkpoint, 0.99 here"),
    "key": ({}, {"key": fnn.random.key(2, backend="numpy")}, r"key is \[\d+, \d+\] in the"),
    "rule": ({}, {"rule": Smoothed(0.9)}, "rule is Backprop in the checkpoint, Smoothed here"),
    "choice": ({"rule": Smoothed(0.9)}, {"rule": Smoothed(0.9, signs=True)}, "rule.signs is False in"),
    "penalty": ({}, {"penalty": fnn.L2(0.1)}, "penalty is None in the checkpoint, L2 here"),
    "decay": ({"penalty": fnn.L2(0.1)}, {"penalty": fnn.L2(0.2)}, "penalty.coefficient is 0.1 in"),
    "denominator": ({}, {"denominator": 5.0}, "denominator is None in the checkpoint, 5 here"),
    "net": ({}, {"net": fnn.Serial((*NET.layers[:2], fnn.Dropout(0.3), NET.layers[3]))}, r"net.layers\[2\].rate"),
    "sizes": ({}, {"net": fnn.mlp((9, 3))}, r"net.layers\[0\].units is 8 in the checkpoint, 9 here"),
    "cost": ({}, {"loss": fnn.SoftmaxCrossEntropy(label_smoothing=0.1)}, "loss.label_smoothing is None in"),
    "batch size": ({}, {"batch_size": 6}, "batch_size is 27 in the checkpoint, 6 here"),
    "order": ({}, {"shuffle": False}, "shuffle is True in the checkpoint, False here"),
    "one input": ({}, {"data": (np.where(np.arange(212).reshape(53, 4) == 7, 0, X), Y)}, f"data.x is {crc('53, 4')}"),
    "one label": ({}, {"data": (X, np.where(np.arange(53) == 7, 0, Y))}, f"data.y is {crc('53,')} in"),
    "weights": ({}, {"data": (X, Y, np.full(53, 2.0))}, "data.weights is None in"),
    "fewer": ({}, {"data": (X[:50], Y[:50])}, f".*, {crc('50, 4')} here; data.y is {crc('53,')} in"),
    "no validation": (WATCHED, {"validation": None, "metrics": None}, "validation is Data in the checkpoint, None"),
    "validation": (WATCHED, {"validation": (X[:20] + 1, Y[:20])}, "validation.x is"),
    "metrics": (WATCHED, {"metrics": {"accuracy": fnn.accuracy}}, r"metrics\['confusion'\] is confusion_matrix in"),
    "telemetry": (WATCHED, {"telemetry": 11}, "telemetry is 10 in the checkpoint, 11 here"),
    "patience": ({}, {"patience": 2}, "patience is None in the checkpoint, given here"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_what_differs_is_named(name, tmp_path):
    first, second, says = OTHERS[name]
    fit(epochs=1, checkpoint=tmp_path, **({"batch_size": 27} | first))
    (saved,) = tmp_path.iterdir()
    before = saved.read_bytes()
    with pytest.raises(errors.ArgumentError, match=f"resume: expected the run that .*npz holds, got another: {says}"):
        fit(checkpoint=tmp_path, resume=True, **({"batch_size": 27} | first | second))
    assert list(tmp_path.iterdir()) == [saved]
    assert saved.read_bytes() == before


def test_what_only_says_how_long_a_run_lasts_may_change(tmp_path):
    how = {"batch_size": 53, "checkpoint": tmp_path, "patience": 5}
    fit(epochs=1, **how)
    same_numbers = {"optimizer": ADAM._replace(b1=np.float64(0.9)), "data": (X.astype(np.float64), Y.tolist())}
    _, history = fit(resume=True, epochs=3, stop_below=0.0, every=2, keep=1, **how | same_numbers | {"patience": 4})
    assert len(history["loss"]) == 3


CHANGES = {
    "rate": lambda state: state._replace(optimizer=fnn.Adam(0.01)),
    "optimizer": lambda state: fnn.init_state(NET, fnn.Sgd(0.1), state.key, (4,), params=state.params),
    "key": lambda state: state._replace(key=fnn.random.like(fnn.random.key(7, backend="numpy"), namespace(state.key))),
    "cost, penalty and data": lambda state: state,
}


@on_numpy_at_least
@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_changed_on_purpose_by_going_on_from_its_state_in_another_folder(name, backend, tmp_path):
    first, _ = fit(backend, epochs=1, batch_size=53, checkpoint=tmp_path / "first")
    state = checkpoints.load(tmp_path / "first" / "step-0000000001.npz", backend=backend).tree["state"]
    same(state, first)
    how = {"key": None, "batch_size": 53, "optimizer": CHANGES[name](state), "data": (X + 1, Y), "penalty": fnn.L1(0.1)}
    whole, _ = fit(epochs=2, **how)
    fit(epochs=1, checkpoint=tmp_path / "second", **how)
    again, history = fit(epochs=2, checkpoint=tmp_path / "second", resume=True, **how)
    same(again.params, whole.params, 1e-6)
    assert len(history["loss"]) == 2
    with pytest.raises(errors.ArgumentError, match=r"data\.x is"):
        fit(epochs=2, checkpoint=tmp_path / "first", resume=True, **how)


def test_a_run_that_began_from_a_state_goes_on_with_that_state_or_with_the_one_it_saved(tmp_path):
    how = {"key": None, "batch_size": 53, "checkpoint": tmp_path, "resume": True}
    first, other = (fnn.init_state(NET, ADAM, fnn.random.key(0, backend="numpy"), (4,)) for _ in range(2))
    other = other._replace(params=fnn.trees.map(np.negative, first.params))
    fit(optimizer=first, epochs=1, **how)
    second, _ = fit(optimizer=first, epochs=2, **how)
    third, history = fit(optimizer=second, epochs=3, **how)
    assert len(history["loss"]) == 3
    fit(optimizer=third, epochs=3, **how)
    fit(optimizer=first, epochs=4, **how)
    for wrong in ({"optimizer": other}, {"key": fnn.random.key(0, backend="numpy")}):
        with pytest.raises(errors.ArgumentError, match=r"expected what the run in .*began with, step 0, CRC-32"):
            fit(epochs=5, **how | wrong)


# ---- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["step-2024-01-01.npz", "step-9999999999.npz", "step-0000000000.npz", "step-00000000001.npz"]
)
def test_only_checkpoints_of_this_run_are_deleted_and_never_the_one_just_saved(name, tmp_path):
    how = {"batch_size": 53, "checkpoint": tmp_path, "keep": 2}
    fit(epochs=3, **how)
    (tmp_path / name).write_bytes(b"of somebody else")
    fit(epochs=6, resume=True, **how)
    assert sorted(os.listdir(tmp_path)) == sorted([name, "step-0000000005.npz", "step-0000000006.npz"])
    assert (tmp_path / name).read_bytes() == b"of somebody else"


def test_files_that_only_look_like_checkpoints_are_no_run(tmp_path):
    for name in ("step-2024-01-01.npz", "step-1.npz", "xstep-0000000001.npz", "step-0000000001.npz.partial"):
        (tmp_path / name).write_bytes(b"")
    fit(epochs=1, batch_size=53, checkpoint=tmp_path, keep=1)
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize("keep", [1, 2])
def test_of_two_runs_in_a_folder_neither_deletes_what_the_other_saved(keep, tmp_path):
    fit(epochs=2, batch_size=53, checkpoint=tmp_path / "a", keep=9)
    fit(epochs=4, batch_size=53, checkpoint=tmp_path / "b", keep=9, key=fnn.random.key(2, backend="numpy"))
    for path in (tmp_path / "a").iterdir():
        path.rename(tmp_path / "b" / path.name)
    fit(
        epochs=6,
        batch_size=53,
        checkpoint=tmp_path / "b",
        keep=keep,
        key=fnn.random.key(2, backend="numpy"),
        resume=True,
    )
    assert sorted(os.listdir(tmp_path / "b")) == [f"step-{i:010d}.npz" for i in (1, 2, *range(7 - keep, 7))]


def test_two_runs_at_once_in_one_folder_are_refused_and_the_folder_is_free_afterwards(tmp_path):
    if not hasattr(os, "O_DIRECTORY"):
        pytest.skip("needs locks of folders")
    how = {"batch_size": 53, "checkpoint": tmp_path, "validation": (X, Y), "resume": True}

    def second(prediction, target):
        with pytest.raises(errors.CheckpointError, match="another run is writing to this folder"):
            fit(epochs=3, batch_size=53, checkpoint=tmp_path, resume=True)
        raise KeyError("the first run fails")

    with pytest.raises(KeyError) as raised:
        fit(epochs=1, metrics={"m": second}, **how)
    assert raised.traceback, "which keeps the frames of that run alive"
    fit(epochs=1, **how)
    with pytest.raises(errors.ArgumentError, match="got another"):
        fit(epochs=2, **how | {"batch_size": 5})
    fit(epochs=2, **how)


@pytest.mark.parametrize("number", [37, 38, 95, 524], ids=["ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUPP"])
def test_without_locks_a_run_does_not_write_over_what_another_run_saved_meanwhile(number, tmp_path, monkeypatch):
    if files.fcntl is not None:
        monkeypatch.setattr(files.fcntl, "flock", raising(OSError(number, "no locks here")))
    how = {"batch_size": 53, "checkpoint": tmp_path, "validation": (X, Y)}

    def second(prediction, target):
        if not list(tmp_path.iterdir()):
            fit(epochs=2, batch_size=53, checkpoint=tmp_path)
        return 0.0

    with pytest.raises(
        errors.CheckpointError,
        match=r"step-0000000001\.npz: not saved, since a link or another run's checkpoint is there",
    ):
        fit(epochs=1, metrics={"m": second}, **how)
    fit(epochs=3, batch_size=53, checkpoint=tmp_path, resume=True)


def test_a_folder_that_cannot_be_one_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300), "\0"):
        with pytest.raises(errors.CheckpointError, match=r"^checkpoint: .*: not a folder to write to: ") as raised:
            fit(checkpoint=folder)
        assert str(raised.value).isprintable()


def test_a_link_that_is_planted_meanwhile_is_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")

    def plant(prediction, target):
        (tmp_path / "run" / "step-0000000001.npz").symlink_to(tmp_path / "victim")
        return 0.0

    with pytest.raises(errors.CheckpointError, match="not saved, since a link"):
        fit(epochs=1, batch_size=53, checkpoint=tmp_path / "run", validation=(X, Y), metrics={"m": plant})
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_metric_that_records_its_calls_does_not_make_another_run(tmp_path):
    calls = []
    how = {"validation": (X, Y), "metrics": {"m": lambda p, t: calls.append(1) or 0.0}, "batch_size": 53}
    for epochs in (1, 2):
        fit(epochs=epochs, checkpoint=tmp_path, resume=True, **how)
    assert len(calls) == 2


def test_a_folder_that_is_deleted_meanwhile_is_made_again(tmp_path):
    def delete(prediction, target):
        shutil.rmtree(tmp_path / "a")
        return 0.0

    fit(epochs=2, batch_size=53, checkpoint=tmp_path / "a" / "b", validation=(X, Y), metrics={"m": delete})
    assert os.listdir(tmp_path / "a" / "b") == ["step-0000000002.npz"]


def test_names_with_newlines_work_and_are_shown_in_one_line(tmp_path):
    folder = tmp_path / "a\nb"
    fit(epochs=1, batch_size=53, checkpoint=folder)
    fit(epochs=2, batch_size=53, checkpoint=folder, resume=True)
    for wrong in ({}, {"resume": True, "shuffle": False}):
        with pytest.raises(errors.ArgumentError) as raised:
            fit(epochs=3, batch_size=53, checkpoint=folder, **wrong)
        assert str(raised.value).isprintable()


def test_what_cannot_be_saved_is_refused_before_any_work(tmp_path):
    class Odd(Smoothed):
        def init(self, problem, params, key):
            return {0: np.zeros(1)}

    with pytest.raises(errors.KindError, match="expected strings as keys"):
        fit(rule=Odd(0.9), checkpoint=tmp_path, validation=(X, Y), metrics={"m": raising(AssertionError)})


def test_thousands_of_epochs_are_saved_as_fast_as_their_bytes_and_come_back(tmp_path):
    state = fnn.init_state(NET, ADAM, fnn.random.key(0, backend="numpy"), (4,))
    rows = np.arange(2000 * 4, dtype=np.float32).reshape(2000, 4)
    run = Run(state, None, 0.0, 0, {}, {})
    for i, row in enumerate(rows):
        run = run.finished({"loss": float(i)}, [Statistics(*(row + j for j in range(len(Statistics._fields))))])
    store = Store(tmp_path, NET, 1, 1, {"start": "None"})
    store.begin(run, resume=False)
    path = store.save(run)
    assert path.stat().st_size < rows.nbytes * 10 + 100_000, "nothing is said of each epoch but its values"
    store.close()
    again = Store(tmp_path, NET, 1, 1, {"start": "None"})
    found = again.begin(run, resume=True)
    again.close()
    assert found.epochs == run.epochs == 2000
    assert found.last_loss == run.last_loss == 1999.0
    for history in (found.history_arrays(), run.history_arrays()):
        assert history["loss"].tolist() == list(range(2000))
        assert all((values == rows + j).all() for j, values in enumerate(history["telemetry"]))


@pytest.mark.thorough(backend="jax")
def test_the_network_of_a_patient_run_is_the_one_that_fit_returned(backend, tmp_path):
    how = {"optimizer": fnn.Sgd(fnn.schedules.Piecewise((2,), (0.1, 3.0))), "batch_size": 53, "epochs": 9}
    state, history = fit(backend, checkpoint=tmp_path, patience=2, every=2, telemetry=5, **how)
    assert int(state.epoch) < len(history["loss"])
    newest = max(tmp_path.iterdir())
    _, params = fnn.load_network(newest)
    same(params, state.params)
    tree = checkpoints.load(newest, backend=backend).tree
    same(tree["best"], state)
    assert history.pop("returned_epoch") == int(state.epoch) - 1
    same(tree["history"], history)
    assert int(tree["state"].epoch) == len(history["loss"])


@pytest.mark.thorough(backend="jax")
def test_runs_with_the_initializer_constant_and_the_schedule_of_that_name_go_on(backend, tmp_path):
    net = fnn.Dense(3, initializer=fnn.Constant(0.1))
    how = {"net": net, "optimizer": fnn.Adam(fnn.schedules.Constant(0.1)), "batch_size": 53, "checkpoint": tmp_path}
    for epochs in (1, 2):
        fit(backend, epochs=epochs, resume=True, **how)
    saved = checkpoints.load(tmp_path / "step-0000000002.npz", backend=backend)
    assert saved.net == net
    assert type(saved.tree["state"].optimizer.learning_rate) is fnn.schedules.Constant


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"] if THOROUGH else ["rbg"])
def test_runs_with_other_kinds_of_keys_go_on(impl, needs_jax, tmp_path):
    how = {"batch_size": 53, "checkpoint": tmp_path, "resume": True, "net": fnn.Dense(3)}
    for epochs in (1, 2):
        fit(key=jax.random.key(0, impl=impl), epochs=epochs, **how)
    with pytest.raises(errors.ArgumentError, match=rf"key is \[\d+.*\] {impl} in the checkpoint"):
        fit(key=fnn.random.key(0, backend="jax"), epochs=3, **how)


def test_a_save_that_fails_does_not_lose_the_run(tmp_path, monkeypatch):
    how = {"batch_size": 53, "epochs": 3}
    whole, history = fit(**how)
    monkeypatch.setattr(os, "fsync", raising(OSError(28, "No space left on device")))
    with pytest.raises(errors.CheckpointError, match="No space left") as raised:
        fit(checkpoint=tmp_path, every=9, **how)
    same(raised.value.state.params, whole.params)
    same(raised.value.history, history)
    assert os.listdir(tmp_path) == []


def test_of_broken_checkpoints_the_newest_that_is_whole_is_taken(tmp_path):
    whole, _ = fit()
    fit(epochs=3, checkpoint=tmp_path)
    newest = sorted(tmp_path.iterdir())
    newest[-1].write_bytes(newest[-1].read_bytes()[:-100])
    state, _ = fit(checkpoint=tmp_path, resume=True)
    same(state.params, whole.params, 1e-6)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(errors.CheckpointError, match=r"step-0000000066\.npz: not a valid checkpoint"):
        fit(checkpoint=tmp_path, resume=True)


@dataclass(frozen=True)
class Mine(fnn.Tanh):
    scale: float = 1.0


def test_a_run_with_layers_of_ones_own_goes_on(tmp_path):
    net = fnn.Serial((fnn.Dense(8), Mine(), fnn.Dense(3)))
    whole, _ = fit(net=net)
    fit(net=net, epochs=2, checkpoint=tmp_path)
    same(fit(net=net, checkpoint=tmp_path, resume=True)[0].params, whole.params, 1e-6)


def test_runs_of_optax_and_of_functions_and_in_bfloat16_go_on(needs_jax, tmp_path):
    optax = pytest.importorskip("optax")
    net = fnn.Serial((fnn.Dense(8), fnn.Function(jax.numpy.sin), fnn.Dense(3)))

    def begin():
        optimizer = fnn.from_optax(optax.adam(1e-2))
        return fnn.init_state(net, optimizer, fnn.random.key(0), (4,), jax.numpy.bfloat16)

    how = {"net": net, "key": None, "batch_size": 6}
    whole, _ = fit(optimizer=begin(), epochs=3, checkpoint=tmp_path / "whole", **how)
    fit(optimizer=begin(), epochs=1, checkpoint=tmp_path / "run", **how)
    state, _ = fit(optimizer=begin(), epochs=3, checkpoint=tmp_path / "run", resume=True, **how)
    assert state.params[0].w.dtype == jax.numpy.bfloat16
    assert (state.params[0].w == whole.params[0].w).all()


# ---- signals ---------------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from dataclasses import dataclass
import numpy as np, fnn

@dataclass(frozen=True)
class Slow(fnn.Identity):
    def forward(self, params, z, key=None):
        time.sleep(0.004)
        return super().forward(params, z, key)

folder, epochs, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume"
x, y = np.random.default_rng(0).normal(size=(53, 4)).astype(np.float32), np.arange(53) % 3
net = fnn.Serial((fnn.Dense(8), Slow(), fnn.Dropout(0.2), fnn.Dense(3)))
how = {"checkpoint": folder, "resume": resume} if folder != "-" else {}
print("begun", flush=True)
key = fnn.random.key(1, backend="numpy")
how |= {"key": key, "epochs": epochs, "batch_size": 1}
state, history = fnn.fit(net, fnn.SoftmaxCrossEntropy(), fnn.Adam(0.01), (x, y), **how)
print([p.tobytes().hex() for p in fnn.trees.leaves(state.params)], history["loss"].tolist())
"""


def start(tmp_path, *arguments):
    (tmp_path / "slow.py").write_text(SLOW)
    settings = os.environ | {"FNN_BACKEND": "numpy", "PYTHONPATH": HERE, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "slow.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the run that is never stopped prints last."""
    out, _ = start(tmp_path_factory.mktemp("whole"), "-", 10, "new").communicate(timeout=60)
    return out.splitlines()[-1]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)][: 2 if THOROUGH else 1]
)
@pytest.mark.thorough
def test_a_signal_lets_it_save_and_say_where_and_the_run_goes_on_to_the_byte(number, status, whole, tmp_path):
    folder = tmp_path / "run"
    process = start(tmp_path, folder, 10, "new")
    process.stdout.readline()
    time.sleep(0.5)  # of some two seconds that it takes
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    saved = sorted(folder.iterdir())[-1]
    assert f"{number.name}: the run was saved to {saved}; resume=True continues it" in said
    assert int(saved.stem.removeprefix("step-")) < 10 * 53
    out, _ = start(tmp_path, folder, 10, "resume").communicate(timeout=60)
    assert out.splitlines()[-1] == whole


def test_a_run_that_diverges_says_which_checkpoint_is_the_newest(tmp_path):
    sgd = fnn.Sgd(fnn.schedules.Piecewise((11,), (0.1, 1e38)))
    with (
        np.errstate(all="ignore"),
        pytest.raises(errors.DivergenceError, match=r"The newest checkpoint is .*011\.npz\."),
    ):
        fit(optimizer=sgd, checkpoint=tmp_path)
    assert checkpoints.load(tmp_path / "step-0000000011.npz", backend="numpy").metadata["epochs"] == 1
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError) as raised:
        fit(optimizer=fnn.Sgd(1e38), checkpoint=tmp_path / "other")
    assert "checkpoint" not in str(raised.value)


def test_a_state_is_saved_once_where_no_best_one_is_asked_for(tmp_path):
    fit(epochs=1, checkpoint=tmp_path / "plain")
    fit(epochs=1, checkpoint=tmp_path / "patient", patience=2)
    plain, patient = (
        checkpoints.load(tmp_path / name / "step-0000000011.npz", backend="numpy") for name in ("plain", "patient")
    )
    assert plain.tree["best"] is None
    same(patient.tree["best"].params, patient.tree["state"].params)


def test_after_a_fit_signals_are_obeyed_as_before(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    fit(epochs=1, checkpoint=tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_fit_in_a_thread_saves_too_and_leaves_signals_alone(tmp_path):
    thread = threading.Thread(target=lambda: fit(epochs=1, checkpoint=tmp_path))
    thread.start()
    thread.join()
    assert os.listdir(tmp_path) == ["step-0000000011.npz"]

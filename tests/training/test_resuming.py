"""A `fit` that is stopped anywhere, by whatever, and goes on is the one that never stopped."""

import os
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
from helpers_training import Smoothed, same

import fnn
from fnn import checkpoints, errors
from fnn.backend import jax

HERE = str(Path(fnn.__file__).parent.parent)
X, Y = np.random.default_rng(0).normal(size=(53, 4)).astype(np.float32), np.arange(53) % 3
NET = fnn.Serial((fnn.Dense(8), fnn.Relu(), fnn.Dropout(0.2), fnn.Dense(3)))
LOSS = fnn.SoftmaxCrossEntropy()
ADAM = fnn.Adam(fnn.schedules.CosineAnnealing(0.05, 60))


def fit(backend="numpy", net=NET, optimizer=ADAM, data=(X, Y), **how):
    how = {"epochs": 6, "batch_size": 5, "key": fnn.random.key(1, backend=backend)} | how
    return fnn.fit(net, LOSS, optimizer, data, **how)


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
    if backend == "jax" and name not in ("watched", "a rule with a state") and not THOROUGH:
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


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"batch_size": 6}, errors.ArgumentError, "which has batch_size = 5"),
        ({"shuffle": False}, errors.ArgumentError, "which has shuffle = True"),
        ({"data": (X[:50], Y[:50])}, errors.ArgumentError, "which has examples = 53"),
        ({"net": fnn.Serial((*NET.layers[:2], fnn.Dropout(0.3), NET.layers[3]))}, errors.ArgumentError, "has net ="),
        ({"net": fnn.mlp((9, 3))}, errors.ShapeError, "with a different shape or dtype"),
        ({"optimizer": fnn.Sgd(0.1)}, errors.ShapeError, "unexpected: "),
    ],
)  # fmt: skip
def test_another_run_is_refused(change, error, says, tmp_path):
    fit(epochs=1, checkpoint=tmp_path)
    with pytest.raises(error, match=says):
        fit(checkpoint=tmp_path, resume=True, **change)


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
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
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
    fit(epochs=1, checkpoint=tmp_path, optimizer=fnn.Sgd(0.1))
    path = tmp_path / "step-0000000011.npz"
    state = (
        checkpoints.load(path).tree["state"] if jax is None else checkpoints.load(path, backend="numpy").tree["state"]
    )
    x = X.copy()
    x[3] = 3e38
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError, match=f"The newest checkpoint is {path}"):
        fnn.fit(NET, LOSS, state, (x, Y), epochs=3, batch_size=5, checkpoint=tmp_path, resume=True)
    assert checkpoints.load(path, backend="numpy").metadata["epochs"] == 1


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

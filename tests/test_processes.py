"""Runs that several processes share: the same as in one, whoever writes, and whoever dies.

The tests that start processes cost half a minute of CPU each, so the whole profile runs them.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import oracle
import pytest
from helpers import key

import fnn
from fnn import checkpoints, errors, processes, trees

ROOT = Path(fnn.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "several_processes.py"


def start(program, *arguments, cores=None):
    """A program in a process of its own, on one core if `cores` says which."""
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(program), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)  # before it starts others
    return process


def ended(process):
    """Its output, after it has ended well."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.mark.thorough
@pytest.mark.parametrize(("count", "what"), [(2, ["all"]), (4, [])], ids=str)
def test_a_run_that_processes_share_is_the_run_of_one(needs_jax, tmp_path, count, what):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = Path(__file__).with_name("several.py")
    for process in [start(program, i, count, address, tmp_path, *what) for i in range(count)]:
        ended(process)
    shards, (*_, newest) = checkpoints.load_shards(tmp_path / "shards"), sorted((tmp_path / "fit").glob("*.npz"))
    of_fit = checkpoints.load(newest).tree["state"]
    oracle.assert_close(trees.map(np.asarray, shards.tree.params), trees.map(np.asarray, of_fit.params), 0)
    assert int(shards.tree.step) == int(of_fit.step) == 8


@pytest.mark.thorough
def test_the_example_has_the_parameters_of_one_process_in_float64_too(needs_jax, tmp_path):
    assert "from the run in one process" in ended(start(EXAMPLE, "--out", tmp_path, "--float64"))


@pytest.mark.thorough
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on_to_the_byte(needs_jax, tmp_path):
    core, epochs = {min(os.sched_getaffinity(0))}, 30
    ended(start(EXAMPLE, "--out", tmp_path / "calm", "--epochs", epochs, cores=core))
    run = start(EXAMPLE, "--out", tmp_path / "killed", "--epochs", epochs, cores=core)
    pid = int(re.search(r"1: pid (\d+)", run.stdout.readline())[1])
    while not list((tmp_path / "killed").glob("step-*.npz")):
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    output, _ = run.communicate(timeout=60)
    seconds = time.monotonic() - killed
    assert run.returncode == 1
    assert f"process 1 (pid {pid}) was ended by SIGKILL, and the others were ended" in output
    assert seconds < 30
    newest = max((tmp_path / "killed").glob("step-*.npz"))
    assert newest.name < f"step-{epochs * 23:010d}.npz", "it was killed before its end"
    ended(start(EXAMPLE, "--out", tmp_path / "killed", "--epochs", epochs, "--resume", cores=core))
    calm, resumed = (max((tmp_path / name).glob("step-*.npz")) for name in ("calm", "killed"))
    assert calm.name == resumed.name == f"step-{epochs * 23:010d}.npz"
    assert calm.read_bytes() == resumed.read_bytes()


def test_in_one_process_all_arrays_are_here(backend):
    tree = {"w": fnn.Dense(2).init(key(backend), (3,)), "n": 3}
    assert processes.all_here(tree, 3, None)
    assert processes.whole(tree) is tree
    assert processes.index_and_count() == (0, 1)


# ---- checkpoints in shards -------------------------------------------------------------------------------------------

W = np.arange(12.0, dtype=np.float32).reshape(4, 3)


def saved(folder, starts=((0, 0), (2, 0)), number=(7, 7), count=2):
    """A matrix in two shards, as two processes save it, and what is not divided in the first."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        parts = checkpoints.shards.Shards(W.shape, (W[2 * i : 2 * i + 2],), starts[i : i + 1])
        step = np.int32(5) if i == 0 else None
        tree = fnn.DenseParams(parts, None), {"step": step, "name": "run" if i == 0 else None}, [step]
        about = {"metadata": {"epochs": 3}, "save": number[i]}
        checkpoints.save(folder / f"shards-{i}-of-2.npz", tree, metadata=about)


def test_shards_of_several_processes_are_joined(backend, tmp_path):
    saved(tmp_path)
    (params, about, [step]), _, metadata = checkpoints.load_shards(tmp_path, backend=backend)
    assert (np.asarray(params.w) == W).all()
    assert (params.b, about["name"], int(about["step"]), int(step), metadata) == (None, "run", 5, 5, {"epochs": 3})
    assert processes.backend.is_jax(params.w) == (backend == "jax")


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    load = lambda: checkpoints.load_shards(tmp_path, backend="numpy")
    with pytest.raises(errors.CheckpointError, match=r"expected all files of one call of save_shards, got none"):
        load()
    saved(tmp_path, count=1)
    with pytest.raises(errors.CheckpointError, match=r"all files of one call .* got shards-0-of-2\.npz"):
        load()
    saved(tmp_path, number=(7, 8))
    with pytest.raises(errors.CheckpointError, match="got those of several"):
        load()
    saved(tmp_path)
    whole = checkpoints.shards.Shards(W.shape, (), ()), None
    checkpoints.save(tmp_path / "shards-1-of-2.npz", (fnn.DenseParams(*whole), {"step": None, "name": None}, [None]),
                     metadata={"metadata": {}, "save": 7})  # fmt: skip
    with pytest.raises(errors.CheckpointError, match=r"expected the parts of an array of shape \(4, 3\), got others"):
        load()

"""One run in several processes, as on several machines: each has a part of every batch, and all the same parameters.

    python examples/several_processes.py                           two processes, and the same run in one, to compare
    python examples/several_processes.py --processes 4 --float64   four, compared in float64
    python examples/several_processes.py --resume                  goes on from the newest checkpoint

The first command starts the processes on this machine, watches them, and compares. What a process does is `work`: on a
cluster, run that on each machine, with the address of the first. If a process dies, the sum of gradients of the others
fails at once, or JAX, which hears from each every few seconds, ends them after ten of silence.
"""

import argparse
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

import fnn

NET, LOSS = fnn.Serial((fnn.Scale(1 / 16), fnn.mlp((32, 10)))), fnn.SoftmaxCrossEntropy()


def fit(options, place=lambda state, data: (state, data), **how):
    """The run, placed as the caller says; everything else is the same in one process and in many."""
    dtype = np.float64 if options.float64 else np.float32
    (x, y), _ = fnn.datasets.digits()
    state = fnn.init_state(NET, fnn.Momentum(0.05), fnn.random.key(0), (64,), dtype)
    state, data = place(state, (x.astype(dtype), y))
    return fnn.fit(NET, LOSS, state, data, epochs=options.epochs, batch_size=60, progress=False, **how)


def work(options):
    """What each process does: it joins the others, places the state and its part of the data, and trains."""
    jax.distributed.initialize(
        options.address, options.processes, options.index, heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10
    )
    mesh = fnn.sharding.mesh()  # the devices of all processes
    place = lambda state, data: (fnn.sharding.place_state(mesh, NET, state), fnn.sharding.place_data(mesh, data))
    state, history = fit(options, place, checkpoint=options.out, resume=options.resume)
    of_all = multihost_utils.process_allgather([np.asarray(p) for p in jax.tree.leaves(state.params)])
    assert all((p == p[0]).all() for p in of_all), "parameters differ"
    print(f"process {options.index}: loss {history['loss'][-1]:.4f}, the parameters are those of every process")


def start(options):
    """The processes, by their number; each runs this file again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-u", __file__, *sys.argv[1:], "--address", address, "--index"]
    processes = [subprocess.Popen([*command, str(i)]) for i in range(options.processes)]
    print("processes", *(f"{i}: pid {process.pid}" for i, process in enumerate(processes)), flush=True)
    return processes


def watch(processes):
    """Wait for the processes. If one fails, the others are ended within ten seconds, and the message names it."""
    while (codes := [process.poll() for process in processes]).count(0) < len(codes):
        if failed := [i for i, code in enumerate(codes) if code]:
            i = min(failed, key=lambda i: codes[i])  # the one that was killed, if another has failed because of it
            how = f"was ended by {signal.Signals(-codes[i]).name}" if codes[i] < 0 else f"failed with status {codes[i]}"
            time.sleep(12)  # JAX ends the others by itself, with a message of its own
            for process in processes:
                process.kill()
            sys.exit(f"process {i} (pid {processes[i].pid}) {how}, and the others were ended; --resume goes on")
        time.sleep(0.1)


parser = argparse.ArgumentParser()
numbers = ("--processes", int, 2), ("--epochs", int, 5), ("--index", int, None)
for name, kind, default in (*numbers, ("--address", str, None), ("--out", Path, Path("out/several_processes"))):
    parser.add_argument(name, type=kind, default=default)
for name in ("--float64", "--resume"):
    parser.add_argument(name, action="store_true")
options = parser.parse_args()
jax.config.update("jax_enable_x64", options.float64)
jax.config.update("jax_platforms", "cpu")
if options.index is not None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # how processes exchange sums without GPUs
    work(options)
    sys.exit()

for old in options.out.glob("step-*.npz") if not options.resume else ():
    old.unlink()
watch(start(options))
newest = max(options.out.glob("step-*.npz"))  # written by the first process
params = fnn.checkpoints.load(newest).tree["state"].params
alone, history = fit(options)
pairs = zip(jax.tree.leaves(params), jax.tree.leaves(alone.params), strict=True)
difference = max(float(abs(p - q).max() / abs(q).max()) for p, q in pairs)
print(f"{newest}: at most {difference:.0e} from the run in one process")
if not difference < (1e-12 if options.float64 else 1e-6):
    sys.exit("expected the parameters of the run in one process")

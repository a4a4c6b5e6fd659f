"""What several processes do together: `python several.py INDEX COUNT ADDRESS FOLDER`, once for each of them.

Each compares the run that all share with the one that it makes alone. A failure is an AssertionError, as in any test.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import oracle
import pytest

import fnn
from fnn import checkpoints, errors, processes, rules, sharding
from fnn.training.setting import fingerprint

INDEX, COUNT = map(int, sys.argv[1:3])
NET, LOSS = fnn.mlp((8, 3), fnn.Tanh()), fnn.SoftmaxCrossEntropy()
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 6)), RNG.integers(0, 3, 64).astype(np.int32)
RULES = None, rules.Private(1.0, 0.5), rules.KFac(every=2)
HOW: dict[str, Any] = {"epochs": 2, "batch_size": 20}


def begin(rule, dtype):
    optimizer = fnn.Momentum(0.03) if isinstance(rule, rules.KFac) else fnn.Adam(0.01)
    return fnn.init_state(NET, optimizer, fnn.random.key(0), (6,), dtype, rule=rule)


def close(found, wanted, tolerance):
    oracle.assert_close(jax.tree.map(np.asarray, processes.whole(found)), jax.tree.map(np.asarray, wanted), tolerance)


def check_rules(dtype, tolerance):
    """The run of each rule, shuffled or sampled, is that of one process; nothing of it is exchanged but sums."""
    for rule in RULES:
        state, data = begin(rule, dtype), (X.astype(dtype), Y)
        wanted, history = fnn.train(NET, LOSS, state, data, **HOW)
        mesh = sharding.mesh()
        shared = sharding.place_state(mesh, NET, state), sharding.place_data(mesh, data)
        state, theirs = fnn.train(NET, LOSS, *shared, **HOW)
        close((state.params, theirs), (wanted.params, history), tolerance)


def check_shares_and_checkpoints(folder):
    """Each process has its share of the data and of all parameters; its part of a checkpoint; `fit` writes one file."""
    state, data, mesh = begin(None, np.float32), (X.astype(np.float32), Y), sharding.mesh()
    wanted, _ = fnn.fit(NET, LOSS, state, data, progress=False, **HOW)
    share = tuple(a[INDEX * 64 // COUNT : (INDEX + 1) * 64 // COUNT] for a in data)
    data = sharding.place_share(mesh, share)
    assert (data[0].shape, data[0].is_fully_addressable) == (X.shape, False)
    full = sharding.place_state(mesh, NET, state, "full")
    assert not full.params[0].w.is_fully_replicated
    fitted, history = fnn.fit(NET, LOSS, full, data, checkpoint=folder / "fit", progress=False, **HOW)
    close(fitted.params, wanted.params, 1e-6)
    checkpoints.save_shards(folder / "shards", fitted, net=NET)
    again, found = fnn.fit(NET, LOSS, full, data, checkpoint=folder / "fit", resume=True, progress=False, **HOW)
    assert again.params[0].w.sharding == full.params[0].w.sharding, "placed as the state that the run began with"
    close((again.params, found), (processes.whole(fitted.params), history), 0)
    check_other_data(full, share, mesh, folder)


def check_other_data(state, share, mesh, folder):
    """A run is not continued if one process has other data: every process says so, and none waits for another."""
    of = lambda data: fingerprint(state.params, fnn.examples.opened(data))
    assert of(sharding.place_share(mesh, share)) == of((X.astype(np.float32), Y)), "the same as of whole data"
    other, how = np.float32(INDEX == COUNT - 1), HOW | {"checkpoint": folder / "fit", "resume": True}
    theirs, whole = (share[0] + other, share[1]), (X.astype(np.float32) + other, Y)
    for data, kind, message in (
        (sharding.place_share(mesh, theirs), errors.ArgumentError, r"data\.x is \(64, 6\), CRC-32 "),
        (sharding.place_data(mesh, whole), errors.CheckpointError, "expected the same in every process"),
    ):
        with pytest.raises(kind, match=message):
            fnn.fit(NET, LOSS, state, data, progress=False, **how)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[3], COUNT, INDEX, heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10)
    check_shares_and_checkpoints(Path(sys.argv[4]))
    if "all" in sys.argv:
        check_rules(np.float32, 1e-6)
        jax.config.update("jax_enable_x64", True)
        check_rules(np.float64, 1e-12)

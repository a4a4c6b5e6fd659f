"""The table of planned memory counts what is there, on either backend, and makes nothing."""

import numpy as np
import pytest

import fnn
from fnn import backend, errors, rules
from fnn.footprint import plan_of

NET, LOSS = fnn.mlp((128, 64, 10)), fnn.SoftmaxCrossEntropy()
X, Y = np.broadcast_to(np.float32(0), (32, 784)), np.zeros(32, np.int32)
PARAMETERS = 4 * (128 * 785 + 64 * 129 + 10 * 65)
KEPT = 4 * 32 * (128 + 64)  # the output of each Relu, which the layer above keeps too; x is part of the batch


def rows(net=NET, **options):
    return plan_of(net, LOSS, (X, Y), **options)


def test_everything_is_counted_once():
    found = rows(optimizer=fnn.Adam())
    assert {name: found[name] for name in ("parameters", "batch", "gradients", "kept", "rule state")} == {
        "parameters": PARAMETERS,
        "batch": 4 * 32 * 785,
        "gradients": PARAMETERS,
        "kept": KEPT,
        "rule state": 0,
    }
    assert 2 * PARAMETERS <= found["optimizer state"] < 2 * PARAMETERS + 32
    assert found["total"] == sum(found.values()) - found["total"] - found["gradients"] - found["kept"]
    assert found["results"] >= 3 * PARAMETERS
    if backend.jax is None:
        errors_of = 4 * 32 * (128 + 64 + 128 + 64 + 10)  # at the outputs of all layers, and the prediction
        assert found["temporary"] == PARAMETERS + KEPT + errors_of + 4 * 32 * 10


def test_remat_frozen_layers_and_rules_show():
    net = fnn.Serial((fnn.Remat(fnn.Serial(NET.layers[:4])), fnn.Frozen(NET.layers[4])))
    found = rows(net, rule=rules.KFac())
    assert found["kept"] == 4 * 32 * 64  # the input of the last layer
    assert found["gradients"] == PARAMETERS - 4 * 10 * 65
    assert found["rule state"] > 2 * 4 * 785**2


def test_it_is_a_table_of_a_network_larger_than_memory(needs_jax):
    net = fnn.Dense(2**20)
    x, y = np.broadcast_to(np.float32(0), (8, 2**20)), np.broadcast_to(np.float32(0), (8, 2**20))
    lines = fnn.memory(net, fnn.Quadratic(), (x, y)).splitlines()
    assert lines[0].split() == ["memory", "of", "a", "step", "bytes"]
    assert lines[1].split() == ["parameters", f"{4 * 2**20 * (2**20 + 1):,}"]


def test_what_is_no_batch_is_an_error():
    with pytest.raises(errors.KindError, match=r"batch: expected \(x, y\) or \(x, y, weights\), got ndarray"):
        fnn.memory(NET, LOSS, X)
    with pytest.raises(errors.FnnError, match="loss"):
        fnn.memory(NET, NET, (X, Y))
    with pytest.raises(errors.ShapeError):
        fnn.memory(fnn.Residual(NET), LOSS, (X, Y))

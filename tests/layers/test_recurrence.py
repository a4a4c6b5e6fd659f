"""Rnn, Lstm and Gru: the states, and backpropagation through time."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, key, moved, on, wide

import fnn
from fnn import errors
from fnn.testing import check_layer

pytestmark = pytest.mark.thorough(backend="jax")

LAYERS = fnn.Rnn, fnn.Lstm, fnn.Gru


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("seed", range(34 if THOROUGH else 4))
@pytest.mark.numpy_alone
def test_drawn_recurrent_layers_have_the_derivatives_of_the_complex_step(layer, seed):
    rng = np.random.default_rng(seed)
    units, positions, inputs = (int(v) for v in rng.integers(1, 6, 3))
    check_layer(layer(units, all_states=bool(seed % 2)), (positions, inputs), method="complex", on="numpy")


@pytest.mark.parametrize("layer", LAYERS)
def test_the_states_are_the_equations_one_position_after_another(layer, backend):
    rng, sigma = np.random.default_rng(0), lambda z: 1 / (1 + np.exp(-z))
    x = rng.normal(size=(3, 5, 2))
    params = moved(layer(4), (5, 2))
    w, u, b, *c = params
    h, cell, wanted = np.zeros((3, 4)), np.zeros((3, 4)), []
    for t in range(5):
        s, v = x[:, t] @ w.T + b, h @ u.T
        parts = lambda z: np.split(z, z.shape[1] // 4, axis=1)
        if layer is fnn.Rnn:
            h = np.tanh(s + v)
        elif layer is fnn.Lstm:
            i, f, g, o = parts(s + v)
            cell = sigma(f) * cell + sigma(i) * np.tanh(g)
            h = sigma(o) * np.tanh(cell)
        else:
            (sr, sz, sn), (vr, vz, vn) = parts(s), parts(v)
            r, z = sigma(sr + vr), sigma(sz + vz)
            h = (1 - z) * np.tanh(sn + r * (vn + c[0])) + z * h
        wanted.append(h)
    with wide():
        params, x = on(backend, (params, x))
        oracle.assert_close(layer(4, all_states=True).apply(params, x), np.stack(wanted, axis=1), 1e-12)
        oracle.assert_close(layer(4).apply(params, x), wanted[-1], 1e-12)


def test_the_forget_gate_of_a_new_lstm_is_open_and_its_other_biases_are_0(backend):
    params = fnn.Lstm(3).init(key(backend), (5, 2))
    np.testing.assert_array_equal(params.b, [0] * 3 + [1] * 3 + [0] * 6)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_gate_has_a_matrix_of_its_own(layer, backend):
    params = layer(4).init(key(backend), (5, 3))
    for u in np.split(np.asarray(params.u), len(layer.gates)):
        np.testing.assert_allclose(u @ u.T, np.eye(4), atol=1e-5)
    blocks = np.split(np.asarray(params.w), len(layer.gates))
    assert len({block.tobytes() for block in blocks}) == len(layer.gates)


def test_sequences_of_another_length_for_validation_are_refused_with_the_remedy():
    net, data = fnn.Serial((fnn.Rnn(3), fnn.Dense(1))), (np.ones((4, 5, 2)), np.ones((4, 1)))
    options = {"key": key(), "epochs": 1, "batch_size": 2, "validation": (np.ones((4, 7, 2)), np.ones((4, 1)))}
    with pytest.raises(errors.ShapeError, match=r"\(N, 5, 2\), as the data have.*pad or cut the sequences"):
        fnn.fit(net, fnn.Quadratic(), fnn.Sgd(0.1), data, **options)


def test_a_missing_axis_of_inputs_is_named():
    with pytest.raises(errors.ShapeError, match=r"one number per position use x\[\.\.\., None\]"):
        fnn.Rnn(3).output_shape((7,))

"""Rnn, Lstm and Gru: backpropagation through time, and sequences of unequal length."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, compiled, key, moved, on, wide

import fnn
from fnn import errors, trees
from fnn.testing import check_layer

LAYERS = fnn.Rnn, fnn.Lstm, fnn.Gru


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("seed", range(34 if THOROUGH else 4))
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


UNEQUAL = fnn.Serial(
    (
        fnn.Last(fnn.Serial((fnn.Embedding(9, 3), fnn.Lstm(4, all_states=True), fnn.Gru(3, all_states=True)))),
        fnn.Dense(2),
    )
)


def test_what_lies_beyond_the_length_has_no_value_no_gradient_and_no_factor(backend):
    rng, net, loss = np.random.default_rng(0), UNEQUAL, fnn.SoftmaxCrossEntropy()
    tokens, length, y = rng.integers(0, 9, (3, 5)), np.array([2, 5, 1]), np.array([0, 1, 1])
    other = np.where(np.arange(5) < length[:, None], tokens, 8)

    def of(params, tokens, length, y):
        x = {"x": tokens, "length": length}
        return net.apply(params, x), fnn.per_example.gradients(net, loss)(params, x, y)

    def run(params):
        alone = of(params, tokens[:1, :2], length[:1], y[:1])
        return of(params, tokens, length, y), of(params, other, length, y), alone

    with wide():
        params = on(backend, moved(net, {"x": (5,), "length": ()}))
        found, changed, alone = compiled(backend, run)(params)
        oracle.assert_close(changed, found, 1e-15)
        oracle.assert_close(trees.map(lambda a: a[:1], found), alone, 1e-12)


def test_numbers_beyond_the_length_may_even_be_nan(backend):
    net = fnn.Last(fnn.Rnn(3, all_states=True))
    params = net.init(key(backend), {"x": (4, 2), "length": ()})
    x = np.ones((2, 4, 2), np.float32)
    x[0, 2:] = np.nan
    tape = fnn.backprop(net, fnn.Quadratic())(params, {"x": x, "length": np.array([2, 4])}, np.zeros((2, 3)))
    assert np.isfinite(np.asarray(tape.prediction)).all()
    np.testing.assert_array_equal(np.asarray(tape.dx["x"])[0, 2:], 0)


@pytest.mark.parametrize("wrong", [0, 5, -1])
def test_a_length_that_is_none_is_refused_or_nan_where_it_is_not_known(backend, wrong):
    net = fnn.Last(fnn.Rnn(3, all_states=True))
    params = net.init(key(backend), {"x": (4, 2), "length": ()})
    x = {"x": np.ones((2, 4, 2), np.float32), "length": np.array([2, wrong])}
    with pytest.raises(errors.DataError, match=rf"length: expected lengths from 1 to 4, got {wrong} at length\[1\]"):
        net.apply(params, x)
    y = net.forward(params, x)[0]
    np.testing.assert_array_equal(np.isnan(np.asarray(y)).any(axis=1), [False, True])


def test_sequences_of_another_length_for_validation_are_refused_with_the_remedy():
    net, data = fnn.Serial((fnn.Rnn(3), fnn.Dense(1))), (np.ones((4, 5, 2)), np.ones((4, 1)))
    options = {"key": key(), "epochs": 1, "batch_size": 2, "validation": (np.ones((4, 7, 2)), np.ones((4, 1)))}
    with pytest.raises(errors.ShapeError, match=r"\(N, 5, 2\), as the data have.*pad or cut the sequences"):
        fnn.fit(net, fnn.Quadratic(), fnn.Sgd(0.1), data, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fnn.Rnn(3).output_shape((7,)), r"one number per position use x\[\.\.\., None\]"),
        (
            lambda: fnn.Last(fnn.Lstm(3)).output_shape({"x": (5, 2), "length": ()}),
            "recurrent layers take all_states=True",
        ),
        (
            lambda: fnn.Last(fnn.Lstm(3)).output_shape((5, 2)),
            r"expected x as \{'x': \(N, T, \.\.\.\), 'length': \(N,\)\}",
        ),
    ],
)
def test_usual_mistakes_are_named(make, message):
    with pytest.raises(errors.ShapeError, match=message):
        make()

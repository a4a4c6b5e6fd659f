"""Sequences of unequal length: what lies beyond the length of each has no effect, and what is refused."""

from typing import NamedTuple

import numpy as np
import oracle
import pytest
from helpers import compiled, key, moved, on, wide

import fnn
from fnn import errors, trees

pytestmark = pytest.mark.thorough(backend="jax")

UNEQUAL = fnn.Serial(
    (
        fnn.Last(fnn.Serial((fnn.Embedding(9, 3), fnn.Lstm(4, all_states=True), fnn.Gru(3, all_states=True)))),
        fnn.Dense(2),
    )
)


@pytest.mark.thorough(backend="jax")
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


@pytest.mark.thorough(backend="jax")
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


def test_lengths_of_8_bits_serve_sequences_that_are_longer_than_they_can_say(backend):
    net, x = fnn.Last(fnn.Tanh()), np.linspace(-1, 1, 600, dtype=np.float32).reshape(2, 300, 1)
    y = net.apply((), on(backend, {"x": x, "length": np.array([255, 3], np.uint8)}))
    np.testing.assert_allclose(y, np.tanh(x[[0, 1], [254, 2]]), rtol=1e-6)


class Sequences(NamedTuple):
    length: np.ndarray
    x: np.ndarray
    other: np.ndarray


def test_the_errors_of_the_inputs_have_the_form_of_x():
    net, rng = fnn.Last(fnn.Rnn(3, all_states=True)), np.random.default_rng(0)
    x = Sequences(np.array([2, 4]), rng.normal(size=(2, 4, 2)), np.ones((2, 3), np.float32))
    params, y = net.init(key(), fnn.examples.shape_of(x)), np.zeros((2, 3))
    dx = fnn.backprop(net, fnn.Quadratic())(params, x, y).dx
    assert type(dx) is Sequences
    assert [np.shape(a) for a in dx] == [np.shape(a) for a in x]
    named = fnn.backprop(net, fnn.Quadratic())(params, x._asdict(), y).dx
    assert set(named) == set(x._fields)
    np.testing.assert_array_equal(named["x"], dx.x)
    assert not np.asarray(named["length"]).any()
    assert not np.asarray(named["other"]).any()
    symbols = fnn.Last(fnn.Embedding(9, 2))
    given = {"x": np.zeros((2, 4), int), "length": x.length}
    of_symbols = symbols.init(key(), fnn.examples.shape_of(given))
    assert fnn.backprop(symbols, fnn.Quadratic())(of_symbols, given, np.zeros((2, 2))).dx is None, "integers have none"


@pytest.mark.parametrize(
    ("make", "message"),
    [
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

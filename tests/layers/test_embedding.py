"""Embedding: rows of a table, whose gradient never has the size of the table for each example."""

import numpy as np
import oracle
import pytest
from helpers import compiled, key, moved, on, wide

import fnn
from fnn import errors, factors, trees
from fnn.backend import jax
from fnn.testing import check_layer


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 2, 3)])
def test_an_embedding_has_the_derivatives_of_the_complex_step(shape):
    x = np.random.default_rng(0).integers(0, 7, shape)
    check_layer(fnn.Embedding(7, 3), x, method="complex", on="numpy")


def test_it_is_a_dense_layer_on_one_hot_vectors(backend):
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 7, (5, 4)), rng.normal(size=(5, 4, 3))
    layer, dense = fnn.Embedding(7, 3), fnn.Dense(3, bias=False)

    def run(w, dy):
        params, hot = fnn.DenseParams(w.T, ()), np.eye(7)[x]
        ours, theirs = layer.factors(w, x, dy), dense.factors(params, hot, dy)
        return [
            (layer.forward(w, x)[0], dense.forward(params, hot)[0]),
            (factors.made(w, ours), factors.made(params, theirs).w.swapaxes(-1, -2)),
            (factors.norm(ours), factors.norm(theirs)),
            (factors.products(ours, ours), factors.products(theirs, theirs)),
            (factors.squares(w, ours), factors.squares(params, theirs).w.T),
        ]

    with wide():
        for found, wanted in compiled(backend, run)(*on(backend, (moved(layer, (4,)), dy))):
            oracle.assert_close(found, wanted, 1e-12)


def test_the_gradient_of_an_example_has_not_the_size_of_the_table():
    layer = fnn.Embedding(10**6, 2)
    f = layer.factors(np.zeros((10**6, 2)), np.zeros((3, 4), int), np.ones((3, 4, 2)))
    assert sum(leaf.size for leaf in trees.leaves(f)) == 3 * 4 * 3


@pytest.mark.parametrize("wrong", [-1, 7, 100])
def test_a_number_beyond_the_table_is_an_error_or_nan_where_values_are_not_known(backend, wrong):
    layer, x = fnn.Embedding(7, 3), np.array([[1, 2], [wrong, 0]])
    w = layer.init(key(backend), (2,))
    with pytest.raises(errors.DataError, match=rf"expected integers from 0 to 6, got {wrong} at x\[1, 0\]"):
        layer.apply(w, x)
    if backend == "jax":
        y = np.asarray(jax.jit(layer.apply)(w, x))
        np.testing.assert_array_equal(np.isnan(y[..., 0]), [[False, False], [True, False]])


def test_symbols_of_8_bits_are_found_in_a_table_of_more_rows_than_they_can_number(backend):
    layer, x, dy = fnn.Embedding(300, 2), np.array([[127, 0, 127]], np.int8), np.float32([[[1, 2], [3, 4], [5, 6]]])
    w = np.arange(600, dtype=np.float32).reshape(300, 2)

    def run(w, x, dy):
        y, residuals = layer.forward(w, x)
        return y, layer.gradient(w, residuals, dy), layer.tangent(w, residuals, w, None)

    wanted = np.zeros((300, 2))
    wanted[[0, 127]] = [3, 4], [6, 8]
    oracle.assert_close(compiled(backend, run)(*on(backend, (w, x, dy))), (w[x], wanted, w[x]), 1e-6)


@pytest.mark.thorough(backend="jax")
def test_a_run_refuses_a_number_beyond_the_table_wherever_the_embedding_is(backend):
    inner = fnn.Serial((fnn.Embedding(7, 3), fnn.Rnn(2)))
    x = np.array([[1, 2, 0, 3], [4, 7, 0, 1]])
    for net in (inner, fnn.Parallel((fnn.Frozen(inner), inner))):
        for run in (
            lambda net, data: fnn.fit(
                net, fnn.Quadratic(), fnn.Sgd(0.1), data, key=key(backend), epochs=1, batch_size=2
            ),
            lambda net, data: fnn.value_and_grad(net, fnn.Quadratic())(net.init(key(backend), (4,)), *data),
        ):
            with pytest.raises(errors.DataError, match=r"expected integers from 0 to 6, got 7 at x\[1, 1\]"):
                run(net, (x, np.zeros((2, *net.output_shape((4,))))))


def test_floats_are_refused_with_the_remedy(backend):
    layer = fnn.Embedding(7, 3)
    with pytest.raises(
        errors.KindError, match=r"expected integers from 0 to 6, got dtype float32; use x\.astype\(int\)"
    ):
        layer.apply(layer.init(key(backend), (2,)), np.ones((1, 2), np.float32))

"""MaxPool, AvgPool, GlobalMaxPool and GlobalAvgPool."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, on, wide

import fnn
from fnn import errors
from fnn.backend import jax
from fnn.testing import check_layer

pytestmark = pytest.mark.thorough(backend="jax")

POOLS = fnn.MaxPool, fnn.AvgPool


def drawn(seed):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 3))
    draw = lambda low, high: tuple(int(v) for v in rng.integers(low, high, rank))
    window = draw(1, 4)
    stride = [None, draw(1, 4)][rng.integers(2)]
    padding = ["valid", "same", tuple((int(rng.integers(k)), int(rng.integers(k))) for k in window)][rng.integers(3)]
    sizes = tuple(int(rng.integers(k, k + 5)) for k in window)
    return POOLS[rng.integers(2)](window, stride, padding), (*sizes, int(rng.integers(1, 3)))


@pytest.mark.parametrize("seed", range(120 if THOROUGH else 16))
def test_drawn_pools_have_the_derivatives_of_the_complex_step(seed):
    layer, input_shape = drawn(seed)
    check_layer(layer, input_shape, method="complex", on="numpy")


def test_the_largest_and_where_it_is_are_those_of_reduce_window_with_ties(needs_jax):
    x = np.random.default_rng(0).integers(0, 3, (4, 7, 6, 2)).astype(np.float32)
    layer, lax = fnn.MaxPool((3, 2), (2, 1), ((1, 0), (0, 1))), jax.lax
    config = (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 0), (0, 1), (0, 0))

    def run(x):
        theirs, vjp = jax.vjp(lambda x: lax.reduce_window(x, -np.inf, lax.max, *config), x)
        y, residuals = layer.forward((), x)
        dy = jax.numpy.cos(jax.numpy.arange(y.size, dtype=np.float32)).reshape(y.shape)
        return (y, layer.backward((), residuals, dy)), (theirs, vjp(dy)[0]), dy

    ours, theirs, dy = oracle.quick_jit(run)(on("jax", x))
    oracle.assert_close(ours, theirs, 1e-6)
    y, residuals = layer.forward((), x)
    oracle.assert_close((y, layer.backward((), residuals, np.asarray(dy))), theirs, 1e-6)


def test_of_equal_entries_the_first_has_the_error(backend):
    x = on(backend, np.float32([[[1.0], [5.0], [5.0], [5.0]]]))
    _, residuals = fnn.MaxPool((4,)).forward((), x)
    dx = fnn.MaxPool((4,)).backward((), residuals, on(backend, np.float32([[[2.0]]])))
    np.testing.assert_array_equal(dx[0, :, 0], [0, 2, 0, 0])
    _, residuals = fnn.GlobalMaxPool().forward((), x)
    dx = fnn.GlobalMaxPool().backward((), residuals, on(backend, np.float32([[2.0]])))
    np.testing.assert_array_equal(dx[0, :, 0], [0, 2, 0, 0])


@pytest.mark.parametrize("place", range(3))
def test_nan_in_a_window_is_not_lost(backend, place):
    x = np.ones((1, 3, 1), np.float32)
    x[0, place] = np.nan
    for layer in (fnn.MaxPool((3,)), fnn.AvgPool((3,)), fnn.GlobalMaxPool(), fnn.GlobalAvgPool()):
        assert np.isnan(np.asarray(layer.apply((), on(backend, x)))).all(), layer


def test_padding_counts_neither_as_the_largest_nor_in_the_mean(backend):
    x = on(backend, -np.ones((1, 3, 3, 1), np.float32))
    for pool in POOLS:
        y = pool((2, 2), 2, "same").apply((), x)
        np.testing.assert_allclose(y, -np.ones((1, 2, 2, 1)), rtol=1e-6, err_msg=str(pool))


def test_pools_are_the_same_on_both_backends(needs_jax):
    layers = [fnn.MaxPool((2, 3), 2, "same"), fnn.AvgPool((2, 3), 1, 1), fnn.GlobalAvgPool(), fnn.GlobalMaxPool()]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 6, 2))
    dys = [rng.normal(size=(3, *layer.output_shape(x.shape[1:]))) for layer in layers]

    def run(x, dys):
        results = []
        for layer, dy in zip(layers, dys, strict=True):
            y, residuals = layer.forward((), x)
            results.append((y, layer.backward((), residuals, dy), layer.tangent((), residuals, (), x)))
        return results

    def by_jax(x, dys):
        pulled = [jax.vjp(lambda x, layer=layer: layer.forward((), x)[0], x) for layer in layers]
        return [(y, vjp(dy)[0], y) for (y, vjp), dy in zip(pulled, dys, strict=True)]

    with wide():
        wanted, ours = oracle.quick_jit(lambda x, dys: (by_jax(x, dys), run(x, dys)))(*on("jax", (x, dys)))
        oracle.assert_close(ours, wanted, 1e-12)
        oracle.assert_close(run(x, dys), wanted, 1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fnn.MaxPool(2), r"window: expected a tuple such as \(3, 3\)"),
        (lambda: fnn.AvgPool((2, 2)).output_shape((4, 4)), r"if the channel is missing, use x\[\.\.\., None\]"),
        (lambda: fnn.MaxPool((2, 2), padding=2).output_shape((4, 4, 1)), "padding: expected less than the window"),
        (lambda: fnn.GlobalAvgPool().output_shape((4,)), "the channels last"),
    ],
)
def test_usual_mistakes_are_named(make, message):
    with pytest.raises(errors.FnnError, match=message):
        make()

"""Dense: what its parameters are, and its products in reduced precision."""

import numpy as np
import oracle
import pytest
from helpers import on

import fnn
from fnn import errors, factors


def test_weights_have_one_row_for_each_unit(backend):
    params = fnn.Dense(3).init(fnn.random.key(0, backend=backend), (5,))
    assert params.w.shape == (3, 5)
    assert params.b.shape == (3,)
    assert params._fields == ("w", "b")
    x = np.arange(5.0, dtype=np.float32)[None]
    np.testing.assert_allclose(fnn.Dense(3).apply(params, x)[0], np.asarray(params.w) @ x[0], rtol=1e-5)


def test_products_in_bfloat16_are_close_and_their_sums_are_float32(needs_jax):
    rng, x64 = np.random.default_rng(0), np.float64
    x, dy, dw = (np.float32(rng.normal(size=shape)) for shape in ((64, 300), (64, 40), (40, 300)))
    exact, rounded = fnn.Dense(40), fnn.Dense(40, precision="bfloat16")
    params = exact.init(fnn.random.key(0, backend="numpy"), (300,))

    @oracle.quick_jit
    def run(params, x, dy, dparams):
        y, residuals = rounded.forward(params, x)
        f = rounded.factors(params, residuals, dy)
        grads, total, each = rounded.gradient(params, residuals, dy), factors.total(params, f), factors.made(params, f)
        narrow = fnn.trees.map(lambda p: p.astype("bfloat16"), params)
        assert rounded.apply(narrow, x).dtype == "bfloat16", "the dtype is that of the parameters"
        tangent = rounded.tangent(params, residuals, dparams, x)
        return (
            y,
            rounded.backward(params, residuals, dy),
            grads,
            total,
            fnn.trees.map(lambda g: g.sum(axis=0), each),
            tangent,
        )

    dparams = fnn.DenseParams(dw, np.ones(40, np.float32))
    found = run(*on("jax", (params, x, dy, dparams)))
    assert {leaf.dtype for leaf in fnn.trees.leaves(found)} == {np.dtype(np.float32)}
    y, dx, grads, total, summed, tangent = found
    oracle.assert_close(y, exact.apply(params, x), 1e-2)
    assert np.any(np.abs(y - exact.apply(params, x)) > 1e-5), "something is rounded"
    bf = lambda a: np.asarray(on("jax", a).astype("bfloat16").astype(np.float32), x64)
    oracle.assert_close(y, bf(x) @ bf(params.w).T + params.b, 1e-6)  # rounded once, then summed in float32
    oracle.assert_close(dx, bf(dy) @ bf(params.w), 1e-6)
    oracle.assert_close(grads, fnn.DenseParams(bf(dy).T @ bf(x), dy.sum(axis=0)), 1e-5)
    oracle.assert_close(total, grads, 1e-5)
    oracle.assert_close(summed, grads, 1e-5)
    oracle.assert_close(tangent, bf(x) @ bf(params.w).T + bf(x) @ bf(dw).T + 1, 1e-5)


def test_a_network_of_products_in_bfloat16_learns(needs_jax):
    net, loss = fnn.mlp((16, 3), precision="bfloat16"), fnn.SoftmaxCrossEntropy()
    assert repr(net) == "Serial((Dense(16, precision='bfloat16'), Relu(), Dense(3, precision='bfloat16')))"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = np.eye(3)[y] + 0.1 * rng.normal(size=(96, 3))
    state = fnn.init_state(net, fnn.Sgd(0.5), fnn.random.key(0), (3,))
    state, _ = fnn.train(net, loss, state, (x, y), epochs=40, batch_size=96)
    assert fnn.accuracy(net.apply(state.params, x), y).mean() == 1


def test_products_in_bfloat16_need_jax_and_no_other_precision_is_known():
    net = fnn.Dense(2, precision="bfloat16")
    params = net.init(fnn.random.key(0, backend="numpy"), (3,))
    with pytest.raises(errors.KindError, match="expected parameters on JAX, as NumPy has no bfloat16"):
        net.apply(params, np.ones((1, 3)))
    with pytest.raises(errors.KindError, match="expected parameters on JAX, as NumPy has no float8"):
        fnn.Dense(2, precision="float8").apply(params, np.ones((1, 3)))
    with pytest.raises(errors.ArgumentError, match=r"precision: expected None or one of .*'float8'.*, got 'float16'"):
        fnn.Dense(2, precision="float16")


def in_float8(a, axis):
    """Numbers in e4m3, of rows or columns in units of their own: three digits after the first, from 2⁻⁶, up to 448."""
    unit = abs(a).max(axis=axis, keepdims=True) / 448
    exponent = np.maximum(np.floor(np.log2(np.maximum(abs(a / unit), 1e-30))), -6)
    return np.round(a / unit * 2.0 ** (3 - exponent)) * 2.0 ** (exponent - 3) * unit


def test_products_in_float8_round_rows_and_columns_in_units_of_their_own(needs_jax):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(64, 32)), rng.normal(size=(64, 16))
    x *= np.exp(4 * rng.normal(size=(64, 1)))  # of very different lengths
    layer, exact = fnn.Dense(16, precision="float8"), fnn.Dense(16)
    params = exact.init(fnn.random.key(0, backend="numpy"), (32,))

    @oracle.quick_jit
    def run(params, x, dy):
        y, kept = layer.forward(params, x)
        grads, f = layer.gradient(params, kept, dy), layer.factors(params, kept, dy)
        moved, dz = needs_jax.jvp(lambda x: layer.apply(params, x), (x,), (x,))
        return y, layer.backward(params, kept, dy), grads, factors.total(params, f), moved, dz

    y, dx, grads, total, moved, dz = run(*on("jax", (params, np.float32(x), np.float32(dy))))
    w, bound = np.float64(params.w), 1e-5 if needs_jax.default_backend() == "cpu" else 2**-12  # a GPU's sums are short
    oracle.assert_close(y, in_float8(x, 1) @ in_float8(w, 1).T, bound)
    oracle.assert_close(dx, in_float8(dy, 1) @ in_float8(w, 0), bound)
    oracle.assert_close(moved, y, 0)
    oracle.assert_close(dz, x @ w.T, 1e-2)  # derivatives are not those of rounding, and have the range of bfloat16
    oracle.assert_close(grads.w, dy.T @ x, 1e-2)
    oracle.assert_close(total, grads, 1e-5)
    for row, wanted in zip(y, x @ w.T, strict=True):  # each example by itself
        assert np.linalg.norm(row - wanted) < 2 * 2**-4 * np.linalg.norm(wanted)  # two roundings by at most 2⁻⁴
    nothing = layer.apply(*on("jax", (params, np.zeros((2, 32), np.float32))))
    assert not np.any(nothing)


@pytest.mark.parametrize(("precision", "name"), [("tensorfloat32", "HIGH"), ("float32", "HIGHEST")])
def test_what_a_gpu_may_round_is_said_in_all_three_products(precision, name, needs_jax):
    layer = fnn.Dense(16, precision=precision)

    def run(params, x, dy):
        y, kept = layer.forward(params, x)
        return y, layer.backward(params, kept, dy), layer.gradient(params, kept, dy)

    arrays = layer.init(fnn.random.key(0), (8,)), *on("jax", (np.ones((4, 8)), np.ones((4, 16))))
    assert needs_jax.jit(run).lower(*arrays).as_text().count(f"[{name}, {name}]") == 3
    numpys, rounds = fnn.trees.map(np.asarray, arrays), needs_jax.default_backend() != "cpu" and name == "HIGH"
    oracle.assert_close(run(*arrays), run(*numpys), 2**-10 if rounds else 1e-6)


def test_the_same_map_acts_at_each_position(backend):
    layer, x = fnn.Dense(3), np.random.default_rng(0).normal(size=(4, 2, 6, 5)).astype(np.float32)
    params = layer.init(fnn.random.key(0, backend=backend), (2, 6, 5))
    assert params.w.shape == (3, 5)
    assert layer.output_shape((2, 6, 5)) == (2, 6, 3)
    at_each = [layer.apply(params, x[:, i, j]) for i in range(2) for j in range(6)]
    oracle.assert_close(layer.apply(params, x), np.stack(at_each, axis=1).reshape(4, 2, 6, 3), 1e-6)

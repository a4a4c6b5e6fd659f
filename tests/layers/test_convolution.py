"""Conv: all products of patches, however they are cut, on both backends."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, as_on_a_gpu, blocks_of, key, moved, on, wide

import fnn
from fnn import errors, factors, trees
from fnn.backend import jax
from fnn.testing import check_layer


def drawn(seed):
    """A convolution and the shape of its input."""
    rng = np.random.default_rng(seed)
    rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    draw = lambda low, high: tuple(int(v) for v in rng.integers(low, high, rank))
    kernel, stride = draw(1, 6), draw(1, 4)
    dilation = draw(1, 3) if rng.integers(2) else (1,) * rank
    pairs = tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (rank, 2)))
    padding = ["valid", "same", int(rng.integers(0, 3)), pairs][rng.integers(4)]
    sizes = tuple(int(rng.integers((k - 1) * d + 1, (k - 1) * d + 6)) for k, d in zip(kernel, dilation, strict=True))
    channels, outputs = (groups * int(v) for v in rng.integers(1, 4, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return fnn.Conv(outputs, kernel, bias=bool(rng.integers(2)), **options), (*sizes, channels)


@pytest.mark.parametrize("seed", range(150 if THOROUGH else 30))
@pytest.mark.numpy_alone
def test_drawn_convolutions_have_the_derivatives_of_the_complex_step(seed):
    layer, input_shape = drawn(seed)
    check_layer(layer, input_shape, method="complex", on="numpy")


def data(layer, input_shape, seed=0):
    """Parameters, x, δ and directions (dparams, dx), for five examples."""
    params, rng = moved(layer, input_shape), np.random.default_rng(seed)
    x, dx = rng.normal(size=(2, 5, *input_shape))
    dy = rng.normal(size=(5, *layer.output_shape(input_shape)))
    return params, x, dy, trees.map(lambda p: rng.normal(size=p.shape), params), dx


def by_hand(layer, params, x, dy, dparams, dx):
    """Output, gradient, dx, tangent and the total of the factors."""
    y, residuals = layer.forward(params, x)
    f = layer.factors(params, residuals, dy)
    grads, below = layer.gradient(params, residuals, dy), layer.backward(params, residuals, dy)
    return y, grads, below, layer.tangent(params, residuals, dparams, dx), factors.total(params, f)


def by_jax(layer, params, x, dy, dparams, dx):
    """The same by JAX of `forward` alone."""
    f = lambda params, x: layer.forward(params, x)[0]
    y, tangent = jax.jvp(f, (params, x), (dparams, dx))
    grads, below = jax.vjp(f, params, x)[1](dy)
    return y, grads, below, tangent, grads


def in_blocks(layer, params, x, *others):
    """By hand in blocks of two examples: of five, two blocks and a rest."""
    with blocks_of(2, layer, x.shape[1:]):
        return by_hand(layer, params, x, *others)


def test_blocks_of_examples_give_what_all_of_them_at_once_give():
    for seed in range(150 if THOROUGH else 50):
        layer, input_shape = drawn(seed)
        given = data(layer, input_shape)
        oracle.assert_close({str(layer): in_blocks(layer, *given)}, {str(layer): by_hand(layer, *given)}, 1e-12)


@pytest.mark.parametrize("part", range(30 if THOROUGH else 1))
def test_drawn_convolutions_have_jaxs_derivatives_on_both_backends_and_as_on_a_gpu(part, needs_jax):
    # the first two take two, and four, neighbouring windows together
    layers, input_shapes = zip(*(drawn(704 + 4 * part + i) for i in range(4)), strict=True)
    given = [data(*case, seed=part) for case in zip(layers, input_shapes, strict=True)]

    def run(given):
        of_each = lambda f: {str(layer): f(layer, *g) for layer, g in zip(layers, given, strict=True)}
        ours = of_each(in_blocks)
        with as_on_a_gpu():  # each product one of JAX's convolutions, without blocks: also what JAX differentiates
            return ours, of_each(by_hand), of_each(by_jax)

    with wide():
        ours, on_a_gpu, wanted = oracle.quick_jit(run)(on("jax", given))
    on_numpy = {str(layer): by_hand(layer, *g) for layer, g in zip(layers, given, strict=True)}
    for found in (ours, on_a_gpu, on_numpy):
        oracle.assert_close(found, wanted, 1e-12)


@pytest.mark.thorough(backend="jax")
@pytest.mark.parametrize(
    ("layer", "sizes", "taken"),
    [
        (fnn.Conv(20, (5, 5)), (12, 12), 4),
        (fnn.Conv(21, (5, 5)), (12, 12), 2),
        (fnn.Conv(3, (2, 6), (1, 3), ((1, 0), (2, 1))), (4, 12), 2),
        (fnn.Conv(41, (5, 5)), (12, 12), 1),
        (fnn.Conv(4, (5,), padding="same"), (7,), 1),
        (fnn.Conv(4, (3,), 2, "same"), (8,), 1),
        (fnn.Conv(4, (5,), dilation=2), (12,), 1),
        (fnn.Conv(4, (5,), groups=2), (12,), 1),
    ],
)
def test_windows_taken_together_give_what_each_of_them_gives(layer, sizes, taken, backend, monkeypatch):
    assert layer._neighbours(layer._windows((*sizes, 2))) == taken
    with wide():
        params, x, dy, *_ = on(backend, data(layer, (*sizes, 2)))
        run = lambda: (layer.backward(params, x, dy), layer.gradient(params, x, dy))
        together = run()
        monkeypatch.setattr(fnn.Conv, "_neighbours", lambda self, windows: 1)
        oracle.assert_close(together, run(), 1e-12)


def test_the_numbers_are_those_of_the_sum_written_out(backend):
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 5, 6, 4)), rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    layer = fnn.Conv(6, (2, 3), stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2)
    wanted = np.zeros((2, 3, 4, 6))
    for n, i, j, o in np.ndindex(*wanted.shape):
        for a, c, k in np.ndindex(2, 3, 2):
            row, column, channel = 2 * i + a - 1, j + 2 * c, o // 3 * 2 + k
            if 0 <= row < 5 and 0 <= column < 6:
                wanted[n, i, j, o] += w[o, a, c, k] * x[n, row, column, channel]
    with wide():
        params = on(backend, fnn.DenseParams(w, b))
        oracle.assert_close(layer.apply(params, on(backend, x)), wanted + b, 1e-12)


@pytest.mark.parametrize("size", [1, 4, 5, 8])
def test_same_has_as_many_positions_as_there_are_strides(size):
    for stride in (1, 2, 3):
        assert fnn.Conv(1, (3,), stride, "same").output_shape((size, 1)) == (-(-size // stride), 1)


@pytest.mark.thorough(backend="jax")
def test_the_factors_are_patches_where_these_are_smaller_than_the_gradient(backend):
    layer, x = fnn.Conv(50, (3,)), np.ones((2, 4, 40), np.float32)
    params = layer.init(key(backend), (4, 40))
    assert params.w.shape == (50, 3, 40)
    of = lambda layer, params, x: layer.factors(params, layer.forward(params, x)[1], np.ones((2, 2, 50), np.float32)).w
    found = of(layer, params, on(backend, x))
    assert isinstance(found, factors.Outer)
    assert found.a.shape == (2, 2, 120)
    small = fnn.Conv(50, (1,))
    assert of(small, small.init(key(backend), (2, 1)), on(backend, x[:, :2, :1])).shape == (2, 50, 1, 1)
    outer = small.outer_factors(small.init(key(backend), (2, 1)), on(backend, x[:, :2, :1]), np.ones((2, 2, 50))).w
    assert isinstance(outer, factors.Outer)
    assert outer.a.shape == (2, 2, 1)


def test_fields_that_mean_the_same_are_equal():
    assert fnn.Conv(3, (2, 2), (2, 2), ((1, 1), (1, 1)), (1, 1)) == fnn.Conv(3, (2, 2), 2, 1)
    assert fnn.Conv(3, (2,), padding=0) == fnn.Conv(3, (2,), padding="valid") == fnn.Conv(3, (2,), padding=((0, 0),))
    assert repr(fnn.Conv(3, (2, 2), (2, 1))) == "Conv(3, (2, 2), stride=(2, 1))"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fnn.Conv(3, 2), r"kernel: expected a tuple such as \(3, 3\) for images"),
        (lambda: fnn.Conv(3, (2, 2), stride=0), "stride: expected an integer of at least 1"),
        (lambda: fnn.Conv(3, (2, 2), stride=(1, 2, 3)), "stride: expected a number, or one for each of 2 axes"),
        (lambda: fnn.Conv(3, (2, 2), padding="full"), "padding: expected 'valid', 'same' or numbers"),
        (lambda: fnn.Conv(3, (2, 2), padding=(1, 2, 3)), "padding: expected a number or a pair for each of 2 axes"),
        (lambda: fnn.Conv(3, (2,), groups=2), "channels: expected a multiple of 2 groups, got 3"),
        (lambda: fnn.Conv(3, (2, 2)).output_shape((28, 28)), r"if the channel is missing, use x\[\.\.\., None\]"),
        (lambda: fnn.Conv(3, (5, 5)).output_shape((1, 28, 28)), "if the channels come first.*transpose"),
        (lambda: fnn.Conv(2, (1,), groups=2).output_shape((4, 3)), "number of channels that 2 groups divide, got 3"),
    ],
)
def test_usual_mistakes_are_named_with_their_remedy(make, message):
    with pytest.raises(errors.FnnError, match=message):
        make()


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_no_images_give_no_predictions(backend, request):
    if backend == "jax":
        request.getfixturevalue("needs_jax")
    layers = fnn.Conv(4, (2, 2), groups=2), fnn.Relu(), fnn.MaxPool((2, 2))
    for head in (fnn.Flatten(), fnn.GlobalAvgPool(), fnn.GlobalMaxPool()):
        net = fnn.Serial((*layers, head, fnn.Dense(3)))
        params = on(backend, net.init(key(), (5, 5, 2)))
        assert net.apply(params, on(backend, np.zeros((0, 5, 5, 2), np.float32))).shape == (0, 3)

"""Normalized examples have mean 0 and variance 1; constants measured of data are exact, and are not learnt."""

import tracemalloc

import numpy as np
import oracle
import pytest
from helpers import compiled
from test_activations import check_both_modes

import fnn
from fnn import errors
from fnn.layers import standardize
from fnn.static import registered
from fnn.testing import check_layer

pytestmark = pytest.mark.thorough(backend="jax")

HOMES = ("fnn.layers.normalization.", "fnn.layers.standardize.")
EACH = {name.rpartition(".")[2]: cls() for name, cls in registered(fnn.Layer).items() if name.startswith(HOMES)}


@pytest.mark.parametrize("input_shape", [(4,), (3, 4), (2, 2, 4)])
def test_the_tangent_is_the_transpose_of_the_backward_pass_and_that_of_jax(input_shape, backend):
    assert len(EACH) >= 3
    check_both_modes(EACH, input_shape, backend)


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("input_shape", [(4,), (3, 4)])
def test_derivatives_are_those_of_the_formula(name, input_shape):
    check_layer(EACH[name], input_shape, method="complex", on="numpy")
    check_layer(EACH[name], input_shape, on="numpy", method="complex", dtype=np.float32)


@pytest.mark.parametrize("name", EACH)
def test_none_in_a_direction_means_zero(name):
    layer, rng = EACH[name], np.random.default_rng(0)
    params = layer.init(fnn.random.key(0, backend="numpy"), (3, 4), np.float64)
    x, dx = rng.normal(size=(2, 5, 3, 4))
    _, residuals = layer.forward(params, x)
    dparams = fnn.trees.map(lambda p: rng.normal(size=p.shape), params)
    zeros = fnn.trees.map(np.zeros_like, params)
    tangent = lambda *direction: layer.tangent(params, residuals, *direction)
    assert tangent(None, None) is None
    assert tangent(type(params)(*(None for _ in params)), None) is None
    np.testing.assert_array_equal(tangent(None, dx), tangent(zeros, dx))
    for field in params._fields:
        one = {field: getattr(dparams, field)}
        some = type(params)(**dict.fromkeys(params._fields) | one)
        assert tangent(some, None).shape == x.shape
        np.testing.assert_allclose(tangent(some, dx), tangent(zeros._replace(**one), dx), rtol=1e-14)
        np.testing.assert_array_equal(tangent(some, None), tangent(zeros._replace(**one), 0 * dx))


def test_narrow_dtypes_are_kept_and_hold_the_digits_that_they_can(backend):
    def passes(cases):
        found = {}
        for name, (params, x, dy) in cases.items():
            y, residuals = EACH[name].forward(params, x)
            found[name] = y, EACH[name].backward(params, residuals, dy), EACH[name].gradient(params, residuals, dy)
        return found

    key, wide = (
        fnn.random.key(0, backend="numpy"),
        lambda tree: fnn.trees.map(lambda a: np.asarray(a, np.float64), tree),
    )
    for dtype, tolerance in (("float16", 2e-3), *([("bfloat16", 2e-2)] if backend == "jax" else [])):
        dtype = fnn.backend.jnp.dtype(dtype) if backend == "jax" else np.dtype(dtype)
        x, dy = np.random.default_rng(0).normal(size=(2, 5, 300)).astype(dtype)
        narrow = lambda p: np.asarray(p).astype(dtype)  # noqa: B023 - called at once
        cases = {name: (fnn.trees.map(narrow, layer.init(key, (300,))), x, dy) for name, layer in EACH.items()}
        found = compiled(backend, passes)(cases)
        assert all(leaf.dtype == dtype for leaf in fnn.trees.leaves(found))
        oracle.assert_close(wide(found), passes(wide(cases)), tolerance)


@pytest.mark.parametrize("layer", [fnn.LayerNorm(), fnn.RMSNorm()])
def test_the_entries_that_are_normalized_are_not_the_batch(layer):
    key = fnn.random.key(0, backend="numpy")
    with pytest.raises(errors.ShapeError, match=r"\(N, \.\.\., K\), got \(N,\)"):
        layer.init(key, ())
    with pytest.raises(errors.ShapeError, match="gain"):
        layer.apply(layer.init(key, (3,)), np.ones((2, 4)))
    with pytest.raises(errors.ArgumentError, match="eps > 0"):
        type(layer)(eps=0.0)


def test_normalized_examples_have_mean_zero_and_variance_one_however_large(backend):
    rng = np.random.default_rng(0)
    for scale, shift in ((1, 0), (1e4, 0), (100, 1e4)):
        x = (scale * rng.normal(size=(5, 64)) + shift).astype(np.float32)
        layer = fnn.LayerNorm()
        y = np.asarray(layer.apply(layer.init(fnn.random.key(0, backend=backend), (64,)), x))
        np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-3)
        np.testing.assert_allclose(y.std(axis=1), 1, atol=1e-3)
        layer = fnn.RMSNorm()
        y = np.asarray(layer.apply(layer.init(fnn.random.key(0, backend=backend), (64,)), x))
        np.testing.assert_allclose((y**2).mean(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("layer", [fnn.LayerNorm(), fnn.RMSNorm()])
def test_an_example_whose_squares_overflow_is_nan_and_not_0(layer, backend):
    x = np.array([[1e20, -1e20, 3e20], [1, -2, 3]], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        y = np.asarray(layer.apply(layer.init(fnn.random.key(0, backend=backend), (3,)), x))
    np.testing.assert_array_equal(np.isnan(y), [[True] * 3, [False] * 3])


# ---- Standardize and what it measures --------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
MEASURED = {
    "usual": RNG.normal(3, 2, (50, 4)),
    "float32": RNG.normal(-3, 2, (50, 4)).astype(np.float32),
    "images of uint8": RNG.integers(0, 256, (50, 2, 3), dtype=np.uint8),
    "True and False": RNG.random((50, 3)) < 0.3,
    "a number each": RNG.normal(size=50),
    "one outlier first": np.concatenate([[[1e6]], RNG.normal(size=(49, 1))]),
    "a small spread": 1e-100 * RNG.normal(size=(50, 2)),
}
pieces = pytest.mark.parametrize("piece", [1, 7, 40, 2**18])


def measured(x, weights=None, dtype=np.float64):
    return fnn.Standardize().measured(x, weights, dtype)


def test_a_feature_less_its_mean_over_its_deviation(backend):
    rng, layer = np.random.default_rng(0), fnn.Standardize()
    xp = np if backend == "numpy" else fnn.backend.jnp
    mean, std = rng.normal(size=(2, 3)), rng.uniform(0.5, 2, (2, 3))
    params = fnn.StandardizeParams(*(xp.asarray(a, dtype=np.float32) for a in (mean, std)))
    for x in (rng.normal(size=(6, 2, 3)), rng.integers(0, 256, (6, 2, 3), dtype=np.uint8)):
        y = layer.apply(params, x)
        assert y.dtype == np.float32
        oracle.assert_close(y, (x - mean) / std, 1e-6)
        new = layer.init(fnn.random.key(0, backend=backend), (2, 3))
        np.testing.assert_array_equal(layer.apply(new, x), x.astype(np.float32), "before it is measured x is as it was")


@pieces
@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_is_the_mean_and_the_standard_deviation_of_numpy(name, piece, monkeypatch):
    monkeypatch.setattr(standardize, "PIECE", piece)
    x = MEASURED[name]
    found = measured(x)
    assert found.mean.shape == found.std.shape == x.shape[1:]
    wide = x.astype(np.float64)
    oracle.assert_close(found, fnn.StandardizeParams(wide.mean(axis=0), wide.std(axis=0)), 1e-14)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_measured_is_that_of_scikit_learn(weighted):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = np.concatenate([RNG.normal(3, 2, (50, 4)), np.full((50, 1), 0.1), np.zeros((50, 1))], axis=1)
    weights = RNG.integers(0, 4, 50).astype(float) if weighted else None
    theirs = preprocessing.StandardScaler().fit(x, sample_weight=weights)
    found = measured(x, weights)
    oracle.assert_close(found, fnn.StandardizeParams(theirs.mean_, theirs.scale_), 1e-12)
    oracle.assert_close(fnn.Standardize().apply(found, x), theirs.transform(x), 1e-12)


@pieces
def test_a_large_mean_costs_no_digits(piece, monkeypatch):
    monkeypatch.setattr(standardize, "PIECE", piece)
    small = np.round(RNG.normal(size=(1000, 2)) * 2**20) / 2**20  # so that the sum with 1e8 is exact
    found = measured(1e8 + small)
    oracle.assert_close((found.mean - 1e8, found.std), (small.mean(axis=0), small.std(axis=0)), 1e-6)
    assert oracle.relative_error(found.std, small.std(axis=0)) < 1e-12, "the mean has 8 digits less, the spread all"
    narrow = measured(1e8 + small, dtype=np.float32)
    oracle.assert_close(narrow, found, 1e-7)


@pieces
def test_a_constant_feature_is_divided_by_one(piece, monkeypatch):
    monkeypatch.setattr(standardize, "PIECE", piece)
    values = np.array([0.1, 0.0, -1e300, 1e-300, 7.0])
    found = measured(np.broadcast_to(values, (1000, 5)))
    np.testing.assert_array_equal(found.mean, values)
    np.testing.assert_array_equal(found.std, np.ones(5))
    rounded = np.where(RNG.random((1000, 2)) < 0.5, 0.3, 0.1 + 0.2) * [1.0, -1e9]
    np.testing.assert_array_equal(measured(rounded).std, [1, 1], "the last digit of a constant is no spread")
    seconds = 1.7e9 + RNG.integers(0, 2, (1000, 1)) * 1e-3
    np.testing.assert_allclose(measured(seconds).std, 5e-4, rtol=0.01, err_msg="a spread of 10⁻¹² of the mean is one")


def test_a_spread_that_the_dtype_cannot_hold_is_divided_by_one(backend):
    x = np.array([[0, 0], [1e-50, 1e-39]])
    if backend == "jax":  # on JAX x is float32 already, where the second of them is not normal
        x = fnn.backend.jnp.asarray(x, np.float32)
    np.testing.assert_array_equal(measured(x, dtype=np.float32).std, [1, 1])
    np.testing.assert_array_equal(measured(np.array([[0.0], [1e-9]]), dtype=np.float16).std, [1])


def test_one_example_is_a_mean_without_a_spread():
    x = np.array([[2.0, -3.0]])
    found = measured(x)
    np.testing.assert_array_equal(found, [[2, -3], [1, 1]])
    np.testing.assert_array_equal(fnn.Standardize().apply(found, x), [[0, 0]])


@pieces
def test_weights_are_repetitions(piece, monkeypatch):
    monkeypatch.setattr(standardize, "PIECE", piece)
    x, weights = RNG.normal(5, 2, (60, 3)), RNG.integers(0, 3, 60)
    weights[:20] = 0  # whole pieces without any
    wanted = measured(np.repeat(x, weights, axis=0))
    oracle.assert_close(measured(x, weights), wanted, 1e-14)
    oracle.assert_close(measured(x, weights * 1e-200), wanted, 1e-14)
    large = 1e160 + 1e150 * x  # whose squares no float64 holds, though it holds those of the deviations
    assert oracle.relative_error(measured(large, weights).std, 1e150 * wanted.std) < 1e-5
    x[weights == 0] = np.array([np.nan, np.inf, 1e300])
    oracle.assert_close(measured(x, weights), wanted, 1e-14)


@pytest.mark.parametrize(("dtype", "width"), [("u1", 1), ("u1", 100), (">f4", 100)])
def test_of_a_file_a_piece_at_a_time_is_in_memory(dtype, width, tmp_path):
    x = np.memmap(tmp_path / "x", dtype, "w+", shape=(12_000_000 // width, width))
    x[:] = np.arange(width)
    x[::2] += np.ones(1, dtype)
    tracemalloc.start()
    try:
        found = measured(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found.mean, np.arange(width) + 0.5, rtol=1e-12)
    np.testing.assert_allclose(found.std, 0.5, rtol=1e-12)
    assert peak < 2**23, f"{peak} bytes; as float64 x has {8 * x.size}"


def test_what_is_measured_is_float32_and_read_only_and_lies_where_the_data_do(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    x = xp.asarray(MEASURED["float32"])
    found = fnn.Standardize().measured(x)
    for leaf in found:
        assert isinstance(leaf, np.ndarray) == (backend == "numpy")
        assert leaf.dtype == np.float32
        if backend == "numpy":
            assert not leaf.flags.writeable
    oracle.assert_close(found, fnn.Standardize().measured(np.asarray(x).tolist()), 0)
    if backend == "jax":
        narrow = fnn.Standardize().measured(x.astype("bfloat16"), dtype="bfloat16")
        assert narrow.std.dtype == "bfloat16"
        oracle.assert_close(narrow, found, 1e-2)


WITH_NAN = np.ones((30, 2, 3))
WITH_NAN[20, 1, 2] = np.nan
BAD_DATA = {
    "nan": (WITH_NAN, {}, errors.DataError, r"x: expected finite numbers, got nan at x\[20, 1, 2\]"),
    "an infinity": (np.array([1.0, -np.inf]), {}, errors.DataError, r"got -inf at x\[1\]"),
    "nothing": (np.ones((0, 3)), {}, errors.DataError, "at least one example"),
    "a number": (3.0, {}, errors.ShapeError, "leading axis of examples"),
    "text": ([["a"]], {}, errors.KindError, "x: expected an array of numbers"),
    "complex numbers": (np.ones(3) + 1j, {}, errors.KindError, "x: expected real numbers, got dtype complex128"),
    "a mask": (np.ma.masked_equal(np.eye(2), 0), {}, errors.KindError, "x: expected an array without mask"),
    "more than float32 holds": (np.full((2, 1), 1e39), {}, errors.DataError, r"mean of x.*inf at mean of x\[0\]"),
    "a spread of that kind": ([[1e39], [-1e39]], {}, errors.DataError, "standard deviation of x: expected finite"),
    "more than float64 holds": ([[1e308], [-1e308]], {"dtype": np.float64}, errors.DataError, "of x: expected finite"),
    "weights of others": (
        np.ones((3, 2)),
        {"weights": np.ones(2)},
        errors.ShapeError,
        r"weights: .*\(3,\), got \(2,\)",
    ),
    "no weight": (np.ones((3, 2)), {"weights": np.zeros(3)}, errors.DataError, "weight above 0"),
    "a negative weight": (np.ones((2, 2)), {"weights": [1, -1]}, errors.DataError, r"got -1.0 at weights\[1\]"),
    "a weight that is none": (np.ones((2, 2)), {"weights": [1, np.nan]}, errors.DataError, r"nan at weights\[1\]"),
    "a dtype of integers": (np.ones((2, 2)), {"dtype": np.int32}, errors.KindError, "floating dtype, got int32"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_measured_are_refused(name, monkeypatch):
    monkeypatch.setattr(standardize, "PIECE", 60)
    x, options, error, message = BAD_DATA[name]
    with pytest.raises(error, match=message):
        fnn.Standardize().measured(x, **options)


def test_what_jax_does_not_know_or_cannot_hold_is_not_measured(needs_jax):
    with pytest.raises(errors.KindError, match="outside of jit"):
        needs_jax.eval_shape(fnn.Standardize().measured, np.ones((3, 2)))
    with pytest.raises(errors.ArgumentError, match="jax_enable_x64"):
        measured(needs_jax.numpy.ones((3, 2)))


@pytest.mark.parametrize(
    ("params", "x", "message"),
    [
        (fnn.StandardizeParams(np.zeros(3), np.ones(3)), np.ones((2, 4)), r"mean: expected shape \(4,\), got \(3,\)"),
        (fnn.StandardizeParams(np.zeros(3), np.ones(3)), np.ones((2, 1, 3)), r"mean: .*\(1, 3\), got \(3,\)"),
        (fnn.StandardizeParams(np.zeros(3), np.ones(1)), np.ones((2, 3)), r"std: expected shape \(3,\), got \(1,\)"),
        ((np.zeros(3), np.ones(3)), np.ones((2, 3)), r"structure StandardizeParams.*, got \(\(3,\)"),
    ],
)
def test_constants_that_do_not_fit_the_input_are_refused(params, x, message):
    with pytest.raises(errors.ShapeError, match=message):
        fnn.Standardize().apply(params, x)


def test_measured_constants_are_served_as_they_were_and_never_learnt(backend, tmp_path):
    rng, key = np.random.default_rng(0), fnn.random.key(0, backend=backend)
    x = rng.normal(100, [3, 0.1], (64, 2))
    y = (x - 100) / [3, 0.1] @ [[1.0], [-1.0]]
    net, loss = fnn.Serial((fnn.Frozen(fnn.Standardize()), fnn.Dense(1))), fnn.Quadratic()
    constants = fnn.trees.Fixed(fnn.Standardize().measured(x))  # on NumPy, as the data are, beside a key of JAX
    params = (constants, *net.init(key, (2,))[1:])
    state = fnn.init_state(net, fnn.AdamW(0.1, weight_decay=1e-3), key, (2,), params=params)
    step, losses = fnn.make_step(net, loss, penalty=fnn.L2(1e-5)), []
    for i in range(160):  # one step compiles sooner than `train`
        state, metrics = step(state, (x[i % 8 :: 8], y[i % 8 :: 8]))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-8:]) < 1e-2 < np.mean(losses[:8])
    for found, wanted in zip(state.params[0].params, constants.params, strict=True):
        assert isinstance(found, np.ndarray) == (backend == "numpy")
        np.testing.assert_array_equal(found, wanted)
    fnn.checkpoints.save(tmp_path / "net.npz", state, net=net)
    served, weights = fnn.load_network(tmp_path / "net.npz", backend="numpy")
    assert served == net
    np.testing.assert_array_equal(weights[0].params, constants.params)
    oracle.assert_close(served.apply(weights, x), net.apply(state.params, x), 0 if backend == "numpy" else 1e-5)

"""First values have the mean, the variance and the bounds of their formulas, on both backends the same."""

import itertools
import math

import numpy as np
import pytest
from helpers import compiled

import fnn
from fnn import initializers, random
from fnn.errors import ArgumentError, KindError, ShapeError

O, I = 200, 300
FAN_AVG = (O + I) / 2
TRUNCATED = 0.7737413  # variance of a standard normal given that it falls into (−2, 2): 1 − 4 φ(2) / (2 Φ(2) − 1)

# initializer, its variance for the shape (O, I), and its bound: |w| < bound. A variance of 0 is a constant.
LAWS = [
    (fnn.Zeros(), 0, 0.0),
    (fnn.Ones(), 0, 1.0),
    (fnn.Constant(-0.3), 0, 0.3),
    (fnn.Uniform(), 0.1**2 / 12, 0.05),
    (fnn.Uniform(-2, 2), 4**2 / 12, 2),
    (fnn.Normal(), 0.01**2, math.inf),
    (fnn.Normal(3), 9, math.inf),
    (fnn.TruncatedNormal(), 0.01**2 * TRUNCATED, 2 * 0.01),
    (fnn.TruncatedNormal(3), 9 * TRUNCATED, 2 * 3),
    (fnn.LecunNormal(), 1 / I, math.inf),
    (fnn.LecunUniform(), 1 / I, math.sqrt(3 / I)),
    (fnn.GlorotNormal(), 2 / (I + O), math.inf),
    (fnn.GlorotUniform(), 2 / (I + O), math.sqrt(6 / (I + O))),
    (fnn.HeNormal(), 2 / I, math.inf),
    (fnn.HeUniform(), 2 / I, math.sqrt(6 / I)),
    (fnn.Orthogonal(), 1 / I, 1.0),
    (fnn.Orthogonal(3), 9 / I, 3.0),
] + [
    (
        fnn.VarianceScaling(scale, mode, distribution),
        scale / n,
        {
            "normal": math.inf,
            "truncated_normal": 2 * math.sqrt(scale / n / TRUNCATED),
            "uniform": math.sqrt(3 * scale / n),
        }[distribution],
    )
    for scale, (mode, n), distribution in itertools.product(
        (1.0, 0.5),
        {"fan_in": I, "fan_out": O, "fan_avg": FAN_AVG}.items(),
        ("normal", "truncated_normal", "uniform"),
    )
]
EACH = [law[0] for law in LAWS]


def np_key(seed=0):
    return random.key(seed, backend="numpy")


def test_the_table_above_has_every_initializer():
    public = {thing for thing in vars(initializers).values() if isinstance(thing, type)}
    public = {thing for thing in public if issubclass(thing, initializers.Initializer)} - {initializers.Initializer}
    assert public == {type(initializer) for initializer in EACH}


# ---- the laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("initializer", "variance", "bound"), LAWS, ids=map(repr, EACH))
def test_values_have_the_mean_variance_and_bounds_of_their_formula(initializer, variance, bound, dtype):
    w = initializer(np_key(5), (O, I), dtype)
    assert (w.shape, w.dtype) == ((O, I), dtype)
    w = w.astype(np.float64)
    rounding = np.finfo(dtype).eps  # 0.001 in float16, which moves what lies at a bound or is not zero
    if variance == 0:
        assert np.abs(w - w[0, 0]).max() == 0
        assert abs(w[0, 0] - initializer.value) <= rounding
        return
    # 5 standard errors: p = 6e-7. Of an orthogonal matrix the squares have a fixed sum, so there it is sharper yet.
    assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
    squares = w**2
    assert abs(squares.mean() - variance) < 5 * squares.std() / math.sqrt(w.size) + 2 * rounding * variance
    assert np.abs(w).max() <= bound * (1 + rounding)
    if "Uniform" in repr(initializer) or "uniform" in repr(initializer):
        assert np.abs(w).max() > 0.999 * bound  # of 60,000, one lies as far out but for a case in e⁶⁰


def test_a_uniform_lies_between_its_own_bounds():
    w = fnn.Uniform(2, 5)(np_key(), (O, I))
    assert 2 <= w.min() < 2.001
    assert 4.999 < w.max() < 5


@pytest.mark.parametrize(
    ("mode", "n"), [("fan_in", 4 * 9), ("fan_out", 64 * 9), ("fan_avg", (4 + 64) / 2 * 9)], ids=lambda x: str(x)
)
def test_further_axes_count_as_a_receptive_field(mode, n):
    w = fnn.VarianceScaling(2.0, mode)(np_key(), (64, 4, 3, 3), np.float64)
    assert w.shape == (64, 4, 3, 3)
    assert abs((w**2).mean() * n / 2 - 1) < 5 * math.sqrt(2 / w.size)  # standard errors, as the square of a normal has


ORTHOGONAL = [(20, 30), (30, 20), (1, 7), (8, 4, 3, 3)]


def test_an_orthogonal_matrix_is_orthogonal_wide_and_tall(backend):
    gain, tolerances = 3.0, {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}
    if backend == "jax":
        del tolerances["float64"]  # which needs x64
    cases = list(itertools.product(ORTHOGONAL, tolerances))
    found = compiled(backend, lambda key: [fnn.Orthogonal(gain)(key, *case) for case in cases])
    for (shape, dtype), w in zip(cases, found(random.key(1, backend=backend)), strict=True):
        assert (w.shape, w.dtype) == (shape, dtype)
        w = np.asarray(w).astype(np.float64).reshape(shape[0], -1) / gain
        wide = w.shape[0] <= w.shape[1]
        off = (w @ w.T if wide else w.T @ w) - np.eye(min(w.shape))
        # a few roundings of entries below 1, up to 30 a sum
        assert np.abs(off).max() < tolerances[dtype], (shape, dtype)


def test_orthogonal_matrices_are_uniform():
    """Without the signs of R the first column would always point to the same side."""
    draws = np.stack([fnn.Orthogonal()(key, (3, 3), np.float64) for key in random.split(np_key(), 500)])
    assert np.abs(draws.mean(axis=0)).max() < 5.5 * math.sqrt(1 / 3 / 500)  # standard errors: p = 4e-8 for each of 9
    assert abs(np.linalg.det(draws).mean()) < 5 / math.sqrt(500)  # rotations and reflections alike


# ---- both backends ---------------------------------------------------------------------------------------------------


def test_jax_and_numpy_give_the_same_values(needs_jax):
    shape = (12, 20)
    of_each = compiled("jax", lambda key: [initializer(key, shape) for initializer in EACH])
    for initializer, on_jax in zip(EACH, of_each(random.key(7, backend="jax")), strict=True):
        on_numpy = initializer(np_key(7), shape)
        assert isinstance(on_jax, needs_jax.Array)
        assert (on_jax.shape, on_jax.dtype) == (on_numpy.shape, on_numpy.dtype) == (shape, np.float32), initializer
        # a few ulp of the largest entry (8 · 1.2e-7): float32 draws and, for an orthogonal matrix, another LAPACK
        assert np.abs(np.asarray(on_jax) - on_numpy).max() <= 1e-6 * np.abs(on_numpy).max(), initializer


@pytest.mark.parametrize("initializer", [fnn.Constant(0.1), fnn.Uniform(), fnn.HeNormal(), fnn.Orthogonal()], ids=repr)
def test_on_jax_a_dtype_is_kept_too(initializer, needs_jax):
    key = random.key(7, backend="jax")
    for dtype in ("float16", "bfloat16", "float32"):
        w = initializer(key, (4, 3), dtype)
        own = initializer(np_key(7), (4, 3), np.dtype(dtype))
        assert w.dtype == own.dtype == dtype
        eps = float(needs_jax.numpy.finfo(dtype).eps)  # rounded alike, up to numbers in the middle of two
        np.testing.assert_allclose(own.astype(float), w.astype(np.float32), rtol=2 * eps, atol=eps)
    with pytest.raises(ArgumentError, match="float64 on JAX needs"):
        initializer(key, (4, 3), np.float64)
    with needs_jax.enable_x64(True):
        wide = initializer(key, (4, 3), np.float64)
        assert wide.dtype == np.float64
        # the 52-bit draws of both backends agree to 1e-13 or better within the bulk; LAPACK adds its roundings
        assert np.abs(np.asarray(wide) - initializer(np_key(7), (4, 3), np.float64)).max() < 1e-12


@pytest.mark.parametrize("initializer", EACH, ids=repr)
def test_on_numpy_values_are_read_only(initializer):
    w = initializer(np_key(), (4, 3))
    with pytest.raises(ValueError, match="read-only"):
        w[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        w += 1


@pytest.mark.thorough(backend="jax")
def test_values_are_a_function_of_the_key(backend):
    key, other = random.split(random.key(3, backend=backend))
    of_each = compiled(backend, lambda key: [initializer(key, (4, 3)) for initializer in EACH])
    for initializer, w, again, different in zip(EACH, of_each(key), of_each(key), of_each(other), strict=True):
        assert bool((w == again).all()), initializer
        assert bool((w == different).all()) == isinstance(initializer, initializers.Constant), initializer


# ---- values, as things -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", EACH, ids=repr)
def test_what_is_printed_makes_an_equal_one(initializer):
    again = eval(repr(initializer), dict(vars(fnn)))
    assert again is not initializer
    assert again == initializer
    assert hash(again) == hash(initializer)
    assert {initializer: 1}[again] == 1


def test_different_initializers_are_unequal():
    assert len(set(EACH)) == len(EACH)
    assert fnn.LecunNormal() != fnn.VarianceScaling()  # of the same law, and yet another class


def test_integers_and_floats_make_equal_initializers():
    for a, b in (
        (fnn.Constant(1), fnn.Constant(1.0)),
        (fnn.Normal(np.float64(3)), fnn.Normal(3)),
        (fnn.Uniform(-1, 1), fnn.Uniform(-1.0, np.float32(1.0))),
    ):
        assert a == b
        assert repr(a) == repr(b)
        assert hash(a) == hash(b)


BAD = [
    (lambda: fnn.Constant(math.nan), ArgumentError, "Constant.value: expected a number, got nan"),
    (lambda: fnn.Constant(math.inf), ArgumentError, "expected a finite number, got value = inf"),
    (lambda: fnn.Constant(True), KindError, "Constant.value: expected a number, got True"),
    (lambda: fnn.Constant("0"), KindError, "Constant.value: expected a number, got '0'"),
    (lambda: fnn.Constant(np.zeros(2)), KindError, "Constant.value: expected a number, got array"),
    (lambda: fnn.Normal(-1), ArgumentError, "with stddev >= 0, got stddev = -1"),
    (lambda: fnn.Normal(math.nan), ArgumentError, "Normal.stddev: expected a number, got nan"),
    (lambda: fnn.Normal(math.inf), ArgumentError, "expected a finite number with stddev >= 0, got stddev = inf"),
    (lambda: fnn.TruncatedNormal(-1), ArgumentError, "with stddev >= 0, got stddev = -1"),
    (lambda: fnn.Uniform(1, 1), ArgumentError, r"Uniform\(.*\): expected low < high"),
    (lambda: fnn.Uniform(1, -1), ArgumentError, r"Uniform\(.*\): expected low < high"),
    (lambda: fnn.Uniform(0, math.inf), ArgumentError, "expected a finite number, got high = inf"),
    (lambda: fnn.Uniform(math.nan, 0), ArgumentError, "Uniform.low: expected a number, got nan"),
    (lambda: fnn.VarianceScaling(0), ArgumentError, "with scale > 0, got scale = 0"),
    (lambda: fnn.VarianceScaling(-1), ArgumentError, "with scale > 0, got scale = -1"),
    (lambda: fnn.VarianceScaling(math.inf), ArgumentError, "expected a finite number with scale > 0, got scale = inf"),
    (
        lambda: fnn.VarianceScaling(mode="fan"),
        ArgumentError,
        "mode: expected one of 'fan_in', 'fan_out', 'fan_avg', got",
    ),
    (
        lambda: fnn.VarianceScaling(distribution="gamma"),
        ArgumentError,
        "distribution: expected one of 'normal', 'trunc",
    ),
    (lambda: fnn.Orthogonal(math.inf), ArgumentError, "expected a finite number, got gain = inf"),
    (lambda: fnn.Orthogonal(math.nan), ArgumentError, "Orthogonal.gain: expected a number, got nan"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD, ids=[row[-1] for row in BAD])
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


FANS = [law for law in EACH if isinstance(law, initializers.VarianceScaling | initializers.Orthogonal)]


@pytest.mark.parametrize("shape", [(), (5,)], ids=str)
@pytest.mark.parametrize("initializer", FANS, ids=repr)
def test_what_needs_a_fan_refuses_the_shape_of_a_bias(initializer, shape, backend):
    with pytest.raises(ShapeError, match=r"expected the shape of a weight, \(O, I\), got \("):
        initializer(random.key(0, backend=backend), shape)


def test_the_others_draw_biases_too(backend):
    cases = [(law, shape) for law in EACH if law not in FANS for shape in ((), (5,))]
    found = compiled(backend, lambda key: [law(key, shape) for law, shape in cases])(random.key(0, backend=backend))
    for (law, shape), w in zip(cases, found, strict=True):
        assert (w.shape, w.dtype) == (shape, np.float32), law


BAD_CALLS = [
    (((5, 0),), ArgumentError, r"shape\[1\]: expected an integer of at least 1, got 0"),
    (((-1, 5),), ArgumentError, r"shape\[0\]: expected an integer of at least 1, got -1"),
    (((2.0, 5),), KindError, r"shape\[0\]: expected an integer, got 2.0"),
    ((5,), KindError, "shape: expected a tuple of sizes"),
    (((5, 5), np.int32), KindError, "dtype: expected a real floating dtype, got int32"),
    (((5, 5), np.complex64), KindError, "dtype: expected a real floating dtype, got complex64"),
    (((5, 5), "no such thing"), KindError, "dtype: expected a floating dtype, got 'no such thing'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_CALLS, ids=[row[-1] for row in BAD_CALLS])
@pytest.mark.parametrize("initializer", [fnn.Zeros(), fnn.Uniform(), fnn.HeNormal(), fnn.Orthogonal()], ids=repr)
def test_bad_shapes_and_dtypes_are_refused(initializer, arguments, error, message, backend):
    key = random.key(0, backend=backend)
    with pytest.raises(error, match=message):
        initializer(key, *arguments)


@pytest.mark.parametrize("initializer", EACH, ids=repr)
def test_what_is_no_key_is_refused(initializer):
    with pytest.raises(KindError, match=r"key: expected a key, as fnn.random.key\(0\) gives, got 0"):
        initializer(0, (4, 3))

"""The NumPy stream is that of `jax.random`, draw by draw; keys are values; and what is drawn has the law it is said to.

The golden values below were drawn with `jax.random` (threefry2x32), so NumPy alone proves the stream too.
"""

import functools
import itertools
import math
import zlib

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, compiled
from helpers_training import on_numpy_at_least
from hypothesis import given
from hypothesis import strategies as st

from fnn import backend as fnn_backend
from fnn import random
from fnn.errors import ArgumentError, KindError

SEEDS = (0, 7, 2**32 - 1)
SHAPES = ((), (5,), (3, 4), (100_000,)) if THOROUGH else ((3, 4), (100_000,))  # JAX compiles each draw of each
MANY = 100_000

GOLDEN = {
    0: {
        "key": [0, 0],
        "split": [[1797259609, 2579123966], [928981903, 3453687069], [4146024105, 2718843009]],
        "fold_in": [1084760314, 1583676033],
        "bits": [4070199207, 4202968722, 1427181096, 2012915765],
        "uniform": [float.fromhex(x) for x in ("0x1.e5349cp-1", "0x1.f5086cp-1", "0x1.544438p-2")],
        "normal": [1.622642159461975, 2.0252647399902344, -0.4335944354534149, -0.07861734926700592],
        "truncated_normal": [1.4559592008590698, 1.714748740196228, -0.4126753509044647],
        "bernoulli": [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1],
        "permutation": [0, 1, 8, 5, 6, 4, 3, 2, 7, 9],
        "crc of bits": 2518341235,
        "crc of permutation": 1140215284,
    },
    7: {
        "key": [0, 7],
        "split": [[3625411723, 1954958720], [195045567, 4062205631], [966301609, 1948237315]],
        "fold_in": [3349933111, 58029761],
        "bits": [2895194379, 4185947648, 1300703658, 1906787632],
        "uniform": [float.fromhex(x) for x in ("0x1.59225p-1", "0x1.f300fcp-1", "0x1.361cap-2")],
        "normal": [0.4512351453304291, 1.9534509181976318, -0.5162394642829895, -0.14094029366970062],
        "truncated_normal": [0.4293583631515503, 1.6748857498168945, -0.4907144010066986],
        "bernoulli": [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        "permutation": [9, 4, 2, 3, 5, 0, 7, 6, 1, 8],
        "crc of bits": 244776054,
        "crc of permutation": 151366216,
    },
    2**32 - 1: {
        "key": [0, 4294967295],
        "split": [[2973345818, 897673333], [3461607691, 1112781462], [3122495753, 3444035234]],
        "fold_in": [2576368636, 141048042],
        "bits": [2226700399, 2348827549, 2002407339, 3973470413],
        "uniform": [float.fromhex(x) for x in ("0x1.097180p-1", "0x1.180084p-1", "0x1.dd6938p-2")],
        "normal": [0.04624895751476288, 0.11777987331151962, -0.08477100729942322, 1.4405614137649536],
        "truncated_normal": [0.04414314776659012, 0.11239761114120483, -0.08090534806251526],
        "bernoulli": [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0],
        "permutation": [8, 5, 2, 9, 0, 1, 7, 4, 6, 3],
        "crc of bits": 2808459228,
        "crc of permutation": 628255563,
    },
}

# The law of float32 draws against `jax.random`: name, arguments, and how far two entries may lie apart, given as
# (units in the last place, absolute). Bits and what compares them are equal; a scaled uniform may be fused into one
# rounding (1 ulp of the larger bound); normals take log1p and a polynomial (3 ulp seen). A truncated normal takes erf
# of its bounds, which in float32 is off by an ulp or two of 1 (6e-8), magnified by dz/du = √(π/2) exp(z²/2) at the
# outer bound: 9 at |z| = 2 and 113 at |z| = 3.
DRAWS = [
    ("bits", {}, (0, 0)),
    ("bernoulli", {"p": 0.3}, (0, 0)),
    ("bernoulli", {"p": 0.5}, (0, 0)),
    ("uniform", {}, (0, 0)),
    ("uniform", {"minval": -0.05, "maxval": 0.05}, (0, 2.0**-28)),
    ("uniform", {"minval": -3.0, "maxval": 7.0}, (0, 2.0**-21)),
    ("normal", {}, (4, 0)),
    ("truncated_normal", {"lower": -2, "upper": 2}, (0, 2 * 6e-8 * 9)),
    ("truncated_normal", {"lower": -1.0, "upper": 3.0}, (0, 2 * 6e-8 * 113)),
    ("truncated_normal", {"lower": 0.0, "upper": math.inf}, (4, 0)),
    ("exponential", {}, (4, 0)),
]
DRAW_IDS = [f"{name}-{'-'.join(map(str, arguments.values()))}".rstrip("-") for name, arguments, _ in DRAWS]


def numpy_key(seed):
    return random.key(seed, backend="numpy")


def jax_key(jax, seed):
    return jax.random.key(seed, impl="threefry2x32")


def words(jax, key):
    return np.asarray(jax.random.key_data(key))


def close(found, expected, ulps=0, absolute=0.0):
    """Whether the arrays agree in shape, dtype and values, to a number of units in the last place or absolutely."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype.kind != "f":
        return bool((found == expected).all())
    off = np.abs(found - expected)
    return bool(np.isfinite(found).all() and (off <= np.maximum(ulps * np.spacing(np.abs(expected)), absolute)).all())


# ---- the stream of jax.random ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_gives_the_words_of_the_jax_key(seed, needs_jax):
    assert close(numpy_key(seed), words(needs_jax, jax_key(needs_jax, seed)))
    assert random.key(seed, backend="jax") == jax_key(needs_jax, seed)


@pytest.mark.parametrize("num", [1, 2, 3, 1000] if THOROUGH else [1, 3, 1000])
@pytest.mark.parametrize("seed", SEEDS)
def test_splits_equal_those_of_jax_to_the_bit(seed, num, needs_jax):
    expected = words(needs_jax, needs_jax.random.split(jax_key(needs_jax, seed), num))
    assert close(random.split(numpy_key(seed), num), expected)
    assert close(words(needs_jax, random.split(random.key(seed, backend="jax"), num)), expected)


@pytest.mark.parametrize("data", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_folded_keys_equal_those_of_jax_to_the_bit(seed, data, needs_jax):
    expected = words(needs_jax, needs_jax.random.fold_in(jax_key(needs_jax, seed), data))
    assert close(random.fold_in(numpy_key(seed), data), expected)
    assert close(words(needs_jax, random.fold_in(random.key(seed, backend="jax"), data)), expected)


@given(seed=st.integers(0, 2**32 - 1), data=st.integers(0, 2**32 - 1))
def test_any_seed_and_any_data_fold_as_in_jax(seed, data, needs_jax):
    expected = words(needs_jax, needs_jax.random.fold_in(jax_key(needs_jax, seed), data))
    assert close(random.fold_in(numpy_key(seed), data), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_draws_equal_those_of_jax(shape, needs_jax):
    all_of = lambda library, key: [
        getattr(library, name)(key, shape=shape, **arguments) for name, arguments, _ in DRAWS
    ]
    on_jax = oracle.quick_jit(lambda key: (all_of(needs_jax.random, key), all_of(random, key)))
    for seed in SEEDS:
        expected, ours = on_jax(jax_key(needs_jax, seed))
        draws = zip(DRAW_IDS, DRAWS, expected, ours, all_of(random, numpy_key(seed)), strict=True)
        for which, (_, _, tolerance), wanted, *found in draws:
            assert all(close(drawn, wanted, *tolerance) for drawn in found), which


# Beyond 1,625 JAX sorts twice.
@pytest.mark.parametrize("n", [0, 1, 2, 5, 1625, 1626, 100_000] if THOROUGH else [1, 1625, 1626])
def test_permutations_equal_those_of_jax_to_the_bit(n, needs_jax):
    for seed in SEEDS:
        expected = needs_jax.random.permutation(jax_key(needs_jax, seed), n)
        assert close(random.permutation(numpy_key(seed), n), expected)
        assert close(random.permutation(random.key(seed, backend="jax"), n), expected)


def drawn(key):
    """What GOLDEN holds of a key, beside its own words."""
    return {
        "bits": random.bits(key, (4,)),
        "uniform": random.uniform(key, (3,)),
        "normal": random.normal(key, (4,)),
        "truncated_normal": random.truncated_normal(key, -2, 2, (3,)),
        "bernoulli": random.bernoulli(key, 0.3, (12,)),
        "permutation": random.permutation(key, 10),
        "many bits": random.bits(key, (MANY,)),
        "many permuted": random.permutation(key, MANY),
    }


@functools.cache
def program_of(backend):
    return compiled(backend, drawn)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_stream_is_the_one_written_down_here(seed, backend):
    key, golden = random.key(seed, backend=backend), GOLDEN[seed]

    def numbers(keys):
        return np.asarray(keys if backend == "numpy" else fnn_backend.jax.random.key_data(keys)).tolist()

    assert numbers(key) == golden["key"]
    assert numbers(random.split(key, 3)) == golden["split"]
    assert numbers(random.fold_in(key, 123456789)) == golden["fold_in"]

    found = program_of(backend)(key)
    for name in ("bits", "uniform", "bernoulli", "permutation"):
        assert found[name].tolist() == golden[name], name
    assert close(found["normal"], np.float32(golden["normal"]), ulps=4)  # as in DRAWS
    assert close(found["truncated_normal"], np.float32(golden["truncated_normal"]), absolute=1e-6)
    crc = lambda array, dtype: zlib.crc32(np.asarray(array).astype(dtype).tobytes())
    assert crc(found["many bits"], "<u4") == golden["crc of bits"]
    assert crc(found["many permuted"], "<i4") == golden["crc of permutation"]


# ---- dtypes ----------------------------------------------------------------------------------------------------------


def test_turning_x64_on_changes_no_draw(needs_jax):
    key = random.key(7, backend="jax")
    once = {name: arguments for name, arguments, _ in DRAWS}

    def draws():
        permuted = random.permutation(key, 100)
        return [permuted, *(getattr(random, name)(key, shape=(100,), **arguments) for name, arguments in once.items())]

    before = oracle.quick_jit(draws)()  # one program each, not one for each draw
    with needs_jax.enable_x64(True):
        after = oracle.quick_jit(lambda: draws())()
    for a, b in zip(after, before, strict=True):
        assert close(a, b)


# Uniforms are the same 52 bits. Normals: JAX takes log1p(−u²), which loses digits where |u| nears 1 (7e-12 seen); ours
# comes from an algorithm that does not. Within ±2 the tail is not reached (4e-15 seen).
WIDE = [("uniform", {}, 0), ("normal", {}, 1e-10), ("truncated_normal", {"lower": -2, "upper": 2}, 1e-13)]


@pytest.mark.parametrize(("name", "arguments", "tolerance"), WIDE, ids=[name for name, *_ in WIDE])
def test_float64_draws_equal_those_of_jax(name, arguments, tolerance, needs_jax):
    for seed in SEEDS:
        found = getattr(random, name)(numpy_key(seed), shape=(10_000,), dtype=np.float64, **arguments)
        with needs_jax.enable_x64(True):
            theirs = getattr(needs_jax.random, name)
            expected = theirs(jax_key(needs_jax, seed), shape=(10_000,), dtype=np.float64, **arguments)
            on_jax = getattr(random, name)(
                random.key(seed, backend="jax"), shape=(10_000,), dtype=np.float64, **arguments
            )
            assert close(on_jax, expected)
        assert close(found, expected, absolute=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, arguments, _ in WIDE], ids=lambda a: str(a)
)
def test_16_bit_floats_are_float32_draws_rounded(name, arguments, dtype, backend):
    if dtype == "bfloat16" and backend == "numpy":
        pytest.skip("NumPy alone has no bfloat16")
    key = random.key(0, backend=backend)
    wide = getattr(random, name)(key, shape=(1000,), **arguments)
    found = getattr(random, name)(key, shape=(1000,), dtype=dtype, **arguments)
    assert found.dtype == dtype
    assert wide.dtype == np.float32
    assert bool((found == wide.astype(dtype)).all())


@pytest.mark.parametrize("name", ["uniform", "normal", "truncated_normal"])
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64", "no such thing"])
def test_only_real_floating_dtypes_are_drawn(name, dtype, backend):
    arguments = {"lower": -2, "upper": 2} if name == "truncated_normal" else {}
    with pytest.raises(KindError, match=r"dtype: expected a (real )?floating dtype, got .*" + dtype):
        getattr(random, name)(random.key(0, backend=backend), shape=(3,), dtype=dtype, **arguments)


def test_float64_on_jax_without_x64_is_refused(needs_jax):
    with pytest.raises(ArgumentError, match=r"float64 on JAX needs .*jax_enable_x64"):
        random.normal(random.key(0, backend="jax"), (3,), np.float64)


# ---- keys are values -------------------------------------------------------------------------------------------------


def test_split_i_is_fold_in_i(backend):
    key = random.key(7, backend=backend)
    keys = random.split(key, 5)
    assert len(keys) == 5
    for i in range(5):
        assert random.bits(keys[i]) == random.bits(random.fold_in(key, i))
    assert all((keys[i] == random.fold_in(key, i)).all() for i in range(5))


@on_numpy_at_least
def test_a_key_is_not_used_up(backend):
    key = random.key(7, backend=backend)
    first = [getattr(random, name)(key, shape=(10,), **arguments) for name, arguments, _ in DRAWS]
    random.split(key), random.fold_in(key, 1), random.permutation(key, 10)
    again = [getattr(random, name)(key, shape=(10,), **arguments) for name, arguments, _ in DRAWS]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@on_numpy_at_least
def test_different_keys_give_different_draws(backend):
    key = random.key(7, backend=backend)
    keys = [key, *random.split(key, 3), random.fold_in(key, 3), random.key(8, backend=backend)]
    drawn = {tuple(np.asarray(random.bits(k, (4,))).tolist()) for k in keys}
    assert len(drawn) == len(keys)


KEYS = {
    "key": lambda: numpy_key(7),
    "split": lambda: random.split(numpy_key(7), 3),
    "a row of split": lambda: random.split(numpy_key(7), 3)[1],
    "fold_in": lambda: random.fold_in(numpy_key(7), 3),
}


@pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)
def test_numpy_keys_are_read_only(make):
    with pytest.raises(ValueError, match="read-only"):
        make()[...] = 0


def test_without_a_backend_a_key_is_of_jax_where_jax_is():
    assert type(random.key(0)) is type(random.key(0, backend=fnn_backend.name))
    assert fnn_backend.is_jax(random.key(0)) == (fnn_backend.jax is not None)


def test_a_jax_key_on_numpy_alone_is_refused():
    if fnn_backend.jax is not None:
        pytest.skip("JAX is here")
    with pytest.raises(KindError, match="needs JAX, but fnn runs on NumPy alone"):
        random.key(0, backend="jax")


def test_a_key_crosses_to_the_other_backend_and_back(needs_jax):
    np_key, j_key = numpy_key(7), random.key(7, backend="jax")
    assert (random.like(j_key, np) == np_key).all()
    assert random.like(np_key, needs_jax.numpy) == j_key
    assert random.like(np_key, np) is np_key
    assert random.like(j_key, needs_jax.numpy) is j_key
    with pytest.raises(ValueError, match="read-only"):
        random.like(j_key, np)[0] = 1


def test_jax_keys_of_the_old_kind_are_taken(needs_jax):
    old = needs_jax.random.PRNGKey(7)
    assert (random.bits(old, (5,)) == random.bits(random.key(7, backend="jax"), (5,))).all()


def test_under_jit_and_vmap_draws_are_the_same(needs_jax):
    jax = needs_jax
    seeds = np.arange(4, dtype=np.uint32)
    draw = lambda seed: random.bits(random.fold_in(random.key(seed, backend="jax"), seed), (5,))
    expected = np.stack([draw(int(seed)) for seed in seeds])
    assert (jax.jit(jax.vmap(draw))(seeds) == expected).all()
    in_numpy = [random.bits(random.fold_in(numpy_key(int(seed)), int(seed)), (5,)) for seed in seeds]
    assert (np.stack(in_numpy) == expected).all()


# ---- what is refused -------------------------------------------------------------------------------------------------

BAD_SEEDS = [
    (-1, ArgumentError, r"seed: expected an integer of at least 0, got -1"),
    (2**32, ArgumentError, r"seed: expected an integer from 0 to 2\*\*32 - 1, got 4294967296"),
    (2**40 + 5, ArgumentError, r"seed: expected an integer from 0 to 2\*\*32 - 1, got 1099511627781"),
    (0.0, KindError, r"seed: expected an integer, got 0.0"),
    (math.nan, KindError, r"seed: expected an integer, got nan"),
    (True, KindError, r"seed: expected an integer, got True"),
    (np.True_, KindError, r"seed: expected an integer, got np.True_"),
    ("0", KindError, r"seed: expected an integer, got '0'"),
    (None, KindError, r"seed: expected an integer, got None"),
    (np.zeros(2, int), KindError, r"seed: expected an integer, got array\(\[0, 0\]\)"),
]


@pytest.mark.parametrize(("seed", "error", "message"), BAD_SEEDS, ids=[repr(seed) for seed, *_ in BAD_SEEDS])
def test_a_seed_out_of_range_is_refused(seed, error, message, backend):
    with pytest.raises(error, match=message):
        random.key(seed, backend=backend)


@pytest.mark.parametrize(("data", "error", "message"), BAD_SEEDS, ids=[repr(seed) for seed, *_ in BAD_SEEDS])
def test_data_out_of_range_is_not_folded_in(data, error, message, backend):
    with pytest.raises(error, match=message.replace("seed", "data")):
        random.fold_in(random.key(0, backend=backend), data)


@pytest.mark.parametrize("seed", [np.uint32(7), np.int64(7), np.array(7)], ids=repr)
def test_seeds_and_data_may_be_numpy_integers(seed, backend):
    key = random.key(7, backend=backend)
    assert (random.key(seed, backend=backend) == key).all()
    assert (random.fold_in(key, seed) == random.fold_in(key, 7)).all()


NO_KEYS = [
    ("a seed", 0),
    ("nothing", None),
    ("a list of words", [0, 0]),
    ("words of floating point", np.zeros(2)),
    ("three words", np.zeros(3, np.uint32)),
    ("several keys at once", np.zeros((2, 2), np.uint32)),
]
USES = {
    "split": lambda key: random.split(key),
    "fold_in": lambda key: random.fold_in(key, 0),
    "bits": lambda key: random.bits(key, (2,)),
    "uniform": lambda key: random.uniform(key, (2,)),
    "normal": lambda key: random.normal(key, (2,)),
    "truncated_normal": lambda key: random.truncated_normal(key, -2, 2, (2,)),
    "bernoulli": lambda key: random.bernoulli(key, 0.5, (2,)),
    "permutation": lambda key: random.permutation(key, 2),
    "like": lambda key: random.like(key, np),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("thing", [thing for _, thing in NO_KEYS], ids=[name for name, _ in NO_KEYS])
def test_what_is_no_key_is_refused(thing, use):
    with pytest.raises(KindError, match=r"key: expected a key, as fnn.random.key\(0\) gives, got "):
        use(thing)


BAD_ARGUMENTS = [
    (lambda key: random.bits(key, 5), KindError, "shape: expected a tuple of sizes, got 5"),
    (lambda key: random.normal(key, (2.0,)), KindError, "a size: expected an integer, got 2.0"),
    (lambda key: random.uniform(key, (-1,)), ArgumentError, "a size: expected an integer of at least 0, got -1"),
    (lambda key: random.split(key, 0), ArgumentError, "num: expected an integer of at least 1, got 0"),
    (lambda key: random.permutation(key, -1), ArgumentError, "n: expected an integer of at least 0, got -1"),
    (lambda key: random.permutation(key, 5.0), KindError, "n: expected an integer, got 5.0"),
    (lambda key: random.truncated_normal(key, 2, -2), ArgumentError, "lower < upper, got lower = 2 and upper = -2"),
    (lambda key: random.truncated_normal(key, 1, 1), ArgumentError, "lower < upper, got lower = 1 and upper = 1"),
    (lambda key: random.truncated_normal(key, math.nan, 1), ArgumentError, "lower < upper, got lower = nan"),
    (lambda key: random.key(0, backend="torch"), ArgumentError, "backend: expected 'jax' or 'numpy', got 'torch'"),
]


@on_numpy_at_least
@pytest.mark.parametrize(("call", "error", "message"), BAD_ARGUMENTS, ids=[message for *_, message in BAD_ARGUMENTS])
def test_bad_arguments_are_refused(call, error, message, backend):
    with pytest.raises(error, match=message):
        call(random.key(0, backend=backend))


# ---- the laws, on NumPy alone ----------------------------------------------------------------------------------------
#
# Keys are fixed, so nothing here is left to luck; the limits say how likely a good generator is to break them.


def phi(z):
    return math.erfc(-z / math.sqrt(2)) / 2


def truncated_phi(z):
    return (phi(z) - phi(-2)) / (phi(2) - phi(-2))


LAWS = [  # draw, mean, variance, distribution function, smallest and largest value
    ("uniform", lambda key, dtype: random.uniform(key, (MANY,), dtype), 0.5, 1 / 12, lambda x: x, (0, 1)),
    ("uniform on [-3, 7)", lambda key, dtype: random.uniform(key, (MANY,), dtype, -3, 7), 2, 100 / 12,
     lambda x: (x + 3) / 10, (-3, 7)),
    ("normal", lambda key, dtype: random.normal(key, (MANY,), dtype), 0, 1, phi, (-6, 6)),
    ("truncated normal", lambda key, dtype: random.truncated_normal(key, -2, 2, (MANY,), dtype), 0, 0.7737413,
     truncated_phi, (-2, 2)),
    ("exponential", lambda key, dtype: random.exponential(key, (MANY,), dtype), 1, 1, lambda x: -math.expm1(-x),
     (0, 40)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("draw", "mean", "variance", "cdf", "bounds"), [law[1:] for law in LAWS], ids=[law[0] for law in LAWS]
)
@pytest.mark.numpy_alone
def test_draws_have_mean_variance_and_distribution_of_their_law(draw, mean, variance, cdf, bounds, dtype):
    for seed in (1, 2, 3):
        x = draw(numpy_key(seed), dtype)
        assert x.dtype == dtype
        x = x.astype(np.float64)
        assert bounds[0] <= x.min() < x.max() < bounds[1]
        squares = (x - mean) ** 2
        # 5 standard errors: p = 6e-7
        assert abs(x.mean() - mean) < 5 * math.sqrt(variance / MANY)
        assert abs(squares.mean() - variance) < 5 * squares.std() / math.sqrt(MANY)
        # Kolmogorov and Smirnov: P(D √n > 2.7) = 2 exp(−2 · 2.7²) = 9e-7, at every 50th point of the sample
        at = np.arange(0, MANY, 50)
        expected = np.array([cdf(z) for z in np.sort(x)[at].tolist()])
        assert np.abs(expected - at / MANY).max() * math.sqrt(MANY) < 2.7


def test_wide_normals_have_the_law_of_normals_and_each_is_independent_of_its_partner():
    for seed in (1, 2, 3):
        x = random.wide_normal(numpy_key(seed), (MANY,))
        assert x.dtype == np.float32
        x = x.astype(np.float64)
        assert abs(x.mean()) < 5 / math.sqrt(MANY)
        assert abs(x.var() - 1) < 5 * math.sqrt(2 / MANY)
        at = np.arange(0, MANY, 50)
        assert np.abs([phi(z) for z in np.sort(x)[at]] - at / MANY).max() * math.sqrt(MANY) < 2.7
        a, b = x[: MANY // 2], x[MANY // 2 :]  # of one pair of words each
        for f, g in ((a, b), (a * a - 1, b * b - 1), (a**3 - 3 * a, b)):
            assert abs((f * g).sum()) < 5 * np.sqrt((f * f * (g * g)).sum())


@pytest.mark.parametrize("x", [8.0, 8.2, 8.4])
def test_wide_normals_are_as_frequent_in_the_far_tails_as_they_should_be(x):
    """All words that lead so far out are tried: the high half of u is 0, and the low half, v times a number, small."""
    smallest = np.arange(math.ceil(math.exp(-x * x / 2) * 2.0**64), dtype=np.uint32)
    cosine, sine = random._box_muller(0 * smallest, smallest * np.uint32(pow(0x9E3779B9, -1, 2**32)))
    chance = sum((side > x).sum() for side in (cosine, sine, -cosine, -sine)) / 4 * 2.0**-64
    wanted = math.erfc(x / math.sqrt(2)) / 2
    assert abs(chance / wanted - 1) < 0.02


def test_wide_normals_end_at_9_4_and_are_finite_for_all_words():
    ends = np.uint32([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    high, turn = (a.ravel() for a in np.meshgrid(ends, ends))
    assert np.isfinite(random._box_muller(high, turn)).all()
    tried = np.arange(0, 2**32, 9700, dtype=np.uint64).astype(np.uint32)
    assert max(abs(side).max() for side in random._box_muller(np.zeros_like(tried), tried)) > 8


def test_wide_normals_of_both_backends_agree(needs_jax):
    ours = random.wide_normal(numpy_key(7), (3, 333))
    theirs = needs_jax.jit(lambda key: random.wide_normal(key, (3, 333)))(jax_key(needs_jax, 7))
    assert close(theirs, ours, absolute=2e-6)
    assert random.wide_normal(numpy_key(7)).shape == ()


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_a_bernoulli_draw_is_true_with_its_probability(p):
    found = random.bernoulli(numpy_key(1), p, (MANY,))
    assert found.dtype == bool
    assert abs(found.mean() - p) <= 5 * math.sqrt(p * (1 - p) / MANY)  # 5 standard errors; exact at 0 and 1


def test_poisson_counts_have_the_frequencies_of_their_rate(backend):
    rates = np.repeat(np.float32([0.1, 3.0, 40.0]), 20_000)
    counts = np.asarray(random.poisson(random.key(1, backend=backend), rates))
    assert counts.dtype == np.int32
    for rate, of_rate in zip((0.1, 3.0, 40.0), counts.reshape(3, -1), strict=True):
        for k in {0, 1, round(rate)}:
            p = math.exp(k * math.log(rate) - rate - math.lgamma(k + 1))
            assert abs((of_rate == k).mean() - p) <= 5 * math.sqrt(p / 20_000), (rate, k)


def test_every_bit_is_set_half_of_the_time_and_no_two_agree():
    drawn = random.bits(numpy_key(1), (MANY,))
    bits = (drawn[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    signs = 2.0 * bits - 1
    limit = 5.5 * math.sqrt(MANY)  # standard errors: p = 4e-8 for each of 32 + 496 sums
    assert np.abs(signs.sum(axis=0)).max() < limit
    assert np.abs(signs.T @ signs - MANY * np.eye(32)).max() < limit


@pytest.mark.numpy_alone
def test_streams_of_related_keys_are_uncorrelated():
    key = numpy_key(0)
    keys = [key, *random.split(key, 4), *(random.fold_in(key, i) for i in (4, 5)), numpy_key(1), numpy_key(2)]
    draws = np.stack([random.normal(k, (MANY,), np.float64) for k in keys])
    for a, b in itertools.combinations(draws, 2):
        assert abs(a @ b) < 5.5 * math.sqrt(MANY)  # standard errors: p = 4e-8 for each of 36


@pytest.mark.numpy_alone
def test_every_permutation_is_as_likely():
    keys = random.split(numpy_key(0), 24 * 100)
    orders = [tuple(random.permutation(key, 4).tolist()) for key in keys]
    counts = np.array([orders.count(order) for order in itertools.permutations(range(4))])
    assert counts.sum() == len(keys)
    assert np.abs(counts - 100).max() < 5.5 * math.sqrt(100)  # standard errors: p = 4e-8 for each of 24


FAR = [(5, 6), (-6, -5), (20, 21), (-21, -20)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", FAR, ids=str)
def test_a_truncated_normal_stays_within_bounds_however_far_out(bounds, dtype):
    found = random.truncated_normal(numpy_key(0), *bounds, (1000,), dtype)
    assert bounds[0] < found.min() <= found.max() < bounds[1]


def test_bounds_of_a_truncated_normal_that_float32_cannot_tell_apart_give_what_jax_gives(needs_jax):
    for lower, upper in ((20, 21), (-21, -20)):
        found = random.truncated_normal(numpy_key(0), lower, upper, (100,))
        assert close(found, needs_jax.random.truncated_normal(jax_key(needs_jax, 0), lower, upper, (100,)))

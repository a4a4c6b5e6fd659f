"""Random numbers as pure functions of a key: `jax.random` for a JAX key, the same stream in NumPy for a NumPy key.

A key is never consumed: the same key always gives the same draw. A NumPy key is a `uint32` array of two words, the same
as those of the JAX key. The generator is Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw, "Parallel random
numbers: as easy as 1, 2, 3", 2011), a cipher TF of a counter. With hi and lo the two words of a 64-bit number:

    key(seed) = (hi(seed), lo(seed))     split(k, n)[i] = TF(k, (hi(i), lo(i)))     fold_in(k, d) = TF(k, (0, d))
    bits(k)[i] = w0 ^ w1  of  (w0, w1) = TF(k, (hi(i), lo(i)))

Keys, bits, Bernoulli masks and permutations are bit-identical on both backends; float32 uniforms and normals agree to a
few units in the last place. Draws are float32 by default; 16-bit floats are rounded float32 draws.
"""

import math
from typing import Any

import numpy as np

from . import backend, threefry
from .errors import ArgumentError, KindError, integer, shorten

__all__ = [
    "bernoulli",
    "bits",
    "exponential",
    "fold_in",
    "key",
    "normal",
    "permutation",
    "poisson",
    "split",
    "truncated_normal",
    "uniform",
]


def key(seed: Any, backend: str | None = None) -> Any:
    """Make a random key from a seed.

    Args:
        seed: an integer from 0 to 2³²−1. Other seeds are rejected because JAX, unless 64 bits are enabled, maps several
            of them to the same key.
        backend: "jax" or "numpy". Default: JAX if it is installed.

    Returns:
        The key.

    >>> key(7, backend="numpy")
    array([0, 7], dtype=uint32)
    """
    chosen = _default if backend is None else backend
    if chosen not in ("jax", "numpy"):
        raise ArgumentError(f"backend: expected 'jax' or 'numpy', got {shorten(backend)}")
    seed = _word("seed", seed)
    if chosen == "numpy":
        return threefry.words_of(0, seed)
    jax = _backend.need_jax("key(backend='jax')")
    if _backend.is_traced(seed):
        return jax.random.key(seed, impl="threefry2x32")
    return like(threefry.words_of(0, seed), jax.numpy)


_backend, _default = backend, backend.name  # `key` has an argument of the module's name


def check_key(key):
    """A key of either backend, unchanged; JAX's legacy keys, uint32 arrays of two words, become typed keys."""
    if _backend.is_jax(key):
        jax = _backend.jax
        if not jax.config.jax_threefry_partitionable:
            raise ArgumentError(
                "jax_threefry_partitionable: expected True, got False, with which JAX draws other numbers: the run "
                "would be another one, and not that of the NumPy backend"
            )
        if jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key):
            return key
        if key.dtype == np.uint32 and key.ndim and key.shape[-1] == 2:
            return jax.random.wrap_key_data(key, impl="threefry2x32")
    elif isinstance(key, np.ndarray) and key.dtype == np.uint32 and key.shape == (2,):
        return key
    elif isinstance(key, np.ndarray) and key.dtype == np.uint32 and key.shape == (4,):
        raise KindError(
            "key: expected one of type threefry2x32, as fnn.random.key(0) gives, got the words of one of type rbg, "
            "which draws on JAX alone, and not the order of data in files"
        )
    raise KindError(f"key: expected a key, as fnn.random.key(0) gives, got {shorten(key)}")


class _Blank(np.ndarray):
    """A key whose splits are itself, and for which initializers make arrays without values."""


def blank_key():
    """A key for shapes only: `net.init(blank_key(), input_shape)` draws nothing, and its arrays hold no values."""
    return np.zeros(2, np.uint32).view(_Blank)


def is_blank(key):
    """Whether this is a `blank_key`."""
    return isinstance(key, _Blank)


def like(key, xp):
    """The same key for the namespace `xp`: a JAX key for jax.numpy, its two words for NumPy."""
    key = check_key(key)
    if _backend.is_jax(key) and xp is np and not _backend.is_traced(key):
        return np.asarray(_backend.jax.random.key_data(key))
    if not _backend.is_jax(key) and xp is not np:
        return _backend.jax.random.wrap_key_data(_backend.on_device(key), impl="threefry2x32")
    return key


def split(key: Any, num: int = 2) -> Any:
    """Split a key into `num` new keys, independent of each other and of `key`, as an array of keys.

    Args:
        key: the key.
        num: how many. Default: 2.

    Returns:
        The keys, an array (num, ...).

    >>> split(key(0, backend="numpy"), 3).shape
    (3, 2)
    """
    key = check_key(key)
    num = integer("num", num, least=1)
    if is_blank(key):
        return (key,) * num
    if _backend.is_jax(key):
        return _backend.jax.random.split(key, num)
    if num > _FEW:
        return threefry.locked(np.stack(threefry.cipher(key, *threefry.counter(num)), axis=-1))
    one_by_one = [threefry.cipher_of_ints(int(key[0]), int(key[1]), 0, i) for i in range(num)]
    return threefry.locked(np.array(one_by_one, np.uint32))


_FEW = 8  # keys that are made sooner one by one


def fold_in(key: Any, data: Any) -> Any:
    """Make a new key from a key and an integer from 0 to 2³²−1; `fold_in(k, i)` equals `split(k, n)[i]`.

    Args:
        key: the key.
        data: the integer, such as the number of a step.

    Returns:
        The new key.

    >>> k = key(0, backend="numpy")
    >>> bool((fold_in(k, 1) == split(k, 3)[1]).all())
    True
    """
    key, data = check_key(key), _word("data", data)
    if is_blank(key):
        return key
    if _backend.is_jax(key):
        return _backend.jax.random.fold_in(key, data)
    return threefry.words_of(*threefry.cipher_of_ints(int(key[0]), int(key[1]), 0, data))


def bits(key: Any, shape: Any = ()) -> Any:
    """Draw independent uniform 32-bit words, uint32.

    Args:
        key: the random key.
        shape: the shape of the draw. Default: (), one number.

    Returns:
        Words, uint32, of this shape.

    >>> bits(key(0, backend="numpy"), (2,))
    array([4070199207, 4202968722], dtype=uint32)
    """
    key, shape = check_key(key), _shape(shape)
    if _backend.is_jax(key):
        return _backend.jax.random.bits(key, shape, dtype=np.uint32)
    words = threefry.cipher(key, *threefry.counter(math.prod(shape)))
    return (words[0] ^ words[1]).reshape(shape)


def uniform(key: Any, shape: Any = (), dtype: Any = np.float32, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Draw uniformly from [minval, maxval): 23 random bits as the mantissa of a number in [1, 2), minus 1, scaled.

    Args:
        key: the random key.
        shape: the shape of the draw. Default: (), one number.
        dtype: a floating dtype. Default: float32.
        minval: the lower limit. Default: 0.
        maxval: the upper limit. Default: 1.

    Returns:
        Numbers of this shape.

    >>> uniform(key(0, backend="numpy"), (2,))
    array([0.947667 , 0.9785799], dtype=float32)
    """
    key, shape, wide = check_key(key), _shape(shape), _wide(key, dtype)
    if _backend.is_jax(key):
        return _backend.jax.random.uniform(key, shape, wide, minval, maxval).astype(dtype)
    if wide == np.float64:
        words = threefry.cipher(key, *threefry.counter(math.prod(shape)))
        whole = (words[0].astype(np.uint64) << np.uint64(32)) | words[1]
        unit = ((whole >> np.uint64(12)) | np.uint64(0x3FF0000000000000)).view(np.float64) - 1.0
    else:
        unit = ((bits(key, (math.prod(shape),)) >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(
            1
        )
    low, high = wide.type(minval), wide.type(maxval)
    return np.maximum(low, unit.reshape(shape) * (high - low) + low).astype(dtype)


def normal(key: Any, shape: Any = (), dtype: Any = np.float32) -> Any:
    """Draw from the standard normal distribution: √2 erf⁻¹(u), with u uniform on (−1, 1).

    Args:
        key: the random key.
        shape: the shape of the draw. Default: (), one number.
        dtype: a floating dtype. Default: float32.

    Returns:
        Numbers of this shape.

    >>> normal(key(0, backend="numpy"), (2,))
    array([1.6226422, 2.0252647], dtype=float32)
    """
    key, shape, wide = check_key(key), _shape(shape), _wide(key, dtype)
    if _backend.is_jax(key):
        return _backend.jax.random.normal(key, shape, wide).astype(dtype)
    u = uniform(key, shape, wide, np.nextafter(wide.type(-1), wide.type(0)), 1.0)
    return (wide.type(math.sqrt(2)) * threefry.erfinv(u)).astype(dtype)


def wide_normal(key: Any, shape: Any = ()) -> Any:
    """Draw float32 from the standard normal distribution with tails up to 9.4, for noise that must hide something.

    `normal` maps 2²³ equally likely numbers, the largest to 5.4, so an observer knows what cannot be noise. Here a pair
    is √(−2 ln u) (cos 2πv, sin 2πv), with v of 32 random bits and u of 64: 9.4 = √(2 · 64 ln 2). The low half of u is v
    times an odd number; it matters only in the 2⁻⁸ of the draws whose high half leaves less than float32 can hold.

    Source: G. Box, M. Muller, "A note on the generation of random normal deviates" (1958); N. Holohan, S. Braghin,
    "Secure random sampling in differential privacy" (2021), on what draws from too few numbers reveal.

    >>> wide_normal(key(0, backend="numpy"), (2,)).dtype
    dtype('float32')
    """
    shape = _shape(shape)
    size = math.prod(shape)
    pairs = _box_muller(*bits(key, (2, (size + 1) // 2)))
    return _backend.namespace(*pairs).concatenate(pairs)[:size].reshape(shape)


def _box_muller(high, turn):
    """Two normal numbers of two words: the upper half of u, and v, of which two bits are the signs."""
    xp, f32, unit = _backend.namespace(high), np.float32, np.float32(2.0**-32)
    low = ((turn * np.uint32(0x9E3779B9)).astype(f32) + f32(0.5)) * unit
    radius = xp.sqrt(f32(-2) * xp.log((high.astype(f32) + low) * unit))
    angle = (turn << np.uint32(2)).astype(f32) * f32(math.pi / 2) * unit  # in the first quadrant
    cosine, sine = _alternating(angle * angle, 0), angle * _alternating(angle * angle, 1)
    signs = (xp.where(turn >> np.uint32(bit) & np.uint32(1), -radius, radius) for bit in (31, 30))
    return tuple(sign * side for sign, side in zip(signs, (cosine, sine), strict=True))


def _alternating(square, first):
    """Σₖ (−1)ᵏ squareᵏ / (2k + first)!: cos x, or sin x / x, of x² up to (π/2)²; far faster than XLA's on the CPU."""
    total = np.float32(0)
    for k in reversed(range(7)):
        total = total * square + np.float32((-1) ** k / math.factorial(2 * k + first))
    return total


def truncated_normal(key: Any, lower: float, upper: float, shape: Any = (), dtype: Any = np.float32) -> Any:
    """Draw from the standard normal distribution truncated to (lower, upper).

    √2 erf⁻¹(u), with u uniform on (erf(lower/√2), erf(upper/√2)).

    Args:
        key: the random key.
        lower: the lower limit.
        upper: the upper limit.
        shape: the shape of the draw. Default: (), one number.
        dtype: a floating dtype. Default: float32.

    Returns:
        Numbers of this shape.

    >>> truncated_normal(key(0, backend="numpy"), -1, 1, (2,))
    array([0.86185926, 0.9412883 ], dtype=float32)
    """
    key, shape, wide = check_key(key), _shape(shape), _wide(key, dtype)
    if not lower < upper:
        raise ArgumentError(f"lower: expected lower < upper, got lower = {lower} and upper = {upper}")
    if _backend.is_jax(key):
        return _backend.jax.random.truncated_normal(key, lower, upper, shape, wide).astype(dtype)
    low, high = wide.type(lower), wide.type(upper)
    u = uniform(key, shape, wide, math.erf(lower / math.sqrt(2)), math.erf(upper / math.sqrt(2)))
    draw = wide.type(math.sqrt(2)) * threefry.erfinv(u)
    return np.clip(draw, np.nextafter(low, wide.type(np.inf)), np.nextafter(high, wide.type(-np.inf))).astype(dtype)


def bernoulli(key: Any, p: Any = 0.5, shape: Any = ()) -> Any:
    """Draw booleans that are True with probability `p`: whether a float32 uniform is below `p`.

    Args:
        key: the random key.
        p: the probability. Default: 0.5.
        shape: the shape of the draw. Default: (), one number.

    Returns:
        Booleans of this shape.

    >>> bernoulli(key(0, backend="numpy"), 0.5, (4,))
    array([False, False,  True,  True])
    """
    return uniform(key, shape) < np.float32(p) if not _backend.is_traced(p) else uniform(key, shape) < p


def exponential(key: Any, shape: Any = (), dtype: Any = np.float32) -> Any:
    """Draw from the exponential distribution of mean 1: −log(1 − u), with u uniform on [0, 1).

    Args:
        key: the random key.
        shape: the shape of the draw. Default: (), one number.
        dtype: a floating dtype. Default: float32.

    Returns:
        Numbers of this shape.

    >>> exponential(key(0, backend="numpy"), (2,))
    array([2.950128 , 3.8434246], dtype=float32)
    """
    wide = uniform(key, shape, _wide(key, dtype))
    return (-_backend.namespace(wide).log1p(-wide)).astype(dtype)


def poisson(key: Any, rate: Any) -> Any:
    """Draw int32 counts from Poisson distributions of these rates (...); the two backends draw different ones.

    On JAX it is `jax.random.poisson`; on NumPy it is NumPy's Poisson generator, begun from the two words of the key.

    Args:
        key: the random key.
        rate: the rates, of any shape.

    Returns:
        Counts of the shape of the rates.

    >>> poisson(key(0, backend="numpy"), np.array([1.0, 100.0])).shape
    (2,)
    """
    key = check_key(key)
    if _backend.is_jax(key):
        return _backend.jax.random.poisson(key, rate, dtype=np.int32)
    high, low = (int(word) for word in key)
    return np.random.Generator(np.random.Philox(key=high << 32 | low)).poisson(rate).astype(np.int32)


def permutation(key: Any, n: int) -> Any:
    """Draw a permutation of 0 … n−1, int32, by enough stable sorts of random words that ties hardly matter.

    Args:
        key: the random key.
        n: how many.

    Returns:
        The permutation (n,).

    >>> permutation(key(0, backend="numpy"), 5)
    array([0, 1, 4, 3, 2], dtype=int32)
    """
    key, n = check_key(key), integer("n", n)
    if _backend.is_jax(key):
        return _backend.jax.random.permutation(key, _backend.jnp.arange(n, dtype=np.int32))
    order = np.arange(n, dtype=np.int32)
    for _ in range(math.ceil(3 * math.log(max(1, n)) / math.log(threefry.LARGEST))):
        key, subkey = split(key)
        order = order[np.argsort(bits(subkey, (n,)), kind="stable")]
    return order


def _word(name, value):
    """An integer from 0 to 2³²−1; tracers are passed through."""
    if _backend.is_traced(value):
        return value
    value = integer(name, value)
    if value > threefry.LARGEST:
        raise ArgumentError(f"{name}: expected an integer from 0 to 2**32 - 1, got {value}")
    return value


def _wide(key, dtype):
    """The dtype in which a draw of `dtype` is made: `dtype` itself, or float32 for a 16-bit one."""
    return _backend.at_least_float32(_backend.check_dtype(_backend.namespace(key), dtype))


def _shape(shape):
    if not isinstance(shape, tuple | list):
        raise KindError(f"shape: expected a tuple of sizes, got {shorten(shape)}")
    return tuple(integer("a size", size) for size in shape)

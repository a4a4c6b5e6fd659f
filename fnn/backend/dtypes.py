"""Which numbers an array has: floating point of which width, and the conversions between them."""

from typing import Any

import numpy as np

from ..errors import ArgumentError, KindError, shorten
from .library import is_jax, jax, jnp

_DTYPES = (np.dtype, type)
_FLOAT32 = np.dtype(np.float32)


def is_floating(dtype):
    """Whether a dtype is real or complex floating point, including bfloat16, which NumPy alone does not know."""
    kind = getattr(dtype, "kind", "V")
    if kind != "V" or jnp is None:
        return kind in "fc"
    return isinstance(dtype, _DTYPES) and jnp.issubdtype(dtype, jnp.floating)  # not None, nor that of a torch tensor


def floating(x, dtype: Any = np.float32):
    """`x` itself if it is floating point; otherwise `x` converted to `dtype`.

    Integers of more than 8 bits become float32 or wider, since 70,000 is no float16 number, and 257 no bfloat16 one.
    """
    if is_floating(x.dtype):
        return x
    return x.astype(dtype if x.dtype.itemsize == 1 else at_least_float32(dtype))


def cast(x, dtype):
    """`x` converted to the dtype, or `x` itself if it has it, where NumPy's astype would copy."""
    return x if x.dtype == dtype else x.astype(dtype)


def at_least_float32(dtype):
    """float32, or the dtype itself if it is wider; in bfloat16, for example, 1 - 0.999 is 0."""
    dtype = np.dtype(dtype)
    return dtype if dtype.itemsize > 4 else _FLOAT32


def at_least_int32(x):
    """Integers in 32 bits or more: JAX takes the numbers that they are compared with in their own dtype, 256 as 0."""
    return x.astype(np.int32) if x.dtype.kind in "iu" and x.dtype.itemsize < 4 else x


def widened(x):
    """`x` in float32 or wider, with exactly the values of its own dtype: XLA skips a rounding that is widened again."""
    wide = cast(x, at_least_float32(x.dtype))
    if wide is x or not is_jax(x):
        return wide
    return jax.lax.reduce_precision(wide, jnp.finfo(x.dtype).nexp, jnp.finfo(x.dtype).nmant)


def check_dtype(xp, dtype):
    """The dtype as an `np.dtype`; raises unless it is a floating dtype that the namespace supports."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise KindError(f"dtype: expected a floating dtype, got {shorten(dtype)}") from None
    if not is_floating(dtype) or dtype.kind == "c":
        raise KindError(f"dtype: expected a real floating dtype, got {dtype}")
    if xp is not np and dtype.itemsize > 4 and not jax.config.jax_enable_x64:
        raise ArgumentError("dtype: float64 on JAX needs jax.config.update('jax_enable_x64', True) first")
    return dtype

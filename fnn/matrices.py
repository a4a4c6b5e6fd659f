"""The two products of all formulas: activations times weights, and `Σ δ aᵀ`, errors times activations.

Each is written once, for both backends, with the way of computing it that is fastest where the arrays lie.
"""

import contextlib
from typing import Any

import numpy as np

from .backend import at_least_float32, by_platform, cast, jax, jnp

__all__ = ["contract", "product"]

PRECISIONS = "float32", "tensorfloat32", "bfloat16", "float8"


def product(a, b, precision=None):
    """`a @ b`, (..., K), (K, M) -> (..., M).

    With "bfloat16" or "float8" both factors are rounded, the products summed in float32, and the result is in a's
    dtype. "float32" and "tensorfloat32" say how a GPU may round factors in float32; on a CPU it does not.

    Args:
        a: (..., K).
        b: (K, M).
        precision: one of `PRECISIONS`, or None for what `jax_default_matmul_precision` says. Default: None.

    Returns:
        The product (..., M).

    >>> product(np.ones((1, 2)), np.ones((2, 3)))
    array([[2., 2., 2.]])
    """
    if isinstance(a, np.ndarray):
        if a.shape[-1] == 1:
            return a * b  # sums of one term: twice as fast
        return a @ b if a.ndim == 2 else (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
    if precision == "float8":
        return cast(_product_in_float8(a, b), a.dtype)
    if precision != "bfloat16":
        return jnp.matmul(a, b, precision=precision)
    rounded = jnp.matmul(a.astype(precision), b.astype(precision), preferred_element_type=np.float32)
    return cast(rounded, a.dtype)


def plus(z, b):
    """z + b for a z that nobody else has: NumPy writes the sum over it, where that has the same dtype."""
    if type(z) is np.ndarray and type(b) is np.ndarray and z.dtype == b.dtype:
        return np.add(z, b, out=z)
    return z + b


if jax:

    @jax.custom_jvp
    def _product_in_float8(a, b):
        """a @ b in float32, each row of a and each column of b in units of its own, in which its largest entry is 448.

        The 8 bits are e4m3: four of exponent and three of mantissa, with 448 as the largest number. No example's unit
        depends on another example. NVIDIA's GPUs of 2022 add these products up with about 13 bits, so that sums are
        right to 2⁻¹³ or so. (P. Micikevicius et al., "FP8 formats for deep learning", 2022.)
        """
        rows, columns = _unit(abs(a).max(axis=-1, keepdims=True)), _unit(abs(b).max(axis=0, keepdims=True))
        a, b = (a / rows).astype(jnp.float8_e4m3fn), (b / columns).astype(jnp.float8_e4m3fn)
        return jnp.matmul(a, b, preferred_element_type=np.float32) * rows * columns

    @_product_in_float8.defjvp
    def _tangent_in_bfloat16(primals, tangents):  # rounding has no derivative, and the units are not linear
        (a, b), (da, db) = primals, tangents
        dy = product(da, b, "bfloat16") + product(a, db, "bfloat16")
        return _product_in_float8(a, b), cast(dy, np.float32)

    def _unit(largest):
        """The unit in which this is 448; 1 for 0 and for what is not finite."""
        largest = cast(largest, np.float32)
        return jnp.where((largest > 1e-30) & (largest < np.inf), largest / 448, 1)


def exact_products() -> Any:
    """A context in which products of float32 are of float32: by default a GPU rounds their factors to 10 bits."""
    return contextlib.nullcontext() if jax is None else jax.default_matmul_precision("highest")


def contract(delta, a, dtype: Any = None, spare=False, precision=None):
    """`Σ δ aᵀ`, the one product of errors and activations, (..., O), (..., I) -> (O, I).

    The sum over all examples and positions is in float32 or wider, the result in `dtype`, by default that of delta.
    With `spare=True` the errors are not copied merely for speed. If the examples are sharded over an explicit mesh
    axis, this is the sum over devices, and JAX is given its layout.

    Args:
        delta: δ (..., O).
        a: (..., I).
        dtype: that of the result. Default: that of delta.
        spare: whether to save memory rather than time. Default: False.
        precision: "float32" or "tensorfloat32", as for `product`. Default: None.

    Returns:
        The sum (O, I).

    >>> contract(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))
    array([[6., 6.]])
    """
    dtype = delta.dtype if dtype is None else dtype
    if delta.ndim != 2:
        delta, a = delta.reshape(-1, delta.shape[-1]), a.reshape(-1, a.shape[-1])
    if isinstance(delta, np.ndarray) and delta.dtype == dtype == a.dtype and dtype.itemsize >= 4:
        return delta.T @ a
    wide = at_least_float32(delta.dtype)
    if isinstance(delta, np.ndarray) and isinstance(a, np.ndarray):
        return cast(cast(delta, wide).T @ cast(a, wide), dtype)
    d, s = jax.typeof(delta).sharding, jax.typeof(a).sharding
    wide = None if delta.dtype == wide else wide  # then the sum is that wide by default
    if jax.sharding.AxisType.Explicit in d.mesh.axis_types:
        layout = jax.sharding.NamedSharding(d.mesh, jax.sharding.PartitionSpec(d.spec[1], s.spec[1]))
        how: Any = {"precision": precision, "preferred_element_type": wide, "out_sharding": layout}
        return cast(jnp.einsum("no,ni->oi", delta, a, **how), dtype)
    multiply = lambda b, a: cast(jnp.matmul(b, a, precision=precision, preferred_element_type=wide), dtype)
    return by_platform(
        lambda delta, a: multiply(_transposed(delta, spare), a), lambda delta, a: multiply(delta.T, a), delta, a
    )


def _transposed(delta, spare):
    """δᵀ, computed in halves where measurements show a gain.

    XLA on the CPU folds a plain transposition into the product and then uses a slower kernel, half as fast in bfloat16.
    Beyond 16 MiB, or for few outputs at many positions, the copy itself costs more.
    """
    n, outputs = delta.shape
    if not isinstance(n, int) or n % 2:  # or n is a symbol, of `jax.export`
        return delta.T
    few = outputs <= 32 and n <= 4096
    if not (delta.dtype.itemsize < 4 or few or (n >= 256 and delta.size <= 2**22 and not spare)):
        return delta.T
    return delta.reshape(2, n // 2, outputs).transpose(2, 0, 1).reshape(outputs, n)

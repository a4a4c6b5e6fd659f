"""Numerically stable elementary functions, written once for both backends.

If JAX differentiates them, it finds the derivatives that the activations and costs document at their kinks. All accept
complex numbers with a small imaginary part, as needed for the complex step.
"""

import math
from typing import Any

import numpy as np

from . import backend
from .backend import at_least_float32, by_platform, cast, namespace, widened


def _real(z):
    """Whether this is a NumPy array of real numbers, which is not differentiated."""
    return z.dtype.kind != "c" and namespace(z) is np


def absolute(r):
    """|r|, with the derivative 0 at 0."""
    xp = namespace(r)
    return xp.where(r > 0, r, xp.where(r < 0, -r, 0 * r))


def magnitude(z):
    """|z|, with the derivative 1 at 0: for formulas that are smooth there."""
    return np.maximum(z, -z) if _real(z) else namespace(z).where(z >= 0, z, -z)


def ramp(z, at_zero=0):
    """max(z, 0), with the derivative `at_zero`, 0 or 1, at 0; that of JAX's maximum is ½."""
    if _real(z):
        return np.maximum(z, 0)
    xp = namespace(z)
    if at_zero:
        return xp.where(z >= 0, z, 0)
    # On a GPU XLA makes a maximum part of the product before it; on the CPU it would keep z as well.
    return by_platform(lambda z: xp.where(z <= 0, 0, z), lambda z: backend.jax.nn.relu(z), z)


def dip(z):
    """min(z, 0), with the derivative 1 at 0, so that `ramp(z) + dip(z)` is z."""
    return np.minimum(z, 0) if _real(z) else namespace(z).where(z > 0, 0, z)


def clipped(z, low, high, at_ends=0):
    """min(max(z, low), high), with the derivative `at_ends`, 0 or 1, at both ends."""
    if _real(z):
        return np.minimum(np.maximum(z, low), high)
    xp = namespace(z)
    below, above = (z < low, z > high) if at_ends else (z <= low, z >= high)
    return xp.where(above, high, xp.where(below, low, z))


def bounded(z):
    """z, with the largest finite number of its dtype in place of ±∞: for formulas where ∞/∞ would be NaN."""
    most = float((np if backend.jnp is None else backend.jnp).finfo(z.dtype).max)
    return clipped(z, -most, most, at_ends=1)


def kept(d, mask):
    """d where the mask is true, else 0; on NumPy a product, since `where` takes five to ten times as long."""
    xp = namespace(d, mask)
    if xp is not np:
        return xp.where(mask, d, 0)
    factors = mask.astype(d.dtype)
    return np.multiply(d, factors, out=factors if factors.shape == d.shape else None)


def either(mask, yes, no, dtype):
    """The number `yes` where the mask is true, else the number (or array) `no`, in the dtype; see `kept` on NumPy."""
    xp = namespace(mask, no)
    if xp is not np:
        return xp.where(mask, xp.asarray(yes, dtype), xp.asarray(no, dtype))
    mask = mask.astype(dtype)
    other = 1 - mask
    other = np.multiply(other, no, out=None if hasattr(no, "dtype") else other)
    mask *= yes
    return np.add(mask, other, out=other)


def nan_of(z, values):
    """The values, with NaN where z is NaN, which comparisons do not propagate."""
    xp = namespace(z, values)
    if xp is np:  # a dot product shows that there is no NaN in a tenth of the time
        square = np.vdot(z, z) if z.dtype.char in "fd" else np.nan
        if square == square:
            return values
    return xp.where(z == z, values, np.asarray(np.nan, values.dtype))


def logistic(z):
    """σ(z) = 1 / (1 + e⁻ᶻ) without overflow: e^−|z| is at most 1."""
    xp = namespace(z)
    e = xp.exp(-magnitude(z))
    return (np.exp(np.minimum(z, 0)) if xp is np else xp.where(z >= 0, 1, e)) / (1 + e)


def softplus(z):
    """log(1 + eᶻ) = max(z, 0) + log(1 + e^−|z|), without overflow."""
    xp = namespace(z)
    return ramp(z, at_zero=1) + xp.log1p(xp.exp(-magnitude(z)))


def root(v):
    """√v for v ≥ 0, with the derivative 0 at 0, where that of √ is infinite."""
    xp = namespace(v)
    if xp is np:  # is not differentiated
        return np.sqrt(v)
    return xp.where(v == 0, 0, xp.sqrt(xp.where(v == 0, 1, v)))


def inverse(m):
    """m⁻¹ of a symmetric positive definite matrix; on JAX by Cholesky's decomposition, in a third of the time."""
    xp = namespace(m)
    if xp is np:
        return np.linalg.inv(m)
    return backend.jax.scipy.linalg.cho_solve((xp.linalg.cholesky(m), True), xp.eye(len(m), dtype=m.dtype))


def hypotenuse(z, c):
    """√(z² + c²) for a number c > 0; only a quotient of at most 1 is squared, so only the result can overflow."""
    xp, size = namespace(z), magnitude(z)
    if xp is np:
        large, small = np.maximum(size, c), np.minimum(size, c)
    else:
        large, small = xp.where(size > c, size, c), xp.where(size > c, c, size)
    quotient = small / large
    return large * xp.sqrt(1 + quotient * quotient)


def exponentials(z, temperature=1.0):
    """(z − max z) / T, its exponential e, and Σ e; softmax(z) = softmax(z − c), and c = max z prevents overflow."""
    shifted = z - z.max(axis=-1, keepdims=True)
    shifted = shifted if temperature == 1 else shifted * (1 / temperature)
    e = namespace(z).exp(shifted)
    return shifted, e, e.sum(axis=-1, keepdims=True)


def log_softmax(z):
    """log softmax(z) = z − m − log Σ e^(z − m), m = max z, exact also where a probability is 1 but for rounding.

    The largest term of the sum is 1, and log1p takes the others alone.
    """
    xp = namespace(z)
    top = z.argmax(axis=-1)[..., None] == xp.arange(z.shape[-1])
    shifted, e, _ = exponentials(z)
    return shifted - xp.log1p(xp.where(top, 0, e).sum(axis=-1, keepdims=True))


def log_sigmoids(z):
    """log (1 − σ(z)) and log σ(z), (...) -> (..., 2)."""
    return namespace(z).stack([-softplus(z), -softplus(-z)], axis=-1)


# W. J. Cody, "Rational Chebyshev approximations for the error function" (1969); from the highest power down.
_ERF = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_ERFC = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1),
        *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
        1.23033935479799725e3,
    ),
    (
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
        *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
    ),
)
_ERFC_TAIL = (
    (
        *(1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1),
        *(1.60837851487422766e-2, 6.58749161529837803e-4),
    ),
    (
        *(1.0, 2.56852019228982242, 1.87295284992346047, 5.27905102951428412e-1),
        *(6.05183413124413191e-2, 2.33520497626869185e-3),
    ),
)


def erfc(x):
    """1 − erf x = 2/√π ∫ₓ^∞ e^(−t²) dt, accurate in its tail too; `jax.lax.erfc` on JAX.

    On NumPy the relative error in float64 is below 10⁻¹⁵ wherever the result is a normal number. Complex x may have a
    small imaginary part. The computation is in float32 or wider, since the polynomials overflow float16.
    """
    if backend.is_jax(x):
        return backend.jax.lax.erfc(x)
    x = np.asanyarray(x)
    dtype, x = x.dtype, cast(x, at_least_float32(x.dtype))
    size = np.minimum(magnitude(x), 40)  # beyond it is 0
    small, middle, large = np.where(size < 0.5, x, 0), np.clip(size, 0.46875, 4), np.maximum(size, 4)
    near = 1 - small * _ratio(_ERF, small * small)
    inverse = 1 / (large * large)
    tail = (math.sqrt(1 / math.pi) - inverse * _ratio(_ERFC_TAIL, inverse)) / large
    far = _bell(size) * np.where(size > 4, tail, _ratio(_ERFC, middle))
    return cast(np.where(size < 0.46875, near, np.where(x >= 0, far, 2 - far)), dtype)


def _bell(x):
    """e^(−x²) without the error of rounding x²: x² = t² + (x − t)(x + t), where t² is exact."""
    t = np.trunc(16 * x.real) / 16
    return np.exp(-t * t) * np.exp(-(x - t) * (x + t))


def _ratio(coefficients, x):
    """The quotient of two polynomials."""
    values = []
    for polynomial in coefficients:
        value = polynomial[0] * x + polynomial[1]
        for coefficient in polynomial[2:]:
            value = value * x + coefficient
        values.append(value)
    return values[0] / values[1]


# ---- norms, of which no square overflows or underflows -------------------------------------------------------------


def length(*norms) -> Any:
    """√Σ norm², elementwise, scaled by the largest so that no square overflows or underflows; 0 if there are none."""
    if not norms:
        return 0.0
    if len(norms) == 1:
        return norms[0]
    xp = namespace(*norms)
    largest = norms[0]
    for other in norms[1:]:
        largest = xp.maximum(largest, other)
    unit = scale_of(largest)
    return unit * root(sum((v / unit) ** 2 for v in norms))


def scale_of(largest):
    """The divisor to apply before squaring: the largest magnitude, or 1 where it is 0 or not finite.

    In float32 it is at most 2¹²⁵, since XLA divides by multiplying with 1 / scale, which must be a normal number.
    """
    xp, most = namespace(largest), 0.5 / np.finfo(largest.dtype).tiny
    return xp.where((largest > 0) & (largest < np.inf), xp.minimum(largest, most), 1)


def row_norm(a):
    """`(norm, unit)` with ‖aₙ‖ = unit · norm for each example, (N,): the unit is 1 unless squares would be lost.

    It is a power of two chosen from the sum of the plain squares, which is cheaper than the largest magnitude.
    """
    flat = widened(a).reshape(a.shape[0], -1)
    xp, exponent = namespace(flat), np.finfo(flat.dtype).maxexp
    tiny, huge = 2.0 ** -(exponent * 5 // 9), 2.0 ** (exponent * 5 // 8)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        plain = (flat * flat).sum(axis=1)
        unit = xp.where(plain < tiny, tiny, xp.where(plain < huge, 1.0, huge)).astype(flat.dtype)
        if xp is np and (unit == 1).all():
            return np.sqrt(plain), unit
        flat = flat * (1 / unit)[:, None]
        return root((flat * flat).sum(axis=1)), unit


def product_of(unit, other, norm):
    """unit · other · norm, which overflows or underflows only where the result does."""
    xp = namespace(unit, norm)
    low, high = xp.minimum(unit, other), xp.maximum(unit, other)
    return xp.where(norm > 1, high, low) * (xp.where(norm > 1, low, high) * norm)

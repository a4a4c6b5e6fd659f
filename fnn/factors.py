"""Factors: the gradient of each example, kept as a product for as long as possible.

The gradient of example n with respect to a matrix W (O, I) is a sum of outer products, one for each position t at which
the matrix is applied (a dense layer has one position, a convolution one for each patch):

    gₙ = Σ_t δ_nt a_ntᵀ        δ (N, T, O) or (N, O)        a (N, T, I) or (N, I)

All quantities of per-example gradients follow from δ and a, without materializing the gradients:

    total      Σₙ sₙ gₙ             contract(s δ, a)
    norm       ‖gₙ‖                 ‖δₙ‖ ‖aₙ‖;  with positions ‖gₙ‖² = Σ_ts (δ_nt · δ_ns)(a_nt · a_ns), or from gₙ
                                    itself
    products   gᵢ · gⱼ              (δᵢ · δⱼ)(aᵢ · aⱼ), likewise
    squares    Σₙ wₙ gₙ²            (w δ²)ᵀ a²
    along      gₙ · V               δₙ · V aₙ
    weighed    Σ D ⊙ gₙ²            δₙ² · D aₙ²

A tree of factors is nested as the parameters are. In place of each parameter it has an `Outer`, a `Rows`, an array
(N, ...) that is the gradient itself, or None (no gradient). The parameters come first in every traversal and determine
shapes and dtypes.

Sources: I. Goodfellow, "Efficient per-example gradient computations" (2015); with positions: G. Rochette, A. Manoel,
E. Tramel, "Efficient per-example gradient computations in convolutional neural networks" (2019).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from . import backend, trees
from .backend import at_least_float32, cast, is_jax, namespace, widened
from .matrices import contract, product
from .numerics import kept, root
from .pieces import in_blocks, in_turn, sum_of_blocks

__all__ = ["Outer", "Rows", "along", "made", "norm", "norm2", "products", "scaled", "squares", "total"]

BLOCK = 2**24  # bytes of temporary memory for formulas with positions


class Outer(NamedTuple):
    """The gradient Σ_t δ_nt a_ntᵀ, of O · I entries: delta (N, O) or (N, T, O), a (N, I) or (N, T, I)."""

    delta: Any
    a: Any


class Rows(NamedTuple):
    """A gradient that is δ_nt in row index_nt of a table (V, O), and 0 elsewhere: delta (N, T, O), index (N, T)."""

    delta: Any
    index: Any


def is_factor(node):
    """Whether a node of a tree is a factor rather than a container of factors."""
    return node is None or isinstance(node, Outer | Rows) or not isinstance(node, tuple | list | dict)


# ---- trees of factors ------------------------------------------------------------------------------------------------


def pairs(params, factors) -> list:
    """`(parameter, factor)` for each leaf of the parameters, in order; None stands for everything below it."""
    if not isinstance(params, tuple | list | dict):
        return [(params, factors)]
    keys = sorted(params) if isinstance(params, dict) else range(len(params))
    below = [(params[key], None if factors is None else factors[key]) for key in keys]
    return [pair for branch in below for pair in pairs(*branch)]


def leaves(factors) -> list:
    """All factors of a tree that are not None."""
    return [f for f in trees.leaves(factors, is_leaf=is_factor) if f is not None]


def total(params: Any, factors: Any, scale: Any = None) -> Any:
    """Σₙ sₙ gₙ, the gradient as a scaled sum over the examples.

    With a scale the leaves are computed one after another, so that only one leaf's scaled errors are in memory at a
    time.

    Args:
        params: the parameters.
        factors: their factors.
        scale: s (N,); where it is 0, values that are not finite do not count. Default: 1.

    Returns:
        The sum, nested as the parameters and in their dtypes; a leaf without a factor gives zeros.

    >>> total(np.zeros((1, 2)), Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]])))
    array([[6., 6.]])
    """
    if scale is None:
        return like(params, [_total(p, f, None) for p, f in pairs(params, factors)])
    return like(params, in_turn(lambda pair, s: _total(pair[0], pair[1], s), pairs(params, factors), scale))


def made(params: Any, factors: Any, n: int | None = None) -> Any:
    """The gradients gₙ themselves, materialized.

    Args:
        params: the parameters.
        factors: their factors.
        n: the number of examples N. Default: that of the factors.

    Returns:
        The gradients, nested as the parameters, with leaves (N, ...); a leaf without a factor gives zeros.

    >>> made(np.zeros((1, 2)), Outer(np.array([[2.0]]), np.array([[1.0, 3.0]])))
    array([[[2., 6.]]])
    """
    n = next((len(_first(f)) for f in leaves(factors)), 0) if n is None else n
    return like(params, [_made(p, f, n) for p, f in pairs(params, factors)])


def scaled(factors: Any, scale: Any) -> Any:
    """The factors of sₙ gₙ, for s (N,).

    Args:
        factors: the factors of N examples.
        scale: s (N,).

    Returns:
        Factors of the same structure.

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> norm(scaled(factors, np.array([0.0, 0.5])))
    array([0., 2.])
    """
    return trees.map(lambda f: None if f is None else _scaled(f, scale), factors, is_leaf=is_factor)


def norm(factors: Any) -> Any:
    """‖gₙ‖ (N,) over all factors, in float32 or wider; it overflows only if the result itself does.

    Args:
        factors: the factors of N examples.

    Returns:
        ‖gₙ‖ (N,).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> norm(factors).round(3).tolist()
    [6.325, 4.0]
    """
    return length(*[_norm(f) for f in leaves(factors)])


def bound(factors: Any) -> Any:
    """An upper bound of ‖gₙ‖ (N,), for clipping: the norm, and what rounding may hide where positions cancel.

    In floating point Σ_t δ_t a_tᵀ is known to about u Σ_t ‖δ_t‖ ‖a_t‖, with u the spacing of numbers at 1, and an
    example can make that as large as it likes beside the norm. The bound is √(‖gₙ‖² + u √k (Σ_t ‖δ_t‖ ‖a_t‖)²) for k
    operations; without positions it is the norm.

    Source: N. Higham, T. Mary, "A new approach to probabilistic rounding error analysis" (2019), for √k.
    """
    return length(*[_norm(f, hidden=True) for f in leaves(factors)])


def norm2(factors: Any) -> Any:
    """‖gₙ‖² (N,) over all factors, in float32 or wider.

    Args:
        factors: the factors of N examples.

    Returns:
        ‖gₙ‖² (N,).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> norm2(factors)
    array([40., 16.])
    """
    return norm(factors) ** 2


def products(ours: Any, theirs: Any) -> Any:
    """gᵢ · gⱼ (N, M), for the factors of N examples and those of M others, in float32 or wider.

    Args:
        ours: the factors of N examples.
        theirs: those of M examples, of the same parameters.

    Returns:
        The inner products (N, M).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> products(factors, factors)
    array([[40.,  8.],
           [ 8., 16.]])
    """
    return sum(_product(f, g) for f, g in zip(leaves(ours), leaves(theirs), strict=True))


def squares(params: Any, factors: Any, weights: Any = None) -> Any:
    """Σₙ wₙ gₙ², elementwise, nested as the parameters and in their dtypes; the weights (N,) may be negative.

    Args:
        params: the parameters.
        factors: the factors of N examples.
        weights: w (N,). Default: 1.

    Returns:
        The sums, nested as the parameters.

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> squares(np.zeros((1, 2)), factors)
    array([[20., 36.]])
    """
    return like(params, [_squares(p, f, weights) for p, f in pairs(params, factors)])


def along(factors: Any, direction: Any) -> Any:
    """gₙ · v (N,), for a direction v nested as the parameters; None in the direction or the factors means zero.

    Args:
        factors: the factors of N examples.
        direction: v, nested as the parameters.

    Returns:
        gₙ · v (N,).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> along(factors, np.array([[1.0, 1.0]]))
    array([8., 4.])
    """
    return sum(_along(f, v) for v, f in pairs(direction, factors) if f is not None and v is not None)


def weighed(factors: Any, d: Any) -> Any:
    """gₙᵀ diag(d) gₙ (N,), for d nested as the parameters, of any sign; None in it or in the factors means zero."""
    return sum(_weighed(f, w) for w, f in pairs(d, factors) if f is not None and w is not None)


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


# ---- one factor ------------------------------------------------------------------------------------------------------


def _total(p, f, scale):
    if f is None:
        return namespace(p, scale).zeros_like(p)
    if not isinstance(f, Outer | Rows):
        return cast(weighted_sum(widened(f), scale), p.dtype)
    if scale is not None:
        f = _scaled(f, scale)
    if isinstance(f, Outer):
        return contract(f.delta, f.a, dtype=p.dtype, spare=scale is not None).reshape(p.shape)
    delta = cast(f.delta.reshape(-1, p.shape[-1]), at_least_float32(p.dtype))
    return cast(added_rows(p, f.index.reshape(-1), delta), p.dtype)


def _made(p, f, n):
    if f is None:
        return namespace(p).zeros((n, *p.shape), p.dtype)
    if isinstance(f, Outer):
        delta, a = _positions(f)
        return cast(_wide_product("nto,nti->noi", delta, a).reshape(len(delta), *p.shape), p.dtype)
    if isinstance(f, Rows):
        one = lambda delta, index: added_rows(p, index.reshape(-1), delta.reshape(-1, p.shape[-1]))
        return backend.vmap(one)(cast(f.delta, p.dtype), f.index)
    return cast(f, p.dtype)


def _scaled(f, scale):
    """sₙ gₙ in float32 or wider; a scale of 0 gives 0 even for infinite values."""
    product = _weighted(widened(_first(f)), scale)
    if isinstance(f, Outer):  # rounding to a subnormal may double a number, which a large activation would make visible
        return Outer(kept(product, abs(product) >= np.finfo(product.dtype).tiny), _used(widened(f.a), scale))
    return f._replace(delta=product) if isinstance(f, Rows) else product


def _norm(f, hidden=False):
    """‖gₙ‖; with `hidden`, and what rounding may hide (`bound`)."""
    if isinstance(f, Outer) and f.delta.ndim == 2:
        (of_delta, unit), (of_a, other) = _row_norm(f.delta), _row_norm(f.a)
        return _product_of(unit, other, of_delta * of_a)
    if not isinstance(f, Outer | Rows):
        norm, unit = _row_norm(f)
        return unit * norm
    delta, right = _positions(f) if isinstance(f, Outer) else f
    t, outputs, inputs = delta.shape[1], delta.shape[-1], right.shape[-1]
    make = isinstance(f, Outer) and t * (outputs + inputs) > outputs * inputs
    operations = t if make else t * t + outputs + inputs

    def block(delta, right):
        delta, right, unit = _in_units(delta, right)
        if make:
            square = (_wide_product("nto,nti->noi", delta, right) ** 2).sum(axis=(1, 2))
        else:
            square = (_gram(delta, delta, "nto,nso->nts") * cast(_same(right, right, "nti,nsi->nts"), delta.dtype)).sum(
                axis=(1, 2)
            )
        xp = namespace(unit)
        if hidden:
            size = root((delta * delta).sum(axis=2))
            if right.ndim == 3:
                most = (size * root((right * right).sum(axis=2))).sum(axis=1) ** 2
            else:
                same = cast(_same(right, right, "nti,nsi->nts"), delta.dtype)
                most = (size * (same @ size[:, :, None])[:, :, 0]).sum(axis=1)
            square = xp.maximum(square, 0) + np.finfo(most.dtype).eps * math.sqrt(operations) * most
        return unit * root(xp.maximum(square, 0))

    return in_blocks(block, _block(outputs * inputs if make else 2 * t * t), delta, right)


def _product(f, g):
    if isinstance(f, Outer) and f.delta.ndim == g.delta.ndim == 2:
        (d, a), (e, b) = ((widened(v) for v in h) for h in (f, g))
        return (d @ e.T) * (a @ b.T)
    if not isinstance(f, Outer | Rows):
        f, g = (widened(h).reshape(len(h), -1) for h in (f, g))
        return f @ g.T
    (d, a), (e, b) = (_positions(h) if isinstance(h, Outer) else (widened(h.delta), h.index) for h in (f, g))
    n, m, t, s, outputs, inputs = len(d), len(e), d.shape[1], e.shape[1], d.shape[2], a.shape[-1] if a.ndim == 3 else 0
    if inputs and n * m * t * s * (outputs + inputs) > (n * t + m * s + n * m) * outputs * inputs:
        make = lambda delta, a: _wide_product("nto,nti->noi", delta, a).reshape(len(delta), -1)
        theirs = lambda mine: in_blocks(lambda e, b: make(e, b) @ mine.T, _block(outputs * inputs), e, b).T
        return in_blocks(lambda d, a: theirs(make(d, a)), _block(outputs * inputs), d, a)

    def block(d, a):
        pair = lambda e, b: (_gram(e, d, "mso,nto->mnst") * cast(_same(b, a, "msi,nti->mnst"), d.dtype)).sum(
            axis=(2, 3)
        )
        return in_blocks(pair, _block(2 * len(d) * t * s), e, b).T

    return in_blocks(block, _block(2 * t * s), d, a)


def _squares(p, f, weights):
    xp = namespace(p, weights)
    if f is None:
        return xp.zeros_like(p)
    if isinstance(f, Outer) and f.delta.ndim == 2:
        delta, a = (widened(v) for v in f)
        return cast(contract(_weighted(delta * delta, weights), _used(a * a, weights)), p.dtype).reshape(p.shape)
    if isinstance(f, Rows):  # δ_t Σ_s [same row] δ_s, added at the row of each t
        delta = widened(f.delta)
        among = (f.index[:, :, None] == f.index[:, None, :]).astype(delta.dtype)
        square = _weighted(delta * (among @ delta), weights)
        return cast(added_rows(p, f.index.reshape(-1), square.reshape(-1, p.shape[-1])), p.dtype)
    if not isinstance(f, Outer):
        f = widened(f)
        return cast(weighted_sum(f * f, weights), p.dtype)
    delta, a = _positions(f)

    def block(delta, a, w):
        g = _wide_product("nto,nti->noi", delta, a)
        return weighted_sum(g * g, w)

    ones = _weighted(xp.ones(len(delta), delta.dtype), weights)
    return cast(sum_of_blocks(block, _block(p.size), delta, a, ones).reshape(p.shape), p.dtype)


def _along(f, v):
    if isinstance(f, Outer):
        delta, a = _positions(f)
        v = cast(v, delta.dtype).reshape(delta.shape[-1], -1)
        return (product(a, v.T) * delta).sum(axis=(1, 2))
    if isinstance(f, Rows):
        delta = widened(f.delta)
        return (delta * cast(v, delta.dtype)[f.index]).reshape(len(delta), -1).sum(axis=1)
    f = widened(f)
    return f.reshape(len(f), -1) @ cast(v, f.dtype).reshape(-1)


def _weighed(f, d):
    if isinstance(f, Outer) and f.delta.ndim == 2:
        delta, a = (widened(v) for v in f)
        return ((a * a) @ cast(d, a.dtype).reshape(delta.shape[-1], -1).T * (delta * delta)).sum(axis=1)
    if isinstance(f, Rows):  # δ_t Σ_s [same row] δ_s, by the numbers of the row of each t
        delta = widened(f.delta)
        among = (f.index[:, :, None] == f.index[:, None, :]).astype(delta.dtype)
        return (delta * (among @ delta) * cast(d, delta.dtype)[f.index]).sum(axis=(1, 2))
    if not isinstance(f, Outer):
        f = widened(f).reshape(len(f), -1)
        return (f * f) @ cast(d, f.dtype).reshape(-1)
    delta, a = _positions(f)
    d = cast(d, delta.dtype).reshape(delta.shape[-1], -1)
    block = lambda delta, a: (_wide_product("nto,nti->noi", delta, a) ** 2 * d).sum(axis=(1, 2))
    return in_blocks(block, _block(d.size), delta, a)


# ---- what they share -------------------------------------------------------------------------------------------------


def _first(f):
    return f.delta if isinstance(f, Outer | Rows) else f


def _positions(f):
    """δ (N, T, O) and a (N, T, I), in float32 or wider."""
    return tuple(widened(v) if v.ndim == 3 else widened(v).reshape(len(v), -1, v.shape[-1]) for v in f)


def _weighted(values, weights):
    """Values (N, ...) times weights (N,)."""
    if weights is None:
        return values
    w = cast(weights, values.dtype).reshape(len(values), *(1,) * (values.ndim - 1))
    return namespace(values, w).where(w == 0, 0, values) * w


def weighted_sum(values, weights):
    """Σₙ wₙ vₙ of values (N, ...): of matrices as one product, many times as fast as XLA's own sum on the CPU."""
    if values.ndim < 3:
        return _weighted(values, weights).sum(axis=0)
    w = namespace(values).ones(len(values), values.dtype) if weights is None else cast(weights, values.dtype)
    flat = _used(values, weights).reshape(len(values), -1)
    return contract(w[:, None], flat, precision="float32").reshape(values.shape[1:])


def _wide_product(indices, left, right):
    """An einsum of two arrays, which for one position each is an outer product."""
    if left.shape[1] == 1 and indices == "nto,nti->noi":
        return left[:, 0, :, None] * right[:, 0, None, :]
    if namespace(left, right) is np and indices == "nto,nti->noi":
        return left.transpose(0, 2, 1) @ right
    return namespace(left, right).einsum(indices, left, right)


def _gram(left, right, indices):
    if indices == "nto,nso->nts":
        return left @ right.transpose(0, 2, 1)
    return namespace(left, right).einsum(indices, left, right)


def _same(left, right, indices):
    """a · a' for all pairs of positions; for rows, whether they are the same."""
    if left.ndim == 3:
        return _gram(left, right, indices.replace("i", "o"))
    return (
        left[:, :, None] == right[:, None, :]
        if indices.startswith("n")
        else (left[:, None, :, None] == right[None, :, None, :])
    )


def _used(a, weights):
    """a with zeros for examples of weight 0, whose values may be infinite."""
    if weights is None or (namespace(a, weights) is np and (weights != 0).all()):
        return a
    return namespace(a, weights).where((weights == 0).reshape(len(a), *(1,) * (a.ndim - 1)), 0, a)


def _in_units(delta, right):
    """δ and a in float32 or wider, and a unit (N,), with gₙ = unit Σ_t δ_t a_tᵀ: the largest entry of any δ_t a_tᵀ.

    Each position is scaled on its own, since the largest activation may stand where the error is 0.
    """
    xp, delta, dense = namespace(delta, right), widened(delta), right.ndim == 3
    largest = [abs(v).max(axis=2, initial=0) for v in ((delta, right) if dense else (delta,))]
    scales = [scale_of(widened(v)) for v in largest]
    sizes: Any = math.prod(xp.minimum(v, scale) for v, scale in zip(largest, scales, strict=True))  # 0 where one is
    unit = scale_of(sizes.max(axis=1, initial=0))
    delta = delta / scales[0][:, :, None]
    delta = delta * (sizes / unit[:, None])[:, :, None]
    return delta, right / scales[1][:, :, None] if dense else right, unit


def scale_of(largest):
    """The divisor to apply before squaring: the largest magnitude, or 1 where it is 0 or not finite.

    In float32 it is at most 2¹²⁵, since XLA divides by multiplying with 1 / scale, which must be a normal number.
    """
    xp, most = namespace(largest), 0.5 / np.finfo(largest.dtype).tiny
    return xp.where((largest > 0) & (largest < np.inf), xp.minimum(largest, most), 1)


def _row_norm(a):
    """`(norm, unit)` with ‖aₙ‖ = unit · norm for each example, (N,): the unit is 1 unless squares would be lost.

    It is a power of two chosen from the sum of the plain squares, which is cheaper than the largest magnitude.
    """
    flat = widened(a).reshape(len(a), -1)
    xp, exponent = namespace(flat), np.finfo(flat.dtype).maxexp
    tiny, huge = 2.0 ** -(exponent * 5 // 9), 2.0 ** (exponent * 5 // 8)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        plain = (flat * flat).sum(axis=1)
        unit = xp.where(plain < tiny, tiny, xp.where(plain < huge, 1.0, huge)).astype(flat.dtype)
        if xp is np and (unit == 1).all():
            return np.sqrt(plain), unit
        flat = flat * (1 / unit)[:, None]
        return root((flat * flat).sum(axis=1)), unit


def _product_of(unit, other, norm):
    """unit · other · norm, which overflows or underflows only where the result does."""
    xp = namespace(unit, norm)
    low, high = xp.minimum(unit, other), xp.maximum(unit, other)
    return xp.where(norm > 1, high, low) * (xp.where(norm > 1, low, high) * norm)


def _block(numbers):
    """How many examples at a time, if one takes that many numbers."""
    return max(1, BLOCK // (4 * max(1, numbers)))


def added_rows(p, index, rows):
    """Zeros like p, with rows added at their indices."""
    xp = namespace(p, rows)
    if is_jax(rows) or is_jax(p):
        return xp.zeros(p.shape, rows.dtype).at[index].add(rows)
    table = np.zeros_like(rows, shape=p.shape)
    np.add.at(table, index, rows)
    return table


def like(params, new_leaves):
    """A tree nested as the parameters, of these leaves."""
    leaves = iter(new_leaves)
    return trees.map(lambda _: next(leaves), params)

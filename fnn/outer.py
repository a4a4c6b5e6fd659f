"""One factor: the gradient of each example with respect to one parameter, as a product where it is one.

It is an `Outer`, a `Rows`, or an array (N, ...) that is the gradient itself; a leaf without a gradient has None. Each
quantity is written once for each of the three. `fnn.factors` has the formulas, and applies them to trees.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from . import backend
from .backend import at_least_float32, cast, is_jax, namespace, widened
from .matrices import contract, product
from .numerics import kept, product_of, root, row_norm, scale_of
from .pieces import in_blocks, sum_of_blocks

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


# ---- its quantities --------------------------------------------------------------------------------------------------


def total(p, f, scale):
    if f is None:
        return namespace(p, scale).zeros_like(p)
    if not isinstance(f, Outer | Rows):
        return cast(weighted_sum(widened(f), scale), p.dtype)
    if scale is not None:
        f = scaled(f, scale)
    if isinstance(f, Outer):
        return contract(f.delta, f.a, dtype=p.dtype, spare=scale is not None).reshape(p.shape)
    delta = cast(f.delta.reshape(-1, p.shape[-1]), at_least_float32(p.dtype))
    return cast(added_rows(p, f.index.reshape(-1), delta), p.dtype)


def made(p, f, n):
    if f is None:
        return namespace(p).zeros((n, *p.shape), p.dtype)
    if isinstance(f, Outer):
        delta, a = _positions(f)
        return cast(_wide_product("nto,nti->noi", delta, a).reshape(delta.shape[0], *p.shape), p.dtype)
    if isinstance(f, Rows):
        one = lambda delta, index: added_rows(p, index.reshape(-1), delta.reshape(-1, p.shape[-1]))
        return backend.vmap(one)(cast(f.delta, p.dtype), f.index)
    return cast(f, p.dtype)


def scaled(f, scale):
    """sₙ gₙ in float32 or wider; a scale of 0 gives 0 even for infinite values."""
    product = _weighted(widened(first(f)), scale)
    if isinstance(f, Outer):  # rounding to a subnormal may double a number, which a large activation would make visible
        return Outer(kept(product, abs(product) >= np.finfo(product.dtype).tiny), _used(widened(f.a), scale))
    return f._replace(delta=product) if isinstance(f, Rows) else product


def norm(f, hidden=False):
    """‖gₙ‖; with `hidden`, and what rounding may hide (`bound`)."""
    if isinstance(f, Outer) and f.delta.ndim == 2:
        (of_delta, unit), (of_a, other) = row_norm(f.delta), row_norm(f.a)
        return product_of(unit, other, of_delta * of_a)
    if not isinstance(f, Outer | Rows):
        norm, unit = row_norm(f)
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


def products(f, g):
    if isinstance(f, Outer) and f.delta.ndim == g.delta.ndim == 2:
        (d, a), (e, b) = ((widened(v) for v in h) for h in (f, g))
        return (d @ e.T) * (a @ b.T)
    if not isinstance(f, Outer | Rows):
        f, g = (widened(h).reshape(h.shape[0], -1) for h in (f, g))
        return f @ g.T
    (d, a), (e, b) = (_positions(h) if isinstance(h, Outer) else (widened(h.delta), h.index) for h in (f, g))
    (n, t, outputs), (m, s, _), inputs = d.shape, e.shape, a.shape[-1] if a.ndim == 3 else 0
    if inputs and n * m * t * s * (outputs + inputs) > (n * t + m * s + n * m) * outputs * inputs:
        make = lambda delta, a: _wide_product("nto,nti->noi", delta, a).reshape(delta.shape[0], -1)
        theirs = lambda mine: in_blocks(lambda e, b: make(e, b) @ mine.T, _block(outputs * inputs), e, b).T
        return in_blocks(lambda d, a: theirs(make(d, a)), _block(outputs * inputs), d, a)

    def block(d, a):
        pair = lambda e, b: (_gram(e, d, "mso,nto->mnst") * cast(_same(b, a, "msi,nti->mnst"), d.dtype)).sum(
            axis=(2, 3)
        )
        return in_blocks(pair, _block(2 * d.shape[0] * t * s), e, b).T

    return in_blocks(block, _block(2 * t * s), d, a)


def squares(p, f, weights):
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

    ones = _weighted(xp.ones(delta.shape[0], delta.dtype), weights)
    return cast(sum_of_blocks(block, _block(p.size), delta, a, ones).reshape(p.shape), p.dtype)


def along(f, v):
    if isinstance(f, Outer):
        delta, a = _positions(f)
        v = cast(v, delta.dtype).reshape(delta.shape[-1], -1)
        return (product(a, v.T) * delta).sum(axis=(1, 2))
    if isinstance(f, Rows):
        delta = widened(f.delta)
        return (delta * cast(v, delta.dtype)[f.index]).reshape(delta.shape[0], -1).sum(axis=1)
    f = widened(f)
    return f.reshape(f.shape[0], -1) @ cast(v, f.dtype).reshape(-1)


def weighed(f, d):
    if isinstance(f, Outer) and f.delta.ndim == 2:
        delta, a = (widened(v) for v in f)
        return ((a * a) @ cast(d, a.dtype).reshape(delta.shape[-1], -1).T * (delta * delta)).sum(axis=1)
    if isinstance(f, Rows):  # δ_t Σ_s [same row] δ_s, by the numbers of the row of each t
        delta = widened(f.delta)
        among = (f.index[:, :, None] == f.index[:, None, :]).astype(delta.dtype)
        return (delta * (among @ delta) * cast(d, delta.dtype)[f.index]).sum(axis=(1, 2))
    if not isinstance(f, Outer):
        f = widened(f).reshape(f.shape[0], -1)
        return (f * f) @ cast(d, f.dtype).reshape(-1)
    delta, a = _positions(f)
    d = cast(d, delta.dtype).reshape(delta.shape[-1], -1)
    block = lambda delta, a: (_wide_product("nto,nti->noi", delta, a) ** 2 * d).sum(axis=(1, 2))
    return in_blocks(block, _block(d.size), delta, a)


# ---- what they share -------------------------------------------------------------------------------------------------


def first(f):
    return f.delta if isinstance(f, Outer | Rows) else f


def _positions(f):
    """δ (N, T, O) and a (N, T, I), in float32 or wider."""
    return tuple(widened(v) if v.ndim == 3 else widened(v).reshape(v.shape[0], -1, v.shape[-1]) for v in f)


def _weighted(values, weights):
    """Values (N, ...) times weights (N,)."""
    if weights is None:
        return values
    w = cast(weights, values.dtype).reshape(values.shape[0], *(1,) * (values.ndim - 1))
    return namespace(values, w).where(w == 0, 0, values) * w


def weighted_sum(values, weights):
    """Σₙ wₙ vₙ of values (N, ...): of matrices as one product, many times as fast as XLA's own sum on the CPU."""
    if values.ndim < 3:
        return _weighted(values, weights).sum(axis=0)
    w = namespace(values).ones(values.shape[0], values.dtype) if weights is None else cast(weights, values.dtype)
    flat = _used(values, weights).reshape(values.shape[0], -1)
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
    return namespace(a, weights).where((weights == 0).reshape(a.shape[0], *(1,) * (a.ndim - 1)), 0, a)


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

"""The factors of gradients for many errors at the output, and sums over them.

Stacked factors are like factors, with an axis of C columns before that of the N examples in what an error changes: δ
(C, N, ..., O), and gradients kept whole (C, N, ...). Activations and indices have none, since no error changes them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backend, factors, trees
from ..backend import at_least_float32, cast, floating, namespace, widened
from ..backpropagation import shares_of
from ..matrices import contract
from ..outer import Outer, Rows, is_factor, weighted_sum
from .output import Columns, columns_of

BLOCK = 2**28  # bytes of errors that are sent back at a time
SMALL = 128  # rows of half a matrix, below which it is computed whole


class Pass(NamedTuple):
    """A forward pass from which errors can be sent back: what was kept, s (N,) or one number for all, and the dtype."""

    net: Any
    params: Any
    residuals: Any
    shares: Any
    dtype: Any


def begun(
    net, loss, params, data, kind, samples, denominator, key=None, sample_key=None, forward=None
) -> tuple[Pass, Columns]:
    """The forward pass of a batch that has passed the gate, unless it is given, and the errors at its output."""
    prediction, residuals = net.forward(params, data.x, key) if forward is None else forward
    prediction = floating(prediction)
    wide = cast(prediction, at_least_float32(prediction.dtype))
    columns = columns_of(loss, wide, data.y, kind, samples, sample_key)
    shares = shares_of(data.weights, len(wide), denominator)
    return Pass(net, params, residuals, shares, prediction.dtype), columns


def summed(pass_: Pass, columns: Columns, make: Callable, f: Callable) -> tuple[Any, Any]:
    """`(Σ f(stacked factors), the factors of one column)`, with as many columns at a time as memory allows.

    Args:
        pass_: the forward pass.
        columns: the errors at the output.
        make: `(params, residuals, deltas) -> factors`, a method of the network.
        f: `stacked factors -> tree of arrays`.
    """
    net, params, residuals, _, dtype = pass_

    def back(i):
        e = columns.column(namespace(i).minimum(i, columns.number - 1))
        e = namespace(e).where(i < columns.number, e, 0)
        return net.propagate(params, residuals, cast(e, dtype), need_dx=False)[1]

    def several(indices):
        if len(indices) == 1:
            one = make(params, residuals, back(indices[0]))
            return f(stacked(one)), one
        deltas = backend.vmap(back)(indices)
        one = make(params, residuals, trees.map(lambda d: d[0], deltas))
        moving = backend.vmap(lambda d: _moving(make(params, residuals, d)))(deltas)
        return f(_joined(one, moving)), one

    size = max(1, BLOCK // max(1, sum(math.prod(np.shape(r)) * 8 for r in trees.leaves(residuals))))
    rounds = -(-columns.number // size)
    size = -(-columns.number // rounds)  # the last round is filled up with zeros
    indices = namespace(*trees.leaves(residuals)).arange(rounds * size, dtype=np.int32).reshape(rounds, size)
    total, one = several(indices[0])
    if rounds > 1:
        add = lambda total, indices: (trees.map(lambda a, b: a + b, total, several(indices)[0]), ())
        total, _ = backend.scan(add, total, indices[1:])
    return total, one


def stacked(factors):
    """The factors of one column, with an axis for it."""
    return _joined(factors, trees.map(lambda d: d[None], _moving(factors)))


def _moving(factors):
    """What of the factors an error changes."""
    return trees.map(lambda f: f.delta if isinstance(f, Outer | Rows) else f, factors, is_leaf=is_factor)


def _joined(one, moving):
    join = lambda f, delta: f._replace(delta=delta) if isinstance(f, Outer | Rows) else delta
    return trees.map(join, one, moving, is_leaf=is_factor)


# ---- sums over the columns of one factor -----------------------------------------------------------------------------


def shared(values, shares, axis=0):
    """Values times s, which has the examples along this axis; where s is 0, values that are not finite do not count."""
    if isinstance(shares, float):
        return values * shares
    s = cast(shares, values.dtype).reshape(shares.shape + (1,) * (values.ndim - axis - 1))
    return namespace(values, s).where(s == 0, 0, values) * s


def gram(v, shares, axis=0):
    """Σ s v vᵀ over all axes of v (..., K) but the last, with the examples along one of them."""
    if isinstance(shares, float):
        return _symmetric(v, v) * shares
    v = namespace(v, shares).where(shares.reshape(shares.shape + (1,) * (v.ndim - axis - 1)) == 0, 0, v)
    return _symmetric(shared(v, shares, axis), v)


def _symmetric(u, v):
    """`contract(u, v)` where it is symmetric: three of its four quarters, since XLA, unlike BLAS, does not see that."""
    half = v.shape[-1] // 2
    if half < SMALL or not backend.is_jax(v):
        return contract(u, v)
    (u, u_), (v, v_) = ((w[..., :half], w[..., half:]) for w in (u, v))
    xp, across = backend.jnp, contract(u, v_)
    above = xp.concatenate([contract(u, v), across], axis=1)
    return xp.concatenate([above, xp.concatenate([across.T, contract(u_, v_)], axis=1)], axis=0)


def squares(p, f, shares):
    """Σₙ sₙ Σ_c g_nc², shaped as the parameter p, of a stacked factor."""
    if f is None:
        return namespace(p).zeros_like(p)
    if isinstance(f, Outer) and f.delta.ndim == 3:  # the sum over the columns first, then one product
        delta, a = _sum_of_squares(f.delta), widened(f.a)
        if isinstance(shares, float):
            summed = contract(delta, a * a) * shares
        else:
            summed = factors.total(p, Outer(delta, a * a), shares)
        return cast(summed, p.dtype).reshape(p.shape)
    weights = None if isinstance(shares, float) else shares
    if isinstance(f, Outer | Rows):
        zeros = namespace(p).zeros(p.shape, at_least_float32(p.dtype))
        add = lambda total, delta: (total + factors.squares(zeros, f._replace(delta=delta), weights), ())
        total = backend.scan(add, zeros, f.delta)[0]
    else:
        total = weighted_sum(_sum_of_squares(f), weights)
    return cast(total * shares if weights is None else total, p.dtype)


def _sum_of_squares(v):
    """Σ_c v_c² over the columns, the first axis, one by one: on the CPU XLA's own sum takes thirty times as long."""
    zeros = namespace(v).zeros(v.shape[1:], at_least_float32(v.dtype))
    return backend.scan(lambda total, v: (total + widened(v) ** 2, ()), zeros, v)[0]

"""Piece by piece: blocks of examples, layers in turn, and what waits for the errors, so that less memory is needed.

A compiler orders operations by what depends on what, so the order is written as a dependence (`in_turn`, `once_known`).
"""

import contextlib
import contextvars
import functools
from typing import Any

import numpy as np

from .backend import by_platform, is_jax, is_traced, jax, jnp, namespace, scan, tree_leaves, tree_map
from .devices import is_divided

__all__ = ["in_turn"]


def in_blocks(f, size, *args, late=False) -> Any:
    """`f` applied to blocks of `size` examples along the leading axis of all arrays in `args`, concatenated.

    On a GPU or TPU, which has to be given more to do at a time, the blocks are 256 times as large. XLA on the CPU finds
    room for the result before anything else is computed; with `late=True`, once the arrays of `after` are known.
    """
    if not _several(size, args):
        return f(*args)

    def each(size, *args):
        blocks, rest = _blocks(size, args)
        if blocks is None:
            return f(*rest)
        if late and is_traced(*blocks):
            results = _later(f, blocks)
        else:
            results = scan(lambda _, block: ((), f(*block)), (), blocks)[1]
        results = tree_map(lambda y: y.reshape(-1, *y.shape[2:]), results)
        if rest is None:
            return results
        return tree_map(lambda y, last: namespace(y, last).concatenate([y, last]), results, f(*rest))

    return by_platform(functools.partial(each, size), functools.partial(each, 256 * size), *args)


_awaited: contextvars.ContextVar = contextvars.ContextVar("awaited")


@contextlib.contextmanager
def after(tree):
    """A context in which `in_blocks(..., late=True)` begins once the first array of this tree is known."""
    known = tree_leaves(tree)
    token = _awaited.set(known[0]) if is_traced(*known) else None
    try:
        yield
    finally:
        if token:
            _awaited.reset(token)


def _later(f, blocks):
    """The results of `f`, an array for each block, written into zeros that depend on what is awaited."""
    like, known = jax.eval_shape(f, *(a[0] for a in blocks)), _awaited.get(blocks[0])
    zero = jnp.where(_never(jax.lax.stop_gradient(known.ravel()[0])), 1, 0).astype(like.dtype)

    def put(carry, block):
        i, results = carry
        return (i + 1, jax.lax.dynamic_update_index_in_dim(results, f(*block), i, 0)), None

    start = np.int32(0), jnp.zeros((len(blocks[0]), *like.shape), like.dtype) + zero
    return scan(put, start, blocks)[0][1]


def sum_of_blocks(f, size, *args) -> Any:
    """The sum of the array that `f` gives for each block of `size` examples; see `in_blocks`."""
    if not _several(size, args):
        return f(*args)

    def total(size, *args):
        blocks, rest = _blocks(size, args)
        if blocks is None:
            return f(*rest)
        first = tree_map(lambda a: a[0], blocks)
        like = jax.eval_shape(f, *first) if is_jax(blocks[0]) else f(*first)
        start = namespace(*blocks).zeros(like.shape, like.dtype)
        summed = scan(lambda total, block: (total + f(*block), None), start, blocks)[0]
        return summed if rest is None else summed + f(*rest)

    return by_platform(functools.partial(total, size), functools.partial(total, 256 * size), *args)


def sum_of_parts(f, size, *args):
    """The sum of the trees `f(k, *part)` over parts of `size` examples, k = 0, 1, …; the last part may be smaller."""
    parts, rest = _blocks(size, args)
    if parts is None:
        return f(0, *rest)
    count = len(tree_leaves(parts)[0])
    numbered = np.arange(count, dtype=np.int32), *parts
    add = lambda total, part: tree_map(lambda a, b: a + b, total, f(*part))
    first = tree_map(lambda a: a[0], numbered)
    if is_traced(*tree_leaves(parts)):  # zeros first, so that f is compiled once for all whole parts
        total = tree_map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(f, *first))
    else:
        total, numbered = f(*first), tree_map(lambda a: a[1:], numbered)
    total = scan(lambda total, part: (add(total, part), None), total, numbered)[0] if len(numbered[0]) else total
    return total if rest is None else add(total, (count, *rest))


def _several(size, args):
    """Whether the examples are more than one block; where their number is a symbol, of `jax.export`, they are one."""
    n = tree_leaves(args)[0].shape[0]
    return isinstance(n, int) and n > size


def _blocks(size, args) -> tuple:
    """Arrays (N, ...) as blocks (N // size, size, ...) and the rest (N % size, ...); None for either that is empty."""
    if not _several(size, args):
        return None, args
    n = len(tree_leaves(args)[0])
    whole = n // size * size
    blocks = tree_map(lambda a: a[:whole].reshape(n // size, size, *a.shape[1:]), args)
    return blocks, None if whole == n else tree_map(lambda a: a[whole:], args)


def in_turn(f, items, scale):
    """`[f(item, scale) for item in items]`, computed one after another from the last item, each after the previous one.

    So the scaled values of one result are freed before those of the next are computed; compilers plan memory in that
    order. On several devices, each with its part of a batch, no result waits for another: one sum over the devices then
    serves all.

    Args:
        f: the function.
        items: a list.
        scale: its second argument, such as a weight for each example.

    Returns:
        A list of the results, in the order of the items.

    >>> in_turn(lambda item, scale: item * scale, [1.0, 2.0], 10.0)
    [10.0, 20.0]
    """
    if is_divided(scale):
        return [f(item, scale) for item in items]
    results = []
    for item in reversed(items):
        results.append(f(item, scale))
        scale = _after(scale, results[-1])
    return results[::-1]


def _after(array, other):
    """`array`, made to depend on `other` by a comparison that is never true; barriers have no effect on the CPU."""
    xp = namespace(array, other)
    return array if xp is np or not other.size else xp.where(other.ravel()[0] > np.inf, 0, array)


def once_known(x, dy):
    """`x`, a tree of arrays (N, ...), made to depend on `dy` (N, ...), so that a compiler has to wait for dy.

    What is computed from it is not shared with what was computed from x before. Each example depends on its own entry
    of dy, which lies on the same device; if dy has an axis of `vmap` that x has not, x gets none.
    """
    if not is_traced(dy) or not dy.size:
        return x
    never = _never(jax.lax.stop_gradient(dy[(slice(None), *(0,) * (dy.ndim - 1))]))
    return tree_map(lambda a: jnp.where(never.reshape(-1, *(1,) * (a.ndim - 1)), 0, a).astype(a.dtype), x)


if jax is not None:

    @jax.custom_batching.custom_vmap
    def _never(values):
        return values > np.inf

    @_never.def_vmap
    def _never_of_first(size, batched, values):
        return _never(values[0]), False

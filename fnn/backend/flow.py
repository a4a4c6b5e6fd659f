"""Loops, choices and `vmap`: JAX's while it traces, otherwise Python's, so that a formula is written once."""

from typing import Any, NamedTuple

import numpy as np

from .library import is_jax, is_traced, jax, jnp, namespace
from .nodes import tree_leaves, tree_map


def scan(f, carry, xs, length=None, reverse=False, unroll=1) -> Any:
    """`lax.scan` if any array is traced; otherwise a loop that stacks the outputs of `f`.

    `xs` is a tree of arrays, or None if `length` is given. With `reverse=True` the last entry comes first. Known values
    are not given to `lax.scan`, which would compile `f` anew at each call.

    Args:
        f: `(carry, x) -> (carry, y)`.
        carry: the first carry.
        xs: arrays whose first axis is scanned.
        length: the number of steps, without `xs`.
        reverse: whether to begin with the last entry. Default: False.
        unroll: how many steps a turn of the compiled loop has on an accelerator, where to start a small step takes
            longer than the step. Default: 1.

    Returns:
        `(carry, ys)`: the last carry, and the outputs, stacked.

    >>> scan(lambda total, x: (total + x, total + x), 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([1., 3., 6.]))
    """
    known = tree_leaves((carry, xs))
    if is_traced(*known):
        return jax.lax.scan(f, carry, xs, length, reverse, 1 if jax.default_backend() == "cpu" else unroll)
    if xs is None:
        rows: Any = [None] * (length or 0)
    elif isinstance(xs, tuple) and all(isinstance(array, np.ndarray) for array in xs):
        rows = zip(*(array[::-1] if reverse else array for array in xs), strict=True)
    else:
        indices = range(len(tree_leaves(xs)[0]))
        rows = (tree_map(lambda a: a[i], xs) for i in (reversed(indices) if reverse else indices))  # noqa: B023 - called at once
    outputs = []
    for row in rows:
        carry, output = f(carry, row)
        outputs.append(output)
    if reverse:
        outputs.reverse()
    stacked = _stacked if namespace(*known) is np else lambda *leaves: jnp.array(leaves)
    return carry, tree_map(stacked, *outputs) if outputs else None


def _stacked(*leaves):
    """Arrays or numbers along a new first axis; a subclass of arrays is kept, which takes longer."""
    plain = type(leaves[0]) is np.ndarray or not isinstance(leaves[0], np.ndarray)
    return np.array(leaves) if plain else np.stack(leaves)


def while_loop(condition, f, carry) -> Any:
    """`lax.while_loop` if any array is traced; otherwise a loop: `carry = f(carry)` as long as `condition(carry)`."""
    if jax is not None and is_traced(*tree_leaves(carry)):
        return jax.lax.while_loop(condition, f, carry)
    while condition(carry):
        carry = f(carry)
    return carry


def cond(pred, true_fn, false_fn, *args) -> Any:
    """`lax.cond` if `pred` is traced; otherwise just the chosen function, since a known value needs no program."""
    if is_traced(pred):
        return jax.lax.cond(pred, true_fn, false_fn, *args)
    return (true_fn if pred else false_fn)(*args)


def choose(condition, yes, no) -> Any:
    """`yes` where the condition holds, else `no`, two trees of arrays; a known condition just chooses one of them."""
    if is_traced(condition):
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
    return yes if condition else no


def by_platform(cpu, other, *args) -> Any:
    """`cpu(*args)` with arrays of NumPy, or of JAX on the CPU; `other(*args)` with those on a GPU or TPU."""
    leaves = tree_leaves(args)
    if is_traced(*leaves):
        return jax.lax.platform_dependent(*args, cpu=cpu, default=other)
    devices = [next(iter(array.devices())) for array in leaves if is_jax(array)]
    return (other if any(device.platform != "cpu" for device in devices) else cpu)(*args)


class Unbatched(NamedTuple):
    """Marks a residual without a batch axis, such as a norm of the weights: `vmap` passes it through unchanged."""

    value: Any


def is_unbatched(node):
    """Whether a node is marked `Unbatched`."""
    return isinstance(node, Unbatched)


def vmap(f) -> Any:
    """`jax.vmap`, or a loop that stacks, over the leading axis of all arrays in the arguments except `Unbatched`.

    Args:
        f: the function of one example.

    Returns:
        The function of arrays with the examples along their first axis.

    >>> vmap(lambda a, b: a @ b)(np.ones((3, 2)), np.ones((3, 2)))
    array([2., 2., 2.])
    """

    def call(*args):
        if any(is_jax(leaf) for leaf in tree_leaves(args)):
            axes = tree_map(lambda node: None if is_unbatched(node) else 0, args, is_leaf=is_unbatched)
            return jax.vmap(f, axes)(*args)
        length = next(len(leaf) for leaf in tree_leaves(args, is_leaf=is_unbatched) if not is_unbatched(leaf))
        row = lambda i: tree_map(lambda a: a if is_unbatched(a) else a[i], args, is_leaf=is_unbatched)
        outputs = [f(*row(i)) for i in range(length)]
        return tree_map(lambda *leaves: np.stack(leaves), *outputs)

    return call

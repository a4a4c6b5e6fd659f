"""Trees of arrays: nested tuples, NamedTuples and dicts, with arrays (or numbers) as leaves.

Parameters, gradients and states are such trees. With JAX they are pytrees; for NumPy, `backend` has a stand-in.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from .backend import Record, namespace
from .backend import tree_leaves as leaves
from .backend import tree_map as map
from .errors import ShapeError

__all__ = ["Fixed", "learnt", "leaves", "lock", "locked", "map", "map_learnt", "paths"]


class Fixed(NamedTuple):
    """A marker in a tree of parameters: every optimizer and penalty leaves the parameters inside it alone."""

    params: Any


def is_fixed(tree):
    return isinstance(tree, Fixed)


def learnt(tree):
    """The leaves that are learnt: all except those inside `Fixed`.

    Args:
        tree: a tree of arrays.

    Returns:
        A list of leaves.

    >>> learnt({"a": 1.0, "b": Fixed(2.0)})
    [1.0]
    """
    if isinstance(tree, tuple):  # the usual node, in a third of the time
        inside = () if is_fixed(tree) else tree
        return [leaf for node in inside for leaf in ((node,) if hasattr(node, "dtype") else learnt(node))]
    return [tree] if hasattr(tree, "dtype") else [w for w in leaves(tree, is_leaf=is_fixed) if not is_fixed(w)]


def map_learnt(f, tree, *rest, fixed=lambda node: node):
    """`map` over the leaves that are learnt; leaves inside `Fixed` are kept, or mapped by `fixed`.

    Args:
        f: the function.
        tree: a tree of arrays.
        *rest: trees of the same structure, whose leaves are further arguments of f.
        fixed: the function for leaves inside `Fixed`. Default: they stay as they are.

    Returns:
        The new tree.

    >>> map_learnt(lambda w: 10 * w, {"a": 1.0, "b": Fixed(2.0)})
    {'a': 10.0, 'b': Fixed(params=2.0)}
    """

    def either(node, *others):
        return map(fixed, node) if is_fixed(node) else f(node, *others)

    def walk(*nodes):  # the usual nodes are walked through here, in a quarter of the time
        kind = type(nodes[0])
        if kind is Fixed or not issubclass(kind, tuple):
            return map(either, *nodes, is_leaf=is_fixed)
        inside = zip(*nodes, strict=True)
        return tuple.__new__(kind, [f(*b) if hasattr(b[0], "dtype") else walk(*b) for b in inside])

    return walk(tree, *rest)


def all_finite(tree):
    """Whether no entry of any array is NaN or infinite, as a boolean of the arrays' kind."""
    each = [namespace(a).isfinite(a).all() for a in leaves(tree)]
    return functools.reduce(lambda a, b: a & b, each, np.True_)


def paths(tree: Any, root="params"):
    """The leaves with their places: `[("params[0].w", array), ...]`, in the order of `leaves`.

    Args:
        tree: a tree of arrays.
        root: the name of the tree. Default: "params".

    Returns:
        A list of pairs.

    >>> paths(({"w": 1.0}, 2.0))
    [("params[0]['w']", 1.0), ('params[1]', 2.0)]
    """
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [item for key in sorted(tree) for item in paths(tree[key], f"{root}[{key!r}]")]
    if isinstance(tree, tuple | list | Record):
        fields = getattr(tree, "_fields", None)
        names = [f".{field}" for field in fields] if fields else [f"[{i}]" for i in range(len(tree))]
        return [item for name, branch in zip(names, tree, strict=True) for item in paths(branch, root + name)]
    return [(root, tree)]


def lock(tree):
    """The same tree with its NumPy arrays made read-only: parameters are immutable on both backends.

    Args:
        tree: a tree of arrays.

    Returns:
        The tree.

    >>> lock({"w": np.zeros(2)})["w"].flags.writeable
    False
    """
    return map(locked, tree)


def locked(leaf):
    """`lock` of one leaf.

    Args:
        leaf: the leaf.

    Returns:
        The leaf, or a read-only view of it.

    >>> locked(np.zeros(2)).flags.writeable
    False
    """
    if isinstance(leaf, np.ndarray):
        leaf.flags.writeable = False
    return leaf


def prefix(name, number, tree):
    """Spread a number, or a tree of numbers over the upper part of `tree`, to one number for each leaf of `tree`."""

    def spread(_, number, branch):
        return map(lambda _: number, branch)

    return over_prefix(spread, lambda node: not isinstance(node, tuple | list | dict), "a number", name, number, tree)


def over_prefix(f, is_end, expected, place, upper, tree, *rest) -> Any:
    """Map `f(place, end, its part of tree, ...)` over the ends of `upper`, a tree that matches the top of `tree`."""
    if is_end(upper):
        return f(place, upper, tree, *rest)
    same = type(upper) is type(tree) and len(upper) == len(tree)
    if not same or (isinstance(tree, dict) and set(upper) != set(tree)):
        raise ShapeError(
            f"{place}: expected {expected} or a tree that matches the top of the parameters' tree, {outline(tree)}, "
            f"got {outline(upper)}"
        )
    for other in rest:
        if (
            not isinstance(other, type(tree))
            or len(other) != len(tree)
            or (isinstance(tree, dict) and set(other) != set(tree))
        ):
            raise ShapeError(f"{place}: expected a tree that matches {outline(upper)}, got {outline(other)}")
    fields = getattr(tree, "_fields", None)
    keys = sorted(tree) if isinstance(tree, dict) else range(len(tree))
    places = [f"{place}.{fields[key]}" if fields else f"{place}[{key!r}]" for key in keys]
    mapped = [
        over_prefix(f, is_end, expected, at, *(branch[key] for branch in (upper, tree, *rest)))
        for at, key in zip(places, keys, strict=True)
    ]
    if isinstance(tree, dict):
        return dict(zip(keys, mapped, strict=True))
    return type(tree)(*mapped) if fields is not None else type(tree)(mapped)


def alike(tree, expected) -> bool:
    """Whether a tree has the same structure and shapes as another one."""
    if isinstance(expected, tuple | list | Record):
        same = type(tree) is type(expected) and len(tree) == len(expected)
        return same and all(alike(*pair) for pair in zip(tree, expected, strict=True))
    if isinstance(expected, dict):
        return (
            isinstance(tree, dict) and tree.keys() == expected.keys() and all(alike(tree[k], expected[k]) for k in tree)
        )
    return not isinstance(tree, tuple | list | dict | Record) and np.shape(tree) == np.shape(expected)


def same_structure(name, tree, expected, path=""):
    """Raise unless `tree` has the structure and shapes of `expected`, naming the first leaf that differs."""
    actual, wanted = paths(tree, path), paths(expected, path)
    if [place for place, _ in actual] != [place for place, _ in wanted]:
        missing = [place for place, _ in wanted if place not in dict(actual)]
        extra = [place for place, _ in actual if place not in dict(wanted)]
        raise ShapeError(
            f"{name}: expected the structure {outline(expected)}, got {outline(tree)} "
            f"(missing {missing}, extra {extra})"
        )
    for (place, leaf), (_, model) in zip(actual, wanted, strict=True):
        if np.shape(leaf) != np.shape(model):
            raise ShapeError(f"{name}{place}: expected shape {np.shape(model)}, got {np.shape(leaf)}")


def outline(tree):
    """A tree with the shapes of its leaves in place of their values."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {outline(tree[key])}" for key in sorted(tree)) + "}"
    if isinstance(tree, tuple | list | Record):
        inner = ", ".join(outline(branch) for branch in tree)
        if isinstance(tree, list):
            return f"[{inner}]"
        return f"{type(tree).__name__}({inner})" if hasattr(tree, "_fields") else f"({inner})"
    return str(tuple(tree.shape)) if hasattr(tree, "shape") else type(tree).__name__

"""Trees of arrays as JAX has them, also on NumPy alone: what their nodes are, and two functions of their leaves."""

import dataclasses
import typing
from typing import Any

import numpy as np

from ..errors import ShapeError
from .library import is_traced, jax


class Held:
    """A node of a tree that holds a value but has no leaves: a choice, or an object of another library.

    It compares by the value, which is `thing`, and has the value's attributes.
    """

    def __init__(self, thing):
        self.thing = thing

    def __getattr__(self, name):
        if name.startswith("__") or name == "thing":  # requested during copying, before `thing` is set
            raise AttributeError(name)
        return getattr(self.thing, name)

    def __eq__(self, other):
        return isinstance(other, Held) and self.thing == other.thing

    def __hash__(self):
        return hash(self.thing)

    def __repr__(self):
        return repr(self.thing)


if jax:
    jax.tree_util.register_static(Held)


@typing.dataclass_transform(frozen_default=True)
class Record:
    """A node of a tree that is like a NamedTuple, but not a tuple: what JAX compiles must have weak references.

    No tuple has them, so that `jax.jit` of a NamedTuple with `__call__` fails, and the second time ends the process.
    """

    def __init_subclass__(cls):
        dataclasses.dataclass(frozen=True, eq=False)(cls)
        declared: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
        cls._fields = tuple(field.name for field in declared)
        cls._field_defaults = {f.name: f.default for f in declared if f.default is not dataclasses.MISSING}
        if jax is not None:
            keyed = lambda self: ([(jax.tree_util.GetAttrKey(name), value) for name, value in vars(self).items()], None)
            jax.tree_util.register_pytree_with_keys(cls, keyed, lambda _, values: cls._make(values))

    @classmethod
    def _make(cls, values):
        self = object.__new__(cls)
        vars(self).update(zip(cls._fields, values, strict=True))
        return self

    def _asdict(self):
        return dict(vars(self))

    def _replace(self, **changes):
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def __iter__(self):
        return iter(vars(self).values())

    def __len__(self):
        return len(vars(self))

    def __eq__(self, other):
        if type(self) is not type(other) or is_traced(*tree_leaves((self, other))):
            return self is other
        numbers = lambda record: tuple(tree_map(lambda leaf: np.asarray(leaf).tolist(), record))
        return numbers(self) == numbers(other)

    def __hash__(self):  # that of the class, since arrays have none
        return hash(type(self))


_NODES = (tuple, list, dict, type(None), Record)
_INNER = (*_NODES, Held)


def tree_map(f, tree, *rest, is_leaf=None) -> Any:
    """`jax.tree.map`; the NumPy stand-in supports tuples, NamedTuples, lists, dicts and None.

    Args:
        f: the function.
        tree: the tree whose structure the result has.
        *rest: trees of the same structure, whose leaves are further arguments of f.
        is_leaf: a function that says what is a leaf, besides arrays. Default: None.

    Returns:
        The new tree.

    >>> tree_map(lambda a, b: a + b, {"w": 1.0, "b": (2.0, 3.0)}, {"w": 10.0, "b": (20.0, 30.0)})
    {'b': (22.0, 33.0), 'w': 11.0}
    """
    if jax is not None:
        return jax.tree.map(f, tree, *rest, is_leaf=is_leaf)
    return _tree_map(f, tree, *rest, is_leaf=is_leaf)


def _tree_map(f, tree, *rest, is_leaf=None) -> Any:
    if not isinstance(tree, _NODES) or (is_leaf is not None and is_leaf(tree)):
        return tree if isinstance(tree, Held) else f(tree, *rest)
    if isinstance(tree, (tuple, list, Record)):
        mapped = [
            _tree_map(f, *branches, is_leaf=is_leaf) if isinstance(branches[0], _INNER) else f(*branches)
            for branches in zip(tree, *rest, strict=True)
        ]
        if isinstance(tree, list):
            return mapped
        return tuple.__new__(type(tree), mapped) if isinstance(tree, tuple) else tree._make(mapped)
    if tree is None:
        return None
    if any(r.keys() != tree.keys() for r in rest):
        raise ShapeError(f"expected dicts of the same keys, got {[sorted(t) for t in (tree, *rest)]}")
    return {key: _tree_map(f, tree[key], *(r[key] for r in rest), is_leaf=is_leaf) for key in sorted(tree)}


def tree_leaves(tree, is_leaf=None) -> list:
    """`jax.tree.leaves`, in the same order.

    Args:
        tree: a tree of arrays.
        is_leaf: a function that says what is a leaf, besides arrays. Default: None.

    Returns:
        A list of leaves.

    >>> tree_leaves({"b": (1.0, 2.0), "a": 3.0})
    [3.0, 1.0, 2.0]
    """
    if jax is not None:
        return jax.tree.leaves(tree, is_leaf=is_leaf)
    if not isinstance(tree, _NODES) or (is_leaf is not None and is_leaf(tree)):
        return [] if isinstance(tree, Held) else [tree]
    branches = [tree[key] for key in sorted(tree)] if isinstance(tree, dict) else tree or ()
    return [leaf for branch in branches for leaf in tree_leaves(branch, is_leaf)]

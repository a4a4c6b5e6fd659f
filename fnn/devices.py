"""Arrays on several devices: how the examples of a batch are divided, and types that say where arrays lie.

Arrays lie on a mesh, a grid of devices with the axes "data" and "model"; `sharding` places them. What follows from
where they lie is decided by JAX's compiler. So it is on explicit axes too (`jax.sharding.AxisType.Explicit`), on which
it would otherwise be part of each array's type: every public function of arrays is decorated by `on_any_axes`.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .backend import Record, is_jax, is_traced, jax, tree_leaves, tree_map

_T = TypeVar("_T", bound=Callable)

DATA = "data"  # the axis of a mesh over which the examples of a batch are divided


class Spread(NamedTuple):
    """How the examples of a batch are divided over devices: their number, and the sharding of arrays (K, B, ...)."""

    devices: int
    sharding: Any


def spread_of(array):
    """How batches of an array are divided: over the axis "data" of the mesh that it lies on; None if there is none."""
    if not is_jax(array) or is_traced(array) or not isinstance(array.sharding, jax.sharding.NamedSharding):
        return None
    mesh = array.sharding.mesh
    return Spread(mesh.shape[DATA], _sharding(mesh, None, DATA)) if DATA in mesh.shape else None


def is_divided(array):
    """Whether the examples of a batch are divided over several devices, known or traced."""
    mesh = _mesh(array)
    return mesh is not None and mesh.shape.get(DATA, 1) > 1


def spread(tree, how):
    """Arrays (K, B, ...), each device with its examples of each batch."""
    return tree if how is None else jax.lax.with_sharding_constraint(tree, how.sharding)


def on_each(tree, how):
    """Arrays that each device computes as a whole, such as the indices of the next examples: none asks another one."""
    return tree if how is None else jax.lax.with_sharding_constraint(tree, _sharding(how.sharding.mesh))


# ---- explicit axes ---------------------------------------------------------------------------------------------------


def on_any_axes(f: _T) -> _T:
    """A decorator for a function of arrays, or one that makes such a function: within it all axes are automatic.

    Arrays on explicit axes are taken for arrays on automatic ones, which moves nothing; the first array of an argument
    says which it has. If the first argument on a mesh has explicit axes, so has the result. It lies where the compiler
    put it or, while a program is traced, where the argument of its structure and shapes lies; else it is divided as the
    examples are, if it has an entry for each; else it is on every device.
    """

    @functools.wraps(f)
    def call(*args, **options):
        meshes = [m for argument in (*args, *options.values()) if (m := _mesh(_first(argument))) is not None]
        result = _within(f, args, options, meshes) if any(map(_is_explicit, meshes)) else f(*args, **options)
        return on_any_axes(result) if inspect.isfunction(result) else result

    return call  # type: ignore[return-value]


def _within(f, args, options, meshes):
    """`f(*args, **options)` on automatic axes, with the result on those of the first of the meshes."""
    explicit, kind = next(filter(_is_explicit, meshes)), jax.sharding.AxisType.Auto
    automatic = explicit.update(axis_types=(kind,) * len(explicit.axis_names))
    known = not is_traced(*tree_leaves((args, options))) and jax.sharding.get_abstract_mesh().empty
    with contextlib.nullcontext() if known else jax.sharding.use_abstract_mesh(automatic):
        within_args, within_options = tree_map(lambda a: _moved(a, explicit, automatic), (args, options))
        result = f(*within_args, **within_options)
    if meshes[0] != explicit:
        return result
    own = [tree for argument in (*args, *options.values()) for tree in (getattr(argument, "params", ()), argument)]
    models = {_outline(tree): tree for tree in own if any(map(is_jax, tree_leaves(tree)))}
    divided = {np.shape(leaf)[:1]: _spec(leaf)[:1] for leaf in tree_leaves(own) if _spec(leaf)[:1]}

    def place(node):
        if (model := models.get(_outline(node))) is not None:
            return tree_map(lambda a, b: _moved(a, automatic, explicit, _spec(b)), node, model)
        return _moved(node, automatic, explicit, divided.get(np.shape(node)[:1], ()))

    return tree_map(place, result, is_leaf=lambda node: _outline(node) in models)


def _first(tree):
    """The first array of an argument: to look at all of them would take a tenth of a small step's time."""
    if isinstance(tree, tuple):
        for branch in tree:  # in half the time of next()
            if (found := _first(branch)) is not None:
                return found
        return None
    if isinstance(tree, _NODES):
        return _first(next(iter(tree.values() if isinstance(tree, dict) else tree), None))
    return tree if hasattr(tree, "dtype") else None


_NODES = (list, dict, Record)


def _outline(tree):
    return jax.tree.structure(tree), tuple(map(np.shape, tree_leaves(tree)))


def _moved(array, start, end, spec=()):
    """An array on a mesh as one on a mesh of the same devices; one that is traced is divided as `spec` says."""
    if _mesh(array) != start:
        return array
    if is_traced(array):
        return jax.sharding.reshard(array, _sharding(end, *spec))
    own = array.sharding
    mesh = jax.sharding.Mesh(own.mesh.devices, own.mesh.axis_names, axis_types=end.axis_types)
    parts = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, _sharding(mesh, *own.spec), parts)


def _mesh(array):
    """The mesh that a JAX array lies on, without its devices; None if there is none."""
    if not is_jax(array):
        return None
    own = jax.typeof(array).sharding if is_traced(array) else array.sharding
    return own.mesh.abstract_mesh if isinstance(own, jax.sharding.NamedSharding) and not own.mesh.empty else None


def _spec(array):
    return tuple(jax.typeof(array).sharding.spec) if is_jax(array) else ()


def _is_explicit(mesh):
    return jax.sharding.AxisType.Explicit in mesh.axis_types


def _sharding(mesh, *spec):
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

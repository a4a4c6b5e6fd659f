"""A batch on several devices: how its examples are divided, and arrays whose types say where they lie.

Arrays lie on a mesh, a grid of devices with the axes "data" and "model"; `sharding` places them. What follows from
where they lie is decided by JAX's compiler, except for the batches that a run gathers: those are divided here.
"""

from typing import Any, NamedTuple

from .backend import is_jax, is_traced, jax, tree_leaves, tree_map

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
    if DATA not in mesh.shape:
        return None
    return Spread(mesh.shape[DATA], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, DATA)))


def spread(tree, how):
    """Arrays (K, B, ...), each device with its examples of each batch."""
    return tree if how is None else tree_map(lambda a: _lay_out(a, how.sharding), tree)


def on_each(tree, how):
    """Arrays that each device computes as a whole, such as the indices of the next examples: none asks another one."""
    if how is None:
        return tree
    everywhere = jax.sharding.NamedSharding(how.sharding.mesh, jax.sharding.PartitionSpec())
    return tree_map(lambda a: _lay_out(a, everywhere), tree)


def automatically(f, args, like):
    """`f(*args)`, in which the compiler decides where arrays lie, also where their types say it (explicit axes).

    Args:
        f: a function of trees of arrays.
        args: its arguments.
        like: what the result is nested as, down to trees of arrays that lie as it does; None for what each device has.

    Returns:
        The result.
    """
    own = [jax.typeof(leaf).sharding for leaf in tree_leaves(args) if is_jax(leaf)]
    mesh = next((sharding.mesh for sharding in own if _is_explicit(sharding.mesh)), None)
    if mesh is None:
        return f(*args)
    spec = lambda a: jax.sharding.PartitionSpec() if a is None else jax.typeof(a).sharding.spec
    lies = tree_map(lambda a: jax.sharding.NamedSharding(mesh, spec(a)), like, is_leaf=lambda a: a is None)
    return jax.sharding.auto_axes(f, out_sharding=lies)(*args)


def _is_explicit(mesh):
    return jax.sharding.AxisType.Explicit in mesh.axis_types


def _lay_out(array, sharding):
    if _is_explicit(sharding.mesh):
        return jax.sharding.reshard(array, sharding)
    return jax.lax.with_sharding_constraint(array, sharding)

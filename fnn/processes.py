"""Arrays on the devices of several processes, which all run the same program (`jax.distributed`).

Each process sees its own part of such an array, and operations on it have to be called by all processes. What every
process can compute by itself, such as the order of examples from the key, needs no communication.
"""

from typing import Any

import numpy as np

from . import backend, trees
from .errors import CheckpointError


def all_here(*parts: Any) -> bool:
    """Whether no array of these trees has a part in another process."""
    arrays = [leaf for part in parts for leaf in trees.leaves(part) if backend.is_jax(leaf)]
    return all(backend.is_traced(array) or array.is_fully_addressable for array in arrays)


def index_and_count() -> tuple[int, int]:
    """Which process this is, and of how many; the first one writes files for all."""
    jax = backend.jax
    if jax is None or not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()


def put(array: Any, sharding: Any) -> Any:
    """An array on a mesh. If other processes have devices of it, each fills its own, and they exchange nothing."""
    jax = backend.jax
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if not all_here(array):
        return _moved(array, sharding)
    is_key = backend.is_jax(array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    values = array if is_key else np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: values[index])


def put_like(tree: Any, model: Any) -> Any:
    """The tree, each array on the mesh where that in its place of `model`, a tree of the same structure, lies."""

    def place(array, like):
        placed = backend.is_jax(like) and isinstance(like.sharding, backend.jax.sharding.NamedSharding)
        return put(array, like.sharding) if placed else array

    return tree if backend.jax is None else backend.jax.tree.map(place, tree, model)


def whole(tree: Any) -> Any:
    """The tree, in which each array that is divided among processes becomes one that all have; all processes call it.

    >>> whole({"w": np.ones(2)})
    {'w': array([1., 1.])}
    """

    def gathered(array):
        if all_here(array) or array.is_fully_replicated:
            return array
        return _moved(array, backend.jax.sharding.NamedSharding(array.sharding.mesh, _spec()))

    return tree if all_here(tree) else backend.jax.tree.map(gathered, tree)


def of_each(number: int) -> list[int]:
    """This number of each process, once for each of its devices, in every process; all processes call it."""
    jax = backend.need_jax("several processes")
    sharding = jax.sharding.NamedSharding(jax.make_mesh((jax.device_count(),), ("device",)), _spec("device"))
    numbers = put(np.full(jax.device_count(), number, np.int32), sharding)
    return np.asarray(whole(numbers)).tolist()


def of_each_part(array: Any, f: Any) -> list[int]:
    """`f(part)`, below 2³², of each part of an array along its first axis, in order; all processes call it.

    Each computes f of its own parts, and only the numbers are exchanged.
    """
    own = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    size = len(next(iter(own.values())))
    found = {start // size: np.array([f(part)], np.uint32) for start, part in own.items()}
    sharding = backend.jax.sharding.NamedSharding(array.sharding.mesh, _spec(*array.sharding.spec[:1]))
    place = lambda index: found[index[0].start or 0]
    return np.asarray(whole(backend.jax.make_array_from_callback((len(array) // size,), sharding, place))).tolist()


def check_agreed(what: str, number: int) -> None:
    """Raise in every process unless this number is the same in all of them, which have to call it."""
    if len(set(numbers := of_each(number))) > 1:
        raise CheckpointError(f"{what}: expected the same in every process, got {numbers}")


def _moved(array, sharding):
    return backend.jax.jit(lambda array: array, out_shardings=sharding)(array)


def _spec(*axes):
    return backend.jax.sharding.PartitionSpec(*axes)

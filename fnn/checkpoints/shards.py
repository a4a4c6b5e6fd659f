"""A checkpoint in several files, one from each process, for arrays that no process has as a whole.

    shards-0-of-2.npz      the parts of arrays that the first process has, and everything that is not divided
    shards-1-of-2.npz      the parts that the second has

Each file is one of `save`, with all its checks. A divided array is `Shards` in it, and what another file has is None.
"""

import math
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import backend, files, processes, trees
from ..errors import CheckpointError
from .archive import Checkpoint, load, save

_NAME = re.compile(r"shards-([0-9]+)-of-([0-9]+)\.npz")


class Shards(NamedTuple):
    """Parts of an array.

    shape         that of the whole array
    parts         the parts
    starts        where each of them begins, along each axis
    """

    shape: tuple
    parts: tuple
    starts: tuple


def save_shards(folder: str | os.PathLike, tree: Any, *, net: Any = None, metadata: dict | None = None) -> None:
    """Write a tree into a folder, each process the parts of arrays that it has; all processes call it.

    Nothing is collected: an array that is divided over a mesh is written in its parts, and read on any other mesh. All
    processes write to the same folder, a new one for each state that is saved.

    Args:
        folder: the folder; made if it is missing.
        tree: as for `save`.
        net: the network that the tree belongs to. Default: none.
        metadata: a dict that JSON can hold. Default: empty.

    Raises:
        CheckpointError: the file cannot be written.
        KindError: the tree, the network or the metadata hold something that cannot be saved.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_shards(folder, {"w": np.ones(3)})
    ...     load_shards(folder, backend="numpy").tree
    {'w': array([1., 1., 1.])}
    """
    index, count = processes.index_and_count()
    with files.errors_as(CheckpointError, f"{files.shown(folder)}: not a folder to write to"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    tree = trees.map(lambda leaf: _own_part(leaf, index), tree)
    name = secrets.randbits(31)  # of this call, that of the first process
    about = {"metadata": metadata or {}, "save": name if count == 1 else processes.of_each(name)[0]}
    save(Path(folder) / f"shards-{index}-of-{count}.npz", tree, net=net, metadata=about)


def load_shards(
    folder: str | os.PathLike, *, layers: Mapping[str, type] | None = None, backend: str | None = None
) -> Checkpoint:
    """Read what `save_shards` wrote, as whole arrays, which may be placed on any mesh.

    Args:
        folder: the folder.
        layers: classes by name, as for `load`.
        backend: "jax" or "numpy" (default: that of new keys).

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: files are missing, corrupt, or not from one call of `save_shards`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_shards(folder, [np.zeros(2)], metadata={"step": 7})
    ...     load_shards(folder, backend="numpy").metadata
    {'step': 7}
    """
    paths = {path: match for path in sorted(Path(folder).glob("*")) if (match := _NAME.fullmatch(path.name))}
    counts = {int(match[2]) for match in paths.values()}
    if len(counts) != 1 or len(paths) != max(counts):
        names = ", ".join(path.name for path in paths) or "none"
        raise CheckpointError(f"{files.shown(folder)}: expected all files of one call of save_shards, got {names}")
    first, *rest = (load(path, layers=layers, backend=backend) for path in paths)
    if any(other.metadata.get("save") != first.metadata.get("save") for other in rest):
        raise CheckpointError(f"{files.shown(folder)}: expected files of one call of save_shards, got those of several")
    tree = _joined([checkpoint.tree for checkpoint in (first, *rest)], files.shown(folder))
    return Checkpoint(tree, first.net, first.metadata["metadata"])


def _own_part(leaf, index):
    """What this process writes of a leaf: parts of a divided array, and the first process all else."""
    if not backend.is_jax(leaf) or leaf.is_fully_replicated:
        return leaf if index == 0 else None
    own = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    starts = tuple(tuple(axis.start or 0 for axis in shard.index) for shard in own)
    return Shards(leaf.shape, tuple(np.asarray(shard.data) for shard in own), starts)


def _joined(nodes, folder):
    """A tree from those of all files."""
    first = next((node for node in nodes if node is not None), None)
    if isinstance(first, Shards):
        pairs = [pair for node in nodes for pair in zip(node.starts, node.parts, strict=True)]
        if sum(part.size for _, part in pairs) != math.prod(first.shape):
            raise CheckpointError(f"{folder}: expected the parts of an array of shape {first.shape}, got others")
        array = np.empty(first.shape, pairs[0][1].dtype)
        for start, part in pairs:
            array[tuple(map(slice, start, np.add(start, part.shape)))] = part
        xp = backend.namespace(pairs[0][1])
        return trees.lock(array) if xp is np else backend.ready(xp.asarray(array))
    if isinstance(first, dict):
        return {key: _joined([node[key] for node in nodes], folder) for key in first}
    if not isinstance(first, tuple | list | backend.Record):
        return first
    values = [_joined(parts, folder) for parts in zip(*nodes, strict=True)]
    if isinstance(first, backend.Record):
        return first._make(values)
    return values if isinstance(first, list) else tuple.__new__(type(first), values)

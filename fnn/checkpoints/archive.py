"""The file of a checkpoint: an .npz with a manifest, written as a whole and read with every check."""

import contextlib
import functools
import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .. import files
from ..backend import jnp
from ..errors import CheckpointError, FnnError, KindError, shorten, usage
from . import arrays, text
from .tree import Source, array_names, describe, restore

VERSION = 2
"""The version of the file format, written into each file; a file of a later version is refused."""
_MANIFEST, _LARGEST_MANIFEST = "manifest.json", 16 * 2**20  # bytes
_FORMAT = "fnn checkpoint"
_Path = str | os.PathLike


class Checkpoint(NamedTuple):
    """What a file holds: the tree, the network (None if none was saved), and the metadata.

    >>> Checkpoint({"w": np.ones(2)}, None, {"epoch": 7}).metadata
    {'epoch': 7}
    """

    tree: Any
    net: Any
    metadata: dict


# ---- saving ----------------------------------------------------------------------------------------------------------


@usage("fnn.checkpoints.save(path, params, net=net)")
def save(path: _Path, tree: Any, *, net: Any = None, metadata: dict | None = None) -> None:
    """Write a tree, such as parameters or a `TrainState`, into one file: completely, or not at all.

    The file is written beside the target and then renamed over it, so the old file stays until the new one is complete
    and has been read back. A file that is replaced keeps its permissions.

    Args:
        path: the file. A symbolic link is followed; a pipe, a device or a folder is refused.
        tree: tuples, NamedTuples, lists and dicts (with strings as keys), nested at most 100 levels deep, of arrays,
            random keys, numbers, strings and None. Arrays within `Host` are loaded as NumPy arrays on either backend.
        net: the network that the tree belongs to (default: none). One with a `Function` cannot be saved.
        metadata: a dict that JSON can hold (default: empty).

    Raises:
        CheckpointError: the file cannot be written; an earlier one is then unchanged.
        KindError: the tree, the network or the metadata hold something that cannot be saved.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/run.npz", {"w": np.ones(3)}, metadata={"epoch": 7})
    ...     load(f"{folder}/run.npz", backend="numpy")
    Checkpoint(tree={'w': array([1., 1., 1.])}, net=None, metadata={'epoch': 7})
    """
    files.check_path(path)
    description = describe(tree)
    headers = {name: arrays.header(name, leaf, name in description.hosts) for name, leaf in description.leaves.items()}
    values = {name: arrays.stored(name, leaf) for name, leaf in description.leaves.items()}
    for name, array in values.items():
        headers[name]["sha256"] = hashlib.sha256(array.data).hexdigest()
    text.add_classes(description.statics, text.own_classes(net))
    own = {"tuples": description.tuples, "statics": description.statics}
    manifest = {
        "format": _FORMAT,
        "version": VERSION,
        "tree": description.root,
        "arrays": headers,
        "net": None if net is None else text.text_of(net),
        "own": {kind: sorted(n for n, cls in of.items() if not text.is_fnns(cls)) for kind, of in own.items()},
        "metadata": _check_metadata({} if metadata is None else metadata),
        "libraries": _libraries(),
    }
    encoded = json.dumps(manifest, indent=1)
    with files.replacing(path) as file:
        if len(encoded) > _LARGEST_MANIFEST:
            raise ValueError(f"a manifest of {len(encoded)} bytes is too large; save fewer nodes, or less metadata")
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo(_MANIFEST), encoded)
            for name, array in values.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        with _manifest_and_arrays(file) as written:
            for name in values:
                written.array(name)


def check_tree(tree: Any) -> None:
    """Raise `KindError` if `save` would refuse this tree."""
    for name, leaf in describe(tree).leaves.items():
        arrays.header(name, leaf)


def _check_metadata(metadata):
    try:
        if not isinstance(metadata, dict) or json.loads(json.dumps(metadata, allow_nan=False)) != metadata:
            raise ValueError
    except (TypeError, ValueError, RecursionError):
        raise KindError(f"metadata: expected a dict that JSON can hold, got {shorten(metadata)}") from None
    return metadata


@functools.cache
def _libraries():
    from importlib.metadata import PackageNotFoundError, version  # takes as long to import as all of fnn

    versions = {"python": platform.python_version()}
    for package in ("fnn", "numpy", "jax"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


# ---- loading ---------------------------------------------------------------------------------------------------------


def load(
    path: _Path, *, like: Any = None, layers: Mapping[str, type] | None = None, backend: str | None = None
) -> Checkpoint:
    """Read a file that `save` wrote.

    Classes are found by their names: fnn's own, and classes of yours that are defined, which are called with what the
    file says. Files are treated as untrusted: loading never executes code from them.

    Args:
        path: the file.
        like: a tree whose structure, classes, shapes, dtypes and choices the file must have (default: anything); `...`
            in it stands for any part. An optimizer of Optax is taken from it.
        layers: classes by name, such as `{"Mine": Mine}`, for those that are not defined elsewhere, or more than once.
        backend: "jax" or "numpy" (default: that of new keys). On NumPy bfloat16 becomes float32.

    Returns:
        A `Checkpoint`. Its NumPy arrays are read-only.

    Raises:
        CheckpointError: the file is not a checkpoint, or is corrupt.
        ShapeError: it differs from `like`; the message lists what is missing, unexpected or of another shape or dtype.
        ArgumentError: a class is unknown or ambiguous, or an array does not fit the backend.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/run.npz", [np.ones(3), None])
    ...     load(f"{folder}/run.npz", like=[np.zeros(3), None], backend="numpy").tree
    [array([1., 1., 1.]), None]
    """
    chosen, given = arrays.backend_name(backend), text.given_classes(layers)
    with _opened(path) as opened:
        nodes = {}
        if like is not None and like is not ...:
            wanted = describe(like, like=True)
            nodes, given = wanted.nodes, given | wanted.tuples | wanted.statics
            headers = {name: arrays.header(name, leaf) for name, leaf in wanted.leaves.items()}
            arrays.compare(opened.path, _outside(opened.manifest["arrays"], nodes), headers)
        source = opened.source(chosen, given, nodes)
        tree = restore(opened.manifest["tree"], "", source)
        return Checkpoint(tree, opened.net(source), opened.manifest["metadata"])


def load_network(
    path: _Path, *, layers: Mapping[str, type] | None = None, backend: str | None = None
) -> tuple[Any, Any]:
    """Read the network and its parameters from a file that was saved with `net=`.

    Args:
        path: the file. Its tree is the parameters, a `TrainState`, or a run that `fit(checkpoint=...)` keeps, of which
            the parameters are those that `fit` returns: with `patience` those after the best epoch so far.
        layers: classes by name, as for `load`.
        backend: "jax" or "numpy" (default: that of new keys).

    Returns:
        `(net, params)`, ready for `net.apply(params, x)`.

    Raises:
        CheckpointError: the file holds no network, is not a checkpoint, or is corrupt.
        ArgumentError: a class is unknown or ambiguous, or an array does not fit the backend.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> from fnn import Dense, random
    >>> net = Dense(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/net.npz", net.init(random.key(0, backend="numpy"), (3,)), net=net)
    ...     again, params = load_network(f"{folder}/net.npz", backend="numpy")
    >>> again, params.w.shape
    (Dense(2), (2, 3))
    """
    chosen, given = arrays.backend_name(backend), text.given_classes(layers)
    with _opened(path) as opened:
        node, place = opened.manifest["tree"], ""
        if opened.manifest["net"] is None:
            raise CheckpointError(f"{opened.path}: expected a file saved with its network: save(path, tree, net=net)")
        run = dict(node.get("dict", ()))  # what `fit` keeps
        state = next((run[name] for name in ("best", "state") if "class TrainState" in run.get(name, ())), node)
        if "class TrainState" in state:
            node, place = dict(state["class TrainState"])["params"], "params"
        source = opened.source(chosen, given, {})
        params = restore(node, place, source)
        return opened.net(source), params


def metadata_of(path: _Path) -> dict:
    """The metadata of a file, without its arrays; raises as `load` does."""
    with _opened(path) as opened:
        return opened.manifest["metadata"]


def _outside(headers, nodes):
    """The headers of all arrays but those for which `...` stands."""
    free = tuple(place.removeprefix(".") for place, node in nodes.items() if node is ...)
    covered = lambda name: any(place in ("", name) or name.startswith((f"{place}.", f"{place}[")) for place in free)
    return {name: header for name, header in headers.items() if not covered(name)}


# ---- the file, checked -----------------------------------------------------------------------------------------------


class _Opened(NamedTuple):
    """A checkpoint that is open: its path for messages, the zip archive, and the manifest, which has been checked."""

    path: Any
    archive: zipfile.ZipFile
    manifest: dict

    def array(self, name):
        """An array as it is stored, after every check."""
        header = self.manifest["arrays"][name]
        dtype, shape = arrays.DTYPES[header["dtype"]], tuple(header["shape"])
        data = self.archive.read(f"{name}.npy")
        stream = io.BytesIO(data)
        if files.npy_header(stream) != (shape, False, dtype):
            raise ValueError(f"the array {name} does not have the shape and dtype in the manifest")
        values = memoryview(data)[stream.tell() :]
        if hashlib.sha256(values).hexdigest() != header["sha256"]:
            raise ValueError(f"the array {name} does not have the SHA-256 in the manifest")
        return np.frombuffer(values, dtype).reshape(shape)

    def source(self, chosen, given, nodes):
        """What `restore` needs: arrays on the chosen backend, and classes."""
        headers, own = self.manifest["arrays"], self.manifest.get("own", {"tuples": (), "statics": ()})
        array = lambda name: arrays.placed(self.array(name), headers[name], chosen, f"{self.path}: {name}")
        tuples, statics = text.tuples(given, own["tuples"]), text.statics(given, own["statics"])
        return Source(self.path, array, tuples, statics, nodes, np if chosen == "numpy" else jnp)

    def net(self, source):
        """The network, or None if there is none."""
        if self.manifest["net"] is None:
            return None
        try:
            return text.rebuild(self.manifest["net"], source.statics)
        except FnnError as error:
            raise error.at(f"{self.path}: net") from None


@contextlib.contextmanager
def _opened(path: Any) -> Iterator[_Opened]:
    """A checkpoint, opened for reading; whatever goes wrong with it is a `CheckpointError`."""
    with files.reading(path, CheckpointError, "a valid checkpoint") as file, _manifest_and_arrays(file) as opened:
        yield opened._replace(path=files.shown(path))


@contextlib.contextmanager
def _manifest_and_arrays(file: BinaryIO) -> Iterator[_Opened]:
    with files.open_archive(file) as (archive, members):
        if any(info.compress_type for info in members.values()):
            raise ValueError("it has members that are compressed")
        if _MANIFEST not in members or members[_MANIFEST].file_size > _LARGEST_MANIFEST:
            raise ValueError("its manifest is missing or too large")
        manifest = json.loads(archive.read(_MANIFEST).decode())
        _check(manifest)
        stored = {name.removesuffix(".npy") for name in members} - {_MANIFEST}
        if stored != set(manifest["arrays"]):
            raise ValueError(f"it has missing or unexpected arrays: {sorted(stored ^ set(manifest['arrays']))}")
        yield _Opened("", archive, manifest)


def _check(manifest):
    """Raise unless the manifest has the form that `save` gives it."""
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ValueError("it was not written by fnn")
    version = manifest.get("version")
    if type(version) is not int or version > VERSION:
        raise ValueError(f"it has version {shorten(version)} of the format, and this fnn reads {VERSION}: update fnn")
    kinds = {"tree": dict, "arrays": dict, "net": str | None, "metadata": dict, "libraries": dict}
    kinds |= {"own": dict} if version > 1 else {}
    if version < 1 or any(name not in manifest or not isinstance(manifest[name], kind) for name, kind in kinds.items()):
        raise ValueError("its manifest is incomplete")
    for name, header in manifest["arrays"].items():
        shape = header["shape"]
        fits = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**63 for size in shape)
        known = header["kind"] in arrays.KINDS and header["dtype"] in arrays.DTYPES
        if not (fits and known and isinstance(header["sha256"], str)):
            raise ValueError(f"it has a header that makes no sense: {name}")
    names = array_names(manifest["tree"])  # one that is used many times would take many times its memory
    if sorted(map(repr, names)) != sorted(map(repr, manifest["arrays"])):
        raise ValueError("its tree does not hold each array once")
    own = manifest.get("own", {"tuples": [], "statics": []})
    if not all(isinstance(own[kind], list) and set(map(type, own[kind])) <= {str} for kind in ("tuples", "statics")):
        raise ValueError("its manifest is incomplete")

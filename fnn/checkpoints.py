"""Checkpoints: a tree of arrays in one file that is never half-written, never silently wrong, and runs nobody's code.

The file is an .npz, a zip archive without compression, so that NumPy alone can read it:

    manifest.json         the version of this format; the tree; of each array its shape, dtype, kind and SHA-256; the
                          network as text that rebuilds it; the caller's metadata; versions of the libraries
    params[0].w.npy ...   an array for each leaf, named by its place: bfloat16 as the uint16 of its bits, a key as words

`save` writes it beside the target, syncs it, reads it back, and renames it over the target: whoever looks finds the old
file or the new one. `load` believes nothing that a file says: it reads no more than the file has bytes, looks classes
up among fnn's own and those that the caller names, and compares the SHA-256 of every array. Nothing is pickled.
"""

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import (
    activations,
    backend,
    initializers,
    layers,
    losses,
    networks,
    optimizers,
    random,
    schedules,
    training,
    trees,
)
from .errors import ArgumentError, CheckpointError, FnnError, KindError, ShapeError, shorten
from .static import Static, rebuild

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted anyway
    fcntl: Any = None

VERSION = 1
_MANIFEST, _LARGEST_MANIFEST = "manifest.json", 16 * 2**20  # bytes
_DTYPES = {
    np.dtype(name).name: np.dtype(name).newbyteorder("<")
    for name in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
} | {"bfloat16": np.dtype("<u2")}


class Checkpoint(NamedTuple):
    """What a file holds: the tree, the network (None where none was saved), and the metadata that came with them."""

    tree: Any
    net: Any
    metadata: dict


def save(path, tree, *, net=None, metadata=None):
    """Write a tree, such as parameters or a `TrainState`, into one file: whole, or not at all.

    A tree is tuples, NamedTuples, lists and dicts (with text as keys) of arrays, numbers, text and None. `net` is the
    network that belongs to it; one with a `Function` has no text that rebuilds it, and is refused. `metadata` is a dict
    that JSON can hold. Raises `CheckpointError` where it cannot be written; the file that was there is then untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder) / "run.npz", {"w": np.ones(3)}, metadata={"epoch": 7})
    ...     load(Path(folder) / "run.npz", backend="numpy")
    Checkpoint(tree={'w': array([1., 1., 1.])}, net=None, metadata={'epoch': 7})
    """
    path, leaves = Path(os.path.realpath(path)), {}
    nodes = _describe(tree, "", leaves)
    headers = {place: _header(place, leaf) for place, leaf in leaves.items()}
    arrays = {place: _stored(leaf) for place, leaf in leaves.items()}
    for place, array in arrays.items():
        headers[place]["sha256"] = hashlib.sha256(array.tobytes()).hexdigest()
    manifest = {
        "format": "fnn checkpoint",
        "version": VERSION,
        "tree": nodes,
        "arrays": headers,
        "net": None if net is None else text_of(net),
        "metadata": _plain(metadata or {}),
        "libraries": _libraries(),
    }
    written = json.dumps(manifest, indent=1)
    try:
        with _replacing(path) as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(zipfile.ZipInfo(_MANIFEST), written)
                for place, array in arrays.items():
                    with archive.open(zipfile.ZipInfo(f"{place}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
            with _opened(file, path) as read:
                for place in arrays:
                    read.array(place)
    except FnnError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not saved, and what was there is untouched: {error}") from error


def load(path, *, like=None, layers=None, backend=None):
    """A `Checkpoint` from a file that `save` wrote.

    With `like`, a tree, what is in the file must have its structure, shapes and dtypes (`...` stands for anything);
    what is missing, too much or of another shape is listed, and nothing is read. NamedTuples and layers of your own are
    named by you, `layers={"Mine": Mine}`, or lie in `like`; optimizers of Optax are taken from there. `backend` is
    "jax" or "numpy", by default that of new keys; bfloat16 becomes float32 on NumPy. Raises `CheckpointError` for a
    file that cannot be trusted.
    """
    chosen = _backend_name(backend)
    own = _named(layers)
    with open(path, "rb") as file, _opened(file, path) as read, _trusting_nobody(path):
        leaves, known = {}, {}
        if like is not None and like is not ...:
            _describe(like, "", leaves, known)
            free = [re.escape(place.removeprefix(".")) for place, node in known.items() if node is ...]
            below = re.compile(rf"({'|'.join(free)})([.\[]|$)" if free else "$.")
            found = {place: header for place, header in read.manifest["arrays"].items() if not below.match(place)}
            _compare(path, found, {place: _header(place, leaf) for place, leaf in leaves.items()})
            own |= {type(node).__name__: type(node) for node in known.values() if isinstance(node, tuple)}
        tree = _restore(read, read.manifest["tree"], "", {**_classes()[1], **own}, known, chosen)
        text = read.manifest["net"]
        net = None if text is None else rebuild(text, {**_classes()[0], **own})
    return Checkpoint(tree, net, read.manifest["metadata"])


_backend = backend  # `load` has an argument of the module's name


def load_network(path, *, layers=None, backend=None):
    """`(net, params)` of a file that was saved with its network: ready to apply, on NumPy alone too.

    The tree may be the parameters, a whole `TrainState`, or what `fit(checkpoint=...)` keeps. Only fnn's own classes
    are rebuilt by name; your own layers are named by you: `layers={"Mine": Mine}`.

    >>> import tempfile
    >>> from fnn import Dense
    >>> net = Dense(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "net.npz"
    ...     save(path, net.init(random.key(0, backend="numpy"), (3,)), net=net)
    ...     again, params = load_network(path, backend="numpy")
    >>> again, params.w.shape
    (Dense(2), (2, 3))
    """
    chosen, own = _backend_name(backend), _named(layers)
    with open(path, "rb") as file, _opened(file, path) as read, _trusting_nobody(path):
        text, node, place = read.manifest["net"], read.manifest["tree"], ""
        if text is None:
            raise CheckpointError(f"{path}: expected a file saved with its network, fnn.checkpoints.save(..., net=net)")
        state = dict(node.get("dict", ())).get("state", node)  # of a run that `fit` keeps
        if "class TrainState" in state:
            node, place = dict(state["class TrainState"])["params"], "params"
        params = _restore(read, node, place, {**_classes()[1], **own}, {}, chosen)
        return rebuild(text, {**_classes()[0], **own}), params


# ---- a tree as JSON, and back ----------------------------------------------------------------------------------------


def _describe(node, place, leaves, known=None):
    """What JSON can hold of a tree. Its arrays come into `leaves`, by name; all its nodes into `known`, by place."""
    if known is not None:
        known[place] = node
        if node is ...:
            return {}
    if node is None or isinstance(node, bool | int | str) or (isinstance(node, float) and math.isfinite(node)):
        return {"value": node}
    if isinstance(node, float):
        return {"float": repr(node)}
    if isinstance(node, tuple | list | dict):
        inner = [[key, _describe(child, at, leaves, known)] for key, at, child in _children(node, place)]
        return {f"class {type(node).__name__}" if hasattr(node, "_fields") else type(node).__name__: inner}
    if isinstance(node, backend.Held):
        return {"held": shorten(node)}
    name = place.removeprefix(".") or "array"
    if name in leaves:
        raise ArgumentError(f"{name}: expected places that differ, got two of this name")
    leaves[name] = node
    return {"array": name}


def _children(node, place):
    """`(key, place, child)` of all that lies in a node."""
    if isinstance(node, dict):
        if not all(isinstance(key, str) for key in node):
            raise KindError(f"{place or 'the tree'}: expected text as keys, got {shorten(list(node))}")
        return [(key, f"{place}[{key!r}]", child) for key, child in node.items()]
    if hasattr(node, "_fields"):
        return [(name, f"{place}.{name}", child) for name, child in zip(node._fields, node, strict=True)]
    return [(i, f"{place}[{i}]", child) for i, child in enumerate(node)]


def _header(place, leaf):
    """Shape, dtype and kind of an array of either backend, or of what stands for one."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        raise KindError(f"{place}: expected an array, a number, text or None, got {shorten(leaf)}")
    kind = "array"
    if _is_key(leaf):
        kind, words = (
            f"key {backend.jax.random.key_impl(leaf)}",
            backend.jax.eval_shape(backend.jax.random.key_data, leaf),
        )
        shape, dtype = words.shape, words.dtype
    if dtype.name not in _DTYPES:
        raise KindError(f"{place}: expected an array of numbers, got dtype {dtype.name}")
    return {"shape": list(shape), "dtype": dtype.name, "kind": kind}


def _stored(leaf):
    """The NumPy array that is written."""
    array = np.asarray(backend.jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    whole, stored = np.ascontiguousarray(array).reshape(array.shape), _DTYPES[array.dtype.name]
    return whole.view(np.uint16) if array.dtype.name == "bfloat16" else whole.astype(stored, copy=False)


def _is_key(leaf):
    return backend.jax is not None and backend.jax.numpy.issubdtype(leaf.dtype, backend.jax.dtypes.prng_key)


def _restore(read, node, place, classes, known, chosen):
    """The tree of what `_describe` wrote."""
    if not isinstance(node, dict) or len(node) != 1:
        raise CheckpointError(f"{read.path}: {place or 'the tree'}: expected a node of a tree, got {shorten(node)}")
    ((kind, inner),) = node.items()
    match kind, inner:
        case "value", None | bool() | int() | float() | str():
            return inner
        case "float", "inf" | "-inf" | "nan":
            return float(inner)
        case "array", str():
            return read.on(chosen, inner)
        case "held", _ if place in known:
            return known[place]
        case "held", _:
            raise CheckpointError(f"{read.path}: {place} is {shorten(inner)}, of another library: load it with like=")
        case str(), list() if all(isinstance(pair, list) and len(pair) == 2 for pair in inner):
            return _gather(read, kind, inner, place, classes, known, chosen)
    raise CheckpointError(f"{read.path}: {place or 'the tree'}: expected a node of a tree, got {shorten(node)}")


def _gather(read, kind, pairs, place, classes, known, chosen):
    """A tuple, list, dict or NamedTuple of `[key, node]` pairs."""
    keys = [key for key, _ in pairs]
    name = kind.removeprefix("class ")
    fields = range(len(keys)) if kind in ("tuple", "list") else keys
    if kind == f"class {name}":
        if name not in classes:
            hint = f"; name your own: layers={{{name!r}: {name}}}"
            raise CheckpointError(f"{read.path}: {place or 'the tree'}: {shorten(name)} is no class of fnn's{hint}")
        fields = classes[name]._fields
    elif kind not in ("tuple", "list", "dict") or not all(isinstance(key, str) for key in keys if kind == "dict"):
        raise CheckpointError(f"{read.path}: {place or 'the tree'}: expected a node of a tree, got {shorten(kind)}")
    if keys != list(fields) or len(set(keys)) < len(keys):
        raise CheckpointError(
            f"{read.path}: {place or 'the tree'}: expected {shorten(list(fields))}, got {shorten(keys)}"
        )
    ends = {"tuple": "[{}]", "list": "[{}]", "dict": "[{!r}]"}
    values = [
        _restore(read, node, place + ends.get(kind, ".{}").format(key), classes, known, chosen) for key, node in pairs
    ]
    if kind == "dict":
        return dict(zip(keys, values, strict=True))
    if kind in ("list", "tuple"):
        return values if kind == "list" else tuple(values)
    made = tuple.__new__(classes[name], values)
    if classes[name] is training.TrainState:
        made = made._replace(key=random.like(made.key, np if chosen == "numpy" else _backend.jnp))
    return made


def _compare(path, found, expected):
    """Raise unless the arrays of the file are those expected, and say which are not."""
    shown = lambda header: f"{tuple(header['shape'])} {header['dtype']}"
    differ = [
        f"{place}: {shown(found[place])} in the file, {shown(header)} expected"
        for place, header in expected.items()
        if place in found and shown(found[place]) != shown(header)
    ]
    lists = {
        "missing": [place for place in expected if place not in found],
        "too much": [place for place in found if place not in expected],
        "of another shape or dtype": differ,
    }
    told = "; ".join(f"{what}: {', '.join(map(str, places))}" for what, places in lists.items() if places)
    if told:
        raise ShapeError(f"{path}: expected the arrays of `like`; {told}")


# ---- the network as text, and what classes there are -----------------------------------------------------------------


def text_of(net):
    """The network as text, after a look that it can be rebuilt from it."""
    text = repr(net)
    try:
        again = rebuild(text, own_classes(net))
    except FnnError as error:
        expected = f"net: expected a network that text can rebuild, got {shorten(net)}; save it without"
        raise KindError(expected) from error
    if again != net:
        raise KindError(f"net: expected a network that its text rebuilds, got {shorten(text)}")
    return text


def own_classes(thing):
    """The classes of a network and of all within it, by name."""
    inside = vars(thing).values() if isinstance(thing, Static) else thing if isinstance(thing, tuple) else ()
    found = {type(thing).__name__: type(thing)} if isinstance(thing, Static) else {}
    for value in inside:
        found |= own_classes(value)
    return found


@functools.cache
def _classes():
    """fnn's own classes by name: those of networks, and those of trees."""
    homes = (layers, networks, activations, losses, initializers, optimizers, schedules, training, trees)
    found = {}
    for home in homes:
        inside = [home, *(v for v in vars(home).values() if getattr(v, "__name__", "").startswith(f"{home.__name__}."))]
        for module in inside:
            found |= {n: c for n, c in vars(module).items() if isinstance(c, type)}
    statics = {n: c for n, c in found.items() if issubclass(c, Static)}
    return statics, {n: c for n, c in found.items() if issubclass(c, tuple) and hasattr(c, "_fields")}


def _named(given):
    """The caller's classes."""
    given = {} if given is None else given
    if not isinstance(given, dict) or not all(isinstance(thing, type) for thing in given.values()):
        raise KindError(f'layers: expected classes by name, such as {{"Mine": Mine}}, got {shorten(given)}')
    return dict(given)


def _plain(metadata):
    try:
        if not isinstance(metadata, dict) or json.loads(json.dumps(metadata, allow_nan=False)) != metadata:
            raise ValueError
    except (TypeError, ValueError, RecursionError):
        raise KindError(f"metadata: expected a dict that JSON can hold, got {shorten(metadata)}") from None
    return metadata


@functools.cache
def _libraries():
    from importlib.metadata import PackageNotFoundError, version  # takes as long to import as all of fnn

    found = {"python": platform.python_version()}
    for package in ("fnn", "numpy", "jax"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _backend_name(name):
    name = _backend.name if name is None else name
    if name not in ("jax", "numpy"):
        raise ArgumentError(f"backend: expected 'jax' or 'numpy', got {shorten(name)}")
    if name == "jax":
        _backend.need_jax("backend='jax'")
    return name


# ---- the file --------------------------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """A checkpoint that is open: its path, the zip archive, and the manifest, of which the outlines are checked."""

    path: Any
    archive: Any
    manifest: dict

    def array(self, place):
        """The array as it is stored, with every check."""
        header = self.manifest["arrays"][place]
        dtype, shape = _DTYPES[header["dtype"]], tuple(header["shape"])
        data = self.archive.read(f"{place}.npy")
        stream = io.BytesIO(data)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version of .npy")
        if np.lib.format.read_array_header_1_0(stream) != (shape, False, dtype):
            raise ValueError(f"{place} is not what the manifest says")
        values = memoryview(data)[stream.tell() :]
        if hashlib.sha256(values).hexdigest() != header["sha256"]:
            raise ValueError(f"{place} has another SHA-256 than when it was saved")
        return np.frombuffer(values, dtype).reshape(shape)

    def on(self, chosen, place):
        """The array on a backend."""
        if place not in self.manifest["arrays"]:
            raise CheckpointError(f"{self.path}: the array {shorten(place)} is missing")
        array = self.array(place)
        header = self.manifest["arrays"][place]
        array = array.astype(array.dtype.newbyteorder("="), copy=True)
        jax = _backend.jax
        if header["kind"].startswith("key "):
            if chosen == "numpy":
                return trees.locked(array)
            return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=header["kind"].removeprefix("key "))
        if header["dtype"] == "bfloat16":
            if chosen == "jax":
                return jax.numpy.asarray(array).view(jax.numpy.bfloat16)
            array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if chosen == "numpy":
            return trees.locked(array) if array.ndim else array[()]
        if array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1) > 4 and not jax.config.jax_enable_x64:
            raise ArgumentError(
                f"{self.path}: {place} is {array.dtype}, which JAX would cut: jax.config.update('jax_enable_x64', True)"
            )
        return jax.numpy.asarray(array)


@contextlib.contextmanager
def _trusting_nobody(path):
    """Whatever goes wrong in reading becomes a `CheckpointError`."""
    try:
        yield
    except FnnError:
        raise
    except Exception as error:  # zipfile, json and NumPy have a dozen ways to say that a file is broken
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint that can be trusted: {shorten(reason, 200)}") from error


@contextlib.contextmanager
def _opened(file, path):
    """A `_Reading` of an open file."""
    with contextlib.ExitStack() as stack:
        with _trusting_nobody(path):
            size = file.seek(0, os.SEEK_END)
            end = _end(file, size)
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = {info.filename: info for info in archive.infolist()}
            if any(info.compress_type or info.compress_size != info.file_size for info in members.values()):
                raise ValueError("members that are compressed")
            if len(members) < end or sum(info.file_size for info in members.values()) > size:
                raise ValueError("members that overlap, or have the same name")
            if members[_MANIFEST].file_size > _LARGEST_MANIFEST:
                raise ValueError("a manifest too large")
            manifest = json.loads(archive.read(_MANIFEST).decode())
            _check(manifest)
            stored = {name.removesuffix(".npy") for name in members} - {_MANIFEST}
            if stored != set(manifest["arrays"]):
                raise ValueError(f"arrays missing or too many: {sorted(stored ^ set(manifest['arrays']))}")
        yield _Reading(path, archive, manifest)


def _end(file, size):
    """How many members the archive says it has: few enough to look at, at the very end of the file."""
    file.seek(max(0, size - 22))
    end = file.read(22)
    if len(end) < 22 or end[:4] != b"PK\5\6":
        raise ValueError("cut off, or no zip archive")
    count, directory = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if directory > 2 * _LARGEST_MANIFEST or directory == 0xFFFFFFFF:
        raise ValueError("a directory too large")
    return count if count < 0xFFFF else 0


def _check(manifest):
    """Raise unless the manifest has the form that `save` gives it."""
    if not isinstance(manifest, dict) or manifest.get("format") != "fnn checkpoint":
        raise ValueError("no checkpoint of fnn's")
    version = manifest.get("version")
    if type(version) is not int or version > VERSION:
        raise ValueError(
            f"written in version {shorten(version)} of the format, and this fnn reads {VERSION}: update fnn"
        )
    kinds = {"tree": dict, "arrays": dict, "net": str | None, "metadata": dict, "libraries": dict}
    if version < 1 or any(name not in manifest or not isinstance(manifest[name], kind) for name, kind in kinds.items()):
        raise ValueError("a manifest that is incomplete")
    for place, header in manifest["arrays"].items():
        shape = header["shape"]
        fits = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**63 for size in shape)
        kind = re.fullmatch(r"array|key [a-z0-9]+", header["kind"])
        if not (fits and kind and header["dtype"] in _DTYPES and isinstance(header["sha256"], str)):
            raise ValueError(f"a header that makes no sense: {place}")


@contextlib.contextmanager
def _replacing(path):
    """A new file beside `path`, that takes its place if all goes well, and is gone if not."""
    _sweep(path.parent)
    partial, file = _create(path)
    try:
        with file:
            yield file
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    with contextlib.suppress(OSError, AttributeError):  # Windows cannot open a directory
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _create(path):
    """A file of a name that nobody has, locked as long as it is open, so that `_sweep` leaves it alone."""
    while True:
        partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
        file = open(partial, "x+b")  # noqa: SIM115 - closed by who asked for it
        if fcntl is None:
            return partial, file
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return partial, file
        file.close()  # swept away before it was locked


def _sweep(folder):
    """Delete what was being written when its process was killed."""
    for left in folder.glob(".*.????????.partial"):
        with contextlib.suppress(OSError), open(left, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(left)

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
    files,
    initializers,
    layers,
    losses,
    networks,
    normalization,
    optimizers,
    random,
    schedules,
    training,
    trees,
)
from .errors import ArgumentError, CheckpointError, FnnError, KindError, ShapeError, require, shorten
from .static import Static, rebuild

VERSION = 1
_MANIFEST, _LARGEST_MANIFEST = "manifest.json", 16 * 2**20  # bytes
_DTYPES = {
    np.dtype(name).name: np.dtype(name).newbyteorder("<")
    for name in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
} | {"bfloat16": np.dtype("<u2")}
_SAFETENSORS = {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"} | {
    f"{name[0].upper()}{8 * dtype.itemsize}": name for name, dtype in _DTYPES.items() if name[0] in "iuf"
}
_DIGEST = "fnn.sha256"  # in the metadata: the format has no checksum of its own


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
    with files.saving(path) as file:
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
    with open(path, "rb") as file, _opened(file, path) as read, _doubted(path):
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
        net = None if text is None else _network(path, text, own)
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
    with open(path, "rb") as file, _opened(file, path) as read, _doubted(path):
        text, node, place = read.manifest["net"], read.manifest["tree"], ""
        if text is None:
            raise CheckpointError(f"{path}: expected a file saved with its network, fnn.checkpoints.save(..., net=net)")
        state = dict(node.get("dict", ())).get("state", node)  # of a run that `fit` keeps
        if "class TrainState" in state:
            node, place = dict(state["class TrainState"])["params"], "params"
        params = _restore(read, node, place, {**_classes()[1], **own}, {}, chosen)
        return _network(path, text, own), params


def save_safetensors(path, params, *, metadata=None):
    """Write parameters into a file in the format safetensors, which PyTorch and others read: whole, or not at all.

    Args: `params`, a tree of arrays and nothing else, named in the file by their places: `params[0].w` is "0.w";
    `metadata`, a dict of text to text (default: none). A SHA-256 of names, shapes, dtypes and values is added to it.
    Raises `KindError` for what is no array that the format holds (keys, complex128), `ArgumentError` for two places of
    one name, `CheckpointError` where it cannot be written: the file that was there is then untouched.
    Source: Hugging Face, "Safetensors", the format.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors(Path(folder) / "net.safetensors", {"w": np.ones(3)})
    ...     load_safetensors(Path(folder) / "net.safetensors", {"w": np.zeros(3)}, backend="numpy")
    {'w': array([1., 1., 1.])}
    """
    library = require("safetensors.numpy", "safetensors")
    path, metadata = Path(os.path.realpath(path)), {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for item in metadata.items() for text in item):
        raise KindError(f"metadata: expected a dict of text to text, got {shorten(metadata)}")
    leaves, headers = _weights(params)
    arrays = {name: _stored(leaf) for name, leaf in leaves.items()}
    digest = _digest(headers, arrays)
    for name, header in headers.items():
        if header["dtype"] == "bfloat16":
            arrays[name] = arrays[name].view("bfloat16")
    with files.saving(path) as file:
        file.write(library.save(arrays, metadata | {_DIGEST: digest}))
        file.flush()
        os.fsync(file.fileno())
        with _doubted(path), library.safe_open(file.name, "numpy") as opened:
            found = _tensor_headers(opened)
            if found != headers or _digest(found, _tensors(file, found)) != digest:
                raise ValueError("what is read back is not what was written")


def load_safetensors(path, like, *, backend=None):
    """The tree `like`, filled with the arrays of a safetensors file, written by `save_safetensors` or anybody else.

    Args: `like`, a tree of arrays or of what stands for them (parameters, or `jax.eval_shape` of `init`), whose names
    (see `save_safetensors`), shapes and dtypes the file must have, and no others; `backend`, "jax" or "numpy" (default:
    that of new keys). On NumPy bfloat16 becomes float32, which `like` may say.
    Returns a tree of the structure of `like`.
    Raises `ShapeError`, before any array is read, that lists what is missing, too much or of another shape or dtype;
    `CheckpointError` for a file that is not whole, or has not the SHA-256 in its metadata, where it has one;
    `FileNotFoundError` for none. Source: as `save_safetensors`.

    >>> import safetensors.numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     safetensors.numpy.save_file({"0.w": np.ones(3)}, Path(folder) / "theirs.safetensors")
    ...     load_safetensors(Path(folder) / "theirs.safetensors", [{"w": np.zeros(3)}], backend="numpy")
    [{'w': array([1., 1., 1.])}]
    """
    library, chosen = require("safetensors.numpy", "safetensors"), _backend_name(backend)
    _, wanted = _weights(like)
    with open(path, "rb") as file, _doubted(path), library.safe_open(path, "numpy") as opened:
        headers = _tensor_headers(opened)
        widened = {
            name: header | {"dtype": "float32"}
            for name, header in headers.items()
            if chosen == "numpy" and header["dtype"] == "bfloat16" and wanted.get(name, header)["dtype"] == "float32"
        }
        _compare(path, headers | widened, wanted)
        arrays = _tensors(file, headers)
        if (opened.metadata() or {}).get(_DIGEST) not in (None, _digest(headers, arrays)):
            raise ValueError("another SHA-256 than when it was saved")
        return _by_name(lambda name, _: _on(chosen, arrays[name], headers[name], f"{path}: {name}"), like)


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


def _network(path, text, own):
    try:
        return rebuild(text, {**_classes()[0], **own})
    except FnnError as error:
        raise error.at(f"{path}: net") from None


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
    homes = (layers, normalization, networks, activations, losses, initializers, optimizers, schedules, training, trees)
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
        if files.npy_header(stream) != (shape, False, dtype):
            raise ValueError(f"{place} is not what the manifest says")
        values = memoryview(data)[stream.tell() :]
        if hashlib.sha256(values).hexdigest() != header["sha256"]:
            raise ValueError(f"{place} has another SHA-256 than when it was saved")
        return np.frombuffer(values, dtype).reshape(shape)

    def on(self, chosen, place):
        """The array on a backend."""
        if place not in self.manifest["arrays"]:
            raise CheckpointError(f"{self.path}: the array {shorten(place)} is missing")
        return _on(chosen, self.array(place), self.manifest["arrays"][place], f"{self.path}: {place}")


def _on(chosen, array, header, where):
    """An array, as it is stored, on a backend."""
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
        raise ArgumentError(f"{where} is {array.dtype}, which JAX would cut: jax.config.update('jax_enable_x64', True)")
    return jax.numpy.asarray(array)


def _doubted(path):
    return files.doubted(CheckpointError, f"{path}: not a checkpoint that can be trusted")


@contextlib.contextmanager
def _opened(file, path):
    """A `_Reading` of an open file."""
    with contextlib.ExitStack() as stack:
        with _doubted(path):
            archive, members = stack.enter_context(files.archive(file))
            if any(info.compress_type for info in members.values()):
                raise ValueError("members that are compressed")
            if members[_MANIFEST].file_size > _LARGEST_MANIFEST:
                raise ValueError("a manifest too large")
            manifest = json.loads(archive.read(_MANIFEST).decode())
            _check(manifest)
            stored = {name.removesuffix(".npy") for name in members} - {_MANIFEST}
            if stored != set(manifest["arrays"]):
                raise ValueError(f"arrays missing or too many: {sorted(stored ^ set(manifest['arrays']))}")
        yield _Reading(path, archive, manifest)


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


# ---- parameters as safetensors ---------------------------------------------------------------------------------------


def _by_name(f, node, name=""):
    """The tree with `f(name, leaf)` in the place of each leaf: its name is its place with dots, `0.w` for `[0].w`."""
    if node is None:
        return None
    if not isinstance(node, tuple | list | dict):
        return f(name or "array", node)
    inner = {key: _by_name(f, child, f"{name}.{key}" if name else str(key)) for key, _, child in _children(node, name)}
    if isinstance(node, dict):
        return inner
    return tuple.__new__(type(node), inner.values()) if isinstance(node, tuple) else list(inner.values())


def _weights(tree):
    """The arrays of a tree by name, and the header of each."""
    leaves, headers = {}, {}

    def add(name, leaf):
        if name in leaves:
            raise ArgumentError(f"{name}: expected places that differ, got two of this name")
        header = _header(name, leaf) if hasattr(leaf, "dtype") else {"kind": None}
        if header["kind"] != "array" or header["dtype"] not in _SAFETENSORS.values():
            raise KindError(f"{name}: expected an array of a dtype that safetensors have, got {shorten(leaf)}")
        leaves[name], headers[name] = leaf, header

    _by_name(add, tree)
    return leaves, headers


def _tensor_headers(opened):
    """The headers of the arrays in a safetensors file, in the order in which they lie there."""
    headers = {}
    for name in opened.offset_keys():
        tensor = opened.get_slice(name)
        dtype = _SAFETENSORS.get(tensor.get_dtype(), tensor.get_dtype())
        headers[name] = {"shape": tensor.get_shape(), "dtype": dtype, "kind": "array"}
    return headers


def _tensors(file, headers):
    """The arrays as they are stored: one behind another up to the end, as safetensors have made sure."""
    sizes = {name: (_DTYPES[header["dtype"]], math.prod(header["shape"])) for name, header in headers.items()}
    file.seek(-sum(dtype.itemsize * size for dtype, size in sizes.values()), os.SEEK_END)
    return {
        name: np.fromfile(file, dtype, size).reshape(headers[name]["shape"]) for name, (dtype, size) in sizes.items()
    }


def _digest(headers, arrays):
    """SHA-256 of names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name in sorted(headers):
        digest.update(json.dumps([name, headers[name]["shape"], headers[name]["dtype"]]).encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()

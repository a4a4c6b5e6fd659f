"""Parameters in the format safetensors, which PyTorch and others read.

The arrays are named by their places with dots, `params[0].w` is "0.w", or as PyTorch names them, "0.weight". The format
has no checksum of its own, so a SHA-256 of names, shapes, dtypes and values is put into its metadata.
"""

import hashlib
import json
import math
import os
from typing import Any

import numpy as np

from .. import files, trees
from ..errors import ArgumentError, CheckpointError, KindError, require, shape, shorten
from ..gate import check_new, check_structure, parameter_shapes
from ..layers import Layer
from . import arrays
from .torch_names import from_torch, to_torch
from .tree import children

_NAMES = {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"} | {
    f"{name[0].upper()}{8 * dtype.itemsize}": name for name, dtype in arrays.DTYPES.items() if name[0] in "iuf"
}
_DIGEST = "fnn.sha256"
_EXPECTED = "a valid safetensors file"
_Path = str | os.PathLike


def save_safetensors(
    path: _Path,
    params: Any,
    *,
    metadata: dict[str, str] | None = None,
    names: str | None = None,
    net: Layer | None = None,
    input_shape: Any = None,
) -> None:
    """Write parameters into a safetensors file: completely, or not at all.

    Args:
        path: the file, written as by `fnn.checkpoints.save`.
        params: a tree of arrays and nothing else.
        metadata: strings by name (default: none). A SHA-256 of names, shapes, dtypes and values is added.
        names: "torch" for the names and the order of `fnn.checkpoints.torch_names`, so that `torch.nn.Sequential` of
            the same layers loads the file; default: those of the places of the parameters.
        net, input_shape: with `names`, the network and the shape of an example, which decide on the order of weights.

    Raises:
        KindError: a leaf is not an array that the format holds, as random keys and complex128 are not; with `names`, a
            layer has no counterpart in PyTorch.
        ArgumentError: two places have the same name.
        CheckpointError: the file cannot be written; an earlier one is then unchanged.
        MissingExtraError: safetensors is not installed.

    Source: Hugging Face, "Safetensors", the format.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors(f"{folder}/net.safetensors", {"w": np.ones(3)})
    ...     load_safetensors(f"{folder}/net.safetensors", {"w": np.zeros(3)}, backend="numpy")
    {'w': array([1., 1., 1.])}
    """
    library, metadata = require("safetensors.numpy", "safetensors"), {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for item in metadata.items() for text in item):
        raise KindError(f"metadata: expected a dict of strings, got {shorten(metadata)}")
    if (example := _of_torch(names, net, input_shape)) is not None:
        check_new(net, params, example)
        params, metadata = to_torch(net, params, example), {"format": "pt"} | metadata
    leaves, headers = _weights(params)
    values = {name: arrays.stored(name, leaf) for name, leaf in leaves.items()}
    digest = _digest(headers, values)
    for name, header in headers.items():
        if header["dtype"] == "bfloat16":
            values[name] = values[name].view("bfloat16")
    with files.replacing(path) as file:
        file.write(library.save(values, metadata | {_DIGEST: digest}))
        file.flush()
        with library.safe_open(file.name, "numpy") as opened:
            actual = _headers(opened)
            if actual != headers or _digest(actual, _values(file, actual)) != digest:
                raise ValueError("reading it back gives something else")


def load_safetensors(
    path: _Path,
    like: Any,
    *,
    backend: str | None = None,
    names: str | None = None,
    net: Layer | None = None,
    input_shape: Any = None,
) -> Any:
    """Read the arrays of a safetensors file, whoever wrote it, into a tree.

    Args:
        path: the file.
        like: a tree of arrays, or of what stands for them, such as parameters or `jax.eval_shape` of `init`. The file
            must have arrays of its names, shapes and dtypes, and no others.
        backend: "jax" or "numpy" (default: that of new keys). On NumPy bfloat16 becomes float32, which `like` may say.
        names, net, input_shape: as for `save_safetensors`: with "torch", the file is that of the `state_dict` of such a
            Sequential. PyTorch's two biases of a recurrent layer are added, as ours is their sum.

    Returns:
        The tree `like` with the arrays of the file.

    Raises:
        ShapeError: the file differs from `like`; the message lists what is missing, unexpected or of another shape or
            dtype. No array has been read then.
        CheckpointError: the file is corrupt, or does not have the SHA-256 in its metadata, if there is one.
        FileNotFoundError: there is no such file.
        MissingExtraError: safetensors is not installed.

    Source: Hugging Face, "Safetensors", the format.

    >>> import safetensors.numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     safetensors.numpy.save_file({"0.w": np.ones(3)}, f"{folder}/theirs.safetensors")
    ...     load_safetensors(f"{folder}/theirs.safetensors", [{"w": np.zeros(3)}], backend="numpy")
    [{'w': array([1., 1., 1.])}]
    """
    library, chosen = require("safetensors.numpy", "safetensors"), arrays.backend_name(backend)
    if (example := _of_torch(names, net, input_shape)) is not None:
        check_structure(like, parameter_shapes(net, example) or like)
        zeros = trees.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), like)
        found = load_safetensors(path, to_torch(net, zeros, example), backend=chosen)
        return from_torch(net, found, like, example)
    _, wanted = _weights(like)
    with files.reading(path, CheckpointError, _EXPECTED) as file, library.safe_open(path, "numpy") as opened:
        headers, where = _headers(opened), files.shown(path)
        widened = {
            name: header | {"dtype": "float32"}
            for name, header in headers.items()
            if chosen == "numpy" and header["dtype"] == "bfloat16" and wanted.get(name, header)["dtype"] == "float32"
        }
        arrays.compare(where, headers | widened, wanted)
        values = _values(file, headers)
        if (opened.metadata() or {}).get(_DIGEST) not in (None, _digest(headers, values)):
            raise ValueError("it does not have the SHA-256 in its metadata")
        return _by_name(lambda name, _: arrays.placed(values[name], headers[name], chosen, f"{where}: {name}"), like)


def _of_torch(names, net, input_shape):
    """The shape of an example where PyTorch's names are asked for; None where they are not."""
    if names is None and net is None and input_shape is None:
        return None
    if names != "torch":
        raise ArgumentError(f"names: expected None or 'torch', with net= and input_shape=, got {shorten(names)}")
    if not isinstance(net, Layer) or input_shape is None:
        raise ArgumentError(
            f"names='torch': expected net= and input_shape= beside it, since they decide on the order of the weights, "
            f"got {shorten(net)} and {shorten(input_shape)}"
        )
    return shape("input_shape", input_shape, several=True)  # which no layer of PyTorch takes, as its error says


def _by_name(f, node, name=""):
    """The tree with `f(name, leaf)` in place of each leaf."""
    if node is None:
        return None
    if not isinstance(node, tuple | list | dict):
        return f(name or "array", node)
    inner = {key: _by_name(f, child, f"{name}.{key}" if name else str(key)) for key, _, child in children(node, name)}
    if isinstance(node, dict):
        return inner
    return tuple.__new__(type(node), inner.values()) if isinstance(node, tuple) else list(inner.values())


def _weights(tree):
    """The arrays of a tree, and their headers, by name."""
    leaves, headers = {}, {}

    def add(name, leaf):
        if name in leaves:
            raise ArgumentError(f"{name}: expected distinct places, got two with this name")
        header = arrays.header(name, leaf) if hasattr(leaf, "dtype") else {"kind": None}
        if header["kind"] != "array" or header["dtype"] not in _NAMES.values():
            raise KindError(f"{name}: expected an array of a dtype that safetensors has, got {shorten(leaf)}")
        leaves[name], headers[name] = leaf, header

    _by_name(add, tree)
    return leaves, headers


def _headers(opened):
    """The headers of the arrays in a file, in the order in which they are stored."""
    headers = {}
    for name in opened.offset_keys():
        tensor = opened.get_slice(name)
        dtype = _NAMES.get(tensor.get_dtype(), tensor.get_dtype())
        headers[name] = {"shape": tensor.get_shape(), "dtype": dtype, "kind": "array"}
    return headers


def _values(file, headers):
    """The arrays as they are stored: one after another up to the end of the file, which safetensors has checked."""
    sizes = {name: (arrays.DTYPES[header["dtype"]], math.prod(header["shape"])) for name, header in headers.items()}
    file.seek(-sum(dtype.itemsize * size for dtype, size in sizes.values()), os.SEEK_END)
    return {
        name: np.fromfile(file, dtype, size).reshape(headers[name]["shape"]) for name, (dtype, size) in sizes.items()
    }


def _digest(headers, values):
    """SHA-256 of names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name in sorted(headers):
        digest.update(json.dumps([name, headers[name]["shape"], headers[name]["dtype"]]).encode())
        digest.update(values[name].tobytes())
    return digest.hexdigest()

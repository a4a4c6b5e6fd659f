"""An array as a file stores it, and back on either backend.

Its header is a dict: `shape`; `dtype`, the name of the dtype; and `kind`, which is "array", "host" for an array that
stays on NumPy whatever the backend, or "key rbg" and the like for a random key of JAX.
"""

from typing import Any

import numpy as np

from .. import backend
from ..errors import ArgumentError, KindError, ShapeError, shorten
from ..trees import locked

DTYPES = {  # by name, as they are stored
    np.dtype(name).name: np.dtype(name).newbyteorder("<")
    for name in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
} | {"bfloat16": np.dtype("<u2")}
jax: Any = backend.jax
KINDS = ("array", "host", "key threefry2x32", "key rbg", "key unsafe_rbg")


def header(place: str, leaf: Any, host: bool = False) -> dict:
    """The header of an array of either backend, or of something with a shape and a dtype that stands for one."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None or isinstance(leaf, type | np.ma.MaskedArray):
        raise KindError(f"{place}: expected an array, a number, a string or None, got {shorten(leaf)}")
    kind = "host" if host else "array"
    if _is_key(dtype):
        impl = jax.random.key_impl(leaf)
        kind = f"key {impl}"
        if kind not in KINDS:  # `load` could not find it by name
            raise KindError(f"{place}: expected a key of one of JAX's own implementations, got one of {impl}")
        words = jax.eval_shape(jax.random.key_data, leaf)
        shape, dtype = words.shape, words.dtype
    name = getattr(dtype, "name", str(dtype))
    if name not in DTYPES:
        raise KindError(f"{place}: expected an array of numbers, got dtype {name}")
    return {"shape": list(shape), "dtype": name, "kind": kind}


def stored(place: str, leaf: Any) -> np.ndarray:
    """The values of an array, as they are written."""
    if not (isinstance(leaf, np.ndarray | np.generic) or backend.is_jax(leaf)) or backend.is_traced(leaf):
        raise KindError(f"{place}: expected an array with values, of NumPy or JAX, got {shorten(leaf)}")
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf.dtype) else leaf)
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.name == "bfloat16":
        return contiguous.view(np.uint16)
    return contiguous.astype(DTYPES[array.dtype.name], copy=False)


def placed(array: np.ndarray, head: dict, chosen: str, where: str) -> Any:
    """A stored array on the chosen backend. On NumPy it is read-only, and bfloat16 becomes float32."""
    array = array.astype(array.dtype.newbyteorder("="), copy=True)
    on_numpy = chosen == "numpy" or head["kind"] == "host"
    if head["kind"].startswith("key "):
        impl = head["kind"].removeprefix("key ")
        if not on_numpy:
            return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=impl)
        if impl != "threefry2x32":
            raise ArgumentError(f"{where} is an {impl} key, which only JAX has: load it with backend='jax'")
        return locked(array)
    if head["dtype"] == "bfloat16":
        if not on_numpy:
            return jax.numpy.asarray(array).view(jax.numpy.bfloat16)
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if on_numpy:
        return locked(array) if array.ndim else array[()]
    if array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1) > 4 and not jax.config.jax_enable_x64:
        raise ArgumentError(
            f"{where} is {array.dtype}, which JAX would cut to 32 bits; set jax.config.update('jax_enable_x64', True) "
            "first, or load it with backend='numpy'"
        )
    return jax.numpy.asarray(array)


def compare(path: Any, actual: dict, expected: dict) -> None:
    """Raise `ShapeError` unless the headers in a file are those expected, listing the differences."""
    shown = lambda head: f"{tuple(head['shape'])} {head['dtype']}"
    differing = [
        f"{place}: {shown(actual[place])} in the file, {shown(head)} expected"
        for place, head in expected.items()
        if place in actual and shown(actual[place]) != shown(head)
    ]
    lists = {
        "missing": [place for place in expected if place not in actual],
        "unexpected": [place for place in actual if place not in expected],
        "with a different shape or dtype": differing,
    }
    text = "; ".join(f"{what}: {', '.join(places)}" for what, places in lists.items() if places)
    if text:
        raise ShapeError(f"{path}: expected the arrays of `like`; {text}")


def backend_name(name: str | None) -> str:
    """The name of a backend that is available; None means that of new keys."""
    name = backend.name if name is None else name
    if name not in ("jax", "numpy"):
        raise ArgumentError(f"backend: expected 'jax' or 'numpy', got {shorten(name)}")
    if name == "jax":
        backend.need_jax("backend='jax'")
    return name


def _is_key(dtype):
    try:
        return jax is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)
    except TypeError:  # a dtype of another library
        return False

"""One array or number from outside at a time: as an array, where its values are known, and what they must be."""

import contextlib

import numpy as np

from . import backend, frames, trees
from .backend import is_floating
from .errors import ArgumentError, DataError, FnnError, KindError, shorten


def as_array(what, given, xp):
    """User data as an array of `xp`: lists and data frames are accepted; text, objects and masked entries are not."""
    value = given
    if not backend.is_jax(value):
        if np.ma.is_masked(value):
            raise KindError(
                f"{what}: expected an array without mask, got masked entries; {what}.filled(...) fills them, and "
                "weight 0 leaves examples out"
            )
        try:
            value = _read(frames.as_numbers(what, value) if frames.is_frame(value) else value)
        except FnnError:
            raise
        except ValueError as error:  # rows of unequal length
            raise KindError(
                f"{what}: expected an array of numbers, got rows of unequal length; pad sequences to the same length, "
                "and give their lengths to fnn.Last"
            ) from error
        except Exception as error:  # of another library, whose tensor requires a gradient, for example
            raise KindError(f"{what}: expected an array of numbers, got {type(value).__name__}: {error}") from error
    if getattr(value.dtype, "kind", "V") not in "fiubc" and not is_floating(value.dtype):
        raise KindError(
            f"{what}: expected an array of numbers, got dtype {value.dtype} {shorten(value)}"
            f"{for_objects(given, value, what)}"
        )
    if not backend.is_jax(value):
        value = value.astype(value.dtype.newbyteorder("="), copy=False)  # JAX supports native byte order only
    if xp is np:
        return np.asarray(value)
    if value.dtype in (np.int64, np.uint64) and value.size and not backend.jax.config.jax_enable_x64:
        limits = np.iinfo(np.int32 if value.dtype == np.int64 else np.uint32)
        if value.min() < limits.min or value.max() > limits.max:
            raise DataError(
                f"{what}: expected 32-bit integers, since JAX truncates longer ones, got {value.dtype} values out of "
                "range; convert them to float32"
            )
    with np.errstate(over="ignore"):
        return value if backend.is_jax(value) else backend.ready(backend.jnp.asarray(value))


def _read(given):
    """`np.asarray`; tensors of bfloat16, which NumPy alone does not know, through DLPack where JAX is installed."""
    try:
        return np.asarray(given)
    except TypeError:
        if backend.jnp is None or "bfloat16" not in str(getattr(given, "dtype", "")):
            raise
        return np.asarray(backend.jnp.from_dlpack(given))


def for_objects(given, array, what="y") -> str:
    """A hint for a message: how to make numbers of what has been given."""
    origin, kind = f", from {type(given).__name__}" if array.ndim == 0 else "", getattr(array.dtype, "kind", "V")
    if hasattr(given, "collect"):
        return f"{origin}; write .collect() for its values"
    if hasattr(given, "toarray"):
        return f"{origin}; write .toarray() for all its numbers, or use the estimators of fnn.sklearn"
    if isinstance(given, dict):
        return "; for weights of classes write fnn.class_weights(y, {0: 1.0, 1: 2.0})" if what == "weights" else origin
    if array.ndim == 0 and hasattr(given, "__iter__") and kind == "O":
        return f"{origin}; write np.stack([*{what}]) for its numbers, or fnn.Batches(...) if it gives batches"
    if kind in "Mm":
        since = f"({what} - {what}.min())" if kind == "M" else what
        return f'; {since} / np.timedelta64(1, "s") is a number'
    if getattr(array.dtype, "names", None):
        return f"; write np.lib.recfunctions.structured_to_unstructured({what})"
    types = {type(entry) for entry in array.flat} if kind == "O" else {str}
    if np.ndarray in types:
        return f"; write np.stack({what})"
    if kind in "US" or str in types:
        numbers = f"for numbers {what}.astype(float)"
        return f"; for labels that are text write np.unique(y, return_inverse=True)[1], {numbers}"
    if any(hasattr(cls, "__fspath__") for cls in types):
        return f"; read the files first: np.stack([read(path) for path in {what}])"
    with contextlib.suppress(TypeError, ValueError):
        array.astype(float)
        return f"; write {what}.astype(float)" if array.ndim else origin
    return origin


def known(array):
    """Whether the values of an array are known, and all of them are in this process."""
    if isinstance(array, np.ndarray) or backend.is_traced(array):
        return isinstance(array, np.ndarray)
    return array.is_fully_addressable or array.is_fully_replicated


def on_host(array):
    """A concrete array as a NumPy array: its own memory on the CPU, a copy from an accelerator.

    So checking it compiles nothing, and becomes no part of a program that is being traced.
    """
    return np.asarray(array) if known(array) else array


def nearest(array):
    """A concrete array as a NumPy array if that shares its memory, otherwise as it is: large ones are not copied."""
    if isinstance(array, np.ndarray) or not known(array) or any(d.platform != "cpu" for d in array.devices()):
        return array
    return np.asarray(array)


def finite(name, array):
    """Raise if a concrete floating array contains NaN or an infinity, naming the first place."""
    array = nearest(array)
    if isinstance(array, np.ndarray) and array.dtype in (np.float32, np.float64):
        flat = array.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(
                np.dot(flat, flat)
            ):  # many times faster than isfinite; large finite values overflow and go on
                return
    with _at_once():
        fine = bool(array.__array_namespace__().isfinite(array).all())
    if not fine:
        values = np.asarray(array).astype(np.float64)
        bad = np.argwhere(~np.isfinite(values))
        place = ", ".join(str(i) for i in bad[0])
        raise DataError(
            f"{name}: expected finite numbers, got {values[tuple(bad[0])]} at {name}[{place}] "
            f"({len(bad)} of {array.size} are not finite as {array.dtype})"
        )


def _at_once():
    """A context in which known values are computed with at once, also while a program is being traced."""
    return contextlib.nullcontext() if backend.jax is None else backend.jax.ensure_compile_time_eval()


def check_size(name, given, array):
    """Raise if numbers of a known array became too large or, all of them, too small when converted to this dtype."""
    if not (known(given) and known(array)):
        return
    size, converted = np.abs(on_host(given)).max(initial=0), np.abs(on_host(array)).max(initial=0)
    limits = np.finfo(array.dtype)
    if (np.isfinite(size) and not converted <= limits.max) or 0 < size < limits.tiny:
        raise DataError(
            f"{name}: expected numbers that {array.dtype} can hold, got at most {size:g}; multiply all of them by a "
            "constant, which changes nothing"
        )


def check_sum(weights):
    """Raise unless the sum of concrete weights is finite in their dtype."""
    finite("weights", weights)
    if not np.abs(on_host(weights)).sum(dtype=np.float64) <= np.finfo(weights.dtype).max:
        raise DataError(
            f"weights: expected a sum that {weights.dtype} can hold; divide all of them by a constant, which changes "
            "nothing"
        )


def not_negative(name, array):
    """Raise if a concrete array (N,) contains a negative number, naming the first."""
    negative = on_host(array) < 0
    if bool(negative.any()):
        row = int(negative.argmax())
        raise DataError(f"{name}: expected numbers of at least 0, got {array[row]} at {name}[{row}]")


def real(name, array):
    """The array; raises if its numbers are complex."""
    if array.dtype.kind == "c":
        raise KindError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def on_the_host(what, instead, *trees_):
    """Raise if any array is traced, for a function that needs values, such as `fit`."""
    if backend.is_traced(*(leaf for tree in trees_ for leaf in trees.leaves(tree))):
        raise KindError(
            f"{what} runs on the host and cannot be traced, by jax.jit, jax.vmap or fnn.sweep; use {instead}"
        )


def positive(name, value):
    """Raise unless `value` is a number greater than 0 (∞ included) or a tracer."""
    if backend.is_traced(value):
        return
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise KindError(f"{name}: expected a number, got {shorten(value)}")
    if not number > 0:
        raise ArgumentError(f"{name}: expected a number above 0, got {number:g}")

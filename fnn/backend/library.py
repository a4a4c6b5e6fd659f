"""JAX or NumPy: the one module that imports JAX, and which of the two an array belongs to."""

import os
from typing import Any

import numpy as np

from ..errors import ArgumentError, KindError, MissingExtraError

_choice = os.environ.get("FNN_BACKEND", "")
if _choice not in ("", "jax", "numpy"):
    raise ArgumentError(f"FNN_BACKEND: expected 'jax' or 'numpy', got {_choice!r}")


def _imported() -> tuple[str, Any, Any]:
    if _choice == "numpy":
        return "numpy", None, None
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        if _choice == "jax":
            raise MissingExtraError("FNN_BACKEND=jax needs JAX: pip install 'fnn[jax]'") from error
        return "numpy", None, None
    return "jax", jax, jnp


name, jax, jnp = _imported()  # the backend of new keys, and so of new parameters; both modules, or None
_NUMPYS = frozenset({np.ndarray, np.float64, np.float32, np.int32, np.bool})  # known at sight, in a tenth of the time


def need_jax(what):
    """JAX itself, for features that require it; raises if it is absent.

    Args:
        what: the feature, for the message.

    Returns:
        The module `jax`.
    """
    if jax is None:
        raise KindError(f"{what} needs JAX, but fnn runs on NumPy alone: pip install 'fnn[jax]', FNN_BACKEND unset")
    return jax


def is_jax(array):
    """Whether this is a JAX array or tracer.

    Args:
        array: the array.

    Returns:
        A boolean.

    >>> is_jax(np.zeros(2))
    False
    """
    return jax is not None and type(array) not in _NUMPYS and isinstance(array, jax.Array)


def is_traced(*arrays):
    """Whether any of the arrays is a JAX tracer, whose values are not known yet."""
    if jax is not None:
        for array in arrays:
            if type(array) not in _NUMPYS and isinstance(array, jax.core.Tracer):
                return True
    return False


def namespace(*arrays) -> Any:
    """`jax.numpy` if any of the arrays is a JAX array, else `numpy`.

    Args:
        *arrays: arrays, or numbers.

    Returns:
        The module.

    >>> namespace(np.zeros(2)).__name__
    'numpy'
    """
    if jax is not None:
        for array in arrays:  # a generator in any() takes longer than the sum of a small array
            if type(array) not in _NUMPYS and isinstance(array, jax.Array):
                return jnp
    return np


def ready(tree):
    """The arrays, once they are there: JAX copies from the host while the host goes on, and may overwrite its array."""
    return tree if jax is None else jax.block_until_ready(tree)


def on_device(array):
    """A NumPy array that nobody overwrites, as JAX's, which `jnp.asarray` would compile a program for."""
    return jax.device_put(array)


def number(xp, value, dtype):
    """A number as a strongly typed array of the namespace; on JAX, one that is known is converted by NumPy."""
    if xp is np or is_jax(value):
        return xp.asarray(value, dtype=dtype)[()]
    return on_device(np.asarray(value, dtype=dtype))

"""JAX or NumPy: the one module that imports JAX, and what each formula needs that is not in an array namespace.

A formula asks `xp = namespace(x)` and is written once against `xp`. Where JAX offers more than a namespace (`jit`,
`scan`, `vmap`, trees, differentiation) a NumPy stand-in is here. With `FNN_BACKEND=numpy` in the environment JAX is
never imported; with `FNN_BACKEND=jax` it has to be there; with neither it is used if it is installed.
"""

import contextlib
import functools
import os
from typing import Any

import numpy as np

from .errors import ArgumentError, DataError, KindError, MissingExtraError, ShapeError, shorten

_choice = os.environ.get("FNN_BACKEND", "")
if _choice not in ("", "jax", "numpy"):
    raise ArgumentError(f"FNN_BACKEND: expected 'jax' or 'numpy', got {_choice!r}")
try:
    if _choice == "numpy":
        raise ImportError
    import jax
    import jax.numpy as jnp
except ImportError as error:
    if _choice == "jax":
        raise MissingExtraError("FNN_BACKEND=jax needs JAX: pip install 'fnn[jax]'") from error
    jax: Any = None
    jnp: Any = None

name = "numpy" if jax is None else "jax"  # the backend of a new key, and so of new parameters


def need_jax(what):
    """JAX itself, for what cannot be done without it."""
    if jax is None:
        raise KindError(f"{what} needs JAX, and this is fnn on NumPy alone: pip install 'fnn[jax]', FNN_BACKEND unset")
    return jax


# ---- which namespace, which dtype ------------------------------------------------------------------------------------


def is_jax(array):
    """Whether this is a JAX array or tracer."""
    return jax is not None and isinstance(array, jax.Array)


def is_traced(*arrays):
    """Whether any of these is a JAX tracer, whose values are not known yet."""
    return jax is not None and any(isinstance(array, jax.core.Tracer) for array in arrays)


def namespace(*arrays) -> Any:
    """`jax.numpy` if any of the arrays is JAX's, else `numpy`."""
    if jax is not None:
        for array in arrays:  # a generator in any() would take longer than many a sum of small arrays
            if isinstance(array, jax.Array):
                return jnp
    return np


def is_floating(dtype):
    """Whether a dtype is of real or complex floating point; bfloat16 is, though NumPy alone does not know it."""
    return getattr(dtype, "kind", "V") in "fc" or (jnp is not None and jnp.issubdtype(dtype, jnp.floating))


def floating(x, dtype=np.float32):
    """`x` itself if it is of floating point, else (uint8, bool, integers) converted to `dtype`."""
    return x if is_floating(x.dtype) else x.astype(dtype)


def cast(x, dtype):
    """`x` in the dtype, itself if it has it: NumPy's astype would copy."""
    return x if x.dtype == dtype else x.astype(dtype)


def at_least_float32(dtype):
    """float32, or the dtype itself if that is wider: in bfloat16 1 - 0.999 is 0."""
    return np.dtype(dtype) if np.dtype(dtype).itemsize > 4 else np.dtype(np.float32)


def check_dtype(xp, dtype):
    """A floating dtype that this namespace can hold, as an `np.dtype`."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise KindError(f"dtype: expected a floating dtype, got {shorten(dtype)}") from None
    if not is_floating(dtype) or dtype.kind == "c":
        raise KindError(f"dtype: expected a real floating dtype, got {dtype}")
    if xp is not np and dtype.itemsize > 4 and not jax.config.jax_enable_x64:
        raise ArgumentError("dtype: float64 on JAX needs jax.config.update('jax_enable_x64', True) first")
    return dtype


def as_array(what, value, xp):
    """Data from outside as an array of `xp`: lists and frames are taken, text, objects and masked arrays refused."""
    if not is_jax(value):
        if isinstance(value, np.ma.MaskedArray):
            raise KindError(f"{what}: expected an array without mask; give masked examples the weight 0")
        try:
            value = np.asarray(value)
        except ValueError as error:  # rows of unequal length
            raise KindError(f"{what}: expected an array of numbers, got rows of unequal length") from error
    if getattr(value.dtype, "kind", "V") not in "fiubc" and not is_floating(value.dtype):
        raise KindError(f"{what}: expected an array of numbers, got dtype {value.dtype} {shorten(value)}")
    if not is_jax(value):
        value = value.astype(value.dtype.newbyteorder("="), copy=False)  # JAX knows the machine's byte order only
    if xp is np:
        return np.asarray(value)
    if value.dtype in (np.int64, np.uint64) and value.size and not jax.config.jax_enable_x64:
        limits = np.iinfo(np.int32 if value.dtype == np.int64 else np.uint32)
        if value.min() < limits.min or value.max() > limits.max:
            raise DataError(f"{what}: expected integers of 32 bits, as JAX cuts longer ones; convert them to float32")
    with np.errstate(over="ignore"):
        return value if is_jax(value) else jnp.asarray(value)


# ---- transformations -------------------------------------------------------------------------------------------------


def tree_map(f, tree, *rest, is_leaf=None) -> Any:
    """`jax.tree.map`: NumPy's stand-in knows tuples, NamedTuples, lists, dicts and None."""
    if jax is not None:
        return jax.tree.map(f, tree, *rest, is_leaf=is_leaf)
    return _tree_map(f, tree, *rest, is_leaf=is_leaf)


def _tree_map(f, tree, *rest, is_leaf=None) -> Any:
    if not isinstance(tree, _NODES) or (is_leaf is not None and is_leaf(tree)):
        return f(tree, *rest)
    if isinstance(tree, (tuple, list)):
        mapped = [
            _tree_map(f, *branches, is_leaf=is_leaf) if isinstance(branches[0], _NODES) else f(*branches)
            for branches in zip(tree, *rest, strict=True)
        ]
        return tuple.__new__(type(tree), mapped) if isinstance(tree, tuple) else mapped
    if tree is None:
        return None
    if any(r.keys() != tree.keys() for r in rest):
        raise ShapeError(f"expected dicts of the same keys, got {[sorted(t) for t in (tree, *rest)]}")
    return {key: _tree_map(f, tree[key], *(r[key] for r in rest), is_leaf=is_leaf) for key in sorted(tree)}


_NODES = (tuple, list, dict, type(None))


def tree_leaves(tree, is_leaf=None) -> list:
    """`jax.tree.leaves`, in the same order."""
    if jax is not None:
        return jax.tree.leaves(tree, is_leaf=is_leaf)
    if not isinstance(tree, _NODES) or (is_leaf is not None and is_leaf(tree)):
        return [tree]
    branches = [tree[key] for key in sorted(tree)] if isinstance(tree, dict) else tree or ()
    return [leaf for branch in branches for leaf in tree_leaves(branch, is_leaf)]


def jit(f=None, *, static=()) -> Any:
    """`jax.jit` where an argument holds a JAX array, the function itself where none does."""
    if f is None:
        return functools.partial(jit, static=static)
    if jax is None:
        return f
    compiled = jax.jit(f, static_argnames=static)

    @functools.wraps(f)
    def call(*args, **kwargs):
        on_jax = any(is_jax(leaf) for leaf in jax.tree.leaves((args, kwargs)))
        return (compiled if on_jax else f)(*args, **kwargs)

    call.compiled = compiled  # type: ignore[attr-defined] - for whoever counts compilations or reads the lowered program
    return call


def scan(f, carry, xs, length=None) -> Any:
    """`lax.scan` where anything is a JAX array, else a loop that stacks what `f` gives.

    `xs` is an array, a tuple of arrays, or None with the `length` given.
    """
    if jax is not None and any(is_jax(leaf) for leaf in jax.tree.leaves((carry, xs))):
        return jax.lax.scan(f, carry, xs, length)
    rows = zip(*xs, strict=True) if isinstance(xs, tuple) else [None] * (length or 0) if xs is None else xs
    outputs = []
    for row in rows:
        carry, output = f(carry, row)
        outputs.append(output)
    return carry, tree_map(lambda *leaves: np.array(leaves), *outputs) if outputs else None


def after(array, other):
    """`array` itself, which a compiler may not use before `other` is there: it plans memory in that order."""
    xp = namespace(array, other)
    return array if xp is np or not other.size else xp.where(other.ravel()[0] > np.inf, 0, array)


def first_true(mask, size):
    """The indices of the first `size` true entries, int32; where there are fewer, the last ones are 0."""
    if is_jax(mask):
        return jnp.nonzero(mask, size=size, fill_value=0)[0].astype(np.int32)
    found = np.flatnonzero(mask)[:size].astype(np.int32)
    return np.pad(found, (0, size - len(found)))


def cond(pred, true_fn, false_fn, *args) -> Any:
    """`lax.cond` where `pred` is traced, else the one of the two functions: a value that is known needs no program."""
    if is_traced(pred):
        return jax.lax.cond(pred, true_fn, false_fn, *args)
    return (true_fn if pred else false_fn)(*args)


def vmap(f) -> Any:
    """`jax.vmap` over the leading axis of every array in the arguments, or a loop that stacks."""

    def call(*args):
        if any(is_jax(leaf) for leaf in tree_leaves(args)):
            return jax.vmap(f)(*args)
        length = len(tree_leaves(args)[0])
        outputs = [f(*tree_map(lambda leaf: leaf[i], args)) for i in range(length)]  # noqa: B023 - called at once
        return tree_map(lambda *leaves: np.stack(leaves), *outputs)

    return call


def hold(thing):
    """A thing of another library (an Optax optimizer) as a node without leaves, so that it may lie in a tree."""
    need_jax("an optimizer that is no NamedTuple of numbers")
    return Held(thing)


class Held:
    """Compares by the thing it holds; its attributes are those of the thing."""

    def __init__(self, thing):
        self._thing = thing

    def __getattr__(self, name):
        if name.startswith("__"):  # asked for while a copy is made, before there is a thing
            raise AttributeError(name)
        return getattr(self._thing, name)

    def __eq__(self, other):
        return isinstance(other, Held) and self._thing == other._thing

    def __hash__(self):
        return hash(self._thing)

    def __repr__(self):
        return repr(self._thing)


if jax is not None:
    jax.tree_util.register_static(Held)


def product(a, b, precision=None):
    """`a @ b`; with a precision both are rounded to it, their products summed in float32, the sum in the dtype of a."""
    if precision is None:
        return a * b if isinstance(a, np.ndarray) and a.shape[-1] == 1 else a @ b  # of one term each: twice as fast
    rounded = jnp.matmul(a.astype(precision), b.astype(precision), preferred_element_type=np.float32)
    return cast(rounded, a.dtype)


def contract(delta, a, precision=None):
    """`δᵀ a`, summed over the examples: the one product of errors and activations, (N, O), (N, I) -> (O, I).

    Where the examples are spread over an explicit mesh axis this is the sum over devices, and JAX is told its layout.
    """
    if namespace(delta, a) is np:
        return delta.T @ a
    d, s = jax.typeof(delta).sharding, jax.typeof(a).sharding
    if jax.sharding.AxisType.Explicit in d.mesh.axis_types:
        layout = jax.sharding.NamedSharding(d.mesh, jax.sharding.PartitionSpec(d.spec[1], s.spec[1]))
        rounded = [v if precision is None else v.astype(precision) for v in (delta, a)]
        wide = None if precision is None else np.float32
        return cast(jnp.einsum("no,ni->oi", *rounded, preferred_element_type=wide, out_sharding=layout), delta.dtype)
    return jax.lax.platform_dependent(
        delta,
        a,
        cpu=lambda delta, a: product(_transposed(delta, precision), a, precision),
        default=lambda delta, a: product(delta.T, a, precision),
    )


_sparing = False


@contextlib.contextmanager
def sparing():
    """Within it no copy of the errors is made for speed alone: for what holds those of all layers at once."""
    global _sparing
    before, _sparing = _sparing, True
    try:
        yield
    finally:
        _sparing = before


def _transposed(delta, precision):
    """δᵀ, made in halves where that pays (measured): XLA on the CPU folds a plain transposition into the product,
    for which it then has a slower kernel, in bfloat16 half as fast. Beyond 16 MiB the copy itself costs more."""
    n, outputs = delta.shape
    pays = precision or outputs <= 32 or (n >= 256 and delta.size <= 2**22 and not _sparing)
    if n % 2 or not pays:
        return delta.T
    return delta.reshape(2, n // 2, outputs).transpose(2, 0, 1).reshape(outputs, n)

"""JAX or NumPy: the one module that imports JAX, and everything formulas need beyond an array namespace.

A formula calls `xp = namespace(x)` and is written once against `xp`. Where JAX offers more than a namespace (`jit`,
`scan`, `vmap`, trees, differentiation), this module has a NumPy stand-in. With `FNN_BACKEND=numpy` in the environment
JAX is never imported; with `FNN_BACKEND=jax` it is required; otherwise it is used if it is installed.

`matrices` has the two products of formulas, and `pieces` what is computed for some examples, or some layers, at a time.
"""

import contextlib
import dataclasses
import functools
import os
import typing
from typing import Any, NamedTuple

import numpy as np

from .errors import ArgumentError, KindError, MissingExtraError, ShapeError, shorten

__all__ = [
    "Record",
    "Unbatched",
    "is_jax",
    "jit",
    "namespace",
    "scan",
    "vmap",
]

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

name = "numpy" if jax is None else "jax"  # the backend of new keys, and so of new parameters


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


# ---- which namespace, which dtype ------------------------------------------------------------------------------------


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


_NUMPYS = frozenset({np.ndarray, np.float64, np.float32, np.int32, np.bool})  # known at sight, in a tenth of the time


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


def is_floating(dtype):
    """Whether a dtype is real or complex floating point, including bfloat16, which NumPy alone does not know."""
    kind = getattr(dtype, "kind", "V")
    if kind != "V" or jnp is None:
        return kind in "fc"
    return isinstance(dtype, _DTYPES) and jnp.issubdtype(dtype, jnp.floating)  # not None, nor that of a torch tensor


_DTYPES = (np.dtype, type)


def floating(x, dtype: Any = np.float32):
    """`x` itself if it is floating point; otherwise `x` converted to `dtype`.

    Integers of more than 8 bits become float32 or wider, since 70,000 is no float16 number, and 257 no bfloat16 one.
    """
    if is_floating(x.dtype):
        return x
    return x.astype(dtype if x.dtype.itemsize == 1 else at_least_float32(dtype))


def cast(x, dtype):
    """`x` converted to the dtype, or `x` itself if it has it, where NumPy's astype would copy."""
    return x if x.dtype == dtype else x.astype(dtype)


def at_least_float32(dtype):
    """float32, or the dtype itself if it is wider; in bfloat16, for example, 1 - 0.999 is 0."""
    dtype = np.dtype(dtype)
    return dtype if dtype.itemsize > 4 else _FLOAT32


_FLOAT32 = np.dtype(np.float32)


def widened(x):
    """`x` in float32 or wider, with exactly the values of its own dtype: XLA skips a rounding that is widened again."""
    wide = cast(x, at_least_float32(x.dtype))
    if wide is x or not is_jax(x):
        return wide
    return jax.lax.reduce_precision(wide, jnp.finfo(x.dtype).nexp, jnp.finfo(x.dtype).nmant)


def check_dtype(xp, dtype):
    """The dtype as an `np.dtype`; raises unless it is a floating dtype that the namespace supports."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise KindError(f"dtype: expected a floating dtype, got {shorten(dtype)}") from None
    if not is_floating(dtype) or dtype.kind == "c":
        raise KindError(f"dtype: expected a real floating dtype, got {dtype}")
    if xp is not np and dtype.itemsize > 4 and not jax.config.jax_enable_x64:
        raise ArgumentError("dtype: float64 on JAX needs jax.config.update('jax_enable_x64', True) first")
    return dtype


# ---- transformations -------------------------------------------------------------------------------------------------


def tree_map(f, tree, *rest, is_leaf=None) -> Any:
    """`jax.tree.map`; the NumPy stand-in supports tuples, NamedTuples, lists, dicts and None.

    Args:
        f: the function.
        tree: the tree whose structure the result has.
        *rest: trees of the same structure, whose leaves are further arguments of f.
        is_leaf: a function that says what is a leaf, besides arrays. Default: None.

    Returns:
        The new tree.

    >>> tree_map(lambda a, b: a + b, {"w": 1.0, "b": (2.0, 3.0)}, {"w": 10.0, "b": (20.0, 30.0)})
    {'b': (22.0, 33.0), 'w': 11.0}
    """
    if jax is not None:
        return jax.tree.map(f, tree, *rest, is_leaf=is_leaf)
    return _tree_map(f, tree, *rest, is_leaf=is_leaf)


def _tree_map(f, tree, *rest, is_leaf=None) -> Any:
    if not isinstance(tree, _NODES) or (is_leaf is not None and is_leaf(tree)):
        return tree if isinstance(tree, Held) else f(tree, *rest)
    if isinstance(tree, (tuple, list, Record)):
        mapped = [
            _tree_map(f, *branches, is_leaf=is_leaf) if isinstance(branches[0], _INNER) else f(*branches)
            for branches in zip(tree, *rest, strict=True)
        ]
        if isinstance(tree, list):
            return mapped
        return tuple.__new__(type(tree), mapped) if isinstance(tree, tuple) else tree._make(mapped)
    if tree is None:
        return None
    if any(r.keys() != tree.keys() for r in rest):
        raise ShapeError(f"expected dicts of the same keys, got {[sorted(t) for t in (tree, *rest)]}")
    return {key: _tree_map(f, tree[key], *(r[key] for r in rest), is_leaf=is_leaf) for key in sorted(tree)}


class Held:
    """A node of a tree that holds a value but has no leaves: a choice, or an object of another library.

    It compares by the value, which is `thing`, and has the value's attributes.
    """

    def __init__(self, thing):
        self.thing = thing

    def __getattr__(self, name):
        if name.startswith("__") or name == "thing":  # requested during copying, before `thing` is set
            raise AttributeError(name)
        return getattr(self.thing, name)

    def __eq__(self, other):
        return isinstance(other, Held) and self.thing == other.thing

    def __hash__(self):
        return hash(self.thing)

    def __repr__(self):
        return repr(self.thing)


if jax is not None:
    jax.tree_util.register_static(Held)


@typing.dataclass_transform(frozen_default=True)
class Record:
    """A node of a tree that is like a NamedTuple, but not a tuple: what JAX compiles must have weak references.

    No tuple has them, so that `jax.jit` of a NamedTuple with `__call__` fails, and the second time ends the process.
    """

    def __init_subclass__(cls):
        dataclasses.dataclass(frozen=True, eq=False)(cls)
        declared: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
        cls._fields = tuple(field.name for field in declared)
        cls._field_defaults = {f.name: f.default for f in declared if f.default is not dataclasses.MISSING}
        if jax is not None:
            keyed = lambda self: ([(jax.tree_util.GetAttrKey(name), value) for name, value in vars(self).items()], None)
            jax.tree_util.register_pytree_with_keys(cls, keyed, lambda _, values: cls._make(values))

    @classmethod
    def _make(cls, values):
        self = object.__new__(cls)
        vars(self).update(zip(cls._fields, values, strict=True))
        return self

    def _asdict(self):
        return dict(vars(self))

    def _replace(self, **changes):
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def __iter__(self):
        return iter(vars(self).values())

    def __len__(self):
        return len(vars(self))

    def __eq__(self, other):
        if type(self) is not type(other) or is_traced(*tree_leaves((self, other))):
            return self is other
        numbers = lambda record: tuple(tree_map(lambda leaf: np.asarray(leaf).tolist(), record))
        return numbers(self) == numbers(other)

    def __hash__(self):  # that of the class, since arrays have none
        return hash(type(self))


_NODES = (tuple, list, dict, type(None), Record)
_INNER = (*_NODES, Held)


def tree_leaves(tree, is_leaf=None) -> list:
    """`jax.tree.leaves`, in the same order.

    Args:
        tree: a tree of arrays.
        is_leaf: a function that says what is a leaf, besides arrays. Default: None.

    Returns:
        A list of leaves.

    >>> tree_leaves({"b": (1.0, 2.0), "a": 3.0})
    [3.0, 1.0, 2.0]
    """
    if jax is not None:
        return jax.tree.leaves(tree, is_leaf=is_leaf)
    if not isinstance(tree, _NODES) or (is_leaf is not None and is_leaf(tree)):
        return [] if isinstance(tree, Held) else [tree]
    branches = [tree[key] for key in sorted(tree)] if isinstance(tree, dict) else tree or ()
    return [leaf for branch in branches for leaf in tree_leaves(branch, is_leaf)]


PROGRAMS = 128  # how many compiled programs fnn keeps; each takes some megabytes and up to 200 of Linux's memory maps

_compiled = []  # a jitted function for each of its programs


def jit(f=None, *, static=()) -> Any:
    """`jax.jit` if an argument contains a JAX array, otherwise the plain function.

    The functions jitted here keep at most `PROGRAMS` programs between them. When there are more, all are dropped, and
    what is called again compiles again, so that a process can train any number of networks of different sizes.

    Args:
        f: the function. Without it, `jit` is a decorator that takes `static`.
        static: the names of the arguments that are static. Default: ().

    Returns:
        The compiled function.

    >>> jit(lambda x: x + 1)(np.zeros(2))
    array([1., 1.])
    """
    if f is None:
        return functools.partial(jit, static=static)
    if jax is None:
        return f

    @functools.wraps(f)
    def traced(*args, **kwargs):
        _compiled.append(compiled)  # JAX runs this once for each program
        return f(*args, **kwargs)

    compiled = jax.jit(traced, static_argnames=static)

    @functools.wraps(f)
    def call(*args, **kwargs):
        if not any(is_jax(leaf) for leaf in jax.tree.leaves((args, kwargs))):
            return f(*args, **kwargs)
        drop_programs(PROGRAMS)
        return compiled(*args, **kwargs)

    call.compiled = compiled  # type: ignore[attr-defined] - for counting compilations and reading the lowered program
    return call


def drop_programs(number=1):
    """Drop the compiled programs that functions of `jit` keep, if there are at least `number`.

    >>> drop_programs()
    """
    if len(_compiled) >= number:
        for function in set(_compiled):
            function.clear_cache()
        _compiled.clear()


@functools.cache
def keep_freed_memory():
    """Let NumPy's arrays have the memory of earlier ones: once in a process, before a run of many steps.

    Linux's `malloc` returns what lies beyond twice the largest block that was freed yet, here 32 MiB. By default that
    is so little that some megabytes of temporary arrays are mapped anew in each step, which takes longer than to fill
    them.
    """
    np.empty(2**24, np.uint8)


@contextlib.contextmanager
def any_number():
    """A context in which NaN and infinity are results like others, also with `jax_debug_nans` and `jax_debug_infs`."""
    if jax is None:
        yield
    else:
        with jax.debug_nans(False), jax.debug_infs(False):
            yield


def scan(f, carry, xs, length=None, reverse=False, unroll=1) -> Any:
    """`lax.scan` if any array is traced; otherwise a loop that stacks the outputs of `f`.

    `xs` is a tree of arrays, or None if `length` is given. With `reverse=True` the last entry comes first. Known values
    are not given to `lax.scan`, which would compile `f` anew at each call.

    Args:
        f: `(carry, x) -> (carry, y)`.
        carry: the first carry.
        xs: arrays whose first axis is scanned.
        length: the number of steps, without `xs`.
        reverse: whether to begin with the last entry. Default: False.
        unroll: how many steps a turn of the compiled loop has on an accelerator, where to start a small step takes
            longer than the step. Default: 1.

    Returns:
        `(carry, ys)`: the last carry, and the outputs, stacked.

    >>> scan(lambda total, x: (total + x, total + x), 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([1., 3., 6.]))
    """
    known = tree_leaves((carry, xs))
    if is_traced(*known):
        return jax.lax.scan(f, carry, xs, length, reverse, 1 if jax.default_backend() == "cpu" else unroll)
    if xs is None:
        rows: Any = [None] * (length or 0)
    elif isinstance(xs, tuple) and all(isinstance(array, np.ndarray) for array in xs):
        rows = zip(*(array[::-1] if reverse else array for array in xs), strict=True)
    else:
        indices = range(len(tree_leaves(xs)[0]))
        rows = (tree_map(lambda a: a[i], xs) for i in (reversed(indices) if reverse else indices))  # noqa: B023 - called at once
    outputs = []
    for row in rows:
        carry, output = f(carry, row)
        outputs.append(output)
    if reverse:
        outputs.reverse()
    stacked = _stacked if namespace(*known) is np else lambda *leaves: jnp.array(leaves)
    return carry, tree_map(stacked, *outputs) if outputs else None


def while_loop(condition, f, carry) -> Any:
    """`lax.while_loop` if any array is traced; otherwise a loop: `carry = f(carry)` as long as `condition(carry)`."""
    if jax is not None and is_traced(*tree_leaves(carry)):
        return jax.lax.while_loop(condition, f, carry)
    while condition(carry):
        carry = f(carry)
    return carry


def _stacked(*leaves):
    """Arrays or numbers along a new first axis; a subclass of arrays is kept, which takes longer."""
    plain = type(leaves[0]) is np.ndarray or not isinstance(leaves[0], np.ndarray)
    return np.array(leaves) if plain else np.stack(leaves)


class Unbatched(NamedTuple):
    """Marks a residual without a batch axis, such as a norm of the weights: `vmap` passes it through unchanged."""

    value: Any


def is_unbatched(node):
    """Whether a node is marked `Unbatched`."""
    return isinstance(node, Unbatched)


def cond(pred, true_fn, false_fn, *args) -> Any:
    """`lax.cond` if `pred` is traced; otherwise just the chosen function, since a known value needs no program."""
    if is_traced(pred):
        return jax.lax.cond(pred, true_fn, false_fn, *args)
    return (true_fn if pred else false_fn)(*args)


def choose(condition, yes, no) -> Any:
    """`yes` where the condition holds, else `no`, two trees of arrays; a known condition just chooses one of them."""
    if is_traced(condition):
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
    return yes if condition else no


def by_platform(cpu, other, *args) -> Any:
    """`cpu(*args)` with arrays of NumPy, or of JAX on the CPU; `other(*args)` with those on a GPU or TPU."""
    leaves = tree_leaves(args)
    if is_traced(*leaves):
        return jax.lax.platform_dependent(*args, cpu=cpu, default=other)
    devices = [next(iter(array.devices())) for array in leaves if is_jax(array)]
    return (other if any(device.platform != "cpu" for device in devices) else cpu)(*args)


def vmap(f) -> Any:
    """`jax.vmap`, or a loop that stacks, over the leading axis of all arrays in the arguments except `Unbatched`.

    Args:
        f: the function of one example.

    Returns:
        The function of arrays with the examples along their first axis.

    >>> vmap(lambda a, b: a @ b)(np.ones((3, 2)), np.ones((3, 2)))
    array([2., 2., 2.])
    """

    def call(*args):
        if any(is_jax(leaf) for leaf in tree_leaves(args)):
            axes = tree_map(lambda node: None if is_unbatched(node) else 0, args, is_leaf=is_unbatched)
            return jax.vmap(f, axes)(*args)
        length = next(len(leaf) for leaf in tree_leaves(args, is_leaf=is_unbatched) if not is_unbatched(leaf))
        row = lambda i: tree_map(lambda a: a if is_unbatched(a) else a[i], args, is_leaf=is_unbatched)
        outputs = [f(*row(i)) for i in range(length)]
        return tree_map(lambda *leaves: np.stack(leaves), *outputs)

    return call

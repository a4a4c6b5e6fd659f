"""Examples: the data of a call as one `Data`, whose arrays may lie anywhere, and what needs no network to be known.

x and y are arrays, or dicts or NamedTuples of arrays, with the N examples along the first axis of each.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import backend, trees
from .checks import as_array
from .errors import FnnError, KindError, shorten
from .sources import Batches, mapped, rows

AT_ONCE = 2**24  # bytes of examples that are read from files at a time


class Data(NamedTuple):
    """Examples: x and y, arrays or dicts or NamedTuples of arrays, and weights (N,) or None."""

    x: Any
    y: Any
    weights: Any = None

    @property
    def size(self) -> int:
        """N, the number of examples."""
        return size_of(self.x)

    @property
    def shape(self) -> tuple:
        """The shape of one example of x; for several inputs, sorted pairs, `(("a", (3,)), ("b", (4,)))`."""
        return shape_of(self.x)

    @property
    def nbytes(self) -> int:
        """The size of one example in bytes."""
        return max(1, sum(math.prod(a.shape[1:]) * a.dtype.itemsize for a in trees.leaves(tuple(self))))

    @property
    def known(self) -> bool:
        """Whether the values are known, that is, none is a tracer."""
        return not backend.is_traced(*trees.leaves(tuple(self)))

    @property
    def streamed(self) -> bool:
        """Whether any of the arrays is memory-mapped, so that the data are read in pieces."""
        return any(mapped(array) is not None for array in trees.leaves(tuple(self)))

    def take(self, index) -> "Data":
        """These examples, by indices or a slice, in memory."""
        return Data(*trees.map(lambda array: rows(array, index), tuple(self)))

    def pieces(self, batch_size: int = 1) -> Iterator[tuple[int, "Data"]]:
        """Yield `(start, Data)` for all examples in order: at once or, for data in files, a few batches at a time."""
        if not self.streamed:
            yield 0, self
            return
        step = max(1, AT_ONCE // (self.nbytes * batch_size)) * batch_size
        for start in range(0, self.size, step):
            yield start, self.take(slice(start, start + step))

    def spread(self, most) -> "Data":
        """At most `most` examples, evenly spaced from the first to the last, without weights."""
        return self._replace(weights=None).take(np.linspace(0, self.size - 1, min(most, self.size)).astype(np.int32))


def opened(data, name="data") -> Data:
    """`(x, y)` or `(x, y, weights)`, given as arrays, lists or data frames, as `Data` of arrays wherever they are."""
    if isinstance(data, Batches):
        raise KindError(
            f"{name}: expected arrays (x, y), got {data}; batches are taken by fnn.fit, fnn.range_test, fnn.evaluate, "
            "fnn.predict and fnn.standardized"
        )
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        length = f" of length {len(data)}" if hasattr(data, "__len__") else ""
        hint = "write (x, y), with all examples in each"
        if hasattr(data, "__iter__") and not isinstance(data, dict) and not hasattr(data, "shape"):
            hint = "if these are examples (x, y), write tuple(map(np.stack, zip(*data))); if batches, fnn.Batches(data)"
        raise KindError(f"{name}: expected (x, y) or (x, y, weights), got {type(data).__name__}{length}; {hint}")
    names = ("x", "y", "weights")
    try:
        given = zip(names, data, strict=False)
        return Data(*(None if value is None and which != "x" else arrays(which, value) for which, value in given))
    except FnnError as error:
        raise error.at(name) if name != "data" else error  # noqa: B904 - the same error, its place added


def parts(name, examples) -> list:
    """`(name, array)` for each array in x or y."""
    if isinstance(examples, dict):
        return [(f"{name}[{key!r}]", examples[key]) for key in sorted(examples)]
    if hasattr(examples, "_fields"):
        return [(f"{name}.{field}", getattr(examples, field)) for field in examples._fields]
    return [(name, examples)]


def size_of(examples) -> int:
    """N, the number of examples along the first axis of x or y."""
    if isinstance(examples, dict | tuple):
        examples = next(iter(examples.values())) if isinstance(examples, dict) else examples[0]
    return examples.shape[0]


def shape_of(examples) -> tuple:
    """The shape of one example of x; for several inputs, a sorted tuple of pairs."""
    if isinstance(examples, dict) or hasattr(examples, "_fields"):
        named = examples if isinstance(examples, dict) else examples._asdict()
        return tuple((key, tuple(named[key].shape[1:])) for key in sorted(named))
    return tuple(examples.shape[1:])


def each(f, name, examples):
    """x or y with `f(name, array)` in place of each array."""
    results = [f(place, array) for place, array in parts(name, examples)]
    if isinstance(examples, dict):
        return dict(zip(sorted(examples), results, strict=True))
    return type(examples)(*results) if hasattr(examples, "_fields") else results[0]


def arrays(name, examples, xp=None):
    """x, y or weights as arrays of the namespace, by default wherever they are: in a file, on a device or the host."""
    if examples is None:
        raise KindError(f"{name}: expected an array, got None")
    if isinstance(examples, tuple) and _are_parameters(examples):
        raise KindError(f"{name}: expected an array, got parameters: {shorten(examples)}; {FIRST}")
    if isinstance(examples, tuple) and not hasattr(examples, "_fields") and any(hasattr(a, "shape") for a in examples):
        raise KindError(
            f"{name}: expected an array, or a dict or NamedTuple of arrays, got a tuple of {len(examples)} arrays; "
            f"use a dict such as {{'a': ..., 'b': ...}}"
        )
    convert = lambda place, a: as_array(place, a, (backend.jnp if backend.is_jax(a) else np) if xp is None else xp)
    return each(convert, name, examples)


def _are_parameters(examples) -> bool:
    """Whether a tuple given as x or y is a tree of fnn's parameters, or a state."""
    if hasattr(examples, "_fields"):
        return type(examples).__module__.partition(".")[0] == __package__
    return any(isinstance(part, tuple) and _are_parameters(part) for part in examples)


FIRST = "the parameters come first: net.apply(params, x), fnn.value_and_grad(net, loss)(params, x, y)"

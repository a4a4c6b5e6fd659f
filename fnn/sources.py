"""Sources of data that are not arrays in memory: memory-mapped arrays, and iterables that give batches.

Memory-mapped arrays are `np.memmap` and slices of it. Their data stay in the files: only the requested rows are read
into memory, and their pages are released afterwards. `Batches` names an iterable; `fnn.streams` reads it.
"""

import inspect
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import ArgumentError, KindError, integer, shorten, usage

_ROWS = 64  # rows are read before pages are released, since up to 2 MiB of neighbouring data come with each


def mapped(array) -> Any:
    """The `np.memmap` of the whole file that an array is a slice of, or None."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = array.base
    return None


def rows(array, index):
    """`array[index]` in memory, for indices or a slice; a file is read in the order of its rows."""
    file = mapped(array)
    if file is None:
        return array[index]
    if isinstance(index, slice):
        result = np.array(array[index])
        _give_back(file)
        return result
    result = np.empty((len(index), *array.shape[1:]), array.dtype)
    for part in np.split(np.argsort(index), range(_ROWS, len(index), _ROWS)):
        _expect(array, file, index[part])
        result[part] = array[index[part]]
        _give_back(file)
    return result


def _expect(array, file, index):
    """Tell the operating system which rows will be read, so that it fetches them in parallel."""
    if hasattr(mmap, "MADV_WILLNEED"):
        first = array.ctypes.data - file.ctypes.data + file.offset % mmap.ALLOCATIONGRANULARITY
        for start in (first + index.astype(np.int64) * array.strides[0]).tolist():
            in_page = start % mmap.PAGESIZE
            file.base.madvise(mmap.MADV_WILLNEED, start - in_page, in_page + array[:1].nbytes)


def _give_back(file):
    """Release the pages that were read, except in a copy-on-write mapping, whose changes exist nowhere else."""
    if file.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        file.base.madvise(mmap.MADV_DONTNEED)


@usage("fnn.Batches(loader), or fnn.Batches(make_batches, steps=100)")
class Batches:
    """Data that an iterable gives batch by batch, such as a PyTorch `DataLoader`, in place of `(x, y)`.

    Each batch is `(x, y)` or `(x, y, weights)`, of arrays or of tensors in the host's memory, which become arrays of
    NumPy; for `fnn.predict` and `fnn.standardized` it may be x alone. The order is the iterable's own. Batches are
    checked as they come. The first one of a run shows how many examples the largest has (or `batch_size=` of `fit`
    says so); a smaller one, such as the last of an epoch, is padded with examples of weight 0, and the state of a run
    counts it as a full one.

    Args:
        source: an iterable that begins anew each time it is iterated over, once for each epoch; or a function that
            returns such an iterable, such as a generator function, given the number of the epoch, from 0, if it has an
            argument `epoch` (always 0 for validation data); or an iterator, such as a generator, which goes on from
            epoch to epoch and must not end.
        steps: the number of batches in an epoch. Default: `len(source)`, if it has one. `evaluate`, `predict` and
            `standardized` read to the end without it.

    >>> import fnn
    >>> x, y = np.eye(4), np.ones((4, 1))
    >>> def halves(epoch):
    ...     order = np.random.default_rng(epoch).permutation(4)  # another in each epoch, the same in each run
    ...     yield from ((x[i], y[i]) for i in np.split(order, 2))
    >>> data, key = Batches(halves, steps=2), fnn.random.key(0, backend="numpy")
    >>> state, history = fnn.fit(fnn.mlp((1,)), fnn.Quadratic(), fnn.Sgd(0.1), data, key=key, epochs=3)
    >>> int(state.step)
    6
    """

    def __init__(self, source: Any, steps: int | None = None):
        iterates, called = hasattr(source, "__iter__") or hasattr(source, "__getitem__"), callable(source)
        if isinstance(source, type) or not (iterates or called) or isinstance(source, str | dict | Batches):
            raise KindError(
                f"source: expected an iterable that gives batches, such as a DataLoader, got {shorten(source)}"
            )
        if hasattr(source, "shape") or hasattr(source, "columns"):
            raise KindError(
                f"source: expected batches, got one array, {type(source).__name__}; arrays are data themselves: (x, y)"
            )
        if called and not iterates:
            _check_arguments(source)
        length = None if called and not iterates else _length(source)
        if length == 0:
            raise ArgumentError("source: expected at least one batch, got none")
        if steps is not None:
            steps = integer("steps", steps, least=1)
            if length is not None and steps > length:
                raise ArgumentError(f"steps: expected at most the number of batches, {length}, got {steps}")
        self.source, self.steps = source, length if steps is None else steps

    def __repr__(self):
        return f"Batches({self.name}, steps={self.steps})"

    @property
    def name(self) -> str:
        """What kind of thing gives the batches."""
        return getattr(self.source, "__qualname__", type(self.source).__name__)

    @property
    def begins_anew(self) -> bool:
        """Whether the batches can be read again from the first one."""
        return not isinstance(self.source, Iterator)

    def opened(self, epoch: int) -> Iterator:
        """An iterator over the batches of an epoch."""
        source: Any = self.source
        if not hasattr(source, "__iter__") and callable(source):
            source = source(epoch=epoch) if _takes_epoch(source) else source()
            if isinstance(source, Iterator) or hasattr(source, "__iter__"):
                return iter(source)
            raise KindError(f"fnn.Batches: expected {self.name} to return batches, got {shorten(source)}")
        return iter(source)


def _check_arguments(function):
    """Raise if a function cannot be called with nothing but perhaps `epoch`, as far as anybody can say."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**({"epoch": 0} if "epoch" in signature.parameters else {}))
    except TypeError:
        raise KindError(
            f"source: expected a function without arguments, or of `epoch`, got one of {signature}; "
            "write fnn.Batches(lambda: make_batches(...), steps=...)"
        ) from None


def _takes_epoch(function):
    """Whether a function has an argument `epoch`; False where nobody can say."""
    try:
        return "epoch" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _length(source):
    """`len(source)`, or None where it has none, as a stream does not."""
    try:
        return len(source)
    except TypeError:
        return None

"""Streams: batches that are read from an iterable, checked as they come, and padded to one size.

A `Stream` is what `Data` is for arrays: the loop and the evaluation ask it for the next batches. It belongs to the
host, and it is the one thing here that remembers its place, as the iterator does that it reads.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import examples, gate, trees
from .errors import ArgumentError, DataError, FnnError, KindError, ShapeError, integer
from .examples import Data, parts
from .sources import Batches


def opened(data: Any, name: str = "data", batch_size: int | None = None, epoch: int = 0) -> Any:
    """`examples.opened`, and of `Batches` a `Stream`, of which the first batch has been read."""
    return Stream(data, name, batch_size, epoch) if isinstance(data, Batches) else examples.opened(data, name)


def admitted(net, loss, params, data, name="data", weights="positive", like=None) -> Any:
    """`gate.admitted`, and of a `Stream` its first batch; the others are checked as they come."""
    if isinstance(data, Batches | Stream):
        data = data if isinstance(data, Stream) else Stream(data, name)
        data.admit(net, loss, params, weights, like)
        return data
    return gate.admitted(net, loss, params, data, name, weights, like)


def present(data) -> Data:
    """The data themselves, or of a stream its first batch."""
    return data.first if isinstance(data, Stream) else data


def inputs_of(batches: Batches) -> Iterator[tuple[str, Any, Any]]:
    """`(place, x, weights)` of each batch of one epoch, of which x has not been checked; weights may be None."""
    number, first = -1, None
    for number, given in enumerate(itertools.islice(batches.opened(0), batches.steps)):
        place, weights = f"batch {number}", None
        if isinstance(given, tuple | list) and not hasattr(given, "_fields"):
            if len(given) not in (1, 2, 3):
                raise KindError(f"{place}: expected x, (x, y) or (x, y, weights), got {len(given)} parts")
            given, weights = given[0], given[2] if len(given) == 3 else None
        try:
            x = examples.arrays("x", given)
            first = Data(x, None) if first is None else first
            gate.check_like(Data(x, None), first)
        except FnnError as error:
            raise error.at(place)  # noqa: B904 - the same error, its place added
        yield place, x, weights
    if number + 1 < (batches.steps or 1):
        wanted = "at least one batch" if batches.steps is None else f"{batches.steps} batches"
        raise DataError(
            f"data: expected {wanted}, got {number + 1} from {batches.name}{'' if batches.begins_anew else _ONCE}"
        )


_ONCE = (
    "; an iterator can be read only once: give a function that makes a new one, such as "
    "fnn.Batches(lambda: make_batches(), steps=...)"
)


class Stream:
    """The batches of an iterable, epoch by epoch.

    first         the first batch, as it was given, on the host
    batch_size    B, the most examples that a batch may have
    """

    streamed = True

    def __init__(self, batches: Batches, name: str = "data", batch_size: int | None = None, epoch: int = 0):
        self.batches, self.name = batches, name
        self._iterator: Iterator | None = None
        self._epoch, self._done, self._read_once = epoch, 0, False
        self._begun = 1  # how often the batches were begun
        self._check: Any = None  # of a batch, for a network and a cost, and
        self._model: Any = None  # the first batch after it
        self._kept: tuple[int, Any] = 0, None  # the batches that were read last, and the number of the first
        self.first = self._given()
        self._pending: Data | None = self.first
        self.batch_size = self.first.size if batch_size is None else integer("batch_size", batch_size, least=1)

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        if self.batches.steps is None:
            raise ArgumentError(
                f"{self.name}: expected the number of batches in an epoch, since {self.batches.name} has no length; "
                "write fnn.Batches(..., steps=100)"
            )
        return self.batches.steps

    @property
    def size(self) -> int:
        """The number of examples in an epoch of full batches."""
        return self.steps * self.batch_size

    @property
    def x(self) -> Any:
        return self.first.x

    @property
    def weights(self) -> Any:
        return self.first.weights

    @property
    def shape(self) -> tuple:
        """The shape of one example of x."""
        return self.first.shape

    @property
    def nbytes(self) -> int:
        """The size of one example in bytes."""
        return self.first.nbytes

    @property
    def known(self) -> bool:
        """Whether the values of all the data are known."""
        return False

    @property
    def text(self) -> str:
        """What a resumed run can know of its data."""
        arrays = ", ".join(f"{name} {shape} {dtype}" for name, shape, dtype in _outline(self._model))
        return f"{self.batches.steps} batches of {arrays}"

    def spread(self, most) -> Data:
        """At most `most` examples of the first batch."""
        return self.first.spread(most)

    def close(self):
        """End an iterator that was made here."""
        if self.batches.begins_anew and hasattr(self._iterator, "close"):
            self._iterator.close()  # type: ignore[union-attr]
        self._iterator = None

    # ---- checks --------------------------------------------------------------------------------------------------

    def admit(self, net, loss, params, weights="positive", like=None):
        """Check the first batch, and from now on all others, for this network and cost."""
        blank = trees.map(lambda p: np.broadcast_to(np.zeros((), p.dtype), p.shape), params)  # on NumPy, no memory

        def check(batch, place, like):
            return gate.dataset(net, loss, blank, batch, place, weights, like, output=False)

        self._model = check(self.first, self._place(0), like)
        gate.check_output(net, loss, params, gate.converted(params, *self.first.take(slice(0, 32))))
        self._check = check

    def _checked(self, batch, place) -> Data:
        """A batch that is like the first one, of at most B examples, in the dtypes of the parameters."""
        if batch.size > self.batch_size:
            raise ShapeError(
                f"{place}: expected at most {self.batch_size} examples, got {batch.size}; the size of the largest "
                f"batch, by default that of the first, is an argument of fit, batch_size={batch.size}"
            )
        batch = self._check(batch, place, self.first)
        expected, found = _outline(self._model), _outline(batch)
        if found != expected:
            wrong = next((pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]), None)
            shown = lambda outline: f"{outline[0]} of shape {outline[1]} and dtype {outline[2]}"
            names = lambda outlines: ", ".join(name for name, *_ in outlines)
            sides = map(shown, wrong) if wrong else (names(expected), names(found))
            raise ShapeError("{}: expected {}, as in the first batch, got {}".format(place, *sides))
        return batch

    # ---- reading -------------------------------------------------------------------------------------------------

    def once(self) -> Iterator[Data]:
        """The batches of one epoch, to the end if the number of steps was not given."""
        if self._read_once:
            self._begin(0 if self.batches.begins_anew else self._epoch + 1)  # the same, whenever a run is resumed
        self._read_once = True
        while self.batches.steps is None or self._done < self.batches.steps:
            batch = self._next(may_end=self.batches.steps is None and self._done > 0)
            if batch is None:
                return
            yield batch

    def pieces(self, batch_size: int = 1) -> Iterator[tuple[int, Data]]:
        """As `Data.pieces`: a batch at a time."""
        start = 0
        for batch in self.once():
            yield start, batch
            start += batch.size

    def read(self, epoch: int, done: int, steps: int) -> Data:
        """The next batches after `done` of this epoch, stacked: (steps, B, ...), on the host, padded to B examples.

        Those that were read last can be read again, as a run does that looks for the step at which it diverged.
        """
        start, (first, kept) = epoch * self.steps + done, self._kept
        if kept is not None and first <= start and start + steps <= first + len(trees.leaves(kept)[0]):
            return Data(*trees.map(lambda a: a[start - first : start - first + steps], tuple(kept)))
        self._turn()
        if (self._epoch, self._done) != (epoch, done):
            self._begin(epoch)
            for _ in range(done):
                self._next()
        batches = []
        for _ in range(steps):
            self._turn()
            batches.append(self._next())
        weighted = any(b.weights is not None or b.size < self.batch_size for b in batches)
        padded = [padded_to(self.batch_size, b, weighted) for b in batches]
        stacked = Data(*trees.map(lambda *arrays: np.stack(arrays), *(tuple(b) for b in padded)))
        self._kept = start, stacked
        return stacked

    def _turn(self):
        """Begin the next epoch if this one is over."""
        if self._done == self.batches.steps:
            self._begin(self._epoch + 1)

    def _begin(self, epoch):
        self.close()
        self._epoch, self._done, self._pending = epoch, 0, None
        self._begun += 1

    def _next(self, may_end=False) -> Any:
        """The next batch, checked; None at the end if there may be one."""
        place, batch = self._place(self._done), self._pending
        self._pending = None
        if batch is None:
            batch = self._given(may_end)
        if batch is not None:
            batch = self._checked(batch, place)
            self._done += 1
        return batch

    def _given(self, may_end=False) -> Any:
        """The next batch as `Data`, as it comes from the iterable."""
        if self._iterator is None:
            self._iterator = self.batches.opened(self._epoch)
        try:
            given = next(self._iterator)
        except StopIteration:
            if may_end:
                return None
            raise self._ended() from None
        except Exception as error:
            error.add_note(f"{self._place(self._done)} was being read from {self.batches.name}.")
            raise
        place = self._place(self._done)
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise KindError(f"{place}: expected (x, y) or (x, y, weights), got {_for_pairs(given)}")
        if any(array is not None and np.ndim(array) == 0 and not isinstance(array, dict) for array in given):
            raise ShapeError(
                f"{place}: expected many examples at a time, got a single one; give it a loader of batches, such as "
                "torch.utils.data.DataLoader(dataset, batch_size=32)"
            )
        data = examples.opened(given, place)
        try:
            gate.check_examples(data.x)
            gate.check_counts(data)
        except FnnError as error:
            raise error.at(place)  # noqa: B904 - the same error, its place added
        return Data(*trees.map(np.array, tuple(data)))  # a copy, since some loaders fill the same memory again

    def _place(self, batch) -> str:
        prefix = "" if self.name == "data" else f"{self.name}: "
        return f"{prefix}batch {batch} of epoch {self._epoch}"

    def _ended(self) -> FnnError:
        """The error for batches that end too early, with what to write."""
        wanted = "at least one batch" if self.batches.steps is None else f"{self.batches.steps} batches"
        fix = f"; write steps={self._done}" if self._done else "; it must not be empty"
        if not self.batches.begins_anew:
            fix = _ONCE
        elif self._begun > 1 and not self._done:
            fix = "; it must give its batches anew in each epoch: a function must make a new iterable at each call"
        return DataError(
            f"{self.name}: expected {wanted} in each epoch, got {self._done} in epoch {self._epoch} from "
            f"{self.batches.name}{fix}"
        )


def _for_pairs(given) -> str:
    """What a batch is that is not (x, y), and how to make pairs of it."""
    if isinstance(given, dict) or (isinstance(given, tuple | list) and len(given) > 3):
        keys = [*map(repr, given), "...", "..."] if isinstance(given, dict) else [0, 1]
        return (
            f"a {type(given).__name__} of {len(given)}; make pairs of it, for example by fnn.Batches(lambda: "
            f"((b[{keys[0]}], b[{keys[1]}]) for b in loader), steps=len(loader))"
        )
    hint = "; if these are all the data, pass (x, y) itself, without fnn.Batches" if hasattr(given, "shape") else ""
    return f"{type(given).__name__}{hint}"


def padded_to(size: int, batch: Data, weighted: bool = True) -> Data:
    """The batch with its last example repeated to this size; with `weighted`, those have weight 0."""
    n = batch.size
    x, y = (trees.map(lambda a: _repeated(a, size - n), part) for part in (batch.x, batch.y))
    if not weighted:
        return Data(x, y, batch.weights)
    weights = np.ones(n, np.float32) if batch.weights is None else batch.weights
    return Data(x, y, np.pad(weights, (0, size - n)))


def _repeated(array, more):
    return array if more <= 0 else np.concatenate([array, np.repeat(array[-1:], more, axis=0)])


def _outline(batch) -> list[tuple]:
    """`(name, shape, dtype)` of each array of a batch, where N stands for the number of examples."""
    named = [*parts("x", batch.x), *parts("y", batch.y)]
    named += [] if batch.weights is None else [("weights", batch.weights)]
    shape = lambda a: f"({', '.join(['N', *map(str, a.shape[1:])])}{',' * (a.ndim == 1)})"
    return [(name, shape(array), str(array.dtype)) for name, array in named]

"""Data larger than memory: x, y or weights as `np.memmap`, of which no more than some steps' batches are ever read.

The batches are those that the same data would make in memory, since the order of an epoch is a function of the key.
While a device works on some of them the host reads the next.
"""

from typing import Any

import numpy as np

from . import backend, random
from .backprop import enter_batch, unpack
from .batching import batches
from .errors import FnnError, same_shape
from .mapping import mapped, rows
from .training import check_data, run

AT_ONCE = 2**24  # bytes of examples


def check(net, loss, params, data, name="data") -> Any:
    """`training.check_data`; of data that lie in a file some examples at a time, and they stay where they are."""
    if not any(mapped(a) is not None for a in unpack(data, name)):
        return check_data(net, loss, params, data, name)
    x, y, weights = map(_on_host, ("x", "y", "weights"), unpack(data, name))
    found, wanted = np.shape(y)[:1], np.shape(x)[:1]
    if found != wanted or wanted in ((), (0,)):
        check_data(net, loss, params, (x, y), name)  # which raises
    if weights is not None:
        same_shape(f"{name}: weights", weights, wanted)
    for start, *part in parts((x, y, weights)):
        try:
            check_data(net, loss, params, part, name)
        except FnnError as error:
            place = f"of the examples {start} to {start + len(part[0]) - 1}, which are 0 to {len(part[0]) - 1} here"
            raise error.at(place)  # noqa: B904 - the same error, its place added
    return x, y, weights


def _on_host(what, array) -> Any:
    """An array in a file as it is, another one as NumPy's."""
    if array is None or mapped(array) is not None:
        return array
    return np.asarray(array) if backend.is_jax(array) else backend.as_array(what, array, np)


def parts(data, batch_size=1) -> Any:
    """`(start, x, y, weights)` of all examples in their order: at once, or, in a file, some batches' at a time."""
    if not any(mapped(a) is not None for a in data):
        yield 0, *data
        return
    n, size = len(data[0]), max(1, AT_ONCE // (_bytes(data) * batch_size)) * batch_size
    for start in range(0, n, size):
        yield start, *read(data, slice(start, start + size))


def advance(state, penalty, data, *, steps, batch_size, shuffle, **how):
    """`training.run`, of so many steps; of data in a file, their batches are read some at a time."""
    if not any(mapped(a) is not None for a in data):
        return run(state, penalty, *data, steps=steps, batch_size=batch_size, shuffle=shuffle, **how)
    n, first, key = len(data[0]), int(state.step), random.like(state.key, np)
    pieces = -(-steps * batch_size * _bytes(data) // AT_ONCE)
    histories = []
    for part in np.array_split(np.arange(first, first + steps), min(pieces, steps)):
        index, used = batches(key, n, batch_size, part[0], len(part), shuffle and batch_size < n)
        # `run` takes batch t mod S of data that make S batches: there this one is put
        index, used = (np.roll(a, part[0] % len(part), axis=0).reshape(-1) for a in (index, used))
        x, y, weights = read(data, index)
        if n % batch_size:
            weights = used.astype(np.float32) if weights is None else np.where(used, weights, 0)
        _, x, y, weights = enter_batch(state.params, x, y, weights)
        if histories:
            np.asarray(histories[-1]["loss"])  # not more than one piece ahead of the device
        state, history = run(
            state, penalty, x, y, weights, steps=len(part), batch_size=batch_size, shuffle=False, **how
        )
        histories.append(history)
    return state, {name: np.concatenate([h[name] for h in histories]) for name in histories[0]}


def read(data, index) -> Any:
    """These examples of x, y and weights, in memory."""
    return [None if a is None else rows(a, index) for a in data]


def _bytes(data):
    """Of one example."""
    return max(1, sum(a[:1].nbytes for a in data if a is not None))

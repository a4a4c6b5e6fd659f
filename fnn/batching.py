"""The order of examples: which example stands where in an epoch, and the batches that are cut from that order.

`n` examples in batches of `B` make an epoch of S = ⌈n / B⌉ steps. Step t is batch t mod S of epoch t div S, so a run
can go on from any step. The order of an epoch is a stateless bijection of the index, computed where it is needed:

    position p = l·b + r on Z_a × Z_b, a·b ≥ n      l ← (l + F(r)) mod a,  r ← (r + F(l)) mod b,  in turn, 12 rounds

a Feistel network (Luby and Rackoff, 1988) with a 32-bit finalizer for F. A result of n or more goes through the network
again until it falls below n (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import functools
import math

import numpy as np

from . import backend, random
from .errors import ArgumentError, ShapeError, integer

_ROUNDS = 12
_SORTED = (
    64  # up to here a stable sort of random words is fairer: a Feistel network is an even permutation when n is small
)


def steps_per_epoch(n, batch_size):
    """S = ⌈n / batch_size⌉, once both make sense: at least one example, and no batch larger than the data."""
    batch_size = integer("batch_size", batch_size, least=1)
    if n < 1:
        raise ShapeError("data: expected at least one example, got none")
    if n >= 2**31:
        raise ArgumentError(f"data: expected fewer than 2**31 examples, got {n}")
    if batch_size > n:
        raise ArgumentError(f"batch_size: expected at most the number of examples, {n}, got {batch_size}")
    return -(-n // batch_size)


def batches(key, n, batch_size, step, steps, shuffle=True):
    """The batches of `steps` consecutive steps from `step` on.

    Returns `(indices, mask)`, each of shape (steps, batch_size): int32 indices of examples, and False where a ragged
    last batch was filled up (with an example that has been used already, to be given the weight 0). Every example is
    used exactly once an epoch. `key` is the key of the run, and epoch e has the order of `fold_in(fold_in(key, 0), e)`.

    >>> indices, mask = batches(random.key(0, backend="numpy"), n=5, batch_size=2, step=0, steps=3)
    >>> sorted(indices[mask].tolist())
    [0, 1, 2, 3, 4]
    """
    per_epoch, steps = steps_per_epoch(n, batch_size), integer("steps", steps, least=1)
    xp = backend.namespace(key, step)
    t = step + xp.arange(steps, dtype=np.int32)
    epoch, batch = t // per_epoch, t % per_epoch
    start, offset = batch[:, None] * batch_size, xp.arange(batch_size, dtype=np.int32)
    mask = offset < n - start
    position = start + xp.minimum(offset, n - 1 - start)  # start + offset may be more than int32 holds
    if not shuffle:
        return position, mask
    first = step // per_epoch  # steps that begin anywhere within an epoch touch at most this many epochs
    epochs = first + xp.arange(1 + (steps + per_epoch - 2) // per_epoch, dtype=np.int32)
    base = random.fold_in(key, 0)
    if n <= _SORTED:
        orders = backend.vmap(lambda e: order(random.fold_in(base, e), n))(epochs)
        return orders[(epoch - first)[:, None], position], mask
    words = backend.vmap(lambda e: random.bits(random.fold_in(base, e), (_ROUNDS,)))(epochs)
    return _walk(words[epoch - first].T[:, :, None], n, position), mask


def order(key, n):
    """The order of one epoch: position -> example, (n,) int32, a permutation of 0 … n−1."""
    xp = backend.namespace(key)
    if n <= _SORTED:
        return xp.argsort(random.bits(key, (n,)), stable=True).astype(np.int32)
    return _walk(random.bits(key, (_ROUNDS,)), n, xp.arange(n, dtype=np.int32))


def _walk(words, n, position):
    """The bijection of 0 … n−1 at the given positions; `words` holds a random word, or an array of them, a round."""
    xp = backend.namespace(words, position)
    a, b = _factors(n)
    few = a * b - n  # results beyond n, at most some 30: where the walk leads from each is looked up
    beyond = xp.broadcast_to(xp.arange(n, a * b, dtype=np.uint32), (*position.shape[:-1], few))
    # what is used more than once XLA computes, and compiles, each time anew, unless it comes out of a loop
    out = _feistel(words, a, b, xp.concatenate([position.astype(np.uint32), beyond], axis=-1), looped=few > 0)
    if few:
        out, tail = out[..., :-few], out[..., -few:]
        for _ in range(few.bit_length()):  # each round doubles how far every entry has walked
            tail = _follow(tail, tail, n)
        out = _follow(out, tail, n)
    return out.astype(np.int32)


def _follow(out, tail, n):
    """Each result below n as it is, each beyond it as its entry of `tail` says."""
    xp = backend.namespace(out)
    beyond = out >= np.uint32(n)
    return xp.where(
        beyond, xp.take_along_axis(tail, xp.where(beyond, out - np.uint32(n), 0).astype(np.int32), axis=-1), out
    )


@functools.lru_cache
def _factors(n):
    """a from ¾√n to √n, and b, with a·b ≥ n and as close to it as can be."""
    a = np.arange(max(2, math.ceil(0.75 * math.sqrt(n))), math.isqrt(n) + 1)
    b = -(-n // a)
    best = np.argmin(a * b)
    return int(a[best]), int(b[best])


def _feistel(words, a, b, position, looped):
    """The network's result at each position, less than a · b."""
    a, b = np.uint32(a), np.uint32(b)

    def two_rounds(halves, words):
        left, right = halves
        left = _modulo(left + _modulo(_mix(right ^ words[0]), a), a)
        return (left, _modulo(right + _modulo(_mix(left ^ words[1]), b), b)), ()

    pairs = words.reshape(_ROUNDS // 2, 2, *words.shape[1:])
    halves = position // b, _modulo(position, b)
    if looped:
        halves, _ = backend.scan(two_rounds, halves, pairs)
    else:
        for pair in pairs:
            halves, _ = two_rounds(halves, pair)
    return halves[0] * b + halves[1]


def _modulo(x, m):
    """x mod m: NumPy divides five times as fast as it takes a remainder."""
    return x - x // m * m


def _mix(x):
    """A 32-bit finalizer: every bit of the result depends on every bit of x (C. Wellons, "lowbias32", 2018)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))

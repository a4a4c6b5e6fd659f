"""The order of examples: the position of each example in an epoch, the batches cut from it, and random samples.

An epoch uses each of n examples once, in an order of its own: a stateless bijection of the index, computed on demand. A
step takes the next min(B, n − seen) examples, whatever the position in the epoch, so with any sequence of batch sizes
an epoch uses every example exactly once. The bijection is

    position p = l·b + r on Z_a × Z_b, a·b ≥ n      l ← (l + F(r)) mod a,  r ← (r + F(l)) mod b,  in turn, 12 rounds

a Feistel network (Luby and Rackoff, 1988) with a 32-bit finalizer for F. A result of n or more goes through the network
again until it falls below n (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import backend, random
from .errors import ArgumentError, ShapeError, integer

__all__ = ["Plan", "joins", "order"]

_ROUNDS = 12
_SORTED = 64  # up to this n a stable sort of random words is fairer: a Feistel network is then an even permutation


@dataclass(frozen=True)
class Plan:
    """How n examples are cut into batches: static, and checked on creation.

    Args:
        n: the number of examples, from 1 to 2³¹ − 1.
        batch_size: B, from 1 to n.
        shuffle: whether each epoch has its own order; False keeps the order of the data. Default: True.
        sampling: "shuffled", or "poisson": each example joins a batch independently. Default: "shuffled".
        spread: how the examples of a batch are divided over devices, a `devices.Spread`. Default: None, one device.

    >>> plan = Plan(5, 2)
    >>> indices, mask = plan.batches(random.key(0, backend="numpy"), epoch=0, seen=0, steps=plan.steps)
    >>> sorted(indices[mask].tolist())
    [0, 1, 2, 3, 4]
    """

    n: int
    batch_size: int
    shuffle: bool = True
    sampling: str = "shuffled"
    spread: Any = None

    def __post_init__(self):
        object.__setattr__(self, "batch_size", integer("batch_size", self.batch_size, least=1))
        object.__setattr__(self, "shuffle", bool(self.shuffle))
        if self.n < 1:
            raise ShapeError("data: expected at least one example, got none")
        if self.n >= 2**31:
            raise ArgumentError(f"data: expected fewer than 2**31 examples, got {self.n}")
        if self.batch_size > self.n:
            raise ArgumentError(f"batch_size: expected at most the number of examples, {self.n}, got {self.batch_size}")

    @property
    def steps(self) -> int:
        """Steps per epoch, ⌈n / B⌉."""
        return -(-self.n // self.batch_size)

    @property
    def room(self) -> int:
        """The number of examples that a batch has room for: B, or 8 √B + 12 more if examples are sampled."""
        if self.sampling == "shuffled":
            return self.batch_size
        return min(self.n, self.batch_size + math.ceil(8 * math.sqrt(self.batch_size)) + 12)

    def batches(self, key, epoch, seen, steps: int, fresh: bool = False):
        """The batches of consecutive steps, starting after `seen` examples of an epoch.

        Every finished epoch uses every example exactly once, whatever batch sizes came before.

        Args:
            key: the key of the run; epoch e has the order of `fold_in(fold_in(key, 0), e)`.
            epoch, seen: the position of the run; they may be traced.
            steps: the number of steps.
            fresh: True promises that `seen` is 0. Default: False.

        Returns:
            `(indices, mask)`, each (steps, B): int32 indices of examples, and False where a batch at the end of an
            epoch is padded (with an example that has been used already, which should be given weight 0).
        """
        n, batch_size = self.n, self.batch_size
        xp = backend.namespace(key, epoch, seen)
        epochs, start = self._places(xp, epoch, 0 if fresh else seen, steps)
        start, offset = start[:, None], xp.arange(batch_size, dtype=np.int32)
        mask = offset < n - start
        position = start + xp.minimum(offset, n - 1 - start)  # start + offset may be more than int32 holds
        if not self.shuffle or (fresh and batch_size == n):
            return position, mask
        touched = -(-steps // self.steps) if fresh else 1 + (steps + self.steps - 2) // self.steps
        base, number, touched = random.fold_in(key, 0), epochs - epoch, epoch + xp.arange(touched, dtype=np.int32)
        if n <= _SORTED:
            orders = backend.vmap(lambda e: order(random.fold_in(base, e), n))(touched)
            indices = orders[number[:, None], position]
        else:
            words = backend.vmap(lambda e: random.bits(random.fold_in(base, e), (_ROUNDS,)))(touched)
            indices = _walk(words[number].T[:, :, None], n, position)
        if batch_size == n:  # an epoch that is one batch keeps the order of the data
            indices = xp.where(start == 0, position, indices)
        return indices, mask

    def sample(self, key, step):
        """The batch of a step that every example joins independently with probability q = B / n (Poisson sampling).

        Args:
            key: the key of the run; step t draws from `fold_in(fold_in(key, 2), t)`.
            step: t.

        Returns:
            `(indices, mask)`, each (room,). In less than one step in 10¹⁵ more examples join than there is room for;
            the surplus is left out.
        """
        joined = joins(random.fold_in(random.fold_in(key, 2), step), self.batch_size, self.n)
        xp = backend.namespace(joined)
        return _first_true(joined, self.room), xp.arange(self.room, dtype=np.int32) < joined.sum(dtype=np.int32)

    def begin(self, epoch, seen, length):
        """`(epoch, seen)` of a run on these examples; data of a different length start a new epoch."""
        xp = backend.namespace(epoch, seen, length)
        other = (length != self.n) & (seen > 0)
        return (epoch + xp.asarray(other, np.int32))[()], xp.where(other, 0, seen).astype(np.int32)[()]

    def place_after(self, epoch, seen, steps: int):
        """`(epoch, seen)` after that many steps; a finished epoch is `(epoch + 1, 0)`."""
        xp = backend.namespace(epoch, seen)
        epochs, start = self._places(xp, epoch, seen, steps)
        seen = start[-1] + xp.minimum(self.batch_size, self.n - start[-1])  # not more than int32 holds
        done = seen == self.n
        return (epochs[-1] + xp.asarray(done, np.int32)).astype(np.int32)[()], xp.where(done, 0, seen).astype(np.int32)[
            ()
        ]

    def _places(self, xp, epoch, seen, steps):
        """The epoch of each step, and the number of its examples used before that step, int32 (steps,)."""
        left = -(-(self.n - seen) // self.batch_size)  # steps to the end of the first epoch
        j = xp.arange(steps, dtype=np.int32)
        later = j - left
        epochs = epoch + xp.where(later < 0, 0, 1 + later // self.steps)
        start = xp.where(later < 0, seen + j * self.batch_size, later % self.steps * self.batch_size)
        return epochs.astype(np.int32), start.astype(np.int32)


def order(key, n):
    """The order of one epoch: position -> example, (n,) int32, a permutation of 0 … n−1.

    Args:
        key: the key of the epoch.
        n: the number of examples.

    Returns:
        The permutation (n,).

    >>> sorted(order(random.key(0, backend="numpy"), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    xp = backend.namespace(key)
    if n <= _SORTED:
        return xp.argsort(random.bits(key, (n,)), stable=True).astype(np.int32)
    return _walk(random.bits(key, (_ROUNDS,)), n, xp.arange(n, dtype=np.int32))


def joins(key, count, n):
    """Booleans (n,), each True with probability count / n to within 2⁻⁶⁴: random 64-bit words below count · 2⁶⁴ / n.

    A float32 uniform has steps of 2⁻²³, with which 1 of 10⁶ is 7 % off. The low halves of the words are drawn only if a
    high half decides nothing, in one call of 2³² / n.

    Args:
        key: the random key.
        count: the expected number, from 0 to n.
        n: the number of examples.

    Returns:
        Booleans (n,).

    >>> joined = joins(random.key(0, backend="numpy"), 100, 1000)
    >>> joined.shape, 60 < int(joined.sum()) < 140
    ((1000,), True)
    """
    high, low = divmod((count << 64) // n - 1, 2**32)  # the largest word that joins
    words = random.bits(key, (n,))
    tied = words == np.uint32(high)
    below = lambda: random.bits(random.fold_in(key, n), (n,)) <= np.uint32(low)  # n is not a counter of the high halves
    return (words < np.uint32(high)) | backend.cond(tied.any(), lambda: tied & below(), lambda: tied)


def _walk(words, n, position):
    """The bijection of 0 … n−1 at the given positions; `words` has a random word, or array of words, per round."""
    xp = backend.namespace(words, position)
    a, b = _factors(n)
    few = a * b - n  # results beyond n, at most about 30: a table says where the walk leads from each
    beyond = xp.broadcast_to(xp.arange(n, a * b, dtype=np.uint32), (*position.shape[:-1], few))
    # XLA recomputes, and recompiles, whatever is used more than once, unless it is the result of a loop
    out = _feistel(words, a, b, xp.concatenate([position.astype(np.uint32), beyond], axis=-1), looped=few > 0)
    if few:
        out, tail = out[..., :-few], out[..., -few:]
        for _ in range(few.bit_length()):  # each round doubles how far every entry has walked
            tail = _follow(tail, tail, n)
        out = _follow(out, tail, n)
    return out.astype(np.int32)


def _follow(out, tail, n):
    """Results below n unchanged, results beyond it replaced by their entries of `tail`."""
    xp = backend.namespace(out)
    beyond = out >= np.uint32(n)
    return xp.where(
        beyond, xp.take_along_axis(tail, xp.where(beyond, out - np.uint32(n), 0).astype(np.int32), axis=-1), out
    )


@functools.lru_cache
def _factors(n):
    """a from ¾√n to √n, and b, with a·b ≥ n and as close to n as possible."""
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
    """x mod m; in NumPy a division is five times as fast as a remainder."""
    return x - x // m * m


def _mix(x):
    """A 32-bit finalizer: every bit of the result depends on every bit of x (C. Wellons, "lowbias32", 2018)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _first_true(mask, size):
    """The indices of the first `size` true entries, int32, padded with 0 if there are fewer."""
    if backend.is_jax(mask):
        return backend.jnp.nonzero(mask, size=size, fill_value=0)[0].astype(np.int32)
    indices = np.flatnonzero(mask)[:size].astype(np.int32)
    return np.pad(indices, (0, size - len(indices)))

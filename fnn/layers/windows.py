"""Windows over images and sequences: where a kernel of convolution or pooling is applied.

Letters: N examples, K entries of a window, P positions of it, C channels. Images are (N, H, W, C), sequences (N, T, C);
`sizes` are those of the axes between the first and the last. Along an axis of size n, with a kernel of k entries a
dilation d apart, a stride s and padding (l, r), a window covers e = (k − 1) d + 1 entries and has

    p = ⌊(n + l + r − e) / s⌋ + 1  positions        entry a of window i is entry i s + a d − l of the axis

Padding "valid" is none; "same" gives ⌈n / s⌉ positions, with the odd entry at the end.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backend
from ..backend import is_jax, namespace
from ..errors import ArgumentError, KindError, ShapeError, integer, shape, shorten

_FEW = 8  # pieces that overlap


@dataclass(frozen=True)
class Windows:
    """All windows over axes of these sizes: static, made by `windows_over`."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @functools.cached_property
    def extents(self) -> tuple[int, ...]:
        """e, how many entries a window covers along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @functools.cached_property
    def positions(self) -> tuple[int, ...]:
        """p, the number of windows along each axis."""
        axes = zip(self.sizes, self.padding, self.extents, self.stride, strict=True)
        return tuple((n + low + high - e) // s + 1 for n, (low, high), e, s in axes)

    @property
    def padding_of_dx(self) -> list[tuple[int, int]]:
        """The padding with which the convolution of δ and the flipped kernel gives dx."""
        axes = zip(self.sizes, self.padding, self.extents, self.positions, self.stride, strict=True)
        return [(e - 1 - low, n + low - ((p - 1) * s + 1)) for n, (low, _), e, p, s in axes]

    @property
    def padding_of_dw(self) -> list[tuple[int, int]]:
        """The padding with which the convolution of x and δ gives dW: what the windows reach, and no more."""
        axes = zip(self.sizes, self.padding, self.extents, self.positions, self.stride, strict=True)
        return [(low, (p - 1) * s + e - n - low) for n, (low, _), e, p, s in axes]

    @property
    def entries(self) -> list[tuple[int, ...]]:
        """The K entries of a window, (a, b, ...), in the order of a flattened kernel."""
        return list(itertools.product(*map(range, self.kernel)))

    def joined(self, times: int) -> "Windows":
        """Each `times` neighbours along the last axis, which has no dilation, as one wider window."""
        (*kernel, k), (*stride, s) = self.kernel, self.stride
        return Windows(self.sizes, (*kernel, k + (times - 1) * s), (*stride, times * s), self.padding, self.dilation)

    def padded(self, x, fill: float = 0) -> Any:
        """x (N, *sizes, C) with its padding."""
        if not any(map(any, self.padding)):
            return x
        return namespace(x).pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=fill)

    def cut(self, x, fill: float = 0) -> list:
        """For each of the K entries, what all windows have there: arrays (N, *positions, C)."""
        x = self.padded(x, fill)
        return [x[self._places(entry)] for entry in self.entries]

    def patches(self, x) -> Any:
        """Every window as a row: (N, *positions, K, C)."""
        x, rank = self.padded(x), len(self.sizes)
        if is_jax(x):
            axes = enumerate(zip(self.positions, self.stride, self.kernel, self.dilation, strict=True))
            windows = x.at[(slice(None), *(_apart(axis, rank, *of_axis) for axis, of_axis in axes))]
            windows = windows.get(mode="promise_in_bounds")
        else:  # a view of x, in which positions and entries have strides of their own
            examples, *inner, channels = x.strides
            outer = (step * s for step, s in zip(inner, self.stride, strict=True))
            within = (step * d for step, d in zip(inner, self.dilation, strict=True))
            shape = (x.shape[0], *self.positions, *self.kernel, x.shape[-1])
            strides = (examples, *outer, *within, channels)
            windows = np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
        return windows.reshape(x.shape[0], *self.positions, math.prod(self.kernel), x.shape[-1])

    def put(self, patches) -> Any:
        """The transpose of `patches`: (N, *positions, K, C), added up where they were cut out, to give (N, *sizes, C).

        It goes axis by axis, since what is added up gets smaller each time.
        """
        rank: int = len(self.sizes)
        total: Any = patches.reshape(*patches.shape[:-2], *self.kernel, patches.shape[-1])
        axes = zip(self.sizes, self.padding, self.stride, self.kernel, self.dilation, strict=True)
        for axis, (n, (low, _), s, k, d) in enumerate(axes, start=1):
            xp, last = namespace(total), rank + 1  # (N, *sizes, p, *positions, k, *kernel, C)
            if k % s == 0 and d == 1:  # s entries of each window at a time: those of all windows lie side by side
                pieces = total.reshape(*total.shape[:last], k // s, s, *total.shape[last + 1 :])
                pieces = xp.moveaxis(pieces, (last, last + 1), (0, axis + 2))
                pieces = pieces.reshape(k // s, *total.shape[:axis], total.shape[axis] * s, *pieces.shape[axis + 3 :])
                total = _added_up(pieces, axis, [a * s - low for a in range(k // s)], 1, n)
            else:
                pieces = xp.moveaxis(total, last, 0)
                total = _added_up(pieces, axis, [a * d - low for a in range(k)], s, n)
        return total

    def _places(self, entry):
        axes = zip(entry, self.dilation, self.positions, self.stride, strict=True)
        return (slice(None), *(slice(a * d, a * d + (p - 1) * s + 1, s) for a, d, p, s in axes))


def _apart(axis, rank, positions, stride, entries, dilation):
    """Where along an axis entry a of window i is, i s + a d, indexed by the window and the entry along that axis."""
    places = np.add.outer(stride * np.arange(positions), dilation * np.arange(entries))
    return np.expand_dims(places, [other for other in range(2 * rank) if other not in (axis, axis + rank)])


def _added_up(pieces, axis, starts, step, n):
    """The sum of pieces (..., p, ...), each of whose entries come to start, start + step, ... among n along the axis.

    What comes before 0 or after n is left out.
    """
    p, before = (pieces.shape[axis + 1] - 1) * step + 1, (slice(None),) * axis
    if is_jax(pieces):
        if step == 1 and len(pieces) <= _FEW:  # XLA on the CPU does not fuse paddings
            return _by_stretches(pieces, axis, starts, n)
        padding = [
            [(0, 0, 0)] * axis + [(start, n - start - p, step - 1)] + [(0, 0, 0)] * (pieces.ndim - axis - 2)
            for start in starts
        ]
        return sum(
            backend.jax.lax.pad(piece, np.zeros((), piece.dtype), config)
            for piece, config in zip(pieces, padding, strict=True)
        )
    low, high = max(0, -starts[0]), max(0, starts[-1] + p - n)
    if step == 1 and p == n and starts == [0]:
        return pieces[0]
    shape = (*pieces.shape[1 : axis + 1], low + n + high, *pieces.shape[axis + 2 :])
    total = np.zeros_like(pieces, shape=shape)
    for piece, start in zip(pieces, starts, strict=True):
        total[(*before, slice(low + start, low + start + p, step))] += piece
    return total[(*before, slice(low, low + n))]


def _by_stretches(pieces, axis, starts, n):
    """The same with step 1, put together from stretches of the axis: each is the sum of the pieces that reach it."""
    p, before = pieces.shape[axis + 1], (slice(None),) * axis
    ends = {0, n, *(min(max(end, 0), n) for start in starts for end in (start, start + p))}
    stretches = []
    for low, high in itertools.pairwise(sorted(ends)):
        pairs = zip(pieces, starts, strict=True)
        parts = [a[(*before, slice(low - s, high - s))] for a, s in pairs if s <= low and high <= s + p]
        of_none = (*pieces.shape[1 : axis + 1], high - low, *pieces.shape[axis + 2 :])
        stretches.append(sum(parts) if parts else backend.jnp.zeros(of_none, pieces.dtype))
    return backend.jnp.concatenate(stretches, axis=axis)


def windows_over(layer, input_shape) -> Windows:
    """The windows of a layer (which has kernel, stride, padding and dilation) over input of this shape, (*sizes, C)."""
    input_shape, rank = shape("input_shape", input_shape), len(layer.kernel)
    if len(input_shape) != rank + 1:
        form = {1: "(T, C)", 2: "(H, W, C)"}.get(rank, f"of {rank + 1} sizes")
        hint = ""
        if len(input_shape) == rank:
            hint = "; if the channel is missing, use x[..., None]; for a single example, x[None]"
        elif len(input_shape) == 1:
            hint = "; for flat images use x.reshape(-1, H, W, C)"
        raise ShapeError(f"expected input of shape {form}, the channels last, got {input_shape}{hint}")
    return _windows(input_shape[:-1], layer.kernel, layer.stride, layer.padding, layer.dilation)


@functools.lru_cache(maxsize=4096)
def _windows(sizes, kernel, stride, padding, dilation):
    rank = len(kernel)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == "same":
        over = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, stride, extents, strict=True)]
        pads = tuple((total // 2, total - total // 2) for total in over)
    else:
        each = (0,) * rank if padding == "valid" else per_axis(padding, rank)
        pads = tuple(p if isinstance(p, tuple) else (p, p) for p in each)
    for n, (low, high), e in zip(sizes, pads, extents, strict=True):
        if n + low + high < e:
            raise ShapeError(
                f"expected axes of at least {tuple(extents)} with padding, the size of a window, got {sizes}; if the "
                f"channels come first, use {_LAST[rank]}"
            )
    return Windows(sizes, kernel, stride, pads, dilation)


_LAST = {1: "x.transpose(0, 2, 1)", 2: "x.transpose(0, 2, 3, 1)", 3: "x.transpose(0, 2, 3, 4, 1)"}


def check_channels(x):
    """Raise if x are images with their channels first, by all appearances: (N, 1, n, n) or (N, 3, n, n)."""
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] >= 8:
        raise ShapeError(
            f"expected images of shape (N, H, W, C), the channels last, got {x.shape}; if the channels "
            f"come first, use {_LAST[2]}"
        )


def per_axis(value, rank) -> tuple:
    """A number for all axes, or a tuple with one for each, as a tuple."""
    return value if isinstance(value, tuple) else (value,) * rank


def check_windows(layer, rank):
    """Check and settle the fields stride, padding and dilation of a layer whose kernel has this many axes."""
    for name in ("stride", "dilation"):
        value = getattr(layer, name)
        if isinstance(value, tuple):
            if len(value) != rank:
                raise ArgumentError(f"{name}: expected a number, or one for each of {rank} axes, got {value}")
            value = tuple(integer(f"{name}[{i}]", v, least=1) for i, v in enumerate(value))
        else:
            value = _number(name, value, "an integer, or a tuple of one for each axis", least=1)
        object.__setattr__(layer, name, _settled(value))
    object.__setattr__(layer, "padding", _padding(layer.padding, rank))


def _padding(padding, rank):
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ArgumentError(f"padding: expected 'valid', 'same' or numbers, got {padding!r}")
        return padding
    if not isinstance(padding, tuple):
        return _number("padding", padding, "'valid', 'same', an integer, or a tuple of one for each axis") or "valid"
    if len(padding) != rank:
        hint = f"; write ({padding},) for (before, after)" if rank == 1 and len(padding) == 2 else ""
        raise ArgumentError(f"padding: expected a number or a pair for each of {rank} axes, got {padding}{hint}")
    pairs = []
    for i, pair in enumerate(padding):
        pair = pair if isinstance(pair, tuple) else (pair, pair)
        if len(pair) != 2:
            raise ArgumentError(f"padding[{i}]: expected a number or a pair (before, after), got {pair}")
        low, high = (integer(f"padding[{i}]", p) for p in pair)
        pairs.append(low if low == high else (low, high))
    return _settled(tuple(pairs)) or "valid"


def _number(name, value, wanted, least=0):
    """An integer that serves all axes."""
    try:
        return integer(name, value, least)
    except KindError:
        hint = f"; write {shorten(_as_tuple(value))}" if isinstance(value, list) else ""
        if isinstance(value, str) or callable(value):
            hint = "; an activation is a layer of its own"
        raise KindError(f"{name}: expected {wanted}, got {shorten(value)}{hint}") from None


def _as_tuple(value):
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _settled(value):
    """A tuple whose numbers are all the same as that number, so that equal layers compare equal."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 and isinstance(value[0], int) else value


def check_kernel(name, kernel):
    """The sizes of a kernel or window as a tuple of one to three."""
    if not isinstance(kernel, tuple) or not 1 <= len(kernel) <= 3:
        hint = f"; write {shorten(_as_tuple(kernel))}" if isinstance(kernel, list) else ""
        raise KindError(
            f"{name}: expected a tuple such as (3, 3) for images or (3,) for sequences, got {shorten(kernel)}{hint}"
        )
    return tuple(integer(f"{name}[{i}]", size, least=1) for i, size in enumerate(kernel))

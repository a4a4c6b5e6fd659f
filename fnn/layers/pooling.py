"""Pooling: the largest entry or the mean of each window, channel by channel, and over a whole image or sequence.

Letters: N examples, C channels. Images are (N, H, W, C), sequences (N, T, C); y (N, *positions, C).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..backend import Held, cast, floating, namespace
from ..errors import ArgumentError, ShapeError, shape, usage
from .base import Layer
from .windows import check_channels, check_kernel, check_windows, windows_over


@dataclass(frozen=True)
class _Pool(Layer):
    """What the two share: the windows, which lie side by side unless a stride is given."""

    window: tuple[int, ...]
    stride: Any = None
    padding: Any = "valid"
    draws: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "window", check_kernel("window", self.window))
        if self.stride is None:
            object.__setattr__(self, "stride", self.window)
        check_windows(self, len(self.window))
        super().__post_init__()

    @property
    def kernel(self):
        return self.window

    dilation = 1

    def output_shape(self, input_shape):
        return (*self._windows(input_shape).positions, input_shape[-1])

    def check(self, x):
        check_channels(x)

    def _windows(self, input_shape):
        windows = windows_over(self, input_shape)
        if any(low >= e or high >= e for (low, high), e in zip(windows.padding, windows.extents, strict=True)):
            raise ArgumentError(f"padding: expected less than the window {self.window}, got {self.padding}")
        return windows


@usage("fnn.MaxPool((2, 2)), the sizes of a window")
@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest entry of each window, channel by channel.

        y_p = max_k x_p(k)        dx_m = Σ_p δ_p [m is where y_p comes from]        dy_p = dx there, along a direction

    Of several largest entries the first, in the order of rows, is where y comes from, as in `jax.lax.reduce_window`.
    Padding is never the largest. NaN is, so that it is not lost.

    Args:
        window: its sizes, (h, w) for images, (k,) for sequences.
        stride: the distance between windows: a number, or one for each axis. Default: the window, so that they lie side
            by side.
        padding: as for `Conv`; less than the window. Default: "valid", without.

    Source: M. Riesenhuber, T. Poggio, "Hierarchical models of object recognition in cortex" (1999).

    >>> MaxPool((2,)).apply((), np.array([[[1.0], [3.0], [2.0], [2.0], [9.0]]]))[..., 0]
    array([[3., 2.]])
    """

    def forward(self, params, x, key=None):
        x = floating(x)
        xp, windows = namespace(x), self._windows(x.shape[1:])
        y, *others = windows.cut(x, fill=-np.inf)
        first = xp.zeros(y.shape, np.uint8 if len(others) < 256 else np.int32)
        for k, entry in enumerate(others, start=1):
            larger = (entry > y) | ((entry != entry) & (y == y))
            y, first = xp.where(larger, entry, y), xp.where(larger, first.dtype.type(k), first)
        return y, (first, Held(windows))

    def backward(self, params, residuals, dy):
        first, windows = residuals[0], residuals[1].thing
        entries = namespace(dy).arange(len(windows.entries), dtype=first.dtype)[:, None]
        return windows.put(_where(first[..., None, :] == entries, dy[..., None, :]))

    def tangent(self, params, residuals, dparams, dx):
        if dx is None:
            return None
        first, windows = residuals[0], residuals[1].thing
        return sum(_where(first == k, entry) for k, entry in enumerate(windows.cut(dx)))


@usage("fnn.AvgPool((2, 2)), the sizes of a window")
@dataclass(frozen=True)
class AvgPool(_Pool):
    """The mean of each window, channel by channel; padding does not count.

        y_p = (1/K_p) Σ_k x_p(k)        dx_m = Σ_{p(k)=m} δ_p / K_p        K_p entries of window p, without padding

    Args:
        window: its sizes, (h, w) for images, (k,) for sequences.
        stride: the distance between windows: a number, or one for each axis. Default: the window.
        padding: as for `Conv`; less than the window. Default: "valid", without.

    Source: Y. LeCun et al., "Gradient-based learning applied to document recognition" (1998), sec. II.B.

    >>> AvgPool((2,)).apply((), np.array([[[1.0], [3.0], [2.0], [4.0]]]))[..., 0]
    array([[2., 3.]])
    """

    def forward(self, params, x, key=None):
        x = floating(x)
        windows = self._windows(x.shape[1:])
        return sum(windows.cut(x)) * self._shares(windows, x.dtype), Held(windows)

    def backward(self, params, windows, dy):
        windows = windows.thing
        shared = (dy * self._shares(windows, dy.dtype))[..., None, :]
        return windows.put(namespace(dy).broadcast_to(shared, (*dy.shape[:-1], len(windows.entries), dy.shape[-1])))

    def tangent(self, params, windows, dparams, dx):
        return None if dx is None else sum(windows.thing.cut(dx)) * self._shares(windows.thing, dx.dtype)

    def _shares(self, windows, dtype):
        """1 / K_p, as a number where all windows are whole, else (*positions, 1)."""
        if not any(map(any, windows.padding)):
            return 1 / len(windows.entries)
        counts: Any = sum(windows.cut(np.ones((1, *windows.sizes, 1))))
        return (1 / counts[0]).astype(dtype)


@dataclass(frozen=True)
class _Global(Layer):
    """What the two share: (N, *sizes, C) -> (N, C)."""

    draws: ClassVar[bool] = False

    def output_shape(self, input_shape):
        input_shape = shape("input_shape", input_shape)
        if len(input_shape) < 2:
            raise ShapeError(f"expected input of shape (..., C), the channels last, got {input_shape}")
        return input_shape[-1:]

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        return ()


@dataclass(frozen=True)
class GlobalAvgPool(_Global):
    """The mean over all positions of an image or sequence: (N, *sizes, C) -> (N, C).

        y = (1/P) Σ_p x_p        dx_p = δ / P

    Source: M. Lin, Q. Chen, S. Yan, "Network in network" (2014), sec. 3.2.

    >>> GlobalAvgPool().apply((), np.array([[[1.0], [3.0]]]))
    array([[2.]])
    """

    def forward(self, params, x, key=None):
        x = floating(x)
        return _flat(x).mean(axis=1), Held(x.shape[1:])

    def backward(self, params, of_x, dy):
        sizes = of_x.thing[:-1]
        spread = (dy / math.prod(sizes)).reshape(dy.shape[0], *(1,) * len(sizes), dy.shape[-1])
        return namespace(dy).broadcast_to(spread, (dy.shape[0], *of_x.thing))

    def tangent(self, params, of_x, dparams, dx):
        return None if dx is None else _flat(dx).mean(axis=1)


@dataclass(frozen=True)
class GlobalMaxPool(_Global):
    """The largest over all positions of an image or sequence: (N, *sizes, C) -> (N, C).

        y = max_p x_p        dx_p = δ [p is the first position where x_p is y]

    Source: M. Oquab et al., "Is object localization for free?" (2015), sec. 3.

    >>> GlobalMaxPool().apply((), np.array([[[1.0], [3.0]]]))
    array([[3.]])
    """

    def forward(self, params, x, key=None):
        flat = _flat(floating(x))
        first = flat.argmax(axis=1).astype(np.int32)
        return self._there(flat, first), (first, Held(x.shape[1:]))

    def backward(self, params, residuals, dy):
        first, of_x = residuals[0], residuals[1].thing
        places = namespace(dy).arange(math.prod(of_x[:-1]), dtype=np.int32)[:, None]
        return _where(places == first[:, None], dy[:, None]).reshape(dy.shape[0], *of_x)

    def tangent(self, params, residuals, dparams, dx):
        return None if dx is None else self._there(_flat(dx), residuals[0])

    def _there(self, flat, first):
        return namespace(flat).take_along_axis(flat, first[:, None], axis=1)[:, 0]


def _flat(x):
    """(N, *sizes, C) as (N, P, C)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _where(mask, values):
    """The values where the mask is true, else 0."""
    return namespace(mask, values).where(mask, values, cast(np.zeros(()), values.dtype))

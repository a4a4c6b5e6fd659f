"""Sequences of unequal length: `Last`. Letters: N examples, T positions."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import at_least_int32, namespace
from .checks import known, on_host
from .composition import Kept
from .errors import DataError, KindError, ShapeError, shape, shown
from .networks import Around, like_inputs


@dataclass(frozen=True)
class Last(Around):
    """The output at the last position of each sequence, for sequences of unequal length.

        y_n = f(x_n)_t,  t = length_n        dx = δ ∂f_t/∂x        beyond the length nothing has an effect, or an error

    f maps sequences to sequences, (N, T, ...) -> (N, T, ...), and must be causal, as recurrent layers with
    `all_states=True` and layers that act on each position are: what comes later must not change what came before.

    Args:
        layer: f.
        inputs: the names of the sequences and of their lengths in x, a dict or NamedTuple of arrays: (N, T, ...),
            padded at the end, and integers (N,) from 1 to T. Default: ("x", "length").

    >>> import fnn
    >>> net = Last(fnn.Serial((fnn.Embedding(10, 3), fnn.Lstm(4, all_states=True))))
    >>> params = net.init(fnn.random.key(0, backend="numpy"), {"x": (5,), "length": ()})
    >>> net.apply(params, {"x": np.zeros((2, 5), int), "length": np.array([3, 5])}).shape
    (2, 4)
    """

    inputs: tuple[str, str] = ("x", "length")

    def __post_init__(self):
        super().__post_init__()
        names = self.inputs if isinstance(self.inputs, tuple) else ()
        if len(set(names)) != 2 or len(names) != 2 or not all(isinstance(name, str) for name in names):
            raise KindError(f"inputs: expected the names of the sequences and of their lengths, got {self.inputs}")

    @property
    def parts(self):
        return self.layer

    def output_shape(self, input_shape):
        inner = self._inner_shape(input_shape)
        output = self.layer.output_shape(inner)
        if output[:1] != inner[:1]:
            raise ShapeError(
                f"expected a layer that keeps the {inner[0]} positions, got output of shape {output}; "
                "recurrent layers take all_states=True"
            )
        return output[1:]

    def check(self, x):
        sequences, length = self._of(x)
        super().check(sequences)
        name, positions = self.inputs[1], sequences.shape[1]
        if length.dtype.kind not in "iu":
            raise KindError(f"{name}: expected integers, got dtype {length.dtype}; use {name}.astype(int)")
        if not known(length):
            return
        length = on_host(length)
        wrong = (length < 1) | (length > positions)
        if wrong.any():
            n = int(wrong.argmax())
            raise DataError(f"{name}: expected lengths from 1 to {positions}, got {length[n]} at {name}[{n}]")

    def _of(self, x):
        """The sequences and their lengths."""
        return tuple(x[name] if isinstance(x, dict) else getattr(x, name) for name in self.inputs)

    def _inner_shape(self, input_shape):
        named = shape("input_shape", input_shape, several=True)
        inner = dict(named) if named and isinstance(named[0], tuple) else {}
        x, length = self.inputs
        if not inner.get(x) or inner.get(length) != ():
            hint = "; the lengths of a mask are mask.sum(axis=1)" if len(inner.get(length, ())) == 1 else ""
            hint = f"; use {length}[:, 0]" if inner.get(length) == (1,) else hint
            raise ShapeError(f"expected x as {{{x!r}: (N, T, ...), {length!r}: (N,)}}, got {shown(named)}{hint}")
        return inner[x]

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        return self.layer.init(key, self._inner_shape(input_shape), dtype)

    def forward(self, params, x, key=None):
        sequences, length = self._of(x)
        xp, length = namespace(sequences, length), at_least_int32(length)
        place = xp.arange(sequences.shape[1], dtype=length.dtype)
        within = place < length[:, None]
        sequences = xp.where(_tall(within, sequences), sequences, 0)
        y, inner = self.layer.forward(params, sequences, key)
        last = place == length[:, None] - 1
        y = xp.where(_tall(last, y), y, 0).sum(axis=1)
        y = xp.where(_tall((length >= 1) & (length <= len(place)), y), y, np.nan)
        return y, Kept((within, last, x), inner)

    def propagate(self, params, residuals, dy, need_dx=True):
        (within, last, x), inner = residuals
        dy = dy[:, None]
        dx, deltas = self.layer.propagate(params, inner, namespace(dy).where(_tall(last, dy), dy, 0), need_dx)
        if dx is None:
            return None, deltas
        dx = namespace(dx).where(_tall(within, dx), dx, 0)
        return like_inputs({self.inputs[0]: dx}, x), deltas

    def tangent(self, params, residuals, dparams, dx):
        (within, last, _), inner = residuals
        if dx is not None:
            dx = self._of(dx)[0]
            dx = namespace(dx).where(_tall(within, dx), dx, 0)
        dy = self.layer.tangent(params, inner, dparams, dx)
        return None if dy is None else namespace(dy).where(_tall(last, dy), dy, 0).sum(axis=1)


def _tall(mask, values):
    """A mask of examples or positions, with axes of length 1 added so that it meets the values."""
    return mask.reshape(*mask.shape, *(1,) * (values.ndim - mask.ndim))

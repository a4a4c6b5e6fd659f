"""Embedding: a table with a row for each symbol. Letters: N examples, T positions, V symbols, O units."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from .. import checks
from ..backend import at_least_int32, namespace
from ..errors import DataError, KindError, shape, usage
from ..factors import Rows
from ..initializers import Initializer, Normal, check_initializer
from ..static import Interval
from .base import Layer


@usage("fnn.Embedding(1000, 32), the numbers of symbols and of units")
@dataclass(frozen=True)
class Embedding(Layer):
    """The row of a table for each symbol: a dense layer on one-hot vectors, without making them.

        y_nt = W[x_nt]        x (N, T) or (N,), integers from 0 to V − 1   W (V, O)   y (N, T, O) or (N, O)
        dW[v] = Σ_nt δ_nt [x_nt = v]        dy_nt = dW[x_nt], along a direction        there is no dx

    The gradient of an example is kept as its rows and where they belong, so it never has the size of the table.

    Args:
        symbols: V, at least 1.
        units: O, at least 1.
        initializer: the initializer of W. Default: `Normal(1.0)`.

    Source: Y. Bengio et al., "A neural probabilistic language model" (2003), eq. 2.

    >>> Embedding(3, 2).apply(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), [[2, 0]])
    array([[[4., 5.],
            [0., 1.]]])
    """

    symbols: Annotated[int, Interval("[1, ∞)")]
    units: Annotated[int, Interval("[1, ∞)")]
    initializer: Initializer = field(default=Normal(1.0), kw_only=True)
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        check_initializer("initializer", self.initializer, such_as="fnn.Normal(0.1)")

    def output_shape(self, input_shape):
        return (*shape("input_shape", input_shape), self.units)

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        return self.initializer(key, (self.symbols, self.units), dtype)

    def forward(self, w, x, key=None):
        self.check(x)
        xp, x = namespace(w, x), at_least_int32(x)
        if xp is np or checks.known(x):
            return w[x], x
        rows = xp.take(w, x, axis=0, mode="fill")  # NaN beyond the table
        return xp.where((x < 0)[..., None], np.asarray(np.nan, w.dtype), rows), x

    def backward(self, w, x, dy):
        return None

    def factors(self, w, x, dy):
        return Rows(dy.reshape(dy.shape[0], -1, self.units), x.reshape(x.shape[0], -1))

    def tangent(self, w, x, dparams, dx):
        return None if dparams is None else dparams[x]

    def check(self, x):
        if getattr(x.dtype, "kind", "V") not in "iu":
            raise KindError(f"expected integers from 0 to {self.symbols - 1}, got dtype {x.dtype}; use x.astype(int)")
        if not checks.known(x):
            return
        x = checks.on_host(x)
        if x.size and not (x.min() >= 0 and x.max() < self.symbols):
            place = tuple(np.argwhere((x < 0) | (x >= self.symbols))[0].tolist())
            raise DataError(f"expected integers from 0 to {self.symbols - 1}, got {x[place]} at x{list(place)}")

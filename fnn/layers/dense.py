"""Dense: a layer of linear units. Letters: N examples, T positions (any number of axes), I inputs, O outputs."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from .. import random, trees  # noqa: F401 - random for the example
from ..backend import cast, floating, is_jax, namespace
from ..errors import ArgumentError, KindError, ShapeError, shape, shorten, usage
from ..initializers import Initializer, LecunNormal, check_initializer
from ..matrices import PRECISIONS, contract, plus, product
from ..outer import Outer
from ..static import Interval
from .base import Array, Layer, added


class DenseParams(NamedTuple):
    """Parameters of `Dense`: weights `w` (O, I), one row per unit, and biases `b` (O,), or () if there are none."""

    w: Array
    b: Array | tuple[()]


@usage("fnn.Dense(units); an activation is a layer of its own, as in fnn.Serial((fnn.Dense(32), fnn.Relu()))")
@dataclass(frozen=True)
class Dense(Layer):
    """Affine map of the last axis: a layer of linear units, applied identically at each position.

        z  = x Wᵀ + b        x (N, I) or (N, T, I)   W (O, I)   b (O,)   z (N, O) or (N, T, O)
        dx = δ W             dW = Σ δ xᵀ        db = Σ δ        δ = ∂L/∂z, summed over examples and positions
        dz = dx Wᵀ + x dWᵀ + db                 along a direction

    For example n alone, dW = Σ_t δ_nt x_ntᵀ and db = Σ_t δ_nt.

    Args:
        units: O, at least 1.
        bias: whether to add b. Default: True.
        initializer: the initializer of W; b starts at 0. Default: `LecunNormal()`.
        precision: how the factors of the three products are rounded; sums are in float32. `"bfloat16"` (JAX only) is
            faster on large layers and accurate to two or three digits. `"float8"` (JAX only, fast on GPUs that have
            it) rounds x, W and δ to 8 bits for z and dx, one digit, and to bfloat16 for dW. `"tensorfloat32"` and
            `"float32"` say whether a GPU may round factors in float32 to three digits. Default: None, as JAX's
            `jax_default_matmul_precision` says: float32 on a CPU, TF32 on NVIDIA's GPUs.

    Source: M. Nielsen, "Neural networks and deep learning" (2015), ch. 2, eqs. BP2 to BP4.

    >>> net = Dense(2)
    >>> params = net.init(random.key(0, backend="numpy"), (3,))
    >>> net.apply(params, np.zeros((1, 3)))
    array([[0., 0.]], dtype=float32)
    """

    units: Annotated[int, Interval("[1, ∞)")]
    bias: bool = True
    initializer: Initializer = field(default=LecunNormal(), kw_only=True)
    precision: str | None = field(default=None, kw_only=True)
    draws: ClassVar[bool] = False

    def __post_init__(self):
        if np.ndim(self.bias) or self.bias not in (0, 1):
            raise KindError(
                f"bias: expected True or False, got {shorten(self.bias)}; write fnn.Dense(units), without the number "
                "of inputs, which is that of x; an activation is a layer of its own"
            )
        super().__post_init__()
        if self.precision not in (None, *PRECISIONS):
            raise ArgumentError(f"precision: expected None or one of {PRECISIONS}, got {shorten(self.precision)}")
        check_initializer("initializer", self.initializer)

    def output_shape(self, input_shape):
        input_shape = shape("input_shape", input_shape)
        if not input_shape or isinstance(input_shape[0], tuple):
            hint = "; write x[None] for one example, x[:, None] for examples that are numbers" * (input_shape == ())
            raise ShapeError(f"expected input of shape (..., I), got {input_shape}{hint}")
        return (*input_shape[:-1], self.units)

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        w = self.initializer(key, (self.units, input_shape[-1]), dtype)
        return DenseParams(w, trees.lock(namespace(w).zeros((self.units,), w.dtype)) if self.bias else ())

    def forward(self, params, x, key=None):
        x = floating(x, params.w.dtype)
        kept, z = self._rounded(x), product(x, params.w.T, self.precision)
        return (plus(z, params.b) if self.bias else z), kept

    def backward(self, params, x, dy):
        return product(dy, params.w, self.precision)

    def factors(self, params, x, dy):
        positions = lambda a: a if a.ndim <= 3 else a.reshape(a.shape[0], -1, a.shape[-1])
        return DenseParams(Outer(positions(self._rounded(dy)), positions(x)), over_positions(dy) if self.bias else ())

    def gradient(self, params, x, dy):
        precision = None if self._narrow else self.precision
        dw = contract(self._rounded(dy), x, dtype=params.w.dtype, precision=precision)
        return DenseParams(dw, dy.reshape(-1, self.units).sum(axis=0) if self.bias else ())

    def tangent(self, params, x, dparams, dx):
        dw, db = (None, None) if dparams is None else dparams
        by_x = None if dx is None else product(dx, params.w.T, self.precision)
        by_w = None if dw is None else product(cast(x, params.w.dtype), dw.T, self.precision)
        dz = added(by_x, by_w)
        if not self.bias or db is None:
            return dz
        return db + (namespace(x).zeros((*x.shape[:-1], 1), db.dtype) if dz is None else dz)

    @property
    def _narrow(self):
        return self.precision in ("bfloat16", "float8")

    def _rounded(self, a):
        """A factor of dW, as it is kept."""
        if not self._narrow:
            return a
        if not is_jax(a):
            raise KindError(f"{self}: expected parameters on JAX, as NumPy has no {self.precision}")
        return a.astype("bfloat16")


def over_positions(values):
    """The sum over all axes between the first and the last: (N, ..., K) -> (N, K)."""
    return values if values.ndim == 2 else values.sum(axis=tuple(range(1, values.ndim - 1)))

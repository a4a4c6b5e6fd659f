"""Layers: the contract that every layer keeps, and Dense, Scale, Flatten, Dropout and Function.

A layer is a frozen dataclass; its methods are pure functions of parameters and arrays. Letters: N examples (always the
leading axis), I inputs, O outputs. With δ = ∂L/∂y, the error at a layer's output, shaped as y:

    forward     y = f(x; θ)           and the residuals, what the backward pass needs to remember of it
    backward    dx = δ ∂y/∂x          each example's error is carried to the layer below
    gradient    dθ = Σₙ δₙ ∂yₙ/∂θ     summed over the examples, linear in δ
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import backend, random, trees
from .backend import cast, contract, floating, namespace, product
from .errors import (
    ArgumentError,
    KindError,
    ShapeError,
    integer,
    real,
    same_shape,
    shape,
    shorten,
)
from .initializers import Initializer, LecunNormal
from .static import Static

Array = Any  # of jax.numpy or numpy
Params = Any  # a tree of arrays


@dataclass(frozen=True)
class Layer(Static):
    """The contract. A layer of your own defines the first five methods; `record` and `propagate` are inherited.

    One without parameters needs only `forward` and `backward`, and `output_shape` where it changes the shape. Shapes
    exclude the batch axis, arrays include it, and so does every leaf of the residuals.

    >>> @dataclass(frozen=True)
    ... class Square(Layer):
    ...     def forward(self, params, x, key=None):
    ...         return x**2, x
    ...
    ...     def backward(self, params, x, dy):
    ...         return dy * 2 * x
    >>> Square().apply((), np.array([[1.0, 3.0]], np.float32))
    array([[1., 9.]], dtype=float32)
    """

    draws: ClassVar[bool] = True  # whether forward may use its key; keys are derived only for layers that do

    def output_shape(self, input_shape):
        """Shape of the output for a shape of the input."""
        return shape("input_shape", input_shape)

    def init(self, key, input_shape, dtype=np.float32) -> Params:
        """New parameters: a tree of arrays, `()` if the layer has none. On JAX `init_state` compiles this.

        `jax.eval_shape(lambda key: net.init(key, input_shape), key)` gives their shapes and dtypes, and computes none.
        """
        return ()

    def forward(self, params, x, key=None) -> tuple[Array, Any]:
        """`(y, residuals)`; with a key the layer is in training (dropout acts), without one in inference."""
        raise NotImplementedError

    def backward(self, params, residuals, dy) -> Array:
        """dx, from dy = δ; each example on its own."""
        raise NotImplementedError

    def gradient(self, params, residuals, deltas) -> Params:
        """The gradient, with the structure of `params`: a sum over the examples."""
        if trees.leaves(params):
            raise NotImplementedError(f"{type(self).__name__} has parameters and no method gradient")
        return ()

    def per_example_gradient(self, params, residuals, deltas) -> Params:
        """The gradient of each example, (N, ...) for every parameter; by default `gradient`, one example at a time."""

        def of_one(residuals, deltas):
            return self.gradient(params, *trees.map(lambda a: a[None], (residuals, deltas)))

        return backend.vmap(of_one)(residuals, deltas) if trees.leaves(params) else ()

    def per_example_norm2(self, params, residuals, deltas) -> Array:
        """‖gₙ‖² (N,), of the gradient of each example."""
        grads = _rows(self.per_example_gradient(params, residuals, deltas))
        return (grads * grads).sum(axis=1)

    def per_example_products(self, params, ours, theirs) -> Array:
        """gᵢ · gⱼ (N, M), of N examples and M others, each given by its `(residuals, deltas)`."""
        of_ours, of_theirs = (_rows(self.per_example_gradient(params, *of)) for of in (ours, theirs))
        return of_ours @ of_theirs.T

    def per_example_squares(self, params, residuals, deltas) -> Params:
        """Σₙ gₙ², the squares taken entry by entry, with the structure of `params`."""
        return trees.map(lambda g: (g * g).sum(axis=0), self.per_example_gradient(params, residuals, deltas))

    def each(self, rule, params, residuals, deltas) -> Any:
        """`rule(layer, params, residuals, deltas)` of this layer; of a composition, of every layer within."""
        return rule(self, params, residuals, deltas)

    def record(self, params, x, key=None) -> tuple[Array, Any, Any]:
        """`(y, residuals, outputs)`: forward, and the outputs of all layers within, nested as the parameters are."""
        y, residuals = self.forward(params, x, key)
        return y, residuals, y

    def propagate(self, params, residuals, dy, need_dx=True) -> tuple[Array, Any]:
        """`(dx, deltas)`: backward, and the errors of all layers within, nested as the parameters are.

        With `need_dx=False` dx is None, and so are errors that only it would need.
        """
        return (self.backward(params, residuals, dy) if need_dx else None), dy

    def apply(self, params, x, key=None) -> Array:
        """The output for x (N, ...): the pure function that the layer, or network, is.

        `x` is brought to the backend of the parameters, and to their dtype if it is floating.
        """
        params, x = enter(params, x)
        return self.forward(params, x, enter_key(key, x))[0]


def _rows(grads):
    """The gradient of each example as a row: (N, P), in float32 or wider."""
    rows = [cast(g, backend.at_least_float32(g.dtype)).reshape(len(g), -1) for g in trees.leaves(grads)]
    return namespace(*rows).concatenate(rows, axis=1)


def enter(params, x, y=None, weights=None):
    """What every public function does first: bring x, y and weights to the parameters' backend and dtype.

    Returns the params and the arrays that were given. Integers stay integers. Weights (N,) are float32 or wider.
    """
    leaves = trees.leaves(params)
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not backend.is_floating(leaf.dtype):
            place, found = next((p, a) for p, a in trees.paths(params) if a is leaf)
            found = getattr(found, "dtype", None) or shorten(found)
            raise KindError(f"{place}: expected an array of floating point, got {found}")
    data = [a for a in (x, y, weights) if a is not None]
    known = namespace(*leaves) if leaves else namespace(*data)
    xp = backend.jnp if backend.is_traced(*data) else known
    x = backend.as_array("x", x, xp)
    if x.ndim < 1:
        raise ShapeError(f"x: expected a leading axis of examples, got shape {x.shape}")
    dtype = leaves[0].dtype if leaves else x.dtype if backend.is_floating(x.dtype) else np.float32
    entered = [params, _to_dtype("x", x, dtype)]
    if y is not None:
        entered.append(_to_dtype("y", backend.as_array("y", y, xp), dtype))
    if weights is not None:
        weights = backend.as_array("weights", weights, xp)
        weights = cast(weights, backend.at_least_float32(dtype))
        same_shape("weights", weights, x.shape[:1])
        entered.append(weights)
    return entered


def _to_dtype(what, array, dtype):
    """An array of floating point in that dtype (what is too large becomes infinite); integers stay as they are."""
    if array.dtype == dtype or not backend.is_floating(array.dtype):
        return array
    if array.dtype.kind == "c":
        raise KindError(f"{what}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def enter_key(key, x):
    """A key for the backend of x, or None."""
    return None if key is None else random.like(key, namespace(x, key) if backend.is_traced(key) else namespace(x))


class DenseParams(NamedTuple):
    """Parameters of `Dense`: weights `w` (O, I), one row per unit, and biases `b` (O,), or () where there are none."""

    w: Array
    b: Array | tuple[()]


@dataclass(frozen=True)
class Dense(Layer):
    """Affine map of each example, a layer of linear units.

        z  = x Wᵀ + b        x (N, I)   W (O, I)   b (O,)   z (N, O)
        dx = δ W             dW = δᵀ x        db = Σₙ δ          δ = ∂L/∂z (N, O)

    Of example n alone dW = δₙ xₙᵀ and db = δₙ. Arguments: `units` is O; `bias=False` leaves b out; `initializer` gives
    W, and b begins at 0. With `precision="bfloat16"` (JAX only) the factors of the three products are rounded to
    bfloat16 and summed in float32: quicker on large layers, with two to three digits. M. Nielsen, "Neural networks and
    deep learning" (2015), ch. 2, eqs. BP2 to BP4.

    >>> net = Dense(2)
    >>> params = net.init(random.key(0, backend="numpy"), (3,))
    >>> net.apply(params, np.zeros((1, 3)))
    array([[0., 0.]], dtype=float32)
    """

    units: int
    bias: bool = True
    initializer: Initializer = field(default=LecunNormal(), kw_only=True)
    precision: str | None = field(default=None, kw_only=True)
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        integer("units", self.units, least=1)
        if self.precision not in (None, "bfloat16"):
            raise ArgumentError(f'precision: expected None or "bfloat16", got {shorten(self.precision)}')
        if not callable(self.initializer):
            raise KindError(f"initializer: expected one such as fnn.HeNormal(), got {shorten(self.initializer)}")

    def output_shape(self, input_shape):
        if len(shape("input_shape", input_shape)) != 1:
            raise ShapeError(f"expected input of shape (I,), got {tuple(input_shape)}; see fnn.Flatten")
        return (self.units,)

    def init(self, key, input_shape, dtype=np.float32):
        self.output_shape(input_shape)
        w = self.initializer(key, (self.units, input_shape[0]), dtype)
        b = trees.lock(namespace(w).zeros((self.units,), w.dtype)) if self.bias else ()
        return DenseParams(w, b)

    def forward(self, params, x, key=None):
        w, b = self._checked(params, x)
        x = floating(x, w.dtype)
        kept, z = self._rounded(x), product(x, w.T, self.precision)
        return (z + b if self.bias else z), kept

    def backward(self, params, x, dy):
        return product(dy, params.w, self.precision)

    def gradient(self, params, x, dy):
        return DenseParams(contract(dy, x, self.precision), dy.sum(axis=0) if self.bias else ())

    def per_example_gradient(self, params, x, dy):
        outer = cast(self._rounded(dy)[:, :, None], dy.dtype) * x[:, None, :]
        return DenseParams(outer, dy if self.bias else ())

    def per_example_norm2(self, params, x, dy):
        """‖δ‖² ‖x‖² + ‖δ‖² for each example: the gradient of one is the outer product δ xᵀ, and δ."""
        x, factor, dy = self._factors(x, dy)
        of_w = (factor * factor).sum(axis=1) * (x * x).sum(axis=1)
        return of_w + (dy * dy).sum(axis=1) if self.bias else of_w

    def per_example_products(self, params, ours, theirs):
        """(δᵢ · δⱼ)(xᵢ · xⱼ) + δᵢ · δⱼ."""
        (x, factor, dy), (x2, factor2, dy2) = (self._factors(*of) for of in (ours, theirs))
        of_w = (factor @ factor2.T) * (x @ x2.T)
        return of_w + dy @ dy2.T if self.bias else of_w

    def per_example_squares(self, params, x, dy):
        """(δ²)ᵀ x² and Σ δ²."""
        x, factor, dy = self._factors(x, dy)
        of_w = cast(contract(factor * factor, x * x), params.w.dtype)
        return DenseParams(of_w, cast((dy * dy).sum(axis=0), params.b.dtype) if self.bias else ())

    def _factors(self, x, dy):
        """x, the δ that it is multiplied with, and the δ of the biases, in float32 or wider."""
        wide = backend.at_least_float32(dy.dtype)
        return cast(x, wide), cast(self._rounded(dy), wide), cast(dy, wide)

    def _rounded(self, a):
        if self.precision is None:
            return a
        if not backend.is_jax(a):
            raise KindError(f"{self}: expected parameters on JAX, as NumPy has no {self.precision}")
        return a.astype(self.precision)

    def _checked(self, params, x):
        if not isinstance(params, DenseParams) or params.w.ndim != 2 or len(params.w) != self.units:
            raise ShapeError(f"expected DenseParams, w ({self.units}, I) and b, got {trees.outline(params)}")
        w, b = params
        if x.ndim != 2 or x.shape[1] != w.shape[1]:
            raise ShapeError(f"expected input of shape (N, {w.shape[1]}), got {x.shape}")
        if np.shape(b) != ((self.units,) if self.bias else (0,)):
            raise ShapeError(f"expected biases b of shape {(self.units,) if self.bias else ()}, got {trees.outline(b)}")
        return w, b


@dataclass(frozen=True)
class Scale(Layer):
    """Multiplication by a constant: `Scale(1 / 255)` takes grey levels 0 … 255, uint8 in memory, to [0, 1].

    y = c x        dx = c δ

    >>> Scale(1 / 255).apply((), np.array([[0, 51, 255]], np.uint8))
    array([[0.        , 0.20000002, 1.        ]], dtype=float32)
    """

    factor: float
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        real("factor", self.factor)

    def forward(self, params, x, key=None):
        return self.factor * floating(x), ()

    def backward(self, params, residuals, dy):
        return self.factor * dy


@dataclass(frozen=True)
class Flatten(Layer):
    """All axes of an example in one: (N, 28, 28) -> (N, 784), and δ back into the shape of x.

    >>> Flatten().apply((), np.zeros((5, 28, 28))).shape
    (5, 784)
    """

    draws: ClassVar[bool] = False

    def output_shape(self, input_shape):
        return (math.prod(shape("input_shape", input_shape)),)

    def forward(self, params, x, key=None):
        return x.reshape(len(x), -1), x

    def backward(self, params, x, dy):
        return dy.reshape(x.shape)


@dataclass(frozen=True)
class Dropout(Layer):
    """Inverted dropout: in training each output is 0 with probability `rate`, and the others are scaled up to keep
    the mean.

        y = x m / (1 − rate),  m ~ Bernoulli(1 − rate)        dx = δ m / (1 − rate)

    In inference, without a key, y = x. N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting" (2014).

    >>> layer, x = Dropout(0.5), np.ones((1, 6), np.float32)
    >>> layer.apply((), x, random.key(0, backend="numpy")), layer.apply((), x)
    (array([[0., 0., 2., 2., 0., 2.]], dtype=float32), array([[1., 1., 1., 1., 1., 1.]], dtype=float32))
    """

    rate: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        real("rate", self.rate, least=0, below=1)

    def forward(self, params, x, key=None):
        x = floating(x)
        if key is None:
            return x, ()
        keep = random.bernoulli(key, 1 - self.rate, x.shape)
        return self._scaled(keep, x), keep

    def backward(self, params, keep, dy):
        return dy if isinstance(keep, tuple) else self._scaled(keep, dy)

    def _scaled(self, keep, x):
        return namespace(x).where(keep, x * (1 / (1 - self.rate)), 0)


@dataclass(frozen=True)
class Function(Layer):
    """A layer of any JAX function of a batch, (N, ...) -> (N, ...), each example on its own; needs JAX.

        y = f(x)        dx = δ ∂f/∂x, by `jax.vjp`

    Functions compare by identity, so define f once, at the top of a module: each new lambda is a new compilation.

    >>> Function(np.sin)
    Function(<ufunc 'sin'>)
    """

    f: Callable
    draws: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if not callable(self.f):
            raise KindError(f"f: expected a function, got {shorten(self.f)}")

    def output_shape(self, input_shape):
        jax = backend.need_jax("Function")
        x = jax.ShapeDtypeStruct((1, *shape("input_shape", input_shape)), np.float32)
        return jax.eval_shape(self.f, x).shape[1:]

    def forward(self, params, x, key=None):
        if not backend.is_jax(x):
            raise KindError(
                "Function: its derivative is jax.vjp, so it needs parameters (or data) on JAX, not on NumPy"
            )
        x = floating(x)
        y = self.f(x)
        if y.shape[:1] != x.shape[:1]:
            raise ShapeError(f"{self}: expected an output for each of {x.shape[0]} examples, got shape {y.shape}")
        return y, x

    def backward(self, params, x, dy):
        return backend.need_jax("Function").vjp(self.f, x)[1](dy)[0]

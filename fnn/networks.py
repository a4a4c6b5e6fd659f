"""Networks: compositions of layers. A composition is itself a layer, so networks nest.

The backward pass of a composition is the chain rule read backwards: layer l's dx is the dy of layer l−1.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import random, trees
from .backend import Held, floating, is_floating, namespace
from .composition import (
    Composition,
    Kept,
    at_layer,
    check_layer,
    check_layers,
    key_of,
    located,
    without,
    zeros_like,
)
from .errors import ArgumentError, FnnError, KindError, ShapeError, shape, shorten, shown, usage
from .initializers import Initializer
from .layers import Dense, Dropout, Flatten, Layer
from .layers.activations import Identity, Relu
from .layers.base import added


@usage("fnn.Serial((fnn.Dense(32), fnn.Relu(), fnn.Dense(2))), with one tuple of layers")
@dataclass(frozen=True)
class Serial(Composition):
    """A network: layers one after the other.

    `net.init(key, input_shape)` makes its parameters, a tuple of those of each layer, `net.apply(params, x)` applies
    it, and `fnn.fit` does the first of these and trains it. The other methods are the passes that backpropagation is
    made of, which `fnn.Layer` describes.

        a⁰ = x,  aˡ⁺¹ = fₗ(aˡ; θₗ),  y = aᴸ        δᴸ = ∂L/∂y,  δˡ = δˡ⁺¹ ∂fₗ/∂aˡ,  dx = δ⁰        dθₗ = Σₙ δˡ⁺¹ ∂fₗ/∂θₗ

    In a tape, entry l of `deltas`, counted from 0, is this δˡ⁺¹, the error at the output of layer l. The δ of textbooks
    is ∂L/∂z, before the activation: it is the entry of each `Dense` layer. In `Serial((Dense(3), Tanh(), Dense(2)))`
    their δ¹ and δ² are `deltas[0]` and `deltas[2]`, and `deltas[1]` is ∂L/∂a, from which δ¹ = ∂L/∂a tanh'(z).

    Args:
        layers: a tuple of layers, any of which may be a Serial itself.

    Source: D. Rumelhart, G. Hinton, R. Williams, "Learning representations by back-propagating errors" (1986).

    >>> Serial((Dense(128), Relu(), Dense(10))).output_shape((784,))
    (10,)
    """

    layers: tuple[Layer, ...]

    def __post_init__(self):
        super().__post_init__()
        check_layers("layers", self.layers)

    @property
    def parts(self):
        return self.layers

    def output_shape(self, input_shape):
        return self.shapes(input_shape)[-1]

    def shapes(self, input_shape) -> list:
        """The L + 1 shapes from the input, through each layer, to the output."""
        shapes = [shape("input_shape", input_shape, several=True)]
        for i, layer in enumerate(self.layers):
            shapes.append(self._at(i, layer.output_shape, shapes[-1]))
        return shapes

    def check(self, x):
        for i, layer in enumerate(self.layers):
            self._at(i, layer.check, x)
            if type(layer).output_shape is not Layer.output_shape:
                break  # x is the input of those above only as long as its shape is kept

    def init(self, key, input_shape, dtype: Any = np.float32):
        key, inputs = random.check_key(key), self.shapes(input_shape)
        return tuple(
            self._at(i, layer.init, random.fold_in(key, i), inputs[i], dtype) for i, layer in enumerate(self.layers)
        )

    def forward(self, params, x, key=None):
        residuals = []
        for i, layer in enumerate(self.layers):
            try:
                x, kept = layer.forward(params[i], x, key if key is None else key_of(key, i, layer))
            except FnnError as error:
                raise at_layer(error, "layers", i, layer)  # noqa: B904 - the same error, its place added
            residuals.append(kept)
        return x, tuple(residuals)

    def propagate(self, params, residuals, dy, need_dx=True):
        deltas: list = [None] * len(self.layers)
        lowest = 0  # below it no layer learns, and dx is not needed
        if not need_dx:
            lowest = next((i for i, p in enumerate(params) if trees.learnt(p)), len(params))
        for i in reversed(range(lowest, len(self.layers))):
            dy, deltas[i] = self.layers[i].propagate(params[i], residuals[i], dy, need_dx or i > lowest)
        return (dy if need_dx else None), tuple(deltas)

    def tangent(self, params, residuals, dparams, dx):
        for i, layer in enumerate(self.layers):
            dx = layer.tangent(params[i], residuals[i], None if dparams is None else dparams[i], dx)
        return dx

    def _at(self, i, method, *args):
        return located("layers", self.layers, i, method, *args)


@dataclass(frozen=True)
class Around(Composition):
    """Base of a layer that wraps another one."""

    layer: Layer

    def __post_init__(self):
        super().__post_init__()
        check_layer("layer", self.layer)

    def check(self, x):
        self.layer.check(x)


@usage("fnn.Residual(fnn.Serial((fnn.Dense(32), fnn.Relu(), fnn.Dense(2)))), with one layer or network")
@dataclass(frozen=True)
class Residual(Around):
    """A skip connection around a layer or network f that preserves the shape of its input.

        y = x + f(x; θ)        dx = δ + δ ∂f/∂x        dθ = Σₙ δ ∂f/∂θ        dy = dx + ∂f/∂x dx + ∂f/∂θ dθ

    Its parameters are those of f.

    Args:
        layer: f.

    Source: K. He et al., "Deep residual learning for image recognition" (2016), eq. 1.

    >>> Residual(Serial((Dense(8), Relu(), Dense(3)))).output_shape((3,))
    (3,)
    """

    @property
    def parts(self):
        return self.layer

    def output_shape(self, input_shape):
        input_shape = shape("input_shape", input_shape)
        if (output := self.layer.output_shape(input_shape)) != input_shape:
            raise ShapeError(f"expected a layer that keeps the shape {input_shape}, got {output}")
        return input_shape

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        return self.layer.init(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        y, residuals = self.layer.forward(params, x, key)
        return floating(x, y.dtype) + y, residuals

    def propagate(self, params, residuals, dy, need_dx=True):
        dx, deltas = self.layer.propagate(params, residuals, dy, need_dx)
        return (added(dy, dx) if need_dx else None), deltas

    def tangent(self, params, residuals, dparams, dx):
        return added(dx, self.layer.tangent(params, residuals, dparams, dx))


@usage("fnn.Parallel((fnn.Dense(2), fnn.Identity())), with one tuple of layers")
@dataclass(frozen=True)
class Parallel(Composition):
    """Branches side by side, with their outputs concatenated along the last axis.

        y = [f₁(x; θ₁), f₂(x; θ₂), …]        dx = Σᵢ δᵢ ∂fᵢ/∂x,  δ = [δ₁, δ₂, …]        dθᵢ = Σₙ δᵢ ∂fᵢ/∂θᵢ

    `Parallel((Identity(), f))` concatenates its input with the output of f.

    Args:
        branches: a tuple of layers. Without `inputs` they all take the same x.
        inputs: one name for each branch, if x is a dict or NamedTuple of arrays: branch i takes `x[inputs[i]]`.
            Default: None.

    Source: C. Szegedy et al., "Going deeper with convolutions" (2015).

    >>> Parallel((Dense(2), Serial((Dense(3), Relu())))).output_shape((4,))
    (5,)
    >>> Parallel((Dense(2), Dense(3)), inputs=("left", "right")).output_shape({"left": (4,), "right": (7,)})
    (5,)
    """

    branches: tuple[Layer, ...]
    inputs: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        check_layers("branches", self.branches)
        if not self.branches:
            raise ArgumentError("branches: expected at least one, got ()")
        if self.inputs is not None and (
            not isinstance(self.inputs, tuple)
            or len(self.inputs) != len(self.branches)
            or not all(isinstance(name, str) for name in self.inputs)
        ):
            raise KindError(f"inputs: expected a name for each of {len(self.branches)} branches, got {self.inputs}")

    @property
    def parts(self):
        return self.branches

    def output_shape(self, input_shape):
        shapes = self._shapes(input_shape)
        if len({s[:-1] for s in shapes}) > 1 or not all(shapes):
            raise ShapeError(f"expected outputs of the same shape but for the last axis, got {shapes}")
        return (*shapes[0][:-1], sum(s[-1] for s in shapes))

    def check(self, x):
        for i, branch in enumerate(self.branches):
            self._at(i, branch.check, self._input(x, i))

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        key, inputs = random.check_key(key), self._input_shapes(input_shape)
        return tuple(self._at(i, b.init, random.fold_in(key, i), inputs[i], dtype) for i, b in enumerate(self.branches))

    def forward(self, params, x, key=None):
        outputs, residuals = [], []
        for i, branch in enumerate(self.branches):
            y, kept = self._at(i, branch.forward, params[i], self._input(x, i), key_of(key, i, branch))
            outputs.append(y)
            residuals.append(kept)
        dtype = next((y.dtype for y in outputs if is_floating(y.dtype)), np.float32)
        y = namespace(*outputs).concatenate([floating(y, dtype) for y in outputs], axis=-1)
        widths = Held(tuple(y.shape[-1] for y in outputs))
        return y, Kept((widths, x if self.inputs else ()), tuple(residuals))

    def propagate(self, params, residuals, dy, need_dx=True):
        (widths, x), inner = residuals
        dxs, deltas, end = [], [], 0
        for branch, p, kept, width in zip(self.branches, params, inner, widths.thing, strict=True):
            start, end = end, end + width
            dx, delta = branch.propagate(p, kept, dy[..., start:end], need_dx)
            dxs.append(dx)
            deltas.append(delta)
        if not need_dx:
            return None, tuple(deltas)
        return (self._dx(x, dxs) if self.inputs else added(*dxs)), tuple(deltas)

    def tangent(self, params, residuals, dparams, dx):
        (widths, _), inner = residuals
        dys = [
            branch.tangent(p, kept, None if dparams is None else dparams[i], None if dx is None else self._input(dx, i))
            for i, (branch, p, kept) in enumerate(zip(self.branches, params, inner, strict=True))
        ]
        moved = next((dy for dy in dys if dy is not None), None)
        if moved is None:
            return None
        xp = namespace(moved)
        still = lambda width: xp.zeros((*moved.shape[:-1], width), moved.dtype)
        return xp.concatenate(
            [still(w) if dy is None else dy for dy, w in zip(dys, widths.thing, strict=True)], axis=-1
        )

    def _input(self, x, i):
        """The input of branch i."""
        if self.inputs is None:
            return x
        return x[self.inputs[i]] if isinstance(x, dict) else getattr(x, self.inputs[i])

    def _dx(self, x, dxs):
        """The errors of the inputs by name, summed over the branches that share an input."""
        total: dict[str, Any] = {}
        for name, dx in zip(self.inputs or (), dxs, strict=True):
            total[name] = added(total.get(name), dx)
        return like_inputs(total, x)

    def _input_shapes(self, input_shape):
        input_shape = shape("input_shape", input_shape, several=True)
        if self.inputs is None:
            return [input_shape] * len(self.branches)
        named = dict(input_shape) if input_shape and isinstance(input_shape[0], tuple) else {}
        missing = [name for name in self.inputs if name not in named]
        if missing:
            raise ShapeError(f"expected inputs named {', '.join(self.inputs)}, got {shown(input_shape)}")
        return [named[name] for name in self.inputs]

    def _shapes(self, input_shape):
        inputs = self._input_shapes(input_shape)
        return [self._at(i, branch.output_shape, inputs[i]) for i, branch in enumerate(self.branches)]

    def _at(self, i, method, *args):
        return located("branches", self.branches, i, method, *args)


@dataclass(frozen=True)
class Frozen(Around):
    """A layer or network whose parameters are not learnt: it passes δ on, and its own gradient is zero.

        y = f(x; θ)        dx = δ ∂f/∂x        dθ = 0        dy = ∂f/∂x dx

    Its parameters are `trees.Fixed(θ)`, a marker that makes every optimizer and penalty leave them alone. That includes
    weight decay and Optax's optimizers (through `apply_updates` and everything that trains here). To freeze parameters
    that have been learnt, wrap them the same way: `fnn.trees.Fixed(params)`.

    Args:
        layer: f.

    >>> net = Serial((Frozen(Dense(3)), Dense(1)))
    >>> net.init(random.key(0, backend="numpy"), (2,))[0].params.w.shape
    (3, 2)
    """

    @property
    def parts(self):
        return trees.Fixed(self.layer)

    def output_shape(self, input_shape):
        return self.layer.output_shape(input_shape)

    def init(self, key, input_shape, dtype: Any = np.float32):
        return trees.Fixed(self.layer.init(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        y, residuals = self.layer.forward(params.params, x, key)
        return y, trees.Fixed(residuals)

    def propagate(self, params, residuals, dy, need_dx=True):
        dx, deltas = self.layer.propagate(params.params, residuals.params, dy, need_dx)
        return dx, trees.Fixed(deltas)

    def factors(self, params, residuals, delta):
        return without(params)

    outer_factors = factors

    def gradient(self, params, residuals, delta):
        return zeros_like(params)

    def tangent(self, params, residuals, dparams, dx):
        return self.layer.tangent(params.params, residuals.params, None, dx)


def like_inputs(errors, x):
    """The errors of several inputs by name in the form of x, 0 for an input that has none; None if none has one."""
    if all(dx is None for dx in errors.values()):
        return None
    zeros = lambda a: namespace(a).zeros(a.shape, a.dtype)
    named = x if isinstance(x, dict) else x._asdict()
    named = {name: zeros(a) if errors.get(name) is None else errors[name] for name, a in named.items()}
    return named if isinstance(x, dict) else type(x)(**named)


def last_layer(net: Layer) -> Layer | None:
    """The layer whose values are the network's output, or None where several layers share in it."""
    if isinstance(net, Serial):
        layers = [layer for layer in net.layers if not isinstance(layer, Identity | Flatten | Dropout)]
        return last_layer(layers[-1]) if layers else None
    if isinstance(net, Around) and not isinstance(net, Residual):
        return last_layer(net.layer)
    return None if isinstance(net, Composition) else net


@usage("fnn.mlp((128, 10), activation=fnn.Relu())")
def mlp(
    units: tuple[int, ...],
    activation: Layer | None = None,
    initializer: Initializer | None = None,
    *,
    precision: str | None = None,
) -> Serial:
    """Make a multilayer perceptron: dense layers of the given sizes, with an activation after each but the last.

    `mlp((128, 10))` is `Serial((Dense(128), Relu(), Dense(10)))`.

    Args:
        units: the sizes of the layers; the last one is that of the output.
        activation: the layer between the dense layers. Default: `Relu()`.
        initializer: the initializer of the weights. Default: that of `Dense`.
        precision: the precision of the products, as for `Dense`. Default: None, full precision.

    Returns:
        The network, a `Serial`.

    >>> mlp((3, 1)) == Serial((Dense(3), Relu(), Dense(1)))
    True
    """
    if not isinstance(units, tuple | list):
        raise KindError(f"units: expected a tuple of sizes, got {shorten(units)}; write mlp((128, 10))")
    units = shape("units", units)
    if not units:
        raise ArgumentError("units: expected the size of at least one layer, got ()")
    activation = Relu() if activation is None else activation
    options: dict[str, Any] = {"precision": precision} | ({} if initializer is None else {"initializer": initializer})
    layers = [layer for size in units for layer in (Dense(size, **options), activation)]
    return Serial(tuple(layers[:-1]))

"""Networks: compositions of layers. A composition is itself a layer, so networks nest.

The backward pass of a composition is the chain rule read backwards: layer l's dx is the dy of layer l−1.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import backend, gate, random, trees
from .backend import Held, floating, is_floating, namespace
from .composition import (
    Composition,
    Kept,
    at_layer,
    check_layer,
    check_layers,
    key_of,
    located,
    recorder,
    walk,
    without,
    zeros_like,
)
from .errors import ArgumentError, DataError, FnnError, KindError, ShapeError, shape, shorten, usage
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
        shapes = [shape("input_shape", input_shape)]
        for i, layer in enumerate(self.layers):
            shapes.append(self._at(i, layer.output_shape, shapes[-1]))
        return shapes

    def check(self, x):
        if self.layers:
            self._at(0, self.layers[0].check, x)

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
            raise ShapeError(f"Residual: expected a layer that keeps the shape {input_shape}, got {output}")
        return input_shape

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        return self.layer.init(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        y, residuals = self.layer.forward(params, x, key)
        return floating(x, y.dtype) + y, residuals

    def propagate(self, params, residuals, dy, need_dx=True):
        dx, deltas = self.layer.propagate(params, residuals, dy, need_dx)
        return (dy + dx if need_dx else None), deltas

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
            raise ShapeError(f"Parallel: expected outputs of the same shape but for the last axis, got {shapes}")
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
        return (self._dx(x, dxs) if self.inputs else sum(dxs[1:], dxs[0])), tuple(deltas)

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
        """The errors of the inputs by name, summed over the branches that share an input; 0 for an unused one."""
        total: dict[str, Any] = {}
        for name, dx in zip(self.inputs or (), dxs, strict=True):
            total[name] = dx if name not in total else total[name] + dx
        missing = lambda a: namespace(a).zeros(a.shape, a.dtype)
        named = {name: total.get(name, missing(a)) for name, a in (x if isinstance(x, dict) else x._asdict()).items()}
        return named if isinstance(x, dict) else type(x)(**named)

    def _input_shapes(self, input_shape):
        input_shape = shape("input_shape", input_shape)
        if self.inputs is None:
            return [input_shape] * len(self.branches)
        named = dict(input_shape) if input_shape and isinstance(input_shape[0], tuple) else {}
        missing = [name for name in self.inputs if name not in named]
        if missing:
            raise ShapeError(f"Parallel: expected inputs named {', '.join(self.inputs)}, got {input_shape}")
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
    >>> params = net.init(random.key(0, backend="numpy"), {"x": (5,), "length": ()})
    >>> net.apply(params, {"x": np.zeros((2, 5), int), "length": np.array([3, 5])}).shape
    (2, 4)
    """

    inputs: tuple[str, str] = ("x", "length")

    @property
    def parts(self):
        return self.layer

    def output_shape(self, input_shape):
        inner = self._inner_shape(input_shape)
        output = self.layer.output_shape(inner)
        if output[:1] != inner[:1]:
            raise ShapeError(
                f"Last: expected a layer that keeps the {inner[0]} positions, got output of shape {output}; "
                "recurrent layers take all_states=True"
            )
        return output[1:]

    def check(self, x):
        sequences, length = self._of(x)
        super().check(sequences)
        positions = sequences.shape[1]
        wrong = np.asarray((length < 1) | (length > positions))
        if wrong.any():
            n = int(wrong.argmax())
            raise DataError(f"{self.inputs[1]}: expected lengths from 1 to {positions}, got {length[n]} at [{n}]")

    def _of(self, x):
        """The sequences and their lengths."""
        return tuple(x[name] if isinstance(x, dict) else getattr(x, name) for name in self.inputs)

    def _inner_shape(self, input_shape):
        named = shape("input_shape", input_shape)
        named = dict(named) if named and isinstance(named[0], tuple) else {}
        if any(name not in named for name in self.inputs) or not named[self.inputs[0]] or named[self.inputs[1]]:
            x, length = self.inputs
            raise ShapeError(f"Last: expected x as {{{x!r}: (N, T, ...), {length!r}: (N,)}}, got {input_shape}")
        return named[self.inputs[0]]

    def init(self, key, input_shape, dtype: Any = np.float32):
        self.output_shape(input_shape)
        return self.layer.init(key, self._inner_shape(input_shape), dtype)

    def forward(self, params, x, key=None):
        sequences, length = self._of(x)
        xp = namespace(sequences, length)
        place = xp.arange(sequences.shape[1], dtype=np.int32)
        within = place < length[:, None]
        sequences = xp.where(_tall(within, sequences), sequences, 0)
        y, inner = self.layer.forward(params, sequences, key)
        last = place == length[:, None] - 1
        y = xp.where(_tall(last, y), y, 0).sum(axis=1)
        return xp.where(_tall((length >= 1) & (length <= len(place)), y), y, np.nan), Kept((within, last), inner)

    def propagate(self, params, residuals, dy, need_dx=True):
        (within, last), inner = residuals
        dy = dy[:, None]
        dx, deltas = self.layer.propagate(params, inner, namespace(dy).where(_tall(last, dy), dy, 0), need_dx)
        if dx is None:
            return None, deltas
        dx = namespace(dx).where(_tall(within, dx), dx, 0)
        return dict(zip(self.inputs, (dx, 0 * last[:, 0]), strict=True)), deltas

    def tangent(self, params, residuals, dparams, dx):
        (within, last), inner = residuals
        if dx is not None:
            dx = self._of(dx)[0]
            dx = namespace(dx).where(_tall(within, dx), dx, 0)
        dy = self.layer.tangent(params, inner, dparams, dx)
        return None if dy is None else namespace(dy).where(_tall(last, dy), dy, 0).sum(axis=1)


def _tall(mask, values):
    """A mask of examples or positions, with axes of length 1 added so that it meets the values."""
    return mask.reshape(*mask.shape, *(1,) * (values.ndim - mask.ndim))


def last_layer(net: Layer) -> Layer | None:
    """The layer whose values are the network's output, or None where several layers share in it."""
    if isinstance(net, Serial):
        layers = [layer for layer in net.layers if not isinstance(layer, Identity | Flatten | Dropout)]
        return last_layer(layers[-1]) if layers else None
    if isinstance(net, Frozen | Last):
        return last_layer(net.layer)
    return None if isinstance(net, Composition) else net


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


@usage("fnn.summary(net, input_shape)")
def summary(net: Layer, input_shape: Any, dtype: Any = np.float32) -> str:
    """Summarize a network as a table: the output shape of each layer, its number of parameters and their bytes.

    With JAX nothing is computed; on NumPy alone, one example of zeros is passed through the network.

    Args:
        net: a layer or network.
        input_shape: the shape of an example, without the batch axis.
        dtype: the dtype of the parameters. Default: float32.

    Returns:
        The table as a string.

    >>> print(summary(mlp((128, 10)), (784,)))
    layer         output  parameters    bytes
    0 Dense       (128,)     100,480  401,920
    1 Relu        (128,)           0        0
    2 Dense        (10,)       1,290    5,160
    total          (10,)     101,770  407,080
    """
    rows = [("layer", "output", "parameters", "bytes")]

    def row(label, output, params):
        count = sum(leaf.size for leaf in trees.leaves(params))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in trees.leaves(params))
        return label, str(tuple(output.shape[1:])), f"{count:,}", f"{size:,}"

    gate.check_network(net)
    params, recorded = outline(net, input_shape, dtype)
    for place, layer, p, kept in walk(net, params, recorded):
        line = row(f"{place} {type(layer).__name__}", kept.output, p)
        if not isinstance(layer, Composition):
            rows.append(line)
        elif not isinstance(layer, Serial):  # a heading, followed by the layers inside
            rows.append((*line[:2], "", ""))
    rows.append(row("total", recorded.output, params))
    return table(rows)


def outline(net, input_shape, dtype: Any = np.float32) -> tuple[Any, Any]:
    """`(params, recorded)`: parameters without values, and the shapes of what each layer would keep of one example."""
    input_shape = shape("input_shape", input_shape)
    params = gate.parameter_shapes(net, input_shape, np.dtype(dtype))
    run = lambda params, x: recorder(net).forward(params, x)[1]
    run = run if backend.jax is None else functools.partial(backend.jax.eval_shape, run)

    def zeros(dtype):
        if input_shape and isinstance(input_shape[0], tuple):
            return {name: np.zeros((1, *sizes), dtype) for name, sizes in input_shape}
        return np.zeros((1, *input_shape), dtype)

    try:
        return params, run(params, zeros(dtype))
    except (FnnError, TypeError, IndexError):  # a network of symbols takes integers only
        return params, run(params, zeros(np.int32))


def table(rows) -> str:
    """Format rows of text as a table, with the first column aligned left and the others right."""
    widths = [max(len(r[column]) for r in rows) for column in range(len(rows[0]))]
    sides = "<" + ">" * (len(widths) - 1)
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(r, sides, widths, strict=True)).rstrip()
        for r in rows
    )

"""Networks: layers composed. A composition is a layer too, so networks nest.

What a composition keeps, for its layers 0 … L−1, is nested as its parameters are: a tuple with one entry for each
layer. Its backward pass is the chain rule read backwards: layer l's dx is the dy of layer l−1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import backend, random, trees
from .activations import Relu
from .errors import ArgumentError, FnnError, KindError, ShapeError, shape, shorten
from .initializers import Initializer
from .layers import Dense, Layer
from .static import check_static


@dataclass(frozen=True)
class Serial(Layer):
    """Layers one after the other.

        a⁰ = x,  aˡ⁺¹ = fₗ(aˡ; θₗ),  y = aᴸ        δᴸ = ∂L/∂y,  δˡ = δˡ⁺¹ ∂fₗ/∂aˡ,  dx = δ⁰        dθₗ = Σₙ δˡ⁺¹ ∂fₗ/∂θₗ

    `layers` is a tuple of layers, of which any may be a Serial. D. Rumelhart, G. Hinton, R. Williams (1986).

    >>> Serial((Dense(128), Relu(), Dense(10))).output_shape((784,))
    (10,)
    """

    layers: tuple[Layer, ...]

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.layers, tuple):
            raise KindError(f"layers: expected a tuple of layers, got {shorten(self.layers)}")
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                hint = f"; write {layer.__name__}()" if isinstance(layer, type) and issubclass(layer, Layer) else ""
                raise KindError(f"layers[{i}]: expected a layer, got {shorten(layer)}{hint}")
            check_static(layer)

    @property
    def draws(self):  # type: ignore[override]
        return any(layer.draws for layer in self.layers)

    def output_shape(self, input_shape):
        return self.shapes(input_shape)[-1]

    def shapes(self, input_shape):
        """The shapes between the layers, from that of the input to that of the output: L + 1 of them."""
        shapes = [shape("input_shape", input_shape)]
        for i, layer in enumerate(self.layers):
            shapes.append(self._at(i, layer.output_shape, shapes[-1]))
        return shapes

    def init(self, key, input_shape, dtype=np.float32):
        key = random.check_key(key)
        inputs = self.shapes(input_shape)[:-1]
        return tuple(
            self._at(i, layer.init, random.fold_in(key, i), inputs[i], dtype) for i, layer in enumerate(self.layers)
        )

    def forward(self, params, x, key=None):
        y, residuals, _ = self.record(params, x, key)
        return y, residuals

    def record(self, params, x, key=None):
        params, residuals, outputs = self._checked(params), [], []
        for i, layer in enumerate(self.layers):
            layer_key = random.fold_in(key, i) if key is not None and layer.draws else key
            x, residual, output = self._at(i, layer.record, params[i], x, layer_key)
            residuals.append(residual)
            outputs.append(output)
        return x, tuple(residuals), tuple(outputs)

    def backward(self, params, residuals, dy):
        return self.propagate(params, residuals, dy)[0]

    def propagate(self, params, residuals, dy, need_dx=True):
        deltas = [None] * len(self.layers)
        for i in reversed(range(len(self.layers))):
            if dy is None:  # nothing below learns, and nobody asks for dx
                break
            below = need_dx or any(trees.leaves(p) for p in params[:i])
            dy, deltas[i] = self.layers[i].propagate(params[i], residuals[i], dy, below)
        return dy, tuple(deltas)

    def gradient(self, params, residuals, deltas):
        return tuple(
            layer.gradient(*of_layer) for layer, *of_layer in zip(self.layers, params, residuals, deltas, strict=True)
        )

    def _checked(self, params):
        if not isinstance(params, tuple) or len(params) != len(self.layers):
            raise ShapeError(
                f"Serial: expected parameters of {len(self.layers)} layers, a tuple, got {trees.outline(params)}"
            )
        return params

    def _at(self, i, method, *args):
        """Call a method of layer i; an error of ours gets the place in front."""
        try:
            return method(*args)
        except FnnError as error:
            raise error.at(f"layers[{i}] {type(self.layers[i]).__name__}")  # noqa: B904 - the same error, its place added


def mlp(units, activation: Layer | None = None, initializer: Initializer | None = None):
    """A multilayer perceptron: dense layers of the given sizes with an activation between them, none after the last.

    `mlp((128, 10))` is `Serial((Dense(128), Relu(), Dense(10)))`. `units` are the sizes of the layers, the last of
    which is the output; `activation` is a layer, ReLU by default; `initializer` is that of every Dense layer.

    >>> mlp((3, 1)) == Serial((Dense(3), Relu(), Dense(1)))
    True
    """
    units = shape("units", units)
    if not units:
        raise ArgumentError("units: expected the size of at least one layer, got ()")
    activation = Relu() if activation is None else activation
    options: dict[str, Any] = {} if initializer is None else {"initializer": initializer}
    layers = [layer for size in units for layer in (Dense(size, **options), activation)]
    return Serial(tuple(layers[:-1]))


def parameter_shapes(net, input_shape, dtype=np.float32):
    """The parameters of a network without their values, where JAX is there; on NumPy alone, new parameters."""

    def make():
        return net.init(random.key(0), input_shape, dtype)

    return make() if backend.jax is None else backend.jax.eval_shape(make)


def summary(net, input_shape, dtype=np.float32):
    """A network as a table: each layer with the shape of its output, the number of its parameters and their bytes.

    With JAX nothing is computed (`jax.eval_shape`); on NumPy alone the parameters are made once and thrown away.

    >>> print(summary(mlp((128, 10)), (784,)))
    layer         output  parameters    bytes
    0 Dense       (128,)     100,480  401,920
    1 Relu        (128,)           0        0
    2 Dense        (10,)       1,290    5,160
    total          (10,)     101,770  407,080
    """
    rows = [("layer", "output", "parameters", "bytes")]

    def visit(layer, params, input_shape, place):
        if isinstance(layer, Serial):
            for i, (child, below) in enumerate(zip(layer.layers, layer.shapes(input_shape)[:-1], strict=True)):
                visit(child, params[i], below, f"{place}.{i}" if place else str(i))
        else:
            rows.append(row(f"{place} {type(layer).__name__}", layer, params, input_shape))

    def row(label, layer, params, input_shape):
        count = sum(leaf.size for leaf in trees.leaves(params))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in trees.leaves(params))
        return label, str(layer.output_shape(input_shape)), f"{count:,}", f"{size:,}"

    params = parameter_shapes(net, input_shape, dtype)
    visit(net, params, input_shape, "")
    rows.append(row("total", net, params, input_shape))
    widths = [max(len(r[column]) for r in rows) for column in range(4)]
    return "\n".join(
        f"{r[0]:<{widths[0]}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(r[1:], widths[1:], strict=True))
        for r in rows
    )

"""Networks: layers composed. A composition is a layer too, so networks nest.

What a composition keeps, for its layers 0 … L−1, is nested as its parameters are: a tuple with one entry for each
layer. Its backward pass is the chain rule read backwards: layer l's dx is the dy of layer l−1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import backend, random, trees
from .activations import Relu
from .backend import floating, is_floating, namespace
from .errors import ArgumentError, FnnError, KindError, ShapeError, same_shape, shape, shorten
from .initializers import Initializer
from .layers import Dense, Layer
from .static import check_static


class Composition(Layer):
    """A layer made of layers. It defines `record` and `propagate`, which nest what is within as the parameters are
    nested, and `each`, which calls a rule for every layer within: its gradients follow from that."""

    def each(self, rule, params, residuals, deltas):
        """`rule(layer, params, residuals, deltas)` of every layer within, nested as the parameters are.

        Of what does not learn (a `Frozen` layer, or one below all that learns) the rule is given no deltas, but None.
        """
        raise NotImplementedError

    def parts(self, params, input_shape, *nested):
        """`(layer, params, input_shape, *nested)` of each layer right within, from trees nested as the parameters are.

        Where a tree is None, all of its parts are; so are those of a gradient within a `Frozen` layer.
        """
        raise NotImplementedError

    def forward(self, params, x, key=None):
        y, residuals, _ = self.record(params, x, key)
        return y, residuals

    def backward(self, params, residuals, dy):
        return self.propagate(params, residuals, dy)[0]

    def gradient(self, params, residuals, deltas):
        def rule(layer, params, residuals, deltas):
            if deltas is None:
                return trees.map(lambda p: namespace(p).zeros_like(p), params)
            return layer.gradient(params, residuals, deltas)

        return self.each(rule, params, residuals, deltas)

    def per_example_gradient(self, params, residuals, deltas):
        batched = trees.leaves((deltas, residuals))
        n = len(batched[0]) if batched else 0

        def rule(layer, params, residuals, deltas):
            if deltas is None:
                return trees.map(lambda p: namespace(p).zeros((n, *p.shape), p.dtype), params)
            return layer.per_example_gradient(params, residuals, deltas)

        return self.each(rule, params, residuals, deltas)


def each_of(layers, rule, *trees_of_layers):
    """`Layer.each` of several layers beside one another, the last one first, as errors come."""
    of_layers = [
        rule(layer, params, residuals, None) if deltas is None else layer.each(rule, params, residuals, deltas)
        for layer, params, residuals, deltas in reversed(list(zip(layers, *trees_of_layers, strict=True)))
    ]
    return tuple(reversed(of_layers))


@dataclass(frozen=True)
class Serial(Composition):
    """Layers one after the other.

        a⁰ = x,  aˡ⁺¹ = fₗ(aˡ; θₗ),  y = aᴸ        δᴸ = ∂L/∂y,  δˡ = δˡ⁺¹ ∂fₗ/∂aˡ,  dx = δ⁰        dθₗ = Σₙ δˡ⁺¹ ∂fₗ/∂θₗ

    `layers` is a tuple of layers, of which any may be a Serial. D. Rumelhart, G. Hinton, R. Williams (1986).

    >>> Serial((Dense(128), Relu(), Dense(10))).output_shape((784,))
    (10,)
    """

    layers: tuple[Layer, ...]

    def __post_init__(self):
        super().__post_init__()
        check_layers("layers", self.layers)

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

    def record(self, params, x, key=None):
        params, residuals, outputs = self._checked(params), [], []
        for i, layer in enumerate(self.layers):
            layer_key = random.fold_in(key, i) if key is not None and layer.draws else key
            x, residual, output = self._at(i, layer.record, params[i], x, layer_key)
            residuals.append(residual)
            outputs.append(output)
        return x, tuple(residuals), tuple(outputs)

    def propagate(self, params, residuals, dy, need_dx=True):
        deltas: list = [None] * len(self.layers)
        lowest = 0  # below it nothing learns, and nobody asks for dx
        if not need_dx:
            lowest = next((i for i, p in enumerate(params) if trees.learnt(p)), len(params))
        for i in reversed(range(lowest, len(self.layers))):
            dy, deltas[i] = self.layers[i].propagate(params[i], residuals[i], dy, need_dx or i > lowest)
        return (dy if need_dx else None), tuple(deltas)

    def each(self, rule, params, residuals, deltas):
        return each_of(self.layers, rule, params, residuals, deltas)

    def parts(self, params, input_shape, *nested):
        nested = [tree or (None,) * len(self.layers) for tree in nested]
        return list(zip(self.layers, params, self.shapes(input_shape)[:-1], *nested, strict=True))

    def _checked(self, params):
        if not isinstance(params, tuple) or len(params) != len(self.layers):
            raise ShapeError(
                f"Serial: expected parameters of {len(self.layers)} layers, a tuple, got {trees.outline(params)}"
            )
        return params

    def _at(self, i, method, *args):
        return located("layers", self.layers, i, method, *args)


@dataclass(frozen=True)
class Around(Composition):
    """A layer around another one."""

    layer: Layer

    def __post_init__(self):
        super().__post_init__()
        check_layer_of("layer", self.layer)

    @property
    def draws(self):  # type: ignore[override]
        return self.layer.draws


@dataclass(frozen=True)
class Residual(Around):
    """A skip connection around a layer, or a Serial, that keeps the shape.

    y = x + f(x; θ)        dx = δ + δ ∂f/∂x        dθ = Σₙ δ ∂f/∂θ

    Its parameters are those of f. K. He et al., "Deep residual learning for image recognition" (2016), eq. 1.

    >>> Residual(Serial((Dense(8), Relu(), Dense(3)))).output_shape((3,))
    (3,)
    """

    def output_shape(self, input_shape):
        input_shape = super().output_shape(input_shape)
        if (found := self.layer.output_shape(input_shape)) != input_shape:
            raise ShapeError(f"Residual: expected a layer that keeps the shape {input_shape}, got {found}")
        return input_shape

    def init(self, key, input_shape, dtype=np.float32):
        self.output_shape(input_shape)
        return self.layer.init(key, input_shape, dtype)

    def record(self, params, x, key=None):
        y, residuals, outputs = self.layer.record(params, x, key)
        same_shape("Residual: output of its layer", y, x.shape)
        return floating(x, y.dtype) + y, residuals, outputs

    def propagate(self, params, residuals, dy, need_dx=True):
        dx, deltas = self.layer.propagate(params, residuals, dy, need_dx)
        return (dy + dx if need_dx else None), deltas

    def each(self, rule, params, residuals, deltas):
        return self.layer.each(rule, params, residuals, deltas)

    def parts(self, params, input_shape, *nested):
        return [(self.layer, params, input_shape, *nested)]


@dataclass(frozen=True)
class Parallel(Composition):
    """Branches side by side on the same input, their outputs concatenated along the last axis.

    y = [f₁(x; θ₁), f₂(x; θ₂), …]        dx = Σᵢ δᵢ ∂fᵢ/∂x,  δ = [δ₁, δ₂, …]        dθᵢ = Σₙ δᵢ ∂fᵢ/∂θᵢ

    `Parallel((Identity(), f))` hands its input on beside what f makes of it. C. Szegedy et al., "Going deeper with
    convolutions" (2015).

    >>> Parallel((Dense(2), Serial((Dense(3), Relu())))).output_shape((4,))
    (5,)
    """

    branches: tuple[Layer, ...]

    def __post_init__(self):
        super().__post_init__()
        check_layers("branches", self.branches)
        if not self.branches:
            raise ArgumentError("branches: expected at least one, got ()")

    @property
    def draws(self):  # type: ignore[override]
        return any(branch.draws for branch in self.branches)

    def output_shape(self, input_shape):
        shapes = self._shapes(super().output_shape(input_shape))
        if len({s[:-1] for s in shapes}) > 1 or not all(shapes):
            raise ShapeError(f"Parallel: expected outputs of the same shape but for the last axis, got {shapes}")
        return (*shapes[0][:-1], sum(s[-1] for s in shapes))

    def init(self, key, input_shape, dtype=np.float32):
        self.output_shape(input_shape)
        key = random.check_key(key)
        return tuple(
            self._at(i, b.init, random.fold_in(key, i), input_shape, dtype) for i, b in enumerate(self.branches)
        )

    def record(self, params, x, key=None):
        if not isinstance(params, tuple) or len(params) != len(self.branches):
            raise ShapeError(
                f"Parallel: expected parameters of {len(self.branches)} branches, a tuple, got {trees.outline(params)}"
            )
        self.output_shape(x.shape[1:])
        of_branches = []
        for i, branch in enumerate(self.branches):
            branch_key = random.fold_in(key, i) if key is not None and branch.draws else key
            of_branches.append(self._at(i, branch.record, params[i], x, branch_key))
        y, residuals, outputs = zip(*of_branches, strict=True)
        dtype = next((a.dtype for a in y if is_floating(a.dtype)), np.float32)
        return namespace(*y).concatenate([floating(a, dtype) for a in y], axis=-1), (x, residuals), outputs

    def propagate(self, params, residuals, dy, need_dx=True):
        (x, residuals), dx, deltas, end = residuals, None, [], 0
        for branch, p, r, output_shape in zip(self.branches, params, residuals, self._shapes(x.shape[1:]), strict=True):
            start, end = end, end + output_shape[-1]
            of_branch, inner = branch.propagate(p, r, dy[..., start:end], need_dx)
            dx = of_branch if dx is None else dx + of_branch
            deltas.append(inner)
        return dx, tuple(deltas)

    def each(self, rule, params, residuals, deltas):
        return each_of(self.branches, rule, params, residuals[1], deltas)

    def parts(self, params, input_shape, *nested):
        nested = [tree or (None,) * len(self.branches) for tree in nested]
        return list(zip(self.branches, params, [input_shape] * len(self.branches), *nested, strict=True))

    def _shapes(self, input_shape):
        return [self._at(i, branch.output_shape, input_shape) for i, branch in enumerate(self.branches)]

    def _at(self, i, method, *args):
        return located("branches", self.branches, i, method, *args)


@dataclass(frozen=True)
class Frozen(Around):
    """A layer, or a Serial, whose parameters are not learnt: it passes δ on, and its own gradient is zero.

    y = f(x; θ)        dx = δ ∂f/∂x        dθ = 0

    Its parameters are `trees.Fixed(θ)`, a mark by which every optimizer and penalty leaves them alone, weight decay
    and Optax's optimizers too (through `apply_updates` and all that trains here). To freeze what has been learnt, put
    those parameters there: `fnn.trees.Fixed(params)`.

    >>> net = Serial((Frozen(Dense(3)), Dense(1)))
    >>> net.init(random.key(0, backend="numpy"), (2,))[0].params.w.shape
    (3, 2)
    """

    def output_shape(self, input_shape):
        return self.layer.output_shape(input_shape)

    def init(self, key, input_shape, dtype=np.float32):
        return trees.Fixed(self.layer.init(key, input_shape, dtype))

    def record(self, params, x, key=None):
        return self.layer.record(self._checked(params), x, key)

    def propagate(self, params, residuals, dy, need_dx=True):
        return self.layer.propagate(params.params, residuals, dy, need_dx)

    def each(self, rule, params, residuals, deltas):
        return rule(self, params, residuals, None)

    def parts(self, params, input_shape, *nested):
        return [(self.layer, params.params, input_shape, *(None if isinstance(t, trees.Fixed) else t for t in nested))]

    def _checked(self, params):
        if not isinstance(params, trees.Fixed):
            raise ShapeError(f"expected parameters marked by fnn.trees.Fixed(...), got {trees.outline(params)}")
        return params.params


def check_layer_of(name, layer):
    """Raise unless this is a layer that can be compared."""
    if not isinstance(layer, Layer):
        hint = f"; write {layer.__name__}()" if isinstance(layer, type) and issubclass(layer, Layer) else ""
        raise KindError(f"{name}: expected a layer, got {shorten(layer)}{hint}")
    check_static(layer)


def check_layers(name, layers):
    """`check_layer_of` for each of a tuple."""
    if not isinstance(layers, tuple):
        raise KindError(f"{name}: expected a tuple of layers, got {shorten(layers)}")
    for i, layer in enumerate(layers):
        check_layer_of(f"{name}[{i}]", layer)


def located(field, layers, i, method, *args):
    """Call a method of one of several layers; an error of ours gets its place in front, and its name."""
    try:
        return method(*args)
    except FnnError as error:
        raise error.at(f"{field}[{i}] {type(layers[i]).__name__}")  # noqa: B904 - the same error, its place added


def mlp(
    units,
    activation: Layer | None = None,
    initializer: Initializer | None = None,
    *,
    precision: str | None = None,
):
    """A multilayer perceptron: dense layers of the given sizes with an activation between them, none after the last.

    `mlp((128, 10))` is `Serial((Dense(128), Relu(), Dense(10)))`. `units` are the sizes of the layers, the last of
    which is the output; `activation` is a layer, ReLU by default; `initializer` and `precision` are those of every
    Dense layer.

    >>> mlp((3, 1)) == Serial((Dense(3), Relu(), Dense(1)))
    True
    """
    units = shape("units", units)
    if not units:
        raise ArgumentError("units: expected the size of at least one layer, got ()")
    activation = Relu() if activation is None else activation
    options: dict[str, Any] = {"precision": precision} | ({} if initializer is None else {"initializer": initializer})
    layers = [layer for size in units for layer in (Dense(size, **options), activation)]
    return Serial(tuple(layers[:-1]))


def parameter_shapes(net, input_shape, dtype=np.float32):
    """The parameters of a network without their values, where JAX is there; on NumPy alone, new parameters."""

    def make():
        return net.init(random.key(0), input_shape, dtype)

    return make() if backend.jax is None else backend.jax.eval_shape(make)


def walk(layer, params, input_shape, *nested, place=""):
    """`(place, layer, params, input_shape, *nested)` of this layer and all within it, in the order of the parameters.

    `place` says which: "0.2" is the third layer of the first. Trees nested as the parameters are come along.
    """
    yield place, layer, params, input_shape, *nested
    if isinstance(layer, Composition):
        for i, part in enumerate(layer.parts(params, input_shape, *nested)):
            yield from walk(*part, place=f"{place}.{i}" if place else str(i))


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

    def row(label, layer, params, input_shape):
        count = sum(leaf.size for leaf in trees.leaves(params))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in trees.leaves(params))
        return label, str(layer.output_shape(input_shape)), f"{count:,}", f"{size:,}"

    params = parameter_shapes(net, input_shape, dtype)
    for place, layer, *of_layer in walk(net, params, input_shape):
        found = row(f"{place} {type(layer).__name__}", layer, *of_layer)
        if not isinstance(layer, Composition):
            rows.append(found)
        elif not isinstance(layer, Serial):  # a heading, and then what is within
            rows.append((*found[:2], "", ""))
    rows.append(row("total", net, params, input_shape))
    widths = [max(len(r[column]) for r in rows) for column in range(4)]
    return "\n".join(
        (f"{r[0]:<{widths[0]}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(r[1:], widths[1:], strict=True))).rstrip()
        for r in rows
    )

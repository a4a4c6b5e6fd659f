"""Compositions: layers made of layers, and the one traversal of the layers inside them.

A composition declares once which layers it is made of: `parts`, a tree of layers nested as its parameters are.
Residuals, deltas, factors, outputs and gradients are nested in the same way, so anything computed for every layer of a
network is one walk over `parts` with any number of such trees beside it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import random, trees
from .backend import namespace
from .errors import FnnError, KindError, shorten
from .layers.base import Layer
from .static import check_static, instead

__all__ = ["Composition", "Kept", "each", "walk"]


class Kept(NamedTuple):
    """Residuals of a composition that keeps some of its own: `own`, and those of its parts, `inner`."""

    own: Any
    inner: Any


@dataclass(frozen=True)
class Composition(Layer):
    """A layer made of layers. Your own must define `parts`, `output_shape`, `init`, `forward` and `propagate`.

    `forward` returns the residuals of the parts, and `propagate` their deltas, nested as `parts` (and so the
    parameters) are; residuals of the composition itself go into `Kept(own, inner)`. The layers inside are fields, alone
    or in tuples. Gradient and factors follow from the parts, and so does `tangent` on JAX if it is not defined.

    >>> from fnn import Dense, Serial
    >>> Serial((Dense(3), Dense(1))).parts
    (Dense(3), Dense(1))
    """

    is_composition: ClassVar[bool] = True
    keeps: ClassVar[type] = Kept  # the node in which its residuals stand as `inner`, if it keeps some of its own

    @property
    def parts(self) -> Any:
        """The layers inside, nested as the parameters are: a layer, or a tuple, NamedTuple or dict of such trees."""
        raise NotImplementedError

    @functools.cached_property
    def draws(self):  # type: ignore[override]
        return any(layer.draws for layer in trees.leaves(self.parts))

    def backward(self, params, residuals, dy):
        return self.propagate(params, residuals, dy)[0]

    def factors(self, params, residuals, delta):
        return over_parts(_factors, self, params, residuals, delta)

    def outer_factors(self, params, residuals, delta):
        return over_parts(_outer_factors, self, params, residuals, delta)

    def gradient(self, params, residuals, delta):
        return over_parts(_gradient, self, params, residuals, delta)


def _factors(part, params, residuals, delta):
    return without(params) if delta is None else part.factors(params, residuals, delta)


def _outer_factors(part, params, residuals, delta):
    return without(params) if delta is None else part.outer_factors(params, residuals, delta)


def _gradient(part, params, residuals, delta):
    return zeros_like(params) if delta is None else part.gradient(params, residuals, delta)


def without(params):
    """A tree of factors with None for each parameter."""
    return trees.map(lambda p: None, params)


def zeros_like(params):
    """The gradient of parameters that do not learn."""
    return trees.map(lambda p: namespace(p).zeros_like(p), params)


# ---- the traversal ---------------------------------------------------------------------------------------------------


def over_parts(f: Callable, layer: Composition, *nested):
    """Map `f(part, *its part of each tree)` over the direct parts of a composition; a tree None has parts None."""
    return _over(f, layer.parts, [_inner(layer, tree) for tree in nested])


def each(f: Callable, layer: Layer, *nested):
    """Map `f(layer, *its part of each tree)` over all layers inside that are not compositions.

    Args:
        f: the function.
        layer: a layer, or a composition of layers.
        *nested: trees nested as its parameters are.

    Returns:
        The results, nested as the parameters are.

    >>> from fnn import mlp
    >>> each(lambda layer: type(layer).__name__, mlp((4, 2)))
    ('Dense', 'Relu', 'Dense')
    """
    if not isinstance(layer, Composition):
        return f(layer, *nested)
    return over_parts(functools.partial(each, f), layer, *nested)


def walk(layer: Layer, *nested, place=""):
    """Yield `(place, layer, *its part of each tree)` for this layer and all inside it, in the order of the parameters.

    `place` is the position as a string: "0.2" is the third layer inside the first.

    Args:
        layer: a layer, or a composition of layers.
        *nested: trees nested as its parameters are.
        place: the position of this layer. Default: "".

    Returns:
        A generator of tuples.

    >>> from fnn import mlp
    >>> [(place, type(layer).__name__) for place, layer in walk(mlp((4, 2)))]
    [('', 'Serial'), ('0', 'Dense'), ('1', 'Relu'), ('2', 'Dense')]
    """
    yield place, layer, *nested
    if isinstance(layer, Composition):
        inside = []
        over_parts(lambda *part: inside.append(part), layer, *nested)
        for i, part in enumerate(inside):
            yield from walk(*part, place=f"{place}.{i}" if place else str(i))


def _inner(layer, tree):
    """A composition's tree without the composition's own residuals."""
    tree = tree.residuals if isinstance(tree, Recorded) else tree
    return tree.inner if isinstance(tree, layer.keeps) else tree


def _over(f, parts, nested):
    if isinstance(parts, Layer):
        return f(parts, *nested)
    if isinstance(parts, dict):
        return {key: _over(f, parts[key], [None if t is None else t[key] for t in nested]) for key in sorted(parts)}
    columns = [(None,) * len(parts) if tree is None else tree for tree in nested]
    results = [
        f(part, *branches) if isinstance(part, Layer) else _over(f, part, branches)
        for part, *branches in zip(parts, *columns, strict=True)
    ]
    return type(parts)(*results) if hasattr(parts, "_fields") else tuple(results)


# ---- outputs ---------------------------------------------------------------------------------------------------------


class Recorded(NamedTuple):
    """The residuals of a layer run by a `Recorder`, together with its output."""

    output: Any
    residuals: Any


@dataclass(frozen=True)
class Recorder(Layer):
    """A layer that keeps its output among its residuals, as `Recorded(output, residuals)`."""

    layer: Layer

    @property
    def draws(self):  # type: ignore[override]
        return self.layer.draws

    def output_shape(self, input_shape):
        return self.layer.output_shape(input_shape)

    def init(self, key, input_shape, dtype: Any = np.float32):
        return self.layer.init(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        y, residuals = self.layer.forward(params, x, key)
        return y, Recorded(y, residuals)


@functools.lru_cache(maxsize=256)
def recorder(layer: Layer) -> Recorder:
    """The same network with every layer recording its output."""
    if isinstance(layer, Composition):
        values = {field.name: getattr(layer, field.name) for field in fields(layer)}
        layer = replace(
            layer, **{name: _recorders(value) for name, value in values.items() if _recorders(value) != value}
        )
        if not all(isinstance(part, Recorder) for part in trees.leaves(layer.parts)):
            name = type(layer).__name__
            raise KindError(f"{name}.parts: expected layers that are fields of {name}, so that a tape can record them")
    return Recorder(layer)


def _recorders(value):
    if isinstance(value, Layer):
        return recorder(value)
    if isinstance(value, tuple):
        inner = [_recorders(item) for item in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    return value


def forward_recorded(net: Layer, params, x, key=None) -> tuple[Any, Any, Any]:
    """`(y, residuals, outputs)`: the forward pass and the output of each layer inside, nested as the parameters are."""
    y, recorded = recorder(net).forward(params, x, key)
    return y, _residuals(net, recorded), each(lambda layer, kept: kept.output, net, recorded)


def _residuals(layer, recorded):
    """The residuals as `forward` gives them, without the outputs."""
    residuals = recorded.residuals
    if not isinstance(layer, Composition):
        return residuals
    inner = over_parts(_residuals, layer, recorded)
    return residuals._replace(inner=inner) if isinstance(residuals, layer.keeps) else inner


# ---- checks and places -----------------------------------------------------------------------------------------------


def check_layer(name, layer):
    """Raise unless `layer` is a layer that can be compared by value."""
    if not isinstance(layer, Layer):
        hint = instead(layer, Layer) or of_several(layer)
        hint = "; a cost is an argument of fnn.fit" if hasattr(layer, "value_and_delta") else hint
        raise KindError(f"{name}: expected a layer, got {shorten(layer)}{hint or '; for example, write fnn.Relu()'}")
    check_static(layer)


def of_several(layers) -> str:
    """A hint for a message: a list or tuple of layers becomes a network by `Serial`."""
    several = isinstance(layers, list | tuple) and layers and all(isinstance(layer, Layer) for layer in layers)
    return f"; write fnn.Serial({shorten(tuple(layers))})" if several else ""


def check_layers(name, layers):
    """`check_layer` for each layer of a tuple."""
    if not isinstance(layers, tuple):
        hint = f"; write {shorten((layers,))}, with the comma" if isinstance(layers, Layer) else ""
        raise KindError(f"{name}: expected a tuple of layers, got {shorten(layers)}{hint}")
    for i, layer in enumerate(layers):
        check_layer(f"{name}[{i}]", layer)


def located(field, layers, i, method, *args):
    """Call a method of one of several layers; an fnn error is prefixed with the layer's place."""
    try:
        return method(*args)
    except FnnError as error:
        raise at_layer(error, field, i, layers[i])  # noqa: B904 - the same error, its place added


def at_layer(error, field, i, layer):
    """The same error, prefixed with the place of a layer: `layers[1] Dense: expected ...`."""
    layer = layer.layer if isinstance(layer, Recorder) else layer
    return error.at(f"{field}[{i}] {type(layer).__name__}")


def key_of(key, i, layer):
    """The key of part i, derived only if there is a key and the layer draws."""
    return random.fold_in(key, i) if key is not None and layer.draws else key

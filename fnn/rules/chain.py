"""A network as a chain: what rules of learning that look at one layer at a time need to know of it.

A link is a layer of a `Serial`, nested ones included. A linear map is what has `DenseParams`, the affine maps of
`Dense` and `Conv`, and of a layer of your own that has them. A stage is a linear map with what follows it, up to the
next one: in `mlp((8, 8, 3))` the stages are (Dense, Relu), (Dense, Relu), (Dense).
"""

import functools
import math
from typing import Any, NamedTuple

from .. import random, trees
from ..backend import cast, namespace
from ..backpropagation import cost, mean_cost, penalised
from ..composition import key_of
from ..errors import KindError
from ..layers import DenseParams
from ..networks import Serial

# ---- linear maps -----------------------------------------------------------------------------------------------------


def is_map(node):
    """Whether a node of a tree of parameters is that of a linear map."""
    return isinstance(node, DenseParams)


def maps(params) -> list:
    """The linear maps of a tree of parameters, in its order: a `DenseParams` each."""
    return [node for node in trees.leaves(params, is_leaf=is_map) if is_map(node)]


def with_matrices(params, matrices):
    """The same parameters with these matrices in place of those of the linear maps."""
    rest = iter(matrices)
    return trees.map(lambda node: node._replace(w=next(rest)) if is_map(node) else node, params, is_leaf=is_map)


def drawn(key, i, shape, inputs, scale, dtype) -> Any:
    """A random matrix: normal, with standard deviation scale / √inputs, as weights are by default."""
    return cast(random.normal(random.fold_in(key, i), shape, dtype) * (scale / math.sqrt(inputs)), dtype)


# ---- links and stages ------------------------------------------------------------------------------------------------


def links(net) -> tuple:
    """The layers of a network one after another, with those of nested `Serial` networks in their place."""
    return tuple(link for layer in net.layers for link in links(layer)) if isinstance(net, Serial) else (net,)


def flat(net, tree) -> tuple:
    """The part of a tree, nested as the parameters, for each link."""
    if not isinstance(net, Serial):
        return (tree,)
    return tuple(part for layer, branch in zip(net.layers, tree, strict=True) for part in flat(layer, branch))


def nested(net, parts) -> Any:
    """A tree nested as the parameters, of a part for each link: the inverse of `flat`."""
    return _nested(net, iter(parts))


def _nested(net, parts):
    return tuple(_nested(layer, parts) for layer in net.layers) if isinstance(net, Serial) else next(parts)


def keys_of(net, key) -> tuple:
    """The key of each link, which is the one that the network itself hands to it, or None."""
    if not isinstance(net, Serial):
        return (key,)
    inner = ((layer, key_of(key, i, layer)) for i, layer in enumerate(net.layers))
    return tuple(own for layer, k in inner for own in keys_of(layer, k))


def lowest(params) -> int:
    """The index of the first link that learns; no error is needed below it."""
    return next((i for i, p in enumerate(params) if trees.learnt(p)), len(params))


@functools.lru_cache(maxsize=1024)
def shapes_through(net, input_shape) -> tuple:
    """The shape of the input of each link, and that of the output."""
    shapes = [input_shape]
    for link in links(net):
        shapes.append(link.output_shape(shapes[-1]))
    return tuple(shapes)


class Piece(NamedTuple):
    """Links of a network one after another, with their parameters and keys; `start` is the place of the first."""

    layers: tuple
    params: tuple
    keys: tuple
    start: int = 0

    def cut(self, a, b) -> "Piece":
        """The links from place a up to b."""
        return Piece(self.layers[a:b], self.params[a:b], self.keys[a:b], a)

    def forward(self, x) -> tuple[Any, list]:
        """`(y, residuals)`."""
        residuals = []
        for layer, p, key in zip(self.layers, self.params, self.keys, strict=True):
            x, kept = layer.forward(p, x, key)
            residuals.append(kept)
        return x, residuals

    def backward(self, residuals, dy, need_dx=True) -> tuple[Any, list]:
        """`(dx, deltas)`, from the error at the output."""
        deltas: list = [None] * len(self.layers)
        for i in reversed(range(len(self.layers))):
            dy, deltas[i] = self.layers[i].propagate(self.params[i], residuals[i], dy, need_dx or i > 0)
        return dy, deltas

    def gradient(self, residuals, delta) -> list:
        """The gradient of each link, from the error at the output."""
        _, deltas = self.backward(residuals, delta, False)
        parts = zip(self.layers, self.params, residuals, deltas, strict=True)
        return [layer.gradient(p, kept, d) for layer, p, kept, d in parts]


def whole(net, params, key=None) -> Piece:
    """All links of a network."""
    return Piece(links(net), flat(net, params), keys_of(net, key))


def stages(rule, net, params, key=None) -> list[Piece]:
    """The stages of a network, at least two; what comes before the first linear map belongs to its stage."""
    chain = whole(net, params, key)
    begins = [i for i, p in enumerate(chain.params) if maps(p)]
    if len(begins) < 2:
        raise KindError(
            f"{type(rule).__name__}: expected a Serial with at least two layers that have matrices, such as "
            f"fnn.mlp((32, 10)), got {net}"
        )
    return [chain.cut(a, b) for a, b in zip([0, *begins[1:]], [*begins[1:], len(chain.layers)], strict=True)]


def place_of(cls, rule, net, params) -> int:
    """The place of the one link of this class, below which nothing learns."""
    places = [i for i, link in enumerate(links(net)) if isinstance(link, cls)]
    if len(places) != 1 or any(trees.learnt(p) for p in flat(net, params)[: places[0]]):
        name = type(rule).__name__
        raise KindError(f"{name}: expected one fnn.{cls.__name__} in the network, with nothing before it that learns")
    return places[0]


# ---- learning stage by stage -----------------------------------------------------------------------------------------


def run(pieces: list[Piece], x) -> tuple[list, list]:
    """`(outputs, residuals)` of each piece, one after another."""
    outputs, residuals = [], []
    for piece in pieces:
        x, kept = piece.forward(x)
        outputs.append(x)
        residuals.append(kept)
    return outputs, residuals


class AtOutput(NamedTuple):
    """What the cost says of a batch: its value, the error of each example at the output, and its share of the value."""

    value: Any
    delta: Any
    shares: Any


def at_output(problem, prediction, batch) -> AtOutput:
    """The cost of a batch, without the penalty; the errors are those of single examples, unscaled."""
    losses, delta, dtype = cost(problem.loss, prediction, batch.y)
    value, shares = mean_cost(problem.loss, losses, batch.weights, problem.denominator)
    return AtOutput(value, cast(delta, dtype), shares + namespace(losses).zeros_like(losses))


def gradient(problem, params, top: AtOutput, pieces: list[Piece], residuals, deltas) -> tuple[Any, Any]:
    """`(value, grads)`, penalty included, from the error of each example at the output of each piece."""
    parts = zip(pieces, residuals, deltas, strict=True)
    grads = [g for piece, kept, delta in parts for g in piece.gradient(kept, shared(delta, top.shares))]
    return penalised(problem.penalty, params, top.value, nested(problem.net, grads))


def shared(delta, shares) -> Any:
    """Errors (N, ...) times the shares of their examples (N,); a share of 0 gives 0 even for infinite values."""
    shares = shares.reshape(shares.shape + (1,) * (delta.ndim - 1))
    return cast(namespace(delta, shares).where(shares != 0, delta, 0) * shares, delta.dtype)

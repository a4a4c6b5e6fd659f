"""A network as a chain: what rules of learning that look at one layer at a time need to know of it.

A link is a layer of a `Serial`, nested ones included. A linear map is what has `DenseParams`, the affine maps of
`Dense` and `Conv`, and of a layer of your own that has them. A stage is a linear map with what follows it, up to the
next one: in `mlp((8, 8, 3))` the stages are (Dense, Relu), (Dense, Relu), (Dense).
"""

import math
from typing import Any, NamedTuple

from .. import random, trees
from ..backend import cast, namespace
from ..backpropagation import cost, mean_cost, penalised
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


def lowest(params) -> int:
    """The index of the first link that learns; no error is needed below it."""
    return next((i for i, p in enumerate(params) if trees.learnt(p)), len(params))


def input_shapes(net, input_shape) -> list:
    """The shape of the input of each link."""
    shapes = [input_shape]
    for link in links(net):
        shapes.append(link.output_shape(shapes[-1]))
    return shapes[:-1]


class Stage(NamedTuple):
    """A part of the chain: a network of its own, and the place of its links, from `start` up to `end`."""

    net: Serial
    start: int
    end: int


def stages(rule, net, params) -> list[Stage]:
    """The stages of a network, at least two; what comes before the first linear map belongs to its stage."""
    layers, begins = links(net), [i for i, p in enumerate(flat(net, params)) if maps(p)]
    if len(begins) < 2:
        raise KindError(
            f"{type(rule).__name__}: expected a Serial with at least two layers that have matrices, such as "
            f"fnn.mlp((32, 10)), got {net}"
        )
    ends = [*begins[1:], len(layers)]
    return [Stage(Serial(layers[a:b]), a, b) for a, b in zip([0, *begins[1:]], ends, strict=True)]


# ---- learning stage by stage -----------------------------------------------------------------------------------------


def run(key, found: list[Stage], params, x) -> tuple[list, list]:
    """`(outputs, residuals)` of each stage; each draws from a key of its own."""
    outputs, residuals = [], []
    for stage in found:
        x, kept = forward(stage, params, x, key)
        outputs.append(x)
        residuals.append(kept)
    return outputs, residuals


def forward(stage, params, x, key):
    """`(output, residuals)` of one stage, for the parameters of all links."""
    key = None if key is None else random.fold_in(key, stage.start)
    return stage.net.forward(params[stage.start : stage.end], x, key)


def backward(stage, params, residuals, delta):
    """The error at the input of a stage, from that at its output."""
    return stage.net.propagate(params[stage.start : stage.end], residuals, delta)[0]


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


def gradient(problem, params, value, shares, found: list[Stage], residuals, deltas) -> tuple[Any, Any]:
    """`(value, grads)`, penalty included, from the error of each example at the output of each stage."""
    parts, grads = flat(problem.net, params), []
    for stage, kept, delta in zip(found, residuals, deltas, strict=True):
        ours = parts[stage.start : stage.end]
        _, inner = stage.net.propagate(ours, kept, shared(delta, shares), False)
        grads += stage.net.gradient(ours, kept, inner)
    return penalised(problem.penalty, params, value, nested(problem.net, grads))


def shared(delta, shares):
    """Errors (N, ...) times the shares of their examples (N,); a share of 0 gives 0 even for infinite values."""
    shares = shares.reshape(shares.shape + (1,) * (delta.ndim - 1))
    return cast(namespace(delta, shares).where(shares != 0, delta, 0) * shares, delta.dtype)

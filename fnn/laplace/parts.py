"""Which parameters are uncertain, and the part of a network above them, which is all that their uncertainty needs.

A tree of what is kept for uncertain parameters is nested as all parameters are, with None for the others.
"""

from .. import factors, trees
from ..errors import ArgumentError, KindError, shorten
from ..layers import Dense
from ..networks import Serial


def uncertain(net, params, last_layer):
    """The parameters that are uncertain, None in place of the others: all that learn, or those of the last layer."""
    flags = trees.leaves(_last(net, params)) if last_layer else _learnt(params)
    if not any(flags):
        raise ArgumentError("params: expected parameters that learn, got none")
    return only(params, params, flags)


def _learnt(params):
    return trees.leaves(trees.map_learnt(lambda p: True, params, fixed=lambda p: False))


def _last(net, params):
    """A tree nested as the parameters: whether each belongs to the last layer with parameters that learn."""
    none = lambda tree: trees.map(lambda p: False, tree)
    if isinstance(net, Serial):
        last = max((i for i, p in enumerate(params) if trees.learnt(p)), default=None)
        return tuple(_last(net.layers[i], p) if i == last else none(p) for i, p in enumerate(params))
    if not isinstance(net, Dense):
        raise KindError(
            f"net: expected one whose last layer with parameters is a Dense, for last_layer=True, got {shorten(net)}"
        )
    return trees.map(lambda p: True, params)


def only(params, tree, flags):
    """What of a tree stands where the flags say, None elsewhere; one flag for each leaf of the parameters."""
    kept = [node if flag else None for (_, node), flag in zip(factors.pairs(params, tree), flags, strict=True)]
    return factors.like(params, kept)


def above(net, params, x, kept):
    """`(net, params, x, kept)` of the part that begins at the first layer for which anything is kept; x is its input.

    What is below is only applied, and no error is sent back through it.
    """
    if not isinstance(net, Serial):
        return net, params, x, kept
    first = next(i for i, tree in enumerate(kept) if trees.leaves(tree))
    for layer, p in zip(net.layers[:first], params[:first], strict=True):
        x = layer.forward(p, x)[0]
    if first == len(net.layers) - 1:
        return above(net.layers[first], params[first], x, kept[first])
    return Serial(net.layers[first:]), params[first:], x, kept[first:]

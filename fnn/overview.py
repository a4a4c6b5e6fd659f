"""The overview of a network as a table: what each layer gives, and how many parameters it has."""

import functools
from typing import Any

import numpy as np

from . import backend, gate, trees
from .composition import Composition, recorder, walk
from .errors import shape, usage
from .layers import Layer
from .networks import Serial


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

    >>> from fnn import mlp
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
        line = row(f"{place} {type(layer).__name__}".lstrip(), kept.output, p)
        if not isinstance(layer, Composition):
            rows.append(line)
        elif not isinstance(layer, Serial):  # a heading, followed by the layers inside
            rows.append((*line[:2], "", ""))
    rows.append(row("total", recorded.output, params))
    return table(rows)


def outline(net, input_shape, dtype: Any = np.float32) -> tuple[Any, Any]:
    """`(params, recorded)`: parameters without values, and the shapes of what each layer would keep of one example."""
    input_shape = shape("input_shape", input_shape, several=True)
    params = gate.parameter_shapes(net, input_shape, np.dtype(dtype))
    run = lambda params, x: recorder(net).forward(params, x)[1]
    run = run if backend.jax is None else functools.partial(backend.jax.eval_shape, run)
    return params, gate.on_zeros(functools.partial(run, params), input_shape, dtype)


def table(rows) -> str:
    """Format rows of text as a table, with the first column aligned left and the others right."""
    widths = [max(len(r[column]) for r in rows) for column in range(len(rows[0]))]
    sides = "<" + ">" * (len(widths) - 1)
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(r, sides, widths, strict=True)).rstrip()
        for r in rows
    )

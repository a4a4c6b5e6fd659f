"""Compositions as graphs: the parts one after the other or side by side; and what costs predict."""

import functools

import numpy as np

from .. import energies, losses, networks, remat, sequences
from ..layers import Conv
from ..layers.windows import windows_over
from ..losses import logits
from .graph import translation
from .maps import channels_first


@translation(networks.Serial, any_order=True, any_kind=True)
def _serial(layer, params, x, graph):
    for i, part in enumerate(layer.layers):
        x = graph.apply(part, params[i], x, i)
    return x


@translation(networks.Residual, any_order=True, any_kind=True)
def _residual(layer, params, x, graph):
    y = graph.floating(graph.apply(layer.layer, params, x))
    return graph.node("Add", graph.ordered(graph.floating(x), y.order), y)


@translation(networks.Frozen, any_order=True, any_kind=True)
def _frozen(layer, params, x, graph):
    return graph.apply(layer.layer, params.params, x, "params")


@translation(remat.Remat, any_order=True, any_kind=True)
def _remat(layer, params, x, graph):
    return graph.apply(layer.layer, params, x)


@translation(networks.Parallel, any_order=True, any_kind=True)
def _parallel(layer, params, x, graph):
    inputs = [x] * len(layer.branches) if layer.inputs is None else [x[name] for name in layer.inputs]
    branches = zip(layer.branches, params, inputs, strict=True)
    outputs = [graph.floating(graph.apply(branch, p, x, i)) for i, (branch, p, x) in enumerate(branches)]
    natural = tuple(range(len(outputs[0].order)))
    order = next((y.order for y in outputs if y.order != natural), natural)
    outputs = [graph.ordered(y, order) for y in outputs]
    return graph.node("Concat", *outputs, axis=outputs[0].axis(-1))


@translation(sequences.Last, any_kind=True)
def _last(layer, params, x, graph):
    """The output at position length − 1; NaN where the length is below 1, an error where it is above T.

    What comes later has no effect on it, as the layer inside is causal.
    """
    sequence, length = (x[name] for name in layer.inputs)
    y = graph.natural(graph.floating(graph.apply(layer.layer, params, sequence)))
    length = graph.node("Unsqueeze", graph.integers(length), (1,))
    last = graph.node("GatherND", y, graph.node("Sub", length, 1), batch_dims=1)
    axes = len(y.shape) - 1  # those that an output has besides N
    known = graph.node("Greater", length, 0)
    if axes != 1:
        known = graph.node("Reshape", known, (-1, *(1,) * axes))
    nan = graph.constant(graph.dtype.type(np.nan), "nan")
    return graph.node("Where", known, last, nan)._replace(dtype=graph.dtype, order=tuple(range(axes + 1)))


# ---- networks that settle or compare ---------------------------------------------------------------------------------


@translation(energies.Hopfield)
def _hopfield(layer, params, x, graph):
    """All sweeps, one after the other: a node for each product and activation of each."""
    links, values = layer.links, []
    drive = graph.apply(links[0].layer, params[links[0].at], x, links[0].at)
    for sweep in range(layer.steps + 1):
        for k, link in enumerate(links):
            z = graph.apply(link.layer, params[link.at], values[k - 1], link.at) if k else drive
            if sweep and k + 1 < len(links):
                above = links[k + 1]
                up = _transposed(graph, above, params[above.at], values[k], values[k + 1])
                z = graph.node("Add", graph.ordered(z, up.order), up)
            for i in range(link.at + 1, link.end):
                z = graph.apply(layer.layers[i], params[i], z, i)
            values[k : k + 1] = [z]
    return values[-1]


def _transposed(graph, link, params, x, dy):
    """dx of a linear map: what it is driven by from above, shaped as its input x."""
    layer = link.layer
    if not isinstance(layer, Conv):
        return graph.node("MatMul", graph.natural(dy), graph.constant(params.w, "w"))._replace(shape=x.shape)
    windows = windows_over(layer, x.shape)
    axes = zip(windows.sizes, windows.padding, windows.extents, windows.positions, windows.stride, strict=True)
    low, rest = zip(*((low, s * (p - 1) + e - low - n) for n, (low, _), e, p, s in axes), strict=True)
    graph.depends_on(windows.sizes)
    y = graph.node(
        "ConvTranspose",
        channels_first(graph, dy),
        graph.constant(np.moveaxis(params.w, -1, 1), "w"),
        kernel_shape=windows.kernel,
        strides=windows.stride,
        dilations=windows.dilation,
        group=layer.groups,
        pads=(*low, *(max(r, 0) for r in rest)),
        output_padding=tuple(max(-r, 0) for r in rest),
    )
    return y._replace(shape=x.shape)


@translation(energies.Goodness)
def _goodness(layer, params, x, graph):
    """h₀ = [x, one-hot c] is never made: its product with W₁ is that of x and a column of W₁, its length that of x."""
    inputs, means = x.shape[0], []
    x = graph.node("Unsqueeze", x, (1,))._replace(shape=(1, inputs), order=(0, 1, 2))
    h, width = x, inputs + layer.classes
    for k, link in enumerate(layer.links):
        w, b = params[link.at].w, params[link.at].b
        squares = graph.node("ReduceSum", graph.node("Mul", h, h), (-1,))
        squares = squares if k else graph.node("Add", squares, 1)
        r = graph.node("Add", graph.node("Div", squares, width), layer.EPS)
        length = graph.node("Div", r, graph.node("Sqrt", r))  # NaN, and not ∞, where r overflows
        z = graph.node("MatMul", h, graph.constant((w if k else w[:, :inputs]).T, "w"))
        z = z if k else graph.node("Add", z, graph.constant(w[:, inputs:].T, "w"))
        z = graph.node("Div", z, length)
        z = graph.node("Add", z, graph.constant(b, "b")) if link.layer.bias else z
        width = len(w)
        h = z._replace(shape=(layer.classes, width))
        for i in range(link.at + 1, link.end):
            h = graph.apply(layer.layers[i], params[i], h, i)
        if k or len(layer.links) == 1:
            means.append(graph.node("ReduceMean", graph.node("Mul", h, h), (-1,), keepdims=0)._replace(order=(0, 1)))
    return functools.reduce(lambda a, b: graph.node("Add", a, b), means)


# ---- what costs predict ----------------------------------------------------------------------------------------------


@translation(logits.ClassLogits)
def _probabilities(loss, params, x, graph):
    return graph.node("Softmax", x, axis=-1)


@translation(losses.SigmoidBinaryCrossEntropy, losses.BinaryFocal)
def _probability(loss, params, x, graph):
    return graph.node("Sigmoid", x)


@translation(losses.PoissonNll)
def _rate(loss, params, x, graph):
    return graph.node("Exp", x)


@translation(logits._Margin)
def _side(loss, params, x, graph):
    return graph.node("Where", graph.node("GreaterOrEqual", x, 0), 1, -1)


@translation(losses.GaussianNll)
def _mean_and_variance(loss, params, x, graph):
    mean, s = graph.node("Split", x, axis=-1, num_outputs=2, outputs=2)
    return graph.node("Concat", mean, graph.node("Exp", s), axis=-1)

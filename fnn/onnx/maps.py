"""Layers with weights, and those that move, pool or normalize, as operators.

Weights keep the order that fnn has them in where the operator allows it: `Gemm` takes W (O, I) as it is. `Conv` takes
them as (O, C/G, *kernel), recurrent operators with the gates in an order of their own.
"""

import numpy as np

from .. import layers
from ..layers.windows import windows_over
from .activations import exact
from .graph import translation


def on_last_axis(graph, x):
    """x with its last axis stored last: in its own order if that is so."""
    return x if x.axis(-1) == len(x.shape) else graph.natural(x)


@translation(layers.Dense, any_order=True)
def dense(layer, params, x, graph):
    x, bias = on_last_axis(graph, x), params.b if layer.bias else None
    w, b = (None if array is None else graph.constant(array, name) for array, name in ((params.w, "w"), (bias, "b")))
    if len(x.shape) == 1:
        return graph.node("Gemm", x, w, b, transB=1)
    y = graph.node("MatMul", x, graph.constant(params.w.T, "w"))
    return y if b is None else graph.node("Add", y, b)


# ---- simple layers ---------------------------------------------------------------------------------------------------


@translation(layers.Scale, any_order=True)
def _scale(layer, params, x, graph):
    return graph.node("Mul", x, layer.factor)


@translation(layers.Dropout, any_order=True)
def _dropout(layer, params, x, graph):
    return x


@translation(layers.Flatten, any_kind=True)
def _flatten(layer, params, x, graph):
    x = x if graph.reads_integers(x) else graph.floating(x)
    return x if len(x.shape) == 1 else graph.node("Flatten", x, axis=1)


# ---- normalization ---------------------------------------------------------------------------------------------------


@translation(layers.LayerNorm, any_order=True)
def _layer_norm(layer, params, x, graph):
    x, gain, bias = on_last_axis(graph, x), graph.constant(params.gain, "gain"), graph.constant(params.bias, "bias")
    if exact(graph, layer.eps):
        return graph.node("LayerNormalization", x, gain, bias, axis=-1, epsilon=layer.eps)
    centred = graph.node("Sub", x, graph.node("ReduceMean", x, (-1,)))
    return graph.node("Add", graph.node("Mul", _divided(graph, centred, layer.eps), gain), bias)


@translation(layers.RMSNorm, any_order=True)
def _rms_norm(layer, params, x, graph):
    x = on_last_axis(graph, x)
    return graph.node("Mul", _divided(graph, x, layer.eps), graph.constant(params.gain, "gain"))


def _divided(graph, x, eps):
    """x / √(mean x² + ε); √r / r is NaN, and not 0, where r overflows."""
    r = graph.node("Add", graph.node("ReduceMean", graph.node("Mul", x, x), (-1,)), eps)
    return graph.node("Mul", x, graph.node("Div", graph.node("Sqrt", r), r))


@translation(layers.Standardize, any_order=True)
def _standardize(layer, params, x, graph):
    return graph.node("Div", graph.node("Sub", x, graph.like(params.mean, x, "mean")), graph.like(params.std, x, "std"))


# ---- windows ---------------------------------------------------------------------------------------------------------


def channels_first(graph, x):
    """x as (N, C, *sizes)."""
    rank = len(x.shape)
    return graph.ordered(x, (0, rank, *range(1, rank)))


def placed_windows(graph, layer, input_shape):
    """The attributes that say where the windows are.

    Padding "same" depends on the sizes where a stride is not 1; ONNX has a name for it, as long as windows overlap.
    """
    windows = windows_over(layer, input_shape)
    low, high = zip(*windows.padding, strict=True)
    places = {"kernel_shape": windows.kernel, "strides": windows.stride, "pads": (*low, *high)}
    if layer.padding == "same" and set(windows.stride) != {1}:
        if set(windows.dilation) == {1} and all(e >= s for e, s in zip(windows.extents, windows.stride, strict=True)):
            del places["pads"]
            places["auto_pad"] = "SAME_UPPER"
        else:
            graph.depends_on(windows.sizes)
    return places


@translation(layers.Conv, any_order=True)
def conv(layer, params, x, graph):
    places, dilation = placed_windows(graph, layer, x.shape), windows_over(layer, x.shape).dilation
    w = graph.constant(np.moveaxis(params.w, -1, 1), "w")
    b = graph.constant(params.b, "b") if layer.bias else None
    return graph.node("Conv", channels_first(graph, x), w, b, dilations=dilation, group=layer.groups, **places)


@translation(layers.MaxPool, any_order=True)
def _max_pool(layer, params, x, graph):
    return graph.node("MaxPool", channels_first(graph, x), **placed_windows(graph, layer, x.shape))


@translation(layers.AvgPool, any_order=True)
def _avg_pool(layer, params, x, graph):
    places = placed_windows(graph, layer, x.shape)
    return graph.node("AveragePool", channels_first(graph, x), count_include_pad=0, **places)


@translation(layers.GlobalMaxPool, any_order=True)
def _global_max_pool(layer, params, x, graph):
    return _over_positions(graph, "ReduceMax", x)


@translation(layers.GlobalAvgPool, any_order=True)
def _global_avg_pool(layer, params, x, graph):
    return _over_positions(graph, "ReduceMean", x)


def _over_positions(graph, op, x):
    """A reduction over all axes but those of examples and channels, whatever their order."""
    return graph.node(op, x, tuple(sorted(x.axis(i) for i in range(1, len(x.shape)))), keepdims=0)


# ---- sequences -------------------------------------------------------------------------------------------------------


@translation(layers.Embedding, any_kind=True)
def _embedding(layer, table, x, graph):
    """`Gather` counts negative indices from the end; here they become one that is out of range, as all others are."""
    x = graph.integers(x)
    index = graph.node("Where", graph.node("Less", x, 0), layer.symbols, x)
    y = graph.node("Gather", graph.constant(table, "w"), index, axis=0)
    return y._replace(order=(*x.order, len(x.order)))


GATES = {layers.Rnn: (0,), layers.Gru: (1, 0, 2), layers.Lstm: (0, 3, 1, 2)}  # ONNX has zrn and iofg


@translation(*GATES, any_order=True)
def _recurrent(layer, params, x, graph):
    op, gates = {layers.Rnn: "RNN", layers.Gru: "GRU", layers.Lstm: "LSTM"}[type(layer)], GATES[type(layer)]
    rearranged = lambda array: np.concatenate([np.split(array, len(gates))[gate] for gate in gates])[None]
    w, u, b = (rearranged(array) for array in params[:3])
    inside = np.zeros_like(b)
    options = {}
    if op == "GRU":
        inside[0, -layer.units :] = params.c
        options["linear_before_reset"] = 1
    both = np.concatenate([b, inside], axis=1)
    arrays = (graph.constant(array, name) for array, name in ((w, "w"), (u, "u"), (both, "b")))
    states, last = graph.node(op, graph.ordered(x, (1, 0, 2)), *arrays, outputs=2, hidden_size=layer.units, **options)
    if layer.all_states:  # (T, 1, N, H)
        return graph.node("Squeeze", states, (1,))
    return graph.node("Squeeze", last, (0,))._replace(order=(0, 1))

"""Activations as operators: one where ONNX has it, else the formula, in few nodes and without overflow.

ONNX keeps the numbers among attributes in float32. Where one of them is not exact as such in a graph of float64, the
formula is written out, with a constant.
"""

import math

import numpy as np

from ..layers import activations as a
from .graph import translation

SIMPLE = {
    a.Relu: "Relu",
    a.Sigmoid: "Sigmoid",
    a.Tanh: "Tanh",
    a.ArcTan: "Atan",
    a.Softsign: "Softsign",
    a.Softplus: "Softplus",
}


@translation(*SIMPLE, any_order=True)
def _simple(layer, params, x, graph):
    return graph.node(SIMPLE[type(layer)], x)


@translation(a.Identity, any_order=True)
def _identity(layer, params, x, graph):
    return x


def exact(graph, *numbers):
    """Whether the graph may have these numbers as attributes."""
    return graph.dtype == np.float32 or all(float(np.float32(number)) == number for number in numbers)


# ---- steps and sigmoids ----------------------------------------------------------------------------------------------


@translation(a.BinaryStep, any_order=True)
def _step(layer, params, x, graph):
    return _or_nan(graph, x, graph.node("Greater", x, layer.threshold), 1, 0)


@translation(a.Sign, any_order=True)
def _sign(layer, params, x, graph):
    return _or_nan(graph, x, graph.node("GreaterOrEqual", x, 0), 1, -1)


def _or_nan(graph, x, condition, yes, no):
    """One number or the other; NaN where x is, which a comparison does not pass on."""
    return graph.node("Where", graph.node("IsNaN", x), x, graph.node("Where", condition, yes, no))


@translation(a.BipolarSigmoid, any_order=True)
def _bipolar_sigmoid(layer, params, x, graph):
    return graph.node("Tanh", graph.node("Mul", x, 0.5))


@translation(a.HardTanh, any_order=True)
def _hard_tanh(layer, params, x, graph):
    return graph.node("Clip", x, -1, 1)


@translation(a.HardSigmoid, any_order=True)
def _hard_sigmoid(layer, params, x, graph):
    if exact(graph, 1 / 6):
        return graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    return graph.node("Div", graph.node("Clip", graph.node("Add", x, 3), 0, 6), 6)


# ---- rectifiers ------------------------------------------------------------------------------------------------------


@translation(a.Relu6, any_order=True)
def _relu6(layer, params, x, graph):
    return graph.node("Clip", x, 0, 6)


@translation(a.LeakyRelu, any_order=True)
def _leaky_relu(layer, params, x, graph):
    return _leaky(graph, x, layer.slope)


@translation(a.RRelu, any_order=True)
def _rrelu(layer, params, x, graph):
    return _leaky(graph, x, (layer.lower + layer.upper) / 2)


def _leaky(graph, x, slope):
    return graph.node("LeakyRelu", x, alpha=slope) if exact(graph, slope) else graph.node("PRelu", x, slope)


@translation(a.Elu, any_order=True)
def _elu(layer, params, x, graph):
    if exact(graph, layer.alpha):
        return graph.node("Elu", x, alpha=layer.alpha)
    return _bent(graph, x, 1.0, layer.alpha, 1.0)


@translation(a.Celu, any_order=True)
def _celu(layer, params, x, graph):
    if graph.dtype == np.float32:  # the only one that the operator has
        return graph.node("Celu", x, alpha=layer.alpha)
    return _bent(graph, x, 1.0, layer.alpha, layer.alpha)


@translation(a.Selu, any_order=True)
def _selu(layer, params, x, graph):
    if exact(graph, layer.alpha):
        return graph.node("Selu", x, alpha=layer.alpha, gamma=layer.scale)
    return _bent(graph, x, layer.scale, layer.scale * layer.alpha, 1.0)


def _bent(graph, x, slope, height, width):
    """slope · max(z, 0) + height · (e^(min(z, 0) / width) − 1)."""
    below = graph.node("Elu", graph.node("Div", graph.node("Min", x, 0), width))
    return graph.node("Add", graph.node("Mul", graph.node("Relu", x), slope), graph.node("Mul", below, height))


@translation(a.Isrlu, any_order=True)
def _isrlu(layer, params, x, graph):
    """max(z, 0) + d/√(1 + αd²), with d = min(z, 0); where αd² is 10²⁰ it has levelled off, and might overflow later."""
    below = graph.node("Clip", x, -min(1e10 / math.sqrt(layer.alpha), 1e18), 0)
    square = graph.node("Mul", graph.node("Mul", below, below), layer.alpha)
    root = graph.node("Sqrt", graph.node("Add", square, 1))
    return graph.node("Add", graph.node("Relu", x), graph.node("Div", below, root))


@translation(a.Squareplus, any_order=True)
def _squareplus(layer, params, x, graph):
    """max(z, 0) + b / (2 (|z| + √(z² + b))), where z² cannot overflow: beyond 10¹⁸ the second term is 0."""
    size = graph.node("Min", graph.node("Abs", x), 1e18)
    root = graph.node("Sqrt", graph.node("Add", graph.node("Mul", size, size), layer.b))
    rest = graph.node("Mul", graph.node("Reciprocal", graph.node("Add", size, root)), 0.5 * layer.b)
    return graph.node("Add", graph.node("Relu", x), rest)


@translation(a.LogSigmoid, any_order=True)
def _log_sigmoid(layer, params, x, graph):
    return graph.node("Neg", graph.node("Softplus", graph.node("Neg", x)))


# ---- gates -----------------------------------------------------------------------------------------------------------


@translation(a.Gelu, any_order=True)
def _gelu(layer, params, x, graph):
    if not layer.approximate or graph.dtype == np.float32:
        return graph.node("Gelu", x, approximate="tanh" if layer.approximate else "none")
    cubic = graph.node("Add", graph.node("Mul", graph.node("Mul", x, x), 0.044715), 1)
    twice = graph.node("Mul", graph.node("Mul", x, 2 * math.sqrt(2 / math.pi)), cubic)
    return graph.node("Mul", x, graph.node("Sigmoid", twice))


@translation(a.Swish, any_order=True)
def _swish(layer, params, x, graph):
    beta = _placed(graph, layer, params.beta, x) if layer.learnt else layer.beta
    scaled = x if not layer.learnt and beta == 1 else graph.node("Mul", x, beta)
    return graph.node("Mul", x, graph.node("Sigmoid", scaled))


@translation(a.HardSwish, any_order=True)
def _hard_swish(layer, params, x, graph):
    if exact(graph, 1 / 6):
        return graph.node("HardSwish", x)
    return graph.node("Mul", x, graph.node("Div", graph.node("Clip", graph.node("Add", x, 3), 0, 6), 6))


@translation(a.Mish, any_order=True)
def _mish(layer, params, x, graph):
    return graph.node("Mish", x)


@translation(a.Glu)
def _glu(layer, params, x, graph):
    value, gate = graph.node("Split", x, axis=-1, num_outputs=2, outputs=2)
    return graph.node("Mul", value, graph.node("Sigmoid", gate))


# ---- with parameters -------------------------------------------------------------------------------------------------


def _placed(graph, layer, array, x):
    """A parameter that meets its units in x."""
    return graph.like(array.reshape(x.shape), x) if layer.per_unit else graph.constant(array)


@translation(a.PRelu, any_order=True)
def _prelu(layer, params, x, graph):
    return graph.node("PRelu", x, _placed(graph, layer, params.slope, x))


@translation(a.PElu, any_order=True)
def _pelu(layer, params, x, graph):
    alpha, beta = (_placed(graph, layer, array, x) for array in params)
    if (params.beta > 0).all():
        return graph.node("Mul", graph.node("Elu", graph.node("Div", x, beta)), alpha)
    above = graph.node("Div", graph.node("Relu", x), beta)
    below = graph.node("Sub", graph.node("Exp", graph.node("Div", graph.node("Min", x, 0), beta)), 1)
    return graph.node("Mul", graph.node("Add", above, below), alpha)


@translation(a.SoftExponential, any_order=True)
def _soft_exponential(layer, params, x, graph):
    """Each unit's α decides between three formulas, whose digits are kept where α is small:

    eᵗ − 1 = 2 sinh(t/2) e^(t/2), and log(1 + v) = 2 artanh(v / (2 + v)) for small v.
    """
    alpha, parts = params.alpha, []
    at = lambda values: _placed(graph, layer, np.asarray(values, graph.dtype), x)
    if (alpha > 0).any():
        a = np.where(alpha > 0, alpha, 1)
        half = graph.node("Max", graph.node("Mul", x, at(a / 2)), -40)  # below, eᵗ is 0, but sinh overflows
        product = graph.node("Mul", graph.node("Sinh", half), graph.node("Exp", half))
        parts.append((alpha > 0, graph.node("Add", graph.node("Mul", product, at(2 / a)), at(a))))
    if (alpha < 0).any():
        a = np.where(alpha < 0, alpha, -1)
        v = graph.node("Mul", graph.node("Add", x, at(a)), at(-a))
        small = graph.node("Less", graph.node("Abs", v), 0.5)
        inner = graph.node("Where", small, v, 0)
        near = graph.node("Atanh", graph.node("Div", inner, graph.node("Add", inner, 2)))
        far = graph.node("Log", graph.node("Add", v, 1))
        log = graph.node("Where", small, graph.node("Mul", near, 2), far)
        parts.append((alpha < 0, graph.node("Mul", log, at(-1 / a))))
    y = x
    for mask, part in parts:
        y = part if mask.all() else graph.node("Where", _placed(graph, layer, mask, x), part, y)
        y = y._replace(shape=x.shape, dtype=graph.dtype, order=x.order)
    return y


# ---- rows ------------------------------------------------------------------------------------------------------------


@translation(a.Softmax, any_order=True)
def _softmax(layer, params, x, graph):
    return graph.node("Softmax", _tempered(layer, x, graph), axis=x.axis(-1))


@translation(a.LogSoftmax, any_order=True)
def _log_softmax(layer, params, x, graph):
    return graph.node("LogSoftmax", _tempered(layer, x, graph), axis=x.axis(-1))


def _tempered(layer, x, graph):
    """(z − max z) / T, as z / T might overflow."""
    if layer.temperature == 1:
        return x
    shifted = graph.node("Sub", x, graph.node("ReduceMax", x, (x.axis(-1),)))
    return graph.node("Div", shifted, layer.temperature)

"""Weights under PyTorch's names and in its order: those of `torch.nn.Sequential` of the same layers.

    fnn               PyTorch
    Dense             Linear: weight = W (O, I); bias
    Conv              Conv1d to 3d: weight = W (O, *kernel, C/G) as (O, C/G, *kernel); bias
    Rnn, Lstm, Gru    batch_first=True: weight_ih_l0, weight_hh_l0 = W, U; bias_ih_l0 = b, bias_hh_l0 = 0, or (0, 0, c)
    LayerNorm         weight, bias; RMSNorm and PRelu weight; Embedding weight = W (V, O)

PyTorch has the channels of an image first, (N, C, H, W). So after `Flatten` its units stand in the order (C, H, W) and
ours in (H, W, C): the columns of the next `Dense` are permuted, as are the weights of what stands between the two.
Where PyTorch's layer would act on another axis than ours, no such Sequential exists, and an error says so.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import layers, networks, remat, trees
from ..backend import namespace
from ..errors import KindError
from ..layers import activations as a
from ..layers.activations.learnt import PReluParams
from ..layers.normalization import LayerNormParams, RMSNormParams

ANYWHERE = (  # without weights, and the same function wherever the channels are
    *(a.Identity, a.Relu, a.Relu6, a.LeakyRelu, a.RRelu, a.Elu, a.Celu, a.Selu, a.Softplus, a.LogSigmoid, a.Gelu),
    *(a.HardSwish, a.Mish, a.Sigmoid, a.Tanh, a.HardTanh, a.HardSigmoid, a.Softsign, a.Softmax, a.LogSoftmax),
    *(a.Swish, a.Glu, a.PRelu, layers.Dropout),
)
OF_CHANNELS_FIRST = (layers.Conv, layers.MaxPool, layers.AvgPool, layers.GlobalMaxPool, layers.GlobalAvgPool)
OF_CHANNELS_LAST = (layers.Dense, layers.LayerNorm, layers.RMSNorm, layers.Rnn, layers.Lstm, layers.Gru)


class _At(NamedTuple):
    """What comes in at a layer: the shape of an example, where PyTorch has its channels ("first", "last" or either,
    None), and the order of its units in ours, None for the same.
    """

    shape: tuple[int, ...]
    channels: str | None
    order: Any


# ---- layer by layer --------------------------------------------------------------------------------------------------


def _dense(params, order):
    return {"weight": params.w if order is None else params.w[:, order]} | _bias(params)


def _dense_back(arrays, order):
    w = arrays["weight"]
    return layers.DenseParams(w if order is None else w[:, _inverse(order)], arrays.get("bias", ()))


def _conv(params, order):
    return {"weight": namespace(params.w).moveaxis(params.w, -1, 1)} | _bias(params)


def _conv_back(arrays, order):
    w = arrays["weight"]
    return layers.DenseParams(namespace(w).moveaxis(w, 1, -1), arrays.get("bias", ()))


def _bias(params):
    return {} if isinstance(params.b, tuple) else {"bias": params.b}


def _recurrent(params, order):
    zeros = namespace(params.b).zeros_like(params.b)
    return {"weight_ih_l0": params.w, "weight_hh_l0": params.u, "bias_ih_l0": params.b, "bias_hh_l0": zeros}


def _gru(params, order):
    zeros = namespace(params.b).zeros_like(params.b[: -len(params.c)])
    return _recurrent(params, order) | {"bias_hh_l0": namespace(zeros).concatenate([zeros, params.c])}


def _recurrent_back(arrays, order):
    w, u, b, second = (arrays[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return layers.RecurrentParams(w, u, b + second)


def _gru_back(arrays, order):
    w, u, b, second = (arrays[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    outer = 2 * u.shape[1]
    return layers.GruParams(w, u, namespace(b).concatenate([b[:outer] + second[:outer], b[outer:]]), second[outer:])


def _inverse(order):
    return None if order is None else np.argsort(order)


def _ordered(array, order):
    return array if order is None or len(array) == 1 else array[order]  # a slope for all units has no order


class _Names(NamedTuple):
    there: Callable  # from params and the order of units to PyTorch's arrays by name
    back: Callable


_vector = lambda cls, *names: _Names(
    lambda params, order: {name: _ordered(array, order) for name, array in zip(names, params, strict=True)},
    lambda arrays, order: cls(*(_ordered(arrays[name], _inverse(order)) for name in names)),
)

NAMES: dict[type, _Names] = {
    layers.Dense: _Names(_dense, _dense_back),
    layers.Conv: _Names(_conv, _conv_back),
    layers.Rnn: _Names(_recurrent, _recurrent_back),
    layers.Lstm: _Names(_recurrent, _recurrent_back),
    layers.Gru: _Names(_gru, _gru_back),
    layers.Embedding: _Names(lambda w, order: {"weight": w}, lambda arrays, order: arrays["weight"]),
    layers.LayerNorm: _vector(LayerNormParams, "weight", "bias"),
    layers.RMSNorm: _vector(RMSNormParams, "weight"),
    a.PRelu: _vector(PReluParams, "weight"),
}


# ---- the walk --------------------------------------------------------------------------------------------------------


def to_torch(net, params, input_shape) -> dict[str, Any]:
    """PyTorch's arrays by name."""
    arrays = {}

    def collect(layer, params, name, order):
        if type(layer) in NAMES:
            arrays.update({_joined(name, key): array for key, array in NAMES[type(layer)].there(params, order).items()})

    _over(collect, net, params, _entering(input_shape))
    return arrays


def from_torch(net, arrays, like, input_shape) -> Any:
    """Our parameters, nested as `like`, of PyTorch's arrays by name."""

    def build(layer, params, name, order):
        if type(layer) not in NAMES:
            return ()
        prefix = _joined(name, "")
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        return NAMES[type(layer)].back(own, order)

    return trees.lock(_over(build, net, like, _entering(input_shape))[0])


def _entering(input_shape):
    return _At(input_shape, "first" if len(input_shape) > 2 else None, None)


def _joined(name, key):
    return f"{name}.{key}" if name else str(key)


def _over(f, layer, params, at, name=""):
    """`(results, at)`: f(layer, params, name, order) of every layer, nested as the parameters, and what comes out."""
    if type(layer) is networks.Serial:
        results = []
        for i, part in enumerate(layer.layers):
            result, at = _over(f, part, params[i], at, _joined(name, i))
            results.append(result)
        return tuple(results), at
    if type(layer) is networks.Frozen:
        result, at = _over(f, layer.layer, params.params, at, name)
        return trees.Fixed(result), at
    if type(layer) is remat.Remat:
        return _over(f, layer.layer, params, at, name)
    result = f(layer, params, name, at.order)
    return result, _after(layer, at, f"{name} {type(layer).__name__}".strip())


def _after(layer, at, where) -> _At:
    """What comes out of a layer; raises where PyTorch has no such layer, or has its channels elsewhere."""
    cls, (shape, channels, order) = type(layer), at
    output = layer.output_shape(shape)
    if cls is layers.Flatten:
        if channels == "first" and len(shape) > 1:
            order = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), -1, 0).ravel()
        return _At(output, None, order)
    if cls is layers.Embedding:
        return _At(output, "last", None)
    if problem := _problem(layer, at):
        raise KindError(
            f"{where}: expected a layer that torch.nn has, {problem}; without names= a file has fnn's names"
        )
    if cls in ANYWHERE:
        return _At(output, channels, order)
    if len(shape) > 1:
        wanted = "first" if cls in OF_CHANNELS_FIRST else "last"
        if channels not in (None, wanted):
            raise KindError(
                f"{where}: expected an input that PyTorch has with the channels {wanted}, as its layer takes it, but "
                f"here they are {channels}: no Sequential of the same layers computes this; save the parts before and "
                "after on their own"
            )
        channels = wanted
    keeps = cls in (layers.LayerNorm, layers.RMSNorm)
    return _At(output, channels if len(output) > 1 else None, order if keeps else None)


def _problem(layer, at):
    """Why PyTorch has no such layer, or an empty text."""
    cls = type(layer)
    if cls not in (*ANYWHERE, *OF_CHANNELS_FIRST, *OF_CHANNELS_LAST):
        return f"so that a Sequential can be made of the same layers, got {layer}"
    if cls is a.PRelu and layer.per_unit and len(at.shape) > 1:
        return f"with slopes for channels, not for each entry of {at.shape}"
    if cls is a.Glu and at.order is not None:
        return "but after Flatten its halves are others there"
    if (cls is a.Swish and layer != a.Swish()) or getattr(layer, "temperature", 1) != 1:
        return f"with no such parameter, got {layer}"
    return ""

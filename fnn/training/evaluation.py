"""Evaluation: the predictions of a network on data, their cost, and metrics computed from them."""

import inspect
from typing import Any

import numpy as np

from .. import backend, checks, gate, random, trees  # noqa: F401 - random for the example
from ..backend import at_least_float32, cast, namespace
from ..backpropagation import check_problem, mean_cost
from ..devices import on_any_axes
from ..errors import ArgumentError, DataError, KindError, integer, shorten, usage
from ..examples import Data, size_of
from ..layers import Layer
from ..losses import Loss
from ..scoring import Score, check_scores
from ..streams import Stream, admitted, padded_to, present


@backend.jit(static=("net", "loss", "batch_size"))
def predict(params, x, y, *, net, loss, batch_size=1024):
    """The predictions for all examples, computed batch by batch, and the cost of each example."""
    n, xp = size_of(x), namespace(*trees.leaves((params, x)))
    batch_size = min(n, batch_size)
    starts = xp.arange(-(-n // batch_size), dtype=np.int32) * batch_size

    def batch(_, start):
        index = xp.minimum(start + xp.arange(batch_size, dtype=np.int32), n - 1)
        part = trees.map(lambda a: xp.take(a, index, axis=0, mode="clip"), x)
        return (), net.forward(params, part)[0]

    _, output = backend.scan(batch, (), starts)
    output = output.reshape(-1, *output.shape[2:])[:n]
    output = cast(output, at_least_float32(output.dtype))
    return loss.predict(output), loss.value(output, y)


def measure(metrics, loss, prediction, y, weights) -> dict[str, Any]:
    """Evaluate metrics, given as pairs of a name and a function; returns their values by name.

    The cost's ignored label is passed to those that take it and were not given one.
    """
    ignored, values = getattr(loss, "ignored", None), {}
    for name, metric in metrics:
        options = {"ignored": ignored} if ignored is not None and _default(metric, "ignored") is None else {}
        if weights is None:
            values[name] = metric(prediction, y, **options)
        elif _takes(metric, None, None, weights=None):
            values[name] = metric(prediction, y, weights=weights, **options)
        else:
            values[name] = metric(prediction, y, weights, **options)
    return values


def _default(function, name):
    """The default of an argument of a function; its absence if there is none, or if nobody can say."""
    try:
        return inspect.signature(function).parameters[name].default
    except (TypeError, ValueError, KeyError):
        return inspect.Parameter.empty


def _takes(function, *args, **kwargs):
    """Whether a function can be called with such arguments; False where nobody can say."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    return True


def cost_of(loss, losses, weights):
    """The mean cost of evaluated examples; NaN if all weights are 0, which must not look like a cost of 0."""
    value, _ = mean_cost(loss, losses, weights)
    return value if weights is None else namespace(value).where((weights == 0).all(), np.nan, value)[()]


def check_weights(data, name="data"):
    """Raise if all weights of the data are 0, if they are known: nothing would be learnt from them, or measured."""
    weights = data.weights
    if weights is not None and data.known and checks.known(weights) and not np.any(np.asarray(weights)):
        raise DataError(f"{name}: expected a weight above 0, got weights that are all 0")


def check_evaluation(data, metrics, name):
    """Raise if all weights of the data are 0, or if they have weights that a metric does not take."""
    if data.weights is None:
        return
    check_weights(data, name)
    for metric_name, metric in metrics.items():
        if _takes(metric, None, None) and not any((_takes(metric, *"123"), _takes(metric, *"12", weights="3"))):
            raise KindError(
                f"metrics: expected functions of (prediction, target, weights), since {name} has weights, "
                f"but {metric_name!r} takes (prediction, target)"
            )


@on_any_axes
@usage("fnn.evaluate(net, loss, params, (x, y))")
def evaluate(
    net: Layer, loss: Loss, params: Any, data: Any, *, batch_size: int = 1024, metrics: Any = None
) -> dict[str, Any]:
    """Evaluate a network on data: its mean cost and any metrics.

    Layers run in inference mode (no dropout), and no penalty is added.

    Args:
        net: the network.
        loss: the cost.
        params: the parameters of the network.
        data: `(x, y)` or `(x, y, weights)`; memory-mapped arrays are read in pieces. Or `fnn.Batches`, read once: all
            of them, or as many as its `steps`.
        batch_size: examples per forward pass. It bounds the memory and does not change the results. Default: 1,024.
        metrics: functions by name, as for `fit`. They receive NumPy arrays; the predictions are `loss.predict` of the
            network's output, that is, probabilities if the cost takes logits. One with an argument `ignored=None` gets
            the label that the cost ignores. Or names of scikit-learn's scores, `("roc_auc", "f1_macro")`, or such names
            in place of functions; see `fnn.scoring`. Default: None.

    Returns:
        A dict with the mean cost under `"loss"` and each metric under its name: floats, or arrays where a metric
        returns one.

    >>> from fnn import Quadratic, mlp
    >>> net = mlp((1,))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> evaluate(net, Quadratic(), params, (np.zeros((3, 2)), np.ones((3, 1))))
    {'loss': 0.5}
    """
    check_problem(net, loss)
    batch_size, metrics = integer("batch_size", batch_size, least=1), check_metrics(metrics)
    data = admitted(net, loss, params, data)
    checks.on_the_host("evaluate", "loss.value(net.apply(params, x), y)", params, tuple(present(data)))
    check_evaluation(data, metrics, "data")
    check_scores(net, loss, data, metrics)
    return evaluated(net, loss, params, data, metrics, batch_size)


def evaluated(net, loss, params, data: Data | Stream, metrics, batch_size=1024) -> dict[str, Any]:
    """`evaluate` for data that have passed the gate."""
    results = []
    for _, piece in data.pieces(batch_size):
        n = piece.size
        if isinstance(data, Stream):  # of one size, so that nothing is compiled for a batch that is smaller
            piece = padded_to(data.batch_size, piece)
        x, y, weights = gate.converted(params, *piece)
        prediction, losses = predict(params, x, y, net=net, loss=loss, batch_size=batch_size)
        weights = weights if data.weights is not None else None
        kept = (losses, weights, *((prediction, y) if metrics else (None, None)))
        results.append(trees.map(lambda array: np.asarray(array)[:n], kept))  # noqa: B023 - called at once
    losses, weights, prediction, y = trees.map(lambda *arrays: np.concatenate(arrays), *results)
    if isinstance(data, Stream):  # whose weights have not been seen before
        check_evaluation(Data(losses, losses, weights), {}, data.name)
    value = cost_of(loss, losses, weights)
    measured = {name: np.asarray(v) for name, v in measure(metrics.items(), loss, prediction, y, weights).items()}
    for name, v in measured.items():
        if v.dtype.kind not in "fiub" and not backend.is_floating(v.dtype):
            raise KindError(f"metrics: expected {name!r} to return a number, or an array of numbers, got {shorten(v)}")
    return {"loss": float(value)} | {name: v if v.ndim else float(v) for name, v in measured.items()}


def check_metrics(metrics) -> dict:
    """The metrics as a dict of functions by name, empty for None; raises if they are anything else."""
    metrics = {} if metrics is None else metrics
    if isinstance(metrics, tuple | list) and all(isinstance(name, str) for name in metrics):
        metrics = dict(zip(metrics, metrics, strict=True))
    if not isinstance(metrics, dict) or not all(callable(m) or isinstance(m, str) for m in metrics.values()):
        raise KindError(
            'metrics: expected functions by name, such as {"accuracy": fnn.accuracy}, or the names of scikit-learn\'s '
            f'scores, such as ("roc_auc", "f1_macro"), got {shorten(metrics)}'
        )
    if "loss" in metrics:
        raise ArgumentError("metrics: expected names other than 'loss', which is the cost itself")
    return {name: Score(metric) if isinstance(metric, str) else metric for name, metric in metrics.items()}

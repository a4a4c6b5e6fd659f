"""Predictions of a trained network, in batches of one size, and logarithms of probabilities that are exact.

    log pᶜ = zᶜ − m − log Σⱼ e^(zⱼ − m)        m = max z        of classes, z (N, ..., C)
    log p  = −log(1 + e⁻ᶻ),  log(1 − p) = −log(1 + eᶻ)          of yes or no, z (N, ..., K)

Probabilities p themselves underflow where their logarithms are −104 or less in float32, and are 1 where those of the
others are below −17. The logarithms are computed from the logits, so that neither loses a digit.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import backend, checks, examples, gate, random, trees  # noqa: F401 - random for the example
from .backend import at_least_float32, cast, floating
from .backpropagation import check_problem
from .devices import on_any_axes
from .errors import FnnError, KindError, ShapeError, integer, usage
from .examples import Data, parts
from .layers import Layer, Scale
from .layers.activations import Identity, Sigmoid, Softmax
from .losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    KullbackLeibler,
    Loss,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
)
from .networks import Serial
from .sources import Batches, rows
from .streams import inputs_of, padded_to


@on_any_axes
@usage("fnn.predict(net, loss, params, x)")
def predict(net: Layer, loss: Loss, params: Any, x: Any, *, batch_size: int = 1024) -> np.ndarray:
    """Predict: `loss.predict` of the network's outputs, for any number of examples.

    With a cost on logits, predictions are probabilities, (N, C) for `SoftmaxCrossEntropy` and shaped as the output for
    `SigmoidBinaryCrossEntropy`; `.argmax(axis=-1)` is the label. With `Hinge` they are −1 and 1, with `GaussianNll`
    means and variances, and with costs of numbers the outputs themselves. Layers are in inference mode.

    On JAX every batch is padded to `batch_size` examples, so that one compiled program serves any N. To answer for one
    example at a time, pass `batch_size=1`.

    Args:
        net: the network.
        loss: the cost, which says what the network's output is.
        params: the parameters of the network.
        x: the inputs, as `net.apply` takes them. Memory-mapped arrays are read in pieces. Or `fnn.Batches`, each batch
            x, or (x, y) or (x, y, weights), of which x is used.
        batch_size: examples per forward pass. Default: 1,024.

    Returns:
        A NumPy array with the predictions along its first axis, in float32 or wider.

    Raises:
        DataError: if a number is NaN or infinite.
        FnnError: if x or the parameters do not fit the network.

    >>> from fnn import SoftmaxCrossEntropy, mlp
    >>> net = mlp((8, 3))
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> predict(net, SoftmaxCrossEntropy(), params, np.zeros((5, 2))).shape
    (5, 3)
    """
    check_problem(net, loss)
    return _in_batches(net, loss, params, x, batch_size, "predict")


@on_any_axes
@usage("fnn.log_probabilities(net, loss, params, x)")
def log_probabilities(net: Layer, loss: Loss, params: Any, x: Any, *, batch_size: int = 1024) -> np.ndarray:
    """Predict logarithms of probabilities, exact also where the probabilities are 0 or 1 in floating point.

        log p = z − log Σⱼ e^zⱼ                        of classes, (N, ..., C)
        log (1 − p), log p,  p = σ(z)                  of yes or no, (N, ..., K, 2), at the places of y = 0 and y = 1

    So `take_along_axis(log_p, y[..., None], axis=-1)` is the log-likelihood of labels y in both cases. The cost is one
    on logits, or one of probabilities of a network that ends in `Softmax` or `Sigmoid`, whose input is then used.

    Args:
        net: the network.
        loss: a cost of classes, such as `SoftmaxCrossEntropy`, or of yes or no, such as `SigmoidBinaryCrossEntropy`.
        params: the parameters of the network.
        x: the inputs, as for `predict`.
        batch_size: examples per forward pass. Default: 1,024.

    Returns:
        A NumPy array, in float32 or wider.

    Raises:
        KindError: if the cost predicts no probabilities, or the network's output is already rounded to probabilities.

    >>> from fnn import Identity, SoftmaxCrossEntropy
    >>> log_probabilities(Identity(), SoftmaxCrossEntropy(), (), np.array([[1e3, -1e3]], np.float32))
    array([[    0., -2000.]], dtype=float32)
    """
    check_problem(net, loss)
    if loss.takes == "probabilities":
        net, loss = _on_logits(net, loss)
    return _in_batches(net, loss, params, x, batch_size, "log_probabilities")


def _on_logits(net, loss) -> tuple[Layer, Loss]:
    """The network without its last function, and the cost on its input; the parameters are the same."""
    binary = isinstance(loss, BinaryCrossEntropy)
    changed = _without(Sigmoid if binary else Softmax, net)
    if changed is None or not isinstance(loss, BinaryCrossEntropy | CrossEntropy | KullbackLeibler):
        raise KindError(
            f"log_probabilities: expected a network that ends in fnn.{'Sigmoid' if binary else 'Softmax'}(), since the "
            "logarithm of a rounded probability is not exact; or train with a cost on logits, such as "
            "fnn.SoftmaxCrossEntropy()"
        )
    return changed, SigmoidBinaryCrossEntropy() if binary else SoftmaxCrossEntropy()


def _without(function, net) -> Layer | None:
    """The network with z / T in place of a `Softmax` of temperature T at its end, or z in place of a `Sigmoid`."""
    if isinstance(net, Serial) and net.layers:
        last = _without(function, net.layers[-1])
        return None if last is None else Serial((*net.layers[:-1], last))
    if type(net) is not function:
        return None
    return Scale(1 / net.temperature) if isinstance(net, Softmax) else Identity()


def _in_batches(net, loss, params, x, batch_size, method) -> np.ndarray:
    """A method of the cost, of the network's outputs for all examples."""
    batch_size, results = integer("batch_size", batch_size, least=1), []
    gate.check_parameters(params)
    for place, piece, n, size in _pieces(x, batch_size):
        checks.on_the_host(method, f"loss.{method}(net.apply(params, x))", params, piece)
        if backend.namespace(*trees.leaves((params, piece))) is not np:
            piece = padded_to(size, Data(piece, None), weighted=False).x
        try:
            _, entered = gate.inputs(net, params, piece)
            for name, array in parts("x", entered):
                if backend.is_floating(array.dtype):
                    checks.finite(name, array)
        except FnnError as error:
            raise error.at(place) if place else error  # noqa: B904 - the same error, its place added
        results.append(np.asarray(_outputs(params, entered, net=net, loss=loss, method=method))[:n])
    return np.concatenate(results)


def _pieces(x, batch_size) -> Iterator[tuple[str, Any, int, int]]:
    """`(place, piece, n, size)`: n examples at a time, which are to be padded to the same size, and where they are."""
    wholes = inputs_of(x) if isinstance(x, Batches) else [("", examples.arrays("x", x), None)]
    size = None
    for batch, whole, _ in wholes:
        gate.check_examples(whole)
        total = examples.size_of(whole)
        if total == 0:
            raise ShapeError(f"{batch}{': ' * bool(batch)}x: expected at least one example, got none")
        size = size or (min(batch_size, total) if batch else batch_size)
        for start in range(0, total, size):
            n = min(size, total - start)
            part = f"of examples {start} to {start + n - 1}, counted here from 0" if start else ""
            yield ": ".join(filter(None, (batch, part))), _rows(whole, start, size), n, size


def _rows(x, start, size):
    """At most `size` examples from `start` on; of JAX's arrays always `size`, by indices: one program for any start."""

    def some(array):
        if backend.is_jax(array):
            index = np.minimum(np.arange(start, start + size, dtype=np.int32), len(array) - 1)
            return backend.jnp.take(array, index, axis=0, mode="clip")
        return rows(array, slice(start, start + size))

    return trees.map(some, x)


@backend.jit(static=("net", "loss", "method"))
def _outputs(params, x, *, net, loss, method):
    output = floating(net.forward(params, x)[0])
    return getattr(loss, method)(cast(output, at_least_float32(output.dtype)))

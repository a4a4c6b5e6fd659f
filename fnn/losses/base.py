"""The contract of a cost, helpers that costs share, and a cost defined by any JAX function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .. import backend
from ..errors import DataError, KindError, ShapeError, shorten
from ..gate import finite
from ..static import Static


@dataclass(frozen=True)
class Loss(Static):
    """Base class of all costs.

    A cost of your own must define `value` and `delta`, and also `check` if its target is not shaped as the prediction.

    >>> @dataclass(frozen=True)
    ... class Quartic(Loss):
    ...     def value(self, prediction, target):
    ...         return ((prediction - target) ** 4).sum(axis=1)
    ...
    ...     def delta(self, prediction, target):
    ...         return 4 * (prediction - target) ** 3
    """

    def __call__(self, *args, **kwargs) -> NoReturn:
        """Costs are not called."""
        raise KindError(
            f"{type(self).__name__} cannot be called; write loss.value(prediction, y) for the cost of each example, "
            "or fnn.value_and_grad(net, loss)(params, x, y) for the mean and its gradient"
        )

    def value(self, prediction, target, /):
        """ℓ (N,), the cost of each example."""
        raise NotImplementedError

    def delta(self, prediction, target, /):
        """∂ℓ/∂prediction, shaped as the prediction."""
        raise NotImplementedError

    def value_and_delta(self, prediction, target, /):
        """`(value, delta)`; costs override it where the two share work."""
        return self.value(prediction, target), self.delta(prediction, target)

    def outer(self, mean, /):
        """The cost of a batch as a function of the weighted mean of ℓ, and its derivative: by default the mean and 1.

        A cost that is not a mean over the examples overrides it, as `RootMeanSquaredError` does.
        """
        return mean, 1.0

    def predict(self, prediction, /):
        """The prediction from the network's output: probabilities if the output is logits, else the output itself."""
        return prediction

    def check(self, prediction_shape, target, values=True):
        """Raise if the target does not fit a prediction of this shape or, with `values`, has values out of range."""
        if tuple(target.shape) != tuple(prediction_shape):
            hint = "; use y[:, None]" if tuple(prediction_shape) == (*target.shape, 1) else ""
            raise ShapeError(
                f"y: expected targets of the prediction's shape {tuple(prediction_shape)}, "
                f"got {tuple(target.shape)}{hint}"
            )
        if values and backend.is_floating(target.dtype):
            finite("y", target)


def over_outputs(values):
    """Sum over the outputs of each example: (N, ...) -> (N,)."""
    return values if values.ndim == 1 else values.reshape(values.shape[0], -1).sum(axis=1)


def outputs(a):
    """K, the number of outputs per example."""
    return a[:1].size or 1


def check_all(name, array, ok, what):
    """Raise unless a condition holds for all values of a concrete array, naming the first value that is not `what`."""
    if not bool(ok.all()):
        first = np.argwhere(~np.asarray(ok))[0]
        place = ", ".join(str(i) for i in first)
        raise DataError(f"{name}: expected {what}, got {np.asarray(array)[tuple(first)]} at {name}[{place}]")


def check_probabilities(target):
    """Raise unless all values of a concrete target lie between 0 and 1."""
    check_all("y", target, (target >= 0) & (target <= 1), "probabilities from 0 to 1")


def check_classes(loss, prediction_shape, target, values):
    """`Loss.check` for predictions (N, C): the target is labels (N,) or probabilities (N, C)."""
    if len(prediction_shape) != 2:
        raise ShapeError(f"{loss}: expected predictions of shape (N, C), got {tuple(prediction_shape)}")
    n, classes = prediction_shape
    if tuple(target.shape) not in ((n,), (n, classes)):
        hint = "; use y[:, 0] for labels" if tuple(target.shape) == (n, 1) else ""
        raise ShapeError(
            f"y: expected labels of shape ({n},) or probabilities ({n}, {classes}), got {tuple(target.shape)}{hint}"
        )
    if target.ndim == 1 and target.dtype.kind not in "iu":
        raise KindError(f"y: expected integer labels, got dtype {target.dtype}; use y.astype(int)")
    if values and target.ndim == 1:
        check_all("y", target, (target >= 0) & (target < classes), f"labels from 0 to {classes - 1}")
    elif values:
        check_probabilities(target)
        sums = target.sum(axis=1)
        if bool((abs(sums - 1) > 1e-2).any()):
            row = int((abs(sums - 1) > 1e-2).argmax())
            raise DataError(
                f"y: expected probabilities that sum to 1 in each row, got a sum of {sums[row]} in row {row}"
            )


@dataclass(frozen=True)
class FunctionLoss(Loss):
    """A cost defined by any JAX function of a batch; needs JAX.

        ℓ = f(a, y)        δ = ∂ℓ/∂a, by `jax.vjp`

    Functions compare by identity, so define f once, at the top of a module.

    Args:
        f: the function, (prediction, target) -> (N,), which must treat each example independently. The target may have
            any shape that f accepts.

    >>> import jax
    >>> loss = FunctionLoss(lambda a, y: ((a - y) ** 4).sum(axis=1))
    >>> loss.delta(jax.numpy.array([[2.0]]), jax.numpy.array([[1.0]]))
    Array([[4.]], dtype=float32)
    """

    f: Callable[[Any, Any], Any]

    def __post_init__(self):
        super().__post_init__()
        if not callable(self.f):
            raise KindError(f"f: expected a function, got {shorten(self.f)}")

    def value(self, prediction, target):
        value = self.f(prediction, target)
        if np.shape(value) != prediction.shape[:1]:
            raise ShapeError(
                f"{self}: expected one value for each example, shape {prediction.shape[:1]}, got {np.shape(value)}; "
                f"sum over axis=-1, or use jax.vmap on a function of one example"
            )
        return value

    def delta(self, prediction, target):
        return self.value_and_delta(prediction, target)[1]

    def value_and_delta(self, prediction, target):
        if not backend.is_jax(prediction):
            raise KindError("FunctionLoss: its derivative is jax.vjp, so it needs parameters on JAX, not on NumPy")
        value, vjp = backend.need_jax("FunctionLoss").vjp(lambda a: self.value(a, target), prediction)
        return value, vjp(backend.jnp.ones_like(value))[0]

    def check(self, prediction_shape, target, values=True):
        if target.shape[:1] != tuple(prediction_shape[:1]):
            raise ShapeError(
                f"y: expected a target for each of {prediction_shape[0]} examples, got shape {target.shape}"
            )
        if values and backend.is_floating(target.dtype):
            finite("y", target)

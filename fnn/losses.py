"""Costs: the value of each and its derivative side by side, and penalties on the parameters.

A cost compares a prediction a (N, ...) with a target y and gives, for every example on its own,

    value   ℓ (N,)        delta   δ = ∂ℓ/∂a, shaped as a

unscaled and unweighted: the mean over the examples is taken in one place, `backprop`. Over the outputs of an example
a cost sums, unless its name says Mean. Costs after a softmax or sigmoid take logits z instead of a, for stability
and speed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import backend, trees
from .activations import logistic
from .backend import floating, namespace
from .errors import DataError, KindError, ShapeError, finite, shorten
from .static import Static


@dataclass(frozen=True)
class Loss(Static):
    """The contract. A cost of your own defines `value` and `delta`, and `check` if its target has a shape of its own.

    >>> @dataclass(frozen=True)
    ... class Quartic(Loss):
    ...     def value(self, prediction, target):
    ...         return ((prediction - target) ** 4).sum(axis=1)
    ...
    ...     def delta(self, prediction, target):
    ...         return 4 * (prediction - target) ** 3
    """

    def value(self, prediction, target):
        """ℓ, one for each example: (N,)."""
        raise NotImplementedError

    def delta(self, prediction, target):
        """∂ℓ/∂prediction, shaped as the prediction."""
        raise NotImplementedError

    def value_and_delta(self, prediction, target):
        """Both; a cost overrides it where the two share work."""
        return self.value(prediction, target), self.delta(prediction, target)

    def predict(self, prediction):
        """What the network predicts, from its output: probabilities where that is logits, else the output itself."""
        return prediction

    def check(self, prediction_shape, target, values=True):
        """Raise if the target does not fit a prediction of this shape or, with `values`, holds values out of range."""
        if tuple(target.shape) != tuple(prediction_shape):
            hint = "; y[:, None] has it" if tuple(prediction_shape) == (*target.shape, 1) else ""
            raise ShapeError(
                f"y: expected targets of the prediction's shape {tuple(prediction_shape)}, "
                f"got {tuple(target.shape)}{hint}"
            )
        if values and backend.is_floating(target.dtype):
            finite("y", target)


def _sum(values):
    """Over the outputs of each example: (N, ...) -> (N,)."""
    return values if values.ndim == 1 else values.reshape(len(values), -1).sum(axis=1)


@dataclass(frozen=True)
class Quadratic(Loss):
    """ℓ = ½ Σ (a − y)²        δ = a − y

    The textbooks' cost: M. Nielsen, "Neural networks and deep learning" (2015), eq. 26.

    >>> Quadratic().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.5])
    """

    def value(self, a, y):
        return 0.5 * _sum((a - floating(y, a.dtype)) ** 2)

    def delta(self, a, y):
        return a - floating(y, a.dtype)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """ℓ = (1/K) Σ (a − y)² over the K outputs of an example        δ = (2/K)(a − y)

    >>> MeanSquaredError().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.5])
    """

    def value(self, a, y):
        return _sum((a - floating(y, a.dtype)) ** 2) / _outputs(a)

    def delta(self, a, y):
        return (2 / _outputs(a)) * (a - floating(y, a.dtype))


def _outputs(a):
    return a[:1].size or 1


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of a softmax, on logits z (N, C); y are integer labels (N,) or probabilities (N, C).

        ℓ = −Σ_c y_c log p_c = Σ_c y_c (log Σⱼ eᶻʲ − z_c)        δ = p Σ_c y_c − y        p = softmax z

    A label stands for the row with 1 at its place. C. Bishop, "Pattern recognition and machine learning" (2006),
    eqs. 4.108 and 4.109.

    >>> SoftmaxCrossEntropy().value(np.array([[0.0, 0.0]]), np.array([1]))
    array([0.69314718])
    """

    def value(self, z, y):
        return self.value_and_delta(z, y)[0]

    def delta(self, z, y):
        return self.value_and_delta(z, y)[1]

    def value_and_delta(self, z, y):
        xp = namespace(z, y)
        z = z - z.max(axis=1, keepdims=True)
        e = xp.exp(z)
        total = e.sum(axis=1, keepdims=True)
        if y.ndim == 1:
            hot = y[:, None] == xp.arange(z.shape[1])
            return xp.log(total[:, 0]) - xp.where(hot, z, 0).sum(axis=1), e / total - hot
        y = floating(y, z.dtype)
        mass = y.sum(axis=1, keepdims=True)
        value = (y * xp.where(y == 0, 0, xp.log(total) - z)).sum(axis=1)  # 0 · log 0 is 0
        return value, mass * (e / total) - y

    def predict(self, z):
        """Probabilities (N, C)."""
        e = namespace(z).exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def check(self, prediction_shape, target, values=True):
        if len(prediction_shape) != 2:
            raise ShapeError(f"{self}: expected logits of shape (N, C), got {tuple(prediction_shape)}")
        n, classes = prediction_shape
        if tuple(target.shape) not in ((n,), (n, classes)):
            hint = "; y[:, 0] are labels" if tuple(target.shape) == (n, 1) else ""
            raise ShapeError(
                f"y: expected labels of shape ({n},) or probabilities ({n}, {classes}), got {tuple(target.shape)}{hint}"
            )
        if target.ndim == 1 and target.dtype.kind not in "iu":
            raise KindError(f"y: expected integer labels, got dtype {target.dtype}; y.astype(int) makes them so")
        if values and target.ndim == 1:
            _within("y", target, 0, classes - 1, "labels")
        elif values:
            _within("y", target, 0, 1, "probabilities")
            sums = target.sum(axis=1)
            if bool((abs(sums - 1) > 1e-2).any()):
                row = int((abs(sums - 1) > 1e-2).argmax())
                raise DataError(
                    f"y: expected probabilities that sum to 1 in each row, got a sum of {sums[row]} in row {row}"
                )


@dataclass(frozen=True)
class SigmoidBinaryCrossEntropy(Loss):
    """Cross-entropy of a sigmoid, on logits z; y are 0 or 1, or probabilities, of the same shape as z.

        ℓ = −Σ (y log p + (1 − y) log(1 − p)) = Σ (log(1 + eᶻ) − z y)        δ = p − y        p = 1 / (1 + e⁻ᶻ)

    Several outputs are several yes-or-no questions, summed. Bishop (2006), eqs. 4.90 and 4.91.

    >>> SigmoidBinaryCrossEntropy().delta(np.array([[0.0]]), np.array([[1]]))
    array([[-0.5]])
    """

    def value(self, z, y):
        xp, y = namespace(z, y), floating(y, z.dtype)
        positive = z >= 0  # log(1 + eᶻ) = max(z, 0) + log(1 + e^−|z|)
        softplus = xp.where(positive, z, 0) + xp.log1p(xp.exp(xp.where(positive, -z, z)))
        return _sum(softplus - xp.where(y == 0, 0, z) * y)

    def delta(self, z, y):
        return logistic(z) - floating(y, z.dtype)

    def predict(self, z):
        """Probabilities, shaped as z."""
        return logistic(floating(z))

    def check(self, prediction_shape, target, values=True):
        super().check(prediction_shape, target, values=False)
        if values:
            _within("y", target, 0, 1, "probabilities")


def _within(name, array, low, high, what):
    """Raise unless all values of a concrete array are from `low` to `high`, naming the first that is not."""
    ok = (array >= low) & (array <= high)
    if not bool(ok.all()):
        first = np.argwhere(~np.asarray(ok))[0]
        place = ", ".join(str(i) for i in first)
        raise DataError(
            f"{name}: expected {what} from {low} to {high}, got {np.asarray(array)[tuple(first)]} at {name}[{place}]"
        )


@dataclass(frozen=True)
class FunctionLoss(Loss):
    """A cost of any JAX function of a batch, f(prediction, target) -> (N,), each example on its own; needs JAX.

        ℓ = f(a, y)        δ = ∂ℓ/∂a, by `jax.vjp`

    The target may have any shape that f takes. Functions compare by identity: define f once, at the top of a module.
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


# ---- penalties on the parameters -------------------------------------------------------------------------------------


class L2(NamedTuple):
    """R = ½ λ Σ w²        ∂R/∂w = λ w

    Weight decay: a normal prior on the weights. λ is `coefficient`: a number applies to the weights, that is to
    parameters of two or more axes, and leaves biases alone; a tree of numbers over the upper part of the parameters'
    tree says it for each.

    >>> L2(0.5).value((np.array([[2.0]]), np.array([7.0])))
    np.float64(1.0)
    """

    coefficient: Any

    def value(self, params):
        terms = trees.map(lambda c, w: 0.5 * c * (w * w).sum(), _coefficients(self, params), params)
        return sum(trees.leaves(terms))

    def gradient(self, params):
        return trees.map(lambda c, w: c * w, _coefficients(self, params), params)


class L1(NamedTuple):
    """R = λ Σ |w|        ∂R/∂w = λ sign w, 0 at 0

    Drives weights to exactly 0 in the limit: a Laplace prior. `coefficient` is as for `L2`.
    """

    coefficient: Any

    def value(self, params):
        terms = trees.map(lambda c, w: c * (w * namespace(w).sign(w)).sum(), _coefficients(self, params), params)
        return sum(trees.leaves(terms))

    def gradient(self, params):
        return trees.map(lambda c, w: c * namespace(w).sign(w), _coefficients(self, params), params)


def _coefficients(penalty, params):
    """One number for each parameter."""
    name = f"{type(penalty).__name__}.coefficient"
    if isinstance(penalty.coefficient, tuple | list | dict):
        return trees.prefix(name, penalty.coefficient, params)
    return trees.map(lambda w: penalty.coefficient if w.ndim > 1 else 0.0, params)

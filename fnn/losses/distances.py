"""Costs of the distance between a prediction a and a target y, both arbitrary real numbers: regression.

K is the number of outputs per example.
"""

from dataclasses import dataclass
from typing import Annotated

from ..backend import namespace
from ..numerics import absolute
from ..static import Interval
from .base import Loss, entries, outputs, over_outputs


@dataclass(frozen=True)
class Quadratic(Loss):
    """ℓ = ½ Σ (a − y)²        δ = a − y        range [0, ∞)

    The quadratic cost of the textbooks.

    Source: M. Nielsen, "Neural networks and deep learning" (2015), eq. 26.

    >>> import numpy as np
    >>> Quadratic().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.5])
    """

    def value(self, a, y):
        return 0.5 * over_outputs((a - entries(y, a)) ** 2)

    def delta(self, a, y):
        return a - entries(y, a)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """ℓ = (1/K) Σ (a − y)²        δ = (2/K) (a − y)        range [0, ∞)

    Source: C. Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae" (1821).

    >>> import numpy as np
    >>> MeanSquaredError().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.5])
    """

    def value(self, a, y):
        return over_outputs((a - entries(y, a)) ** 2) / outputs(a)

    def delta(self, a, y):
        return (2 / outputs(a)) * (a - entries(y, a))


@dataclass(frozen=True)
class RootMeanSquaredError(MeanSquaredError):
    """L = √m with m = Σₙ wₙ ℓₙ / Σₙ wₙ and ℓ = (1/K) Σ (a − y)²        δ = (2/K) (a − y), times ∂L/∂m = 1 / (2√m)
    range [0, ∞)

    The root is taken of the mean over the examples, so the cost of a batch is not a mean of costs of its examples:
    `value` and `delta` are those of the mean inside, `outer` is the root, and ∂L/∂m is 0 where m is 0. `fit` reports
    the mean of the batches' roots over an epoch, weighted by the batch sizes.

    Source: R. Hyndman, A. Koehler, "Another look at measures of forecast accuracy" (2006).

    >>> import numpy as np
    >>> from fnn import Identity, value_and_grad
    >>> a, y = np.array([[3.0], [4.0]]), np.zeros((2, 1))
    >>> value_and_grad(Identity(), RootMeanSquaredError())((), a, y)[0] ** 2  # ½ (3² + 4²)
    np.float64(12.5)
    """

    def outer(self, mean):
        xp = namespace(mean)
        root = xp.sqrt(xp.where(mean == 0, 1, mean))
        return xp.where(mean == 0, 0, root)[()], xp.where(mean == 0, 0, 0.5 / root)[()]


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """ℓ = (1/K) Σ |a − y|        δ = (1/K) sign(a − y)        range [0, ∞)

    The derivative at a = y is 0. The best constant prediction is the median, not the mean.

    Source: P.-S. Laplace (1774); R. Hyndman, A. Koehler (2006).

    >>> import numpy as np
    >>> MeanAbsoluteError().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([1.5])
    """

    def value(self, a, y):
        return over_outputs(absolute(a - entries(y, a))) / outputs(a)

    def delta(self, a, y):
        return (1 / outputs(a)) * namespace(a, y).sign(a - entries(y, a))


@dataclass(frozen=True)
class Huber(Loss):
    """ℓ = Σ (½ r² if |r| ≤ t else t (|r| − ½t))        δ = min(max(r, −t), t)        r = a − y        range [0, ∞)

    Quadratic for small errors, absolute for large ones.

    Args:
        threshold: t, greater than 0. Default: 1.

    Source: P. Huber, "Robust estimation of a location parameter" (1964).

    >>> import numpy as np
    >>> Huber().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.])
    """

    threshold: Annotated[float, Interval("(0, ∞)")] = 1.0

    def value(self, a, y):
        r, t = absolute(a - entries(y, a)), self.threshold
        return over_outputs(namespace(r).where(r <= t, 0.5 * r * r, t * (r - 0.5 * t)))

    def delta(self, a, y):
        return namespace(a, y).clip(a - entries(y, a), -self.threshold, self.threshold)


@dataclass(frozen=True)
class ExponentialCost(Loss):
    """ℓ = τ exp(Σ (a − y)² / τ)        δ = 2 (a − y) exp(Σ (a − y)² / τ)        range [τ, ∞)

    In float32 it overflows where the squared error exceeds about 88 τ.

    Args:
        tau: τ, greater than 0; the smaller it is, the more the worst examples count. Default: 1.

    Source: L. Silva, J. Marques de Sá, L. Alexandre, "Data classification with multilayer perceptrons using a
    generalized error function" (2008).

    >>> import numpy as np
    >>> ExponentialCost().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([148.4131591])
    """

    tau: Annotated[float, Interval("(0, ∞)")] = 1.0

    def value(self, a, y):
        return self.value_and_delta(a, y)[0]

    def delta(self, a, y):
        return self.value_and_delta(a, y)[1]

    def value_and_delta(self, a, y):
        r = a - entries(y, a)
        e = namespace(r).exp(over_outputs(r * r) * (1 / self.tau))
        return self.tau * e, 2 * r * e.reshape(e.shape + (1,) * (r.ndim - 1))

"""Costs of the distance between a prediction a and a target y, both arbitrary real numbers: regression.

K is the number of outputs per example.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from .. import random
from ..backend import cast, namespace
from ..errors import ShapeError
from ..numerics import absolute, clipped
from ..static import Interval
from .base import Loss, entries, on_diagonal, outputs, over_outputs


@dataclass(frozen=True)
class Quadratic(Loss):
    """ℓ = ½ Σ (a − y)²        δ = a − y        ∂²ℓ = I        range [0, ∞)

    The quadratic cost of the textbooks: a likelihood of y ~ N(a, 1).

    Source: M. Nielsen, "Neural networks and deep learning" (2015), eq. 26.

    >>> import numpy as np
    >>> Quadratic().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.5])
    """

    def value(self, a, y):
        return 0.5 * over_outputs((a - entries(y, a)) ** 2)

    def delta(self, a, y):
        return a - entries(y, a)

    def root(self, a, y):
        return on_diagonal(1 + 0 * a)

    def sample(self, key, a, y=None):
        return a + random.normal(key, a.shape, a.dtype)

    def fisher_target(self, a, y):
        return y


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """ℓ = (1/K) Σ (a − y)²        δ = (2/K) (a − y)        ∂²ℓ = (2/K) I        range [0, ∞)

    A likelihood of y ~ N(a, K/2).

    Source: C. Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae" (1821).

    >>> import numpy as np
    >>> MeanSquaredError().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([2.5])
    """

    def value(self, a, y):
        return over_outputs((a - entries(y, a)) ** 2) / outputs(a)

    def delta(self, a, y):
        return (2 / outputs(a)) * (a - entries(y, a))

    def root(self, a, y):
        return on_diagonal(math.sqrt(2 / outputs(a)) + 0 * a)

    def sample(self, key, a, y=None):
        return a + math.sqrt(outputs(a) / 2) * random.normal(key, a.shape, a.dtype)

    def fisher_target(self, a, y):
        return y


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
    """ℓ = (1/K) Σ |a − y|        δ = (1/K) sign(a − y)        ∂²ℓ = 0        range [0, ∞)

    The derivative at a = y is 0. The best constant prediction is the median, not the mean. A likelihood of y that has
    the Laplace distribution around a, of scale K.

    Source: P.-S. Laplace (1774); R. Hyndman, A. Koehler (2006).

    >>> import numpy as np
    >>> MeanAbsoluteError().value(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))
    array([1.5])
    """

    def value(self, a, y):
        return over_outputs(absolute(a - entries(y, a))) / outputs(a)

    def delta(self, a, y):
        return (1 / outputs(a)) * namespace(a, y).sign(a - entries(y, a))

    def root(self, a, y):
        return on_diagonal(0 * a)[..., :1]

    def sample(self, key, a, y=None):
        for_side, for_size = random.split(key)
        size = outputs(a) * random.exponential(for_size, a.shape, a.dtype)
        return a + namespace(a).where(random.bernoulli(for_side, 0.5, a.shape), size, -size)


@dataclass(frozen=True)
class Huber(Loss):
    """ℓ = Σ (½ r² if |r| ≤ t else t (|r| − ½t))        δ = min(max(r, −t), t)        ∂²ℓ = diag [|r| < t]
    r = a − y        range [0, ∞)

    Quadratic for small errors, absolute for large ones. A likelihood of y whose distance from a is normal up to t and
    exponential of rate t beyond, the two with probabilities as √(2π) erf(t/√2) to 2/t e^(−t²/2).

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
        return clipped(a - entries(y, a), -self.threshold, self.threshold)

    def root(self, a, y):
        return on_diagonal(cast(absolute(a - entries(y, a)) < self.threshold, a.dtype))

    def sample(self, key, a, y=None):
        xp, t, (for_side, for_near, for_far) = namespace(a), self.threshold, random.split(key, 3)
        near, far = math.sqrt(2 * math.pi) * math.erf(t / math.sqrt(2)), 2 / t * math.exp(-t * t / 2)
        side = random.uniform(for_side, a.shape) * (near + far) - near  # from −near to far
        beyond = t + random.exponential(for_far, a.shape, a.dtype) / t
        within = random.truncated_normal(for_near, -t, t, a.shape, a.dtype)
        return a + cast(xp.where(side < 0, within, xp.where(side < far / 2, beyond, -beyond)), a.dtype)


@dataclass(frozen=True)
class ExponentialCost(Loss):
    """ℓ = τ exp(Σ r² / τ)        δ = 2 r exp(Σ r² / τ)        ∂²ℓ = 2 (I + (2/τ) r rᵀ) exp(Σ r² / τ)
    r = a − y        range [τ, ∞)

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

    def root(self, a, y):
        if a.ndim > 2:
            raise ShapeError(f"{self}: expected predictions of shape (N, K), got {a.shape}: it couples positions")
        r = (a - entries(y, a)).reshape(len(a), -1)
        e = namespace(r).exp((r * r).sum(axis=1) * (0.5 / self.tau))  # √ of that of δ
        scaled = math.sqrt(2) * namespace(r).concatenate(
            [on_diagonal(1 + 0 * r), math.sqrt(2 / self.tau) * r[..., None]], -1
        )
        return (e[:, None, None] * scaled).reshape(*a.shape, -1)

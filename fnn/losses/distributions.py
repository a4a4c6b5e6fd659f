"""Costs of predictions that describe how a target is distributed: by its quantiles, or by its mean and variance.

Of each number of the target, y (N, ..., M), the network predicts P numbers, side by side in blocks of M along the last
axis: a (N, ..., P M) is all M of the first, then all M of the second, and so on. With one target, M = 1, the P outputs
of `Dense(P)` are in the order of the P numbers.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from .. import random
from ..backend import floating, namespace
from ..errors import ArgumentError, KindError, ShapeError
from ..static import Interval
from .base import Loss, check_entries, check_values, on_diagonal, over_outputs


def target_shape(loss, prediction_shape, number):
    """(N, ..., M) for predictions (N, ..., P M), where P = `number`; raises if the outputs are no multiple of P."""
    if len(prediction_shape) < 2 or prediction_shape[-1] % number:
        raise ShapeError(
            f"{loss}: expected predictions of shape (N, {number}), or (N, {number} M) for M targets, "
            f"got {tuple(prediction_shape)}"
        )
    return (*prediction_shape[:-1], prediction_shape[-1] // number)


def check_distributed(loss, prediction_shape, target, values, number):
    """`Loss.check` for predictions (N, ..., P M) of targets (N, ..., M), where P = `number`."""
    shape = target_shape(loss, prediction_shape, number)
    check_entries(target, shape, "shape")
    if values:
        check_values(loss, shape, target, loss.targets)


@dataclass(frozen=True)
class Quantile(Loss):
    """ℓ = Σ (1 − τ) r if r ≥ 0 else −τ r        δ = 1 − τ if r > 0, −τ if r < 0, 0 at 0        ∂²ℓ = 0
    r = a − y        range [0, ∞)

    The pinball cost: the best constant prediction is the quantile of y at the level τ, the number below which y falls
    with probability τ. At τ = ½ it is half the absolute error. With several levels the network predicts several
    quantiles, and their costs are summed: for Q levels and a target y (N, M), the prediction is (N, Q M), the M
    quantiles of the first level first; for y (N, 1), a column for each level. Nothing prevents quantiles from crossing
    where there are few data; for increasing levels, `np.sort(a, axis=-1)` puts those of y (N, 1) in order. With one
    level it is a likelihood of y with the asymmetric Laplace distribution.

    Args:
        levels: τ in (0, 1), one number or a tuple of Q. Default: 0.5, the median.

    Source: R. Koenker, G. Bassett, "Regression quantiles" (1978); the likelihood: K. Yu, R. Moyeed, "Bayesian
    quantile regression" (2001).

    >>> import numpy as np
    >>> Quantile((0.1, 0.9)).value(np.array([[1.0, 3.0]]), np.array([[2.0]]))  # 0.1 (2 − 1) + 0.1 (3 − 2)
    array([0.2])
    """

    levels: Annotated[Any, Interval("(0, 1)")] = (0.5,)

    def __post_init__(self):
        if not isinstance(self.levels, tuple | list):
            object.__setattr__(self, "levels", (self.levels,))
        super().__post_init__()
        if not self.levels:
            raise ArgumentError("levels: expected at least one level, got none")

    def value(self, a, y):
        xp, r, below, above = self._parts(a, y)
        return over_outputs(xp.where(r > 0, above * r, xp.where(r < 0, -below * r, 0 * r)))

    def delta(self, a, y):
        xp, r, below, above = self._parts(a, y)
        return xp.where(r > 0, above, xp.where(r < 0, -below, 0 * r)).reshape(a.shape)  # NaN stays NaN

    def root(self, a, y):
        return on_diagonal(0 * a)[..., :1]

    def sample(self, key, a, y=None):
        if len(self.levels) > 1:
            raise KindError(f"{self}: expected one level, as with several the cost is not minus a log-likelihood")
        (tau,), (for_above, for_below) = self.levels, random.split(key)
        above, below = (random.exponential(k, a.shape, a.dtype) for k in (for_above, for_below))
        return a + above / tau - below / (1 - tau)

    def check(self, prediction_shape, target, values=True):
        check_distributed(self, prediction_shape, target, values, len(self.levels))

    def _parts(self, a, y):
        """The namespace, r = a − y (N, ..., Q, M), τ and 1 − τ (Q, 1)."""
        *places, m = target_shape(self, a.shape, len(self.levels))
        check_entries(y, (*places, m), "shape")
        xp, r = namespace(a, y), a.reshape(*places, -1, m) - floating(y, a.dtype)[..., None, :]
        of = lambda numbers: xp.asarray(numbers, dtype=r.real.dtype)[:, None]
        return xp, r, of(self.levels), of([1 - tau for tau in self.levels])


@dataclass(frozen=True)
class GaussianNll(Loss):
    """ℓ = ½ Σ (s + r² e⁻ˢ)        δ_μ = r e⁻ˢ        δ_s = ½ (1 − r² e⁻ˢ)        r = μ − y
    range (−∞, ∞)

    The negative log-likelihood, without its constant ½ log 2π, of y ~ N(μ, eˢ), where the variance is predicted too:
    for a target y (N, M), the prediction is (N, 2 M), the M means μ, then the M logarithms s of the variances. As a
    logarithm, s may be any real number, so the network ends in `Dense(2 * M)`. `predict` gives means and variances.

    It is not convex: ∂²ℓ < 0 along some directions where r is not 0; its Fisher information is by samples. Where a
    network can meet every target exactly, it has no minimum: the variances go to 0. A penalty, or `patience` on
    validation data, prevents that.

    Source: D. Nix, A. Weigend, "Estimating the mean and variance of the target probability distribution" (1994).

    >>> import numpy as np
    >>> loss = GaussianNll()
    >>> loss.value(np.array([[3.0, 0.0]]), np.array([[1.0]]))  # mean 3, variance 1
    array([2.])
    >>> loss.predict(np.array([[3.0, 0.0]]))
    array([[3., 1.]])
    """

    def value(self, a, y):
        r, s, e = self._parts(a, y)
        return over_outputs(0.5 * (s + r * r * e))

    def delta(self, a, y):
        r, _, e = self._parts(a, y)
        return namespace(r).concatenate([r * e, 0.5 * (1 - r * r * e)], axis=-1)

    def sample(self, key, a, y=None):
        mean, s = self._halves(a)
        return mean + namespace(a).exp(0.5 * s) * random.normal(key, mean.shape, a.dtype)

    def predict(self, a):
        """(N, ..., 2 M): the M means, then the M variances eˢ."""
        mean, s = self._halves(floating(a))
        return namespace(a).concatenate([mean, namespace(a).exp(s)], axis=-1)

    def check(self, prediction_shape, target, values=True):
        check_distributed(self, prediction_shape, target, values, 2)

    def _halves(self, a):
        """μ and s, (N, ..., M) each."""
        m = target_shape(self, a.shape, 2)[-1]
        return a[..., :m], a[..., m:]

    def _parts(self, a, y):
        """r, s and e⁻ˢ, (N, ..., M) each."""
        mean, s = self._halves(a)
        check_entries(y, mean.shape, "shape")
        return mean - floating(y, a.dtype), s, namespace(a).exp(-s)

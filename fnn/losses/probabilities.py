"""Costs of a prediction a that is itself a probability or a density: positive, with targets y that are at least 0.

Their derivatives grow without bound as a goes to 0, and in floating point a does reach 0. So below ε (`eps`, 10⁻¹² by
default) each cost is continued by its tangent at ε: with g = max(a, ε),

    ℓ = Σ c(g, y) + c'(g, y) (a − g)        δ = c'(g, y)        ∂²ℓ = diag c''(a, y) [a ≥ ε]

This changes nothing where a ≥ ε, is finite in float32 for all |a| ≤ 10⁴, and has a δ that is its true derivative and
does not vanish outside the domain. After a sigmoid or softmax, prefer the costs on logits, which need no guard.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from .. import random
from ..backend import cast, jax, namespace
from ..errors import KindError
from ..static import Interval
from .base import (
    Loss,
    check_classes,
    drawn_class,
    entries,
    is_ignored,
    no_class,
    no_probability,
    on_diagonal,
    one_hot,
    over_outputs,
)


@dataclass(frozen=True)
class Guarded(Loss):
    """Base of costs that sum c(a, y) over the outputs, for a and y ≥ 0, continued below ε by the tangent."""

    targets: ClassVar[str] = "targets of at least 0"

    eps: Annotated[float, Interval("[1e-18, 0.5)")] = field(default=1e-12, kw_only=True)

    def cost(self, a, y):
        """c(a, y) of each output."""
        raise NotImplementedError

    def slope(self, a, y):
        """c'(a, y) = ∂c/∂a."""
        raise NotImplementedError

    def bend(self, a, y):
        """√c''(a, y) = √(∂²c/∂a²)."""
        raise NotImplementedError

    def root(self, a, y):
        xp, y = namespace(a, y), entries(y, a)
        return on_diagonal(xp.where(a < self.eps, 0, self.bend(xp.where(a < self.eps, self.eps, a), y)))

    def value(self, a, y):
        return self.value_and_delta(a, y)[0]

    def delta(self, a, y):
        return self.value_and_delta(a, y)[1]

    def value_and_delta(self, a, y):
        xp, y = namespace(a, y), entries(y, a)
        g = xp.where(a < self.eps, self.eps, a)
        slope = at_g = self.slope(g, y)
        if xp is not np:  # where a − g depends on a, the tangent's slope does not: JAX need not differentiate it
            at_g = self.slope(jax.lax.stop_gradient(g), y)
        return over_outputs(self.cost(g, y) + at_g * (a - g)), slope

    def wrong(self, target, prediction_shape):
        return target < 0


@dataclass(frozen=True)
class CrossEntropy(Guarded):
    """ℓ = −Σ_c y_c log a_c        δ = −y / a        ∂²ℓ = diag y / a²        range [0, ∞)

    On probabilities a (N, C), such as the output of `Softmax`. The target y is integer labels (N,) or probabilities
    (N, C). With positions, a (N, T, C) and y (N, T), the cost of an example is the sum over its positions. Below ε,
    log a is continued by its tangent. It is a likelihood of labels, drawn with the probabilities a.

    Args:
        eps: ε in [10⁻¹⁸, 0.5). Default: 10⁻¹².
        ignored: a label, such as −1, of positions (or examples) that have no cost and no error. Default: None.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eq. 4.108.

    >>> import numpy as np
    >>> CrossEntropy().value(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    array([0.83698822])
    """

    takes: ClassVar[str] = "probabilities"
    targets: ClassVar[str] = "probabilities from 0 to 1"

    ignored: int | None = field(default=None, kw_only=True)

    def cost(self, a, y):
        return -y * namespace(a).log(a)

    def slope(self, a, y):
        return -y / a

    def bend(self, a, y):
        return namespace(a, y).sqrt(y) / a

    def value_and_delta(self, a, y):
        return super().value_and_delta(a, self._rows(y, a))

    def root(self, a, y):
        return super().root(a, self._rows(y, a))

    def sample(self, key, a, y=None):
        return drawn_class(self, key, a, y)

    def fisher_target(self, a, y):
        if self.ignored is None or y.ndim == a.ndim:
            return a
        return namespace(a, y).where(is_ignored(y, self.ignored)[..., None], 0, a)

    def _rows(self, y, a):
        """The target with a one-hot row for each label."""
        if y.ndim == a.ndim:
            return y
        hot, nan = one_hot(self, y, a)
        y = entries(hot, a)
        return y if nan is None else y + nan

    def wrong(self, target, prediction_shape):
        return no_class(target, prediction_shape, self.ignored)

    def check(self, prediction_shape, target, values=True):
        check_classes(self, prediction_shape, target, values)


@dataclass(frozen=True)
class BinaryCrossEntropy(Guarded):
    """ℓ = −Σ (y log a + (1 − y) log(1 − a))        δ = (a − y) / (a (1 − a)) = (1 − y)/(1 − a) − y/a
    ∂²ℓ = diag y/a² + (1 − y)/(1 − a)²        range [0, ∞)

    On probabilities a, such as the output of `Sigmoid`. The target y is 0 or 1, or probabilities, of the same shape.
    Below ε, log a and log(1 − a) are continued by their tangents. It is a likelihood of y = 1 with probability a.

    Args:
        eps: ε in [10⁻¹⁸, 0.5). Default: 10⁻¹².

    Source: M. Nielsen, "Neural networks and deep learning" (2015), eq. 57.

    >>> import numpy as np
    >>> BinaryCrossEntropy().delta(np.array([[0.75]]), np.array([[1.0]]))
    array([[-1.33333333]])
    """

    takes: ClassVar[str] = "probabilities"
    targets: ClassVar[str] = "probabilities from 0 to 1"

    def value_and_delta(self, a, y):
        xp, y, eps = namespace(a, y), entries(y, a), self.eps
        b = 1 - a
        low, high = a < eps, b < eps
        yes, no = xp.where(low, eps, a), xp.where(high, eps, b)
        log_yes = xp.log(yes) + xp.where(low, a / eps - 1, 0)
        log_no = xp.where(high, math.log(eps) + b / eps - 1, xp.log1p(-xp.where(high, 0, a)))  # 1 − a loses digits
        slope = xp.where(low | high, (1 - y) * yes - y * no, a - y) / (yes * no)
        return -over_outputs(y * log_yes + (1 - y) * log_no), slope

    def root(self, a, y):
        xp, y, eps = namespace(a, y), entries(y, a), self.eps
        b = 1 - a
        low, high = a < eps, b < eps
        yes, no = xp.where(low, 0, y / xp.where(low, 1, a) ** 2), xp.where(high, 0, (1 - y) / xp.where(high, 1, b) ** 2)
        return on_diagonal(xp.sqrt(yes + no))

    def sample(self, key, a, y=None):
        return cast(random.uniform(key, a.shape, a.dtype) < a, a.dtype)

    def fisher_target(self, a, y):
        return a

    def wrong(self, target, prediction_shape):
        return no_probability(target)


@dataclass(frozen=True)
class KullbackLeibler(Guarded):
    """ℓ = Σ y log(y / a)        δ = −y / a        ∂²ℓ = diag y / a²        range [0, ∞) for distributions

    The cross-entropy minus the entropy of y. It is at least 0 if a and y have the same sum; if they need not, use
    `GeneralizedKullbackLeibler`, which is. Below ε, log a is continued by its tangent.

    Args:
        eps: ε in [10⁻¹⁸, 0.5). Default: 10⁻¹².

    Source: S. Kullback, R. Leibler, "On information and sufficiency" (1951).

    >>> import numpy as np
    >>> KullbackLeibler().value(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    array([0.14384104])
    """

    takes: ClassVar[str] = "probabilities"

    def cost(self, a, y):
        xp = namespace(a, y)
        return y * (xp.log(xp.where(y == 0, 1, y)) - xp.log(a))  # 0 · log 0 is 0

    def slope(self, a, y):
        return -y / a

    def bend(self, a, y):
        return namespace(a, y).sqrt(y) / a


@dataclass(frozen=True)
class GeneralizedKullbackLeibler(Guarded):
    """ℓ = Σ (y log(y / a) − y + a)        δ = (a − y) / a        ∂²ℓ = diag y / a²        range [0, ∞)

    For positive numbers that need not sum to 1. Below ε, log a is continued by its tangent. It is a likelihood of
    counts y that are Poisson distributed with the rate a.

    Args:
        eps: ε in [10⁻¹⁸, 0.5). Default: 10⁻¹².

    Source: D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization" (2001), eq. 3.

    >>> import numpy as np
    >>> GeneralizedKullbackLeibler().value(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    array([0.14384104])
    """

    def cost(self, a, y):
        xp = namespace(a, y)
        return y * (xp.log(xp.where(y == 0, 1, y)) - xp.log(a)) + (a - y)

    def slope(self, a, y):
        return (a - y) / a

    def bend(self, a, y):
        return namespace(a, y).sqrt(y) / a

    def sample(self, key, a, y=None):
        return cast(random.poisson(key, namespace(a).maximum(a, 0)), a.dtype)

    def fisher_target(self, a, y):
        return a


@dataclass(frozen=True)
class Hellinger(Guarded):
    """ℓ = (1/√2) Σ (√a − √y)²        δ = (1 − √(y/a)) / √2        ∂²ℓ = diag √(y/a³) / √8        range [0, ∞)

    √2 times the squared Hellinger distance, the form usual in lists of costs. Below ε, √a is continued by its tangent.

    Args:
        eps: ε in [10⁻¹⁸, 0.5). Default: 10⁻¹².

    Source: E. Hellinger, "Neue Begründung der Theorie quadratischer Formen" (1909).

    >>> import numpy as np
    >>> Hellinger().value(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    array([0.04818816])
    """

    def cost(self, a, y):  # √a − √y = (a − y) / (√a + √y), without a difference of roots that are nearly equal
        xp = namespace(a, y)
        return ((a - y) / (xp.sqrt(a) + xp.sqrt(y))) ** 2 * math.sqrt(0.5)

    def slope(self, a, y):
        xp = namespace(a, y)
        root = xp.sqrt(a)
        return (a - y) / (root * (root + xp.sqrt(y))) * math.sqrt(0.5)

    def bend(self, a, y):
        xp = namespace(a, y)
        return 0.125**0.25 * xp.sqrt(xp.sqrt(y / a) / a)


@dataclass(frozen=True)
class ItakuraSaito(Guarded):
    """ℓ = Σ (y/a − log(y/a) − 1)        δ = (a − y) / a²        ∂²ℓ = diag (2y − a) / a³        range [0, ∞)

    For positive numbers such as spectra: it depends only on the ratio of a and y. Targets must be greater than 0. Below
    ε, 1/a and log a are continued by their tangents. It is a likelihood of y that is exponentially distributed with the
    mean a, and not convex: ∂²ℓ < 0 where a > 2y.

    Args:
        eps: ε in [10⁻¹⁸, 0.5). Default: 10⁻¹².

    Source: F. Itakura, S. Saito, "Analysis synthesis telephony based on the maximum likelihood method" (1968).

    >>> import numpy as np
    >>> ItakuraSaito().value(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]))
    array([0.37898459])
    """

    targets: ClassVar[str] = "targets greater than 0"

    def cost(self, a, y):
        ratio = y / a
        return ratio - namespace(a, y).log(ratio) - 1

    def slope(self, a, y):
        return (a - y) / (a * a)

    def root(self, a, y):
        raise KindError(f"{self}: expected a cost that is convex in the prediction, which has a `root`; use samples=")

    def sample(self, key, a, y=None):
        return a * random.exponential(key, a.shape, a.dtype)

    def fisher_target(self, a, y):
        return a

    def wrong(self, target, prediction_shape):
        return target <= 0

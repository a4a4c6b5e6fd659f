"""Costs on logits that count easy examples less: the focal cost of the margin m, by which the true class leads.

    p = σ(m), its probability        q = 1 − p        s = −log p = log(1 + e⁻ᵐ)

    f(m) = q^γ s        f'(m) = −q^γ (q + γ p s)        (as dq/dm = −p q and ds/dm = −q)

Of one logit z, m is z for y = 1 and −z for y = 0. Of logits z_c of C classes, m = z_y − log Σ_{c ≠ y} eᶻᶜ.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from ..backend import cast, floating, namespace
from ..errors import KindError
from ..numerics import bounded, log_sigmoids, logistic, softplus
from ..static import Interval
from .base import Loss, check_labels, each_output, entries, one_hot, over_outputs
from .logits import ClassLogits


def focal(m, gamma):
    """f(m) and f'(m), stable for all m: q^γ is e^(−γ log(1 + eᵐ)), which is 0 long before m is 10³⁰."""
    xp, s, p = namespace(m), softplus(-m), logistic(m)
    factor = xp.exp(-gamma * softplus(xp.where(m > 1e30, 1e30, m))) if gamma else 1.0
    return factor * s, -factor * (logistic(-m) + gamma * p * xp.where(p == 0, 0, s))


@dataclass(frozen=True)
class Focal(ClassLogits):
    """ℓ = −α_y (1 − p_y)^γ log p_y        p = softmax z        δ_y = α_y f'(m)
    δ_c = −α_y f'(m) p_c / (1 − p_y) for c ≠ y        f' = −(1 − p_y)^γ (1 − p_y − γ p_y log p_y)        range [0, ∞)

    On logits z (N, C), with integer labels y (N,): the cross-entropy, times a factor that is small where the true class
    is predicted already, so that many easy examples do not outweigh the few hard ones. With γ = 0 it is the
    cross-entropy. With positions, z (N, T, C) and y (N, T), the cost of an example is the sum over its positions. It is
    not convex, and its predictions are less extreme than the probabilities of the data.

    Args:
        gamma: γ ≥ 0. Default: 2.
        alpha: α, a weight for each class, a tuple of C numbers greater than 0. Default: None, all 1. Unlike weights of
            examples, as by `fnn.class_weights`, it also weights positions, and the mean is not divided by its sum.
        ignored: a label, such as −1, of positions (or examples) that have no cost and no error. Default: None.

    Source: T.-Y. Lin et al., "Focal loss for dense object detection" (2017), eq. 5, which is on one logit; see
    `BinaryFocal`.

    >>> import numpy as np
    >>> Focal(gamma=1.0).value(np.array([[0.0, 0.0]]), np.array([1]))  # ½ log 2
    array([0.34657359])
    """

    gamma: Annotated[float, Interval("[0, ∞)")] = field(default=2.0, kw_only=True)
    alpha: Annotated[tuple[float, ...] | None, Interval("(0, ∞)")] = field(default=None, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.alpha, tuple | None):
            raise KindError(f"alpha: expected a tuple of a number for each class, got {self.alpha}; one: BinaryFocal")

    def value(self, z, y):
        return self.value_and_delta(z, y)[0]

    def delta(self, z, y):
        return self.value_and_delta(z, y)[1]

    def value_and_delta(self, z, y):
        check_labels(self, z.shape, y)
        xp, (hot, nan) = namespace(z, y), one_hot(self, y, z)
        counts = hot.any(axis=-1, keepdims=True)
        z = bounded(xp.where(counts, z, 0))
        top = xp.where(hot, -xp.inf, z).max(axis=-1, keepdims=True)  # of the other classes
        e = xp.where(hot, 0, xp.exp(xp.where(hot, 0, z - top)))
        total = e.sum(axis=-1, keepdims=True)
        own = xp.where(hot, z, 0).sum(axis=-1, keepdims=True)
        value, slope = focal(own - top - xp.log(total), self.gamma)
        alpha = 1.0 if self.alpha is None else each_output("alpha", self.alpha, z)
        of_label = (cast(hot, z.dtype) * alpha).sum(axis=-1, keepdims=True)  # 0 where the label is ignored
        of_label = of_label if nan is None else of_label + nan
        return over_outputs(of_label * value), of_label * slope * (cast(hot, z.dtype) - e / total)

    def check(self, prediction_shape, target, values=True):
        check_labels(self, prediction_shape, target)
        super().check(prediction_shape, target, values)
        each_output("alpha", self.alpha, prediction_shape)


@dataclass(frozen=True)
class BinaryFocal(Loss):
    """ℓ = −Σ (α y (1 − p)^γ log p + (1 − α) (1 − y) p^γ log(1 − p))        p = σ(z)
    δ = α f'(z) for y = 1, −(1 − α) f'(−z) for y = 0        f'(m) = −(1 − σ)^γ (1 − σ − γ σ log σ), σ = σ(m)
    range [0, ∞)

    `Focal` for yes or no: on logits z, with targets y = 0 or 1 of the same shape. Several outputs are independent
    binary decisions, whose costs are summed. With γ = 0 and no α it is the cross-entropy. It is not convex.

    Args:
        gamma: γ ≥ 0. Default: 2.
        alpha: α in (0, 1), the weight of y = 1, where that of y = 0 is 1 − α. Default: None, both 1. The paper, where
            most of the objects are background, has 0.25 with γ = 2.

    Source: T.-Y. Lin et al., "Focal loss for dense object detection" (2017), eq. 5.

    >>> import numpy as np
    >>> BinaryFocal(alpha=0.25).value(np.array([[0.0]]), np.array([[1]]))  # ¼ (½)² log 2
    array([0.0433217])
    """

    takes: ClassVar[str] = "logits"
    targets: ClassVar[str] = "targets 0 or 1"

    gamma: Annotated[float, Interval("[0, ∞)")] = field(default=2.0, kw_only=True)
    alpha: Annotated[float | None, Interval("(0, 1)")] = field(default=None, kw_only=True)

    def value(self, z, y):
        return self.value_and_delta(z, y)[0]

    def delta(self, z, y):
        return self.value_and_delta(z, y)[1]

    def value_and_delta(self, z, y):
        y = entries(y, z)
        sign = 2 * y - 1
        value, slope = focal(sign * bounded(z), self.gamma)
        share = 1.0 if self.alpha is None else self.alpha * y + (1 - self.alpha) * (1 - y)
        return over_outputs(share * value), share * sign * slope

    def predict(self, z):
        """Probabilities, shaped as z."""
        return logistic(floating(z))

    def log_probabilities(self, z):
        return log_sigmoids(floating(z))

    def wrong(self, target, prediction_shape):
        return (target != 0) & (target != 1)

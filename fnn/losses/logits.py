"""Costs on the value z before the last function (softmax, sigmoid, exponential or sign), which is part of the cost.

Fused in this way they are stable and cheap, and δ has the form of the textbooks: prediction minus target.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from .. import random
from ..backend import cast, floating, namespace
from ..errors import KindError, usage
from ..numerics import exponentials, log_sigmoids, log_softmax, logistic, magnitude
from ..static import Interval
from .base import (
    Loss,
    check_classes,
    drawn_class,
    each_output,
    entries,
    is_ignored,
    no_class,
    no_probability,
    on_diagonal,
    one_hot,
    over_outputs,
)


@dataclass(frozen=True)
class ClassLogits(Loss):
    """What the costs of classes share: logits z (N, C) or (N, T, C), labels that may be ignored, p = softmax z."""

    takes: ClassVar[str] = "logits"

    ignored: int | None = field(default=None, kw_only=True)

    def predict(self, z):
        """Probabilities (N, C), or (N, T, C)."""
        _, e, total = exponentials(floating(z))
        return e / total

    def log_probabilities(self, z):
        return log_softmax(floating(z))

    def wrong(self, target, prediction_shape):
        return no_class(target, prediction_shape, self.ignored)

    def check(self, prediction_shape, target, values=True):
        check_classes(self, prediction_shape, target, values)


@usage(
    "fnn.SoftmaxCrossEntropy(), with ignored=-1 if labels −1 have no cost; weights of classes are data, "
    "(x, y, fnn.class_weights(y))"
)
@dataclass(frozen=True)
class SoftmaxCrossEntropy(ClassLogits):
    """ℓ = −Σ_c y_c log p_c = Σ_c y_c (log Σⱼ eᶻʲ − z_c)        δ = p Σ_c y_c − y        p = softmax z
    ∂²ℓ = (diag p − p pᵀ) Σ_c y_c        S = (diag √p − p √pᵀ) √(Σ_c y_c)        range [0, ∞)

    On logits z (N, C). The target y is integer labels (N,) or probabilities (N, C); a label stands for its one-hot row.
    With positions, z (N, T, C) and y (N, T), the cost of an example is the sum over its positions. It is a likelihood
    of labels, drawn with the probabilities p.

    Args:
        label_smoothing: s in [0, 1); y is replaced by (1 − s) y + s/C. Default: 0.
        ignored: a label, such as −1, of positions (or examples) that have no cost and no error. Default: None.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eqs. 4.108 and 4.109; smoothing: C. Szegedy
    et al., "Rethinking the Inception architecture" (2016), §7.

    >>> import numpy as np
    >>> SoftmaxCrossEntropy().value(np.array([[0.0, 0.0]]), np.array([1]))
    array([0.69314718])
    """

    targets: ClassVar[str] = "probabilities from 0 to 1"

    label_smoothing: Annotated[float, Interval("[0, 1)")] = field(default=0.0, kw_only=True)

    def value(self, z, y):
        return self.value_and_delta(z, y)[0]

    def delta(self, z, y):
        return self.value_and_delta(z, y)[1]

    def value_and_delta(self, z, y):
        xp, s, labels, counts = namespace(z, y), self.label_smoothing, y.ndim < z.ndim, None
        if labels and self.ignored is not None:
            counts = ~is_ignored(y, self.ignored)[..., None]
            z = xp.where(counts, z, 0)
        z, e, total = exponentials(z)
        nan = None
        if labels:
            y, nan = one_hot(self, y, z)
            total = total if nan is None else total + nan
            if s == 0 and counts is None:
                of_label = z[y].reshape(y.shape[:-1]) if xp is np else xp.where(y, z, 0).sum(axis=-1)  # where is slower
                return over_outputs(xp.log(total[..., 0]) - of_label), e / total - cast(y, z.dtype)
        y = entries(y, z) if nan is None else entries(y, z) + nan
        y = (1 - s) * y + s / z.shape[-1] if s else y
        y = y if counts is None else xp.where(counts, y, 0)
        value = over_outputs((y * xp.where(y == 0, 0, xp.log(total) - z)).sum(axis=-1))  # 0 · log 0 is 0
        return value, y.sum(axis=-1, keepdims=True) * (e / total) - y

    def root(self, z, y):
        xp, labels = namespace(z, y), y.ndim < z.ndim
        counts = ~is_ignored(y, self.ignored) if labels and self.ignored is not None else True
        z = z if counts is True else xp.where(counts[..., None], z, 0)
        hot, nan = one_hot(self, y, z) if labels else (entries(y, z), None)
        mass = cast(hot, z.dtype).sum(axis=-1)[..., None, None] + (0 if nan is None else nan[..., None])
        p = self.predict(z)
        return xp.sqrt(mass) * (on_diagonal(xp.sqrt(p)) - p[..., :, None] * xp.sqrt(p)[..., None, :])

    def sample(self, key, z, y=None):
        not_smoothed(self)
        return drawn_class(self, key, self.predict(z), y)

    def fisher_target(self, z, y):
        not_smoothed(self)
        return y


@usage("fnn.SigmoidBinaryCrossEntropy()")
@dataclass(frozen=True)
class SigmoidBinaryCrossEntropy(Loss):
    """ℓ = −Σ (w y log p + (1 − y) log(1 − p))        δ = (1 − y) p − w y (1 − p)        p = σ(z)
    ∂²ℓ = diag (1 − y + w y) p (1 − p)        range [0, ∞)

    On logits z. The target y is 0 or 1, or probabilities, of the same shape as z. Several outputs are independent
    binary decisions, whose costs are summed. With w = 1, δ = p − y, and it is a likelihood of y = 1 with probability p.

    Args:
        label_smoothing: s in [0, 1); y is replaced by (1 − s) y + s/2. Default: 0.
        pos_weight: w > 0, how much y = 1 counts more than y = 0, or a tuple of one for each output. The number of
            examples with y = 0 over that with y = 1 gives both the same weight in total; probabilities that are
            predicted are then those of such a mixture. Default: 1.

    Source: C. Bishop, "Pattern recognition and machine learning" (2006), eqs. 4.90 and 4.91.

    >>> import numpy as np
    >>> SigmoidBinaryCrossEntropy().delta(np.array([[0.0]]), np.array([[1]]))
    array([[-0.5]])
    """

    takes: ClassVar[str] = "logits"
    targets: ClassVar[str] = "probabilities from 0 to 1"

    label_smoothing: Annotated[float, Interval("[0, 1)")] = field(default=0.0, kw_only=True)
    pos_weight: Annotated[float | tuple[float, ...], Interval("(0, ∞)")] = field(default=1.0, kw_only=True)

    def value(self, z, y):
        xp, (y, positive, both) = namespace(z, y), self._weighted(z, y)
        wrong = xp.where(z >= 0, 1 - y, -positive)  # log(1 + eᶻ) − z y without a difference of large numbers
        return over_outputs(both * xp.log1p(xp.exp(-magnitude(z))) + xp.where(wrong == 0, 0, z) * wrong)

    def delta(self, z, y):
        _, positive, both = self._weighted(z, y)
        return both * logistic(z) - positive

    def root(self, z, y):
        xp, both = namespace(z, y), self._weighted(z, y)[2]
        return on_diagonal(xp.sqrt(both * logistic(z) * logistic(-z)))

    def sample(self, key, z, y=None):
        self._is_likelihood()
        return cast(random.uniform(key, z.shape, z.dtype) < logistic(z), z.dtype)

    def fisher_target(self, z, y):
        self._is_likelihood()
        return y

    def predict(self, z):
        """Probabilities, shaped as z."""
        return logistic(floating(z))

    def log_probabilities(self, z):
        return log_sigmoids(floating(z))

    def wrong(self, target, prediction_shape):
        return no_probability(target)

    def check(self, prediction_shape, target, values=True):
        super().check(prediction_shape, target, values)
        each_output("pos_weight", self.pos_weight, prediction_shape)

    def _weighted(self, z, y):
        """y, smoothed, w y, and 1 − y + w y."""
        y, s = entries(y, z), self.label_smoothing
        y = (1 - s) * y + s / 2 if s else y
        if self.pos_weight == 1:
            return y, y, 1.0
        w = each_output("pos_weight", self.pos_weight, z)
        return y, w * y, 1 - y + w * y

    def _is_likelihood(self):
        not_smoothed(self)
        if self.pos_weight != 1:
            raise KindError(f"{self}: expected pos_weight=1, as with it the cost is not minus a log-likelihood")


@dataclass(frozen=True)
class PoissonNll(Loss):
    """ℓ = Σ (eᶻ − y z)        δ = eᶻ − y        ∂²ℓ = diag eᶻ        range (−∞, ∞)

    The negative log-likelihood, without its constant log y!, of counts y ≥ 0 that are Poisson distributed with the rate
    eᶻ: z is the logarithm of the rate.

    Source: P. McCullagh, J. Nelder, "Generalized linear models" (1989).

    >>> import numpy as np
    >>> PoissonNll().value(np.array([[0.0, 1.0]]), np.array([[2, 1]]))
    array([2.71828183])
    """

    takes: ClassVar[str] = "logits"
    targets: ClassVar[str] = "counts of at least 0"

    def value(self, z, y):
        xp, y = namespace(z, y), entries(y, z)
        return over_outputs(xp.exp(z) - xp.where(y == 0, 0, z) * y)

    def delta(self, z, y):
        return namespace(z, y).exp(z) - entries(y, z)

    def root(self, z, y):
        return on_diagonal(namespace(z).exp(0.5 * z))

    def sample(self, key, z, y=None):
        return cast(random.poisson(key, namespace(z).exp(z)), z.dtype)

    def fisher_target(self, z, y):
        return y

    def predict(self, z):
        """Rates, shaped as z."""
        return namespace(z).exp(floating(z))

    def wrong(self, target, prediction_shape):
        return target < 0


def not_smoothed(loss):
    """Raise if targets are smoothed, with which the probabilities of the cost do not sum to 1 over the targets."""
    if loss.label_smoothing:
        raise KindError(f"{loss}: expected label_smoothing=0, as with it the cost is not minus a log-likelihood")


@dataclass(frozen=True)
class _Margin(Loss):
    """Base of costs of y z, for targets y = ±1 and predictions that are the sign of z. Where they bend, ∂²ℓ = 0."""

    takes: ClassVar[str] = "logits"
    targets: ClassVar[str] = "targets −1 or 1 (for targets 0 and 1, use 2 * y - 1)"

    def predict(self, z):
        """−1 or 1, the sign of z, with 1 at 0, as for `Sign`."""
        return namespace(z).where(z >= 0, 1, -1).astype(z.dtype)

    def root(self, z, y):
        return on_diagonal(0 * z)[..., :1]

    def wrong(self, target, prediction_shape):
        return abs(abs(target) - 1) > 0


@dataclass(frozen=True)
class Hinge(_Margin):
    """ℓ = Σ max(0, 1 − y z)        δ = −y [y z < 1]        range [0, ∞)

    Targets y are ±1, z is the value before the sign. The derivative at y z = 1 is 0.

    Source: C. Cortes, V. Vapnik, "Support-vector networks" (1995).

    >>> import numpy as np
    >>> Hinge().value(np.array([[0.25]]), np.array([[1]]))
    array([0.75])
    """

    def value(self, z, y):
        margin = z * entries(y, z)
        return over_outputs(namespace(z, y).where(margin >= 1, 0, 1 - margin))

    def delta(self, z, y):
        xp, y = namespace(z, y), entries(y, z)
        return xp.where(z * y >= 1, 0, xp.where(z * y < 1, -y, z * y))  # NaN stays NaN


@dataclass(frozen=True)
class Perceptron(_Margin):
    """ℓ = Σ max(0, −y z)        δ = −y [y z ≤ 0]        range [0, ∞)

    Targets y are ±1, z is the value before the sign. The derivative at y z = 0 is −y, so that weights of zero can
    learn. Gradient descent on it, one example at a time, is the perceptron rule w ← w + η y x.

    Source: F. Rosenblatt, "The perceptron" (1958); as a cost: C. Bishop (2006), eq. 4.54.

    >>> import numpy as np
    >>> Perceptron().delta(np.array([[0.0]]), np.array([[1]]))
    array([[-1.]])
    """

    def value(self, z, y):
        margin = z * entries(y, z)
        return over_outputs(namespace(z, y).where(margin > 0, 0, -margin))

    def delta(self, z, y):
        xp, y = namespace(z, y), entries(y, z)
        return xp.where(z * y > 0, 0, xp.where(z * y <= 0, -y, z * y))  # NaN stays NaN

"""Calibration: whether predicted probabilities are the frequencies with which the predictions are right.

The confidence of a prediction is its largest probability. Examples (or positions) are put into B bins of equal width by
their confidence, ((b − 1) / B, b / B], and in each the mean confidence is compared with the accuracy. As for all
metrics (`fnn.metrics`), the arguments are (prediction, target, ...), and all of it works in compiled code.
Probabilities are `loss.predict` of a network's output, which is what `fit` and `evaluate` give to metrics.

Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks" (2017), §2.
"""

from typing import Any, NamedTuple

import numpy as np

from .backend import cast, is_floating, namespace
from .devices import on_any_axes
from .errors import KindError, integer
from .metrics import classes_of, demand, mean_of


class Reliability(NamedTuple):
    """What a reliability diagram shows: for each of B bins of confidence, (B,).

    share         the share of the examples, by weight; they sum to 1
    confidence    the mean of the largest probability; NaN in an empty bin
    accuracy      the share of the bin's examples that are classified correctly; NaN in an empty bin
    """

    share: Any
    confidence: Any
    accuracy: Any


@on_any_axes
def reliability(
    prediction: Any, target: Any, bins: int = 15, weights: Any = None, ignored: int | None = None
) -> Reliability:
    """Compare confidence with accuracy in bins of confidence, for `fnn.plots.reliability`.

    Args:
        prediction: probabilities (N, C) or (N, T, C) that sum to 1; or, for two classes, the probability of class 1,
            (N,) or (N, 1), beside targets 0 and 1.
        target: as for `accuracy`.
        bins: B, of equal width. Default: 15.
        weights: (N,), as for `accuracy`. Default: None.
        ignored: as for `accuracy`. Default: None.

    Returns:
        A `Reliability`.

    Raises:
        FnnError: as for `accuracy`, and if the prediction is not probabilities.

    >>> found = reliability(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, 1]), bins=2)
    >>> found.confidence.round(3).tolist(), found.accuracy.round(3).tolist()
    ([nan, 0.767], [nan, 0.667])
    """
    bins = integer("bins", bins, least=1)
    p, of, sound = _probabilities(prediction, target, weights, ignored)
    xp, confidence = namespace(p), p.max(axis=1)
    share = xp.ones(len(p), p.dtype) if of.shares is None else cast(of.shares, p.dtype)
    share = share / share.sum()
    place = xp.clip(xp.ceil(confidence * bins) - 1, 0, bins - 1)  # NaN is in no bin, which the shares show
    among = (place[:, None] == xp.arange(bins)) * share[:, None]
    total = among.sum(axis=0)
    mean = lambda v: xp.where(total > 0, (among * v[:, None]).sum(axis=0) / xp.where(total > 0, total, 1), np.nan)
    used = xp.where(share > 0, confidence, 0)
    found = total, mean(used), mean(cast(of.predicted == of.actual, p.dtype))
    return Reliability(*(found if sound is True else (xp.where(sound, v, np.nan) for v in found)))


@on_any_axes
def expected_calibration_error(
    prediction: Any, target: Any, bins: int = 15, weights: Any = None, ignored: int | None = None
) -> Any:
    """The expected calibration error, ECE: how far confidence is from accuracy, averaged over the bins.

        ECE = Σ_b share_b |accuracy_b − confidence_b|

    It is 0 for a prediction that is right as often as it claims, and says nothing of how often that is. It is biased
    upwards for few examples in a bin.

    Args:
        prediction: as for `reliability`; so are the others.
        target: as for `accuracy`.
        bins: B. Default: 15.
        weights: (N,). Default: None.
        ignored: a label. Default: None.

    Returns:
        A number from 0 to 1; NaN if a prediction is.

    Raises:
        FnnError: as for `reliability`.

    Source: M. Naeini, G. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning"
    (2015).

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    >>> float(expected_calibration_error(p, np.array([0, 1, 1]), bins=2).round(3))
    0.1
    """
    share, confidence, accuracy = reliability(prediction, target, bins, weights, ignored)
    xp = namespace(share)
    error = xp.where(share > 0, share * abs(accuracy - confidence), 0).sum()
    return xp.where(abs(share.sum() - 1) < 1e-3, error, np.nan)[()]


@on_any_axes
def negative_log_likelihood(prediction: Any, target: Any, weights: Any = None, ignored: int | None = None) -> Any:
    """The negative log-likelihood of the true classes, in nats: the mean of −log p_y.

    It is the least if the probabilities are the true ones, and punishes a wrong certainty without limit. For the cost
    on logits it is `SoftmaxCrossEntropy`; here it is of any probabilities, such as averages.

    Args:
        prediction: as for `reliability`; so are the others.
        target: as for `accuracy`.
        weights: (N,). Default: None.
        ignored: a label. Default: None.

    Returns:
        A number; infinite if the probability of a true class is 0.

    Raises:
        FnnError: as for `reliability`.

    >>> float(negative_log_likelihood(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 1])).round(3))
    0.458
    """
    p, of, sound = _probabilities(prediction, target, weights, ignored)
    xp = namespace(p)
    own = xp.maximum(xp.take_along_axis(p, of.actual.astype(np.int32)[:, None], axis=1)[:, 0], 0)
    value = xp.where(own == 0, np.inf, -xp.log(xp.where(own == 0, 1, own)))
    value = value if of.shares is None else xp.where(of.shares == 0, 0, value)
    return cast(mean_of(value, of.shares, sound), p.dtype)


def _probabilities(prediction, target, weights, ignored):
    """Probabilities (M, C), what they mean (`metrics.Classes`), and whether all is sound."""
    of = classes_of(prediction, target, weights, ignored)
    p, sound = of.prediction, of.sound
    if not is_floating(p.dtype):
        raise KindError(f"prediction: expected probabilities, got dtype {p.dtype}")
    xp = namespace(p, of.actual)
    if p.size == len(p):
        y = xp.asarray(target).reshape(-1)
        sound = demand(sound, "target", y, (y == 0) | (y == 1), "0 and 1 beside one probability", of.shares)
        p = p.reshape(-1, 1)
        p = xp.concatenate([1 - p, p], axis=1)
    valid = ((p >= -1e-6).all(axis=1) & (abs(p.sum(axis=1) - 1) <= 1e-2)) | (p != p).any(axis=1)
    what = "probabilities that sum to 1 (of logits give loss.predict(logits))"
    return p, of, demand(sound, "prediction", p, valid, what, of.shares)

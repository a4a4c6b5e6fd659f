"""Metrics: what people ask of a trained network, as pure functions that also work in compiled code."""

from .backend import namespace
from .errors import ShapeError


def accuracy(prediction, target, weights=None):
    """The fraction of examples that are classified correctly, a number from 0 to 1.

    `prediction` is (N, C) with the largest entry at the predicted class (logits or probabilities), or (N, 1) or (N,)
    with the probability of class 1. `target` is integer labels (N,), a row for each example with the largest entry
    at its class (N, C), or 0 and 1 shaped as the prediction. `weights` (N,) count examples unequally.

    >>> import numpy as np
    >>> float(accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    """
    xp = namespace(prediction, target)
    prediction, target = xp.asarray(prediction), xp.asarray(target)
    if prediction.shape[:1] != target.shape[:1] or (target.ndim > 1 and target.shape != prediction.shape):
        raise ShapeError(
            f"target: expected labels (N,) or {prediction.shape}, got {target.shape} for {prediction.shape}"
        )
    if prediction.ndim == 1 or prediction.shape[1] == 1:
        found, wanted = prediction.reshape(-1) > 0.5, target.reshape(-1) > 0.5
    else:
        found, wanted = prediction.argmax(axis=1), target if target.ndim == 1 else target.argmax(axis=1)
    right = found == wanted
    return right.mean() if weights is None else (weights * right).sum() / weights.sum()

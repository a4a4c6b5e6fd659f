"""Metrics of a trained network, as pure functions that also work in compiled code.

Each is a function of (prediction, target) or (prediction, target, weights), with N examples along the first axis. This
is the order of `fnn.fit`, and the reverse of scikit-learn's, whose metrics can all be used as well:

    fnn.fit(..., validation=(x, y), metrics={"auc": lambda p, y: roc_auc_score(y, p[:, 1])})    p (N, C): probabilities
    classification_report(y, loss.predict(net.apply(params, x)).argmax(axis=1))                 after training
"""

import math
from typing import Any

import numpy as np

from .backend import at_least_float32, cast, floating, namespace
from .errors import ArgumentError, ShapeError, integer, same_shape


def accuracy(prediction: Any, target: Any, weights: Any = None) -> Any:
    """The fraction of examples that are classified correctly.

    Args:
        prediction: (N, C), with the largest entry at the predicted class (logits or probabilities); or (N, 1) or (N,),
            the probability of class 1.
        target: integer labels (N,); or (N, C), with the largest entry at the true class; or 0 and 1, shaped as the
            prediction.
        weights: (N,), the weights of the examples. Default: None, equal weights.

    Returns:
        A number from 0 to 1.

    >>> float(accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    """
    predicted, actual, _ = _classes(prediction, target)
    return _mean(predicted == actual, weights)


def top_k_accuracy(prediction: Any, target: Any, k: int = 5, weights: Any = None) -> Any:
    """The fraction of examples whose true class is among the k highest-ranked predictions.

    Ties are broken in favour of the lower class, so that k = 1 is `accuracy`; scikit-learn's `top_k_accuracy_score`
    breaks them in favour of the higher one.

    Args:
        prediction: (N, C), logits or probabilities.
        target: as for `accuracy`.
        k: how many classes count, from 1 to C. Default: 5.
        weights: (N,), as for `accuracy`. Default: None.

    Returns:
        A number from 0 to 1.

    >>> float(top_k_accuracy(np.array([[0.1, 0.6, 0.3], [0.6, 0.3, 0.1]]), np.array([2, 2]), k=2))
    0.5
    """
    _, actual, classes = _classes(prediction, target)
    xp = namespace(prediction, actual)
    prediction = xp.asarray(prediction)
    if prediction.shape[1:] != (classes,):
        raise ShapeError(f"prediction: expected (N, C), got {prediction.shape}")
    if integer("k", k, least=1) > classes:
        raise ArgumentError(f"k: expected at most the number of classes, {classes}, got {k}")
    label, actual = xp.arange(classes), actual[:, None]
    own = xp.where(label == actual, prediction, -math.inf).max(axis=1, keepdims=True)
    # The classes ranked behind are counted, so that NaN, which every comparison fails, is never a success.
    behind = (prediction < own) | ((prediction == own) & (label >= actual))
    return _mean((~behind).sum(axis=1) < k, weights)


def confusion_matrix(prediction: Any, target: Any, classes: Any = None, weights: Any = None) -> Any:
    """Count the examples of each true class (row) by the class predicted for them (column).

    For the matrix m, `m.diagonal() / m.sum(axis=1)` is the recall of each class; with `axis=0` it is the precision.

    Args:
        prediction: as for `accuracy`; or labels (N,), with `classes`.
        target: as for `accuracy`; or labels (N,), with `classes`.
        classes: C, if prediction and target are labels. Default: the width of the prediction, or 2 if that is (N, 1) or
            (N,).
        weights: (N,), as for `accuracy`. Default: None.

    Returns:
        The matrix (C, C), laid out as in scikit-learn. Examples with a label out of range are left out.

    >>> confusion_matrix(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1, 1]))
    array([[0, 0],
           [1, 2]])
    """
    if classes is None:
        predicted, actual, classes = _classes(prediction, target)
    else:
        xp, classes = namespace(prediction, target), integer("classes", classes, least=1)
        predicted, actual = xp.asarray(prediction), xp.asarray(target)
        same_shape("prediction", predicted, (predicted.size,))
        same_shape("target", actual, predicted.shape)
    xp = namespace(predicted, actual, weights)
    predicted, actual = predicted.astype(np.int32), actual.astype(np.int32)
    known = (predicted >= 0) & (predicted < classes) & (actual >= 0) & (actual < classes)
    cell = xp.where(known, actual * classes + predicted, classes**2)
    if weights is not None:
        weights = xp.asarray(weights)
        same_shape("weights", weights, cell.shape)
    # The last cell holds the examples out of range. JAX needs a static `length`; NumPy's `minlength` is enough.
    size = {"minlength" if xp is np else "length": classes**2 + 1}
    counts = xp.bincount(cell, weights, **size)[:-1].reshape(classes, classes)
    return counts if weights is None else cast(counts, weights.dtype)


def r2_score(prediction: Any, target: Any, weights: Any = None) -> Any:
    """R², the fraction of the target's variance that the prediction explains: 1 is perfect, 0 is as good as the mean.

        R² = 1 − Σ w (y − a)² / Σ w (y − ȳ)²        ȳ = Σ w y / Σ w

    As in scikit-learn, an output with a constant target scores 1 if it is predicted exactly, and 0 otherwise.

    Args:
        prediction: a (N, ...).
        target: y, shaped as the prediction.
        weights: w (N,). Default: None, equal weights.

    Returns:
        R²; for several outputs, the unweighted average of theirs.

    >>> float(r2_score(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])))
    0.5
    """
    error, target, weights = _errors(prediction, target, weights)
    xp = namespace(error)
    # Minus one of its own values a constant target is exactly 0, however its mean is rounded; and no digits cancel.
    centred = target - target[weights[:, 0].argmax()]
    centred = centred - (weights * centred).sum(axis=0) / weights.sum()
    left, spread = ((weights * r * r).sum(axis=0) for r in (error, centred))
    constant = spread == 0
    return xp.where(constant, cast(left == 0, left.dtype), 1 - left / xp.where(constant, 1, spread)).mean()


def mean_absolute_error(prediction: Any, target: Any, weights: Any = None) -> Any:
    """The mean of |y − a| over examples and outputs, in the unit of the target.

    Args:
        prediction: a (N, ...).
        target: y, shaped as the prediction.
        weights: w (N,). Default: None, equal weights.

    Returns:
        The mean, a number.

    >>> float(mean_absolute_error(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.5])))
    0.16666666666666666
    """
    error, _, weights = _errors(prediction, target, weights)
    return _mean(abs(error).mean(axis=1), weights[:, 0])


def _classes(prediction, target):
    """The predicted and the true classes, each (N,), and the number of classes."""
    xp = namespace(prediction, target)
    prediction, target = xp.asarray(prediction), xp.asarray(target)
    if prediction.shape[:1] != target.shape[:1] or (target.ndim > 1 and target.shape != prediction.shape):
        raise ShapeError(
            f"target: expected labels (N,) or {prediction.shape}, got {target.shape} for {prediction.shape}"
        )
    if prediction.ndim == 1 or prediction.shape[1] == 1:
        return prediction.reshape(-1) > 0.5, target.reshape(-1) > 0.5, 2
    return prediction.argmax(axis=1), target if target.ndim == 1 else target.argmax(axis=1), prediction.shape[1]


def _errors(prediction, target, weights):
    """y − a and y, (N, K), in float32 or wider, and weights (N, 1); rows of weight 0 are set to 0."""
    xp = namespace(prediction, target, weights)
    prediction, target = floating(xp.asarray(prediction)), xp.asarray(target)
    same_shape("target", target, prediction.shape)
    dtype = at_least_float32(xp.result_type(prediction, floating(target, prediction.dtype)))
    prediction, target = (cast(array, dtype).reshape(len(array), -1) for array in (prediction, target))
    if weights is None:
        return target - prediction, target, xp.ones((len(target), 1), dtype)
    weights = cast(xp.asarray(weights), dtype)
    same_shape("weights", weights, target.shape[:1])
    weights = weights[:, None]
    return xp.where(weights > 0, target - prediction, 0), xp.where(weights > 0, target, 0), weights


def _mean(values, weights):
    """The weighted mean over the examples."""
    if weights is None:
        return values.mean()
    weights = namespace(values, weights).asarray(weights)
    same_shape("weights", weights, values.shape)
    return (weights * values).sum() / weights.sum()

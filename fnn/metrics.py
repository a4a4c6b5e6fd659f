"""Metrics of a trained network, as pure functions that also work in compiled code.

Each is a function of (prediction, target) or (prediction, target, weights), with N examples along the first axis. This
is the order of `fnn.fit`, and the reverse of scikit-learn's, whose metrics can be used as well, by name (`scoring`):

    fnn.fit(..., validation=(x, y), metrics=("roc_auc", "f1_macro"))
    classification_report(y, loss.predict(net.apply(params, x)).argmax(axis=1))                 after training

What a prediction means is decided by its shape and dtype, and by the targets:

    (N, C)                                  scores: the class is the place of the largest entry, the first of equal ones
    (N,) or (N, 1), integers or bool        labels
    (N,) or (N, 1), targets 0 and 1         the probability of class 1, which is chosen above 0.5
    (N,) or (N, 1), targets −1 and 1        a value whose sign is chosen, 1 at 0
    (N, T, C), (N, H, W, C), ...            any of these at each position, which counts as an example, with its weight

A label that a cost ignores does not count: `fit` and `evaluate` pass the cost's `ignored` to every metric that has an
argument of this name, None by default. Anything else is refused: logits of one output beside targets 0 and 1, labels
out of range, rows of several labels, no example at all. In compiled code, where values are unknown, the result is then
NaN (−1 where counts are integers). A prediction that contains NaN is never correct. Weights are at least 0, only their
ratios matter, and nothing that an example of weight 0 holds matters.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .backend import at_least_float32, at_least_int32, cast, is_floating, is_traced, namespace
from .checks import as_array, finite
from .devices import on_any_axes
from .errors import ArgumentError, DataError, KindError, ShapeError, integer, same_shape
from .losses.base import check_all, is_ignored


@on_any_axes
def accuracy(prediction: Any, target: Any, weights: Any = None, ignored: int | None = None) -> Any:
    """The fraction of examples, or positions, that are classified correctly.

    Args:
        prediction: scores (N, C), such as logits or probabilities; or, (N,) or (N, 1), labels of integer dtype,
            probabilities of class 1, or values whose sign is the class; or scores (N, T, C) at each position.
        target: labels (N,), or (N, T); or rows (N, C), each with one largest entry, at the true class; or, for one
            output, 0 and 1 or −1 and 1. Rows of several labels or of none are refused; `(p > 0.5) == y` compares them.
        weights: (N,), the weights of the examples, at least 0. Default: None, equal weights.
        ignored: a label, such as −1, of examples or positions that do not count. Default: None.

    Returns:
        A number from 0 to 1.

    Raises:
        FnnError: if it is not certain what prediction and target mean, as listed at the top of `fnn.metrics`.

    >>> float(accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    >>> float(accuracy(np.array([[[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]]]), np.array([[1, 1, -1]]), ignored=-1))
    0.5
    """
    of = classes_of(prediction, target, weights, ignored)
    return mean_of(of.predicted == of.actual, of.shares, of.sound)


@on_any_axes
def top_k_accuracy(prediction: Any, target: Any, k: int = 5, weights: Any = None, ignored: int | None = None) -> Any:
    """The fraction of examples, or positions, whose true class is among the k highest-ranked predictions.

    Ties are broken in favour of the lower class, so that k = 1 is `accuracy`; scikit-learn's `top_k_accuracy_score`
    breaks them in favour of the higher one.

    Args:
        prediction: (N, C) or (N, T, C), logits or probabilities.
        target: as for `accuracy`.
        k: how many classes count, from 1 to C. Default: 5.
        weights: (N,), as for `accuracy`. Default: None.
        ignored: as for `accuracy`. Default: None.

    Returns:
        A number from 0 to 1.

    Raises:
        FnnError: as for `accuracy`.

    >>> float(top_k_accuracy(np.array([[0.1, 0.6, 0.3], [0.6, 0.3, 0.1]]), np.array([2, 2]), k=2))
    0.5
    """
    of = classes_of(prediction, target, weights, ignored)
    scores, xp = of.prediction, namespace(of.prediction, of.actual)
    if scores.shape[1:] != (of.classes,):
        raise ShapeError(f"prediction: expected (N, C) or (N, T, C), got {np.shape(prediction)}")
    if integer("k", k, least=1) > of.classes:
        raise ArgumentError(f"k: expected at most the number of classes, {of.classes}, got {k}")
    label, actual = xp.arange(of.classes)[None], of.actual[:, None]
    own = xp.take_along_axis(scores, xp.clip(actual, 0, of.classes - 1), axis=1)
    # The classes ranked behind are counted, so that NaN, which every comparison fails, is never a success.
    behind = (scores < own) | ((scores == own) & (label >= actual))
    return mean_of(((~behind).sum(axis=1) < k) & (of.predicted >= 0), of.shares, of.sound)


@on_any_axes
def confusion_matrix(
    prediction: Any, target: Any, classes: Any = None, weights: Any = None, ignored: int | None = None
) -> Any:
    """Count the examples, or positions, of each true class (row) by the class predicted for them (column).

    For the matrix m, `m.diagonal() / m.sum(axis=1)` is the recall of each class; with `axis=0` it is the precision.

    Args:
        prediction: as for `accuracy`.
        target: as for `accuracy`.
        classes: C, if the prediction is labels; in compiled code it must be given. Default: the largest label plus 1.
        weights: (N,), as for `accuracy`. Default: None.
        ignored: as for `accuracy`. Default: None.

    Returns:
        The matrix (C, C), laid out as in scikit-learn; 2 × 2 for one output, with 0 or −1 before 1.

    Raises:
        FnnError: as for `accuracy`; and if a prediction contains NaN, so that no class is predicted.

    >>> confusion_matrix(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1, 1]))
    array([[0, 0],
           [1, 2]])
    """
    of = classes_of(prediction, target, weights, ignored)
    predicted, actual, width, weights, sound = of.predicted, of.actual, of.classes, of.weights, of.sound
    xp = namespace(predicted, actual, weights)
    if classes is None and width is None:
        largest = xp.maximum(xp.maximum(predicted.max(), actual.max()), 0)
        if is_traced(largest):
            raise ArgumentError("classes: expected the number of classes beside labels in compiled code")
        classes = int(largest) + 1
    classes = width if classes is None else integer("classes", classes, least=1)
    if width not in (None, classes):
        raise ArgumentError(f"classes: expected {width}, the classes that the prediction has, got {classes}")
    if classes > 46340:
        raise ArgumentError(f"classes: expected at most 46,340, whose pairs int32 can number, got {classes}")
    cell = 0
    for name, label in (("target", actual), ("prediction", predicted)):  # rows, then columns
        known = (label >= 0) & (label < classes)
        what = f"labels from 0 to {classes - 1} (−1 is a row without a class, such as NaN)"
        sound = demand(sound, name, label, known, what, of.shares)
        cell = cell * classes + xp.where(known, label, 0).astype(np.int32)
    if weights is not None:
        weights = cast(weights, at_least_float32(weights.dtype)) if is_floating(weights.dtype) else weights.astype(int)
    # JAX needs a static `length`; NumPy's `minlength` is enough.
    counts = xp.bincount(cell, weights, **{"minlength" if xp is np else "length": classes**2}).reshape(classes, classes)
    counts = counts if weights is None else cast(counts, weights.dtype)
    return counts if sound is True else xp.where(sound, counts, np.nan if is_floating(counts.dtype) else -1)


@on_any_axes
def r2_score(prediction: Any, target: Any, weights: Any = None) -> Any:
    """R², the fraction of the target's variance that the prediction explains: 1 is perfect, 0 is as good as the mean.

        R² = 1 − Σ w (y − a)² / Σ w (y − ȳ)²        ȳ = Σ w y / Σ w

    As in scikit-learn, an output with a constant target scores 1 if it is predicted exactly, and 0 otherwise.

    Args:
        prediction: a (N, ...), at least two examples.
        target: y, shaped as the prediction, finite.
        weights: w (N,), at least 0. Default: None, equal weights.

    Returns:
        R²; for several outputs, the unweighted average of theirs. NaN if a prediction is.

    Raises:
        FnnError: if shapes or values are not as described.

    >>> float(r2_score(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])))
    0.5
    """
    error, target, weights, sound, dtype = _errors(prediction, target, weights)
    xp = namespace(error)
    if len(error) < 2:
        raise ShapeError("target: expected at least two examples, since one has no variance, got 1")
    # Minus one of its own values a constant target is exactly 0, however its mean is rounded; and no digits cancel.
    centred = target - target[weights[:, 0].argmax()][None]
    centred = centred - ((weights * centred).sum(axis=0) / weights.sum())[None]
    unit = _unit(abs(centred).max(axis=0)[None])  # only quotients are squared, so that nothing over- or underflows
    left, spread = ((weights * r * r).sum(axis=0) for r in (error * unit, centred * unit))
    constant = spread == 0
    of_constant = xp.where(left > 0, 0, xp.where(left == 0, 1, left))  # NaN stays NaN
    score = xp.where(constant, of_constant, 1 - left / xp.where(constant, 1, spread)).mean()
    return cast(score if sound is True else xp.where(sound, score, np.nan), dtype)


@on_any_axes
def mean_absolute_error(prediction: Any, target: Any, weights: Any = None) -> Any:
    """The mean of |y − a| over examples and outputs, in the unit of the target.

    Args:
        prediction: a (N, ...).
        target: y, shaped as the prediction, finite.
        weights: w (N,), at least 0. Default: None, equal weights.

    Returns:
        The mean, a number. NaN if a prediction is.

    Raises:
        FnnError: if shapes or values are not as described.

    >>> float(mean_absolute_error(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.5])))
    0.16666666666666666
    """
    error, _, weights, sound, dtype = _errors(prediction, target, weights)
    return cast(mean_of(abs(error / error.shape[1]).sum(axis=1), weights[:, 0], sound), dtype)


# ---- what is shared --------------------------------------------------------------------------------------------------


def _entered(prediction, target, weights):
    """All three as arrays of one namespace: real numbers, in float32 or wider if floating, of at least one example.

    Weights are divided by the largest. With them comes whether they are sound, as for `demand`.
    """
    xp, sound = namespace(prediction, target, weights), True
    prediction, target = (_real(name, a, xp) for name, a in (("prediction", prediction), ("target", target)))
    if not prediction.size or not prediction.ndim:
        raise ShapeError(f"prediction: expected at least one example and one output, got shape {prediction.shape}")
    if weights is not None:
        weights = _real("weights", weights, xp)
        same_shape("weights", weights, prediction.shape[:1])
        weights = weights if is_floating(weights.dtype) else weights.astype(float)
        valid = (weights >= 0) & (weights < math.inf)
        sound = demand(sound, "weights", weights, valid, "finite numbers of at least 0")
        some = (weights > 0).any()  # traced in compiled code, even if the weights are known
        if not is_traced(some) and not bool(some):
            raise DataError("weights: expected at least one above 0")
        weights = weights * _unit(weights.max())  # then no sum overflows
    return xp, prediction, target, weights, sound


def _real(name, array, xp):
    """User data as an array of real numbers, in float32 or wider if floating."""
    array = as_array(name, array, xp)
    if array.dtype.kind == "c":
        raise KindError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return cast(array, at_least_float32(array.dtype)) if is_floating(array.dtype) else array


def demand(sound, name, array, valid, what, weights=None):
    """`sound` if all examples are valid that have a weight; raises if one is not, or returns a traced False."""
    if weights is not None:
        valid = valid | (weights == 0)
    if is_traced(valid):
        return sound & valid.all()
    check_all(name, array, valid, what)
    return sound


class Classes(NamedTuple):
    """What predictions mean: for M examples, or positions, the scores (M, C) or what was given, the class predicted, or
    −1 for none, and the true one, (M,); how many classes there are, None for labels; the weights (M,), as they were
    given and divided by the largest, or None; and whether all is sound: True, or traced."""

    prediction: Any
    predicted: Any
    actual: Any
    classes: Any
    weights: Any
    shares: Any
    sound: Any


def classes_of(prediction, target, weights, ignored) -> Classes:
    xp = namespace(prediction, target, weights)
    prediction, target = (as_array(name, a, xp) for name, a in (("prediction", prediction), ("target", target)))
    weights = None if weights is None else as_array("weights", weights, xp)
    places = prediction.shape[: max(1, prediction.ndim - 1)]
    if target.shape not in (places, prediction.shape):
        axes = ":" if len(places) == 1 else "..."
        hint = f"; use y[{axes}, 0] for labels" if target.shape == (*places, 1) else ""
        labels = f"({', '.join(('N', *map(str, places[1:])))}{',' * (len(places) == 1)})"
        raise ShapeError(
            f"target: expected labels {labels} or {prediction.shape}, got {target.shape} for {prediction.shape}{hint}"
        )
    if len(places) > 1:
        if weights is not None:
            same_shape("weights", weights, places[:1])
            weights = xp.broadcast_to(weights.reshape(-1, *(1,) * (len(places) - 1)), places).reshape(-1)
        prediction, target = (a.reshape(math.prod(places), *a.shape[len(places) :]) for a in (prediction, target))
    if ignored is not None:
        counts = ~is_ignored(target, ignored).reshape(len(target), -1).any(axis=1)
        if not is_traced(counts) and not counts.any():
            raise DataError(f"target: expected a label other than {ignored}, which is ignored")
        weights = counts if weights is None else weights * counts
    prediction, target = at_least_int32(prediction), at_least_int32(target)
    xp, prediction, target, shares, sound = _entered(prediction, target, weights)
    if prediction.size > len(prediction):
        predicted, actual, classes, demands = _of_scores(xp, prediction, target)
    else:
        used = xp.ones(len(prediction), bool) if shares is None else shares != 0
        of_column = _of_one_output if is_floating(prediction.dtype) else _of_labels
        predicted, actual, classes, demands = of_column(xp, prediction.reshape(-1), target.reshape(-1), used)
    for name, array, valid, what in demands:
        valid = valid if shares is None else valid | (shares == 0)
        sound = demand(sound, name, array.reshape(*places, *array.shape[1:]), valid.reshape(places), what)
    return Classes(prediction, predicted, actual, classes, weights, shares, sound)


def _of_scores(xp, prediction, target):
    """The classes of scores (N, C), and what is demanded of the target: name, array, where it is valid, what it is."""
    classes, chosen = prediction.shape[1], prediction.argmax(axis=1)
    best = xp.take_along_axis(prediction, chosen[:, None], axis=1)
    decided = (best == best)[:, 0]  # NaN is chosen where there is one
    if not is_floating(prediction.dtype):
        decided = decided & _alone(prediction, best)
    elif is_traced(best) or bool((abs(best) == 1).all()):
        decided = decided & (_alone(prediction, best) | (abs(prediction) != 1).any())
    predicted = xp.where(decided, chosen, -1)
    if target.ndim == 1:
        valid, what = _whole(xp, target) & (target >= 0) & (target < classes), f"labels from 0 to {classes - 1}"
        return predicted, xp.where(valid, target, 0).astype(np.int32), classes, [("target", target, valid, what)]
    valid = _alone(target, target.max(axis=1, keepdims=True))
    what = "one largest entry in each row, at its class (compare rows of several labels by (p > 0.5) == y)"
    return predicted, target.argmax(axis=1), classes, [("target", target, valid, what)]


def _alone(rows, best):
    """Where the best entry of a row is alone: of decisions that are made, such as signs, several or none may be 1."""
    return (rows == best).sum(axis=1) == 1


def _of_labels(xp, prediction, target, used):
    """The same of predicted labels (N,)."""
    if prediction.dtype == bool:
        valid, what = (target == 0) | (target == 1), "0 and 1, beside predictions that are true or false"
        return prediction.astype(np.int32), target, 2, [("target", target, valid, what)]
    valid, what = _whole(xp, target), "labels, beside predictions of integer dtype"
    return prediction, target, None, [("target", target, valid, what)]


def _of_one_output(xp, prediction, target, used):
    """The same of one output (N,), which is a probability or, beside targets −1 and 1, has a sign."""
    y, nan, signs = cast(target, prediction.dtype), prediction != prediction, abs(prediction) == 1
    signed = (~used | (abs(y) == 1)).all() & ((used & (y == -1)).any() | (~used | nan | signs).all())
    demands = [
        (
            "target",
            target,
            signed | ((y >= 0) & (y <= 1) & (y != 0.5)),
            "0 and 1 or −1 and 1 for one output (labels need predictions of integer dtype)",
        ),
        (
            "prediction",
            prediction,
            signed | nan | ((prediction >= -1e-6) & (prediction <= 1 + 1e-6)),
            "probabilities beside targets 0 and 1 (of logits give loss.predict(logits), or logits > 0)",
        ),
    ]
    predicted = xp.where(signed, prediction >= 0, prediction > 0.5).astype(np.int32)
    return xp.where(nan, -1, predicted), xp.where(signed, y > 0, y > 0.5).astype(np.int32), 2, demands


def _whole(xp, target):
    """Where the entries are integers."""
    return target == xp.floor(target) if is_floating(target.dtype) else xp.ones(target.shape, bool)


def _errors(prediction, target, weights):
    """y − a and y, (N, K), and weights (N, 1), in float32 or wider, on NumPy in float64; whether they are sound, and
    the dtype of the result. Rows of weight 0 are set to 0."""
    xp, prediction, target, weights, sound = _entered(prediction, target, weights)
    same_shape("target", target, prediction.shape)
    floats = [array.dtype for array in (prediction, target) if is_floating(array.dtype)]
    dtype = np.dtype(xp.result_type(*floats or [float]))
    wide = np.dtype(np.float64) if xp is np else dtype
    prediction, target = (cast(array, wide).reshape(len(array), -1) for array in (prediction, target))
    if weights is None:
        weights = xp.ones(len(target), wide)
    else:
        weights = cast(weights, wide)
        prediction, target = (xp.where(weights[:, None] == 0, 0, array) for array in (prediction, target))
    error = target - prediction
    if not is_traced(error):
        finite("target", target)
    return error, target, weights[:, None], sound, dtype


def _unit(size):
    """1 / size, or 1 for 0; not quite where that would be no normal number, which XLA sets to 0 on the CPU."""
    xp, limits = namespace(size), np.finfo(size.dtype)
    return 1 / xp.clip(xp.where(size == 0, 1, size), limits.tiny, limits.max / 8)


def mean_of(values, weights, sound):
    """The weighted mean over the examples, of numbers or of what is true; NaN if the arguments are not sound."""
    xp = namespace(values, weights)
    if weights is None:
        mean = values.sum() / len(values)  # an integer, which is exact, divided by another one
    else:
        mean = (weights / weights.sum() * cast(values, weights.dtype)).sum()
    return mean if sound is True else xp.where(sound, mean, np.nan)

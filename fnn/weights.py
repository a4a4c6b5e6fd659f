"""Weights of examples by the class that they belong to."""

from typing import Any

import numpy as np

from . import checks
from .backend import is_traced
from .errors import ArgumentError, DataError, KindError, ShapeError, shorten


def class_weights(y: Any, weights: Any = "balanced", ignored: int | None = None) -> np.ndarray:
    """A weight for each example by its label, as the third part of the data, `(x, y, fnn.class_weights(y))`.

        balanced:  wₙ = N / (C N_yₙ), where N_c of the N examples have label c, of C labels that occur

    Weights are part of the data, so these serve wherever data do: in `fit` and `train` with any rule, in `evaluate`,
    and for one batch; validation data remain unweighted unless they are given weights too. Multiply them by other
    weights of examples to have both. The mean cost is Σ w ℓ / Σ w. With balanced weights every class has the same
    weight in total, and the probabilities that a network learns are those of classes that are equally frequent.

    Args:
        y: labels, (N,) or (N, 1): integers, or floating-point numbers that are whole, such as the targets 0 and 1 of
            `SigmoidBinaryCrossEntropy`. A label for each position, (N, T), has no weight of an example: use the
            `alpha` of `Focal`.
        weights: "balanced"; a dict `{label: weight}` with every label that occurs; or a sequence of the weights of the
            labels 0 to C − 1. Weights are at least 0. Default: "balanced".
        ignored: a label, such as −1, whose examples get weight 0. Default: None.

    Returns:
        The weights (N,), in float64.

    Raises:
        FnnError: if a label has no weight, or y is not labels; the message names the first.

    Source: G. King, L. Zeng, "Logistic regression in rare events data" (2001); "balanced" as in scikit-learn's
    `compute_class_weight`.

    >>> class_weights([0, 0, 0, 1])
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    >>> class_weights([0, 0, 1], {0: 1.0, 1: 5.0}).tolist()
    [1.0, 1.0, 5.0]
    """
    labels = _labels(y)
    counted = np.ones(len(labels), bool) if ignored is None else labels != ignored
    present, place, counts = np.unique(labels[counted], return_inverse=True, return_counts=True)
    if isinstance(weights, str):
        if weights != "balanced":
            raise ArgumentError(f"weights: expected 'balanced', a dict or a sequence, got {shorten(weights)}")
        of_label = counts.sum() / (len(counts) * counts)
    else:
        given = weights if isinstance(weights, dict) else _by_place(weights)
        missing = [label for label in present.tolist() if label not in given]
        if missing:
            row = int(np.flatnonzero(labels == missing[0])[0])
            raise DataError(
                f"weights: expected a weight for each label of y, got none for the label {missing[0]} at y[{row}]"
            )
        of_label = checks.as_array("weights", [given[label] for label in present.tolist()], np).astype(np.float64)
        if of_label.ndim != 1:
            raise ShapeError(f"weights: expected a number for each label, got {shorten(weights)}")
        checks.finite("weights", of_label)
        checks.not_negative("weights", of_label)
    result = np.zeros(len(labels))
    result[counted] = of_label[place]
    return result


def _by_place(weights):
    """A sequence as a dict `{label: weight}`."""
    return dict(enumerate(np.atleast_1d(checks.as_array("weights", weights, np)).tolist()))


def _labels(y):
    """y as integers (N,), or an error."""
    if is_traced(y):
        raise KindError("y: expected labels whose values are known, got a tracer; compute the weights outside")
    y = checks.real("y", checks.on_host(checks.as_array("y", y, np)))
    if y.ndim == 2 and y.shape[1] > 1:
        raise ShapeError(
            f"y: expected labels of shape (N,) or (N, 1), got {y.shape}; for rows of one-hot labels write "
            "y.argmax(axis=1), for several yes-or-no targets use SigmoidBinaryCrossEntropy(pos_weight=...), for "
            "labels of positions Focal(alpha=...)"
        )
    if y.ndim not in (1, 2) or not y.size:
        raise ShapeError(f"y: expected labels of shape (N,) or (N, 1), got {y.shape}")
    y = y.reshape(-1)
    if y.dtype.kind in "iub":
        return y.astype(np.int64)
    checks.finite("y", y)
    whole = np.rint(y)
    if (whole != y).any():
        row = int((whole != y).argmax())
        raise DataError(f"y: expected labels, which are whole numbers, got {y[row]} at y[{row}]")
    return whole.astype(np.int64)

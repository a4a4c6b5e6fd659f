"""Scikit-learn's scores by name, as metrics: `metrics=("roc_auc", "f1_macro")`; they need the extra `sklearn`.

A name is one of `sklearn.metrics.get_scorer_names()`. Its scorer is asked for the score of an estimator that predicts
what the network has predicted, so that it is the score which `cross_val_score` would give. All of them, `neg_log_loss`
for example, are larger where they are better.

The predictions mean what they mean to fnn's own metrics (see `fnn.metrics`): classes, at positions too, or one output
for two classes. Several outputs beside rows of 0 and 1 are labels, chosen above 0.5. Scores of regression, such as
"r2", take the predictions as they are, (N,) or (N, K).

Scores of probabilities are given all classes as `labels`, so that "neg_log_loss" of data that lack a class is a number.
Where the targets leave a score undefined whatever is predicted, as one class alone does "roc_auc", and no example of
class 1 does "f1", `fit`, `train` and `evaluate` refuse it.

Letters: N examples, C classes, K outputs; M examples or positions whose weight is not 0.
"""

import copy
import difflib
import functools
import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import is_traced
from .errors import ArgumentError, KindError, ShapeError, require, same_shape
from .metrics import classes_of
from .static import Static


@dataclass(frozen=True)
class Score(Static):
    """A score of scikit-learn as a metric: a function of (prediction, target, weights), on whole predictions.

    Args:
        name: of the scorer, such as "roc_auc", "f1_macro" or "neg_log_loss".

    Returns:
        The score, a float; NaN if a prediction that counts is NaN or infinite.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
        ArgumentError: if there is no such score, or it is not one of these predictions.

    >>> p, y = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1])
    >>> Score("balanced_accuracy")(p, y), Score("roc_auc")(p, y, weights=np.array([1.0, 1.0, 0.0]))
    (0.75, 1.0)
    """

    name: str

    def __post_init__(self):
        super().__post_init__()
        _scorer(self.name)

    @property
    def takes_weights(self) -> bool:
        """Whether the score can be weighted."""
        return "sample_weight" in _arguments(_scorer(self.name))

    def __call__(self, prediction: Any, target: Any, weights: Any = None, ignored: int | None = None) -> float:
        if is_traced(prediction, target, weights):
            raise KindError(f"metrics: {self.name!r} is scikit-learn's, which JAX cannot compile; use fit or evaluate")
        scorer = _scorer(self.name)
        prediction, target = np.asarray(prediction), np.asarray(target)
        if _is_of_regression(scorer):
            model, target, weights = _regressed(prediction, target, weights)
        elif prediction.ndim == 2 and prediction.shape[1] > 1 and _are_labels(prediction, target):
            model, target, weights = _labelled(prediction, target, weights)
        else:
            model, target, weights = _classified(prediction, target, weights, ignored)
        if not np.isfinite(model.given).all():
            return np.nan
        options = {} if weights is None else {"sample_weight": weights}
        try:
            return float(_with_labels(scorer, model, target)(model, model.given, target, **options))
        except (ValueError, TypeError, AttributeError) as error:
            raise ArgumentError(f"metrics: {self.name!r} cannot score these predictions: {error}") from None


def check_scores(net: Any, loss: Any, data: Any, metrics: dict[str, Any]) -> None:
    """Raise if a score cannot be one of such predictions for these targets, which a trial with equal ones shows.

    Of batches that are yet to come the targets are not known, so the scores show it themselves.
    """
    for score in (metric for metric in metrics.values() if isinstance(metric, Score)):
        if data.weights is not None and not score.takes_weights:
            raise ArgumentError(f"metrics: {score.name!r} takes no weights, and the data have some")
        if not data.known:
            continue
        shape = (data.size, *net.output_shape(data.shape))
        prediction = np.asarray(loss.predict(np.full(shape, 1 / shape[-1], np.float32)))
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            value = score(prediction, data.y, data.weights, getattr(loss, "ignored", None))
        _check_defined(score.name, value, data)


def _check_defined(name, value, data):
    """Raise if a score is undefined for these targets, by its value for predictions that are all the same.

    It is then NaN, or a quotient by an error that is 0 but for rounding.
    """
    scorer, why = _scorer(name), ""
    y = np.asarray(data.y if data.weights is None else data.y[np.asarray(data.weights) != 0])
    of_ranks = scorer._score_func.__name__ == "average_precision_score"
    if (of_ranks or scorer._kwargs.get("average") == "binary") and not (y == 1).any():
        why = "without an example of class 1"
    elif _takes_labels(scorer) and not abs(value) < 1e9:
        why = "without examples of all classes" if len(np.unique(y)) > 1 else f"with targets that are all {y.flat[0]}"
    if why:
        raise ArgumentError(f"metrics: {name!r} is undefined {why}")


# ---- what the predictions are ----------------------------------------------------------------------------------------


def _is_of_regression(scorer) -> bool:
    return scorer._score_func.__module__.endswith("_regression")


def _are_labels(prediction, target) -> bool:
    """Whether rows of targets say yes or no to each output, and not which one of them is the class."""
    one_each = np.all(target.sum(axis=-1) == 1) and np.all(abs(prediction.sum(axis=1) - 1) < 1e-2)
    return target.shape == prediction.shape and bool(np.all((target == 0) | (target == 1))) and not one_each


def _regressed(prediction, target, weights):
    """A regressor that predicts so, and the targets and weights of the examples that count."""
    same_shape("target", target, prediction.shape)
    if prediction.ndim > 2:
        raise ShapeError(f"prediction: expected (N,) or (N, K) for a score of regression, got {prediction.shape}")
    used, weights = _used(weights)
    flat = lambda a: a[:, 0] if a.shape[1:] == (1,) else a
    return _models()[0](flat(prediction[used])), flat(target[used]), weights


def _labelled(prediction, target, weights):
    """The same of a classifier of K labels, each chosen where its probability, or whatever it is, is above 0.5."""
    used, weights = _used(weights)
    p = prediction[used]
    return _models()[2](p, (p > 0.5).astype(int), range(p.shape[1])), target[used].astype(int), weights


def _classified(prediction, target, weights, ignored):
    """The same of a classifier of C classes; of two, if there is one output, whose sign has no probability."""
    of = classes_of(prediction, target, weights, ignored)
    used, weights = _used(of.shares)
    p, kind = of.prediction[used], 2
    if p.size == len(p):
        p, kind = p.reshape(-1), 2 if p.dtype.kind == "f" and not (target < 0).any() else 1
        p = np.stack([1 - p, p], axis=1) if kind == 2 else p
    return _models()[kind](p, of.predicted[used], range(of.classes or 0)), of.actual[used], weights


def _used(weights):
    """The examples that count, as an index, and their weights."""
    if weights is None:
        return slice(None), None
    weights = np.asarray(weights)
    return weights != 0, weights[weights != 0]


# ---- scikit-learn's --------------------------------------------------------------------------------------------------


@functools.lru_cache
def _scorer(name):
    """The scorer of that name."""
    home = require("sklearn.metrics", "sklearn")
    names = home.get_scorer_names()
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        hint = f"; there are {', '.join(near)}" if near else ""
        raise ArgumentError(f"metrics: expected functions, or names of scikit-learn's scores, got {name!r}{hint}")
    return home.get_scorer(name)


def _arguments(scorer):
    """The names of what the function of a scorer takes."""
    return inspect.signature(scorer._score_func).parameters


def _takes_labels(scorer) -> bool:
    """Whether it is a score of probabilities, for which all classes have to be known."""
    return "labels" in _arguments(scorer) and scorer._response_method != "predict"


def _with_labels(scorer, model, target):
    """The scorer that knows all classes, if it is one of their probabilities: the targets may lack some."""
    if not _takes_labels(scorer) or target.ndim > 1 or not len(model.classes_):
        return scorer
    scorer = copy.copy(scorer)
    scorer._kwargs = scorer._kwargs | {"labels": model.classes_}
    return scorer


@functools.cache
def _models():
    """Estimators that have predicted already: a regressor, a classifier, and one that has given probabilities too."""
    base = require("sklearn.base", "sklearn")

    class Predicted(base.BaseEstimator):
        def __init__(self, given, predicted=None, classes=()):
            self.given, self.classes_ = given, np.array(classes)
            self.predicted = given if predicted is None else predicted

        def predict(self, X):
            return self.predicted

    class Regressor(base.RegressorMixin, Predicted): ...

    class Classifier(base.ClassifierMixin, Predicted): ...

    class Probabilities(Classifier):
        def predict_proba(self, X):
            return X

    return Regressor, Classifier, Probabilities

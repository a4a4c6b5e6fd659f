"""Faults of scikit-learn's scores by name and of its estimators, and the checks that have to find them."""

import functools
import math
import warnings

import numpy as np
from helpers import blobs
from planting import Fault, instead, result
from scipy import sparse
from sklearn import metrics

from fnn import errors, scoring
from fnn.scoring import Score
from fnn.sklearn import FNNClassifier, FNNRegressor, InverseScaling, examples, scaling
from fnn.sklearn.running import Run
from fnn.sklearn.scaling import Seen

RNG = np.random.default_rng(0)
X, Y = blobs(60)
P = RNG.dirichlet(np.ones(3), 60)
WEIGHTS = RNG.integers(0, 3, 60).astype(float)
HOW = {"hidden_layer_sizes": 4, "max_iter": 3, "random_state": 0, "backend": "numpy"}


# ---- checks ----------------------------------------------------------------------------------------------------------


def quiet(check):
    """The same without warnings; a refusal is a failure too."""

    @functools.wraps(check)
    def checked(*args):
        with warnings.catch_warnings(action="ignore"):
            try:
                check(*args)
            except (errors.FnnError, ValueError) as error:
                raise AssertionError(str(error)) from error

    return checked


@quiet
def scores():
    log_loss = metrics.log_loss(Y, P, sample_weight=WEIGHTS)
    np.testing.assert_allclose(Score("neg_log_loss")(P, Y, WEIGHTS), -log_loss, rtol=1e-12)
    two = (Y > 0).astype(float)[:, None]
    f1 = metrics.f1_score(two[:, 0], P[:, 0] > 0.5, sample_weight=WEIGHTS)
    np.testing.assert_allclose(Score("f1")(P[:, :1], two, WEIGHTS), f1, rtol=1e-12)
    auc = metrics.roc_auc_score(two[:, 0], P[:, 0])
    np.testing.assert_allclose(Score("roc_auc")(P[:, :1], two), auc, rtol=1e-12)
    r2 = metrics.r2_score(two, P[:, :1], sample_weight=WEIGHTS)
    np.testing.assert_allclose(Score("r2")(P[:, :1], two, WEIGHTS), r2, rtol=1e-12)


@quiet
def scores_of_labels():
    rows = np.stack([Y == 0, X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(float)
    wanted = metrics.f1_score(rows, P > 0.5, average="macro", sample_weight=WEIGHTS)
    np.testing.assert_allclose(Score("f1_macro")(P, rows, WEIGHTS), wanted, rtol=1e-12)


@quiet
def nan_scores_nan():
    assert math.isnan(Score("accuracy")(np.where(np.arange(60)[:, None] == 3, np.nan, P), Y))


@quiet
def weights_refused():
    data = type("", (), {"weights": WEIGHTS, "size": 60, "shape": (6,), "y": Y, "known": True})
    net = type("", (), {"output_shape": lambda shape: (3,)})
    refused = False
    try:
        scoring.check_scores(net, type("", (), {"predict": lambda p: p}), data, {"score": Score("rand_score")})
    except errors.ArgumentError as error:
        refused = "takes no weights" in str(error)
    assert refused, "weights that the score does not take were dropped"


@quiet
def shares_of_classes():
    labels = np.repeat([0, 1, 2], [40, 50, 10])
    for weights, wanted in ((None, [8, 10, 2]), (labels != 0, [0, 10, 2])):
        for seed in range(3):
            used, held = examples.held_out(100, 0.2, np.random.RandomState(seed), weights, labels)
            assert np.bincount(labels[held], minlength=3).tolist() == wanted
            assert sorted([*used, *held]) == list(range(100))


@quiet
def sparse_as_dense():
    x = np.where(np.arange(360).reshape(60, 6) % 5 == 0, X, 0)
    rows = examples.Rows(sparse.csr_matrix(x))
    constants = Seen.of(x, None).constants(np.float64, "x")
    wanted = (x - x.mean(axis=0)) / x.std(axis=0)
    read = examples.standardized(rows, constants, np.float64)
    np.testing.assert_allclose(read[np.array([3, 1])], wanted[[3, 1]], atol=1e-12)
    np.testing.assert_allclose(examples.standardized(x, constants, np.float64), wanted, atol=1e-12)


@quiet
def seen_in_parts():
    whole = Seen.of(X, WEIGHTS)
    parts = Seen.of(X[40:], WEIGHTS[40:], Seen.of(X[:40], np.ones(40)))
    np.testing.assert_allclose(parts.mean, Seen.of(X, np.r_[np.ones(40), WEIGHTS[40:] > 0]).mean, atol=0.3)
    assert (whole.n, parts.n) == (np.count_nonzero(WEIGHTS), 40 + np.count_nonzero(WEIGHTS[40:]))
    even = Seen.of(X[40:], None, Seen.of(X[:40], None))
    np.testing.assert_allclose([even.mean, even.std], [X.mean(axis=0), X.std(axis=0)], rtol=1e-12)


@quiet
def constants_kept():
    model = FNNRegressor(**HOW).fit(X[:40], X[:40, 0])
    before = model.predict(X)
    model.set_params(learning_rate_init=1e-15).partial_fit(X[40:], X[40:, 0])
    np.testing.assert_allclose(model.predict(X), before, rtol=1e-9)


@quiet
def targets_restored():
    y = 1e3 + 10 * X[:, 0]
    model = FNNRegressor(learning_rate_init=0.05, **HOW | {"max_iter": 50}).fit(X, y)
    assert model.score(X, y) > 0.5


@quiet
def weights_of_classes():
    y = np.array(["a", "b", "c"])[Y]
    found = FNNClassifier(class_weight={"b": 3.0}, **HOW).fit(X, y, 1 + WEIGHTS)
    wanted = FNNClassifier(**HOW).fit(X, y, np.where(y == "b", 3, 1) * (1 + WEIGHTS))
    np.testing.assert_allclose(found.predict_proba(X), wanted.predict_proba(X), rtol=1e-9)


@quiet
def ratios_of_weights():
    np.testing.assert_allclose(examples.relative(1e300 * WEIGHTS, 60), WEIGHTS / WEIGHTS.max(), rtol=1e-12)


@quiet
def inverse_scaling():
    rate = InverseScaling(0.5, 0.5, 150.0, 4.0, seen=30.0, count=2.0)
    np.testing.assert_allclose([rate(2), rate(5), rate(6)], 0.5 / np.sqrt([31.0, 31.0, 181.0]), rtol=1e-12)


@quiet
def rate_lowered():
    model = FNNClassifier(solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1, **HOW).fit(X, Y)
    np.testing.assert_allclose(float(model._state.optimizer.learning_rate), 0.001, rtol=1e-6)


@quiet
def probability_of_the_second_class():
    model = FNNClassifier(**HOW | {"max_iter": 60}).fit(X, Y > 0)
    assert (model.classes_[model.predict_proba(X).argmax(axis=1)] == model.predict(X)).all()


@quiet
def callbacks_are_told():
    records = []
    how = HOW | {"early_stopping": True, "callbacks": (records.append,)}
    model = FNNClassifier(**how).fit(X, Y)
    assert [record.metrics["validation_score"] for record in records] == model.validation_scores_
    assert [record.metrics["loss"] for record in records] == model.loss_curve_


@quiet
def dropout_in_training_only():
    model = FNNRegressor(dropout=0.5, standardize=False, **HOW).fit(X, X[:, 0])
    w, b = model.coefs_, model.intercepts_
    np.testing.assert_allclose(model.predict(X), (np.maximum(X @ w[0] + b[0], 0) @ w[1] + b[1])[:, 0], rtol=1e-9)
    assert model.loss_ != FNNRegressor(standardize=False, **HOW).fit(X, X[:, 0]).loss_


# ---- faults ----------------------------------------------------------------------------------------------------------


def unread(constants):
    """The rows of a sparse matrix as if they had these constants."""
    return lambda f: lambda rows, index: f(examples.Rows(rows.matrix, constants(rows.constants)), index)


def without_dropout(f):
    """The network of a model as if it had none."""

    def network(model):
        rate, model.dropout = model.dropout, 0.0
        try:
            return f(model)
        finally:
            model.dropout = rate

    return network


FAULTS = [
    Fault("weights of a score forgotten", scoring, "_used", result(lambda pair: (pair[0], None)), scores),
    Fault("weights of all beside those that count", scoring, "_used", instead(
          lambda weights: (slice(None) if weights is None else weights != 1, weights if weights is None else
                           weights[weights != 1])), scores),
    Fault("the other class of two", scoring, "classes_of", result(lambda of: of._replace(
          predicted=1 - of.predicted if of.classes == 2 else of.predicted)), scores),
    Fault("a regression scored by classes", scoring, "_is_of_regression", instead(lambda scorer: False), scores),
    Fault("the sign of a score", Score, "__call__", result(abs), scores),
    Fault("rows of labels as classes", scoring, "_are_labels", instead(lambda p, y: False), scores_of_labels),
    Fault("labels above another threshold", scoring, "_labelled",
          lambda f: lambda p, y, weights: f(p / 2, y, weights), scores_of_labels),
    Fault("NaN scored as a class", scoring, "_classified", lambda f: lambda p, *rest: f(np.nan_to_num(p), *rest),
          nan_scores_nan),
    Fault("weights that are not taken, dropped", Score, "takes_weights", instead(True), weights_refused),
    Fault("classes not stratified", examples, "held_out",
          lambda f: lambda n, fraction, chance, weights, labels: f(n, fraction, chance, weights), shares_of_classes),
    Fault("examples of weight 0 held out", examples, "held_out",
          lambda f: lambda n, fraction, chance, weights, labels: f(n, fraction, chance, None, labels),
          shares_of_classes),
    Fault("sparse rows not standardized", examples.Rows, "__getitem__", unread(lambda constants: None),
          sparse_as_dense),
    Fault("sparse rows not centred", examples.Rows, "__getitem__", unread(
          lambda constants: constants and constants._replace(mean=0 * constants.mean)), sparse_as_dense),
    Fault("variance for standard deviation", scaling, "constants",
          lambda f: lambda mean, std, *rest: f(mean, std**2, *rest), sparse_as_dense),
    Fault("the last part alone", Seen, "of", lambda f: lambda x, weights, before=None: f(x, weights), seen_in_parts),
    Fault("constants changed by each part", Seen, "close_to", instead(lambda seen, used: seen), constants_kept),
    Fault("targets not restored", scaling, "StandardizeParams", lambda f: lambda mean, std: f(0 * mean, std),
          targets_restored),
    Fault("weights of classes for those of examples", FNNClassifier, "_weighted",
          lambda f: lambda model, y, weights, epochs: f(model, y, None, epochs), weights_of_classes),
    Fault("weights of classes forgotten", FNNClassifier, "_weighted",
          instead(lambda model, y, weights, epochs: weights), weights_of_classes),
    Fault("weights not relative", examples, "relative", result(lambda w: 2 * w), ratios_of_weights),
    Fault("an epoch later", InverseScaling, "__call__", lambda f: lambda rate, count: f(rate, count - rate.steps),
          inverse_scaling),
    Fault("the rate of the first epoch", InverseScaling, "__call__",
          lambda f: lambda rate, count: f(rate._replace(seen=0.0), count), inverse_scaling),
    Fault("an adaptive rate that is kept", Run, "_slower", instead(lambda run, state: (state, True)), rate_lowered),
    Fault("the classes in the other order", FNNClassifier, "_logits", result(lambda z: z[:, ::-1]),
          probability_of_the_second_class),
    Fault("the score of the epoch before told", Run, "_told", lambda f: lambda run, state: (
          f(type("", (), vars(run) | {"model": type("", (), vars(run.model) | {
              "validation_scores_": [0.0, *run.model.validation_scores_[:-1]]})}), state)), callbacks_are_told),
    Fault("dropout without effect", FNNRegressor, "_network", without_dropout, dropout_in_training_only),
]  # fmt: skip

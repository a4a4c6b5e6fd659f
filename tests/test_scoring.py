"""Scikit-learn's scores by name are what it would give a model of its own, and never a number for NaN."""

import math
import sys
import warnings

import numpy as np
import pytest
from helpers import BACKENDS, blobs, key, on

import fnn
from fnn import errors, scoring
from fnn.scoring import Score

metrics = pytest.importorskip("sklearn.metrics")
linear_model, naive_bayes = (pytest.importorskip(f"sklearn.{name}") for name in ("linear_model", "naive_bayes"))

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
TWO = (X[:, 0] + RNG.normal(size=60) > 0).astype(int)
THREE = TWO + (X[:, 1] > 0.3)
REAL = np.exp(X[:, 0]) + 3
WEIGHTS = RNG.integers(0, 3, 60).astype(float)


def told(y, width):
    """A model of scikit-learn's, its predictions as a network's of that many outputs, and the targets."""
    if y is REAL:
        model = linear_model.LinearRegression().fit(X, y)
        return model, model.predict(X).reshape(60, width), y.reshape(60, width)
    p = (model := naive_bayes.GaussianNB().fit(X, y)).predict_proba(X)
    return (model, p[:, 1:], y[:, None].astype(float)) if width == 1 else (model, p, y)


@pytest.mark.parametrize(("y", "width"), [(TWO, 1), (TWO, 2), (THREE, 3), (REAL, 1)])
@pytest.mark.numpy_alone
def test_every_score_is_scikit_learns_with_weights_and_without(y, width):
    model, prediction, target = told(y, width)
    counted = WEIGHTS > 0
    equal = 0
    for name in metrics.get_scorer_names():
        score, theirs = Score(name), metrics.get_scorer(name)
        if (y is REAL) != theirs._score_func.__module__.endswith("_regression"):
            continue  # of classes the one, of numbers the other
        for weights in (None, WEIGHTS) if score.takes_weights else (None,):
            how = {} if weights is None else {"sample_weight": weights[counted]}
            x, labels = (X, y) if weights is None else (X[counted], y[counted])
            with warnings.catch_warnings(action="ignore"):
                try:
                    wanted = theirs(model, x, labels, **how)
                except ValueError:
                    with pytest.raises(errors.ArgumentError, match=f"metrics: '{name}' cannot score"):
                        score(prediction, target, weights)
                    continue
                assert score(prediction, target, weights) == pytest.approx(wanted, rel=1e-12, abs=1e-12)
            equal += 1
    assert equal > {1: 20 if y is REAL else 50, 2: 50, 3: 40}[width]


def test_labels_positions_and_signs_are_scored_as_they_are():
    p, rows = RNG.random((60, 3)), RNG.integers(0, 2, (60, 3)).astype(float)
    assert Score("f1_samples")(p, rows) == metrics.f1_score(rows, p > 0.5, average="samples", zero_division=0)
    assert Score("roc_auc")(p, rows, WEIGHTS) == metrics.roc_auc_score(rows, p, sample_weight=WEIGHTS)
    one_hot = np.eye(3)[THREE]
    p = p / p.sum(axis=1, keepdims=True)
    assert Score("roc_auc_ovr")(p, one_hot) == metrics.roc_auc_score(THREE, p, multi_class="ovr")
    where, labels = p.reshape(20, 3, 3), np.where(X[:, 2] > 1, -1, THREE).reshape(20, 3)
    kept = labels.reshape(-1) >= 0
    weights = WEIGHTS[:20].repeat(3)[kept]
    for name, wanted in (
        ("neg_log_loss", -metrics.log_loss(THREE[kept], p[kept], sample_weight=weights)),
        ("f1_macro", metrics.f1_score(THREE[kept], p[kept].argmax(1), average="macro", sample_weight=weights)),
    ):
        assert Score(name)(where, labels, WEIGHTS[:20], ignored=-1) == pytest.approx(wanted, rel=1e-12)
    signs = np.where(X[:, :1] > 0, 1.0, -1.0)
    assert Score("f1")(signs, 2.0 * TWO[:, None] - 1) == metrics.f1_score(TWO, signs[:, 0] > 0)
    with pytest.raises(errors.ArgumentError, match=r"'roc_auc' cannot score these predictions: .*predict_proba"):
        Score("roc_auc")(signs, 2.0 * TWO[:, None] - 1)


def test_probabilities_are_scored_where_the_targets_lack_a_class():
    p = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    for y in (np.array([0, 2] * 3), np.zeros(6, int)):
        np.testing.assert_allclose(Score("neg_log_loss")(p, y), np.log(p[range(6), y]).mean(), rtol=1e-12)
        brier = ((p - np.eye(3)[y]) ** 2).sum(axis=1).mean()
        np.testing.assert_allclose(Score("neg_brier_score")(p, y), -brier, rtol=1e-12)
        assert Score("top_k_accuracy")(p, y) == np.mean([y[i] in p[i].argsort()[1:] for i in range(6)])
    two = p[:, :2] / p[:, :2].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(Score("neg_log_loss")(two, np.ones(6, int)), np.log(two[:, 1]).mean(), rtol=1e-12)


UNDEFINED = {"f1": 0, "recall": 0, "jaccard": 0, "average_precision": 0, "roc_auc": 1, "d2_log_loss_score": 1}


@pytest.mark.parametrize("name", UNDEFINED)
def test_a_score_that_one_class_leaves_undefined_is_refused_and_of_two_is_not(name):
    net, loss = fnn.Dense(2), fnn.SoftmaxCrossEntropy()
    params, run = net.init(key(), (3,)), {"metrics": (name,)}
    y = np.full(60, UNDEFINED[name])
    with pytest.raises(errors.ArgumentError, match=f"metrics: '{name}' is undefined with"):
        fnn.evaluate(net, loss, params, (X, y), **run)
    with pytest.raises(errors.ArgumentError, match=f"metrics: '{name}' is undefined with"):
        fnn.evaluate(net, loss, params, (X, TWO, UNDEFINED[name] == TWO), **run)
    assert np.isfinite(fnn.evaluate(net, loss, params, (X, TWO), **run)[name])


@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc", "neg_log_loss", "r2", "neg_mean_absolute_error"])
def test_nan_scores_nan_unless_it_does_not_count(name):
    _, p, y = told(REAL if name in ("r2", "neg_mean_absolute_error") else TWO, 1)
    spoilt = np.where(np.arange(60)[:, None] == 7, np.nan, p)
    assert math.isnan(Score(name)(spoilt, y))
    assert math.isnan(Score(name)(spoilt, y, np.ones(60)))
    weights = np.where(np.arange(60) == 7, 0.0, 1.0)
    assert Score(name)(spoilt, y, weights) == pytest.approx(Score(name)(np.delete(p, 7, 0), np.delete(y, 7, 0)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_evaluation_has_the_scores_by_name(backend):
    net, loss, (x, y) = fnn.mlp((3,)), fnn.SoftmaxCrossEntropy(), blobs(20)
    params = on(backend, net.init(key(), (6,)))
    p = np.asarray(loss.predict(net.apply(params, *on(backend, (x.astype(np.float32),)))))
    wanted = metrics.f1_score(y, p.argmax(axis=1), average="macro", sample_weight=WEIGHTS[:20])
    found = fnn.evaluate(net, loss, params, (x, y, WEIGHTS[:20]), metrics={"f1": "f1_macro", "accuracy": fnn.accuracy})
    assert found["f1"] == pytest.approx(wanted, rel=1e-6)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, p.argmax(1), sample_weight=WEIGHTS[:20]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.thorough(backend="jax")
def test_the_history_of_a_fit_has_the_scores(backend):
    x, y = blobs(60)
    held = (x[:20], y[:20], WEIGHTS[:20] + 1)
    net, loss, how = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy(), {"key": key(backend), "batch_size": 20, "epochs": 4}
    names = ("roc_auc_ovr", "f1_macro")
    state, history = fnn.fit(net, loss, fnn.Adam(0.02), (x, y), validation=held, metrics=names, **how)
    assert history["validation_roc_auc_ovr"].shape == history["validation_f1_macro"].shape == (4,)
    last = fnn.evaluate(net, loss, state.params, held, metrics=names)
    assert [history[f"validation_{name}"][-1] for name in names] == [last[name] for name in names]


def test_the_epoch_with_the_largest_score_is_returned():
    x, y = blobs(60)
    how = {"key": key(), "batch_size": 20, "epochs": 12, "metrics": ("neg_log_loss",), "validation": (x[:20], y[:20])}
    run = lambda **more: fnn.fit(
        fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy(), fnn.Sgd(2.0), (x, RNG.permutation(y)), patience=12, **how, **more
    )
    _, history = run(monitor="validation_neg_log_loss")
    scores = history["validation_neg_log_loss"]
    assert history["returned_epoch"] == scores.argmax() != scores.argmin()
    assert (scores < 0).all()
    with pytest.raises(errors.ArgumentError, match="mode: expected 'max' with monitor='validation_neg_log_loss'"):
        run(monitor="validation_neg_log_loss", mode="min")


def train(**how):
    x, y = blobs(40)
    data = (x, y, np.ones(40)) if how.pop("weights", False) else (x, y)
    net, loss, key_ = fnn.mlp((3,)), fnn.SoftmaxCrossEntropy(), key(how.pop("backend", "numpy"))
    if how.pop("compiled", False):
        state = fnn.init_state(net, fnn.Sgd(0.1), key_, (6,))
        return fnn.train(net, loss, state, data, epochs=1, batch_size=20, validation=data, **how)
    return fnn.fit(net, loss, fnn.Sgd(0.1), data, key=key_, epochs=1, batch_size=20, validation=data, **how)


WRONG = {
    "a name that is none": ({"metrics": ("f1_marco",)}, "metrics: .*scikit-learn's scores, got 'f1_marco'.*f1_macro"),
    "of two classes": ({"metrics": ("f1",)}, "metrics: 'f1' cannot score these predictions: Target is multiclass"),
    "of numbers": ({"metrics": ("r2",)}, r"target: expected shape \(40, 3\), got \(40,\)"),
    "without weights": ({"metrics": ("rand_score",), "weights": True}, "metrics: 'rand_score' takes no weights"),
    "one name": ({"metrics": "f1_macro"}, r'metrics: .*such as \("roc_auc", "f1_macro"\), got .f1_macro'),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_scored_is_refused_before_the_run(name, monkeypatch):
    monkeypatch.setattr("fnn.training.fitting.advance", None)
    how, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        train(**how)
    assert isinstance(caught.value, errors.FnnError)


def test_a_run_is_not_resumed_with_another_score_of_the_same_name(tmp_path):
    train(metrics={"score": "f1_macro"}, checkpoint=tmp_path)
    with pytest.raises(errors.ArgumentError, match=r"Score.'f1_macro'. in the checkpoint, Score.'accuracy'. here"):
        train(metrics={"score": "accuracy"}, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_run_refuses_them_on_jax(backend):
    how = {"metrics": ("f1_macro",), "compiled": True, "backend": backend}
    if backend == "jax":
        with pytest.raises(errors.KindError, match="'f1_macro' is scikit-learn's, which JAX cannot compile"):
            train(**how)
    else:
        assert train(**how)[1]["validation_f1_macro"].shape == (1,)


def test_where_scikit_learn_is_missing_the_extra_is_named(monkeypatch):
    scoring._scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(errors.MissingExtraError, match=r"fnn\[sklearn\]"):
        train(metrics=("jaccard_macro",))

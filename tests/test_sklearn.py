"""The estimators are what scikit-learn asks of one, take what its own take, and learn with what fnn is."""

import copy
import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from helpers import THOROUGH
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import AdaBoostClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

import fnn
from fnn import errors, examples
from fnn.backend import jax
from fnn.layers import standardize
from fnn.sklearn import FNNClassifier, FNNRegressor, InverseScaling, base, running
from fnn.sklearn.examples import Rows, held_out
from fnn.sklearn.scaling import Seen
from fnn.training import loop

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(np.exp(1 + X[:, 0] - X[:, 0].mean()))
BOTH = [FNNClassifier, FNNRegressor]
SOON = {"max_iter": 5, "random_state": 0}


def params_of(model):
    return [np.asarray(p) for p in fnn.trees.leaves(model.params_)]


def same(ours, theirs):
    for a, b in zip(params_of(ours), params_of(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- what scikit-learn asks for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.thorough(kind=BOTH[1])
def test_scikit_learns_own_checks_pass(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(kind(**({} if THOROUGH else {"max_iter": 30})), on_skip=None)
    assert len(found) > 50
    assert {check["status"] for check in found} <= {"passed", "skipped"}


@pytest.mark.parametrize(("kind", "theirs"), [(FNNClassifier, MLPClassifier), (FNNRegressor, MLPRegressor)])
def test_what_scikit_learns_take_is_taken(kind, theirs):
    ours = kind().get_params()
    missing = set(theirs().get_params()) - set(ours)
    assert missing == {"max_fun"}  # of L-BFGS, a solver that is not here
    own = {"standardize", "dropout", "class_weight", "callbacks", "backend"}
    own |= {"alpha", "learning_rate_init"} if kind is FNNClassifier else set()
    for name, value in theirs().get_params().items():
        if name not in own | missing:
            assert ours[name] == value
    for name in ("loss_", "best_loss_", "loss_curve_", "n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        fitted = [model(**SOON).fit(X, Y) for model in (kind, theirs)]
        assert hasattr(fitted[0], name) == hasattr(fitted[1], name) is True
    shapes = [[w.shape for w in (*model.coefs_, *model.intercepts_)] for model in fitted]
    assert shapes[0] == shapes[1]


def test_it_stands_in_pipelines_searches_and_cross_validations():
    model = make_pipeline(StandardScaler(), FNNClassifier(random_state=0, max_iter=40))
    search = GridSearchCV(model, {"fnnclassifier__hidden_layer_sizes": [(2,), (30, 30)]}, cv=3).fit(X, NAMES[Y])
    assert search.best_params_ == {"fnnclassifier__hidden_layer_sizes": (30, 30)}
    assert cross_val_score(model, X, NAMES[Y], cv=3).mean() > 0.9


@pytest.mark.parametrize("kind", BOTH)
def test_copies_by_clone_and_by_pickle_are_as_good(kind):
    model = kind(activation=fnn.Gelu(), solver=fnn.AdamW, **SOON).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    fresh = clone(model)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    same(fresh.fit(X, Y), model)


@pytest.mark.parametrize("load", ["pickle", "joblib", "copy", "skops"])
@pytest.mark.parametrize("kind", BOTH)
def test_a_copy_predicts_and_goes_on_as_its_model_which_it_leaves_alone(kind, load, tmp_path):
    how = {"learning_rate": "invscaling", "solver": "sgd"} if kind is FNNRegressor else {"activation": fnn.Gelu()}
    model = kind(hidden_layer_sizes=5, warm_start=True, max_iter=3, random_state=0, **how).fit(X, Y)
    if load == "joblib":
        joblib = pytest.importorskip("joblib")
        joblib.dump(model, tmp_path / "model.joblib")
        again = joblib.load(tmp_path / "model.joblib")
    elif load == "skops":
        io = pytest.importorskip("skops.io")
        data = io.dumps(model)
        untrusted = io.get_untrusted_types(data=data)
        assert len(untrusted) < 20
        assert set(untrusted) <= set(fnn.sklearn.TRUSTED)
        again = io.loads(data, trusted=fnn.sklearn.TRUSTED)
    else:
        again = copy.copy(model) if load == "copy" else pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    before = list(model.loss_curve_)
    again.fit(X, Y)
    assert model.loss_curve_ == before
    same(again, model.fit(X, Y))


def test_all_that_a_fitted_estimator_is_made_of_is_trusted():
    io = pytest.importorskip("skops.io")
    for how in (
        {"solver": "lbfgs"},
        {"solver": fnn.Muon},
        {"activation": fnn.PRelu()},
        {"callbacks": (fnn.callbacks.Plateau(),)},
    ):
        model = FNNClassifier(max_iter=2, random_state=0, backend="numpy", **how).fit(X, NAMES[Y])
        again = io.loads(io.dumps(model), trusted=fnn.sklearn.TRUSTED)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_the_same_random_state_gives_the_same_and_another_another():
    first, again, other = (FNNClassifier(max_iter=2, random_state=seed).fit(X, Y) for seed in (3, 3, 4))
    same(first, again)
    assert not np.array_equal(params_of(first)[-2], params_of(other)[-2])


# ---- what is learnt --------------------------------------------------------------------------------------------------


def test_flowers_digits_and_diabetes_are_learnt_without_preparing_them():
    for load, model, least in (
        (load_iris, FNNClassifier(random_state=0), 0.93),
        (load_digits, FNNClassifier(random_state=0, max_iter=30, backend="numpy"), 0.95),
        (load_diabetes, FNNRegressor(random_state=0), 0.25),
    ):
        x, y = load(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
        assert model.fit(x_train, y_train).score(x_test, y_test) > least


@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_of_classes_are_those_of_their_examples(early_stopping):
    how = {"max_iter": 3, "random_state": 0, "backend": "numpy", "early_stopping": early_stopping}
    x, y, own = X[:120], NAMES[Y[:120]], 1.0 + np.arange(120) % 3
    found = FNNClassifier(class_weight={NAMES[1]: 3.0}, **how).fit(x, y, own)
    if not early_stopping:  # the score of which has weights of its own
        same(found, FNNClassifier(**how).fit(x, y, own * np.where(y == NAMES[1], 3.0, 1.0)))
        balanced = fnn.class_weights(Y[:120])
        same(FNNClassifier(class_weight="balanced", **how).fit(x, y), FNNClassifier(**how).fit(x, y, balanced))
        part = FNNClassifier(class_weight={0: 2.0}, **how).partial_fit(x, Y[:120], classes=[0, 1, 2])
        same(part, FNNClassifier(**how).partial_fit(x, Y[:120], np.where(Y[:120] == 0, 2, 1), classes=[0, 1, 2]))
    else:
        assert not np.array_equal(params_of(found)[-1], params_of(FNNClassifier(**how).fit(x, y, own))[-1])


def test_probabilities_are_of_the_classes_in_their_order():
    model = FNNClassifier(random_state=0, max_iter=50).fit(X, NAMES[Y])
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (model.classes_[p.argmax(axis=1)] == model.predict(X)).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p, rtol=1e-12)
    two = FNNClassifier(random_state=0, max_iter=50).fit(X[:100], NAMES[Y[:100]])
    assert two.n_outputs_ == 1
    assert two.out_activation_ == "logistic"
    assert (two.classes_[two.predict_proba(X[:100]).argmax(axis=1)] == NAMES[Y[:100]]).all()


@pytest.mark.parametrize("labels", [Y[:100], Y])
def test_probabilities_and_their_logarithms_keep_their_digits_far_out(labels):
    """Beyond the logit, 17, at which 1 − σ(z) is 0 in float32."""
    x = X[: len(labels)].astype(np.float32)
    model = FNNClassifier(random_state=0, max_iter=20).fit(x, labels)
    z = model._logits(far := 20 * x).astype(float)
    assert np.ptp(z, axis=1).max() > 25
    shifted = z - z.max(axis=1, keepdims=True)
    if len(labels) == 100:  # σ(−z) and σ(z)
        wanted = -np.logaddexp(0, -z)
    else:
        wanted = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(model.predict_log_proba(far), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(far), np.exp(wanted), rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_sparse_matrix_is_learnt_as_the_array_is(early_stopping, monkeypatch):
    """To the bit, in whatever form, also where it is large, so that its batches are read from it."""
    sparse = pytest.importorskip("scipy.sparse")
    x = np.where(RNG.random((150, 30)) < 0.1, RNG.normal(size=(150, 30)), 0)
    how = {"hidden_layer_sizes": 5, "batch_size": 40, "backend": "numpy", "early_stopping": early_stopping, **SOON}
    for at_once, kinds in (
        (2**24, [sparse.csr_matrix, sparse.csc_array]),
        (4800, [sparse.coo_array, sparse.csr_array]),
    ):
        monkeypatch.setattr(examples, "AT_ONCE", at_once)
        monkeypatch.setattr(standardize, "PIECE", at_once // 8)
        dense = FNNClassifier(**how).fit(x, Y)
        widths = []
        monkeypatch.setattr(Rows, "__getitem__", noted(Rows.__getitem__, widths))
        for kind in kinds:
            model = FNNClassifier(**how).fit(kind(x), Y)
            same(model, dense)
            np.testing.assert_allclose(model.predict_proba(kind(x)), dense.predict_proba(x), rtol=1e-12)
            again = model.partial_fit if not early_stopping else model.set_params(warm_start=True).fit
            assert again(kind(x), Y).n_features_in_ == 30
        assert max(widths) <= (150 if at_once > 4800 else 40)  # never whole, if large
        monkeypatch.undo()
    with pytest.raises(ValueError, match="FNNRegressor does not accept missing values"):
        FNNRegressor().fit(sparse.csr_matrix(x * np.nan), Y)


def noted(getitem, widths):
    """The rows of a sparse matrix, and how many were made dense at a time."""

    def noting(rows, index):
        found = getitem(rows, index)
        widths.append(len(found))
        return found

    return noting


@pytest.mark.parametrize("kind", BOTH)
def test_dropout_is_in_training_only_and_another_rate_can_be_continued_with(kind):
    how = {"hidden_layer_sizes": (4, 4), "standardize": False, **SOON}
    model = kind(dropout=0.5, warm_start=True, **how).fit(X, Y)
    names = [type(layer).__name__ for layer in model.net_.layers]
    assert names == ["Dense", "Relu", "Dropout", "Dense", "Relu", "Dropout", "Dense"]
    np.testing.assert_array_equal(model.predict(X), model.predict(X))
    assert model.loss_curve_ != kind(**how).fit(X, Y).loss_curve_
    same(kind(dropout=0.5, **how).fit(X, Y), model)
    assert model.set_params(dropout=0.25).fit(X, Y).net_.layers[2] == fnn.Dropout(0.25)


def test_sets_of_labels_are_learnt():
    labels = np.stack([Y == 0, Y > 0, X[:, 0] > 5.8], axis=1).astype(int)
    model = FNNClassifier(random_state=0).fit(X, labels)
    assert accuracy_score(labels, model.predict(X)) > 0.9
    unsure = FNNClassifier(random_state=0, max_iter=5).fit(X, labels)
    p = unsure.predict_proba(X)
    assert p.shape == (150, 3)
    assert ((p > 0.5) & (p < 0.6)).any()
    assert ((p > 0.5) == unsure.predict(X)).all()


def test_of_one_class_or_label_there_is_one_probability():
    one = FNNClassifier(**SOON).fit(X, ["only"] * 150)
    assert (one.predict(X) == "only").all()
    assert one.predict_proba(X).tolist() == [[1.0]] * 150


def test_several_outputs_and_counts_are_learnt():
    targets = np.stack([1e4 + 300 * X[:, 2], 1e-3 * X[:, 3]], axis=1)
    model = FNNRegressor(random_state=0, learning_rate_init=0.01).fit(X, targets)
    assert model.score(X, targets) > 0.99
    assert model.predict(X).shape == (150, 2)
    counts = FNNRegressor("poisson", random_state=0, learning_rate_init=0.01).fit(X, COUNTS)
    assert (counts.predict(X) > 0).all()
    assert np.corrcoef(counts.predict(X), np.exp(X[:, 0]))[0, 1] > 0.95


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_robust_costs_pass_by_an_outlier(loss):
    y = 3 * X[:, 2]
    spoilt = y.copy()
    spoilt[::15] += 1000
    robust, plain = (
        FNNRegressor(name, learning_rate_init=0.01, random_state=0).fit(X, spoilt) for name in (loss, "squared_error")
    )
    wrong = [np.abs(model.predict(X) - y).mean() for model in (robust, plain)]
    assert wrong[0] < 0.7 * wrong[1]


def test_what_was_learnt_is_a_network_of_fnns_that_can_be_saved(tmp_path):
    for model in (FNNClassifier(**SOON).fit(X, Y), FNNRegressor(**SOON).fit(X, 1e3 + Y)):
        fnn.checkpoints.save(tmp_path / "net.npz", model.params_, net=model.net_)
        net, params = fnn.load_network(tmp_path / "net.npz", backend="numpy")
        output = net.apply(params, X)
        if isinstance(model, FNNRegressor):
            np.testing.assert_allclose(output[:, 0], model.predict(X), rtol=1e-12)
        else:
            assert (output.argmax(axis=1) == model.predict(X)).all()
        means = params[0].params
        np.testing.assert_allclose(means.mean, X.mean(axis=0), rtol=1e-12)


def test_without_standardising_the_network_is_the_bare_one():
    model = FNNRegressor(hidden_layer_sizes=(4,), standardize=False, **SOON).fit(X, Y)
    assert model.net_ == fnn.mlp((4, 1), initializer=fnn.GlorotUniform())
    np.testing.assert_array_equal(model.predict(X), model.net_.apply(model.params_, X)[:, 0])


def test_both_backends_learn_the_same_and_large_work_goes_to_jax(monkeypatch):
    if jax is None:
        with pytest.raises(errors.KindError, match="needs JAX"):
            FNNClassifier(backend="jax", **SOON).fit(X, Y)
        return
    x = X.astype(np.float32)
    ours, theirs = (FNNClassifier((5,), backend=name, batch_size=32, **SOON).fit(x, Y) for name in ("numpy", "jax"))
    for a, b in zip(params_of(ours), params_of(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
    small = FNNClassifier((5,), batch_size=32, **SOON).fit(X, Y)
    monkeypatch.setattr(running, "WORTH_COMPILING", 1000)
    large = FNNClassifier((5,), batch_size=32, **SOON).fit(X, Y)
    assert (params_of(small)[-1].dtype, params_of(large)[-1].dtype) == (np.float64, np.float32)
    assert large.fit(x, Y).loss_curve_ == theirs.loss_curve_


# ---- how it is learnt ------------------------------------------------------------------------------------------------


def stops_after(losses, tol, patience):
    """The rule of scikit-learn, written a second time."""
    best, waited = math.inf, 0
    for i, value in enumerate(losses, 1):
        waited = waited + 1 if value > best - tol else 0
        best = min(best, value)
        if waited > patience:
            return i
    return None


@pytest.mark.parametrize("patience", [1, 4, 10])
def test_it_stops_by_the_rule_and_told_of_each_epoch_or_not_is_the_same_run(patience, capsys):
    how = {"random_state": 0, "learning_rate_init": 0.05, "tol": 1e-3, "n_iter_no_change": patience, "batch_size": 40}
    quiet, loud = (FNNClassifier(verbose=verbose, **how).fit(X, Y) for verbose in (False, True))
    assert quiet.n_iter_ == len(quiet.loss_curve_) == stops_after(quiet.loss_curve_, 1e-3, patience) < 200
    assert quiet.loss_curve_ == loud.loss_curve_
    same(quiet, loud)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == quiet.n_iter_
    assert told[-1] == f"Iteration {quiet.n_iter_}, loss = {quiet.loss_:.8f}"
    assert quiet.t_ == 150 * quiet.n_iter_
    assert quiet.best_loss_ == min(quiet.loss_curve_)


def test_the_loss_of_an_epoch_is_that_of_its_examples():
    model = FNNClassifier(batch_size=140, learning_rate_init=1e-15, alpha=0, max_iter=1, random_state=0).fit(X, Y)
    of_all = -model.predict_log_proba(X)[np.arange(150), Y].mean()
    assert model.loss_ == pytest.approx(of_all, rel=1e-9)  # the last batch of 10 counts for 10


@pytest.mark.filterwarnings("error")
def test_where_the_epochs_ran_out_it_warns_and_where_it_stopped_by_itself_not():
    with pytest.warns(ConvergenceWarning, match="max_iter: 3 epochs"):
        FNNClassifier(max_iter=3).fit(X, Y)
    FNNClassifier(tol=0.5, random_state=0).fit(X, Y)


@pytest.mark.parametrize("kind", BOTH)
def test_with_early_stopping_the_best_epoch_on_what_was_held_out_counts(kind):
    how = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 5, "learning_rate_init": 0.05}
    y = np.where(RNG.random(150) < 0.3, 0, Y)
    model = kind(random_state=0, **how).fit(X, y)
    assert model.n_iter_ == len(model.validation_scores_) < 200
    assert model.best_validation_score_ == max(model.validation_scores_)
    split = {"test_size": 0.3, "random_state": np.random.RandomState(0)}
    _, held_x, _, held_y = train_test_split(X, y, stratify=y if kind is FNNClassifier else None, **split)
    assert model.score(held_x, held_y) == pytest.approx(model.best_validation_score_, rel=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        np.where(np.arange(30) == 0, 7, Y[:150:5]),  # a class of one
        (np.arange(30) == 0).astype(int),
        np.arange(30) // 2,  # fewer held out than classes
        np.arange(20),  # classes of one only
        np.stack([Y[:150:5] == 0, Y[:150:5] > 0], axis=1).astype(int),
    ],
)
def test_early_stopping_fits_whatever_the_classes(labels):
    model = FNNClassifier(hidden_layer_sizes=3, early_stopping=True, **SOON).fit(X[::5][: len(labels)], labels)
    assert len(model.validation_scores_) == 5
    assert np.isfinite(model.validation_scores_).all()


def test_what_is_held_out_keeps_the_shares_of_classes_where_that_can_be_had():
    labels = np.repeat([0, 1, 2, 3], [40, 40, 19, 1])
    used, held = held_out(100, 0.2, np.random.RandomState(0), labels=labels)
    assert sorted([*used, *held]) == list(range(100))
    assert np.bincount(labels[held], minlength=4).tolist() == [8, 8, 4, 0]
    weights = np.where(labels == 0, 0.0, 1.0)
    used, held = held_out(100, 0.2, np.random.RandomState(0), weights, labels)
    assert sorted([*used, *held]) == list(range(100))
    assert (np.bincount(labels[held]).tolist(), len(held)) == ([0, 8, 4], 12)  # ⌈0.2 · 60⌉
    few = held_out(100, 0.1, np.random.RandomState(0), np.arange(100) < 5)[1]
    assert len(few) == 2
    assert max(few) < 5


@pytest.mark.parametrize(("n", "steps", "largest"), [(150, 1, 150), (430, 2, 215), (501, 3, 167), (1000, 5, 200)])
def test_batches_are_of_about_200_examples_and_alike(n, steps, largest):
    model = FNNRegressor(max_iter=3).fit(RNG.normal(size=(n, 2)), RNG.normal(size=n))
    assert int(model._state.step) == 3 * steps
    assert model._batch(n) == largest


@pytest.mark.parametrize("kind", BOTH)
def test_parts_make_a_whole(kind):
    whole = kind(**SOON | {"max_iter": 6}).fit(X, Y)
    parts = kind(random_state=0)
    for i in range(6):
        parts.partial_fit(X, Y, **({"classes": [0, 1, 2]} if kind is FNNClassifier and i == 0 else {}))
    same(parts, whole)
    warm = kind(random_state=0, warm_start=True, max_iter=3)
    same(warm.fit(X, Y).fit(X, Y), whole)
    assert warm.loss_curve_ == whole.loss_curve_ == parts.loss_curve_
    assert (warm.n_iter_, warm.t_) == (3, 900)
    anew = kind(random_state=0, max_iter=3).fit(X, Y)
    same(anew.fit(X, Y), kind(random_state=0, max_iter=3).fit(X, Y))


@pytest.mark.parametrize("batch_size", ["auto", 4])
def test_of_parts_of_unequal_length_every_example_is_used_exactly_once(batch_size):
    """The slope of |p − y| is 1 where p is above y: each use moves its own weight by η / (its batch's size)."""
    how = {"hidden_layer_sizes": (), "alpha": 0, "solver": fnn.Sgd, "learning_rate_init": 1.0, "standardize": False}
    model = FNNRegressor("absolute_error", batch_size=batch_size, random_state=0, **how)
    model.partial_fit(np.eye(13)[:1], [-1e6])
    for epoch, n in enumerate((10, 7, 13, 1, 12), start=1):
        before = model.coefs_[0][:, 0].copy()
        model.partial_fit(np.eye(13)[:n], np.full(n, -1e6))
        size = n if batch_size == "auto" else min(4, n)
        sizes = [size] * (n // size * size) + [n % size] * (n % size)  # of each example's batch
        moved = before - model.coefs_[0][:, 0]
        np.testing.assert_allclose(np.sort(moved[:n]), np.sort(1 / np.array(sizes)), rtol=1e-9)
        assert (moved[n:] == 0).all()
        assert (int(model._state.epoch), int(model._state.seen)) == (epoch + 1, 0)


def test_classes_that_come_later_are_known_from_the_first_part():
    model = FNNClassifier(random_state=0, learning_rate_init=0.05)
    for _ in range(30):
        for start in range(0, 150, 50):  # one class each
            model.partial_fit(X[start : start + 50], NAMES[Y[start : start + 50]], classes=NAMES)
    assert model.score(X, NAMES[Y]) > 0.6


def test_a_weight_is_so_many_examples():
    weights = RNG.integers(0, 4, 150)
    how = {"random_state": 0, "batch_size": 600, "max_iter": 20}
    weighted = FNNClassifier(**how).fit(X, Y, sample_weight=weights)
    repeated = FNNClassifier(**how).fit(X.repeat(weights, axis=0), Y.repeat(weights))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("how", [{}, {"early_stopping": True}])
@pytest.mark.numpy_alone
def test_only_the_ratios_of_weights_matter(kind, how):
    weights = RNG.integers(1, 4, 150)
    fit = lambda w: kind(hidden_layer_sizes=5, batch_size=60, max_iter=3, random_state=0, **how).fit(X, Y, w)
    alike, weighted = fit(None), fit(weights)
    for scale in (1 / 150, 1e-300, 1e306):  # whose sum overflows
        np.testing.assert_allclose(fit(np.full(150, scale)).predict(X), alike.predict(X), rtol=1e-9)
        np.testing.assert_allclose(fit(weights * scale).predict(X), weighted.predict(X), rtol=1e-9)
    parts = [kind(**SOON).fit(X, Y).partial_fit(X, 2 - Y, w) for w in (weights, weights * 1e-300)]
    np.testing.assert_allclose(parts[0].predict(X), parts[1].predict(X), rtol=1e-9)


def test_boosting_learns():
    boosted = AdaBoostClassifier(FNNClassifier((5,), max_iter=20, learning_rate_init=0.05), n_estimators=3)
    assert boosted.set_params(random_state=0).fit(X, Y).score(X, Y) > 0.9


def test_the_rate_falls_by_inverse_scaling_and_where_it_is_adaptive():
    rate = InverseScaling(0.5, 0.5, 150.0, 4.0)
    assert [round(rate(step), 6) for step in (0, 3, 4, 8)] == [
        0.5,
        0.5,
        round(0.5 / 151**0.5, 6),
        round(0.5 / 301**0.5, 6),
    ]
    how = {"solver": "sgd", "random_state": 0, "batch_size": 50, "max_iter": 30}
    plain, scaled = (FNNClassifier(learning_rate=name, **how).fit(X, Y) for name in ("constant", "invscaling"))
    assert scaled._state.optimizer.learning_rate == InverseScaling(*np.float64([0.005, 0.5, 150, 3]))
    assert plain.loss_curve_[0] == scaled.loss_curve_[0]
    assert scaled.loss_ > plain.loss_
    slower = FNNClassifier(solver="sgd", learning_rate="adaptive", learning_rate_init=0.1, tol=1e-2, random_state=0)
    slower.fit(X, Y)
    assert 5 * 11 < slower.n_iter_ < 200  # it went on at several rates
    assert float(slower._state.optimizer.learning_rate) < 1e-6


def test_examples_are_shuffled_unless_it_is_told_not_to():
    losses = [FNNClassifier(shuffle=shuffle, batch_size=50, **SOON).fit(X, Y).loss_curve_ for shuffle in (True, False)]
    assert losses[0][0] != losses[1][0]
    by_class = FNNClassifier(shuffle=False, batch_size=50, learning_rate_init=1e-15, alpha=0, **SOON).fit(X, Y)
    assert by_class.loss_curve_[0] == pytest.approx(-by_class.predict_log_proba(X)[np.arange(150), Y].mean(), rel=1e-9)


def test_many_examples_are_predicted_some_at_a_time():
    model = FNNRegressor(**SOON).fit(X, Y)
    np.testing.assert_array_equal(model.predict(np.tile(X, (140, 1))), np.tile(model.predict(X), 140))


def test_solvers_are_the_optimizers_they_name():
    kinds = {
        "adam": fnn.Adam,
        "sgd": fnn.Nesterov,
        fnn.Lion: fnn.Lion,
    }
    for solver, kind in kinds.items():
        model = FNNClassifier(solver=solver, learning_rate_init=0.02, **SOON).fit(X, Y)
        assert type(model._state.optimizer) is kind
        assert model._state.optimizer.learning_rate == np.float64(0.02)
    options = {"solver": "sgd", "nesterovs_momentum": False, **SOON}
    assert type(FNNClassifier(**options).fit(X, Y)._state.optimizer) is fnn.Momentum
    assert type(FNNClassifier(momentum=0, **options).fit(X, Y)._state.optimizer) is fnn.Sgd
    beta = FNNClassifier(beta_1=0.8, beta_2=0.9, epsilon=1e-3, **SOON).fit(X, Y)._state.optimizer
    assert (float(beta.b1), float(beta.b2), float(beta.eps)) == (0.8, 0.9, 1e-3)


# ---- L-BFGS ----------------------------------------------------------------------------------------------------------

SMALL = {"hidden_layer_sizes": (5,), "activation": "tanh", "random_state": 0}


@pytest.mark.parametrize("kind", BOTH)
def test_lbfgs_ends_at_a_minimum_of_scikit_learns_objective(kind):
    """Of the mean cost plus ½ α/n Σ w², as scikit-learn has it for this solver, with weights too."""
    weights = np.linspace(0.5, 1.5, len(X))
    model = kind(solver="lbfgs", alpha=3.0, tol=1e-6, max_iter=500, **SMALL).fit(X, Y, sample_weight=weights)
    x = fnn.Standardize().apply(model.params_[0].params, X)
    mean = np.average(Y, weights=weights)
    std = np.sqrt(np.average((Y - mean) ** 2, weights=weights))
    classes, numbers = (fnn.SoftmaxCrossEntropy(), Y), (fnn.Quadratic(), ((Y - mean) / std)[:, None])
    loss, y = classes if kind is FNNClassifier else numbers
    cost = fnn.value_and_grad(model._net, loss, penalty=fnn.L2(3.0 / len(X)))
    value, grads = cost(model._state.params, x, y, weights)
    assert max(abs(g).max() for g in fnn.trees.leaves(grads)) < 1e-4
    np.testing.assert_allclose(model.loss_, value, rtol=1e-9)
    assert 0 < model.n_iter_ < 500


def test_lbfgs_takes_no_more_iterations_than_it_may_and_says_so():
    with pytest.warns(ConvergenceWarning, match="max_iter: 7 iterations are done"):
        assert FNNClassifier(solver="lbfgs", max_iter=7, **SMALL).fit(X, Y).n_iter_ == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FNNClassifier(solver="lbfgs", max_iter=500, alpha=3.0, **SMALL).fit(X, Y)


def test_lbfgs_is_the_same_whoever_listens(capsys):
    told, options = [], {"solver": "lbfgs", "max_iter": 12, "alpha": 3.0, **SMALL}
    alone = FNNClassifier(**options).fit(X, Y)
    loud = FNNClassifier(verbose=True, callbacks=(lambda epoch: told.append(epoch.metrics["loss"]),), **options).fit(
        X, Y
    )
    for a, b in zip(params_of(alone), params_of(loud), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert (loud.n_iter_, alone.n_iter_) == (12, 12)
    assert told == loud.loss_curve_ == sorted(told, reverse=True)
    assert capsys.readouterr().out.count("Iteration") == 12
    held = FNNClassifier(early_stopping=True, n_iter_no_change=3, **options | {"max_iter": 100}).fit(X, Y)
    assert held.best_validation_score_ == max(held.validation_scores_)
    assert held.n_iter_ == len(held.validation_scores_) < 100


def test_lbfgs_goes_on_with_warm_start_and_takes_no_parts():
    model = FNNClassifier(solver="lbfgs", warm_start=True, alpha=3.0, max_iter=10, **SMALL).fit(X, Y)
    first = model.loss_
    assert model.fit(X, Y).loss_ < first
    with pytest.raises(errors.ArgumentError, match="solver: expected another than 'lbfgs' for partial_fit"):
        model.partial_fit(X, Y)


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
def test_lbfgs_is_as_accurate_as_scikit_learns(load):
    x, y = load(return_X_y=True)
    x, scores = StandardScaler().fit_transform(x), []
    for kind in (FNNClassifier, MLPClassifier):
        model = lambda seed, kind=kind: kind((20,), solver="lbfgs", alpha=1e-4, random_state=seed)
        scores.append(np.mean([model(seed).fit(x[::2], y[::2]).score(x[1::2], y[1::2]) for seed in range(3)]))
    assert scores[0] > scores[1] - 0.02, scores


@pytest.mark.parametrize("name", ["identity", "logistic", "tanh", "relu"])
def test_activations_are_those_they_name(name):
    model = FNNClassifier((7, 6), activation=name, **SOON).fit(X, Y)
    theirs = MLPClassifier((7, 6), activation=name, **SOON).fit(X, Y)
    theirs.coefs_, theirs.intercepts_ = model.coefs_, model.intercepts_
    scaled = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(theirs.predict_proba(scaled), model.predict_proba(X), rtol=1e-9)


def test_a_penalty_makes_weights_smaller():
    small, large = (FNNClassifier(alpha=alpha, **SOON | {"max_iter": 50}).fit(X, Y) for alpha in (0, 100))
    size = [sum((w**2).sum() for w in model.coefs_) for model in (large, small)]
    assert size[0] < size[1] / 2


# ---- callbacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_callbacks_are_told_of_each_epoch_and_change_nothing_by_listening(early_stopping):
    records, how = [], {"hidden_layer_sizes": 5, "early_stopping": early_stopping, **SOON}
    model = FNNClassifier(callbacks=(records.append,), **how).fit(X, Y)
    same(model, FNNClassifier(**how).fit(X, Y))
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5]
    assert [record.metrics["loss"] for record in records] == model.loss_curve_ == records[-1].history["loss"].tolist()
    assert {record.learning_rate for record in records} == {0.005}
    if early_stopping:
        assert records[-1].history["validation_score"].tolist() == model.validation_scores_
    model.set_params(early_stopping=False).partial_fit(X, Y)
    assert (len(records), records[-1].epoch) == (6, int(model._state.epoch))  # counted from the network that was kept
    assert records[-1].history["loss"].tolist() == model.loss_curve_


@pytest.mark.filterwarnings("error")
def test_callbacks_stop_the_run_and_change_its_state(tmp_path):
    stop = lambda record: fnn.callbacks.STOP if record.epoch == 3 else None
    model = FNNRegressor(callbacks=(fnn.callbacks.CsvLog(tmp_path / "run.csv"), stop), random_state=0).fit(X, Y)
    assert model.n_iter_ == 3  # and there is no warning that it has not converged
    rows = (tmp_path / "run.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("epoch,step,seconds,learning_rate,loss", 4)
    plateau = fnn.callbacks.Plateau(0.5, patience=1, min_delta=1e3)
    fallen = FNNRegressor(callbacks=(plateau, stop), random_state=0).fit(X, Y)
    assert float(fallen._state.optimizer.learning_rate) == 0.00025
    clone(fallen).fit(X, Y)
    with pytest.raises(errors.KindError, match="learning_rate"):
        FNNRegressor(callbacks=(plateau,), learning_rate="invscaling").fit(X, Y)


# ---- a run that is continued -----------------------------------------------------------------------------------------


def test_of_parts_the_mean_and_deviation_are_those_of_the_whole():
    weights = RNG.integers(0, 3, 150)
    merged = None
    for part in (slice(0, 10), slice(10, 90), slice(90, 150)):
        merged = Seen.of(X[part], None, merged)
    np.testing.assert_allclose(merged.mean, X.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(merged.std, X.std(axis=0), rtol=1e-13)
    first = Seen.of(X, weights)
    again = Seen.of(X, weights, first)
    assert again.n == 2 * first.n == 2 * np.count_nonzero(weights)
    assert (again.mean == first.mean).all()
    assert (again.std == first.std).all()


@pytest.mark.parametrize("first", ["constant", "narrow", "far"])
@pytest.mark.numpy_alone
def test_a_first_part_that_is_unlike_the_rest_does_no_harm(first):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    x[:20] = {"constant": 0.5, "narrow": 0.5 + 1e-6 * x[:20], "far": 5 + 0.1 * x[:20]}[first]
    y = np.tanh(x[:, 0]) + x[:, 1] ** 2 / (1 + x[:, 1] ** 2)
    model = FNNRegressor(hidden_layer_sizes=30, learning_rate_init=0.02, batch_size=60, random_state=0)
    for _ in range(40):
        for part in (slice(0, 20), slice(20, 200)):
            model.partial_fit(x[part], y[part])
    assert model.score(x[20:], y[20:]) > 0.9
    scale = model.params_[0].params
    assert (abs(scale.mean - x.mean(axis=0)) <= x.std(axis=0)).all()
    assert (abs(np.log(scale.std / x.std(axis=0))) <= np.log(3)).all()


def test_parts_that_are_like_the_rest_change_predictions_by_training_only():
    model = FNNRegressor(max_iter=20, random_state=0).fit(X[::2], X[::2, 0])
    before = model.predict(X)
    model.set_params(learning_rate_init=1e-15).partial_fit(X[1::2], X[1::2, 0])
    np.testing.assert_allclose(model.predict(X), before, rtol=1e-9)


@pytest.mark.numpy_alone
def test_a_warm_start_is_measured_by_its_own_data():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(300, 2)), rng.normal(size=300)
    how = {"batch_size": 50, "warm_start": True, "learning_rate_init": 0.01, "max_iter": 40, "random_state": 0}
    held = FNNRegressor(early_stopping=True, **how).fit(x, x[:, 0])
    assert held.score(x, x[:, 0]) > 0.99
    held.fit(x, x[:, 1] + 0.2 * noise)  # on which no network can be as good
    assert 0.9 < held.best_validation_score_ < 0.99
    assert held.score(x, x[:, 1]) > 0.95
    loss = FNNRegressor(**how).fit(x, x[:, 0])
    easy = loss.best_loss_
    loss.fit(x, x[:, 0] + noise)  # a loss that never comes near that of the first data
    assert loss.n_iter_ > 20
    assert loss.best_loss_ > 10 * easy


def test_a_warm_start_goes_on_from_the_network_that_was_kept():
    model = FNNClassifier(early_stopping=True, learning_rate_init=0.1, random_state=0).fit(X, Y)
    kept = model.predict_proba(X)
    model.set_params(warm_start=True, learning_rate_init=1e-15, early_stopping=False, max_iter=1).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(X), kept, rtol=1e-9)


def test_a_run_that_is_continued_has_the_present_parameters():
    for more in (lambda m: m.fit(X, Y), lambda m: m.partial_fit(X, Y)):
        model = FNNRegressor(warm_start=True, **SOON).fit(X, Y)
        moments = model._state.opt_state.count
        more(model.set_params(learning_rate_init=0.25, activation="tanh", loss="huber", alpha=3.0))
        assert model._state.optimizer.learning_rate == 0.25
        assert model._state.opt_state.count > moments  # it is the same optimizer
        assert model.net_.layers[2] == fnn.Tanh()
        more(model.set_params(solver="sgd", learning_rate_init=0.125))
        assert type(model._state.optimizer) is fnn.Nesterov
        assert model._state.opt_state.count < 6
        assert model._state.optimizer.learning_rate == 0.125
        for name, value in {"hidden_layer_sizes": 3, "standardize": False, "loss": "poisson"}.items():
            before, predicted = model.get_params()[name], model.predict(X)
            with pytest.raises(errors.ArgumentError, match=f"{name}: expected .*warm_start=False"):
                more(model.set_params(**{name: value}))
            np.testing.assert_array_equal(model.predict(X), predicted)
            model.set_params(**{name: before})
    some = FNNClassifier(warm_start=True, **SOON).fit(X, Y)
    with pytest.raises(errors.ArgumentError, match="y: expected all classes of the last fit"):
        some.fit(X[:100], Y[:100])
    some.partial_fit(X[:100], Y[:100])


def test_each_fit_begins_with_the_rate_it_is_given():
    model = FNNClassifier(solver="sgd", learning_rate="adaptive", warm_start=True, tol=0.5, random_state=0).fit(X, Y)
    assert model._state.optimizer.learning_rate < 1e-6
    model.set_params(tol=0, max_iter=2).fit(X, Y)
    assert model._state.optimizer.learning_rate == 0.005


def test_inverse_scaling_counts_the_examples_of_all_parts():
    model = FNNRegressor(solver="sgd", learning_rate="invscaling", batch_size=40, random_state=0)
    for n in (150, 150, 10, 90):
        seen = getattr(model, "t_", 0)
        model.partial_fit(X[:n], Y[:n])
        rate, last = model._state.optimizer.learning_rate, int(model._state.opt_state.count) - 1
        assert rate(last) == pytest.approx(0.001 / (1 + seen) ** 0.5, rel=1e-12)
        assert rate(last + 1) == pytest.approx(0.001 / (1 + seen + n) ** 0.5, rel=1e-12)
        assert model.t_ == seen + n
    model.set_params(momentum=0).partial_fit(X, Y)  # another optimizer, whose steps are counted from 0
    rate = model._state.optimizer.learning_rate
    assert rate(0) == rate(3) == pytest.approx(0.001 / (1 + 400) ** 0.5, rel=1e-12)
    assert rate(4) == pytest.approx(0.001 / (1 + 550) ** 0.5, rel=1e-12)


def interrupted(monkeypatch, after):
    """Ctrl-C in the epoch that follows so many calls of the loop."""
    calls = iter(range(100))

    def advance(*arguments):
        if next(calls) == after:
            raise KeyboardInterrupt
        return loop.advance(*arguments)

    monkeypatch.setattr(running, "advance", advance)


@pytest.mark.parametrize("how", [{"verbose": True}, {"early_stopping": True}])
def test_ctrl_c_keeps_the_epochs_before_it(how, monkeypatch):
    how = {"random_state": 0, **how}
    for after in (3, 0):
        with monkeypatch.context() as patched:
            interrupted(patched, after)
            model = FNNClassifier(**how)
            with pytest.warns(UserWarning, match=f"interrupted after {after} epochs"):
                assert model.fit(X, Y) is model
        assert model.n_iter_ == len(model.loss_curve_) == after
        if after:
            same(model, FNNClassifier(max_iter=after, **how).fit(X, Y))
    assert model.predict(X).shape == (150,)


def test_ctrl_c_ends_a_loop_of_parts_and_leaves_the_network_of_before(monkeypatch):
    model = FNNRegressor(**SOON).fit(X, Y)
    before = model.predict(X)
    interrupted(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), before)


# ---- what scikit-learn's own do --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_attributes_without_a_meaning_are_none(kind):
    plain, held = (kind(early_stopping=early, **SOON).fit(X, Y) for early in (False, True))
    assert plain.validation_scores_ is plain.best_validation_score_ is held.best_loss_ is None
    assert (type(plain.best_loss_), len(held.validation_scores_)) == (float, 5)
    held.set_params(early_stopping=False)
    held.partial_fit(X, Y)
    assert held.validation_scores_ is held.best_validation_score_ is None
    assert held.best_loss_ == held.loss_
    assert kind(**SOON).fit(X, Y).out_activation_ == ("softmax" if kind is FNNClassifier else "identity")
    assert FNNRegressor("poisson", **SOON).fit(X, Y).out_activation_ == "exp"


@pytest.mark.parametrize("kind", BOTH)
def test_float32_and_float64_give_the_same_network_but_for_rounding(kind):
    x = X.astype(np.float32)
    narrow, wide = (kind(batch_size=40, random_state=0, max_iter=20).fit(x, Y) for x in (x, x.astype(np.float64)))
    for a, b in zip(params_of(narrow), params_of(wide), strict=True):
        assert (a.dtype, b.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_early_stopping_does_not_warn_of_names_of_features(monkeypatch):
    def with_names(model, *data, **options):
        checked = validate_data(model, *data, **options)
        model.feature_names_in_ = np.array(list("abcd"), object)  # as a frame would have given them
        return checked

    monkeypatch.setattr(base, "validate_data", with_names)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        FNNClassifier(early_stopping=True, **SOON).fit(X, Y)


def test_the_best_epoch_is_kept_of_a_run_that_diverges_after_it():
    how = {"solver": "sgd", "early_stopping": True, "random_state": 0}
    model = FNNRegressor(learning_rate_init=30, **how)
    with np.errstate(all="ignore"), pytest.warns(ConvergenceWarning, match="lower learning_rate_init .*best epoch's"):
        model.fit(X, Y)
    assert math.isnan(model.validation_scores_[-1])
    assert model.n_iter_ == len(model.validation_scores_) < 200
    assert model.score(X, Y) < np.inf
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError, match="lower learning_rate"):
        FNNRegressor(learning_rate_init=1e200, **how).fit(X, Y)


def test_logarithms_of_probabilities_are_finite_where_probabilities_are_0():
    for classes, x in ((2, X[:100]), (3, X)):
        model = FNNClassifier(max_iter=50, random_state=0).fit(x.astype(np.float32), Y[: len(x)])
        far = (x * 1e4).astype(np.float32)
        z, log_p = model.net_.apply(model.params_, far), model.predict_log_proba(far)
        z = np.hstack([0 * z, z]) if classes == 2 else z
        z = z - z.max(axis=1, keepdims=True)  # the largest is far away from the others
        assert z.min() < -1000
        np.testing.assert_allclose(log_p, z, rtol=1e-5, atol=1)
    z = np.float32([[18.0]])
    model = FNNClassifier(random_state=0, standardize=False, max_iter=1).fit([[0.0], [1.0]], [0, 1])
    model.net_, model.params_ = fnn.Identity(), ()
    np.testing.assert_allclose(model.predict_proba(z)[0], [1.5229979e-8, 1], rtol=1e-6)
    np.testing.assert_allclose(model.predict_log_proba(z)[0], [-18.000000015229979, -1.5229979e-8], rtol=1e-6)


# ---- what is wrong ---------------------------------------------------------------------------------------------------

WRONG = {
    "hidden_layer_sizes": [(0,), -1, "100", 2.5, (3, "x")],
    "activation": ["Relu", fnn.Relu, None, 3],
    "solver": ["newton", None, 3],
    "learning_rate": ["fast", 0.1],
    "backend": ["torch", 1],
    "alpha": [-1, math.nan, "0"],
    "learning_rate_init": [0, -1.0, math.inf],
    "power_t": [-1],
    "tol": [-1e-9],
    "momentum": [1, -0.1],
    "validation_fraction": [0, 1],
    "beta_1": [1],
    "beta_2": [-0.1],
    "epsilon": [0],
    "max_iter": [0, 1.5],
    "n_iter_no_change": [0, "ten"],
    "batch_size": [0, "all", 1.5],
    "dropout": [1, -0.1],
    "callbacks": [print, [3]],
    "shuffle": ["no", 1],
    "warm_start": ["no"],
    "early_stopping": [None],
}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", WRONG)
def test_a_parameter_that_makes_no_sense_is_named(name, kind):
    for value in WRONG[name]:
        with pytest.raises((ValueError, TypeError), match=name) as caught:
            kind(**{name: value}).fit(X, Y)
        assert isinstance(caught.value, errors.FnnError)


BAD = {
    "nan": (lambda: FNNClassifier().fit(X * np.nan, Y), "NaN"),
    "one row more": (lambda: FNNClassifier().fit(X, Y[1:]), "inconsistent numbers of samples"),
    "numbers as classes": (lambda: FNNClassifier().fit(X, X[:, 0]), "Unknown label type: continuous"),
    "weights all 0": (lambda: FNNClassifier().fit(X, Y, np.zeros(150)), "sample_weight: .* all are zero"),
    "weights below 0": (
        lambda: FNNRegressor().fit(X, Y, -np.ones(150)),
        "sample_weight: expected numbers of at least 0",
    ),
    "weights too few": (lambda: FNNRegressor().fit(X, Y, np.ones(149)), "sample_weight: expected shape"),
    "counts below 0": (lambda: FNNRegressor("poisson").fit(X, -Y), "at least 0"),
    "loss": (lambda: FNNRegressor("log").fit(X, Y), "loss: expected one of squared_error"),
    "other features": (lambda: FNNClassifier(**SOON).fit(X, Y).predict(X[:, 1:]), "expecting 4 features"),
    "held out too few": (
        lambda: FNNRegressor(early_stopping=True, validation_fraction=0.001).fit(X, Y),
        "validation_fraction: expected a fraction that holds out",
    ),
    "no classes": (lambda: FNNClassifier().partial_fit(X, Y), "classes: expected all classes on the first call"),
    "other classes": (
        lambda: FNNClassifier().partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y, classes=[0, 1]),
        "classes: expected those of the first call",
    ),
    "a class too many": (lambda: FNNClassifier().partial_fit(X, Y, classes=[0, 1]), "y: expected classes of"),
    "labels after classes": (
        lambda: FNNClassifier().partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, np.eye(3, dtype=int)[Y]),
        "y: expected classes of",
    ),
    "weights complex": (lambda: FNNRegressor().fit(X, Y, np.full(150, 1j)), "sample_weight: expected real numbers"),
    "weights held out": (
        lambda: FNNClassifier(early_stopping=True).fit(X, Y, np.arange(150) < 2),
        "validation_fraction: .* with a sample_weight above 0, and leaves at least 1, got 2 of 2",
    ),
    "all held out": (
        lambda: FNNRegressor(early_stopping=True, validation_fraction=0.999).fit(X, Y),
        "validation_fraction: .* leaves at least 1, got 150 of 150",
    ),
    "words": (lambda: FNNClassifier().fit(NAMES[Y][:, None], Y), "X and y: expected numbers.*setosa.*get_dummies"),
    "words as targets": (lambda: FNNRegressor().fit(X, NAMES[Y]), "y: expected numbers, got .*setosa"),
    "class_weight of a word": (lambda: FNNClassifier(class_weight="equal").fit(X, Y), "class_weight: .*'balanced'"),
    "class_weight below 0": (
        lambda: FNNClassifier(class_weight={0: -1.0}).fit(X, Y),
        "class_weight: expected numbers of at least 0",
    ),
    "class_weight of a class that is not there": (
        lambda: FNNClassifier(class_weight={0: 1.0, 7: 2.0}).fit(X, Y),
        "class_weight: .*are not in class_weight",
    ),
    "class_weight all 0": (lambda: FNNClassifier(class_weight=dict.fromkeys(range(3), 0)).fit(X, Y), "all are zero"),
    "a balanced part": (
        lambda: FNNClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2]),
        "class_weight: expected a dict for partial_fit",
    ),
    "class_weight of a regressor": (
        lambda: FNNRegressor(class_weight="balanced"),
        "^FNNRegressor has no parameter class_weight",
    ),
    "unknown parameter": (
        lambda: FNNRegressor(hidden_sizes=3),
        "^FNNRegressor has no parameter hidden_sizes; expected some of .*hidden_layer_sizes",
    ),
    "a call without y": (lambda: FNNClassifier().fit(X), r"^FNNClassifier.fit\(\) missing .*'y'"),
    "a call without y, regressed": (lambda: FNNRegressor().fit(X), r"^FNNRegressor.fit\(\) missing .*'y'"),
    "dropout begun": (
        lambda: FNNClassifier(warm_start=True, **SOON).fit(X, Y).set_params(dropout=0.5).fit(X, Y),
        "dropout: expected 0, as in the last fit, which is continued, got 0.5",
    ),
    "dropout in whole batches": (
        lambda: FNNClassifier(solver="lbfgs", dropout=0.5).fit(X, Y),
        "dropout: expected 0 with solver='lbfgs'",
    ),
    "dropout ended": (
        lambda: FNNRegressor(dropout=0.5, **SOON).fit(X, Y).set_params(dropout=0.0).partial_fit(X, Y),
        "dropout: expected above 0, as in the last fit",
    ),
    "a part, held out": (
        lambda: FNNClassifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2]),
        "early_stopping: expected False",
    ),
    "adaptive": (
        lambda: FNNRegressor(solver=lambda r: fnn.Average(fnn.Sgd(r), 0.9), learning_rate="adaptive").fit(X, Y),
        "learning_rate: expected 'constant' or",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_data_that_cannot_be_learnt_from_are_refused(name):
    make, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_run_that_diverges_says_so_and_leaves_no_network():
    model = FNNRegressor(solver="sgd", learning_rate_init=1e200, random_state=0)
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError, match=r"epoch .* lower learning_rate_init"):
        model.fit(X, Y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    whole = FNNRegressor(solver="lbfgs", standardize=False)
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError, match=r"epoch 0: .*; standardize=True helps"):
        whole.fit(X * 1e200, Y)
    fitted = FNNRegressor(**SOON).fit(X, Y).set_params(solver="sgd", learning_rate_init=1e200)
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError):
        fitted.fit(X, Y)
    with pytest.raises(NotFittedError):  # the network of before would not go with what is known of the data since
        fitted.predict(X)


def test_no_parameter_that_is_not_finite_is_left_by_the_last_step():
    model = FNNRegressor(solver="sgd", learning_rate_init=1.7e308, max_iter=1, standardize=False, random_state=0)
    with np.errstate(all="ignore"), pytest.raises(errors.DivergenceError, match="epoch 1: a parameter is not finite"):
        model.fit(X, 10.0 * Y)
    assert np.isfinite(model.loss_)


def test_scikit_learn_is_not_imported_with_fnn_and_where_it_is_missing_the_extra_is_named():
    code = """
import sys
sys.modules["sklearn"] = None
import fnn
try:
    import fnn.sklearn
except fnn.errors.MissingExtraError as error:
    assert "fnn[sklearn]" in str(error), error
else:
    raise SystemExit("imported")
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""The estimators are what scikit-learn asks of one, take what its own take, and learn with what fnn is."""

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
from sklearn.datasets import load_diabetes, load_digits, load_iris
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
from fnn import errors
from fnn.backend import jax
from fnn.sklearn import FNNClassifier, FNNRegressor, InverseScaling, base
from fnn.sklearn.base import Seen
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
    own = {"standardize", "class_weight", "backend"}
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
    monkeypatch.setattr(fnn.sklearn.base, "WORTH_COMPILING", 1000)
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

    monkeypatch.setattr(base, "advance", advance)


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
    "solver": ["lbfgs", None, 3],
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
        lambda: FNNClassifier(early_stopping=True).fit(X, Y, np.arange(150) == 0),
        "sample_weight: expected weights above 0 in training and held out",
    ),
    "a class of one": (
        lambda: FNNClassifier(early_stopping=True).fit(X, np.where(np.arange(150) == 0, 3, Y)),
        r"early_stopping: .*too few members are: \[3\].*early_stopping=False",
    ),
    "fewer held out than classes": (
        lambda: FNNClassifier(early_stopping=True).fit(X[::10], Y[::10]),
        "early_stopping: .*number of classes = 3.*validation_fraction",
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

"""Each metric is scikit-learn's, on both backends, compiled and in lanes; and what it refuses."""

import functools
import warnings

import numpy as np
import oracle
import pytest
from helpers import THOROUGH
from helpers_training import on_numpy_at_least
from sklearn import metrics as theirs

import fnn
from fnn import errors

N, C = 200, 7


def draws():
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, C, N), rng.random(N).astype(np.float32) * (rng.random(N) < 0.8)
    scores = rng.normal(size=(N, C)) + 1.5 * np.eye(C)[labels]
    target = rng.normal(size=(N, 3)) * (1, 10, 0.1) + (0, 5, 1)
    return scores.astype(np.float32), labels, target.astype(np.float32), weights.astype(np.float32)


SCORES, LABELS, TARGET, WEIGHTS = draws()
GUESS = TARGET + np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)
BITS, CHANCES = LABELS % 2, 1 / (1 + np.exp(-SCORES[:, 0]))

# By name: fnn's metric, scikit-learn's of (target, prediction, sample_weight), and the data of both.
CASES = {
    "accuracy": (fnn.accuracy, lambda y, p, w: theirs.accuracy_score(y, p.argmax(1), sample_weight=w), SCORES, LABELS),
    "accuracy of one output": (
        fnn.accuracy,
        lambda y, p, w: theirs.accuracy_score(y, p[:, 0] > 0.5, sample_weight=w),
        CHANCES[:, None],
        BITS,
    ),
    "top 5": (
        fnn.top_k_accuracy,
        lambda y, p, w: theirs.top_k_accuracy_score(y, p, k=5, sample_weight=w),
        SCORES,
        LABELS,
    ),
    "top 2": (
        functools.partial(fnn.top_k_accuracy, k=2),
        lambda y, p, w: theirs.top_k_accuracy_score(y, p, k=2, sample_weight=w),
        SCORES,
        LABELS,
    ),
    "top 2 of rows": (
        functools.partial(fnn.top_k_accuracy, k=2),
        lambda y, p, w: theirs.top_k_accuracy_score(y.argmax(1), p, k=2, sample_weight=w),
        SCORES,
        np.eye(C, dtype=np.float32)[LABELS],
    ),
    "confusion": (
        fnn.confusion_matrix,
        lambda y, p, w: theirs.confusion_matrix(y, p.argmax(1), sample_weight=w),
        SCORES,
        LABELS,
    ),
    "confusion of bytes": (
        functools.partial(fnn.confusion_matrix, classes=100),
        lambda y, p, w: theirs.confusion_matrix(y, p, sample_weight=w, labels=np.arange(100)),
        np.uint8(SCORES.argmax(axis=1) + 90),
        np.uint8(LABELS + 90),
    ),
    "confusion of one output": (
        fnn.confusion_matrix,
        lambda y, p, w: theirs.confusion_matrix(y, p > 0.5, sample_weight=w),
        CHANCES,
        BITS,
    ),
    "r2": (fnn.r2_score, lambda y, p, w: theirs.r2_score(y, p, sample_weight=w), GUESS, TARGET),
    "r2 of one output": (
        fnn.r2_score,
        lambda y, p, w: theirs.r2_score(y, p, sample_weight=w),
        GUESS[:, 1],
        TARGET[:, 1],
    ),
    "r2 of whole numbers": (
        fnn.r2_score,
        lambda y, p, w: theirs.r2_score(y, p, sample_weight=w),
        SCORES[:, :1],
        np.uint8(LABELS[:, None]),
    ),
    "mean absolute error": (
        fnn.mean_absolute_error,
        lambda y, p, w: theirs.mean_absolute_error(y, p, sample_weight=w),
        GUESS,
        TARGET,
    ),
}
WEIGHTED = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])


@on_numpy_at_least
@WEIGHTED
@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_scikit_learns(name, weights, backend):
    metric, reference, prediction, target = CASES[name]
    xp = np if backend == "numpy" else fnn.backend.jnp
    given = None if weights is None else xp.asarray(weights)
    found = metric(xp.asarray(prediction), xp.asarray(target), weights=given)
    oracle.assert_close(found, np.asarray(reference(target, prediction, weights)), 1e-6)


@WEIGHTED
@pytest.mark.parametrize("name", CASES if THOROUGH else ["accuracy", "top 2", "confusion", "r2", "mean absolute error"])
def test_a_metric_may_be_compiled_and_run_in_lanes(name, weights, needs_jax):
    if weights is None and not THOROUGH:
        pytest.skip("the thorough profile has it without weights, too")
    metric, _, prediction, target = CASES[name]
    lanes = [np.stack([array, array[::-1]]) for array in (prediction, target)]
    weights = weights if weights is None else np.stack([weights, weights])
    f = needs_jax.vmap(lambda p, y, w: metric(p, y, weights=w), in_axes=(0, 0, None if weights is None else 0))
    found = oracle.quick_jit(f)(*lanes, weights)
    for i, lane in enumerate(found):
        alone = metric(lanes[0][i], lanes[1][i], weights=None if weights is None else weights[i])
        oracle.assert_close(lane, alone, 1e-6)


@pytest.mark.parametrize("name", ["top 2", "confusion", "r2", "mean absolute error"])
def test_weights_and_errors_of_float32_give_float32_on_numpy(name):
    metric, _, prediction, target = CASES[name]
    found = metric(prediction, target, weights=WEIGHTS)
    assert found.dtype == np.float32


@pytest.mark.parametrize("metric", [fnn.r2_score, fnn.mean_absolute_error])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whole_numbers_as_target_do_not_widen_a_prediction_nor_is_anything_summed_in_half_precision(metric, dtype):
    found = metric(SCORES[:, 0].astype(dtype), LABELS)
    assert found.dtype == max(np.dtype(dtype), np.dtype(np.float32), key=lambda d: d.itemsize)


ACCURACIES = {
    "labels": ([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 1], None, 2 / 3),
    "rows": ([[0.1, 0.9], [0.8, 0.2]], [[0.0, 1.0], [0.0, 1.0]], None, 0.5),
    "one output": ([[0.9], [0.2], [0.4]], [[1], [0], [1]], None, 2 / 3),
    "one output as a row": ([0.9, 0.2], [1, 0], None, 1.0),
    "weights": ([[0.1, 0.9], [0.8, 0.2]], [1, 1], [3.0, 1.0], 0.75),
}


@on_numpy_at_least
@pytest.mark.parametrize("name", ACCURACIES)
def test_accuracy_is_the_fraction_classified_correctly(name, backend):
    prediction, target, weights, wanted = ACCURACIES[name]
    xp = fnn.backend.jnp if backend == "jax" else np
    weights = None if weights is None else xp.asarray(weights)
    assert float(fnn.accuracy(xp.asarray(prediction), xp.asarray(target), weights)) == pytest.approx(wanted)


def test_the_first_of_equal_entries_wins_as_in_accuracy():
    scores = np.random.default_rng(0).integers(0, 3, (N, C)).astype(np.float32)
    assert fnn.top_k_accuracy(scores, LABELS, k=1) == fnn.accuracy(scores, LABELS)
    assert fnn.top_k_accuracy(scores, LABELS, k=C) == 1


def test_nan_and_a_label_out_of_range_are_no_success():
    assert fnn.top_k_accuracy(np.full((3, C), np.nan), np.arange(3), k=C) == 0
    assert fnn.top_k_accuracy(np.ones((3, C)), np.array([-1, C, 0]), k=C) == pytest.approx(1 / 3)
    assert fnn.confusion_matrix(np.eye(3), np.array([-1, 3, 2])).sum() == 1


@on_numpy_at_least
def test_the_diagonal_of_the_confusion_matrix_is_the_accuracy_and_gives_precision_and_recall(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    m = fnn.confusion_matrix(xp.asarray(SCORES), xp.asarray(LABELS))
    assert float(m.diagonal().sum()) / N == pytest.approx(float(fnn.accuracy(SCORES, LABELS)))
    precision, recall, *_ = theirs.precision_recall_fscore_support(LABELS, SCORES.argmax(axis=1))
    np.testing.assert_allclose(m.diagonal() / m.sum(axis=0), precision, rtol=1e-6)
    np.testing.assert_allclose(m.diagonal() / m.sum(axis=1), recall, rtol=1e-6)


@on_numpy_at_least
@pytest.mark.parametrize("hit", [True, False])
def test_a_constant_target_counts_1_if_it_is_met_and_else_0_as_in_scikit_learn(hit, backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    for constant in (0.1, 1e6, 0.0):  # the mean of N times 0.1 is not 0.1 in float32
        target = np.stack([np.full(N, constant, np.float32), TARGET[:, 0]], axis=1)
        prediction = target if hit else target + np.float32([1.0, 0.0])
        found = float(fnn.r2_score(xp.asarray(prediction), xp.asarray(target)))
        assert found == theirs.r2_score(target.astype(float), prediction.astype(float)) == (1 if hit else 0.5)


def test_a_target_that_is_constant_but_for_examples_of_weight_0_is_constant():
    target, weights = np.full(N, 0.1, np.float32), np.ones(N, np.float32)
    target[0], weights[0] = 1e6, 0
    assert fnn.r2_score(target, target, weights) == 1
    assert fnn.r2_score(target + np.float32(1), target, weights) == 0


@on_numpy_at_least
def test_r2_keeps_its_digits_far_from_0(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    target, prediction = (np.round(8 * array).astype(float) + 1e6 for array in (TARGET, GUESS))  # exact in float32
    found = fnn.r2_score(xp.asarray(prediction, dtype=np.float32), xp.asarray(target, dtype=np.float32))
    assert float(found) == pytest.approx(theirs.r2_score(target, prediction), rel=1e-5)


@on_numpy_at_least
@pytest.mark.parametrize("metric", [fnn.r2_score, fnn.mean_absolute_error])
def test_what_an_example_of_weight_0_holds_does_not_matter(metric, backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    weights, spoilt, guess = WEIGHTS.copy(), TARGET.copy(), GUESS.copy()
    weights[0], spoilt[0], guess[0] = 0, np.nan, np.inf
    found = metric(xp.asarray(guess), xp.asarray(spoilt), xp.asarray(weights))
    assert float(found) == pytest.approx(float(metric(GUESS[1:], TARGET[1:], WEIGHTS[1:])), rel=1e-6)


BAD = {
    "labels that would broadcast": (fnn.accuracy, ((3, 2), (3, 1)), errors.ShapeError, r"got \(3, 1\) for \(3, 2\)"),
    "too few labels": (fnn.confusion_matrix, ((3, 2), (2,)), errors.ShapeError, r"got \(2,\) for \(3, 2\)"),
    "weights as a column": (
        fnn.accuracy,
        ((3, 2), (3,), (3, 1)),
        errors.ShapeError,
        r"weights: .*\(3,\), got \(3, 1\)",
    ),
    "too many weights": (fnn.confusion_matrix, ((3, 2), (3,), (4,)), errors.ShapeError, "weights"),
    "one output of which 5 are taken": (
        fnn.top_k_accuracy,
        ((3, 1), (3,)),
        errors.ShapeError,
        r"\(N, C\), got \(3, 1\)",
    ),
    "5 of 3": (fnn.top_k_accuracy, ((3, 3), (3,)), errors.ArgumentError, "k: expected at most .* classes, 3, got 5"),
    "a column against a row": (fnn.r2_score, ((3, 1), (3,)), errors.ShapeError, r"target: expected shape \(3, 1\)"),
    "a row against a column": (fnn.mean_absolute_error, ((3,), (3, 1)), errors.ShapeError, "target"),
    "a column of weights": (fnn.r2_score, ((3, 1), (3, 1), (3, 1)), errors.ShapeError, "weights"),
}


@on_numpy_at_least
@pytest.mark.parametrize("name", BAD)
def test_shapes_that_would_broadcast_are_refused(name, backend):
    metric, shapes, error, message = BAD[name]
    xp = np if backend == "numpy" else fnn.backend.jnp
    prediction, target, *weights = [xp.ones(shape, np.int32) for shape in shapes]
    with pytest.raises(error, match=message):
        metric(prediction, target, **({"weights": weights[0]} if weights else {}))


def test_numbers_of_classes_that_make_no_sense_are_refused():
    with pytest.raises(errors.ArgumentError, match="k: expected an integer of at least 1, got 0"):
        fnn.top_k_accuracy(SCORES, LABELS, k=0)
    with pytest.raises(errors.KindError, match="classes: expected an integer"):
        fnn.confusion_matrix(LABELS, LABELS, classes=7.0)
    with pytest.raises(errors.ShapeError, match=r"prediction: expected shape \(1400,\), got \(200, 7\)"):
        fnn.confusion_matrix(SCORES, LABELS, classes=C)


def test_scikit_learns_metrics_are_asked_by_fit_and_after_it():
    """As the module says."""
    x, y = TARGET, LABELS % 2
    net, loss, key = fnn.mlp((4, 2)), fnn.SoftmaxCrossEntropy(), fnn.random.key(0, backend="numpy")
    asked = {"auc": lambda p, y: theirs.roc_auc_score(y, p[:, 1]), "r": fnn.accuracy}
    how = {"key": key, "epochs": 2, "batch_size": 50, "validation": (x, y), "metrics": asked}
    state, history = fnn.fit(net, loss, fnn.Sgd(0.1), (x, y), **how)
    probabilities = loss.predict(net.apply(state.params, x))
    assert history["validation_auc"][-1] == pytest.approx(theirs.roc_auc_score(y, probabilities[:, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that was never found has no precision
        report = theirs.classification_report(y, probabilities.argmax(axis=1), output_dict=True)
    assert report["accuracy"] == pytest.approx(history["validation_r"][-1])

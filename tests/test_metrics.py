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


# ---- positions and labels that are ignored ---------------------------------------------------------------------------

T = 5
EACH, TAGS = SCORES.reshape(-1, T, C), np.where(np.arange(N) % 3 == 0, -1, LABELS).reshape(-1, T)
OF_CLASSES = {
    "accuracy": fnn.accuracy,
    "top 2": functools.partial(fnn.top_k_accuracy, k=2),
    "confusion": fnn.confusion_matrix,
}


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS[: N // T], np.arange(N // T)], ids=["", "weighted", "whole numbers"])
def test_a_position_counts_as_an_example_with_its_weight_and_one_that_is_ignored_does_not_count(name, weights):
    metric, counts = OF_CLASSES[name], TAGS.reshape(-1) >= 0
    each = None if weights is None else np.repeat(weights, T)
    for labels, used in ((TAGS, counts), (LABELS.reshape(-1, T), np.ones(N, bool))):
        wanted = metric(SCORES[used], labels.reshape(-1)[used], weights=None if each is None else each[used])
        found = metric(EACH, labels, weights=weights, ignored=-1)
        assert found.dtype == wanted.dtype
        oracle.assert_close(found, wanted, 1e-6)
        flat = metric(SCORES, labels.reshape(-1), weights=each, ignored=-1)
        oracle.assert_close(flat, wanted, 1e-6)


def test_positions_are_counted_in_compiled_code_and_what_would_be_refused_is_nan(needs_jax):
    def run(scores, tags, weights):
        found = [metric(scores, tags, weights=weights, ignored=-1) for metric in OF_CLASSES.values()]
        return found, fnn.accuracy(scores, tags), fnn.accuracy(scores, 0 * tags - 1, ignored=-1)

    wanted = [metric(EACH, TAGS, weights=WEIGHTS[: N // T], ignored=-1) for metric in OF_CLASSES.values()]
    found, *refused = oracle.quick_jit(run)(EACH, TAGS, WEIGHTS[: N // T])
    oracle.assert_close(found, wanted, 1e-6)
    assert np.isnan(refused).all(), "a label out of range, and no label at all"


POSITIONS = {
    "one label per example": (EACH, TAGS[:, 0], None, r"expected labels \(N, 5\) or \(40, 5, 7\), got \(40,\)"),
    "other positions": (EACH, TAGS[:, 1:], None, r"expected labels \(N, 5\).*got \(40, 4\)"),
    "labels in a column": (EACH, TAGS[..., None], None, r"use y\[\.\.\., 0\] for labels"),
    "a label that is not ignored": (EACH, TAGS, None, r"labels from 0 to 6, got -1 at target\[0, 0\]"),
    "weights of positions": (EACH, TAGS, np.ones((40, 5)), r"weights: expected shape \(40,\), got \(40, 5\)"),
    "no label that counts": (EACH, 0 * TAGS + 3, None, "expected a label other than 3"),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_that_do_not_fit_are_refused(name):
    prediction, target, weights, message = POSITIONS[name]
    with pytest.raises(errors.FnnError, match=message):
        fnn.accuracy(prediction, target, weights, ignored=3 if "counts" in name else None)


@on_numpy_at_least
def test_what_a_cost_ignores_no_metric_counts_in_evaluate_fit_and_train(backend):
    net, loss = fnn.Serial((fnn.Embedding(9, 4), fnn.Dense(3))), fnn.SoftmaxCrossEntropy(ignored=-1)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (20, 4)), rng.integers(-1, 3, (20, 4))
    weights, key = rng.integers(1, 4, 20), fnn.random.key(0, backend=backend)
    seen = []
    metrics = OF_CLASSES | {
        "all": lambda p, y: seen.append(y) or 0.0,
        "mine": functools.partial(fnn.accuracy, ignored=-1),
        "others": lambda p, y, ignored=0: float(ignored),
    }
    state, history = fnn.fit(
        net, loss, fnn.Sgd(0.1), (x, y), key=key, epochs=1, batch_size=10, validation=(x, y), metrics=metrics
    )
    p = loss.predict(net.apply(fnn.trees.map(np.asarray, state.params), x))
    wanted = (p.argmax(axis=2) == y)[y >= 0].mean()
    found = fnn.evaluate(net, loss, state.params, (x, y), metrics=metrics)
    for of in (found, {name: history[f"validation_{name}"][-1] for name in metrics}):
        assert of["accuracy"] == of["mine"] == pytest.approx(wanted)
        assert of["confusion"].sum() == (y >= 0).sum()
        assert of["others"] == 0
    assert (seen[0] == y).all(), "a metric without this argument gets all labels"
    how = {"validation": (x, y, weights), "metrics": {"accuracy": fnn.accuracy}, "epochs": 1, "batch_size": 10}
    begun = fnn.init_state(net, fnn.Sgd(0.1), key, (4,))
    last = fnn.train(net, loss, begun, (x, y), **how)[1]["validation_accuracy"][-1]
    each = np.repeat(weights, 4).reshape(20, 4) * (y >= 0)
    assert last == pytest.approx(((p.argmax(axis=2) == y) * each).sum() / each.sum(), rel=1e-6)


# ---- numbers ---------------------------------------------------------------------------------------------------------


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


# ---- what a prediction means -----------------------------------------------------------------------------------------

nan = np.nan
SURE = {  # prediction, target, weights, accuracy
    "labels that are all wrong": ([2, 2, 2, 2], [1, 1, 1, 1], None, 0),
    "labels": ([2, 0, 1, 300], [2, 0, 2, 300], None, 0.75),
    "labels as a column": ([[2], [0]], [2, 1], None, 0.5),
    "labels of integers and of floats": ([2, 0], [2.0, 1.0], None, 0.5),
    "what is true": ([True, False, True], [1, 0, 0], None, 2 / 3),
    "probabilities of one output": ([[0.9], [0.2], [0.4], [0.5]], [[1], [0], [1], [0]], None, 0.75),
    "soft targets of one output": ([0.9, 0.2], [0.95, 0.55], None, 0.5),
    "signs of one output": ([0.3, 0.4, -0.1, 0.2], [1, -1, -1, -1], None, 0.5),
    "signs of one output, as a column": ([[0.3], [-7.0], [0.0]], [[1.0], [-1.0], [1.0]], None, 1),
    "signs that are made, beside targets that are all 1": ([1.0, -1.0, 1.0, 1.0], [1, 1, 1, 1], None, 0.75),
    "float labels": ([[0.1, 0.9], [0.8, 0.2]], [1.0, 1.0], None, 0.5),
    "rows of signs": ([[0.3, 0.2], [-3.0, -2.0]], [[1, -1], [-1, 1]], None, 1),
    "rows of signs that are made": (
        [[1.0, 1, -1], [-1, -1, -1], [-1, 1, -1]],
        [[1, -1, -1]] * 2 + [[-1, 1, -1]],
        None,
        1 / 3,
    ),
    "rows of 0 and 1 of integers": ([[0, 1], [1, 1], [0, 0]], [1, 0, 0], None, 1 / 3),
    "equal scores": ([[0.5, 0.5], [0.5, 0.5]], [0, 1], None, 0.5),
    "infinite scores": ([[0.0, -np.inf], [np.inf, 0.0]], [0, 0], None, 1),
    "nan": ([[nan, nan]] * 2, [0, 1], None, 0),
    "nan beside the true class": ([[nan, 0.9], [0.1, 0.9]], [1, 1], None, 0.5),
    "nan of one output": ([nan, 0.9], [0, 1], None, 0.5),
    "nan of one output with a sign": ([nan, nan, -2.0], [-1, 1, -1], None, 1 / 3),
    "weights of any scale": ([[0.1, 0.9], [0.9, 0.1]], [1, 1], [3e-30, 1e-30], 0.75),
    "weights whose sum overflows": ([[0.1, 0.9], [0.9, 0.1]], [1, 1], np.float32([3e38, 1e38]), 0.75),
    "weights of bytes": ([[0.1, 0.9], [0.9, 0.1]], [1, 1], np.uint8([210, 70]), 0.75),
    "what has no weight": ([[0.1, 0.9], [nan, 0.1], [0, 1]], [1, 7, 1], [1.0, 0, 1], 1),
    "what has no weight, of one output": ([0.9, 7.0, 0.1], [1, 5, 1], [1.0, 0, 1], 0.5),
    "rows that have no weight": ([[0.1, 0.9], [0.1, 0.9]], [[0, 1], [1, 1]], [1.0, 0], 1),
}
DOUBTFUL = {  # metric, prediction, target, weights, the error
    "labels out of range": (fnn.accuracy, [[0.1, 0.9]] * 2, [1, 2], None, r"labels from 0 to 1, got 2 at target\[1\]"),
    "a negative label": (fnn.top_k_accuracy, np.ones((2, 5)), [-1, 2], None, r"from 0 to 4, got -1 at target\[0\]"),
    "a label that is none": (fnn.accuracy, [[0.1, 0.9]] * 2, [1, nan], None, r"from 0 to 1, got nan at target\[1\]"),
    "half a label": (fnn.confusion_matrix, [[0.1, 0.9]] * 2, [1, 0.5], None, "labels from 0 to 1, got 0.5"),
    "several labels": (fnn.accuracy, [[0.9, 0.8, 0.1]], [[1, 1, 0]], None, r"\(p > 0.5\) == y\), got \[1 1 0\] at"),
    "no label": (fnn.accuracy, [[0.9, 0.8]] * 2, [[0, 1], [0, 0]], None, r"got \[0 0\] at target\[1\]"),
    "logits of one output": (fnn.accuracy, [3.0, -2.0], [1, 0], None, "probabilities .* logits > 0.*, got 3.0"),
    "logits beside 1 alone": (fnn.accuracy, [3.0, -2.0], [1, 1], None, "probabilities"),
    "labels of one output as floats": (fnn.accuracy, [2.0, 1.0], [2, 1], None, "integer dtype.*, got 2 at"),
    "three kinds of sign": (fnn.accuracy, [0.2, 0.1, 0.3], [-1, 0, 1], None, "0 and 1 or −1 and 1"),
    "truth beside signs": (fnn.accuracy, [True, False], [1, -1], None, "true or false.*, got -1"),
    "labels beside probabilities": (fnn.accuracy, [1, 0], [0.9, 0.2], None, "labels, beside predictions of integer"),
    "no class for a row": (fnn.confusion_matrix, [[nan, 1.0], [0.0, 1.0]], [1, 1], None, r"NaN\), got -1 at pred"),
    "negative weights": (fnn.accuracy, [[0.1, 0.9]] * 2, [1, 0], [2.0, -1.0], r"at least 0, got -1.0 at weights\[1\]"),
    "negative weights of errors": (fnn.r2_score, [0.1, 0.9], [1, 0], [2.0, -1.0], "of at least 0"),
    "an infinite weight": (fnn.mean_absolute_error, [0.1, 0.9], [1, 0], [1.0, np.inf], "finite numbers"),
    "no weight at all": (fnn.accuracy, [[0.1, 0.9]] * 2, [1, 0], [0.0, 0.0], "expected at least one above 0"),
    "an unknown target": (fnn.r2_score, [0.1, 0.9], [1, nan], None, r"target: expected finite numbers, got nan"),
}


@on_numpy_at_least
def test_a_prediction_means_what_its_dtype_and_its_targets_say(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    for name in SURE if THOROUGH or backend == "numpy" else list(SURE)[::3]:
        prediction, target, weights, wanted = SURE[name]
        given = [a if a is None or backend == "numpy" else xp.asarray(a) for a in (prediction, target, weights)]
        assert float(fnn.accuracy(*given)) == pytest.approx(wanted, rel=1e-6), name


def test_in_compiled_code_it_means_the_same_and_what_would_be_refused_is_nan(needs_jax):
    some = slice(None) if THOROUGH else slice(None, None, 4)
    sure = {n: SURE[n][:3] for n in list(SURE)[some]}
    doubtful = {n: DOUBTFUL[n][1:4] for n in list(DOUBTFUL)[some]}
    arrays = fnn.trees.map(np.asarray, (sure, doubtful), is_leaf=lambda a: isinstance(a, list))
    arrays = fnn.trees.map(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, arrays)

    def both(sure, doubtful):
        return {n: fnn.accuracy(*case) for n, case in sure.items()}, {
            n: DOUBTFUL[n][0](*case[:2], weights=case[2]) for n, case in doubtful.items()
        }

    found, refused = oracle.quick_jit(both)(*arrays)
    with_known = lambda p: fnn.accuracy(p, needs_jax.numpy.asarray([1, 1]), needs_jax.numpy.asarray([3.0, 1.0]))
    assert float(needs_jax.jit(with_known)(np.float32([[0.1, 0.9], [0.8, 0.2]]))) == 0.75
    for name, value in found.items():
        assert float(value) == pytest.approx(SURE[name][3], rel=1e-6), name
    for name, value in refused.items():
        counts = np.issubdtype(value.dtype, np.integer)
        np.testing.assert_array_equal(value, np.full(value.shape, -1 if counts else nan), err_msg=name)


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_not_certain_is_refused(name):
    metric, prediction, target, weights, message = DOUBTFUL[name]
    with pytest.raises(errors.DataError, match=message):
        metric(prediction, target, weights=weights)


def test_what_is_no_metrics_data_is_refused():
    for metric in (fnn.accuracy, fnn.confusion_matrix, fnn.r2_score, fnn.mean_absolute_error):
        for shape in ((0,), (0, 3), (3, 0)):
            with pytest.raises(errors.ShapeError, match="at least one example and one output"):
                metric(np.zeros(shape), np.zeros(shape))
        with pytest.raises(errors.KindError, match="target: expected an array of numbers, got dtype <U1"):
            metric(np.zeros(1), ["a"])
        with pytest.raises(errors.KindError, match="prediction: expected real numbers, got dtype complex128"):
            metric(np.ones(2) + 0j, np.ones(2))
    with pytest.raises(errors.ShapeError, match=r"expected labels \(N, 3\) or \(2, 3, 4\), got \(2,\)"):
        fnn.accuracy(np.ones((2, 3, 4)), np.ones(2, int))
    with pytest.raises(errors.ShapeError, match=r"labels \(N,\).*; use y\[:, 0\]"):
        fnn.accuracy(np.ones((2, 3)), np.ones((2, 1), int))
    with pytest.raises(errors.ShapeError, match="at least two examples"):
        fnn.r2_score([1.0], [1.0])


@on_numpy_at_least
def test_the_confusion_matrix_knows_labels_signs_and_how_many_classes_there_are(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    m = fnn.confusion_matrix(xp.asarray([2, 2, 0, 2]), xp.asarray([1, 2, 0, 1]))
    np.testing.assert_array_equal(m, theirs.confusion_matrix([1, 2, 0, 1], [2, 2, 0, 2]))
    signs, y = xp.asarray([0.3, -2.0, 0.0, -0.1]), xp.asarray([1, 1, -1, -1])
    np.testing.assert_array_equal(fnn.confusion_matrix(signs, y), [[1, 1], [1, 1]])
    bytes_ = fnn.confusion_matrix(
        xp.asarray([0, 0, 1]), xp.asarray([0, 0, 1]), weights=xp.asarray([200, 200, 9], np.uint8)
    )
    np.testing.assert_array_equal(bytes_, [[400, 0], [0, 9]])
    halves = fnn.confusion_matrix(xp.asarray([0, 0, 1]), xp.asarray([0, 0, 1]), weights=xp.full(3, 6e4, np.float16))
    np.testing.assert_array_equal(halves, [[2 * float(np.float16(6e4)), 0], [0, float(np.float16(6e4))]])
    if backend == "jax":
        with pytest.raises(errors.ArgumentError, match="classes: expected the number of classes beside labels"):
            fnn.backend.jax.eval_shape(fnn.confusion_matrix, y, y)


def test_a_label_is_not_wrapped_around():
    with pytest.raises(errors.DataError, match="got 4294967297"):
        fnn.accuracy([[0.1, 0.9]], np.array([2**32 + 1]))
    with pytest.raises(errors.DataError, match="got 4294967297"):
        fnn.confusion_matrix([1], np.array([2**32 + 1]), classes=2)
    with pytest.raises(errors.ArgumentError, match="at most 46,340"):
        fnn.confusion_matrix([1], np.array([2**32 + 1]))


def test_nan_is_never_among_the_first_k():
    assert fnn.top_k_accuracy(np.full((3, C), np.nan), np.arange(3), k=C) == 0


@on_numpy_at_least
def test_errors_keep_their_scale(backend):
    """Squares of 1e30 and of 1e-30, and sums of 1e38, are more, or less, than float32 holds."""
    xp = np if backend == "numpy" else fnn.backend.jnp
    for unit in (1e-37, 1e-30, 1, 1e30, 1e38):
        a, y = (xp.asarray(np.float32(unit) * np.float32(values)) for values in ([1, 2, 2.5], [1, 2, 3]))
        assert float(fnn.r2_score(a, y)) == pytest.approx(0.875, rel=1e-6), unit
        assert float(fnn.mean_absolute_error(a, y)) == pytest.approx(unit / 6, rel=1e-6), unit
    large = xp.full(100, 1e38, np.float32)
    assert float(fnn.mean_absolute_error(large, 0 * large)) == pytest.approx(1e38)
    assert np.isnan(fnn.r2_score(xp.asarray([nan, 2.0]), xp.asarray([2.0, 2.0]))), "though the target is constant"
    if backend == "numpy":  # a digit more than float32 has
        assert fnn.mean_absolute_error(np.float32([2**24]), np.array([2**24 + 1])) == 1


def test_metrics_know_what_every_cost_predicts():
    """As `fit`, `evaluate` and `train` give it to them: probabilities, signs, or the output itself."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (x @ [1.0, -2.0, 0.5] > 0).astype(int)
    cases = (
        (fnn.SoftmaxCrossEntropy(), 2, y),
        (fnn.SigmoidBinaryCrossEntropy(), 1, y[:, None]),
        (fnn.Hinge(), 1, 2 * y[:, None] - 1),
        (fnn.Perceptron(), 2, 2 * np.eye(2)[y] - 1),
    )
    how = {"key": fnn.random.key(0, backend="numpy"), "epochs": 8, "metrics": {"accuracy": fnn.accuracy}}
    for loss, outputs, target in cases:
        net, data = fnn.mlp((outputs,)), (x, target)
        state, history = fnn.fit(net, loss, fnn.Sgd(0.5), data, validation=data, batch_size=10, **how)
        out = net.apply(state.params, x)
        wanted = np.mean((out.argmax(axis=1) if outputs == 2 else out[:, 0] > 0) == y)
        if isinstance(loss, fnn.Perceptron):  # of two signs that are made one has to be 1
            wanted = np.mean(((out >= 0) == (target > 0)).all(axis=1))
        assert history["validation_accuracy"][-1] == pytest.approx(wanted), loss
        assert wanted > 0.8
        assert fnn.evaluate(net, loss, state.params, data, metrics=how["metrics"])["accuracy"] == pytest.approx(wanted)
    several = np.ones((60, 2), int)
    with pytest.raises(errors.DataError, match="one largest entry in each row"):
        fnn.fit(fnn.mlp((2,)), cases[1][0], fnn.Sgd(0.5), (x, several), validation=(x, several), batch_size=10, **how)


@on_numpy_at_least
def test_train_has_nan_where_fit_refuses(backend):
    x, y = np.ones((8, 2), np.float32), np.ones((8, 2), np.float32)
    net, key = fnn.mlp((2,)), fnn.random.key(0, backend=backend)
    state = fnn.init_state(net, fnn.Sgd(0.1), key, (2,))
    how = {"epochs": 2, "batch_size": 4, "validation": (x, y), "metrics": {"accuracy": fnn.accuracy}}
    run = lambda: fnn.train(net, fnn.SigmoidBinaryCrossEntropy(), state, (x, y), **how)
    if backend == "jax":
        np.testing.assert_array_equal(run()[1]["validation_accuracy"], [nan, nan])
    else:
        with pytest.raises(errors.DataError, match="one largest entry in each row"):
            run()


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
        r"\(N, C\) or \(N, T, C\), got \(3, 1\)",
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
    with pytest.raises(errors.ArgumentError, match="classes: expected 7, the classes that the prediction has, got 8"):
        fnn.confusion_matrix(SCORES, LABELS, classes=8)


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

"""Weights of classes are those of scikit-learn, for labels in any form; a label without a weight is refused."""

import numpy as np
import pytest
from helpers import key, on

import fnn
from fnn import errors

Y = np.array([2, 0, 0, 1, 0, 2, 0, 0])
BALANCED = 8 / (3 * np.array([5, 1, 2]))[Y]


def test_balanced_weights_are_those_of_scikit_learn_and_of_the_formula():
    np.testing.assert_array_equal(fnn.class_weights(Y), BALANCED)
    weigh = pytest.importorskip("sklearn.utils.class_weight")
    y = np.random.default_rng(0).choice([-1, 3, 7, 200], 99, p=[0.6, 0.2, 0.1, 0.1])
    np.testing.assert_allclose(fnn.class_weights(y), weigh.compute_sample_weight("balanced", y), rtol=1e-15)
    of_label = {-1: 0.5, 3: 1.0, 7: 2.0, 200: 4.0}
    np.testing.assert_array_equal(fnn.class_weights(y, of_label), weigh.compute_sample_weight(of_label, y))


def test_balanced_weights_sum_to_the_number_of_examples_and_each_class_to_the_same():
    w = fnn.class_weights(Y)
    np.testing.assert_allclose(w.sum(), 8)
    np.testing.assert_allclose(np.bincount(Y, w), 8 / 3)


def test_labels_may_be_of_any_form(backend):
    for y in (Y.tolist(), Y.astype(np.uint8), Y[:, None], Y.astype(np.float32), on(backend, Y)):
        w = fnn.class_weights(y)
        assert type(w) is np.ndarray
        np.testing.assert_array_equal(w, BALANCED)
    np.testing.assert_array_equal(fnn.class_weights(Y == 0), 8 / (2 * np.where(Y == 0, 5, 3)))
    np.testing.assert_array_equal(fnn.class_weights(np.array([[1.0], [0.0], [0.0]]), (2.0, 3.0)), [3, 2, 2])


@pytest.mark.parametrize("weights", [{2: 3.0, 0: 1, 1: 2.5, 9: 7.0}, [1, 2.5, 3], np.float32([1, 2.5, 3, 7])], ids=repr)
def test_weights_by_label_may_be_a_dict_or_a_sequence_and_have_more_labels(weights):
    np.testing.assert_array_equal(fnn.class_weights(Y, weights), [3, 1, 1, 2.5, 1, 3, 1, 1])


def test_an_ignored_label_weighs_nothing_and_is_no_class():
    y = np.array([-1, *Y, -1])
    for weights in ("balanced", (5.0, 6.0, 7.0)):
        np.testing.assert_array_equal(fnn.class_weights(y, weights, ignored=-1), [0, *fnn.class_weights(Y, weights), 0])
    np.testing.assert_array_equal(fnn.class_weights([-1, -1], ignored=-1), [0, 0])


REFUSED = {
    "a label without a weight": ((Y, {0: 1.0, 1: 2.0}), errors.DataError, r"none for the label 2 at y\[0\]"),
    "a short sequence": ((Y[1:], (1.0, 2.0)), errors.DataError, r"none for the label 2 at y\[4\]"),
    "a negative label of a sequence": (([0, -1], (1.0, 2.0)), errors.DataError, r"none for the label -1 at y\[1\]"),
    "names of labels": ((Y, {"a": 1.0}), errors.DataError, "none for the label 0"),
    "another word": ((Y, "inverse"), errors.ArgumentError, "'balanced', a dict or a sequence, got 'inverse'"),
    "a negative weight": ((Y, (1.0, -2.0, 1.0)), errors.DataError, r"at least 0, got -2.0 at weights\[1\]"),
    "a weight of nan": ((Y, {0: 1, 1: np.nan, 2: 1}), errors.DataError, r"finite numbers, got nan at weights\[1\]"),
    "weights for each of two": ((Y, {0: [1, 2], 1: [1, 2], 2: [1, 2]}), errors.ShapeError, "a number for each label"),
    "one-hot rows": ((np.eye(3), "balanced"), errors.ShapeError, r"\(3, 3\); .*argmax\(axis=1\).*pos_weight"),
    "a cube": ((np.zeros((2, 1, 1), int),), errors.ShapeError, r"got \(2, 1, 1\)"),
    "no label": (([],), errors.ShapeError, r"got \(0,\)"),
    "numbers to regress on": (([1.0, 0.5],), errors.DataError, r"whole numbers, got 0.5 at y\[1\]"),
    "nan as a label": (([1.0, np.nan],), errors.DataError, "nan"),
    "text": ((["a", "b"],), errors.KindError, "np.unique"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_weights_is_refused(name):
    arguments, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        fnn.class_weights(*arguments)


def test_labels_that_are_traced_are_refused(needs_jax):
    with pytest.raises(errors.KindError, match="got a tracer; compute the weights outside"):
        needs_jax.jit(fnn.class_weights)(Y)


def test_a_run_with_weights_of_classes_is_that_on_repeated_examples():
    rng, net, loss = np.random.default_rng(0), fnn.Dense(2), fnn.SoftmaxCrossEntropy()
    x, y = rng.normal(size=(12, 3)), np.arange(12) % 4 // 3
    params = net.init(key(), (3,), np.float64)
    found = fnn.value_and_grad(net, loss)(params, x, y, fnn.class_weights(y, {0: 1, 1: 3}))
    rows = np.repeat(np.arange(12), np.where(y == 1, 3, 1))
    value, grads = fnn.value_and_grad(net, loss)(params, x[rows], y[rows])
    np.testing.assert_allclose(found[0], value)
    np.testing.assert_allclose(found[1].w, grads.w)
    np.testing.assert_allclose(fnn.class_weights(y) * 3 / 2, 3 * fnn.class_weights(y, (1 / 3, 1.0)))


def test_a_rare_class_is_found_by_a_network_that_is_trained_with_balanced_weights():
    rng, y = np.random.default_rng(0), (np.arange(400) % 20 == 0).astype(int)
    x, recall = rng.normal(size=(400, 1)) + 1.5 * y[:, None], {}
    for name, data in {"plain": (x, y), "balanced": (x, y, fnn.class_weights(y))}.items():
        state, _ = fnn.fit(
            fnn.Dense(2), fnn.SoftmaxCrossEntropy(), fnn.Sgd(0.5), data, key=key(), epochs=60, batch_size=400
        )
        recall[name] = (fnn.Dense(2).apply(state.params, x[y == 1]).argmax(axis=1) == 1).mean()
    assert recall["plain"] < 0.3
    assert recall["balanced"] > 0.7, recall

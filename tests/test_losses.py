"""Each cost has the value and the derivative of its formula, refuses what is no target, and predicts probabilities."""

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, key, on, wide

import fnn
from fnn import errors, trees
from fnn.backend import jax
from fnn.complex_step import jvp
from fnn.testing import check_loss

NAMES = [name for name in oracle.LOSSES if name != "function"]


def drawn(name, rng, n=100, k=4):
    """A prediction and a target for a cost."""
    cost = oracle.LOSSES[name]
    return cost.prediction(rng, n, k), cost.target(rng, n, k)


def test_value_and_delta_are_those_of_jax(needs_jax):
    rng, samples = np.random.default_rng(0), {}
    for name, cost in oracle.LOSSES.items():
        for k in (1, 5):
            a, y = drawn(name, rng, k=k)
            a = 3 * a if cost.prediction is oracle.real else a
            samples[name, k] = np.float32(a), np.float32(y) if y.dtype == np.float64 else y  # as float64 holds exactly

    def in_dtype(dtype):
        return fnn.trees.map(lambda a: a.astype(dtype) if a.dtype == np.float32 else a, samples)

    def theirs(samples):
        found = {}
        for case, (a, y) in samples.items():
            value, vjp = jax.vjp(lambda a, f=oracle.LOSSES[case[0]].function, y=y: f(a, y), a)
            found[case] = value, *vjp(jax.numpy.ones_like(value))
        return found

    def ours(samples, names):
        found = {case: (oracle.LOSSES[case[0]].loss, *sample) for case, sample in samples.items() if case[0] in names}
        return {
            case: (loss.value_and_delta(a, y), (loss.value(a, y), loss.delta(a, y)))
            for case, (loss, a, y) in found.items()
        }

    def program(exact, narrow):
        return theirs(exact), ours(exact, oracle.LOSSES), ours(narrow, oracle.LOSSES)

    with needs_jax.enable_x64(True):
        wanted, *on_jax = oracle.quick_jit(program)(in_dtype("f8"), in_dtype("f4"))
    on_numpy = [ours(in_dtype(dtype), NAMES) for dtype in ("f8", "f4")]
    for dtype, tolerance, *found in zip(("f8", "f4"), (1e-12, 1e-5), on_jax, on_numpy, strict=True):
        for case, pairs in (item for of_each in found for item in of_each.items()):
            for value, delta in pairs:
                oracle.assert_close({case: (value, delta)}, {case: wanted[case]}, tolerance)
                assert value.shape == (100,)
                assert value.dtype == delta.dtype == dtype, case


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.numpy_alone
def test_deltas_are_those_of_the_complex_step(name, dtype):
    a, y = drawn(name, np.random.default_rng(1), n=25)
    check_loss(oracle.LOSSES[name].loss, a, y, method="complex", on="numpy", dtype=dtype)


GUARDED = {  # cost, target that makes it infinite at 0, its value there with ε = 1e-6, and δ
    "cross-entropy": (fnn.CrossEntropy, 1, -np.log(1e-6) + 1, -1e6),
    "binary cross-entropy": (fnn.BinaryCrossEntropy, 1, -np.log(1e-6) + 1, -1e6),
    "Kullback-Leibler": (fnn.KullbackLeibler, 1, -np.log(1e-6) + 1, -1e6),
    "generalised": (fnn.GeneralizedKullbackLeibler, 1, -np.log(1e-6), 1 - 1e6),
    "Hellinger": (fnn.Hellinger, 1, ((1e-3 - 1) ** 2 - 1e-6 + 1e-3) / 2**0.5, (1 - 1e3) / 2**0.5),
    "Itakura-Saito": (fnn.ItakuraSaito, 1, 2e6 + np.log(1e-6) - 2, 1e6 - 1e12),
}


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.thorough(backend="jax")
def test_below_epsilon_a_cost_of_probabilities_goes_on_along_its_tangent(name, backend):
    make, y, value, delta = GUARDED[name]
    xp = fnn.backend.jnp if backend == "jax" else np
    y = xp.asarray([[y]], dtype=np.float32)
    found = make(eps=1e-6).value_and_delta(xp.zeros((1, 1), np.float32), y)
    np.testing.assert_allclose(np.asarray(found[0]), [value], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(found[1]), [[delta]], rtol=1e-5)
    for a in (-1e4, 0.0, 1e-40, 1.0, 1e4):
        value, delta = make().value_and_delta(xp.full((1, 1), a, np.float32), y)
        assert np.isfinite(np.asarray(value)).all()
        assert np.isfinite(np.asarray(delta)).all()
    a = np.array([[-1.0, 0.3], [0.0, 0.3], [5e-3, 0.3], [0.3, 0.3]])
    check_loss(make(eps=1e-2), a, np.full((4, 2), 0.5), method="complex")


def test_a_sure_and_wrong_yes_or_no_is_guarded_on_both_sides():
    loss, a = fnn.BinaryCrossEntropy(), np.array([[0.0, 1.0]], np.float32)
    right, wrong = np.array([[0, 1]]), np.array([[1, 0]])
    assert loss.value(a, right) == 0
    np.testing.assert_allclose(loss.delta(a, right), [[1, -1]], err_msg="1/(1 − a) at a = 0 and y = 0")
    np.testing.assert_allclose(loss.value(a, wrong), [2 * (1 - np.log(1e-12))], rtol=1e-6)
    np.testing.assert_allclose(loss.delta(a, wrong), [[-1e12, 1e12]], rtol=1e-6)


def test_a_target_that_is_met_costs_nothing():
    for loss in (fnn.KullbackLeibler(), fnn.GeneralizedKullbackLeibler(), fnn.Hellinger(), fnn.ItakuraSaito()):
        a = np.array([[0.2, 0.7, 1e-3]])
        assert loss.value(a, a) == 0, loss
    for loss in (fnn.KullbackLeibler(), fnn.GeneralizedKullbackLeibler(), fnn.Hellinger()):
        np.testing.assert_allclose(loss.value(np.zeros((1, 2)), np.zeros((1, 2))), 0, atol=1e-11)


def test_tiny_targets_and_large_predictions_do_not_underflow():
    for loss in (fnn.KullbackLeibler(), fnn.GeneralizedKullbackLeibler()):
        value = loss.value(np.array([[2.0, 1e10]], np.float32), np.array([[1e-38, 1e-38]], np.float32))
        assert np.isfinite(value).all(), loss


@pytest.mark.parametrize("z", [np.inf, -np.inf])
def test_a_logit_that_is_infinite_and_right_costs_nothing(z, backend):
    xp = fnn.backend.jnp if backend == "jax" else np
    y = xp.asarray([[float(z > 0)]])
    assert fnn.SigmoidBinaryCrossEntropy().value(xp.asarray([[z]]), y) == 0
    assert fnn.SigmoidBinaryCrossEntropy().value(xp.asarray([[z]]), 1 - y) == np.inf


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_passed_on_by_value_and_delta(name):
    a, y = drawn(name, np.random.default_rng(0), n=1, k=2)
    value, delta = oracle.LOSSES[name].loss.value_and_delta(np.full_like(a, np.nan), y)
    assert np.isnan(value).all()
    assert np.isnan(delta).all()


def test_integer_predictions_have_errors_that_are_no_integers():
    for net in (fnn.Identity(), fnn.Flatten()):  # one makes floating point of them, the other integers
        dx = fnn.grad(net, fnn.Quadratic(), need_dx=True)((), np.array([[3]], np.uint8), np.array([[5.5]]))[1]
        np.testing.assert_array_equal(dx, [[-2.5]])


@pytest.mark.thorough(backend="jax")
def test_the_root_of_a_mean_has_the_gradient_of_the_root(backend):
    net, loss = fnn.Dense(1), fnn.RootMeanSquaredError()
    params = net.init(fnn.random.key(0, backend=backend), (3,))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    some = np.array([0.0, 1, 2, 3, 0, 1, 1, 1])
    for weights in (None, some) if backend == "numpy" or THOROUGH else (some,):
        value, grads = fnn.value_and_grad(net, loss)(params, x, y, weights)
        mean, of_mean = fnn.value_and_grad(net, fnn.MeanSquaredError())(params, x, y, weights)
        np.testing.assert_allclose(value, np.sqrt(mean), rtol=1e-6)
        oracle.assert_close(grads, fnn.trees.map(lambda g, v=value: g / (2 * v), of_mean), 1e-6)
        assert (
            abs(fnn.evaluate(net, loss, params, (x, y) if weights is None else (x, y, weights))["loss"] - value) < 1e-6
        )
        tape = fnn.backprop(net, loss)(params, x, y, weights)
        shared = fnn.trees.map(lambda d, s=tape.shares: d * s[:, None], tape.deltas)
        oracle.assert_close(net.gradient(params, tape.residuals, shared), grads, 1e-5)


def test_the_root_of_a_mean_of_zero_stands_still():
    net = fnn.Identity()
    value, (_, dx) = fnn.value_and_grad(net, fnn.RootMeanSquaredError(), need_dx=True)(
        (), np.ones((2, 1)), np.ones((2, 1))
    )
    assert value == 0
    np.testing.assert_array_equal(dx, 0)
    assert fnn.RootMeanSquaredError().outer(np.float64(0)) == (0, 0), "its slope there is no infinity"


def test_a_perceptron_learns_from_zero_weights_and_predicts_the_sign():
    loss, z, y = fnn.Perceptron(), np.array([[0.0], [0.0], [2.0], [2.0]]), np.array([[1], [-1], [1], [-1]])
    np.testing.assert_array_equal(loss.delta(z, y), [[-1], [1], [0], [1]])
    np.testing.assert_array_equal(loss.value(z, y), [0, 0, 0, 2])
    np.testing.assert_array_equal(loss.predict(np.array([[-3.0, -0.0, 0.0, 2.0]])), [[-1, 1, 1, 1]])
    np.testing.assert_array_equal(fnn.Hinge().predict(z), [[1], [1], [1], [1]])


KINKS = {  # cost, prediction, target, the documented derivative there
    "mean absolute": (fnn.MeanAbsoluteError(), 1.0, 1.0, 0),
    "hinge": (fnn.Hinge(), 1.0, 1.0, 0),
    "hinge below": (fnn.Hinge(), 0.999, 1.0, -1),
    "perceptron": (fnn.Perceptron(), 0.0, -1.0, 1),
    "huber": (fnn.Huber(0.5), 1.5, 1.0, 0.5),
    "quantile": (fnn.Quantile(0.2), 1.0, 1.0, 0),
}


def test_derivatives_at_a_kink_are_the_documented_ones_and_jaxs_of_the_formula():
    arrays = {name: (np.array([[a]], np.float32), np.array([[y]], np.float32)) for name, (_, a, y, _) in KINKS.items()}
    for name, (loss, _, _, wanted) in KINKS.items():
        assert loss.delta(*arrays[name]) == wanted, name
    if jax is not None:
        total = lambda a, y, loss: loss.value(a, y).sum()
        of_each = lambda arrays: {name: jax.grad(total)(*arrays[name], KINKS[name][0]) for name in KINKS}
        for name, found in oracle.quick_jit(of_each)(arrays).items():
            assert found == KINKS[name][-1], name


def test_label_smoothing_is_a_smoothed_target():
    z, y = np.array([[2.0, 0.0, -1.0]]), np.array([0])
    smooth = fnn.SoftmaxCrossEntropy(label_smoothing=0.3).value_and_delta(z, y)
    by_hand = fnn.SoftmaxCrossEntropy().value_and_delta(z, np.array([[0.8, 0.1, 0.1]]))
    oracle.assert_close(smooth, by_hand, 1e-15)
    smooth = fnn.SigmoidBinaryCrossEntropy(label_smoothing=0.2).value(z, np.array([[1, 0, 1]]))
    np.testing.assert_allclose(smooth, fnn.SigmoidBinaryCrossEntropy().value(z, np.array([[0.9, 0.1, 0.9]])))


def test_the_textbooks_derivative_of_the_cross_entropy_is_not_the_misprinted_one():
    a, y = np.array([[0.8]]), np.array([[1.0]])
    delta = fnn.BinaryCrossEntropy().delta(a, y)
    np.testing.assert_allclose(delta, (a - y) / (a * (1 - a)))
    assert abs(delta - -(a * (1 - a) * (a - y))) > 1, "as one text has it"


def test_values_by_hand():
    a, y = np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])
    assert fnn.Quadratic().value(a, y) == 2.5
    assert fnn.MeanSquaredError().value(a, y) == 2.5
    np.testing.assert_allclose(fnn.SoftmaxCrossEntropy().value(np.zeros((1, 10)), np.array([3])), np.log(10))
    np.testing.assert_allclose(fnn.SigmoidBinaryCrossEntropy().value(np.zeros((1, 3)), np.ones((1, 3))), 3 * np.log(2))


@pytest.mark.parametrize("z", [1e4, -1e4])
@pytest.mark.thorough(backend="jax")
def test_costs_on_logits_are_exact_far_out(z, backend):
    xp = fnn.backend.jnp if backend == "jax" else np
    z = xp.asarray([[z, 0.0]], dtype=np.float32)
    for label in (0, 1):
        value, delta = fnn.SoftmaxCrossEntropy().value_and_delta(z, xp.asarray([label]))
        assert value == max(0, float(z[0, 1 - label] - z[0, label]))
        assert np.isfinite(np.asarray(delta)).all()
    value, delta = fnn.SigmoidBinaryCrossEntropy().value_and_delta(z[:, :1], xp.asarray([[1]]))
    assert value == max(0, -float(z[0, 0]))
    assert delta == (0 if z[0, 0] > 0 else -1)


def test_a_class_that_is_ruled_out_costs_nothing_where_it_has_no_probability():
    value, delta = fnn.SoftmaxCrossEntropy().value_and_delta(np.array([[0.0, -np.inf]]), np.array([0]))
    assert value == 0
    np.testing.assert_array_equal(delta, [[0, 0]])
    value = fnn.SoftmaxCrossEntropy().value(np.array([[0.0, -np.inf]]), np.array([[1.0, 0.0]]))
    assert value == 0


def test_rows_that_do_not_sum_to_one_have_the_derivative_of_the_formula():
    value, delta = fnn.SoftmaxCrossEntropy().value_and_delta(np.zeros((1, 2)), np.array([[3.0, 1.0]]))
    np.testing.assert_allclose(value, 4 * np.log(2))
    np.testing.assert_allclose(delta, [[-1, 1]])


def test_penalties_by_hand(backend):
    xp = fnn.backend.jnp if backend == "jax" else np
    params = xp.asarray([[3.0, -4.0]]), xp.asarray([7.0])
    assert fnn.L2(0.5).value(params) == 6.25
    assert fnn.L1(0.5).value(params) == 3.5
    oracle.assert_close(fnn.L2(0.5).gradient(params), (np.array([[1.5, -2.0]]), np.zeros(1)), 0)
    oracle.assert_close(fnn.L1(0.5).gradient(params), (np.array([[0.5, -0.5]]), np.zeros(1)), 0)
    assert fnn.L2((0.0, 0.5)).value(params) == 12.25, "a tree says it for each, biases too"


def test_labels_of_any_integer_type_are_the_same():
    z = np.random.default_rng(0).normal(size=(4, 300))
    y = np.array([0, 200, 255, 7])
    wanted = fnn.SoftmaxCrossEntropy().value(z, y)
    for dtype in (np.uint8, np.uint16, np.int16, np.uint32, np.uint64):
        np.testing.assert_array_equal(fnn.SoftmaxCrossEntropy().value(z, y.astype(dtype)), wanted)


def test_predict_gives_probabilities_of_logits_and_leaves_the_rest(backend):
    z = np.array([[0.0, np.log(3)], [1e4, -1e4]], np.float32)
    np.testing.assert_allclose(fnn.SoftmaxCrossEntropy().predict(z), [[0.25, 0.75], [1, 0]], rtol=1e-6)
    np.testing.assert_allclose(fnn.SigmoidBinaryCrossEntropy().predict(z), [[0.5, 0.75], [1, 0]], rtol=1e-6)
    assert fnn.Quadratic().predict(z) is z


TARGETS = {
    "a label of -1": (fnn.SoftmaxCrossEntropy(), (3, 4), [0, -1, 2], errors.DataError, r"0 to 3, got -1 at y\[1\]"),
    "a label too large": (fnn.SoftmaxCrossEntropy(), (3, 4), [0, 1, 4], errors.DataError, r"0 to 3, got 4 at y\[2\]"),
    "labels as a column": (fnn.SoftmaxCrossEntropy(), (3, 4), [[0], [1], [2]], errors.ShapeError, r"y\[:, 0\]"),
    "labels as floats": (fnn.SoftmaxCrossEntropy(), (3, 4), [0.0, 1, 2], errors.KindError, "integer labels"),
    "labels as booleans": (fnn.SoftmaxCrossEntropy(), (2, 4), [True, False], errors.KindError, "bool"),
    "rows that do not sum to 1": (fnn.SoftmaxCrossEntropy(), (1, 2), [[0.5, 0.9]], errors.DataError, "sum to 1.*row 0"),
    "a negative probability": (
        fnn.SoftmaxCrossEntropy(),
        (1, 2),
        [[-0.5, 1.5]],
        errors.DataError,
        r"-0.5 at y\[0, 0\]",
    ),
    "nan as a probability": (fnn.SoftmaxCrossEntropy(), (1, 2), [[np.nan, 1]], errors.DataError, "nan"),
    "logits without classes": (fnn.SoftmaxCrossEntropy(), (3,), [0, 1, 2], errors.ShapeError, r"\(N, C\)"),
    "targets ±1 for a sigmoid": (fnn.SigmoidBinaryCrossEntropy(), (2, 1), [[1], [-1]], errors.DataError, "-1"),
    "targets as a row": (fnn.SigmoidBinaryCrossEntropy(), (2, 1), [1, 0], errors.ShapeError, "use np.expand_dims"),
    "targets that would broadcast": (fnn.Quadratic(), (4, 1), [1.0, 2, 3, 4], errors.ShapeError, "use np.expand_dims"),
    "nan to regress on": (fnn.Quadratic(), (1, 2), [[1.0, np.nan]], errors.DataError, r"nan at y\[0, 1\]"),
    "a negative count": (fnn.PoissonNll(), (1, 2), [[1, -1]], errors.DataError, r"at least 0, got -1 at y\[0, 1\]"),
    "0 for a hinge": (fnn.Hinge(), (2, 1), [[1], [0]], errors.DataError, r"2 \* y - 1.*got 0 at y\[1, 0\]"),
    "2 for a perceptron": (fnn.Perceptron(), (1, 1), [[2.0]], errors.DataError, "−1 or 1"),
    "a negative target of a distance": (fnn.Hellinger(), (1, 1), [[-0.1]], errors.DataError, "at least 0"),
    "a probability above 1": (fnn.BinaryCrossEntropy(), (1, 1), [[1.5]], errors.DataError, "0 to 1, got 1.5"),
    "a spectrum of 0": (fnn.ItakuraSaito(), (1, 1), [[0.0]], errors.DataError, "greater than 0"),
    "a label too large for probabilities": (fnn.CrossEntropy(), (1, 2), [2], errors.DataError, "0 to 1, got 2"),
    "a row for a mean absolute error": (fnn.MeanAbsoluteError(), (2, 1), [1.0, 2], errors.ShapeError, "y"),
    "rows for focal labels": (fnn.Focal(), (1, 2), [[1, 0]], errors.ShapeError, r"\(1,\), as.*argmax\(axis=-1\)"),
    "one logit for focal labels": (
        fnn.Focal(),
        (2, 1),
        [0, 1],
        errors.ShapeError,
        r"two outputs.*fnn\.BinaryFocal\(\)",
    ),
    "a label too large for focal": (fnn.Focal(), (2, 3), [0, 3], errors.DataError, r"0 to 2, got 3 at y\[1\]"),
    "half a yes": (fnn.BinaryFocal(), (1, 1), [[0.5]], errors.DataError, r"0 or 1, got 0.5 at y\[0, 0\]"),
    "two outputs for three levels": (
        fnn.Quantile((0.1, 0.5, 0.9)),
        (2, 2),
        [[1.0], [2.0]],
        errors.ShapeError,
        r"\(N, 3\), or \(N, 3 M\) for M targets, got \(2, 2\)",
    ),
    "a target for each quantile": (
        fnn.Quantile((0.1, 0.9)),
        (1, 2),
        [[1.0, 2.0]],
        errors.ShapeError,
        r"targets of shape \(1, 1\), got \(1, 2\)",
    ),
    "no variance": (fnn.GaussianNll(), (2, 1), [[1.0], [2.0]], errors.ShapeError, r"\(N, 2\).*got \(2, 1\)"),
    "nan of a distribution": (fnn.GaussianNll(), (1, 2), [[np.nan]], errors.DataError, r"nan at y\[0, 0\]"),
    "weights of other outputs": (
        fnn.SigmoidBinaryCrossEntropy(pos_weight=(1.0, 2.0)),
        (1, 3),
        [[0, 1, 1]],
        errors.ShapeError,
        r"pos_weight: expected a number for each output of \(1, 3\), got 2",
    ),
    "weights of other classes": (fnn.Focal(alpha=(1.0, 2.0)), (1, 3), [1], errors.ShapeError, "alpha: .*got 2"),
    "an infinity to regress on": (fnn.MeanSquaredError(), (1, 1), [[np.inf]], errors.DataError, "inf"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.thorough(backend="jax")
def test_what_is_no_target_is_refused_with_expected_and_found(name, backend):
    loss, prediction_shape, target, error, message = TARGETS[name]
    xp = fnn.backend.jnp if backend == "jax" else np
    with pytest.raises(error, match=message):
        loss.check(prediction_shape, xp.asarray(np.array(target)))


def test_a_function_that_gives_no_value_for_each_example_is_refused(needs_jax):
    loss = fnn.FunctionLoss(lambda a, y: ((a - y) ** 2).sum())
    with pytest.raises(errors.ShapeError, match=r"\(3,\), got \(\)"):
        loss.value(np.ones((3, 2)), np.ones((3, 2)))


def test_a_function_needs_jax_and_says_so():
    with pytest.raises(errors.KindError, match=r"jax\.vjp"):
        fnn.FunctionLoss(oracle.quartic).value_and_delta(np.ones((1, 1)), np.ones((1, 1)))
    with pytest.raises(errors.KindError, match=r"jax\.vjp"):
        fnn.Function(np.sin).apply((), np.ones((1, 1)))


def test_a_penalty_of_many_weights_does_not_overflow_in_float16(backend):
    (params,) = on(backend, (np.full((300, 300), 1, np.float16),))
    assert fnn.L2(1.0).value(params) == 45_000
    assert fnn.L1(1.0).value(params) == 90_000
    assert fnn.L2(1.0).gradient(params).dtype == np.float16


def test_a_negative_penalty_is_refused():
    with pytest.raises(errors.ArgumentError, match=r"L2\.coefficient"):
        fnn.value_and_grad(fnn.Dense(1), fnn.Quadratic(), penalty=fnn.L2(-1.0))


def test_a_penaltys_tree_must_begin_as_the_parameters_do():
    with pytest.raises(errors.ShapeError, match=r"L2\.coefficient: .*\(\(2, 2\), \(2,\)\)"):
        fnn.L2((1.0, 2.0, 3.0)).value((np.ones((2, 2)), np.ones(2)))


BAD = {
    "a smoothing of 1": (lambda: fnn.SoftmaxCrossEntropy(label_smoothing=1.0), errors.ArgumentError, "< 1"),
    "a negative smoothing": (lambda: fnn.SigmoidBinaryCrossEntropy(label_smoothing=-0.1), errors.ArgumentError, ">= 0"),
    "a threshold of 0": (lambda: fnn.Huber(0.0), errors.ArgumentError, "threshold > 0"),
    "a tau of 0": (lambda: fnn.ExponentialCost(0.0), errors.ArgumentError, "tau > 0"),
    "a level of 1": (lambda: fnn.Quantile((0.5, 1.0)), errors.ArgumentError, r"levels\[1\] < 1"),
    "no level": (lambda: fnn.Quantile(()), errors.ArgumentError, "at least one level"),
    "a list of levels": (lambda: fnn.Quantile([0.1, 0.9]), errors.KindError, r"write \(0\.1, 0\.9\)"),
    "a negative gamma": (lambda: fnn.Focal(gamma=-1.0), errors.ArgumentError, "gamma >= 0"),
    "one alpha of classes": (lambda: fnn.Focal(alpha=0.25), errors.KindError, "each class, got 0.25; .*BinaryFocal"),
    "an alpha of 1": (lambda: fnn.BinaryFocal(alpha=1.0), errors.ArgumentError, "alpha < 1"),
    "a weight of 0": (lambda: fnn.SigmoidBinaryCrossEntropy(pos_weight=(1.0, 0.0)), errors.ArgumentError, "> 0"),
    "an epsilon of 0": (lambda: fnn.CrossEntropy(eps=0.0), errors.ArgumentError, "eps >= 1e-18"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_cost_that_makes_no_sense_is_refused(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()


LABELLED = [
    fnn.SoftmaxCrossEntropy(),
    fnn.SoftmaxCrossEntropy(label_smoothing=0.1),
    fnn.CrossEntropy(),
    fnn.Focal(gamma=0.5),
]


@pytest.mark.parametrize("loss", LABELLED, ids=str)
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_out_of_range_is_an_error_where_it_is_known_and_nan_where_it_is_traced(loss, label, backend):
    a, y = on(backend, (np.full((3, 3), 0.3, np.float32), np.array([0, label, 1])))
    for f in (loss.value, loss.delta, loss.value_and_delta):
        with pytest.raises(errors.DataError, match=rf"labels from 0 to 2, got {label} at y\[1\]"):
            f(a, y)
    if backend == "jax":
        value, delta = oracle.quick_jit(loss.value_and_delta)(a, y)
        assert np.isnan(value).tolist() == [False, True, False]
        assert np.isnan(delta).all(axis=1).tolist() == [False, True, False]


OF_LABELS = fnn.SoftmaxCrossEntropy | fnn.CrossEntropy | fnn.Focal
CLASSES = [name for name in NAMES if isinstance(oracle.LOSSES[name].loss, OF_LABELS)]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CLASSES)))
def test_a_cost_called_directly_never_broadcasts(name):
    loss, (a, y) = oracle.LOSSES[name].loss, drawn(name, np.random.default_rng(0), n=4, k=1)
    for f in (loss.value, loss.delta, loss.value_and_delta):
        with pytest.raises(errors.ShapeError, match=r"\(4, 1\), got \(4,\); use np.expand_dims\(y, -1\)"):
            f(a, y[:, 0])


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_labels_called_directly_are_integers_one_for_each_example(loss):
    with pytest.raises(errors.ShapeError, match=r"labels of shape \(3,\).*got \(2,\)"):
        loss.value(np.full((3, 2), 0.5), np.array([0, 1]))
    with pytest.raises(errors.KindError, match="integer labels, got dtype float64"):
        loss.value(np.full((2, 2), 0.5), np.array([0.0, 1]))


RANGES = {  # cost, a target out of its range
    "a bit of 2": (fnn.SigmoidBinaryCrossEntropy(), 2),
    "a probability below 0": (fnn.BinaryCrossEntropy(), -1),
    "a negative count": (fnn.PoissonNll(), -1),
    "0 for a hinge": (fnn.Hinge(), 0),
    "0 for a perceptron": (fnn.Perceptron(), 0),
    "a spectrum of 0": (fnn.ItakuraSaito(), 0),
    "a focal bit of 2": (fnn.BinaryFocal(), 2),
    "a negative distance": (fnn.Hellinger(), -1),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_target_out_of_range_is_an_error_in_a_batch_too_and_nan_where_it_is_traced(name, backend):
    loss, wrong = RANGES[name]
    a, y = on(backend, (np.full((2, 1), 0.5, np.float32), np.array([[1], [wrong]])))
    run = fnn.value_and_grad(fnn.Identity(), loss, need_dx=True)
    with pytest.raises(errors.DataError, match=rf"got {wrong} at y\[1, 0\]"):
        run((), a, y)
    if backend == "jax":
        value, (_, dx) = oracle.quick_jit(run)((), a, y)
        assert np.isnan(value)
        assert np.isnan(dx).tolist() == [[False], [True]]


def test_a_target_that_is_nan_is_nan_in_value_and_delta():
    for name in NAMES:
        if "labels" not in name:
            loss, (a, y) = oracle.LOSSES[name].loss, drawn(name, np.random.default_rng(0), n=2)
            y = y * np.array([[1.0], [np.nan]])
            value, delta = loss.value_and_delta(a, y)
            assert np.isnan(value).tolist() == [False, True], name
            assert np.isnan(delta[1]).all(), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_integer_targets_are_not_cut_to_the_dtype_of_the_prediction(dtype, backend):
    if backend == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy alone has none")
    a, y = on(backend, (np.zeros((1, 1), np.float32), np.array([[70001]])))
    assert fnn.Quadratic().value(a.astype(dtype), y) == np.float32(70001**2 / 2)


MISFITS = {  # the last layers, the cost, and what is said
    "softmax twice": ((fnn.Dense(3), fnn.Softmax()), fnn.SoftmaxCrossEntropy(), r"ends in Softmax\(\); omit"),
    "softmax twice, hidden": (
        (fnn.Frozen(fnn.Serial((fnn.Dense(3), fnn.Softmax(), fnn.Identity()))), fnn.Dropout(0.1)),
        fnn.SoftmaxCrossEntropy(),
        "ends in Softmax",
    ),
    "sigmoid twice": ((fnn.Dense(1), fnn.Sigmoid()), fnn.SigmoidBinaryCrossEntropy(), r"ends in Sigmoid\(\); omit"),
    "probabilities for a margin": ((fnn.Dense(1), fnn.Sigmoid()), fnn.Hinge(), "ends in Sigmoid"),
    "logits": ((fnn.Dense(3),), fnn.CrossEntropy(), r"ends in Dense\(3\); end it in fnn\.Softmax"),
    "a logit": ((fnn.Dense(1),), fnn.BinaryCrossEntropy(), r"ends in Dense\(1\)"),
    "a divergence of logits": ((fnn.Dense(3),), fnn.KullbackLeibler(), r"ends in Dense\(3\)"),
    "from -1 to 1": ((fnn.Dense(1), fnn.Tanh()), fnn.BinaryCrossEntropy(), "ends in Tanh"),
    "without an upper end": ((fnn.Dense(3), fnn.Relu()), fnn.CrossEntropy(), "ends in Relu"),
    "logarithms": ((fnn.Dense(3), fnn.LogSoftmax()), fnn.CrossEntropy(), "ends in LogSoftmax"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_output_layer_that_does_not_fit_the_cost_is_refused_by_its_name(name):
    layers, loss, message = MISFITS[name]
    for make in (fnn.value_and_grad, fnn.backprop, fnn.make_step, fnn.per_example.norms):
        with pytest.raises(errors.ArgumentError, match=message):
            make(fnn.Serial(layers), loss)


def test_an_output_that_does_not_fit_the_cost_is_refused_by_its_values_where_the_layer_does_not_tell(backend):
    net = fnn.Serial((fnn.Dense(3), fnn.LayerNorm()))
    params, data = net.init(key(backend), (2,)), (np.random.default_rng(0).normal(size=(8, 2)), np.arange(8) % 3)
    with pytest.raises(errors.ArgumentError, match=r"takes probabilities, but one of the network's outputs is -?\d"):
        fnn.evaluate(net, fnn.CrossEntropy(), params, data)
    fine = fnn.Serial((fnn.Dense(3), fnn.Softmax(), fnn.Scale(1.0)))
    assert fnn.evaluate(fine, fnn.CrossEntropy(), fine.init(key(backend), (2,)), data)["loss"] > 0


def test_an_output_layer_that_fits_is_accepted():
    for layer in (fnn.Softmax(), fnn.Sigmoid(), fnn.HardSigmoid(), fnn.Parallel((fnn.Dense(1), fnn.Dense(2)))):
        fnn.value_and_grad(fnn.Serial((fnn.Dense(3), layer)), fnn.CrossEntropy())
    for layer in (fnn.Tanh(), fnn.Relu(), fnn.LogSoftmax(), fnn.Swish(learnt=True)):
        fnn.value_and_grad(fnn.Serial((fnn.Dense(3), layer)), fnn.SoftmaxCrossEntropy())


def test_one_output_is_no_classification(backend):
    net = fnn.Dense(1)
    params, x = net.init(key(backend), (2,)), np.ones((4, 2))
    for y, message in (
        (np.array([0, 1, 0, 1]), "labels from 0 to 0, as there is one output"),
        (np.array([[0.0], [1.0], [0.0], [1.0]]), "at least two outputs"),
    ):
        with pytest.raises(errors.FnnError, match=rf"{message}.*Dense\(1\) with fnn\.SigmoidBinaryCrossEntropy"):
            fnn.value_and_grad(net, fnn.SoftmaxCrossEntropy())(params, x, y)


def test_several_targets_are_refused_by_a_cost_of_one():
    with pytest.raises(errors.KindError, match="y: expected one array"):
        fnn.value_and_grad(fnn.Identity(), fnn.Quadratic())((), np.ones((2, 1)), {"a": np.ones((2, 1))})


COUPLED = {
    "the mean of the targets": lambda a, y: ((a - y.mean(axis=0)) ** 2).sum(axis=1),
    "divided by N": lambda a, y: ((a - y) ** 2).sum(axis=1) / len(a),
    "the same for all": lambda a, y: (a - y).sum(axis=1) * 0 + ((a - y) ** 2).mean(),
    "the wrong axis": lambda a, y: ((a - y[:, 0]) ** 2).sum(axis=1),
    "weakly": lambda a, y: ((a - y) ** 2).sum(axis=1) + 1e-3 * a.mean(),
}


@pytest.mark.parametrize("name", COUPLED)
def test_a_function_that_couples_examples_is_refused_wherever_it_enters(name, needs_jax):
    net, loss = fnn.Dense(1), fnn.FunctionLoss(COUPLED[name])
    state = fnn.init_state(net, fnn.Sgd(0.1), key("jax"), (2,))
    x, y = np.ones((5, 2)), np.ones((5, 1))
    with pytest.raises(errors.ArgumentError, match="treats each example independently"):
        fnn.train(net, loss, state, (x, y), epochs=1, batch_size=2)
    with pytest.raises(errors.ArgumentError, match="treats each example independently"):
        needs_jax.jit(fnn.value_and_grad(net, loss))(state.params, x, y)
    with pytest.raises(AssertionError, match="treats each example independently"):
        check_loss(loss, np.arange(1.0, 6)[:, None], y)


def test_a_function_of_several_targets_is_accepted(needs_jax):
    loss = fnn.FunctionLoss(lambda a, y: y["scale"] * ((a - y["mean"]) ** 2).sum(axis=1))
    a, y = np.ones((2, 1), np.float32), {"scale": np.float32([1, 2]), "mean": np.zeros((2, 1), np.float32)}
    assert fnn.value_and_grad(fnn.Identity(), loss)((), needs_jax.numpy.asarray(a), y)[0] == 1.5


@dataclass(frozen=True)
class OverN(fnn.Loss):
    """A cost as nobody should write one."""

    def value(self, a, y):
        return ((a - y) ** 2).sum(axis=1) / len(a)

    def delta(self, a, y):
        return 2 * (a - y) / len(a)


def test_a_cost_that_depends_on_the_number_of_examples_does_not_pass_its_check():
    with pytest.raises(AssertionError, match="value of example 0 depends on the others"):
        check_loss(OverN(), np.ones((3, 1)), np.zeros((3, 1)), method="complex")


def test_derivatives_by_jax_are_those_of_the_formula_where_a_target_or_a_prediction_is_0(needs_jax):
    names = "hellinger", "kullback_leibler", "generalized_kullback_leibler", "binary_cross_entropy", "exponential"
    a, y = np.float32([[0.3, 0.5], [0, 0.5], [1e-12, 0.2]]), np.float32([[0, 0.3], [0, 0], [0, 1]])
    cases = {oracle.LOSSES[name].loss: (a, y) for name in names} | {fnn.ItakuraSaito(): (a + 1e-12, y + 1)}
    total = lambda a, y, loss: loss.value(a, y).sum()
    found = oracle.quick_jit(
        lambda data: [needs_jax.grad(total)(*d, loss) for d, loss in zip(data, cases, strict=True)]
    )
    for by_jax, (loss, data) in zip(found(list(cases.values())), cases.items(), strict=True):
        np.testing.assert_allclose(by_jax, loss.delta(*data), rtol=1e-5, err_msg=str(loss))


def test_the_root_of_a_mean_has_a_derivative_by_jax_at_0_and_is_nan_below(needs_jax):
    of = lambda mean: fnn.RootMeanSquaredError().outer(mean)[0]
    assert needs_jax.grad(of)(0.0) == 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(fnn.RootMeanSquaredError().outer(np.float32(-1))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.thorough(backend="jax")
def test_costs_of_probabilities_near_0_and_1_are_as_exact_as_their_dtype(dtype, backend):
    mpmath = pytest.importorskip("mpmath")
    a = np.array([1e-10, 1e-7, 1e-5, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-5, 1 - 6e-8], dtype)
    a, y = (g.reshape(-1, 1) for g in np.meshgrid(a, np.array([0, 1e-8, 1e-3, 0.3, 0.999, 1], dtype)))

    def binary(a, y):
        return -y * mpmath.log(a) - (1 - y) * mpmath.log(1 - a), (a - y) / (a * (1 - a))

    def hellinger(a, y):
        return (mpmath.sqrt(a) - mpmath.sqrt(y)) ** 2 / mpmath.sqrt(2), (1 - mpmath.sqrt(y / a)) / mpmath.sqrt(2)

    for loss, formula in ((fnn.BinaryCrossEntropy(), binary), (fnn.Hellinger(), hellinger)):
        with mpmath.workdps(60):
            wanted = np.array(
                [formula(*map(mpmath.mpf, map(float, pair))) for pair in zip(a[:, 0], y[:, 0], strict=True)]
            )
            with wide() if dtype == np.float64 else contextlib.nullcontext():
                found = loss.value_and_delta(*on(backend, (a, y)))
            for ours, exact in zip(found, wanted.T, strict=True):
                np.testing.assert_allclose(np.ravel(ours), exact.astype(np.float64), rtol=8 * np.finfo(dtype).eps)


# ---- quantiles, distributions, and costs of unequal classes ----------------------------------------------------------


def test_quantiles_are_those_that_scikit_learn_scores_and_the_best_constant_is_the_quantile():
    metrics, rng = pytest.importorskip("sklearn.metrics"), np.random.default_rng(0)
    a, y, levels = rng.normal(size=(50, 6)), rng.normal(size=(50, 2)), (0.1, 0.6, 0.95)
    of_level = zip(levels, np.split(a, 3, axis=1), strict=True)
    wanted = sum(2 * metrics.mean_pinball_loss(y, q, alpha=t) for t, q in of_level)  # the sum over both numbers
    np.testing.assert_allclose(fnn.Quantile(levels).value(a, y).mean(), wanted, rtol=1e-12)
    y, grid = rng.exponential(size=(999, 1)), np.linspace(0, 4, 4001)
    costs = [fnn.Quantile(0.8).value(np.full((999, 1), q), y).mean() for q in grid]
    assert abs(grid[np.argmin(costs)] - np.quantile(y, 0.8)) < 0.01


def test_levels_are_one_number_or_several_in_the_order_of_the_outputs():
    assert fnn.Quantile(0.9) == fnn.Quantile((0.9,)) != fnn.Quantile()
    assert fnn.Quantile() == fnn.Quantile(0.5)
    delta = fnn.Quantile((0.1, 0.8)).delta(np.array([[1.0, 1, 1, 1]]), np.array([[2.0, 0.0]]))
    np.testing.assert_allclose(delta, [[-0.1, 0.9, -0.8, 0.2]])


def test_a_network_learns_the_quantiles_of_its_data():
    y, net = np.random.default_rng(0).normal(size=(400, 1)), fnn.Dense(3)
    data, loss = (np.ones((400, 1)), y), fnn.Quantile((0.1, 0.5, 0.9))
    optimizer = fnn.Sgd(fnn.schedules.ExponentialDecay(1.0, 0.1, 100))
    state, _ = fnn.fit(net, loss, optimizer, data, key=key(), epochs=200, batch_size=400)
    np.testing.assert_allclose(net.apply(state.params, data[0])[0], np.quantile(y, loss.levels), atol=0.05)


def test_a_variance_is_predicted_as_its_logarithm():
    a = np.array([[1.0, -2.0, 0.0, np.log(4)]])
    np.testing.assert_allclose(fnn.GaussianNll().predict(a), [[1, -2, 1, 4]])
    np.testing.assert_allclose(fnn.GaussianNll().value(a, np.array([[3.0, 0.0]])), [2 + np.log(2) + 0.5])


@pytest.mark.thorough(backend="jax")
def test_a_focal_cost_without_focus_is_the_cross_entropy_and_weights_are_those_of_its_classes(backend):
    rng, alpha = np.random.default_rng(0), (1.0, 0.5, 3.0)
    z, y = on(backend, (rng.normal(size=(6, 3)), np.arange(6) % 3))
    bits = on(backend, rng.integers(0, 2, (6, 3)))
    with wide():
        found = fnn.Focal(gamma=0.0).value_and_delta(z, y)
        oracle.assert_close(found, fnn.SoftmaxCrossEntropy().value_and_delta(z, y), 1e-6)
        found = fnn.BinaryFocal(gamma=0.0).value_and_delta(z, bits)
        oracle.assert_close(found, fnn.SigmoidBinaryCrossEntropy().value_and_delta(z, bits), 1e-6)
        value, delta = fnn.Focal().value_and_delta(z, y)
        c = on(backend, np.array(alpha)[np.arange(6) % 3])
        oracle.assert_close(fnn.Focal(alpha=alpha).value_and_delta(z, y), (c * value, c[:, None] * delta), 1e-6)


def test_two_classes_with_logits_0_and_z_have_the_binary_focal_cost():
    z, y = np.random.default_rng(0).normal(size=(8, 1)) * 5, np.arange(8) % 2
    two = fnn.Focal(gamma=1.3).value(np.hstack([0 * z, z]), y)
    np.testing.assert_allclose(two, fnn.BinaryFocal(gamma=1.3).value(z, y[:, None]), rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.thorough(backend="jax")
def test_focal_costs_are_exact_far_out(gamma, backend):
    z = on(backend, np.float32([[1e4, 0.0], [-1e4, 0.0], [np.inf, 0.0], [0.0, -np.inf]]))
    value, delta = (np.asarray(v) for v in fnn.Focal(gamma=gamma).value_and_delta(z, on(backend, np.zeros(4, int))))
    np.testing.assert_array_equal(value, [0, 1e4, 0, 0])
    np.testing.assert_array_equal(delta, [[0, 0], [-1, 1], [0, 0], [0, 0]])
    value, delta = fnn.BinaryFocal(gamma=gamma).value_and_delta(z[:3, :1], on(backend, np.ones((3, 1), int)))
    np.testing.assert_array_equal(np.asarray(value), [0, 1e4, 0])
    np.testing.assert_array_equal(np.asarray(delta), [[0], [-1], [0]])
    if backend == "jax":
        by_jax = jax.grad(lambda z: fnn.Focal(gamma=gamma).value(z, np.zeros(2, int)).sum())(z[:2])
        np.testing.assert_array_equal(by_jax, [[0, 0], [-1, 1]])


def test_weights_of_each_output_are_those_of_each_alone():
    z, y = np.random.default_rng(0).normal(size=(5, 2)), np.array([[0, 1], [1, 1], [1, 0], [0, 0], [1, 1]])
    value, delta = fnn.SigmoidBinaryCrossEntropy(pos_weight=(2.0, 0.5)).value_and_delta(z, y)
    alone = [
        fnn.SigmoidBinaryCrossEntropy(pos_weight=w).value_and_delta(z[:, k : k + 1], y[:, k : k + 1])
        for k, w in enumerate((2.0, 0.5))
    ]
    np.testing.assert_allclose(value, alone[0][0] + alone[1][0])
    np.testing.assert_allclose(delta, np.hstack([alone[0][1], alone[1][1]]))


def test_costs_are_those_of_pytorch():
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(0)
    z, y, s = rng.normal(size=(9, 3)), rng.integers(0, 2, (9, 3)), rng.normal(size=(9, 3))

    def of(theirs, *arrays):  # the value of each example, and the derivative by the first
        first, *rest = (torch.tensor(a, dtype=torch.float64) for a in arrays)
        value = theirs(first.requires_grad_(), *rest).sum(dim=1)
        value.sum().backward()
        return value.detach().numpy(), first.grad.numpy()

    weights = torch.tensor([3.0, 0.5, 2.0], dtype=torch.float64)
    wanted = of(torch.nn.BCEWithLogitsLoss(reduction="none", pos_weight=weights), z, y)
    found = fnn.SigmoidBinaryCrossEntropy(pos_weight=(3.0, 0.5, 2.0)).value_and_delta(z, y)
    oracle.assert_close(found, wanted, 1e-12)
    gaussian = torch.nn.GaussianNLLLoss(reduction="none", eps=1e-12)
    wanted = of(lambda a, y: gaussian(a[:, :3], y, a[:, 3:].exp()), np.hstack([z, s]), y)
    oracle.assert_close(fnn.GaussianNll().value_and_delta(np.hstack([z, s]), y), wanted, 1e-12)


# ---- costs over positions --------------------------------------------------------------------------------------------

OF_CLASSES = [
    fnn.SoftmaxCrossEntropy(),
    fnn.SoftmaxCrossEntropy(label_smoothing=0.1),
    fnn.SoftmaxCrossEntropy(ignored=-1),
    fnn.SoftmaxCrossEntropy(label_smoothing=0.1, ignored=2),
    fnn.CrossEntropy(),
    fnn.CrossEntropy(ignored=-1),
    fnn.Focal(ignored=-1),
]


def positions(loss):
    """Predictions (4, 3, 5), labels (4, 3), and which of them count."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(4, 3, 5)), rng.integers(0, 5, (4, 3))
    if isinstance(loss, fnn.CrossEntropy):
        z = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    if loss.ignored is not None:
        y[[0, 0, 3], [0, 2, 1]] = loss.ignored
    return z, y, np.ones_like(y, bool) if loss.ignored is None else y != loss.ignored


@pytest.mark.parametrize("loss", OF_CLASSES, ids=repr)
@pytest.mark.thorough(backend="jax")
def test_the_cost_of_positions_is_the_sum_of_their_costs_and_an_ignored_one_has_none(loss, backend):
    z, y, counts = positions(loss)
    plain = type(loss)(**{"label_smoothing": loss.label_smoothing} if hasattr(loss, "label_smoothing") else {})
    one_by_one, deltas = plain.value_and_delta(z.reshape(12, 5), np.where(counts, y, 0).reshape(12))
    wanted = (one_by_one.reshape(4, 3) * counts).sum(axis=1), deltas.reshape(4, 3, 5) * counts[..., None]
    with wide():
        oracle.assert_close(loss.value_and_delta(*on(backend, (z, y))), wanted, 1e-12)
        if backend == "jax":
            oracle.assert_close(jax.jit(loss.value_and_delta)(*on(backend, (z, y))), wanted, 1e-12)
    net, params = fnn.Identity(), ()
    value, (_, dx) = fnn.value_and_grad(net, loss, need_dx=True)(params, z, y)
    oracle.assert_close((value, dx), (wanted[0].mean(), wanted[1] / 4), 1e-12)


@pytest.mark.thorough(backend="jax")
def test_predictions_at_an_ignored_position_may_even_be_nan(backend):
    z, y, counts = positions(fnn.SoftmaxCrossEntropy(ignored=-1))
    z[~counts] = np.nan
    for loss in (fnn.SoftmaxCrossEntropy(ignored=-1), fnn.Focal(ignored=-1)):
        value, delta = loss.value_and_delta(*on(backend, (np.float32(z), np.where(counts, y, -1))))
        assert np.isfinite(np.asarray(value)).all()
        assert (np.asarray(delta)[~counts] == 0).all()


@pytest.mark.parametrize("loss", OF_CLASSES, ids=repr)
def test_a_label_of_a_position_that_is_no_class_is_refused_or_nan(loss, needs_jax):
    z, y, _ = positions(loss)
    y[1, 1] = 7
    with pytest.raises(errors.DataError, match=r"labels from 0 to 4.*, got 7 at y\[1, 1\]"):
        fnn.value_and_grad(fnn.Identity(), loss)((), z, y)
    found = np.asarray(jax.jit(loss.value)(np.float32(z), y))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, False])


@pytest.mark.parametrize("loss", OF_CLASSES[2::3] + OF_CLASSES[5:], ids=repr)
def test_no_label_of_a_dtype_that_cannot_hold_the_ignored_one_is_ignored(loss, backend):
    loss = type(loss)(ignored=-1)  # of bytes without sign, −1 would be 255, which is a class
    z, y = np.random.default_rng(0).uniform(0.1, 1, (2, 1, 256)), np.array([[255], [3]], np.uint8)
    given = on(backend, (np.float32(z), y))
    oracle.assert_close(loss.value_and_delta(*given), loss.value_and_delta(z, y.astype(int)), 1e-5)
    assert loss.value(*given)[0] > 0
    assert fnn.accuracy(*on(backend, (np.eye(256)[y], y)), ignored=-1) == 1
    assert np.asarray(loss.fisher_target(*given) if isinstance(loss, fnn.CrossEntropy) else given[0]).all()


def test_labels_of_positions_of_another_shape_say_what_is_expected():
    with pytest.raises(
        errors.ShapeError, match=r"expected labels of shape \(4, 3\) or probabilities \(4, 3, 5\), got \(4,\)"
    ):
        fnn.value_and_grad(fnn.Identity(), fnn.SoftmaxCrossEntropy())((), np.zeros((4, 3, 5)), np.zeros(4, int))


# ---- second derivatives and samples ----------------------------------------------------------------------------------

ROOTLESS = {"itakura_saito", "gaussian", "function"}  # two are not convex, of the other it is not known
ROOTLESS |= {name for name in oracle.LOSSES if "focal" in name}  # nor are they
WITH_ROOT = [name for name in oracle.LOSSES if name not in ROOTLESS]


def squared(root):
    """S Sᵀ of each example."""
    return root @ root.swapaxes(-1, -2)


def with_root(name, k=4):
    """A cost with a root, and predictions and targets for it; those that couple no outputs at positions, too."""
    loss, (a, y) = oracle.LOSSES[name].loss, drawn(name, np.random.default_rng(2), n=6, k=k)
    return loss, a, y


def test_the_square_of_a_root_is_the_hessian_that_jax_finds(needs_jax):
    cases = {(name, k): with_root(name, k)[1:] for name in WITH_ROOT for k in ((1, 4) if THOROUGH else (4,))}

    def hessians(cases):
        found = {}
        for (name, k), (a, y) in cases.items():
            value = lambda a, y, f=oracle.LOSSES[name].function: f(a[None], y[None])[0]
            loss = oracle.LOSSES[name].loss
            found[name, k] = jax.vmap(jax.hessian(value))(a, y), squared(loss.root(a, y))
        return found

    with wide():
        found = oracle.quick_jit(hessians)(on("jax", cases))
    for (name, k), (wanted, on_jax) in found.items():
        loss, a, y = with_root(name, k)
        oracle.assert_close({name: [squared(loss.root(a, y)), on_jax]}, {name: [wanted, wanted]}, 1e-12)


@pytest.mark.parametrize("name", WITH_ROOT)
def test_a_root_is_that_of_the_derivative_of_delta_at_each_position_too(name):
    loss, a, y = with_root(name)
    u = np.random.default_rng(0).normal(size=a.shape)
    along = lambda a, y, u: jvp(lambda a: loss.delta(a, y), a, u)
    oracle.assert_close(np.einsum("nij,nj->ni", squared(loss.root(a, y)), u), along(a, y, u), 1e-12)
    if name != "exponential":
        a, y, u = (v.reshape(3, 2, *v.shape[1:]) for v in (a, y, u))
        oracle.assert_close(np.einsum("ntij,ntj->nti", squared(loss.root(a, y)), u), along(a, y, u), 1e-12)
        assert loss.root(np.float32(a), y.astype(np.float32) if y.dtype == np.float64 else y).dtype == np.float32


def test_a_root_without_an_axis_of_outputs_is_a_column():
    a, y = np.array([1.0, 2.0]), np.array([0.5, 1.0])
    for loss in (fnn.Quadratic(), fnn.MeanSquaredError(), fnn.PoissonNll(), fnn.KullbackLeibler()):
        along = jvp(lambda a, loss=loss: loss.delta(a, y), a, np.ones(2))
        np.testing.assert_allclose((loss.root(a, y) ** 2).sum(axis=-1), along)


def test_below_epsilon_a_root_is_0_where_the_cost_is_its_tangent():
    a, y = np.array([[1e-3, 0.3]]), np.array([[0.5, 0.5]])
    for loss in (fnn.CrossEntropy, fnn.KullbackLeibler, fnn.GeneralizedKullbackLeibler, fnn.Hellinger):
        assert (np.diagonal(loss(eps=1e-2).root(a, y)[0]) > 0).tolist() == [False, True]
        assert (np.diagonal(loss(eps=1e-4).root(a, y)[0]) > 0).tolist() == [True, True]
    a, y = np.array([[1e-3, 0.3, 1 - 1e-3]]), np.ones((1, 3))
    assert (np.diagonal(fnn.BinaryCrossEntropy(eps=1e-2).root(a, y)[0]) > 0).tolist() == [False, True, True]
    assert (np.diagonal(fnn.BinaryCrossEntropy(eps=1e-2).root(a, 1 - y)[0]) > 0).tolist() == [True, True, False]


@pytest.mark.thorough(backend="jax")
def test_an_ignored_position_has_no_curvature_and_is_not_drawn(backend):
    z, y, counts = positions(fnn.SoftmaxCrossEntropy(ignored=-1))
    y = np.where(counts, y, -1)
    z, y = on(backend, (np.float32(z), y))
    for loss, a in ((fnn.SoftmaxCrossEntropy(ignored=-1), z), (fnn.CrossEntropy(ignored=-1), abs(z))):
        for root in (loss.root(a, y), loss.root(a, loss.fisher_target(a, y))):
            np.testing.assert_array_equal(np.asarray(abs(root)).max(axis=(2, 3)) > 0, counts)
        target = np.asarray(loss.sample(key(backend), a, y))
        np.testing.assert_array_equal(target == -1, ~counts)
        assert (np.asarray(loss.sample(key(backend), a)) >= 0).all()


LAWS = {  # costs that are minus a log-likelihood, and where the Fisher information is known otherwise
    "quadratic": None,
    "mean_squared": None,
    "mean_absolute": lambda a: np.eye(4) / 16,
    "huber": lambda a: np.eye(4) * _near(0.7),
    "softmax_labels": None,
    "sigmoid_bits": None,
    "poisson": None,
    "cross_entropy_labels": None,
    "binary_cross_entropy": None,
    "generalized_kullback_leibler": None,
    "itakura_saito": lambda a: np.diag(1 / a**2),
    "quantile": lambda a: 0.21 * np.eye(4),
    "gaussian": lambda a: np.diag([*np.exp(-a[4:]), *(0.5,) * 4]),
}
DRAWS = 20_000


def _near(t):
    """The probability that Huber's error is below its threshold t."""
    near, far = math.sqrt(2 * math.pi) * math.erf(t / math.sqrt(2)), 2 / t * math.exp(-t * t / 2)
    return near / (near + far)


@pytest.mark.parametrize("name", LAWS)
def test_the_score_of_a_drawn_target_has_mean_0_and_the_hessian_as_its_covariance(name):
    loss, (a, y) = oracle.LOSSES[name].loss, drawn(name, np.random.default_rng(3), n=1)
    if name == "cross_entropy_labels":
        a = a / a.sum()
    many = np.repeat(a, DRAWS, axis=0)
    target = loss.sample(key(), many)
    loss.check(many.shape, target)
    score = loss.delta(many, target)
    if name == "cross_entropy_labels":  # probabilities sum to 1, and move so that they do
        assert abs(score.mean(axis=0) + 1).max() < 5 / math.sqrt(a.min() * DRAWS)
    else:
        assert (abs(score.mean(axis=0)) <= 5 * score.std(axis=0) / math.sqrt(DRAWS)).all()
    products = score[:, :, None] * score[:, None, :]
    law = LAWS[name]
    wanted = squared(loss.root(a, loss.fisher_target(a, y)))[0] if law is None else law(a[0])
    within = 5 * products.std(axis=0) / math.sqrt(DRAWS) + 1e-12
    assert (abs(products.mean(axis=0) - wanted) <= within).all(), (products.mean(axis=0), wanted)
    if name == "itakura_saito":
        target = loss.fisher_target(a, y)
        bend = jvp(lambda a: loss.delta(a, target), a, np.ones((1, 4)))
        oracle.assert_close(bend, 1 / a**2, 1e-12)


def test_samples_are_the_same_on_both_backends(needs_jax):
    cases = {name: np.float32(drawn(name, np.random.default_rng(3), n=50)[0]) for name in LAWS}
    draw = lambda key, cases: {name: oracle.LOSSES[name].loss.sample(key, a) for name, a in cases.items()}
    on_numpy, on_jax = draw(key(), cases), oracle.quick_jit(draw)(key("jax"), cases)
    for name in set(LAWS) - {"poisson", "generalized_kullback_leibler"}:  # whose counts NumPy draws otherwise
        oracle.assert_close({name: on_jax[name]}, {name: on_numpy[name]}, 1e-5)
    assert trees.map(lambda a: (a.dtype, a.shape), on_jax) == trees.map(lambda a: (a.dtype, a.shape), on_numpy)


WITHOUT = {  # what a cost does not have, and what is said
    "a root, not convex": (fnn.ItakuraSaito(), "root", "convex in the prediction"),
    "a root of mean and variance": (fnn.GaussianNll(), "root", "convex in the prediction"),
    "a root, focal": (fnn.Focal(), "root", "convex in the prediction"),
    "a sample of quantiles": (fnn.Quantile((0.1, 0.5, 0.9)), "sample", "expected one level"),
    "a sample, weighted": (fnn.SigmoidBinaryCrossEntropy(pos_weight=2.0), "sample", "expected pos_weight=1"),
    "a Fisher target, weighted": (fnn.SigmoidBinaryCrossEntropy(pos_weight=2.0), "fisher_target", "pos_weight=1"),
    "a root, unknown": (fnn.FunctionLoss(oracle.quartic), "root", "convex in the prediction"),
    "a sample": (fnn.Hinge(), "sample", "minus a log-likelihood"),
    "a sample of distances": (fnn.Hellinger(), "sample", "minus a log-likelihood"),
    "a sample, smoothed": (fnn.SoftmaxCrossEntropy(label_smoothing=0.1), "sample", "expected label_smoothing=0"),
    "a sample, smoothed bits": (fnn.SigmoidBinaryCrossEntropy(label_smoothing=0.1), "sample", "label_smoothing=0"),
    "a Fisher target, smoothed": (fnn.SoftmaxCrossEntropy(label_smoothing=0.1), "fisher_target", "label_smoothing=0"),
    "a Fisher target": (fnn.Huber(), "fisher_target", "in closed form; use samples="),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_cost_without_a_root_or_likelihood_says_so(name):
    loss, method, message = WITHOUT[name]
    a = np.full((2, 3), 0.5)
    with pytest.raises(errors.KindError, match=message):
        getattr(loss, method)(*((key(), a) if method == "sample" else (a, a)))


def test_a_root_of_a_cost_that_couples_positions_is_refused():
    with pytest.raises(errors.ShapeError, match="couples positions"):
        fnn.ExponentialCost().root(np.ones((2, 3, 4)), np.ones((2, 3, 4)))


def test_several_targets_are_refused_by_costs_of_one():
    net, y = fnn.mlp((3,)), {"a": np.zeros(4, int)}
    state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (2,))
    for loss in (fnn.SoftmaxCrossEntropy(), fnn.Focal(), fnn.SigmoidBinaryCrossEntropy()):
        with pytest.raises(errors.KindError, match=r"y: expected one array, got {'a'"):
            fnn.fit(net, loss, state, (np.ones((4, 2)), y), epochs=1, batch_size=2)

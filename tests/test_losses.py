"""Each cost has the value and the derivative of its formula, refuses what is no target, and predicts probabilities."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, on

import fnn
from fnn import errors
from fnn.backend import jax
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
    check_loss(make(eps=1e-2), np.array([[-1.0], [0.0], [5e-3], [0.3]]), np.ones((4, 1)), method="complex")


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


@pytest.mark.parametrize("loss", [oracle.LOSSES[name].loss for name in NAMES], ids=NAMES)
def test_nan_is_passed_on_by_value_and_delta(loss):
    z, y = np.full((1, 2), np.nan), np.array([[1.0, 1.0]])
    value, delta = loss.value_and_delta(z, y)
    assert np.isnan(value).all()
    assert np.isnan(delta).all()


def test_integer_predictions_have_errors_that_are_no_integers():
    for net in (fnn.Identity(), fnn.Flatten()):  # one makes floating point of them, the other integers
        dx = fnn.grad(net, fnn.Quadratic(), need_dx=True)((), np.array([[3]], np.uint8), np.array([[5.5]]))[1]
        np.testing.assert_array_equal(dx, [[-2.5]])


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
    "targets as a row": (fnn.SigmoidBinaryCrossEntropy(), (2, 1), [1, 0], errors.ShapeError, r"y\[:, None\]"),
    "targets that would broadcast": (fnn.Quadratic(), (4, 1), [1.0, 2, 3, 4], errors.ShapeError, r"y\[:, None\]"),
    "nan to regress on": (fnn.Quadratic(), (1, 2), [[1.0, np.nan]], errors.DataError, r"nan at y\[0, 1\]"),
    "a negative count": (fnn.PoissonNll(), (1, 2), [[1, -1]], errors.DataError, r"at least 0, got -1 at y\[0, 1\]"),
    "0 for a hinge": (fnn.Hinge(), (2, 1), [[1], [0]], errors.DataError, r"2 \* y - 1.*got 0 at y\[1, 0\]"),
    "2 for a perceptron": (fnn.Perceptron(), (1, 1), [[2.0]], errors.DataError, "−1 or 1"),
    "a negative target of a distance": (fnn.Hellinger(), (1, 1), [[-0.1]], errors.DataError, "at least 0"),
    "a probability above 1": (fnn.BinaryCrossEntropy(), (1, 1), [[1.5]], errors.DataError, "0 to 1, got 1.5"),
    "a spectrum of 0": (fnn.ItakuraSaito(), (1, 1), [[0.0]], errors.DataError, "greater than 0"),
    "a label too large for probabilities": (fnn.CrossEntropy(), (1, 2), [2], errors.DataError, "0 to 1, got 2"),
    "a row for a mean absolute error": (fnn.MeanAbsoluteError(), (2, 1), [1.0, 2], errors.ShapeError, "y"),
    "an infinity to regress on": (fnn.MeanSquaredError(), (1, 1), [[np.inf]], errors.DataError, "inf"),
}


@pytest.mark.parametrize("name", TARGETS)
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
    "an epsilon of 0": (lambda: fnn.CrossEntropy(eps=0.0), errors.ArgumentError, "eps >= 1e-18"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_cost_that_makes_no_sense_is_refused(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()

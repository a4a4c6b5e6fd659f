"""Each cost has the value and the derivative of its formula, refuses what is no target, and predicts probabilities."""

import numpy as np
import oracle
import pytest

import fnn
from fnn import errors


@pytest.mark.parametrize("name", oracle.LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_value_and_delta_are_those_of_jax(name, dtype, tolerance, needs_jax):
    import jax

    loss, function, draw = oracle.LOSSES[name]
    rng = np.random.default_rng(0)

    def ours(a, y):
        return loss.value_and_delta(a, y), (loss.value(a, y), loss.delta(a, y))

    with jax.enable_x64(True):
        for scale, k in ((1, 5), (10, 1), (10, 3)):
            a, y = (scale * rng.normal(size=(100, k))).astype(dtype), draw(rng, 100, k)
            y = y.astype(dtype) if y.dtype == np.float64 else y

            @jax.jit
            def both(a, y):
                wanted, vjp = jax.vjp(lambda a: function(a, y), a)
                return (wanted, *vjp(jax.numpy.ones_like(wanted))), ours(a, y)

            wanted, on_jax = both(a, y)
            for found in (on_jax, *([ours(a, y)] if name != "function" else [])):
                for value, delta in found:
                    oracle.assert_close((value, delta), wanted, tolerance)
                    assert value.shape == (100,)
                    assert value.dtype == delta.dtype == dtype


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


def test_a_negative_penalty_is_refused():
    with pytest.raises(errors.ArgumentError, match=r"L2\.coefficient"):
        fnn.value_and_grad(fnn.Dense(1), fnn.Quadratic(), penalty=fnn.L2(-1.0))


def test_a_penaltys_tree_must_begin_as_the_parameters_do():
    with pytest.raises(errors.ShapeError, match=r"L2\.coefficient: .*\(\(2, 2\), \(2,\)\)"):
        fnn.L2((1.0, 2.0, 3.0)).value((np.ones((2, 2)), np.ones(2)))

"""What a network predicts is evaluated as it is used: in inference, whatever the batch, and with weights."""

import functools

import numpy as np
import pytest
from helpers import blobs, key, run_problem
from helpers_training import on_numpy_at_least

import fnn
from fnn import errors


def test_the_figures_of_evaluate_are_those_of_the_predictions(backend):
    net, loss, state, data = run_problem(backend)
    params = run_problem("numpy")[2].params
    prediction = net.apply(params, data[0])
    wanted = {"loss": loss.value(prediction, data[1]).mean(), "accuracy": (prediction.argmax(axis=1) == data[1]).mean()}
    found = fnn.evaluate(net, loss, state.params, data, metrics={"accuracy": fnn.accuracy})
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
@on_numpy_at_least
def test_they_do_not_depend_on_the_batch(batch_size, backend):
    net, loss, state, data = run_problem(backend)
    wanted = fnn.evaluate(net, loss, state.params, data, metrics={"accuracy": fnn.accuracy})
    found = fnn.evaluate(net, loss, state.params, data, batch_size=batch_size, metrics={"accuracy": fnn.accuracy})
    assert found == pytest.approx(wanted, rel=1e-5)


@on_numpy_at_least
def test_evaluate_counts_weights(backend):
    net, loss, state, (x, y) = run_problem(backend)
    weights = np.arange(50) % 3
    repeated = np.repeat(np.arange(50), weights)
    metrics = {"accuracy": fnn.accuracy}
    weighted = fnn.evaluate(net, loss, state.params, (x, y, weights), metrics=metrics)
    wanted = fnn.evaluate(net, loss, state.params, (x[repeated], y[repeated]), metrics=metrics)
    assert weighted == pytest.approx(wanted, 1e-5)


@on_numpy_at_least
def test_nothing_is_dropped_out_in_evaluation(backend):
    net = fnn.Serial((fnn.Dropout(0.9), fnn.Dense(3)))
    _, loss, state, (x, y) = run_problem(backend, net=net)
    wanted = loss.value(fnn.Dense(3).apply(state.params[1], x), y).mean()
    assert fnn.evaluate(net, loss, state.params, (x, y))["loss"] == pytest.approx(float(wanted), rel=1e-5)


@on_numpy_at_least
def test_a_metric_sees_probabilities(backend):
    net, loss, state, data = run_problem(backend)
    sums = fnn.evaluate(net, loss, state.params, data, metrics={"sum": lambda p, y: p.sum(axis=1).mean()})
    assert sums["sum"] == pytest.approx(1)


def test_metrics_are_functions_by_names_other_than_loss():
    net, loss, state, _ = run_problem("numpy")
    with pytest.raises(errors.ArgumentError, match="names other than 'loss'"):
        fnn.evaluate(net, loss, state.params, blobs(), metrics={"loss": fnn.accuracy})
    for wrong in ([fnn.accuracy], {"accuracy": 0.5}):
        with pytest.raises(errors.KindError, match="functions by name"):
            fnn.evaluate(net, loss, state.params, blobs(), metrics=wrong)
    for wrong in (None, "0.5", [object()]):
        with pytest.raises(errors.KindError, match="metrics: expected 'm' to return a number"):
            fnn.evaluate(net, loss, state.params, blobs(), metrics={"m": lambda p, y, wrong=wrong: wrong})


@on_numpy_at_least
def test_weights_that_are_all_0_are_refused_and_never_a_perfect_score(backend):
    net, loss, state, (x, y) = run_problem(backend)
    none = x, y, np.zeros(50)
    with pytest.raises(errors.DataError, match="data: expected a weight above 0, got weights that are all 0"):
        fnn.evaluate(net, loss, state.params, none)
    for train in (fnn.train, fnn.fit):
        with pytest.raises(errors.DataError, match="validation: expected a weight above 0"):
            train(net, loss, state, (x, y), epochs=1, batch_size=50, validation=none)
        with pytest.raises(errors.DataError, match="data: expected a weight above 0, got weights that are all 0"):
            train(net, loss, state, none, epochs=1, batch_size=50)
    with pytest.raises(errors.DataError, match="data: expected a weight above 0"):
        fnn.range_test(net, loss, fnn.Sgd(0.1), none, epochs=1, batch_size=50, key=key(backend))


def test_of_traced_weights_that_are_all_0_there_is_no_best_epoch(needs_jax):
    net, loss, state, (x, y) = run_problem("jax")
    how = {"epochs": 2, "batch_size": 50}
    run = lambda weights: fnn.train(net, loss, state, (x, y), validation=(x, y, weights), **how)[1]
    history = needs_jax.jit(run)(np.zeros(50, np.float32))
    assert np.isnan(history["validation_loss"]).all()
    assert int(history["best"].epoch) == -1


@on_numpy_at_least
def test_a_metric_takes_weights_by_name_or_as_third_argument_or_is_refused(backend):
    net, loss, state, (x, y) = run_problem(backend)
    weights, ones = np.arange(50) % 3, np.ones(50)
    metrics = {
        "top": functools.partial(fnn.top_k_accuracy, k=2),
        "matrix": fnn.confusion_matrix,
        "sum": lambda p, y, w: (w * (p.argmax(axis=1) == y)).sum(),
        "options": lambda p, y, k=3, *, weights: weights.sum() * k,
    }
    kept = np.repeat(np.arange(50), weights)
    found = fnn.evaluate(net, loss, state.params, (x, y, weights), metrics=metrics)
    wanted = fnn.evaluate(net, loss, state.params, (x[kept], y[kept], np.ones(49)), metrics=metrics)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    two = {"accuracy": fnn.accuracy, "mine": lambda p, y: 0.0}
    says = (
        r"functions of \(prediction, target, weights\), since \w+ has weights, but 'mine' takes \(prediction, target\)"
    )
    with pytest.raises(errors.KindError, match=says):
        fnn.evaluate(net, loss, state.params, (x, y, ones), metrics=two)
    for train in (fnn.train, fnn.fit):
        how = {"epochs": 1, "batch_size": 50, "metrics": two}
        with pytest.raises(errors.KindError, match=says):
            train(net, loss, state, (x, y), validation=(x, y, ones), **how)
        train(net, loss, state, (x, y), validation=(x, y), **how)

"""What a network predicts is evaluated as it is used: in inference, whatever the batch, and with weights."""

import numpy as np
import pytest
from helpers import blobs, run_problem
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

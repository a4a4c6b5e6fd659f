"""`standardized` is a network with constants in front, measured on data of any kind, that are not learnt."""

import numpy as np
import oracle
import pytest
from helpers import key

import fnn
from fnn import Batches, errors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)) * [1, 50, 0] + [0, 1e3, 7]
Y, NET, LOSS = (X[:, 1] > 1000).astype(int), fnn.mlp((4, 2)), fnn.SoftmaxCrossEntropy()


def test_the_features_that_enter_the_network_have_mean_0_and_deviation_1_where_they_vary(backend):
    net, params = fnn.standardized(NET, X, key(backend))
    assert net == fnn.Serial((fnn.Frozen(fnn.Standardize()), *NET.layers))
    entered = np.asarray(fnn.Frozen(fnn.Standardize()).apply(params[0], X), np.float64)
    np.testing.assert_allclose(entered.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(entered.std(axis=0), [1, 1, 0], atol=1e-5)
    expected = net.init(key(backend), (3,))
    oracle.assert_close(params[1:], expected[1:], 0)
    assert fnn.trees.alike(params, expected)


def batches(*arrays):
    return Batches([tuple(a[i : i + 7] for a in arrays) for i in range(0, 40, 7)])


WEIGHTS = RNG.integers(0, 3, 40).astype(np.float64)
SOURCES = {
    "a file": lambda path: (fnn.datasets.read_npy(path, mapped=True), None),
    "batches of x": lambda path: (Batches([X[:15], X[15:]]), None),
    "batches of x and y": lambda path: (batches(X, Y), None),
    "a list": lambda path: (X.tolist(), None),
    "weights": lambda path: (X, WEIGHTS),
    "batches with weights": lambda path: (batches(X, Y, WEIGHTS), None),
}


@pytest.mark.parametrize("name", SOURCES)
def test_constants_are_measured_on_data_of_any_kind(name, tmp_path):
    np.save(tmp_path / "x.npy", X)
    x, weights = SOURCES[name](tmp_path / "x.npy")
    _, params = fnn.standardized(NET, x, key(), weights=weights, dtype=np.float64)
    w = WEIGHTS if "weights" in name else np.ones(40)
    mean = w @ X / w.sum()
    std = np.sqrt(w @ (X - mean) ** 2 / w.sum())
    oracle.assert_close(params[0].params, fnn.StandardizeParams(mean, np.where(std < 1e-12, 1, std)), 1e-13)


def test_a_run_begins_from_the_parameters_and_leaves_the_constants_alone(tmp_path):
    net, params = fnn.standardized(NET, X, key())
    state, _history = fnn.fit(net, LOSS, fnn.Adam(0.03), (X, Y), key=key(), params=params, epochs=20, batch_size=8)
    begun = fnn.init_state(net, fnn.Adam(0.03), key(), (3,), params=params)
    same, _ = fnn.fit(net, LOSS, begun, (X, Y), epochs=20, batch_size=8)
    oracle.assert_close(state.params, same.params, 0)
    oracle.assert_close(state.params[0], params[0], 0)
    assert fnn.evaluate(net, LOSS, state.params, (X, Y), metrics={"accuracy": fnn.accuracy})["accuracy"] > 0.9
    fnn.checkpoints.save(tmp_path / "net.npz", state, net=net)
    served, weights = fnn.load_network(tmp_path / "net.npz", backend="numpy")
    np.testing.assert_array_equal(fnn.predict(served, LOSS, weights, X), fnn.predict(net, LOSS, state.params, X))
    with pytest.raises(errors.ArgumentError, match="params: expected None with the state of an earlier run"):
        fnn.fit(net, LOSS, state, (X, Y), params=params, epochs=20, batch_size=8)
    with pytest.raises(errors.ShapeError, match="params"):
        fnn.fit(NET, LOSS, fnn.Adam(), (X, Y), key=key(), params=params, epochs=20, batch_size=8)


WITH_NAN = np.where(X[7, 1] == X, np.nan, X)
WRONG = {
    "NaN": (NET, lambda: WITH_NAN, r"x: expected finite numbers, got nan at x\[7, 1\]"),
    "NaN in a batch": (
        NET,
        lambda: Batches([X, WITH_NAN]),
        r"batch 1: x: .* nan at x\[7, 1\]",
    ),
    "batches that differ": (NET, lambda: Batches([X, X[:, :2]]), "batch 1: expected x of shape"),
    "no batches": (NET, lambda: Batches(iter(())), "expected at least one batch, got 0"),
    "no weight": (
        NET,
        lambda: batches(X, Y, 0 * WEIGHTS),
        "one example with a weight above 0, got 40",
    ),
    "negative weights": (NET, lambda: batches(X, Y, -1 - WEIGHTS), "batch 0: weights: expected numbers of at least 0"),
    "several inputs": (NET, lambda: {"a": X}, "x: expected one array, got several"),
    "symbols": (fnn.Serial((fnn.Embedding(5, 2), fnn.Flatten())), lambda: Y[:, None], "standardized: .* of numbers"),
    "no network": ((), lambda: X, "net: expected a layer or network"),
}


@pytest.mark.parametrize("name", WRONG)
def test_data_that_cannot_be_standardized_are_refused(name):
    net, make, message = WRONG[name]
    with pytest.raises(errors.FnnError, match=message):
        fnn.standardized(net, make(), key())


def test_weights_are_given_once():
    with pytest.raises(errors.ArgumentError, match="weights: expected None, as Batches bring their own"):
        fnn.standardized(NET, batches(X, Y), key(), weights=WEIGHTS)

"""Every illness of a network is named, with its layers and what helps, and nothing is said of healthy networks."""

import io
import math
import re
import sys

import numpy as np
import pytest
from helpers import THOROUGH, on

import fnn
from fnn import errors, findings, trees
from fnn.backend import jax

BACKENDS = ["numpy"] if jax is None else ["numpy", "jax"]
backends = pytest.mark.parametrize("backend", BACKENDS)
CE, D, S = fnn.SoftmaxCrossEntropy(), fnn.Dense, fnn.Serial
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)


def begin(net, backend="numpy", optimizer=None, input_shape=(4,), seed=0):
    return fnn.init_state(net, optimizer or fnn.Sgd(0.1), fnn.random.key(seed, backend=backend), input_shape)


@pytest.fixture(scope="module")
def digits():
    (x, y), _ = fnn.datasets.digits()
    n = len(x) if THOROUGH else 640
    return (x[:n] / 16).astype(np.float32), y[:n]


def rows(y):
    return np.eye(10, dtype=np.float32)[y]


def trained(net, loss, data, optimizer, epochs, batch_size=64):
    state = begin(net, optimizer=optimizer, input_shape=fnn.examples.shape_of(data[0]))
    if epochs:
        state, _ = fnn.train(net, loss, state, data, epochs=epochs, batch_size=batch_size)
    return state


def images(x):
    return x.reshape(-1, 8, 8, 1)


def rows_of_images(x, times=1):
    """Sequences of the eight rows of an image, of spread 1, again and again."""
    return np.tile(x.reshape(-1, 8, 8) * 2 - 0.6, (1, times, 1))


def symbols(x):
    """Every fifth pixel as one of 17 symbols, and sequences of unequal length."""
    return {"x": np.rint(16 * x[:, ::5]).astype(np.int32), "length": 1 + np.arange(len(x)) % 13}


def convolutional(channels=8):
    return S(
        (fnn.Conv(channels, (3, 3), padding="same"), fnn.Relu(), fnn.MaxPool((2, 2)), fnn.Conv(16, (3, 3)), fnn.Relu(),
         fnn.Flatten(), D(10))
    )  # fmt: skip


def recurrent(layer):
    return S((layer, D(10)))


def sick(x, y):
    """Illness, a layer that has it, network, cost, inputs, targets, optimizer, epochs."""
    wild = D(10, initializer=fnn.Normal(10.0))
    sigmoids, deep = fnn.mlp((32,) * 6 + (10,), fnn.Sigmoid()), fnn.mlp((64,) * 5 + (10,), fnn.Relu(), fnn.Normal(1.0))
    tanhs, thin = fnn.mlp((64,) * 3 + (10,), fnn.Tanh(), fnn.Normal(2.0)), (D(32), fnn.Relu(), wild)
    squared, mean_squared, t = fnn.Quadratic(), fnn.MeanSquaredError(), rows_of_images(x, times=4)
    return {
        "sigmoid stack": ("vanishing gradient", "0 Dense", sigmoids, CE, x, y, None, 0),
        "killed": ("dead units", "1 Relu", fnn.mlp((64, 64, 10)), CE, x, y, fnn.Sgd(20.0), 1),
        "wild ReLU": ("exploding gradient", "0 Dense", deep, CE, x, y, None, 0),
        "wild tanh": ("saturated units", "3 Tanh", tanhs, CE, x, y, None, 0),
        "sigmoid": ("saturated output", "3 Sigmoid", S((*thin, fnn.Sigmoid())), squared, x, rows(y), None, 0),
        "softmax": ("saturated output", "3 Softmax", S((*thin, fnn.Softmax())), mean_squared, x, rows(y), None, 0),
        "killed filters": ("dead units", "1 Relu", convolutional(), CE, images(x), y, fnn.Sgd(5.0), 1),
        "small U": (
            FORGETS,
            "0 Rnn",
            recurrent(fnn.Rnn(32, recurrent_initializer=fnn.Normal(0.03))),
            CE,
            t,
            y,
            None,
            0,
        ),
        "large U": (
            EXPLODES,
            "0 Rnn",
            recurrent(fnn.Rnn(32, recurrent_initializer=fnn.Normal(0.6))),
            CE,
            t,
            y,
            None,
            0,
        ),
        "wild LSTM": (
            "saturated units",
            "0 Lstm",
            recurrent(fnn.Lstm(16, initializer=fnn.Normal(20))),
            CE,
            t,
            y,
            None,
            0,
        ),
        "wild, and the last": (
            "saturated units",
            "0 Rnn",
            S((fnn.Rnn(10, initializer=fnn.Normal(20)),)),
            squared,
            t,
            rows(y),
            None,
            0,
        ),
        "wild Elman": (
            "saturated units",
            "0 Rnn",
            recurrent(fnn.Rnn(16, initializer=fnn.Normal(20))),
            CE,
            t,
            y,
            None,
            0,
        ),
    }


FORGETS, EXPLODES = "vanishing gradient through time", "exploding gradient through time"
NOTHING = np.zeros((1, 64), np.float32), np.zeros(1, int)


@pytest.mark.parametrize("name", sick(*NOTHING))
@pytest.mark.numpy_alone
def test_a_sick_network_is_told_its_illness_and_no_other(name, digits, capsys):
    illness, layer, net, loss, x, y, optimizer, epochs = sick(*digits)[name]
    with np.errstate(over="ignore"):
        state = trained(net, loss, (x, y), optimizer, epochs)
    found = fnn.diagnose(net, loss, state.params, x, y)
    assert [finding.illness for finding in found.findings] == [illness]
    assert layer in found.findings[0].layers
    printed = capsys.readouterr().out
    assert f"{illness.upper()} in " in printed
    assert "What helps: " in " ".join(printed.split())
    assert repr(found) == f"Diagnosis({illness})"


UNSCALED = {
    "pixels": lambda x: np.uint8(255 * x),
    "a million": lambda x: 1e6 * x,
    "a column": lambda x: np.float32(x - 0.3 + 1e3 * (np.arange(64) == 7)),
    "overflow": lambda x: 1e30 * x,
}


@pytest.mark.parametrize("name", UNSCALED)
@pytest.mark.parametrize("activation", [fnn.Relu(), fnn.Tanh()])
def test_unscaled_inputs_are_named_and_not_what_follows_from_them(name, activation, digits):
    (x, y), net = digits, fnn.mlp((32, 10), activation)
    with np.errstate(over="ignore", invalid="ignore"):
        found = fnn.diagnose(net, CE, begin(net, input_shape=(64,)).params, UNSCALED[name](x), y).findings
    assert [(finding.illness, finding.layers) for finding in found] == [("unscaled inputs", ("0 Dense",))]


@pytest.mark.parametrize("first", [fnn.Scale(1 / 255), fnn.LayerNorm()])
def test_inputs_that_the_network_scales_itself_are_not_unscaled(first, digits):
    (x, y), net = digits, S((first, D(32), fnn.Tanh(), D(10)))
    assert fnn.diagnose(net, CE, begin(net, input_shape=(64,)).params, np.uint8(255 * x), y).findings == ()


@pytest.mark.parametrize("backend", BACKENDS if THOROUGH else ["numpy"])
def test_a_network_through_which_no_error_passes_has_no_gradient(backend):
    x, y = X, (X[:, :1] > 0).astype(np.float32)
    net, perfect = S((D(1), fnn.BinaryStep())), fnn.DenseParams(np.float32([[1, 0, 0, 0]]), np.zeros(1, np.float32))
    guess = perfect._replace(w=np.float32([[1, 0.5, 0, 0]]))
    for params, illness in ((guess, ["no gradient"]), (perfect, [])):
        found = fnn.diagnose(net, fnn.Quadratic(), on(backend, (params, ())), x, y).findings
        assert [finding.illness for finding in found] == illness
    assert fnn.diagnose(net, fnn.Quadratic(), (guess, ()), x, y).findings[0].layers == ("1 BinaryStep",)
    # Errors reach the layer, and their mean is 0: it is at a minimum.
    corners, sides = np.float32([[1, 1], [1, -1], [-1, 1], [-1, -1]]), np.float32([[0], [1], [1], [0]])
    at_zero = on(backend, fnn.DenseParams(np.zeros((1, 2), np.float32), np.zeros(1, np.float32)))
    assert fnn.diagnose(D(1), fnn.SigmoidBinaryCrossEntropy(), at_zero, corners, sides).findings == ()


@pytest.mark.parametrize(("loss", "stuck"), [(fnn.Quadratic(), 1), (fnn.BinaryCrossEntropy(), 0)])
def test_an_output_is_stuck_where_its_error_is_lost_and_not_where_the_cost_makes_up_for_it(loss, stuck):
    """Sure and wrong, at σ(±6): the squared error's δ is lost on the flat sigmoid, that of the cross-entropy is not."""
    one, x = D(1, bias=False), np.array([[-6.0], [6.0]] * 20, np.float32)
    net, of_one = S((one, one, fnn.Sigmoid())), fnn.DenseParams(np.ones((1, 1), np.float32), ())
    params = of_one, of_one, ()
    for targets, share in ((x < 0, stuck), (x > 0, 0)):
        found = fnn.diagnose(net, loss, params, x, targets.astype(np.float32))
        assert found.statistics.saturated[2] == 1
        assert found.statistics.stuck[2] == share
        assert [finding.illness for finding in found.findings] == ["saturated output"] * share


def healthy(digits):
    x, y = digits
    few, labels = x[:320], y[:320]
    line = np.linspace(-3, 3, 300, dtype=np.float32)[:, None]
    res = fnn.Residual(S((fnn.LayerNorm(), D(32), fnn.Relu(), D(32))))
    return {
        "ReLU": (fnn.mlp((128, 10)), CE, x, y, fnn.Adam(1e-2)),
        "ten layers": (fnn.mlp((64,) * 10 + (10,), fnn.Relu(), fnn.HeNormal()), CE, x, y, fnn.Adam(1e-3)),
        "tanh": (fnn.mlp((64, 64, 10), fnn.Tanh()), CE, x, y, fnn.Adam(1e-2)),
        "sigmoid": (fnn.mlp((32, 32, 10), fnn.Sigmoid()), CE, x, y, fnn.Adam(1e-2)),
        "sigmoid, squared error": (
            S((D(30), fnn.Sigmoid(), D(10), fnn.Sigmoid())), fnn.Quadratic(), x, rows(y), fnn.Sgd(3.0),
        ),
        "sigmoid, cross-entropy": (
            S((D(30), fnn.Sigmoid(), D(10), fnn.Sigmoid())), fnn.BinaryCrossEntropy(), x, rows(y), fnn.Adam(1e-2),
        ),
        "autoencoder": (S((D(32), fnn.Relu(), D(64), fnn.Sigmoid())), fnn.Quadratic(), x, x, fnn.Adam(1e-2)),
        "GELU": (fnn.mlp((64, 64, 10), fnn.Gelu()), CE, x, y, fnn.Adam(1e-3)),
        "residual": (S((D(32), res, res, res, D(10))), CE, x, y, fnn.Adam(1e-3)),
        "dropout": (S((D(64), fnn.Relu(), fnn.Dropout(0.5), D(10))), CE, x, y, fnn.Adam(1e-3)),
        "logistic regression": (D(10, initializer=fnn.Zeros()), CE, x, y, fnn.Sgd(0.5)),
        "regression": (fnn.mlp((32, 32, 1), fnn.Tanh()), fnn.Quadratic(), line, np.sin(line), fnn.Adam(1e-2)),
        "filters": (convolutional(), CE, images(few), labels, fnn.Adam(3e-3)),
        "Elman": (recurrent(fnn.Rnn(32)), CE, rows_of_images(few), labels, fnn.Adam(3e-3)),
        "LSTM": (recurrent(fnn.Lstm(16)), CE, rows_of_images(few), labels, fnn.Adam(1e-2)),
        "GRU, a mean over time": (
            S((fnn.Gru(16, all_states=True), fnn.GlobalAvgPool(), D(10))), CE, rows_of_images(few), labels,
            fnn.Adam(1e-2),
        ),
        "symbols": (
            S((fnn.Last(S((fnn.Embedding(17, 8), fnn.Gru(16, all_states=True)))), D(10))), CE, symbols(few), labels,
            fnn.Adam(1e-2),
        ),
        "each position": (
            S((fnn.Embedding(17, 8), fnn.Lstm(16, all_states=True), D(17))), CE, symbols(few)["x"][:, :-1],
            symbols(few)["x"][:, 1:], fnn.Adam(1e-2),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", healthy(NOTHING))
@pytest.mark.parametrize("epochs", [0, 1, 20] if THOROUGH else [0, 8])
@pytest.mark.numpy_alone
def test_of_a_healthy_network_nothing_is_said(name, epochs, digits, capsys):
    net, loss, x, y, optimizer = healthy(digits)[name]
    state = trained(net, loss, (x, y), optimizer, epochs)
    found = fnn.diagnose(net, loss, state.params, x, y, state=state)
    assert found.findings == ()
    assert capsys.readouterr().out.rstrip().endswith("Nothing wrong was found.")
    assert repr(found) == "Diagnosis(nothing wrong)"


@pytest.mark.parametrize(("gate", "illness"), [("i", "vanishing gradient"), ("o", "vanishing gradient"), ("f", None)])
def test_a_gate_that_is_shut_lets_no_error_pass_and_one_that_stays_open_is_no_illness(gate, illness, digits):
    net, x = recurrent(fnn.Lstm(16)), rows_of_images(digits[0])
    params = begin(net, input_shape=x.shape[1:]).params
    block = np.repeat(np.array(list(net.layers[0].gates)) == gate, 16)
    bias = np.where(block, -30 if illness else 30, params[0].b)
    found = fnn.diagnose(net, CE, (params[0]._replace(b=np.float32(bias)), params[1]), x, digits[1]).findings
    assert [finding.illness for finding in found] == [illness] * bool(illness)
    assert all("gates are open" in finding.help for finding in found)


def test_filters_are_counted_and_not_their_positions(digits, capsys):
    net, x = convolutional(), images(digits[0])
    params = begin(net, input_shape=(8, 8, 1)).params
    bias = np.where(np.arange(8) < 5, -50, params[0].b).astype(np.float32)  # five of eight filters are off everywhere
    found = fnn.diagnose(net, CE, (params[0]._replace(b=bias), *params[1:]), x, digits[1])
    assert [(finding.illness, finding.layers) for finding in found.findings] == [("dead units", ("1 Relu",))]
    assert found.units == (8, 8, 8, 16, 16, 64, 10)
    assert found.positions == (64, 64, 16, 4, 4, 1, 1)
    assert found.statistics.dead[1] == 5 / 8
    assert found.statistics.zero[1] > 0.7
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[:3]] == [
        ["layer", "units", "positions", "dead"], ["0", "Conv", "8", "64"], ["1", "Relu", "8", "64"],
    ]  # fmt: skip


def test_an_output_that_is_the_same_for_all_is_dead_only_where_no_error_passes():
    x, zero = np.abs(X), fnn.Zeros()
    fresh = S((D(1, initializer=zero), fnn.Sigmoid()))  # the usual start of a logistic regression
    assert fnn.diagnose(fresh, fnn.BinaryCrossEntropy(), begin(fresh).params, x, Y[:, None] > 0).findings == ()
    off, params = S((D(1), fnn.Relu())), (fnn.DenseParams(-np.ones((1, 4), np.float32), np.zeros(1, np.float32)), ())
    found = fnn.diagnose(off, fnn.Quadratic(), params, x, x[:, :1])
    assert [finding[:2] for finding in found.findings] == [("dead units", ("1 Relu",))]


def test_of_a_single_example_nobody_can_say_what_is_dead():
    found = fnn.diagnose(fnn.mlp((6, 3)), CE, begin(fnn.mlp((6, 3))).params, X[:1], Y[:1])
    assert np.isnan(found.statistics.dead).all()
    assert found.findings == ()


def test_what_helps_is_there():
    named = re.findall(r"fnn\.(\w+)", " ".join(findings._HELP.values()))
    assert len(named) > 10
    assert [name for name in named if not hasattr(fnn, name)] == []


@backends
@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.thorough(backend="jax")
def test_what_is_not_finite_is_named_with_its_layers_and_nothing_else(backend, value, capsys):
    net = fnn.mlp((6, 5, 3))
    params = trees.map(np.array, begin(net).params)
    params[2].w[1, 1] = value
    if backend == "jax":
        params = trees.map(jax.numpy.asarray, params)
    with np.errstate(invalid="ignore"):
        found = fnn.diagnose(net, CE, params, X, Y)
    assert [finding.illness for finding in found.findings] == ["not finite"]
    assert found.findings[0].layers[0] in ("0 Dense", "1 Relu", "2 Dense")
    assert "2 Dense" in found.findings[0].layers


def test_a_gradient_that_overflows_is_named_though_all_outputs_and_errors_are_finite():
    net, huge = S((D(4, bias=False), D(4, bias=False))), fnn.DenseParams(np.eye(4, dtype=np.float32) * 1e17, ())
    with np.errstate(over="ignore", invalid="ignore"):
        found = fnn.diagnose(net, fnn.Quadratic(), (huge, huge), np.eye(4) * 1e4, np.eye(4))
    assert np.isfinite(found.statistics.mean).all()
    assert [finding.illness for finding in found.findings] == ["not finite", "unscaled inputs"]


def test_units_below_all_that_learns_are_data_and_never_dead():
    x = X * np.float32([1, 0, 0, 0])
    net = S((fnn.Relu(), D(6), fnn.Tanh(), D(3)))
    found = fnn.diagnose(net, CE, begin(net).params, x, Y)
    assert found.statistics.dead[0] == 0.75
    assert found.findings == ()


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii", "utf-8", None])
def test_the_table_is_printed_on_any_stream_and_on_none(encoding, monkeypatch):
    net, stream = fnn.mlp((6, 3)), encoding and io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    fnn.diagnose(net, CE, begin(net).params, X, Y)
    if stream is not None:
        stream.flush()
        heads = stream.buffer.getvalue().decode(encoding).splitlines()[0].split()
        assert heads[7:9] == [{"utf-8": "‖δ‖", "cp437": "?δ?"}.get(encoding, "???"), "passed"]


def test_the_table_is_aligned_and_shows_what_there_is(capsys):
    net = fnn.mlp((6, 3))
    state = begin(net)
    fnn.diagnose(net, CE, state.params, X, Y, state=state)
    table = capsys.readouterr().out.splitlines()[:4]
    assert table[0].split()[:6] == ["layer", "units", "dead", "saturated", "zero", "mean"]
    assert table[0].endswith("update/weight")
    assert [line.split()[:2] for line in table[1:]] == [["0", "Dense"], ["1", "Relu"], ["2", "Dense"]]
    assert len({len(line) for line in (table[0], table[1], table[3])}) == 1
    found = fnn.diagnose(net, CE, state.params, X, Y)
    heads, *cells = (line.split() for line in capsys.readouterr().out.splitlines()[:4])
    assert "update/weight" not in heads
    # Of ReLU, in the middle: units, dead, saturated, zero (each but the first with its %), mean, spread, ‖δ‖, passed.
    length = found.statistics.delta
    assert float(cells[1][-1]) == pytest.approx(length[1] / length[2], rel=0.02)


@pytest.mark.parametrize(
    ("x", "y", "error", "says"),
    [
        (np.full((3, 4), np.nan), [0, 1, 2], errors.DataError, "x: expected finite numbers"),
        (X[:, :3], Y, errors.ShapeError, "expected"),
        (X, Y + 1, errors.DataError, "3"),
        (X, Y[:-1], errors.ShapeError, "y: expected a target for each of 60 examples"),
    ],
)
def test_bad_data_are_refused_before_anything_is_printed(x, y, error, says, capsys):
    net = fnn.mlp((6, 3))
    with pytest.raises(error, match=says):
        fnn.diagnose(net, CE, begin(net).params, x, y)
    with pytest.raises(errors.KindError, match="state: expected a TrainState"):
        fnn.diagnose(net, CE, begin(net).params, X, Y, state=fnn.Sgd(0.1))
    assert capsys.readouterr().out == ""


@pytest.mark.thorough(backend="jax")
def test_an_output_that_does_not_fit_the_cost_is_named(backend, capsys):
    x, y = np.random.default_rng(0).normal(size=(100, 4)), np.arange(100) % 3
    cases = {
        fnn.Softmax(): (fnn.SoftmaxCrossEntropy(), "ends in Softmax"),
        fnn.LayerNorm(): (fnn.CrossEntropy(), "one of the network's outputs is"),
    }
    for layer, (loss, why) in cases.items():
        net = fnn.Serial((fnn.Dense(3), layer))
        finding = fnn.diagnose(net, loss, net.init(fnn.random.key(0, backend=backend), (4,)), x, y).findings[0]
        assert finding.illness == "output does not fit"
        assert finding.layers == (f"1 {type(layer).__name__}",)
        assert why in finding.evidence
    assert "OUTPUT DOES NOT FIT in 1 Softmax" in capsys.readouterr().out

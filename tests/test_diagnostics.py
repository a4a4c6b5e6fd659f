"""The figures of each layer are what they say, every illness is named, and nothing is said of healthy networks."""

import io
import math
import re
import sys
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, on

import fnn
from fnn import diagnostics, errors, trees
from fnn.backend import jax
from fnn.layers.activations import PEluParams

BACKENDS = ["numpy"] if jax is None else ["numpy", "jax"]
backends = pytest.mark.parametrize("backend", BACKENDS)
CE, D, S = fnn.SoftmaxCrossEntropy(), fnn.Dense, fnn.Serial
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(0, 3, 60)


def begin(net, backend="numpy", optimizer=None, input_shape=(4,), seed=0):
    return fnn.init_state(net, optimizer or fnn.Sgd(0.1), fnn.random.key(seed, backend=backend), input_shape)


def figures(net, loss, *args):
    run = diagnostics.statistics(net, loss)
    on_jax = any(fnn.backend.is_jax(leaf) for leaf in trees.leaves(args))
    found = (oracle.quick_jit(run) if on_jax else run)(*args)
    return diagnostics.Statistics(*(np.asarray(column, np.float64) for column in found))


def rms(a):
    return np.sqrt((np.asarray(a, np.float64) ** 2).mean())


def length(tree):
    return np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in trees.leaves(tree)))


# ---- the figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS if THOROUGH else ["numpy"])  # and on JAX they are the same: see below
def test_the_figures_are_those_of_the_tape(backend):
    net = S((D(6), fnn.Tanh(), S((D(5), fnn.Relu())), D(3)))
    state = begin(net, backend)
    params = on("numpy", state.params)
    tape, (_, grads) = fnn.backprop(net, CE)(params, X, Y), fnn.value_and_grad(net, CE)(params, X, Y)
    found = figures(net, CE, state.params, X, Y)
    flat = [lambda t, i=i: t[i] for i in (0, 1)] + [lambda t, i=i: t[2][i] for i in (0, 1)] + [lambda t: t[3]]
    for i, pick in enumerate(flat):
        a, delta = np.asarray(pick(tape.outputs)), np.asarray(pick(tape.deltas))
        assert found.mean[i] == pytest.approx(a.mean(), abs=1e-6)
        assert found.spread[i] == pytest.approx(a.std(), rel=1e-5)
        assert found.zero[i] == pytest.approx((a == 0).mean())
        assert found.delta[i] == pytest.approx(rms(delta), rel=1e-5)
        if trees.leaves(pick(grads)):
            assert found.gradient[i] == pytest.approx(length(pick(grads)), rel=1e-5)
            assert found.weight[i] == pytest.approx(length(pick(state.params)), rel=1e-5)
        else:
            assert math.isnan(found.gradient[i])
            assert math.isnan(found.weight[i])
    assert 0.2 < found.zero[3] < 0.8, "a ReLU is off for about half"
    assert np.isnan(found.update).all(), "no optimizer is known"


def test_both_backends_find_the_same(needs_jax):
    net = S(
        (fnn.Scale(0.5), fnn.Residual(S((D(4), fnn.Sigmoid()))), fnn.Parallel((D(3), fnn.Relu())), D(3), fnn.Softmax())
    )
    state = begin(net, "jax", fnn.Adam(0.01))
    on_jax = figures(net, fnn.CrossEntropy(), state.params, X, Y, state)
    on_numpy = trees.map(np.asarray, state._replace(key=fnn.random.key(0, backend="numpy")))
    for ours, theirs in zip(on_jax, figures(net, fnn.CrossEntropy(), on_numpy.params, X, Y, on_numpy), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


@backends
@pytest.mark.parametrize("optimizer", [fnn.Sgd(0.3), fnn.Adam(0.01)])
def test_the_update_is_that_of_the_next_step(backend, optimizer):
    if backend == "jax" and isinstance(optimizer, fnn.Sgd):
        pytest.skip("one program is enough")
    net = fnn.mlp((6, 3))
    step = fnn.make_step(net, CE)
    state, _ = step(step(begin(net, backend, optimizer), (X, Y))[0], (X, Y))
    after, _ = step(state, (X, Y))
    found = figures(net, CE, state.params, X, Y, state)
    for row, layer in ((0, 0), (2, 2)):
        moved = trees.map(lambda a, b: np.asarray(a) - np.asarray(b), after.params[layer], state.params[layer])
        assert found.update[row] == pytest.approx(length(moved), rel=1e-3)
    assert math.isnan(found.update[1])


def test_a_unit_is_dead_when_it_says_the_same_of_every_example():
    net = S((D(4), fnn.Relu(), D(3)))
    w = np.array([[1, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    params = (fnn.DenseParams(w, np.array([0, 0, 2, 0], np.float32)), (), begin(net).params[2])
    found = figures(net, CE, params, np.abs(X), Y)
    assert found.dead.tolist() == [0.25, 0.5, 0]  # the unit without weights, and after ReLU the negative one too
    assert found.zero[1] == 0.25


SATURATED = {fnn.Tanh(): 6, fnn.Sigmoid(): 2, fnn.Elu(): 2, fnn.Relu6(): 1, fnn.HardTanh(): 7, fnn.Relu(): 0}


@pytest.mark.parametrize(("layer", "count"), SATURATED.items(), ids=[type(layer).__name__ for layer in SATURATED])
def test_an_output_is_saturated_near_a_limit_of_its_own_activation(layer, count):
    """Of tanh beyond ±0.95, of a sigmoid beyond 0.025 and 0.975, of an ELU below −0.95, of a ReLU never."""
    z = np.array([[-9.0], [-3.5], [-2.0], [0.0], [1.7], [2.0], [3.5], [9.0]], np.float32)
    params = fnn.DenseParams(np.ones((1, 1), np.float32), ()), ()
    found = figures(S((D(1, bias=False), layer)), fnn.Quadratic(), params, z, z)
    assert found.saturated[1] == count / 8
    assert math.isnan(found.saturated[0])


def test_a_learnt_range_and_units_in_two_axes_are_known():
    """PELU levels off at −α, which it learns: of each unit its own."""

    @dataclass(frozen=True)
    class Fold(fnn.Flatten):
        def output_shape(self, input_shape):
            return (2, 2)

        def forward(self, params, x, key=None):
            return x.reshape(-1, 2, 2), x.shape

        def backward(self, params, shape, dy):
            return dy.reshape(shape)

    net = S((D(4, bias=False), Fold(), fnn.PElu(per_unit=True), fnn.Flatten()))
    alpha = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    params = (fnn.DenseParams(np.eye(4, dtype=np.float32), ()), (), PEluParams(alpha, np.ones_like(alpha)), ())
    x = np.array([[-9.0, -9.0, 0.0, 0.0], [-9.0, 5.0, 0.0, 0.0]], np.float32)
    assert figures(net, fnn.Quadratic(), params, x, x).saturated[2] == 3 / 8


def test_figures_of_very_small_and_very_large_errors_neither_vanish_nor_overflow():
    net = S((D(3), D(3)))
    params = net.init(fnn.random.key(0, backend="numpy"), (4,))
    usual = figures(net, fnn.Quadratic(), params, X, np.zeros((60, 3), np.float32))
    for scale in (1e-25, 1e15):
        tiny = trees.map(lambda p: p * np.float32(scale), params[1])  # noqa: B023
        found = figures(net, fnn.Quadratic(), (params[0], tiny), X, np.zeros((60, 3), np.float32))
        assert found.delta[1] / scale == pytest.approx(usual.delta[1], rel=1e-4)
        assert found.gradient[1] / scale == pytest.approx(usual.gradient[1], rel=1e-4)
        assert found.spread[1] / scale == pytest.approx(usual.spread[1], rel=1e-4)


@backends
def test_the_mean_of_the_largest_numbers_does_not_overflow(backend):
    x = np.full((10, 3), 3e38, np.float32)
    with np.errstate(over="ignore"):
        found = figures(fnn.Identity(), fnn.Quadratic(), (), *on(backend, (x, x * 0)))
    assert found.mean[0] == pytest.approx(3e38, rel=1e-6)
    assert found.spread[0] < 1e-6 * 3e38


def test_what_is_frozen_has_weights_and_errors_and_no_gradient():
    net = S((D(4), fnn.Frozen(S((D(4), fnn.Tanh()))), D(3)))
    found = figures(net, CE, begin(net).params, X, Y)
    assert np.isnan(found.gradient).tolist() == [False, True, True, False]
    assert np.isnan(found.weight).tolist() == [False, False, True, False]
    assert (found.delta > 0).all()


def test_below_all_that_learns_there_are_no_errors():
    net = S((S((fnn.Scale(2.0), fnn.Tanh())), D(3)))
    found = figures(net, CE, begin(net).params, X, Y)
    assert np.isnan(found.delta).tolist() == [True, True, False]


def test_a_layer_of_ones_own_has_figures():
    @dataclass(frozen=True)
    class Square(fnn.Layer):
        def forward(self, params, x, key=None):
            return x**2, x

        def backward(self, params, x, dy):
            return dy * 2 * x

    net = S((D(4), Square(), D(3)))
    found = figures(net, CE, begin(net).params, X, Y)
    assert found.mean[1] > 0
    assert math.isnan(found.saturated[1])
    assert diagnostics.layer_names(net) == ["0 Dense", "1 Square", "2 Dense"]


def test_layers_are_named_as_in_a_summary():
    net = S((D(4), fnn.Residual(S((D(4), fnn.Tanh()))), S(()), fnn.Parallel((D(3), fnn.Frozen(D(2)))), D(3)))
    names = diagnostics.layer_names(net)
    rows = [" ".join(line.split()[:2]) for line in fnn.summary(net, (4,)).splitlines()[1:-1]]
    assert [row for row in rows if row.split()[1] not in ("Residual", "Parallel", "Frozen")] == names
    assert len(names) == len(figures(net, CE, begin(net).params, X, Y).mean)


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    (x, y), _ = fnn.datasets.digits()
    n = len(x) if THOROUGH else 640
    return (x[:n] / 16).astype(np.float32), y[:n]


def rows(y):
    return np.eye(10, dtype=np.float32)[y]


def trained(net, loss, data, optimizer, epochs, batch_size=64):
    state = begin(net, optimizer=optimizer, input_shape=data[0].shape[1:])
    if epochs:
        state, _ = fnn.train(net, loss, state, data, epochs=epochs, batch_size=batch_size)
    return state


def sick(y):
    """Illness, a layer that has it, network, cost, targets, optimizer, epochs."""
    wild = D(10, initializer=fnn.Normal(10.0))
    sigmoids, deep = fnn.mlp((32,) * 6 + (10,), fnn.Sigmoid()), fnn.mlp((64,) * 5 + (10,), fnn.Relu(), fnn.Normal(1.0))
    tanhs, thin = fnn.mlp((64,) * 3 + (10,), fnn.Tanh(), fnn.Normal(2.0)), (D(32), fnn.Relu(), wild)
    squared, mean_squared = fnn.Quadratic(), fnn.MeanSquaredError()
    return {
        "sigmoid stack": ("vanishing gradient", "0 Dense", sigmoids, CE, y, None, 0),
        "killed": ("dead units", "1 Relu", fnn.mlp((64, 64, 10)), CE, y, fnn.Sgd(20.0), 1),
        "wild ReLU": ("exploding gradient", "0 Dense", deep, CE, y, None, 0),
        "wild tanh": ("saturated units", "3 Tanh", tanhs, CE, y, None, 0),
        "sigmoid": ("saturated output", "3 Sigmoid", S((*thin, fnn.Sigmoid())), squared, rows(y), None, 0),
        "softmax": ("saturated output", "3 Softmax", S((*thin, fnn.Softmax())), mean_squared, rows(y), None, 0),
    }


@pytest.mark.parametrize("name", sick(np.zeros(1, int)))
def test_a_sick_network_is_told_its_illness_and_no_other(name, digits, capsys):
    illness, layer, net, loss, y, optimizer, epochs = sick(digits[1])[name]
    with np.errstate(over="ignore"):
        state = trained(net, loss, (digits[0], y), optimizer, epochs)
    found = fnn.diagnose(net, loss, state.params, digits[0], y)
    assert [finding.illness for finding in found.findings] == [illness]
    assert layer in found.findings[0].layers
    printed = capsys.readouterr().out
    assert f"{illness.upper()} in " in printed
    assert "What helps: " in printed
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
    }  # fmt: skip


@pytest.mark.parametrize("name", healthy((np.zeros((1, 64)), np.zeros(1, int))))
@pytest.mark.parametrize("epochs", [0, 1, 20] if THOROUGH else [0, 8])
def test_of_a_healthy_network_nothing_is_said(name, epochs, digits, capsys):
    net, loss, x, y, optimizer = healthy(digits)[name]
    state = trained(net, loss, (x, y), optimizer, epochs)
    found = fnn.diagnose(net, loss, state.params, x, y, state=state)
    assert found.findings == ()
    assert capsys.readouterr().out.rstrip().endswith("Nothing wrong was found.")
    assert repr(found) == "Diagnosis(nothing wrong)"


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
    named = re.findall(r"fnn\.(\w+)", " ".join(diagnostics._HELP.values()))
    assert len(named) > 10
    assert [name for name in named if not hasattr(fnn, name)] == []


@backends
@pytest.mark.parametrize("value", [math.inf, math.nan])
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
        assert heads[7:10] == ["RMS", "δ" if encoding in ("cp437", "utf-8") else "?", "passed"]


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
    # Of ReLU, in the middle: units, dead, saturated, zero (each but the first with its %), mean, spread, RMS δ, passed.
    length = found.statistics.delta * np.sqrt(found.units)
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


# ---- telemetry -------------------------------------------------------------------------------------------------------


@backends
def test_telemetry_of_fit_is_the_figures_after_each_epoch_and_changes_nothing(backend):
    net = fnn.mlp((6, 3))
    state = begin(net, backend, fnn.Adam(0.01))
    # one batch an epoch: on JAX half the program, which need not shuffle
    how = {"batch_size": 20 if backend == "numpy" or THOROUGH else 60}
    plain, without = fnn.fit(net, CE, state, (X, Y), epochs=3, **how)
    watched, history = fnn.fit(net, CE, state, (X, Y), epochs=3, telemetry=1000, **how)
    for ours, theirs in zip(trees.leaves(plain.params), trees.leaves(watched.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(without) == ["loss"]
    telemetry = history["telemetry"]
    assert {column.shape for column in telemetry} == {(3, 3)}
    last = figures(net, CE, watched.params, X, Y, watched)
    for ours, theirs in zip(telemetry, last, strict=True):
        np.testing.assert_allclose(ours[-1], theirs, rtol=1e-4, atol=1e-6)
    assert (telemetry.weight[0] != telemetry.weight[1]).any()


def test_telemetry_looks_at_so_many_examples_from_first_to_last():
    net, seen = fnn.mlp((6, 3)), []

    @dataclass(frozen=True)
    class Watch(fnn.Identity):
        def forward(self, params, z, key=None):
            seen.append(z[:, 0])
            return super().forward(params, z, key)

    x = np.arange(100, dtype=np.float32)[:, None]
    net = S((Watch(), *net.layers))
    fnn.fit(net, CE, begin(net, input_shape=(1,)), (x, np.arange(100) % 3), epochs=1, batch_size=50, telemetry=5)
    assert next(z.tolist() for z in seen if len(z) == 5) == [0, 24, 49, 74, 99]


@pytest.mark.parametrize("telemetry", [0, 1, -5, 2.5, True, "all"])
def test_a_telemetry_that_is_no_number_of_examples_is_refused(telemetry):
    net = fnn.mlp((6, 3))
    with pytest.raises(errors.FnnError, match="telemetry"):
        fnn.fit(net, CE, begin(net), (X, Y), epochs=1, batch_size=20, telemetry=telemetry)


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

"""The figures of each layer are what they say, every illness is named, and nothing is said of healthy networks."""

import math
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
        assert found.delta[i] == pytest.approx(np.sqrt((delta**2).sum() / len(X)), rel=1e-5)
        assert math.isnan(found.through_time[i])
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
@pytest.mark.thorough(backend="jax")
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


def test_a_filter_is_dead_when_it_says_the_same_of_every_example_at_each_position():
    net = S((fnn.Conv(4, (1,)), fnn.Relu(), fnn.Flatten(), D(3)))
    w = np.zeros((4, 1, 2), np.float32)
    w[:2] = 1
    b = np.array([0, -100, 1, -1], np.float32)  # alive, below 0, and two constants, of which one is below 0
    params = (fnn.DenseParams(w, b), (), (), begin(net, input_shape=(5, 2)).params[3])
    x = np.abs(RNG.normal(size=(60, 5, 2))).astype(np.float32)
    x[:, 0] = 1  # at one position all examples are the same
    found = figures(net, CE, params, x, Y)
    assert found.dead == pytest.approx([0.5, 0.75, 0.8, 0]), "flattened, each position is a unit of its own"


def squares(*deltas):
    """Σ δ² over the units, (N, T)."""
    return sum((np.asarray(delta, np.float64) ** 2).sum(axis=2) for delta in deltas)


@pytest.mark.parametrize("layer", [fnn.Rnn(4), fnn.Lstm(4, all_states=True), fnn.Gru(4), fnn.Gru(4, all_states=True)])
def test_figures_of_a_recurrent_layer_are_those_of_its_gates_and_of_its_errors_at_each_position(layer):
    x, y = 4 * RNG.normal(size=(30, 6, 2)), RNG.integers(0, 3, (30, 6) if layer.all_states else 30)
    net = S((layer, D(3)))
    params = net.init(fnn.random.key(0, backend="numpy"), (6, 2), np.float64)
    tape, found = fnn.backprop(net, CE)(params, x, y), figures(net, CE, params, x, y)
    size = squares(*(tape.deltas[0] if isinstance(tape.deltas[0], tuple) else tape.deltas[:1]))
    assert found.delta[0] == pytest.approx(np.sqrt(size.sum() / 30))
    assert found.through_time[0] == pytest.approx(np.sqrt(size[:, 0].sum() / size[:, -1].sum()))
    assert math.isnan(found.through_time[1])
    gates = np.split(tape.residuals[0][1][-1], len(layer.gates), axis=-1)
    flat = [
        (abs(gate) > 0.95) if low < 0 else (abs(gate - 0.5) > 0.475)
        for gate, (low, _) in zip(gates, layer.gates.values(), strict=True)
    ]
    assert found.saturated[0] == pytest.approx(np.mean(flat))
    assert 0.05 < found.saturated[0] < 0.95


def test_the_last_position_is_that_of_each_sequence():
    net, length = S((fnn.Last(fnn.Rnn(4, all_states=True)), D(3))), np.array([1, 5, 3, 2])
    x = {"x": RNG.normal(size=(4, 5, 2)), "length": length}
    params = net.init(fnn.random.key(0, backend="numpy"), fnn.examples.shape_of(x), np.float64)
    size = squares(fnn.backprop(net, CE)(params, x, Y[:4]).deltas[0])
    found = figures(net, CE, params, x, Y[:4]).through_time[0]
    assert found == pytest.approx(np.sqrt(size[:, 0].sum() / size[np.arange(4), length - 1].sum()))
    alone = figures(net, CE, params, {"x": x["x"], "length": np.ones(4, int)}, Y[:4])
    assert alone.through_time[0] == 1, "with one position there is no time"


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


# ---- telemetry -------------------------------------------------------------------------------------------------------


@backends
@pytest.mark.thorough(backend="jax")
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

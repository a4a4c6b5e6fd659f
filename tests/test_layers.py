"""Layers keep their contract, users' own ones included, and say what does not fit."""

import tracemalloc
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import oracle
import pytest

import fnn
from fnn import errors, layers


class GainParams(NamedTuple):
    gain: np.ndarray


@dataclass(frozen=True)
class Gain(fnn.Layer):
    """A layer as a user writes it: y = g x, with a learnt g for each unit."""

    def init(self, key, input_shape, dtype=np.float32):
        return GainParams(fnn.Ones()(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        return params.gain * x, x

    def backward(self, params, x, dy):
        return params.gain * dy

    def gradient(self, params, x, dy):
        return GainParams((dy * x).sum(axis=0))


LAYERS = {
    "dense": (fnn.Dense(3), (5,), (3,)),
    "dense without bias": (fnn.Dense(3, bias=False), (5,), (3,)),
    "scale": (fnn.Scale(0.3), (2, 3), (2, 3)),
    "flatten": (fnn.Flatten(), (2, 3), (6,)),
    "dropout": (fnn.Dropout(0.3), (5,), (5,)),
    "layer norm": (fnn.LayerNorm(), (5,), (5,)),
    "layer norm of rows": (fnn.LayerNorm(), (2, 3), (2, 3)),
    "rms norm": (fnn.RMSNorm(), (5,), (5,)),
    "rms norm of rows": (fnn.RMSNorm(eps=0.1), (2, 3), (2, 3)),
    "standardize": (fnn.Standardize(), (2, 3), (2, 3)),
    "standardize numbers": (fnn.Serial((fnn.Standardize(), fnn.Sigmoid())), (), ()),
    "residual": (fnn.Residual(fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Dense(5)))), (5,), (5,)),
    "residual that drops out": (fnn.Residual(fnn.Dropout(0.3)), (5,), (5,)),
    "parallel": (fnn.Parallel((fnn.Identity(), fnn.Dense(4), fnn.mlp((3, 2), fnn.Tanh()))), (5,), (11,)),
    "parallel of rows": (fnn.Parallel((fnn.LayerNorm(), fnn.Scale(2.0))), (2, 3), (2, 6)),
    "parallel that drops out": (fnn.Parallel((fnn.Dropout(0.3), fnn.Dropout(0.3))), (5,), (10,)),
    "rrelu in training": (fnn.RRelu(), (5,), (5,)),
    "own": (Gain(), (5,), (5,)),
    "serial": (fnn.Serial((fnn.Flatten(), Gain(), fnn.Dense(4))), (2, 3), (4,)),
    "empty serial": (fnn.Serial(()), (5,), (5,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_backward_pass_of_a_layer_is_jaxs(name, needs_jax):
    import jax

    layer, input_shape, output_shape = LAYERS[name]
    with jax.enable_x64(True):
        key = fnn.random.key(2)
        params = layer.init(key, input_shape, np.float64)
        rng = np.random.default_rng(0)
        x, dy = rng.normal(size=(20, *input_shape)), rng.normal(size=(20, *output_shape))

        @oracle.quick_jit
        def both(params, x, dy):
            y, vjp = jax.vjp(lambda params, x: layer.apply(params, x, key), params, x)
            _, residuals = layer.forward(params, x, key)
            dx, deltas = layer.propagate(params, residuals, dy)
            return y, (layer.gradient(params, residuals, deltas), dx), vjp(dy)

        y, ours, wanted = both(params, x, dy)
        assert y.shape == (20, *output_shape) == (20, *layer.output_shape(input_shape))
        oracle.assert_close(ours, wanted, 1e-12)


FROZEN = {  # for which jax.vjp of the formula has another gradient: it is 0 by hand
    "frozen": (fnn.Frozen(fnn.Dense(3)), (5,), (3,)),
    "frozen within": (fnn.Serial((fnn.Dense(3), fnn.Frozen(fnn.Dense(3)), fnn.PRelu())), (5,), (3,)),
    "frozen at the bottom": (fnn.Serial((fnn.Frozen(fnn.mlp((4, 3))), fnn.Dense(2))), (5,), (2,)),
}


@pytest.mark.parametrize("name", LAYERS | FROZEN)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_backward_pass_of_a_layer_is_that_of_the_complex_step(name, dtype):
    layer, input_shape, _ = (LAYERS | FROZEN)[name]
    x = np.random.default_rng(3).normal(size=(20, *input_shape))
    fnn.testing.check_layer(layer, x, method="complex", on="numpy", dtype=dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_same_on_numpy(name, needs_jax):
    layer, input_shape, output_shape = LAYERS[name]
    runs = []
    for chosen in ("jax", "numpy"):
        key = fnn.random.key(2, backend=chosen)
        params = layer.init(key, input_shape)
        rng, xp = np.random.default_rng(0), np if chosen == "numpy" else fnn.backend.jnp
        x, dy = (xp.asarray(rng.normal(size=(7, *shape)), dtype=np.float32) for shape in (input_shape, output_shape))
        y = layer.apply(params, x, key)
        residuals = layer.forward(params, x, key)[1]
        dx, deltas = layer.propagate(params, residuals, dy)
        runs.append((params, y, dx, layer.gradient(params, residuals, deltas)))
        assert isinstance(y, np.ndarray) == (chosen == "numpy")
    oracle.assert_close(runs[1], runs[0], 1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradients_of_the_examples_sum_to_the_gradient(name, backend):
    layer, input_shape, output_shape = LAYERS[name]
    key = fnn.random.key(2, backend=backend)
    xp = np if backend == "numpy" else fnn.backend.jnp
    params, rng = layer.init(key, input_shape), np.random.default_rng(0)
    x, dy = (xp.asarray(rng.normal(size=(7, *shape)), dtype=np.float32) for shape in (input_shape, output_shape))
    residuals = layer.forward(params, x, key)[1]
    deltas = layer.propagate(params, residuals, dy)[1]
    each = layer.per_example_gradient(params, residuals, deltas)
    assert all(len(leaf) == 7 for leaf in fnn.trees.leaves(each))
    oracle.assert_close(fnn.trees.map(lambda g: g.sum(axis=0), each), layer.gradient(params, residuals, deltas), 1e-5)


BELOW = {  # what learns nothing, and may stand at the bottom, where no error is wanted
    "serial": fnn.Serial((fnn.Scale(2.0), fnn.Serial((fnn.Relu(),)))),
    "empty serial": fnn.Serial(()),
    "parallel": fnn.Parallel((fnn.Identity(), fnn.Relu())),
    "residual": fnn.Residual(fnn.Serial((fnn.Relu(), fnn.Tanh()))),
    "frozen": fnn.Frozen(fnn.mlp((3, 2))),
    "frozen in parallel": fnn.Parallel((fnn.Relu(), fnn.Frozen(fnn.Dense(2)))),
    "frozen in residual": fnn.Residual(fnn.Frozen(fnn.Dense(4))),
}


@pytest.mark.parametrize("name", BELOW)
def test_below_all_that_learns_no_error_is_needed(name, backend):
    net = fnn.Serial((BELOW[name], fnn.Dense(2)))
    params = net.init(fnn.random.key(0, backend=backend), (4,))
    x, y = np.ones((3, 4)), np.zeros((3, 2))
    grads = fnn.grad(net, fnn.Quadratic())(params, x, y)
    oracle.assert_close(grads, fnn.grad(net, fnn.Quadratic(), need_dx=True)(params, x, y)[0], 1e-6)
    tape = fnn.backprop(net, fnn.Quadratic(), need_dx=False)(params, x, y)
    assert tape.dx is None
    each = net.per_example_gradient(params, tape.residuals, tape.deltas)
    oracle.assert_close(fnn.trees.map(lambda g: g.mean(axis=0), each), grads, 1e-6)
    assert all(len(leaf) == 3 for leaf in fnn.trees.leaves(each))


def test_integers_beside_floats_in_parallel_do_not_widen_them(backend):
    net = fnn.Parallel((fnn.Flatten(), fnn.Dense(2)))  # of integers Flatten makes integers
    params = net.init(fnn.random.key(0, backend=backend), (4,))
    assert net.apply(params, np.ones((3, 4), np.int32)).dtype == np.float32


def test_normalised_examples_have_mean_zero_and_variance_one_however_large(backend):
    rng = np.random.default_rng(0)
    for scale, shift in ((1, 0), (1e4, 0), (100, 1e4)):
        x = (scale * rng.normal(size=(5, 64)) + shift).astype(np.float32)
        layer = fnn.LayerNorm()
        y = np.asarray(layer.apply(layer.init(fnn.random.key(0, backend=backend), (64,)), x))
        np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-3)
        np.testing.assert_allclose(y.std(axis=1), 1, atol=1e-3)
        layer = fnn.RMSNorm()
        y = np.asarray(layer.apply(layer.init(fnn.random.key(0, backend=backend), (64,)), x))
        np.testing.assert_allclose((y**2).mean(axis=1), 1, atol=1e-3)


def test_a_skip_hands_the_input_on_and_the_error_back(backend):
    key = fnn.random.key(0, backend=backend)
    layer = fnn.Residual(fnn.Dense(3, initializer=fnn.Zeros()))
    params, x = layer.init(key, (3,)), np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(layer.apply(params, x), x)
    tape = fnn.backprop(layer, fnn.Quadratic())(params, x, 0 * x)
    np.testing.assert_array_equal(tape.dx, x)
    pixels = layer.apply(params, x.astype(np.uint8))
    np.testing.assert_array_equal(pixels, x, err_msg="integers are taken as numbers")


def test_branches_see_the_same_input_and_draw_on_their_own(backend):
    key = fnn.random.key(0, backend=backend)
    layer, x = fnn.Parallel((fnn.Identity(), fnn.Dropout(0.5), fnn.Dropout(0.5))), np.ones((4, 50), np.float32)
    y = np.asarray(layer.apply(layer.init(key, (50,)), x, key))
    np.testing.assert_array_equal(y[:, :50], x)
    assert (y[:, 50:100] != y[:, 100:]).any(), "each branch has a key of its own"


class OfFrozen:
    net = fnn.Serial((fnn.Frozen(fnn.Dense(4)), fnn.Tanh(), fnn.Dense(2)))

    def data(self, backend):
        rng = np.random.default_rng(0)
        xp = np if backend == "numpy" else fnn.backend.jnp
        return xp.asarray(rng.normal(size=(12, 3)), dtype=np.float32), xp.asarray(rng.normal(size=(12, 2)), np.float32)


class TestFrozen(OfFrozen):
    def test_its_gradient_is_zero_and_the_error_passes(self, backend):
        params = self.net.init(fnn.random.key(0, backend=backend), (3,))
        x, y = self.data(backend)
        _, (grads, dx) = fnn.value_and_grad(self.net, fnn.Quadratic(), need_dx=True)(params, x, y)
        free = fnn.Serial((self.net.layers[0].layer, *self.net.layers[1:]))
        of_free, dx_of_free = fnn.grad(free, fnn.Quadratic(), need_dx=True)((params[0].params, *params[1:]), x, y)
        oracle.assert_close((grads[1:], dx), (of_free[1:], dx_of_free), 0)
        assert all((np.asarray(leaf) == 0).all() for leaf in fnn.trees.leaves(grads[0]))
        assert isinstance(grads[0], fnn.trees.Fixed), "the gradient has the structure of the parameters"

    @pytest.mark.parametrize("penalty", [None, fnn.L2(0.1)])
    def test_every_optimizer_leaves_it_alone(self, penalty, backend):
        for optimizer in (fnn.Momentum(0.1), fnn.Nesterov(0.1), fnn.Adam(0.1), fnn.MaxNorm(fnn.Sgd(0.1), 0.1)):
            state = fnn.init_state(self.net, optimizer, fnn.random.key(0, backend=backend), (3,))
            x, y = self.data(backend)
            after, _ = fnn.train(self.net, fnn.Quadratic(), state, (x, y), epochs=2, batch_size=4, penalty=penalty)
            oracle.assert_close(after.params[0], state.params[0], 0)
            assert (np.asarray(after.params[2].w) != np.asarray(state.params[2].w)).all()

    def test_optax_leaves_it_alone_with_weight_decay_too(self, needs_jax):
        optax = pytest.importorskip("optax")
        optimizer = optax.adamw(0.1, weight_decay=0.5)
        state = fnn.init_state(self.net, optimizer, fnn.random.key(0), (3,))
        after, _ = fnn.train(self.net, fnn.Quadratic(), state, self.data("jax"), epochs=2, batch_size=4)
        oracle.assert_close(after.params[0], state.params[0], 0)

    def test_a_penalty_does_not_count_it(self, backend):
        params = self.net.init(fnn.random.key(0, backend=backend), (3,))
        for penalty in (fnn.L1(0.1), fnn.L2(0.1)):
            np.testing.assert_allclose(penalty.value(params), penalty.value(params[2:]), rtol=1e-6)
            assert all((np.asarray(leaf) == 0).all() for leaf in fnn.trees.leaves(penalty.gradient(params)[0]))
        for tree in ((0.1, (), 0.1), (fnn.trees.Fixed(0.1), (), 0.1)):  # said of each, and frozen all the same
            np.testing.assert_allclose(fnn.L2(tree).value(params), fnn.L2((0.1,)).value(params[2:]), rtol=1e-6)

    def test_the_error_below_it_is_not_computed_where_nothing_learns_there(self):
        net = fnn.Serial((CountingDense(4), fnn.Frozen(CountingDense(3)), fnn.Dense(2)))
        frozen = fnn.Serial((fnn.Frozen(net.layers[0]), *net.layers[1:]))
        for network, backward_passes in ((net, 1), (frozen, 0)):
            params = network.init(fnn.random.key(0, backend="numpy"), (3,))
            calls.clear()
            fnn.grad(network, fnn.Quadratic())(params, np.ones((2, 3)), np.ones((2, 2)))
            assert len(calls) == backward_passes

    def test_parameters_that_are_not_marked_are_refused(self):
        params = self.net.init(fnn.random.key(0, backend="numpy"), (3,))
        with pytest.raises(errors.ShapeError, match=r"layers\[0\] Frozen.*fnn\.trees\.Fixed"):
            self.net.apply((params[0].params, *params[1:]), np.ones((1, 3)))


calls: list[int] = []


@dataclass(frozen=True)
class CountingDense(fnn.Dense):
    def backward(self, params, x, dy):
        calls.append(self.units)
        return super().backward(params, x, dy)


def test_parameters_are_read_only_on_numpy():
    params = fnn.mlp((3, 2)).init(fnn.random.key(0, backend="numpy"), (4,))
    for leaf in fnn.trees.leaves(params):
        with pytest.raises(ValueError, match="read-only"):
            leaf[...] = 0


def test_weights_have_one_row_for_each_unit(backend):
    params = fnn.Dense(3).init(fnn.random.key(0, backend=backend), (5,))
    assert params.w.shape == (3, 5)
    assert params.b.shape == (3,)
    assert params._fields == ("w", "b")
    x = np.arange(5.0, dtype=np.float32)[None]
    np.testing.assert_allclose(fnn.Dense(3).apply(params, x)[0], np.asarray(params.w) @ x[0], rtol=1e-5)


def test_dropout_acts_in_training_only_and_keeps_the_mean(backend):
    x = np.ones((200, 500), np.float32)
    layer, key = fnn.Dropout(0.2), fnn.random.key(1, backend=backend)
    np.testing.assert_array_equal(layer.apply((), x), x)
    y = np.asarray(layer.apply((), x, key))
    assert set(np.unique(y)) == {0, np.float32(1.25)}
    assert abs((y == 0).mean() - 0.2) < 0.006, "five standard deviations of 100,000 draws"
    np.testing.assert_array_equal(layer.apply((), x, key), y)


def test_a_network_that_never_draws_is_the_same_with_and_without_a_key(backend):
    net, key = fnn.mlp((4, 2)), fnn.random.key(0, backend=backend)
    params = net.init(key, (3,))
    assert not net.draws
    np.testing.assert_array_equal(net.apply(params, np.ones((2, 3))), net.apply(params, np.ones((2, 3)), key))


def test_the_initial_values_of_a_layer_come_from_its_place(backend):
    key = fnn.random.key(0, backend=backend)
    params = fnn.Serial((fnn.Dense(4), fnn.Serial((fnn.Relu(), fnn.Dense(4))))).init(key, (4,))
    alone = fnn.Dense(4).init(fnn.random.fold_in(fnn.random.fold_in(key, 1), 1), (4,))
    np.testing.assert_array_equal(params[1][1].w, alone.w)
    assert np.abs(np.asarray(params[0].w) - np.asarray(params[1][1].w)).max() > 0.1


def test_eval_shape_of_init_computes_nothing(needs_jax):
    import jax

    net = fnn.mlp((100_000, 100_000, 10))
    shapes = jax.eval_shape(lambda key: net.init(key, (784,)), fnn.random.key(0))
    assert shapes[2].w.shape == (100_000, 100_000)


def test_networks_print_hash_and_compare_by_value():
    net = fnn.mlp((128, 10), activation=fnn.LeakyRelu(0.2))
    assert repr(net) == "Serial((Dense(128), LeakyRelu(slope=0.2), Dense(10)))"
    assert eval(repr(net), vars(fnn)) == net
    assert hash(net) == hash(fnn.mlp((128, 10), activation=fnn.LeakyRelu(0.2)))
    assert fnn.Scale(1) == fnn.Scale(1.0)
    assert isinstance(fnn.Scale(1).factor, float), "equal layers must compute the same"
    assert fnn.mlp((128, 10)) == fnn.Serial((fnn.Dense(128), fnn.Relu(), fnn.Dense(10)))
    assert fnn.Dense(3) != fnn.Dense(3, initializer=fnn.HeNormal())
    assert fnn.Relu() != fnn.Tanh()


def test_a_summary_shows_what_is_within_a_composition():
    net = fnn.Serial((fnn.Residual(fnn.mlp((2, 3))), fnn.Parallel((fnn.Identity(), fnn.Frozen(fnn.Dense(1))))))
    lines = fnn.summary(net, (3,)).splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["0", "Residual"],
        ["0.0.0", "Dense"],
        ["0.0.1", "Relu"],
        ["0.0.2", "Dense"],
        ["1", "Parallel"],
        ["1.0", "Identity"],
        ["1.1", "Frozen"],
        ["1.1.0", "Dense"],
    ]
    assert lines[-1].split() == ["total", "(4,)", "21", "84"]


def test_a_summary_shows_layers_shapes_parameters_and_bytes():
    net = fnn.Serial((fnn.Flatten(), fnn.mlp((300, 10)), fnn.Softmax()))
    lines = fnn.summary(net, (28, 28)).splitlines()
    assert [line.split() for line in lines] == [
        ["layer", "output", "parameters", "bytes"],
        ["0", "Flatten", "(784,)", "0", "0"],
        ["1.0", "Dense", "(300,)", "235,500", "942,000"],
        ["1.1", "Relu", "(300,)", "0", "0"],
        ["1.2", "Dense", "(10,)", "3,010", "12,040"],
        ["2", "Softmax", "(10,)", "0", "0"],
        ["total", "(10,)", "238,510", "954,040"],
    ]
    assert len({len(line) for line in lines}) == 1, "columns are aligned"


@dataclass(frozen=True)
class NoGradient(fnn.Layer):
    def init(self, key, input_shape, dtype=np.float32):
        return fnn.Ones()(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        return x * params, x

    def backward(self, params, x, dy):
        return dy * params


class Undecorated(fnn.Dense):
    def forward(self, params, x, key=None):
        return super().forward(params, 2 * x)


BAD_LAYERS = {
    "no units": (lambda: fnn.Dense(0), errors.ArgumentError, "at least 1, got 0"),
    "negative units": (lambda: fnn.Dense(-3), errors.ArgumentError, "at least 1, got -3"),
    "half a unit": (lambda: fnn.Dense(2.5), errors.KindError, "integer, got 2.5"),
    "True units": (lambda: fnn.Dense(True), errors.KindError, "integer, got True"),
    "text": (lambda: fnn.Dense("3"), errors.KindError, "integer, got '3'"),
    "a class for an initializer's instance": (lambda: fnn.Dense(3, initializer="he"), errors.KindError, "HeNormal"),
    "an infinite scale": (lambda: fnn.Scale(np.inf), errors.ArgumentError, "finite"),
    "nan": (lambda: fnn.Scale(float("nan")), errors.ArgumentError, "nan"),
    "an array": (lambda: fnn.Scale(np.ones(2)), errors.KindError, "number"),
    "a rate of 1": (lambda: fnn.Dropout(1.0), errors.ArgumentError, "rate < 1"),
    "a negative rate": (lambda: fnn.Dropout(-0.1), errors.ArgumentError, "rate >= 0"),
    "a list of layers": (lambda: fnn.Serial([fnn.Dense(1)]), errors.KindError, "tuple, got a list"),
    "a layer alone": (lambda: fnn.Serial(fnn.Dense(1)), errors.KindError, "tuple of layers"),
    "a class for a layer": (lambda: fnn.Serial((fnn.Relu,)), errors.KindError, r"layers\[0\].*write Relu\(\)"),
    "a function for a layer": (lambda: fnn.Serial((np.tanh,)), errors.KindError, r"layers\[0\]"),
    "no layer within": (lambda: fnn.Residual(np.tanh), errors.KindError, "layer: expected a layer"),
    "a class within": (lambda: fnn.Frozen(fnn.Relu), errors.KindError, r"write Relu\(\)"),
    "no branches": (lambda: fnn.Parallel(()), errors.ArgumentError, "at least one"),
    "a list of branches": (lambda: fnn.Parallel([fnn.Relu()]), errors.KindError, "tuple"),
    "constants that are arguments": (lambda: fnn.Standardize(0.0), TypeError, "positional"),
    "an epsilon of 0": (lambda: fnn.LayerNorm(eps=0.0), errors.ArgumentError, "eps > 0"),
    "no layer sizes": (lambda: fnn.mlp(()), errors.ArgumentError, "at least one layer"),
    "a size of 0": (lambda: fnn.mlp((3, 0)), errors.ArgumentError, r"units\[1\]"),
    "a subclass that is no dataclass": (lambda: Undecorated(3), errors.KindError, "@dataclass"),
    "no function": (lambda: fnn.Function(3), errors.KindError, "function, got 3"),
}


@pytest.mark.parametrize("name", BAD_LAYERS)
def test_a_layer_that_makes_no_sense_is_refused_when_it_is_made(name):
    make, error, message = BAD_LAYERS[name]
    with pytest.raises(error, match=message):
        make()


BAD_INIT = {
    "an int for a shape": (fnn.Dense(3), 5, errors.KindError, r"\(784,\), got 5"),
    "a picture for a Dense layer": (fnn.Dense(3), (5, 5), errors.ShapeError, r"\(I,\), got \(5, 5\)"),
    "a size of 0": (fnn.Dense(3), (0,), errors.ArgumentError, "at least 1, got 0"),
    "a skip that changes the shape": (fnn.Residual(fnn.Dense(3)), (5,), errors.ShapeError, r"\(5,\), got \(3,\)"),
    "branches that do not fit": (
        fnn.Parallel((fnn.Flatten(), fnn.Relu())),
        (2, 3),
        errors.ShapeError,
        r"Parallel: .*\(6,\), \(2, 3\)",
    ),
    "a branch that does not fit": (fnn.Parallel((fnn.Dense(2),)), (2, 3), errors.ShapeError, r"branches\[0\] Dense"),
    "no axis to normalise": (fnn.LayerNorm(), (), errors.ShapeError, "at least one axis"),
    "with its place": (fnn.mlp((3, 2)), (5, 5), errors.ShapeError, r"layers\[0\] Dense"),
}


@pytest.mark.parametrize("name", BAD_INIT)
def test_an_input_shape_that_makes_no_sense_is_refused(name, backend):
    layer, input_shape, error, message = BAD_INIT[name]
    with pytest.raises(error, match=message):
        layer.init(fnn.random.key(0, backend=backend), input_shape)


def test_a_seed_in_the_place_of_a_key_is_refused():
    with pytest.raises(errors.KindError, match=r"fnn\.random\.key\(0\) gives, got 0"):
        fnn.mlp((3, 2)).init(0, (5,))


def test_float64_without_x64_is_refused_and_not_silently_float32(needs_jax):
    with pytest.raises(errors.ArgumentError, match="jax_enable_x64"):
        fnn.Dense(3).init(fnn.random.key(0), (5,), np.float64)


@pytest.mark.parametrize("dtype", [np.int32, "text", None.__class__, np.complex64])
def test_a_dtype_that_is_not_real_floating_point_is_refused(dtype, backend):
    with pytest.raises(errors.KindError, match="floating"):
        fnn.Dense(3).init(fnn.random.key(0, backend=backend), (5,), dtype)


def test_a_layer_with_parameters_and_without_a_gradient_says_so():
    params = NoGradient().init(fnn.random.key(0, backend="numpy"), (2,))
    with pytest.raises(NotImplementedError, match="NoGradient has parameters and no method gradient"):
        fnn.grad(NoGradient(), fnn.Quadratic())(params, np.ones((1, 2)), np.ones((1, 2)))


def test_a_function_that_loses_examples_is_refused(needs_jax):
    import jax.numpy as jnp

    with pytest.raises(errors.ShapeError, match="each of 3 examples"):
        fnn.Function(jnp.sum).apply((), jnp.ones((3, 2)))


def test_a_place_is_named_through_nested_networks():
    net = fnn.Serial((fnn.Dense(4), fnn.Serial((fnn.Relu(), fnn.Dense(3)))))
    params = net.init(fnn.random.key(0, backend="numpy"), (2,))
    wrong = (params[0], (params[1][0], fnn.DenseParams(np.ones((3, 5), np.float32), params[1][1].b)))
    with pytest.raises(errors.ShapeError, match=r"layers\[1\] Serial: layers\[1\] Dense: .*\(N, 5\), got \(1, 4\)"):
        net.apply(wrong, np.ones((1, 2)))


def test_products_in_bfloat16_are_close_and_their_sums_are_float32(needs_jax):
    rng = np.random.default_rng(0)
    x = fnn.backend.jnp.asarray(rng.normal(size=(64, 300)), np.float32)
    dy = fnn.backend.jnp.asarray(rng.normal(size=(64, 40)), np.float32)
    exact, rounded = fnn.Dense(40), fnn.Dense(40, precision="bfloat16")
    params = exact.init(fnn.random.key(0), (300,))
    y, residuals = rounded.forward(params, x)
    assert y.dtype == np.float32
    oracle.assert_close(y, exact.apply(params, x), 1e-2)
    assert np.any(np.abs(y - exact.apply(params, x)) > 1e-5), "something is rounded"
    bf = lambda a: a.astype("bfloat16").astype(np.float32)
    oracle.assert_close(y, bf(x) @ bf(params.w).T + params.b, 1e-6)  # rounded once, then summed in float32
    oracle.assert_close(rounded.backward(params, residuals, dy), bf(dy) @ bf(params.w), 1e-6)
    grads = rounded.gradient(params, residuals, dy)
    oracle.assert_close(grads, fnn.DenseParams(bf(dy).T @ bf(x), dy.sum(axis=0)), 1e-5)
    each = rounded.per_example_gradient(params, residuals, dy)
    oracle.assert_close(fnn.trees.map(lambda g: g.sum(axis=0), each), grads, 1e-5)
    assert {leaf.dtype for leaf in fnn.trees.leaves((grads, each))} == {np.dtype(np.float32)}
    narrow = fnn.trees.map(lambda p: p.astype("bfloat16"), params)
    assert rounded.apply(narrow, x).dtype == "bfloat16", "the dtype is that of the parameters"


def test_a_network_of_products_in_bfloat16_learns(needs_jax):
    net, loss = fnn.mlp((16, 3), precision="bfloat16"), fnn.SoftmaxCrossEntropy()
    assert repr(net) == "Serial((Dense(16, precision='bfloat16'), Relu(), Dense(3, precision='bfloat16')))"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = np.eye(3)[y] + 0.1 * rng.normal(size=(96, 3))
    state = fnn.init_state(net, fnn.Sgd(0.5), fnn.random.key(0), (3,))
    state, _ = fnn.train(net, loss, state, (x, y), epochs=10, batch_size=8)
    assert fnn.evaluate(net, loss, state.params, (x, y), metrics={"accuracy": fnn.accuracy})["accuracy"] == 1


def test_products_in_bfloat16_need_jax_and_no_other_precision_is_known():
    net = fnn.Dense(2, precision="bfloat16")
    params = net.init(fnn.random.key(0, backend="numpy"), (3,))
    with pytest.raises(errors.KindError, match="expected parameters on JAX, as NumPy has no bfloat16"):
        net.apply(params, np.ones((1, 3)))
    with pytest.raises(errors.ArgumentError, match='precision: expected None or "bfloat16", got'):
        fnn.Dense(2, precision="float8")


# ---- Standardize and what it measures --------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
MEASURED = {
    "usual": RNG.normal(3, 2, (50, 4)),
    "float32": RNG.normal(-3, 2, (50, 4)).astype(np.float32),
    "images of uint8": RNG.integers(0, 256, (50, 2, 3), dtype=np.uint8),
    "True and False": RNG.random((50, 3)) < 0.3,
    "a number each": RNG.normal(size=50),
    "one outlier first": np.concatenate([[[1e6]], RNG.normal(size=(49, 1))]),
    "a small spread": 1e-100 * RNG.normal(size=(50, 2)),
}
pieces = pytest.mark.parametrize("piece", [1, 7, 40, 2**18])


def measured(x, weights=None, dtype=np.float64):
    return fnn.Standardize().measured(x, weights, dtype)


def test_a_feature_less_its_mean_over_its_deviation(backend):
    rng, layer = np.random.default_rng(0), fnn.Standardize()
    xp = np if backend == "numpy" else fnn.backend.jnp
    mean, std = rng.normal(size=(2, 3)), rng.uniform(0.5, 2, (2, 3))
    params = layers.StandardizeParams(*(xp.asarray(a, dtype=np.float32) for a in (mean, std)))
    for x in (rng.normal(size=(6, 2, 3)), rng.integers(0, 256, (6, 2, 3), dtype=np.uint8)):
        y = layer.apply(params, x)
        assert y.dtype == np.float32
        oracle.assert_close(y, (x - mean) / std, 1e-6)
        new = layer.init(fnn.random.key(0, backend=backend), (2, 3))
        np.testing.assert_array_equal(layer.apply(new, x), x.astype(np.float32), "before it is measured x is as it was")


def test_standardize_learns_with_the_gradient_of_the_formula(backend):
    fnn.testing.check_layer(fnn.Standardize(), (2, 3), on=backend)


@pieces
@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_is_the_mean_and_the_standard_deviation_of_numpy(name, piece, monkeypatch):
    monkeypatch.setattr(layers, "PIECE", piece)
    x = MEASURED[name]
    found = measured(x)
    assert found.mean.shape == found.std.shape == x.shape[1:]
    wide = x.astype(np.float64)
    oracle.assert_close(found, fnn.StandardizeParams(wide.mean(axis=0), wide.std(axis=0)), 1e-14)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_measured_is_that_of_scikit_learn(weighted):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = np.concatenate([RNG.normal(3, 2, (50, 4)), np.full((50, 1), 0.1), np.zeros((50, 1))], axis=1)
    weights = RNG.integers(0, 4, 50).astype(float) if weighted else None
    theirs = preprocessing.StandardScaler().fit(x, sample_weight=weights)
    found = measured(x, weights)
    oracle.assert_close(found, fnn.StandardizeParams(theirs.mean_, theirs.scale_), 1e-12)
    oracle.assert_close(fnn.Standardize().apply(found, x), theirs.transform(x), 1e-12)


@pieces
def test_a_large_mean_costs_no_digits(piece, monkeypatch):
    monkeypatch.setattr(layers, "PIECE", piece)
    small = np.round(RNG.normal(size=(1000, 2)) * 2**20) / 2**20  # so that the sum with 1e8 is exact
    found = measured(1e8 + small)
    oracle.assert_close((found.mean - 1e8, found.std), (small.mean(axis=0), small.std(axis=0)), 1e-6)
    assert oracle.relative_error(found.std, small.std(axis=0)) < 1e-12, "the mean has 8 digits less, the spread all"
    narrow = measured(1e8 + small, dtype=np.float32)
    oracle.assert_close(narrow, found, 1e-7)


@pieces
def test_a_constant_feature_is_divided_by_one(piece, monkeypatch):
    monkeypatch.setattr(layers, "PIECE", piece)
    values = np.array([0.1, 0.0, -1e300, 1e-300, 7.0])
    found = measured(np.broadcast_to(values, (1000, 5)))
    np.testing.assert_array_equal(found.mean, values)
    np.testing.assert_array_equal(found.std, np.ones(5))
    rounded = np.where(RNG.random((1000, 2)) < 0.5, 0.3, 0.1 + 0.2) * [1.0, -1e9]
    np.testing.assert_array_equal(measured(rounded).std, [1, 1], "the last digit of a constant is no spread")
    seconds = 1.7e9 + RNG.integers(0, 2, (1000, 1)) * 1e-3
    np.testing.assert_allclose(measured(seconds).std, 5e-4, rtol=0.01, err_msg="a spread of 10⁻¹² of the mean is one")


def test_a_spread_that_the_dtype_cannot_hold_is_divided_by_one(backend):
    x = np.array([[0, 0], [1e-50, 1e-39]])
    if backend == "jax":  # on JAX x is float32 already, where the second of them is not normal
        x = fnn.backend.jnp.asarray(x, np.float32)
    np.testing.assert_array_equal(measured(x, dtype=np.float32).std, [1, 1])
    np.testing.assert_array_equal(measured(np.array([[0.0], [1e-9]]), dtype=np.float16).std, [1])


def test_one_example_is_a_mean_without_a_spread():
    x = np.array([[2.0, -3.0]])
    found = measured(x)
    np.testing.assert_array_equal(found, [[2, -3], [1, 1]])
    np.testing.assert_array_equal(fnn.Standardize().apply(found, x), [[0, 0]])


@pieces
def test_weights_are_repetitions(piece, monkeypatch):
    monkeypatch.setattr(layers, "PIECE", piece)
    x, weights = RNG.normal(5, 2, (60, 3)), RNG.integers(0, 3, 60)
    weights[:20] = 0  # whole pieces without any
    wanted = measured(np.repeat(x, weights, axis=0))
    oracle.assert_close(measured(x, weights), wanted, 1e-14)
    oracle.assert_close(measured(x, weights * 1e-200), wanted, 1e-14)
    large = 1e160 + 1e150 * x  # whose squares no float64 holds, though it holds those of the deviations
    assert oracle.relative_error(measured(large, weights).std, 1e150 * wanted.std) < 1e-5
    x[weights == 0] = np.array([np.nan, np.inf, 1e300])
    oracle.assert_close(measured(x, weights), wanted, 1e-14)


@pytest.mark.parametrize(("dtype", "width"), [("u1", 1), ("u1", 100), (">f4", 100)])
def test_of_a_file_a_piece_at_a_time_is_in_memory(dtype, width, tmp_path):
    x = np.memmap(tmp_path / "x", dtype, "w+", shape=(12_000_000 // width, width))
    x[:] = np.arange(width)
    x[::2] += np.ones(1, dtype)
    tracemalloc.start()
    try:
        found = measured(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found.mean, np.arange(width) + 0.5, rtol=1e-12)
    np.testing.assert_allclose(found.std, 0.5, rtol=1e-12)
    assert peak < 2**23, f"{peak} bytes; as float64 x has {8 * x.size}"


def test_what_is_measured_is_float32_and_read_only_and_lies_where_the_data_do(backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    x = xp.asarray(MEASURED["float32"])
    found = fnn.Standardize().measured(x)
    for leaf in found:
        assert isinstance(leaf, np.ndarray) == (backend == "numpy")
        assert leaf.dtype == np.float32
        if backend == "numpy":
            assert not leaf.flags.writeable
    oracle.assert_close(found, fnn.Standardize().measured(np.asarray(x).tolist()), 0)
    if backend == "jax":
        narrow = fnn.Standardize().measured(x.astype("bfloat16"), dtype="bfloat16")
        assert narrow.std.dtype == "bfloat16"
        oracle.assert_close(narrow, found, 1e-2)


WITH_NAN = np.ones((30, 2, 3))
WITH_NAN[20, 1, 2] = np.nan
BAD_DATA = {
    "nan": (WITH_NAN, {}, errors.DataError, r"x: expected finite numbers, got nan at x\[20, 1, 2\]"),
    "an infinity": (np.array([1.0, -np.inf]), {}, errors.DataError, r"got -inf at x\[1\]"),
    "nothing": (np.ones((0, 3)), {}, errors.DataError, "at least one example"),
    "a number": (3.0, {}, errors.ShapeError, "leading axis of examples"),
    "text": ([["a"]], {}, errors.KindError, "x: expected an array of numbers"),
    "complex numbers": (np.ones(3) + 1j, {}, errors.KindError, "x: expected real numbers, got dtype complex128"),
    "a mask": (np.ma.ones((3, 2)), {}, errors.KindError, "x: expected an array without mask"),
    "more than float32 holds": (np.full((2, 1), 1e39), {}, errors.DataError, r"mean of x.*inf at mean of x\[0\]"),
    "a spread of that kind": ([[1e39], [-1e39]], {}, errors.DataError, "standard deviation of x: expected finite"),
    "more than float64 holds": ([[1e308], [-1e308]], {"dtype": np.float64}, errors.DataError, "of x: expected finite"),
    "weights of others": (
        np.ones((3, 2)),
        {"weights": np.ones(2)},
        errors.ShapeError,
        r"weights: .*\(3,\), got \(2,\)",
    ),
    "no weight": (np.ones((3, 2)), {"weights": np.zeros(3)}, errors.DataError, "weight above 0"),
    "a negative weight": (np.ones((2, 2)), {"weights": [1, -1]}, errors.DataError, r"got -1.0 at weights\[1\]"),
    "a weight that is none": (np.ones((2, 2)), {"weights": [1, np.nan]}, errors.DataError, r"nan at weights\[1\]"),
    "a dtype of integers": (np.ones((2, 2)), {"dtype": np.int32}, errors.KindError, "floating dtype, got int32"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_measured_are_refused(name, monkeypatch):
    monkeypatch.setattr(layers, "PIECE", 60)
    x, options, error, message = BAD_DATA[name]
    with pytest.raises(error, match=message):
        fnn.Standardize().measured(x, **options)


def test_what_jax_does_not_know_or_cannot_hold_is_not_measured(needs_jax):
    with pytest.raises(errors.KindError, match="outside of jit"):
        needs_jax.eval_shape(fnn.Standardize().measured, np.ones((3, 2)))
    with pytest.raises(errors.ArgumentError, match="jax_enable_x64"):
        measured(needs_jax.numpy.ones((3, 2)))


@pytest.mark.parametrize(
    ("params", "x", "message"),
    [
        (fnn.StandardizeParams(np.zeros(3), np.ones(3)), np.ones((2, 4)), r"input of shape \(N, 3\), got \(2, 4\)"),
        (fnn.StandardizeParams(np.zeros(3), np.ones(3)), np.ones((2, 1, 3)), r"\(N, 3\), got \(2, 1, 3\)"),
        (fnn.StandardizeParams(np.zeros(3), np.ones(1)), np.ones((2, 3)), r"StandardizeParams, .*\(\(3,\), \(1,\)\)"),
        ((np.zeros(3), np.ones(3)), np.ones((2, 3)), r"StandardizeParams, mean and std of one shape, got \(\(3,\)"),
    ],
)
def test_constants_that_do_not_fit_the_input_are_refused(params, x, message):
    with pytest.raises(errors.ShapeError, match=message):
        fnn.Standardize().apply(params, x)


def test_measured_constants_are_served_as_they_were_and_never_learnt(backend, tmp_path):
    rng, key = np.random.default_rng(0), fnn.random.key(0, backend=backend)
    x = rng.normal(100, [3, 0.1], (64, 2))
    y = (x - 100) / [3, 0.1] @ [[1.0], [-1.0]]
    net, loss = fnn.Serial((fnn.Frozen(fnn.Standardize()), fnn.Dense(1))), fnn.Quadratic()
    constants = fnn.trees.Fixed(fnn.Standardize().measured(x))  # on NumPy, as the data are, beside a key of JAX
    params = (constants, *net.init(key, (2,))[1:])
    state = fnn.init_state(net, fnn.AdamW(0.1, weight_decay=1e-3), key, (2,), params=params)
    state, history = fnn.train(net, loss, state, (x, y), epochs=20, batch_size=8, penalty=fnn.L2(1e-5))
    assert history["loss"][-8:].mean() < 1e-2 < history["loss"][:8].mean()
    for found, wanted in zip(state.params[0].params, constants.params, strict=True):
        assert isinstance(found, np.ndarray) == (backend == "numpy")
        np.testing.assert_array_equal(found, wanted)
    fnn.checkpoints.save(tmp_path / "net.npz", state, net=net)
    served, weights = fnn.load_network(tmp_path / "net.npz", backend="numpy")
    assert served == net
    np.testing.assert_array_equal(weights[0].params, constants.params)
    oracle.assert_close(served.apply(weights, x), net.apply(state.params, x), 0 if backend == "numpy" else 1e-5)

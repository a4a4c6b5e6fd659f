"""Layers keep their contract, users' own ones included, and say what does not fit."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import oracle
import pytest

import fnn
from fnn import errors


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

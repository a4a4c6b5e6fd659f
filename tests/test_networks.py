"""Networks are their layers composed: what each composition does, and what is refused when it is made."""

from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import CountingDense, calls, compiled, key, moved, on, wide

import fnn
from fnn import errors, factors

BELOW = {  # what learns nothing, and may stand at the bottom, where no error is wanted
    "serial": fnn.Serial((fnn.Scale(2.0), fnn.Serial((fnn.Relu(),)))),
    "empty serial": fnn.Serial(()),
    "parallel": fnn.Parallel((fnn.Identity(), fnn.Relu())),
    "residual": fnn.Residual(fnn.Serial((fnn.Relu(), fnn.Tanh()))),
    "frozen": fnn.Frozen(fnn.mlp((3, 2))),
    "frozen in parallel": fnn.Parallel((fnn.Relu(), fnn.Frozen(fnn.Dense(2)))),
    "frozen in residual": fnn.Residual(fnn.Frozen(fnn.Dense(4))),
}


def below_all_that_learns(backend):
    """For each of them the gradient, that of a call which asks for dx too, and the mean of the factors."""

    def run(params):
        results = {}
        for name, p in params.items():
            net, x, y = fnn.Serial((BELOW[name], fnn.Dense(2))), np.ones((3, 4)), np.zeros((3, 2))
            tape = fnn.backprop(net, fnn.Quadratic(), need_dx=False)(p, x, y)
            each = factors.made(p, net.factors(p, tape.residuals, tape.deltas))
            assert tape.dx is None
            assert all(len(leaf) == 3 for leaf in fnn.trees.leaves(each))
            with_dx = fnn.grad(net, fnn.Quadratic(), need_dx=True)(p, x, y)[0]
            mean = fnn.trees.map(lambda g: g.mean(axis=0), each)
            results[name] = fnn.grad(net, fnn.Quadratic())(p, x, y), with_dx, mean
        return results

    params = {name: moved(fnn.Serial((layer, fnn.Dense(2))), (4,), np.float32) for name, layer in BELOW.items()}
    return (run if backend == "numpy" else oracle.quick_jit(run))(on(backend, params))


@pytest.mark.thorough(backend="jax")
def test_below_all_that_learns_no_error_is_needed(backend):
    for name, (grads, with_dx, mean) in below_all_that_learns(backend).items():
        oracle.assert_close({name: with_dx}, {name: grads}, 1e-6)
        oracle.assert_close({name: mean}, {name: grads}, 1e-6)


def test_integers_beside_floats_in_parallel_do_not_widen_them(backend):
    net = fnn.Parallel((fnn.Flatten(), fnn.Dense(2)))  # of integers Flatten makes integers
    params = on(backend, net.init(fnn.random.key(0, backend="numpy"), (4,)))
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
        free = fnn.Serial((self.net.layers[0].layer, *self.net.layers[1:]))

        def run(params, x, y):
            of_free = fnn.grad(free, fnn.Quadratic(), need_dx=True)((params[0].params, *params[1:]), x, y)
            return fnn.grad(self.net, fnn.Quadratic(), need_dx=True)(params, x, y), of_free

        params = on(backend, self.net.init(fnn.random.key(0, backend="numpy"), (3,)))
        (grads, dx), (of_free, dx_of_free) = compiled(backend, run)(params, *self.data(backend))
        oracle.assert_close((grads[1:], dx), (of_free[1:], dx_of_free), 0)
        assert all((np.asarray(leaf) == 0).all() for leaf in fnn.trees.leaves(grads[0]))
        assert isinstance(grads[0], fnn.trees.Fixed), "the gradient has the structure of the parameters"

    OPTIMIZERS = (fnn.Momentum(0.1), fnn.Nesterov(0.1), fnn.Adam(0.1), fnn.MaxNorm(fnn.Sgd(0.1), 0.1))

    @pytest.mark.parametrize("penalty", [None, fnn.L2(0.1)])
    def test_every_optimizer_leaves_it_alone(self, penalty, backend):
        if backend == "jax" and penalty is None:
            pytest.skip("one program is enough")
        for optimizer in self.OPTIMIZERS if backend == "numpy" else self.OPTIMIZERS[2:3]:
            state = fnn.init_state(self.net, optimizer, fnn.random.key(0, backend=backend), (3,))
            x, y = self.data(backend)
            after, _ = fnn.train(self.net, fnn.Quadratic(), state, (x, y), epochs=2, batch_size=12, penalty=penalty)
            oracle.assert_close(after.params[0], state.params[0], 0)
            assert (np.asarray(after.params[2].w) != np.asarray(state.params[2].w)).all()

    def test_optax_leaves_it_alone_with_weight_decay_too(self, needs_jax):
        optax = pytest.importorskip("optax")
        optimizer = optax.adamw(0.1, weight_decay=0.5)
        state = fnn.init_state(self.net, optimizer, fnn.random.key(0), (3,))
        after, _ = fnn.train(self.net, fnn.Quadratic(), state, self.data("jax"), epochs=2, batch_size=12)
        oracle.assert_close(after.params[0], state.params[0], 0)

    def test_a_penalty_does_not_count_it(self, backend):
        of_each = (0.1, (), 0.1), (fnn.trees.Fixed(0.1), (), 0.1)  # said of each, and frozen all the same

        def run(params):
            pairs = [(p, p.value(params), p.value(params[2:])) for p in (fnn.L1(0.1), fnn.L2(0.1))]
            values = [pair[1:] for pair in pairs]
            values += [(fnn.L2(tree).value(params), fnn.L2((0.1,)).value(params[2:])) for tree in of_each]
            return values, [penalty.gradient(params)[0] for penalty, *_ in pairs]

        params = on(backend, self.net.init(fnn.random.key(0, backend="numpy"), (3,)))
        values, gradients = compiled(backend, run)(params)
        for found, wanted in values:
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert all((np.asarray(leaf) == 0).all() for leaf in fnn.trees.leaves(gradients))

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
        with pytest.raises(errors.ShapeError, match=r"params: expected the structure \(Fixed\("):
            self.net.apply((params[0].params, *params[1:]), np.ones((1, 3)))


def test_parameters_are_read_only_on_numpy():
    params = fnn.mlp((3, 2)).init(fnn.random.key(0, backend="numpy"), (4,))
    for leaf in fnn.trees.leaves(params):
        with pytest.raises(ValueError, match="read-only"):
            leaf[...] = 0


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


class Undecorated(fnn.Dense):
    factors = fnn.Dense.factors

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
    "a class for a layer": (lambda: fnn.Serial((fnn.Relu,)), errors.KindError, r"layers\[0\].*write fnn.Relu\(\)"),
    "a function for a layer": (lambda: fnn.Serial((np.tanh,)), errors.KindError, r"layers\[0\]"),
    "no layer within": (lambda: fnn.Residual(np.tanh), errors.KindError, "layer: expected a layer"),
    "a class within": (lambda: fnn.Frozen(fnn.Relu), errors.KindError, r"write fnn.Relu\(\)"),
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
    "a number for a Dense layer": (fnn.Dense(3), (), errors.ShapeError, r"\(\.\.\., I\), got \(\)"),
    "a size of 0": (fnn.Dense(3), (0,), errors.ArgumentError, "at least 1, got 0"),
    "a skip that changes the shape": (fnn.Residual(fnn.Dense(3)), (5,), errors.ShapeError, r"\(5,\), got \(3,\)"),
    "branches that do not fit": (
        fnn.Parallel((fnn.Flatten(), fnn.Relu())),
        (2, 3),
        errors.ShapeError,
        r"expected outputs of the same shape.*\(6,\), \(2, 3\)",
    ),
    "a branch that does not fit": (fnn.Parallel((fnn.Dense(2),)), (), errors.ShapeError, r"branches\[0\] Dense"),
    "no axis to normalise": (fnn.LayerNorm(), (), errors.ShapeError, r"\(N, \.\.\., K\), got \(N,\)"),
    "with its place": (fnn.mlp((3, 2)), (), errors.ShapeError, r"layers\[0\] Dense"),
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


def test_a_place_is_named_through_nested_networks():
    net = fnn.Serial((fnn.Relu(), fnn.Serial((fnn.Relu(), fnn.Dense(3)))))
    params = net.init(fnn.random.key(0, backend="numpy"), (2,))
    wrong = (params[0], (params[1][0], fnn.DenseParams(np.ones((3, 5), np.float32), params[1][1].b)))
    with pytest.raises(errors.ShapeError, match=r"params\[1\]\[1\]\.w: expected shape \(3, 2\), got \(3, 5\)"):
        net.apply(wrong, np.ones((1, 2)))
    with pytest.raises(errors.ShapeError, match=r"layers\[1\] Serial: layers\[1\] Dense: expected input of shape"):
        net.apply(params, np.ones(1))


# ---- several inputs --------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    left: Any
    right: Any


BY_NAME = fnn.Parallel((fnn.Dense(2), fnn.mlp((3, 2), fnn.Tanh()), fnn.Dense(1)), inputs=("left", "right", "left"))


def named_inputs(kind, n=6):
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(n, 4)), "right": rng.normal(size=(n, 3)), "unused": rng.normal(size=(n, 2))}
    return x if kind is dict else Inputs(x["left"], x["right"])


@pytest.mark.parametrize("kind", [dict, Inputs])
def test_each_branch_takes_the_input_that_it_names_and_the_errors_go_back_there(kind, backend):
    x = named_inputs(kind)
    shapes = {"left": (4,), "right": (3,)}
    assert BY_NAME.output_shape(shapes) == (5,)
    params = BY_NAME.init(fnn.random.key(0, backend="numpy"), shapes, np.float64)
    branches, ends = BY_NAME.branches, ((0, 2), (2, 4), (4, 5))

    def run(params, x):
        left, right = (x["left"], x["right"]) if kind is dict else x
        tape = fnn.backprop(BY_NAME, fnn.Quadratic())(params, x, np.zeros((6, 5)))
        outputs = [b.apply(p, a) for b, p, a in zip(branches, params, (left, right, left), strict=True)]
        dxs = [
            b.propagate(p, b.forward(p, a)[1], tape.prediction[:, start:end])[0]
            for b, p, a, (start, end) in zip(branches, params, (left, right, left), ends, strict=True)
        ]
        return tape.prediction, tape.dx, outputs, dxs

    with wide():
        prediction, dx, outputs, dxs = compiled(backend, run)(*on(backend, (params, x)))
        oracle.assert_close(prediction, np.concatenate(outputs, axis=1), 1e-12)
        wanted = {"left": dxs[0] + dxs[2], "right": dxs[1], "unused": np.zeros((6, 2))}
        assert type(dx) is kind
        oracle.assert_close(dx if kind is dict else dx._asdict(), {k: wanted[k] for k in shapes} | (
            {"unused": wanted["unused"]} if kind is dict else {}
        ), 1e-12)  # fmt: skip


@pytest.mark.thorough(backend="jax")
def test_a_network_of_several_inputs_trains(backend):
    x, net = named_inputs(dict), fnn.Serial((BY_NAME, fnn.Tanh(), fnn.Dense(1)))
    y = x["left"][:, :1] * x["right"][:, :1]
    options = {"key": fnn.random.key(0, backend=backend), "epochs": 60, "batch_size": 6}
    _, history = fnn.fit(net, fnn.Quadratic(), fnn.Adam(0.05), (x, y), **options)
    assert history["loss"][-1] < 0.2 * history["loss"][0]


WRONG_INPUTS = {
    "no names": (np.ones((6, 4)), errors.ShapeError, "expected inputs named left, right"),
    "a name that is missing": ({"left": np.ones((6, 4))}, errors.ShapeError, "expected inputs named left, right"),
    "another width": ({"left": np.ones((6, 3)), "right": np.ones((6, 3))}, errors.ShapeError, r"params\[0\]\.w"),
    "other lengths": (
        {"left": np.ones((6, 4)), "right": np.ones((5, 3))},
        errors.ShapeError,
        "number of examples",
    ),
    "a bare tuple": (
        (np.ones((6, 4)), np.ones((6, 3))),
        errors.KindError,
        "got a tuple of 2 arrays",
    ),
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_inputs_that_do_not_fit_their_names_are_refused(name, backend):
    x, error, message = WRONG_INPUTS[name]
    params = on(backend, BY_NAME.init(fnn.random.key(0, backend="numpy"), {"left": (4,), "right": (3,)}))
    with pytest.raises(error, match=message):
        BY_NAME.apply(params, x)


def test_names_that_do_not_fit_the_branches_are_refused():
    for wrong in (("left",), ["left", "right"], (1, 2), "ab"):
        with pytest.raises(errors.KindError, match="inputs"):
            fnn.Parallel((fnn.Dense(2), fnn.Dense(3)), inputs=wrong)


def test_the_delta_of_textbooks_is_the_entry_of_each_dense_layer():
    """Nielsen's BP1 and BP2 for the quadratic cost: δ² = a² − y, δ¹ = (δ² W²) tanh'(z¹). At tanh: ∂L/∂a¹ = δ² W²."""
    net, rng = fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(2))), np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(4, 2)).astype(np.float32)
    tape = fnn.backprop(net, fnn.Quadratic())(params := net.init(key(), (5,)), x, y)
    (w1, b1), _, (w2, b2) = (tuple(np.asarray(a, np.float64) for a in p) for p in params)
    a1 = np.tanh(x @ w1.T + b1)
    delta2 = a1 @ w2.T + b2 - y
    for entry, expected in zip(tape.deltas, (delta2 @ w2 * (1 - a1**2), delta2 @ w2, delta2), strict=True):
        np.testing.assert_allclose(entry, expected, rtol=1e-4, atol=1e-6)

"""The gate: whatever does not fit is refused where it comes in, with what was expected and found, on both backends."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import oracle
import pytest
from helpers import key, on

import fnn
from fnn import checks, errors, examples, gate, trees

NET = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Serial((fnn.Dense(3), fnn.Relu())), fnn.Dense(2)))
LOSS = fnn.Quadratic()


def good(backend):
    """What every function takes: parameters, x and y."""
    rng = np.random.default_rng(0)
    return NET.init(key(backend, 3), (5,)), rng.normal(size=(6, 5)), rng.normal(size=(6, 2))


def apply(params, x, y, weights=None, key=None):
    return NET.apply(params, x, key)


def make_step(params, x, y, weights=None, key=None):
    state = fnn.init_state(NET, fnn.Sgd(0.1), fnn.random.key(0), (5,), params=good("numpy")[0])
    batch = (x, y) if weights is None else (x, y, weights)
    return fnn.make_step(NET, LOSS)(state._replace(params=params), batch)


FUNCTIONS = {
    "apply": apply,
    "backprop": lambda *args, **named: fnn.backprop(NET, LOSS)(*args, **named),
    "value_and_grad": lambda *args, **named: fnn.value_and_grad(NET, LOSS)(*args, **named),
    "grad": lambda *args, **named: fnn.grad(NET, LOSS)(*args, **named),
    "per_example": lambda *args, **named: fnn.per_example.norms(NET, LOSS)(*args, **named),
    "make_step": make_step,
}


class Other(NamedTuple):
    w: np.ndarray
    b: np.ndarray


def first(params, **changes):
    """Parameters whose first layer is changed."""
    return params[0]._replace(**changes), *params[1:]


SHAPES, KINDS = errors.ShapeError, errors.KindError
BAD_PARAMS = {  # what is done to the parameters, the error, and what it says
    "integers": (lambda p: trees.map(lambda a: a.astype(np.int32), p), KINDS, r"params\[0\]\.w.*floating-point.*int32"),
    "text": (lambda p: first(p, w="w"), KINDS, r"params\[0\]\.w: expected a floating-point array, got 'w'"),
    "another depth": (lambda p: p[:2], SHAPES, "params: expected the structure"),
    "none": (lambda p: (), SHAPES, "params: expected the structure"),
    "a tuple for a NamedTuple": (lambda p: (tuple(p[0]), *p[1:]), SHAPES, r"expected the structure .*DenseParams"),
    "another NamedTuple": (lambda p: (Other(*p[0]), *p[1:]), SHAPES, "params: expected the structure"),
    "another width": (
        lambda p: first(p, w=p[0].w[:3]),
        SHAPES,
        r"params\[0\]\.w: expected shape \(4, 5\), got \(3, 5\)",
    ),
    "a bias too short": (
        lambda p: first(p, b=p[0].b[:3]),
        SHAPES,
        r"\.b: expected shape \(4,\), got \(3,\)",
    ),
    "transposed": (lambda p: first(p, w=p[0].w.T), SHAPES, r"params\[0\]\.w: expected shape \(4, 5\), got \(5, 4\)"),
    "without bias": (lambda p: first(p, b=()), SHAPES, "params: expected the structure"),
    "fixed": (lambda p: (trees.Fixed(p[0]), *p[1:]), SHAPES, "params: expected the structure"),
    "a list": (lambda p: list(p), SHAPES, "params: expected"),
    "of another network": (lambda p: fnn.mlp((4, 3, 2)).init(key(), (5,)), SHAPES, "params: expected the structure"),
}
BAD_DATA = {  # the arguments, the error, and what it says
    "the wrong number of inputs": ({"x": np.ones((6, 4))}, SHAPES, r"params\[0\]\.w: expected shape \(4, 4\)"),
    "no batch axis": ({"x": np.ones(5), "y": np.ones(5)}, SHAPES, r"expected input of shape \(\.\.\., I\), got \(\)"),
    "nothing for x": ({"x": None}, KINDS, "x: expected an array, got None"),
    "a number for x": ({"x": 3.0}, SHAPES, "x: expected a leading axis of examples"),
    "text": ({"x": np.full((6, 5), "a")}, KINDS, "x: expected an array of numbers.*<U1"),
    "objects": ({"x": np.full((6, 5), None)}, KINDS, "x: expected an array of numbers.*object"),
    "rows of unequal length": ({"x": [[1.0], [1.0, 2.0]]}, KINDS, "rows of unequal length"),
    "complex numbers": ({"x": np.ones((6, 5), complex)}, KINDS, "x: expected real numbers"),
    "masked": ({"x": np.ma.masked_array(np.ones((6, 5)), True)}, KINDS, "without mask"),
    "a tuple of arrays": ({"x": (np.ones((6, 5)), np.ones((6, 5)))}, KINDS, "got a tuple of 2 arrays"),
    "a seed for a key": ({"key": 3}, KINDS, "got 3"),
}
BAD_TARGETS = {
    "no examples": ({"x": np.ones((0, 5)), "y": np.ones((0, 2))}, SHAPES, "at least one example"),
    "targets that would broadcast": ({"y": np.ones((6, 1))}, SHAPES, r"\(6, 2\), got \(6, 1\)"),
    "too few targets": ({"y": np.ones((5, 2))}, SHAPES, "y: expected a target for each of 6 examples"),
    "no targets": ({"y": None}, KINDS, "y: expected targets, got None"),
    "targets of text": ({"y": np.full((6, 2), "a")}, KINDS, "y: expected an array of numbers"),
    "weights of another shape": ({"weights": np.ones((6, 1))}, SHAPES, r"weights.*\(6,\), got \(6, 1\)"),
    "too few weights": ({"weights": np.ones(5)}, SHAPES, r"weights.*\(6,\), got \(5,\)"),
    "weights of text": ({"weights": ["a"] * 6}, KINDS, "weights: expected an array of numbers"),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", BAD_PARAMS)
def test_parameters_that_do_not_fit_are_refused(name, function, backend):
    change, error, message = BAD_PARAMS[name]
    params, x, y = good(backend)
    with pytest.raises(error, match=message):
        FUNCTIONS[function](change(params), x, y)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", BAD_DATA | BAD_TARGETS)
def test_data_that_do_not_fit_are_refused(name, function, backend):
    change, error, message = (BAD_DATA | BAD_TARGETS)[name]
    if (function == "apply" and name in BAD_TARGETS) or (function == "make_step" and "key" in change):
        pytest.skip("which it does not take")
    params, x, y = good(backend)
    arguments = {"params": params, "x": x, "y": y} | change
    with pytest.raises(error, match=message):
        FUNCTIONS[function](**arguments)


def test_a_shape_is_refused_under_tracing_too(needs_jax):
    params, x, y = good("jax")
    for name, change in (("grad", {"y": y[:, :1]}), ("apply", {"x": x[:, :4]}), ("per_example", {"y": y[:5]})):
        with pytest.raises(SHAPES, match="expected"):
            needs_jax.jit(lambda data, name=name: FUNCTIONS[name](**data))({"params": params, "x": x, "y": y} | change)


# ---- what passes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept(fnn.Layer):
    """A layer that shows the x that it was given."""

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, params, x, key=None):
        return x, x

    def backward(self, params, x, dy):
        return dy


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.bool_, np.float64, np.float16])
def test_integers_stay_integers_and_floats_become_the_parameters_dtype(dtype, backend):
    net, x = fnn.Serial((Kept(), fnn.Dense(2))), np.ones((3, 4), dtype)
    params = net.init(key(backend), (4,))
    data = gate.dataset(net, LOSS, params, (x, np.ones((3, 2), np.float64), np.ones(3, int)))
    assert data.x.dtype == (np.float32 if dtype in (np.float64, np.float16) else dtype)
    assert fnn.backend.is_jax(data.x) == (backend == "jax")
    assert (data.y.dtype, data.weights.dtype) == (np.float32, np.float32)
    if backend == "numpy":
        assert fnn.backprop(net, LOSS)(params, x, np.ones((3, 2))).residuals[0].dtype == data.x.dtype


def test_targets_keep_float32_beside_narrower_parameters(needs_jax):
    params = trees.map(lambda p: p.astype("bfloat16"), fnn.Dense(1).init(key("jax"), (2,)))
    data = gate.dataset(fnn.Dense(1), LOSS, params, (np.ones((1, 2)), [[257.0]], [257.0]))
    assert data.x.dtype == "bfloat16"
    assert (data.y.dtype, data.y.item(), data.weights.item()) == (np.float32, 257, 257)


def test_lists_and_arrays_of_the_other_backend_pass(backend):
    params, x, _ = good(backend)
    wanted = np.asarray(NET.apply(params, x))
    for given in (x.tolist(), *(on(other, np.float32(x)) for other in ({"numpy", backend}))):
        found = NET.apply(params, given)
        assert fnn.backend.is_jax(found) == (backend == "jax")
        oracle.assert_close(found, wanted, 1e-6)


def test_examples_of_several_arrays_are_checked_one_by_one():
    net = fnn.Parallel((fnn.Dense(2), fnn.Dense(1)), inputs=("a", "b"))
    params = net.init(key(), {"a": (3,), "b": (4,)})
    x = {"b": np.ones((6, 4)), "a": np.ones((6, 3), np.float64)}
    assert net.apply(params, x).dtype == np.float32
    assert examples.shape_of(x) == (("a", (3,)), ("b", (4,)))
    for wrong, message in (
        (x | {"a": np.ones((5, 3))}, r"x: expected arrays of the same number.*x\['a'\] \(5, 3\), x\['b'\] \(6, 4\)"),
        (x | {"b": np.full((6, 4), "t")}, r"x\['b'\]: expected an array of numbers"),
        (x | {"b": 3.0}, r"x\['b'\]: expected a leading axis"),
    ):
        with pytest.raises(errors.FnnError, match=message):
            net.apply(params, wrong)


@dataclass(frozen=True)
class OfJax(fnn.Layer):
    """A user's layer whose parameters JAX draws."""

    units: int

    def output_shape(self, input_shape):
        return (self.units,)

    def init(self, key, input_shape, dtype=np.float32):
        import jax

        return jax.random.normal(key, (self.units, *input_shape), dtype)

    def forward(self, params, x, key=None):
        return x @ params.T, x

    def backward(self, params, x, dy):
        return dy @ params

    def gradient(self, params, x, dy):
        return dy.T @ x


def test_a_layer_whose_init_draws_by_jax_is_checked_all_the_same(needs_jax):
    params = needs_jax.numpy.ones((3, 4))
    assert OfJax(3).apply(params, np.ones((2, 4))).shape == (2, 3)
    with pytest.raises(SHAPES, match=r"params: expected shape \(3, 4\), got \(3, 5\)"):
        OfJax(3).apply(np.ones((3, 5)), np.ones((2, 4)))


@dataclass(frozen=True)
class Unknown(OfJax):
    """A layer whose init fails for reasons of its own."""

    def init(self, key, input_shape, dtype=np.float32):
        raise RuntimeError("no file")


def test_where_init_cannot_say_the_parameters_are_taken_as_they_are():
    assert gate.parameter_shapes(Unknown(3), (4,)) is None
    assert Unknown(3).apply(np.ones((3, 4)), np.ones((2, 4))).shape == (2, 3)


def test_the_shapes_of_parameters_take_no_memory():
    shapes = gate.parameter_shapes(fnn.Dense(10**4), (10**4,))
    assert shapes.w.shape == (10**4, 10**4)
    assert shapes.w.base.nbytes <= 8


# ---- data to train on ------------------------------------------------------------------------------------------------

BAD_SETS = {
    "not finite": ((np.full((6, 5), np.nan), np.ones((6, 2))), errors.DataError, r"x.*finite"),
    "a target that is not finite": ((np.ones((6, 5)), np.full((6, 2), np.inf)), errors.DataError, "finite"),
    "a negative weight": ((np.ones((6, 5)), np.ones((6, 2)), -np.ones(6)), errors.DataError, "weights"),
    "a weight that is not finite": (
        (np.ones((6, 5)), np.ones((6, 2)), np.full(6, np.nan)),
        errors.DataError,
        "weights",
    ),
    "four of them": ((1, 2, 3, 4), KINDS, r"data: expected \(x, y\) or \(x, y, weights\), got tuple of length 4"),
    "an array": (np.ones((6, 5)), KINDS, r"data: expected \(x, y\)"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_data_sets_that_make_no_sense_are_refused(name, backend):
    data, error, message = BAD_SETS[name]
    with pytest.raises(error, match=message):
        gate.dataset(NET, LOSS, good(backend)[0], data)


def test_weights_may_have_any_sign_where_it_is_asked_for(backend):
    data = np.ones((6, 5)), np.ones((6, 2)), np.arange(6.0) - 3
    np.testing.assert_array_equal(gate.dataset(NET, LOSS, good(backend)[0], data, weights="any").weights, data[2])


def test_a_target_that_overflows_the_dtype_of_a_run_is_refused(backend):
    params, x, y = good(backend)
    y[0, 0] = 1e39
    with pytest.raises(errors.DataError, match=r"y: expected finite numbers, got inf at y\[0, 0\]"):
        fnn.evaluate(NET, LOSS, params, (x, y))


def test_weights_whose_sum_overflows_are_refused_for_a_run(backend):
    params, x, y = good(backend)
    with pytest.raises(errors.DataError, match="weights: expected a sum that float32 can hold"):
        fnn.evaluate(NET, LOSS, params, (x, y, np.full(6, 1e38)))


def test_complex_numbers_are_refused_without_parameters_too():
    with pytest.raises(KINDS, match="x: expected real numbers, got dtype complex128"):
        fnn.grad(fnn.Identity(), LOSS)((), np.ones((1, 1), complex), np.ones((1, 1)))


@pytest.mark.parametrize("function", ["value_and_grad", "backprop", "per_example", "make_step", "evaluate"])
def test_a_label_out_of_range_is_refused_in_every_function(function, backend):
    params, x, _ = good(backend)
    loss = fnn.SoftmaxCrossEntropy()
    state = lambda: fnn.init_state(NET, fnn.Sgd(0.1), key(backend), (5,), params=params)
    run = {
        "value_and_grad": lambda y: fnn.value_and_grad(NET, loss)(params, x, y),
        "backprop": lambda y: fnn.backprop(NET, loss)(params, x, y),
        "per_example": lambda y: fnn.per_example.norms(NET, loss)(params, x, y),
        "make_step": lambda y: fnn.make_step(NET, loss)(state(), (x, y)),
        "evaluate": lambda y: fnn.evaluate(NET, loss, params, (x, y)),
    }[function]
    for wrong in (2, -1):
        for y in ([0, 1, 0, wrong, 1, 0], on(backend, np.array([0, 1, 0, wrong, 1, 0]))):
            with pytest.raises(errors.DataError, match=rf"y: expected labels from 0 to 1, got {wrong} at y\[3\]"):
                run(y)


def test_a_label_out_of_range_makes_a_traced_gradient_nan(needs_jax):
    params, x, _ = good("jax")
    run = oracle.quick_jit(fnn.value_and_grad(NET, fnn.SoftmaxCrossEntropy()))
    value, grads = run(params, x, np.array([0, 1, 0, 2, 1, 0]))
    assert np.isnan(value)
    assert all(np.isnan(g).any() for g in trees.leaves(grads))


def test_integer_targets_whose_values_are_not_known_keep_the_precision_of_the_parameters(needs_jax):
    loss, z, y = fnn.SigmoidBinaryCrossEntropy(label_smoothing=0.2), np.array([[0.3], [-2.0]]), np.array([[1], [0]])
    with needs_jax.enable_x64(True):
        found = float(needs_jax.jit(lambda z, y: fnn.value_and_grad(fnn.Identity(), loss)((), z, y)[0])(z, y))
    assert abs(found - loss.value(z, y).mean()) < 1e-14


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on the CPU", "as on an accelerator"])
def test_data_that_a_traced_run_closes_over_are_checked(needs_jax, monkeypatch, elsewhere):
    if elsewhere:  # whose arrays are not in the host's memory
        monkeypatch.setattr(checks, "nearest", lambda array: array)
    params, x, _ = good("jax")
    labels = lambda last: needs_jax.numpy.asarray(np.array([0, 1, 0, 1, 1, last]))
    state = fnn.init_state(NET, fnn.Sgd(0.1), key("jax"), (5,), params=params)

    def run(x, y):
        train = lambda state: fnn.train(NET, fnn.SoftmaxCrossEntropy(), state, (x, y, w), epochs=1, batch_size=6)
        return needs_jax.eval_shape(train, state)

    x, w = needs_jax.numpy.asarray(x, np.float32), needs_jax.numpy.ones(6)
    run(x, labels(1))
    with pytest.raises(errors.DataError, match=r"y: expected labels from 0 to 1, got 2 at y\[5\]"):
        run(x, labels(2))
    with pytest.raises(errors.DataError, match=r"x: expected finite numbers, got nan at x\[1, 2\]"):
        run(x.at[1, 2].set(np.nan), labels(1))

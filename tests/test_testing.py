"""The gradient checker passes what is right, and what is wrong it refuses, naming leaf, index, values and ratio."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
from helpers import GATED, THOROUGH, Mean, moved, problem
from helpers import Gain as UsersGain

import fnn
from fnn import errors
from fnn.backend import jax
from fnn.comparison import METHODS
from fnn.testing import check_gradients, check_layer, check_loss, taylor_slope

HERE = [method for method in METHODS if method != "jax" or jax is not None]
ON = None if THOROUGH else "numpy"  # where the layer runs: on JAX each of its operations is a program, which takes long


class Gain(NamedTuple):
    gain: np.ndarray


@dataclass(frozen=True)
class Cubic(fnn.Layer):
    """y = g x³        dx = 3 g x² δ        dg = Σ δ x³, with a fault to choose."""

    fault: str = ""

    def init(self, key, input_shape, dtype=np.float32):
        return Gain(fnn.Ones()(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        y = params.gain * x**3
        if self.fault == "examples coupled":
            y = y + x.mean(axis=0)
        if self.fault == "examples coupled weakly":
            y = y + 1e-6 * x.mean(axis=0)
        return (y[:, :1] if self.fault == "shape" else y), x

    def backward(self, params, x, dy):
        factor = {"3.003 for 3": 3.003, "3.00001 for 3": 3.00001}.get(self.fault, 3)
        return (-1 if self.fault == "sign" else 1) * factor * params.gain * x**2 * dy

    def gradient(self, params, x, dy):
        g = (dy * x**3).sum(axis=0)
        if self.fault == "one entry":
            g = g * (1 + 1e-4 * (np.arange(len(g)) == 2))
        if self.fault == "1/N":
            g = g / len(x)
        if self.fault == "structure":
            return (g,)
        return Gain(g)

    def factors(self, params, x, dy):
        return Gain(dy * x**2) if self.fault == "factors" else Gain(dy * x**3)

    def tangent(self, params, x, dparams, dx):
        factor = 3.003 if self.fault == "tangent" else 3
        return factor * params.gain * x**2 * dx + (0 if self.fault == "tangent of g" else dparams.gain * x**3)

    def propagate(self, params, residuals, dy, need_dx=True):
        dx, deltas = super().propagate(params, residuals, dy, need_dx)
        return (self.backward(params, residuals, dy) if self.fault == "need_dx" else dx), deltas


@pytest.mark.parametrize("method", HERE)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_right_layer_passes(method, dtype):
    if method == "jax" and dtype == np.float32 and not THOROUGH:
        pytest.skip("as much compilation again")
    check_layer(Cubic(), (3,), method=method, dtype=dtype)
    check_layer(fnn.Serial((fnn.Dense(3), Cubic(), fnn.Dense(3))), (3,), method=method, dtype=dtype)


FAULTS = [
    "3.003 for 3",
    "3.00001 for 3",
    "sign",
    "one entry",
    "1/N",
    "factors",
    "need_dx",
    "tangent",
    "tangent of g",
    "examples coupled",
]
FAULTS += ["examples coupled weakly"]


@pytest.mark.parametrize("method", HERE)
@pytest.mark.parametrize("fault", [*FAULTS, "shape"])
def test_a_wrong_layer_is_refused_by_every_method(fault, method):
    with pytest.raises(AssertionError):
        check_layer(Cubic(fault), (3,), method=method)


@dataclass(frozen=True)
class Neighbours(fnn.layers.activations.Activation):
    """yₙ = xₙ + xₙ₋₁, perhaps in training only, with a right backward pass: it is the contract that is broken."""

    draws: ClassVar[bool] = True
    in_training: bool = False

    def forward(self, params, x, key=None):
        couples = key is not None or not self.in_training
        return x + couples * np.concatenate([0 * x[:1], x[:-1]]), np.full(len(x), couples)

    def backward(self, params, couples, dy):
        return dy + couples[:, None] * np.concatenate([dy[1:], 0 * dy[:1]])


@dataclass(frozen=True)
class Gated(fnn.Dense):
    """y = b (x Wᵀ): its b is no bias."""

    def forward(self, params, x, key=None):
        return params.b * (x @ params.w.T), x

    def backward(self, params, x, dy):
        return (dy * params.b) @ params.w

    def factors(self, params, x, dy):
        return fnn.DenseParams(fnn.factors.Outer(dy * params.b, x), dy * (x @ params.w.T))


def test_a_parameter_named_as_a_bias_that_is_none_is_refused():
    with pytest.raises(AssertionError, match=r"b, beside w, is not its bias.*give b another name"):
        check_layer(Gated(2), (3,), method="complex")


def test_examples_that_depend_on_one_another_are_refused_though_the_derivative_is_right():
    with pytest.raises(AssertionError, match="output of example 1 depends on the others"):
        check_layer(Neighbours(), (3,), method="complex")
    with pytest.raises(AssertionError, match="output of example 1 depends on the others"):
        check_layer(Neighbours(in_training=True), (3,), method="complex")


@pytest.mark.parametrize("method", HERE)
def test_a_wrong_gradient_of_a_leaf_that_hardly_counts_is_found(method):
    layer = fnn.Serial((Tiny(), fnn.Tanh()))
    check_layer(layer, (3,), method=method, on=ON, tolerance=1e-3)  # of numbers so small differences know little
    with pytest.raises(AssertionError, match=r"leaf +params\[0\]\.gain"):
        check_layer(fnn.Serial((Tiny(7.0), fnn.Tanh())), (3,), method=method, on=ON, tolerance=1e-3)


@dataclass(frozen=True)
class Tiny(fnn.Layer):
    """y = x + 10⁻⁶ g."""

    fault: float = 1.0

    def init(self, key, input_shape, dtype=np.float32):
        return Gain(fnn.Ones()(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        return x + 1e-6 * params.gain, x

    def backward(self, params, x, dy):
        return dy

    def gradient(self, params, x, dy):
        return Gain(self.fault * 1e-6 * dy.sum(axis=0))

    def factors(self, params, x, dy):
        return Gain(self.fault * 1e-6 * dy)


def test_a_gradient_of_another_structure_is_refused():
    with pytest.raises(AssertionError, match="gradient of params: expected the structure"):
        check_layer(Cubic("structure"), (3,))


@pytest.mark.parametrize("method", HERE)
def test_a_failure_names_leaf_index_both_values_and_ratio(method):
    with pytest.raises(AssertionError) as failure:
        check_layer(Cubic("one entry"), (3,), method=method)
    lines = {line[:15].strip(): line[16:] for line in str(failure.value).splitlines()[1:]}
    assert lines["leaf"] == "params.gain, shape (3,)"
    assert lines["index"].startswith("params.gain[2] = ")
    reference = float(next(value for name, value in lines.items() if name in ("jax.vjp", "complex step", "difference")))
    assert abs(float(lines["by hand"]) / reference - 1.0001) < 1e-6
    assert 1e-6 < float(lines["ratio"].split(":")[0]) <= 1.01e-4
    assert "a kink" not in lines


@dataclass(frozen=True)
class OtherSide(fnn.layers.activations.Activation):
    """A ReLU that takes the other side at its kink."""

    def forward(self, params, z, key=None):
        return np.where(z > 0, z, 0), z

    def backward(self, params, z, da):
        return np.where(z >= 0, da, 0)


def test_a_failure_at_a_kink_says_so():
    x = np.array([[0.0, 1.0], [-1.0, 2.0]])
    with pytest.raises(AssertionError, match=r"x\[0, 0\] = 0\n(.*\n)*.*a kink +the slope is 0 from below and"):
        check_layer(OtherSide(), x, method="difference")


@pytest.mark.parametrize("method", ["complex", "difference"])
def test_a_wrong_derivative_only_far_out_is_found_where_it_is(method):
    with pytest.raises(AssertionError, match=r"index +x\[1, 1\] = 7"):
        check_layer(Overshoot(), np.array([[0.5, 5.0], [1.0, 7.0]]), method=method)


@dataclass(frozen=True)
class Overshoot(fnn.layers.activations.Activation):
    """min(z, 6), and an error that passes beyond 6."""

    def forward(self, params, z, key=None):
        return np.where(z < 6, z, 6), z

    def backward(self, params, z, da):
        return da


@dataclass(frozen=True)
class Root(fnn.layers.activations.Activation):
    factor: float = 1.0

    def forward(self, params, z, key=None):
        return (np if isinstance(z, np.ndarray) else fnn.backend.jnp).sqrt(z), z

    def backward(self, params, z, da):
        return self.factor * da * 0.5 * z**-0.5


def test_where_one_derivative_is_infinite_the_others_are_compared_all_the_same(needs_jax):
    x = np.array([[0.0, 1.0], [2.0, 3.0]])
    with pytest.raises(AssertionError, match=r"x\[\d, \d\]"), np.errstate(divide="ignore"):
        check_layer(Root(1.5), x)


def test_a_step_of_the_differences_may_leave_the_domain():
    check_layer(Root(), np.full((3, 2), 5e-4), method="difference", tolerance=1e-5)
    with pytest.raises(AssertionError, match="ratio"):
        check_layer(Root(1.001), np.full((3, 2), 5e-4), method="difference", tolerance=1e-5)


@pytest.mark.parametrize("method", HERE)
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_badly_scaled_values_change_nothing(method, scale):
    x = scale * np.random.default_rng(0).normal(size=(5, 3))
    tolerance = {"difference": 1e-4, "taylor": 1e-4}.get(method)  # their steps do not shrink with the values
    if method in ("jax", "complex") or scale >= 1e3:
        check_layer(Cubic(), x, method=method, tolerance=tolerance)
    with pytest.raises(AssertionError, match="ratio"):
        check_layer(Cubic("3.003 for 3"), x, method=method, tolerance=tolerance)


@dataclass(frozen=True)
class Far(fnn.layers.activations.Activation):
    def forward(self, params, z, key=None):
        return z + 1e8, ()

    def backward(self, params, residuals, da):
        return da


@pytest.mark.parametrize("method", HERE)
def test_a_large_constant_is_no_false_alarm(method):
    check_layer(Far(), (3,), method=method, tolerance=1e-5)


def test_gradients_of_examples_that_are_too_many_are_refused():
    with pytest.raises(AssertionError, match="gradient differs from the total of factors in it"):
        check_layer(Twice(3), (4,), method="complex")


@dataclass(frozen=True)
class Twice(fnn.Dense):
    gradient = fnn.Dense.gradient

    def factors(self, params, x, dy):
        twice = lambda g: fnn.backend.namespace(g).concatenate([g, g])
        return fnn.trees.map(twice, super().factors(params, x, dy))


def test_noise_is_part_of_a_check_in_training():
    for layer in (fnn.Dropout(0.5), fnn.RRelu(), fnn.Residual(fnn.Serial((fnn.Dense(4), fnn.Dropout(0.5))))):
        check_layer(layer, (4,), method="complex")
        check_layer(layer, (4,), key=fnn.random.key(3, backend="numpy"), method="complex")


@dataclass(frozen=True)
class Doubled(fnn.Quadratic):
    fault: str = ""

    def value(self, a, y):
        return super().value(a, y).mean() + 0 * a[:, 0] if self.fault == "mean" else super().value(a, y)

    def delta(self, a, y):
        return (2 if self.fault == "2" else 1) * super().delta(a, y)

    def value_and_delta(self, a, y):
        value, delta = super().value_and_delta(a, y)
        return (value + 1 if self.fault == "value" else value), delta


@pytest.mark.parametrize("method", HERE)
def test_a_right_cost_passes_and_wrong_ones_do_not(method):
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    check_loss(Doubled(), a, y, method=method, on=ON)
    for fault in ("2", "mean", "value"):
        with pytest.raises(AssertionError, match="Doubled"):
            check_loss(Doubled(fault=fault), a, y, method=method, on=ON)
    with pytest.raises(errors.ShapeError, match="targets of the prediction's shape"):
        check_loss(Doubled(), a, y[:, :1], method=method)


CUBIC = fnn.Serial((fnn.Dense(5), fnn.Tanh(), fnn.Residual(Cubic()), fnn.Dense(3)))


@pytest.mark.parametrize("method", HERE)
def test_gradients_of_a_network_pass_and_wrong_ones_do_not(method):
    net, loss, params, x, y, weights = problem(CUBIC, fnn.SoftmaxCrossEntropy(), (4,))
    penalty = fnn.L2(0.1)
    options = {"penalty": penalty, "method": method, "on": ON}
    check_gradients(net, loss, params, x, y, weights, **options)
    wrong = fnn.Serial((*net.layers[:2], fnn.Residual(Cubic("3.003 for 3")), net.layers[3]))
    with pytest.raises(AssertionError, match=r"(?s)leaf +params\[0\]\.[wb].*ratio"):
        check_gradients(wrong, loss, params, x, y, weights, **options)


class WrongPenalty(NamedTuple):
    coefficient: float

    def value(self, params):
        return self.coefficient * sum((w * w).sum() for w in fnn.trees.leaves(params))

    def gradient(self, params):
        return fnn.trees.map(lambda w: self.coefficient * w, params)


def test_a_wrong_penalty_is_found():
    net, loss, params, x, y, _ = problem(CUBIC, fnn.SoftmaxCrossEntropy(), (4,))
    with pytest.raises(AssertionError, match="ratio"):
        check_gradients(net, loss, params, x, y, penalty=WrongPenalty(0.1), method="complex")


def test_images_of_integers_need_no_dx():
    net = fnn.Serial((fnn.Scale(1 / 16), fnn.Dense(3)))
    x = np.random.default_rng(0).integers(0, 17, (5, 4)).astype(np.uint8)
    check_gradients(net, fnn.SoftmaxCrossEntropy(), moved(net, (4,)), x, np.array([0, 1, 2, 0, 1]), method="complex")


def test_what_is_frozen_must_have_no_gradient():
    net = fnn.Serial((fnn.Frozen(fnn.Dense(3)), fnn.Tanh(), fnn.Dense(2)))
    params = moved(net, (4,))
    check_gradients(net, fnn.Quadratic(), params, np.ones((2, 4)), np.zeros((2, 2)), method="complex")
    check_layer(net, (4,), method="complex")


@dataclass(frozen=True)
class OneWrong(fnn.Dense):
    """A Dense layer with one wrong entry among the 2,000 of its gradient."""

    def gradient(self, params, x, dy):
        grads = super().gradient(params, x, dy)
        wrong = np.zeros(grads.w.shape)
        wrong[30, 40] = 1e-6
        return grads._replace(w=grads.w * (1 + wrong))

    def factors(self, params, x, dy):
        made = fnn.factors.made(params, super().factors(params, x, dy))
        wrong = np.zeros(made.w.shape[1:])
        wrong[30, 40] = 1e-6
        return made._replace(w=made.w * (1 + wrong))


def test_of_a_large_leaf_jax_compares_every_entry_and_the_others_256(needs_jax):
    with pytest.raises(AssertionError, match=r"params\.w\[30, 40\]"):
        check_layer(OneWrong(40), (50,), method="jax", on=ON)
    calls.clear()
    check_layer(CountingDense(40), (50,), method="complex")
    assert len(calls) == 1 + 5 + 2 * (1 + 256 + 40 + 250), "the output, 5 examples, and entries of W, b and x"


calls: list[int] = []


@dataclass(frozen=True)
class CountingDense(fnn.Dense):
    factors, gradient = fnn.Dense.factors, fnn.Dense.gradient

    def forward(self, params, x, key=None):
        calls.append(len(x))
        return super().forward(params, x, key)


@dataclass(frozen=True)
class ForgetsItsMask(fnn.Dropout):
    def backward(self, params, keep, dy):
        return dy


def test_wrong_noise_and_a_frozen_layer_that_learns_are_refused():
    with pytest.raises(AssertionError, match="ratio"):
        check_layer(ForgetsItsMask(0.5), (4,), method="complex")
    with pytest.raises(AssertionError, match=r"leaf +params\.params\.w"):
        check_layer(NotFrozen(fnn.Dense(3)), (4,), method="complex")


@dataclass(frozen=True)
class NotFrozen(fnn.Frozen):
    def gradient(self, params, residuals, deltas):
        return fnn.trees.Fixed(self.layer.gradient(params.params, residuals.params, deltas.params))


@dataclass(frozen=True)
class WrongRoot(fnn.RootMeanSquaredError):
    def outer(self, mean):
        root, slope = super().outer(mean)
        return root, 3 * slope


def test_the_outer_function_of_a_cost_is_checked_too():
    a, y = np.array([[1.0], [2.0]]), np.zeros((2, 1))
    check_loss(fnn.RootMeanSquaredError(), a, y, method="complex")
    with pytest.raises(AssertionError, match="mean of the values"):
        check_loss(WrongRoot(), a, y, method="complex")


SMOOTH = ["Tanh", "Sigmoid", "Softplus", "Gelu", "Swish", "Mish", "ArcTan", "BipolarSigmoid", "Squareplus", "Softmax"]


@pytest.mark.parametrize("seed", range(20))
def test_taylors_remainder_falls_fourfold_for_smooth_networks(seed):
    rng = np.random.default_rng(seed)
    unit = getattr(fnn, SMOOTH[seed % len(SMOOTH)])()
    net = fnn.Serial((fnn.Dense(int(rng.integers(2, 9))), unit, fnn.LayerNorm(), fnn.Dense(4), unit, fnn.Dense(3)))
    params = net.init(fnn.random.key(seed, backend="numpy"), (5,), np.float64)
    x, y = rng.normal(size=(7, 5)), rng.integers(0, 3, 7)
    run = fnn.value_and_grad(net, fnn.SoftmaxCrossEntropy())
    direction = fnn.trees.map(lambda p: rng.normal(size=p.shape), params)
    grads = run(params, x, y)[1]
    derivative = sum((g * d).sum() for g, d in zip(*map(fnn.trees.leaves, (grads, direction)), strict=True))

    def along(e):
        return run(fnn.trees.map(lambda p, d: p + e * d, params, direction), x, y)[0]

    assert abs(taylor_slope(along, derivative, start=1e-3, halvings=6) - 2) <= 0.05
    assert taylor_slope(along, 1.1 * derivative, start=1e-3, halvings=6) < 1.9


def test_a_straight_line_has_no_remainder():
    assert taylor_slope(lambda e: 3 + 2 * e, 2.0) == np.inf


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(errors.ArgumentError, match="'jax', 'complex'"):
        check_layer(fnn.Tanh(), (3,), method="magic")
    with pytest.raises(errors.ArgumentError, match="'jax' or 'numpy'"):
        check_layer(fnn.Tanh(), (3,), on="gpu")
    with pytest.raises(errors.KindError, match="float64 or float32"):
        check_layer(fnn.Tanh(), (3,), dtype=np.float16)
    for tolerance, error in ((float("nan"), errors.ArgumentError), ("small", errors.KindError)):
        with pytest.raises(error, match="tolerance"):
            check_layer(fnn.Tanh(), (3,), tolerance=tolerance)
    for x in ((-3,), (2.5,)):
        with pytest.raises((errors.ArgumentError, errors.KindError), match=r"x\[0\]"):
            check_layer(fnn.Tanh(), x)
    for x in (3.0, np.zeros((0, 3))):
        with pytest.raises(errors.ShapeError, match="x: expected"):
            check_layer(fnn.Tanh(), x)
    with pytest.raises(errors.KindError, match="layer or network"):
        check_layer(np.tanh, (3,))
    with pytest.raises(errors.KindError, match=r"write fnn.Tanh\(\)"):
        check_layer(fnn.Tanh, (3,))


def test_a_layer_that_drops_the_imaginary_part_is_told_to_use_another_method():
    with pytest.raises(AssertionError, match="use another method"):
        check_layer(Real(), (3,), method="complex")
    check_layer(Real(), (3,), method="difference")


@dataclass(frozen=True)
class Real(fnn.layers.activations.Activation):
    def forward(self, params, z, key=None):
        return np.real(z) ** 2, np.real(z)

    def backward(self, params, z, da):
        return 2 * z * da


class Table(NamedTuple):
    rows: np.ndarray


@dataclass(frozen=True)
class Embedding(fnn.Layer):
    """y = rows[x] for integers x, which have no derivative."""

    def output_shape(self, input_shape):
        return (3,)

    def init(self, key, input_shape, dtype=np.float32):
        return Table(fnn.Normal(1.0)(key, (4, 3), dtype))

    def forward(self, params, x, key=None):
        return params.rows[x[:, 0]], x

    def gradient(self, params, x, dy):
        return Table((x == np.arange(4)).astype(dy.dtype).T @ dy)


@pytest.mark.parametrize("method", HERE)
def test_a_layer_on_integers_needs_no_backward(method):
    check_layer(Embedding(), np.array([[0], [2], [2], [3]]), method=method, on=ON)


def test_a_network_with_users_layers_is_checked_on_numpy_too():
    """Whose inherited tangents need JAX: there they are left out."""
    check_layer(fnn.Serial((GATED, UsersGain(), fnn.Dense(2))), (4,), method="complex", on="numpy")


# ---- images, symbols, sequences --------------------------------------------------------------------------------------

TOKENS, RNG = np.array([[0, 2, 2, 3], [1, 1, 0, 3], [3, 2, 1, 0]]), np.random.default_rng(0)


class Sequences(NamedTuple):
    x: np.ndarray
    length: np.ndarray


LENGTHS = np.array([4, 1, 2])
INPUTS = {  # layers, and inputs that are integers or several
    "symbols": (fnn.Serial((fnn.Embedding(4, 3), fnn.Rnn(2))), TOKENS),
    "the same symbols twice": (fnn.Parallel((fnn.Embedding(4, 2), fnn.Embedding(4, 1))), TOKENS),
    "sequences of unequal length": (
        fnn.Last(fnn.Gru(2, all_states=True)), {"x": RNG.normal(size=(3, 4, 2)), "length": LENGTHS},
    ),
    "the same as a NamedTuple": (
        fnn.Last(fnn.Rnn(2, all_states=True)), Sequences(RNG.normal(size=(3, 4, 2)), LENGTHS),
    ),
    "symbols of unequal length": (
        fnn.Last(fnn.Serial((fnn.Embedding(4, 3), fnn.Rnn(2, all_states=True)))), {"x": TOKENS, "length": LENGTHS},
    ),
    "symbols beside numbers": (
        fnn.Parallel((fnn.Serial((fnn.Embedding(4, 2), Mean())), fnn.Dense(2)), inputs=("a", "b")),
        {"a": TOKENS, "b": RNG.normal(size=(3, 2)), "unused": RNG.normal(size=(3, 2))},
    ),
    "shapes by name": (fnn.Parallel((fnn.Dense(2), fnn.Tanh()), inputs=("a", "b")), {"a": (3,), "b": (2,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_may_be_integers_or_several(name):
    layer, x = INPUTS[name]
    check_layer(layer, x, method="complex", on="numpy")


def test_gradients_of_several_inputs_are_checked():
    net, x = INPUTS["sequences of unequal length"]
    check = lambda net: check_gradients(
        net, fnn.Quadratic(), moved(net, fnn.examples.shape_of(x)), x, RNG.normal(size=(3, 2)), method="complex"
    )
    check(net)
    with pytest.raises(AssertionError, match=r"(?s)leaf +params\.[wu], .*by hand.*ratio"):
        check(WrongLast(net.layer, fault="off by one"))


@dataclass(frozen=True)
class WrongLast(fnn.Last):
    fault: str = ""

    def propagate(self, params, residuals, dy, need_dx=True):
        if self.fault == "off by one":
            residuals = residuals._replace(own=(residuals.own[0], np.roll(residuals.own[1], 1, 1), residuals.own[2]))
        dx, deltas = super().propagate(params, residuals, dy, need_dx)
        return ({"x": dx["x"]} if self.fault == "a name" and need_dx else dx), deltas

    def tangent(self, params, residuals, dparams, dx):
        return super().tangent(params, residuals, dparams, dx)


class Cell(NamedTuple):
    w: np.ndarray
    u: np.ndarray
    b: np.ndarray


@dataclass(frozen=True)
class Minimal(fnn.layers.Recurrent):
    """A recurrent layer as a user writes it, the minimal gated unit, with a fault to choose.

    f = σ(z^f)   n = tanh(z^n)   h_t = f ⊙ h_{t−1} + (1 − f) ⊙ n
    δ^f = f (1 − f) (h_{t−1} − n) dh_t   δ^n = (1 − n²) (1 − f) dh_t        dh_{t−1} = f dh_t + Uᵀ δ
    """

    fault: str = ""
    gates: ClassVar = {"f": (0.0, 1.0), "n": (-1.0, 1.0)}

    def ahead(self, params, state, s):
        f, n = self._split(s + state[0] @ params.u.T)
        f, n = 1 / (1 + np.exp(-f)), np.tanh(n)
        h = n + f * (state[0] - n)
        return (h,), (h, np.concatenate([f, n], axis=-1))

    def slopes(self, kept):
        f, n = self._split(kept[1])
        earlier = kept[0] if self.fault == "h_t for h_{t-1}" else fnn.layers.recurrence.before(kept[0])
        return np.concatenate([f * (1 - f) * (earlier - n), (1 - n * n) * (1 - f)], axis=-1), f

    def back(self, u, slopes, dstate):
        of_z, f = slopes
        delta = of_z * np.concatenate([dstate[0], dstate[0]], axis=-1)
        through = 0 if self.fault == "what passes the gate" else f * dstate[0]
        return delta, (through + (0 if self.fault == "what passes U" else delta @ u),)

    def along(self, slopes, dstate, ds, dv):
        of_z, f = slopes
        df, dn = self._split(of_z * (ds + (0 if self.fault == "tangent through U" else dv)))
        return (f * dstate[0] + df + dn,)

    def factors(self, params, residuals, delta):
        f = super().factors(params, residuals, delta)
        return f._replace(b=2 * f.b) if self.fault == "factor of b" else f

    gradient = fnn.layers.Recurrent.gradient


CELLS = {
    "h_t for h_{t-1}": r"leaf +params\.",
    "what passes the gate": r"leaf +params\.",
    "what passes U": r"leaf +params\.",
    "tangent through U": r"tangent is not the transpose of backward and gradient, along params\.w",
    "factor of b": r"gradient differs from the total of factors in it\.b",
}


@pytest.mark.parametrize("all_states", [True, False])
def test_a_recurrent_cell_of_ones_own_is_checked(all_states):
    check_layer(Minimal(2, all_states), (4, 3), method="complex", on="numpy")
    check_layer(Minimal(2, all_states), (1, 3), method="complex", on="numpy")


@pytest.mark.parametrize("fault", CELLS)
def test_what_is_wrong_with_a_recurrent_cell_is_named(fault):
    with pytest.raises(AssertionError, match=CELLS[fault]):
        check_layer(Minimal(2, fault=fault), (4, 3), method="complex", on="numpy")


LASTS = {
    "off by one": r"leaf +params\.",
    "a name": r"dx of .*x\['x'\].*, not in the form of x",
}


@pytest.mark.parametrize("fault", LASTS)
def test_what_is_wrong_with_sequences_of_unequal_length_is_named(fault):
    _, x = INPUTS["sequences of unequal length"]
    with pytest.raises(AssertionError, match=LASTS[fault]):
        check_layer(WrongLast(fnn.Rnn(2, all_states=True), fault=fault), x, method="complex", on="numpy")


@dataclass(frozen=True)
class Strongest(fnn.Layer):
    """Pooling as a user writes it: √(a² + b²) of each pair of positions, (N, 2P, C) -> (N, P, C)."""

    fault: str = ""

    def output_shape(self, input_shape):
        return (input_shape[0] // 2, *input_shape[1:])

    def forward(self, params, x, key=None):
        pairs = x.reshape(len(x), -1, 2, x.shape[-1])
        y = ((pairs * pairs).sum(axis=2)) ** 0.5
        return (y[:, ::-1] if self.fault == "order" else y), (pairs, y)

    def backward(self, params, residuals, dy):
        pairs, y = residuals
        dx = pairs * (dy if self.fault == "norm" else dy / y)[:, :, None]
        return dx if self.fault == "shape" else dx.reshape(len(dx), -1, dx.shape[-1])


POOLS = {
    "order": r"(?s)leaf +x, shape \(5, 4, 3\).*index +x\[",
    "norm": r"(?s)leaf +x, shape.*by hand.*ratio",
    "shape": r"dx of shape \(5, 2, 2, 3\) for x, \(5, 4, 3\)",
}


def test_a_pooling_layer_of_ones_own_is_checked_and_what_is_wrong_is_named():
    check_layer(Strongest(), (4, 3), method="complex", on="numpy")
    for fault, message in POOLS.items():
        with pytest.raises(AssertionError, match=message):
            check_layer(Strongest(fault), (4, 3), method="complex", on="numpy")


def test_inputs_of_unequal_numbers_are_refused():
    with pytest.raises(errors.ShapeError, match=r"x: expected .*got x\['length'\] of shape \(2,\), x\['x'\] of shape"):
        check_layer(fnn.Last(fnn.Rnn(2, all_states=True)), {"x": np.ones((3, 4, 2)), "length": np.array([1, 2])})

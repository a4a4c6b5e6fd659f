"""The scalar differentiator gives textbook derivatives, and an independent second opinion on fnn's own gradients."""

import ast
import inspect
import math
from typing import NamedTuple

import numpy as np
import oracle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fnn
from fnn import autodiff as ad

ANY = (-3.0, 3.0)
ABOVE = (0.1, 3.0)  # away from 0, where the function or its derivative ends

# By name: the function, its derivative from a textbook, and where x is drawn from.
ONE = {
    "exp": (ad.exp, math.exp, ANY),
    "log": (ad.log, lambda x: 1 / x, ABOVE),
    "sqrt": (ad.sqrt, lambda x: 0.5 * x**-0.5, ABOVE),
    "sin": (ad.sin, math.cos, ANY),
    "cos": (ad.cos, lambda x: -math.sin(x), ANY),
    "tan": (ad.tan, lambda x: 1 / math.cos(x) ** 2, (-1.4, 1.4)),
    "tanh": (ad.tanh, lambda x: 1 / math.cosh(x) ** 2, ANY),
    "sigmoid": (ad.sigmoid, lambda x: 1 / (2 + math.exp(x) + math.exp(-x)), ANY),
    "relu": (ad.relu, lambda x: 1.0, ABOVE),
    "relu, off": (ad.relu, lambda x: 0.0, (-3.0, -0.1)),
    "erf": (ad.erf, lambda x: 2 / math.sqrt(math.pi) * math.exp(-(x**2)), ANY),
    "abs": (abs, lambda x: 1.0, ABOVE),
    "abs, below 0": (abs, lambda x: -1.0, (-3.0, -0.1)),
    "-x": (lambda x: -x, lambda x: -1.0, ANY),
    "x + 2": (lambda x: x + 2, lambda x: 1.0, ANY),
    "2 + x": (lambda x: 2 + x, lambda x: 1.0, ANY),
    "x - 2": (lambda x: x - 2, lambda x: 1.0, ANY),
    "2 - x": (lambda x: 2 - x, lambda x: -1.0, ANY),
    "3 * x": (lambda x: 3 * x, lambda x: 3.0, ANY),
    "x * 3": (lambda x: x * 3, lambda x: 3.0, ANY),
    "x / 4": (lambda x: x / 4, lambda x: 0.25, ANY),
    "4 / x": (lambda x: 4 / x, lambda x: -4 / x**2, ABOVE),
    "x ** 3": (lambda x: x**3, lambda x: 3 * x**2, ANY),
    "x ** -1.5": (lambda x: x**-1.5, lambda x: -1.5 * x**-2.5, ABOVE),
    "2 ** x": (lambda x: 2**x, lambda x: 2**x * math.log(2), ANY),
    "x ** x": (lambda x: x**x, lambda x: x**x * (math.log(x) + 1), ABOVE),
    "sin² x": (lambda x: ad.sin(x) ** 2, lambda x: 2 * math.sin(x) * math.cos(x), ANY),
    "(5x + 3)⁴": (lambda x: (5 * x + 3) ** 4, lambda x: 20 * (5 * x + 3) ** 3, ANY),
    "x used three times": (lambda x: x * x * x, lambda x: 3 * x**2, ANY),
}

# By name: a function of two, and its two derivatives, for numbers above 0.
TWO = {
    "a + b": (lambda a, b: a + b, lambda a, b: (1, 1)),
    "a - b": (lambda a, b: a - b, lambda a, b: (1, -1)),
    "a * b": (lambda a, b: a * b, lambda a, b: (b, a)),
    "a / b": (lambda a, b: a / b, lambda a, b: (1 / b, -a / b**2)),
    "a ** b": (lambda a, b: a**b, lambda a, b: (b * a ** (b - 1), a**b * math.log(a))),
    "maximum": (ad.maximum, lambda a, b: (float(a > b), float(b > a)) if a != b else (0.5, 0.5)),
    "a² + b³": (lambda a, b: a**2 + b**3, lambda a, b: (2 * a, 3 * b**2)),
}


@pytest.mark.parametrize("name", ONE)
@given(share=st.floats(0, 1))
@pytest.mark.numpy_alone
def test_derivative_is_the_textbooks_and_near_the_difference_quotient(name, share):
    f, derivative, (low, high) = ONE[name]
    x = low + share * (high - low)
    value, slope = ad.value_and_grad(f)(x)
    assert value == f(x)  # the same function serves plain numbers
    assert math.isclose(slope, derivative(x), rel_tol=1e-13, abs_tol=1e-14)
    # h² f'''/6 + ε |f| / h, with room for the f''' and f of the table
    assert math.isclose(slope, ad.difference_quotient(f, x), rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("name", TWO)
@given(a=st.floats(*ABOVE), b=st.floats(*ABOVE))
@example(a=1.5, b=1.5)
def test_both_derivatives_of_an_operator_are_the_textbooks(name, a, b):
    f, derivatives = TWO[name]
    found = ad.grad(f)(a, b)
    assert found == pytest.approx(derivatives(a, b), rel=1e-13, abs=1e-14)
    if abs(a - b) > 1e-3:  # maximum has a kink
        quotients = ad.difference_quotient(lambda a: f(a, b), a), ad.difference_quotient(lambda b: f(a, b), b)
        assert found == pytest.approx(quotients, rel=1e-6, abs=1e-6)


def test_derivative_at_a_kink_is_the_documented_one():
    assert ad.grad(ad.relu)(0.0) == ad.grad(abs)(0.0) == 0
    assert ad.grad(ad.maximum)(2.0, 2.0) == (0.5, 0.5)
    assert ad.grad(ad.sqrt)(0.0) == ad.grad(lambda x: x**0.5)(0.0) == math.inf
    assert [ad.grad(lambda x, n=n: x**n)(0.0) for n in (0, 1, 2)] == [0, 1, 0]
    assert ad.grad(lambda b: 0.0**b)(2.0) == 0


def test_not_a_number_stays_visible():
    nan = float("nan")
    assert all(
        math.isnan(f(nan)) for f in (ad.relu, ad.sigmoid, lambda x: ad.maximum(x, 1), lambda x: ad.maximum(1, x))
    )


def test_sigmoid_and_tanh_never_overflow():
    assert ad.value_and_grad(ad.sigmoid)(-1e4) == (0, 0)
    assert ad.value_and_grad(ad.sigmoid)(1e4) == (1, 0)
    assert ad.grad(ad.sigmoid)(40.0) == pytest.approx(math.exp(-40), rel=1e-12, abs=0)  # a (1 − a) would be 0
    assert ad.value_and_grad(ad.tanh)(-1e4) == (-1, 0)


def test_uses_of_a_shared_value_are_summed():
    assert ad.grad(lambda x: x + x)(3.0) == 2

    def f(x):
        for _ in range(60):  # 2⁶⁰ paths through 60 nodes: each is visited once, or this would never end
            x = x + x
        return x

    assert ad.grad(f)(1.0) == 2.0**60


def test_an_operand_is_complete_before_it_is_passed_on():
    def f(x):
        u = x * x
        return u * (ad.sin(u) + u)  # u is reached by a short way and by a long one

    x, u = 1.5, 2.25
    assert ad.grad(f)(x) == pytest.approx((math.sin(u) + u * math.cos(u) + 2 * u) * 2 * x, rel=1e-14)


def test_a_graph_of_10_000_nodes_is_no_recursion():
    def f(x):
        y = x
        for _ in range(10_000):
            y = y + 1e-4
        return y

    value, slope = ad.value_and_grad(f)(1.0)
    assert value == pytest.approx(2)
    assert slope == 1


def test_gradient_of_a_value_between_is_its_error():
    w, x = ad.Value(0.3), ad.Value(2.0)
    z = w * x
    assert ad.gradients(ad.sigmoid(z), z) == ad.grad(ad.sigmoid)(0.6)
    assert ad.gradients(z, ([w], (x,))) == ([2.0], (0.3,))


class Pair(NamedTuple):
    w: list
    b: float


def test_grads_are_nested_as_the_arguments_are():
    def f(p, x):
        return p.w[0][0] * x[0] + p.w[1][0] * x[1] + p.b

    assert ad.grad(f)(Pair([[1.0], [2.0]], 3), (4.0, 5)) == (Pair([[4.0], [5.0]], 1.0), (1.0, 2.0))
    assert ad.grad(lambda x: 7)([1.0, (2.0, [])]) == [0.0, (0.0, [])]
    assert ad.grad(lambda n: n if type(n.value) is float else 0)(3) == 1  # f sees floats
    assert type(ad.value_and_grad(lambda n: 7)(3)[0]) is float


def test_calls_change_no_argument_and_no_value():
    def f(w):
        w[0] = w[0] ** 2
        return w[0]

    w = [3.0]
    assert ad.value_and_grad(f)(w) == ad.value_and_grad(f)(w) == (9, [6])
    assert w == [3.0]
    x = ad.Value(2.0)
    y = x * x
    assert ad.gradients(y, x) == ad.gradients(y, x) == 4  # nothing is left over from the first pass


def test_values_compare_by_their_number():
    a, b = ad.Value(1.0), ad.Value(2)
    assert a == 1
    assert a != b
    assert a < b <= 2 < ad.Value(3) > b >= 2
    assert not a < 1
    assert not a > 1
    assert max(a, b) is b
    assert [bool(ad.Value(n)) for n in (0.0, 1.0)] == [False, True]
    assert len({a, ad.Value(1)}) == 1


def test_numpy_numbers_on_either_side_keep_the_graph():
    three = np.float64(3)
    found = ad.grad(lambda x: three * x + x * three - (three - x) + three / x + three**x)(2.0)
    assert found == pytest.approx(3 + 3 + 1 - 3 / 4 + 9 * math.log(3))
    assert ad.grad(lambda x: ad.maximum(three, x) if x < three < x + 2 else 0)(2.0) == 0
    assert ad.value_and_grad(ad.sin)(three) == (math.sin(3), math.cos(3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ad.log(-2.0), ValueError, "log: not defined at -2.0"),
        (lambda: ad.log(ad.Value(0.0)), ValueError, "log: not defined at 0.0"),
        (lambda: ad.sqrt(ad.Value(-1)), ValueError, "sqrt: not defined at -1"),
        (lambda: ad.Value(-8.0) ** (1 / 3), ValueError, "expected a of at least 0 or a whole number b, got -8.0"),
        (lambda: ad.Value(-8.0) ** math.nan, ValueError, "expected a of at least 0 or a whole number b"),
        (lambda: 1 / ad.Value(0.0), ZeroDivisionError, "division"),
        (lambda: ad.exp(ad.Value(1000.0)), OverflowError, "range"),
        (lambda: ad.Value(1.0) + "a", TypeError, "expected a number or a Value, got 'a'"),
        (lambda: [1.0] * ad.Value(1.0), TypeError, r"expected a number or a Value, got \[1.0\]"),
        (lambda: ad.Value(1.0) < "a", TypeError, "expected a number or a Value, got 'a'"),
        (lambda: ad.Value(1.0) == None, TypeError, "expected a number or a Value, got None"),  # noqa: E711
        (lambda: ad.sin(1j), TypeError, "expected a number or a Value, got 1j"),
        (lambda: math.sin(ad.Value(1.0)), TypeError, "real number"),  # it would lose the graph
        (lambda: float(ad.Value(1.0)), TypeError, "real number"),
        (lambda: ad.grad(ad.sin)("1"), TypeError, "expected a number, or numbers in nested lists or tuples, got '1'"),
        (lambda: ad.grad(sum)({"a": 1.0}), TypeError, "expected a number, or numbers in nested"),
        (lambda: ad.grad(ad.grad(ad.sin))(1.0), TypeError, "got Value"),  # no second derivatives, nor a wrong one
        (lambda: ad.grad(lambda x: [x])(1.0), TypeError, "expected a number or a Value, got "),
        (lambda: ad.gradients("y", []), TypeError, "expected a number or a Value, got 'y'"),
        (lambda: ad.difference_quotient(math.sin, ad.Value(1.0)), TypeError, "expected plain numbers x and h"),
        (lambda: ad.difference_quotient(math.sin, 1.0, "a"), TypeError, "expected plain numbers x and h"),
        (lambda: ad.difference_quotient(math.sin, 1.0, 0.0), ValueError, "h: expected a step above 0"),
        (lambda: ad.difference_quotient(math.sin, 1.0, -1e-6), ValueError, "h: expected a step above 0"),
        (lambda: ad.difference_quotient(math.sin, 1e12, 1e-6), ValueError, r"changes x = 1000000000000.0, got 1e-06"),
    ],
)
def test_bad_input_is_refused_with_the_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_difference_quotients_are_the_textbooks_and_err_as_documented():
    f, x = math.exp, 0.5
    assert ad.difference_quotient(f, x, 0.25) == (f(0.75) - f(0.25)) / 0.5
    assert ad.difference_quotient(f, x, 0.25, one_sided=True) == (f(0.75) - f(0.5)) / 0.25
    for h in (1e-1, 1e-2, 1e-3):  # here rounding is small, and all derivatives of eˣ are eˣ
        assert ad.difference_quotient(f, x, h) - f(x) == pytest.approx(h**2 / 6 * f(x), rel=1e-2)
        assert ad.difference_quotient(f, x, h, one_sided=True) - f(x) == pytest.approx(h / 2 * f(x), rel=5e-2)
    for h in (1e-9, 1e-11, 1e-13):  # here rounding is all
        assert abs(ad.difference_quotient(f, x, h) - f(x)) < 4 * 2.2e-16 * f(x) / h


def test_it_needs_nothing_but_math():
    tree = ast.parse(inspect.getsource(ad))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import math"]


# fnn's layers and costs once more, in scalars: each of a list of numbers.
SCALAR = {
    fnn.Tanh(): lambda z: [ad.tanh(u) for u in z],
    fnn.Sigmoid(): lambda z: [ad.sigmoid(u) for u in z],
    fnn.Relu(): lambda z: [ad.relu(u) for u in z],
}
COSTS = {
    fnn.Quadratic(): lambda a, y: 0.5 * sum((u - t) ** 2 for u, t in zip(a, y, strict=True)),
    fnn.SigmoidBinaryCrossEntropy(): lambda z, y: sum(
        ad.relu(u) + ad.log(1 + ad.exp(-abs(u))) - u * t for u, t in zip(z, y, strict=True)
    ),
    fnn.SoftmaxCrossEntropy(): lambda z, y: ad.log(sum(ad.exp(u) for u in z)) - z[y],
}


def cost_in_scalars(net, loss, params, x, y):
    """The mean cost of a network of Dense and activations, in plain lists and loops."""
    losses = []
    for a, target in zip(x, y, strict=True):
        for layer, p in zip(net.layers, params, strict=True):
            if layer in SCALAR:
                a = SCALAR[layer](a)
            else:
                a = [sum(w * u for w, u in zip(row, a, strict=True)) + b for row, b in zip(p.w, p.b, strict=True)]
        losses.append(COSTS[loss](a, target))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("loss", COSTS, ids=str)
@pytest.mark.parametrize("activation", SCALAR, ids=str)
def test_gradients_of_fnn_are_those_of_the_scalar_differentiator(activation, loss):
    rng = np.random.default_rng(0)
    net = fnn.mlp((4, 5, 3), activation=activation)
    params = net.init(fnn.random.key(1, backend="numpy"), (2,), np.float64)
    params = fnn.trees.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)  # biases too
    x = rng.normal(size=(6, 2))
    y = rng.integers(0, 3, 6) if isinstance(loss, fnn.SoftmaxCrossEntropy) else rng.random((6, 3))
    lists = fnn.trees.map(lambda p: p.tolist(), params)
    value, grads = ad.value_and_grad(lambda p: cost_in_scalars(net, loss, p, x.tolist(), y.tolist()))(lists)
    found, found_grads = fnn.value_and_grad(net, loss)(params, x, y)
    assert found == pytest.approx(value, rel=1e-12)
    wanted = tuple(fnn.DenseParams(*map(np.array, layer)) if layer else () for layer in grads)
    oracle.assert_close(found_grads, wanted, 1e-12)

"""Attributions are derivatives, equal to those of `jax.grad`; integrated gradients add up to what they explain."""

import numpy as np
import pytest
from helpers import key, moved, on, wide

import fnn
from fnn import attribution, errors

RNG = np.random.default_rng(0)
S = fnn.Serial
IMAGES = S((fnn.Conv(2, (2, 2)), fnn.Tanh(), fnn.MaxPool((2, 2)), fnn.Flatten(), fnn.LayerNorm(), fnn.Dense(3)))
SOFT = fnn.Softmax()
CASES = {
    "an output": (fnn.mlp((5, 3), fnn.Gelu()), (4,), 1),
    "the last output": (fnn.mlp((5, 3), fnn.Relu()), (4,), -1),
    "one of one": (fnn.mlp((5, 1), fnn.Tanh()), (4,), None),
    "that of a position": (S((fnn.Lstm(3, all_states=True),)), (4, 2), (2, 1)),
    "labels": (IMAGES, (5, 5, 1), np.array([0, 2, 1, 2, 0])),
    "a probability": (fnn.mlp((5, 3), fnn.Tanh()), (4,), lambda a: SOFT.forward((), a)[0][:, 1]),
    "a cost": (fnn.mlp((5, 2), fnn.Tanh()), (4,), lambda a: fnn.Quadratic().value(a, 0 * a.real + 1)),
}


def value_of(a, of):
    """f (N,) of outputs, as numpy writes it."""
    if of is None:
        return a[:, 0]
    if callable(of):
        return of(a)
    if isinstance(of, np.ndarray):
        return a[np.arange(len(a)), of]
    return a[(slice(None), *of)] if isinstance(of, tuple) else a[:, of]


def problem(name):
    net, shape, of = CASES[name]
    return net, moved(net, shape), np.random.default_rng(0).normal(size=(5, *shape)), of


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_derivatives_of_central_differences(name):
    net, params, x, of = problem(name)
    g = attribution.gradients(net)(params, x, of)
    f, h = lambda x: value_of(net.apply(params, x), of), 1e-5
    for _ in range(2):
        v = RNG.normal(size=x.shape)
        slope = (f(x + h * v) - f(x - h * v)) / (2 * h)
        np.testing.assert_allclose((g * v).reshape(5, -1).sum(axis=1), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["labels", "a probability"])
@pytest.mark.thorough(name="labels")
def test_gradients_are_those_of_jax(name, needs_jax):
    net, params, x, of = problem(name)
    with wide():
        params, x = on("jax", (params, x))

        @needs_jax.jit
        def both(params, x):
            theirs = needs_jax.grad(lambda x: value_of(net.apply(params, x), of).sum())(x)
            return attribution.gradients(net)(params, x, of), theirs

        ours, theirs = both(params, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_gradient_times_input_is_what_it_says():
    net, params, x, of = problem("labels")
    found = attribution.gradient_times_input(net)(params, x, of)
    np.testing.assert_allclose(found, x * attribution.gradients(net)(params, x, of))


@pytest.mark.parametrize("name", CASES)
def test_integrated_gradients_add_up_to_the_difference_from_the_baseline(name):
    net, params, x, of = problem(name)
    base = RNG.normal(size=x.shape[1:])
    found = attribution.integrated_gradients(net, steps=200)(params, x, of, base)
    f = lambda x: value_of(net.apply(params, x), of)
    difference = f(x) - f(np.broadcast_to(base, x.shape))
    total = found.values.reshape(5, -1).sum(axis=1)
    bent = name in ("labels", "the last output")  # by a maximum, over which no rule of high order gains
    np.testing.assert_allclose(total, difference, rtol=1e-9, atol=0.02 if bent else 0)
    np.testing.assert_allclose(found.gap, total - difference, atol=1e-12)


def test_integrated_gradients_are_the_integral_of_each_feature():
    """By the trapezoidal rule with 20,000 steps, which shares nothing with that of Gauss."""
    net, params, x, of = problem("a probability")
    base, x = np.full(4, 0.3), x[:1]
    alpha = np.linspace(0, 1, 20_001)[:, None]
    g = attribution.gradients(net)(params, base + alpha * (x - base), of)
    expected = (x - base) * np.trapezoid(g, alpha, axis=0)
    found = attribution.integrated_gradients(net)(params, x, of, base).values
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_integrated_gradients_are_exact_for_a_polynomial():
    """∂f/∂x of x³ is of the second degree, for which two points of Gauss are enough; f(x) − f(b) = x³ − b³."""
    found = attribution.integrated_gradients(fnn.Identity(), steps=2)(
        (), np.array([[2.0, -1.0]]), lambda a: (a**3).sum(axis=1), 1.0
    )
    np.testing.assert_allclose(found.values, [[7, -2]], rtol=1e-14)


def test_on_jax_they_are_the_same(needs_jax):
    net, params, x, of = problem("a probability")
    ours = attribution.integrated_gradients(net, steps=20)(params, x, of)
    with wide():
        run = needs_jax.jit(lambda params, x: attribution.integrated_gradients(net, steps=20)(params, x, of))
        theirs = run(*on("jax", (params, x)))
    np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(theirs.gap, ours.gap, atol=1e-12)


def test_smooth_gradients_are_the_mean_over_noise_of_that_deviation():
    """Of x³ the gradient at x + σε is 3 (x + σε)², with the mean 3 (x² + σ²)."""
    cubes, x = lambda a: (a**3).sum(axis=1), np.full((2000, 1), 2.0)
    run = attribution.smooth_gradients(fnn.Identity(), deviation=0.5, samples=20)
    found = run((), x, cubes, key=key())
    assert found.mean() == pytest.approx(3 * (4 + 0.25), abs=0.1)
    assert found.std() == pytest.approx(6 * 2 * 0.5 / np.sqrt(20), rel=0.1)
    np.testing.assert_array_equal(found, run((), x, cubes, key=key()))


# ---- inputs of other kinds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda e: e, fnn.Frozen, lambda e: S((e,))], ids=["", "frozen", "inner"])
def test_symbols_are_explained_by_their_embedding(wrap):
    rest = S((fnn.Lstm(4), fnn.Dense(2)))
    net = S((wrap(fnn.Embedding(7, 3)), *rest.layers))
    params, symbols = moved(net, (5,)), RNG.integers(0, 7, (4, 5))
    table = fnn.trees.leaves(params[0])[0]
    for baseline, embedded in (None, None), (np.zeros(5, int), table[np.zeros(5, int)]):
        found = attribution.integrated_gradients(net)(params, symbols, 1, baseline)
        expected = attribution.integrated_gradients(rest)(params[1:], table[symbols], 1, embedded)
        assert found.values.shape == (4, 5, 3)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
        np.testing.assert_allclose(found.gap, 0, atol=1e-8)


def test_bytes_are_numbers():
    net, x = fnn.mlp((3, 1), fnn.Tanh()), RNG.integers(0, 9, (4, 5)).astype(np.uint8)
    params = moved(net, (5,))
    np.testing.assert_allclose(attribution.gradients(net)(params, x), attribution.gradients(net)(params, 1.0 * x))


def test_of_several_inputs_those_that_are_integers_have_none():
    net, length = fnn.Last(fnn.Lstm(3, all_states=True)), np.array([2, 5])
    x = {"x": RNG.normal(size=(2, 5, 2)), "length": length}
    params = moved(net, {"x": (5, 2), "length": ()})
    found = attribution.integrated_gradients(net)(params, x, 0)
    assert found.values["length"] is None
    assert (found.values["x"][0, 2:] == 0).all()
    np.testing.assert_allclose(found.gap, 0, atol=1e-10)
    smooth = attribution.smooth_gradients(net, deviation=0.1, samples=2)(params, x, 0, key=key())
    assert smooth["length"] is None
    assert smooth["x"].shape == (2, 5, 2)


def test_labels_of_8_bits_name_outputs_beyond_those_that_they_can_number(backend):
    found = attribution.gradients(fnn.Identity())((), on(backend, np.zeros((2, 300), np.float32)), np.int8([100, 3]))
    np.testing.assert_array_equal(np.argwhere(np.asarray(found)), [[0, 100], [1, 3]])


NET = fnn.mlp((3, 4))
X = RNG.normal(size=(2, 5))
GRADIENTS, INTEGRATED = attribution.gradients(NET), attribution.integrated_gradients(NET)
SYMBOLS = {"x": np.zeros((2, 5), int), "length": np.array([1, 2])}
DEEPER = fnn.Last(S((fnn.Embedding(3, 2), fnn.Lstm(2, all_states=True))))
WRONG = {
    "no output named": (lambda p: GRADIENTS(p, X), "of: expected which of the outputs .4,. to explain"),
    "an output that is not there": (lambda p: GRADIENTS(p, X, 4), "of: expected an output from 0 to 3, got 4"),
    "too many indices": (lambda p: GRADIENTS(p, X, (0, 1)), "of: expected an index for each of the axes .4,."),
    "a label that is not there": (lambda p: GRADIENTS(p, X, [0, 4]), "of: expected outputs from 0 to 3, got 4"),
    "a negative label": (lambda p: GRADIENTS(p, X, [-1, 0]), "of: expected outputs from 0 to 3, got -1"),
    "labels of others": (
        lambda p: GRADIENTS(p, X, [0, 1, 2]),
        "one for each example of outputs .2, 4., got",
    ),
    "a probability for labels": (lambda p: GRADIENTS(p, X, [0.5, 0.5]), "of: expected an index, or integers"),
    "a number": (lambda p: GRADIENTS(p, X, 1.0), "of: expected an index of the outputs, integers or a function"),
    "a bool": (lambda p: GRADIENTS(p, X, True), "of: expected an index"),
    "a function of all examples": (
        lambda p: GRADIENTS(p, X, lambda a: a.sum()),
        "one number for each example, .2,.",
    ),
    "a cost": (lambda p: GRADIENTS(p, X, fnn.Quadratic()), "Quadratic cannot be called; write loss.value"),
    "a baseline of another width": (lambda p: INTEGRATED(p, X, 0, np.zeros(4)), "baseline: expected shape .5,. or"),
    "a baseline by name": (lambda p: INTEGRATED(p, X, 0, {"a": X}), "baseline: expected arrays as x, got"),
    "no steps": (lambda p: attribution.integrated_gradients(NET, steps=0), "steps: expected an integer of at least 1"),
    "no deviation": (lambda p: attribution.smooth_gradients(NET, deviation=0.0), "deviation > 0"),
    "no key": (lambda p: attribution.smooth_gradients(NET, deviation=0.1)(p, X, 0), "key=key"),
    "symbols within": (
        lambda p: attribution.gradients(DEEPER)(DEEPER.init(key(), {"x": (5,), "length": ()}), SYMBOLS, 0),
        "x: expected an input that has a derivative, got integers",
    ),
    "no examples": (lambda p: INTEGRATED(p, X[:0], 0), "x: expected at least one example"),
    "x first": (lambda p: GRADIENTS(X, p, 0), "the parameters come first"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_explained_is_refused(name):
    call, message = WRONG[name]
    with pytest.raises(errors.FnnError, match=message):
        call(moved(NET, (5,)))

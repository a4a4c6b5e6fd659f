"""Networks that settle or try each class: what they compute, and what they refuse."""

import numpy as np
import pytest
from helpers import key, moved
from helpers_training import on_numpy_at_least

import fnn
from fnn import errors, trees

D, TANH = fnn.Dense, fnn.Tanh()
HOPFIELD = fnn.Hopfield((D(6), TANH, D(5), TANH, D(4), TANH), steps=12)


def energy(params, x, values):
    """E(s) = Σₖ (Γ(sₖ) − sₖ · zₖ), with Γ' = artanh."""
    total, below = 0, x
    for (w, b), s in zip(params[::2], values, strict=True):
        total = total + (s * np.arctanh(s) + 0.5 * np.log1p(-(s**2)) - s * (below @ w.T + b)).sum(axis=1)
        below = s
    return total


def test_the_energy_of_a_hopfield_network_never_rises_and_it_settles():
    """Sweep by sweep, but for rounding; at the end the values are what drives them."""
    params = trees.map(lambda p: 1.2 * p, moved(HOPFIELD, (3,)))
    x = np.random.default_rng(0).normal(size=(7, 3))
    values, energies = HOPFIELD.settled(params, x, steps=1), []
    for _ in range(300):
        energies.append(energy(params, x, values))
        values = HOPFIELD.settled(params, x, values, steps=1)
    assert (np.diff(energies, axis=0) <= 1e-10).all()
    assert (energies[-1] < energies[0] - 1e-3).all()
    first, second, third = values
    (w1, b1), _, (w2, b2), _, (w3, b3), _ = params
    np.testing.assert_allclose(first, np.tanh(x @ w1.T + b1 + second @ w2), atol=1e-9)
    np.testing.assert_allclose(second, np.tanh(first @ w2.T + b2 + third @ w3), atol=1e-9)
    np.testing.assert_allclose(third, np.tanh(second @ w3.T + b3), atol=1e-9)


def test_without_what_is_above_a_hopfield_network_is_its_layers_one_after_another():
    """One layer has nothing above it; of more the first sweep begins from a forward pass."""
    net, plain = fnn.Hopfield((D(4), TANH)), fnn.Serial((D(4), TANH))
    params, x = moved(net, (3,)), np.ones((2, 3))
    np.testing.assert_array_equal(net.apply(params, x), plain.apply(params, x))


@on_numpy_at_least
def test_a_tape_records_each_layer_of_a_network_that_settles(backend):
    data = np.ones((5, 3), np.float32), np.zeros((5, 4), np.float32)
    params = HOPFIELD.init(key(backend), (3,))
    tape = fnn.backprop(HOPFIELD, fnn.Quadratic())(params, *data)
    assert [output.shape for output in tape.outputs] == [(5, n) for n in (6, 6, 5, 5, 4, 4)]
    np.testing.assert_allclose(tape.outputs[-1], tape.prediction, atol=1e-3)
    assert len(fnn.per_example.norms(HOPFIELD, fnn.Quadratic())(params, *data)) == 5


def test_goodness_is_the_mean_square_of_each_stage_but_the_first_beside_each_class():
    net = fnn.Goodness((D(4), TANH, D(3), fnn.Relu(), D(2)), classes=3)
    params, x = moved(net, (5,)), np.random.default_rng(1).normal(size=(4, 5))
    scores = net.apply(params, x)
    assert scores.shape == (4, 3)
    (w1, b1), _, (w2, b2), _, (w3, b3) = params
    unit = lambda h: h / np.sqrt((h**2).mean(axis=1, keepdims=True) + 1e-6)
    for c in range(3):
        h = np.tanh(unit(np.concatenate([x, np.tile(np.eye(3)[c], (4, 1))], axis=1)) @ w1.T + b1)
        h = np.maximum(unit(h) @ w2.T + b2, 0)
        last = unit(h) @ w3.T + b3
        np.testing.assert_allclose(scores[:, c], (h**2).mean(axis=1) + (last**2).mean(axis=1), rtol=1e-12)


@on_numpy_at_least
def test_goodness_of_inputs_whose_squares_overflow_is_nan_and_in_half_precision_they_do_not(backend):
    """Of float16, whose squares end at 256²: that of float64 to 1 %, rounding in three layers of 11 bits."""
    net = fnn.Goodness((D(4), fnn.Relu(), D(3), fnn.Tanh()), classes=2)
    params = net.init(key(), (3,), np.float16)
    x = np.array([[300.0, -4000.0, 1e-3], [1e4, 6e4, 1.0]], np.float16)
    exact = net.apply(trees.map(lambda p: p.astype(np.float64), params), x.astype(np.float64))
    asarray = np.asarray if backend == "numpy" else fnn.backend.jax.numpy.asarray
    found = net.apply(trees.map(asarray, params), asarray(x))
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=0.01)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = trees.map(lambda p: asarray(p.astype(np.float32)), params)
        assert np.isnan(np.asarray(net.apply(wide, asarray(np.full((1, 3), 1e30, np.float32))))).all()


REFUSED = {
    "nothing": (lambda: fnn.Hopfield(()), errors.KindError, "expected Dense or Conv as the first layer, got"),
    "an activation first": (lambda: fnn.Goodness((TANH, D(3))), errors.KindError, "expected Dense as the first layer"),
    "a softmax": (lambda: fnn.Hopfield((D(3), fnn.Softmax())), errors.KindError, r"layers\[1\]: .* of single entries"),
    "a convolution": (
        lambda: fnn.Goodness((D(3), fnn.Conv(2, (2, 2)))),
        errors.KindError,
        r"layers\[1\]: expected Dense",
    ),
    "steps by place": (
        lambda: fnn.Hopfield((D(3), TANH), 5),
        errors.KindError,
        r"write fnn\.Hopfield\(\(.*, steps=20\)",
    ),
    "classes by place": (
        lambda: fnn.Goodness((D(3), TANH), 5),
        errors.KindError,
        r"write fnn\.Goodness\(\(.*classes=10",
    ),
    "no sweeps": (lambda: fnn.Hopfield((D(3),), steps=0), errors.ArgumentError, "steps"),
    "one class": (lambda: fnn.Goodness((D(3),), classes=1), errors.ArgumentError, "classes"),
    "images": (lambda: fnn.Goodness((D(3),)).output_shape((4, 4)), errors.ShapeError, r"use fnn.Flatten\(\) before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_such_a_network_is_refused(name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make()

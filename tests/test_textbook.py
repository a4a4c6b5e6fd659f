"""What the textbooks say of units, networks, costs and descent, in float64; beyond a formula on both backends."""

import contextlib
import itertools

import numpy as np
import pytest
from helpers import compiled

import fnn
from fnn.backend import jax
from fnn.composition import forward_recorded

RNG = np.random.default_rng(0)
X, Y, Z = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 1)), np.linspace(-9, 9, 19)[:, None]
YES, BITS = (Y > 0).astype(float), np.array(list(itertools.product((0.0, 1.0), repeat=2)))
SQUARES, LOGISTIC, SOFTMAX = fnn.Quadratic(), fnn.SigmoidBinaryCrossEntropy(), fnn.SoftmaxCrossEntropy()
KEY, ONE = fnn.random.key(0, backend="numpy"), np.ones((4, 1))


@pytest.fixture
def xp(backend):
    """The backend's namespace, with float64 in it."""
    with contextlib.nullcontext() if jax is None else jax.enable_x64(True):
        yield jax.numpy if backend == "jax" else np


def start(net, xp=np):
    """Parameters of a network on three inputs, with biases that are not 0."""
    return fnn.trees.map(lambda p: xp.asarray(p + 0.3), net.init(KEY, (3,), np.float64))


def same(found, wanted, rtol=1e-12):
    fnn.trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol=1e-14), found, wanted)


def descend(net, params, optimizer, epochs, x=X, y=Y, penalty=None):
    """The parameters after some epochs of batch gradient descent on the quadratic cost."""
    state = fnn.init_state(net, optimizer, KEY, x.shape[1:], np.float64, params)
    return fnn.train(net, SQUARES, state, (x, y), epochs=epochs, batch_size=len(x), penalty=penalty)[0].params


sigma = lambda z: fnn.Sigmoid().apply((), z)
slope = lambda activation: activation.backward((), activation.forward((), Z)[1], np.ones_like(Z))  # σ'(z)
SENTENCES = {  # found, wanted
    "tanh z is twice the sigmoid of 2 z, less 1": lambda: (fnn.Tanh().apply((), Z), 2 * sigma(2 * Z) - 1),
    "the sigmoid is nowhere steeper than a quarter": lambda: (slope(fnn.Sigmoid()).max(), 0.25),
    "tanh is four times as steep at 0": lambda: (slope(fnn.Tanh())[9] / slope(fnn.Sigmoid())[9], np.array([4.0])),
    "a relu has the derivative 0 or 1": lambda: (slope(fnn.Relu()), (Z > 0) + 0.0),
    "a softplus has the sigmoid for its derivative": lambda: (slope(fnn.Softplus()), sigma(Z)),
    "an elu stays above minus alpha": lambda: ((fnn.Elu(0.5).apply((), Z) > -0.5).all(), True),
    "an elu goes down to minus alpha": lambda: (fnn.Elu(0.5).apply((), 5 * Z).min(), -0.5),
    "no gradient passes a step": lambda: (slope(fnn.BinaryStep()), 0 * Z),
    "z has the derivative 1 by its bias": lambda: (
        fnn.Dense(1).gradient(start(fnn.Dense(1)), X[:1], ONE[:1]).b,
        ONE[0],
    ),
    "z has its inputs for derivatives by its weights": lambda: (
        fnn.Dense(1).gradient(start(fnn.Dense(1)), X[:1], ONE[:1]).w,
        X[:1],
    ),
    "an output for regression is any number": lambda: (SQUARES.predict(X), X),
    "an output for two classes is a probability": lambda: (LOGISTIC.predict(Z), sigma(Z)),
    "c outputs for c classes sum to 1": lambda: (SOFTMAX.predict(X).sum(axis=1), np.ones(20)),
    "two classes by softmax are one by sigmoid": lambda: (SOFTMAX.predict(X[:, :2])[:, 1], sigma(X[:, 1] - X[:, 0])),
    "a constant added to all logits changes nothing": lambda: (SOFTMAX.predict(X + 100), SOFTMAX.predict(X)),
    "to be more wrong costs more": lambda: ((np.diff(LOGISTIC.value(Z, 0 * Z)) > 0).all(), True),
    "to be sure and wrong costs without bound": lambda: (LOGISTIC.value(-999 * ONE, ONE), 999 * ONE[:, 0]),
    "to be sure and right costs nothing": lambda: (LOGISTIC.value(999 * ONE, ONE), 0 * ONE[:, 0]),
    "to guess among 4 classes costs log 4": lambda: (SOFTMAX.value(ONE @ ONE.T, np.arange(4)), np.full(4, np.log(4))),
    "the mean is best for squares": lambda: (SQUARES.delta(0 * Y + Y.mean(), Y).sum(), 0.0),
    "the median is best for distances": lambda: (fnn.MeanAbsoluteError().delta(0 * Y + np.median(Y), Y).sum(), 0.0),
    "a perceptron learns from mistakes only": lambda: (fnn.Perceptron().delta(Z[8:12], ONE), -ONE * (Z[8:12] <= 0)),
    "a hinge asks for a margin, too": lambda: (fnn.Hinge().delta(Z[8:12] / 2, ONE), -ONE * (Z[8:12] / 2 < 1)),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_textbooks_say_that(sentence):
    same(*SENTENCES[sentence]())


def test_a_bias_is_a_weight_on_a_constant_1(xp, backend):
    def run(params):
        value, grads = fnn.value_and_grad(fnn.Dense(1), SQUARES)(params, X, Y)
        joined, longer = fnn.DenseParams(xp.column_stack(params), ()), np.column_stack((X, np.ones(20)))
        wanted = value, fnn.DenseParams(xp.column_stack(grads), ())
        return fnn.value_and_grad(fnn.Dense(1, bias=False), SQUARES)(joined, longer, Y), wanted

    same(*compiled(backend, run)(start(fnn.Dense(1), xp)))


def test_linear_layers_collapse_into_one():
    net = fnn.mlp((4, 2), activation=fnn.Identity())
    (w1, b1), _, (w2, b2) = params = start(net)
    same(net.apply(params, X), fnn.Dense(2).apply(fnn.DenseParams(w2 @ w1, w2 @ b1 + b2), X))


def test_a_network_of_identities_is_linear_regression():
    w = np.linalg.lstsq(np.column_stack((X, np.ones(20))), Y)[0]
    params = fnn.DenseParams(2 * np.eye(3), np.zeros(3)), (), fnn.DenseParams(w[:3].T / 2, w[3])
    grads = fnn.grad(fnn.mlp((3, 1), activation=fnn.Identity()), SQUARES)(params, X, Y)
    same(grads, fnn.trees.map(np.zeros_like, params))  # the closed form of least squares is the bottom


def test_each_sigmoid_that_an_error_passes_leaves_a_quarter_of_it_at_most():
    net = fnn.mlp((1,) * 6, activation=fnn.Sigmoid())
    deltas = fnn.backprop(net, SQUARES)(params := start(net), X, Y).deltas
    bound = abs(deltas[-1] * np.prod([above.w for above in params[2::2]])) / 4**5
    assert ((abs(deltas[0]) > 0) & (abs(deltas[0]) <= bound)).all()


def test_a_unit_whose_inputs_are_all_above_0_moves_its_weights_one_way():
    first, _, second = fnn.grad(net := fnn.mlp((4, 3), fnn.Sigmoid()), SQUARES)(start(net), X[:1], X[1:2])
    assert (np.sign(second.w) == np.sign(second.b)[:, None]).all()  # inputs from sigmoids
    assert (np.sign(first.w) != np.sign(first.b)[:, None]).any()  # inputs of both signs leave it free


def test_a_relu_with_a_very_negative_bias_is_dead_and_stays_so(xp):
    (w, _), _, above = start(net := fnn.mlp((2, 1)), xp)
    params = fnn.DenseParams(w, xp.asarray([-100.0, 1.0])), (), above
    assert [(row != 0).any() for row in descend(net, params, fnn.Sgd(0.1), 3)[0].w - w] == [False, True]


def test_one_step_unit_is_and_or_nand_or_not_and_two_layers_of_them_are_xor():
    gates = fnn.DenseParams(np.array([[1.0, 1], [1, 1], [-1, -1], [-1, 0]]), np.array([-1.5, -0.5, 1.5, 0.5]))
    both = fnn.DenseParams(np.array([[0.0, 1, 1, 0]]), np.array([-1.5]))  # OR and NAND
    net = fnn.Serial((fnn.Dense(4), fnn.BinaryStep(), fnn.Dense(1), fnn.BinaryStep()))
    (u, v), outputs = BITS.T.astype(bool), forward_recorded(net, (gates, (), both, ()), BITS)[2]
    same(outputs[1], np.column_stack((u & v, u | v, ~(u & v), ~u)).astype(float))
    same(outputs[3][:, 0], (u ^ v).astype(float))


def test_no_perceptron_is_xor():
    units = fnn.DenseParams(np.random.default_rng(0).normal(size=(9999, 2)), np.random.default_rng(1).normal(size=9999))
    found = {tuple(row) for row in (fnn.Dense(9999).apply(units, BITS) > 0).T.astype(int)}
    assert set(itertools.product((0, 1), repeat=4)) - found == {(0, 1, 1, 0), (1, 0, 0, 1)}  # XOR and its negation


def test_a_network_of_relus_is_piecewise_linear_with_a_bend_for_each_unit():
    below, above = fnn.DenseParams(np.ones((3, 1)), -np.array([0.1, 0.4, 0.7])), np.array([[1.0, 2.0, -4.0]])
    a = fnn.mlp((3, 1)).apply((below, (), fnn.DenseParams(above, np.ones(1))), np.linspace(0, 1, 21)[:, None])
    bends = np.zeros(19)
    bends[[1, 7, 13]] = above / 20
    same(np.diff(a[:, 0], n=2), bends, 1e-9)


@pytest.mark.parametrize(("unit", "initial"), [(fnn.Relu(), fnn.HeNormal()), (fnn.Identity(), fnn.GlorotUniform())])
def test_he_keeps_the_variance_through_relus_and_glorot_through_linear_layers(unit, initial):
    net = fnn.mlp((300,) * 5, unit, initial)
    params, x = net.init(KEY, (300,), np.float64), np.random.default_rng(0).normal(size=(50, 300))
    outputs = forward_recorded(net, params, x)[2]
    assert 0.7 < outputs[-1].var() / outputs[0].var() < 1.4  # twice, or half, the variance would be 16 times, or 1/16


def test_dropout_keeps_the_mean(xp):
    a = fnn.Dropout(0.3).apply((), xp.ones((100, 100)), KEY)
    same(np.unique(a), np.array([0, 1 / 0.7]))
    assert abs(a.mean() - 1) < 0.03  # 4.5 standard deviations


def test_the_cost_is_a_mean_over_the_examples(xp, backend):
    run, twice = fnn.value_and_grad(fnn.Dense(1), SQUARES), (np.vstack((X, X)), np.vstack((Y, Y)))
    same(*compiled(backend, lambda params: (run(params, *twice), run(params, X, Y)))(start(fnn.Dense(1), xp)))


def test_the_cost_depends_on_outputs_only_so_hidden_units_may_change_places():
    run, order = fnn.value_and_grad(net := fnn.mlp((4, 1)), SQUARES), np.array([2, 0, 3, 1])
    moved = lambda p: (fnn.DenseParams(p[0].w[order], p[0].b[order]), (), fnn.DenseParams(p[2].w[:, order], p[2].b))
    value, grads = run(params := start(net), X, Y)
    same(run(moved(params), X, Y), (value, moved(grads)))


def test_cross_entropy_undoes_the_sigmoids_derivative_and_the_quadratic_cost_keeps_it():
    net, params = fnn.Serial((fnn.Dense(1), fnn.Sigmoid())), (start(fnn.Dense(1)), ())
    by_square, by_entropy = (fnn.backprop(net, c)(params, X, YES) for c in (SQUARES, fnn.BinaryCrossEntropy()))
    a = by_square.prediction
    same(by_entropy.deltas[0], a - YES, 1e-9)
    same(by_square.deltas[0], (a - YES) * a * (1 - a))  # next to 0 for a unit that is sure, even if it is wrong


def test_the_gradient_points_uphill():
    run, params = fnn.value_and_grad(net := fnn.mlp((4, 1), fnn.Tanh()), SQUARES), start(net)
    _, grads = run(params, X, Y)
    after = lambda h: run(fnn.trees.map(lambda p, g: p + h * g, params, grads), X, Y)[0]
    same((after(1e-5) - after(-1e-5)) / 2e-5, sum((g * g).sum() for g in fnn.trees.leaves(grads)), 1e-6)


def test_the_gradient_of_a_batch_is_the_mean_of_those_of_its_parts():
    run, params = fnn.grad(net := fnn.mlp((4, 1), fnn.Tanh()), SQUARES), start(net)
    parts = [run(params, X[i : i + 5], Y[i : i + 5]) for i in range(0, 20, 5)]
    same(fnn.trees.map(lambda *g: sum(g) / 4, *parts), run(params, X, Y))


def test_hidden_units_that_start_equal_stay_equal(xp):
    net = fnn.mlp((3, 1), fnn.Sigmoid())
    params = fnn.trees.map(xp.zeros_like, start(net, xp))
    w = np.asarray(descend(net, params, fnn.Sgd(0.5), 10)[0].w)
    assert (w == w[0]).all()
    assert (w != 0).all()


def test_without_momentum_it_is_plain_gradient_descent(xp):
    run = lambda optimizer: descend(fnn.Dense(1), start(fnn.Dense(1), xp), optimizer, 5)
    same(run(fnn.Momentum(0.1, 0.0)), run(fnn.Sgd(0.1)))


def test_l2_shrinks_the_weights_by_1_minus_eta_lambda_and_lets_biases_be(xp):
    params = start(fnn.Dense(1), xp)
    bias = params.b - 0.1 * (params.b - Y.mean())
    found = descend(fnn.Dense(1), params, fnn.Sgd(0.1), 1, 0 * X, penalty=fnn.L2(0.5))
    same(found, fnn.DenseParams((1 - 0.1 * 0.5) * params.w, bias))

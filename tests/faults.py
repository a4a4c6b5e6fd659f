"""The tests are tested: wrong formulas, planted one by one, and a check of the suite that has to find each.

    python tests/faults.py          prints the table of faults, and fails if one survives

A fault is a function of a class or module, and a change: what takes its place, made from the function itself. Every
check passes without it. All of it runs on NumPy alone, but for faults in what only JAX computes.
"""

import contextlib
import dataclasses
import functools
import importlib
import math
import sys
from pathlib import Path

import numpy as np
import oracle
from helpers import Mean, as_on_a_gpu, blocks_of, key, moved, on, problem
from helpers_curvature import Problem as Curved
from helpers_curvature import dense, dense_of, direction, empirical, flat, ggn
from helpers_curvature import problem as curved
from planting import Fault, given, instead, result, times

import fnn
from fnn import (
    backend,
    composition,
    curvature,
    factors,
    gate,
    numerics,
    order,
    outer,
    per_example,
    pieces,
    rules,
    trees,
)
from fnn.complex_step import jvp
from fnn.factors import Outer, Rows
from fnn.layers import activations, convolution, recurrence, windows
from fnn.layers.activations import learnt
from fnn.losses import base, focal, penalties, probabilities
from fnn.testing import check_gradients, check_layer, check_loss

# ---- checks ----------------------------------------------------------------------------------------------------------


def layer(layer, shape=(4,), **options):
    """That of a layer, by the complex step on NumPy."""
    return functools.partial(check_layer, layer, shape, method="complex", on="numpy", **options)


def cost(name):
    """That of a cost, at values drawn for it."""
    case, rng = oracle.LOSSES[name], np.random.default_rng(0)
    a, y = case.prediction(rng, 7, 4), case.target(rng, 7, 4)
    return functools.partial(check_loss, case.loss, a, y, method="complex", on="numpy")


def kink(layer, z, slope):
    """The derivative at a kink is the documented one."""

    def check():
        z_there = np.array([[z]])
        np.testing.assert_array_equal(layer.backward((), layer.forward((), z_there)[1], np.ones((1, 1))), slope)

    return check


def network(net=None, loss=None, weights=None, penalty=None):
    """That of the gradient of a mean cost."""
    net = net or fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Serial((fnn.Dense(3), fnn.Sigmoid())), fnn.Dense(3)))
    net, loss, params, x, y, _ = problem(net, loss, (3,), 5, dtype=np.float64)
    arguments = net, loss, params, x, y, weights
    return functools.partial(check_gradients, *arguments, penalty=penalty, method="complex", on="numpy")


SOME = np.array([0.0, 1.0, 2.0, 0.5, 1.0])


def infinite_cost_of_weight_0():
    """An example that does not count, but whose cost is infinite."""
    run = fnn.value_and_grad(fnn.Identity(), fnn.ExponentialCost(), need_dx=True)
    with np.errstate(over="ignore", invalid="ignore"):
        value, (_, dx) = run((), np.array([[30.0], [1.0]]), np.zeros((2, 1)), np.array([0.0, 1.0]))
    np.testing.assert_allclose(value, np.e)
    np.testing.assert_allclose(dx, [[0], [2 * np.e]])


def penalty_of_weights_only():
    params = fnn.DenseParams(np.full((2, 2), 2.0), np.full(2, 3.0))
    np.testing.assert_allclose(fnn.L2(0.1).value(params), 0.05 * 16)
    np.testing.assert_array_equal(fnn.L2(0.1).gradient(params).b, 0)


def perceptron_learns_from_zero_weights():
    np.testing.assert_array_equal(fnn.Perceptron().delta(np.zeros((2, 1)), np.array([[1], [-1]])), [[-1], [1]])


def quantities(kind):
    """Every quantity of factors against the gradients themselves, made by loops."""

    def check():
        rng, n = np.random.default_rng(0), 5
        weights, scale = rng.normal(size=n), rng.random(n)
        if kind == "rows":
            p, f = np.zeros((3, 2)), Rows(rng.normal(size=(n, 4, 2)), rng.integers(0, 3, (n, 4)))
            g = np.zeros((n, 3, 2))
            for i, t in np.ndindex(n, 4):
                g[i, f.index[i, t]] += f.delta[i, t]
        else:
            positions = {"outer": (), "few": (2,), "many": (9,)}[kind]
            p, f = np.zeros((4, 5)), Outer(rng.normal(size=(n, *positions, 4)), rng.normal(size=(n, *positions, 5)))
            g = np.einsum("nto,nti->noi", f.delta.reshape(n, -1, 4), f.a.reshape(n, -1, 5))
        v, flat = rng.normal(size=p.shape), g.reshape(n, -1)
        pair = (f, f)
        for found, wanted in (
            (factors.total(p, f), g.sum(axis=0)),
            (factors.total(p, f, scale), np.tensordot(scale, g, 1)),
            (factors.made(p, f), g),
            (factors.norm(f), np.linalg.norm(flat, axis=1)),
            (factors.norm(pair), np.linalg.norm(flat, axis=1) * math.sqrt(2)),
            (factors.products(f, f), flat @ flat.T),
            (factors.squares(p, f, weights), np.tensordot(weights, g * g, 1)),
            (factors.along(f, v), flat @ v.ravel()),
            (factors.along(pair, (v, v)), 2 * flat @ v.ravel()),
        ):
            oracle.assert_close(found, wanted, 1e-12)

    return check


def large_factors():
    """Norms whose squares float32 does not hold."""
    f = Outer(np.full((1, 2), 1e30, np.float32), np.full((1, 2), 1e-25, np.float32))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(factors.norm(f), 2e5, rtol=1e-6)


def infinite_input_of_scale_0():
    f = Outer(np.ones((2, 1)), np.array([[np.inf], [3.0]]))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(factors.total(np.zeros((1, 1)), f, np.array([0.0, 1.0])), [[3.0]])


def frozen_stands_still():
    net, rng = fnn.Frozen(fnn.Dense(3)), np.random.default_rng(0)
    params, x = moved(net, (4,)), rng.normal(size=(2, 4))
    residuals = net.forward(params, x)[1]
    np.testing.assert_array_equal(net.tangent(params, residuals, params, 0 * x), np.zeros((2, 3)))


def outputs_recorded():
    net, x = fnn.Serial((fnn.Scale(2.0), fnn.Scale(3.0))), np.ones((1, 1))
    np.testing.assert_array_equal(fnn.backprop(net, fnn.Quadratic())(((), ()), x, x).outputs, [[[2.0]], [[6.0]]])


def inputs_by_name():
    """What two branches take of the same input, they both send an error to."""
    net = fnn.Parallel((fnn.Scale(2.0), fnn.Scale(3.0), fnn.Scale(5.0)), inputs=("a", "b", "a"))
    tape = fnn.backprop(net, fnn.Quadratic())(
        ((), (), ()), {"a": np.ones((1, 1)), "b": np.ones((1, 1))}, np.zeros((1, 3))
    )
    assert (tape.dx["a"].item(), tape.dx["b"].item()) == (4 + 25, 9)


def refused(error, message, **changes):
    """A call with something wrong in it."""

    def check():
        net, loss, params, x, y, weights = problem(fnn.mlp((4, 3)), None)
        arguments = {"params": params, "x": x, "y": y, "weights": weights} | {
            name: change(params) if callable(change) else change for name, change in changes.items()
        }
        try:
            fnn.value_and_grad(net, loss)(**arguments)
        except error as found:
            assert message in str(found), found  # noqa: PT017
        except Exception as found:
            raise AssertionError(f"another error: {found!r}") from found
        else:
            raise AssertionError("nothing was refused")

    return check


def every_example_once():
    """Batches of any sizes, one after another: each epoch that is finished uses each of the examples once."""
    epoch, seen, used = np.int32(0), np.int32(0), []
    for size, steps in ((5, 1), (7, 4), (16, 3), (3, 9), (70, 1), (4, 2)):
        plan = order.Plan(70, size)
        indices, mask = plan.batches(key(seed=1), epoch, seen, steps)
        used += indices[mask].tolist()
        epoch, seen = plan.place_after(epoch, seen, steps)
        assert len(used) == 70 * epoch + seen
    for e in range(len(used) // 70):
        assert sorted(used[70 * e : 70 * (e + 1)]) == list(range(70))
    assert used[:70] != used[70:140]


def sampled_rate():
    """Of 1,000 examples each joins with probability 1/10."""
    counts = [order.Plan(1000, 100, sampling="poisson").sample(key(), t)[1].sum() for t in range(50)]
    assert abs(np.mean(counts) - 100) < 7, "five standard deviations"


def private(noise=0.0, penalty=None):
    """Private gradients are the clipped sum over the nominal size, plus noise of the stated size, plus the penalty."""

    def check():
        net, loss, params, x, y, _ = problem(fnn.Dense(40), None, (30,))
        batch, keys = rules.Batch(x, y, None, 20), rules.Keys(None, key())
        problem_ = rules.Problem(net, loss, penalty)
        grads = rules.Private(0.5, noise).gradient(problem_, params, (), batch, keys).grads
        made = per_example.gradients(net, loss)(params, x, y)
        norms = np.sqrt(sum((g.reshape(len(x), -1) ** 2).sum(axis=1) for g in made))
        mean = lambda g: np.tensordot(np.minimum(1, 0.5 / norms), g, 1) / 20
        wanted = trees.map(mean, made)
        if penalty is not None:
            wanted = trees.map(np.add, wanted, penalty.gradient(params))
        if noise == 0:
            oracle.assert_close(grads, wanted, 1e-5)
        else:
            ratio = np.std(grads.w - wanted.w) / (noise * 0.5 / 20)
            assert abs(ratio - 1) < 0.1, "five standard deviations of 1,200 draws"

    return check


def cancelling_positions():
    """An example whose two positions cancel but for rounding is clipped all the same."""
    f = Outer(np.float32([[[1e8] * 20, [-1e8] * 20]]), np.float32([[[1] * 20, [1.0001] * 20]]))
    clipped = per_example.clipped(np.zeros((20, 20), np.float32), f, None, 1.0, 1)
    assert np.linalg.norm(clipped) <= 1 + 1e-5


def off_the_grid():
    """A noised sum is a multiple of its standard deviation / 128."""
    found = rules.private.noised((np.linspace(0, 1, 100, dtype=np.float32),), np.float32(0.5), key())[0] * 256
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)


def bent(name):
    """The square of a cost's root is the derivative of its δ."""

    def check():
        case, rng = oracle.LOSSES[name], np.random.default_rng(0)
        a, y = case.prediction(rng, 7, 4), case.target(rng, 7, 4)
        u, root = rng.normal(size=a.shape), case.loss.root(a, y)
        found = (root @ (root.swapaxes(1, 2) @ u[:, :, None]))[:, :, 0]
        oracle.assert_close(found, jvp(lambda a: case.loss.delta(a, y), a, u), 1e-12)

    return check


def score(name, n=20_000):
    """The δ of drawn targets has mean 0 and the Fisher information as its second moment, within 5 standard errors."""

    def check():
        loss, a = oracle.LOSSES[name].loss, np.repeat([[0.3, 0.9, -0.4]], n, axis=0)
        labels = np.zeros(n, int) if "labels" in name else 0 * a
        delta = loss.delta(a, loss.sample(key(), a, labels))
        square = loss.root(a[:1], loss.fisher_target(a[:1], labels[:1]))[0] if name != "huber" else 0
        wanted = square @ square.T if name != "huber" else np.eye(3) * HUBER_NEAR
        for found, mean in ((delta, 0), (delta[:, :, None] * delta[:, None], wanted)):
            assert (abs(found.mean(axis=0) - mean) <= 5 * found.std(axis=0) / math.sqrt(n) + 1e-12).all()

    return check


def score_of(loss, a, n=20_000):
    """The δ of drawn targets has mean 0, and the second moment is the mean of the change of δ, within 5 errors."""

    def check():
        many = np.repeat([a], n, axis=0)
        delta = loss.delta(many, y := loss.sample(key(), many))
        assert (abs(delta.mean(axis=0)) <= 5 * delta.std(axis=0) / math.sqrt(n)).all()
        bend = jvp(lambda a: loss.delta(a, y), many, np.ones_like(many))
        found = delta * delta.sum(axis=1, keepdims=True) - bend
        if loss != fnn.Quantile(0.3):
            assert (abs(found.mean(axis=0)) <= 5 * found.std(axis=0) / math.sqrt(n)).all()

    return check


def focal_far_out():
    """A logit that is sure and wrong costs what it is off by, and one that is right costs nothing."""
    z, y = np.float32([[1e4, 0.0], [-1e4, 0.0]]), np.array([0, 0])
    value, delta = fnn.Focal().value_and_delta(z, y)
    np.testing.assert_array_equal(value, [0, 1e4])
    np.testing.assert_array_equal(delta, [[0, 0], [-1, 1]])


def focal_of_classes():
    """Without focus, it is the cross-entropy, times a weight of the label's class; an ignored label has none."""
    z, y = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 1, 2, -1])
    value, delta = fnn.SoftmaxCrossEntropy(ignored=-1).value_and_delta(z, y)
    c = np.array([1.0, 2.0, 5.0, 0.0])
    found = fnn.Focal(gamma=0.0, alpha=(1.0, 2.0, 5.0), ignored=-1).value_and_delta(z, y)
    oracle.assert_close(found, (c * value, c[:, None] * delta), 1e-12)


def weights_of_classes():
    """By hand."""
    y = np.array([0, 1, 0, 0, -1])
    found = fnn.class_weights(y, ignored=-1), fnn.class_weights(y, (2.0, 3.0), ignored=-1)
    np.testing.assert_allclose(found, [[2 / 3, 2, 2 / 3, 2 / 3, 0], [2, 3, 2, 2, 0]])


def rows_for_levels():
    """The levels are those of the blocks of outputs."""
    delta = fnn.Quantile((0.1, 0.8)).delta(np.array([[1.0, 1, 1, 1]]), np.array([[2.0, 0.0]]))
    np.testing.assert_allclose(delta, [[-0.1, 0.9, -0.8, 0.2]])


NEAR, FAR = math.sqrt(2 * math.pi) * math.erf(0.7 / math.sqrt(2)), 2 / 0.7 * math.exp(-0.245)
HUBER_NEAR = NEAR / (NEAR + FAR)


def second_order(name, make, wanted=ggn, weighted=True, **options):
    """A product or a diagonal against dense Jacobian algebra."""

    def check():
        p = curved(name)
        matrix = wanted(dense_of(name), p.weights / p.weights.sum() if weighted else np.full(len(p.x), 1 / len(p.x)))
        weights = (p.weights,) if weighted else ()
        if make is curvature.diagonal:
            found, right = make(p.net, p.loss, **options)(p.params, p.x, p.y, *weights), np.diag(matrix)
        else:
            v = direction(p.params)
            found, right = make(p.net, p.loss, **options)(p.params, p.x, p.y, v, *weights), matrix @ flat(v)
        oracle.assert_close(flat(found), right, 1e-12)

    return check


def exact_blocks(net, input_shape, positions="expand", make=curvature.kfac):
    """Of a linear network under squared error the blocks are those of the Gauss-Newton matrix, biases in them."""

    def check():
        net_, loss, params, x, y, _ = problem(net, None, input_shape, 5, dtype=np.float64)
        p = Curved(net_, loss, params, x, y, np.array([1.0, 0, 2, 0.5, 3]))
        found = make(net_, loss, positions=positions)(params, x, y, p.weights)
        assert (found if isinstance(found, fnn.DenseParams) else found[0]).b is None, "the bias belongs to its weight"
        matrix, v = ggn(dense(p), p.weights / p.weights.sum()), direction(params)
        oracle.assert_close(flat(curvature.block_product(params, found, v)), matrix @ flat(v), 1e-11)
        inverse = curvature.block_product(params, found, v, lambda values: 1 / (values + 0.1))
        oracle.assert_close(flat(inverse), np.linalg.solve(matrix + 0.1 * np.eye(len(matrix)), flat(v)), 1e-11)

    return check


def variances_in_the_basis():
    """The trace of EK-FAC is that of the Gauss-Newton matrix."""
    p = curved("mlp")
    blocks = curvature.ekfac(p.net, p.loss)(p.params, p.x, p.y, p.weights)
    found = sum(block.values.sum() for block in trees.leaves(blocks, is_leaf=curvature.blocks.is_block))
    np.testing.assert_allclose(found, ggn(dense_of("mlp"), p.weights / p.weights.sum()).trace())


def samples_are_drawn():
    """Targets of the data are not those of the model: a network that is sure and wrong has hardly any curvature."""
    net, z = fnn.Dense(2, bias=False), np.array([[20.0], [0.0]])
    found = curvature.kfac(net, fnn.SoftmaxCrossEntropy(), "fisher", samples=1)(
        fnn.DenseParams(z, ()), np.ones((4, 1)), np.ones(4, int), sample_key=key()
    )
    assert abs(found.w.g).max() < 1e-3


def fisher_of_probabilities():
    """Of the cross-entropy of a softmax it is that of the two in one."""
    net, loss, params, x, y, _ = problem(None, fnn.SoftmaxCrossEntropy(), (3,), dtype=np.float64)
    fused = curvature.diagonal(net, loss, "fisher")(params, x, y)
    apart = curvature.diagonal(fnn.Serial((net, fnn.Softmax())), fnn.CrossEntropy(), "fisher")((params, ()), x, y)
    oracle.assert_close(apart[0], fused, 1e-12)


def rectified_at_a_kink():
    """At a kink the real part alone decides, whatever the direction: nothing passes."""
    zeros = lambda tree: trees.map(np.zeros_like, tree)
    params = fnn.DenseParams(np.ones((2, 2)), np.zeros(2))
    v = fnn.DenseParams(np.ones((2, 2)), np.array([1.0, -1.0]))
    net, x, y = fnn.Serial((fnn.Dense(2), fnn.Relu(), fnn.Dense(2))), np.zeros((1, 2)), np.ones((1, 2))
    found = curvature.hessian_product(net, fnn.Quadratic())((params, (), params), x, y, (v, (), zeros(params)))
    assert not flat(found).any()


def ignored_labels_are_not_drawn():
    y, loss = np.array([0, -1, 1]), fnn.SoftmaxCrossEntropy(ignored=-1)
    np.testing.assert_array_equal(loss.sample(key(), np.zeros((3, 2)), y) == -1, y == -1)


def density_of_the_spectrum():
    """The largest eigenvalues of a matrix, and weights that sum to 1."""
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    m = q @ np.diag(np.linspace(1, 2, 40) ** 8) @ q.T
    run = curvature.eigenvalues(lambda params, x, y, v: m @ v, steps=25)
    values, _, weights = run(np.zeros(40), None, None)
    np.testing.assert_allclose(values[0], 256)
    np.testing.assert_allclose(weights.sum(), 1)


def spread_of_a_trace():
    """The standard error of an estimate is that of its samples."""
    m = np.random.default_rng(0).normal(size=(30, 30))
    m = m + m.T
    found = [
        curvature.trace(lambda params, x, y, v: m @ v, 200)(np.zeros(30), None, None, sample_key=key(seed=s))
        for s in range(4)
    ]
    exact = np.sqrt(2 * ((m**2).sum() - (np.diag(m) ** 2).sum()) / 200)
    for value, error in found:
        assert abs(value - m.trace()) < 5 * exact
        assert abs(error / exact - 1) < 0.3


def step_of(rule, penalty=None):
    """A step moves the parameters by −η times the gradient of the cost, penalty and all, and counts."""

    def check():
        net, loss, params, x, y, _ = problem(fnn.Dense(3), None)
        state = fnn.init_state(net, fnn.Sgd(0.1), key(), (5,), params=params, rule=rule)
        after, metrics = fnn.make_step(net, loss, penalty=penalty)(state, (x, y))
        value, grads = fnn.value_and_grad(net, loss, penalty=penalty)(params, x, y)
        oracle.assert_close(after.params, trees.map(lambda p, g: p - np.float32(0.1) * g, params, grads), 1e-5)
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
        assert int(after.step) == 1

    return check


# ---- the table -------------------------------------------------------------------------------------------------------

A, L, DENSE, SERIAL, NORM = activations, probabilities, fnn.Dense, fnn.Serial, fnn.LayerNorm  # short names
BACKPROP = importlib.import_module("fnn.backpropagation")
BASE = importlib.import_module("fnn.layers.activations.base")
RESIDUAL = fnn.Residual(SERIAL((DENSE(3), fnn.Tanh(), DENSE(4))))
PARALLEL = fnn.Parallel((DENSE(2), fnn.Tanh(), DENSE(3)))
TWO, POSITIONS = SERIAL((DENSE(4), DENSE(4))), SERIAL((DENSE(3), Mean()))
onehot = lambda z, y: np.eye(z.shape[1])[y]
softmax = lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
mean = lambda g: g.mean(axis=-1, keepdims=True)
sigmoid = lambda z: 1 / (1 + np.exp(-z))
of_normals = lambda formula: instead(lambda self, residuals, g: formula(g, *residuals))


def stale(self, params, x, key=None):
    """A forward pass of Serial that keeps the first layer's residuals for all."""
    kept = []
    for i, part in enumerate(self.layers):
        x, residuals = part.forward(params[i], x)
        kept.append((kept or [residuals])[0])
    return x, tuple(kept)


def propagate_of(change):
    """Serial.propagate with other parameters, residuals or deltas: (i, params, residuals, dy, dx) -> all four."""

    def propagate(self, params, residuals, dy, need_dx=True):
        deltas = [None] * len(self.layers)
        for i in reversed(range(len(self.layers))):
            p, r = change(i, params, residuals)
            dy, deltas[i] = self.layers[i].propagate(p, r, dy)
        return (dy if need_dx else None), tuple(deltas)

    return instead(propagate)


LAYERS = [
    Fault("W transposed in the error below", DENSE, "backward", instead(lambda self, p, x, dy: dy @ p.w.T),
          layer(DENSE(4))),
    Fault("W transposed in its gradient", DENSE, "gradient", result(lambda g: g._replace(w=g.w.T)), layer(DENSE(4))),
    Fault("bias without gradient", DENSE, "gradient", result(lambda g: g._replace(b=0 * g.b)), layer(DENSE(3))),
    Fault("mean for the sum in db", DENSE, "gradient", result(lambda g: g._replace(b=g.b / 5)), layer(DENSE(3))),
    Fault("sign of the error below", DENSE, "backward", times(-1), layer(DENSE(3))),
    Fault("an error of 1 in 10⁴", DENSE, "backward", times(1.0001), layer(DENSE(3))),
    Fault("bias dropped in each example", DENSE, "factors", result(lambda f: f._replace(b=0 * f.b)), layer(DENSE(3))),
    Fault("δ for x in the factors", DENSE, "factors", result(lambda f: f._replace(w=Outer(*f.w[::-1]))),
          layer(DENSE(4))),
    Fault("first position only", DENSE, "factors", result(lambda f: f._replace(w=Outer(*(v[:, :1] for v in f.w)))),
          layer(DENSE(3), (2, 4))),
    Fault("bias not summed over positions", DENSE, "gradient", result(lambda g: g._replace(b=g.b / 2)),
          layer(DENSE(3), (2, 4))),
    Fault("constant forgotten", fnn.Scale, "backward", instead(lambda self, p, r, dy: dy), layer(fnn.Scale(1.7))),
    Fault("mean of γ forgotten", NORM, "_projected", of_normals(lambda g, x, r: r * (g - x * mean(g * x))),
          layer(NORM())),
    Fault("variance held fixed", NORM, "_projected", of_normals(lambda g, x, r: r * (g - mean(g))), layer(NORM())),
    Fault("gain forgotten in the error", NORM, "backward", instead(lambda self, p, r, dy: self._projected(r, dy)),
          layer(NORM())),
    Fault("gain from x, not x̂", NORM, "gradient", given(lambda self, p, r, dy: (self, p, (r[0] / r[1], r[1]), dy)),
          layer(NORM())),
    Fault("root mean square held fixed", fnn.RMSNorm, "_projected", of_normals(lambda g, x, r: r * g),
          layer(fnn.RMSNorm())),
    Fault("σ forgotten in the error", fnn.Standardize, "backward", instead(lambda self, p, y, dy: dy),
          layer(fnn.Standardize())),
    Fault("sign of dμ and dσ", fnn.Standardize, "gradient", times(-1), layer(fnn.Standardize())),
    Fault("x − μ for y in dσ", fnn.Standardize, "gradient", given(lambda self, p, y, dy: (self, p, y * p.std, dy)),
          layer(fnn.Standardize())),
    Fault("σ forgotten in each example", fnn.Standardize, "factors",
          instead(lambda self, p, y, dy: type(p)(-dy, -dy * y)), layer(fnn.Standardize())),
    Fault("mask not applied to δ", fnn.Dropout, "backward", instead(lambda self, p, keep, dy: dy),
          layer(fnn.Dropout(0.5))),
    Fault("scale of dropout lost in δ", fnn.Dropout, "backward",
          instead(lambda self, p, keep, dy: dy if isinstance(keep, tuple) else keep * dy), layer(fnn.Dropout(0.5))),
]  # fmt: skip

# ---- images and sequences --------------------------------------------------------------------------------------------

CONV, WINDOWS, MAX, AVG = fnn.Conv, windows.Windows, fnn.MaxPool, fnn.AvgPool
RNN, LSTM, GRU = fnn.Rnn, fnn.Lstm, fnn.Gru
conv = lambda **options: layer(CONV(4, (3, 2), (2, 1), 1, **options), (5, 4, 2))
OF_JAX = CONV(4, (2, 2), (2, 1), ((1, 0), (0, 1)), (1, 2), groups=2)
side_by_side = layer(CONV(2, (2, 2), 2, 1), (4, 4, 2))
neighbours = layer(CONV(3, (5,), 1, 1), (6, 2))  # four windows, taken as one
states = lambda kind: layer(kind(3, all_states=True), (4, 2))
SYMBOLS = np.array([[0, 2, 2, 1], [3, 3, 3, 0], [1, 2, 3, 1]])  # some of them more than once in an example


def symbols():
    check_layer(fnn.Embedding(4, 3), SYMBOLS, method="complex", on="numpy")


def in_blocks():
    """That of a convolution of five examples, two at a time."""
    with blocks_of(2, CONV(4, (3, 2), (2, 1)), (5, 4, 2)):
        check_layer(CONV(4, (3, 2), (2, 1)), (5, 4, 2), method="complex", on="numpy")


def gpu_and_numpy():
    """A convolution of JAX's arrays, computed as on a GPU, has the numbers of NumPy's."""
    rng = np.random.default_rng(0)
    params, x = moved(OF_JAX, (5, 4, 4), np.float32), rng.normal(size=(3, 5, 4, 4)).astype(np.float32)

    def run(params, x):
        y, residuals = OF_JAX.forward(params, x)
        return y, OF_JAX.backward(params, residuals, y), OF_JAX.gradient(params, residuals, y)

    with as_on_a_gpu():
        found = run(*on("jax", (params, x)))
    oracle.assert_close(found, run(params, x), 1e-5)


def blocks_of_jax_and_numpy():
    """A convolution in blocks of two examples, and the gradient of each example, compiled on the CPU."""
    layer, rng = CONV(3, (5,), 1, 1), np.random.default_rng(0)
    params, x = moved(layer, (6, 2), np.float32), rng.normal(size=(5, 6, 2)).astype(np.float32)

    def run(params, x):
        y, residuals = layer.forward(params, x)
        return layer.backward(params, residuals, y), layer.factors(params, residuals, y).w

    with blocks_of(2, layer, (6, 2)):
        found = oracle.quick_jit(run)(*on("jax", (params, x)))
    oracle.assert_close(found, run(params, x), 1e-5)


def patches_of_jax_and_of_numpy():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 1)).astype(np.float32)
    patches = windows.windows_over(OF_JAX, x.shape[1:]).patches
    np.testing.assert_array_equal(patches(on("jax", x)), patches(x))


def odd_entry_of_same_padding():
    """The odd entry of padding "same" is at the end."""
    params, x = fnn.DenseParams(np.array([[[0.0], [1.0]]]), np.zeros(1)), np.array([[[1.0], [2.0]]])
    np.testing.assert_array_equal(CONV(1, (2,), 1, "same").apply(params, x), [[[2.0], [0.0]]])


def first_of_ties():
    residuals = MAX((3,)).forward((), np.array([[[1.0], [5.0], [5.0]]]))[1]
    np.testing.assert_array_equal(MAX((3,)).backward((), residuals, np.ones((1, 1, 1)))[0, :, 0], [0, 1, 0])


def padding_does_not_count():
    for pool in (MAX, AVG):
        np.testing.assert_allclose(pool((2,), 2, "same").apply((), -np.ones((1, 3, 1))), -np.ones((1, 2, 1)))


def unequal_lengths():
    """Sequences of unequal length beside each of them alone."""
    net, rng = fnn.Last(LSTM(3, all_states=True)), np.random.default_rng(0)
    params = moved(net, {"x": (4, 2), "length": ()})
    x, length, y = rng.normal(size=(2, 4, 2)), np.array([2, 4]), np.zeros((2, 3))
    run = lambda x, length, y: fnn.per_example.gradients(net, fnn.Quadratic())(params, {"x": x, "length": length}, y)
    together, alone = run(x, length, y), run(x[:1, :2], length[:1], y[:1])
    oracle.assert_close(trees.map(lambda g: g[:1], together), alone, 1e-12)


def ignored_label():
    z, loss = np.random.default_rng(0).normal(size=(2, 3, 4)), fnn.SoftmaxCrossEntropy(ignored=-1)
    value, delta = loss.value_and_delta(z, np.array([[1, -1, 2], [0, 3, -1]]))
    np.testing.assert_array_equal(delta[[0, 1], [1, 2]], 0)
    np.testing.assert_allclose(value[1], fnn.SoftmaxCrossEntropy().value(z[1:, :2], np.array([[0, 3]]))[0])


def assigned(p, index, rows):
    table = np.zeros(p.shape, rows.dtype)
    table[index] = rows
    return table


def ties_to_the_last(f):
    """MaxPool that prefers later entries, by the order of its windows."""

    def forward(self, params, x, key=None):
        y, (first, held) = f(self, params, x[:, ::-1], key)
        return y[:, ::-1], (len(held.thing.entries) - 1 - first[:, ::-1], held)

    return forward


no_state = result(lambda pair: (pair[0], tuple(0 * d for d in pair[1])))
blocks = lambda a, *order: np.concatenate([np.split(a, len(order), axis=-1)[i] for i in order], axis=-1)
shifted = lambda f: property(lambda self: [(low + 1, high - 1) for low, high in f.fget(self)])
whole_blocks = lambda size, args: [a[: len(a) // size * size] for a in args]
if_alone = lambda change: given(lambda pieces, axis, starts, step, n: (  # of windows that lie side by side
    *(change(pieces, axis, starts) if len(pieces) == 1 else (pieces, axis, starts)), step, n))  # fmt: skip
IMAGES = [
    Fault("kernel not flipped in the error", WINDOWS, "put", given(lambda self, rows: (self, rows[..., ::-1, :])),
          conv()),
    Fault("an entry of the kernel left out", WINDOWS, "put", given(lambda self, rows: (
          self, rows * (np.arange(6) < 5)[:, None])), conv()),
    Fault("axes of the kernel exchanged", WINDOWS, "put", given(lambda self, rows: (
          self, rows[..., [0, 3, 1, 4, 2, 5], :])), conv()),
    Fault("padding forgotten in the error", WINDOWS, "put", given(lambda self, rows: (
          dataclasses.replace(self, padding=((0, 0),) * 2), rows)), conv()),
    Fault("stride forgotten in the error", windows, "_added_up", given(lambda pieces, axis, starts, step, n: (
          pieces, axis, starts, 1, n)), conv()),
    Fault("dilation forgotten in the error", windows, "_added_up", given(lambda pieces, axis, starts, *rest: (
          pieces, axis, [starts[0] + a for a in range(len(starts))], *rest)), conv(dilation=2)),
    Fault("windows side by side not moved", windows, "_added_up", if_alone(lambda pieces, axis, starts: (
          pieces, axis, [0])), side_by_side),
    Fault("windows side by side the other way", windows, "_added_up", if_alone(lambda pieces, axis, starts: (
          np.flip(pieces, axis + 1), axis, starts)), side_by_side),
    Fault("odd entry of the padding first", windows, "_windows", result(lambda self: dataclasses.replace(
          self, padding=tuple(pair[::-1] for pair in self.padding))), odd_entry_of_same_padding),
    Fault("entries of a window the other way", WINDOWS, "patches", result(lambda rows: rows[..., ::-1, :]), conv()),
    Fault("axes of the kernel exchanged", CONV, "_matrices", given(lambda self, w: (self, w.swapaxes(1, 2))), conv()),
    Fault("patches of the other group", CONV, "_by_group", result(lambda rows: rows[::-1]), conv(groups=2)),
    Fault("rest of the blocks before them", pieces, "in_blocks", result(lambda y: np.roll(y, 1, axis=0)), in_blocks),
    Fault("rest of the blocks left at 0", pieces, "in_blocks", lambda f: lambda g, size, *args: np.concatenate([
          f(g, size, *whole_blocks(size, args)), 0 * g(*(a[-1:] for a in args))]), in_blocks),
    Fault("rest of the blocks dropped", pieces, "sum_of_blocks", lambda f: lambda g, size, *args: f(
          g, size, *whole_blocks(size, args)), in_blocks),
    Fault("a block left out", pieces, "sum_of_blocks", lambda f: lambda g, size, *args: f(
          g, size, *(a[size:] for a in args)), in_blocks),
    Fault("sum begun with the first block", pieces, "sum_of_blocks", lambda f: lambda g, size, *args: f(
          g, size, *args) + g(*(a[:size] for a in args)), in_blocks),
    Fault("kernel flipped in its gradient", CONV, "_weight_gradient", result(lambda w: w[:, ::-1]), conv()),
    Fault("mean over positions in dW", CONV, "_weight_gradient", times(1 / 12), conv()),
    Fault("neighbours in each other's place", convolution, "_joined", result(lambda w: np.roll(w, 1, axis=-2)),
          neighbours),
    Fault("of neighbours the first alone", convolution, "_joined", result(lambda w: w * (np.arange(12) < 3)[
          :, None, None]), neighbours),
    Fault("entries of the first for all neighbours", convolution, "_apart", given(lambda dw, windows: (
          dw, dataclasses.replace(windows, stride=(0,)))), neighbours),
    Fault("the last neighbour left out of dW", convolution, "_apart", given(lambda dw, windows: (
          dw[:-1], windows)), neighbours),
    Fault("groups exchanged in the error", CONV, "_transposed", given(lambda self, w, shape, dy: (
          self, w[::-1], shape, dy)), conv(groups=2)),
    Fault("bias of one position", CONV, "gradient", result(lambda g: g._replace(b=g.b / 12)), conv()),
    Fault("kernel flipped in each example", CONV, "_made", result(lambda w: w[..., ::-1]), conv()),
    Fault("first patch only", CONV, "factors", result(lambda f: f._replace(w=Outer(*(v[:, :1] for v in f.w)))),
          layer(CONV(9, (3,)), (5, 9))),
    Fault("x dW forgotten along a direction", CONV, "tangent", given(lambda self, p, x, dparams, dx: (
          self, p, x, None, dx)), conv()),
    Fault("error shared by a window", MAX, "backward", instead(lambda self, p, r, dy: r[1].thing.put(
          np.repeat(dy[..., None, :] / 4, 4, axis=-2))), layer(MAX((2, 2)), (4, 4, 1))),
    Fault("a tie on the wrong side", MAX, "forward", ties_to_the_last, first_of_ties),
    Fault("padding is the largest", WINDOWS, "padded", lambda f: lambda self, x, fill=0: f(self, x, 0),
          padding_does_not_count),
    Fault("padding in the mean", AVG, "_shares", instead(lambda self, windows, dtype: 1 / len(windows.entries)),
          padding_does_not_count),
    Fault("1/K forgotten in the error", AVG, "backward", times(4), layer(AVG((2, 2)), (4, 4, 1))),
    Fault("1/P forgotten in the error", fnn.GlobalAvgPool, "backward", times(12),
          layer(fnn.GlobalAvgPool(), (3, 4, 2))),
    Fault("error at all positions", fnn.GlobalMaxPool, "backward", instead(lambda self, p, r, dy: (
          np.broadcast_to(dy[:, None], (len(dy), *r[1].thing)))), layer(fnn.GlobalMaxPool(), (3, 2))),
]  # fmt: skip
IMAGES_ON_JAX = [
    Fault("padding of the error one off", WINDOWS, "padding_of_dx", shifted, gpu_and_numpy),
    Fault("padding of dW one off", WINDOWS, "padding_of_dw", shifted, gpu_and_numpy),
    Fault("axes of the kernel exchanged", convolution, "convolution", lambda f: lambda x, w, *rest, **options: f(
          x, w.swapaxes(1, 2), *rest, **options), gpu_and_numpy),
    Fault("kernel not flipped in the error", convolution, "convolution", lambda f: lambda x, w, stride, padding, *rest,
          **options: f(x, w[:, ::-1, ::-1] if rest else w, stride, padding, *rest, **options), gpu_and_numpy),
    Fault("pieces in each other's place", windows, "_by_stretches", given(lambda pieces, axis, starts, n: (
          pieces[::-1], axis, starts, n)), blocks_of_jax_and_numpy),
    Fault("the last piece reaches nothing", windows, "_by_stretches", given(lambda pieces, axis, starts, n: (
          pieces[:-1], axis, starts[:-1], n)), blocks_of_jax_and_numpy),
    Fault("blocks in each other's place", pieces, "_later", result(lambda y: y[::-1]), blocks_of_jax_and_numpy),
    Fault("dilation forgotten in the patches", windows, "_apart", given(lambda *args: (*args[:-1], 1)),
          patches_of_jax_and_of_numpy),
]  # fmt: skip
SEQUENCES = [
    Fault("the next row", fnn.Embedding, "factors", result(lambda f: f._replace(index=(f.index + 1) % 4)), symbols),
    Fault("a symbol twice, added once", outer, "added_rows", instead(assigned), symbols),
    Fault("1 − h for 1 − h²", RNN, "slopes", instead(lambda self, kept: (1 - kept[0],)), states(RNN)),
    Fault("the state's error dropped", RNN, "back", no_state, states(RNN)),
    Fault("U transposed", RNN, "back", lambda f: lambda self, u, s, d: f(self, u.T, s, d), states(RNN)),
    Fault("h_t for h_{t−1} in dU", recurrence, "before", instead(lambda a: a), states(RNN)),
    Fault("error of one position dropped", RNN, "propagate", given(lambda self, p, r, dy, *need: (
          self, p, r, dy * (np.arange(dy.shape[1]) != 1)[:, None], *need)), states(RNN)),
    Fault("sign of the input gate", LSTM, "slopes", result(lambda s: (
          s[0] * np.repeat([-1, 1, 1, 1], 3), *s[1:])), states(LSTM)),
    Fault("input and forget gate exchanged", LSTM, "slopes", result(lambda s: (
          blocks(s[0], 1, 0, 2, 3), *s[1:])), states(LSTM)),
    Fault("tanh of the cell held fixed", LSTM, "slopes", result(lambda s: (s[0], 0 * s[1], s[2])), states(LSTM)),
    Fault("forget gate held open", LSTM, "back", lambda f: lambda self, u, s, d: f(
          self, u, (*s[:2], 1 + 0 * s[2]), d), states(LSTM)),
    Fault("the state's error dropped", LSTM, "back", no_state, states(LSTM)),
    Fault("cell forgotten along a direction", LSTM, "along", given(lambda self, s, d, ds, dv: (
          self, s, (d[0], 0 * d[1]), ds, dv)), states(LSTM)),
    Fault("reset gate held fixed", GRU, "slopes", result(lambda s: (
          s[0] * np.repeat([0, 1, 1], 3), *s[1:])), states(GRU)),
    Fault("update gate's error without h", GRU, "slopes", result(lambda s: (*s[:2], 0 * s[2])), states(GRU)),
    Fault("dU without the reset gate", GRU, "_errors", instead(lambda self, delta: (delta[0],) * 2), states(GRU)),
    Fault("bias inside the reset gate outside", GRU, "_of_biases", instead(lambda self, delta: (
          delta[0], delta[0][..., 6:])), states(GRU)),
    Fault("the length forgotten", fnn.Last, "_of", result(lambda pair: (pair[0], 0 * pair[1] + pair[0].shape[1])),
          unequal_lengths),
    Fault("an ignored label counts", fnn.SoftmaxCrossEntropy, "value_and_delta", lambda f: lambda self, z, y: f(
          fnn.SoftmaxCrossEntropy(), z, np.maximum(y, 0)), ignored_label),
]  # fmt: skip


COMPOSITIONS = [
    Fault("residual of the layer below", SERIAL, "propagate", propagate_of(lambda i, p, r: (p[i], r[max(i - 1, 0)])),
          layer(SERIAL((fnn.Tanh(), fnn.Sigmoid())))),
    Fault("parameters of the layer below", SERIAL, "propagate", propagate_of(lambda i, p, r: (p[i - 1], r[i])),
          layer(TWO)),
    Fault("δ of one layer off", SERIAL, "gradient",
          given(lambda self, p, r, deltas: (self, p, r, deltas[::-1])), layer(TWO)),
    Fault("δ of one layer off in the factors", SERIAL, "factors",
          given(lambda self, p, r, deltas: (self, p, r, deltas[::-1])), layer(TWO)),
    Fault("stale residual", SERIAL, "forward", instead(stale), layer(TWO)),
    Fault("first layer's dx in the place of δ", SERIAL, "propagate",
          result(lambda pair: (pair[0], (pair[1][1], *pair[1][1:]))), layer(SERIAL((DENSE(4), fnn.Tanh(), DENSE(4))))),
    Fault("dx given though not asked for", SERIAL, "propagate",
          lambda f: lambda self, p, r, dy, need_dx=True: (dy, f(self, p, r, dy, need_dx)[1]), layer(SERIAL(()))),
    Fault("skip forgotten in the error", fnn.Residual, "propagate",
          lambda f: lambda self, p, r, dy, need_dx=True: self.layer.propagate(p, r, dy, need_dx), layer(RESIDUAL)),
    Fault("skip counted twice", fnn.Residual, "propagate", lambda f: lambda self, p, r, dy, need_dx=True: (
          lambda dx, d: (None if dx is None else dx + dy, d))(*f(self, p, r, dy, need_dx)), layer(RESIDUAL)),
    Fault("branches not summed", fnn.Parallel, "propagate", lambda f: lambda self, p, r, dy, need_dx=True: (
          self.branches[0].propagate(p[0], r.inner[0], dy[..., :2])[0] if need_dx else None, f(self, p, r, dy)[1]),
          layer(PARALLEL)),
    Fault("δ of branches misplaced", fnn.Parallel, "propagate", lambda f: lambda self, p, r, dy, need_dx=True: f(
          self, p, r, np.roll(dy, 1, axis=-1), need_dx), layer(PARALLEL)),
    Fault("one input's errors not summed", fnn.Parallel, "_dx", instead(
          lambda self, x, dxs: dict(zip(self.inputs, dxs, strict=True))), inputs_by_name),
    Fault("frozen weights learn", fnn.Frozen, "gradient", instead(lambda self, p, r, d: trees.Fixed(
          self.layer.gradient(p.params, r.params, d.params))), layer(fnn.Frozen(DENSE(3)))),
    Fault("frozen weights have factors", fnn.Frozen, "factors", instead(lambda self, p, r, d: trees.Fixed(
          self.layer.factors(p.params, r.params, d.params))), layer(fnn.Frozen(DENSE(3)))),
    Fault("inputs recorded for outputs", composition.Recorder, "forward", lambda f: lambda self, p, x, key=None: (
          lambda y, kept: (y, kept._replace(output=x)))(*f(self, p, x, key)), outputs_recorded),
]  # fmt: skip

TANGENTS = [
    Fault("dW forgotten", DENSE, "tangent",
          given(lambda self, p, x, d, dx: (self, p, x, d and d._replace(w=None), dx)), layer(DENSE(3))),
    Fault("db forgotten", DENSE, "tangent",
          given(lambda self, p, x, d, dx: (self, p, x, d and d._replace(b=None), dx)), layer(DENSE(3))),
    Fault("dx forgotten", DENSE, "tangent",
          lambda f: lambda self, p, x, d, dx: f(self, p, x, d, 0 * dx), layer(DENSE(3))),
    Fault("gain forgotten", NORM, "tangent",
          given(lambda self, p, r, d, dx: (self, p._replace(gain=1 + 0 * p.gain), r, d, dx)), layer(NORM())),
    Fault("Jacobian of the root not projected", fnn.RMSNorm, "tangent", instead(lambda self, p, r, d, dx: p.gain * r[1]
          * dx + r[0] * d.gain), layer(fnn.RMSNorm())),
    Fault("sign of dμ", fnn.Standardize, "tangent",
          given(lambda self, p, y, d, dx: (self, p, y, d._replace(mean=-d.mean), dx)), layer(fnn.Standardize())),
    Fault("skip forgotten", fnn.Residual, "tangent",
          instead(lambda self, p, r, d, dx: self.layer.tangent(p, r, d, dx)), layer(RESIDUAL)),
    Fault("dx of the layer below dropped", SERIAL, "tangent", instead(lambda self, p, r, d, dx: functools.reduce(
          lambda dx, i: self.layers[i].tangent(p[i], r[i], d[i], 0 * dx), range(len(p)), dx)), layer(TWO)),
    Fault("branches in another order", fnn.Parallel, "tangent", result(lambda dy: dy[..., ::-1]), layer(PARALLEL)),
    Fault("frozen weights move", fnn.Frozen, "tangent", instead(lambda self, p, r, d, dx: self.layer.tangent(
          p.params, r.params, d.params, dx)), frozen_stands_still),
    Fault("halves changed over", fnn.Glu, "tangent",
          given(lambda self, p, r, d, dx: (self, p, r, d, dx[..., [2, 3, 0, 1]])), layer(fnn.Glu())),
    Fault("∂a/∂α not applied", fnn.PRelu, "tangent",
          instead(lambda self, p, z, d, dx: self.backward(p, z, dx)), layer(fnn.PRelu())),
    Fault("p in another place", fnn.LogSoftmax, "tangent",
          instead(lambda self, p, r, d, dx: self.backward(p, r, dx)), layer(fnn.LogSoftmax())),
]  # fmt: skip

swap = lambda f: Outer(f.a, f.delta) if isinstance(f, Outer) else f
first_position = lambda f: Outer(*(v[:, :1] for v in f)) if isinstance(f, Outer) and f.delta.ndim == 3 else f


def apart(f):
    """A norm of which each position is squared on its own."""
    if isinstance(f, Outer) and f.delta.ndim == 3:
        return np.sqrt(((f.delta**2).sum(axis=2) * (f.a**2).sum(axis=2)).sum(axis=1))
    return np.sqrt((f.delta**2).sum(axis=(1, 2))) if isinstance(f, Rows) else outer.row_norm(f)


def squares_apart(p, f, weights):
    """Squares of single positions, summed."""
    delta, a = f.delta.reshape(len(f.delta), -1, p.shape[0]), f.a.reshape(len(f.a), -1, p.shape[1])
    return np.einsum("nto,nti,n->oi", delta**2, a**2, np.ones(len(a)) if weights is None else weights)


def overwritten(p, index, rows):
    """Rows of which the last one stays."""
    table = np.zeros(p.shape)
    table[index] = rows
    return table


FACTORS = [
    Fault("δ and a changed over", outer, "total", given(lambda p, f, s: (p.T, swap(f), s)), quantities("outer")),
    Fault("scale squared", outer, "scaled", given(lambda f, s: (f, s * s)), quantities("outer")),
    Fault("one position of many", outer, "made", given(lambda p, f, n: (p, first_position(f), n)),
          quantities("few")),
    Fault("a forgotten in the norm", outer, "norm",
          given(lambda f: (f._replace(a=1 + 0 * f.a),)), quantities("outer")),
    Fault("positions squared apart", outer, "norm", instead(apart), quantities("few")),
    Fault("positions squared apart, made", outer, "norm", instead(apart), quantities("many")),
    Fault("rows squared apart", outer, "norm", instead(apart), quantities("rows")),
    Fault("lengths added", factors, "length", instead(lambda *norms: sum(norms)), quantities("outer")),
    Fault("δ · δ' without a · a'", outer, "products", instead(lambda f, g: f.delta @ g.delta.T), quantities("outer")),
    Fault("the first position's products", outer, "products", given(lambda f, g: (first_position(f), g)),
          quantities("many")),
    Fault("rows that are not the same multiplied", outer, "_same",
          instead(lambda left, right, indices: np.ones((*left.shape, right.shape[1]))), quantities("rows")),
    Fault("a weight's sign lost in the squares", outer, "squares", given(lambda p, f, w: (p, f, abs(w))),
          quantities("outer")),
    Fault("squares of positions", outer, "squares", instead(squares_apart), quantities("few")),
    Fault("a row used twice counts once", outer, "added_rows", instead(overwritten), quantities("rows")),
    Fault("along a line transposed", outer, "along", given(lambda f, v: (f, v[::-1])), quantities("outer")),
    Fault("along one leaf of two", factors, "along",
          lambda f: lambda g, v: f(g[0], v[0]) if isinstance(v, tuple) else f(g, v), quantities("rows")),
    Fault("no scale before the squares", outer, "row_norm",
          instead(lambda a: (np.sqrt((a * a).sum(axis=1)), np.ones_like(a[:, 0]))), large_factors),
    Fault("0 · ∞", outer, "_used", instead(lambda a, weights: a), infinite_input_of_scale_0),
]  # fmt: skip

small = np.array([[-7.0, -0.5], [0.3, 2.0]])
ACTIVATIONS = [
    Fault("kink on the wrong side", fnn.Relu, "derivative", instead(lambda self, a: a >= 0), kink(fnn.Relu(), 0.0, 0)),
    Fault("kink on the wrong side", fnn.LeakyRelu, "derivative", given(lambda self, z: (self, z - 1e-300)),
          kink(fnn.LeakyRelu(), 0.0, 1)),
    Fault("kink on the wrong side", fnn.HardTanh, "derivative", instead(lambda self, z: (z >= -1) & (z < 1)),
          kink(fnn.HardTanh(), 1.0, 1)),
    Fault("upper kink forgotten", fnn.Relu6, "derivative", instead(lambda self, a: a > 0),
          layer(fnn.Relu6(), np.array([[1.0, 7.0, -1.0, 3.0]]))),
    Fault("derivative at 6", fnn.Relu6, "derivative", instead(lambda self, a: (a > 0) & (a <= 6)),
          kink(fnn.Relu6(), 6.0, 0)),
    Fault("derivative of elu at 0", fnn.Elu, "derivative", instead(lambda self, z: np.exp(np.minimum(z, 0)) * np.where(
          z >= 0, 1, self.alpha)), kink(fnn.Elu(0.5), 0.0, 0.5)),
    Fault("α forgotten", fnn.Elu, "derivative", instead(lambda self, z: np.exp(np.minimum(z, 0))), layer(fnn.Elu(0.5))),
    Fault("1 + a for 1 − a", fnn.Sigmoid, "derivative", instead(lambda self, a: a * (1 + a)), layer(fnn.Sigmoid())),
    Fault("z for a", BASE.Elementwise, "forward", lambda f: lambda self, p, z, key=None: (f(self, p, z)[0], z),
          layer(fnn.Sigmoid())),
    Fault("square forgotten", fnn.Tanh, "derivative", instead(lambda self, a: 1 - a), layer(fnn.Tanh())),
    Fault("½ forgotten", fnn.BipolarSigmoid, "derivative", times(2), layer(fnn.BipolarSigmoid())),
    Fault("z for z²", fnn.ArcTan, "derivative", instead(lambda self, z: 1 / (1 + z)), layer(fnn.ArcTan())),
    Fault("square forgotten", fnn.Softsign, "derivative", instead(lambda self, z: 1 / (1 + abs(z))),
          layer(fnn.Softsign())),
    Fault("cube is a square", fnn.Isrlu, "backward", instead(lambda self, p, r, da: da * r * r),
          layer(fnn.Isrlu(), small)),
    Fault("softmax without its off-diagonal", fnn.Softmax, "backward", instead(lambda self, p, a, da: a * da * (1 - a)),
          layer(fnn.Softmax())),
    Fault("temperature forgotten", fnn.Softmax, "backward", times(2), layer(fnn.Softmax(2.0))),
    Fault("sum over the batch", fnn.LogSoftmax, "backward",
          instead(lambda self, p, r, da: da - r * da.sum(axis=0, keepdims=True)), layer(fnn.LogSoftmax())),
    Fault("density forgotten", fnn.Gelu, "backward", instead(lambda self, p, r, da: da * r[1]), layer(fnn.Gelu())),
    Fault("2.001 for 2 under the root", fnn.Gelu, "backward", lambda f: lambda self, p, r, da: (
          da * r[1] + (f(self, p, r, da) - da * r[1]) * math.sqrt(2 / 2.001)), layer(fnn.Gelu())),
    Fault("3 forgotten in the cubic", fnn.Gelu, "backward", instead(lambda self, p, r, da: da * (
          r[1] + r[0] * r[1] * (1 - r[1]) * 2 * math.sqrt(2 / math.pi) * (1 + 0.044715 * r[0] ** 2))),
          layer(fnn.Gelu(True))),
    Fault("β squared", fnn.Swish, "backward",
          instead(lambda self, p, r, da: da * (r[1] + self.beta**2 * r[0] * r[1] * (1 - r[1]))), layer(fnn.Swish(1.5))),
    Fault("z for z² in dβ", fnn.Swish, "partials", lambda f: lambda self, p, r: trees.map(
          lambda g: g / r[0], f(self, p, r)), layer(fnn.Swish(learnt=True))),
    Fault("halves changed over", fnn.Glu, "backward", result(lambda dz: dz[..., [2, 3, 0, 1]]), layer(fnn.Glu())),
    Fault("slope learnt where z > 0 too", fnn.PRelu, "partials", instead(lambda self, p, z: learnt.PReluParams(z)),
          layer(fnn.PRelu())),
    Fault("summed over the units", BASE.Learnt, "of_example", lambda f: lambda self, entries: (
          entries.sum(axis=-1, keepdims=True)), layer(fnn.PRelu(per_unit=True))),
    Fault("dα is dz", fnn.PElu, "partials", lambda f: lambda self, p, z: f(self, p, z)._replace(
          alpha=self.backward(p, z, np.ones_like(z))), layer(fnn.PElu())),
    Fault("β not squared in dβ", fnn.PElu, "partials", lambda f: lambda self, p, z: (
          lambda d: d._replace(beta=d.beta * p.beta))(f(self, p, z)), layer(fnn.PElu())),
    Fault("another slope for δ", fnn.RRelu, "forward", lambda f: lambda self, p, z, key=None: (
          lambda a, slope: (a, np.where(z >= 0, slope, 0.2)))(*f(self, p, z, key)), layer(fnn.RRelu())),
    Fault("the 1 of α itself forgotten", fnn.SoftExponential, "partials", result(lambda d: trees.map(
          lambda g: g - 1, d)), layer(fnn.SoftExponential(0.5))),
    Fault("logarithm's branch for both", fnn.SoftExponential, "backward", instead(
          lambda self, p, z, da: da / (1 - p.alpha * (z + p.alpha))), layer(fnn.SoftExponential(0.5))),
    Fault("a for 1 − a in σ(−z)", fnn.LogSigmoid, "derivative", instead(lambda self, z: sigmoid(z)),
          layer(fnn.LogSigmoid())),
    Fault("root squared", fnn.Squareplus, "derivative",
          instead(lambda self, a: a / (a + 0.25 * self.b / a) ** 2), layer(fnn.Squareplus())),
    Fault("z + 3 for 2z + 3", fnn.HardSwish, "derivative", instead(
          lambda self, z: np.where(z <= -3, 0, np.where(z >= 3, 1, (z + 3) / 6))), layer(fnn.HardSwish())),
]  # fmt: skip


COSTS = [
    Fault("2a − y for a − y", fnn.Quadratic, "delta", instead(lambda self, a, y: 2 * a - y), cost("quadratic")),
    Fault("sign of the error", fnn.MeanSquaredError, "delta", times(-1), cost("mean_squared")),
    Fault("mean over outputs forgotten", fnn.MeanSquaredError, "delta", times(4), cost("mean_squared")),
    Fault("large errors not bounded", fnn.Huber, "delta", instead(lambda self, a, y: a - y), cost("huber")),
    Fault("τ counted twice", fnn.ExponentialCost, "value_and_delta",
          lambda f: lambda self, a, y: (lambda v, d: (v, self.tau * d))(*f(self, a, y)), cost("exponential")),
    Fault("labels one off", fnn.SoftmaxCrossEntropy, "value_and_delta", lambda f: lambda self, z, y: (
          f(self, z, y)[0], softmax(z) - np.roll(onehot(z, y), 1, 1)), cost("softmax_labels")),
    Fault("smoothing forgotten in δ", fnn.SigmoidBinaryCrossEntropy, "delta", instead(
          lambda self, z, y: sigmoid(z) - y), cost("sigmoid_smooth")),
    Fault("the misprint a(1−a)(a−y)", fnn.BinaryCrossEntropy, "value_and_delta", lambda f: lambda self, a, y: (
          f(self, a, y)[0], -a * (1 - a) * (a - y)), cost("binary_cross_entropy")),
    Fault("1/a forgotten", fnn.CrossEntropy, "slope", instead(lambda self, a, y: -y), cost("cross_entropy")),
    Fault("a for a²", fnn.ItakuraSaito, "slope", instead(lambda self, a, y: (a - y) / a), cost("itakura_saito")),
    Fault("√ forgotten", fnn.Hellinger, "slope",
          instead(lambda self, a, y: (1 - y / a) * math.sqrt(0.5)), cost("hellinger")),
    Fault("no tangent below ε", L.Guarded, "value_and_delta", lambda f: lambda self, a, y: (
          lambda g: (self.cost(g, y).sum(axis=1), self.slope(g, y)))(np.where(a.real < self.eps, self.eps, a)),
          lambda: check_loss(fnn.CrossEntropy(eps=0.1), np.full((1, 2), 0.05), np.ones((1, 2)) / 2, method="complex")),
    Fault("τ and 1 − τ exchanged", fnn.Quantile, "_parts",
          result(lambda parts: (*parts[:2], parts[3], parts[2])), rows_for_levels),
    Fault("levels of neighbouring outputs", fnn.Quantile, "_parts", result(lambda parts: (
          parts[0], parts[1].swapaxes(-1, -2).reshape(parts[1].shape), *parts[2:])), rows_for_levels),
    Fault("τ forgotten in δ", fnn.Quantile, "delta", result(np.sign), cost("quantiles")),
    Fault("½ of δ_s forgotten", fnn.GaussianNll, "delta",
          result(lambda d: d * np.array([1.0] * 4 + [2.0] * 4)), cost("gaussian")),
    Fault("deviation for variance", fnn.GaussianNll, "_parts",
          result(lambda parts: (*parts[:2], np.sqrt(parts[2]))), score_of(fnn.GaussianNll(), [0.3, 0.9])),
    Fault("variances first", fnn.GaussianNll, "_halves", result(lambda halves: halves[::-1]),
          lambda: np.testing.assert_allclose(fnn.GaussianNll().predict(np.array([[2.0, 0.0]])), [[2, 1]])),
    Fault("variance for deviation in samples", fnn.GaussianNll, "sample", instead(lambda self, key, a, y=None: (
          a[:, :1] + np.exp(a[:, 1:]) * fnn.random.normal(key, a[:, :1].shape, a.dtype))),
          score_of(fnn.GaussianNll(), [0.3, 0.9])),
    Fault("samples of the other side", fnn.Quantile, "sample",
          lambda f: lambda self, key, a, y=None: 2 * a - f(self, key, a), score_of(fnn.Quantile(0.3), [0.3, 0.9])),
    Fault("γ p s lost in δ", focal, "focal", lambda f: lambda m, g: (
          lambda v, d: (v, -np.exp(-g * np.log1p(np.exp(m))) * sigmoid(-m)))(*f(m, g)), cost("focal_labels")),
    Fault("sign of the margin", focal, "focal", given(lambda m, g: (-m, g)), focal_far_out),
    Fault("σ − 1 for q far out", focal, "focal", lambda f: lambda m, g: (
          (1 - sigmoid(m)) ** g * -np.log(sigmoid(m)), f(m, g)[1]), focal_far_out),
    Fault("α of another class", focal, "each_output", result(lambda a: np.roll(a, 1)), focal_of_classes),
    Fault("α counts for both", fnn.BinaryFocal, "value_and_delta", lambda f: lambda self, z, y: (
          lambda v, d: (v, d / np.where(y > 0, 0.25, 0.75)))(*f(self, z, y)), cost("binary_focal")),
    Fault("weight forgotten in δ", fnn.SigmoidBinaryCrossEntropy, "delta", instead(
          lambda self, z, y: sigmoid(z) - y), cost("sigmoid_weighted")),
    Fault("weight of no", fnn.SigmoidBinaryCrossEntropy, "_weighted", result(
          lambda parts: (parts[0], parts[1], parts[1])), cost("sigmoid_weighted")),
    Fault("C forgotten", fnn, "class_weights", times(2), weights_of_classes),
    Fault("ignored labels counted", fnn, "class_weights",
          lambda f: lambda y, weights="balanced", ignored=None: f(abs(y), weights), weights_of_classes),
    Fault("weights of labels from 1", fnn.weights, "_by_place",
          result(lambda weights: {1 - label: weight for label, weight in weights.items()}), weights_of_classes),
    Fault("zero weights never learn", fnn.Perceptron, "delta", instead(lambda self, z, y: np.where(z * y >= 0, 0, -y)),
          perceptron_learns_from_zero_weights),
    Fault("1 + yz for 1 − yz", fnn.Hinge, "delta", instead(lambda self, z, y: np.where(z * y >= -1, 0.0, -y)),
          cost("hinge")),
    Fault("½ of the root forgotten", fnn.RootMeanSquaredError, "outer", result(lambda pair: (pair[0], 2 * pair[1])),
          network(loss=fnn.RootMeanSquaredError())),
    Fault("penalty counted twice", fnn.L2, "derivative", times(2), network(penalty=fnn.L2(0.1))),
    Fault("biases penalised", penalties, "_each", instead(
          lambda penalty, params: trees.map(lambda w: penalty.coefficient * w, params)), penalty_of_weights_only),
    Fault("biases penalised beside a gradient", BACKPROP, "with_gradient", instead(
          lambda penalty, params, grads: trees.map(lambda g, w: g + 0.1 * w, grads, params)),
          network(fnn.Serial((fnn.Dense(3, initializer=fnn.initializers.Constant(0.5)), fnn.PRelu())),
                  penalty=fnn.L2(0.1))),
    Fault("L1 is L2", fnn.L1, "derivative", instead(lambda self, c, w: c * w), network(penalty=fnn.L1(0.1))),
]  # fmt: skip


def unmasked(problem, params, data, key=None, need_dx=False):
    """`differentiate` of which δ of weight 0 is not set to 0."""
    net, loss, _, denominator = problem[:4]
    prediction, residuals = net.forward(params, data[0], key)
    losses, delta, _ = BACKPROP.cost(loss, prediction, data[1])
    value, shares = BACKPROP.mean_cost(loss, losses, data[2], denominator)
    dx, deltas = net.propagate(params, residuals, delta * shares.reshape(-1, 1), need_dx)
    grads = net.gradient(params, residuals, deltas)
    return value, (grads, dx) if need_dx else grads


HEART = [
    Fault("1/N lost", BACKPROP, "mean_cost", lambda f: lambda loss, losses, weights=None, d=None: (
          f(loss, losses, weights, d)[0], 1.0 if weights is None else f(loss, losses, weights)[1]),
          network()),
    Fault("1/N lost with weights", BACKPROP, "mean_cost", lambda f: lambda loss, losses, weights=None, d=None: (
          f(loss, losses, weights, d)[0], weights), network(weights=SOME)),
    Fault("weights forgotten", BACKPROP, "mean_cost", lambda f: lambda loss, losses, weights=None, d=None: (
          f(loss, losses, weights)[0], np.full(len(losses), 1 / len(losses))), network(weights=SOME)),
    Fault("δ of weight 0 not masked", BACKPROP, "differentiate", instead(unmasked), infinite_cost_of_weight_0),
    Fault("penalty without gradient", BACKPROP, "penalised", lambda f: lambda penalty, params, value, grads: (
          f(penalty, params, value, grads)[0], grads), network(penalty=fnn.L2(0.1))),
    Fault("penalty without value", BACKPROP, "penalised", lambda f: lambda penalty, params, value, grads: (
          value, f(penalty, params, value, grads)[1]), network(penalty=fnn.L2(0.1))),
]  # fmt: skip

wrong_shape = lambda params: (params[0]._replace(w=params[0].w[:, :4]), *params[1:])
integers = lambda params: trees.map(lambda p: p.astype(np.int32), params)
nothing = instead(lambda *args, **options: None)
GATE = [
    Fault("parameters of any shape", gate, "fits", nothing, refused(
          fnn.errors.ShapeError, "params[0].w: expected shape (4, 5), got (4, 4)", params=wrong_shape)),
    Fault("parameters of any dtype", gate, "check_parameters", nothing, refused(
          fnn.errors.KindError, "params[0].w: expected a floating-point array", params=integers)),
    Fault("weights of any number", gate, "check_counts", nothing, refused(
          fnn.errors.ShapeError, "weights", weights=np.ones(1, np.float32))),
    Fault("targets that broadcast", base, "check_entries", nothing, refused(
          fnn.errors.ShapeError, "targets", y=np.ones((6, 1), np.float32))),
]  # fmt: skip

RULES = [
    Fault("a short batch filled up with weight 1", order.Plan, "batches",
          result(lambda pair: (pair[0], np.ones_like(pair[1]))), every_example_once),
    Fault("an epoch begun is begun anew", order.Plan, "batches", lambda f: lambda self, key, epoch, seen, steps: f(
          self, key, epoch, 0 * seen, steps), every_example_once),
    Fault("every epoch in the same order", order.Plan, "batches", lambda f: lambda self, key, epoch, seen, steps: f(
          self, key, 0 * epoch, seen, steps), every_example_once),
    Fault("a finished epoch not counted", order.Plan, "place_after", result(lambda pair: (pair[0] * 0, pair[1])),
          every_example_once),
    Fault("full batches counted at an epoch's end", order.Plan, "place_after",
          lambda f: lambda self, epoch, seen, steps: (epoch + (seen + steps * self.batch_size) // self.n,
                                                      (seen + steps * self.batch_size) % self.n), every_example_once),
    Fault("sampled twice as often", order.Plan, "sample", lambda f: lambda self, key, step: f(
          order.Plan(self.n, 2 * self.batch_size, sampling="poisson"), key, step), sampled_rate),
    Fault("not clipped", per_example, "clipped", lambda f: lambda p, g, w, bound, d: f(p, g, w, math.inf, d),
          private()),
    Fault("sum not divided by the nominal size", per_example, "clipped",
          lambda f: lambda p, g, w, bound, d: f(p, g, w, bound, len(factors.norm(g))), private()),
    Fault("positions that cancel not bounded", factors, "bound", lambda f: factors.norm, cancelling_positions),
    Fault("noise of all bits", rules.private, "noised", lambda f: lambda grads, std, key: (
          grads[0] + std * fnn.random.normal(key, grads[0].shape),), off_the_grid),
    Fault("noise forgotten", rules.private, "noised", instead(lambda grads, std, key: grads), private(noise=2.0)),
    Fault("noise not scaled by the bound", rules.private, "noised",
          lambda f: lambda grads, std, key: f(grads, 2 * std, key), private(noise=2.0)),
    Fault("penalty forgotten", rules.private, "penalised", instead(lambda _, params, value, grads: (value, grads)),
          private(penalty=fnn.L2(0.1))),
    Fault("penalty forgotten", rules.Backprop, "gradient", lambda f: lambda self, p, params, state, batch, keys: f(
          self, p._replace(penalty=None), params, state, batch, keys), step_of(rules.Backprop(), fnn.L2(0.1))),
    Fault("gradient of half the batch", rules.Backprop, "gradient", lambda f: lambda self, p, params, state, b, keys: f(
          self, p, params, state, b._replace(x=b.x[:3], y=b.y[:3]), keys), step_of(rules.Backprop())),
]  # fmt: skip

IMAGES += [] if backend.jax is None else IMAGES_ON_JAX
FACTORED, COLUMNS, OUTPUT, SPECTRUM = curvature.factored, curvature.columns, curvature.output, curvature.spectrum
BLOCKS, PRODUCTS = curvature.blocks, curvature.products
ALONE, BY_POSITION = exact_blocks(fnn.Dense(2), (3,)), exact_blocks(fnn.Dense(2), (6, 3))
AVERAGED = exact_blocks(fnn.Serial((fnn.Dense(2), Mean())), (6, 3), "reduce")
DIAGONAL = second_order("mlp", curvature.diagonal)
swapped = {"expand": "reduce", "reduce": "expand"}
CURVATURE = [
    Fault("p pᵀ lost in the root", fnn.SoftmaxCrossEntropy, "root",
          instead(lambda self, z, y: base.on_diagonal(np.sqrt(self.predict(z)))), bent("softmax_labels")),
    Fault("weight lost in the root", fnn.SigmoidBinaryCrossEntropy, "root",
          instead(lambda self, z, y: base.on_diagonal(np.sqrt(sigmoid(z) * sigmoid(-z)))), bent("sigmoid_weighted")),
    Fault("½ for 1 in the root", fnn.Quadratic, "root", times(0.5), bent("quadratic")),
    Fault("y/a for √y/a in the root", fnn.KullbackLeibler, "bend", instead(lambda self, a, y: y / a),
          bent("kullback_leibler")),
    Fault("r rᵀ lost in the root", fnn.ExponentialCost, "root", result(lambda s: s[..., :-1]), bent("exponential")),
    Fault("root of the other branch", fnn.Huber, "root", instead(lambda self, a, y: base.on_diagonal(1 + 0 * a)),
          bent("huber")),
    Fault("labels for samples", fnn.SoftmaxCrossEntropy, "sample", instead(lambda self, key, z, y=None: y),
          score("softmax_labels")),
    Fault("samples of variance 1", fnn.MeanSquaredError, "sample",
          instead(lambda self, key, a, y=None: a + fnn.random.normal(key, a.shape, a.dtype)), score("mean_squared")),
    Fault("samples all normal", fnn.Huber, "sample",
          instead(lambda self, key, a, y=None: a + fnn.random.normal(key, a.shape, a.dtype)), score("huber")),
    Fault("ignored labels drawn", base, "drawn_class", given(lambda loss, key, p, target=None: (loss, key, p)),
          ignored_labels_are_not_drawn),
    Fault("labels for samples", OUTPUT, "columns_of", lambda f: lambda loss, a, y, kind, samples=None, key=None: f(
          loss, a, y, "empirical"), samples_are_drawn),
    Fault("the last column lost", OUTPUT, "columns_of", result(lambda c: c._replace(number=c.number - 1)), DIAGONAL),
    Fault("errors of all positions at once", OUTPUT, "columns_of",
          lambda f: lambda loss, a, y, kind, *rest: OUTPUT.Columns(a.shape[-1], lambda i: loss.root(a, y)[..., i]),
          second_order("tags", curvature.diagonal)),
    Fault("the target's Hessian for its mean", fnn.CrossEntropy, "fisher_target", instead(lambda self, a, y: y),
          fisher_of_probabilities),
    Fault("columns summed before they are squared", COLUMNS, "squares", lambda f: lambda p, g, s: f(
          p, Outer(g.delta.sum(axis=0, keepdims=True), g.a) if isinstance(g, Outer) else g, s), DIAGONAL),
    Fault("weights forgotten", COLUMNS, "shares_of", lambda f: lambda w, n, d=None: f(None, n, d), DIAGONAL),
    Fault("weights squared", COLUMNS, "shares_of", lambda f: lambda w, n, d=None: f(w, n, d) ** 2, DIAGONAL),
    Fault("1/N lost without weights", COLUMNS, "shares_of",
          lambda f: lambda w, n, d=None: f(w, n, 1.0 if w is None else d),
          second_order("mlp", curvature.diagonal, weighted=False)),
    Fault("the direction twice", PRODUCTS, "direction", times(2), second_order("mlp", curvature.ggn_product)),
    Fault("Hessian of the cost at the data", PRODUCTS, "columns_of",
          lambda f: lambda loss, a, y, *rest: f(loss, a, y, "ggn"),
          second_order("mlp", curvature.fisher_product, empirical, empirical=True)),
    Fault("the mean of A taken twice", FACTORED, "means_of", result(lambda s: s * s.sum() / len(s)), ALONE),
    Fault("bias column lost", FACTORED, "_block", lambda f: lambda p, g, bias, *rest: f(p, g, False, *rest), ALONE),
    Fault("a bias with a block of its own", BLOCKS, "biases", instead(lambda params: {}), ALONE),
    Fault("A not over T", FACTORED, "_block", result(lambda b: b and b._replace(a=6 * b.a)), BY_POSITION),
    Fault("reduce for expand", FACTORED, "_block", given(lambda *args: (*args[:-1], swapped[args[-1]])), BY_POSITION),
    Fault("expand for reduce", FACTORED, "_of_error", given(lambda *args: (*args[:-1], swapped[args[-1]])), AVERAGED),
    Fault("Λ of one half", FACTORED, "_variance", times(0.5), variances_in_the_basis),
    Fault("f of the eigenvalues forgotten", BLOCKS, "_times", given(lambda block, v, f: (block, v, None)), ALONE),
    Fault("bias not given back", BLOCKS, "from_matrices", result(lambda tree: tree._replace(b=0 * tree.b)), ALONE),
    Fault("a kink by NumPy's maximum", numerics, "_real", instead(lambda z: isinstance(z, np.ndarray)),
          rectified_at_a_kink),
    Fault("the smallest eigenvalues first", SPECTRUM, "Eigenvalues", lambda f: lambda values, *rest: f(
          values[::-1], *rest), density_of_the_spectrum),
    Fault("the variance of a sum", SPECTRUM, "Estimate", lambda f: lambda value, error: f(value, error * 14),
          spread_of_a_trace),
]  # fmt: skip

FAULTS = [*LAYERS, *IMAGES, *SEQUENCES, *COMPOSITIONS, *TANGENTS, *FACTORS, *ACTIVATIONS, *COSTS, *HEART, *GATE, *RULES]
FAULTS += CURVATURE
for path in sorted(Path(__file__).parent.glob("faults_of_*.py")):
    FAULTS += importlib.import_module(path.stem).FAULTS


# ---- planting them ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def planted(fault):
    """The library with a fault in it."""
    original = getattr(fault.where, fault.name)
    wrong = fault.change(original)
    if isinstance(fault.where, type):
        own = vars(fault.where).get(fault.name)
        places = [fault.where]
    else:  # wherever it was imported
        own = original
        modules = [m for n, m in sys.modules.items() if n.split(".")[0] == "fnn"]
        places = [m for m in modules if vars(m).get(fault.name) is original]
    for place in places:
        setattr(place, fault.name, wrong)
    try:
        yield
    finally:
        for place in places:
            if own is None:  # inherited
                delattr(place, fault.name)
            else:
                setattr(place, fault.name, own)


def killed_by(fault):
    """What the check says of the fault, or None if it passes it."""
    fault.check()
    with planted(fault), np.errstate(all="ignore"):
        try:
            fault.check()
        except AssertionError as error:
            return error
    return None


def main():
    survivors = 0
    for number, fault in enumerate(FAULTS, 1):
        try:
            error = killed_by(fault)
        except AssertionError as of_itself:
            print(f"{number:>3}  {fault.what:<40} its check fails without it: {of_itself}")
            survivors += 1
            continue
        survivors += error is None
        where = f"{fault.where.__name__.removeprefix('fnn.')}.{fault.name}"
        lines = {line[:15].strip(): line[16:] for line in str(error).splitlines()[1:]}
        found = str(error).partition("\n")[0].partition(": ")[2] or "by the value found"
        if "ratio" in lines:
            found = f"{lines['index'].split(' =')[0]}, ratio {lines['ratio'].split(':')[0]}"
        print(f"{number:>3}  {fault.what:<40} {where:<40} {'SURVIVED' if error is None else 'killed ' + found}")
    print(f"{len(FAULTS) - survivors} of {len(FAULTS)} planted faults killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main())

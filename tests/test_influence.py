"""Influence is what dense Jacobian algebra says, and what retraining without an example shows."""

import functools
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, moved
from helpers_curvature import CASES, dense, on_jax, problem

import fnn
from fnn import curvature, errors, influence
from fnn.curvature import Kronecker, block_matrices
from fnn.curvature.spectrum import flat, like

DAMPING, N, Q = 0.05, 5, 3
NAMES = tuple(CASES) if THOROUGH else ("mlp", "norms", "frozen between", "images", "symbols", "tags")
ROOTED = [name for name in CASES if name != "exponential"]  # whose cost overflows after a Newton step
ROOTED = ROOTED if THOROUGH else ("mlp", "images", "symbols", "tags", "probabilities")


@functools.cache
def whole(name):
    """A problem of N training examples and Q queries after them, and its dense Jacobians."""
    p = problem(name, N + Q)
    return p, dense(p)


def split(p):
    """`(queries, training)`, each with its weights; one training example has weight 0."""
    return tuple((p.x[part], p.y[part], p.weights[part]) for part in (slice(N, None), slice(N)))


def everything(p, curvatures, batch_size=2):
    """All scores, in blocks, and the extremes of the first of them."""
    (queries, training), of = split(p), (p.net, p.loss, DAMPING)
    found: dict[str, Any] = {
        kind: influence.scores(*of, batch_size=batch_size)(p.params, c, queries, training)
        for kind, c in curvatures.items()
    }
    kind = next(iter(curvatures))
    found["top"] = influence.top(*of, k=2, batch_size=batch_size)(p.params, curvatures[kind], queries, training)
    trace = influence.tracin(p.net, p.loss, batch_size=batch_size)
    found["tracin"] = trace([p.params, p.params], [0.5, 0.25], queries, training)
    return found


def curvatures_of(p):
    training = split(p)[1]
    kfac, ekfac = (make(p.net, p.loss, "empirical")(p.params, *training) for make in (curvature.kfac, curvature.ekfac))
    return {"kfac": kfac, "eigen": curvature.eigen(kfac), "ekfac": ekfac}


def inverse_of(p, c):
    """The damped inverse (P, P), by Kronecker products that are made."""
    size = len(flat(p.params))
    found = np.zeros((size, size))
    for block, inside in block_matrices(p.params, c, like(p.params, np.arange(float(size)))):
        rows = np.ix_(*[inside.astype(int).ravel()] * 2)
        if isinstance(block, Kronecker):
            a, g = np.diag(block.a) if block.a.ndim == 1 else block.a, block.g
            pi = np.sqrt(np.trace(a) / len(a) / (np.trace(g) / len(g)))
            a, g = a + pi * DAMPING**0.5 * np.eye(len(a)), g + DAMPING**0.5 / pi * np.eye(len(g))
            found[rows] = np.linalg.inv(np.kron(g, a))
        else:
            q = np.kron(block.g, np.eye(block.values.shape[1]) if block.a is None else block.a)
            found[rows] = q @ np.diag(1 / (block.values.ravel() + DAMPING)) @ q.T
    return found


def expected(p, d, inverses):
    """w_q g_q M gⱼ wⱼ / Σ w."""
    g = np.einsum("nkp,nk->np", d.jacobian, d.delta) * p.weights[:, None]
    found = {kind: g[N:] @ m @ g[:N].T / p.weights[:N].sum() for kind, m in inverses.items()}
    return found | {"tracin": 0.75 * g[N:] @ g[:N].T}


def assert_right(name, found, curvatures):
    p, d = whole(name)
    top = found.pop("top")
    wanted = expected(p, d, {kind: inverse_of(p, c) for kind, c in curvatures.items()})
    oracle.assert_close({name: found}, {name: wanted}, 1e-10)
    scores = wanted[next(iter(curvatures))]
    for most, sign in ((top.helpful, 1), (top.harmful, -1)):
        oracle.assert_close({name: sign * most.scores}, {name: -np.sort(-sign * scores, axis=1)[:, :2]}, 1e-10)
        oracle.assert_close({name: np.take_along_axis(scores, most.indices, 1)}, {name: most.scores}, 1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.numpy_alone
def test_scores_on_numpy_are_those_of_dense_algebra(name):
    p, _ = whole(name)
    curvatures = curvatures_of(p)
    assert_right(name, everything(p, curvatures), curvatures)


def test_scores_on_jax_are_the_same(needs_jax):
    names = ("frozen between", "images", "norms", "tags") if THOROUGH else ("linear",)
    curvatures = {name: curvatures_of(whole(name)[0]) for name in (*names, "symbols")}
    for of_name in curvatures.values():
        del of_name["eigen"]  # as "ekfac"
    by_name = iter(sorted(names))  # the order of a compiled function

    def run(p, _):
        of_kernel = influence.leave_one_out(p.net, p.loss, DAMPING)(p.params, *split(p))
        return everything(p, curvatures[next(by_name)], batch_size=3), of_kernel

    for name, (found, of_kernel) in on_jax(names, run, N + Q).items():
        assert_right(name, found, curvatures[name])
        oracle.assert_close({name: of_kernel}, {name: left_out(*whole(name))}, 1e-10)

    def of_rows(p, _):
        return influence.scores(p.net, p.loss, DAMPING)(p.params, curvatures["symbols"]["kfac"], *split(p))

    p, d = whole("symbols")
    wanted = expected(p, d, {"kfac": inverse_of(p, curvatures["symbols"]["kfac"])})["kfac"]
    oracle.assert_close(on_jax(("symbols",), of_rows, N + Q)["symbols"], wanted, 1e-10)


def left_out(p, d):
    """By a Newton step with the Hessian of the other examples, one example after another."""
    s, steps = p.weights[:N] / p.weights[:N].sum(), []
    for j in range(N):
        others = [n for n in range(N) if n != j]
        rest = np.einsum("n,nkp,nkl,nlq->pq", s[others], *(a[others] for a in (d.jacobian, d.hessian, d.jacobian)))
        gradient = s[j] * d.jacobian[j].T @ d.delta[j]
        steps.append(np.linalg.solve(rest + DAMPING * np.eye(len(rest)), gradient))
    prediction, y = p.net.forward(p.params, p.x[N:])[0], p.y[N:]
    change = np.einsum("qkp,jp->jqk", d.jacobian[N:], np.array(steps))
    costs = [p.loss.value(prediction + c.reshape(prediction.shape), y) for c in change]
    return (np.array(costs) - p.loss.value(prediction, y)).T * p.weights[N:, None]


@pytest.mark.parametrize("name", ROOTED)
def test_leaving_one_out_by_the_kernel_is_a_newton_step_without_the_example(name):
    p, d = whole(name)
    found = influence.leave_one_out(p.net, p.loss, DAMPING)(p.params, *split(p))
    oracle.assert_close({name: found}, {name: left_out(p, d)}, 1e-10)


# ---- what it predicts ------------------------------------------------------------------------------------------------


def test_leaving_one_out_by_the_kernel_is_ridge_regression_without_the_example():
    rng, net, loss = np.random.default_rng(0), fnn.Dense(2, bias=False), fnn.MeanSquaredError()
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))

    def fitted(rows):
        """The minimum of Σ ℓ / 9 + ½ λ ‖w‖²; ∂²ℓ = (2 / K) I, so the mean of xᵀ(xw − y) enters as it is."""
        a, b = x[rows], y[rows]
        return np.linalg.solve(a.T @ a / 9 + DAMPING * np.eye(3), a.T @ b / 9).T

    params, all_rows = fnn.DenseParams(fitted(np.arange(9)), ()), np.arange(9)
    found = influence.leave_one_out(net, loss, DAMPING)(params, (x, y), (x, y))
    costs = np.stack([loss.value(x @ fitted(all_rows != j).T, y) for j in range(9)], axis=1)
    np.testing.assert_allclose(found, costs - loss.value(x @ params.w.T, y)[:, None], rtol=1e-10, atol=1e-13)


def logistic(x, y, weights, params, penalty):
    """Softmax regression by Newton's method: the parameters, and the Hessian of the mean cost, by its formula."""
    net, loss = fnn.Dense(3), fnn.SoftmaxCrossEntropy()
    gradient = fnn.grad(net, loss, denominator=len(x))
    with_1 = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    order = flat(fnn.DenseParams(np.arange(15.0).reshape(3, 5)[:, :4], np.arange(15.0).reshape(3, 5)[:, 4])).astype(int)
    for _ in range(20):
        p = loss.predict(net.apply(params, x))
        bent = (np.eye(3) * p[:, None] - p[:, :, None] * p[:, None]) * weights[:, None, None] / len(x)
        hessian = np.einsum("nkl,ni,nj->kilj", bent, with_1, with_1).reshape(15, 15)[np.ix_(order, order)]
        g = flat(gradient(params, x, y, weights)) + penalty * flat(params)
        if np.abs(g).max() < 1e-12:
            return params, hessian
        params = like(params, flat(params) - np.linalg.solve(hessian + penalty * np.eye(15), g))
    raise AssertionError("Newton's method did not converge")


def ranks(v):
    return np.argsort(np.argsort(v))


def test_scores_by_the_exact_hessian_rank_the_examples_as_retraining_without_them_does():
    rng, n, penalty = np.random.default_rng(1), 100, 0.1
    y = rng.integers(0, 3, n + 3)
    x = rng.normal(size=(3, 4))[y] + rng.normal(size=(n + 3, 4))
    net, loss = fnn.Dense(3), fnn.SoftmaxCrossEntropy()
    queries, training = (x[n:], y[n:]), (x[:n], y[:n])
    params, hessian = logistic(*training, np.ones(n), fnn.DenseParams(np.zeros((3, 4)), np.zeros(3)), penalty)
    cost = lambda params: loss.value(net.apply(params, queries[0]), queries[1])
    retrained = [cost(logistic(*training, (np.arange(n) != j) * 1.0, params, penalty)[0]) for j in range(n)]
    wanted = np.array(retrained).T - cost(params)[:, None]
    found = influence.scores(net, loss, penalty)(params, hessian, queries, training)
    newton = influence.leave_one_out(net, loss, penalty)(params, queries, training)
    for q in range(3):
        assert np.corrcoef(ranks(found[q]), ranks(wanted[q]))[0, 1] > 0.99
    off = lambda scores: np.linalg.norm(scores - wanted) / np.linalg.norm(wanted)
    assert off(found) < 0.1  # so sign and scale are right, too: it is 0.06, and the other 0.014
    assert off(newton) < 0.03


def test_no_gradient_of_all_examples_is_made():
    rng, net, loss = np.random.default_rng(0), fnn.mlp((64, 10)), fnn.SoftmaxCrossEntropy()
    params = net.init(fnn.random.key(0, backend="numpy"), (100,))
    training = rng.normal(size=(1500, 100)).astype(np.float32), rng.integers(0, 10, 1500)
    queries = training[0][:9], training[1][:9]
    blocks = curvature.kfac(net, loss, "empirical")(params, *training)
    for of in (blocks, curvature.eigen(blocks)):
        run = influence.scores(net, loss, 0.1, batch_size=100)
        tracemalloc.start()
        run(params, of, queries, training)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 2**20  # all gradients take 41 MiB, and the examples themselves 0.6


# ---- bad input -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quartic(fnn.Loss):
    """A cost of a user's, without a root."""

    def value(self, prediction, target):
        return ((prediction - target) ** 4).sum(axis=1)

    def delta(self, prediction, target):
        return 4 * (prediction - target) ** 3


NET, LOSS, PARAMS = fnn.Dense(2), fnn.Quadratic(), moved(fnn.Dense(2), (3,))
DATA = np.ones((4, 3)), np.zeros((4, 2))
GOOD = curvature.kfac(NET, LOSS)(PARAMS, *DATA)
WRONG = {
    "damping of 0": (errors.ArgumentError, "damping", lambda: influence.scores(NET, LOSS, 0.0)),
    "no examples at a time": (errors.ArgumentError, "batch_size", lambda: influence.top(NET, LOSS, 1.0, batch_size=0)),
    "none of them": (errors.ArgumentError, "k: ", lambda: influence.top(NET, LOSS, 1.0, 0)),
    "a cost of the mean": (
        errors.KindError,
        "loss",
        lambda: influence.tracin(NET, fnn.RootMeanSquaredError()),
    ),
    "a product for a curvature": (
        errors.KindError,
        "curvature",
        lambda: influence.scores(NET, LOSS, 1.0)(PARAMS, PARAMS, DATA, DATA),
    ),
    "the curvature of one parameter": (
        errors.KindError,
        "curvature",
        lambda: influence.scores(NET, LOSS, 1.0)(PARAMS, (GOOD.w,), DATA, DATA),
    ),
    "blocks of other parameters": (
        errors.ShapeError,
        "curvature",
        lambda: influence.scores(NET, LOSS, 1.0)(PARAMS, GOOD._replace(w=Kronecker(np.eye(7), np.eye(2))), DATA, DATA),
    ),
    "a matrix of other parameters": (
        errors.ShapeError,
        "curvature",
        lambda: influence.scores(NET, LOSS, 1.0)(PARAMS, np.eye(7), DATA, DATA),
    ),
    "queries without targets": (
        errors.KindError,
        "queries",
        lambda: influence.scores(NET, LOSS, 1.0)(PARAMS, GOOD, DATA[0], DATA),
    ),
    "training examples that do not fit": (
        errors.ShapeError,
        "training",
        lambda: influence.leave_one_out(NET, LOSS, 1.0)(PARAMS, DATA, (DATA[0][:, :2], DATA[1])),
    ),
    "nothing to learn": (
        errors.KindError,
        "net",
        lambda: influence.tracin(fnn.Relu(), LOSS)([()], 1.0, DATA, (DATA[1], DATA[1])),
    ),
    "one set of parameters": (
        errors.KindError,
        "checkpoints",
        lambda: influence.tracin(NET, LOSS)(PARAMS, 1.0, DATA, DATA),
    ),
    "a rate too many": (
        errors.ArgumentError,
        "learning_rates",
        lambda: influence.tracin(NET, LOSS)([PARAMS], [1.0, 2.0], DATA, DATA),
    ),
    "a cost without a root": (
        errors.KindError,
        "root",
        lambda: influence.leave_one_out(NET, Quartic(), 1.0)(PARAMS, DATA, DATA),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_bad_input_is_refused_by_name(what):
    error, name, call = WRONG[what]
    with pytest.raises(error, match=name):
        call()

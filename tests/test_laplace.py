"""The posterior is that of dense algebra: its covariance, the evidence, what is predicted, and what is drawn."""

import functools
import math
import tracemalloc

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, key, on, wide
from helpers_curvature import CASES, NO_TANGENT, dense_of, directions, problem
from helpers_curvature import flat as flattened
from test_per_example import NETS

import fnn
from fnn import curvature, errors, laplace, trees
from fnn.curvature import Eigen
from fnn.factors import pairs
from fnn.laplace import Full

TAU, STRUCTURES = 0.7, ("diagonal", "kronecker", "full")
REGRESSIONS = {"quadratic": fnn.Quadratic(), "mean squared error": fnn.MeanSquaredError()}
SOME = [
    "linear",
    "mlp",
    "norms",
    "frozen between",
    "own",
    "few positions",
    "images",
    "symbols",
    "bits",
    "probabilities",
]
WIDE = [name for name in CASES if len(problem(name).net.output_shape(CASES[name][1])) == 1]
CASE = [name for name in WIDE if THOROUGH or name in SOME]
LAST = ["mlp", "nested", "frozen below", "images", "probabilities"]
MIXED = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Serial((fnn.Dense(3), fnn.Tanh(), fnn.Dense(2)))))


# ---- dense algebra ---------------------------------------------------------------------------------------------------


def fitted(name, structure, **options):
    """The posterior of a problem of that name, with the batches smaller than the data."""
    p = problem(name)
    options = {"prior_precision": TAU, "batch_size": 2} | options
    return laplace.fit(p.net, p.loss, p.params, (p.x, p.y, p.weights), structure, **options)


def places(params):
    """The index of each parameter in the flat vector, nested as the parameters."""
    numbers = iter(np.split(np.arange(flattened(params).size), np.cumsum([p.size for p in trees.leaves(params)])[:-1]))
    return trees.map(lambda p: next(numbers).reshape(p.shape), params)


def last_of(params):
    """The places of the last layer's parameters, a weight (O, I) and a bias (O,), which are the last ones."""
    count = sum(p.size for p in trees.leaves(params)[-2:])
    return np.arange(flattened(params).size)[-count:]


@functools.cache
def hessian(name, structure, last_layer=False):
    """`(H, the indices of uncertain parameters)`, by the Jacobian and the Kronecker factors of all data at once."""
    p, d = problem(name), dense_of(name)
    moved = np.stack([flattened(v) for v in directions(p.params)]).any(axis=0)
    used = np.intersect1d(np.flatnonzero(moved), last_of(p.params)) if last_layer else np.flatnonzero(moved)
    h = np.einsum("n,nkp,nkl,nlq->pq", p.weights, d.jacobian, d.hessian, d.jacobian)
    if structure == "diagonal":
        h = np.diag(np.diag(h))
    if structure == "kronecker":
        blocks = curvature.kfac(p.net, p.loss, denominator=1)(p.params, p.x, p.y, p.weights)
        h = of_blocks(p.params, blocks, lambda block: np.kron(block.g, as_matrix(block.a)))
    return h[np.ix_(used, used)], used


def as_matrix(a):
    return np.diag(a) if a.ndim == 1 else a


def of_blocks(params, blocks, dense):
    """The matrix (P, P) of blocks, each from `dense(block)` (O I, O I)."""
    index = places(params)
    h = np.zeros((flattened(params).size,) * 2)
    for block, where in curvature.block_matrices(params, blocks, index):
        where = np.ravel(where).astype(int)
        h[np.ix_(where, where)] = dense(block)
    return h


def covariance(posterior):
    """Σ (P, P), from the eigenvectors and eigenvalues that the posterior has, 0 for what is certain."""
    h, tau, s2 = posterior.curvature, posterior.prior_precision, posterior.noise**2
    size = flattened(posterior.params).size
    if isinstance(h, Full):
        rows = [
            np.zeros((len(h.values), p.size)) if q is None else q.reshape(len(q), -1)
            for p, q in pairs(posterior.params, h.vectors)
        ]
        q = np.concatenate(rows, axis=1)
        return q.T @ np.diag(1 / (h.values / s2 + tau)) @ q
    if any(isinstance(block, Eigen) for _, block in pairs(posterior.params, h)):

        def dense(block):
            q = np.kron(block.g, np.eye(block.values.shape[1]) if block.a is None else block.a)
            return q @ np.diag(1 / (block.values.ravel() / s2 + tau)) @ q.T

        return of_blocks(posterior.params, h, dense)
    zeros = lambda p: np.zeros(p.shape)
    each = [zeros(p) if d is None else 1 / (d / s2 + tau) for p, d in pairs(posterior.params, h)]
    return np.diag(np.concatenate([e.ravel() for e in each])).reshape(size, size)


def whole(sigma, used, size):
    full = np.zeros((size, size))
    full[np.ix_(used, used)] = sigma
    return full


def inverse(h, s2=1.0, tau=TAU):
    return np.linalg.inv(h / s2 + tau * np.eye(len(h)))


def check(name, structure, **options):
    """Covariance, evidence and the variance of the outputs of one posterior."""
    p, d, posterior = problem(name), dense_of(name), fitted(name, structure, **options)
    h, used = hessian(name, structure, options.get("last_layer", False))
    sigma = inverse(h)
    oracle.assert_close(covariance(posterior), whole(sigma, used, flattened(p.params).size), 1e-11)
    theta = flattened(p.params)[used]
    likelihood = -(p.weights * p.loss.value(p.net.forward(p.params, p.x)[0], p.y)).sum()
    prior = -TAU / 2 * theta @ theta + len(used) / 2 * math.log(TAU / (2 * math.pi))
    volume = len(used) / 2 * math.log(2 * math.pi) - np.linalg.slogdet(h + TAU * np.eye(len(h)))[1] / 2
    assert laplace.log_marginal_likelihood(posterior) == pytest.approx(likelihood + prior + volume, rel=1e-12)
    mean, variance = laplace.outputs(posterior, p.x)
    j = d.jacobian[:, :, used]
    oracle.assert_close(mean, p.net.forward(p.params, p.x)[0], 1e-14)
    oracle.assert_close(variance, np.einsum("nkp,pq,nkq->nk", j, sigma, j), 1e-11)
    return posterior


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", CASE)
@pytest.mark.numpy_alone
def test_the_posterior_is_that_of_dense_algebra(name, structure):
    if structure != "full" or name not in NO_TANGENT:
        check(name, structure)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", LAST)
def test_the_last_layer_alone_is_the_last_block(name, structure):
    posterior = check(name, structure, last_layer=True)
    h = posterior.curvature.vectors if structure == "full" else posterior.curvature
    assert len([node for _, node in pairs(posterior.params, h) if node is not None]) == 1 + (structure != "kronecker")


# ---- batches, kinds, regression --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "own twice", "symbols"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_result_does_not_depend_on_the_batches(name, structure):
    found, wanted = (fitted(name, structure, batch_size=size) for size in (2, 100))
    oracle.assert_close(covariance(found), covariance(wanted), 1e-12)
    oracle.assert_close([found.cost, found.count], [wanted.cost, wanted.count], 1e-14)


def test_kinds_and_samples_are_those_of_curvature():
    p, d = problem("mlp"), dense_of("mlp")
    g = np.einsum("nkp,nk->np", d.jacobian, d.delta)
    outer = np.einsum("n,np,nq->pq", p.weights, g, g)
    oracle.assert_close(covariance(fitted("mlp", "full", kind="empirical")), inverse(outer), 1e-12)
    oracle.assert_close(
        covariance(fitted("mlp", "diagonal", kind="empirical")), inverse(np.diag(np.diag(outer))), 1e-12
    )
    oracle.assert_close(covariance(fitted("mlp", "full", kind="fisher")), covariance(fitted("mlp", "full")), 1e-12)
    draw = lambda seed, size: fitted(
        "mlp", "full", kind="fisher", samples=1, sample_key=key(seed=seed), batch_size=size
    )
    h = lambda posterior: flattened(posterior.curvature.values).sum()
    assert h(draw(0, 2)) != h(draw(1, 2))
    wanted = np.trace(hessian("mlp", "full")[0])
    drawn = np.array([h(draw(seed, 2)) for seed in range(25)])
    assert abs(drawn.mean() - wanted) <= 4 * drawn.std() / math.sqrt(25)
    first = fitted("mlp", "full", kind="fisher", samples=1, sample_key=key(), batch_size=5)
    assert h(first) != h(draw(0, 2)), "each batch has samples of its own"


def regression(loss, structure="full", noise=0.6, **options):
    p = problem("bits")
    y = np.random.default_rng(3).normal(size=p.y.shape)
    given = {"prior_precision": TAU, "noise": noise, "batch_size": 2} | options
    return p, y, laplace.fit(p.net, loss, p.params, (p.x, y, p.weights), structure, **given)


@pytest.mark.parametrize("loss", REGRESSIONS.values(), ids=REGRESSIONS)
def test_a_regression_has_targets_with_normal_noise(loss):
    """The exact evidence of the linearized model, y − f(x) + J θ* ~ N(0, σ² + J Jᵀ / τ), where θ* is its mode."""
    p, y, posterior = regression(loss)
    used, s2 = p.weights > 0, 0.36
    j = dense_of("bits").jacobian[used].reshape(-1, flattened(p.params).size)
    each = np.repeat(p.weights[used], 2)
    h = j.T @ np.diag(each) @ j
    sigma = inverse(h, s2)
    oracle.assert_close(covariance(posterior), sigma, 1e-12)
    variance = laplace.targets(posterior, p.x).variance
    of_all = dense_of("bits").jacobian
    oracle.assert_close(variance, np.einsum("nkp,pq,nkq->nk", of_all, sigma, of_all) + s2, 1e-12)
    theta, residual = flattened(p.params), (p.net.forward(p.params, p.x)[0] - y)[used].ravel()
    likelihood = -(each * (residual**2 / (2 * s2) + math.log(2 * math.pi * s2) / 2)).sum()
    prior = -TAU / 2 * theta @ theta + len(theta) / 2 * math.log(TAU)
    wanted = likelihood + prior - np.linalg.slogdet(h / s2 + TAU * np.eye(len(h)))[1] / 2
    assert laplace.log_marginal_likelihood(posterior) == pytest.approx(wanted, rel=1e-12)


def test_bayesian_linear_regression_is_exact():
    """At the mode of a linear model nothing is approximated: the evidence is log N(y; 0, σ² I + X Xᵀ / τ)."""
    rng, tau, s = np.random.default_rng(0), 0.5, 0.3
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 1))
    precision = x.T @ x / s**2 + tau * np.eye(3)
    params = fnn.DenseParams(np.linalg.solve(precision, x.T @ y / s**2).T, ())
    for structure in ("full", "kronecker"):
        options = {"prior_precision": tau, "noise": s}
        posterior = laplace.fit(fnn.Dense(1, bias=False), fnn.Quadratic(), params, (x, y), structure, **options)
        of_targets = s**2 * np.eye(7) + x @ x.T / tau
        wanted = -(y.T @ np.linalg.solve(of_targets, y))[0, 0] / 2 - np.linalg.slogdet(2 * math.pi * of_targets)[1] / 2
        assert laplace.log_marginal_likelihood(posterior) == pytest.approx(wanted, rel=1e-12)
        variance = laplace.targets(posterior, x).variance[:, 0]
        oracle.assert_close(variance, np.diag(x @ np.linalg.inv(precision) @ x.T) + s**2, 1e-12)


# ---- the evidence at its maximum -------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_tuned_is_the_maximum_of_the_evidence(structure):
    for posterior, free in (
        (fitted("mlp", structure), ("prior_precision",)),
        (fitted("mlp", structure, last_layer=True), ("prior_precision",)),
        (regression(fnn.MeanSquaredError(), structure)[2], ("prior_precision", "noise")),
    ):
        best = laplace.tuned(posterior)
        most = laplace.log_marginal_likelihood(best)
        assert most > laplace.log_marginal_likelihood(posterior)
        for name in free:
            at = lambda f: laplace.log_marginal_likelihood(best._replace(**{name: f * getattr(best, name)}))  # noqa: B023
            up, down = at(1.0001), at(1 / 1.0001)
            assert max(up, down) < most
            assert abs(up - down) < 1e-3 * (2 * most - up - down), "the parabola's top is here"
        assert best.noise == 1 or "noise" in free


def test_the_noise_is_kept_if_it_is_known():
    posterior = regression(fnn.Quadratic())[2]
    best = laplace.tuned(posterior, noise=False)
    assert best.noise == posterior.noise
    h = posterior.curvature.values / 0.36
    gamma = (h / (h + best.prior_precision)).sum()
    assert gamma == pytest.approx(best.prior_precision * (flattened(posterior.params) ** 2).sum(), rel=1e-12)


# ---- what is drawn and predicted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frozen below", *["symbols"] * THOROUGH])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_samples_have_the_mean_and_the_covariance(name, structure):
    posterior, count = fitted(name, structure), 2000 if THOROUGH else 120
    drawn = laplace.sample(posterior, key(), count)
    draws = np.concatenate([leaf.reshape(count, -1) for leaf in trees.leaves(drawn)], axis=1)
    draws = draws - flattened(posterior.params)
    sigma = covariance(posterior)
    of_entry = np.sqrt((np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2) / count)  # of a product of Gaussians
    assert (abs(draws.T @ draws / count - sigma) <= 5.5 * of_entry).all()
    assert (abs(draws.mean(axis=0)) <= 4.5 * np.sqrt(np.diag(sigma) / count)).all()
    certain = np.diag(sigma) == 0
    assert (draws[:, certain] == 0).all()


def test_samples_of_outputs_are_those_of_the_linearized_network():
    posterior, p, j = fitted("mlp", "kronecker"), problem("mlp"), dense_of("mlp").jacobian
    drawn = laplace.sample(posterior, key(), 4)
    moved = np.stack([flattened(trees.map(lambda leaf: leaf[s], drawn)) for s in range(4)])  # noqa: B023
    wanted = p.net.forward(p.params, p.x)[0] + np.einsum("nkp,sp->snk", j, moved - flattened(p.params))
    oracle.assert_close(laplace.output_samples(posterior, p.x, key(), 4), wanted, 1e-12)
    mean, spread = fnn.ensemble(p.net, p.loss)(drawn, p.x)
    assert mean.shape == spread.shape == (5, 3)
    tags, q = fitted("tags", "kronecker"), problem("tags")
    assert laplace.output_samples(tags, q.x, key(), 2).shape == (2, 5, 4, 3), "at each position"


@pytest.mark.parametrize("name", ["mlp", "bits"])
def test_probabilities_are_averages(name):
    posterior, p, count = fitted(name, "kronecker"), problem(name), 40 if name == "mlp" else 120
    j, mean = dense_of(name).jacobian, p.net.forward(p.params, p.x)[0]
    variance = np.einsum("nkp,pq,nkq->nk", j, covariance(posterior), j)
    z = mean / np.sqrt(1 + math.pi * variance / 8)
    odds = np.exp(z)
    wanted = odds / odds.sum(axis=1, keepdims=True) if name == "mlp" else odds / (1 + odds)
    oracle.assert_close(laplace.probabilities(posterior, p.x), wanted, 1e-13)
    drawn = p.loss.predict(laplace.output_samples(posterior, p.x, key(seed=4), count))
    sampled = laplace.probabilities(posterior, p.x, samples=count, sample_key=key(seed=4))
    oracle.assert_close(sampled, drawn.mean(axis=0), 1e-13)
    f = mean[..., None] + np.sqrt(variance)[..., None] * np.polynomial.hermite_e.hermegauss(40)[0]
    if name == "bits":  # one integral for each output
        weights = np.polynomial.hermite_e.hermegauss(40)[1] / math.sqrt(2 * math.pi)
        exact = (weights / (1 + np.exp(-f))).sum(axis=-1)
        assert (abs(sampled - exact) <= 5 * drawn.std(axis=0) / math.sqrt(count)).all()
        assert abs(wanted - exact).max() < 0.02, "the probit is an approximation"


def test_a_last_layer_of_many_outputs_takes_little_memory():
    """512 × 3,100: the variance takes no matrix but those of the factors' eigenvectors."""
    rng, inputs, classes = np.random.default_rng(0), 512, 3100
    net = fnn.Dense(classes)
    eigen = Eigen(*(np.eye(n, dtype=np.float32) for n in (inputs + 1, classes)), np.ones((classes, inputs + 1), "f"))
    params = net.init(key(), (inputs,))
    held = [fnn.backend.Held(thing) for thing in (net, fnn.SoftmaxCrossEntropy())]
    one = np.float32(1)
    posterior = laplace.Posterior(*held, params, fnn.DenseParams(eigen, None), one, one, one, one)
    x = rng.normal(size=(64, inputs)).astype(np.float32)
    tracemalloc.start()
    variance = laplace.outputs(posterior, x).variance
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(variance, np.repeat((1 + (x**2).sum(axis=1, keepdims=True)) / 2, classes, axis=1), 1e-5)
    assert peak + sum(leaf.nbytes for leaf in trees.leaves(posterior.curvature)) < 200e6


# ---- JAX -------------------------------------------------------------------------------------------------------------


ON_JAX = [("bits", "kronecker"), ("mlp", "full")]
ON_JAX += [(n, s) for n in ("mlp", "images", "symbols", "own", "few positions") for s in STRUCTURES] * THOROUGH


@pytest.mark.parametrize(("name", "structure"), ON_JAX)
def test_jax_computes_the_same(name, structure, needs_jax):
    p, last = problem(name), name in NO_TANGENT or structure == "full"  # on NumPy there is no other tangent
    wanted = fitted(name, structure, last_layer=last)
    with wide():
        params, x, y, weights = on("jax", tuple(p[2:]))
        options = {"prior_precision": TAU, "batch_size": 5, "last_layer": last}
        found = laplace.fit(p.net, p.loss, params, (x, y, weights), structure, **options)
        best, drawn = laplace.tuned(found), oracle.quick_jit(laplace.outputs)(found, x)
        evidence = laplace.log_marginal_likelihood(best)
        sampled = laplace.output_samples(found, x[:1], key("jax"), 2) if THOROUGH else None
    oracle.assert_close(covariance(on("numpy", found)), covariance(wanted), 1e-11)
    oracle.assert_close(on("numpy", tuple(drawn)), tuple(laplace.outputs(wanted, p.x)), 1e-11)
    assert float(evidence) == pytest.approx(laplace.log_marginal_likelihood(laplace.tuned(wanted)), rel=1e-12)
    assert sampled is None or sampled.shape == (2, 1, p.net.output_shape(x.shape[1:])[0])


# ---- what is refused -------------------------------------------------------------------------------------------------

NET, LOSS = NETS["mlp"], fnn.SoftmaxCrossEntropy()


def of_mlp(loss=LOSS, net=NET, y=None, **options):
    p = problem("mlp")
    return laplace.fit(net, loss, p.params, (p.x, p.y if y is None else y, p.weights), **options)


REFUSED = {
    "structure: expected one of ('diagonal', 'kronecker', 'full'), got 'block'": lambda: of_mlp(structure="block"),
    "kind: expected one of": lambda: of_mlp(kind="hessian"),
    "samples: expected None": lambda: of_mlp(kind="empirical", samples=1),
    "sample_key: expected a key for the samples": lambda: of_mlp(kind="fisher", samples=1),
    "with prior_precision > 0, got prior_precision = 0": lambda: of_mlp(prior_precision=0),
    "with noise > 0, got noise = -1": lambda: of_mlp(noise=-1.0),
    "noise: expected 1, as": lambda: of_mlp(noise=0.5),
    "batch_size: expected an integer of at least 1": lambda: of_mlp(batch_size=0),
    "loss: expected a mean over the examples": lambda: of_mlp(fnn.RootMeanSquaredError(), y=np.zeros((5, 3))),
    "net: expected one whose last layer with parameters is a Dense": lambda: fitted("pixels", "full", last_layer=True),
    "expected parameters that learn, got none": lambda: nothing(),
    "posterior: expected one that fnn.laplace.fit made, got ()": lambda: laplace.outputs((), np.zeros((1, 5))),
    "prior_precision: expected a number above 0": lambda: laplace.sample(
        fitted("mlp", "diagonal")._replace(prior_precision=-1.0), key(), 1
    ),
    "expected a network with outputs (N, K), got (5, 4, 3)": lambda: laplace.outputs(
        fitted("tags", "diagonal"), problem("tags").x
    ),
    "use fnn.laplace.probabilities for classes": lambda: laplace.targets(fitted("mlp", "diagonal"), problem("mlp").x),
    "use fnn.laplace.targets for a regression": lambda: laplace.probabilities(
        regression(fnn.Quadratic())[2], problem("bits").x
    ),
    "sample_key: expected a key": lambda: laplace.probabilities(fitted("mlp", "full"), problem("mlp").x, samples=3),
    "samples: expected an integer of at least 1": lambda: laplace.sample(fitted("mlp", "diagonal"), key(), 0),
    "expected parameters other than 0": lambda: laplace.tuned(of_zeros()),
    "expected shape (6, 4), got (6, 5) for x of shape (N, 4)": lambda: laplace.outputs(
        fitted("mlp", "diagonal"), np.zeros((2, 4))
    ),
}


def nothing():
    net = fnn.Serial((fnn.Frozen(fnn.Dense(3)),))
    return laplace.fit(net, LOSS, net.init(key(), (5,)), (problem("mlp").x, problem("mlp").y))


def of_zeros():
    p = problem("mlp")
    return fitted("mlp", "diagonal")._replace(params=trees.map(np.zeros_like, p.params))


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_arguments_are_refused(message):
    with pytest.raises(errors.FnnError) as error:
        REFUSED[message]()
    assert message in str(error.value)


def test_a_posterior_is_saved_and_loaded(tmp_path):
    posterior = fitted("mlp", "kronecker", last_layer=True)
    fnn.checkpoints.save(tmp_path / "posterior.npz", posterior)
    again = fnn.checkpoints.load(tmp_path / "posterior.npz", backend="numpy").tree
    x = problem("mlp").x
    oracle.assert_close(tuple(laplace.outputs(again, x)), tuple(laplace.outputs(posterior, x)), 0)

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
SOME = ["linear", "mlp", "norms", "frozen between", "own", "few positions", "images", "symbols", "bits", "probabilities"]
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
def test_the_posterior_is_that_of_dense_algebra(name, structure):
    if structure != "full" or name not in NO_TANGENT:
        check(name, structure)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", LAST)
def test_the_last_layer_alone_is_the_last_block(name, structure):
    posterior = check(name, structure, last_layer=True)
    h = posterior.curvature.vectors if structure == "full" else posterior.curvature
    assert len([node for _, node in pairs(posterior.params, h) if node is not None]) == 1 + (structure != "kronecker")

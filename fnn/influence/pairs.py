"""Scores of pairs of queries and training examples, by a damped curvature matrix, and TracIn.

scores    sⱼ g_q · (H + λ)⁻¹ gⱼ        top    the largest and smallest of them        tracin    Σ η g_q · wⱼ gⱼ
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backend, checks, factors, trees
from ..backend import cast, namespace
from ..devices import on_any_axes
from ..errors import ArgumentError, KindError, integer, real, shorten, usage
from ..layers import Layer
from ..layers.base import Array
from ..losses import Loss
from . import inverses
from .passes import check, columns, entered, factors_of, over, rows, weighted, with_shares

BLOCK = 2**27  # bytes of the queries' gradients that are made at a time


@on_any_axes
@usage("fnn.influence.scores(net, loss, damping)(params, curvature, queries, training)")
def scores(net: Layer, loss: Loss, damping: Any, *, batch_size: int = 1024) -> Callable[..., Array]:
    """Make the function that computes the influence of training examples on queries.

        s_qj = (wⱼ / Σ w) g_q · (H + λ)⁻¹ gⱼ

    It is the predicted increase of the cost of query q if example j is left out of the training, to first order, where
    the gradient of the mean cost and its penalty is 0. Penalties belong to no example; their part of H is the damping.

    `Kronecker` blocks are damped as in K-FAC, (A + π√λ) ⊗ (G + √λ/π) with π² = (tr A / I) / (tr G / O), so that scores
    are products of small products and no gradient is made. The damping A ⊗ G + λ of the same blocks in their
    eigenvectors, `fnn.curvature.eigen(blocks)`, does not separate, nor does that of `ekfac`: this takes as long as
    making the gradient of each example for every query.

    Args:
        net: the network.
        loss: the cost, a mean over the examples.
        damping: λ > 0, in units of the curvature of the mean cost.
        batch_size: how many training examples, and at most how many queries, are in memory at a time. Default: 1024.

    Returns:
        `(params, curvature, queries, training) -> scores` (Q, N), in float32 or wider. The curvature is that of the
        mean cost: blocks of `fnn.curvature.kfac` or `ekfac`, or for small networks a `matrix` (P, P). Queries and
        training are `(x, y)` or `(x, y, weights)`; the weights of queries multiply their rows.

    Raises:
        ShapeError: from the function returned, for a curvature of other parameters.

    Source: P. Koh, P. Liang, "Understanding black-box predictions via influence functions" (2017), eq. 2; EK-FAC: R.
    Grosse et al., "Studying large language model generalization with influence functions" (2023); the damping of
    Kronecker products: J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored approximate
    curvature" (2015), §6.3.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.curvature import kfac
    >>> net, loss, params = Dense(1, bias=False), Quadratic(), DenseParams(np.ones((1, 1)), ())
    >>> training = [[1.0], [3.0]], [[2.0], [3.0]]
    >>> blocks = kfac(net, loss)(params, *training)
    >>> scores(net, loss, damping=1e-12)(params, blocks, ([[1.0]], [[3.0]]), training).round(3).tolist()
    [[0.2, 0.0]]
    """
    begin = _begin(net, loss, damping, batch_size)

    def run(params, curvature, queries, training):
        rows, score, training = begin(params, curvature, queries, training)
        return rows(lambda block: columns(score(block), batch_size, training))

    return run


class Most(NamedTuple):
    """For each query k training examples, the most influential first: their indices (Q, k) and scores (Q, k)."""

    indices: Array
    scores: Array


class Top(NamedTuple):
    """The examples of the largest scores, which help, and those of the smallest, which harm."""

    helpful: Most
    harmful: Most


@on_any_axes
@usage("fnn.influence.top(net, loss, damping, 10)(params, curvature, queries, training)")
def top(net: Layer, loss: Loss, damping: Any, k: int = 10, *, batch_size: int = 1024) -> Callable[..., Top]:
    """Make the function that finds the most helpful and the most harmful training examples of each query.

    The scores are those of `scores`, of which only 2 k for each query are kept.

    Args:
        net: as for `scores`; so are the others.
        loss: the cost, a mean over the examples.
        damping: λ > 0.
        k: how many, at most all. Default: 10.
        batch_size: how many training examples, and at most how many queries, are in memory at a time. Default: 1024.

    Returns:
        `(params, curvature, queries, training) -> Top`.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.curvature import kfac
    >>> net, loss, params = Dense(1, bias=False), Quadratic(), DenseParams(np.ones((1, 1)), ())
    >>> training = [[1.0], [3.0], [1.0]], [[2.0], [3.0], [0.0]]
    >>> found = top(net, loss, 1e-6, k=1)(params, kfac(net, loss)(params, *training), ([[1.0]], [[3.0]]), training)
    >>> found.helpful.indices.tolist(), found.harmful.indices.tolist()
    ([[0]], [[2]])
    """
    begin, k = _begin(net, loss, damping, batch_size), integer("k", k, least=1)

    def run(params, curvature, queries, training):
        rows, score, training = begin(params, curvature, queries, training)
        return rows(lambda block: _extremes(score(block), min(k, training.size), batch_size, training, block.size))

    return run


@on_any_axes
@usage("fnn.influence.tracin(net, loss)(checkpoints, learning_rates, queries, training)")
def tracin(net: Layer, loss: Loss, *, batch_size: int = 1024) -> Callable[..., Array]:
    """Make the function that computes TracIn: by how much gradient descent on an example lowers the cost of a query.

        s_qj = Σ_t η_t g_q(θ_t) · wⱼ gⱼ(θ_t)        over checkpoints θ_t, with learning rates η_t

    The scores are those of steps on single examples. With batches of B divide them by B, and multiply them by the
    epochs that each checkpoint stands for.

    Args:
        net: the network.
        loss: the cost, a mean over the examples.
        batch_size: how many training examples, and queries, are in memory at a time. Default: 1024.

    Returns:
        `(checkpoints, learning_rates, queries, training) -> scores` (Q, N), for a list of parameters, and a learning
        rate for each or one for all.

    Source: G. Pruthi, F. Liu, S. Kale, M. Sundararajan, "Estimating training data influence by tracing gradient
    descent" (2020), TracInCP.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> training = [[1.0], [3.0]], [[2.0], [3.0]]
    >>> tracin(Dense(1, bias=False), Quadratic())([params], 0.1, ([[1.0]], [[3.0]]), training).round(3).tolist()
    [[0.2, 0.0]]
    """
    check(net, loss, batch_size)

    def run(checkpoints, learning_rates, queries, training):
        total: Any = 0
        for params, rate in _checkpoints(checkpoints, learning_rates):
            of_queries, of_training = entered(net, loss, params, queries, training)
            of_block = _in_blocks(net, loss, params, batch_size, of_training)
            total = total + rate * rows(of_block, batch_size, of_queries)
        return total

    return run


def _in_blocks(net, loss, params, batch_size, training):
    """`queries -> g_q · wⱼ gⱼ (Q, N)`, over blocks of training examples."""
    make = factors_of(net, loss, params, net.factors)

    def of_queries(block):
        f = make(block)
        score = lambda data: weighted(factors.products(f, make(data)), block.weights, data.weights)
        return columns(score, batch_size, training)

    return of_queries


# ---- what they share -------------------------------------------------------------------------------------------------


def _begin(net, loss, damping, batch_size):
    """`(params, curvature, queries, training) -> (rows, score, training)`: what `scores` and `top` have in common.

    `score(queries)(examples)` are the scores of two blocks, and `rows(f)` joins what `f` gives for blocks of queries.
    """
    check(net, loss, batch_size)
    checks.positive("damping", damping)

    def begin(params, curvature, queries, training):
        queries, training = entered(net, loss, params, queries, training)
        curvature, training = inverses.entered(params, curvature), with_shares(params, training)
        if inverses.separates(curvature):
            precondition, size = inverses.by_products(params, curvature, damping), batch_size
        else:
            precondition = inverses.by_gradients(params, curvature, damping)
            of_one = 4 * sum(p.size for p in trees.leaves(params))
            size = min(batch_size, max(1, BLOCK // of_one))
        make = factors_of(net, loss, params, net.outer_factors)

        def score(block):
            product = precondition(make(block), block.size)
            return lambda data: weighted(product(make(data)), block.weights, data.weights)

        return lambda f: rows(f, size, queries), score, training

    return begin


def _checkpoints(checkpoints, learning_rates):
    """`(parameters, learning rate)` of each checkpoint."""
    if not isinstance(checkpoints, list | tuple) or hasattr(checkpoints, "_fields") or not checkpoints:
        raise KindError(f"checkpoints: expected a list of parameters, got {shorten(checkpoints)}")
    rates = [learning_rates] * len(checkpoints) if np.ndim(learning_rates) == 0 else list(learning_rates)
    if len(rates) != len(checkpoints):
        raise ArgumentError(f"learning_rates: expected {len(checkpoints)}, one for each checkpoint, got {len(rates)}")
    for i, rate in enumerate(rates):
        if not backend.is_traced(rate):
            real(f"learning_rates[{i}]", rate.item() if getattr(rate, "ndim", None) == 0 else rate, least=0)
    return list(zip(checkpoints, rates, strict=True))


def _extremes(score, k, size, training, queries):
    """The k largest and the k smallest scores of each query, over blocks of training examples."""
    xp, dtype = namespace(training.weights), training.weights.dtype
    none = Most(xp.zeros((queries, k), np.int32), xp.full((queries, k), -np.inf, dtype))

    def step(carry, start, block):
        found = cast(score(block), dtype)
        indices = xp.broadcast_to(start + xp.arange(block.size, dtype=np.int32), found.shape)
        signed = zip(carry, (found, -found), strict=True)
        return tuple(_largest(most, Most(indices, values), k) for most, values in signed), ()

    (helpful, harmful), _ = over(step, (none, none), size, training)
    helpful, harmful = (_taken(most, xp.argsort(-most.scores, axis=1)) for most in (helpful, harmful))
    return Top(helpful, harmful._replace(scores=-harmful.scores))


def _largest(most, more, k):
    """The k largest of both, in any order."""
    xp = namespace(more.scores)
    both = Most(*(xp.concatenate(pair, axis=1) for pair in zip(most, more, strict=True)))
    return _taken(both, xp.argpartition(-both.scores, k - 1, axis=1)[:, :k])


def _taken(most, order):
    return Most(*(namespace(v).take_along_axis(v, order, axis=1) for v in most))

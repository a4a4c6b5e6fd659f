"""Passes over the examples, a block at a time: what enters, the factors of a block, and what is said of all blocks."""

from typing import Any

import numpy as np

from .. import backend, examples, gate, trees
from ..backend import at_least_float32, cast, namespace
from ..backpropagation import check_problem, cost, shares_of
from ..curvature.columns import shared
from ..errors import KindError, integer, shorten
from ..per_example import check_separable


def check(net, loss, batch_size=1):
    """Raise unless each example has a cost of its own, and the batch size is an integer of at least 1."""
    check_problem(net, loss)
    check_separable(loss)
    integer("batch_size", batch_size, least=1)


def entered(net, loss, params, queries, training) -> tuple[examples.Data, examples.Data]:
    """Queries and training examples as `Data`, checked; raises if there is nothing to learn."""
    if not trees.learnt(params):
        raise KindError(f"net: expected a network that learns something, got {shorten(net)}")
    return gate.dataset(net, loss, params, queries, "queries"), gate.dataset(net, loss, params, training, "training")


def with_shares(params, training) -> examples.Data:
    """Training data with s = w / Σ w (N,), or 1 / N, in place of the weights."""
    leaves = trees.leaves(params)
    xp, dtype = namespace(*leaves, *trees.leaves(training.x)), at_least_float32(np.result_type(*leaves))
    return training._replace(weights=xp.zeros(training.size, dtype) + shares_of(training.weights, training.size))


def factors_of(net, loss, params, make):
    """`data -> factors` of each example's unweighted gradient, by a method of the network."""

    def of(data):
        prediction, residuals = net.forward(params, data.x)
        _, delta, dtype = cost(loss, prediction, data.y)
        return make(params, residuals, net.propagate(params, residuals, cast(delta, dtype), need_dx=False)[1])

    return of


def weighted(products, of_queries, of_examples):
    """Products (Q, N) times the weights of both, which may be None."""
    products = products if of_examples is None else shared(products, of_examples, axis=1)
    return products if of_queries is None else shared(products, of_queries)


def rows(f, size, queries) -> Any:
    """A tree of arrays (Q, ...), from those that `f` gives for each block of at most `size` queries."""
    return over(lambda _, start, block: ((), f(block)), (), size, queries)[1]


def columns(score, size, training) -> Any:
    """Scores (Q, N), from those that `score` gives for each block of at most `size` training examples."""
    return over(lambda _, start, block: ((), score(block).T), (), size, training)[1].T


def over(f, carry, size, data) -> tuple[Any, Any]:
    """`(carry, outputs)` of `f(carry, start, block) -> (carry, output)` over blocks of at most `size` examples in turn.

    The outputs, trees of arrays whose first axis is that of the block's examples, are joined.
    """
    n = data.size
    number = -(-n // size)
    size = n // number  # blocks of the same size; fewer than `number` examples are left
    blocks = trees.map(lambda a: a[: number * size].reshape(number, size, *a.shape[1:]), data)
    starts = namespace(*trees.leaves(data.x)).arange(number, dtype=np.int32) * size
    carry, outputs = backend.scan(lambda carry, block: f(carry, *block), carry, (starts, blocks))
    outputs = trees.map(lambda a: a.reshape(-1, *a.shape[2:]), outputs)
    if number * size == n:
        return carry, outputs
    carry, rest = f(carry, number * size, trees.map(lambda a: a[number * size :], data))
    return carry, trees.map(lambda a, b: namespace(a, b).concatenate([a, b]), outputs, rest)

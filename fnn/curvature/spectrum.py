"""What products with a curvature matrix tell of it: the matrix itself, its trace, its eigenvalues.

Each function here takes a product, such as `ggn_product(net, loss)`, and gives a function of the same arguments but v.
P is the number of parameters, in the order of `trees.leaves`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backend, random, trees
from ..backend import at_least_float32, cast, namespace
from ..devices import on_any_axes
from ..errors import integer
from .output import signs


@on_any_axes
def matrix(product: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function that computes a curvature matrix, for small networks and tests: P products.

    Args:
        product: of this module, or any `(params, x, y, v, weights, key, ...) -> M v`.

    Returns:
        `(params, x, y, weights=None, key=None, ...) -> M` (P, P), with the rows and columns of the flattened
        parameters, one leaf after the other; those of frozen parameters are 0.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.curvature import ggn_product
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> matrix(ggn_product(Dense(1, bias=False), Quadratic()))(params, [[1.0, 2.0]], [[0.0]]).tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """

    def run(params, x, y, *rest, **options):
        column = lambda v: flat(product(params, x, y, like(params, v), *rest, **options))
        xp, size = namespace(*trees.leaves(params)), len(flat(params))
        return backend.vmap(column)(xp.eye(size, dtype=flat(params).dtype)).T

    return run


class Estimate(NamedTuple):
    """An estimate without bias, and its standard error, which is infinite for one sample."""

    value: Any
    error: Any


@on_any_axes
def trace(product: Callable[..., Any], samples: int = 30) -> Callable[..., Estimate]:
    """Make the function that estimates the trace of a curvature matrix from products with random signs.

        tr M = E[vᵀ M v],  v = ±1

    Args:
        product: as for `matrix`.
        samples: how many products are averaged. Default: 30.

    Returns:
        `(params, x, y, weights=None, key=None, sample_key=None, ...) -> Estimate`. Without a `sample_key` it is that of
        the seed 0.

    Source: M. Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1990).

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.curvature import ggn_product
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> trace(ggn_product(Dense(1, bias=False), Quadratic()))(params, [[2.0]], [[0.0]])
    Estimate(value=np.float64(4.0), error=np.float64(0.0))
    """
    samples = integer("samples", samples, least=1)

    def run(params, x, y, *rest, sample_key=None, **options):
        def one(total, i):
            v = random_signs(params, random.fold_in(key, i))
            drawn = flat(v) @ flat(product(params, x, y, v, *rest, **options))
            return (total[0] + drawn, total[1] + drawn * drawn), ()

        key, zero = key_of(params, sample_key), 0 * flat(params).sum()
        indices = namespace(zero).arange(samples, dtype=np.int32)
        (total, square), _ = backend.scan(one, (zero, zero), indices)
        mean = total / samples
        spread = namespace(mean).maximum(square / samples - mean * mean, 0)
        error = namespace(mean).sqrt(spread / (samples - 1)) if samples > 1 else mean * 0 + np.inf
        return Estimate(mean, error)

    return run


class Eigenvalues(NamedTuple):
    """Ritz values, the largest first, which approach the eigenvalues from both ends of the spectrum inwards.

    values     (steps,); the last ones are NaN if there are fewer distinct eigenvalues, since a multiple one is found
               once
    errors     (steps,): within this distance of each value there is an eigenvalue
    weights    (steps,), which sum to 1: Σ weight f(value) estimates tr f(M) / P, and so the density of the spectrum
    """

    values: Any
    errors: Any
    weights: Any


@on_any_axes
def eigenvalues(product: Callable[..., Any], steps: int = 50) -> Callable[..., Eigenvalues]:
    """Make the function that computes eigenvalues of a curvature matrix by the Lanczos algorithm, one product a step.

    The new direction of each step is made orthogonal to all before, twice, so that no eigenvalue appears again. It
    takes `steps` times the memory of the parameters.

    Args:
        product: as for `matrix`, of a symmetric matrix.
        steps: how many products; more make more of the values exact. Default: 50, or P if that is less.

    Returns:
        `(params, x, y, weights=None, key=None, sample_key=None, ...) -> Eigenvalues`; `sample_key` is that of the first
        direction. Default: that of the seed 0.

    Source: C. Lanczos, "An iteration method for the solution of the eigenvalue problem" (1950); for the density
    B. Ghorbani, S. Krishnan, Y. Xiao, "An investigation into neural net optimization via Hessian eigenvalue density"
    (2019); for the errors B. Parlett, "The symmetric eigenvalue problem" (1998), §13.2.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.curvature import ggn_product
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> values = eigenvalues(ggn_product(Dense(1, bias=False), Quadratic()))(params, [[1.0, 2.0]], [[0.0]]).values
    >>> abs(values.round(6)).tolist()
    [5.0, 0.0]
    """
    steps = integer("steps", steps, least=1)

    def run(params, x, y, *rest, sample_key=None, **options):
        start = flat(params)
        xp, size = namespace(start), len(start)
        count = min(steps, size)
        places = xp.arange(count + 1)

        def step(carry, j):
            basis, size = carry
            q = basis[j]
            w = flat(product(params, x, y, like(params, q), *rest, **options))
            alpha = w @ q
            for _ in range(2):
                w = w - (basis @ w) @ basis
            beta = xp.sqrt(w @ w)
            size = xp.maximum(size, abs(alpha) + beta)
            over = beta <= 100 * np.finfo(w.dtype).eps * size  # what is left is rounding
            w = xp.where(over, 0, w / xp.where(over, 1, beta))
            return (basis + (places == j + 1)[:, None] * w, size), (alpha, xp.where(over, 0, beta))

        first = random.normal(key_of(params, sample_key), (size,), start.dtype)
        basis = (places == 0)[:, None] * (first / xp.sqrt(first @ first))
        (_, norm), (alpha, beta) = backend.scan(step, (basis, 0 * start.sum()), places[:-1])
        reached = places[:-1] < xp.cumprod(beta > 0).sum() + 1
        alpha = xp.where(reached, alpha, -4 * norm - 1)  # below all eigenvalues
        tridiagonal = xp.diag(alpha) + xp.diag(beta[:-1], 1) + xp.diag(beta[:-1], -1)
        values, vectors = xp.linalg.eigh(tridiagonal)
        values, vectors = values[::-1], vectors[:, ::-1]
        lost = lambda found: xp.where(reached, found, np.nan)
        return Eigenvalues(lost(values), lost(beta[-1] * abs(vectors[-1])), xp.where(reached, vectors[0] ** 2, 0))

    return run


# ---- trees as vectors ------------------------------------------------------------------------------------------------


def flat(tree):
    """All numbers of a tree as one vector, in float32 or wider."""
    leaves = trees.leaves(tree)
    xp = namespace(*leaves)
    dtype = at_least_float32(np.result_type(*(leaf.dtype for leaf in leaves))) if leaves else np.float32
    return xp.concatenate([cast(leaf, dtype).reshape(-1) for leaf in leaves]) if leaves else xp.zeros(0, dtype)


def like(params, vector):
    """A vector as a tree nested as the parameters."""
    start, parts = 0, []
    for p in trees.leaves(params):
        parts.append(cast(vector[start : start + p.size], p.dtype).reshape(p.shape))
        start += p.size
    parts = iter(parts)
    return trees.map(lambda _: next(parts), params)


def random_signs(params, key):
    """A tree of −1 and 1, nested as the parameters."""
    numbers = iter(range(len(trees.leaves(params))))
    return trees.map(lambda p: signs(random.fold_in(key, next(numbers)), p.shape, p.dtype), params)


def key_of(params, key):
    """The key on the backend of the parameters; that of the seed 0 if there is none."""
    xp = namespace(*trees.leaves(params))
    return random.like(random.key(0, backend="numpy") if key is None else key, xp)

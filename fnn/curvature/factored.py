"""K-FAC and EK-FAC: the block of each weight W (O, I) of a curvature matrix as a Kronecker product A ⊗ G.

With gradients g = Σ_t δ_nrt a_ntᵀ for examples n, columns r of errors and positions t, the block is Σₙ sₙ Σᵣ vec g
(vec g)ᵀ. K-FAC takes the product of two means for this mean of products:

    A = Σₙ s̃ₙ aₙ aₙᵀ (I, I)        G = Σₙ sₙ Σᵣ δₙᵣ δₙᵣᵀ (O, O)        s̃ = s / Σ s, so that each weight counts once

    with positions    expand    A = (1/T) Σₙ s̃ₙ Σ_t a_nt a_ntᵀ        G = Σₙ sₙ Σᵣ_t δ_nrt δ_nrtᵀ
                      reduce    A of (1/T) Σ_t a_nt                   G of Σ_t δ_nrt

A bias `b` (O,) beside a weight `w` belongs to its block: a has a 1 appended. Gradients without factors have blocks of
their own: a vector its full matrix, with A = 1; a matrix M has G = Σ M Mᵀ and A = Σ MᵀM / tr G, those of Shampoo. For a
table of rows, A is the diagonal of the frequencies of the symbols.

EK-FAC keeps the eigenvectors, Q_A and Q_G, and computes the variances along them anew: Λ = Σₙ sₙ Σᵣ (Q_Gᵀ gₙᵣ Q_A)².

Sources: J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015); for
convolution R. Grosse, J. Martens (2016); exact for all columns A. Botev, H. Ritter, D. Barber (2017), KFLR; positions
R. Eschenhagen et al., "Kronecker-factored approximate curvature for modern neural network architectures" (2023); EK-FAC
T. George et al. (2018); V. Gupta, T. Koren, Y. Singer, "Shampoo" (2018), D. Morwani et al. (2024).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import factors, gate, trees
from ..backend import cast, namespace, widened
from ..backpropagation import check_problem
from ..devices import on_any_axes
from ..errors import ArgumentError, shorten, usage
from ..layers import Layer
from ..losses import Loss
from ..outer import Outer, Rows, added_rows
from ..per_example import check_separable
from .blocks import Kronecker, biases, eigen, is_block, with_ones
from .columns import begun, gram, shared, squares, stacked, summed
from .output import check_kind, sample_key_for

POSITIONS = ("expand", "reduce")


@on_any_axes
@usage("fnn.curvature.kfac(net, loss)(params, x, y)")
def kfac(
    net: Layer,
    loss: Loss,
    kind: str = "ggn",
    *,
    samples: int | None = None,
    positions: str = "expand",
    denominator: float | None = None,
) -> Callable[..., Any]:
    """Make the function that computes the Kronecker factors of a curvature matrix of the mean cost.

        block of W  ≈  A ⊗ G        A = Σₙ wₙ aₙ aₙᵀ / Σ w        G = Σₙ wₙ Σᵣ δₙᵣ δₙᵣᵀ / D

    Weights must be at least 0. The scale is that of `ggn_product`: A is a mean, and G has the scale of the cost.

    Args:
        net: the network.
        loss: the cost, a mean over the examples.
        kind: "ggn", with the exact errors of all outputs (KFLR); "fisher", that of the model's likelihood; or
            "empirical", with the targets of the data. Default: "ggn".
        samples: how many targets ("fisher") or random signs ("ggn") are drawn for each example. `kind="fisher",
            samples=1` is the usual K-FAC. Default: None, exact.
        positions: what is exact for a linear network, if weights are shared over positions: "expand" where each
            position has a cost of its own, "reduce" where they are averaged. Tables of rows always expand. Default:
            "expand".
        denominator: D. 1 gives the sum over the examples. Default: Σ w (N without weights), the mean.

    Returns:
        `(params, x, y, weights=None, key=None, sample_key=None) -> blocks`, nested as the parameters, with a
        `Kronecker` in place of each weight, and None for a bias, which belongs to its weight's block, and for frozen
        parameters. `sample_key` is the key of the samples; with `key` the layers are in training mode.

    Source: J. Martens, R. Grosse (2015), §3; A. Botev, H. Ritter, D. Barber (2017); R. Eschenhagen et al. (2023),
    eqs. 9 and 13.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> blocks = kfac(Dense(1, bias=False), Quadratic())(params, [[1.0, 2.0], [0.0, 4.0]], [[0.0], [0.0]])
    >>> blocks.w.a.tolist(), blocks.w.g.tolist()
    ([[0.5, 1.0], [1.0, 10.0]], [[1.0]])
    """
    begin = _begin(net, loss, kind, samples, positions, denominator)

    @usage("fnn.curvature.kfac(net, loss)(params, x, y)")
    def run(params, x, y, weights=None, key=None, sample_key=None):
        pass_, columns = begin(params, x, y, weights, key, sample_key)
        return blocks_of(pass_, columns, positions)

    return run


@on_any_axes
@usage("fnn.curvature.ekfac(net, loss)(params, x, y)")
def ekfac(
    net: Layer,
    loss: Loss,
    kind: str = "ggn",
    *,
    samples: int | None = None,
    positions: str = "expand",
    denominator: float | None = None,
) -> Callable[..., Any]:
    """Make the function that computes K-FAC with corrected eigenvalues, never further from the block than K-FAC.

        block of W  ≈  (Q_A ⊗ Q_G) diag Λ (Q_A ⊗ Q_G)ᵀ        Λ = Σₙ wₙ Σᵣ (Q_Gᵀ gₙᵣ Q_A)² / D

    Args:
        net: as for `kfac`; so are the others.
        loss: the cost, a mean over the examples.
        kind: "ggn", "fisher" or "empirical". Default: "ggn".
        samples: for the factors and for Λ, which use the same ones. Default: None, exact.
        positions: "expand" or "reduce", for the factors. Λ is that of the whole gradients. Default: "expand".
        denominator: D. Default: Σ w (N without weights).

    Returns:
        `(params, x, y, weights=None, key=None, sample_key=None, basis=None) -> blocks`, nested as the parameters, with
        an `Eigen` in place of each weight. With a basis, blocks of `Eigen` from elsewhere (such as all of the data),
        only Λ is computed.

    Source: T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent, "Fast approximate natural gradient descent in
    a Kronecker-factored eigenbasis" (2018), eq. 8.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> ekfac(Dense(1, bias=False), Quadratic())(params, [[3.0, 4.0]], [[0.0]]).w.values.round(9).tolist()
    [[0.0, 25.0]]
    """
    begin = _begin(net, loss, kind, samples, positions, denominator)

    @usage("fnn.curvature.ekfac(net, loss)(params, x, y)")
    def run(params, x, y, weights=None, key=None, sample_key=None, basis=None):
        pass_, columns = begin(params, x, y, weights, key, sample_key)
        basis = eigen(blocks_of(pass_, columns, positions)) if basis is None else basis
        of_errors = lambda f: _variances(pass_.params, f, basis, pass_.shares)
        values = iter(v for v in summed(pass_, columns, net.outer_factors, of_errors)[0] if v is not None)
        return trees.map(lambda block: block._replace(values=next(values)), basis, is_leaf=is_block)

    return run


def _begin(net, loss, kind, samples, positions, denominator):
    check_kind(kind, samples)
    check_positions(positions)
    check_problem(net, loss, denominator=denominator)
    check_separable(loss)

    def begin(params, x, y, weights, key, sample_key):
        params, data = gate.batch(net, loss, params, x, y, weights)
        sample_key, key = sample_key_for(samples, sample_key, data.x), gate.key_for(key, data.x)
        return begun(net, loss, params, data, kind, samples, denominator, key, sample_key)

    return begin


def check_positions(positions, where=""):
    """Raise unless it is one of the two ways to count positions."""
    if positions not in POSITIONS:
        raise ArgumentError(f"{where}positions: expected one of {POSITIONS}, got {shorten(positions)}")


# ---- the factors of the blocks ---------------------------------------------------------------------------------------


def kronecker(params: Any, f: Any, shares: Any, positions: str = "expand") -> Any:
    """Kronecker factors from the factors of one error for each example, such as those of a tape.

    Args:
        params: the parameters.
        f: `net.outer_factors(params, residuals, deltas)`.
        shares: s, (N,) or a number.
        positions: as for `kfac`.

    Returns:
        Blocks, as for `kfac`.

    >>> from fnn.factors import Outer
    >>> kronecker(np.zeros((1, 1)), Outer(np.array([[2.0]]), np.array([[3.0]])), 1.0)
    Kronecker(a=array([[9.]]), g=array([[4.]]))
    """
    return _finished(params, f, _of_errors(params, stacked(f), shares, positions), shares, positions)


def blocks_of(pass_, columns, positions):
    """`kfac` from a forward pass and the errors at its output."""
    of_errors = lambda f: _of_errors(pass_.params, f, pass_.shares, positions)
    total, one = summed(pass_, columns, pass_.net.outer_factors, of_errors)
    return _finished(pass_.params, one, total, pass_.shares, positions)


def _weights(params, f):
    """For each leaf `(parameter, factor, whether a bias belongs to it)`; the factor is None for what has no block."""
    pairs, of_weights = factors.pairs(params, f), biases(params)
    whole = lambda g: g is not None and not isinstance(g, Outer | Rows)
    joint = {i: j for i, j in of_weights.items() if isinstance(pairs[i][1], Outer) and whole(pairs[j][1])}
    return [(p, None if i in joint.values() else g, i in joint) for i, (p, g) in enumerate(pairs)]


def _of_errors(params, f, shares, positions):
    """What of each block depends on the errors, of stacked factors: G, and with it Σ MᵀM of a matrix kept whole."""
    return [None if g is None else _of_error(p, g, shares, positions) for p, g, _ in _weights(params, f)]


def _of_error(p, f, shares, positions):
    if isinstance(f, Outer | Rows):
        delta = widened(f.delta)
        shared_out = positions == "reduce" and isinstance(f, Outer) and delta.ndim == 4
        return gram(delta.sum(axis=2) if shared_out else delta, shares, axis=1)
    m = widened(f).reshape(*f.shape[:2], len(p) if p.ndim else 1, -1)
    of_rows = gram(m.swapaxes(2, 3), shares, axis=1)
    return of_rows if p.ndim < 2 else (of_rows, gram(m, shares, axis=1))


def _finished(params, f, of_errors, shares, positions):
    """The blocks, from the factors of one column and what depends on the errors."""
    of_leaves = zip(_weights(params, f), of_errors, strict=True)
    return factors.like(params, [_block(*weight, sums, shares, positions) for weight, sums in of_leaves])


def _block(p, f, bias, sums, shares, positions):
    if f is None:
        return None
    if not isinstance(f, Outer | Rows):
        g, a = (sums, namespace(sums).ones((1, 1), sums.dtype)) if p.ndim < 2 else sums
        size = g.trace()
        return Kronecker(a if p.ndim < 2 else a / namespace(g).where(size == 0, 1, size), g)
    means = means_of(shares, len(f.delta), sums.dtype)
    if isinstance(f, Rows):
        ones = namespace(f.index, means).ones(f.index.shape, sums.dtype) * means[:, None] / f.index.shape[1]
        return Kronecker(added_rows(p[:, 0], f.index.reshape(-1), ones.reshape(-1)), sums)
    a, t = widened(f.a), f.a.shape[1] if f.a.ndim == 3 else 1
    if f.a.ndim == 3 and positions == "reduce":
        a, t = a.mean(axis=1), 1
    second = gram(a, 1 / len(a) if isinstance(shares, float) else means) / t
    if bias:
        mean = shared(a, means).reshape(-1, a.shape[-1]).sum(axis=0)[:, None] / t
        xp = namespace(second)
        second = xp.concatenate(
            [xp.concatenate([second, mean], 1), xp.concatenate([mean.T, means.sum()[None, None]], 1)]
        )
    return Kronecker(second, sums)


def means_of(shares, n, dtype):
    """s / Σ s (N,), or 0 where Σ s is 0."""
    if isinstance(shares, float):
        return np.full(n, 1 / n, dtype)
    total = shares.sum()
    return cast(namespace(shares).where(total == 0, 0, shares / namespace(shares).where(total == 0, 1, total)), dtype)


# ---- the variances along the eigenvectors ----------------------------------------------------------------------------


def _variances(params, f, basis, shares):
    """Λ (O, I) of each leaf that has a block, of stacked factors."""
    blocks = [block for _, block in factors.pairs(params, basis)]
    of_leaves = zip(_weights(params, f), blocks, strict=True)
    return [None if b is None else _variance(p, g, bias, b, shares) for (p, g, bias), b in of_leaves]


def _variance(p, f, bias, block, shares):
    zeros = namespace(block.g).zeros(block.values.T.shape if block.a is None else block.values.shape, block.g.dtype)
    found = squares(zeros, _rotated(p, f, bias, block), shares)
    return found.T if block.a is None else found


def rotated(params: Any, f: Any, blocks: Any) -> tuple[list, list]:
    """The factors of gradients in the eigenvectors of the blocks, Q_Gᵀ gₙ Q_A, and the values of each, shaped alike.

    Args:
        params: the parameters.
        f: `net.outer_factors(params, residuals, deltas)`.
        blocks: of `eigen`, nested as the parameters.

    Returns:
        A factor for each block, and as many arrays Λ.
    """
    of_blocks = [block for _, block in factors.pairs(params, blocks)]
    of_leaves = [(*w, b) for w, b in zip(_weights(params, f), of_blocks, strict=True) if b is not None]
    values = [b.values.T if b.a is None else b.values for *_, b in of_leaves]
    return [_rotated(*leaf) for leaf in of_leaves], values


def _rotated(p, f, bias, block):
    if isinstance(f, Rows):
        return f._replace(delta=widened(f.delta) @ block.g)
    if isinstance(f, Outer):
        return Outer(widened(f.delta) @ block.g, (with_ones(f.a) if bias else widened(f.a)) @ block.a)
    return block.g.T @ widened(f).reshape(*f.shape[: f.ndim - p.ndim], len(block.g), -1) @ block.a

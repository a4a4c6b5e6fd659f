"""Blocks: a curvature matrix that is block-diagonal, each block a Kronecker product, and what it does to a vector.

    Kronecker    V -> G V A                             a block A ⊗ G
    Eigen        V -> Q_G (f(Λ) ⊙ (Q_Gᵀ V Q_A)) Q_Aᵀ    a function f of it, such as its damped inverse

A tree of blocks is nested as the parameters. The block of a weight `w` (O, ...) beside which there is a bias `b` (O,)
may have a last column for it, and then b has None; None also stands for what has no curvature, such as what is frozen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from .. import factors, trees
from ..backend import cast, namespace, widened
from ..devices import on_any_axes
from ..numerics import inverse


class Kronecker(NamedTuple):
    """A block A ⊗ G: V (O, I) becomes G V A.

    a    A (I, I), with a last row and column for the bias if it belongs to the block; for a table (V, O), whose
         transpose is the matrix, the diagonal of A (V,)
    g    G (O, O)
    """

    a: Any
    g: Any


class Eigen(NamedTuple):
    """A block in its eigenvectors: V (O, I) becomes Q_G (Λ ⊙ (Q_Gᵀ V Q_A)) Q_Aᵀ.

    a         Q_A (I, I), or None for a table, whose A is diagonal
    g         Q_G (O, O)
    values    Λ (O, I)
    """

    a: Any
    g: Any
    values: Any


def is_block(node):
    """Whether a node of a tree is a block rather than a container of blocks."""
    return isinstance(node, Kronecker | Eigen)


@on_any_axes
def eigen(blocks: Any) -> Any:
    """The same blocks in their eigenvectors: Λ = λ_G λ_Aᵀ, with eigenvalues of at least 0.

    Args:
        blocks: a tree of `Kronecker` or `Eigen`.

    Returns:
        The same tree with `Eigen`.

    >>> float(eigen(Kronecker(np.diag([1.0, 2.0]), np.array([[3.0]]))).values.sum())
    9.0
    """
    return trees.map(lambda block: _eigen(block), blocks, is_leaf=is_block)


def _eigen(block):
    if isinstance(block, Eigen):
        return block
    xp = namespace(block.g)
    of_g, q_g = xp.linalg.eigh(block.g)
    of_a, q_a = (block.a, None) if block.a.ndim == 1 else xp.linalg.eigh(block.a)
    return Eigen(q_a, q_g, xp.maximum(of_g, 0)[:, None] * xp.maximum(of_a, 0))


@on_any_axes
def damped_inverse(blocks: Any, damping: Any) -> Any:
    """The inverses of damped Kronecker products, which are Kronecker products too.

        (A + π√λ)⁻¹ ⊗ (G + √λ/π)⁻¹        π = √((tr A / I) / (tr G / O)), or 1 where a trace is 0

    Args:
        blocks: `Kronecker` blocks, as of `kfac`.
        damping: λ > 0.

    Returns:
        Blocks nested as those.

    Source: J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015),
    §6.3.

    >>> damped_inverse(Kronecker(np.array([[4.0]]), np.array([[1.0]])), 0.25).g.tolist()  # 1 / (1 + 0.5 / 2)
    [[0.8]]
    """
    return trees.map(lambda block: _damped_inverse(block, damping), blocks, is_leaf=is_block)


def _damped_inverse(block, damping):
    a, g = block
    xp, root = namespace(g), damping**0.5
    of_a, of_g = (a.mean() if a.ndim == 1 else a.trace() / len(a)), g.trace() / len(g)
    known = (of_a > 0) & (of_g > 0)
    pi = xp.sqrt(xp.where(known, of_a, 1) / xp.where(known, of_g, 1))
    added = lambda m, c: inverse(m + c * xp.eye(len(m), dtype=m.dtype))
    return Kronecker(1 / (a + pi * root) if a.ndim == 1 else added(a, pi * root), added(g, root / pi))


@on_any_axes
def block_product(
    params: Any, blocks: Any, v: Any, f: Callable[[Any], Any] | None = None, elsewhere: Any = None
) -> Any:
    """The product f(M) v of a function of the block-diagonal matrix M and a vector; by default M v.

    Args:
        params: the parameters.
        blocks: of `kfac` or `ekfac`.
        v: nested as the parameters.
        f: a function of the eigenvalues, such as `lambda values: 1 / (values + damping)`, for which Kronecker products
            are decomposed, unless they are `Eigen` already. Default: None, the matrix itself.
        elsewhere: what takes the place of the product where there is no block, nested as the parameters. Default: 0.

    Returns:
        The product, nested as the parameters.

    >>> params, v = np.zeros((1, 2)), np.array([[1.0, 1.0]])
    >>> block_product(params, Kronecker(np.diag([1.0, 2.0]), np.array([[3.0]])), v).tolist()
    [[3.0, 6.0]]
    """
    pairs = block_matrices(params, blocks, v)
    return from_matrices(params, blocks, [_times(block, matrix, f) for block, matrix in pairs], elsewhere)


def _times(block, v, f):
    if isinstance(block, Kronecker) and f is None:
        return block.g @ (v * block.a if block.a.ndim == 1 else v @ block.a)
    block = _eigen(block)
    rotated = block.g.T @ v if block.a is None else block.g.T @ v @ block.a
    rotated = block.g @ (rotated * (block.values if f is None else f(block.values)))
    return rotated if block.a is None else rotated @ block.a.T


@on_any_axes
def block_matrices(params: Any, blocks: Any, v: Any) -> list:
    """`(block, V)` for each block, with V (O, I) the matrix of v that it multiplies, the bias as its last column.

    Args:
        params: the parameters.
        blocks: a tree of blocks, as of `kfac`.
        v: a direction, nested as the parameters.

    Returns:
        A list of pairs.

    >>> block = Kronecker(np.eye(2), np.eye(1))
    >>> [matrix.shape for _, matrix in block_matrices(np.zeros((1, 2)), block, np.ones((1, 2)))]
    [(1, 2)]
    """
    leaves, found = trees.leaves(v), []
    for block, i, bias in places(params, blocks):
        matrix = cast(leaves[i], block.g.dtype)
        matrix = matrix.T if _of_table(block) else matrix.reshape(len(block.g), -1)
        if bias is not None:
            last = cast(leaves[bias], matrix.dtype)[:, None]
            matrix = namespace(matrix).concatenate([matrix, last], axis=1)
        found.append((block, matrix))
    return found


@on_any_axes
def from_matrices(params: Any, blocks: Any, matrices: list, elsewhere: Any = None) -> Any:
    """The inverse of `block_matrices`: a tree nested as the parameters, in their dtypes.

    Where there is no block it has the leaves of another tree, `elsewhere`, or 0.

    Args:
        params: the parameters.
        blocks: a tree of blocks, as of `kfac`.
        matrices: a matrix (O, I) for each block, in their order.
        elsewhere: a tree nested as the parameters. Default: 0.

    Returns:
        The tree.

    >>> from_matrices(np.zeros((1, 2)), Kronecker(np.eye(2), np.eye(1)), [np.array([[3.0, 4.0]])])
    array([[3., 4.]])
    """
    leaves = trees.leaves(params)
    new: list = [None] * len(leaves)
    for matrix, (block, i, bias) in zip(matrices, places(params, blocks), strict=True):
        if bias is not None:
            new[bias] = cast(matrix[:, -1], leaves[bias].dtype)
            matrix = matrix[:, :-1]
        new[i] = cast((matrix.T if _of_table(block) else matrix).reshape(leaves[i].shape), leaves[i].dtype)
    rest = [namespace(p).zeros_like(p) for p in leaves] if elsewhere is None else trees.leaves(elsewhere)
    return factors.like(params, [r if m is None else m for r, m in zip(rest, new, strict=True)])


def _of_table(block):
    return block.a is None or block.a.ndim == 1


def places(params, blocks):
    """`(block, index of its parameter, index of the bias that belongs to it, or None)`, by the leaves' order."""
    of_weights = biases(params)
    for i, (p, block) in enumerate(factors.pairs(params, blocks)):
        if block is not None:
            joint = not _of_table(block) and len(block.a) * len(block.g) > p.size
            yield block, i, of_weights[i] if joint else None


def biases(params) -> dict[int, int]:
    """For the index of each weight `w` (O, ...) that of the bias `b` (O,) beside it, in the order of the leaves."""
    paths = trees.paths(params, "")
    at = {place: i for i, (place, _) in enumerate(paths)}
    pairs = ((i, at.get(place[:-1] + "b")) for place, i in at.items() if place.endswith(".w"))
    return {i: j for i, j in pairs if j is not None and paths[j][1].shape == paths[i][1].shape[:1]}


def with_ones(a):
    """a (..., I) with a 1 appended, which a bias in the block multiplies: (..., I + 1), in float32 or wider."""
    a = widened(a)
    return namespace(a).concatenate([a, namespace(a).ones((*a.shape[:-1], 1), a.dtype)], axis=-1)

"""Factors: the gradient of each example, kept as a product for as long as possible.

The gradient of example n with respect to a matrix W (O, I) is a sum of outer products, one for each position t at which
the matrix is applied (a dense layer has one position, a convolution one for each patch):

    gₙ = Σ_t δ_nt a_ntᵀ        δ (N, T, O) or (N, O)        a (N, T, I) or (N, I)

All quantities of per-example gradients follow from δ and a, without materializing the gradients:

    total      Σₙ sₙ gₙ             contract(s δ, a)
    norm       ‖gₙ‖                 ‖δₙ‖ ‖aₙ‖;  with positions ‖gₙ‖² = Σ_ts (δ_nt · δ_ns)(a_nt · a_ns), or from gₙ
                                    itself
    products   gᵢ · gⱼ              (δᵢ · δⱼ)(aᵢ · aⱼ), likewise
    squares    Σₙ wₙ gₙ²            (w δ²)ᵀ a²
    along      gₙ · V               δₙ · V aₙ
    weighed    Σ D ⊙ gₙ²            δₙ² · D aₙ²

A tree of factors is nested as the parameters are. In place of each parameter it has an `Outer`, a `Rows`, an array
(N, ...) that is the gradient itself, or None (no gradient). The parameters come first in every traversal and determine
shapes and dtypes.

Sources: I. Goodfellow, "Efficient per-example gradient computations" (2015); with positions: G. Rochette, A. Manoel,
E. Tramel, "Efficient per-example gradient computations in convolutional neural networks" (2019).
"""

from typing import Any

import numpy as np  # noqa: F401 - for the examples

from . import outer, trees
from .numerics import length
from .outer import Outer as Outer
from .outer import Rows as Rows
from .outer import is_factor
from .pieces import in_turn

__all__ = ["Outer", "Rows", "along", "made", "norm", "norm2", "products", "scaled", "squares", "total"]


def pairs(params, factors) -> list:
    """`(parameter, factor)` for each leaf of the parameters, in order; None stands for everything below it."""
    if not isinstance(params, tuple | list | dict):
        return [(params, factors)]
    keys = sorted(params) if isinstance(params, dict) else range(len(params))
    below = [(params[key], None if factors is None else factors[key]) for key in keys]
    return [pair for branch in below for pair in pairs(*branch)]


def leaves(factors) -> list:
    """All factors of a tree that are not None."""
    return [f for f in trees.leaves(factors, is_leaf=is_factor) if f is not None]


def total(params: Any, factors: Any, scale: Any = None) -> Any:
    """Σₙ sₙ gₙ, the gradient as a scaled sum over the examples.

    With a scale the leaves are computed one after another, so that only one leaf's scaled errors are in memory at a
    time.

    Args:
        params: the parameters.
        factors: their factors.
        scale: s (N,); where it is 0, values that are not finite do not count. Default: 1.

    Returns:
        The sum, nested as the parameters and in their dtypes; a leaf without a factor gives zeros.

    >>> total(np.zeros((1, 2)), Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]])))
    array([[6., 6.]])
    """
    if scale is None:
        return like(params, [outer.total(p, f, None) for p, f in pairs(params, factors)])
    return like(params, in_turn(lambda pair, s: outer.total(pair[0], pair[1], s), pairs(params, factors), scale))


def made(params: Any, factors: Any, n: int | None = None) -> Any:
    """The gradients gₙ themselves, materialized.

    Args:
        params: the parameters.
        factors: their factors.
        n: the number of examples N. Default: that of the factors.

    Returns:
        The gradients, nested as the parameters, with leaves (N, ...); a leaf without a factor gives zeros.

    >>> made(np.zeros((1, 2)), Outer(np.array([[2.0]]), np.array([[1.0, 3.0]])))
    array([[[2., 6.]]])
    """
    n = next((outer.first(f).shape[0] for f in leaves(factors)), 0) if n is None else n
    return like(params, [outer.made(p, f, n) for p, f in pairs(params, factors)])


def scaled(factors: Any, scale: Any) -> Any:
    """The factors of sₙ gₙ, for s (N,).

    Args:
        factors: the factors of N examples.
        scale: s (N,).

    Returns:
        Factors of the same structure.

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> norm(scaled(factors, np.array([0.0, 0.5])))
    array([0., 2.])
    """
    return trees.map(lambda f: None if f is None else outer.scaled(f, scale), factors, is_leaf=is_factor)


def norm(factors: Any) -> Any:
    """‖gₙ‖ (N,) over all factors, in float32 or wider; it overflows only if the result itself does.

    Args:
        factors: the factors of N examples.

    Returns:
        ‖gₙ‖ (N,).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> norm(factors).round(3).tolist()
    [6.325, 4.0]
    """
    return length(*[outer.norm(f) for f in leaves(factors)])


def bound(factors: Any) -> Any:
    """An upper bound of ‖gₙ‖ (N,), for clipping: the norm, and what rounding may hide where positions cancel.

    In floating point Σ_t δ_t a_tᵀ is known to about u Σ_t ‖δ_t‖ ‖a_t‖, with u the spacing of numbers at 1, and an
    example can make that as large as it likes beside the norm. The bound is √(‖gₙ‖² + u √k (Σ_t ‖δ_t‖ ‖a_t‖)²) for k
    operations; without positions it is the norm.

    Source: N. Higham, T. Mary, "A new approach to probabilistic rounding error analysis" (2019), for √k.
    """
    return length(*[outer.norm(f, hidden=True) for f in leaves(factors)])


def norm2(factors: Any) -> Any:
    """‖gₙ‖² (N,) over all factors, in float32 or wider.

    Args:
        factors: the factors of N examples.

    Returns:
        ‖gₙ‖² (N,).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> norm2(factors)
    array([40., 16.])
    """
    return norm(factors) ** 2


def products(ours: Any, theirs: Any) -> Any:
    """gᵢ · gⱼ (N, M), for the factors of N examples and those of M others, in float32 or wider.

    Args:
        ours: the factors of N examples.
        theirs: those of M examples, of the same parameters.

    Returns:
        The inner products (N, M).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> products(factors, factors)
    array([[40.,  8.],
           [ 8., 16.]])
    """
    return sum(outer.products(f, g) for f, g in zip(leaves(ours), leaves(theirs), strict=True))


def squares(params: Any, factors: Any, weights: Any = None) -> Any:
    """Σₙ wₙ gₙ², elementwise, nested as the parameters and in their dtypes; the weights (N,) may be negative.

    Args:
        params: the parameters.
        factors: the factors of N examples.
        weights: w (N,). Default: 1.

    Returns:
        The sums, nested as the parameters.

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> squares(np.zeros((1, 2)), factors)
    array([[20., 36.]])
    """
    return like(params, [outer.squares(p, f, weights) for p, f in pairs(params, factors)])


def along(factors: Any, direction: Any) -> Any:
    """gₙ · v (N,), for a direction v nested as the parameters; None in the direction or the factors means zero.

    Args:
        factors: the factors of N examples.
        direction: v, nested as the parameters.

    Returns:
        gₙ · v (N,).

    >>> factors = Outer(np.array([[2.0], [1.0]]), np.array([[1.0, 3.0], [4.0, 0.0]]))  # g₁ = (2, 6), g₂ = (4, 0)
    >>> along(factors, np.array([[1.0, 1.0]]))
    array([8., 4.])
    """
    return sum(outer.along(f, v) for v, f in pairs(direction, factors) if f is not None and v is not None)


def weighed(factors: Any, d: Any) -> Any:
    """gₙᵀ diag(d) gₙ (N,), for d nested as the parameters, of any sign; None in it or in the factors means zero."""
    return sum(outer.weighed(f, w) for w, f in pairs(d, factors) if f is not None and w is not None)


def like(params, new_leaves):
    """A tree nested as the parameters, of these leaves."""
    leaves = iter(new_leaves)
    return trees.map(lambda _: next(leaves), params)

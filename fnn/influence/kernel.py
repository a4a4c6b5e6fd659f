"""Leaving one example out, in closed form, by the tangent kernel J Jᵀ of the outputs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401 - for the example

from .. import backend, checks, factors, trees
from ..backend import namespace, widened
from ..curvature.output import columns_of
from ..devices import on_any_axes
from ..errors import usage
from ..layers import Layer
from ..layers.base import Array
from ..losses import Loss
from .passes import check, entered, weighted, with_shares


@on_any_axes
@usage("fnn.influence.leave_one_out(net, loss, damping)(params, queries, training)")
def leave_one_out(net: Layer, loss: Loss, damping: Any) -> Callable[..., Array]:
    """Make the function that computes what leaving out a training example does to a query, by the tangent kernel.

    The network is linearized at the parameters, f(θ + d) = f + J d, and the cost is its second-order expansion. Then
    the step d = (H₋ⱼ + λ)⁻¹ sⱼ gⱼ, with the Hessian of the other examples, is exact for a squared error if the
    parameters minimize Σ s ℓ + ½ λ ‖θ‖², and one Newton step for other costs:

        change of f_q    sⱼ B_qj (I − sⱼ Hⱼ Bⱼⱼ)⁻¹ δⱼ         Hⱼ = Sⱼ Sⱼᵀ = ∂²ℓⱼ/∂prediction² (K, K)
        B_qj             J_q (H + λ)⁻¹ Jⱼᵀ = (J_q Jⱼᵀ − J_q Ψᵀ (Ψ Ψᵀ + λ)⁻¹ Ψ Jⱼᵀ) / λ         Ψₙ = √sₙ Sₙᵀ Jₙ
        score            ℓ(f_q + its change) − ℓ(f_q)

    All products of Jacobians are inner products of factors. The memory grows with ((N + Q) K)², the time with (N R)³,
    for K outputs, and R columns of S. For an example itself the squared error is that of the residual r / (1 − h), with
    the leverage h.

    Args:
        net: the network.
        loss: a cost with a `root`, such as `Quadratic` or `SoftmaxCrossEntropy`.
        damping: λ > 0, in units of the curvature of the mean cost.

    Returns:
        `(params, queries, training) -> scores` (Q, N), the increase of each query's cost, times its weight if it has
        one. float64 is advised, since B is a difference.

    Source: D. Allen, "The relationship between variable selection and data augmentation and a method for prediction"
    (1974), PRESS; D. Pregibon, "Logistic regression diagnostics" (1981), one step; C. Rasmussen, C. Williams,
    "Gaussian processes for machine learning" (2006), eq. 5.12, for kernels.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 1)), ())
    >>> training = [[1.0], [3.0]], [[2.0], [3.0]]
    >>> leave_one_out(net, Quadratic(), 1e-6)(params, ([[1.0]], [[3.0]]), training).round(3).tolist()
    [[0.228, 0.0]]
    """
    check(net, loss)
    checks.positive("damping", damping)

    def run(params, queries, training):
        queries, training = entered(net, loss, params, queries, training)
        s = with_shares(params, training).weights
        prediction, ours = _outputs(net, params, queries)
        of_training, theirs = _outputs(net, params, training)
        n, size = len(of_training), len(theirs)
        number, column = columns_of(loss, of_training, training.y, "ggn")
        root = namespace(of_training).stack([column(i).reshape(n, size) for i in range(number)], axis=-1)
        delta = loss.delta(of_training, training.y).reshape(n, size)
        change = _change(_kernel(ours, theirs), _kernel(theirs, theirs), root, delta, s, damping)
        before = loss.value(prediction, queries.y)
        increase = lambda c: loss.value(prediction + c.reshape(prediction.shape), queries.y) - before
        return weighted(backend.vmap(increase)(change).T, queries.weights, None)

    return run


def _outputs(net, params, data):
    """The prediction (N, ..., K) in float32 or wider, and for each output the factors of its gradient."""
    prediction, residuals = net.forward(params, data.x)
    xp, shape = namespace(prediction), prediction.shape[1:]
    units = xp.eye(math.prod(shape), dtype=prediction.dtype).reshape(-1, *shape)
    errors = [xp.broadcast_to(unit, prediction.shape) for unit in units]
    deltas = [net.propagate(params, residuals, e, need_dx=False)[1] for e in errors]
    return widened(prediction), [net.factors(params, residuals, d) for d in deltas]


def _kernel(ours, theirs):
    """J_q Jⱼᵀ as (Q, K, N, K)."""
    rows = [[factors.products(f, g) for g in theirs] for f in ours]
    xp = namespace(*trees.leaves(rows))
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=1)


def _change(of_queries, kernel, root, delta, shares, damping):
    """The change (N, Q, K) of each query's prediction, for each example that is left out."""
    xp, (n, size, columns) = namespace(kernel), root.shape
    root = root * xp.sqrt(shares)[:, None, None]
    across, within = (xp.einsum("qknl,nlr->qknr", k, root) for k in (of_queries, kernel))  # J Ψᵀ
    gram = xp.einsum("nkr,nkms->nrms", root, within).reshape(n * columns, n * columns)  # Ψ Ψᵀ
    gram = gram + damping * xp.eye(n * columns, dtype=gram.dtype)
    across, within = across.reshape(-1, n * columns), within.reshape(-1, n * columns)
    solved = xp.linalg.solve(gram, within.T)
    b = (of_queries.reshape(-1, n * size) - across @ solved).reshape(of_queries.shape) / damping
    own = xp.einsum("nknl->nkl", kernel) - xp.einsum(
        "nkm,mnl->nkl", within.reshape(n, size, -1), solved.reshape(-1, n, size)
    )
    hessian = root @ root.swapaxes(1, 2)
    inside = xp.eye(size, dtype=gram.dtype) - hessian @ (own / damping)
    steps = xp.linalg.solve(inside, (delta * shares[:, None])[..., None])[..., 0]
    return xp.einsum("qknl,nl->nqk", b, steps)

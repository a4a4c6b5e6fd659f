"""Diagonals of curvature matrices: sums of squared gradients, one for each column of errors at the output.

    diag(Σₙ sₙ Σᵣ gₙᵣ gₙᵣᵀ) = Σₙ sₙ Σᵣ gₙᵣ² = (Σᵣ s δᵣ²)ᵀ a²        for gₙᵣ = δₙᵣ aₙᵀ; the sum over columns comes first

Source: F. Dangel, F. Kunstner, P. Hennig, "BackPACK: packing more into backprop" (2020).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend, factors, gate, random
from ..backend import namespace
from ..backpropagation import check_problem
from ..devices import on_any_axes
from ..errors import usage
from ..layers import Layer
from ..losses import Loss
from ..per_example import check_separable
from .columns import begun, squares, summed
from .output import KINDS, check_kind, sample_key_for
from .products import hessian_product
from .spectrum import flat, like, random_signs


@on_any_axes
@usage("fnn.curvature.diagonal(net, loss)(params, x, y)")
def diagonal(
    net: Layer, loss: Loss, kind: str = "ggn", *, samples: int | None = None, denominator: float | None = None
) -> Callable[..., Any]:
    """Make the function that computes the diagonal of a curvature matrix of the mean cost.

        ggn, fisher, empirical   Σₙ wₙ Σᵣ gₙᵣ² / D        hessian   eₚᵀ H eₚ, or sampled  E[v ⊙ H v] with v = ±1

    Args:
        net: the network.
        loss: the cost, a mean over the examples; for "ggn" one that has a `root`.
        kind: "ggn", the generalized Gauss-Newton matrix; "fisher", the Fisher information of the model's likelihood;
            "empirical", the same with the targets of the data, the mean squared gradient; or "hessian", which takes a
            product for each parameter if it is exact. Default: "ggn".
        samples: how many are drawn for an estimate without bias: targets for "fisher", random signs for "ggn" and
            "hessian". Default: None, exact.
        denominator: D. 1 gives the sum over the examples. Default: Σ w (N without weights), the mean.

    Returns:
        `(params, x, y, weights=None, key=None, sample_key=None) -> diagonal`, with the structure of params.
        `sample_key` is the key of the samples; with `key` the layers are in training mode.

    Source: F. Dangel et al. (2020), §2; for the Hessian C. Bekas, E. Kokiopoulou, Y. Saad, "An estimator for the
    diagonal of a matrix" (2007).

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 4.0]], [[0.0], [0.0]]
    >>> diagonal(Dense(1, bias=False), Quadratic())(params, x, y).w.tolist()
    [[0.5, 10.0]]
    """
    check_kind(kind, samples, (*KINDS, "hessian"))
    if kind == "hessian":
        return _of_hessian(hessian_product(net, loss, denominator=denominator), samples)
    check_problem(net, loss, denominator=denominator)
    check_separable(loss)

    @usage("fnn.curvature.diagonal(net, loss)(params, x, y)")
    def run(params, x, y, weights=None, key=None, sample_key=None):
        params, data = gate.batch(net, loss, params, x, y, weights)
        sample_key, key = sample_key_for(samples, sample_key, data.x), gate.key_for(key, data.x)
        pass_, columns = begun(net, loss, params, data, kind, samples, denominator, key, sample_key)
        of_all = lambda f: factors.like(params, [squares(p, g, pass_.shares) for p, g in factors.pairs(params, f)])
        return summed(pass_, columns, net.factors, of_all)[0]

    return run


def _of_hessian(product, samples):
    def run(params, x, y, weights=None, key=None, sample_key=None):
        sample_key, zeros = sample_key_for(samples, sample_key, params), 0 * flat(params)

        def one(total, i):
            if samples is None:
                v = namespace(zeros).where(namespace(zeros).arange(len(zeros)) == i, 1, zeros)
            else:
                v = flat(random_signs(params, random.fold_in(sample_key, i)))
            return total + v * flat(product(params, x, y, like(params, v), weights, key)), ()

        count = len(zeros) if samples is None else samples
        total, _ = backend.scan(one, zeros, namespace(zeros).arange(count, dtype=np.int32))
        return like(params, total / (samples or 1))

    return run

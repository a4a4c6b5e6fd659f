"""Products with curvature matrices, which are never made: one pass forward along v, and one back.

    GGN · v        Σₙ sₙ Jₙᵀ Hₙ Jₙ v         dy = J v by forward mode, H dy as the derivative of δ along dy, and back
    Fisher · v     Σₙ sₙ Σᵣ gₙᵣ (gₙᵣ · v)    = Σₙ sₙ Jₙᵀ Σᵣ e (e · dyₙ), with the errors e of `output`
    Hessian · v    the derivative of the gradient along v

Source: N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent" (2002).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend, gate, trees
from ..backend import at_least_float32, cast, floating, namespace
from ..backpropagation import Problem, check_problem, differentiate, shares_of
from ..complex_step import jvp
from ..devices import on_any_axes
from ..errors import ArgumentError, usage
from ..layers import Layer
from ..losses import Loss
from ..per_example import check_separable
from .output import check_kind, columns_of, sample_key_for


@on_any_axes
@usage("fnn.curvature.ggn_product(net, loss)(params, x, y, v)")
def ggn_product(net: Layer, loss: Loss, *, denominator: float | None = None) -> Callable[..., Any]:
    """Make the function that multiplies the generalized Gauss-Newton matrix by a vector.

        G v = Σₙ wₙ Jₙᵀ Hₙ Jₙ v / D        J = ∂prediction/∂θ (K, P)        H = ∂²ℓ/∂prediction² (K, K)

    It is the Hessian of the mean cost, `value_and_grad`'s, without the curvature of the network: that of its
    linearization. It takes about 1.7 times as long as a gradient.

    Args:
        net: the network.
        loss: the cost, a mean over the examples.
        denominator: D. 1 gives the sum over the examples. Default: Σ w (N without weights), the mean.

    Returns:
        `(params, x, y, v, weights=None, key=None) -> G v`, where v and G v have the structure of params. With a key,
        the layers are in training mode. The function is pure and not compiled: wrap it in `jax.jit`.

    Source: N. Schraudolph (2002), §3.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 4.0]], [[0.0], [0.0]]
    >>> ggn_product(Dense(1, bias=False), Quadratic())(params, x, y, params).w.tolist()  # mean x xᵀ (1, 1)ᵀ
    [[1.5, 11.0]]
    """
    bent = lambda wide, y, dy, _: jvp(lambda a: loss.delta(a, y), wide, dy)
    return _product(net, loss, bent, None, denominator)


@on_any_axes
@usage("fnn.curvature.fisher_product(net, loss)(params, x, y, v)")
def fisher_product(
    net: Layer, loss: Loss, *, samples: int | None = None, empirical: bool = False, denominator: float | None = None
) -> Callable[..., Any]:
    """Make the function that multiplies the Fisher information matrix by a vector.

        F v = Σₙ wₙ E[gₙ gₙᵀ] v / D        gₙ = ∂ℓ(predictionₙ, y)/∂θ, for y drawn from the model's own likelihood

    For costs on logits, and for `Quadratic` and `MeanSquaredError`, it equals the generalized Gauss-Newton matrix.

    Args:
        net: the network.
        loss: the cost, minus the logarithm of a likelihood.
        samples: how many targets are drawn for each example; the mean over them takes the place of E. Default: None,
            the expectation itself.
        empirical: whether the targets are those of the data, of which g gᵀ is then no expectation. Default: False.
        denominator: D. Default: Σ w (N without weights).

    Returns:
        `(params, x, y, v, weights=None, key=None, sample_key=None) -> F v`, as for `ggn_product`; `sample_key` is the
        key with which targets are drawn.

    Source: S. Amari, "Natural gradient works efficiently in learning" (1998); the empirical one: F. Kunstner,
    L. Balles, P. Hennig, "Limitations of the empirical Fisher approximation" (2019).

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 4.0]], [[0.0], [0.0]]
    >>> fisher_product(Dense(1, bias=False), Quadratic())(params, x, y, params).w.tolist()
    [[1.5, 11.0]]
    >>> fisher_product(Dense(1, bias=False), Quadratic(), empirical=True)(params, x, y, params).w.tolist()
    [[13.5, 155.0]]
    """
    if empirical and samples is not None:
        raise ArgumentError("samples: expected None with empirical=True, whose targets are those of the data")
    kind = "empirical" if empirical else "fisher"
    check_kind(kind, samples)

    def exact(wide, y, dy, _):
        target = loss.fisher_target(wide, y)
        return jvp(lambda a: loss.delta(a, target), wide, dy)

    def of_errors(wide, y, dy, sample_key):
        number, column = columns_of(loss, wide, y, kind, samples, sample_key)

        def one(total, i):
            e = column(i)
            along = (e * dy).reshape(len(e), -1).sum(axis=1)
            return total + e * along.reshape(len(e), *(1,) * (e.ndim - 1)), ()

        return backend.scan(one, 0 * dy, namespace(dy).arange(number, dtype=np.int32))[0]

    bent = exact if samples is None and not empirical else of_errors
    return _product(net, loss, bent, samples, denominator)


def _product(net, loss, bent, samples, denominator):
    """Σₙ sₙ Jₙᵀ bent(Jₙ v): forward along v, `(prediction, y, dy, sample_key) -> error`, and back with that."""
    check_problem(net, loss, denominator=denominator)
    check_separable(loss)

    @usage("fnn.curvature.ggn_product(net, loss)(params, x, y, v)")
    def run(params, x, y, v, weights=None, key=None, sample_key=None):
        params, (x, y, weights) = gate.batch(net, loss, params, x, y, weights)
        v, sample_key = direction(params, v), sample_key_for(samples, sample_key, x)
        prediction, residuals = net.forward(params, x, gate.key_for(key, x))
        dy = net.tangent(params, residuals, v, None)
        prediction = floating(prediction)
        wide = at_least_float32(prediction.dtype)
        dy = namespace(prediction).zeros_like(prediction) if dy is None else dy
        e = bent(cast(prediction, wide), y, cast(dy, wide), sample_key)
        shares = shares_of(weights, len(e), denominator)
        if weights is not None:
            tall = len(e), *(1,) * (e.ndim - 1)
            e, shares = namespace(e).where((weights != 0).reshape(tall), e, 0), shares.reshape(tall)
        _, deltas = net.propagate(params, residuals, cast(e * shares, prediction.dtype), need_dx=False)
        return net.gradient(params, residuals, deltas)

    return run


@on_any_axes
@usage("fnn.curvature.hessian_product(net, loss)(params, x, y, v)")
def hessian_product(net: Layer, loss: Loss, *, denominator: float | None = None) -> Callable[..., Any]:
    """Make the function that multiplies the Hessian of the mean cost by a vector.

        H v = ∂²(Σ w ℓ / D)/∂θ² v = d/dt gradient(θ + t v) at t = 0

    The gradient is that of `value_and_grad`, by hand; its derivative along v is by `jax.jvp` on JAX, and by a complex
    step on NumPy, where it is refused for layers and costs that are not analytic. At a kink the documented derivative
    counts, so a ReLU has no curvature.

    Args:
        net: the network.
        loss: the cost.
        denominator: D. 1 gives the sum over the examples. Default: Σ w (N without weights), the mean.

    Returns:
        `(params, x, y, v, weights=None, key=None) -> H v`, as for `ggn_product`.

    Source: B. Pearlmutter, "Fast exact multiplication by the Hessian" (1994).

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 4.0]], [[0.0], [0.0]]
    >>> hessian_product(Dense(1, bias=False), Quadratic())(params, x, y, params).w.round(12).tolist()
    [[1.5, 11.0]]
    """
    check_problem(net, loss, denominator=denominator)
    problem = Problem(net, loss, None, denominator)

    @usage("fnn.curvature.hessian_product(net, loss)(params, x, y, v)")
    def run(params, x, y, v, weights=None, key=None):
        params, data = gate.batch(net, loss, params, x, y, weights)
        v, key = direction(params, v), gate.key_for(key, data.x)
        v = trees.map_learnt(lambda d: d, v, fixed=lambda d: 0 * d)
        product = jvp(lambda params: differentiate(problem, params, data, key)[1], params, v)
        return trees.map(lambda p, d: cast(d, p.dtype), params, product)

    return run


def direction(params, v):
    """v on the backend and in the dtypes of the parameters; raises unless it has their structure."""
    trees.same_structure("v", v, params)
    xp = namespace(*trees.leaves(params), *trees.leaves(v))
    return trees.map(lambda p, d: xp.asarray(d, dtype=p.dtype), params, v)

"""The marginal likelihood of the data under a posterior, and the prior precision and noise that maximize it.

    log p(D) ≈ log p(D | θ*) − ½ τ ‖θ*‖² + ½ P log τ − ½ log det (H / σ² + τ I)        P uncertain parameters
             = −C / σ² − M log(√(2π) σ) − ½ τ ‖θ*‖² − ½ Σ log(1 + λ / (σ² τ))            C = Σ w ℓ, M = count

For costs other than those of regression, σ is 1 and the term in M is none. With H as it is at θ*, this is concave in
(log τ, log σ), so that it has one maximum. At given r = τ σ² it is where

    1/σ² = M / (2 C + r ‖θ*‖²)

and the derivative of what is left with respect to log r, which falls, is ½ of

    γ − r ‖θ*‖² / σ²        γ = Σ λ / (λ + r), the effective number of parameters

Source: D. MacKay, "Bayesian interpolation" (1992), §4; A. Immer et al., "Scalable marginal likelihood estimation for
model selection in deep learning" (2021).
"""

import math
from typing import Any

import numpy as np  # noqa: F401 - for the examples

from .. import backend
from ..backend import is_traced, namespace, widened
from ..curvature import block_matrices
from ..devices import on_any_axes
from ..errors import DataError, usage
from ..factors import pairs
from .posterior import Eigen, Full, Posterior, check_posterior, of_regression, spectrum

RANGE = 34.0  # log r is between −34 and 34


@on_any_axes
@usage("fnn.laplace.log_marginal_likelihood(posterior)")
def log_marginal_likelihood(posterior: Posterior) -> Any:
    """The logarithm of the marginal likelihood p(D) of the data, or evidence, in Laplace's approximation.

        log p(D) ≈ −C / σ² − M log(√(2π) σ) − ½ τ ‖θ*‖² − ½ Σ log(1 + λ / (σ² τ))

    It compares networks, costs of one kind and priors on the same training data, without held-out ones. For other costs
    than those of regression the second term is missing, as is a term in y alone that the cost leaves out.

    Args:
        posterior: of `fit`.

    Returns:
        A number, in nats, differentiable in `prior_precision` and `noise`.

    Source: D. MacKay (1992), §4; A. Immer et al. (2021).

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.laplace import fit
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> float(log_marginal_likelihood(posterior).round(4))  # −log 2π − ½ − ½ log 6
    -3.2338
    """
    check_posterior(posterior)
    xp, tau, variance = namespace(posterior.cost), posterior.prior_precision, posterior.noise**2
    value = -posterior.cost / variance - 0.5 * tau * _squared_norm(posterior)
    if of_regression(posterior.loss.thing):
        value = value - 0.5 * posterior.count * xp.log(2 * math.pi * variance)
    return value - 0.5 * sum(xp.log1p(values / (variance * tau)).sum() for values in spectrum(posterior))


@on_any_axes
@usage("fnn.laplace.tuned(posterior)")
def tuned(posterior: Posterior, *, noise: bool = True) -> Posterior:
    """The same posterior with the prior precision, and for a regression the noise, of the largest marginal likelihood.

    At the maximum τ ‖θ*‖² = γ and σ² = 2 C / (M − γ), with the effective number of parameters γ = Σ λ / (λ + τ σ²).
    H is kept as it is at θ*. τ σ² is sought between e⁻³⁴ and e³⁴ by bisection.

    Args:
        posterior: of `fit`.
        noise: whether the noise of a regression is chosen, too. Default: True.

    Returns:
        A `Posterior`.

    Raises:
        DataError: if all uncertain parameters are 0, or H is, so that there is no maximum.

    Source: D. MacKay (1992), §4.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> from fnn.laplace import fit
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> tau = float(tuned(posterior, noise=False).prior_precision)
    >>> round(tau, 4), round(5 / (5 + tau), 4)  # τ ‖θ*‖² is the effective number of parameters
    (0.8541, 0.8541)
    """
    check_posterior(posterior)
    values, norm2, cost, count = spectrum(posterior), _squared_norm(posterior), posterior.cost, posterior.count
    xp, joint = namespace(cost), noise and of_regression(posterior.loss.thing)
    if not is_traced(norm2, cost) and not (norm2 > 0 and any(bool((v > 0).any()) for v in values)):
        what = "parameters" if not norm2 > 0 else "a curvature"
        raise DataError(f"posterior: expected {what} other than 0, for otherwise no prior precision is the best")
    r, precision = _best(values, norm2, cost, count, posterior.noise, joint=joint)
    return posterior._replace(prior_precision=r * precision, noise=xp.sqrt(1 / precision) if joint else posterior.noise)


@backend.jit(static=("joint",))
def _best(values, norm2, cost, count, noise, *, joint):
    """`(r, 1 / σ²)` at the maximum, where the derivative, which falls, is 0; `joint` if σ is free."""
    xp = namespace(cost)
    precision = lambda r: count / (2 * cost + r * norm2) if joint else 1 / noise**2 + 0 * r

    def halved(bounds, _):
        low, high = bounds
        middle = (low + high) / 2
        r = xp.exp(middle)
        rises = sum((v / (v + r)).sum() for v in values) > r * norm2 * precision(r)
        return (xp.where(rises, middle, low), xp.where(rises, high, middle)), ()

    bounds = 0 * cost - RANGE, 0 * cost + RANGE
    (low, high), _ = backend.scan(halved, bounds, None, length=64)
    r = xp.exp((low + high) / 2)
    return r, precision(r)


def _squared_norm(posterior):
    """‖θ*‖² of the uncertain parameters."""
    params, h = posterior.params, posterior.curvature
    of_leaves = pairs(params, h.vectors if isinstance(h, Full) else h)
    if any(isinstance(block, Eigen) for _, block in of_leaves):
        uncertain = [v for _, v in block_matrices(params, h, params)]
    else:
        uncertain = [widened(p) for p, d in of_leaves if d is not None]
    return sum((v * v).sum() for v in uncertain)

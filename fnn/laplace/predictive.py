"""What a posterior says of new examples, by the network linearized at θ*: f(x; θ) ≈ f(x; θ*) + J (θ − θ*).

    f ~ N(f(x; θ*), J Σ Jᵀ), of which the variance of each output k is a sum over the eigenvectors of H

    diagonal, kronecker    Σ D ⊙ (Q_Gᵀ gₙₖ Q_A)² = Σ (δₙₖ Q_G)² ⊙ ((aₙ Q_A)² Dᵀ)    gₙₖ = δₙₖ aₙᵀ, with the error of
                           D = 1 / (Λ / σ² + τ)                                    output k, sent back
    a last Dense layer     (a Q_A)² Dᵀ (Q_G²)ᵀ, for all outputs at once            δₙₖ = e_k
    full                   Σᵢ (Jₙ qᵢ)² / (λᵢ / σ² + τ), by the tangents J qᵢ

No gradient of an example is made, unless weights are shared over positions.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .. import backend, factors, gate, trees  # noqa: F401 - trees for the example
from ..backend import cast, floating, namespace, widened
from ..curvature.blocks import Eigen, with_ones
from ..curvature.factored import rotated
from ..devices import on_any_axes
from ..errors import KindError, ShapeError, usage
from ..layers import Dense
from ..losses import SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from .parts import above
from .posterior import Full, Posterior, check_posterior, deviation, keys_of, of_regression, variance_of


class Gaussian(NamedTuple):
    """A mean and a variance (N, K) for each of K outputs."""

    mean: Any
    variance: Any


@on_any_axes
@usage("fnn.laplace.outputs(posterior, x)")
def outputs(posterior: Posterior, x: Any) -> Gaussian:
    """The distribution of the network's outputs, such as logits: the function-space variance.

        f ~ N(f(x; θ*), diag J Σ Jᵀ)        Σ = (H / σ² + τ I)⁻¹

    Args:
        posterior: of `fit`.
        x: examples (N, ...); the memory grows with N K, but for a last layer.

    Returns:
        A `Gaussian`, with mean and variance (N, K). The function is pure and not compiled: wrap it in `jax.jit`.

    Raises:
        ShapeError: if the outputs are not (N, K).

    Source: A. Immer, M. Korzepa, M. Bauer (2021).

    >>> from fnn import DenseParams, Quadratic
    >>> from fnn.laplace import fit
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> outputs(posterior, [[3.0]]).variance.round(6).tolist()  # x² / (5 + 1)
    [[1.5]]
    """
    x = _entered(posterior, x)
    h = posterior.curvature
    kept = h.vectors if isinstance(h, Full) else h
    net, params, x, kept = above(posterior.net.thing, posterior.params, x, kept)
    mean, residuals = net.forward(params, x)
    if mean.ndim != 2:
        raise ShapeError(f"expected a network with outputs (N, K), got {mean.shape}")
    f = variance_of(posterior)
    if isinstance(h, Full):
        variance = _by_tangents(net, params, residuals, kept, f(h.values), mean)
    elif type(net) is Dense and x.ndim == 2:
        variance = _of_dense(x, kept, f)
    else:
        variance = _by_factors(net, params, residuals, kept, f, floating(mean))
    return Gaussian(mean, variance)


def _entered(posterior, x):
    check_posterior(posterior)
    return gate.inputs(posterior.net.thing, posterior.params, x)[1]


def _by_tangents(net, params, residuals, vectors, variances, mean):
    def along(total, pair):
        variance, q = pair
        dy = net.tangent(params, residuals, q, None)
        return total + variance * widened(dy) ** 2, ()

    zeros = namespace(variances).zeros(mean.shape, variances.dtype)
    return backend.scan(along, zeros, (variances, vectors))[0]


def _of_dense(x, kept, f):
    """All outputs of a Dense layer at once, since the error of output k is e_k."""
    a = widened(floating(x, np.float32))
    if isinstance(kept.w, Eigen):
        q_a, q_g, values = kept.w
        a = with_ones(a) if len(q_a) > a.shape[1] else a
        return (cast(a, q_a.dtype) @ q_a) ** 2 @ f(values).T @ (q_g * q_g).T
    variance = a * a @ f(kept.w).T
    return variance + f(kept.b) if len(kept.b) else variance


def _by_factors(net, params, residuals, kept, f, mean):
    """Each output's error sent back, and the squares of its gradient weighed by the variances."""
    by_block = any(isinstance(block, Eigen) for _, block in factors.pairs(params, kept))

    def of_output(e):
        error = cast(namespace(mean).broadcast_to(e, mean.shape), mean.dtype)
        _, deltas = net.propagate(params, residuals, error, need_dx=False)
        if by_block:
            found, values = rotated(params, net.outer_factors(params, residuals, deltas), kept)
            return factors.weighed(found, [f(v) for v in values])
        of_leaves = [None if h is None else f(h) for _, h in factors.pairs(params, kept)]
        return factors.weighed(net.factors(params, residuals, deltas), factors.like(params, of_leaves))

    return backend.vmap(of_output)(namespace(mean).eye(mean.shape[1], dtype=mean.dtype)).T


@on_any_axes
@usage("fnn.laplace.targets(posterior, x)")
def targets(posterior: Posterior, x: Any) -> Gaussian:
    """The distribution of the targets of a regression: that of the outputs, and noise.

        y ~ N(f(x; θ*), diag J Σ Jᵀ + σ²)

    Args:
        posterior: of `fit`, with `Quadratic` or `MeanSquaredError`.
        x: examples (N, ...).

    Returns:
        A `Gaussian`, with mean and variance (N, K).

    Raises:
        KindError: if the cost is another one.

    >>> from fnn import DenseParams, Quadratic
    >>> from fnn.laplace import fit
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> targets(posterior, [[3.0]]).variance.round(6).tolist()
    [[2.5]]
    """
    mean, variance = outputs(posterior, x)
    if not of_regression(posterior.loss.thing):
        raise KindError(
            f"posterior: expected one of a regression, with Quadratic or MeanSquaredError, got {posterior.loss}; use "
            "fnn.laplace.probabilities for classes"
        )
    return Gaussian(mean, variance + posterior.noise**2)


@on_any_axes
@usage("fnn.laplace.probabilities(posterior, x)")
def probabilities(posterior: Posterior, x: Any, *, samples: int | None = None, sample_key: Any = None) -> Any:
    """The predictive probabilities of classes, averaged over the posterior.

        probit    p = predict(f / √(1 + π v / 8)), elementwise        f ~ N(·, v) as for `outputs`
        sampled   p = mean of predict(f(x; θ*) + J (θ − θ*)) over draws of θ

    The sigmoid of a Gaussian has nearly the first as its mean; for softmax it is a generalization without a proof, and
    leaves out what the logits have in common. Samples take one tangent each, and no variance, so that they do well with
    many outputs.

    Args:
        posterior: of `fit`, with `SoftmaxCrossEntropy` or `SigmoidBinaryCrossEntropy`.
        x: examples (N, ...).
        samples: how many parameters are drawn. Default: None, by probit.
        sample_key: the key of the samples. Default: None.

    Returns:
        Probabilities, shaped as `loss.predict` of the output.

    Raises:
        KindError: if the cost is another one.

    Source: D. MacKay, "The evidence framework applied to classification networks" (1992); for softmax M. Gibbs,
    "Bayesian Gaussian processes for regression and classification" (1997); samples A. Immer, M. Korzepa, M. Bauer
    (2021).

    >>> from fnn import DenseParams
    >>> from fnn.laplace import fit
    >>> net, loss, params = Dense(1, bias=False), SigmoidBinaryCrossEntropy(), DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(net, loss, params, ([[1.0], [-2.0]], [[1], [0]]))
    >>> loss.predict(net.apply(params, [[9.0]])).round(3).tolist(), probabilities(posterior, [[9.0]]).round(3).tolist()
    ([[1.0]], [[0.887]])
    """
    check_posterior(posterior)
    loss = posterior.loss.thing
    if not isinstance(loss, SoftmaxCrossEntropy | SigmoidBinaryCrossEntropy):
        raise KindError(
            f"posterior: expected one of classes, with SoftmaxCrossEntropy or SigmoidBinaryCrossEntropy, got {loss}; "
            "use fnn.laplace.targets for a regression"
        )
    if samples is not None:
        if sample_key is None:
            raise KindError("sample_key: expected a key for the samples, such as fnn.random.key(0), got None")
        return loss.predict(output_samples(posterior, x, sample_key, samples)).mean(axis=0)
    mean, variance = outputs(posterior, x)
    return loss.predict(mean / namespace(variance).sqrt(1 + math.pi / 8 * variance))


@on_any_axes
@usage("fnn.laplace.output_samples(posterior, x, key, 100)")
def output_samples(posterior: Posterior, x: Any, key: Any, samples: int) -> Any:
    """Draw outputs of the linearized network, one tangent each: functions, which are the same for all x.

        f(x; θ*) + J (θ − θ*)        θ from the posterior, as for `sample` with the same key

    Args:
        posterior: of `fit`.
        x: examples (N, ...).
        key: a random key.
        samples: S, how many are drawn.

    Returns:
        Outputs (S, N, ...).

    Source: A. Immer, M. Korzepa, M. Bauer (2021).

    >>> from fnn import DenseParams, Quadratic, random
    >>> from fnn.laplace import fit
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> drawn = output_samples(posterior, [[1.0], [3.0]], random.key(0, backend="numpy"), 5)
    >>> drawn.shape, bool(np.allclose(3 * drawn[:, 0], drawn[:, 1]))
    ((5, 2, 1), True)
    """
    x = _entered(posterior, x)
    net, params = posterior.net.thing, posterior.params
    mean, residuals = net.forward(params, x)
    move = lambda key: mean + net.tangent(params, residuals, deviation(posterior, key), None)
    return backend.vmap(move)(keys_of(posterior, key, samples))

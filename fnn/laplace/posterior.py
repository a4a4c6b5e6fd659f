"""The posterior: the curvature of the summed cost in its eigenvectors, and draws from the Gaussian that it makes.

    structure     H in eigenvectors                          λ, of which Σ has 1 / (λ / σ² + τ)
    diagonal      the parameters' own axes                   the diagonal
    kronecker     Q_A ⊗ Q_G for each weight, with its bias   Λ = λ_G λ_Aᵀ
    full          Q of the whole matrix                      all of its eigenvalues

H is a sum over the examples, and so does not depend on the batches: a Kronecker product has A = Σ w a aᵀ / Σ w and
G = Σ w Σᵣ δᵣ δᵣᵀ of all data.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import backend, checks, curvature, examples, factors, gate, random, trees
from ..backend import Held, at_least_float32, cast, namespace
from ..backpropagation import check_problem, cost
from ..curvature.blocks import Eigen, Kronecker
from ..curvature.columns import begun, gram
from ..curvature.output import check_kind, sample_key_for
from ..devices import on_any_axes
from ..errors import ArgumentError, KindError, integer, real, shorten, usage
from ..layers import Layer
from ..losses import Loss, MeanSquaredError, Quadratic
from ..losses.base import outputs
from ..outer import Outer, Rows
from ..per_example import check_separable
from .parts import above, uncertain

STRUCTURES = ("diagonal", "kronecker", "full")


class Full(NamedTuple):
    """A whole matrix in its eigenvectors.

    vectors    for each parameter (P, ...), the P eigenvectors along the first axis; None for what is certain
    values     (P,)
    """

    vectors: Any
    values: Any


class Posterior(NamedTuple):
    """A Gaussian over the parameters of a network, N(θ*, (H / σ² + τ I)⁻¹), as `fit` makes it.

    net                the network
    loss               the cost
    params             θ*, the mean
    curvature          H: nested as the parameters, the diagonal itself or a `fnn.curvature.Eigen` for each weight, None
                       for parameters that are certain; or a `Full`
    prior_precision    τ
    noise              σ, the standard deviation of the targets of a regression; 1 for other costs
    cost               Σ w ℓ at θ*; for regression Σ w ½ ‖a − y‖²
    count              Σ w times the number of outputs

    Another prior is `posterior._replace(prior_precision=...)`.
    """

    net: Any
    loss: Any
    params: Any
    curvature: Any
    prior_precision: Any
    noise: Any
    cost: Any
    count: Any


@on_any_axes
@usage("fnn.laplace.fit(net, loss, params, (x, y))")
def fit(
    net: Layer,
    loss: Loss,
    params: Any,
    data: Any,
    structure: str = "kronecker",
    *,
    last_layer: bool = False,
    kind: str = "ggn",
    samples: int | None = None,
    sample_key: Any = None,
    prior_precision: float = 1.0,
    noise: float = 1.0,
    batch_size: int = 1024,
) -> Posterior:
    """Compute the Laplace approximation of the posterior around the parameters of a trained network.

        N(θ*, (H / σ² + τ I)⁻¹)        H = Σₙ wₙ Jₙᵀ ∂²ℓₙ Jₙ

    The prior is N(0, I/τ), and the likelihood that of which the cost is minus the logarithm: for `Quadratic` and
    `MeanSquaredError` y ~ N(f(x), σ²). Parameters are at the posterior's mode if they minimize Σ w ℓ / σ² + ½ τ ‖θ‖²,
    as with the penalty `L2(τ / N)` on the mean cost of N examples.

    Args:
        net: the network; its layers are in inference mode.
        loss: the cost, a mean over the examples.
        params: θ*, its trained parameters.
        data: `(x, y)` or `(x, y, weights)`, those of the training; memory-mapped arrays are read in pieces.
        structure: "diagonal"; "kronecker", a Kronecker product for each weight and its bias; or "full", P × P numbers
            for P parameters. Default: "kronecker".
        last_layer: whether only the parameters of the last layer, a `Dense`, are uncertain. Default: False, all that
            learn.
        kind: what H is: "ggn", the generalized Gauss-Newton matrix; "fisher", the Fisher information; or "empirical",
            with the targets of the data. Default: "ggn".
        samples: as for `fnn.curvature.kfac`, how many targets or signs are drawn for each example; with thousands of
            outputs one or a few ("fisher") take much less time. Default: None, exact.
        sample_key: the key of the samples. Default: None.
        prior_precision: τ, above 0. Default: 1.
        noise: σ, for a regression. Default: 1.
        batch_size: examples at a time. It bounds the memory and does not change the result. Default: 1,024.

    Returns:
        A `Posterior`.

    Raises:
        FnnError: if the data do not fit the network, or the cost has no such curvature.

    Source: D. MacKay (1992); H. Ritter, A. Botev, D. Barber (2018); last layer: A. Kristiadi, M. Hein, P. Hennig,
    "Being Bayesian, even just a bit, fixes overconfidence in ReLU networks" (2020).

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> posterior.curvature.w.values.tolist()  # Σ x²
    [[5.0]]
    """
    check_problem(net, loss)
    check_separable(loss)
    if structure not in STRUCTURES:
        raise ArgumentError(f"structure: expected one of {STRUCTURES}, got {shorten(structure)}")
    check_kind(kind, samples)
    batch_size = integer("batch_size", batch_size, least=1)
    prior_precision, noise = (_above_0(n, v) for n, v in (("prior_precision", prior_precision), ("noise", noise)))
    if noise != 1 and not of_regression(loss):
        raise ArgumentError(f"noise: expected 1, as {loss} is not the cost of a regression, got {noise:g}")
    data = gate.admitted(net, loss, params, data)
    checks.on_the_host("laplace.fit", "fnn.curvature.kfac(net, loss)", params, tuple(data))
    sample_key, kept = sample_key_for(samples, sample_key, params), uncertain(net, params, last_layer)
    total: Any = None
    options = {"net": net, "loss": loss, "structure": structure, "kind": kind, "samples": samples}
    for number, batch in enumerate(_batches(params, data, batch_size)):
        key = None if sample_key is None else random.fold_in(sample_key, number)
        sums = _of_batch(params, kept, *batch, key, **options)
        total = sums if total is None else trees.map(lambda a, b: a + b, total, sums)
    of_data, value, count = total
    number = lambda v: namespace(value).asarray(v, dtype=value.dtype)
    of_eigen = _in_eigenvectors(params, kept, of_data, structure=structure)
    return Posterior(Held(net), Held(loss), params, of_eigen, number(prior_precision), number(noise), value, count)


def of_regression(loss):
    """Whether a cost is the squared error."""
    return isinstance(loss, Quadratic | MeanSquaredError)


def _above_0(name, value):
    return real(name, value.item() if getattr(value, "ndim", None) == 0 else value, above=0)


def _batches(params, data, size):
    """Batches (x, y, weights) of one size, on the parameters' backend; the last is filled up with weights of 0."""
    for _, piece in data.pieces(size):
        x, y, weights = gate.converted(params, *piece)
        n = piece.size
        xp, size = namespace(*trees.leaves((params, x))), min(size, n)
        if weights is None:
            weights = xp.ones(n, at_least_float32(trees.leaves(params)[0].dtype))
        for start in range(0, n, size):
            index = np.arange(start, start + size)
            part = lambda a: xp.take(a, np.minimum(index, n - 1), axis=0)  # noqa: B023 - called at once
            yield (*trees.map(part, (x, y)), xp.where(index < n, part(weights), 0))


# ---- sums over the examples ------------------------------------------------------------------------------------------


@backend.jit(static=("net", "loss", "structure", "kind", "samples"))
def _of_batch(params, kept, x, y, weights, key, *, net, loss, structure, kind, samples):
    """`(curvature, Σ w ℓ, Σ w K)` of a batch, all of which are sums over its examples."""
    net, params, x, kept = above(net, params, x, kept)
    prediction = net.forward(params, x)[0]
    losses = namespace(weights).where(weights == 0, 0, cost(loss, prediction, y)[0])
    unit = outputs(prediction) / 2 if isinstance(loss, MeanSquaredError) else 1  # of ½ ‖a − y‖² in the cost
    weights = cast(weights, losses.dtype)
    options = {"kind": kind, "samples": samples, "denominator": 1 / unit}
    if structure == "full":
        found = _matrix(net, loss, params, examples.Data(x, y, weights), kept, options, key)
    elif structure == "diagonal":
        diagonal = curvature.diagonal(net, loss, **options)(params, x, y, weights, sample_key=key)
        found = _of_leaves(diagonal, kept)
    else:
        blocks = curvature.kfac(net, loss, **options)(params, x, y, weights, sample_key=key)
        found = _sums_of_blocks(net, params, x, _of_leaves(blocks, kept, params), weights.sum())
    return found, unit * (weights * losses).sum(), weights.sum() * outputs(prediction)


def _of_leaves(tree, kept, params=None):
    """What of a tree stands where something is kept, as a list with None for the rest, in the order of the leaves."""
    kept, params = factors.pairs(tree if params is None else params, kept), tree if params is None else params
    return [None if k is None else node for (_, node), (_, k) in zip(factors.pairs(params, tree), kept, strict=True)]


def _sums_of_blocks(net, params, x, blocks, weight):
    """`(A m, G, m)` of each block, which add up: m is what A is a mean over, Σ w, or tr G of a matrix kept whole."""
    prediction, residuals = net.forward(params, trees.map(lambda a: a[:1], x))  # one example, for the kinds of factors
    _, deltas = net.propagate(params, residuals, prediction, need_dx=False)
    of_factors = factors.pairs(params, net.outer_factors(params, residuals, deltas))
    mass = lambda f, g: weight if isinstance(f, Outer | Rows) else g.trace()
    found = [None if b is None else (b, mass(f, b.g)) for b, (_, f) in zip(blocks, of_factors, strict=True)]
    return [None if pair is None else (pair[0].a * pair[1], pair[0].g, pair[1]) for pair in found]


def _matrix(net, loss, params, data, kept, options, key):
    """Σ w Σᵣ g gᵀ (P, P) over what is kept, with the gradients of one column of errors at a time."""
    pass_, columns = begun(
        net, loss, params, data, options["kind"], options["samples"], options["denominator"], None, key
    )

    def one(total, i):
        _, deltas = net.propagate(params, pass_.residuals, cast(columns.column(i), pass_.dtype), need_dx=False)
        made = factors.made(params, net.factors(params, pass_.residuals, deltas), len(data.weights))
        rows = [g.reshape(len(g), -1) for g in _of_leaves(made, kept) if g is not None]
        return total + gram(namespace(*rows).concatenate(rows, axis=1), pass_.shares), ()

    xp, size = namespace(data.weights), sum(p.size for p in trees.leaves(kept))
    start = xp.zeros((size, size), data.weights.dtype)
    return backend.scan(one, start, xp.arange(columns.number, dtype=np.int32))[0]


# ---- eigenvectors ----------------------------------------------------------------------------------------------------


@backend.jit(static=("structure",))
def _in_eigenvectors(params, kept, found, *, structure):
    """The sums over all data as `Posterior.curvature`."""
    if structure == "full":
        xp = namespace(found)
        values, vectors = xp.linalg.eigh(found)
        rows, ends = vectors.T, np.cumsum([p.size for p in trees.leaves(kept)])[:-1]
        rows = iter(xp.split(rows, ends, axis=1))
        cut = lambda p: None if p is None else next(rows).reshape(-1, *p.shape)
        return Full(factors.like(params, [cut(k) for _, k in factors.pairs(params, kept)]), xp.maximum(values, 0))
    if structure == "kronecker":
        over = lambda m: namespace(m).where(m == 0, 1, m)
        found = [None if sums is None else Kronecker(sums[0] / over(sums[2]), sums[1]) for sums in found]
        found = [curvature.eigen(block) for block in found]
    below = len(trees.leaves(params)) - len(found)  # leaves of layers that are only applied
    return factors.like(params, [None] * below + found)


# ---- the Gaussian ----------------------------------------------------------------------------------------------------


def variance_of(posterior):
    """The function λ -> 1 / (λ / σ² + τ), the variance along an eigenvector."""
    tau, noise = posterior.prior_precision, posterior.noise
    return lambda values: 1 / (values / noise**2 + tau)


def spectrum(posterior) -> list:
    """The eigenvalues of H, as arrays; τ alone is the precision of every other uncertain parameter."""
    h = posterior.curvature
    if isinstance(h, Full):
        return [h.values]
    blocks = [h for _, h in factors.pairs(posterior.params, h) if h is not None]
    return [block.values if isinstance(block, Eigen) else block for block in blocks]


def check_posterior(posterior):
    """Raise unless it is a posterior, in range."""
    if not isinstance(posterior, Posterior):
        raise KindError(f"posterior: expected one that fnn.laplace.fit made, got {shorten(posterior)}")
    for name in ("prior_precision", "noise"):
        checks.positive(name, getattr(posterior, name))


@on_any_axes
@usage("fnn.laplace.sample(posterior, key, 100)")
def sample(posterior: Posterior, key: Any, samples: int) -> Any:
    """Draw parameters from the posterior.

        θ = θ* + Q (Λ / σ² + τ)^(−½) Qᵀ ε        ε ~ N(0, I)

    Args:
        posterior: of `fit`.
        key: a random key.
        samples: S, how many are drawn.

    Returns:
        Parameters stacked along a leading axis of S, for `fnn.ensemble(net, loss)` and `jax.vmap`; those that are
        certain are all the same. To predict, `output_samples` draws outputs of the linearized network, to which H
        belongs.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.ones((1, 1)), ())
    >>> posterior = fit(Dense(1, bias=False), Quadratic(), params, ([[1.0], [2.0]], [[1.0], [2.0]]))
    >>> float(sample(posterior, random.key(0, backend="numpy"), 300).w.std().round(1))  # 1 / √(5 + 1)
    0.4
    """
    check_posterior(posterior)
    move = lambda key: trees.map(lambda p, d: p + d, posterior.params, deviation(posterior, key))
    return backend.vmap(move)(keys_of(posterior, key, samples))


def keys_of(posterior, key, samples):
    """S keys on the backend of the parameters."""
    return random.split(gate.key_for(key, posterior.params), integer("samples", samples, least=1))


def deviation(posterior, key):
    """One draw of θ − θ*, nested as the parameters."""
    params, h, variance = posterior.params, posterior.curvature, variance_of(posterior)
    spread = lambda values: namespace(values).sqrt(variance(values))
    if isinstance(h, Full):
        eps = random.normal(key, h.values.shape, h.values.dtype) * spread(h.values)
        along = lambda q: namespace(eps).tensordot(eps, q, axes=1)
        return _filled(params, [None if q is None else along(q) for _, q in factors.pairs(params, h.vectors)])
    draw = lambda i, p: random.normal(random.fold_in(key, i), p.shape, at_least_float32(p.dtype))
    eps = factors.like(params, [draw(i, p) for i, p in enumerate(trees.leaves(params))])
    if all(isinstance(block, Eigen) for _, block in factors.pairs(params, h) if block is not None):
        return curvature.block_product(params, h, eps, spread)
    pairs = zip(trees.leaves(eps), factors.pairs(params, h), strict=True)
    return _filled(params, [None if d is None else e * spread(d) for e, (_, d) in pairs])


def _filled(params, leaves):
    """A tree nested as the parameters, in their dtypes, with 0 in place of None."""
    zeros = lambda p: namespace(p).zeros_like(p)
    pairs = zip(trees.leaves(params), leaves, strict=True)
    return factors.like(params, [zeros(p) if leaf is None else cast(leaf, p.dtype) for p, leaf in pairs])

"""Quantities of per-example gradients: the gradients, their norms, inner products, clipping, moments and noise.

The gradient of example n is that of its own cost times its weight, gₙ = wₙ ∂ℓₙ/∂θ. It is not divided by N and excludes
the penalty, which belongs to no example. One forward and one backward pass give its factors (`fnn.factors`), and each
quantity is a formula in these; the gradients themselves need not be materialized.

    norms        ‖gₙ‖ = ‖δₙ‖ ‖aₙ‖                        clipping     Σ gₙ min(1, C / ‖gₙ‖) = contract(c δ, a)
    gram         gᵢ · gⱼ = (δᵢ · δⱼ)(aᵢ · aⱼ)            moments      Σₙ gₙ² = (δ²)ᵀ a²

Each function takes `(net, loss)` and any options, and returns a pure function of `(params, x, y, weights=None,
key=None)`. That function is not compiled: wrap it in `jax.jit`.

Source: I. Goodfellow, "Efficient per-example gradient computations" (2015).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import checks, composition, factors, gate, trees
from .backend import any_number, cast, namespace
from .backpropagation import check_problem, cost, normalized
from .devices import on_any_axes
from .errors import KindError, ShapeError, shorten, usage
from .examples import opened
from .layers import DenseParams, Layer  # noqa: F401 - for the examples
from .layers.base import Array
from .losses import Loss
from .matrices import exact_products
from .numerics import root
from .pieces import after

__all__ = [
    "NoiseScale",
    "clipped",
    "clipped_gradient",
    "gradients",
    "gram",
    "noise_scale",
    "norms",
    "second_moment",
    "signal_to_noise",
    "variance",
]


@on_any_axes
@usage("fnn.per_example.gradients(net, loss)(params, x, y)")
def gradients(net: Layer, loss: Loss) -> Callable[..., Any]:
    """Make the function that computes the gradient gₙ of every example.

    Σₙ gₙ / Σ w is the gradient of the mean cost, as computed by `value_and_grad`.

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, weights=None, key=None) -> grads` with the structure of params, where each leaf has the shape
        (N, ...). It takes N times the memory of the parameters.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> gradients(net, Quadratic())(params, x, y).w.tolist()
    [[[3.0, 6.0]], [[0.0, 9.0]]]
    """
    examples = _examples(net, loss)

    def run(params, x, y, weights=None, key=None):
        params, f, weights, zeros = examples(params, x, y, weights, key)
        return factors.made(params, f if weights is None else factors.scaled(f, weights), len(zeros))

    return run


@on_any_axes
@usage("fnn.per_example.norms(net, loss)(params, x, y)")
def norms(net: Layer, loss: Loss, *, by_layer: bool = False) -> Callable[..., Any]:
    """Make the function that computes ‖gₙ‖, the norm of each example's gradient over all parameters.

    Args:
        net: the network.
        loss: the cost.
        by_layer: whether to return the norms of each layer. Default: False.

    Returns:
        `(params, x, y, weights=None, key=None) -> norms` (N,), in float32 or wider; with `by_layer`, a tree nested as
        the parameters are, with (N,) for every layer that learns and None for the others.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> norms(net, Quadratic())(params, x, y).round(3).tolist()
    [6.708, 9.0]
    """
    examples = _examples(net, loss)

    def run(params, x, y, weights=None, key=None):
        params, f, weights, zeros = examples(params, x, y, weights, key)
        length = lambda f: _weighted(zeros + factors.norm(f), None if weights is None else abs(weights))
        if not by_layer:
            return length(f)
        return composition.each(lambda layer, f: length(f) if factors.leaves(f) else None, net, f)

    return run


@on_any_axes
@usage("fnn.per_example.clipped_gradient(net, loss, max_norm=1.0)(params, x, y)")
def clipped_gradient(net: Layer, loss: Loss, max_norm: Any, *, denominator: float | None = None) -> Callable[..., Any]:
    """Make the function that clips each example's gradient to the norm C, and averages the results.

        Σₙ gₙ min(1, C / ‖gₙ‖) / D

    It takes one forward and one backward pass, as without clipping, since what is scaled is δ. A gradient whose norm is
    not finite counts as 0, so no example can change the sum by more than C, up to the rounding of the sum. Where the
    positions of a sequence cancel, ‖gₙ‖ includes what rounding may hide of it (`fnn.factors.bound`).

    Args:
        net: the network.
        loss: the cost.
        max_norm: C, greater than 0; ∞ gives the ordinary gradient.
        denominator: D. For a randomly sampled batch, pass its expected size. Default: Σ w (N without weights).

    Returns:
        `(params, x, y, weights=None, key=None) -> grads`, with the structure of params.

    Source: M. Abadi et al., "Deep learning with differential privacy" (2016), algorithm 1; without materializing the
    gradients: J. Lee, D. Kifer, "Scaling up differentially private deep learning with fast per-example gradient
    clipping" (2021).

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> clipped_gradient(net, Quadratic(), max_norm=4.5)(params, x, y).w.round(3).tolist()
    [[1.006, 4.262]]
    """
    examples = _examples(net, loss)
    checks.positive("max_norm", max_norm)
    if denominator is not None:
        checks.positive("denominator", denominator)

    def run(params, x, y, weights=None, key=None):
        params, f, weights, _ = examples(params, x, y, weights, key)
        return clipped(params, f, weights, max_norm, denominator)

    return run


def clipped(params, f, weights, max_norm, denominator=None) -> Any:
    """`clipped_gradient`, computed from factors.

    Args:
        params: the parameters.
        f: the factors of the examples.
        weights: w (N,), or None.
        max_norm: the largest norm C.
        denominator: what the sum is divided by. Default: Σ w.

    Returns:
        The clipped gradient, nested as the parameters.

    >>> f = factors.Outer(np.array([[2.0], [1.0]]), np.array([[3.0, 4.0], [0.5, 0.0]]))  # norms 10 and 0.5
    >>> clipped(np.zeros((1, 2)), f, None, max_norm=1.0)
    array([[0.55, 0.4 ]])
    """
    if not factors.leaves(f):
        return factors.total(params, f)
    with exact_products():
        length = factors.bound(f)
        if weights is not None:
            length = _weighted(length, abs(weights))
        xp, short = namespace(length), length <= max_norm
        finite = length < np.inf  # NaN is not
        scale = xp.where(short, 1, xp.where(finite, max_norm / xp.where(short | ~finite, 1, length), 0))
        scale = xp.where(scale < np.finfo(length.dtype).tiny, 0, scale)  # a subnormal one may be rounded to double
        if denominator is None:
            scale = scale / scale.shape[0] if weights is None else scale * normalized(weights)
        else:
            scale = (scale if weights is None else scale * weights) / denominator
        return factors.total(params, f, cast(scale, length.dtype))


@on_any_axes
@usage("fnn.per_example.gram(net, loss)(params, x, y)")
def gram(net: Layer, loss: Loss) -> Callable[..., Array]:
    """Make the function that computes the inner products gᵢ · gⱼ of the examples' gradients.

    A small step η along −gⱼ lowers the cost of example i by η gᵢ · gⱼ: this is what j teaches about i.

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, weights=None, key=None, other=None) -> products` (N, M), in float32 or wider. The M examples are
        those of `other`, data `(x, y)` or `(x, y, weights)`. Without it they are the same N examples, and the result is
        the Gram matrix (N, N), the empirical tangent kernel of the costs.

    Source: G. Pruthi et al., "Estimating training data influence by tracing gradient descent" (2020), eq. 1.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> gram(net, Quadratic())(params, x, y).tolist()
    [[45.0, 54.0], [54.0, 81.0]]
    """
    examples = _examples(net, loss)

    def run(params, x, y, weights=None, key=None, other=None):
        _, f, weights, zeros = examples(params, x, y, weights, key)
        g, others, more = f, weights, zeros
        if other is not None:
            _, g, others, more = examples(params, *opened(other, "other"), key)
        products = _weighted(zeros[:, None] + more + factors.products(f, g), weights)
        return products if others is None else _weighted(products.T, others).T

    return run


@on_any_axes
@usage("fnn.per_example.second_moment(net, loss)(params, x, y)")
def second_moment(net: Layer, loss: Loss) -> Callable[..., Any]:
    """Make the function that computes the mean over the examples of their squared gradients.

        Σ w (∂ℓ/∂θ)² / Σ w        for each parameter

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, weights=None, key=None) -> moments`, with the structure of params.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> second_moment(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[4.5, 58.5]]
    """
    return _moments(net, loss, lambda mean, square: square)


@on_any_axes
@usage("fnn.per_example.variance(net, loss)(params, x, y)")
def variance(net: Layer, loss: Loss) -> Callable[..., Any]:
    """Make the function that computes the variance of the examples' gradients: how much the examples disagree.

        Σ w (∂ℓ/∂θ − ḡ)² / Σ w        for each parameter, with the mean gradient ḡ

    It is computed as the second moment minus ḡ², so in float32 it has about 7 digits of the larger of the two; it is
    never negative. The gradient of a batch of B randomly drawn examples has this variance divided by B.

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, weights=None, key=None) -> variances`, with the structure of params.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> variance(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[2.25, 2.25]]
    """
    return _moments(net, loss, lambda mean, square: namespace(mean).maximum(square - mean * mean, 0))


@on_any_axes
@usage("fnn.per_example.signal_to_noise(net, loss)(params, x, y)")
def signal_to_noise(net: Layer, loss: Loss) -> Callable[..., Any]:
    """Make the function that computes |ḡ| / √variance: how far the examples agree on the direction.

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, weights=None, key=None) -> ratios`, with the structure of params; 0 where mean and variance
        are 0.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> signal_to_noise(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[1.0, 5.0]]
    """

    def ratio(mean, square):
        xp = namespace(mean)
        return _ratio(abs(mean), root(xp.maximum(square - mean * mean, 0)))

    return _moments(net, loss, ratio)


class NoiseScale(NamedTuple):
    """The noise of the gradient, and the batch size at which it equals the signal.

    simple      B = tr Σ̂ / ‖ḡ‖², with Σ̂ the covariance of the examples' gradients and ḡ their mean
    unbiased    B = S / G, with unbiased estimates S of tr Σ and G of ‖∇‖²; near a minimum G, and so B, may be negative
    trace       S = N / (N − 1) (mean ‖gₙ‖² − ‖ḡ‖²)
    norm2       G = ‖ḡ‖² − S / N
    """

    simple: Array
    unbiased: Array
    trace: Array
    norm2: Array


@on_any_axes
@usage("fnn.per_example.noise_scale(net, loss)(params, x, y)")
def noise_scale(net: Layer, loss: Loss) -> Callable[..., NoiseScale]:
    """Make the function that computes the gradient noise scale.

    Steps with much smaller batches than this scale are mostly noise, and much larger batches waste work. With weights,
    N is the effective number of examples (Σ w)² / Σ w², for which the estimates stay unbiased; it must be above 1.

    Args:
        net: the network.
        loss: the cost.

    Returns:
        `(params, x, y, weights=None, key=None) -> NoiseScale`.

    Raises:
        ShapeError: from the function returned, for fewer than two examples.

    Source: S. McCandlish, J. Kaplan, D. Amodei et al., "An empirical model of large-batch training" (2018), eq. 2.9 and
    appendix A.1 with batches of 1 and N.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> [round(float(v), 3) for v in noise_scale(net, Quadratic())(params, x, y)]
    [0.077, 0.167, 9.0, 54.0]
    """
    examples = _examples(net, loss)

    def run(params, x, y, weights=None, key=None):
        params, f, weights, zeros = examples(params, x, y, weights, key)
        if len(zeros) < 2:
            raise ShapeError("x: expected at least two examples, got 1")
        shares = _shares(weights, zeros)
        squares = (shares * shares).sum()
        n = 1 / namespace(squares).where(squares == 0, 1, squares)
        mean = factors.total(params, f, shares)
        norm2 = sum(((cast(g, shares.dtype) ** 2).sum() for g in trees.learnt(mean)), zeros.sum())
        spread = _weighted(zeros + factors.norm2(f), shares).sum() - norm2
        trace = _ratio(spread * n, n - 1)
        unbiased = norm2 - trace / n
        return NoiseScale(_ratio(spread, norm2), _ratio(trace, unbiased), trace, unbiased)

    return run


def _examples(net, loss) -> Callable[..., Any]:
    """`(params, x, y, weights, key) -> (params, factors of ∂ℓₙ/∂θ, weights, zeros (N,))`, by one pass each way."""
    check_problem(net, loss)
    check_separable(loss)

    def run(params, x, y, weights, key):
        params, (x, y, weights) = gate.batch(net, loss, params, x, y, weights)
        f, losses = factors_of(net, loss, params, x, y, gate.key_for(key, x))
        return params, f, weights, namespace(losses).zeros_like(losses)

    return run


def check_separable(loss):
    """Raise unless each example has a cost, and so a gradient, of its own."""
    if type(loss).outer is not Loss.outer:
        raise KindError(
            f"loss: expected a mean over the examples, got {shorten(loss)}, which is a function of that mean, "
            "so no example has a gradient of its own"
        )


def factors_of(net, loss, params, x, y, key=None) -> tuple[Any, Array]:
    """The factors of each example's unweighted gradient, and the losses (N,), for a batch that passed the gate."""
    prediction, residuals = net.forward(params, x, key)
    losses, delta, dtype = cost(loss, prediction, y)
    _, deltas = net.propagate(params, residuals, cast(delta, dtype), need_dx=False)
    with after(deltas):  # the errors of the first layer are the last to be known
        return net.factors(params, residuals, deltas), losses


def _moments(net, loss, f):
    """Apply `f(mean, mean of the squares)` to the examples' gradients, for each parameter."""
    examples = _examples(net, loss)

    def run(params, x, y, weights=None, key=None):
        params, g, weights, zeros = examples(params, x, y, weights, key)
        shares = _shares(weights, zeros)
        square = factors.squares(params, g, shares)
        return trees.map(f, factors.total(params, g, shares), square)

    return run


def _weighted(values, weights):
    """Values (N, ...) times weights (N,); a weight of 0 gives 0 even for infinite values."""
    if weights is None:
        return values
    w = weights.reshape(weights.shape[0], *(1,) * (values.ndim - 1))
    return namespace(values).where(w == 0, 0, values) * w


def _ratio(a, b):
    """a / b for a ≥ 0, in the dtype of a; where b is 0 it is ∞, or 0 if a is 0 too."""
    xp = namespace(a, b)
    with any_number():
        return cast(xp.where(b == 0, xp.where(a > 0, np.inf, 0), a / xp.where(b == 0, 1, b)), a.dtype)[()]


def _shares(weights, zeros):
    """w / Σ w (N,)."""
    return (zeros + 1) / zeros.shape[0] if weights is None else normalized(weights)

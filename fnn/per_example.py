"""What is known of each example: its gradient, the norm of it, inner products, clipping, moments and noise.

The gradient of example n is that of its own cost times its weight, gₙ = wₙ ∂ℓₙ/∂θ: not divided by N, and without the
penalty, which belongs to no example. One forward and one backward pass give its factors (`fnn.factors`), and each
quantity is a formula in these: the gradients themselves need not be made.

    norms        ‖gₙ‖ = ‖δₙ‖ ‖aₙ‖                        clipping     Σ gₙ min(1, C / ‖gₙ‖) = contract(c δ, a)
    gram         gᵢ · gⱼ = (δᵢ · δⱼ)(aᵢ · aⱼ)            moments      Σₙ gₙ² = (δ²)ᵀ a²

Each function takes `(net, loss)`, and what it needs besides, and returns a pure function of `(params, x, y,
weights=None, key=None)`. It is not compiled: wrap it in `jax.jit`. I. Goodfellow, "Efficient per-example gradient
computations" (2015).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import composition, factors, gate, trees
from .backend import cast, namespace
from .backpropagation import check_problem, cost
from .errors import KindError, ShapeError, shorten
from .layers import DenseParams, Layer  # noqa: F401 - for the examples
from .layers.base import Array
from .losses import Loss


def gradients(net: Layer, loss: Loss) -> Callable[..., Any]:
    """gₙ of every example, made: the structure of params, each leaf (N, ...), so N times their memory.

    Σₙ gₙ / Σ w is the gradient of the mean cost, that of `value_and_grad`.

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


def norms(net: Layer, loss: Loss, *, by_layer: bool = False) -> Callable[..., Any]:
    """‖gₙ‖ (N,), the length of each example's gradient over all parameters, in float32 or wider.

    Args:
        net: the network.
        loss: the cost.
        by_layer: with True a tree nested as the parameters are: (N,) for every layer that learns, None for the others.
            Default: False.

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


def clipped_gradient(net: Layer, loss: Loss, max_norm, *, denominator=None) -> Callable[..., Any]:
    """Σₙ gₙ min(1, C / ‖gₙ‖) / D: each example's gradient shortened to the length C at most, and their mean.

    One forward and one backward pass, as without clipping: what is scaled is δ. A gradient whose length is not finite
    counts nothing, so that no example can move the sum by more than C.

    Args:
        net: the network.
        loss: the cost.
        max_norm: C, above 0; ∞ is ordinary training.
        denominator: D. Default: Σ w (N without weights); for a batch sampled with an expected size, pass that size.

    Source: M. Abadi et al., "Deep learning with differential privacy" (2016), algorithm 1; without making the
    gradients: J. Lee, D. Kifer, "Scaling up differentially private deep learning with fast per-example gradient
    clipping" (2021).

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> clipped_gradient(net, Quadratic(), max_norm=4.5)(params, x, y).w.round(3).tolist()
    [[1.006, 4.262]]
    """
    examples = _examples(net, loss)
    gate.positive("max_norm", max_norm)
    if denominator is not None:
        gate.positive("denominator", denominator)

    def run(params, x, y, weights=None, key=None):
        params, f, weights, zeros = examples(params, x, y, weights, key)
        return clipped(params, f, weights, max_norm, _count(weights, zeros) if denominator is None else denominator)

    return run


def clipped(params, f, weights, max_norm, denominator) -> Any:
    """`clipped_gradient` from factors."""
    length = factors.norm(f)
    if not factors.leaves(f):
        return factors.total(params, f)
    if weights is not None:
        length = _weighted(length, abs(weights))
    xp, short = namespace(length), length <= max_norm
    finite = length < np.inf  # NaN is not
    scale = xp.where(short, 1, xp.where(finite, max_norm / xp.where(short | ~finite, 1, length), 0))
    if weights is not None:
        scale = scale * weights
    return factors.total(params, f, cast(scale / denominator, length.dtype))


def gram(net: Layer, loss: Loss) -> Callable[..., Array]:
    """`(params, x, y, weights=None, key=None, other=None) -> (N, M)`: the inner products gᵢ · gⱼ, in float32 or wider.

    The M examples are those of `other`, data `(x, y)` or `(x, y, weights)`; without it they are the same, and this is
    the Gram matrix (N, N), the empirical tangent kernel of the costs. A small step η along −gⱼ lowers the cost of
    example i by η gᵢ · gⱼ: what j teaches about i.

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
            _, g, others, more = examples(params, *gate.opened(other, "other"), key)
        products = _weighted(zeros[:, None] + more + factors.products(f, g), weights)
        return products if others is None else _weighted(products.T, others).T

    return run


def second_moment(net: Layer, loss: Loss) -> Callable[..., Any]:
    """Σ w (∂ℓ/∂θ)² / Σ w for each parameter: the mean over the examples of the squares of their gradients.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> second_moment(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[4.5, 58.5]]
    """
    return _moments(net, loss, lambda mean, square: square)


def variance(net: Layer, loss: Loss) -> Callable[..., Any]:
    """Σ w (∂ℓ/∂θ − ḡ)² / Σ w for each parameter, with the mean gradient ḡ: how much the examples disagree.

    Computed as the second moment less ḡ², so of float32 it keeps some 7 digits of the larger of the two; never
    negative. The gradient of a batch of B examples drawn at random has this variance divided by B.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> variance(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[2.25, 2.25]]
    """
    return _moments(net, loss, lambda mean, square: namespace(mean).maximum(square - mean * mean, 0))


def signal_to_noise(net: Layer, loss: Loss) -> Callable[..., Any]:
    """|ḡ| / √variance for each parameter: how far the examples agree on the direction; 0 where both are 0.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> signal_to_noise(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[1.0, 5.0]]
    """

    def ratio(mean, square):
        xp = namespace(mean)
        return _ratio(abs(mean), xp.sqrt(xp.maximum(square - mean * mean, 0)))

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


def noise_scale(net: Layer, loss: Loss) -> Callable[..., NoiseScale]:
    """The gradient noise scale of these examples, a `NoiseScale`: steps with much smaller batches are mostly noise, and
    much larger batches waste work.

    N is Σ w, so weights are best 0 or 1, at least two of them 1.

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
        n, shares = _count(weights, zeros), _shares(weights, zeros)
        mean = factors.total(params, f, shares)
        norm2 = sum(((cast(g, shares.dtype) ** 2).sum() for g in trees.learnt(mean)), zeros.sum())
        spread = _weighted(zeros + factors.norm2(f), shares).sum() - norm2
        trace = _ratio(spread * n, n - 1)
        unbiased = norm2 - trace / n
        return NoiseScale(_ratio(spread, norm2), _ratio(trace, unbiased), trace, unbiased)

    return run


def _examples(net, loss) -> Callable[..., Any]:
    """`(params, x, y, weights, key) -> (params, factors of ∂ℓₙ/∂θ, weights, zeros (N,))`: one pass each way."""
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
            f"loss: expected a mean of the examples' own costs; {shorten(loss)} is a function of that mean, "
            "so no example has a gradient of its own"
        )


def factors_of(net, loss, params, x, y, key=None) -> tuple[Any, Array]:
    """The factors of each example's own gradient, unweighted, and the losses (N,), of a batch that passed the gate."""
    prediction, residuals = net.forward(params, x, key)
    losses, delta = cost(loss, prediction, y)
    _, deltas = net.propagate(params, residuals, delta, need_dx=False)
    return net.factors(params, residuals, deltas), losses


def _moments(net, loss, f):
    """`f(mean, mean of the squares)` of the gradients of the examples, for each parameter."""
    examples = _examples(net, loss)

    def run(params, x, y, weights=None, key=None):
        params, g, weights, zeros = examples(params, x, y, weights, key)
        shares = _shares(weights, zeros)
        square = factors.squares(params, g, shares)
        return trees.map(f, factors.total(params, g, shares), square)

    return run


def _weighted(values, weights):
    """Values (N, ...) times weights (N,); a weight of 0 leaves nothing even of what is infinite."""
    if weights is None:
        return values
    w = weights.reshape(len(weights), *(1,) * (values.ndim - 1))
    return namespace(values).where(w == 0, 0, values) * w


def _ratio(a, b):
    """a / b for a ≥ 0, in the dtype of a; where b is 0, ∞, or 0 where a is 0 too."""
    xp = namespace(a, b)
    return cast(xp.where(b == 0, xp.where(a > 0, np.inf, 0), a / xp.where(b == 0, 1, b)), a.dtype)[()]


def _count(weights, zeros):
    """Σ w, as a divisor."""
    if weights is None:
        return len(zeros)
    total = weights.sum()
    return namespace(total).where(total == 0, 1, total)


def _shares(weights, zeros):
    """w / Σ w (N,)."""
    return (zeros + 1 if weights is None else weights) / _count(weights, zeros)

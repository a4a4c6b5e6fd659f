"""What the tape knows of each example: its gradient, the norm of that, inner products, clipping, moments and noise.

The gradient of example n is that of its own cost times its weight, gₙ = wₙ ∂ℓₙ/∂θ: not divided by N, and without the
penalty, which is no example's. It is linear in the errors δ, so what is asked of all gradients is a formula in the
activations a and the errors δ of each layer, and the gradients themselves need not be made:

    Dense      ‖gₙ‖² = ‖δₙ‖² (‖aₙ‖² + 1)      gᵢ · gⱼ = (δᵢ · δⱼ)(aᵢ · aⱼ + 1)      Σₙ gₙ² = (δ²)ᵀ a²
    clipping   δₙ times min(1, C / ‖gₙ‖), then the gradient as ever

Every function takes `(net, loss)`, and what it needs besides, and returns a pure function of `(params, x, y,
weights=None, key=None)`. That is not compiled: wrap it in `jax.jit`. I. Goodfellow, "Efficient per-example gradient
computations" (2015).
"""

from typing import Any, NamedTuple

import numpy as np

from . import backend, trees
from .backend import cast, namespace
from .backprop import backprop, check_problem, enter_batch, scaled, unpack, weighted
from .errors import ArgumentError, KindError, ShapeError, shorten
from .layers import Array, DenseParams, Layer  # noqa: F401 - for the examples
from .losses import Loss


def gradients(net: Layer, loss: Loss):
    """gₙ of every example, made: the structure of params, each leaf (N, ...), so N times their memory.

    Σₙ gₙ / Σ w is the gradient of the mean cost, that of `value_and_grad`.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> gradients(net, Quadratic())(params, x, y).w.tolist()
    [[[3.0, 6.0]], [[0.0, 9.0]]]
    """
    errors = _errors(net, loss)

    def run(params, x, y, weights=None, key=None):
        of = errors(params, x, y, weights, key)
        return net.per_example_gradient(of.params, of.residuals, scaled(of.deltas, of.weights))

    return run


def norms(net: Layer, loss: Loss, *, by_layer=False):
    """‖gₙ‖ (N,), the length of each example's gradient over all parameters, in float32 or wider.

    With `by_layer=True` a tree nested as the parameters are: (N,) for every layer that learns, None for each other.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> norms(net, Quadratic())(params, x, y).round(3).tolist()
    [6.708, 9.0]
    """
    errors = _errors(net, loss)

    def run(params, x, y, weights=None, key=None):
        of = errors(params, x, y, weights, key)

        def rule(layer, params, residuals, deltas):
            if deltas is None or not trees.leaves(params):
                return None
            return _length(layer.per_example_norm2(params, residuals, deltas), of.weights)

        if by_layer:
            return net.each(rule, of.params, of.residuals, of.deltas)
        return _length(_norm2(net, of), of.weights)

    return run


def clipped_gradient(net: Layer, loss: Loss, max_norm, *, denominator=None):
    """Σₙ gₙ min(1, C / ‖gₙ‖) / D: each example's gradient shortened to the length C at most, and their mean.

    C is `max_norm`, above 0; ∞ is ordinary training. D is the `denominator`, by default Σ w (N without weights); of a
    batch sampled with an expected size, take that. One forward and one backward pass, as without clipping: what is
    scaled is δ. M. Abadi et al., "Deep learning with differential privacy" (2016), algorithm 1; without making the
    gradients: J. Lee, D. Kifer, "Scaling up differentially private deep learning with fast per-example gradient
    clipping" (2021).

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> clipped_gradient(net, Quadratic(), max_norm=4.5)(params, x, y).w.round(3).tolist()
    [[1.006, 4.262]]
    """
    errors = _errors(net, loss)
    _positive("max_norm", max_norm)
    if denominator is not None:
        _positive("denominator", denominator)

    def run(params, x, y, weights=None, key=None):
        of = errors(params, x, y, weights, key)
        length = _length(_norm2(net, of), of.weights)
        xp, long = namespace(length), length > max_norm
        factors = xp.where(long, max_norm / xp.where(long, length, 1), 1)
        if of.weights is not None:
            factors = factors * of.weights
        factors = factors / (_count(of) if denominator is None else denominator)
        factors = cast(factors, length.dtype)

        def rule(layer, params, residuals, deltas):
            nonlocal factors
            if deltas is None:
                return trees.map(lambda p: namespace(p).zeros_like(p), params)
            grads = layer.gradient(params, residuals, scaled(deltas, factors))
            if trees.leaves(grads):  # one layer after the other, so that no two errors are scaled at once
                factors = backend.after(factors, trees.leaves(grads)[0])
            return grads

        with backend.sparing():
            return net.each(rule, of.params, of.residuals, of.deltas)

    return run


def gram(net: Layer, loss: Loss):
    """`(params, x, y, weights=None, key=None, other=None) -> (N, M)`: the inner products gᵢ · gⱼ, in float32 or wider.

    The M examples are those of `other`, data `(x, y)` or `(x, y, weights)`; without it they are the same, and this is
    the Gram matrix (N, N), the empirical tangent kernel of the costs. A small step η along −gⱼ lowers the cost of
    example i by η gᵢ · gⱼ: what j teaches about i. G. Pruthi et al., "Estimating training data influence by tracing
    gradient descent" (2020), eq. 1.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> gram(net, Quadratic())(params, x, y).tolist()
    [[45.0, 54.0], [54.0, 81.0]]
    """
    errors = _errors(net, loss)

    def run(params, x, y, weights=None, key=None, other=None):
        ours = errors(params, x, y, weights, key)
        theirs = ours if other is None else errors(params, *unpack(other, "other"), key)
        total = ours.zeros[:, None] + theirs.zeros
        both = zip(_learning(net, ours), _learning(net, theirs), strict=True)
        for (layer, p, *mine), (_, _, *others) in both:
            total = total + layer.per_example_products(p, tuple(mine), tuple(others))
        if ours.weights is not None:
            total = weighted(total, ours.weights[:, None])
        return total if theirs.weights is None else weighted(total, theirs.weights)

    return run


def second_moment(net: Layer, loss: Loss):
    """Σ w (∂ℓ/∂θ)² / Σ w for each parameter: the mean over the examples of the squares of their gradients.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> second_moment(net, Quadratic())(params, x, y).w.round(3).tolist()
    [[4.5, 58.5]]
    """
    return _moments(net, loss, lambda mean, square: square)


def variance(net: Layer, loss: Loss):
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


def signal_to_noise(net: Layer, loss: Loss):
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


def noise_scale(net: Layer, loss: Loss):
    """The gradient noise scale of these examples, a `NoiseScale`: with batches much smaller than it steps are noise,
    with much larger ones work is wasted.

    N is Σ w, so weights are best 0 or 1, at least two of them 1. S. McCandlish, J. Kaplan, D. Amodei et al., "An
    empirical model of large-batch training" (2018), eq. 2.9 and appendix A.1 with batches of 1 and N.

    >>> from fnn import Dense, Quadratic
    >>> net, params = Dense(1, bias=False), DenseParams(np.ones((1, 2)), ())
    >>> x, y = [[1.0, 2.0], [0.0, 3.0]], [[0.0], [0.0]]
    >>> [round(float(v), 3) for v in noise_scale(net, Quadratic())(params, x, y)]
    [0.077, 0.167, 9.0, 54.0]
    """
    errors = _errors(net, loss)

    def run(params, x, y, weights=None, key=None):
        of = errors(params, x, y, weights, key)
        if len(of.zeros) < 2:
            raise ShapeError("x: expected at least two examples, got 1")
        n, shares, mean = _count(of), _shares(of), _mean(net, of)
        norm2 = sum(((cast(g, shares.dtype) ** 2).sum() for g in trees.learnt(mean)), of.zeros.sum())
        spread = weighted(_norm2(net, of), shares).sum() - norm2
        trace = _ratio(spread * n, n - 1)
        unbiased = norm2 - trace / n
        return NoiseScale(_ratio(spread, norm2), _ratio(trace, unbiased), trace, unbiased)

    return run


class _Errors(NamedTuple):
    """Of a batch: the params as they were entered, residuals and deltas of the network, weights or None, and 0 (N,)."""

    params: Any
    residuals: Any
    deltas: Any
    weights: Array | None
    zeros: Array


def _errors(net, loss):
    """`(params, x, y, weights, key) -> _Errors`: one forward and one backward pass."""
    check_problem(net, loss)
    if type(loss).outer is not Loss.outer:
        raise KindError(
            f"loss: expected a mean of the examples' own costs; {shorten(loss)} is a function of that mean, "
            "so no example has a gradient of its own"
        )
    tape_of = backprop(net, loss, need_dx=False)

    def run(params, x, y, weights, key):
        params, x, y, weights = enter_batch(params, x, y, weights)
        tape = tape_of(params, x, y, None, key)
        return _Errors(params, tape.residuals, tape.deltas, weights, namespace(tape.losses).zeros_like(tape.losses))

    return run


def _learning(net, of):
    """`(layer, params, residuals, deltas)` of every layer that learns, one after the other."""
    found = []
    net.each(lambda *of_layer: found.append(of_layer), of.params, of.residuals, of.deltas)
    return [of_layer for of_layer in found if of_layer[3] is not None and trees.leaves(of_layer[1])]


def _norm2(net, of):
    """‖∂ℓₙ/∂θ‖² (N,)."""
    return sum((layer.per_example_norm2(*of_layer) for layer, *of_layer in _learning(net, of)), of.zeros)


def _length(norm2, weights):
    """‖gₙ‖ of ‖∂ℓₙ/∂θ‖²."""
    norm = namespace(norm2).sqrt(norm2)
    return norm if weights is None else weighted(norm, abs(weights))


def _ratio(a, b):
    """a / b for a ≥ 0, in the dtype of a; where b is 0, ∞, or 0 where a is 0 too."""
    xp = namespace(a, b)
    return cast(xp.where(b == 0, xp.where(a > 0, np.inf, 0), a / xp.where(b == 0, 1, b)), a.dtype)[()]


def _count(of):
    """Σ w, as a divisor."""
    if of.weights is None:
        return len(of.zeros)
    total = of.weights.sum()
    return namespace(total).where(total > 0, total, 1)


def _shares(of):
    """w / Σ w (N,)."""
    return (of.zeros + 1 if of.weights is None else of.weights) / _count(of)


def _mean(net, of):
    """ḡ = Σ w ∂ℓ/∂θ / Σ w."""
    return net.gradient(of.params, of.residuals, scaled(of.deltas, _shares(of)))


def _moments(net, loss, f):
    """`f(mean, mean of the squares)` of the gradients of the examples, for each parameter."""
    errors = _errors(net, loss)

    def run(params, x, y, weights=None, key=None):
        of = errors(params, x, y, weights, key)
        shares = _shares(of)

        def rule(layer, params, residuals, deltas):
            if deltas is None:
                return trees.map(lambda p: namespace(p).zeros_like(p), params)
            return layer.per_example_squares(params, residuals, deltas)

        square = net.each(rule, of.params, of.residuals, scaled(of.deltas, namespace(shares).sqrt(shares)))
        return trees.map(f, _mean(net, of), square)

    return run


def _positive(name, value):
    """Raises unless it is a number above 0, which may be ∞."""
    if backend.is_traced(value):
        return
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise KindError(f"{name}: expected a number, got {shorten(value)}")
    if not number > 0:
        raise ArgumentError(f"{name}: expected a number above 0, got {number:g}")

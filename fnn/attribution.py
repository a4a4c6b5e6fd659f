"""Attribution: how much each number of an input adds to an output of the network, from the backward pass.

    f(x) (N,)      one number for each example: an output, that of a class, or any function of the outputs a = net(x)
    g  = ∂f/∂x     by one backward pass, whose error at the output is δ = ∂f/∂a
    x − b          the distance from a baseline b, at which there is nothing to explain

Inputs that are integers, such as the symbols of an `Embedding`, have no derivative. Of a network that begins with an
embedding, x stands for the embedded symbols: (N, T, O), of which the sum over O is one number for each symbol.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import backend, checks, complex_step, examples, gate, random, trees
from .backend import at_least_float32, at_least_int32, cast, floating, is_floating, namespace
from .devices import on_any_axes
from .errors import ArgumentError, DataError, KindError, ShapeError, integer, real, shorten, usage
from .examples import each, parts
from .layers import Embedding, Layer
from .layers.activations import Identity
from .layers.base import Array
from .networks import Frozen, Serial

__all__ = ["Integrated", "gradient_times_input", "gradients", "integrated_gradients", "smooth_gradients"]


class Integrated(NamedTuple):
    """Integrated gradients of N examples.

    values    the attributions, shaped as x
    gap       (N,), their sum minus f(x) − f(b): 0 but for the error of the sum that stands for the integral
    """

    values: Any
    gap: Array


@on_any_axes
@usage("fnn.attribution.gradients(net)(params, x, of)")
def gradients(net: Layer) -> Callable[..., Any]:
    """Make the function that computes g = ∂f/∂x, the saliency of each number of the input.

    As all functions here it is pure and not compiled; on JAX wrap a call with `of` fixed in `jax.jit`.

    Args:
        net: the network; its layers are in inference mode.

    Returns:
        `(params, x, of=None) -> g`, shaped as x. `of` says what f is: None, if the network has one output; the index of
        an output, or a tuple of them for outputs with several axes; integers (N,), one for each example, such as
        labels; or a function a -> (N,) of the outputs that treats each example independently, of which the derivative
        is taken by `jax.vjp`, or on NumPy by the complex step. Of several inputs, those that are integers have None.

    Raises:
        KindError: if the input has no derivative.

    Source: K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks" (2014), §3.

    >>> from fnn import Dense, DenseParams
    >>> params = DenseParams(np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros(2))
    >>> gradients(Dense(2))(params, np.ones((1, 2)), 1)
    array([[3., 4.]])
    """
    gate.check_network(net)

    @usage("fnn.attribution.gradients(net)(params, x, of)")
    def run(params, x, of=None):
        f, x, _ = _entered(net, params, x, of)
        return f(x)[1]

    return run


@on_any_axes
@usage("fnn.attribution.gradient_times_input(net)(params, x, of)")
def gradient_times_input(net: Layer) -> Callable[..., Any]:
    """Make the function that computes x ⊙ ∂f/∂x. Its sum is f(x) where f is linear without a constant.

    Args:
        net: the network; its layers are in inference mode.

    Returns:
        `(params, x, of=None) -> attributions`, shaped as x; `of` as for `gradients`.

    Source: A. Shrikumar et al., "Not just a black box: learning important features through propagating activation
    differences" (2016), §3.

    >>> from fnn import Dense, DenseParams
    >>> params = DenseParams(np.array([[1.0, 2.0]]), np.zeros(1))
    >>> gradient_times_input(Dense(1))(params, np.array([[5.0, -1.0]]))
    array([[ 5., -2.]])
    """
    gate.check_network(net)

    @usage("fnn.attribution.gradient_times_input(net)(params, x, of)")
    def run(params, x, of=None):
        f, x, _ = _entered(net, params, x, of)
        return _map(lambda a, g: a * g, x, f(x)[1])

    return run


@on_any_axes
@usage("fnn.attribution.integrated_gradients(net, steps=50)(params, x, of)")
def integrated_gradients(net: Layer, *, steps: int = 50) -> Callable[..., Integrated]:
    """Make the function that computes integrated gradients, attributions that sum to f(x) − f(b).

        values = (x − b) ⊙ ∫₀¹ g(b + α (x − b)) dα  ≈  (x − b) ⊙ Σₖ wₖ g(b + αₖ (x − b))

    αₖ and wₖ are those of the Gauss-Legendre rule. Each step is a forward and a backward pass of all N examples.

    Args:
        net: the network; its layers are in inference mode.
        steps: the number of αₖ, at least 1. Where `gap` is not small beside f(x) − f(b), take more. Default: 50.

    Returns:
        `(params, x, of=None, baseline=None) -> Integrated(values, gap)`; `of` as for `gradients`. The baseline is
        shaped as x or as one example of it, of embedded symbols as those; by default it is 0.

    Raises:
        KindError: if the input has no derivative.

    Source: M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks" (2017), eqs. 1 and 3.

    >>> from fnn import Tanh
    >>> found = integrated_gradients(Tanh())((), np.array([[2.0, -1.0]]), lambda a: a.sum(axis=1))
    >>> found.values, np.tanh([[2.0, -1.0]])
    (array([[ 0.96402758, -0.76159416]]), array([[ 0.96402758, -0.76159416]]))
    """
    gate.check_network(net)
    steps = integer("steps", steps, least=1)

    @usage("fnn.attribution.integrated_gradients(net)(params, x, of, baseline)")
    def run(params, x, of=None, baseline=None):
        f, x, embedded = _entered(net, params, x, of)
        base = _base(baseline, x, embedded)
        wide, xp = _wide(x), namespace(*trees.leaves((params, x)))
        line = tuple(xp.asarray(v, dtype=wide) for v in _line(steps))

        def add(total, point):
            alpha, share = point
            toward = lambda a, b: b + cast(alpha * cast(a - b, wide), a.dtype)
            between = _map(toward, x, base, integers=lambda a: a)
            return _map(lambda t, g: t + share * cast(g, wide), total, f(between)[1]), None

        total, _ = backend.scan(add, _map(lambda a: xp.zeros(a.shape, wide), x), line)
        values = _map(lambda t, a, b: t * cast(a - b, wide), total, x, base)
        explained = sum(v.reshape(len(v), -1).sum(axis=1) for v in trees.leaves(values))
        return Integrated(values, explained - (f(x)[0] - f(base)[0]))

    return run


@on_any_axes
@usage("fnn.attribution.smooth_gradients(net, deviation=0.1)(params, x, of, key=key)")
def smooth_gradients(net: Layer, *, deviation: float, samples: int = 50) -> Callable[..., Any]:
    """Make the function that computes SmoothGrad, the mean of the gradients at inputs with noise.

        values = 1/S Σₛ g(x + σ εₛ)        εₛ ~ N(0, I)

    Args:
        net: the network; its layers are in inference mode.
        deviation: σ > 0, in the units of x; the paper has 0.1 to 0.2 times the range of the inputs.
        samples: S, at least 1. Default: 50.

    Returns:
        `(params, x, of=None, *, key) -> values`, shaped as x; `of` as for `gradients`.

    Source: D. Smilkov et al., "SmoothGrad: removing noise by adding noise" (2017), §3.

    >>> from fnn import Dense, DenseParams
    >>> params = DenseParams(np.array([[1.0, 2.0]]), np.zeros(1))
    >>> smooth_gradients(Dense(1), deviation=0.1)(params, np.ones((1, 2)), key=random.key(0, backend="numpy")).round(6)
    array([[1., 2.]])
    """
    gate.check_network(net)
    deviation, samples = real("deviation", deviation, above=0), integer("samples", samples, least=1)

    @usage("fnn.attribution.smooth_gradients(net, deviation=0.1)(params, x, of, key=key)")
    def run(params, x, of=None, *, key):
        f, x, _ = _entered(net, params, x, of)
        key, wide, xp = gate.key_for(random.check_key(key), x), _wide(x), namespace(*trees.leaves((params, x)))
        places = {name: i for i, (name, _) in enumerate(parts("x", x))}

        def add(total, s):
            own = random.fold_in(key, s)
            noise = lambda name, a: deviation * random.normal(random.fold_in(own, places[name]), a.shape, a.dtype)
            moved = each(lambda name, a: a + noise(name, a) if is_floating(a.dtype) else a, "x", x)
            return _map(lambda t, g: t + cast(g, wide) / samples, total, f(moved)[1]), None

        return backend.scan(add, _map(lambda a: xp.zeros(a.shape, wide), x), xp.arange(samples, dtype=np.int32))[0]

    return run


def _line(steps) -> tuple[np.ndarray, np.ndarray]:
    """αₖ and wₖ of the Gauss-Legendre rule on [0, 1]."""
    nodes, shares = np.polynomial.legendre.leggauss(steps)  # on [−1, 1]
    return (nodes + 1) / 2, shares / 2


# ---- the function and its gradient -----------------------------------------------------------------------------------


def _entered(net, params, x, of) -> tuple[Callable, Any, Any]:
    """`(f, x, embedded)`: f is x -> (f(x), g), x is what has a derivative, and `embedded` turns symbols into it."""
    params, x = gate.inputs(net, params, x)
    if not examples.size_of(x):
        raise ShapeError("x: expected at least one example, got none")
    net, params, x, embedded = _differentiable(net, params, x)

    def f(x):
        a, residuals = net.forward(params, x)
        a = floating(a)
        value, delta = _chosen(of, cast(a, at_least_float32(a.dtype)))
        dx, _ = net.propagate(params, residuals, cast(delta, a.dtype), True)
        if dx is None:
            raise KindError(f"{_NO_DERIVATIVE}, got a network that passes no error on to it")
        return value, _map(lambda a, g: g, x, dx)

    return f, x, embedded


_NO_DERIVATIVE = "x: expected an input that has a derivative"


def _differentiable(net, params, x) -> tuple[Layer, Any, Any, Any]:
    """The network, its parameters and x from where x is real numbers, and the embedding of symbols or None."""
    if not isinstance(x, dict | tuple) and not is_floating(x.dtype):
        embedding, w, net, params = _split(net, params)
        if embedding is not None:
            embedded = lambda symbols: embedding.forward(w, symbols)[0]
            return net, params, embedded(x), embedded
    dtype = next((leaf.dtype for leaf in trees.leaves(params)), np.float32)
    for place, array in parts("x", x):
        if is_floating(array.dtype):
            continue
        numbers = each(lambda name, a: floating(a, dtype) if name == place else a, "x", x)  # noqa: B023 - called at once
        try:
            net.check(numbers)
            x = numbers
        except KindError:  # symbols, or lengths
            pass
    if not any(is_floating(array.dtype) for _, array in parts("x", x)):
        raise KindError(
            f"{_NO_DERIVATIVE}, got integers; of a Serial network that begins with fnn.Embedding it is that of the "
            "embedded symbols"
        )
    return net, params, x, None


def _split(net, params) -> tuple[Any, Any, Layer, Any]:
    """`(embedding, its table, the network behind it, its parameters)`; None for the first two if there is none."""
    if isinstance(net, Serial) and net.layers:
        embedding, w, first, p = _split(net.layers[0], params[0])
        if embedding is None:
            return None, None, net, params
        return embedding, w, Serial((first, *net.layers[1:])), (p, *params[1:])
    if isinstance(net, Frozen) and isinstance(net.layer, Embedding):
        return net.layer, params.params, Identity(), ()
    return (net, params, Identity(), ()) if isinstance(net, Embedding) else (None, None, net, params)


def _chosen(of, a) -> tuple[Array, Array]:
    """f (N,) of the outputs a (N, ...), and δ = ∂f/∂a."""
    if callable(of):
        return _of_function(of, a)
    xp, n, sizes = namespace(a), a.shape[0], a.shape[1:]
    if of is None:
        if np.prod(sizes, dtype=int) != 1:
            raise ArgumentError(f"of: expected which of the outputs {tuple(sizes)} to explain, got None")
        return a.reshape(n), xp.ones_like(a)
    if isinstance(of, tuple) or np.ndim(of) == 0:
        index = of if isinstance(of, tuple) else (of,)
        if len(index) != len(sizes):
            raise ShapeError(f"of: expected an index for each of the axes {tuple(sizes)} of the outputs, got {of}")
        index = tuple(_index(i, size) for i, size in zip(index, sizes, strict=True))
        hot = np.zeros(sizes, bool)
        hot[index] = True
        return a[(slice(None), *index)], xp.broadcast_to(xp.asarray(hot, dtype=a.dtype), a.shape)
    of = checks.as_array("of", of, xp)
    if of.dtype.kind not in "iu" or of.shape != (n,) or len(sizes) != 1:
        raise ShapeError(
            f"of: expected an index, or integers {(n,)}, one for each example of outputs {a.shape}, got {of.dtype} "
            f"{of.shape}"
        )
    of = at_least_int32(of)
    wrong = (of < 0) | (of >= sizes[0])
    if checks.known(wrong) and wrong.any():
        raise DataError(f"of: expected outputs from 0 to {sizes[0] - 1}, got {of[int(wrong.argmax())]}")
    hot = xp.asarray(of[:, None] == xp.arange(sizes[0]), dtype=a.dtype)
    hot = xp.where(wrong[:, None], np.nan, hot).astype(a.dtype)
    return xp.where(hot == 0, 0, a * hot).sum(axis=1), hot


def _index(i, size) -> int:
    """The index of an output, counted from 0."""
    try:
        if getattr(i, "dtype", type(i)) in (bool, np.bool_):
            raise TypeError
        i = operator.index(i)
    except TypeError:
        raise KindError(
            f"of: expected an index of the outputs, integers or a function of them, got {shorten(i)}"
        ) from None
    if not -size <= i < size:
        raise ArgumentError(f"of: expected an output from 0 to {size - 1}, got {i}")
    return i % size


def _of_function(of, a) -> tuple[Array, Array]:
    """f (N,) by a function of the outputs, and δ by `jax.vjp`, or by one complex step for each output."""
    value = of(a)
    if np.shape(value) != a.shape[:1]:
        raise ShapeError(
            f"of: expected a function that gives one number for each example, {a.shape[:1]}, got "
            f"{np.shape(value)}; take an output, or sum over axis=1"
        )
    if backend.is_jax(a):
        value, vjp = backend.jax.vjp(of, a)
        return value, vjp(backend.jnp.ones_like(value))[0]
    delta = np.zeros_like(a)
    for index in np.ndindex(*a.shape[1:]):
        direction = np.zeros_like(a)
        direction[(slice(None), *index)] = 1
        delta[(slice(None), *index)] = complex_step.jvp(of, a, direction)
    return np.asarray(value), delta


# ---- several inputs --------------------------------------------------------------------------------------------------


def _map(f, x, *others, integers=lambda a: None):
    """`f(array, ...)` for each array of x that is real numbers, beside its part of other trees; None for integers."""
    beside = [dict(parts("x", other)) for other in others]
    is_real = lambda a: is_floating(getattr(a, "dtype", None))
    return each(lambda name, a: f(a, *(b[name] for b in beside)) if is_real(a) else integers(a), "x", x)


def _wide(x):
    """The dtype of sums: that of x, at least float32."""
    return at_least_float32(next(array.dtype for _, array in parts("x", x) if is_floating(array.dtype)))


def _base(baseline: Any, x, embedded) -> Any:
    """The baseline, shaped as x, on its backend."""
    if baseline is None:
        return _map(lambda a: namespace(a).zeros_like(a), x, integers=lambda a: a)
    xp = namespace(*trees.leaves(x))
    base: Any = examples.arrays("baseline", baseline, xp)
    if embedded is not None and np.ndim(base) and not is_floating(base.dtype):
        base = embedded(base)
    of_x, of_baseline = ([name for name, _ in parts("x", tree)] for tree in (x, base))
    if of_x != of_baseline:
        raise ShapeError(f"baseline: expected arrays as {', '.join(of_x)}, got {', '.join(of_baseline)}")

    def one(a, b):
        if b.shape not in ((), a.shape[1:], a.shape):
            raise ShapeError(f"baseline: expected shape {a.shape[1:]} or {a.shape}, got {b.shape}")
        return xp.broadcast_to(floating(b, a.dtype).astype(a.dtype), a.shape)

    return _map(one, x, base, integers=lambda a: a)

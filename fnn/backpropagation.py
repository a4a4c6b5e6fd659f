"""Backpropagation: forward through the network, the error at its output, backward, and the gradient.

    prediction, residuals = net.forward(params, x)
    losses, δ             = loss(prediction, y)                  one value and one error for each of N examples
    value                 = Σₙ sₙ ℓₙ,   sₙ = wₙ / Σ w             each example's share in the mean, 1/N without weights
                            (for a cost with an outer function F: F(Σ w ℓ / Σ w), sₙ = F' wₙ / Σ w)
    dx, deltas            = net.propagate(params, residuals, s δ)
    grads                 = net.gradient(params, residuals, deltas)

These few lines are the heart of the project. The scale of the mean is applied here and nowhere else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import backend, checks, factors, gate, trees
from .backend import at_least_float32, cast, floating, namespace
from .composition import forward_recorded
from .devices import on_any_axes
from .errors import KindError, shorten, usage
from .layers import Layer
from .layers.base import Array
from .losses import Loss
from .losses.penalties import with_gradient
from .numerics import scale_of
from .static import check_ranges


class Problem(NamedTuple):
    """What is minimized: the cost of a network on data, plus a penalty. Static except for its numbers.

    net            the network
    loss           the cost; None if it is not known yet
    penalty        `L1(...)`, `L2(...)`, your own, or None
    denominator    what Σ w ℓ of a batch is divided by; None for Σ w
    input_shape    the shape of an example, for the initial state of a rule; None in a step, which has the batch
    scale          what the errors are multiplied by where they begin, and so the gradient; None for 1
    """

    net: Any
    loss: Any = None
    penalty: Any = None
    denominator: Any = None
    input_shape: Any = None
    scale: Any = None


class Tape(NamedTuple):
    """Everything that backpropagation computes for a batch of N examples.

    prediction    the network's output
    losses        ℓ (N,), the cost of each example, unweighted
    outputs       the output of each layer
    residuals     what each layer keeps for its backward pass
    deltas        δ = ∂ℓ/∂output of each layer, for each example: unweighted, and not divided by N. The δ of textbooks
                  is ∂ℓ/∂z: the entry of the layer that computes z, such as `Dense`; that of an activation is ∂ℓ/∂a
    dx            ∂ℓ/∂x of each example, or None if it was not requested
    shares        s (N,), the share of each example's ℓ in the value: ∂value/∂ℓ = w / Σ w, or 1/N

    outputs, residuals and deltas are nested as the parameters are.
    """

    prediction: Array
    losses: Array
    outputs: Any
    residuals: Any
    deltas: Any
    dx: Array | None
    shares: Array


@on_any_axes
@usage("fnn.backprop(net, loss)(params, x, y)")
def backprop(net: Layer, loss: Loss, *, need_dx: bool = True) -> Callable[..., Tape]:
    """Make the function that runs one forward and one backward pass, and returns everything they compute.

    Args:
        net: the network.
        loss: the cost.
        need_dx: whether dx is needed. False saves the product that only dx needs, and the errors below the first layer
            that learns, which are then None. Default: True.

    Returns:
        `(params, x, y, weights=None, key=None) -> Tape`. With a key, the layers are in training mode.

    >>> from fnn import Dense, Quadratic, random
    >>> net = Dense(1, bias=False)
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> tape = backprop(net, Quadratic())(params, [[1.0, 2.0], [3.0, 4.0]], [[0.0], [0.0]])
    >>> bool((tape.deltas == tape.prediction).all())  # δ = a − y
    True
    """
    check_problem(net, loss)

    @usage("fnn.backprop(net, loss)(params, x, y)")
    def run(params, x, y, weights=None, key=None):
        params, (x, y, weights) = gate.batch(net, loss, params, x, y, weights)
        return tape_of(net, loss, params, x, y, weights, gate.key_for(key, x), need_dx)

    return run


def tape_of(net, loss, params, x, y, weights=None, key=None, need_dx=False) -> Tape:
    """`backprop` for a batch that has passed the gate."""
    prediction, residuals, outputs = forward_recorded(net, params, x, key)
    losses, delta, dtype = cost(loss, prediction, y)
    dx, deltas = net.propagate(params, residuals, cast(delta, dtype), need_dx)
    _, shares = mean_cost(loss, losses, weights)
    shares = shares + namespace(losses).zeros_like(losses)
    return Tape(prediction, losses, outputs, residuals, deltas, dx, shares)


@on_any_axes
@usage("fnn.value_and_grad(net, loss)(params, x, y)")
def value_and_grad(
    net: Layer, loss: Loss, *, penalty: Any = None, need_dx: bool = False, denominator: float | None = None
) -> Callable[..., tuple[Array, Any]]:
    """Make the function that computes the weighted mean cost and its gradient, by hand-written backpropagation.

        value = Σ w ℓ / Σ w + penalty        (Σ w ℓ / Σ w is 0 where Σ w is 0)

    Args:
        net: the network.
        loss: the cost.
        penalty: `L1(...)`, `L2(...)` or your own, with the methods `value(params)` and `gradient(params)`. Default:
            None.
        need_dx: whether to return dx, the gradient of the value with respect to x, too. Default: False.
        denominator: what Σ w ℓ is divided by. Weights may be negative; since centred weights sum to nearly 0, pass
            `denominator=N` with signed weights. Default: Σ w.

    Returns:
        `(params, x, y, weights=None, key=None) -> (value, grads)`, where grads has the structure of params; with
        `need_dx` the result is `(value, (grads, dx))`. The function is pure and not compiled: wrap it in `jax.jit`, or
        use `make_step`.

    >>> from fnn import Dense, Quadratic, random
    >>> net = Dense(1, bias=False)
    >>> params = net.init(random.key(0, backend="numpy"), (1,))
    >>> value, grads = value_and_grad(net, Quadratic())(params, [[2.0]], [[0.0]])
    >>> bool(abs(grads.w - 4 * params.w) < 1e-6)  # ½(2w)² has the derivative 4w
    True
    """
    check_problem(net, loss, penalty, denominator)
    problem = Problem(net, loss, penalty, denominator)

    @usage("fnn.value_and_grad(net, loss)(params, x, y)")
    def run(params, x, y, weights=None, key=None):
        params, data = gate.batch(net, loss, params, x, y, weights)
        return differentiate(problem, params, data, gate.key_for(key, data.x), need_dx)

    return run


def differentiate(
    problem: Problem, params, data, key=None, need_dx: bool = False, propagate: Callable | None = None
) -> tuple[Array, Any]:
    """`value_and_grad` for a batch (x, y, weights, ...) that has passed the gate; each training step calls it.

    `propagate` takes the place of `net.propagate` where a learning rule carries the errors backward in its own way.
    """
    prediction, residuals = problem.net.forward(params, data[0], key)
    return sent_back(problem, params, data, prediction, residuals, need_dx, propagate)


def sent_back(
    problem: Problem, params, data, prediction, residuals, need_dx: bool = False, propagate: Callable | None = None
) -> tuple[Array, Any]:
    """`differentiate` after the forward pass, for what needs the same pass for more than the gradient."""
    net, loss, penalty, denominator, _, larger = problem
    carry: Any = net.propagate if propagate is None else propagate
    _, y, weights = data[:3]
    losses, delta, dtype = cost(loss, prediction, y)
    value, shares = mean_cost(loss, losses, weights, denominator)
    if weights is not None:
        tall = losses.shape + (1,) * (delta.ndim - 1)
        delta = namespace(losses).where((weights != 0).reshape(tall), delta, 0)
    if dtype == _FLOAT16:  # has a small range: errors of about 1 go back, and the sums are scaled, in float32
        unit = scale_of(abs(delta).reshape(losses.shape[0], -1).max(axis=1, initial=0))
        first = delta / unit.reshape(unit.shape + (1,) * (delta.ndim - 1))  # 1 / unit could be infinite
        dx, deltas = carry(params, residuals, cast(first if larger is None else first * larger, dtype), need_dx)
        scale = shares * unit
        dx = trees.map(lambda d: cast(_times(d, scale), d.dtype), dx)
        grads = factors.total(params, net.factors(params, residuals, deltas), scale)
    else:  # δ is rounded only now, so that a mean overflows no more than it has to
        delta = delta if larger is None else delta * larger
        delta = cast(delta * shares if isinstance(shares, float) else _times(delta, shares), dtype)
        dx, deltas = carry(params, residuals, delta, need_dx)
        grads = net.gradient(params, residuals, deltas)
    value, grads = penalised(penalty, params, value, grads)
    return value, (grads, dx) if need_dx else grads


_FLOAT16 = np.dtype(np.float16)


def _times(values, shares):
    """Values (N, ...) times shares (N,), or one for all, in the dtype of the shares."""
    return cast(values, shares.dtype) * shares.reshape(shares.shape + (1,) * (values.ndim - 1))


def penalised(penalty, params, value, grads) -> tuple[Array, Any]:
    """Add the penalty to a value and a gradient."""
    if penalty is None:
        return value, grads
    return value + penalty.value(params), with_gradient(penalty, params, grads)


@on_any_axes
@usage("fnn.grad(net, loss)(params, x, y)")
def grad(
    net: Layer, loss: Loss, *, penalty: Any = None, need_dx: bool = False, denominator: float | None = None
) -> Callable[..., Any]:
    """Make the function that computes the gradient alone: `value_and_grad` without the value.

    Args:
        net: the network.
        loss: the cost.
        penalty: as for `value_and_grad`. Default: None.
        need_dx: whether to return `(grads, dx)`. Default: False.
        denominator: as for `value_and_grad`. Default: Σ w.

    Returns:
        `(params, x, y, weights=None, key=None) -> grads`.

    >>> from fnn import Identity, Quadratic
    >>> grad(Identity(), Quadratic(), need_dx=True)((), [[3.0]], [[1.0]])
    ((), array([[2.]]))
    """
    run = value_and_grad(net, loss, penalty=penalty, need_dx=need_dx, denominator=denominator)
    return lambda params, x, y, weights=None, key=None: run(params, x, y, weights, key)[1]


@on_any_axes
@usage("fnn.custom_vjp(net)(params, x)")
def custom_vjp(net: Layer) -> Callable[..., Array]:
    """Make `net.apply` with fnn's backward pass as its JAX derivative, for use inside any other JAX model.

    Args:
        net: the network.

    Returns:
        `(params, x, key=None) -> y`, differentiable in reverse mode by `jax.grad`, `jax.vjp` and whatever builds on
        them.

    >>> import jax
    >>> from fnn import Tanh
    >>> f = custom_vjp(Tanh())
    >>> jax.grad(lambda x: f((), x).sum())(jax.numpy.zeros((1, 2)))
    Array([[1., 1.]], dtype=float32)
    """
    gate.check_network(net)
    jax = backend.need_jax("custom_vjp")

    @jax.custom_vjp
    def apply(params, x, key):
        return net.apply(params, x, key)

    def forward(params, x, key):
        params, entered = gate.inputs(net, params, x)
        y, residuals = net.forward(params, entered, gate.key_for(key, entered))
        return y, (params, residuals, x)

    def backward(kept, dy):
        params, residuals, x = kept
        need_dx = all(backend.is_floating(leaf.dtype) for leaf in trees.leaves(x))
        dx, deltas = net.propagate(params, residuals, dy, need_dx)
        dx = trees.map(lambda d, a: d.astype(a.dtype), dx, x) if need_dx else None
        return net.gradient(params, residuals, deltas), dx, None

    apply.defvjp(forward, backward)
    return lambda params, x, key=None: apply(params, x, key)


def check_problem(net, loss, penalty=None, denominator=None):
    """Raise unless net, loss, penalty and denominator are of the right kinds and in range."""
    gate.check_network(net)
    gate.check_cost(loss)
    gate.check_output(net, loss)
    if denominator is not None:
        checks.positive("denominator", denominator)
    wrong = isinstance(penalty, type) or not all(hasattr(penalty, name) for name in ("_fields", "value", "gradient"))
    if penalty is not None and wrong:
        raise KindError(
            f"penalty: expected a NamedTuple with methods value and gradient, such as fnn.L2(1e-4), "
            f"got {shorten(penalty)}"
        )
    if penalty is not None:
        check_ranges(penalty)


def cost(loss, prediction, y) -> tuple[Array, Array, Any]:
    """The cost and the error at the output of each example, in float32 or wider, and the dtype of the prediction."""
    prediction = floating(prediction)
    return *loss.value_and_delta(cast(prediction, at_least_float32(prediction.dtype)), y), prediction.dtype


def mean_cost(loss, losses, weights=None, denominator=None) -> tuple[Array, Any]:
    """The cost of a batch, F(m) with m = Σ w ℓ / Σ w (0 where Σ w is 0), and its derivative with respect to each ℓₙ.

    F is `loss.outer`, the identity for almost all costs. The derivative is (N,), or a number if there are no weights.
    An example of weight 0 does not count, even if its cost is infinite.
    """
    shares = shares_of(weights, losses.shape[0], denominator)
    if weights is None:
        value, slope = loss.outer(losses.sum() * shares)
    else:
        value, slope = loss.outer((namespace(losses).where(weights != 0, losses, 0) * shares).sum())
    return value, slope * shares


def shares_of(weights, n, denominator=None) -> Any:
    """What each of n examples counts in the mean: (N,), or one number for all if there are no weights."""
    if weights is None:
        return 1 / (n if denominator is None else denominator)
    return normalized(weights) if denominator is None else weights / denominator


def normalized(weights) -> Array:
    """w / Σ w (N,), or 0 where Σ w is 0: the same for weights of any scale, as nothing overflows or underflows."""
    xp, k = namespace(weights), np.finfo(weights.dtype).maxexp // 4
    largest = abs(weights).max()
    unit = xp.where(largest < 4.0**-k, 8.0**-k, xp.where(largest < 4.0**k, 1.0, 8.0**k))  # a power of two is exact
    weights = weights / cast(unit, weights.dtype)
    total = weights.sum()
    return weights * xp.where(total == 0, 0, 1 / xp.where(total == 0, 1, total))

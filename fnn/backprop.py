"""Backpropagation: forward through the network, the error at its output, backward, and the gradient.

    prediction, residuals = net.forward(params, x)
    losses, δ             = loss(prediction, y)                  one value and one error for each of N examples
    value                 = Σₙ sₙ ℓₙ,   sₙ = wₙ / Σ w             each example's share in the mean, 1/N without weights
                            (of a cost with an outer function F: F(Σ w ℓ / Σ w), sₙ = F' wₙ / Σ w)
    dx, deltas            = net.propagate(params, residuals, s δ)
    grads                 = net.gradient(params, residuals, deltas)

These few lines are the heart of the project. The scale of the mean is applied here and nowhere else.
"""

from typing import Any, NamedTuple

import numpy as np

from . import backend, trees
from .backend import cast, floating, namespace
from .errors import KindError, ShapeError, real, shorten
from .layers import Array, Layer, enter, enter_key
from .losses import L1, L2, Loss
from .static import check_static


class Tape(NamedTuple):
    """What backpropagation knows of a batch of N examples.

    prediction    the network's output
    losses        ℓ (N,), the value of each example, unweighted
    outputs       of every layer, its output
    residuals     of every layer, what its backward pass remembers
    deltas        of every layer, δ = ∂ℓ/∂output of each example: unweighted, and not divided by N
    dx            ∂ℓ/∂x of each example, or None where it was not asked for
    shares        s (N,), what each example's ℓ counts in the value: ∂value/∂ℓ = w / Σ w, or 1/N

    outputs, residuals and deltas are nested as the parameters are.
    """

    prediction: Array
    losses: Array
    outputs: Any
    residuals: Any
    deltas: Any
    dx: Array | None
    shares: Array


def backprop(net: Layer, loss: Loss, *, need_dx=True):
    """`(params, x, y, weights=None, key=None) -> Tape`: one forward and one backward pass, with everything they know.

    With a key the layers are in training. `need_dx=False` spares the product that only dx needs, and the errors below
    the first layer that learns, which are then None.

    >>> from fnn import Dense, Quadratic, random
    >>> net = Dense(1, bias=False)
    >>> params = net.init(random.key(0, backend="numpy"), (2,))
    >>> tape = backprop(net, Quadratic())(params, [[1.0, 2.0], [3.0, 4.0]], [[0.0], [0.0]])
    >>> bool((tape.deltas == tape.prediction).all())  # δ = a − y
    True
    """
    check_problem(net, loss)

    def run(params, x, y, weights=None, key=None):
        params, x, y, weights = enter_batch(params, x, y, weights)
        prediction, residuals, outputs = net.record(params, x, enter_key(key, x))
        losses, delta = _cost(loss, prediction, y)
        dx, deltas = net.propagate(params, residuals, delta, need_dx)
        _, shares = mean_cost(loss, losses, weights)
        shares = shares + namespace(losses).zeros_like(losses)
        return Tape(prediction, losses, outputs, residuals, deltas, dx, shares)

    return run


def value_and_grad(net: Layer, loss: Loss, *, penalty=None, need_dx=False):
    """`(params, x, y, weights=None, key=None) -> (value, grads)`: the weighted mean cost and its gradient, by hand.

    value = Σ w ℓ / Σ w (0 where all weights are 0) plus the penalty, `L1(...)`, `L2(...)` or one of your own with
    the methods `value(params)` and `gradient(params)`. grads has the structure of params. With `need_dx=True` the
    result is `(value, (grads, dx))`, dx being the gradient of the value with respect to x.

    The function is pure and not compiled: wrap it in `jax.jit`, or use `make_step`.

    >>> from fnn import Dense, Quadratic, random
    >>> net = Dense(1, bias=False)
    >>> params = net.init(random.key(0, backend="numpy"), (1,))
    >>> value, grads = value_and_grad(net, Quadratic())(params, [[2.0]], [[0.0]])
    >>> bool(abs(grads.w - 4 * params.w) < 1e-6)  # ½(2w)² has the derivative 4w
    True
    """
    check_problem(net, loss, penalty)

    def run(params, x, y, weights=None, key=None):
        params, x, y, weights = enter_batch(params, x, y, weights)
        return differentiate(net, loss, penalty, params, x, y, weights, enter_key(key, x), need_dx)

    return run


def differentiate(net, loss, penalty, params, x, y, weights, key, need_dx=False):
    """`value_and_grad` on arrays that have been entered already: what the training step calls."""
    prediction, residuals = net.forward(params, x, key)
    losses, delta = _cost(loss, prediction, y)
    value, shares = mean_cost(loss, losses, weights)
    if weights is not None:
        tall = (len(losses),) + (1,) * (delta.ndim - 1)
        delta, shares = namespace(losses).where((weights > 0).reshape(tall), delta, 0), shares.reshape(tall)
    delta = cast(delta * shares, delta.dtype)
    dx, deltas = net.propagate(params, residuals, delta, need_dx)
    grads = net.gradient(params, residuals, deltas)
    if penalty is not None:
        value = value + penalty.value(params)
        grads = trees.map(lambda g, p: g + cast(p, g.dtype), grads, penalty.gradient(params))
    return value, (grads, dx) if need_dx else grads


def grad(net: Layer, loss: Loss, *, penalty=None, need_dx=False):
    """`(params, x, y, weights=None, key=None) -> grads`: `value_and_grad` without the value.

    >>> from fnn import Identity, Quadratic
    >>> grad(Identity(), Quadratic(), need_dx=True)((), [[3.0]], [[1.0]])
    ((), array([[2.]]))
    """
    run = value_and_grad(net, loss, penalty=penalty, need_dx=need_dx)
    return lambda params, x, y, weights=None, key=None: run(params, x, y, weights, key)[1]


def custom_vjp(net: Layer):
    """`net.apply` with our backward pass as its JAX derivative: an fnn block for use inside any other JAX model.

    `(params, x, key=None) -> y`, differentiable by `jax.grad`, `jax.vjp` and whatever builds on them, in reverse mode.

    >>> import jax
    >>> from fnn import Tanh
    >>> f = custom_vjp(Tanh())
    >>> jax.grad(lambda x: f((), x).sum())(jax.numpy.zeros((1, 2)))
    Array([[1., 1.]], dtype=float32)
    """
    check_problem(net)
    jax = backend.need_jax("custom_vjp")

    @jax.custom_vjp
    def apply(params, x, key):
        return net.apply(params, x, key)

    def forward(params, x, key):
        params, entered = enter(params, x)
        y, residuals = net.forward(params, entered, enter_key(key, entered))
        return y, (params, residuals, x)

    def backward(kept, dy):
        params, residuals, x = kept
        need_dx = backend.is_floating(x.dtype)
        dx, deltas = net.propagate(params, residuals, dy, need_dx)
        return net.gradient(params, residuals, deltas), dx.astype(x.dtype) if need_dx else None, None

    apply.defvjp(forward, backward)
    return lambda params, x, key=None: apply(params, x, key)


def check_problem(net, loss=None, penalty=None):
    """Net, loss and penalty are what they should be."""
    if not isinstance(net, Layer):
        hint = f"; write {net.__name__}()" if isinstance(net, type) and issubclass(net, Layer) else ""
        raise KindError(f"net: expected a layer or network, got {shorten(net)}{hint}")
    check_static(net)
    if loss is not None:
        check_cost(loss)
    if penalty is not None and not all(hasattr(penalty, name) for name in ("_fields", "value", "gradient")):
        raise KindError(
            f"penalty: expected a NamedTuple with methods value and gradient, such as fnn.L2(1e-4), "
            f"got {shorten(penalty)}"
        )
    if isinstance(penalty, L1 | L2):
        for place, leaf in trees.paths(penalty, type(penalty).__name__):
            if not backend.is_traced(leaf) and np.ndim(leaf) == 0:
                real(place, leaf.item() if hasattr(leaf, "item") else leaf, least=0)


def check_cost(loss):
    """This is a loss that can be compared."""
    if not isinstance(loss, Loss):
        hint = f"; write {loss.__name__}()" if isinstance(loss, type) else ""
        raise KindError(f"loss: expected a loss such as fnn.SoftmaxCrossEntropy(), got {shorten(loss)}{hint}")
    check_static(loss)


def unpack(data, name="data"):
    """x, y and weights (or None) of `(x, y)` or `(x, y, weights)`."""
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise KindError(f"{name}: expected (x, y) or (x, y, weights), got {type(data).__name__}{_length(data)}")
    x, y, weights = (*data, None)[:3]
    return x, y, weights


def _length(data):
    return f" of length {len(data)}" if hasattr(data, "__len__") else ""


def enter_batch(params, x, y, weights):
    """`layers.enter` of a batch: at least one example, and a target for each."""
    if y is None:
        raise KindError("y: expected targets, got None")
    params, x, y, *rest = enter(params, x, y, weights)
    if len(x) == 0:
        raise ShapeError("x: expected at least one example, got none")
    if y.shape[:1] != x.shape[:1]:
        raise ShapeError(f"y: expected a target for each of {len(x)} examples, got shape {y.shape}")
    return params, x, y, rest[0] if rest else None


def _cost(loss, prediction, y):
    """The losses, in float32 or wider, and the error at the output, in the dtype of the prediction."""
    loss.check(prediction.shape, y, values=False)
    prediction = floating(prediction)
    wide = cast(prediction, backend.at_least_float32(prediction.dtype))
    losses, delta = loss.value_and_delta(wide, y)
    return losses, cast(delta, prediction.dtype)


def mean_cost(loss, losses, weights):
    """The cost of a batch, F(m) with m = Σ w ℓ / Σ w (0 where all weights are 0), and its derivative by each ℓₙ.

    F is `loss.outer`, of almost all costs the identity. The derivative is (N,), a number where all weights are one.
    """
    if weights is None:
        share = 1 / len(losses)
        value, slope = loss.outer(losses.sum() * share)
        return value, slope * share
    xp, total = namespace(losses), weights.sum()
    shares = weights / xp.where(total > 0, total, 1)
    used = xp.where(weights > 0, losses, 0)  # an example of weight 0 counts nothing, even if its cost is infinite
    value, slope = loss.outer((used * shares).sum())
    return value, slope * shares


def weighted(values, weights):
    """Values times weights; a weight of 0 leaves nothing even of what is infinite."""
    return namespace(values).where(weights == 0, 0, values) * weights


def scaled(deltas, factors):
    """The errors of each example times its factor."""
    if factors is None:
        return deltas
    return trees.map(lambda d: cast(weighted(d, factors.reshape(len(d), *(1,) * (d.ndim - 1))), d.dtype), deltas)

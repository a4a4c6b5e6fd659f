"""Optimizers: how a gradient becomes a change of the parameters.

An optimizer is a NamedTuple of its hyperparameters with two pure methods:

    init(params) -> opt_state        update(grads, opt_state, params) -> (updates, opt_state)        params ← params
    + updates

which are Optax's signatures. g is the gradient, w a parameter, η the learning rate (a number, or a schedule: a
NamedTuple that can be called on the number of steps taken so far), t the step, counted from 1. Hyperparameters are
leaves, so they can be traced: another learning rate compiles nothing, and `jax.vmap` runs over many.
"""

from typing import Any, NamedTuple

import numpy as np

from . import backend, trees
from .backend import at_least_float32, cast, namespace
from .errors import KindError, real, shorten


class Count(NamedTuple):
    """State of an optimizer that remembers nothing but the number of steps."""

    count: Any


class Velocity(NamedTuple):
    """State of an optimizer with momentum: the number of steps, and v for each parameter."""

    count: Any
    velocity: Any


class Moments(NamedTuple):
    """State of Adam: the number of steps, and for each parameter the averages m of g and v of g²."""

    count: Any
    mu: Any
    nu: Any


class Sgd(NamedTuple):
    """Gradient descent: batch, mini-batch or stochastic, as the batch size says.

        w ← w − η g

    H. Robbins, S. Monro, "A stochastic approximation method" (1951).

    >>> optimizer = Sgd(learning_rate=0.5)
    >>> params = np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(np.array([1.0, 1.0]), optimizer.init(params), params)
    >>> params + updates
    array([0.5, 1.5])
    """

    learning_rate: Any

    def init(self, params):
        return Count(_zero(params))

    def update(self, grads, opt_state, params=None):
        rate = _now(self.learning_rate, opt_state.count)
        updates = trees.map(lambda g, w: cast(-rate * g, w.dtype), grads, grads if params is None else params)
        return updates, Count(opt_state.count + 1)


class Momentum(NamedTuple):
    """Gradient descent with momentum, in the textbooks' form.

        v ← β v − η g        w ← w + v

    β is `momentum`, 0.9 by default. B. Polyak (1964); D. Rumelhart, G. Hinton, R. Williams (1986). With a constant η
    this is PyTorch's and Optax's v ← β v + g, w ← w − η v; with a schedule the textbooks' v keeps the old rates.

    >>> optimizer, params = Momentum(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.velocity
    (array([0.5, 1. ]), array([-0.5, -1. ]))
    """

    learning_rate: Any
    momentum: Any = 0.9

    def init(self, params):
        return Velocity(_zero(params), _zeros(params))

    def update(self, grads, opt_state, params=None):
        rate = _now(self.learning_rate, opt_state.count)
        velocity = _accelerate(opt_state.velocity, grads, rate, self.momentum)
        return _like(velocity, grads, params), Velocity(opt_state.count + 1, velocity)


class Nesterov(NamedTuple):
    """Nesterov's accelerated gradient: momentum, with the gradient taken where the velocity leads.

        v ← β v − η ∇C(w + β v)        w ← w + v

    computed with the shifted parameter w + β v in the place of w, so that one gradient a step is enough:
    v ← β v − η g, w ← w + β v − η g. β is `momentum`, 0.9 by default. Y. Nesterov (1983); I. Sutskever, J. Martens,
    G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep learning" (2013), eqs. 3 and 4.

    >>> optimizer, params = Nesterov(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.velocity
    (array([0.05, 0.1 ]), array([-0.5, -1. ]))
    """

    learning_rate: Any
    momentum: Any = 0.9

    def init(self, params):
        return Velocity(_zero(params), _zeros(params))

    def update(self, grads, opt_state, params=None):
        rate = _now(self.learning_rate, opt_state.count)
        velocity = _accelerate(opt_state.velocity, grads, rate, self.momentum)
        updates = _accelerate(velocity, grads, rate, self.momentum)
        return _like(updates, grads, params), Velocity(opt_state.count + 1, velocity)


class Adam(NamedTuple):
    """Adam: momentum, and a rate for each parameter by the size of its gradients.

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        w ← w − η m̂ / (√v̂ + ε)

    with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ). Defaults: η 10⁻³, β₁ `b1` 0.9, β₂ `b2` 0.999, ε `eps` 10⁻⁸, which
    stands outside the root. m and v are float32 or wider. D. Kingma, J. Ba, "Adam: a method for stochastic
    optimization" (2015), algorithm 1.

    >>> optimizer, params = Adam(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates  # the first step is η for every parameter
    array([0.5, 1.5])
    """

    learning_rate: Any = 1e-3
    b1: Any = 0.9
    b2: Any = 0.999
    eps: Any = 1e-8

    def init(self, params):
        return Moments(_zero(params), _zeros(params), _zeros(params))  # never one tree twice: JAX could not donate it

    def update(self, grads, opt_state, params=None):
        count, mu, nu = opt_state
        rate, t = _now(self.learning_rate, count), count + 1
        wide = trees.map(lambda g, m: cast(g, m.dtype), grads, mu)
        mu = trees.map(lambda m, g: cast(self.b1 * m + (1 - self.b1) * g, m.dtype), mu, wide)
        nu = trees.map(lambda v, g: cast(self.b2 * v + (1 - self.b2) * g * g, v.dtype), nu, wide)
        xp = namespace(count)
        lift, root = _one_minus_power(self.b1, t), xp.sqrt(_one_minus_power(self.b2, t))
        factor, eps = -rate * root / lift, self.eps * root
        # m̂ / (√v̂ + ε) = (root / lift) m / (√v + ε root): two numbers a step in the place of two divisions a parameter
        updates = trees.map(lambda m, v: factor * (m / (xp.sqrt(v) + eps)), mu, nu)
        return _like(updates, grads, params), Moments(t, mu, nu)


class MaxNorm(NamedTuple):
    """Another optimizer, and after its step no unit's incoming weights are longer than c.

        w ← w · min(1, c / ‖w‖)        for each row w of a weight matrix W (O, I)

    Arguments: the `optimizer` within, and `max_norm`, c; 3 or 4 is usual beside dropout. Biases, and all parameters
    with fewer than two axes, are left alone. N. Srebro, A. Shraibman, "Rank, trace-norm and max-norm" (2005);
    N. Srivastava et al., "Dropout" (2014), §5.1.

    >>> optimizer = MaxNorm(Sgd(learning_rate=1.0), max_norm=1.0)
    >>> params = np.array([[3.0, 4.0], [0.3, 0.4]])
    >>> updates, _ = optimizer.update(np.zeros((2, 2)), optimizer.init(params), params)
    >>> params + updates
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """

    optimizer: Any
    max_norm: Any

    def init(self, params):
        return self.optimizer.init(params)

    def update(self, grads, opt_state, params):
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        return trees.map(self._within, updates, params), opt_state

    def _within(self, update, w):
        if w.ndim < 2:
            return update
        xp, wide = namespace(w), at_least_float32(w.dtype)
        moved = cast(w, wide) + cast(update, wide)
        length = xp.sqrt((moved * moved).sum(axis=tuple(range(1, w.ndim)), keepdims=True))
        short = length <= self.max_norm
        shortened = moved * (self.max_norm / xp.where(short, 1, length)) - cast(w, wide)
        return xp.where(short, update, cast(shortened, update.dtype))


def from_optax(transformation):
    """An Optax optimizer as one of ours: anything with `init(params)` and `update(grads, opt_state, params)`.

    It is held as a node without leaves, compared by identity: its hyperparameters are constants of the compiled
    program. `init_state` wraps by itself. Ours need no wrapping in an `optax.chain`.
    """
    if not (callable(getattr(transformation, "init", None)) and callable(getattr(transformation, "update", None))):
        raise KindError(
            f"optimizer: expected one with methods init and update, such as fnn.Adam(), got {shorten(transformation)}"
        )
    return backend.hold(transformation)


def apply_updates(params, updates):
    """params + updates, in the dtype of each parameter; read-only on NumPy. What is within `Frozen` stays as it is.

    >>> apply_updates((np.float32([1.0, 2.0]),), (np.array([0.5, -0.5]),))
    (array([1.5, 1.5], dtype=float32),)
    """
    return trees.map_learnt(lambda p, u: trees.locked(p + cast(u, p.dtype)), params, updates)


_RANGES = {  # of every hyperparameter with this name, in any optimizer
    "learning_rate": {"least": 0},
    "momentum": {"least": 0, "below": 1},
    "b1": {"least": 0, "below": 1},
    "b2": {"least": 0, "below": 1},
    "eps": {"least": 0},
    "max_norm": {"above": 0},
}


def prepare(optimizer, params):
    """The optimizer as a training state holds it: checked, its hyperparameters strong arrays of float32 (or float64).

    Strong types keep the second step's types those of the first, so nothing is compiled twice.
    """
    if isinstance(optimizer, type):
        raise KindError(
            f"optimizer: expected an optimizer, got the class; write {optimizer.__name__}(learning_rate=0.1)"
        )
    fields = getattr(optimizer, "_fields", ())
    if isinstance(optimizer, backend.Held):
        return optimizer
    if not fields or "init" in fields:  # an Optax transformation is a tuple of its two functions
        return from_optax(optimizer)
    if "optimizer" in fields:  # a combinator, with another optimizer within
        optimizer = optimizer._replace(optimizer=prepare(optimizer.optimizer, params))
    for field, value in optimizer._asdict().items():
        if field == "optimizer":
            continue
        if value is None or (not isinstance(value, tuple) and np.ndim(value)):
            raise KindError(f"{type(optimizer).__name__}.{field}: expected a number, got {shorten(value)}")
        for place, leaf in trees.paths(value, f"{type(optimizer).__name__}.{field}"):
            if callable(leaf):
                raise KindError(
                    f"{place}: expected a number, or a schedule that is a NamedTuple with __call__, got {leaf}"
                )
            if not hasattr(leaf, "dtype") or (np.ndim(leaf) == 0 and not backend.is_traced(leaf)):
                bounds = _RANGES.get(field, {}) if leaf is value else {}
                real(place, leaf.item() if hasattr(leaf, "item") else leaf, **bounds)
    parameters = trees.leaves(params)
    xp = namespace(*parameters, *trees.leaves(optimizer))
    wide = np.float64 if any(p.dtype == np.float64 for p in parameters) else np.float32
    return trees.map(lambda leaf: xp.asarray(leaf, dtype=wide)[()], optimizer)


def _now(learning_rate, count) -> Any:
    """The learning rate of this step."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _accelerate(velocity, grads, rate, momentum):
    """β v − η g, in the dtype of v."""
    return trees.map(lambda v, g: cast(momentum * v - rate * cast(g, v.dtype), v.dtype), velocity, grads)


def _one_minus_power(b, t):
    """1 − bᵗ to full accuracy: subtracted in float32, it would keep three digits for b = 0.999 and t = 1."""
    xp = namespace(t)
    return -xp.expm1(t.astype(np.float32) * xp.log(xp.maximum(b, 1e-37)))


def _zero(params):
    return namespace(*trees.leaves(params)).zeros((), np.int32)[()]


def _zeros(params):
    return trees.map(lambda p: namespace(p).zeros(p.shape, at_least_float32(p.dtype)), params)


def _like(updates, grads, params=None):
    """Each update in the dtype of its parameter."""
    return trees.map(lambda u, w: cast(u, w.dtype), updates, grads if params is None else params)

"""A rate for each parameter by the size of its gradients: where they are small the steps are large.

All divide g, or an average m of it, by the root of an average v of g²; they differ in the averages, and in where ε
stands, which keeps the quotient finite. Averages begin at 0, hence the corrections m̂ = m / (1 − β₁ᵗ) and
v̂ = v / (1 − β₂ᵗ).
"""

from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from .. import trees
from ..backend import cast, namespace
from .base import Moments, Square, average, decayed, like, now, one_minus_power, widen, zero, zeros


class Adagrad(NamedTuple):
    """Adagrad: a rate for each parameter that falls with the sum of all its squared gradients.

        v ← v + g²        w ← w − η g / √(v + ε)

    Arguments: η; v₀ `initial_accumulator_value` 0.1; ε `eps` 10⁻⁷, inside the root. These are Optax's; in the paper
    and in PyTorch v₀ is 0 and ε stands outside. Where v is still 0 nothing moves. J. Duchi, E. Hazan, Y. Singer,
    "Adaptive subgradient methods" (2011), eq. 1 with a diagonal matrix.

    >>> optimizer, params = Adagrad(learning_rate=0.5, initial_accumulator_value=0.0), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu
    (array([0.5, 1.5]), array([1., 4.]))
    """

    learning_rate: Any
    initial_accumulator_value: Any = 0.1
    eps: Any = 1e-7

    def init(self, params):
        start = self.initial_accumulator_value
        return Square(zero(params), trees.map(lambda v: cast(v + start, v.dtype), zeros(params)))

    def update(self, grads, opt_state, params=None):
        count, nu = opt_state
        xp, rate = namespace(count), now(self.learning_rate, count)
        wide = widen(grads, nu)
        nu = trees.map(lambda v, g: v + g * g, nu, wide)
        updates = trees.map(lambda g, v: -rate * g / xp.sqrt(xp.where(v > 0, v + self.eps, 1)), wide, nu)
        return like(updates, grads, params), Square(count + 1, nu)


class Adadelta(NamedTuple):
    """Adadelta: steps as long as the last ones, so that no rate is needed.

        v ← ρ v + (1 − ρ) g²        Δ = g √(s + ε) / √(v + ε)        s ← ρ s + (1 − ρ) Δ²        w ← w − η Δ

    Arguments: η 1, which is the paper's, without a rate; ρ `rho` 0.9; ε `eps` 10⁻⁶, which also sets the first step.
    (Optax's default η, None, leaves out the sign too, and ascends.) M. Zeiler, "ADADELTA: an adaptive learning rate
    method" (2012), algorithm 1.

    >>> optimizer, params = Adadelta(), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates.round(4), state.nu
    (array([-0.0032, -0.0032]), array([0.1, 0.4]))
    """

    learning_rate: Any = 1.0
    rho: Any = 0.9
    eps: Any = 1e-6

    def init(self, params):
        return Deltas(zero(params), zeros(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        count, nu, square = opt_state
        xp, rate = namespace(count), now(self.learning_rate, count)
        wide = widen(grads, nu)
        nu = trees.map(lambda v, g: average(self.rho, v, g * g), nu, wide)
        deltas = trees.map(lambda g, s, v: g * xp.sqrt((s + self.eps) / (v + self.eps)), wide, square, nu)
        square = trees.map(lambda s, d: average(self.rho, s, d * d), square, deltas)
        updates = trees.map(lambda d: -rate * d, deltas)
        return like(updates, grads, params), Deltas(count + 1, nu, square)


class Deltas(NamedTuple):
    """State of Adadelta: the number of steps, and for each parameter the averages v of g² and s of Δ²."""

    count: Any
    nu: Any
    square: Any


class RMSProp(NamedTuple):
    """RMSProp: the gradient over the root of the running mean of its square.

        v ← ρ v + (1 − ρ) g²        w ← w − η g / √(v + ε)

    Arguments: η; ρ `decay` 0.9; ε `eps` 10⁻⁸, inside the root. These are Optax's; PyTorch has ε outside and ρ 0.99.
    v begins at 0 and is not corrected, so the first steps are about η/√(1 − ρ), three times η. T. Tieleman,
    G. Hinton, "Lecture 6.5: rmsprop" (2012), plain: without momentum, and not centred.

    >>> optimizer, params = RMSProp(learning_rate=0.1, decay=0.75), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu
    (array([0.8, 1.8]), array([0.25, 1. ]))
    """

    learning_rate: Any
    decay: Any = 0.9
    eps: Any = 1e-8

    def init(self, params):
        return Square(zero(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        count, nu = opt_state
        xp, rate = namespace(count), now(self.learning_rate, count)
        wide = widen(grads, nu)
        nu = trees.map(lambda v, g: average(self.decay, v, g * g), nu, wide)
        updates = trees.map(lambda g, v: -rate * g / xp.sqrt(v + self.eps), wide, nu)
        return like(updates, grads, params), Square(count + 1, nu)


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
        return Moments(zero(params), zeros(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        updates, opt_state = _adam(self, grads, opt_state)
        return like(updates, grads, params), opt_state


class AdamW(NamedTuple):
    """Adam with weight decay beside the gradient, where no rate of Adam's changes it.

        w ← w − η (m̂ / (√v̂ + ε) + λ w)        m̂ and v̂ as in Adam

    Arguments: η 10⁻³, β₁ `b1` 0.9, β₂ `b2` 0.999, ε `eps` 10⁻⁸, λ `weight_decay` 10⁻⁴ as in Optax (PyTorch: 10⁻²).
    λ is a number for all parameters, or a tree of numbers that begins as the parameters do; what is within `Frozen`
    never decays. As in Optax and PyTorch, λ is multiplied by the whole η; in the paper by its schedule alone.
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization" (2019), algorithm 2.

    >>> optimizer, params = AdamW(learning_rate=0.5, weight_decay=(0.2, 0.0)), (np.ones(1), np.ones(1))
    >>> optimizer.update(params, optimizer.init(params), params)[0]  # the second does not decay
    (array([-0.6]), array([-0.5]))
    """

    learning_rate: Any = 1e-3
    b1: Any = 0.9
    b2: Any = 0.999
    eps: Any = 1e-8
    weight_decay: Any = 1e-4

    def init(self, params):
        return Moments(zero(params), zeros(params), zeros(params))

    def update(self, grads, opt_state, params):
        rate = now(self.learning_rate, opt_state.count)
        updates, opt_state = _adam(self, grads, opt_state)
        updates = decayed(updates, params, self.weight_decay, lambda w: rate, "AdamW")
        return like(updates, grads, params), opt_state


class Nadam(NamedTuple):
    """Adam with Nesterov's momentum: the average of g as it would be one step later.

        m̂ = β₁ m / (1 − β₁ᵗ⁺¹) + (1 − β₁) g / (1 − β₁ᵗ)        w ← w − η m̂ / (√v̂ + ε)        m, v and v̂ as in Adam

    Arguments: η 10⁻³, β₁ `b1` 0.9, β₂ `b2` 0.999, ε `eps` 10⁻⁸. T. Dozat, "Incorporating Nesterov momentum into Adam"
    (2016), algorithm 2 with one β₁ for all t and without its further factor β₂ of v̂, as in Optax. PyTorch has the
    paper's schedule of β₁, which begins at about one half of it.

    >>> optimizer, params = Nadam(learning_rate=0.19), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates  # 9/19 of the first step is the average, and the rest is g
    array([-0.28, -0.28])
    """

    learning_rate: Any = 1e-3
    b1: Any = 0.9
    b2: Any = 0.999
    eps: Any = 1e-8

    def init(self, params):
        return Moments(zero(params), zeros(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        t, mu, nu, wide = _averages(self, grads, opt_state)
        ahead = look_ahead(self.b1, mu, wide, t)
        updates = over_root(-now(self.learning_rate, opt_state.count), ahead, nu, self.b2, self.eps, t)
        return like(updates, grads, params), Moments(t, mu, nu)


class Adamax(NamedTuple):
    """Adam with the largest of the past gradients, which fade, in the place of their mean square.

        m ← β₁ m + (1 − β₁) g        v ← max(β₂ v, |g| + ε)        w ← w − η m̂ / v

    Arguments: η 2·10⁻³, β₁ `b1` 0.9, β₂ `b2` 0.999, ε `eps` 10⁻⁸, which the paper does not have and Optax and PyTorch
    do. D. Kingma, J. Ba, "Adam: a method for stochastic optimization" (2015), algorithm 2.

    >>> optimizer, params = Adamax(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu
    (array([0.5, 1.5]), array([1., 2.]))
    """

    learning_rate: Any = 2e-3
    b1: Any = 0.9
    b2: Any = 0.999
    eps: Any = 1e-8

    def init(self, params):
        return Moments(zero(params), zeros(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        count, mu, nu = opt_state
        xp, t, wide = namespace(count), count + 1, widen(grads, mu)
        mu = trees.map(lambda m, g: average(self.b1, m, g), mu, wide)
        nu = trees.map(lambda v, g: cast(xp.maximum(self.b2 * v, abs(g) + self.eps), v.dtype), nu, wide)
        factor = -now(self.learning_rate, count) / one_minus_power(self.b1, t)
        return like(trees.map(lambda m, v: factor * m / v, mu, nu), grads, params), Moments(t, mu, nu)


class AMSGrad(NamedTuple):
    """Adam whose rates never grow: it divides by the largest mean square so far.

        n ← max(n, v̂)        w ← w − η m̂ / (√n + ε)        m, v, m̂ and v̂ as in Adam

    Arguments: η 10⁻³, β₁ `b1` 0.9, β₂ `b2` 0.999, ε `eps` 10⁻⁸. As in Optax the largest v̂ is kept; PyTorch keeps the
    largest v and corrects it by the factor of the present step, so its early steps are longer; the paper corrects
    neither. S. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond" (2018), algorithm 2.

    >>> optimizer, params = AMSGrad(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu_max
    (array([0.5, 1.5]), array([1., 4.]))
    """

    learning_rate: Any = 1e-3
    b1: Any = 0.9
    b2: Any = 0.999
    eps: Any = 1e-8

    def init(self, params):
        return MomentsAndMaximum(zero(params), zeros(params), zeros(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        count, mu, nu, nu_max = opt_state
        t, mu, nu, _ = _averages(self, grads, Moments(count, mu, nu))
        xp, lift = namespace(count), one_minus_power(self.b2, t)
        nu_max = trees.map(lambda n, v: cast(xp.maximum(n, v / lift), n.dtype), nu_max, nu)
        factor = -now(self.learning_rate, count) / one_minus_power(self.b1, t)
        updates = trees.map(lambda m, n: factor * (m / (xp.sqrt(n) + self.eps)), mu, nu_max)
        return like(updates, grads, params), MomentsAndMaximum(t, mu, nu, nu_max)


class MomentsAndMaximum(NamedTuple):
    """State of AMSGrad: that of Adam, and for each parameter the largest v̂ so far."""

    count: Any
    mu: Any
    nu: Any
    nu_max: Any


def look_ahead(b1, mu, grads, t):
    """The m̂ of Nadam."""
    lead, own = b1 / one_minus_power(b1, t + 1), (1 - b1) / one_minus_power(b1, t)
    return trees.map(lambda m, g: lead * m + own * g, mu, grads)


def over_root(factor, mu, nu, b2, eps, t):
    """factor · m / (√v̂ + ε)."""
    xp = namespace(t, b2)
    root = xp.sqrt(one_minus_power(b2, t))
    factor, eps = factor * root, eps * root
    # m / (√v̂ + ε) = root · m / (√v + ε root): two numbers a step in the place of a division a parameter
    return trees.map(lambda m, v: factor * (m / (xp.sqrt(v) + eps)), mu, nu)


def _averages(optimizer, grads, opt_state):
    """t, m, v, and the gradients in their dtype."""
    count, mu, nu = opt_state
    grads = widen(grads, mu)
    mu = trees.map(lambda m, g: average(optimizer.b1, m, g), mu, grads)
    nu = trees.map(lambda v, g: cast(optimizer.b2 * v + (1 - optimizer.b2) * g * g, v.dtype), nu, grads)
    return count + 1, mu, nu, grads


def _adam(optimizer, grads, opt_state):
    """The updates of Adam, not yet in the dtype of the parameters, and its next state."""
    t, mu, nu, _ = _averages(optimizer, grads, opt_state)
    factor = -now(optimizer.learning_rate, opt_state.count) / one_minus_power(optimizer.b1, t)
    return over_root(factor, mu, nu, optimizer.b2, optimizer.eps, t), Moments(t, mu, nu)

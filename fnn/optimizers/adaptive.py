"""A learning rate for each parameter, by the size of its gradients: where they are small the steps are large.

All divide g, or an average m of it, by the root of an average v of g². They differ in the averages, and in the place of
ε, which keeps the quotient finite. Averages start at 0, hence the bias corrections m̂ = m / (1 − β₁ᵗ) and
v̂ = v / (1 − β₂ᵗ). A parameter that has never had a gradient does not move, even with ε = 0.
"""

from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from ..backend import at_least_float32, namespace
from ..errors import usage
from .base import (
    Fraction,
    Moments,
    NonNegative,
    Square,
    average,
    lift,
    one_minus_power,
    quotient,
    root,
)


@usage("fnn.Adagrad(0.01)")
class Adagrad(NamedTuple):
    """Adagrad: each parameter's rate falls with the sum of all its squared gradients.

        v ← v + g²        w ← w − η g / √(v + ε)

    Defaults and the place of ε are Optax's; in the paper and in PyTorch v₀ is 0 and ε stands outside the root.

    Args:
        learning_rate: η, a number or a schedule.
        initial_accumulator_value: v₀ ≥ 0; default 0.1.
        eps: ε ≥ 0, inside the root; default 1e-7.

    Source: J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization" (2011), eq. 1 with a diagonal matrix.

    >>> optimizer, params = Adagrad(learning_rate=0.5, initial_accumulator_value=0.0), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu
    (array([0.5, 1.5]), array([1., 4.]))
    """

    learning_rate: NonNegative
    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7

    def start(self, w):
        xp = namespace(w, self.initial_accumulator_value)
        return (xp.full(w.shape, self.initial_accumulator_value, at_least_float32(w.dtype)),)

    def step(self, t):
        def formula(g, w, v):
            v = v + g * g
            size = namespace(v).sqrt(namespace(v).where(v > 0, v + self.eps, 1))  # where v is still 0, so is g
            return -self.learning_rate * g / size, v

        return formula

    init, update = lift(step, Square, start)


class Deltas(NamedTuple):
    """State of Adadelta: the number of steps, and for each parameter the averages v of g² and s of Δ²."""

    count: Any
    nu: Any
    square: Any


@usage("fnn.Adadelta(1.0)")
class Adadelta(NamedTuple):
    """Adadelta: steps in proportion to the recent steps, so that no learning rate is needed.

        v ← ρ v + (1 − ρ) g²        Δ = g √(s + ε) / √(v + ε)        s ← ρ s + (1 − ρ) Δ²        w ← w − η Δ

    (With Optax's default η, None, the sign is missing too, so it ascends.)

    Args:
        learning_rate: η, a number or a schedule; default 1, which is the paper's algorithm.
        rho: ρ in [0, 1); default 0.9.
        eps: ε ≥ 0, which also sets the size of the first step; default 1e-6.

    Source: M. Zeiler, "ADADELTA: an adaptive learning rate method" (2012), algorithm 1.

    >>> optimizer, params = Adadelta(), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates.round(4), state.nu
    (array([-0.0032, -0.0032]), array([0.1, 0.4]))
    """

    learning_rate: NonNegative = 1.0
    rho: Fraction = 0.9
    eps: NonNegative = 1e-6

    def step(self, t):
        def formula(g, w, v, s):
            v = average(self.rho, v, g * g)
            delta = g * root(quotient(s + self.eps, v + self.eps, self.eps))
            return -self.learning_rate * delta, v, average(self.rho, s, delta * delta)

        return formula

    init, update = lift(step, Deltas)


@usage("fnn.RMSProp(0.001)")
class RMSProp(NamedTuple):
    """RMSProp: divides the gradient by the root of the running mean of its square.

        v ← ρ v + (1 − ρ) g²        w ← w − η g / √(v + ε)

    This is the plain form, without momentum and not centred. Defaults and the place of ε are Optax's; PyTorch has ε
    outside the root and ρ = 0.99. v starts at 0 and is not corrected, so the first steps are about η/√(1 − ρ) long:
    three times η.

    Args:
        learning_rate: η, a number or a schedule.
        decay: ρ in [0, 1); default 0.9.
        eps: ε ≥ 0, inside the root; default 1e-8.

    Source: T. Tieleman, G. Hinton, "Lecture 6.5: rmsprop" (2012).

    >>> optimizer, params = RMSProp(learning_rate=0.1, decay=0.75), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu
    (array([0.8, 1.8]), array([0.25, 1. ]))
    """

    learning_rate: NonNegative
    decay: Fraction = 0.9
    eps: NonNegative = 1e-8

    def step(self, t):
        def formula(g, w, v):
            v = average(self.decay, v, g * g)
            return quotient(-self.learning_rate * g, root(v + self.eps), self.eps), v

        return formula

    init, update = lift(step, Square)


# ---- Adam and its variants -------------------------------------------------------------------------------------------


@usage("fnn.Adam(0.001)")
class Adam(NamedTuple):
    """Adam: momentum, and a rate for each parameter by the size of its gradients.

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        w ← w − η m̂ / (√v̂ + ε)

    with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).

    Args:
        learning_rate: η, a number or a schedule; default 1e-3.
        b1: β₁ in [0, 1); default 0.9.
        b2: β₂ in [0, 1); default 0.999.
        eps: ε ≥ 0, outside the root; default 1e-8.

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1.

    >>> optimizer, params = Adam(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates  # the first step is η for every parameter
    array([0.5, 1.5])
    """

    learning_rate: NonNegative = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: NonNegative = 1e-8

    def step(self, t):
        return adam_formula(self.learning_rate, self.b1, self.b2, self.eps, t)

    init, update = lift(step, Moments)


@usage("fnn.AdamW(0.001)")
class AdamW(NamedTuple):
    """Adam with weight decay that is added to the update, where Adam's rates do not scale it.

        w ← w − η (m̂ / (√v̂ + ε) + λ w)        m̂ and v̂ as in Adam

    As in Optax and PyTorch, λ is multiplied by η; in the paper only by its schedule.

    Args:
        learning_rate: η, a number or a schedule; default 1e-3.
        b1: β₁ in [0, 1); default 0.9.
        b2: β₂ in [0, 1); default 0.999.
        eps: ε ≥ 0, outside the root; default 1e-8.
        weight_decay: λ ≥ 0, a number, or a tree of numbers over a prefix of the parameters' tree; default 1e-4 as in
            Optax (PyTorch: 1e-2). Parameters within `Frozen` never decay.

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization" (2019), algorithm 2.

    >>> optimizer, params = AdamW(learning_rate=0.5, weight_decay=(0.2, 0.0)), (np.ones(1), np.ones(1))
    >>> optimizer.update(params, optimizer.init(params), params)[0]  # the second does not decay
    (array([-0.6]), array([-0.5]))
    """

    learning_rate: NonNegative = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 1e-4

    def step(self, t):
        adam = adam_formula(self.learning_rate, self.b1, self.b2, self.eps, t)
        decay = self.learning_rate * self.weight_decay

        def formula(g, w, m, v):
            update, m, v = adam(g, w, m, v)
            return update - decay * w, m, v

        return formula

    init, update = lift(step, Moments)


@usage("fnn.Nadam(0.001)")
class Nadam(NamedTuple):
    """Adam with Nesterov's momentum: uses the average of g as it would be one step later.

        m̂ = β₁ m / (1 − β₁ᵗ⁺¹) + (1 − β₁) g / (1 − β₁ᵗ)        w ← w − η m̂ / (√v̂ + ε)        m, v and v̂ as in Adam

    This is the paper's algorithm with one β₁ for all t and without its additional factor β₂ of v̂, as in Optax. PyTorch
    has the paper's schedule of β₁, which starts at about half of it.

    Args:
        learning_rate: η, a number or a schedule; default 1e-3.
        b1: β₁ in [0, 1); default 0.9.
        b2: β₂ in [0, 1); default 0.999.
        eps: ε ≥ 0, outside the root; default 1e-8.

    Source: T. Dozat, "Incorporating Nesterov momentum into Adam" (2016), algorithm 2.

    >>> optimizer, params = Nadam(learning_rate=0.19), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates  # 9/19 of the first step is the average, and the rest is g
    array([-0.28, -0.28])
    """

    learning_rate: NonNegative = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: NonNegative = 1e-8

    def step(self, t):
        return nadam_formula(self.learning_rate, self.b1, self.b2, self.eps, t)

    init, update = lift(step, Moments)


@usage("fnn.Adamax(0.001)")
class Adamax(NamedTuple):
    """Adam with the largest past gradient, decayed, in place of the root mean square.

        m ← β₁ m + (1 − β₁) g        v ← max(β₂ v, |g| + ε)        w ← w − η m̂ / v

    Args:
        learning_rate: η, a number or a schedule; default 2e-3.
        b1: β₁ in [0, 1); default 0.9.
        b2: β₂ in [0, 1); default 0.999.
        eps: ε ≥ 0, which Optax and PyTorch have and the paper does not; default 1e-8.

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization" (2015), algorithm 2.

    >>> optimizer, params = Adamax(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu
    (array([0.5, 1.5]), array([1., 2.]))
    """

    learning_rate: NonNegative = 2e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: NonNegative = 1e-8

    def step(self, t):
        factor = -self.learning_rate / one_minus_power(self.b1, t)

        def formula(g, w, m, v):
            m = average(self.b1, m, g)
            v = namespace(v).maximum(self.b2 * v, abs(g) + self.eps)
            return quotient(factor * m, v, self.eps), m, v

        return formula

    init, update = lift(step, Moments)


class MomentsAndMaximum(NamedTuple):
    """State of AMSGrad: that of Adam, and for each parameter the largest v̂ so far."""

    count: Any
    mu: Any
    nu: Any
    nu_max: Any


@usage("fnn.AMSGrad(0.001)")
class AMSGrad(NamedTuple):
    """Adam with rates that never grow: divides by the largest mean square so far.

        n ← max(n, v̂)        w ← w − η m̂ / (√n + ε)        m, v, m̂ and v̂ as in Adam

    As in Optax, the largest v̂ is kept. PyTorch keeps the largest v and corrects it by the factor of the current step,
    so its early steps are longer; the paper has no bias corrections.

    Args:
        learning_rate: η, a number or a schedule; default 1e-3.
        b1: β₁ in [0, 1); default 0.9.
        b2: β₂ in [0, 1); default 0.999.
        eps: ε ≥ 0, outside the root; default 1e-8.

    Source: S. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond" (2018), algorithm 2.

    >>> optimizer, params = AMSGrad(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.nu_max
    (array([0.5, 1.5]), array([1., 4.]))
    """

    learning_rate: NonNegative = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: NonNegative = 1e-8

    def step(self, t):
        factor = -self.learning_rate / one_minus_power(self.b1, t)
        correction = one_minus_power(self.b2, t)

        def formula(g, w, m, v, n):
            m = average(self.b1, m, g)
            v = self.b2 * v + (1 - self.b2) * g * g
            n = namespace(n).maximum(n, v / correction)
            return factor * quotient(m, root(n) + self.eps, self.eps), m, v, n

        return formula

    init, update = lift(step, MomentsAndMaximum)


def adam_formula(learning_rate, b1, b2, eps, t):
    """The formula of `Adam`, which `AdamW` shares."""
    # m / (√v̂ + ε) = r m / (√v + ε r) with r = √(1 − β₂ᵗ): two numbers per step instead of a division per parameter.
    r = namespace(t, b2).sqrt(one_minus_power(b2, t))
    factor, eps = -learning_rate / one_minus_power(b1, t) * r, eps * r

    def formula(g, w, m, v):
        m = average(b1, m, g)
        v = b2 * v + (1 - b2) * g * g
        return factor * quotient(m, root(v) + eps, eps), m, v

    return formula


def nadam_formula(learning_rate, b1, b2, eps, t):
    """The formula of `Nadam`, which `Muon` takes for parameters that are not matrices."""
    r = namespace(t, b2).sqrt(one_minus_power(b2, t))  # as in `adam_formula`
    factor, eps = -learning_rate * r, eps * r
    of_average, of_gradient = nesterov_weights(b1, t)

    def formula(g, w, m, v):
        m = average(b1, m, g)
        v = b2 * v + (1 - b2) * g * g
        return factor * quotient(of_average * m + of_gradient * g, root(v) + eps, eps), m, v

    return formula


def nesterov_weights(b1, t):
    """The weights of m and g in Nadam's m̂."""
    return b1 / one_minus_power(b1, t + 1), (1 - b1) / one_minus_power(b1, t)

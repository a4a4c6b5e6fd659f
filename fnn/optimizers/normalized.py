"""Only the direction counts: optimizers that throw the size of the gradient away. m is an average of g."""

import math
from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from .. import trees
from ..backend import cast, namespace
from .adaptive import look_ahead, over_root
from .base import Moment, Moments, average, decayed, like, now, widen, zero, zeros


class Lion(NamedTuple):
    """Lion: every parameter goes one step of the same length, by the sign of a momentum.

        w ← w − η (sign(β₁ m + (1 − β₁) g) + λ w)        m ← β₂ m + (1 − β₂) g

    Arguments: η, a third to a tenth of Adam's; β₁ `b1` 0.9; β₂ `b2` 0.99; λ `weight_decay` 10⁻³, three to ten times
    AdamW's, a number for all parameters or a tree of numbers that begins as they do; what is within `Frozen` never
    decays. X. Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2; defaults as in Optax.

    >>> optimizer, params = Lion(learning_rate=0.1, weight_decay=0.0), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(np.array([0.5, -3.0]), optimizer.init(params), params)
    >>> params + updates
    array([0.9, 2.1])
    """

    learning_rate: Any
    b1: Any = 0.9
    b2: Any = 0.99
    weight_decay: Any = 1e-3

    def init(self, params):
        return Moment(zero(params), zeros(params))

    def update(self, grads, opt_state, params):
        count, mu = opt_state
        xp, rate, wide = namespace(count), now(self.learning_rate, count), widen(grads, mu)
        updates = trees.map(lambda m, g: -rate * xp.sign(average(self.b1, m, g)), mu, wide)
        updates = decayed(updates, params, self.weight_decay, lambda w: rate, "Lion")
        mu = trees.map(lambda m, g: average(self.b2, m, g), mu, wide)
        return like(updates, grads, params), Moment(count + 1, mu)


class Muon(NamedTuple):
    """Muon: momentum whose matrix is made orthogonal, so that a step turns all directions of its input equally.

        m ← β m + (1 − β) g        m̂ = β m / (1 − βᵗ⁺¹) + (1 − β) g / (1 − βᵗ)
        W ← W − η (√max(1, O/I) · orthogonal(m̂) + λ W)

    for each weight matrix W (O, I). orthogonal(X) is near to U Vᵀ of the singular value decomposition U S Vᵀ of X: five
    steps X ← a X + (b A + c A²) X, A = X Xᵀ, from X / (‖X‖ + ε) on, which bring every singular value of at least
    ‖X‖/500 to between 0.68 and 1.21. Parameters with another number of axes (biases, gains) take Nadam's step, with
    decay as well.

    Arguments: η 0.02; β `beta` 0.95; ε `eps` 10⁻⁸, Nadam's too; λ `weight_decay` 0, a number for all parameters or a
    tree of numbers that begins as they do, never for what is within `Frozen`; for the others `adam_learning_rate`, by
    default that of the matrices, `adam_b1` 0.9 and `adam_b2` 0.999. K. Jordan et al., "Muon: an optimizer for hidden
    layers in neural networks" (2024), in the variant of Optax's `contrib.muon`: Nesterov's momentum, corrected, and
    shapes as here, outputs over inputs; the original takes plain Adam for the others.

    >>> optimizer, params = Muon(learning_rate=0.1), np.eye(2)
    >>> gradient = np.array([[0.0, 300.0], [10.0, 0.0]])  # thirty times as large in one direction as in the other
    >>> optimizer.update(gradient, optimizer.init(params), params)[0].round(2) + 0.0
    array([[ 0.  , -0.07],
           [-0.11,  0.  ]])
    """

    learning_rate: Any = 0.02
    beta: Any = 0.95
    eps: Any = 1e-8
    weight_decay: Any = 0.0
    adam_learning_rate: Any = None
    adam_b1: Any = 0.9
    adam_b2: Any = 0.999

    def init(self, params):
        squares = trees.map(lambda v: namespace(v).zeros((), v.dtype)[()] if v.ndim == 2 else v, zeros(params))
        return Moments(zero(params), zeros(params), squares)

    def update(self, grads, opt_state, params):
        count, mu, nu = opt_state
        t, wide = count + 1, widen(grads, mu)
        rate = now(self.learning_rate, count)
        other_rate = rate if self.adam_learning_rate is None else now(self.adam_learning_rate, count)
        mu = trees.map(lambda m, g: average(self.beta if g.ndim == 2 else self.adam_b1, m, g), mu, wide)
        nu = trees.map(lambda v, g: v if g.ndim == 2 else average(self.adam_b2, v, g * g), nu, wide)

        def step(m, v, g):
            if g.ndim != 2:
                ahead = look_ahead(self.adam_b1, m, g, t)
                return over_root(-other_rate, ahead, v, self.adam_b2, self.eps, t)
            outputs, inputs = g.shape
            ahead = cast(look_ahead(self.beta, m, g, t), m.dtype)
            return -rate * math.sqrt(max(1, outputs / inputs)) * orthogonal(ahead, self.eps)

        updates = trees.map(step, mu, nu, wide)
        rate_of = lambda w: rate if w.ndim == 2 else other_rate
        updates = decayed(updates, params, self.weight_decay, rate_of, "Muon")
        return like(updates, grads, params), Moments(t, mu, nu)


def orthogonal(x, eps=1e-8):
    """Nearly U Vᵀ of x = U S Vᵀ, by five steps of Newton and Schulz's iteration with Jordan's coefficients."""
    xp = namespace(x)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the smaller of the two matrices of products
    x = cast(x / (xp.sqrt((x * x).sum()) + eps), x.dtype)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.T if tall else x

"""Only the direction counts: optimizers that discard the size of the gradient. m is an average of g."""

import math
from typing import NamedTuple

import numpy as np  # noqa: F401 - for the examples

from ..backend import namespace
from ..errors import usage
from .adaptive import nadam_formula, nesterov_weights
from .base import Fraction, Moment, Moments, NonNegative, average, lift, norm_and_unit, quotient, zeros_of


@usage("fnn.Lion(0.0001)")
class Lion(NamedTuple):
    """Lion: every parameter takes a step of the same length, by the sign of a momentum.

        w ← w − η (sign(β₁ m + (1 − β₁) g) + λ w)        m ← β₂ m + (1 − β₂) g

    Args:
        learning_rate: η, a number or a schedule; a third to a tenth of Adam's.
        b1: β₁ in [0, 1); default 0.9.
        b2: β₂ in [0, 1); default 0.99.
        weight_decay: λ ≥ 0, a number, or a tree of numbers over a prefix of the parameters' tree; default 1e-3. Three
            to ten times AdamW's is usual. Parameters within `Frozen` never decay.

    Source: X. Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2; defaults as in Optax.

    >>> optimizer, params = Lion(learning_rate=0.1, weight_decay=0.0), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(np.array([0.5, -3.0]), optimizer.init(params), params)
    >>> params + updates
    array([0.9, 2.1])
    """

    learning_rate: NonNegative
    b1: Fraction = 0.9
    b2: Fraction = 0.99
    weight_decay: NonNegative = 1e-3

    def step(self, t):
        decay = self.learning_rate * self.weight_decay

        def formula(g, w, m):
            direction = namespace(m).sign(average(self.b1, m, g))
            return -self.learning_rate * direction - decay * w, average(self.b2, m, g)

        return formula

    init, update = lift(step, Moment)


@usage("fnn.Muon(0.02)")
class Muon(NamedTuple):
    """Muon: momentum whose matrix is made orthogonal, so that a step acts equally on all directions of the input.

        m ← β m + (1 − β) g        m̂ = β m / (1 − βᵗ⁺¹) + (1 − β) g / (1 − βᵗ)
        W ← W − η (√max(1, O/I) · orthogonal(m̂) + λ W)

    for each weight matrix W (O, I). orthogonal(X) is close to U Vᵀ of the singular value decomposition U S Vᵀ of X:
    five steps X ← a X + (b A + c A²) X with A = X Xᵀ, starting from X / (‖X‖ + ε), which bring every singular value of
    at least ‖X‖/500 to between 0.68 and 1.21. Parameters that do not have two axes (biases, gains) take Nadam's step,
    with weight decay.

    This is the variant of Optax's `contrib.muon`: Nesterov's momentum with bias correction, and shapes as here, outputs
    over inputs; the original takes plain Adam for the other parameters.

    Args:
        learning_rate: η, a number or a schedule; default 0.02.
        beta: β in [0, 1); default 0.95.
        eps: ε ≥ 0, Nadam's too; default 1e-8.
        weight_decay: λ ≥ 0, a number, or a tree of numbers over a prefix of the parameters' tree; default 0. Parameters
            within `Frozen` never decay.
        adam_learning_rate: η of the other parameters, a number or a schedule; default None, that of the matrices.
        adam_b1: β₁ of the other parameters, in [0, 1); default 0.9.
        adam_b2: β₂ of the other parameters, in [0, 1); default 0.999.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).

    >>> optimizer, params = Muon(learning_rate=0.1), np.eye(2)
    >>> gradient = np.array([[0.0, 300.0], [10.0, 0.0]])  # thirty times as large in one direction as in the other
    >>> optimizer.update(gradient, optimizer.init(params), params)[0].round(2) + 0.0
    array([[ 0.  , -0.07],
           [-0.11,  0.  ]])
    """

    learning_rate: NonNegative = 0.02
    beta: Fraction = 0.95
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    adam_learning_rate: NonNegative = None
    adam_b1: Fraction = 0.9
    adam_b2: Fraction = 0.999

    def start(self, w):
        return zeros_of(w), zeros_of(w, ())[()] if w.ndim == 2 else zeros_of(w)  # a matrix has no second moment

    def step(self, t):
        other_rate = self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate
        nadam = nadam_formula(other_rate, self.adam_b1, self.adam_b2, self.eps, t)
        of_average, of_gradient = nesterov_weights(self.beta, t)
        decay, other_decay = self.learning_rate * self.weight_decay, other_rate * self.weight_decay

        def formula(g, w, m, v):
            if g.ndim != 2:
                update, m, v = nadam(g, w, m, v)
                return update - other_decay * w, m, v
            outputs, inputs = g.shape
            m = average(self.beta, m, g)
            direction = orthogonal(of_average * m + of_gradient * g, self.eps)
            return -self.learning_rate * math.sqrt(max(1, outputs / inputs)) * direction - decay * w, m, v

        return formula

    init, update = lift(step, Moments, start)


def orthogonal(x, eps=1e-8):
    """Nearly U Vᵀ of x = U S Vᵀ, by five steps of Newton and Schulz's iteration with Jordan's coefficients."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the smaller of the two matrices of products
    norm, unit = norm_and_unit([x])
    x, eps = (x, eps) if unit is None else (x / unit, eps / unit)
    x = quotient(x, norm + eps, eps)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.T if tall else x

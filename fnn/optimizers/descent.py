"""Along the gradient: plain descent, and descent with momentum. v is the velocity, β the part of it that is kept."""

from typing import NamedTuple

import numpy as np  # noqa: F401 - for the examples

from ..errors import usage
from .base import Count, Fraction, NonNegative, Velocity, lift


@usage("fnn.Sgd(0.1), with momentum fnn.Momentum(0.1)")
class Sgd(NamedTuple):
    """Gradient descent; batch, mini-batch or stochastic, depending on the batch size.

        w ← w − η g

    Args:
        learning_rate: η, a number or a schedule.

    Source: H. Robbins, S. Monro, "A stochastic approximation method" (1951).

    >>> optimizer = Sgd(learning_rate=0.5)
    >>> params = np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(np.array([1.0, 1.0]), optimizer.init(params), params)
    >>> params + updates
    array([0.5, 1.5])
    """

    learning_rate: NonNegative

    def step(self, t):
        def formula(g, w):
            return (-self.learning_rate * g,)

        return formula

    init, update = lift(step, Count)


@usage("fnn.Momentum(0.1)")
class Momentum(NamedTuple):
    """Gradient descent with momentum, in the textbooks' form.

        v ← β v − η g        w ← w + v

    With a constant η this equals PyTorch's and Optax's v ← β v + g, w ← w − η v; with a schedule the textbooks' v keeps
    the rates of earlier steps.

    Args:
        learning_rate: η, a number or a schedule.
        momentum: β in [0, 1); default 0.9.

    Source: B. Polyak, "Some methods of speeding up the convergence of iteration methods" (1964); D. Rumelhart,
    G. Hinton, R. Williams, "Learning representations by back-propagating errors" (1986).

    >>> optimizer, params = Momentum(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.velocity
    (array([0.5, 1. ]), array([-0.5, -1. ]))
    """

    learning_rate: NonNegative
    momentum: Fraction = 0.9

    def step(self, t):
        def formula(g, w, v):
            v = self.momentum * v - self.learning_rate * g
            return v, v

        return formula

    init, update = lift(step, Velocity)


@usage("fnn.Nesterov(0.1)")
class Nesterov(NamedTuple):
    """Nesterov's accelerated gradient: momentum, with the gradient taken at the point the velocity leads to.

        v ← β v − η ∇C(w + β v)        w ← w + v

    The shifted parameter w + β v is stored in place of w, so that one gradient per step is enough:
    v ← β v − η g, w ← w + β v − η g.

    Args:
        learning_rate: η, a number or a schedule.
        momentum: β in [0, 1); default 0.9.

    Source: Y. Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k²)" (1983);
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep learning"
    (2013), eqs. 3 and 4.

    >>> optimizer, params = Nesterov(learning_rate=0.5), np.array([1.0, 2.0])
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> params + updates, state.velocity
    (array([0.05, 0.1 ]), array([-0.5, -1. ]))
    """

    learning_rate: NonNegative
    momentum: Fraction = 0.9

    def step(self, t):
        def formula(g, w, v):
            v = self.momentum * v - self.learning_rate * g
            return self.momentum * v - self.learning_rate * g, v

        return formula

    init, update = lift(step, Velocity)

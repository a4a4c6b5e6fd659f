"""Along the gradient: plain descent, and descent with momentum. v is the velocity, β the part of it that stays."""

from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the examples

from .. import trees
from ..backend import cast
from .base import Count, Velocity, like, now, zero, zeros


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
        return Count(zero(params))

    def update(self, grads, opt_state, params=None):
        rate = now(self.learning_rate, opt_state.count)
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
        return Velocity(zero(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        rate = now(self.learning_rate, opt_state.count)
        velocity = _accelerate(opt_state.velocity, grads, rate, self.momentum)
        return like(velocity, grads, params), Velocity(opt_state.count + 1, velocity)


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
        return Velocity(zero(params), zeros(params))

    def update(self, grads, opt_state, params=None):
        rate = now(self.learning_rate, opt_state.count)
        velocity = _accelerate(opt_state.velocity, grads, rate, self.momentum)
        updates = _accelerate(velocity, grads, rate, self.momentum)
        return like(updates, grads, params), Velocity(opt_state.count + 1, velocity)


def _accelerate(velocity, grads, rate, momentum):
    """β v − η g, in the dtype of v."""
    return trees.map(lambda v, g: cast(momentum * v - rate * cast(g, v.dtype), v.dtype), velocity, grads)

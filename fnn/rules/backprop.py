"""Backpropagation as a rule: the gradient of the cost, as `value_and_grad` computes it."""

from typing import NamedTuple

from ..backpropagation import differentiate, penalised
from .base import RuleOutput


class Backprop(NamedTuple):
    """The gradient of the cost by backpropagation: the default rule.

        g = ∂/∂θ (Σ w ℓ / Σ w + penalty)

    >>> import fnn
    >>> state = fnn.init_state(fnn.Dense(1), fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (2,))
    >>> state.rule
    Backprop()
    """

    draws = False
    of_cost = True
    scales = True

    def init(self, problem, params, key):
        """No state."""
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value and the gradient of the batch."""
        return RuleOutput(*differentiate(problem, params, batch, keys.net), state)

    def sums(self, problem, params, state, batch, keys, share=1):
        """The same without the penalty."""
        return differentiate(problem._replace(penalty=None), params, batch, keys.net)

    def from_sums(self, problem, params, state, batch, keys, sums) -> RuleOutput:
        """With the penalty."""
        return RuleOutput(*penalised(problem.penalty, params, *sums), state)

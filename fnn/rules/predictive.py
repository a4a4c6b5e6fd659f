"""Predictive coding: units settle between what the layer below predicts and what the layer above needs."""

from typing import Annotated, Any, NamedTuple

import numpy as np  # noqa: F401 - for the example

from .. import backend
from ..backend import cast
from ..static import Choice, Interval
from .base import RuleOutput
from .chain import at_output, gradient, run, stages


class PredictiveCoding(NamedTuple):
    """Each layer predicts the next; the values of all move to lower the errors, then the weights do.

        F = ½ Σ_k ‖xₖ − μₖ‖² + β ℓ(μ_K, y)        μₖ = fₖ(xₖ₋₁)        x₀ = x        k = 1 … K, stages of the network

        δₖ = μₖ − xₖ,  δ_K = β ∂ℓ/∂μ_K        xₖ ← xₖ + γ (δₖ − δₖ₊₁ ∂fₖ₊₁/∂xₖ), `steps` times, from xₖ = μₖ
        dθₖ = Σₙ δₖ ∂fₖ/∂θₖ / β               all δ, x, μ (N, units)

    A stage is a linear map with the activation after it. All values move at once, so an error needs a step for each
    stage that it crosses: take at least K − 1 steps. Where they have settled, δₖ = δₖ₊₁ ∂fₖ₊₁/∂xₖ, as in
    backpropagation, but at the values xₖ, not those of the forward pass, which have moved by as much as the errors. So
    the gradient is that of backpropagation to first order in β, which makes all errors small. With `exact=True`
    predictions and derivatives stay those of the forward pass (the fixed-prediction assumption); for γ = 1 and K − 1
    steps or more this is backpropagation itself.

    The values settle if γ < 2 / (1 + s)², where s is the largest singular value of any ∂fₖ/∂xₖ₋₁ with k > 1, for β ≤ 1
    and a cost whose curvature is at most 1. With a larger γ they may move away from one another at each step, and the
    gradient then has nothing to do with that of backpropagation. Weights grow while they are learnt, so choose γ for
    the last epoch: `Aligned` shows the angle.

    Args:
        rate: γ, in (0, 1]. Default: 0.1.
        steps: how often the values move, at least 1. Default: 20.
        nudge: β, greater than 0: the weight of the cost beside the errors within, 1 over the variance of the output.
            Rounding is divided by it: in float32 take at least 10⁻⁴. Default: 1.
        exact: whether predictions stay those of the forward pass. Default: False.

    Source: J. Whittington, R. Bogacz, "An approximation of the error backpropagation algorithm in a predictive coding
    network with local Hebbian synaptic plasticity" (2017), with unit variances within and any
    cost at the output;
    B. Millidge, A. Tschantz, C. Buckley, "Predictive coding approximates backprop along arbitrary computation graphs"
    (2022), for the exact form.

    >>> import fnn
    >>> net, data = fnn.mlp((3, 1)), (np.eye(2), np.ones((2, 1)))
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (2,), rule=PredictiveCoding())
    >>> _, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=20, batch_size=2)
    >>> bool(history["loss"][-1] < history["loss"][0])
    True
    """

    rate: Annotated[Any, Interval("(0, 1]")] = 0.1
    steps: Choice[Annotated[int, Interval("[1, ∞)")]] = 20
    exact: Choice[bool] = False
    nudge: Annotated[Any, Interval("(0, ∞)")] = 1.0

    draws = False

    def init(self, problem, params, key):
        """No state."""
        stages(self, problem.net, params)
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value of the forward pass, and the gradient at the values that have settled."""
        chain = stages(self, problem.net, params, keys.net)
        outputs, residuals = run(chain, batch.x)
        top = at_output(problem, outputs[-1], batch)
        nudged = lambda delta: cast(self.nudge * delta, delta.dtype)

        def errors(values):
            """`(residuals, deltas)` of every stage, for the values of all but the last."""
            if self.exact:
                at, mus, last = residuals, outputs[:-1], nudged(top.delta)
            else:
                runs = [stage.forward(x) for stage, x in zip(chain[1:], values, strict=True)]
                mus, at = [outputs[0], *(mu for mu, _ in runs[:-1])], [residuals[0], *(kept for _, kept in runs)]
                last = nudged(at_output(problem, runs[-1][0], batch).delta)
            return at, [*(mu - x for mu, x in zip(mus, values, strict=True)), last]

        def settle(values, _):
            at, deltas = errors(values)
            needed = [s.backward(kept, d)[0] for s, kept, d in zip(chain[1:], at[1:], deltas[1:], strict=True)]
            moved = zip(values, deltas[:-1], needed, strict=True)
            return [x + cast(self.rate * (d - above), x.dtype) for x, d, above in moved], ()

        values, _ = backend.scan(settle, outputs[:-1], None, self.steps)
        top = top._replace(shares=top.shares / self.nudge)
        return RuleOutput(*gradient(problem, params, top, chain, *errors(values)), state)

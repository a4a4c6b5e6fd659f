"""Equilibrium propagation: a network settles twice more, nudged towards and away from its target."""

from typing import Annotated, Any, NamedTuple

import numpy as np  # noqa: F401 - for the example

from .. import trees
from ..backend import cast, floating
from ..backpropagation import penalised
from ..energies import Hopfield
from ..static import Choice, Interval
from .base import RuleOutput
from .chain import at_output, nested, place_of, shared, whole


class EquilibriumPropagation(NamedTuple):
    """The difference between what a network settles to when it is nudged either way is the gradient.

        s^±  minimizes  E(s) ± β ℓ(s_K, y)        E of `fnn.Hopfield`, by `steps` sweeps from where it settled freely
        dWₖ = Σₙ (sₖ⁻ sₖ₋₁⁻ᵀ − sₖ⁺ sₖ₋₁⁺ᵀ) / 2β        dbₖ = Σₙ (sₖ⁻ − sₖ⁺) / 2β        s (N, units)

    The same units that compute carry the errors, and each weight changes by the activities at its two ends. As β → 0
    it is the gradient at the free minimum, which `Backprop` computes for the same network; with both nudges what
    remains is of order β². Layers after the `Hopfield` are a readout that knows its own gradient; what comes before
    it must not learn.

    Args:
        nudge: β, greater than 0. Rounding is divided by it: in float32 take at least 10⁻⁴. Default: 0.5.
        steps: the number of sweeps of each nudged phase, at least 1. Default: 10.

    Source: B. Scellier, Y. Bengio, "Equilibrium propagation: bridging the gap between energy-based models and
    backpropagation" (2017); A. Laborieux et al., "Scaling equilibrium propagation to deep convnets by drastically
    reducing its gradient estimator bias" (2021), eq. 7, the symmetric nudge.

    >>> import fnn
    >>> net = fnn.Hopfield((fnn.Dense(4), fnn.Sigmoid(), fnn.Dense(1), fnn.Sigmoid()))
    >>> data = np.eye(2), np.eye(2)[:, :1]
    >>> rule, key = EquilibriumPropagation(), fnn.random.key(0, backend="numpy")
    >>> state = fnn.init_state(net, fnn.Sgd(1.0), key, (2,), rule=rule)
    >>> _, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=20, batch_size=2)
    >>> bool(history["loss"][-1] < history["loss"][0])
    True
    """

    nudge: Annotated[Any, Interval("(0, ∞)")] = 0.5
    steps: Choice[Annotated[int, Interval("[1, ∞)")]] = 10

    draws = False

    def init(self, problem, params, key):
        """No state."""
        place_of(Hopfield, self, problem.net, params)
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value where the network settles freely, and the gradient from the two nudged phases."""
        at, chain = place_of(Hopfield, self, problem.net, params), whole(problem.net, params, keys.net)
        readout = chain.cut(at + 1, len(chain.layers))
        x, _ = chain.cut(0, at).forward(batch.x)
        net, ours = chain.layers[at], chain.params[at]
        x = floating(x, ours[0].w.dtype)

        def at_target(y):
            """What the cost says of the last values, by way of the readout, and the readout's residuals."""
            prediction, kept = readout.forward(y)
            return at_output(problem, prediction, batch), kept

        def pull(sign):
            def force(y):
                top, kept = at_target(y)
                return cast(sign * self.nudge * readout.backward(kept, top.delta)[0], y.dtype)

            return force

        free = net.settled(ours, x)
        top, kept = at_target(free[-1])
        share = top.shares / (2 * self.nudge)
        towards, away = (net.settled(ours, x, free, pull(sign), self.steps) for sign in (1, -1))
        plus, minus = (products(net, ours, x, values, share) for values in (towards, away))
        grads = [trees.map(lambda p: p * 0, p) for p in chain.params[:at]]
        grads += [trees.map(lambda a, b: a - b, minus, plus), *readout.gradient(kept, shared(top.delta, top.shares))]
        return RuleOutput(*penalised(problem.penalty, params, top.value, nested(problem.net, grads)), state)


def products(net, params, x, values, scale) -> tuple:
    """Σₙ scaleₙ ∂/∂θ Σₖ sₖ · zₖ(sₖ₋₁): the activities at the two ends of each weight."""
    result: list = [()] * len(net.layers)
    for k, (layer, at, _) in enumerate(net.links):
        result[at] = layer.gradient(params[at], values[k - 1] if k else x, shared(values[k], scale))
    return tuple(result)

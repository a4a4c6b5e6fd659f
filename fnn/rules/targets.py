"""Target propagation: each layer is told a target for its output, by learnt inverses of the layers above."""

import itertools
from typing import Annotated, Any, NamedTuple

import numpy as np  # noqa: F401 - for the example

from .. import random
from ..backend import cast
from ..errors import ShapeError
from ..layers import Dense
from ..layers.activations import Activation
from ..networks import Serial
from ..optimizers import Momentum, apply_updates
from ..optimizers.extras import check_inner
from ..static import Interval
from .base import RuleOutput
from .chain import at_output, gradient, maps, run, shapes_through, shared, stages


class TargetPropagation(NamedTuple):
    """Difference target propagation: targets go down through inverses, corrected by what the inverses get wrong.

        ĥ_K₋₁ = h_K₋₁ − η̂ δ_K ∂f_K/∂h_K₋₁        ĥₖ₋₁ = hₖ₋₁ + gₖ(ĥₖ) − gₖ(hₖ)        hₖ = fₖ(hₖ₋₁)        k = K − 1 … 2
        δₖ = (hₖ − ĥₖ) / η̂,  δ_K = ∂ℓ/∂h_K          dθₖ = Σₙ δₖ ∂fₖ/∂θₖ, within the stage k alone        h, δ (N, units)
        gₖ learns to minimize ½ ‖gₖ(fₖ(h̃)) − h̃‖²,  h̃ = hₖ₋₁ + σ 𝒩(0, 1)

    A stage fₖ is a linear map with the activation after it; its inverse gₖ, for k = 2 … K − 1, is a `Dense` layer with
    the activation of the stage below. δ is divided by η̂, so that the size of a gradient does not depend on it. The
    rule's state is the parameters of the inverses and the state of their optimizer. It is for networks whose stages map
    vectors to vectors, but for what the first one does to its input.

    Args:
        step: η̂, greater than 0: how far the first target is. Rounding is divided by it: in float32 take at least 10⁻⁴.
            Default: 0.1.
        noise: σ, at least 0. Default: 0.1.
        optimizer: what trains the inverses. Default: `fnn.Momentum(0.01)`.

    Source: D. Lee, S. Zhang, A. Fischer, Y. Bengio, "Difference target propagation" (2015), algorithm 1; one step for
    the inverses in each of the forward weights.

    >>> import fnn
    >>> net, data = fnn.mlp((3, 3, 1), fnn.Tanh()), (np.eye(2), np.ones((2, 1)))
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), random.key(0, backend="numpy"), (2,), rule=TargetPropagation())
    >>> state, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=20, batch_size=2)
    >>> bool(history["loss"][-1] < history["loss"][0]), state.rule_state[0][0][0].w.shape
    (True, (3, 3))
    """

    step: Annotated[Any, Interval("(0, ∞)")] = 0.1
    noise: Annotated[Any, Interval("[0, ∞)")] = 0.1
    optimizer: Any = Momentum(0.01)

    def check(self):
        """Raise unless the inverses have an optimizer that needs the gradient alone."""
        check_inner("TargetPropagation.optimizer", self.optimizer, "TargetPropagation")

    def init(self, problem, params, key):
        """The parameters of the inverses, and the state of their optimizer."""
        chain = stages(self, problem.net, params)
        shapes = shapes_through(problem.net, problem.input_shape)
        wrong = [shapes[stage.start] for stage in chain[1:] if len(shapes[stage.start]) != 1]
        if wrong:
            raise ShapeError(f"TargetPropagation: expected stages that map vectors to vectors, got shape {wrong[0]}")
        dtype, sizes = maps(params)[0].w.dtype, [shapes[stage.start] for stage in chain[2:]]
        nets = zip(inverses(chain), sizes, strict=True)
        first = tuple(g.init(random.fold_in(key, k), size, dtype) for k, (g, size) in enumerate(nets))
        return first, self.optimizer.init(first)

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, the gradient of the stages towards their targets, and better inverses."""
        (backs, opt_state), chain = state, stages(self, problem.net, params, keys.net)
        outputs, residuals = run(chain, batch.x)
        top = at_output(problem, outputs[-1], batch)
        down = chain[-1].backward(residuals[-1], top.delta)[0]
        nets = inverses(chain)
        back = lambda k, h: nets[k].forward(backs[k], h)[0]
        targets = [outputs[-2] - cast(self.step * down, down.dtype)]
        for k in reversed(range(len(nets))):
            targets.insert(0, outputs[k] + back(k, targets[0]) - back(k, outputs[k + 1]))
        pairs = zip(outputs[:-1], targets, strict=True)
        deltas = [*(cast((h - target) / self.step, h.dtype) for h, target in pairs), top.delta]

        def of_inverse(k):
            """The gradient of gₖ."""
            h = outputs[k] + cast(
                self.noise * random.normal(random.fold_in(keys.rule, k), outputs[k].shape), down.dtype
            )
            again, kept = nets[k].forward(backs[k], chain[k + 1].forward(h)[0])
            _, inner = nets[k].propagate(backs[k], kept, shared(again - h, top.shares), False)
            return nets[k].gradient(backs[k], kept, inner)

        updates, opt_state = self.optimizer.update(tuple(map(of_inverse, range(len(nets)))), opt_state, backs)
        next_state = apply_updates(backs, updates), opt_state
        return RuleOutput(*gradient(problem, params, top, chain, residuals, deltas), next_state)


def inverses(chain) -> list[Serial]:
    """A network for each stage but the first and the last, from its output to its input."""
    result = []
    for below, stage in itertools.pairwise(chain[:-1]):
        at = next(i for i, p in enumerate(below.params) if maps(p))
        activations = [layer for layer in below.layers[at:] if isinstance(layer, Activation)]
        result.append(Serial((Dense(maps(stage.params)[0].w.shape[1]), *activations)))
    return result

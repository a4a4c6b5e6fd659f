"""The forward-forward algorithm: each stage learns to be excited by what is true, and calm at what is not."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import random, trees
from ..backend import at_least_float32, cast, floating, namespace
from ..backpropagation import mean_cost, penalised
from ..energies import Goodness
from ..errors import KindError
from ..numerics import logistic, softplus
from ..static import Choice, Interval
from .base import RuleOutput
from .chain import links, nested, place_of, shared, whole


class ForwardForward(NamedTuple):
    """Two forward passes, of the input with its label and with a wrong one; each stage has a cost of its own.

        ℓ = Σₖ (softplus(−zₖ⁺) + softplus(zₖ⁻)) / 2        zₖ = (Σ aₖ² − θ Kₖ) / T     of the stage's Kₖ units

        δₖ⁺ = −σ(−zₖ⁺) aₖ⁺ / T,  δₖ⁻ = σ(zₖ⁻) aₖ⁻ / T     dWₖ = Σₙ (δₖ ⊙ f') ĥₖ₋₁ᵀ, of both; a (N, Kₖ), z (N,)

    The network is a `fnn.Goodness`, which compares the labels; what comes before it must not learn. The value that is
    reported is ℓ; the cost of the problem is for evaluation.

    Args:
        threshold: θ, greater than 0: the mean square of a stage's outputs at which both are equally likely. Default: 1.
        temperature: T, greater than 0. A sum over many units is sure of itself after a few steps, and then hardly
            learns; a T of a hundredth to a tenth of the units keeps it in doubt. Default: 1, as in the source.
        hard: whether the wrong label is one that the network takes for right, c with a probability proportional to
            exp Σₖ zₖ(c) over the stages that count, which costs a forward pass of all wrong labels; otherwise all wrong
            labels are as probable. Default: False.

    Source: G. Hinton, "The forward-forward algorithm: some preliminary investigations" (2022), §§2 and 3.3.

    >>> import fnn
    >>> net, data = fnn.Goodness((fnn.Dense(8), fnn.Relu()), classes=2), (np.eye(2), np.array([0, 1]))
    >>> rule, key = ForwardForward(), random.key(0, backend="numpy")
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), key, (2,), rule=rule)
    >>> state, history = fnn.train(net, fnn.SoftmaxCrossEntropy(), state, data, epochs=50, batch_size=2)
    >>> net.apply(state.params, data[0]).argmax(axis=1).tolist()
    [0, 1]
    """

    threshold: Annotated[Any, Interval("(0, ∞)")] = 1.0
    temperature: Annotated[Any, Interval("(0, ∞)")] = 1.0
    hard: Choice[bool] = False

    def init(self, problem, params, key):
        """No state."""
        if place_of(Goodness, self, problem.net, params) + 1 != len(links(problem.net)):
            raise KindError(f"ForwardForward: expected fnn.Goodness as the last layer, got {problem.net}")
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The cost of all stages, and the gradient of each one's own."""
        at, chain = place_of(Goodness, self, problem.net, params), whole(problem.net, params, keys.net)
        net, ours = chain.layers[at], chain.params[at]
        if batch.y.ndim != 1:
            raise KindError(f"ForwardForward: expected labels (N,), got targets of shape {batch.y.shape}")
        x, _ = chain.cut(0, at).forward(batch.x)
        xp, x, y = namespace(x, batch.y), floating(x, ours[0].w.dtype), batch.y.astype(np.int32)
        wrong = (self._mistaken if self.hard else self._any_other)(net, ours, x, y, keys.rule)
        labels, sign = xp.stack([y, wrong], axis=1), np.array([1, -1], np.float32)
        outputs, _, residuals = net.activities(ours, x, labels)
        losses, deltas = 0, []
        for link, a in zip(net.links, outputs, strict=True):
            wide = cast(a, at_least_float32(a.dtype))
            z = self._excitement(wide)
            losses = losses + softplus(-sign * z).sum(axis=1) / 2
            da = cast(-(sign * logistic(-sign * z) / self.temperature)[..., None] * wide, a.dtype)
            dz, above = net.back(ours, residuals, link, da)
            deltas += [dz, *above]
        value, shares = mean_cost(problem.loss, losses, batch.weights, problem.denominator)
        shares = shares + 0 * losses
        grads = [trees.map(lambda p: p * 0, p) for p in chain.params[:at]]
        grads.append(net.gradient(ours, tuple(residuals), tuple(shared(d, shares) for d in deltas)))
        return RuleOutput(*penalised(problem.penalty, params, value, nested(problem.net, grads)), state)

    def _excitement(self, a):
        """z (...) of a stage's outputs (..., Kₖ)."""
        return ((a * a).sum(axis=-1) - self.threshold * a.shape[-1]) / self.temperature

    def _any_other(self, net, params, x, y, key):
        """A wrong label for each example, (N,)."""
        return (y + 1 + (random.bits(key, y.shape) % np.uint32(net.classes - 1)).astype(np.int32)) % net.classes

    def _mistaken(self, net, params, x, y, key):
        """A wrong label for each example, (N,), drawn by what the network makes of all of them.

        The true label is not among those that are compared, so it is not drawn, whatever is rounded or NaN.
        """
        wrong = (y[:, None] + 1 + np.arange(net.classes - 1, dtype=np.int32)) % net.classes  # (N, C − 1)
        outputs, _, _ = net.activities(params, x, wrong)
        wide = [cast(a, at_least_float32(a.dtype)) for k, a in enumerate(outputs) if net.counts(k)]
        z: Any = sum(self._excitement(a) for a in wide)
        reached = namespace(z).exp(z - z.max(axis=1, keepdims=True)).cumsum(axis=1)
        drawn = (1 - random.uniform(key, y.shape))[:, None] * reached[:, -1:]  # above 0, so none that is impossible
        return (y + 1 + (reached < drawn).sum(axis=1).astype(np.int32)) % net.classes

"""Private training (DP-SGD): clipping bounds what one example can change, and noise hides it."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import per_example, random, trees
from ..backend import cast, namespace
from ..backpropagation import mean_cost, penalised
from ..errors import ArgumentError
from ..static import Interval
from .base import RuleOutput


class Private(NamedTuple):
    """Differentially private gradients.

        g = (Σₙ gₙ min(1, C / ‖gₙ‖) + σ C 𝒩(0, 1)) / B + ∂R/∂θ

    The sum is over a batch that each of the N examples joins independently with probability q = B / N (Poisson
    sampling); B is the batch size and R the penalty, which does not depend on the data. `fnn.privacy.epsilon` computes
    the guarantee (ε, δ), for data sets that differ by adding or removing one example. The guarantee covers the
    parameters. It does not cover the metrics of a run (`loss`, `weight`, `size`), nor anything else computed from the
    data, such as the constants of `Standardize`. The noise is float32 from a generator that is not cryptographically
    secure: enough to study private training, but no protection against someone who knows the key. Training one state on
    two data sets adds the same noise to both; use a separate key for each.

    Args:
        max_norm: C, greater than 0. ∞, without noise, is ordinary training.
        noise_multiplier: σ, at least 0; 0 gives no privacy.

    Source: M. Abadi et al., "Deep learning with differential privacy" (2016), algorithm 1.

    >>> import fnn
    >>> net, data = fnn.mlp((1,)), (np.eye(2), np.ones((2, 1)))
    >>> rule = Private(max_norm=1.0, noise_multiplier=0.5)
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), random.key(0, backend="numpy"), (2,), rule=rule)
    >>> state, history = fnn.train(net, fnn.Quadratic(), state, data, steps=3, batch_size=1)
    >>> int(state.step), history["size"].shape
    (3, (3,))
    """

    max_norm: Annotated[Any, Interval("(0, ∞]")]
    noise_multiplier: Annotated[Any, Interval("[0, ∞)")]

    sampling = "poisson"
    weighted = False
    private = True

    def check(self):
        """Raise if there is noise but no finite bound."""
        concrete = [np.asarray(v) for v in self if np.ndim(v) == 0 and isinstance(v, int | float | np.generic)]
        if len(concrete) == 2 and concrete[1] > 0 and not np.isfinite(np.float32(concrete[0])):
            raise ArgumentError(
                f"Private.max_norm: expected a finite number, since the noise grows with it, got {self.max_norm}"
            )

    def init(self, problem, params, key):
        """No state."""
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The clipped sum of the batch plus noise, divided by the nominal batch size."""
        per_example.check_separable(problem.loss)
        f, losses = per_example.factors_of(problem.net, problem.loss, params, batch.x, batch.y, keys.net)
        weights = batch.weights
        grads = per_example.clipped(params, f, weights, self.max_norm, batch.size)
        xp, noisy = namespace(losses, self.noise_multiplier), self.noise_multiplier > 0
        std = xp.where(noisy, self.noise_multiplier * xp.where(noisy, self.max_norm, 0) / batch.size, 0)
        value, _ = mean_cost(problem.loss, losses, weights)
        value, grads = penalised(problem.penalty, params, value, noised(grads, std, keys.rule))
        size = xp.asarray(len(losses) if weights is None else weights.sum(), np.int32)[()]
        return RuleOutput(value, grads, state, {"size": size})


def noised(grads, std, key):
    """Add normal noise of this standard deviation to the gradient of every parameter that is learnt."""
    place = iter(range(len(trees.leaves(grads))))

    def add(g):
        return g + cast(std * random.normal(random.fold_in(key, next(place)), g.shape), g.dtype)

    return trees.map_learnt(add, grads)

"""Private training (DP-SGD): clipping bounds what one example can change, and noise hides it."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import per_example, random, trees
from ..backend import at_least_float32, cast, namespace
from ..backpropagation import mean_cost, penalised
from ..errors import ArgumentError
from ..static import Interval
from .base import RuleOutput

STEPS = 128  # of the grid of a noised sum, for each standard deviation of its noise


class Private(NamedTuple):
    """Differentially private gradients.

        g = (Σₙ gₙ min(1, C / ‖gₙ‖) + σ C 𝒩(0, 1)) / B + ∂R/∂θ

    The sum is over a batch that each of the N examples joins independently with probability q = B / N (Poisson
    sampling); B is the batch size and R the penalty, which does not depend on the data. `fnn.privacy.epsilon` computes
    the guarantee (ε, δ), for data sets that differ by adding or removing one example. The guarantee covers the
    parameters. It does not cover the metrics of a run (`loss`, `weight`, `size`), nor anything else computed from the
    data, such as the constants of `Standardize`. `fnn.make_step` samples nothing: q is then the caller's.

    Floating point: an observer of low bits, or of values that noise cannot have, may know more than the formula says.
    So the noise is drawn with tails up to 9.4 (`fnn.random.wide_normal`), added in float32 or wider whatever the
    parameters are, and the noised sum is rounded to multiples of σ C / 128, which hides the bits of the noise and of
    the sum; it adds 5·10⁻⁶ of the variance. q is exact to 2⁻⁶⁴. What remains is that the sum is rounded, which adds
    some √(2⁻⁴⁶ B) C to what an example can change.

    The generator is not cryptographically secure: enough to study private training, but no protection against someone
    who knows the key. Training one state on two data sets adds the same noise to both, so the difference of the results
    has none; use a separate key for each. The same holds for a step that is repeated, from a checkpoint, on other data.

    Args:
        max_norm: C, greater than 0. ∞, without noise, is ordinary training.
        noise_multiplier: σ, at least 0; 0 gives no privacy.

    Source: M. Abadi et al., "Deep learning with differential privacy" (2016), algorithm 1; on rounding: I. Mironov, "On
    significance of the least significant bits for differential privacy" (2012), and S. Casacuberta et al., "Widespread
    underestimation of sensitivity in differentially private libraries and how to fix it" (2022).

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
        """Raise if there is noise but no bound with which it is a number."""
        concrete = [np.asarray(v) for v in self if np.ndim(v) == 0 and isinstance(v, int | float | np.generic)]
        if len(concrete) < 2 or concrete[1] == 0:
            return
        if not 1e-25 < float(concrete[0]) * float(concrete[1]) < 1e35:  # room for division by B
            raise ArgumentError(
                "Private.max_norm: expected a finite number, since the noise grows with it, for which σ C is from "
                f"1e-25 to 1e35, got {self.max_norm} with σ = {self.noise_multiplier}"
            )

    def init(self, problem, params, key):
        """No state."""
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The clipped sum of the batch plus noise, divided by the nominal batch size."""
        return self.from_sums(problem, params, state, batch, keys, self.sums(problem, params, state, batch, keys))

    def sums(self, problem, params, state, batch, keys, share=1):
        """The clipped sum, divided by the nominal batch size; the cost; and how many examples they are of."""
        per_example.check_separable(problem.loss)
        f, losses = per_example.factors_of(problem.net, problem.loss, params, batch.x, batch.y, keys.net)
        weights = batch.weights
        wide = trees.map(lambda p: cast(p, at_least_float32(p.dtype)), params)  # noise comes before any rounding
        grads = per_example.clipped(wide, f, weights, self.max_norm, batch.size)
        value, _ = mean_cost(problem.loss, losses, weights, problem.denominator)
        size = len(losses) if weights is None else weights.sum()
        return value, grads, namespace(losses).asarray(size, np.int32)[()]

    def from_sums(self, problem, params, state, batch, keys, sums) -> RuleOutput:
        """The noise, added to the sum over the whole batch."""
        value, grads, size = sums
        xp, noisy = namespace(value, self.noise_multiplier), self.noise_multiplier > 0
        std = xp.where(noisy, self.noise_multiplier * xp.where(noisy, self.max_norm, 0) / batch.size, 0)
        grads = trees.map(lambda g, p: cast(g, p.dtype), noised(grads, std, keys.rule), params)
        value, grads = penalised(problem.penalty, params, value, grads)
        return RuleOutput(value, grads, state, {"size": size})


def noised(grads, std, key):
    """The gradients of all parameters that are learnt plus normal noise, as multiples of std / 128; as they are at 0.

    Rounding comes after the noise, so it is post-processing; the grid depends on nothing but the noise's size, and is
    coarse beside the spacing of the noise, so a multiple says nothing about the sum's own low bits.
    """
    xp, place = namespace(std, *trees.leaves(grads)), iter(range(len(trees.leaves(grads))))
    unit = xp.where(std > 0, std, 1)

    def add(g):
        noise = random.wide_normal(random.fold_in(key, next(place)), g.shape)
        return xp.where(std > 0, cast(xp.rint((g / unit + noise) * STEPS) * (unit / STEPS), g.dtype), g)

    return trees.map_learnt(add, grads)

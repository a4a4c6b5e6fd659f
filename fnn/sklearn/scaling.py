"""Scaling: the mean and standard deviation of what has been seen in training, and the layers that they make.

Letters: n examples of K features or outputs; x (n, K); μ and σ (K,).
"""

from typing import Any, NamedTuple

import numpy as np

from .. import trees
from ..layers import Standardize, StandardizeParams
from ..layers.standardize import constants, mean_and_std, weighted_pieces
from ..networks import Frozen, Serial


class Seen(NamedTuple):
    """The mean μ and standard deviation σ of n examples, feature by feature, and how those of two parts are merged.

        μ = μ₁ + s (μ₂ − μ₁)        σ² = σ₁² + s (σ₂² − σ₁²) + s (1 − s) (μ₂ − μ₁)²        s = n₂ / (n₁ + n₂)

    If the second part equals the first, this changes nothing, to the last digit.
    """

    n: int
    mean: Any
    std: Any

    @classmethod
    def of(cls, x, weights, before=None):
        """Those of x (N, K), merged with those before."""
        weights = np.ones(len(x)) if weights is None else weights
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by `constants`
            new = cls(int(np.count_nonzero(weights)), *mean_and_std(weighted_pieces("", x, weights)))
            if before is None:
                return new
            n = before.n + new.n
            share, step = new.n / n, new.mean - before.mean
            variance = before.std**2 + share * (new.std**2 - before.std**2) + share * (1 - share) * step**2
            return cls(n, before.mean + share * step, np.sqrt(variance))

    def close_to(self, used):
        """The μ and σ in use, with these in place of those that are off by more than σ, or by a factor of 3.

        As long as they are kept, the network's outputs for the same inputs change by training only.
        """
        far = (abs(self.mean - used.mean) > self.std) | (self.std > 3 * used.std) | (used.std > 3 * self.std)
        return Seen(self.n, np.where(far, self.mean, used.mean), np.where(far, self.std, used.std))

    def constants(self, dtype, name):
        """The parameters of a `Standardize`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return trees.lock(constants(self.mean, self.std, dtype, name))


def with_scaling(net, params, used):
    """A network and its parameters, with a first layer that standardizes X and a last one that restores y.

    In training, inputs and targets were standardized once, in advance.
    """
    if "X" in used:
        net, params = Serial((Frozen(Standardize()), *net.layers)), (trees.Fixed(used["X"]), *params)
    if "y" in used:  # (z − (−μ/σ)) / (1/σ) = σ z + μ
        mean, std = used["y"]
        back = trees.Fixed(StandardizeParams(-mean / std, 1 / std))
        net, params = Serial((*net.layers, Frozen(Standardize()))), (*params, back)
    return net, params

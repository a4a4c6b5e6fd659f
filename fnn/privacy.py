"""Privacy accounting: the guarantee (ε, δ) of `fnn.rules.Private`, and the noise needed for a given guarantee.

Google's dp-accounting (`pip install 'fnn[privacy]'`) computes it with privacy loss distributions, for Poisson-sampled
batches and data sets that differ by adding or removing one example. It accounts for normal noise and for the rate
B / n, at which `Private` samples to 2⁻⁶⁴ (`fnn.order.joins`); `Private` says what floating point leaves.
"""

import math

from .errors import ArgumentError, integer, real, require

__all__ = ["epsilon", "noise_multiplier"]


def epsilon(*, steps: int, batch_size: int, n: int, noise_multiplier: float, delta: float) -> float:
    """The ε for which `steps` private steps are (ε, δ)-private; needs dp-accounting.

    Args:
        steps: the number of steps.
        batch_size: the expected number of examples per batch.
        n: the number of examples in the data set.
        noise_multiplier: σ, at least 0.
        delta: δ in (0, 1), which should be well below 1 / n.

    Returns:
        ε; it is ∞ without noise.

    >>> round(epsilon(steps=10, batch_size=600, n=60_000, noise_multiplier=1.0, delta=1e-5), 2)
    0.38
    """
    plan = _plan(steps, batch_size, n, delta)
    if real("noise_multiplier", noise_multiplier, least=0) == 0:
        return math.inf
    accountant = require("dp_accounting.pld", "privacy").PLDAccountant()
    return float(accountant.compose(plan(noise_multiplier)).get_epsilon(delta))


def noise_multiplier(*, steps: int, batch_size: int, n: int, epsilon: float, delta: float) -> float:
    """The smallest σ for which `steps` private steps are (ε, δ)-private; needs dp-accounting.

    Args:
        steps: the number of steps.
        batch_size: the expected number of examples per batch.
        n: the number of examples in the data set.
        epsilon: ε, greater than 0.
        delta: δ in (0, 1), which should be well below 1 / n.

    Returns:
        σ, to four decimal places.

    >>> round(noise_multiplier(steps=1, batch_size=1, n=1, epsilon=1.0, delta=1e-5), 2)
    3.73
    """
    plan = _plan(steps, batch_size, n, delta)
    real("epsilon", epsilon, above=0)
    accounting, pld = require("dp_accounting", "privacy"), require("dp_accounting.pld", "privacy")
    return float(accounting.calibrate_dp_mechanism(pld.PLDAccountant, plan, epsilon, delta, tol=1e-4))


def _plan(steps, batch_size, n, delta):
    """The event to account for, as a function of σ."""
    n = integer("n", n, least=1)
    steps, batch_size = integer("steps", steps, least=1), _within(n, batch_size)
    real("delta", delta, above=0, below=1)
    accounting = require("dp_accounting", "privacy")

    def event(noise):
        sampled = accounting.PoissonSampledDpEvent(batch_size / n, accounting.GaussianDpEvent(noise))
        return accounting.SelfComposedDpEvent(sampled, steps)

    return event


def _within(n, batch_size):
    batch_size = integer("batch_size", batch_size, least=1)
    if batch_size > n:
        raise ArgumentError(f"batch_size: expected at most the number of examples, {n}, got {batch_size}")
    return batch_size

"""Accounting of private training: the guarantee (ε, δ) of `fnn.rules.Private`, and the noise that a guarantee takes.

Computed with privacy loss distributions by Google's dp-accounting (`pip install 'fnn[privacy]'`), for batches sampled
by Poisson sampling, and data sets that differ in one example added or removed.
"""

import math

from .errors import ArgumentError, integer, real, require


def epsilon(*, steps, batch_size, n, noise_multiplier, delta):
    """ε for this δ, of so many steps with batches of `batch_size` expected examples of `n`; needs dp-accounting.

    Computed with privacy loss distributions. δ should be well below 1 / n. Without noise ε is ∞.

    >>> round(epsilon(steps=10, batch_size=600, n=60_000, noise_multiplier=1.0, delta=1e-5), 2)
    0.38
    """
    plan = _plan(steps, batch_size, n, delta)
    if real("noise_multiplier", noise_multiplier, least=0) == 0:
        return math.inf
    accountant = require("dp_accounting.pld", "privacy").PLDAccountant()
    return float(accountant.compose(plan(noise_multiplier)).get_epsilon(delta))


def noise_multiplier(*, steps, batch_size, n, epsilon, delta):
    """The least σ for which so many steps are (ε, δ)-private, to 4 digits behind the point; needs dp-accounting.

    >>> round(noise_multiplier(steps=1, batch_size=1, n=1, epsilon=1.0, delta=1e-5), 2)
    3.73
    """
    plan = _plan(steps, batch_size, n, delta)
    real("epsilon", epsilon, above=0)
    accounting, pld = require("dp_accounting", "privacy"), require("dp_accounting.pld", "privacy")
    return float(accounting.calibrate_dp_mechanism(pld.PLDAccountant, plan, epsilon, delta, tol=1e-4))


def _plan(steps, batch_size, n, delta):
    """What is to be accounted for, as a function of σ."""
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

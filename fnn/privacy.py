"""Private training: what one example can change is bounded by clipping, and drowned in noise (DP-SGD).

In each step every one of the N examples joins the batch with probability q = B / N, by itself (Poisson sampling), and
the optimizer makes its step with

    g = (Σₙ gₙ min(1, C / ‖gₙ‖) + σ C 𝒩(0, 1)) / B        summed over the batch; B is its expected size

M. Abadi et al., "Deep learning with differential privacy" (2016), algorithm 1. The guarantee (ε, δ) that this gives is
computed by Google's dp-accounting (`pip install 'fnn[privacy]'`), for data sets that differ in one example added or
taken away. The noise is float32 from a stream that is not cryptographic: enough to study private training, not to
withstand who knows the key.
"""

import math

import numpy as np

from . import backend, random, trees
from .backend import cast, namespace
from .errors import ArgumentError, integer, real, require
from .optimizers import apply_updates
from .per_example import clipped_gradient
from .training import TrainState, check_data, check_state


def train_private(net, loss, state, data, *, steps, batch_size, max_norm, noise_multiplier):
    """So many private steps from `state` on, as one compiled call: `(state, history)`.

    Data is `(x, y)`, every example of weight 1. B is `batch_size`, C is `max_norm`, and σ `noise_multiplier`: 0 is no
    privacy. history holds `size`, (steps,), how many examples came into each batch; that is as little private as the
    data. Step t draws its batch from `fold_in(fold_in(key, 2), t)` and its noise from `fold_in(fold_in(key, 3), t)`, so
    two calls are one. A batch has room for 8 √B + 12 more than B examples; that more come happens in less than one step
    of 10¹⁵, and those are left out. Penalties are no example's: use the weight decay of an optimizer. What else is
    measured of the data, such as the constants of `Standardize`, is not covered by ε.

    >>> from fnn import Quadratic, Sgd, init_state, mlp
    >>> net, data = mlp((1,)), (np.eye(2), np.ones((2, 1)))
    >>> state = init_state(net, Sgd(0.1), random.key(0, backend="numpy"), (2,))
    >>> how = {"batch_size": 1, "max_norm": 1.0, "noise_multiplier": 0.5}
    >>> state, history = train_private(net, Quadratic(), state, data, steps=3, **how)
    >>> int(state.step), history["size"].shape
    (3, (3,))
    """
    clipped_gradient(net, loss, max_norm)  # checks all three
    steps = integer("steps", steps, least=1)
    if real("noise_multiplier", noise_multiplier, least=0) > 0 and not np.isfinite(np.float32(max_norm)):
        raise ArgumentError(f"max_norm: expected a finite number, since the noise grows with it, got {max_norm}")
    x, y, weights = check_data(net, loss, check_state(state).params, data)
    if weights is not None:
        raise ArgumentError("data: expected (x, y), as private training draws its own weights")
    batch_size = _within(len(x), batch_size)
    std = noise_multiplier * max_norm / batch_size if noise_multiplier > 0 else 0  # without noise C may be ∞
    scales = np.float32(max_norm), np.float32(std)
    return _run(state, *scales, x, y, net=net, loss=loss, steps=steps, batch_size=batch_size)


@backend.jit(static=("net", "loss", "steps", "batch_size"))
def _run(state, max_norm, std, x, y, *, net, loss, steps, batch_size):
    xp, n = namespace(*trees.leaves(state.params), x), len(x)
    room = min(n, batch_size + math.ceil(8 * math.sqrt(batch_size)) + 12)
    gradient = clipped_gradient(net, loss, max_norm, denominator=batch_size)

    def step(state, _):
        params, optimizer, opt_state, key, t = state
        joins = random.bernoulli(random.fold_in(random.fold_in(key, 2), t), batch_size / n, (n,))
        size = joins.sum(dtype=np.int32)
        chosen = backend.first_true(joins, room)
        weights = (xp.arange(room) < size).astype(np.float32)
        noise = random.fold_in(random.fold_in(key, 1), t) if net.draws else None
        grads = gradient(params, x[chosen], y[chosen], weights, noise)
        grads = _noisy(grads, std, random.fold_in(random.fold_in(key, 3), t))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return TrainState(apply_updates(params, updates), optimizer, opt_state, key, t + 1), {"size": size}

    return backend.scan(step, state, None, steps)


def _noisy(grads, std, key):
    """Every gradient that is learnt plus a normal of this standard deviation."""
    place = iter(range(len(trees.leaves(grads))))

    def noisy(g):
        return g + cast(std * random.normal(random.fold_in(key, next(place)), g.shape), g.dtype)

    return trees.map_learnt(noisy, grads)


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

    def of(noise):
        sampled = accounting.PoissonSampledDpEvent(batch_size / n, accounting.GaussianDpEvent(noise))
        return accounting.SelfComposedDpEvent(sampled, steps)

    return of


def _within(n, batch_size):
    batch_size = integer("batch_size", batch_size, least=1)
    if batch_size > n:
        raise ArgumentError(f"batch_size: expected at most the number of examples, {n}, got {batch_size}")
    return batch_size

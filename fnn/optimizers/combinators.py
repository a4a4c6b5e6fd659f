"""Optimizers around another one: it is the field `optimizer`, and they nest freely.

    ClipByGlobalNorm(Accumulate(Adam(), steps=4), max_norm=1.0)

clips each gradient, takes the mean of four, and gives it to Adam. A combinator that remembers nothing has the state of
the optimizer within; one that does has it as `inner`.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from .. import backend, trees
from ..backend import at_least_float32, cast, namespace
from .base import each, like, widen, zero, zeros
from .descent import Sgd  # noqa: F401 - for the examples


class ClipByValue(NamedTuple):
    """Another optimizer, which is given no entry of the gradient that is larger than c.

        g ← min(max(g, −c), c)        for each entry

    Arguments: the `optimizer` within, and `max_value`, c. It turns the gradient; `ClipByGlobalNorm` does not.

    >>> optimizer, params = ClipByValue(Sgd(learning_rate=1.0), max_value=0.5), np.zeros(3)
    >>> optimizer.update(np.array([0.1, 3.0, -4.0]), optimizer.init(params), params)[0]
    array([-0.1, -0.5,  0.5])
    """

    optimizer: Any
    max_value: Any

    def init(self, params):
        return self.optimizer.init(params)

    def update(self, grads, opt_state, params=None):
        clip = lambda g: cast(namespace(g, self.max_value).clip(g, -self.max_value, self.max_value), g.dtype)
        return self.optimizer.update(trees.map(clip, grads), opt_state, params)


class ClipByNorm(NamedTuple):
    """Another optimizer, which is given no gradient of a parameter array that is longer than c.

        g ← g · min(1, c / ‖g‖)        for each array, ‖g‖² = Σ g² over all its entries

    Arguments: the `optimizer` within, and `max_norm`, c. R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of
    training recurrent neural networks" (2013), algorithm 1, for each array by itself.

    >>> optimizer, params = ClipByNorm(Sgd(learning_rate=1.0), max_norm=1.0), (np.zeros(2), np.zeros(1))
    >>> optimizer.update((np.array([3.0, 4.0]), np.array([0.5])), optimizer.init(params), params)[0]
    (array([-0.6, -0.8]), array([-0.5]))
    """

    optimizer: Any
    max_norm: Any

    def init(self, params):
        return self.optimizer.init(params)

    def update(self, grads, opt_state, params=None):
        grads = trees.map(lambda g: cast(g * _shortening(self.max_norm, g), g.dtype), grads)
        return self.optimizer.update(grads, opt_state, params)


class ClipByGlobalNorm(NamedTuple):
    """Another optimizer, which is given no gradient that is longer than c; its direction stays.

        g ← g · min(1, c / ‖g‖)        ‖g‖² = Σ g² over all that is learnt

    Arguments: the `optimizer` within, and `max_norm`, c. R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of
    training recurrent neural networks" (2013), algorithm 1.

    >>> optimizer, params = ClipByGlobalNorm(Sgd(learning_rate=1.0), max_norm=1.0), (np.zeros(1), np.zeros(1))
    >>> optimizer.update((np.array([3.0]), np.array([4.0])), optimizer.init(params), params)[0]
    (array([-0.6]), array([-0.8]))
    """

    optimizer: Any
    max_norm: Any

    def init(self, params):
        return self.optimizer.init(params)

    def update(self, grads, opt_state, params=None):
        factor = _shortening(self.max_norm, *trees.learnt(grads))
        return self.optimizer.update(trees.map(lambda g: cast(g * factor, g.dtype), grads), opt_state, params)


def _shortening(max_norm, *arrays):
    """min(1, c / ‖…‖), and exactly 1 where nothing is too long."""
    xp = namespace(max_norm, *arrays)
    wide = [cast(a, at_least_float32(a.dtype)) for a in arrays]
    return max_norm / xp.maximum(xp.sqrt(sum((a * a).sum() for a in wide)), max_norm)


class Accumulate(NamedTuple):
    """Another optimizer, which makes one step of the mean gradient of k batches, as if they were one large batch.

        g = (g₁ + … + gₖ) / k        w ← w + u(g) at every k-th step, and w ← w between

    Arguments: the `optimizer` within, and `steps`, k. A step between leaves the state of the optimizer within as it
    was, so a schedule there counts the steps that are made. Each batch counts the same, whatever its weights.

    >>> optimizer, params = Accumulate(Sgd(learning_rate=1.0), steps=2), np.zeros(1)
    >>> first, state = optimizer.update(np.array([1.0]), optimizer.init(params), params)
    >>> second, state = optimizer.update(np.array([3.0]), state, params)
    >>> first, second
    (array([0.]), array([-2.]))
    """

    optimizer: Any
    steps: Any

    def init(self, params):
        return Accumulated(zero(params), zeros(params), self.optimizer.init(params))

    def update(self, grads, opt_state, params=None):
        count, mean, inner = opt_state
        xp, i = namespace(count, self.steps), count % self.steps
        mean = trees.map(lambda m, g: m + (g - m) / cast(i + 1, m.dtype), mean, widen(grads, mean))
        last = i + 1 == self.steps
        updates, inner = _step_if(last, self.optimizer, like(mean, grads), inner, params)
        mean = trees.map(lambda m: xp.where(last, 0, m), mean)
        return updates, Accumulated(count + 1, mean, inner)


class Accumulated(NamedTuple):
    """State of Accumulate: the number of batches, the mean of those since the last step, and the state within."""

    count: Any
    mean: Any
    inner: Any


class SkipNonFinite(NamedTuple):
    """Another optimizer, and a gradient with NaN or an infinity anywhere changes nothing, parameters or state.

        w ← w + u where all entries of g are finite, else w ← w

    Argument: the `optimizer` within. `opt_state.skipped` counts the steps left out; if it grows and grows, the cause
    is elsewhere. For overflow in narrow dtypes: P. Micikevicius et al., "Mixed precision training" (2018), §3.2.

    >>> optimizer, params = SkipNonFinite(Sgd(learning_rate=1.0)), np.zeros(2)
    >>> updates, state = optimizer.update(np.array([1.0, np.nan]), optimizer.init(params), params)
    >>> updates, state.skipped, state.inner.count
    (array([0., 0.]), np.int32(1), np.int32(0))
    """

    optimizer: Any

    def init(self, params):
        return Skipped(zero(params), self.optimizer.init(params))

    def update(self, grads, opt_state, params=None):
        skipped, inner = opt_state
        each_finite = [namespace(g).isfinite(g).all() for g in trees.leaves(grads)]
        finite = functools.reduce(lambda a, b: a & b, each_finite, np.True_)
        updates, inner = _step_if(finite, self.optimizer, grads, inner, params)
        return updates, Skipped(skipped + ~finite, inner)


class Skipped(NamedTuple):
    """State of SkipNonFinite: the number of steps that were left out, and the state of the optimizer within."""

    skipped: Any
    inner: Any


def _step_if(true, optimizer, grads, opt_state, params):
    """The optimizer's step if it is true, else none and the same state."""

    def step(grads, opt_state, params):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return like(updates, grads, params), opt_state

    def none(grads, opt_state, params):
        return trees.map(lambda w: namespace(w).zeros(w.shape, w.dtype), grads if params is None else params), opt_state

    return backend.cond(true, step, none, grads, opt_state, params)


class Average(NamedTuple):
    """Another optimizer, and beside its run an average of the parameters, which generalizes better than the last.

        a ← βₜ a + (1 − βₜ) (w + u)        βₜ = min(β, t / (t + 1))        t = 0, 1, …

    Arguments: the `optimizer` within, and `decay`, β ≤ 1, 0.999 by default: a mean of about the last 1/(1 − β)
    parameters, and of all of them at first, so nothing of the initial ones is in it. β = 1 is the mean of all.
    It is `opt_state.average`, a tree of parameters to be used as such, in float32 or wider; what is within `Frozen`
    is as it was. Its place is within `Accumulate`, which makes fewer steps, and around `MaxNorm`, which changes them.
    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging" (1992).

    >>> optimizer, params = Average(Sgd(learning_rate=1.0), decay=1.0), np.array([10.0])
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update(np.array([2.0]), state, params)
    ...     params = params + updates
    >>> params, state.average  # of 8 and 6
    (array([6.]), array([7.]))
    """

    optimizer: Any
    decay: Any = 0.999

    def init(self, params):
        copy = lambda p: namespace(p).array(p, dtype=at_least_float32(p.dtype))
        return Averaged(zero(params), trees.map(copy, params), self.optimizer.init(params))

    def update(self, grads, opt_state, params):
        count, average, inner = opt_state
        updates, inner = self.optimizer.update(grads, inner, params)
        xp = namespace(count, self.decay)

        def toward(a, w, u):
            share = xp.maximum(1 - self.decay, 1 / cast(count + 1, a.dtype))  # 1 − βₜ
            return a + cast(share, a.dtype) * (cast(w + cast(u, w.dtype), a.dtype) - a)

        return updates, Averaged(count + 1, trees.map_learnt(toward, average, params, updates), inner)


class Averaged(NamedTuple):
    """State of Average: the number of steps, the average of the parameters, and the state of the optimizer within."""

    count: Any
    average: Any
    inner: Any


class PerLayer(NamedTuple):
    """An optimizer for each layer, or for each parameter.

    Argument: `optimizers`, a tree that begins as the parameters do, with an optimizer or a combinator at each of its
    ends, which may stand above several parameters or at one; or None, and nothing there is changed. So
    `PerLayer((Sgd(0.1), None, Adam()))` is for a Serial of three layers, and `DenseParams(w=Muon(), b=Adam())` can
    stand in the place of Adam. A combinator within sees its own parameters only. The state is a tree of the states,
    `()` for None. Raises ShapeError where the trees differ.

    >>> optimizer, params = PerLayer((Sgd(learning_rate=1.0), None)), (np.zeros(1), np.zeros(1))
    >>> optimizer.update((np.ones(1), np.ones(1)), optimizer.init(params), params)[0]
    (array([-1.]), array([0.]))
    """

    optimizers: Any

    def init(self, params):
        start = lambda place, optimizer, part: () if optimizer is None else optimizer.init(part)
        return each(start, "PerLayer.optimizers", self.optimizers, params)

    def update(self, grads, opt_state, params):
        def step(place, optimizer, part, g, state):
            if optimizer is None:
                return trees.map(lambda w: namespace(w).zeros(w.shape, w.dtype), part), state
            return optimizer.update(g, state, part)

        steps = each(step, "PerLayer.optimizers", self.optimizers, params, grads, opt_state)
        take = lambda i: each(lambda place, optimizer, pair: pair[i], "", self.optimizers, steps)
        return take(0), take(1)


class MaxNorm(NamedTuple):
    """Another optimizer, and after its step no unit's incoming weights are longer than c.

        w ← w · min(1, c / ‖w‖)        for each row w of a weight matrix W (O, I)

    Arguments: the `optimizer` within, and `max_norm`, c; 3 or 4 is usual beside dropout. Biases, and all parameters
    with fewer than two axes, are left alone. N. Srebro, A. Shraibman, "Rank, trace-norm and max-norm" (2005);
    N. Srivastava et al., "Dropout" (2014), §5.1.

    >>> optimizer = MaxNorm(Sgd(learning_rate=1.0), max_norm=1.0)
    >>> params = np.array([[3.0, 4.0], [0.3, 0.4]])
    >>> updates, _ = optimizer.update(np.zeros((2, 2)), optimizer.init(params), params)
    >>> params + updates
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """

    optimizer: Any
    max_norm: Any

    def init(self, params):
        return self.optimizer.init(params)

    def update(self, grads, opt_state, params):
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        return trees.map(self._within, updates, params), opt_state

    def _within(self, update, w):
        if w.ndim < 2:
            return update
        xp, wide = namespace(w), at_least_float32(w.dtype)
        moved = cast(w, wide) + cast(update, wide)
        length = xp.sqrt((moved * moved).sum(axis=tuple(range(1, w.ndim)), keepdims=True))
        short = length <= self.max_norm
        shortened = moved * (self.max_norm / xp.where(short, 1, length)) - cast(w, wide)
        return xp.where(short, update, cast(shortened, update.dtype))

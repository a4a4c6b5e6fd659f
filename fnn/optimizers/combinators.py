"""Combinators: optimizers around another one, which is the field `optimizer`. They nest freely.

    ClipByGlobalNorm(Accumulate(Adam(), steps=4), max_norm=1.0)

clips each gradient, averages four of them, and passes the mean to Adam. A combinator that remembers nothing has the
state of the inner optimizer; one that does has it as `inner`.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import backend, trees
from ..backend import at_least_float32, cast, namespace
from ..errors import usage
from ..static import Interval
from .base import Positive, another_optimizers, like, map_optimizers, no_update, norm_and_unit, own_state, zero, zeros
from .descent import Sgd  # noqa: F401 - for the examples

# ---- clipping --------------------------------------------------------------------------------------------------------


@usage("fnn.ClipByValue(fnn.Adam(), max_value=1.0)")
class ClipByValue(NamedTuple):
    """Clips each gradient entry to [−c, c], then applies the inner optimizer.

        g ← min(max(g, −c), c)        for each entry

    This changes the direction of the gradient; `ClipByGlobalNorm` does not.

    Args:
        optimizer: the inner optimizer.
        max_value: c > 0.

    >>> optimizer, params = ClipByValue(Sgd(learning_rate=1.0), max_value=0.5), np.zeros(3)
    >>> optimizer.update(np.array([0.1, 3.0, -4.0]), optimizer.init(params), params)[0]
    array([-0.1, -0.5,  0.5])
    """

    optimizer: Any
    max_value: Positive

    def init(self, params: Any) -> Any:
        return self.optimizer.init(params)

    def update(self, grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        def clip(g):
            wide = cast(g, at_least_float32(g.dtype))
            return cast(namespace(g, self.max_value).clip(wide, -self.max_value, self.max_value), g.dtype)

        return self.optimizer.update(trees.map(clip, grads), opt_state, params)


@usage("fnn.ClipByNorm(fnn.Adam(), max_norm=1.0)")
class ClipByNorm(NamedTuple):
    """Shortens the gradient of each parameter array to a norm of at most c, then applies the inner optimizer.

        g ← g · min(1, c / ‖g‖)        for each array, ‖g‖² = Σ g² over all its entries

    Args:
        optimizer: the inner optimizer.
        max_norm: c > 0.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks" (2013),
    algorithm 1, for each array on its own.

    >>> optimizer, params = ClipByNorm(Sgd(learning_rate=1.0), max_norm=1.0), (np.zeros(2), np.zeros(1))
    >>> optimizer.update((np.array([3.0, 4.0]), np.array([0.5])), optimizer.init(params), params)[0]
    (array([-0.6, -0.8]), array([-0.5]))
    """

    optimizer: Any
    max_norm: Positive

    def init(self, params: Any) -> Any:
        return self.optimizer.init(params)

    def update(self, grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        clip = lambda g: _shortening(self.max_norm, [g]).of(g)
        return self.optimizer.update(trees.map(clip, grads), opt_state, params)


@usage("fnn.ClipByGlobalNorm(fnn.Adam(), max_norm=1.0)")
class ClipByGlobalNorm(NamedTuple):
    """Shortens the whole gradient to a norm of at most c, keeping its direction, then applies the inner optimizer.

        g ← g · min(1, c / ‖g‖)        ‖g‖² = Σ g² over all parameters that are not within `Frozen`

    Args:
        optimizer: the inner optimizer.
        max_norm: c > 0.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks" (2013),
    algorithm 1.

    >>> optimizer, params = ClipByGlobalNorm(Sgd(learning_rate=1.0), max_norm=1.0), (np.zeros(1), np.zeros(1))
    >>> optimizer.update((np.array([3.0]), np.array([4.0])), optimizer.init(params), params)[0]
    (array([-0.6]), array([-0.8]))
    """

    optimizer: Any
    max_norm: Positive

    def init(self, params: Any) -> Any:
        return self.optimizer.init(params)

    def update(self, grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        shortening = _shortening(self.max_norm, trees.learnt(grads))
        return self.optimizer.update(trees.map_learnt(shortening.of, grads), opt_state, params)


class _Shortening(NamedTuple):
    """What shortens arrays: whether nothing is too long, and else a unit to divide by (None for 1) and a factor."""

    short: Any
    unit: Any
    factor: Any

    def of(self, g):
        """g / unit · factor, which is g to the bit where nothing is too long."""
        wide = cast(g, at_least_float32(g.dtype))
        return cast((wide if self.unit is None else wide / self.unit) * self.factor, g.dtype)


def _shortening(max_norm, arrays, axis=None):
    """g -> g · min(1, c / ‖arrays‖), without overflow or underflow where the result has none."""
    arrays = [cast(a, at_least_float32(a.dtype)) for a in arrays]
    norm, unit = norm_and_unit(arrays, axis)
    xp = namespace(max_norm, norm)
    with np.errstate(over="ignore", invalid="ignore"):  # a norm that is infinite or NaN is not short
        short = (norm if unit is None else norm * unit) <= max_norm
    factor = xp.where(short, 1, max_norm / xp.where(short, 1, norm))[()]
    return _Shortening(short, None if unit is None else xp.where(short, 1, unit)[()], factor)


@usage("fnn.MaxNorm(fnn.Adam(), max_norm=3.0)")
class MaxNorm(NamedTuple):
    """Applies the inner optimizer, then shortens the incoming weights of each unit to a norm of at most c.

        w ← w · min(1, c / ‖w‖)        for each row w of a weight matrix W (O, I)

    Biases, and all parameters with fewer than two axes, are not changed.

    Args:
        optimizer: the inner optimizer.
        max_norm: c > 0; 3 or 4 is usual with dropout.

    Source: N. Srebro, A. Shraibman, "Rank, trace-norm and max-norm" (2005); N. Srivastava et al., "Dropout" (2014),
    §5.1.

    >>> optimizer = MaxNorm(Sgd(learning_rate=1.0), max_norm=1.0)
    >>> params = np.array([[3.0, 4.0], [0.3, 0.4]])
    >>> updates, _ = optimizer.update(np.zeros((2, 2)), optimizer.init(params), params)
    >>> params + updates
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """

    optimizer: Any
    max_norm: Positive

    def init(self, params: Any) -> Any:
        return self.optimizer.init(params)

    def update(self, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        updates, opt_state = self.optimizer.update(grads, opt_state, params)
        return trees.map_learnt(self._shortened, updates, params), opt_state

    def _shortened(self, update, w):
        if w.ndim < 2:
            return update
        xp, wide = namespace(w), at_least_float32(w.dtype)
        moved = cast(w, wide) + cast(update, wide)
        shortening = _shortening(self.max_norm, [moved], axis=tuple(range(1, w.ndim)))
        shortened = cast(shortening.of(moved) - cast(w, wide), update.dtype)
        return xp.where(shortening.short, update, shortened)


# ---- when a step is made ---------------------------------------------------------------------------------------------


class Accumulated(NamedTuple):
    """State of Accumulate: the number of batches, the mean of those since the last step, and the inner state."""

    count: Any
    mean: Any
    inner: Any


@usage("fnn.Accumulate(fnn.Adam(), steps=4)")
class Accumulate(NamedTuple):
    """Averages the gradients of k batches and applies the inner optimizer to the mean, as if for one large batch.

        g = (g₁ + … + gₖ) / k        w ← w + u(g) at every k-th batch, and w ← w otherwise

    Between steps the inner state does not change, so an inner schedule counts steps, not batches. Each batch counts the
    same, whatever its weights.

    Args:
        optimizer: the inner optimizer.
        steps: k ≥ 1, an integer.

    >>> optimizer, params = Accumulate(Sgd(learning_rate=1.0), steps=2), np.zeros(1)
    >>> first, state = optimizer.update(np.array([1.0]), optimizer.init(params), params)
    >>> second, state = optimizer.update(np.array([3.0]), state, params)
    >>> first, second
    (array([0.]), array([-2.]))
    """

    optimizer: Any
    steps: Annotated[int, Interval("[1, ∞)")]

    def init(self, params: Any) -> Any:
        return Accumulated(zero(params), zeros(params), self.optimizer.init(params))

    def update(self, grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        count, mean, inner = own_state(self, opt_state, Accumulated)
        xp, i = namespace(count, self.steps), count % self.steps
        add = lambda m, g: m + (cast(g, m.dtype) - m) / cast(i + 1, m.dtype)
        mean = trees.map_learnt(add, mean, grads)
        last = i + 1 == self.steps
        updates, inner = _step_if(last, self.optimizer, like(mean, grads), inner, params)
        mean = trees.map(lambda m: xp.where(last, 0, m), mean)
        return updates, Accumulated(count + 1, mean, inner)


class Skipped(NamedTuple):
    """State of SkipNonFinite: the number of skipped steps, and the inner state."""

    skipped: Any
    inner: Any


@usage("fnn.SkipNonFinite(fnn.Adam())")
class SkipNonFinite(NamedTuple):
    """Skips a step that has NaN or an infinity anywhere: neither parameters nor the inner state change.

        w ← w + u where all entries of g and of w + u are finite, else w ← w

    `opt_state.skipped` counts the skipped steps; if it keeps growing, the cause lies elsewhere. This is for overflow in
    narrow dtypes.

    Args:
        optimizer: the inner optimizer.

    Source: P. Micikevicius et al., "Mixed precision training" (2018), §3.2, for g.

    >>> optimizer, params = SkipNonFinite(Sgd(learning_rate=1.0)), np.zeros(2)
    >>> updates, state = optimizer.update(np.array([1.0, np.nan]), optimizer.init(params), params)
    >>> updates, state.skipped, state.inner.count
    (array([0., 0.]), np.int32(1), np.int32(0))
    """

    optimizer: Any

    def init(self, params: Any) -> Any:
        return Skipped(zero(params), self.optimizer.init(params))

    def update(self, grads: Any, opt_state: Any, params: Any = None) -> tuple[Any, Any]:
        skipped, inner = own_state(self, opt_state, Skipped)
        updates, moved = _step_if(trees.all_finite(grads), self.optimizer, grads, inner, params)
        after = updates if params is None else trees.map(lambda w, u: w + u, params, updates)
        finite = trees.all_finite((grads, after))
        take, leave = (lambda step, no_step: step), (lambda step, no_step: no_step)
        no_step = trees.map(no_update, updates), inner
        updates, inner = backend.cond(finite, take, leave, (updates, moved), no_step)
        return updates, Skipped(skipped + cast(~finite, np.int32), inner)


def _step_if(condition, optimizer, grads, opt_state, params):
    """The optimizer's step where the condition is true, else updates of zero and the same state."""

    def step(grads, opt_state, params):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return like(updates, grads, params), opt_state

    def no_step(grads, opt_state, params):
        return trees.map(no_update, grads if params is None else params), opt_state

    return backend.cond(condition, step, no_step, grads, opt_state, params)


# ---- averages, and an optimizer for each layer -----------------------------------------------------------------------


class Averaged(NamedTuple):
    """State of Average: the number of steps, the average of the parameters, and the inner state."""

    count: Any
    average: Any
    inner: Any


@usage("fnn.Average(fnn.Adam())")
class Average(NamedTuple):
    """Applies the inner optimizer and keeps an average of the parameters, which generalizes better than the last ones.

        a ← βₜ a + (1 − βₜ) (w + u)        βₜ = min(β, t / (t + 1))        t = 0, 1, …

    The average is `opt_state.average`, a tree of parameters in float32 or wider; parameters within `Frozen` are in it
    unchanged. Place it inside `Accumulate`, which makes fewer steps, and around `MaxNorm`, which changes them.

    Args:
        optimizer: the inner optimizer.
        decay: β in [0, 1]; default 0.999. The average is over about the last 1/(1 − β) parameters, at first over all of
            them, so the initial ones have no part in it. β = 1 is the mean of all.

    Source: B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging" (1992).

    >>> optimizer, params = Average(Sgd(learning_rate=1.0), decay=1.0), np.array([10.0])
    >>> state = optimizer.init(params)
    >>> for _ in range(2):
    ...     updates, state = optimizer.update(np.array([2.0]), state, params)
    ...     params = params + updates
    >>> params, state.average  # of 8 and 6
    (array([6.]), array([7.]))
    """

    optimizer: Any
    decay: Annotated[Any, Interval("[0, 1]")] = 0.999

    def init(self, params: Any) -> Any:
        copy = lambda w: namespace(w).array(w, dtype=at_least_float32(w.dtype))
        return Averaged(zero(params), trees.map(copy, params), self.optimizer.init(params))

    def update(self, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        count, average, inner = own_state(self, opt_state, Averaged)
        updates, inner = self.optimizer.update(grads, inner, params)
        xp = namespace(count, self.decay)

        def move(a, w, u):
            share = xp.maximum(1 - self.decay, 1 / cast(count + 1, a.dtype))  # 1 − βₜ
            return a + cast(share, a.dtype) * (cast(w + cast(u, w.dtype), a.dtype) - a)

        return updates, Averaged(count + 1, trees.map_learnt(move, average, params, updates), inner)


@usage("fnn.PerLayer((fnn.Adam(), ...)), an optimizer for each layer")
class PerLayer(NamedTuple):
    """Applies an optimizer of its own to each layer, or to each parameter.

    `PerLayer((Sgd(0.1), None, Adam()))` is for a Serial of three layers, the second of which is not trained;
    `DenseParams(w=Muon(), b=Adam())` can stand in place of `Adam()`. A combinator inside sees only its own parameters.
    The state is a tree of states, `()` for None.

    Args:
        optimizers: a tree over a prefix of the parameters' tree: each end is an optimizer for all parameters below it,
            or None, where nothing changes.

    Raises:
        ShapeError: the tree is not a prefix of the parameters' tree.

    >>> optimizer, params = PerLayer((Sgd(learning_rate=1.0), None)), (np.zeros(1), np.zeros(1))
    >>> optimizer.update((np.ones(1), np.ones(1)), optimizer.init(params), params)[0]
    (array([-1.]), array([0.]))
    """

    optimizers: Any

    def init(self, params: Any) -> Any:
        start = lambda place, optimizer, part: () if optimizer is None else optimizer.init(part)
        return map_optimizers(start, "PerLayer.optimizers", self.optimizers, params)

    def update(self, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        def step(place, optimizer, part, g, state):
            if optimizer is not None:
                return optimizer.update(g, state, part)
            if type(state) is not tuple or state:
                raise another_optimizers(self, state, f"() at {place}")
            return trees.map(no_update, part), state

        steps = map_optimizers(step, "PerLayer.optimizers", self.optimizers, params, grads, opt_state)
        take = lambda i: map_optimizers(lambda place, optimizer, pair: pair[i], "", self.optimizers, steps)
        return take(0), take(1)

"""L-BFGS: the curvature of the cost from the last few steps, for training on whole batches.

f is the cost and g = ∇f its gradient, of all parameters as one vector x (P,). Of each step s = x⁺ − x, and with it
y = g⁺ − g, the last m pairs are remembered, a new one in the place of the oldest.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import backend, trees
from ..backend import at_least_float32, cast, namespace
from ..errors import usage
from ..static import Choice, Interval, unwrapped
from .base import NonNegative, no_update, own_state, zero
from .line_search import Point, dot, search

NONE, GRADIENT, DECREASE, STUCK = np.arange(4, dtype=np.int32)  # why it stopped


class LbfgsState(NamedTuple):
    """State of Lbfgs: the number of steps, the pairs s and y (m, P), 0 where there is none, R⁻¹ (m, m), and metrics.

    R has the products sᵢᵀyⱼ of pairs where i is not newer than j; the newest pair is in row `newest`.
    """

    count: Any
    s: Any
    y: Any
    inverse: Any
    newest: Any
    metrics: Any


class Progress(NamedTuple):
    """The state of the iterations within a step; the status is 0 as long as they go on."""

    x: Any
    value: Any
    grad: Any
    s: Any
    y: Any
    inverse: Any
    newest: Any
    iterations: Any
    evaluations: Any
    status: Any


@usage("fnn.Lbfgs(), which needs no learning rate")
class Lbfgs(NamedTuple):
    """L-BFGS with a line search: descent along −H g, where H approximates the inverse Hessian.

        x ← x − a H g        a under the strong Wolfe conditions

    A step makes up to `iterations` of these on the cost of its batch, as one program, so give it all examples:
    `batch_size=len(x)`. It ends earlier if max |g| ≤ gtol, or if |f − f⁺| < ftol · max(|f|, |f⁺|, 1). With smaller
    batches each step minimizes the cost of its own batch, from curvature that is in part that of others; then `Adam`
    is the better choice. Steps share the memory: 10 steps of 20 iterations are 200 of them. Noise of layers such as
    dropout is the same within a step.

    A trial at which the cost is NaN or infinite is too long, and a shorter one is tried. If no step lowers the cost,
    the memory is cleared, and if that does not help either, the run is at a minimum to within rounding.

    The history has of each step `iterations`, `evaluations` of the cost and its gradient, `loss_after`, and after it
    `gradient_norm`, max |g|, and `status`: 0 if the iterations were used up, 1 if the gradient was within its
    tolerance, 2 if the decrease was, 3 if no step lowered the cost.

    It needs the cost itself: the rule has to be `Backprop`, and no combinator can stand around it. Parameters within
    `Frozen` stay as they are. Reverse-mode differentiation through a run is not available, as JAX has none through
    loops that end when they are done; forward mode is.

    Args:
        iterations: the most iterations of a step, at least 1. Default: 20.
        memory: m, the number of pairs, at least 1. Default: 10.
        gtol: the tolerance of the largest entry of the gradient. Default: 10⁻⁵.
        ftol: the tolerance of the decrease; 0 for none. Default: 2.2 · 10⁻⁹; in float32 that is a cost that stays the
            same.

    Source: J. Nocedal, S. Wright, "Numerical Optimization" (2006), algorithms 7.4 and 7.5; the tolerances are those of
    SciPy's L-BFGS-B.

    >>> import fnn
    >>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]])  # y = 2 x + 1
    >>> state = fnn.init_state(fnn.Dense(1), Lbfgs(), fnn.random.key(0, backend="numpy"), (1,), np.float64)
    >>> state, history = fnn.train(fnn.Dense(1), fnn.Quadratic(), state, (x, y), epochs=1, batch_size=3)
    >>> state.params.w.round(4), state.params.b.round(4), history["status"]
    (array([[2.]]), array([1.]), array([1], dtype=int32))
    """

    iterations: Annotated[int, Interval("[1, ∞)")] = 20
    memory: Choice[Annotated[int, Interval("[1, ∞)")]] = 10
    gtol: NonNegative = 1e-5
    ftol: NonNegative = 2.2e-9

    def init(self, params: Any) -> LbfgsState:
        """The state before the first step."""
        x = flat(params)
        xp, m = namespace(x), unwrapped(self).memory
        pairs = lambda: xp.zeros((m, len(x)), x.dtype)
        inverse, before = xp.zeros((m, m), x.dtype), begun(x, x[:0].sum(), x[:0])
        return LbfgsState(zero(params), pairs(), pairs(), inverse, zero(params), _metrics(before))

    def update(
        self, grads: Any, opt_state: Any, params: Any, *, value: Any, value_and_grad_fn: Callable
    ) -> tuple[Any, LbfgsState]:
        """The updates, which are added to the parameters, and the next state."""
        count, s, y, inverse, newest, _ = own_state(self, opt_state, LbfgsState)
        x, pairs = flat(params), (s.copy(), y.copy(), inverse.copy(), newest)  # NumPy's arrays will be written into

        def f(x):
            value, grads = value_and_grad_fn(nested(x, params))
            return cast(value, x.dtype), flat(grads, x.dtype)

        start = begun(x, cast(value, x.dtype), flat(grads, x.dtype), *pairs)
        start = start._replace(status=first_of([(largest(start.grad) <= self.gtol, GRADIENT)]))
        going = lambda now: (now.status == 0) & (now.iterations < self.iterations)
        with backend.any_number(), np.errstate(all="ignore"):  # at a trial that is too long
            end = backend.while_loop(going, iteration(f, self.gtol, self.ftol), start)
        updates = nested(end.x - x, params, fixed=no_update)
        return updates, LbfgsState(count + 1, end.s, end.y, end.inverse, end.newest, _metrics(end))


def iteration(f: Callable, gtol: Any, ftol: Any) -> Callable[[Progress], Progress]:
    """One iteration: a direction, a step along it, and the pair that comes of it."""

    def next_one(now: Progress) -> Progress:
        x, value, grad, *pairs = now[:7]
        xp, none, one = namespace(x), now.inverse[now.newest, now.newest] == 0, 1 + 0 * value
        d = -inverse_product(grad, now.s, now.y, now.inverse, now.newest)
        first = backend.cond(none, lambda grad: 1 / xp.maximum(largest(grad), 1), lambda grad: one, grad)
        point, tried = search(f, x, Point(0 * one, value, dot(grad, d), grad), d, first)
        moved = point.a > 0
        step, change = backend.choose(moved, point.a * d, 0 * x), point.grad - grad  # d may be NaN
        s, y, inverse, newest = backend.cond(moved, remembered, forgotten, *pairs, step, change)
        decrease = abs(point.value - value)
        small = (decrease < ftol * abs(value)) | (decrease < ftol * abs(point.value)) | (decrease < ftol)
        reasons = (largest(point.grad) <= gtol, GRADIENT), (moved & small, DECREASE), (~moved & none, STUCK)
        counts = now.iterations + 1, now.evaluations + tried, first_of(reasons)
        return Progress(x + step, point.value, point.grad, s, y, inverse, newest, *counts)

    return next_one


def inverse_product(g: Any, s: Any, y: Any, inverse: Any, newest: Any) -> Any:
    """H g, where H begins as γ and each pair, from the oldest on, changes it as BFGS does.

        H ← (1 − ρ s yᵀ) H (1 − ρ y sᵀ) + ρ s sᵀ        ρ = 1 / sᵀy        γ = sᵀy / yᵀy of the newest pair

    The two loops of algorithm 7.4 are two triangular systems, for all pairs S, Y (m, P) at once:

        R α = S g        r = γ (g − Yᵀ α)        Rᵀ c = D α − Y r        H g = r + Sᵀ c

    where R is S Yᵀ without the products of an s with an older y, `inverse` is R⁻¹, and D is the diagonal of R: upper
    triangular if the pairs stand from the oldest to the newest; otherwise S, Y, R and R⁻¹ have their rows and columns
    permuted alike, which no product notices. c are the loops' α − β.
    """
    xp, rho = namespace(g), inverse.diagonal()
    alpha = dot(inverse, dot(s, g))
    curvature = dot(y[newest], y[newest]) * rho[newest]
    r = (g - dot(alpha, y)) / backend.choose(curvature > 0, curvature, 1 + 0 * curvature)
    return r + dot(dot(alpha / xp.where(rho > 0, rho, 1) - dot(y, r), inverse), s)


def remembered(s: Any, y: Any, inverse: Any, newest: Any, step: Any, change: Any) -> tuple[Any, Any, Any, Any]:
    """The pairs with another one in place i of the oldest, unless its curvature sᵀy is none or lost in rounding.

    Without its row and column i R⁻¹ is still an inverse, and with the new pair it becomes

        R⁻¹ ← R⁻¹ with 0 in row i, −ρ R⁻¹ S y in column i, and ρ where they meet
    """
    product = dot(step, change)
    curved = product > np.finfo(step.dtype).eps * dot(change, change)
    return backend.cond(curved, _with_pair, lambda *pairs: pairs[:4], s, y, inverse, newest, step, change)


def _with_pair(s, y, inverse, newest, step, change):
    i, rho, every = (newest + 1) % len(s), 1 / dot(step, change), slice(None)
    inverse = put(put(inverse, i, 0), (every, i), 0)
    column = put(-rho * dot(inverse, dot(s, change)), i, rho)
    return put(s, i, step), put(y, i, change), put(inverse, (every, i), column), i


def put(array: Any, i: Any, value: Any) -> Any:
    """The array with another value at i; on NumPy it is written into it."""
    if backend.is_jax(array):
        return array.at[i].set(value)
    array[i] = value
    return array


def forgotten(s: Any, y: Any, inverse: Any, newest: Any, step: Any, change: Any) -> tuple[Any, Any, Any, Any]:
    """No pairs."""
    return 0 * s, 0 * y, 0 * inverse, newest


def first_of(reasons: Any) -> Any:
    """The status: the number of the first reason that holds, else 0."""
    status = NONE
    for holds, number in reversed(reasons):
        status = backend.choose(holds, number, status)
    return status


def begun(x: Any, value: Any, grad: Any, s: Any = (), y: Any = (), inverse: Any = (), newest: Any = ()) -> Progress:
    """Before the first iteration."""
    none = namespace(x).zeros((), np.int32)[()]
    return Progress(x, value, grad, s, y, inverse, newest, none, none, none)


def _metrics(end: Progress) -> dict[str, Any]:
    numbers = {"iterations": end.iterations, "evaluations": end.evaluations, "status": end.status}
    return numbers | {"gradient_norm": largest(end.grad), "loss_after": end.value}


def largest(grad: Any) -> Any:
    """max |g|."""
    return abs(grad).max(initial=0)


# ---- all parameters as one vector ------------------------------------------------------------------------------------


def flat(params: Any, dtype: Any = None) -> Any:
    """The parameters that are learnt as one vector (P,), by default in float32 or wider."""
    arrays = trees.learnt(params)
    dtype = at_least_float32(np.result_type(np.float32, *(w.dtype for w in arrays))) if dtype is None else dtype
    if not arrays:
        return namespace(*trees.leaves(params)).zeros(0, dtype)
    return namespace(*arrays).concatenate([cast(w, dtype).reshape(-1) for w in arrays])


def nested(x: Any, params: Any, fixed: Callable = lambda w: w) -> Any:
    """A vector nested as the parameters, in their dtypes; those within `Fixed` are kept, or mapped by `fixed`."""
    end = 0

    def part(w):
        nonlocal end
        begin, end = end, end + w.size
        return cast(x[begin:end].reshape(w.shape), w.dtype)

    return trees.map_learnt(part, params, fixed=fixed)

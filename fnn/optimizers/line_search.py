"""Line search: how far to go along a direction d, in which the cost falls at first.

    φ(a) = f(x + a d)        φ'(a) = ∇f(x + a d) · d        φ'(0) < 0

A step is accepted under the strong Wolfe conditions, with c₁ = 10⁻⁴ and c₂ = 0.9:

    φ(a) ≤ φ(0) + c₁ a φ'(0)        |φ'(a)| ≤ c₂ |φ'(0)|

Near a minimum φ(a) − φ(0) is less than the rounding error of either. There the first condition is replaced by one on
slopes, to which it is equal where φ is quadratic: |φ(a) − φ(0)| ≤ ε |φ(0)| and φ'(a) ≤ (2 c₁ − 1) φ'(0).

Source: J. Nocedal, S. Wright, "Numerical Optimization" (2006), eq. 3.7 and algorithm 3.5; W. Hager, H. Zhang, "A new
conjugate gradient method with guaranteed descent and an efficient line search" (2005), eq. 4.1, for the slopes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backend
from ..backend import namespace

DECREASE, CURVATURE = 1e-4, 0.9  # c₁ and c₂
ROUNDING = 64  # ε in units of the dtype's own
EVALUATIONS = 20  # at most, of one search
FURTHER = 4.0  # how many times as far to go where nothing is too far yet


class Point(NamedTuple):
    """A step a along the direction: φ(a), φ'(a), and the gradient there."""

    a: Any
    value: Any
    slope: Any
    grad: Any


class Search(NamedTuple):
    """The state of a search: an interval that holds an acceptable step, and the next step to try.

    low           the longest step yet with a sufficient decrease beyond which φ still falls; at first 0
    high          the shortest step yet that is too long, and its slope, NaN if its cost is too high; at first ∞
    a             the next step
    evaluations   how many steps have been tried
    done          whether `low` is acceptable, or nothing can be
    """

    low: Point
    high: Any
    high_slope: Any
    a: Any
    evaluations: Any
    done: Any


def search(f: Callable, x: Any, start: Point, d: Any, a: Any) -> tuple[Point, Any]:
    """The step along d from x, and how often f was evaluated; the step is 0 if none has a sufficient decrease.

    A step is too long if its decrease is insufficient or φ rises there, also if φ is NaN or infinite; it is too short
    if φ still falls too steeply. Each trial replaces one end of the interval between the two. After `EVALUATIONS`
    trials a step that is too short is better than none.

    Args:
        f: `f(x) -> (value, grad)`, for vectors.
        x: where to begin.
        start: the point there, with a = 0.
        d: the direction.
        a: the first step to try.
    """

    def trial(s):
        value, grad = f(x + s.a * d)
        point = Point(s.a, value, dot(grad, d), grad)
        enough = sufficient(start, point)
        done = enough & (abs(point.slope) <= -CURVATURE * start.slope)
        s = s._replace(evaluations=s.evaluations + 1, done=done)
        return backend.cond(done, lambda s, point, _: s._replace(low=point), narrowed, s, point, enough)

    infinite, nan = x.dtype.type(np.inf), x.dtype.type(np.nan)
    hopeless = ~((start.slope < 0) & finite(start))
    begin = Search(start, infinite, nan, a, np.int32(0), hopeless)
    end = backend.while_loop(lambda s: ~s.done & (s.evaluations < EVALUATIONS), trial, begin)
    return backend.choose(end.done | ~equal(start, end.low), end.low, start), end.evaluations


def narrowed(s: Search, point: Point, enough: Any) -> Search:
    """The search with the point as one end of the interval, and the next step to try."""
    short = enough & (point.slope <= 0)
    low = backend.choose(short, point, s.low)
    slope = backend.choose(enough, point.slope, np.nan * point.slope)
    high, high_slope = backend.choose(short, (s.high, s.high_slope), (point.a, slope))
    a = backend.cond(high < np.inf, between, lambda low, *_: FURTHER * low.a, low, high, high_slope)
    return s._replace(low=low, high=high, high_slope=high_slope, a=a)


def sufficient(start: Point, point: Point) -> Any:
    """Whether the decrease is sufficient: by the values, or by the slopes where the values are as good as equal."""
    by_value = point.value <= start.value + DECREASE * point.a * start.slope
    by_slope = equal(start, point) & (point.slope <= (2 * DECREASE - 1) * start.slope)
    return (by_value | by_slope) & finite(point)


def finite(point: Point) -> Any:
    """Whether value and slope are neither NaN nor infinite."""
    return (abs(point.value) < np.inf) & (abs(point.slope) < np.inf)


def equal(start: Point, point: Point) -> Any:
    """Whether two values are the same to within rounding."""
    return abs(point.value - start.value) <= ROUNDING * np.finfo(point.value.dtype).eps * abs(start.value)


def between(low: Point, high: Any, high_slope: Any) -> Any:
    """The next step in an interval: where the slope would be 0 if it were linear, but not in the outer tenths.

    It is a quarter of the interval on if the cost is too high at its end, which may be far off.
    """
    xp = namespace(high)
    fraction = backend.choose(high_slope > 0, low.slope / (low.slope - high_slope), 0.25 + 0 * low.slope)
    return low.a + xp.minimum(xp.maximum(fraction, 0.1), 0.9) * (high - low.a)


def dot(a: Any, b: Any) -> Any:
    """The product of two vectors or matrices, in full precision also where a GPU would round their entries."""
    xp = namespace(a, b)
    return a.dot(b) if xp is np else xp.dot(a, b, precision="highest")

"""Faults of the line search and of L-BFGS, and the checks that have to find them."""

import helpers_lbfgs as checks
import numpy as np
from planting import Fault, given, instead, result, times

from fnn.optimizers import line_search, quasi_newton


def sufficient(by_value=None, by_slope=None, equal=None):
    """`sufficient` with something else in place of a part."""

    def wrong(start, point):
        value = point.value <= start.value + 1e-4 * point.a * start.slope
        little = 64 * np.finfo(np.float64).eps * abs(start.value)
        as_good = abs(point.value - start.value) <= little if equal is None else equal(start, point)
        slope = as_good & (point.slope <= (2e-4 - 1) * start.slope)
        value = value if by_value is None else by_value(start, point)
        slope = slope if by_slope is None else by_slope(start, point)
        return (value | slope) & np.isfinite(point.value) & np.isfinite(point.slope)

    return instead(wrong)


def product(gamma=lambda s, y: (s[-1] @ y[-1]) / (y[-1] @ y[-1]), order=1, beta=1.0, last=1.0, sign=-1.0):
    """The two loops with something else in place of a part."""

    def wrong(g, s, y, inverse, newest):
        s, y, _ = checks.in_turn(s, y, inverse, newest)
        there = [i for i in range(len(s)) if s[i].any()][::order]
        q, alphas = g, {}
        for i in there[::-1]:
            alphas[i] = s[i] @ q / (s[i] @ y[i])
            q = q + sign * alphas[i] * y[i]
        r = q * gamma(s, y) if there else q
        for i in there:
            r = r + last * s[i] * (alphas[i] - beta * (y[i] @ r) / (s[i] @ y[i]))
        return r

    return instead(wrong)


def between(fraction=lambda low, slope: low.slope / (low.slope - slope), clip=(0.1, 0.9), origin=lambda low: low.a):
    """`between` with something else in place of a part."""

    def wrong(low, high, slope):
        share = fraction(low, slope) if slope > 0 else 0.25
        return origin(low) + np.clip(share, *clip) * (high - low.a)

    return instead(wrong)


def kept_pairs(change):
    """`remembered` without its condition."""
    return instead(
        lambda s, y, inverse, newest, a, b: (np.stack(change(s, a)), np.stack(change(y, b)), inverse, newest)
    )


def inverted(change):
    """`remembered` with another R⁻¹."""
    return result(lambda kept: (*kept[:2], change(kept[2]), kept[3]))


def halved(end):
    """The result of a search, with half the step."""
    return end[0]._replace(a=end[0].a / 2), end[1]


S, Q = line_search, quasi_newton
H, PAIRS, MINIMUM = checks.recursion, checks.remembering, checks.minimum_of_rosenbrock
ROUNDING, WOLFE, FINITE = checks.within_rounding, checks.strong_wolfe, checks.not_finite
FAULTS = [
    Fault("a rise is sufficient", S, "sufficient", sufficient(by_value=lambda s, p: p.value <= s.value + 1), WOLFE),
    Fault("sign of c₁", S, "sufficient", sufficient(lambda s, p: p.value <= s.value - p.a * s.slope), WOLFE),
    Fault("values alone", S, "sufficient", sufficient(by_slope=lambda s, p: np.False_), ROUNDING),
    Fault("slopes alone", S, "sufficient", sufficient(equal=lambda s, p: np.True_), ROUNDING),
    Fault("ε absolute", S, "ROUNDING", instead(1e12), ROUNDING),
    Fault("NaN is sufficient", S, "sufficient", instead(lambda s, p: ~(p.value > s.value - 1e-4 * p.a)), FINITE),
    Fault("weak curvature", S, "CURVATURE", instead(3.0), WOLFE),
    Fault("only the decrease counts", S, "CURVATURE", instead(np.inf), ROUNDING),
    Fault("never further", S, "FURTHER", instead(1.0), WOLFE),
    Fault("secant upside down", S, "between", between(lambda low, slope: slope / (slope - low.slope)), WOLFE),
    Fault("secant outside", S, "between", between(lambda low, slope: low.slope / (low.slope + slope), (-9, 9)), WOLFE),
    Fault("from 0, not from the low end", S, "between", between(origin=lambda low: 0.0), WOLFE),
    Fault("beyond the interval", S, "between", between(clip=(1.1, 1.2)), FINITE),
    Fault("γ upside down", Q, "inverse_product", product(lambda s, y: (y[-1] @ y[-1]) / (s[-1] @ y[-1])), H),
    Fault("γ of the oldest", Q, "inverse_product", product(lambda s, y: (s[0] @ y[0]) / (y[0] @ y[0] or 1)), H),
    Fault("no γ", Q, "inverse_product", product(lambda s, y: 1.0), H),
    Fault("pairs in the wrong order", Q, "inverse_product", product(order=-1), H),
    Fault("no β", Q, "inverse_product", product(beta=0.0), H),
    Fault("no second loop", Q, "inverse_product", product(last=0.0), H),
    Fault("sign of α y", Q, "inverse_product", product(sign=1.0), H),
    Fault("2.001 for 2", Q, "inverse_product", times(1.0005), H),
    Fault("s and y exchanged", Q, "inverse_product", given(lambda g, s, y, *others: (g, y, s, *others)), H),
    Fault("pairs exchanged", Q, "remembered", result(lambda kept: (kept[1], kept[0], *kept[2:])), PAIRS),
    Fault("negative curvature", Q, "remembered", kept_pairs(lambda rows, new: [*rows[1:], new]), PAIRS),
    Fault("the newest first", Q, "remembered", kept_pairs(lambda rows, new: [new, *rows[1:]]), PAIRS),
    Fault("R⁻¹ not grown", Q, "remembered", inverted(lambda inverse: np.diag(np.diag(inverse))), PAIRS),
    Fault("the newest replaced", Q, "remembered", given(lambda s, y, r, i, *pair: (s, y, r, i - 1, *pair)), PAIRS),
    Fault("γ of the pair after", Q, "inverse_product", given(lambda g, s, y, r, newest: (g, s, y, r, newest - 1)), H),
    Fault("R⁻ᵀ for R⁻¹", Q, "remembered", inverted(np.transpose), PAIRS),
    Fault("nothing forgotten", Q, "forgotten", instead(lambda *pairs: pairs[:4]), PAIRS),
    Fault("the order of parameters", Q, "flat", result(lambda x: x[::-1]), checks.vectors),
    Fault("what is fixed", Q, "nested", given(lambda x, params: (x, params, lambda w: 2 * w)), checks.vectors),
    Fault("a mean for a maximum", Q, "largest", instead(lambda g: abs(g).sum() / max(1, g.size)), checks.tolerances),
    Fault("a maximum with its sign", Q, "largest", instead(lambda grad: grad.max(initial=0)), checks.tolerances),
    Fault("the last reason", Q, "first_of", given(lambda reasons: (reasons[::-1],)), checks.tolerances),
    Fault("ascent", Q, "inverse_product", times(-1), MINIMUM),
    Fault("steepest descent", Q, "inverse_product", instead(lambda g, *pairs: g), MINIMUM),
    Fault("half the step", Q, "search", result(halved), MINIMUM),
    Fault("NaN is accepted", S, "sufficient", instead(lambda s, p: np.True_), checks.never_nan),
]  # fmt: skip

"""Wrong formulas of influence, and checks that have to find them, as in faults.py."""

import functools

import numpy as np
import test_influence as tests
from planting import Fault, given, instead, result, times

from fnn.curvature import Kronecker, blocks
from fnn.factors import Outer, Rows
from fnn.influence import inverses, kernel, pairs, passes
from fnn.numerics import inverse as inverted

LINEAR = functools.partial(tests.test_scores_on_numpy_are_those_of_dense_algebra, "linear")
SYMBOLS = functools.partial(tests.test_scores_on_numpy_are_those_of_dense_algebra, "symbols")
LEFT_OUT = functools.partial(tests.test_leaving_one_out_by_the_kernel_is_a_newton_step_without_the_example, "linear")


def split_by(power):
    """The damped inverse with another power of π."""

    def inverse(block, damping):
        a, g = block
        pi = (np.trace(a) / len(a) / (np.trace(g) / len(g))) ** power
        damped = lambda m, c: inverted(m + c * damping**0.5 * np.eye(len(m)))
        return Kronecker(damped(a, pi), damped(g, 1 / pi))

    return instead(inverse)


def without_bias(factors):
    return [f._replace(a=f.a * ([1] * (f.a.shape[-1] - 1) + [0])) if isinstance(f, Outer) else f for f in factors]


FAULTS = [
    Fault("damping squared", blocks, "_damped_inverse", given(lambda block, damping: (block, damping**2)), LINEAR),
    Fault("damping not split", blocks, "_damped_inverse", split_by(0), LINEAR),
    Fault("π upside down", blocks, "_damped_inverse", split_by(-0.5), LINEAR),
    Fault("bias column lost", inverses, "_by_block", result(without_bias), LINEAR),
    Fault("A lost of a table", inverses, "_times", lambda f: lambda m, g: f(m, g) if not isinstance(g, Rows) else (
          g._replace(delta=g.delta @ m.g)), SYMBOLS),
    Fault("damping twice", inverses, "by_gradients", given(lambda p, c, damping: (p, c, 2 * damping)), LINEAR),
    Fault("weights of examples forgotten", passes, "weighted", given(lambda v, q, w: (v, q, None)), LINEAR),
    Fault("weights of queries forgotten", passes, "weighted", given(lambda v, q, w: (v, None, w)), LINEAR),
    Fault("a sum for the mean", passes, "with_shares", result(lambda d: d._replace(weights=5 * d.weights)), LINEAR),
    Fault("1/N for the share", passes, "shares_of", given(lambda w, n, d=None: (w, n, n)), LINEAR),
    Fault("harmful for helpful", pairs, "Top", lambda f: lambda helpful, harmful: f(harmful, helpful), LINEAR),
    Fault("the smallest for the largest", pairs, "_largest", lambda f: lambda most, more, k: f(
          most, more._replace(scores=-more.scores), k), LINEAR),
    Fault("indices within the block", passes, "over", lambda f: lambda g, *rest: f(
          lambda carry, start, block: g(carry, 0 * start, block), *rest), LINEAR),
    Fault("rates forgotten", pairs, "_checkpoints", result(lambda of: [(p, 1.0) for p, _ in of]), LINEAR),
    Fault("the last checkpoint alone", pairs, "_checkpoints", result(lambda of: of[-1:]), LINEAR),
    Fault("the sign of the step", kernel, "_change", times(-1), LEFT_OUT),
    Fault("the curvature lost", kernel, "_change", given(lambda k, m, root, *rest: (k, m, 0 * root, *rest)), LEFT_OUT),
    Fault("half of the damping", kernel, "_change", given(lambda *args: (*args[:-1], args[-1] / 2)), LEFT_OUT),
]  # fmt: skip

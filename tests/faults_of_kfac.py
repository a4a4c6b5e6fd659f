"""Faults of K-FAC and of the natural gradient, and the checks that have to find them.

Each check divides by a dense matrix, or averages, a second time.
"""

import numpy as np
import oracle
from faults_of_rules import PENALTY, backpropagated, case, output, with_fields
from helpers import key
from helpers_curvature import by_layers, divided, empirical, flat, ggn, matrix_of
from planting import Fault, given, instead, result, times

import fnn
from fnn import curvature, rules, trees
from fnn.curvature import Kronecker, blocks, factored
from fnn.numerics import inverse
from fnn.rules import kfac, natural

D, DAMPING, EXACT = fnn.Dense, 0.02, {"kind": "ggn", "samples": None}
MLP = fnn.mlp((4, 3), fnn.Tanh())
LINEAR = fnn.Serial((D(2), fnn.Scale(0.5), D(3), D(4)))
SEQUENCES = fnn.Serial((fnn.Conv(3, (2,)), fnn.Tanh(), fnn.Flatten(), D(2)))


# ---- checks ----------------------------------------------------------------------------------------------------------


def linear():
    """Of a deep linear network: the blocks of the dense Gauss-Newton matrix."""
    own, params, batch = case(LINEAR, (3,))
    rule = rules.KFac(1e-16, max_norm=np.inf, **EXACT)
    g = backpropagated(own, params, batch)[1]
    found = output(rule, own, params, batch, rule.init(own, params, None)).grads
    oracle.assert_close(found, by_layers(params, matrix_of(own, params, batch), g), 1e-5)


def stepped(net=MLP, shape=(3,), positions="expand", **options):
    """Three steps, the last one of few examples: averages and damped blocks a second time."""

    def check():
        own, params, batch = case(net, shape, PENALTY)
        some = [batch, batch._replace(x=batch.x[::-1] + 1), batch._replace(weights=np.array([1.0, 2, 0, 0, 0, 0]))]
        rule = rules.KFac(DAMPING, 0.7, np.inf, every=2, positions=positions, **options)
        make = curvature.kfac(net, own.loss, rule.kind, samples=rule.samples, positions=positions)
        state, mean, inverted, total = rule.init(own, params, None), None, None, 0
        for t, b in enumerate(some):
            blocks = make(params, b.x, b.y, b.weights, sample_key=key(seed=1))
            before, total = 0.7 * total, 0.7 * total + b.weights.sum()
            share = before / total
            mean = blocks if t == 0 else trees.map(lambda m, a, s=share: s * m + (1 - s) * a, mean, blocks)
            inverted = inverted if t % 2 else mean
            found = output(rule, own, params, b, state)
            wanted = divided(params, inverted, backpropagated(own, params, b)[1], DAMPING)
            oracle.assert_close(found.grads, wanted, 1e-10)
            oracle.assert_close(found.state.factors, mean, 1e-12)
            state = found.state

    return check


def bounded():
    """The length in the metric of the curvature, before and after."""
    own, params, batch = case(D(2), (3,))
    rule = rules.KFac(DAMPING, max_norm=0.2, **EXACT)
    g = flat(backpropagated(own, params, batch)[1])
    found, free = (
        output(r, own, params, batch, r.init(own, params, None)) for r in (rule, rule._replace(max_norm=9.0))
    )
    np.testing.assert_allclose(free.metrics["fisher_norm"], np.sqrt(g @ flat(free.grads)))
    oracle.assert_close(flat(found.grads), flat(free.grads) * 0.2 / np.sqrt(g @ flat(free.grads)), 1e-12)


def signed():
    """Weights that are negative, by their magnitude."""
    own, params, batch = case(D(2), (3,))
    own, rule = own._replace(denominator=1.0), rules.KFac(DAMPING, **EXACT)
    wanted = curvature.kfac(own.net, own.loss, denominator=1.0)(params, batch.x, batch.y, batch.weights)
    negative = batch._replace(weights=-batch.weights)
    found = output(rule, own, params, negative, rule.init(own, params, None))
    oracle.assert_close(found.state.factors, wanted, 1e-12)


def solved(net, shape, kind="ggn"):
    """The natural gradient by the dense matrix."""

    def check():
        own, params, batch = case(net, shape, PENALTY)
        matrix = matrix_of(own, params, batch, empirical if kind == "empirical" else ggn)
        found = output(rules.NaturalGradient(DAMPING, kind), own, params, batch, ()).grads
        g = flat(backpropagated(own, params, batch)[1])
        oracle.assert_close(flat(found), np.linalg.solve(matrix + DAMPING * np.eye(len(g)), g), 1e-10)

    return check


EXACTLY, EMPIRICALLY = stepped(**EXACT), stepped(kind="empirical", samples=None)
DRAWN, REDUCED, EXPANDED = stepped(), stepped(SEQUENCES, (4, 2), "reduce", **EXACT), stepped(SEQUENCES, (4, 2), **EXACT)
FEW, MANY = solved(D(2), (3,)), solved(fnn.mlp((6, 3), fnn.Tanh()), (5,))


# ---- the table -------------------------------------------------------------------------------------------------------


def of_blocks(f):
    """The same blocks, each changed."""
    return lambda blocks: trees.map(f, blocks, is_leaf=curvature.blocks.is_block)


def new(change):
    """What a batch adds to the averages, changed block by block."""
    return given(lambda decay, state, blocks, batch: (decay, state, of_blocks(change)(blocks), batch))


def with_signs(f):
    def wrong(rule, problem, params, batch, *rest):
        _, _, pass_, columns = f(rule, problem, params, batch, *rest)
        return *f(rule, problem, params, batch, *rest)[:2], pass_._replace(shares=batch.weights), columns

    return wrong


def upside_down(block, damping):
    """The damping split by 1 / π."""
    a, g = block
    root = np.sqrt(damping * (np.trace(g) / len(g)) / (np.trace(a) / len(a)))
    return Kronecker(inverse(a + root * np.eye(len(a))), inverse(g + damping / root * np.eye(len(g))))


def with_problem(**change):
    """A rule for another problem."""
    return lambda f: lambda self, problem, *rest: f(self, problem._replace(**change), *rest)


def penalty_last(f):
    def wrong(self, problem, params, *rest):
        found = f(self, problem._replace(penalty=None), params, *rest)
        return found._replace(grads=trees.map(np.add, found.grads, problem.penalty.gradient(params)))

    return wrong


FAULTS = [
    Fault("a factor's mean taken twice", kfac, "averaged", new(lambda b: b._replace(a=b.a / 6)), EXACTLY),
    Fault("shares counted twice", kfac, "averaged", new(lambda b: b._replace(g=b.g / 6)), EXACTLY),
    Fault("the bias's column lost", factored, "biases", instead(lambda params: {}), linear),
    Fault("damping squared", kfac, "damped_inverse", given(lambda blocks, damping: (blocks, damping**2)), EXACTLY),
    Fault("damping by its fourth root", kfac, "damped_inverse", given(lambda b, damping: (b, damping**0.5)), EXACTLY),
    Fault("damping split the other way", blocks, "_damped_inverse", instead(upside_down), EXACTLY),
    Fault("labels for samples", rules.KFac, "gradient",
          with_fields(kind=lambda k: "empirical", samples=lambda s: None), DRAWN),
    Fault("samples for labels", rules.KFac, "gradient",
          with_fields(kind=lambda k: "fisher", samples=lambda s: 1), EMPIRICALLY),
    Fault("the exact matrix for samples", rules.KFac, "gradient", with_fields(samples=lambda s: None), DRAWN),
    Fault("reduce for expand", rules.KFac, "gradient", with_fields(positions=lambda p: "reduce"), EXPANDED),
    Fault("expand for reduce", rules.KFac, "gradient", with_fields(positions=lambda p: "expand"), REDUCED),
    Fault("inverses never refreshed", rules.KFac, "gradient", with_fields(every=lambda n: 10**6), EXACTLY),
    Fault("inverses always refreshed", rules.KFac, "gradient", with_fields(every=lambda n: 1), EXACTLY),
    Fault("averages that stay the first", rules.KFac, "gradient", with_fields(factors_every=lambda n: 10**6), EXACTLY),
    Fault("inverses a batch behind", kfac, "averaged", lambda f: lambda decay, state, blocks, batch: (
          state.factors if state.count else f(decay, state, blocks, batch)[0], f(decay, state, blocks, batch)[1]),
          EXACTLY),
    Fault("nothing forgotten", rules.KFac, "gradient", with_fields(decay=lambda d: 1.0), EXACTLY),
    Fault("averages that begin at 0", kfac, "averaged", instead(lambda decay, state, blocks, batch: (
          trees.map(lambda old, new: decay * old + (1 - decay) * new, state.factors, blocks), state.weight)), EXACTLY),
    Fault("batches counted alike", kfac, "averaged",
          given(lambda *args: (*args[:-1], args[-1]._replace(weights=None))), EXACTLY),
    Fault("A left out", kfac, "damped_inverse", result(of_blocks(lambda b: b._replace(a=np.eye(len(b.a))))), EXACTLY),
    Fault("G left out", kfac, "damped_inverse", result(of_blocks(lambda b: b._replace(g=np.eye(len(b.g))))), EXACTLY),
    Fault("not inverted", blocks, "inverse", instead(lambda m: m), EXACTLY),
    Fault("penalty forgotten", rules.KFac, "gradient", with_problem(penalty=None), EXACTLY),
    Fault("penalty not divided", rules.KFac, "gradient", penalty_last, EXACTLY),
    Fault("the bound squared", rules.KFac, "gradient", with_fields(max_norm=lambda c: c**2), bounded),
    Fault("the length of the direction alone", kfac, "shortened",
          given(lambda rule, value, g, d, state: (rule, value, d, d, state)), bounded),
    Fault("the square for the length", natural, "root", instead(lambda v: v), bounded),
    Fault("the sign of a weight in the curvature", natural, "measured", with_signs, signed),
    Fault("shares instead of their roots", natural, "root", instead(lambda v: v), FEW),
    Fault("damping squared", rules.NaturalGradient, "gradient", with_fields(damping=lambda c: c**2), FEW),
    Fault("damping squared", rules.NaturalGradient, "gradient", with_fields(damping=lambda c: c**2), MANY),
    Fault("gradients of half the size", natural, "weighted_gradients", times(0.5), MANY),
    Fault("labels for the exact matrix", rules.NaturalGradient, "gradient",
          with_fields(kind=lambda k: "empirical"), FEW),
    Fault("penalty forgotten", rules.NaturalGradient, "gradient", with_problem(penalty=None), MANY),
    Fault("penalty not divided", rules.NaturalGradient, "gradient", penalty_last, FEW),
]  # fmt: skip

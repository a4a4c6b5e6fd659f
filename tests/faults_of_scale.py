"""Faults of what saves memory, and the checks that have to find them: the same numbers without."""

import numpy as np
import oracle
from helpers import key, moved
from planting import Fault, given, instead, result

import fnn
from fnn import backend, pieces, rules, trees
from fnn.backpropagation import Problem, value_and_grad
from fnn.remat import KeptInput
from fnn.rules import Batch, InParts, Keys, parts
from fnn.rules.kfac import KFac

D, S, N = fnn.Dense, fnn.Serial, 10
MLP = fnn.mlp((4, 3), fnn.Tanh())
FOLD_IN = fnn.random.fold_in  # also while a fault is planted
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(N, 5)), RNG.normal(size=(N, 3)), RNG.uniform(0.5, 2, N)


# ---- checks ----------------------------------------------------------------------------------------------------------


def rematerialized(inner=MLP, draws=None):
    """Gradients, factors and a tangent with and without Remat."""

    def check():
        net, plain = (S((D(5), layer, D(3))) for layer in (fnn.Remat(inner), inner))
        params, found = moved(plain, (5,)), []
        for own in (net, plain):
            y, residuals = own.forward(params, X, draws)
            dx, deltas = own.propagate(params, residuals, Y)
            made = fnn.factors.made(params, own.factors(params, residuals, deltas), N)
            outer = fnn.factors.total(params, own.outer_factors(params, residuals, deltas))
            moving = own.tangent(params, residuals, params, X)
            found.append((y, dx, own.gradient(params, residuals, deltas), made, outer, moving))
        oracle.assert_close(*found, 1e-12)
        kept = fnn.Remat(inner).forward(params[1], X, draws)[1]
        assert len(trees.leaves(kept)) == (1 if draws is None else 2)

    return check


def summed(rule, weights=W, denominator=None):
    """The output of a rule for ten examples in parts of 4, 4 and 2, and for all of them."""

    def check():
        problem = Problem(MLP, fnn.Quadratic(), fnn.L2(0.1), denominator, (5,))
        params = moved(MLP, (5,))
        state = rule.init(problem, params, None)
        batch, keys = Batch(X, Y, weights, 20), Keys(None, key())
        found, wanted = (r.gradient(problem, params, state, batch, keys) for r in (InParts(rule, 4), rule))
        oracle.assert_close(found, wanted, 1e-9)

    return check


def drawn():
    """Each part by a key of its own, as the docstring says."""
    net = S((fnn.Dropout(0.5), *MLP.layers))
    params = ((), *moved(MLP, (5,)))
    found = InParts(rules.Backprop(), 5).gradient(
        Problem(net, fnn.Quadratic()), params, (), Batch(X, Y, None, N), Keys(key(), None)
    )
    of = value_and_grad(net, fnn.Quadratic(), denominator=N)
    halves = [of(params, X[s], Y[s], key=FOLD_IN(key(), k)) for k, s in enumerate((slice(5), slice(5, N)))]
    oracle.assert_close((found.value, found.grads), trees.map(lambda a, b: a + b, *halves), 1e-12)


REMAT, OF_DROPOUT = rematerialized(), rematerialized(S((fnn.Dropout(0.5), D(3))), key())
BACKPROP, UNWEIGHTED = summed(rules.Backprop()), summed(rules.Backprop(), None)
PRIVATE = summed(rules.Private(0.5, 1.0), (W > 1).astype(float))
KFAC, SIGNED = summed(KFac(kind="ggn", samples=None)), summed(KFac(kind="ggn", samples=None), W - 1.2, 5.0)


# ---- the table -------------------------------------------------------------------------------------------------------

FAULTS = [
    Fault("another input again", pieces, "once_known", result(lambda x: x * 1.001), REMAT),
    Fault("the key forgotten", fnn.Remat, "forward", result(lambda pair: (
          pair[0], pair[1]._replace(key=backend.Unbatched(None)))), OF_DROPOUT),
    Fault("residuals kept", fnn.Remat, "forward", lambda f: lambda self, params, x, key=None: (
          f(self, params, x, key)[0], KeptInput(x, backend.Unbatched(key), self.layer.forward(params, x, key)[1])),
          REMAT),
    Fault("the output in place of the input", fnn.Remat, "forward", result(lambda pair: (
          pair[0], pair[1]._replace(x=np.pad(pair[0], ((0, 0), (0, 2)))))), REMAT),
    Fault("parameters held still", fnn.Remat, "tangent", instead(
          lambda self, params, residuals, dparams, dx: self.layer.tangent(
              params, self._again(params, residuals, None), None, dx)), REMAT),
    Fault("the rest left out", pieces, "sum_of_parts", lambda f: lambda g, size, *args: f(
          g, size, *trees.map(lambda a: a[: N // size * size], args)), BACKPROP),
    Fault("each part its own mean", parts, "with_denominator", instead(
          lambda rule, problem, batch, n: (problem, batch.weights)), BACKPROP),
    Fault("each part its own mean, unweighted", parts, "with_denominator", instead(
          lambda rule, problem, batch, n: (problem, batch.weights)), UNWEIGHTED),
    Fault("the part's own number", parts, "with_denominator", instead(
          lambda rule, problem, batch, n: (problem._replace(denominator=4), None)), UNWEIGHTED),
    Fault("a sampler's weights scaled", parts, "with_denominator",
          lambda f: lambda rule, problem, batch, n: f(rules.Backprop(), problem, batch, n), PRIVATE),
    Fault("the denominator of the caller forgotten", parts, "with_denominator",
          lambda f: lambda rule, problem, batch, n: f(rule, problem._replace(denominator=None), batch, n), SIGNED),
    Fault("the penalty in each part", rules.Backprop, "sums", lambda f: lambda self, problem, *rest: (
          self.gradient(problem, *rest[:4])[:2]), BACKPROP),
    Fault("the penalty forgotten", rules.Backprop, "from_sums",
          lambda f: lambda self, problem, *rest: f(self, problem._replace(penalty=None), *rest), BACKPROP),
    Fault("noise in each part", rules.Private, "sums", lambda f: lambda self, *rest: (
          lambda value, grads, size: (value, trees.map(lambda g: g + 0.01, grads), size))(*f(self, *rest)), PRIVATE),
    Fault("clipped and divided by the part", rules.Private, "sums", lambda f: lambda self, own, p, state, batch, *rest:
          f(self, own, p, state, batch._replace(size=len(batch.x)), *rest), PRIVATE),
    Fault("parts counted alike", KFac, "sums", lambda f: lambda self, *args: f(self, *args[:5], 1 / 3), KFAC),
    Fault("the part's share forgotten", KFac, "sums", lambda f: lambda self, *args: f(self, *args[:5]), KFAC),
    Fault("the sign of weights in their share", parts, "normalized", given(lambda w: (w - 0.1,)), SIGNED),
    Fault("one key for all parts", parts.random, "fold_in", lambda f: lambda key, k: f(key, 0), drawn),
]  # fmt: skip

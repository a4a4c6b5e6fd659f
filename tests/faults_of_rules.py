"""Faults of learning rules and of the networks that they train, and the checks that have to find them.

Each check writes the rule a second time, in plain NumPy for a small network, or asks for what theory says of it.
"""

import importlib
from dataclasses import dataclass

import numpy as np
import oracle
from helpers import key, moved, problem
from planting import Fault, instead, result, times

import fnn
from fnn import energies, rules, trees
from fnn.rules import angles, chain, equilibrium, feedback, forward, goodness, predictive, targets
from fnn.testing import check_layer

NET, D = fnn.mlp((4, 4, 4), fnn.Tanh()), fnn.Dense
PENALTY = fnn.L2(0.3)


# ---- checks ----------------------------------------------------------------------------------------------------------


def case(net=NET, shape=(4,), penalty=None):
    """A problem in float64 with weights, its parameters, and its batch."""
    net, loss, params, x, y, weights = problem(net, None, shape, dtype=np.float64)
    return rules.Problem(net, loss, penalty, None, shape), params, rules.Batch(x, y, weights, len(x))


def backpropagated(own, params, batch):
    return fnn.backpropagation.differentiate(own, params, batch)


def output(rule, own, params, batch, state):
    return rule.gradient(own, params, state, batch, rules.Keys(None, key(seed=1)))


def passes(params, batch):
    """`(a¹, a², e, s)`: two layers of tanh units, the error at the output, and the shares."""
    (w1, b1), _, (w2, b2), _, (w3, b3) = params
    first = np.tanh(batch.x @ w1.T + b1)
    second = np.tanh(first @ w2.T + b2)
    return first, second, second @ w3.T + b3 - batch.y, batch.weights / batch.weights.sum()


def gradient_of(batch, first, second, d1, d2, d3):
    pairs = (d1, batch.x), (), (d2, first), (), (d3, second)
    return tuple(fnn.DenseParams(p[0].T @ p[1], p[0].sum(axis=0)) if p else () for p in pairs)


def fed_back(rule, matrices, apart=False, after=None):
    """The gradient is that with these matrices on the way back, `matrices(params, state)`; directly, or in turn."""

    def check():
        own, params, batch = case(penalty=PENALTY)
        state = rule.init(own, params, key(seed=2))
        b2, b3 = matrices(params, state)
        first, second, e, share = passes(params, batch)
        d3 = e * share[:, None]
        d2 = d3 @ b3 * (1 - second**2)
        d1 = (d3 if apart else d2) @ b2 * (1 - first**2)
        wanted = gradient_of(batch, first, second, d1, d2, d3)
        found = output(rule, own, params, batch, state)
        wanted = trees.map(np.add, wanted, PENALTY.gradient(params))
        oracle.assert_close(found.grads, wanted, 1e-12)
        if after:
            oracle.assert_close(found.state, after(state), 1e-12)

    return check


def of_signs(params, _):
    return [0.5 / 2 * np.sign(params[i].w) for i in (2, 4)]


def kolen_pollack(params, state):
    """The first B is what is drawn: W plus the difference."""
    drawn = feedback.random_matrices(params, key(seed=2), 0.5)
    oracle.assert_close([p.w + d for p, d in zip(chain.maps(params), state, strict=True)], list(drawn), 1e-12)
    return drawn[1:]


def coded():
    """Two steps of predictive coding, step by step; and to first order it is backpropagation."""
    own, params, batch = case(penalty=PENALTY)
    _, _, (w2, b2), _, (w3, b3) = params
    mu, x2, _, share = passes(params, batch)
    x1, rate, nudge = mu, 0.3, 0.5

    def errors():
        second = np.tanh(x1 @ w2.T + b2)
        return mu - x1, second - x2, nudge * (x2 @ w3.T + b3 - batch.y), second

    for _ in range(2):
        d1, d2, d3, second = errors()
        x1, x2 = x1 + rate * (d1 - (d2 * (1 - second**2)) @ w2), x2 + rate * (d2 - d3 @ w3)
    d1, d2, d3, second = errors()
    scale = share[:, None] / nudge
    wanted = gradient_of(batch, x1, x2, d1 * (1 - mu**2) * scale, d2 * (1 - second**2) * scale, d3 * scale)
    wanted = trees.map(np.add, wanted, PENALTY.gradient(params))
    found = output(rules.PredictiveCoding(rate, 2, nudge=nudge), own, params, batch, ())
    oracle.assert_close(found.grads, wanted, 1e-12)


def coded_exactly():
    own, params, batch = case()
    found = output(rules.PredictiveCoding(1.0, 2, True), own, params, batch, ()).grads
    oracle.assert_close(found, backpropagated(own, params, batch)[1], 1e-12)


def targeted():
    """Targets and inverses, step by step."""
    own, params, batch = case()
    rule = rules.TargetPropagation(0.2, 0.3, fnn.Sgd(0.5))
    state = rule.init(own, params, key(seed=2))
    ((v, c), _) = state[0][0]
    first, second, e, share = passes(params, batch)
    w2, b2 = params[2]
    target = second - 0.2 * e @ params[4].w
    below = first + np.tanh(target @ v.T + c) - np.tanh(second @ v.T + c)
    d2, d1 = ((h - t) / 0.2 * (1 - h**2) * share[:, None] for h, t in ((second, target), (first, below)))
    found = output(rule, own, params, batch, state)
    oracle.assert_close(found.grads, gradient_of(batch, first, second, d1, d2, e * share[:, None]), 1e-12)
    h = first + 0.3 * fnn.random.normal(fnn.random.fold_in(key(seed=1), 0), first.shape)
    above = np.tanh(h @ w2.T + b2)
    again = np.tanh(above @ v.T + c)
    d = (again - h) * (1 - again**2) * share[:, None]
    oracle.assert_close(found.state[0][0][0], fnn.DenseParams(v - 0.5 * d.T @ above, c - 0.5 * d.sum(axis=0)), 1e-12)


def drawn(by):
    """The mean over 300 directions is the gradient, within 5 standard errors; no direction is in it twice."""

    def check():
        own, params, batch = case(fnn.mlp((3, 2), fnn.Tanh()), (2,))
        flat = lambda tree: np.concatenate([leaf.ravel() for leaf in trees.leaves(tree)])
        wanted, rule = backpropagated(own, params, batch)[1], rules.ForwardGradient(by)
        found = [rule.gradient(own, params, (), batch, rules.Keys(None, key(seed=seed))).grads for seed in range(300)]
        draws = np.stack([flat(grads) for grads in found])
        error = abs(draws.mean(axis=0) - flat(wanted))
        assert (error <= 5 * draws.std(axis=0) / np.sqrt(300) + 1e-12).all()
        assert draws[:, :9].std(axis=0).min() > 0, "it draws"
        if by == "activities":
            oracle.assert_close(found[0][2], wanted[2], 1e-12)

    return check


SETTLING = fnn.Serial((fnn.Hopfield((D(4), fnn.Tanh(), D(3), fnn.Tanh()), steps=60), D(2)))


def settled():
    """With a small nudge the gradient is that of the free minimum, to a hundredth."""
    own, params, batch = case(SETTLING, (3,), PENALTY)
    params = trees.map(lambda p: 0.6 * p, params)
    found = output(rules.EquilibriumPropagation(0.05, 60), own, params, batch, ()).grads
    oracle.assert_close(found, backpropagated(own, params, batch)[1], 1e-2)


@dataclass(frozen=True)
class Even(fnn.Goodness):
    def counts(self, k):
        return True


EVEN = Even((D(4), fnn.Tanh(), D(3), fnn.Tanh()), classes=3)
TRYING = fnn.Goodness((D(4), fnn.Tanh(), D(3), fnn.Tanh()), classes=3)


def drawn_alike():
    """Exact predictive coding is backpropagation with the same noise, in nested networks too."""
    net = fnn.Serial((fnn.Serial((D(4), fnn.Tanh(), fnn.Dropout(0.5))), fnn.Serial((D(4), fnn.Dropout(0.5), D(3)))))
    own, params, batch = case(net)
    keys = rules.Keys(key(seed=3), key(seed=1))
    found = rules.PredictiveCoding(1.0, 2, exact=True).gradient(own, params, (), batch, keys)
    wanted = fnn.backpropagation.differentiate(own, params, batch, keys.net)
    oracle.assert_close((found.value, found.grads), wanted, 1e-12)


def told_apart(hard=False):
    """The cost of each stage and its gradient, written a second time; and the scores are mean squares."""
    params, rng, n = moved(TRYING, (2,)), np.random.default_rng(0), 60 if hard else 5
    x, y, weights = rng.normal(size=(n, 2)), rng.integers(0, 3, n), rng.integers(1, 4, n).astype(float)
    own = rules.Problem(TRYING, fnn.SoftmaxCrossEntropy(), PENALTY)
    found = output(rules.ForwardForward(0.7, 1.5, hard), own, params, rules.Batch(x, y, weights, n), ())
    wrong = (y + 1 + fnn.random.bits(key(seed=1), (n,)) % 2) % 3
    if hard:  # the one label or the other, by the last stage
        each = TRYING.activities(params, x, np.tile(np.arange(3), (n, 1)))[0][1]
        p, low, high = np.exp((each**2).sum(axis=2) / 1.5), (y + 1) % 3, (y + 2) % 3
        first = p[np.arange(n), low] / (p[np.arange(n), low] + p[np.arange(n), high])
        wrong = np.where(1 - fnn.random.uniform(key(seed=1), (n,)) <= first, low, high)
    share, value, grads = weights / weights.sum(), PENALTY.value(params), [(), (), (), ()]
    h = [np.concatenate([x, np.eye(3)[c]], axis=1) for c in (y, wrong)]
    for at in (0, 2):
        w, b = params[at]
        unit = [a / np.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-6) for a in h]
        h = [np.tanh(a @ w.T + b) for a in unit]
        z = [sign * ((a**2).sum(axis=1) - 0.7 * len(b)) / 1.5 for a, sign in zip(h, (1, -1), strict=True)]
        value += sum(share @ np.log1p(np.exp(-v)) for v in z) / 2
        d = [
            -sign * (share / (1 + np.exp(v)))[:, None] * a * (1 - a**2) / 1.5
            for v, a, sign in zip(z, h, (1, -1), strict=True)
        ]
        grads[at] = fnn.DenseParams(sum(e.T @ a for e, a in zip(d, unit, strict=True)), sum(e.sum(axis=0) for e in d))
    oracle.assert_close(found.grads, trees.map(np.add, tuple(grads), PENALTY.gradient(params)), 1e-12)
    np.testing.assert_allclose(found.value, value)
    scores = TRYING.apply(params, x)[np.arange(n), y]
    np.testing.assert_allclose(scores, (h[0] ** 2).mean(axis=1))


def angled():
    g = fnn.DenseParams(np.array([[1.0, 0.0]]), np.array([0.0]))
    h = fnn.DenseParams(np.array([[np.sqrt(3), 0.0]]), np.array([1.0]))
    found = angles.alignment(D(1), g, h)
    np.testing.assert_allclose(list(found.values()), [30.0])


def unfolded(layer, shape):
    return lambda: check_layer(layer, shape, method="complex", on="numpy")


HOPFIELD = fnn.Hopfield((D(3), fnn.Tanh(), D(2, initializer=fnn.Normal(0.02)), fnn.Tanh()), steps=24)
FEEDBACK = fed_back(rules.FeedbackAlignment(), lambda params, state: state[1:])
DIRECT = fed_back(rules.DirectFeedbackAlignment(), lambda params, state: state, apart=True)
SIGNS = fed_back(rules.SignSymmetry(0.5), of_signs)
KOLEN = fed_back(rules.KolenPollack(0.1, 0.5), kolen_pollack, after=lambda state: trees.map(lambda d: 0.9 * d, state))


# ---- the table -------------------------------------------------------------------------------------------------------


def with_fields(**change):
    """A rule whose gradient is that of another one: its fields changed, each by a function."""
    return lambda f: lambda self, *args: f(self._replace(**{n: g(getattr(self, n)) for n, g in change.items()}), *args)


HEART = importlib.import_module("fnn.backpropagation")
forget = instead(lambda penalty, params, value, grads: (value, grads))

FAULTS = [
    Fault("matrices not replaced", chain, "with_matrices", instead(lambda params, matrices: params), FEEDBACK),
    Fault("matrices in the opposite order", chain, "with_matrices",
          lambda f: lambda params, matrices: f(params, list(matrices)[::-1]), FEEDBACK),
    Fault("other matrices on the way forward too", feedback, "fed_back",
          instead(lambda problem, params, matrices, batch, key: HEART.differentiate(
              problem, chain.with_matrices(params, matrices), batch, key)), FEEDBACK),
    Fault("signs at their full size", rules.SignSymmetry, "gradient", with_fields(scale=lambda s: 1.0), SIGNS),
    Fault("a difference that never shrinks", rules.KolenPollack, "gradient", with_fields(decay=lambda d: 0.0), KOLEN),
    Fault("B in place of B − W", rules.KolenPollack, "init", instead(
          lambda self, problem, params, key: feedback.random_matrices(params, key, self.scale)), KOLEN),
    Fault("the error by way of the weights", feedback, "direct", instead(
          lambda net, params, matrices, residuals, dy: net.propagate(params, residuals, dy, False)), DIRECT),
    Fault("the first layer fed as well", feedback, "fed", result(lambda places: places[1:] + places[:1]), DIRECT),
    Fault("values that move the wrong way", rules.PredictiveCoding, "gradient", with_fields(rate=lambda r: -r), coded),
    Fault("a step too few", rules.PredictiveCoding, "gradient", with_fields(steps=lambda n: n - 1), coded_exactly),
    Fault("the nudge not divided out", predictive, "gradient", lambda f: lambda problem, params, top, *rest: f(
          problem, params, top._replace(shares=top.shares * 0.5), *rest), coded),
    Fault("predictions held fixed", rules.PredictiveCoding, "gradient", with_fields(exact=lambda e: True), coded),
    Fault("penalty forgotten", chain, "penalised", forget, coded),
    Fault("weights forgotten", chain, "at_output", result(
          lambda top: top._replace(shares=0 * top.shares + top.shares.mean())), coded),
    Fault("inverses without activations", targets, "inverses", result(
          lambda nets: [fnn.Serial((*net.layers[:1], fnn.Identity())) for net in nets]), targeted),
    Fault("inverses trained without noise", rules.TargetPropagation, "gradient",
          with_fields(noise=lambda s: 0.0), targeted),
    Fault("targets not divided by their step", targets, "gradient", lambda f: lambda *args: f(
          *args[:-1], [*(0.2 * d for d in args[-1][:-1]), args[-1][-1]]), targeted),
    Fault("directions of one sign", fnn.random, "normal", result(abs), drawn("activities")),
    Fault("directions twice as long", forward, "along_weights", result(
          lambda pair: (pair[0], trees.map(lambda g: 4 * g, pair[1]))), drawn("weights")),
    Fault("the last map by a direction too", forward, "along_units", instead(
          lambda *args: forward.along_weights(*args)), drawn("activities")),
    Fault("nothing drawn", forward, "maps", instead(lambda params: []), drawn("activities")),
    Fault("a nudge in one direction only", equilibrium, "products", lambda f: lambda net, params, x, s, scale: f(
          net, params, x, [abs(v) for v in s], scale), settled),
    Fault("no nudge", energies.Hopfield, "settled", lambda f: lambda self, params, x, values=None, *_: f(
          self, params, x, values), settled),
    Fault("one sweep when nudged", rules.EquilibriumPropagation, "gradient", with_fields(steps=lambda n: 1), settled),
    Fault("what is above drives nothing", energies.Hopfield, "_from_above", times(0),
          unfolded(HOPFIELD, (2,))),
    Fault("half of a Hopfield gradient", energies, "_both", instead(lambda f, g: f), unfolded(HOPFIELD, (2,))),
    Fault("a threshold of the other sign", rules.ForwardForward, "gradient",
          with_fields(threshold=lambda t: -t), told_apart),
    Fault("a temperature of 1", rules.ForwardForward, "gradient",
          with_fields(temperature=lambda t: 1.0), told_apart),
    Fault("hard labels that are not", rules.ForwardForward, "_mistaken",
          instead(rules.ForwardForward._any_other), lambda: told_apart(hard=True)),
    Fault("the right label taken for wrong", rules.ForwardForward, "_mistaken",
          lambda f: lambda self, net, params, x, y, key: f(self, net, params, x, y + 1, key),
          lambda: told_apart(hard=True)),
    Fault("hard labels by all stages", rules.ForwardForward, "_mistaken",
          lambda f: lambda self, net, params, x, y, key: f(self, EVEN, params, x, y, key),
          lambda: told_apart(hard=True)),
    Fault("keys by place, not by nesting", chain, "keys_of",
          instead(lambda net, key: tuple(fnn.random.fold_in(key, i) for i in range(len(chain.links(net))))),
          drawn_alike),
    Fault("no noise at all", chain, "keys_of", instead(lambda net, key: (None,) * len(chain.links(net))), drawn_alike),
    Fault("penalty forgotten", goodness, "penalised", forget, told_apart),
    Fault("lengths passed on", energies.Goodness, "_length", result(np.ones_like), told_apart),
    Fault("the first stage counted", energies.Goodness, "counts", instead(lambda self, k: True), told_apart),
    Fault("angles without biases", angles, "angle", lambda f: lambda g, h: f(g[:1], h[:1]), angled),
    Fault("angles in radians", angles, "angle", result(np.radians), angled),
]  # fmt: skip

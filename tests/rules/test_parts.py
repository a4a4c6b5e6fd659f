"""A batch in parts gives what the whole batch gives, for ragged batches and any weights, in less memory."""

import numpy as np
import pytest
from helpers import key, moved
from helpers_training import same, temporary

import fnn
from fnn import errors, rules, trees
from fnn.backpropagation import Problem
from fnn.rules import Backprop, Batch, InParts, Keys, KFac, Private

NET, LOSS, N = fnn.mlp((4, 3), fnn.Tanh()), fnn.SoftmaxCrossEntropy(), 10
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(N, 5)), RNG.integers(0, 3, N), RNG.uniform(0, 2, N)
PARAMS, PENALTY, KEYS = moved(NET, (5,)), fnn.L2(0.1), Keys(None, key())
RULES = {
    "backprop": Backprop(),
    "private": Private(0.5, 1.0),
    "K-FAC": KFac(kind="ggn", samples=None, factors_every=2),
    "K-FAC, empirical": KFac(kind="empirical", samples=None),
}
WEIGHTS = {  # by name: weights, and a denominator
    "none": (None, None),
    "any": (W, None),
    "a part without": (np.where(np.arange(N) < 5, 0, W), None),
    "none at all": (np.zeros(N), None),
    "signed": (W - 1, 10.0),
    "huge": (W * 1e300, None),
}


def output(rule, weights, denominator=None, net=NET, params=PARAMS, size=N):
    problem = Problem(net, LOSS, PENALTY, denominator, (5,))
    state = rule.init(problem, params, None)
    for _ in range(2):  # K-FAC measures in the first step alone
        result = rule.gradient(problem, params, state, Batch(X, Y, weights, size), KEYS)
        state = result.state
    return result


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", RULES)
def test_parts_give_what_the_whole_batch_gives(name, weights):
    """Within rounding in float64: ten examples in parts of 4, 4 and 2, in halves, and one by one."""
    w, denominator = WEIGHTS[weights]
    if name == "private":  # of the examples, those that the sampler drew
        w = None if w is None else (w > 1).astype(float)
    wanted = output(RULES[name], w, denominator)
    for size in (4, 5, 1):
        found = output(InParts(RULES[name], size), w, denominator)
        same(found.grads, wanted.grads, 1e-12)
        same((found.value, found.state, found.metrics), (wanted.value, wanted.state, wanted.metrics), 1e-11)
    undivided = output(InParts(RULES[name], N), w, denominator)
    same(undivided, wanted, 0)


def test_runs_are_the_same_within_rounding_and_say_what_the_rule_says():
    for rule in (Private(1.0, 0.5), Backprop()):
        own = InParts(rule, 4)
        states = [fnn.init_state(NET, fnn.Adam(0.01), key(), (5,), rule=r) for r in (rule, own)]
        (a, history), (b, theirs) = (fnn.train(NET, LOSS, s, (X, Y), epochs=2, batch_size=7) for s in states)
        same((a.params, history), (b.params, theirs), 1e-5)
        names = "sampling", "weighted", "private", "draws"
        defaults = "shuffled", True, False, True
        assert [getattr(own, n) for n in names] == [getattr(rule, n, d) for n, d in zip(names, defaults, strict=True)]


def test_sums_are_wider_than_half_precision_and_gradients_keep_their_dtype():
    params = trees.map(lambda p: p.astype(np.float16), PARAMS)
    found, wanted = (output(rule, None, params=params).grads for rule in (InParts(Backprop(), 1), Backprop()))
    assert {g.dtype for g in trees.leaves(found)} == {np.dtype(np.float16)}
    same(found, wanted, 2e-3)


def test_each_part_draws_its_own_numbers():
    net = fnn.Serial((fnn.Dropout(0.5), *NET.layers))
    problem, params = Problem(net, LOSS), ((), *PARAMS)
    whole = lambda keys, x, y: fnn.value_and_grad(net, LOSS, denominator=N)(params, x, y, key=keys)
    found = InParts(Backprop(), 5).gradient(problem, params, (), Batch(X, Y, None, N), Keys(key(), None))
    halves = [whole(fnn.random.fold_in(key(), k), X[s], Y[s]) for k, s in enumerate((slice(0, 5), slice(5, 10)))]
    same((found.value, found.grads), trees.map(lambda a, b: a + b, *halves), 1e-12)


def test_what_cannot_be_computed_in_parts_is_refused():
    for rule, message in (
        (InParts(rules.NaturalGradient(), 4), r"InParts\.rule: expected a rule with methods sums and from_sums"),
        (InParts(Private(np.inf, 1.0), 4), r"Private\.max_norm: expected a finite number"),
        (InParts(Backprop(), 0), r"InParts\.size"),
    ):
        with pytest.raises(errors.FnnError, match=message):
            fnn.init_state(NET, fnn.Sgd(0.1), key(), (5,), rule=rule)
    state = fnn.init_state(fnn.Dense(1), fnn.Sgd(0.1), key(), (5,), rule=InParts(Backprop(), 4))
    with pytest.raises(errors.KindError, match="expected a mean over the examples"):
        fnn.make_step(fnn.Dense(1), fnn.RootMeanSquaredError())(state, (X, X[:, :1]))


def test_a_compiled_step_needs_the_memory_of_one_part_and_is_the_one_of_numpy(needs_jax):
    net, n = fnn.mlp((64, 64, 3), fnn.Tanh()), 2050
    x, y = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32), np.zeros(n, np.int32)

    def stepped(backend, rule):
        state = fnn.init_state(net, fnn.Sgd(0.1), key(backend), (5,), rule=rule)
        return state, fnn.make_step(net, LOSS)(state, (x, y))

    (state, (after, metrics)), (plain, (_, of_whole)) = (stepped("jax", r) for r in (InParts(Backprop(), 256), None))
    wanted, theirs = stepped("numpy", InParts(Backprop(), 256))[1]
    same((after.params, metrics), (wanted.params, theirs), 1e-5)
    same(metrics, of_whole, 1e-5)
    step = fnn.training.step._step.compiled
    less, more = (temporary(step, s, None, None, x, y, None, net=net, loss=LOSS) for s in (state, plain))
    assert less < 0.25 * more

"""Forward-forward is the gradient of each stage's own cost."""

import numpy as np
import pytest
from helpers import key, moved
from helpers_training import rule_output

import fnn
from fnn import rules

D = fnn.Dense


def test_forward_forward_is_the_gradient_of_each_stages_own_cost():
    """Written a second time, stage by stage, by central differences of each stage's cost with its input held."""
    net = fnn.Goodness((D(4), fnn.Tanh(), D(3), fnn.Softplus()), classes=3)
    rng, params = np.random.default_rng(0), moved(net, (2,))
    x, y = rng.normal(size=(5, 2)), rng.integers(0, 3, 5)
    own, batch = rules.Problem(net, fnn.SoftmaxCrossEntropy()), rules.Batch(x, y, None, 5)
    rule = rules.ForwardForward(0.7, 1.5)
    value, grads, *_ = rule_output(rule, own, params, batch)
    wrong = (y + 1 + fnn.random.bits(key(seed=1), (5,)) % 2) % 3
    total = 0
    h = [np.concatenate([x, np.eye(3)[c]], axis=1) for c in (y, wrong)]
    for at, f in ((0, np.tanh), (2, lambda z: np.log1p(np.exp(z)))):
        h = [a / np.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-6) for a in h]

        def cost(w, b, h=h, f=f):
            z = [((f(a @ w.T + b) ** 2).sum(axis=1) - 0.7 * len(b)) / 1.5 for a in h]
            return (np.log1p(np.exp(-z[0])) + np.log1p(np.exp(z[1]))).mean() / 2

        w, b = params[at]
        total += cost(w, b)
        for i in np.ndindex(w.shape):
            step = np.zeros(w.shape)
            step[i] = 1e-6
            difference = (cost(w + step, b) - cost(w - step, b)) / 2e-6
            assert grads[at].w[i] == pytest.approx(difference, abs=1e-8)
        h = [f(a @ w.T + b) for a in h]
    assert value == pytest.approx(total)

"""Forward-forward is the gradient of each stage's own cost."""

import numpy as np
import pytest
from helpers import key, moved
from helpers_training import rule_output

import fnn
from fnn import rules

D = fnn.Dense


def drawn(net, params, x, y, hard, n=2000):
    """The wrong labels of one input, drawn n times."""
    batch = rules.Batch(np.repeat(x, n, axis=0), np.repeat(y, n), None, n)
    rule, labels = rules.ForwardForward(0.7, 1.5, hard), []
    own = rules.Problem(net, fnn.SoftmaxCrossEntropy())
    with pytest.MonkeyPatch.context() as patch:
        seen = fnn.Goodness.activities
        patch.setattr(fnn.Goodness, "activities", lambda *args: labels.append(args[-1]) or seen(*args))
        rule_output(rule, own, params, batch)
    true, wrong = labels[-1].T
    assert (true == y).all()
    return np.bincount(wrong, minlength=net.classes) / n


def test_wrong_labels_are_drawn_as_the_network_takes_them_for_right_or_all_alike():
    """Within four standard errors of the probabilities, written a second time; the true label is never drawn."""
    net = fnn.Goodness((D(4), fnn.Tanh(), D(6), fnn.Softplus(), D(3), fnn.Softplus()), classes=5)
    params = fnn.trees.map(lambda p: 2 * p, moved(net, (2,)))
    x = np.random.default_rng(1).normal(size=(1, 2))
    outputs, _, _ = net.activities(params, x, np.arange(5)[None])
    p = np.exp(sum((a[0] ** 2).sum(axis=1) for a in outputs[1:]) / 1.5)
    p[2] = 0
    p /= p.sum()
    assert p.max() > 2 * np.delete(p, 2).min(), "labels that differ"
    for hard, wanted in ((True, p), (False, np.where(np.arange(5) == 2, 0, 0.25))):
        found = drawn(net, params, x, np.array([2]), hard)
        assert found[2] == 0
        assert np.all(abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / 2000))


def test_where_the_network_is_far_surer_of_the_true_label_a_wrong_one_is_drawn_all_the_same():
    net = fnn.Goodness((D(3, bias=False),), classes=3)
    params = fnn.trees.map(lambda p: 0 * p, net.init(key(), (2,)))
    w = params[0].w.copy()
    w[:, 2] = 3e3  # of the label 0
    found = drawn(net, (params[0]._replace(w=w),), np.zeros((1, 2)), np.array([0]), True, 200)
    assert found[0] == 0
    assert found[1] + found[2] == 1


@pytest.mark.parametrize("score", [np.nan, np.inf, 1e30, 0.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_true_label_is_never_drawn_whatever_the_scores(score, classes):
    net = fnn.Goodness((D(3, bias=False), fnn.Relu()), classes=classes)
    params = (fnn.DenseParams(np.full((3, 2 + classes), score, np.float32), ()), ())
    for y in range(classes):
        with np.errstate(all="ignore"):
            found = drawn(net, params, np.ones((1, 2), np.float32), np.array([y]), True, 50)
        assert found[y] == 0
        assert found.sum() == 1


@pytest.mark.parametrize("hard", [True, False])
def test_labels_of_any_integer_dtype_are_taken_where_nothing_is_promoted(hard, needs_jax):
    jax, net, n = fnn.backend.jax, fnn.Goodness((D(3), fnn.Relu()), classes=200), 4
    own, rule = rules.Problem(net, fnn.SoftmaxCrossEntropy()), rules.ForwardForward(hard=hard)

    def value(x, y, k):
        return rule.gradient(own, net.init(k, (2,)), (), rules.Batch(x, y, None, n), rules.Keys(None, k)).value

    with jax.numpy_dtype_promotion("strict"):
        for dtype in (np.uint8, np.int16, np.int32):
            assert jax.eval_shape(value, np.ones((n, 2), np.float32), np.zeros(n, dtype), key("jax")).shape == ()


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

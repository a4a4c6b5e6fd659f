"""Target propagation is backpropagation through transposes, corrects its inverses, and trains them."""

import numpy as np
import pytest
from helpers import key
from helpers_training import rule_case, rule_output, same

import fnn
from fnn import errors, rules, trees

D = fnn.Dense
NET = fnn.Serial((fnn.Scale(0.5), fnn.mlp((5, 4, 4, 3), fnn.Tanh())))


def test_target_propagation_through_inverses_that_are_transposes_is_backpropagation():
    """Of orthogonal matrices without activations: gₖ = Wₖᵀ is both. To rounding, 1e-10, as δ is divided by η̂."""
    net = fnn.mlp((4, 4, 4, 3), fnn.Identity())
    own, params, batch, _ = rule_case(net, (4,))
    turn = lambda seed: np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    params = rules.chain.with_matrices(params, [turn(0), turn(1), turn(2), params[6].w])
    wanted = fnn.backpropagation.differentiate(own, params, batch)[1]
    backs = tuple((fnn.DenseParams(params[i].w.T, np.zeros(4)), ()) for i in (2, 4))
    rule = rules.TargetPropagation(1e-2)
    output = rule_output(rule, own, params, batch, (backs, rule.optimizer.init(backs)))
    same(output.grads, wanted, 1e-10)


def test_target_propagation_corrects_what_its_inverses_get_wrong():
    """Where the target is the output itself, so are all targets below, however bad the inverses are."""
    own, params, batch, _ = rule_case(NET, (6,))
    rule = rules.TargetPropagation(0.1)
    state = rule.init(own, params, key())
    settled = batch._replace(y=NET.apply(params, batch.x))
    for grad in trees.leaves(rule_output(rule, own, params, settled, state).grads):
        np.testing.assert_allclose(grad, 0, atol=1e-15)


def test_an_inverse_has_the_activations_that_follow_the_matrix_below():
    net = fnn.Serial((fnn.Relu(), D(5), fnn.Tanh(), fnn.PRelu(), D(4), D(3)))
    (inverse,) = rules.targets.inverses(rules.chain.stages(None, net, net.init(key(), (6,))))
    assert inverse == fnn.Serial((D(5), fnn.Tanh(), fnn.PRelu()))


NO_OPTIMIZER = {
    "a class": (fnn.Sgd, "expected an optimizer, got the class"),
    "nothing": (None, "methods init and update, such as fnn.Adam"),
    "a number": (0.1, "methods init and update, such as fnn.Adam"),
    "one that needs the cost": (fnn.Lbfgs(), "expected none that needs value and value_and_grad_fn within Target"),
    "within": (fnn.ClipByValue(fnn.Lbfgs(), 1.0), "expected none that needs value and value_and_grad_fn within Target"),
}


@pytest.mark.parametrize("name", NO_OPTIMIZER)
def test_inverses_need_an_optimizer_of_gradients(name):
    optimizer, message = NO_OPTIMIZER[name]
    with pytest.raises(errors.KindError, match=rf"TargetPropagation\.optimizer: .*{message}"):
        fnn.init_state(NET, fnn.Sgd(0.1), key(), (6,), rule=rules.TargetPropagation(optimizer=optimizer))


def test_inverses_learn_to_invert():
    """The mean square of gₖ(fₖ(h)) − h falls to less than a fifth, of inverses trained on 200 batches."""
    own, params, batch, _ = rule_case(NET, (6,))
    rule = rules.TargetPropagation(0.1, noise=0.05, optimizer=fnn.Momentum(0.1))
    state = rule.init(own, params, key())
    chain = rules.chain.stages(rule, NET, params)
    h = rules.chain.run(chain, batch.x)[0]
    nets = rules.targets.inverses(chain)
    wrong = lambda state: [((g.apply(p, h[k + 1]) - h[k]) ** 2).mean() for k, (g, p) in enumerate(zip(nets, state[0]))]  # noqa: B905
    before = wrong(state)
    for t in range(200):
        state = rule_output(rule, own, params, batch, state, seed=t).state
    assert all(b < a / 5 for a, b in zip(before, wrong(state), strict=True))

"""Every learning rule keeps the promises of a run: one table, and each promise over it."""

import numpy as np
import pytest
from helpers import THOROUGH, blobs, key
from helpers_training import compilations, same

import fnn
from fnn import errors, rules, trees

D, TANH, LOSS = fnn.Dense, fnn.Tanh(), fnn.SoftmaxCrossEntropy()
MLP = fnn.Serial((fnn.Scale(0.3), fnn.Dropout(0.1), fnn.mlp((7, 6, 3), TANH)))
SMALL = fnn.Serial((fnn.Scale(0.3), fnn.Dropout(0.1), fnn.mlp((5, 3), TANH)))
SETTLING = fnn.Serial((fnn.Hopfield((D(7), TANH, D(5), TANH), steps=4), D(3)))
TRYING = fnn.Serial((fnn.Scale(0.3), fnn.Goodness((D(7), TANH, D(6), TANH), classes=3)))

EVERY = {  # by name: the network, and the rule as a function of one of its numbers
    "feedback alignment": (MLP, rules.FeedbackAlignment),
    "direct feedback alignment": (MLP, rules.DirectFeedbackAlignment),
    "sign symmetry": (MLP, rules.SignSymmetry),
    "Kolen-Pollack": (MLP, lambda c: rules.KolenPollack(decay=0.02 * c)),
    "predictive coding": (MLP, lambda c: rules.PredictiveCoding(0.2 * c, steps=3)),
    "predictive coding, exact": (MLP, lambda c: rules.PredictiveCoding(0.5 * c, 3, exact=True)),
    "target propagation": (MLP, lambda c: rules.TargetPropagation(step=0.1 * c)),
    "equilibrium propagation": (SETTLING, lambda c: rules.EquilibriumPropagation(0.5 * c, steps=3)),
    "forward-forward": (TRYING, rules.ForwardForward),
    "forward-forward, hard": (TRYING, lambda c: rules.ForwardForward(c, 5.0, hard=True)),
    "forward gradients by activities": (MLP, lambda c: rules.ForwardGradient()),
    "forward gradients by weights": (MLP, lambda c: rules.ForwardGradient("weights")),
    "K-FAC": (SMALL, lambda c: rules.KFac(0.3 * c, max_norm=3.0, every=3)),
    "natural gradient": (MLP, lambda c: rules.NaturalGradient(0.3 * c)),
    "aligned": (MLP, lambda c: rules.Aligned(rules.FeedbackAlignment(c))),
}
DATA = blobs(60)
NUMBERS = np.float32([1.0, 0.8])


def begin(name, k, c, dtype=np.float32):
    net, rule = EVERY[name]
    rate = 0.002 if "weights" in name else 0.02  # whose steps are far longer than the gradient
    return fnn.init_state(net, fnn.Momentum(rate), k, (6,), dtype, rule=rule(c))


def train(name, state, **how):
    return fnn.train(EVERY[name][0], LOSS, state, DATA, **({"steps": 100, "batch_size": 16} | how))


# The default run compiles two kinds of rules.
ON_JAX = EVERY if THOROUGH else ("direct feedback alignment", "K-FAC")


@pytest.mark.parametrize("name", ON_JAX)
def test_each_lane_of_a_sweep_is_the_run_alone_on_the_other_backend_and_nothing_is_compiled_twice(name, needs_jax):
    """The parameters after 100 steps within 1e-4: rounding in float32, which a hundred steps make larger."""
    run = lambda k, c: train(name, begin(name, k, c))
    keys = fnn.random.split(key("jax"), 2)
    states, history = fnn.sweep(run, keys, NUMBERS)
    for i, c in enumerate(NUMBERS):
        alone, steps = run(fnn.random.split(key(), 2)[i], c)
        lane = lambda leaf, i=i: leaf[i]
        same(trees.map(lane, (states.params, states.rule_state)), (alone.params, alone.rule_state), 1e-4)
        np.testing.assert_allclose(history["loss"][i], steps["loss"], rtol=1e-3, atol=1e-4)
        assert steps["loss"][-20:].mean() < steps["loss"][:20].mean(), "it learns"
        assert set(history) == set(steps)
    with compilations() as compiled:
        fnn.sweep(run, keys, NUMBERS * np.float32(0.9))
    assert compiled == []


@pytest.mark.parametrize("name", EVERY)
def test_a_run_that_is_saved_and_loaded_midway_is_the_same_to_the_byte(name, tmp_path):
    state = begin(name, key(), np.float32(0.9))
    whole, _ = train(name, state, steps=9)
    half, _ = train(name, state, steps=5)
    fnn.checkpoints.save(tmp_path / "run.npz", half)
    again, _ = train(name, fnn.checkpoints.load(tmp_path / "run.npz", backend="numpy").tree, steps=4)
    assert again.rule == state.rule
    same(again._replace(rule=()), whole._replace(rule=()))


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_filled_up_with_examples_of_weight_0_counts_them_nothing(name):
    """By the first 20 examples alone, or by 24 of which 4 weigh nothing and hold an infinite value."""
    net, rule = EVERY[name]
    state = begin(name, key(), np.float32(1.0), np.float64)
    problem, keys = rules.Problem(net, LOSS), rules.Keys(None, key(seed=1))
    x, y = (np.asarray(a)[:24] for a in DATA)
    draw = fnn.random.normal(key(seed=1), (24,))  # what is drawn for each example is longer, not other
    assert (draw[:20] == fnn.random.normal(key(seed=1), (20,))).all()
    spoilt = np.where(np.arange(24)[:, None] < 20, x, 1e3)
    weights = np.where(np.arange(24) < 20, 1.0, 0.0)
    rule = rules.base.unwrapped(state.rule)
    outputs = [
        rule.gradient(problem, state.params, state.rule_state, rules.Batch(a, y, weights, 24), keys)
        for a in (x, spoilt)
    ]
    same(outputs[1].grads, outputs[0].grads, 1e-12)
    np.testing.assert_allclose(outputs[1].value, outputs[0].value, rtol=1e-12)


# Those in which the penalty's gradient is divided by the curvature too have a test of their own in test_kfac.py.
ADDING = [name for name in EVERY if name not in ("K-FAC", "natural gradient")]


@pytest.mark.parametrize("name", ADDING)
def test_a_penalty_is_added_to_the_value_and_to_the_gradient(name):
    net, _ = EVERY[name]
    state, penalty = begin(name, key(), np.float32(1.0), np.float64), fnn.L2(0.3)
    rule, batch = rules.base.unwrapped(state.rule), rules.Batch(*DATA, None, 60)
    plain, penalised = (
        rule.gradient(rules.Problem(net, LOSS, p), state.params, state.rule_state, batch, rules.Keys(None, key()))
        for p in (None, penalty)
    )
    same(penalised.grads, trees.map(np.add, plain.grads, penalty.gradient(state.params)), 1e-12)
    np.testing.assert_allclose(penalised.value, plain.value + penalty.value(state.params))


REFUSED = {  # a rule, a network that it cannot train, and what is said of it
    "one layer": (rules.PredictiveCoding(), D(3), (6,), errors.KindError, "at least two layers that have matrices"),
    "no chain": (rules.TargetPropagation(), fnn.Residual(MLP), (3,), errors.KindError, "expected a Serial"),
    "images": (
        rules.TargetPropagation(),
        fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Flatten(), D(3))),
        (3, 3, 1),
        None,
        "",
    ),
    "images within": (
        rules.TargetPropagation(),
        fnn.Serial((fnn.Conv(2, (2, 2)), fnn.Conv(2, (2, 2)), fnn.Flatten(), D(3))),
        (3, 3, 1),
        errors.ShapeError,
        r"stages that map vectors to vectors, got shape \(2, 2, 2\)",
    ),
    "nothing that settles": (rules.EquilibriumPropagation(), MLP, (6,), errors.KindError, "one fnn.Hopfield"),
    "learning below": (
        rules.EquilibriumPropagation(),
        fnn.Serial((D(4), *SETTLING.layers)),
        (6,),
        errors.KindError,
        "nothing before it that learns",
    ),
    "a layer on top": (
        rules.ForwardForward(),
        fnn.Serial((*TRYING.layers, D(3))),
        (6,),
        errors.KindError,
        "Goodness as the last layer",
    ),
    "nothing that tries": (rules.ForwardForward(), MLP, (6,), errors.KindError, "one fnn.Goodness"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_a_rule_cannot_train_is_refused_where_the_run_begins(name):
    rule, net, shape, error, message = REFUSED[name]
    begin = lambda: fnn.init_state(net, fnn.Sgd(0.1), key(), shape, rule=rule)
    if error is None:
        begin()
    else:
        with pytest.raises(error, match=message):
            begin()


WRONG = {
    "a scale of 0": (rules.FeedbackAlignment(0.0), errors.ArgumentError, "FeedbackAlignment.scale"),
    "a decay above 1": (rules.KolenPollack(1.5), errors.ArgumentError, "KolenPollack.decay"),
    "no steps": (rules.PredictiveCoding(steps=0), errors.ArgumentError, "PredictiveCoding.steps"),
    "no nudge": (rules.EquilibriumPropagation(0.0), errors.ArgumentError, "EquilibriumPropagation.nudge"),
    "no damping": (rules.KFac(0.0), errors.ArgumentError, "KFac.damping"),
    "inverses never": (rules.KFac(every=0), errors.ArgumentError, "KFac.every"),
    "samples of the data": (rules.KFac(kind="empirical"), errors.ArgumentError, "KFac.samples: expected None"),
    "another count of positions": (rules.KFac(positions="sum"), errors.ArgumentError, "KFac.positions"),
    "another curvature": (rules.NaturalGradient(kind="hessian"), errors.ArgumentError, "NaturalGradient.kind"),
    "another kind of direction": (rules.ForwardGradient("units"), errors.ArgumentError, "'activities' or 'weights'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_number_out_of_range_is_named(name):
    rule, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        fnn.init_state(MLP, fnn.Sgd(0.1), key(), (6,), rule=rule)


def test_forward_forward_needs_labels():
    state = begin("forward-forward", key(), np.float32(1.0))
    with pytest.raises(errors.KindError, match=r"labels \(N,\), got targets of shape \(5, 3\)"):
        fnn.train(TRYING, fnn.Quadratic(), state, (DATA[0], np.eye(3)[DATA[1]]), steps=1, batch_size=5)

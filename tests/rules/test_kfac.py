"""K-FAC and the natural gradient are the dense solves that they stand for, average as they say, and run anywhere."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from helpers import blobs, key, moved
from helpers_curvature import by_layers, divided, empirical, flat, ggn, matrix_of
from helpers_training import rule_case, rule_output, same
from test_per_example import NETS, SHAPES

import fnn
from fnn import curvature, errors, rules, trees

D, LOSS = fnn.Dense, fnn.SoftmaxCrossEntropy()
LINEAR = fnn.Serial((D(2), fnn.Scale(0.5), D(3, bias=False), D(4)))  # narrower than its output: no block is singular
MLP = fnn.mlp((4, 3), fnn.Tanh())
PENALTY = fnn.L2(0.3)
unbounded = functools.partial(rules.KFac, max_norm=np.inf)
EXACT = {"kind": "ggn", "samples": None}
EMPIRICAL = {"kind": "empirical", "samples": None}


def case(net=MLP, n=6, penalty=None):
    """A problem, its parameters, a batch, and its gradient with the penalty."""
    own, params, batch, _ = rule_case(net, (3,))
    own = own._replace(penalty=penalty)
    batch = rules.Batch(batch.x[:n], batch.y[:n], batch.weights[:n], n)
    return own, params, batch, fnn.backpropagation.differentiate(own, params, batch)[1]


def output(rule, own, params, batch, state=None, seed=1):
    state = rule.init(own, params, key()) if state is None else state
    return rule_output(rule, own, params, batch, state, seed)


# ---- what theory says of K-FAC ---------------------------------------------------------------------------------------


def test_of_a_deep_linear_network_under_squared_error_it_divides_by_the_blocks_of_the_gauss_newton_matrix():
    """To 1e-5: damping of 10⁻¹⁶ enters by its root, over the smallest eigenvalue of a factor."""
    own, params, batch, g = case(LINEAR)
    wanted = by_layers(params, matrix_of(own, params, batch), g)
    oracle.assert_close(output(unbounded(1e-16, **EXACT), own, params, batch).grads, wanted, 1e-5)


def test_of_one_example_it_divides_by_the_blocks_of_the_empirical_fisher_matrix():
    """To 1e-4: damping of 10⁻¹⁰ enters by its root, over the one eigenvalue that is not 0."""
    own, params, batch, g = case(n=1)
    wanted = by_layers(params, matrix_of(own, params, batch, empirical), g)
    oracle.assert_close(output(unbounded(1e-10, **EMPIRICAL), own, params, batch).grads, wanted, 1e-4)


@pytest.mark.parametrize("options", [EXACT, EMPIRICAL, {}], ids=["exact", "empirical", "sampled"])
def test_it_divides_the_gradient_with_its_penalty_by_the_damped_factors_of_the_batch(options):
    own, params, batch, g = case(penalty=PENALTY)
    found = output(unbounded(0.02, **options), own, params, batch)
    make = curvature.kfac(own.net, own.loss, *([*options.values()][:1] or ["fisher"]), samples=None if options else 1)
    blocks = make(params, batch.x, batch.y, batch.weights, sample_key=key(seed=1))
    oracle.assert_close(found.state.factors, blocks, 1e-12)
    oracle.assert_close(found.grads, divided(params, blocks, g, 0.02), 1e-10)
    value, _ = fnn.value_and_grad(own.net, own.loss, penalty=PENALTY)(params, *batch[:3])
    np.testing.assert_allclose(found.value, value)


def test_with_much_damping_it_is_backpropagation():
    own, params, batch, g = case()
    found = output(unbounded(1e12), own, params, batch).grads
    oracle.assert_close(trees.map(lambda d: 1e12 * d, found), g, 1e-5)


def test_positions_are_reduced_where_it_is_said():
    net = fnn.Serial((fnn.Conv(3, (2,)), fnn.Tanh(), fnn.Flatten(), D(2)))
    own, params, batch, _ = rule_case(net, (4, 2))
    for positions in ("expand", "reduce"):
        found = output(unbounded(positions=positions, **EXACT), own, params, batch).state.factors
        wanted = curvature.kfac(net, own.loss, positions=positions)(params, batch.x, batch.y, batch.weights)
        oracle.assert_close(found, wanted, 1e-12)


# ---- averages, inverses, bounds --------------------------------------------------------------------------------------


def batches(count):
    """That many batches of a problem, the last one of fewer examples, all filled up to 6."""
    own, params, batch, _ = case()
    rng = np.random.default_rng(0)
    some = [batch._replace(x=rng.normal(size=batch.x.shape), y=rng.normal(size=batch.y.shape)) for _ in range(count)]
    some[-1] = some[-1]._replace(weights=np.array([1.0, 1, 0, 0, 0, 0]))
    return own, params, some


def test_factors_are_averaged_by_the_weights_of_the_batches_which_decay():
    own, params, some = batches(3)
    rule, state = unbounded(decay=0.7, **EXACT), None
    for batch in some:
        state = output(rule, own, params, batch, state).state
    each = [curvature.kfac(own.net, own.loss)(params, b.x, b.y, b.weights) for b in some]
    counts = np.array([b.weights.sum() * 0.7 ** (2 - t) for t, b in enumerate(some)])
    wanted = trees.map(lambda *m: sum(c * a for c, a in zip(counts, m, strict=True)) / counts.sum(), *each)
    oracle.assert_close(state.factors, wanted, 1e-12)
    np.testing.assert_allclose(state.weight, counts.sum())


def test_inverses_are_those_of_the_first_step_and_each_so_many_steps():
    own, params, some = batches(4)
    rule, state, averages = unbounded(0.02, every=2, **EXACT), None, []
    for t, batch in enumerate(some):
        found = output(rule, own, params, batch, state)
        state = found.state
        averages.append(state.factors)
        g = fnn.backpropagation.differentiate(own, params, batch)[1]
        oracle.assert_close(found.grads, divided(params, averages[t // 2 * 2], g, 0.02), 1e-10)


def test_averages_and_inverses_have_periods_of_their_own():
    own, params, some = batches(4)
    rule, state, seen = unbounded(0.02, every=3, factors_every=2, **EXACT), None, []
    for batch in some:
        state = output(rule, own, params, batch, state).state
        seen.append(state)
    of_factors, of_inverses = (
        [trees.leaves(part)[0] for part in parts] for parts in zip(*(s[:2] for s in seen), strict=True)
    )
    changed = lambda arrays: [not np.array_equal(a, b) for a, b in itertools.pairwise(arrays)]
    assert changed(of_factors) == [False, True, False]
    assert changed(of_inverses) == [False, False, True]


def test_a_batch_without_weight_changes_no_average():
    own, params, batch, _ = case()
    nothing = batch._replace(weights=0 * batch.weights)
    state = output(unbounded(**EXACT), own, params, batch).state
    same(output(unbounded(**EXACT), own, params, nothing, state).state.factors, state.factors, 1e-15)
    first = output(unbounded(), own, params, nothing)
    assert not any(leaf.any() for leaf in trees.leaves((first.grads, first.state.factors)))


def test_negative_weights_count_by_their_magnitude_in_the_curvature():
    own, params, batch, _ = case()
    own = own._replace(denominator=6.0)
    signed = batch._replace(weights=batch.weights * np.array([1, -1, 1, -1, 1, 1]))
    g = fnn.backpropagation.differentiate(own, params, signed)[1]
    found, plain = (output(unbounded(0.02, **EXACT), own, params, b) for b in (signed, batch))
    same(found.state, plain.state, 1e-15)
    oracle.assert_close(found.grads, divided(params, plain.state.factors, g, 0.02), 1e-10)


@pytest.mark.parametrize("make", [rules.KFac, rules.NaturalGradient])
def test_a_direction_is_shortened_to_its_bound_in_the_metric_of_the_curvature(make):
    own, params, batch, g = case()
    free, bounded = (output(make(0.1, max_norm=c), own, params, batch) for c in (np.inf, 0.2))
    length = lambda d: np.sqrt(flat(g) @ flat(d))
    for found in (free, bounded):
        np.testing.assert_allclose(found.metrics["fisher_norm"], length(free.grads))
    c = 0.2 / length(free.grads)
    assert c < 0.9
    oracle.assert_close(bounded.grads, trees.map(lambda d: d * c, free.grads), 1e-12)


# ---- the natural gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [6, 4], ids=["more columns than parameters", "fewer"])
@pytest.mark.parametrize("options", [{}, EMPIRICAL], ids=["exact", "empirical"])
def test_the_natural_gradient_solves_with_the_dense_matrix(options, n):
    """Of 27 parameters, and of 8 for which 6 examples of 2 outputs make 12 columns."""
    own, params, batch, g = case(D(2) if n == 6 else MLP, n, PENALTY)
    matrix = matrix_of(own, params, batch, empirical if options else ggn)
    found = output(rules.NaturalGradient(0.02, **options), own, params, batch)
    wanted = np.linalg.solve(matrix + 0.02 * np.eye(len(matrix)), flat(g))
    oracle.assert_close(flat(found.grads), wanted, 1e-10)


def test_the_natural_gradient_solves_least_squares_in_one_step():
    own, params, batch, _ = case(D(2))
    found = output(rules.NaturalGradient(1e-13), own, params, batch)
    after = trees.map(lambda p, d: p - d, params, found.grads)
    root = np.sqrt(batch.weights)[:, None]
    inputs = np.concatenate([batch.x, np.ones((6, 1))], axis=1)
    wanted = np.linalg.lstsq(root * inputs, root * batch.y, rcond=None)[0].T
    np.testing.assert_allclose(np.concatenate([after.w, after.b[:, None]], axis=1), wanted, rtol=1e-9)


def test_its_length_is_the_divergence_of_a_step_of_that_length():
    """KL = ½ (η √(gᵀd))² for a small step, where damping is small beside the curvature along the gradient."""
    net, rng = D(3), np.random.default_rng(0)
    params, x, y = moved(net, (2,)), rng.normal(size=(40, 2)), rng.integers(0, 3, 40)
    own, batch = rules.Problem(net, LOSS), rules.Batch(x, y, None, 40)
    found = output(rules.NaturalGradient(1e-8), own, params, batch)
    before, after = (
        LOSS.predict(net.apply(trees.map(lambda p, d, r=r: p - r * d, params, found.grads), x)) for r in (0, 1e-3)
    )
    divergence = (before * np.log(before / after)).sum(axis=1).mean()
    np.testing.assert_allclose(divergence, 0.5 * (1e-3 * found.metrics["fisher_norm"]) ** 2, rtol=1e-2)


# ---- any network, any loop -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unknown(fnn.Layer):
    """A layer with a gain that has no axis, and a shift that learns nothing but from a penalty."""

    def init(self, key, input_shape, dtype=np.float32):
        return {"gain": np.ones((), dtype), "shift": np.ones((1, *input_shape), dtype)}

    def forward(self, params, x, key=None):
        return params["gain"] * x + params["shift"], x

    def backward(self, params, x, dy):
        return params["gain"] * dy

    def factors(self, params, x, dy):
        return {"gain": (dy * x).reshape(len(x), -1).sum(axis=1), "shift": None}


def test_what_has_no_curvature_keeps_its_plain_gradient_and_a_number_has_its_square():
    own, params, batch, g = case(fnn.Serial((Unknown(), D(2))), penalty=PENALTY)
    found = output(unbounded(0.01, **EMPIRICAL), own, params, batch)
    np.testing.assert_array_equal(found.grads[0]["shift"], 0.3 * params[0]["shift"])
    matrix = matrix_of(own, params, batch, empirical)
    a, square = np.sqrt(1 / matrix[0, 0]), matrix[0, 0]  # π, as A = 1
    np.testing.assert_allclose(found.grads[0]["gain"], g[0]["gain"] / ((square + 0.1 / a) * (1 + 0.1 * a)))


@pytest.mark.parametrize("name", NETS)
def test_any_network_is_trained(name):
    net, shape = NETS[name], SHAPES.get(name, (5,))
    state = fnn.init_state(net, fnn.Adam(0.01), key(), shape, rule=rules.KFac(0.1, every=2))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (7, *shape)) if name == "symbols" else rng.normal(size=(7, *shape))
    outputs = net.output_shape(shape)
    loss, y = fnn.Quadratic(), rng.normal(size=(7, *outputs))
    after, history = fnn.train(net, loss, state, (x, y), epochs=2, batch_size=5)
    assert np.isfinite(history["loss"]).all()
    frozen = lambda state: [node for node in trees.leaves(state.params, is_leaf=trees.is_fixed) if trees.is_fixed(node)]
    same(frozen(after), frozen(state))


def test_it_runs_in_fit_with_validation():
    net, how = fnn.mlp((8, 3)), {"epochs": 3, "batch_size": 10, "validation": blobs(20)}
    state, history = fnn.fit(net, LOSS, fnn.Momentum(0.03), blobs(), key=key(), rule=rules.KFac(0.1), **how)
    assert set(history) == {"loss", "fisher_norm", "validation_loss"}
    assert history["loss"][-1] < history["loss"][0] / 2
    assert int(state.rule_state.count) == 15


def test_parameters_of_half_precision_have_factors_of_single_precision():
    net = fnn.mlp((8, 3))
    state = fnn.init_state(net, fnn.Momentum(0.03), key(), (6,), np.float16, rule=rules.KFac(0.1))
    state, history = fnn.train(net, LOSS, state, blobs(), epochs=3, batch_size=10)
    assert {leaf.dtype for leaf in trees.leaves(state.rule_state.factors)} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in trees.leaves(state.params)} == {np.dtype(np.float16)}
    assert history["loss"][-5:].mean() < history["loss"][:5].mean() / 2


REFUSED = {
    "no likelihood": (rules.KFac(), fnn.Hinge(), "expected a cost with a `sample`"),
    "no mean": (rules.KFac(), fnn.RootMeanSquaredError(), "expected a mean over the examples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cost_without_such_a_curvature_is_refused(name):
    rule, loss, message = REFUSED[name]
    state = fnn.init_state(MLP, fnn.Sgd(0.1), key(), (3,), rule=rule)
    with pytest.raises(errors.FnnError, match=message):
        fnn.train(MLP, loss, state, (np.ones((4, 3)), np.ones((4, 3))), steps=1, batch_size=2)

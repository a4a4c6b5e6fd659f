"""Private training samples, clips and adds noise as it says, and its accounting agrees with what is known."""

import math
import sys

import numpy as np
import pytest

import fnn
from fnn import errors, per_example, privacy, trees
from fnn.backend import jax

NET, LOSS = fnn.mlp((5, 3), activation=fnn.Tanh()), fnn.SoftmaxCrossEntropy()
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)).astype(np.float32), RNG.integers(0, 3, 40)
HOW = {"steps": 3, "batch_size": 10, "max_norm": 0.5, "noise_multiplier": 1.0}
BACKENDS = ["numpy"] if jax is None else ["numpy", "jax"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def begin(backend, net=NET, optimizer=None, seed=0, input_shape=(4,)):
    return fnn.init_state(net, optimizer or fnn.Sgd(0.1), fnn.random.key(seed, backend=backend), input_shape)


def run(state, net=NET, data=(X, Y), loss=LOSS, **how):
    return privacy.train_private(net, loss, state, data, **(HOW | how))


def near(a, b, tolerance):
    for p, q in zip(trees.leaves(a), trees.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(p), np.asarray(q), rtol=tolerance, atol=tolerance)


@backends
def test_without_noise_and_bound_all_examples_are_ordinary_training(backend):
    state = begin(backend, optimizer=fnn.Adam(0.01))
    private, history = run(state, steps=5, batch_size=40, max_norm=math.inf, noise_multiplier=0.0)
    ordinary, _ = fnn.train(NET, LOSS, state, (X, Y), epochs=5, batch_size=40, shuffle=False)
    near(private.params, ordinary.params, 1e-6)
    assert (np.asarray(history["size"]) == 40).all()
    assert int(private.step) == 5


@backends
@pytest.mark.parametrize("net", [NET, fnn.Serial((fnn.Dropout(0.5), *NET.layers))], ids=["mlp", "dropout"])
def test_a_step_is_the_clipped_sum_of_the_sampled_examples_over_the_expected_size(net, backend):
    """And dropout draws for the whole room of the batch, of which the examples are the first."""
    state, room = begin(backend, net, fnn.Sgd(1.0)), 40
    for t in range(2):
        after, history = run(state, net, steps=1, noise_multiplier=0.0)
        drawn = fnn.random.bernoulli(fnn.random.fold_in(fnn.random.fold_in(state.key, 2), t), 10 / 40, (40,))
        joined = np.flatnonzero(np.asarray(drawn))
        chosen, used = np.pad(joined, (0, room - len(joined))), np.arange(room) < len(joined)
        noise = fnn.random.fold_in(fnn.random.fold_in(state.key, 1), t)
        grads = per_example.gradients(net, LOSS)(state.params, X[chosen], Y[chosen], used, noise)
        lengths = np.sqrt(sum((np.asarray(g) ** 2).reshape(room, -1).sum(axis=1) for g in trees.leaves(grads)))
        factors = 0.5 / np.maximum(0.5, lengths)
        moved = trees.map(lambda p, g: p - np.tensordot(factors, np.asarray(g), 1) / 10, state.params, grads)  # noqa: B023
        near(after.params, moved, 1e-5)
        assert int(history["size"][0]) == len(joined)
        assert (factors < 1).any()
        state = after


@backends
def test_two_calls_are_one(backend):
    state = begin(backend, optimizer=fnn.Momentum(0.1))
    once, sizes = run(state, steps=5)
    twice, first = run(state, steps=2)
    twice, second = run(twice, steps=3)
    near(once.params, twice.params, 1e-6)
    np.testing.assert_array_equal(sizes["size"], np.concatenate([first["size"], second["size"]]))


@backends
def test_every_example_joins_with_its_chance_and_alone(backend):
    n, steps = 50, 2000
    state = begin(backend, fnn.Dense(1, bias=False), fnn.Sgd(0.0), input_shape=(1,))
    data = np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32)
    _, history = run(state, fnn.Dense(1, bias=False), data, fnn.Quadratic(), steps=steps, batch_size=5)
    sizes = np.asarray(history["size"], np.float64)
    variance = n * 0.1 * 0.9  # of a binomial
    assert abs(sizes.mean() - 5) < 4 * math.sqrt(variance / steps)
    assert abs(sizes.var() / variance - 1) < 4 * math.sqrt(2 / steps)


@backends
def test_the_noise_is_normal_of_the_size_asked_and_independent(backend):
    """With a gradient of zero what moves the parameters is noise alone: σ C / B."""
    net = fnn.Serial((fnn.Dense(60), fnn.Dense(50)))
    state = begin(backend, net, fnn.Sgd(1.0), input_shape=(40,))
    data = np.zeros((20, 40), np.float32), np.zeros((20, 50), np.float32)
    zero = state._replace(params=trees.map(lambda p: p * 0, state.params))
    how = {"batch_size": 4, "max_norm": 2.0, "noise_multiplier": 3.0}
    after, _ = run(zero, net, data, fnn.Quadratic(), steps=1, **how)
    later, _ = run(zero, net, data, fnn.Quadratic(), steps=2, **how)
    moved = [np.asarray(p).ravel() for p in trees.leaves(after.params)]
    every = np.concatenate(moved) / (3.0 * 2.0 / 4)
    again = np.concatenate([np.asarray(p).ravel() for p in trees.leaves(later.params)]) / (3.0 * 2.0 / 4) - every
    root = math.sqrt(len(every))
    assert abs(every.mean()) < 4 / root
    assert abs(every.std() - 1) < 4 / root
    assert abs((every**4).mean() - 3) < 4 * math.sqrt(96) / root
    assert abs(np.corrcoef(every, again)[0, 1]) < 4 / root  # of the next step
    assert abs(np.corrcoef(moved[0][:2000], moved[2][:2000])[0, 1]) < 4 / math.sqrt(2000)  # of another layer


@backends
def test_what_is_frozen_gets_no_noise_and_counts_in_no_norm(backend):
    net = fnn.Serial((fnn.Frozen(fnn.Dense(5)), fnn.Dense(3)))
    state = begin(backend, net, fnn.ClipByGlobalNorm(fnn.Sgd(1.0), 1e-2))
    after, _ = run(state, net, steps=1, noise_multiplier=100.0)
    near(after.params[0], state.params[0], 0)
    moved = [np.asarray(p) - np.asarray(q) for p, q in zip(after.params[1], state.params[1], strict=True)]
    assert math.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(1e-2, rel=1e-4)
    assert all((m != 0).all() for m in moved)


def test_other_bounds_noise_and_rates_compile_nothing(needs_jax):
    states = [begin("jax"), begin("jax", optimizer=fnn.Sgd(0.2), seed=1)]
    run(states[0])
    compiled = []

    def listen(event, duration, **_):
        compiled.append(event) if "backend_compile" in event else None

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(states[1], max_norm=2.0, noise_multiplier=0.3)
        assert compiled == []
        run(states[1], steps=4)
        assert compiled != [], "the listener hears"
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_runs_can_be_mapped_over_states(needs_jax):
    state, keys = begin("jax"), fnn.random.split(fnn.random.key(0), 2)
    both, _ = jax.vmap(lambda key: run(state._replace(key=key)))(keys)
    one, _ = run(state._replace(key=keys[1]))
    near(trees.map(lambda p: p[1], both.params), one.params, 1e-5)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"batch_size": 41}, errors.ArgumentError, "batch_size: expected at most the number of examples, 40, got 41"),
        ({"max_norm": 0.0}, errors.ArgumentError, "max_norm: expected a number above 0"),
        ({"max_norm": math.inf}, errors.ArgumentError, "max_norm: expected a finite number"),
        ({"noise_multiplier": -1.0}, errors.ArgumentError, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, errors.ArgumentError, "noise_multiplier"),
        ({"steps": 0}, errors.ArgumentError, "steps"),
        ({"data": (X, Y, np.ones(40))}, errors.ArgumentError, "draws its own weights"),
        ({"loss": fnn.RootMeanSquaredError()}, errors.KindError, "no example has a gradient of its own"),
    ],
)
def test_bad_input_is_refused(change, error, says):
    with pytest.raises(error, match=says):
        run(begin("numpy"), **change)


def test_epsilon_of_one_gaussian_is_that_of_balle_and_wang():
    """Without sampling the guarantee has a closed form: B. Balle, Y.-X. Wang (2018), theorem 8."""

    def phi(t):
        return (1 + math.erf(t / math.sqrt(2))) / 2

    for sigma, epsilon in ((0.8, 5.0), (2.0, 1.5), (4.0, 0.7)):
        delta = phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon * sigma)
        found = privacy.epsilon(steps=1, batch_size=1, n=1, noise_multiplier=sigma, delta=delta)
        assert abs(found - epsilon) < 1e-3


def test_epsilon_grows_with_the_steps_and_the_share_and_falls_with_the_noise():
    plan = {"steps": 20, "batch_size": 100, "n": 1000, "noise_multiplier": 2.0, "delta": 1e-5}
    usual = privacy.epsilon(**plan)
    assert privacy.epsilon(**plan | {"steps": 40}) > usual
    assert privacy.epsilon(**plan | {"batch_size": 200}) > usual
    assert privacy.epsilon(**plan | {"noise_multiplier": 3.0}) < usual
    assert privacy.epsilon(**plan | {"noise_multiplier": 0.0}) == math.inf


def test_the_noise_multiplier_is_the_least_that_keeps_epsilon():
    plan = {"steps": 10, "batch_size": 100, "n": 1000, "delta": 1e-5}
    sigma = privacy.noise_multiplier(**plan, epsilon=1.0)
    assert 0.99 < privacy.epsilon(**plan, noise_multiplier=sigma) <= 1.0 + 1e-6


@pytest.mark.parametrize("change", [{"batch_size": 2000}, {"delta": 0.0}, {"delta": 1.0}, {"steps": 0}, {"n": 0}])
def test_a_plan_that_makes_no_sense_is_refused(change):
    plan = {"steps": 20, "batch_size": 100, "n": 1000, "noise_multiplier": 2.0, "delta": 1e-5}
    with pytest.raises(errors.ArgumentError, match=next(iter(change))):
        privacy.epsilon(**plan | change)


def test_without_dp_accounting_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(errors.MissingExtraError, match=r"dp_accounting: pip install 'fnn\[privacy\]'"):
        privacy.epsilon(steps=1, batch_size=1, n=2, noise_multiplier=1.0, delta=1e-5)

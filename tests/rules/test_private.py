"""Private training samples, clips and adds noise as it says, and no example can get round the bound."""

import math

import numpy as np
import pytest
from helpers import THOROUGH, key
from helpers_training import compilations, on_numpy_at_least, same

import fnn
from fnn import errors, per_example, trees
from fnn.rules import Private

NET, LOSS = fnn.mlp((5, 3), activation=fnn.Tanh()), fnn.SoftmaxCrossEntropy()
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)).astype(np.float32), RNG.integers(0, 3, 40)
RULE = Private(max_norm=0.5, noise_multiplier=1.0)


def begin(backend="numpy", net=NET, optimizer=None, rule=RULE, input_shape=(4,), seed=0):
    return fnn.init_state(net, optimizer or fnn.Sgd(0.1), key(backend, seed), input_shape, rule=rule)


def run(state, net=NET, data=(X, Y), loss=LOSS, **how):
    return fnn.train(net, loss, state, data, **({"steps": 3, "batch_size": 10} | how))


# ---- what a step is --------------------------------------------------------------------------------------------------


@on_numpy_at_least
def test_without_noise_and_bound_all_examples_are_ordinary_training(backend):
    private, history = run(begin(backend, optimizer=fnn.Adam(0.01), rule=Private(math.inf, 0.0)), batch_size=40)
    ordinary, _ = run(begin(backend, optimizer=fnn.Adam(0.01), rule=None), batch_size=40, shuffle=False)
    same(private.params, ordinary.params, 1e-6)
    assert (np.asarray(history["size"]) == 40).all()
    assert int(private.step) == 3


@on_numpy_at_least
@pytest.mark.parametrize("net", [NET, fnn.Serial((fnn.Dropout(0.5), *NET.layers))], ids=["mlp", "dropout"])
def test_a_step_is_the_clipped_sum_of_the_sampled_examples_over_the_expected_size(net, backend):
    """And dropout draws for the whole room of the batch, of which the examples are the first."""
    state, room = begin(backend, net, fnn.Sgd(1.0), Private(0.5, 0.0)), 40
    for t in range(2):
        after, history = run(state, net, steps=1)
        drawn = fnn.random.bernoulli(fnn.random.fold_in(fnn.random.fold_in(state.key, 2), t), 10 / 40, (40,))
        joined = np.flatnonzero(np.asarray(drawn))
        chosen, used = np.pad(joined, (0, room - len(joined))), np.arange(room) < len(joined)
        noise = fnn.random.fold_in(fnn.random.fold_in(state.key, 1), t)
        grads = per_example.gradients(net, LOSS)(state.params, X[chosen], Y[chosen], used, noise)
        lengths = np.sqrt(sum((np.asarray(g) ** 2).reshape(room, -1).sum(axis=1) for g in trees.leaves(grads)))
        factors = 0.5 / np.maximum(0.5, lengths)
        moved = trees.map(lambda p, g: p - np.tensordot(factors, np.asarray(g), 1) / 10, state.params, grads)  # noqa: B023
        same(after.params, moved, 1e-5)
        assert int(history["size"][0]) == len(joined)
        assert (factors < 1).any()
        state = after


def test_a_penalty_is_added_after_clipping_and_noise():
    state = begin(optimizer=fnn.Sgd(1.0))
    plain, penalised = (run(state, steps=1, penalty=penalty)[0].params for penalty in (None, fnn.L2(10.0)))
    wanted = trees.map(lambda p, g: p - g, plain, fnn.L2(10.0).gradient(state.params))
    same(penalised, wanted, 1e-5)


@on_numpy_at_least
def test_two_calls_are_one(backend):
    state = begin(backend, optimizer=fnn.Momentum(0.1))
    once, sizes = run(state, steps=5)
    twice, first = run(state, steps=2)
    twice, second = run(twice, steps=3)
    same(once.params, twice.params, 1e-6)
    np.testing.assert_array_equal(sizes["size"], np.concatenate([first["size"], second["size"]]))


def test_an_epoch_is_as_many_steps_as_of_batches():
    _, history = run(begin(), steps=None, epochs=2, batch_size=15)
    assert history["size"].shape == (6,)


@on_numpy_at_least
def test_every_example_joins_with_its_chance_and_alone(backend):
    n, steps, net = 50, 2000 if THOROUGH else 500, fnn.Dense(1, bias=False)
    data = np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32)
    state = begin(backend, net, fnn.Sgd(0.0), input_shape=(1,))
    _, history = run(state, net, data, fnn.Quadratic(), steps=steps, batch_size=5)
    sizes = np.asarray(history["size"], np.float64)
    variance = n * 0.1 * 0.9  # of a binomial
    assert abs(sizes.mean() - 5) < 4 * math.sqrt(variance / steps)
    assert abs(sizes.var() / variance - 1) < 4 * math.sqrt(2 / steps)


@on_numpy_at_least
def test_the_noise_is_normal_of_the_size_asked_and_independent(backend):
    """With a gradient of zero what moves the parameters is noise alone: σ C / B."""
    net = fnn.Serial((fnn.Dense(60), fnn.Dense(50)))
    state = begin(backend, net, fnn.Sgd(1.0), Private(2.0, 3.0), (40,))
    data = np.zeros((20, 40), np.float32), np.zeros((20, 50), np.float32)
    zero = state._replace(params=trees.map(lambda p: p * 0, state.params))
    after, _ = run(zero, net, data, fnn.Quadratic(), steps=1, batch_size=4)
    later, _ = run(zero, net, data, fnn.Quadratic(), steps=2, batch_size=4)
    moved = [np.asarray(p).ravel() for p in trees.leaves(after.params)]
    every = np.concatenate(moved) / (3.0 * 2.0 / 4)
    again = np.concatenate([np.asarray(p).ravel() for p in trees.leaves(later.params)]) / (3.0 * 2.0 / 4) - every
    root = math.sqrt(len(every))
    assert abs(every.mean()) < 4 / root
    assert abs(every.std() - 1) < 4 / root
    assert abs((every**4).mean() - 3) < 4 * math.sqrt(96) / root
    assert abs(np.corrcoef(every, again)[0, 1]) < 4 / root  # of the next step
    assert abs(np.corrcoef(moved[0][:2000], moved[2][:2000])[0, 1]) < 4 / math.sqrt(2000)  # of another layer


@on_numpy_at_least
def test_what_is_frozen_gets_no_noise_and_counts_in_no_norm(backend):
    net = fnn.Serial((fnn.Frozen(fnn.Dense(5)), fnn.Dense(3)))
    state = begin(backend, net, fnn.ClipByGlobalNorm(fnn.Sgd(1.0), 1e-2), Private(0.5, 100.0))
    after, _ = run(state, net, steps=1)
    same(after.params[0], state.params[0])
    moved = [np.asarray(p) - np.asarray(q) for p, q in zip(after.params[1], state.params[1], strict=True)]
    assert math.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(1e-2, rel=1e-4)
    assert all((m != 0).all() for m in moved)


# ---- nobody gets round the bound -------------------------------------------------------------------------------------

HUGE = {  # x and y of one example whose gradient is huge, or no number
    "a target of 1e20": ([[0.0]], [[1e20]]),
    "a target that float32 cannot square": ([[1.0]], [[1e37]]),
    "an input of 1e30": ([[1e30]], [[1.0]]),
    "an infinite target": ([[1.0]], [[np.inf]]),
    "nan as target": ([[1.0]], [[np.nan]]),
    "an infinite input": ([[np.inf]], [[1.0]]),
    "nan as input": ([[np.nan]], [[1.0]]),
}


@pytest.mark.parametrize("name", HUGE)
@on_numpy_at_least
def test_no_example_moves_the_clipped_sum_by_more_than_the_bound(name, backend):
    """Whatever it holds; and one whose gradient is not finite counts nothing."""
    net, (x, y) = fnn.Dense(1), (np.float32(a) for a in HUGE[name])
    others = np.float32([[1.0], [2.0]]), np.float32([[3.0], [-1.0]])
    params = net.init(key(backend), (1,))
    params = trees.map(lambda p: p * 0, params)
    clipped = per_example.clipped_gradient(net, fnn.Quadratic(), max_norm=1.0, denominator=1.0)
    with np.errstate(all="ignore"):
        alone = clipped(params, x, y)
        both = clipped(params, *(np.concatenate([a, b]) for a, b in zip((x, y), others, strict=True)))
        without = clipped(params, *others)
    length = lambda tree: math.sqrt(sum(float((np.asarray(g) ** 2).sum()) for g in trees.leaves(tree)))
    finite = np.isfinite(x).all() and np.isfinite(y).all()
    assert length(alone) == pytest.approx(1.0 if finite else 0.0, abs=1e-6)
    assert length(trees.map(lambda a, b: a - b, both, without)) <= 1 + 1e-6


@on_numpy_at_least
def test_an_example_that_did_not_join_does_no_harm(backend):
    """Even the first, with which the room of a sampled batch is filled up."""
    state = begin(backend, fnn.Dense(1), fnn.Sgd(1.0), Private(1.0, 0.0), (1,))
    x, y = np.ones((40, 1), np.float32), np.ones((40, 1), np.float32)
    spoilt = x.copy()
    spoilt[0] = np.inf
    joined = lambda t: np.asarray(fnn.order.Plan(40, 4, sampling="poisson").sample(state.key, t)[0])[:1]
    assert joined(0) != 0
    step = fnn.backend.jit(lambda *data: fnn.training.loop.run(
        state, None, None, fnn.gate.Data(*data), net=fnn.Dense(1), loss=fnn.Quadratic(),
        plan=fnn.order.Plan(40, 4, sampling="poisson"), steps=1, whole=False))  # fmt: skip
    with np.errstate(all="ignore"):
        (ours, history), (theirs, expected) = (
            step(*(fnn.gate.converted(state.params, data, y)[:2])) for data in (spoilt, x)
        )
    same(ours.params, theirs.params)
    same(history, expected)


# ---- in every loop ---------------------------------------------------------------------------------------------------


def test_it_makes_the_same_run_on_both_backends_and_other_numbers_compile_nothing(needs_jax):
    ours, theirs = (run(begin(backend)) for backend in ("jax", "numpy"))
    same(ours[0].params, theirs[0].params, 1e-4)
    same(ours[1], theirs[1], 1e-4)
    with compilations() as compiled:
        run(begin("jax", optimizer=fnn.Sgd(0.2), rule=Private(2.0, 0.3)))
        assert compiled == []
        if THOROUGH:
            run(begin("jax"), steps=4)
            assert compiled != [], "the listener hears"


def test_runs_can_be_mapped_over_states_and_bounds(backend):
    if backend == "jax" and not THOROUGH:
        pytest.skip("the thorough profile has it on JAX, too")

    def of(max_norm, noise_multiplier):
        return run(begin(backend, rule=Private(max_norm, noise_multiplier)))[0].params

    bounds, noises = np.float32([0.5, 2.0]), np.float32([1.0, 0.0])
    swept = fnn.sweep(of, bounds, noises)
    for i in range(2):
        alone = run(begin(rule=Private(float(bounds[i]), float(noises[i]))))[0].params
        same(trees.map(lambda p, i=i: p[i], swept), alone, 1e-4)


def test_in_fit_it_is_the_run_of_train_and_says_what_is_not_private():
    how = {"epochs": 3, "batch_size": 10}
    fitted, history = fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), key=key(), rule=RULE, validation=(X[:9], Y[:9]), **how)
    trained, steps = fnn.train(NET, LOSS, begin(), (X, Y), **how)
    same(fitted.params, trained.params)
    assert set(history) == {"loss", "size", "validation_loss", "not_private"}
    assert set(history["not_private"]) == {"loss", "size"}
    np.testing.assert_allclose(history["size"], steps["size"].reshape(3, 4).mean(axis=1))


@on_numpy_at_least
def test_data_in_files_make_the_run_of_those_in_memory(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(fnn.gate, "AT_ONCE", 3 * 40 * 24)
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    (ours, history), (theirs, expected) = (
        fnn.fit(NET, LOSS, fnn.Momentum(0.1), (data, Y), key=key(backend), rule=RULE, epochs=2, batch_size=10)
        for data in (x, X)
    )
    tolerance = 0 if backend == "numpy" else 1e-6
    same(ours.params, theirs.params, tolerance)
    for name in ("loss", "size"):
        same(history[name], expected[name], 1e-6)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"batch_size": 41}, errors.ArgumentError, "batch_size: expected at most the number of examples, 40, got 41"),
        ({"steps": 0}, errors.ArgumentError, "steps"),
        ({"data": (X, Y, np.ones(40))}, errors.ArgumentError, "draws its own weights"),
        ({"loss": fnn.RootMeanSquaredError()}, errors.KindError, "no example has a gradient of its own"),
    ],
)
def test_bad_input_is_refused(change, error, says):
    data = (X, np.zeros((40, 3))) if "loss" in change else (X, Y)
    with pytest.raises(error, match=says):
        run(begin(), **({"data": data} | change))


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        (Private(0.0, 1.0), errors.ArgumentError, "max_norm"),
        (Private(-1.0, 1.0), errors.ArgumentError, "max_norm"),
        (Private("1", 1.0), errors.KindError, "max_norm"),
        (Private(math.inf, 1.0), errors.ArgumentError, "max_norm: expected a finite number, since the noise grows"),
        (Private(math.nan, 1.0), errors.ArgumentError, "max_norm"),
        (Private(1.0, -1.0), errors.ArgumentError, "noise_multiplier"),
        (Private(1.0, math.nan), errors.ArgumentError, "noise_multiplier"),
        (Private(1.0, math.inf), errors.ArgumentError, "noise_multiplier"),
    ],
)
def test_bounds_and_noise_that_make_no_sense_are_refused(rule, error, says):
    with pytest.raises(error, match=says):
        begin(rule=rule)


@pytest.mark.parametrize("name", ["patience", "stop_below"])
def test_no_stopping_rule_may_look_at_the_training_loss(name):
    how = {"key": key(), "rule": RULE, "epochs": 2, "batch_size": 10}
    with pytest.raises(errors.ArgumentError, match=f"{name}: expected None .* training loss of Private is not private"):
        fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), **how, **{name: 1})
    if name == "patience":  # which watches the validation data
        fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), validation=(X, Y), patience=1, **how)
    else:
        with pytest.raises(errors.ArgumentError, match="stop_below"):
            fnn.fit(NET, LOSS, fnn.Sgd(0.1), (X, Y), validation=(X, Y), stop_below=1, **how)

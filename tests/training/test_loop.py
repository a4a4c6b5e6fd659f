"""A run is a function of its state: on both backends, cut anywhere, alone or in lanes; an epoch uses all examples."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import BACKENDS, THOROUGH, blobs, key, run_problem, wide
from helpers_training import compilations, on_numpy_at_least, same, temporary
from hypothesis import example, given
from hypothesis import strategies as st

import fnn
from fnn import errors, order, trees
from fnn.training import loop

DROPOUT = fnn.Serial((fnn.Dropout(0.2), *fnn.mlp((8, 3)).layers))
OPTIMIZERS = [fnn.Sgd(0.1), fnn.Momentum(0.05), fnn.Nesterov(0.05), fnn.Adam(0.01)]


# ---- what a run is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("batch_size", [1, 7, 50])
@on_numpy_at_least
def test_training_learns_by_stochastic_mini_batch_and_batch_descent(optimizer, batch_size, backend):
    net, loss, state, data = run_problem(backend, optimizer)
    before = fnn.evaluate(net, loss, state.params, data)["loss"]
    state, history = fnn.train(net, loss, state, data, epochs=4, batch_size=batch_size)
    steps = 4 * -(-50 // batch_size)
    assert int(state.step) == steps
    assert history["loss"].shape == history["weight"].shape == (steps,)
    assert fnn.evaluate(net, loss, state.params, data)["loss"] < before
    assert isinstance(state.params[0].w, np.ndarray) == (backend == "numpy")


@pytest.mark.parametrize("batch_size", [16, 50])
@on_numpy_at_least
def test_a_run_is_the_loop_that_a_textbook_writes(batch_size, backend):
    net, loss, state, (x, y) = run_problem(backend)
    trained, history = fnn.train(net, loss, state, (x, y), epochs=2, batch_size=batch_size)
    params, losses = state.params, []
    for epoch in range(2):
        positions = order.order(fnn.random.fold_in(fnn.random.fold_in(state.key, 0), epoch), 50)
        for start in range(0, 50, batch_size):
            index = np.asarray(positions[start : start + batch_size])  # the last batch is simply shorter here
            value, grads = fnn.value_and_grad(net, loss)(params, x[index], y[index])
            params = trees.map(lambda p, g: p - np.float32(0.1) * g, params, grads)
            losses.append(float(value))
    same(trained.params, params, 1e-5)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)


# By name: the optimizer, the network, and how it is trained. JAX compiles a program for each.
RUNS = {
    "ragged, with dropout, validated": (
        fnn.Adam(0.01),
        DROPOUT,
        {"epochs": 3, "batch_size": 7, "validation": blobs(20, seed=1), "metrics": {"accuracy": fnn.accuracy}},
    ),
    "weighted steps in order, penalised": (
        fnn.Momentum(0.05),
        fnn.mlp((8, 3)),
        {"steps": 8, "batch_size": 10, "shuffle": False, "penalty": fnn.L2(0.1), "weights": True, "denominator": 10},
    ),
    "batch descent": (fnn.Nesterov(0.05), fnn.mlp((8, 3)), {"epochs": 3, "batch_size": 50}),
    "stochastic": (fnn.Sgd(0.01), fnn.mlp((8, 3)), {"epochs": 1, "batch_size": 1}),
    "in order": (fnn.Sgd(0.1), fnn.mlp((8, 3)), {"epochs": 2, "batch_size": 20, "shuffle": False}),
    "steps": (fnn.Adam(0.01), DROPOUT, {"steps": 11, "batch_size": 12}),
    "whole": (fnn.Adam(0.01), DROPOUT, {"steps": 11, "batch_size": 10}),
}


@pytest.mark.parametrize("name", RUNS if THOROUGH else list(RUNS)[:2])
def test_the_same_key_gives_the_same_run_on_both_backends(name, needs_jax):
    optimizer, net, how = RUNS[name]
    runs, how = [], dict(how)
    weighted = how.pop("weights", False)
    for chosen in BACKENDS:
        _, loss, state, data = run_problem(chosen, optimizer, net)
        data = (*data, np.linspace(-1, 2, 50)) if weighted else data
        runs.append(fnn.train(net, loss, state, data, **how))
    (ours, history), (theirs, expected) = runs
    same(ours.params, theirs.params, 1e-4)
    same(ours[6:], theirs[6:])  # the counters
    assert sorted(history) == sorted(expected)
    same(history, expected, 1e-4)


def test_two_epochs_of_mnist_agree_on_both_backends_within_1e_4(needs_jax):
    if not os.environ.get("FNN_DATA"):
        pytest.skip("real MNIST: set FNN_DATA to the folder that holds it")
    (x, y), _ = fnn.datasets.mnist()
    tanh = fnn.mlp((128, 10), fnn.Tanh())  # at the kink of a ReLU, rounding decides whether a unit is on
    net, loss = fnn.Serial((fnn.Scale(1 / 255), *tanh.layers)), fnn.SoftmaxCrossEntropy()
    params = []
    for chosen in ("jax", "numpy"):
        state = fnn.init_state(net, fnn.Sgd(0.1), key(chosen), (784,))
        params.append(fnn.train(net, loss, state, (x, y), epochs=2, batch_size=128)[0].params)
    for a, b in zip(*map(trees.leaves, params), strict=True):
        assert np.abs(np.asarray(a) - b).max() < 1e-4


@pytest.mark.parametrize("batch_size", [7, 10, 50])
@on_numpy_at_least
def test_two_runs_of_two_epochs_are_one_run_of_four(batch_size, backend):
    net, loss, state, data = run_problem(backend, fnn.Adam(0.01), DROPOUT)
    whole, history = fnn.train(net, loss, state, data, epochs=4, batch_size=batch_size)
    half, first = fnn.train(net, loss, state, data, epochs=2, batch_size=batch_size)
    cut, second = fnn.train(net, loss, half, data, epochs=2, batch_size=batch_size)
    same(cut, whole, 1e-6)
    np.testing.assert_allclose(np.concatenate([first["loss"], second["loss"]]), history["loss"], rtol=1e-6)


@pytest.mark.parametrize("parts", [(12,), (1, 11), (5, 7), (3, 4, 5)])
@on_numpy_at_least
def test_steps_are_epochs_cut_anywhere(parts, backend):
    net, loss, begun, _ = run_problem(backend, fnn.Adam(0.01), DROPOUT)
    data = blobs(35)  # 4 steps in an epoch, the last one ragged
    whole, history = fnn.train(net, loss, begun, data, epochs=3, batch_size=10)
    state, losses = begun, []
    for steps in parts:
        state, part = fnn.train(net, loss, state, data, steps=steps, batch_size=10)
        assert part["loss"].shape == part["weight"].shape == (steps,)
        losses.extend(np.asarray(part["loss"]))
    assert [int(counter) for counter in state[6:]] == [12, 3, 0, 35]
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)
    same(state, whole, 1e-6)


@on_numpy_at_least
def test_without_shuffling_the_examples_come_in_their_order(backend):
    net, loss, state, (x, y) = run_problem(backend)
    ordered, _ = fnn.train(net, loss, state, (x, y), epochs=1, batch_size=20, shuffle=False)
    step = fnn.make_step(net, loss)
    for start in range(0, 50, 20):
        state, _ = step(state, (x[start : start + 20], y[start : start + 20]))
    same(ordered.params, state.params, 1e-5)


@pytest.mark.parametrize("steps", [1, 7, 12, 1875])
def test_batches_that_are_gathered_at_once_are_a_part_of_the_epoch(steps):
    for size in (1, 100, 100_352, 200_000):
        many = loop.batches_at_once(steps, size)
        assert steps % many == 0
        assert many * size <= 1_600_000
    assert loop.batches_at_once(steps, 200_001) == 1
    assert loop.batches_at_once(1875, 100_352) == 15, "as many as fit"


# ---- every example exactly once --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counting(fnn.Loss):
    """A cost whose derivative is 1, whatever the prediction."""

    def value(self, prediction, target):
        return prediction.sum(axis=1)

    def delta(self, prediction, target):
        return 0 * prediction + 1


def counting(n, backend="numpy"):
    """`(run, state)`: after `state, uses = run(state, n, ...)` uses (n,) says how often each example was used."""
    net, x = fnn.Dense(1, bias=False, initializer=fnn.Zeros()), np.eye(n, dtype=np.float32)
    state = fnn.init_state(net, fnn.Sgd(1.0), key(backend), (n,))

    def run(state, length, **how):
        data = x[:length], np.zeros((length, 1), np.float32)
        state, history = fnn.train(net, Counting(), state, data, denominator=1.0, **how)
        return state, -np.asarray(state.params.w)[0], history

    return run, state


calls = st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from(["epochs", "steps"]), st.integers(1, 7))


@given(calls=st.lists(calls, min_size=1, max_size=5), shuffle=st.booleans())
@example(calls=[(6, 1, "steps", 1), (6, 6, "steps", 2)], shuffle=True)
def test_every_epoch_that_is_finished_uses_every_example_exactly_once_whatever_came_before(calls, shuffle):
    """Lengths of data, batch sizes, epochs and steps in any order, applied to one state."""
    run, state = counting(24)
    epoch = seen = length = step = 0
    total, begun = np.zeros(24), np.zeros(24)  # uses so far, and those before the present epoch
    for n, batch_size, unit, number in calls:
        batch_size = min(batch_size, n)
        dropped = seen > 0 and (unit == "epochs" or n != length)
        if dropped:
            epoch, seen = epoch + 1, 0
        if seen == 0:
            begun = total
        finished, steps = epoch, number if unit == "steps" else number * -(-n // batch_size)
        for _ in range(steps):
            seen += min(batch_size, n - seen)
            epoch, seen = (epoch + 1, 0) if seen == n else (epoch, seen)
        finished, step, length = epoch - finished, step + steps, n
        state, total, history = run(state, n, batch_size=batch_size, shuffle=shuffle, **{unit: number})
        assert [int(counter) for counter in state[6:]] == [step, epoch, seen, length]
        gained = total - begun
        assert (gained[n:] == 0).all()
        assert set(gained[:n]) <= ({finished, finished + 1} if seen else {finished})
        assert gained.sum() == finished * n + seen
        assert len(history["loss"]) == steps
        begun = begun + finished * (np.arange(24) < n)
    if unit == "epochs":
        assert seen == 0


OLD_BUGS = {
    "an epoch by 32, then one by 100, of 1,000": (1000, [(32, {"epochs": 1}), (100, {"epochs": 1})]),
    "5 steps by 32, then an epoch by 100": (1000, [(32, {"steps": 5}), (100, {"epochs": 1})]),
    "4 steps by 3, then 2 by 5, to the end of an epoch": (22, [(3, {"steps": 4}), (5, {"steps": 2})]),
    "a step by 3, then one by 100 of 100": (100, [(3, {"steps": 1}), (100, {"steps": 1})]),
}


@pytest.mark.parametrize("name", OLD_BUGS)
@pytest.mark.thorough(backend="jax")
def test_an_epoch_is_whole_after_batches_of_another_size(name, backend):
    if backend == "jax" and not THOROUGH and name != next(iter(OLD_BUGS)):
        pytest.skip("the thorough profile has all on JAX, too")
    n, calls = OLD_BUGS[name]
    run, state = counting(n, backend)
    for batch_size, how in calls[:-1]:
        state, before, _ = run(state, n, batch_size=batch_size, **how)
    state, uses, _ = run(state, n, batch_size=calls[-1][0], **calls[-1][1])
    assert (int(state.seen), int(state.length)) == (0, n)
    if "epochs" in calls[-1][1]:
        assert (uses - before == 1).all()
    else:
        assert (uses == 1).all()


def test_an_epoch_that_was_begun_is_dropped_by_epochs_and_gone_on_with_by_steps():
    run, state = counting(10)
    begun, uses, _ = run(state, 10, steps=1, batch_size=4)
    assert (int(begun.epoch), int(begun.seen), uses.sum()) == (0, 4, 4)
    anew, _, history = run(begun, 10, epochs=1, batch_size=4)
    assert (int(anew.epoch), int(anew.seen), int(anew.step)) == (2, 0, 4)
    np.testing.assert_array_equal(history["weight"], 1)  # the denominator
    index, used = order.Plan(10, 4).batches(state.key, 1, 0, 3)
    assert np.sort(index[used]).tolist() == list(range(10)), "epoch 1, in an order of its own"
    on, uses, _ = run(begun, 10, steps=2, batch_size=4)
    assert (int(on.epoch), int(on.seen), uses.tolist()) == (1, 0, [1] * 10)


@on_numpy_at_least
def test_data_of_another_length_begin_a_new_epoch(backend):
    run, state = counting(10, backend)
    state, first, _ = run(state, 10, steps=1, batch_size=4)
    state, second, _ = run(state, 8, steps=2, batch_size=4)
    assert (second - first).tolist() == [1] * 8 + [0, 0]
    assert [int(counter) for counter in state[6:]] == [3, 2, 0, 8]
    state, third, _ = run(state, 10, steps=1, batch_size=10)
    assert (third - second == 1).all()
    assert [int(counter) for counter in state[6:]] == [4, 3, 0, 10]


WHOLE = {  # seen, length, n, batch size, and whether every batch is known to be full
    "an epoch of full batches": (0, 0, 20, 5, True),
    "from a multiple on": (10, 20, 20, 5, True),
    "data of another length": (3, 7, 20, 5, True),
    "a ragged epoch": (0, 0, 20, 6, False),
    "from within a batch on": (3, 20, 20, 5, False),
}


@pytest.mark.parametrize("name", WHOLE)
@on_numpy_at_least
def test_no_mask_is_made_where_all_batches_are_full_and_the_run_is_the_same(name, backend, monkeypatch):
    seen, length, n, batch_size, expected = WHOLE[name]
    net, loss, state, _ = run_problem(backend)
    xp = fnn.backend.namespace(state.key)
    state = state._replace(seen=xp.asarray(seen, np.int32), length=xp.asarray(length, np.int32))
    data, plan = fnn.gate.dataset(net, loss, state.params, blobs(n)), order.Plan(n, batch_size)
    assert loop.is_whole(state, plan) == expected
    if not expected:
        return
    masks, update = [], loop.update
    monkeypatch.setattr(loop, "update", lambda p, s, batch: masks.append(batch.weights) or update(p, s, batch))
    how = {"net": net, "loss": loss, "steps": 3, "plan": plan}
    runs = [loop.run(state, None, None, data, whole=whole, **how) for whole in (True, False)]
    assert all(mask is None for mask in masks[: len(masks) // 2])
    same(runs[0], runs[1], 1e-6)


def test_a_compiled_run_of_full_batches_has_no_mask(needs_jax, monkeypatch):
    masks, update = [], loop.update
    monkeypatch.setattr(loop, "update", lambda p, s, batch: masks.append(batch.weights) or update(p, s, batch))
    net, loss, state, _ = run_problem("jax")
    data = fnn.gate.dataset(net, loss, state.params, blobs(30))
    how = {"net": net, "loss": loss, "steps": 2, "plan": order.Plan(30, 5)}
    for whole in (True, False):  # traced, and not compiled
        needs_jax.eval_shape(lambda s, d, whole=whole: loop.run(s, None, None, d, whole=whole, **how), state, data)
    assert masks[0] is None
    assert masks[-1] is not None


# ---- weights, penalty, validation ------------------------------------------------------------------------------------


@on_numpy_at_least
def test_weights_count_examples_as_often(backend):
    net, loss, state, (x, y) = run_problem(backend)
    weights = np.array([0, 1, 2] * 16 + [1, 1])
    repeated = np.repeat(np.arange(50), weights)
    weighted, _ = fnn.train(net, loss, state, (x, y, weights), epochs=3, batch_size=50)
    copied, _ = fnn.train(net, loss, state, (x[repeated], y[repeated]), epochs=3, batch_size=len(repeated))
    same(weighted.params, copied.params, 1e-5)


@on_numpy_at_least
def test_padding_takes_no_example_twice_where_there_are_weights(backend):
    net, loss, state, (x, y) = run_problem(backend)
    weights = np.arange(1.0, 51.0)
    _, history = fnn.train(net, loss, state, (x, y, weights), epochs=1, batch_size=7)
    assert float(np.sum(history["weight"])) == pytest.approx(weights.sum())


@on_numpy_at_least
def test_a_denominator_divides_the_weighted_sum_in_value_and_gradient(backend):
    """Two examples, ℓ = ½ (w x)² with w = 1 and x = 1, 2, and weights 3 and −1: Σ w ℓ = −½, and its slope −1."""
    net, loss = fnn.Dense(1, bias=False), fnn.Quadratic()
    params = trees.map(lambda p: p * 0 + 1, net.init(key(backend), (1,)))
    x, y, weights = [[1.0], [2.0]], [[0.0], [0.0]], [3.0, -1.0]
    for denominator in (None, 2, 4.0):  # Σ w is 2
        value, grads = fnn.value_and_grad(net, loss, denominator=denominator)(params, x, y, weights)
        assert (float(value), float(grads.w[0, 0])) == (-0.5 / (denominator or 2), -1 / (denominator or 2))
        same(fnn.grad(net, loss, denominator=denominator)(params, x, y, weights), grads)
    value, grads = fnn.value_and_grad(net, loss)(params, x, y, [1.0, -1.0])
    assert (float(value), float(grads.w[0, 0])) == (0.0, 0.0), "0 where Σ w is 0"
    value, grads = fnn.value_and_grad(net, loss, denominator=2)(params, x, y, [1.0, -1.0])
    assert (float(value), float(grads.w[0, 0])) == (-0.75, -1.5)


SIGNED = np.linspace(-1.0, 2.0, 50)


def test_weights_below_0_want_a_denominator():
    net, loss, state, (x, y) = run_problem("numpy")
    how = {"epochs": 1, "batch_size": 50}
    for run in (fnn.train, fnn.fit):
        with pytest.raises(errors.DataError, match=r"weights: expected numbers of at least 0, got -1\.0 at weights.0."):
            run(net, loss, state, (x, y, SIGNED), **how)
        after, history = run(net, loss, state, (x, y, SIGNED), denominator=50, **how)
        value, grads = fnn.value_and_grad(net, loss, denominator=50)(state.params, x, y, SIGNED)
        same(after.params, trees.map(lambda p, g: p - np.float32(0.1) * g, state.params, grads), 1e-6)
        assert float(history["loss"][0]) == pytest.approx(float(value), rel=1e-6)
    assert not np.allclose(value, fnn.value_and_grad(net, loss)(state.params, x, y, SIGNED)[0])
    with pytest.raises(errors.DataError, match="weights"):
        fnn.fit(net, loss, state, (x, y), validation=(x, y, SIGNED), denominator=50, **how)


@pytest.mark.parametrize(("denominator", "error"), [(0, "ArgumentError"), (-1.0, "ArgumentError"), ("n", "KindError")])
def test_a_denominator_is_a_number_above_0(denominator, error):
    net, loss, state, data = run_problem("numpy")
    with pytest.raises(getattr(errors, error), match="denominator: expected a number"):
        fnn.train(net, loss, state, data, epochs=1, batch_size=10, denominator=denominator)


@on_numpy_at_least
def test_a_penalty_shrinks_the_weights(backend):
    net, loss, state, data = run_problem(backend)
    free, _ = fnn.train(net, loss, state, data, epochs=3, batch_size=10)
    held, _ = fnn.train(net, loss, state, data, epochs=3, batch_size=10, penalty=fnn.L2(0.5))
    assert np.square(held.params[0].w).sum() < np.square(free.params[0].w).sum()


@on_numpy_at_least
def test_a_validated_run_is_the_plain_run_and_keeps_the_best_parameters(backend):
    net, loss, state, data = run_problem(backend, fnn.Sgd(3.0))  # so large that the best epoch is not the last
    held = (*blobs(30, seed=5), np.arange(30) % 3)
    options = {"batch_size": 8, "validation": held, "metrics": {"accuracy": fnn.accuracy}}
    trained, history = fnn.train(net, loss, state, data, epochs=6, **options)
    assert history["validation_loss"].shape == history["validation_accuracy"].shape == (6,)
    least = int(np.argmin(history["validation_loss"]))
    assert least < 5
    wanted = state
    for epoch in range(6):
        wanted, _ = fnn.train(net, loss, wanted, data, epochs=1, batch_size=8)
        found = fnn.evaluate(net, loss, wanted.params, held, metrics={"accuracy": fnn.accuracy})
        assert history["validation_loss"][epoch] == pytest.approx(found["loss"], 1e-3)
        assert history["validation_accuracy"][epoch] == pytest.approx(found["accuracy"], abs=0.05)
        if epoch == least:
            same(history["best"].params, wanted.params, 1e-4)
    same(trained.params, wanted.params, 1e-4)
    assert int(history["best"].epoch) == least
    assert history["best"].loss == history["validation_loss"][least]


@on_numpy_at_least
def test_without_a_loss_that_is_a_number_the_best_parameters_are_the_first(backend):
    net, _, state, (x, y) = run_problem(backend, net=fnn.mlp((1,)))
    data = x, y[:, None]
    with np.errstate(all="ignore"):
        state = state._replace(params=trees.map(lambda p: p * np.float32(np.nan), state.params))
        _, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=2, batch_size=10, validation=data)
    best = history["best"]
    assert int(best.epoch) == -1
    assert np.isinf(best.loss)
    assert all(np.isnan(leaf).all() for leaf in trees.leaves(best.params)), "those from before the run"
    if backend == "numpy":
        assert not any(leaf.flags.writeable for leaf in trees.leaves(best.params))
        assert isinstance(best.epoch, np.int32)


def test_metrics_of_a_run_need_validation_data():
    net, loss, state, data = run_problem("numpy")
    with pytest.raises(errors.ArgumentError, match="metrics: expected validation data too"):
        fnn.train(net, loss, state, data, epochs=1, batch_size=8, metrics={"accuracy": fnn.accuracy})
    with pytest.raises(errors.ShapeError, match="validation"):
        fnn.train(net, loss, state, data, epochs=1, batch_size=8, validation=(data[0][:, :2], data[1]))


# ---- compiled, mapped, differentiated --------------------------------------------------------------------------------


def test_runs_can_be_mapped_over_keys_rates_penalties_and_data(needs_jax):
    if not THOROUGH:
        pytest.skip("the thorough profile has it; fnn.sweep is such a map, and tested always")
    net, loss, (x, y) = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy(), blobs()

    def run(key, learning_rate, coefficient, x):
        state = fnn.init_state(net, fnn.Momentum(learning_rate=learning_rate), key, (6,))
        return fnn.train(net, loss, state, (x, y), epochs=2, batch_size=8, penalty=fnn.L2(coefficient))

    rates, coefficients = np.float32([0.001, 0.03, 0.1]), np.float32([0, 0.1, 1])
    xs = np.stack([x, 2 * x, -x]).astype(np.float32)
    states, histories = needs_jax.vmap(run)(fnn.random.split(key("jax", 3), 3), rates, coefficients, xs)
    for i, of_run in enumerate(fnn.random.split(key("numpy", 3), 3)):
        state, history = run(of_run, rates[i], coefficients[i], xs[i])  # NumPy is the reference
        same(trees.map(lambda leaf, i=i: leaf[i], states.params), state.params, 1e-4)
        np.testing.assert_allclose(histories["loss"][i], history["loss"], rtol=1e-4)
    assert len({float(h[-1]) for h in histories["loss"]}) == 3, "the lanes are different runs"


def test_an_equal_net_and_loss_and_other_numbers_compile_nothing(needs_jax):
    def run(rate):
        net, loss = fnn.mlp((8, 3), activation=fnn.LeakyRelu(0.1)), fnn.SoftmaxCrossEntropy()
        of_run = key("jax", int(rate * 1000))
        state = fnn.init_state(net, fnn.Adam(rate), of_run, (6,))
        train = {"epochs": 2, "batch_size": 10, "penalty": fnn.L2(rate), "denominator": 10 * rate}
        state, _ = fnn.train(net, loss, state, blobs(), **train)
        state, _ = fnn.train(net, loss, state, blobs(), **train)
        state, _ = fnn.make_step(net, loss)(state, blobs())
        fnn.fit(net, loss, state, blobs(), epochs=2, batch_size=10, validation=blobs(20))
        fnn.fit(net, loss, fnn.Adam(rate), blobs(), epochs=2, batch_size=10, key=of_run, validation=blobs(20))

    run(0.1)
    with compilations() as compiled:
        run(0.2)
        assert compiled == []
        net = fnn.Dense(9)
        net.apply(net.init(key("jax"), (7,)), np.ones((3, 7)))
        assert compiled != [], "the listener hears"


def test_uint8_data_stays_uint8_in_memory(needs_jax):
    x = np.random.default_rng(0).integers(0, 256, (1000, 784), dtype=np.uint8)
    net, loss = fnn.Serial((fnn.Scale(1 / 255), fnn.Dense(2))), fnn.SoftmaxCrossEntropy()
    state = fnn.init_state(net, fnn.Sgd(0.1), key("jax"), (784,))
    data = fnn.gate.dataset(net, loss, state.params, (x, np.zeros(1000, int)))
    assert data.x.dtype == np.uint8
    options = {"net": net, "loss": loss, "epochs": 1, "plan": order.Plan(1000, 10), "metrics": ()}
    run = lambda s, d: loop.run_epochs(s, None, None, d, None, **options)
    program = needs_jax.jit(run).lower(state, data).as_text()
    assert "tensor<1000x784xui8>" in program
    assert "tensor<1000x784xf32>" not in program, "no float copy of the whole data is made"


@on_numpy_at_least
def test_float64_parameters_train_in_float64(backend):
    with wide():
        net, loss = fnn.mlp((8, 3)), fnn.SoftmaxCrossEntropy()
        state = fnn.init_state(net, fnn.Adam(0.01), key(backend), (6,), np.float64)
        state, history = fnn.train(net, loss, state, blobs(), epochs=2, batch_size=7)
        assert all(p.dtype == np.float64 for p in trees.leaves(state.params))
        assert state.optimizer.learning_rate.dtype == np.float64
        assert history["loss"].dtype == np.float64


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_targets_keep_float32_whatever_the_parameters_are(dtype):
    """257 is no number of bfloat16, nor 2,049 one of float16."""
    backend, target = ("numpy", 2049.0) if dtype == "float16" else ("jax", 257.0)
    if backend not in BACKENDS:
        pytest.skip("NumPy alone has no bfloat16")
    net, loss = fnn.Dense(1, bias=False, initializer=fnn.Zeros()), fnn.MeanAbsoluteError()
    state = fnn.init_state(net, fnn.Sgd(0.1), key(backend), (1,), dtype)
    x, y = np.ones((2, 1)), np.full((2, 1), target)
    value, grads = fnn.backend.jit(fnn.value_and_grad(net, loss))(state.params, x, y)
    assert float(value) == target
    assert grads.w.dtype == state.params.w.dtype == dtype
    _, history = fnn.train(net, loss, state, (x, y), epochs=1, batch_size=2)
    assert history["loss"].tolist() == [target]
    assert fnn.evaluate(net, loss, state.params, (x, y))["loss"] == target


TINY_X = np.random.default_rng(0).normal(size=(6, 3)) * (1, 0, 1)  # the pixel in the middle is always 0
TINY_Y = np.random.default_rng(1).normal(size=(6, 2))
TINY = fnn.mlp((3, 2), fnn.Tanh())
DIFFERENTIATED = {"Sgd": fnn.Sgd(0.3), "Momentum": fnn.Momentum(0.2), "Adam": fnn.Adam(0.05)}


def loss_after_training(optimizer, params, rate, coefficient, backend):
    """The cost of the data after some steps, a function of where and how the run began."""
    state = fnn.init_state(TINY, optimizer, key(backend), (3,), np.float64)
    state = state._replace(params=params, optimizer=state.optimizer._replace(learning_rate=rate))
    data, how = (TINY_X, TINY_Y), {"epochs": 3, "batch_size": 4} if THOROUGH else {"steps": 5, "batch_size": 3}
    state, _ = fnn.train(TINY, fnn.Quadratic(), state, data, penalty=fnn.L2(coefficient), **how)
    return fnn.value_and_grad(TINY, fnn.Quadratic())(state.params, *data)[0]


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_a_run_differentiates_in_both_modes_to_its_hypergradients(name, mode, needs_jax):
    """By the learning rate, the penalty and the first parameters, against differences of the run on NumPy.

    The errors of the central differences are about h² and ε / h, 1e-10 and 1e-11 for h = 1e-5, times some derivatives.
    """
    if not THOROUGH and (name, mode) != ("Momentum", "reverse"):
        pytest.skip("the thorough profile has all six")
    optimizer, rng = DIFFERENTIATED[name], np.random.default_rng(2)
    params = TINY.init(key("numpy"), (3,), np.float64)
    at = params, np.float64(optimizer.learning_rate), np.float64(0.1)
    direction = trees.map(lambda a: rng.normal(size=np.shape(a)), at)
    directions = [direction, *((trees.map(np.zeros_like, params), *of) for of in ((1.0, 0.0), (0.0, 1.0)))]

    def difference(direction, h=1e-5):
        ends = (trees.map(lambda a, d, h=h: a + h * d, at, direction) for h in (h, -h))
        high, low = (loss_after_training(optimizer, *end, "numpy") for end in ends)
        return (high - low) / (2 * h)

    wanted = [difference(direction) for direction in directions]
    with needs_jax.enable_x64(True):
        f = lambda *at: loss_after_training(optimizer, *at, "jax")
        if mode == "reverse":
            grads = needs_jax.jit(needs_jax.grad(f, argnums=(0, 1, 2)))(*at)
            assert all(np.isfinite(g).all() for g in trees.leaves(grads)), grads
            found = [sum(float((g * d).sum()) for g, d in zip(trees.leaves(grads), trees.leaves(v), strict=True))
                     for v in directions]  # fmt: skip
        else:
            along = needs_jax.jit(lambda direction: needs_jax.jvp(f, at, direction)[1])
            found = [float(along(trees.map(np.float64, v))) for v in directions]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, "expected either epochs or steps, got None and None"),
        ({"epochs": 1, "steps": 1}, "expected either epochs or steps, got 1 and 1"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"steps": -1}, "steps: expected an integer of at least 1, got -1"),
        ({"steps": 1, "validation": True}, "validation: expected epochs"),
    ],
)
def test_steps_and_epochs_exclude_each_other(how, says):
    net, loss, begun, data = run_problem("numpy")
    with pytest.raises(errors.ArgumentError, match=says):
        fnn.train(net, loss, begun, data, batch_size=10, **how)


@on_numpy_at_least
def test_no_call_changes_state_or_data(backend):
    net, loss, state, data = run_problem(backend, fnn.Adam(0.01), DROPOUT)
    arrays = [*trees.leaves(state.params), *trees.leaves(state.opt_state), *data]
    before = [np.array(a) for a in arrays]
    fnn.train(net, loss, state, data, epochs=3, batch_size=7)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_new_parameters_are_read_only_on_numpy():
    net, loss, state, data = run_problem("numpy")
    for following in (
        fnn.train(net, loss, state, data, epochs=1, batch_size=10)[0],
        fnn.make_step(net, loss)(state, data)[0],
    ):
        assert not any(leaf.flags.writeable for leaf in trees.leaves(following.params))


def test_steps_write_over_the_state_of_the_step_before(needs_jax):
    """In memory beyond arguments and results there is room for the gradients, and for no second state."""
    net, loss, x = fnn.mlp((256, 256)), fnn.Quadratic(), needs_jax.ShapeDtypeStruct((32, 256), np.float32)
    state = fnn.init_state(net, fnn.Adam(0.1), key("jax"), (256,))
    how = {"net": net, "loss": loss, "plan": order.Plan(32, 8), "steps": 4, "whole": True}
    planned = temporary(loop.run.compiled, state, None, None, fnn.examples.Data(x, x), **how)
    of_params = sum(p.nbytes for p in trees.leaves(state.params))
    assert planned < 1.5 * of_params  # a state is 3 times as large

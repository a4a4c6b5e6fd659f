"""`fit` is `train` seen from the host: the same run, epoch by epoch, with validation, history and a bar."""

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import THOROUGH, blobs, key, run_problem
from helpers_training import Smoothed, compilations, on_numpy_at_least, same, scored

import fnn
from fnn import errors, trees


@pytest.mark.parametrize("batch_size", [8, 10])
@pytest.mark.thorough(backend="jax")
def test_a_fit_is_the_same_run_as_train(batch_size, backend):
    if backend == "jax" and batch_size == 10 and not THOROUGH:
        pytest.skip("the thorough profile has both on JAX")
    net, loss, _, data = run_problem(backend)
    fitted, history = fnn.fit(net, loss, fnn.Adam(0.01), data, key=key(backend), epochs=3, batch_size=batch_size)
    _, _, start, _ = run_problem("numpy", fnn.Adam(0.01))
    trained, steps = fnn.train(net, loss, start, data, epochs=3, batch_size=batch_size)  # on NumPy, the reference
    same(fitted.params, trained.params, 1e-6 if backend == "numpy" else 1e-4)
    weighted = np.asarray(steps["loss"] * steps["weight"]).reshape(3, -1).sum(axis=1) / 50
    np.testing.assert_allclose(history["loss"], weighted, rtol=1e-5 if backend == "numpy" else 1e-4)


@on_numpy_at_least
def test_a_fit_begins_with_a_new_epoch_and_drops_one_that_was_begun(backend):
    net, loss, state, data = run_problem(backend)
    begun, _ = fnn.train(net, loss, state, data, steps=2, batch_size=8)
    fitted, _ = fnn.fit(net, loss, begun, data, epochs=2, batch_size=8)
    trained, _ = fnn.train(net, loss, begun, data, epochs=2, batch_size=8)
    same(fitted, trained, 1e-6)
    assert [int(counter) for counter in fitted[6:]] == [16, 3, 0, 50]


@on_numpy_at_least
def test_a_fit_goes_on_from_the_state_of_an_earlier_one(backend):
    net, loss, state, data = run_problem(backend, fnn.Momentum(0.01))
    options = {"epochs": 2, "batch_size": 8}
    whole, _ = fnn.fit(net, loss, state, data, epochs=4, batch_size=8)
    half, _ = fnn.fit(net, loss, state, data, **options)
    cut, _ = fnn.fit(net, loss, half, data, **options)
    same(cut.params, whole.params, 1e-6)


@on_numpy_at_least
def test_validation_and_metrics_are_those_of_the_parameters_after_each_epoch(backend):
    net, loss, state, data = run_problem(backend)
    validation = blobs(20, seed=1)
    metrics = {"accuracy": fnn.accuracy}
    state, history = fnn.fit(net, loss, state, data, epochs=3, batch_size=8, validation=validation, metrics=metrics)
    assert set(history) == {"loss", "validation_loss", "validation_accuracy"}
    assert all(values.shape == (3,) for values in history.values())
    with pytest.raises(errors.ShapeError, match=r"validation: expected x of shape \(N, 6\)"):
        fnn.fit(net, loss, state, data, epochs=1, batch_size=8, validation=(np.ones((4, 2)), np.zeros(4, int)))
    now = fnn.evaluate(net, loss, state.params, validation, metrics=metrics)
    assert history["validation_loss"][-1] == pytest.approx(now["loss"])
    assert history["validation_accuracy"][-1] == now["accuracy"]


@on_numpy_at_least
def test_a_fit_stops_below_a_loss(backend):
    net, loss, state, data = run_problem(backend)
    _, whole = fnn.fit(net, loss, state, data, epochs=8, batch_size=8)
    threshold = float(whole["loss"][3] + whole["loss"][4]) / 2
    stopped, history = fnn.fit(net, loss, state, data, epochs=8, batch_size=8, stop_below=threshold)
    assert len(history["loss"]) == 5, "the first epoch below it is the last"
    assert int(stopped.step) == 5 * 7


@on_numpy_at_least
def test_a_fit_without_gain_stops_and_gives_the_state_of_the_best_epoch(backend):
    net, loss, state, data = run_problem(backend, fnn.Momentum(1.0))
    held = blobs(30, seed=5)
    options = {"batch_size": 8, "validation": held}
    _, whole = fnn.fit(net, loss, state, data, epochs=30, **options)
    stopped, history = fnn.fit(net, loss, state, data, epochs=30, patience=3, **options)
    values = whole["validation_loss"]
    least = np.minimum.accumulate(values)
    waited = [epoch - int(np.argmin(values[: epoch + 1])) for epoch in range(30)]
    last = waited.index(3)
    assert 3 < last + 1 < 30
    np.testing.assert_array_equal(history["validation_loss"], values[: last + 1])
    best = int(np.argmin(values[: last + 1]))
    assert int(stopped.step) == (best + 1) * 7
    assert fnn.evaluate(net, loss, stopped.params, held)["loss"] == pytest.approx(least[last])
    on, _ = fnn.fit(net, loss, stopped, data, epochs=1, batch_size=8)
    again, _ = fnn.fit(net, loss, state, data, epochs=best + 2, batch_size=8)
    same(on.params, again.params, 1e-6)


@on_numpy_at_least
def test_patience_watches_the_validation_data_and_a_threshold_the_loss_of_training(backend):
    rng = np.random.default_rng(0)
    net, loss, state, (x, y) = run_problem(backend, fnn.Adam(0.01), fnn.mlp((32, 3)))
    noise = x, np.where(np.arange(50) % 3, y, (y + 1) % 3)  # a third of the labels can be learnt by heart only
    held = x + rng.normal(size=x.shape), y
    options = {"epochs": 25, "batch_size": 10, "validation": held}
    _, whole = fnn.fit(net, loss, state, noise, **options)
    best = int(np.argmin(whole["validation_loss"]))
    assert 0 < best < 10 < int(np.argmin(whole["loss"])), "it overfits"
    late, history = fnn.fit(net, loss, state, noise, patience=24, **options)
    assert int(late.step) == 5 * (best + 1), "the best state, though nothing stopped the run"
    assert len(history["loss"]) == 25
    _, history = fnn.fit(net, loss, state, noise, patience=3, **options)
    assert len(history["loss"]) == best + 4
    between = float(whole["loss"][15])
    assert whole["validation_loss"].min() > between
    _, history = fnn.fit(net, loss, state, noise, stop_below=between, **options)
    assert 10 < len(history["loss"]) < 25


@on_numpy_at_least
def test_metrics_that_are_arrays_are_kept_as_such(backend):
    net, loss, state, data = run_problem(backend)
    metrics = {"confusion": fnn.confusion_matrix}
    _, history = fnn.fit(net, loss, state, data, epochs=2, batch_size=10, validation=data, metrics=metrics)
    assert history["validation_confusion"].shape == (2, 3, 3)
    _, compiled = fnn.train(net, loss, state, data, epochs=2, batch_size=10, validation=data, metrics=metrics)
    np.testing.assert_allclose(history["validation_confusion"], compiled["validation_confusion"])


def test_a_metric_that_changes_its_shape_is_refused_and_nothing_is_lost():
    net, loss, state, data = run_problem("numpy")
    calls: list = []
    grows = lambda p, y: np.ones(len(calls) + (calls.append(1) or 1))
    with pytest.raises(errors.ShapeError, match=r"validation_m of shape \(1,\) after each epoch, got \(2,\)") as caught:
        fnn.fit(net, loss, state, data, epochs=3, batch_size=10, validation=data, metrics={"m": grows})
    assert caught.value.history["loss"].shape == (1,)
    assert int(caught.value.state.step) == 10


@on_numpy_at_least
def test_metrics_named_loss_or_without_data_are_refused(backend):
    net, loss, state, data = run_problem(backend)
    with pytest.raises(errors.ArgumentError, match="names other than 'loss'"):
        fnn.fit(net, loss, state, data, epochs=1, batch_size=10, validation=data, metrics={"loss": fnn.accuracy})
    with pytest.raises(errors.ArgumentError, match="metrics: expected validation data too"):
        fnn.fit(net, loss, state, data, epochs=1, batch_size=10, metrics={"accuracy": fnn.accuracy})


@on_numpy_at_least
def test_patience_without_validation_watches_the_loss_of_training(backend):
    net, loss, state, data = run_problem(backend, fnn.Sgd(0.0))  # nothing is ever gained but rounding
    _, history = fnn.fit(net, loss, state, data, epochs=20, batch_size=50, patience=2)
    assert len(history["loss"]) < 20


NAN = np.nan
WATCHED = {  # scores, arguments; how many epochs were run, and the index of the one returned
    "small": ([5, 4, 6, 3, 4, 4, 1], {"patience": 2, "mode": "min"}, 6, 3),
    "large": ([5, 4, 6, 3, 4, 4, 7], {"patience": 4, "mode": "max"}, 7, 6),
    "large, stopped": ([5, 4, 6, 3, 4, 4, 7], {"patience": 3, "mode": "max"}, 6, 2),
    "equal is no gain": ([1, 1, 1, 1], {"patience": 2, "mode": "min"}, 3, 0),
    "too small a gain": ([8, 7.5, 7, 6.5, 6, 5], {"patience": 3, "mode": "min", "min_delta": 1.0}, 6, 5),
    "more than the least gain": ([8, 7.5, 7, 6.5, 6.5, 5], {"patience": 2, "mode": "min", "min_delta": 0.5}, 5, 2),
    "never enough": ([8, 7.5, 7, 6.5, 6, 5], {"patience": 2, "mode": "max", "min_delta": 9.0}, 3, 0),
    "later": ([1, 2, 5, 4, 6, 6, 7], {"patience": 2, "mode": "min", "start_after": 2}, 6, 3),
    "ended too early": ([1, 2, 5], {"patience": 2, "mode": "min", "start_after": 9}, 3, 2),
    "never a number": ([NAN, NAN, NAN, NAN], {"patience": 3, "mode": "max"}, 3, -1),
    "no number at first": ([NAN, 3, NAN, 4], {"patience": 2, "mode": "max"}, 4, 3),
    "no number after the start": ([5, 6, NAN, NAN], {"patience": 2, "mode": "max", "start_after": 2}, 4, 1),
}


@pytest.mark.parametrize("name", WATCHED)
def test_patience_watches_any_metric_in_either_direction_and_says_which_epoch_is_returned(name):
    scores, how, epochs, returned = WATCHED[name]
    watched = scores[how.get("start_after", 0) :]
    never = len(watched) > 0 and np.isnan(watched).all()
    warned = r"validation_\w+ was NaN after every epoch that is watched, so that the state returned is "
    with pytest.warns(UserWarning, match=warned) if never else contextlib.nullcontext():
        state, history = scored(scores, **how)
    assert len(history["loss"]) == epochs
    assert history["returned_epoch"] == returned
    assert int(state.epoch) == int(state.step) == returned + 1


@on_numpy_at_least
def test_patience_goes_on_where_it_was_when_a_run_is_resumed(backend, tmp_path):
    scores, how, epochs, returned = WATCHED["later"]
    how = how | {"checkpoint": tmp_path, "resume": True}
    for epoch in range(1, 6):
        scored(scores[epoch - 1 :], backend, epochs=epoch, **how)
    state, history = scored(scores[5:], backend, epochs=7, **how)
    assert (len(history["loss"]), history["returned_epoch"], int(state.epoch)) == (epochs, returned, returned + 1)
    again, history = scored([], backend, epochs=7, **how | {"patience": 1})
    assert int(again.epoch) == returned + 1, "and what is done is not done again, with less patience either"
    for other in ({"mode": "max"}, {"min_delta": 0.5}, {"start_after": 3}, {"monitor": "validation_loss"}):
        with pytest.raises(errors.ArgumentError, match=r"got another: (monitor|start_after)"):
            scored([], backend, epochs=7, **how | other)


def test_patience_watches_the_metrics_of_a_rule_or_names_those_that_there_are():
    net, loss, _, data = run_problem("numpy")
    how = {"key": key(), "epochs": 3, "batch_size": 25, "patience": 1, "rule": Smoothed(0.5)}
    _, history = fnn.fit(net, loss, fnn.Sgd(0.1), data, monitor="steps", mode="min", **how)
    assert history["steps"].tolist() == [0.5, 2.5]
    assert history["returned_epoch"] == 0
    with pytest.raises(errors.ArgumentError, match="monitor: expected one of loss, noise, steps, got 'stepz'"):
        fnn.fit(net, loss, fnn.Sgd(0.1), data, monitor="stepz", mode="min", **how)


NO_WATCH = [
    ({"monitor": "validation_f1", "mode": "max"}, "monitor: expected one of loss, validation_loss, validation_score"),
    ({"monitor": "score", "mode": "max"}, "monitor: expected one of loss, validation_loss, validation_score"),
    ({"monitor": "validation_score"}, "mode: expected 'min' or 'max' with monitor='validation_score', got None"),
    ({"monitor": None, "mode": "up"}, "mode: expected 'min' or 'max'"),
    ({"monitor": 3}, "monitor: expected the name"),
    ({"mode": "max", "min_delta": -1.0}, "min_delta >= 0"),
    ({"mode": "max", "start_after": -1}, "start_after: expected an integer of at least 0"),
    ({"patience": None, "mode": "max"}, "monitor, mode, min_delta, start_after: expected patience too"),
    ({"patience": None, "monitor": None, "start_after": 1}, "expected patience too"),
]


@pytest.mark.parametrize(("wrong", "says"), NO_WATCH)
def test_what_cannot_be_watched_is_refused_before_the_run(wrong, says):
    with pytest.raises((errors.ArgumentError, errors.KindError), match=says) as raised:
        scored([1, 2], **{"patience": 1} | wrong)
    assert not hasattr(raised.value, "state")


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": 1.5}, {"stop_below": np.nan}, {"stop_below": "0.1"}])
@on_numpy_at_least
def test_a_rule_to_stop_that_makes_no_sense_is_refused(wrong, backend):
    net, loss, state, data = run_problem(backend)
    with pytest.raises((errors.ArgumentError, errors.KindError), match=next(iter(wrong))):
        fnn.fit(net, loss, state, data, epochs=1, batch_size=8, **wrong)


@on_numpy_at_least
def test_a_bar_is_shown_when_asked_and_not_where_nobody_looks(capsys, backend):
    pytest.importorskip("tqdm")
    net, loss, state, data = run_problem(backend)
    fnn.fit(net, loss, state, data, epochs=2, batch_size=10)
    assert capsys.readouterr().err == ""
    fnn.fit(net, loss, state, data, epochs=2, batch_size=10, validation=data, progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "loss=" in shown
    assert "val_loss=" in shown


class Sink:
    """A logger in the place of a stream, as windowed programs have it."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


@pytest.mark.parametrize("progress", [None, True])
def test_a_fit_runs_without_a_terminal_or_on_one_that_knows_few_characters(progress, monkeypatch):
    pytest.importorskip("tqdm")
    net, loss, state, data = run_problem("numpy")
    closed, sink = io.StringIO(), Sink()
    closed.close()
    narrow = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for encoding in ("cp1252", "cp437", "ascii")]
    for stream in (None, closed, sink, *narrow):
        monkeypatch.setattr(sys, "stderr", stream)
        metrics = {"précision ‖δ‖": fnn.accuracy}
        fnn.fit(net, loss, state, data, epochs=1, batch_size=50, validation=data, metrics=metrics, progress=progress)
    assert ("1/1" in sink.text) == bool(progress)
    assert all((b"pr?cision ???=" in s.buffer.getvalue()) == bool(progress) for s in narrow if s.encoding == "ascii")


def test_a_bar_that_was_asked_for_and_is_not_installed_names_its_extra(monkeypatch):
    net, loss, state, data = run_problem("numpy")
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install 'fnn\[progress\]'"):
        fnn.fit(net, loss, state, data, epochs=1, batch_size=10, progress=True)


def test_a_fit_says_what_is_missing_or_too_much():
    net, loss, state, data = run_problem("numpy")
    with pytest.raises(errors.KindError, match="key: expected a key"):
        fnn.fit(net, loss, fnn.Sgd(0.1), data, epochs=1, batch_size=10)
    with pytest.raises(errors.ArgumentError, match="has its own key"):
        fnn.fit(net, loss, state, data, key=key(), epochs=1, batch_size=10)
    with pytest.raises(errors.KindError, match="functions by name"):
        fnn.fit(net, loss, state, data, metrics=[fnn.accuracy], epochs=1, batch_size=10)
    with pytest.raises(errors.KindError, match=r"penalty.*got 0\.1"):
        fnn.fit(net, loss, state, data, penalty=0.1, epochs=1, batch_size=10)


@on_numpy_at_least
def test_a_range_test_is_a_run_whose_rate_grows_in_equal_proportions(backend):
    net, loss, _, data = run_problem(backend)
    options = {"epochs": 30, "batch_size": 25, "key": key(backend)}
    rates, losses = fnn.range_test(net, loss, fnn.Momentum(7.0), data, low=1e-3, high=100.0, **options)
    assert rates.shape == losses.shape == (60,)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 1e5 ** (1 / 60), rtol=1e-4)
    assert rates[0] == pytest.approx(1e-3)
    assert losses.min() < 0.5 * losses[0], "between too small and too large it learns"
    assert losses[-10:].max() > 2 * losses.min(), "in the end it diverges"
    with pytest.raises(errors.KindError, match="optimizer: expected one with a learning_rate"):
        fnn.range_test(net, loss, fnn.MaxNorm(fnn.Sgd(0.1), 1.0), data, **options)
    with pytest.raises(errors.KindError, match="expected one with a learning_rate"):
        fnn.range_test(net, loss, fnn.Sgd, data, **options)
    with pytest.raises(errors.ArgumentError, match="high > 2"):
        fnn.range_test(net, loss, fnn.Sgd(0.1), data, low=2.0, high=1.0, **options)
    with pytest.raises(errors.ArgumentError, match="low"):
        fnn.range_test(net, loss, fnn.Sgd(0.1), data, low=0.0, **options)


def test_a_fit_that_is_traced_is_refused_by_name(needs_jax):
    net, loss, state, (x, y) = run_problem("jax")
    options = {"epochs": 1, "batch_size": 50}
    by_key = lambda key: fnn.fit(net, loss, fnn.Sgd(0.1), (x, y), key=key, **options)
    by_data = lambda x: fnn.fit(net, loss, state, (x, y), **options)
    by_validation = lambda x: fnn.fit(net, loss, state, data, validation=(x, y), **options)
    data, says = (x, y), "fit runs on the host and cannot be traced, by jax.jit, jax.vmap or fnn.sweep; use fnn.train"
    keys = fnn.random.split(key("jax"), 2)
    for call in (
        lambda: fnn.sweep(by_key, keys),
        lambda: needs_jax.jit(by_key)(keys[0]),
        lambda: needs_jax.vmap(by_data)(x[None]),
        lambda: needs_jax.jit(by_validation)(x),
    ):
        with pytest.raises(errors.KindError, match=says):
            call()
    for name, f in {
        "evaluate": lambda params: fnn.evaluate(net, loss, params, (x, y)),
        "diagnose": lambda params: fnn.diagnose(net, loss, params, x, y),
        "range_test": lambda params: fnn.range_test(
            net, loss, fnn.Sgd(1), (x + params[0].w.sum(), y), key=keys[0], **options
        ),
    }.items():
        with pytest.raises(errors.KindError, match=f"{name} runs on the host"):
            needs_jax.jit(f)(state.params)


# ---- runs that end in an error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, errors.DataError])
@on_numpy_at_least
def test_an_error_during_a_fit_has_the_state_and_the_history(error, backend):
    net, loss, state, data = run_problem(backend, fnn.Momentum(1.0))
    options = {"batch_size": 8, "validation": blobs(30, seed=5)}
    calls = []

    def metric(prediction, y):
        calls.append(None)
        if len(calls) == 4:
            raise error
        return -len(calls)

    with pytest.raises(error) as raised:
        fnn.fit(net, loss, state, data, epochs=9, metrics={"own": metric}, patience=9, **options)
    assert "after step 28" in raised.value.__notes__[0]
    whole, history = fnn.fit(net, loss, state, data, epochs=4, **options)
    same(raised.value.state, whole)
    np.testing.assert_array_equal(raised.value.history["loss"], history["loss"][:3])
    assert raised.value.history["validation_own"].tolist() == [-1, -2, -3]
    best = int(np.argmin(history["validation_loss"][:3]))
    assert int(raised.value.best.step) == 7 * (best + 1)


def test_a_failed_save_leaves_the_state_in_the_error(tmp_path, monkeypatch):
    net, loss, state, data = run_problem("numpy")
    monkeypatch.setattr(fnn.checkpoints, "save", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        fnn.fit(net, loss, state, data, epochs=3, batch_size=50, checkpoint=tmp_path)
    assert int(raised.value.state.step) == len(raised.value.history["loss"]) == 1
    assert raised.value.best is None


# ---- runs that diverge -----------------------------------------------------------------------------------------------

WILD = {
    "rate": (fnn.mlp((16, 3)), fnn.Sgd(1e4), "errors at|outputs of|gradient of"),
    "outputs": (fnn.mlp((16,) * 4 + (3,), fnn.Relu(), fnn.Normal(1e10)), fnn.Sgd(0.1), "the outputs of 6 Dense are"),
    "step": (fnn.mlp((16, 3)), fnn.Sgd(1e38), "the optimizer's step is|outputs of"),
}


@pytest.mark.parametrize("name", WILD)
@pytest.mark.thorough(backend="jax")
def test_a_run_that_diverges_stops_and_names_the_step_and_the_layer(name, backend):
    if backend == "jax" and name != "rate" and not THOROUGH:
        pytest.skip("the thorough profile has all on JAX, too")
    net, optimizer, says = WILD[name]
    (x, _), loss = blobs(40), fnn.Quadratic()
    data = (x, np.eye(3, dtype=np.float32)[np.arange(40) % 3])
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(errors.DivergenceError, match=says) as raised:
        fnn.fit(net, loss, optimizer, data, key=key(backend), epochs=50, batch_size=10)
    error, step = raised.value, int(raised.value.state.step)
    assert str(error).startswith(f"step {step} (epoch {step // 4}): ")
    assert len(error.history.get("loss", ())) == step // 4
    assert error.best is None
    leaves = [np.asarray(leaf) for leaf in trees.leaves(error.state.params)]
    assert all(np.isfinite(leaf).all() for leaf in leaves), "the state is the last good one"
    with np.errstate(over="ignore", invalid="ignore"):
        after, _ = fnn.train(net, loss, error.state, data, steps=1, batch_size=10)
        again, _ = fnn.train(net, loss, after, data, steps=1, batch_size=10)
    assert not all(np.isfinite(np.asarray(leaf)).all() for leaf in trees.leaves((after.params, again.params)))


@on_numpy_at_least
def test_a_run_that_begins_with_what_is_not_finite_is_told_so(backend):
    net, (x, y) = fnn.mlp((16, 3)), blobs(40)
    state = fnn.init_state(net, fnn.Sgd(0.1), key(backend), x.shape[1:])
    state = state._replace(params=trees.map(lambda p: p * np.float32(np.nan), state.params))
    says = r"step 0 \(epoch 0\): the loss is nan, and the outputs of 0 Dense are not finite"
    with pytest.raises(errors.DivergenceError, match=says):
        fnn.fit(net, fnn.SoftmaxCrossEntropy(), state, (x, y), epochs=1, batch_size=10)


@on_numpy_at_least
def test_steps_that_are_not_finite_are_left_out_and_counted_if_that_is_asked(backend):
    (x, _), loss = blobs(40), fnn.Quadratic()
    x[7] = 3e38  # one example whose loss overflows
    data = (x, np.eye(3, dtype=np.float32)[np.arange(40) % 3])
    how = {"key": key(backend), "epochs": 3, "batch_size": 10}
    with np.errstate(over="ignore", invalid="ignore"):
        state, history = fnn.fit(fnn.mlp((16, 3)), loss, fnn.SkipNonFinite(fnn.Sgd(0.01)), data, **how)
        with pytest.raises(errors.DivergenceError):
            fnn.fit(fnn.mlp((16, 3)), loss, fnn.Sgd(0.01), data, **how)
    assert int(state.opt_state.skipped) == 3
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize(
    "optimizer", [fnn.Sgd(1e38), fnn.PerLayer((fnn.SkipNonFinite(fnn.Sgd(0.1)), None, fnn.Sgd(1e38)))]
)
def test_parameters_that_become_infinite_are_an_error_unless_all_steps_are_skipped(optimizer):
    net, _, _, (x, y) = run_problem("numpy")
    data, how = (x, np.eye(3)[y]), {"key": key(), "epochs": 3, "batch_size": 50}
    with np.errstate(all="ignore"):
        with pytest.raises(errors.DivergenceError):
            fnn.fit(net, fnn.Quadratic(), optimizer, data, **how)
        state, _ = fnn.fit(net, fnn.Quadratic(), fnn.MaxNorm(fnn.SkipNonFinite(fnn.Sgd(1e38)), 1e30), data, **how)
    assert all(np.isfinite(leaf).all() for leaf in trees.leaves(state.params))


# ---- many runs in one process ----------------------------------------------------------------------------------------


def memory_maps():
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not THOROUGH or not Path("/proc/self/maps").exists(), reason="thorough profile, on Linux")
def test_networks_of_any_number_of_sizes_are_trained_in_one_process(needs_jax, monkeypatch):
    monkeypatch.setattr(fnn.backend.programs, "PROGRAMS", 12)
    data, maps, counts = (np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)), [], []
    for size in range(24):
        net = fnn.mlp((3 + size, 1))
        with compilations() as programs:
            fnn.fit(net, fnn.Quadratic(), fnn.Sgd(0.1), data, key=key("jax"), epochs=2, batch_size=8)
        counts.append(len(programs))
        maps.append(memory_maps())
    assert sorted(counts)[12] <= 3, "the parameters, the optimizer's state and the steps, but where all were dropped"
    assert max(maps[12:]) <= max(maps[:12]) + 20


def test_a_loss_that_stays_far_above_that_of_the_first_epoch_is_a_warning_that_says_what_helps(backend):
    net, data, key = fnn.Dense(1, bias=False), (np.ones((4, 1)), np.zeros((4, 1))), fnn.random.key(0, backend=backend)
    run = lambda rate, epochs: fnn.fit(net, fnn.Quadratic(), fnn.Sgd(rate), data, key=key, epochs=epochs, batch_size=4)
    with pytest.warns(UserWarning, match="the loss rose from .* lower learning rate; x and y of spread 1") as caught:
        _, history = run(5.0, 3)  # each step multiplies w by 1 − 5
    np.testing.assert_allclose(history["loss"][1:] / history["loss"][:-1], 16, rtol=1e-5)
    assert caught[0].filename == __file__, "the warning shows the line that calls fit"
    run(4.0, 2)  # a warning would be an error here: 9 times is less than 10
    run(5.0, 1)
    run(0.1, 3)

"""A run on batches of an iterable is the run on the arrays that they are cut from; what is wrong with one is named."""

import itertools
import signal

import numpy as np
import pytest
from helpers import BACKENDS, key, wide
from helpers_training import same

import fnn
from fnn import Batches, errors, examples
from fnn.streams import Stream

NET, LOSS = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Dropout(0.2), fnn.Dense(3))), fnn.SoftmaxCrossEntropy()
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(23, 5)), RNG.integers(0, 3, 23), RNG.integers(1, 3, 23).astype(np.float64)


def cut(*arrays, size=5):
    """The arrays in batches of 5, the last of 3."""
    return [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]


def fit(data, backend="numpy", optimizer=None, dtype=np.float64, **options):
    state = fnn.init_state(NET, optimizer or fnn.Adam(0.01), key(backend), (5,), dtype)
    return fnn.fit(NET, LOSS, state, data, **{"epochs": 2} | options)


def of_arrays(*arrays, **options):
    return fit(arrays, batch_size=5, shuffle=False, **options)


# ---- the same run ----------------------------------------------------------------------------------------------------


def check_equal(ours, theirs, tolerance=0):
    """The same parameters, state of the optimizer and history; the length of an epoch counts full batches."""
    for name in ("params", "opt_state", "key", "step", "epoch", "seen"):
        same(getattr(ours[0], name), getattr(theirs[0], name), tolerance)
    same(ours[1], theirs[1], tolerance)
    assert ours[0].length == 25


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.thorough(backend="jax")
def test_a_run_on_batches_is_the_run_on_the_arrays(backend):
    with wide():
        ours = fit(Batches(cut(X, Y, W)), backend, validation=Batches(cut(X, Y, W)))
        check_equal(ours, of_arrays(X, Y, W, backend=backend, validation=(X, Y, W)), 0 if backend == "numpy" else 1e-12)


def test_a_compiled_run_on_batches_is_the_run_on_the_arrays(needs_jax):
    net, loss, optimizer = fnn.mlp((3,)), fnn.Quadratic(), fnn.Sgd(0.1)
    options = {"key": key("jax"), "epochs": 2}
    ours, _ = fnn.fit(net, loss, optimizer, Batches(cut(X, X[:, :3])), **options)
    theirs, _ = fnn.fit(net, loss, optimizer, (X, X[:, :3]), batch_size=5, shuffle=False, **options)
    same(ours.params, theirs.params, 1e-6)


SOURCES = {
    "a list": lambda: Batches(cut(X, Y)),
    "batches as lists": lambda: Batches([list(batch) for batch in cut(X.tolist(), Y.tolist())]),
    "a generator function": lambda: Batches(lambda: iter(cut(X, Y)), steps=5),
    "a function of the epoch": lambda: Batches(lambda epoch: cut(X, Y), steps=5),
    "an iterator without end": lambda: Batches(itertools.cycle(cut(X, Y)), steps=5),
    "more batches than steps": lambda: Batches(cut(X, Y) + cut(X, Y), steps=5),
    "what has only items": lambda: Batches(type("Items", (), {"__getitem__": lambda self, i: cut(X, Y)[i]})(), steps=5),
}


@pytest.mark.parametrize("name", SOURCES)
def test_so_it_is_from_any_iterable(name):
    check_equal(fit(SOURCES[name]()), of_arrays(X, Y))


def test_telemetry_is_of_the_first_batch():
    _, history = fit(Batches(cut(X, Y)), telemetry=100)
    _, expected = of_arrays(X[:5], Y[:5], telemetry=100)  # before the first step they have the same parameters
    assert history["telemetry"].dead.shape == expected["telemetry"].dead.shape == (2, 4)


def test_batches_are_read_a_few_at_a_time_and_no_sooner(monkeypatch):
    monkeypatch.setattr(examples, "AT_ONCE", 2 * 5 * 48)  # two batches of 5
    read = []

    def batches():
        for i, batch in enumerate(cut(X, Y)):
            read.append(i)
            yield batch

    stream = Stream(Batches(batches, steps=5))
    stream.admit(NET, LOSS, NET.init(key(), (5,)))
    for done, expected in (0, 2), (2, 4):
        stream.read(0, done, 2)
        assert len(read) == expected
    check_equal(fit(Batches(batches, steps=5)), of_arrays(X, Y))


def test_a_batch_may_be_smaller_anywhere_and_larger_if_fit_is_told():
    uneven = [*cut(X, Y)[::-1]]  # that of 3 comes first
    with pytest.raises(errors.ShapeError, match=r"batch 1 of epoch 0: expected at most 3.*batch_size=5"):
        fit(Batches(uneven))
    state, _ = fit(Batches(uneven), batch_size=5)
    steps = fnn.make_step(NET, LOSS)
    expected = fnn.init_state(NET, fnn.Adam(0.01), key(), (5,), np.float64)
    for _ in range(2):
        for batch in uneven:
            expected, _ = steps(expected, batch)
    same(state.params, expected.params, 1e-12)


def test_a_loader_may_fill_the_same_memory_again():
    x, y = np.empty((5, 5)), np.empty(5, int)

    def batches():
        for i in range(0, 20, 5):
            x[:], y[:] = X[i : i + 5], Y[i : i + 5]
            yield x, y

    ours, _ = fit(Batches(batches, steps=4), telemetry=5)
    same(ours.params, of_arrays(X[:20], Y[:20])[0].params)


def test_an_epoch_of_a_function_is_that_of_the_state():
    asked = []
    data = Batches(lambda epoch: asked.append(epoch) or cut(X, Y), steps=5)
    state, _ = fit(data)
    fnn.fit(NET, LOSS, state, data, epochs=1)
    assert asked == [0, 1, 2]


def test_validation_batches_are_always_those_of_epoch_0():
    asked = []
    validation = Batches(lambda epoch: asked.append(epoch) or cut(X, Y), steps=5)
    fit(Batches(cut(X, Y)), validation=validation, epochs=3)
    assert asked == [0, 0, 0]


def test_evaluation_and_a_range_test_take_batches():
    params = NET.init(key(), (5,), np.float64)
    metrics = {"accuracy": fnn.accuracy, "all": lambda p, y, w: p}
    ours, theirs = (
        fnn.evaluate(NET, LOSS, params, data, metrics=metrics) for data in (Batches(cut(X, Y, W)), (X, Y, W))
    )
    np.testing.assert_allclose(ours.pop("all"), theirs.pop("all"), rtol=1e-12)
    assert ours == pytest.approx(theirs, rel=1e-12)
    without_steps = fnn.evaluate(NET, LOSS, params, Batches(lambda: iter(cut(X, Y))))
    assert without_steps == pytest.approx(fnn.evaluate(NET, LOSS, params, (X, Y)), rel=1e-12)
    some = fnn.evaluate(NET, LOSS, params, Batches(cut(X, Y), steps=2))
    assert some == pytest.approx(fnn.evaluate(NET, LOSS, params, (X[:10], Y[:10])), rel=1e-12)
    rates, losses = fnn.range_test(NET, LOSS, fnn.Sgd(1), Batches(cut(X, Y)), epochs=2, key=key())
    assert rates.shape == losses.shape == (10,)
    assert np.isfinite(losses).all()
    with pytest.raises(errors.DataError, match="a weight above 0"):
        fnn.evaluate(NET, LOSS, params, Batches(cut(X, Y, 0 * W)))


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_on_a_dataloader_is_the_run_on_the_arrays(backend):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(*map(torch.tensor, (X, Y, W)))
    loader = torch.utils.data.DataLoader(data, batch_size=5)
    with wide():
        ours = fit(Batches(loader), backend, validation=Batches(loader))
        check_equal(ours, of_arrays(X, Y, W, backend=backend, validation=(X, Y, W)), 0 if backend == "numpy" else 1e-12)
        predictions = (fnn.predict(NET, LOSS, ours[0].params, x) for x in (Batches(loader), X))
        np.testing.assert_allclose(*predictions, rtol=1e-12)


def test_tensors_keep_their_dtype(needs_jax):
    torch = pytest.importorskip("torch")
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool"):
        assert fnn.checks.as_array("x", torch.ones(2, dtype=getattr(torch, name)), np).dtype == np.dtype(name)
    with pytest.raises(errors.KindError, match="detach"):
        fnn.checks.as_array("x", torch.ones(2, requires_grad=True), np)


# ---- stopping and going on -------------------------------------------------------------------------------------------


def shuffled(epoch):
    """Another order in each epoch, the same whenever that epoch is read."""
    order = np.random.default_rng(epoch).permutation(23)
    return cut(X[order], Y[order])


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    data, options = Batches(shuffled, steps=5), {"checkpoint": tmp_path, "resume": True}
    expected = fit(data, epochs=3)
    fit(data, epochs=1, **options)
    same(fit(data, epochs=3, **options), expected)
    with pytest.raises(errors.ArgumentError, match=r"data is 5 batches of x \(N, 5\) float64, .* 4 batches"):
        fit(Batches(shuffled, steps=4), epochs=4, **options)
    with pytest.raises(errors.ArgumentError, match="resume: expected data that can be read again"):
        fit(Batches(iter(cut(X, Y)), steps=5), epochs=4, **options)


def test_a_run_that_is_interrupted_within_an_epoch_goes_on_where_it_was(tmp_path):
    def interrupted(epoch):
        for i, batch in enumerate(shuffled(epoch)):
            if (epoch, i) == (1, 2):
                signal.raise_signal(signal.SIGINT)
            yield batch

    options = {"checkpoint": tmp_path, "resume": True, "epochs": 3}
    with pytest.raises(KeyboardInterrupt):
        fit(Batches(interrupted, steps=5), **options)
    assert int(fnn.checkpoints.load(sorted(tmp_path.glob("*.npz"))[-1], backend="numpy").tree["state"].step) == 8
    same(fit(Batches(shuffled, steps=5), **options), fit(Batches(shuffled, steps=5), epochs=3))


def test_batches_within_an_epoch_are_found_again():
    def opened():
        stream = Stream(Batches(shuffled, steps=5))
        stream.admit(NET, LOSS, NET.init(key(), (5,), np.float64))
        return stream

    whole = opened()
    for epoch in range(2):
        for done in range(5):
            found = opened().read(epoch, done, 1)
            same(tuple(found), tuple(whole.read(epoch, done, 1)))
            same(tuple(whole.read(epoch, done, 1)), tuple(found))  # again
            np.testing.assert_array_equal(found.x[0, :3], shuffled(epoch)[done][0][:3])


def test_a_run_that_diverges_names_the_step_and_holds_the_state_before():
    with pytest.raises(errors.DivergenceError) as ours, np.errstate(all="ignore"):
        fit(Batches(cut(X, Y)), optimizer=fnn.Sgd(1e308))
    with pytest.raises(errors.DivergenceError) as theirs, np.errstate(all="ignore"):
        of_arrays(X, Y, optimizer=fnn.Sgd(1e308))
    assert str(ours.value) == str(theirs.value)
    same(ours.value.state.params, theirs.value.state.params)


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def changed(f, i=2):
    """The batches with a change of batch i."""
    batches = cut(X, Y)
    batches[i] = f(*batches[i])
    return Batches(batches)


def with_nan(x, y):
    x = x.copy()
    x[1, 3] = np.nan
    return x, y


ONCE = "an iterator can be read only once: give a function"
WRONG = {
    "ends in epoch 1": (lambda: Batches(iter(cut(X, Y)), steps=5), f"expected 5 batches .*, got 0 in epoch 1.*{ONCE}"),
    "a function of one generator": (
        lambda: Batches(iter([iter(cut(X, Y)), iter(())]).__next__, steps=5),
        "got 0 in epoch 1 from .*; it must give its batches anew",
    ),
    "ends too early": (lambda: Batches(lambda: cut(X, Y), steps=7), "expected 7.*, got 5 in epoch 0 .*write steps=5"),
    "is empty": (lambda: Batches(lambda: iter(()), steps=7), "got 0 in epoch 0 from .*it must not be empty"),
    "has no length": (lambda: Batches(iter(cut(X, Y))), "expected the number of batches in an epoch.*steps=100"),
    "gives none": (lambda: Batches(lambda: None, steps=5), "to return batches, got None"),
    "NaN": (lambda: changed(with_nan), r"batch 2 of epoch 0: x: expected finite numbers, got nan at x\[1, 3\]"),
    "a label": (lambda: changed(lambda x, y: (x, y + 3)), "batch 2 of epoch 0: y: expected labels from 0 to 2"),
    "another width": (lambda: changed(lambda x, y: (x[:, :4], y)), r"batch 2 of epoch 0: .*\(N, 5\), .*got \(5, 4\)"),
    "weights now": (
        lambda: changed(lambda x, y: (x, y, 1.0 * y)),
        "batch 2 of epoch 0: expected x, y, as in the first",
    ),
    "no targets": (lambda: changed(lambda x, y: x), "batch 2 of epoch 0: expected .x, y. or .x, y, weights."),
    "None for targets": (lambda: changed(lambda x, y: (x, None)), "batch 2 of epoch 0: y: expected targets, got None"),
    "a dict": (
        lambda: changed(lambda x, y: {"x": x, "y": y}),
        r"batch 2 of epoch 0: .*\(b\['x'\], b\['y'\]\) for b in",
    ),
    "another type": (
        lambda: changed(lambda x, y: (x, y.astype("u1"))),
        "y of shape .N,. and dtype int64, as in the fir",
    ),
    "nothing in it": (
        lambda: changed(lambda x, y: (x[:0], y[:0])),
        "batch 2 of epoch 0: x: expected at least one example",
    ),
    "fewer targets": (
        lambda: changed(lambda x, y: (x, y[:3])),
        "batch 2 of epoch 0: y: expected a target for each of 5",
    ),
    "an example": (
        lambda: changed(lambda x, y: (x[0], y[0])),
        "batch 2 of epoch 0: expected many examples at a time, got a single one; .*DataLoader",
    ),
    "a number": (lambda: changed(lambda x, y: (1.0, y)), "batch 2 of epoch 0: expected many examples at a time"),
    "four parts": (
        lambda: changed(lambda x, y: (x, y, y, y)),
        r"batch 2 .* a tuple of 4; .* \(\(b\[0\], b\[1\]\) for b in",
    ),
    "all the data": (lambda: Batches((X, Y)), r"batch 0 .* got ndarray; .* pass \(x, y\) itself"),
    "the first": (lambda: changed(with_nan, 0), "batch 0 of epoch 0: x: expected finite numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_batch_is_said_with_its_number(name):
    make, message = WRONG[name]
    with pytest.raises(errors.FnnError, match=message):
        fit(make())
    if name not in ("ends in epoch 1", "a function of one generator", "has no length"):
        with pytest.raises(errors.FnnError, match=f"validation: .*{message}" if "batch 2" in message else message):
            fit(Batches(cut(X, Y)), validation=make())


def test_an_error_holds_what_the_run_has_reached():
    with pytest.raises(errors.DataError) as caught:
        fit(Batches(iter(cut(X, Y)), steps=5), epochs=3)
    assert int(caught.value.state.step) == 5
    assert len(caught.value.history["loss"]) == 1


def test_an_error_of_the_iterable_itself_passes_with_a_note_of_the_place():
    def broken():
        yield X[:5], Y[:5]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone") as caught:
        fit(Batches(broken, steps=5))
    assert "batch 1 of epoch 0 was being read from" in caught.value.__notes__[0]


BATCHES = Batches(cut(X, Y))
REFUSED = {
    "train": (
        lambda: fnn.train(NET, LOSS, fnn.init_state(NET, fnn.Sgd(0.1), key(), (5,)), BATCHES, epochs=1, batch_size=5),
        "data: expected arrays .x, y., got Batches.list, steps=5.; batches are taken by fnn.fit",
    ),
    "a rule with samples of its own": (lambda: fit_privately(BATCHES), "of which Private draws its own samples"),
    "an array": (lambda: Batches(X), "source: expected batches, got one array, ndarray"),
    "text": (lambda: Batches("x"), "source: expected an iterable"),
    "a class": (lambda: Batches(Stream), "source: expected an iterable"),
    "a function of something": (lambda: Batches(lambda size: [], steps=5), r"or of `epoch`, got one of \(size\)"),
    "a number": (lambda: Batches(3), "source: expected an iterable"),
    "none": (lambda: Batches([]), "source: expected at least one batch"),
    "too many steps": (lambda: Batches(cut(X, Y), steps=6), "steps: expected at most the number of batches, 5, got 6"),
    "no steps": (lambda: Batches(cut(X, Y), steps=0), "steps: expected an integer of at least 1"),
    "a generator itself": (lambda: fit(iter(cut(X, Y)), batch_size=5), "if batches, fnn.Batches.data."),
    "no batch size": (lambda: fit((X, Y)), "batch_size: expected the number of examples per step"),
}


def fit_privately(data):
    rule = fnn.rules.Private(max_norm=1.0, noise_multiplier=1.0)
    return fnn.fit(NET, LOSS, fnn.Sgd(0.1), data, key=key(), rule=rule, epochs=1)


@pytest.mark.parametrize("name", REFUSED)
def test_where_batches_cannot_be_used_that_is_said(name):
    call, message = REFUSED[name]
    with pytest.raises(errors.FnnError, match=message):
        call()

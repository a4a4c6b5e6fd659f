"""Data in a file make the run that the same data make in memory, and no more of them than some batches is there."""

import mmap
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import BACKENDS
from helpers_training import same

import fnn
from fnn import errors, examples, sources

NET, LOSS = fnn.Serial((fnn.Dense(8), fnn.Relu(), fnn.Dropout(0.2), fnn.Dense(3))), fnn.SoftmaxCrossEntropy()
RNG = np.random.default_rng(0)
X, Y, WEIGHTS = RNG.normal(size=(103, 5)), RNG.integers(0, 3, 103), RNG.integers(0, 3, 103).astype(np.float64)
HOW = {"epochs": 2, "batch_size": 10}


def in_file(path, array):
    """The array in a file; an empty one, which cannot be mapped, is a part of it."""
    np.save(path, array if len(array) else np.zeros((1, *array.shape[1:]), array.dtype))
    return np.load(path, mmap_mode="r")[: len(array)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """x, y and weights in files, of which three batches are read at a time."""
    monkeypatch.setattr(examples, "AT_ONCE", 3 * 10 * (40 + 8 + 8))
    return [in_file(tmp_path / f"{i}.npy", array) for i, array in enumerate((X, Y, WEIGHTS))]


def begin(backend, optimizer=None):
    return fnn.init_state(NET, optimizer or fnn.Adam(0.01), fnn.random.key(0, backend=backend), (5,))


# ---- the same run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.thorough(backend="jax")
def test_a_run_from_files_is_the_run_from_memory_to_the_byte(files, backend):
    x, y, _ = files
    more = {"metrics": {"accuracy": fnn.accuracy}, "telemetry": 20, **HOW}
    state, history = fnn.fit(NET, LOSS, begin(backend), (x, y), validation=(x, y), **more)
    expected, of_memory = fnn.fit(NET, LOSS, begin(backend), (X, Y), validation=(X, Y), **more)
    same(state.params, expected.params, 0 if backend == "numpy" else 1e-6)
    assert int(state.step) == 22
    for name in ("loss", "validation_accuracy", "telemetry"):  # XLA may sum otherwise in another program
        same(history[name], of_memory[name], 0 if backend == "numpy" else 1e-6)
    np.testing.assert_allclose(history["validation_loss"], of_memory["validation_loss"], rtol=1e-6)


CASES = {
    "weights": (lambda x, y, w: (x, y, w), lambda: (X, Y, WEIGHTS), {}),
    "weights in a file alone": (lambda x, y, w: (X, Y, w), lambda: (X, Y, WEIGHTS), {}),
    "x in a file alone": (lambda x, y, w: (x, Y.tolist(), WEIGHTS), lambda: (X, Y, WEIGHTS), {}),
    "part of a file": (lambda x, y, w: (x[3:83], y[3:83]), lambda: (X[3:83], Y[3:83]), {}),
    "backwards": (lambda x, y, w: (x[::-1], y[::-1]), lambda: (X[::-1], Y[::-1]), {}),
    "some features": (lambda x, y, w: (x[:, :5:2], y), lambda: (X[:, :5:2], Y), {}),
    "in order": (lambda x, y, w: (x, y), lambda: (X, Y), {"shuffle": False}),
    "batch gradient descent": (lambda x, y, w: (x, y), lambda: (X, Y), {"batch_size": 103}),
    "a penalty": (lambda x, y, w: (x, y), lambda: (X, Y), {"penalty": fnn.L2(0.01)}),
    "patience": (lambda x, y, w: (x, y), lambda: (X, Y), {"patience": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_so_it_is_whatever_lies_in_a_file(files, name):
    of_files, of_memory, more = CASES[name]
    key = fnn.random.key(1, backend="numpy")
    ours, theirs = (
        fnn.fit(NET, LOSS, fnn.Momentum(0.1), data, key=key, **HOW | more) for data in (of_files(*files), of_memory())
    )
    same(ours[0].params, theirs[0].params)
    same(ours[1], theirs[1])


def test_a_run_in_float64_keeps_its_digits_in_the_last_batch(files):
    state = fnn.init_state(NET, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (5,), np.float64)
    runs = [fnn.fit(NET, LOSS, state, data, **HOW)[0].params for data in (files[:2], (X, Y), (X, Y, np.ones(103)))]
    same(*runs[:2])
    same(*runs[1:])


@pytest.mark.parametrize("dtype", [">f8", "<f4", "u1", "<i2"])
def test_every_type_of_number_is_taken(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(examples, "AT_ONCE", 1000)
    x = (X * 10).clip(0).astype(dtype)
    runs = [
        fnn.fit(NET, LOSS, begin("numpy"), (array, Y), **HOW)[0].params for array in (in_file(tmp_path / "x.npy", x), x)
    ]
    same(*runs)


def test_a_checkpoint_goes_on_with_data_in_files(files, tmp_path):
    x, y, _ = files
    expected, _ = fnn.fit(NET, LOSS, begin("numpy"), (X, Y), epochs=3, batch_size=10)
    for epochs in (1, 3):
        how = {"epochs": epochs, "batch_size": 10, "checkpoint": tmp_path / "run", "resume": True}
        state, _ = fnn.fit(NET, LOSS, begin("numpy"), (x, y), **how)
    same(state, expected)


def test_a_run_that_diverges_names_the_same_step(files):
    x, y, _ = files
    told = []
    for data in ((x, y), (X, Y)):
        with pytest.raises(errors.DivergenceError) as caught, np.errstate(all="ignore"):
            fnn.fit(NET, LOSS, begin("numpy", fnn.Sgd(1e30)), data, **HOW)
        told.append(str(caught.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_and_metrics_of_files_are_those_of_memory(files, weighted):
    params = begin("numpy").params
    metrics = {"accuracy": fnn.accuracy, "all of them": lambda p, y, w=None: p}
    ours, theirs = (
        fnn.evaluate(NET, LOSS, params, data if weighted else data[:2], batch_size=10, metrics=metrics)
        for data in (files, (X, Y, WEIGHTS))
    )
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert ours["accuracy"] == theirs["accuracy"]
    np.testing.assert_allclose(ours["all of them"], theirs["all of them"], rtol=1e-6)


def test_a_range_test_reads_from_files_too(files):
    how = {"epochs": 2, "batch_size": 10, "key": fnn.random.key(0, backend="numpy"), "high": 1.0}
    same(
        fnn.range_test(NET, LOSS, fnn.Sgd(1), files[:2], **how),
        fnn.range_test(NET, LOSS, fnn.Sgd(1), (X, Y), **how),
    )


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_what_lies_in_a_file_is_seen_and_what_was_copied_is_not(files):
    x = files[0]
    for array in (x, x[3:], x[:, ::2], x[::-1], x.T, np.asarray(x), x.reshape(-1)):
        assert sources.mapped(array) is not None
    with open(x.filename, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as theirs:
        assert sources.mapped(np.frombuffer(theirs, np.uint8)) is None  # nobody knows in which mode
    for array in (X, np.array(x), x + 1, x[[1, 2]], [1.0], None, 3, np.float64(1)):
        assert sources.mapped(array) is None


VIEWS = {
    "whole": lambda x: x,
    "from a row on": lambda x: x[7:],
    "backwards": lambda x: x[::-1],
    "every third": lambda x: x[::3],
    "a column": lambda x: x[:, 2],
    "transposed": lambda x: x.T,
    "as an array": np.asarray,
    "within an axis": lambda x: x.reshape(-1, 7, 5)[:, 2:4, :],
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("view", VIEWS)
def test_rows_are_those_asked_for_of_any_view(tmp_path, monkeypatch, view, order):
    monkeypatch.setattr(sources, "_ROWS", 3)
    whole = np.asarray(np.arange(105 * 5).reshape(105, 5), order=order)
    np.save(tmp_path / "x.npy", whole)
    opened = np.load(tmp_path / "x.npy", mmap_mode="r")
    array, expected = VIEWS[view](opened), VIEWS[view](whole)
    for index in ([0], [4, 0, 2, 2, 1], list(range(len(expected)))[::-1], slice(1, 4), slice(2, 10**9)):
        index = index if isinstance(index, slice) else np.array(index, np.int32)
        found = sources.rows(array, index)
        np.testing.assert_array_equal(found, expected[index])
        assert sources.mapped(found) is None


def test_rows_far_into_a_file_are_found(tmp_path):
    far = np.memmap(tmp_path / "x", np.float32, "w+", offset=8200, shape=(1_100_000, 1000))  # 4.4 GB, nearly all holes
    far[1_099_999] = 7
    assert sources.rows(far, np.array([1_099_999, 700_000, 0], np.int32))[:, 0].tolist() == [7, 0, 0]


def test_a_mapping_that_copies_what_is_written_keeps_it(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100, 5)))
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    x[3] = 1
    assert sources.rows(x, np.arange(100)).sum() == sources.rows(x, slice(None)).sum() == x.sum() == 5


@pytest.mark.thorough
def test_no_more_than_some_batches_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "AT_ONCE", 2**18)
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=(20_000, 100))  # 16 MB
    y = np.memmap(tmp_path / "y", np.int64, "w+", shape=(20_000,))
    state = fnn.init_state(NET, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (100,))
    tracemalloc.start()
    fnn.fit(NET, LOSS, state, (x, y), validation=(x, y), epochs=1, batch_size=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20


def test_pages_that_were_read_are_given_back(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("no account of resident pages here")
    resident = lambda: int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    x = in_file(tmp_path / "x.npy", np.zeros((20_000, 400)))  # 64 MB
    before = resident()
    sources.rows(x, np.arange(20_000)[::-1])
    assert resident() - before < 8 * 1024
    for _ in examples.Data(x, None).pieces():
        pass
    assert resident() - before < 8 * 1024


# ---- what is wrong with it -------------------------------------------------------------------------------------------


def changed(array, row, value):
    array = array.copy()
    array[row] = value
    return array


WRONG = {
    "nan": (lambda: (changed(X, 71, np.nan), Y), "of examples 58 to 86, counted here from 0 to 28: x: .* x.13, 0"),
    "label": (lambda: (X, changed(Y, 71, 3)), "of examples 58 to 86, .* got 3 at y.13"),
    "weight": (lambda: (X, Y, changed(WEIGHTS, 102, -1)), "of examples .* to 102, .*weights: expected numbers of"),
    "fewer targets": (lambda: (X, Y[:90]), "expected a target for each of 103"),
    "more targets": (lambda: (X[:90], Y), "expected a target for each of 90"),
    "more weights": (lambda: (X[:58], Y[:58], np.ones(59)), "weights: expected shape"),
    "no examples": (lambda: (X[:0], Y[:0]), "at least one example"),
    "no targets": (lambda: (X, None), "expected targets"),
    "a number": (lambda: (X, np.array(3)), "expected a target for each of 103"),
    "text": (lambda: (X, Y.astype(str)), "expected an array of numbers"),
    "too narrow": (lambda: (X[:, :4], Y), r"of examples 0 to 33.*expected shape \(8, 4\), got \(8, 5\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_before_any_work_and_where(tmp_path, monkeypatch, name):
    make, message = WRONG[name]
    monkeypatch.setattr(examples, "AT_ONCE", 29 * (40 + 8))
    data = [None if a is None else in_file(tmp_path / f"{i}.npy", a) if a.ndim else a for i, a in enumerate(make())]
    state = begin("numpy")
    with pytest.raises(errors.FnnError, match=message):
        fnn.fit(NET, LOSS, state, tuple(data), **HOW)
    with pytest.raises(errors.FnnError, match="validation: "):
        fnn.fit(NET, LOSS, state, (X, Y), validation=tuple(data), **HOW)
    with pytest.raises(errors.FnnError, match=message):
        fnn.evaluate(NET, LOSS, state.params, tuple(data))

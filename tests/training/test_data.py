"""Data for training: what is bad is refused before any work, whoever is given it; arrays may be named in dicts."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import blobs, key, run_problem
from helpers_training import on_numpy_at_least, same

import fnn
from fnn import checks, errors, examples

X, Y = blobs()
NAN, INF = X.copy(), X.copy()
NAN[7, 2], INF[3, 1] = np.nan, np.inf
BAD_DATA = {
    "x with nan": ((NAN, Y), {}, errors.DataError, r"nan at x\[7, 2\]"),
    "x with an infinity": ((INF, Y), {}, errors.DataError, r"inf at x\[3, 1\]"),
    "x too large for float32": ((X * 1e300, Y), {}, errors.DataError, "float32"),
    "a label of -1": ((X, Y - 1), {}, errors.DataError, "labels from 0 to 2, got -1"),
    "a label too large": ((X, Y + 1), {}, errors.DataError, "labels from 0 to 2, got 3"),
    "a label beyond 32 bits": ((X, Y + 2**32), {}, errors.DataError, "labels from 0 to 2|32-bit"),
    "labels as a column": ((X, Y[:, None]), {}, errors.ShapeError, r"\(50, 3\), got \(50, 1\)"),
    "labels as floats": ((X, Y.astype(float)), {}, errors.KindError, "integer labels"),
    "too few labels": ((X, Y[:49]), {}, errors.ShapeError, "50 examples"),
    "another number of inputs": (
        (X[:, :5], Y),
        {},
        errors.ShapeError,
        r"\(N, 6\).*5\)|expected shape \(8, 5\), got \(8, 6\)",
    ),
    "no examples": ((X[:0], Y[:0]), {}, errors.ShapeError, "at least one example"),
    "text": ((X.astype(str), Y), {}, errors.KindError, "numbers, got dtype <U"),
    "objects": ((X.astype(object), Y), {}, errors.KindError, "object"),
    "complex numbers": ((X + 1j, Y), {}, errors.KindError, "x: expected real numbers, got dtype complex"),
    "ragged rows": (([[1.0], [1.0, 2.0]], [0, 1]), {}, errors.KindError, "unequal length"),
    "a masked array": ((np.ma.masked_array(X, X > 3), Y), {}, errors.KindError, "mask"),
    "a negative weight": ((X, Y, -np.ones(50)), {}, errors.DataError, r"-1\.0 at weights\[0\]"),
    "a bare tuple of arrays": (((X, X), Y), {}, errors.KindError, "x: .* got a tuple of 2 arrays; use a dict"),
    "targets in a bare tuple": ((X, (Y, Y)), {}, errors.KindError, "y: .* got a tuple of 2 arrays; use a dict"),
    "a weight of nan": ((X, Y, np.full(50, np.nan)), {}, errors.DataError, "weights"),
    "weights of another length": ((X, Y, np.ones(49)), {}, errors.ShapeError, r"\(50,\), got \(49,\)"),
    "no targets": ((X, None), {}, errors.KindError, "y: expected targets, got None"),
    "x alone": (X, {}, errors.KindError, r"\(x, y\) or \(x, y, weights\)"),
    "four things": ((X, Y, Y, Y), {}, errors.KindError, "of length 4"),
    "a batch larger than the data": ((X, Y), {"batch_size": 51}, errors.ArgumentError, "50, got 51"),
    "a batch of 0": ((X, Y), {"batch_size": 0}, errors.ArgumentError, "at least 1, got 0"),
    "a negative batch": ((X, Y), {"batch_size": -1}, errors.ArgumentError, "at least 1, got -1"),
    "a batch of 2.5": ((X, Y), {"batch_size": 2.5}, errors.KindError, "integer, got 2.5"),
    "negative epochs": ((X, Y), {"epochs": -1}, errors.ArgumentError, "epochs.*got -1"),
    "epochs as text": ((X, Y), {"epochs": "3"}, errors.KindError, "epochs.*'3'"),
}


BAD_CALLS = [
    (name, entry)
    for name, (_, options, *_) in BAD_DATA.items()
    for entry in ("train", "fit", "fit on a state", "evaluate", "validation", "validation in train")
    if not (options and entry in ("evaluate", "validation", "validation in train"))  # these take no sizes
    and not (entry == "fit" and name == "another number of inputs")  # a new network takes the inputs that it finds
]


@pytest.mark.parametrize(("name", "entry"), BAD_CALLS)
def test_bad_data_is_refused_before_any_work_with_what_was_expected_and_found(name, entry, backend):
    data, options, error, message = BAD_DATA[name]
    net, loss, state, good = run_problem(backend)
    options = {"epochs": 1, "batch_size": 10} | options
    with pytest.raises(error, match=message):
        {
            "train": lambda: fnn.train(net, loss, state, data, **options),
            "fit": lambda: fnn.fit(net, loss, fnn.Sgd(0.1), data, key=key(backend), **options),
            "fit on a state": lambda: fnn.fit(net, loss, state, data, **options),
            "evaluate": lambda: fnn.evaluate(net, loss, state.params, data),
            "validation": lambda: fnn.fit(net, loss, state, good, validation=data, **options),
            "validation in train": lambda: fnn.train(net, loss, state, good, validation=data, **options),
        }[entry]()


# ---- data of several arrays ------------------------------------------------------------------------------------------


class Sides(NamedTuple):
    left: Any
    right: Any


NAMED = fnn.Serial((fnn.Parallel((fnn.Dense(4), fnn.Dense(3)), inputs=("left", "right")), fnn.Tanh(), fnn.Dense(2)))
RNG = np.random.default_rng(0)
LEFT, RIGHT, TARGET = RNG.normal(size=(30, 3)), RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2))
INPUTS = {"a dict": {"right": RIGHT, "left": LEFT}, "a NamedTuple": Sides(LEFT, RIGHT)}


def begin(backend="numpy"):
    return fnn.init_state(NAMED, fnn.Adam(0.01), key(backend), {"right": (2,), "left": (3,)})


@pytest.mark.parametrize("name", INPUTS)
@on_numpy_at_least
def test_several_inputs_are_trained_on_fitted_and_evaluated_by_name(name, backend):
    x, y, loss = INPUTS[name], TARGET, fnn.Quadratic()
    how = {"epochs": 2, "batch_size": 7}
    state, _ = fnn.train(NAMED, loss, begin(backend), (x, y), **how)
    how |= {"key": key(backend), "validation": (x, y), "telemetry": 5}
    fitted, history = fnn.fit(NAMED, loss, fnn.Adam(0.01), (x, y), **how)
    same(fitted.params, state.params, 1e-6)
    left, right = (fnn.Dense(n).apply(p, a) for n, p, a in zip((4, 3), state.params[0], (LEFT, RIGHT), strict=True))
    hidden = np.tanh(np.concatenate([left, right], axis=1))
    alone = fnn.Dense(2).apply(state.params[2], hidden)
    same(NAMED.apply(state.params, x), alone, 1e-6)
    value = fnn.evaluate(NAMED, loss, state.params, (x, y))["loss"]
    assert value == pytest.approx(0.5 * float(((np.asarray(alone) - y) ** 2).sum(axis=1).mean()), rel=1e-5)
    assert history["validation_loss"][-1] == pytest.approx(value, rel=1e-5)


def test_named_inputs_make_the_same_run_on_both_backends(needs_jax):
    x, how = INPUTS["a dict"], {"epochs": 2, "batch_size": 7}
    ours, theirs = (fnn.train(NAMED, fnn.Quadratic(), begin(b), (x, TARGET), **how) for b in ("jax", "numpy"))
    same(ours[0].params, theirs[0].params, 1e-4)


@dataclass(frozen=True)
class Masked(fnn.Loss):
    """The squared error where a mask is 1."""

    def check(self, shape, target, values=True):
        pass

    def value(self, prediction, target):
        return ((prediction - target["value"]) ** 2 * target["mask"]).sum(axis=1)

    def delta(self, prediction, target):
        return 2 * (prediction - target["value"]) * target["mask"]


def test_several_targets_are_given_to_the_cost_by_name():
    y = {"value": TARGET, "mask": RNG.integers(0, 2, (30, 2)).astype(float)}
    net = fnn.Dense(2)
    state = fnn.init_state(net, fnn.Sgd(0.1), key(), (3,))
    after, history = fnn.train(net, Masked(), state, (LEFT, y), epochs=1, batch_size=30)
    prediction = net.apply(state.params, LEFT)
    assert history["loss"][0] == pytest.approx(((prediction - TARGET) ** 2 * y["mask"]).sum(axis=1).mean(), rel=1e-5)
    fitted, _ = fnn.fit(net, Masked(), state, (LEFT, y), epochs=1, batch_size=30, validation=(LEFT, y))
    same(fitted.params, after.params, 1e-6)
    short = y | {"mask": y["mask"][:29]}
    with pytest.raises(errors.ShapeError, match=r"y\['mask'\]: expected a target for each of 30 examples"):
        fnn.train(net, Masked(), state, (LEFT, short), epochs=1, batch_size=30)


@pytest.mark.parametrize("in_files", ["x", "all", "one input alone"])
def test_several_inputs_in_files_make_the_run_of_those_in_memory(in_files, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "AT_ONCE", 2 * 7 * 60)

    def mapped(name, array):
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    x = {"left": mapped("left", LEFT), "right": RIGHT if in_files == "one input alone" else mapped("right", RIGHT)}
    y = mapped("y", TARGET) if in_files == "all" else TARGET
    how = {"key": key(), "epochs": 2, "batch_size": 7}
    (state, history), *others = (
        fnn.fit(NAMED, fnn.Quadratic(), fnn.Sgd(0.1), data, validation=data, **how)
        for data in ((x, y), (INPUTS["a dict"], TARGET), (Sides(x["left"], x["right"]), y))
    )
    for other, expected in others:
        same(state.params, other.params)
        same(history, expected, 1e-6)


def test_shapes_of_several_inputs_are_sorted_pairs():
    assert examples.shape_of({"b": RIGHT, "a": LEFT}) == (("a", (3,)), ("b", (2,)))
    assert examples.shape_of(Sides(LEFT, RIGHT)) == (("left", (3,)), ("right", (2,)))
    same(begin().params, fnn.init_state(NAMED, fnn.Adam(0.01), key(), (("left", (3,)), ("right", (2,)))).params)


NO_INPUTS = {
    "one is shorter": ({"left": LEFT, "right": RIGHT[:29]}, errors.ShapeError, "same number of examples.*right"),
    "one holds nan": ({"left": LEFT, "right": RIGHT * np.nan}, errors.DataError, r"x\['right'\]: .* got nan"),
    "one is text": ({"left": LEFT, "right": RIGHT.astype(str)}, errors.KindError, r"x\['right'\]: expected an array"),
    "one is missing": ({"left": LEFT}, errors.FnnError, "right"),
    "one is too wide": ({"left": LEFT, "right": LEFT}, errors.ShapeError, "params"),
}


@pytest.mark.parametrize("name", NO_INPUTS)
def test_what_is_wrong_with_one_of_several_inputs_is_said_by_name(name):
    x, error, message = NO_INPUTS[name]
    with pytest.raises(error, match=message):
        fnn.train(NAMED, fnn.Quadratic(), begin(), (x, TARGET), epochs=1, batch_size=7)


@on_numpy_at_least
def test_data_in_any_byte_order_and_layout_are_the_same(backend):
    net, loss, state, (x, y) = run_problem(backend)
    wanted, _ = fnn.train(net, loss, state, (x, y), epochs=1, batch_size=10)
    for data in ((x.astype(">f8"), y.astype(">i4")), (np.asfortranarray(x), y), (x.tolist(), y.tolist())):
        same(fnn.train(net, loss, state, data, epochs=1, batch_size=10)[0].params, wanted.params)


# ---- arrays from outside ---------------------------------------------------------------------------------------------

TAKEN = [
    ("a list", [[1.0, 2.0], [3.0, 4.0]], "float64"),
    ("a tuple of integers", (1, 2, 3), "int64"),
    ("a number", 3.5, "float64"),
    ("grey levels", np.zeros((2, 3), np.uint8), "uint8"),
    ("truth values", np.ones(2, bool), "bool"),
    ("float16", np.ones(2, np.float16), "float16"),
    ("nothing", np.zeros((0, 3), np.float32), "float32"),
    ("the longest that fit", np.array([2**31 - 1, -(2**31)]), "int64"),
    ("the longest without sign", np.array([2**32 - 1], np.uint64), "uint64"),
]


@pytest.mark.parametrize(("value", "dtype"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_numbers_from_outside_are_taken(value, dtype, backend):
    xp = np if backend == "numpy" else fnn.backend.jnp
    found = checks.as_array("x", value, xp)
    assert fnn.backend.is_jax(found) == (backend == "jax")
    assert np.asarray(found).tolist() == np.asarray(value).tolist()
    narrow = dtype.replace("64", "32") if backend == "jax" else dtype
    assert found.dtype == narrow


def test_an_array_of_the_namespace_is_not_copied(needs_jax):
    x = np.ones(3)
    assert checks.as_array("x", x, np) is x
    on_jax = needs_jax.numpy.ones(3)
    assert checks.as_array("x", on_jax, needs_jax.numpy) is on_jax
    assert isinstance(checks.as_array("x", on_jax, np), np.ndarray)


NOT_NUMBERS = [
    ("text", ["a", "b"], errors.KindError, r"x: expected an array of numbers, got dtype <U1 array\(\['a', 'b'\]"),
    ("bytes", np.array([b"a"]), errors.KindError, r"x: expected an array of numbers, got dtype \|S1"),
    ("objects", np.array([1, None], object), errors.KindError, "x: expected an array of numbers, got dtype object"),
    ("None", None, errors.KindError, "x: expected an array of numbers, got dtype object"),
    ("a dict", {"a": 1}, errors.KindError, "x: expected an array of numbers, got dtype object"),
    (
        "dates",
        np.array(["2020-01-01"], "datetime64[D]"),
        errors.KindError,
        "x: expected an array of numbers, got dtype d",
    ),
    (
        "durations",
        np.array([1], "timedelta64[s]"),
        errors.KindError,
        "x: expected an array of numbers, got dtype t",
    ),
    ("records", np.zeros(2, [("a", "f4")]), errors.KindError, "x: expected an array of numbers, got dtype"),
    ("ragged rows", [[1, 2], [3]], errors.KindError, "x: expected an array of numbers, got rows of unequal length"),
    (
        "a mask",
        np.ma.masked_array([1.0, 2.0], [True, False]),
        errors.KindError,
        "x: expected an array without mask, got masked entries; x.filled",
    ),
]


@pytest.mark.parametrize(
    ("value", "error", "message"), [row[1:] for row in NOT_NUMBERS], ids=[row[0] for row in NOT_NUMBERS]
)
def test_what_is_no_array_of_numbers_is_refused(value, error, message, backend):
    with pytest.raises(error, match=message):
        checks.as_array("x", value, np if backend == "numpy" else fnn.backend.jnp)


def test_a_jax_key_is_no_array_of_numbers(needs_jax):
    with pytest.raises(errors.KindError, match="x: expected an array of numbers, got dtype key<fry>"):
        checks.as_array("x", fnn.random.key(0, backend="jax"), needs_jax.numpy)


@pytest.mark.parametrize("value", [[2**31], [-(2**31) - 1], np.array([2**32], np.uint64), [0, 2**40 + 1]], ids=str)
def test_integers_that_jax_would_cut_are_refused(value, needs_jax):
    with pytest.raises(errors.DataError, match="x: expected 32-bit integers, since JAX truncates longer ones"):
        checks.as_array("x", value, needs_jax.numpy)
    with needs_jax.enable_x64(True):
        assert checks.as_array("x", value, needs_jax.numpy).tolist() == np.asarray(value).tolist()
    assert checks.as_array("x", value, np).tolist() == np.asarray(value).tolist()


class Tensor:
    """One of another library that NumPy cannot read, as a tensor that requires gradients."""

    shape, dtype = (50, 6), "torch.float32"

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


@on_numpy_at_least
def test_an_array_that_numpy_cannot_read_is_refused_with_what_its_library_says(backend):
    net, loss, state, (x, y) = run_problem(backend)
    says = "expected an array of numbers, got Tensor: Can't call numpy.. on Tensor that requires grad. Use tensor.det"
    for data in ((Tensor(), y), (x, Tensor()), (x, y, Tensor())):
        for run in (fnn.train, fnn.fit):
            with pytest.raises(errors.KindError, match=says):
                run(net, loss, state, data, epochs=1, batch_size=50)
        with pytest.raises(errors.KindError, match=says):
            fnn.make_step(net, loss)(state, data)
    with pytest.raises(errors.KindError, match=says):
        net.apply(state.params, Tensor())
    with pytest.raises(errors.KindError, match=r"params\[0\]\.w: expected a floating-point array"):
        net.apply(fnn.trees.map(lambda p: Tensor(), state.params), x)

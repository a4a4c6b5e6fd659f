"""Tables and columns are arrays of numbers, and what is not a number is named by its column, with what helps."""

import datetime
import decimal

import numpy as np
import pytest

import fnn
from fnn import errors, frames
from fnn.checks import as_array

NAT = type("NaTType", (), {"__ne__": lambda self, other: True})()  # as pandas has it, and NA, whose truth is none
NA = type("NAType", (), {"__bool__": lambda self: pytest.fail("the truth of NA was asked for")})()


class Column:
    """A column as a library for frames has it: an object that gives an array, of one axis."""

    def __init__(self, *entries, dtype=None):
        self.entries = np.array(entries, dtype) if dtype else np.array([*entries, None], object)[:-1]

    def __array__(self, dtype=None, copy=None):
        return self.entries

    to_numpy = __array__


class Table:
    """A table as pandas has it, whose names may repeat: a column is found by its place."""

    def __init__(self, *named):
        self.columns, self.named = [name for name, _ in named], named
        self.iloc = self

    def __getitem__(self, place):
        return self.named[place[1]][1]

    def __array__(self, dtype=None, copy=None):
        arrays = [np.asarray(column) for _, column in self.named]
        kinds = {array.dtype.kind for array in arrays}
        return np.stack(arrays if len(kinds) == 1 else [array.astype(object) for array in arrays], axis=1)


A, B = Column(1, 2, dtype="int64"), Column(True, False, dtype=bool)
NUMBERS = {
    "of one type": (Table(("a", A), ("b", A)), [[1, 1], [2, 2]], "int64"),
    "numbers and bools": (Table(("a", A), ("b", B)), [[1, 1], [2, 0]], "int64"),
    "objects that are numbers": (Table(("a", Column(1, 2.5)), ("b", B)), [[1, 1], [2.5, 0]], "float64"),
    "names that repeat": (Table(("a", A), ("a", Column(0.5, 1.5, dtype="f4"))), [[1, 0.5], [2, 1.5]], "float64"),
    "bytes": (Table(("a", Column(1, 255, dtype="u1"))), [[1], [255]], "uint8"),
    "infinity, which is no gap": (Table(("a", Column(np.inf, 1.0, dtype="f8"))), [[np.inf], [1]], "float64"),
    "a column": (Column(True, 2), [1, 2], "int64"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_numbers_is_an_array_of_them(name):
    frame, expected, dtype = NUMBERS[name]
    found = as_array("x", frame, np)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype


NAN = Column(1.0, np.nan, dtype="f8")
WRONG = {
    "text": (Table(("a", A), ("t", Column("u", "v"))), "text in the columns ['t'] (pd.get_dummies(x, columns=['t'])"),
    "text with gaps": (Table(("t", Column("u", None))), "got text in the columns ['t']"),
    "labels of text": (Column("u", "v"), "text (for labels that are text write np.unique(x, return_inverse=True)[1])"),
    "NaN": (Table(("a", A), ("b", NAN)), "gaps in the columns ['b'] (x.fillna(...) fills them, dropna()"),
    "NaN in a column": (NAN, "got gaps (x.fillna"),
    "None": (Table(("a", Column(1, None)), ("b", Column(True, None))), "gaps in the columns ['a', 'b']"),
    "NA and NaT": (Table(("a", Column(1, NA)), ("b", Column(2.0, NAT))), "gaps in the columns ['a', 'b']"),
    "nothing but gaps": (Table(("a", Column(None, None))), "gaps in the columns ['a']"),
    "dates": (
        Table(("d", Column("2026-01-01", "2026-01-02", dtype="M8[D]"))),
        "(with d = pd.to_datetime(x['d']), (d - d.min()).dt.t",
    ),
    "dates with a zone": (Column(datetime.datetime(2026, 1, 1)), "got dates (with d = pd.to_datetime(x), (d - d.min()"),
    "durations": (Column(1, 2, dtype="m8[s]"), "got durations (pd.to_timedelta(x).dt.total_seconds()"),
    "numbers and text": (
        Table(("m", Column(1, "u"))),
        "mixed types in the columns ['m'] (pd.to_numeric(x['m']",
    ),
    "lists": (Column([1], [2, 3]), "got arrays (np.stack(x)"),
    "decimals": (Table(("d", Column(decimal.Decimal(1)))), "Decimal in the columns ['d'] (x['d'].astype(float))"),
    "what only its owner can read": (
        Table(("t", Column(datetime.time(1))), ("b", Column(b"u"))),
        "got time in the columns ['t'] (x['t'].map(f), with a function f that makes a float of each); bytes in",
    ),
    "several kinds": (
        Table(("t", Column("u")), ("g", Column(None)), ("a", Column(1))),
        "text in the columns ['t'] .*; ga",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_is_refused_by_its_column_with_what_makes_numbers_of_it(name):
    frame, message = WRONG[name]
    with pytest.raises(errors.FnnError) as caught:
        as_array("x", frame, np)
    text = str(caught.value)
    start, _, end = message.partition(" .*")
    assert text.startswith("x: expected numbers, got ")
    assert start in text
    assert end in text
    assert isinstance(caught.value, errors.DataError) == ("got gaps" in text)


def test_columns_that_a_library_would_turn_into_numbers_are_looked_at_one_by_one():
    """As polars does: an array of a frame with numbers has those of its dates too, the days since 1970."""
    frame = Table(("a", A), ("d", Column("2026-01-01", "2026-01-02", dtype="M8[D]")))
    frame.__class__ = type(
        "Polars",
        (),
        {"__getitem__": lambda self, name: dict(self.named)[name], "__array__": lambda *_, **__: np.ones((2, 2))},
    )
    del frame.iloc
    with pytest.raises(errors.KindError, match=r"dates in the columns \['d'\]"):
        as_array("x", frame, np)


def test_every_entry_names_the_column(tmp_path):
    net, loss = fnn.mlp((3,)), fnn.SoftmaxCrossEntropy()
    key, y = fnn.random.key(0, backend="numpy"), np.array([0, 1])
    params = net.init(key, (2,))
    frame = Table(("a", A), ("b", NAN))
    for call in (
        lambda: net.apply(params, frame),
        lambda: fnn.fit(net, loss, fnn.Sgd(0.1), (frame, y), key=key, epochs=1, batch_size=1),
        lambda: fnn.train(net, loss, fnn.init_state(net, fnn.Sgd(0.1), key, (2,)), (frame, y), epochs=1, batch_size=1),
        lambda: fnn.evaluate(net, loss, params, (frame, y)),
        lambda: fnn.predict(net, loss, params, frame),
        lambda: fnn.per_example.norms(net, loss)(params, frame, y),
        lambda: fnn.curvature.diagonal(net, loss)(params, frame, y),
        lambda: fnn.standardized(net, frame, key),
        lambda: fnn.attribution.gradients(net)(params, frame, 0),
    ):
        with pytest.raises(errors.DataError, match=r"x: expected numbers, got gaps in the columns \['b'\]"):
            call()
    with pytest.raises(errors.DataError, match="weights: expected numbers, got gaps"):
        fnn.evaluate(net, loss, params, (Table(("a", A), ("b", A)), y, NAN))


def test_an_array_is_no_frame_and_is_not_copied():
    x = np.ones((2, 3))
    assert not frames.is_frame(x)
    assert not frames.is_frame([[1.0]])
    assert as_array("x", x, np) is x


# ---- the libraries themselves ----------------------------------------------------------------------------------------


def of_pandas(pd):
    frame = pd.DataFrame({"n": [1, 2], "f": [0.5, 1.5], "b": [True, False]})
    number = {"n": pd.array([1, 2], dtype="Int64"), "b": pd.array([True, False], dtype="boolean")}
    yield frame, frame.to_numpy(float)
    yield pd.DataFrame(number), [[1, 1], [2, 0]]
    yield pd.Series([3, 4], dtype="category"), [3, 4]
    yield pd.Series([1, None], dtype="Int64"), "got gaps"
    yield frame.assign(b=pd.array([True, None], dtype="boolean")), "gaps in the columns ['b'] (x.fillna"
    yield frame.assign(t=["u", None]), "text in the columns ['t'] (pd.get_dummies(x, columns=['t'])"
    yield frame.assign(t=pd.Series(["u", "v"], dtype="category")), "text in the columns ['t']"
    yield frame.assign(d=pd.to_datetime(["2026-01-01", None])), "['d'] (with d = pd.to_datetime(x['d']), (d"
    yield frame.assign(d=[datetime.date(2026, 1, 1)] * 2), "['d'] (with d = pd.to_datetime(x['d']), (d"
    yield frame.assign(p=pd.period_range("2026", periods=2)), "Period in the columns ['p'] (x['p'].map(f)"
    yield frame.assign(m=[1, "u"]), "mixed types in the columns ['m']"


def of_polars(pl):
    frame = pl.DataFrame({"n": [1, 2], "f": [0.5, 1.5], "b": [True, False]})
    yield frame, frame.to_numpy()
    yield pl.Series([1, 2]), [1, 2]
    yield pl.Series([True, None]), 'got gaps (x.fill_nan(None).fill_null(strategy="mean") fills them, drop_nulls()'
    yield frame.with_columns(n=pl.Series([1, None])), "gaps in the columns ['n']"
    yield frame.with_columns(t=pl.Series(["u", "v"], dtype=pl.Categorical)), "['t'] (x.to_dummies(['t'])"
    yield frame.with_columns(d=pl.Series([datetime.date(2026, 1, 1)] * 2)), """['d'] (x['d'].dt.epoch("s")"""
    yield frame.with_columns(w=pl.Series([1, 2], dtype=pl.Int128)), "x: expected an array of numbers, got DataFrame"
    yield frame.lazy(), "write .collect()"


def of_arrow(pa):
    frame = pa.table({"n": [1, 2], "b": [True, False]})
    yield frame, [[1, 1], [2, 0]]
    yield pa.table({"n": [1, None]}), "gaps in the columns ['n'] (x.to_pandas().fillna"


@pytest.mark.parametrize(("library", "cases"), [("pandas", of_pandas), ("polars", of_polars), ("pyarrow", of_arrow)])
def test_frames_of_the_libraries_are_read_so_too(library, cases):
    for frame, expected in cases(pytest.importorskip(library)):
        if isinstance(expected, str):
            with pytest.raises(errors.FnnError) as caught:
                as_array("x", frame, np)
            assert expected in str(caught.value)
        else:
            np.testing.assert_array_equal(as_array("x", frame, np), expected)


def test_what_helps_with_dates_and_durations_does_in_pandas():
    pd, numbers = pytest.importorskip("pandas"), {"dates": [0.0, 86400.0], "durations": [1.0, 2.0]}
    day, second = datetime.date(2026, 1, 1), datetime.timedelta(seconds=1)
    dates, durations = [day, day + datetime.timedelta(days=1)], [second, 2 * second]
    for kind, values in (("dates", dates), ("durations", durations)):
        for x in (
            pd.Series(values, dtype=object),
            pd.Series(pd.to_timedelta(values) if kind == "durations" else pd.to_datetime(values)),
        ):
            with pytest.raises(errors.KindError) as caught:
                as_array("x", x, np)
            given, _, code = (
                str(caught.value).partition(f"got {kind} (")[2].removesuffix(" is a number)").rpartition("), ")
            )
            names = {"pd": pd, "x": x}
            if given:
                names["d"] = eval(given.removeprefix("with d = ") + ")", names)
            np.testing.assert_array_equal(eval(code, names), numbers[kind])

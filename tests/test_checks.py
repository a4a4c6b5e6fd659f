"""Arrays and numbers from outside: what is taken, what is refused and how its place is named."""

import numpy as np
import pytest

from fnn import checks, errors


@pytest.mark.parametrize(
    ("value", "error"), [(0, "above 0"), (-1.0, "above 0"), (np.nan, "above 0"), ("1", "number"), (True, "number")]
)
def test_a_number_that_has_to_be_positive_is(value, error):
    with pytest.raises(errors.FnnError, match=f"bound: expected a {error}" if error == "number" else error):
        checks.positive("bound", value)
    checks.positive("bound", np.inf)


REFUSED = {
    "rows of unequal length": ([[1.0], [1.0, 2.0]], "rows of unequal length"),
    "text": (["a", "b"], "np.unique"),
    "a mask": (np.ma.masked_array([1.0, 2.0], [True, False]), "weight 0"),
    "objects": (np.array([1, None]), r"write x.astype\(float\)"),
    "arrays": (np.array([np.ones(2), None], object)[:1], r"write np.stack\(x\)"),
    "digits": (np.array(["1.5"]), r"for numbers x.astype\(float\)"),
    "dates": (np.array(["2026-01-01"], "M8[D]"), r'\(x - x.min\(\)\) / np.timedelta64\(1, "s"\)'),
    "durations": (np.array([1], "m8[s]"), r'; x / np.timedelta64\(1, "s"\)'),
    "fields": (np.zeros(2, [("a", "f4")]), r"recfunctions.structured_to_unstructured\(x\)"),
    "a generator": ((row for row in np.eye(2)), r"from generator; write np.stack\(\[\*x\]\).* or fnn.Batches"),
    "a sparse matrix": (type("Csr", (), {"toarray": None})(), r"from Csr; write .toarray\(\)"),
    "a dict": ({"a": 1}, "from dict$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_array_of_numbers_is_refused_with_what_helps(name):
    given, message = REFUSED[name]
    with pytest.raises(errors.KindError, match=f"x: expected an array.*{message}"):
        checks.as_array("x", given, np)


def test_an_array_that_could_have_a_mask_but_has_none_is_an_array():
    found = checks.as_array("x", np.ma.masked_array([1.0, 2.0], [False, False]), np)
    assert type(found) is np.ndarray


def test_what_another_library_cannot_make_an_array_of_is_refused_in_its_words():
    class Wide:
        to_numpy = None

        def __array__(self, dtype=None, copy=None):
            raise LookupError("no 128-bit integers")

    with pytest.raises(errors.KindError, match="x: expected an array of numbers, got Wide: no 128-bit integers"):
        checks.as_array("x", Wide(), np)


def test_the_first_number_that_is_not_finite_or_negative_is_named_with_its_place():
    with pytest.raises(errors.DataError, match=r"x: expected finite numbers, got nan at x\[1, 0\] \(2 of 4"):
        checks.finite("x", np.array([[1.0, 2.0], [np.nan, np.inf]]))
    checks.finite("x", np.full(3, 1e300))  # whose squares overflow
    with pytest.raises(errors.DataError, match=r"at least 0, got -1.0 at w\[2\]"):
        checks.not_negative("w", np.array([1.0, 0.0, -1.0, -2.0]))

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
    "objects": (np.array([object()]), "dtype object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_array_of_numbers_is_refused_with_what_helps(name):
    given, message = REFUSED[name]
    with pytest.raises(errors.KindError, match=f"x: expected an array.*{message}"):
        checks.as_array("x", given, np)


def test_the_first_number_that_is_not_finite_or_negative_is_named_with_its_place():
    with pytest.raises(errors.DataError, match=r"x: expected finite numbers, got nan at x\[1, 0\] \(2 of 4"):
        checks.finite("x", np.array([[1.0, 2.0], [np.nan, np.inf]]))
    checks.finite("x", np.full(3, 1e300))  # whose squares overflow
    with pytest.raises(errors.DataError, match=r"at least 0, got -1.0 at w\[2\]"):
        checks.not_negative("w", np.array([1.0, 0.0, -1.0, -2.0]))

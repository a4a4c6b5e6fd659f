"""A line search ends where the strong Wolfe conditions hold, whatever the function along the line does."""

import helpers_lbfgs
import pytest


@pytest.mark.parametrize("check", ["strong_wolfe", "not_finite", "within_rounding"])
def test_an_accepted_step(check):
    getattr(helpers_lbfgs, check)()

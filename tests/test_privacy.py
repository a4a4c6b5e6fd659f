"""The accounting of private training agrees with what is known, and what makes no sense is refused."""

import math
import sys

import pytest
from helpers import THOROUGH

from fnn import errors, privacy


def test_epsilon_of_one_gaussian_is_that_of_balle_and_wang():
    """Without sampling the guarantee has a closed form: B. Balle, Y.-X. Wang (2018), theorem 8."""

    def phi(t):
        return (1 + math.erf(t / math.sqrt(2))) / 2

    for sigma, epsilon in ((0.8, 5.0), (2.0, 1.5), (4.0, 0.7)) if THOROUGH else ((2.0, 1.5),):
        delta = phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon * sigma)
        found = privacy.epsilon(steps=1, batch_size=1, n=1, noise_multiplier=sigma, delta=delta)
        assert abs(found - epsilon) < 1e-3


@pytest.mark.numpy_alone
def test_epsilon_grows_with_the_steps_and_the_share_and_falls_with_the_noise():
    plan = {"steps": 5, "batch_size": 100, "n": 1000, "noise_multiplier": 2.0, "delta": 1e-5}
    usual = privacy.epsilon(**plan)
    assert privacy.epsilon(**plan | {"steps": 10}) > usual
    assert privacy.epsilon(**plan | {"batch_size": 200}) > usual
    assert privacy.epsilon(**plan | {"noise_multiplier": 3.0}) < usual
    assert privacy.epsilon(**plan | {"noise_multiplier": 0.0}) == math.inf


@pytest.mark.thorough
def test_the_noise_multiplier_is_the_least_that_keeps_epsilon():
    plan = {"steps": 10, "batch_size": 100, "n": 1000 if THOROUGH else 100, "delta": 1e-5}
    sigma = privacy.noise_multiplier(**plan, epsilon=1.0)
    assert 0.99 < privacy.epsilon(**plan, noise_multiplier=sigma) <= 1.0 + 1e-6


@pytest.mark.parametrize("change", [{"batch_size": 2000}, {"delta": 0.0}, {"delta": 1.0}, {"steps": 0}, {"n": 0}])
def test_a_plan_that_makes_no_sense_is_refused(change):
    plan = {"steps": 20, "batch_size": 100, "n": 1000, "noise_multiplier": 2.0, "delta": 1e-5}
    with pytest.raises(errors.ArgumentError, match=next(iter(change))):
        privacy.epsilon(**plan | change)


def test_without_dp_accounting_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(errors.MissingExtraError, match=r"dp_accounting: pip install 'fnn\[privacy\]'"):
        privacy.epsilon(steps=1, batch_size=1, n=2, noise_multiplier=1.0, delta=1e-5)

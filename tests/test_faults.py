"""The tests are tested: each wrong formula of the table in faults.py makes the suite's check fail."""

import faults
import pytest
from helpers import THOROUGH


@pytest.mark.parametrize(
    "fault", faults.FAULTS[:: 1 if THOROUGH else 5], ids=lambda fault: f"{fault.what} in {fault.name}"
)
@pytest.mark.numpy_alone
def test_a_planted_fault_is_found(fault):
    assert faults.killed_by(fault) is not None


def test_the_table_is_long_enough_and_its_faults_differ():
    names = [(fault.what, fault.where, fault.name, faults.FAULTS.index(fault)) for fault in faults.FAULTS]
    assert len(set(names)) == len(faults.FAULTS) >= 109

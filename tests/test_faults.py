"""The tests are tested: each wrong derivative of the table in faults.py makes the suite's check fail."""

import faults
import pytest


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: f"{fault.what} in {fault.name}")
def test_a_planted_fault_is_found(fault):
    assert faults.killed_by(fault) is not None


def test_the_table_is_long_enough_and_its_faults_differ():
    assert len({fault[:5] for fault in faults.FAULTS}) == len(faults.FAULTS) >= 40

"""The gate on the networks of the zoo: no correct export is refused, and every planted fault is.

tests/bench/test_parity_faults.py does the same with two networks that need no data and no time.
"""

from pathlib import Path

import pytest
from rtk.core.zoo import zoo_names
from rtk.tools.parity_figures import FAULTS, figures

HARMLESS = {("int8", "logits x 1.03")}
"""int8 itself changes the slope by up to 1 %, so 3 % may stay below its limit."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize("name", zoo_names())
def test_no_correct_export_is_refused_and_every_fault_is(name: str, real_data: Path) -> None:
    correct, wrong = figures(name, data_dir=real_data, trials=50, method="minmax")
    assert len(correct) >= 6
    assert [row for row in correct if row["verdict"] == "failed"] == []
    assert [row for row in correct if float(row["refused"].rstrip("%")) > 2] == []
    assert len(wrong) == len(correct) * len(FAULTS)
    missed = {(row["export"].split()[0], row["fault"]) for row in wrong if row["refused by"] == "no check"}
    assert missed <= HARMLESS

"""The list of mutations fits the code; make test-mutations runs them."""

from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.effect)
def test_a_mutation_changes_one_place_and_names_a_test_file(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert (ROOT / mutation.tests.partition(" ")[0]).is_file()

"""What ``make mutate`` breaks is there to be broken: each entry of its list fits the code as it stands."""

from __future__ import annotations

import pytest

from tests import mutate


@pytest.mark.parametrize("mutation", mutate.listed(), ids=lambda mutation: mutation.breaks)
def test_fits(mutation: mutate.Mutation) -> None:
    mutation.applied_to((mutate.ROOT / mutation.file).read_text())
    for test in mutation.tests:
        assert (mutate.ROOT / test.partition("::")[0]).exists(), test

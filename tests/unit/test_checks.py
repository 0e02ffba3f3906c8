"""Configuration mistakes that no site of the tests can really make."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.db import connections

from sipgate_provider import tokens


def found(*databases: str) -> set[str]:
    messages = checks.run_checks(tags=[checks.Tags.database], databases=list(databases))
    return {
        message.id
        for message in messages
        if message.id and message.id.startswith("sipgate_provider.")
    }


@pytest.mark.parametrize(
    ("vendor", "remarked"), [("sqlite", False), ("postgresql", False), ("mysql", True)]
)
def test_a_database_on_which_nothing_was_tried_is_remarked_on(
    db: None, vendor: str, remarked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no such server here: only its name counts.
    monkeypatch.setattr(connections[tokens.using()], "vendor", vendor)
    assert ("sipgate_provider.W017" in found(tokens.using())) is remarked
    assert "sipgate_provider.W017" not in found()


def test_time_zones_are_needed(settings: Any) -> None:
    settings.USE_TZ = False
    assert "sipgate_provider.E015" in {message.id for message in checks.run_checks()}

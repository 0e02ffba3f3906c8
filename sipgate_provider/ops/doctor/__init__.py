"""Looks for what keeps a site from working with sipgate, and says how to correct it, before a user is affected.

Every check yields findings, good ones too, so that a report shows what was checked. Nothing is changed, no finding
holds a secret, and a check that cannot be made is a finding and not an error.

``configuration`` looks at settings, ``state`` at keys, journal, cache and database; ``sipgate`` asks sipgate.
Findings of the system checks of Django, allauth and this app are included and not checked again.

Must not know: terminals, how findings are shown.
"""

from __future__ import annotations

from . import configuration, sipgate, state
from .findings import Finding, Severity, worst

TIMEOUT = 10.0


def diagnose(*, offline: bool = False, timeout: float = TIMEOUT) -> list[Finding]:
    """Look at everything and return what was found.

    Args:
        offline: leave out what needs sipgate.
        timeout: seconds that each question to sipgate may take.
    """
    found = [*configuration.findings(), *state.findings()]
    return found if offline else [*found, *sipgate.findings(timeout)]


__all__ = ["TIMEOUT", "Finding", "Severity", "diagnose", "worst"]

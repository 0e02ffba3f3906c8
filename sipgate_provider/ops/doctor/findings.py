"""The findings that the doctor reports. Settings have the names by which the site's operators know them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from django.utils import timezone


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check: a stable name, how bad it is, what was found, and what to do about it."""

    check: str
    severity: Severity
    found: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        return {**asdict(self), "severity": self.severity.value}


def finding(severity: Severity, check: str, found: str, cure: str = "") -> Finding:
    """Return a finding; ``found`` and ``cure`` are one line each and name settings as Django does."""
    found, cure = (" ".join(text.split()) for text in (found, cure))
    return Finding(check=check, severity=severity, found=found, cure=cure)


def ok(check: str, found: str, cure: str = "") -> Finding:
    return finding(Severity.OK, check, found, cure)


def warning(check: str, found: str, cure: str) -> Finding:
    return finding(Severity.WARNING, check, found, cure)


def error(check: str, found: str, cure: str) -> Finding:
    return finding(Severity.ERROR, check, found, cure)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the gravest severity among the findings."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)


def when(moment: datetime) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M")

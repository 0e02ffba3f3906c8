"""What the doctor finds: a stable name, how bad it is, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum


class Severity(IntEnum):
    """Its number is the exit code of ``sipgate_doctor``."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found under a stable name, how bad it is, and what to do about it."""

    check: str
    severity: Severity
    found: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        return {**asdict(self), "severity": self.severity.name.lower()}


def ok(check: str, found: str, cure: str = "") -> Finding:
    """Return a finding that needs no action; ``cure`` is a remark."""
    return Finding(check=check, severity=Severity.OK, found=found, cure=cure)


def warning(check: str, found: str, cure: str) -> Finding:
    return Finding(check=check, severity=Severity.WARNING, found=found, cure=cure)


def error(check: str, found: str, cure: str) -> Finding:
    return Finding(check=check, severity=Severity.ERROR, found=found, cure=cure)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the gravest severity among the findings."""
    return max((finding.severity for finding in findings), default=Severity.OK)

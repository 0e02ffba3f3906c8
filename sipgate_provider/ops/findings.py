"""What the doctor finds: a stable name, how bad it is, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found under a stable name, how bad it is, and what to do about it."""

    check: str
    severity: Severity
    found: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        return {**asdict(self), "severity": self.severity.value}


def ok(check: str, found: str, cure: str = "") -> Finding:
    """Return a finding that is fine; with ``cure``, a remark."""
    return Finding(check=check, severity=Severity.OK, found=found, cure=cure)


def warning(check: str, found: str, cure: str) -> Finding:
    return Finding(check=check, severity=Severity.WARNING, found=found, cure=cure)


def error(check: str, found: str, cure: str) -> Finding:
    return Finding(check=check, severity=Severity.ERROR, found=found, cure=cure)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the gravest severity among the findings."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)

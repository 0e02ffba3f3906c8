"""``manage.py sipgate_doctor``: says what is wrong, and what to do about it."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage
from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError

from sipgate_provider.ops import doctor


class Command(BaseCommand):
    help = (
        "Examine settings, keys, database, journal and connections. Ask sipgate, without a user, "
        "whether client, secret, redirect URI and all scopes of settings and code are right. "
        "Changes nothing and shows no secret. Exit code: 0 all is well, 1 warnings, 2 errors."
    )
    # The doctor runs the system checks itself; a failing check must not keep it from running.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--offline", action="store_true", help="Do not ask sipgate.")
        parser.add_argument(
            "--json", action="store_true", help="Write numbers and findings as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        findings = [_as_dict(one) for one in doctor.diagnose(offline=options["offline"])]
        severities = [finding["severity"] for finding in findings]
        code = 2 if "error" in severities else 1 if "warning" in severities else 0
        if options["json"]:
            document = {"exit_code": code, "counts": _counts(), "findings": findings}
            self.stdout.write(json.dumps(document, cls=DjangoJSONEncoder))
            sys.exit(code)
        for finding in findings:
            self._show(**finding)
        numbers = f"Errors: {severities.count('error')}. Warnings: {severities.count('warning')}."
        self.stdout.write(numbers if code else "All is well.")
        sys.exit(code)

    def _show(self, *, severity: str, found: str, cure: str, **_name: str) -> None:
        styles = {
            "ok": self.style.SUCCESS,
            "warning": self.style.WARNING,
            "error": self.style.ERROR,
        }
        self.stdout.write(f"{styles[severity](f'{severity:<8}')}{found}")
        if cure:
            self.stdout.write(f"        → {cure}")


def _as_dict(finding: CheckMessage) -> dict[str, str]:
    """Return a finding with its texts in one line each."""
    is_error, is_fine = finding.level >= checks.ERROR, finding.level < checks.WARNING
    return {
        "check": finding.id or "",
        "severity": "error" if is_error else "ok" if is_fine else "warning",
        "found": " ".join(str(finding.msg).split()),
        "cure": " ".join(str(finding.hint or "").split()),
    }


def _counts() -> dict[str, Any] | None:
    try:
        return doctor.counts()
    except DatabaseError:
        return None  # a finding says so

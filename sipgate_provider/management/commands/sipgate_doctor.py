"""``manage.py sipgate_doctor``: says what is wrong, and what to do about it."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError

from sipgate_provider.ops import doctor
from sipgate_provider.ops.findings import Finding, Severity, worst


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
        findings = doctor.diagnose(offline=options["offline"])
        code = int(worst(findings))
        if options["json"]:
            shown = [finding.as_dict() for finding in findings]
            document = {"exit_code": code, "counts": _counts(), "findings": shown}
            self.stdout.write(json.dumps(document, cls=DjangoJSONEncoder))
        else:
            self._show(findings)
        sys.exit(code)

    def _show(self, findings: list[Finding]) -> None:
        styles = {
            Severity.OK: self.style.SUCCESS,
            Severity.WARNING: self.style.WARNING,
            Severity.ERROR: self.style.ERROR,
        }
        for finding in findings:
            word = styles[finding.severity](f"{finding.severity.name.lower():<8}")
            self.stdout.write(f"{word}{finding.found}")
            if finding.cure:
                self.stdout.write(f"        → {finding.cure}")
        number = {one: sum(f.severity is one for f in findings) for one in Severity}
        self.stdout.write(
            "All is well."
            if worst(findings) is Severity.OK
            else f"{number[Severity.ERROR]} errors, {number[Severity.WARNING]} warnings."
        )


def _counts() -> dict[str, Any] | None:
    try:
        return doctor.counts()
    except DatabaseError:
        return None  # a finding says so

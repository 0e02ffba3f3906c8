"""``manage.py sipgate_doctor``: find what keeps the site from working with sipgate, and say how to cure it."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sipgate_provider.management.output import as_json
from sipgate_provider.ops import doctor
from sipgate_provider.ops.doctor import Finding, Severity

EXIT_CODES = {Severity.OK: 0, Severity.WARNING: 1, Severity.ERROR: 2}
LONGEST_TIMEOUT = 120.0


class Command(BaseCommand):
    help = (
        "Find out what keeps this site from working with sipgate: settings, redirect URI, keys, database, journal, "
        "cache, clock, connections in trouble. Ask sipgate itself, without a user, whether it knows client, secret, "
        "redirect URI and every scope that the settings and the code ask for. Changes nothing and shows no secret. "
        "Exit code: 0 all is well, 1 warnings, 2 errors."
    )
    # The doctor runs the system checks itself. One that fails must not keep it from running.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--offline", action="store_true", help="Do not ask sipgate.")
        parser.add_argument(
            "--timeout",
            type=_seconds,
            default=doctor.TIMEOUT,
            metavar="SECONDS",
            help="How long each question to sipgate may take (default 10).",
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the findings as one line of JSON."
        )
        parser.add_argument(
            "--problems", action="store_true", help="Show only warnings and errors."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        findings = doctor.diagnose(offline=options["offline"], timeout=options["timeout"])
        code = EXIT_CODES[doctor.worst(findings)]
        shown = [
            found
            for found in findings
            if not options["problems"] or found.severity is not Severity.OK
        ]
        if options["json"]:
            self.stdout.write(
                as_json(
                    {
                        "exit_code": code,
                        **counts(findings),
                        "findings": [f.as_dict() for f in shown],
                    }
                )
            )
        else:
            self._show(shown)
            self.stdout.write(summary(findings))
        sys.exit(code)

    def _show(self, findings: list[Finding]) -> None:
        styles = {
            Severity.OK: self.style.SUCCESS,
            Severity.WARNING: self.style.WARNING,
            Severity.ERROR: self.style.ERROR,
        }
        for finding in findings:
            self.stdout.write(
                f"{styles[finding.severity](f'{finding.severity.value:<8}')}{finding.found}"
            )
            if finding.cure:
                self.stdout.write(f"        → {finding.cure}")


def counts(findings: list[Finding]) -> dict[str, int]:
    """Return how many findings there are of each severity."""
    return {
        name: sum(finding.severity is severity for finding in findings)
        for name, severity in (
            ("errors", Severity.ERROR),
            ("warnings", Severity.WARNING),
            ("fine", Severity.OK),
        )
    }


def summary(findings: list[Finding]) -> str:
    """Return the last line: how many there are, and with what to begin."""
    number = counts(findings)
    if not number["errors"] and not number["warnings"]:
        return f"All is well: {number['fine']} checks passed."
    found = ", ".join(
        f"{number[f'{word}s']} {word}{'' if number[f'{word}s'] == 1 else 's'}"
        for word in ("error", "warning")
    )
    return f"{found}, {number['fine']} checks passed. Begin with the first {'error' if number['errors'] else 'warning'}."


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST_TIMEOUT:
        raise ArgumentTypeError(
            f"must be a number of seconds, more than 0 and at most {LONGEST_TIMEOUT:.0f}"
        )
    return value

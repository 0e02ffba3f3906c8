"""``manage.py sipgate_status``: shows the state of the connections, for people and for monitors."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone, translation

from sipgate_provider import errors, tokens
from sipgate_provider.management.output import as_json
from sipgate_provider.models import Reason, State
from sipgate_provider.ops import statistics
from sipgate_provider.ops.doctor import Finding, Severity, findings, state

FINE, ATTENTION, MISCONFIGURED = 0, 1, 2


class Command(BaseCommand):
    help = (
        "Show the state of the sipgate connections: states and reasons, connections that will end, failures of the "
        "last day, pending revocations, journal, client pause. Does not ask sipgate, and makes few queries. "
        "Exit code: 0 fine, 1 something needs attention, 2 this site's client or keys are misconfigured."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="Write the statistics as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        now = timezone.now()
        try:
            known, details = statistics.measure(now), statistics.details(now)
            found = [*_settings(), *_pauses(known), *state.connections(now, known, details)]
        except DatabaseError as error:
            raise CommandError(
                f"The database does not answer, or its migrations are not applied ({type(error).__name__})."
            ) from None
        problems = [finding for finding in found if finding.severity is not Severity.OK]
        code = exit_code(problems)
        if options["json"]:
            self.stdout.write(as_json(document(known, details, problems, code)))
        else:
            with translation.override("en"):
                self.stdout.write("\n".join(lines(known, details, problems)))
        sys.exit(code)


def _settings() -> list[Finding]:
    try:
        tokens.client()
        tokens.key_ids()
    except errors.Misconfigured as error:
        return [findings.error("settings", error.message, f"Check {error.setting}.")]
    return []


def _pauses(known: statistics.Statistics) -> list[Finding]:
    return [
        state.client_paused(pause.since, pause.error_code, pause.setting) for pause in known.pauses
    ]


def exit_code(problems: list[Finding]) -> int:
    if any(problem.severity is Severity.ERROR for problem in problems):
        return MISCONFIGURED
    return ATTENTION if problems else FINE


def document(
    known: statistics.Statistics, details: statistics.Details, problems: list[Finding], code: int
) -> dict[str, Any]:
    """Return what a monitor reads; names are stable, times are ISO 8601."""
    return {
        "exit_code": code,
        "at": known.at,
        "connections": known.connections,
        "states": known.states,
        "reasons": [
            {"state": value, "reason": reason, "number": number}
            for (value, reason), number in sorted(details.troubles.items())
        ],
        "failing_since": details.oldest_failing_since,
        "ending_within_days": {str(days): number for days, number in details.ending.items()},
        "overdue": details.overdue,
        "failures_of_the_last_day": failures(known),
        "revocations": known.revocations,
        "oldest_revocation": known.oldest_revocation,
        "in_journal": known.in_journal,
        "pauses": [
            {
                "since": pause.since,
                "until": pause.until,
                "error": pause.error_code,
                "setting": pause.setting,
            }
            for pause in known.pauses
        ],
        "problems": [problem.as_dict() for problem in problems],
    }


def lines(
    known: statistics.Statistics, details: statistics.Details, problems: list[Finding]
) -> list[str]:
    """Return aligned lines for a person."""
    rows = [("connections", str(known.connections))]
    for value in State.values:
        rows.append((f"  {State(value).label}", str(known.states[value])))
        rows += [
            (f"    {Reason(reason).label if reason in Reason.values else reason}", str(number))
            for (of, reason), number in sorted(details.troubles.items())
            if of == value and reason
        ]
    rows += [
        (f"links that end within {days} {'day' if days == 1 else 'days'}", str(n))
        for days, n in details.ending.items()
    ]
    rows += [
        ("refreshes overdue for a day", str(details.overdue)),
        ("failures of the last day", str(failures(known))),
        ("failing since", _when(details.oldest_failing_since)),
        (
            "pending revocations",
            f"{known.revocations}, the first since {_when(known.oldest_revocation)}"
            if known.revocations
            else "0",
        ),
        ("pairs in the journal", str(known.in_journal)),
        (
            "client paused",
            ", ".join(f"since {_when(p.since)} ({p.error_code})" for p in known.pauses) or "no",
        ),
    ]
    width = max(len(name) for name, _value in rows) + 2
    text = [f"{name:<{width}}{value}" for name, value in rows]
    for problem in problems:
        text += [f"{problem.severity.value}: {problem.found}", f"  → {problem.cure}"]
    return text


def failures(known: statistics.Statistics) -> int:
    return sum(number for _hour, number in known.failures)


def _when(moment: datetime | None) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M") if moment else "–"

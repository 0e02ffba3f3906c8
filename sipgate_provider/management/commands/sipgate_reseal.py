"""``manage.py sipgate_reseal``: seal everything with the first key of the ring, while the site runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sipgate_provider import errors, tokens
from sipgate_provider.management.output import Progress, as_json, command_error


class Command(BaseCommand):
    help = (
        "Encrypt everything with the first key of SIPGATE_TOKEN_KEYS: tokens, pending revocations, and the journal of "
        "this machine. Run it on each machine that has a journal. Safe to interrupt, to repeat and to run while the "
        "site is in use. Exit code: 0 neither the database nor this machine needs another key, 1 something still does."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=int, default=500, help="Rows per transaction (default 500)."
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the report as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            first = tokens.key_ids()[0]
            total = sum(number for key, number in tokens.status().keys.items() if key != first)
        except errors.Misconfigured as error:
            raise command_error(error.message) from None
        progress = Progress(self.stderr, total)
        report = tokens.reseal(
            batch=min(max(options["batch"], 1), 10_000),
            progress=lambda report: progress.show(report.done, "resealed"),
        )
        progress.clear()
        self.stdout.write(as_json(asdict(report)) if options["json"] else summary(report, first))
        sys.exit(1 if report.left else 0)


def summary(report: tokens.Resealed, first: str) -> str:
    """Return what was done, and whether the old keys may go."""
    lines = [
        f"{report.done} tokens, {report.revocations} pending revocations and {report.journal} journal entries sealed "
        f"with key {first} in {report.seconds:.1f} s."
    ]
    if report.unreadable:
        lines.append(
            f"{report.unreadable} could not be opened: their key is not in SIPGATE_TOKEN_KEYS. Add it again at the end."
        )
    if report.left:
        others = ", ".join(
            f"{key} ({number})" for key, number in sorted(report.keys.items()) if key != first
        )
        lines.append(f"Still in use: {others}. Keep these keys, and run this again.")
    else:
        lines.append(
            "Neither the database nor this machine's journal needs another key. The old ones may be removed from "
            "SIPGATE_TOKEN_KEYS when this command has said so on each machine that has a journal. Wait for some "
            "minutes, so that sign-ins which began before can end."
        )
    return " ".join(lines)

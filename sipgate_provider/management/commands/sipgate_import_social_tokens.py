"""``manage.py sipgate_import_social_tokens``: move sipgate's tokens out of allauth's clear text table."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from sipgate_provider import conf, errors
from sipgate_provider.management.output import Progress, as_json, command_error
from sipgate_provider.ops import import_social_tokens


class Command(BaseCommand):
    help = (
        "Encrypt sipgate's tokens that allauth stores in clear text (SocialToken), and remove the clear text. A "
        "connection that has an encrypted token keeps it. Token pairs that have ended become 'needs sign-in', so that "
        "users are told what to do. With --provider, connections made through allauth's OpenID Connect provider, or "
        "one of your own, become sipgate connections: sipgate is asked who each belongs to. Safe to interrupt, to "
        "repeat and to run while the site is in use. Exit code: 0 nothing is left to do, 1 some rows were left, see "
        "the report."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--provider",
            default=conf.PROVIDER_ID,
            help="Provider of the connections as allauth stores it (default sipgate).",
        )
        parser.add_argument(
            "--batch",
            type=_batch,
            default=import_social_tokens.BATCH,
            help="Connections per transaction (default 200).",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only count: write nothing, ask nobody."
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the report as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        progress = Progress(self.stderr, import_social_tokens.count(options["provider"]))
        try:
            report = import_social_tokens.run(
                provider=options["provider"],
                batch=options["batch"],
                dry_run=options["dry_run"],
                progress=lambda report: progress.show(report.connections, "connections"),
            )
        except errors.Misconfigured as error:
            raise command_error(error.message) from None
        progress.clear()
        if getattr(settings, "SOCIALACCOUNT_STORE_TOKENS", False):
            report.notes.append(
                "SOCIALACCOUNT_STORE_TOKENS is on: the next sign-in stores clear text again. Switch it off."
            )
        self.stdout.write(as_json(report.as_dict()) if options["json"] else summary(report))
        sys.exit(0 if report.is_complete else 1)


def summary(report: import_social_tokens.Report) -> str:
    """Return what was done, or would be, and what is left."""
    would = "would be " if report.dry_run else ""
    parts = [f"{report.imported} of {report.connections} connections {would}imported"]
    parts += [
        f"{number} {words}"
        for number, words in (
            (report.need_sign_in, "of them need a new sign-in"),
            (report.kept, "had a sealed token already"),
            (report.rows_removed, f"clear text rows {would}removed"),
            (report.rekeyed, "became sipgate connections"),
            (report.unusable, "left: there is no token in them"),
            (report.foreign, "left: their tokens are not provably sipgate's and this client's"),
            (report.taken, "left: see below"),
            (
                report.unidentified,
                "left: they have ended, so sipgate cannot tell whose they are; these people connect sipgate anew",
            ),
            (report.waiting, "wait for sipgate: run this again"),
        )
        if number
    ]
    lines = [f"{', '.join(parts)}, in {report.seconds:.1f} s.", *report.notes]
    if report.stopped:
        lines.append(f"Stopped early: {report.stopped}")
    if report.rows_removed and not report.dry_run:
        lines.append(
            "Backups, and pages that the database has not yet reused, may still hold the clear text (VACUUM)."
        )
    return "\n".join(lines)


def _batch(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise ArgumentTypeError("must be a whole number from 1 to 10000")
    return int(text)

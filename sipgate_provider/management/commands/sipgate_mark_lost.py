"""``manage.py sipgate_mark_lost``: after a restore, mark connections whose newest token pair is lost."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from sipgate_provider.management.output import as_json
from sipgate_provider.ops import mark_lost


class Command(BaseCommand):
    help = (
        "After a restored backup, or a failover that lost commits: recover the journal of this machine, then mark the "
        "connections whose tokens in the database were certainly replaced since. Their users are asked to sign in "
        "again. sipgate is not asked. Exit code: 0 done, 2 a time is missing or invalid."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--until",
            type=_moment,
            required=True,
            metavar="MOMENT",
            help="When the newer database last worked and keepalive last ran, such as 2026-11-24T12:00.",
        )
        parser.add_argument(
            "--used-since",
            type=_moment,
            metavar="MOMENT",
            help="Also mark connections that were last used at this time or later: they were in use at the time of "
            "the backup, and probably after it.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only count: recover and mark nothing."
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the report as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        report = mark_lost.run(
            until=options["until"], used_since=options["used_since"], dry_run=options["dry_run"]
        )
        self.stdout.write(as_json(report.as_dict()) if options["json"] else summary(report))


def summary(report: mark_lost.Report) -> str:
    """Return what was done, or would be."""
    would = "would be " if report.dry_run else ""
    return (
        f"{report.recovered} recovered from the journal, {report.marked} {would}marked as lost, {report.left} left, in "
        f"{report.seconds:.1f} s."
    )


def _moment(text: str) -> datetime:
    """Return a moment in the past; without an offset it is local time."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise ArgumentTypeError("must be a date and a time, such as 2026-11-24T12:00")
    moment = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    if moment > timezone.now():
        raise ArgumentTypeError("must not be in the future")
    return moment

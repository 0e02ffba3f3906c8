"""``manage.py sipgate_keepalive``: refresh idle connections before they end, revoke, recover from the journal."""

from __future__ import annotations

import sys
import threading
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sipgate_provider.management.output import Progress, as_json, stopping_cleanly
from sipgate_provider.ops import keepalive, pace

FINE, STOPPED, MISCONFIGURED, FAILED = 0, 2, 3, 4
"""Not 1, with which any command ends that cannot start: failed refreshes that will be tried again are no emergency."""


class Command(BaseCommand):
    help = (
        "Refresh idle connections before they end, finish pending revocations, and store what "
        "waits in the journal. Any number of machines may run it at once. Exit code: 0 all is well, 1 it could not "
        "start, 2 stopped early (sipgate or the database does not answer), 3 sipgate refuses this site's client, 4 "
        "some refreshes failed and will be tried again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--loop", action="store_true", help="Run again and again until SIGTERM or Ctrl-C."
        )
        parser.add_argument(
            "--interval",
            type=_positive,
            default=60.0,
            metavar="SECONDS",
            help="Pause between two runs (default 60).",
        )
        parser.add_argument(
            "--rate",
            type=_not_negative,
            default=keepalive.RATE,
            metavar="PER_SECOND",
            help="At most this many refreshes per second (default 50; 0: no limit), half if sipgate asks for fewer.",
        )
        parser.add_argument(
            "--threads",
            type=int,
            default=64,
            help="At most this many refreshes at a time (default 64).",
        )
        parser.add_argument(
            "--limit", type=int, default=None, help="Refresh at most this many connections."
        )
        parser.add_argument(
            "--all",
            action="store_true",
            dest="everything",
            help="Refresh every connection, due or not.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only print how many connections are due."
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the report as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["dry_run"]:
            self._say_due(options)
            return
        with stopping_cleanly() as stop:
            code = self._run(options, stop)
            while options["loop"] and not pace.Halt(stop).wait(options["interval"]):
                code = self._run(options, stop)
        sys.exit(code)

    def _say_due(self, options: dict[str, Any]) -> None:
        due = keepalive.count_due(everything=options["everything"])
        self.stdout.write(
            as_json({"due": due})
            if options["json"]
            else f"{due} connections are due; nothing was done."
        )

    def _run(self, options: dict[str, Any], stop: threading.Event) -> int:
        progress = Progress(
            self.stderr,
            keepalive.count_due(everything=options["everything"]) if self.stderr.isatty() else 0,
        )
        report = keepalive.run(
            rate=options["rate"],
            threads=max(options["threads"], 1),
            everything=options["everything"],
            limit=options["limit"],
            stop=stop,
            progress=lambda report: progress.show(report.ended, f"{report.failed} failed"),
        )
        progress.clear()
        self.stdout.write(as_json(report.as_dict()) if options["json"] else summary(report))
        self.stdout.flush()
        return exit_code(report)


def summary(report: keepalive.Report) -> str:
    """Return the one line of a run."""
    parts = [f"{report.refreshed} refreshed"]
    parts += [
        f"{number} {words}"
        for number, words in (
            (report.needs_sign_in, "need a new sign-in"),
            (report.failed, "failed"),
            (report.skipped, "left for later"),
            (report.recovered, "recovered from the journal"),
            (report.revocations_done, "revocations done"),
            (report.revocations_waiting, "revocations pending"),
            (report.notified, "users notified by mail"),
        )
        if number
    ]
    text = f"{', '.join(parts)}, in {report.seconds:.1f} s."
    return f"{text} Stopped early: {report.stopped}" if report.stopped else text


def exit_code(report: keepalive.Report) -> int:
    if report.is_misconfigured:
        return MISCONFIGURED
    if report.stopped:
        return STOPPED
    return FAILED if report.failed else FINE


def _positive(text: str) -> float:
    value = _not_negative(text)
    if not value:
        raise ArgumentTypeError("must be more than 0")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100_000:
        raise ArgumentTypeError("must be a number from 0 to 100000")
    return value

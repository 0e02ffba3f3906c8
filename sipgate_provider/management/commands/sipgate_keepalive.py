"""``manage.py sipgate_keepalive``: does the regular work, once or in a loop."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sipgate_provider.ops import keepalive

FINE, STOPPED, MISCONFIGURED, FAILED = 0, 2, 3, 4
"""Not 1, the exit code of any command that cannot start."""


class Command(BaseCommand):
    help = (
        "Refresh idle connections before they end, end grants at sipgate, email users who must "
        "sign in again, store what waits in the journal, and remove old history. Any number of "
        "machines may run it at once. Exit code: 0 all is well, 1 it could not start, 2 stopped "
        "early (sipgate or the database does not answer), 3 sipgate rejects this site's client, "
        "4 some refreshes failed and will be tried again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--loop", action="store_true", help="Run again and again until SIGTERM or Ctrl-C."
        )
        parser.add_argument(
            "--interval",
            type=float,
            default=60.0,
            metavar="SECONDS",
            help="Pause between two runs (default 60).",
        )
        parser.add_argument(
            "--json", action="store_true", help="Write the report as one line of JSON."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        with _stopping_cleanly() as stop:
            code = self._run(options, stop)
            while options["loop"] and not stop.wait(options["interval"]):
                code = self._run(options, stop)
        sys.exit(code)

    def _run(self, options: dict[str, Any], stop: threading.Event) -> int:
        report = keepalive.run(stop=stop)
        as_json = options["json"]
        self.stdout.write(json.dumps(report.as_dict()) if as_json else summary(report))
        self.stdout.flush()
        if report.is_misconfigured:
            return MISCONFIGURED
        return STOPPED if report.stopped else FAILED if report.failed else FINE


def summary(report: keepalive.Report) -> str:
    """Return one line about a run: what it did, and why it stopped."""
    numbers = {
        "refreshed": report.refreshed,
        "failed": report.failed,
        "need a new sign-in": report.needs_sign_in,
        "recovered from the journal": report.recovered,
        "grants ended": report.endings_done,
        "endings waiting": report.endings_waiting,
        "users emailed": report.mails,
        "old rows removed": report.forgotten,
    }
    parts = [f"{number} {words}" for words, number in numbers.items() if number]
    text = f"{', '.join(parts) or 'Nothing to do'}, in {report.seconds:.1f} s."
    return f"{text} Stopped early: {report.stopped}" if report.stopped else text


@contextmanager
def _stopping_cleanly() -> Iterator[threading.Event]:
    """Inside this block, SIGTERM and Ctrl-C set the event and let the process finish its work."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(*_signal: object) -> None:
        # In a thread: this one may be about to wait for the event, and hold its lock.
        threading.Thread(target=stop.set).start()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield stop
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)

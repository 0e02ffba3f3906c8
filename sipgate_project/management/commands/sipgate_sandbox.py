"""``manage.py sipgate_sandbox``: the local sandbox alone, fitted to this site's settings."""

from __future__ import annotations

import os
from argparse import REMAINDER
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from sipgate_project import sandbox


class Command(BaseCommand):
    help = "Start the local sandbox alone, or pass a command to it: manage.py sipgate_sandbox fault slow --on refresh"
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "arguments", nargs=REMAINDER, help="Words for the sandbox; none starts it."
        )

    def handle(self, *_args: Any, **options: Any) -> NoReturn:
        first, *rest = options["arguments"] or ["serve"]
        fitted = (
            sandbox.serve_arguments()
            if first == "serve"
            else [first, "--url", settings.SANDBOX_URL]
        )
        arguments = [*fitted, *rest]
        # The sandbox replaces this process, so that ending this command always ends the sandbox.
        os.chdir(settings.BASE_DIR)
        command = sandbox.command(*arguments)
        os.execve(command[0], command, sandbox.environment())  # noqa: S606  # our own module, no shell

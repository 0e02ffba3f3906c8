"""``manage.py sipgate_reseal``: seals everything with the first key, while the site runs."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sipgate_provider import errors, tokens


class Command(BaseCommand):
    help = (
        "Encrypt everything with the first key of SIPGATE_TOKEN_KEYS: tokens, pending endings, and "
        "the journal of this machine. Run it on each machine that has a journal. You may interrupt "
        "and repeat it, and the site may run meanwhile. Exit code: 0 neither the database nor this "
        "machine needs another key, 1 something still does."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            report = tokens.reseal()
        except errors.Misconfigured as error:
            raise CommandError(error.message) from None
        self.stdout.write(
            f"{report.tokens} tokens, {report.endings} pending endings and {report.journal} "
            "journal entries sealed with the first key."
        )
        if report.unreadable:
            self.stdout.write(
                f"{report.unreadable} do not open: their key is not in SIPGATE_TOKEN_KEYS. Add it "
                "again at the end."
            )
        if report.left:
            self.stdout.write(f"{report.left} still need another key: keep it, and run this again.")
        else:
            self.stdout.write(
                "Neither the database nor this machine's journal needs another key. When this "
                "command has said so on each machine with a journal, wait a few minutes for "
                "pending sign-ins. Then remove the old keys."
            )
        sys.exit(1 if report.left else 0)

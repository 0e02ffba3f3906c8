"""``migrate``, which says in one sentence if the database cannot be used, and why."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands.migrate import Command as MigrateCommand

from sipgate_project import database


class Command(MigrateCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        if trouble := database.trouble():
            raise CommandError(trouble)
        super().handle(*args, **options)

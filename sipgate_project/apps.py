"""Creates the table of the cache after ``migrate``."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core.management import call_command
from django.db.models.signals import post_migrate


class SiteConfig(AppConfig):
    name = "sipgate_project"

    def ready(self) -> None:
        # Django sends the signal only for apps with models, and this one has none.
        post_migrate.connect(_make_cache_table, sender=apps.get_app_config("sipgate_provider"))


def _make_cache_table(using: str, **_kwargs: Any) -> None:
    call_command("createcachetable", database=using, verbosity=0)

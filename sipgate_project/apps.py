"""Registers the site's checks."""

from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "sipgate_project"

    def ready(self) -> None:
        from sipgate_project import checks

        checks.register_checks()

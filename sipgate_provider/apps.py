"""Names the app, registers its checks and receivers."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SipgateProviderConfig(AppConfig):
    name = "sipgate_provider"
    verbose_name = _("sipgate connections")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, notices, receivers

        checks.register_checks()
        receivers.connect_signals()
        notices.connect_signals()

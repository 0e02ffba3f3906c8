"""Names the app, registers its checks, receivers and metrics."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SipgateProviderConfig(AppConfig):
    name = "sipgate_provider"
    verbose_name = _("sipgate connections")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from sipgate_provider import checks, conf
        from sipgate_provider.ops import notices, personal_data
        from sipgate_provider.sign_in import receivers

        checks.register_checks()
        receivers.connect_signals()
        notices.connect_signals()
        personal_data.connect_signals()
        if conf.metrics():
            from sipgate_provider import exposition

            exposition.register()

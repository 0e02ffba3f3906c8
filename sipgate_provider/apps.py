"""Names the app, and registers its checks, receivers and metrics."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SipgateProviderConfig(AppConfig):
    name = "sipgate_provider"
    verbose_name = _("sipgate connections")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing these registers checks and connects receivers.
        from sipgate_provider import checks, conf  # noqa: F401  # as above
        from sipgate_provider.ops import notices, personal_data  # noqa: F401  # as above
        from sipgate_provider.sign_in import receivers  # noqa: F401  # as above

        if conf.metrics():
            from sipgate_provider import exposition

            exposition.register()

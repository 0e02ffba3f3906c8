"""The adapter for allauth's local accounts."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.contrib.sites.shortcuts import get_current_site
from django.db import transaction


class AccountAdapter(DefaultAccountAdapter):
    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send an email under the site's name, after the commit. A failure stops nothing else."""
        site = get_current_site(self.request)
        site.name = settings.SIPGATE_SITE_NAME
        context = {"request": self.request, "email": email, "current_site": site, **context}
        message = self.render_mail(template_prefix, email, context)
        transaction.on_commit(message.send, robust=True)  # Django logs a failure

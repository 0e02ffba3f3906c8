"""The adapter for allauth's local accounts. Mails are sent after the response, and a mail that fails stops nobody."""

from __future__ import annotations

import logging
from functools import partial
from smtplib import SMTPException
from typing import Any
from uuid import uuid4

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.contrib.sites.shortcuts import get_current_site
from django.core.mail import EmailMessage
from django.db import transaction

from sipgate_provider import errors, tokens

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):
    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Render now, in the person's language, and send in a thread after the commit. Otherwise a sign-in would hold
        its transaction for as long as the mail server takes, and fail with it.
        """
        site = get_current_site(self.request)
        site.name = settings.SIPGATE_SITE_NAME
        message = self.render_mail(
            template_prefix,
            email,
            {"request": self.request, "email": email, "current_site": site, **context},
        )
        transaction.on_commit(partial(_send_behind, message))


def _send_behind(message: EmailMessage) -> None:
    sending = tokens.errands.submit_once(("mail", uuid4()), partial(_send, message))
    if sending.done() and isinstance(sending.exception(), errors.SipgateUnavailable):
        _send(message)  # no thread is free: the page waits


def _send(message: EmailMessage) -> None:
    try:
        message.send()
    except (OSError, SMTPException) as error:
        logger.error("A mail could not be sent (%s): check EMAIL_URL", type(error).__name__)

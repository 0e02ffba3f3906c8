"""Emails users that they must sign in again, and operators that sipgate rejects the client.

Keepalive emails users once per incident, and a few in each run, so that a fault of sipgate's does
not cause thousands of emails. sipgate may take a rejection back, so keepalive emails the user after
a second one, at least an hour later. It announces a fixed end a week before.
``SIPGATE_NOTICES = False`` turns emails off.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta
from functools import partial
from smtplib import SMTPRecipientsRefused
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.core.mail import mail_admins, send_mail
from django.db.models import F, Q
from django.dispatch import receiver
from django.template.loader import render_to_string
from django.utils import timezone, translation

from sipgate_provider import background, conf, database, links, signals
from sipgate_provider.connections import name_of
from sipgate_provider.models import TELL_BEFORE, Reason, SipgateToken, State, TokenEvent

logger = logging.getLogger(__name__)

MOST = 20
"""Emails to users in one run."""
TELL_FOR = timedelta(days=3)
"""An email about something older is useless."""
UNCERTAIN = (Reason.REJECTED, Reason.LOST_ROTATION)
"""Reasons of a rejection that sipgate may take back."""
CERTAIN_AFTER = timedelta(hours=1)


@receiver(signals.misconfigured)
def _operators(code: str, setting: str, **_kwargs: Any) -> None:
    if conf.notices() and settings.ADMINS:
        background.errands.submit_once(
            ("notice", "operators"), partial(tell_operators, code, setting)
        )


def tell_operators(code: str, setting: str) -> None:
    """Email ``ADMINS`` that sipgate rejects this site's client."""
    context = {"code": code, "setting": setting, "site": conf.site_url()}
    try:
        with translation.override(settings.LANGUAGE_CODE):
            mail_admins(*_written("misconfigured", context))
    except OSError as error:  # an SMTPException is one
        logger.error("Could not email the operators: %s", type(error).__name__)


def tell_users(stop: threading.Event) -> int:
    """Email at most ``MOST`` users who were not notified yet; return how many emails went out."""
    if not conf.notices():
        return 0
    now = timezone.now()
    is_recent = Q(state=State.ACTIVE) | Q(state_since__gt=now - TELL_FOR)
    waiting = SipgateToken.objects.filter(untold(now), is_recent).order_by("state_since")
    sent = 0
    for connection_id in list(waiting.values_list("pk", flat=True)[:MOST]):
        if stop.is_set():
            break
        try:
            sent += tell_user(connection_id)
        except OSError as error:
            logger.warning("Could not email users: %s", type(error).__name__)
            break  # the mail server does not answer: the next run tries again
    return sent


def untold(now: datetime) -> Q:
    """Return the condition for connections that ended, or will end soon, without an email about
    it."""
    is_new = Q(notified_at=None) | Q(notified_at__lt=F("state_since"))
    is_repeated = Q(last_rejected_at__gte=F("state_since") + CERTAIN_AFTER)
    is_certain = ~Q(reason__in=UNCERTAIN) | Q(last_rejected_at=None) | is_repeated
    on_purpose = Q(reason__in=(Reason.REVOKED, Reason.ENDED_BY_USER))
    has_ended = Q(state=State.NEEDS_SIGN_IN) & ~on_purpose & is_certain
    ends = Q(refresh_expires_at__lte=now + TELL_BEFORE, reason=Reason.FIXED_END)
    return is_new & (has_ended | (ends & Q(state=State.ACTIVE)))


def tell_user(connection_id: int) -> bool:
    """Email the user of a connection, unless another process has; True if an email went out.

    Raises:
        OSError: the mail server does not answer. The next run sends the email.
    """
    now, rows = timezone.now(), SipgateToken.objects.filter(pk=connection_id)
    if not rows.filter(untold(now)).update(notified_at=now):  # another process was faster
        return False
    row = rows.select_related("connection__user", "connection__sipgate_account").get()
    address = _address(row.connection)
    if not address:
        return False  # the site's banner tells the user
    what = "needs_sign_in" if row.state == State.NEEDS_SIGN_IN else "ends_soon"
    context = {
        "token": row,
        "url": sign_in_address(row.connection),
        "site": conf.site_url(),
        "site_name": conf.site_name(),
    }
    with translation.override(language_of(row.connection)):
        context["name"] = name_of(row.connection)
        subject, message = _written(what, context)
    database.release_connections()
    try:
        send_mail(subject, message, None, [address])
    except SMTPRecipientsRefused:
        logger.warning("The mail server rejects the address of connection %s", connection_id)
        return False
    except OSError:
        rows.filter(notified_at=now).update(notified_at=None)
        raise
    TokenEvent.objects.add(TokenEvent.Kind.NOTIFIED, connection=row.connection, actor="keepalive")
    return True


def _written(what: str, context: dict[str, Any]) -> tuple[str, str]:
    subject = render_to_string(f"sipgate_provider/email/{what}_subject.txt", context)
    message = render_to_string(f"sipgate_provider/email/{what}_message.txt", context)
    return " ".join(subject.split()), message


def remember_language(user: Any, language: str) -> None:
    """Send emails to ``user`` in this language from now on."""
    for connection in SocialAccount.objects.filter(user=user, provider=conf.PROVIDER_ID):
        connection.extra_data["language"] = language
        connection.save(update_fields=["extra_data"])


def language_of(connection: SocialAccount) -> str:
    """Return the language the user chose here, else theirs at sipgate, else the site's."""
    data = connection.extra_data
    spoken = str(data.get("language") or data.get("locale") or "").replace("_", "-").lower()
    known = {code.lower(): code for code, _name in settings.LANGUAGES}
    return known.get(spoken) or known.get(spoken.partition("-")[0]) or settings.LANGUAGE_CODE


def _address(connection: SocialAccount) -> str:
    """Return the user's verified address; an unverified one may be somebody else's."""
    verified = EmailAddress.objects.filter(user=connection.user_id, verified=True)
    return str(verified.order_by("-primary").values_list("email", flat=True).first() or "")


def sign_in_address(connection: SocialAccount) -> str:
    """Return an address with which the connection's user can repair it, and nothing else.

    Empty if the site's address is unknown. It is not a credential: whoever follows it must sign in
    at sipgate.
    """
    path = links.sign_in_url("", process="login", repairs=connection.pk)
    return f"{conf.site_url()}{path}" if conf.site_url() and path else ""

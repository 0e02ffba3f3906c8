"""Tells people that they must sign in again, and operators that sipgate rejects the client: one mail per incident.

An incident begins when a connection falls into *needs sign-in* and ends with the next consent. The mail is sent when
the trouble is found, and by keepalive if that failed. A refusal may be taken back, so its person is told by
keepalive, after a second one; and while sipgate refuses more connections than it refreshes, the operators are told and
people are not. Keepalive also tells people, days before, of an end that nothing can move. ``SIPGATE_NOTICES = False``
switches mails off.

Must not know: why the link ended in detail, pages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from smtplib import SMTPException
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.core.mail import mail_admins, send_mail
from django.db.models import F, Q
from django.template.loader import render_to_string
from django.utils import timezone, translation

from sipgate_provider import conf, links, signals, tokens
from sipgate_provider.models import TELL_BEFORE, Reason, SipgateToken, State, TokenEvent

logger = logging.getLogger(__name__)

RETRY_AFTER = timedelta(minutes=5)
RETRY_FOR = timedelta(days=3)
"""A mail about something older is of no use."""


STORM_WITHIN = timedelta(hours=1)
STORM_FROM = 10
"""If this many connections were refused, and more than were refreshed, people are not told."""
STORM = "storm"


def connect_signals() -> None:
    """Called once, when the app is ready."""
    signals.needs_sign_in.connect(_person, dispatch_uid="sipgate_provider.notices.person")
    signals.misconfigured.connect(_operators, dispatch_uid="sipgate_provider.notices.operators")


def _person(connection: SocialAccount, **_kwargs: Any) -> None:
    if conf.notices():
        tokens.errands.submit_once(("notice", connection.pk), partial(tell_person, connection.pk))


def _operators(code: str, setting: str, **_kwargs: Any) -> None:
    if conf.notices() and settings.ADMINS:
        tokens.errands.submit_once(("notice", "operators"), partial(tell_operators, code, setting))


UNCERTAIN = (Reason.REFUSED, Reason.LOST_ROTATION)
"""Why sipgate refused a pair, as far as is known; it may be good again, if its person was suspended, say."""
CERTAIN_AFTER = timedelta(hours=1)


def due(limit: int = 100) -> list[int]:
    """Return the connections whose person was not told yet, or has to be told of a fixed end."""
    now = timezone.now()
    is_time = Q(state=State.ACTIVE) | Q(
        state_since__lte=now - RETRY_AFTER, state_since__gt=now - RETRY_FOR
    )
    rows = SipgateToken.objects.filter(not_yet_told(now), is_time).order_by("state_since")
    return list(rows.values_list("pk", flat=True)[:limit]) if conf.notices() else []


def not_yet_told(now: datetime) -> Q:
    """Return which connections have ended, or will soon for certain, without their person having been told of that.

    A refusal may be taken back: it is certain when it was repeated, ``CERTAIN_AFTER`` later at the earliest. What was
    never refused is known to be lost.
    """
    is_new = Q(notified_at=None) | Q(notified_at__lt=F("state_since"))
    is_repeated = Q(last_refused_at__gte=F("state_since") + CERTAIN_AFTER)
    is_certain = ~Q(reason__in=UNCERTAIN) | Q(last_refused_at=None) | is_repeated
    has_ended = (
        Q(state=State.NEEDS_SIGN_IN)
        & ~Q(reason__in=(Reason.REVOKED, Reason.ENDED_BY_PERSON))
        & is_certain
    )
    will_end = Q(
        state=State.ACTIVE, reason=Reason.FIXED_END, refresh_expires_at__lte=now + TELL_BEFORE
    )
    return is_new & (has_ended | will_end)


def claim_notice(connection_id: int, *, now: datetime) -> bool:
    """Take the task of telling the person about this incident. False: it is over, or somebody else tells them."""
    rows = SipgateToken.objects.filter(not_yet_told(now), pk=connection_id)
    return bool(rows.update(notified_at=now))


def return_notice(connection_id: int, *, claimed_at: datetime) -> None:
    """Give the task back: the person could not be told."""
    SipgateToken.objects.filter(pk=connection_id, notified_at=claimed_at).update(notified_at=None)


def is_storm(now: datetime) -> bool:
    """Tell whether sipgate refuses more connections than it refreshes. Two queries."""
    since, rows = now - STORM_WITHIN, SipgateToken.objects
    refused = rows.filter(
        state=State.NEEDS_SIGN_IN, reason__in=UNCERTAIN, last_refused_at__gte=since
    ).count()
    return (
        refused >= STORM_FROM
        and rows.filter(last_refreshed_at__gte=since)[:refused].count() < refused
    )


def tell_people(is_stopped: Callable[[], bool]) -> int:
    """Mail whoever should be told, unless there is a storm; return how many mails went out."""
    waiting = due()
    if waiting and is_storm(timezone.now()):
        _tell_of_storm()
        return 0
    return sum(tell_person(pk) for pk in waiting if not is_stopped())


def _tell_of_storm() -> None:
    """Tell the operators, at most once a day, that people are not told."""
    events = TokenEvent.objects.filter(kind=TokenEvent.Kind.NOTIFIED, note=STORM)
    if events.filter(at__gte=timezone.now() - timedelta(days=1)).exists():
        return
    TokenEvent.objects.add(TokenEvent.Kind.NOTIFIED, actor="keepalive", note=STORM)
    logger.error(
        "sipgate refuses more connections than it refreshes: their people are not told yet"
    )
    if settings.ADMINS:
        _mail_operators(STORM, {"site": conf.site_url()})


def tell_person(connection_id: int) -> bool:
    """Mail the person of a connection, once per incident; True if a mail went out."""
    connection = (
        SocialAccount.objects.using(tokens.using())
        .select_related("user", "sipgate_account")
        .filter(pk=connection_id)
        .first()
    )
    now = timezone.now()
    if connection is None or not claim_notice(connection_id, now=now):
        return False
    address, token = _address(connection), tokens.load(connection_id)
    if not address or token is None:
        return False  # the banner on the site tells them
    what = "needs_sign_in" if token.state == State.NEEDS_SIGN_IN else "ends_soon"
    try:
        with translation.override(language_of(connection)):
            context = {"token": token, "name": connection.get_provider_account().to_str()}
            context |= {
                "url": sign_in_address(connection),
                "site": conf.site_url(),
                "site_name": conf.site_name(),
            }
            subject = " ".join(
                render_to_string(f"sipgate_provider/email/{what}_subject.txt", context).split()
            )
            message = render_to_string(f"sipgate_provider/email/{what}_message.txt", context)
            html = _html(subject, message, context)
        tokens.release_connections()
        send_mail(subject, message, None, [address], html_message=html)
    except (OSError, SMTPException) as error:
        logger.warning("A person could not be told by mail: %s", type(error).__name__)
        return_notice(connection_id, claimed_at=now)
        return False
    TokenEvent.objects.add(TokenEvent.Kind.NOTIFIED, connection=connection, actor="gate")
    return True


def _html(subject: str, message: str, context: dict[str, Any]) -> str:
    """Return the same words as HTML: a paragraph for each, and the address as a button."""
    parts = [" ".join(part.split()) for part in message.split("\n\n")]
    return render_to_string(
        "sipgate_provider/email/message.html",
        {**context, "subject": subject, "parts": parts, "language": translation.get_language()},
    )


def tell_operators(code: str, setting: str) -> None:
    """Mail ``ADMINS`` that sipgate refuses this site's client."""
    context = {"code": code, "setting": setting, "site": conf.site_url()}
    _mail_operators("misconfigured", context)


def _mail_operators(what: str, context: dict[str, str]) -> None:
    try:
        with translation.override(settings.LANGUAGE_CODE):
            subject = render_to_string(f"sipgate_provider/email/{what}_subject.txt", context)
            message = render_to_string(f"sipgate_provider/email/{what}_message.txt", context)
        mail_admins(" ".join(subject.split()), message)
    except (OSError, SMTPException) as error:
        logger.error("The operators could not be told by mail: %s", type(error).__name__)


def language_of(connection: SocialAccount) -> str:
    """Return the language that the person has chosen here, else theirs at sipgate (``de_DE``), else the site's."""
    data = connection.extra_data
    spoken = str(data.get("language") or data.get("locale") or "").replace("_", "-").lower()
    known = {code.lower(): code for code, _name in settings.LANGUAGES}
    return known.get(spoken) or known.get(spoken.partition("-")[0]) or settings.LANGUAGE_CODE


def _address(connection: SocialAccount) -> str:
    """Return where the person can be written to: an unverified address may be anybody's."""
    verified = EmailAddress.objects.filter(user=connection.user_id, verified=True).order_by(
        "-primary"
    )
    return str(verified.values_list("email", flat=True).first() or "")


def sign_in_address(connection: SocialAccount) -> str:
    """Return an address for the connection's person, with which nothing but this connection can be repaired.

    Empty if the site's address is not known. It is no credential: whoever follows it has to sign in at sipgate.
    """
    path = links.sign_in_url("", process="login", repairs=connection.pk)
    return f"{conf.site_url()}{path}" if conf.site_url() and path else ""

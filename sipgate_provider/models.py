"""The tables: one row of tokens per connection, its history, the last known account, and pending
endings.

Only ``tokens`` writes rows of ``SipgateToken``.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

OFFLINE_ACCESS = "offline_access"
"""Scope that lets a connection outlive the browser session in which it was made (OpenID Connect
Core §11)."""
TELL_BEFORE = timedelta(days=7)
"""How long before a fixed end the app notifies the user."""
ADVISORY_SHARE = 0.4
"""The last part of an access token's life, in which one caller starts a refresh and all use the
token."""
MANDATORY_SHARE = 0.1
"""The last part, in which callers wait for a new token: 30 s of 300, more than an API call with the
old one takes."""


def database() -> str:
    """Return the alias of the database to which this app writes its tables."""
    return str(router.db_for_write(SipgateToken))


Row = TypeVar("Row", bound=models.Model)


class OfOneDatabase(models.Manager[Row]):
    """Reads from the database that it writes to: a replica may be behind, and a stale row holds a
    spent refresh token."""

    def get_queryset(self) -> models.QuerySet[Row]:
        return super().get_queryset().using(database())


class State(models.TextChoices):
    """The state of a connection. docs/reference.md has the next step for each."""

    ACTIVE = "active", pgettext_lazy("connection", "active")
    FAILING = "failing", _("failing, retrying")
    NEEDS_SIGN_IN = "needs_sign_in", _("needs sign-in")
    MISCONFIGURED = "misconfigured", _("misconfigured client")


class Reason(models.TextChoices):
    """Why a connection is in its state."""

    NONE = "", "–"
    REJECTED = "rejected", _("sipgate rejected it")
    LOST_ROTATION = "lost_rotation", _("sipgate's last answer was lost on its way")
    EXPIRED_IDLE = "expired_idle", _("it was not used for too long")
    FIXED_END = "fixed_end", _("sipgate limits how long a sign-in lasts")
    NO_REFRESH_TOKEN = "no_refresh_token", _("sipgate gave no token to refresh it with")
    REVOKED = "revoked", _("it was revoked")
    SIGN_IN_REQUIRED = "sign_in_required", _("an administrator asked for a new sign-in")
    UNREACHABLE = "unreachable", _("sipgate cannot be reached")
    UNEXPECTED = "unexpected", _("sipgate answered something unexpected")
    RATE_LIMITED = "rate_limited", _("sipgate asks to wait")
    ENDED_BY_USER = "ended_by_user", _("the user ended access")
    CLIENT_REJECTED = (
        "client_rejected",
        _("sipgate does not accept this site's client id or secret"),
    )
    KEY_MISSING = "key_missing", _("the key that sealed its tokens is missing")
    OTHER_CLIENT = "other_client", _("its tokens belong to another client, server or site")


class Version(NamedTuple):
    """Names tokens: those of one connection and one consent. Numbers only grow."""

    connection: int
    consent: uuid.UUID
    number: int


class Freshness(StrEnum):
    """How much life an access token has left."""

    FRESH = "fresh"
    ADVISORY = "advisory"
    """Usable; one caller refreshes it in the background."""
    MANDATORY = "mandatory"
    """Callers wait for a new one."""
    OVER = "over"


class SipgateToken(models.Model):
    """The tokens of one connection, sealed, and readable facts about them.

    Never ``save()`` a row: a stale instance would put a spent refresh token back.
    """

    connection = models.OneToOneField(
        SocialAccount,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="sipgate_token",
        verbose_name=_("connection"),
    )
    sealed = models.TextField(_("sealed tokens"), editable=False)
    key_id = models.CharField(_("key"), max_length=8)
    scope = models.TextField(_("granted scope"), blank=True)
    issued_at = models.DateTimeField(_("issued"))
    expires_at = models.DateTimeField(_("access token ends"))
    refresh_expires_at = models.DateTimeField(
        _("connection ends unless used"), null=True, blank=True
    )
    keepalive_at = models.DateTimeField(
        _("refreshed by keepalive from"),
        help_text=_(
            "If the connection is not used before, it is refreshed then, so that it does not end."
        ),
    )
    number = models.PositiveBigIntegerField(_("version"), default=1)
    consent = models.UUIDField(_("consent"), default=uuid.uuid4)
    consented_at = models.DateTimeField(_("consented"))
    lease_holder = models.CharField(_("lease held by"), max_length=32, blank=True)
    lease_until = models.DateTimeField(_("lease ends"), null=True, blank=True)
    unanswered = models.BooleanField(_("sent, not answered"), default=False)
    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.ACTIVE)
    reason = models.CharField(
        _("reason"), max_length=30, choices=Reason.choices, blank=True, default=Reason.NONE
    )
    state_since = models.DateTimeField(_("state since"))
    notified_at = models.DateTimeField(_("user notified"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    last_refreshed_at = models.DateTimeField(_("last refreshed"), null=True, blank=True)
    refresh_count = models.PositiveBigIntegerField(_("refreshes"), default=0)
    last_rejected_at = models.DateTimeField(_("last rejected"), null=True, blank=True)
    failing_since = models.DateTimeField(_("failing since"), null=True, blank=True)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, blank=True)
    last_error_code = models.CharField(_("last error"), max_length=80, blank=True)
    issuer = models.CharField(_("issuer"), max_length=200, blank=True)
    client_id = models.CharField(_("client"), max_length=191, blank=True)
    site = models.CharField(_("consented to at"), max_length=200, blank=True)
    product_line = models.CharField(_("product line"), max_length=40, blank=True)

    objects = OfOneDatabase["SipgateToken"]()

    class Meta:
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        default_permissions = ("view",)
        permissions = [
            ("operate_sipgatetoken", _("Can refresh connections at sipgate")),
            ("revoke_sipgatetoken", _("Can end access at sipgate and require a new sign-in")),
        ]
        indexes = [
            # Keepalive lists rows in this order. Not a partial index: SQLite would not see that the
            # parameters of a query satisfy its condition.
            models.Index(fields=["keepalive_at", "connection"], name="sipgate_token_due"),
            models.Index(fields=["refresh_expires_at"], name="sipgate_token_link_ends"),
            models.Index(fields=["state", "state_since"], name="sipgate_token_state"),
            models.Index(fields=["-issued_at", "-connection"], name="sipgate_token_newest"),
            models.Index(fields=["expires_at"], name="sipgate_token_expires"),
            models.Index(fields=["key_id"], name="sipgate_token_key"),
        ]

    def __str__(self) -> str:
        return f"sipgate token of connection {self.connection_id}"

    def __repr__(self) -> str:
        return f"<SipgateToken {self.connection_id} version {self.number} {self.state}>"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert only: Django's ``save`` writes every column, without a condition."""
        if not self._state.adding and not kwargs.get("force_insert"):
            raise TypeError(
                "SipgateToken rows are written by sipgate_provider.tokens, each with a condition."
            )
        super().save(*args, **kwargs)

    @property
    def version(self) -> Version:
        return Version(self.connection_id, self.consent, self.number)

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self.scope.split())

    @property
    def has_ended(self) -> bool:
        """Whether only a new sign-in can help, as far as the app knows."""
        return self.state == State.NEEDS_SIGN_IN

    def freshness(self, now: datetime) -> Freshness:
        """Return how fresh the access token is at ``now``. Both limits are shares of its lifetime,
        which is 300 s at sipgate."""
        lifetime, left = self.expires_at - self.issued_at, self.expires_at - now
        if left <= timedelta():
            return Freshness.OVER
        if left <= lifetime * MANDATORY_SHARE:
            return Freshness.MANDATORY
        return Freshness.ADVISORY if left <= lifetime * ADVISORY_SHARE else Freshness.FRESH

    @property
    def has_fixed_end(self) -> bool:
        """Whether the connection ends at ``refresh_expires_at`` even if it is refreshed."""
        return self.reason == Reason.FIXED_END

    @property
    def ends_soon(self) -> bool:
        """Whether that end is close enough to notify the user."""
        end = self.refresh_expires_at
        return self.has_fixed_end and end is not None and end <= timezone.now() + TELL_BEFORE

    @property
    def is_tied_to_browser(self) -> bool:
        """Whether Keycloak ends the connection when the user signs out of sipgate in the browser in
        which it was made."""
        return OFFLINE_ACCESS not in self.scopes

    @property
    def is_likely_signed_out(self) -> bool:
        """Whether sipgate probably rejected it because its user signed out in that browser."""
        is_rejected = self.has_ended and self.reason == Reason.REJECTED
        return is_rejected and self.is_tied_to_browser


class LastKnownAccount(models.Model):
    """sipgate's last answer to ``/account`` for a connection. Pages show it with its date while
    sipgate cannot be reached."""

    connection = models.OneToOneField(
        SocialAccount,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="sipgate_account",
        verbose_name=_("connection"),
    )
    data = models.JSONField(_("data"), default=dict)
    company = models.CharField(_("company"), max_length=200, blank=True, db_index=True)
    fetched_at = models.DateTimeField(_("fetched"))

    objects = OfOneDatabase["LastKnownAccount"]()

    class Meta:
        verbose_name = _("last known account")
        verbose_name_plural = _("last known accounts")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.company or f"account of connection {self.connection_id}"


class Events(OfOneDatabase["TokenEvent"]):
    def add(
        self,
        kind: str,
        *,
        connection: SocialAccount | None = None,
        row: SipgateToken | None = None,
        at: datetime | None = None,
        error_code: object = "",
        note: object = "",
        **values: Any,
    ) -> None:
        """Append an event to the history. ``values`` must include ``actor``; no column can hold a
        secret."""
        if connection is None and row is not None:
            connection = SocialAccount.objects.using(database()).filter(pk=row.pk).first()
        if connection is not None:
            values.setdefault("uid", connection.uid)
            values.setdefault("user_id", connection.user_id)
            values.setdefault("connection_id", connection.pk)
        self.create(
            kind=kind,
            at=at or timezone.now(),
            error_code=str(error_code or "")[:80],
            note=str(note or "")[:300],
            **values,
        )


class TokenEvent(models.Model):
    """An event in the history of a connection. The app only adds events; they outlive it."""

    class Kind(models.TextChoices):
        CONSENT = "consent", _("signed in at sipgate")
        CONNECTED = "connected", _("connected")
        STATE = "state", _("state changed")
        REPAIRED = "repaired", _("works again")
        FAILED = "failed", _("refresh failed")
        RECOVERED = "recovered", _("recovered from the journal")
        DISCONNECTED = "disconnected", _("disconnected")
        ENDING = "ending", _("access ended at sipgate")
        ENDING_FAILED = "ending_failed", _("access could not be ended at sipgate")
        ENDING_DROPPED = "ending_dropped", _("access not ended at sipgate: it is connected again")
        RESEALED = "resealed", _("sealed with another key")
        ADMIN = "admin", _("administrator acted")
        NOTIFIED = "notified", _("user notified")

    at = models.DateTimeField(_("at"), db_index=True)
    kind = models.CharField(_("event"), max_length=20, choices=Kind.choices)
    connection = models.ForeignKey(
        SocialAccount,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        related_name="+",
        verbose_name=_("connection"),
    )
    uid = models.CharField(_("sipgate uid"), max_length=191, blank=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        related_name="+",
        verbose_name=_("user"),
    )
    actor = models.CharField(
        _("actor"),
        max_length=80,
        help_text=_("user, caller, keepalive, a command, or an administrator"),
    )
    state = models.CharField(_("state"), max_length=20, choices=State.choices, blank=True)
    reason = models.CharField(_("reason"), max_length=30, choices=Reason.choices, blank=True)
    error_code = models.CharField(_("error"), max_length=80, blank=True)
    number = models.PositiveBigIntegerField(_("version"), null=True, blank=True)
    duration_ms = models.PositiveIntegerField(_("duration (ms)"), null=True, blank=True)
    note = models.CharField(_("note"), max_length=300, blank=True)
    reference = models.CharField(_("reference"), max_length=12, blank=True)

    objects = Events()

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("history")
        default_permissions = ("view",)
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=["connection", "-at"], name="sipgate_event_conn"),
            models.Index(fields=["uid", "-at"], name="sipgate_event_uid"),
            models.Index(fields=["kind", "-at"], name="sipgate_event_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uid or self.connection_id or ''}".strip()


class Ending(models.Model):
    """A grant to end at sipgate. The table is an outbox, so that a disconnect does not depend on
    sipgate."""

    ERASED = "account deleted"
    """Value of ``why`` after its user was deleted: the history then names nobody."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    uid = models.CharField(_("sipgate uid"), max_length=191, blank=True)
    issuer = models.CharField(_("issuer"), max_length=200, blank=True)
    client_id = models.CharField(_("client"), max_length=191, blank=True)
    site = models.CharField(_("consented to at"), max_length=200, blank=True)
    user_key = models.CharField(_("user"), max_length=64, blank=True)
    sealed = models.TextField(_("sealed tokens"), editable=False)
    created_at = models.DateTimeField(_("created"))
    give_up_at = models.DateTimeField(_("tried until"))
    next_attempt_at = models.DateTimeField(_("next attempt"), db_index=True)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    last_error_code = models.CharField(_("last error"), max_length=80, blank=True)
    why = models.CharField(_("why"), max_length=40, blank=True)

    objects = OfOneDatabase["Ending"]()

    class Meta:
        verbose_name = _("pending ending")
        verbose_name_plural = _("pending endings")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"ending for {self.uid}"


class UsedState(models.Model):
    """The ``state`` of a callback that brought a code, which is used once even if the callback is
    repeated.

    The callback inserts the row before it sends the code, so only one of several equal callbacks
    sends it. The row holds no secret: hashes of the state and of the session's cookie, and what the
    sign-in asked for.
    """

    state_hash = models.CharField(max_length=64, primary_key=True)
    session_hash = models.CharField(max_length=64, blank=True)
    used_at = models.DateTimeField(db_index=True)
    asked = models.JSONField(default=dict)

    objects = OfOneDatabase["UsedState"]()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"state used {self.used_at:%Y-%m-%d %H:%M:%S}"

"""Exports all that this app knows about a person as plain values, and removes the person from the history.

Must not know: pages, users' other data, why somebody leaves.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.signals import post_delete, pre_delete

from sipgate_provider.connections import connections_of, name_of, token_of
from sipgate_provider.models import LastKnownAccount, Revocation, SipgateToken, TokenEvent

SECRETS = frozenset(
    {"sealed", "key_id", "access_fingerprint", "refresh_fingerprint", "session_fingerprint"}
)
"""Columns of a token row that are about secrets and are not exported."""
MOST_EVENTS = 10_000


def export(user: Any) -> dict[str, Any]:
    """Return everything this app knows of ``user``: connections with sipgate's answers, and their history.

    The values are those of the database (dates are ``datetime``), for ``DjangoJSONEncoder``. It contains no token.
    """
    connections = connections_of(user)
    events = _events(user.pk, [row.uid for row in connections]).order_by("at", "pk")[:MOST_EVENTS]
    return {
        "connections": [_connection(row) for row in connections],
        "history": [_event(event) for event in events],
    }


def anonymise_history(*, user_id: Any, uids: Collection[str]) -> int:
    """Remove the person from the history, which outlives connections. Return how many events were changed.

    Kind, moment, state, reason and error stay. Grants that still have
    to be ended at sipgate are ended, and noted without their person.
    """
    Revocation.objects.filter(uid__in=[*uids]).update(why=Revocation.ERASED, user_key="")
    return _events(user_id, uids).update(user=None, connection=None, uid="", note="")


def connect_signals() -> None:
    """Called once, when the app is ready."""
    model = settings.AUTH_USER_MODEL
    pre_delete.connect(
        _before_user_is_deleted, sender=model, dispatch_uid="sipgate_provider.user_pre_delete"
    )
    post_delete.connect(
        _after_user_is_deleted, sender=model, dispatch_uid="sipgate_provider.user_post_delete"
    )


UIDS = "_sipgate_uids"


def _before_user_is_deleted(instance: Any, **_kwargs: Any) -> None:
    setattr(instance, UIDS, [connection.uid for connection in connections_of(instance)])


def _after_user_is_deleted(instance: Any, **_kwargs: Any) -> None:
    """Called after a user was deleted, by a page, the admin or a command."""
    anonymise_history(user_id=instance.pk, uids=getattr(instance, UIDS, []))


def _events(user_id: Any, uids: Collection[str]) -> QuerySet[TokenEvent]:
    return TokenEvent.objects.filter(Q(user_id=user_id) | Q(uid__in=[*uids]))


def _connection(row: SocialAccount) -> dict[str, Any]:
    known: LastKnownAccount | None = getattr(row, "sipgate_account", None)
    token = token_of(row)
    return {
        "name": name_of(row),
        "uid": row.uid,
        "connected_at": row.date_joined,
        "last_sign_in_at": row.last_login,
        "identity": row.extra_data,
        "account": {"fetched_at": known.fetched_at, **known.data} if known else None,
        "token": _values(token, SECRETS) if token else None,
    }


def _event(event: TokenEvent) -> dict[str, Any]:
    return _values(event, {"id", "user", "connection"})


def _values(row: SipgateToken | TokenEvent, without: Collection[str]) -> dict[str, Any]:
    return {
        field.name: field.value_from_object(row)
        for field in row._meta.concrete_fields
        if field.name not in without
    }

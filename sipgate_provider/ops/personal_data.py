"""Exports what this app knows about a user, and removes a deleted user from the history."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.signals import post_delete, pre_delete
from django.dispatch import receiver

from sipgate_provider import conf
from sipgate_provider.models import Ending, LastKnownAccount, TokenEvent

CONNECTION = (
    *("uid", "date_joined", "last_login", "extra_data"),
    *("sipgate_token__state", "sipgate_token__reason", "sipgate_token__scope"),
    *("sipgate_token__consented_at", "sipgate_token__last_used_at"),
)
EVENT = ("at", "kind", "uid", "actor", "state", "reason", "error_code", "note")
UIDS = "_sipgate_uids"


def export(user: Any) -> dict[str, Any]:
    """Return everything this app knows about ``user``: connections, accounts, history; no tokens.

    The values are those of the database (dates are ``datetime``), for ``DjangoJSONEncoder``.
    """
    rows = SocialAccount.objects.filter(user=user, provider=conf.PROVIDER_ID).order_by("pk")
    accounts = LastKnownAccount.objects.filter(connection__in=rows)
    return {
        "connections": list(rows.values(*CONNECTION)),
        "accounts": list(accounts.values("data", "fetched_at")),
        "history": list(_events(user.pk, _uids_of(user)).order_by("at", "pk").values(*EVENT)),
    }


def anonymise_history(*, user_id: Any, uids: Collection[str]) -> int:
    """Remove a user from the history, which outlives connections; return how many events changed.

    Kind, time, state, reason and error stay. Pending endings still take place, and the history
    records them without the user.
    """
    Ending.objects.filter(uid__in=[*uids]).update(why=Ending.ERASED, user_key="")
    return _events(user_id, uids).update(user=None, connection=None, uid="", note="")


@receiver(pre_delete, sender=settings.AUTH_USER_MODEL)
def _before_user_is_deleted(instance: Any, **_kwargs: Any) -> None:
    setattr(instance, UIDS, _uids_of(instance))


@receiver(post_delete, sender=settings.AUTH_USER_MODEL)
def _after_user_is_deleted(instance: Any, **_kwargs: Any) -> None:
    """Called after a page, the admin or a command has deleted a user."""
    anonymise_history(user_id=instance.pk, uids=getattr(instance, UIDS, []))


def _uids_of(user: Any) -> list[str]:
    rows = SocialAccount.objects.filter(user=user, provider=conf.PROVIDER_ID)
    return list(rows.values_list("uid", flat=True))


def _events(user_id: Any, uids: Collection[str]) -> QuerySet[TokenEvent]:
    return TokenEvent.objects.filter(Q(user_id=user_id) | Q(uid__in=[*uids]))

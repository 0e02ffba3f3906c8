"""How the peers do it: read, ask, save. Their real packages where they are installed (``--peers``), else their shape.

All keep tokens in the clear and take no lock, which is why they are cheap per token, and what the contention case
shows the price of.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

import requests
from allauth.socialaccount.models import SocialAccount
from django.conf import settings

from bench import counterpart
from bench.models import ClearJson, ClearToken

LIFETIME = timedelta(seconds=300)
REAL_AUTHLIB = find_spec("authlib") is not None
REAL_SOCIAL = "social_django" in settings.INSTALLED_APPS
SESSION = requests.Session()
SESSION.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))


class Failed(Exception):
    """The token could not be renewed."""


def _form(refresh_token: str) -> dict[str, str]:
    return {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": settings.CLIENT_ID,
        "client_secret": settings.CLIENT_SECRET,
    }


def names() -> dict[str, str]:
    """Return what each peer is called in the tables: with a version if it is the real package."""
    from importlib.metadata import version

    social = f"social-auth-app-django {version('social-auth-app-django')}" if REAL_SOCIAL else "social-auth's shape"
    authlib = f"Authlib {version('authlib')}" if REAL_AUTHLIB else "Authlib's shape"
    return {"esi": "django-esi's shape", "social": social, "authlib": authlib}


def add_social(user: Any, uid: str, pair: dict[str, Any]) -> None:
    if REAL_SOCIAL:
        from social_django.models import UserSocialAuth

        UserSocialAuth.objects.create(user=user, provider="bench", uid=uid, extra_data=pair)


def valid_token(pk: int) -> str:
    """Hand out a token that is still good, as kept in the clear."""
    token = ClearToken.objects.get(pk=pk)
    if token.created + LIFETIME < datetime.now(UTC):
        raise Failed("expired")
    return token.access_token


def bulk(how: str, number: int) -> tuple[Callable[[Any], object], list[Any]]:
    """Return how one token is refreshed, and which are to be."""
    if how == "esi":
        return esi, list(ClearToken.objects.order_by("pk").values_list("pk", flat=True)[:number])
    if how == "authlib":
        keys = list(ClearToken.objects.order_by("pk").values_list("pk", flat=True)[:number])
        return (authlib if REAL_AUTHLIB else authlib_shape), keys
    if REAL_SOCIAL:
        from social_django.models import UserSocialAuth

        return social, list(UserSocialAuth.objects.order_by("pk").values_list("pk", flat=True)[:number])
    return social_shape, list(ClearJson.objects.order_by("pk").values_list("pk", flat=True)[:number])


def esi(pk: int) -> None:
    """django-esi 10: load, POST with a session that is kept, save the whole row; a refused row is deleted."""
    token = ClearToken.objects.get(pk=pk)
    response = SESSION.post(settings.SIPGATE_TOKEN_URL, data=_form(token.refresh_token), timeout=30)
    if response.status_code == 400 and response.json().get("error") == "invalid_grant":
        token.delete()
        raise Failed("invalid_grant")
    response.raise_for_status()
    answer = response.json()
    token.access_token, token.refresh_token = answer["access_token"], answer["refresh_token"]
    token.created = datetime.now(UTC)
    token.save()


def social_shape(pk: int) -> None:
    """social-auth: load, a new connection for the request, everything in one JSON column."""
    row = ClearJson.objects.get(pk=pk)
    response = requests.post(settings.SIPGATE_TOKEN_URL, data=_form(row.extra_data["refresh_token"]), timeout=30)
    response.raise_for_status()
    row.extra_data.update(response.json())
    row.save()


def social(pk: int) -> None:
    from social_django.models import UserSocialAuth
    from social_django.utils import load_strategy

    UserSocialAuth.objects.get(pk=pk).refresh_token(load_strategy())


def authlib_shape(pk: int) -> None:
    """Authlib: a session per token, whose ``update_token`` callback saves."""
    token = ClearToken.objects.get(pk=pk)
    with requests.Session() as session:
        response = session.post(settings.SIPGATE_TOKEN_URL, data=_form(token.refresh_token), timeout=30)
    response.raise_for_status()
    _save(token, response.json())


def authlib(pk: int) -> None:
    from authlib.integrations.requests_client import OAuth2Session

    token = ClearToken.objects.get(pk=pk)
    old = {"access_token": token.access_token, "refresh_token": token.refresh_token, "expires_at": 1}
    with OAuth2Session(
        settings.CLIENT_ID,
        settings.CLIENT_SECRET,
        token=old,
        token_endpoint=settings.SIPGATE_TOKEN_URL,
        token_endpoint_auth_method="client_secret_post",
        update_token=lambda new, **_: _save(token, new),
    ) as session:
        session.ensure_active_token()


def _save(token: ClearToken, answer: Any) -> None:
    token.access_token, token.refresh_token = answer["access_token"], answer["refresh_token"]
    token.created = datetime.now(UTC)
    token.save()


# --- contention: the same row, many callers ----------------------------------------------------------------------------


def _row(connection: int) -> ClearToken:
    uid = SocialAccount.objects.values_list("uid", flat=True).get(pk=connection)
    return ClearToken.objects.get(uid=uid)


def ask_unguarded(connection: int) -> str:
    """Return a usable token: look, refresh if it is over, save. No lock, no condition."""
    try:
        token = _row(connection)
        if token.created + LIFETIME < datetime.now(UTC):
            esi(token.pk)
            token = _row(connection)
    except ClearToken.DoesNotExist:
        raise Failed("deleted") from None
    return token.access_token


def renew_pair(connection: int) -> None:
    account = SocialAccount.objects.get(pk=connection)
    ClearToken.objects.filter(uid=account.uid).delete()
    pair = counterpart.control(settings.BENCH_COUNTERPART, issue=1)[0]
    ClearToken.objects.create(
        user_id=account.user_id,
        uid=account.uid,
        access_token=pair["access_token"],
        refresh_token=pair["refresh_token"],
        created=datetime.now(UTC) - LIFETIME * 2,
    )


def is_lost(connection: int) -> bool:
    try:
        token = _row(connection)
    except ClearToken.DoesNotExist:
        return True
    return not counterpart.control(settings.BENCH_COUNTERPART, alive=[token.refresh_token])

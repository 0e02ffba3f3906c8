"""Finds out whose access token a REST request has, here or by asking another authorization server.

With ``--introspect`` the REST API accepts the tokens of that server. Each is checked at its introspection endpoint (RFC
7662), and ``username`` must be the id of one of the sandbox's people.
"""

from __future__ import annotations

from dataclasses import dataclass

import requests
from django.conf import settings
from django.http import HttpRequest

from . import tokens
from .people import BY_UID, Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    person: Person
    scopes: frozenset[str]


class CannotTell(Exception):
    """The other authorization server does not answer."""


def access_of(request: HttpRequest) -> Access | None:
    """Return what the bearer token of ``request`` allows, or None if it is not good.

    Raises:
        CannotTell: the other authorization server does not answer.
    """
    value = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not value:
        return None
    return _introspected(value) if settings.SANDBOX_INTROSPECT_URL else _own(value)


def _own(value: str) -> Access | None:
    found = tokens.living_access_token(value)
    if found is None:
        return None
    return Access(person=BY_UID[found.grant.session.person], scopes=frozenset(found.scopes))


def _introspected(value: str) -> Access | None:
    form = {
        "token": value,
        "client_id": settings.SANDBOX_CLIENT_ID,
        "client_secret": settings.SANDBOX_CLIENT_SECRET,
    }
    try:
        response = requests.post(settings.SANDBOX_INTROSPECT_URL, data=form, timeout=10)
        response.raise_for_status()
        answer = response.json()
    except requests.RequestException:
        raise CannotTell from None
    person = BY_UID.get(answer.get("username", ""))
    if not answer["active"] or person is None:
        return None
    return Access(person=person, scopes=frozenset(answer.get("scope", "").split()))

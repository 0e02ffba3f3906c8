"""For tests of a site: a fake sipgate that answers as the test says, and the sandbox.

::

    def test_numbers(client, admin_user, sipgate):
        sipgate.connect(admin_user, scopes=["numbers:read"])
        sipgate.answers("/numbers", [{"number": "+4921199990000"}])
        client.force_login(admin_user)
        assert "+4921199990000" in client.get("/numbers").content.decode()

pytest finds the fixtures ``sipgate`` and ``sipgate_sandbox`` without an import; other test runners
can use ``fake_sipgate``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import transaction
from django.test import override_settings
from django.urls import reverse

from sipgate_provider import background, conf, database, errors, scopes, tokens
from sipgate_provider.remote import oauth, rest
from sipgate_provider.remote.session import SupportsWrite
from sipgate_provider.remote.specification import scopes_for
from sipgate_provider.resources import NEO

LIFETIME = 86_400
KEY = "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk="
NOWHERE = "http://sipgate.invalid"
"""An address that no name server knows (RFC 6761 §6.4)."""


def connect(
    user: Any, *, scopes: Iterable[str] | None = None, uid: str = "", neo: bool = False
) -> SocialAccount:
    """Connect a user with sipgate as if they had signed in there, without asking sipgate.

    Args:
        user: a saved user of the site.
        scopes: the granted scopes; by default those that sign-ins ask for.
        uid: sipgate's uid, such as ``1000000w0``; by default an unused one.
        neo: the account's product line is *neo* instead of *classic*.

    Returns the connection. Its tokens are valid for a day.
    """
    uid = uid or f"{1_000_000 + SocialAccount.objects.count()}w0"
    granted = " ".join(conf.scope() if scopes is None else scopes)
    claims = {"scope": granted, "featureScope": NEO if neo else "CLASSIC_PBX"}
    answer = {
        "access_token": _jwt(claims),
        "refresh_token": str(uuid4()),
        "scope": granted,
        "expires_in": LIFETIME,
    }
    sub = uid.lstrip("0123456789")
    known = {"sub": sub, "masterSipId": uid.removesuffix(sub), "domain": "sipgate.de"}
    with transaction.atomic(using=database.using()):
        connection = SocialAccount.objects.create(
            user=user, provider=conf.PROVIDER_ID, uid=uid, extra_data=known
        )
        tokens.store(connection, oauth.Tokens.parse(answer, issued_at=datetime.now(UTC)))
    return connection


def _jwt(claims: Mapping[str, Any]) -> str:
    """Return an unsigned token with claims, as sipgate's tokens have."""
    parts = ({"alg": "none"}, {"jti": str(uuid4()), **claims})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts)
    return f"{'.'.join(part.rstrip('=') for part in encoded)}.unsigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of the site: ``params`` has a list of strings for each name."""

    method: str
    path: str
    params: Mapping[str, list[Any]]
    json: Any


class FakeSipgate:
    """Answers by path. ``requests`` has every request, failed ones included."""

    connect = staticmethod(connect)

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], Any] = {}
        self._failures: dict[str, errors.SipgateError] = {}

    def answers(self, path: str, data: Any = None, *, method: str = "GET") -> None:
        """Answer ``path`` with ``data`` from now on.

        Args:
            data: the parsed JSON of the answer. A list is sent page by page, ``bytes`` are a
                document, and a function gets the ``Request`` and returns one of these.
        """
        self._answers[method.upper(), path] = data

    def fails(self, error: errors.SipgateError, *, path: str = "") -> None:
        """Fail with ``error`` from now on, at every path or at one."""
        self._failures[path] = error

    def call(
        self,
        method: str,
        base_url: str,
        path: str,
        access_token: str,
        *,
        params: rest.Params = None,
        json: Any = None,
        to: SupportsWrite | None = None,
    ) -> Any:
        """Take the place of ``rest.call``."""
        rest.check_path(path)
        query: dict[str, list[Any]] = {}
        for name, value in rest.query_of(params):
            query.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        request = Request(method=method.upper(), path=path, params=query, json=json)
        self.requests.append(request)
        failure = self._failures.get(path) or self._failures.get("")
        if failure is not None:
            raise failure
        self._check_scopes(request, access_token)
        data = self._data(request)
        if to is None:
            return _page(data, query) if isinstance(data, list) else data
        to.write(data)
        return None

    def _check_scopes(self, request: Request, access_token: str) -> None:
        granted = str(oauth.jwt_claims(access_token).get("scope") or "").split()
        alternatives = scopes_for(request.method, request.path)
        if alternatives and not any(scopes.suffices(granted, needed=one) for one in alternatives):
            raise errors.MissingPermission(
                "sipgate would not allow this.", scopes=alternatives, status=403
            )

    def _data(self, request: Request) -> Any:
        if (request.method, request.path) not in self._answers:
            how = f"sipgate.answers({request.path!r}, …, method={request.method!r})"
            raise AssertionError(f"What does sipgate answer? {how}")
        data = self._answers[request.method, request.path]
        return data(request) if callable(data) else data


def _page(items: list[Any], query: Mapping[str, list[Any]]) -> dict[str, Any]:
    offset = int(query.get("offset", [0])[0])
    end = offset + int(query.get("limit", [len(items)])[0])
    return {"items": items[offset:end], "totalCount": len(items)}


@contextmanager
def fake_sipgate() -> Iterator[FakeSipgate]:
    """Replace sipgate's API with a ``FakeSipgate``; no other address of sipgate can be reached."""
    fake = FakeSipgate()
    nowhere = {"SIPGATE_AUTH_URL": f"{NOWHERE}/auth", "SIPGATE_TOKEN_URL": f"{NOWHERE}/token"}
    with mock.patch.object(rest, "call", fake.call), override_settings(**nowhere, **_keys()):
        yield fake


def _keys() -> dict[str, list[str]]:
    """Return a setting with a key, unless the site has one; with ``DEBUG``, it need not."""
    return {} if conf.token_keys() else {"SIPGATE_TOKEN_KEYS": [KEY]}


class Sandbox:
    """A fresh sandbox. ``control`` switches faults on, ends sessions and counts requests."""

    def __init__(self, running: Any, sign_in: Callable[..., str]) -> None:
        self.url = running.url
        self.control = running.control
        self._sign_in = sign_in

    def sign_in(self, client: Any, *, person: str = "1000000w0", next_url: str = "") -> Any:
        """Sign in as one of the sandbox's people, in Django's test client; return the last
        response."""
        started = client.post(f"{reverse('sipgate_login')}?next={next_url}")
        with requests.Session() as browser:
            return client.get(self._sign_in(browser, started["Location"], person=person))


@contextmanager
def pointed_at(running: Any, sign_in: Callable[..., str]) -> Iterator[Sandbox]:
    """Point the settings to a running sandbox, which redirects back to Django's test client."""
    running.control.reset()
    ours = settings.SOCIALACCOUNT_PROVIDERS.get(conf.PROVIDER_ID, {})
    ours = {name: value for name, value in ours.items() if name != "APP"}
    client = {"client_id": "1000000-1-sandbox:third-party", "secret": "sandbox-secret"}
    changed = {
        "SOCIALACCOUNT_PROVIDERS": {
            **settings.SOCIALACCOUNT_PROVIDERS,
            conf.PROVIDER_ID: {**ours, "APPS": [client]},
        },
        "SIPGATE_REDIRECT_URI": redirect_uri(),
        "SIPGATE_AUTH_URL": f"{running.oidc_url}/auth",
        "SIPGATE_TOKEN_URL": f"{running.oidc_url}/token",
        "SIPGATE_API_URL": running.api_url,
    }
    with override_settings(**changed, **_keys()):
        yield Sandbox(running, sign_in)
        for queue in (background.refreshes, background.pages, background.errands):
            queue.wait_idle(20)  # else the next test's database meets this test's work


def redirect_uri() -> str:
    """Return the address of the site's callback in Django's test client."""
    path = urlsplit(conf.redirect_uri()).path or reverse("sipgate_callback")
    return f"http://testserver{path}"

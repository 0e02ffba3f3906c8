"""Finds the site's client at sipgate, which allauth keeps in the settings or in a ``SocialApp`` row."""

from __future__ import annotations

from urllib.parse import urlsplit

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialApp
from django.core.exceptions import MultipleObjectsReturned

from sipgate_provider import conf, endpoints, errors
from sipgate_provider.models import Revocation, SipgateToken
from sipgate_provider.remote import oauth

from . import sealing


def client() -> oauth.Client:
    """Return the client that refreshes and revokes.

    Raises:
        errors.Misconfigured: none is configured, or more than one.
    """
    try:
        app = get_adapter().get_app(None, provider=conf.PROVIDER_ID)  # type: ignore[arg-type]  # allauth copes without a request
    except SocialApp.DoesNotExist:
        raise errors.Misconfigured(
            f"No sipgate client is configured: set {errors.CLIENT_ID}, and {errors.CLIENT_SECRET}.",
            setting=errors.CLIENT_ID,
        ) from None
    except MultipleObjectsReturned:
        raise errors.Misconfigured(
            "Two sipgate clients are configured: keep either the settings or the SocialApp row, not both.",
            setting=errors.CLIENT_ID,
        ) from None
    return oauth.Client(
        client_id=app.client_id,
        client_secret=app.secret,
        token_url=conf.token_url(),
        logout_url=conf.logout_url() or None,
        revoke_url=conf.revoke_url() or None,
    )


def fingerprint(client: oauth.Client) -> str:
    """Return a text that differs for other credentials, and does not contain them."""
    return sealing.fingerprint(f"{client.client_id}\n{client.client_secret}\n{client.token_url}")


WHOSE = ("issuer", "client_id", "site")
"""The columns that say where a pair came from. It is sent nowhere else."""


def recorded(client_id: str) -> dict[str, str]:
    """Return where a pair comes from, as far as it is known, for a row's columns: authorization server, client, and
    this site's address."""
    site = urlsplit(conf.redirect_uri())
    return {
        "issuer": (conf.issuer() or conf.token_url())[:200],
        "client_id": client_id[:191],
        "site": f"{site.scheme}://{site.netloc}"[:200] if site.netloc else "",
    }


def why_not_ours(row: SipgateToken | Revocation, client_in_use: oauth.Client) -> tuple[str, str]:
    """Tell why a row's refresh token must not be sent from here: a sentence and its setting; empty if it may.

    sipgate would answer ``invalid_grant`` to another client's token, and every person would have to sign in again. A
    server that is not sipgate would get hold of the token.
    """
    ours = recorded(client_in_use.client_id)
    if row.issuer not in {"", ours["issuer"]}:
        return "This connection was made at another authorization server.", "SIPGATE_AUTH_URL"
    if row.client_id not in {"", client_in_use.client_id}:
        return "This connection was made with another client of sipgate.", errors.CLIENT_ID
    if _is_local(ours["site"]) and row.site and not _is_local(row.site):
        return (
            "This connection was made on a public site; from a developer's machine it is not refreshed.",
            "SIPGATE_REDIRECT_URI",
        )
    return "", ""


def _is_local(url: str) -> bool:
    return endpoints.is_loopback(urlsplit(url).hostname)

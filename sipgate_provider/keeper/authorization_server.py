"""The site's client at sipgate, from wherever allauth keeps it (settings or a ``SocialApp`` row)."""

from __future__ import annotations

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialApp
from django.core.exceptions import MultipleObjectsReturned

from sipgate_provider import conf, errors
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
    """Return what tells these credentials from corrected ones, without naming them."""
    return sealing.fingerprint(f"{client.client_id}\n{client.client_secret}\n{client.token_url}")

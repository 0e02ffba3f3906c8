"""Finds the client of a connection, tells whether its tokens may be sent from here, and pauses a
rejected client.

allauth keeps clients in the settings and in ``SocialApp`` rows. A row recorded the client that its
tokens were issued to: several clients, one for each Django site, may share a database.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import allauth
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialApp
from django.conf import settings

from sipgate_provider import addresses, conf, errors
from sipgate_provider.models import Ending, SipgateToken
from sipgate_provider.remote import oauth

PAUSE_SECONDS = 60.0
OF = ("issuer", "client_id", "site")
"""The columns that say where tokens came from. The tokens are sent nowhere else."""


def client(row: SipgateToken | Ending | None = None) -> oauth.Client:
    """Return the client of a row: the one it recorded, else this site's. Without a row: this
    site's.

    Raises:
        errors.Misconfigured: there is no client, or more than one candidate.
    """
    no_request: Any = None  # allauth copes with that: it then returns the apps of all sites
    apps = get_adapter().list_apps(no_request, provider=conf.PROVIDER_ID)
    recorded = [app for app in apps if row is not None and app.client_id == row.client_id]
    app = _only(recorded or apps)
    return oauth.Client(
        client_id=app.client_id,
        client_secret=app.secret,
        token_url=conf.token_url(),
        logout_url=conf.logout_url() or None,
        revoke_url=conf.revoke_url() or None,
    )


def _only(apps: list[SocialApp]) -> SocialApp:
    visible = [app for app in apps if not app.settings.get("hidden")]
    if len(visible) > 1 and allauth.app_settings.SITES_ENABLED:
        here = getattr(settings, "SITE_ID", None)
        of_site = SocialApp.objects.filter(sites__id=here).values_list("pk", flat=True)
        # Clients from the settings have no primary key, and belong to every site.
        visible = [app for app in visible if app.pk is None or app.pk in {*of_site}]
    if len(visible) == 1:
        return visible[0]
    if not apps:
        raise errors.Misconfigured(
            f"No sipgate client is configured: set {errors.CLIENT_ID}, and {errors.CLIENT_SECRET}.",
            setting=errors.CLIENT_ID,
        )
    found = ", ".join(f"{app.client_id} ({_where(app)})" for app in apps)
    raise errors.Misconfigured(
        f"More than one sipgate client could be meant: {found}. Keep one for each site (SITE_ID).",
        setting=errors.CLIENT_ID,
    )


def _where(app: SocialApp) -> str:
    return f"SocialApp {app.pk}" if app.pk else "SOCIALACCOUNT_PROVIDERS"


def recorded(client_id: str) -> dict[str, str]:
    """Return where tokens come from, as far as the app knows, for a row's columns."""
    site = urlsplit(conf.redirect_uri())
    return {
        "issuer": (conf.issuer() or conf.token_url())[:200],
        "client_id": client_id[:191],
        "site": f"{site.scheme}://{site.netloc}"[:200] if site.netloc else "",
    }


def why_not_ours(row: SipgateToken | Ending, client: oauth.Client) -> errors.Misconfigured | None:
    """Return why a row's refresh token must not be sent from here, or None if it may.

    sipgate would answer ``invalid_grant`` to another client's token, and every user would have to
    sign in again. A server that is not sipgate would learn the token.
    """
    ours = recorded(client.client_id)
    if row.issuer not in {"", ours["issuer"]}:
        text, setting = "was made at another authorization server", "SIPGATE_AUTH_URL"
    elif row.client_id not in {"", client.client_id}:
        text, setting = f"was made with another client ({row.client_id})", errors.CLIENT_ID
    elif _is_local(ours["site"]) and row.site and not _is_local(row.site):
        text = "was made on a public site, and is not refreshed from a developer's machine"
        setting = "SIPGATE_REDIRECT_URI"
    else:
        return None
    return errors.Misconfigured(f"This connection {text}.", setting=setting, code="other_client")


def _is_local(url: str) -> bool:
    return addresses.is_loopback(urlsplit(url).hostname)


# --- pauses ---------------------------------------------------------------------------------------

rejected_clients: dict[oauth.Client, tuple[float, errors.Misconfigured]] = {}
"""Clients that sipgate has rejected: until when this process sends nothing of theirs, and why.
Corrected credentials are another client, and are not held up."""


def begin_pause(client: oauth.Client, error: errors.Misconfigured) -> None:
    """sipgate rejects these credentials: let this process refresh nothing with them for a minute."""
    rejected_clients[client] = time.monotonic() + PAUSE_SECONDS, error


def check_not_paused(client: oauth.Client) -> None:
    """Raise ``errors.Misconfigured`` while sipgate is known to reject these credentials."""
    until, error = rejected_clients.get(client, (0.0, None))
    if error is not None and time.monotonic() < until:
        raise errors.Misconfigured(
            f"sipgate rejects this site's client ({error.code}). No refresh is tried until that is "
            f"corrected: see {error.setting}.",
            setting=error.setting,
            code=error.code,
            endpoint="token",
        )

"""Template tags that describe a user's connection, and show the button that starts a sign-in.

::

    {% load sipgate %}
    {% sipgate_connection scopes="sessions:sms:write" as sipgate %}
    {% if not sipgate.connected %}     {% sipgate_button "Connect sipgate" %}
    {% elif sipgate.needs_sign_in %}
        {% sipgate_button "Sign in again" connection=sipgate.connection %}
    {% elif sipgate.missing %}         {% sipgate_button "Allow SMS" scopes="sessions:sms:write" %}
    {% else %}                         {{ sipgate.name }}
    {% endif %}

The tags need the ``request`` context processor, as allauth does. Without a request, the user counts
as anonymous.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django import template
from django.http import HttpRequest

from sipgate_provider import conf, links
from sipgate_provider import scopes as scope_rules
from sipgate_provider.connections import connections_of, name_of, token_of
from sipgate_provider.models import SipgateToken

register = template.Library()

ROWS = "_sipgate_connections"
"""Attribute of the request that holds the connections."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A user's connection, the oldest of several. True in an ``if`` only if it works now."""

    connection: SocialAccount | None = None
    token: SipgateToken | None = None
    needed: tuple[str, ...] = ()

    @property
    def connected(self) -> bool:
        return self.connection is not None

    @property
    def needs_sign_in(self) -> bool:
        """Connected, but only a new sign-in can help."""
        return self.connected and (self.token is None or self.token.has_ended)

    @property
    def scopes(self) -> tuple[str, ...]:
        return self.token.scopes if self.token else ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the tag's ``scopes`` that were not granted."""
        return scope_rules.missing(self.scopes, needed=self.needed)

    @property
    def name(self) -> str:
        return name_of(self.connection) if self.connection else ""

    def __bool__(self) -> bool:
        return self.connected and not self.needs_sign_in and not self.missing


@register.simple_tag(takes_context=True)
def sipgate_connection(
    context: template.Context, *, scopes: str | Iterable[str] = ()
) -> Connection:
    """Return the user's connection: true in an ``if`` when it works now.

    Args:
        scopes: which scopes the page needs, as words or a list.
    """
    rows, needed = _rows(context.get("request")), scope_rules.words(scopes)
    if not rows:
        return Connection(needed=needed)
    return Connection(connection=rows[0], token=token_of(rows[0]), needed=needed)


@register.simple_tag(takes_context=True)
def sipgate_sign_in_url(
    context: template.Context,
    *,
    next: str = "",  # noqa: A002  # allauth's word
    scopes: str | Iterable[str] = (),
    process: str = "",
    connection: SocialAccount | None = None,
    another: bool = False,
) -> str:
    """Return the address of the sign-in: POST starts it, GET asks first.

    Args:
        next: where to come back to; by default this page.
        scopes: what to ask for beyond the configured scopes and those granted already.
        process: allauth's; by default ``connect`` for a signed-in user and ``login`` for others.
        connection: which one to repair or widen; if somebody else signs in at sipgate, nothing
            changes. With ``scopes``, by default the user's oldest.
        another: first show the page that says how to use another sipgate account.
    """
    request: HttpRequest | None = context.get("request")
    if request is None:
        return links.sign_in_url(next, process=process)
    needed, wish = scope_rules.words(scopes), ""
    if needed:
        rows = _rows(request)
        connection = connection or (rows[0] if rows else None)
        token = token_of(connection) if connection else None
        wish = links.signed_scopes(
            request, scope_rules.widened(token.scopes if token else (), needed=needed)
        )
    return links.sign_in_url(
        next or (request.get_full_path() if request.method in {"GET", "HEAD"} else ""),
        process=process or ("connect" if _is_signed_in(request) else "login"),
        wish=wish,
        repairs=connection.pk if connection else None,
        another="1" if another else "",
    )


@register.inclusion_tag("sipgate_provider/snippets/button.html", takes_context=True)
def sipgate_button(
    context: template.Context, label: str, *, tags: str = "", **options: Any
) -> dict[str, Any]:
    """Show a button that starts a sign-in with one click (a form that posts).

    Args:
        tags: for allauth's ``button`` element.
        options: as for ``sipgate_sign_in_url``.
    """
    url = sipgate_sign_in_url(context, **options)
    return {"url": url, "label": label, "tags": tags, "csrf_token": context.get("csrf_token", "")}


@register.simple_tag(takes_context=True)
def sipgate_connection_to_repair(context: template.Context) -> SocialAccount | None:
    """Return the connection that a sign-in will repair, on allauth's page before it."""
    request: HttpRequest | None = context.get("request")
    return links.to_repair(request) if request is not None else None


@register.simple_tag(takes_context=True)
def sipgate_extra_scopes(context: template.Context) -> list[str]:
    """Return which scopes a sign-in asks for beyond the configured ones."""
    request, provider = context.get("request"), context.get("provider")
    if request is None or provider is None or provider.id != conf.PROVIDER_ID:
        return []
    return sorted(set(links.wanted_scopes(request) or ()) - set(provider.get_scope()))


def _rows(request: HttpRequest | None) -> list[SocialAccount]:
    """Return the user's connections, read once per request."""
    if request is None or not _is_signed_in(request):
        return []
    if not hasattr(request, ROWS):
        setattr(request, ROWS, connections_of(request.user))
    rows: list[SocialAccount] = getattr(request, ROWS)
    return rows


def _is_signed_in(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    return user is not None and user.is_authenticated

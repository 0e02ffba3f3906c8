"""The provider's URL patterns, included by ``allauth.urls``.

The path of the callback is that of ``SIPGATE_REDIRECT_URI``, so a site adds
``callback_urlpatterns()`` to its root URL configuration. Without the setting it is allauth's usual
``sipgate/login/callback/``.
"""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, get_script_prefix, path
from django.urls.resolvers import RoutePattern

from sipgate_provider import conf
from sipgate_provider.sign_in.views import oauth2_callback, oauth2_login

NAME = "sipgate_callback"

urlpatterns: list[URLPattern] = [path("sipgate/login/", oauth2_login, name="sipgate_login")]

if not conf.redirect_uri():
    urlpatterns.append(path("sipgate/login/callback/", oauth2_callback, name=NAME))


class _WholePath(RoutePattern):
    """A route that includes the site's own path (``SCRIPT_NAME``), as the redirect URI does.

    That path is unknown before a request.
    """

    def match(self, path: str) -> Any:
        return super().match(get_script_prefix().removeprefix("/") + path)


def callback_urlpatterns() -> list[URLPattern]:
    """Return the route of ``SIPGATE_REDIRECT_URI``: exactly its path, without an added slash.
    Empty without the setting.
    """
    if not conf.redirect_uri():
        return []
    route = _WholePath(conf.redirect_path().removeprefix("/"), name=NAME, is_endpoint=True)
    return [URLPattern(route, oauth2_callback, name=NAME)]

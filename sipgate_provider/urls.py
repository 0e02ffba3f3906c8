"""The provider's URL patterns, included by ``allauth.urls``.

The path of the callback is that of ``SIPGATE_REDIRECT_URI``, so a site adds ``callback_urlpatterns()`` to its root URL
configuration. Without the setting it is allauth's usual ``sipgate/login/callback/``.
"""

from __future__ import annotations

from django.urls import URLPattern, path

from sipgate_provider import conf
from sipgate_provider.sign_in.views import oauth2_callback, oauth2_login

urlpatterns: list[URLPattern] = [path("sipgate/login/", oauth2_login, name="sipgate_login")]

if not conf.redirect_uri():
    urlpatterns.append(path("sipgate/login/callback/", oauth2_callback, name="sipgate_callback"))


def callback_urlpatterns() -> list[URLPattern]:
    """Return the route of ``SIPGATE_REDIRECT_URI``: exactly its path, no slash added. Empty without the setting."""
    route = conf.redirect_path().removeprefix("/")
    return [path(route, oauth2_callback, name="sipgate_callback")] if conf.redirect_uri() else []

"""sipgate's addresses, and the sandbox's own."""

from __future__ import annotations

from allauth.idp.oidc import views as allauth_views
from django.urls import include, path

from . import levers, pages, rest, server

OIDC = "auth/realms/third-party/protocol/openid-connect"

oidc = [
    path("auth", server.AuthorizationView.as_view(), name="authorization"),
    path("token", server.token, name="token"),
    path("logout", server.logout, name="logout"),
    path("revoke", server.revoke, name="revoke"),
    path("userinfo", rest.oidc_userinfo, name="userinfo"),
    path("certs", allauth_views.jwks, name="jwks"),
    path("device", rest.nothing, name="device_code"),
]
urlpatterns = [
    path("", pages.start),
    path("login", pages.sign_in, name="account_login"),
    path("login-again", pages.sign_in, name="account_reauthenticate"),
    path("static/<path:name>", pages.static),
    path(f"{OIDC}/", include(([path("", include((oidc, "oidc")))], "idp"))),
    path("auth/realms/third-party/.well-known/openid-configuration", allauth_views.configuration),
    path("v2/account", rest.account),
    path("v2/authorization/userinfo", rest.userinfo),
    path("v2/users", rest.users),
    path("v2/users/<str:user_id>", rest.user),
    path("v2/balance", rest.balance),
    path("v2/numbers", rest.numbers),
    path("v2/history", rest.history),
    path("v2/sessions/sms", rest.sms),
    path("v2/documents/<str:name>", rest.document),
    path("v2/<str:user_id>/devices", rest.devices),
    path("_sandbox/state", levers.state),
    path("_sandbox/faults", levers.switch),
    path("_sandbox/reset", levers.reset),
    path("_sandbox/expire-access", levers.expire_access),
    path("_sandbox/expire-refresh", levers.expire_refresh),
    path("_sandbox/kill-session", levers.kill_session),
    path("_sandbox/revoke-all", levers.kill_session),
    path("_sandbox/lifetimes", levers.lifetimes),
    path("<path:path>", rest.nothing),
]

"""sipgate's addresses, and the sandbox's own."""

from __future__ import annotations

from allauth.idp.oidc import views as allauth_views
from django.urls import include, path

from . import control_views, pages, rest_api, server

OIDC = "auth/realms/third-party/protocol/openid-connect"

oidc = [
    path("auth", server.AuthorizationView.as_view(), name="authorization"),
    path("token", server.token, name="token"),
    path("logout", server.logout, name="logout"),
    path("revoke", server.revoke, name="revoke"),
    path("userinfo", rest_api.oidc_userinfo, name="userinfo"),
    path("certs", allauth_views.jwks, name="jwks"),
    path("device", rest_api.nothing, name="device_code"),
]
urlpatterns = [
    path("", pages.start),
    path("login", pages.sign_in, name="account_login"),
    path("login-again", pages.sign_in, name="account_reauthenticate"),
    path("static/<path:name>", pages.static),
    path(f"{OIDC}/", include(([path("", include((oidc, "oidc")))], "idp"))),
    path("auth/realms/third-party/.well-known/openid-configuration", allauth_views.configuration),
    path("v2/account", rest_api.account),
    path("v2/authorization/userinfo", rest_api.userinfo),
    path("v2/users", rest_api.users),
    path("v2/users/<str:user_id>", rest_api.user),
    path("v2/balance", rest_api.balance),
    path("v2/numbers", rest_api.numbers),
    path("v2/history", rest_api.history),
    path("v2/sessions/sms", rest_api.sms),
    path("v2/documents/<str:name>", rest_api.document),
    path("v2/<str:user_id>/devices", rest_api.devices),
    path("_sandbox/state", control_views.state),
    path("_sandbox/faults", control_views.switch),
    path("_sandbox/reset", control_views.reset),
    path("_sandbox/expire-access", control_views.expire_access),
    path("_sandbox/expire-refresh", control_views.expire_refresh),
    path("_sandbox/kill-session", control_views.kill_session),
    path("_sandbox/revoke-all", control_views.kill_session),
    path("_sandbox/lifetimes", control_views.lifetimes),
    path("<path:path>", rest_api.nothing),
]

"""sipgate's addresses, and the sandbox's own."""

from __future__ import annotations

from django.urls import path

from . import authorization, control_views, discovery, pages, rest_api, token_endpoint

REALM = "auth/realms/third-party"
OIDC = f"{REALM}/protocol/openid-connect"

urlpatterns = [
    path("", pages.start),
    path("static/<path:name>", pages.static),
    path(f"{OIDC}/auth", authorization.authorize),
    path(f"{OIDC}/token", token_endpoint.token),
    path(f"{OIDC}/token/introspect", token_endpoint.introspect),
    path(f"{OIDC}/revoke", token_endpoint.revoke),
    path(f"{OIDC}/logout", authorization.logout),
    path(f"{OIDC}/logout/confirm", authorization.confirm_logout, name="confirm_logout"),
    path(f"{OIDC}/userinfo", rest_api.oidc_userinfo),
    path(f"{OIDC}/certs", discovery.keys),
    path(f"{REALM}/.well-known/openid-configuration", discovery.configuration),
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
    path("_sandbox/withdraw-consent", control_views.withdraw_consent),
    path("_sandbox/person", control_views.person),
    path("_sandbox/client", control_views.client),
    path("_sandbox/behaviour", control_views.change_behaviour),
    path("<path:path>", rest_api.nothing),
]

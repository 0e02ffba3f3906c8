"""sipgate's addresses, and the sandbox's own."""

from __future__ import annotations

from django.conf import settings
from django.urls import include, path

from . import authorization, control_api, operations, pages, token_endpoint

OIDC = f"{settings.SANDBOX_REALM}/protocol/openid-connect"

urlpatterns = [
    path("", pages.start),
    path("_sandbox/<name>", control_api.order),
    path(f"{OIDC}/auth", authorization.authorize),
    path(f"{OIDC}/token", token_endpoint.token),
    path(f"{OIDC}/token/introspect", token_endpoint.introspect),
    path(f"{OIDC}/revoke", token_endpoint.revoke),
    path(f"{OIDC}/logout", authorization.logout),
    path(f"{OIDC}/logout/confirm", authorization.confirm_logout, name="confirm_logout"),
    path(f"{OIDC}/certs", authorization.keys),
    path(f"{settings.SANDBOX_REALM}/.well-known/openid-configuration", authorization.configuration),
    path("v2/", include("sipgate_sandbox.rest_api")),
]

handler400 = operations.bad_request
handler403 = operations.permission_denied

"""The discovery document and the public key."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from . import behaviour, tokens
from .scopes import SCOPES


def configuration(request: HttpRequest) -> HttpResponse:
    """Return the server's metadata (OpenID Connect Discovery, RFC 8414), if ``discovery`` is on."""
    if not behaviour.current.discovery:
        return HttpResponse(status=404)
    issuer = settings.SANDBOX_ISSUER
    oidc = f"{issuer}/protocol/openid-connect"
    document = {
        "issuer": issuer,
        "authorization_endpoint": f"{oidc}/auth",
        "token_endpoint": f"{oidc}/token",
        "introspection_endpoint": f"{oidc}/token/introspect",
        "userinfo_endpoint": f"{oidc}/userinfo",
        "end_session_endpoint": f"{oidc}/logout",
        "jwks_uri": f"{oidc}/certs",
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "response_types_supported": ["code"],
        "scopes_supported": list(SCOPES),
        "subject_types_supported": ["public"],
        "prompt_values_supported": ["none", "login", "consent"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
    if behaviour.current.revocation:
        document["revocation_endpoint"] = f"{oidc}/revoke"
    return JsonResponse(document)


def keys(request: HttpRequest) -> HttpResponse:
    return JsonResponse(tokens.key_set())

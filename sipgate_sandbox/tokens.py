"""Issues codes, and tokens in the form that Keycloak gives them."""

from __future__ import annotations

import json
import secrets
import uuid
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.utils import timezone
from jwt.algorithms import RSAAlgorithm

from . import realm
from .models import Credential, Grant, digest
from .people import Person

CODE_LIFETIME = 60
KEY_ID = secrets.token_hex(16)
_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # new at each start


def key_set() -> dict[str, Any]:
    """Return the public key, as a JSON Web Key Set."""
    public = json.loads(RSAAlgorithm.to_jwk(_key.public_key()))
    return {"keys": [public | {"kid": KEY_ID, "use": "sig", "alg": "RS256"}]}


def issue_code(grant: Grant) -> str:
    code = secrets.token_urlsafe()
    _keep(code, Credential.Kind.CODE, grant, [], CODE_LIFETIME)
    return code


def issue_tokens(grant: Grant, scopes: list[str]) -> dict[str, Any]:
    """Issue tokens for ``scopes``; return the answer of the token endpoint."""
    session, person = grant.session, grant.session.person
    access_seconds, refresh_seconds = _lifetimes(grant)
    issued = int(timezone.now().timestamp())
    shared = {
        "iss": settings.SANDBOX_ISSUER,
        "aud": grant.client_id,
        "sub": person.keycloak_sub,
        "iat": issued,
        "session_state": session.pk,
        "jti": str(uuid.uuid4()),
    }
    access = {
        "typ": "Bearer",
        "exp": issued + access_seconds,
        "scope": " ".join(scopes),
        "featureScope": person.feature_scope,
        "preferred_username": person.uid,
    }
    refresh: dict[str, Any] = {
        "typ": "Offline" if grant.offline else "Refresh",
        "scope": " ".join(grant.scopes),
    }
    answer: dict[str, Any] = {
        "access_token": _signed(shared | access),
        "expires_in": access_seconds,
        "refresh_expires_in": refresh_seconds,
        "refresh_token": _signed(shared | refresh),
        "token_type": "Bearer",
        "not-before-policy": realm.current.not_before,
        "session_state": session.pk,
        "scope": " ".join(scopes),
    }
    if "openid" in scopes:
        identity = {"typ": "ID", "exp": issued + access_seconds, "nonce": grant.nonce}
        answer["id_token"] = _signed(shared | identity | _claims_of(person, scopes))
    _keep(answer["access_token"], Credential.Kind.ACCESS, grant, scopes, access_seconds)
    _keep(answer["refresh_token"], Credential.Kind.REFRESH, grant, [], refresh_seconds)
    return answer


def _lifetimes(grant: Grant) -> tuple[int, int]:
    """Return the lifetimes of access and refresh token, in seconds.

    Neither outlives the session. An offline refresh token does not end.
    """
    access, refresh = realm.current.access_lifetime, realm.current.refresh_lifetime
    if grant.offline:
        return access, 0
    left = grant.session.seconds_left
    return min(access, left), min(refresh, left)


def _signed(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, _key, algorithm="RS256", headers={"kid": KEY_ID})


def _keep(value: str, kind: Credential.Kind, grant: Grant, scopes: list[str], seconds: int) -> None:
    end = timezone.now() + timedelta(seconds=seconds) if seconds else None
    Credential.objects.create(
        hash=digest(value), kind=kind, grant=grant, scopes=scopes, expires_at=end
    )


def _claims_of(person: Person, scopes: list[str]) -> dict[str, Any]:
    """Return what OpenID Connect tells a client with ``scopes`` about a person."""
    claims: dict[str, Any] = {"sub": person.keycloak_sub, "preferred_username": person.uid}
    if "email" in scopes and person.email:
        claims |= {"email": person.email, "email_verified": person.email_verified}
    if "profile" in scopes:
        first, last = person.firstname, person.lastname
        claims |= {"given_name": first, "family_name": last, "name": person.name}
    return claims

"""Issues codes and tokens in Keycloak's form, and looks up those that were issued."""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.conf import settings
from django.utils import timezone
from jwt.algorithms import RSAAlgorithm

from . import behaviour, counters
from .models import Credential, Grant, digest
from .people import BY_UID

CODE_LIFETIME = 60

_pem = settings.SANDBOX_PRIVATE_KEY.encode()
_loaded = load_pem_private_key(_pem, password=None)
assert isinstance(_loaded, RSAPrivateKey)  # noqa: S101  # narrows the type: we made it
_private_key = _loaded
_public_jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(_private_key.public_key()))
_key_id = hashlib.sha256(_public_jwk["n"].encode()).hexdigest()[:32]
_refresh_key = hashlib.sha512(_pem).digest()


def key_set() -> dict[str, Any]:
    """Return the public key, as a JSON Web Key Set."""
    return {"keys": [_public_jwk | {"kid": _key_id, "use": "sig", "alg": "RS256"}]}


def _signed(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, _private_key, algorithm="RS256", headers={"kid": _key_id})


def issue_code(grant: Grant) -> str:
    """Return a code for ``grant``, of Keycloak's form."""
    code = f"{uuid.uuid4()}.{grant.session_id}.{uuid.uuid4()}"
    _keep(code, Credential.Kind.CODE, grant, [], CODE_LIFETIME)
    return code


def issue_tokens(grant: Grant, scopes: list[str]) -> dict[str, Any]:
    """Return an answer of the token endpoint: a new pair of ``grant`` whose access token has ``scopes``."""
    now, session, chosen = timezone.now(), grant.session, behaviour.current
    left = session.seconds_left
    access_seconds = chosen.access_lifetime if grant.offline else min(chosen.access_lifetime, left)
    refresh_seconds = 0 if grant.offline else min(chosen.refresh_lifetime, left)
    person, issued = BY_UID[session.person], int(now.timestamp())
    shared = {
        "iss": settings.SANDBOX_ISSUER,
        "aud": grant.client_id,
        "azp": grant.client_id,
        "sub": person.keycloak_sub,
        "iat": issued,
        "sid": session.pk,
        "session_state": session.pk,
    }
    access = {
        "typ": "Bearer",
        "jti": str(uuid.uuid4()),
        "exp": issued + access_seconds,
        "scope": " ".join(scopes),
        "acr": "1",
        "allowed-origins": [],
        "realm_access": {"roles": scopes},
        "resource_access": {},
        "featureScope": person.feature_scope,
        "preferred_username": person.uid,
    }
    refresh: dict[str, Any] = {
        "typ": "Offline" if grant.offline else "Refresh",
        "jti": str(uuid.uuid4()),
        "scope": " ".join(grant.scopes),
        "reuse_id": secrets.token_urlsafe(32),
    }
    refresh |= {} if grant.offline else {"exp": issued + refresh_seconds}
    answer: dict[str, Any] = {
        "access_token": _signed(shared | access),
        "expires_in": access_seconds,
        "refresh_expires_in": refresh_seconds,
        "refresh_token": jwt.encode(shared | refresh, _refresh_key, algorithm="HS512"),
        "token_type": "Bearer",
        "not-before-policy": chosen.not_before,
        "session_state": session.pk,
        "scope": " ".join(scopes),
    }
    if "openid" in scopes:
        identity = {"typ": "ID", "exp": issued + access_seconds, "nonce": grant.nonce}
        answer["id_token"] = _signed(shared | identity | claims_of(session.person, scopes))
    _keep(answer["access_token"], Credential.Kind.ACCESS, grant, scopes, access_seconds)
    _keep(answer["refresh_token"], Credential.Kind.REFRESH, grant, [], refresh_seconds)
    counters.add("issued")
    return answer


def _keep(value: str, kind: Credential.Kind, grant: Grant, scopes: list[str], seconds: int) -> None:
    end = timezone.now() + timedelta(seconds=seconds) if seconds else None
    Credential.objects.create(
        hash=digest(value), kind=kind, grant=grant, scopes=scopes, expires_at=end
    )


def claims_of(uid: str, scopes: list[str]) -> dict[str, Any]:
    """Return the OpenID Connect claims about a person for a client with ``scopes``."""
    person = BY_UID[uid]
    claims: dict[str, Any] = {"sub": person.keycloak_sub, "preferred_username": person.uid}
    if "email" in scopes and person.email:
        claims |= {"email": person.email, "email_verified": person.email_verified}
    if "profile" in scopes:
        claims |= {
            "given_name": person.firstname,
            "family_name": person.lastname,
            "name": person.name,
        }
    return claims


def living_access_token(value: str) -> Credential | None:
    """Return the access token ``value`` if it is valid now."""
    found = Credential.find(value, Credential.Kind.ACCESS)
    if found is None or found.has_expired or found.is_stale or not found.grant.is_usable:
        return None
    return None if found.grant.session.person in behaviour.current.disabled_people else found

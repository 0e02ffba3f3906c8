"""Addresses of an OpenID Connect server: derives one from another, and tells which of them are on this machine.

Keycloak puts all endpoints of a realm below ``…/realms/<realm>/protocol/openid-connect/``. Nothing is derived from an
address of another shape.
"""

from __future__ import annotations

from ipaddress import ip_address

REALMS = frozenset({"third-party", "sipgate-apps"})
"""sipgate's realms for other people's clients."""


def logout_url_from(token_url: str) -> str:
    """Return Keycloak's logout endpoint of the realm of ``token_url``; empty if that is not an address of Keycloak."""
    return _sibling(token_url, "logout")


def revoke_url_from(token_url: str) -> str:
    """Return the revocation endpoint (RFC 7009) of the realm of ``token_url``; empty if it cannot be told."""
    return _sibling(token_url, "revoke")


def userinfo_url_from(token_url: str) -> str:
    """Return OpenID Connect's userinfo endpoint of the realm of ``token_url``; empty if it cannot be told."""
    return _sibling(token_url, "userinfo")


def issuer_from(auth_url: str) -> str:
    """Return Keycloak's issuer of an endpoint: everything before ``/protocol/openid-connect/``; empty without that."""
    head, found, _ = auth_url.partition("/protocol/openid-connect/")
    return head if found else ""


def realm_of(url: str) -> str:
    """Return the realm that an address of Keycloak names; empty for none."""
    return url.partition("/realms/")[2].partition("/")[0]


def realm_of_client(client_id: str) -> str:
    """Return the realm that a client id of sipgate names behind its colon; empty for none of sipgate's."""
    suffix = client_id.rpartition(":")[2]
    return suffix if suffix in REALMS else ""


def is_loopback(host: str | None) -> bool:
    """Tell whether a host name or address can only mean this machine."""
    if host == "localhost" or (host or "").endswith(".localhost"):
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _sibling(url: str, name: str) -> str:
    head, found, _ = url.partition("/protocol/openid-connect/")
    return f"{head}{found}{name}" if found else ""

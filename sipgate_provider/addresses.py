"""Derives addresses of an OpenID Connect server from one another, and tells which are local.

Keycloak puts all endpoints of a realm below ``…/realms/<realm>/protocol/openid-connect/``. From an
address of another form, this module derives nothing.
"""

from __future__ import annotations

from ipaddress import ip_address

REALMS = frozenset({"third-party", "sipgate-apps"})
"""sipgate's realms for the clients of others."""
COMMON = "/protocol/openid-connect/"
"""What the addresses of Keycloak's endpoints share."""


def sibling(url: str, name: str) -> str:
    """Return the address of another endpoint of the realm of ``url``, such as ``logout``; empty if
    ``url`` is not an address of Keycloak."""
    realm, found, _ = url.partition(COMMON)
    return f"{realm}{found}{name}" if found else ""


def issuer_from(auth_url: str) -> str:
    """Return Keycloak's issuer, the address of the realm of an endpoint; empty as above."""
    realm, found, _ = auth_url.partition(COMMON)
    return realm if found else ""


def realm_of_client(client_id: str) -> str:
    """Return the realm that a client id names after its colon; empty if it is not sipgate's."""
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

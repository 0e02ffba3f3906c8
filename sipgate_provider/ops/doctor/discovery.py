"""Compares the settings with sipgate's discovery document, if there is one."""

from __future__ import annotations

from collections.abc import Iterator

from sipgate_provider import conf
from sipgate_provider.remote import probes
from sipgate_provider.remote.probes import Discovery, Verdict

from .findings import Finding, error, ok, warning

CHECK = "sipgate.discovery"


def findings(timeout: float) -> list[Finding]:
    """Read the discovery document of the issuer, and compare."""
    if not conf.issuer():
        return []
    answer, document = probes.discovery(conf.issuer(), timeout=timeout)
    if document is not None:
        differences = [*_issuer(document), *_endpoints(document), *_features(document)]
        return differences or [ok(CHECK, "The settings agree with sipgate's discovery document.")]
    if answer.verdict is Verdict.ABSENT:
        return [
            ok(
                CHECK,
                "sipgate publishes no discovery document, so the settings are not compared with one.",
            )
        ]
    why = f" (HTTP {answer.status})" if answer.status else f" ({answer.verdict})"
    return [
        warning(
            CHECK,
            f"sipgate's discovery document cannot be read{why}.",
            "Compare SIPGATE_ISSUER and SIPGATE_AUTH_URL with sipgate's documentation, or try again later.",
        )
    ]


def _issuer(document: Discovery) -> Iterator[Finding]:
    if document.issuer != conf.issuer():
        yield error(
            f"{CHECK}.issuer",
            f"The discovery document names the issuer {document.issuer}, this site expects {conf.issuer()}.",
            "Correct SIPGATE_ISSUER, or SIPGATE_AUTH_URL from which it is derived.",
        )


def _endpoints(document: Discovery) -> Iterator[Finding]:
    ours = {
        "authorization_endpoint": ("SIPGATE_AUTH_URL", conf.auth_url()),
        "token_endpoint": ("SIPGATE_TOKEN_URL", conf.token_url()),
        "revocation_endpoint": ("SIPGATE_REVOKE_URL", conf.revoke_url()),
    }
    for name, (setting, url) in ours.items():
        theirs = document.endpoints.get(name, "")
        if url and theirs and probes.address_of(theirs) != probes.address_of(url):
            yield warning(
                f"{CHECK}.{name}",
                f"{setting} is {probes.address_of(url)}, the discovery document says {probes.address_of(theirs)}.",
                f"Use that one in {setting}, unless you know better.",
            )


def _features(document: Discovery) -> Iterator[Finding]:
    if document.has_s256 is False:
        yield warning(
            f"{CHECK}.pkce",
            "The discovery document does not name S256, the kind of PKCE that every sign-in uses.",
            "If sign-ins fail, set OAUTH_PKCE_ENABLED to False in SOCIALACCOUNT_PROVIDERS.",
        )
    if document.names_issuer is False:
        yield ok(
            f"{CHECK}.iss",
            "sipgate's callbacks do not name their issuer (RFC 9207), so it cannot be compared.",
        )

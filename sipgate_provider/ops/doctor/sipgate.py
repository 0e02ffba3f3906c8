"""Asks sipgate's endpoints, without a user, and says what to do about each answer.

``permissions`` then asks what this client may ask for, ``discovery`` compares the settings with what sipgate publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sipgate_provider import conf, errors, tokens
from sipgate_provider.remote import oauth, probes
from sipgate_provider.remote.probes import Answer, Verdict

from . import discovery, permissions
from .findings import Finding, Severity, error, finding, ok, warning

SLOW = 2.0
"""Seconds after which an endpoint counts as slow: a page of the site waits for it."""
CLOCK_WARNING, CLOCK_ERROR = 30.0, 300.0
SETTINGS = {
    "authorization": "SIPGATE_AUTH_URL",
    "token": "SIPGATE_TOKEN_URL",
    "API": "SIPGATE_API_URL",
    "revocation": "SIPGATE_REVOKE_URL",
}
CONSOLE = "sipgate's console (Clients)"


def findings(timeout: float) -> list[Finding]:
    """Ask all endpoints at the same time, without a database connection. If the client is right, ask for scopes."""
    try:
        client = tokens.client()
    except errors.Misconfigured:
        return []  # there is nothing to ask with, and a finding says so
    tokens.release_connections()
    questions: list[Callable[[], Answer]] = [
        partial(probes.token, client, timeout=timeout),
        partial(probes.api, conf.api_url(), timeout=timeout),
    ]
    if conf.redirect_uri():
        questions.insert(0, partial(_ask_authorization, client, timeout))
    with ThreadPoolExecutor(len(questions) + 2, thread_name_prefix="sipgate-doctor") as pool:
        asked = [pool.submit(question) for question in questions]
        revoking = pool.submit(_ask_revocation, client, timeout)
        document = pool.submit(discovery.findings, timeout)
        answers = [future.result() for future in asked]
        found = [one for answer in answers for one in _judged(answer)]
        if all(answer.verdict in {Verdict.FINE, Verdict.SCOPE} for answer in answers):
            # Otherwise they would repeat it.
            found += [
                *(one for answer in revoking.result() for one in _revocation(answer)),
                *document.result(),
            ]
    if answers[0].endpoint == "authorization" and answers[0].verdict in {
        Verdict.FINE,
        Verdict.SCOPE,
    }:
        found += [*_issuer(answers[0]), *permissions.findings(client, answers[0], timeout)]
    return [*found, *_clock(answers)]


def _ask_authorization(client: oauth.Client, timeout: float) -> Answer:
    return permissions.ask(client, conf.scope(), timeout=timeout)


def _ask_revocation(client: oauth.Client, timeout: float) -> list[Answer]:
    url = conf.revoke_url()
    return [probes.revocation(client, url, timeout=timeout)] if url else []


def _issuer(answer: Answer) -> Iterator[Finding]:
    expected = conf.issuer()
    if answer.issuer and expected and answer.issuer != expected:
        yield error(
            "sipgate.issuer",
            f"sipgate's answer names the issuer {answer.issuer}, this site expects {expected}: "
            "every sign-in is refused.",
            f"Set SIPGATE_ISSUER to {answer.issuer} if that is the server you mean, else correct SIPGATE_AUTH_URL.",
        )
    elif answer.issuer:
        yield ok(
            "sipgate.issuer",
            f"sipgate's answer names the issuer that this site expects ({answer.issuer}).",
        )


def _revocation(answer: Answer) -> Iterator[Finding]:
    if answer.verdict is not Verdict.ABSENT:
        yield from _judged(answer)
    elif conf.logout_url():
        yield warning(
            "sipgate.revocation",
            "sipgate has no revocation endpoint: a disconnect signs people out of sipgate, and ends the access of "
            "their other applications, too.",
            'To accept that, set SIPGATE_REVOKE_URL to "off". To forbid it, set SIPGATE_LOGOUT_URL to "off".',
        )
    else:
        yield ok(
            "sipgate.revocation",
            "sipgate has no revocation endpoint: after a disconnect, access ends by itself.",
        )


JUDGEMENTS: dict[Verdict, tuple[str, str]] = {
    Verdict.CLIENT_ID: (
        "does not know this client ('client not found'){detail}.",
        f"Compare {errors.CLIENT_ID}, with its suffix, with {CONSOLE}, "
        "and its realm with SIPGATE_AUTH_URL and SIPGATE_TOKEN_URL.",
    ),
    Verdict.CLIENT_SECRET: (
        "refuses the client's credentials{detail}.",
        f"Compare {errors.CLIENT_SECRET}, and {errors.CLIENT_ID}, with {CONSOLE}.",
    ),
    Verdict.REDIRECT_URI: (
        "does not accept SIPGATE_REDIRECT_URI ('invalid parameter: redirect_uri').",
        f"Enter it in {CONSOLE} exactly as it is set here: {{redirect_uri}}",
    ),
    Verdict.ADDRESS: (
        "is not at this address{status}{detail}.",
        "Correct {setting}, or remove it to use sipgate's own address.",
    ),
    Verdict.REFUSED: (
        "refuses to answer{status}{detail}.",
        f"Compare the client's settings with {CONSOLE}.",
    ),
    Verdict.UNAVAILABLE: (
        "is out of order{status}{detail}.",
        "Only sipgate can repair this: try again later.",
    ),
    Verdict.BUSY: (
        "asks for fewer requests{status}.",
        "Try again later. If it persists, give sipgate_keepalive a smaller --rate.",
    ),
    Verdict.ODD: (
        "gives an answer that sipgate would not give{status}{detail}.",
        "Correct {setting}, or look for a proxy in between that answers itself.",
    ),
    Verdict.DNS: (
        "has a name that is not known here{detail}.",
        "Correct the host in {setting}, or this machine's name server.",
    ),
    Verdict.NO_LISTENER: (
        "refuses connections: nothing listens there.",
        "Correct host and port in {setting}, or the firewall; a local sandbox has to be started.",
    ),
    Verdict.TIMEOUT: (
        "did not answer within {seconds:.0f} s.",
        "Check whether a firewall blocks this machine or it needs a proxy (HTTPS_PROXY); else try again later.",
    ),
    Verdict.CERTIFICATE: (
        "shows a certificate that is not trusted{detail}.",
        "Update this machine's certificates; behind an inspecting proxy, put its authority into REQUESTS_CA_BUNDLE.",
    ),
    Verdict.TLS: (
        "does not speak TLS as it should{detail}.",
        "Correct scheme and port in {setting}, or look for a proxy in between.",
    ),
    Verdict.PROXY: (
        "cannot be reached through the proxy{detail}.",
        "Correct HTTPS_PROXY or NO_PROXY in the environment.",
    ),
    Verdict.BROKEN: (
        "ends the connection without an answer{detail}.",
        "Look for a firewall or a proxy in between; else try again later.",
    ),
}
"""What each answer except a good one means, and what to do. ``permissions`` reports refused scopes."""


def _judged(answer: Answer) -> Iterator[Finding]:
    check = f"sipgate.{answer.endpoint.lower()}"
    name = "sipgate's API" if answer.endpoint == "API" else f"sipgate's {answer.endpoint} endpoint"
    if answer.verdict not in {Verdict.FINE, Verdict.SCOPE}:
        severity = Severity.WARNING if answer.verdict is Verdict.BUSY else Severity.ERROR
        found, cure = (text.format(**_facts(answer)) for text in JUDGEMENTS[answer.verdict])
        yield finding(severity, check, f"{name} {found}", cure)
        return
    yield ok(check, f"{name} answers as it should, in {answer.seconds * 1000:.0f} ms.")
    if answer.seconds > SLOW:
        advice = "Check the network; meanwhile pages show the last known data."
        yield warning(f"{check}.slow", f"{name} is slow: {answer.seconds:.1f} s.", advice)


def _facts(answer: Answer) -> dict[str, object]:
    return {
        "detail": f" ({answer.detail})" if answer.detail else "",
        "status": f" (HTTP {answer.status})" if answer.status else "",
        "setting": SETTINGS[answer.endpoint],
        "seconds": answer.seconds,
        "redirect_uri": probes.address_of(conf.redirect_uri()),
    }


def _clock(answers: Iterable[Answer]) -> Iterator[Finding]:
    differences = [answer.clock_ahead for answer in answers if answer.clock_ahead is not None]
    if not differences:
        return
    # The smallest difference, so that a single odd server in between does not raise an alarm.
    ahead = min(differences, key=abs)
    if abs(ahead) <= CLOCK_WARNING:
        yield ok("clock", "This machine's clock agrees with sipgate's.")
        return
    make = error if abs(ahead) > CLOCK_ERROR else warning
    yield make(
        "clock",
        f"This machine's clock is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} sipgate's: "
        "tokens seem valid for too long, or not at all.",
        "Synchronise the system clock (NTP).",
    )

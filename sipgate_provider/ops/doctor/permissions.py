"""Finds out what this client may ask for: every scope of the settings and of the code, and ``offline_access``.

sipgate is asked to sign somebody in without asking a person (``prompt=none``), which it refuses for a scope that the
client may not have. It then names the whole list, so the scopes of a refused list are asked for one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from django.core.exceptions import ImproperlyConfigured
from django.urls import get_resolver

from sipgate_provider import conf, scopes
from sipgate_provider.models import OFFLINE_ACCESS
from sipgate_provider.remote import oauth, probes
from sipgate_provider.remote.probes import Answer, Verdict

from .findings import Finding, error, ok

AT_ONCE = 4
"""Questions to sipgate at the same time."""


def ask(client: oauth.Client, wanted: Iterable[str], *, timeout: float) -> Answer:
    """Ask sipgate whether this client may ask for ``wanted``."""
    return probes.authorization(
        conf.auth_url(),
        client_id=client.client_id,
        redirect_uri=conf.redirect_uri(),
        scope=" ".join(wanted),
        timeout=timeout,
    )


def findings(client: oauth.Client, configured: Answer, timeout: float) -> Iterator[Finding]:
    """Tell which scopes are refused. ``configured`` is sipgate's answer for those of the settings."""
    _load_views()
    needed = {
        scope: views
        for scope, views in scopes.needed_by_code().items()
        if scope not in conf.scope()
    }
    lists = [list(needed)] if needed else []
    if OFFLINE_ACCESS not in {*conf.scope(), *needed}:
        lists.append([OFFLINE_ACCESS])
    answers = dict(zip(map(tuple, lists), _all(client, lists, timeout), strict=True))
    if configured.verdict is Verdict.SCOPE:
        yield _of_settings(_refused(client, conf.scope(), timeout), configured)
    if needed and answers[tuple(needed)].verdict is Verdict.SCOPE:
        yield from _of_code(needed, _refused(client, list(needed), timeout))
    if configured.verdict is Verdict.FINE:
        yield ok("sipgate.scopes", f"sipgate lets this client ask for {' '.join(conf.scope())}.")
    offline = answers.get((OFFLINE_ACCESS,))
    if offline is not None:
        yield from _offline_access(offline)


def _load_views() -> None:
    """Import the site's views, which registers the scopes that they need."""
    with suppress(ImproperlyConfigured):  # a system check says so
        get_resolver().url_patterns  # noqa: B018  # a cached property that imports


def _all(client: oauth.Client, lists: Sequence[Sequence[str]], timeout: float) -> list[Answer]:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sipgate-doctor") as pool:
        return list(pool.map(lambda wanted: ask(client, wanted, timeout=timeout), lists))


def _refused(client: oauth.Client, wanted: Sequence[str], timeout: float) -> list[str]:
    """Return which scopes of a refused list are refused by themselves."""
    answers = _all(client, [[scope] for scope in wanted], timeout)
    return [
        scope
        for scope, answer in zip(wanted, answers, strict=True)
        if answer.verdict is Verdict.SCOPE
    ]


def _of_settings(refused: list[str], configured: Answer) -> Finding:
    found = f"This client may not ask for {', '.join(refused)}: sipgate refuses every sign-in."
    if not refused:  # each by itself is fine
        found = f"sipgate refuses the scopes of SIPGATE_SCOPE together ({configured.detail})."
    return error(
        "sipgate.scopes",
        found,
        "Correct SIPGATE_SCOPE; the scopes are listed at https://developer.sipgate.io/rest-api/oauth2-scopes/.",
    )


def _of_code(needed: dict[str, list[str]], refused: list[str]) -> Iterator[Finding]:
    for scope in refused:
        yield error(
            "sipgate.scopes.code",
            f"This client may not ask for {scope}, which this site's code needs ({', '.join(needed[scope][:3])}).",
            "Correct the name of the scope there, or have sipgate allow it to your client.",
        )


def _offline_access(answer: Answer) -> Iterator[Finding]:
    if answer.verdict is Verdict.FINE:
        yield ok(
            "sipgate.offline_access",
            "This client may ask for offline_access, and does not: signing out of sipgate in the browser ends a "
            "connection.",
            "Add offline_access to SIPGATE_SCOPE if connections should outlive that.",
        )
    elif answer.verdict is Verdict.SCOPE:
        yield ok(
            "sipgate.offline_access",
            "This client may not ask for offline_access: signing out of sipgate in the browser ends a connection.",
        )

"""Examines settings and connections, and asks sipgate about this site's client.

The system checks (``checks``) judge the settings. The doctor asks sipgate without a user, changes
nothing, and shows no secret. What it cannot examine is a finding.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import allauth
import django
from allauth.socialaccount.models import SocialToken
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.models import Count, Min
from django.urls import get_resolver
from django.utils import timezone

from sipgate_provider import addresses, conf, database, errors, scopes, tokens
from sipgate_provider.models import OFFLINE_ACCESS, Ending, Reason, SipgateToken, State
from sipgate_provider.ops import keepalive
from sipgate_provider.ops.findings import Finding, error, ok, warning
from sipgate_provider.remote import questions, session
from sipgate_provider.remote.questions import Reply, Verdict

AT_ONCE = 4
"""How many questions it asks sipgate at the same time."""
TESTED = {"Django": ("5.2", "6.0", "6.1"), "allauth": ("65.21", "65.22")}
"""Release lines that the tests run with."""
CONSOLE = "sipgate's console (Clients)"
LONG_FAILING = timedelta(minutes=15)
"""Shorter trouble usually ends without help."""
LATE = timedelta(days=1)
"""If a refresh is this late, keepalive does not run."""
OLD_ENDING = timedelta(hours=1)
"""By then, keepalive has tried an ending a dozen times."""


JUDGEMENTS = {
    Verdict.CLIENT_ID: (
        "does not know this client{detail}.",
        f"Compare {errors.CLIENT_ID} with {CONSOLE}, and the realm in it with {{setting}}.",
    ),
    Verdict.CLIENT_SECRET: (
        "rejects the client's credentials{detail}.",
        f"Compare {errors.CLIENT_SECRET}, and {errors.CLIENT_ID}, with {CONSOLE}.",
    ),
    Verdict.REDIRECT_URI: (
        "does not accept SIPGATE_REDIRECT_URI.",
        f"Enter it in {CONSOLE} exactly as it is set here: {{redirect_uri}}",
    ),
    Verdict.ADDRESS: (
        "is not at this address{detail}.",
        "Correct {setting}, or remove it to use sipgate's own address.",
    ),
    Verdict.UNAVAILABLE: (
        "is out of order, or cannot be reached{detail}.",
        "Check {setting}, firewall, proxy (HTTPS_PROXY) and certificates, or try again later.",
    ),
    Verdict.UNCLEAR: (
        "gives an unexpected answer{detail}.",
        f"Compare the client's settings with {CONSOLE}, and {{setting}} with sipgate's address.",
    ),
}


def diagnose(*, offline: bool = False) -> list[Finding]:
    """Examine everything and return the findings; ``offline``: without asking sipgate."""
    found = [*_versions(), *_system_checks(), *_client(), *_database()]
    return found if offline else [*found, *_sipgate()]


# --- this site ----------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    ours = session.user_agent().replace("/", " ")
    known = {"Django": django.__version__, "allauth": allauth.__version__}
    words = ", ".join(f"{name} {version}" for name, version in known.items())
    yield ok("versions", f"{ours}, {words}, Python {platform.python_version()}")
    for name, version in known.items():
        if ".".join(version.split(".")[:2]) not in TESTED[name]:
            lines = ", ".join(TESTED[name])
            yield ok(
                "versions.untested",
                f"{name} {version} is untested; the tests run with {lines}.",
                "Report what does not work.",
            )


def is_deployed() -> bool:
    """Tell whether the site is for others than the developer at this machine."""
    host = urlsplit(conf.redirect_uri()).hostname
    return not addresses.is_loopback(host) if host else not settings.DEBUG


def _system_checks() -> Iterator[Finding]:
    # Without the databases, which Django 6.1 would ask while it checks the models.
    messages = checks.run_checks(include_deployment_checks=is_deployed(), databases=[])
    with suppress(DatabaseError):  # a database that does not answer has a finding of its own
        messages += checks.run_checks(tags=[checks.Tags.database], databases=list(connections))
    found = [one for one in messages if not one.is_silenced() and one.level >= checks.WARNING]
    for message in found:
        make = error if message.level >= checks.ERROR else warning
        cure = " ".join(str(message.hint or "See the documentation of this check.").split())
        yield make(message.id or "django", " ".join(str(message.msg).split()), cure)
    if not found:
        yield ok("checks", "The system checks found nothing.")


def _client() -> Iterator[Finding]:
    try:
        client = tokens.client()
    except DatabaseError:
        return  # the database has a finding of its own
    except errors.Misconfigured as problem:
        yield error(
            "client",
            problem.message,
            "Copy Id and Secret from sipgate's console. Of several clients, delete the other rows "
            "(Social applications in the admin), or give each row its site and set SITE_ID.",
        )
        return
    if client.client_id and client.client_secret:
        yield ok("client", f"This site's client is {client.client_id}.")
    else:
        empty = errors.CLIENT_SECRET if client.client_id else errors.CLIENT_ID
        yield error("client", f"{empty} is empty.", "Copy it from sipgate's console.")


def _database() -> list[Finding]:
    """Examine the database and its rows. Each query is quick, or has an index."""
    try:
        known = counts()
        found = [*_keys(), *_connections(known), *_endings(known), *_clear_text()]
    except DatabaseError as failure:
        problem = f"The database does not answer as it should ({type(failure).__name__})."
        cure = "Check DATABASES, and that the database runs; then run manage.py migrate."
        return [error("database", problem, cure)]
    return [ok("database", f"{connections[database.using()].vendor} answers."), *found]


def counts() -> dict[str, Any]:
    """Return numbers for a monitor. Four queries, and a look at the files of the journal."""
    rows = SipgateToken.objects.order_by()
    grouped = rows.values_list("state", "reason").annotate(number=Count("pk"))
    states = Counter({state.value: 0 for state in State})
    reasons = Counter[str]()
    for state, reason, number in grouped:
        states[state] += number
        if reason:
            reasons[reason] += number
    failing = rows.filter(state=State.FAILING).aggregate(since=Min("failing_since"))
    endings = Ending.objects.filter(next_attempt_at__isnull=False)
    waiting = endings.aggregate(number=Count("pk"), since=Min("created_at"))
    return {
        "connections": sum(states.values()),
        "states": dict(states),
        "reasons": dict(sorted(reasons.items())),
        "failing_since": failing["since"],
        "overdue": keepalive.idle(timezone.now() - LATE).count(),
        "endings_waiting": waiting["number"],
        "endings_since": waiting["since"],
        "journal_waiting": tokens.journal_waiting(),
    }


def _keys() -> Iterator[Finding]:
    try:
        ring = tokens.key_ids()
    except errors.Misconfigured:
        return  # a system check says so
    known = tokens.status()
    if known.keys_missing:
        number = sum(known.keys[key] for key in known.keys_missing)
        yield error(
            "keys.lost",
            f"{number} sealed values need keys that are not in SIPGATE_TOKEN_KEYS: "
            f"{', '.join(known.keys_missing)}.",
            "Add these keys again after the first one, then run manage.py sipgate_reseal.",
        )
    elif old := sum(number for key, number in known.keys.items() if key != ring[0]):
        remark = "Run manage.py sipgate_reseal before you remove it."
        yield ok("keys", f"{old} values are sealed with an old key.", remark)
    else:
        yield ok("keys", f"{len(ring)} {'key' if len(ring) == 1 else 'keys'}; the first seals all.")


def _connections(known: dict[str, Any]) -> Iterator[Finding]:
    states, since = known["states"], known["failing_since"]
    numbers = [f"{number} {State(state).label}" for state, number in states.items() if number]
    numbers += [f"{number} because {Reason(why).label}" for why, number in known["reasons"].items()]
    yield ok("connections", f"{known['connections']} connections: {'; '.join(numbers) or 'none'}.")
    if states[State.MISCONFIGURED]:
        yield error(
            "connections.misconfigured",
            f"{states[State.MISCONFIGURED]} connections need a correct client or a missing key.",
            "Correct the client's id and secret, or SIPGATE_TOKEN_KEYS. Each connection recovers "
            "at its next use, or by Refresh now in the admin.",
        )
    if since is not None and timezone.now() - since > LONG_FAILING:
        yield warning(
            "connections.failing",
            f"{states[State.FAILING]} connections are failing, the first since {when(since)}.",
            "See their last error in the admin. If all fail, check whether sipgate is reachable.",
        )
    if known["overdue"]:
        yield warning(
            "connections.overdue",
            f"Keepalive should have refreshed {known['overdue']} connections more than a day ago.",
            "Run manage.py sipgate_keepalive regularly.",
        )
    if known["journal_waiting"]:
        yield warning(
            "journal",
            f"The journal holds {known['journal_waiting']} tokens that the database may not have.",
            "Run manage.py sipgate_keepalive to store them.",
        )


def _endings(known: dict[str, Any]) -> Iterator[Finding]:
    since = known["endings_since"]
    if since is not None and timezone.now() - since > OLD_ENDING:
        yield warning(
            "endings",
            f"{known['endings_waiting']} endings are waiting, the first since {when(since)}.",
            "Run manage.py sipgate_keepalive; see their last error in the admin.",
        )


def _clear_text() -> Iterator[Finding]:
    number = SocialToken.objects.filter(account__provider=conf.PROVIDER_ID).count()
    if number:
        yield warning(
            "clear_text",
            f"{number} of allauth's SocialToken rows hold sipgate's tokens in clear text.",
            "Turn SOCIALACCOUNT_STORE_TOKENS off and delete these rows.",
        )


def when(moment: datetime) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M")


# --- sipgate ------------------------------------------------------------------------------------


def _sipgate() -> Iterator[Finding]:
    """Ask, without a database connection, what ``remote.questions`` can ask without a user."""
    try:
        client = tokens.client()
    except (errors.Misconfigured, DatabaseError):
        return  # without a client there is nothing to ask; a finding says so
    database.release_connections()

    def begin(wanted: Iterable[str]) -> Reply:
        return questions.authorization(
            conf.auth_url(),
            client_id=client.client_id,
            redirect_uri=conf.redirect_uri(),
            scope=" ".join(wanted),
        )

    if conf.redirect_uri():
        reply = begin(conf.scope())
        yield from _judged("authorization", reply)
        if reply.verdict in {Verdict.FINE, Verdict.SCOPE}:
            yield from _scopes(reply, begin)
    reply = questions.token(client)
    yield from _judged("token", reply)


def _judged(endpoint: str, reply: Reply) -> Iterator[Finding]:
    check, name = f"sipgate.{endpoint}", f"sipgate's {endpoint} endpoint"
    if reply.verdict in {Verdict.FINE, Verdict.SCOPE}:
        yield ok(check, f"{name} answers as it should.")
        return
    facts = {
        "detail": f" ({reply.detail.rstrip('.')})" if reply.detail else "",
        "setting": "SIPGATE_TOKEN_URL" if endpoint == "token" else "SIPGATE_AUTH_URL",
        "redirect_uri": conf.redirect_uri(),
    }
    found, cure = (text.format(**facts) for text in JUDGEMENTS[reply.verdict])
    yield error(check, f"{name} {found}", cure)


def _scopes(reply: Reply, begin: Callable[[Iterable[str]], Reply]) -> Iterator[Finding]:
    """Find scopes that the client may not ask for. sipgate rejects a list as a whole, so ask for
    each alone."""
    with suppress(ImproperlyConfigured):  # a system check says so
        get_resolver().url_patterns  # noqa: B018  # imports the views, which register their scopes
    known = {*conf.scope(), OFFLINE_ACCESS}
    needed = {scope: by for scope, by in scopes.needed_by_code().items() if scope not in known}
    singly = [*(conf.scope() if reply.verdict is Verdict.SCOPE else ()), *needed, OFFLINE_ACCESS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = zip(singly, pool.map(lambda scope: begin([scope]), singly), strict=True)
        rejected = {scope for scope, answer in replies if answer.verdict is Verdict.SCOPE}
    ours = ", ".join(scope for scope in conf.scope() if scope in rejected)
    if reply.verdict is Verdict.SCOPE:
        yield error(
            "sipgate.scopes",
            f"This client may not ask for {ours or 'these scopes together'}: every sign-in fails.",
            "Correct SIPGATE_SCOPE: https://developer.sipgate.io/rest-api/oauth2-scopes/",
        )
    else:
        yield ok("sipgate.scopes", f"This client may ask for {' '.join(conf.scope())}.")
    for scope in sorted(rejected & {*needed}):
        yield error(
            "sipgate.scopes.code",
            f"This client may not ask for {scope}, which {', '.join(needed[scope][:3])} needs.",
            "Correct the name of the scope there, or ask sipgate to allow it for your client.",
        )
    if OFFLINE_ACCESS not in conf.scope():
        may = "may not ask" if OFFLINE_ACCESS in rejected else "may ask"
        yield ok(
            "sipgate.offline_access",
            f"This client {may} for offline_access, without which signing out of sipgate in the "
            "browser ends a connection.",
        )

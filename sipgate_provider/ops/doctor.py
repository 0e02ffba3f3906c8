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
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.models import Count, Min
from django.urls import get_resolver
from django.utils import timezone

from sipgate_provider import addresses, conf, database, errors, scopes, tokens
from sipgate_provider.models import OFFLINE_ACCESS, Ending, Reason, SipgateToken, State
from sipgate_provider.ops import keepalive
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


def diagnose(*, offline: bool = False) -> list[CheckMessage]:
    """Examine everything and return the findings; ``offline``: without asking sipgate."""
    found = [*_versions(), *_system_checks(), *_client(), *_database()]
    return found if offline else [*found, *_sipgate()]


# --- this site ----------------------------------------------------------------------------------


def _versions() -> Iterator[CheckMessage]:
    ours = session.user_agent().replace("/", " ")
    known = {"Django": django.__version__, "allauth": allauth.__version__}
    words = ", ".join(f"{name} {version}" for name, version in known.items())
    yield checks.Info(f"{ours}, {words}, Python {platform.python_version()}", id="versions")
    for name, version in known.items():
        if ".".join(version.split(".")[:2]) not in TESTED[name]:
            lines = ", ".join(TESTED[name])
            yield checks.Info(
                f"{name} {version} is untested; the tests run with {lines}.",
                "Report what does not work.",
                id="versions.untested",
            )


def is_deployed() -> bool:
    """Tell whether the site is for others than the developer at this machine."""
    host = urlsplit(conf.redirect_uri()).hostname
    return not addresses.is_loopback(host) if host else not settings.DEBUG


def _system_checks() -> list[CheckMessage]:
    # Without the databases, which Django 6.1 would ask while it checks the models.
    messages = checks.run_checks(include_deployment_checks=is_deployed(), databases=[])
    with suppress(DatabaseError):  # a database that does not answer has a finding of its own
        messages += checks.run_checks(tags=[checks.Tags.database], databases=list(connections))
    found = [one for one in messages if one.level >= checks.WARNING and not one.is_silenced()]
    return found or [checks.Info("The system checks found nothing.", id="checks")]


def _client() -> Iterator[CheckMessage]:
    try:
        client = tokens.client()
    except DatabaseError:
        return  # the database has a finding of its own
    except errors.Misconfigured as problem:
        yield checks.Error(
            problem.message,
            "Copy Id and Secret from sipgate's console. Of several clients, delete the other rows "
            "(Social applications in the admin), or give each row its site and set SITE_ID.",
            id="client",
        )
        return
    if client.client_id and client.client_secret:
        yield checks.Info(f"This site's client is {client.client_id}.", id="client")
    else:
        empty = errors.CLIENT_SECRET if client.client_id else errors.CLIENT_ID
        yield checks.Error(f"{empty} is empty.", "Copy it from sipgate's console.", id="client")


def _database() -> list[CheckMessage]:
    """Examine the database and its rows. Each query is quick, or has an index."""
    try:
        known = counts()
        found = [*_keys(), *_connections(known), *_endings(known), *_clear_text()]
    except DatabaseError as failure:
        problem = f"The database does not answer as it should ({type(failure).__name__})."
        cure = "Check DATABASES, and that the database runs; then run manage.py migrate."
        return [checks.Error(problem, cure, id="database")]
    return [checks.Info(f"{connections[database.using()].vendor} answers.", id="database"), *found]


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


def _keys() -> Iterator[CheckMessage]:
    try:
        ring = tokens.key_ids()
    except errors.Misconfigured:
        return  # a system check says so
    known = tokens.status()
    if known.keys_missing:
        number = sum(known.keys[key] for key in known.keys_missing)
        yield checks.Error(
            f"Not in SIPGATE_TOKEN_KEYS: {', '.join(known.keys_missing)}. Sealed values that need "
            f"these keys: {number}.",
            "Add these keys again after the first one, then run manage.py sipgate_reseal.",
            id="keys.lost",
        )
    elif old := sum(number for key, number in known.keys.items() if key != ring[0]):
        remark = "Run manage.py sipgate_reseal before you remove it."
        yield checks.Info(f"Values that are sealed with an old key: {old}.", remark, id="keys")
    else:
        yield checks.Info(f"Keys: {len(ring)}; the first seals all.", id="keys")


def _connections(known: dict[str, Any]) -> Iterator[CheckMessage]:
    states, since = known["states"], known["failing_since"]
    numbers = [f"{number} {State(state).label}" for state, number in states.items() if number]
    numbers += [f"{number} because {Reason(why).label}" for why, number in known["reasons"].items()]
    yield checks.Info(f"Connections: {'; '.join(numbers) or 'none'}.", id="connections")
    if wrong := states[State.MISCONFIGURED]:
        yield checks.Error(
            f"Connections that need a correct client or a missing key: {wrong}.",
            "Correct the client's id and secret, or SIPGATE_TOKEN_KEYS. Each connection recovers "
            "at its next use, or by Refresh now in the admin.",
            id="connections.misconfigured",
        )
    if since is not None and timezone.now() - since > LONG_FAILING:
        yield checks.Warning(
            f"Failing connections: {states[State.FAILING]}, the first since {when(since)}.",
            "See their last error in the admin. If all fail, check whether sipgate is reachable.",
            id="connections.failing",
        )
    if known["overdue"]:
        yield checks.Warning(
            f"Connections that keepalive should have refreshed a day ago: {known['overdue']}.",
            "Run manage.py sipgate_keepalive regularly.",
            id="connections.overdue",
        )
    if known["journal_waiting"]:
        yield checks.Warning(
            f"Tokens in the journal that the database may not have: {known['journal_waiting']}.",
            "Run manage.py sipgate_keepalive to store them.",
            id="journal",
        )


def _endings(known: dict[str, Any]) -> Iterator[CheckMessage]:
    since = known["endings_since"]
    if since is not None and timezone.now() - since > OLD_ENDING:
        yield checks.Warning(
            f"Waiting endings: {known['endings_waiting']}, the first since {when(since)}.",
            "Run manage.py sipgate_keepalive; see their last error in the admin.",
            id="endings",
        )


def _clear_text() -> Iterator[CheckMessage]:
    number = SocialToken.objects.filter(account__provider=conf.PROVIDER_ID).count()
    if number:
        yield checks.Warning(
            f"Rows of allauth's SocialToken with sipgate's tokens in clear text: {number}.",
            "Turn SOCIALACCOUNT_STORE_TOKENS off and delete these rows.",
            id="clear_text",
        )


def when(moment: datetime) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M")


# --- sipgate ------------------------------------------------------------------------------------


def _sipgate() -> Iterator[CheckMessage]:
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


def _judged(endpoint: str, reply: Reply) -> Iterator[CheckMessage]:
    check, name = f"sipgate.{endpoint}", f"sipgate's {endpoint} endpoint"
    if reply.verdict in {Verdict.FINE, Verdict.SCOPE}:
        yield checks.Info(f"{name} answers as it should.", id=check)
        return
    facts = {
        "detail": f" ({reply.detail.rstrip('.')})" if reply.detail else "",
        "setting": "SIPGATE_TOKEN_URL" if endpoint == "token" else "SIPGATE_AUTH_URL",
        "redirect_uri": conf.redirect_uri(),
    }
    found, cure = (text.format(**facts) for text in JUDGEMENTS[reply.verdict])
    yield checks.Error(f"{name} {found}", cure, id=check)


def _scopes(reply: Reply, begin: Callable[[Iterable[str]], Reply]) -> Iterator[CheckMessage]:
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
        yield checks.Error(
            f"This client may not ask for {ours or 'these scopes together'}: every sign-in fails.",
            "Correct SIPGATE_SCOPE: https://developer.sipgate.io/rest-api/oauth2-scopes/",
            id="sipgate.scopes",
        )
    else:
        yield checks.Info(f"This client may ask for {' '.join(conf.scope())}.", id="sipgate.scopes")
    for scope in sorted(rejected & {*needed}):
        yield checks.Error(
            f"This client may not ask for {scope}, which {', '.join(needed[scope][:3])} needs.",
            "Correct the name of the scope there, or ask sipgate to allow it for your client.",
            id="sipgate.scopes.code",
        )
    if OFFLINE_ACCESS not in conf.scope():
        may = "may not ask" if OFFLINE_ACCESS in rejected else "may ask"
        yield checks.Info(
            f"This client {may} for offline_access, without which signing out of sipgate in the "
            "browser ends a connection.",
            id="sipgate.offline_access",
        )

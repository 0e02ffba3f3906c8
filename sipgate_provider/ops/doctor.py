"""Looks for what keeps a site from working with sipgate, and says how to cure it, before a person meets it.

Every check yields findings, fine ones too, so that a report tells what was looked at. Nothing is changed anywhere, no
finding holds a secret, and a check that cannot be made is a finding rather than an error.

Must not know: terminals, how findings are shown.
"""

from __future__ import annotations

import errno
import platform
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import allauth
import django
import requests
from allauth.socialaccount.models import SocialToken
from django.conf import settings
from django.core import checks
from django.core.cache import cache
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.http.request import validate_host
from django.urls import Resolver404, resolve
from django.utils import timezone

from sipgate_provider import conf, endpoints, errors, scopes
from sipgate_provider.keeper import authorization_server, database, journal, pauses, sealing
from sipgate_provider.models import Revocation, SipgateToken, State
from sipgate_provider.ops import reseal
from sipgate_provider.remote import http, oauth, probes
from sipgate_provider.remote.probes import Answer, Verdict
from sipgate_provider.sign_in import views

from . import statistics

TIMEOUT = 10.0
SLOW = 2.0
"""Seconds after which an endpoint counts as slow: a page of the site waits for it."""
CLOCK_WARNING, CLOCK_ERROR = 30.0, 300.0
OLD_REVOCATION = timedelta(hours=1)
"""By then an ending that failed at first has been tried a dozen times."""
LONG_FAILING = timedelta(minutes=15)
"""Shorter troubles mend themselves."""
REALMS = frozenset({"third-party", "sipgate-apps"})
CLIENT_ID = re.compile(r"[0-9]+-[0-9]+-[0-9a-f-]{36}(:[a-z-]+)?")


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: a stable name, how bad it is, what was found, and what to do about it."""

    check: str
    severity: Severity
    found: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        return {**asdict(self), "severity": self.severity.value}


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the gravest severity among the findings."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)


def diagnose(*, offline: bool = False, timeout: float = TIMEOUT) -> list[Finding]:
    """Look at everything and return what was found.

    Args:
        offline: leave out what needs sipgate.
        timeout: seconds that each question to sipgate may take.
    """
    found = [*_versions(), *_system_checks(), *_client(), *_addresses(), *_redirect_uri(), *_cookies()]
    found += [*_keys(), *_journal(), *_cache(), *_database()]
    if not offline:
        found += _sipgate(timeout)
    return found


def _ok(check: str, found: str, cure: str = "") -> Finding:
    return Finding(
        check=check, severity=Severity.OK, found=conf.with_site_names(found), cure=conf.with_site_names(cure)
    )


def _warning(check: str, found: str, cure: str) -> Finding:
    return Finding(
        check=check, severity=Severity.WARNING, found=conf.with_site_names(found), cure=conf.with_site_names(cure)
    )


def _error(check: str, found: str, cure: str) -> Finding:
    return Finding(
        check=check, severity=Severity.ERROR, found=conf.with_site_names(found), cure=conf.with_site_names(cure)
    )


# --- settings ---------------------------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    ours = http.user_agent().replace("/", " ")
    yield _ok(
        "versions",
        f"{ours}, allauth {allauth.__version__}, Django {django.__version__}, Python {platform.python_version()}",
    )


def is_deployed() -> bool:
    """Tell whether the site is meant for others than the person at this machine."""
    host = urlsplit(conf.redirect_uri()).hostname
    return not endpoints.is_loopback(host) if host else not settings.DEBUG


def _system_checks() -> Iterator[Finding]:
    """Django's, allauth's and our own system checks; those for a deployment only where there is one."""
    messages = checks.run_checks(include_deployment_checks=is_deployed())
    # One that does not answer has a finding of its own.
    with suppress(DatabaseError):
        messages += checks.run_checks(tags=[checks.Tags.database], databases=list(connections))
    messages = [message for message in messages if not message.is_silenced() and message.level >= checks.WARNING]
    for message in messages:
        severity = Severity.ERROR if message.level >= checks.ERROR else Severity.WARNING
        yield Finding(
            check=message.id or "django",
            severity=severity,
            found=" ".join(str(message.msg).split()),
            cure=" ".join(str(message.hint or "See the documentation of this check.").split()),
        )
    if not messages:
        yield _ok("checks", "The system checks of Django, allauth and sipgate_provider find nothing.")
    if settings.DEBUG and is_deployed():
        yield _error("debug", "DEBUG is on although the site is addressed from elsewhere.", "Set DEBUG to off.")
    if getattr(settings, "SOCIALACCOUNT_EMAIL_AUTHENTICATION", False):
        yield _warning(
            "allauth.email_authentication",
            "SOCIALACCOUNT_EMAIL_AUTHENTICATION is on: who controls an e-mail address at sipgate gets the local user of it.",
            "Switch it off; people connect sipgate on their account page.",
        )


def _client() -> Iterator[Finding]:
    try:
        client = authorization_server.client()
    except errors.Misconfigured as error:
        yield _error("client", error.message, "Copy Id and Secret of your client from sipgate's console.")
        return
    missing = [
        name for name, value in (("CLIENT_ID", client.client_id), ("CLIENT_SECRET", client.client_secret)) if not value
    ]
    for name in missing:
        yield _error("client", f"{name} is empty.", "Copy Id and Secret of your client from sipgate's console.")
    odd = [
        name
        for name, value in (("CLIENT_ID", client.client_id), ("CLIENT_SECRET", client.client_secret))
        if _is_odd(value)
    ]
    for name in odd:
        yield _error(
            "client", f"{name} holds blanks, quotes or a placeholder.", f"Enter {name} as sipgate's console shows it."
        )
    swapped = CLIENT_ID.fullmatch(client.client_secret) and not CLIENT_ID.fullmatch(client.client_id)
    if swapped:
        yield _error("client", "CLIENT_ID and CLIENT_SECRET look exchanged.", "Exchange their values.")
    if not missing and not odd and not swapped:
        yield _ok("client", "Client id and secret are set.")
    if not scopes.suffices(conf.scope(), needed="account:read"):
        yield _warning(
            "scope",
            "The requested scopes do not cover account:read: sipgate will refuse to show the account.",
            "Add account:read to OAUTH_SCOPE.",
        )


def _is_odd(value: str) -> bool:
    return bool(re.search(r"[\s'\"<>]", value)) or value.upper().startswith("YOUR_")


def _addresses() -> Iterator[Finding]:
    urls = {"AUTH_URL": conf.auth_url(), "TOKEN_URL": conf.token_url(), "SIPGATE_API_URL": conf.api_url()}
    unusable = {name for name, url in urls.items() if not _is_safe(url)}
    for name in sorted(unusable):
        yield _error(
            "addresses",
            f"{name} is no full https address: the client secret and tokens travel over it.",
            f"Remove {name}, then sipgate's own address is used; or start it with https://.",
        )
    auth, token = endpoints.realm_of(conf.auth_url()), endpoints.realm_of(conf.token_url())
    if auth != token:
        yield _error(
            "realm",
            f"AUTH_URL names the realm {auth or '(none)'}, TOKEN_URL the realm {token or '(none)'}.",
            "Use the realm of your client in both, or remove both.",
        )
    suffix = _client_suffix()
    if suffix and token and suffix != token:
        yield _error(
            "realm",
            f"CLIENT_ID ends in :{suffix}, but TOKEN_URL names the realm {token}: sipgate answers 'client not found'.",
            f"Put the realm {suffix} into AUTH_URL and TOKEN_URL, or remove both.",
        )
    elif auth == token:
        yield _ok(
            "realm",
            f"Both addresses name the realm {token or '(none)'}" + (", as the client id does." if suffix else "."),
        )
    if not unusable and any(endpoints.is_loopback(urlsplit(url).hostname) for url in urls.values()):
        yield _ok(
            "addresses", f"This site speaks with a stand-in on this machine ({probes.address_of(conf.token_url())})."
        )
    elif not unusable:
        yield _ok("addresses", "Authorization, token and API address are https.")
    if not conf.logout_url() and not conf.revoke_url():
        yield _warning(
            "addresses.logout",
            "There is no address to end sessions at: a disconnected link goes on at sipgate.",
            "Set LOGOUT_URL.",
        )


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and endpoints.is_loopback(parts.hostname))


def _client_suffix() -> str:
    try:
        suffix = authorization_server.client().client_id.rpartition(":")[2]
    except errors.Misconfigured:
        return ""
    return suffix if suffix in REALMS else ""


# --- redirect URI and the browser -------------------------------------------------------------------------------------


def _redirect_uri() -> Iterator[Finding]:
    uri = conf.redirect_uri()
    if not uri:
        yield _ok(
            "redirect_uri",
            "REDIRECT_URI is not set: allauth builds it from the host of each request.",
            "Set it, so that it can be checked.",
        )
        return
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment or parts.username:
        yield _error(
            "redirect_uri",
            "REDIRECT_URI is no full http(s) address without fragment and user name.",
            "Use something like https://example.org/oauth.",
        )
        return
    problems = [*_redirect_host(parts.hostname), *_redirect_port(parts), *_redirect_route(parts.path)]
    if parts.scheme == "http" and not endpoints.is_loopback(parts.hostname):
        problems.append(
            _error(
                "redirect_uri.scheme",
                "REDIRECT_URI starts with http:// but is not on this machine: codes travel in the clear.",
                "Use https://, here and in sipgate's console.",
            )
        )
    yield from problems
    if not problems:
        yield _ok("redirect_uri", f"{probes.address_of(uri)} fits host, port and routes of this site.")


def _redirect_host(host: str) -> Iterator[Finding]:
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    bracketed = f"[{host}]" if ":" in host else host
    if not validate_host(bracketed, allowed):
        yield _error(
            "redirect_uri.host",
            f"ALLOWED_HOSTS does not contain {host}, the host of REDIRECT_URI: the way back ends with HTTP 400.",
            f"Add {host} to ALLOWED_HOSTS.",
        )


def _redirect_port(parts: Any) -> Iterator[Finding]:
    port = getattr(settings, "PORT", None)
    if not isinstance(port, int) or not endpoints.is_loopback(parts.hostname):
        return  # behind a proxy the two differ by design
    named = parts.port or (443 if parts.scheme == "https" else 80)
    if named != port:
        yield _error(
            "redirect_uri.port",
            f"REDIRECT_URI names port {named}, but PORT is {port}.",
            "Make them equal, here and in sipgate's console.",
        )
        return
    yield from _port_use(parts, port)


def _port_use(parts: Any, port: int) -> Iterator[Finding]:
    """Find the port taken by another program, or not to be had without more rights."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        return
    except OSError as error:
        number = error.errno
    if number == errno.EACCES:
        yield _error(
            "port",
            f"Port {port} needs more rights than this user has.",
            "Use a port above 1023 in PORT and REDIRECT_URI.",
        )
    elif number == errno.EADDRINUSE and not _knows_callback(parts, port):
        yield _error(
            "port",
            f"Another program answers at port {port}: it does not know {parts.path}.",
            "Stop it, or choose another port in PORT and REDIRECT_URI.",
        )


def _knows_callback(parts: Any, port: int) -> bool:
    """Tell whether what listens there may be this site: it answers the callback's path with anything but *not found*."""
    headers = {"Host": parts.netloc}
    url = f"{parts.scheme}://127.0.0.1:{port}{parts.path}"
    try:
        response = http.session().get(url, headers=headers, timeout=probes.limits(3))  # type: ignore[arg-type]  # our adapter's type
    except requests.exceptions.SSLError:
        return True
    except requests.RequestException as error:
        return isinstance(error, requests.Timeout)
    return response.status_code not in {404, 405, 501}


def _redirect_route(path: str) -> Iterator[Finding]:
    callback = _resolved(path)
    if callback is views.oauth2_callback:
        return
    if _resolved(f"{path}/") is views.oauth2_callback or _resolved(path.rstrip("/")) is views.oauth2_callback:
        yield _error(
            "redirect_uri.path",
            f"The path {path} differs from the site's callback by a slash at its end.",
            "Write it the same way in both, and in sipgate's console.",
        )
        return
    what = "leads to another view" if callback else "leads nowhere on this site"
    yield _error(
        "redirect_uri.path",
        f"The path {path} of REDIRECT_URI {what}.",
        "Put *sipgate_provider.urls.callback_urlpatterns() first into the root URL configuration.",
    )


def _resolved(path: str) -> Any:
    try:
        return resolve(path).func
    except Resolver404:
        return None


def _cookies() -> Iterator[Finding]:
    """What makes a browser come back without the state it left with."""
    uri, problems = conf.redirect_uri(), []
    if str(getattr(settings, "SESSION_COOKIE_SAMESITE", "Lax")).lower() == "strict":
        problems.append(
            _error(
                "cookies.samesite",
                "SESSION_COOKIE_SAMESITE is Strict: a browser that returns from sipgate does not send it.",
                "Set it to Lax.",
            )
        )
    if uri.startswith("http://") and settings.SESSION_COOKIE_SECURE:
        make = _warning if endpoints.is_loopback(urlsplit(uri).hostname) else _error
        problems.append(
            make(
                "cookies.secure",
                "SESSION_COOKIE_SECURE is on but REDIRECT_URI is http: browsers do not send the session back.",
                "Use https, or switch it off on this machine.",
            )
        )
    if uri.startswith("https://") and not settings.SESSION_COOKIE_SECURE:
        problems.append(
            _warning("cookies.secure", "SESSION_COOKIE_SECURE is off although the site is https.", "Switch it on.")
        )
    if settings.SESSION_ENGINE.endswith(".cache") and _cache_is_per_process():
        problems.append(
            _error(
                "cookies.sessions",
                "Sessions lie in a cache that each process has for itself: sign-ins get lost between processes.",
                "Use database sessions, or a shared cache.",
            )
        )
    yield from problems
    if not problems:
        yield _ok("cookies", "The session survives the way to sipgate and back.")


# --- keys, journal, cache ---------------------------------------------------------------------------------------------


def _keys() -> Iterator[Finding]:
    try:
        ring = sealing.known_key_ids()
    except errors.Misconfigured:
        return  # a system check says so
    if not conf.token_keys():
        yield _ok(
            "keys",
            "Tokens are sealed with a key made from SECRET_KEY, as DEBUG allows.",
            "Set SIPGATE_TOKEN_KEYS before others use the site.",
        )
    elif len(set(ring)) < len(ring):
        yield _warning("keys", "SIPGATE_TOKEN_KEYS holds a key twice.", "Remove the second one.")
    else:
        yield _ok("keys", f"{len(ring)} {'key' if len(ring) == 1 else 'keys'}; {ring[0]} seals.")


def _used_keys() -> Iterator[Finding]:
    """Compare the ring with what rows and journal entries are sealed with."""
    try:
        ring = sealing.known_key_ids()
    except errors.Misconfigured:
        return
    used = reseal.keys_in_use()
    for key in set(used) - set(ring):
        if not SipgateToken.objects.using(database.alias()).filter(key_id=key).exclude(sealed=b"").exists():
            del used[key]  # revoked: nothing is sealed
    for key in (*_keys_of_revocations(), *_keys_of_journal()):
        used[key] = used.get(key, 0) + 1
    lost = sorted(set(used) - set(ring))
    if lost:
        yield _error(
            "keys.lost",
            f"{sum(used[key] for key in lost)} sealed values need keys that are not in SIPGATE_TOKEN_KEYS: {', '.join(lost)}.",
            "Add these keys again, behind the first, then run manage.py sipgate_reseal.",
        )
    unused = [key for key in dict.fromkeys(ring[1:]) if key not in used and key != ring[0]]
    if unused:
        yield _warning(
            "keys.unused",
            f"Nothing is sealed with these old keys any more: {', '.join(unused)}.",
            "Remove them from SIPGATE_TOKEN_KEYS.",
        )
    behind = sum(number for key, number in used.items() if key in ring[1:] and key != ring[0])
    if behind:
        yield _ok(
            "keys.behind",
            f"{behind} values are still sealed with an old key.",
            "Run manage.py sipgate_reseal, then remove it.",
        )


def _keys_of_revocations() -> Iterator[str]:
    rows = Revocation.objects.using(database.alias()).order_by().values_list("sealed", flat=True)
    return (sealing.key_id(bytes(sealed)) for sealed in rows[: statistics.COUNTED_UP_TO])


def _keys_of_journal() -> Iterator[str]:
    directory = conf.journal_directory()
    for path in directory.glob(f"*{journal.SUFFIX}") if directory is not None else ():
        try:
            with path.open("rb") as file:
                yield sealing.key_id(file.read(sealing.HEADER_BYTES))
        except OSError:
            continue  # another process has just taken it, or the journal has a finding of its own


def _journal() -> Iterator[Finding]:
    directory = conf.journal_directory()
    if directory is None:
        if not is_deployed():  # else a system check says so
            yield _ok("journal", "There is no rotation journal.", "Set SIPGATE_JOURNAL_DIR before others use the site.")
        return
    try:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"sipgate_doctor")
        waiting = journal.waiting()
        problem = "" if existing.is_dir() else "is no folder"
    except OSError as error:
        waiting, problem = 0, f"cannot be written ({error.strerror})"
    if problem:
        yield _error(
            "journal",
            f"The journal's folder {problem}: a rotated pair is lost if the database fails.",
            "Let this user write to SIPGATE_JOURNAL_DIR.",
        )
    elif waiting:
        yield _warning(
            "journal.waiting",
            f"{waiting} rotated pairs wait in the journal.",
            "Run manage.py sipgate_keepalive: it stores them.",
        )
    else:
        yield _ok("journal", "The journal can be written, and nothing waits in it.")


def _cache_is_per_process() -> bool:
    backend = str(settings.CACHES.get("default", {}).get("BACKEND", ""))
    return "locmem" in backend.lower() or "dummy" in backend.lower()


def _cache() -> Iterator[Finding]:
    key, value = f"sipgate_doctor.{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        cache.set(key, value, 30)
        kept = cache.get(key) == value
        cache.delete(key)
    except Exception as error:  # what a cache raises is its client library's own; there is no common base
        yield _error(
            "cache",
            f"The default cache does not answer ({type(error).__name__}).",
            "Check REDIS_URL, and that the cache runs.",
        )
        return
    if not kept:
        yield _warning(
            "cache",
            "The default cache does not keep what it is given: rate limits do not count.",
            "Configure a cache that does.",
        )
    elif _cache_is_per_process() and not is_deployed():  # elsewhere a system check says so
        yield _ok("cache", "The cache works; each process has its own, which is enough on this machine.")
    else:
        yield _ok("cache", "The cache keeps what it is given.")


# --- database and what lies in it -------------------------------------------------------------------------------------


def _database() -> list[Finding]:
    try:
        connection = connections[database.alias()]
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
        found = [*_database_mode(connection)]
        if pending:
            names = sorted({migration.app_label for migration, _backwards in pending})
            found.append(
                _error(
                    "database.migrations",
                    f"{len(pending)} migrations are not applied: {', '.join(names)}.",
                    "Run manage.py migrate.",
                )
            )
        if not any(migration.app_label in {"sipgate_provider", "socialaccount"} for migration, _backwards in pending):
            found += [*_used_keys(), *_clear_text(), *_pause(), *upkeep(timezone.now())]
    except DatabaseError as error:
        return [
            _error(
                "database",
                f"The database does not answer ({type(error).__name__}).",
                "Check DATABASE_URL, and that the database runs and lets this user in.",
            )
        ]
    return found


def _database_mode(connection: Any) -> Iterator[Finding]:
    name = connection.vendor
    if name == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode = str(cursor.fetchone()[0]).lower()
        if mode not in {"wal", "memory"}:
            yield _warning(
                "database.sqlite",
                f"SQLite runs in the mode {mode}: readers and the writer block each other.",
                "OPTIONS = {'init_command': 'PRAGMA journal_mode=WAL;'}.",
            )
        name = f"SQLite ({mode})"
        if connection.settings_dict.get("ATOMIC_REQUESTS") and not is_deployed():  # elsewhere a system check says so
            yield _warning(
                "database.atomic_requests",
                "ATOMIC_REQUESTS on SQLite: in a view that has written, tokens cannot be renewed.",
                "Switch it off, or use PostgreSQL.",
            )
    yield _ok("database", f"{name} answers.")


def _clear_text() -> Iterator[Finding]:
    number = SocialToken.objects.filter(account__provider=conf.PROVIDER_ID).count()
    if number:
        yield _warning(
            "clear_text",
            f"{number} of allauth's token rows hold sipgate's tokens in clear text.",
            "Switch SOCIALACCOUNT_STORE_TOKENS off and run manage.py sipgate_import_social_tokens.",
        )


def _pause() -> Iterator[Finding]:
    try:
        pause = pauses.pause(authorization_server.fingerprint(authorization_server.client()))
    except errors.Misconfigured:
        return  # the client has a finding of its own
    if pause is not None and pause.until > timezone.now():
        yield _error(
            "client.paused",
            f"sipgate refuses this client since {_when(pause.since)} ({pause.error_code}); renewals pause.",
            f"Correct {pause.setting}; with corrected credentials the pause is over at once.",
        )


def upkeep(
    now: datetime, known: statistics.Statistics | None = None, closer: statistics.Details | None = None
) -> list[Finding]:
    """Judge how the connections are: what a person has to look at.

    Raises:
        DatabaseError: there is nothing to judge.
    """
    known, closer = known or statistics.measure(now), closer or statistics.details(now)
    failing, refused = known.states[State.FAILING], known.states[State.MISCONFIGURED]
    found = []
    if refused:
        found.append(
            _error(
                "connections.misconfigured",
                f"{refused} connections wait because sipgate refused this site's client.",
                "Correct CLIENT_ID and CLIENT_SECRET; the next use or sipgate_keepalive mends them.",
            )
        )
    since = closer.oldest_failing_since
    if failing and since is not None and now - since > LONG_FAILING:
        found.append(
            _warning(
                "connections.failing",
                f"{failing} connections cannot be renewed, the first since {_when(since)}.",
                "See their last error in the admin; if it is all of them, look whether sipgate can be reached.",
            )
        )
    if closer.overdue:
        found.append(
            _warning(
                "connections.overdue",
                f"{closer.overdue} links should have been renewed by upkeep more than a day ago.",
                "Let manage.py sipgate_keepalive run regularly.",
            )
        )
    if known.revocations and known.oldest_revocation and now - known.oldest_revocation > OLD_REVOCATION:
        found.append(
            _warning(
                "revocations.old",
                f"{known.revocations} sessions are still to be ended at sipgate, the first since {_when(known.oldest_revocation)}.",
                "Let manage.py sipgate_keepalive run; see the last error of the pending revocations in the admin.",
            )
        )
    if not found:
        waiting = known.states[State.NEEDS_SIGN_IN]
        people = f"; {waiting} wait for their person" if waiting else ""
        found.append(_ok("connections", f"{known.connections} connections, none in trouble{people}."))
    return found


def _when(moment: datetime) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M")


# --- sipgate ----------------------------------------------------------------------------------------------------------


def _sipgate(timeout: float) -> list[Finding]:
    """Ask the three endpoints at once, without holding a database connection."""
    try:
        client = authorization_server.client()
    except errors.Misconfigured:
        return []  # there is nothing to ask with, and a finding says so
    database.release_connections()
    questions: list[Callable[[], Answer]] = [
        partial(probes.token, client, timeout=timeout),
        partial(probes.api, conf.api_url(), timeout=timeout),
    ]
    if conf.redirect_uri():
        questions.insert(0, partial(_ask_authorization, client, timeout))
    with ThreadPoolExecutor(len(questions), thread_name_prefix="sipgate-doctor") as pool:
        answers = [future.result() for future in [pool.submit(question) for question in questions]]
    return [*(finding for answer in answers for finding in _judged(answer)), *_clock(answers)]


def _ask_authorization(client: oauth.Client, timeout: float) -> Answer:
    return probes.authorization(
        conf.auth_url(),
        client_id=client.client_id,
        redirect_uri=conf.redirect_uri(),
        scope=" ".join(conf.scope()),
        timeout=timeout,
    )


SETTINGS = {"authorization": "AUTH_URL", "token": "TOKEN_URL", "API": "SIPGATE_API_URL (or TEST_API_ENDPOINT)"}
CONSOLE = "sipgate's console (Clients)"
JUDGEMENTS: dict[Verdict, tuple[Severity, str, str]] = {
    Verdict.CLIENT_ID: (
        Severity.ERROR,
        "does not know this client ('client not found'){detail}.",
        f"Compare CLIENT_ID with {CONSOLE}, with its suffix, and its realm with AUTH_URL and TOKEN_URL.",
    ),
    Verdict.CLIENT_SECRET: (
        Severity.ERROR,
        "refuses the client's credentials{detail}.",
        f"Compare CLIENT_SECRET, and CLIENT_ID, with {CONSOLE}.",
    ),
    Verdict.REDIRECT_URI: (
        Severity.ERROR,
        "does not accept REDIRECT_URI ('invalid parameter: redirect_uri').",
        f"Enter it in {CONSOLE} exactly as it is set here: {{redirect_uri}}",
    ),
    Verdict.SCOPE: (
        Severity.ERROR,
        "refuses a requested scope{detail}.",
        "Correct OAUTH_SCOPE; the scopes are separated by blanks.",
    ),
    Verdict.ADDRESS: (
        Severity.ERROR,
        "is not at this address{status}{detail}.",
        "Correct {setting}, or remove it: then sipgate's own address is used.",
    ),
    Verdict.REFUSED: (
        Severity.ERROR,
        "refuses to answer{status}{detail}.",
        f"Compare the client's settings with {CONSOLE}.",
    ),
    Verdict.UNAVAILABLE: (
        Severity.ERROR,
        "is out of order{status}{detail}.",
        "This is sipgate's to mend: try again later.",
    ),
    Verdict.BUSY: (
        Severity.WARNING,
        "asks for fewer requests{status}.",
        "Try again later; if it stays, give sipgate_keepalive a smaller --rate.",
    ),
    Verdict.ODD: (
        Severity.ERROR,
        "answers what sipgate would not{status}{detail}.",
        "Correct {setting}, or look for a proxy in between that answers itself.",
    ),
    Verdict.DNS: (
        Severity.ERROR,
        "has a name that is not known here{detail}.",
        "Correct the host in {setting}, or this machine's name server.",
    ),
    Verdict.NO_LISTENER: (
        Severity.ERROR,
        "refuses connections: nothing listens there.",
        "Correct host and port in {setting}, or the firewall; a local sandbox has to be started.",
    ),
    Verdict.TIMEOUT: (
        Severity.ERROR,
        "did not answer within {seconds:.0f} s.",
        "Look whether a firewall lets this machine out, or whether a proxy is needed (HTTPS_PROXY); else try again later.",
    ),
    Verdict.CERTIFICATE: (
        Severity.ERROR,
        "shows a certificate that is not trusted{detail}.",
        "Bring this machine's certificates up to date; behind an inspecting proxy, put its authority into REQUESTS_CA_BUNDLE.",
    ),
    Verdict.TLS: (
        Severity.ERROR,
        "does not speak TLS as it should{detail}.",
        "Correct scheme and port in {setting}, or look for a proxy in between.",
    ),
    Verdict.PROXY: (
        Severity.ERROR,
        "cannot be reached through the proxy{detail}.",
        "Correct HTTPS_PROXY or NO_PROXY in the environment.",
    ),
    Verdict.BROKEN: (
        Severity.ERROR,
        "ends the connection without an answer{detail}.",
        "Look at firewall and proxy in between; else try again later.",
    ),
}


def _judged(answer: Answer) -> Iterator[Finding]:
    check = f"sipgate.{answer.endpoint.lower()}"
    name = f"sipgate's {answer.endpoint} endpoint" if answer.endpoint != "API" else "sipgate's API"
    if answer.verdict is Verdict.FINE:
        yield _ok(check, f"{name} answers as it should, in {answer.seconds * 1000:.0f} ms.")
        if answer.seconds > SLOW:
            yield _warning(
                f"{check}.slow",
                f"{name} is slow: {answer.seconds:.1f} s.",
                "Look at the network; pages show the last known data meanwhile.",
            )
        return
    severity, found, cure = JUDGEMENTS[answer.verdict]
    words = {
        "detail": f" ({answer.detail})" if answer.detail else "",
        "status": f" (HTTP {answer.status})" if answer.status else "",
        "setting": SETTINGS[answer.endpoint],
        "seconds": answer.seconds,
        "redirect_uri": probes.address_of(conf.redirect_uri()),
    }
    yield Finding(check=check, severity=severity, found=f"{name} {found.format(**words)}", cure=cure.format(**words))


def _clock(answers: Iterable[Answer]) -> Iterator[Finding]:
    told = [answer.clock_ahead for answer in answers if answer.clock_ahead is not None]
    if not told:
        return
    # The smallest difference: one odd server in between must not raise an alarm.
    ahead = min(told, key=abs)
    if abs(ahead) <= CLOCK_WARNING:
        yield _ok("clock", "This machine's clock agrees with sipgate's.")
        return
    make = _error if abs(ahead) > CLOCK_ERROR else _warning
    yield make(
        "clock",
        f"This machine's clock is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} sipgate's: tokens seem valid for too long, or not at all.",
        "Let the system keep its time (NTP).",
    )

"""Reads and checks the environment: for a value that cannot work, one sentence names the variable.

python-dotenv loads ``.env`` beside manage.py, as in sipgate's own example: quotes, ``export``,
comments and ``${NAME}`` mean the same, and the environment of the process wins. python-decouple
casts. On a loopback address, the site makes two secrets once and keeps them in ``var/local.env``,
so that a developer need not set them.
"""

from __future__ import annotations

import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import dj_email_url
from decouple import Choices, Config, RepositoryEmpty, strtobool
from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values, load_dotenv

from sipgate_provider.addresses import is_loopback, realm_of_client

BASE_DIR = Path(__file__).resolve().parent.parent
"""The folder of manage.py."""
NAMES = frozenset(
    """
    CLIENT_ID CLIENT_SECRET OAUTH_SCOPE REDIRECT_URI PORT AUTH_URL TOKEN_URL TEST_API_ENDPOINT
    SIPGATE_API_URL SIPGATE_LOGOUT_URL SIPGATE_REVOKE_URL SIPGATE_TOKEN_KEYS SIPGATE_JOURNAL_DIR
    SIPGATE_ACCOUNT_MAX_AGE_SECONDS SIPGATE_HISTORY_DAYS SANDBOX_PORT SECRET_KEY DEBUG ALLOWED_HOSTS
    BEHIND_PROXY DATABASE_URL DATABASE_POOL EMAIL_URL DEFAULT_FROM_EMAIL ADMINS
    TIME_ZONE STATIC_ROOT HSTS_SECONDS LOG_LEVEL LOG_FORMAT
    METRICS_TOKEN
    """.split()  # noqa: SIM905  # a list of texts would hide the names
)
PLACEHOLDERS = frozenset({"YOUR_CLIENT_ID", "YOUR_CLIENT_SECRET", "YOUR_REDIRECT_URI"})
"""From the .env of sipgate's own example. They count as not set."""
QUOTES = "\"'“”„‘’"
"""Word processors write some of them, and ``docker run --env-file`` leaves them in the value."""
KEYCLOAK = "protocol/openid-connect"

_config = Config(RepositoryEmpty())  # it reads os.environ


def load() -> None:
    """Load ``.env``, if there is one, into the environment of this process."""
    file = BASE_DIR / ".env"
    try:
        # An editor's byte order mark would become a part of the first name.
        load_dotenv(file, encoding="utf-8-sig")
        written = dotenv_values(file, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        # Without the cause: a decoding error contains the whole file.
        raise ImproperlyConfigured(
            f".env cannot be read ({type(error).__name__}): "
            "it must be a UTF-8 text file that this user may read."
        ) from None
    for name in written.keys() - NAMES:
        for meant in get_close_matches(name.upper(), NAMES, n=1, cutoff=0.75):
            raise ImproperlyConfigured(
                f"{name} in .env is not a variable of this site; did you mean {meant}?"
            )


def read(name: str, default: str = "", cast: Callable[[str], Any] = str, must: str = "") -> Any:
    """Return a variable, or ``default`` if it is empty or a placeholder of sipgate's example.

    Args:
        cast: raises ``ValueError`` or ``KeyError`` for a value that cannot work. An empty text is
            not cast.
        must: what the error then says after the variable's name; it does not quote the value.
    """
    value = str(_config(name, default="")).strip()
    if not value or value in PLACEHOLDERS:
        value = default
    elif value[0] in QUOTES and value[-1] in QUOTES:
        raise ImproperlyConfigured(f"{name} contains its quotes: remove them.")
    try:
        return cast(value) if value else ""
    except (ValueError, KeyError):
        # Without the cause: parsers quote parts of the value, perhaps of a password.
        raise ImproperlyConfigured(f"{name} must {must}.") from None


def flag(name: str) -> bool:
    """Return whether a variable is on; by default it is off."""
    return bool(read(name, "off", strtobool, "be on or off"))


def number(name: str, default: int, *, low: int, high: int) -> int:
    def cast(value: str) -> int:
        if not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return int(read(name, str(default), cast, f"be a whole number from {low} to {high}"))


def choice(name: str, *known: str) -> str:
    """Return one of the ``known`` values; the first by default."""
    return str(read(name, known[0], Choices(known), f"be one of {', '.join(known)}"))


def words(name: str, default: str = "", *, each: str = r"\S+", such_as: str = "") -> list[str]:
    """Return the parts of a list, which blanks or commas separate; ``each`` is their pattern."""

    def cast(value: str) -> list[str]:
        found = value.replace(",", " ").split()
        if not all(re.fullmatch(each, part, re.ASCII) for part in found):
            raise ValueError
        return found

    return list(read(name, default, cast, f"be a list such as {such_as}"))


def path(name: str, default: Path) -> str | None:
    """Return a folder, None for ``off``. A relative path begins at the folder of manage.py."""
    value = read(name, str(default))
    return None if value.lower() == "off" else str(BASE_DIR / value)


def url(name: str, default: str = "", *, may_be_off: bool = False) -> str:
    """Return an absolute URL, in plain http only if it names this machine."""

    def cast(value: str) -> str:
        if may_be_off and value.lower() == "off":
            return "off"
        parts = urlsplit(value)
        usable = parts.hostname and not parts.username and not parts.fragment and value.isascii()
        if not usable or parts.port == 0 or re.search(r'[\s"<>\\]', value):
            raise ValueError
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ImproperlyConfigured(
                f"{name} must start with https://: over plain http, others could read the client "
                "secret and the tokens."
            )
        return value

    return str(read(name, default, cast, "be a full address such as https://example.org/path"))


def client() -> tuple[str, str]:
    """Return id and secret of the client at sipgate; both are empty if neither is set."""

    must = "be copied from console.sipgate.com again: it contains an impossible character"
    found = {name: read(name, "", at_least(1), must) for name in ("CLIENT_ID", "CLIENT_SECRET")}
    missing = [name for name, value in found.items() if not value]
    if len(missing) == 1:
        raise ImproperlyConfigured(
            f"{missing[0]} is not set. Copy Id and Secret of your client from "
            "console.sipgate.com, or set neither to use the local sandbox."
        )
    return found["CLIENT_ID"], found["CLIENT_SECRET"]


class Address(NamedTuple):
    """Where the site is reached: what ``REDIRECT_URI`` and ``PORT`` say together."""

    redirect_uri: str
    port: int
    host: str
    is_https: bool
    is_loopback: bool


def address(*, sandbox: bool) -> Address:
    """Return the site's address; with the sandbox it must be on this machine."""
    given, behind_proxy = url("REDIRECT_URI"), flag("BEHIND_PROXY")
    is_local = is_loopback(urlsplit(given).hostname)
    port = number("PORT", _port(given) if is_local else 8080, low=1, high=65535)
    redirect_uri = given or f"http://localhost:{port}/oauth"
    parts = urlsplit(redirect_uri)
    found = Address(
        redirect_uri=redirect_uri,
        port=port,
        host=parts.hostname or "",
        is_https=parts.scheme == "https",
        is_loopback=is_loopback(parts.hostname),
    )
    wrong = ""
    if parts.path in {"", "/"} or parts.query:
        wrong = "must have a path and no query, such as http://localhost:8080/oauth"
    elif sandbox and not found.is_loopback:
        wrong = "names another machine, but the sandbox serves only this one: set CLIENT_ID"
    elif found.is_loopback and found.is_https and not behind_proxy:
        wrong = (
            "starts with https:// but this site serves plain http: write http:// on this machine, "
            "or set BEHIND_PROXY=on if a reverse proxy terminates TLS"
        )
    elif found.is_loopback and _port(redirect_uri) != port and not behind_proxy:
        wrong = (
            f"names port {_port(redirect_uri)} but PORT is {port}: make them equal, here and in "
            "sipgate's console"
        )
    if wrong:
        raise ImproperlyConfigured(f"REDIRECT_URI {wrong}.")
    return found


def _port(address: str) -> int:
    parts = urlsplit(address)
    return parts.port or (443 if parts.scheme == "https" else 80)


def endpoints(client_id: str) -> tuple[str, str, str]:
    """Return the addresses of sipgate: authorization endpoint, token endpoint, REST API."""
    realm = realm_of_client(client_id) or "third-party"
    found = {}
    for name, end in (("AUTH_URL", "auth"), ("TOKEN_URL", "token")):
        path = f"/realms/{realm}/{KEYCLOAK}/{end}"
        found[name] = url(name, f"https://login.sipgate.com/auth{path}")
        if not found[name].endswith(path):
            raise ImproperlyConfigured(
                f"{name} must end in {path}, with the realm of CLIENT_ID. Remove it to use "
                "sipgate's own address."
            )
    account = url("TEST_API_ENDPOINT", "https://api.sipgate.com/v2/account").rstrip("/")
    if not account.endswith("/account"):
        raise ImproperlyConfigured(
            "TEST_API_ENDPOINT must be the address of the account resource, such as "
            "https://api.sipgate.com/v2/account."
        )
    api = url("SIPGATE_API_URL", account.removesuffix("/account")).rstrip("/")
    return found["AUTH_URL"], found["TOKEN_URL"], api


def mail() -> dict[str, Any]:
    """Return Django's settings for the mail server."""

    def cast(value: str) -> dict[str, Any]:
        found = dict(dj_email_url.parse(value))
        found["EMAIL_BACKEND"]  # missing if the scheme is unknown
        return found

    return dict(read("EMAIL_URL", "console:", cast, "be like submission://user:password@host:587"))


def at_least(length: int) -> Callable[[str], str]:
    """Return a cast that accepts at least ``length`` visible ASCII characters."""

    def cast(value: str) -> str:
        if len(value) < length or not re.fullmatch(r"[!-~]+", value):
            raise ValueError
        return value

    return cast


def secret(name: str, *, local: Path | None) -> str:
    """Return a secret of the site: 32 characters or more.

    Args:
        local: the file for generated secrets, if this site serves only this machine.
    """
    value = str(read(name, "", at_least(32), "have at least 32 characters, without blanks"))
    if value:
        return value
    if local is None:
        raise ImproperlyConfigured(f"{name} is not set. Use a long random value, kept secret.")
    try:
        _make_secrets(local)
        return str(dotenv_values(local)[name])
    except (OSError, KeyError) as error:
        raise ImproperlyConfigured(
            f"{name} is not set, and the site cannot keep one in {local} ({error!r}): set it."
        ) from None


def _make_secrets(file: Path) -> None:
    if file.exists():
        return
    key = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    text = f"SECRET_KEY={secrets.token_urlsafe(50)}\nSIPGATE_TOKEN_KEYS={key}\n"
    draft = file.with_name(f".local.{secrets.token_hex(4)}.env")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    with suppress(FileExistsError):
        os.link(draft, file)  # complete or not at all: processes that start at once share one file
    draft.unlink()

"""Reads the environment and ``.env``. Every mistake becomes one sentence that names the variable.

Order of precedence: the process environment, then ``.env`` beside manage.py, then (only on a loopback address)
``var/local.env``, which is written once and holds two secrets, so that a developer need not set them.
python-dotenv parses ``.env``, as it does in sipgate's own example: quotes, ``export``, comments and ``${NAME}`` mean
the same.

Only ``settings`` imports this module.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import io
import os
import re
import secrets
import unicodedata
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import dj_email_url
from decouple import Config, UndefinedValueError
from django.core.exceptions import ImproperlyConfigured
from dotenv.main import resolve_variables
from dotenv.parser import Binding, parse_stream

from sipgate_provider.endpoints import is_loopback

T = TypeVar("T")

NAMES = frozenset(
    [
        "CLIENT_ID",
        "CLIENT_SECRET",
        "OAUTH_SCOPE",
        "REDIRECT_URI",
        "PORT",
        "AUTH_URL",
        "TOKEN_URL",
        "TEST_API_ENDPOINT",
        "SIPGATE_API_URL",
        "SIPGATE_LOGOUT_URL",
        "SIPGATE_REVOKE_URL",
        "SANDBOX_PORT",
        "SANDBOX_URL",
        "SECRET_KEY",
        "DEBUG",
        "SIPGATE_TOKEN_KEYS",
        "SIPGATE_JOURNAL_DIR",
        "ALLOWED_HOSTS",
        "BEHIND_PROXY",
        "DATABASE_URL",
        "DATABASE_POOL",
        "ATOMIC_REQUESTS",
        "EMAIL_URL",
        "DEFAULT_FROM_EMAIL",
        "ADMINS",
        "TIME_ZONE",
        "STATIC_ROOT",
        "HSTS_SECONDS",
        "HSTS_SUBDOMAINS",
        "HSTS_PRELOAD",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "METRICS_TOKEN",
        "SIPGATE_ACCOUNT_MAX_AGE_SECONDS",
        "SIPGATE_HISTORY_DAYS",
    ]
)
"""The variables of this site. Other names in ``.env`` are reported, because a misspelt one has no effect."""

OF_THE_PROCESS = frozenset(
    [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",
        "DJANGO_SETTINGS_MODULE",
        "PROMETHEUS_MULTIPROC_DIR",
        "WEB_CONCURRENCY",
        "GUNICORN_CMD_ARGS",
    ]
)
"""Variables that libraries read from the environment of the process, where ``.env`` does not reach."""

PLACEHOLDERS = frozenset({"YOUR_CLIENT_ID", "YOUR_CLIENT_SECRET", "YOUR_REDIRECT_URI"})
"""Placeholders in the .env of sipgate's own example. They count as not set."""

QUOTES = "\"'“”„‟‘’‚‛«»‹›"
"""Quotes at both ends of a value come from a word processor, or from a tool that does not remove them."""

TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
FALSE = frozenset({"0", "false", "no", "off", "f", "n", ""})


def _bindings(path: Path) -> list[Binding]:
    """Return the statements of an env file as python-dotenv reads them; none if there is no file."""
    try:
        # An editor's byte order mark would become a part of the first name.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        # Without the cause, because a decoding error contains the whole file.
        raise ImproperlyConfigured(
            f"{path.name} cannot be read ({type(error).__name__}): it must be a UTF-8 text file, readable by this user."
        ) from None
    return list(parse_stream(io.StringIO(text)))


def _values(bindings: Iterable[Binding]) -> dict[str, str]:
    # override=False is what load_dotenv() does by default: in ${NAME} the environment wins over the file.
    named = [(binding.key, binding.value) for binding in bindings if binding.key is not None]
    return {
        name: value
        for name, value in resolve_variables(named, override=False).items()
        if value is not None
    }


class Env:
    """Typed access to the variables.

    Args:
        directory: the folder of manage.py; ``.env`` is looked for there and nowhere else.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.local_file = directory / "var" / "local.env"
        self._statements = _bindings(directory / ".env")
        self._config = Config(_values(self._statements))
        for line, name, statement in self._numbered():
            if statement.error and name in NAMES:
                raise ImproperlyConfigured(
                    f".env line {line} is not understood: write {name}=value, with straight quotes at both ends or "
                    "none, and nothing behind."
                )

    def text(self, name: str, default: str = "") -> str:
        """Return the variable, stripped; an empty one and a placeholder of sipgate's example count as not set."""
        try:
            value = str(self._config(name)).strip()
        except UndefinedValueError:
            return default
        if not value or value in PLACEHOLDERS:
            return default
        if len(value) > 1 and value[0] in QUOTES and value[-1] in QUOTES:
            raise ImproperlyConfigured(
                f"{name} has quotes ({value[0]}…{value[-1]}) that became a part of it: remove them."
            )
        for character in value:
            if unicodedata.category(character) in {"Cc", "Cf"} and character not in "\t\r\n":
                raise ImproperlyConfigured(
                    f"{name} contains an invisible character ({_described(character)}): type the value again."
                )
        return value

    def credential(self, name: str) -> str:
        """Return an id or a secret from sipgate's console: visible ASCII characters, no blanks."""
        value = self.text(name)
        for character in value:
            if not "!" <= character <= "~":
                raise ImproperlyConfigured(
                    f"{name} contains a character that cannot be meant ({_described(character)}): "
                    "copy the value from console.sipgate.com again."
                )
        return value

    def remarks(self) -> list[str]:
        """Return one sentence for each statement in ``.env`` that has no effect. It does not contain the value."""
        return [remark for _meant, remark in self._odd_statements()]

    def hint(self, name: str) -> str:
        """Return the remark on a statement that may have been meant to set ``name``, after a blank; or nothing."""
        return next((f" {remark}" for meant, remark in self._odd_statements() if meant == name), "")

    def _numbered(self) -> Iterator[tuple[int, str, Binding]]:
        """Yield each statement with its line and the first word in it."""
        for statement in self._statements:
            text = statement.original.string
            # python-dotenv includes the blank lines before it in a statement.
            blank = text[: len(text) - len(text.lstrip())].count("\n")
            word = re.match(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)", text)
            yield statement.original.line + blank, word[1] if word else "", statement

    def _odd_statements(self) -> list[tuple[str, str]]:
        found = []
        for line, name, statement in self._numbered():
            meant = _meant(name)
            if statement.error or (statement.key and statement.value is None):
                found.append(
                    (meant, f".env line {line} has no effect: write {meant or 'NAME'}=value.")
                )
            elif name.upper() in OF_THE_PROCESS:
                found.append(
                    (
                        "",
                        f".env line {line}: {name} belongs into the environment of the process, not into .env.",
                    )
                )
            elif statement.key and statement.key not in NAMES:
                cure = f"did you mean {meant}?" if meant else ".env.example lists them."
                found.append(
                    (
                        meant,
                        f".env line {line}: {statement.key} is not a variable of this site; {cure}",
                    )
                )
        return found

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.text(name, "on" if default else "off").lower()
        if value in TRUE:
            return True
        if value in FALSE:
            return False
        raise ImproperlyConfigured(f"{name} must be on or off.")

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.text(name, str(default))
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ImproperlyConfigured(f"{name} must be a whole number from {low} to {high}.")
        return number

    def words(self, name: str, default: str = "", *, separator: str | None = None) -> list[str]:
        """Return the parts of a list; commas and blanks both separate unless ``separator`` is given."""
        value = self.text(name, default)
        parts = value.split(separator) if separator else value.replace(",", " ").split()
        return [part.strip() for part in parts if part.strip()]

    def url(self, name: str, default: str = "", *, may_be_off: bool = False) -> str:
        """Return an absolute http(s) URL without fragment and user name, or ``off`` if ``may_be_off``.

        Plain http is accepted for this machine only, because client secret and tokens are sent to these URLs.
        """
        value = self.text(name, default)
        if not value:
            return ""
        if may_be_off and value.lower() == "off":
            return "off"
        parts = split_url(name, value)
        if parts.scheme == "http" and _is_private_address(parts.hostname or ""):
            raise ImproperlyConfigured(
                f"{name} names an address of this machine or network: use localhost, or a host name with https://."
            )
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ImproperlyConfigured(
                f"{name} must start with https://: over plain http the client secret and tokens could be read."
            )
        return value

    def parsed(self, name: str, default: str, parse: Callable[[str], T], expected: str) -> T:
        """Return ``parse(value)``. If the parser rejects the value, the error does not quote it."""
        try:
            return parse(self.text(name, default))
        except (ValueError, KeyError):
            # Without the cause, because parsers quote parts of the value, perhaps of a password.
            raise ImproperlyConfigured(
                f"{name} cannot be understood; expected {expected}."
            ) from None

    def folder(self, name: str, default: Path) -> Path:
        """Return an absolute path. A relative one is relative to the folder of manage.py."""
        path = self.directory / self.text(name, str(default))
        with contextlib.suppress(
            OSError
        ):  # the system checks report a folder that this user cannot read
            if path.exists() and not path.is_dir():
                raise ImproperlyConfigured(f"{name} must name a folder, but a file has this name.")
        return path

    def addresses(self, name: str) -> list[str]:
        """Return e-mail addresses."""
        found = self.words(name)
        if not all(re.fullmatch(r"[^@\s]+@[^@\s]+", address) for address in found):
            raise ImproperlyConfigured(f"{name} must hold e-mail addresses, separated by blanks.")
        return found

    def hosts(self, name: str) -> list[str]:
        """Return host names in the form of ``ALLOWED_HOSTS``: without scheme, port and path."""
        found = self.words(name)
        if not all(
            re.fullmatch(r"\.?[\w.-]+|\[[0-9A-Fa-f:.]+\]", host, re.ASCII) for host in found
        ):
            raise ImproperlyConfigured(
                f"{name} must hold host names only, such as crm.example.org, without https://, port and path."
            )
        return found

    def scopes(self, name: str, default: str) -> list[str]:
        """Return names of scopes as OAuth allows them (RFC 6749, section 3.3)."""
        found = self.words(name, default)
        if not all(re.fullmatch(r"[!#-\[\]-~]+", word) for word in found):
            raise ImproperlyConfigured(
                f"{name} holds a name that no scope can have: expected something like account:read users:read."
            )
        return found

    def local_secret(self, name: str) -> str:
        """Return a secret of this machine, which is made at first use and kept in ``var/local.env`` (mode 0600)."""
        if not self.local_file.exists():
            self._write_local_secrets()
        value = _values(_bindings(self.local_file)).get(name, "")
        if not value:
            raise ImproperlyConfigured(
                f"{self.local_file.name} has no {name}: delete the file, or set {name} in .env."
            )
        return value

    def _write_local_secrets(self) -> None:
        # A hard link appears complete or not at all, and fails if another process was first. So all get the same
        # secrets.
        lines = f"SECRET_KEY={secrets.token_urlsafe(50)}\nSIPGATE_TOKEN_KEYS={new_token_key()}\n"
        draft = self.local_file.with_name(f".local.{os.getpid()}.env")
        try:
            self.local_file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(
                os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(lines)
            with contextlib.suppress(FileExistsError):
                os.link(draft, self.local_file)
            draft.unlink()
        except OSError as error:
            raise ImproperlyConfigured(
                f"SECRET_KEY and SIPGATE_TOKEN_KEYS are not set, and generated ones cannot be kept in var/ "
                f"({error.strerror}): set both."
            ) from error


def _described(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, 'CONTROL CHARACTER')}"


def _meant(name: str) -> str:
    """Return the variable with the most similar name, or nothing."""
    return next(
        iter(difflib.get_close_matches(name.upper().replace("-", "_"), NAMES, n=1, cutoff=0.75)), ""
    )


def _is_private_address(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not address.is_loopback and (address.is_unspecified or address.is_private)


def split_url(name: str, value: str) -> SplitResult:
    """Split an absolute http(s) URL or raise ``ImproperlyConfigured``."""
    try:
        parts = urlsplit(value)
        usable = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        )
    except ValueError:
        usable = False
    if (
        not usable
        or parts.fragment
        or parts.username
        or any(c.isspace() or c in '"<>\\' for c in value)
    ):
        raise ImproperlyConfigured(
            f"{name} must be a full address such as https://example.org/path, without quotes, blanks or a fragment."
        )
    if not parts.netloc.isascii():
        # Browsers ask for the ASCII form: every page would be answered with "Bad Request".
        raise ImproperlyConfigured(
            f"{name} must name its host in ASCII, such as xn--mnchen-3ya.example for münchen.example."
        )
    return parts


def mail(value: str) -> dict[str, Any]:
    """Return Django's settings for a mail URL; ``smtp+tls`` is another name of ``submission``.

    Raises:
        ValueError: nothing is known of its scheme, or a part of it is odd.
    """
    scheme, colon, rest = value.partition(":")
    known = {"smtp+tls": "submission"}.get(scheme, scheme) + colon + rest
    settings: dict[str, Any] = dj_email_url.parse(known)
    if "EMAIL_BACKEND" not in settings:
        raise ValueError("unknown scheme")
    return settings


def sender(value: str) -> str:
    """Return the sender of mails. Raises ``ValueError`` if there is no address in it."""
    if "@" not in value:
        raise ValueError("no address")
    return value


def time_zone(name: str) -> str:
    """Return ``name`` if it is a time zone of this system. Raises ``ValueError``."""
    try:
        return zoneinfo.ZoneInfo(name).key
    except OSError as error:  # a folder of zones
        raise ValueError("no time zone") from error


def new_token_key() -> str:
    """Return a fresh entry for SIPGATE_TOKEN_KEYS: 32 random bytes, URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")

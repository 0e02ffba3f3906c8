"""Reads the environment and ``.env``; every mistake becomes one sentence that names the variable.

Order of precedence: the process environment, then ``.env`` beside manage.py, then (only on a loopback address)
``var/local.env``, which is written once and holds the two secrets that a laptop should not have to think about.

Only ``settings`` imports this module.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import dj_email_url
from decouple import Config, RepositoryEnv, UndefinedValueError
from django.core.exceptions import ImproperlyConfigured

from sipgate_provider.endpoints import is_loopback

T = TypeVar("T")

PLACEHOLDERS = frozenset({"YOUR_CLIENT_ID", "YOUR_CLIENT_SECRET", "YOUR_REDIRECT_URI"})
"""What sipgate's own example ships in its .env: present, but not a value."""

TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
FALSE = frozenset({"0", "false", "no", "off", "f", "n", ""})


class Files(Mapping[str, str]):
    """The values of several env files as one python-decouple repository; the first file that has a key wins."""

    def __init__(self, *paths: Path) -> None:
        self._values: dict[str, str] = {}
        for path in reversed(paths):
            if path.is_file():
                self._values |= _values_of(path)

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _values_of(path: Path) -> dict[str, str]:
    try:
        # An editor's byte order mark would become a part of the first name.
        return dict(RepositoryEnv(str(path), encoding="utf-8-sig").data)
    except (OSError, UnicodeDecodeError) as error:
        # Without the cause: a decoding error carries the whole file.
        raise ImproperlyConfigured(
            f"{path.name} cannot be read ({type(error).__name__}): it must be UTF-8 text, readable by this user."
        ) from None


class Env:
    """Typed access to the variables.

    Args:
        directory: the folder of manage.py; ``.env`` is looked for there and nowhere else.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.local_file = directory / "var" / "local.env"
        self._files = Files(directory / ".env")
        self._config = Config(self._files)

    def text(self, name: str, default: str = "") -> str:
        """Return the variable, stripped; an empty one and a placeholder of sipgate's example count as not set."""
        try:
            value = str(self._config(name)).strip()
        except UndefinedValueError:
            return default
        return default if not value or value in PLACEHOLDERS else value

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

    def url(self, name: str, default: str = "") -> str:
        """Return an absolute http(s) URL without fragment and user name.

        Plain http is accepted for this machine only: client secret and tokens travel over these URLs.
        """
        value = self.text(name, default)
        if not value:
            return ""
        parts = split_url(name, value)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ImproperlyConfigured(
                f"{name} must start with https://: over plain http the client secret and tokens could be read."
            )
        return value

    def parsed(self, name: str, default: str, parse: Callable[[str], T], expected: str) -> T:
        """Return ``parse(value)``; whatever the parser rejects becomes a sentence that does not quote the value."""
        try:
            return parse(self.text(name, default))
        except (ValueError, KeyError):
            # Without the cause: parsers quote, and what they quote may be a piece of a password.
            raise ImproperlyConfigured(f"{name} cannot be understood; expected {expected}.") from None

    def local_secret(self, name: str) -> str:
        """Return a secret of this laptop: made at first use, kept in ``var/local.env`` (mode 0600)."""
        if not self.local_file.exists():
            self._write_local_secrets()
        value = Files(self.local_file).get(name, "")
        if not value:
            raise ImproperlyConfigured(f"{self.local_file.name} has no {name}: delete the file, or set {name} in .env.")
        return value

    def _write_local_secrets(self) -> None:
        # A hard link appears whole or not at all and fails if another process was first: all end with the same secrets.
        lines = f"SECRET_KEY={secrets.token_urlsafe(50)}\nSIPGATE_TOKEN_KEYS={new_token_key()}\n"
        draft = self.local_file.with_name(f".local.{os.getpid()}.env")
        try:
            self.local_file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(lines)
            with contextlib.suppress(FileExistsError):
                os.link(draft, self.local_file)
            draft.unlink()
        except OSError as error:
            raise ImproperlyConfigured(
                f"SECRET_KEY is not set and a generated one cannot be kept in var/ ({error.strerror}). Set SECRET_KEY."
            ) from error


def split_url(name: str, value: str) -> SplitResult:
    """Split an absolute http(s) URL or raise ``ImproperlyConfigured``."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.fragment or parts.username or any(c.isspace() or c in '"<>\\' for c in value):
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


def time_zone(name: str) -> str:
    """Return ``name`` if it is a time zone of this system. Raises ``ValueError``."""
    try:
        return zoneinfo.ZoneInfo(name).key
    except OSError as error:  # a folder of zones
        raise ValueError("no time zone") from error


def redis(url: str) -> str:
    """Return a Redis URL, or nothing for none. Raises ``ValueError`` for another one."""
    parts = urlsplit(url)
    if url and (parts.scheme not in {"redis", "rediss", "unix"} or (parts.port or 1) < 1):
        raise ValueError("no Redis URL")
    return url


def new_token_key() -> str:
    """Return a fresh entry for SIPGATE_TOKEN_KEYS: 32 random bytes, URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")

"""Seals (encrypts) text with the first of several keys, and binds it to its place.

A sealed value is ``key id . Fernet token``. The *place* (which connection at which version, which
file) is inside the plaintext and compared after opening: a value that was moved to another row, or
put back from an older version, does not open. The id tells a missing key from an altered value,
which a Fernet token alone cannot. Nothing falls back to clear text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.utils.crypto import salted_hmac

from sipgate_provider import conf, errors
from sipgate_provider.remote.secret import Secret

SETTING = "SIPGATE_TOKEN_KEYS"


class SealError(errors.Misconfigured):
    """A sealed value does not open: it was altered, or belongs elsewhere."""


class KeyMissing(SealError):
    """The site's keys lack the one that sealed a value; with it, the value would open."""


def seal(text: str, *, place: str) -> str:
    """Return ``text`` sealed with the first key and bound to ``place``, as URL-safe ASCII.

    Raises:
        errors.Misconfigured: there is no key, or one of them is malformed.
    """
    key, cipher = next(iter(_keys().items()))
    sealed = cipher.encrypt(Secret(f"{place}\n{text}").encode())
    return f"{key}.{sealed.decode('ascii')}"


def unseal(sealed: str, *, place: str) -> Secret:
    """Return what was sealed for ``place``.

    Raises:
        KeyMissing: its key is not among the site's.
        SealError: it was altered, or belongs elsewhere.
    """
    key, _, token = sealed.partition(".")
    cipher = _keys().get(key)
    if cipher is None and len(key) == 8:
        raise KeyMissing(
            f"The key {key} that sealed a token is not in {SETTING}: add it behind the first.",
            setting=SETTING,
        )
    try:
        plain = Secret(cipher.decrypt(token).decode() if cipher else "")
    except InvalidToken:
        plain = Secret("")
    if not plain.startswith(f"{place}\n"):
        raise SealError(
            "A sealed token was altered, or copied from another row or an older version; it is not "
            "used.",
            setting=SETTING,
        )
    return Secret(plain[len(place) + 1 :])


def resealed(sealed: str, *, place: str) -> str:
    """Return the same text, sealed with the first key. Raises as ``seal`` and ``unseal``."""
    return seal(unseal(sealed, place=place), place=place)


def key_of(sealed: str) -> str:
    """Return the id (eight hex digits) of the key that sealed a value, without opening it."""
    return sealed.partition(".")[0]


def key_ids() -> tuple[str, ...]:
    """Return the ids of the site's keys; the first seals.

    Raises:
        errors.Misconfigured: there is no key, or one is malformed.
    """
    return tuple(_keys())


def _keys() -> dict[str, Fernet]:
    texts = conf.token_keys()
    if not texts and settings.DEBUG:
        # So that newcomers need not set a key. Without DEBUG, a system check forbids this.
        made = salted_hmac("sipgate_provider.token_keys", "", algorithm="sha256").digest()
        texts = (base64.urlsafe_b64encode(made).decode(),)
    if not texts:
        raise errors.Misconfigured(
            f"{SETTING} is empty: set it to 32 random bytes in URL-safe base64.", setting=SETTING
        )
    return _read(texts)


@lru_cache(maxsize=8)
def _read(texts: tuple[str, ...]) -> dict[str, Fernet]:
    ciphers: dict[str, Fernet] = {}
    for position, text in enumerate(texts, start=1):
        try:
            padded = text + "=" * (-len(text) % 4)
            raw = base64.b64decode(padded.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            raise errors.Misconfigured(
                f"Entry {position} of {SETTING} is not 32 bytes in URL-safe base64.",
                setting=SETTING,
            )
        name = hashlib.sha256(b"sipgate_provider key id" + raw).hexdigest()[:8]
        ciphers.setdefault(name, Fernet(base64.urlsafe_b64encode(raw)))
    return ciphers

"""Seals (encrypts) and opens token pairs with AES-256-GCM and several keys. Each ciphertext is bound to its place.

A sealed value is ``version (1 byte) | key id (4 bytes) | nonce (12 bytes) | ciphertext and tag``. Its *context* (which
connection, which generation) is authenticated but not stored: a value that is moved to another row, or put back from an
older generation, does not open. Nothing here falls back to clear text.

``docs/how-it-works.md`` says why keys are not derived from ``SECRET_KEY``.

Must not know: rows, connections, HTTP.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

from sipgate_provider import conf, errors
from sipgate_provider.remote.secret import Secret, SecretBytes

VERSION = 1
KEY_ID_BYTES = 4
NONCE_BYTES = 12
HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES


class SealError(errors.Misconfigured):
    """A sealed value does not open. Remedy: put the key that sealed it back into ``SIPGATE_TOKEN_KEYS``."""


class KeyMissing(SealError):
    """The key that sealed a value is not in the ring: with it, the value would open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An access token and the refresh token that belongs to it, if there is one."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    id: bytes
    cipher: AESGCM = field(repr=False)
    fingerprint_key: bytes = field(repr=False)


def seal(plain: bytes, *, context: str) -> bytes:
    """Return ``plain`` sealed with the first key of the ring and bound to ``context``.

    Raises:
        errors.Misconfigured: there is no key, or one of them is malformed.
    """
    plain = SecretBytes(plain)
    key = _ring()[0]
    nonce = os.urandom(NONCE_BYTES)
    header = bytes([VERSION]) + key.id
    return header + nonce + key.cipher.encrypt(nonce, plain, header + context.encode())


def unseal(sealed: bytes | memoryview, *, context: str) -> bytes:
    """Return what was sealed for ``context``.

    Raises:
        KeyMissing: its key is not in the ring.
        SealError: it belongs elsewhere, or it was altered.
    """
    sealed = bytes(sealed)
    if len(sealed) <= HEADER_BYTES or sealed[0] != VERSION:
        raise SealError(
            "A sealed value is malformed; restore the row from a backup.",
            setting="SIPGATE_TOKEN_KEYS",
        )
    header, nonce, body = (
        sealed[: 1 + KEY_ID_BYTES],
        sealed[1 + KEY_ID_BYTES : HEADER_BYTES],
        sealed[HEADER_BYTES:],
    )
    key = next((key for key in _ring() if key.id == header[1:]), None)
    if key is None:
        raise KeyMissing(
            f"The key {header[1:].hex()} that sealed a token is not in SIPGATE_TOKEN_KEYS: add it behind the first.",
            setting="SIPGATE_TOKEN_KEYS",
        )
    try:
        return key.cipher.decrypt(nonce, body, header + context.encode())
    except InvalidTag:
        raise SealError(
            "A sealed token was altered, or copied from another row or an older generation; it is not used.",
            setting="SIPGATE_TOKEN_KEYS",
        ) from None


def token_context(connection_id: int, generation: int) -> str:
    return f"sipgate_provider.token:{connection_id}:{generation}"


def seal_pair(pair: Pair, *, connection_id: int, generation: int) -> bytes:
    """Seal a pair for the token row of a connection at a generation."""
    plain = SecretBytes(
        json.dumps([pair.access_token, pair.refresh_token], separators=(",", ":")).encode()
    )
    return seal(plain, context=token_context(connection_id, generation))


def open_pair(sealed: bytes | memoryview, *, connection_id: int, generation: int) -> Pair:
    """Open the pair of a token row. Raises ``SealError``."""
    access, refresh = json.loads(unseal(sealed, context=token_context(connection_id, generation)))
    return Pair(
        access_token=Secret(access), refresh_token=None if refresh is None else Secret(refresh)
    )


def seal_text(text: str, *, context: str) -> str:
    """Seal a text into URL-safe characters, for places that hold text only (a session)."""
    text = Secret(text)
    return base64.urlsafe_b64encode(seal(text.encode(), context=context)).decode("ascii")


def open_text(sealed: str, *, context: str) -> str:
    """Open what ``seal_text`` made. Raises ``SealError``."""
    try:
        raw = base64.urlsafe_b64decode(sealed)
    except (binascii.Error, ValueError):
        raw = b""
    return Secret(unseal(raw, context=context).decode())


def key_id(sealed: bytes) -> str:
    """Return the id (eight hex digits) of the key that sealed a value, without opening it."""
    return bytes(sealed)[1 : 1 + KEY_ID_BYTES].hex()


def first_key_id() -> str:
    """Return the id of the key that seals now. Raises ``errors.Misconfigured`` without one."""
    return _ring()[0].id.hex()


def known_key_ids() -> tuple[str, ...]:
    return tuple(key.id.hex() for key in _ring())


def fingerprint(secret: str | None) -> str:
    """Return twelve hex digits by which two secrets can be compared, and nothing else. Empty for no secret.

    Keyed, so that somebody with the database alone cannot test guesses.
    """
    if not secret:
        return ""
    return hmac.new(_ring()[0].fingerprint_key, secret.encode(), hashlib.sha256).hexdigest()[:12]


def _ring() -> tuple[Key, ...]:
    texts = conf.token_keys()
    if not texts and settings.DEBUG:
        # So a newcomer need not set a key; a check refuses this outside DEBUG.
        texts = (_derived_key(str(settings.SECRET_KEY)),)
    if not texts:
        raise errors.Misconfigured(
            "SIPGATE_TOKEN_KEYS is empty: set it to 32 random bytes in URL-safe base64.",
            setting="SIPGATE_TOKEN_KEYS",
        )
    return _parsed_ring(texts)


@lru_cache(maxsize=8)
def _parsed_ring(texts: tuple[str, ...]) -> tuple[Key, ...]:
    return tuple(_parsed_key(position, text) for position, text in enumerate(texts, start=1))


def _parsed_key(position: int, text: str) -> Key:
    try:
        raw = base64.b64decode(
            text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise errors.Misconfigured(
            f"Entry {position} of SIPGATE_TOKEN_KEYS is not 32 bytes in URL-safe base64.",
            setting="SIPGATE_TOKEN_KEYS",
        )
    return Key(
        _subkey(raw, b"key id")[:KEY_ID_BYTES],
        AESGCM(_subkey(raw, b"seal")),
        _subkey(raw, b"fingerprint"),
    )


def _subkey(key: bytes, purpose: bytes) -> bytes:
    # One HMAC is HKDF-Expand for one block: the ring's entries are uniformly random already (RFC 5869 §3.3).
    return hmac.new(key, b"sipgate_provider " + purpose + b"\x01", hashlib.sha256).digest()


def _derived_key(secret_key: str) -> str:
    return base64.urlsafe_b64encode(_subkey(secret_key.encode(), b"debug ring")).decode("ascii")

"""Sealing: only the right key opens, and only at the right place."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.fernet import Fernet

from sipgate_provider import errors
from sipgate_provider.tokens import sealing
from sipgate_provider.tokens.sealing import KeyMissing, SealError

ONE, TWO, THREE = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (251, 2, 3))
PLACE, TEXT = "tokens 7 3", json.dumps({"refresh_token": "rt-s3cret"})


def test_what_is_sealed_opens_and_nothing_of_it_shows():
    sealed = sealing.seal(TEXT, place=PLACE)
    opened = sealing.unseal(sealed, place=PLACE)
    assert (opened, sealed.isascii()) == (TEXT, True)
    for shown in (sealed, repr(opened)):
        assert not [word for word in ("s3cret", "tokens") if word in shown]


class TestDoesNotOpen:
    def test_at_another_place(self):
        sealed = sealing.seal(TEXT, place=PLACE)
        for place in ("tokens 7 2", "tokens 8 3", "tokens 7 33", "journal 7 3", "", "tokens 7"):
            with pytest.raises(SealError, match="copied from another row"):
                sealing.unseal(sealed, place=place)

    def test_when_it_was_cut_or_never_sealed(self):
        sealed = sealing.seal(TEXT, place=PLACE)
        for odd in (sealed[:-5], sealed[:30], sealed[:9], "", ".", "x", "ä", "12345678.ä", "\n"):
            with pytest.raises(SealError):
                sealing.unseal(odd, place=PLACE)

    def test_with_a_key_of_somebody_else_under_our_keys_name(self):
        name = sealing.key_ids()[0]
        forged = Fernet(Fernet.generate_key()).encrypt(f"{PLACE}\n{TEXT}".encode()).decode()
        with pytest.raises(SealError, match="altered"):
            sealing.unseal(f"{name}.{forged}", place=PLACE)

    def test_errors_carry_neither_the_sealed_nor_the_plain(self):
        sealed = sealing.seal(TEXT, place=PLACE)
        with pytest.raises(SealError) as caught:
            sealing.unseal(sealed, place="elsewhere")
        assert sealed not in str(caught.value)
        assert "s3cret" not in repr(caught.value)


class TestKeys:
    def test_the_first_seals_and_all_open(self, keys):
        sealed = {}
        for key in (ONE, TWO):
            keys.SIPGATE_TOKEN_KEYS = [key, THREE]
            sealed[key] = sealing.seal(TEXT, place=PLACE)
            assert sealing.key_of(sealed[key]) == sealing.key_ids()[0]
        keys.SIPGATE_TOKEN_KEYS = [THREE, TWO, ONE]
        for one in sealed.values():
            assert sealing.unseal(one, place=PLACE) == TEXT

    def test_a_change_in_steps(self, keys):
        old = sealing.seal(TEXT, place=PLACE)
        keys.SIPGATE_TOKEN_KEYS = [TWO, ONE]
        moved = sealing.resealed(old, place=PLACE)
        keys.SIPGATE_TOKEN_KEYS = [TWO]
        assert sealing.unseal(moved, place=PLACE) == TEXT
        with pytest.raises(
            KeyMissing, match=f"The key {sealing.key_of(old)} .* SIPGATE_TOKEN_KEYS"
        ):
            sealing.unseal(old, place=PLACE)

    def test_the_way_base64_is_written_does_not_matter(self, keys):
        sealed = sealing.seal(TEXT, place=PLACE)
        for text in (ONE, ONE.rstrip("="), ONE.replace("-", "+").replace("_", "/")):
            keys.SIPGATE_TOKEN_KEYS = [text]
            assert sealing.unseal(sealed, place=PLACE) == TEXT

    def test_one_that_is_no_key_is_named_and_not_quoted(self, keys):
        altered = (ONE[:-4], ONE + ONE, f" {ONE}")
        for text in (*altered, "short", "ä" * 43, "!" * 43, "A" * 42, "s3cret words"):
            for position, given_keys in ((1, [text, ONE]), (2, [ONE, text])):
                keys.SIPGATE_TOKEN_KEYS = given_keys
                with pytest.raises(
                    errors.Misconfigured, match=f"Entry {position} of SIPGATE_TOKEN_KEYS"
                ) as caught:
                    sealing.key_ids()
                assert text not in str(caught.value)

    def test_without_one_nothing_is_sealed(self, keys):
        for none in ([], [""], [None]):
            keys.SIPGATE_TOKEN_KEYS, keys.DEBUG = none, False
            with pytest.raises(errors.Misconfigured, match="SIPGATE_TOKEN_KEYS is empty"):
                sealing.seal(TEXT, place=PLACE)

    def test_with_debug_one_is_made_of_the_secret_key(self, keys):
        keys.SIPGATE_TOKEN_KEYS, keys.DEBUG, keys.SECRET_KEY = [], True, "one"
        sealed = sealing.seal(TEXT, place=PLACE)
        assert sealing.unseal(sealed, place=PLACE) == TEXT
        keys.SECRET_KEY = "two"
        with pytest.raises(SealError):
            sealing.unseal(sealed, place=PLACE)


@pytest.fixture(autouse=True)
def keys(settings: Any) -> Any:
    settings.SIPGATE_TOKEN_KEYS = [ONE]
    return settings

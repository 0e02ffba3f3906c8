"""What is sealed opens with its key, at its place, unaltered; and in no other case."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from sipgate_provider import errors, tokens
from sipgate_provider.tokens import sealing
from sipgate_provider.tokens.sealing import Pair, SealError

QUICKLY = hypothesis(
    max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


ONE, TWO, THREE = new_key(), new_key(), new_key()
PAIR = Pair(access_token="access-s3cret", refresh_token="refresh-s3cret")


@pytest.fixture(autouse=True)
def ring(settings: Any) -> Any:
    settings.SIPGATE_TOKEN_KEYS = [ONE]
    return settings


def sealed_pair() -> bytes:
    return sealing.seal_pair(PAIR, connection_id=7, generation=3)


def opened(sealed: bytes) -> Pair:
    return sealing.open_pair(sealed, connection_id=7, generation=3)


class TestRoundTrip:
    def test_a_pair(self) -> None:
        assert opened(sealed_pair()) == PAIR
        assert opened(memoryview(sealed_pair())) == PAIR

    def test_a_pair_without_a_refresh_token(self) -> None:
        pair = Pair(access_token="a", refresh_token=None)
        assert (
            sealing.open_pair(
                sealing.seal_pair(pair, connection_id=1, generation=1),
                connection_id=1,
                generation=1,
            )
            == pair
        )

    def test_nothing_of_it_shows(self) -> None:
        sealed = sealed_pair()
        assert b"s3cret" not in sealed
        assert base64.b64encode(b"refresh-s3cret")[:12] not in sealed
        assert (
            "s3cret"
            not in f"{opened(sealed)!r} {PAIR!r} {opened(sealed).access_token!r} {opened(sealed).refresh_token!r}"
        )

    def test_equal_pairs_do_not_look_equal(self) -> None:
        assert len({sealed_pair() for _ in range(100)}) == 100

    @QUICKLY
    @given(
        plain=st.binary(max_size=2000), context=st.text(st.characters(exclude_categories=["Cs"]))
    )
    def test_anything(self, plain: bytes, context: str) -> None:
        sealed = sealing.seal(plain, context=context)
        assert sealing.unseal(sealed, context=context) == plain
        assert sealing.key_id(sealed) == sealing.first_key_id()
        assert len(sealed) == sealing.HEADER_BYTES + len(plain) + 16
        with pytest.raises(SealError):
            sealing.unseal(sealed, context=context + "x")

    @QUICKLY
    @given(text=st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_text(self, text: str) -> None:
        sealed = tokens.seal_text(text, context="c")
        assert tokens.open_text(sealed, context="c") == text
        assert sealed.isascii()
        assert not set(sealed) & set("+/ \n")

    @QUICKLY
    @given(
        access=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
        refresh=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126)),
        place=st.tuples(st.integers(1, 2**62), st.integers(1, 2**62)),
        other=st.tuples(st.integers(1, 2**62), st.integers(1, 2**62)),
    )
    def test_any_pair_at_its_place_only(
        self, access: str, refresh: str | None, place: Any, other: Any
    ) -> None:
        pair = Pair(access_token=access, refresh_token=refresh)
        sealed = sealing.seal_pair(pair, connection_id=place[0], generation=place[1])
        assert sealing.open_pair(sealed, connection_id=place[0], generation=place[1]) == pair
        if other != place:
            with pytest.raises(SealError):
                sealing.open_pair(sealed, connection_id=other[0], generation=other[1])


class TestWhatLiesInDatabases:
    """What an earlier version has sealed must open: the numbers were noted when it was written."""

    KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
    SEALED = bytes.fromhex(
        "01a6e312a1722c323d249374edb2107281f1b0b4d63217d55a277a64d59272230b47c2c36746cfc7b2372c9b22317679a862d45ab4cb0e92bc23f5cdbbf35575822a1c"
    )

    def test_opens(self, ring: Any) -> None:
        ring.SIPGATE_TOKEN_KEYS = [self.KEY]
        assert opened(self.SEALED) == PAIR

    def test_names_its_key_and_has_its_fingerprint(self, ring: Any) -> None:
        ring.SIPGATE_TOKEN_KEYS = [self.KEY]
        assert sealing.first_key_id() == sealing.key_id(self.SEALED) == "a6e312a1"
        assert sealing.fingerprint("refresh-s3cret") == "4e7bd415ed34"


class TestRefused:
    @pytest.mark.parametrize(
        ("connection", "generation"),
        [(8, 3), (7, 2), (7, 4), (3, 7), (73, 0), (0, 73)],
        ids=[
            "another row",
            "an older generation",
            "a newer one",
            "swapped",
            "glued",
            "glued again",
        ],
    )
    def test_at_another_place(self, connection: int, generation: int) -> None:
        with pytest.raises(SealError, match="copied from another row"):
            sealing.open_pair(sealed_pair(), connection_id=connection, generation=generation)

    def test_a_context_of_another_kind(self) -> None:
        text = tokens.seal_text("x", context="pending")
        with pytest.raises(SealError):
            tokens.open_text(text, context=sealing.token_context(7, 3))

    @pytest.mark.parametrize("change", [1, 0x80, 0xFF])
    def test_an_altered_byte_at_every_position(self, change: int) -> None:
        sealed = sealed_pair()
        for position in range(len(sealed)):
            altered = bytearray(sealed)
            altered[position] ^= change
            with pytest.raises(SealError):
                opened(bytes(altered))

    def test_shortened_at_every_position(self) -> None:
        sealed = sealed_pair()
        for length in range(len(sealed)):
            with pytest.raises(SealError):
                opened(sealed[:length])

    @pytest.mark.parametrize("more", [b"\0", b"x" * 16])
    def test_lengthened(self, more: bytes) -> None:
        with pytest.raises(SealError):
            opened(sealed_pair() + more)

    @pytest.mark.parametrize(
        "sealed",
        [b"", b"\0", b"\1", b"clear text", b"\1" * 17, b'["access","refresh"]', os.urandom(200)],
        ids=["empty", "zero", "version", "text", "no-body", "clear-pair", "random"],
    )
    def test_what_was_never_sealed(self, sealed: bytes) -> None:
        with pytest.raises(SealError):
            opened(sealed)

    @pytest.mark.parametrize("text", ["", "x", "ä", "====", "AAAA", "A" * 100, "\0", "not base64!"])
    def test_what_was_never_a_sealed_text(self, text: str) -> None:
        with pytest.raises(SealError):
            tokens.open_text(text, context="c")

    def test_with_a_wrong_key(self, ring: Any) -> None:
        sealed = sealed_pair()
        ring.SIPGATE_TOKEN_KEYS = [TWO]
        with pytest.raises(
            SealError, match=f"key {sealing.key_id(sealed)} .* is not in SIPGATE_TOKEN_KEYS"
        ) as caught:
            opened(sealed)
        assert caught.value.setting == "SIPGATE_TOKEN_KEYS"
        assert not any(key in str(caught.value) for key in (ONE, TWO))

    def test_a_forged_key_id_does_not_help(self, ring: Any) -> None:
        sealed = sealed_pair()
        ring.SIPGATE_TOKEN_KEYS = [TWO]
        forged = sealed[:1] + bytes.fromhex(sealing.first_key_id()) + sealed[5:]
        with pytest.raises(SealError):
            opened(forged)

    def test_errors_do_not_carry_the_sealed_or_the_plain(self) -> None:
        sealed = sealed_pair()
        with pytest.raises(SealError) as caught:
            opened(sealed[:-1])
        told = f"{caught.value!r} {caught.value.args} {vars(caught.value)}"
        assert "s3cret" not in told
        assert repr(sealed[5:20])[2:-1] not in told
        assert caught.value.__cause__ is None


class TestRing:
    def test_the_first_seals_and_all_open(self, ring: Any) -> None:
        sealed = {}
        for key in (ONE, TWO, THREE):
            ring.SIPGATE_TOKEN_KEYS = [key]
            sealed[key] = sealed_pair()
        ring.SIPGATE_TOKEN_KEYS = [TWO, ONE, THREE]
        assert all(opened(one) == PAIR for one in sealed.values())
        assert (
            sealing.key_id(sealed_pair()) == sealing.key_id(sealed[TWO]) == sealing.first_key_id()
        )
        assert sealing.known_key_ids() == tuple(
            sealing.key_id(sealed[key]) for key in (TWO, ONE, THREE)
        )

    def test_rotation_in_steps(self, ring: Any) -> None:
        old = sealed_pair()
        ring.SIPGATE_TOKEN_KEYS = [TWO, ONE]  # the new one in front
        moved = sealing.seal_pair(opened(old), connection_id=7, generation=3)
        ring.SIPGATE_TOKEN_KEYS = [TWO]  # the old one gone
        assert opened(moved) == PAIR
        with pytest.raises(SealError):
            opened(old)

    @pytest.mark.parametrize(
        "text",
        [ONE, ONE.rstrip("="), ONE.replace("-", "+").replace("_", "/")],
        ids=["padded", "bare", "standard"],
    )
    def test_the_way_base64_is_written_does_not_matter(self, ring: Any, text: str) -> None:
        sealed = sealed_pair()
        ring.SIPGATE_TOKEN_KEYS = [text]
        assert opened(sealed) == PAIR

    @pytest.mark.parametrize(
        "bad",
        [
            "short",
            "ä" * 43,
            "!" * 43,
            ONE[:-4],
            ONE + ONE,
            "A" * 42,
            "\ud800",
            " " + ONE,
            "s3cret-but-no-key",
        ],
        ids=[
            "short",
            "umlauts",
            "marks",
            "cut",
            "doubled",
            "too-short",
            "surrogate",
            "blank",
            "words",
        ],
    )
    @pytest.mark.parametrize("position", [1, 2])
    def test_an_entry_that_is_no_key_is_named_and_not_quoted(
        self, ring: Any, bad: str, position: int
    ) -> None:
        ring.SIPGATE_TOKEN_KEYS = [bad, ONE] if position == 1 else [ONE, bad]
        for use in (
            sealed_pair,
            sealing.first_key_id,
            sealing.known_key_ids,
            lambda: sealing.fingerprint("x"),
            lambda: opened(b"\1" * 99),
        ):
            with pytest.raises(
                errors.Misconfigured, match=f"Entry {position} of SIPGATE_TOKEN_KEYS"
            ) as caught:
                use()
            assert bad not in str(caught.value)
            assert caught.value.setting == "SIPGATE_TOKEN_KEYS"

    @pytest.mark.parametrize("keys", [[], [""], [None]])
    def test_without_a_key_nothing_is_sealed(self, ring: Any, keys: list[Any]) -> None:
        ring.SIPGATE_TOKEN_KEYS, ring.DEBUG = keys, False
        with pytest.raises(errors.Misconfigured, match="SIPGATE_TOKEN_KEYS is empty"):
            sealed_pair()

    def test_with_debug_one_is_derived_from_the_secret_key(self, ring: Any) -> None:
        ring.SIPGATE_TOKEN_KEYS, ring.DEBUG, ring.SECRET_KEY = [], True, "one"
        sealed = sealed_pair()
        assert opened(sealed) == PAIR
        ring.SECRET_KEY = "two"
        with pytest.raises(SealError):
            opened(sealed)

    def test_a_key_does_not_show_itself(self) -> None:
        key = sealing._ring()[0]
        raw = base64.urlsafe_b64decode(ONE)
        assert ONE not in repr(key)
        assert repr(raw)[2:20] not in repr(key)
        assert key.id.hex() not in raw.hex()


class TestFingerprint:
    def test_is_short_and_stable(self) -> None:
        assert sealing.fingerprint("secret") == sealing.fingerprint("secret")
        assert len(sealing.fingerprint("secret")) == 12
        assert int(sealing.fingerprint("secret"), 16) >= 0

    def test_tells_two_secrets_apart(self) -> None:
        assert len({sealing.fingerprint(f"secret{number}") for number in range(1000)}) == 1000

    def test_is_keyed(self, ring: Any) -> None:
        with_one = sealing.fingerprint("secret")
        ring.SIPGATE_TOKEN_KEYS = [TWO]
        assert sealing.fingerprint("secret") != with_one
        assert hashlib.sha256(b"secret").hexdigest()[:12] not in {
            with_one,
            sealing.fingerprint("secret"),
        }
        ring.SIPGATE_TOKEN_KEYS = [ONE, TWO]
        assert sealing.fingerprint("secret") == with_one

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_of_nothing_there_is_none(self, nothing: Any) -> None:
        assert sealing.fingerprint(nothing) == ""

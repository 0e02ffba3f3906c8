"""The token endpoint's answers: what is read of them, and what an unsuccessful one means."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from sipgate_provider import conf, endpoints, errors
from sipgate_provider.remote import line, oauth, session
from sipgate_provider.remote.secret import Secret
from tests.raw_server import Answer, Asked, RawServer, cut, of_json, serving, whole

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = "s3cret-that-must-not-show"
WHOLE = {
    "access_token": "at",
    "refresh_token": "rt",
    "token_type": "Bearer",
    "scope": "a b",
    "expires_in": 300,
}
QUICKLY = hypothesis(
    max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def parse(**changes: Any) -> oauth.Tokens:
    data = {key: value for key, value in {**WHOLE, **changes}.items() if value is not ...}
    return oauth.Tokens.parse(data, issued_at=NOW)


def refresh(client: oauth.Client, token: str) -> Any:
    with line.connect(client.token_url) as opened:
        return oauth.refresh(opened, client, token)


def answered(answer: Answer, call: Any = refresh, endpoint: str = "token") -> Any:
    """Return what a call makes of an answer: its value, or its error."""
    with serving(answer) as server:
        url = f"{server.url}/{endpoint}"
        client = oauth.Client(
            client_id="1-1-x:third-party",
            client_secret=SECRET,
            token_url=url,
            logout_url=url,
            revoke_url=url,
        )
        try:
            return call(client, SECRET)
        except (errors.SipgateError, errors.TokenRejected) as error:
            assert len(server.asked) == 1
            return error


class TestGrant:
    def test_a_whole_answer(self) -> None:
        grant = parse(refresh_expires_in=2_592_000, id_token="i")
        assert (grant.access_token, grant.refresh_token, grant.scope) == ("at", "rt", ("a", "b"))
        assert (grant.expires_in, grant.refresh_expires_in) == (300.0, 2_592_000.0)
        assert (grant.id_token, grant.issued_at) == ("i", NOW)

    @pytest.mark.parametrize(
        "data", [None, [], "text", 1, True, {}, {"access_token": None}, [["access_token", "at"]]]
    )
    def test_without_an_access_token_it_is_none(self, data: object) -> None:
        with pytest.raises(errors.UnexpectedResponse) as caught:
            oauth.Tokens.parse(data, issued_at=NOW)
        assert caught.value.endpoint == "token"

    @pytest.mark.parametrize(
        "token",
        [
            "",
            " ",
            "a b",
            "a\nb",
            "a\r\nX: y",
            "ä",
            "a\0b",
            1,
            True,
            [],
            {},
            "x" * (oauth.LONGEST_TOKEN + 1),
        ],
    )
    def test_an_access_token_that_no_header_can_carry_is_none(self, token: object) -> None:
        """A refresh token beside it must not be lost: it brings a better one at the next use."""
        assert parse(access_token=token).access_token == ""
        assert parse(access_token=token).refresh_token == "rt"
        with pytest.raises(errors.UnexpectedResponse) as caught:
            parse(access_token=token, refresh_token=None)
        assert repr(token) not in str(caught.value) or token == ""

    def test_the_longest_token_is_accepted(self) -> None:
        assert (
            len(parse(access_token="x" * oauth.LONGEST_TOKEN).access_token) == oauth.LONGEST_TOKEN
        )

    @pytest.mark.parametrize("token", [..., None, "", "a b", "a\nb", "ä", 1, True, [], {"a": 1}])
    @pytest.mark.parametrize("name", ["refresh_token", "id_token"])
    def test_other_tokens_are_dropped_when_odd(self, name: str, token: object) -> None:
        grant = parse(**{name: token})
        assert getattr(grant, name) is None
        assert grant.access_token == "at"

    @pytest.mark.parametrize(
        ("given", "seconds"),
        [
            (300, 300.0),
            (299.5, 299.5),
            ("300", 300.0),
            (" 300 ", 300.0),
            ("3e2", 300.0),
            (1, 1.0),
            (10**12, oauth.LONGEST_LIFE),
            (10**400, None),
            ("9" * 400, None),
            (1e308, oauth.LONGEST_LIFE),
            (0, None),
            ("0", None),
            (-1, None),
            (-0.0, None),
            ("-300", None),
            (float("nan"), None),
            ("nan", None),
            (float("inf"), None),
            ("Infinity", None),
            (..., None),
            (None, None),
            (True, None),
            (False, None),
            ("", None),
            ("soon", None),
            ([300], None),
            ({"s": 300}, None),
        ],
    )
    @pytest.mark.parametrize("name", ["expires_in", "refresh_expires_in"])
    def test_lifetimes(self, name: str, given: object, seconds: float | None) -> None:
        grant = parse(**{name: given})
        assert getattr(grant, name) == seconds
        assert (grant.access_token, grant.refresh_token) == ("at", "rt")

    def test_a_refresh_life_of_zero_means_no_fixed_end(self) -> None:
        assert parse(refresh_expires_in=0).refresh_expires_in is None

    def test_a_lifetime_never_leaves_the_calendar(self) -> None:
        grant = parse(expires_in=10**300, refresh_expires_in="1e300")
        assert grant.issued_at + timedelta(
            seconds=(grant.expires_in or 0) + (grant.refresh_expires_in or 0)
        )

    @pytest.mark.parametrize(
        ("given", "scope"),
        [
            ("account:read", ("account:read",)),
            ("b a", ("b", "a")),
            ("  a   b ", ("a", "b")),
            ("", ()),
            (["a", "b"], ("a", "b")),
            ([], ()),
            (["a", 1], None),
            ([None], None),
            (..., None),
            (None, None),
            (1, None),
            (True, None),
            ({"a": 1}, None),
        ],
    )
    def test_scope(self, given: object, scope: tuple[str, ...] | None) -> None:
        assert parse(scope=given).scope == scope

    def test_unknown_fields_do_not_matter(self) -> None:
        assert parse(**{"not-before-policy": 0, "new": {"deep": [1, {"a": None}]}}) == parse()

    def test_it_survives_the_way_through_json(self) -> None:
        grant = parse(refresh_expires_in=5)
        again = oauth.Tokens.from_text(grant.to_text())
        assert again == grant
        assert "•••" in repr(again.access_token)

    @QUICKLY
    @given(
        st.dictionaries(
            st.sampled_from([*WHOLE, "refresh_expires_in", "id_token"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=5,
            ),
        )
    )
    def test_anything_at_all_is_a_grant_or_an_unexpected_response(
        self, data: dict[str, Any]
    ) -> None:
        try:
            grant = oauth.Tokens.parse(data, issued_at=NOW)
        except errors.UnexpectedResponse:
            return
        assert grant.access_token == data.get("access_token") or not grant.access_token
        assert grant.expires_in is None or 0 < grant.expires_in <= oauth.LONGEST_LIFE

    @pytest.mark.parametrize(
        "odd",
        [
            b'"expires_in": NaN',
            b'"expires_in": 1e999',
            b'"expires_in": -Infinity',
            b'"scope": "a\\u0000b \\ud800"',
            b'"x": "\xff\xfe"',
            b'"session_state": "\\ud800"',
        ],
        ids=repr,
    )
    def test_an_odd_field_does_not_cost_a_rotated_pair(self, odd: bytes) -> None:
        grant = answered(whole(body=b'{"access_token": "at", "refresh_token": "rt", ' + odd + b"}"))
        assert (grant.access_token, grant.refresh_token, grant.expires_in) == ("at", "rt", None)
        # A database takes it: no NUL, nothing that UTF-8 does not know.
        text = " ".join(grant.scope or ())
        assert "\0" not in text.encode().decode()

    def test_a_byte_order_mark_does_not_matter(self) -> None:
        assert (
            answered(whole(body=b"\xef\xbb\xbf" + json.dumps(WHOLE).encode())).access_token == "at"
        )

    @pytest.mark.parametrize(
        "kind", ["text/html", "", "application/json; charset=utf-16", "nonsense"]
    )
    def test_the_content_type_does_not_matter(self, kind: str) -> None:
        assert (
            answered(whole(body=json.dumps(WHOLE).encode(), content_type=kind)).access_token == "at"
        )

    def test_201_is_a_success_too(self) -> None:
        assert answered(of_json(WHOLE, "201 Created")).refresh_token == "rt"


class TestRejections:
    """Each OAuth error code with each status that might come with it."""

    BLAMED_ON_US = sorted(
        (code, oauth.CLIENT_FAULTS[code])
        for code in oauth.CLIENT_FAULTS.keys() - oauth.OF_THE_GRANT
    )

    @pytest.mark.parametrize("status", [400, 401])
    def test_invalid_grant_is_the_only_reason_to_sign_in_again(self, status: int) -> None:
        error = answered(
            of_json(
                {"error": "invalid_grant", "error_description": "Session not active"},
                f"{status} No",
            )
        )
        assert isinstance(error, errors.TokenRejected)
        assert (error.code, error.description, error.status) == (
            "invalid_grant",
            "Session not active",
            status,
        )

    @pytest.mark.parametrize("code", sorted(oauth.OF_THE_GRANT))
    def test_what_speaks_of_one_grant(self, code: str) -> None:
        error = answered(
            of_json({"error": code, "error_description": "Client no longer has …"}, "400 No")
        )
        assert isinstance(error, errors.TokenRejected)
        assert (error.code, error.description, error.status) == (
            code,
            "Client no longer has …",
            400,
        )

    @pytest.mark.parametrize(("code", "setting"), BLAMED_ON_US)
    @pytest.mark.parametrize("status", [400, 401, 403])
    def test_what_speaks_of_our_client(self, code: str, setting: str, status: int) -> None:
        error = answered(of_json({"error": code, "error_description": "…"}, f"{status} No"))
        assert type(error) is errors.Misconfigured
        assert (error.setting, error.code, error.status) == (setting, code, status)
        assert not oauth.is_unanswered(error)

    @pytest.mark.parametrize(
        "code",
        [
            "invalid_grant",
            *oauth.CLIENT_FAULTS,
            "unknown_error",
            "server_error",
            "temporarily_unavailable",
            "",
        ],
    )
    @pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 599])
    def test_a_troubled_server_is_never_believed(self, code: str, status: int) -> None:
        error = answered(of_json({"error": code}, f"{status} No"))
        assert type(error) is errors.SipgateUnavailable
        assert (error.status, error.code, error.sent) == (status, code or None, True)
        assert oauth.is_unanswered(error)

    @pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "", "slow_down"])
    def test_429_is_a_wish_for_patience(self, code: str) -> None:
        error = answered(of_json({"error": code}, "429 No", retry_after="7"))
        assert type(error) is errors.RateLimited
        assert (error.retry_after, error.status) == (7.0, 429)
        assert not oauth.is_unanswered(error)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 404, 405])
    def test_a_wrong_address(self, status: int) -> None:
        error = answered(whole(f"{status} Elsewhere", b"", location="/"))
        assert type(error) is errors.Misconfigured
        assert (error.setting, error.status) == ("SIPGATE_TOKEN_URL", status)

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 409, 410, 418, 451])
    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"null",
            b"[]",
            b"nonsense",
            b"<html>Bad Request</html>",
            b'{"error": null}',
            b'{"error": ["invalid_grant"]}',
            b'{"error": "access_denied"}',
            b'{"error": "INVALID_GRANT"}',
            b"[" * 100_000,
            b'{"a":' * 10_000,
        ],
        ids=[
            "empty",
            "null",
            "list",
            "text",
            "html",
            "no code",
            "code in a list",
            "other code",
            "capitals",
            "deep",
            "deeper",
        ],
    )
    def test_what_nobody_understands(self, status: int, answer: bytes) -> None:
        error = answered(whole(f"{status} No", answer[:60_000]))
        assert type(error) is errors.UnexpectedResponse
        assert error.status == status
        assert oauth.is_unanswered(error)

    @pytest.mark.parametrize("status", [403, 409])
    def test_invalid_grant_with_another_status_is_not_believed(self, status: int) -> None:
        assert (
            type(answered(of_json({"error": "invalid_grant"}, f"{status} No")))
            is errors.UnexpectedResponse
        )

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"null",
            b"[]",
            b"{}",
            b'{"error": "invalid_grant"}',
            b'{"access_token": "a',
        ],
    )
    def test_a_success_without_a_token_may_have_rotated(self, body: bytes) -> None:
        error = answered(whole(body=body))
        assert type(error) is errors.UnexpectedResponse
        assert oauth.is_unanswered(error)

    def test_204_may_have_rotated(self) -> None:
        assert oauth.is_unanswered(answered(whole("204 No Content", b"", content_length="0")))

    def test_an_answer_beyond_the_cap_may_have_rotated(self) -> None:
        error = answered(whole(body=b"x" * (line.LONGEST_BODY + 1)))
        assert type(error) is errors.UnexpectedResponse
        assert oauth.is_unanswered(error)

    def test_a_page_of_a_proxy(self) -> None:
        error = answered(
            whole("502 Bad Gateway", b"<html><h1>502</h1></html>", content_type="text/html")
        )
        assert type(error) is errors.SipgateUnavailable
        assert "html" not in str(error)

    def test_no_answer(self) -> None:
        error = answered(cut())
        assert type(error) is errors.SipgateUnavailable
        assert (error.status, error.code, error.sent) == (None, "connection", True)
        assert oauth.is_unanswered(error)

    def test_nobody_there(self) -> None:
        with serving(whole()) as server:
            url = server.url
        client = oauth.Client(client_id="i", client_secret="s", token_url=url)
        with pytest.raises(errors.SipgateUnavailable) as caught:
            refresh(client, "rt")
        assert not caught.value.sent
        assert not oauth.is_unanswered(caught.value)

    def test_what_the_server_says_is_shortened_and_made_printable(self) -> None:
        error = answered(
            of_json(
                {"error": "invalid_grant", "error_description": "a\n\0\x1b[31m" + "b" * 1000},
                "400 No",
            )
        )
        assert error.description == "a[31m" + "b" * 295
        error = answered(of_json({"error": "x\r\nInjected: " + "y" * 500}, "400 No"))
        assert len(error.code) == 80
        assert "\n" not in error.code

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502])
    def test_an_echoed_secret_is_not_repeated(self, status: int) -> None:
        error = answered(of_json({"refresh_token": SECRET, "hint": SECRET}, f"{status} No"))
        assert SECRET not in f"{error!r} {error} {error.args} {vars(error)}"


class TestUnanswered:
    @pytest.mark.parametrize(
        ("error", "unanswered"),
        [
            (errors.SipgateUnavailable("", sent=True), True),
            (errors.SipgateUnavailable("", sent=False), False),
            (errors.SipgateUnavailable("", sent=True, status=500), True),
            (errors.SipgateUnavailable("", sent=True, status=503), True),
            (errors.SipgateUnavailable("", sent=True, status=502), True),
            (errors.SipgateUnavailable("", sent=True, status=504), True),
            (errors.RateLimited("", sent=True), False),
            (errors.Misconfigured(""), False),
            (errors.UnexpectedResponse(""), True),
            (errors.UnexpectedResponse("", status=200), True),
            (errors.UnexpectedResponse("", status=400), True),
            (errors.NeedsSignIn(""), False),
        ],
        ids=lambda value: (
            f"{type(value).__name__} {vars(value)}" if isinstance(value, Exception) else str(value)
        ),
    )
    def test_which_errors_may_hide_a_rotation(
        self, error: errors.SipgateError, unanswered: bool
    ) -> None:
        assert oauth.is_unanswered(error) is unanswered


class TestRequest:
    def test_credentials_travel_in_the_form(self) -> None:
        with serving(of_json(WHOLE)) as server:
            client = oauth.Client(
                client_id="1-1-x:third-party",
                client_secret="sec ret&=ü",
                token_url=f"{server.url}/token",
            )
            grant = refresh(client, "rt+/=")
        asked = server.asked[0]
        assert (asked.method, asked.path) == ("POST", "/token")
        assert "authorization" not in asked.headers
        assert asked.form == {
            "grant_type": "refresh_token",
            "refresh_token": "rt+/=",
            "client_id": "1-1-x:third-party",
            "client_secret": "sec ret&=ü",
        }
        assert abs(grant.issued_at - datetime.now(UTC)) < timedelta(seconds=10)

    def test_a_life_is_counted_from_before_the_question(self) -> None:
        arrived: list[datetime] = []

        def answer(asked: Asked) -> bool:
            arrived.append(datetime.now(UTC))
            return of_json(WHOLE)(asked)

        before = datetime.now(UTC)
        assert before <= answered(answer).issued_at <= arrived[0]


class TestRetryAfter:
    def wish(self, value: str | None) -> float | None:
        return session.retry_after({} if value is None else {"Retry-After": value})

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7.0),
            (" 7 ", 7.0),
            ("0", 0.0),
            ("1.5", None),
            ("21600", 21_600.0),
            ("21601", 21_600.0),
            ("9" * 5000, None),
            (None, None),
            ("", None),
            ("soon", None),
            ("-1", None),
            ("nan", None),
            ("inf", None),
            ("1_000", None),
            ("٣", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
            ("Fri, 31 Dec 2999 23:59:59 GMT", 21_600.0),
            ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
            ("Mon, 45 Abc 2026 99:99:99 GMT", None),
            ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_values(self, value: str | None, seconds: float | None) -> None:
        assert self.wish(value) == seconds

    @pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000"])
    def test_a_date_is_counted_from_now(self, zone: str) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True).replace(
            "GMT", zone
        )
        assert 97 < (self.wish(date) or 0) <= 100

    @QUICKLY
    @given(st.text(alphabet=st.characters(max_codepoint=255)))
    def test_nothing_makes_it_fail(self, value: str) -> None:
        wish = self.wish(value)
        assert wish is None or 0 <= wish <= 21_600

    @pytest.mark.parametrize("status", [429, 503])
    def test_it_arrives_with_the_error(self, status: int) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
        assert 90 < answered(whole(f"{status} No", retry_after=date)).retry_after <= 100
        assert answered(whole(f"{status} No", retry_after="30")).retry_after == 30
        assert answered(whole(f"{status} No")).retry_after is None


def jwt(payload: bytes) -> str:
    return f"h.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.s"


class TestClaims:
    def test_of_a_jwt(self) -> None:
        assert oauth.jwt_claims(jwt(b'{"iss": "https://x", "n": 1}')) == {
            "iss": "https://x",
            "n": 1,
        }

    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "opaque",
            "h.ä.s",
            "h.\0.s",
            "h.====.s",
            "h.!!!!.s",
            jwt(b""),
            jwt(b"[]"),
            jwt(b"null"),
            jwt(b'"text"'),
            jwt(b"{"),
            jwt(b"\xff\xfe"),
            jwt(b"[" * 9000),
            "h." + "A" * 20_000 + ".s",
        ],
        ids=lambda value: repr(value[:20]),
    )
    def test_of_garbage(self, token: str) -> None:
        assert oauth.jwt_claims(token) == {}

    def test_odd_values_can_be_stored(self) -> None:
        found = oauth.jwt_claims(jwt(b'{"iss": "a\\u0000b\\ud800", "n": NaN}'))
        assert found == {"iss": "ab", "n": None}

    @QUICKLY
    @given(st.text())
    def test_nothing_makes_it_fail(self, token: str) -> None:
        assert isinstance(oauth.jwt_claims(token), dict)
        assert isinstance(oauth.jwt_claims(jwt(token.encode("utf-8", "surrogatepass"))), dict)


class TestEnding:
    """``end_grant``: revocation first, logout only where revocation does not exist."""

    @staticmethod
    def end(
        *answers: Answer, revoke: bool = True, logout: bool = True
    ) -> tuple[Any, list[str], RawServer]:
        with serving(*answers) as server:
            client = oauth.Client(
                client_id="i",
                client_secret="s",
                token_url="",
                revoke_url=f"{server.url}/revoke" if revoke else None,
                logout_url=f"{server.url}/logout" if logout else None,
            )
            try:
                result: Any = oauth.end_grant(client, SECRET)
            except errors.SipgateError as error:
                result = error
            return result, [asked.path for asked in server.asked], server

    @pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
    def test_by_revocation_alone(self, status: str) -> None:
        result, paths, server = self.end(whole(status, b""))
        assert (result, paths) == (oauth.EndedBy.REVOCATION, ["/revoke"])
        assert server.asked[0].form == {
            "token": SECRET,
            "token_type_hint": "refresh_token",
            "client_id": "i",
            "client_secret": "s",
        }

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_by_logout_where_there_is_no_revocation(self, status: int) -> None:
        result, paths, server = self.end(whole(f"{status} No", b""), whole("204 No Content", b""))
        assert (result, paths) == (oauth.EndedBy.LOGOUT, ["/revoke", "/logout"])
        assert server.asked[1].form == {
            "refresh_token": SECRET,
            "client_id": "i",
            "client_secret": "s",
        }

    def test_by_logout_where_refresh_tokens_cannot_be_revoked(self) -> None:
        no = of_json({"error": "unsupported_token_type"}, "400 No")
        assert self.end(no, whole("204 No Content", b""))[0] == oauth.EndedBy.LOGOUT

    def test_by_logout_because_the_operator_says_so(self) -> None:
        assert self.end(whole("204 No Content", b""), revoke=False)[:2] == (
            oauth.EndedBy.LOGOUT,
            ["/logout"],
        )

    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_neither_exists(self, status: int) -> None:
        assert self.end(whole(f"{status} No", b""))[:2] == (None, ["/revoke", "/logout"])
        assert self.end(whole(f"{status} No", b""), logout=False)[:2] == (None, ["/revoke"])
        assert self.end(whole(), revoke=False, logout=False)[:2] == (None, [])

    @pytest.mark.parametrize("code", ["invalid_grant", "invalid_token", ""])
    def test_what_is_over_already_is_ended(self, code: str) -> None:
        no = of_json({"error": code}, "400 No")
        assert self.end(no)[:2] == (oauth.EndedBy.REVOCATION, ["/revoke"])
        assert self.end(no, revoke=False)[:2] == (oauth.EndedBy.LOGOUT, ["/logout"])

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (503, {}, errors.SipgateUnavailable),
            (500, {}, errors.SipgateUnavailable),
            (429, {}, errors.RateLimited),
            (307, {}, errors.Misconfigured),
            (401, {"error": "unauthorized_client"}, errors.Misconfigured),
            (403, {}, errors.UnexpectedResponse),
        ],
    )
    def test_trouble_is_no_reason_to_end_more_than_was_meant(
        self, status: int, body: Any, kind: type
    ) -> None:
        result, paths, _ = self.end(of_json(body, f"{status} No", location="/"))
        assert (type(result), paths) == (kind, ["/revoke"])


class TestAddresses:
    BASE = "https://login.sipgate.com/auth/realms/third-party"

    def test_siblings_of_keycloaks_token_endpoint(self) -> None:
        token = f"{self.BASE}/protocol/openid-connect/token"
        assert endpoints.sibling(token, "logout") == f"{self.BASE}/protocol/openid-connect/logout"
        assert endpoints.issuer_from(f"{self.BASE}/protocol/openid-connect/auth") == self.BASE

    @pytest.mark.parametrize(
        "url", ["", "https://x.example/token", "https://x.example/protocol/oauth/token"]
    )
    def test_nothing_is_guessed_of_another_server(self, url: str) -> None:
        assert endpoints.sibling(url, "logout") == ""
        assert endpoints.issuer_from(url) == ""

    def test_through_the_settings(self, settings: Any) -> None:
        settings.SIPGATE_TOKEN_URL = f"{self.BASE}/protocol/openid-connect/token"
        settings.SIPGATE_AUTH_URL = f"{self.BASE}/protocol/openid-connect/auth"
        settings.SIPGATE_LOGOUT_URL, settings.SIPGATE_REVOKE_URL, settings.SIPGATE_ISSUER = (
            "",
            "",
            "",
        )
        assert conf.logout_url() == f"{self.BASE}/protocol/openid-connect/logout"
        assert (conf.revoke_url(), conf.issuer()) == (
            f"{self.BASE}/protocol/openid-connect/revoke",
            self.BASE,
        )
        settings.SIPGATE_REVOKE_URL = "off"
        assert conf.revoke_url() == ""
        settings.SIPGATE_TOKEN_URL, settings.SIPGATE_LOGOUT_URL = (
            "https://x.example/token",
            "https://x.example/bye",
        )
        assert (conf.logout_url(), conf.revoke_url()) == ("https://x.example/bye", "")


class TestSecrets:
    def test_a_grant_and_a_client_do_not_show_theirs(self) -> None:
        grant = parse(access_token=SECRET, refresh_token=SECRET, id_token=SECRET)
        client = oauth.Client(client_id="i", client_secret=SECRET, token_url="u")
        assert SECRET not in f"{grant!r} {grant} {client!r} {client} {[grant, client]}"

    def test_a_secret_is_a_string_that_does_not_show_itself(self) -> None:
        secret = Secret(SECRET)
        assert SECRET not in f"{secret!r} {[secret]} {({'a': secret},)} %r" % secret
        assert secret == SECRET
        assert f"Bearer {secret}" == f"Bearer {SECRET}"
        assert json.dumps(secret) == f'"{SECRET}"'
        for one in (parse().access_token, parse().refresh_token, parse(id_token="x").id_token):
            assert isinstance(one, Secret)

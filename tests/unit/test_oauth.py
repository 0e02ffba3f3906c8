"""The token endpoint's answers: what is read of them, and what an unsuccessful one means."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sipgate_provider import errors
from sipgate_provider.remote import oauth, session
from sipgate_provider.remote.secret import Secret
from tests.raw_server import Answer, of_json, serving, whole

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = "s3cret-that-must-not-show"
WHOLE = {"access_token": "at", "refresh_token": "rt", "scope": "a b", "expires_in": 300}
ABSENT = object()


class TestTokens:
    def test_of_a_whole_answer(self):
        tokens = parse(refresh_expires_in=2_592_000, id_token="i")
        assert (tokens.access_token, tokens.refresh_token, tokens.scope) == ("at", "rt", ("a", "b"))
        assert (tokens.expires_in, tokens.refresh_expires_in) == (300.0, 2_592_000.0)
        assert (tokens.id_token, tokens.issued_at) == ("i", NOW)
        assert parse(**{"not-before-policy": 0, "new": {"deep": [1, {"a": None}]}}) == parse()

    def test_without_any_there_are_none(self):
        for data in (
            None,
            [],
            "text",
            1,
            True,
            {},
            {"access_token": None},
            [["access_token", "a"]],
        ):
            with pytest.raises(errors.UnexpectedResponse) as caught:
                oauth.Tokens.parse(data, issued_at=NOW)
            assert caught.value.endpoint == "token", data

    def test_one_that_no_header_can_carry_is_dropped_and_the_others_are_kept(self):
        longest = "x" * oauth.LONGEST_TOKEN
        assert parse(access_token=longest).access_token == longest
        for odd in ("", " ", "a b", "a\r\nX: y", "ä", "a\0b", 1, True, [], {}, longest + "x"):
            assert parse(access_token=odd).access_token == "", odd
            assert parse(access_token=odd).refresh_token == "rt", "brings a better one at its use"
            assert parse(refresh_token=odd).refresh_token is None, odd
            assert parse(id_token=odd).id_token is None, odd
            with pytest.raises(errors.UnexpectedResponse) as caught:
                parse(access_token=odd, refresh_token=ABSENT)
            assert odd == "" or repr(odd) not in str(caught.value)

    def test_lifetimes(self):
        for seconds, values in (
            (300.0, (300, 300.0, "300", " 300 ", "3e2")),
            (299.5, (299.5,)),
            (oauth.LONGEST_LIFE, (10**12, 1e308)),
            (None, (0, "0", -1, -0.0, "-300", ABSENT, None, True, False, "", "soon", [300], {})),
            (None, (10**400, "9" * 400, float("nan"), "nan", float("inf"), "Infinity")),
        ):
            for value in values:
                for name in ("expires_in", "refresh_expires_in"):
                    tokens = parse(**{name: value})
                    assert getattr(tokens, name) == seconds, (name, value)
                    assert (tokens.access_token, tokens.refresh_token) == ("at", "rt")
        assert NOW + timedelta(seconds=oauth.LONGEST_LIFE), "within the calendar"

    def test_scope(self):
        for scope, values in (
            (("b", "a"), ("b a", "  b   a ", ["b", "a"])),
            ((), ("", [])),
            (None, (["a", 1], [None], ABSENT, None, 1, True, {"a": 1})),
        ):
            for value in values:
                assert parse(scope=value).scope == scope, value

    def test_they_survive_whatever_is_around_them(self):
        for odd in (
            b'"expires_in": NaN',
            b'"expires_in": 1e999',
            b'"scope": "a\\u0000b \\ud800"',
            b'"x": "\xff\xfe"',
            b'"session_state": "\\ud800"',
        ):
            tokens = refreshed(200, b'{"access_token": "at", "refresh_token": "rt", ' + odd + b"}")
            assert (tokens.access_token, tokens.refresh_token) == ("at", "rt"), odd
            assert (tokens.expires_in, "\0" in " ".join(tokens.scope or ())) == (None, False), odd
        assert refreshed(200, b"\xef\xbb\xbf" + json.dumps(WHOLE).encode()).access_token == "at"
        assert refreshed(201, WHOLE, Content_Type="text/html").refresh_token == "rt"

    def test_they_become_text_and_back(self):
        tokens = parse(refresh_expires_in=5)
        again = oauth.Tokens.from_text(tokens.to_text())
        assert (again, "•••" in repr(again.access_token)) == (tokens, True)

    def test_nothing_secret_shows(self):
        tokens = parse(access_token=SECRET, refresh_token=SECRET, id_token=SECRET)
        client = oauth.Client(client_id="i", client_secret=SECRET, token_url="u")
        assert SECRET not in f"{tokens!r} {tokens} {client!r} {client} {[tokens, client]}"
        secret = Secret(SECRET)
        assert SECRET not in f"{secret!r} {[secret]} {({'a': secret},)} %r" % secret
        assert (f"Bearer {secret}", json.dumps(secret)) == (f"Bearer {SECRET}", f'"{SECRET}"')
        for one in (tokens.access_token, tokens.refresh_token, tokens.id_token):
            assert isinstance(one, Secret)


class TestRefresh:
    def test_credentials_travel_in_the_form(self):
        line: Any = Line(answer(200, WHOLE))
        oauth.refresh(line, CLIENT, "rt+/=")
        assert line.sent == {
            "grant_type": "refresh_token",
            "refresh_token": "rt+/=",
            "client_id": "1-1-x:third-party",
            "client_secret": SECRET,
        }

    def test_a_life_is_counted_from_before_the_question(self):
        line: Any = Line(answer(200, WHOLE))
        before = datetime.now(UTC)
        tokens: Any = oauth.refresh(line, CLIENT, "rt")
        assert before <= tokens.issued_at <= line.sent_at


class TestErrors:
    def test_what_speaks_of_one_grant(self):
        for status, code in (
            (400, "invalid_grant"),
            (401, "invalid_grant"),
            (400, "invalid_scope"),
            (400, "invalid_request"),
        ):
            told = {"error": code, "error_description": "Session not active"}
            error = refreshed(status, told)
            assert type(error) is errors.TokenRejected, code
            assert (error.code, error.status) == (code, status)
            assert error.description == "Session not active"

    def test_what_speaks_of_our_client(self):
        for code in oauth.CLIENT_FAULTS.keys() - oauth.OF_THE_GRANT:
            for status in (400, 401, 403):
                error = refreshed(status, {"error": code})
                assert type(error) is errors.Misconfigured, (status, code)
                assert (error.setting, error.code) == (oauth.CLIENT_FAULTS[code], code)

    def test_a_troubled_server_is_never_believed(self):
        for status in (408, 425, 500, 502, 503, 504, 599):
            for code in ("invalid_grant", *oauth.CLIENT_FAULTS, "unknown_error", ""):
                error = refreshed(status, {"error": code})
                assert type(error) is errors.SipgateUnavailable, (status, code)
                assert (error.status, error.code, error.sent) == (status, code or None, True)
                assert oauth.is_unanswered(error)
            assert "html" not in str(refreshed(status, b"<html><h1>502</h1></html>"))

    def test_429_is_a_wish_for_patience(self):
        for code in ("invalid_grant", "invalid_client", ""):
            error = refreshed(429, {"error": code}, Retry_After="7")
            assert (type(error), error.retry_after) == (errors.RateLimited, 7.0), code
        assert refreshed(503, Retry_After="7").retry_after == 7.0

    def test_a_wrong_address(self):
        for status in (301, 302, 303, 307, 308, 404, 405):
            error = refreshed(status, b"", Location="/")
            assert (type(error), error.setting) == (errors.Misconfigured, "SIPGATE_TOKEN_URL")

    def test_what_nobody_understands_may_hide_new_tokens(self):
        odd = (b"", b"null", b"[]", b"{}", b"nonsense", b"<html>", b'{"a": "b', b"[" * 60_000)
        codes = ("null", '["invalid_grant"]', '"access_denied"', '"INVALID_GRANT"')
        named = tuple(f'{{"error": {code}}}'.encode() for code in codes)
        for status in (200, 204, 400, 401, 402, 403, 409, 410, 418, 451):
            for body in odd + named:
                error = refreshed(status, body)
                assert type(error) is errors.UnexpectedResponse, (status, body[:30])
                assert oauth.is_unanswered(error)
        for status in (200, 403, 409):
            error = refreshed(status, {"error": "invalid_grant"})
            assert type(error) is errors.UnexpectedResponse, status

    def test_what_the_server_says_is_shortened_and_made_printable(self):
        long = "a\n\0\x1b[31m" + "b" * 1000
        error = refreshed(400, {"error": "invalid_grant", "error_description": long})
        assert error.description == "a[31m" + "b" * 295
        error = refreshed(400, {"error": "x\r\nInjected: " + "y" * 500})
        assert (len(error.code), "\n" in error.code) == (80, False)

    def test_an_echoed_secret_is_not_repeated(self):
        for status in (400, 401, 403, 404, 429, 500, 502):
            error = refreshed(status, {"refresh_token": SECRET, "hint": SECRET})
            assert SECRET not in f"{error!r} {error} {error.args} {vars(error)}", status


class TestClaims:
    def test_of_a_jwt(self):
        found = oauth.jwt_claims(jwt(b'{"iss": "https://x", "n": 1}'))
        assert found == {"iss": "https://x", "n": 1}
        found = oauth.jwt_claims(jwt(b'{"iss": "a\\u0000b\\ud800", "n": NaN}'))
        assert found == {"iss": "ab", "n": None}, "a database can hold it"

    def test_of_anything_else_there_are_none(self):
        short = (
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "opaque",
            "h.ä.s",
            "h.\ud800.s",
            "h.====.s",
        )
        payloads = (b"", b"[]", b"null", b'"text"', b"{", b"\xff\xfe", b"[" * 9000)
        too_long = b'{"a": "' + b"x" * oauth.LONGEST_TOKEN + b'"}'
        for token in (*short, "h.!!!!.s", *map(jwt, (*payloads, too_long))):
            assert oauth.jwt_claims(token) == {}, token[:20]


class TestEnding:
    """``end_grant``: revocation first, logout only where revocation does not exist."""

    def test_by_revocation_alone(self):
        for status in ("200 OK", "204 No Content"):
            result, asked = ended(whole(status, b""))
            assert result == oauth.EndedBy.REVOCATION
            token = {"token": SECRET, "token_type_hint": "refresh_token"}
            assert asked == {"/revoke": {**token, "client_id": "i", "client_secret": "s"}}

    def test_by_logout_where_there_is_no_revocation(self):
        unsupported = of_json({"error": "unsupported_token_type"}, "400 No")
        for no in (*(whole(f"{status} No", b"") for status in (404, 405, 501)), unsupported):
            result, asked = ended(no, whole("204 No Content", b""))
            assert (result, [*asked]) == (oauth.EndedBy.LOGOUT, ["/revoke", "/logout"])
            form = {"refresh_token": SECRET, "client_id": "i", "client_secret": "s"}
            assert asked["/logout"] == form
        result, asked = ended(whole("204 No Content", b""), revoke=False)
        assert (result, [*asked]) == (oauth.EndedBy.LOGOUT, ["/logout"])

    def test_neither_exists(self):
        for status in (404, 405, 501):
            result, asked = ended(whole(f"{status} No", b""))
            assert (result, [*asked]) == (None, ["/revoke", "/logout"])
        assert ended(whole(), revoke=False, logout=False) == (None, {})

    def test_what_is_over_already_is_ended(self):
        for code in ("invalid_grant", "invalid_token", ""):
            no = of_json({"error": code}, "400 No")
            assert ended(no)[0] == oauth.EndedBy.REVOCATION, code
            assert ended(no, revoke=False)[0] == oauth.EndedBy.LOGOUT, code

    def test_trouble_is_no_reason_to_end_more_than_was_meant(self):
        for status, code, kind in (
            (503, "", errors.SipgateUnavailable),
            (500, "", errors.SipgateUnavailable),
            (429, "", errors.RateLimited),
            (307, "", errors.Misconfigured),
            (401, "unauthorized_client", errors.Misconfigured),
            (403, "", errors.UnexpectedResponse),
        ):
            result, asked = ended(of_json({"error": code}, f"{status} No", location="/"))
            assert (type(result), [*asked]) == (kind, ["/revoke"]), status


CLIENT = oauth.Client(client_id="1-1-x:third-party", client_secret=SECRET, token_url="")


class Line:
    """Stands in for a line to sipgate (``test_line``): keeps the form, and has an answer."""

    def __init__(self, found: session.Answer) -> None:
        self.found = found

    def send(self, form: dict[str, str], *, seconds: float) -> None:
        self.sent, self.sent_at = form, datetime.now(UTC)

    def answer(self) -> session.Answer:
        return self.found


def parse(**changes: Any) -> oauth.Tokens:
    data = {key: value for key, value in {**WHOLE, **changes}.items() if value is not ABSENT}
    return oauth.Tokens.parse(data, issued_at=NOW)


def answer(status: int, body: object = b"", **headers: str) -> session.Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return session.Answer(status=status, headers=named, body=text)


def refreshed(status: int, body: object = b"", **headers: str) -> Any:
    """Return what a refresh makes of an answer: tokens, or an error."""
    line: Any = Line(answer(status, body, **headers))
    return oauth.refresh(line, CLIENT, SECRET)


def jwt(payload: bytes) -> str:
    return f"h.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.s"


def ended(*answers: Answer, revoke: bool = True, logout: bool = True) -> tuple[Any, dict[str, Any]]:
    """End a grant; return how, or the error, and which form was sent to which endpoint."""
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
    return result, {asked.path: asked.form for asked in server.asked}

"""What the doctor's questions make of answers, also of those that the sandbox does not give."""

from __future__ import annotations

import socket

from sipgate_provider.remote import oauth
from sipgate_provider.remote.questions import Reply, Verdict, authorization, token
from tests.raw_server import Answer, cut, of_json, serving, whole

URI = "http://localhost:8080/oauth"
SECRET = "s3cret-that-must-not-show"


def test_the_way_back_tells():
    for query, verdict in {
        "error=login_required": Verdict.FINE,
        "error=interaction_required&iss=x": Verdict.FINE,
        "error=invalid_scope&error_description=no+such+scope": Verdict.SCOPE,
        "error=unauthorized_client": Verdict.UNCLEAR,
        "code=x": Verdict.UNCLEAR,
    }.items():
        reply = asked_to_authorize(whole("302 Found", b"", location=f"{URI}?state=s&{query}"))
        assert reply.verdict is verdict, query
    assert reply.detail == ""
    login = asked_to_authorize(whole("302 Found", b"", location="/login-actions/authenticate"))
    assert login.verdict is Verdict.FINE
    odd = asked_to_authorize(whole("302 Found", b"", location="http://[odd"))
    assert odd.verdict is Verdict.UNCLEAR


def test_error_pages():
    for status, page, verdict in (
        (400, "<p>Client nicht gefunden.</p>", Verdict.CLIENT_ID),
        (400, "<p>Ungültiger Parameter: redirect_uri</p>", Verdict.REDIRECT_URI),
        (400, '<a href="?redirect_uri=x">Deutsch</a><p>Client not found.</p>', Verdict.CLIENT_ID),
        (200, "<p>We are sorry... Client not found.</p>", Verdict.CLIENT_ID),
        (200, "<form>Sign in. Which client are you?</form>", Verdict.FINE),
        (400, "<p>Page has expired</p>", Verdict.UNCLEAR),
        (404, "", Verdict.ADDRESS),
        (503, "", Verdict.UNAVAILABLE),
    ):
        assert asked_to_authorize(whole(f"{status} X", page.encode())).verdict is verdict, page


def test_the_token_endpoint_tells_a_wrong_client_from_a_wrong_code():
    for status, error, verdict in (
        (400, "invalid_grant", Verdict.FINE),
        (401, "invalid_client", Verdict.CLIENT_ID),
        (401, "unauthorized_client", Verdict.CLIENT_SECRET),
        (400, "unsupported_grant_type", Verdict.UNCLEAR),
        (500, "unknown_error", Verdict.UNAVAILABLE),
        (429, "slow_down", Verdict.UNAVAILABLE),
        (404, "", Verdict.ADDRESS),
        (307, "", Verdict.ADDRESS),
        (200, "", Verdict.UNCLEAR),
    ):
        reply = asked_for_tokens(of_json({"error": error}, f"{status} X"))
        assert reply.verdict is verdict, error
        assert SECRET not in repr(reply)
    assert asked_for_tokens(whole(body=b"<html>")).verdict is Verdict.UNCLEAR


def test_no_answer():
    assert asked_for_tokens(cut()).verdict is Verdict.UNAVAILABLE
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/token"
        reply = token(client(url))
    assert reply.verdict is Verdict.UNAVAILABLE
    assert "Connection refused" in reply.detail


def test_the_request_names_the_client_and_asks_nobody():
    with serving(whole("404 X")) as server:
        authorization(f"{server.url}/auth", client_id="a:b", redirect_uri=URI, scope="a b")
        token(client(f"{server.url}/token"))
    path = server.asked[0].path
    assert {"prompt=none", "client_id=a%3Ab", "scope=a+b", "code_challenge_method=S256"} <= {
        *path.partition("?")[2].split("&")
    }
    form = server.asked[1].form
    assert (form["client_id"], form["client_secret"]) == ("a:b", SECRET)


def client(url: str) -> oauth.Client:
    return oauth.Client(client_id="a:b", client_secret=SECRET, token_url=url)


def asked_to_authorize(answer: Answer) -> Reply:
    with serving(answer) as server:
        url = f"{server.url}/auth"
        return authorization(url, client_id="x", redirect_uri=URI, scope="a b")


def asked_for_tokens(answer: Answer) -> Reply:
    with serving(answer) as server:
        return token(client(f"{server.url}/token"))

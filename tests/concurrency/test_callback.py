"""The callback asked for more than once, over real HTTP: the code leaves once, and nobody meets an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from allauth.socialaccount.models import SocialAccount

from sipgate_sandbox.launch import Running
from tests.journey import Person
from tests.processes import site

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

SLOW = 1.5
"""Seconds that sipgate takes for a code."""


@pytest.fixture
def person(sandbox: Running, transactional_db: None) -> Iterator[Person]:
    with site(processes=2, threads=8) as running:
        one = Person(running.url, sandbox)
        yield one
        one.close()


def codes_sent(sandbox: Running) -> int:
    return int(sandbox.control.state().get("token", 0))


def is_alive(person: Person) -> bool:
    answer = person.get("/account.json")
    return answer.status_code == 200 and bool(answer.json()["connections"][0]["fresh"])


def test_six_at_once(person: Person, sandbox: Running) -> None:
    for _ in range(3):
        sandbox.control.reset()
        callback = person.allow(person.press())
        sandbox.control.fault("slow", on="token", seconds=SLOW)
        with ThreadPoolExecutor(6) as tabs:
            ends = list(tabs.map(person.follow, [callback] * 6))
        assert ends == [(200, "/account")] * 6
        assert codes_sent(sandbox) == 1
        assert is_alive(person)
        person.forget("sipgate_session")
    assert SocialAccount.objects.count() == 1


def test_f5_on_a_slow_page(person: Person, sandbox: Running) -> None:
    """The browser drops the first answer, and with it the cookie of the session that it made."""
    for after in (0.4, 1.0):
        sandbox.control.reset()
        callback = person.allow(person.press())
        sandbox.control.fault("slow", on="token", seconds=SLOW)
        person.drop(callback, after)
        assert person.follow(callback) == (200, "/account")
        assert codes_sent(sandbox) == 2, "the first code, and that of the sign-in begun again"
        assert is_alive(person)
        person.forget("sipgate_session")


def test_f5_when_sipgate_takes_longer_than_anybody_waits(person: Person, sandbox: Running) -> None:
    callback = person.allow(person.press())
    sandbox.control.fault("slow", on="token", seconds=9)
    person.drop(callback, 0.5)
    began = time.monotonic()
    assert person.follow(callback) == (200, "/account")
    assert 4 < time.monotonic() - began < 8
    assert is_alive(person)
    while codes_sent(sandbox) < 2:  # the first one is still being answered
        assert time.monotonic() - began < 20
        time.sleep(0.1)
    assert is_alive(person)


def test_back_after_success(person: Person, sandbox: Running) -> None:
    callback = person.allow(person.press())
    for _ in range(2):
        assert person.follow(callback) == (200, "/account")
    assert codes_sent(sandbox) == 1


def test_reload_of_a_failed_sign_in_begins_again_once(person: Person, sandbox: Running) -> None:
    callback = person.allow(person.press())
    sandbox.control.fault("unavailable", on="token")
    assert person.follow(callback) == (401, "/oauth")
    assert person.follow(callback) == (200, "/account")
    person.forget("sipgate_session")
    assert person.follow(callback)[0] == 401, "once per state"


def test_another_browser_is_refused(person: Person, sandbox: Running) -> None:
    callback = person.allow(person.press())
    stranger = Person(person.url, sandbox)
    assert stranger.follow(callback)[0] == 401
    assert person.follow(callback) == (200, "/account")
    assert stranger.follow(callback)[0] == 401
    assert stranger.follow(callback.replace("code=", "x="))[0] == 401
    assert stranger.get("/account.json").status_code == 401
    stranger.close()

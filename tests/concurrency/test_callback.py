"""A callback that is asked for again while another process waits for sipgate, over real HTTP."""

from __future__ import annotations

import pytest

from sipgate_sandbox.launch import Running
from tests.journey import Person
from tests.processes import site

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_f5_on_a_slow_page(sandbox: Running, transactional_db: None) -> None:
    """The browser drops the first answer, and with it the cookie of the session that it made."""
    with site(processes=2, threads=8) as running:
        person = Person(running.url, sandbox)
        for after in (0.4, 1.0):
            sandbox.control.reset()
            callback = person.allow(person.press())
            sandbox.control.fault("slow", on="token", seconds=1.5)
            person.drop(callback, after)
            assert person.follow(callback) == (200, "/account")
            answer = person.get("/account.json")
            assert answer.json()["connections"][0]["fresh"]
            person.forget("sipgate_session")
        person.close()

"""Every fault does what the tables in ``sipgate_sandbox.faults`` say."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from sipgate_sandbox import faults
from tests.sandbox.visitor import Visitor


def test_an_answer_comes_once_and_nothing_else_happens(visitor, grant):
    for name, (status, body) in faults.ANSWERS.items():
        visitor.control.fault(name, on="account", seconds=17)
        response = visitor.get("/account", grant["access_token"])
        assert (response.status_code, response.text) == (status, body), name
        assert response.headers.get("Retry-After") == ("17" if status == 429 else None)
        assert visitor.get("/account", grant["access_token"]).status_code == 200, name
        visitor.control.fault(name, on="refresh")
        assert visitor.refresh(grant).status_code == status, name
    assert visitor.refresh(grant).status_code == 200, "it was never spent"


def test_changed_fields(visitor, grant):
    control = visitor.control
    control.fault("change", on="token", value={"expires_in": "soon", "scope": None})
    changed = visitor.grant(scope="account:read users:read")
    assert (changed.keys(), changed["expires_in"], changed["scope"]) == (grant.keys(), "soon", None)
    control.fault("change", on="userinfo", times=None, value={"sub": "w9"})
    who = visitor.get("/authorization/userinfo", grant["access_token"]).json()
    assert (who["sub"], who["masterSipId"]) == ("w9", "1000000")
    assert visitor.get("/authorization/userinfo").status_code == 401, "an error stays as it is"


def test_slowness_does_not_hold_up_others(visitor, grant):
    visitor.control.fault("slow", on="refresh", seconds=1.5)
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(visitor.refresh, grant)
        while visitor.control.state()["faults"]:
            pass
        assert visitor.get("/account", grant["access_token"]).status_code == 200
        assert not slow.done()
        assert slow.result(10).status_code == 200
    assert time.monotonic() - started >= 1.5


def test_a_lost_answer_comes_after_the_work(visitor, grant):
    visitor.control.fault("lose-answer", on="refresh")
    assert visitor.refresh(grant).status_code == 504
    assert visitor.control.state()["rotations"] == 1
    assert visitor.refresh(grant).json()["error"] == "invalid_grant"


def test_a_fault_strikes_as_often_as_it_is_armed_for(visitor, grant):
    def found(number):
        answers = (visitor.get("/account", grant["access_token"]) for _ in range(number))
        return [answer.status_code for answer in answers]

    visitor.control.fault("unavailable", on="account", times=2)
    visitor.control.fault("forbidden", on="account")
    assert found(4) == [503, 503, 403, 200], "they queue"
    visitor.control.fault("unavailable", on="account", times=None)
    assert found(4) == [503] * 4
    assert visitor.control.state()["faults"][0]["fired"] == 4
    visitor.control.clear()
    assert found(1) == [200]


def test_a_fault_strikes_only_its_place(visitor, grant):
    token = grant["access_token"]
    asked = {
        "auth": lambda: requests.get(visitor.authorize_url(), timeout=10),
        "token": lambda: visitor.exchange("x"),
        "account": lambda: visitor.get("/account", token),
        "userinfo": lambda: visitor.get("/authorization/userinfo", token),
        "users": lambda: visitor.get("/users/w0", token),
        "api": lambda: visitor.get("/balance", token),
        "refresh": lambda: visitor.refresh({"refresh_token": "x"}),
        "logout": lambda: visitor.post("logout", refresh_token="x"),
        "revoke": lambda: visitor.post("revoke", token="x"),
    }
    several = {"all": set(asked), "api": {"account", "userinfo", "users", "api"}}
    for place in faults.PLACES:
        visitor.control.fault("unavailable", on=place, times=None)
        struck = {name for name, ask in asked.items() if ask().status_code == 503}
        assert struck == several.get(place, {place})
        visitor.control.clear()


@pytest.fixture
def grant(visitor: Visitor) -> dict[str, Any]:
    return visitor.grant(scope="account:read users:read")

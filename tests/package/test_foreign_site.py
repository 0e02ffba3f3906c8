"""The installed app in a site that gets in its way (``tests/foreign_site/awkward.py``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from sipgate_sandbox.control import SandboxControl
from sipgate_sandbox.launch import launch
from tests.package.foreign import ForeignSite
from tests.package.visitor import Visitor
from tests.ports import free_port
from tests.waiting import wait_for

ROSA, OTTO, PETRA = "1000000w0", "2000000w0", "3000000w0"
EHRENFRIED, ULLA, NAMELESS = "4000000w0", "5000000w0", "6000000w0"
"""One for each test: the site keeps what it knows of them."""


class TestPages:
    def test_a_view_leads_to_sipgate_and_back(self, visitor, control):
        """Sign up, use it, disconnect, connect again."""
        assert urlsplit(visitor.get("/company").url).path == "/accounts/login/"
        callback = f"{visitor.origin}/accounts/sipgate/login/callback/"
        assert parse_qs(urlsplit(visitor.start()).query)["redirect_uri"] == [callback]
        assert visitor.sign_in(person=ROSA).json() == {"company": "Rosenduft Gartenbau GmbH"}
        control.expire_access()
        assert visitor.get("/company").status_code == 200
        assert control.state()["refresh"] == 1
        visitor.disconnect()
        wait_for(lambda: control.state().get("revoke") == 1)
        connect = visitor.get("/company")
        assert urlsplit(connect.url).path == "/accounts/sipgate/login/"
        back = visitor.get(visitor.consent(visitor.start(connect.url), person=ROSA))
        assert (urlsplit(back.url).path, back.status_code) == ("/company", 200)

    def test_problems_are_explained(self, visitor, control):
        denied = visitor.get(visitor.consent(visitor.start(), person=PETRA, allow=False))
        assert (denied.status_code, "The sign-in was cancelled" in denied.text) == (401, True)
        assert visitor.sign_in(person=PETRA).status_code == 200
        control.kill_session()
        control.expire_access()
        ended = visitor.get("/company")
        assert (ended.status_code, "sign in again" in ended.text) == (403, True)
        assert 'action="/accounts/sipgate/login/?process=connect&amp;next=%2F' in ended.text

    def test_who_has_no_address_is_asked_for_one(self, visitor):
        asked = visitor.sign_in(person=NAMELESS)
        assert "/accounts/3rdparty/signup/" in asked.url
        done = visitor.post(asked.url, {"email": "namenlos@ohnepost.example"})
        assert done.json() == {"company": "Ohnepost e. K."}

    def test_a_rejected_sign_up_leaves_nothing_behind(self, visitor):
        assert visitor.sign_in(person=OTTO).status_code == 401
        visitor.enter_admin()
        assert "otto@schraube" not in visitor.get("/admin/people/person/?q=otto").text
        assert "2000000w0" not in visitor.get("/admin/socialaccount/socialaccount/").text


def test_the_admin_shows_people_and_no_secret(visitor):
    visitor.sign_in(person=EHRENFRIED)
    boss = Visitor(visitor.origin)
    boss.enter_admin()
    listed = boss.get("/admin/socialaccount/socialaccount/?q=e%40ehemals.example")
    assert (listed.status_code, "e@ehemals.example" in listed.text) == (200, True)
    places = set(re.findall(r'href="(/admin/sipgate_provider/\w+/)"', listed.text))
    assert {path: boss.get(path).status_code for path in places} == dict.fromkeys(places, 200)
    assert places
    client = boss.get("/admin/socialaccount/socialapp/1/change/")
    assert "1000000-1-sandbox" in client.text
    assert "sandbox-secret" not in client.text
    boss.close()


class TestHeadless:
    def test_a_sign_in_ends_at_the_frontend(self, visitor, control):
        callback = visitor.consent(visitor.start_headless(), person=ULLA)
        assert visitor.ends_at(callback) == ("/app/after", {})
        session = visitor.get("/_allauth/browser/v1/auth/session").json()
        assert session["meta"]["is_authenticated"]
        assert visitor.get("/company").json() == {"company": "Ungeprüft UG"}
        assert visitor.ends_at(callback)[0] == "/app/after", "repeated"
        assert control.state()["reuses"] == 0

    def test_failures_end_there_too(self, visitor, control):
        denied = visitor.consent(visitor.start_headless(), allow=False)
        told = {"error": ["cancelled"], "error_process": ["login"]}
        assert visitor.ends_at(denied) == ("/app/after", told)
        control.fault("unavailable", on="token", times=None)
        failed = visitor.consent(visitor.start_headless())
        told = {"error": ["unknown"], "error_process": ["login"]}
        assert visitor.ends_at(failed) == ("/app/after", told)


def test_the_kit_for_tests_connects_people_of_any_model(awkward, python):
    said = awkward.run(
        python,
        """
from django.contrib.auth import get_user_model
from django.test import Client
from sipgate_provider.testing import fake_sipgate
with fake_sipgate() as sipgate:
    person = get_user_model().objects.create_user("kit@kit.example")
    sipgate.connect(person)
    sipgate.answers("/account", {"company": "Example GmbH"})
    client = Client(headers={"host": "localhost"})
    client.force_login(person)
    print(client.get("/company").json())
""",
    )
    assert said == "{'company': 'Example GmbH'}\n"


def test_everything_about_people_is_in_their_database(awkward):
    assert {"sipgate_provider_sipgatetoken", "people_person"} <= awkward.tables("archive.sqlite3")
    assert awkward.tables("db.sqlite3") <= {"django_migrations", "sqlite_sequence"}


@pytest.fixture(scope="module")
def awkward(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignSite]:
    port, folder = free_port(), tmp_path_factory.mktemp("awkward")
    callback = f"http://localhost:{port}/accounts/sipgate/login/callback/"
    with launch("--redirect-uri", callback) as sandbox:
        site = ForeignSite(folder / "site", "awkward", port=port, sandbox=sandbox)
        with site.serving(python):
            yield site
        assert "Traceback" not in site.log
        assert "Warning" not in site.log


@pytest.fixture
def control(awkward: ForeignSite) -> SandboxControl:
    return awkward.sandbox.control


@pytest.fixture
def visitor(awkward: ForeignSite) -> Iterator[Visitor]:
    """Somebody who visits the site, with the sandbox as new."""
    awkward.sandbox.control.reset()
    visitor = Visitor(awkward.origin)
    yield visitor
    visitor.close()

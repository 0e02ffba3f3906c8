"""The admin answers an operator's questions, opens no secret, and asks before grave actions."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from html import unescape
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection as database
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from sipgate_provider import background
from sipgate_provider.admin import ClientForm
from sipgate_provider.models import (
    Ending,
    LastKnownAccount,
    Reason,
    SipgateToken,
    State,
    TokenEvent,
)
from tests.journey import text_of, visitor

User = get_user_model()
LIST = "/admin/socialaccount/socialaccount/"
EVENTS = "/admin/sipgate_provider/tokenevent/"
ENDINGS = "/admin/sipgate_provider/ending/"

pytestmark = pytest.mark.django_db


class TestPages:
    def test_every_page_of_every_model_opens(self, boss):
        populate(1)
        now = timezone.now()
        moments = {"created_at": now, "give_up_at": now, "next_attempt_at": now}
        Ending.objects.create(uid="2000000w0", sealed=b"x", **moments)
        EmailAddress.objects.create(user=User.objects.get(username="user0"), email="a@example.org")
        boss.get("/admin/")  # loads the addresses, which take some models out
        seen = 0
        for model, model_admin in admin.site._registry.items():
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            assert boss.get(reverse(f"{name}_changelist")).status_code == 200, model
            row = model._default_manager.first()
            if row is not None:
                assert boss.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200, model
                seen += 1
            added = boss.get(reverse(f"{name}_add"))
            may = model_admin.has_add_permission(added.wsgi_request)
            assert added.status_code == (200 if may else 403), model
        assert seen >= 5

    def test_the_list_says_who_and_how_it_is_trouble_first(self, boss):
        populate(1, state=State.ACTIVE)
        populate(1, begin=1, state=State.FAILING, reason=Reason.UNREACHABLE)
        populate(1, begin=2, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        text = text_of(boss.get(LIST))
        for word in ("user1", "Company 1 GmbH", "2000001w0", "Failing, retrying", "be reached"):
            assert word in text, word
        assert re.findall(r"200000\dw0", text) == ["2000002w0", "2000001w0", "2000000w0"]

    def test_queries_do_not_grow_and_ciphertext_is_not_fetched(self, boss):
        (pk,) = populate(1)
        before = queries_of(boss, LIST)
        populate(20, begin=1)
        assert len(queries_of(boss, LIST)) == len(before)
        for url in (LIST, f"{LIST}{pk}/change/", ENDINGS):
            assert not any('"sealed"' in sql for sql in queries_of(boss, url)), url

    def test_the_page_of_one_says_what_to_do_and_what_happened(self, boss):
        (pk,) = populate(1, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        text = text_of(boss.get(f"{LIST}{pk}/change/"))
        for word in ("user0", "Company 0 GmbH", "needs sign-in", "account:read", "connected"):
            assert word in text, word
        without = text_of(staff("view_socialaccount").get(f"{LIST}{pk}/change/"))
        assert "account:read" not in without, "for those who may view tokens"
        assert "The user must sign in again and keeps the connection." in text
        (address,) = re.findall(r"http://localhost:8080(\S+repair=\S+)", text)
        assert Client(headers={"host": "localhost:8080"}).get(address).status_code == 200

    def test_users_who_ended_access_on_purpose_need_no_attention(self, boss):
        (pk,) = populate(1, state=State.NEEDS_SIGN_IN, reason=Reason.ENDED_BY_USER)
        populate(1, begin=1, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        assert uids(boss, "attention=1") == {"2000001w0"}
        assert "Sign-in only" in text_of(boss.get(LIST))
        text = text_of(boss.get(f"{LIST}{pk}/change/"))
        assert ("Nothing." in text, "repair=" in text) == (True, False)


class TestSearchAndFilters:
    @pytest.mark.parametrize(
        "query",
        [
            "q=2000001",
            "q=user1",
            "q=user1@example.org",
            "q=Company 1",
            "sipgate_token__state__exact=failing",
            "sipgate_token__reason__exact=unreachable",
        ],
    )
    def test_of_connections(self, boss, query):
        populate(1)
        populate(1, begin=1, state=State.FAILING, reason=Reason.UNREACHABLE)
        assert uids(boss, query) == {"2000001w0"}

    @pytest.mark.parametrize("query", ["kind__exact=failed", "q=ABCD2345", "q=3w0"])
    def test_of_events(self, boss, query):
        populate(1)
        TokenEvent.objects.create(kind="failed", uid="3w0", reference="ABCD2345", at=timezone.now())
        page = boss.get(f"{EVENTS}?{query}")
        assert [event.uid for event in page.context["cl"].result_list] == ["3w0"]

    def test_nobody_filters_by_ciphertext(self):
        """An answer to each question would tell the sealed bytes step by step."""
        populate(1)
        sam = staff("view_socialaccount", "view_sipgatetoken", "view_ending")
        for url in (
            f"{LIST}?sipgate_token__sealed__regex=^s",
            f"{LIST}?sipgate_token__sealed__gte=a",
            f"{LIST}?socialtoken__token__startswith=a",
            f"{ENDINGS}?sealed__regex=^s",
            f"{ENDINGS}?sealed__gte=a",
            f"{ENDINGS}?sealed__in=a",
        ):
            assert sam.get(url).status_code == 400, url


class TestPermissions:
    def test_staff_without_them_see_nothing(self):
        (pk,) = populate(1)
        sam = staff()
        assert "2000000w0" not in text_of(sam.get("/admin/"))
        for url in (LIST, f"{LIST}{pk}/change/", EVENTS, ENDINGS):
            assert sam.get(url).status_code in {403, 404}, url

    def test_each_opens_its_own_actions(self):
        populate(1)
        everything = {"refresh", "require_sign_in", "end_access"}
        for name, permission, offered in (
            ("ann", "view_sipgatetoken", set()),
            ("bob", "operate_sipgatetoken", {"refresh"}),
            ("cal", "revoke_sipgatetoken", {"require_sign_in", "end_access"}),
        ):
            client = staff("view_socialaccount", permission, name=name)
            page = client.get(LIST).content.decode()
            assert {one for one in everything if f'value="{one}"' in page} == offered, name
            for action in everything - offered:
                choose(client, action, *keys(), confirmed="yes")
        row = SipgateToken.objects.get()
        assert (row.state, row.sealed) == (State.ACTIVE, "sealed-with-no-key")

    def test_nobody_gives_a_sipgate_connection_to_somebody_else(self, boss):
        (pk,) = populate(1)
        thief = User.objects.create_user("thief")
        form = {"user": thief.pk, "provider": "sipgate", "uid": "9w0", "extra_data": '{"a": 1}'}
        assert boss.post(f"{LIST}{pk}/change/", form).status_code == 403
        assert "by signing in with sipgate" in text_of(boss.post(f"{LIST}add/", form))
        other = SocialAccount.objects.create(user=thief, provider="github", uid="1")
        changed = boss.post(f"{LIST}{other.pk}/change/", {**form, "provider": "github"})
        assert changed.status_code == 302
        assert "by signing in" in text_of(boss.post(f"{LIST}{other.pk}/change/", form))

    def test_a_clients_secret_is_written_and_not_shown(self):
        app = SocialApp.objects.create(provider="sipgate", name="a", client_id="b", secret="s3cr3t")
        assert "s3cr3t" not in ClientForm(instance=app).as_p()
        form = {"provider": "sipgate", "name": "new", "client_id": "b", "settings": "{}"}
        for secret, kept in (("", "s3cr3t"), ("other", "other")):
            ClientForm({**form, "secret": secret}, instance=app).save()
            assert (app.name, app.secret) == ("new", kept)

    def test_the_admin_is_entered_through_allauth(self):
        password = "correct horse battery"
        User.objects.create_superuser("boss", "boss@example.org", password)
        client = Client(headers={"host": "localhost:8080"})
        location = client.get("/admin/", follow=True).redirect_chain[-1][0]
        assert location.startswith("/accounts/login/?next=")
        client.post("/admin/login/", {"username": "boss", "password": password})
        assert client.get("/admin/").status_code == 302
        client.post(location, {"login": "boss", "password": password})
        assert client.get("/admin/").status_code == 200

    def test_somebody_who_is_no_staff_is_turned_away(self):
        page = visitor(User.objects.create_user("visitor")).get("/admin/", follow=True)
        assert page.status_code == 403
        assert "You are signed in as visitor" in text_of(page)


@pytest.mark.django_db(transaction=True)
class TestActions:
    def test_refresh(self, boss, connect):
        one, other = connect(), connect()
        assert levels(choose(boss, "refresh", one.pk, other.pk)) == ["success", "success"]
        assert set(SipgateToken.objects.values_list("number", flat=True)) == {2}

    def test_a_failure_becomes_a_message(self, boss, connect, rotator):
        good, ended = connect(), connect(state=State.NEEDS_SIGN_IN, reason=Reason.REVOKED)
        told = levels(choose(boss, "refresh", good.pk, ended.pk))
        assert sorted(told) == ["error", "success"]
        rotator.set(fault="500", times=1)
        ((level, text),) = said(choose(boss, "refresh", good.pk))
        assert (level, good.uid in text, "500" in text) == ("error", True, True)

    def test_grave_ones_ask_first(self, boss, connect):
        for action, reason in (
            ("require_sign_in", Reason.SIGN_IN_REQUIRED),
            ("end_access", Reason.REVOKED),
        ):
            connection = connect()
            page = choose(boss, action, connection.pk)
            assert (page.status_code, connection.uid in text_of(page)) == (200, True)
            connection.sipgate_token.refresh_from_db()
            assert connection.sipgate_token.state == State.ACTIVE
            assert levels(choose(boss, action, connection.pk, confirmed="yes")) == ["success"]
            connection.sipgate_token.refresh_from_db()
            assert connection.sipgate_token.reason == reason
            assert connection.uid in TokenEvent.objects.get(kind="admin", actor="boss").uid
            TokenEvent.objects.all().delete()

    def test_at_most_twenty(self, boss):
        populate(21)
        ((level, text),) = said(choose(boss, "end_access", *keys(), confirmed="yes"))
        assert (level, "at most 20" in text) == ("error", True)
        assert not SipgateToken.objects.exclude(state=State.ACTIVE).exists()

    def test_atomic_requests_do_not_hold_a_transaction(self, boss, connect, monkeypatch):
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
        assert levels(choose(boss, "refresh", connect().pk)) == ["success"]


class TestDeletion:
    def test_ends_access_at_sipgate(self, browser, boss):
        browser.sign_in()
        deleted = choose(boss, "delete_selected", SocialAccount.objects.get().pk, post="yes")
        assert deleted.status_code == 302
        assert SipgateToken.objects.count() == 0
        assert background.errands.wait_idle(10)
        assert browser.asked("revoke") == 1
        assert TokenEvent.objects.filter(kind="admin", actor="boss").exists()

    def test_of_a_user_needs_permission_for_the_connection_alone(self, browser):
        browser.sign_in()
        url = f"/admin/auth/user/{SocialAccount.objects.get().user_id}/delete/"
        few = ("view_user", "delete_user", "delete_emailaddress")
        assert staff(*few).post(url, {"post": "yes"}).status_code == 403
        tina = staff(*few, "delete_socialaccount", name="tina")
        assert tina.post(url, {"post": "yes"}).status_code == 302
        assert SipgateToken.objects.count() == 0


class TestOverview:
    def test_draws_states_refreshes_and_failures(self, boss):
        now = timezone.now()
        populate(3, last_refreshed_at=now)
        populate(2, begin=10, state=State.NEEDS_SIGN_IN, reason=Reason.LOST_ROTATION)
        populate(1, begin=20, state=State.NEEDS_SIGN_IN, reason=Reason.ENDED_BY_USER)
        for days in (0, 0, 2, 30):
            TokenEvent.objects.create(kind="failed", uid="1w0", at=now - timedelta(days=days))
        page = boss.get("/admin/")
        text = text_of(page)
        assert "3 Active 0 Failing, retrying 2 Needs sign-in" in text
        assert "3 last refreshed, 2 failures" in text
        assert "0 last refreshed, 1 failures" in text
        assert "sipgate-overview" not in staff("view_user").get("/admin/").content.decode()
        (url,) = re.findall(r'href="([^"]+state__exact=needs_sign_in[^"]*)"', page.content.decode())
        assert uids(boss, unescape(url).partition("?")[2]) == {"2000010w0", "2000011w0"}

    @pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
    def test_the_day_the_clocks_change(self, boss, time_machine, day):
        now = timezone.make_aware(datetime.fromisoformat(f"{day}T15:20:00"))  # made aware here
        time_machine.move_to(now)
        TokenEvent.objects.create(kind="failed", uid="1w0", at=now - timedelta(hours=14))
        assert "0 last refreshed, 1 failures" in text_of(boss.get("/admin/"))

    def test_german_numbers_do_not_break_the_drawing(self, boss):
        populate(3)
        page = boss.get("/admin/", headers={"accept-language": "de"}).content.decode()
        assert "sipgate-Verbindungen" in page
        numbers = re.findall(r' (?:x|y|x2|y1|width|height)="([^"]*)"', page)
        assert len(numbers) > 20
        assert not [one for one in numbers if not re.fullmatch(r"[\d.]+(rem)?", one)]


@pytest.fixture
def boss(db: None) -> Client:
    return visitor(User.objects.create_superuser("boss", "boss@example.org", "a password"))


def staff(*permissions: str, name: str = "sam") -> Client:
    user = User.objects.create_user(name, is_staff=True)
    ours = ["sipgate_provider", "auth", "socialaccount", "account"]
    known = Permission.objects.filter(content_type__app_label__in=ours)
    user.user_permissions.set([known.get(codename=permission) for permission in permissions])
    return visitor(user)


def populate(number: int, *, begin: int = 0, **changes: Any) -> list[int]:
    """Make connections with rows that no key opens; return their keys."""
    now, made = timezone.now(), []
    for n in range(begin, begin + number):
        user = User.objects.create(username=f"user{n}", email=f"user{n}@example.org")
        connection = SocialAccount.objects.create(
            user=user, provider="sipgate", uid=f"{2000000 + n}w0"
        )
        company = f"Company {n} GmbH"
        LastKnownAccount.objects.create(connection=connection, company=company, fetched_at=now)
        values = {
            "sealed": "sealed-with-no-key",
            "scope": "account:read",
            "issued_at": now,
            "state_since": now,
            "expires_at": now + timedelta(seconds=300),
            "refresh_expires_at": now + timedelta(days=30),
            "consented_at": now,
            "keepalive_at": now + timedelta(days=15),
            **changes,
        }
        SipgateToken.objects.create(connection=connection, **values)
        about = {"connection": connection, "uid": connection.uid, "user": user}
        TokenEvent.objects.create(kind="connected", at=now, actor="person", **about)
        made.append(connection.pk)
    return made


def keys() -> list[int]:
    return list(SocialAccount.objects.values_list("pk", flat=True))


def uids(client: Client, query: str) -> set[str]:
    page = client.get(f"{LIST}?{query}")
    assert page.status_code == 200, query
    return {row.uid for row in page.context["cl"].result_list}


def queries_of(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(database) as caught:
        assert client.get(url).status_code == 200, url
    return [query["sql"] for query in caught.captured_queries]


def choose(client: Client, action: str, *chosen: int, **more: Any) -> Any:
    form = {"action": action, "_selected_action": chosen, **more}
    return client.post(LIST, form, follow=True) if not more.get("post") else client.post(LIST, form)


def said(response: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in response.context["messages"]]


def levels(response: Any) -> list[str]:
    return [level for level, _text in said(response)]

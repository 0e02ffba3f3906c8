"""The admin answers an operator's questions without opening a secret; what it does, it says before and notes after."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection as database
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from sipgate_provider import tokens
from sipgate_provider.admin import shared
from sipgate_provider.admin.history import COLUMNS
from sipgate_provider.models import (
    ClientPause,
    LastKnownAccount,
    Reason,
    Revocation,
    SipgateToken,
    State,
    TokenEvent,
)
from sipgate_provider.ops import operations, statistics
from sipgate_provider.tokens import sealing
from tests.conftest import Connect
from tests.flows.conftest import Secrets
from tests.journey import HOST, Browser
from tests.rotating_server import Strict

User = get_user_model()
TOKENS = "/admin/sipgate_provider/sipgatetoken/"
EVENTS = "/admin/sipgate_provider/tokenevent/"
BACKEND = "django.contrib.auth.backends.ModelBackend"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forget_figures() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def client_of(user: Any) -> Client:
    client = Client(headers={"host": "localhost:8080"})
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def boss(db: None) -> Client:
    return client_of(
        User.objects.create_superuser("boss", "boss@example.org", "correct horse battery")
    )


def staff(*permissions: str, name: str = "sam") -> Client:
    user = User.objects.create_user(name, password="correct horse battery", is_staff=True)
    for permission in permissions:
        user.user_permissions.add(
            Permission.objects.get(
                content_type__app_label__in=[
                    "sipgate_provider",
                    "auth",
                    "socialaccount",
                    "account",
                ],
                codename=permission,
            )
        )
    return client_of(user)


def populate(number: int, *, begin: int = 0, **changes: Any) -> list[int]:
    """Make connections with rows that no key opens; return their keys."""
    now, at = timezone.now(), range(begin, begin + number)
    users = User.objects.bulk_create(
        User(username=f"user{n:06}", email=f"user{n:06}@example.org") for n in at
    )
    made = SocialAccount.objects.bulk_create(
        SocialAccount(user=user, provider="sipgate", uid=f"{2000000 + n}w0")
        for user, n in zip(users, at, strict=True)
    )
    LastKnownAccount.objects.bulk_create(
        LastKnownAccount(connection=row, company=f"Company {n} GmbH", fetched_at=now)
        for row, n in zip(made, at, strict=True)
    )
    values = {
        "sealed": b"sealed-with-no-key",
        "key_id": "00000000",
        "scope": "account:read",
        "issued_at": now,
        "state_since": now,
        "expires_at": now + timedelta(seconds=300),
        "refresh_expires_at": now + timedelta(days=30),
        "consented_at": now,
        "keepalive_at": now + timedelta(days=15),
        "product_line": "CLASSIC_PBX",
        **changes,
    }
    SipgateToken.objects.bulk_create(SipgateToken(connection=row, **values) for row in made)
    TokenEvent.objects.bulk_create(
        TokenEvent(
            kind="connected",
            at=now,
            connection=row,
            uid=row.uid,
            user_id=row.user_id,
            actor="person",
        )
        for row in made
    )
    return [row.pk for row in made]


def queries_of(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(database) as caught:
        assert client.get(url).status_code == 200, url
    return [query["sql"] for query in caught.captured_queries]


def text_of(response: Any) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))


@pytest.fixture
def no_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("A secret was opened.")

    monkeypatch.setattr(sealing, "unseal", refuse)


class TestPages:
    def test_every_page_of_every_model_opens(self, boss: Client) -> None:
        populate(1)
        now = timezone.now()
        Revocation.objects.create(
            uid="2000000w0",
            sealed=b"x",
            created_at=now,
            give_up_at=now,
            next_attempt_at=now,
            why="test",
        )
        ClientPause.objects.create(
            client_fingerprint="abc", since=now, until=now + timedelta(minutes=1)
        )
        EmailAddress.objects.create(
            user=User.objects.get(username="user000000"), email="a@example.org"
        )
        seen = 0
        assert (
            boss.get("/admin/").status_code == 200
        )  # loads the addresses, which take some models out
        for model, model_admin in admin.site._registry.items():
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            assert boss.get(reverse(f"{name}_changelist")).status_code == 200, model
            row = model._default_manager.first()
            if row is not None:
                assert boss.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200, model
                assert boss.get(reverse(f"{name}_history", args=[row.pk])).status_code == 200, model
                seen += 1
            response = boss.get(reverse(f"{name}_add"))
            assert response.status_code == (
                200 if model_admin.has_add_permission(response.wsgi_request) else 403
            )
        assert seen >= 7
        assert boss.get("/admin/").status_code == 200
        assert boss.get("/admin/sipgate_provider/").status_code == 200

    def test_unknown_keys_are_no_server_errors(self, boss: Client) -> None:
        for key in ("4711", "nonsense", "9" * 40, "_5F"):
            assert boss.get(f"{TOKENS}{key}/change/").status_code in {302, 404}
        assert boss.get(
            f"{TOKENS}?deadline=x&scope=%00&line=%27&state__exact=x&q=%00%25"
        ).status_code in {200, 302}

    @pytest.mark.usefixtures("no_opening")
    def test_nothing_is_opened_nor_fetched(self, boss: Client) -> None:
        (pk,) = populate(1)
        for url in (
            TOKENS,
            f"{TOKENS}{pk}/change/",
            f"/admin/socialaccount/socialaccount/{pk}/change/",
            "/admin/socialaccount/socialaccount/",
            "/admin/sipgate_provider/revocation/",
        ):
            assert not any('"sealed"' in sql for sql in queries_of(boss, url)), url

    @pytest.mark.usefixtures("no_opening")
    def test_the_list_says_who_which_company_and_how_it_is(self, boss: Client) -> None:
        populate(
            1,
            state=State.FAILING,
            reason=Reason.UNREACHABLE,
            failing_since=timezone.now() - timedelta(hours=3),
        )
        response = boss.get(TOKENS)
        text = text_of(response)
        for word in (
            "user000000",
            "Company 0 GmbH",
            "2000000w0",
            "Failing, retrying",
            "sipgate cannot be reached",
        ):
            assert word in text, word
        assert re.search(
            r'<time class="sipgate-time" datetime="\d{4}-\d\d-\d\dT[^"]+" title="[^"]*20\d\d',
            response.content.decode(),
        )

    def test_trouble_comes_first(self, boss: Client) -> None:
        for position, state in enumerate(
            (State.ACTIVE, State.NEEDS_SIGN_IN, State.FAILING, State.ACTIVE)
        ):
            populate(1, begin=position, state=state)
        shown = [row.state for row in boss.get(TOKENS).context["cl"].result_list]
        assert shown == [State.NEEDS_SIGN_IN, State.FAILING, State.ACTIVE, State.ACTIVE]
        assert "2 connections need attention" in text_of(boss.get("/admin/"))

    def test_who_ended_access_and_is_content_needs_no_attention(self, boss: Client) -> None:
        populate(1, state=State.NEEDS_SIGN_IN, reason=Reason.ENDED_BY_PERSON)
        populate(1, begin=1, state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED)
        front = re.sub(r"\s+", " ", text_of(boss.get("/admin/")))
        assert "1 connection needs attention" in front
        assert "Needs sign-in 1" in front
        assert "Sign-in only 1" in front
        (shown,) = boss.get(f"{TOKENS}?attention=1").context["cl"].result_list
        assert shown.reason == Reason.REFUSED
        assert "Sign-in only" in text_of(boss.get(f"{TOKENS}?reason__exact=ended_by_person"))

    def test_an_address_to_sign_in_again_can_be_copied(self, boss: Client) -> None:
        (pk,) = populate(1, state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED)
        page = boss.get(f"{TOKENS}{pk}/change/").content.decode()
        (address,) = re.findall(r'readonly value="http://localhost:8080([^"]*)"', page)
        asked = re.sub(r"\s+", " ", text_of(Client(headers={"host": HOST}).get(unescape(address))))
        assert "The connection Company 0 GmbH needs you" in asked
        for change in ({"state": State.ACTIVE, "reason": ""}, {"reason": Reason.ENDED_BY_PERSON}):
            SipgateToken.objects.update(**change)
            assert "readonly value" not in boss.get(f"{TOKENS}{pk}/change/").content.decode(), (
                change
            )
            SipgateToken.objects.update(state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED)

    def test_filters_are_folded_until_they_are_used(self, boss: Client) -> None:
        def opened(url: str) -> list[str]:
            return re.findall(
                r'<details data-filter-title="([^"]*)" open', boss.get(url).content.decode()
            )

        populate(1)
        assert opened(TOKENS) == ["attention"]
        assert opened(f"{TOKENS}?reason__exact=refused&scope=account:read") == [
            "attention",
            "reason",
            "granted scope",
        ]

    def test_the_page_of_one_says_what_to_do_next(self, boss: Client) -> None:
        (pk,) = populate(
            1,
            state=State.NEEDS_SIGN_IN,
            reason=Reason.LOST_ROTATION,
            scope="numbers:read",
            access_fingerprint="abcdefabcdef",
        )
        now = timezone.now()
        Revocation.objects.create(
            uid="2000000w0",
            sealed=b"x",
            created_at=now,
            give_up_at=now,
            next_attempt_at=now,
            why="replaced",
        )
        text = text_of(boss.get(f"{TOKENS}{pk}/change/"))
        for word in (
            "Company 0 GmbH",
            "sipgate's last answer was lost on its way",
            "must sign in again, with one click",
            "abcdefabcdef",
            "For comparison only",
            "CLASSIC_PBX",
            "History of this connection",
            "replaced",
            "numbers:read",
        ):
            assert word in text, word

    @pytest.mark.parametrize("state", State)
    def test_every_state_has_a_next_step(self, boss: Client, state: State) -> None:
        for position, reason in enumerate(Reason):
            (pk,) = populate(1, begin=position, state=state, reason=reason)
            assert re.search(r"What to do next:\s+\S", text_of(boss.get(f"{TOKENS}{pk}/change/")))

    def test_nothing_that_the_content_security_policy_forbids(self, boss: Client) -> None:
        (pk,) = populate(1, state=State.FAILING, reason=Reason.UNREACHABLE)
        pages = [boss.get(url) for url in ("/admin/", TOKENS, EVENTS, f"{TOKENS}{pk}/change/")]
        pages.append(boss.post(TOKENS, {"action": "revoke_selected", "_selected_action": pk}))
        for page in pages:
            html = page.content.decode()
            assert page.status_code == 200
            assert "sipgate_provider/admin.css" in html
            assert 'rel="icon"' in html
            assert not re.search(
                r"<style|\sstyle=|\son[a-z]+=\"|<script(?![^>]* src=)|(?:src|href)=\"(?:data:|https?:|//)",
                html,
            )

    def test_german_numbers_do_not_break_the_drawing(self, boss: Client) -> None:
        populate(3)
        populate(2, begin=10, state=State.FAILING)
        page = boss.get("/admin/", headers={"accept-language": "de"}).content.decode()
        assert not re.search(r'<rect[^>]* (?:x|y|width|height)="[^"]*[^0-9"]', page)
        assert page.count("<rect") >= 2


class TestScale:
    @pytest.mark.parametrize(
        "url",
        [
            TOKENS,
            EVENTS,
            "/admin/",
            "/admin/socialaccount/socialaccount/",
            "/admin/sipgate_provider/lastknownaccount/",
            f"{TOKENS}?q=user0",
            f"{TOKENS}?deadline=30&scope=account%3Aread&line=CLASSIC_PBX",
        ],
    )
    def test_queries_do_not_grow(self, boss: Client, url: str) -> None:
        populate(10)
        boss.get(url)
        cache.clear()
        few = queries_of(boss, url)
        populate(190, begin=10)
        cache.clear()
        many = queries_of(boss, url)
        assert len(few) == len(many) <= 9, "\n".join(many)

    def test_counts_end(self, boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared, "COUNTED_UP_TO", 3000)
        populate(3001)
        page = boss.get(f"{TOKENS}?p=2")
        assert "3,000+ connections" in text_of(page)
        assert len(page.context["cl"].result_list) == 100
        counts = [sql for sql in queries_of(boss, TOKENS) if "COUNT(" in sql]
        assert len(counts) == 1
        assert "LIMIT 3001" in counts[0]
        assert "ORDER BY" not in counts[0]
        assert "3,000+" not in text_of(boss.get(f"{TOKENS}?q=user000001"))

    def test_only_what_an_index_orders_can_be_ordered(self, boss: Client) -> None:
        populate(2)
        page = boss.get(TOKENS)
        sortable = {header["text"] for header in _headers(page) if header["sortable"]}
        assert sortable == {"State"}
        assert "Connection ends unless used" in {
            h["text"] for h in _headers(boss.get(f"{TOKENS}?deadline=30")) if h["sortable"]
        }


def _headers(page: Any) -> list[dict[str, Any]]:
    from django.contrib.admin.templatetags.admin_list import result_headers

    return [
        {**header, "text": str(header["text"]).capitalize()}
        for header in result_headers(page.context["cl"])
    ]


class TestSearchAndFilters:
    def found(self, client: Client, query: str) -> set[str]:
        page = client.get(f"{TOKENS}?{query}")
        assert page.status_code == 200
        return {row.connection.uid for row in page.context["cl"].result_list}

    @pytest.mark.parametrize(
        ("term", "expected"),
        [
            ("2000001w0", {"2000001w0"}),
            ("200000", {"2000000w0", "2000001w0", "2000002w0"}),
            ("user000002", {"2000002w0"}),
            ("USER000002", {"2000002w0"}),
            ("Company 1", {"2000001w0"}),
            ("company 1", {"2000001w0"}),
            ("user000000@example.org", {"2000000w0"}),
            ("other@", {"2000001w0"}),
            ("000001w0", set()),
            ("any 1 Gm", {"2000001w0"}),
            ("GMBH", {"2000000w0", "2000001w0", "2000002w0"}),
            ("100%", set()),
            ("  2000001w0 ", {"2000001w0"}),
        ],
    )
    def test_search(self, boss: Client, term: str, expected: set[str]) -> None:
        populate(3)
        EmailAddress.objects.create(
            user=User.objects.get(username="user000001"), email="other@example.org"
        )
        assert self.found(boss, f"q={term.replace('%', '%25')}") == expected

    def test_deadlines(self, boss: Client) -> None:
        now = timezone.now()
        for position, days in enumerate((0.5, 3, 20, 60, -1, None)):
            ends = None if days is None else now + timedelta(days=days)
            populate(1, begin=position, refresh_expires_at=ends)
        populate(1, begin=9, refresh_expires_at=now + timedelta(hours=2), state=State.NEEDS_SIGN_IN)
        ends_in = {
            value: {uid[6] for uid in self.found(boss, f"deadline={value}")}
            for value in ("1", "7", "30", "ended", "none")
        }
        assert ends_in == {
            "1": {"0"},
            "7": {"0", "1"},
            "30": {"0", "1", "2"},
            "ended": {"4"},
            "none": {"5"},
        }

    def test_scopes_by_word_not_by_letters(self, boss: Client) -> None:
        for position, scope in enumerate(
            (
                "account:read",
                "account:read numbers:read",
                "numbers:read devices:read",
                "account:readonly",
            )
        ):
            populate(1, begin=position, scope=scope)
        assert {uid[6] for uid in self.found(boss, "scope=account:read")} == {"0", "1"}
        assert {uid[6] for uid in self.found(boss, "scope=numbers:read")} == {"1", "2"}
        page = boss.get(f"{TOKENS}?scope=numbers:read&state__exact=active&p=1").content.decode()
        assert '<input type="hidden" name="state__exact" value="active">' in page
        assert 'value="numbers:read"' in page

    def test_state_and_product_line(self, boss: Client) -> None:
        for position, (state, line) in enumerate(
            [(State.ACTIVE, "NEO_PBX"), (State.FAILING, ""), (State.ACTIVE, "X")]
        ):
            populate(1, begin=position, state=state, product_line=line)
        assert {uid[6] for uid in self.found(boss, "state__exact=active")} == {"0", "2"}
        assert {uid[6] for uid in self.found(boss, "line=NEO_PBX")} == {"0"}
        assert {uid[6] for uid in self.found(boss, "line=none")} == {"1"}
        assert {uid[6] for uid in self.found(boss, "line=other")} == {"2"}


class TestPermissions:
    def test_staff_without_them_see_nothing(self) -> None:
        (pk,) = populate(1)
        client = staff()
        index = client.get("/admin/")
        assert index.status_code == 200
        assert "sipgate" not in text_of(index).lower().replace("sipgate for django", "")
        for url in (
            TOKENS,
            f"{TOKENS}{pk}/change/",
            EVENTS,
            f"{EVENTS}export.csv",
            "/admin/sipgate_provider/",
        ):
            assert client.get(url).status_code in {403, 404}, url
        response = client.post(
            TOKENS, {"action": "refresh_selected", "_selected_action": pk, "confirmed": "yes"}
        )
        assert response.status_code == 403

    @pytest.mark.parametrize(
        ("permissions", "offered"),
        [
            (["view_sipgatetoken"], set()),
            (["view_sipgatetoken", "operate_sipgatetoken"], {"refresh_selected", "check_selected"}),
            (
                ["view_sipgatetoken", "revoke_sipgatetoken"],
                {"require_sign_in_selected", "revoke_selected"},
            ),
        ],
    )
    def test_each_opens_its_own_actions(self, permissions: list[str], offered: set[str]) -> None:
        (pk,) = populate(1)
        client = staff(*permissions)
        page = client.get(TOKENS).content.decode()
        everything = {f"{name}_selected" for name in operations.Operation}
        assert {
            name for name in everything | {"delete_selected"} if f'value="{name}"' in page
        } == offered
        detail = client.get(f"{TOKENS}{pk}/change/").content.decode()
        assert {name for name in everything if f'value="{name}"' in detail} == offered
        for name in everything - offered:
            client.post(TOKENS, {"action": name, "_selected_action": pk, "confirmed": "yes"})
        row = SipgateToken.objects.get()
        assert (row.state, row.generation, bytes(row.sealed)) == (
            State.ACTIVE,
            1,
            b"sealed-with-no-key",
        )

    def test_operating_alone_shows_nothing(self) -> None:
        populate(1)
        assert staff("operate_sipgatetoken", "revoke_sipgatetoken").get(TOKENS).status_code == 403

    def test_nobody_adds_edits_or_deletes(self, boss: Client) -> None:
        (pk,) = populate(1)
        for path in ("add/", f"{pk}/delete/"):
            assert boss.get(TOKENS + path).status_code == 403
            assert boss.post(TOKENS + path, {"post": "yes"}).status_code == 403
        assert boss.post(f"{TOKENS}{pk}/change/", {"scope": "all"}).status_code == 403
        boss.post(TOKENS, {"action": "delete_selected", "_selected_action": pk, "post": "yes"})
        event = TokenEvent.objects.get()
        for path in ("add/", f"{event.pk}/delete/"):
            assert boss.get(EVENTS + path).status_code == 403
        assert (SipgateToken.objects.get().scope, TokenEvent.objects.count()) == ("account:read", 1)

    def test_a_sipgate_connection_cannot_be_given_to_somebody_else(self, boss: Client) -> None:
        (pk,) = populate(1)
        thief = User.objects.create_user("thief")
        url = "/admin/socialaccount/socialaccount/"
        form = {
            "user": thief.pk,
            "provider": "sipgate",
            "uid": "9000000w0",
            "extra_data": '{"a": 1}',
        }
        assert boss.post(f"{url}{pk}/change/", form).status_code == 403
        assert "by signing in with sipgate" in text_of(boss.post(f"{url}add/", form))
        other = SocialAccount.objects.create(user=thief, provider="github", uid="1")
        assert (
            boss.post(f"{url}{other.pk}/change/", {**form, "provider": "github"}).status_code == 302
        )
        other.refresh_from_db()
        assert other.uid == "9000000w0"

    def test_the_token_of_a_connection_is_for_those_who_may_view_it(self) -> None:
        (pk,) = populate(1)
        url = "/admin/socialaccount/socialaccount/"
        assert f"{TOKENS}{pk}/change/" not in staff("view_socialaccount").get(url).content.decode()
        with_token = staff("view_socialaccount", "view_sipgatetoken", name="tina")
        assert f"{TOKENS}{pk}/change/" in with_token.get(url).content.decode()
        assert f"{TOKENS}{pk}/change/" in with_token.get(f"{url}{pk}/change/").content.decode()

    def test_the_admin_is_entered_through_allauth(self, settings) -> None:
        User.objects.create_superuser("boss", "boss@example.org", "correct horse battery")
        client = Client(headers={"host": "localhost:8080"})
        location = client.get("/admin/", follow=True).redirect_chain[-1][0]
        assert location.startswith("/accounts/login/?next=")
        assert (
            client.post(
                "/admin/login/", {"username": "boss", "password": "correct horse battery"}
            ).status_code
            == 302
        )
        assert client.get("/admin/").status_code == 302
        for _attempt in range(12):
            client.post(location, {"login": "boss", "password": "wrong"})
        refused = client.post(location, {"login": "boss", "password": "correct horse battery"})
        assert refused.status_code in {200, 429}
        assert client.get("/admin/").status_code == 302
        cache.clear()
        assert (
            client.post(
                location, {"login": "boss", "password": "correct horse battery"}
            ).status_code
            == 302
        )
        assert client.get("/admin/").status_code == 200

    def test_somebody_who_is_no_staff_is_refused(self) -> None:
        client = client_of(User.objects.create_user("visitor"))
        page = client.get("/admin/", follow=True)
        assert page.status_code == 403
        assert "You are signed in as visitor" in text_of(page)
        (target,) = re.findall(r'name="next" value="(/accounts/[^"]+)"', page.content.decode())
        way_on = client.post("/accounts/logout/", {"next": html.unescape(target)}, follow=True)
        assert way_on.request["PATH_INFO"] == "/accounts/login/"
        assert "%2Fadmin%2F" in way_on.request["QUERY_STRING"].replace("/", "%2F")


Choose = Callable[..., Any]


def choose(client: Client, action: str, *keys: int, **more: Any) -> Any:
    return client.post(TOKENS, {"action": action, "_selected_action": keys, **more})


def said(response: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in response.context["messages"]]


@pytest.mark.django_db(transaction=True)
class TestActions:
    def confirmed(
        self, client: Client, action: str, *keys: int, **more: Any
    ) -> list[tuple[str, str]]:
        response = choose(client, action, *keys, confirmed="yes", **more)
        assert response.status_code == 302
        return said(client.get(response.headers["Location"]))

    @pytest.mark.parametrize("operation", operations.Operation)
    def test_each_asks_first(
        self, boss: Client, connect: Connect, strict: Strict, operation: str
    ) -> None:
        connection = connect()
        page = choose(boss, f"{operation}_selected", connection.pk)
        text = text_of(page)
        assert page.status_code == 200
        assert connection.uid in text
        assert "1 connection" in text
        assert (tokens.load(connection.pk).state, tokens.load(connection.pk).generation) == (
            State.ACTIVE,
            1,
        )
        assert strict.counts()["refresh"] + strict.counts()["api"] == 0
        assert not TokenEvent.objects.filter(kind="admin").exists()

    def test_needs_the_csrf_token(self, connect: Connect) -> None:
        connection = connect()
        client = Client(headers={"host": "localhost:8080"}, enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("boss"), backend=BACKEND)
        assert choose(client, "revoke_selected", connection.pk, confirmed="yes").status_code == 403
        assert tokens.load(connection.pk).state == State.ACTIVE

    def test_refresh(self, boss: Client, connect: Connect, strict: Strict) -> None:
        one, other = connect(), connect()
        told = self.confirmed(boss, "refresh_selected", one.pk, other.pk)
        assert [level for level, _text in told] == ["success", "success"]
        assert re.match(rf"{one.uid} \({one.user}\): refreshed in \d+ ms", told[0][1])
        assert {tokens.load(row.pk).generation for row in (one, other)} == {2}
        self.confirmed(boss, "refresh_selected", one.pk)
        assert tokens.load(one.pk).generation == 3
        assert strict.counts()["reuse"] == 0
        events = TokenEvent.objects.filter(kind="admin").values_list("actor", "note")
        assert list(events) == [("boss", "refresh: done")] * 3

    def test_failures_become_messages(self, boss: Client, connect: Connect, strict: Strict) -> None:
        good, failing, ended = (
            connect(),
            connect(),
            connect(state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED),
        )
        strict.set(fault="500", times=1)
        ((level, text),) = self.confirmed(boss, "refresh_selected", failing.pk)
        assert level == "error"
        assert "sipgate cannot be reached" in text
        assert TokenEvent.objects.get(kind="admin").reference in text
        told = self.confirmed(boss, "refresh_selected", good.pk, ended.pk)
        assert [level for level, _text in told] == ["success", "error"]
        assert "needs you to sign in again" in told[1][1]

    def test_check_tells_status_and_latency(
        self, boss: Client, connect: Connect, strict: Strict
    ) -> None:
        connection = connect()
        ((level, text),) = self.confirmed(boss, "check_selected", connection.pk)
        assert level == "success"
        assert re.search(r"HTTP 200 in \d+ ms", text)
        assert LastKnownAccount.objects.get().company == "Strict GmbH"
        strict.control(kill=True)
        ((level, text),) = self.confirmed(boss, "check_selected", connection.pk)
        assert level == "error"
        assert "sign in again" in text

    def test_revoke_and_ask_and_again(self, boss: Client, connect: Connect) -> None:
        gone, asked = connect(), connect()
        assert self.confirmed(boss, "revoke_selected", gone.pk)[0][0] == "success"
        assert self.confirmed(boss, "require_sign_in_selected", asked.pk)[0][0] == "success"
        assert tokens.load(gone.pk).reason == Reason.REVOKED
        assert tokens.load(asked.pk).reason == Reason.SIGN_IN_REQUIRED
        assert self.confirmed(boss, "revoke_selected", gone.pk)[0][0] == "info"
        assert self.confirmed(boss, "require_sign_in_selected", asked.pk)[0][0] == "info"
        assert TokenEvent.objects.filter(kind="admin").count() == 2
        assert boss.get(f"{TOKENS}{gone.pk}/change/").status_code == 200

    def test_a_row_that_is_gone_meanwhile(self, boss: Client, connect: Connect) -> None:
        pk = connect().pk
        SocialAccount.objects.get().delete()
        ((level, text),) = self.confirmed(boss, "refresh_selected", pk)
        assert (level, "gone" in text) == ("warning", True)

    def test_at_most_a_hundred(self, boss: Client, strict: Strict) -> None:
        keys = populate(101)
        response = boss.post(
            TOKENS,
            {"action": "revoke_selected", "_selected_action": keys[:1], "select_across": "1"},
        )
        ((level, text),) = said(boss.get(response.headers["Location"]))
        assert (level, "at most 100" in text) == ("error", True)
        assert not SipgateToken.objects.exclude(state=State.ACTIVE).exists()
        assert "100 connections" in text_of(choose(boss, "revoke_selected", *keys[:100]))

    def test_a_crafted_key_is_a_bad_request(self, boss: Client) -> None:
        assert choose(boss, "refresh_selected", "1 or 1").status_code == 400

    def test_the_list_comes_back_as_it_was_filtered(self, boss: Client, connect: Connect) -> None:
        connection = connect()
        page = boss.post(
            f"{TOKENS}?state__exact=active",
            {"action": "require_sign_in_selected", "_selected_action": connection.pk},
        )
        assert (
            '<input type="hidden" name="back" value="state__exact=active">' in page.content.decode()
        )
        assert f'action="{TOKENS}"' in page.content.decode()
        response = choose(
            boss,
            "require_sign_in_selected",
            connection.pk,
            confirmed="yes",
            back="state__exact=active",
        )
        assert response.headers["Location"] == f"{TOKENS}?state__exact=active"
        response = choose(
            boss,
            "require_sign_in_selected",
            connection.pk,
            confirmed="yes",
            back="//evil.example\r\nX: y",
        )
        assert response.headers["Location"].startswith(f"{TOKENS}?")
        response = choose(
            boss, "require_sign_in_selected", connection.pk, confirmed="yes", detail=connection.pk
        )
        assert response.headers["Location"] == f"{TOKENS}{connection.pk}/change/"

    def test_atomic_requests_do_not_hold_a_transaction(
        self, boss: Client, connect: Connect, monkeypatch
    ) -> None:
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
        connection = connect()
        ((level, _text),) = self.confirmed(boss, "refresh_selected", connection.pk)
        assert (level, tokens.load(connection.pk).generation) == ("success", 2)

    def test_inside_a_transaction_it_refuses(
        self, boss: Client, connect: Connect, strict: Strict, monkeypatch
    ) -> None:
        """Whoever wraps the admin in a transaction gets a sentence, not a deadlock."""
        from django.db import transaction

        connection = connect()
        with transaction.atomic():
            ((level, text),) = self.confirmed(boss, "refresh_selected", connection.pk)
        assert (level, "ATOMIC_REQUESTS" in text) == ("error", True)
        assert strict.counts()["refresh"] == 0


class TestDeletion:
    def test_a_user_goes_through_the_outbox(self, browser: Browser, boss: Client) -> None:
        browser.sign_in()
        user = SocialAccount.objects.get().user
        url = f"/admin/auth/user/{user.pk}/delete/"
        page = boss.get(url)
        assert page.status_code == 200
        assert "permission" not in text_of(page)
        assert boss.post(url, {"post": "yes"}).status_code == 302
        assert not User.objects.filter(pk=user.pk).exists()
        assert SipgateToken.objects.count() == 0
        assert tokens.errands.wait_idle(10)
        assert browser.sandbox.control.state()["revoke"] == 1

    def test_staff_need_no_permission_for_the_token(self, browser: Browser) -> None:
        browser.sign_in()
        user = SocialAccount.objects.get().user
        client = staff("view_user", "delete_user", "delete_socialaccount", "delete_emailaddress")
        assert (
            client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 302
        )
        assert SipgateToken.objects.count() == 0

    def test_without_permission_for_the_connection_it_is_refused(self, browser: Browser) -> None:
        browser.sign_in()
        user = SocialAccount.objects.get().user
        client = staff("view_user", "delete_user")
        assert (
            client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 403
        )
        assert SipgateToken.objects.count() == 1

    def test_selected_connections(self, browser: Browser, boss: Client) -> None:
        browser.sign_in()
        connection = SocialAccount.objects.get()
        form = {"action": "delete_selected", "_selected_action": connection.pk}
        assert boss.post("/admin/socialaccount/socialaccount/", form).status_code == 200
        assert (
            boss.post("/admin/socialaccount/socialaccount/", {**form, "post": "yes"}).status_code
            == 302
        )
        assert SipgateToken.objects.count() == 0
        assert tokens.errands.wait_idle(10)
        kinds = TokenEvent.objects.order_by("id").values_list("kind", "actor")
        assert list(kinds)[1:] == [
            ("admin", "boss"),
            ("disconnected", "person"),
            ("revocation", "outbox"),
        ]
        assert browser.sandbox.control.state()["revoke"] == 1


class TestHistory:
    def events(self, client: Client, query: str) -> list[TokenEvent]:
        page = client.get(f"{EVENTS}?{query}")
        assert page.status_code == 200
        return list(page.context["cl"].result_list)

    def test_filters_and_search(self, boss: Client) -> None:
        populate(2)
        TokenEvent.objects.add(
            "failed",
            uid="3000000w0",
            actor="gate",
            reference="ABCD2345",
            at=timezone.now() - timedelta(days=3),
        )
        assert [event.uid for event in self.events(boss, "kind__exact=failed")] == ["3000000w0"]
        assert len(self.events(boss, "since=24h")) == 2
        assert len(self.events(boss, "since=7d")) == 3
        assert [event.uid for event in self.events(boss, "q=2000001")] == ["2000001w0"]
        assert [event.uid for event in self.events(boss, "q=ABCD2345")] == ["3000000w0"]

    def csv_of(self, client: Client, query: str = "") -> list[list[str]]:
        response = client.get(f"{EVENTS}export.csv?{query}")
        assert response.streaming
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert "attachment" in response.headers["Content-Disposition"]
        return list(csv.reader(io.StringIO(response.getvalue().decode())))

    def test_csv_of_what_is_filtered(self, boss: Client) -> None:
        populate(3)
        TokenEvent.objects.add(
            "failed", uid="2000000w0", actor="gate", error_code="500", duration_ms=12
        )
        header, *rows = self.csv_of(boss)
        assert header == list(COLUMNS)
        assert len(rows) == 4
        (row,) = self.csv_of(boss, "kind__exact=failed&q=2000000")[1:]
        assert dict(zip(header, row, strict=True))["duration_ms"] == "12"

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
    def test_csv_holds_no_formula(self, boss: Client, text: str) -> None:
        TokenEvent.objects.add("admin", uid="1w0", actor=text, note="plain-1")
        row = dict(zip(*self.csv_of(boss), strict=True))
        assert row["actor"].startswith("'")
        assert row["note"] == "plain-1"

    def test_csv_is_read_in_chunks_and_complete(
        self, boss: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sipgate_provider.admin.history.CHUNK", 7)
        populate(40)  # all at the same moment: the key decides
        with CaptureQueriesContext(database) as caught:
            rows = self.csv_of(boss)[1:]
        uids = [row[COLUMNS.index("uid")] for row in rows]
        assert len(uids) == len(set(uids)) == 40
        chunks = [query["sql"] for query in caught.captured_queries if "LIMIT 7" in query["sql"]]
        assert len(chunks) == 6
        assert not any("OFFSET" in sql for sql in chunks)


class TestDashboard:
    def test_tells_how_it_is(self, boss: Client) -> None:
        now = timezone.now()
        populate(3, refresh_expires_at=now + timedelta(days=2))
        populate(2, begin=10, state=State.NEEDS_SIGN_IN, reason=Reason.REFUSED)
        TokenEvent.objects.add("failed", uid="2000000w0", actor="gate")
        TokenEvent.objects.add("failed", uid="2000000w0", actor="gate", at=now - timedelta(days=2))
        Revocation.objects.create(
            uid="1w0", sealed=b"x", created_at=now, give_up_at=now, next_attempt_at=now
        )
        ClientPause.objects.create(
            client_fingerprint="abc",
            since=now,
            until=now + timedelta(minutes=1),
            error_code="invalid_client",
            setting="CLIENT_SECRET",
        )
        found = statistics.current()
        assert found.states == {"active": 3, "failing": 0, "needs_sign_in": 2, "misconfigured": 0}
        assert sum(number for _moment, number in found.failures) == 1
        assert [number for _moment, number in found.deadlines if number] == [3]
        assert (found.revocations, len(found.pauses)) == (1, 1)
        text = text_of(boss.get("/admin/"))
        for word in (
            "Needs sign-in 2",
            "sipgate refuses this site's client (invalid_client)",
            "CLIENT_SECRET",
        ):
            assert word in re.sub(r"\s+", " ", text), word

    def test_is_counted_at_most_twice_a_minute(self, django_assert_num_queries) -> None:
        with django_assert_num_queries(5):
            statistics.current()
        with django_assert_num_queries(0):
            statistics.current()

    def test_is_for_those_who_may_view_tokens(self) -> None:
        assert "sipgate-board" not in staff("view_user").get("/admin/").content.decode()
        assert (
            "sipgate-board"
            in staff("view_sipgatetoken", name="tina").get("/admin/").content.decode()
        )

    @pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-07-01"])
    def test_the_day_the_clocks_change(self, day: str) -> None:
        from datetime import datetime

        now = timezone.make_aware(datetime.fromisoformat(f"{day}T15:20:00"))  # made aware here
        TokenEvent.objects.add(
            "failed", uid="1w0", actor="gate", at=now - timedelta(hours=13, minutes=30)
        )
        populate(1, refresh_expires_at=now + timedelta(days=1))
        found = statistics.measure(now)
        assert sum(number for _moment, number in found.failures) == 1
        assert sum(number for _moment, number in found.deadlines) == 1


@pytest.mark.django_db(transaction=True)
def test_no_secret_in_any_page(browser: Browser, boss: Client, secrets: Secrets, caplog) -> None:
    browser.sign_in()
    connection = SocialAccount.objects.get()
    pages = []
    for fault in ("", "unknown-error", "malformed-json", "invalid-grant"):
        for operation in operations.Operation:
            if fault:
                browser.sandbox.control.fault(
                    fault, on="refresh" if operation == "refresh" else "account"
                )
            pages.append(choose(boss, f"{operation}_selected", connection.pk))
            response = choose(
                boss, f"{operation}_selected", connection.pk, confirmed="yes", detail=connection.pk
            )
            pages.append(boss.get(response.headers["Location"]))
            if operation in {"revoke", "require_sign_in"}:
                browser.sandbox.control.clear()
                browser.sign_in()
    assert tokens.errands.wait_idle(10)
    for path in (
        TOKENS,
        EVENTS,
        f"{EVENTS}export.csv",
        "/admin/",
        "/admin/sipgate_provider/revocation/",
        f"/admin/socialaccount/socialaccount/{connection.pk}/change/",
        f"/admin/socialaccount/socialaccount/{connection.pk}/delete/",
        f"/admin/auth/user/{connection.user_id}/delete/",
    ):
        pages.append(boss.get(path))
    assert len(secrets.known) >= 8
    for page in pages:
        body = page.getvalue() if page.streaming else page.content
        assert page.status_code == 200
        secrets.assert_absent("an admin page", body)
        assert bytes(SipgateToken.objects.get().sealed)[:24].hex().encode() not in body
    secrets.assert_absent("the log", caplog.text)

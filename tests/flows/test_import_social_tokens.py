"""Tokens that allauth kept in clear text are sealed, and the clear text goes; nothing is lost on the way."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import CommandError, call_command
from django.utils import timezone

from sipgate_provider import conf
from sipgate_provider.models import Reason, Revocation, SipgateToken, State, TokenEvent
from sipgate_provider.ops import import_social_tokens, keepalive, notices
from sipgate_provider.tokens import database, gate, sealing, store, threads
from sipgate_sandbox.launch import Running
from sipgate_sandbox.people import BY_UID
from tests.conftest import Connect
from tests.journey import Browser
from tests.strict import Strict

pytestmark = pytest.mark.django_db(transaction=True)

OIDC = "openid_connect-sipgate"


def jwt(**claims: Any) -> str:
    def part(data: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.c2lnbmF0dXJl"


@pytest.fixture
def clear(strict: Strict) -> Callable[..., SocialToken]:
    """Make a connection whose pair lies in allauth's table."""

    def make(**changes: Any) -> SocialToken:
        number = SocialAccount.objects.count()
        user = get_user_model().objects.create(
            username=f"person{number}", email=f"person{number}@sipgate.example"
        )
        account = SocialAccount.objects.create(
            user=user, provider="sipgate", uid=f"{2000000 + number}w0"
        )
        grant = strict.issue()[0]
        values = {
            "token": grant["access_token"],
            "token_secret": grant["refresh_token"],
            "expires_at": timezone.now() + timedelta(seconds=300),
        }
        return SocialToken.objects.create(account=account, **{**values, **changes})

    return make


def command(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Return exit code, report and what a person reads."""
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("sipgate_import_social_tokens", "--json", *arguments, stdout=out)
    return int(ended.value.code or 0), json.loads(out.getvalue()), out.getvalue()


class TestSealing:
    def test_a_pair_works_on_and_its_clear_text_is_gone(
        self, clear: Callable[..., SocialToken], strict: Strict
    ) -> None:
        row = clear()
        code, report, shown = command()
        assert (code, report["imported"], report["rows_removed"], report["need_sign_in"]) == (
            0,
            1,
            1,
            0,
        )
        assert not SocialToken.objects.exists()
        assert row.token not in shown
        assert gate.usable(row.account_id).value == row.token
        assert gate.refresh(row.account_id).generation == 2
        assert strict.counts()["rotated"] == 1
        event = TokenEvent.objects.get(kind=TokenEvent.Kind.CONNECTED)
        assert (event.uid, event.actor, event.state) == (
            row.account.uid,
            import_social_tokens.ACTOR,
            State.ACTIVE,
        )

    def test_an_ended_access_token_is_renewed_at_its_first_use(
        self, clear: Callable[..., SocialToken], strict: Strict
    ) -> None:
        row = clear(expires_at=timezone.now() - timedelta(days=3))
        assert command()[1]["need_sign_in"] == 0
        assert gate.usable(row.account_id).generation == 2
        assert strict.counts()["rotated"] == 1

    def test_upkeep_renews_what_nobody_uses(self, clear: Callable[..., SocialToken]) -> None:
        clear(expires_at=timezone.now() - timedelta(days=3))
        command()
        assert keepalive.run(rate=0).refreshed == 1

    def test_without_an_end_it_counts_from_the_last_sign_in(
        self, clear: Callable[..., SocialToken]
    ) -> None:
        row = clear(expires_at=None)
        SocialAccount.objects.update(last_login=timezone.now() - timedelta(days=5))
        command()
        stored = store.load(row.account_id)
        assert stored.expires_at < timezone.now() - timedelta(days=4)
        assert (stored.refresh_expires_at, stored.scope) == (None, "account:read")

    def test_what_the_tokens_say_of_themselves_is_kept(
        self, clear: Callable[..., SocialToken]
    ) -> None:
        now = int(timezone.now().timestamp())
        access = jwt(
            iat=now - 60, exp=now + 240, scope="account:read balance:read", azp="the-client"
        )
        row = clear(token=access, token_secret=jwt(iat=now - 60, exp=now + 86_340), expires_at=None)
        command()
        stored = store.load(row.account_id)
        assert (stored.scopes, stored.client_id) == (("account:read", "balance:read"), "the-client")
        assert (stored.issued_at.timestamp(), stored.expires_at.timestamp()) == (
            now - 60,
            now + 240,
        )
        assert stored.refresh_expires_at.timestamp() == now + 86_340

    def test_of_several_rows_the_newest_counts(self, clear: Callable[..., SocialToken]) -> None:
        row = clear()
        for ends in (None, timezone.now() - timedelta(hours=1)):
            SocialToken.objects.create(account=row.account, token="old-old-old", expires_at=ends)
        assert command()[1]["rows_removed"] == 3
        assert gate.usable(row.account_id).value == row.token


class TestNeverOverwritten:
    def test_a_newer_consent_stays(self, connect: Connect, strict: Strict) -> None:
        connection = connect()
        before = store.load(connection.pk)
        SocialToken.objects.create(
            account=connection, token="older-access", token_secret="older-refresh"
        )
        code, report, _shown = command()
        assert (code, report["kept"], report["imported"], report["rows_removed"]) == (0, 1, 0, 1)
        after = store.load(connection.pk)
        assert (after.generation, bytes(after.sealed)) == (1, bytes(before.sealed))
        assert not SocialToken.objects.exists()

    def test_one_that_waits_for_its_person_stays(self, connect: Connect) -> None:
        connection = connect(state=State.NEEDS_SIGN_IN, reason=Reason.REVOKED)
        SocialToken.objects.create(account=connection, token="access", token_secret="refresh")
        command()
        assert store.load(connection.pk).reason == Reason.REVOKED


class TestEnded:
    def test_without_a_refresh_token(self, clear: Callable[..., SocialToken]) -> None:
        ended = timezone.now() - timedelta(days=30)
        row = clear(token_secret="", expires_at=ended)
        assert command()[1]["need_sign_in"] == 1
        stored = store.load(row.account_id)
        assert (stored.state, stored.reason, stored.state_since) == (
            State.NEEDS_SIGN_IN,
            Reason.NO_REFRESH_TOKEN,
            ended,
        )
        assert not SocialToken.objects.exists()

    def test_a_refresh_token_that_is_over(
        self, clear: Callable[..., SocialToken], strict: Strict
    ) -> None:
        now = int(timezone.now().timestamp())
        row = clear(
            token=jwt(iat=now - 9_000, exp=now - 8_700),
            token_secret=jwt(exp=now - 60),
            expires_at=None,
        )
        command()
        assert store.load(row.account_id).reason == Reason.EXPIRED_IDLE
        assert strict.counts()["refresh"] == 0

    def test_an_access_token_alone_is_used_up(self, clear: Callable[..., SocialToken]) -> None:
        row = clear(token_secret="")
        command()
        assert (store.load(row.account_id).state, gate.usable(row.account_id).value) == (
            State.ACTIVE,
            row.token,
        )

    def test_nobody_is_mailed_about_what_is_long_known(
        self, clear: Callable[..., SocialToken]
    ) -> None:
        clear(token_secret="", expires_at=timezone.now() - timedelta(days=30))
        command()
        keepalive.run(rate=0)
        assert threads.errands.wait_idle(10)
        assert (mail.outbox, notices.due()) == ([], [])

    def test_what_holds_no_token_is_left_and_said(self, clear: Callable[..., SocialToken]) -> None:
        clear(token="")
        code, report, _shown = command()
        assert (code, report["unusable"], report["rows_removed"]) == (1, 1, 0)
        assert SocialToken.objects.count() == 1


class TestSafely:
    def test_a_dry_run_says_the_same_and_changes_nothing(
        self, clear: Callable[..., SocialToken]
    ) -> None:
        clear()
        clear(token_secret="", expires_at=timezone.now() - timedelta(days=30))
        told = command("--dry-run")[1]
        assert (
            SocialToken.objects.count(),
            SipgateToken.objects.count(),
            TokenEvent.objects.count(),
        ) == (2, 0, 0)
        done = command()[1]
        for name in ("connections", "imported", "need_sign_in", "rows_removed"):
            assert told[name] == done[name] != 0

    def test_an_interrupted_run_is_gone_on_with(self, clear: Callable[..., SocialToken]) -> None:
        rows = [clear() for _ in range(5)]

        def interrupt(report: import_social_tokens.Report) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_social_tokens.run(batch=2, progress=interrupt)
        assert (SipgateToken.objects.count(), SocialToken.objects.count()) == (2, 3)
        assert command()[1]["imported"] == 3
        assert [gate.usable(row.account_id).value for row in rows] == [row.token for row in rows]
        assert command()[1]["connections"] == 0

    def test_two_runs_at_once_adopt_each_connection_once(
        self, clear: Callable[..., SocialToken]
    ) -> None:
        rows = [clear() for _ in range(60)]
        begin = threading.Barrier(2)

        def one() -> import_social_tokens.Report:
            with database.own_connections():
                begin.wait()
                return import_social_tokens.run(batch=7)

        with ThreadPoolExecutor(2) as pool:
            reports = [future.result() for future in [pool.submit(one) for _ in range(2)]]
        assert sum(report.imported for report in reports) == 60
        assert (SipgateToken.objects.count(), SocialToken.objects.count()) == (60, 0)
        assert TokenEvent.objects.filter(kind=TokenEvent.Kind.CONNECTED).count() == 60
        assert {gate.usable(row.account_id).value for row in rows} == {row.token for row in rows}

    def test_without_a_key_nothing_is_touched(
        self, clear: Callable[..., SocialToken], settings: Any
    ) -> None:
        clear()
        settings.SIPGATE_TOKEN_KEYS = []
        with pytest.raises(CommandError, match="SIPGATE_TOKEN_KEYS"):
            call_command("sipgate_import_social_tokens", skip_checks=True)
        assert SocialToken.objects.count() == 1

    def test_another_provider_is_not_touched(self, clear: Callable[..., SocialToken]) -> None:
        row = clear()
        SocialAccount.objects.filter(pk=row.account_id).update(provider="google")
        assert command()[1]["connections"] == 0
        assert SocialToken.objects.count() == 1

    def test_it_says_that_clear_text_will_come_back(self, settings: Any) -> None:
        settings.SOCIALACCOUNT_STORE_TOKENS = True
        assert "SOCIALACCOUNT_STORE_TOKENS" in command()[1]["notes"][0]

    def test_for_people(self, clear: Callable[..., SocialToken]) -> None:
        clear()
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("sipgate_import_social_tokens", stdout=out)
        assert out.getvalue().startswith(
            "1 of 1 connections imported, 1 clear text rows removed, in "
        )

    @pytest.mark.parametrize("value", ["0", "-1", "many", "10001"])
    def test_a_batch_that_is_none(self, value: str) -> None:
        with pytest.raises(CommandError, match="whole number"):
            call_command("sipgate_import_social_tokens", "--batch", value)


class TestOtherProviders:
    """A site that used allauth's OpenID Connect provider with sipgate as its server."""

    @pytest.fixture
    def oidc(self, browser: Browser) -> Callable[..., SocialToken]:
        """Sign a person in, then make of it what the other provider would have left."""

        def make(uid: str = "1000000w0", *, kept_as: str = "", **changes: Any) -> SocialToken:
            browser.site.logout()
            browser.sipgate.cookies.clear()
            assert browser.sign_in(person=uid).status_code == 302
            account = SocialAccount.objects.get(uid=uid, provider="sipgate")
            row = store.load(account.pk)
            pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
            SipgateToken.objects.filter(pk=row.pk)._raw_delete(
                "default"
            )  # no disconnect: its session goes on
            SocialAccount.objects.filter(pk=account.pk).update(
                provider=OIDC,
                uid=kept_as or BY_UID[uid].keycloak_sub,
                extra_data={"userinfo": {"sub": "x"}},
            )
            values = {
                "token": pair.access_token,
                "token_secret": pair.refresh_token,
                "expires_at": row.expires_at,
            }
            return SocialToken.objects.create(account=account, **{**values, **changes})

        return make

    def test_a_connection_becomes_one_of_sipgate(
        self, oidc: Callable[..., SocialToken], browser: Browser, sandbox: Running
    ) -> None:
        row = oidc()
        user = row.account.user
        code, report, shown = command("--provider", OIDC)
        assert (code, report["rekeyed"], report["rows_removed"], report["foreign"]) == (
            0,
            1,
            1,
            0,
        ), report
        account = SocialAccount.objects.get()
        assert (account.pk, account.provider, account.uid, account.user) == (
            row.account_id,
            "sipgate",
            "1000000w0",
            user,
        )
        assert account.extra_data["oidc_sub"] == BY_UID["1000000w0"].keycloak_sub
        assert gate.usable(account).value == row.token
        assert row.token not in shown
        # And the person's next sign-in finds it.
        browser.site.logout()
        assert browser.sign_in().status_code == 302
        assert (SocialAccount.objects.count(), get_user_model().objects.count()) == (1, 1)

    @pytest.mark.parametrize("known_to_have_ended", [True, False])
    def test_an_ended_access_token_is_renewed_first_and_its_pair_is_kept(
        self, oidc: Callable[..., SocialToken], sandbox: Running, known_to_have_ended: bool
    ) -> None:
        changes = {"expires_at": timezone.now() - timedelta(hours=1)} if known_to_have_ended else {}
        row = oidc(**changes)
        sandbox.control.expire_access()
        assert command("--provider", OIDC)[1]["rekeyed"] == 1
        assert store.load(row.account_id).generation == 2
        state = sandbox.control.state()
        assert (state["rotations"], state["reuses"]) == (1, 0)

    def test_a_session_that_is_over_cannot_tell_whose_it_is(
        self, oidc: Callable[..., SocialToken], sandbox: Running
    ) -> None:
        row = oidc(expires_at=timezone.now() - timedelta(hours=1))
        sandbox.control.kill_session()
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["unidentified"], report["rekeyed"]) == (1, 1, 0)
        assert store.load(row.account_id).state == State.NEEDS_SIGN_IN
        assert SocialAccount.objects.get().provider == OIDC

    def test_while_sipgate_is_down_it_waits_and_nothing_is_lost(
        self, oidc: Callable[..., SocialToken], sandbox: Running
    ) -> None:
        row = oidc()
        sandbox.control.fault("unavailable", on="userinfo", times=2)
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["waiting"], report["rekeyed"]) == (1, 1, 0)
        assert SocialAccount.objects.get().provider == OIDC
        assert not SocialToken.objects.exists()
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["rekeyed"]) == (0, 1)
        assert gate.usable(row.account_id).value == row.token

    def test_a_sipgate_id_that_is_connected_already(
        self, oidc: Callable[..., SocialToken], sandbox: Running
    ) -> None:
        row = oidc()
        other = get_user_model().objects.create(username="other")
        SocialAccount.objects.create(user=other, provider="sipgate", uid="1000000w0")
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["taken"], report["rekeyed"]) == (1, 1, 0)
        assert "connected already" in report["notes"][0]
        account = SocialAccount.objects.get(pk=row.account_id)
        assert (account.provider, account.uid) == (OIDC, BY_UID["1000000w0"].keycloak_sub)
        assert SocialAccount.objects.get(user=other).uid == "1000000w0"
        assert not Revocation.objects.exists()

    def test_a_custom_provider_that_used_the_same_uid(
        self, oidc: Callable[..., SocialToken]
    ) -> None:
        row = oidc(kept_as="1000000w0")
        assert command("--provider", OIDC)[1]["rekeyed"] == 1
        assert SocialAccount.objects.get().pk == row.account_id

    def test_one_that_names_somebody_else_is_left_alone(
        self, oidc: Callable[..., SocialToken]
    ) -> None:
        oidc(kept_as="7654321w9")
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["taken"], report["rekeyed"]) == (1, 1, 0)
        assert SocialAccount.objects.get().uid == "7654321w9"

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "https://accounts.google.example"},
            {"azp": "another-client"},
            {"sub": "somebody-else"},
            None,
        ],
    )
    def test_a_token_that_is_not_provably_ours_is_shown_to_nobody(
        self, oidc: Callable[..., SocialToken], sandbox: Running, claims: dict[str, Any] | None
    ) -> None:
        right = {
            "iss": conf.issuer(),
            "azp": "1000000-1-sandbox:third-party",
            "sub": BY_UID["1000000w0"].keycloak_sub,
        }
        oidc(token="opaque-token-of-somebody" if claims is None else jwt(**{**right, **claims}))
        sandbox.control.reset()
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["foreign"], report["imported"]) == (1, 1, 0)
        assert SocialToken.objects.count() == 1
        asked = {name for name, number in sandbox.control.state().items() if number} - {
            "connections",
            "sessions_alive",
        }
        assert not asked

    def test_what_has_ended_is_left(
        self, oidc: Callable[..., SocialToken], sandbox: Running
    ) -> None:
        right = {
            "iss": conf.issuer(),
            "azp": "1000000-1-sandbox:third-party",
            "sub": BY_UID["1000000w0"].keycloak_sub,
        }
        then = timezone.now() - timedelta(days=1)
        oidc(token=jwt(**right), token_secret="", expires_at=then)
        code, report, _shown = command("--provider", OIDC)
        assert (code, report["unidentified"], SocialToken.objects.count()) == (1, 1, 1)
        assert not SipgateToken.objects.exists()

"""Ending grants at sipgate: what is meant and no more. An identity that is connected here is never ended."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.conf import settings as settings_of_site
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.utils import timezone

from sipgate_provider import errors, tokens
from sipgate_provider.models import Reason, Revocation, SipgateToken, State, TokenEvent
from sipgate_provider.ops import keepalive
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import consent, revocation, rows, sealing
from tests.conftest import Connect
from tests.journey import Browser
from tests.rotating_server import Strict

pytestmark = pytest.mark.django_db(transaction=True)

UID = "1000000w0"
FAMILY = "one browser session"


def grant(strict: Strict, family: str = FAMILY) -> oauth.Grant:
    return oauth.Grant.parse(
        strict.issue(family=family)[0],
        issued_at=datetime.now(UTC),
        client_id="1000000-1-sandbox:third-party",
    )


def sign_in(strict: Strict, *, username: str = "one", family: str = FAMILY) -> SocialAccount:
    """Connect the identity ``UID`` with a user of this site, as a completed sign-in does."""
    user, _ = get_user_model().objects.get_or_create(username=username)
    with transaction.atomic():
        connection, _ = SocialAccount.objects.get_or_create(user=user, provider="sipgate", uid=UID)
        tokens.store(connection, grant(strict, family))
    return connection


def disconnect(connection: SocialAccount) -> None:
    connection.delete()
    assert tokens.errands.wait_idle(10)


def make_due() -> None:
    Revocation.objects.filter(next_attempt_at__isnull=False).update(next_attempt_at=timezone.now())


def kinds() -> list[str]:
    return list(TokenEvent.objects.order_by("id").values_list("kind", flat=True))


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def pending(strict: Strict) -> Revocation:
    """A disconnect whose revocation sipgate answered with 503."""
    connection = sign_in(strict)
    strict.set(fault="503", times=1)
    disconnect(connection)
    return Revocation.objects.get()


class TestTheJourney:
    """With the sandbox, which keeps one session per browser, as sipgate does."""

    def test_a_late_revocation_does_not_end_a_later_sign_in(self, browser: Browser) -> None:
        browser.sign_in()
        for place in ("revoke", "logout"):
            browser.sandbox.control.fault("unavailable", on=place)
        browser.site.post("/accounts/3rdparty/", {"account": SocialAccount.objects.get().pk})
        SocialAccount.objects.all().delete()
        assert tokens.errands.wait_idle(10)
        assert Revocation.objects.get().last_error_code == "503"
        browser.sign_in()
        make_due()
        keepalive.run(rate=0)
        assert tokens.refresh(SocialAccount.objects.get(), by="test").generation == 2
        assert not {"revoke", "logout"} & set(browser.sandbox.control.state())

    def test_a_disconnect_does_not_end_other_applications(self, browser: Browser) -> None:
        browser.sign_in()
        SocialAccount.objects.all().delete()
        assert tokens.errands.wait_idle(10)
        state = browser.sandbox.control.state()
        assert (state["revoke"], "logout" in state) == (1, False)


class TestTheIdentityDecides:
    def test_a_consent_withdraws_what_is_pending(self, pending: Revocation, strict: Strict) -> None:
        sign_in(strict)
        row = Revocation.objects.get()
        assert (bytes(row.sealed), row.next_attempt_at) == (b"", None)
        assert revocation.deliver(pending.pk)
        assert strict.counts()["dead"] == 0

    def test_with_the_consent_or_not_at_all(self, pending: Revocation, strict: Strict) -> None:
        with transaction.atomic():
            sign_in(strict)
            transaction.set_rollback(True)
        make_due()
        assert keepalive.run(rate=0).endings_done == 1
        assert strict.counts()["dead"] == 1

    def test_two_users_with_one_identity(self, pending: Revocation, strict: Strict) -> None:
        connection = sign_in(strict, username="another", family="another browser")
        make_due()
        keepalive.run(rate=0)
        assert strict.counts()["revoke"] == 0
        assert tokens.refresh(connection, by="test").generation == 2

    @pytest.mark.parametrize("state", [State.ACTIVE, State.FAILING, State.NEEDS_SIGN_IN])
    def test_it_is_looked_at_directly_before_the_request(
        self, pending: Revocation, strict: Strict, state: State
    ) -> None:
        """Whatever put the connection there: nobody told the outbox."""
        user = get_user_model().objects.create(username="other")
        connection = SocialAccount.objects.create(user=user, provider="sipgate", uid=UID)
        rows.consent(connection, grant(strict), scope=[], now=timezone.now())
        SipgateToken.objects.update(
            state=state, reason=Reason.REFUSED if state != State.ACTIVE else ""
        )
        make_due()
        assert keepalive.run(rate=0).endings_done == 1
        assert (strict.counts()["dead"], Revocation.objects.count()) == (0, 0)
        assert kinds()[-1] == "revocation_dropped"

    def test_a_connection_that_was_ended_here_protects_nothing(
        self, pending: Revocation, strict: Strict
    ) -> None:
        user = get_user_model().objects.create(username="other")
        connection = SocialAccount.objects.create(user=user, provider="sipgate", uid=UID)
        row, _ = rows.consent(connection, grant(strict), scope=[], now=timezone.now())
        assert rows.clear(row, reason=Reason.REVOKED, now=timezone.now())
        make_due()
        keepalive.run(rate=0)
        assert strict.counts()["dead"] == 1

    def test_nor_does_one_of_another_client_or_another_identity(
        self, pending: Revocation, strict: Strict, connect: Connect
    ) -> None:
        Revocation.objects.update(client_id="1000000-1-sandbox:third-party")
        SocialAccount.objects.create(
            user=get_user_model().objects.create(username="x"), provider="sipgate", uid="another"
        )
        other = connect(client_id="1-1-another")
        SocialAccount.objects.filter(uid=UID).delete()
        SocialAccount.objects.filter(pk=other.pk).update(uid=UID)
        make_due()
        keepalive.run(rate=0)
        assert strict.counts()["dead"] == 1

    def test_somebody_elses_connection_protects_nothing(
        self, pending: Revocation, strict: Strict, connect: Connect
    ) -> None:
        SocialAccount.objects.filter(pk=connect().pk).update(uid="9999999w9")
        make_due()
        keepalive.run(rate=0)
        assert strict.counts()["dead"] == 1

    def test_a_sign_in_in_another_browser_ends_nothing(self, strict: Strict, settings: Any) -> None:
        """Not even after the first key of the ring has changed."""
        sign_in(strict, family="one browser")
        settings.SIPGATE_TOKEN_KEYS = [
            "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb28=",
            *settings.SIPGATE_TOKEN_KEYS,
        ]
        sign_in(strict, family="one browser")
        sign_in(strict, family="another browser")
        assert tokens.errands.wait_idle(10)
        assert (
            strict.counts()["revoke_asked"],
            strict.counts()["dead"],
            Revocation.objects.count(),
        ) == (0, 0, 0)

    def test_a_grant_of_nobody_knows_whom_is_not_ended(
        self, connect: Connect, strict: Strict
    ) -> None:
        row = tokens.load(connect().pk)
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        assert (
            revocation.enqueue(pair, uid="", user=None, why="of an unknown", connection_id=4711)
            is None
        )
        event = TokenEvent.objects.get(kind="revocation_failed")
        assert (event.error_code, event.note) == ("unknown_identity", "of an unknown")

    def test_the_removal_of_a_connection_tells_whose_it_was(
        self, connect: Connect, strict: Strict
    ) -> None:
        connection = connect()
        pk, row = connection.pk, tokens.load(connection.pk)
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        disconnect(connection)
        late = revocation.enqueue(pair, uid="", user=None, why="late", connection_id=pk)
        assert late is not None
        assert late.uid == connection.uid


class TestUnderWay:
    """A request that has left cannot be called back: whoever signs in meanwhile begins again."""

    def test_a_consent_waits_for_it_and_begins_again(self, strict: Strict) -> None:
        connection = sign_in(strict)
        began = timezone.now()
        strict.set(latency=1)
        connection.delete()
        until(lambda: strict.counts()["revoke_asked"] == 1)
        connection = sign_in(strict)
        started = time.monotonic()
        assert revocation.sent_since(began, uid=UID)
        assert time.monotonic() - started > 0.2, "it was waited for"
        assert strict.counts()["dead"] == 1, "the new pair is dead indeed"
        # The sign-in that is begun again finds nothing.
        assert not revocation.sent_since(timezone.now(), uid=UID)

    def test_one_that_ended_before_the_sign_in_began_does_not_count(self, strict: Strict) -> None:
        began = timezone.now()
        disconnect(sign_in(strict))
        assert revocation.sent_since(began, uid=UID)
        assert revocation.sent_since(began)
        assert not revocation.sent_since(began, uid="another")
        assert not revocation.sent_since(timezone.now(), uid=UID)

    def test_one_that_was_answered_with_an_error_may_have_arrived(self, strict: Strict) -> None:
        began, connection = timezone.now(), sign_in(strict)
        strict.set(fault="503", times=1)
        disconnect(connection)
        sign_in(strict)
        assert revocation.sent_since(began, uid=UID)
        assert not revocation.sent_since(timezone.now(), uid=UID)

    def test_one_that_was_not_sent_does_not_count(self, strict: Strict) -> None:
        began = timezone.now()
        Revocation.objects.create(
            uid=UID, sealed=b"x", created_at=began, give_up_at=began, next_attempt_at=began
        )
        assert not revocation.sent_since(began, uid=UID)
        sign_in(strict)
        assert not Revocation.objects.exists()

    def test_one_whose_worker_was_killed(self, strict: Strict) -> None:
        now, long_ago = timezone.now(), timezone.now() - revocation.CLAIM_FOR * 2
        made = {"uid": UID, "created_at": now, "give_up_at": now}
        Revocation.objects.create(sealed=b"x", next_attempt_at=now, sent_at=now, **made)
        assert revocation.sent_since(now, uid=UID, wait=0)
        sign_in(strict)
        assert revocation.sent_since(now, uid=UID, wait=0)
        Revocation.objects.update(sent_at=long_ago)
        assert not revocation.sent_since(now, uid=UID, wait=0)

    def test_patience_ends(self, strict: Strict) -> None:
        now = timezone.now()
        later = now + timedelta(minutes=1)
        Revocation.objects.create(
            uid=UID,
            sealed=b"x",
            created_at=now,
            give_up_at=later,
            next_attempt_at=later,
            sent_at=now,
        )
        started = time.monotonic()
        assert revocation.sent_since(now, uid=UID, wait=0.3)
        assert 0.2 < time.monotonic() - started < 2

    @pytest.mark.skipif(
        connections["default"].vendor == "sqlite",
        reason="there, whoever writes waits for the consent's commit",
    )
    def test_one_that_was_sent_while_the_consent_was_stored(self, strict: Strict) -> None:
        """It could see neither the connection nor the withdrawal."""
        began = timezone.now()
        pair = _pair(grant(strict))
        with transaction.atomic():
            sign_in(strict)

            def another_process() -> None:
                revocation.enqueue(pair, uid=UID, user=None, why="of another process")
                connections.close_all()

            other = threading.Thread(target=another_process)
            other.start()
            other.join()
            assert tokens.errands.wait_idle(10)
        assert strict.counts()["dead"] == 1
        assert revocation.sent_since(began, uid=UID)

    def test_every_interleaving_of_consent_and_delivery_is_noticed_or_harmless(
        self, strict: Strict
    ) -> None:
        """Many times at once: the new pair lives, or ``sent_since`` says that it may not."""
        noticed = lived = 0
        for number in range(12):
            family = f"session {number}"
            began = timezone.now()
            row = revocation.enqueue(_pair(grant(strict, family)), uid=UID, user=None, why="race")
            assert row is not None
            late = threading.Thread(target=_slowly, args=(row.pk, 0.004 * (number % 6)))
            late.start()
            connection = sign_in(strict, family=family)
            is_doubtful = revocation.sent_since(began, uid=UID)
            late.join()
            assert tokens.errands.wait_idle(10)
            try:
                tokens.refresh(connection, by="test")
                lived += 1
            except errors.NeedsSignIn:
                assert is_doubtful, "the pair is dead, and nobody was told"
            noticed += is_doubtful
            # Away with both, without a disconnect.
            SipgateToken.objects.all()._raw_delete("default")
            SocialAccount.objects.all()._raw_delete("default")
        assert noticed + lived >= 12


def _pair(grant: oauth.Grant) -> sealing.Pair:
    return sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)


def _slowly(pk: uuid.UUID, pause: float) -> None:
    time.sleep(pause)
    try:
        revocation.deliver(pk)
    finally:
        connections.close_all()


class TestWhatCannotSucceed:
    @pytest.mark.parametrize("status", [404, 405, 501])
    def test_logout_where_there_is_no_revocation(self, strict: Strict, status: int) -> None:
        strict.set(without="revoke", status=status)
        disconnect(sign_in(strict))
        assert (strict.counts()["logout"], strict.counts()["dead"]) == (1, 1)
        assert TokenEvent.objects.get(kind="revocation").note == "disconnected (logout)"

    def test_logout_because_the_operator_says_so(self, strict: Strict, settings: Any) -> None:
        settings.SIPGATE_REVOKE_URL = "off"
        disconnect(sign_in(strict))
        assert (strict.counts()["revoke_asked"], strict.counts()["logout"]) == (0, 1)

    def test_never_by_logout_because_the_operator_says_so(
        self, strict: Strict, settings: Any
    ) -> None:
        settings.SIPGATE_LOGOUT_URL = "off"
        strict.set(without="revoke")
        disconnect(sign_in(strict))
        assert (strict.counts()["revoke_asked"], strict.counts()["logout_asked"]) == (1, 0)

    def test_neither_exists_and_nothing_sealed_waits(self, strict: Strict) -> None:
        strict.set(without="both")
        disconnect(sign_in(strict))
        row = Revocation.objects.get()
        assert (bytes(row.sealed), row.next_attempt_at, revocation.due()) == (b"", None, [])
        assert TokenEvent.objects.get(kind="revocation_failed").error_code == "no_endpoint"

    def test_a_token_that_nobody_knows(self, strict: Strict, settings: Any) -> None:
        pair = sealing.Pair(access_token="at", refresh_token="unknown")
        for settings.SIPGATE_REVOKE_URL in ("", "off"):
            revocation.enqueue(pair, uid=UID, user=None, why="unknown")
            assert tokens.errands.wait_idle(10)
        assert not Revocation.objects.filter(next_attempt_at__isnull=False).exists()
        assert not Revocation.objects.exclude(sealed=b"").exists()
        assert (strict.counts()["revoke_unknown"], strict.counts()["logout_unknown"]) == (1, 1)

    @pytest.mark.parametrize(
        "origin",
        [
            {"client_id": "1-1-another:third-party"},
            {"issuer": "https://login.example/realms/x"},
            {"site": "https://crm.example.org"},
        ],
        ids=lambda origin: next(iter(origin)),
    )
    def test_a_grant_of_another_client_server_or_site_is_not_sent(
        self, pending: Revocation, strict: Strict, origin: dict[str, str]
    ) -> None:
        assert pending.client_id == "1000000-1-sandbox:third-party"
        assert pending.issuer
        assert pending.site == "http://localhost:8080"
        Revocation.objects.update(**origin)
        make_due()
        assert keepalive.run(rate=0).endings_waiting == 1
        assert strict.counts()["revoke_asked"] == 0


class TestFinishedRows:
    def test_stay_for_a_while_without_a_secret(self, strict: Strict) -> None:
        disconnect(sign_in(strict))
        row = Revocation.objects.get()
        assert (bytes(row.sealed), row.next_attempt_at) == (b"", None)
        keepalive.run(rate=0)
        assert Revocation.objects.count() == 1
        Revocation.objects.update(
            sent_at=timezone.now() - revocation.REMEMBERED - timedelta(seconds=1)
        )
        keepalive.run(rate=0)
        assert not Revocation.objects.exists()

    def test_a_pending_one_is_not_forgotten(self, pending: Revocation) -> None:
        Revocation.objects.update(sent_at=timezone.now() - timedelta(hours=5))
        revocation.forget_finished()
        assert Revocation.objects.exists()


class TestPendingRows:
    def test_a_token_opens_in_its_own_row_only(self, pending: Revocation, strict: Strict) -> None:
        other = Revocation.objects.get()
        other.pk = uuid.uuid4()
        other.save(force_insert=True)
        make_due()
        assert not revocation.deliver(other.pk)
        assert strict.counts()["revoke"] == 0
        assert Revocation.objects.get(pk=other.pk).attempts == pending.attempts + 1

    def test_the_next_try_is_half_an_hour_away_at_most(
        self, pending: Revocation, strict: Strict
    ) -> None:
        Revocation.objects.update(attempts=11, next_attempt_at=timezone.now())
        strict.set(fault="503", times=1)
        assert not revocation.deliver(pending.pk)
        assert Revocation.objects.get().next_attempt_at <= timezone.now() + timedelta(minutes=30)

    def test_without_the_key_its_connection_and_user_can_still_be_deleted(
        self, strict: Strict, settings: Any
    ) -> None:
        user = sign_in(strict).user
        settings.SIPGATE_TOKEN_KEYS = ["b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="]
        user.delete()
        assert not SocialAccount.objects.exists()


class TestTheCallback:
    """A sign-in during which an old grant of its identity was ended begins again, once."""

    def begin(self, browser: Browser) -> str:
        """Have a revocation pending, and a code of a new sign-in in the same browser. Returns the callback."""
        browser.sign_in()
        browser.sandbox.control.fault("unavailable", on="revoke")
        SocialAccount.objects.all().delete()
        assert tokens.errands.wait_idle(10)
        make_due()
        return browser.consent(browser.start(next_url="/?here=1"))

    def go_on(self, browser: Browser, answer: Any) -> Any:
        """Follow the answer of a callback to sipgate and back."""
        assert answer.headers["Location"].startswith(str(settings_of_site.SIPGATE_AUTH_URL))
        return browser.site.get(browser.consent(answer.headers["Location"]))

    def test_the_code_is_dead_already(self, browser: Browser) -> None:
        callback = self.begin(browser)
        assert keepalive.run(rate=0).endings_done == 1
        again = browser.site.get(callback)
        assert self.go_on(browser, again).headers["Location"] == "/?here=1"
        assert tokens.refresh(SocialAccount.objects.get(), by="test").generation == 2

    def test_it_is_on_its_way_while_the_pair_is_fetched(self, browser: Browser) -> None:
        """It was sent before the consent was stored, and arrives afterwards."""
        callback = self.begin(browser)
        browser.sandbox.control.fault("slow", on="revoke", seconds=1.5)
        late = threading.Thread(target=_slowly, args=(Revocation.objects.get().pk, 0))
        late.start()
        until(lambda: Revocation.objects.filter(answered_at=None).exists())
        again = browser.site.get(callback)
        late.join()
        assert self.go_on(browser, again).headers["Location"] == "/?here=1"
        assert tokens.refresh(SocialAccount.objects.get(), by="test").generation >= 2

    def test_a_sign_in_after_it_goes_straight_through(self, browser: Browser) -> None:
        self.begin(browser)
        assert keepalive.run(rate=0).endings_done == 1
        assert browser.sign_in(next_url="/?here=1").headers["Location"] == "/?here=1"

    def test_a_sign_up_that_waits_for_a_form_keeps_its_grant(
        self, browser: Browser, settings: Any
    ) -> None:
        callback = self.begin(browser)
        settings.SOCIALACCOUNT_AUTO_SIGNUP = False
        form = browser.site.get(callback).headers["Location"]
        assert keepalive.run(rate=0).endings_done == 0
        answer = browser.site.post(form, {"username": "rosa", "email": "rosa@rosenduft.example"})
        assert answer.status_code == 302
        assert tokens.refresh(SocialAccount.objects.get(), by="test").generation == 2

    def test_once(self, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tokens, "may_have_ended", lambda uid, *, since: True)
        answer = browser.sign_in(next_url="/?here=1")
        assert self.go_on(browser, answer).headers["Location"] == "/?here=1"

    def test_not_for_who_ended_access_and_only_signs_in(self, browser: Browser) -> None:
        browser.sign_in()
        consent.end_access(SocialAccount.objects.get())
        assert tokens.errands.wait_idle(10)
        assert browser.sign_in(next_url="/?here=1").headers["Location"] == "/?here=1"
        assert tokens.errands.wait_idle(10)
        assert browser.sandbox.control.state()["revoke"] == 2, (
            "what was stored, and what this sign-in brought"
        )

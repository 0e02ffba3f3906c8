"""A new key takes an old one's place in everything that is sealed, while the site runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from sipgate_provider import background, tokens
from sipgate_provider.models import Ending, Reason, SipgateToken
from sipgate_provider.tokens import endings, rows, sealing
from tests.concurrency import points
from tests.conftest import Connect
from tests.flows.conftest import command, go_back, waiting
from tests.named import replace
from tests.processes import die_at, workers
from tests.rotator import Rotator

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = (
    "b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xkLW9sZDE=",
    "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldzE=",
)


def test_everything_moves_to_the_new_key_and_nothing_is_lost(sealed, settings):
    settings.SIPGATE_TOKEN_KEYS = [NEW, OLD]
    code, said = command("sipgate_reseal")
    assert code == 0
    assert "5 tokens, 1 pending endings and 2 journal entries sealed" in said
    assert "When this command has said so on each machine" in said
    settings.SIPGATE_TOKEN_KEYS = [NEW]
    assert tokens.status().keys == {tokens.key_ids()[0]: 8}
    sealed.check()


def test_what_does_not_open_is_left_and_counted(sealed, settings):
    settings.SIPGATE_TOKEN_KEYS = [NEW]
    report = tokens.reseal()
    assert report == tokens.Resealed(unreadable=8, left=8)
    code, said = command("sipgate_reseal")
    assert code == 1
    assert "8 do not open" in said
    assert "8 still need another key" in said
    settings.SIPGATE_TOKEN_KEYS = [OLD]
    sealed.check()


@pytest.mark.parametrize("point", points.OF_KEY_CHANGE)
def test_killed_in_the_middle_it_is_gone_on_with(sealed, settings, point):
    settings.SIPGATE_TOKEN_KEYS = [NEW, OLD]
    die_at(point, tokens.reseal)
    report = tokens.reseal()
    assert (report.tokens + report.endings + report.journal > 0, report.left) == (True, 0)
    settings.SIPGATE_TOKEN_KEYS = [NEW]
    assert set(tokens.status().keys) == {tokens.key_ids()[0]}
    sealed.check()


def test_what_another_process_with_other_keys_writes_meanwhile_stays(connect, rotator, settings):
    """Rolling: a process that was not restarted yet seals with the old key, and opens what the new
    one has sealed."""
    people = [connect(age=400) for _ in range(3)]
    settings.SIPGATE_TOKEN_KEYS = [OLD, NEW]
    with workers(1) as [worker]:
        settings.SIPGATE_TOKEN_KEYS = [NEW, OLD]

        def then_the_other_process_refreshes(real):
            def reseal(row):
                is_done = real(row)
                if row.pk == people[0].pk:
                    for connection in people[:2]:
                        assert worker.ask(connection=connection.pk)[0][:2] == ["ok", 2]
                return is_done

            return reseal

        undo = replace("tokens.rows.reseal", then_the_other_process_refreshes)
        report = tokens.reseal()
        undo()
        assert report == tokens.Resealed(tokens=2, journal=2, left=2), "two have an old key again"
        assert worker.ask(connection=people[1].pk)[0][:2] == ["ok", 2], (
            "it opens what the new key sealed"
        )
    assert tokens.reseal().left == 0
    settings.SIPGATE_TOKEN_KEYS = [NEW]
    assert [tokens.refresh(connection).number for connection in people] == [3, 3, 2]
    assert rotator.counts()["reuse"] == 0


def test_a_row_that_changes_under_it_wins(connect, settings):
    connection = connect(age=400)
    settings.SIPGATE_TOKEN_KEYS = [NEW, OLD]
    stale = tokens.load(connection.pk)
    value = tokens.token(connection).value
    assert not rows.reseal(stale)
    assert tokens.token(connection).value == value


def test_an_ending_that_is_cancelled_under_it_is_not_brought_back(sealed, settings, monkeypatch):
    settings.SIPGATE_TOKEN_KEYS = [NEW, OLD]
    real = sealing.seal

    def seal(*args, **how):
        Ending.objects.all().delete()
        return real(*args, **how)

    monkeypatch.setattr(sealing, "seal", seal)
    assert endings.reseal() == (0, 0)
    assert not Ending.objects.exists()


def test_ended_tokens_need_no_key(connect, settings):
    connection = connect()
    rows.forget(tokens.load(connection.pk), reason=Reason.REVOKED)
    settings.SIPGATE_TOKEN_KEYS = [NEW]
    assert tokens.status().keys == {}
    assert tokens.reseal().left == 0
    assert SipgateToken.objects.get().sealed == ""


def test_a_sign_in_under_way_survives_the_change_but_not_the_removal(browser, settings):
    settings.SIPGATE_TOKEN_KEYS = [OLD]
    callback = browser.consent(browser.start())
    settings.SIPGATE_TOKEN_KEYS = [NEW, OLD]
    assert browser.site.get(callback).status_code == 302
    settings.SIPGATE_TOKEN_KEYS = [OLD]
    late = browser.consent(browser.start())
    settings.SIPGATE_TOKEN_KEYS = [NEW]
    page = browser.site.get(late).content.decode()
    assert ("check SIPGATE_TOKEN_KEYS" in page, "Try again" in page) == (True, True)
    assert browser.site.get(browser.consent(browser.start())).status_code == 302


class Sealed:
    """One of everything that the old key seals."""

    def __init__(self, connect: Connect, rotator: Rotator) -> None:
        self.rotator = rotator
        self.rows = [connect() for _ in range(3)]
        self.values = [tokens.token(connection).value for connection in self.rows]
        self.refreshed = connect(age=400)
        self.before = SipgateToken.objects.filter(pk=self.refreshed.pk).values().get()
        self.value = tokens.token(self.refreshed).value
        self.unstored = connect(age=400)
        waiting(self.unstored, rotator)
        disconnected = connect()
        rotator.set(fault="503", times=1000)
        disconnected.delete()
        assert background.errands.wait_idle(10)
        rotator.set(fault="", times=0)

    def check(self) -> None:
        """Use everything: nothing is lost."""
        assert [tokens.token(connection).value for connection in self.rows] == self.values
        assert tokens.token(self.refreshed).value == self.value
        assert tokens.token(self.unstored).number == 2, "recovered from the journal"
        go_back(self.before)
        tokens.recover()
        assert tokens.token(self.refreshed).value == self.value, "evidence that was stored long ago"
        Ending.objects.update(next_attempt_at=timezone.now())
        ended = self.rotator.counts()["revoke"]
        assert list(tokens.deliver_endings()) == [True]
        assert self.rotator.counts()["revoke"] == ended + 1
        assert self.rotator.counts()["reuse"] == 0


@pytest.fixture(autouse=True)
def _old_key(settings: Any, folder: Path) -> None:
    settings.SIPGATE_TOKEN_KEYS = [OLD]


@pytest.fixture
def sealed(connect: Connect, rotator: Rotator) -> Sealed:
    return Sealed(connect, rotator)

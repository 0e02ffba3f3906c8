"""Breaks the seal, the refresh, the journal, the decision, the handing out and the ending."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db.models import Q, Value
from django.utils import timezone

from sipgate_provider.models import SipgateToken
from sipgate_provider.tokens import journal, rows
from tests.mutations import Rule, answers, becomes, forgets, lacks, told

SEALING = "tests/unit/test_sealing.py"
DECIDE = "tests/unit/test_decide.py"
BACKGROUND = "tests/unit/test_background.py"
REFRESH = "tests/flows/test_refresh.py"
JOURNAL = "tests/flows/test_journal.py"
TOKEN = "tests/flows/test_token.py"
FAILURES = "tests/flows/test_failures.py"
QUEUES = "tests/flows/test_queues.py"
ENDING = "tests/flows/test_ending.py"
KILLED = "tests/concurrency/test_killed.py"
PAIRS = "tests/concurrency/test_pairs.py"


def leaves_unanswered_alone(real: Any) -> Any:
    """The lease is taken without a note that the token may be spent."""

    def broken(row: Any, holder: str) -> bool:
        is_taken = bool(real(row, holder))
        SipgateToken.objects.filter(pk=row.pk).update(unanswered=row.unanswered)
        return is_taken

    return broken


def gives_back_unanswered(_real: Any) -> Any:
    return lambda attempt: attempt._noted(unanswered=True)


def keeps_the_version(real: Any) -> Any:
    """Tokens are forgotten, and those of a refresh under way find their place."""

    def broken(row: Any, **how: Any) -> None:
        real(row, **how)
        kept = {"consent": row.consent, "number": row.number}
        SipgateToken.objects.filter(pk=row.pk).update(**kept)

    return broken


def compared_alone(_real: Any) -> Any:
    return lambda paths: ((path, rows.load(journal.version_of(path).connection)) for path in paths)


def without_another_attempt(table: Any) -> Any:
    rejected = next(outcome for outcome in table if outcome == "rejected")
    return {**table, rejected: replace(table[rejected], shortest=None)}


def under_a_new_key(real: Any) -> Any:
    return lambda queue, _key, work: real(queue, object(), work)


RULES = [
    # --- sealing
    Rule(
        "what was sealed for one place opens in another",
        {
            "tokens.sealing.seal": told(place=""),
            "tokens.sealing.unseal": told(place=""),
        },
        SEALING,
    ),
    Rule(
        "the last key seals, instead of the first",
        {
            "tokens.sealing._keys": lambda real: lambda: dict(reversed(real().items())),
        },
        SEALING,
    ),
    Rule(
        "what was sealed with a former key does not open",
        {"tokens.sealing._keys": lambda real: lambda: dict([next(iter(real().items()))])},
        SEALING,
    ),
    # --- the refresh: who may send
    Rule(
        "processes of one machine do not exclude each other",
        {"tokens.lock._locked": answers(True)},
        PAIRS,
    ),
    Rule(
        "a lease is no reason to wait",
        {"tokens.lease.take": forgets("lease_until")},
        REFRESH,
    ),
    Rule(
        "a lease ends at once",
        {"tokens.lease.LENGTH": becomes(timedelta(seconds=-1))},
        REFRESH,
    ),
    Rule(
        "a lease ends by the clock of this machine",
        {"tokens.lease.Now": lambda _real: lambda: Value(timezone.now())},
        REFRESH,
    ),
    *(
        Rule(
            f"a lease is taken although the row has another {column} than it had",
            {"tokens.rows.as_read": lacks(column)},
            REFRESH,
        )
        for column in ("consent", "number", "state", "next_attempt_at", "unanswered")
    ),
    Rule(
        "a token that was sent and not answered does not count as unanswered",
        {"tokens.lease.take": leaves_unanswered_alone},
        f"{REFRESH} {KILLED}",
    ),
    Rule(
        "a token that was not sent after all counts as unanswered",
        {"tokens.attempt.Attempt.give_back": gives_back_unanswered},
        REFRESH,
    ),
    Rule(
        "anybody gives a lease back",
        {"tokens.lease.give_back": forgets("lease_holder")},
        REFRESH,
    ),
    Rule(
        "nobody looks into the journal once the lease is taken",
        {"tokens.journal.newer": answers()},
        f"{JOURNAL} {KILLED}",
    ),
    Rule(
        "nobody asks whether enough of the lease is left",
        {"tokens.refresh.LATEST": becomes(math.nan)},
        REFRESH,
    ),
    Rule(
        "a process that is about to end sends",
        {"background.check_not_ending": answers()},
        f"{REFRESH} {BACKGROUND} {QUEUES}",
    ),
    Rule(
        "another client's token is sent",
        {"tokens.clients.why_not_ours": answers()},
        "tests/flows/test_keepalive.py",
    ),
    Rule(
        "a database connection is held while sipgate is asked",
        {"database.release_connections": answers()},
        REFRESH,
        postgresql=True,
    ),
    Rule(
        "a caller that holds SQLite's lock waits for itself",
        {"database.caller_holds_lock": answers(False)},
        TOKEN,
    ),
    # --- the refresh: what came of it
    Rule(
        "new tokens are stored without being journaled",
        {"tokens.journal.write": answers()},
        f"{JOURNAL} {KILLED}",
    ),
    Rule(
        "files that a later one makes needless stay",
        {"tokens.journal.forget_older": answers()},
        JOURNAL,
    ),
    Rule(
        "tokens are stored on top of another consent",
        {"tokens.rows.store_refreshed": forgets("consent")},
        REFRESH,
    ),
    Rule(
        "tokens are stored on top of newer ones",
        {"tokens.rows.store_refreshed": forgets("number")},
        REFRESH,
    ),
    Rule(
        "a refresh undoes an administrator's wish for a new sign-in",
        {"tokens.rows.ASKED": becomes(Q(pk=None))},
        REFRESH,
    ),
    Rule(
        "tokens that came after the disconnect live on",
        {"tokens.endings.add_late": answers()},
        TOKEN,
    ),
    Rule(
        "a consent and a refresh under way are of the same version",
        {"tokens.rows.forget": keeps_the_version},
        TOKEN,
    ),
    # --- the journal
    Rule(
        "a file is not bound to its version",
        {"tokens.journal._place": answers("journal")},
        JOURNAL,
    ),
    Rule(
        "a file whose key is missing counts as broken",
        {"tokens.sealing.KeyMissing": becomes(type("KeyMissing", (ValueError,), {}))},
        f"{JOURNAL} {KILLED}",
    ),
    Rule(
        "a process that starts recovers nothing",
        {"tokens.journal.recover_all": answers(0)},
        f"{JOURNAL} {KILLED}",
    ),
    Rule(
        "an empty database is one that everybody has left",
        {"tokens.journal._compared": compared_alone},
        JOURNAL,
    ),
    # --- the decision
    Rule(
        "a rejected token is never tried again",
        {"tokens.decide.TABLE": without_another_attempt},
        f"{DECIDE} {FAILURES}",
    ),
    Rule(
        "a rejection after an unanswered request is not a lost rotation",
        {"tokens.decide._why_rejected": told(unanswered=False)},
        f"{DECIDE} {KILLED}",
    ),
    Rule(
        "a wish of sipgate's to wait is ignored",
        {"tokens.decide.decide": told(wish=0.0)},
        f"{DECIDE} {FAILURES}",
    ),
    Rule(
        "no answer counts as an answer",
        {"tokens.decide.decide": told(is_answer=True)},
        f"{DECIDE} {REFRESH}",
    ),
    Rule(
        "a client that sipgate rejects is tried again at once",
        {"tokens.clients.check_not_paused": answers()},
        FAILURES,
    ),
    Rule(
        "nobody hears that a connection works again",
        {"tokens.attempt.Attempt.succeeded": answers()},
        FAILURES,
    ),
    # --- handing out
    Rule(
        "a token that is rejected right after its refresh is refreshed again",
        {"tokens.access._check_not_too_soon": answers()},
        TOKEN,
    ),
    Rule(
        "nobody refreshes before the end",
        {"tokens.access._refresh_behind": answers()},
        TOKEN,
    ),
    Rule(
        "each caller of a process refreshes",
        {"background.Queue.submit_once": under_a_new_key},
        BACKGROUND,
    ),
    # --- the ending
    Rule(
        "access that a user ends lives on at sipgate",
        {"tokens.endings.add": answers()},
        ENDING,
    ),
    Rule(
        "a grant is ended although its identity is connected",
        {"tokens.endings._is_connected": answers(False)},
        ENDING,
    ),
    Rule(
        "a connection of anybody protects a grant",
        {"tokens.endings._is_connected": forgets("connection")},
        ENDING,
    ),
    Rule(
        "a connection of another client protects a grant",
        {"tokens.endings._is_connected": forgets("client_id")},
        ENDING,
    ),
    Rule(
        "a connection that was ended here protects a grant",
        {"tokens.endings._is_connected": forgets("sealed")},
        ENDING,
    ),
    Rule(
        "a consent leaves what is pending of its identity",
        {"tokens.endings.cancel": answers()},
        ENDING,
    ),
    Rule(
        "another client's grant is sent to be ended",
        {"tokens.clients.why_not_ours": answers()},
        ENDING,
    ),
    Rule(
        "pending tokens are not bound to their row",
        {"tokens.endings._place": answers("ending")},
        ENDING,
    ),
    Rule(
        "the pause between two attempts grows without end",
        {"tokens.endings.LONGEST_PAUSE": becomes(timedelta(days=365))},
        ENDING,
    ),
]

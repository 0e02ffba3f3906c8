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
from tests.mutations import Rules, answers, becomes, forgets, lacks, told

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


RULES: Rules = {
    SEALING: {
        "what was sealed for one place opens in another": {
            "tokens.sealing.seal": told(place=""),
            "tokens.sealing.unseal": told(place=""),
        },
        "the last key seals, instead of the first": {
            "tokens.sealing._keys": lambda real: lambda: dict(reversed(real().items()))
        },
        "what was sealed with a former key does not open": {
            "tokens.sealing._keys": lambda real: lambda: dict([next(iter(real().items()))])
        },
    },
    PAIRS: {
        "processes of one machine do not exclude each other": {"tokens.lock._locked": answers(True)}
    },
    REFRESH: {
        "a lease is no reason to wait": {"tokens.lease.take": forgets("lease_until")},
        "a lease ends at once": {"tokens.lease.LENGTH": becomes(timedelta(seconds=-1))},
        "a lease ends by the clock of this machine": {
            "tokens.lease.Now": lambda _real: lambda: Value(timezone.now())
        },
        **{
            f"a lease is taken although the row has another {column} than it had": {
                "tokens.rows.as_read": lacks(column)
            }
            for column in ("consent", "number", "state", "next_attempt_at", "unanswered")
        },
        "a token that was not sent after all counts as unanswered": {
            "tokens.attempt.Attempt.give_back": gives_back_unanswered
        },
        "anybody gives a lease back": {"tokens.lease.give_back": forgets("lease_holder")},
        "nobody asks whether enough of the lease is left": {
            "tokens.refresh.LATEST": becomes(math.nan)
        },
        "a database connection is held while sipgate is asked": {
            "database.release_connections": answers()
        },
        "tokens are stored on top of another consent": {
            "tokens.rows.store_refreshed": forgets("consent")
        },
        "tokens are stored on top of newer ones": {
            "tokens.rows.store_refreshed": forgets("number")
        },
        "a refresh undoes an administrator's wish for a new sign-in": {
            "tokens.rows.ASKED": becomes(Q(pk=None))
        },
    },
    f"{REFRESH} {KILLED}": {
        "a token that was sent and not answered does not count as unanswered": {
            "tokens.lease.take": leaves_unanswered_alone
        }
    },
    f"{JOURNAL} {KILLED}": {
        "nobody looks into the journal once the lease is taken": {
            "tokens.journal.newer": answers()
        },
        "new tokens are stored without being journaled": {"tokens.journal.write": answers()},
        "a file whose key is missing counts as broken": {
            "tokens.sealing.KeyMissing": becomes(type("KeyMissing", (ValueError,), {}))
        },
        "a process that starts recovers nothing": {"tokens.journal.recover_all": answers(0)},
    },
    f"{REFRESH} {BACKGROUND} {QUEUES}": {
        "a process that is about to end sends": {"background.check_not_ending": answers()}
    },
    "tests/flows/test_keepalive.py": {
        "another client's token is sent": {"tokens.clients.why_not_ours": answers()}
    },
    TOKEN: {
        "a caller that holds SQLite's lock waits for itself": {
            "database.caller_holds_lock": answers(False)
        },
        "tokens that came after the disconnect live on": {"tokens.endings.add_late": answers()},
        "a consent and a refresh under way are of the same version": {
            "tokens.rows.forget": keeps_the_version
        },
        "a token that is rejected right after its refresh is refreshed again": {
            "tokens.access._check_not_too_soon": answers()
        },
        "nobody refreshes before the end": {"tokens.access._refresh_behind": answers()},
    },
    JOURNAL: {
        "files that a later one makes needless stay": {"tokens.journal.forget_older": answers()},
        "a file is not bound to its version": {"tokens.journal._place": answers("journal")},
        "an empty database is one that everybody has left": {
            "tokens.journal._compared": compared_alone
        },
    },
    f"{DECIDE} {FAILURES}": {
        "a rejected token is never tried again": {"tokens.decide.TABLE": without_another_attempt},
        "a wish of sipgate's to wait is ignored": {"tokens.decide.decide": told(wish=0.0)},
    },
    f"{DECIDE} {KILLED}": {
        "a rejection after an unanswered request is not a lost rotation": {
            "tokens.decide._why_rejected": told(unanswered=False)
        }
    },
    f"{DECIDE} {REFRESH}": {
        "no answer counts as an answer": {"tokens.decide.decide": told(is_answer=True)}
    },
    FAILURES: {
        "a client that sipgate rejects is tried again at once": {
            "tokens.clients.check_not_paused": answers()
        },
        "nobody hears that a connection works again": {
            "tokens.attempt.Attempt.succeeded": answers()
        },
    },
    BACKGROUND: {
        "each caller of a process refreshes": {"background.Queue.submit_once": under_a_new_key}
    },
    ENDING: {
        "access that a user ends lives on at sipgate": {"tokens.endings.add": answers()},
        "a grant is ended although its identity is connected": {
            "tokens.endings._is_connected": answers(False)
        },
        "a connection of anybody protects a grant": {
            "tokens.endings._is_connected": forgets("connection")
        },
        "a connection of another client protects a grant": {
            "tokens.endings._is_connected": forgets("client_id")
        },
        "a connection that was ended here protects a grant": {
            "tokens.endings._is_connected": forgets("sealed")
        },
        "a consent leaves what is pending of its identity": {"tokens.endings.cancel": answers()},
        "another client's grant is sent to be ended": {"tokens.clients.why_not_ours": answers()},
        "pending tokens are not bound to their row": {"tokens.endings._place": answers("ending")},
        "the pause between two attempts grows without end": {
            "tokens.endings.LONGEST_PAUSE": becomes(timedelta(days=365))
        },
    },
}
POSTGRESQL = {"a database connection is held while sipgate is asked"}
"""What only that shows."""

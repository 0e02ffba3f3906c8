"""Does what an operator asks for: refreshes, checks and revokes connections, and asks for a new sign-in.

Each operation is safe to repeat, is noted in the history with its actor, and has an outcome for each connection, errors
included. sipgate is
asked in threads of their own: the caller's transaction and database connection are not held, and the work continues
when the caller stops waiting.

Must not know: requests, pages, permissions.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from allauth.socialaccount.models import SocialAccount
from django.db import connections

from sipgate_provider import accounts, errors, tokens
from sipgate_provider.models import TokenEvent

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 100
"""Most connections per call, because a page waits for them, and sipgate limits requests."""
WAIT = 20.0
"""Seconds that a caller waits for all of them together; web servers give up on a worker after 30."""


class Operation(StrEnum):
    REFRESH = "refresh"
    CHECK = "check"
    REVOKE = "revoke"
    REQUIRE_SIGN_IN = "require_sign_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one connection.

    ``changed`` is False if there was nothing to do. ``is_pending``: it is still being done. ``duration_ms`` includes a
    refresh, if a check needed one.
    """

    connection_id: int
    changed: bool = False
    is_pending: bool = False
    duration_ms: int = 0
    error: errors.SipgateError | None = None


Work = Callable[[int, str], bool]


def run(
    operation: Operation, connection_ids: Sequence[int], *, actor: str, wait: float = WAIT
) -> list[Outcome]:
    """Do ``operation`` to each connection; return the outcomes in the given order. ``wait`` is in seconds, for all.

    Raises:
        ValueError: more than ``MOST_CONNECTIONS`` connections.
        errors.CallerHoldsLock: the caller is inside a transaction. Nothing was begun.
    """
    if len(connection_ids) > MOST_CONNECTIONS:
        raise ValueError(f"At most {MOST_CONNECTIONS} connections at once.")
    if connections[tokens.using()].in_atomic_block:
        raise errors.CallerHoldsLock(
            "The caller's open transaction would hide what is done here, or block it. Call outside of "
            "transaction.atomic (switch ATOMIC_REQUESTS off for this view).",
            setting="ATOMIC_REQUESTS",
        )
    tokens.release_connections()
    give_up = time.monotonic() + wait
    futures = [
        (
            pk,
            tokens.operations.submit_once(
                (operation, pk), partial(_carry_out, operation, pk, actor[:80])
            ),
        )
        for pk in connection_ids
    ]
    outcomes = []
    for pk, future in futures:
        try:
            outcomes.append(future.result(timeout=max(give_up - time.monotonic(), 0)))
        except FutureTimeout:
            outcomes.append(Outcome(connection_id=pk, is_pending=True))
        except errors.SipgateUnavailable as error:  # it was not begun
            outcomes.append(Outcome(connection_id=pk, error=error))
    return outcomes


def _carry_out(operation: Operation, connection_id: int, actor: str) -> Outcome:
    started = time.monotonic()
    changed, error = False, None
    try:
        changed = WORK[operation](connection_id, actor)
    except errors.SipgateError as failure:
        error = failure
    except Exception as failure:
        error = errors.SipgateError(
            f"It failed inside this site ({type(failure).__name__}); see the log."
        )
        # Where it happened, but not the text: texts of database errors quote rows.
        logger.error(
            "[%s] %s",
            error.reference,
            "".join(traceback.format_tb(failure.__traceback__)),
            extra=errors.log_fields(error, connection=connection_id),
        )
    elapsed = round((time.monotonic() - started) * 1000)
    if error is not None:
        logger.warning(
            "%s of connection %s failed [%s]: %s",
            operation.capitalize(),
            connection_id,
            error.reference,
            error.message,
            extra=errors.log_fields(
                error, connection=connection_id, outcome="failed", duration_ms=elapsed
            ),
        )
    outcome = Outcome(
        connection_id=connection_id, changed=changed, duration_ms=elapsed, error=error
    )
    _note(operation, outcome, actor)
    return outcome


def _note(operation: Operation, outcome: Outcome, actor: str) -> None:
    """Write the history. Operations that change a row without asking sipgate do so themselves."""
    error = outcome.error
    if error is None and operation in {Operation.REVOKE, Operation.REQUIRE_SIGN_IN}:
        return
    try:
        row = tokens.load(outcome.connection_id)
        TokenEvent.objects.add(
            TokenEvent.Kind.ADMIN,
            row=row,
            actor=actor,
            note=f"{operation}: {'failed' if error else 'done'}",
            state=row.state if row else "",
            reason=row.reason if row else "",
            generation=row.generation if row else None,
            duration_ms=outcome.duration_ms,
            error_code=_code(error),
            reference=error.reference if error else "",
        )
    except (
        Exception
    ) as failure:  # the work is done, and its outcome is returned even if it cannot be noted
        logger.error("What an administrator did is not in the history: %s", type(failure).__name__)


def _code(error: errors.SipgateError | None) -> str:
    if error is None:
        return ""
    return error.code or (str(error.status) if error.status else type(error).__name__)


def _refresh(connection_id: int, actor: str) -> bool:
    before = tokens.load(connection_id)
    after = tokens.refresh(connection_id, by=actor)
    return before is None or after.generation > before.generation


def _check(connection_id: int, actor: str) -> bool:
    rows = SocialAccount.objects.using(tokens.using()).select_related(
        "sipgate_token", "sipgate_account"
    )
    connection = rows.filter(pk=connection_id).first()
    if connection is None:
        raise errors.NotConnected("The sipgate connection is gone.")
    accounts.fetch(connection)
    return True


def _revoke(connection_id: int, actor: str) -> bool:
    return tokens.end(connection_id, by=actor)


def _require_sign_in(connection_id: int, actor: str) -> bool:
    return tokens.require_sign_in(connection_id, by=actor)


WORK: dict[Operation, Work] = {
    Operation.REFRESH: _refresh,
    Operation.CHECK: _check,
    Operation.REVOKE: _revoke,
    Operation.REQUIRE_SIGN_IN: _require_sign_in,
}

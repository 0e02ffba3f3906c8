"""Adds fields for machines to the text of a log record: ``logger.info("…", extra=log_fields.fields(…))``.

A record has them as its attribute ``sipgate``, a dict of plain values. The signature of ``fields`` lists all possible
fields, so that nothing else can be added: no text that sipgate sent, no name, no secret.

Must not know: Django, who reads the log.
"""

from __future__ import annotations

from typing import Any

from sipgate_provider import errors

NAME = "sipgate"


def fields(
    error: errors.SipgateError | None = None,
    *,
    reference: str = "",
    connection: int | None = None,
    generation: int | None = None,
    outcome: str = "",
    kind: str = "",
    actor: str = "",
    endpoint: str = "",
    status: int | None = None,
    code: str = "",
    duration_ms: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Return ``extra`` for a log call; what is not known is left out.

    Args:
        error: where reference, endpoint, status and code are taken from unless they are given.
        reference: the eight characters that an error page shows, too.
        connection: primary key of the connection.
        generation: of its token row.
        outcome: the outcome of the work, or what is done next; in the words of the metrics if they have one.
        kind: of the problem that was shown to a person.
        actor: who wanted it: gate, keepalive, person or other.
        endpoint: name of sipgate's endpoint, without ids of people.
        status: HTTP status of sipgate's answer.
        code: OAuth error code, or another short machine-readable cause.
        duration_ms: milliseconds.
    """
    if error is not None:
        reference = reference or error.reference
        endpoint = endpoint or error.endpoint or ""
        status = error.status if status is None else status
        code = code or error.code or ""
    known = {
        "reference": reference,
        "connection": connection,
        "generation": generation,
        "outcome": outcome,
        "kind": kind,
        "actor": actor,
        "endpoint": endpoint,
        "status": status,
        "code": code,
        "duration_ms": duration_ms,
    }
    return {
        NAME: {name: value for name, value in known.items() if value is not None and value != ""}
    }

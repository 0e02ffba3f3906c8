"""Pauses all refreshes of a client for as long as sipgate refuses its credentials."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from sipgate_provider import errors
from sipgate_provider.models import ClientPause
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import authorization_server, statements


def pause(client_fingerprint: str) -> ClientPause | None:
    return statements.get(ClientPause, client_fingerprint)


def respect(client: oauth.Client, *, row: Any = None) -> None:
    """Raise ``errors.Misconfigured`` while sipgate is known to refuse these credentials. A ``row`` of
    ``rows.load_with_clock`` knows whether there is any pause, and saves a query if there is none."""
    if row is not None and not row.is_some_client_paused:
        return
    found = pause(authorization_server.fingerprint(client))
    if found is not None and found.until > timezone.now():
        raise errors.Misconfigured(
            f"sipgate refuses this site's client ({found.error_code}). No refresh is tried until that is corrected: "
            f"see {found.setting}.",
            setting=found.setting,
            code=found.error_code,
            endpoint="token",
        )


_faulty: set[int] = set()


def count_fault(connection_id: int) -> int:
    """Count a row that sipgate refused; return how many there were since this process refreshed one."""
    _faulty.add(connection_id)
    return len(_faulty)


def forget_faults() -> None:
    """A row was refreshed: it is not the client's fault."""
    _faulty.clear()


def start_pause(
    client_fingerprint: str, *, code: str, setting: str, length: timedelta, now: datetime
) -> bool:
    """Pause refreshes for ``length``. Return True if this begins an incident."""
    values = {"until": now + length, "error_code": code[:80], "setting": setting[:80]}
    pauses = ClientPause.objects
    if pauses.filter(pk=client_fingerprint).update(**values):
        return False
    _row, created = pauses.get_or_create(pk=client_fingerprint, defaults={**values, "since": now})
    return created


def end_pause(client_fingerprint: str) -> bool:
    deleted, _rows = ClientPause.objects.filter(pk=client_fingerprint).delete()
    return bool(deleted)

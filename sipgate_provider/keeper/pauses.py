"""A pause of the client: while sipgate refuses our credentials, nobody asks again."""

from __future__ import annotations

from datetime import datetime, timedelta

from sipgate_provider.keeper import database
from sipgate_provider.models import ClientPause


def pause(client_fingerprint: str) -> ClientPause | None:
    return ClientPause.objects.using(database.alias()).filter(pk=client_fingerprint).first()


def start_pause(client_fingerprint: str, *, code: str, setting: str, length: timedelta, now: datetime) -> bool:
    """Let no refresh be tried for ``length``. Returns True if this begins an incident."""
    values = {"until": now + length, "error_code": code[:80], "setting": setting[:80]}
    pauses = ClientPause.objects.using(database.alias())
    if pauses.filter(pk=client_fingerprint).update(**values):
        return False
    _row, created = pauses.get_or_create(pk=client_fingerprint, defaults={**values, "since": now})
    return created


def end_pause(client_fingerprint: str) -> bool:
    deleted, _rows = ClientPause.objects.using(database.alias()).filter(pk=client_fingerprint).delete()
    return bool(deleted)

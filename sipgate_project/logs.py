"""The form of the log: no query strings of requests, and one JSON object per line if wanted."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

QUERY = re.compile(r"\?\S*")


class WithoutQuery(logging.Filter):
    """Shorten ``GET /oauth?code=… HTTP/1.1`` to ``GET /oauth?… HTTP/1.1``.

    The callback's query carries sipgate's authorization code.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                QUERY.sub("?…", part) if isinstance(part, str) else part for part in record.args
            )
        return True


class JsonLines(logging.Formatter):
    """One JSON object per record.

    It has ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, ``exception`` if there is
    one, and the record's ``sipgate`` (``errors.log_fields``). Other attributes are left out: Django
    attaches the whole request to its records.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of ASCII."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        fields = getattr(record, "sipgate", None)
        return json.dumps({**line, "sipgate": fields} if fields else line, default=str)

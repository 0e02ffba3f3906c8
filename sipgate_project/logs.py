"""Keeps query strings out of the request log: the callback's carries sipgate's authorization code."""

from __future__ import annotations

import logging
import re

QUERY = re.compile(r"\?\S*")


class WithoutQuery(logging.Filter):
    """Shorten ``GET /oauth?code=… HTTP/1.1`` to ``GET /oauth?… HTTP/1.1``."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(QUERY.sub("?…", part) if isinstance(part, str) else part for part in record.args)
        return True

"""A cache in Redis that falls back to this process's memory while Redis is away.

The cache counts wrong passwords and saves queries. While Redis is away, each process counts for itself, as in a site
without ``REDIS_URL``, and no page ends in a server error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis import RedisError

logger = logging.getLogger(__name__)

LEFT_ALONE = 10.0
"""Seconds until Redis is asked again after it did not answer: a page makes several calls, and each would wait."""


class RedisOrThisProcess(RedisCache):
    away_until = 0.0
    """A ``time.monotonic()`` value, shared by all threads, each of which has a cache object of its own."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self.here = LocMemCache(
            "sipgate_project.cache", {key: params[key] for key in params if key != "OPTIONS"}
        )

    def trouble(self) -> str:
        """Ask Redis; return the name of the error, or nothing."""
        try:
            self._cache.get_client().ping()
        except RedisError as error:
            return type(error).__name__
        return ""

    def ask(self, call: Callable[[], Any], instead: Callable[[], Any]) -> Any:
        if time.monotonic() < RedisOrThisProcess.away_until:
            return instead()
        try:
            return call()
        except RedisError as error:
            RedisOrThisProcess.away_until = time.monotonic() + LEFT_ALONE
            logger.error(
                "Redis does not answer (%s): this process does without it for a while",
                type(error).__name__,
            )
            return instead()


def _forgiving(name: str) -> Callable[..., Any]:
    in_redis, here = getattr(RedisCache, name), getattr(LocMemCache, name)

    def method(self: RedisOrThisProcess, *args: Any, **kwargs: Any) -> Any:
        return self.ask(
            lambda: in_redis(self, *args, **kwargs), lambda: here(self.here, *args, **kwargs)
        )

    return method


CALLS = (
    "add",
    "get",
    "set",
    "touch",
    "delete",
    "get_many",
    "has_key",
    "incr",
    "set_many",
    "delete_many",
    "clear",
)
"""The methods that fall back. Django's asynchronous variants and the rest of the interface call these."""

for _name in CALLS:
    setattr(RedisOrThisProcess, _name, _forgiving(_name))

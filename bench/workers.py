"""Worker processes of the bench: each is a Django process that does one job at a time, told by lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .counterpart import Counterpart

KEYS = ("YmVuY2gtb25seS1iZW5jaC1vbmx5LWJlbmNoLW9ubHk=", "YmVuY2gtbmV3LWJlbmNoLW5ldy1iZW5jaC1uZXctMTI=")
EMPTY = (
    "TEST_API_ENDPOINT",
    "OAUTH_SCOPE",
    "REDIS_URL",
    "EMAIL_URL",
    "ADMINS",
    "DEBUG",
    "BEHIND_PROXY",
    "SANDBOX_PORT",
    "SANDBOX_URL",
    "LOGOUT_URL",
    "REVOKE_URL",
    "ATOMIC_REQUESTS",
    "PORT",
    "DATABASE_POOL",
)
PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


class JobFailed(Exception):
    """A worker answered with a traceback."""


@dataclass(frozen=True)
class Place:
    """Where measurements happen: a database, the counterpart, a folder for journals and logs."""

    database: str
    database_url: str
    counterpart: Counterpart
    folder: Path
    peers: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process at this place. Proxies of the machine are left out: all is loopback."""
        inherited = {key: value for key, value in os.environ.items() if key.lower() not in PROXIES}
        path = os.pathsep.join(part for part in (str(Path(__file__).parent.parent), self.peers) if part)
        return {
            **inherited,
            **dict.fromkeys(EMPTY, ""),
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "SECRET_KEY": "bench-only",
            "CLIENT_ID": "1000000-1-bench:third-party",
            "CLIENT_SECRET": "bench-only",
            "SIPGATE_TOKEN_KEYS": KEYS[0],
            "REDIRECT_URI": "http://localhost:8080/oauth",
            "ALLOWED_HOSTS": "localhost,127.0.0.1,testserver",
            "AUTH_URL": self.counterpart.auth_url,
            "TOKEN_URL": self.counterpart.token_url,
            "SIPGATE_API_URL": f"{self.counterpart.url}/v2",
            "BENCH_COUNTERPART": self.counterpart.url,
            "REQUESTS_CA_BUNDLE": self.counterpart.ca_bundle,
            "AUTHLIB_INSECURE_TRANSPORT": "1",
            "DATABASE_URL": self.database_url,
            "JOURNAL_DIR": str(self.folder / "journal"),
            "LOG_LEVEL": "INFO",
            **self.extra,
            **more,
        }


class Worker:
    """One worker. ``tell`` and ``read`` apart, to have several at work at once; ``do`` is both."""

    def __init__(self, place: Place, **environment: str) -> None:
        self._log: IO[str] = (place.folder / "workers.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=place.environment(**environment),
        )

    def tell(self, job: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"job": job, "arguments": arguments}) + "\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise JobFailed("A worker ended; see the log above.\n" + self._tail())
        answer = json.loads(line)
        if "failed" in answer:
            raise JobFailed(answer["failed"])
        return answer["result"]

    def do(self, job: str, **arguments: Any) -> Any:
        self.tell(job, **arguments)
        return self.read()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._log.close()

    def _tail(self) -> str:
        self._log.flush()
        return "\n".join(Path(self._log.name).read_text().splitlines()[-30:])


_idle: list[Worker] = []


@contextmanager
def workers(place: Place, number: int = 1, **environment: str) -> Iterator[list[Worker]]:
    """Hand out ``number`` workers. Those without an environment of their own stay for the next case: a start costs a second."""
    kept = [] if environment else [_idle.pop() for _ in range(min(number, len(_idle)))]
    started = kept + [Worker(place, **environment) for _ in range(number - len(kept))]
    try:
        yield started
    except BaseException:
        for worker in started:
            worker.close()
        raise
    if environment:
        for worker in started:
            worker.close()
    else:
        _idle.extend(reversed(started))


def close_idle() -> None:
    """End the workers that wait: before their database goes."""
    while _idle:
        _idle.pop().close()

"""A process of the chaos proof: uses connections in several threads, and says what it does with tokens.

Reads orders and writes lines of JSON, each at once: what it wrote before ``kill -9`` is read.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import socket
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django
import time_machine

django.setup()

from allauth.socialaccount.models import SocialAccount  # noqa: E402  # after the set-up
from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, InterfaceError, connections  # noqa: E402

from sipgate_provider import errors, tokens  # noqa: E402
from sipgate_provider.client import SipgateClient  # noqa: E402
from sipgate_provider.ops import keepalive  # noqa: E402
from sipgate_provider.remote import oauth  # noqa: E402
from sipgate_provider.tokens import journal, rows, threads  # noqa: E402
from sipgate_provider.tokens.refresh import LeftToOthers, _Refresh  # noqa: E402

orders = open(0, "rb", buffering=0)  # noqa: SIM115  # for as long as the process lives; without a lock at its end
ending = threading.Event()
names_are_resolved = threading.Event()


def tell(what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "at": time.clock_gettime(time.CLOCK_MONOTONIC), **more})
    os.write(1, f"{line}\n".encode())  # one system call: threads and signals cannot tear it


def crashed(what: threading.ExceptHookArgs) -> None:
    trace = traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback)
    tell("crashed", trace="".join(trace)[-2000:])


# --- what becomes of each token ---------------------------------------------------------------------------------------


def of(token: rows.Sent) -> dict[str, Any]:
    return {
        "connection": token.connection_id,
        "consent": token.consent_id.hex,
        "generation": token.generation,
    }


def watch_for_crashes() -> None:
    run = _Refresh.run

    def runs(self: Any) -> Any:
        try:
            return run(self)
        except (errors.SipgateError, LeftToOthers, DatabaseError, InterfaceError):
            raise
        except BaseException:
            tell(
                "crashed", trace=traceback.format_exc()[-2000:]
            )  # nobody asks for what comes of a refresh behind
            raise

    _Refresh.run = runs  # type: ignore[method-assign]  # watched
    threading.excepthook = crashed


def watch() -> None:
    """Have the points of a refresh told, at which it becomes true that a token is sent, answered, or kept."""
    before_sending, write, save = (
        _Refresh._before_sending,
        journal.write,
        rows.save_refreshed,
    )
    no_answer, refused, resolve = (
        _Refresh.no_answer,
        _Refresh.refused,
        socket.getaddrinfo,
    )

    def sends(self: Any) -> None:
        before_sending(self)
        tell("sent", **of(self.token))

    def journals(sent: rows.Sent, *args: Any) -> Any:
        entry = write(sent, *args)
        tell("not journaled" if entry is None else "kept", **of(sent))
        return entry

    def saves(sent: rows.Sent, *args: Any, **options: Any) -> bool:
        stored = save(sent, *args, **options)
        if stored:
            tell("kept", **of(sent))
        return stored

    def unanswered(self: Any, error: errors.SipgateError) -> None:
        if self.claim is not None:
            tell(
                "unanswered" if oauth.is_unanswered(error) else "answered",
                **of(self.token),
                why=error.message,
            )
        no_answer(self, error)

    def is_refused(self: Any, *args: Any) -> Any:
        tell("refused", **of(self.token))
        return refused(self, *args)

    def resolves(*args: Any, **options: Any) -> Any:
        names_are_resolved.wait()
        return resolve(*args, **options)

    _Refresh._before_sending = sends  # type: ignore[method-assign]  # watched
    _Refresh.no_answer = unanswered  # type: ignore[method-assign]  # watched
    _Refresh.refused = is_refused  # type: ignore[method-assign]  # watched
    journal.write, rows.save_refreshed, socket.getaddrinfo = journals, saves, resolves


# --- load -------------------------------------------------------------------------------------------------------------


def use(clients: list[SipgateClient], pause: float) -> None:
    while not ending.is_set():
        try:
            random.choice(clients).get("/account")
        except errors.SipgateError as error:
            tell("error", kind=type(error).__name__)
        except (DatabaseError, InterfaceError) as error:
            connections.close_all()
            tell("error", kind=type(error).__name__)
        ending.wait(pause)
    connections.close_all()


def keep() -> None:
    while not ending.wait(3):
        keepalive.run(rate=20, stop=ending)
    connections.close_all()


def figures() -> dict[str, Any]:
    mine = Path("/proc/self")
    return {
        "memory": int((mine / "statm").read_text().split()[1]) * resource.getpagesize(),
        "files": len(list((mine / "fd").iterdir())),
        "threads": threading.active_count(),
    }


def obey(order: dict[str, Any]) -> None:
    if "resolve" in order:
        (names_are_resolved.set if order["resolve"] else names_are_resolved.clear)()
    if "disk" in order:
        # A file that may not grow at all behaves as on a full disk; what is told goes through a pipe.
        room = resource.getrlimit(resource.RLIMIT_FSIZE)[1] if order["disk"] else 0
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
    if order.get("figures"):
        tell("figures", **figures())


def listen() -> None:
    for line in orders:
        obey(json.loads(line))
    ending.set()


def work(told: dict[str, Any]) -> None:
    # Not by an exception, which the main thread may meet anywhere, also where exceptions are ignored.
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    threads.end_at_sigterm()
    clients = [SipgateClient(connection) for connection in SocialAccount.objects.order_by("pk")]
    tell("ready")
    users = [
        threading.Thread(target=use, args=(clients, told["pause"])) for _ in range(told["threads"])
    ]
    for thread in (*users, threading.Thread(target=keep)):
        thread.start()
    threading.Thread(target=listen, daemon=True).start()
    while not ending.wait(0.2):
        pass  # a signal that another thread has received is looked at when this one goes on


# --- before and after -------------------------------------------------------------------------------------------------


def prepare(answers: list[dict[str, Any]]) -> None:
    """Create the tables, and a connection for each answer of the token endpoint."""
    from django.contrib.auth import get_user_model

    call_command("migrate", verbosity=0)
    for number, answer in enumerate(answers):
        user = get_user_model().objects.create(username=f"person{number}")
        connection = SocialAccount.objects.create(
            user=user, provider="sipgate", uid=f"{1000000 + number}w0"
        )
        now = datetime.now(UTC)
        rows.consent(
            connection,
            oauth.Grant.parse(answer, issued_at=now),
            scope=["account:read"],
            now=now,
        )
    tell("prepared")


def recover() -> None:
    tell("recovered", number=tokens.recover(), waiting=journal.waiting())


def verify() -> None:
    """Refresh every connection and ask the API with what came of it: that is what counts as not lost."""

    def try_one(connection: SocialAccount) -> None:
        try:
            tokens.refresh(connection, wait=20)
            SipgateClient(connection).get("/account")
        except errors.SipgateError as error:
            row = tokens.load(connection.pk)
            tell(
                "lost",
                connection=connection.pk,
                error=type(error).__name__,
                reason=row.reason if row else "",
            )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(try_one, SocialAccount.objects.order_by("pk")))
    tell("verified")


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    told = json.loads(orders.readline())
    names_are_resolved.set()
    if told.get("ahead"):
        time_machine.travel(datetime.now(UTC) + timedelta(seconds=told["ahead"])).start()
    if told["do"] == "work":
        watch()
        watch_for_crashes()
        work(told)
    else:
        {"prepare": lambda: prepare(told["answers"]), "recover": recover, "verify": verify}[
            told["do"]
        ]()
        tokens.errands.wait_idle(10)


if __name__ == "__main__":
    main()

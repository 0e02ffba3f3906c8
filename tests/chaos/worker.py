"""A process of the chaos proof: uses connections in several threads, and says what it does with
tokens.

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
from collections.abc import Callable
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

from sipgate_provider import background, errors, tokens  # noqa: E402
from sipgate_provider.client import SipgateClient  # noqa: E402
from sipgate_provider.models import Version  # noqa: E402
from sipgate_provider.ops import keepalive  # noqa: E402
from sipgate_provider.remote import oauth  # noqa: E402
from tests.named import replace  # noqa: E402

orders = open(0, "rb", buffering=0)  # noqa: SIM115  # for as long as the process lives; without a lock at its end
ending = threading.Event()
names_are_resolved = threading.Event()


def tell(what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "at": time.clock_gettime(time.CLOCK_MONOTONIC), **more})
    os.write(1, f"{line}\n".encode())  # one system call: threads and signals cannot tear it


def crashed(what: threading.ExceptHookArgs) -> None:
    trace = traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback)
    tell("crashed", trace="".join(trace)[-2000:])


# --- what becomes of each token -------------------------------------------------------------------


def of(sent: Version) -> dict[str, Any]:
    return {"connection": sent.connection, "consent": sent.consent.hex, "number": sent.number}


def watch_for_crashes() -> None:
    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def refresh(*args: Any, **options: Any) -> Any:
            try:
                return real(*args, **options)
            except (errors.SipgateError, DatabaseError, InterfaceError):
                raise
            except BaseException:
                # Nobody asks for what comes of a refresh behind.
                tell("crashed", trace=traceback.format_exc()[-2000:])
                raise

        return refresh

    replace("tokens.refresh.refresh", watched)
    threading.excepthook = crashed


leased = threading.local()


def watch() -> None:
    """Have the points of a refresh told, at which it becomes true that a token is sent, answered,
    or kept."""
    replace("tokens.lease.take", takes)
    replace("remote.oauth.refresh", asks)
    replace("tokens.journal.write", keeps)
    replace("tokens.rows.store_refreshed", keeps)
    resolve = socket.getaddrinfo

    def resolves(*args: Any, **options: Any) -> Any:
        names_are_resolved.wait()
        return resolve(*args, **options)

    socket.getaddrinfo = resolves


def takes(real: Callable[..., bool]) -> Callable[..., bool]:
    def take_lease(row: Any, holder: str) -> bool:
        leased.version = row.version
        return real(row, holder)

    return take_lease


def asks(real: Callable[..., Any]) -> Callable[..., Any]:
    def refresh(*args: Any) -> Any:
        tell("sent", **of(leased.version))
        answer = real(*args)
        if isinstance(answer, errors.TokenRejected):
            tell("rejected", **of(leased.version))
        elif isinstance(answer, errors.SipgateError):
            what = "unanswered" if oauth.is_unanswered(answer) else "answered"
            tell(what, **of(leased.version), why=answer.message)
        return answer

    return refresh


def keeps(real: Callable[..., Any]) -> Callable[..., Any]:
    def keep(new: Version, *args: Any, **options: Any) -> Any:
        kept = real(new, *args, **options)
        sent = new._replace(number=new.number - 1)
        if kept:
            tell("kept", **of(sent))
        elif real.__name__ == "write":
            tell("not journaled", **of(sent))
        return kept

    return keep


def shorten(seconds: dict[str, float]) -> None:
    """Let leases and answers last for some seconds only, as far as the promises' times can be
    shortened."""
    replace("tokens.lease.LENGTH", lambda _real: timedelta(seconds=seconds["lease"]))
    replace("remote.oauth.ANSWER_SECONDS", lambda _real: seconds["answer"])
    replace("tokens.refresh.LATEST", lambda _real: seconds["lease"] - seconds["answer"] - 1)


# --- load -----------------------------------------------------------------------------------------


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
        keepalive.run(stop=ending)
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
        # A file that may not grow at all behaves as on a full disk; what is told goes through a
        # pipe.
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
    # Not by an exception, which the main thread may meet anywhere, also where exceptions are
    # ignored. In a thread: the main one may be about to wait for the event, and hold its lock.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=ending.set).start())
    tokens.begin_process()
    clients = [SipgateClient(connection) for connection in SocialAccount.objects.order_by("pk")]
    tell("ready")
    threads = [
        threading.Thread(target=use, args=(clients, told["pause"])) for _ in range(told["threads"])
    ]
    threads.append(threading.Thread(target=keep))
    for thread in threads:
        thread.start()
    threading.Thread(target=listen, daemon=True).start()
    while not ending.wait(0.2):
        pass  # a signal that another thread has received is looked at when this one goes on
    for thread in threads:  # before the interpreter ends: from then on no pool takes new work
        thread.join()


# --- before and after -----------------------------------------------------------------------------


def prepare(answers: list[dict[str, Any]]) -> None:
    """Create the tables, and a connection for each answer of the token endpoint."""
    from django.contrib.auth import get_user_model

    call_command("migrate", verbosity=0)
    for number, answer in enumerate(answers):
        user = get_user_model().objects.create(username=f"person{number}")
        connection = SocialAccount.objects.create(
            user=user, provider="sipgate", uid=f"{1000000 + number}w0"
        )
        issued = oauth.Tokens.parse(answer, issued_at=datetime.now(UTC))
        tokens.store(connection, issued, scope=["account:read"])
    tell("prepared")


def recover() -> None:
    tell("recovered", number=tokens.recover(), waiting=tokens.journal_waiting())


def verify() -> None:
    """Refresh every connection and ask the API with what came of it: that is what counts as not
    lost."""

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
    shorten(told["seconds"])
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
        background.errands.wait_idle(10)


if __name__ == "__main__":
    main()

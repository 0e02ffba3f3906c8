"""``runserver`` on PORT, with the sandbox beside it when there are no credentials."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import nullcontext
from typing import Any
from urllib.parse import urljoin

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands.runserver import Command as RunserverCommand
from django.db import connections

from sipgate_project import sandbox


class Command(RunserverCommand):
    addr: str
    port: str
    use_ipv6: bool
    help = "Serve the site for development, and the sandbox as well if there are no credentials."
    default_port = str(settings.PORT)

    def run(self, **options: Any) -> None:
        # The reloader runs this method in a parent and in a child. The parent checks the port and
        # owns the sandbox.
        if os.environ.get("RUN_MAIN") == "true":
            super().run(**options)
            return
        check_port_is_free(self.addr, int(self.port), ipv6=self.use_ipv6)
        connections["default"].ensure_connection()  # manage.py explains a failure
        connections.close_all()
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
        with sandbox.running() if settings.SANDBOX else nullcontext():
            super().run(**options)

    def on_bind(self, server_port: int) -> None:
        """Print what a developer who has just started the site needs next."""
        super().on_bind(server_port)
        site = urljoin(settings.SIPGATE_REDIRECT_URI, "/")
        lines = {
            "Site": f"{site}   (stop with Ctrl-C)",
            "Sandbox": f"{settings.SANDBOX_URL}/   (invented people, faults to try)",
            "Administrator": f"{sys.executable} manage.py createsuperuser, then {site}admin/",
            "Tutorial": "docs/tutorial.md",
        }
        if not settings.SANDBOX:
            lines["Sandbox"] = "not used: users sign in at sipgate, with the client in .env"
        self.stdout.write("")
        for name, what in lines.items():
            self.stdout.write(f"  {name:<15}{self.style.SUCCESS(what)}")


def check_port_is_free(host: str, port: int, *, ipv6: bool = False) -> None:
    """Raise ``CommandError`` if this process cannot listen on the port."""
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
    except OSError as error:
        raise CommandError(
            f"Port {port} cannot be used ({error.strerror}): stop the program that uses it, or "
            "choose another port from 1024 upwards, for example with PORT=8090 make run. With a "
            "CLIENT_ID, REDIRECT_URI must name the same port, here and in sipgate's console."
        ) from None

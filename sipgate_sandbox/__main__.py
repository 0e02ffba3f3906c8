"""``python -m sipgate_sandbox``: serves the sandbox, or sends a command to one that is running."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from . import faults
from .control import NoSandbox, SandboxControl
from .wsgi_server import Application, Handler, Server


def main() -> int:
    """Run one command; return the exit code: 0 done, 1 not possible, 2 wrong arguments."""
    options = _parser().parse_args()
    if options.command == "serve":
        return serve(options)
    try:
        return steer(options)
    except (ValueError, NoSandbox) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sipgate_sandbox", description="A local stand-in for sipgate."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("serve", help="serve until stopped")
    one.add_argument("--port", type=_port, default=8081, help="0 takes a free one")
    one.add_argument("--host", default="127.0.0.1")
    one.add_argument(
        "--database", type=Path, default=None, help="SQLite file; by default var/sandbox.sqlite3"
    )
    one.add_argument("--redirect-uri", action="append", default=None)
    one.add_argument("--client-id", default=None)
    one.add_argument("--client-secret", default=None)
    one.add_argument("--access-lifetime", type=int, default=300, help="seconds")
    one.add_argument("--refresh-lifetime", type=int, default=30 * 86_400, help="seconds")
    one.add_argument(
        "--lenient-reuse",
        action="store_true",
        help="a reused refresh token is refused, its session lives on",
    )
    one.add_argument(
        "--introspect",
        metavar="URL",
        default=None,
        help="let the REST API check access tokens there, as the client SANDBOX_CLIENT_ID with SANDBOX_CLIENT_SECRET",
    )
    one.add_argument("--quiet", action="store_true", help="no line per request")
    for name, text in (
        ("fault", "switch a fault on"),
        ("faults", "list the faults that are on"),
        ("clear", "switch all faults off"),
        ("state", "show counters"),
    ):
        command = commands.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--url", default="http://localhost:8081")
        if name == "fault":
            command.epilog = "\n".join(
                ["faults:", *(f"  {fault:<20}{what}" for fault, what in faults.KNOWN.items())]
            )
            command.add_argument("name", metavar="FAULT")
            command.add_argument(
                "--on", metavar="PLACE", default="all", help=f"one of: {', '.join(faults.PLACES)}"
            )
            command.add_argument("--times", type=int, default=1, help="0: until cleared")
            command.add_argument("--seconds", type=float, default=5.0)
            command.add_argument("--value", default=None)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return int(text)


def steer(options: argparse.Namespace) -> int:
    control = SandboxControl(options.url)
    if options.command == "fault":
        control.fault(
            options.name,
            on=options.on,
            times=options.times or None,
            seconds=options.seconds,
            value=options.value,
        )
    elif options.command == "clear":
        control.clear()
    shown = control.state() if options.command == "state" else control.faults()
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0


def serve(options: argparse.Namespace) -> int:
    try:
        server = Server((options.host, options.port), Handler)
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "is in use",
            errno.EACCES: "needs more rights than this user has",
        }.get(error.errno or 0, "cannot be used")
        sys.stderr.write(
            f"sandbox: port {options.port} {reason}. Stop what listens there, or choose another with --port.\n"
        )
        return 1
    url = f"http://localhost:{server.server_address[1]}"
    _set_environment(options, url)
    server.quiet = options.quiet
    server.application = _application()
    stop = threading.Event()

    def leave(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
    ).start()
    sys.stdout.write(f"sipgate sandbox ready at {url}\n")
    sys.stdout.flush()
    while not stop.wait(0.2):
        pass  # a signal that another thread has received is looked at when this one goes on
    server.shutdown()
    server.server_close()
    return 0


def _set_environment(options: argparse.Namespace, url: str) -> None:
    values = {
        "DJANGO_SETTINGS_MODULE": "sipgate_sandbox.settings",
        "SANDBOX_URL": url,
        "SANDBOX_ACCESS_LIFETIME": str(options.access_lifetime),
        "SANDBOX_REFRESH_LIFETIME": str(options.refresh_lifetime),
        "SANDBOX_LENIENT_REUSE": "1" if options.lenient_reuse else "",
    }
    chosen = {
        "SANDBOX_DATABASE": options.database,
        "SANDBOX_INTROSPECT_URL": options.introspect,
        "SANDBOX_CLIENT_ID": options.client_id,
        "SANDBOX_CLIENT_SECRET": options.client_secret,
        "SANDBOX_REDIRECT_URIS": " ".join(options.redirect_uri) if options.redirect_uri else None,
    }
    os.environ.update(values | {name: str(value) for name, value in chosen.items() if value})


def _application() -> Application:
    import django

    django.setup()
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    from .seed import seed

    call_command("migrate", verbosity=0)
    seed()
    return get_wsgi_application()


if __name__ == "__main__":
    sys.exit(main())

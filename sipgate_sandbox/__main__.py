"""``python -m sipgate_sandbox``: serves the sandbox, or steers one that is running."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import NoReturn

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from .control import NoSandbox, SandboxControl

FINDS = "fault, clear and state find the sandbox at SANDBOX_PORT (8081 unless set), or at --url."


class Server(ThreadedWSGIServer):
    """``runserver``'s."""

    request_queue_size = 512


class Handler(WSGIRequestHandler):
    disable_nagle_algorithm = True  # or the body of an answer waits 40 ms for the client's ACK

    def log_message(self, *_args: object) -> None:
        """Print no line for each request."""


def main() -> int:
    """Run one command; return the exit code: 0 done, 1 not possible, 2 wrong arguments."""
    options = _parser().parse_args()
    try:
        return serve(options) if options.command == "serve" else steer(options)
    except (ValueError, NoSandbox) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sipgate_sandbox", description="A local stand-in for sipgate.", epilog=FINDS
    )
    commands = parser.add_subparsers(dest="command", required=True)
    port = os.environ.get("SANDBOX_PORT") or "8081"
    one = commands.add_parser("serve", help="serve until stopped, on this machine only")
    one.add_argument("--port", type=_port, default=port, help="0 takes a free one")
    one.add_argument("--database", type=Path, help="SQLite file; by default sandbox.sqlite3 here")
    one.add_argument(
        "--redirect-uri",
        action="append",
        help="where sites may be called back; by default http://localhost:8080/oauth",
    )
    for name, text in (
        ("fault", "switch a fault on"),
        ("clear", "switch all faults off"),
        ("state", "show counters and faults"),
    ):
        other = commands.add_parser(name, help=text, epilog=FINDS)
        other.add_argument("--url", default=f"http://localhost:{port}")
        if name == "fault":
            _describe_fault(other)
    return parser


def _describe_fault(parser: argparse.ArgumentParser) -> None:
    from .faults import KNOWN, PLACES

    lists = f"Faults: {', '.join(KNOWN)}.", f"Places: {', '.join(PLACES)}.", FINDS
    parser.epilog = "\n\n".join(textwrap.fill(one, 78, break_on_hyphens=False) for one in lists)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", metavar="FAULT")
    parser.add_argument("--on", metavar="PLACE", default="all")
    parser.add_argument("--times", type=int, default=1, help="0: until cleared")
    parser.add_argument("--seconds", type=float, default=5.0, help="of slow, and of Retry-After")
    parser.add_argument("--value", help="of redirect and odd-expires")


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
    shown = control.state()
    sys.stdout.write(
        json.dumps(shown if options.command == "state" else shown["faults"], indent=2) + "\n"
    )
    return 0


def serve(options: argparse.Namespace) -> int:
    try:
        server = Server(("127.0.0.1", options.port), Handler)
    except OSError as error:
        raise ValueError(
            f"port {options.port} cannot be used ({error.strerror}). Choose another with "
            "SANDBOX_PORT or --port; fault and clear need the same SANDBOX_PORT, or --url."
        ) from None
    port = server.server_address[1]
    os.environ |= {"DJANGO_SETTINGS_MODULE": "sipgate_sandbox.settings", "SANDBOX_PORT": str(port)}
    if options.database:
        os.environ["SANDBOX_DATABASE"] = str(options.database)
    if options.redirect_uri:
        os.environ["SANDBOX_REDIRECT_URIS"] = " ".join(options.redirect_uri)

    import django
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    django.setup()
    call_command("migrate", verbosity=0)
    server.set_app(get_wsgi_application())
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    sys.stdout.write(f"sipgate sandbox ready at http://localhost:{port}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.1)
    return 0


def _leave(*_signal: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())

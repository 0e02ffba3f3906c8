"""``python -m sipgate_sandbox``: serves the sandbox, or steers a running one."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import requests
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from .control import SandboxControl
from .faults import KNOWN, PLACES


class Server(ThreadedWSGIServer):
    """The server of ``runserver``, for tests that connect many times at once."""

    request_queue_size = 512


class Handler(WSGIRequestHandler):
    disable_nagle_algorithm = True  # else each body waits 40 ms for the client's ACK

    def log_message(self, *_args: object) -> None:
        """Print no line for each request."""


def main() -> None:
    """Run one command. The exit code is 1 after a failure, 2 for wrong arguments."""
    options = _parser().parse_args()
    if options.command == "serve":
        serve(options)
    else:
        steer(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sipgate_sandbox", description="A local stand-in for sipgate."
    )
    port = argparse.ArgumentParser(add_help=False)
    port.add_argument(
        "--port",
        type=int,
        default=os.environ.get("SANDBOX_PORT") or "8081",
        help="the sandbox's port; the default is SANDBOX_PORT, or 8081",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("serve", parents=[port], help="serve on this machine until stopped")
    one.add_argument("--database", type=Path, help="SQLite file; the default is sandbox.sqlite3")
    one.add_argument(
        "--redirect-uri",
        action="append",
        help="callback of a site, may be repeated; the default is http://localhost:8080/oauth",
    )
    fault = commands.add_parser("fault", parents=[port], help="switch a fault on")
    fault.add_argument("fault", choices=KNOWN)
    fault.add_argument("--on", choices=PLACES, default="all", help="the requests it strikes")
    fault.add_argument("--times", type=int, default=1, help="how many; 0: all until cleared")
    fault.add_argument("--value", type=json.loads, help='for change: fields, as {"scope": "all"}')
    commands.add_parser("clear", parents=[port], help="switch all faults off")
    return parser


def steer(options: argparse.Namespace) -> None:
    """Switch a fault on, or all faults off, in the running sandbox."""
    control = SandboxControl(f"http://localhost:{options.port}")
    try:
        if options.command == "clear":
            control.clear()
        else:
            control.fault(options.fault, on=options.on, times=options.times, value=options.value)
    except requests.RequestException:
        sys.exit(
            f"sandbox: No sandbox answers at {control.url}. Set SANDBOX_PORT or --port to its port."
        )
    except ValueError as error:
        sys.exit(f"sandbox: {error}")


def serve(options: argparse.Namespace) -> None:
    """Serve this machine until a signal ends the process."""
    try:
        server = Server(("127.0.0.1", options.port), Handler)
    except (OSError, OverflowError) as error:
        sys.exit(
            f"sandbox: Port {options.port} cannot be used ({error}). Choose another with "
            "SANDBOX_PORT or --port, here and for fault and clear."
        )
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    sys.stdout.write(f"sipgate sandbox ready at http://localhost:{port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

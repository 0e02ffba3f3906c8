"""The site works through pgbouncer in transaction mode, as docs/operate.md configures it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import postgres, tools
from tests.outage.conftest import NEWEST, connect, use
from tests.ports import free_port, is_open
from tests.served import ROOT, TOKEN, served
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


def test_a_refresh_and_the_pages(rotator, tmp_path):
    (tmp_path / "bouncer").mkdir()
    with postgres.server() as server, pgbouncer(server, tmp_path / "bouncer") as address:
        connection = connect(server.url, rotator)
        assert use(address, tmp_path / "journal", connection) == NEWEST
        with served(tmp_path, address) as site:
            assert site.get("/readyz").json() == {"status": "ok"}
            visitor = {"Host": "crm.example.org", "X-Forwarded-Proto": "https"}
            # The session has to be looked up.
            pages = [site.get("/", session="a" * 32, **visitor) for _ in range(20)]
            assert {page.status_code for page in pages} == {200}
            active = 'sipgate_connections{state="active"} 1.0'
            allowed = {"Authorization": f"Bearer {TOKEN}"}
            wait_for(lambda: active in site.get("/metrics", **allowed).text.splitlines())


@contextmanager
def pgbouncer(server: postgres.Server, folder: Path) -> Iterator[str]:
    """Run pgbouncer before a server; yield the database's address there."""
    program = tools.needed("pgbouncer", "/usr/sbin/pgbouncer", package="pgbouncer")
    text = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    shown = re.search(r"^\[databases\]\n.*?(?=^```)", text, flags=re.MULTILINE | re.DOTALL)
    assert shown
    port = free_port()
    where = f"host={parse_qs(urlsplit(server.url).query)['host'][0]} dbname=postgres user=postgres"
    settings = re.sub(r"^sipgate = .*$", f"sipgate = {where}", shown[0], flags=re.MULTILINE)
    settings += (
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
    )
    (folder / "pgbouncer.ini").write_text(settings)
    for path in (folder, *folder.parents[:3]):  # pgbouncer does not run as root
        path.chmod(0o755)
    user = ["-u", server.system_user] if server.system_user else []
    with (folder / "pgbouncer.log").open("wb") as log:
        command = [program, *user, str(folder / "pgbouncer.ini")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: is_open(port), (folder / "pgbouncer.log").read_text)
        yield f"postgres://postgres@127.0.0.1:{port}/sipgate"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)

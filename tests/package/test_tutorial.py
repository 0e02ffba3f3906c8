"""Does what docs/tutorial.md says, block by block, in an empty folder, and signs in as a person would.

Then it does what docs/code.md says about tests, in the same site.

Python and HTML blocks go into the files that their first lines name. Shell blocks run as they are,
with the newest Python that is at hand and what pip brings today; the first one, which makes the
checkout, does with this checkout and its environment.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from html import unescape
from pathlib import Path
from typing import Self
from urllib.parse import urljoin

import pytest
import requests

from sipgate_sandbox.launch import sign_in
from tests.package import foreign
from tests.project.pages import ROOT, Block, blocks, section

PAGE = ROOT / "docs" / "tutorial.md"
TESTS = (ROOT / "docs" / "code.md", "Test your own site")


@pytest.mark.timeout(400)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    tutorial = Tutorial(tmp_path)
    at_sandbox = tutorial.terminal(SANDBOX_PORT=str(tutorial.sandbox_port))
    assert "Successfully built" in at_sandbox.run(tutorial.checkout())
    with ExitStack() as running:
        ready = f"sipgate sandbox ready at http://localhost:{tutorial.sandbox_port}"
        running.enter_context(
            at_sandbox.running(tutorial.shell(), port=tutorial.sandbox_port, says=ready)
        )

        at_site = tutorial.terminal()
        at_site.run(tutorial.shell())
        assert at_site.folder.name == "crm"
        assert len(tutorial.files_into(at_site.folder)) == 5
        prepare, _, serve = tutorial.shell().rpartition("\n")
        assert "no issues" in at_site.run(prepare)
        log = running.enter_context(
            at_site.running(serve, port=tutorial.site_port, says="no issues")
        )

        person = running.enter_context(Person(f"http://localhost:{tutorial.site_port}"))
        home = person.press(person.open("/"))
        assert "Connected with sipgate as Rosa Gärtner" in home.text
        asked = person.open("/numbers")
        assert "Continue" in asked.text
        numbers = person.press(asked)
        assert numbers.url == f"{person.origin}/numbers"
        assert "Rosenduft Gartenbau GmbH" in numbers.text
        assert numbers.text.count("<li>") == 25

        said = at_site.run(tutorial.shell())
        assert "Rosenduft Gartenbau GmbH" in said
        assert "Refreshed." in said
        assert "All is well" in said

        at_sandbox.run(tutorial.shell())
        down = person.open("/numbers")
        assert (down.status_code, "sipgate cannot be reached" in down.text) == (503, True)
        assert "Traceback" not in log.read_text()

        at_site.run(tutorial.shell())
        assert tutorial.files_into(at_site.folder) == [
            "pyproject.toml",
            "test_numbers.py",
            "crm/settings.py",
            "test_sign_in.py",
        ]
        assert "3 passed" in at_site.run(tutorial.shell())
    assert tutorial.left == []


def test_the_lines_to_delete_for_sipgate_itself_are_counted_right() -> None:
    """The last step names a number of lines; with them gone the settings are sipgate's."""
    (settings,) = (block for block in blocks(PAGE) if block.name == "crm/settings.py")
    lines = [line for line in settings.text.splitlines() if "SANDBOX" in line]
    assert len(lines) == 4
    assert "Delete the four lines of the sandbox" in section(PAGE, "## 8. With sipgate itself")


IN_CHECKOUT = {
    "git clone URL sipgate-django": "cp -R {sources} sipgate-django",
    "cd sipgate-django": "cd sipgate-django",
    "python3 -m venv .venv": "ln -s {environment} .venv",
    ".venv/bin/python -m pip install --no-deps -r requirements.txt": ":",
    ".venv/bin/python -m pip install build": ":",
    ".venv/bin/python -m build": ".venv/bin/python -m build --no-isolation",
}
SOURCES = (
    "manage.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "templates",
    "sipgate_project",
    "sipgate_provider",
    "sipgate_sandbox",
)


class Tutorial:
    """The page's blocks, taken one after the other, with free ports in the place of 8000 and 8081."""

    def __init__(self, folder: Path) -> None:
        self.site_port, self.sandbox_port = foreign.free_port(), foreign.free_port()
        page, heading = TESTS
        following = [block for block in blocks(page) if block.heading == heading]
        self.left = [self._placed(block) for block in [*blocks(PAGE), *following]]
        self._folder = folder

    def _placed(self, block: Block) -> Block:
        text = block.text.replace("localhost:8000", f"localhost:{self.site_port}")
        return Block(
            block.page,
            block.line,
            block.language,
            text.replace("localhost:8081", f"localhost:{self.sandbox_port}"),
        )

    def terminal(self, **environment: str) -> Terminal:
        """Open a terminal in which ``python3`` is the newest one."""
        work, programs = self._folder / "work", self._folder / "bin"
        work.mkdir(exist_ok=True)
        programs.mkdir(exist_ok=True)
        (programs / "python3").write_text(f'#!/bin/sh\nexec {foreign.newest_python()} "$@"\n')
        (programs / "python3").chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        return Terminal(work, **{"PATH": path, **environment})

    def checkout(self) -> str:
        """Return what the first block comes to where the checkout is this one."""
        sources = self._folder / "sources"
        sources.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, sources / name)
        lines = self.shell().splitlines()
        assert lines == list(IN_CHECKOUT)
        return "\n".join(IN_CHECKOUT.values()).format(sources=sources, environment=sys.prefix)

    def shell(self) -> str:
        """Return the next block, which is one of the shell."""
        block = self.left.pop(0)
        assert block.language == "sh", f"{block} is {block.language}"
        return block.text.strip()

    def files_into(self, folder: Path) -> list[str]:
        """Write the blocks up to the next shell block into the files that they name."""
        written = []
        while self.left and self.left[0].language != "sh":
            block = self.left.pop(0)
            assert block.name, f"{block} names no file"
            path = folder / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            first = block.text.splitlines()[0]
            before = path.read_text() if first.endswith("at its end") else ""
            path.write_text(f"{before}\n{block.text}")
            written.append(block.name)
        return written


class Terminal:
    """Runs shell blocks one after the other; where one has gone, the next begins."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.where = folder.parent / "where"
        self.environment = foreign.bare_environment(**environment)
        self.said = ""

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", f"{script}\npwd > '{self.where}'"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        self.said = done.stdout + done.stderr
        self.folder = Path(self.where.read_text().strip())
        return self.said

    @contextmanager
    def running(self, command: str, *, port: int, says: str) -> Iterator[Path]:
        """Leave a command running that listens at ``port`` and ``says`` something; yield the file of what it says."""
        log = self.folder / "said"
        with log.open("w") as file:
            process = subprocess.Popen(
                command.split(),
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                wait_for(port, process, log, says)
                yield log
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(20)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, words: str) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 and words in log.read_text():
                return
        time.sleep(0.05)
    raise AssertionError(f"Nothing listens at {port} and says {words!r}:\n{log.read_text()}")


class Person:
    """Who follows the page in a browser."""

    def __init__(self, origin: str) -> None:
        self.site, self.sipgate = requests.Session(), requests.Session()
        self.site.headers["Accept"] = "text/html,*/*;q=0.8"
        self.origin = origin

    def open(self, path: str) -> requests.Response:
        return self.site.get(urljoin(self.origin, path), timeout=30)

    def press(self, page: requests.Response) -> requests.Response:
        """Press the page's button for sipgate, allow everything there, return where that ends."""
        forms = re.findall(r"<form([^>]*)>(.*?)</form>", page.text, re.DOTALL)
        (attributes, form), *others = [
            found for found in forms if 'name="csrfmiddlewaretoken"' in found[1]
        ]
        assert others == [], page.text
        action = dict(re.findall(r'([a-z]+)="([^"]*)"', attributes)).get("action", page.url)
        assert "/accounts/sipgate/login/" in action, page.text
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))
        answer = self.site.post(
            urljoin(page.url, unescape(action)),
            data=fields,
            headers={"Referer": page.url},
            allow_redirects=False,
            timeout=30,
        )
        assert answer.status_code == 302, answer.text
        return self.site.get(sign_in(self.sipgate, answer.headers["Location"]), timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_what: object) -> None:
        self.site.close()
        self.sipgate.close()

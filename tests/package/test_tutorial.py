"""Does what docs/tutorial.md says, block by block, in an empty folder, and signs in as a person would.

Then it does what docs/code.md says about tests, in the same site.

Python and HTML blocks go into the files that their first lines name. Shell blocks run as they are;
the first one, which makes the checkout, does with this checkout and its environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.package import foreign
from tests.package.visitor import Visitor
from tests.ports import free_port, is_open
from tests.project.pages import ROOT, blocks, section
from tests.waiting import wait_for

PAGE = ROOT / "docs" / "tutorial.md"
TESTS = (ROOT / "docs" / "code.md", "Test your own site")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("index", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_tutorial_does_what_it_says(tmp_path, index):
    """With the packages of this environment; or, with the newest Python, those of the index."""
    page = Page()
    at_sandbox = Terminal(tmp_path, index=index, SANDBOX_PORT=str(page.sandbox_port))
    assert "Successfully built" in at_sandbox.run(checkout(page.shell(), tmp_path / "sources"))
    ready = f"sipgate sandbox ready at http://localhost:{page.sandbox_port}"
    with at_sandbox.running(page.shell(), port=page.sandbox_port, says=ready):
        at_site = Terminal(tmp_path, index=index)
        at_site.run(page.shell())
        assert at_site.folder.name == "crm"
        assert len(page.files_into(at_site.folder)) == 5
        prepare, _, serve = page.shell().rpartition("\n")
        assert "no issues" in at_site.run(prepare)
        with at_site.running(serve, port=page.site_port, says="no issues") as log:
            visitor = Visitor(f"http://localhost:{page.site_port}")
            assert "Connected with sipgate as Rosa Gärtner" in visitor.sign_in("/").text
            asked = visitor.get("/numbers")
            assert "Continue" in asked.text
            numbers = visitor.sign_in(asked.url)
            assert numbers.url == f"{visitor.origin}/numbers"
            assert "Rosenduft Gartenbau GmbH" in numbers.text
            assert numbers.text.count("<li>") == 25

            said = at_site.run(page.shell())
            assert "Rosenduft Gartenbau GmbH" in said
            assert "Refreshed." in said
            assert "All is well" in said

            at_sandbox.run(page.shell())
            down = visitor.get("/numbers")
            assert (down.status_code, "sipgate cannot be reached" in down.text) == (503, True)
            visitor.close()
            assert "Traceback" not in log.read_text()

        at_site.run(page.shell())
        assert len(page.files_into(at_site.folder)) == 4
        assert "3 passed" in at_site.run(page.shell())
    assert page.left == []


def test_the_lines_to_delete_for_sipgate_itself_are_counted_right():
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
SOURCES = ("manage.py", *foreign.SOURCES, "sipgate_project", "templates")


def checkout(block: str, sources: Path) -> str:
    """Return what the first block comes to where the checkout is this one."""
    foreign.copy(sources, *SOURCES)
    assert block.splitlines() == list(IN_CHECKOUT)
    return "\n".join(IN_CHECKOUT.values()).format(sources=sources, environment=sys.prefix)


class Page:
    """The blocks, taken one after the other, with free ports in the place of 8000 and 8081."""

    def __init__(self) -> None:
        self.site_port, self.sandbox_port = free_port(), free_port()
        page, heading = TESTS
        self.left = [*blocks(PAGE), *(one for one in blocks(page) if one.heading == heading)]

    def _next(self) -> str:
        text = self.left.pop(0).text.replace("localhost:8000", f"localhost:{self.site_port}")
        return text.replace("localhost:8081", f"localhost:{self.sandbox_port}")

    def shell(self) -> str:
        """Return the next block, which is one of the shell."""
        assert self.left[0].language == "sh", self.left[0]
        return self._next().strip()

    def files_into(self, folder: Path) -> list[Path]:
        """Write the blocks up to the next shell block into the files that they name."""
        written = []
        while self.left and self.left[0].language != "sh":
            assert self.left[0].name, f"{self.left[0]} names no file"
            path = folder / self.left[0].name
            text = self._next()
            path.parent.mkdir(parents=True, exist_ok=True)
            is_added = text.splitlines()[0].endswith("at its end")
            path.write_text(f"{path.read_text() if is_added else ''}\n{text}")
            written.append(path)
        return written


class Terminal:
    """Runs shell blocks one after the other; where one has gone, the next begins."""

    def __init__(self, folder: Path, *, index: bool, **environment: str) -> None:
        self.folder, self._where = folder / "work", folder / "where"
        python = folder / "bin" / "python3"
        for made in (self.folder, python.parent):
            made.mkdir(exist_ok=True)
        python.write_text(NEWEST if index else BORROWING)
        python.chmod(0o755)
        environment["PATH"] = f"{python.parent}:{os.environ['PATH']}"
        if not index:
            environment["PIP_NO_INDEX"] = "1"
        self._environment = foreign.bare_environment(**environment)

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", f"{script}\npwd > '{self._where}'"],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        self.folder = Path(self._where.read_text().strip())
        return done.stdout + done.stderr

    @contextmanager
    def running(self, command: str, *, port: int, says: str) -> Iterator[Path]:
        """Leave a command running that listens at ``port`` and ``says`` something; yield its log."""
        log = self.folder / "said"
        with log.open("w") as file:
            process = subprocess.Popen(
                command.split(),
                cwd=self.folder,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                wait_for(lambda: is_open(port) and says in log.read_text(), log.read_text)
                yield log
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(20)


NEWEST = f'#!/bin/sh\nexec {foreign.newest_python()} "$@"\n'
BORROWING = f"""#!/bin/sh
# An environment that is made gets the packages of ours, and the only program that is called.
{sys.executable} "$@" || exit
if [ "$2" = venv ]; then
  echo {foreign.PACKAGES} > "$3"/lib/{foreign.PYTHON}/site-packages/ours.pth
  ln -s {sys.prefix}/bin/django-admin "$3"/bin
fi
"""
"""What ``python3`` is."""

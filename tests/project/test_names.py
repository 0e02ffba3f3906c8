"""The app speaks of Django's settings, since other sites have no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sipgate_project.env import NAMES
from tests.project.pages import ROOT

APP = ROOT / "sipgate_provider"
SHARED = {"ALLOWED_HOSTS", "DEBUG", "SECRET_KEY", "ADMINS"}
"""Variables that are called as the Django settings that they fill."""
OF_SITE_ONLY = re.compile(
    "|".join(
        rf"(?<!\w){name}(?!\w)"
        for name in sorted(NAMES)
        if name not in SHARED and not name.startswith("SIPGATE_")
    )
)


def sentences() -> Iterator[tuple[str, str]]:
    """Yield every text in the app's code (names of variables in code are none), templates and catalogues."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    for path in [*APP.rglob("*.html"), *APP.rglob("*.txt"), *APP.rglob("*.po")]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_no_text_of_the_app_names_a_variable_of_this_site():
    found = [place for place, text in sentences() if OF_SITE_ONLY.search(text)]
    # conf reads SIPGATE_TOKEN_URL as _get("TOKEN_URL", …), and its own docstring shows the table.
    assert [place for place in found if not place.startswith("sipgate_provider/conf.py")] == []

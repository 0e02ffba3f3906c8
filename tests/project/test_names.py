"""The app speaks of Django's settings, since other sites have no others; this site's operators read their variables."""

from __future__ import annotations

import ast
import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as of_site
from django.core.management import call_command

from sipgate_project.env import NAMES
from sipgate_project.logs import NamesOfVariables
from sipgate_provider import conf, errors, problems
from tests.project.pages import ROOT

APP = ROOT / "sipgate_provider"
SHARED = {"ALLOWED_HOSTS", "ATOMIC_REQUESTS", "DEBUG", "SECRET_KEY", "ADMINS"}
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


def test_no_text_of_the_app_names_a_variable_of_this_site() -> None:
    found = [place for place, text in sentences() if OF_SITE_ONLY.search(text)]
    # conf reads SIPGATE_TOKEN_URL as _get("TOKEN_URL", …), and its own docstring shows the table.
    assert [place for place in found if not place.startswith("sipgate_provider/conf.py")] == []


def test_every_name_in_the_table_is_a_variable_of_this_site() -> None:
    assert set(of_site.SIPGATE_SETTING_NAMES.values()) <= set(NAMES)


class TestOperatorsOfThisSite:
    @pytest.mark.parametrize(("django", "variable"), of_site.SIPGATE_SETTING_NAMES.items())
    def test_read_their_variables_on_the_page_of_a_problem(
        self, django: str, variable: str
    ) -> None:
        error = errors.Misconfigured(f"Something is wrong: correct {django}.", setting=django)
        cure = problems.describe(error).cure
        assert (variable in cure, django in cure) == (True, False)

    @pytest.mark.django_db
    def test_read_their_variables_from_the_doctor(self, settings: Any) -> None:
        settings.SIPGATE_SCOPE = ["balance:read"]
        settings.SIPGATE_REDIRECT_URI = "http://crm.example/oauth"
        settings.SIPGATE_TOKEN_URL = "http://login.example/token"
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [{"client_id": "", "secret": ""}]}}
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("sipgate_doctor", "--offline", stdout=out)
        words = set(re.findall(r"\w+", out.getvalue()))
        assert {
            "OAUTH_SCOPE",
            "TOKEN_URL",
            "REDIRECT_URI",
            "CLIENT_ID",
            "CLIENT_SECRET",
            "REDIS_URL",
        } <= words
        assert not words & set(of_site.SIPGATE_SETTING_NAMES)

    def test_read_their_variables_in_the_log(self) -> None:
        record = logging.LogRecord(
            "sipgate_provider.x", logging.ERROR, "", 0, "Check %s.", ("SIPGATE_TOKEN_URL",), None
        )
        assert NamesOfVariables().filter(record)
        assert record.getMessage() == "Check TOKEN_URL."

    def test_are_told_of_texts_that_name_more_than_one(self) -> None:
        assert (
            conf.with_site_names(f"{errors.CLIENT_ID}, SIPGATE_REDIRECT_URI")
            == "CLIENT_ID, REDIRECT_URI"
        )

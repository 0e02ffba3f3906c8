"""docs/reference.md has what the code has. ``reference`` writes the tables; here stands what is written by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.management import get_commands
from django.urls import get_resolver

from sipgate_provider import decorators, errors, models, problems, signals, urls
from sipgate_provider.client import SipgateClient
from sipgate_provider.templatetags import sipgate as tags
from tests.project import reference
from tests.project.pages import ROOT, section, table

PAGE = reference.PAGE


def codes(heading: str) -> list[str]:
    """Return what stands in code in the first column of the heading's table."""
    return [row[0].strip("`") for row in table(section(PAGE, heading))]


def test_generated_parts_are_what_the_code_says() -> None:
    said = PAGE.read_text(encoding="utf-8")
    assert reference.rendered(said) == said, "run make reference"
    assert f"| {reference.MISSING} |" not in said, "a new row has a column that is written by hand"


def test_a_change_of_the_code_would_be_seen() -> None:
    """A part that is no longer found, or makes no row, would pass."""
    said = PAGE.read_text(encoding="utf-8")
    names = [found[1].partition(" ")[0] for found in reference.PART.finditer(said)]
    assert set(names) == set(reference.PARTS)
    for found in reference.PART.finditer(said):
        emptied = said.replace(
            found[3], "".join(line for line in found[3].splitlines(True)[:2] if line[0] == "|")
        )
        assert len(reference.rendered(emptied)) > len(emptied), found[1]


def test_every_command_of_the_app_is_described() -> None:
    known = {name for name, app in get_commands().items() if app == "sipgate_provider"}
    described = re.findall(r"^### (sipgate_\w+)$", section(PAGE, "## Commands"), flags=re.MULTILINE)
    assert sorted(known) == sorted(described)


def test_only_conf_reads_settings_of_ours() -> None:
    """Else a setting could be missing here."""
    reading = re.compile(r'settings\.SIPGATE_\w+|getattr\(settings, f?"SIPGATE_')
    app = ROOT / "sipgate_provider"
    readers = {
        file.name for file in app.rglob("*.py") if reading.search(file.read_text(encoding="utf-8"))
    }
    assert readers == {"conf.py"}


def test_signatures_in_the_text() -> None:
    assert reference.signature(SipgateClient, "SipgateClient") in section(PAGE, "## Client")
    required = reference.signature(decorators.sipgate_required, "sipgate_required").replace(
        "(view=None, ", "("
    )
    assert required in section(PAGE, "## Decorator")


def test_statuses_of_the_decorator() -> None:
    rows = {row[0]: row[2] for row in table(section(PAGE, "## Decorator"))}
    for person, kinds in {
        "has no connection, or has to sign in": (errors.NotConnected, errors.NeedsSignIn),
        "lacks a scope": (errors.MissingPermission,),
    }.items():
        assert {str(problems.describe(kind("…")).status) for kind in kinds} == {rows[person]}


def test_what_sipgate_connection_returns() -> None:
    known = {*tags.Connection.__dataclass_fields__, *vars(tags.Connection)} - {"needed"}
    assert sorted(codes("### The connection in a template")) == sorted(
        name for name in known if name[0] != "_"
    )


def test_signals() -> None:
    assert codes("## Signals") == [
        name for name, value in vars(signals).items() if isinstance(value, signals.Signal)
    ]


def test_permissions() -> None:
    said = set(
        re.findall(r"`(?:sipgate_provider\.)?((?:operate|revoke)_\w+)`", section(PAGE, "## Models"))
    )
    assert said == {name for name, _text in models.SipgateToken._meta.permissions}


def test_addresses() -> None:
    patterns: list[Any] = [*urls.urlpatterns, *urls.callback_urlpatterns()]
    assert set(codes("## Addresses")) == {one.name for one in patterns}


@pytest.mark.parametrize("name", codes("## Addresses"))
def test_address(name: str) -> None:
    (said,) = [row[1] for row in table(section(PAGE, "## Addresses")) if row[0] == f"`{name}`"]
    assert f"/{get_resolver().reverse(name)}" == said.strip("`")

"""docs/reference.md has what the code has: ``reference`` writes tables, the rest is held here."""

from __future__ import annotations

import re
from typing import Any

from django.core.management import get_commands
from django.urls import reverse

from sipgate_provider import conf, decorators, signals, urls
from sipgate_provider.client import SipgateClient
from sipgate_provider.templatetags import sipgate as tags
from tests.project import reference
from tests.project.pages import ROOT, section, table

PAGE = reference.PAGE
SAID = PAGE.read_text(encoding="utf-8")


def test_generated_parts_are_what_the_code_says():
    assert reference.rendered(SAID) == SAID, "run make reference"
    assert f"| {reference.MISSING} |" not in SAID, "a new row has a column that is written by hand"


def test_a_change_of_the_code_would_be_seen():
    """A part that is no longer found, or makes no row, would pass."""
    parts = list(reference.PART.finditer(SAID))
    assert {part[1].partition(" ")[0] for part in parts} == set(reference.PARTS)
    for part in parts:
        head = [line for line in part[3].splitlines(True) if line[0] == "|"][:2]
        emptied = SAID.replace(part[3], "".join(head))
        assert len(reference.rendered(emptied)) > len(emptied), part[1]


def test_every_command_of_the_app_is_described():
    known = {name for name, app in get_commands().items() if app == "sipgate_provider"}
    assert known == set(re.findall(r"^### (sipgate_\w+)$", SAID, re.M))


def test_only_conf_reads_settings_of_ours():
    """Otherwise a setting could be missing here."""
    reading = re.compile(r'settings\.SIPGATE_\w+|getattr\(settings, f?"SIPGATE_')
    files = (ROOT / "sipgate_provider").rglob("*.py")
    readers = {file.name for file in files if reading.search(file.read_text(encoding="utf-8"))}
    assert readers == {"conf.py"}


def test_conf_lists_every_setting():
    assert {name for name, *_ in reference.settings()} == {f"`{name}`" for name in conf.NAMES}


def test_signatures_in_the_text():
    assert reference.signature(SipgateClient, "SipgateClient") in section(PAGE, "## Client")
    required = reference.signature(decorators.sipgate_required, "sipgate_required")
    assert required.replace("(view=None, ", "(") in section(PAGE, "## Decorator")


def test_what_sipgate_connection_returns():
    known = {*tags.Connection.__dataclass_fields__, *vars(tags.Connection)} - {"needed"}
    public = {name for name in known if name[0] != "_"}
    told = section(PAGE, "## Template tags").partition("What `sipgate_connection` returns")[2]
    assert public <= set(re.findall(r"`(\w+)`", told.partition("\n\n")[0]))


def test_signals_and_addresses():
    sent = [name for name, value in vars(signals).items() if isinstance(value, signals.Signal)]
    assert [*rows("## Signals")] == sent
    patterns: list[Any] = [*urls.urlpatterns, *urls.callback_urlpatterns()]
    said = {name: row[1].strip("`") for name, row in rows("## Addresses").items()}
    assert said == {one.name: reverse(one.name) for one in patterns}


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of a heading's table by what is in code in their first column."""
    return {row[0].strip("`"): row for row in table(section(PAGE, heading))}

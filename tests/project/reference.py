"""Writes the tables of docs/reference.md that the code knows: ``make reference``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Its first columns
come from the code; the rows keep what the page says in further columns. ``test_reference`` fails
while the page differs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from django.conf import settings as of_site
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.test import override_settings
from django.utils import translation

from sipgate_provider import conf, errors, models
from sipgate_provider import values as of_sipgate
from sipgate_provider.client import SipgateClient
from sipgate_provider.resources import Resources
from sipgate_provider.templatetags import sipgate
from tests.project.pages import ROOT, is_row, table

PAGE = ROOT / "docs" / "reference.md"
PART = re.compile(r"(?<=<!-- generated: )([\w ]+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
MISSING = "…"
"""What a new row says in a column that is written by hand, until somebody writes it."""
Row = list[str]


def main() -> None:
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def rendered(page: str) -> str:
    """Return the text of the page with its generated parts as the code has them now."""

    def render(found: re.Match[str]) -> str:
        kind, _, argument = found[1].partition(" ")
        made = PARTS[kind](*argument.split())
        body = f"{made}\n" if isinstance(made, str) else _table(found[3].splitlines(), made)
        return f"{found[1]}{found[2]}{body}"

    with translation.override("en"):
        return PART.sub(render, page)


def _table(old: list[str], rows: Iterable[Row]) -> str:
    """Return a table of ``rows``, with head and hand-written columns of the one that is there."""
    head = [line for line in old if is_row(line)][:2]
    columns = head[0].count("|") - 1
    kept = {row[0]: row for row in table("\n".join(old))}
    made = [[*row, *kept.get(row[0], [MISSING] * columns)[len(row) :]] for row in rows]
    lines = ["".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in made]
    return "\n".join([*head, *lines, ""])


def words(text: object) -> str:
    """Return a docstring's first paragraph as a line of Markdown, fit for a table's cell."""
    first = inspect.cleandoc(str(text or "")).partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split()).replace("|", "\\|").removesuffix("::")


def code(value: object) -> str:
    return f"`{value}`"


# --- the parts ------------------------------------------------------------------------------------


def settings() -> list[Row]:
    """Return name, default and meaning of every setting: ``conf`` asked in a site that sets none."""
    rows = []
    with override_settings():
        for name in [name for name in dir(of_site) if name.startswith("SIPGATE_")]:
            delattr(of_site, name)
        for function in vars(conf).values():
            said = re.match(r"`(SIPGATE_\w+)`[^:]*: (.*)", words(getattr(function, "__doc__", "")))
            if said and function.__module__ == conf.__name__:
                value = function()
                value = f"{value:g}" if isinstance(value, float) else value
                default = "empty" if value in ("", ()) else code(value).replace("'", '"')
                rows.append(
                    [code(said[1]), "derived" if "derived" in said[2] else default, said[2]]
                )
    return rows


def options(name: str) -> list[Row]:
    """Return each option of a command as it is written, and its help."""
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    general = {action.dest for action in BaseCommand().create_parser("manage.py", name)._actions}
    rows = []
    for action in (one for one in parser._actions if one.dest not in general):
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        rows.append(
            [code(" ".join([*action.option_strings[:1], value]).strip()), words(action.help)]
        )
    return rows


def exits(name: str) -> str:
    """Return what a command's help says of its exit codes."""
    found = re.search(r"Exit code: .*", str(load_command_class(get_commands()[name], name).help))
    return found[0] if found else MISSING


def signature(function: Callable[..., Any], name: str) -> str:
    """Return ``name(parameters)`` without annotations, ``self`` and the template context."""
    given = inspect.signature(function)
    kept = [
        one.replace(annotation=one.empty)
        for one in given.parameters.values()
        if one.name not in {"self", "context"}
    ]
    short = given.replace(parameters=kept, return_annotation=given.empty)
    return code(f"{name}{short}".replace("'", '"'))


def client() -> list[Row]:
    names = dict.fromkeys([*vars(SipgateClient), *vars(Resources)])
    members = {name: getattr(SipgateClient, name) for name in names if not name.startswith("_")}
    return [
        [code(name) if isinstance(one, property) else signature(one, name), words(one.__doc__)]
        for name, one in members.items()
    ]


def values() -> list[Row]:
    kinds = [
        kind
        for kind in vars(of_sipgate).values()
        if getattr(kind, "__module__", "") == of_sipgate.__name__
    ]
    return [
        [code(kind.__name__), ", ".join(code(field.name) for field in fields(kind))]
        for kind in kinds
        if is_dataclass(kind)
    ]


def tags() -> list[Row]:
    functions = {name: getattr(sipgate, name) for name in sipgate.register.tags}
    return [[signature(one, name), words(one.__doc__)] for name, one in functions.items()]


def error_tree() -> list[Row]:
    """Return each class, what happened and what helps (its module's docstring), what it adds."""
    drawn = re.compile(r"^ *[├└│─ ]*(\w+) {2,}(.*?)(?: +→ (.*))?$", re.MULTILINE)
    said = {
        found[1]: [words(found[2]), words(found[3])] for found in drawn.finditer(errors.__doc__)
    }

    def rows(kind: type, depth: int) -> list[Row]:
        new = [*inspect.signature(kind.__init__).parameters] if "__init__" in vars(kind) else []
        own = ", ".join(code(name) for name in new if name not in {"self", "message", "details"})
        below = [child for child in kind.__subclasses__() if child.__module__ == kind.__module__]
        row = [f"{'· ' * depth}{code(kind.__name__)}", *said[kind.__name__], own]
        return [row, *(line for child in below for line in rows(child, depth + 1))]

    return rows(errors.SipgateError, 0)


def choices(name: str) -> list[Row]:
    kind: Any = getattr(models, name)
    return [[code(value), str(label)] for value, label in kind.choices if value]


_PARTS = (settings, options, exits, client, values, tags, error_tree, choices)
PARTS: dict[str, Callable[..., list[Row] | str]] = {one.__name__: one for one in _PARTS}

"""Writes the tables of docs/reference.md that the code knows: ``make reference``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Its first columns come from the code;
the rows keep what the page says in further columns. ``test_reference`` fails while the page differs.
"""

from __future__ import annotations

import inspect
import re
from argparse import Action
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import timedelta
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
TYPES = {
    "str": "text",
    "float": "number",
    "timedelta": "seconds",
    "Path | None": "path or None",
    "dict[str, str]": "dict of texts",
}

Row = list[str]


def rendered(page: str) -> str:
    """Return the text of the page with its generated parts as the code has them now."""

    def render(found: re.Match[str]) -> str:
        name, lines = found[1], found[3].splitlines()
        kind, _, argument = name.partition(" ")
        made = PARTS[kind](*argument.split())
        body = f"{made}\n" if isinstance(made, str) else _table(lines, made)
        return f"{name}{found[2]}{body}"

    with translation.override("en"):
        return PART.sub(render, page)


def _table(old: list[str], rows: Iterable[Row]) -> str:
    """Return a Markdown table of ``rows``, with the head and the hand-written columns of the one that is there."""
    head = [line for line in old if is_row(line)][:2]
    columns = head[0].count("|") - 1
    kept = {row[0]: row for row in table("\n".join(old))}
    made = [[*row, *kept.get(row[0], [MISSING] * columns)[len(row) :]] for row in rows]
    return (
        "\n".join(
            [
                *head,
                *("".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in made),
            ]
        )
        + "\n"
    )


def words(text: str | None) -> str:
    """Return a docstring's first paragraph as a line of Markdown, fit for a table's cell."""
    first = inspect.cleandoc(text or "").partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split()).replace("|", "\\|").removesuffix("::")


def code(value: object) -> str:
    return f"`{value}`"


# --- settings, commands -----------------------------------------------------------------------------------------------


def settings() -> list[Row]:
    """Return name, type, default and meaning of every setting: ``conf`` asked in a site that sets none."""
    rows = []
    with override_settings():
        for name in [name for name in dir(of_site) if name.startswith("SIPGATE_")]:
            delattr(of_site, name)
        for function in vars(conf).values():
            described = re.match(
                r"`(SIPGATE_\w+)`[^:]*: (.*)", words(getattr(function, "__doc__", ""))
            )
            if described and function.__module__ == conf.__name__:
                kind = function.__annotations__["return"]
                kind = (
                    "list of texts" if kind.startswith(("list", "tuple")) else TYPES.get(kind, kind)
                )
                kind = "seconds" if described[1].endswith("_SECONDS") else kind
                default = "derived" if "derived" in described[2] else _default(function())
                rows.append([code(described[1]), kind, default, described[2]])
    return rows


def _default(value: Any) -> str:
    if value in ("", ()):
        return "empty"
    if isinstance(value, timedelta | float):
        value = f"{value.total_seconds() if isinstance(value, timedelta) else value:g}"
    return code(value).replace("'", '"')


def options(name: str) -> list[Row]:
    """Return each option of a command as it is written, and its help."""
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    general = {action.dest for action in BaseCommand().create_parser("manage.py", name)._actions}
    return [
        [_written(action), words(action.help)]
        for action in parser._actions
        if action.dest not in general
    ]


def _written(action: Action) -> str:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    return code(" ".join([*action.option_strings[:1], *([value] if value else [])]))


def exits(name: str) -> str:
    """Return what a command's help says of its exit codes."""
    found = re.search(r"Exit code: .*", str(load_command_class(get_commands()[name], name).help))
    return found[0] if found else MISSING


# --- client, template tags --------------------------------------------------------------------------------------------


def signature(function: Callable[..., Any], name: str) -> str:
    """Return ``name(parameters)`` without annotations, ``self`` and the template context."""
    given = inspect.signature(function)
    kept = [
        one.replace(annotation=one.empty)
        for one in given.parameters.values()
        if one.name not in {"self", "context"}
    ]
    return code(
        f"{name}{given.replace(parameters=kept, return_annotation=given.empty)}".replace("'", '"')
    )


def client() -> list[Row]:
    both = [*vars(SipgateClient), *vars(Resources)]
    public = [name for name in dict.fromkeys(both) if not name.startswith("_")]
    members = [(name, getattr(SipgateClient, name)) for name in public]
    return [
        [
            code(name) if isinstance(member, property) else signature(member, name),
            words(member.__doc__),
        ]
        for name, member in members
    ]


def values() -> list[Row]:
    return [
        [code(kind.__name__), ", ".join(code(field.name) for field in fields(kind))]
        for kind in vars(of_sipgate).values()
        if is_dataclass(kind) and isinstance(kind, type) and kind.__module__ == of_sipgate.__name__
    ]


def tags() -> list[Row]:
    functions = {name: getattr(sipgate, name) for name in sipgate.register.tags}
    return [
        [signature(function, name), words(function.__doc__)] for name, function in functions.items()
    ]


# --- errors, models ---------------------------------------------------------------------------------------------------


def error_tree() -> list[Row]:
    """Return the tree: class, what its constructor adds; what happened and what helps, from the module's docstring."""
    lines = re.findall(
        r"^ *[├└│─ ]*(\w+) {2,}(.*?)(?: +→ (.*))?$", errors.__doc__ or "", flags=re.MULTILINE
    )
    said = {name: (words(meaning), words(remedy)) for name, meaning, remedy in lines}

    def rows(kind: type, depth: int) -> list[Row]:
        known = {"self", "message", "details"}
        new = [name for name in inspect.signature(kind.__init__).parameters if name not in known]
        own = ", ".join(map(code, new)) if "__init__" in vars(kind) else ""
        meaning, remedy = said[kind.__name__]
        below = [child for child in kind.__subclasses__() if child.__module__ == kind.__module__]
        return [
            [f"{'· ' * depth}{code(kind.__name__)}", meaning, remedy, own],
            *(row for child in below for row in rows(child, depth + 1)),
        ]

    return rows(errors.SipgateError, 0)


def choices(name: str) -> list[Row]:
    kind: Any = {"State": models.State, "Reason": models.Reason}[name]
    return [[code(value), str(label)] for value, label in kind.choices if value]


PARTS: dict[str, Callable[..., list[Row] | str]] = {
    function.__name__: function
    for function in (
        settings,
        options,
        exits,
        client,
        values,
        tags,
        error_tree,
        choices,
    )
}


def main() -> None:
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

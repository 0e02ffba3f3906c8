"""docs/reference.md against the code: names, defaults, options, signatures, ids. What the code says in words (docstrings,
help texts) is the page's words."""

from __future__ import annotations

import ast
import inspect
import re
from argparse import Action
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import URLPattern, URLResolver, get_resolver

from sipgate_provider import api, checks, conf, decorators, errors, models, problems, signals
from sipgate_provider.client import SipgateClient
from sipgate_provider.templatetags import sipgate as tags
from sipgate_provider.urls import callback_urlpatterns
from tests.project.pages import ROOT, section, table

PAGE = ROOT / "docs" / "reference.md"
PACKAGE = ROOT / "sipgate_provider"
OURS = [
    "sipgate_account",
    "sipgate_import_social_tokens",
    "sipgate_doctor",
    "sipgate_keepalive",
    "sipgate_reseal",
    "sipgate_status",
]
TYPES = {
    "str": "text",
    "float": "number",
    "timedelta": "seconds",
    "bool": "bool",
    "list[str]": "list of texts",
    "tuple[str, ...]": "list of texts",
    "Path | None": "path or None",
}
VALUES = (api.Account, api.Identity, api.User, api.Device, api.Balance, api.Number, api.HistoryEntry)


def words(text: str | None) -> str:
    """Return a docstring's first paragraph as a line of Markdown, fit for a table's cell."""
    first = inspect.cleandoc(text or "").partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split()).replace("|", "\\|").removesuffix("::")


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


# --- settings ---------------------------------------------------------------------------------------------------------


def settings() -> list[list[str]]:
    """Return name, type, default and meaning of every setting that ``conf`` reads."""
    rows = []
    for function in (node for node in tree_of(PACKAGE / "conf.py").body if isinstance(node, ast.FunctionDef)):
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_get":
                name, default = call.args
                assert isinstance(name, ast.Constant)
                meaning = words(ast.get_docstring(function))
                said = re.match(rf"`SIPGATE_{name.value}`(?: \((?:seconds|[^)]*)\))?: (.*)", meaning)
                assert said, f"The docstring of conf.{function.name} does not begin with its setting."
                assert function.returns
                kind = "seconds" if name.value.endswith("_SECONDS") else TYPES[ast.unparse(function.returns)]
                rows.append(
                    [f"`SIPGATE_{name.value}`", kind, default_of(default), meaning.partition("`: ")[2] or said[1]]
                )
    return rows


def default_of(node: ast.expr) -> str:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        if not isinstance(node, ast.JoinedStr):
            return "derived"
        value = eval(compile(ast.Expression(node), "conf", "eval"), vars(conf))
    if value in ("", ()):
        return "empty"
    return f"`{value}`" if isinstance(value, str) else f"`{value!r}`".replace("'", '"')


def test_settings() -> None:
    assert table(section(PAGE, "## Settings")) == settings()


# --- commands ---------------------------------------------------------------------------------------------------------


def actions(name: str) -> list[Action]:
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    general = {
        "--version",
        "--verbosity",
        "--settings",
        "--pythonpath",
        "--traceback",
        "--no-color",
        "--force-color",
        "--skip-checks",
        "--help",
    }
    return [action for action in parser._actions if not general & set(action.option_strings)]


def options(name: str) -> list[list[str]]:
    """Return each option as it is written, and its help."""
    return [[f"`{_written(action)}`", words(action.help)] for action in actions(name)]


def _written(action: Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{action.option_strings[0]}{value}"


def exit_codes(name: str) -> str:
    """Return what the command's help says of its exit codes, as one line."""
    found = re.search(r"Exit code: (.*)\.$", str(load_command_class(get_commands()[name], name).help))
    return f"Exit code: {found[1]}." if found else ""


def test_every_command_of_the_app_is_described() -> None:
    known = {name for name, app in get_commands().items() if app == "sipgate_provider"}
    described = re.findall(r"^### (sipgate_\w+)$", section(PAGE, "## Commands"), flags=re.MULTILINE)
    assert sorted(known) == sorted(described) == sorted(OURS)


@pytest.mark.parametrize("name", OURS)
def test_command(name: str) -> None:
    said = section(PAGE, f"### {name}")
    assert table(said) == options(name)
    if exit_codes(name):
        assert exit_codes(name) in " ".join(said.split())


# --- client, decorator, tags ------------------------------------------------------------------------------------------


def signature(function: Any, *, name: str) -> str:
    """Return ``name(parameters)`` without annotations and without ``self``."""
    parts, named = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in {"self", "context"}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not named:
            parts, named = [*parts, "*"], True
        stars = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{stars}{parameter.name}{default}".replace("'", '"'))
    return f"{name}({', '.join(parts)})"


def methods() -> list[list[str]]:
    """Return signature and summary of every public method, in the order of the class; asynchronous twins apart."""
    rows = []
    for name, raw in vars(SipgateClient).items():
        if name.startswith("_") or is_asynchronous(name, raw):
            continue
        if isinstance(raw, property):
            rows.append([f"`{name}`", words(raw.__doc__)])
            continue
        function = getattr(SipgateClient, name)
        rows.append([f"`{signature(function, name=name)}`", words(function.__doc__)])
    return rows


def is_asynchronous(name: str, raw: Any) -> bool:
    function = getattr(raw, "__func__", raw)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def twins() -> list[str]:
    return [name for name, raw in vars(SipgateClient).items() if is_asynchronous(name, raw)]


def test_client() -> None:
    said = section(PAGE, "## Client")
    assert f"`{signature(SipgateClient, name='SipgateClient')}`" in said
    assert table(said) == methods()


def test_asynchronous_methods_are_named_and_have_the_signature_of_their_twin() -> None:
    listed = re.search(r"Asynchronous: (.*?)\.\s", section(PAGE, "## Client"), flags=re.DOTALL)
    assert listed
    assert re.findall(r"`(\w+)`", listed[1]) == twins()
    for name in twins():
        both = (getattr(SipgateClient, name), getattr(SipgateClient, name[1:]))
        assert signature(both[0], name="f") == signature(both[1], name="f"), name


def test_values() -> None:
    rows = [[f"`{kind.__name__}`", ", ".join(f"`{name}`" for name in kind.__dataclass_fields__)] for kind in VALUES]
    assert table(section(PAGE, "### Values")) == rows


def test_decorator_and_mixin() -> None:
    said = section(PAGE, "## Decorator and mixin")
    assert f"`{signature(decorators.sipgate_required, name='sipgate_required').replace('(view=None, ', '(')}`" in said
    for name in ("sipgate_scopes", "get_sipgate_scopes"):
        assert hasattr(decorators.SipgateRequiredMixin, name)
        assert name in said


def test_statuses_of_the_decorator() -> None:
    rows = {row[0]: row[2] for row in table(section(PAGE, "## Decorator and mixin"))}
    for person, kinds_of_trouble in {
        "has no connection, or has to sign in": (errors.NotConnected, errors.NeedsSignIn),
        "lacks a scope": (errors.MissingPermission,),
    }.items():
        assert {str(problems.describe(kind("…")).status) for kind in kinds_of_trouble} == {rows[person]}


def test_only_conf_reads_settings_of_ours() -> None:
    """Else a setting could be missing here."""
    reading = re.compile(r'settings\.SIPGATE_\w+|getattr\(settings, f?"SIPGATE_')
    readers = {file.name for file in PACKAGE.rglob("*.py") if reading.search(file.read_text(encoding="utf-8"))}
    assert readers == {"conf.py"}


def test_template_tags() -> None:
    functions = {name: getattr(tags, name) for name in tags.register.tags}
    rows = [[f"`{signature(function, name=name)}`", words(function.__doc__)] for name, function in functions.items()]
    assert table(section(PAGE, "## Template tags")) == rows


def test_what_sipgate_connection_returns() -> None:
    said = section(PAGE, "### The connection in a template")
    fields = [
        name for name in (*tags.Connection.__dataclass_fields__, *vars(tags.Connection)) if not name.startswith("_")
    ]
    assert sorted(re.findall(r"^\| `(\w+)`", said, flags=re.MULTILINE)) == sorted({*fields} - {"needed"})


# --- signals, errors, checks ------------------------------------------------------------------------------------------


def documented_signals() -> list[list[str]]:
    """Return name, arguments and meaning of each signal; arguments as they are sent."""
    sent: dict[str, set[tuple[str, ...]]] = {}
    for file in PACKAGE.rglob("*.py"):
        for call in ast.walk(tree_of(file)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "signals.announce":
                which = ast.unparse(call.args[0]).removeprefix("signals.")
                sent.setdefault(which, set()).add(tuple(keyword.arg or "" for keyword in call.keywords))
    rows, body = [], tree_of(PACKAGE / "signals.py").body
    for node, following in pairwise(body):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "Signal()":
            assert isinstance(following, ast.Expr)
            assert isinstance(following.value, ast.Constant)
            name = ast.unparse(node.targets[0])
            (arguments,) = sent[name]
            rows.append([f"`{name}`", ", ".join(f"`{one}`" for one in arguments), words(str(following.value.value))])
    return rows


def test_signals() -> None:
    assert {row[0].strip("`") for row in documented_signals()} == {
        name for name, value in vars(signals).items() if isinstance(value, signals.Signal)
    }
    assert table(section(PAGE, "## Signals")) == documented_signals()


def classes(base: type = errors.SipgateError, depth: int = 0) -> list[tuple[int, type]]:
    found = [(depth, base)]
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            found += classes(child, depth + 1)
    return found


def own_attributes(kind: type) -> list[str]:
    """Return what the class itself adds to its base, from its constructor."""
    if "__init__" not in vars(kind):
        return []
    parameters = inspect.signature(vars(kind)["__init__"]).parameters
    return [
        name
        for name in parameters
        if name not in {"self", "message", "details"} or (name == "message" and kind is errors.SipgateError)
    ]


def remedies() -> dict[str, str]:
    lines = re.findall(r"^ *[├└│─ ]*(\w+) +(\S.*?) +→ (.*)$", errors.__doc__ or "", flags=re.MULTILINE)
    return {name: remedy for name, _meaning, remedy in lines}


def test_errors() -> None:
    rows = table(section(PAGE, "## Errors"))
    assert [(row[0].count("·"), row[0].strip("· `")) for row in rows] == [
        (depth, kind.__name__) for depth, kind in classes()
    ]
    for row, (_depth, kind) in zip(rows, classes(), strict=True):
        said = re.findall(r"`(\w+)`", row[2])
        wanted = [*own_attributes(kind), "reference"] if kind is errors.SipgateError else own_attributes(kind)
        assert said == wanted, kind
    known = remedies()
    assert len(known) >= 10
    assert {row[0].strip("· `"): row[3] for row in rows if row[0].strip("· `") in known} == known


def ids() -> set[str]:
    """Return the ids of every check that the package can answer with."""
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        found |= set(re.findall(r"sipgate_provider\.([EW]\d{3})\b", file.read_text(encoding="utf-8")))
    return found


def kinds() -> dict[str, str]:
    """Return Error or Warning for each id, as ``checks`` makes it."""
    made = {}
    for call in ast.walk(tree_of(PACKAGE / "checks.py")):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in {"checks.Error", "checks.Warning"}:
            (name,) = (keyword.value for keyword in call.keywords if keyword.arg == "id")
            made[ast.literal_eval(name).partition(".")[2]] = ast.unparse(call.func).partition(".")[2].lower()
    return made


def test_system_checks() -> None:
    rows = table(section(PAGE, "## System checks"))
    said = {row[0].strip("`").partition(".")[2]: row[1] for row in rows}
    assert len(said) == len(rows)
    assert set(said) == ids()
    assert said == kinds()
    deploying = inspect.getsource(checks.check_deployment)
    assert {row[0].strip("`") for row in rows if row[2] == "--deploy"} == set(
        re.findall(r"sipgate_provider\.W\d+", deploying)
    )
    assert all(row[3] and row[4] for row in rows)


# --- models, addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "choices"),
    [("### States", models.State), ("### Reasons", models.Reason), ("### Events", models.TokenEvent.Kind)],
)
def test_choices(heading: str, choices: Any) -> None:
    rows = table(section(PAGE, heading))
    assert [row[:2] for row in rows] == [[f"`{value}`", str(choices(value).label)] for value in choices.values if value]
    assert all(all(row) for row in rows)


def test_fields_of_the_token_row() -> None:
    hidden = {"connection", "sealed"}
    fields = [field.name for field in models.SipgateToken._meta.get_fields() if field.name not in hidden]
    said = section(PAGE, "### SipgateToken")
    assert [row[0].strip("`") for row in table(said)] == fields


def test_permissions() -> None:
    said = set(re.findall(r"`(?:sipgate_provider\.)?((?:operate|revoke)_\w+)`", section(PAGE, "## Models")))
    assert said == {name for name, _text in models.SipgateToken._meta.permissions}


def named(patterns: list[URLPattern | URLResolver]) -> set[str]:
    return {one.name for one in patterns if isinstance(one, URLPattern) and one.name}


def test_addresses() -> None:
    from sipgate_provider import urls

    rows = table(section(PAGE, "## Addresses"))
    said = {row[0].strip("`") for row in rows}
    assert said == named([*urls.urlpatterns, *callback_urlpatterns()])
    for row in rows:
        assert get_resolver().reverse(row[0].strip("`")) == row[1].strip("`").removeprefix("/")

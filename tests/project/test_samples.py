"""Every code sample of the documents runs. What kind of sample a block is, its language and its first line say:

=====================================  =================================================================================
block                                  what is done with it
=====================================  =================================================================================
``python``, ``# settings.py``,         added to the foreign site (tests/foreign_site); its checks have to pass. All
``# urls.py``                          blocks of one heading belong together
``python``, ``# conftest.py``,         put beside that site and run by pytest, in a process of its own
``# test_….py``
other ``python``                       executed in the page's order, in one namespace; then *called*: views over HTTP by
                                       a person who signed in at the sandbox, commands by ``call_command``, the rest
                                       with what its parameters are named after (``GIVEN``)
``html``                               rendered for that person
``ini``                                ``# .env``: its names are read by the settings; units of systemd: parsed
``yaml``                               its shape: keys and lists, indented by two (there is no parser at hand)
``sh``, none                           each ``manage.py`` command exists and takes these words; ``python3 -c`` is run
``toml``                               runs with the tutorial's site only
``mermaid``, ``text``                  nothing: shows what something looks like
=====================================  =================================================================================

A block of any other language fails, and so does Python that is not called so.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.template import engines
from django.test import RequestFactory
from django.urls import path
from django.views import View

from sipgate_provider.client import SipgateClient
from sipgate_provider.models import Reason
from tests.journey import Browser
from tests.project.pages import ROOT, Block, blocks, pages

TUTORIAL = "tests/package/test_tutorial.py"
REPORTS = "tests/concurrency/test_reports.py"
ELSEWHERE = {
    "docs/tutorial.md": ("", TUTORIAL),
    "docs/how-to-site.md": ("Test your own site", TUTORIAL),
    "docs/monitoring.md": ("Error reports", REPORTS),
}
"""Pages, or one section of a page, whose blocks another test runs, all of them and in order."""
LANGUAGES = {"python", "html", "ini", "yaml", "toml", "mermaid", "sh", "", "text"}
BLOCKS = [block for page in pages() for block in blocks(page)]
HERE = [
    block for block in BLOCKS if ELSEWHERE.get(block.page, ("-",))[0] not in {"", block.heading}
]
OF_A_SITE = re.compile(r"^(settings|urls|conftest|test_\w+)\.py$")
SCOPES = [
    "account:read",
    "users:read",
    "numbers:read",
    "history:read",
    "balance:read",
    "devices:read",
    "history:write",
    "contacts:read",
    "contacts:write",
    "sms:read",
    "faxlines:read",
    "sessions:write",
]
COMMAND = re.compile(r"""manage\.py (\w+)((?:"[^"\n]*"|[^`\n#;&|"])*)""")


def of(*languages: str) -> list[Block]:
    return [block for block in HERE if block.language in languages]


def is_of_a_site(block: Block) -> bool:
    return block.language == "python" and bool(OF_A_SITE.match(block.name))


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    for block in HERE:
        if block.language == "" and any(word in block.text for word in ("import ", "def ", "{%")):
            assert is_shell(block), f"{block} looks like code: say of which language"


def is_shell(block: Block) -> bool:
    return block.text.startswith(("python3 -c", ".venv/bin/", "python manage.py", "git clone"))


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_is_run_elsewhere_is(page: str) -> None:
    heading, runner = ELSEWHERE[page]
    text = (ROOT / runner).read_text(encoding="utf-8")
    assert f'"{Path(page).name}"' in text
    assert heading in text
    assert [block for block in BLOCKS if block.page == page and heading in {"", block.heading}]


# --- Python -----------------------------------------------------------------------------------------------------------


def modules() -> dict[str, list[Block]]:
    """Return the blocks of each page that are executed here."""
    found: dict[str, list[Block]] = {}
    for block in of("python"):
        if not is_of_a_site(block):
            found.setdefault(block.page, []).append(block)
    return found


@pytest.fixture
def person(browser: Browser, settings: Any) -> Browser:
    """Somebody who allowed everything that samples need."""
    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": app, "SCOPE": SCOPES}}
    browser.sign_in()
    browser.sandbox.control.reset()
    return browser


@pytest.fixture
def given(person: Browser) -> dict[str, Any]:
    from allauth.socialaccount.models import SocialAccount

    connection = SocialAccount.objects.get()
    request = RequestFactory(headers={"host": "localhost:8080"}).get("/page")
    request.user = connection.user
    return {
        "request": request,
        "user": connection.user,
        "user_id": connection.user.pk,
        "connection": connection,
        "uid": connection.uid,
        "client": SipgateClient(connection),
        "number": "+4915799912345",
        "sender": None,
        "reason": Reason.REFUSED,
        "token": connection.sipgate_token,
    }


@pytest.mark.parametrize("page", modules())
def test_python(
    page: str,
    person: Browser,
    given: dict[str, Any],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    namespace = types.ModuleType("sample")
    namespace.request = given["request"]  # type: ignore[attr-defined]  # what a view has
    monkeypatch.setitem(sys.modules, "sample", namespace)
    for block in modules()[page]:
        before = dict(vars(namespace))
        exec(compile(block.text, str(block), "exec"), vars(namespace))
        made = [
            value
            for name, value in vars(namespace).items()
            if before.get(name) is not value and getattr(value, "__module__", "") == "sample"
        ]
        acts = [
            node for node in ast.parse(block.text).body if isinstance(node, ast.Expr | ast.Assign)
        ]
        assert made or acts, f"{block} does nothing and defines nothing that could be called"
        for value in made:
            use(value, block, person, given, settings)


def use(value: Any, block: Block, person: Browser, given: dict[str, Any], settings: Any) -> None:
    if isinstance(value, type) and issubclass(value, BaseCommand):
        call_command(value())
        return
    if isinstance(value, type) and issubclass(value, View):
        visit(value.as_view(), person, settings)
        return
    assert inspect.isfunction(value), f"{block}: nobody knows how to call {value}"
    parameters = inspect.signature(value).parameters
    if "request" in parameters:
        visit(value, person, settings)
        return
    wanted = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]
    assert set(wanted) <= set(given), f"{block}: nobody knows what {value.__name__}() is given"
    call = async_to_sync(value) if inspect.iscoroutinefunction(value) else value
    result = call(**{name: given[name] for name in wanted})
    promised = re.search(r"Return |True:", value.__doc__ or "")
    assert not promised or result, f"{block}: {value.__name__}() returned {result!r}"


def visit(view: Callable[..., Any], person: Browser, settings: Any) -> None:
    """Ask for the view as a page of the site; it has to answer with a page of its own."""
    urls = types.ModuleType("sample_urls")
    from sipgate_project.urls import urlpatterns

    urls.urlpatterns = [*urlpatterns, path("sample", view)]  # type: ignore[attr-defined]  # a module made here
    sys.modules["sample_urls"] = urls
    settings.ROOT_URLCONF = "sample_urls"
    answer = person.site.get("/sample")
    assert answer.status_code == 200, (
        f"{view.__name__}: {answer.status_code}, {answer.headers.get('Location')}"
    )
    assert answer.content


@pytest.mark.parametrize("block", of("html"), ids=str)
def test_template(block: Block, given: dict[str, Any]) -> None:
    shown = engines["django"].from_string(block.text).render({}, given["request"])
    assert "Rosa Gärtner" in shown


# --- sites ------------------------------------------------------------------------------------------------------------


def sites() -> dict[str, list[Block]]:
    """Return the blocks that make a site, by page and heading."""
    found: dict[str, list[Block]] = {}
    for block in HERE:
        if is_of_a_site(block):
            found.setdefault(f"{block.page}: {block.heading}", []).append(block)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[[list[Block]], Path]]:
    def make(parts: list[Block]) -> Path:
        folder = tmp_path / "site"
        shutil.copytree(
            ROOT / "tests" / "foreign_site", folder, ignore=shutil.ignore_patterns("__pycache__")
        )
        for block in parts:
            file = folder / block.name
            added = block.text.splitlines()[0].endswith("at its end")
            assert added or block.name != "settings.py", f"{block} would replace all settings"
            file.write_text(f"{file.read_text()}\n{block.text}" if added else block.text)
        return folder

    return make  # type: ignore[return-value]  # a fixture


def run(folder: Path, *words: str) -> str:
    """Run Python in the site's folder, with this checkout in reach; return what it said. It must not fail."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG", "TMPDIR"}
    }
    variables = {
        "PYTHONPATH": str(ROOT),
        "FOREIGN_ORIGIN": "http://localhost:8000",
        "FOREIGN_SANDBOX": "http://localhost:1",
        "FOREIGN_TOKEN_KEY": "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=",
        "FOREIGN_SECRET_KEY": "tests-only",
    }
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", sites())
def test_site(name: str, site: Callable[[list[Block]], Path]) -> None:
    parts = sites()[name]
    folder = site(parts)
    assert "no issues" in run(folder, "manage.py", "check", "--fail-level", "WARNING")
    tests = [block.name for block in parts if block.name.startswith("test_")]
    if tests:
        said = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=settings", *tests)
        assert re.search(r"^(\d+) passed", said, flags=re.MULTILINE), said


def test_settings_of_ours_in_samples_are_known() -> None:
    """A misspelt setting would pass every check."""
    known = set(
        re.findall(
            r'_get\("(\w+)"', (ROOT / "sipgate_provider" / "conf.py").read_text(encoding="utf-8")
        )
    )
    for block in (block for block in BLOCKS if block.language == "python"):
        assert set(re.findall(r"\bSIPGATE_(\w+) =", block.text)) <= known, block


# --- shell and files --------------------------------------------------------------------------------------------------


def commands() -> list[Any]:
    """Return every ``manage.py`` command with its words, from all blocks and from code in the text."""
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for match in COMMAND.finditer(text):
            found.append(pytest.param(match[1], match[2].strip(), id=f"{page.name}-{match[0]}"))
    return found


@pytest.mark.parametrize(("name", "arguments"), commands())
def test_command(name: str, arguments: str) -> None:
    if name == "sipgate_":
        return  # "manage.py sipgate_…"
    assert name in get_commands(), name
    words = shlex.split(arguments.replace("<its last migration>", "0001").replace("…", ""))
    load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(
        words
    )


@pytest.mark.parametrize(
    "block", [block for block in of("sh", "") if "python3 -c" in block.text], ids=str
)
def test_one_liner(block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line)
        assert words[:2] == ["python3", "-c"]
        done = subprocess.run(
            [sys.executable, *words[1:]], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.strip()


@pytest.mark.parametrize("block", of("ini"), ids=str)
def test_file(block: Block) -> None:
    if block.text.startswith("# .env"):
        example = set(
            re.findall(
                r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE
            )
        )
        assert set(re.findall(r"^([A-Z_]+)=", block.text, re.MULTILINE)) <= example
        return
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(block.text)
    assert {"Service", "Timer"} & set(unit.sections())


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml(block: Block) -> None:
    for line in block.text.splitlines():
        assert re.fullmatch(r"(  )*(- )?(\w+:( .+)?|[\w./-]+)", line), f"{block}: {line}"


def test_one_can_tell_that_samples_are_run() -> None:
    """The lists above are not empty by a mistake."""
    assert len(modules()) >= 2
    assert len(sites()) >= 6
    assert len(of("html")) >= 1
    assert len(of("ini")) >= 4
    for block in of("python"):
        ast.parse(block.text)

"""Every sample of the documents runs. Its language and first line say how:

===============================  ==================================================================
block                            what is done with it
===============================  ==================================================================
``python``, ``# settings.py`` or  added to the foreign site (``tests/foreign_site``), whose checks
``# urls.py``                     have to pass; the blocks of one heading belong together
other ``python``                 executed in the page's order, in one namespace, then *called*:
                                 views over HTTP by a user who signed in at the sandbox, commands
                                 by ``call_command``, the rest with what its parameters are named
``html``                         rendered for that user
``manage.py …``, anywhere        the command exists and takes these words
``python3 -c …``                 run
===============================  ==================================================================

The tutorial, and what other tests run, is in ``ELSEWHERE``. Other languages show something only.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections import defaultdict
from collections.abc import Callable
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

ELSEWHERE = {
    ("README.md", "Use it in your own site"): "tests/package/test_quick_start.py",
    ("docs/tutorial.md", ""): "tests/package/test_tutorial.py",
    ("docs/code.md", "Test your own site"): "tests/package/test_tutorial.py",
    ("docs/operate.md", "Error reports"): "tests/concurrency/test_reports.py",
}
"""Pages, or sections of them, whose blocks another test runs."""
BLOCKS = [block for page in pages() for block in blocks(page)]
HERE = [
    block for block in BLOCKS if not {(block.page, ""), (block.page, block.heading)} & {*ELSEWHERE}
]
SITES, MODULES = defaultdict[str, list[Block]](list), defaultdict[str, list[Block]](list)
for _block in HERE:
    if _block.language == "python" and _block.name in {"settings.py", "urls.py"}:
        SITES[f"{_block.page}: {_block.heading}"].append(_block)
    elif _block.language == "python":
        MODULES[_block.page].append(_block)
SCOPES = (
    "account:read users:read numbers:read history:read history:write balance:read devices:read "
    "contacts:read contacts:write sms:read faxlines:read sessions:write"
)
COMMAND = re.compile(r"""manage\.py (\w+)((?:"[^"\n]*"|[^`\n#;&|"])*)""")


@pytest.mark.parametrize("page", MODULES)
def test_python(page, given, visit, monkeypatch):
    module = types.ModuleType("sample")
    monkeypatch.setitem(sys.modules, "sample", module)
    for block in MODULES[page]:
        before = dict(vars(module))
        exec(compile(block.text, str(block), "exec"), vars(module))
        for name, value in list(vars(module).items()):
            if before.get(name) is not value and getattr(value, "__module__", "") == "sample":
                use(value, block, given, visit)


@pytest.mark.parametrize("name", SITES)
def test_site(name, tmp_path):
    folder = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / "foreign_site", folder, ignore=ignored)
    for block in SITES[name]:
        file = folder / block.name
        is_added = block.text.splitlines()[0].endswith("at its end")
        assert is_added or block.name != "settings.py", f"{block} would replace all settings"
        file.write_text(f"{file.read_text()}\n{block.text}" if is_added else block.text)
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--fail-level", "WARNING"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "no issues" in done.stdout + done.stderr, done.stderr


def test_templates(given):
    for block in HERE:
        if block.language == "html":
            shown = engines["django"].from_string(block.text).render({}, given["request"])
            assert "Rosa Gärtner" in shown, block


def test_commands():
    for page in pages():
        for name, words in COMMAND.findall(page.read_text(encoding="utf-8")):
            assert name in get_commands(), f"{page.name}: {name}"
            given = shlex.split(words.replace("<its last migration>", "0001"))
            command = load_command_class(get_commands()[name], name)
            command.create_parser("manage.py", name).parse_args(given)


def test_one_liners():
    lines = [line for block in BLOCKS for line in block.text.splitlines()]
    for line in (line for line in lines if line.startswith("python3 -c")):
        words = [sys.executable, *shlex.split(line)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.strip(), line


def test_no_sample_is_left_out():
    """The lists above are not empty by a mistake, and code is called so."""
    assert {"README.md", "docs/code.md", "docs/operate.md"} <= {*MODULES}
    assert len(SITES) >= 4
    for block in HERE:
        looks_like_code = re.search(r"^(from|import|def|class) ", block.text, re.M)
        assert block.language == "python" or not looks_like_code, block
    for (page, heading), runner in ELSEWHERE.items():
        said = (ROOT / runner).read_text(encoding="utf-8")
        assert f'"{Path(page).name}"' in said, runner
        assert heading in said, runner
        assert [one for one in BLOCKS if one.page == page and heading in {"", one.heading}], page


# --- what samples are given -----------------------------------------------------------------------

ENVIRONMENT = {
    **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
    "PYTHONPATH": str(ROOT),
    "FOREIGN_ORIGIN": "http://localhost:8000",
    "FOREIGN_SANDBOX": "http://localhost:1",
    "FOREIGN_TOKEN_KEY": "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=",
    "FOREIGN_SECRET_KEY": "tests-only",
}


@pytest.fixture
def given(browser: Browser, settings: Any) -> dict[str, Any]:
    """What a sample's parameter is, by its name, for a user who allowed all that samples need."""
    from allauth.socialaccount.models import SocialAccount

    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": app, "SCOPE": SCOPES.split()}}
    browser.sign_in()
    connection = SocialAccount.objects.get()
    request = RequestFactory(headers={"host": "localhost:8080"}).get("/page")
    request.user = connection.user
    return {
        "request": request,
        "user_id": connection.user.pk,
        "connection": connection,
        "client": SipgateClient(connection),
        "number": "+4915799912345",
        "sender": None,
        "reason": Reason.LOST_ROTATION,
    }


@pytest.fixture
def visit(browser: Browser, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Ask for a view as a page of the site; it has to answer with a page."""

    def ask(view: Callable[..., Any]) -> None:
        from sipgate_project.urls import urlpatterns

        urls = types.ModuleType("sample_urls")
        urls.urlpatterns = [*urlpatterns, path("sample", view)]
        monkeypatch.setitem(sys.modules, "sample_urls", urls)
        settings.ROOT_URLCONF = "sample_urls"
        answer = browser.site.get("/sample")
        assert answer.status_code == 200, f"{view.__name__}: {answer.headers.get('Location')}"
        assert answer.content

    return ask


def use(value: Any, block: Block, given: dict[str, Any], visit: Callable[..., None]) -> None:
    """Call what a sample defines, with what its parameters are named."""
    if isinstance(value, type) and issubclass(value, BaseCommand):
        call_command(value())
        return
    if isinstance(value, type) and issubclass(value, View):
        value = value.as_view()
    parameters = inspect.signature(value).parameters
    if "request" in parameters:
        visit(value)
        return
    wanted = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]
    assert set(wanted) <= set(given), f"{block}: nobody knows what {value.__name__}() is given"
    call = async_to_sync(value) if inspect.iscoroutinefunction(value) else value
    result = call(**{name: given[name] for name in wanted})
    promised = re.search(r"Return |True:", value.__doc__ or "")
    assert not promised or result, f"{block}: {value.__name__}() returned {result!r}"

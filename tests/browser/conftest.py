"""Chromium at the running project. Every page is watched: console, requests to foreign hosts, accessibility, looks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests import tools
from tests.browser.stand import ROOT, Stand, stand

ARTIFACTS = ROOT / "artifacts" / "screenshots"
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",
)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.fixture(scope="module")
def project() -> Iterator[Stand]:
    with stand() as running:
        yield running


@pytest.fixture(
    scope="module"
)  # not longer: Playwright's event loop would be in the way of other tests' databases
def chromium() -> Iterator[Browser]:
    path = tools.needed("chromium", "chromium-browser", "google-chrome", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


class Visitor:
    """One person's browser window, watched."""

    def __init__(self, context: BrowserContext, project: Stand, name: str) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.project = project
        self.complaints: list[str] = []
        self.name = name
        self.hosts = {urlsplit(project.url).netloc, urlsplit(project.control.url).netloc}
        self._shots = 0
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # A browser notes an unsuccessful status in its console, by itself; pages that are meant to have one are named.
        expected = re.search(r"status of (400|401|403|404|409|429|500|502|503)", message.text)
        if message.type in {"error", "warning"} and not expected:
            self.complaints.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        host = urlsplit(request.url).netloc
        if host not in self.hosts:
            self.complaints.append(f"request to another host: {host}")

    def go(self, path: str) -> Page:
        self.page.goto(path if path.startswith("http") else f"{self.project.url}{path}")
        return self.page

    def picture(self, name: str) -> None:
        """Keep a picture of the page."""
        self._shots += 1
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(
            path=ARTIFACTS / f"{self.name}-{self._shots:02}-{name}.png", full_page=True
        )

    def look(self, name: str) -> None:
        """Keep a picture of the page; check what every page must be."""
        self.picture(name)
        overflow = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if overflow > 0:
            self.complaints.append(f"{name}: wider than the window by {overflow} px")
        rules = (
            WCAG if "/admin/" in self.page.url else [*WCAG, "best-practice"]
        )  # Django's own pages have ways of theirs
        # Without preload: axe would copy style sheets into the page, which the page's policy forbids.
        found = Axe().run(self.page, options={"runOnly": rules, "preload": False})
        for violation in found.response["violations"]:
            places = ", ".join(str(node["target"]) for node in violation["nodes"][:3])
            self.complaints.append(f"{name}: axe {violation['id']} at {places}")

    def sign_in(self, person: str = "1000000w0", *, allow: bool = True, button: str = "") -> None:
        """Press the page's sipgate button, be ``person`` at the sandbox, allow or deny."""
        form = self.page.locator("form[action*='/sipgate/login/']")
        self.press(
            (
                form.get_by_role("button", name=button) if button else form.get_by_role("button")
            ).first
        )
        self.at_sipgate(person, allow=allow)

    def press(self, button: Locator) -> None:
        """Press what leads to another page, and wait for that."""
        with self.page.expect_navigation():
            button.click()

    def reach(self, target: Locator, *, key: str = "Enter", leaves: bool = True) -> None:
        """Go to ``target`` with the tabulator alone, and press it there."""
        expect(target).to_be_visible()
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if target.evaluate("element => element === document.activeElement"):
                break
        else:
            raise AssertionError(f"{target} cannot be reached with the tabulator")
        if leaves:
            with self.page.expect_navigation():
                self.page.keyboard.press(key)
        else:
            self.page.keyboard.press(key)

    def at_sipgate(self, person: str = "1000000w0", *, allow: bool = True) -> None:
        choice, restart = (
            self.page.locator(f"button[value='{person}']"),
            self.page.locator("button[name='restart']"),
        )
        if not choice.count() and restart.count():
            self.press(restart)
        if choice.count():
            self.press(choice)
        grant = self.page.locator(f"button[value='{'grant' if allow else 'deny'}']")
        if grant.count():
            self.press(grant)
        self.page.wait_for_url(f"{self.project.url}/**")


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(chromium: Browser, project: Stand, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Open a window; at the end of the test no window may have complained."""
    visitors: list[Visitor] = []
    project.control.reset(people=True)
    project.control.lifetimes(access=300, refresh=2_592_000)

    def open_window(
        *,
        language: str = "en-GB",
        phone: bool = False,
        dark: bool = False,
        name: str = "",
        **options: Any,
    ) -> Visitor:
        context = chromium.new_context(
            locale=language,
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]  # a plain dict will do
            color_scheme="dark" if dark else "light",
            **options,
        )
        look = "-".join(
            [
                name or request.node.originalname.removeprefix("test_"),
                language[:2],
                "phone" if phone else "desktop",
                "dark" if dark else "light",
            ]
        )
        for former in ARTIFACTS.glob(
            f"{look}-*.png"
        ):  # of the last run; another process may be writing others
            former.unlink()
        visitors.append(Visitor(context, project, look))
        return visitors[-1]

    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    yield open_window
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    for number, visitor in enumerate(visitors):
        # How a test ended is what one wants to see first when it failed.
        visitor.page.screenshot(path=ARTIFACTS / f"{visitor.name}-end-{number}.png", full_page=True)
        visitor.context.close()
    assert not complaints, "\n".join(complaints)


def artifact(name: str) -> Path:
    return ARTIFACTS / name

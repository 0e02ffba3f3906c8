"""One person's browser window. It is watched: console, requests to other hosts, looks, accessibility."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Playwright,
    Request,
    expect,
)

from tests import tools
from tests.browser.stand import PASSWORD, ROOT, Stand

ARTIFACTS = ROOT / "artifacts" / "screenshots"
QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",
]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def launch(playwright: Playwright) -> Browser:
    path = tools.needed("chromium", "chromium-browser", "google-chrome", package="chromium")
    return playwright.chromium.launch(executable_path=path, args=QUIET)


class Visitor:
    def __init__(self, context: BrowserContext, project: Stand, name: str = "") -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.project = project
        self.name = name
        self.complaints: list[str] = []
        self.rules = [*WCAG, "best-practice"]
        self.hosts = {urlsplit(project.url).netloc, urlsplit(project.control.url).netloc}
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # A browser notes each unsuccessful status; some pages are meant to have one.
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

    def look(self, name: str) -> None:
        """Check what every page must be: as wide as the window, and accessible."""
        if "SCREENSHOTS" in os.environ:
            self.picture(name)
        overflow = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if overflow > 0:
            self.complaints.append(f"{name}: wider than the window by {overflow} px")
        # Django's own pages have ways of theirs.
        rules = [rule for rule in self.rules if rule != "best-practice" or not self.is_in_admin]
        # Without preload: axe would copy style sheets into the page, which its policy forbids.
        found = Axe().run(self.page, options={"runOnly": rules, "preload": False})
        for violation in found.response["violations"]:
            places = ", ".join(str(node["target"]) for node in violation["nodes"][:3])
            self.complaints.append(f"{name}: axe {violation['id']} at {places}")

    @property
    def is_in_admin(self) -> bool:
        return "/admin/" in self.page.url

    def look_at(self, *paths: str) -> None:
        for path in paths:
            self.go(path)
            self.look(path)

    def picture(self, name: str) -> None:
        """Keep a picture of the page in ``artifacts/``."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        safe = re.sub(r"\W+", "-", f"{self.name} {name}")
        self.page.screenshot(path=ARTIFACTS / f"{safe}.png", full_page=True)

    def button_to(self, action: str) -> Locator:
        """Return the buttons of forms whose address contains ``action``; words may change."""
        return self.page.locator(f"form[action*='{action}'] button")

    def link_to(self, path: str) -> Locator:
        return self.page.locator(f"a[href='{path}']").first

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

    def sign_in(self, person: str, *, allow: bool = True) -> None:
        """Press the page's sipgate button, be ``person`` at the sandbox, allow or deny."""
        self.press(self.button_to("/sipgate/login/").first)
        self.at_sipgate(person, allow=allow)

    def at_sipgate(self, person: str, *, allow: bool = True) -> None:
        choice = self.page.locator(f"button[value='{person}']")
        restart = self.page.locator("button[name='restart']")
        if not choice.count() and restart.count():
            self.press(restart)
        if choice.count():
            self.press(choice)
        answer = self.page.locator(f"button[value='{'grant' if allow else 'deny'}']")
        if answer.count():
            self.press(answer)
        self.page.wait_for_url(f"{self.project.url}/**")

    def enter_admin(self) -> None:
        """Sign in as the stand's superuser."""
        self.go("/admin/")
        self.page.fill("input[name=login]", "olga")
        self.page.fill("input[name=password]", PASSWORD)
        self.press(self.page.locator("main form[action*='login'] button[type=submit]").last)

"""``make screenshots``: the documents' pictures, made from the running project (``docs/images``)."""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright

from tests import tools
from tests.browser.conftest import QUIET, Visitor
from tests.browser.stand import PASSWORD, ROOT, Stand, stand

IMAGES = ROOT / "docs" / "images"


def main() -> int:
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = tools.needed("chromium", "chromium-browser", "google-chrome", package="chromium")
    with stand() as project, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        person = Visitor(
            browser.new_context(locale="en-GB", viewport={"width": 1000, "height": 700}),
            project,
            "",
        )
        person.go("/")
        person.sign_in("1000000w0")
        person.go("/account")
        _picture(person, "account")
        _admin(
            Visitor(
                browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800}),
                project,
                "",
            ),
            project,
        )
        browser.close()
    return 0


def _admin(boss: Visitor, project: Stand) -> None:
    page = boss.go("/admin/")
    page.fill("input[name=login]", "olga")
    page.fill("input[name=password]", PASSWORD)
    boss.press(page.locator("form[action*='login'] button[type=submit]").last)
    boss.go("/admin/socialaccount/socialaccount/")
    boss.press(page.locator("#result_list tbody th a").first)
    _picture(boss, "admin")


def _picture(visitor: Visitor, name: str) -> None:
    path = IMAGES / f"{name}.png"
    visitor.page.screenshot(path=path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    sys.exit(main())

"""``make screenshots``: the documents' pictures, made from the running project (``docs/images``)."""

from __future__ import annotations

from playwright.sync_api import Page, sync_playwright

from tests.browser.stand import ROOT, stand
from tests.browser.visitor import Visitor, launch

IMAGES = ROOT / "docs" / "images"


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with stand() as project, sync_playwright() as playwright, launch(playwright) as browser:

        def window(width: int, height: int, **looks: str) -> Visitor:
            size = {"width": width, "height": height}
            return Visitor(browser.new_context(viewport=size, **looks), project)

        person = window(1000, 700, locale="en-GB")
        person.go("/")
        person.sign_in("1000000w0")
        picture(person.go("/account"), "account")
        boss = window(1200, 800, locale="en-GB")
        boss.enter_admin()
        page = boss.go("/admin/socialaccount/socialaccount/")
        boss.press(page.locator("#result_list tbody th a").first)
        picture(page, "admin")


def picture(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

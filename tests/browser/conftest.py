"""Chromium at the running project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.stand import Stand, stand
from tests.browser.visitor import Visitor, launch

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def project() -> Iterator[Stand]:
    with stand() as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Not longer than a module: Playwright's event loop is in the way of other tests' databases."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, project: Stand, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Open a window; at the end of the test no window may have complained."""
    visitors: list[Visitor] = []
    project.control.reset()

    def open_window(
        *, language: str = "en-GB", phone: bool = False, dark: bool = False, **options: Any
    ) -> Visitor:
        context = chromium.new_context(
            locale=language,
            viewport=PHONE if phone else DESKTOP,
            color_scheme="dark" if dark else "light",
            **options,
        )
        name = f"{request.node.name.removeprefix('test_')} {len(visitors)}"
        visitors.append(Visitor(context, project, name))
        return visitors[-1]

    failed_before = request.session.testsfailed
    yield open_window
    for visitor in visitors:
        if request.session.testsfailed > failed_before:
            visitor.picture("how it ended")
        visitor.context.close()
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    assert not complaints, "\n".join(complaints)

"""What people do, in a real browser: English and German, desktop and phone, light and dark."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.stand import PASSWORD, Stand

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LOOKS = [("en-GB", False, False), ("de-DE", True, True)]
"""English on a desktop in light, German on a phone in dark; the stories below have the other combinations."""


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS)
def test_whole_journey(
    visit: Visit, project: Stand, language: str, phone: bool, dark: bool
) -> None:
    """Sign up with sipgate, refresh, connect another account, disconnect, sign out, sign in again."""
    person = visit(language=language, phone=phone, dark=dark)
    german = language.startswith("de")
    page = person.go("/")
    assert page.locator("html").get_attribute("lang") == language[:2]
    person.look("home")
    person.go("/accounts/login/")
    person.look("sign-in")
    person.go("/accounts/signup/")
    person.look("sign-up")
    person.go("/")
    person.sign_in("1000000w0")
    expect(page).to_have_url(f"{project.url}/account")
    expect(page.get_by_role("heading", name="Rosenduft Gartenbau GmbH")).to_be_visible()
    person.look("account")
    page.locator(".technical summary").click()
    page.locator("form[action='/account/refresh'] button").click()
    expect(page.locator(".trace li")).to_have_count(3)
    person.look("refreshed")
    person.go("/account")
    person.press(
        page.get_by_role(
            "button", name="Weiteres Konto verbinden" if german else "Connect another account"
        )
    )
    person.look("another-account")
    person.press(page.locator("main form button").last)
    person.at_sipgate("2000000w0")
    expect(page.locator("article.card")).to_have_count(2)
    person.look("two-connections")
    person.go("/accounts/3rdparty/")
    person.look("connections")
    person.go("/accounts/email/")
    person.look("email")
    person.go("/accounts/password/set/")
    person.look("password")
    person.go("/accounts/settings/")
    person.look("settings")
    person.go("/accounts/sessions/")
    person.look("sessions")
    person.go("/account")
    person.press(page.locator("article.card").nth(1).locator(".freshness a"))
    page.locator("details.danger summary").click()
    person.look("connection")
    person.press(page.locator("details.danger button"))
    person.go("/account")
    expect(page.locator("article.card")).to_have_count(1)
    page.locator("form[action='/accounts/logout/'] button").click()
    expect(page.locator("form[action*='/sipgate/login/']").first).to_be_visible()
    person.look("signed-out")
    person.context.clear_cookies()  # the next day: sipgate asks again who it is
    person.go("/")
    person.sign_in("1000000w0")
    expect(page).to_have_url(f"{project.url}/account")
    expect(page.get_by_role("heading", name="Rosenduft Gartenbau GmbH")).to_be_visible()
    assert (
        project.shell(
            "from django.contrib.auth.models import User; print(User.objects.filter(first_name='Rosa').count())"
        )
        == "1"
    )


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS)
def test_trouble(visit: Visit, project: Stand, language: str, phone: bool, dark: bool) -> None:
    """Denied consent, an old tab, sipgate away, an ended link and its repair."""
    person = visit(language=language, phone=phone, dark=dark)
    page = person.go("/")
    person.sign_in("4000000w0", allow=False)
    person.look("denied")
    person.go("/oauth?code=old&state=old")
    person.look("old-tab")
    person.go("/nowhere")
    person.look("not-found")
    project.control.fault("unavailable", on="token", times=1)
    person.go("/")
    person.sign_in("4000000w0")
    person.look("sipgate-away")
    person.go("/")
    person.sign_in("4000000w0")
    person.go("/account")
    expect(page.locator(".connection-head h2")).to_have_text("Ehemals OHG")
    project.control.fault("unavailable", on="account", times=None)
    person.go("/account")
    person.look("last-known-data")
    project.control.clear()
    person.go("/account")
    person.press(page.locator(".try button[value='end']"))
    expect(page.locator("form[action='/account/refresh']")).to_have_count(0)
    person.look("link-ended")
    person.go("/")
    person.look("link-ended-home")
    person.go("/accounts/email/")
    person.look("banner")
    person.press(page.locator("main form[action*='/sipgate/login/'] button").first)
    person.at_sipgate("4000000w0")
    expect(page).to_have_url(f"{project.url}/accounts/email/")
    person.go("/account")
    expect(page.locator("form[action='/account/refresh']")).to_have_count(1)
    person.press(page.locator("article.card .freshness a"))
    expect(page.locator(".activity li").nth(1)).to_contain_text("sipgate")
    person.look("activity")


STATES = {
    "failing": ("failing", "unreachable"),
    "paused": ("misconfigured", "client_rejected"),
    "lost": ("needs_sign_in", "lost_rotation"),
    "ended": ("needs_sign_in", "ended_by_user"),
}


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS)
def test_every_state(visit: Visit, project: Stand, language: str, phone: bool, dark: bool) -> None:
    """What a person sees of each state; no page is wider than the window, and axe finds nothing."""
    person = visit(language=language, phone=phone, dark=dark)
    page = person.go("/")
    person.sign_in("9000000w0")
    for name, (state, reason) in STATES.items():
        project.execute(
            "UPDATE sipgate_provider_sipgatetoken SET state = ?, reason = ?", state, reason
        )
        person.go("/")
        expect(page.locator(".connection-head .badge")).to_have_count(1)
        person.look(f"{name}-home")
        person.go("/account/numbers")
        person.look(f"{name}-numbers")
    project.control.fault("forbidden-text", on="api", times=None)
    project.execute(
        "UPDATE sipgate_provider_sipgatetoken SET state = 'active', reason = '', scope = 'all'"
    )
    person.go("/account")
    person.look("not-available")
    person.go("/admin/")
    person.look("not-allowed")


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS)
def test_the_sandboxs_own_pages(
    visit: Visit, project: Stand, language: str, phone: bool, dark: bool
) -> None:
    """Buttons in words arrange what happens, until it is ended."""
    person = visit(language=language, phone=phone, dark=dark)
    page = person.go(project.control.url)
    person.press(
        page.get_by_role("button", name=re.compile("Until I end it|Bis ich es beende")).first
    )
    expect(page.locator(".armed li")).to_have_count(1)
    person.look("start")
    person.press(page.get_by_role("button", name=re.compile("^(End all|Alles beenden)$")))
    expect(page.locator(".armed li")).to_have_count(0)
    client = "1000000-1-sandbox%3Athird-party"
    person.go(
        f"{project.control.url}/auth/realms/third-party/protocol/openid-connect/auth?client_id={client}"
    )
    person.look("redirect-uri")
    person.go("/")
    person.press(page.locator("form[action*='/sipgate/login/'] button").first)
    person.look("who")
    person.press(page.locator("button[value='3000000w0']"))
    person.look("consent")


@pytest.mark.parametrize(("language", "dark"), [("en-GB", False), ("de-DE", True)])
def test_administration(visit: Visit, project: Stand, language: str, dark: bool) -> None:
    somebody = visit(name="somebody")
    somebody.go("/")
    somebody.sign_in("7000000w0")
    boss = visit(language=language, dark=dark)
    page = boss.go("/admin/")
    page.fill("input[name=login]", "olga")
    page.fill("input[name=password]", PASSWORD)
    page.locator("form[action*='login'] button[type=submit]").last.click()
    expect(page).to_have_url(f"{project.url}/admin/")
    boss.look("dashboard")
    boss.go("/admin/socialaccount/socialaccount/")
    boss.look("connections")
    page.locator("#result_list tbody tr:has-text('7000000w0') input.action-select").check()
    page.select_option("select[name=action]", "refresh")
    boss.press(page.locator("button[name=index]"))
    expect(page.locator(".messagelist .success")).to_be_visible()
    boss.look("refreshed")
    page.locator("#result_list tbody tr:has-text('7000000w0') th a").first.click()
    boss.look("connection")
    boss.go("/admin/sipgate_provider/tokenevent/")
    expect(page.locator("#result_list tbody tr").nth(1)).to_be_visible()
    boss.look("history")


def test_weight_of_pages(visit: Visit, project: Stand) -> None:
    """A page with all it needs is at most 60 KB, as it goes over the wire."""
    person = visit()
    sizes: dict[str, int] = {}
    person.page.on(
        "requestfinished",
        lambda request: sizes.__setitem__(
            request.url,
            sum(request.sizes()[part] for part in ("responseBodySize", "responseHeadersSize")),
        ),
    )
    person.go("/")
    home = sum(sizes.values())
    sizes.clear()
    person.sign_in("8000000w0")
    person.page.wait_for_load_state("networkidle")
    account = sum(size for url, size in sizes.items() if url.startswith(project.url))
    print(f"home {home} bytes, account (after it) {account} bytes")
    assert home <= 60_000
    assert account <= 60_000

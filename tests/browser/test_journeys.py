"""What people do, in a real browser: English and German, desktop and phone, light and dark."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.stand import PASSWORD, Stand

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LOOKS = [("en-GB", False, False), ("de-DE", True, True), ("de-DE", False, False), ("en-GB", True, False)]


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS)
def test_whole_journey(visit: Visit, project: Stand, language: str, phone: bool, dark: bool) -> None:
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
    person.press(page.get_by_role("button", name="Weiteres Konto verbinden" if german else "Connect another account"))
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


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS[:2])
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


def test_leaving(visit: Visit, project: Stand) -> None:
    """Ended access stays ended, the data can be taken along, and an account can be deleted."""
    person = visit(language="de-DE")
    page = person.go("/")
    person.sign_in("1000000w0")
    person.press(page.locator(".freshness a"))
    person.press(page.locator("form[action$='/end-access'] button"))
    person.look("access-ended")
    person.press(page.locator("form[action='/accounts/logout/'] button"))
    person.sign_in("1000000w0")
    expect(page.locator(".badge").first).to_have_text("Nur zum Anmelden")
    person.press(page.locator(".alert form button"))
    person.at_sipgate("1000000w0")
    expect(page.locator(".badge").first).to_have_text("Aktiv")
    person.go("/accounts/settings/")
    with page.expect_download() as download:
        page.locator("a[href='/accounts/export']").click()
    assert "Rosenduft Gartenbau GmbH" in download.value.path().read_text()
    person.go("/accounts/delete")
    person.look("delete")
    page.locator("input[name=sure]").check()
    person.press(page.locator("main form button[type=submit]"))
    expect(page).to_have_url(f"{project.url}/")
    person.look("deleted")


def test_numbers_one_click_away(visit: Visit, project: Stand) -> None:
    """A page that needs one more permission: one click at sipgate, and back."""
    person = visit()
    page = person.go("/")
    person.sign_in("1000000w0")
    person.press(page.get_by_role("link", name="Numbers"))
    person.press(page.locator("main form button[type=submit]"))
    person.at_sipgate("1000000w0")
    expect(page).to_have_url(f"{project.url}/account/numbers")
    expect(page.get_by_role("row")).to_have_count(26)
    person.look("numbers")


def test_reload_back_and_old_bookmarks(visit: Visit, project: Stand) -> None:
    """Nobody meets an error by reloading, going back, or opening an address that was posted to."""
    person = visit()
    page = person.go("/")
    person.sign_in("1000000w0")
    page.locator(".technical summary").click()
    person.press(page.locator("form[action='/account/refresh'] button"))
    expect(page.locator(".trace li")).to_have_count(3)
    page.reload()
    expect(page.locator(".trace li")).to_have_count(0)
    expect(page.locator(".connection-head h2")).to_have_text("Rosenduft Gartenbau GmbH")
    for address in ("/account/refresh", "/account/try"):
        person.go(address)
        expect(page).to_have_url(f"{project.url}/account")
    page.go_back()
    expect(page.locator(".connection-head h2")).to_have_text("Rosenduft Gartenbau GmbH")


def test_sipgate_goes_away_and_comes_back(visit: Visit, project: Stand) -> None:
    """The page tells it, and learns by itself when it is over."""
    person = visit()
    page = person.go("/")
    person.sign_in("1000000w0")
    person.press(page.locator(".try button[value='away']"))
    expect(page.locator(".badge").first).to_have_text("Interrupted")
    person.look("away")
    expect(page.locator(".connection-head .badge")).to_have_text("Active", timeout=40_000)


def test_keyboard_only_in_german(visit: Visit, project: Stand) -> None:
    """A walk through everything without a mouse: sign in, look, allow more, end access, take the data, leave."""
    person = visit(language="de-DE")
    page = person.go("/")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_class(re.compile("skip"))
    page.keyboard.press("Enter")
    person.reach(page.get_by_role("button", name="Mit sipgate anmelden"))
    person.reach(page.locator("button[value='1000000w0']"))
    person.reach(page.locator("button[value='grant']"))
    expect(page).to_have_url(f"{project.url}/account")
    person.reach(page.locator(".technical summary"), leaves=False)
    person.reach(page.get_by_role("button", name="Jetzt erneuern"))
    expect(page.locator(".trace li")).to_have_count(3)
    person.reach(page.get_by_role("link", name="Rufnummern"))
    person.reach(page.get_by_role("button", name="Weiter"))
    person.reach(page.locator("button[value='grant']"))
    expect(page.get_by_role("row")).to_have_count(26)
    person.reach(page.get_by_role("link", name="Einstellungen"))
    person.reach(page.locator("main").get_by_role("link", name="Verbindungen"))
    person.reach(page.get_by_role("link", name="Rosenduft Gartenbau GmbH").first)
    person.reach(page.locator("form[action$='/end-access'] button"))
    expect(page.locator(".badge").first).to_have_text("Nur zum Anmelden")
    person.reach(page.locator("a[href='/accounts/delete']"))
    person.reach(page.locator("input[name=sure]"), key="Space", leaves=False)
    person.reach(page.locator("main form button[type=submit]"))
    expect(page).to_have_url(f"{project.url}/")
    expect(page.locator(".alert")).to_be_visible()
    person.look("left")


def test_the_wrong_account(visit: Visit, project: Stand) -> None:
    """*Sign in again* says who came instead, changes nothing, and leads to the right account; reload and Back too."""
    person = visit()
    page = person.go("/")
    person.sign_in("1000000w0")
    project.control.kill_session("1000000w0")
    project.control.expire_access("1000000w0")
    person.go("/account")
    person.press(page.get_by_role("button", name="Sign in again"))
    person.at_sipgate("2000000w0")
    for _ in range(2):
        expect(page.locator("main .alert").first).to_contain_text("You signed in at sipgate as Schraube & Mutter KG")
        expect(page.locator("main .alert").first).to_contain_text("Rosenduft Gartenbau GmbH still needs you")
        page.reload()
    person.look("somebody-else")
    person.press(page.get_by_role("button", name="Continue to sipgate"))
    person.at_sipgate("1000000w0")
    expect(page).to_have_url(f"{project.url}/account")
    expect(page.locator(".connection-head .badge")).to_have_text("Active")
    expect(page.locator("article.card")).to_have_count(1)
    page.go_back()
    person.go("/account")
    expect(page.locator(".connection-head h2")).to_have_text("Rosenduft Gartenbau GmbH")


def test_leaving_in_two_steps(visit: Visit, project: Stand) -> None:
    """Somebody whose only way in is sipgate is told so beforehand: first a password, then the disconnect."""
    person = visit()
    page = person.go("/")
    person.sign_in("1000000w0")
    person.press(page.locator(".freshness a"))
    expect(page.locator("#leaving")).to_contain_text("sipgate is your only way to sign in here.")
    here = page.url
    person.look("only-way-in")
    person.press(page.get_by_role("link", name="Set a password"))
    page.fill("input[name=password1]", PASSWORD)
    page.fill("input[name=password2]", PASSWORD)
    person.press(page.locator("main form button[type=submit]"))
    expect(page).to_have_url(here)
    page.locator("details.danger summary").click()
    person.press(page.locator("details.danger button"))
    person.go("/account")
    expect(page.get_by_role("heading", name="No sipgate connection yet")).to_be_visible()


STATES = {
    "failing": ("failing", "unreachable"),
    "paused": ("misconfigured", "client_refused"),
    "lost": ("needs_sign_in", "lost_rotation"),
    "ended": ("needs_sign_in", "ended_by_person"),
}


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS[:2])
def test_every_state(visit: Visit, project: Stand, language: str, phone: bool, dark: bool) -> None:
    """What a person sees of each state; no page is wider than the window, and axe finds nothing."""
    person = visit(language=language, phone=phone, dark=dark)
    page = person.go("/")
    person.sign_in("9000000w0")
    for name, (state, reason) in STATES.items():
        project.execute("UPDATE sipgate_provider_sipgatetoken SET state = ?, reason = ?", state, reason)
        person.go("/")
        expect(page.locator(".connection-head .badge")).to_have_count(1)
        person.look(f"{name}-home")
        person.go("/account/numbers")
        person.look(f"{name}-numbers")
    project.control.fault("forbidden-text", on="api", times=None)
    project.execute("UPDATE sipgate_provider_sipgatetoken SET state = 'active', reason = '', scope = 'all'")
    person.go("/account")
    person.look("not-available")
    person.go("/admin/")
    person.look("not-allowed")


@pytest.mark.parametrize(("language", "phone", "dark"), LOOKS[:2])
def test_the_sandboxs_own_pages(visit: Visit, project: Stand, language: str, phone: bool, dark: bool) -> None:
    """Buttons in words arrange what happens, until it is ended."""
    person = visit(language=language, phone=phone, dark=dark)
    page = person.go(project.control.url)
    person.press(page.get_by_role("button", name=re.compile("Until I end it|Bis ich es beende")).first)
    expect(page.locator(".armed li")).to_have_count(1)
    page.locator("summary").click()
    person.look("start")
    person.press(page.get_by_role("button", name=re.compile("^(End all|Alles beenden)$")))
    expect(page.locator(".armed li")).to_have_count(0)
    client = "1000000-1-sandbox%3Athird-party"
    person.go(f"{project.control.url}/auth/realms/third-party/protocol/openid-connect/auth?client_id={client}")
    person.look("redirect-uri")
    person.go("/")
    person.press(page.locator("form[action*='/sipgate/login/'] button").first)
    person.look("who")
    person.press(page.locator("button[value='3000000w0']"))
    person.look("consent")


def test_without_scripts(visit: Visit, project: Stand) -> None:
    """Everything works without JavaScript."""
    person = visit(java_script_enabled=False)
    page = person.go("/")
    person.sign_in("3000000w0")
    expect(page).to_have_url(f"{project.url}/account")
    page.locator(".technical summary").click()
    page.locator("form[action='/account/refresh'] button").click()
    expect(page.locator(".trace li")).to_have_count(3)
    person.press(page.locator(".freshness a"))
    person.press(page.locator("form[action$='/end-access'] button"))
    page.locator("form.languages button[value='de']").click()
    expect(page.locator("html")).to_have_attribute("lang", "de")


def test_a_password_user_connects_sipgate(visit: Visit, project: Stand) -> None:
    person = visit()
    page = person.go("/accounts/signup/")
    page.fill("input[name=username]", "paula")
    page.fill("input[name=password1]", PASSWORD)
    page.fill("input[name=password2]", PASSWORD)
    page.locator("form[action*='signup'] button[type=submit]").click()
    expect(page).to_have_url(f"{project.url}/account")
    person.look("not-connected")
    person.sign_in("5000000w0")
    expect(page.locator(".connection-head h2")).to_have_text("Ungeprüft UG")
    person.look("connected")
    other = visit(name="somebody_elses_account")
    other.go("/")
    other.sign_in("6000000w0")
    expect(other.page).to_have_url(f"{project.url}/account")
    other.press(other.page.get_by_role("button", name="Connect another account"))
    other.press(other.page.locator("main form button").last)
    other.at_sipgate("5000000w0")
    other.look("belongs-to-another-user")
    expect(other.page.get_by_role("heading")).to_have_text("Ungeprüft UG is connected to another account")
    other.press(other.page.locator("main form button").nth(1))
    other.at_sipgate("5000000w0")
    expect(other.page.locator(".connection-head h2")).to_have_text("Ungeprüft UG")


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
    boss.go("/admin/sipgate_provider/sipgatetoken/")
    boss.look("connections")
    page.locator("#result_list tbody tr:has-text('7000000w0') th a").first.click()
    boss.look("connection")
    boss.press(page.locator(".sipgate-tools input[type=submit], .sipgate-tools button, .sipgate-tools a").first)
    boss.look("confirm")
    boss.press(page.locator("#content form[method=post] input[type=submit], #content form[method=post] button").first)
    expect(page.locator(".messagelist .success")).to_be_visible()
    boss.look("refreshed")
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
            request.url, sum(request.sizes()[part] for part in ("responseBodySize", "responseHeadersSize"))
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

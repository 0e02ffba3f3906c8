"""Stories of people in a real browser: the wrong account, leaving, going back, without a mouse, without scripts."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.stand import PASSWORD, Stand

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


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
    """The page tells it, and *Try again* shows that it is over."""
    person = visit()
    page = person.go("/")
    person.sign_in("1000000w0")
    person.press(page.locator(".try button[value='away']"))
    expect(page.locator(".badge").first).to_have_text("Interrupted")
    person.look("away")
    project.control.clear()
    person.press(page.get_by_role("link", name="Try again"))
    expect(page.locator(".connection-head .badge")).to_have_text("Active")


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
    person = visit(dark=True)
    page = person.go("/")
    person.sign_in("1000000w0")
    project.control.kill_session("1000000w0")
    project.control.expire_access("1000000w0")
    person.go("/account")
    person.press(page.get_by_role("button", name="Sign in again"))
    person.at_sipgate("2000000w0")
    for _ in range(2):
        expect(page.locator("main .alert").first).to_contain_text(
            "You signed in at sipgate as Schraube & Mutter KG"
        )
        expect(page.locator("main .alert").first).to_contain_text(
            "Rosenduft Gartenbau GmbH still needs you"
        )
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
    person = visit(phone=True)
    page = person.go("/")
    person.sign_in("1000000w1")
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
    expect(other.page.get_by_role("heading")).to_have_text(
        "Ungeprüft UG is connected to another account"
    )
    other.press(other.page.locator("main form button").nth(1))
    other.at_sipgate("5000000w0")
    expect(other.page.locator(".connection-head h2")).to_have_text("Ungeprüft UG")

"""What people do, in a real browser. Each story has people of its own, whom no other one knows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.stand import PASSWORD
from tests.browser.visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def test_a_journey_in_english_on_a_desktop(visit):
    look_at_every_page(visit(), language="en")


def test_a_journey_in_german_on_a_phone_in_the_dark(visit):
    rosa = visit(language="de-DE", phone=True, dark=True)
    rosa.rules = ["color-contrast"]  # the rest is as in English
    look_at_every_page(rosa, language="de")


def look_at_every_page(rosa: Visitor, *, language: str) -> None:
    """Sign up, refresh, allow more, add a second account, remove it, sign out, sign in again."""
    page = rosa.go("/")
    expect(page.locator("html")).to_have_attribute("lang", language)
    rosa.look_at("/", "/accounts/login/", "/accounts/signup/", "/nowhere", "/oauth?code=x&state=x")
    look_at_the_sandbox(rosa)
    rosa.go("/")
    rosa.press(rosa.button_to("/sipgate/login/").first)
    rosa.look("who signs in at the sandbox")
    rosa.at_sipgate("1000000w0", allow=False)
    rosa.look("denied")
    rosa.go("/")
    rosa.sign_in("1000000w0")
    expect(page).to_have_url(f"{rosa.project.url}/account")
    expect(page.get_by_role("heading", name="Rosenduft Gartenbau GmbH")).to_be_visible()
    rosa.look("account")
    page.locator(".technical summary").click()
    rosa.press(rosa.button_to("/account/refresh"))
    expect(page.locator(".trace li")).to_have_count(3)
    rosa.look("refreshed")

    rosa.press(rosa.link_to("/account/numbers"))
    rosa.look("numbers are not allowed yet")
    rosa.press(page.locator("main form button[type=submit]"))
    rosa.at_sipgate("1000000w0")
    expect(page.get_by_role("row")).to_have_count(26)
    rosa.look("numbers")
    # Now: whoever signs in at sipgate as somebody else ends this connection there.
    look_at_every_state(rosa)

    rosa.go("/account")
    rosa.press(rosa.button_to("another=1"))
    rosa.look("another account")
    rosa.press(page.locator("main form button").last)
    rosa.at_sipgate("3000000w0")
    expect(page.locator("article.card")).to_have_count(2)
    rosa.look_at("/account", "/accounts/3rdparty/", "/accounts/email/", "/accounts/password/set/")
    rosa.look_at("/accounts/settings/", "/accounts/sessions/", "/accounts/delete", "/admin/")
    rosa.go("/account")
    rosa.press(page.locator("article.card").nth(1).get_by_role("link").first)
    page.locator("details.danger summary").click()
    rosa.look("connection")
    rosa.press(page.locator("details.danger button"))
    rosa.go("/account")
    expect(page.locator("article.card")).to_have_count(1)

    rosa.press(rosa.button_to("/accounts/logout/"))
    rosa.look("signed out")
    rosa.context.clear_cookies()  # the next day: sipgate asks again who it is
    rosa.go("/")
    rosa.sign_in("1000000w0")
    expect(page.get_by_role("heading", name="Rosenduft Gartenbau GmbH")).to_be_visible()
    rosa.project.control.fault("unavailable", on="refresh", times=None)
    rosa.project.control.expire_access()
    look_at_the_connection(rosa, "interrupted", alert="warning")
    rosa.project.control.clear()


def test_the_wrong_account(visit, project):
    """Who comes back as somebody else reads who that is; nothing changes, and the right one is a click away."""
    neo = visit(dark=True)
    page = neo.go("/")
    neo.sign_in("7000000w0")
    project.control.kill_session("7000000w0")
    project.control.expire_access("7000000w0")
    neo.go("/account")
    neo.press(page.locator("article.card").locator(neo.button_to("/sipgate/login/")))
    neo.at_sipgate("4000000w0")
    for _ in range(2):
        told = page.locator("main .alert").first
        expect(told).to_contain_text("Ehemals OHG")
        expect(told).to_contain_text("Neumann Neubau GmbH")
        page.reload()
    neo.look("somebody else")
    neo.press(page.locator("main").locator(neo.button_to("/sipgate/login/")).first)
    neo.at_sipgate("7000000w0")
    expect(page).to_have_url(f"{project.url}/account")
    expect(page.locator("article.card")).to_have_count(1)
    expect(page.locator("article.card .alert")).to_have_count(0)

    ulla = visit()
    ulla.go("/")
    ulla.sign_in("5000000w0")
    neo.press(neo.button_to("another=1"))
    neo.press(page.locator("main form button").last)
    neo.at_sipgate("5000000w0")
    expect(page.get_by_role("heading")).to_contain_text("Ungeprüft UG")
    neo.look("belongs to another user")


def test_leaving(visit, project):
    """Ended access stays ended, the data can be taken along, connection and account can go."""
    veit = visit(phone=True)
    page = veit.go("/")
    veit.sign_in("1000000w1")
    card = page.locator("article.card")
    veit.press(card.get_by_role("link").first)
    here = page.url
    veit.press(veit.button_to("/end-access"))
    veit.look("access ended")
    veit.press(veit.button_to("/accounts/logout/"))
    veit.sign_in("1000000w1")
    expect(card.locator(veit.button_to("/account/refresh"))).to_have_count(0)
    veit.press(card.locator(veit.button_to("/sipgate/login/")))
    veit.at_sipgate("1000000w1")
    expect(card.locator(veit.button_to("/account/refresh"))).to_have_count(1)

    veit.go(here)
    veit.look("only way in")
    veit.press(page.locator("a[href^='/accounts/password/set/']"))
    page.fill("input[name=password1]", PASSWORD)
    page.fill("input[name=password2]", PASSWORD)
    veit.press(page.locator("main form button[type=submit]"))
    expect(page).to_have_url(here)
    page.locator("details.danger summary").click()
    veit.press(page.locator("details.danger button"))
    veit.go("/account")
    expect(card).to_have_count(0)
    veit.look("not connected")

    veit.go("/accounts/settings/")
    with page.expect_download() as download:
        veit.link_to("/accounts/export").click()
    assert '"Veit"' in download.value.path().read_text()
    veit.go("/accounts/delete")
    page.fill("input[type=password]", PASSWORD)
    page.locator("input[name=sure]").check()
    veit.press(page.locator("main form button[type=submit]"))
    expect(page).to_have_url(f"{project.url}/")
    veit.look("deleted")


def test_try_again(visit, project):
    """A page that says that sipgate is away has a button for when it is back."""
    petra = visit()
    page = petra.go("/")
    petra.sign_in("5000000w0")
    project.control.fault("unavailable", on="api", times=None)
    petra.go("/account")
    trouble = page.locator("article.card .alert")
    petra.look("sipgate is away")
    project.control.clear()
    petra.press(trouble.get_by_role("link"))
    expect(trouble).to_have_count(0)


def test_with_the_keyboard(visit, project):
    """Everything without a mouse: sign in, look, allow more, end access, delete the account."""
    person = visit(language="de-DE")
    page = person.go("/")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_class(re.compile("skip"))
    page.keyboard.press("Enter")
    person.reach(page.locator("main").locator(person.button_to("/sipgate/login/")).first)
    person.reach(page.locator("button[value='8000000w0']"))
    person.reach(page.locator("button[value='grant']"))
    expect(page).to_have_url(f"{project.url}/account")
    person.reach(page.locator(".technical summary"), leaves=False)
    person.reach(person.button_to("/account/refresh"))
    expect(page.locator(".trace li")).to_have_count(3)
    person.reach(person.link_to("/account/numbers"))
    person.reach(page.locator("main form button[type=submit]"))
    person.reach(page.locator("button[value='grant']"))
    expect(page.get_by_role("row")).to_have_count(26)
    person.reach(person.link_to("/account"))
    person.reach(page.locator("article.card").get_by_role("link").first)
    person.reach(person.button_to("/end-access"))
    person.reach(person.link_to("/accounts/delete"))
    person.reach(page.locator("input[name=sure]"), key="Space", leaves=False)
    person.reach(page.locator("main form button[type=submit]"))
    expect(page).to_have_url(f"{project.url}/")


def test_without_scripts(visit, project):
    otto = visit(java_script_enabled=False)
    page = otto.go("/")
    otto.sign_in("2000000w0")
    expect(page).to_have_url(f"{project.url}/account")
    page.locator(".technical summary").click()
    otto.press(otto.button_to("/account/refresh"))
    expect(page.locator(".trace li")).to_have_count(3)
    otto.press(page.locator("article.card").get_by_role("link").first)
    otto.press(otto.button_to("/end-access"))
    otto.press(page.locator("form.languages button[value='de']"))
    expect(page.locator("html")).to_have_attribute("lang", "de")


def test_administration(visit, project):
    """Find a connection, see its history, refresh it."""
    person = visit()
    person.go("/")
    person.sign_in("6000000w0")
    olga = visit(dark=True)
    page = olga.page
    olga.enter_admin()
    olga.look("dashboard")
    olga.go("/admin/socialaccount/socialaccount/?q=6000000w0")
    olga.look("connections")
    olga.press(page.locator("#result_list tbody th a"))
    olga.look("connection")
    page.go_back()
    page.locator("#result_list tbody input.action-select").check()
    page.select_option("select[name=action]", "refresh")
    olga.press(page.locator("button[name=index]"))
    expect(page.locator(".messagelist .success")).to_be_visible()
    olga.go("/admin/sipgate_provider/tokenevent/")
    expect(page.locator("#result_list tbody tr").nth(1)).to_be_visible()
    olga.look("history")


def look_at_the_sandbox(visitor: Visitor) -> None:
    """Its start page with a fault that a button has armed, and what it says of a wrong client."""
    sandbox = visitor.project.control.url
    page = visitor.go(sandbox)
    visitor.press(page.locator("button[name='times'][value='']").first)
    expect(page.locator(".armed li")).to_have_count(1)
    visitor.look("sandbox")
    visitor.project.control.clear()
    visitor.go(f"{sandbox}/auth/realms/third-party/protocol/openid-connect/auth?client_id=nobody")
    visitor.look("sandbox does not know the client")


def look_at_every_state(visitor: Visitor) -> None:
    """What a person sees of a connection that does not work."""
    control = visitor.project.control
    for name, fault in (("forbidden", "forbidden-text"), ("unreachable", "unavailable")):
        control.fault(fault, on="api", times=None)
        control.expire_access()
        look_at_the_connection(visitor, name, alert="warning")
        control.clear()
    control.kill_session()
    control.expire_access()
    look_at_the_connection(visitor, "ended", alert="error")


def look_at_the_connection(visitor: Visitor, state: str, *, alert: str) -> None:
    visitor.go("/account")
    expect(visitor.page.locator(f"article.card .alert-{alert}")).to_be_visible()
    visitor.look(state)

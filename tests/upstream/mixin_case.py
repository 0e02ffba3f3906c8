"""The provider's entry in allauth's test mixin. Collected by ``test_upstream`` only, in a process of its own."""

from django.test import TestCase

from tests.apps.socialaccount.base import OAuth2TestsMixin
from tests.mocking import MockedResponse


class SipgateTests(OAuth2TestsMixin, TestCase):
    provider_id = "sipgate"

    # allauth's token holds one sealed text, which a site that stores allauth's tokens keeps as well.
    test_account_tokens = None
    test_account_refresh_token_saved_next_login = None

    def get_mocked_response(self) -> MockedResponse:
        return MockedResponse(
            200,
            '{"sub": "w0", "domain": "sipgate.de", "masterSipId": "1234567", "locale": "de_DE"}',
            {"content-type": "application/json"},
        )

    def get_expected_to_str(self) -> str:
        return "sipgate account 1234567w0"

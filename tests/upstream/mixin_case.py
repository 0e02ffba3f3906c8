"""The provider's entry in allauth's test mixin; ``test_upstream`` runs it in its own process."""

from django.test import TestCase

from tests.apps.socialaccount.base import OAuth2TestsMixin
from tests.mocking import MockedResponse

# The app reads bodies in parts, up to a limit, which upstream's answers cannot tell.
MockedResponse.__enter__ = lambda self: self
MockedResponse.__exit__ = lambda self, *_failure: None
MockedResponse.iter_content = lambda self, _size: iter([self.content])


class SipgateTests(OAuth2TestsMixin, TestCase):
    provider_id = "sipgate"

    # allauth's token holds one sealed text, which a site that stores allauth's tokens keeps.
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

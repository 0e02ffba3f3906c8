"""Sets response headers, and redirects to the one host name of the site."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.cache import add_never_cache_headers, has_vary_header

from sipgate_provider import conf

Next = Callable[[HttpRequest], HttpResponse]

PERMISSIONS_POLICY = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "geolocation",
        "gyroscope",
        "microphone",
        "payment",
        "usb",
    )
)


def headers(get_response: Next) -> Next:
    """Forbid browser features that no page uses, and caching of pages that depend on the visitor."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        if has_vary_header(response, "Cookie") and not response.has_header("Cache-Control"):
            add_never_cache_headers(response)
        return response

    return middleware


def canonical_host(get_response: Next) -> Next:
    """Redirect page views on another host name to the host of the redirect URI, where cookies of this host would be
    missing. The provider handles forms that are posted to the wrong host.
    """
    target = urlsplit(settings.SIPGATE_REDIRECT_URI)

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method in {"GET", "HEAD"} and not conf.is_own_host(request.get_host()):
            return HttpResponseRedirect(
                f"{target.scheme}://{target.netloc}{request.get_full_path()}"
            )
        return get_response(request)

    return middleware

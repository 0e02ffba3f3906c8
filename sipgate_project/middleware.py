"""Keeps personal pages out of caches, and the site at one host name."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.cache import add_never_cache_headers, has_vary_header

from sipgate_provider import conf

Next = Callable[[HttpRequest], HttpResponse]


def private_pages(get_response: Next) -> Next:
    """Forbid caching of pages that depend on the visitor."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if has_vary_header(response, "Cookie") and not response.has_header("Cache-Control"):
            add_never_cache_headers(response)
        return response

    return middleware


def canonical_host(get_response: Next) -> Next:
    """Redirect every request for another host name to the host of the redirect URI.

    This host's cookies would be missing there. And links in emails take their host from the
    request, so a form posted to another name must not be processed either.
    """
    target = urlsplit(settings.SIPGATE_REDIRECT_URI)

    def middleware(request: HttpRequest) -> HttpResponse:
        if conf.is_own_host(request.get_host()):
            return get_response(request)
        address = f"{target.scheme}://{target.netloc}{request.get_full_path()}"
        return HttpResponseRedirect(address)

    return middleware

"""Operations of the REST API: method and path, the scopes they want, and what they may be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import requests
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.urls import URLPattern, path

from . import counters, parameters
from .models import Credential
from .people import BY_UID, Person

Json = dict[str, Any]
View = Callable[..., HttpResponse]
_views: dict[str, dict[str, View]] = {}
"""By path and method."""


def operation(
    method: str,
    path: str,
    *scopes: str,
    required: str = "",
    optional: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let the decorated function answer ``path`` if a token has one of ``scopes``, or ``all``.

    It gets the person whose token was sent, ids of the path by name, and what was sent as ``sent``
    if anything may be. It returns JSON or an answer.

    Args:
        path: below the base of the API; ``<name>`` stands for an id.
        required, optional: names of what may be sent, which ``parameters`` has rules for: of
            parameters of a GET, else of fields of a JSON object.
    """

    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        def view(request: HttpRequest, **arguments: Any) -> HttpResponse:
            access = access_of(request)
            if access is None:
                return HttpResponse(status=401)
            person, granted = access
            if scopes and not {*scopes, "all"} & granted:
                raise PermissionDenied("The scope of this token does not allow that.")
            if not required and not optional:
                parameters.of_query(request, "")
            elif method == "GET":
                arguments["sent"] = parameters.of_query(request, optional)
            else:
                arguments["sent"] = parameters.of_body(request, required, optional)
            found = answer(person, **arguments)
            return found if isinstance(found, HttpResponse) else JsonResponse(found)

        _views.setdefault(path, {})[method] = view
        return answer

    return register


def urls(base: str) -> list[URLPattern]:
    """Return the URL patterns of all operations; those that begin with an id are the last."""
    routes = sorted(_views, key=lambda route: route.startswith("<"))
    return [
        path(f"{base}/{route}", _of_method(f"{base}/{route}", _views[route])) for route in routes
    ]


def _of_method(route: str, views: dict[str, View]) -> View:
    def choose(request: HttpRequest, **ids: str) -> HttpResponse:
        counters.add(f"{request.method} {route}")
        view = views.get(str(request.method))
        return view(request, **ids) if view else HttpResponseNotAllowed(views)

    return choose


def access_of(request: HttpRequest) -> tuple[Person, set[str]] | None:
    """Return whose access token a request has, and its scopes; None if it is not good."""
    value = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.SANDBOX_INTROSPECT_URL and value:
        return _introspected(value)
    found = Credential.find_usable(value)
    return None if found is None else (found.grant.session.person, set(found.scopes))


def _introspected(value: str) -> tuple[Person, set[str]] | None:
    """Ask the other authorization server (RFC 7662). ``username`` must be one of our people's."""
    form = {
        "token": value,
        "client_id": settings.SANDBOX_CLIENT_ID,
        "client_secret": settings.SANDBOX_CLIENT_SECRET,
    }
    answer = requests.post(settings.SANDBOX_INTROSPECT_URL, data=form, timeout=10).json()
    person = BY_UID.get(answer.get("username", ""))
    if not answer["active"] or person is None:
        return None
    return person, set(answer.get("scope", "").split())


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    data = {"name": "PARAMETER_INVALID", "message": str(exception)}
    return JsonResponse(data, status=400)


def permission_denied(_request: HttpRequest, exception: Exception) -> HttpResponse:
    return HttpResponse(str(exception), status=403, content_type="text/plain")

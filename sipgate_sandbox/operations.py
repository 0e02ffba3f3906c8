"""Operations of the REST API: method and path, the scopes they need, and what they accept."""

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
"""By route and method."""


def operation(
    method: str, route: str, *scopes: str, required: str = "", optional: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let the decorated function answer requests whose token has one of ``scopes``, or ``all``.

    The function receives the person to whom the token belongs, the ids in the path by name and, if
    the operation accepts any parameters, these as ``sent``. It returns JSON or a response.

    Args:
        route: below the base of the API, as in ``django.urls.path``.
        required, optional: names of the parameters, with spaces between them. A GET has them in its
            query, any other method in a JSON object. ``parameters`` says what each must be.
    """

    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        def view(request: HttpRequest, **arguments: Any) -> HttpResponse:
            access = _access_of(request)
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

        _views.setdefault(route, {})[method] = view
        return answer

    return register


def urls() -> list[URLPattern]:
    """Return the URL patterns of all operations."""
    # A route that begins with an id matches the paths of others, so it comes last.
    routes = sorted(_views, key=lambda route: route.startswith("<"))
    return [path(route, _by_method(_views[route])) for route in routes]


def _by_method(views: dict[str, View]) -> View:
    def choose(request: HttpRequest, **ids: str) -> HttpResponse:
        if request.resolver_match is not None:
            counters.add(f"{request.method} {request.resolver_match.route}")
        view = views.get(str(request.method))
        return view(request, **ids) if view else HttpResponseNotAllowed(views)

    return choose


def _access_of(request: HttpRequest) -> tuple[Person, set[str]] | None:
    """Return the owner and the scopes of the request's token; ``None`` for an invalid one."""
    value = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.SANDBOX_INTROSPECT_URL and value:
        return _introspected(value)
    found = Credential.find_usable(value)
    return None if found is None else (found.grant.session.person, set(found.scopes))


def _introspected(value: str) -> tuple[Person, set[str]] | None:
    """Ask the other authorization server (RFC 7662). Its ``username`` must be one of our people."""
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

"""Views of Django REST framework that need sipgate.

::

    class Company(APIView):
        permission_classes = [IsAuthenticated, sipgate_connection("account:read")]

        def get(self, request):
            return Response({"company": request.sipgate.account().company})

    REST_FRAMEWORK = {"EXCEPTION_HANDLER": "sipgate_provider.rest_framework.exception_handler"}

REST framework authenticates first, so tokens and Basic passwords count, and then asks for
permissions. Both answer with the problem documents of ``sipgate_required``.
"""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission
from rest_framework.response import Response
from rest_framework.views import exception_handler as usual_handler

from sipgate_provider import decorators, errors, links, problems, scopes


class SipgateProblem(APIException):
    """A problem as an exception, which any exception handler can answer."""

    def __init__(self, problem: problems.Problem) -> None:
        self.status_code = problem.status
        self.detail: Any = problem.document()


def sipgate_connection(*needed: str) -> type[BasePermission]:
    """Return a permission class for users with a working sipgate connection.

    The view finds the user's ``SipgateClient`` in ``request.sipgate``.

    Args:
        needed: the scopes that the view needs; a parent covers its children.
    """

    class HasSipgateConnection(BasePermission):
        def has_permission(self, request: Any, view: Any) -> bool:
            if not request.user or not request.user.is_authenticated:
                return False
            lacking = decorators.look(request, needed)
            try:
                if lacking is None:
                    decorators.freshen(request)
                    return True
                error, wish = lacking
            except errors.SipgateError as failed:
                error, wish = failed, needed
            raise SipgateProblem(_problem(request, error, links.signed_scopes(request, wish)))

    scopes.note_needed(needed, by=sipgate_connection)
    return HasSipgateConnection


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Answer errors of sipgate with problem documents, and all others as usual."""
    if not isinstance(exc, errors.SipgateError):
        usual: Response | None = usual_handler(exc, context)
        return usual
    request = context["request"]
    problem = _problem(request, exc, decorators.wish_of(request, exc))
    return Response(problem.document(), status=problem.status)


def _problem(request: Any, error: errors.SipgateError, wish: str) -> problems.Problem:
    return problems.explain(request, error, next_url=decorators.back_to(request), wish=wish)

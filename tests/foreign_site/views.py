"""What this site does with sipgate."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST

from sipgate_provider import accounts, errors, problems, tokens
from sipgate_provider.client import TokenClient
from sipgate_provider.decorators import sipgate_required


@login_required
@ensure_csrf_cookie
def company(request: HttpRequest) -> HttpResponse:
    """The name of the person's company, from sipgate, through the gate."""
    try:
        token = tokens.token(_connection(request))
        account = TokenClient(token.value).account()
    except errors.SipgateError as error:
        return problems.page(request, error, next_url=request.path)
    return JsonResponse({"company": account.company, "generation": token.generation})


@login_required
@require_POST
def refresh(request: HttpRequest) -> HttpResponse:
    """Renew the token now."""
    try:
        row = tokens.refresh(_connection(request))
    except errors.SipgateError as error:
        return problems.page(request, error, next_url="/company")
    return JsonResponse({"generation": row.generation})


@sipgate_required
def guarded(request: HttpRequest) -> HttpResponse:
    """The same in two lines: who may not see it yet is led to where that can be changed, and back."""
    return JsonResponse({"company": request.sipgate.account().company})


def _connection(request: HttpRequest):
    connections = accounts.connections_of(request.user)
    if not connections:
        raise errors.NotConnected("This person has no sipgate connection.")
    return connections[0]

"""What this site does with sipgate."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST

from sipgate_provider import accounts, api, conf, errors, problems, tokens


@login_required
@ensure_csrf_cookie
def company(request: HttpRequest) -> HttpResponse:
    """The name of the person's company, from sipgate, through the gate."""
    try:
        token = tokens.usable(_connection(request))
        account = api.fetch_account(conf.api_url(), token.value)
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


def _connection(request: HttpRequest):
    connections = accounts.connections_of(request.user)
    if not connections:
        raise errors.NotConnected("This person has no sipgate connection.")
    return connections[0]

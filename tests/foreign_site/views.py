"""What this site does with sipgate."""

from django.http import HttpRequest, JsonResponse

from sipgate_provider.decorators import sipgate_required


@sipgate_required
def company(request: HttpRequest) -> JsonResponse:
    """The name of the person's company, from sipgate."""
    return JsonResponse({"company": request.sipgate.account().company})

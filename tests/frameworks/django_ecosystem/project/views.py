"""Views that read and write the session, as an application would."""

from django.contrib import messages
from django.contrib.messages import get_messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect


def index(request: HttpRequest) -> JsonResponse:
    """Show the session data."""
    user = request.user.get_username() if request.user.is_authenticated else None
    return JsonResponse({"user": user, "visits": request.session.get("visits", 0)})


def visit(request: HttpRequest) -> JsonResponse:
    """Count a visit."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


async def avisit(request: HttpRequest) -> JsonResponse:
    """Count a visit in an asynchronous view."""
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    return JsonResponse({"visits": visits})


def key(request: HttpRequest) -> HttpResponse:
    """Return the session key, which an application may store."""
    return HttpResponse(request.session.session_key)


def token(request: HttpRequest) -> HttpResponse:
    """Return the CSRF token."""
    return HttpResponse(get_token(request))


def leave_message(request: HttpRequest) -> HttpResponse:
    """Store a message for the next page, and redirect there."""
    messages.success(request, "It is saved.")
    return redirect("read_messages")


def read_messages(request: HttpRequest) -> JsonResponse:
    """Show and remove the stored messages."""
    return JsonResponse({"messages": [str(message) for message in get_messages(request)]})

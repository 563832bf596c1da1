"""The same API in Django REST framework and in Django Ninja; both log in through the session."""

from ninja import NinjaAPI
from ninja.security import django_auth
from rest_framework.decorators import api_view
from rest_framework.response import Response

ninja = NinjaAPI(auth=django_auth)


@ninja.get("/me")
def get_me(request):
    """Return the user."""
    return {"user": request.auth.get_username()}


@ninja.post("/notes")
def post_note(request):
    """Count notes in the session."""
    request.session["notes"] = request.session.get("notes", 0) + 1
    return {"notes": request.session["notes"]}


@api_view(["GET"])
def me(request):
    """Return the user."""
    return Response({"user": request.user.get_username()})


@api_view(["POST"])
def notes(request):
    """Count notes in the session."""
    request.session["notes"] = request.session.get("notes", 0) + 1
    return Response({"notes": request.session["notes"]})

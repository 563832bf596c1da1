"""URLs and views of the Django project of the tests."""

from asgiref.sync import iscoroutinefunction
from django.contrib import admin, messages
from django.contrib.auth import (
    alogin,
    alogout,
    aupdate_session_auth_hash,
    get_user_model,
    update_session_auth_hash,
)
from django.contrib.auth.signals import user_logged_in
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.http import HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path

from sojourn.errors import StoreError
from sojourn.frameworks.django import SessionStore, get_sessions


def index(request):
    """Do nothing with the session."""
    return HttpResponse("index")


def count(request):
    """Count visits in a nested value; Django's own backends would not save the change."""
    cart = request.session.setdefault("cart", {"visits": 0})
    cart["visits"] += 1
    return HttpResponse(str(cart["visits"]))


async def acount(request):
    """Count visits, as ``count`` does."""
    cart = await request.session.asetdefault("cart", {"visits": 0})
    cart["visits"] += 1
    return HttpResponse(str(cart["visits"]))


def who(request):
    """Respond with the name of the user."""
    return HttpResponse(request.user.get_username())


async def awho(request):
    """Respond with the name of the user."""
    return HttpResponse((await request.auser()).get_username())


async def login_async(request):
    """Log a user in."""
    user = await get_user_model().objects.aget(username=request.GET["user"])
    await alogin(request, user)
    return HttpResponse("in")


async def logout_async(request):
    """Log out."""
    await alogout(request)
    return HttpResponse("out")


async def password_async(request):
    """Change the password."""
    user = await request.auser()
    user.set_password(request.GET["password"])
    await user.asave()
    request.user = user  # Django 5.2 reads it here, which would query the database in the loop
    await aupdate_session_auth_hash(request, user)
    return HttpResponse("changed")


def store_message(request):
    """Store a message for the next page."""
    messages.info(request, request.GET["text"])
    return HttpResponse("stored")


def show_messages(request):
    """Respond with the messages."""
    return HttpResponse(" ".join(str(message) for message in messages.get_messages(request)))


def token(request):
    """Respond with Django's CSRF token, or accept a form."""
    return HttpResponse(get_token(request))


def remember(request):
    """Set the expiry of the session."""
    value = request.GET["seconds"]
    request.session.set_expiry(None if value == "none" else int(value))
    request.session["n"] = 1
    return HttpResponse("set")


def destroy(request):
    """Destroy the session with ``session.destroy()``."""
    request.session.logout()
    return HttpResponse("ended")


def clear(request):
    """Empty the session."""
    request.session.clear()
    request.session["after"] = 1
    return HttpResponse("cleared")


def fail(request):
    """Write and raise an error."""
    request.session["n"] = 100
    raise LookupError("planned by the test")


def large(request):
    """Write more than a session may hold."""
    request.session["n"] = "x" * 100_000
    return HttpResponse("never sent")


def require(request):
    """Require a login with ``session.require_user()``."""
    return HttpResponse(request.session.require_user())


def stream(request):
    """Stream two parts, and write between them."""

    def parts():
        yield b"first "
        request.session["n"] = request.session.get("n", 0) + 1
        yield b"last"

    return StreamingHttpResponse(parts())


def key(request):
    """Respond with ``session_key``."""
    return HttpResponse(str(request.session.session_key))


def open_session(request):
    """Open the session of a given key and respond with its user; change the user's password."""
    user = SessionStore(request.GET["key"]).get("_auth_user_id")
    if "password" in request.GET:
        request.user.set_password(request.GET["password"])
        request.user.save()
        update_session_auth_hash(request, request.user)
    return HttpResponse(str(user))


def reopen(request):
    """Save the session and open it again by its key."""
    request.session["before"] = 1
    request.session.save()
    request.session = request.session.__class__(request.session.session_key)
    request.session.modified = True
    request.session["after"] = 2
    return HttpResponse(f"{request.session['before']} {request.session['after']}")


def token_login(request):
    """Issue a token, as REST packages do."""
    user = get_user_model().objects.get(username=request.GET["user"])
    user_logged_in.send(sender=type(user), request=request, user=user)
    return HttpResponse("token")


def rehash(request):
    """Store a password with a query instead of ``save()``, and update the session."""
    user = request.user
    user.set_password(request.GET["password"])
    get_user_model().objects.filter(pk=user.pk).update(password=user.password)
    update_session_auth_hash(request, user)
    return HttpResponse("updated")


def interrupted(request):
    """Write to a session that another request revoked during this one."""
    request.session["n"] = 1
    get_sessions().revoke(request.session.id)
    return HttpResponse("never sent")


urlpatterns = [
    path("interrupted/", interrupted),
    path("rehash/", rehash),
    path("open/", open_session),
    path("reopen/", reopen),
    path("token-login/", token_login),
    path("", index),
    path("count/", count),
    path("acount/", acount),
    path("who/", who),
    path("awho/", awho),
    path("login/", LoginView.as_view(next_page="/who/")),
    path("logout/", LogoutView.as_view(next_page="/who/")),
    path("password/", PasswordChangeView.as_view(success_url="/who/")),
    path("alogin/", login_async),
    path("alogout/", logout_async),
    path("apassword/", password_async),
    path("store-message/", store_message),
    path("messages/", show_messages),
    path("token/", token),
    path("remember/", remember),
    path("destroy/", destroy),
    path("clear/", clear),
    path("fail/", fail),
    path("large/", large),
    path("require/", require),
    path("stream/", stream),
    path("key/", key),
    path("admin/", admin.site.urls),
]


class AnswerErrors:
    """A middleware that responds to exceptions of views."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            raise NotImplementedError("the tests use it with WSGI only")

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        """Respond if a view raised an error of the store."""
        return HttpResponse("mine", status=418) if isinstance(exception, StoreError) else None

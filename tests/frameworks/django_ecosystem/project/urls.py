"""URLs of the project."""

from django.contrib import admin
from django.urls import include, path

from tests.frameworks.django_ecosystem.project import api, views

urlpatterns = [
    path("", views.index),
    path("visit", views.visit),
    path("avisit", views.avisit),
    path("key", views.key),
    path("token", views.token),
    path("leave-message", views.leave_message),
    path("read-messages", views.read_messages, name="read_messages"),
    path("admin/", admin.site.urls),
    path("drf/me", api.me),
    path("drf/notes", api.notes),
    path("ninja/", api.ninja.urls),
    path("accounts/", include("allauth.urls")),
]

"""Django's tutorial application "polls" with the admin; one setting installs sojourn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frameworks.django_ecosystem.browser import TOKEN, Browser
from tests.frameworks.django_ecosystem.prepare import PASSWORD
from tests.support.processes import REPOSITORY, serving

SAMPLE = Path(__file__).parent.parent / "samples" / "django_polls"

SERVERS = {
    "gunicorn": "gunicorn --bind 127.0.0.1:PORT mysite.wsgi:application",
    "uvicorn": "uvicorn --port PORT --log-level warning mysite.asgi:application",
}


QUESTION = {
    "question_text": "Which store?",
    "pub_date_0": "2024-01-01",
    "pub_date_1": "12:00:00",
    "choice_set-TOTAL_FORMS": "2",
    "choice_set-INITIAL_FORMS": "0",
    "choice_set-0-choice_text": "SQLite",
    "choice_set-0-votes": "0",
    "choice_set-1-choice_text": "Valkey",
    "choice_set-1-votes": "0",
}


@pytest.fixture(
    scope="module", params=["gunicorn", pytest.param("uvicorn", marks=pytest.mark.slow)]
)
def url(request, tmp_path_factory):
    """Return the address of the application with a superuser."""
    folder = tmp_path_factory.mktemp("polls")
    environ = {
        "PYTHONPATH": os.pathsep.join(map(str, (SAMPLE, REPOSITORY))),
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "FOLDER": str(folder),
    }
    user = ["createsuperuser", "--noinput", "--username", "ada", "--email", "ada@shop.example"]
    for command in (["migrate"], user):
        subprocess.run(
            [sys.executable, "-m", "django", *command], env=environ, cwd=folder, check=True
        )
    with serving(*SERVERS[request.param].split(), folder=folder, environ=environ) as address:
        yield address


def test_admin_adds_a_question_and_a_visitor_votes(url):
    with Browser(url) as ada, Browser(url) as visitor:
        assert "There are no polls" in visitor.get("/polls/").text
        page = ada.submit("/admin/login/", username="ada", password=PASSWORD, next="/admin/")
        assert "Site administration" in page.text
        page = ada.submit("/admin/polls/question/add/", **QUESTION)
        assert "was added successfully" in page.text
        assert "Which store?" in ada.get("/admin/polls/question/?q=store").text

        assert "Which store?" in visitor.get("/polls/").text
        form = visitor.get("/polls/1/").text
        data = {"csrfmiddlewaretoken": TOKEN.search(form)[1]}
        assert visitor.post("/polls/1/vote/").status_code == 403  # without the CSRF token
        assert "Choose one" in visitor.post("/polls/1/vote/", data=data).text
        page = visitor.post("/polls/1/vote/", data={**data, "choice": "1"})
        assert "SQLite: 1 vote" in page.text

        page = ada.submit("/admin/password_change/")  # any form of the admin has the token
        token = {"csrfmiddlewaretoken": TOKEN.search(page.text)[1]}
        assert "Logged out" in ada.post("/admin/logout/", data=token).text
        assert "Site administration" not in ada.get("/admin/").text

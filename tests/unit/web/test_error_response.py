"""The media type of built-in error responses: text, JSON or problem details (law A23)."""

import json
from http import HTTPStatus

import pytest

from sojourn.web.error_response import (
    error_response,
    unauthorized_response,
    unavailable_response,
)
from sojourn.web.origin import Refusal, refusal_response

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
AXIOS = b"application/json, text/plain, */*"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "text/plain; charset=utf-8"),
        (b"", "text/plain; charset=utf-8"),
        (b"*/*", "text/plain; charset=utf-8"),
        (BROWSER, "text/plain; charset=utf-8"),
        (b"image/png", "text/plain; charset=utf-8"),
        (b"\xff;;,,q=", "text/plain; charset=utf-8"),
        (b"application/json;q=0", "text/plain; charset=utf-8"),
        (b"application/json;q=oops", "text/plain; charset=utf-8"),
        (b"text/plain;q=0.5, application/json;q=0.4", "text/plain; charset=utf-8"),
        (AXIOS, "application/json"),
        (b"Application/JSON", "application/json"),
        (b"application/*", "application/json"),
        (b"text/plain;q=0.5, application/json;level=1", "application/json"),
        (b"application/problem+json, application/json", "application/problem+json"),
        (b"application/json;q=0.9, application/problem+json", "application/problem+json"),
        (b"application/json, " + b"image/png, " * 40, "application/json"),
        (b"image/png, " * 40 + b"application/json", "text/plain; charset=utf-8"),
    ],
)
def test_media_type_is_negotiated(accept, form):
    """A23, RFC 9110 12.5.1."""
    headers, body = unavailable_response(accept)
    found = dict(headers)
    assert found[b"content-type"].decode() == form
    assert int(found[b"content-length"]) == len(body)
    assert int(found[b"retry-after"]) > 0
    assert found[b"cache-control"] == b"no-store"


def test_the_fields_of_problem_details():
    """RFC 9457 3.1."""
    headers, body = error_response(HTTPStatus.FORBIDDEN, "No.", b"application/problem+json")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "No.",
    }
    assert b"retry-after" not in dict(headers)


@pytest.mark.parametrize("refusal", Refusal)
def test_refusal_of_another_origin_names_the_option(refusal):
    """A23: the developer finds the option to change."""
    for accept in (None, b"application/json"):
        _, body = refusal_response(refusal, accept)
        assert b"allowed_origins" in body


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (unauthorized_response, 401),
        (unavailable_response, 503),
        (lambda accept: refusal_response(Refusal.ORIGIN, accept), 403),
    ],
)
def test_problem_details_state_the_status_of_the_response(response, status):
    """RFC 9457 3.1.2."""
    headers, body = response(b"application/problem+json")
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    assert json.loads(body)["status"] == status


def test_a_visitor_without_a_session_must_log_in():
    """RFC 9110 15.5.2; a browser shows no password dialog for this scheme."""
    headers, body = unauthorized_response(None)
    assert dict(headers)[b"www-authenticate"] == b"Session"
    assert dict(headers)[b"cache-control"] == b"no-store"
    assert b"log in" in body

"""Spans under every framework: one load and one commit, children of the request's span."""

import pytest

from sojourn.testing.app_suite.drivers import WSGIDriver
from sojourn.testing.app_suite.handlers import HANDLERS
from sojourn.testing.decorators import under_loop
from tests.frameworks import test_aiohttp, test_sanic, test_tornado
from tests.frameworks.test_near_cache import SUITES
from tests.support.telemetry import Exporters

# Django does not close the body of a request whose client has disconnected.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")

#: Their drivers start a server, where the span of the test is not the current span.
SERVED = {test_aiohttp.TestAiohttp, test_sanic.TestSanic, test_tornado.TestTornado}


def traced(app, exporters, requests):
    """Return a WSGI application that has a span, as OpenTelemetry's middleware for WSGI does."""

    def serve(environ, start_response):
        with exporters.request() as request:
            requests.append(request.get_span_context().span_id)
            return app(environ, start_response)

    return serve


@pytest.mark.parametrize("suite", SUITES, ids=[suite.__name__ for suite in SUITES])
@under_loop
async def test_one_load_and_one_commit_span_for_each_request(suite):
    """The first request creates a session; later ones load and save it; a reader loads it."""
    with Exporters() as exporters:
        async with suite().serve(HANDLERS) as app:
            exporters.opentelemetry(app.sessions)
            requests = []
            is_wsgi = isinstance(app.driver, WSGIDriver)
            if is_wsgi:  # its threads do not have the context of this test
                app.driver._app = traced(app.driver._app, exporters, requests)
            browser = app.browser()
            for path, names in (
                ("/write", ["commit session"]),
                ("/write", ["load session", "commit session"]),
                ("/write", ["load session", "commit session"]),
                ("/read", ["load session"]),
                ("/look", ["load session"]),
            ):
                with exporters.request() as request:
                    assert (await browser.get(path)).status == 200
                parents = {span.parent and span.parent.span_id for span in exporters.spans()}
                expected = requests[-1] if is_wsgi else request.get_span_context().span_id
                if suite not in SERVED:
                    assert parents == {expected}, path
                assert exporters.take_spans() == names, path

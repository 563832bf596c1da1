"""The close code and reason that a page in a browser receives."""

import pytest

from tests.support.servers import uvicorn

pytestmark = pytest.mark.browser

#: Opens a socket; resolves with the code and the reason of its close.
CLOSE_OF = """
([path, subprotocols]) => new Promise((resolve) => {
  const socket = new WebSocket(location.origin.replace("http", "ws") + path, subprotocols);
  let opened = false;
  socket.onopen = () => { opened = true; };
  socket.onclose = (event) => resolve([opened, event.code, event.reason]);
})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = {"store": "memory://", "close_code": 4001}
    with uvicorn("shop", tmp_path_factory.mktemp("shop"), options=options) as running:
        yield running


@pytest.fixture
def page(chromium, server):
    context = chromium.new_context()
    opened = context.new_page()
    opened.goto(server.url + "/put?name=Ada")
    yield opened
    context.close()


@pytest.mark.parametrize("subprotocols", [[], ["one", "two"]])
def test_page_reads_why_its_socket_is_refused(page, subprotocols):
    """W1: the configured code and the reason, not 1006, so that it does not reconnect."""
    closed = page.evaluate(CLOSE_OF, ["/members", subprotocols])
    assert closed == [True, 4001, "login required"]


def test_page_reads_why_its_socket_is_closed(page, server):
    """W4."""
    session_id = page.evaluate("fetch('/').then((r) => r.json()).then((it) => it.id)")
    page.evaluate(f"window.ending = ({CLOSE_OF})(['/echo', []]); null")
    page.wait_for_function(
        "fetch('/usage').then((r) => r.json()).then((it) => it.connections === 1)"
    )
    page.evaluate(f"fetch('/revoke/{session_id}').then((r) => r.text())")
    assert page.evaluate("window.ending") == [True, 4001, "revoked by hand"]
    assert page.evaluate(CLOSE_OF, ["/members", []]) == [True, 4001, "revoked by hand"]

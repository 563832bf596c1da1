"""A cache in front of the application does not give one visitor the response of another.

Over a real server, through ``SharedCache`` and through nginx if it is installed. Ada and Bob have
sessions, Eve and Mallory have no cookie. Control tests show that both caches store and leak pages.
"""

import re

import pytest

from tests.security import proxies
from tests.support.servers import Server

QUERIES = {
    "nothing": "",
    "public": "&say=public,max-age=600",
    "max-age": "&say=max-age=600",
    "s-maxage": "&say=s-maxage=600",
    "must-understand": "&say=must-understand,max-age=600",
    "for CDNs": "&say=private&cdn=1",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = {"store": "memory://", "secret": "3c5f19a7e2d84b06", "touch_interval": 0.001}
    command = ["uvicorn", "tests.security.cached_app:app", "--port", "{port}"]
    with Server(command, tmp_path_factory.mktemp("server"), options=options) as server:
        yield server


@pytest.fixture(scope="module", params=["shared_cache", "nginx"])
def front(request, server, tmp_path_factory):
    if request.param == "shared_cache":
        with proxies.shared_cache(server) as front:
            yield front
    elif proxies.NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    else:
        with proxies.nginx(server, tmp_path_factory.mktemp("nginx")) as front:
            yield front


@pytest.fixture
def visit(request, front):
    """Return a function that requests a page by a URL that is unique to this test."""
    unique = re.sub(r"\W", "-", request.node.name)

    def fetch(page, visitor, *, more="", **options):
        path = f"{page}?test={unique}{more}"
        answer = front.get(path, cookie=visitor.cookie, **options)
        visitor.take(answer)
        return answer

    return fetch


class Visitor:
    """A client with a cookie, and all cookies that it has received."""

    def __init__(self, name):
        self.name = name
        self.cookie = None
        self.given = []

    def take(self, answer):
        for header in answer.headers.get_list("set-cookie"):
            pair, _, attributes = header.partition(";")
            self.given.append(pair)
            self.cookie = None if "max-age=0" in attributes.lower() else pair


@pytest.fixture
def people(visit):
    """Return Ada and Bob, who have sessions, and Eve and Mallory, who have none."""
    ada, bob = Visitor("Ada"), Visitor("Bob")
    for visitor in (ada, bob):
        visit("/begin", visitor, more=f"&name={visitor.name}")
        assert visitor.cookie is not None
    return ada, bob, Visitor("Eve"), Visitor("Mallory")


def names_in(answer):
    return set(re.findall(r"Ada|Bob|visitor \d+", answer.text))


def rounds(people):
    """Yield the visitors in both orders; the first one fills the cache."""
    yield from people
    yield from reversed(people)


# Controls


@pytest.mark.parametrize("caching", ["nothing", "public", "s-maxage"])
def test_the_cache_stores_a_public_page(front, visit, caching):
    """Control: two visitors receive the same response, the second from the cache."""
    first = visit("/anonymous", Visitor("Eve"), more=QUERIES[caching])
    second = visit("/anonymous", Visitor("Mallory"), more=QUERIES[caching])
    assert first.text == second.text
    assert front.hit(second)


@pytest.mark.parametrize("page", ["/naked/read", "/naked/enter", "/naked/streamed"])
def test_the_cache_leaks_pages_without_the_headers_of_sojourn(front, visit, people, page):
    """Control: Bob receives the page of Ada."""
    ada, bob, eve, mallory = people
    one, other = (eve, mallory) if page == "/naked/enter" else (ada, bob)
    first, second = visit(page, one), visit(page, other)
    assert first.text == second.text
    assert front.hit(second)
    if page == "/naked/enter":
        assert one.given == other.given != []


# The rules


@pytest.mark.parametrize("caching", QUERIES)
@pytest.mark.parametrize(
    "page",
    ["/read", "/in", "/len", "/write", "/tagged", "/missing", "/broken", "/failing", "/streamed"],
)
def test_no_visitor_receives_the_page_of_another(visit, people, page, caching):
    """For every page with every Cache-Control.

    A13, B-1, B-2, B-3, B-4, B-5, B-6, B-7, B-8, B-9, ASVS 14.2.2, 14.3.2.
    """
    for visitor in rounds(people):
        answer = visit(page, visitor, more=QUERIES[caching])
        assert names_in(answer) <= {visitor.name}, visitor.name
        if visitor.name in ("Ada", "Bob") and page != "/in":
            assert names_in(answer) == {visitor.name}
        assert visitor.given == [visitor.cookie][: len(visitor.given)]


@pytest.mark.parametrize("caching", QUERIES)
def test_no_visitor_receives_the_stream_of_another(visit, people, caching):
    """A13, B-7, ASVS 14.2.2: the headers are sent before the session is accessed."""
    ada, bob, eve, _ = people
    for visitor in (ada, bob, ada, eve):
        answer = visit("/late", visitor, more=QUERIES[caching])
        assert answer.text == f"for {visitor.name if visitor.cookie else None}"


@pytest.mark.parametrize("caching", QUERIES)
def test_no_visitor_receives_the_cookie_of_another(visit, caching):
    """A13, B-1, B-4, B-6, B-7, B-8, B-9, OWASP-7: of a page that creates a session."""
    visitors = [Visitor(name) for name in ("Eve", "Mallory", "Trent")]
    answers = [visit("/enter", visitor, more=QUERIES[caching]) for visitor in visitors]
    assert len({visitor.cookie for visitor in visitors}) == len(visitors)
    assert None not in {visitor.cookie for visitor in visitors}
    assert len({answer.text for answer in answers}) == len(visitors)
    for answer in answers:
        assert "no-store" in answer.headers["cache-control"]
        assert not {"cdn-cache-control", "surrogate-control"} & set(answer.headers)
    for visitor, answer in zip(visitors, answers, strict=True):
        assert names_in(visit("/enter", visitor, more=QUERIES[caching])) == names_in(answer)


@pytest.mark.parametrize("caching", QUERIES)
def test_the_response_to_a_logout_is_not_shared(visit, people, caching):
    """A7, A13, B-35, B-38, B-44: each visitor is logged out and receives their own page."""
    ada, bob, eve, _ = people
    before = [ada.cookie, bob.cookie]
    for visitor in (ada, bob, eve):
        answer = visit("/logout", visitor, more=QUERIES[caching])
        assert ("bye " + (visitor.name if visitor is not eve else "None")) in answer.text
        assert visitor.cookie is None
    assert eve.given == []
    for visitor, cookie in zip((ada, bob), before, strict=True):
        visitor.cookie = cookie
        assert names_in(visit("/len", visitor)) == set()


@pytest.mark.parametrize("caching", QUERIES)
def test_a_flashed_message_is_shown_to_its_visitor_only(visit, people, caching):
    """A13, B-2: flashed messages are part of the session."""
    ada, bob, eve, mallory = people
    visit("/flash", ada, more=QUERIES[caching])
    for visitor in (eve, bob, mallory):
        assert names_in(visit("/flashes", visitor, more=QUERIES[caching])) == set()
    visit("/flash", bob, more=QUERIES[caching] + "&again")
    assert names_in(visit("/flashes", ada, more=QUERIES[caching])) == {"Ada"}
    assert "Ada" not in visit("/flashes", bob, more=QUERIES[caching] + "&again").text


@pytest.mark.parametrize("caching", QUERIES)
def test_a_304_is_not_shared(visit, people, caching):
    """A13: only the visitor who has the page receives it; others receive their own page."""
    ada, bob, eve, _ = people
    for visitor in (ada, bob, eve, bob, ada):
        name = visitor.name if visitor.cookie else "None"
        own = visit(
            "/tagged", visitor, more=QUERIES[caching], headers={"if-none-match": f'"{name}"'}
        )
        assert own.status_code == 304 or f"<{name}>" in own.text
        for foreign in {"Ada", "Bob", "None"} - {name}:
            headers = {"if-none-match": f'"{foreign}"'}
            answer = visit("/tagged", visitor, more=QUERIES[caching], headers=headers)
            assert answer.status_code == 200
            assert f"<{name}>" in answer.text


@pytest.mark.parametrize("caching", QUERIES)
def test_a_head_request_is_not_shared(visit, people, caching):
    """A13: HEAD stores no page of a visitor in the cache."""
    for visitor in rounds(people):
        visit("/tagged", visitor, more=QUERIES[caching], method="HEAD")
        head = visit("/tagged", visitor, more=QUERIES[caching], method="HEAD")
        name = visitor.name if visitor.cookie else "None"
        assert head.headers["etag"] == f'"{name}"'
        assert f"<{name}>" in visit("/tagged", visitor, more=QUERIES[caching]).text
    for visitor in people:
        visit("/enter", visitor, more=QUERIES[caching], method="HEAD")
    given = [pair for visitor in people for pair in visitor.given]
    assert len(set(given)) == len(given) == len(people)

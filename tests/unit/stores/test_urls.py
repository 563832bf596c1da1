"""Opening a store by its URL, and the errors for an invalid one."""

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from sojourn.errors import ConfigurationError
from sojourn.stores import urls
from sojourn.stores.memory import MemoryStore
from sojourn.stores.urls import ENTRY_POINTS, StoreURL, open_store


def open_(url):
    return open_store(url, realm="default", timeout=2.0)


@pytest.fixture
def third_party(monkeypatch):
    """Install a package that registers two schemes, one of which lacks a dependency."""
    module = ModuleType("third_party_store")
    module.seen = []
    module.open_it = lambda url: module.seen.append(url) or MemoryStore()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    points = [
        EntryPoint("ours", "third_party_store:open_it", ENTRY_POINTS),
        EntryPoint("broken", "nowhere_to_be_found:open_it", ENTRY_POINTS),
    ]
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda *, group: points if group == ENTRY_POINTS else [],
    )
    return module


@pytest.fixture
def unimportable(monkeypatch):
    """Return a function that makes the import of the PostgreSQL store fail with an error."""

    def fail(error):
        def import_failing(name):
            assert name == "sojourn.stores.postgresql.urls"
            raise error

        monkeypatch.setattr(urls, "import_module", import_failing)

    return fail


def test_the_scheme_selects_the_store():
    assert isinstance(open_("memory://"), MemoryStore)
    assert "of 7 records" in repr(open_("MEMORY://?limit=7"))


def test_a_store_of_another_package_receives_the_parsed_url(third_party):
    """Packages register stores by entry point."""
    open_("ours://user:hunter2@host:7/path?x=1")
    (url,) = third_party.seen
    assert url.parts.password == "hunter2"
    assert (url.parts.hostname, url.parts.port, url.parts.path) == ("host", 7, "/path")
    assert (url.realm, url.timeout) == ("default", 2.0)
    assert url.options(x=int) == {"x": 1}


def test_the_error_of_a_third_party_scheme_names_the_missing_package(third_party):
    with pytest.raises(ConfigurationError, match=r"broken:// needs nowhere_to_be_found") as caught:
        open_("broken://host")
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqllite:///x", "no store has the URL scheme 'sqllite'.*Did you mean 'sqlite'"),
        (
            "zzz://x",
            r"expected one of .*memory://, .*redis.*, sqlite://, .*unix://, .*valkey://[\w:/, ]*$",
        ),
        ("sessions.db", "expects a URL such as"),
        ("memory:x", "expects a URL such as"),
        ("://x", "expects a URL such as"),
        ("", "expects a URL such as"),
        ("redis://[::1", "found an invalid one: Invalid IPv6 URL"),
    ],
)
def test_an_invalid_url_raises(url, text):
    with pytest.raises(ConfigurationError, match=text):
        open_(url)


def test_similar_schemes_of_other_packages_are_suggested(third_party):
    with pytest.raises(
        ConfigurationError, match=r"broken://, .*memory://, .*ours://, .*mean 'ours'"
    ):
        open_("our://x")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=x", "option 'limit' expects int, found 'x'"),
        ("limit=", "option 'limit' expects int, found ''"),
        ("limt=1", "unknown option 'limt'; expected limit.*Did you mean 'limit'"),
        ("zzz", "unknown option 'zzz'; expected limit$"),
    ],
)
def test_an_invalid_option_raises(query, text):
    with pytest.raises(ConfigurationError, match=text):
        open_(f"memory://?{query}")


def test_options_for_a_scheme_without_options_raise():
    parts = urls.urlsplit("memory://?x=1")
    with pytest.raises(ConfigurationError, match="expected none"):
        StoreURL("memory://", parts, "default", 2.0).options()


def test_neither_errors_nor_reprs_contain_a_password(third_party):
    """A18: errors are logged."""
    open_("ours://user:hunter2@host")
    shown = repr(third_party.seen[0])
    assert third_party.seen[0].text == "ours://user:***@host"
    for url in (
        "memory://user:hunter2@host",
        "redis:user:hunter2@host",
        "zzz://user:hunter2@host",
        "memory://user:hunter2\u2100@host",  # NFKC gives 'a/c': the error quotes it
        "memory://user:x[hunter2]@host",
        "redis+sentinel://host/x?sentinel_password=hunter2&limt=1",
        "redis+sentinel://host/?db=0&sentinel_password=hunter2",
    ):
        with pytest.raises(ConfigurationError) as caught:
            open_(url)
        shown += str(caught.value)
    assert "hunter2" not in shown


def test_the_error_of_a_missing_client_library_names_the_extra(unimportable):
    unimportable(ModuleNotFoundError("No module named 'psycopg'", name="psycopg"))
    with pytest.raises(ConfigurationError, match=r"needs psycopg, .*'sojourn\[postgresql\]'"):
        open_("postgresql://localhost/app")


def test_the_error_of_a_missing_c_library_names_the_remedy(unimportable):
    """The error of psycopg without its extra `binary`, on a machine without libpq."""
    unimportable(ImportError("no pq wrapper available.\nAttempts made:\n- no libpq"))
    with pytest.raises(ConfigurationError) as caught:
        open_("postgresql://localhost/app")
    assert str(caught.value) == (
        "the client library of postgresql:// cannot be imported (no pq wrapper available. "
        "Attempts made: - no libpq); install 'psycopg[binary]', which contains libpq, or the "
        "system's libpq"
    )

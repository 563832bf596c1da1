"""Store URLs, their errors, and TLS."""

import time
from urllib.parse import urlsplit

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.broadcast_messages import encode_message
from sojourn.stores.redis.connection import ServerAddress
from sojourn.stores.redis.urls import parse_address
from sojourn.stores.urls import open_store
from sojourn.testing.decorators import with_loop, without_loop
from sojourn.testing.records import make_record
from tests.integration.proxy import Proxy
from tests.unit.stores.redis.subscriber_probe import SubscriberProbe


def open_(url):
    return open_store(url, realm="default", timeout=1.0)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", ServerAddress()),
        ("valkey://cache", ServerAddress("cache")),
        ("redis://cache:7000/3", ServerAddress("cache", 7000, database=3)),
        ("redis://web:p%40ss@cache", ServerAddress("cache", user="web", password="p@ss")),
        ("redis://:secret@cache", ServerAddress("cache", password="secret")),
        ("rediss://cache", ServerAddress("cache", tls=True)),
        ("redis://[::1]:7000", ServerAddress("::1", 7000)),
        ("unix:///run/valkey%201.sock", ServerAddress(path="/run/valkey 1.sock")),
    ],
)
def test_a_valid_url_is_parsed(url, address):
    assert parse_address(urlsplit(url), url) == address


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://cache/shop", "expected the number of a database after the last '/'.*'shop'"),
        ("redis://cache:99999", "Port out of range"),
        ("redis://cache?db=x", "option 'db' expects int"),
        ("redis://cache?prefix=a:b", "prefix expects"),
        ("redis://cache?db=-1", "expected the number of a database.*'-1'"),
        ("redis://cache/3?db=5", "names the database twice"),
        ("redis://cache/0#x", "elsewhere there is no '#'"),
        ("redis://cache?ca=/x", "ca= is for TLS; write rediss://"),
        ("rediss://cache?ca=/nowhere/x", "ca= expects a file.*'/nowhere/x' is none"),
        ("rediss+sentinel://one/x?ca=/nowhere/x", "ca= expects a file"),
        ("redis://cache?timeout=3", "unknown option 'timeout'"),
        ("unix://run/valkey.sock", "expects the path of a socket"),
        ("unix://", "expects the path of a socket"),
        ("redis+sentinel://one:26379", "expected the name of the watched service"),
        ("redis+sentinel://one:x/service", "expected hosts with ports.*found 'one:x'"),
        ("redis+sentinel://one:70000/service", "expected hosts with ports.*found 'one:70000'"),
        ("redis+cluster://one,:7", "expected hosts with ports.*found ':7'"),
        ("redis+cluster://one/0", "a cluster has one database and no path"),
    ],
)
def test_an_invalid_url_is_refused_with_the_reason(url, text):
    with pytest.raises(ConfigurationError, match=text):
        open_(url)


def test_a_ca_file_without_certificates_is_refused(tmp_path):
    """When the store is opened, not at the first connection."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="certificates in PEM format"):
        open_(f"rediss://cache?ca={file}")


@pytest.mark.parametrize("special", "/?#")
@pytest.mark.parametrize("rest", ["://:{}@cache:7/0", "+cluster://web:{}@one:7,two:7"])
def test_a_password_that_is_not_escaped_is_not_shown(special, rest):
    """A18: nor a part of it; the error says how to escape it."""
    with pytest.raises(ConfigurationError, match="in a user or password as %2F") as error:
        open_("redis" + rest.format(f"hunter2{special}hunter3"))
    assert "hunter" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://web:hunter2@cache:7000/3", "cache:7000, sojourn:default"),
        ("unix:///run/valkey.sock?db=2&prefix=shop", "/run/valkey.sock, shop:default"),
        ("redis+sentinel://web:hunter2@one,two:5/x", "x by one:26379, two:5, sojourn"),
        ("redis+cluster://web:hunter2@one,[::1]:7", "the cluster of one:6379, ::1:7, sojourn"),
    ],
)
def test_repr_contains_the_server_and_no_password(url, name):
    """A18: it is logged."""
    store = open_(url)
    assert name in repr(store)
    assert "hunter2" not in repr(store)
    assert store.requires_event_loop() is None
    store.close()


@pytest.mark.parametrize("runner", [with_loop, without_loop], ids=["loop", "no loop"])
def test_tls_verifies_the_certificate(runner, valkey, authority):
    """A certificate of an unknown authority is rejected."""
    ca, context = authority
    proxy = Proxy(valkey.port, context)

    async def check():
        store = open_(f"rediss://127.0.0.1:{proxy.port}/0?ca={ca}")
        record = make_record()
        assert await store.create(record) is True
        assert await store.load(record.id) == record
        store.close()
        doubtful = open_(f"rediss://127.0.0.1:{proxy.port}/0")
        with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await doubtful.load(record.id)
        doubtful.close()

    try:
        runner(check())
    finally:
        proxy.close()


def test_many_messages_at_once_arrive_over_tls(valkey, authority):
    """S17: data in the buffer of TLS does not make the socket readable."""
    ca, context = authority
    proxy = Proxy(valkey.port, context)
    store = open_(f"rediss://127.0.0.1:{proxy.port}/0?ca={ca}")
    probe = SubscriberProbe(store)
    with redis.Redis.from_url(valkey.url) as admin, admin.pipeline(transaction=False) as many:
        for version in range(3000):
            message = encode_message("revoked", bytes(16), version=version, reason="")
            many.publish("sojourn:default:events", message)
        many.execute()
    started = time.monotonic()
    assert [probe.next().version for _ in range(3000)] == list(range(3000))
    assert time.monotonic() - started < 4, "the remaining messages were read only after a ping"
    store.close()
    proxy.close()


def test_an_unreachable_server_fails_at_the_first_call():
    """S12: opening a store does not connect."""
    store = open_("redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match="could not be reached"):
        run(store.load(bytes(16)))
    store.close()

"""The stored formats of keys besides records, byte by byte (docs/valkey.md, "Inspect the keys")."""

import pytest
import redis

from sojourn._core.concurrency import run
from sojourn._crypto.tickets import key_fingerprint
from sojourn.sessions import Sessions
from sojourn.stores.redis.keys import Keys
from sojourn.stores.urls import open_store
from sojourn.testing.store_suite.worker import SECRET

ONE, TWO = bytes.fromhex("0102030405060708"), bytes.fromhex("1112131415161718")


@pytest.fixture
def admin(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def store(valkey):
    made = open_store(valkey.url, realm="default", timeout=2.0)
    yield made
    made.close()


def test_fingerprints_are_a_format_byte_and_eight_bytes_each(store, admin):
    """A24: in the order of their registration, without expiry."""
    assert run(store.register_keys([ONE]))
    assert admin.get("sojourn:default:keys") == b"\x01" + ONE
    assert run(store.register_keys([TWO, ONE]))
    assert admin.get("sojourn:default:keys") == b"\x01" + ONE + TWO
    assert admin.ttl("sojourn:default:keys") == -1


@pytest.mark.parametrize("is_cluster", [False, True])
def test_the_key_of_the_fingerprints_contains_the_realm(is_cluster):
    assert Keys("shop", "admin", is_cluster=is_cluster).fingerprints == "shop:admin:keys"


@pytest.mark.parametrize(
    "value",
    [b"", b"\x02" + ONE, b"\x01" + ONE[:5], b"x" * 9],
    ids=["empty", "newer", "cut", "other"],
)
def test_fingerprints_that_cannot_be_read_are_kept_and_logged(value, store, admin, caplog):
    """S9: the check is skipped: a damaged key must not stop an application."""
    admin.set("sojourn:default:keys", value)
    assert run(store.register_keys([TWO]))
    assert admin.get("sojourn:default:keys") == value
    assert "sojourn:default:keys cannot be read" in caplog.text


def test_a_fingerprint_key_of_another_type_is_logged(store, admin, caplog):
    """S9."""
    admin.lpush("sojourn:default:keys", "x")
    assert run(store.register_keys([TWO]))
    assert "sojourn:default:keys cannot be read" in caplog.text


def test_known_fingerprints_are_not_written_again(store, admin):
    """A24: a process can start on a full server or a replica."""
    assert run(store.register_keys([ONE, TWO]))
    before = admin.info("commandstats")["cmdstat_set"]["calls"]
    assert run(store.register_keys([TWO, ONE]))
    assert run(store.register_keys([TWO]))
    assert not run(store.register_keys([ONE[::-1]]))
    assert admin.info("commandstats")["cmdstat_set"]["calls"] == before


def test_the_database_contains_fingerprints_and_no_secret(valkey, admin):
    """A18, B-48: after the first contact of an installation."""
    sessions = Sessions(store=valkey.url, secret=SECRET)
    with sessions.open() as visit:
        visit.session.login("ada")
    sessions.close()
    assert admin.get("sojourn:default:keys") == b"\x01" + key_fingerprint(SECRET, "default")
    for key in admin.scan_iter():
        if admin.type(key) == b"string":
            assert SECRET not in admin.get(key)


def test_cutoffs_are_eight_bytes(store, admin):
    """Milliseconds, big-endian; that of a name expires after 400 days, that of all never."""
    run(store.invalidate_logins("user:ada", 0x0102030405060708 >> 16))
    run(store.invalidate_all(7))
    name = Keys("sojourn", "default", is_cluster=False).digest("user:ada").hex()
    assert admin.get(f"sojourn:default:v:{name}") == bytes.fromhex("0000010203040506")
    assert 34_559_999 <= admin.ttl(f"sojourn:default:v:{name}") <= 34_560_000
    assert admin.get("sojourn:default:void") == bytes.fromhex("0000000000000007")
    assert admin.ttl("sojourn:default:void") == -1

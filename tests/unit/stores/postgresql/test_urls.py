"""URLs of PostgreSQL: options of sojourn, options of libpq, and messages without a password."""

import pytest

from sojourn._core.concurrency import run
from sojourn.errors import ConfigurationError, StoreUnavailable
from sojourn.stores.postgresql import PostgresStore
from sojourn.stores.postgresql.connection import Server
from sojourn.stores.postgresql.connection_sources import parse_server
from sojourn.stores.urls import open_store


def open_url(url):
    return open_store(url, realm="default", timeout=1.0)


class TestOptions:
    @pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
    def test_both_schemes_open_the_store(self, scheme):
        store = open_url(f"{scheme}://ada:secret@db.example:5433/shop")
        assert isinstance(store, PostgresStore)
        assert repr(store) == "PostgresStore(db.example:5433/shop, default)"
        store.close()

    def test_options_of_libpq_are_passed_on(self):
        server = parse_server(
            "postgresql://ada:p%40ss@db/shop?sslmode=verify-full&sslrootcert=/ca.pem", "URL"
        )
        assert server.parameters == {
            "fallback_application_name": "sojourn",
            "client_encoding": "UTF8",
            "host": "db",
            "user": "ada",
            "password": "p@ss",
            "dbname": "shop",
            "sslmode": "verify-full",
            "sslrootcert": "/ca.pem",
        }

    def test_a_plus_sign_is_kept(self, postgresql):
        """A password may contain one, and libpq does not decode it as a space."""
        store = open_url(f"{postgresql.url}?application_name=a+b")
        run(store.load(bytes(16)))
        names = postgresql.query("SELECT application_name FROM pg_stat_activity")
        assert ("a+b",) in names
        store.close()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ("shema=x", "Did you mean 'schema'"),
            ("durability=fast", "durability expects 'durable' or 'relaxed', found 'fast'"),
            ("prepare_threshold=many", "prepare_threshold expects a number, or 'none'"),
            ("schema=", "schema expects the name of a schema"),
            ("schema=a%00b", "schema expects the name of a schema"),
            ("sslmod=require", "Did you mean 'sslmode'"),
        ],
    )
    def test_an_invalid_option_is_explained(self, options, text):
        with pytest.raises(ConfigurationError) as caught:
            open_url(f"postgresql://ada:secret@db/shop?{options}")
        assert text in str(caught.value)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://ada:se#cret@db/shop",
            "postgresql://ada:se%zzcret@db/shop",
            "postgresql://ada:se/cret@db/shop",
            "postgresql://ada:se?cret@db/shop",
            "postgresql://ada:se?cret=@db/shop",
            "postgresql://ada:se@cret@db/shop",
            "postgresql://ada:secret@db:port/shop",
        ],
    )
    def test_the_error_of_an_invalid_url_contains_no_password(self, url):
        """A18."""
        with pytest.raises((ConfigurationError, StoreUnavailable)) as caught:
            run(open_url(url).load(bytes(16)))
        assert "cret" not in str(caught.value)
        assert "cret" not in repr(caught.value.__cause__)

    def test_the_error_of_an_invalid_listen_url_contains_no_password(self):
        """A18."""
        with pytest.raises(ConfigurationError, match="listen_url") as caught:
            open_url("postgresql://db/shop?listen_url=postgresql://ada:sec%25zzret@db/shop")
        assert "zzret" not in str(caught.value)

    @pytest.mark.parametrize(
        "listen_url",
        [
            "postgresql%3A%2F%2Fada%3Asecret%40db%2Fshop",
            "postgresql%3A//ada%3Asecret%40db/shop",
            "postgresql://ada:secret@db/shop",
            "postgresql://ada:se&cret@db/shop",
            "postgresql://ada:se&cret=@db/shop",
            "postgresql://db/shop%3Fpassword%3Dsecret",
            "host%3Ddb%20password%3Dsecret",
        ],
    )
    def test_an_error_of_another_option_contains_no_password_of_listen_url(self, listen_url):
        """A18: the message quotes the URL."""
        with pytest.raises(ConfigurationError) as caught:
            open_url(f"postgresql://db/shop?listen_url={listen_url}&shema=x")
        assert "cret" not in str(caught.value)
        assert "postgresql://db/shop?listen_url=***" in str(caught.value)

    def test_an_invalid_durability_is_refused_for_a_pool(self):
        with pytest.raises(ConfigurationError, match="expects 'durable' or 'relaxed'"):
            PostgresStore(pool=Server({"host": "db"}), durability="fast")

    def test_an_error_of_the_server_contains_no_password(self, postgresql):
        """A18: the database is unknown; the message names it, and the user."""
        url = postgresql.url.replace("postgres@", "ada:secret@").replace("/postgres", "/missing")
        store = open_url(url)
        with pytest.raises(StoreUnavailable) as caught:
            run(store.load(bytes(16)))
        assert "missing" in str(caught.value) or "ada" in str(caught.value)
        assert "secret" not in f"{caught.value!r} {store!r} {caught.value.__cause__!r}"
        store.close()


class TestHosts:
    def test_each_host_of_a_url_is_one_attempt(self):
        server = parse_server("postgresql://ada@one:1,two:2/shop", "URL")
        attempts = server.attempts()
        assert [(each["host"], each["port"]) for each in attempts] == [("one", "1"), ("two", "2")]
        assert {each["target_session_attrs"] for each in attempts} == {"read-write"}
        assert server.name == "one,two:1,2/shop"
        primary = server.parameters_of_primary()
        assert (primary["host"], primary["target_session_attrs"]) == ("one,two", "read-write")

    def test_a_url_may_name_another_kind_of_server(self):
        server = parse_server("postgresql://one,two/shop?target_session_attrs=any", "URL")
        for parameters in (*server.attempts(), server.parameters_of_primary()):
            assert parameters["target_session_attrs"] == "any"

    def test_one_port_applies_to_all_hosts(self):
        server = parse_server("postgresql://one,two/shop?port=7", "URL")
        assert [each["port"] for each in server.attempts()] == ["7", "7"]

    def test_a_single_host_may_be_a_replica(self):
        server = parse_server("postgresql://one/shop", "URL")
        assert server.attempts() == [server.parameters_of_primary()] == [server.parameters]

    def test_hosts_in_random_order_are_all_tried(self):
        server = parse_server("postgresql://a,b,c/shop?load_balance_hosts=random", "URL")
        assert {each["host"] for each in server.attempts()} == {"a", "b", "c"}

    def test_the_second_host_is_used_if_the_first_does_not_answer(self, postgresql):
        """S12: the first one uses only its share of the time."""
        address = postgresql.url.partition("@")[2].partition("/")[0]
        store = open_url(f"postgresql://postgres@127.0.0.1:1,{address}/postgres")
        assert run(store.load(bytes(16))) is None
        store.close()

"""Session: the mapping that a handler uses records accesses and changes, and shows no secret."""

import copy
import json
import pickle
from collections import OrderedDict, UserList
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import msgspec
import pytest

from sojourn._core.working_copy import CookieChange, WorkingCopy
from sojourn.errors import ConfigurationError, InsecureTransport, NotSerializable, ResponseStarted
from sojourn.events import Rejected
from sojourn.record import Record
from sojourn.session import Session, create_session
from sojourn.testing.clock import START
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import Browser, World, end_of_request

pytestmark = pytest.mark.anyio


async def loaded_session(**data):
    world = World()
    ticket = await world.create(**(data or {"seed": "seed"}))
    return world, ticket, await world.load(ticket)


ACCESSES = {
    "getitem": lambda s: s["a"],
    "get": lambda s: s.get("a"),
    "in": lambda s: "a" in s,
    "len": len,
    "bool": bool,
    "iter": list,
    "keys": lambda s: list(s.keys()),
    "items": lambda s: list(s.items()),
    "values": lambda s: list(s.values()),
    "repr": repr,
    "str": str,
    "dict": dict,
    "setdefault": lambda s: s.setdefault("a", 1),
    "state": lambda s: s.state,
    "flashes": lambda s: s.flashes(),
    "id": lambda s: s.id,
    "new": lambda s: s.new,
    "created_at": lambda s: s.created_at,
    "seen_at": lambda s: s.seen_at,
    "expires_at": lambda s: s.expires_at,
    "labels": lambda s: s.labels,
    "set": lambda s: s.__setitem__("b", 1),
    "del": lambda s: s.__delitem__("a"),
    "pop": lambda s: s.pop("zzz", None),
    "update": lambda s: s.update(b=1),
    "clear": lambda s: s.clear(),
    "copy": lambda s: s.copy(),
    "equal": lambda s: s == {},
    "or": lambda s: s | {},
    "reversed": lambda s: list(reversed(s)),
    "ior": lambda s: s.__ior__({"b": 1}),
    "popitem": lambda s: s.popitem(),
    "discard": lambda s: s.discard("tags", 1),
    "destroy": lambda s: s.destroy(),
    "exclusive": lambda s: s.exclusive(),
}


class TestAccess:
    @pytest.mark.parametrize("name", ACCESSES)
    async def test_every_access_is_recorded(self, name):
        """A13, B-2."""
        _, _, session = await loaded_session(a=1)
        assert not copy_of(session).accessed
        ACCESSES[name](session)
        assert copy_of(session).accessed

    @pytest.mark.parametrize(
        "name", ["getitem", "get", "in", "len", "iter", "state", "set", "repr"]
    )
    async def test_an_access_over_an_insecure_transport_is_refused(self, name):
        """NIST SESS-13: and it is recorded as an access."""
        world = World()
        session = await world.load(None)
        copy_of(session).transport_error = InsecureTransport("http")
        with pytest.raises(InsecureTransport):
            ACCESSES[name](session)
        assert copy_of(session).accessed

    async def test_load_and_commit_are_not_accesses(self):
        """A1: Vary is sent only if the handler accessed the session."""
        _, _, session = await loaded_session(a=1)
        await end_of_request(session)
        assert not copy_of(session).accessed


class TestMapping:
    async def test_a_session_is_a_mutable_mapping(self):
        _, _, session = await loaded_session(a=1)
        session["b"] = [2]
        assert dict(session) == {"a": 1, "b": [2]}
        assert session.pop("a") == 1
        assert session.pop("a", "gone") == "gone"
        assert session.popitem() == ("b", [2])
        assert not session
        assert len(session) == 0
        for act in (lambda: session["a"], lambda: session.__delitem__("a"), session.popitem):
            with pytest.raises(KeyError):
                act()
        assert session.get("a") is None
        assert session.get("a", 5) == 5
        assert session.setdefault("a", []) == []
        assert "a" in session
        assert 5 not in session

    async def test_a_mutable_default_of_get_is_not_stored(self):
        world, ticket, session = await loaded_session(a=1)
        session.get("list", []).append(1)
        await end_of_request(session)
        assert await world.data(ticket) == {"a": 1}

    async def test_a_session_equals_itself_and_not_another_session(self):
        _, _, session = await loaded_session()
        other = await World().load(None)
        assert session == session  # noqa: PLR0124 - that is the point
        assert session != other
        assert session != {}
        assert len({session, other}) == 2

    @pytest.mark.parametrize("key", [1, None, b"a", ("a",), True])
    async def test_a_key_that_is_not_a_string_is_refused(self, key):
        _, _, session = await loaded_session()
        for act in (
            lambda: session.__setitem__(key, 1),
            lambda: session.setdefault(key, 1),
            lambda: session.increment(key),
        ):
            with pytest.raises(TypeError, match="session keys are strings"):
                act()

    @pytest.mark.parametrize("key", ["\0", "\0lease", "\0flash"])
    async def test_reserved_keys_are_refused_and_hidden(self, key):
        _, _, session = await loaded_session(a=1)
        session.flash("hello")
        assert list(session) == ["a"]
        assert len(session) == 1
        with pytest.raises(ValueError, match="reserved"):
            session[key] = 1
        with pytest.raises(ValueError, match="reserved"):
            await session.aclaim(key)

    @pytest.mark.parametrize("key", ["\ud800", "a\udfff", "é\udc80"])
    async def test_a_key_with_a_lone_surrogate_is_refused_at_the_assignment(self, key):
        _, _, session = await loaded_session()
        with pytest.raises(ValueError, match="lone surrogate"):
            session[key] = 1

    async def test_any_other_string_is_a_valid_key(self):
        world, ticket, session = await loaded_session()
        for key in ("", " ", "é", "\U0001f600", "a\0b", "k" * 1_000):
            session[key] = key
        await end_of_request(session)
        assert all(key == value for key, value in (await world.data(ticket)).items())

    async def test_a_value_that_cannot_be_serialized_changes_nothing(self):
        world, ticket, session = await loaded_session(a=1)
        with pytest.raises(NotSerializable):
            session["a"] = object()
        with pytest.raises(NotSerializable):
            session.update(a=2, b=object())
        assert session["a"] == 2
        await end_of_request(session)
        assert await world.data(ticket) == {"a": 2}

    async def test_subclasses_of_dict_are_stored_as_dicts(self):
        """A2: such as OAuth tokens; later changes of the assigned object are stored too."""
        world, ticket, session = await loaded_session(a=1)
        token, scopes = OrderedDict(access="a"), UserList()
        session["token"] = token
        assert session.setdefault("old", OrderedDict(access="b")) == {"access": "b"}
        assert session.setdefault("token", OrderedDict()) == {"access": "a"}
        token["refresh"] = "c"
        for assign in (session.setdefault, session.__setitem__):
            with pytest.raises(NotSerializable, match="UserList"):
                assign("scopes", scopes)
            with pytest.raises(NotSerializable, match="object"):
                assign("scopes", [object()])
        await end_of_request(session)
        stored = await world.data(ticket)
        assert stored == {"a": 1, "token": {"access": "a", "refresh": "c"}, "old": {"access": "b"}}
        assert type(stored["token"]) is dict

    async def test_a_session_cannot_be_pickled(self):
        """A18: a pickle would contain the verifier."""
        _, _, session = await loaded_session()
        with pytest.raises(TypeError, match=r"pickle its content: session\.copy\(\)"):
            pickle.dumps(session)

    async def test_copies_are_plain_dicts(self):
        """A copy can be dumped as JSON; changes of it do not affect the session."""
        world, ticket, session = await loaded_session(a=1, cart={"apple": [1]}, tags={1})
        session["cart"]["apple"].append(2)
        session.flash("hidden")
        expected = {"a": 1, "cart": {"apple": [1, 2]}, "tags": {1}}
        for made in (session.copy(), copy.copy(session), copy.deepcopy(session)):
            assert type(made) is dict
            assert made == expected
            made["cart"]["apple"].append(3)
            made["b"] = 1
        assert session == expected
        del session["tags"]
        assert json.loads(json.dumps(session.copy())) == {"a": 1, "cart": {"apple": [1, 2]}}
        with pytest.raises(TypeError, match="Object of type Session is not JSON serializable"):
            json.dumps(session)
        await end_of_request(session)
        assert (await world.data(ticket))["cart"] == {"apple": [1, 2]}

    async def test_a_copy_of_a_value_that_cannot_be_serialized_raises(self):
        _, _, session = await loaded_session(cart={})
        session["cart"]["photo"] = object()
        with pytest.raises(NotSerializable, match="photo"):
            session.copy()

    async def test_a_session_equals_a_mapping_with_the_same_content(self):
        _, _, session = await loaded_session(a=1)
        assert session == {"a": 1}
        assert session == MappingProxyType({"a": 1})
        assert session != {"a": 2}
        assert session != [("a", 1)]
        assert session == {"a": 1}

    async def test_the_or_operator_merges_as_that_of_a_dict(self):
        _, _, session = await loaded_session(a=1)
        assert session | {"a": 2, "b": 3} == {"a": 2, "b": 3}
        assert {"a": 2, "b": 3} | session == {"a": 1, "b": 3}
        assert type(session | {}) is dict
        for act in (lambda: session | [], lambda: [] | session):
            with pytest.raises(TypeError):
                act()
        same = session
        session |= {"b": 2}
        session |= [("c", 3)]
        assert session is same
        assert session == {"a": 1, "b": 2, "c": 3}

    async def test_popitem_removes_the_newest_key_first(self):
        _, _, session = await loaded_session(a=1, b=2)
        session["c"] = 3
        session.flash("kept")
        assert list(reversed(session)) == ["c", "b", "a"]
        assert [session.popitem() for _ in range(3)] == [("c", 3), ("b", 2), ("a", 1)]
        with pytest.raises(KeyError, match="the session is empty"):
            session.popitem()
        assert session.flashes() == [("kept", "message")]

    async def test_update_setdefault_and_fromkeys_act_as_those_of_a_dict(self):
        _, _, session = await loaded_session(a=1)
        session.update({"b": 2}, c=3)
        session.update([("d", 4)])
        assert session == {"a": 1, "b": 2, "c": 3, "d": 4}
        assert session.setdefault("e") is None
        assert session["e"] is None
        assert session.fromkeys(["a", "b"], 0) == {"a": 0, "b": 0}
        assert type(session.fromkeys([])) is dict

    async def test_assigning_the_user_raises_and_names_login(self):
        """A24."""
        _, _, session = await loaded_session(a=1)
        with pytest.raises(AttributeError, match=r"call session\.login\(user\)"):
            session.user = "ada"
        session.login(17)
        assert session.user == "17"


class TestOperations:
    async def test_operations_are_committed(self):
        world, ticket, session = await loaded_session(n=1, log=[1], tags={1})
        assert session.increment("n") == 2
        assert session.increment("n", 2.5) == 4.5
        session.append("log", 2, 3)
        session.add("tags", 2, 3)
        session.discard("tags", 1, 99)
        await end_of_request(session)
        assert await world.data(ticket) == {"n": 4.5, "log": [1, 2, 3], "tags": {2, 3}}

    async def test_flashed_messages_are_shown_once_in_order(self):
        world, ticket, session = await loaded_session()
        assert session.flashes() == []
        session.flash("one")
        session.flash("two", "success")
        await end_of_request(session)
        session = await world.load(ticket)
        assert session.flashes() == [("one", "message"), ("two", "success")]
        assert session.flashes() == []
        await end_of_request(session)
        assert (await world.load(ticket)).flashes() == []

    @pytest.mark.parametrize("message", [(object(),), ("saved", object())])
    async def test_a_message_that_cannot_be_stored_is_refused_at_once(self, message):
        _, _, session = await loaded_session()
        with pytest.raises(NotSerializable, match=r"session\['flash'\]\[[01]\]") as caught:
            session.flash(*message)
        assert caught.value.type is object
        assert session.flashes() == []

    async def test_a_message_flashed_by_a_parallel_request_is_kept(self):
        world, ticket, session = await loaded_session()
        session.flash("one")
        await end_of_request(session)
        reader, writer = await world.load(ticket), await world.load(ticket)
        writer.flash("two")
        assert reader.flashes() == [("one", "message")]
        await end_of_request(writer)
        await end_of_request(reader)
        assert (await world.load(ticket)).flashes() == [("two", "message")]


class TestAttributes:
    async def test_times_are_datetimes_in_utc(self):
        world, _, session = await loaded_session(a=1)
        start = datetime.fromtimestamp(START / 1000, UTC)
        assert session.created_at == session.seen_at == start
        assert session.expires_at == start + timedelta(minutes=30)
        assert not session.new
        new = await world.load(None)
        assert new.new
        assert (new.created_at, new.seen_at, new.expires_at) == (None, None, None)
        assert dict(new.labels) == {}

    async def test_the_id_is_32_hex_digits_and_stays_the_same(self):
        world = World()
        session = await world.load(None)
        early = session.id
        assert len(early) == 32
        assert int(early, 16) >= 0
        session["a"] = 1
        await end_of_request(session)
        assert session.id == early

    async def test_labels_are_recorded_at_creation_and_read_only(self):
        world = World()
        ticket = await world.create(Browser(browser="Firefox", address="10.0.0.1"), a=1)
        session = await world.load(ticket, Browser(browser="Other"))
        assert dict(session.labels) == {"browser": "Firefox", "address": "10.0.0.1"}
        with pytest.raises(TypeError):
            session.labels["browser"] = "x"

    async def test_repr_contains_the_id_and_no_value(self):
        """A18."""
        _, ticket, session = await loaded_session(name="Ada Lovelace")
        assert repr(session) == f"<Session {ticket.session_id.hex()} with 1 keys>"
        assert str(session) == repr(session)
        assert f"{await World().load(None)!r}".endswith("with 0 keys, new>")
        assert ticket.verifier.hex() not in repr(session)

    async def test_a_session_without_limits_has_no_expires_at(self):
        world = World(absolute_timeout=None, timeout="7000000 weeks")
        session = await world.load(await world.create(a=1))
        assert session.expires_at is None


class TestResponseStarted:
    async def test_a_new_session_refuses_changes_after_the_response_started(self):
        """A11, W8."""
        world = World()
        session = await world.load(None)
        await end_of_request(session)
        for act in (
            lambda: session.__setitem__("a", 1),
            lambda: session.setdefault("a", 1),
            lambda: session.increment("a"),
            lambda: session.append("a", 1),
            lambda: session.add("a", 1),
            lambda: session.flash("a"),
            lambda: setattr(session.state, "a", 1),
        ):
            with pytest.raises(ResponseStarted, match="before the first byte"):
                act()
        assert session.get("a") is None
        assert world.store.calls == []

    async def test_a_stored_session_can_be_changed_after_the_response_started(self):
        """A11."""
        world, ticket, session = await loaded_session(a=1)
        await end_of_request(session)
        session["a"] = 2
        await end_of_request(session)
        assert await world.data(ticket) == {"a": 2}


def truncated(record):
    return Record.from_bytes(record.id, record.to_bytes()[:-1])


def session_of(world, record):
    engine = world.engine.engine
    return create_session(WorkingCopy(engine.context, record), engine)


async def test_a_damaged_record_is_an_empty_session_and_reported():
    """S9, B-21: no part of it is used; a write creates another session."""
    world, ticket, session = await loaded_session(a=1)
    damaged = session_of(world, truncated(copy_of(session).record))
    assert dict(damaged) == {}
    assert damaged.new
    assert "unreadable" in world.emitted(Rejected)[0].reason
    damaged["b"] = 2
    assert damaged.id != session.id
    await end_of_request(damaged)
    assert copy_of(damaged).cookie_change is CookieChange.SEND
    assert await world.data(ticket) == {"a": 1}


async def test_instants_after_the_year_9999_are_shown_as_its_end():
    """1.5.2, S9: a record whose times another program has changed."""
    world, _, session = await loaded_session(a=1)
    late = {"created_at": 2**60, "seen_at": 2**60, "authenticated_at": 2**63}
    record = msgspec.structs.replace(copy_of(session).record, absolute_at=2**64 - 1, **late)
    changed = session_of(world, record)
    instants = (changed.created_at, changed.seen_at, changed.authenticated_at)
    assert [each.year for each in instants] == [9999, 9999, 9999]
    assert changed.expires_at is None
    assert changed["a"] == 1


async def test_committing_a_damaged_record_that_was_not_read_writes_nothing():
    world = World(unconfirmed_timeout="1 minute")
    ticket = await world.create(a=1)
    record = await world.record(ticket)
    damaged = session_of(world, truncated(record))
    world.store.calls.clear()
    await end_of_request(damaged)
    assert world.store.calls == []


def test_sync_methods_under_an_event_loop_raise_and_name_their_async_twin():
    import asyncio

    async def main():
        _, _, session = await loaded_session(a=1)
        for act, twin in [
            (session.commit, "session.acommit()"),
            (session.refresh, "session.arefresh()"),
            (lambda: session.claim("a"), "session.aclaim()"),
            (session.exclusive().__enter__, "async with session.exclusive()"),
        ]:
            with pytest.raises(ConfigurationError) as caught:
                act()
            assert twin in str(caught.value)

    asyncio.run(main())


def test_a_session_has_no_public_attribute_besides_its_api():
    """A18: the working copy, with its verifier, is private to the session."""
    assert Session.__slots__ == ("_copy", "_engine")

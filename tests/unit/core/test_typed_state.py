"""Typed state: fields as attributes with defaults and types; unknown stored keys are kept."""

import copy
import dataclasses
import enum
import pickle
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

import msgspec
import pytest

from sojourn._core.operations import Merge
from sojourn._core.typed_state import StateSpec
from sojourn.errors import ConfigurationError, InvalidState, NotSerializable
from tests.support.working_copies import copy_of
from tests.unit.core.engine_harness import World, end_of_request

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Prefs(msgspec.Struct):
    theme: str = "light"
    sizes: list[int] = []


class Fixed(msgspec.Struct, frozen=True):
    name: str = "x"
    items: list[int] = []


@dataclass
class Address:
    street: str
    tags: set[str] = field(default_factory=set)


@dataclass
class Sets:
    plain: set[str] = field(default_factory=set)
    converted: set[Color] = field(default_factory=set)


@dataclass
class Person:
    children: list["Person"] = field(default_factory=list)


@dataclass
class Family:
    root: Person | None = None


@dataclass
class Shop:
    counter: Annotated[int, Merge.SUM] = 0
    name: str | None = None
    color: Color = Color.RED
    cart: dict[str, int] = field(default_factory=dict)
    prefs: Prefs = field(default_factory=Prefs)
    fixed: Fixed = Fixed()  # noqa: RUF009 - a default object is what this shows
    homes: list[Address] = field(default_factory=list)
    pair: tuple[int, ...] = (1, 2)
    when: datetime | None = None
    size: Annotated[int, msgspec.Meta(ge=0)] = 0
    mode: Literal["a", "b"] = "a"
    maybe: Prefs | None = None
    anything: Any = None
    shared: ClassVar[int] = 5


class Point(msgspec.Struct, frozen=True):
    x: int


class Tags(msgspec.Struct):
    tags: set[str] = msgspec.field(default_factory=set)
    colors: set[Color] = msgspec.field(default_factory=set)
    points: set[Point] = msgspec.field(default_factory=set)
    by_name: dict[str, set[int]] = {}
    pair: tuple[frozenset[int], ...] = ()


class Tagged(msgspec.Struct):
    tagged: Tags


class Sparse(msgspec.Struct, omit_defaults=True, rename="camel"):
    first_tags: set[str] = msgspec.field(default_factory=set)
    last_tags: set[str] = msgspec.field(default_factory=set)


class Bare(msgspec.Struct):
    sparse: Sparse = msgspec.field(default_factory=Sparse)


class Required(msgspec.Struct):
    user: str
    ids: frozenset[UUID] = frozenset()


class Older(msgspec.Struct):
    prefs: Prefs = msgspec.field(default_factory=Prefs)


class NewPrefs(msgspec.Struct):
    theme: str = "light"
    sizes: list[int] = []
    font: str = "serif"


class Newer(msgspec.Struct):
    prefs: NewPrefs = msgspec.field(default_factory=NewPrefs)


async def loaded_session(cls=Shop, **data):
    world = World(state=cls)
    ticket = await world.create(**data) if data else None
    return world, ticket, await world.load(ticket)


class TestDefaults:
    async def test_a_default_that_is_read_is_not_stored(self):
        """A1."""
        world, _, session = await loaded_session()
        state = session.state
        assert (state.counter, state.name, state.color, state.pair) == (0, None, Color.RED, (1, 2))
        assert (state.cart, state.homes, state.prefs, state.fixed) == ({}, [], Prefs(), Fixed())
        await end_of_request(session)
        assert world.store.calls == []
        assert session.new

    @pytest.mark.parametrize(
        ("change", "key", "stored"),
        [
            (lambda s: s.cart.update(a=1), "cart", {"a": 1}),
            (lambda s: s.prefs.sizes.append(3), "prefs", {"theme": "light", "sizes": [3]}),
            (lambda s: setattr(s.prefs, "theme", "dark"), "prefs", {"theme": "dark", "sizes": []}),
            (lambda s: s.fixed.items.append(3), "fixed", {"name": "x", "items": [3]}),
            (lambda s: s.homes.append(Address("A")), "homes", [{"street": "A", "tags": set()}]),
        ],
    )
    async def test_a_default_that_is_changed_in_place_is_stored(self, change, key, stored):
        world, _, session = await loaded_session(counter=1)
        change(session.state)
        assert key in session
        await end_of_request(session)
        assert (await world.memory.load(copy_of(session).session_id())).version == 2
        assert (await world.load(None)).state.cart == {}, "a default belongs to one visitor"
        assert session[key] == stored

    async def test_a_default_object_is_copied_for_each_session(self):
        """A16."""
        spec = dataclasses.make_dataclass(
            "Spec", [("prefs", Fixed, dataclasses.field(default=Fixed()))]
        )
        world = World(state=spec)
        (await world.load(None)).state.prefs.items.append(1)
        assert (await world.load(None)).state.prefs.items == []

    async def test_a_missing_value_without_a_default_raises_an_attribute_error(self):
        _, _, session = await loaded_session(Required)
        with pytest.raises(AttributeError, match="no value for 'user'"):
            _ = session.state.user
        assert not hasattr(session.state, "user")
        assert session.state.ids == frozenset()


class TestTypes:
    async def test_values_keep_their_types(self):
        world, ticket, session = await loaded_session(seed=1)
        state = session.state
        state.color, state.pair, state.when = Color.BLUE, (3, 4, 5), NOON
        state.prefs, state.homes = Prefs("dark"), [Address("B", {"x"})]
        state.mode, state.maybe, state.anything = "b", Prefs("m"), {"free": [1]}
        await end_of_request(session)
        later = (await world.load(ticket)).state
        assert (later.color, later.pair, later.when) == (
            Color.BLUE,
            (3, 4, 5),
            NOON,
        )
        assert (later.prefs, later.homes) == (Prefs("dark"), [Address("B", {"x"})])
        assert (later.mode, later.maybe, later.anything) == ("b", Prefs("m"), {"free": [1]})
        assert (await world.data(ticket))["color"] == "blue"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("counter", "text"), ("counter", True), ("counter", 1.5), ("name", 5), ("color", "x"),
            ("cart", {"a": "b"}), ("cart", [1]), ("prefs", {"theme": 5}), ("prefs", object()),
            ("homes", [Address(5)]), ("size", -1), ("mode", "c"), ("when", "2026"), ("pair", ["x"]),
            ("prefs", Prefs(theme=5)), ("homes", [object()]),
        ],
    )  # fmt: skip
    async def test_a_value_of_a_wrong_type_is_refused_at_the_assignment(self, name, value):
        _, _, session = await loaded_session(seed=1)
        with pytest.raises(InvalidState) as caught:
            setattr(session.state, name, value)
        assert caught.value.field == name
        assert f"session.state.{name}:" in str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert name not in session

    @pytest.mark.parametrize(
        ("name", "stored"),
        [("counter", "text"), ("prefs", [1]), ("color", "green"), ("homes", [{"street": 1}])],
    )
    async def test_an_invalid_stored_value_raises_when_it_is_read(self, name, stored):
        world = World()
        ticket = await world.create(**{name: stored})  # by a version without the class
        world.spec = StateSpec(Shop)
        session = await world.load(ticket, other_process=True)
        with pytest.raises(InvalidState) as caught:
            getattr(session.state, name)
        assert (caught.value.field, caught.value.found) == (name, type(stored))
        assert session[name] == stored
        delattr(session.state, name)
        assert getattr(session.state, name) == getattr(Shop(), name)

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("counter", "many", "Expected `int`, got `str` (found str)"),
            ("prefs", [1], "Expected `object`, got `array` (found list)"),
            ("prefs", Prefs(sizes=object()), "unsupported (found Prefs)"),
        ],
    )
    async def test_the_error_names_the_expected_and_the_found_type(self, name, value, text):
        _, _, session = await loaded_session(seed=1)
        with pytest.raises(InvalidState, match=re.escape(text)) as caught:
            setattr(session.state, name, value)
        assert caught.value.found is type(value)

    async def test_an_invalid_change_in_place_raises_at_the_commit(self):
        world, ticket, session = await loaded_session(prefs={"theme": "dark"})
        session.state.prefs.theme = 5
        with pytest.raises(InvalidState, match=r"session\.state\.prefs"):
            await end_of_request(session)
        assert (await world.data(ticket))["prefs"] == {"theme": "dark"}

    @pytest.mark.parametrize("start", [{}, {"cart": {"pear": 1}}])
    async def test_an_invalid_change_in_place_of_a_plain_field_raises_at_the_commit(self, start):
        """Otherwise each later read of the field would raise."""
        world, ticket, session = await loaded_session(seed=1, **start)
        session.state.cart["apple"] = "many"
        with pytest.raises(InvalidState, match=r"session\.state\.cart: Expected `int`, got `str`"):
            await end_of_request(session)
        assert await world.data(ticket) == {"seed": 1, **start}

    async def test_an_invalid_change_of_an_assigned_value_raises_at_the_commit(self):
        _, _, session = await loaded_session(seed=1)
        session.state.cart = cart = {"pear": 1}
        cart["apple"] = "many"
        with pytest.raises(InvalidState, match=r"session\.state\.cart: Expected `int`, got `str`"):
            await end_of_request(session)

    @pytest.mark.parametrize("name", ["set", "delete"])
    async def test_a_value_that_was_assigned_to_the_key_is_not_checked(self, name):
        """As without an access to the state: other versions of the class may be in use."""
        world, ticket, session = await loaded_session(cart={"pear": 1})
        assert session.state.cart == {"pear": 1}
        if name == "delete":
            del session["cart"]
        session["cart"] = cart = {}
        cart["apple"] = "many"
        await end_of_request(session)
        assert await world.data(ticket) == {"cart": {"apple": "many"}}

    @pytest.mark.parametrize("kind", [list, tuple, frozenset])
    @pytest.mark.parametrize(("name", "item"), [("plain", "a"), ("converted", Color.RED)])
    async def test_another_collection_is_no_set(self, name, item, kind):
        _, _, session = await loaded_session(Sets, seed=1)
        value = kind([item])
        with pytest.raises(InvalidState, match="Expected `set`, got `") as caught:
            setattr(session.state, name, value)
        assert caught.value.found is type(value)
        assert name not in session

    @pytest.mark.parametrize(
        ("name", "items"), [("plain", ["red", "blue"]), ("converted", [Color.RED, Color.BLUE])]
    )
    async def test_a_stored_list_is_read_as_the_set_that_the_class_declares(self, name, items):
        world, ticket, session = await loaded_session(Sets, **{name: ["red"]})
        assert getattr(session.state, name) == {items[0]}
        assert not copy_of(session).modified()
        getattr(session.state, name).add(items[1])
        assert getattr(session.state, name) == set(items)
        await end_of_request(session)
        assert await world.data(ticket) == {name: {"red", "blue"}}

    async def test_a_value_that_contains_itself_is_refused(self):
        """B-55."""
        _, _, session = await loaded_session(Family, seed=1)
        parent = Person()
        parent.children += [parent, parent]
        with pytest.raises(InvalidState, match="recursion depth"):
            session.state.root = parent

    async def test_an_invalid_value_of_another_request_raises_only_when_it_is_read(self):
        """The commit that met it succeeds."""
        world, ticket, session = await loaded_session(counter=1, prefs={"theme": "dark"})
        assert session.state.prefs.theme == "dark"
        session["counter"] = 2
        await world.concurrent_write(ticket, prefs=[1])
        await end_of_request(session)
        assert await world.data(ticket) == {"counter": 2, "prefs": [1]}
        with pytest.raises(InvalidState):
            _ = session.state.prefs

    async def test_an_unknown_field_raises_an_attribute_error_that_lists_the_fields(self):
        _, _, session = await loaded_session()
        for act in (
            lambda: session.state.nope,
            lambda: setattr(session.state, "nope", 1),
            lambda: delattr(session.state, "nope"),
        ):
            with pytest.raises(
                AttributeError, match="Shop has no field 'nope'; it has counter, name, c"
            ):
                act()

    async def test_a_field_and_the_key_of_its_name_have_the_same_value(self):
        _, _, session = await loaded_session()
        session["counter"] = 5
        assert session.state.counter == 5
        session.state.cart["a"] = 1
        session["cart"]["b"] = 2
        assert session.state.cart == session["cart"] == {"a": 1, "b": 2}
        assert session.state.cart is session["cart"]

    async def test_changes_of_the_typed_and_the_plain_object_of_one_key_are_shared(self):
        world, ticket, session = await loaded_session(prefs={"theme": "dark", "sizes": [1]})
        typed, plain = session.state.prefs, session["prefs"]
        typed.sizes.append(2)
        assert session["prefs"] is plain
        assert plain == {"theme": "dark", "sizes": [1, 2]}
        plain["theme"] = "light"
        assert session.state.prefs is typed
        assert typed == Prefs("light", [1, 2])
        await end_of_request(session)
        assert (await world.data(ticket))["prefs"] == {"theme": "light", "sizes": [1, 2]}


class TestMerging:
    async def test_a_declared_merge_adds_parallel_increments(self):
        world, ticket, session = await loaded_session(counter=1)
        session.state.counter += 1
        other = await world.load(ticket, other_process=True)
        other.state.counter += 5
        await end_of_request(other)
        await end_of_request(session)
        assert session.state.counter == 7

    async def test_objects_keep_their_identity_after_a_conflict(self):
        world, ticket, session = await loaded_session(
            prefs={"theme": "dark", "sizes": [1]}, fixed={"name": "x", "items": [1]}
        )
        prefs, fixed, sizes = session.state.prefs, session.state.fixed, session.state.prefs.sizes
        sizes.append(2)
        await world.concurrent_write(ticket, prefs={"theme": "blue", "sizes": [1]})
        await end_of_request(session)
        assert session.state.prefs is prefs
        assert prefs == Prefs("blue", [1, 2])
        assert prefs.sizes is sizes
        sizes.append(3)
        fixed.items.append(2)
        await end_of_request(session)
        data = await world.data(ticket)
        assert data["prefs"] == {"theme": "blue", "sizes": [1, 2, 3]}
        assert data["fixed"] == {"name": "x", "items": [1, 2]}

    async def test_sets_inside_objects_are_merged_by_member(self):
        """A6: msgspec alone would encode them as lists whose order differs by process."""
        world, ticket, session = await loaded_session(homes=[{"street": "A", "tags": {"x", "y"}}])
        tags = session.state.homes[0].tags
        tags.add("z")
        tags.discard("x")
        other = await world.load(ticket, other_process=True)
        session.state.homes.append(Address("B"))
        other.state.homes[0].tags.add("o")
        await end_of_request(other)
        assert (await world.data(ticket))["homes"] == [{"street": "A", "tags": {"x", "y", "o"}}]
        session.state.prefs.sizes.append(1)
        await end_of_request(session)

    async def test_a_set_field_of_an_object_is_merged_by_member(self):
        world, ticket, session = await loaded_session(
            Tagged, tagged={"tags": {"x", "y"}, "colors": {"red"}}
        )
        session.state.tagged.tags.add("z")
        session.state.tagged.colors.add(Color.BLUE)
        other = await world.load(ticket, other_process=True)
        other.state.tagged.tags.discard("x")
        await end_of_request(other)
        await end_of_request(session)
        assert await world.data(ticket) == {
            "tagged": {"tags": {"y", "z"}, "colors": {"red", "blue"}}
        }
        assert session.state.tagged.colors == {Color.RED, Color.BLUE}
        session.state.tagged.points.add(Point(1))
        session.state.tagged.by_name["a"] = {1}
        session.state.tagged.pair = (frozenset({1}),)
        await end_of_request(session)
        stored = (await world.data(ticket))["tagged"]
        assert (stored["points"], stored["by_name"], stored["pair"]) == (
            [{"x": 1}],
            {"a": {1}},
            [frozenset({1})],
        )
        assert type(stored["pair"][0]) is frozenset
        assert (await world.load(ticket)).state.tagged == session.state.tagged

    async def test_a_struct_can_rename_and_omit_its_fields(self):
        world, ticket, session = await loaded_session(Bare, seed=1)
        session.state.sparse.last_tags.add("x")
        await end_of_request(session)
        assert (await world.data(ticket))["sparse"] == {"lastTags": {"x"}}
        assert (await world.load(ticket)).state.sparse == Sparse(last_tags={"x"})

    async def test_assigning_the_same_enum_member_overwrites_a_parallel_change(self):
        """A6: the later commit wins, although the assigned object is the stored one."""
        world, ticket, session = await loaded_session(color="red")
        assert session.state.color is Color.RED
        session.state.color = Color.RED
        await world.concurrent_write(ticket, color="blue")
        await end_of_request(session)
        assert (await world.data(ticket))["color"] == "red"

    async def test_assigning_a_held_object_keeps_parallel_changes(self):
        world, ticket, session = await loaded_session(prefs={"theme": "dark", "sizes": []})
        prefs = session.state.prefs
        prefs.sizes.append(1)
        session.state.prefs = prefs
        await world.concurrent_write(ticket, prefs={"theme": "blue", "sizes": []})
        await end_of_request(session)
        assert (await world.data(ticket))["prefs"] == {"theme": "blue", "sizes": [1]}


class TestRollingDeployment:
    """Processes with an older and a newer class run at once."""

    async def test_reading_data_of_a_newer_class_writes_nothing(self):
        """A3: unknown keys are kept, missing ones are not added."""
        stored = {"theme": "dark", "sizes": [], "font": "mono"}
        world, ticket, session = await loaded_session(Older, prefs=stored, beside=1)
        assert session.state.prefs == Prefs("dark")
        await end_of_request(session)
        assert (await world.record(ticket)).version == 1

    async def test_changing_data_of_a_newer_class_keeps_unknown_keys(self):
        stored = {"theme": "dark", "sizes": [], "font": "mono"}
        world, ticket, session = await loaded_session(Older, prefs=stored, beside=1)
        session.state.prefs.sizes.append(1)
        await end_of_request(session)
        assert await world.data(ticket) == {
            "prefs": {"theme": "dark", "sizes": [1], "font": "mono"},
            "beside": 1,
        }

    async def test_reading_data_of_an_older_class_writes_nothing(self):
        world, ticket, session = await loaded_session(Newer, prefs={"theme": "dark"})
        assert session.state.prefs == NewPrefs("dark")
        await end_of_request(session)
        assert (await world.record(ticket)).version == 1


class TestUntyped:
    async def test_every_key_is_an_attribute(self):
        _, _, session = await loaded_session(None)
        session.state.counter = 1
        session.state.counter += 1
        assert session["counter"] == 2
        assert session.state.counter == 2
        assert dir(session.state) == ["counter"]
        del session.state.counter
        assert "counter" not in session
        for act in (lambda: session.state.counter, lambda: delattr(session.state, "counter")):
            with pytest.raises(AttributeError, match="no value for 'counter'"):
                act()
        with pytest.raises(NotSerializable):
            session.state.x = object()

    async def test_a_reserved_key_is_refused(self):
        _, _, session = await loaded_session(None)
        with pytest.raises(ValueError, match="reserved"):
            setattr(session.state, "\0lease", 1)


async def test_dir_lists_the_fields_and_repr_contains_no_value():
    """A18."""
    _, _, session = await loaded_session(name="Ada")
    assert dir(session.state) == sorted(f.name for f in dataclasses.fields(Shop))
    assert repr(session.state) == f"<state of session {session.id}>"
    assert "Ada" not in repr(session.state)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_state_cannot_be_copied_or_pickled(duplicate):
    """A18: a pickle would contain the verifier."""
    _, _, session = await loaded_session(name="Ada")
    with pytest.raises(TypeError, match=r"copy the content: session\.copy\(\)"):
        duplicate(session.state)


class Foreign:
    pass


@dataclass
class Unserializable:
    deep: dict[str, list[Foreign]]


@dataclass
class Unresolved:
    x: "Nowhere"  # noqa: F821 - that is the point


class Recursive(msgspec.Struct):
    children: list["Recursive"] = []


class Tree(msgspec.Struct):
    root: Recursive | None = None


class Contradiction(msgspec.Struct):
    x: Prefs | NewPrefs


class Hidden(msgspec.Struct):
    _copy: int = 0


class TestClasses:
    @pytest.mark.parametrize("cls", [dict, int, Shop(), "Shop", Foreign, enum.Enum])
    def test_a_class_of_another_kind_is_refused(self, cls):
        with pytest.raises(ConfigurationError, match=r"a msgspec\.Struct or a pydantic"):
            StateSpec(cls)

    @pytest.mark.parametrize(
        ("cls", "text"),
        [
            (Unserializable, "'deep' cannot be stored: <class .*Foreign"),
            (Unresolved, "at the top of a module"),
            (Contradiction, "'x' cannot be stored"),
            (Hidden, "uses the name '_copy'; rename the field"),
        ],
    )
    def test_a_field_that_cannot_be_stored_is_named_in_the_error(self, cls, text):
        with pytest.raises(ConfigurationError, match=text) as caught:
            StateSpec(cls)
        assert f"state={cls.__name__}" in str(caught.value)

    def test_a_type_can_be_recursive(self):
        assert not StateSpec(Tree).fields["root"].plain

    def test_merges_are_read_from_annotations(self):
        assert StateSpec(Shop).merges == {"counter": Merge.SUM}
        assert StateSpec(None).merges == {}

    def test_other_metadata_of_an_annotation_is_ignored(self):
        cls = dataclasses.make_dataclass("Odd", [("x", Annotated[int, {}, Merge.LAST])])
        assert StateSpec(cls).merges == {"x": Merge.LAST}

"""ChangeTracker: the keys of one session, read lazily, changed in place and rebased."""

import copy
import enum
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sojourn._core import changes, operations
from sojourn._core.changes import ChangeTracker
from sojourn._core.codec import decode, encode
from sojourn._core.operations import ABSENT, LEASE, Merge
from sojourn._core.reserved_keys import STATE_VERSION
from sojourn._core.state_upgrade import StateUpgrade
from sojourn.errors import InvalidState, NotSerializable


def pack(**values):
    return {key: encode(key, value) for key, value in values.items()}


def view_of(**values):
    return ChangeTracker(pack(**values), {})


class Whole(enum.IntEnum):
    THREE = 3


class Share(float):
    """A subclass, as NumPy's float64 is."""


@dataclass
class Box:
    """A typed value; the session stores its list."""

    items: list


class Boxes:
    """Converts between an object with items and its list."""

    def __init__(self, make=Box):
        self.make = make

    def from_stored(self, value):
        if not isinstance(value, list):
            raise InvalidState("cart", type(value), "expected a list")
        return self.make(items=value)

    def to_stored(self, value):
        return value.items


BOXES = Boxes()


class StructBox(msgspec.Struct):
    """A typed value that is a msgspec struct."""

    items: list


class ModelBox(BaseModel):
    """A typed value that is a pydantic model."""

    items: list


def commit(view, newer=None):
    """Commit as the engine does; replay the operations on `newer` data, if given."""
    view.modified()
    log, data = view.take_operations()
    if newer is not None:
        data = log.replay(newer)
    view.rebase(data)
    return unpack(data)


def unpack(data):
    return {key: decode(value) for key, value in data.items()}


class TestReading:
    def test_a_key_that_is_not_read_is_not_decoded(self):
        """Values are decoded lazily, key by key."""
        view = ChangeTracker({"good": encode("", 1), "damaged": b"\xc1"}, {})
        assert view.get("good") == 1
        assert "damaged" in view
        assert list(view) == ["good", "damaged"]
        assert not view.modified()
        assert view.take_operations()[1]["damaged"] == b"\xc1"

    def test_reading_a_value_is_not_a_change(self):
        """A3."""
        view = view_of(a=1, b={"x": [1, {2}]}, c=[1], d={1})
        for key in "abcde":
            view.get(key)
            view.get(key)
            assert (key in view) == (key != "e")
        assert not view.modified()

    def test_reading_a_typed_value_is_not_a_change(self):
        """A3."""
        view = view_of(cart=[1])
        assert view.get_typed("cart", BOXES) is view.get_typed("cart", BOXES)
        assert not view.modified()

    def test_stored_items_that_the_type_drops_are_not_a_change(self):
        """A3: another version of the class may store more items."""

        class Shorter(Boxes):
            def from_stored(self, value):
                return Box(value[:1])

        view, adapter = view_of(cart=[1, 2]), Shorter()
        typed = view.get_typed("cart", adapter)
        assert typed == Box([1])
        assert not view.modified()
        view.rebase(pack(cart=[3, 4]))
        assert typed == Box([3])
        assert not view.modified()

    def test_iteration_yields_keys_of_the_record_before_added_keys(self):
        view = view_of(a=1, b=2)
        view.set("c", 3)
        view.delete("a")
        view.set("b", 4)
        assert list(view) == ["b", "c"]
        view.set("a", 5)
        assert list(view) == ["a", "b", "c"]

    def test_reading_a_mutable_value_twice_returns_the_same_object(self):
        view = view_of(cart={"a": 1})
        assert view.get("cart") is view.get("cart")

    def test_is_tracked_compares_the_identity_of_the_object_and_its_key(self):
        view = view_of(cart=[1], other=[1])
        assert not view.is_tracked("cart", [1])
        cart = view.get("cart")
        view.get("other")
        assert view.is_tracked("cart", cart)
        assert not view.is_tracked("other", cart)
        assert not view.is_tracked("cart", [1])

    def test_get_replacement_finds_only_a_replacement_of_the_same_adapter(self):
        view = view_of(cart=[1])
        view.get_typed("cart", BOXES)
        assert view.get_replacement("cart", BOXES) is ABSENT
        replacement = view.track_replacement("cart", Box([2]), Boxes())
        assert view.get_replacement("cart", BOXES) is ABSENT
        own = view.track_replacement("cart", Box([3]), BOXES)
        assert view.get_replacement("cart", BOXES) is own
        assert own is not replacement


class TestChangesInPlace:
    @pytest.mark.parametrize(
        ("start", "change", "result"),
        [
            ({"a": 1}, lambda v: v.update(b=2), {"a": 1, "b": 2}),
            ({"a": [1]}, lambda v: v["a"].append(2), {"a": [1, 2]}),
            ({"a": {"b": {"c": 1}}}, lambda v: v["a"]["b"].pop("c"), {"a": {"b": {}}}),
            ([[1], [2]], lambda v: v[1].append(3), [[1], [2, 3]]),
            ([1, 2], lambda v: v.reverse(), [2, 1]),
            ({1}, lambda v: v.add(2), {1, 2}),
            ({1}, lambda v: v.discard(1), set()),
            ([1], lambda v: v.__setitem__(0, True), [True]),
            ({"a": 1}, lambda v: v.clear(), {}),
            ({"a": 1, "b": 2}, lambda v: v.update(a=v.pop("a")), {"b": 2, "a": 1}),
        ],
    )
    def test_a_change_in_place_is_detected_and_committed(self, start, change, result):
        view = view_of(key=start)
        change(view.get("key"))
        assert view.get("key") == result
        assert view.modified()
        assert commit(view) == {"key": result}
        assert not view.modified()

    def test_a_change_in_place_that_is_undone_is_not_a_change(self):
        view = view_of(cart=[1])
        view.get("cart").append(2)
        view.get("cart").pop()
        assert not view.modified()

    def test_a_change_inside_an_assigned_object_is_detected(self):
        view = view_of()
        cart, inner = {}, []
        view.set("cart", cart)
        cart["inner"] = inner
        inner.append(1)
        assert commit(view) == {"cart": {"inner": [1]}}
        inner.append(2)
        assert commit(view) == {"cart": {"inner": [1, 2]}}

    def test_a_change_of_one_object_under_two_keys_changes_both_keys(self):
        view = view_of(a=[1])
        view.set("b", view.get("a"))
        view.get("b").append(2)
        assert commit(view) == {"a": [1, 2], "b": [1, 2]}
        view.get("a").append(3)
        assert commit(view) == {"a": [1, 2, 3], "b": [1, 2, 3]}

    def test_a_value_that_cannot_be_serialized_is_refused_at_commit_with_its_path(self):
        view = view_of(cart={"items": []})
        view.get("cart")["items"].append(object())
        with pytest.raises(NotSerializable) as caught:
            view.modified()
        assert (caught.value.key, caught.value.path) == ("cart", "['items'][0]")
        view.get("cart")["items"].clear()
        assert not view.modified()

    def test_a_change_of_a_replaced_object_is_ignored(self):
        view = view_of(cart={"a": 1})
        old = view.get("cart")
        view.set("cart", {"b": 2})
        old["c"] = 3
        assert commit(view) == {"cart": {"b": 2}}

    def test_a_change_of_an_object_whose_key_was_deleted_is_ignored(self):
        view = view_of(cart={"a": 1})
        old = view.get("cart")
        view.delete("cart")
        old["c"] = 3
        assert commit(view) == {}

    def test_a_change_of_an_untracked_object_is_ignored(self):
        view = view_of(cart={"a": 1})
        old = view.get("cart")
        view.untrack("cart")
        old["c"] = 3
        assert not view.modified()


class TestAssignment:
    def test_assigning_the_same_object_again_keeps_parallel_changes(self):
        """Assigning a tracked object that was changed in place records only the change in place."""
        view = view_of(cart={"a": 1})
        cart = view.get("cart")
        cart["b"] = 2
        view.set("cart", cart)
        assert commit(view, pack(cart={"a": 1, "c": 3})) == {"cart": {"a": 1, "c": 3, "b": 2}}

    @pytest.mark.parametrize("kind", [Box, StructBox, ModelBox])
    def test_assigning_the_same_typed_object_again_keeps_parallel_changes(self, kind):
        """A6."""
        adapter = Boxes(kind)
        view = view_of(cart=[1])
        cart = view.get_typed("cart", adapter)
        cart.items.append(2)
        view.set("cart", cart, adapter)
        assert commit(view, pack(cart=[1, 9])) == {"cart": [1, 9, 2]}

    def test_assigning_a_plain_value_overwrites_a_parallel_change(self):
        """A6: the later commit of a plain key wins, even if it assigns the stored value."""
        view = view_of(name="Ada")
        view.set("name", "Ada")
        assert view.modified()
        assert commit(view, pack(name="Grace")) == {"name": "Ada"}

    def test_changes_of_an_assigned_copy_are_detected(self):
        view = view_of(cart={"a": [1]})
        copy = dict(view.get("cart"))
        view.set("cart", copy)
        copy["a"].append(2)
        assert commit(view) == {"cart": {"a": [1, 2]}}

    def test_assigning_a_value_that_cannot_be_serialized_changes_nothing(self):
        view = view_of(a=1)
        with pytest.raises(NotSerializable):
            view.set("a", object())
        with pytest.raises(NotSerializable):
            view.set_default("b", object())
        assert not view.modified()
        assert view.get("a") == 1

    @pytest.mark.parametrize("stored", [True, False])
    @pytest.mark.parametrize(
        "use",
        [
            lambda view: view.set("cart", view.states["cart"].objects[0].value),
            lambda view: view.modified(),
        ],
        ids=["set", "commit"],
    )
    def test_the_error_at_commit_names_the_key_of_a_value_that_cannot_be_serialized(
        self, use, stored
    ):
        view = view_of(cart=[]) if stored else view_of()
        view.set_default("cart", []).append(object())
        with pytest.raises(NotSerializable) as caught:
            use(view)
        assert (caught.value.key, caught.value.path) == ("cart", "[0]")

    @pytest.mark.parametrize("assign", [ChangeTracker.set, ChangeTracker.set_default])
    def test_the_error_at_assignment_names_the_key_of_a_value_that_cannot_be_serialized(
        self, assign
    ):
        with pytest.raises(NotSerializable) as caught:
            assign(view_of(), "cart", [object()])
        assert caught.value.key == "cart"

    @pytest.mark.parametrize("assign", [ChangeTracker.set, ChangeTracker.set_default])
    def test_a_key_with_merge_sum_accepts_numbers_only(self, assign):
        """A6."""
        view = ChangeTracker({}, {"n": Merge.SUM})
        with pytest.raises(TypeError, match=r"session\['n'\]"):
            assign(view, "n", "one")
        assert not view.modified()

    def test_a_subclass_of_dict_inserted_into_a_value_is_refused_at_commit(self):
        """The tracker does not see the insertion, so the error names the path."""
        view = view_of(cart={"apple": {}})
        view.get("cart")["apple"]["sizes"] = OrderedDict(large=1)
        with pytest.raises(
            NotSerializable, match=r"session\['cart'\]\['apple'\]\['sizes'\]"
        ) as error:
            view.modified()
        assert (error.value.path, error.value.type) == ("['apple']['sizes']", OrderedDict)

    @pytest.mark.parametrize(
        ("merge", "before", "here", "there", "result"),
        [
            (Merge.SUM, 5, 6, 8, 9),
            (Merge.DICT, {}, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}),
            (Merge.UNION, [1], [1, 2], [1, 3], [1, 3, 2]),
            (Merge.APPEND, [1], [1, 2], [1, 3], [1, 3, 2]),
            (Merge.LAST, 5, 6, 8, 6),
        ],
    )
    def test_a_declared_merge_determines_how_an_assignment_is_replayed(
        self, merge, before, here, there, result
    ):
        view = ChangeTracker(pack(key=before), {"key": merge})
        view.set("key", copy.deepcopy(here))  # the tracker changes it in place
        assert commit(view, pack(key=there)) == {"key": result}

    def test_a_default_under_merge_sum_is_added(self):
        view = ChangeTracker({}, {"n": Merge.SUM})
        assert view.set_default("n", 1) == 1
        view.set("n", 3)
        assert commit(view, pack(n=10)) == {"n": 12}

    def test_an_assignment_under_dict_of_sum_adds_only_the_difference_to_earlier_operations(self):
        """A6: amounts that explicit operations have added are not added again."""
        view = ChangeTracker(pack(cart={"apple": 0}), {"cart": Merge.DICT_OF_SUM})
        for _ in range(3):
            view.increment("cart", 1, ("apple",))
        view.set("cart", {"apple": 10})
        assert commit(view, pack(cart={"apple": 100})) == {"cart": {"apple": 110}}

    def test_an_assignment_replaces_earlier_operations(self):
        view = view_of(log=[])
        for number in range(3):
            view.append("log", [number])
        view.set("log", "text")
        assert view.get("log") == "text"
        assert commit(view, pack(log=[9])) == {"log": "text"}

    def test_assignments_alternating_with_operations_are_recorded_as_one_operation(self):
        view = view_of(log=[])
        for number in range(3):
            view.append("log", [number])
            view.set("log", [])
        view.modified()
        log, _ = view.take_operations()
        assert len(log.keys["log"]) == 1

    def test_two_assignments_under_merge_sum_are_each_added_once(self):
        view = ChangeTracker(pack(n=0), {"n": Merge.SUM})
        view.set("n", view.get("n") + 1)
        view.set("n", view.get("n") + 1)
        assert commit(view, pack(n=10)) == {"n": 12}


class TestDefaults:
    def test_the_first_committed_default_wins_and_the_held_object_shows_it(self):
        view = view_of()
        mine = view.set_default("cart", {"mine": 1})
        assert commit(view, pack(cart={"theirs": 2})) == {"cart": {"theirs": 2}}
        assert mine == {"theirs": 2}
        mine["late"] = 3
        assert commit(view) == {"cart": {"theirs": 2, "late": 3}}

    def test_a_default_is_set_again_if_the_newer_record_lacks_the_key(self):
        view = view_of()
        view.set_default("n", 1)
        assert commit(view, pack(other=2)) == {"other": 2, "n": 1}

    def test_an_item_added_to_a_default_is_merged_into_the_newer_value(self):
        view = view_of()
        view.set_default("cart", {})["mine"] = 1
        assert commit(view, pack(cart={"theirs": 2})) == {"cart": {"theirs": 2, "mine": 1}}

    def test_a_default_for_a_key_that_is_present_changes_nothing(self):
        view = view_of(a=None)
        assert view.set_default("a", 1) is None
        assert not view.modified()

    def test_a_plain_default_yields_to_the_newer_value(self):
        view = view_of()
        assert view.set_default("n", 1) == 1
        assert commit(view, pack(n=2)) == {"n": 2}
        assert view.get("n") == 2

    def test_a_tracked_default_is_stored_only_after_it_was_changed(self):
        view = view_of()
        offered = view.track_default("cart", {}, None)
        assert view.get("cart") is ABSENT
        assert "cart" not in view
        assert list(view) == []
        assert view.track_default("cart", {}, None) is offered
        assert not view.modified()
        offered["a"] = 1
        assert "cart" in view
        assert list(view) == ["cart"]
        assert view.get("cart") is offered
        assert commit(view) == {"cart": {"a": 1}}
        offered["b"] = 2
        assert commit(view) == {"cart": {"a": 1, "b": 2}}

    def test_a_changed_tracked_default_is_merged_into_the_newer_value(self):
        view = view_of()
        view.track_default("tags", [], None).append("mine")
        assert commit(view, pack(tags=["theirs"])) == {"tags": ["theirs", "mine"]}

    def test_a_changed_tracked_default_is_stored_if_the_newer_record_lacks_the_key(self):
        view = view_of()
        view.track_default("cart", {"a": 1}, None)["b"] = 2
        assert view.get("cart") == {"a": 1, "b": 2}
        assert commit(view, pack(other=3)) == {"other": 3, "cart": {"a": 1, "b": 2}}

    def test_a_tracked_default_is_inserted_by_its_first_commit_only(self):
        """A6: if the key was deleted meanwhile, only the later changes are stored."""
        view = view_of()
        offered = view.track_default("cart", {}, None)
        offered["a"] = 1
        commit(view)
        offered["b"] = 2
        assert commit(view, pack(other=3)) == {"other": 3, "cart": {"b": 2}}

    def test_a_tracked_default_updated_by_a_rebase_stores_only_its_own_changes(self):
        """A6: if the key was deleted meanwhile, only the later changes are stored."""
        view = view_of()
        offered = view.track_default("cart", {}, None)
        view.rebase(pack(cart={"theirs": 1}))
        offered["mine"] = 2
        assert commit(view, pack(other=3)) == {"other": 3, "cart": {"mine": 2}}

    def test_a_rebase_updates_a_tracked_default_with_the_stored_value(self):
        view = view_of()
        offered = view.track_default("tags", [], None)
        view.rebase(pack(tags=["theirs"]))
        assert offered == ["theirs"]
        offered.append("mine")
        assert commit(view) == {"tags": ["theirs", "mine"]}

    def test_a_tracked_default_stays_tracked_if_a_rebase_stores_an_equal_value(self):
        view = view_of()
        offered = view.track_default("tags", [], None)
        view.rebase(pack(tags=[]))
        assert view.get("tags") == []
        offered.append("mine")
        assert commit(view) == {"tags": ["mine"]}

    def test_a_tracked_default_can_be_assigned(self):
        view = view_of()
        offered = view.track_default("tags", ["x"], None)
        view.set("tags", offered)
        assert view.modified()
        offered.append("y")
        assert commit(view) == {"tags": ["x", "y"]}

    def test_setting_another_default_updates_the_tracked_default(self):
        view = view_of()
        offered = view.track_default("tags", [], None)
        view.set_default("tags", ["x"])
        assert offered == ["x"]
        offered.append("y")
        assert commit(view) == {"tags": ["x", "y"]}


class TestReplacements:
    """Replacements of stored values that do not fit the type of the field."""

    def test_a_replacement_that_was_changed_is_merged_by_later_commits(self):
        """A6."""
        view = view_of(cart="text")
        replacement = view.track_replacement("cart", Box([]), BOXES)
        replacement.items.append(1)
        assert commit(view, pack(cart="other")) == {"cart": [1]}
        replacement.items.append(2)
        assert commit(view, pack(cart=[1, 9])) == {"cart": [1, 9, 2]}
        assert replacement == Box([1, 9, 2])

    def test_a_replacement_that_was_rebased_on_a_stored_value_is_merged(self):
        """A6."""
        view = view_of(cart="text")
        replacement = view.track_replacement("cart", Box([0]), BOXES)
        view.rebase(pack(cart=[1]))
        assert replacement == Box([1])
        replacement.items.append(2)
        assert commit(view, pack(cart=[1, 9])) == {"cart": [1, 9, 2]}

    def test_a_rebase_on_a_value_that_does_not_fit_the_type_updates_the_plain_object(self):
        view = view_of(cart={"a": 1})
        replacement = view.track_replacement("cart", Box([0]), BOXES)
        plain = view.get("cart")
        view.rebase(pack(cart={"b": 2}))
        assert plain == {"b": 2}
        assert view.get_replacement("cart", BOXES) is replacement

    def test_a_typed_object_is_not_returned_if_its_stored_value_no_longer_fits(self):
        view = view_of(cart=[1])
        cart = view.get_typed("cart", BOXES)
        view.rebase(pack(cart="text"))
        cart.items.append(2)
        assert not view.modified()
        with pytest.raises(InvalidState):
            view.get_typed("cart", BOXES)

    def test_a_change_of_the_typed_or_the_plain_object_updates_the_other(self):
        view = view_of(cart=[1])
        typed, plain = view.get_typed("cart", BOXES), view.get("cart")
        typed.items.append(2)
        assert view.get("cart") is plain
        assert plain == [1, 2]
        plain.append(3)
        assert view.modified()
        assert typed == Box([1, 2, 3])

    @pytest.mark.parametrize("stored", [{}, {"cart": []}])
    def test_changes_of_the_typed_and_the_plain_object_are_merged(self, stored):
        """A6."""
        view = view_of(**stored)
        if stored:
            typed, plain = view.get_typed("cart", BOXES), view.get("cart")
        else:
            typed, plain = (
                view.track_default("cart", Box([]), BOXES),
                view.track_default("cart", [], None),
            )
        typed.items.append(1)
        plain.append(2)
        assert view.get("cart") == [1, 2]
        assert typed == Box([1, 2])
        assert commit(view, pack(cart=[9])) == {"cart": [9, 1, 2]}


class TestExplicitOperations:
    def test_an_operation_updates_objects_that_were_returned_before(self):
        view = view_of(log=[{"n": 1}], tags={1})
        log, first, tags = view.get("log"), view.get("log")[0], view.get("tags")
        view.append("log", [{"n": 2}])
        view.add("tags", {2})
        view.discard("tags", {1, 9})
        assert log == [{"n": 1}, {"n": 2}]
        assert log[0] is first
        assert tags == {2}
        log[1]["n"] = 3
        assert commit(view) == {"log": [{"n": 1}, {"n": 3}], "tags": {2}}

    def test_an_operation_on_an_absent_key_starts_with_an_empty_value(self):
        view = view_of()
        assert view.increment("n", 2) == 2
        assert view.increment("n", -0.5) == 1.5
        view.append("log", [1])
        view.add("tags", {1})
        view.discard("none", {1})
        assert commit(view) == {"n": 1.5, "log": [1], "tags": {1}}

    def test_operations_are_replayed_on_a_newer_record(self):
        view = view_of(n=1, log=[1], tags={1})
        view.increment("n", 2)
        view.append("log", [2])
        view.add("tags", {2})
        view.discard("tags", {1})
        newer = pack(n=10, log=[1, 9], tags={1, 9})
        assert commit(view, newer) == {"n": 12, "log": [1, 9, 2], "tags": {2, 9}}
        assert view.get("log") == [1, 9, 2]

    def test_an_operation_keeps_earlier_changes_in_place(self):
        view = view_of(log=[1])
        view.get("log").append(2)
        view.append("log", [3])
        assert commit(view, pack(log=[1, 9])) == {"log": [1, 9, 2, 3]}

    def test_an_operation_updates_a_tracked_default(self):
        view = view_of()
        offered = view.track_default("log", [], None)
        view.append("log", [1])
        assert offered == [1]
        offered.append(2)
        assert commit(view) == {"log": [1, 2]}

    @pytest.mark.parametrize("start", [{}, {"n": 1}])
    @pytest.mark.parametrize("amount", [Whole.THREE, Share(0.5)])
    def test_incrementing_by_a_subclass_of_a_number_stores_a_plain_number(self, amount, start):
        """A6: NumPy's float64 is a float, and the codec refuses subclasses of float."""
        view = view_of(**start)
        plain = amount.value if isinstance(amount, enum.Enum) else float(amount)
        total = view.increment("n", amount)
        assert total == start.get("n", 0) + plain
        assert type(total) is type(plain)
        assert commit(view, {}) == {"n": plain}

    def test_an_operation_on_a_value_of_another_type_raises_and_changes_nothing(self):
        view = view_of(text="a", flag=True, n=1)
        for call in (
            lambda: view.increment("text", 1),
            lambda: view.increment("flag", 1),
            lambda: view.append("n", [1]),
            lambda: view.add("n", {1}),
            lambda: view.discard("n", {1}),
        ):
            with pytest.raises(TypeError, match="holds a value of type"):
                call()
        for amount in ("1", True, None):
            with pytest.raises(TypeError, match="expects an int or a float"):
                view.increment("n", amount)
        with pytest.raises(NotSerializable):
            view.append("log", [object()])
        assert not view.modified()


class TestClear:
    def test_clear_removes_every_key_except_the_lease(self):
        view = ChangeTracker({**pack(a=1), LEASE: b"l"}, {})
        view.set("b", 2)
        view.clear()
        assert list(view) == [LEASE]
        view.set("c", 3)
        view.modified()
        log, data = view.take_operations()
        assert data == {LEASE: b"l", **pack(c=3)}
        assert log.replay({**pack(x=1), LEASE: b"m"}) == {LEASE: b"m", **pack(c=3)}

    def test_clear_hides_keys_that_a_rebase_adds(self):
        view = view_of(a=1)
        view.clear()
        view.rebase(pack(a=1, b=2))
        assert list(view) == []
        assert view.modified()


class TestRebase:
    def test_a_rebase_keeps_the_identity_and_pending_changes_of_objects(self):
        view = view_of(cart={"a": [1]})
        cart, inner = view.get("cart"), view.get("cart")["a"]
        inner.append(2)
        view.rebase(pack(cart={"a": [1, 9], "b": 3}))
        assert view.get("cart") is cart
        assert cart == {"a": [1, 9, 2], "b": 3}
        assert cart["a"] is inner
        inner.append(4)
        assert commit(view) == {"cart": {"a": [1, 9, 2, 4], "b": 3}}

    def test_assignments_before_and_after_a_rebase_are_each_added_once(self):
        """A6: two changes are recorded; the parallel increment between them is in neither."""
        view = ChangeTracker(pack(n=0), {"n": Merge.SUM})
        view.set("n", 1)
        view.rebase(pack(n=10))
        assert view.get("n") == 11
        view.set("n", view.get("n") + 1)
        assert commit(view, pack(n=10)) == {"n": 12}

    def test_an_object_whose_key_a_rebase_removed_stores_only_its_later_changes(self):
        """Later changes of a held object are kept; the removed content stays removed."""
        view = view_of(cart={"a": 1})
        cart = view.get("cart")
        view.rebase({})
        assert view.get("cart") is ABSENT
        assert "cart" not in view
        assert cart == {"a": 1}
        assert not view.modified()
        cart["b"] = 2
        assert view.get("cart") is cart
        assert cart == {"b": 2}
        assert commit(view) == {"cart": {"b": 2}}
        cart["c"] = 3
        assert commit(view) == {"cart": {"b": 2, "c": 3}}

    def test_an_object_whose_key_a_rebase_removed_can_be_assigned_again(self):
        view = view_of(cart={"a": 1})
        cart = view.get("cart")
        view.rebase({})
        view.set("cart", cart)
        assert commit(view) == {"cart": {"a": 1}}

    def test_a_default_can_be_tracked_for_a_key_that_a_rebase_removed(self):
        view = view_of(cart={"a": 1})
        old = view.get("cart")
        view.rebase({})
        fresh = view.track_default("cart", {}, None)
        assert fresh == {}
        assert fresh is not old
        fresh["x"] = 1
        assert commit(view) == {"cart": {"x": 1}}

    def test_a_rebase_on_a_value_of_another_type_discards_changes_of_the_old_object(self):
        view = view_of(cart={"a": 1})
        cart = view.get("cart")
        view.rebase(pack(cart="text"))
        assert view.get("cart") == "text"
        cart["b"] = 2
        assert not view.modified()


class TestCommitInProgress:
    def test_changes_during_a_commit_belong_to_the_next_commit(self):
        view = view_of(n=0, cart={})
        cart = view.get("cart")
        view.increment("n", 1)
        cart["a"] = 1
        view.modified()
        _, data = view.take_operations()
        view.increment("n", 1)  # during the store call
        cart["b"] = 2
        view.rebase(data)
        assert view.get("n") == 2
        assert cart == {"a": 1, "b": 2}
        assert commit(view, pack(n=10, cart={"a": 1})) == {"n": 11, "cart": {"a": 1, "b": 2}}

    def test_committed_objects_without_references_are_not_compared_again(self):
        view = view_of(n=0)
        view.set("n", 1)
        commit(view)
        assert view.states == {}
        assert view.get("n") == 1

    def test_a_clear_during_a_commit_is_kept(self):
        view = view_of(n=0)
        view.set("n", 1)
        view.modified()
        _, data = view.take_operations()
        view.clear()
        view.rebase(data)
        assert list(view) == []
        assert view.modified()
        assert commit(view) == {}

    def test_operations_of_a_failed_commit_are_applied_once_by_the_next(self):
        view = view_of(n=0, cart={}, log=[])
        view.increment("n", 1)
        view.get("cart")["a"] = 1
        view.append("log", [1])
        view.modified()
        log, _ = view.take_operations()
        view.increment("n", 1)
        view.get("cart")["b"] = 2
        view.restore_operations(log)
        assert view.get("n") == 2
        assert commit(view, pack(n=10, cart={}, log=[0])) == {
            "n": 12,
            "cart": {"a": 1, "b": 2},
            "log": [0, 1],
        }

    def test_operations_of_a_failed_commit_are_kept_if_a_rebase_came_meanwhile(self):
        """The deadline of a WebSocket refreshes the session while its handler commits."""
        view = view_of(n=0, cart={})
        cart = view.get("cart")
        view.increment("n", 1)
        cart["a"] = 1
        view.modified()
        log, _ = view.take_operations()
        view.rebase(pack(n=10, cart={"z": 9}))
        view.restore_operations(log)
        assert view.get("n") == 11
        assert cart == {"z": 9, "a": 1}
        assert commit(view) == {"n": 11, "cart": {"z": 9, "a": 1}}

    def test_operations_of_a_failed_commit_are_kept_after_an_earlier_clear(self):
        view = view_of(a=1)
        view.clear()
        view.set("b", 2)
        view.modified()
        log, _ = view.take_operations()
        view.rebase(pack(a=1, c=3))
        view.restore_operations(log)
        assert list(view) == ["b"]
        assert commit(view, pack(a=1, c=3)) == {"b": 2}

    def test_operations_of_a_failed_commit_are_dropped_by_a_later_clear(self):
        view = view_of(n=0)
        view.increment("n", 1)
        view.modified()
        log, _ = view.take_operations()
        view.clear()
        view.restore_operations(log)
        assert commit(view, pack(n=10)) == {}


class TestUpgrades:
    """Data of an older state class with operations of a newer one."""

    UPGRADE = StateUpgrade(2, lambda version, data: {**data, "cart": [*data["cart"], version]})

    def upgraded(self, **values):
        view = view_of(**values)
        view.use_upgrade(self.UPGRADE)
        return view

    def test_a_commit_upgrades_older_data_before_it_replays_operations(self):
        """A6."""
        view = self.upgraded(cart=[9])
        assert view.get("cart") == [9, 0]
        view.append("cart", [1])
        newer = pack(cart=[8])
        assert commit(view, newer) == {"cart": [8, 0, 1], STATE_VERSION: 2}

    def test_a_commit_stores_the_version(self):
        view = self.upgraded(cart=[])
        view.set("n", 1)
        assert commit(view) == {"cart": [0], "n": 1, STATE_VERSION: 2}

    def test_a_commit_of_new_data_stores_the_version(self):
        view = ChangeTracker({}, {}, upgrade=self.UPGRADE)
        view.set("n", 1)
        assert commit(view) == {"n": 1, STATE_VERSION: 2}

    def test_a_rebase_upgrades_older_data_before_it_replays_pending_operations(self):
        view = self.upgraded(cart=[9])
        cart = view.get("cart")
        view.append("cart", [1])
        view.rebase(pack(cart=[8]))
        assert cart == view.get("cart") == [8, 0, 1]


KEYS = st.sampled_from("ab")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 3) | st.just({}) | st.just([])),
        st.tuples(st.just("put"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("increment"), KEYS, st.integers(1, 3)),
        st.tuples(st.just("default"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("clear"), KEYS, st.none()),
        st.tuples(st.just("commit"), KEYS, st.none()),
        st.tuples(st.just("fail"), KEYS, st.none()),
    ),
    max_size=12,
)


@given(STEPS)
def test_without_parallel_requests_a_tracker_equals_a_dict(steps):  # noqa: C901, PLR0912 - the model, case by case
    """After any sequence of changes, commits and failures it has the content of a dict."""
    view, model = view_of(a=1, b={"x": 1}), {"a": 1, "b": {"x": 1}}
    for what, key, value in steps:
        match what:
            case "set":
                view.set(key, decode(encode("", value)))
                model[key] = decode(encode("", value))
            case "put":
                for target in (view.get(key), model.get(key)):
                    if isinstance(target, dict):
                        target[str(value)] = value
                    elif isinstance(target, list):
                        target.append(value)
            case "delete" if key in model:
                view.delete(key)
                del model[key]
            case "increment" if isinstance(model.get(key, 0), int):
                view.increment(key, value)
                model[key] = model.get(key, 0) + value
            case "default":
                view.set_default(key, value)
                model.setdefault(key, value)
            case "clear":
                view.clear()
                model.clear()
            case "commit":
                assert commit(view) == model
            case "fail":
                view.modified()
                view.restore_operations(view.take_operations()[0])
        assert {k: view.get(k) for k in view} == model
    start = pack(a=1, b={"x": 1})
    if not any(what == "commit" for what, _, _ in steps):
        view.modified()
        assert unpack(view.take_operations()[0].replay(start)) == model
    else:
        assert commit(view) == model


class TestPaths:
    def test_operations_with_a_path_change_values_inside_dicts(self):
        """A6."""
        view = view_of(cart={"apple": 1})
        cart = view.get("cart")
        assert view.increment("cart", 2, ("apple",)) == 3
        assert view.increment("cart", 1, ("deep", "pear")) == 1
        view.append("cart", [1, 2], ("log",))
        view.add("cart", {1, 2}, ("tags",))
        view.discard("cart", {2, 3}, ("tags",))
        view.discard("cart", {2}, ("none", "none"))
        expected = {"apple": 3, "deep": {"pear": 1}, "log": [1, 2], "tags": {1}}
        assert cart == view.get("cart") == expected
        newer = {"apple": 10, "log": [0], "tags": {2, 3}}
        assert commit(view, pack(cart=newer)) == {
            "cart": {"apple": 12, "deep": {"pear": 1}, "log": [0, 1, 2], "tags": {1}}
        }
        assert cart == view.get("cart")

    def test_operations_with_a_path_create_absent_values(self):
        view = view_of()
        assert view.increment("n", 1, ("a", "b")) == 1
        view.append("l", [1], ("a",))
        view.add("s", {1}, ("a",))
        view.discard("d", {1}, ("a",))
        assert list(view) == ["n", "l", "s"]
        assert commit(view) == {"n": {"a": {"b": 1}}, "l": {"a": [1]}, "s": {"a": {1}}}

    @pytest.mark.parametrize(
        ("act", "text"),
        [
            (
                lambda v: v.increment("d", 1, ("t",)),
                r"\['d'\]\['t'\] .* str, expected a number",
            ),
            (lambda v: v.increment("d", 1, ("t", "x")), r"\['t'\] .* str, expected a dict"),
            (lambda v: v.append("n", [1], ("x",)), r"session\['n'\] .* int, expected a dict"),
            (lambda v: v.append("d", [1], ("t",)), "expected a list"),
            (lambda v: v.add("d", {1}, ("t",)), "expected a set"),
            (lambda v: v.discard("d", {1}, ("t",)), "expected a set"),
        ],
    )
    def test_an_operation_with_a_path_on_a_value_of_another_type_raises(self, act, text):
        view = view_of(d={"t": "x"}, n=1)
        with pytest.raises(TypeError, match=text):
            act(view)
        assert not view.modified()

    @pytest.mark.parametrize("path", [(object(),), ((1,),), ("a",) * 65])
    def test_a_path_that_cannot_be_stored_is_refused(self, path):
        """B-55."""
        view = view_of()
        for act in (
            lambda: view.increment("d", 1, path),
            lambda: view.append("d", [1], path),
        ):
            with pytest.raises(NotSerializable) as caught:
                act()
            assert caught.value.key == "d"
        assert not view.modified()

    def test_a_path_of_64_keys_is_accepted_and_one_of_65_is_refused(self):
        """B-55."""
        view = view_of()
        assert view.increment("d", 1, ("a",) * 64) == 1
        with pytest.raises(NotSerializable, match="a path of 65 keys, more than 64") as caught:
            view.increment("d", 1, ("a",) * 65)
        assert (caught.value.path, caught.value.type) == ("", dict)

    @pytest.mark.parametrize(
        "act", [ChangeTracker.append, ChangeTracker.add, ChangeTracker.discard]
    )
    def test_the_depth_limit_of_an_item_includes_its_path(self, act):
        """B-55: an item and a path that each fit the limit may exceed it together."""
        item = ()
        for _ in range(40):
            item = (item,)
        view = view_of()
        items = [item] if act is ChangeTracker.append else {item}
        act(view, "shallow", items, ("a",))
        with pytest.raises(NotSerializable) as caught:
            act(view, "deep", items, ("a",) * 40)
        assert caught.value.key == "deep"
        view.modified()
        assert list(view.take_operations()[0].keys) == ["shallow"]


class TestDiscard:
    def test_discarding_an_absent_member_is_replayed(self):
        """A6: a parallel request has added the member and committed first."""
        view = view_of(tags={"a"})
        view.discard("tags", {"b"})
        assert commit(view, pack(tags={"a", "b"})) == {"tags": {"a"}}

    def test_discarding_from_an_absent_key_is_replayed(self):
        """A6."""
        view = view_of(other=1)
        view.discard("tags", {"b"})
        assert "tags" not in view
        assert view.get("tags") is ABSENT
        assert view.modified()
        assert commit(view, pack(tags={"a", "b"})) == {"tags": {"a"}}
        assert view.get("tags") == {"a"}

    def test_discarding_from_an_absent_key_creates_no_key(self):
        view = view_of()
        view.discard("tags", {"b"})
        assert commit(view) == {}


class TestManyOperations:
    """Thousands of explicit operations on one value take linear time."""

    @pytest.mark.parametrize("read", [False, True])
    @pytest.mark.parametrize(
        ("value", "act"),
        [
            ([], lambda view, n: view.append("key", [{"n": n}])),
            (set(), lambda view, n: view.add("key", {n})),
            (set(range(4_000)), lambda view, n: view.discard("key", {n})),
            ({"log": []}, lambda view, n: view.append("key", [n], ("log",))),
            ({}, lambda view, n: view.increment("key", 1, (f"k{n % 2_000}",))),
            (
                {f"k{n}": 1 for n in range(2_000)},
                lambda view, n: view.increment("key", 1, (f"k{n % 2_000}",)),
            ),
        ],
        ids=[
            "append",
            "add",
            "discard",
            "append in a dict",
            "increment in a dict",
            "increment of stored numbers",
        ],
    )
    def test_many_operations_encode_each_item_a_constant_number_of_times(
        self, value, act, read, monkeypatch
    ):
        """A6, B-55: the number of encoded bytes grows linearly, not quadratically."""
        view = view_of(key=value)
        held = view.get("key") if read else None
        encoded = 0

        def count(*arguments, **options):
            nonlocal encoded
            result = encode(*arguments, **options)
            encoded += len(result)
            return result

        view.encoder = count
        for module in (changes, operations):
            monkeypatch.setattr(module, "encode", count)
        for number in range(4_000):
            act(view, number)
        assert view.modified()
        log, data = view.take_operations()
        assert log.replay(pack(key=value)) == data
        assert encoded < 20 * 64_000
        if read:
            assert held == decode(data["key"])

    @pytest.mark.parametrize(
        ("start", "path", "act", "in_place", "newer", "result"),
        [
            ([], (), ChangeTracker.append, lambda v: v.append(-1), [9], [9, 0, 1, -1, 2, 3]),
            ([], (), ChangeTracker.append, lambda v: v.pop(), [9], [0, 2, 3]),
            (set(), (), ChangeTracker.add, lambda v: v.add(-1), {9}, {9, 0, 1, -1, 2, 3}),
            (set(), (), ChangeTracker.add, lambda v: v.discard(1), {9}, {9, 0, 2, 3}),
            ({-1, 2}, (), ChangeTracker.discard, lambda v: v.clear(), {-1, 2, 8}, {8}),
            (
                {"a": []},
                ("a",),
                ChangeTracker.append,
                lambda v: v["a"].append(-1),
                {"a": [9]},
                {"a": [9, 0, 1, -1, 2, 3]},
            ),
            (
                {"a": [8]},
                ("a",),
                ChangeTracker.append,
                lambda v: v.pop("a"),
                {"a": [8, 9]},
                {"a": [2, 3]},
            ),
        ],
    )
    def test_a_change_in_place_between_operations_is_replayed_in_its_order(  # noqa: PLR0917 - a table
        self, start, path, act, in_place, newer, result
    ):
        """A6."""
        view = view_of(key=start)
        for number in range(4):
            if number == 2:
                in_place(view.get("key"))
            act(view, "key", [number] if act is ChangeTracker.append else {number}, path)
        assert commit(view, pack(key=newer)) == {"key": result}
        assert view.get("key") == result

    def test_a_set_changed_in_place_without_changing_its_length_is_stored(self):
        """A6: a change before the operation restores a set that another request removed."""
        view = view_of(key={1, 2})
        members = view.get("key")
        view.discard("key", {9})
        members ^= {1, 7}
        view.add("key", {5})
        assert commit(view, {}) == {"key": {2, 5, 7}}

    def test_a_number_that_is_assigned_in_place_between_increments_is_kept(self):
        """A6."""
        view = view_of(cart={"apple": 1, "pear": 1})
        cart = view.get("cart")
        view.increment("cart", 1, ("apple",))
        cart["apple"] = cart["pear"] = 10
        view.increment("cart", 1, ("apple",))
        view.increment("cart", 1, ("pear",))
        assert cart == {"apple": 11, "pear": 11}
        newer = pack(cart={"apple": 100, "pear": 100, "plum": 1})
        assert commit(view, newer) == {"cart": {"apple": 11, "pear": 11, "plum": 1}}

    def test_a_number_that_is_removed_in_place_between_increments_starts_at_zero(self):
        """A6."""
        view = ChangeTracker(pack(cart={"apple": 1}), {"cart": Merge.DICT_OF_SUM})
        cart = view.get("cart")
        view.increment("cart", 1, ("apple",))
        del cart["apple"]
        assert view.increment("cart", 1, ("apple",)) == 1
        assert commit(view, pack(cart={"apple": 100})) == {"cart": {"apple": 1}}

    def test_a_value_that_another_request_removed_is_created_by_the_operations(self):
        """A6: even if an operation that creates no value comes first."""
        view = view_of(cart={"n": 1, "tags": {1}})
        view.increment("cart", 1, ("n",))
        view.discard("cart", {1}, ("tags",))
        view.add("cart", {2}, ("tags",))
        view.add("cart", {3}, ("tags",))
        assert commit(view, pack(cart={})) == {"cart": {"n": 1, "tags": {2, 3}}}

    def test_an_item_that_cannot_be_serialized_changes_nothing(self):
        view = view_of(log=[1])
        view.append("log", [2])
        for wrong in ([object()], [[2, {3: object()}]]):
            with pytest.raises(NotSerializable):
                view.append("log", wrong)
        assert view.get("log") == [1, 2]
        assert commit(view) == {"log": [1, 2]}

    def test_a_replacement_tracked_between_operations_is_committed(self):
        class Numbers:
            def from_stored(self, value):
                raise InvalidState("log", list, "expected a dict")

            def to_stored(self, value):
                return value

        view = view_of(log=[1])
        for number in (2, 3):
            view.append("log", [number])
        replacement = view.track_replacement("log", {}, Numbers())
        view.append("log", [4])
        assert (view.get("log"), replacement) == ([1, 2, 3, 4], {})
        replacement["a"] = 1
        assert commit(view) == {"log": {"a": 1}}

    def test_a_value_in_a_dict_of_sums_that_is_not_a_number_is_refused(self):
        """A6: a change in place is refused at the commit."""
        view = ChangeTracker(pack(cart={"apple": 1}), {"cart": Merge.DICT_OF_SUM})
        with pytest.raises(TypeError, match=r"expected an int or a float, found str"):
            view.set("cart", {"apple": "1"})
        view.get("cart")["apple"] = "1"
        with pytest.raises(TypeError, match=r"session\['cart'\]\['apple'\].*found str"):
            view.modified()

    def test_an_operation_stores_copies_of_its_items(self):
        view = view_of()
        item = {"a": (1, 2)}
        for _ in range(2):
            view.append("log", [item])
        item["a"] = 5
        assert view.get("log") == [{"a": [1, 2]}] * 2

    def test_assignments_and_deletions_between_operations_apply_in_order(self):
        view = view_of(log=[1])
        for number in range(3):
            view.append("log", [number])
        view.set("log", [5])
        view.append("log", [6])
        assert view.get("log") == [5, 6]
        view.append("log", [7])
        view.delete("log")
        assert view.get("log") is ABSENT
        view.append("log", [8])
        view.append("log", [9])
        view.untrack("log")
        assert commit(view, pack(log=[0])) == {"log": [8, 9]}

    def test_a_rebase_keeps_deferred_operations(self):
        view = view_of(log=[1])
        for number in (2, 3):
            view.append("log", [number])
        view.rebase(pack(log=[0]))
        assert view.get("log") == [0, 2, 3]
        view.append("log", [4])
        assert commit(view, pack(log=[])) == {"log": [2, 3, 4]}


LISTS = st.sampled_from(["append", "extend in place", "item in place", "pop in place", "read"])
SETS = st.sampled_from(["add", "discard", "add in place", "remove in place", "read"])
DICTS = st.sampled_from(["increment", "append in", "set in place", "extend in", "delete in"])


EXPLICIT = {
    "append": lambda view, n: view.append("key", [n]),
    "add": lambda view, n: view.add("key", {n, n % 4}),
    "discard": lambda view, n: view.discard("key", {n % 4}),
    "increment": lambda view, n: view.increment("key", n, ("n",)),
    "append in": lambda view, n: view.append("key", [n], ("log",)),
}
IN_PLACE = {
    "extend in place": lambda value, n: value.append(n),
    "item in place": lambda value, n: value.__setitem__(slice(0, 1), [n]),
    "pop in place": lambda value, n: value.pop() if value else None,
    "add in place": lambda value, n: value.add(n),
    "remove in place": lambda value, n: value.discard(n % 4),
    "set in place": lambda value, n: value.__setitem__("n", n),
    "extend in": lambda value, n: value.setdefault("log", []).append(n),
    "delete in": lambda value, n: value.pop("n", None),
    "read": lambda value, n: None,
}


@pytest.mark.parametrize(
    ("names", "start", "newer"),
    [
        (LISTS, [0], [[], [0], [0, 7], [7]]),
        (SETS, {1, 2}, [set(), {1, 2}, {2, 3, 70}]),
        (DICTS, {"n": 1, "log": [0]}, [{"n": 5, "log": [0, 7]}, {"n": 1}, {"x": 1}]),
    ],
    ids=["list", "set", "dict"],
)
def test_deferred_operations_have_the_result_of_immediate_ones(names, start, newer):
    """A6: the recorded logs have the same effect on any newer value."""
    stored = [{}, *(pack(key=one) for one in newer)]

    @settings(max_examples=150, deadline=None)
    @given(st.lists(names, min_size=1, max_size=12))
    def check(program):
        results = []
        for can_defer in (changes._can_defer, lambda *_: False):
            view = view_of(key=start)
            for number, name in enumerate(program, 100):
                if name in EXPLICIT:
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(changes, "_can_defer", can_defer)
                        EXPLICIT[name](view, number)
                else:
                    IN_PLACE[name](view.get("key"), number)
            view.modified()
            log, data = view.take_operations()
            results.append([unpack(data), *(unpack(log.replay(one)) for one in stored)])
        assert results[0] == results[1]

    check()


class TestRestrictedValues:
    """Every way to write a value calls the encoder of the installation."""

    WRITES = {  # noqa: RUF012
        "set": lambda view: view.set("key", "refused"),
        "set_default": lambda view: view.set_default("key", "refused"),
        "increment": lambda view: view.increment("number", 1),
        "append": lambda view: view.append("list", ["refused"]),
        "add": lambda view: view.add("set", {"refused"}),
        "discard": lambda view: view.discard("set", {"refused"}),
        "in place": lambda view: (view.get("list").append("refused"), view.modified()),
    }

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_a_value_that_the_store_cannot_hold_is_refused(self, write):
        def encoder(key, value, *, depth=0):
            if value not in ([0], {0}):
                raise NotSerializable(key, "", type(value))
            return encode(key, value)

        view = ChangeTracker(pack(number=0, list=[0], set={0}), {}, encoder)
        with pytest.raises(NotSerializable):
            write(view)
        assert unpack(view.take_operations()[1]) == {"number": 0, "list": [0], "set": {0}}

    def test_the_sum_of_an_increment_is_passed_to_the_encoder(self):
        def encoder(key, value, *, depth=0):
            if value > 10:
                raise NotSerializable(key, "", type(value))
            return encode(key, value)

        view = ChangeTracker(pack(n=4), {}, encoder)
        assert view.increment("n", 6) == 10
        with pytest.raises(NotSerializable) as caught:
            view.increment("n", 1)
        assert caught.value.key == "n"
        assert view.get("n") == 10

    STORED = pack(cart=[1])
    STEPS = {  # noqa: RUF012
        "contains": ({}, lambda view: "cart" in view),
        "iterate": ({}, list),
        "iterate over the record": (STORED, list),
        "get": ({}, lambda view: view.get("cart")),
        "get typed": ({}, lambda view: view.get_typed("cart", BOXES)),
        "modified": ({}, lambda view: view.modified()),
        "set": (STORED, lambda view: view.set("cart", [2])),
    }

    @pytest.mark.parametrize(("data", "use"), STEPS.values(), ids=STEPS)
    @pytest.mark.parametrize("adapter", [None, BOXES])
    def test_the_encoder_receives_the_key_of_a_changed_default(self, data, use, adapter):
        view = ChangeTracker(data, {}, only_for("cart"))
        if data:
            view.delete("cart")
        offered = view.track_default("cart", [] if adapter is None else Box([]), adapter)
        (offered if adapter is None else offered.items).append(1)
        use(view)
        assert view.modified()

    @pytest.mark.parametrize(
        "use",
        [
            lambda view: view.get("cart").append(2),
            lambda view: view.get_typed("cart", BOXES).items.append(2),
            lambda view: view.set("cart", Box([2]), BOXES),
            lambda view: view.append("cart", [2]),
            lambda view: (view.append("cart", [2]), view.append("cart", [3])),
            lambda view: view.track_replacement("cart", Box([]), BOXES).items.append(2),
            lambda view: view.rebase(pack(cart=[1, 2])),
        ],
        ids=["get", "get_typed", "set", "append", "append twice", "track_replacement", "rebase"],
    )
    def test_the_encoder_receives_the_key_of_a_tracked_object(self, use):
        view = ChangeTracker(pack(cart=[1]), {}, only_for("cart"))
        view.get("cart")
        view.get_typed("cart", BOXES)
        use(view)
        view.modified()
        view.get("cart").append(4)
        assert view.get_typed("cart", BOXES).items[-1] == 4
        view.append("cart", [5])
        view.append("cart", [6])
        view.set("cart", [7])
        assert commit(view) == {"cart": [7]}

    def test_the_encoder_receives_the_key_of_a_default_that_is_set(self):
        view = ChangeTracker({}, {}, only_for("cart"))
        offered = view.track_default("cart", Box([]), BOXES)
        view.set_default("cart", [1])
        assert offered == Box([1])

    def test_the_encoder_receives_the_key_of_many_operations(self):
        view = ChangeTracker(pack(cart=[1]), {}, only_for("cart"))
        for number in (2, 3):
            view.append("cart", [number])
        view.set("cart", [4])
        assert commit(view) == {"cart": [4]}


def only_for(expected):
    """Return an encoder for values of one key."""

    def encoder(key, value, *, depth=0):
        assert key == expected
        return encode(key, value, depth=depth)

    return encoder

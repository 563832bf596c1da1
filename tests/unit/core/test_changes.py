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


def tracker_of(**values):
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


def commit(tracker, newer=None):
    """Commit as the engine does; replay the operations on `newer` data, if given."""
    tracker.modified()
    log, data = tracker.take_operations()
    if newer is not None:
        data = log.replay(newer)
    tracker.rebase(data)
    return unpack(data)


def unpack(data):
    return {key: decode(value) for key, value in data.items()}


class TestReading:
    def test_a_key_that_is_not_read_is_not_decoded(self):
        """Values are decoded lazily, key by key."""
        tracker = ChangeTracker({"good": encode("", 1), "damaged": b"\xc1"}, {})
        assert tracker.get("good") == 1
        assert "damaged" in tracker
        assert list(tracker) == ["good", "damaged"]
        assert not tracker.modified()
        assert tracker.take_operations()[1]["damaged"] == b"\xc1"

    def test_reading_a_value_is_not_a_change(self):
        """A3."""
        tracker = tracker_of(a=1, b={"x": [1, {2}]}, c=[1], d={1})
        for key in "abcde":
            tracker.get(key)
            tracker.get(key)
            assert (key in tracker) == (key != "e")
        assert not tracker.modified()

    def test_reading_a_typed_value_is_not_a_change(self):
        """A3."""
        tracker = tracker_of(cart=[1])
        assert tracker.get_typed("cart", BOXES) is tracker.get_typed("cart", BOXES)
        assert not tracker.modified()

    def test_stored_items_that_the_type_drops_are_not_a_change(self):
        """A3: another version of the class may store more items."""

        class Shorter(Boxes):
            def from_stored(self, value):
                return Box(value[:1])

        tracker, adapter = tracker_of(cart=[1, 2]), Shorter()
        typed = tracker.get_typed("cart", adapter)
        assert typed == Box([1])
        assert not tracker.modified()
        tracker.rebase(pack(cart=[3, 4]))
        assert typed == Box([3])
        assert not tracker.modified()

    def test_iteration_yields_keys_of_the_record_before_added_keys(self):
        tracker = tracker_of(a=1, b=2)
        tracker.set("c", 3)
        tracker.delete("a")
        tracker.set("b", 4)
        assert list(tracker) == ["b", "c"]
        tracker.set("a", 5)
        assert list(tracker) == ["a", "b", "c"]

    def test_reading_a_mutable_value_twice_returns_the_same_object(self):
        tracker = tracker_of(cart={"a": 1})
        assert tracker.get("cart") is tracker.get("cart")

    def test_is_tracked_compares_the_identity_of_the_object_and_its_key(self):
        tracker = tracker_of(cart=[1], other=[1])
        assert not tracker.is_tracked("cart", [1])
        cart = tracker.get("cart")
        tracker.get("other")
        assert tracker.is_tracked("cart", cart)
        assert not tracker.is_tracked("other", cart)
        assert not tracker.is_tracked("cart", [1])

    def test_get_replacement_finds_only_a_replacement_of_the_same_adapter(self):
        tracker = tracker_of(cart=[1])
        tracker.get_typed("cart", BOXES)
        assert tracker.get_replacement("cart", BOXES) is ABSENT
        replacement = tracker.track_replacement("cart", Box([2]), Boxes())
        assert tracker.get_replacement("cart", BOXES) is ABSENT
        own = tracker.track_replacement("cart", Box([3]), BOXES)
        assert tracker.get_replacement("cart", BOXES) is own
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
        tracker = tracker_of(key=start)
        change(tracker.get("key"))
        assert tracker.get("key") == result
        assert tracker.modified()
        assert commit(tracker) == {"key": result}
        assert not tracker.modified()

    def test_a_change_in_place_that_is_undone_is_not_a_change(self):
        tracker = tracker_of(cart=[1])
        tracker.get("cart").append(2)
        tracker.get("cart").pop()
        assert not tracker.modified()

    def test_a_change_inside_an_assigned_object_is_detected(self):
        tracker = tracker_of()
        cart, inner = {}, []
        tracker.set("cart", cart)
        cart["inner"] = inner
        inner.append(1)
        assert commit(tracker) == {"cart": {"inner": [1]}}
        inner.append(2)
        assert commit(tracker) == {"cart": {"inner": [1, 2]}}

    def test_a_change_of_one_object_under_two_keys_changes_both_keys(self):
        tracker = tracker_of(a=[1])
        tracker.set("b", tracker.get("a"))
        tracker.get("b").append(2)
        assert commit(tracker) == {"a": [1, 2], "b": [1, 2]}
        tracker.get("a").append(3)
        assert commit(tracker) == {"a": [1, 2, 3], "b": [1, 2, 3]}

    def test_a_value_that_cannot_be_serialized_is_refused_at_commit_with_its_path(self):
        tracker = tracker_of(cart={"items": []})
        tracker.get("cart")["items"].append(object())
        with pytest.raises(NotSerializable) as caught:
            tracker.modified()
        assert (caught.value.key, caught.value.path) == ("cart", "['items'][0]")
        tracker.get("cart")["items"].clear()
        assert not tracker.modified()

    def test_a_change_of_a_replaced_object_is_ignored(self):
        tracker = tracker_of(cart={"a": 1})
        old = tracker.get("cart")
        tracker.set("cart", {"b": 2})
        old["c"] = 3
        assert commit(tracker) == {"cart": {"b": 2}}

    def test_a_change_of_an_object_whose_key_was_deleted_is_ignored(self):
        tracker = tracker_of(cart={"a": 1})
        old = tracker.get("cart")
        tracker.delete("cart")
        old["c"] = 3
        assert commit(tracker) == {}

    def test_a_change_of_an_untracked_object_is_ignored(self):
        tracker = tracker_of(cart={"a": 1})
        old = tracker.get("cart")
        tracker.untrack("cart")
        old["c"] = 3
        assert not tracker.modified()


class TestAssignment:
    def test_assigning_the_same_object_again_keeps_parallel_changes(self):
        """Assigning a tracked object that was changed in place records only the change in place."""
        tracker = tracker_of(cart={"a": 1})
        cart = tracker.get("cart")
        cart["b"] = 2
        tracker.set("cart", cart)
        assert commit(tracker, pack(cart={"a": 1, "c": 3})) == {"cart": {"a": 1, "c": 3, "b": 2}}

    @pytest.mark.parametrize("kind", [Box, StructBox, ModelBox])
    def test_assigning_the_same_typed_object_again_keeps_parallel_changes(self, kind):
        """A6."""
        adapter = Boxes(kind)
        tracker = tracker_of(cart=[1])
        cart = tracker.get_typed("cart", adapter)
        cart.items.append(2)
        tracker.set("cart", cart, adapter)
        assert commit(tracker, pack(cart=[1, 9])) == {"cart": [1, 9, 2]}

    def test_assigning_a_plain_value_overwrites_a_parallel_change(self):
        """A6: the later commit of a plain key wins, even if it assigns the stored value."""
        tracker = tracker_of(name="Ada")
        tracker.set("name", "Ada")
        assert tracker.modified()
        assert commit(tracker, pack(name="Grace")) == {"name": "Ada"}

    def test_changes_of_an_assigned_copy_are_detected(self):
        tracker = tracker_of(cart={"a": [1]})
        copy = dict(tracker.get("cart"))
        tracker.set("cart", copy)
        copy["a"].append(2)
        assert commit(tracker) == {"cart": {"a": [1, 2]}}

    def test_assigning_a_value_that_cannot_be_serialized_changes_nothing(self):
        tracker = tracker_of(a=1)
        with pytest.raises(NotSerializable):
            tracker.set("a", object())
        with pytest.raises(NotSerializable):
            tracker.set_default("b", object())
        assert not tracker.modified()
        assert tracker.get("a") == 1

    @pytest.mark.parametrize("stored", [True, False])
    @pytest.mark.parametrize(
        "use",
        [
            lambda tracker: tracker.set("cart", tracker.states["cart"].objects[0].value),
            lambda tracker: tracker.modified(),
        ],
        ids=["set", "commit"],
    )
    def test_the_error_at_commit_names_the_key_of_a_value_that_cannot_be_serialized(
        self, use, stored
    ):
        tracker = tracker_of(cart=[]) if stored else tracker_of()
        tracker.set_default("cart", []).append(object())
        with pytest.raises(NotSerializable) as caught:
            use(tracker)
        assert (caught.value.key, caught.value.path) == ("cart", "[0]")

    @pytest.mark.parametrize("assign", [ChangeTracker.set, ChangeTracker.set_default])
    def test_the_error_at_assignment_names_the_key_of_a_value_that_cannot_be_serialized(
        self, assign
    ):
        with pytest.raises(NotSerializable) as caught:
            assign(tracker_of(), "cart", [object()])
        assert caught.value.key == "cart"

    @pytest.mark.parametrize("assign", [ChangeTracker.set, ChangeTracker.set_default])
    def test_a_key_with_merge_sum_accepts_numbers_only(self, assign):
        """A6."""
        tracker = ChangeTracker({}, {"n": Merge.SUM})
        with pytest.raises(TypeError, match=r"session\['n'\]"):
            assign(tracker, "n", "one")
        assert not tracker.modified()

    def test_a_subclass_of_dict_inserted_into_a_value_is_refused_at_commit(self):
        """The tracker does not see the insertion, so the error names the path."""
        tracker = tracker_of(cart={"apple": {}})
        tracker.get("cart")["apple"]["sizes"] = OrderedDict(large=1)
        with pytest.raises(
            NotSerializable, match=r"session\['cart'\]\['apple'\]\['sizes'\]"
        ) as error:
            tracker.modified()
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
        tracker = ChangeTracker(pack(key=before), {"key": merge})
        tracker.set("key", copy.deepcopy(here))  # the tracker changes it in place
        assert commit(tracker, pack(key=there)) == {"key": result}

    def test_a_default_under_merge_sum_is_added(self):
        tracker = ChangeTracker({}, {"n": Merge.SUM})
        assert tracker.set_default("n", 1) == 1
        tracker.set("n", 3)
        assert commit(tracker, pack(n=10)) == {"n": 12}

    def test_an_assignment_under_dict_of_sum_adds_only_the_difference_to_earlier_operations(self):
        """A6: amounts that explicit operations have added are not added again."""
        tracker = ChangeTracker(pack(cart={"apple": 0}), {"cart": Merge.DICT_OF_SUM})
        for _ in range(3):
            tracker.increment("cart", 1, ("apple",))
        tracker.set("cart", {"apple": 10})
        assert commit(tracker, pack(cart={"apple": 100})) == {"cart": {"apple": 110}}

    def test_an_assignment_replaces_earlier_operations(self):
        tracker = tracker_of(log=[])
        for number in range(3):
            tracker.append("log", [number])
        tracker.set("log", "text")
        assert tracker.get("log") == "text"
        assert commit(tracker, pack(log=[9])) == {"log": "text"}

    def test_assignments_alternating_with_operations_are_recorded_as_one_operation(self):
        tracker = tracker_of(log=[])
        for number in range(3):
            tracker.append("log", [number])
            tracker.set("log", [])
        tracker.modified()
        log, _ = tracker.take_operations()
        assert len(log.keys["log"]) == 1

    def test_two_assignments_under_merge_sum_are_each_added_once(self):
        tracker = ChangeTracker(pack(n=0), {"n": Merge.SUM})
        tracker.set("n", tracker.get("n") + 1)
        tracker.set("n", tracker.get("n") + 1)
        assert commit(tracker, pack(n=10)) == {"n": 12}


class TestDefaults:
    def test_the_first_committed_default_wins_and_the_held_object_shows_it(self):
        tracker = tracker_of()
        mine = tracker.set_default("cart", {"mine": 1})
        assert commit(tracker, pack(cart={"theirs": 2})) == {"cart": {"theirs": 2}}
        assert mine == {"theirs": 2}
        mine["late"] = 3
        assert commit(tracker) == {"cart": {"theirs": 2, "late": 3}}

    def test_a_default_is_set_again_if_the_newer_record_lacks_the_key(self):
        tracker = tracker_of()
        tracker.set_default("n", 1)
        assert commit(tracker, pack(other=2)) == {"other": 2, "n": 1}

    def test_an_item_added_to_a_default_is_merged_into_the_newer_value(self):
        tracker = tracker_of()
        tracker.set_default("cart", {})["mine"] = 1
        assert commit(tracker, pack(cart={"theirs": 2})) == {"cart": {"theirs": 2, "mine": 1}}

    def test_a_default_for_a_key_that_is_present_changes_nothing(self):
        tracker = tracker_of(a=None)
        assert tracker.set_default("a", 1) is None
        assert not tracker.modified()

    def test_a_plain_default_yields_to_the_newer_value(self):
        tracker = tracker_of()
        assert tracker.set_default("n", 1) == 1
        assert commit(tracker, pack(n=2)) == {"n": 2}
        assert tracker.get("n") == 2

    def test_a_tracked_default_is_stored_only_after_it_was_changed(self):
        tracker = tracker_of()
        offered = tracker.track_default("cart", {}, None)
        assert tracker.get("cart") is ABSENT
        assert "cart" not in tracker
        assert list(tracker) == []
        assert tracker.track_default("cart", {}, None) is offered
        assert not tracker.modified()
        offered["a"] = 1
        assert "cart" in tracker
        assert list(tracker) == ["cart"]
        assert tracker.get("cart") is offered
        assert commit(tracker) == {"cart": {"a": 1}}
        offered["b"] = 2
        assert commit(tracker) == {"cart": {"a": 1, "b": 2}}

    def test_a_changed_tracked_default_is_merged_into_the_newer_value(self):
        tracker = tracker_of()
        tracker.track_default("tags", [], None).append("mine")
        assert commit(tracker, pack(tags=["theirs"])) == {"tags": ["theirs", "mine"]}

    def test_a_changed_tracked_default_is_stored_if_the_newer_record_lacks_the_key(self):
        tracker = tracker_of()
        tracker.track_default("cart", {"a": 1}, None)["b"] = 2
        assert tracker.get("cart") == {"a": 1, "b": 2}
        assert commit(tracker, pack(other=3)) == {"other": 3, "cart": {"a": 1, "b": 2}}

    def test_a_tracked_default_is_inserted_by_its_first_commit_only(self):
        """A6: if the key was deleted meanwhile, only the later changes are stored."""
        tracker = tracker_of()
        offered = tracker.track_default("cart", {}, None)
        offered["a"] = 1
        commit(tracker)
        offered["b"] = 2
        assert commit(tracker, pack(other=3)) == {"other": 3, "cart": {"b": 2}}

    def test_a_tracked_default_updated_by_a_rebase_stores_only_its_own_changes(self):
        """A6: if the key was deleted meanwhile, only the later changes are stored."""
        tracker = tracker_of()
        offered = tracker.track_default("cart", {}, None)
        tracker.rebase(pack(cart={"theirs": 1}))
        offered["mine"] = 2
        assert commit(tracker, pack(other=3)) == {"other": 3, "cart": {"mine": 2}}

    def test_a_rebase_updates_a_tracked_default_with_the_stored_value(self):
        tracker = tracker_of()
        offered = tracker.track_default("tags", [], None)
        tracker.rebase(pack(tags=["theirs"]))
        assert offered == ["theirs"]
        offered.append("mine")
        assert commit(tracker) == {"tags": ["theirs", "mine"]}

    def test_a_tracked_default_stays_tracked_if_a_rebase_stores_an_equal_value(self):
        tracker = tracker_of()
        offered = tracker.track_default("tags", [], None)
        tracker.rebase(pack(tags=[]))
        assert tracker.get("tags") == []
        offered.append("mine")
        assert commit(tracker) == {"tags": ["mine"]}

    def test_a_tracked_default_can_be_assigned(self):
        tracker = tracker_of()
        offered = tracker.track_default("tags", ["x"], None)
        tracker.set("tags", offered)
        assert tracker.modified()
        offered.append("y")
        assert commit(tracker) == {"tags": ["x", "y"]}

    def test_setting_another_default_updates_the_tracked_default(self):
        tracker = tracker_of()
        offered = tracker.track_default("tags", [], None)
        tracker.set_default("tags", ["x"])
        assert offered == ["x"]
        offered.append("y")
        assert commit(tracker) == {"tags": ["x", "y"]}


class TestReplacements:
    """Replacements of stored values that do not fit the type of the field."""

    def test_a_replacement_that_was_changed_is_merged_by_later_commits(self):
        """A6."""
        tracker = tracker_of(cart="text")
        replacement = tracker.track_replacement("cart", Box([]), BOXES)
        replacement.items.append(1)
        assert commit(tracker, pack(cart="other")) == {"cart": [1]}
        replacement.items.append(2)
        assert commit(tracker, pack(cart=[1, 9])) == {"cart": [1, 9, 2]}
        assert replacement == Box([1, 9, 2])

    def test_a_replacement_that_was_rebased_on_a_stored_value_is_merged(self):
        """A6."""
        tracker = tracker_of(cart="text")
        replacement = tracker.track_replacement("cart", Box([0]), BOXES)
        tracker.rebase(pack(cart=[1]))
        assert replacement == Box([1])
        replacement.items.append(2)
        assert commit(tracker, pack(cart=[1, 9])) == {"cart": [1, 9, 2]}

    def test_a_rebase_on_a_value_that_does_not_fit_the_type_updates_the_plain_object(self):
        tracker = tracker_of(cart={"a": 1})
        replacement = tracker.track_replacement("cart", Box([0]), BOXES)
        plain = tracker.get("cart")
        tracker.rebase(pack(cart={"b": 2}))
        assert plain == {"b": 2}
        assert tracker.get_replacement("cart", BOXES) is replacement

    def test_a_typed_object_is_not_returned_if_its_stored_value_no_longer_fits(self):
        tracker = tracker_of(cart=[1])
        cart = tracker.get_typed("cart", BOXES)
        tracker.rebase(pack(cart="text"))
        cart.items.append(2)
        assert not tracker.modified()
        with pytest.raises(InvalidState):
            tracker.get_typed("cart", BOXES)

    def test_a_change_of_the_typed_or_the_plain_object_updates_the_other(self):
        tracker = tracker_of(cart=[1])
        typed, plain = tracker.get_typed("cart", BOXES), tracker.get("cart")
        typed.items.append(2)
        assert tracker.get("cart") is plain
        assert plain == [1, 2]
        plain.append(3)
        assert tracker.modified()
        assert typed == Box([1, 2, 3])

    @pytest.mark.parametrize("stored", [{}, {"cart": []}])
    def test_changes_of_the_typed_and_the_plain_object_are_merged(self, stored):
        """A6."""
        tracker = tracker_of(**stored)
        if stored:
            typed, plain = tracker.get_typed("cart", BOXES), tracker.get("cart")
        else:
            typed, plain = (
                tracker.track_default("cart", Box([]), BOXES),
                tracker.track_default("cart", [], None),
            )
        typed.items.append(1)
        plain.append(2)
        assert tracker.get("cart") == [1, 2]
        assert typed == Box([1, 2])
        assert commit(tracker, pack(cart=[9])) == {"cart": [9, 1, 2]}


class TestExplicitOperations:
    def test_an_operation_updates_objects_that_were_returned_before(self):
        tracker = tracker_of(log=[{"n": 1}], tags={1})
        log, first, tags = tracker.get("log"), tracker.get("log")[0], tracker.get("tags")
        tracker.append("log", [{"n": 2}])
        tracker.add("tags", {2})
        tracker.discard("tags", {1, 9})
        assert log == [{"n": 1}, {"n": 2}]
        assert log[0] is first
        assert tags == {2}
        log[1]["n"] = 3
        assert commit(tracker) == {"log": [{"n": 1}, {"n": 3}], "tags": {2}}

    def test_an_operation_on_one_of_two_places_of_an_object_is_kept(self):
        """A6: the stored value has two lists, where the handler gave one list twice."""
        tracker = tracker_of()
        items = []
        tracker.set("log", {"a": items, "b": items})
        tracker.append("log", [1], ("a",))
        tracker.append("log", [2], ("a",))
        assert tracker.get("log") == {"a": [1, 2], "b": []}
        assert commit(tracker) == {"log": {"a": [1, 2], "b": []}}

    def test_an_operation_on_an_absent_key_starts_with_an_empty_value(self):
        tracker = tracker_of()
        assert tracker.increment("n", 2) == 2
        assert tracker.increment("n", -0.5) == 1.5
        tracker.append("log", [1])
        tracker.add("tags", {1})
        tracker.discard("none", {1})
        assert commit(tracker) == {"n": 1.5, "log": [1], "tags": {1}}

    def test_operations_are_replayed_on_a_newer_record(self):
        tracker = tracker_of(n=1, log=[1], tags={1})
        tracker.increment("n", 2)
        tracker.append("log", [2])
        tracker.add("tags", {2})
        tracker.discard("tags", {1})
        newer = pack(n=10, log=[1, 9], tags={1, 9})
        assert commit(tracker, newer) == {"n": 12, "log": [1, 9, 2], "tags": {2, 9}}
        assert tracker.get("log") == [1, 9, 2]

    def test_an_operation_keeps_earlier_changes_in_place(self):
        tracker = tracker_of(log=[1])
        tracker.get("log").append(2)
        tracker.append("log", [3])
        assert commit(tracker, pack(log=[1, 9])) == {"log": [1, 9, 2, 3]}

    def test_an_operation_updates_a_tracked_default(self):
        tracker = tracker_of()
        offered = tracker.track_default("log", [], None)
        tracker.append("log", [1])
        assert offered == [1]
        offered.append(2)
        assert commit(tracker) == {"log": [1, 2]}

    @pytest.mark.parametrize("start", [{}, {"n": 1}])
    @pytest.mark.parametrize("amount", [Whole.THREE, Share(0.5)])
    def test_incrementing_by_a_subclass_of_a_number_stores_a_plain_number(self, amount, start):
        """A6: NumPy's float64 is a float, and the codec refuses subclasses of float."""
        tracker = tracker_of(**start)
        plain = amount.value if isinstance(amount, enum.Enum) else float(amount)
        total = tracker.increment("n", amount)
        assert total == start.get("n", 0) + plain
        assert type(total) is type(plain)
        assert commit(tracker, {}) == {"n": plain}

    def test_an_operation_on_a_value_of_another_type_raises_and_changes_nothing(self):
        tracker = tracker_of(text="a", flag=True, n=1)
        for call in (
            lambda: tracker.increment("text", 1),
            lambda: tracker.increment("flag", 1),
            lambda: tracker.append("n", [1]),
            lambda: tracker.add("n", {1}),
            lambda: tracker.discard("n", {1}),
        ):
            with pytest.raises(TypeError, match="holds a value of type"):
                call()
        for amount in ("1", True, None):
            with pytest.raises(TypeError, match="expects an int or a float"):
                tracker.increment("n", amount)
        with pytest.raises(NotSerializable):
            tracker.append("log", [object()])
        assert not tracker.modified()


class TestOneObjectInTwoKeys:
    def test_a_later_change_is_stored_under_both_keys(self):
        tracker = tracker_of(cart={})
        cart = tracker.get("cart")
        tracker.set("copy", cart)
        cart["apple"] = 1
        assert commit(tracker) == {"cart": {"apple": 1}, "copy": {"apple": 1}}

    def test_newer_values_of_both_keys_are_kept(self):
        """A6: neither key gets the value that another request stored under the other one."""
        tracker = tracker_of(cart={})
        cart = tracker.get("cart")
        tracker.set("copy", cart)
        commit(tracker)
        newer = pack(cart={"apple": 1}, copy={"pear": 2})
        tracker.rebase(newer)
        assert (tracker.get("cart"), tracker.get("copy")) == ({"apple": 1}, {"pear": 2})
        assert cart == {"apple": 1}
        assert not tracker.modified()


class TestClear:
    def test_clear_removes_every_key_except_the_lease(self):
        tracker = ChangeTracker({**pack(a=1), LEASE: b"l"}, {})
        tracker.set("b", 2)
        tracker.clear()
        assert list(tracker) == [LEASE]
        tracker.set("c", 3)
        tracker.modified()
        log, data = tracker.take_operations()
        assert data == {LEASE: b"l", **pack(c=3)}
        assert log.replay({**pack(x=1), LEASE: b"m"}) == {LEASE: b"m", **pack(c=3)}

    def test_clear_hides_keys_that_a_rebase_adds(self):
        tracker = tracker_of(a=1)
        tracker.clear()
        tracker.rebase(pack(a=1, b=2))
        assert list(tracker) == []
        assert tracker.modified()


class TestRebase:
    def test_a_rebase_keeps_the_identity_and_pending_changes_of_objects(self):
        tracker = tracker_of(cart={"a": [1]})
        cart, inner = tracker.get("cart"), tracker.get("cart")["a"]
        inner.append(2)
        tracker.rebase(pack(cart={"a": [1, 9], "b": 3}))
        assert tracker.get("cart") is cart
        assert cart == {"a": [1, 9, 2], "b": 3}
        assert cart["a"] is inner
        inner.append(4)
        assert commit(tracker) == {"cart": {"a": [1, 9, 2, 4], "b": 3}}

    def test_assignments_before_and_after_a_rebase_are_each_added_once(self):
        """A6: two changes are recorded; the parallel increment between them is in neither."""
        tracker = ChangeTracker(pack(n=0), {"n": Merge.SUM})
        tracker.set("n", 1)
        tracker.rebase(pack(n=10))
        assert tracker.get("n") == 11
        tracker.set("n", tracker.get("n") + 1)
        assert commit(tracker, pack(n=10)) == {"n": 12}

    def test_an_object_whose_key_a_rebase_removed_stores_only_its_later_changes(self):
        """Later changes of a held object are kept; the removed content stays removed."""
        tracker = tracker_of(cart={"a": 1})
        cart = tracker.get("cart")
        tracker.rebase({})
        assert tracker.get("cart") is ABSENT
        assert "cart" not in tracker
        assert cart == {"a": 1}
        assert not tracker.modified()
        cart["b"] = 2
        assert tracker.get("cart") is cart
        assert cart == {"b": 2}
        assert commit(tracker) == {"cart": {"b": 2}}
        cart["c"] = 3
        assert commit(tracker) == {"cart": {"b": 2, "c": 3}}

    def test_an_object_whose_key_a_rebase_removed_can_be_assigned_again(self):
        tracker = tracker_of(cart={"a": 1})
        cart = tracker.get("cart")
        tracker.rebase({})
        tracker.set("cart", cart)
        assert commit(tracker) == {"cart": {"a": 1}}

    def test_a_default_can_be_tracked_for_a_key_that_a_rebase_removed(self):
        tracker = tracker_of(cart={"a": 1})
        old = tracker.get("cart")
        tracker.rebase({})
        fresh = tracker.track_default("cart", {}, None)
        assert fresh == {}
        assert fresh is not old
        fresh["x"] = 1
        assert commit(tracker) == {"cart": {"x": 1}}

    def test_a_rebase_on_a_value_of_another_type_discards_changes_of_the_old_object(self):
        tracker = tracker_of(cart={"a": 1})
        cart = tracker.get("cart")
        tracker.rebase(pack(cart="text"))
        assert tracker.get("cart") == "text"
        cart["b"] = 2
        assert not tracker.modified()


class TestCommitInProgress:
    def test_changes_during_a_commit_belong_to_the_next_commit(self):
        tracker = tracker_of(n=0, cart={})
        cart = tracker.get("cart")
        tracker.increment("n", 1)
        cart["a"] = 1
        tracker.modified()
        _, data = tracker.take_operations()
        tracker.increment("n", 1)  # during the store call
        cart["b"] = 2
        tracker.rebase(data)
        assert tracker.get("n") == 2
        assert cart == {"a": 1, "b": 2}
        assert commit(tracker, pack(n=10, cart={"a": 1})) == {"n": 11, "cart": {"a": 1, "b": 2}}

    def test_committed_objects_without_references_are_not_compared_again(self):
        tracker = tracker_of(n=0)
        tracker.set("n", 1)
        commit(tracker)
        assert tracker.states == {}
        assert tracker.get("n") == 1

    def test_a_clear_during_a_commit_is_kept(self):
        tracker = tracker_of(n=0)
        tracker.set("n", 1)
        tracker.modified()
        _, data = tracker.take_operations()
        tracker.clear()
        tracker.rebase(data)
        assert list(tracker) == []
        assert tracker.modified()
        assert commit(tracker) == {}

    def test_operations_of_a_failed_commit_are_applied_once_by_the_next(self):
        tracker = tracker_of(n=0, cart={}, log=[])
        tracker.increment("n", 1)
        tracker.get("cart")["a"] = 1
        tracker.append("log", [1])
        tracker.modified()
        log, _ = tracker.take_operations()
        tracker.increment("n", 1)
        tracker.get("cart")["b"] = 2
        tracker.restore_operations(log)
        assert tracker.get("n") == 2
        assert commit(tracker, pack(n=10, cart={}, log=[0])) == {
            "n": 12,
            "cart": {"a": 1, "b": 2},
            "log": [0, 1],
        }

    def test_operations_of_a_failed_commit_are_kept_if_a_rebase_came_meanwhile(self):
        """The deadline of a WebSocket refreshes the session while its handler commits."""
        tracker = tracker_of(n=0, cart={})
        cart = tracker.get("cart")
        tracker.increment("n", 1)
        cart["a"] = 1
        tracker.modified()
        log, _ = tracker.take_operations()
        tracker.rebase(pack(n=10, cart={"z": 9}))
        tracker.restore_operations(log)
        assert tracker.get("n") == 11
        assert cart == {"z": 9, "a": 1}
        assert commit(tracker) == {"n": 11, "cart": {"z": 9, "a": 1}}

    def test_operations_of_a_failed_commit_are_kept_after_an_earlier_clear(self):
        tracker = tracker_of(a=1)
        tracker.clear()
        tracker.set("b", 2)
        tracker.modified()
        log, _ = tracker.take_operations()
        tracker.rebase(pack(a=1, c=3))
        tracker.restore_operations(log)
        assert list(tracker) == ["b"]
        assert commit(tracker, pack(a=1, c=3)) == {"b": 2}

    def test_operations_of_a_failed_commit_are_dropped_by_a_later_clear(self):
        tracker = tracker_of(n=0)
        tracker.increment("n", 1)
        tracker.modified()
        log, _ = tracker.take_operations()
        tracker.clear()
        tracker.restore_operations(log)
        assert commit(tracker, pack(n=10)) == {}


class TestUpgrades:
    """Data of an older state class with operations of a newer one."""

    UPGRADE = StateUpgrade(2, lambda version, data: {**data, "cart": [*data["cart"], version]})

    def upgraded(self, **values):
        tracker = tracker_of(**values)
        tracker.use_upgrade(self.UPGRADE)
        return tracker

    def test_a_commit_upgrades_older_data_before_it_replays_operations(self):
        """A6."""
        tracker = self.upgraded(cart=[9])
        assert tracker.get("cart") == [9, 0]
        tracker.append("cart", [1])
        newer = pack(cart=[8])
        assert commit(tracker, newer) == {"cart": [8, 0, 1], STATE_VERSION: 2}

    def test_a_commit_stores_the_version(self):
        tracker = self.upgraded(cart=[])
        tracker.set("n", 1)
        assert commit(tracker) == {"cart": [0], "n": 1, STATE_VERSION: 2}

    def test_a_commit_of_new_data_stores_the_version(self):
        tracker = ChangeTracker({}, {}, upgrade=self.UPGRADE)
        tracker.set("n", 1)
        assert commit(tracker) == {"n": 1, STATE_VERSION: 2}

    def test_a_rebase_upgrades_older_data_before_it_replays_pending_operations(self):
        tracker = self.upgraded(cart=[9])
        cart = tracker.get("cart")
        tracker.append("cart", [1])
        tracker.rebase(pack(cart=[8]))
        assert cart == tracker.get("cart") == [8, 0, 1]


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
    tracker, model = tracker_of(a=1, b={"x": 1}), {"a": 1, "b": {"x": 1}}
    for what, key, value in steps:
        match what:
            case "set":
                tracker.set(key, decode(encode("", value)))
                model[key] = decode(encode("", value))
            case "put":
                for target in (tracker.get(key), model.get(key)):
                    if isinstance(target, dict):
                        target[str(value)] = value
                    elif isinstance(target, list):
                        target.append(value)
            case "delete" if key in model:
                tracker.delete(key)
                del model[key]
            case "increment" if isinstance(model.get(key, 0), int):
                tracker.increment(key, value)
                model[key] = model.get(key, 0) + value
            case "default":
                tracker.set_default(key, value)
                model.setdefault(key, value)
            case "clear":
                tracker.clear()
                model.clear()
            case "commit":
                assert commit(tracker) == model
            case "fail":
                tracker.modified()
                tracker.restore_operations(tracker.take_operations()[0])
        assert {k: tracker.get(k) for k in tracker} == model
    start = pack(a=1, b={"x": 1})
    if not any(what == "commit" for what, _, _ in steps):
        tracker.modified()
        assert unpack(tracker.take_operations()[0].replay(start)) == model
    else:
        assert commit(tracker) == model


class TestPaths:
    def test_operations_with_a_path_change_values_inside_dicts(self):
        """A6."""
        tracker = tracker_of(cart={"apple": 1})
        cart = tracker.get("cart")
        assert tracker.increment("cart", 2, ("apple",)) == 3
        assert tracker.increment("cart", 1, ("deep", "pear")) == 1
        tracker.append("cart", [1, 2], ("log",))
        tracker.add("cart", {1, 2}, ("tags",))
        tracker.discard("cart", {2, 3}, ("tags",))
        tracker.discard("cart", {2}, ("none", "none"))
        expected = {"apple": 3, "deep": {"pear": 1}, "log": [1, 2], "tags": {1}}
        assert cart == tracker.get("cart") == expected
        newer = {"apple": 10, "log": [0], "tags": {2, 3}}
        assert commit(tracker, pack(cart=newer)) == {
            "cart": {"apple": 12, "deep": {"pear": 1}, "log": [0, 1, 2], "tags": {1}}
        }
        assert cart == tracker.get("cart")

    def test_operations_with_a_path_create_absent_values(self):
        tracker = tracker_of()
        assert tracker.increment("n", 1, ("a", "b")) == 1
        tracker.append("l", [1], ("a",))
        tracker.add("s", {1}, ("a",))
        tracker.discard("d", {1}, ("a",))
        assert list(tracker) == ["n", "l", "s"]
        assert commit(tracker) == {"n": {"a": {"b": 1}}, "l": {"a": [1]}, "s": {"a": {1}}}

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
        tracker = tracker_of(d={"t": "x"}, n=1)
        with pytest.raises(TypeError, match=text):
            act(tracker)
        assert not tracker.modified()

    @pytest.mark.parametrize("path", [(object(),), ((1,),), ("a",) * 65])
    def test_a_path_that_cannot_be_stored_is_refused(self, path):
        """B-55."""
        tracker = tracker_of()
        for act in (
            lambda: tracker.increment("d", 1, path),
            lambda: tracker.append("d", [1], path),
        ):
            with pytest.raises(NotSerializable) as caught:
                act()
            assert caught.value.key == "d"
        assert not tracker.modified()

    def test_a_path_of_64_keys_is_accepted_and_one_of_65_is_refused(self):
        """B-55."""
        tracker = tracker_of()
        assert tracker.increment("d", 1, ("a",) * 64) == 1
        with pytest.raises(NotSerializable, match="a path of 65 keys, more than 64") as caught:
            tracker.increment("d", 1, ("a",) * 65)
        assert (caught.value.path, caught.value.type) == ("", dict)

    @pytest.mark.parametrize(
        "act", [ChangeTracker.append, ChangeTracker.add, ChangeTracker.discard]
    )
    def test_the_depth_limit_of_an_item_includes_its_path(self, act):
        """B-55: an item and a path that each fit the limit may exceed it together."""
        item = ()
        for _ in range(40):
            item = (item,)
        tracker = tracker_of()
        items = [item] if act is ChangeTracker.append else {item}
        act(tracker, "shallow", items, ("a",))
        with pytest.raises(NotSerializable) as caught:
            act(tracker, "deep", items, ("a",) * 40)
        assert caught.value.key == "deep"
        tracker.modified()
        assert list(tracker.take_operations()[0].keys) == ["shallow"]

    @pytest.mark.parametrize(
        ("act", "items"), [(ChangeTracker.append, [1]), (ChangeTracker.add, {1})]
    )
    def test_the_container_at_a_path_counts_for_the_depth_limit(self, act, items):
        """B-55: 63 dicts and a list are 64 levels, as those of an assigned value."""
        tracker = tracker_of()
        act(tracker, "key", items, ("a",) * 63)
        assigned = tracker.get("key")
        tracker.set("copy", assigned)
        with pytest.raises(NotSerializable):
            act(tracker, "deep", items, ("a",) * 64)
        with pytest.raises(NotSerializable):
            tracker.set("deep", [assigned])


class TestDiscard:
    def test_discarding_an_absent_member_is_replayed(self):
        """A6: a parallel request has added the member and committed first."""
        tracker = tracker_of(tags={"a"})
        tracker.discard("tags", {"b"})
        assert commit(tracker, pack(tags={"a", "b"})) == {"tags": {"a"}}

    def test_discarding_from_an_absent_key_is_replayed(self):
        """A6."""
        tracker = tracker_of(other=1)
        tracker.discard("tags", {"b"})
        assert "tags" not in tracker
        assert tracker.get("tags") is ABSENT
        assert tracker.modified()
        assert commit(tracker, pack(tags={"a", "b"})) == {"tags": {"a"}}
        assert tracker.get("tags") == {"a"}

    def test_discarding_from_an_absent_key_creates_no_key(self):
        tracker = tracker_of()
        tracker.discard("tags", {"b"})
        assert commit(tracker) == {}


class TestManyOperations:
    """Thousands of explicit operations on one value take linear time."""

    @pytest.mark.parametrize("read", [False, True])
    @pytest.mark.parametrize(
        ("value", "act"),
        [
            ([], lambda tracker, n: tracker.append("key", [{"n": n}])),
            (set(), lambda tracker, n: tracker.add("key", {n})),
            (set(range(4_000)), lambda tracker, n: tracker.discard("key", {n})),
            ({"log": []}, lambda tracker, n: tracker.append("key", [n], ("log",))),
            ({}, lambda tracker, n: tracker.increment("key", 1, (f"k{n % 2_000}",))),
            (
                {f"k{n}": 1 for n in range(2_000)},
                lambda tracker, n: tracker.increment("key", 1, (f"k{n % 2_000}",)),
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
        tracker = tracker_of(key=value)
        held = tracker.get("key") if read else None
        encoded = 0

        def count(*arguments, **options):
            nonlocal encoded
            result = encode(*arguments, **options)
            encoded += len(result)
            return result

        tracker.encoder = count
        for module in (changes, operations):
            monkeypatch.setattr(module, "encode", count)
        for number in range(4_000):
            act(tracker, number)
        assert tracker.modified()
        log, data = tracker.take_operations()
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
        tracker = tracker_of(key=start)
        for number in range(4):
            if number == 2:
                in_place(tracker.get("key"))
            act(tracker, "key", [number] if act is ChangeTracker.append else {number}, path)
        assert commit(tracker, pack(key=newer)) == {"key": result}
        assert tracker.get("key") == result

    def test_a_set_changed_in_place_without_changing_its_length_is_stored(self):
        """A6: a change before the operation restores a set that another request removed."""
        tracker = tracker_of(key={1, 2})
        members = tracker.get("key")
        tracker.discard("key", {9})
        members ^= {1, 7}
        tracker.add("key", {5})
        assert commit(tracker, {}) == {"key": {2, 5, 7}}

    def test_a_number_that_is_assigned_in_place_between_increments_is_kept(self):
        """A6."""
        tracker = tracker_of(cart={"apple": 1, "pear": 1})
        cart = tracker.get("cart")
        tracker.increment("cart", 1, ("apple",))
        cart["apple"] = cart["pear"] = 10
        tracker.increment("cart", 1, ("apple",))
        tracker.increment("cart", 1, ("pear",))
        assert cart == {"apple": 11, "pear": 11}
        newer = pack(cart={"apple": 100, "pear": 100, "plum": 1})
        assert commit(tracker, newer) == {"cart": {"apple": 11, "pear": 11, "plum": 1}}

    def test_a_number_that_is_removed_in_place_between_increments_starts_at_zero(self):
        """A6."""
        tracker = ChangeTracker(pack(cart={"apple": 1}), {"cart": Merge.DICT_OF_SUM})
        cart = tracker.get("cart")
        tracker.increment("cart", 1, ("apple",))
        del cart["apple"]
        assert tracker.increment("cart", 1, ("apple",)) == 1
        assert commit(tracker, pack(cart={"apple": 100})) == {"cart": {"apple": 1}}

    def test_a_value_that_another_request_removed_is_created_by_the_operations(self):
        """A6: even if an operation that creates no value comes first."""
        tracker = tracker_of(cart={"n": 1, "tags": {1}})
        tracker.increment("cart", 1, ("n",))
        tracker.discard("cart", {1}, ("tags",))
        tracker.add("cart", {2}, ("tags",))
        tracker.add("cart", {3}, ("tags",))
        assert commit(tracker, pack(cart={})) == {"cart": {"n": 1, "tags": {2, 3}}}

    def test_an_item_that_cannot_be_serialized_changes_nothing(self):
        tracker = tracker_of(log=[1])
        tracker.append("log", [2])
        for wrong in ([object()], [[2, {3: object()}]]):
            with pytest.raises(NotSerializable):
                tracker.append("log", wrong)
        assert tracker.get("log") == [1, 2]
        assert commit(tracker) == {"log": [1, 2]}

    def test_a_replacement_tracked_between_operations_is_committed(self):
        class Numbers:
            def from_stored(self, value):
                raise InvalidState("log", list, "expected a dict")

            def to_stored(self, value):
                return value

        tracker = tracker_of(log=[1])
        for number in (2, 3):
            tracker.append("log", [number])
        replacement = tracker.track_replacement("log", {}, Numbers())
        tracker.append("log", [4])
        assert (tracker.get("log"), replacement) == ([1, 2, 3, 4], {})
        replacement["a"] = 1
        assert commit(tracker) == {"log": {"a": 1}}

    def test_a_value_in_a_dict_of_sums_that_is_not_a_number_is_refused(self):
        """A6: a change in place is refused at the commit."""
        tracker = ChangeTracker(pack(cart={"apple": 1}), {"cart": Merge.DICT_OF_SUM})
        with pytest.raises(TypeError, match=r"expected an int or a float, found str"):
            tracker.set("cart", {"apple": "1"})
        tracker.get("cart")["apple"] = "1"
        with pytest.raises(TypeError, match=r"session\['cart'\]\['apple'\].*found str"):
            tracker.modified()

    def test_an_operation_stores_copies_of_its_items(self):
        tracker = tracker_of()
        item = {"a": (1, 2)}
        for _ in range(2):
            tracker.append("log", [item])
        item["a"] = 5
        assert tracker.get("log") == [{"a": [1, 2]}] * 2

    def test_assignments_and_deletions_between_operations_apply_in_order(self):
        tracker = tracker_of(log=[1])
        for number in range(3):
            tracker.append("log", [number])
        tracker.set("log", [5])
        tracker.append("log", [6])
        assert tracker.get("log") == [5, 6]
        tracker.append("log", [7])
        tracker.delete("log")
        assert tracker.get("log") is ABSENT
        tracker.append("log", [8])
        tracker.append("log", [9])
        tracker.untrack("log")
        assert commit(tracker, pack(log=[0])) == {"log": [8, 9]}

    def test_a_rebase_keeps_deferred_operations(self):
        tracker = tracker_of(log=[1])
        for number in (2, 3):
            tracker.append("log", [number])
        tracker.rebase(pack(log=[0]))
        assert tracker.get("log") == [0, 2, 3]
        tracker.append("log", [4])
        assert commit(tracker, pack(log=[])) == {"log": [2, 3, 4]}


LISTS = st.sampled_from(["append", "extend in place", "item in place", "pop in place", "read"])
SETS = st.sampled_from(["add", "discard", "add in place", "remove in place", "read"])
DICTS = st.sampled_from(["increment", "append in", "set in place", "extend in", "delete in"])


EXPLICIT = {
    "append": lambda tracker, n: tracker.append("key", [n]),
    "add": lambda tracker, n: tracker.add("key", {n, n % 4}),
    "discard": lambda tracker, n: tracker.discard("key", {n % 4}),
    "increment": lambda tracker, n: tracker.increment("key", n, ("n",)),
    "append in": lambda tracker, n: tracker.append("key", [n], ("log",)),
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
            tracker = tracker_of(key=start)
            for number, name in enumerate(program, 100):
                if name in EXPLICIT:
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(changes, "_can_defer", can_defer)
                        EXPLICIT[name](tracker, number)
                else:
                    IN_PLACE[name](tracker.get("key"), number)
            tracker.modified()
            log, data = tracker.take_operations()
            results.append([unpack(data), *(unpack(log.replay(one)) for one in stored)])
        assert results[0] == results[1]

    check()


class TestRestrictedValues:
    """Every way to write a value calls the encoder of the installation."""

    WRITES = {  # noqa: RUF012
        "set": lambda tracker: tracker.set("key", "refused"),
        "set_default": lambda tracker: tracker.set_default("key", "refused"),
        "increment": lambda tracker: tracker.increment("number", 1),
        "append": lambda tracker: tracker.append("list", ["refused"]),
        "add": lambda tracker: tracker.add("set", {"refused"}),
        "discard": lambda tracker: tracker.discard("set", {"refused"}),
        "in place": lambda tracker: (tracker.get("list").append("refused"), tracker.modified()),
    }

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_a_value_that_the_store_cannot_hold_is_refused(self, write):
        def encoder(key, value, *, depth=0):
            if value not in ([0], {0}):
                raise NotSerializable(key, "", type(value))
            return encode(key, value)

        tracker = ChangeTracker(pack(number=0, list=[0], set={0}), {}, encoder)
        with pytest.raises(NotSerializable):
            write(tracker)
        assert unpack(tracker.take_operations()[1]) == {"number": 0, "list": [0], "set": {0}}

    def test_the_sum_of_an_increment_is_passed_to_the_encoder(self):
        def encoder(key, value, *, depth=0):
            if value > 10:
                raise NotSerializable(key, "", type(value))
            return encode(key, value)

        tracker = ChangeTracker(pack(n=4), {}, encoder)
        assert tracker.increment("n", 6) == 10
        with pytest.raises(NotSerializable) as caught:
            tracker.increment("n", 1)
        assert caught.value.key == "n"
        assert tracker.get("n") == 10

    STORED = pack(cart=[1])
    STEPS = {  # noqa: RUF012
        "contains": ({}, lambda tracker: "cart" in tracker),
        "iterate": ({}, list),
        "iterate over the record": (STORED, list),
        "get": ({}, lambda tracker: tracker.get("cart")),
        "get typed": ({}, lambda tracker: tracker.get_typed("cart", BOXES)),
        "modified": ({}, lambda tracker: tracker.modified()),
        "set": (STORED, lambda tracker: tracker.set("cart", [2])),
    }

    @pytest.mark.parametrize(("data", "use"), STEPS.values(), ids=STEPS)
    @pytest.mark.parametrize("adapter", [None, BOXES])
    def test_the_encoder_receives_the_key_of_a_changed_default(self, data, use, adapter):
        tracker = ChangeTracker(data, {}, only_for("cart"))
        if data:
            tracker.delete("cart")
        offered = tracker.track_default("cart", [] if adapter is None else Box([]), adapter)
        (offered if adapter is None else offered.items).append(1)
        use(tracker)
        assert tracker.modified()

    @pytest.mark.parametrize(
        "use",
        [
            lambda tracker: tracker.get("cart").append(2),
            lambda tracker: tracker.get_typed("cart", BOXES).items.append(2),
            lambda tracker: tracker.set("cart", Box([2]), BOXES),
            lambda tracker: tracker.append("cart", [2]),
            lambda tracker: (tracker.append("cart", [2]), tracker.append("cart", [3])),
            lambda tracker: tracker.track_replacement("cart", Box([]), BOXES).items.append(2),
            lambda tracker: tracker.rebase(pack(cart=[1, 2])),
        ],
        ids=["get", "get_typed", "set", "append", "append twice", "track_replacement", "rebase"],
    )
    def test_the_encoder_receives_the_key_of_a_tracked_object(self, use):
        tracker = ChangeTracker(pack(cart=[1]), {}, only_for("cart"))
        tracker.get("cart")
        tracker.get_typed("cart", BOXES)
        use(tracker)
        tracker.modified()
        tracker.get("cart").append(4)
        assert tracker.get_typed("cart", BOXES).items[-1] == 4
        tracker.append("cart", [5])
        tracker.append("cart", [6])
        tracker.set("cart", [7])
        assert commit(tracker) == {"cart": [7]}

    def test_the_encoder_receives_the_key_of_a_default_that_is_set(self):
        tracker = ChangeTracker({}, {}, only_for("cart"))
        offered = tracker.track_default("cart", Box([]), BOXES)
        tracker.set_default("cart", [1])
        assert offered == Box([1])

    def test_the_encoder_receives_the_key_of_many_operations(self):
        tracker = ChangeTracker(pack(cart=[1]), {}, only_for("cart"))
        for number in (2, 3):
            tracker.append("cart", [number])
        tracker.set("cart", [4])
        assert commit(tracker) == {"cart": [4]}


def only_for(expected):
    """Return an encoder for values of one key."""

    def encoder(key, value, *, depth=0):
        assert key == expected
        return encode(key, value, depth=depth)

    return encoder

"""Operations: replay on a newer value, merge rules, folding of logs and updates in place."""

import time
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn._core.codec import decode, encode
from sojourn._core.operations import (
    ABSENT,
    LEASE,
    Add,
    Append,
    Change,
    Default,
    Delete,
    Discard,
    Increment,
    Merge,
    OperationLog,
    check_sums,
    cleared_data,
    is_number,
    record,
    replay,
    same,
    update_in_place,
)

NAN = float("nan")


def pack(value):
    return None if value is ABSENT else encode("", value)


def merged(before, after, newer, merge=Merge.EDIT):
    """Return the result of replaying the change from `before` to `after` on `newer`."""
    result = replay([Change(pack(before), pack(after), merge)], pack(newer))
    return ABSENT if result is None else decode(result)


class TestReplay:
    @pytest.mark.parametrize(
        ("operation", "newer", "result"),
        [
            (Default(pack(1)), ABSENT, 1),
            (Default(pack(1)), None, None),
            (Default(pack(1)), 2, 2),
            (Delete(), 1, ABSENT),
            (Delete(), ABSENT, ABSENT),
            (Increment(2), 3, 5),
            (Increment(2), 0.5, 2.5),
            (Increment(2), ABSENT, 2),
            (Increment(2), "text", 2),
            (Increment(2), True, 2),
            (Increment(1), 2**64 - 1, 2**64),
            (Append(pack([1])), [0], [0, 1]),
            (Append(pack([1])), ABSENT, [1]),
            (Append(pack([1])), {0}, [1]),
            (Add(pack({1})), {0}, {0, 1}),
            (Add(pack({1})), ABSENT, {1}),
            (Add(pack({1})), [0], {1}),
            (Discard(pack({1})), {0, 1}, {0}),
            (Discard(pack({1})), ABSENT, ABSENT),
            (Discard(pack({1})), [1], [1]),
        ],
    )
    def test_each_operation_is_replayed_on_the_newer_value(self, operation, newer, result):
        """A6: a newer value of another type is replaced, because the later commit wins."""
        back = replay([operation], pack(newer))
        assert (ABSENT if back is None else decode(back)) == result


class TestMerge:
    @pytest.mark.parametrize(
        ("before", "after", "newer", "result"),
        [
            # dicts: by entry, in depth
            ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1, "c": 3, "b": 2}),
            ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
            ({"a": 1, "b": 2}, {"b": 2}, {"a": 9, "b": 3}, {"b": 3}),
            ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"z": 3}}, {"a": {"z": 3, "y": 2}}),
            ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3, 2]}),
            ({"a": 1}, {"a": 1, "b": 2}, ABSENT, {"b": 2}),
            ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {}, {"a": {"y": 2}}),
            ({"a": 1}, {"a": 1, "b": 2}, "text", {"b": 2}),
            ({"a": 1}, {"a": True}, {"a": 1, "b": 2}, {"a": True, "b": 2}),
            ({"a": NAN, "b": 1}, {"a": NAN, "b": 2}, {"a": 5, "b": 1}, {"a": 5, "b": 2}),
            # lists: what was appended
            ([1], [1, 2], [1, 3], [1, 3, 2]),
            ([1], [1, 2], [], [2]),
            ([1, 2], [2], [1, 2, 3], [2]),
            ([1], [1, 2], ABSENT, [1, 2]),
            ([1], [True], [1, 5], [True]),
            ([1], [1.0, 2], [1, 5], [1.0, 2]),
            # sets: by member
            ({1, 2}, {2, 3}, {1, 2, 4}, {2, 3, 4}),
            ({1}, {1, 2}, ABSENT, {1, 2}),
            ({1}, {1, 2}, [1], {1, 2}),
            # anything else as a whole
            ("a", "b", "c", "b"),
            (1, 2, ABSENT, 2),
            (ABSENT, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}),
        ],
    )
    def test_an_edit_changes_only_the_edited_parts_of_the_newer_value(
        self, before, after, newer, result
    ):
        """A6: edits of different paths, appends and members are all kept."""
        found = merged(before, after, newer)
        assert found == result
        assert type(found) is type(result)
        assert encode("", found) == encode("", result)

    def test_appends_to_a_list_with_a_nan_are_merged(self):
        """NaN is unequal to itself, but its stored bytes are equal."""
        assert merged([NAN], [NAN, 1], [NAN, 2])[1:] == [2, 1]

    @pytest.mark.parametrize(
        ("before", "after", "newer", "merge", "result"),
        [
            (5, 7, 10, Merge.SUM, 12),
            (ABSENT, 1, 10, Merge.SUM, 11),
            (ABSENT, 1, ABSENT, Merge.SUM, 1),
            (5, 7, ABSENT, Merge.SUM, 2),
            ("text", 7, 1, Merge.SUM, 8),
            (5, 7, "text", Merge.SUM, 7),
            (5, "text", 10, Merge.SUM, "text"),
            (5, True, 10, Merge.SUM, True),
            (1, 2, 3, Merge.LAST, 2),
            ({"a": 1}, {"a": 1, "b": 2}, {"c": 3}, Merge.DICT, {"c": 3, "b": 2}),
            ("text", {"b": 2}, {"c": 3}, Merge.DICT, {"c": 3, "b": 2}),
            ("text", {"b": 2}, "text", Merge.DICT, {"b": 2}),
            ({"a": 1}, "text", {"c": 3}, Merge.DICT, "text"),
            ({1}, {2}, {1, 3}, Merge.UNION, {2, 3}),
            (ABSENT, {2}, {3}, Merge.UNION, {2, 3}),
            ([1, 2], [2, 3], [1, 2, 4], Merge.UNION, [2, 4, 3]),
            (ABSENT, [3], [3, 4], Merge.UNION, [3, 4]),
            ({1}, {2}, "text", Merge.UNION, {2}),
            ([1], [1, 2], [1, 3], Merge.APPEND, [1, 3, 2]),
            (ABSENT, [2], [3], Merge.APPEND, [3, 2]),
            ([1], [2], [1, 3], Merge.APPEND, [2]),
            ([1], [1, 2], "text", Merge.APPEND, [1, 2]),
        ],
    )
    def test_a_declared_merge_is_applied_to_the_newer_value(
        self, before, after, newer, merge, result
    ):
        """Option ``merge``: if the types do not match, the later commit wins."""
        found = merged(before, after, newer, merge)
        assert found == result
        assert type(found) is type(result)


VALUES = st.recursive(
    st.integers(0, 3) | st.booleans() | st.text("ab", max_size=2) | st.just(NAN),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.sets(st.integers(0, 3))
    ),
    max_leaves=6,
)


def unordered(value):
    """Return a form that ignores the order of dicts and in which NaN equals NaN."""
    match value:
        case dict():
            return {key: unordered(item) for key, item in sorted(value.items())}
        case list():
            return [unordered(item) for item in value]
        case _:
            return encode("", value)


@given(VALUES, VALUES)
def test_an_edit_replayed_on_its_own_start_gives_its_own_result(before, after):
    """No other request has changed the value."""
    assert unordered(merged(before, after, before)) == unordered(after)


OPERATIONS = st.lists(
    st.one_of(
        st.builds(Increment, st.integers(-3, 3)),
        st.builds(Delete),
        st.builds(lambda v: Default(pack(v)), VALUES),
        st.builds(lambda v: Append(pack([v])), VALUES),
        st.builds(lambda v: ("set", v), VALUES),
        st.builds(lambda v: ("edit", v), VALUES),
    ),
    max_size=6,
)


@given(OPERATIONS, st.just(ABSENT) | VALUES)
def test_folding_a_log_does_not_change_its_result(operations, start):
    """`record` merges operations into fewer ones."""
    current, plain, folded = pack(start), [], []
    for drawn in operations:
        match drawn:
            case ("set", value):
                operation = Change(current, pack(value), Merge.LAST)
            case ("edit", value):
                operation = Change(current, pack(value), Merge.EDIT)
            case _:
                operation = drawn
        plain.append(operation)
        record(folded, operation)
        current = replay([operation], current)
    assert len(folded) <= len(plain)
    one, two = replay(plain, pack(start)), replay(folded, pack(start))
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert unordered(decode(one)) == unordered(decode(two))


class TestRecord:
    def test_an_assignment_or_a_deletion_replaces_earlier_operations(self):
        for last in (Delete(), Change(None, pack(1), Merge.LAST)):
            log = [Increment(1)]
            record(log, last)
            assert log == [last]

    def test_increments_are_recorded_as_one_operation(self):
        log: list = []
        for _ in range(3):
            record(log, Increment(2))
        assert log == [Increment(6)]

    def test_a_change_in_place_is_recorded_in_the_preceding_assignment(self):
        log = [Change(pack(0), pack([1]), Merge.LAST)]
        record(log, Change(pack([1]), pack([1, 2]), Merge.EDIT))
        assert log == [Change(pack(0), pack([1, 2]), Merge.LAST)]

    def test_changes_with_different_merges_are_recorded_separately(self):
        log = [Change(pack(0), pack(1), Merge.SUM)]
        record(log, Change(pack(1), pack(2), Merge.EDIT))
        assert len(log) == 2


class TestLog:
    def test_a_replay_keeps_other_keys_and_removes_deleted_ones(self):
        log = OperationLog(keys={"a": [Delete()], "b": [Increment(1)]})
        assert log.replay({"a": pack(1), "b": pack(1), "c": pack(1)}) == {
            "b": pack(2),
            "c": pack(1),
        }
        assert log.replay({}) == {"b": pack(1)}

    def test_a_clear_removes_keys_of_other_requests_but_not_the_lease(self):
        """A6: a clear must not let a second request into ``exclusive``."""
        log = OperationLog(cleared=True, keys={"a": [Increment(1)]})
        assert log.replay({"a": pack(5), "x": pack(1), LEASE: b"l"}) == {LEASE: b"l", "a": pack(1)}
        assert cleared_data({"x": b"x"}) == {}

    def test_a_replay_does_not_change_its_argument(self):
        data = {"a": pack(1)}
        OperationLog(keys={"a": [Delete()]}).replay(data)
        assert data == {"a": pack(1)}


class Point(msgspec.Struct):
    x: int = 0
    inner: list[int] = []


class Frozen(msgspec.Struct, frozen=True):
    x: int = 0
    inner: list[int] = []


@dataclass
class Plain:
    x: int = 0
    inner: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class FrozenPlain:
    x: int = 0
    inner: list[int] = field(default_factory=list)


class TestUpdateInPlace:
    def test_containers_keep_their_identity_at_every_depth(self):
        live = {"a": [1, {"b": {1}}], "gone": 1}
        outer, middle, inner = live, live["a"], live["a"][1]
        members = inner["b"]
        back = update_in_place(live, {"a": [2, {"b": {2}}, 3], "new": 4})
        assert back is outer
        assert back == {"a": [2, {"b": {2}}, 3], "new": 4}
        assert back["a"] is middle
        assert back["a"][1] is inner
        assert back["a"][1]["b"] is members

    def test_a_list_can_become_shorter(self):
        live = [1, 2, 3]
        assert update_in_place(live, [1]) == [1]
        assert live == [1]

    def test_a_value_of_another_type_replaces_the_old_one(self):
        assert update_in_place([1], {"a": 1}) == {"a": 1}
        assert update_in_place(1, 2) == 2
        assert update_in_place(True, 1) is not True

    @pytest.mark.parametrize("kind", [Point, Plain])
    def test_fields_of_a_mutable_object_are_changed_in_place(self, kind):
        live = kind(1, [1])
        inner = live.inner
        assert update_in_place(live, kind(2, [1, 2])) is live
        assert (live.x, live.inner) == (2, [1, 2])
        assert live.inner is inner

    @pytest.mark.parametrize("kind", [Frozen, FrozenPlain])
    def test_a_frozen_object_is_replaced_only_if_its_own_fields_differ(self, kind):
        live = kind(1, [1])
        inner = live.inner
        assert update_in_place(live, kind(1, [1, 2])) is live
        assert inner == [1, 2]
        fresh = kind(2, [1])
        assert update_in_place(live, fresh) is fresh

    @pytest.mark.parametrize("live", [[], {}, set()])
    def test_an_object_in_two_places_gets_the_values_of_both(self, live):
        """A6: a handler may have built a value with one object in two places."""
        kind = type(live)
        one, two = ([1], [2]) if kind is not dict else ({1: 1}, {2: 2})
        outer = {"a": live, "b": live}
        update_in_place(outer, {"a": kind(one), "b": kind(two)})
        assert outer == {"a": kind(one), "b": kind(two)}
        assert outer["a"] is live

    def test_an_object_in_two_places_stays_there_while_the_values_are_equal(self):
        live = [1]
        outer = [live, live]
        update_in_place(outer, [[2], [2]])
        assert outer[0] is outer[1] is live
        assert live == [2]

    @pytest.mark.parametrize("kind", [Point, Plain])
    def test_an_object_with_fields_in_two_places_gets_the_values_of_both(self, kind):
        """A6: also if it is inside a list that is in two places."""
        live = kind(1, [1])
        outer = [live, live]
        update_in_place(outer, [kind(2, [2]), kind(3, [3])])
        assert [(each.x, each.inner) for each in outer] == [(2, [2]), (3, [3])]
        pair = [live]
        outer = [pair, pair]
        update_in_place(outer, [[kind(4, [4])], [kind(5, [5])]])
        assert [each[0].x for each in outer] == [4, 5]


def test_same_compares_the_stored_bytes():
    assert same(NAN, float("nan"))
    assert not same(1, 1.0)
    assert not same(1, True)
    assert not same([1], [True])


def test_is_number_excludes_booleans():
    assert [is_number(x) for x in (1, 1.5, True, "1", None)] == [True, True, False, False, False]


def test_absent_has_a_readable_repr():
    assert repr(ABSENT) == "ABSENT"


class TestPaths:
    """A6: explicit operations with a path inside nested dicts."""

    @pytest.mark.parametrize(
        ("operation", "newer", "result"),
        [
            (Increment(2, ("a",)), {"a": 1, "b": 1}, {"a": 3, "b": 1}),
            (Increment(2, ("a",)), ABSENT, {"a": 2}),
            (Increment(2, ("a",)), [1], {"a": 2}),
            (Increment(2, ("a", "b")), {"a": 1}, {"a": {"b": 2}}),
            (Increment(2, ("a", 5)), {"a": {5: 1}}, {"a": {5: 3}}),
            (Increment(2, ("a",)), {"a": "text"}, {"a": 2}),
            (Append(encode("", [2]), ("a",)), {"a": [1]}, {"a": [1, 2]}),
            (Append(encode("", [2]), ("a",)), {}, {"a": [2]}),
            (Add(encode("", {2}), ("a",)), {"a": {1}}, {"a": {1, 2}}),
            (Add(encode("", {2}), ("a",)), {"a": 1}, {"a": {2}}),
            (Discard(encode("", {2}), ("a",)), {"a": {1, 2}}, {"a": {1}}),
            (Discard(encode("", {2}), ("a", "b")), {}, {}),
            (Discard(encode("", {2}), ("a",)), ABSENT, ABSENT),
            (Discard(encode("", {2}), ("a",)), {"a": 1}, {"a": 1}),
        ],
    )
    def test_an_operation_with_a_path_is_replayed_on_the_newer_value(
        self, operation, newer, result
    ):
        data = None if newer is ABSENT else encode("", newer)
        replayed = replay([operation], data)
        assert (ABSENT if replayed is None else decode(replayed)) == result

    def test_increments_of_one_path_are_recorded_as_one_operation(self):
        log = []
        for operation in (Increment(1, ("a",)), Increment(2, ("a",)), Increment(3, ("b",))):
            record(log, operation)
        assert log == [Increment(3, ("a",)), Increment(3, ("b",))]


class TestDictOfSum:
    """A6: ``"dict of sum"`` adds the difference of each entry."""

    @pytest.mark.parametrize(
        ("before", "after", "newer", "result"),
        [
            ({"a": 1}, {"a": 2}, {"a": 5}, {"a": 6}),
            ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 5}),
            ({"a": 1, "b": 1}, {"b": 1}, {"a": 5, "b": 2}, {"b": 2}),
            (None, {"a": 1}, {"a": 1}, {"a": 2}),
            ({"a": 1}, {"a": 3}, None, {"a": 2}),
            ({"a": 1}, {"a": 3}, "text", {"a": 2}),
            ({"x": {"a": 1}}, {"x": {"a": 2}}, {"x": {"a": 3, "b": 1}}, {"x": {"a": 4, "b": 1}}),
            ({"a": 1}, {"a": 2}, {"a": "text"}, {"a": 2}),
            ([1], {"a": 2}, {"a": 1}, {"a": 3}),
        ],
    )
    def test_the_difference_of_each_entry_is_added_to_the_newer_value(
        self, before, after, newer, result
    ):
        change = Change(
            None if before is None else encode("", before),
            encode("", after),
            Merge.DICT_OF_SUM,
        )
        assert decode(replay([change], None if newer is None else encode("", newer))) == result

    @pytest.mark.parametrize(
        ("merge", "value", "text"),
        [
            (Merge.SUM, "text", r"session\['n'\] is merged as \"sum\".*found str"),
            (Merge.SUM, True, "found bool"),
            (Merge.SUM, None, "found NoneType"),
            (Merge.DICT_OF_SUM, 1, "expected a dict of int and float values, found int"),
            (Merge.DICT_OF_SUM, {"a": {"b": "c"}}, r"session\['n'\]\['a'\]\['b'\].*found str"),
        ],
    )
    def test_a_value_that_cannot_be_summed_is_refused(self, merge, value, text):
        with pytest.raises(TypeError, match=text):
            check_sums("n", value, merge)

    def test_numbers_are_accepted(self):
        check_sums("n", 1.5, Merge.SUM)
        check_sums("n", {"a": 1, "b": {"c": 2.5}}, Merge.DICT_OF_SUM)
        check_sums("n", "text", Merge.DICT)


class TestUnionOfLists:
    @pytest.mark.parametrize(
        ("before", "after", "newer", "result"),
        [
            ([1, 2], [2, 3], [1, 2, 4], [2, 4, 3]),
            ([], [{"a": 1, "b": 2}], [{"b": 2, "a": 1}], [{"b": 2, "a": 1}]),
            ([{"a": [1]}], [], [{"a": [1]}, {"a": [2]}], [{"a": [2]}]),
            ([], [float("nan")], [float("nan")], 1),
            ([1, 1], [1, 1, 2], [1, 1], [1, 1, 2]),
            ([{1, 2}], [{2, 1}, {3}], [{1, 2}], [{1, 2}, {3}]),
        ],
    )
    def test_items_that_were_added_or_removed_are_merged(self, before, after, newer, result):
        change = Change(encode("", before), encode("", after), Merge.UNION)
        merged = decode(replay([change], encode("", newer)))
        assert (len(merged) if result == 1 else merged) == result

    def test_a_merge_of_long_lists_takes_linear_time(self):
        """A6, B-55: eight times the items take about eight times as long, not 64 times."""
        assert cpu_time_of_union(8_000) < 24 * cpu_time_of_union(1_000)


def cpu_time_of_union(size):
    """Return the CPU seconds of a merge of two lists, the shortest of five."""
    base = [f"item {number}" for number in range(size)]
    change = Change(encode("", base), encode("", [*base, "mine"]), Merge.UNION)
    newer = encode("", [*base, "theirs"])
    times = []
    for _ in range(5):
        start = time.process_time()
        merged_list = decode(replay([change], newer))
        times.append(time.process_time() - start)
        assert merged_list[-2:] == ["theirs", "mine"]
    return min(times)

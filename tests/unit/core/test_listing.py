"""Lister: pages, cursors, filters and limits over stores with different page orders."""

import msgspec
import pytest

from sojourn._core.listing import MAX_EXAMINED, MAX_STORE_PAGES, Lister
from sojourn.errors import ConfigurationError
from sojourn.record import NO_VERIFIER, TRANSIT_VERSION, UnreadableRecord, pack_body
from sojourn.store import ListPage
from sojourn.stores.memory import MemoryStore
from sojourn.testing.records import login, make_record, now, save_login
from tests.support.small_stores import PlainStore
from tests.unit.core.engine_harness import World

pytestmark = pytest.mark.anyio


class UnorderedStore(MemoryStore):
    """Returns pages as SCAN does: unordered, with duplicates, larger than requested."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    async def list_page(self, cursor, limit):
        self.sizes.append(limit)
        records = sorted(self.records(), key=lambda record: record.id[::-1])
        start = int(cursor or 0)
        end = start + limit + 3
        page = records[start:end]
        following = str(end) if end < len(records) else ""
        return ListPage(page + page[:2], 0, following, is_ordered=False)


class HashTable(MemoryStore):
    """Returns records in the order of a hash table, starting at the position of the cursor."""

    async def list_page(self, cursor, limit):
        position = bytes.fromhex(cursor)
        places = sorted(record.id[::-1] for record in self.records())
        chosen = [place for place in places if place > position][:limit]
        following = chosen[-1].hex() if len(chosen) == limit else ""
        records = [self.peek(place[::-1]) for place in chosen]
        return ListPage(records, 0, following, is_ordered=False)


class EmptyPages(MemoryStore):
    """Returns endless pages without records of this installation."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    async def list_page(self, cursor, limit):
        self.calls += 1
        return ListPage([], 0, str(int(cursor or 0) + 1))


def lister_over(store):
    world = World()
    world.store = store
    context = msgspec.structs.replace(world.another_process().context, clock=now)
    return Lister(context)


async def pages(lister, limit, *, user=None, labels=None, since=0):
    """Return all pages."""
    found, cursor, is_last = [], "", False
    while not is_last:
        page = await lister.page(cursor, limit, user=user, labels=labels or {}, since=since)
        assert len(page.sessions) <= limit
        found.append(page)
        cursor, is_last = page.cursor, not page.cursor
        assert len(found) < 5_000, "the list does not end"
    return found


async def listed(lister, limit, **filters):
    return [one.record for page in await pages(lister, limit, **filters) for one in page.sessions]


async def fill(store, count, **changes):
    records = [make_record(**changes) for _ in range(count)]
    await store.create_many(records)
    return sorted(records, key=lambda record: record.id)


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
@pytest.mark.parametrize("kind", [MemoryStore, UnorderedStore])
async def test_every_session_is_on_one_page(kind, limit):
    """For any limit; in order if the store is ordered."""
    store = kind()
    records = await fill(store, 250)
    found = await listed(lister_over(store), limit)
    assert sorted(found, key=lambda record: record.id) == records
    if kind is MemoryStore:
        assert found == records


async def test_a_page_that_is_read_again_has_the_same_size():
    """In an unordered store, another size would contain other records."""
    store = UnorderedStore()
    records = await fill(store, 300)
    lister = lister_over(store)
    first = await lister.page("", 20, user=None, labels={}, since=0)
    rest, cursor = [], first.cursor
    while cursor:
        page = await lister.page(cursor, 90, user=None, labels={}, since=0)
        rest += page.sessions
        cursor = page.cursor
    assert store.sizes[:2] == [20, 20]
    ids = [one.record.id for one in first.sessions + rest]
    assert sorted(ids) == [record.id for record in records]


@pytest.mark.parametrize("change", ["delete", "create"])
@pytest.mark.parametrize("since", [0, 1])
async def test_an_unordered_list_misses_no_session(change, since):
    """Even if deletions and creations move the end of a page that is read again."""
    for limit in (3, 20):
        store = HashTable()
        kept, deleted = await fill(store, 200), await fill(store, 200)
        lister = lister_over(store)
        found, page = [], await lister.page("", limit, user=None, labels={}, since=since)
        while page.cursor:
            found += page.sessions
            if change == "create":
                await fill(store, 1)
            else:
                for record in deleted[::40]:
                    await store.delete(record.id)
                del deleted[::40]
            page = await lister.page(page.cursor, limit, user=None, labels={}, since=since)
        listed = {one.record.id for one in (*found, *page.sessions)}
        assert [record for record in kept if record.id not in listed] == []


async def test_only_live_sessions_are_listed():
    """No tombstones, moving or expired records; the page continues after them."""
    store = MemoryStore()
    live = await fill(store, 30)
    at = now()
    await fill(store, 300, version=0)
    await fill(store, 300, version=TRANSIT_VERSION, verifier=NO_VERIFIER)
    await fill(store, 300, seen_at=at - 10, idle_timeout=5)
    page = await lister_over(store).page("", 30, user=None, labels={}, since=0)
    assert [one.record for one in page.sessions] == live
    assert page.examined > 300


async def test_a_page_without_filters_examines_a_bounded_number_of_records():
    """It ends among expired records, with a cursor."""
    store = MemoryStore()
    await fill(store, MAX_EXAMINED + 500, seen_at=1, idle_timeout=1)
    last = make_record(id=b"\xff" * 16)
    await store.create(last)
    first, second = await pages(lister_over(store), 1000)
    assert (first.sessions, first.examined) == ([], MAX_EXAMINED)
    assert [one.record for one in second.sessions] == [last]


async def test_a_page_over_foreign_keys_is_bounded():
    store = EmptyPages()
    page = await lister_over(store).page("", 10, user=None, labels={}, since=0)
    assert (page.sessions, page.cursor) == ([], f".{MAX_STORE_PAGES}")
    assert store.calls == MAX_STORE_PAGES


@pytest.mark.parametrize("kind", [MemoryStore, UnorderedStore])
async def test_a_filtered_page_examines_a_bounded_number_of_records(kind):
    """No matching session is skipped or repeated."""
    store = kind()
    at = now()
    records = [
        make_record(
            seen_at=at - number % 2 * 60_000,
            body=pack_body(None, {"tenant": f"t-{number % 500}", "browser": "Lynx"}, {}),
        )
        for number in range(5_000)
    ]
    await store.create_many(records)
    lister = lister_over(store)
    for limit in (1, 3, 1000):
        every = await pages(lister, limit, labels={"tenant": "t-7", "browser": "Lynx"})
        found = [one.record.id for page in every for one in page.sessions]
        assert sorted(found) == sorted(record.id for record in records[7::500])
        assert max(page.examined for page in every) < MAX_EXAMINED + 300
        if limit == 1000:
            assert len(every) > 2
    assert await listed(lister, 50, labels={"tenant": "none"}) == []
    recent = await listed(lister, 900, since=at - 1000)
    assert {record.id for record in recent} == {record.id for record in records[::2]}


async def test_damaged_records_are_counted_as_unreadable():
    """S9: whether the store or the codec cannot read them."""
    store = MemoryStore()
    fine = (await fill(store, 3))[0]
    await fill(store, 2, body=b"\x93\xa1")
    await save_login(store, login(None, "ada"), 0)
    lister = lister_over(store)
    (page,) = await pages(lister, 100)
    assert (len(page.sessions), page.unreadable, page.examined) == (4, 2, 6)
    assert (await lister.find(fine.id)).record == fine
    assert await lister.find(bytes(16)) is None
    damaged = make_record(body=b"\x93\xa1")
    await store.create(damaged)
    assert await lister.find(damaged.id) is None


class UnreadableStore(MemoryStore):
    async def load(self, session_id):
        raise UnreadableRecord("damaged")


async def test_a_session_that_the_store_cannot_read_is_not_found():
    """S9."""
    assert await lister_over(UnreadableStore()).find(bytes(16)) is None


async def test_the_sessions_of_a_user_are_listed_in_pages():
    """S15: newest login first, then by ID; filters apply."""
    store = MemoryStore()
    at = now()
    for number in range(60):
        record = login(None, "ada", at=at - number // 3, seen_at=at - number % 2 * 60_000)
        await save_login(store, record, 0)
    lister = lister_over(store)
    every = await lister.user_sessions("ada")
    order = [(one.record.authenticated_at, one.record.id) for one in every]
    assert order == sorted(order, reverse=True)
    assert len(order) == 60
    for limit in (1, 7, 60, 61):
        assert await listed(lister, limit, user="ada") == [one.record for one in every]
    recent = await listed(lister, 4, user="ada", since=at - 1000)
    assert recent == [one.record for one in every if one.record.seen_at == at]
    assert await listed(lister, 4, user="ada", labels={"browser": "Lynx"}) == []
    assert await listed(lister, 4, user="bob") == []


async def test_a_session_that_ends_between_two_pages_hides_no_other_session():
    store = MemoryStore()
    records = await fill(store, 30)
    lister = lister_over(store)
    first = await lister.page("", 10, user=None, labels={}, since=0)
    await store.delete(records[9].id)
    await store.delete(records[10].id)
    second = await lister.page(first.cursor, 100, user=None, labels={}, since=0)
    assert [one.record for one in second.sessions] == records[11:]


@pytest.mark.parametrize("limit", [0, -1, 1001, 2.5, True, "10"])
async def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match="limit expects 1 to 1,000, found"):
        await lister_over(MemoryStore()).page("", limit, user=None, labels={}, since=0)


@pytest.mark.parametrize(
    "cursor",
    [
        *("x", ".", "..", ".zz", "12", "0" * 32, f"{'0' * 32}-0.", f"{'0' * 32}-1001.{'0' * 32}"),
        *(f"{'0' * 31}-10.", f"{'0' * 32}-.", f"{'0' * 32}.", f"5:{'0' * 32}"),
        *(f"{'0' * 32}-10-.", f"{'0' * 32}-10-3.xy", f"{'0' * 32}-0-1.x"),
        *(None, 5, b"x"),
    ],
)
async def test_an_invalid_cursor_is_refused(cursor):
    store = MemoryStore()
    await fill(store, 3)
    with pytest.raises(ValueError, match="cursor expects that of the previous page"):
        await lister_over(store).page(cursor, 10, user=None, labels={}, since=0)


@pytest.mark.parametrize("cursor", [None, 5, "x", f".{'0' * 32}", f"5:{'0' * 31}", f"x:{'0' * 32}"])
async def test_an_invalid_cursor_of_a_user_is_refused(cursor):
    with pytest.raises(ValueError, match="cursor expects that of the previous page"):
        await lister_over(MemoryStore()).page(cursor, 10, user="ada", labels={}, since=0)


async def test_the_error_of_a_store_that_cannot_list_names_the_store():
    lister = lister_over(PlainStore())
    with pytest.raises(ConfigurationError, match="cannot list its sessions"):
        await lister.page("", 10, user=None, labels={}, since=0)
    with pytest.raises(ConfigurationError, match="has no index of users"):
        await lister.page("", 10, user="ada", labels={}, since=0)

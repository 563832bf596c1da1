"""NearCache: age, memory, loads in progress and the confirmation, with clocks of the test."""

import msgspec
import pytest

from sojourn.live.near_cache import CONFIRMATION_LIFETIME, NearCache
from sojourn.testing.records import make_record
from tests.support.near_cache_process import Time

MAX_AGE = 1.0


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def cache(time):
    """A cache whose subscription is confirmed for the whole test."""
    cache = NearCache(MAX_AGE, 10_000, monotonic=time.monotonic, wall=time.wall)
    cache.confirm(time.now + 1e6)
    return cache


def load(cache, record):
    cache.put(cache.reserve(record.id), record)
    return record


def with_body(size):
    return msgspec.structs.replace(make_record(), body=b"x" * size)


def test_a_record_is_served_until_it_is_too_old(cache, time):
    """N1: less than ``max_age`` after the start of its load."""
    record = load(cache, make_record())
    time.now += MAX_AGE - 0.001
    assert cache.get(record.id) is record
    time.now += 0.001
    assert cache.get(record.id) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_age_counts_from_the_start_of_the_load(cache, time):
    """N1: the reply may show the record at any instant since then."""
    record = make_record()
    reservation = cache.reserve(record.id)
    time.now += 0.9
    cache.put(reservation, record)
    assert cache.get(record.id) is record
    time.now += 0.2
    assert cache.get(record.id) is None


@pytest.mark.parametrize("step", [3600.0, MAX_AGE, -0.001, -3600.0])
def test_a_record_is_not_served_if_the_clocks_disagree(cache, time, step):
    """N1: as after a suspension, in which the monotonic clock stands still."""
    record = load(cache, make_record())
    time.step += step
    assert cache.get(record.id) is None


def test_a_monotonic_clock_that_runs_backwards_serves_nothing(cache, time):
    """N1: in a child process or a restored virtual machine it may."""
    record = load(cache, make_record())
    time.now -= 5
    time.step += 5
    assert cache.get(record.id) is None


def test_an_absent_record_is_not_remembered(cache):
    """N4: only the store can say that a session exists, and that it does not."""
    record = load(cache, make_record())
    cache.put(cache.reserve(record.id), None)
    assert cache.get(record.id) is None
    assert (len(cache), cache.size) == (0, 0)


def test_a_discarded_record_is_not_served(cache):
    """N2: nor its second copy."""
    record, other = load(cache, make_record()), load(cache, make_record())
    cache.discard(record.id)
    cache.discard(record.id)
    assert cache.get(record.id) is None
    assert cache.get(other.id) is other
    cache.clear()
    assert cache.get(other.id) is None
    assert cache.size == 0


@pytest.mark.parametrize("end", ["discard", "clear", "lose"])
def test_a_load_in_progress_does_not_bring_a_discarded_record_back(cache, time, end):
    """N2: the store may have answered it before the revocation."""
    record = make_record()
    reservation = cache.reserve(record.id)
    if end == "discard":
        cache.discard(record.id)
    elif end == "clear":
        cache.clear()
    else:
        cache.expire_confirmation()
        cache.confirm(time.now)
    cache.put(reservation, record)
    assert cache.get(record.id) is None


def test_of_two_loads_the_later_one_is_kept(cache):
    """N1: the answer of the earlier one may arrive last."""
    record = make_record()
    newer = msgspec.structs.replace(record, version=record.version + 1)
    first, second = cache.reserve(record.id), cache.reserve(record.id)
    cache.put(second, newer)
    cache.put(first, record)
    assert cache.get(record.id) is newer


def test_failed_loads_leave_nothing_behind(cache):
    """N5: a reservation ends with its load."""
    for _ in range(100):
        cache.put(cache.reserve(make_record().id), None)
    assert (len(cache), cache.loading()) == (0, 0)


def test_the_memory_is_bounded(cache):
    """N5: the records that were loaded first go first, and one that is too large is not kept."""
    records = [load(cache, with_body(2_000)) for _ in range(5)]
    assert [cache.get(r.id) is r for r in records] == [False, False, True, True, True]
    assert cache.size == 9_000
    load(cache, with_body(10_000))
    assert (len(cache), cache.size) == (0, 0)


def test_a_record_that_is_loaded_again_is_counted_once(cache):
    """N5: its former size does not stay."""
    record = load(cache, with_body(500))
    assert cache.size == 1_500
    load(cache, msgspec.structs.replace(record, body=b"x" * 700))
    assert cache.size == 1_700


def test_records_that_are_too_old_are_removed_when_others_come(cache, time):
    """N5: two for each new one, so that a request does not pay for all."""
    old = [load(cache, with_body(100)) for _ in range(5)]
    time.now += MAX_AGE
    load(cache, with_body(100))
    assert len(cache) == 4
    load(cache, with_body(100))
    assert len(cache) == 3
    load(cache, with_body(100))
    assert len(cache) == 3  # the three new ones
    assert all(cache.get(record.id) is None for record in old)


def test_nothing_is_served_without_a_confirmed_subscription(time):
    """N1: before the first confirmation, and three seconds after the last probe was sent."""
    cache = NearCache(1e6, 10_000, monotonic=time.monotonic, wall=time.wall)
    record = load(cache, make_record())
    assert cache.get(record.id) is None
    cache.confirm(time.now)
    cache.confirm(time.now - 2)  # a late probe does not shorten the confirmation
    time.now += CONFIRMATION_LIFETIME - 0.001
    assert cache.get(record.id) is record
    assert cache.is_confirmed()
    time.now += 0.001
    assert cache.get(record.id) is None
    assert not cache.is_confirmed()


def test_a_lost_confirmation_empties_the_memory(cache):
    """N1: messages may have been missed."""
    record = load(cache, make_record())
    cache.expire_confirmation()
    assert (cache.get(record.id), len(cache), cache.is_confirmed()) == (None, 0, False)


def test_the_confirmation_is_requested_once_a_second_at_most(time):
    """N1: no thread wakes while there are no requests."""
    requests = []
    cache = NearCache(MAX_AGE, 10_000, monotonic=time.monotonic, wall=time.wall)
    cache.get(b"1" * 16)
    cache.request_confirmation = lambda: requests.append(time.now)
    for _ in range(30):
        time.now += 0.1
        cache.get(b"1" * 16)
    assert len(requests) in (2, 3)


def test_a_child_process_starts_empty(cache):
    """N5: also with a load in progress and a lock that was held."""
    record = load(cache, make_record())
    reservation = cache.reserve(record.id)
    cache.reset()
    cache.put(reservation, record)
    assert (cache.get(record.id), len(cache), cache.size) == (None, 0, 0)
    assert not cache.is_confirmed()

"""Checks of a sample of records: unreadable ones, and expired ones that no purge has removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sojourn.cli.doctor_checks.context import CheckContext, RecordSample
from sojourn.cli.doctor_checks.findings import Finding, error, info, warning
from sojourn.errors import StoreError
from sojourn.record import Record, UnreadableRecord
from sojourn.store import NeedsPurge, SupportsListing

UNREADABLE: Final = error(
    "records-unreadable",
    "records that this release can read",
    "upgrade sojourn here, if a newer release writes to the store; give another program its own "
    "prefix, schema or file; look for damage of the store's disk",
)
PURGE_LAG: Final = warning(
    "records-purge-lag",
    "expired records that are removed within two purge intervals",
    "run `sojourn purge` now; a process that creates sessions purges in the background, so look "
    "for errors of the purge in its log",
)

UNLISTED: Final = info(
    "records-not-listed",
    "a user that may list records, so that a sample can be examined",
    "add +scan to the ACL user (Valkey and Redis), which `sojourn list` needs, too; or run the "
    "doctor once as an administrator",
)

PROBLEMS: Final = (UNREADABLE, PURGE_LAG, UNLISTED)

#: Records of the sample, and of one page of it: a page holds a server for a millisecond or two.
_SAMPLE: Final = 1_000
_PAGE: Final = 100

#: Expired records that are a lag: their number, and their part of the sample.
_MIN_EXPIRED: Final = 20
_MIN_EXPIRED_PART: Final = 0.1


def check_records(context: CheckContext) -> Iterator[Finding]:
    """Read a sample of records."""
    store = context.store
    if not isinstance(store, SupportsListing):
        return
    context.sample = sample = RecordSample()
    cursor = ""
    for _ in range(_SAMPLE // _PAGE):
        try:
            page = context.run(store.list_page(cursor, _PAGE))
        except StoreError as failure:
            if "NOPERM" not in str(failure):
                raise
            yield UNLISTED.finding(str(failure))
            break
        sample.records += page.records
        sample.unreadable += page.unreadable
        cursor = page.cursor
        if not cursor:
            break
    damaged = sum(not _is_readable(record) for record in sample.records)
    if sample.unreadable + damaged:
        total = len(sample.records) + sample.unreadable
        yield UNREADABLE.finding(f"{sample.unreadable + damaged} of {total} records are unreadable")
    if isinstance(store, NeedsPurge):
        yield from _check_lag(context, sample, store.purge_interval)


def _is_readable(record: Record) -> bool:
    try:
        record.metadata()
    except UnreadableRecord:
        return False
    return True


def _check_lag(
    context: CheckContext, sample: RecordSample, purge_interval: float
) -> Iterator[Finding]:
    latest = context.now() - 2 * int(purge_interval * 1000)
    late = sum(record.expires_at < latest for record in sample.records)
    if late >= max(_MIN_EXPIRED, _MIN_EXPIRED_PART * len(sample.records)):
        yield PURGE_LAG.finding(
            f"{late} of {len(sample.records)} records expired over {2 * purge_interval:g} s ago"
        )
